/*
 * conn.c
 *		Reading requests and carrying out the plan of their answer.
 *
 * The usual request costs one recv and one send: it is parsed where it was
 * read, the answers of everything that came in one read leave in one write,
 * and nothing is allocated once a connection has its buffers.
 */
#define _GNU_SOURCE
#include "conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "endpoint.h"
#include "stats.h"

#define READ_SIZE		16384
#define MAX_REQUEST		(64 * 1024 * 1024)
#define MAX_AHEAD		(1024 * 1024)	/* read this far past a held request */

typedef enum FlushResult
{
	FLUSH_DONE,
	FLUSH_BLOCKED,
	FLUSH_DEAD
} FlushResult;

static int	epoll;
static Conn *live;				/* all open connections */
static Conn *dead;				/* closed during this batch */
static Conn *spare;				/* to use again, with their buffers */
static int	live_count;
static char filler[65536];

void
conn_init(int epoll_fd)
{
	epoll = epoll_fd;
	memset(filler, 'x', sizeof(filler));
}

int
conn_count(void)
{
	return live_count;
}

void
conn_open(int fd)
{
	Conn	   *c = spare;
	Buf			in = {NULL, 0, 0};
	Buf			out = {NULL, 0, 0};
	struct epoll_event ev;

	if (c != NULL)
	{
		spare = c->next;
		in = c->in;
		out = c->out;
	}
	else
		c = malloc(sizeof(Conn));
	if (c == NULL)
	{
		close(fd);
		return;
	}
	memset(c, 0, sizeof(*c));
	in.len = out.len = 0;
	c->in = in;
	c->out = out;
	c->fd = fd;
	c->heap_at = -1;
	c->busy_slot = -1;
	c->out_limit = SIZE_MAX;
	c->interest = EPOLLIN;
	c->next = live;
	if (live)
		live->prev = c;
	live = c;
	live_count++;
	stats_accepted();
#ifdef ENDPOINT_TLS
	if (settings.tls_cert)
		tls_attach(c);
#endif
	ev.events = c->interest;
	ev.data.ptr = c;
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev);
}

/* The current request is over, one way or another. */
static void
finish(Conn *c)
{
	if (c->busy_slot >= 0)
		stats_busy_end(c->busy_slot);
	c->busy_slot = -1;
	if (c->counted)
		stats_end();
	c->counted = false;
}

static void
conn_close(Conn *c, bool reset)
{
	if (c->fd < 0)
		return;
	if (c->counted && !reset && c->state != CONN_SENDING)
		stats_aborted();
	finish(c);
	timer_cancel(c);
#ifdef ENDPOINT_TLS
	if (c->ssl)
		tls_detach(c, !reset);
#endif
	if (reset)
	{
		struct linger lin = {1, 0};

		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &lin, sizeof(lin));
	}
	close(c->fd);
	c->fd = -1;
	if (c->prev)
		c->prev->next = c->next;
	else
		live = c->next;
	if (c->next)
		c->next->prev = c->prev;
	live_count--;
	c->next = dead;
	dead = c;
}

void
conn_reap(void)
{
	while (dead)
	{
		Conn	   *c = dead;

		dead = c->next;
		if (c->in.cap > 65536 || c->out.cap > 65536)
		{
			free(c->in.p);
			free(c->out.p);
			free(c);
			continue;
		}
		c->next = spare;
		spare = c;
	}
}

void
conn_drop_busy(Conn *keep)
{
	Conn	   *c = live;

	while (c)
	{
		Conn	   *next = c->next;

		if (c != keep && c->counted)
			conn_close(c, true);
		c = next;
	}
}

static void
set_interest(Conn *c, uint32_t want)
{
	struct epoll_event ev;

	if (want == c->interest)
		return;
	c->interest = want;
	ev.events = want;
	ev.data.ptr = c;
	epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &ev);
}

static ssize_t
send_some(Conn *c, size_t upto)
{
	struct iovec iov[2];
	int			n = 0;

	if (c->out_sent < upto)
	{
		iov[n].iov_base = c->out.p + c->out_sent;
		iov[n++].iov_len = upto - c->out_sent;
	}
	if (c->filler > 0 && upto == c->out.len)
	{
		iov[n].iov_base = filler;
		iov[n++].iov_len = c->filler < sizeof(filler) ? c->filler : sizeof(filler);
	}
#ifdef ENDPOINT_TLS
	if (c->ssl)
		return tls_write(c, iov[0].iov_base, iov[0].iov_len);
#endif
	if (n == 1)
		return send(c->fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL);
	return writev(c->fd, iov, n);
}

/* Send what may be sent. A connection that fails is closed: DEAD. */
static FlushResult
flush(Conn *c)
{
	for (;;)
	{
		size_t		upto = c->out.len < c->out_limit ? c->out.len : c->out_limit;
		size_t		head;
		ssize_t		n;

		if (c->out_sent >= upto && (c->filler == 0 || c->out_limit != SIZE_MAX))
			break;
		n = send_some(c, upto);
		if (n < 0)
		{
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN)
				return FLUSH_BLOCKED;
			conn_close(c, false);
			return FLUSH_DEAD;
		}
		head = upto - c->out_sent;
		if ((size_t) n <= head)
			c->out_sent += n;
		else
		{
			c->out_sent = upto;
			c->filler -= n - head;
		}
	}
	if (c->out_sent == c->out.len)
		c->out.len = c->out_sent = 0;
	return FLUSH_DONE;
}

/* A request is here (whole, or early): get its plan and start on it. */
static void
begin(Conn *c, const Request *req)
{
	size_t		before = c->out.len;

	c->status = 0;
	c->hold_us = 0;
	c->produce = NULL;
	c->after = AFTER_KEEP;
	c->stuck = c->stop_reading = false;
	c->head_only = slice_is(req->method, "HEAD");
	behave(c, req);
	if (c->stuck)
	{
		c->state = CONN_STUCK;
		c->out_limit = before;
		timer_cancel(c);
	}
	else if (c->hold_us > 0)
	{
		c->state = CONN_HELD;
		c->out_limit = before;
		timer_set(c, now_mono_us() + c->hold_us);
	}
	else if (c->produce || c->filler || c->after != AFTER_KEEP)
		c->state = CONN_SENDING;
	else
		finish(c);				/* leaves with whatever else is in out */
}

/* Returns false when there is nothing more to do with what has been read. */
static bool
next_request(Conn *c)
{
	Request		req;

	if (c->in_pos == c->in.len)
	{
		c->in_pos = c->in.len = 0;
		return false;
	}
	switch (http_parse(c->in.p + c->in_pos, c->in.len - c->in_pos, &req))
	{
		case HTTP_PARTIAL_HEAD:
			return false;
		case HTTP_PARTIAL_BODY:
			if (!c->early && behave_early(&req))
			{
				c->early = true;
				begin(c, &req);
				return true;
			}
			if (c->in.len - c->in_pos > MAX_REQUEST || req.content_length > MAX_REQUEST)
			{
				answer_json(c, &req, 413, "{\"error\":\"too large\"}");
				c->after = AFTER_CLOSE;
				c->state = CONN_SENDING;
				return true;
			}
			if (req.expect_continue && !c->continued && !c->early)
			{
				buf_str(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
				c->continued = true;
			}
			return false;
		case HTTP_BAD:
			buf_str(&c->out, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
			c->after = AFTER_CLOSE;
			c->state = CONN_SENDING;
			return true;
		case HTTP_COMPLETE:
			c->in_pos += req.total;
			if (!c->early)
				begin(c, &req);
			c->early = false;
			c->continued = false;
			return true;
	}
	return false;
}

/* All bytes of this step are out: the next piece, the end, or the close. */
static void
step_done(Conn *c)
{
	if (c->produce)
	{
		int			ms = c->produce(c);

		if (ms >= 0)
		{
			c->state = CONN_HELD;
			c->out_limit = 0;
			timer_set(c, now_mono_us() + (int64_t) ms * 1000);
			return;
		}
		c->produce = NULL;
		return;					/* flush what it appended, then come back */
	}
	finish(c);
	if (c->after != AFTER_KEEP)
		conn_close(c, c->after == AFTER_RESET);
	else
		c->state = CONN_READING;
}

static void
advance(Conn *c)
{
	FlushResult flushed;
	uint32_t	want = EPOLLIN;

	for (;;)
	{
		if (c->state == CONN_READING)
		{
			if (c->out.len < 65536 && next_request(c))
				continue;
			flushed = flush(c);
			if (flushed == FLUSH_BLOCKED)
				c->state = CONN_SENDING;
			else if (flushed == FLUSH_DONE && c->in_pos < c->in.len && next_request(c))
				continue;
			break;
		}
		flushed = flush(c);
		if (flushed != FLUSH_DONE || c->state != CONN_SENDING)
			break;
		step_done(c);
		if (c->fd < 0)
			return;
	}
	if (flushed == FLUSH_DEAD)
		return;
	if (c->in.len - c->in_pos > MAX_AHEAD && c->state != CONN_READING)
		want = 0;
	if (c->state == CONN_STUCK && c->stop_reading)
		want = EPOLLRDHUP;
	if (flushed == FLUSH_BLOCKED)
		want |= EPOLLOUT;
	set_interest(c, want);
}

/* One read; false when the connection is gone. */
static bool
read_some(Conn *c)
{
	ssize_t		n;

	if (c->in_pos > 0 && c->in.cap - c->in.len < READ_SIZE / 2)
	{
		memmove(c->in.p, c->in.p + c->in_pos, c->in.len - c->in_pos);
		c->in.len -= c->in_pos;
		c->in_pos = 0;
	}
	if (c->in.cap - c->in.len < READ_SIZE / 2)
		buf_reserve(&c->in, c->in.cap ? c->in.cap : READ_SIZE / 2);
#ifdef ENDPOINT_TLS
	if (c->ssl)
		n = tls_read(c, c->in.p + c->in.len, c->in.cap - c->in.len);
	else
#endif
		n = recv(c->fd, c->in.p + c->in.len, c->in.cap - c->in.len, 0);
	if (n > 0)
	{
		c->in.len += n;
		if (c->state == CONN_STUCK)
			c->in.len = c->in_pos = 0;
		return true;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	conn_close(c, false);
	return false;
}

void
conn_event(Conn *c, uint32_t events)
{
	if (c->fd < 0)
		return;
	if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))
	{
		/* a request that came before the end is still counted */
		if ((events & EPOLLIN) && c->state == CONN_READING && read_some(c))
			advance(c);
		conn_close(c, false);
		return;
	}
	if ((events & EPOLLIN) && !read_some(c))
		return;
	advance(c);
#ifdef ENDPOINT_TLS
	/* what OpenSSL has already taken from the socket, epoll does not report */
	while (c->fd >= 0 && c->ssl && tls_pending(c) && c->interest & EPOLLIN)
	{
		if (!read_some(c))
			return;
		advance(c);
	}
#endif
}

void
conn_timer(Conn *c)
{
	if (c->fd < 0)
		return;
	c->out_limit = SIZE_MAX;
	c->state = CONN_SENDING;
	advance(c);
}
