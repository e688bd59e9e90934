/*
 * lanes_view.c
 *		What dispatchers show of their lanes, as rows for retry.lanes.
 *
 * What changes by the mere passing of time (a block that is over, a rate that
 * fades, a backlog that becomes due) is worked out here, so that a dispatcher
 * need not write for it.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "breaker.h"
#include "compat.h"
#include "lane_stats.h"
#include "shown_rows.h"

/* Columns of retry.lane_rows(), as retry--1.0.sql has them. */
enum
{
	Lane_group_id, Lane_name, Lane_state, Lane_in_flight, Lane_queued, Lane_due,
	Lane_oldest_due, Lane_rate, Lane_p50, Lane_p95, Lane_p99, Lane_attempts,
	Lane_network, Lane_timeout, Lane_http_5xx, Lane_http_4xx, Lane_throttled,
	Lane_other, Lane_breaker, Lane_breaker_since, Lane_blocked_until,
	Lane_limit_now, Lane_max_in_flight, Lane_weight, Lane_high, Lane_paused,
	Lane_disabled, Lane_overridden, Lane_last_at, Lane_last_status,
	Lane_last_error, Lane_hash, Lane_dispatcher, Lane_scenes, Lane_natts
};

PG_FUNCTION_INFO_V1(retry_lane_rows);
PG_FUNCTION_INFO_V1(retry_shut_lane_rows);

static const char *const gate_words[] = {
	[RETRY_GATE_OPEN] = "idle",
	[RETRY_GATE_PAUSED] = "paused",
	[RETRY_GATE_DISABLED] = "disabled",
	[RETRY_GATE_BREAKER] = "breaker",
	[RETRY_GATE_BLOCKED] = "blocked",
	[RETRY_GATE_SLOWED] = "slowed",
	[RETRY_GATE_RATE] = "rate",
	[RETRY_GATE_SCENE_RATE] = "scene rate",
	[RETRY_GATE_BUDGET] = "budget",
	[RETRY_GATE_TARGETS] = "targets",
	[RETRY_GATE_ORDER] = "order"
};

/* An open breaker whose time is over waits for a probe. */
static RetryBreakerState
breaker_state(const RetryShownRows *r, const RetryLaneShown *lane)
{
	if (lane->breaker == RETRY_BREAKER_OPEN && lane->breaker_until_us <= r->now_us)
		return RETRY_BREAKER_HALF_OPEN;
	return lane->breaker;
}

static RetryGate
side_gate(const RetryShownRows *r, const RetryLaneShown *lane, RetrySideName side)
{
	return lane->gate_until_us[side] > r->now_us ? lane->gate[side] : RETRY_GATE_OPEN;
}

static bool
is_blocked(const RetryShownRows *r, const RetryLaneShown *lane)
{
	return lane->blocked_why != RETRY_GATE_OPEN && lane->blocked_until_us > r->now_us;
}

/* What the lane does, or what keeps it from sending: the most telling of all. */
static const char *
state_word(const RetryShownRows *r, const RetryLaneShown *lane, int64 due)
{
	RetryGate	first = side_gate(r, lane, RETRY_SIDE_FIRST);
	RetryGate	other = side_gate(r, lane, RETRY_SIDE_RETRY);
	RetryBreakerState breaker = breaker_state(r, lane);
	bool		wanted = lane->queued > 0 || due > 0;

	if (lane->paused)
		return gate_words[RETRY_GATE_PAUSED];
	if (lane->disabled)
		return gate_words[RETRY_GATE_DISABLED];
	if (lane->stopped)
		return "handed over";
	if (breaker != RETRY_BREAKER_CLOSED)
		return breaker == RETRY_BREAKER_OPEN ? gate_words[RETRY_GATE_BREAKER] : retry_breaker_word(breaker);
	if (is_blocked(r, lane))
		return gate_words[lane->blocked_why];
	if (wanted && lane->in_flight >= lane->limit)
		return "full";
	if (wanted && first != RETRY_GATE_OPEN)
		return gate_words[first];
	if (lane->in_flight > 0)
		return "sending";
	if (wanted && other != RETRY_GATE_OPEN)
		return gate_words[other];
	if (lane->slowed_to > 0)
		return gate_words[RETRY_GATE_SLOWED];
	return wanted ? "waiting" : "idle";
}

static void
set_latency(const RetryShownRows *r, const RetryLaneShown *lane, Datum *values, bool *isnull)
{
	static const double shares[] = {0.5, 0.95, 0.99};
	RetryHistogram latency = lane->latency;

	retry_histogram_forget(&latency, r->now_us);
	for (int i = 0; i < lengthof(shares); i++)
	{
		int64		us = retry_histogram_percentile(&latency, shares[i]);
		Interval   *interval;

		isnull[Lane_p50 + i] = us < 0;
		if (us < 0)
			continue;
		interval = palloc0(sizeof(Interval));
		interval->time = us;
		values[Lane_p50 + i] = IntervalPGetDatum(interval);
	}
}

/* How much is due beyond what is queued, and since when. */
static int64
set_due(const RetryShownRows *r, const RetryLaneShown *lane, Datum *values, bool *isnull)
{
	TimestampTz oldest = lane->oldest_queued;
	int64		due = 0;

	for (int i = 0; i < RETRY_SIDES; i++)
	{
		int64		estimate = retry_backlog_due(&lane->backlog[i], r->now);

		if (lane->ordered)
			due += estimate;
		if (lane->next_due[i] > r->now)
			continue;
		if (!lane->ordered)
			due += Max(1, estimate);
		oldest = Min(oldest, lane->next_due[i]);
	}
	values[Lane_due] = Int64GetDatum(due);
	isnull[Lane_oldest_due] = oldest > r->now;
	values[Lane_oldest_due] = TimestampTzGetDatum(oldest);
	return due;
}

static void
set_scenes(const RetryLaneShown *lane, Datum *values)
{
	Datum		ids[RETRY_SHOWN_SCENES];
	int			n = 0;

	for (; n < RETRY_SHOWN_SCENES && lane->scenes[n] != 0; n++)
		ids[n] = Int32GetDatum(lane->scenes[n]);
	values[Lane_scenes] = PointerGetDatum(construct_array(ids, n, INT4OID, sizeof(int32), true,
														  TYPALIGN_INT));
}

static void
add_row(RetryShownRows *r, const void *entry)
{
	const RetryLaneShown *lane = entry;
	RetryBreakerState breaker = breaker_state(r, lane);
	Datum		values[Lane_natts];
	bool		isnull[Lane_natts] = {0};
	int64		due;

	if (!retry_shown_rows_visible(r, lane->group_id))
		return;
	due = set_due(r, lane, values, isnull);
	values[Lane_group_id] = Int32GetDatum(lane->group_id);
	isnull[Lane_group_id] = lane->group_id == 0;
	retry_shown_rows_text(&values[Lane_name], &isnull[Lane_name], lane->name);
	values[Lane_state] = CStringGetTextDatum(state_word(r, lane, due));
	values[Lane_in_flight] = Int32GetDatum(lane->in_flight);
	values[Lane_queued] = Int32GetDatum(lane->queued);
	values[Lane_rate] = Float8GetDatum(rint(lane->rate * 100 * exp((lane->rate_us - r->now_us) /
																   (RETRY_SHOWN_RATE_S * USECS_PER_SEC))) / 100);
	set_latency(r, lane, values, isnull);
	values[Lane_attempts] = Int64GetDatum(lane->attempts);
	for (int i = 0; i < RETRY_FAILURES; i++)
		values[Lane_network + i] = Int64GetDatum(lane->failures[i]);
	values[Lane_breaker] = CStringGetTextDatum(retry_breaker_word(breaker));
	retry_shown_rows_moment(r, &values[Lane_breaker_since], &isnull[Lane_breaker_since],
							breaker != RETRY_BREAKER_CLOSED, lane->breaker_since_us);
	retry_shown_rows_moment(r, &values[Lane_blocked_until], &isnull[Lane_blocked_until],
							is_blocked(r, lane), lane->blocked_until_us);
	if (breaker == RETRY_BREAKER_OPEN)
		retry_shown_rows_moment(r, &values[Lane_blocked_until], &isnull[Lane_blocked_until],
								true, lane->breaker_until_us);
	values[Lane_limit_now] = Int32GetDatum(lane->limit);
	values[Lane_max_in_flight] = Int32GetDatum(lane->max_in_flight);
	isnull[Lane_max_in_flight] = lane->max_in_flight <= 0;
	values[Lane_weight] = Int32GetDatum(lane->weight);
	values[Lane_high] = BoolGetDatum(lane->high);
	values[Lane_paused] = BoolGetDatum(lane->paused);
	values[Lane_disabled] = BoolGetDatum(lane->disabled);
	values[Lane_overridden] = BoolGetDatum(lane->overridden);
	values[Lane_last_at] = TimestampTzGetDatum(lane->last_at);
	isnull[Lane_last_at] = lane->last_at == 0;
	values[Lane_last_status] = Int32GetDatum(lane->last_status);
	isnull[Lane_last_status] = lane->last_status == 0;
	retry_shown_rows_text(&values[Lane_last_error], &isnull[Lane_last_error], lane->last_error);
	values[Lane_hash] = Int64GetDatum(lane->hash);
	values[Lane_dispatcher] = Int32GetDatum(r->dispatcher);
	set_scenes(lane, values);
	retry_shown_rows_add(r, values, isnull);
}

static const RetryShownPlace *
lanes_of(const RetryWorker *worker)
{
	return &worker->lanes_shown;
}

/* retry.lane_rows() */
Datum
retry_lane_rows(PG_FUNCTION_ARGS)
{
	retry_shown_rows_read(fcinfo, sizeof(RetryLaneShown), false, lanes_of, add_row);
	return (Datum) 0;
}

/* One that sends nothing now, as far as it is not for its rate or its share. */
static void
add_shut(RetryShownRows *r, const void *entry)
{
	const RetryLaneShown *lane = entry;
	RetryGate	why = RETRY_GATE_OPEN;
	Datum		values[2];
	bool		isnull[2] = {0};

	if (breaker_state(r, lane) != RETRY_BREAKER_CLOSED)
		why = RETRY_GATE_BREAKER;
	else if (is_blocked(r, lane) &&
			 (lane->blocked_why == RETRY_GATE_BLOCKED || lane->blocked_why == RETRY_GATE_TARGETS))
		why = lane->blocked_why;
	if (why == RETRY_GATE_OPEN || !retry_shown_rows_visible(r, lane->group_id))
		return;
	values[0] = Int64GetDatum(lane->hash);
	values[1] = CStringGetTextDatum(why == RETRY_GATE_TARGETS ? "no healthy target" : gate_words[why]);
	retry_shown_rows_add(r, values, isnull);
}

/* retry.shut_lane_rows() */
Datum
retry_shut_lane_rows(PG_FUNCTION_ARGS)
{
	retry_shown_rows_read(fcinfo, sizeof(RetryLaneShown), true, lanes_of, add_shut);
	return (Datum) 0;
}
