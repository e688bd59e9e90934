/*
 * test_url.c
 *		The strict reader of URLs, methods and header lines.
 *
 * What is accepted is compared with libcurl's own reading of the same text:
 * enqueue and send must never disagree about the host.  What is refused must
 * say why without repeating a secret.
 */
#include "postgres.h"

#include <curl/curl.h>

#include "../../src/url.h"
#include "check.h"

static void
check_accepted(const char *text, const char *origin, int length)
{
	RetryUrl	url;
	char		err[300] = "";
	CURLU	   *curl = curl_url();
	char	   *host = NULL;
	bool		agrees = false;

	if (curl_url_set(curl, CURLUPART_URL, text, 0) == CURLUE_OK)
		agrees = curl_url_get(curl, CURLUPART_HOST, &host, 0) == CURLUE_OK;
	if (!retry_url_check(text, &url, err, sizeof(err)))
		CHECK(false, "\"%.60s\" is accepted: %s", text, err);
	else
	{
		size_t		len = strlen(url.host);

		if (host != NULL && host[0] == '[')
			agrees = strncasecmp(host + 1, url.host, len) == 0;
		else if (host != NULL)
			agrees = strncasecmp(host, url.host, len) == 0 && (host[len] == '\0' || host[len] == '.');
		CHECK(strcmp(url.origin, origin) == 0, "\"%.60s\" has origin %s", text, url.origin);
		CHECK(url.length == (length ? length : (int) strlen(text)) && agrees,
			  "... sends %d bytes, and libcurl reads the host %s", url.length, host ? host : "?");
	}
	curl_free(host);
	curl_url_cleanup(curl);
}

static void
check_refused(const char *text, const char *expected)
{
	char		err[300] = "";

	CHECK(!retry_url_check(text, NULL, err, sizeof(err)), "\"%.60s\" is refused", text);
	CHECK_STR(err, expected, "... and says why");
}

/* The URL of a mail server: what libcurl is told, its host and whether it is the usual port. */
static void
check_mail(const char *text, const char *origin, const char *host, bool tls, bool usual_port)
{
	RetryUrl	url;
	char		err[300] = "";

	CHECK(retry_url_check_mail(text, &url, err, sizeof(err)) && url.https == tls && url.usual_port == usual_port,
		  "\"%s\" is a mail server%s%s", text, tls ? " with TLS" : "", err);
	CHECK_STR(url.origin, origin, "... that libcurl knows");
	CHECK_STR(url.host, host, "... with its host");
}

static void
check_no_mail(const char *text, const char *expected)
{
	char		err[300] = "";

	CHECK(!retry_url_check_mail(text, NULL, err, sizeof(err)), "\"%.60s\" is no mail server", text);
	CHECK_STR(err, expected, "... and says why");
	CHECK(strncmp(text, "smtp", 4) != 0 || !retry_url_check(text, NULL, err, sizeof(err)), "... nor a receiver");
}

static void
test_mail(void)
{
	const char *scheme = "URL does not begin with smtps://, smtp:// or smtp+plaintext://";

	check_mail("smtps://mail.example.com", "smtps://mail.example.com:465", "mail.example.com", true, true);
	check_mail("smtp://Mail.Example.COM/", "smtp://mail.example.com:587", "mail.example.com", true, true);
	check_mail("smtp+plaintext://localhost", "smtp://localhost:25", "localhost", false, true);
	check_mail("smtps://h:465", "smtps://h:465", "h", true, true);
	check_mail("smtps://h:25", "smtps://h:25", "h", true, false);
	check_mail("smtp+plaintext://[::1]:2525/", "smtp://[::1]:2525", "::1", false, false);
	check_no_mail("", scheme);
	check_no_mail("https://example.com", scheme);
	check_no_mail("SMTP://example.com", scheme);
	check_no_mail("smtp+tls://example.com", scheme);
	check_no_mail("smtp://ada:secret@example.com", "URL contains credentials; they have columns of their own");
	check_no_mail("smtp://example.com/path", "URL of a mail server has more than a host and a port");
	check_no_mail("smtp://example.com?x", "URL of a mail server has more than a host and a port");
	check_no_mail("smtp://example.com/#x", "URL of a mail server has more than a host and a port");
	check_no_mail("smtp://", "URL has no host");
	check_no_mail("smtp://example.com:0", "port \"0\" in URL is not a number from 1 to 65535");
}

static void
test_accepted(void)
{
	check_accepted("http://example.com", "http://example.com", 0);
	check_accepted("HTTPS://Example.COM/Path?Q=1", "https://example.com", 0);
	check_accepted("http://example.com:80/", "http://example.com", 0);
	check_accepted("https://example.com:443", "https://example.com", 0);
	check_accepted("http://example.com:443", "http://example.com:443", 0);
	check_accepted("http://example.com:08080/", "http://example.com:8080", 0);
	check_accepted("http://example.com:65535?x", "http://example.com:65535", 0);
	check_accepted("http://example.com./", "http://example.com", 0);
	check_accepted("http://my_host-1/a/../b;c=1?d=%20&e[]=1", "http://my_host-1", 0);
	check_accepted("http://example.com/a#fragment", "http://example.com", 20);
	check_accepted("http://example.com#fragment", "http://example.com", 18);
	check_accepted("http://example.com/a@b:c", "http://example.com", 0);
	check_accepted("http://127.0.0.1:8080/ok", "http://127.0.0.1:8080", 0);
	check_accepted("http://[::1]:8080/", "http://[::1]:8080", 0);
	check_accepted("https://[2001:DB8:0::1]/", "https://[2001:db8::1]", 0);
	check_accepted("http://[::ffff:127.0.0.1]/", "http://[::ffff:127.0.0.1]", 0);
	check_accepted("http://xn--bcher-kva.example/", "http://xn--bcher-kva.example", 0);
	check_accepted("http://1.2.3.4.example/", "http://1.2.3.4.example", 0);
	check_accepted("http://3com/", "http://3com", 0);
}

static void
test_refused(void)
{
	check_refused("", "URL is empty");
	check_refused("example.com/", "URL does not begin with http:// or https://");
	check_refused("//example.com/", "URL does not begin with http:// or https://");
	check_refused("http:/example.com/", "URL does not begin with http:// or https://");
	check_refused("http:example.com", "URL does not begin with http:// or https://");
	check_refused("ftp://example.com/", "scheme \"ftp\" is not http or https");
	check_refused("file:///etc/passwd", "scheme \"file\" is not http or https");
	check_refused("httpx://example.com/", "scheme \"httpx\" is not http or https");
	check_refused("http://", "URL has no host");
	check_refused("http:///path", "URL has no host");
	check_refused("http://?x", "URL has no host");
	check_refused("http://:80/", "URL has no host");
	check_refused("http://user:secret@example.com/", "URL contains credentials; send them in a header");
	check_refused("http://@example.com/", "URL contains credentials; send them in a header");
	check_refused("http://good.example:80@evil.example/", "URL contains credentials; send them in a header");
	check_refused("http://example.com:/", "port \"\" in URL is not a number from 1 to 65535");
	check_refused("http://example.com:0/", "port \"0\" in URL is not a number from 1 to 65535");
	check_refused("http://example.com:65536/", "port \"65536\" in URL is not a number from 1 to 65535");
	check_refused("http://example.com:99999999999/", "port \"99999999999\" in URL is not a number from 1 to 65535");
	check_refused("http://example.com:80:80/", "port \"80:80\" in URL is not a number from 1 to 65535");
	check_refused("http://example.com:+80/", "port \"+80\" in URL is not a number from 1 to 65535");
	check_refused("http://exa mple.com/", "URL contains a blank (byte 0x20) at position 11; percent-encode it");
	check_refused("http://example.com/\r\nX: y", "URL contains a control character (byte 0x0D) at position 20; percent-encode it");
	check_refused("http://example.com/\x7f", "URL contains a control character (byte 0x7F) at position 20; percent-encode it");
	check_refused("http://example.com/caf\xc3\xa9", "URL contains a character outside ASCII (byte 0xC3) at position 23; percent-encode it");
	check_refused("http://good.example\\@evil.example/", "URL contains a backslash (byte 0x5C) at position 20; percent-encode it");
	check_refused("http://ex%61mple.com/", "host in URL contains \"%\"; percent-encoding is not allowed there");
	check_refused("http://a..b/", "host in URL has an empty label");
	check_refused("http://.example/", "host in URL has an empty label");
	check_refused("http://./", "host in URL has an empty label");
	check_refused("http://a{b}/", "host in URL contains \"{\"");
	check_refused("http://2130706433/", "host \"2130706433\" in URL is neither a name nor a dotted IPv4 address");
	check_refused("http://127.1/", "host \"127.1\" in URL is neither a name nor a dotted IPv4 address");
	check_refused("http://0x7f.0.0.1/", "host \"0x7f.0.0.1\" in URL is neither a name nor a dotted IPv4 address");
	check_refused("http://0X7F000001/", "host \"0x7f000001\" in URL is neither a name nor a dotted IPv4 address");
	check_refused("http://0177.0.0.1/", "host \"0177.0.0.1\" in URL is neither a name nor a dotted IPv4 address");
	check_refused("http://127.0.0.256/", "host \"127.0.0.256\" in URL is neither a name nor a dotted IPv4 address");
	check_refused("http://1.2.3.4.5/", "host \"1.2.3.4.5\" in URL is neither a name nor a dotted IPv4 address");
	check_refused("http://127.1./", "host \"127.1\" in URL is neither a name nor a dotted IPv4 address");
	check_refused("http://[::1/", "URL has \"[\" without \"]\" in its host");
	check_refused("http://[::1]x/", "port \"\" in URL is not a number from 1 to 65535");
	check_refused("http://[fe80::1%25eth0]/", "\"[fe80::1%25eth0]\" in URL is not an IPv6 address");
	check_refused("http://[127.0.0.1]/", "\"[127.0.0.1]\" in URL is not an IPv6 address");
}

static void
test_lengths(void)
{
	static char text[RETRY_URL_MAX_LENGTH + 2];
	char		host[300] = "http://";
	RetryUrl	url;
	char		err[300];

	memset(text, 'a', RETRY_URL_MAX_LENGTH + 1);
	memcpy(text, "http://h/", 9);
	check_refused(text, "URL is longer than 8192 bytes");
	text[RETRY_URL_MAX_LENGTH] = '\0';
	CHECK(retry_url_check(text, &url, err, sizeof(err)), "8192 bytes are accepted");

	memset(host + 7, 'a', 64);
	check_refused(host, "host in URL has a label longer than 63 bytes");
	memset(host + 7, 'a', 290);
	check_refused(host, "host in URL is longer than 255 bytes");
}

static void
test_methods(void)
{
	char		err[200];

	CHECK(retry_method_check("GET", err, sizeof(err)), "GET");
	CHECK(retry_method_check("M-SEARCH", err, sizeof(err)), "M-SEARCH");
	CHECK(!retry_method_check("", err, sizeof(err)), "no method");
	CHECK(!retry_method_check("get", err, sizeof(err)), "get");
	CHECK(!retry_method_check("GET /x HTTP/1.1\r\nX:", err, sizeof(err)), "a request line");
	CHECK(!retry_method_check("CONNECT", err, sizeof(err)), "CONNECT");
	CHECK_STR(err, "HTTP method CONNECT is not allowed", "... and says why");
	CHECK(!retry_method_check("TRACE", err, sizeof(err)), "TRACE");
	CHECK(!retry_method_check("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", err, sizeof(err)), "33 letters");
}

static void
check_header(const char *line, const char *expected)
{
	char		err[300] = "";
	bool		ok = retry_header_line_check(line, err, sizeof(err));

	CHECK(ok == (expected == NULL), "header \"%.30s\" is %s", line, expected ? "refused" : "accepted");
	CHECK_STR(err, expected ? expected : "", "... and says why");
}

static void
test_headers(void)
{
	check_header("X-Name: value", NULL);
	check_header("X-Name:", NULL);
	check_header("x!#$%&'*+-.^_`|~0: tab\tand \xc3\xa9", NULL);
	check_header("Authorization: Bearer secret", NULL);
	check_header("no colon", "header line has no colon");
	check_header(": value", "header name is empty");
	check_header("X Name: value", "header name \"X\" is cut short by a character that is not allowed in one");
	check_header("X-Name : value", "header name \"X-Name\" is cut short by a character that is not allowed in one");
	check_header("X: a\r\nEvil: b", "value of header \"X\" contains a line break (byte 0x0D)");
	check_header("X: a\nEvil: b", "value of header \"X\" contains a line break (byte 0x0A)");
	check_header("X: secret\x01", "value of header \"X\" contains a control character (byte 0x01)");
	check_header("content-LENGTH: 5", "header \"content-LENGTH\" is set by the client itself");
	check_header("Transfer-Encoding: chunked", "header \"Transfer-Encoding\" is set by the client itself");
	check_header("Host: other", "header \"Host\" is set by the client itself");
	check_header("Proxy-Authorization: x", "header \"Proxy-Authorization\" is set by the client itself");
}

/* Each byte, as a name, and at each place of a value. */
static void
test_bytes_of_headers(void)
{
	static const char *const token = "!#$%&'*+-.^_`|~0123456789"
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	int			wrong_names = 0;
	int			wrong_values = 0;
	char		value[21];
	char		err[300];

	for (int c = 1; c < 256; c++)
	{
		char		name = (char) c;
		bool		control = (c < ' ' && c != '\t') || c == 0x7f;

		wrong_names += retry_header_check(&name, 1, "", 0, err, sizeof(err)) != (strchr(token, c) != NULL);
		for (int at = 0; at < sizeof(value); at++)
		{
			memset(value, c % 2 == 0 ? 0xff : 'a', sizeof(value));
			value[at] = (char) c;
			wrong_values += retry_header_check("X", 1, value, sizeof(value), err, sizeof(err)) == control;
		}
	}
	CHECK_INT(wrong_names, 0, "every byte is a name, or not");
	CHECK_INT(wrong_values, 0, "no control character but a tab is in a value, wherever it stands");
}

static void
check_canonical(const char *url, const char *expected)
{
	char		out[RETRY_URL_CANONICAL_SIZE] = "untouched";

	CHECK(retry_url_canonical(url, out) == (strcmp(expected, "untouched") != 0), "\"%.40s\" has a canonical form, or not", url);
	CHECK_STR(out, expected, "... that one");
}

static void
test_canonical(void)
{
	char		longest[RETRY_URL_MAX_LENGTH + 1];
	char		out[RETRY_URL_CANONICAL_SIZE];

	check_canonical("http://Example.COM", "http://example.com/");
	check_canonical("HTTP://example.com:80/", "http://example.com/");
	check_canonical("https://example.com:443/a?B=c#part", "https://example.com/a?B=c");
	check_canonical("http://example.com:8080/A/../b%2f", "http://example.com:8080/A/../b%2f");
	check_canonical("http://example.com?x", "http://example.com/?x");
	check_canonical("http://example.com#x", "http://example.com/");
	check_canonical("http://[::1]:80/a", "http://[::1]/a");
	check_canonical("sql:public.f", "untouched");
	check_canonical("", "untouched");

	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "http://h?", 9);
	longest[RETRY_URL_MAX_LENGTH] = '\0';
	CHECK(retry_url_canonical(longest, out) && strlen(out) == RETRY_URL_MAX_LENGTH + 1, "the longest URL has room");
}

int
main(void)
{
	test_canonical();
	test_mail();
	test_accepted();
	test_refused();
	test_lengths();
	test_methods();
	test_headers();
	test_bytes_of_headers();
	return check_done();
}
