/*
 * targets_view.c
 *		What dispatchers know of the targets of scenes, as rows for retry.targets.
 *
 * Each dispatcher finds out for itself whether a target works, so each has a
 * row for every target that it has called lately.  As with lanes, what changes
 * with time alone is worked out here.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "shown_rows.h"
#include "target_health.h"

/* Columns of retry.target_rows(), as retry--1.0.sql has them. */
enum
{
	Target_group_id, Target_scene_id, Target_url, Target_state, Target_in_flight,
	Target_failures, Target_out_since, Target_breaker, Target_breaker_since,
	Target_calls, Target_failed, Target_blocked_until, Target_dispatcher, Target_natts
};

PG_FUNCTION_INFO_V1(retry_target_rows);

static RetryBreakerState
breaker_state(const RetryShownRows *r, const RetryTargetShown *target)
{
	if (target->breaker == RETRY_BREAKER_OPEN && target->breaker_until_us <= r->now_us)
		return RETRY_BREAKER_HALF_OPEN;
	return target->breaker;
}

/* Why it is not called, the most lasting reason first, or that it is well. */
static const char *
state_word(const RetryShownRows *r, const RetryTargetShown *target)
{
	if (target->disabled)
		return "disabled";
	if (breaker_state(r, target) == RETRY_BREAKER_OPEN)
		return "breaker";
	if (target->rest_until_us > r->now_us)
		return "blocked";
	if (target->out)
		return "out";
	return breaker_state(r, target) == RETRY_BREAKER_HALF_OPEN ? "half-open" : "well";
}

/* When it may be called again, as far as the moments say; 0: it may be. */
static int64
blocked_until(const RetryShownRows *r, const RetryTargetShown *target)
{
	int64		until = Max(target->rest_until_us, target->breaker_until_us);

	if (target->out)
		until = Max(until, target->out_until_us);
	return until > r->now_us ? until : 0;
}

static void
add_row(RetryShownRows *r, const void *entry)
{
	const RetryTargetShown *target = entry;
	RetryBreakerState breaker = breaker_state(r, target);
	Datum		values[Target_natts];
	bool		isnull[Target_natts] = {0};
	int64		until = blocked_until(r, target);

	if (!retry_shown_rows_visible(r, target->group_id))
		return;
	values[Target_group_id] = Int32GetDatum(target->group_id);
	values[Target_scene_id] = Int32GetDatum(target->scene_id);
	values[Target_url] = CStringGetTextDatum(target->url);
	values[Target_state] = CStringGetTextDatum(state_word(r, target));
	values[Target_in_flight] = Int32GetDatum(target->in_flight);
	values[Target_failures] = Int32GetDatum(target->failures);
	retry_shown_rows_moment(r, &values[Target_out_since], &isnull[Target_out_since],
							target->out, target->out_since_us);
	values[Target_breaker] = CStringGetTextDatum(retry_breaker_word(breaker));
	retry_shown_rows_moment(r, &values[Target_breaker_since], &isnull[Target_breaker_since],
							breaker != RETRY_BREAKER_CLOSED, target->breaker_since_us);
	values[Target_calls] = Int32GetDatum((int32) target->calls);
	values[Target_failed] = Int32GetDatum((int32) target->failed);
	retry_shown_rows_moment(r, &values[Target_blocked_until], &isnull[Target_blocked_until],
							until > 0, until);
	values[Target_dispatcher] = Int32GetDatum(r->dispatcher);
	retry_shown_rows_add(r, values, isnull);
}

static const RetryShownPlace *
targets_of(const RetryWorker *worker)
{
	return &worker->targets_shown;
}

/* retry.target_rows() */
Datum
retry_target_rows(PG_FUNCTION_ARGS)
{
	retry_shown_rows_read(fcinfo, sizeof(RetryTargetShown), false, targets_of, add_row);
	return (Datum) 0;
}
