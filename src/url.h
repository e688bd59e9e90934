/*
 * url.h
 *	  The one reading of a URL, a method and a header line, used both when a
 *	  task is enqueued and when it is sent.
 *
 * If enqueue and the HTTP client read a URL differently, a check made by one
 * says nothing about the other; so there is one strict reader, and what it
 * does not accept is neither stored nor sent.  It is stricter than libcurl:
 * whatever it accepts, libcurl must read to the same scheme, host and port
 * (test/fuzz/fuzz_url.c holds the two against each other).
 *
 * A leaf: no allocation, no errors raised, no look-ups.  Results are offsets
 * into the caller's text and small buffers of fixed size.
 */
#ifndef RETRY_URL_H
#define RETRY_URL_H

#define RETRY_URL_MAX_LENGTH	8192
#define RETRY_URL_MAX_HOST		255
#define RETRY_URL_MAX_ORIGIN	(RETRY_URL_MAX_HOST + 16)

typedef struct RetryUrl
{
	bool		https;
	bool		ipv6;			/* host is an IPv6 literal */
	bool		ipv4;			/* host is a dotted IPv4 literal */
	int			port;			/* 1..65535; the scheme's when not given */
	bool		usual_port;		/* it is the scheme's */
	char		host[RETRY_URL_MAX_HOST + 1];	/* lower case, no brackets */
	char		origin[RETRY_URL_MAX_ORIGIN + 1];	/* "https://host:port",
													 * the default port left
													 * out */
	int			length;			/* bytes of the text, without a fragment: what
								 * is sent */
} RetryUrl;

/*
 * Reads an absolute http or https URL.  Refused: other schemes, credentials,
 * no host, a port out of 1..65535, control characters, blanks, backslashes,
 * bytes above 127, a host of other than letters, digits, '-', '_', '.' (names
 * in other scripts must be given in their xn-- form), numbers that are IPv4
 * addresses in disguise (0x7f.1, 2130706433), IPv6 zones, more than 8192
 * bytes.  A fragment is allowed and is not part of what is sent.
 *
 * False when refused; err then says why and names the offending part, never
 * the credentials.  out may be NULL.
 */
extern bool retry_url_check(const char *url, RetryUrl *out,
							char *err, size_t err_size);

/*
 * The URL of a mail server, which is no address of a task: smtps://host (TLS from
 * the first byte, port 465), smtp://host (TLS by STARTTLS, port 587), or
 * smtp+plaintext://host (none, port 25), perhaps with a port and a slash.  https
 * means TLS, and origin is what libcurl takes: smtps:// or smtp://, always with
 * the port.  False and err as above; out may be NULL.
 */
extern bool retry_url_check_mail(const char *url, RetryUrl *out,
								 char *err, size_t err_size);

/*
 * Writes a URL that retry_url_check accepts the one way in which all its
 * spellings that are surely the same are written: scheme and host in lower
 * case, no default port, "/" for no path, no fragment.  What is behind the host
 * is left as it is.  False, with nothing written, for what it does not accept.
 */
#define RETRY_URL_CANONICAL_SIZE	(RETRY_URL_MAX_LENGTH + RETRY_URL_MAX_ORIGIN + 2)
extern bool retry_url_canonical(const char *url, char out[RETRY_URL_CANONICAL_SIZE]);

/*
 * True when method is a token that may be sent (1..32 upper-case letters,
 * digits, '-', '_'; not CONNECT or TRACE).  err says why not.
 */
extern bool retry_method_check(const char *method, char *err, size_t err_size);

/*
 * True when a header may be sent: name is a token, value has no control
 * characters but tabs, and the header is not one that frames the message
 * (Content-Length, Transfer-Encoding, Connection, Host, Expect, TE, Trailer,
 * Upgrade, Keep-Alive, Proxy-…).  err names the header, never the value.
 */
extern bool retry_header_check(const char *name, size_t name_len,
							   const char *value, size_t value_len,
							   char *err, size_t err_size);

/*
 * The same for a complete line, "Name: value".
 */
extern bool retry_header_line_check(const char *line, char *err, size_t err_size);

#endif							/* RETRY_URL_H */
