/*
 * step_over.c
 *		retry.step_over(): an ordered lane goes on behind a dead task.
 *
 * Where a dead task holds up its lane, its replay is one way out, and this is
 * the other.  Like all that is asked of tasks it is another fact: a note that
 * the dead task was passed, and a signal that wakes the lane, wherever it is.
 * A scene whose order no longer waits for the dead passes all of its own, so
 * that they do not come back to life when it is changed once more.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "audit.h"
#include "dead_head.h"
#include "locate.h"
#include "scene.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(retry_step_over);
PG_FUNCTION_INFO_V1(retry_order_dropped);

/* Says which dead tasks are meant. */
typedef bool (*Meant) (const RetryDeadHead *head, const void *arg);

/* Passes those that are meant, of one lane or of all; returns how many there were. */
static int
pass(const int64 *lane_hash, Meant meant, const void *arg)
{
	RetryAppender *appender = NULL;
	RetryDeadHead *heads;
	int			passed = 0;
	int			n;

	PushActiveSnapshot(GetLatestSnapshot());
	(void) retry_dead_heads_read(GetActiveSnapshot(), lane_hash, false, &heads, &n);
	for (int i = 0; i < n; i++)
	{
		Datum		values[Passed_natts];
		bool		isnull[Passed_natts] = {false};

		if (heads[i].passed || !meant(&heads[i], arg))
			continue;
		if (appender == NULL)
			appender = retry_append_begin(retry_relation_oid("dead_head_passed"), Passed_natts, false);
		values[Passed_task_id] = UUIDPGetDatum(&heads[i].task_id);
		values[Passed_at] = TimestampTzGetDatum(GetCurrentTimestamp());
		values[Passed_by] = ObjectIdGetDatum(GetUserId());
		retry_append_row(appender, values, isnull);
		passed++;
	}
	if (appender != NULL)
		retry_append_end(appender);
	PopActiveSnapshot();
	return passed;
}

static bool
is_of_chain(const RetryDeadHead *head, const void *arg)
{
	return memcmp(&head->origin_id, arg, UUID_LEN) == 0;
}

/* retry.step_over(id): of any task in the chain of replays. */
Datum
retry_step_over(PG_FUNCTION_ARGS)
{
	RetryLocated task;
	RetryWriter *writer;
	pg_uuid_t	new_id;
	pg_uuid_t	origin;
	Datum		value;
	bool		isnull;

	retry_locate(PG_GETARG_UUID_P(0), &task);
	value = heap_getattr(task.row, Task_origin_id + 1, task.desc, &isnull);
	origin = isnull ? task.id : *DatumGetUUIDP(value);
	writer = retry_writer_begin("retry.step_over()");
	if (pass(&task.lane_hash, is_of_chain, &origin) == 0)
	{
		retry_writer_end(writer);
		PG_RETURN_BOOL(false);
	}

	/*
	 * the task's own leaf may be gone: it wakes a lane, and is of no use
	 * after
	 */
	retry_new_id(GetCurrentTimestamp(), &new_id);
	retry_write_signal(writer, RETRY_SIGNAL_STEP, &task.id,
					   task.leaf >= 0 ? task.leaf : retry_ring_leaf(&new_id), task.lane_hash,
					   task.probe.attempts, GetUserId());
	retry_writer_end(writer);
	retry_audit_task("task stepped over", &task, NULL);
	PG_RETURN_BOOL(true);
}

static bool
is_of_scene(const RetryDeadHead *head, const void *arg)
{
	return head->scene_id == *(const int32 *) arg;
}

/*
 * AFTER UPDATE, FOR EACH ROW, on retry.scene, when its order no longer waits
 * for dead tasks.
 */
Datum
retry_order_dropped(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		isnull;
	int32		id;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != retry_relation_oid("scene"))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("order_dropped() can only be called as an AFTER UPDATE trigger for each row of retry.scene")));
	id = DatumGetInt32(heap_getattr(trigger->tg_newtuple, Scene_id + 1,
									RelationGetDescr(trigger->tg_relation), &isnull));
	(void) pass(NULL, is_of_scene, &id);
	return PointerGetDatum(NULL);
}
