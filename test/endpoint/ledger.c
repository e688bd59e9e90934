/*
 * ledger.c
 *		One line for every request received, in a file and in memory.
 *
 * The file is what a test reads after the endpoint, or the machine under
 * test, was killed; the copy in memory answers GET /_ledger at once. Both are
 * the same text, so a line is formatted once. Beyond LEDGER_KEEP bytes the
 * older half of the copy in memory is given up; the file keeps everything.
 */
#define _GNU_SOURCE
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEDGER_KEEP		(256 * 1024 * 1024)
#define LEDGER_FIELDS	8

static Buf	lines;
static size_t flushed;			/* bytes of lines that are in the file */
static int	file_fd = -1;

void
ledger_open(const char *file)
{
	if (file == NULL)
		return;
	file_fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (file_fd < 0)
	{
		fprintf(stderr, "endpoint: cannot open ledger \"%s\": %s\n", file, strerror(errno));
		exit(1);
	}
}

/* A field: what would break the line becomes a space, nothing becomes "-". */
static void
add_field(Slice s, char end)
{
	size_t		i;

	buf_reserve(&lines, s.len + 2);
	if (s.len == 0)
		lines.p[lines.len++] = '-';
	for (i = 0; i < s.len; i++)
		lines.p[lines.len++] = (unsigned char) s.p[i] < 0x20 ? ' ' : s.p[i];
	lines.p[lines.len++] = end;
}

static void
drop_older_half(void)
{
	const char *cut = memchr(lines.p + lines.len / 2, '\n', lines.len - lines.len / 2);
	size_t		gone = cut ? (size_t) (cut + 1 - lines.p) : lines.len;

	ledger_flush();
	memmove(lines.p, lines.p + gone, lines.len - gone);
	lines.len -= gone;
	flushed = lines.len;
}

void
ledger_add(const Request *req, int status, int64_t mono_us, int64_t wall_us)
{
	if (lines.len > LEDGER_KEEP)
		drop_older_half();
	buf_printf(&lines, "%lld\t%lld\t", (long long) mono_us, (long long) wall_us);
	add_field(req->method, '\t');
	add_field(req->target, '\t');
	add_field(req->key, '\t');
	add_field(req->attempt, '\t');
	buf_printf(&lines, "%d\t%zu\n", status, req->body.len);
}

bool
ledger_dirty(void)
{
	return file_fd >= 0 && flushed < lines.len;
}

void
ledger_flush(void)
{
	while (file_fd >= 0 && flushed < lines.len)
	{
		ssize_t		n = write(file_fd, lines.p + flushed, lines.len - flushed);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
		{
			fprintf(stderr, "endpoint: cannot write the ledger: %s\n", strerror(errno));
			exit(1);
		}
		flushed += n;
	}
}

/* The file keeps what it has: a reset begins a new count, not a new history. */
void
ledger_reset(void)
{
	ledger_flush();
	lines.len = 0;
	flushed = 0;
}

static void
line_json(Buf *b, Slice *field)
{
	buf_printf(b, "{\"mono_us\":%.*s,\"wall_us\":%.*s,\"method\":",
			   (int) field[0].len, field[0].p, (int) field[1].len, field[1].p);
	buf_json(b, field[2].p, field[2].len);
	buf_str(b, ",\"path\":");
	buf_json(b, field[3].p, field[3].len);
	buf_str(b, ",\"key\":");
	buf_json(b, field[4].p, field[4].len);
	buf_str(b, ",\"attempt\":");
	buf_json(b, field[5].p, field[5].len);
	buf_printf(b, ",\"status\":%.*s,\"body_length\":%.*s}\n",
			   (int) field[6].len, field[6].p, (int) field[7].len, field[7].p);
}

void
ledger_json(Buf *b, Slice key)
{
	const char *p = lines.p;
	const char *end = lines.p + lines.len;

	while (p < end)
	{
		const char *eol = memchr(p, '\n', end - p);
		Slice		field[LEDGER_FIELDS];
		int			n = 0;

		while (n < LEDGER_FIELDS && p < eol)
		{
			const char *tab = n < LEDGER_FIELDS - 1 ? memchr(p, '\t', eol - p) : eol;

			if (tab == NULL)
				tab = eol;
			field[n].p = p;
			field[n++].len = tab - p;
			p = tab + 1;
		}
		if (n == LEDGER_FIELDS &&
			(key.p == NULL || (field[4].len == key.len && memcmp(field[4].p, key.p, key.len) == 0)))
			line_json(b, field);
		p = eol + 1;
	}
}
