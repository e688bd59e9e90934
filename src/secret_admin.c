/*
 * secret_admin.c
 *		retry.set_secret() and retry.drop_secret().
 *
 * A value passes from the argument straight into the table's heap: no SQL
 * statement has it as text or parameter, so nothing that shows, logs or counts
 * statements sees it here.  What the caller's own statement looks like is the
 * caller's business, see doc/security.md.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "audit.h"
#include "arguments.h"
#include "other_triggers.h"
#include "pem.h"
#include "quote.h"
#include "row.h"
#include "scene.h"
#include "secret.h"
#include "signature.h"
#include "statement.h"
#include "store.h"
#include "url.h"
#include "wakeup.h"

PG_FUNCTION_INFO_V1(retry_set_secret);
PG_FUNCTION_INFO_V1(retry_drop_secret);
PG_FUNCTION_INFO_V1(retry_secret_names);
PG_FUNCTION_INFO_V1(retry_check_secret);

#define OVERLAP_MAX_DAYS	366

/* A secret that is being changed; its group is locked against others who do. */
typedef struct Change
{
	RetryGroupRow group;
	char	   *name;
	Relation	rel;
	Snapshot	snapshot;		/* sees all that was changed before */
	TimestampTz now;
	TimestampTz until;			/* former values sign no longer than this */
	int			kept;			/* former values that go on */
	TimestampTz newest;			/* of the former ones */
} Change;

/* Checks what both functions are given, and begins the change. */
static void
begin_change(Change *change, const text *name, const text *group_name, const char *function)
{
	memset(change, 0, sizeof(*change));
	change->name = text_to_cstring(name);
	retry_own_group(text_to_cstring(group_name), "change secrets of", &change->group);
	if (!retry_name_check(change->name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a secret: \"%s\" is not 1 to %d lower-case letters, digits, _ and -",
						retry_quoted_string(change->name), RETRY_SECRET_NAME_MAX)));
	retry_require_writable(function);

	change->rel = table_open(retry_relation_oid("secret"), RowExclusiveLock);
	retry_refuse_other_triggers(change->rel);
	LockDatabaseObject(RelationGetRelid(change->rel), change->group.id, 0, ExclusiveLock);
	change->snapshot = RegisterSnapshot(GetLatestSnapshot());
	change->now = GetCurrentTimestamp();
}

/* For people, and to the dispatchers. */
static void
end_change(Change *change, const char *kind)
{
	Oid			types[] = {INT4OID, TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];
	RetryAuditEntry entry = {0};

	UnregisterSnapshot(change->snapshot);
	table_close(change->rel, NoLock);
	CommandCounterIncrement();

	values[0] = Int32GetDatum(change->group.id);
	values[1] = CStringGetTextDatum(kind);
	values[2] = CStringGetTextDatum(psprintf("\"%s\", by %s", change->name,
											 GetUserNameFromId(GetSessionUserId(), false)));
	retry_statement_as_owner("INSERT INTO retry.event (at, group_id, kind, detail)"
							 " VALUES (pg_catalog.clock_timestamp(), $1, $2, $3)",
							 lengthof(types), types, values, SPI_OK_INSERT);
	entry.action = kind;
	entry.group = &change->group;
	entry.object = change->name;
	retry_audit(&entry);
	retry_wakeup_config();
}

static SysScanDesc
scan_values(Relation rel, Snapshot snapshot, int32 group_id, const char *name)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], Secret_group_id + 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(group_id));
	ScanKeyEntryInitialize(&keys[1], 0, Secret_name + 1, BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(name));
	return systable_beginscan(rel, retry_relation_oid("secret_pkey"), true, snapshot, lengthof(keys), keys);
}

/* The value is the current one. */
static bool
is_current(Change *change, const text *value)
{
	SysScanDesc scan = scan_values(change->rel, change->snapshot, change->group.id, change->name);
	HeapTuple	tuple;
	bool		same = false;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Secret_natts];
		bool		isnull[Secret_natts];

		retry_row_read(tuple, RelationGetDescr(change->rel), Secret_natts, values, isnull);
		if (isnull[Secret_signs_until])
			same = DatumGetBool(DirectFunctionCall2Coll(texteq, DEFAULT_COLLATION_OID,
														values[Secret_value], PointerGetDatum(value)));
	}
	systable_endscan(scan);
	return same;
}

/*
 * Former values sign until the end of the overlap, or their own if that is
 * earlier; what is over is deleted, and so is what "same" is, which comes anew.
 * Returns how many there were.
 */
static int
retire_values(Change *change, const text *same)
{
	SysScanDesc scan = scan_values(change->rel, change->snapshot, change->group.id, change->name);
	HeapTuple	tuple;
	int			count = 0;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Secret_natts];
		bool		isnull[Secret_natts];
		TimestampTz until = change->until;
		int			column = Secret_signs_until + 1;
		Datum		new_until;
		bool		is_null = false;

		count++;
		retry_row_read(tuple, RelationGetDescr(change->rel), Secret_natts, values, isnull);
		change->newest = Max(change->newest, DatumGetTimestampTz(values[Secret_set_at]));
		if (!isnull[Secret_signs_until])
			until = Min(until, DatumGetTimestampTz(values[Secret_signs_until]));
		if (until <= change->now ||
			(same != NULL && DatumGetBool(DirectFunctionCall2Coll(texteq, DEFAULT_COLLATION_OID,
																  values[Secret_value], PointerGetDatum(same)))))
		{
			CatalogTupleDelete(change->rel, &tuple->t_self);
			continue;
		}
		new_until = TimestampTzGetDatum(until);
		CatalogTupleUpdate(change->rel, &tuple->t_self,
						   heap_modify_tuple_by_cols(tuple, RelationGetDescr(change->rel), 1, &column,
													 &new_until, &is_null));
		change->kept++;
	}
	systable_endscan(scan);
	return count;
}

/* What a value can be used for. */
typedef enum ValueKind
{
	VALUE_TEXT,					/* in headers */
	VALUE_KEY,					/* there, and to sign with */
	VALUE_CERTIFICATE			/* as client certificate */
} ValueKind;

/* ERROR, which never shows the value, unless it is a good one. */
static void
check_certificate(const char *name, const char *bytes, int len)
{
	char		why[256];

	if (len > RETRY_PEM_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("value of secret \"%s\" has %d bytes, not 1 to %d", name, len, RETRY_PEM_MAX_BYTES)));
	if (!retry_pem_check_identity(bytes, len, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("value of secret \"%s\" is no client certificate: %s", name, why),
				 errhint("It must hold the certificate, those of its issuers if receivers need them, and its private key, unencrypted, in PEM form.")));
}

/* ERROR, which never shows the value, unless it can be one. */
static ValueKind
check_value(const char *name, const text *value)
{
	const char *bytes = VARDATA_ANY(value);
	int			len = VARSIZE_ANY_EXHDR(value);
	RetrySignKind key_kind;
	RetrySignKey key;
	char		why[256];
	int			prefix_len;

	if (retry_pem_is_like(bytes, len))
	{
		check_certificate(name, bytes, len);
		return VALUE_CERTIFICATE;
	}
	if (len < 1 || len > RETRY_SECRET_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("value of secret \"%s\" has %d bytes, not 1 to %d", name, len, RETRY_SECRET_MAX_BYTES)));
	key_kind = retry_sign_kind(bytes, len, &prefix_len);
	retry_sign_require(key_kind);
	if (key_kind != RETRY_SIGN_NONE)
	{
		bool		good = retry_sign_read_key(bytes, len, &key);

		explicit_bzero(&key, sizeof(key));
		if (!good || key_kind == RETRY_SIGN_PUBLIC)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("value of secret \"%s\" begins with %.*s, but is no key that signs", name, prefix_len, bytes),
					 errhint(RETRY_SIGN_KEY_HINT)));
		return VALUE_KEY;
	}
	if (!retry_header_check("X", 1, bytes, len, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("value of secret \"%s\" has control characters", name),
				 errdetail("It could not stand in a header."),
				 errhint("Look for a line break at its end.")));
	return VALUE_TEXT;
}

/*
 * The scenes of the group whose column has the secret's name, "a, b"; NULL: none.
 * "more" is a further condition, or empty.
 * Since the group is locked none can come to that is not seen now.
 */
static char *
scenes_naming(const char *column, const char *more, int32 group_id, const char *name)
{
	Oid			types[] = {INT4OID, TEXTOID};
	Datum		values[] = {Int32GetDatum(group_id), CStringGetTextDatum(name)};
	MemoryContext caller_context = CurrentMemoryContext;
	RetryRoleSwitch caller;
	char	   *found;

	retry_statement_connect();
	retry_become_owner(&caller);
	(void) retry_statement_latest(psprintf("SELECT pg_catalog.string_agg(s.name, ', ' ORDER BY s.name)"
										   " FROM retry.scene s JOIN retry.scene_group g ON g.name OPERATOR(pg_catalog.=) s.group_name"
										   " WHERE g.id OPERATOR(pg_catalog.=) $1 AND s.%s OPERATOR(pg_catalog.=) $2%s", column, more),
								  lengthof(types), types, values);
	found = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (found != NULL)
		found = MemoryContextStrdup(caller_context, found);
	retry_become_caller(&caller);
	SPI_finish();
	return found;
}

/* ERROR when scenes use the secret as what the new value is not. */
static void
check_use(const Change *change, ValueKind kind)
{
	char	   *scenes;

	if (kind != VALUE_KEY &&
		(scenes = scenes_naming("secret", " AND s.secret_use OPERATOR(pg_catalog.=) 'webhook'", change->group.id, change->name)) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("value of secret \"%s\" is no key, but it signs for scenes of group \"%s\": %s",
						change->name, change->group.name, scenes),
				 errhint(RETRY_SIGN_KEY_HINT)));
	if (kind != VALUE_CERTIFICATE &&
		(scenes = scenes_naming("tls_cert", "", change->group.id, change->name)) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("value of secret \"%s\" is no client certificate, but it is that of scenes of group \"%s\": %s",
						change->name, change->group.name, scenes),
				 errhint("A client certificate and its private key are written in PEM form, -----BEGIN CERTIFICATE----- and so on.")));
}

/* When former values are over; ERROR for an overlap that makes no sense. */
static TimestampTz
end_of_overlap(TimestampTz now, Interval *overlap)
{
	TimestampTz until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
																TimestampTzGetDatum(now),
																IntervalPGetDatum(overlap)));

	if (until < now || until > now + OVERLAP_MAX_DAYS * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("overlap is not between 0 and %d days: %s", OVERLAP_MAX_DAYS,
						DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(overlap))))));
	return until;
}

static void
insert_value(Change *change, ValueKind kind, const text *value)
{
	Datum		values[Secret_natts];
	bool		isnull[Secret_natts] = {0};
	RetryAppender *appender;

	values[Secret_group_id] = Int32GetDatum(change->group.id);
	values[Secret_name] = CStringGetTextDatum(change->name);

	/* a clock that was set back must not make it older than the others */
	values[Secret_set_at] = TimestampTzGetDatum(Max(change->now, change->newest + 1));
	values[Secret_signs_until] = (Datum) 0;
	isnull[Secret_signs_until] = true;
	values[Secret_signs] = BoolGetDatum(kind == VALUE_KEY);
	values[Secret_certificate] = BoolGetDatum(kind == VALUE_CERTIFICATE);
	values[Secret_value] = PointerGetDatum(value);
	appender = retry_append_begin(RelationGetRelid(change->rel), Secret_natts, false);
	retry_append_row(appender, values, isnull);
	retry_append_end(appender);
}

/* retry.set_secret(name, value, group_name, overlap) */
Datum
retry_set_secret(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"name", "value", "group_name", "overlap"};
	Change		change;
	text	   *value;
	ValueKind	kind;
	int			former;

	for (int i = 0; i < lengthof(names); i++)
		retry_require_argument(fcinfo, i, names[i]);
	begin_change(&change, PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(2), "retry.set_secret()");
	value = PG_GETARG_TEXT_PP(1);
	change.until = end_of_overlap(change.now, PG_GETARG_INTERVAL_P(3));
	kind = check_value(change.name, value);
	check_use(&change, kind);

	/* to be told the same twice is not a rotation */
	if (is_current(&change, value))
	{
		UnregisterSnapshot(change.snapshot);
		table_close(change.rel, NoLock);
		PG_RETURN_VOID();
	}
	former = retire_values(&change, value);
	if (change.kept >= RETRY_SECRET_MAX_VALUES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("secret \"%s\" has %d former values that are still in force", change.name, change.kept),
				 errhint("A shorter overlap ends them earlier; overlap => '0' at once.")));
	insert_value(&change, kind, value);
	end_change(&change, former > 0 ? "secret rotated" : "secret set");
	PG_RETURN_VOID();
}

/* retry.drop_secret(name, group_name) */
Datum
retry_drop_secret(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"name", "group_name"};
	Change		change;

	for (int i = 0; i < lengthof(names); i++)
		retry_require_argument(fcinfo, i, names[i]);
	begin_change(&change, PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1), "retry.drop_secret()");
	change.until = DT_NOBEGIN;
	if (retire_values(&change, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("secret \"%s\" of group \"%s\" is not set", change.name, change.group.name),
				 errhint("The view retry.secrets shows those that are.")));
	end_change(&change, "secret dropped");
	PG_RETURN_VOID();
}

/* retry.secret_names(headers): those that the headers name. */
Datum
retry_secret_names(PG_FUNCTION_ARGS)
{
	Jsonb	   *headers = PG_GETARG_JSONB_P(0);
	ArrayBuildState *names = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	JsonbIterator *it = JsonbIteratorInit(&headers->root);
	JsonbIteratorToken token;
	JsonbValue	part;

	while ((token = JsonbIteratorNext(&it, &part, true)) != WJB_DONE)
	{
		int			from = 0;
		RetrySecretRef ref;

		if (token != WJB_VALUE || part.type != jbvString)
			continue;
		while (retry_secret_ref_next(part.val.string.val, part.val.string.len, from, &ref) == RETRY_SECRET_REF_GOOD)
		{
			text	   *name = cstring_to_text_with_len(part.val.string.val + ref.name_at, ref.name_len);

			names = accumArrayResult(names, PointerGetDatum(name), false, TEXTOID, CurrentMemoryContext);
			from = ref.end;
		}
	}
	PG_RETURN_DATUM(makeArrayResult(names, CurrentMemoryContext));
}

/*
 * retry.check_secret(group_name, name, certificate): for the trigger of retry.scene.  Who
 * changes secrets of the group meanwhile is waited for, and waits for us; what
 * that left is what counts, whatever our transaction saw before.
 */
Datum
retry_check_secret(PG_FUNCTION_ARGS)
{
	char	   *group_name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	text	   *name = PG_GETARG_TEXT_PP(1);
	RetryGroupRow group;
	const RetrySecret *secret;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		found = retry_group_by_name(snapshot, group_name, &group);
	int			count;

	UnregisterSnapshot(snapshot);
	if (!found)
		PG_RETURN_BOOL(true);
	LockDatabaseObject(retry_relation_oid("secret"), group.id, 0, ShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	secret = retry_secrets_find(retry_secrets_of_group(group.id, snapshot), group.id,
								VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), &count);
	UnregisterSnapshot(snapshot);
	PG_RETURN_BOOL(secret == NULL || (PG_GETARG_BOOL(2) ? secret->certificate : secret->key.len > 0));
}
