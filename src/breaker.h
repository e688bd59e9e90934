/*
 * breaker.h
 *		Leaves alone what fails, and finds out when it works again.
 *
 * A breaker counts the calls of the last while.  When too many of them failed
 * it opens, and nothing may be sent; after a while single calls may find out,
 * and when they succeed it closes.  One for each lane, and one for each target
 * of a routed scene.
 *
 * A leaf: no allocation, no clock, nothing fails.  Moments are microseconds of
 * a clock that nobody sets, never negative.  One process, no locks.
 */
#ifndef RETRY_BREAKER_H
#define RETRY_BREAKER_H

/* The window is as many buckets; the oldest is forgotten as a whole. */
#define RETRY_BREAKER_BUCKETS	10

/* So many good probes in a row close it. */
#define RETRY_BREAKER_PROBES	2

/* It stays open no longer than this, or than the first time if that is longer. */
#define RETRY_BREAKER_OPEN_MAX_US	INT64CONST(60000000)

/* Those that are due at about the same moment probe together: one turn for all. */
#define RETRY_BREAKER_GRAIN_US	INT64CONST(20000)

/* After so long another probe may go, whatever became of the last. */
#define RETRY_BREAKER_PROBE_US	INT64CONST(60000000)

/* When a breaker opens, and for how long. */
typedef struct RetryBreakerRules
{
	double		ratio;			/* of failed calls to all; 0: it never opens */
	int32		min_calls;		/* not with fewer within the window */
	int64		window_us;
	int64		open_us;		/* the first time, and up to a quarter more;
								 * twice as long each time that a probe fails */
} RetryBreakerRules;

typedef enum RetryBreakerState
{
	RETRY_BREAKER_CLOSED,
	RETRY_BREAKER_OPEN,
	RETRY_BREAKER_HALF_OPEN
} RetryBreakerState;

/* What a call did to it.  A probe that fails is no news. */
typedef enum RetryBreakerNews
{
	RETRY_BREAKER_NO_NEWS,
	RETRY_BREAKER_HAS_OPENED,
	RETRY_BREAKER_HAS_CLOSED
} RetryBreakerNews;

typedef enum RetryBreakerEnd
{
	RETRY_BREAKER_WELL,
	RETRY_BREAKER_FAILED,
	RETRY_BREAKER_UNKNOWN		/* says nothing of the other side */
} RetryBreakerEnd;

/* All zero: closed, and nothing is known. */
typedef struct RetryBreaker
{
	uint8		state;			/* RetryBreakerState */
	uint8		good;			/* probes in a row */
	uint8		doublings;		/* of the time that it is open */
	bool		probing;		/* a call is finding out */
	int64		since_us;		/* the state is the one it is */
	int64		opened_us;		/* it is no longer closed; while it is not */
	int64		probe_us;		/* the last probe was sent */
	int64		bucket_us;		/* length of a bucket */
	int64		newest;			/* number of the newest bucket, from 0 */
	uint32		calls;			/* in the window; until it closes, those that
								 * opened it */
	uint32		failed;			/* of these */
	uint32		bucket_calls[RETRY_BREAKER_BUCKETS];
	uint32		bucket_failed[RETRY_BREAKER_BUCKETS];
} RetryBreaker;

/*
 * May a call be made?  When not, *until_us is the moment to ask again, sooner
 * if a call ends meanwhile.  Once its time is over, an open breaker is half
 * open from the first question on.
 */
extern bool retry_breaker_gate(RetryBreaker *breaker, const RetryBreakerRules *rules,
							   int64 now_us, int64 *until_us);

/* A call begins, as the gate allowed. */
extern void retry_breaker_started(RetryBreaker *breaker, int64 now_us);

/*
 * A call that began at started_us has ended.  One that began before the
 * breaker came to its state says what is older than what is known, and changes
 * nothing.
 */
extern RetryBreakerNews retry_breaker_ended(RetryBreaker *breaker, const RetryBreakerRules *rules,
											RetryBreakerEnd end, int64 started_us, int64 now_us);

/* Other rules are in force: without a ratio, it closes. */
extern RetryBreakerNews retry_breaker_follow(RetryBreaker *breaker, const RetryBreakerRules *rules,
											 int64 now_us);

/* Closes it and forgets what it knows. */
extern RetryBreakerNews retry_breaker_reset(RetryBreaker *breaker, int64 now_us);

/* What it is now, for people; one that waits to be asked counts as half open. */
extern RetryBreakerState retry_breaker_state(const RetryBreaker *breaker,
											 const RetryBreakerRules *rules, int64 now_us);

/* Its name: closed, open, half-open. */
extern const char *retry_breaker_word(RetryBreakerState state);

/* When an open breaker lets the first probe pass. */
extern int64 retry_breaker_until(const RetryBreaker *breaker, const RetryBreakerRules *rules);

/* Does it know nothing that a new one would not? */
extern bool retry_breaker_at_rest(const RetryBreaker *breaker, int64 now_us);

#endif							/* RETRY_BREAKER_H */
