/*
 * lane_choice.c
 *		Chooses the lane of a new task by what its scene says.
 *
 * By default tasks of all scenes of a group share the lane of the origin that
 * they call, because that is what can be overloaded or out of order.  A scene
 * that says anything about its lanes' flow gets lanes of its own, so that its
 * settings govern nobody else's tasks.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "lane_choice.h"
#include "lane_name.h"
#include "scene.h"

static RetryLaneBy
lane_by(const char *word)
{
	switch (word[0])
	{
		case 'o':
			return RETRY_LANE_BY_ORIGIN;
		case 's':
			return RETRY_LANE_BY_SCENE;
		case 'k':
			return RETRY_LANE_BY_KEY;
		default:
			return RETRY_LANE_BY_REFERENCE;
	}
}

/* Is a number given, and this one? */
static inline bool
is_real(const Datum *values, const bool *isnull, int column, float4 number)
{
	return !isnull[column] && DatumGetFloat4(values[column]) == number;
}

static inline bool
is_word(const Datum *values, int column, const char *word)
{
	return strcmp(TextDatumGetCString(values[column]), word) == 0;
}

static inline bool
is_time(const Datum *values, int column, int64 us)
{
	const Interval *interval = DatumGetIntervalP(values[column]);

	return interval->month == 0 && interval->day == 0 && interval->time == us;
}

/* Do all settings of its flow have the values that retry--1.0.sql gives them? */
static bool
has_default_flow(const Datum *values, const bool *isnull)
{
	return is_word(values, Scene_priority, "normal") &&
		DatumGetInt32(values[Scene_weight]) == 1 &&
		!DatumGetBool(values[Scene_adaptive]) &&
		!DatumGetBool(values[Scene_hedge]) &&
		isnull[Scene_rate] &&
		is_real(values, isnull, Scene_breaker_ratio, 0.5f) &&
		DatumGetInt32(values[Scene_breaker_calls]) == 20 &&
		is_time(values, Scene_breaker_window, 30 * USECS_PER_SEC) &&
		is_time(values, Scene_breaker_open, 5 * USECS_PER_SEC) &&
		is_real(values, isnull, Scene_retry_share, 0.2f) &&
		DatumGetInt32(values[Scene_retry_floor]) == 10;
}

void
retry_lane_rules_read(const Datum *values, const bool *isnull, RetryLaneRules *rules)
{
	memset(rules, 0, sizeof(*rules));
	rules->scene_id = DatumGetInt32(values[Scene_id]);
	text_to_cstring_buffer(DatumGetTextPP(values[Scene_name]), rules->scene, sizeof(rules->scene));
	if (!isnull[Scene_lane_by])
		rules->by = lane_by(TextDatumGetCString(values[Scene_lane_by]));
	rules->single = !isnull[Scene_max_in_flight] || DatumGetBool(values[Scene_ordered]);
	rules->routed = !isnull[Scene_targets];
	rules->own_flow = !has_default_flow(values, isnull);
}

static void
check_hash(bool ok)
{
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute the SHA-256 of a lane's name")));
}

/* The scene's lane for a part of its tasks: those with an origin, key or reference. */
static void
part_lane(const RetryLaneRules *rules, char kind, const char *part, int len, text **lane, int64 *hash)
{
	check_hash(retry_scene_part_hash(rules->group_id, rules->scene_id, kind, part, len, hash));
	*lane = cstring_to_text(psprintf("%s %.*s", rules->scene, len, part));
}

/* The lane of a key or reference, at one target when there are several. */
static void
value_lane(const RetryLaneRules *rules, const RetryLaneTask *task, char kind, const text *value,
		   text **lane, int64 *hash)
{
	const char *part = VARDATA_ANY(value);
	int			len = VARSIZE_ANY_EXHDR(value);

	if (task->child && task->origin != NULL)
	{
		part = psprintf("%s %.*s", task->origin, len, part);
		len = strlen(part);
	}
	part_lane(rules, kind, part, len, lane, hash);
}

/* Without a name and a value: does the scene have one lane for the task and others? */
static bool
is_scenes(const RetryLaneRules *rules, const RetryLaneTask *task)
{
	if (task->origin == NULL)
		return true;
	if (task->child)
		return rules->by == RETRY_LANE_BY_SCENE;
	return rules->by > RETRY_LANE_BY_ORIGIN ||
		(rules->by == RETRY_LANE_BY_NEED && rules->single) ||
		(rules->routed && !task->own_url);
}

void
retry_lane_choose(const RetryLaneRules *rules, const RetryLaneTask *task, text **lane, int64 *hash)
{
	*lane = task->named;
	if (task->named != NULL)
		check_hash(retry_lane_hash(rules->group_id, RETRY_LANE_NAMED, VARDATA_ANY(task->named),
								   VARSIZE_ANY_EXHDR(task->named), hash));
	else if (rules->by == RETRY_LANE_BY_KEY && task->key != NULL)
		value_lane(rules, task, RETRY_LANE_KEY, task->key, lane, hash);
	else if (rules->by == RETRY_LANE_BY_REFERENCE && task->reference != NULL)
		value_lane(rules, task, RETRY_LANE_REFERENCE, task->reference, lane, hash);
	else if (is_scenes(rules, task))
	{
		*lane = cstring_to_text(rules->scene);
		check_hash(retry_scene_lane_hash(rules->group_id, rules->scene_id, hash));
	}
	else if (rules->single || rules->own_flow || rules->by > RETRY_LANE_BY_ORIGIN)
		part_lane(rules, RETRY_LANE_SCENE_ORIGIN, task->origin, strlen(task->origin), lane, hash);
	else
	{
		if (!task->own_url)
			*lane = cstring_to_text(task->origin);
		check_hash(retry_lane_hash(rules->group_id, RETRY_LANE_ORIGIN, task->origin,
								   strlen(task->origin), hash));
	}
}
