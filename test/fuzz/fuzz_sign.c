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
	char		signature[RETRY_SIGNATURE_MAX + 1];
	char	   *header;
	size_t		signature_len;
	RetrySignKey key;
	bool		good;

	if (!retry_sign_read_key(text, len, &key))
	{
		MUST(key.len == 0);
		return;
	}
	MUST(key.len >= RETRY_SIGN_KEY_MIN && key.len <= RETRY_SIGN_KEY_MAX);
	if (key.kind == RETRY_SIGN_PUBLIC)
	{
		MUST(!retry_sign(&key, message, signature));
		MUST(retry_sign_verify(&key, message, text, len, &good) && !good);
		return;
	}
	MUST(retry_sign(&key, message, signature));
	signature_len = strlen(signature);
	MUST(signature_len == (key.kind == RETRY_SIGN_HMAC ? 47 : RETRY_SIGNATURE_MAX));
	header = malloc(len + signature_len + 1);
	memcpy(header, text, len);
	header[len] = ' ';
	memcpy(header + len + 1, signature, signature_len);
	MUST(retry_sign_verify(&key, message, header, len + 1 + signature_len, &good) && good);
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
	static const char *const prefixes[] = {RETRY_SIGN_PREFIX, RETRY_SIGN_PRIVATE_PREFIX, RETRY_SIGN_PUBLIC_PREFIX};
	char	   *key = malloc(size + sizeof(RETRY_SIGN_PREFIX));
	RetrySigned message = {.id = text,.id_len = size,.timestamp = text,.timestamp_len = size / 2,.body = text,.body_len = size};
	static const char any[] = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
	int64		at;

	memcpy(text, data, size);
	try_key(text, size, &message);
	for (int i = 0; i < lengthof(prefixes); i++)
	{
		int			len = strlen(prefixes[i]);

		memcpy(key, prefixes[i], len);
		memcpy(key + len, data, size);
		try_key(key, size + len, &message);
	}
	try_references(text, size);
	(void) retry_sign_is_among(any, text, size);
	if (retry_sign_read_timestamp(text, size, &at))
		MUST(at >= 0);
	free(text);
	free(key);
	return 0;
}
