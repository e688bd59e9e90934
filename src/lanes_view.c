/*
 * lanes_view.c
 *		What dispatchers show of their lanes, as rows for retry.lanes.
 *
 * The entries are read without stopping anybody, and only those of groups that
 * the current role may see become rows: a lane's name says whom its group
 * calls.  What changes by the mere passing of time (a block that is over, a
 * rate that fades, a backlog that becomes due) is worked out here, so that a
 * dispatcher need not write for it.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "breaker.h"
#include "compat.h"
#include "lane_stats.h"
#include "shmem.h"

/* Columns of retry.lane_rows(), as retry--1.0.sql has them. */
enum
{
	Lane_group_id, Lane_name, Lane_state, Lane_in_flight, Lane_queued, Lane_due,
	Lane_oldest_due, Lane_rate, Lane_p50, Lane_p95, Lane_p99, Lane_attempts,
	Lane_network, Lane_timeout, Lane_http_5xx, Lane_http_4xx, Lane_throttled,
	Lane_other, Lane_breaker, Lane_breaker_since, Lane_blocked_until,
	Lane_limit_now, Lane_max_in_flight, Lane_weight, Lane_high, Lane_paused,
	Lane_disabled, Lane_overridden, Lane_last_at, Lane_last_status,
	Lane_last_error, Lane_hash, Lane_dispatcher, Lane_natts
};

PG_FUNCTION_INFO_V1(retry_lane_rows);

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

static const char *const breaker_words[] = {
	[RETRY_BREAKER_CLOSED] = "closed",
	[RETRY_BREAKER_OPEN] = "open",
	[RETRY_BREAKER_HALF_OPEN] = "half-open"
};

/* One call of the function. */
typedef struct Reading
{
	ReturnSetInfo *result;
	MemoryContext row_context;
	TimestampTz now;
	int64		now_us;			/* the same moment of the other clock */
	int			dispatcher;
	const int32 *groups;		/* that the role may see */
	int			ngroups;
	bool		sees_unknown;	/* lanes whose group is not known yet */
} Reading;

static bool
may_see(const Reading *r, int32 group_id)
{
	if (group_id == 0)
		return r->sees_unknown;
	for (int i = 0; i < r->ngroups; i++)
	{
		if (r->groups[i] == group_id)
			return true;
	}
	return false;
}

/* An open breaker whose time is over waits for a probe. */
static RetryBreakerState
breaker_state(const Reading *r, const RetryLaneShown *lane)
{
	if (lane->breaker == RETRY_BREAKER_OPEN && lane->breaker_until_us <= r->now_us)
		return RETRY_BREAKER_HALF_OPEN;
	return lane->breaker;
}

static RetryGate
side_gate(const Reading *r, const RetryLaneShown *lane, RetrySideName side)
{
	return lane->gate_until_us[side] > r->now_us ? lane->gate[side] : RETRY_GATE_OPEN;
}

static bool
is_blocked(const Reading *r, const RetryLaneShown *lane)
{
	return lane->blocked_why != RETRY_GATE_OPEN && lane->blocked_until_us > r->now_us;
}

/* What the lane does, or what keeps it from sending: the most telling of all. */
static const char *
state_word(const Reading *r, const RetryLaneShown *lane, int64 due)
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
		return breaker == RETRY_BREAKER_OPEN ? "breaker" : "half-open";
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

/* A moment of the monotonic clock as one of the calendar. */
static void
set_moment(const Reading *r, Datum *values, bool *isnull, int column, bool known, int64 moment_us)
{
	isnull[column] = !known || moment_us <= 0;
	if (isnull[column])
		return;
	values[column] = TimestampTzGetDatum(moment_us == PG_INT64_MAX ? DT_NOEND :
										 r->now + (moment_us - r->now_us));
}

static void
set_text(Datum *values, bool *isnull, int column, const char *text)
{
	isnull[column] = text[0] == '\0';
	if (!isnull[column])
		values[column] = CStringGetTextDatum(text);
}

static void
set_latency(const Reading *r, const RetryLaneShown *lane, Datum *values, bool *isnull)
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
set_due(const Reading *r, const RetryLaneShown *lane, Datum *values, bool *isnull)
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
add_row(const void *copy, void *arg)
{
	const RetryLaneShown *lane = copy;
	Reading    *r = arg;
	RetryBreakerState breaker = breaker_state(r, lane);
	Datum		values[Lane_natts];
	bool		isnull[Lane_natts] = {0};
	int64		due;

	if (!may_see(r, lane->group_id))
		return;
	due = set_due(r, lane, values, isnull);
	values[Lane_group_id] = Int32GetDatum(lane->group_id);
	isnull[Lane_group_id] = lane->group_id == 0;
	set_text(values, isnull, Lane_name, lane->name);
	values[Lane_state] = CStringGetTextDatum(state_word(r, lane, due));
	values[Lane_in_flight] = Int32GetDatum(lane->in_flight);
	values[Lane_queued] = Int32GetDatum(lane->queued);
	values[Lane_rate] = Float8GetDatum(rint(lane->rate * 100 * exp((lane->rate_us - r->now_us) /
																   (RETRY_SHOWN_RATE_S * USECS_PER_SEC))) / 100);
	set_latency(r, lane, values, isnull);
	values[Lane_attempts] = Int64GetDatum(lane->attempts);
	for (int i = 0; i < RETRY_FAILURES; i++)
		values[Lane_network + i] = Int64GetDatum(lane->failures[i]);
	values[Lane_breaker] = CStringGetTextDatum(breaker_words[breaker]);
	set_moment(r, values, isnull, Lane_breaker_since, breaker != RETRY_BREAKER_CLOSED, lane->breaker_since_us);
	set_moment(r, values, isnull, Lane_blocked_until, is_blocked(r, lane), lane->blocked_until_us);
	if (breaker == RETRY_BREAKER_OPEN)
		set_moment(r, values, isnull, Lane_blocked_until, true, lane->breaker_until_us);
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
	set_text(values, isnull, Lane_last_error, lane->last_error);
	values[Lane_hash] = Int64GetDatum(lane->hash);
	values[Lane_dispatcher] = Int32GetDatum(r->dispatcher);
	tuplestore_putvalues(r->result->setResult, r->result->setDesc, values, isnull);
}

/* What a row needs goes with the next one. */
static void
add_row_here(const void *copy, void *arg)
{
	Reading    *r = arg;
	MemoryContext old = MemoryContextSwitchTo(r->row_context);

	add_row(copy, r);
	MemoryContextSwitchTo(old);
	MemoryContextReset(r->row_context);
}

/* retry.lane_rows() */
Datum
retry_lane_rows(PG_FUNCTION_ARGS)
{
	Reading		r = {.result = (ReturnSetInfo *) fcinfo->resultinfo};
	RetryWorker *workers;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	if (!retry_shmem_ready())
		return (Datum) 0;

	workers = palloc(sizeof(RetryWorker) * retry_shmem_max_workers());
	n = retry_shmem_workers(MyDatabaseId, workers);
	r.groups = retry_visible_groups(GetActiveSnapshot(), GetUserId(), &r.ngroups);
	r.sees_unknown = retry_sees_all_groups(GetUserId());
	r.now = GetCurrentTimestamp();
	r.now_us = retry_monotonic_us();
	r.row_context = AllocSetContextCreate(CurrentMemoryContext, "retry lanes", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < n; i++)
	{
		if (workers[i].phase != RETRY_WORKER_RUNNING)
			continue;
		r.dispatcher = workers[i].number;
		retry_shown_each(&workers[i].lanes_shown, sizeof(RetryLaneShown), add_row_here, &r);
	}
	MemoryContextDelete(r.row_context);
	return (Datum) 0;
}
