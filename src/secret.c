/*
 * secret.c
 *		Reads the secrets of groups, and fills them into headers.
 *
 * A secret has a current value, and for some time after it was changed the
 * former ones, which sign too.  Into headers goes the current one.  What is
 * filled in is a copy of the scene's headers in the memory of who sends: the
 * scene's row keeps the reference.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "row.h"
#include "secret.h"
#include "store.h"

RetrySecrets *
retry_secrets_create(void)
{
	RetrySecrets *secrets = palloc0(sizeof(RetrySecrets));

	secrets->room = 8;
	secrets->list = palloc(secrets->room * sizeof(RetrySecret));
	return secrets;
}

void
retry_secrets_add(RetrySecrets *secrets, const Datum *values, const bool *isnull)
{
	char	   *name = TextDatumGetCString(values[Secret_name]);
	RetrySecret *secret;

	if (strlen(name) > RETRY_SECRET_NAME_MAX)
		return;
	if (secrets->count == secrets->room)
	{
		secrets->room *= 2;
		secrets->list = repalloc(secrets->list, secrets->room * sizeof(RetrySecret));
	}
	secret = &secrets->list[secrets->count++];
	memset(secret, 0, sizeof(RetrySecret));
	secret->group_id = DatumGetInt32(values[Secret_group_id]);
	strlcpy(secret->name, name, sizeof(secret->name));
	secret->set_at = DatumGetTimestampTz(values[Secret_set_at]);
	secret->signs_until = isnull[Secret_signs_until] ? DT_NOEND :
		DatumGetTimestampTz(values[Secret_signs_until]);
	secret->value = TextDatumGetCString(values[Secret_value]);
	secret->value_len = strlen(secret->value);
	secret->certificate = DatumGetBool(values[Secret_certificate]);
	if (retry_sign_read_key(secret->value, secret->value_len, &secret->key) &&
		secret->key.kind == RETRY_SIGN_PUBLIC)
		secret->key.len = 0;
}

/* By group and name; the current value before the others, newer before older. */
static int
compare_secrets(const void *a, const void *b)
{
	const RetrySecret *x = a;
	const RetrySecret *y = b;
	int			names;

	if (x->group_id != y->group_id)
		return x->group_id < y->group_id ? -1 : 1;
	names = strcmp(x->name, y->name);
	if (names != 0)
		return names;
	if ((x->signs_until == DT_NOEND) != (y->signs_until == DT_NOEND))
		return x->signs_until == DT_NOEND ? -1 : 1;
	return x->set_at > y->set_at ? -1 : x->set_at < y->set_at;
}

void
retry_secrets_sort(RetrySecrets *secrets)
{
	qsort(secrets->list, secrets->count, sizeof(RetrySecret), compare_secrets);
}

RetrySecrets *
retry_secrets_of_group(int32 group_id, Snapshot snapshot)
{
	RetrySecrets *secrets = retry_secrets_create();
	Relation	rel = table_open(retry_relation_oid("secret"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Secret_group_id + 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(group_id));
	scan = systable_beginscan(rel, retry_relation_oid("secret_pkey"), true, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Secret_natts];
		bool		isnull[Secret_natts];

		retry_row_read(tuple, RelationGetDescr(rel), Secret_natts, values, isnull);
		retry_secrets_add(secrets, values, isnull);
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	retry_secrets_sort(secrets);
	return secrets;
}

const RetrySecret *
retry_secrets_find(const RetrySecrets *secrets, int32 group_id, const char *name, int name_len,
				   int *count)
{
	const RetrySecret *first = NULL;

	*count = 0;
	for (int i = 0; i < secrets->count; i++)
	{
		const RetrySecret *secret = &secrets->list[i];

		if (secret->group_id != group_id || strlen(secret->name) != name_len ||
			memcmp(secret->name, name, name_len) != 0)
			continue;
		if (first == NULL && secret->signs_until != DT_NOEND)
			return NULL;
		if (first == NULL)
			first = secret;
		(*count)++;
	}
	return first;
}

/* Headers */

bool
retry_headers_name_secrets(Jsonb *headers)
{
	JsonbIterator *it = JsonbIteratorInit(&headers->root);
	JsonbIteratorToken token;
	JsonbValue	part;
	RetrySecretRef ref;

	while ((token = JsonbIteratorNext(&it, &part, true)) != WJB_DONE)
	{
		if (token == WJB_VALUE && part.type == jbvString &&
			retry_secret_ref_next(part.val.string.val, part.val.string.len, 0, &ref) != RETRY_SECRET_REF_NONE)
			return true;
	}
	return false;
}

/* One value filled in, in place; false when a secret is not set. */
static bool
fill_value(JsonbValue *value, const RetrySecrets *secrets, int32 group_id, char **missing)
{
	const char *text = value->val.string.val;
	int			len = value->val.string.len;
	int			from = 0;
	StringInfoData filled;
	RetrySecretRef ref;

	initStringInfo(&filled);
	while (retry_secret_ref_next(text, len, from, &ref) == RETRY_SECRET_REF_GOOD)
	{
		int			count;
		const RetrySecret *secret = retry_secrets_find(secrets, group_id, text + ref.name_at,
													   ref.name_len, &count);

		if (secret == NULL || secret->certificate)
		{
			*missing = pnstrdup(text + ref.name_at, ref.name_len);
			return false;
		}
		appendBinaryStringInfo(&filled, text + from, ref.at - from);
		appendBinaryStringInfo(&filled, secret->value, secret->value_len);
		from = ref.end;
	}
	appendBinaryStringInfo(&filled, text + from, len - from);
	value->val.string.val = filled.data;
	value->val.string.len = filled.len;
	return true;
}

Jsonb *
retry_headers_fill(Jsonb *headers, const RetrySecrets *secrets, int32 group_id, char **missing)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbParseState *state = NULL;
	JsonbValue *result = NULL;
	JsonbValue	part;

	*missing = NULL;
	if (!JB_ROOT_IS_OBJECT(headers) || !retry_headers_name_secrets(headers))
		return headers;
	it = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&it, &part, false)) != WJB_DONE)
	{
		if (token == WJB_VALUE && part.type == jbvString &&
			!fill_value(&part, secrets, group_id, missing))
			return NULL;
		result = pushJsonbValue(&state, token, token < WJB_BEGIN_ARRAY ? &part : NULL);
	}
	return JsonbValueToJsonb(result);
}
