/*
 * control.c
 *		Paths under /_: read the statistics and the ledger, change the mode,
 *		begin anew, quit.
 *
 * They answer whatever the mode is, are in no statistic and no ledger, and
 * take any method, so that they can be used from a shell with bare curl.
 */
#include "endpoint.h"

#include <stdio.h>
#include <string.h>

#include "stats.h"

static Buf	body;
static Buf	value;

/* up | down | hang | slow:MS | status:NNN | as:/PATH; false when it is none of these. */
static bool
set_mode(Slice mode)
{
	Slice		arg = {mode.p, 0};
	const char *colon = memchr(mode.p, ':', mode.len);

	if (colon)
	{
		arg.p = colon + 1;
		arg.len = mode.p + mode.len - arg.p;
		mode.len = colon - mode.p;
	}
	if (slice_is(mode, "up"))
		settings.mode = MODE_UP;
	else if (slice_is(mode, "down"))
		settings.mode = MODE_DOWN;
	else if (slice_is(mode, "hang"))
		settings.mode = MODE_HANG;
	else if (slice_is(mode, "slow") && slice_int(arg, -1) >= 0)
		settings.mode = MODE_SLOW;
	else if (slice_is(mode, "status") && slice_int(arg, -1) >= 200 && slice_int(arg, -1) <= 599)
		settings.mode = MODE_STATUS;
	else if (slice_is(mode, "as") && arg.len > 0 && arg.len < sizeof(settings.mode_path))
	{
		settings.mode = MODE_AS;
		memcpy(settings.mode_path, arg.p, arg.len);
		settings.mode_path[arg.len] = '\0';
	}
	else
		return false;
	settings.mode_arg = (int) slice_int(arg, 0);
	return true;
}

void
control(Conn *c, const Request *req)
{
	Slice		what = {req->path.p + 2, req->path.len - 2};

	body.len = 0;
	if (slice_is(what, "stats"))
	{
		stats_json(&body, conn_count());
		answer(c, req, 200, "application/json", NULL, body.p, body.len);
	}
	else if (slice_is(what, "ledger"))
	{
		bool		by_key = query_text(req->query, "key", &value);

		buf_reserve(&body, 1);
		ledger_json(&body, (Slice) {by_key ? value.p : NULL, value.len});
		answer(c, req, 200, "application/x-ndjson", NULL, body.p, body.len);
	}
	else if (slice_is(what, "mode"))
	{
		bool		good = query_text(req->query, "global", &value) &&
			set_mode((Slice) {value.p, value.len});

		answer_json(c, req, good ? 200 : 400,
					good ? "{\"ok\":true}" : "{\"error\":\"global=up|down|hang|slow:MS|status:NNN|as:/PATH\"}");
	}
	else if (slice_is(what, "capacity"))
	{
		settings.capacity = (int) query_int(req->query, "n", 0);
		answer_json(c, req, 200, "{\"ok\":true}");
	}
	else if (slice_is(what, "reset"))
	{
		/* ?drop=1 also resets the connections that have a request in progress */
		if (query_int(req->query, "drop", 0))
			conn_drop_busy(c);
		settings.mode = MODE_UP;
		settings.capacity = 0;
		stats_reset();
		answer_json(c, req, 200, "{\"ok\":true}");
	}
	else if (slice_is(what, "quit"))
	{
		settings.quit = true;
		answer_json(c, req, 200, "{\"ok\":true}");
	}
	else
		answer_json(c, req, 404, "{\"error\":\"no such control path\"}");
}
