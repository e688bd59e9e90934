/*
 * secret_use.c
 *		How the secret of a scene gets into its requests, where that is not the
 *		header of Standard Webhooks.
 *
 * DingTalk signs "timestamp LF secret" with the secret as the key and wants both
 * in the URL; Feishu takes that text as the key and signs nothing; PagerDuty's
 * routing key is a member of the event.
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/hmac.h"
#include "common/sha2.h"

#include "secret_use.h"

#define SIGNATURE_TEXT	44		/* base64 of 32 bytes */

static const char *const words[RETRY_USES] = {
	[RETRY_USE_WEBHOOK] = "webhook",
	[RETRY_USE_DINGTALK] = "dingtalk",
	[RETRY_USE_FEISHU] = "feishu",
	[RETRY_USE_PAGERDUTY] = "pagerduty",
	[RETRY_USE_EMAIL] = "email"
};

bool
retry_secret_use_named(const char *word, RetrySecretUse *use)
{
	for (int i = 0; i < RETRY_USES; i++)
	{
		if (strcmp(word, words[i]) == 0)
		{
			*use = (RetrySecretUse) i;
			return true;
		}
	}
	return false;
}

size_t
retry_secret_use_room(size_t secret_len)
{
	/* a byte in JSON takes six at most, one of a signature in a URL three */
	return 6 * secret_len + 3 * SIGNATURE_TEXT + 100;
}

/* Base64 of the HMAC-SHA256 of some bytes by a key; false for want of memory. */
static bool
sign(const char *key, size_t key_len, const char *text, size_t len, char out[SIGNATURE_TEXT + 1])
{
	pg_hmac_ctx *sum = pg_hmac_create(PG_SHA256);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	int			written = -1;

	if (sum == NULL)
		return false;
	if (pg_hmac_init(sum, (const uint8 *) key, key_len) >= 0 &&
		(len == 0 || pg_hmac_update(sum, (const uint8 *) text, len) >= 0) &&
		pg_hmac_final(sum, digest, sizeof(digest)) >= 0)
		written = pg_b64_encode((const void *) digest, sizeof(digest), out, SIGNATURE_TEXT);
	pg_hmac_free(sum);
	if (written < 0)
		return false;
	out[written] = '\0';
	return true;
}

/* A signature as a parameter's value. */
static char *
write_escaped(char *to, const char *signature)
{
	for (; *signature != '\0'; signature++)
	{
		if (*signature == '+' || *signature == '/' || *signature == '=')
			to += sprintf(to, "%%%02X", (unsigned char) *signature);
		else
			*to++ = *signature;
	}
	*to = '\0';
	return to;
}

/* Bytes as the inside of a JSON string. */
static char *
write_json(char *to, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c < 0x20)
			to += sprintf(to, "\\u%04x", c);
		else
		{
			if (c == '"' || c == '\\')
				*to++ = '\\';
			*to++ = c;
		}
	}
	return to;
}

size_t
retry_secret_use_write(RetrySecretUse use, const char *secret, size_t secret_len, int64 unix_ms, char *out)
{
	int64		moment = use == RETRY_USE_DINGTALK ? unix_ms : unix_ms / 1000;
	char		signature[SIGNATURE_TEXT + 1];
	char	   *text;
	int			len;
	bool		good;

	*out = '\0';
	if (use == RETRY_USE_PAGERDUTY)
	{
		text = out + sprintf(out, "\"routing_key\":\"");
		text = write_json(text, secret, secret_len);
		strcpy(text, "\"");
		return strlen(out);
	}
	if (use != RETRY_USE_DINGTALK && use != RETRY_USE_FEISHU)
		return 0;

	text = malloc(secret_len + 32);
	if (text == NULL)
		return 0;
	len = sprintf(text, INT64_FORMAT "\n", moment);
	memcpy(text + len, secret, secret_len);
	len += secret_len;
	good = use == RETRY_USE_DINGTALK ? sign(secret, secret_len, text, len, signature) :
		sign(text, len, "", 0, signature);
	free(text);
	if (!good)
		return 0;
	if (use == RETRY_USE_DINGTALK)
		return write_escaped(out + sprintf(out, "timestamp=" INT64_FORMAT "&sign=", moment), signature) - out;
	return sprintf(out, "\"timestamp\":\"" INT64_FORMAT "\",\"sign\":\"%s\"", moment, signature);
}

static size_t
skip_blanks(const char *body, size_t body_len, size_t at)
{
	while (at < body_len && (body[at] == ' ' || body[at] == '\t' || body[at] == '\n' || body[at] == '\r'))
		at++;
	return at;
}

size_t
retry_secret_use_place(const char *body, size_t body_len, bool *empty)
{
	size_t		at = skip_blanks(body, body_len, 0);
	size_t		next;

	if (at == body_len || body[at] != '{')
		return 0;
	next = skip_blanks(body, body_len, at + 1);
	*empty = next < body_len && body[next] == '}';
	return at + 1;
}
