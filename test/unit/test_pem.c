/*
 * test_pem.c
 *		Unit test of certificates and keys as text.
 *
 * The certificates are made by the openssl program when the test runs, as those
 * who paste them do; where there is none, only the form is tested.
 */
#include "postgres.h"

#include <unistd.h>

#include "../../src/pem.h"
#include "check.h"

#define CERTIFICATE "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
#define KEY "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"

static char why[200];

static const char *
authorities(const char *text)
{
	return retry_pem_check_authorities(text, strlen(text), why, sizeof(why)) ? "good" : why;
}

static const char *
identity(const char *text)
{
	return retry_pem_check_identity(text, strlen(text), why, sizeof(why)) ? "good" : why;
}

static void
test_form(void)
{
	static const struct
	{
		const char *text;
		const char *said;
	}			bad[] = {
		{"", "there is no certificate in it"},
		{"nonsense", "there is no certificate in it"},
		{"-----BEGIN ", "a part of it is not BEGIN, base64 and END with the same label"},
		{"-----BEGIN CERTIFICATE-----", "a part of it is not BEGIN, base64 and END with the same label"},
		{"-----BEGIN -----\n-----END -----", "a part of it is not BEGIN, base64 and END with the same label"},
		{"-----BEGIN CERTIFICATE-----\nAAAA\n-----END PRIVATE KEY-----\n", "a part of it is not BEGIN, base64 and END with the same label"},
		{"-----BEGIN CERTIFICATE-----\nA<AA\n-----END CERTIFICATE-----\n", "a part of it is not BEGIN, base64 and END with the same label"},
		{"-----BEGIN A LABEL THAT IS LONGER THAN ANY THAT ANYBODY USES-----\nAAAA\n-----END", "a part of it is not BEGIN, base64 and END with the same label"},
		{CERTIFICATE "-----BEGIN CERTIFICATE-----\nAAAA\n", "a part of it is not BEGIN, base64 and END with the same label"},
		{KEY, "there is no certificate in it"},
		{"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "there is no certificate in it"}
	};

	for (int i = 0; i < lengthof(bad); i++)
	{
		CHECK_STR(authorities(bad[i].text), bad[i].said, "authorities are refused");
		CHECK_STR(identity(bad[i].text), bad[i].said, "and an identity");
	}
	CHECK_STR(authorities("x " CERTIFICATE), "there is no certificate in it", "not at the beginning of a line");
	CHECK_STR(authorities(CERTIFICATE KEY), "there is a private key in it, which everybody could read", "a key among authorities");
	CHECK_STR(identity(CERTIFICATE), "there is no private key in it", "an identity without a key");
	CHECK_STR(identity(CERTIFICATE KEY KEY), "there is more than one private key in it", "with two");
	CHECK_STR(identity(CERTIFICATE "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"),
			  "its private key is encrypted", "with an encrypted one");
	CHECK_STR(identity(CERTIFICATE "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"),
			  "its private key is encrypted", "in the old way");
	CHECK(!retry_pem_check_authorities(CERTIFICATE "\0", sizeof(CERTIFICATE), why, sizeof(why)) && strcmp(why, "it has a zero byte") == 0,
		  "a zero byte");
	CHECK(retry_pem_is_like(KEY, strlen(KEY)) && retry_pem_is_like("x-----BEGIN Y", 13), "what is like it");
	CHECK(!retry_pem_is_like("whsec_AAAA", 10) && !retry_pem_is_like("-----BEGIN", 10) && !retry_pem_is_like("", 0), "what is not");
}

#ifdef RETRY_OPENSSL

/* What a command prints; "" when it fails. */
static char *
output_of(const char *command)
{
	static char all[16][8192];
	static int	count;
	char	   *out = all[count++];
	FILE	   *f = popen(command, "r");
	size_t		len = f != NULL ? fread(out, 1, sizeof(all[0]) - 1, f) : 0;

	out[f != NULL && pclose(f) == 0 ? len : 0] = '\0';
	return out;
}

/* What the parts say. */
static void
test_content(void)
{
	char	   *both = output_of("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=a -keyout - -out - 2>/dev/null");
	char	   *other = output_of("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=b -keyout - -out - 2>/dev/null");
	char	   *certificate = strstr(both, "-----BEGIN CERTIFICATE-----");
	char	   *other_certificate = strstr(other, "-----BEGIN CERTIFICATE-----");
	char		text[16384];
	int			key_len;

	CHECK_STR(authorities(CERTIFICATE), "a certificate in it cannot be read", "what is no certificate");
	CHECK_STR(identity(CERTIFICATE KEY), "a certificate in it cannot be read", "nor in an identity");
	if (certificate == NULL || other_certificate == NULL)
	{
		CHECK(true, "real certificates # SKIP no openssl program");
		return;
	}
	key_len = certificate - both;
	CHECK_STR(identity(both), "good", "a key and its certificate");
	CHECK_STR(identity(other), "good", "of another kind");
	CHECK_STR(authorities(certificate), "good", "the certificate alone");
	snprintf(text, sizeof(text), "a comment\n%s%s", certificate, other_certificate);
	CHECK_STR(authorities(text), "good", "two of them and a comment");
	snprintf(text, sizeof(text), "%s%s%.*s", certificate, other_certificate, key_len, both);
	CHECK_STR(identity(text), "good", "the key last, with the issuer's certificate");
	snprintf(text, sizeof(text), "%s%s%.*s", other_certificate, certificate, key_len, both);
	CHECK_STR(identity(text), "its private key does not belong to its first certificate", "in the wrong order");
	snprintf(text, sizeof(text), "%s%s", certificate, KEY);
	CHECK_STR(identity(text), "its private key cannot be read", "what is no key");
	snprintf(text, sizeof(text), "%s%s", certificate, CERTIFICATE);
	CHECK_STR(authorities(text), "a certificate in it cannot be read", "one of two is none");
	certificate[strlen("-----BEGIN CERTIFICATE-----\n")] = 'A';	/* its first byte */
	CHECK_STR(authorities(certificate), "a certificate in it cannot be read", "a changed one");
}

#else

static void
test_content(void)
{
	CHECK_STR(authorities(CERTIFICATE), "good", "without OpenSSL only the form is judged");
	CHECK_STR(identity(CERTIFICATE KEY), "good", "of identities too");
}

#endif							/* RETRY_OPENSSL */

int
main(void)
{
	test_form();
	test_content();
	return check_done();
}
