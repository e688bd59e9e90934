/*
 * test_sign.c
 *		Unit test of signatures, and of references to secrets.
 *
 * The vector is that of the specification (Standard Webhooks 1.0.0); what else
 * is signed here is compared with itself, since test/t/071_signing.pl compares
 * real requests with another implementation.
 */
#include "postgres.h"

#include "../../src/secret_ref.h"
#include "../../src/sign.h"
#include "check.h"

#define SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define HMAC_LEN	47

static RetrySigned
message(const char *id, const char *timestamp, const char *body)
{
	RetrySigned result = {
		.id = id,.id_len = strlen(id),
		.timestamp = timestamp,.timestamp_len = strlen(timestamp),
		.body = body,.body_len = strlen(body)
	};

	return result;
}

static bool
is_key(const char *text, int *len)
{
	RetrySignKey key;
	bool		good = retry_sign_read_key(text, strlen(text), &key);

	*len = key.len;
	return good;
}

static void
test_keys(void)
{
	static const char *const bad[] = {
		"", "whsec_", "whsec", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		"WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS*", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw ",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa==", "whsec_MfKQ9r8GKYqrTwjU PD8ILPZIo2LaLaSw"
	};
	RetrySignKey key;
	char		text[200] = RETRY_SIGN_PREFIX;
	int			len;

	CHECK(is_key(SECRET, &len) && len == 24, "a key of 24 bytes");
	for (int i = 0; i < lengthof(bad); i++)
		CHECK(!is_key(bad[i], &len) && len == 0, "'%s' is no key", bad[i]);
	for (int i = 0; i < 88; i++)
		text[6 + i] = i < 86 ? 'A' : '=';
	CHECK(is_key(text, &len) && len == 64, "a key of 64 bytes");
	memset(text + 6, 'A', 88);
	CHECK(!is_key(text, &len) && len == 0, "one of 66 is none");
	memset(text + 6, 'A', 190);
	CHECK(!is_key(text, &len) && len == 0, "nor is one of 142");
	CHECK(!retry_sign_read_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\0", 39, &key),
		  "nor one with a zero byte");
}

static void
test_signatures(void)
{
	RetrySigned m = message("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "{\"test\": 2432232314}");
	RetrySigned other;
	RetrySignKey key;
	char		signature[RETRY_SIGNATURE_MAX + 1];
	char		again[RETRY_SIGNATURE_MAX + 1];
	char		header[200];

	CHECK(retry_sign_read_key(SECRET, strlen(SECRET), &key), "the specification's key");
	CHECK(retry_sign(&key, &m, signature), "signs");
	CHECK_STR(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "as the specification says");

	other = message("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265331", "{\"test\": 2432232314}");
	CHECK(retry_sign(&key, &other, again) && strcmp(signature, again) != 0, "another time, another signature");
	other = message("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "");
	other.body = NULL;
	CHECK(retry_sign(&key, &other, again) && strlen(again) == HMAC_LEN, "without a body");

	CHECK(retry_sign_is_among(signature, signature, HMAC_LEN), "it is among itself");
	CHECK(!retry_sign_is_among(signature, again, HMAC_LEN), "not among another");
	CHECK(!retry_sign_is_among(signature, signature, HMAC_LEN - 1), "not among a part of it");
	CHECK(!retry_sign_is_among(signature, "", 0), "nor among none");
	snprintf(header, sizeof(header), "v1a,x  %s %s", again, signature);
	CHECK(retry_sign_is_among(signature, header, strlen(header)), "among several, the last");
	snprintf(header, sizeof(header), "%s %s", signature, again);
	CHECK(retry_sign_is_among(signature, header, strlen(header)), "and the first");
	snprintf(header, sizeof(header), "%s%s", signature, again);
	CHECK(!retry_sign_is_among(signature, header, strlen(header)), "not without the space");
	for (int i = 0; i < HMAC_LEN; i++)
	{
		strcpy(header, signature);
		header[i] ^= 1;
		if (retry_sign_is_among(signature, header, HMAC_LEN))
			CHECK(false, "byte %d does not count", i);
	}
}

#ifdef RETRY_OPENSSL

static bool
verified(const RetrySignKey *key, const RetrySigned *m, const char *header)
{
	bool		good;

	return retry_sign_verify(key, m, header, strlen(header), &good) && good;
}

/* The key is that of RFC 8032, 7.1; what it signs was signed by another program. */
static void
test_ed25519(void)
{
	static const char private[] = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
	static const char both[] = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";
	static const char public[] = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
	static const char *const bad[] = {
		"whsk_", "whpk_", "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2",
		"whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2CdYbGd7/1aYLqESvSS7CzEREnFaXsyaRlwO6wDHK5/YA==",
		"whsk_AAAA", "whpk_AAAA", "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	};
	const char *signed_so = "v1a,fldxM4gAKugP6nnt1hdz3sgGfZ6d99nzrMFnZOELIxbzEHoVmAb2ADpkJK7zgPePmPsle0zV9jSeGlHFG2NVAw==";
	RetrySigned m = message("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "{\"test\": 2432232314}");
	RetrySigned other = message("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265331", "{\"test\": 2432232314}");
	RetrySignKey key;
	RetrySignKey only_public;
	char		signature[RETRY_SIGNATURE_MAX + 1];
	char		text[RETRY_SIGN_PUBLIC_TEXT + 1];
	char		header[300];
	int			len;

	for (int i = 0; i < lengthof(bad); i++)
		CHECK(!is_key(bad[i], &len) && len == 0, "'%s' is no key", bad[i]);
	CHECK(is_key(both, &len) && len == 32, "a private key with its public one");
	CHECK(retry_sign_read_key(private, strlen(private), &key) && key.kind == RETRY_SIGN_PRIVATE, "a private key");
	CHECK(retry_sign_public_key(&key, text), "has a public one");
	CHECK_STR(text, public, "which is that of the specification");
	CHECK(retry_sign(&key, &m, signature), "signs");
	CHECK_STR(signature, signed_so, "as another program does");
	CHECK_INT(strlen(signature), RETRY_SIGNATURE_MAX, "a long signature");
	CHECK(retry_sign_read_key(public, strlen(public), &only_public) && only_public.kind == RETRY_SIGN_PUBLIC, "a public key");
	CHECK(!retry_sign(&only_public, &m, signature) && signature[0] == '\0', "does not sign");
	CHECK(!retry_sign_public_key(&only_public, text), "and has none");
	CHECK(verified(&only_public, &m, signed_so), "it verifies");
	CHECK(verified(&key, &m, signed_so), "and so does the private one");
	CHECK(!verified(&only_public, &other, signed_so), "not another message");
	CHECK(!verified(&only_public, &m, ""), "nor none");
	snprintf(header, sizeof(header), "v1,AAAA %s", signed_so);
	CHECK(verified(&only_public, &m, header), "among several, the last");
	snprintf(header, sizeof(header), "%s v1a,AAAA v1a,", signed_so);
	CHECK(verified(&only_public, &m, header), "and the first");
	snprintf(header, sizeof(header), "v1,%s", signed_so + 4);
	CHECK(!verified(&only_public, &m, header), "not as another version");
	for (int i = 0; i < RETRY_SIGNATURE_MAX - 4; i++)
	{
		strcpy(header, signed_so);
		header[i] = header[i] == 'A' ? 'B' : 'A';
		if (verified(&only_public, &m, header))
			CHECK(false, "byte %d does not count", i);
	}
	other = message("m", "1", "");
	other.body = NULL;
	CHECK(retry_sign(&key, &other, signature) && verified(&only_public, &other, signature), "without a body");
}

#else

static void
test_ed25519(void)
{
	CHECK(true, "ed25519 # SKIP no OpenSSL");
}

#endif							/* RETRY_OPENSSL */

static void
test_timestamps(void)
{
	static const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "1.0", "0x1", "1e3", "1234567890123"};
	int64		at;

	CHECK(retry_sign_read_timestamp("1614265330", 10, &at) && at == 1614265330, "a timestamp");
	CHECK(retry_sign_read_timestamp("999999999999", 12, &at) && at == INT64CONST(999999999999), "the longest");
	for (int i = 0; i < lengthof(bad); i++)
		CHECK(!retry_sign_read_timestamp(bad[i], strlen(bad[i]), &at), "'%s' is none", bad[i]);
}

/* What there is from the start: the name, or what is wrong. */
static void
references(const char *text, RetrySecretFound want, const char *name, int end)
{
	RetrySecretRef ref = {0};
	RetrySecretFound found = retry_secret_ref_next(text, strlen(text), 0, &ref);

	CHECK(found == want, "'%.70s' is read", text);
	if (found != RETRY_SECRET_REF_GOOD || want != found)
		return;
	CHECK(ref.name_len == strlen(name) && memcmp(text + ref.name_at, name, ref.name_len) == 0,
		  "... it names '%.*s'", ref.name_len, text + ref.name_at);
	CHECK_INT(ref.end, end, "... and ends there");
}

static void
test_references(void)
{
	RetrySecretRef ref;
	char		text[200];

	references("", RETRY_SECRET_REF_NONE, NULL, 0);
	references("{{secret", RETRY_SECRET_REF_NONE, NULL, 0);
	references("{{ secret:a}}", RETRY_SECRET_REF_NONE, NULL, 0);
	references("{{Secret:a}}", RETRY_SECRET_REF_NONE, NULL, 0);
	references("{{secret:a}}", RETRY_SECRET_REF_GOOD, "a", 12);
	references("Bearer {{secret:a-b_9}} x", RETRY_SECRET_REF_GOOD, "a-b_9", 23);
	references("{{{secret:a}}}", RETRY_SECRET_REF_GOOD, "a", 13);
	references("{{secret:}}", RETRY_SECRET_REF_BAD, NULL, 0);
	references("{{secret:A}}", RETRY_SECRET_REF_BAD, NULL, 0);
	references("{{secret:a", RETRY_SECRET_REF_BAD, NULL, 0);
	references("{{secret:a}", RETRY_SECRET_REF_BAD, NULL, 0);
	references("{{secret:a }}", RETRY_SECRET_REF_BAD, NULL, 0);
	references("{{secret:{{secret:a}}}}", RETRY_SECRET_REF_BAD, NULL, 0);
	snprintf(text, sizeof(text), "{{secret:%063d}}", 1);
	CHECK(retry_secret_ref_next(text, strlen(text), 0, &ref) == RETRY_SECRET_REF_GOOD, "a name of 63 bytes");
	snprintf(text, sizeof(text), "{{secret:%064d}}", 1);
	CHECK(retry_secret_ref_next(text, strlen(text), 0, &ref) == RETRY_SECRET_REF_BAD, "not one of 64");
	strcpy(text, "{{secret:a}}{{secret:b}}");
	CHECK(retry_secret_ref_next(text, 24, 12, &ref) == RETRY_SECRET_REF_GOOD && text[ref.name_at] == 'b',
		  "the next");
	CHECK(retry_secret_ref_next(text, 24, 24, &ref) == RETRY_SECRET_REF_NONE, "and no more");
	CHECK(retry_secret_ref_next(text, 11, 0, &ref) == RETRY_SECRET_REF_BAD, "nothing behind the end is read");
}

int
main(void)
{
	test_keys();
	test_signatures();
	test_ed25519();
	test_timestamps();
	test_references();
	return check_done();
}
