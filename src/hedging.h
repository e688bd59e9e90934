/*
 * hedging.h
 *		When a request is worth sending a second time, and which answer counts.
 *
 * An endpoint that answers most requests at once and a few very late is quicker
 * when the few are asked again: the second is almost always one of the many.
 * That costs little only if few are asked again, so it begins where hardly any
 * answer is still to be expected, and not before that is known.
 *
 * A leaf: no clock, no memory, no errors.  Durations are microseconds.
 */
#ifndef RETRY_HEDGING_H
#define RETRY_HEDGING_H

#include "histogram.h"

/* What one of the two transfers came to. */
typedef struct RetryHedgeEnd
{
	bool		complete;		/* a whole answer came */
	int			http_status;	/* 0: none came */
} RetryHedgeEnd;

/*
 * How long after its start an attempt is to be sent a second time, given what
 * successful ones took lately; -1: not at all, since too little is known, or it
 * will have timed out by then.
 */
extern int64 retry_hedging_after(const RetryHistogram *successes, int64 timeout_us);

/*
 * May this be the answer while the other transfer is still under way?  Not what
 * the endpoint would not have said if it had been well: the other one may
 * still do better.
 */
extern bool retry_hedging_settles(const RetryHedgeEnd *end);

/* Both have ended, and neither settled it: is the second to end the better one? */
extern bool retry_hedging_later_counts(const RetryHedgeEnd *earlier, const RetryHedgeEnd *later);

#endif							/* RETRY_HEDGING_H */
