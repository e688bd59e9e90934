/*
 * gauge.h
 *		What a lane measures of its endpoint: latencies, and what it can take.
 *
 * Only lanes whose scene hedges or adapts need this, so it hangs from the lane
 * and is made when it is first wanted.  Told of each end that the lane's flow
 * is told of.
 *
 * A leaf: plain data, no clock.
 */
#ifndef RETRY_GAUGE_H
#define RETRY_GAUGE_H

#include "adaptive.h"
#include "flow.h"
#include "histogram.h"

/* All zero: nothing is known yet. */
typedef struct RetryGauge
{
	RetryHistogram successes;	/* how long they took */
	RetryAdaptive adaptive;
} RetryGauge;

/* An attempt has ended; "max" is the most that the lane may ever have in flight. */
static inline void
retry_gauge_ended(RetryGauge *gauge, const RetryFlowEnd *end, int32 max, int64 now_us)
{
	if (end->unsent)
		return;
	if (end->succeeded)
		retry_histogram_add(&gauge->successes, end->latency_us, now_us);
	retry_adaptive_ended(&gauge->adaptive, end->slows ? RETRY_FLOW_THROTTLED : end->measured,
						 end->latency_us, end->in_flight, max, now_us);
}

#endif							/* RETRY_GAUGE_H */
