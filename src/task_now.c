/*
 * task_now.c
 *		How one task stands, for views that know its id: retry.task_now().
 *
 * A join with retry.tasks would say the same, and is planned for a third of a
 * second: six arms over 33 leaves each.  Here it is two or three looks into an
 * index.
 *
 * Everybody may call it, since views call their functions with the rights of
 * whoever reads them; so it asks for itself whether the task may be seen.  What
 * it tells, by the snapshot of the statement, is what retry.tasks tells.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "row.h"
#include "scene_ids.h"
#include "shmem.h"
#include "store.h"

PG_FUNCTION_INFO_V1(retry_task_now);

enum
{
	Now_state, Now_attempts, Now_last_status, Now_last_error, Now_next_due, Now_finished_at, Now_natts
};

/* What stays the same for the tasks of one query. */
typedef struct Known
{
	TupleDesc	desc;
	Oid			role;
	int32	   *scenes;			/* that the role may see, ascending */
	int			nscenes;
	int32	   *own_scenes;		/* of which it sees tasks of its own roles */
	int			n_own_scenes;
} Known;

/* The row that is told. */
typedef struct Row
{
	Datum		values[Now_natts];
	bool		isnull[Now_natts];
} Row;

static void
read_scenes(Known *known)
{
	known->role = GetUserId();
	known->scenes = retry_visible_scenes(GetActiveSnapshot(), known->role, NULL, false, &known->nscenes);
	known->own_scenes = retry_visible_scenes(GetActiveSnapshot(), known->role, NULL, true, &known->n_own_scenes);
	retry_scene_ids_sort(known->scenes, known->nscenes);
	retry_scene_ids_sort(known->own_scenes, known->n_own_scenes);
}

static const Known *
known_by_query(FunctionCallInfo fcinfo)
{
	Known	   *known = fcinfo->flinfo->fn_extra;
	MemoryContext old;

	if (known != NULL && known->role == GetUserId())
		return known;
	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	known = palloc0(sizeof(Known));
	if (get_call_result_type(fcinfo, NULL, &known->desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("retry.task_now() is not declared to return a row")));
	known->desc = BlessTupleDesc(known->desc);
	read_scenes(known);
	MemoryContextSwitchTo(old);
	fcinfo->flinfo->fn_extra = known;
	return known;
}

/* May the role see a task of this scene that was enqueued by that role? */
static bool
may_see(const Known *known, Datum scene_id, Datum enqueued_by)
{
	int32		id = DatumGetInt32(scene_id);

	return retry_scene_ids_has(known->scenes, known->nscenes, id) ||
		(retry_scene_ids_has(known->own_scenes, known->n_own_scenes, id) &&
		 has_privs_of_role(known->role, DatumGetObjectId(enqueued_by)));
}

/*
 * The task where its id says, else in the long leaf; NULL: it is in neither.  Not
 * everywhere, as retry_find_task() looks: most that are asked for are none yet.
 */
static TupleTableSlot *
find_task(RetryReader *reader, const pg_uuid_t *id, int *leaf)
{
	const int	leaves[] = {retry_ring_leaf(id), RETRY_LONG_LEAF};
	TupleTableSlot *slot = NULL;
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	for (int i = 0; i < lengthof(leaves) && slot == NULL; i++)
	{
		*leaf = leaves[i];
		if (!retry_reader_leaf(reader, *leaf) || retry_reader_empty(reader, RETRY_TASK, *leaf))
			continue;
		retry_scan_start(reader, RETRY_TASK_ID, *leaf, 1, &key);
		slot = retry_scan_next(reader, RETRY_TASK_ID, *leaf, ForwardScanDirection);
	}
	return slot;
}

/* When it was first asked to cancel the task. */
static TimestampTz
cancelled_at(RetryReader *reader, int leaf, const pg_uuid_t *id)
{
	TimestampTz first = DT_NOEND;
	TupleTableSlot *slot;

	for (slot = retry_first_signal(reader, leaf, id); slot != NULL;
		 slot = retry_scan_next(reader, RETRY_SIGNAL_TASK, leaf, ForwardScanDirection))
	{
		if (DatumGetChar(retry_column(slot, Signal_action)) == RETRY_SIGNAL_CANCEL)
			first = Min(first, DatumGetTimestampTz(retry_column(slot, Signal_due_at)));
	}
	return first;
}

static void
tell(Row *row, int state, int32 attempts)
{
	row->values[Now_state] = ObjectIdGetDatum(retry_task_state_oid(state));
	row->values[Now_attempts] = Int32GetDatum(attempts);
	row->isnull[Now_state] = row->isnull[Now_attempts] = false;
}

static void
tell_time(Row *row, int column, TimestampTz at)
{
	row->values[column] = TimestampTzGetDatum(at);
	row->isnull[column] = false;
}

/* What the last attempt was answered. */
static void
tell_answer(Row *row, RetryReader *reader, int leaf, const pg_uuid_t *id)
{
	TupleTableSlot *slot = retry_last_attempt(reader, leaf, id);
	Datum		error;

	row->values[Now_last_status] = slot_getattr(slot, Attempt_http_status + 1, &row->isnull[Now_last_status]);
	error = slot_getattr(slot, Attempt_error + 1, &row->isnull[Now_last_error]);
	if (!row->isnull[Now_last_error])
		row->values[Now_last_error] = PointerGetDatum(DatumGetTextPCopy(error));
}

/* A task that has not died, of which "due_at" is when it was first due; false: nothing is told of it. */
static bool
tell_task(Row *row, RetryReader *reader, int leaf, const pg_uuid_t *id, TimestampTz due_at)
{
	RetryInFlight transfer;
	RetryProbe	probe;

	retry_probe_task(reader, leaf, id, &probe);
	if (probe.terminal && probe.outcome != RETRY_SUCCEEDED)
		return false;
	if (probe.terminal)
	{
		tell(row, RETRY_STATE_SUCCEEDED, probe.attempts);
		tell_time(row, Now_finished_at, probe.finished_at);
	}
	else if (retry_shmem_transfer(MyDatabaseId, id, &transfer) && transfer.attempt_no > probe.attempts)
		tell(row, RETRY_STATE_RUNNING, transfer.attempt_no - 1);
	else if (probe.cancelled)
	{
		tell(row, RETRY_STATE_CANCELLED, probe.attempts);
		tell_time(row, Now_finished_at, cancelled_at(reader, leaf, id));
	}
	else
	{
		tell(row, probe.attempts > 0 ? RETRY_STATE_RETRYING : RETRY_STATE_PENDING, probe.attempts);
		tell_time(row, Now_next_due, probe.attempts > 0 ? probe.next_due : due_at);
	}
	if (probe.attempts > 0 && DatumGetInt32(row->values[Now_attempts]) == probe.attempts)
		tell_answer(row, reader, leaf, id);
	return true;
}

/* A task of which a dead letter is left, which outlives its leaf. */
static bool
tell_dead(const Known *known, Row *row, const pg_uuid_t *id)
{
	Relation	rel = table_open(retry_relation_oid("dead_letter"), AccessShareLock);
	Datum		values[Dead_natts];
	bool		isnull[Dead_natts];
	ScanKeyData key;
	HeapTuple	tuple;
	bool		seen = false;

	ScanKeyInit(&key, Task_id + 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	tuple = retry_row_find(rel, retry_relation_oid("dead_letter_pkey"), &key, GetActiveSnapshot());
	if (tuple != NULL)
	{
		retry_row_read(tuple, RelationGetDescr(rel), Dead_natts, values, isnull);
		seen = may_see(known, values[Task_scene_id], values[Task_enqueued_by]);
	}
	if (seen)
	{
		tell(row, RETRY_STATE_DEAD, DatumGetInt32(values[Dead_attempts]));
		tell_time(row, Now_finished_at, DatumGetTimestampTz(values[Dead_died_at]));
		row->values[Now_last_status] = values[Dead_http_status];
		row->isnull[Now_last_status] = isnull[Dead_http_status];
		row->values[Now_last_error] = values[Dead_error];
		row->isnull[Now_last_error] = isnull[Dead_error];
	}
	table_close(rel, AccessShareLock);
	return seen;
}

/* retry.task_now(id): null when there is no such task, or none that the role may see. */
Datum
retry_task_now(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *id = PG_GETARG_UUID_P(0);
	const Known *known = known_by_query(fcinfo);
	RetryReader *reader = retry_reader_begin(GetActiveSnapshot(), false);
	TupleTableSlot *slot;
	Row			row;
	bool		told = false;
	int			leaf;

	memset(row.isnull, true, sizeof(row.isnull));
	slot = find_task(reader, id, &leaf);
	if (slot != NULL && may_see(known, retry_column(slot, Task_scene_id), retry_column(slot, Task_enqueued_by)))
		told = tell_task(&row, reader, leaf, id, DatumGetTimestampTz(retry_column(slot, Task_due_at)));
	retry_reader_end(reader);
	if (!told && !tell_dead(known, &row, id))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(known->desc, row.values, row.isnull)));
}
