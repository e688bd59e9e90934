/*
 * lane_stats.h
 *		What a dispatcher shows of its lanes, for retry.lanes.
 *
 * Each lane in memory has an entry in a table that any session can read
 * without stopping the dispatcher.  What is counted is counted in the entry;
 * the rest is copied into it when the turn in which it changed is over, which
 * is all that it costs.
 */
#ifndef RETRY_LANE_STATS_H
#define RETRY_LANE_STATS_H

#include "backlog.h"
#include "flow.h"
#include "histogram.h"
#include "shown.h"
#include "task.h"

#define RETRY_SHOWN_NAME	128 /* longest name that is shown, with its zero */
#define RETRY_SHOWN_ERROR	96
#define RETRY_SHOWN_SCENES	4	/* of a lane: what more there are is not shown */

struct RetryDispatcher;
struct RetryAnswer;
struct RetryEnded;
struct RetryLane;

/* Why attempts fail, as retry.lanes counts them. */
typedef enum RetryFailure
{
	RETRY_FAILURE_NETWORK,
	RETRY_FAILURE_TIMEOUT,
	RETRY_FAILURE_5XX,
	RETRY_FAILURE_4XX,
	RETRY_FAILURE_THROTTLED,	/* 429, or 503 with a Retry-After */
	RETRY_FAILURE_OTHER,		/* not sent, functions, answers that break a
								 * rule */
	RETRY_FAILURES
} RetryFailure;

/* One lane.  Moments that end in _us are of retry_monotonic_us(). */
typedef struct RetryLaneShown
{
	RetryShownHead head;
	uint8		gate[RETRY_SIDES];	/* RetryGate */
	uint8		blocked_why;	/* RetryGate; open: it is not */
	uint8		breaker;		/* RetryBreakerState */
	bool		paused;
	bool		disabled;
	bool		overridden;
	bool		stopped;		/* it is being handed to another dispatcher */
	bool		high;
	bool		ordered;		/* what is behind its head counts as due */
	int16		weight;
	int16		last_status;	/* of the last answer; 0: none */
	int32		group_id;		/* 0: not known yet */
	int32		in_flight;
	int32		queued;
	int32		limit;			/* in force */
	int32		max_in_flight;	/* as it is configured */
	int64		hash;
	int64		gate_until_us[RETRY_SIDES];
	int64		blocked_until_us;	/* what stands behind blocked_why, or a
									 * Retry-After */
	int64		breaker_since_us;
	int64		breaker_until_us;
	TimestampTz next_due[RETRY_SIDES];	/* of what is not read; DT_NOEND: none */
	TimestampTz oldest_queued;	/* DT_NOEND: nothing is queued */
	RetryBacklog backlog[RETRY_SIDES];
	double		slowed_to;		/* requests a second; 0: it is not slowed */

	/* from here on, counted as it happens */
	int64		attempts;
	int64		failures[RETRY_FAILURES];
	TimestampTz last_at;		/* end of the last attempt; 0: none yet */
	double		rate;			/* sent a second, as of: */
	int64		rate_us;
	RetryHistogram latency;
	int32		scenes[RETRY_SHOWN_SCENES]; /* whose tasks it has had; 0: free */
	char		last_error[RETRY_SHOWN_ERROR];	/* "": none yet */
	char		name[RETRY_SHOWN_NAME];
} RetryLaneShown;

/* The rate forgets by a factor of e in so many seconds. */
#define RETRY_SHOWN_RATE_S	5.0

/* To be called once, when there is a worker and lanes. */
extern void retry_lane_stats_create(struct RetryDispatcher *d);

/*
 * Shows what has changed, once in a while: how often lanes change must not
 * matter.  To be called at each turn, outside a transaction.  No errors.
 */
extern void retry_lane_stats_publish(struct RetryDispatcher *d);

/* The lane has tasks of this scene. */
extern void retry_lane_stats_scene(struct RetryLane *lane, int32 scene_id);

/* A request of the lane is sent. */
extern void retry_lane_stats_sent(struct RetryLane *lane, int64 now_us);

/*
 * An attempt has ended, with a verdict; "answer" is what came of the exchange,
 * NULL when nothing was sent.
 */
extern void retry_lane_stats_ended(struct RetryLane *lane, const struct RetryEnded *ended,
								   const struct RetryAnswer *answer);

#endif							/* RETRY_LANE_STATS_H */
