/*
 * fuzz_url.c
 *		Holds the strict URL reader against libcurl's own.
 *
 * The reader may refuse what libcurl takes, never the other way round: a URL
 * that it accepts must be one that libcurl reads to the same scheme, host and
 * port, and neither may find credentials in it.  Any difference is a way past
 * the checks made at enqueue, so it aborts.  libFuzzer entry point; the first
 * byte chooses between URL, method and header line.
 */
#include "postgres.h"

#include <curl/curl.h>

#include "../../src/url.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(bool condition, const char *what, const char *text)
{
	if (condition)
		return;
	fprintf(stderr, "%s: \"%s\"\n", what, text);
	abort();
}

/* The port that libcurl would connect to, 0 if it cannot tell. */
static int
curl_port(CURLU *curl)
{
	char	   *port = NULL;
	int			number = 0;

	if (curl_url_get(curl, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK)
		number = atoi(port);
	curl_free(port);
	return number;
}

static void
same_host(const RetryUrl *url, const char *host, const char *text)
{
	size_t		len = strlen(url->host);

	if (url->ipv6)
	{
		must(host[0] == '[', "no IPv6 for libcurl", text);
		must(strncasecmp(host + 1, url->host, len) == 0 && host[len + 1] == ']', "another IPv6 host", text);
	}
	else
		must(strncasecmp(host, url->host, len) == 0 &&
			 (host[len] == '\0' || strcmp(host + len, ".") == 0), "another host", text);
}

static void
check_url(const char *text)
{
	RetryUrl	url;
	RetryUrl	again;
	char		err[256] = "";
	CURLU	   *curl;
	char	   *host = NULL;
	char	   *part = NULL;
	char	   *sent;

	if (!retry_url_check(text, &url, err, sizeof(err)))
	{
		must(err[0] != '\0', "refused without a reason", text);
		return;
	}
	must(url.port >= 1 && url.port <= 65535, "port out of range", text);
	must(retry_url_check(url.origin, &again, err, sizeof(err)) &&
		 strcmp(again.origin, url.origin) == 0, "origin is not its own origin", text);

	/* what http.c sends: without the fragment */
	sent = strndup(text, url.length);
	curl = curl_url();
	must(curl_url_set(curl, CURLUPART_URL, sent, CURLU_PATH_AS_IS) == CURLUE_OK, "libcurl refuses", text);
	must(curl_url_get(curl, CURLUPART_SCHEME, &part, 0) == CURLUE_OK &&
		 strcmp(part, url.https ? "https" : "http") == 0, "another scheme", text);
	curl_free(part);
	must(curl_url_get(curl, CURLUPART_HOST, &host, 0) == CURLUE_OK, "no host for libcurl", text);
	same_host(&url, host, text);
	must(curl_port(curl) == url.port, "another port", text);
	part = NULL;
	must(curl_url_get(curl, CURLUPART_USER, &part, 0) == CURLUE_NO_USER, "credentials", text);
	part = NULL;
	must(curl_url_get(curl, CURLUPART_FRAGMENT, &part, 0) == CURLUE_NO_FRAGMENT, "a fragment", text);
	curl_free(host);
	curl_url_cleanup(curl);
	free(sent);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text;
	char		err[256] = "";

	if (size == 0)
		return 0;
	text = strndup((const char *) data + 1, size - 1);
	switch (data[0] % 4)
	{
		case 0:
			if (retry_method_check(text, err, sizeof(err)))
				must(strpbrk(text, " \r\n\t:/") == NULL, "method", text);
			break;
		case 1:
			if (retry_header_line_check(text, err, sizeof(err)))
				must(strpbrk(text, "\r\n") == NULL && strchr(text, ':') > text, "header", text);
			break;
		default:
			check_url(text);
	}
	free(text);
	return 0;
}
