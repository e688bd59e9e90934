/*
 * schedule_run.c
 *		Runs the schedules that are due: retry.run_schedules(), and what the
 *		worker does.
 *
 * How far a schedule has come is the newest row of retry.schedule_run that is
 * not in the future (the clock may have been), so nothing is remembered that a
 * restart could lose.  Whoever runs a schedule locks its definition, looks
 * again, and commits task and row together.  One that is locked is passed over:
 * somebody is at it, or changes it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "event.h"
#include "scene.h"
#include "schedule.h"
#include "statement.h"
#include "subtransaction.h"

PG_FUNCTION_INFO_V1(retry_run_schedules);

/* A run that is less late than this is none that was missed. */
#define LATE_US		USECS_PER_MINUTE

/* Missed runs that are made up for at one look (missed => 'all'). */
#define RUNS_AT_ONCE	1000

/* A schedule as it is now. */
typedef struct Definition
{
	RetryScheduled what;
	int32		id;
	RetryCron	cron;
	RetryZone	zone;
	char		missed;			/* s(kip), o(nce), a(ll) */
	TimestampTz after;			/* what it names up to here is dealt with */
	TimestampTz end;			/* and later than this is not to be run yet */
} Definition;

/* ---------------------------------------------------------------- enqueue */

static const char *const enqueue_run =
"SELECT retry.enqueue(target => $1, payload => $2,"
" key => $3 || '@' || to_char($4 AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),"
" lane => $5->>'lane', url => $5->>'url', method => $5->>'method', headers => $5->'headers',"
" content_type => $5->>'content_type', max_attempts => ($5->>'max_attempts')::int,"
" expires_at => clock_timestamp() + ($5->>'expires_after')::interval,"
" reference => $5->>'reference', timeout => ($5->>'timeout')::interval,"
" backoff => ($5->>'backoff')::retry.backoff,"
" on_success => $5->>'on_success', on_dead => $5->>'on_dead', on_conflict => 'error')";

/* What is to be enqueued, at which moment of the schedule, and the task that it becomes. */
typedef struct Enqueuing
{
	const RetryScheduled *what;
	TimestampTz nominal;
	pg_uuid_t  *id;
} Enqueuing;

static void
enqueue_as_owner(void *arg)
{
	const Enqueuing *enqueuing = arg;
	const RetryScheduled *what = enqueuing->what;
	Oid			types[5] = {TEXTOID, JSONBOID, TEXTOID, TIMESTAMPTZOID, JSONBOID};
	Datum		values[5] = {
		PointerGetDatum(what->target), JsonbPGetDatum(what->payload),
		what->name != NULL ? CStringGetTextDatum(what->name) : (Datum) 0, TimestampTzGetDatum(enqueuing->nominal), JsonbPGetDatum(what->options)
	};
	char		nulls[6] = "     ";
	Oid			role;
	int			sec_context;
	bool		isnull;
	Datum		result;

	if (what->payload == NULL)
		nulls[1] = 'n';
	if (what->name == NULL)
		nulls[2] = 'n';
	if (enqueuing->nominal == DT_NOBEGIN)
		nulls[3] = 'n';
	if (what->options == NULL)
		nulls[4] = 'n';
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(what->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", what->owner)));

	/* RESET ROLE and the like must not lead out of it */
	GetUserIdAndSecContext(&role, &sec_context);
	SetUserIdAndSecContext(what->owner, SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	(void) retry_statement(enqueue_run, 5, types, values, nulls, SPI_OK_SELECT);
	result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	*enqueuing->id = *DatumGetUUIDP(result);
	SPI_freetuptable(SPI_tuptable);
	SetUserIdAndSecContext(role, sec_context);
}

/* Has the error nothing to do with what was to be enqueued? */
static bool
will_pass(int sqlerrcode)
{
	/* a limit of its group, for which others' schedules must not wait */
	if (sqlerrcode == ERRCODE_CONFIGURATION_LIMIT_EXCEEDED)
		return false;
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* transaction rollback */
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* operator intervention */
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):	/* system */
			return true;
	}
	return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

ErrorData *
retry_schedule_enqueue(const RetryScheduled *what, TimestampTz nominal, pg_uuid_t *id)
{
	Enqueuing	enqueuing = {what, nominal, id};
	ErrorData  *error = retry_subtransaction(enqueue_as_owner, &enqueuing, nominal != DT_NOBEGIN);

	if (error != NULL && will_pass(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

/* ---------------------------------------------------------------- the notes */

/* Was this run noted before?  Then the clock has been set back since. */
static bool
is_noted(int32 id, TimestampTz nominal)
{
	Oid			types[2] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[2] = {Int32GetDatum(id), TimestampTzGetDatum(nominal)};
	bool		noted = retry_statement("SELECT FROM retry.schedule_run r"
										" WHERE r.schedule_id = $1 AND r.nominal = $2",
										2, types, values, NULL, SPI_OK_SELECT) > 0;

	SPI_freetuptable(SPI_tuptable);
	return noted;
}

/* The group whose events tell of it: that of its scene, or the group of URLs. */
static int32
group_of(const Definition *d)
{
	char		group[RETRY_NAME_MAX + 1];
	char		scene[RETRY_NAME_MAX + 1];
	RetryGroupRow row;

	if (!retry_scene_parse(text_to_cstring(d->what.target), group, scene))
		strlcpy(group, RETRY_DEFAULT_NAME, sizeof(group));
	return retry_group_by_name(GetActiveSnapshot(), group, &row) ? row.id : 0;
}

/*
 * Says in the log and in the events that a run failed: when the one before did
 * not, or not for the same reason, or in another hour.
 */
static void
tell_failure(const Definition *d, TimestampTz nominal, const ErrorData *error)
{
	Oid			types[3] = {INT4OID, TIMESTAMPTZOID, TEXTOID};
	Datum		values[3] = {
		Int32GetDatum(d->id), TimestampTzGetDatum(nominal), CStringGetTextDatum(error->message)
	};
	bool		is_news = retry_statement("SELECT FROM (SELECT r.error, r.at FROM retry.schedule_run r"
										  "  WHERE r.schedule_id = $1 AND r.nominal < $2 ORDER BY r.nominal DESC LIMIT 1) p"
										  " WHERE p.error = $3 AND date_trunc('hour', p.at) = date_trunc('hour', clock_timestamp())",
										  3, types, values, NULL, SPI_OK_SELECT) == 0;

	SPI_freetuptable(SPI_tuptable);
	if (is_news)
	{
		const char *role = GetUserNameFromId(d->what.owner, true);
		RetryEvent	event = {
			.kind = RETRY_EVENT_SCHEDULE_FAILED,.group_id = group_of(d),
			.detail = psprintf("schedule \"%s\" of role \"%s\": %s", d->what.name, role != NULL ? role : "?", error->message)
		};

		ereport(LOG,
				(errmsg("retry: schedule \"%s\" of role \"%s\" could not run: %s",
						d->what.name, role != NULL ? role : "?", error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0));
		(void) retry_event_store(&event, false);
	}
}

/* id NULL: missed.  The primary key keeps two from noting the same run. */
static void
note_run(const Definition *d, TimestampTz nominal, const pg_uuid_t *id, const ErrorData *error)
{
	Oid			types[4] = {INT4OID, TIMESTAMPTZOID, UUIDOID, TEXTOID};
	Datum		values[4] = {Int32GetDatum(d->id), TimestampTzGetDatum(nominal), UUIDPGetDatum(id), (Datum) 0};
	char		nulls[5] = "    ";

	if (id == NULL)
		nulls[2] = 'n';
	if (error != NULL)
		values[3] = CStringGetTextDatum(error->message);
	else
		nulls[3] = 'n';
	(void) retry_statement("INSERT INTO retry.schedule_run (schedule_id, nominal, task_id, error)"
						   " VALUES ($1, $2, $3, $4)", 4, types, values, nulls, SPI_OK_INSERT);
}

/* ---------------------------------------------------------------- what is due */

/* The definitions of active schedules, of only one when an id is given. */
static const char *const read_definitions =
"SELECT s.id, s.name, s.owner, s.cron, s.tz, s.target, s.payload, s.options, s.missed, s.cron_job IS NOT NULL,"
" greatest(s.since, s.allowed_from, (SELECT max(r.nominal) FROM retry.schedule_run r"
"  WHERE r.schedule_id = s.id AND r.nominal <= $1))"
" FROM retry.schedule_rows s WHERE s.active AND ($2 = 0 OR s.id = $2) ORDER BY s.id";

enum
{
	R_id = 1, R_name, R_owner, R_cron, R_tz, R_target, R_payload, R_options, R_missed, R_has_job, R_after
};

static void *
copy_or_null(HeapTuple row, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);

	return isnull ? NULL : PG_DETOAST_DATUM_COPY(value);
}

/* Takes a row apart, and says whether something is due. */
static bool
read_definition(HeapTuple row, TupleDesc desc, bool grace, TimestampTz now, Definition *d)
{
	bool		isnull;
	TimestampTz next;

	d->id = DatumGetInt32(SPI_getbinval(row, desc, R_id, &isnull));
	d->what.owner = DatumGetObjectId(SPI_getbinval(row, desc, R_owner, &isnull));
	d->what.name = SPI_getvalue(row, desc, R_name);
	d->what.target = copy_or_null(row, desc, R_target);
	d->what.payload = copy_or_null(row, desc, R_payload);
	d->what.options = copy_or_null(row, desc, R_options);
	d->missed = SPI_getvalue(row, desc, R_missed)[0];
	d->after = DatumGetTimestampTz(SPI_getbinval(row, desc, R_after, &isnull));
	d->end = now;
	if (grace && DatumGetBool(SPI_getbinval(row, desc, R_has_job, &isnull)))
		d->end -= RETRY_SCHEDULE_GRACE_US;
	if (!retry_schedule_read(SPI_getvalue(row, desc, R_cron), SPI_getvalue(row, desc, R_tz), &d->cron, &d->zone))
	{
		ereport(LOG,
				(errmsg("retry: schedule \"%s\" does not run: the server no longer knows the time zone \"%s\"",
						d->what.name, SPI_getvalue(row, desc, R_tz))));
		return false;
	}
	return d->after < d->end && retry_cron_next(&d->cron, d->after, &d->zone, &next) && next <= d->end;
}

int32 *
retry_schedules_due(Oid role, bool grace, TimestampTz now, int *count)
{
	Oid			types[2] = {TIMESTAMPTZOID, INT4OID};
	Datum		values[2] = {TimestampTzGetDatum(now), Int32GetDatum(0)};
	uint64		rows = retry_statement(read_definitions, 2, types, values, NULL, SPI_OK_SELECT);
	SPITupleTable *table = SPI_tuptable;
	int32	   *ids = palloc(Max(rows, 1) * sizeof(int32));

	*count = 0;
	for (uint64 i = 0; i < rows; i++)
	{
		Definition	d;

		if (read_definition(table->vals[i], table->tupdesc, grace, now, &d) &&
			(!OidIsValid(role) || has_privs_of_role(role, d.what.owner)))
			ids[(*count)++] = d.id;
	}
	SPI_freetuptable(table);
	return ids;
}

/*
 * The latest moment that is named after one and not after another.  It is
 * looked for from the end, in steps that grow: years of minutes may lie between.
 */
static bool
latest_between(const Definition *d, TimestampTz after, TimestampTz upto, TimestampTz *latest)
{
	static const int64 days[] = {1, 32, 366, 50 * 366};
	TimestampTz next;
	TimestampTz from = upto - USECS_PER_HOUR;

	for (int i = 0; i <= lengthof(days); i++)
	{
		bool		found = false;

		from = Max(from, after);
		for (next = from; retry_cron_next(&d->cron, next, &d->zone, &next) && next <= upto;)
		{
			*latest = next;
			found = true;
		}
		if (found || from == after || i == lengthof(days))
			return found;
		from = upto - days[i] * USECS_PER_DAY;
	}
	return false;
}

/* ---------------------------------------------------------------- running */

static void
run_at(const Definition *d, TimestampTz nominal, RetryScheduleRuns *runs)
{
	pg_uuid_t	id;
	ErrorData  *error;

	if (is_noted(d->id, nominal))
		return;
	error = retry_schedule_enqueue(&d->what, nominal, &id);
	if (error != NULL)
		tell_failure(d, nominal, error);
	else
		runs->enqueued++;
	note_run(d, nominal, error == NULL ? &id : NULL, error);
}

/* Runs all that is due of a schedule whose definition is locked. */
static void
run_definition(const Definition *d, TimestampTz now, RetryScheduleRuns *runs)
{
	TimestampTz late = Min(now - LATE_US, d->end);
	TimestampTz after = d->after;
	TimestampTz missed;
	TimestampTz next;
	bool		none = true;	/* that is on time */

	if (d->missed != 'a' && latest_between(d, after, late, &missed))
	{
		after = missed;
		if (d->missed == 'o')
			run_at(d, missed, runs);
	}
	for (int i = 0; retry_cron_next(&d->cron, after, &d->zone, &next) && next <= d->end; i++)
	{
		if (i == RUNS_AT_ONCE)
		{
			runs->more = true;
			return;
		}
		CHECK_FOR_INTERRUPTS();
		run_at(d, next, runs);
		after = next;
		none = false;
	}
	if (d->missed == 's' && none && after > d->after && !is_noted(d->id, after))
		note_run(d, after, NULL, NULL);
}

/* Locks a definition; false when somebody else has it, or it is gone. */
static bool
lock_definition(int32 id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(id);
	bool		locked;

	locked = retry_statement("SELECT FROM retry.schedule_definition s WHERE s.id = $1"
							 " FOR NO KEY UPDATE SKIP LOCKED", 1, &type, &value, NULL, SPI_OK_SELECT) > 0;
	SPI_freetuptable(SPI_tuptable);
	return locked;
}

static void
run_one(int32 id, Oid role, bool grace, TimestampTz now, RetryScheduleRuns *runs)
{
	Oid			types[2] = {TIMESTAMPTZOID, INT4OID};
	Datum		values[2] = {TimestampTzGetDatum(now), Int32GetDatum(id)};
	SPITupleTable *table;
	Definition	d;

	if (!lock_definition(id))
	{
		runs->busy = true;
		return;
	}
	/* it may have been run since it was found due */
	if (retry_statement(read_definitions, 2, types, values, NULL, SPI_OK_SELECT) == 0)
		return;
	table = SPI_tuptable;
	if (read_definition(table->vals[0], table->tupdesc, grace, now, &d) &&
		(!OidIsValid(role) || has_privs_of_role(role, d.what.owner)))
		run_definition(&d, now, runs);
	SPI_freetuptable(table);
}

void
retry_schedules_run(int32 id, Oid role, bool grace, TimestampTz now, RetryScheduleRuns *runs)
{
	int32	   *ids;
	int			count;

	if (id != 0)
	{
		run_one(id, role, grace, now, runs);
		return;
	}
	ids = retry_schedules_due(role, grace, now, &count);
	for (int i = 0; i < count; i++)
		run_one(ids[i], role, grace, now, runs);
	pfree(ids);
}

/*
 * retry.run_schedules(at).  Another moment than now would let a role pretend
 * that all its runs of the next years were missed; so it is for the owner.
 */
Datum
retry_run_schedules(PG_FUNCTION_ARGS)
{
	TimestampTz now = PG_ARGISNULL(0) ? GetCurrentTimestamp() : PG_GETARG_TIMESTAMPTZ(0);
	RetryScheduleRuns runs = {0};
	RetryRoleSwitch caller;

	retry_require_writable("retry.run_schedules()");
	if (TIMESTAMP_NOT_FINITE(now))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("at is infinite")));
	retry_statement_connect();
	retry_become_owner(&caller);
	if (!PG_ARGISNULL(0) && !has_privs_of_role(caller.role, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only members of the extension's owner may give the argument at"),
				 errhint("Call retry.run_schedules() without it.")));
	retry_schedules_run(0, caller.role, false, now, &runs);
	retry_become_caller(&caller);
	SPI_finish();
	PG_RETURN_INT64(runs.enqueued);
}
