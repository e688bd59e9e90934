/*
 * behave.c
 *		Which path answers how: the table, the modes, and the behaviours that
 *		keep to the protocol.
 *
 * The first part of the path chooses, the rest and the query refine. A global
 * mode (POST /_mode) or the share of failures comes before the path, so that
 * one endpoint can be broken and mended while it runs.
 */
#include "endpoint.h"

#include <stdio.h>
#include <string.h>

#include "misbehave.h"
#include "stats.h"

typedef void (*Behaviour) (Conn *c, const Request *req, Slice rest);

static Buf	scratch;			/* decoded query values and composed bodies */
static Buf	extra;				/* composed header lines */

void
answer(Conn *c, const Request *req, int status, const char *type,
	   const char *headers, const void *body, size_t len)
{
	bool		bodyless = status == 204 || status == 304 || (status >= 100 && status < 200);
	Buf		   *b = &c->out;

	c->status = status;
	buf_printf(b, "HTTP/1.1 %d %s\r\n", status, http_reason(status));
	if (!bodyless)
		buf_printf(b, "Content-Type: %s\r\nContent-Length: %zu\r\n", type, len);
	if (headers)
		buf_str(b, headers);
	if (!req->keep_alive)
	{
		buf_str(b, "Connection: close\r\n");
		c->after = AFTER_CLOSE;
	}
	buf_str(b, "\r\n");
	if (!bodyless && !c->head_only)
		buf_add(b, body, len);
}

void
answer_json(Conn *c, const Request *req, int status, const char *json)
{
	answer(c, req, status, "application/json", NULL, json, strlen(json));
}

/* The bench's path: one copy of constant bytes. */
static void
do_ok(Conn *c, const Request *req, Slice rest)
{
	static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
		"Content-Length: 11\r\n\r\n{\"ok\":true}";

	if (c->head_only || !req->keep_alive)
	{
		answer_json(c, req, 200, "{\"ok\":true}");
		return;
	}
	c->status = 200;
	buf_add(&c->out, ok, sizeof(ok) - 1);
}

static void
do_status(Conn *c, const Request *req, Slice rest)
{
	int			status = (int) slice_int(rest, 200);

	if (status < 100 || status > 999)
		status = 500;
	if (query_text(req->query, "body", &scratch))
		answer(c, req, status, "text/plain", NULL, scratch.p, scratch.len);
	else
	{
		scratch.len = 0;
		buf_printf(&scratch, "{\"status\":%d}", status);
		answer(c, req, status, "application/json", NULL, scratch.p, scratch.len);
	}
}

static void
do_delay(Conn *c, const Request *req, Slice rest)
{
	c->hold_us = slice_int(rest, 0) * 1000;
	answer_json(c, req, (int) query_int(req->query, "status", 200), "{\"ok\":true}");
}

static void
do_flaky(Conn *c, const Request *req, Slice rest)
{
	if (stats_visits(req) < slice_int(rest, 1))
		answer_json(c, req, (int) query_int(req->query, "fail", 500), "{\"error\":\"flaky\"}");
	else
		answer_json(c, req, 200, "{\"ok\":true}");
}

/* True in `percent` of the calls; splitmix64, so that a seed repeats a run. */
static bool
unlucky(double percent)
{
	uint64_t	z = (settings.random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	return (z >> 11) * (100.0 / 9007199254740992.0) < percent;
}

static void
do_flaky_percent(Conn *c, const Request *req, Slice rest)
{
	if (unlucky((double) slice_int(rest, 50)))
		answer_json(c, req, (int) query_int(req->query, "fail", 500), "{\"error\":\"flaky\"}");
	else
		answer_json(c, req, 200, "{\"ok\":true}");
}

static void
do_redirect(Conn *c, const Request *req, Slice rest)
{
	if (!query_text(req->query, "to", &scratch))
		buf_str(&scratch, "/ok");
	extra.len = 0;
	buf_printf(&extra, "Location: %.*s\r\n", (int) scratch.len, scratch.p);
	answer(c, req, (int) slice_int(rest, 302), "application/json", extra.p, "{}", 2);
}

/* A header line with a decoded value, NUL-terminated in `extra`. */
static void
header_line(const char *name, Slice encoded)
{
	extra.len = 0;
	buf_printf(&extra, "%s: ", name);
	buf_url_decode(&extra, encoded);
	buf_add(&extra, "\r\n", 3);
}

static void
do_retry_after(Conn *c, const Request *req, Slice rest)
{
	Slice		then;

	if (query_raw(req->query, "then", &then) && slice_is(then, "ok") && stats_visits(req) > 0)
	{
		answer_json(c, req, 200, "{\"ok\":true}");
		return;
	}
	header_line("Retry-After", rest);
	answer(c, req, (int) query_int(req->query, "status", 503), "application/json",
		   extra.p, "{\"error\":\"later\"}", 17);
}

static void
do_retry_control(Conn *c, const Request *req, Slice rest)
{
	header_line("Retry-Control", rest);
	answer(c, req, (int) query_int(req->query, "status", 200), "application/json",
		   extra.p, "{\"ok\":false}", 12);
}

/* The value may hold anything, CR and LF included: that is the point. */
static void
do_header(Conn *c, const Request *req, Slice rest)
{
	Slice		value = {"", 0};

	if (!query_text(req->query, "name", &scratch))
		buf_add(&scratch, "X-Header", 9);
	query_raw(req->query, "value", &value);
	header_line(scratch.p, value);
	answer(c, req, (int) query_int(req->query, "status", 200), "application/json",
		   extra.p, "{\"ok\":true}", 11);
}

static void
do_echo(Conn *c, const Request *req, Slice rest)
{
	Slice		lines = req->headers;
	Slice		name;
	Slice		value;
	const char *sep = "";

	scratch.len = 0;
	buf_str(&scratch, "{\"method\":");
	buf_json(&scratch, req->method.p, req->method.len);
	buf_str(&scratch, ",\"path\":");
	buf_json(&scratch, req->target.p, req->target.len);
	buf_str(&scratch, ",\"headers\":[");
	while (http_next_header(&lines, &name, &value))
	{
		buf_str(&scratch, sep);
		buf_str(&scratch, "[");
		buf_json(&scratch, name.p, name.len);
		buf_str(&scratch, ",");
		buf_json(&scratch, value.p, value.len);
		buf_str(&scratch, "]");
		sep = ",";
	}
	buf_str(&scratch, "],\"body\":");
	buf_json(&scratch, req->body.p, req->body.len);
	buf_str(&scratch, "}");
	answer(c, req, (int) query_int(req->query, "status", 200), "application/json",
		   NULL, scratch.p, scratch.len);
}

static void
do_json(Conn *c, const Request *req, Slice rest)
{
	if (!query_text(req->query, "body", &scratch))
		buf_str(&scratch, "{}");
	answer(c, req, (int) query_int(req->query, "status", 200), "application/json",
		   NULL, scratch.p, scratch.len);
}

static void
do_processing(Conn *c, const Request *req, Slice rest)
{
	if (stats_visits(req) < slice_int(rest, 1))
		answer_json(c, req, (int) query_int(req->query, "status", 202), "{\"status\":\"processing\"}");
	else
		answer_json(c, req, 200, "{\"status\":\"done\"}");
}

/* /concurrency[/NAME]?ms=: counts how many are being held under each name. */
static void
do_concurrency(Conn *c, const Request *req, Slice rest)
{
	c->busy_slot = stats_busy_begin(rest);
	c->hold_us = query_int(req->query, "ms", 0) * 1000;
	answer_json(c, req, 200, "{\"ok\":true}");
}

/* /slow-first/MS?first=&then=: late the first time per key, at once from then on. */
static void
do_slow_first(Conn *c, const Request *req, Slice rest)
{
	if (stats_visits(req) == 0)
	{
		c->hold_us = slice_int(rest, 1000) * 1000;
		answer_json(c, req, (int) query_int(req->query, "first", 200), "{\"visit\":1}");
	}
	else
		answer_json(c, req, (int) query_int(req->query, "then", 200), "{\"visit\":2}");
}

/*
 * /capacity/N?ms=: so many workers, each busy for ms with a request; the others
 * wait for their turn, first come first served.  One queue for all of them.
 */
static void
do_capacity(Conn *c, const Request *req, Slice rest)
{
	static int64_t free_at[1024];
	int64_t		workers = settings.capacity > 0 ? settings.capacity : slice_int(rest, 1);
	int64_t		now = now_mono_us();
	int			first = 0;
	int			i;

	workers = workers < 1 ? 1 : workers > 1024 ? 1024 : workers;
	for (i = 1; i < workers; i++)
		if (free_at[i] < free_at[first])
			first = i;
	/* those that were not there have no queue */
	for (i = (int) workers; i < 1024; i++)
		free_at[i] = 0;
	if (free_at[first] < now)
		free_at[first] = now;
	free_at[first] += query_int(req->query, "ms", 10) * 1000;
	c->busy_slot = stats_busy_begin((Slice) {"capacity", 8});
	c->hold_us = free_at[first] - now;
	answer_json(c, req, 200, "{\"ok\":true}");
}

static const struct
{
	const char *name;
	Behaviour	act;
	bool		early;
}			table[] = {
	{"ok", do_ok, false},
	{"delay", do_delay, false},
	{"status", do_status, false},
	{"flaky", do_flaky, false},
	{"flaky-percent", do_flaky_percent, false},
	{"hang", do_hang, false},
	{"hang-accept", do_hang_accept, true},
	{"reset", do_reset, false},
	{"reset-mid", do_reset_mid, false},
	{"close", do_close, false},
	{"drip", do_drip, false},
	{"oversize", do_oversize, false},
	{"endless", do_endless, false},
	{"malformed", do_malformed, false},
	{"encoding", do_encoding, false},
	{"gzip-lie", do_gzip_lie, false},
	{"redirect", do_redirect, false},
	{"retry-after", do_retry_after, false},
	{"retry-control", do_retry_control, false},
	{"header", do_header, false},
	{"echo", do_echo, false},
	{"json", do_json, false},
	{"processing", do_processing, false},
	{"answer-twice", do_answer_twice, false},
	{"answer-early", do_answer_early, true},
	{"early-close-keepalive", do_early_close, false},
	{"concurrency", do_concurrency, false},
	{"slow-first", do_slow_first, false},
	{"capacity", do_capacity, false},
	{"100-continue", do_100_continue, false},
	{"(other)", NULL, false},
};

#define TABLE_LEN	((int) (sizeof(table) / sizeof(table[0])))
#define KIND_OTHER	(TABLE_LEN - 1)

const char *
behave_name(int i)
{
	return i < TABLE_LEN ? table[i].name : NULL;
}

/* Split "/name/rest"; returns the index of name. The bare "/" is /ok. */
static int
find_kind(Slice path, Slice *rest)
{
	const char *slash;
	Slice		name;
	int			i;

	rest->p = path.p + path.len;
	rest->len = 0;
	if (path.len <= 1)
		return 0;
	name.p = path.p + 1;
	name.len = path.len - 1;
	slash = memchr(name.p, '/', name.len);
	if (slash)
	{
		rest->p = slash + 1;
		rest->len = path.p + path.len - rest->p;
		name.len = slash - name.p;
	}
	for (i = 0; i < KIND_OTHER; i++)
		if (slice_is(name, table[i].name))
			return i;
	return KIND_OTHER;
}

/* Answer by the global mode; false when the path is to answer. */
static bool
mode_answers(Conn *c, const Request *req)
{
	switch (settings.mode)
	{
		case MODE_UP:
			return false;
		case MODE_DOWN:
			c->after = AFTER_RESET;
			return true;
		case MODE_HANG:
			c->stuck = true;
			return true;
		case MODE_SLOW:
			c->hold_us = (int64_t) settings.mode_arg * 1000;
			return false;
		case MODE_STATUS:
			answer_json(c, req, settings.mode_arg, "{\"error\":\"mode\"}");
			return true;
		case MODE_AS:
			return false;
	}
	return false;
}

/* The path that decides: the request's, or the one that /ok is to answer as. */
static Slice
deciding_path(const Request *req)
{
	if (settings.mode == MODE_AS && slice_starts(req->path, "/ok"))
		return (Slice) {settings.mode_path, strlen(settings.mode_path)};
	return req->path;
}

bool
behave_early(const Request *req)
{
	Slice		rest;

	return table[find_kind(deciding_path(req), &rest)].early;
}

void
behave(Conn *c, const Request *req)
{
	Slice		rest;
	int			kind;
	int64_t		least;

	if (slice_starts(req->path, "/_"))
	{
		control(c, req);
		return;
	}
	kind = find_kind(deciding_path(req), &rest);
	c->counted = true;
	stats_begin();
	if (!mode_answers(c, req))
	{
		least = c->hold_us + settings.delay_us;
		c->hold_us = 0;
		if (settings.fail_percent > 0 && unlucky(settings.fail_percent))
			answer_json(c, req, 500, "{\"error\":\"unlucky\"}");
		else if (kind == KIND_OTHER)
			answer_json(c, req, 404, "{\"error\":\"no such behaviour\"}");
		else
			table[kind].act(c, req, rest);
		c->hold_us += least;
	}
	stats_request(req, kind, c->status);
}
