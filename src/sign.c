/*
 * sign.c
 *		Signatures as Standard Webhooks 1.0.0 has them; see sign.h.
 *
 * What is signed is "id.timestamp.body", afresh for each attempt, with
 * HMAC-SHA256 and the bytes that the text of the key stands for.
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/hmac.h"
#include "common/sha2.h"

#include "sign.h"

#define PREFIX_LEN		((int) sizeof(RETRY_SIGN_PREFIX) - 1)
#define VERSION_PREFIX	"v1,"
#define TIMESTAMP_MAX	12		/* digits: until the year 33658 */

/* Base64 of the longest key */
#define KEY_TEXT_MAX	((RETRY_SIGN_KEY_MAX + 2) / 3 * 4)

bool
retry_sign_is_key_like(const char *text, int len)
{
	return len >= PREFIX_LEN && memcmp(text, RETRY_SIGN_PREFIX, PREFIX_LEN) == 0;
}

bool
retry_sign_read_key(const char *text, int len, RetrySignKey *key)
{
	char		bytes[KEY_TEXT_MAX / 4 * 3];
	int			count;

	key->len = 0;
	if (!retry_sign_is_key_like(text, len) || len - PREFIX_LEN > KEY_TEXT_MAX)
		return false;

	/* it takes zero bytes for the end */
	if (memchr(text, '\0', len) != NULL)
		return false;
	count = pg_b64_decode(text + PREFIX_LEN, len - PREFIX_LEN, (void *) bytes, sizeof(bytes));
	if (count < RETRY_SIGN_KEY_MIN || count > RETRY_SIGN_KEY_MAX)
		return false;
	memcpy(key->bytes, bytes, count);
	key->len = count;
	return true;
}

static bool
add(pg_hmac_ctx *sum, const char *bytes, size_t len)
{
	return len == 0 || pg_hmac_update(sum, (const uint8 *) bytes, len) >= 0;
}

bool
retry_sign(const RetrySignKey *key, const RetrySigned *message, char out[RETRY_SIGNATURE_LEN + 1])
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_hmac_ctx *sum = pg_hmac_create(PG_SHA256);
	bool		good;
	int			len;

	out[0] = '\0';
	if (sum == NULL)
		return false;
	good = pg_hmac_init(sum, key->bytes, key->len) >= 0 &&
		add(sum, message->id, message->id_len) && add(sum, ".", 1) &&
		add(sum, message->timestamp, message->timestamp_len) && add(sum, ".", 1) &&
		add(sum, message->body, message->body_len) &&
		pg_hmac_final(sum, digest, sizeof(digest)) >= 0;
	pg_hmac_free(sum);
	if (!good)
		return false;
	memcpy(out, VERSION_PREFIX, sizeof(VERSION_PREFIX) - 1);
	len = pg_b64_encode((void *) digest, sizeof(digest), out + sizeof(VERSION_PREFIX) - 1,
						RETRY_SIGNATURE_LEN - (sizeof(VERSION_PREFIX) - 1));
	if (len < 0)
	{
		out[0] = '\0';
		return false;
	}
	out[RETRY_SIGNATURE_LEN] = '\0';
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
	bool		found = false;

	while (header < end)
	{
		const char *space = memchr(header, ' ', end - header);
		const char *stop = space != NULL ? space : end;

		if (stop - header == RETRY_SIGNATURE_LEN && is_same(signature, header, RETRY_SIGNATURE_LEN))
			found = true;
		header = stop + 1;
	}
	return found;
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
