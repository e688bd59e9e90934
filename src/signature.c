/*
 * signature.c
 *		retry.verify_signature(): for receivers that are databases.
 *
 * What comes from outside is never an error: whoever sends rubbish gets the
 * same false as who sends a forgery, and an answer that is null is not an
 * answer, since "NOT null" would let it pass.  Only what the receiver itself
 * got wrong, its key, is an error, which never shows the key.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "compat.h"
#include "ed25519.h"
#include "sign.h"
#include "signature.h"

PG_FUNCTION_INFO_V1(retry_verify_signature);
PG_FUNCTION_INFO_V1(retry_verify_signature_any);
PG_FUNCTION_INFO_V1(retry_public_key);

/* Arguments of both functions. */
enum
{
	Arg_secret, Arg_id, Arg_timestamp, Arg_body, Arg_signature, Arg_tolerance
};

/* ERROR when keys of that kind can be of no use here. */
void
retry_sign_require(RetrySignKind kind)
{
	if ((kind == RETRY_SIGN_PRIVATE || kind == RETRY_SIGN_PUBLIC) && !retry_ed25519_here())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ed25519 keys cannot be used: the extension was built without OpenSSL"),
				 errhint("Use a key that begins with %s, or build the extension where OpenSSL's headers are.", RETRY_SIGN_PREFIX)));
}

static void
read_key(const text *secret, RetrySignKey *key)
{
	int			prefix_len;

	if (retry_sign_read_key(VARDATA_ANY(secret), VARSIZE_ANY_EXHDR(secret), key))
		return;
	retry_sign_require(retry_sign_kind(VARDATA_ANY(secret), VARSIZE_ANY_EXHDR(secret), &prefix_len));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the secret is no key"),
			 errhint("A key is written whsec_ and the base64 of 24 to 64 bytes, or whpk_ and that of an ed25519 public key, of 32.")));
}

/* Is the message one of now?  ERROR for a tolerance below zero. */
static bool
is_recent(const text *timestamp, Interval *tolerance)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz late = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now),
															   IntervalPGetDatum(tolerance)));
	int64		tolerance_s = (late - now) / USECS_PER_SEC;
	int64		sent_s;
	int64		age_s;

	if (late < now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tolerance is below zero: %s",
						DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(tolerance))))));
	if (!retry_sign_read_timestamp(VARDATA_ANY(timestamp), VARSIZE_ANY_EXHDR(timestamp), &sent_s))
		return false;
	age_s = retry_sign_seconds(now) - sent_s;
	return age_s <= tolerance_s && age_s >= -tolerance_s;
}

/* Is one of the signatures by one of the keys?  All of them are looked at. */
static bool
is_signed(FunctionCallInfo fcinfo, const RetrySignKey *keys, int nkeys)
{
	text	   *id = PG_GETARG_TEXT_PP(Arg_id);
	text	   *timestamp = PG_GETARG_TEXT_PP(Arg_timestamp);
	bytea	   *body = PG_GETARG_BYTEA_PP(Arg_body);
	text	   *header = PG_GETARG_TEXT_PP(Arg_signature);
	RetrySigned message = {
		.id = VARDATA_ANY(id),.id_len = VARSIZE_ANY_EXHDR(id),
		.timestamp = VARDATA_ANY(timestamp),.timestamp_len = VARSIZE_ANY_EXHDR(timestamp),
		.body = VARDATA_ANY(body),.body_len = VARSIZE_ANY_EXHDR(body)
	};
	bool		found = false;

	/* a dot in it would let another message have the same bytes signed */
	if (memchr(message.id, '.', message.id_len) != NULL)
		return false;
	for (int i = 0; i < nkeys; i++)
	{
		bool		good;

		if (!retry_sign_verify(&keys[i], &message, VARDATA_ANY(header), VARSIZE_ANY_EXHDR(header), &good))
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("a signature cannot be computed")));
		found |= good;
	}
	return found;
}

static bool
verify(FunctionCallInfo fcinfo, const RetrySignKey *keys, int nkeys)
{
	retry_require_argument(fcinfo, Arg_tolerance, "tolerance");
	for (int arg = Arg_id; arg <= Arg_signature; arg++)
	{
		if (PG_ARGISNULL(arg))
			return false;
	}
	return is_recent(PG_GETARG_TEXT_PP(Arg_timestamp), PG_GETARG_INTERVAL_P(Arg_tolerance)) &&
		is_signed(fcinfo, keys, nkeys);
}

/* retry.verify_signature(secret text, ...) */
Datum
retry_verify_signature(PG_FUNCTION_ARGS)
{
	RetrySignKey key;

	retry_require_argument(fcinfo, Arg_secret, "secret");
	read_key(PG_GETARG_TEXT_PP(Arg_secret), &key);
	PG_RETURN_BOOL(verify(fcinfo, &key, 1));
}

/* retry.verify_signature(secrets text[], ...): any of them will do. */
Datum
retry_verify_signature_any(PG_FUNCTION_ARGS)
{
	RetrySignKey *keys;
	Datum	   *secrets;
	bool	   *isnull;
	int			count;

	retry_require_argument(fcinfo, Arg_secret, "secrets");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(Arg_secret), TEXTOID, -1, false, TYPALIGN_INT,
					  &secrets, &isnull, &count);
	keys = palloc(Max(count, 1) * sizeof(RetrySignKey));
	for (int i = 0; i < count; i++)
	{
		if (isnull[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("secrets must not hold a null")));
		read_key(DatumGetTextPP(secrets[i]), &keys[i]);
	}
	PG_RETURN_BOOL(verify(fcinfo, keys, count));
}

/* retry.public_key(key): what receivers need of a key that signs by ed25519. */
Datum
retry_public_key(PG_FUNCTION_ARGS)
{
	text	   *key_text = PG_GETARG_TEXT_PP(0);
	char		public[RETRY_SIGN_PUBLIC_TEXT + 1];
	RetrySignKey key;
	bool		good;

	read_key(key_text, &key);
	good = retry_sign_public_key(&key, public);
	explicit_bzero(&key, sizeof(key));
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the secret is no private key of ed25519"),
				 errhint("Such a key is written %s and the base64 of its 32 bytes.", RETRY_SIGN_PRIVATE_PREFIX)));
	PG_RETURN_TEXT_P(cstring_to_text(public));
}
