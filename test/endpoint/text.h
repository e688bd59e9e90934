/*
 * text.h
 *		Byte buffers, slices, and the few encodings an HTTP endpoint needs.
 *
 * Everything the endpoint reads is a slice of somebody else's buffer and
 * everything it writes is appended to a growing one, so that the hot path
 * neither allocates nor copies a request.
 */
#ifndef ENDPOINT_TEXT_H
#define ENDPOINT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Slice
{
	const char *p;
	size_t		len;
} Slice;

typedef struct Buf
{
	char	   *p;
	size_t		len;
	size_t		cap;
} Buf;

/* Make room for `more` further bytes; exits the process when memory is out. */
extern void buf_reserve(Buf *b, size_t more);
extern void buf_add(Buf *b, const void *p, size_t len);
extern void buf_str(Buf *b, const char *s);
extern void buf_printf(Buf *b, const char *fmt,...) __attribute__((format(printf, 2, 3)));

/* Append as a quoted JSON string; bytes that are not UTF-8 become \u00XX. */
extern void buf_json(Buf *b, const char *p, size_t len);

/* Append with %XX and + decoded; a lone % stays as it is. */
extern void buf_url_decode(Buf *b, Slice s);

/* Compare a slice with a C string, exactly and ignoring ASCII case. */
extern bool slice_is(Slice s, const char *text);
extern bool slice_is_nocase(Slice s, const char *text);
extern bool slice_starts(Slice s, const char *text);

/* The leading digits as a number; `dflt` when there are none. */
extern int64_t slice_int(Slice s, int64_t dflt);

/* The raw (still encoded) value of a query parameter; false when absent. */
extern bool query_raw(Slice query, const char *name, Slice *value);
extern int64_t query_int(Slice query, const char *name, int64_t dflt);

/* The decoded value, NUL-terminated in `into` (emptied first); false when absent. */
extern bool query_text(Slice query, const char *name, Buf *into);

/* A fast 64-bit hash, never 0. Not for adversaries: this is a test program. */
extern uint64_t hash_bytes(const void *p, size_t len, uint64_t seed);

/* Microseconds of the monotonic clock, and of the wall clock since 1970. */
extern int64_t now_mono_us(void);
extern int64_t now_wall_us(void);

#endif							/* ENDPOINT_TEXT_H */
