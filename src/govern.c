/*
 * govern.c
 *		What the lanes of a dispatcher learn from their attempts.
 *
 * A lane gets a flow when it has something to remember: a failure, an answer
 * that asks for less, or a retry that is within a budget.  Lanes that work get
 * none, however many there are; a budget that was never drawn from is full, and
 * a breaker that has not seen a failure is closed, so nothing is lost by that.
 *
 * What happens to a target of a routed scene is the target's affair: another
 * one is at hand, so it neither opens the breaker of the lane nor slows it.
 */
#include "postgres.h"

#include <math.h>

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "event.h"
#include "govern.h"
#include "scene_rate.h"
#include "sqltarget.h"
#include "url.h"

static inline bool
is_retry(const RetrySending *t)
{
	return t->ended.entry.side == RETRY_SIDE_RETRY;
}

/* The lane's name as people see it: what its task says, else the URL's origin. */
static void
name_lane(RetryDispatcher *d, RetryLane *lane, TupleTableSlot *slot, const char *url)
{
	char		err[RETRY_ROUTE_ERROR];
	RetryUrl	parsed;
	const char *name = url;

	if (!slot->tts_isnull[Task_lane])
		name = TextDatumGetCString(slot->tts_values[Task_lane]);
	else if (url != NULL && retry_url_check(url, &parsed, err, sizeof(err)))
		name = parsed.origin;
	if (name != NULL)
		lane->name = MemoryContextStrdup(d->context, name);
}

static void
add_event(RetryDispatcher *d, RetryEventKind kind, const RetryScene *scene, const RetryLane *lane,
		  const char *target, const char *detail)
{
	RetryEvent	event = {
		.kind = kind,.group_id = scene->group_id,.scene_id = scene->id,
		.target = target,.detail = detail
	};

	if (lane != NULL)
	{
		event.lane_hash = lane->hash;
		event.lane = lane->name;
	}
	retry_event_add(d, &event);
}

static void
breaker_opened(RetryDispatcher *d, const RetryScene *scene, const RetryLane *lane,
			   const char *target, uint32 calls, uint32 failed)
{
	char		detail[64];

	snprintf(detail, sizeof(detail), "%u of %u calls failed", failed, calls);
	add_event(d, RETRY_EVENT_BREAKER_OPENED, scene, lane, target, detail);
}

static void
breaker_closed(RetryDispatcher *d, const RetryScene *scene, const RetryLane *lane,
			   const char *target, const char *why)
{
	add_event(d, RETRY_EVENT_BREAKER_CLOSED, scene, lane, target, why);
}

/* The rules of the scene are in force in the lane, but for what an override says. */
static void
follow(RetryDispatcher *d, RetryLane *lane, const RetryScene *scene, int64 now_us)
{
	RetryFlowRules mixed;
	const RetryFlowRules *rules = retry_override_rules(d->overrides, lane->hash, &scene->flow, &mixed);

	if (retry_flow_follow(lane->flow, rules, scene->id, now_us) == RETRY_BREAKER_HAS_CLOSED)
		breaker_closed(d, scene, lane, NULL, "the scene has no breaker_ratio any more");
}

/* Its flow, made with the scene's rules if it had none. */
static void
make_flow(RetryDispatcher *d, RetryLane *lane, const RetryScene *scene, int64 now_us)
{
	(void) retry_lane_flow(d->lanes, lane);
	follow(d, lane, scene, now_us);
}

void
retry_govern_prepared(RetryTurn *turn, RetrySending *t, const RetryScene *scene,
					  TupleTableSlot *slot)
{
	RetryDispatcher *d = turn->d;
	RetryLane  *lane = t->lane;
	RetryFlowRules mixed;
	const RetryFlowRules *rules = retry_override_rules(d->overrides, lane->hash, &scene->flow, &mixed);

	lane->group_id = scene->group_id;
	if (lane->name == NULL)
		name_lane(d, lane, slot, t->prepared.http.url);
	retry_lane_set_rules(d->lanes, lane, rules);
	if (lane->flow != NULL)
		follow(d, lane, scene, turn->now_us);
	else if (is_retry(t) && rules->retry_share >= 0)
	{
		make_flow(d, lane, scene, turn->now_us);
		retry_flow_started(lane->flow, true, t->taken_us);
	}
}

/* What is news of a target. */
static void
note_target(RetryDispatcher *d, const RetryLane *lane, const RetryTargetUse *use,
			const RetryScene *scene, int news)
{
	const char *url = retry_target_use_url(use);
	uint32		calls;
	uint32		failed;

	retry_target_use_counts(use, &calls, &failed);
	if (news & RETRY_TARGET_OUT)
		add_event(d, RETRY_EVENT_TARGET_OUT, scene, lane, url, NULL);
	if (news & RETRY_TARGET_BACK)
		add_event(d, RETRY_EVENT_TARGET_BACK, scene, lane, url, NULL);
	if (news & RETRY_TARGET_OPENED)
		breaker_opened(d, scene, lane, url, calls, failed);
	if (news & RETRY_TARGET_CLOSED)
		breaker_closed(d, scene, lane, url, "its probes succeeded");
}

/* A request has ended at the target that was chosen for it. */
static void
tell_target(RetryDispatcher *d, RetrySending *t, RetryTargetUse *use, const RetryAnswer *answer,
			RetryOutcome outcome)
{
	const RetryScene *scene = retry_config_scene(d->config, t->ended.scene_id);
	int64		now_us = retry_monotonic_us();
	int64		pause_us = retry_answer_pause_us(answer, GetCurrentTimestamp());
	int			news = retry_target_use_done(use, answer, outcome,
											 scene != NULL ? &scene->flow.breaker : NULL, now_us);

	/* it speaks for itself, not for the others that the lane goes to */
	if (pause_us > 0)
		retry_target_use_rest(use, now_us + pause_us);
	if (news != 0 && scene != NULL)
		note_target(d, t->lane, use, scene, news);
	if (use->probe || use->trial)
		retry_lane_unblock(d->lanes, t->lane);
}

void
retry_govern_answered(RetryDispatcher *d, RetrySending *t, const RetryAnswer *answer)
{
	RetryOutcome outcome = t->ended.verdict.outcome;
	RetryFlowEnd *end = &t->flow;
	int64		pause_us = retry_answer_pause_us(answer, t->ended.finished_at);

	end->kind = end->measured = retry_judge_endpoint(answer, outcome);
	end->succeeded = outcome == RETRY_SUCCEEDED || outcome == RETRY_PROCESSING;
	if (!t->target.in_flight)
	{
		end->slows = answer->exchange == RETRY_EXCHANGE_ANSWERED &&
			(answer->http_status == 429 || answer->http_status == 503);
		end->may_be_chance = answer->http_status == 503;
		if (pause_us > 0)
			end->retry_after_until_us = retry_monotonic_us() + pause_us;
		return;
	}

	tell_target(d, t, &t->target, answer, outcome);
	end->kind = RETRY_FLOW_NEUTRAL;
}

void
retry_govern_answered_in_vain(RetryDispatcher *d, RetrySending *t, RetryTargetUse *use,
							  const RetryAnswer *answer)
{
	if (use->in_flight)
		tell_target(d, t, use, answer, RETRY_ERROR);
}

bool
retry_govern_hedge(RetryDispatcher *d, RetrySending *t, const RetryScene *scene, int64 now_us)
{
	int64		until_us;

	if (t->lane->flow == NULL && scene->flow.retry_share >= 0)
		make_flow(d, t->lane, scene, now_us);
	if (retry_flow_gate(t->lane->flow, true, now_us, &until_us) != RETRY_GATE_OPEN ||
		!retry_lane_take_more(d->lanes, t->lane))
		return false;
	if (retry_scene_rate_spare(d, scene, now_us))
	{
		if (retry_flow_spend(t->lane->flow, now_us))
			return true;
		retry_govern_unhedged(d, t, scene);
	}
	else
		retry_lane_more_ended(d->lanes, t->lane);
	return false;
}

void
retry_govern_unhedged(RetryDispatcher *d, RetrySending *t, const RetryScene *scene)
{
	if (scene->rate.count > 0)
		retry_scene_rate_unsent(d, scene->id);
	retry_lane_more_ended(d->lanes, t->lane);
}

void
retry_govern_returned(RetrySending *t)
{
	t->flow.kind = t->flow.measured = RETRY_FLOW_WELL;
	t->flow.succeeded = t->ended.verdict.terminal;
}

/*
 * What is news of a lane that was asked for less: it stops, or slows down.  Not
 * each answer that says so, as long as the lane still does.
 */
static void
note_less(RetryDispatcher *d, const RetrySending *t, const RetryScene *scene,
		  bool was_blocked, bool was_slowed, int64 now_us)
{
	const RetryFlow *flow = t->lane->flow;
	char		detail[96];

	if (flow == NULL)
		return;
	if (!was_blocked && flow->blocked_until_us > now_us)
	{
		snprintf(detail, sizeof(detail), "for %.0f s, by an answer with status %d",
				 ceil((flow->blocked_until_us - now_us) / 1e6), t->ended.http_status);
		add_event(d, RETRY_EVENT_BLOCKED, scene, t->lane, NULL, detail);
	}
	else if (!was_slowed && flow->throttle.rate > 0)
	{
		snprintf(detail, sizeof(detail), "to %.*f requests a second, by an answer with status %d",
				 flow->throttle.rate < 10 ? 1 : 0, flow->throttle.rate, t->ended.http_status);
		add_event(d, RETRY_EVENT_THROTTLED, scene, t->lane, NULL, detail);
	}
}

void
retry_govern_ended(RetryDispatcher *d, RetrySending *t)
{
	bool		was_blocked;
	bool		was_slowed;
	const RetryScene *scene = retry_config_scene(d->config, t->ended.scene_id);
	RetryLane  *lane = t->lane;
	RetryFlowEnd *end = &t->flow;
	int64		now_us = retry_monotonic_us();
	const RetryBreaker *breaker;
	RetryBreakerNews news;

	end->retry = is_retry(t);
	end->started_us = t->taken_us;
	end->latency_us = t->ended.duration_us;
	if (lane->flow == NULL && scene != NULL && retry_flow_remembers(end))
		make_flow(d, lane, scene, now_us);
	was_blocked = lane->flow != NULL && lane->flow->blocked_until_us > now_us;
	was_slowed = lane->flow != NULL && lane->flow->throttle.rate > 0;
	news = retry_lane_transfer_ended(d->lanes, lane, end, now_us);
	breaker = lane->flow != NULL ? &lane->flow->breaker : NULL;
	t->ended.unhurried = !t->ended.verdict.terminal && end->kind == RETRY_FLOW_FAILED &&
		breaker != NULL && breaker->state == RETRY_BREAKER_OPEN;
	if (scene == NULL)
		return;
	if (end->slows || end->retry_after_until_us > 0)
		note_less(d, t, scene, was_blocked, was_slowed, now_us);
	if (news == RETRY_BREAKER_HAS_OPENED && breaker != NULL)
		breaker_opened(d, scene, lane, NULL, breaker->calls, breaker->failed);
	else if (news == RETRY_BREAKER_HAS_CLOSED)
		breaker_closed(d, scene, lane, NULL, "its probes succeeded");
}

void
retry_govern_unsent(RetryDispatcher *d, RetrySending *t)
{
	RetryFlowEnd end = {.kind = RETRY_FLOW_NEUTRAL,.unsent = true,.started_us = t->taken_us};

	if (t->rated != 0)
		retry_scene_rate_unsent(d, t->rated);
	t->rated = 0;
	end.retry = is_retry(t);
	(void) retry_lane_transfer_ended(d->lanes, t->lane, &end, retry_monotonic_us());
}

static void
configure_lane(RetryLane *lane, void *arg)
{
	RetryTurn  *turn = arg;
	RetryDispatcher *d = turn->d;
	const RetryScene *scene;

	if (lane->flow == NULL || lane->flow->scene_id == 0)
		return;
	scene = retry_config_scene(d->config, lane->flow->scene_id);
	if (scene == NULL)
		return;
	retry_override_lane(d, lane, scene);
	follow(d, lane, scene, turn->now_us);
}

/* The same for a lane of which little more than its flow is kept. */
static void
configure_dormant(int64 hash, RetryFlow *flow, void *arg)
{
	RetryTurn  *turn = arg;
	RetryDispatcher *d = turn->d;
	const RetryScene *scene = retry_config_scene(d->config, flow->scene_id);
	RetryLane	lane = {.hash = hash,.flow = flow};

	if (scene != NULL)
		follow(d, &lane, scene, turn->now_us);
}

static void
target_closed(const RetryScene *scene, const char *url, void *arg)
{
	RetryTurn  *turn = arg;

	breaker_closed(turn->d, scene, NULL, url, "the scene has no breaker_ratio any more");
}

void
retry_govern_configured(RetryTurn *turn)
{
	RetryDispatcher *d = turn->d;

	retry_lanes_each(d->lanes, configure_lane, turn);
	retry_lanes_each_dormant_flow(d->lanes, configure_dormant, turn);
	retry_target_health_follow(d->targets, d->config, turn->now_us, target_closed, turn);
}
