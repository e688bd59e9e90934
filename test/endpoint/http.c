/*
 * http.c
 *		Reading one HTTP/1.x request in place.
 *
 * Strict enough that a client which frames its requests wrongly is noticed
 * (400), lenient about everything else. Nothing is copied: slices point into
 * the connection's buffer and are good until it is next touched.
 */
#define _GNU_SOURCE
#include "http.h"

#include <string.h>
#include <strings.h>

bool
http_next_header(Slice *rest, Slice *name, Slice *value)
{
	const char *p = rest->p;
	const char *end = rest->p + rest->len;
	const char *eol;
	const char *colon;
	const char *v;
	const char *stop;

	if (rest->len == 0)
		return false;
	eol = memchr(p, '\n', end - p);
	if (eol == NULL)
		eol = end;
	stop = (eol > p && eol[-1] == '\r') ? eol - 1 : eol;
	colon = stop > p ? memchr(p, ':', stop - p) : NULL;
	name->p = p;
	name->len = colon ? (size_t) (colon - p) : 0;
	v = colon ? colon + 1 : p;
	while (v < stop && (*v == ' ' || *v == '\t'))
		v++;
	while (stop > v && (stop[-1] == ' ' || stop[-1] == '\t'))
		stop--;
	value->p = v;
	value->len = stop - v;
	rest->p = eol < end ? eol + 1 : end;
	rest->len = end - rest->p;
	return true;
}

static Slice
strip_quotes(Slice v)
{
	if (v.len >= 2 && v.p[0] == '"' && v.p[v.len - 1] == '"')
	{
		v.p++;
		v.len -= 2;
	}
	return v;
}

/* The few headers that matter; false when one makes the framing unclear. */
static bool
take_header(Request *req, Slice name, Slice value)
{
	switch (name.len)
	{
		case 6:
			if (slice_is_nocase(name, "expect"))
				req->expect_continue = slice_is_nocase(value, "100-continue");
			break;
		case 9:
			if (slice_is_nocase(name, "x-sent-at"))
				req->sent_at = slice_int(value, 0);
			break;
		case 10:
			if (slice_is_nocase(name, "connection"))
			{
				if (slice_is_nocase(value, "close"))
					req->keep_alive = false;
				else if (slice_is_nocase(value, "keep-alive"))
					req->keep_alive = true;
			}
			break;
		case 13:
			if (slice_is_nocase(name, "retry-attempt"))
				req->attempt = value;
			break;
		case 14:
			if (slice_is_nocase(name, "content-length"))
			{
				int64_t		n = slice_int(value, -1);

				if (n < 0 || req->content_length >= 0)
					return false;
				req->content_length = n;
			}
			break;
		case 15:
			if (slice_is_nocase(name, "idempotency-key"))
				req->key = strip_quotes(value);
			break;
		case 17:
			if (slice_is_nocase(name, "transfer-encoding"))
			{
				if (!slice_is_nocase(value, "chunked"))
					return false;
				req->chunked = true;
			}
			break;
	}
	return true;
}

static bool
parse_request_line(Slice line, Request *req)
{
	const char *end = line.p + line.len;
	const char *sp1 = memchr(line.p, ' ', line.len);
	const char *sp2;
	const char *mark;

	if (sp1 == NULL || sp1 == line.p)
		return false;
	sp2 = memchr(sp1 + 1, ' ', end - sp1 - 1);
	if (sp2 == NULL || end - sp2 != 9 || memcmp(sp2, " HTTP/1.", 8) != 0)
		return false;
	req->method.p = line.p;
	req->method.len = sp1 - line.p;
	req->target.p = sp1 + 1;
	req->target.len = sp2 - sp1 - 1;
	if (req->target.len == 0)
		return false;
	req->keep_alive = sp2[8] != '0';
	mark = memchr(req->target.p, '?', req->target.len);
	req->path = req->target;
	if (mark != NULL)
	{
		req->path.len = mark - req->target.p;
		req->query.p = mark + 1;
		req->query.len = req->target.len - req->path.len - 1;
	}
	return true;
}

/*
 * Walk the chunks from p. With join, move their bytes together at the start.
 * Returns COMPLETE with *used (bytes of the whole coding) and *size set.
 */
static HttpResult
walk_chunks(char *p, size_t len, bool join, size_t *used, size_t *size)
{
	size_t		at = 0;
	size_t		out = 0;

	for (;;)
	{
		char	   *eol = memmem(p + at, len - at, "\r\n", 2);
		size_t		n = 0;
		size_t		i;

		if (eol == NULL)
			return len - at > 256 ? HTTP_BAD : HTTP_PARTIAL_BODY;
		for (i = at; p + i < eol && p[i] != ';'; i++)
		{
			int			ch = p[i] | 0x20;

			if (!((ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'f')) || i - at > 8)
				return HTTP_BAD;
			n = n * 16 + (ch <= '9' ? ch - '0' : ch - 'a' + 10);
		}
		if (i == at)
			return HTTP_BAD;
		at = eol + 2 - p;
		if (n == 0)
			break;
		if (len - at < n + 2)
			return HTTP_PARTIAL_BODY;
		if (p[at + n] != '\r' || p[at + n + 1] != '\n')
			return HTTP_BAD;
		if (join)
			memmove(p + out, p + at, n);
		out += n;
		at += n + 2;
	}
	for (;;)					/* trailers, up to an empty line */
	{
		char	   *eol = memmem(p + at, len - at, "\r\n", 2);
		bool		empty = eol == p + at;

		if (eol == NULL)
			return HTTP_PARTIAL_BODY;
		at = eol + 2 - p;
		if (empty)
			break;
	}
	*used = at;
	*size = out;
	return HTTP_COMPLETE;
}

HttpResult
http_parse(char *buf, size_t len, Request *req)
{
	char	   *head_end = memmem(buf, len, "\r\n\r\n", 4);
	char	   *eol;
	Slice		rest;
	Slice		name;
	Slice		value;
	size_t		head;
	HttpResult	result;

	if (head_end == NULL)
		return len > 256 * 1024 ? HTTP_BAD : HTTP_PARTIAL_HEAD;
	memset(req, 0, sizeof(*req));
	req->content_length = -1;
	head = head_end + 4 - buf;
	eol = memmem(buf, head, "\r\n", 2);
	if (eol == NULL || !parse_request_line((Slice) {buf, eol - buf}, req))
		return HTTP_BAD;
	req->headers.p = eol + 2;
	req->headers.len = eol + 2 < head_end + 2 ? (size_t) (head_end + 2 - (eol + 2)) : 0;
	rest = req->headers;
	while (http_next_header(&rest, &name, &value))
		if (name.len == 0 || !take_header(req, name, value))
			return HTTP_BAD;
	req->body.p = buf + head;
	req->total = head;
	if (req->chunked)
	{
		size_t		used;
		size_t		size;

		if (req->content_length >= 0)
			return HTTP_BAD;	/* both: request smuggling */
		result = walk_chunks(buf + head, len - head, false, &used, &size);
		if (result != HTTP_COMPLETE)
			return result;
		walk_chunks(buf + head, len - head, true, &used, &size);
		req->body.len = size;
		req->total += used;
		return HTTP_COMPLETE;
	}
	if (req->content_length > 0)
	{
		if (len - head < (size_t) req->content_length)
		{
			req->body.len = len - head;
			return HTTP_PARTIAL_BODY;
		}
		req->body.len = req->content_length;
		req->total += req->content_length;
	}
	return HTTP_COMPLETE;
}

const char *
http_reason(int status)
{
	static const struct
	{
		int			status;
		const char *reason;
	}			reasons[] = {
		{100, "Continue"}, {200, "OK"}, {201, "Created"}, {202, "Accepted"}, {204, "No Content"},
		{301, "Moved Permanently"}, {302, "Found"}, {303, "See Other"}, {304, "Not Modified"},
		{307, "Temporary Redirect"}, {308, "Permanent Redirect"},
		{400, "Bad Request"}, {401, "Unauthorized"}, {403, "Forbidden"}, {404, "Not Found"},
		{408, "Request Timeout"}, {409, "Conflict"}, {410, "Gone"}, {413, "Content Too Large"},
		{417, "Expectation Failed"}, {422, "Unprocessable Content"}, {425, "Too Early"},
		{429, "Too Many Requests"},
		{500, "Internal Server Error"}, {501, "Not Implemented"}, {502, "Bad Gateway"},
		{503, "Service Unavailable"}, {504, "Gateway Timeout"},
	};
	size_t		i;

	for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Answer";
}
