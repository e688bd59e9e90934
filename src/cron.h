/*
 * cron.h
 *		Five-field cron schedules: parsing, canonical text, next occurrence.
 *
 * A leaf without memory allocation, error reporting, clock or time-zone data
 * of its own, so that it can be fuzzed and tested outside the server.  What it
 * needs to know about a time zone it asks through RetryZone.
 *
 * The including file includes postgres.h (or c.h) first.
 */
#ifndef RETRY_CRON_H
#define RETRY_CRON_H

#include "datatype/timestamp.h"

/*
 * Why a text was refused.  The offending part is a place in the text, not a
 * copy, because only the caller knows the encoding and may have to shorten it.
 * It always begins and ends beside ASCII bytes.  reason and hint are constants.
 */
typedef struct RetryParseError
{
	int			part_at;		/* byte offset of the part in the text */
	int			part_len;		/* its bytes; 0 only if the text is empty */
	const char *reason;			/* completes the sentence "<part> ..." */
	const char *hint;			/* a whole sentence, never NULL */
} RetryParseError;

static inline bool
retry_fail_part(RetryParseError *err, int at, int len, const char *reason,
				const char *hint)
{
	err->part_at = at;
	err->part_len = len;
	err->reason = reason;
	err->hint = hint;
	return false;
}

/* ASCII only, whatever the locale: the text form is the same everywhere. */
static inline bool
retry_is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static inline bool
retry_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline char
retry_lower(char c)
{
	return (c >= 'A' && c <= 'Z') ? c + ('a' - 'A') : c;
}

static inline bool
retry_is_letter(char c)
{
	return retry_lower(c) >= 'a' && retry_lower(c) <= 'z';
}

/* Was the field written as "*" or "*" with a step?  See retry_cron_parse. */
#define RETRY_CRON_HOUR_STAR		0x01
#define RETRY_CRON_DAY_STAR			0x02
#define RETRY_CRON_WEEKDAY_STAR		0x04

/* A schedule: one bit for each value at which it fires.  No padding. */
typedef struct RetryCron
{
	uint64		minutes;		/* bits 0-59 */
	uint32		hours;			/* bits 0-23 */
	uint32		days;			/* bits 1-31 */
	uint16		months;			/* bits 1-12 */
	uint8		weekdays;		/* bits 0-6, Sunday is 0 */
	uint8		flags;			/* RETRY_CRON_*_STAR */
	uint32		reserved;		/* zero */
} RetryCron;

/*
 * A time zone.  next_change tells the offset in force at the moment "at"
 * (seconds since 1970, UTC), in seconds east of Greenwich, and the first later
 * moment at which another one may begin (PG_INT64_MAX if none is known); it
 * must neither allocate nor fail.  next_change NULL means UTC.
 */
typedef struct RetryZone
{
	void		(*next_change) (const void *opaque, int64 at,
								int32 *offset, int64 *change);
	const void *opaque;
} RetryZone;

/* Enough for the longest canonical text, with its terminating zero. */
#define RETRY_CRON_TEXT_SIZE	512

extern bool retry_cron_parse(const char *text, int len, RetryCron *out,
							 RetryParseError *err);
extern int	retry_cron_format(const RetryCron *cron, char *buf, Size size);
extern bool retry_cron_next(const RetryCron *cron, TimestampTz after,
							const RetryZone *zone, TimestampTz *next);

#endif							/* RETRY_CRON_H */
