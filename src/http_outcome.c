/*
 * http_outcome.c
 *	  From curl's verdict on a transfer to an error class and a sentence.
 *
 * curl has close to a hundred codes, and several of them mean different things
 * depending on how far the transfer got.  Whoever reads retry.attempts wants
 * to know whose fault it was and what to do: refused, too slow, cut off, not
 * HTTP.  The sentences name numbers and addresses, never a URL or a header,
 * which may carry secrets.
 */
#include "postgres.h"

#include <errno.h>
#include <stdarg.h>

#include "http_private.h"

void
retry_transfer_fail(RetryTransfer *t, RetryHttpError error, const char *format,...)
{
	char	   *text = t->result.error_text;
	size_t		size = sizeof(t->result.error_text);
	int			prefix = 0;
	va_list		args;

	t->result.error = error;
	/* those that a scene's stop_errors can name begin with that name */
	if (error >= RETRY_HTTP_DNS && error <= RETRY_HTTP_MALFORMED)
		prefix = snprintf(text, size, "%s: ", retry_http_error_name(error));
	va_start(args, format);
	vsnprintf(text + prefix, size - prefix, format, args);
	va_end(args);
}

const char *
retry_http_error_name(RetryHttpError error)
{
	switch (error)
	{
		case RETRY_HTTP_OK:
			return "ok";
		case RETRY_HTTP_BAD_REQUEST:
			return "bad request";
		case RETRY_HTTP_BLOCKED:
			return "blocked";
		case RETRY_HTTP_DNS:
			return "dns";
		case RETRY_HTTP_CONNECT:
			return "connect";
		case RETRY_HTTP_CONNECT_TIMEOUT:
			return "connect_timeout";
		case RETRY_HTTP_TLS:
			return "tls";
		case RETRY_HTTP_TIMEOUT:
			return "timeout";
		case RETRY_HTTP_CLOSED:
			return "closed";
		case RETRY_HTTP_MALFORMED:
			return "malformed";
		case RETRY_HTTP_INTERNAL:
			return "internal";
		case RETRY_HTTP_DEFERRED:
			return "deferred";
		case RETRY_HTTP_REFUSED:
			return "refused";
	}
	return "unknown";
}

/* The same words for the same failure, whatever the C library calls it. */
static const char *
errno_words(long number)
{
	switch (number)
	{
		case 0:
			return "no address could be reached";
		case ECONNREFUSED:
			return "connection refused";
		case EHOSTUNREACH:
			return "host unreachable";
		case ENETUNREACH:
			return "network unreachable";
		case ECONNRESET:
			return "connection reset";
		case EPIPE:
			return "connection closed by the server";
		case ETIMEDOUT:
			return "connection timed out in the network";
		case EADDRNOTAVAIL:
			return "no local port or address available";
		case EACCES:
		case EPERM:
			return "connection forbidden by this machine's firewall";
		case EMFILE:
		case ENFILE:
			return "too many open files";
		case ENOBUFS:
		case ENOMEM:
			return "out of memory for sockets";
		default:
			return NULL;
	}
}

/* "15 s" or "1500 ms" */
static const char *
duration_text(int32 ms, char *text, size_t size)
{
	if (ms % 1000 == 0)
		snprintf(text, size, "%d s", ms / 1000);
	else
		snprintf(text, size, "%d ms", ms);
	return text;
}

/* Where the answer broke off, as the end of a sentence. */
static const char *
place_text(const RetryTransfer *t, char *text, size_t size)
{
	unsigned long long got = t->result.bytes_received;

	if (!t->answering)
		snprintf(text, size, "before any answer");
	else if (!t->headers_complete)
		snprintf(text, size, "in the middle of the answer's headers");
	else if (t->announced >= 0)
		snprintf(text, size, "after %llu of %lld bytes of the answer's body (status %d)",
				 got, (long long) t->announced, t->status);
	else
		snprintf(text, size, "in the middle of the answer's body, after %llu bytes (status %d)",
				 got, t->status);
	return text;
}

static void
conclude_timeout(RetryTransfer *t)
{
	char		limit[32];
	curl_off_t	resolved = 0;

	if (t->connected)
	{
		duration_text(t->timeout_ms, limit, sizeof(limit));
		if (!t->answering)
			retry_transfer_fail(t, RETRY_HTTP_TIMEOUT, "no answer within %s", limit);
		else if (!t->headers_complete)
			retry_transfer_fail(t, RETRY_HTTP_TIMEOUT, "answer's headers not complete within %s", limit);
		else if (t->announced >= 0)
			retry_transfer_fail(t, RETRY_HTTP_TIMEOUT,
								"answer not complete within %s: %llu of %lld bytes of its body came (status %d)",
								limit, (unsigned long long) t->result.bytes_received,
								(long long) t->announced, t->status);
		else
			retry_transfer_fail(t, RETRY_HTTP_TIMEOUT,
								"answer not complete within %s: %llu bytes of its body came (status %d)",
								limit, (unsigned long long) t->result.bytes_received, t->status);
		return;
	}

	duration_text(Min(t->timeout_ms, t->connect_timeout_ms), limit, sizeof(limit));
	curl_easy_getinfo(t->easy, CURLINFO_NAMELOOKUP_TIME_T, &resolved);

	/*
	 * libcurl 8.14 tells neither port nor time of a connection before its
	 * handshake is over
	 */
	if (t->sockets_opened > 0 && retry_evloop_read_from(t->http->loop, t->opened))
		retry_transfer_fail(t, RETRY_HTTP_CONNECT_TIMEOUT, "TLS handshake not complete within %s", limit);
	else if (resolved > 0 || t->sockets_opened > 0)
		retry_transfer_fail(t, RETRY_HTTP_CONNECT_TIMEOUT, "no connection within %s", limit);
	else
		retry_transfer_fail(t, RETRY_HTTP_CONNECT_TIMEOUT, "host name not resolved within %s", limit);
}

static void
conclude_no_connection(RetryTransfer *t, CURLcode code)
{
	long		number = 0;
	const char *words;

	if (t->sockets_blocked > 0 && t->sockets_opened == 0)
	{
		retry_transfer_fail(t, RETRY_HTTP_BLOCKED, "blocked network: %s is in %s",
							t->blocked_address, t->blocked_rule);
		return;
	}
	if (t->open_errno != 0 && t->sockets_opened == 0)
	{
		words = errno_words(t->open_errno);
		retry_transfer_fail(t, RETRY_HTTP_INTERNAL, "could not create a socket: %s",
							words != NULL ? words : strerror(t->open_errno));
		return;
	}
	curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &number);
	words = errno_words(number);
	retry_transfer_fail(t, RETRY_HTTP_CONNECT, "%s", words != NULL ? words : strerror((int) number));
}

/* The connection broke, or ended too early, while an answer was awaited. */
static void
conclude_closed(RetryTransfer *t, CURLcode code)
{
	char		place[128];
	long		number = 0;
	const char *words = NULL;

	place_text(t, place, sizeof(place));
	if (code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR)
	{
		curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &number);
		if (number != 0 && number != EPIPE)
			words = errno_words(number);
		if (words == NULL)
			words = "connection broken";
		retry_transfer_fail(t, RETRY_HTTP_CLOSED, "%s %s", words, place);
	}
	else
		retry_transfer_fail(t, RETRY_HTTP_CLOSED, "connection closed %s", place);
}

/* libcurl's word for a line that is longer than it takes, too: its only one before 8.6. */
static void
conclude_out_of_memory(RetryTransfer *t)
{
	if (t->answering && !t->headers_complete)
		retry_transfer_fail(t, RETRY_HTTP_MALFORMED, "answer's headers have a line that is too long");
	else
		retry_transfer_fail(t, RETRY_HTTP_INTERNAL, "out of memory");
}

static void
conclude_error(RetryTransfer *t, CURLcode code)
{
	const char *detail = t->curl_error[0] != '\0' ? t->curl_error : curl_easy_strerror(code);

	if (t->out_of_memory)
	{
		retry_transfer_fail(t, RETRY_HTTP_INTERNAL, "out of memory");
		return;
	}
	if (t->headers_too_long)
	{
		retry_transfer_fail(t, RETRY_HTTP_MALFORMED, "answer's headers are longer than %d bytes",
							RETRY_HTTP_MAX_HEADER_BYTES);
		return;
	}

	if (t->two_lengths)
	{
		retry_transfer_fail(t, RETRY_HTTP_MALFORMED, "answer is not valid HTTP: its headers give two lengths");
		return;
	}

	if (retry_tls_conclude(t, code, detail))
		return;
	switch (code)
	{
		case CURLE_OPERATION_TIMEDOUT:
			conclude_timeout(t);
			break;
		case CURLE_COULDNT_RESOLVE_HOST:
			retry_transfer_fail(t, RETRY_HTTP_DNS, "host name could not be resolved");
			break;
		case CURLE_COULDNT_RESOLVE_PROXY:
			retry_transfer_fail(t, RETRY_HTTP_DNS, "the proxy's host name could not be resolved");
			break;
		case CURLE_COULDNT_CONNECT:
		case CURLE_ABORTED_BY_CALLBACK:
			conclude_no_connection(t, code);
			break;
		case CURLE_PROXY:
			retry_transfer_fail(t, RETRY_HTTP_CONNECT, "proxy: %s", detail);
			break;
		case CURLE_GOT_NOTHING:
		case CURLE_PARTIAL_FILE:
		case CURLE_SEND_ERROR:
		case CURLE_RECV_ERROR:
		case CURLE_HTTP2_STREAM:
			/* a broken chunk is reported as an error of receiving */
			if (strstr(detail, "chunk") != NULL)
				retry_transfer_fail(t, RETRY_HTTP_MALFORMED, "answer is not valid HTTP: %s", detail);
			else
				conclude_closed(t, code);
			break;
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_BAD_CONTENT_ENCODING:
		case CURLE_HTTP2:
		case CURLE_HTTP3:
			retry_transfer_fail(t, RETRY_HTTP_MALFORMED, "answer is not valid HTTP: %s", detail);
			break;
		case CURLE_OUT_OF_MEMORY:
			conclude_out_of_memory(t);
			break;
#if LIBCURL_VERSION_NUM >= 0x080600
		case CURLE_TOO_LARGE:
			if (t->curl_error[0] != '\0')
				retry_transfer_fail(t, RETRY_HTTP_MALFORMED, "answer is not valid HTTP: %s", detail);
			else
				conclude_out_of_memory(t);
			break;
#endif
		case CURLE_URL_MALFORMAT:
			retry_transfer_fail(t, RETRY_HTTP_BAD_REQUEST, "URL is malformed");
			break;
		default:
			retry_transfer_fail(t, RETRY_HTTP_INTERNAL, "%s (curl code %d)", detail, (int) code);
			break;
	}
}

static void
read_timings(RetryTransfer *t)
{
	RetryHttpResult *r = &t->result;
	curl_off_t	lookup = 0;
	curl_off_t	connect = 0;
	curl_off_t	tls = 0;
	curl_off_t	first = 0;
	curl_off_t	total = 0;
	long		connects = 0;

	curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &connects);
	curl_easy_getinfo(t->easy, CURLINFO_STARTTRANSFER_TIME_T, &first);
	curl_easy_getinfo(t->easy, CURLINFO_TOTAL_TIME_T, &total);
	r->reused = connects == 0 && t->connected;
	r->first_byte_us = t->answering ? first : 0;
	r->total_us = total;
	if (r->reused)
		return;

	/* curl counts each from the start of the transfer */
	curl_easy_getinfo(t->easy, CURLINFO_NAMELOOKUP_TIME_T, &lookup);
	curl_easy_getinfo(t->easy, CURLINFO_CONNECT_TIME_T, &connect);
	curl_easy_getinfo(t->easy, CURLINFO_APPCONNECT_TIME_T, &tls);
	r->dns_us = lookup;
	r->connect_us = Max(connect - lookup, 0);
	r->tls_us = tls > 0 ? Max(tls - connect, 0) : 0;
}

void
retry_transfer_conclude(RetryTransfer *t, CURLcode code)
{
	RetryHttpResult *r = &t->result;

	r->http_status = t->headers_complete ? t->status : 0;
	if (r->body_len > 0)
	{
		t->response[r->body_len] = '\0';
		r->body = t->response;
	}
	r->body_truncated = r->bytes_received > r->body_len;
	read_timings(t);

	if (r->remote_ip[0] == '\0' && t->sockets_opened > 0)
	{
		char	   *ip = NULL;
		long		port = 0;

		if (curl_easy_getinfo(t->easy, CURLINFO_PRIMARY_IP, &ip) == CURLE_OK && ip != NULL)
			strlcpy(r->remote_ip, ip, sizeof(r->remote_ip));
		curl_easy_getinfo(t->easy, CURLINFO_PRIMARY_PORT, &port);
		r->remote_port = (int) port;
	}

	if (t->talk != NULL)
	{
		if (!retry_mail_conclude(t, code))
			conclude_error(t, code);
	}
	else if (code == CURLE_OK || (code == CURLE_WRITE_ERROR && t->oversize))
	{
		if (!t->headers_complete)
			conclude_closed(t, CURLE_GOT_NOTHING);
	}
	else
		conclude_error(t, code);
}
