/*
 * rate.h
 *		The value of type retry.rate, and the bucket that keeps to it.
 *
 * A bucket is one number: the moment from which the next request may be sent
 * (the generic cell rate algorithm, GCRA).  Each request moves it on by a
 * step; it may lie behind the present by what a burst takes, and it may be
 * moved beyond the present, which reserves a moment.  So a bucket that many
 * processes share is one 64-bit atomic, and nothing has to be counted, filled
 * or swept by a timer.
 *
 * A leaf: nothing is allocated, moments are arguments (monotonic microseconds,
 * from 0 up to some 285 years), and only the parser can fail.  The including
 * file includes postgres.h first.
 */
#ifndef RETRY_RATE_H
#define RETRY_RATE_H

#include "cron.h"				/* RetryParseError */

#define RETRY_RATE_MAX_PER_SECOND	1000000
#define RETRY_RATE_MAX_COUNT		1000000000
#define RETRY_RATE_MAX_BURST		10000000

/* Enough for the longest canonical text, with its terminating zero. */
#define RETRY_RATE_TEXT_SIZE		48

/* A rate, as it is stored: equal rates are equal bytes.  count 0: none. */
typedef struct RetryRate
{
	int32		count;			/* requests, 1..RETRY_RATE_MAX_COUNT, ... */
	int32		seconds;		/* ... in 1, 60, 3600 or 86400 of these */
	int32		burst;			/* so many at once after a pause,
								 * 1..RETRY_RATE_MAX_BURST */
} RetryRate;

#define RETRY_TICKS_PER_US	INT64CONST(1024)

/* The same in ticks of 1/1024 microsecond, in which buckets are kept. */
typedef struct RetryPace
{
	int64		step;			/* from one request to the next; >= 1024 */
	int64		slack;			/* a bucket lies at most so far behind */
} RetryPace;

/*
 * Reads a rate.  text is terminated by a zero and may be in any encoding that
 * a server can have.  False, with *err filled and *rate undefined, when it is
 * malformed.
 */
extern bool retry_rate_parse(const char *text, RetryRate *rate, RetryParseError *err);

/*
 * Writes the canonical text, which reads back to the same value; returns its
 * length.  As with snprintf, a length of size or more means that it was cut.
 */
extern int	retry_rate_format(const RetryRate *rate, char *buf, Size size);

/* True when it is within the bounds: what is read from a disk might not be. */
extern bool retry_rate_valid(const RetryRate *rate);

static inline bool
retry_rate_same(const RetryRate *a, const RetryRate *b)
{
	return a->count == b->count && a->seconds == b->seconds && a->burst == b->burst;
}

/*
 * How a valid rate moves a bucket; a burst of less than 20 ms counts as that.
 * 50 ms of lateness, or half a step, cost nothing at rates above 1/s.
 */
extern void retry_rate_pace(const RetryRate *rate, RetryPace *pace);

/* A bucket from which a whole burst, or that of a tenth of a second, may be taken. */
extern int64 retry_bucket_full(const RetryPace *pace, int64 now_us);
extern int64 retry_bucket_fresh(const RetryPace *pace, int64 now_us);

/* Takes one request out; false, with nothing changed, when it has to wait. */
extern bool retry_bucket_take(const RetryPace *pace, int64 *bucket, int64 now_us);

/*
 * The same for several at once, which are taken together or not at all: 0 when
 * they are, else the microseconds until they could be, -1 when they are more
 * than the bucket ever holds.
 */
extern int64 retry_bucket_take_many(const RetryPace *pace, int64 *bucket, int64 n, int64 now_us);

/* How many could be taken now. */
extern int64 retry_bucket_left(const RetryPace *pace, int64 bucket, int64 now_us);

/* The first moment at which retry_bucket_take will succeed; now_us or before: now. */
extern int64 retry_bucket_when(int64 bucket);

/* Takes one request out for the first moment that is free, and returns that. */
extern int64 retry_bucket_reserve(const RetryPace *pace, int64 *bucket, int64 now_us);

/* Puts one request back that was taken or reserved, and is not made. */
extern void retry_bucket_give_back(const RetryPace *pace, int64 *bucket);

/*
 * The bucket of another rate that is as full as this one: what was sent
 * counts, what was reserved does not, and there is no new burst.
 */
extern int64 retry_bucket_convert(int64 bucket, const RetryPace *from, const RetryPace *to,
								  int64 now_us);

#endif							/* RETRY_RATE_H */
