/*
 * resume.c
 *		What becomes of the backlog when a scene or a group is resumed that is
 *		to be resumed little by little.
 *
 * A pause leaves behind tasks that are all due.  With resume_over set they are
 * to go one after the other, evenly over that time, and no dispatcher knows
 * how many they are.  So the statement that resumes counts them, and asks for
 * each to be run at its moment, by a signal as retry.run_now_where() writes it.
 * Until the last of these dispatchers pass over what was due before resumed_at
 * (held.c); tasks that nobody could see yet, and so have no signal, go then.
 *
 * Whoever may change the row may do that; so the trigger makes sure that it
 * is one of retry's own tables whose row was changed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "live_walk.h"
#include "progress.h"
#include "scene.h"

PG_FUNCTION_INFO_V1(retry_resumed);

/* One resumption. */
typedef struct Resumption
{
	int32	   *scenes;
	int			nscenes;
	TimestampTz resumed_at;		/* what was due before is spread … */
	TimestampTz from;			/* … from then on … */
	int64		over_us;		/* … over this */
	RetryGroupRow group;
} Resumption;

static bool
is_meant(const Resumption *r, int32 scene_id)
{
	for (int i = 0; i < r->nscenes; i++)
	{
		if (r->scenes[i] == scene_id)
			return true;
	}
	return false;
}

/* Did somebody ask for the task's next attempt to be made before it was resumed? */
static bool
was_asked_for(const Resumption *r, RetryReader *reader, int leaf, Datum id, int32 attempts)
{
	ScanKeyData key;
	TupleTableSlot *slot;

	if (retry_reader_empty(reader, RETRY_SIGNAL, leaf))
		return false;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, id);
	retry_scan_start(reader, RETRY_SIGNAL_TASK, leaf, 1, &key);
	while ((slot = retry_scan_next(reader, RETRY_SIGNAL_TASK, leaf, ForwardScanDirection)) != NULL)
	{
		if (DatumGetChar(retry_column(slot, Signal_action)) == RETRY_SIGNAL_RUN_NOW &&
			DatumGetInt32(retry_column(slot, Signal_after_attempt)) == attempts &&
			DatumGetTimestampTz(retry_column(slot, Signal_due_at)) < r->resumed_at)
			return true;
	}
	return false;
}

/* Counts a task if it is one of the backlog, and says when it is to go. */
static void
take_task(RetryLiveWalk *walk, TupleTableSlot *slot, int leaf)
{
	const Resumption *r = walk->arg;
	Datum		id = retry_column(slot, Task_id);
	TimestampTz due = DatumGetTimestampTz(retry_column(slot, Task_due_at));
	RetryProbe	probe;

	if (!is_meant(r, DatumGetInt32(retry_column(slot, Task_scene_id))))
		return;
	retry_probe_task(walk->reader, leaf, DatumGetUUIDP(id), &probe);
	if (probe.terminal || probe.cancelled)
		return;
	if (probe.attempts > 0)
		due = probe.next_due;
	if (due >= r->resumed_at && !was_asked_for(r, walk->reader, leaf, id, probe.attempts))
		return;
	if (walk->writer != NULL)
		retry_write_signal_at(walk->writer, RETRY_SIGNAL_RUN_NOW, DatumGetUUIDP(id), leaf,
							  DatumGetInt64(retry_column(slot, Task_lane_hash)), probe.attempts, GetUserId(),
							  retry_spread_due(r->from, r->over_us, walk->found, walk->total));
	walk->found++;
}

/* All of them: no index knows what is due, and signals at once. */
static void
scan_leaf(RetryLiveWalk *walk, int leaf)
{
	ScanKeyData key;
	pg_uuid_t	first;

	memset(&first, 0, sizeof(first));
	ScanKeyInit(&key, 1, BTGreaterEqualStrategyNumber, F_UUID_GE, UUIDPGetDatum(&first));
	retry_scan_start(walk->reader, RETRY_TASK_ID, leaf, 1, &key);
	retry_live_walk_take(walk, RETRY_TASK_ID, leaf);
}

/* Counts first, then spreads. */
static void
spread(Resumption *r)
{
	RetryLiveWalk walk = {.scan_leaf = scan_leaf,.take = take_task,.arg = r};
	RetryWriter *writer = retry_writer_begin("a resumption");

	walk.progress = retry_progress_begin("resumption", r->group.id, r->nscenes == 1 ? r->scenes[0] : 0, NULL);
	PG_TRY();
	{
		retry_live_walk(&walk, writer, r->resumed_at, true);
	}
	PG_FINALLY();
	{
		retry_progress_end(walk.progress);
	}
	PG_END_TRY();
	retry_writer_end(writer);
}

/* How a row says that it was resumed; false when it is not spread, or no longer. */
static bool
read_resumption(Resumption *r, HeapTuple row, TupleDesc desc, int at_column, int over_column)
{
	bool		isnull[2];
	Datum		at = heap_getattr(row, at_column + 1, desc, &isnull[0]);
	Datum		over = heap_getattr(row, over_column + 1, desc, &isnull[1]);
	TimestampTz end;

	if (isnull[0] || isnull[1])
		return false;
	end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, at, over));
	r->resumed_at = DatumGetTimestampTz(at);
	r->from = Max(r->resumed_at, GetCurrentTimestamp());
	r->over_us = end - r->from;
	return r->over_us > 0;
}

static bool
is_text(Relation rel, int number, Datum a, Datum b)
{
	return DatumGetBool(DirectFunctionCall2Coll(texteq, TupleDescAttr(RelationGetDescr(rel), number)->attcollation,
												a, b));
}

/* Is the scene's group in the middle of being resumed?  Then the scene takes part. */
static bool
read_group(Resumption *r, Datum group_name)
{
	Relation	rel = table_open(retry_relation_oid("scene_group"), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan;
	bool		spread = false;

	PushActiveSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		if (!is_text(rel, Group_name, retry_column(slot, Group_name), group_name) ||
			DatumGetBool(retry_column(slot, Group_paused)))
			continue;
		spread = read_resumption(r, ExecFetchSlotHeapTuple(slot, false, NULL), RelationGetDescr(rel),
								 Group_resumed_at, Group_resume_over);
	}
	table_endscan(scan);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return spread;
}

/* The scenes of a group that are not paused themselves. */
static void
choose_scenes(Resumption *r, Datum group_name)
{
	Relation	rel = table_open(retry_relation_oid("scene"), AccessShareLock);
	TableScanDesc scan;
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int			size = 16;

	PushActiveSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	r->scenes = palloc(size * sizeof(int32));
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		if (DatumGetBool(retry_column(slot, Scene_paused)) ||
			!is_text(rel, Scene_group_name, retry_column(slot, Scene_group_name), group_name))
			continue;
		if (r->nscenes == size)
			r->scenes = repalloc(r->scenes, (size *= 2) * sizeof(int32));
		r->scenes[r->nscenes++] = DatumGetInt32(retry_column(slot, Scene_id));
	}
	table_endscan(scan);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/*
 * AFTER UPDATE, FOR EACH ROW, on retry.scene and retry.scene_group, when the
 * row is no longer paused.
 */
Datum
retry_resumed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Resumption	r = {0};
	TupleDesc	desc;
	HeapTuple	row;
	bool		isnull;
	bool		is_scene;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("resumed() can only be called as an AFTER UPDATE trigger for each row")));
	is_scene = RelationGetRelid(trigger->tg_relation) == retry_relation_oid("scene");
	if (!is_scene && RelationGetRelid(trigger->tg_relation) != retry_relation_oid("scene_group"))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("resumed() is of no use on table \"%s\"", RelationGetRelationName(trigger->tg_relation))));

	desc = RelationGetDescr(trigger->tg_relation);
	row = trigger->tg_newtuple;
	if (is_scene)
	{
		if (!read_resumption(&r, row, desc, Scene_resumed_at, Scene_resume_over) &&
			!read_group(&r, heap_getattr(row, Scene_group_name + 1, desc, &isnull)))
			return PointerGetDatum(NULL);
		r.scenes = palloc(sizeof(int32));
		r.scenes[r.nscenes++] = DatumGetInt32(heap_getattr(row, Scene_id + 1, desc, &isnull));
	}
	else if (read_resumption(&r, row, desc, Group_resumed_at, Group_resume_over))
		choose_scenes(&r, heap_getattr(row, Group_name + 1, desc, &isnull));
	if (r.nscenes == 0)
		return PointerGetDatum(NULL);
	(void) retry_group_by_name(GetActiveSnapshot(),
							   TextDatumGetCString(heap_getattr(row, (is_scene ? Scene_group_name : Group_name) + 1,
																desc, &isnull)), &r.group);
	spread(&r);
	return PointerGetDatum(NULL);
}
