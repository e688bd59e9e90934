/*
 * lane_stats.c
 *		What a dispatcher shows of its lanes, for retry.lanes.
 *
 * A lane gets its entry when it comes to memory, or at the end of that turn if
 * there is none left, and gives it back when it is forgotten.  Without memory
 * for entries it has none, and nothing of it is counted; retry.health() then
 * says so.
 */
#include "postgres.h"

#include <math.h>

#include "utils/timestamp.h"

#include "judge.h"
#include "lane_stats.h"
#include "turn.h"

/* Lanes shown in one turn: thousands may change at once with configuration. */
#define PUBLISH_BUDGET	10000

static int64 not_before_us = 0; /* the next time */

static void
show_flow(RetryLaneShown *shown, const RetryFlow *flow, int64 now_us)
{
	shown->breaker = RETRY_BREAKER_CLOSED;
	shown->slowed_to = 0;
	if (flow == NULL)
		return;
	shown->breaker = retry_breaker_state(&flow->breaker, &flow->rules.breaker, now_us);
	shown->breaker_since_us = flow->breaker.opened_us;
	if (shown->breaker != RETRY_BREAKER_CLOSED)
		shown->breaker_until_us = retry_breaker_until(&flow->breaker, &flow->rules.breaker);
	shown->slowed_to = flow->throttle.rate;
	if (flow->blocked_until_us > now_us && shown->blocked_why == RETRY_GATE_OPEN)
	{
		shown->blocked_why = RETRY_GATE_BLOCKED;
		shown->blocked_until_us = flow->blocked_until_us;
	}
}

static void
show_lane(RetryDispatcher *d, const RetryLane *lane, RetryLaneShown *shown, int64 now_us)
{
	const RetryOverride *override = retry_override_find(d->overrides, lane->hash);

	shown->hash = lane->hash;
	shown->group_id = lane->group_id;
	shown->in_flight = lane->in_flight;
	shown->limit = retry_lane_limit(d->lanes, lane);
	shown->max_in_flight = lane->limit;
	shown->weight = lane->weight;
	shown->high = lane->high;
	shown->ordered = lane->ordered;
	shown->stopped = lane->stopped;
	shown->paused = lane->paused;
	shown->disabled = override != NULL && override->disabled;
	shown->overridden = override != NULL;
	shown->blocked_why = lane->blocked ? lane->blocked_why : RETRY_GATE_OPEN;
	shown->blocked_until_us = lane->blocked ? lane->blocked_until_us : 0;
	shown->queued = 0;
	shown->oldest_queued = DT_NOEND;
	for (int i = 0; i < RETRY_SIDES; i++)
	{
		const RetrySide *side = &lane->side[i];

		shown->gate[i] = side->gate;
		shown->gate_until_us[i] = side->shut_until_us;
		shown->queued += side->queued;
		shown->next_due[i] = side->next_due;
		shown->backlog[i] = side->backlog;
		if (side->queued > 0)
			shown->oldest_queued = Min(shown->oldest_queued, side->queue[side->queue_head].pos.due);
	}
	show_flow(shown, lane->flow, now_us);
	if (shown->name[0] == '\0' && lane->name != NULL)
		retry_shown_copy_text(shown->name, lane->name, RETRY_SHOWN_NAME);
}

static void
show(RetryDispatcher *d, const RetryLane *lane)
{
	retry_shown_begin(lane->shown);
	show_lane(d, lane, lane->shown, retry_monotonic_us());
	retry_shown_end(lane->shown);
}

/* An entry for it, if there is one, that is true from the start. */
static void
take_entry(RetryDispatcher *d, RetryLane *lane)
{
	lane->shown = retry_shown_get(d->lanes_shown);
	if (lane->shown != NULL)
		show(d, lane);
}

static void
appear(RetryLane *lane, void *arg)
{
	take_entry(arg, lane);
	retry_override_apply(lane, arg);
}

static void
forget(RetryLane *lane, void *arg)
{
	RetryDispatcher *d = arg;

	if (lane->shown != NULL)
		retry_shown_free(d->lanes_shown, lane->shown);
	lane->shown = NULL;
}

void
retry_lane_stats_create(RetryDispatcher *d)
{
	RetryLaneHooks hooks = {.made = appear,.dropped = forget,.arg = d};

	d->lanes_shown = retry_shown_create(&d->worker->lanes_shown, sizeof(RetryLaneShown));
	retry_lanes_set_hooks(d->lanes, &hooks);
	(void) retry_shown_grow(d->lanes_shown, retry_monotonic_us());
}

void
retry_lane_stats_publish(RetryDispatcher *d)
{
	int64		now_us = retry_monotonic_us();
	RetryLane  *lane;

	if (now_us < not_before_us)
		return;
	not_before_us = now_us + RETRY_SHOW_EVERY_MS * 1000;
	for (int i = 0; i < PUBLISH_BUDGET && (lane = retry_lanes_next_changed(d->lanes)) != NULL; i++)
	{
		if (lane->shown == NULL && retry_shown_grow(d->lanes_shown, now_us))
			take_entry(d, lane);
		if (lane->shown != NULL)
			show(d, lane);
	}
	(void) retry_shown_grow(d->lanes_shown, now_us);	/* for who comes next */
}

void
retry_lane_stats_scene(RetryLane *lane, int32 scene_id)
{
	RetryLaneShown *shown = lane->shown;
	int			i = 0;

	if (shown == NULL)
		return;
	while (i < RETRY_SHOWN_SCENES && shown->scenes[i] != 0)
	{
		if (shown->scenes[i++] == scene_id)
			return;
	}
	if (i == RETRY_SHOWN_SCENES)
		return;
	retry_shown_begin(shown);
	shown->scenes[i] = scene_id;
	retry_shown_end(shown);
}

void
retry_lane_stats_sent(RetryLane *lane, int64 now_us)
{
	RetryLaneShown *shown = lane->shown;

	if (shown == NULL)
		return;
	retry_shown_begin(shown);
	shown->rate = shown->rate * exp((shown->rate_us - now_us) / (RETRY_SHOWN_RATE_S * USECS_PER_SEC)) +
		1 / RETRY_SHOWN_RATE_S;
	shown->rate_us = now_us;
	retry_shown_end(shown);
}

static RetryFailure
failure_class(const RetryAnswer *answer)
{
	if (answer == NULL)
		return RETRY_FAILURE_OTHER;
	if (answer->http_status == 429 ||
		(answer->http_status == 503 && answer->retry_after.kind != RETRY_AFTER_NONE))
		return RETRY_FAILURE_THROTTLED;
	if (answer->http_status >= 500)
		return RETRY_FAILURE_5XX;
	if (answer->http_status >= 400)
		return RETRY_FAILURE_4XX;
	if (answer->error_class == RETRY_CLASS_TIMEOUT || answer->error_class == RETRY_CLASS_CONNECT_TIMEOUT)
		return RETRY_FAILURE_TIMEOUT;
	return answer->exchange == RETRY_EXCHANGE_FAILED && answer->sqlstate == 0 && answer->http_status == 0 ?
		RETRY_FAILURE_NETWORK : RETRY_FAILURE_OTHER;
}

void
retry_lane_stats_ended(RetryLane *lane, const RetryEnded *ended, const RetryAnswer *answer)
{
	RetryOutcome outcome = ended->verdict.outcome;
	RetryLaneShown *shown = lane->shown;

	if (shown == NULL)
		return;
	retry_shown_begin(shown);
	shown->attempts++;
	shown->last_at = ended->finished_at;
	shown->last_status = ended->http_status;
	if (outcome != RETRY_SUCCEEDED && outcome != RETRY_PROCESSING)
	{
		shown->failures[failure_class(answer)]++;
		if (ended->error != NULL && ended->error[0] != '\0')
			retry_shown_copy_text(shown->last_error, ended->error, RETRY_SHOWN_ERROR);
	}
	if (answer != NULL)
		retry_histogram_add(&shown->latency, ended->duration_us, retry_monotonic_us());
	retry_shown_end(shown);
}
