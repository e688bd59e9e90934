/*
 * begin_timed.c
 *		Begins global transactions that must be decided within a time: TCC, and
 *		two-phase commits.
 *
 * The end of that time is a task like any other, of which nothing is sent: it is
 * kept, paused, dumped and moved as they are, and nobody has to look for
 * transactions whose time is over.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "begin_timed.h"
#include "locate.h"
#include "operation_new.h"
#include "part.h"
#include "scene_use.h"
#include "target.h"

/* The lane of timers: nothing is in their way there. */
#define TIMER_LANE	"transactions"

/* When a time that begins now is over. */
static TimestampTz
end_of_time(Interval *timeout, TimestampTz now)
{
	double		us = ((double) timeout->month * DAYS_PER_MONTH + timeout->day) * (double) USECS_PER_DAY +
	(double) timeout->time;

	if (!(us >= 1000.0 && us <= 30.0 * (double) USECS_PER_DAY))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout is not between 1 ms and 30 days: %s",
						DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(timeout))))));
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now),
												   IntervalPGetDatum(timeout)));
}

static void
find_scene(const text *given, RetrySceneRow *scene)
{
	const char *name = text_to_cstring(given);
	RetryTarget target;

	retry_target_read("scene", name, &target);
	if (target.kind != RETRY_TARGET_SCENE)
		retry_not_a_scene(name);
	retry_target_find("target", &target, GetActiveSnapshot(), GetUserId(), scene);
}

static void
store_timer(RetryWriter *writer, const RetryGlobal *global, const RetrySceneRow *scene)
{
	RetryLaneTask of = {.named = cstring_to_text(TIMER_LANE)};
	Datum		values[Task_natts];
	bool		isnull[Task_natts];
	text	   *lane;
	int64		hash;

	memset(isnull, true, sizeof(isnull));
	retry_lane_choose(&scene->lanes, &of, &lane, &hash);
	RETRY_FILL(Task_scene_id, true, Int32GetDatum(scene->id));
	RETRY_FILL(Task_enqueued_by, true, ObjectIdGetDatum(global->begun_by));
	RETRY_FILL(Task_lane_hash, true, Int64GetDatum(hash));
	RETRY_FILL(Task_lane, lane != NULL, PointerGetDatum(lane));
	RETRY_FILL(Task_reference, global->reference != NULL, PointerGetDatum(global->reference));
	RETRY_FILL(Task_on_success, true, CStringGetTextDatum(RETRY_PART_TIMER_WORD));
	RETRY_FILL(Task_on_dead, true, CStringGetTextDatum(RETRY_PART_TIMER_WORD));
	RETRY_FILL(Task_parent_id, true, UUIDPGetDatum(&global->gid));
	retry_group_admit(&scene->group, 1, true);
	retry_writer_group(writer, &scene->group);
	retry_write_task(writer, &global->check_id, global->expires_at, values, isnull);
	retry_scene_keep(scene);
}

void
retry_begin_timed(const RetryTimed *begun, pg_uuid_t *gid)
{
	TimestampTz now = GetCurrentTimestamp();
	RetryGlobal transaction;
	RetrySceneRow scene;
	RetryWriter *writer;

	if (begun->key != NULL)
		retry_check_short_text("key", begun->key);
	if (begun->reference != NULL)
		retry_check_short_text("reference", begun->reference);
	memset(&transaction, 0, sizeof(transaction));
	transaction.mode = begun->mode;
	transaction.begun_by = GetUserId();
	transaction.at_limit = RETRY_ROLLBACK;
	transaction.has_check = true;
	transaction.key = begun->key;
	transaction.reference = begun->reference;
	transaction.expires_at = end_of_time(begun->timeout, now);

	find_scene(begun->scene, &scene);
	transaction.scene_id = scene.id;

	retry_new_id(now, &transaction.gid);
	retry_new_id(now, &transaction.check_id);
	*gid = transaction.gid;

	writer = retry_writer_begin(begun->function);
	if (retry_operation_claim(&scene, begun->key, now, gid))
	{
		retry_global_store(&transaction, now);
		store_timer(writer, &transaction, &scene);
	}
	retry_writer_end(writer);
	CommandCounterIncrement();
}
