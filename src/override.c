/*
 * override.c
 *		Reads what an administrator says of single lanes, and applies it.
 *
 * The table is read whole when configuration has changed, as scenes are.  The
 * lanes in memory are gone through then, so that one that is paused or resumed
 * is so at once, without a task of it being looked at first; a lane that comes
 * to memory later is looked up as it comes.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "lane_name.h"
#include "override.h"
#include "scene.h"
#include "table_read.h"
#include "turn.h"

/* Columns of retry.lane_override. */
enum
{
	Override_group_name, Override_lane, Override_max_in_flight,
	Override_rate, Override_ordered, Override_weight, Override_paused, Override_disabled,
	Override_reset_at, Override_description, Override_created_at,
	Override_natts
};

/* An override under one of its lanes' numbers. */
typedef struct Entry
{
	int64		hash;			/* hash key */
	RetryOverride override;
	bool		reset;			/* to be reset, since the last read */
} Entry;

struct RetryOverrides
{
	MemoryContext parent;
	MemoryContext context;		/* of by_hash */
	HTAB	   *by_hash;		/* NULL before the first read */
	bool		any;			/* there are some */
	bool		applied;		/* lanes in memory may be as some said */
};

RetryOverrides *
retry_overrides_create(void)
{
	RetryOverrides *overrides = palloc0(sizeof(RetryOverrides));

	overrides->parent = CurrentMemoryContext;
	return overrides;
}

static Entry *
find(const RetryOverrides *overrides, int64 lane_hash)
{
	if (overrides->by_hash == NULL || !overrides->any)
		return NULL;
	return hash_search(overrides->by_hash, &lane_hash, HASH_FIND, NULL);
}

const RetryOverride *
retry_override_find(const RetryOverrides *overrides, int64 lane_hash)
{
	Entry	   *entry = find(overrides, lane_hash);

	return entry != NULL ? &entry->override : NULL;
}

/* What is being read. */
typedef struct Reading
{
	const RetryOverrides *former;
	RetryConfig *config;
	MemoryContext context;
	HTAB	   *by_hash;
} Reading;

static void
add(Reading *reading, bool known, const int64 *hash, const RetryOverride *override)
{
	const Entry *former;
	Entry	   *entry;
	bool		found;

	if (!known)
		return;
	entry = hash_search(reading->by_hash, hash, HASH_ENTER, &found);
	former = find(reading->former, *hash);
	entry->override = *override;

	/* at the start there is nothing to be forgotten */
	entry->reset = reading->former->by_hash != NULL && override->reset_at != DT_NOBEGIN &&
		(former == NULL || former->override.reset_at < override->reset_at);
}

/* Adds an override under the numbers of all lanes that show its name. */
static void
add_all(Reading *reading, const char *group, const char *lane, RetryOverride *override)
{
	static const char kinds[] = {RETRY_LANE_SCENE_ORIGIN, RETRY_LANE_KEY, RETRY_LANE_REFERENCE};
	const char *space = strchr(lane, ' ');
	int32		group_id = retry_config_group_named(reading->config, group);
	const RetryScene *scene;
	int64		hash;

	if (group_id == 0)
		return;					/* it has no scenes, hence no tasks */
	override->group_id = group_id;
	add(reading, retry_lane_hash(group_id, RETRY_LANE_NAMED, lane, strlen(lane), &hash), &hash, override);
	add(reading, retry_lane_hash(group_id, RETRY_LANE_ORIGIN, lane, strlen(lane), &hash), &hash, override);
	scene = retry_config_scene_named(reading->config, psprintf("%s/%s", group, lane));
	if (scene != NULL)
		add(reading, retry_scene_lane_hash(group_id, scene->id, &hash), &hash, override);
	if (space == NULL)
		return;
	scene = retry_config_scene_named(reading->config,
									 psprintf("%s/%.*s", group, (int) (space - lane), lane));
	for (int i = 0; scene != NULL && i < lengthof(kinds); i++)
		add(reading, retry_scene_part_hash(group_id, scene->id, kinds[i], space + 1, strlen(space + 1), &hash),
			&hash, override);
}

static void
read_row(Reading *reading, const Datum *values, const bool *isnull)
{
	RetryOverride override = {
		.has_ordered = !isnull[Override_ordered],
		.paused = DatumGetBool(values[Override_paused]),
		.disabled = DatumGetBool(values[Override_disabled]),
		.reset_at = DT_NOBEGIN
	};

	if (!isnull[Override_max_in_flight])
		override.max_in_flight = DatumGetInt32(values[Override_max_in_flight]);
	if (!isnull[Override_rate])
		memcpy(&override.rate, DatumGetPointer(values[Override_rate]), sizeof(RetryRate));
	if (!isnull[Override_weight])
		override.weight = DatumGetInt32(values[Override_weight]);
	if (!isnull[Override_ordered])
		override.ordered = DatumGetBool(values[Override_ordered]);
	if (!isnull[Override_reset_at])
		override.reset_at = DatumGetTimestampTz(values[Override_reset_at]);
	override.lane = MemoryContextStrdup(reading->context, TextDatumGetCString(values[Override_lane]));
	add_all(reading, TextDatumGetCString(values[Override_group_name]), override.lane, &override);
}

bool
retry_overrides_read(RetryOverrides *overrides, RetryConfig *config, Snapshot snapshot)
{
	Reading		reading = {.former = overrides,.config = config};
	HASHCTL		ctl = {0};
	MemoryContext context;
	RetryTableRead read = {0};

	if (!retry_table_read_begin(&read, "lane_override", Override_natts, snapshot))
		return false;

	/* goes with the transaction if there is an error on the way */
	context = AllocSetContextCreate(CurrentMemoryContext, "retry lane overrides", ALLOCSET_DEFAULT_SIZES);
	reading.context = context;
	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(Entry);
	ctl.hcxt = context;
	reading.by_hash = hash_create("retry lane overrides", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	while (retry_table_read_next(&read))
		read_row(&reading, read.slot->tts_values, read.slot->tts_isnull);
	retry_table_read_end(&read);

	MemoryContextSetParent(context, overrides->parent);
	if (overrides->context != NULL)
		MemoryContextDelete(overrides->context);
	overrides->context = context;
	overrides->by_hash = reading.by_hash;
	overrides->any = hash_get_num_entries(reading.by_hash) > 0;
	return true;
}

const RetryFlowRules *
retry_override_rules(const RetryOverrides *overrides, int64 lane_hash, const RetryFlowRules *rules,
					 RetryFlowRules *mixed)
{
	const RetryOverride *override = retry_override_find(overrides, lane_hash);

	if (override == NULL)
		return rules;
	*mixed = *rules;
	if (override->max_in_flight != 0)
		mixed->max_in_flight = override->max_in_flight;
	if (override->weight != 0)
		mixed->weight = override->weight;
	if (override->has_ordered)
		mixed->ordered = override->ordered;
	if (override->disabled)
	{
		/* what is not sent need not wait */
		mixed->breaker.ratio = 0;
		mixed->retry_share = -1;
	}
	return mixed;
}

void
retry_override_lane(RetryDispatcher *d, RetryLane *lane, const RetryScene *scene)
{
	RetryFlowRules mixed;

	retry_lane_set_rules(d->lanes, lane,
						 retry_override_rules(d->overrides, lane->hash, &scene->flow, &mixed));
}

void
retry_override_apply(RetryLane *lane, void *arg)
{
	RetryDispatcher *d = arg;
	const RetryOverride *override = retry_override_find(d->overrides, lane->hash);

	/* one that is paused from the start has no task to tell its name */
	if (override != NULL && lane->name == NULL)
	{
		lane->group_id = override->group_id;
		lane->name = MemoryContextStrdup(d->context, override->lane);
	}
	retry_lane_pause(d->lanes, lane, override != NULL && override->paused);
	if (override != NULL && override->rate.count > 0 && !override->disabled)
		retry_flow_set_rate(retry_lane_flow(d->lanes, lane), &override->rate, retry_monotonic_us());
	else if (lane->flow != NULL)
		retry_flow_set_rate(lane->flow, NULL, 0);
}

/* The scene of what the lane has queued, which says what its rules are; NULL: unknown. */
static const RetryScene *
queued_scene(RetryDispatcher *d, const RetryLane *lane)
{
	for (int i = 0; i < RETRY_SIDES; i++)
	{
		const RetrySide *side = &lane->side[i];

		if (side->queued > 0 && side->queue[side->queue_head].scene_id != 0)
			return retry_config_scene(d->config, side->queue[side->queue_head].scene_id);
	}
	return NULL;
}

static void
apply_to_lane(RetryLane *lane, void *arg)
{
	RetryDispatcher *d = arg;
	Entry	   *entry = find(d->overrides, lane->hash);
	const RetryScene *scene = queued_scene(d, lane);

	retry_override_apply(lane, d);
	if (scene != NULL)
		retry_override_lane(d, lane, scene);
	if (entry != NULL && (entry->reset || entry->override.disabled))
	{
		if (lane->flow != NULL)
			(void) retry_flow_reset(lane->flow, retry_monotonic_us());
		retry_lane_unblock(d->lanes, lane);
	}
}

/* A lane that is dormant has nothing but its flow. */
static void
apply_to_dormant(int64 hash, RetryFlow *flow, void *arg)
{
	RetryDispatcher *d = arg;
	Entry	   *entry = find(d->overrides, hash);

	if (entry != NULL && (entry->reset || entry->override.disabled))
		(void) retry_flow_reset(flow, retry_monotonic_us());
}

void
retry_overrides_apply(RetryDispatcher *d)
{
	bool		any = d->overrides->any;

	/* lanes may be as an override says that is no more */
	if (any || d->overrides->applied)
	{
		retry_lanes_each(d->lanes, apply_to_lane, d);
		retry_lanes_each_dormant_flow(d->lanes, apply_to_dormant, d);
	}
	d->overrides->applied = any;
}
