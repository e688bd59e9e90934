/*
 * pem.c
 *		Certificates and keys as text (PEM), judged when they are stored; see pem.h.
 *
 * First the form: parts between BEGIN and END lines with the same label, base64
 * between them, anything around them.  Then, with OpenSSL, what the parts say:
 * that each certificate can be read, and that a key belongs to its certificate.
 */
#include "postgres.h"

#ifdef RETRY_OPENSSL
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#endif

#include "pem.h"

#define BEGIN		"-----BEGIN "
#define END			"-----END "
#define DASHES		"-----"
#define LABEL_MAX	40

/* What was found in a text. */
typedef struct Parts
{
	int			certificates;
	int			keys;
	bool		encrypted;		/* one of the keys is */
} Parts;

static const char *
find(const char *from, const char *end, const char *what)
{
	return from < end ? memmem(from, end - from, what, strlen(what)) : NULL;
}

bool
retry_pem_is_like(const char *text, int len)
{
	return find(text, text + len, BEGIN) != NULL;
}

static bool
ends_with(const char *label, int len, const char *with)
{
	int			with_len = strlen(with);

	return len >= with_len && memcmp(label + len - with_len, with, with_len) == 0;
}

/* Base64, lines of it, and header lines such as "Proc-Type: 4,ENCRYPTED". */
static bool
is_content(const char *at, const char *end)
{
	for (; at < end; at++)
	{
		bool		letter = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || (*at >= '0' && *at <= '9');

		if (!letter && strchr("+/=\r\n \t:,-", *at) == NULL)
			return false;
	}
	return true;
}

/*
 * Reads the part that begins at "at", behind its BEGIN; returns what follows it,
 * NULL when it is not well formed.
 */
static const char *
read_part(const char *at, const char *end, Parts *parts)
{
	const char *label = at;
	const char *dashes = find(at, end, DASHES);
	int			len = dashes != NULL ? dashes - label : 0;
	char		closing[sizeof(END) + LABEL_MAX + sizeof(DASHES)];
	const char *close;

	if (len < 1 || len > LABEL_MAX || memchr(label, '\0', len) != NULL)
		return NULL;
	snprintf(closing, sizeof(closing), "%s%.*s%s", END, len, label, DASHES);
	at = dashes + strlen(DASHES);
	close = find(at, end, closing);
	if (close == NULL || memchr(at, '\0', close - at) != NULL || !is_content(at, close))
		return NULL;
	if (ends_with(label, len, "CERTIFICATE"))
		parts->certificates++;
	else if (ends_with(label, len, "PRIVATE KEY"))
	{
		parts->keys++;
		if (find(label, dashes, "ENCRYPTED") != NULL || find(at, close, "ENCRYPTED") != NULL)
			parts->encrypted = true;
	}
	return close + strlen(closing);
}

static bool
refuse(char *why, size_t size, const char *reason)
{
	strlcpy(why, reason, size);
	return false;
}

static bool
read_parts(const char *text, int len, Parts *parts, char *why, size_t size)
{
	const char *end = text + len;
	const char *at = text;

	memset(parts, 0, sizeof(Parts));
	if (memchr(text, '\0', len) != NULL)
		return refuse(why, size, "it has a zero byte");
	while ((at = find(at, end, BEGIN)) != NULL)
	{
		/* in the middle of a line it is not taken for one */
		if (at > text && at[-1] != '\n')
		{
			at++;
			continue;
		}
		at = read_part(at + strlen(BEGIN), end, parts);
		if (at == NULL)
			return refuse(why, size, "a part of it is not BEGIN, base64 and END with the same label");
	}
	if (parts->certificates == 0)
		return refuse(why, size, "there is no certificate in it");
	return true;
}

#ifdef RETRY_OPENSSL

/* Of an encrypted key, which is refused before: nobody is asked for it. */
static int
no_password(char *buffer, int size, int writing, void *arg)
{
	return -1;
}

/* The first certificate, if all of them can be read; NULL if not. */
static X509 *
read_certificates(const char *text, int len, int count)
{
	BIO		   *source = BIO_new_mem_buf(text, len);
	X509	   *first = NULL;
	int			n = 0;

	while (source != NULL && n < count)
	{
		X509	   *certificate = PEM_read_bio_X509_AUX(source, NULL, no_password, NULL);

		if (certificate == NULL)
			break;
		if (n++ == 0)
			first = certificate;
		else
			X509_free(certificate);
	}
	BIO_free(source);
	if (n < count)
	{
		X509_free(first);
		first = NULL;
	}
	return first;
}

static bool
check_certificates(const char *text, int len, const Parts *parts, char *why, size_t size)
{
	X509	   *first = read_certificates(text, len, parts->certificates);
	bool		good = first != NULL;

	X509_free(first);
	ERR_clear_error();
	return good || refuse(why, size, "a certificate in it cannot be read");
}

static bool
check_pair(const char *text, int len, const Parts *parts, char *why, size_t size)
{
	X509	   *certificate = read_certificates(text, len, parts->certificates);
	BIO		   *source = BIO_new_mem_buf(text, len);
	EVP_PKEY   *key = source != NULL ? PEM_read_bio_PrivateKey(source, NULL, no_password, NULL) : NULL;
	bool		good = false;

	if (certificate == NULL)
		refuse(why, size, "a certificate in it cannot be read");
	else if (key == NULL)
		refuse(why, size, "its private key cannot be read");
	else if (X509_check_private_key(certificate, key) != 1)
		refuse(why, size, "its private key does not belong to its first certificate");
	else
		good = true;
	EVP_PKEY_free(key);
	BIO_free(source);
	X509_free(certificate);
	ERR_clear_error();
	return good;
}

#else

static bool
check_certificates(const char *text, int len, const Parts *parts, char *why, size_t size)
{
	return true;
}

static bool
check_pair(const char *text, int len, const Parts *parts, char *why, size_t size)
{
	return true;
}

#endif							/* RETRY_OPENSSL */

bool
retry_pem_check_authorities(const char *text, int len, char *why, size_t size)
{
	Parts		parts;

	if (!read_parts(text, len, &parts, why, size))
		return false;
	if (parts.keys > 0)
		return refuse(why, size, "there is a private key in it, which everybody could read");
	return check_certificates(text, len, &parts, why, size);
}

bool
retry_pem_check_identity(const char *text, int len, char *why, size_t size)
{
	Parts		parts;

	if (!read_parts(text, len, &parts, why, size))
		return false;
	if (parts.keys != 1)
		return refuse(why, size, parts.keys == 0 ? "there is no private key in it" : "there is more than one private key in it");
	if (parts.encrypted)
		return refuse(why, size, "its private key is encrypted");
	return check_pair(text, len, &parts, why, size);
}
