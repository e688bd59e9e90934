/*
 * backoff.h
 *		The value of type retry.backoff: its layout, text form and arithmetic.
 *
 * A leaf: text, random numbers, moments and time zones come in as arguments,
 * nothing is allocated and nothing fails but the parser, so the dispatcher can
 * call it for every finished attempt and a fuzzer can drive it alone.
 *
 * The including file includes postgres.h (or c.h) first.
 */
#ifndef RETRY_BACKOFF_H
#define RETRY_BACKOFF_H

#include "cron.h"

#define RETRY_BACKOFF_VERSION		1

/* Longest delay, and also what "no max" means: 365 days. */
#define RETRY_BACKOFF_LIMIT_MS		INT64CONST(31536000000)

#define RETRY_BACKOFF_MAX_LEVELS	64
#define RETRY_BACKOFF_ZONE_SIZE		64	/* with the terminating zero */

/* Enough for the longest canonical text, with its terminating zero. */
#define RETRY_BACKOFF_TEXT_SIZE		1200

/* The numbers below are stored on disk. */
typedef enum RetryBackoffKind
{
	RETRY_BACKOFF_FIXED = 1,
	RETRY_BACKOFF_LINEAR = 2,
	RETRY_BACKOFF_EXPONENTIAL = 3,
	RETRY_BACKOFF_LEVELS = 4,	/* a list of its own */
	RETRY_BACKOFF_LADDER = 5,	/* a named list */
	RETRY_BACKOFF_RANDOM = 6,
	RETRY_BACKOFF_CRON = 7
} RetryBackoffKind;

typedef enum RetryJitter
{
	RETRY_JITTER_NONE = 0,
	RETRY_JITTER_FULL = 1,
	RETRY_JITTER_EQUAL = 2,
	RETRY_JITTER_DECORRELATED = 3,
	RETRY_JITTER_PERCENT = 4
} RetryJitter;

/*
 * One backoff, as it is stored.  Equal values are equal bytes: there is no
 * padding and every byte that a form does not use is zero.  Only the first
 * VARSIZE() bytes exist in a stored value; a variable of this type has room
 * for any.  Alignment is that of int64.
 */
typedef struct RetryBackoff
{
	char		vl_len_[4];		/* varlena header, see SET_VARSIZE */
	uint8		version;		/* RETRY_BACKOFF_VERSION */
	uint8		kind;			/* RetryBackoffKind */
	uint8		jitter;			/* RetryJitter */
	uint8		percent;		/* of RETRY_JITTER_PERCENT, 1-100 */
	int32		factor_milli;	/* exponential: 1000-100000, 2000 doubles */
	uint16		ladder;			/* which named list, from 1 */
	uint16		nlevels;		/* levels: 1-RETRY_BACKOFF_MAX_LEVELS */
	int64		base_ms;		/* fixed, first of linear and exponential,
								 * shortest of random */
	int64		max_ms;			/* cap of linear and exponential, longest of
								 * random */

	/* nothing for the other forms */
	union
	{
		int64		levels_ms[RETRY_BACKOFF_MAX_LEVELS];
		struct
		{
			RetryCron	schedule;
			char		zone[RETRY_BACKOFF_ZONE_SIZE];	/* "": UTC */
		}			cron;
	}			u;
} RetryBackoff;

/* A named list of levels. */
typedef struct RetryLadder
{
	const char *name;
	const int64 *levels_ms;
	int			nlevels;
} RetryLadder;

/* When the next attempt may be made, as absolute moments. */
typedef struct RetryWindow
{
	TimestampTz at;				/* without jitter */
	TimestampTz earliest;
	TimestampTz latest;
} RetryWindow;

/* backoff_text.c */
extern bool retry_backoff_parse(const char *text, RetryBackoff *out,
								RetryParseError *err);
extern int	retry_backoff_format(const RetryBackoff *b, char *buf, Size size);
extern const char *retry_backoff_zone_name(const RetryBackoff *b);
extern void retry_backoff_set_zone_name(RetryBackoff *b, const char *name);

/* backoff.c */
extern const RetryLadder *retry_backoff_ladder(int number);
extern int64 retry_backoff_first_ms(const RetryBackoff *b);
extern int64 retry_backoff_delay_us(const RetryBackoff *b, int32 attempt_no,
									int64 previous_us, uint64 random);
extern TimestampTz retry_backoff_next(const RetryBackoff *b, int32 attempt_no,
									  TimestampTz ended_at, int64 previous_us,
									  uint64 random, const RetryZone *zone);
extern void retry_backoff_window(const RetryBackoff *b, int32 attempt_no,
								 TimestampTz ended_at, int64 previous_us,
								 const RetryZone *zone, RetryWindow *window);

#endif							/* RETRY_BACKOFF_H */
