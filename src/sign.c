/*
 * sign.c
 *		Signatures as Standard Webhooks 1.0.0 has them; see sign.h.
 *
 * What is signed is "id.timestamp.body", afresh for each attempt: with
 * HMAC-SHA256 and the bytes that the text of the key stands for (v1), or by
 * ed25519, so that who verifies cannot sign (v1a).
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/hmac.h"
#include "common/sha2.h"

#include "ed25519.h"
#include "sign.h"

#define HMAC_VERSION	"v1,"
#define ED25519_VERSION	"v1a,"
#define TIMESTAMP_MAX	12		/* digits: until the year 33658 */

/* Base64 of the longest key */
#define KEY_TEXT_MAX	((RETRY_SIGN_KEY_MAX + 2) / 3 * 4)

/* How the texts of keys begin. */
static const struct
{
	const char *prefix;
	RetrySignKind kind;
}			prefixes[] = {
	{RETRY_SIGN_PREFIX, RETRY_SIGN_HMAC},
	{RETRY_SIGN_PRIVATE_PREFIX, RETRY_SIGN_PRIVATE},
	{RETRY_SIGN_PUBLIC_PREFIX, RETRY_SIGN_PUBLIC}
};

RetrySignKind
retry_sign_kind(const char *text, int len, int *prefix_len)
{
	for (int i = 0; i < lengthof(prefixes); i++)
	{
		*prefix_len = strlen(prefixes[i].prefix);
		if (len >= *prefix_len && memcmp(text, prefixes[i].prefix, *prefix_len) == 0)
			return prefixes[i].kind;
	}
	return RETRY_SIGN_NONE;
}

/* Are these the bytes of a key of its kind?  Cuts what follows a private one. */
static bool
is_key(RetrySignKey *key)
{
	uint8		public[RETRY_ED25519_KEY];

	switch (key->kind)
	{
		case RETRY_SIGN_HMAC:
			return key->len >= RETRY_SIGN_KEY_MIN;
		case RETRY_SIGN_PUBLIC:
			return key->len == RETRY_ED25519_KEY && retry_ed25519_here();
		case RETRY_SIGN_PRIVATE:
			if ((key->len != RETRY_ED25519_KEY && key->len != 2 * RETRY_ED25519_KEY) ||
				!retry_ed25519_public(key->bytes, public))
				return false;
			/* many programs put the public key behind it */
			if (key->len > RETRY_ED25519_KEY &&
				memcmp(key->bytes + RETRY_ED25519_KEY, public, RETRY_ED25519_KEY) != 0)
				return false;
			key->len = RETRY_ED25519_KEY;
			return true;
		case RETRY_SIGN_NONE:
			break;
	}
	return false;
}

bool
retry_sign_read_key(const char *text, int len, RetrySignKey *key)
{
	char		bytes[KEY_TEXT_MAX / 4 * 3];
	int			prefix_len;
	int			count;

	key->len = 0;
	key->kind = retry_sign_kind(text, len, &prefix_len);
	if (key->kind == RETRY_SIGN_NONE || len - prefix_len > KEY_TEXT_MAX)
		return false;

	/* it takes zero bytes for the end */
	if (memchr(text, '\0', len) != NULL)
		return false;
	count = pg_b64_decode(text + prefix_len, len - prefix_len, (void *) bytes, sizeof(bytes));
	if (count >= 0 && count <= RETRY_SIGN_KEY_MAX)
	{
		memcpy(key->bytes, bytes, count);
		key->len = count;
	}
	if (key->len > 0 && is_key(key))
		return true;
	key->len = 0;
	return false;
}

bool
retry_sign_public_key(const RetrySignKey *key, char out[RETRY_SIGN_PUBLIC_TEXT + 1])
{
	uint8		public[RETRY_ED25519_KEY];
	int			prefix_len = strlen(RETRY_SIGN_PUBLIC_PREFIX);
	int			len;

	if (key->len == 0 || key->kind != RETRY_SIGN_PRIVATE || !retry_ed25519_public(key->bytes, public))
		return false;
	memcpy(out, RETRY_SIGN_PUBLIC_PREFIX, prefix_len);
	len = pg_b64_encode((void *) public, sizeof(public), out + prefix_len, RETRY_SIGN_PUBLIC_TEXT - prefix_len);
	out[Max(len, 0) + prefix_len] = '\0';
	return len > 0;
}

static bool
add(pg_hmac_ctx *sum, const char *bytes, size_t len)
{
	return len == 0 || pg_hmac_update(sum, (const uint8 *) bytes, len) >= 0;
}

static bool
sign_hmac(const RetrySignKey *key, const RetrySigned *message, uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
	pg_hmac_ctx *sum = pg_hmac_create(PG_SHA256);
	bool		good;

	if (sum == NULL)
		return false;
	good = pg_hmac_init(sum, key->bytes, key->len) >= 0 &&
		add(sum, message->id, message->id_len) && add(sum, ".", 1) &&
		add(sum, message->timestamp, message->timestamp_len) && add(sum, ".", 1) &&
		add(sum, message->body, message->body_len) &&
		pg_hmac_final(sum, digest, PG_SHA256_DIGEST_LENGTH) >= 0;
	pg_hmac_free(sum);
	return good;
}

/* What is signed, in one piece, which the caller frees; NULL when memory is short. */
static char *
join(const RetrySigned *message, size_t *len)
{
	char	   *joined;
	char	   *at;

	*len = (size_t) message->id_len + 1 + message->timestamp_len + 1 + message->body_len;
	at = joined = malloc(*len);
	if (joined == NULL)
		return NULL;
	memcpy(at, message->id, message->id_len);
	at += message->id_len;
	*at++ = '.';
	memcpy(at, message->timestamp, message->timestamp_len);
	at += message->timestamp_len;
	*at++ = '.';
	if (message->body_len > 0)
		memcpy(at, message->body, message->body_len);
	return joined;
}

static bool
sign_ed25519(const RetrySignKey *key, const RetrySigned *message, uint8 signature[RETRY_ED25519_SIGNATURE])
{
	size_t		len;
	char	   *joined = join(message, &len);
	bool		good = joined != NULL && retry_ed25519_sign(key->bytes, joined, len, signature);

	free(joined);
	return good;
}

bool
retry_sign(const RetrySignKey *key, const RetrySigned *message, char out[RETRY_SIGNATURE_MAX + 1])
{
	uint8		bytes[Max(PG_SHA256_DIGEST_LENGTH, RETRY_ED25519_SIGNATURE)];
	const char *version = key->kind == RETRY_SIGN_HMAC ? HMAC_VERSION : ED25519_VERSION;
	int			version_len = strlen(version);
	int			count = key->kind == RETRY_SIGN_HMAC ? PG_SHA256_DIGEST_LENGTH : RETRY_ED25519_SIGNATURE;
	int			len;

	out[0] = '\0';
	if (key->kind == RETRY_SIGN_HMAC ? !sign_hmac(key, message, bytes) :
		key->kind != RETRY_SIGN_PRIVATE || !sign_ed25519(key, message, bytes))
		return false;
	len = pg_b64_encode((void *) bytes, count, out + version_len, RETRY_SIGNATURE_MAX - version_len);
	if (len < 0)
	{
		out[0] = '\0';
		return false;
	}
	memcpy(out, version, version_len);
	out[version_len + len] = '\0';
	return true;
}

/* All bytes are compared, whatever the first ones are. */
static bool
is_same(const char *a, const char *b, int len)
{
	volatile unsigned char differs = 0;

	for (int i = 0; i < len; i++)
		differs |= (unsigned char) a[i] ^ (unsigned char) b[i];
	return differs == 0;
}

bool
retry_sign_is_among(const char *signature, const char *header, size_t header_len)
{
	const char *end = header + header_len;
	int			len = strlen(signature);
	bool		found = false;

	while (header < end)
	{
		const char *space = memchr(header, ' ', end - header);
		const char *stop = space != NULL ? space : end;

		if (stop - header == len && is_same(signature, header, len))
			found = true;
		header = stop + 1;
	}
	return found;
}

/* Is one of the header's signatures by the private key that belongs to this one? */
static bool
verify_ed25519(const RetrySignKey *key, const RetrySigned *message, const char *header, size_t header_len,
			   bool *good)
{
	const char *end = header + header_len;
	int			version_len = strlen(ED25519_VERSION);
	size_t		len;
	char	   *joined = join(message, &len);

	*good = false;
	if (joined == NULL)
		return false;
	while (header < end && !*good)
	{
		const char *space = memchr(header, ' ', end - header);
		const char *stop = space != NULL ? space : end;
		char		bytes[RETRY_ED25519_SIGNATURE + 2];

		if (stop - header == RETRY_SIGNATURE_MAX && memcmp(header, ED25519_VERSION, version_len) == 0 &&
			memchr(header, '\0', stop - header) == NULL &&
			pg_b64_decode(header + version_len, stop - header - version_len, (void *) bytes, sizeof(bytes)) ==
			RETRY_ED25519_SIGNATURE)
			*good = retry_ed25519_verify(key->bytes, joined, len, (uint8 *) bytes);
		header = stop + 1;
	}
	free(joined);
	return true;
}

bool
retry_sign_verify(const RetrySignKey *key, const RetrySigned *message, const char *header, size_t header_len,
				  bool *good)
{
	char		signature[RETRY_SIGNATURE_MAX + 1];

	if (key->kind == RETRY_SIGN_PUBLIC)
		return verify_ed25519(key, message, header, header_len, good);

	/* who can sign compares: both ways of signing give the same each time */
	*good = false;
	if (!retry_sign(key, message, signature))
		return false;
	*good = retry_sign_is_among(signature, header, header_len);
	return true;
}

bool
retry_sign_read_timestamp(const char *text, int len, int64 *unix_s)
{
	if (len < 1 || len > TIMESTAMP_MAX)
		return false;
	*unix_s = 0;
	for (int i = 0; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return false;
		*unix_s = *unix_s * 10 + (text[i] - '0');
	}
	return true;
}
