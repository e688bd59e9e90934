/*
 * http_tls.c
 *	  What a transfer asks of TLS, and in what words it says that it failed.
 *
 * curl shares a connection only between transfers whose settings of TLS are the
 * same, certificate and key included; so a transfer must have told it all of
 * them before it begins.  Most transfers have none of their own.  For the others
 * the client keeps one copy for as long as a transfer, under way or idle, was
 * set up with it: who asks may be gone before a transfer is repeated.  Their
 * easy handles point into it.
 *
 * The sentences say which part of the handshake failed, since who reads them
 * has to know whose certificate to renew.
 */
#include "postgres.h"

#include <unistd.h>

#include "http_private.h"

/* A file of authorities that has changed counts after this, for new connections. */
#define CA_KEPT_S	300L

/* Copies of the caller's strings; the struct of those who hold it. */
struct RetryTlsKept
{
	RetryTls	tls;
	int			holders;
	RetryTlsKept *next;
};

static bool
same_text(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(a, b) == 0;
}

static bool
same(const RetryTls *a, const RetryTls *b)
{
	return a->unverified == b->unverified && a->from_1_3 == b->from_1_3 &&
		same_text(a->authorities, b->authorities) && same_text(a->identity, b->identity) &&
		same_text(a->pins, b->pins);
}

bool
retry_tls_is(const RetryTlsKept *kept, const RetryTls *tls)
{
	if (kept == NULL || tls == NULL)
		return kept == NULL && tls == NULL;
	return same(&kept->tls, tls);
}

/* A copy; false when memory is short. */
static bool
copy_text(const char **to, const char *from)
{
	*to = from != NULL ? strdup(from) : NULL;
	return from == NULL || *to != NULL;
}

static void
free_kept(RetryTlsKept *kept)
{
	if (kept->tls.identity != NULL)
		explicit_bzero(unconstify(char *, kept->tls.identity), strlen(kept->tls.identity));
	free(unconstify(char *, kept->tls.identity));
	free(unconstify(char *, kept->tls.authorities));
	free(unconstify(char *, kept->tls.pins));
	free(kept);
}

RetryTlsKept *
retry_tls_keep(RetryHttp *http, const RetryTls *tls)
{
	RetryTlsKept *kept;

	for (kept = http->tls; kept != NULL; kept = kept->next)
	{
		if (same(&kept->tls, tls))
		{
			kept->holders++;
			return kept;
		}
	}
	kept = calloc(1, sizeof(RetryTlsKept));
	if (kept == NULL)
		return NULL;
	kept->tls.unverified = tls->unverified;
	kept->tls.from_1_3 = tls->from_1_3;
	if (!copy_text(&kept->tls.authorities, tls->authorities) ||
		!copy_text(&kept->tls.identity, tls->identity) ||
		!copy_text(&kept->tls.pins, tls->pins))
	{
		free_kept(kept);
		return NULL;
	}
	kept->holders = 1;
	kept->next = http->tls;
	http->tls = kept;
	return kept;
}

void
retry_tls_let_go(RetryHttp *http, RetryTlsKept *kept)
{
	RetryTlsKept **link = &http->tls;

	if (kept == NULL || --kept->holders > 0)
		return;
	while (*link != kept)
		link = &(*link)->next;
	*link = kept->next;
	free_kept(kept);
}

const RetryTls *
retry_tls_of(const RetryTlsKept *kept)
{
	return kept != NULL ? &kept->tls : NULL;
}

/* The text must live as long as the handle is set up so. */
static CURLcode
set_blob(CURL *easy, CURLoption option, const char *text)
{
	struct curl_blob blob = {
		.data = unconstify(char *, text),
		.len = strlen(text),
		.flags = CURL_BLOB_NOCOPY
	};

	return curl_easy_setopt(easy, option, &blob);
}

/* Does this libcurl know a file of the system's authorities, which is there? */
static bool
has_system_file(CURL *easy)
{
	static bool asked = false;
	static bool has = false;
	char	   *file = NULL;

	if (!asked)
		has = curl_easy_getinfo(easy, CURLINFO_CAINFO, &file) == CURLE_OK && file != NULL &&
			access(file, R_OK) == 0;
	asked = true;
	return has;
}

CURLcode
retry_tls_apply(const RetryHttp *http, CURL *easy, const RetryTlsKept *kept)
{
	const RetryTls *tls = retry_tls_of(kept);
	CURLcode	bad = CURLE_OK;

#define SET(call) (bad = bad != CURLE_OK ? bad : (call))
	SET(curl_easy_setopt(easy, CURLOPT_SSLVERSION,
						 tls != NULL && tls->from_1_3 ? (long) CURL_SSLVERSION_TLSv1_3 :
						 (long) CURL_SSLVERSION_TLSv1_2));
	SET(curl_easy_setopt(easy, CURLOPT_PROXY_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2));

	/*
	 * What is named is trusted instead of the system's authorities, so their
	 * folder must go.  It has nothing that their file has not; and while
	 * there is a folder curl reads the file for each connection anew.
	 */
	if (http->ca_bundle[0] != '\0')
	{
		SET(curl_easy_setopt(easy, CURLOPT_CAINFO, http->ca_bundle));
		SET(curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, http->ca_bundle));
	}
	if (tls != NULL && tls->authorities != NULL)
		SET(set_blob(easy, CURLOPT_CAINFO_BLOB, tls->authorities));
	if (http->ca_bundle[0] != '\0' || (tls != NULL && tls->authorities != NULL) || has_system_file(easy))
		SET(curl_easy_setopt(easy, CURLOPT_CAPATH, NULL));
	if (http->ca_bundle[0] != '\0' || has_system_file(easy))
		SET(curl_easy_setopt(easy, CURLOPT_PROXY_CAPATH, NULL));

	/* libcurls refuse it that read the file each time; so be it */
	(void) curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, CA_KEPT_S);
	if (tls != NULL && tls->identity != NULL)
	{
		SET(set_blob(easy, CURLOPT_SSLCERT_BLOB, tls->identity));
		SET(set_blob(easy, CURLOPT_SSLKEY_BLOB, tls->identity));

		/* or it would ask at the terminal for that of an encrypted key */
		SET(curl_easy_setopt(easy, CURLOPT_KEYPASSWD, ""));
	}
	if (tls != NULL && tls->pins != NULL)
		SET(curl_easy_setopt(easy, CURLOPT_PINNEDPUBLICKEY, tls->pins));
	if (tls != NULL && tls->unverified)
	{
		SET(curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L));
		SET(curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L));
	}
#undef SET
	return bad;
}

/* Failures */

/* OpenSSL's verdicts on a server's certificate (X509_V_ERR_...). */
enum
{
	ISSUER_NOT_GIVEN = 2,
	NOT_YET_VALID = 9,
	EXPIRED = 10,
	SELF_SIGNED = 18,
	SELF_SIGNED_IN_CHAIN = 19,
	ISSUER_NOT_HERE = 20,
	NO_CHAIN = 21
};

/* What curl says, without its introduction. */
static const char *
without_prefix(const char *detail)
{
	static const char *const prefixes[] = {"SSL certificate problem: ", "SSL certificate OpenSSL verify result: ", "SSL: "};

	for (int i = 0; i < lengthof(prefixes); i++)
	{
		if (strncmp(detail, prefixes[i], strlen(prefixes[i])) == 0)
			return detail + strlen(prefixes[i]);
	}
	return detail;
}

/* How much of that is words: libcurl 8.20 or so appends the number of the verdict. */
static int
words_length(const char *words)
{
	const char *number = strrchr(words, '(');
	size_t		digits = number != NULL ? strspn(number + 1, "0123456789") : 0;

	return digits > 0 && strcmp(number + 1 + digits, ")") == 0 && number > words && number[-1] == ' ' ?
		(int) (number - words) - 1 : (int) strlen(words);
}

/* What the server said as it broke off, an alert; NULL: it said nothing of the kind. */
static const char *
find_alert(const char *detail)
{
	const char *alert = strstr(detail, " alert ");

	return alert != NULL ? alert + strlen(" alert ") : NULL;
}

static bool
begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

/* Is the alert about the client's certificate, or that there is none? */
static bool
is_about_client(const char *alert)
{
	static const char *const alerts[] = {
		"certificate required", "no certificate", "bad certificate", "unsupported certificate",
		"certificate revoked", "certificate expired", "certificate unknown", "unknown ca",
		"access denied", "decrypt error"
	};

	for (int i = 0; i < lengthof(alerts); i++)
	{
		if (begins(alert, alerts[i]))
			return true;
	}
	return false;
}

/* The server broke off the handshake with an alert. */
static void
fail_alert(RetryTransfer *t, const char *alert)
{
	const RetryTls *tls = retry_tls_of(t->tls);
	bool		identified = tls != NULL && tls->identity != NULL;
	int			len = strcspn(alert, ",:(");

	if (begins(alert, "protocol version"))
		retry_transfer_fail(t, RETRY_HTTP_TLS, "server speaks no version of TLS that is allowed");
	else if (is_about_client(alert) && identified)
		retry_transfer_fail(t, RETRY_HTTP_TLS, "server refused the client certificate: %.*s", len, alert);
	else if (is_about_client(alert))
		retry_transfer_fail(t, RETRY_HTTP_TLS, "server wants a client certificate: %.*s", len, alert);
	else if (begins(alert, "handshake failure") && !identified)
		retry_transfer_fail(t, RETRY_HTTP_TLS,
							"server refused the handshake; it may want a client certificate: %.*s", len, alert);
	else
		retry_transfer_fail(t, RETRY_HTTP_TLS, "server refused the handshake: %.*s", len, alert);
}

static void
fail_server_certificate(RetryTransfer *t, const char *detail)
{
	long		verdict = 0;

	curl_easy_getinfo(t->easy, CURLINFO_SSL_VERIFYRESULT, &verdict);
	detail = without_prefix(detail);

	/* so curl calls an alert of the server's */
	if (strcmp(detail, "SSL certificate verification failed") == 0)
	{
		fail_alert(t, "certificate expired");
		return;
	}

	/* curl compares names itself, and its words name the host */
	if (strstr(detail, "subject name") != NULL || strstr(detail, "common name") != NULL)
	{
		retry_transfer_fail(t, RETRY_HTTP_TLS, "server's certificate is for another host name");
		return;
	}
	switch (verdict)
	{
		case EXPIRED:
			retry_transfer_fail(t, RETRY_HTTP_TLS, "server's certificate has expired");
			break;
		case NOT_YET_VALID:
			retry_transfer_fail(t, RETRY_HTTP_TLS, "server's certificate is not valid yet");
			break;
		case ISSUER_NOT_GIVEN:
		case SELF_SIGNED:
		case SELF_SIGNED_IN_CHAIN:
		case ISSUER_NOT_HERE:
		case NO_CHAIN:
			retry_transfer_fail(t, RETRY_HTTP_TLS, "issuer of the server's certificate is not trusted: %.*s",
								words_length(detail), detail);
			break;
		default:
			retry_transfer_fail(t, RETRY_HTTP_TLS, "server's certificate: %.*s", words_length(detail), detail);
			break;
	}
}

static void
fail_handshake(RetryTransfer *t, const char *detail)
{
	const char *alert = find_alert(detail);

	if (alert != NULL)
		fail_alert(t, alert);
	else if (strstr(detail, "unsupported protocol") != NULL || strstr(detail, "no protocols available") != NULL)
		retry_transfer_fail(t, RETRY_HTTP_TLS, "server speaks no version of TLS that is allowed");
	else if (strstr(detail, "wrong version number") != NULL || strstr(detail, "packet length too long") != NULL)
		retry_transfer_fail(t, RETRY_HTTP_TLS, "server does not speak TLS");
	else
		retry_transfer_fail(t, RETRY_HTTP_TLS, "handshake failed: %s", detail);
}

bool
retry_tls_conclude(RetryTransfer *t, CURLcode code, const char *detail)
{
	switch (code)
	{
		case CURLE_PEER_FAILED_VERIFICATION:
			fail_server_certificate(t, detail);
			return true;
		case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
			retry_transfer_fail(t, RETRY_HTTP_TLS, "server's public key is not one of those that are pinned");
			return true;
		case CURLE_SSL_CERTPROBLEM:
			retry_transfer_fail(t, RETRY_HTTP_TLS, "client certificate cannot be used: %s", detail);
			return true;
		case CURLE_SSL_CACERT_BADFILE:
			retry_transfer_fail(t, RETRY_HTTP_TLS, "certificates of the authorities cannot be read: %s", detail);
			return true;
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_INVALIDCERTSTATUS:
		case CURLE_SSL_CLIENTCERT:
			fail_handshake(t, detail);
			return true;
		case CURLE_SEND_ERROR:
		case CURLE_RECV_ERROR:

			/*
			 * TLS 1.3: the server judges when the client thinks that all is
			 * done
			 */
			if (t->answering || find_alert(detail) == NULL || strstr(detail, "SSL") == NULL)
				return false;
			fail_alert(t, find_alert(detail));
			return true;
		default:
			return false;
	}
}
