/*
 * text.c
 *		Byte buffers, slices, and the few encodings an HTTP endpoint needs.
 *
 * Kept apart from the protocol code so that parsing and answering read as
 * what they do rather than as pointer arithmetic. Running out of memory ends
 * the program: a test endpoint has nothing better to do then.
 */
#define _GNU_SOURCE
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

void
buf_reserve(Buf *b, size_t more)
{
	size_t		want = b->len + more;

	if (want <= b->cap)
		return;
	if (want < b->cap * 2)
		want = b->cap * 2;
	if (want < 512)
		want = 512;
	b->p = realloc(b->p, want);
	if (b->p == NULL)
	{
		fprintf(stderr, "endpoint: out of memory (%zu bytes)\n", want);
		exit(1);
	}
	b->cap = want;
}

void
buf_add(Buf *b, const void *p, size_t len)
{
	buf_reserve(b, len);
	memcpy(b->p + b->len, p, len);
	b->len += len;
}

void
buf_str(Buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void
buf_printf(Buf *b, const char *fmt,...)
{
	va_list		args;
	int			n;

	buf_reserve(b, 128);		/* usually enough */
	va_start(args, fmt);
	n = vsnprintf(b->p + b->len, b->cap - b->len, fmt, args);
	va_end(args);
	if ((size_t) n >= b->cap - b->len)
	{
		buf_reserve(b, n + 1);
		va_start(args, fmt);
		vsnprintf(b->p + b->len, b->cap - b->len, fmt, args);
		va_end(args);
	}
	b->len += n;
}

/* Length of the valid UTF-8 sequence at p, or 0. */
static size_t
utf8_length(const unsigned char *p, size_t len)
{
	size_t		n;
	size_t		i;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		n = 2;
	else if ((p[0] & 0xf0) == 0xe0)
		n = 3;
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
		n = 4;
	else
		return 0;
	if (n > len)
		return 0;
	for (i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
		(p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

void
buf_json(Buf *b, const char *p, size_t len)
{
	size_t		i = 0;

	buf_str(b, "\"");
	while (i < len)
	{
		unsigned char ch = (unsigned char) p[i];
		size_t		n = utf8_length((const unsigned char *) p + i, len - i);

		if (n == 0 || ch < 0x20 || ch == 0x7f)
		{
			buf_printf(b, "\\u%04x", ch);
			n = 1;
		}
		else
		{
			if (ch == '"' || ch == '\\')
				buf_str(b, "\\");
			buf_add(b, p + i, n);
		}
		i += n;
	}
	buf_str(b, "\"");
}

static int
hex_value(char ch)
{
	if (ch >= '0' && ch <= '9')
		return ch - '0';
	if (ch >= 'a' && ch <= 'f')
		return ch - 'a' + 10;
	if (ch >= 'A' && ch <= 'F')
		return ch - 'A' + 10;
	return -1;
}

void
buf_url_decode(Buf *b, Slice s)
{
	size_t		i;

	buf_reserve(b, s.len);
	for (i = 0; i < s.len; i++)
	{
		char		ch = s.p[i];

		if (ch == '+')
			ch = ' ';
		else if (ch == '%' && i + 2 < s.len &&
				 hex_value(s.p[i + 1]) >= 0 && hex_value(s.p[i + 2]) >= 0)
		{
			ch = (char) (hex_value(s.p[i + 1]) * 16 + hex_value(s.p[i + 2]));
			i += 2;
		}
		b->p[b->len++] = ch;
	}
}

bool
slice_is(Slice s, const char *text)
{
	size_t		n = strlen(text);

	return s.len == n && memcmp(s.p, text, n) == 0;
}

bool
slice_is_nocase(Slice s, const char *text)
{
	size_t		n = strlen(text);

	return s.len == n && strncasecmp(s.p, text, n) == 0;
}

bool
slice_starts(Slice s, const char *text)
{
	size_t		n = strlen(text);

	return s.len >= n && memcmp(s.p, text, n) == 0;
}

int64_t
slice_int(Slice s, int64_t dflt)
{
	int64_t		v = 0;
	size_t		i;

	for (i = 0; i < s.len && i < 18 && s.p[i] >= '0' && s.p[i] <= '9'; i++)
		v = v * 10 + (s.p[i] - '0');
	return i > 0 ? v : dflt;
}

bool
query_raw(Slice query, const char *name, Slice *value)
{
	size_t		n = strlen(name);
	const char *p = query.p;
	const char *end = query.p + query.len;

	while (p < end)
	{
		const char *amp = memchr(p, '&', end - p);
		const char *stop = amp ? amp : end;

		if ((size_t) (stop - p) > n && memcmp(p, name, n) == 0 && p[n] == '=')
		{
			value->p = p + n + 1;
			value->len = stop - value->p;
			return true;
		}
		p = stop + 1;
	}
	return false;
}

int64_t
query_int(Slice query, const char *name, int64_t dflt)
{
	Slice		v;

	if (query.len == 0 || !query_raw(query, name, &v))
		return dflt;
	return slice_int(v, dflt);
}

bool
query_text(Slice query, const char *name, Buf *into)
{
	Slice		v;

	into->len = 0;
	buf_reserve(into, 1);
	into->p[0] = '\0';
	if (!query_raw(query, name, &v))
		return false;
	buf_url_decode(into, v);
	buf_reserve(into, 1);
	into->p[into->len] = '\0';
	return true;
}

uint64_t
hash_bytes(const void *p, size_t len, uint64_t seed)
{
	const unsigned char *b = p;
	uint64_t	h = seed ^ (len * UINT64_C(0x9e3779b97f4a7c15));

	while (len > 0)
	{
		uint64_t	w = 0;
		size_t		n = len < 8 ? len : 8;

		memcpy(&w, b, n);
		h = (h ^ w) * UINT64_C(0xff51afd7ed558ccd);
		h ^= h >> 32;
		b += n;
		len -= n;
	}
	h *= UINT64_C(0xc4ceb9fe1a85ec53);
	h ^= h >> 29;
	return h ? h : 1;
}

static int64_t
clock_us(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t
now_mono_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

int64_t
now_wall_us(void)
{
	return clock_us(CLOCK_REALTIME);
}
