/*
 * ratelimit_header.h
 *		What an answer's headers say of how many requests are still welcome.
 *
 * There are three families of such headers, none of them a standard yet:
 * RateLimit-Remaining and RateLimit-Reset (older drafts), RateLimit as a
 * structured field (newer ones), and the X- headers that came before all of
 * them.  They are read here into the one thing that a sender wants to know: for
 * how long to send nothing more.
 *
 * A leaf: the time is an argument, nothing is allocated, nothing fails, and
 * what is malformed counts as absent.
 */
#ifndef RETRY_RATELIMIT_HEADER_H
#define RETRY_RATELIMIT_HEADER_H

#include "httpdate.h"

/* The headers with one value each, with and without X-. */
typedef struct RetryRateLimitPair
{
	bool		used_up;		/* remaining is 0 */
	bool		has_remaining;
	bool		has_after;		/* reset comes from a header that is always a
								 * duration */
	RetryRetryAfter reset;		/* value in microseconds, not seconds */
} RetryRateLimitPair;

/* All of one answer; all zero: nothing said. */
typedef struct RetryRateLimit
{
	RetryRateLimitPair plain;
	RetryRateLimitPair x;
	int64		structured_us;	/* of the RateLimit field: to the latest reset
								 * of a limit that is used up; 0: none */
} RetryRateLimit;

/*
 * Takes note of one header field of an answer; the value need not be
 * terminated.  False when the field is none of these; true also for one that is
 * of no use here (a limit, a policy, nonsense).  now_unix, seconds since 1970,
 * is for dates with two digits for the year.  Of a header that comes twice the
 * first that can be read counts, of RateLimit all.
 */
extern bool retry_ratelimit_field(RetryRateLimit *limit, const char *name, size_t name_len,
								  const char *value, size_t len, int64 now_unix);

/*
 * For how long nothing more should be sent, in microseconds from now_unix_us
 * (microseconds since 1970), at most cap_us; 0: go on.
 */
extern int64 retry_ratelimit_wait_us(const RetryRateLimit *limit, int64 now_unix_us, int64 cap_us);

#endif							/* RETRY_RATELIMIT_HEADER_H */
