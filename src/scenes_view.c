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

#include "utils/timestamp.h"

#include "compat.h"
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
