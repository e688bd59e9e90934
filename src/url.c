/*
 * url.c
 *	  A strict reader of URLs, methods and header lines.
 *
 * Written by hand because it runs once per enqueued row and once per attempt,
 * and because libcurl's own reader forgives much that has no place in a stored
 * task: missing or extra slashes, blanks, addresses written as one number.
 * Everything that two readers could take for different hosts is refused here,
 * so that what was checked is what is connected to.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include "url.h"

static bool
fail(char *err, size_t err_size, const char *message)
{
	strlcpy(err, message, err_size);
	return false;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_hex_digit(char c)
{
	return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

/*
 * Letters, digits and the punctuation of RFC 9110's token, a bit for each of the
 * ASCII characters: every name of a header is looked at for every attempt.
 */
static bool
is_token_char(char c)
{
	static const uint32 tokens[8] = {0, 0x03FF6CFA, 0xC7FFFFFE, 0x57FFFFFF};
	unsigned char u = c;

	return (tokens[u / 32] >> (u % 32)) & 1;
}

/*
 * A dotted IPv4 address in its only unambiguous spelling: four decimal parts
 * without leading zeros.
 */
static bool
strict_ipv4(const char *host)
{
	int			part;

	for (part = 0; part < 4; part++)
	{
		int			value = 0;
		int			digits = 0;

		while (is_digit(*host) && digits < 4)
		{
			value = value * 10 + (*host++ - '0');
			digits++;
		}
		if (digits == 0 || digits > 3 || value > 255 || (digits > 1 && value < (digits == 2 ? 10 : 100)))
			return false;
		if (*host++ != (part < 3 ? '.' : '\0'))
			return false;
	}
	return true;
}

/* Could some resolver take a host with this last label for a number? */
static bool
numeric_label(const char *label)
{
	if (label[0] == '0' && (label[1] == 'x'))
	{
		for (label += 2; is_hex_digit(*label); label++)
			;
		return *label == '\0';
	}
	for (; is_digit(*label); label++)
		;
	return *label == '\0';
}

/* A name or an IPv4 address of len bytes, into url->host. */
static bool
read_host(RetryUrl *url, const char *text, size_t len, char *err, size_t err_size)
{
	const char *last_label = url->host;
	size_t		label = 0;
	size_t		i;

	if (len == 0)
		return fail(err, err_size, "URL has no host");
	if (len > RETRY_URL_MAX_HOST)
		return fail(err, err_size, "host in URL is longer than 255 bytes");

	for (i = 0; i < len; i++)
	{
		char		c = lower(text[i]);

		if (c == '.')
		{
			if (label == 0)
				return fail(err, err_size, "host in URL has an empty label");
			label = 0;
			if (i + 1 < len)
				last_label = url->host + i + 1;
		}
		else if (!is_digit(c) && !(c >= 'a' && c <= 'z') && c != '-' && c != '_')
		{
			snprintf(err, err_size, "host in URL contains \"%c\"%s", c,
					 c == '%' ? "; percent-encoding is not allowed there" : "");
			return false;
		}
		else if (++label > 63)
			return fail(err, err_size, "host in URL has a label longer than 63 bytes");
		url->host[i] = c;
	}
	/* a final dot only says that the name is complete */
	if (url->host[len - 1] == '.')
		len--;
	url->host[len] = '\0';

	url->ipv4 = strict_ipv4(url->host);
	if (!url->ipv4 && numeric_label(last_label))
	{
		snprintf(err, err_size, "host \"%.100s\" in URL is neither a name nor a dotted IPv4 address", url->host);
		return false;
	}
	return true;
}

/* The text between [ and ], len bytes, into url->host in canonical form. */
static bool
read_ipv6(RetryUrl *url, const char *text, size_t len, char *err, size_t err_size)
{
	char		copy[INET6_ADDRSTRLEN];

	if (len < sizeof(copy))
	{
		unsigned char address[16];

		memcpy(copy, text, len);
		copy[len] = '\0';
		if (inet_pton(AF_INET6, copy, address) == 1 &&
			inet_ntop(AF_INET6, address, url->host, sizeof(url->host)) != NULL)
		{
			url->ipv6 = true;
			return true;
		}
	}
	snprintf(err, err_size, "\"[%.*s]\" in URL is not an IPv6 address", (int) Min(len, 60), text);
	return false;
}

/* ":port" of len bytes, colon included; nothing at all is the usual one. */
static bool
read_port(RetryUrl *url, int usual, const char *text, size_t len, char *err, size_t err_size)
{
	size_t		i;

	url->port = usual;
	url->usual_port = true;
	if (len == 0)
		return true;

	url->port = 0;
	for (i = 1; i < len && i <= 6 && is_digit(text[i]); i++)
		url->port = url->port * 10 + (text[i] - '0');
	if (text[0] != ':' || len == 1 || len > 6 || i != len ||
		url->port < 1 || url->port > 65535)
	{
		snprintf(err, err_size, "port \"%.*s\" in URL is not a number from 1 to 65535",
				 (int) Min(len - 1, 20), text + 1);
		return false;
	}
	url->usual_port = url->port == usual;
	return true;
}

/* Host and port. */
static bool
read_authority(RetryUrl *url, int usual, const char *text, size_t len, char *err, size_t err_size)
{
	const char *colon;

	if (len > 0 && text[0] == '[')
	{
		const char *close = memchr(text, ']', len);

		if (close == NULL)
			return fail(err, err_size, "URL has \"[\" without \"]\" in its host");
		return read_ipv6(url, text + 1, close - text - 1, err, err_size) &&
			read_port(url, usual, close + 1, text + len - close - 1, err, err_size);
	}
	colon = memchr(text, ':', len);
	if (colon == NULL)
		colon = text + len;
	return read_host(url, text, colon - text, err, err_size) &&
		read_port(url, usual, colon, text + len - colon, err, err_size);
}

static void
write_origin(RetryUrl *url)
{
	char	   *at = url->origin;
	size_t		len = strlen(url->host);

	strcpy(at, url->https ? "https://" : "http://");
	at += url->https ? 8 : 7;
	if (url->ipv6)
		*at++ = '[';
	memcpy(at, url->host, len);
	at += len;
	if (url->ipv6)
		*at++ = ']';
	*at = '\0';
	if (url->port != (url->https ? 443 : 80))
		sprintf(at, ":%d", url->port);
}

/*
 * Length of the text, when every byte of it may stand in a URL and it is not
 * too long; else -1.  *fragment is where a fragment begins, or the end.
 */
static int
scan_bytes(const char *url, int *fragment, char *err, size_t err_size)
{
	int			len;

	*fragment = -1;
	for (len = 0; url[len] != '\0'; len++)
	{
		unsigned char c = url[len];

		if (len >= RETRY_URL_MAX_LENGTH)
		{
			snprintf(err, err_size, "URL is longer than %d bytes", RETRY_URL_MAX_LENGTH);
			return -1;
		}
		if (c <= ' ' || c >= 0x7f || c == '\\')
		{
			snprintf(err, err_size, "URL contains %s (byte 0x%02X) at position %d; percent-encode it",
					 c == ' ' ? "a blank" : c == '\\' ? "a backslash" :
					 c > 0x7f ? "a character outside ASCII" : "a control character",
					 c, len + 1);
			return -1;
		}
		if (c == '#' && *fragment < 0)
			*fragment = len;
	}
	if (*fragment < 0)
		*fragment = len;
	return len;
}

bool
retry_url_check(const char *text, RetryUrl *out, char *err, size_t err_size)
{
	RetryUrl	scratch;
	RetryUrl   *url;
	const char *authority;
	size_t		len;

	url = memset(out != NULL ? out : &scratch, 0, sizeof(RetryUrl));
	if (text[0] == '\0')
		return fail(err, err_size, "URL is empty");
	if (scan_bytes(text, &url->length, err, err_size) < 0)
		return false;

	if (pg_strncasecmp(text, "http://", 7) == 0)
		url->https = false;
	else if (pg_strncasecmp(text, "https://", 8) == 0)
		url->https = true;
	else
	{
		/* a scheme is shown, anything else might be a secret */
		size_t		scheme = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");

		if (scheme > 0 && scheme < 32 && strncmp(text + scheme, "://", 3) == 0)
			snprintf(err, err_size, "scheme \"%.*s\" is not http or https", (int) scheme, text);
		else
			strlcpy(err, "URL does not begin with http:// or https://", err_size);
		return false;
	}

	authority = text + (url->https ? 8 : 7);
	len = strcspn(authority, "/?#");
	if (memchr(authority, '@', len) != NULL)
		return fail(err, err_size, "URL contains credentials; send them in a header");
	if (!read_authority(url, url->https ? 443 : 80, authority, len, err, err_size))
		return false;
	write_origin(url);
	return true;
}

bool
retry_url_check_mail(const char *text, RetryUrl *out, char *err, size_t err_size)
{
	static const struct
	{
		const char *scheme;
		const char *curls;
		bool		tls;
		int			port;
	}			schemes[] = {
		{"smtps://", "smtps", true, 465}, {"smtp://", "smtp", true, 587}, {"smtp+plaintext://", "smtp", false, 25}
	};
	RetryUrl	scratch;
	RetryUrl   *url = memset(out != NULL ? out : &scratch, 0, sizeof(RetryUrl));
	int			fragment;

	if (scan_bytes(text, &fragment, err, err_size) < 0)
		return false;
	for (int i = 0; i < lengthof(schemes); i++)
	{
		const char *authority = text + strlen(schemes[i].scheme);
		size_t		len;

		if (strncmp(text, schemes[i].scheme, strlen(schemes[i].scheme)) != 0)
			continue;
		len = strcspn(authority, "/?#");
		if (memchr(authority, '@', len) != NULL)
			return fail(err, err_size, "URL contains credentials; they have columns of their own");
		url->https = schemes[i].tls;
		if (!read_authority(url, schemes[i].port, authority, len, err, err_size))
			return false;
		if (authority[len] != '\0' && strcmp(authority + len, "/") != 0)
			return fail(err, err_size, "URL of a mail server has more than a host and a port");
		url->length = strlen(text);
		snprintf(url->origin, sizeof(url->origin), "%s://%s%s%s:%d", schemes[i].curls,
				 url->ipv6 ? "[" : "", url->host, url->ipv6 ? "]" : "", url->port);
		return true;
	}
	return fail(err, err_size, "URL does not begin with smtps://, smtp:// or smtp+plaintext://");
}

bool
retry_url_canonical(const char *text, char out[RETRY_URL_CANONICAL_SIZE])
{
	char		err[256];
	RetryUrl	url;
	const char *rest;

	if (!retry_url_check(text, &url, err, sizeof(err)))
		return false;
	rest = text + (url.https ? 8 : 7);
	rest += strcspn(rest, "/?#");
	snprintf(out, RETRY_URL_CANONICAL_SIZE, "%s%s%.*s", url.origin, *rest == '/' ? "" : "/",
			 (int) (text + url.length - rest), rest);
	return true;
}

bool
retry_method_check(const char *method, char *err, size_t err_size)
{
	size_t		len = 0;

	while ((method[len] >= 'A' && method[len] <= 'Z') || is_digit(method[len]) ||
		   method[len] == '-' || method[len] == '_')
		len++;
	if (method[len] != '\0' || len == 0 || len > 32)
		return fail(err, err_size, "HTTP method is not 1 to 32 upper-case letters, digits, \"-\" or \"_\"");
	if (strcmp(method, "CONNECT") == 0 || strcmp(method, "TRACE") == 0)
	{
		snprintf(err, err_size, "HTTP method %s is not allowed", method);
		return false;
	}
	return true;
}

/* Headers that say how the message is framed or routed: the client's own. */
static bool
is_framing_header(const char *name, size_t len)
{
	static const struct
	{
		size_t		len;
		const char *name;
	}			framing[] = {
		{14, "content-length"}, {17, "transfer-encoding"}, {10, "connection"}, {4, "host"},
		{6, "expect"}, {2, "te"}, {7, "trailer"}, {7, "upgrade"}, {10, "keep-alive"},
		{14, "http2-settings"}
	};
	int			i;

	for (i = 0; i < lengthof(framing); i++)
		if (framing[i].len == len && pg_strncasecmp(name, framing[i].name, len) == 0)
			return true;
	return len >= 6 && pg_strncasecmp(name, "proxy-", 6) == 0;
}

/*
 * False when surely no byte is a control character; eight at a time, since all
 * headers of all attempts come by here.
 */
static bool
may_have_control(const char *text, size_t len)
{
	const uint64 ones = UINT64CONST(0x0101010101010101);
	const uint64 highs = UINT64CONST(0x8080808080808080);
	size_t		i;

	for (i = 0; i + sizeof(uint64) <= len; i += sizeof(uint64))
	{
		uint64		bytes;
		uint64		deleted;

		memcpy(&bytes, text + i, sizeof(bytes));
		deleted = bytes ^ (ones * 0x7f);
		if ((((bytes - ones * ' ') & ~bytes) | ((deleted - ones) & ~deleted)) & highs)
			return true;
	}
	for (; i < len; i++)
		if ((unsigned char) text[i] < ' ' || text[i] == 0x7f)
			return true;
	return false;
}

bool
retry_header_check(const char *name, size_t name_len, const char *value, size_t value_len,
				   char *err, size_t err_size)
{
	size_t		i;

	if (name_len == 0)
		return fail(err, err_size, "header name is empty");
	for (i = 0; i < name_len; i++)
		if (!is_token_char(name[i]))
		{
			snprintf(err, err_size, "header name \"%.*s\" is cut short by a character that is not allowed in one",
					 (int) Min(i, 64), name);
			return false;
		}
	if (name_len > 256)
		return fail(err, err_size, "header name is longer than 256 bytes");
	if (is_framing_header(name, name_len))
	{
		snprintf(err, err_size, "header \"%.*s\" is set by the client itself", (int) name_len, name);
		return false;
	}
	if (!may_have_control(value, value_len))
		return true;
	for (i = 0; i < value_len; i++)
	{
		unsigned char c = value[i];

		if ((c < ' ' && c != '\t') || c == 0x7f)
		{
			snprintf(err, err_size, "value of header \"%.*s\" contains %s (byte 0x%02X)",
					 (int) Min(name_len, 64), name,
					 c == '\r' || c == '\n' ? "a line break" : "a control character", c);
			return false;
		}
	}
	return true;
}

bool
retry_header_line_check(const char *line, char *err, size_t err_size)
{
	const char *colon = strchr(line, ':');

	if (colon == NULL)
		return fail(err, err_size, "header line has no colon");
	return retry_header_check(line, colon - line, colon + 1, strlen(colon + 1), err, err_size);
}
