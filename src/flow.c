/*
 * flow.c
 *		Whether a lane may send, and what it learns from what became of it.
 *
 * The one place where everything that may hold a lane back is put together, in
 * the order in which it is named to people.  The scheduler knows only this:
 * it asks for each side of a lane, tells of each start, and of each end.
 *
 * Each part decides for itself, and knows nothing of the others.  What is last
 * in the order is asked only when all before it agree, so that nothing is spent
 * or reserved in vain.
 */
#include "postgres.h"

#include "flow.h"

RetryGate
retry_flow_gate(RetryFlow *flow, bool retry, int64 now_us, int64 *until_us)
{
	*until_us = 0;
	if (flow == NULL)
		return RETRY_GATE_OPEN;
	if (!retry_breaker_gate(&flow->breaker, &flow->rules.breaker, now_us, until_us))
		return RETRY_GATE_BREAKER;
	if (now_us < flow->blocked_until_us)
	{
		*until_us = flow->blocked_until_us;
		return RETRY_GATE_BLOCKED;
	}
	if (!retry_throttle_gate(&flow->throttle, now_us, until_us))
		return RETRY_GATE_SLOWED;
	if (flow->rate.count > 0 && retry_bucket_when(flow->bucket) > now_us)
	{
		*until_us = retry_bucket_when(flow->bucket);
		return RETRY_GATE_RATE;
	}
	if (retry && flow->scene_id != 0 &&
		!retry_budget_gate(&flow->budget, flow->rules.retry_share, flow->rules.retry_floor,
						   now_us, until_us))
		return RETRY_GATE_BUDGET;
	*until_us = 0;
	return RETRY_GATE_OPEN;
}

/* Whatever starts counts, also what did not ask. */
static void
take_rate(RetryFlow *flow, int64 now_us)
{
	if (flow->rate.count > 0)
		(void) retry_bucket_reserve(&flow->pace, &flow->bucket, now_us);
}

void
retry_flow_started(RetryFlow *flow, bool retry, int64 now_us)
{
	if (flow == NULL)
		return;
	retry_breaker_started(&flow->breaker, now_us);
	retry_throttle_started(&flow->throttle, now_us);
	take_rate(flow, now_us);
	if (flow->scene_id == 0)
		return;
	if (retry)
		retry_budget_take(&flow->budget, flow->rules.retry_share, flow->rules.retry_floor, now_us);
	else
		retry_budget_first(&flow->budget, flow->rules.retry_share, flow->rules.retry_floor, now_us);
}

/* Before anything was counted: what is sent is what is under way, by its time. */
static double
guess_rate(const RetryFlowEnd *end)
{
	return (double) Max(end->in_flight, 1) / Max(end->latency_us, 1) * 1000000;
}

static void
settle_budget(RetryFlow *flow, const RetryFlowEnd *end, int64 now_us)
{
	if (flow->scene_id == 0)
		return;
	if (!end->retry && end->unsent)
		retry_budget_first_unsent(&flow->budget, flow->rules.retry_share,
								  flow->rules.retry_floor, now_us);
	else if (end->retry && (end->unsent || end->succeeded))
		retry_budget_give_back(&flow->budget, flow->rules.retry_share, flow->rules.retry_floor,
							   now_us);
}

RetryBreakerNews
retry_flow_ended(RetryFlow *flow, const RetryFlowEnd *end, int64 now_us)
{
	RetryBreakerEnd what = RETRY_BREAKER_UNKNOWN;

	if (flow == NULL)
		return RETRY_BREAKER_NO_NEWS;
	settle_budget(flow, end, now_us);
	if (end->unsent)
	{
		retry_throttle_unsent(&flow->throttle);
		if (flow->rate.count > 0)
			retry_bucket_give_back(&flow->pace, &flow->bucket);
	}
	else
	{
		if (end->retry_after_until_us > now_us)
			flow->blocked_until_us = Max(flow->blocked_until_us, end->retry_after_until_us);
		else if (end->slows && end->may_be_chance)
			retry_throttle_doubt(&flow->throttle, guess_rate(end), now_us);
		else if (end->slows)
			retry_throttle_cut(&flow->throttle, guess_rate(end), now_us);
		else if (end->kind == RETRY_FLOW_WELL)
			retry_throttle_grow(&flow->throttle, now_us);
		if (end->kind == RETRY_FLOW_WELL)
			what = RETRY_BREAKER_WELL;
		else if (end->kind == RETRY_FLOW_FAILED)
			what = RETRY_BREAKER_FAILED;
	}
	return retry_breaker_ended(&flow->breaker, &flow->rules.breaker, what, end->started_us, now_us);
}

RetryBreakerNews
retry_flow_follow(RetryFlow *flow, const RetryFlowRules *rules, int32 scene_id, int64 now_us)
{
	flow->rules = *rules;
	flow->scene_id = scene_id;
	return retry_breaker_follow(&flow->breaker, &rules->breaker, now_us);
}

void
retry_flow_set_rate(RetryFlow *flow, const RetryRate *rate, int64 now_us)
{
	RetryPace	pace;

	if (rate == NULL)
		flow->rate.count = 0;
	else if (!retry_rate_same(&flow->rate, rate))
	{
		retry_rate_pace(rate, &pace);
		flow->bucket = flow->rate.count == 0 ? retry_bucket_full(&pace, now_us) :
			retry_bucket_convert(flow->bucket, &flow->pace, &pace, now_us);
		flow->pace = pace;
		flow->rate = *rate;
	}
}

bool
retry_flow_spend(RetryFlow *flow, int64 now_us)
{
	int64		until_us;
	bool		budgeted = flow != NULL && flow->scene_id != 0;

	if (budgeted && !retry_budget_gate(&flow->budget, flow->rules.retry_share,
									   flow->rules.retry_floor, now_us, &until_us))
		return false;
	if (flow != NULL && flow->rate.count > 0 &&
		!retry_bucket_take(&flow->pace, &flow->bucket, now_us))
		return false;
	if (budgeted)
		retry_budget_take(&flow->budget, flow->rules.retry_share, flow->rules.retry_floor, now_us);
	return true;
}

RetryBreakerNews
retry_flow_reset(RetryFlow *flow, int64 now_us)
{
	if (flow == NULL)
		return RETRY_BREAKER_NO_NEWS;
	flow->blocked_until_us = 0;
	memset(&flow->budget, 0, sizeof(flow->budget));
	memset(&flow->throttle, 0, sizeof(flow->throttle));
	return retry_breaker_reset(&flow->breaker, now_us);
}

bool
retry_flow_remembers(const RetryFlowEnd *end)
{
	return !end->unsent &&
		(end->kind == RETRY_FLOW_FAILED || end->slows || end->retry_after_until_us > 0);
}

bool
retry_flow_at_rest(RetryFlow *flow, int64 now_us)
{
	return flow == NULL ||
		(now_us >= flow->blocked_until_us &&
		 retry_throttle_at_rest(&flow->throttle) &&
		 (flow->rate.count == 0 || flow->bucket <= retry_bucket_full(&flow->pace, now_us)) &&
		 retry_breaker_at_rest(&flow->breaker, now_us) &&
		 retry_budget_at_rest(&flow->budget, flow->rules.retry_share, flow->rules.retry_floor,
							  now_us));
}
