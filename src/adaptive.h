/*
 * adaptive.h
 *		How many requests at once an endpoint can take, found from how it answers.
 *
 * An endpoint that is sent more than it can work on queues the rest: every
 * request takes longer and nothing is done sooner.  So the limit grows while
 * latency stays what it is without a queue, and gives way when it rises, when
 * requests begin to fail, or when the endpoint asks for less.
 *
 * A leaf: plain data, no clock.  Moments and durations are microseconds of a
 * monotonic clock.
 */
#ifndef RETRY_ADAPTIVE_H
#define RETRY_ADAPTIVE_H

#include "flow.h"

/* One lane's search.  All zero: nothing is known yet. */
typedef struct RetryAdaptive
{
	double		limit;			/* 0: not begun; its whole part is in force */

	/* the window: answers to what was sent since the limit last changed */
	int64		window_start;
	int32		answers;		/* in all */
	int32		timed;			/* whose latency counts */
	int32		failed;
	int32		throttled;
	int32		used;			/* that ended while the limit was reached: of
								 * many that end together, only the first sees
								 * that */
	int32		peak;			/* most at once */
	double		sum;			/* of the binary logarithms of latencies */
	double		squares;

	/* what latency is without a queue: the least of this epoch and the last */
	int64		epoch_start;
	int32		epoch_windows;
	double		least[2];		/* binary logarithms; 0 unknown */
	double		usual_failures; /* a share that does not depend on the load */

	/* the last window gave way: did it help? */
	double		before;			/* what was too high: latency's logarithm, or
								 * a share */
	double		from;			/* the limit before */
	double		from_first;		/* and before the first of those in vain */
	int16		in_vain;
	int16		streak;			/* windows in a row that let it grow */
	uint8		cause;			/* see adaptive.c */
	bool		found;			/* it has given way before: no more doubling */
	bool		gave_way;		/* in this epoch */
} RetryAdaptive;

/*
 * An attempt has ended.  "in_flight" counts it as well, "max" is what the limit
 * may never exceed (at least 1).  What ended neutrally says nothing.
 */
extern void retry_adaptive_ended(RetryAdaptive *a, RetryFlowKind kind, int64 latency_us,
								 int32 in_flight, int32 max, int64 now_us);

/* The limit in force, between 1 and max. */
extern int32 retry_adaptive_limit(const RetryAdaptive *a, int32 max);

#endif							/* RETRY_ADAPTIVE_H */
