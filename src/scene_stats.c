/*
 * scene_stats.c
 *		What a dispatcher counts of its scenes, shown and stored by the minute.
 *
 * Counting is a matter of some additions in shared memory, at the two places
 * that every task passes: the feed, where it comes, and the end of a turn,
 * where an attempt is known to be in the store.  Whatever goes wrong in storing
 * the counts costs statistics and nothing else.
 *
 * How many tasks wait cannot be counted over and over where they are millions.
 * So upkeep counts them now and then (upkeep_count.c), and what has changed
 * since is in the rows of retry.count_change and in the entries here.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "common/hashfn.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "group_lanes.h"
#include "group_use.h"
#include "latency.h"
#include "scene_stats.h"
#include "turn.h"
#include "upkeep.h"
#include "worker.h"

#define AGAIN_US		(10 * USECS_PER_SEC)	/* after an error */
#define LOCKED_US		(500 * 1000)	/* somebody has a table locked */
#define TOO_OLD_US		(30 * USECS_PER_MINUTE) /* counts that could not be
												 * stored so long count as of
												 * now */
#define LOG_INTERVAL_MS	(60 * 1000)

/* Columns of retry.stat_minute. */
enum
{
	Stat_at, Stat_scene_id, Stat_counts,
	Stat_dispatcher = Stat_counts + RETRY_SCENE_COUNT_COLUMNS, Stat_natts
};

/* Columns of retry.count_change. */
enum
{
	Change_xid, Change_scene_id, Change_pending, Change_retrying, Change_dead,
	Change_natts
};

typedef struct Entry
{
	int32		scene_id;
	RetrySceneShown *shown;		/* in shared memory, or the next */
	RetrySceneShown *own;		/* while there is no room there; NULL: there
								 * is */
	RetryGroupUse *use;			/* of its group; NULL: it has no limits */
	bool		laned;			/* it has one on lanes */
} Entry;

struct RetrySceneStats
{
	Entry	  **table;			/* open addressing; NULL: free */
	uint32		size;			/* a power of two */
	uint32		n;
	RetryShown *shown;
	Entry	   *last;			/* the one that was looked for last */
	bool		any;			/* something was counted since the last write */
	TimestampTz minute;			/* if so, when that minute began */
	TimestampTz not_before;		/* of writing, after a failure; 0 */
	int64		publish_us;		/* when paused scenes are looked at next */
};

RetrySceneStats *
retry_scene_stats_create(RetryDispatcher *d)
{
	RetrySceneStats *stats = palloc0(sizeof(RetrySceneStats));

	stats->size = 64;
	stats->table = palloc0(stats->size * sizeof(Entry *));
	stats->shown = retry_shown_create(&d->worker->scenes_shown, sizeof(RetrySceneShown));
	(void) retry_shown_grow(stats->shown, retry_monotonic_us());
	return stats;
}

/* Where the scene's entry is, or would be. */
static Entry **
place_of(Entry **table, uint32 size, int32 scene_id)
{
	uint32		i = murmurhash32(scene_id) & (size - 1);

	while (table[i] != NULL && table[i]->scene_id != scene_id)
		i = (i + 1) & (size - 1);
	return &table[i];
}

/* A hash table of dynahash would raise an error when there is no memory. */
static void *
allocate(RetryDispatcher *d, Size size)
{
	return MemoryContextAllocExtended(d->context, size, MCXT_ALLOC_ZERO | MCXT_ALLOC_NO_OOM);
}

/* Room for one more entry; false when there is none. */
static bool
make_room(RetryDispatcher *d)
{
	RetrySceneStats *stats = d->stats;
	Entry	  **larger;

	if (stats->n < stats->size / 2)
		return true;
	larger = allocate(d, stats->size * 2 * sizeof(Entry *));
	if (larger == NULL)
		return false;
	for (uint32 i = 0; i < stats->size; i++)
	{
		if (stats->table[i] != NULL)
			*place_of(larger, stats->size * 2, stats->table[i]->scene_id) = stats->table[i];
	}
	pfree(stats->table);
	stats->table = larger;
	stats->size *= 2;
	return true;
}

static void
set_use(Entry *entry, const RetryScene *scene)
{
	entry->use = scene != NULL && scene->counted ? retry_group_use(scene->group_id) : NULL;
	entry->laned = entry->use != NULL && scene->max_lanes >= 0;
}

static Entry *
make_entry(RetryDispatcher *d, int32 scene_id)
{
	RetrySceneStats *stats = d->stats;
	const RetryScene *scene = retry_config_scene(d->config, scene_id);
	Entry	   *entry = make_room(d) ? allocate(d, sizeof(Entry)) : NULL;

	if (entry == NULL)
		return NULL;
	entry->scene_id = scene_id;
	set_use(entry, scene);
	entry->shown = retry_shown_get(stats->shown);
	if (entry->shown == NULL)
		entry->shown = entry->own = allocate(d, sizeof(RetrySceneShown));
	if (entry->shown == NULL)
	{
		pfree(entry);
		return NULL;
	}
	retry_shown_begin(entry->shown);
	entry->shown->scene_id = scene_id;
	entry->shown->group_id = scene != NULL ? scene->group_id : 0;
	entry->shown->held_due = DT_NOEND;
	retry_shown_end(entry->shown);
	*place_of(stats->table, stats->size, scene_id) = entry;
	stats->n++;
	return entry;
}

/* The scene's entry; NULL when there is no memory for it. */
static RetrySceneShown *
entry_of(RetryDispatcher *d, int32 scene_id)
{
	RetrySceneStats *stats = d->stats;
	Entry	   *entry = stats->last;

	if (entry == NULL || entry->scene_id != scene_id)
		entry = *place_of(stats->table, stats->size, scene_id);
	if (entry == NULL)
		entry = make_entry(d, scene_id);
	if (entry == NULL)
		return NULL;
	stats->last = entry;
	return entry->shown;
}

static TimestampTz
minute_of(TimestampTz moment)
{
	int64		past = moment % USECS_PER_MINUTE;

	return moment - (past < 0 ? past + USECS_PER_MINUTE : past);
}

/* Begins to count something of a scene; retry_shown_end() is to follow. */
static RetrySceneShown *
count(RetryDispatcher *d, int32 scene_id)
{
	RetrySceneStats *stats = d->stats;
	RetrySceneShown *shown = entry_of(d, scene_id);

	if (shown == NULL)
		return NULL;
	if (!stats->any)
	{
		stats->any = true;
		stats->minute = minute_of(GetCurrentTimestamp());
		d->worker->stats_since = stats->minute;
	}
	retry_shown_begin(shown);
	shown->minute = stats->minute;
	return shown;
}

static void
add_rate(RetrySceneShown *shown, RetrySceneRate which, int64 now_us)
{
	double		kept = exp((shown->rate_us - now_us) / (RETRY_SCENE_RATE_S * USECS_PER_SEC));

	for (int i = 0; i < RETRY_SCENE_RATES; i++)
		shown->rate[i] *= kept;
	shown->rate[which] += 1 / RETRY_SCENE_RATE_S;
	shown->rate_us = now_us;
}

/* A task of the scene that was counted last is finished. */
static void
end_task(RetryDispatcher *d, int64 lane_hash)
{
	const Entry *entry = d->stats->last;

	if (entry->use != NULL)
		retry_group_use_ended(entry->use, 1);
	if (entry->laned)
		retry_group_lanes_ended(entry->use, lane_hash);
}

static bool
is_limited(int32 group_id, void *arg)
{
	RetryDispatcher *d = arg;
	const RetryScene *scene;

	for (int i = 0; (scene = retry_config_nth_scene(d->config, i)) != NULL; i++)
	{
		if (scene->group_id == group_id && scene->counted)
			return true;
	}
	return false;
}

static bool
is_laned(int32 group_id, void *arg)
{
	RetryDispatcher *d = arg;
	const RetryScene *scene;

	for (int i = 0; (scene = retry_config_nth_scene(d->config, i)) != NULL; i++)
	{
		if (scene->group_id == group_id && scene->max_lanes >= 0)
			return true;
	}
	return false;
}

void
retry_scene_stats_configured(RetryDispatcher *d, int64 since_us)
{
	RetrySceneStats *stats = d->stats;
	const RetryScene *scene;

	for (uint32 i = 0; i < stats->size; i++)
	{
		if (stats->table[i] != NULL)
			set_use(stats->table[i], retry_config_scene(d->config, stats->table[i]->scene_id));
	}
	if (d->worker->number != 0)
		return;
	retry_group_use_sweep(since_us, is_limited, d);

	/* until upkeep has counted a group's lanes nothing is refused for them */
	for (int i = 0; (scene = retry_config_nth_scene(d->config, i)) != NULL; i++)
	{
		if (scene->max_lanes >= 0)
			(void) retry_group_use(scene->group_id);
	}
	if (retry_group_use_sweep_lanes(since_us, is_laned, d))
		retry_upkeep_want(GetCurrentTimestamp());
}

void
retry_scene_stats_enqueued(RetryDispatcher *d, int32 scene_id)
{
	RetrySceneShown *shown = count(d, scene_id);

	if (shown == NULL)
		return;
	shown->counts.enqueued++;
	shown->counts.pending++;
	add_rate(shown, RETRY_RATE_ENQUEUED, retry_monotonic_us());
	retry_shown_end(shown);
}

int
retry_scene_stats_cancelled(RetryTurn *turn, const RetryCandidate *c)
{
	RetrySceneShown *shown;
	TupleTableSlot *slot;
	RetryProbe	probe;
	int32		scene_id;
	int64		lane_hash;
	int			leaf = c->entry.leaf;

	slot = retry_find_task(turn->reader, &c->entry.pos.id, NULL, &leaf);
	if (slot == NULL)
		return 1;
	scene_id = DatumGetInt32(retry_column(slot, Task_scene_id));
	lane_hash = DatumGetInt64(retry_column(slot, Task_lane_hash));
	retry_probe_task(turn->reader, leaf, &c->entry.pos.id, &probe);
	shown = probe.terminal ? NULL : count(turn->d, scene_id);
	if (shown == NULL)
		return 2;
	shown->counts.cancelled++;
	if (probe.attempts == 0)
		shown->counts.pending--;
	else
		shown->counts.retrying--;
	end_task(turn->d, lane_hash);
	retry_shown_end(shown);
	return 3;
}

void
retry_scene_stats_recorded(RetryDispatcher *d, const RetryEnded *ended)
{
	RetrySceneShown *shown = count(d, ended->scene_id);
	RetryOutcome outcome = ended->verdict.outcome;
	int64		now_us;

	if (shown == NULL)
		return;
	now_us = retry_monotonic_us();
	shown->counts.outcomes[outcome]++;
	if (ended->entry.attempts == 0)
		shown->counts.pending--;
	else
	{
		shown->counts.retrying--;
		shown->counts.retries++;
	}
	if (!ended->verdict.terminal)
		shown->counts.retrying++;
	else
	{
		end_task(d, ended->lane_hash);
		shown->counts.dead += outcome != RETRY_SUCCEEDED;
	}
	shown->counts.late_us = Max(shown->counts.late_us, ended->started_at - ended->entry.pos.due);
	add_rate(shown, RETRY_RATE_ATTEMPTS, now_us);
	if (outcome != RETRY_SUCCEEDED && outcome != RETRY_PROCESSING)
		shown->rate[RETRY_RATE_FAILED] += 1 / RETRY_SCENE_RATE_S;
	if (ended->duration_us > 0)
	{
		shown->counts.busy_us += ended->duration_us;
		shown->counts.latency[retry_histogram_bucket(ended->duration_us)]++;
		retry_histogram_add(&shown->recent, ended->duration_us, now_us);
	}
	retry_shown_end(shown);
}

void
retry_scene_stats_foreign(RetryDispatcher *d)
{
	if (d->worker->number == 0)
		retry_upkeep_want(GetCurrentTimestamp());
}

/* What had no room in shared memory moves there when there is some. */
static void
move_there(RetryDispatcher *d, int64 now_us)
{
	RetrySceneStats *stats = d->stats;

	if (!retry_shown_grow(stats->shown, now_us))
		return;
	for (uint32 i = 0; i < stats->size; i++)
	{
		Entry	   *entry = stats->table[i];
		RetrySceneShown *place = entry != NULL && entry->own != NULL ? retry_shown_get(stats->shown) : NULL;

		if (place == NULL)
			continue;
		retry_shown_begin(place);
		memcpy((char *) place + sizeof(RetryShownHead), (char *) entry->own + sizeof(RetryShownHead),
			   sizeof(RetrySceneShown) - sizeof(RetryShownHead));
		retry_shown_end(place);
		pfree(entry->own);
		entry->own = NULL;
		entry->shown = place;
	}
}

void
retry_scene_stats_publish(RetryDispatcher *d, int64 now_us)
{
	RetrySceneStats *stats = d->stats;
	RetryScene *scene;

	if (now_us < stats->publish_us)
		return;
	stats->publish_us = now_us + USECS_PER_SEC;
	move_there(d, now_us);
	for (int i = 0; (scene = retry_config_nth_scene(d->config, i)) != NULL; i++)
	{
		const Entry *entry = *place_of(stats->table, stats->size, scene->id);
		TimestampTz due = retry_held_due(d->held, scene->id);
		RetrySceneShown *shown;

		if (entry == NULL && due == DT_NOEND)
			continue;
		shown = entry_of(d, scene->id);
		if (shown == NULL || (shown->held_due == due && shown->group_id == scene->group_id))
			continue;
		retry_shown_begin(shown);
		shown->held_due = due;
		shown->group_id = scene->group_id;
		retry_shown_end(shown);
	}
}

/* ---------------------------------------------------------------- stored by the minute */

static bool
anything_counted(const RetrySceneCounts *counts)
{
	static const RetrySceneCounts none;

	return memcmp(counts, &none, sizeof(none)) != 0;
}

void
retry_scene_counts_values(const RetrySceneCounts *counts, Datum *values, bool *isnull)
{
	int64		latency[RETRY_HISTOGRAM_BUCKETS];
	int			n = 0;

	values[n++] = Int64GetDatum(counts->enqueued);
	for (int i = 0; i < RETRY_OUTCOMES; i++)
		values[n++] = Int64GetDatum(counts->outcomes[i]);
	values[n++] = Int64GetDatum(counts->retries);
	values[n++] = Int64GetDatum(counts->dead);
	values[n++] = Int64GetDatum(counts->cancelled);
	values[n++] = Int64GetDatum(counts->busy_us);
	values[n++] = Int64GetDatum(counts->late_us);
	for (int i = 0; i < RETRY_HISTOGRAM_BUCKETS; i++)
		latency[i] = counts->latency[i];
	isnull[n] = !retry_latency_datum(latency, &values[n]);
	n++;
	Assert(n == RETRY_SCENE_COUNT_COLUMNS);
}

static void
append_counts(RetryAppender *appender, TimestampTz at, int dispatcher, const RetrySceneShown *shown)
{
	Datum		values[Stat_natts];
	bool		isnull[Stat_natts] = {0};

	values[Stat_at] = TimestampTzGetDatum(at);
	values[Stat_scene_id] = Int32GetDatum(shown->scene_id);
	retry_scene_counts_values(&shown->counts, &values[Stat_counts], &isnull[Stat_counts]);
	values[Stat_dispatcher] = Int32GetDatum(dispatcher);
	retry_append_row(appender, values, isnull);
}

static void
append_change(RetryAppender *appender, const RetrySceneShown *shown)
{
	Datum		values[Change_natts];
	bool		isnull[Change_natts] = {0};

	values[Change_xid] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	values[Change_scene_id] = Int32GetDatum(shown->scene_id);
	values[Change_pending] = Int64GetDatum(shown->counts.pending);
	values[Change_retrying] = Int64GetDatum(shown->counts.retrying);
	values[Change_dead] = Int64GetDatum(shown->counts.dead);
	retry_append_row(appender, values, isnull);
}

/* False: a table is locked. */
static bool
store(void *arg)
{
	RetryDispatcher *d = arg;
	RetryAppender *minutes = retry_append_begin(retry_relation_oid("stat_minute"), Stat_natts, true);
	RetryAppender *changes = minutes == NULL ? NULL : retry_append_begin(retry_relation_oid("count_change"), Change_natts, true);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz at = d->stats->minute;

	if (changes == NULL)
	{
		if (minutes != NULL)
			retry_append_end(minutes);
		return false;
	}
	if (at < now - TOO_OLD_US || at > now)
		at = minute_of(now);
	for (uint32 i = 0; i < d->stats->size; i++)
	{
		const Entry *entry = d->stats->table[i];
		const RetrySceneCounts *counts = entry != NULL ? &entry->shown->counts : NULL;

		if (counts == NULL || !anything_counted(counts))
			continue;
		append_counts(minutes, at, d->worker->number, entry->shown);
		if (counts->pending != 0 || counts->retrying != 0 || counts->dead != 0)
			append_change(changes, entry->shown);
	}
	retry_append_end(minutes);
	retry_append_end(changes);
	return true;
}

static void
begin_anew(RetrySceneStats *stats)
{
	for (uint32 i = 0; i < stats->size; i++)
	{
		Entry	   *entry = stats->table[i];

		if (entry == NULL || !anything_counted(&entry->shown->counts))
			continue;
		retry_shown_begin(entry->shown);
		memset(&entry->shown->counts, 0, sizeof(RetrySceneCounts));
		retry_shown_end(entry->shown);
	}
	stats->any = false;
	stats->not_before = 0;
}

static void
log_failure(const ErrorData *error, TimestampTz now)
{
	static TimestampTz last = 0;

	if (!TimestampDifferenceExceeds(last, now, LOG_INTERVAL_MS))
		return;
	last = now;
	ereport(LOG,
			(errmsg("retry: statistics cannot be stored, and are kept in memory: %s", error->message)));
}

void
retry_scene_stats_write(RetryDispatcher *d, TimestampTz now, bool all)
{
	RetrySceneStats *stats = d->stats;
	MemoryContext caller;
	ErrorData  *error;
	bool		stored;

	/* a clock that is set back ends the minute too */
	if (!stats->any ||
		(!all && now >= stats->minute && now < stats->minute + USECS_PER_MINUTE) ||
		(!all && now < stats->not_before && stats->not_before <= now + AGAIN_US))
		return;
	caller = MemoryContextSwitchTo(d->turn_context);
	error = retry_worker_store(store, d, &stored);
	if (error != NULL)
		log_failure(error, now);
	MemoryContextSwitchTo(caller);
	if (stored)
	{
		begin_anew(stats);
		d->worker->stats_since = 0;
	}
	else
		stats->not_before = now + (error != NULL ? AGAIN_US : LOCKED_US);
}

TimestampTz
retry_scene_stats_next(const RetryDispatcher *d)
{
	const RetrySceneStats *stats = d->stats;

	return stats->any ? Max(stats->minute + USECS_PER_MINUTE, stats->not_before) : DT_NOEND;
}
