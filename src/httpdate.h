/*
 * httpdate.h
 *	  The value of a Retry-After header (RFC 9110, 10.2.3): a number of seconds
 *	  or a date in one of the three forms that HTTP has used.
 *
 * libcurl's own reading of it says 0 for "absent" and caps what it reads, so
 * the header is parsed here.  A leaf: the time is an argument, nothing is
 * allocated, and a malformed value simply counts as absent: a receiver that
 * writes nonsense must not stop the retries.
 */
#ifndef RETRY_HTTPDATE_H
#define RETRY_HTTPDATE_H

typedef enum RetryRetryAfterKind
{
	RETRY_AFTER_NONE = 0,		/* absent or malformed */
	RETRY_AFTER_SECONDS,		/* value: seconds from the answer, >= 0 */
	RETRY_AFTER_DATE			/* value: seconds since 1970-01-01 00:00 UTC */
} RetryRetryAfterKind;

typedef struct RetryRetryAfter
{
	RetryRetryAfterKind kind;
	int64		value;
} RetryRetryAfter;

#define RETRY_AFTER_CAP_US	INT64CONST(86400000000) /* 24 h */

/*
 * Parses a header value of len bytes (need not be terminated; blanks around it
 * are ignored).  now_unix, seconds since 1970, decides the century of an
 * RFC 850 date.  Never fails: RETRY_AFTER_NONE when malformed.
 */
extern RetryRetryAfter retry_after_parse(const char *value, size_t len,
										 int64 now_unix);

/*
 * How long to wait from now_unix_us (microseconds since 1970), in
 * microseconds: 0 for a moment that is past, at most cap_us.  -1 when kind is
 * RETRY_AFTER_NONE.
 */
extern int64 retry_after_delay_us(const RetryRetryAfter *after,
								  int64 now_unix_us, int64 cap_us);

/*
 * Parses one HTTP-date of len bytes (IMF-fixdate, RFC 850 or asctime), to
 * seconds since 1970.  False when it is none, or names an impossible moment.
 */
extern bool retry_httpdate_parse(const char *text, size_t len, int64 now_unix,
								 int64 *unix_time);

#endif							/* RETRY_HTTPDATE_H */
