/*
 * dead_head.c
 *		Reads and writes the notes on dead tasks that hold up an ordered lane.
 *
 * One row says that a task died there, another, in a second table, that it was
 * passed: replayed with success, or stepped over.  Rows are only appended where
 * attempts are recorded, so that nothing there waits for anybody, and nobody's
 * row lock is in the way.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "dead_head.h"
#include "row.h"

/* Locks a relation for reading; false when that would mean to wait. */
static bool
lock(const char *name, bool nowait)
{
	Oid			oid = retry_relation_oid(name);

	if (nowait)
		return ConditionalLockRelationOid(oid, AccessShareLock);
	LockRelationOid(oid, AccessShareLock);
	return true;
}

/* Was this one passed? */
static bool
is_passed(Relation rel, Snapshot snapshot, const pg_uuid_t *task_id)
{
	ScanKeyData key;
	SysScanDesc scan;
	bool		passed;

	if (RelationGetNumberOfBlocks(rel) == 0)
		return false;
	ScanKeyInit(&key, Passed_task_id + 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(task_id));
	scan = systable_beginscan(rel, retry_relation_oid("dead_head_passed_task"), true, snapshot, 1, &key);
	passed = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	return passed;
}

static void
read_row(HeapTuple row, TupleDesc desc, RetryDeadHead *head)
{
	Datum		values[Head_natts];
	bool		isnull[Head_natts];

	retry_row_read(row, desc, Head_natts, values, isnull);
	head->task_id = *DatumGetUUIDP(values[Head_task_id]);
	head->origin_id = *DatumGetUUIDP(values[Head_origin_id]);
	head->lane_hash = DatumGetInt64(values[Head_lane_hash]);
	head->scene_id = DatumGetInt32(values[Head_scene_id]);
	head->due_at = DatumGetTimestampTz(values[Head_due_at]);
}

bool
retry_dead_heads_read(Snapshot snapshot, const int64 *lane_hash, bool nowait,
					  RetryDeadHead **heads, int *n)
{
	Relation	rel;
	Relation	passed;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;
	int			size = 8;

	*heads = NULL;
	*n = 0;
	if (!lock("dead_head", nowait))
		return false;
	rel = table_open(retry_relation_oid("dead_head"), NoLock);
	if (RelationGetNumberOfBlocks(rel) == 0)
	{
		table_close(rel, NoLock);
		return true;
	}
	if (!lock("dead_head_lane", nowait) || !lock("dead_head_passed", nowait) ||
		!lock("dead_head_passed_task", nowait))
	{
		table_close(rel, NoLock);
		return false;
	}
	passed = table_open(retry_relation_oid("dead_head_passed"), NoLock);
	*heads = palloc(size * sizeof(RetryDeadHead));
	if (lane_hash != NULL)
		ScanKeyInit(&key, Head_lane_hash + 1, BTEqualStrategyNumber, F_INT8EQ,
					Int64GetDatum(*lane_hash));
	scan = systable_beginscan(rel, retry_relation_oid("dead_head_lane"), lane_hash != NULL, snapshot,
							  lane_hash != NULL ? 1 : 0, &key);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		if (*n == size)
			*heads = repalloc(*heads, (size *= 2) * sizeof(RetryDeadHead));
		read_row(row, RelationGetDescr(rel), &(*heads)[*n]);
		(*n)++;
	}
	systable_endscan(scan);
	for (int i = 0; i < *n; i++)
		(*heads)[i].passed = is_passed(passed, snapshot, &(*heads)[i].task_id);
	table_close(passed, NoLock);
	table_close(rel, NoLock);
	return true;
}

/*
 * Is there no dead head at all?  False also when that cannot be found out without
 * waiting.  What a snapshot sees none of, it will never see, so that one look
 * serves a whole transaction, and nearly everybody has none.
 */
static bool
has_none(bool nowait)
{
	Relation	rel;
	bool		none;

	if (!lock("dead_head", nowait))
		return false;
	rel = table_open(retry_relation_oid("dead_head"), NoLock);
	none = RelationGetNumberOfBlocks(rel) == 0;
	table_close(rel, NoLock);
	return none;
}

/* Does a death of this scene's task hold up its lane? */
static bool
blocks(RetryConfig *config, const RetryEnded *ended)
{
	const RetryScene *scene = retry_config_scene(config, ended->scene_id);

	return ended->ordered && scene != NULL && scene->flow.dead_head_blocks;
}

static bool
open_table(RetryAppender **appender, const char *name, int natts, bool wait)
{
	if (*appender == NULL)
		*appender = retry_append_begin(retry_relation_oid(name), natts, !wait);
	return *appender != NULL;
}

bool
retry_head_duty(RetryHeadNotes *notes, RetryConfig *config, const RetryEnded *ended, bool wait,
				RetryHeadDuty *duty)
{
	int			n = 0;

	memset(duty, 0, sizeof(*duty));
	if (!ended->verdict.terminal)
		return true;
	if (ended->verdict.outcome != RETRY_SUCCEEDED)
	{
		duty->died = blocks(config, ended);
		return !duty->died || open_table(&notes->heads, "dead_head", Head_natts, wait);
	}
	if (!notes->none)
		notes->none = has_none(!wait);
	if (notes->none)
		return true;
	if (!retry_dead_heads_read(GetActiveSnapshot(), &ended->lane_hash, !wait, &duty->passed, &n))
		return false;
	for (int i = 0; i < n; i++)
	{
		if (!duty->passed[i].passed)
			duty->passed[duty->npassed++] = duty->passed[i];
	}
	return duty->npassed == 0 || open_table(&notes->passed, "dead_head_passed", Passed_natts, wait);
}

/* The first task of the chain of replays that a task is in. */
static pg_uuid_t
origin_of(const RetryEnded *ended, TupleTableSlot *task)
{
	bool		isnull;
	Datum		origin = slot_getattr(task, Task_origin_id + 1, &isnull);

	return isnull ? ended->entry.pos.id : *DatumGetUUIDP(origin);
}

void
retry_head_note(RetryHeadNotes *notes, const RetryHeadDuty *duty, const RetryEnded *ended,
				TupleTableSlot *task)
{
	pg_uuid_t	origin = origin_of(ended, task);
	bool		isnull[Head_natts] = {false};
	Datum		values[Head_natts];

	if (duty->died)
	{
		values[Head_task_id] = UUIDPGetDatum(&ended->entry.pos.id);
		values[Head_origin_id] = UUIDPGetDatum(&origin);
		values[Head_lane_hash] = Int64GetDatum(ended->lane_hash);
		values[Head_scene_id] = Int32GetDatum(ended->scene_id);
		values[Head_due_at] = slot_getattr(task, Task_due_at + 1, &isnull[Head_due_at]);
		values[Head_died_at] = TimestampTzGetDatum(ended->finished_at);
		retry_append_row(notes->heads, values, isnull);
	}
	for (int i = 0; i < duty->npassed; i++)
	{
		if (memcmp(&duty->passed[i].origin_id, &origin, UUID_LEN) != 0)
			continue;
		values[Passed_task_id] = UUIDPGetDatum(&duty->passed[i].task_id);
		values[Passed_at] = TimestampTzGetDatum(ended->finished_at);
		isnull[Passed_by] = true;
		retry_append_row(notes->passed, values, isnull);
	}
}

void
retry_head_notes_end(RetryHeadNotes *notes)
{
	if (notes->heads != NULL)
		retry_append_end(notes->heads);
	if (notes->passed != NULL)
		retry_append_end(notes->passed);
}
