/*
 * flow.h
 *		What a scene says of the flow through its lanes, and what a lane knows.
 *
 * How many requests at once, in what order and with what precedence, when a
 * lane that fails is left alone, and how many of its requests may be retries.
 * The scheduler asks before it sends an entry, and tells what became of it.
 *
 * A leaf: plain data, no clock.  Durations are microseconds; moments are
 * microseconds of a clock that nobody sets (0 is long ago), so that a moved
 * clock neither opens nor closes anything.
 */
#ifndef RETRY_FLOW_H
#define RETRY_FLOW_H

#include "breaker.h"
#include "budget.h"
#include "rate.h"
#include "throttle.h"

#define RETRY_FLOW_WEIGHT_MAX	100

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

/* May a lane send now, and if not, why?  The first that closes it is named. */
typedef enum RetryGate
{
	RETRY_GATE_OPEN,
	RETRY_GATE_PAUSED,			/* by an administrator */
	RETRY_GATE_DISABLED,
	RETRY_GATE_BREAKER,			/* too much of it failed */
	RETRY_GATE_BLOCKED,			/* Retry-After */
	RETRY_GATE_SLOWED,			/* after a 429 or 503 */
	RETRY_GATE_RATE,			/* of the lane */
	RETRY_GATE_SCENE_RATE,
	RETRY_GATE_BUDGET,			/* retries only */
	RETRY_GATE_TARGETS,			/* no target works */
	RETRY_GATE_ORDER			/* its head is not due */
} RetryGate;

/* How an attempt ended, to the lane. */
typedef enum RetryFlowKind
{
	RETRY_FLOW_WELL,			/* answered: also 404, or a stop */
	RETRY_FLOW_FAILED,			/* the endpoint's fault */
	RETRY_FLOW_THROTTLED,		/* it works, and asks for less: 429 */
	RETRY_FLOW_NEUTRAL			/* says nothing of the endpoint */
} RetryFlowKind;

typedef struct RetryFlowEnd
{
	RetryFlowKind kind;
	RetryFlowKind measured;		/* the same, also where it is one target's
								 * affair, which opens no breaker of the lane */
	bool		retry;			/* as it was started */
	bool		unsent;			/* it was given back: what it took, it returns */
	bool		succeeded;		/* the task has, or is still being worked at */
	bool		slows;			/* it asks for less: 429, 503 */
	bool		may_be_chance;	/* with slows: or an accident of this one: 503 */
	int32		in_flight;		/* of the lane, this one included */
	int64		started_us;		/* the moment given to retry_flow_started */
	int64		latency_us;
	int64		retry_after_until_us;	/* a moment; 0: none was given */
} RetryFlowEnd;

/*
 * The state of one lane.  A lane that never had anything to remember has none:
 * NULL stands for a flow at rest, wherever one is passed.  All zero is one at
 * rest too, without rules.
 */
typedef struct RetryFlow
{
	RetryFlowRules rules;		/* in force; see retry_flow_follow */
	int32		scene_id;		/* whose they are; 0: none yet, nothing holds */
	int64		blocked_until_us;	/* as the endpoint asked; past: no longer */
	RetryBreaker breaker;
	RetryBudget budget;
	RetryThrottle throttle;
	RetryRate	rate;			/* of the lane alone; count 0: none */
	RetryPace	pace;			/* and what it makes of the bucket */
	int64		bucket;
} RetryFlow;

/*
 * May the lane send an entry now, a retry or a first attempt?  When not,
 * "until_us" is the moment to ask again; PG_INT64_MAX: when something ends or
 * changes.  Asking changes nothing that a second question would see, but for a
 * place reserved in a rate that is shared.
 */
extern RetryGate retry_flow_gate(RetryFlow *flow, bool retry, int64 now_us, int64 *until_us);

/* An entry is taken to be sent; told at once, before the gate is asked again. */
extern void retry_flow_started(RetryFlow *flow, bool retry, int64 now_us);

/*
 * It has ended, or was given back; once for each that was started.  Says
 * whether the breaker has opened or closed.
 */
extern RetryBreakerNews retry_flow_ended(RetryFlow *flow, const RetryFlowEnd *end, int64 now_us);

/* These rules are in force from now on; says whether that closed the breaker. */
extern RetryBreakerNews retry_flow_follow(RetryFlow *flow, const RetryFlowRules *rules,
										  int32 scene_id, int64 now_us);

/*
 * The lane has a rate of its own from now on, or with NULL none; what it has
 * sent by another counts.  A lane's first rate begins with a whole burst.
 */
extern void retry_flow_set_rate(RetryFlow *flow, const RetryRate *rate, int64 now_us);

/*
 * Takes a retry out of the budget for a second transfer of an attempt that is
 * under way; false when there is none left.
 */
extern bool retry_flow_spend(RetryFlow *flow, int64 now_us);

/* Forgets failures and what the endpoint asked for; the rules stay. */
extern RetryBreakerNews retry_flow_reset(RetryFlow *flow, int64 now_us);

/* Does an attempt that ends so leave something to remember in a flow at rest? */
extern bool retry_flow_remembers(const RetryFlowEnd *end);

/* Could it be done without until something happens that is to be remembered? */
extern bool retry_flow_at_rest(RetryFlow *flow, int64 now_us);

#endif							/* RETRY_FLOW_H */
