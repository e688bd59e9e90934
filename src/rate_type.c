/*
 * rate_type.c
 *		The SQL side of type retry.rate: input, output, equality.
 *
 * Everything that needs the server (errors, memory, encodings) is here, so
 * that the leaf rate.c does without.  A value has a fixed length and no
 * padding, and there is one value for each rate, so that equality is that of
 * bytes.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "libpq/pqformat.h"

#include "compat.h"
#include "quote.h"
#include "rate.h"

#define RATE_VERSION	1

PG_FUNCTION_INFO_V1(retry_rate_in);
PG_FUNCTION_INFO_V1(retry_rate_out);
PG_FUNCTION_INFO_V1(retry_rate_recv);
PG_FUNCTION_INFO_V1(retry_rate_send);
PG_FUNCTION_INFO_V1(retry_rate_eq);
PG_FUNCTION_INFO_V1(retry_rate_ne);
PG_FUNCTION_INFO_V1(retry_rate_hash);
PG_FUNCTION_INFO_V1(retry_rate_hash_extended);

#define GETARG_RATE(n)	((RetryRate *) PG_GETARG_POINTER(n))

/*
 * Reads a text into a palloc'd value.  On any mistake in it, raises an error
 * with the given SQLSTATE that names the offending part.
 */
static RetryRate *
read_rate(const char *text, int sqlstate)
{
	RetryRate  *rate = palloc0(sizeof(RetryRate));
	RetryParseError err;

	if (!retry_rate_parse(text, rate, &err))
		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("invalid input syntax for type %s: \"%s\"",
						"retry.rate", retry_quoted(text, strlen(text))),
				 errdetail("\"%s\" %s.", retry_quoted(text + err.part_at, err.part_len), err.reason),
				 errhint("%s", err.hint)));
	return rate;
}

/* rate_in(cstring) */
Datum
retry_rate_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(read_rate(PG_GETARG_CSTRING(0), ERRCODE_INVALID_TEXT_REPRESENTATION));
}

/* rate_out(rate) */
Datum
retry_rate_out(PG_FUNCTION_ARGS)
{
	char	   *text = palloc(RETRY_RATE_TEXT_SIZE);

	retry_rate_format(GETARG_RATE(0), text, RETRY_RATE_TEXT_SIZE);
	PG_RETURN_CSTRING(text);
}

/*
 * rate_recv(internal): a version byte, then the text form.  Any client can
 * make that, and one reader checks both.
 */
Datum
retry_rate_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	int			version = pq_getmsgbyte(buf);
	char	   *text;
	int			len;

	if (version != RATE_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("unsupported binary version %d of type %s", version, "retry.rate"),
				 errhint("Only version %d is known.", RATE_VERSION)));
	text = pq_getmsgtext(buf, buf->len - buf->cursor, &len);
	PG_RETURN_POINTER(read_rate(text, ERRCODE_INVALID_BINARY_REPRESENTATION));
}

/* rate_send(rate) */
Datum
retry_rate_send(PG_FUNCTION_ARGS)
{
	StringInfoData buf;
	char		text[RETRY_RATE_TEXT_SIZE];
	int			len = retry_rate_format(GETARG_RATE(0), text, sizeof(text));

	pq_begintypsend(&buf);
	pq_sendbyte(&buf, RATE_VERSION);
	pq_sendtext(&buf, text, len);
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}

/* rate_eq(rate, rate) */
Datum
retry_rate_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(retry_rate_same(GETARG_RATE(0), GETARG_RATE(1)));
}

/* rate_ne(rate, rate) */
Datum
retry_rate_ne(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!retry_rate_same(GETARG_RATE(0), GETARG_RATE(1)));
}

/* rate_hash(rate) */
Datum
retry_rate_hash(PG_FUNCTION_ARGS)
{
	return hash_any((const unsigned char *) GETARG_RATE(0), sizeof(RetryRate));
}

/* rate_hash_extended(rate, bigint) */
Datum
retry_rate_hash_extended(PG_FUNCTION_ARGS)
{
	return hash_any_extended((const unsigned char *) GETARG_RATE(0), sizeof(RetryRate),
							 PG_GETARG_INT64(1));
}
