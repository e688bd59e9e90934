/*
 * fuzz_sign.c
 *		Any text as a key, as the header of signatures, as a time, and as a
 *		header that names secrets.
 *
 * What is accepted as a key signs, and its signature is found in a header that
 * holds it, whatever else is in there.  References that are found lie within the
 * text, go forward, and name what may be a name.
 */
#include "postgres.h"

#include "../../src/secret_ref.h"
#include "../../src/sign.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

#define MUST(condition) do { if (!(condition)) __builtin_trap(); } while (0)

static void
try_key(const char *text, int len, const RetrySigned *message)
{
	char		signature[RETRY_SIGNATURE_LEN + 1];
	char	   *header;
	RetrySignKey key;

	if (!retry_sign_read_key(text, len, &key))
	{
		MUST(key.len == 0);
		return;
	}
	MUST(key.len >= RETRY_SIGN_KEY_MIN && key.len <= RETRY_SIGN_KEY_MAX);
	MUST(retry_sign(&key, message, signature));
	MUST(strlen(signature) == RETRY_SIGNATURE_LEN);
	header = malloc(len + 2 * RETRY_SIGNATURE_LEN + 2);
	memcpy(header, text, len);
	header[len] = ' ';
	memcpy(header + len + 1, signature, RETRY_SIGNATURE_LEN);
	MUST(retry_sign_is_among(signature, header, len + 1 + RETRY_SIGNATURE_LEN));
	free(header);
}

static void
try_references(const char *text, int len)
{
	int			from = 0;
	RetrySecretRef ref;
	RetrySecretFound found;

	while ((found = retry_secret_ref_next(text, len, from, &ref)) == RETRY_SECRET_REF_GOOD)
	{
		MUST(ref.at >= from && ref.name_at > ref.at && ref.end == ref.name_at + ref.name_len + 2);
		MUST(ref.end <= len && ref.name_len >= 1 && ref.name_len <= RETRY_SECRET_NAME_MAX);
		from = ref.end;
	}
	MUST(found == RETRY_SECRET_REF_NONE || (ref.at >= from && ref.at < len));
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	/* a copy of just this size, so that a look beyond its end is seen */
	char	   *text = malloc(size > 0 ? size : 1);
	char	   *key = malloc(size + sizeof(RETRY_SIGN_PREFIX));
	RetrySigned message = {.id = text,.id_len = size,.timestamp = text,.timestamp_len = size / 2,.body = text,.body_len = size};
	static const char any[RETRY_SIGNATURE_LEN + 1] = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
	int64		at;

	memcpy(text, data, size);
	memcpy(key, RETRY_SIGN_PREFIX, sizeof(RETRY_SIGN_PREFIX) - 1);
	memcpy(key + sizeof(RETRY_SIGN_PREFIX) - 1, data, size);
	try_key(text, size, &message);
	try_key(key, size + sizeof(RETRY_SIGN_PREFIX) - 1, &message);
	try_references(text, size);
	(void) retry_sign_is_among(any, text, size);
	if (retry_sign_read_timestamp(text, size, &at))
		MUST(at >= 0);
	free(text);
	free(key);
	return 0;
}
