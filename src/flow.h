/*
 * flow.h
 *		What a scene says of the flow through its lanes.
 *
 * How many requests at once, in what order and with what precedence, when a
 * lane that fails is left alone, and how many of its requests may be retries.
 *
 * A leaf: plain data.  Durations are microseconds.
 */
#ifndef RETRY_FLOW_H
#define RETRY_FLOW_H

#define RETRY_FLOW_WEIGHT_MAX	100

/* When a breaker opens, and for how long. */
typedef struct RetryBreakerRules
{
	double		ratio;			/* of failed calls to all; 0: it never opens */
	int32		min_calls;		/* not with fewer within the window */
	int64		window_us;
	int64		open_us;		/* the first time; see breaker_open */
} RetryBreakerRules;

typedef struct RetryFlowRules
{
	int32		max_in_flight;	/* of one lane; 0: retry.lane_max_in_flight */
	bool		ordered;
	bool		dead_head_blocks;	/* with ordered */
	bool		high;			/* served before all that are not */
	int32		weight;			/* 1..RETRY_FLOW_WEIGHT_MAX */
	bool		adaptive;
	bool		hedge;
	RetryBreakerRules breaker;
	double		retry_share;	/* of first attempts; < 0: no budget */
	int32		retry_floor;	/* retries a second that are always within it */
} RetryFlowRules;

#endif							/* RETRY_FLOW_H */
