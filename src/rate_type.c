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

#include "compat.h"
#include "rate.h"
#include "text_type.h"

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
		retry_refuse_text("retry.rate", text, &err, sqlstate);
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

/* rate_recv(internal) */
Datum
retry_rate_recv(PG_FUNCTION_ARGS)
{
	char	   *text = retry_receive_text((StringInfo) PG_GETARG_POINTER(0), RATE_VERSION, "retry.rate");

	PG_RETURN_POINTER(read_rate(text, ERRCODE_INVALID_BINARY_REPRESENTATION));
}

/* rate_send(rate) */
Datum
retry_rate_send(PG_FUNCTION_ARGS)
{
	char		text[RETRY_RATE_TEXT_SIZE];
	int			len = retry_rate_format(GETARG_RATE(0), text, sizeof(text));

	PG_RETURN_BYTEA_P(retry_send_text(RATE_VERSION, text, len));
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
