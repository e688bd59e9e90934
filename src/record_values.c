/*
 * record_values.c
 *		What is stored of an attempt, column by column.
 *
 * Whatever an endpoint said must become values that can be stored: texts that
 * are valid in the database's encoding, and cut, addresses without scope.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inet.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "record_private.h"

/* Longest text of an error that is kept. */
#define ERROR_BYTES		1000

Datum
retry_error_datum(const char *error)
{
	text	   *result = palloc(VARHDRSZ + ERROR_BYTES);
	char	   *to = VARDATA(result);
	char	   *end = to + ERROR_BYTES;
	bool		utf8 = GetDatabaseEncoding() == PG_UTF8;

	while (*error != '\0' && to < end)
	{
		int			len = pg_utf_mblen((const unsigned char *) error);

		if (len == 1 && !IS_HIGHBIT_SET(*error))
			*to++ = *error++;
		else if (strnlen(error, len) < len || !pg_utf8_islegal((const unsigned char *) error, len))
		{
			*to++ = '?';
			error++;
		}
		else if (!utf8)
		{
			*to++ = '?';
			error += len;
		}
		else if (to + len > end)
			break;
		else
		{
			memcpy(to, error, len);
			to += len;
			error += len;
		}
	}
	SET_VARSIZE(result, to - (char *) result);
	return PointerGetDatum(result);
}

/* The same for a text of the server's own, which is in its encoding. */
static Datum
why_datum(const char *why)
{
	char	   *text = psprintf("could not be recorded: %s", why);

	return PointerGetDatum(cstring_to_text_with_len(text,
													pg_mbcliplen(text, strlen(text), ERROR_BYTES)));
}

static Datum
response_datum(const RetryEnded *ended)
{
	bytea	   *result = palloc(VARHDRSZ + ended->response_len);

	memcpy(VARDATA(result), ended->response, ended->response_len);
	SET_VARSIZE(result, VARHDRSZ + ended->response_len);
	return PointerGetDatum(result);
}

/* An address as inet; most attempts of a batch have the same. */
static Datum
address_datum(RetryRecordBatch *batch, const char *ip)
{
	if (strcmp(ip, batch->last_ip) != 0)
	{
		MemoryContext old = MemoryContextSwitchTo(batch->context);
		char		plain[sizeof(batch->last_ip)];

		/* inet knows no scope of an address ("fe80::1%eth0") */
		strlcpy(plain, ip, sizeof(plain));
		plain[strcspn(plain, "%")] = '\0';
		batch->last_ip[0] = '\0';
		batch->last_address = DirectFunctionCall1(inet_in, CStringGetDatum(plain));
		strlcpy(batch->last_ip, ip, sizeof(batch->last_ip));
		MemoryContextSwitchTo(old);
	}
	return batch->last_address;
}

static void
set_int(Datum *values, bool *isnull, int column, int32 value)
{
	isnull[column] = value == 0;
	values[column] = Int32GetDatum(value);
}

void
retry_record_answer(const RetryRecordBatch *batch, const RetryEnded *ended, Datum *values,
					bool *isnull, int status, int error, int response)
{
	isnull[status] = ended->http_status == 0;
	values[status] = Int16GetDatum((int16) ended->http_status);
	isnull[error] = isnull[response] = true;
	if (batch->form.bare)
	{
		isnull[error] = false;
		values[error] = why_datum(batch->why);
		return;
	}
	if (ended->error != NULL && ended->error[0] != '\0')
	{
		isnull[error] = false;
		values[error] = retry_error_datum(ended->error);
	}
	if (ended->response != NULL && ended->response_len > 0)
	{
		isnull[response] = false;
		values[response] = response_datum(ended);
	}
}

void
retry_record_attempt(RetryRecordBatch *batch, const RetryEnded *ended, Datum *values, bool *isnull)
{
	const RetryVerdict *verdict = &ended->verdict;

	memset(isnull, 0, Attempt_natts * sizeof(bool));
	if (!OidIsValid(batch->outcome_oid[verdict->outcome]))
		batch->outcome_oid[verdict->outcome] = retry_outcome_oid(verdict->outcome);

	values[Attempt_leaf] = Int16GetDatum(ended->entry.leaf);
	values[Attempt_attempt_no] = Int32GetDatum(ended->entry.attempts + 1);
	values[Attempt_task_id] = UUIDPGetDatum(&ended->entry.pos.id);
	values[Attempt_lane_hash] = Int64GetDatum(ended->lane_hash);
	values[Attempt_finished_at] = TimestampTzGetDatum(ended->finished_at);
	values[Attempt_duration_us] = Int64GetDatum(ended->duration_us);
	values[Attempt_scene_id] = Int32GetDatum(ended->scene_id);
	values[Attempt_outcome] = ObjectIdGetDatum(batch->outcome_oid[verdict->outcome]);
	isnull[Attempt_next_due] = verdict->terminal;
	values[Attempt_next_due] = TimestampTzGetDatum(verdict->next_due);
	set_int(values, isnull, Attempt_dns_us, ended->dns_us);
	set_int(values, isnull, Attempt_connect_us, ended->connect_us);
	set_int(values, isnull, Attempt_tls_us, ended->tls_us);
	set_int(values, isnull, Attempt_first_byte_us, ended->first_byte_us);
	set_int(values, isnull, Attempt_pendings, ended->pendings);
	isnull[Attempt_hedged] = ended->hedged == RETRY_HEDGED_NEVER;
	values[Attempt_hedged] = BoolGetDatum(ended->hedged == RETRY_HEDGED_YES);
	isnull[Attempt_target] = ended->target == NULL;
	if (ended->target != NULL)
		values[Attempt_target] = CStringGetTextDatum(ended->target);
	isnull[Attempt_remote_address] = true;
	if (!batch->form.bare && ended->remote_ip != NULL && ended->remote_ip[0] != '\0')
	{
		isnull[Attempt_remote_address] = false;
		values[Attempt_remote_address] = address_datum(batch, ended->remote_ip);
	}
	retry_record_answer(batch, ended, values, isnull, Attempt_http_status, Attempt_error, Attempt_response);
}
