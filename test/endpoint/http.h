/*
 * http.h
 *		Reading one HTTP/1.x request in place.
 *
 * The parser keeps no state: it looks at the bytes received so far and says
 * whether they hold a whole request. That repeats some work for a request
 * that comes in pieces, and costs the usual one, which comes whole, nothing.
 */
#ifndef ENDPOINT_HTTP_H
#define ENDPOINT_HTTP_H

#include "text.h"

typedef enum HttpResult
{
	HTTP_PARTIAL_HEAD,			/* read more */
	HTTP_PARTIAL_BODY,			/* the head is there, the body is not */
	HTTP_COMPLETE,
	HTTP_BAD					/* not HTTP: answer 400 and close */
} HttpResult;

typedef struct Request
{
	Slice		method;
	Slice		target;			/* path and query as sent */
	Slice		path;
	Slice		query;			/* without the question mark */
	Slice		headers;		/* all header lines, each ended by CRLF */
	Slice		body;			/* chunks already joined */
	Slice		key;			/* Idempotency-Key without its quotes */
	Slice		attempt;		/* Retry-Attempt */
	int64_t		sent_at;		/* X-Sent-At, wall-clock us, or 0 */
	int64_t		content_length;
	bool		chunked;
	bool		expect_continue;
	bool		keep_alive;
	size_t		total;			/* bytes this request took from the buffer */
} Request;

/* Parse what is in buf. A chunked body is joined in place once it is whole. */
extern HttpResult http_parse(char *buf, size_t len, Request *req);

/*
 * Step through header lines: returns false at the end, else sets name and
 * value and moves *rest on.
 */
extern bool http_next_header(Slice *rest, Slice *name, Slice *value);

extern const char *http_reason(int status);

#endif							/* ENDPOINT_HTTP_H */
