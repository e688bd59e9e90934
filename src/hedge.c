/*
 * hedge.c
 *		The second transfer of an attempt that lasts long.
 *
 * The client sends the very bytes of the first transfer again, so the second is
 * the same attempt to whoever receives it; only in a scene with several targets
 * does it go to another one.  It takes a place of its own in the lane and the
 * dispatcher and a retry of the lane's budget; where one of them is missing, the
 * attempt goes on alone, as it would without hedging.
 *
 * An end that settles the attempt ends it, and the other transfer is aborted.
 * Any other end (no answer, a 5xx, a 429) is kept while the other is under way.
 * To the lane, its breaker and its latencies this is one call; to the targets,
 * each is told of the transfer it had, if that was not aborted.
 */
#include "postgres.h"

#include "govern.h"
#include "guc.h"
#include "hedge.h"
#include "hedging.h"

/* The moment of an attempt in the heap. */
static inline RetrySending *
sending_of(pairingheap_node *node)
{
	return pairingheap_container(RetrySending, hedge.node, node);
}

static int
compare_moments(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	int64		at_a = pairingheap_const_container(RetrySending, hedge.node, a)->hedge.at_us;
	int64		at_b = pairingheap_const_container(RetrySending, hedge.node, b)->hedge.at_us;

	/* the greatest is first */
	return at_a < at_b ? 1 : at_a > at_b ? -1 : 0;
}

static void
disarm(RetrySender *s, RetrySending *t)
{
	if (t->hedge.armed)
		pairingheap_remove(s->hedges, &t->hedge.node);
	t->hedge.armed = false;
}

void
retry_hedge_arm(RetryDispatcher *d, RetrySending *t)
{
	RetrySender *s = d->sender;
	RetryScene *scene = retry_config_scene(d->config, t->ended.scene_id);
	int64		after;

	t->flights[0].up = true;
	if (scene == NULL || !scene->flow.hedge || scene->mail != NULL)
		return;
	t->ended.hedged = RETRY_HEDGED_NO;
	t->flights[0].started_us = retry_monotonic_us();
	after = retry_hedging_after(t->lane->gauge != NULL ? &t->lane->gauge->successes : NULL,
								(int64) t->prepared.http.timeout_ms * 1000);

	/* what finds out whether a target works again is left to find out */
	if (after < 0 || t->target.probe || t->target.trial)
		return;
	if (s->hedges == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(d->context);

		s->hedges = pairingheap_allocate(compare_moments, NULL);
		MemoryContextSwitchTo(old);
	}
	t->hedge.at_us = t->flights[0].started_us + after;
	t->hedge.armed = true;
	pairingheap_add(s->hedges, &t->hedge.node);
}

/* Another target may be one that the group may not call. */
static bool
may_go(const RetryScene *scene, const RetryTargetUse *target)
{
	const char *url = retry_target_use_url(target);

	return url == NULL || retry_destination_refusal(&scene->to, url) == NULL;
}

static void
start_second(RetryDispatcher *d, RetrySending *t, int64 now_us)
{
	RetryFlight *second = &t->flights[1];
	RetryScene *scene = retry_config_scene(d->config, t->ended.scene_id);
	int64		left_ms = t->prepared.http.timeout_ms - (now_us - t->flights[0].started_us) / 1000;
	char		error[RETRY_HTTP_ERROR_TEXT];

	if (!retry_enabled || left_ms <= 0 || scene == NULL || !scene->flow.hedge ||
		!retry_govern_hedge(d, t, scene, now_us))
		return;
	if (scene->ntargets > 1)
		retry_target_use_other(d->targets, scene, &t->target, now_us, &t->hedge.target);
	second->sending = t;
	second->second = true;
	second->started_us = now_us;
	second->up = may_go(scene, &t->hedge.target) &&
		retry_http_repeat(d->http, &t->flights[0], retry_target_use_url(&t->hedge.target),
						  (int32) left_ms, second, error, sizeof(error));
	if (second->up)
		t->ended.hedged = RETRY_HEDGED_YES;
	else
	{
		retry_target_use_release(&t->hedge.target);
		retry_govern_unhedged(d, t, scene);
	}
}

void
retry_hedge_start(RetryDispatcher *d)
{
	RetrySender *s = d->sender;
	int64		now_us;

	if (s->hedges == NULL || pairingheap_is_empty(s->hedges))
		return;
	now_us = retry_monotonic_us();
	while (!pairingheap_is_empty(s->hedges))
	{
		RetrySending *t = sending_of(pairingheap_first(s->hedges));

		if (t->hedge.at_us > now_us)
			return;
		disarm(s, t);
		start_second(d, t, now_us);
	}
}

long
retry_hedge_timeout_ms(const RetryDispatcher *d)
{
	pairingheap *hedges = d->sender->hedges;
	int64		left_us;

	if (hedges == NULL || pairingheap_is_empty(hedges))
		return -1;
	left_us = sending_of(pairingheap_first(hedges))->hedge.at_us - retry_monotonic_us();
	return left_us <= 0 ? 0 : (long) ((left_us + 999) / 1000);
}

static RetryHedgeEnd
end_of(const RetryHttpResult *result)
{
	RetryHedgeEnd end = {
		.complete = result->error == RETRY_HTTP_OK,
		.http_status = result->http_status
	};

	return end;
}

/* The other transfer does not count: its place is free, and nobody awaits its end. */
static void
abort_other(RetryDispatcher *d, RetryFlight *other)
{
	/* false: it has just ended too, and comes with the next result */
	if (retry_http_cancel(d->http, other))
		other->up = false;
	retry_lane_more_ended(d->lanes, other->sending->lane);
}

/* Both have ended, and neither settled it: the better one counts. */
static void
choose_result(RetryDispatcher *d, RetrySending *t, const RetryHttpResult **result, bool *second)
{
	RetryHedge *hedge = &t->hedge;
	RetryHedgeEnd earlier = end_of(hedge->kept);
	RetryHedgeEnd later = end_of(*result);
	const RetryHttpResult *loser = hedge->kept;
	RetryAnswer answer;

	if (!retry_hedging_later_counts(&earlier, &later))
	{
		loser = *result;
		*result = hedge->kept;
		*second = hedge->kept_second;
	}
	hedge->kept = NULL;

	/* one target would be told twice of one call */
	if (hedge->target.target != NULL)
	{
		retry_answer_of_http(loser, &answer);
		retry_govern_answered_in_vain(d, t, *second ? &t->target : &hedge->target, &answer);
	}
	retry_http_release(d->http, loser);
}

/* The attempt has ended, by the first or the second of its transfers. */
static void
conclude(RetrySending *t, bool second)
{
	RetryHedge *hedge = &t->hedge;

	if (second && hedge->target.target != NULL)
	{
		RetryTargetUse use = t->target;

		t->target = hedge->target;
		hedge->target = use;
		t->ended.target = retry_target_use_url(&t->target);
	}
	retry_target_use_release(&hedge->target);
	if (second)
		hedge->late_us = t->flights[1].started_us - t->flights[0].started_us;
}

bool
retry_hedge_landed(RetryDispatcher *d, RetryFlight *flight, const RetryHttpResult **result)
{
	RetrySending *t = flight->sending;
	RetryHedge *hedge = &t->hedge;
	RetryFlight *other = &t->flights[!flight->second];
	bool		second = flight->second;
	RetryHedgeEnd end = end_of(*result);

	flight->up = false;
	if (hedge->over)
	{
		retry_http_release(d->http, *result);
		return false;
	}
	disarm(d->sender, t);
	if (other->up && !retry_hedging_settles(&end))
	{
		hedge->kept = *result;
		hedge->kept_second = second;
		retry_lane_more_ended(d->lanes, t->lane);
		return false;
	}

	hedge->over = true;
	if (other->up)
		abort_other(d, other);
	else if (hedge->kept != NULL)
		choose_result(d, t, result, &second);
	conclude(t, second);
	return true;
}
