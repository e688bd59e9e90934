/*
 * scenes_view.c
 *		What dispatchers count of their scenes, as rows for retry.overview and
 *		retry.stats.
 *
 * A scene has a row for each dispatcher that has had to do with it since it
 * started; the views add them up.
 */
#include "postgres.h"

#include <math.h>

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "compat.h"
#include "guc.h"
#include "latency.h"
#include "scene_stats.h"
#include "shown_rows.h"

/* Columns of retry.scene_rows(), as retry--1.0.sql has them. */
enum
{
	Row_group_id, Row_scene_id, Row_dispatcher, Row_minute, Row_counts,
	Row_pending = Row_counts + RETRY_SCENE_COUNT_COLUMNS, Row_retrying, Row_enqueued_rate,
	Row_attempt_rate, Row_failed_rate, Row_recent, Row_held_due,
	Row_natts
};

PG_FUNCTION_INFO_V1(retry_scene_rows);
PG_FUNCTION_INFO_V1(retry_scene_running);

static void
set_rates(const RetryShownRows *r, const RetrySceneShown *scene, Datum *values)
{
	double		kept = exp((scene->rate_us - r->now_us) / (RETRY_SCENE_RATE_S * USECS_PER_SEC));

	for (int i = 0; i < RETRY_SCENE_RATES; i++)
		values[Row_enqueued_rate + i] = Float8GetDatum(rint(scene->rate[i] * kept * 100) / 100);
}

static void
set_recent(const RetryShownRows *r, const RetrySceneShown *scene, Datum *values, bool *isnull)
{
	RetryHistogram recent = scene->recent;
	int64		counts[RETRY_HISTOGRAM_BUCKETS];

	retry_histogram_forget(&recent, r->now_us);
	for (int i = 0; i < RETRY_HISTOGRAM_BUCKETS; i++)
		counts[i] = recent.counts[i];
	isnull[Row_recent] = !retry_latency_datum(counts, &values[Row_recent]);
}

static void
add_row(RetryShownRows *r, const void *entry)
{
	const RetrySceneShown *scene = entry;
	const RetrySceneCounts *counts = &scene->counts;
	Datum		values[Row_natts];
	bool		isnull[Row_natts] = {0};

	if (!retry_shown_rows_visible(r, scene->group_id))
		return;
	values[Row_group_id] = Int32GetDatum(scene->group_id);
	values[Row_scene_id] = Int32GetDatum(scene->scene_id);
	values[Row_dispatcher] = Int32GetDatum(r->dispatcher);
	values[Row_minute] = TimestampTzGetDatum(scene->minute);
	isnull[Row_minute] = scene->minute == 0;
	retry_scene_counts_values(counts, &values[Row_counts], &isnull[Row_counts]);
	values[Row_pending] = Int64GetDatum(counts->pending);
	values[Row_retrying] = Int64GetDatum(counts->retrying);
	set_rates(r, scene, values);
	set_recent(r, scene, values, isnull);
	values[Row_held_due] = TimestampTzGetDatum(scene->held_due);
	isnull[Row_held_due] = scene->held_due >= r->now;
	retry_shown_rows_add(r, values, isnull);
}

static const RetryShownPlace *
scenes_of(const RetryWorker *worker)
{
	return &worker->scenes_shown;
}

Datum
retry_scene_rows(PG_FUNCTION_ARGS)
{
	retry_shown_rows_read(fcinfo, sizeof(RetrySceneShown), false, scenes_of, add_row);
	return (Datum) 0;
}

/* What is under way of a scene. */
typedef struct Running
{
	int32		scene_id;		/* hash key */
	int64		all;
	int64		first;
} Running;

static void
count_running(HTAB *scenes)
{
	int			room = retry_max_in_flight * retry_shmem_max_workers();
	RetryInFlight *transfers = palloc_extended(room * sizeof(RetryInFlight), MCXT_ALLOC_HUGE);
	int			n = retry_shmem_running(MyDatabaseId, transfers, room);

	for (int i = 0; i < n; i++)
	{
		bool		found;
		Running    *running = hash_search(scenes, &transfers[i].scene_id, HASH_ENTER, &found);

		if (!found)
			running->all = running->first = 0;
		running->all++;
		running->first += transfers[i].attempt_no == 1;
	}
	pfree(transfers);
}

static bool
contains(const int32 *ids, int n, int32 id)
{
	for (int i = 0; i < n; i++)
	{
		if (ids[i] == id)
			return true;
	}
	return false;
}

Datum
retry_scene_running(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	HASHCTL		ctl = {.keysize = sizeof(int32),.entrysize = sizeof(Running),.hcxt = CurrentMemoryContext};
	HTAB	   *scenes = hash_create("retry running scenes", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	bool		sees_all = retry_sees_all_groups(GetUserId());
	HASH_SEQ_STATUS seq;
	Running    *running;
	int32	   *ids;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	if (!retry_shmem_ready())
		return (Datum) 0;
	ids = retry_visible_scenes(GetActiveSnapshot(), GetUserId(), NULL, false, &n);
	count_running(scenes);
	hash_seq_init(&seq, scenes);
	while ((running = hash_seq_search(&seq)) != NULL)
	{
		Datum		values[3];
		bool		isnull[3] = {0};

		if (!sees_all && !contains(ids, n, running->scene_id))
			continue;
		values[0] = Int32GetDatum(running->scene_id);
		values[1] = Int64GetDatum(running->all);
		values[2] = Int64GetDatum(running->first);
		tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	}
	return (Datum) 0;
}
