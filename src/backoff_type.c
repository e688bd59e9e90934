/*
 * backoff_type.c
 *		The SQL side of type retry.backoff: input, output, equality, preview.
 *
 * Everything that needs the server (errors, memory, encodings, time-zone data)
 * is here, so that the leaves backoff.c, backoff_text.c and cron.c do without.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "backoff.h"
#include "quote.h"
#include "text_type.h"
#include "zone.h"

/* More would only make a huge result by mistake. */
#define MAX_PREVIEW		10000

PG_FUNCTION_INFO_V1(retry_backoff_in);
PG_FUNCTION_INFO_V1(retry_backoff_out);
PG_FUNCTION_INFO_V1(retry_backoff_recv);
PG_FUNCTION_INFO_V1(retry_backoff_send);
PG_FUNCTION_INFO_V1(retry_backoff_eq);
PG_FUNCTION_INFO_V1(retry_backoff_ne);
PG_FUNCTION_INFO_V1(retry_backoff_hash);
PG_FUNCTION_INFO_V1(retry_backoff_hash_extended);
PG_FUNCTION_INFO_V1(retry_backoff_preview);

#define GETARG_BACKOFF(n)	((RetryBackoff *) PG_DETOAST_DATUM(PG_GETARG_DATUM(n)))

/* The bytes after the varlena header, for equality and hashing. */
#define BACKOFF_DATA(b)		((const unsigned char *) VARDATA(b))
#define BACKOFF_LEN(b)		((int) (VARSIZE(b) - VARHDRSZ))

/*
 * Read a text into a palloc'd value.  On any mistake in it, raises an error
 * with the given SQLSTATE that names the offending part.
 */
static RetryBackoff *
read_backoff(const char *text, int sqlstate)
{
	RetryBackoff b;
	RetryBackoff *result;
	RetryParseError err;
	const char *zone;

	if (!retry_backoff_parse(text, &b, &err))
		retry_refuse_text("retry.backoff", text, &err, sqlstate);

	zone = retry_backoff_zone_name(&b);
	if (zone != NULL && b.u.cron.zone[0] != '\0')
	{
		pg_tz	   *tz = retry_zone_find(zone);

		if (tz == NULL)
			ereport(ERROR,
					(errcode(sqlstate),
					 errmsg("invalid input syntax for type %s: \"%s\"",
							"retry.backoff", retry_quoted_string(text)),
					 errdetail("\"%s\" is not the name of a time zone.", zone),
					 errhint("Write the name of a time zone, such as Europe/Paris; see pg_timezone_names.")));
		/* spelled as the server does, so that equal zones are equal bytes */
		retry_backoff_set_zone_name(&b, pg_get_timezone_name(tz));
	}

	result = (RetryBackoff *) palloc(VARSIZE(&b));
	memcpy(result, &b, VARSIZE(&b));
	return result;
}

/* backoff_in(cstring) */
Datum
retry_backoff_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(read_backoff(PG_GETARG_CSTRING(0),
								   ERRCODE_INVALID_TEXT_REPRESENTATION));
}

/* backoff_out(backoff) */
Datum
retry_backoff_out(PG_FUNCTION_ARGS)
{
	RetryBackoff *b = GETARG_BACKOFF(0);
	char		text[RETRY_BACKOFF_TEXT_SIZE];

	retry_backoff_format(b, text, sizeof(text));
	PG_RETURN_CSTRING(pstrdup(text));
}

/* backoff_recv(internal) */
Datum
retry_backoff_recv(PG_FUNCTION_ARGS)
{
	char	   *text = retry_receive_text((StringInfo) PG_GETARG_POINTER(0), RETRY_BACKOFF_VERSION,
										  "retry.backoff");

	PG_RETURN_POINTER(read_backoff(text, ERRCODE_INVALID_BINARY_REPRESENTATION));
}

/* backoff_send(backoff) */
Datum
retry_backoff_send(PG_FUNCTION_ARGS)
{
	char		text[RETRY_BACKOFF_TEXT_SIZE];
	int			len = retry_backoff_format(GETARG_BACKOFF(0), text, sizeof(text));

	PG_RETURN_BYTEA_P(retry_send_text(RETRY_BACKOFF_VERSION, text, len));
}

static bool
same_backoff(const RetryBackoff *a, const RetryBackoff *b)
{
	return VARSIZE(a) == VARSIZE(b) &&
		memcmp(BACKOFF_DATA(a), BACKOFF_DATA(b), BACKOFF_LEN(a)) == 0;
}

/* backoff_eq(backoff, backoff) */
Datum
retry_backoff_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(same_backoff(GETARG_BACKOFF(0), GETARG_BACKOFF(1)));
}

/* backoff_ne(backoff, backoff) */
Datum
retry_backoff_ne(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!same_backoff(GETARG_BACKOFF(0), GETARG_BACKOFF(1)));
}

/* backoff_hash(backoff) */
Datum
retry_backoff_hash(PG_FUNCTION_ARGS)
{
	RetryBackoff *b = GETARG_BACKOFF(0);

	return hash_any(BACKOFF_DATA(b), BACKOFF_LEN(b));
}

/* backoff_hash_extended(backoff, bigint) */
Datum
retry_backoff_hash_extended(PG_FUNCTION_ARGS)
{
	RetryBackoff *b = GETARG_BACKOFF(0);

	return hash_any_extended(BACKOFF_DATA(b), BACKOFF_LEN(b),
							 PG_GETARG_INT64(1));
}

/*
 * preview(backoff, attempts, start): three chains of attempts side by side,
 * without jitter, always as early and always as late as jitter allows.
 */
Datum
retry_backoff_preview(PG_FUNCTION_ARGS)
{
	RetryBackoff *b = GETARG_BACKOFF(0);
	int32		attempts = PG_GETARG_INT32(1);
	TimestampTz start = PG_GETARG_TIMESTAMPTZ(2);
	RetryWindow now = {start, start, start};
	int64		last_delay = 0;
	RetryZone	zone;
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	if (attempts < 1 || attempts > MAX_PREVIEW)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of attempts out of range: %d", attempts),
				 errhint("Ask for 1 to %d attempts.", MAX_PREVIEW)));
	if (TIMESTAMP_NOT_FINITE(start))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start must not be infinite")));
	if (!retry_zone_open(retry_backoff_zone_name(b), &zone))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" is not known to this server",
						retry_backoff_zone_name(b)),
				 errhint("Its name may have left the time zone data; see pg_timezone_names.")));

	InitMaterializedSRF(fcinfo, 0);
	for (int32 n = 1; n <= attempts; n++)
	{
		Datum		values[4];
		bool		nulls[4] = {false};
		RetryWindow plain;
		RetryWindow early;
		RetryWindow late;

		CHECK_FOR_INTERRUPTS();
		values[0] = Int32GetDatum(n);
		values[1] = TimestampTzGetDatum(now.at);
		values[2] = TimestampTzGetDatum(now.earliest);
		values[3] = TimestampTzGetDatum(now.latest);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);

		retry_backoff_window(b, n, now.at, last_delay, &zone, &plain);
		retry_backoff_window(b, n, now.earliest, last_delay, &zone, &early);
		retry_backoff_window(b, n, now.latest, last_delay, &zone, &late);
		last_delay = late.latest - now.latest;
		now.at = plain.at;
		now.earliest = early.earliest;
		now.latest = late.latest;
	}
	return (Datum) 0;
}
