/*
 * locate.c
 *		Finds one task by its id and judges whether the caller may have it.
 *
 * Cancel, run_now, replay and wait all begin so.  They look with the newest
 * snapshot rather than the statement's: what is asked of a task is about how
 * it stands now, and a worker's records commit all the time.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "access.h"
#include "amend.h"
#include "locate.h"
#include "row.h"

char *
retry_id_text(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}

void
retry_no_such_task(const pg_uuid_t *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("task %s does not exist", retry_id_text(id)),
			 errhint("The view retry.tasks shows the tasks that you may see.")));
}

static Datum
column(const RetryLocated *task, int attribute)
{
	bool		isnull;

	return heap_getattr(task->row, attribute + 1, task->desc, &isnull);
}

/* Looks in the leaves. */
static bool
find_in_leaves(Snapshot snapshot, RetryLocated *task)
{
	RetryReader *reader = retry_reader_begin(snapshot, false);
	TupleTableSlot *slot;
	bool		cancelled;

	task->leaf = -1;
	slot = retry_find_task(reader, &task->id, NULL, &task->leaf);
	if (slot != NULL)
	{
		task->row = ExecCopySlotHeapTuple(slot);
		task->desc = CreateTupleDescCopy(slot->tts_tupleDescriptor);
		retry_probe_task(reader, task->leaf, &task->id, &task->probe);
		task->changes = retry_task_changes(reader, task->leaf, &task->id, &cancelled);
	}
	retry_reader_end(reader);
	return slot != NULL;
}

/* Looks among the dead letters. */
static bool
find_dead_letter(Snapshot snapshot, RetryLocated *task)
{
	Relation	rel = table_open(retry_relation_oid("dead_letter"), AccessShareLock);
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Task_id + 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(&task->id));
	tuple = retry_row_find(rel, retry_relation_oid("dead_letter_pkey"), &key, snapshot);
	if (tuple != NULL)
	{
		task->row = tuple;
		task->desc = CreateTupleDescCopy(RelationGetDescr(rel));
		task->leaf = -1;
		memset(&task->probe, 0, sizeof(task->probe));
		task->probe.terminal = true;
		task->probe.outcome = RETRY_FAILED;
		task->probe.attempts = DatumGetInt32(column(task, Dead_attempts));
	}
	table_close(rel, NoLock);
	return tuple != NULL;
}

/* Whether the current role may see the task; its scene is found for that. */
static bool
may_administer(Snapshot snapshot, RetryLocated *task)
{
	Oid			role = GetUserId();

	task->has_scene = retry_scene_by_id(snapshot, task->scene_id, &task->scene);
	if (!task->has_scene)
		return superuser_arg(role);
	return retry_may_use_task(snapshot, role, &task->scene.group,
							  DatumGetObjectId(column(task, Task_enqueued_by)));
}

void
retry_locate(const pg_uuid_t *id, RetryLocated *task)
{
	bool		found = false;
	bool		allowed = false;

	memset(task, 0, sizeof(*task));
	task->id = *id;

	/*
	 * A snapshot taken before upkeep moved the task to the long leaf, and
	 * used after, sees it in neither: the second look takes a new one.
	 */
	for (int i = 0; i < 2 && !found; i++)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		found = find_in_leaves(GetActiveSnapshot(), task) ||
			(i > 0 && find_dead_letter(GetActiveSnapshot(), task));
		if (found)
		{
			task->scene_id = DatumGetInt32(column(task, Task_scene_id));
			task->lane_hash = DatumGetInt64(column(task, Task_lane_hash));
			task->xid = U64FromFullTransactionId(DatumGetFullTransactionId(column(task, Task_xid)));
			allowed = may_administer(GetActiveSnapshot(), task);
		}
		PopActiveSnapshot();
	}
	if (!found || !allowed)
		retry_no_such_task(id);
}

bool
retry_locate_again(Snapshot snapshot, RetryLocated *task)
{
	RetryReader *reader;
	TupleTableSlot *slot;
	int			leaf = task->leaf;

	if (leaf < 0)
		return true;
	reader = retry_reader_begin(snapshot, false);
	slot = retry_find_task(reader, &task->id, NULL, &leaf);
	if (slot != NULL)
	{
		task->leaf = leaf;
		retry_probe_task(reader, leaf, &task->id, &task->probe);
	}
	retry_reader_end(reader);
	return slot != NULL;
}
