/*
 * misbehave.c
 *		Behaviours that break the protocol or the connection.
 *
 * Each is something that a receiver in the field was seen to do, made
 * repeatable: a client must survive all of them, classify them as failures
 * and lose neither memory nor other transfers over them.
 */
#include "misbehave.h"

#include <stdio.h>
#include <string.h>

#include "endpoint.h"

void
do_hang(Conn *c, const Request *req, Slice rest)
{
	c->stuck = true;
}

void
do_hang_accept(Conn *c, const Request *req, Slice rest)
{
	c->stuck = true;
	c->stop_reading = true;
}

void
do_reset(Conn *c, const Request *req, Slice rest)
{
	c->after = AFTER_RESET;
}

void
do_close(Conn *c, const Request *req, Slice rest)
{
	c->after = AFTER_CLOSE;
}

/* Nothing more to say, but not yet: lets the client read what was sent. */
static int
produce_pause(Conn *c)
{
	return c->produce_left-- > 0 ? c->produce_ms : -1;
}

void
do_reset_mid(Conn *c, const Request *req, Slice rest)
{
	buf_str(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"partial\":");
	c->status = 200;
	c->produce = produce_pause;
	c->produce_left = 1;
	c->produce_ms = (int) query_int(req->query, "ms", 20);
	c->after = AFTER_RESET;
}

static int
produce_drip(Conn *c)
{
	if (c->produce_left-- <= 0)
		return -1;
	buf_str(&c->out, "x");
	return c->produce_ms;
}

void
do_drip(Conn *c, const Request *req, Slice rest)
{
	c->status = (int) query_int(req->query, "status", 200);
	c->produce = produce_drip;
	c->produce_left = query_int(req->query, "bytes", 100);
	c->produce_ms = (int) query_int(req->query, "ms", 50);
	buf_printf(&c->out, "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %lld\r\n\r\n",
			   c->status, http_reason(c->status), (long long) c->produce_left);
}

void
do_oversize(Conn *c, const Request *req, Slice rest)
{
	c->status = (int) query_int(req->query, "status", 200);
	c->filler = slice_int(rest, 1024 * 1024);
	buf_printf(&c->out, "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %llu\r\n\r\n",
			   c->status, http_reason(c->status), (unsigned long long) c->filler);
	if (c->head_only)
		c->filler = 0;
}

static int
produce_endless(Conn *c)
{
	size_t		n = c->produce_size;

	buf_printf(&c->out, "%zx\r\n", n);
	buf_reserve(&c->out, n);
	memset(c->out.p + c->out.len, 'x', n);
	c->out.len += n;
	buf_str(&c->out, "\r\n");
	return c->produce_ms;
}

/* ?bytes= a piece (16384), ?ms= between pieces (10). */
void
do_endless(Conn *c, const Request *req, Slice rest)
{
	int64_t		bytes = query_int(req->query, "bytes", 16384);

	c->status = (int) query_int(req->query, "status", 200);
	c->produce = produce_endless;
	c->produce_ms = (int) query_int(req->query, "ms", 10);
	c->produce_size = bytes < 1 ? 1 : bytes > 1048576 ? 1048576 : bytes;
	buf_printf(&c->out, "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
			   c->status, http_reason(c->status));
}

void
do_malformed(Conn *c, const Request *req, Slice rest)
{
	static const char nul[] = "HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 2\r\n\r\nok";

	c->status = 200;
	c->after = AFTER_CLOSE;
	if (slice_is(rest, "status-line"))
		buf_str(&c->out, "HTTZ/x.y two hundred\r\nContent-Length: 2\r\n\r\nok");
	else if (slice_is(rest, "header"))
		buf_str(&c->out, "HTTP/1.1 200 OK\r\nthis line has no colon\r\nContent-Length: two\r\n: empty\r\n\r\nok");
	else if (slice_is(rest, "chunk"))
		buf_str(&c->out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n");
	else if (slice_is(rest, "length"))
		buf_str(&c->out, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort");
	else if (slice_is(rest, "nul"))
		buf_add(&c->out, nul, sizeof(nul) - 1);
	else
	{
		c->after = AFTER_KEEP;
		answer_json(c, req, 404, "{\"error\":\"kinds: status-line header chunk length nul\"}");
	}
}

void
do_encoding(Conn *c, const Request *req, Slice rest)
{
	static const char body[] = "{\"text\":\"\xff\xfe\xc3\x28\xed\xa0\x80 nul:\0 end\"}";

	answer(c, req, (int) query_int(req->query, "status", 200), "application/json; charset=utf-8",
		   NULL, body, sizeof(body) - 1);
}

void
do_gzip_lie(Conn *c, const Request *req, Slice rest)
{
	answer(c, req, (int) query_int(req->query, "status", 200), "application/json",
		   "Content-Encoding: gzip\r\n", "{\"ok\":true}", 11);
}

void
do_answer_twice(Conn *c, const Request *req, Slice rest)
{
	answer_json(c, req, (int) query_int(req->query, "status", 200), "{\"answer\":1}");
	answer_json(c, req, (int) query_int(req->query, "then", 500), "{\"answer\":2}");
	/* who heeds the protocol takes the first */
	c->status = (int) query_int(req->query, "status", 200);
}

/*
 * The answer leaves before the body is read. Then the rest of the body is read
 * and thrown away, or with ?close=1 the connection is closed over it.
 */
void
do_answer_early(Conn *c, const Request *req, Slice rest)
{
	answer_json(c, req, (int) query_int(req->query, "status", 200), "{\"early\":true}");
	if (query_int(req->query, "close", 0))
		c->after = AFTER_CLOSE;
}

/* Claims keep-alive and closes: the next request on it meets a dead connection. */
void
do_early_close(Conn *c, const Request *req, Slice rest)
{
	answer(c, req, 200, "application/json", "Connection: keep-alive\r\nKeep-Alive: timeout=60\r\n",
		   "{\"ok\":true}", 11);
	c->after = query_int(req->query, "reset", 0) ? AFTER_RESET : AFTER_CLOSE;
}

/* ?n= interim answers that nobody asked for, then the real one. */
void
do_100_continue(Conn *c, const Request *req, Slice rest)
{
	int64_t		n = query_int(req->query, "n", 1);
	int64_t		i;

	for (i = 0; i < n && i < 1000; i++)
		buf_str(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
	answer_json(c, req, (int) query_int(req->query, "status", 200), "{\"ok\":true}");
}
