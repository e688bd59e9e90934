/*
 * bulk.c
 *		retry.cancel_where(), retry.run_now_where() and retry.amend_where(): what
 *		is asked of all live tasks that the filters let through.
 *
 * Each task gets a signal of its own, appended as for a single one, so nothing
 * is locked that anybody could wait for, and dispatchers need to know nothing
 * of the filters.  The tasks are chosen with one snapshot, by index, in a walk
 * through the leaves that keeps nothing in memory; to spread them evenly, the
 * same walk counts them first.
 *
 * TRUNCATE heeds no snapshots: a leaf that upkeep cleared after the snapshot
 * was taken would look empty, while the few tasks that were moved out of it
 * are not to be seen in their new place yet.  So the leaves are locked against
 * that first, and the snapshot is taken after.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_collation.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "amend.h"
#include "selection.h"
#include "shmem.h"
#include "uuid7.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(retry_cancel_where);
PG_FUNCTION_INFO_V1(retry_run_now_where);
PG_FUNCTION_INFO_V1(retry_amend_where);

/* Tasks after which scratch memory is given back. */
#define SCRATCH_ROWS	64

/* Ids bound a time to the millisecond: in_time() decides. */
#define BOUND_SLACK_US	2000

/* One call. */
typedef struct Bulk
{
	RetrySelection selection;
	char		action;
	RetryChange change;			/* RETRY_SIGNAL_AMEND: what */
	RetryReader *reader;
	RetryWriter *writer;		/* NULL: they are only counted */
	MemoryContext scratch;
	int64		looked_at;
	int64		total;			/* counted before */
	int64		found;
} Bulk;

static inline Datum
column(TupleTableSlot *slot, int attribute)
{
	bool		isnull;

	return slot_getattr(slot, attribute + 1, &isnull);
}

/*
 * Was it enqueued within the time that is meant?  Ids of another kind carry no
 * time and pass only where it does not matter.
 */
static bool
in_time(const RetrySelection *s, const pg_uuid_t *id)
{
	TimestampTz time;

	if (s->since == DT_NOBEGIN && s->until == DT_NOEND)
		return true;
	return retry_uuid7_time(id, &time) && time >= s->since && time < s->until;
}

static text *
text_or_null(TupleTableSlot *slot, int attribute)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attribute + 1, &isnull);

	return isnull ? NULL : DatumGetTextPP(value);
}

/* Is the error of the task's last attempt one that is meant? */
static bool
has_error(Bulk *bulk, const pg_uuid_t *id, int leaf)
{
	TupleTableSlot *slot;

	if (bulk->selection.error == NULL)
		return true;
	slot = retry_last_attempt(bulk->reader, leaf, id);
	return slot != NULL && retry_selection_has_error(&bulk->selection, text_or_null(slot, Attempt_error));
}

/* Judges one task, and asks of it what is to be asked. */
static void
take_task(Bulk *bulk, TupleTableSlot *slot, int leaf)
{
	pg_uuid_t  *id = DatumGetUUIDP(column(slot, Task_id));
	RetryProbe	probe;

	if (!retry_selection_has(&bulk->selection, DatumGetInt32(column(slot, Task_scene_id)),
							 DatumGetObjectId(column(slot, Task_enqueued_by))) ||
		!in_time(&bulk->selection, id) ||
		!retry_selection_has_key(&bulk->selection, text_or_null(slot, Task_key)))
		return;
	retry_probe_task(bulk->reader, leaf, id, &probe);
	if (probe.terminal || probe.cancelled || !has_error(bulk, id, leaf))
		return;
	if (bulk->action == RETRY_SIGNAL_AMEND)
	{
		retry_change_check_task(&bulk->change, GetActiveSnapshot(), DatumGetInt32(column(slot, Task_scene_id)),
								text_or_null(slot, Task_url));
		retry_write_change(bulk->writer, id, leaf, DatumGetInt64(column(slot, Task_lane_hash)), probe.attempts,
						   bulk->selection.role, bulk->change.stored);
	}
	else if (bulk->writer != NULL)
		retry_write_signal_at(bulk->writer, bulk->action, id, leaf,
							  DatumGetInt64(column(slot, Task_lane_hash)), probe.attempts,
							  bulk->selection.role,
							  retry_selection_due(&bulk->selection, bulk->found, bulk->total));
	bulk->found++;
}

/* Takes all tasks of a scan that was started. */
static void
take_scanned(Bulk *bulk, RetryIndex index, int leaf)
{
	TupleTableSlot *slot;

	while ((slot = retry_scan_next(bulk->reader, index, leaf, ForwardScanDirection)) != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(bulk->scratch);

		CHECK_FOR_INTERRUPTS();
		take_task(bulk, slot, leaf);
		MemoryContextSwitchTo(old);
		if (++bulk->looked_at % SCRATCH_ROWS == 0)
			MemoryContextReset(bulk->scratch);
	}
}

/* Takes the tasks enqueued within the time that is meant. */
static void
scan_time(Bulk *bulk, int leaf)
{
	ScanKeyData keys[2];
	pg_uuid_t	first;
	pg_uuid_t	last;

	memset(&first, 0, sizeof(first));
	memset(&last, 0xFF, sizeof(last));
	if (bulk->selection.since != DT_NOBEGIN)
		retry_uuid7_bound(bulk->selection.since, &first);
	if (bulk->selection.until < DT_NOEND - BOUND_SLACK_US)
		retry_uuid7_bound(bulk->selection.until + BOUND_SLACK_US, &last);
	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_UUID_GE, UUIDPGetDatum(&first));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_UUID_LE, UUIDPGetDatum(&last));
	retry_scan_start(bulk->reader, RETRY_TASK_ID, leaf, 2, keys);
	take_scanned(bulk, RETRY_TASK_ID, leaf);
}

/* Takes the tasks of one scene with the reference that is meant. */
static void
scan_reference(Bulk *bulk, int leaf, int32 scene_id)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(scene_id));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid, DEFAULT_COLLATION_OID,
						   F_TEXTEQ, PointerGetDatum(bulk->selection.reference));
	retry_scan_start(bulk->reader, RETRY_TASK_REFERENCE, leaf, 2, keys);
	take_scanned(bulk, RETRY_TASK_REFERENCE, leaf);
}

/*
 * The text that all with the prefix are less than; NULL when there is none.
 * Bytes are compared, as the index does.
 */
static text *
end_of_prefix(const text *prefix)
{
	text	   *end = (text *) PG_DETOAST_DATUM_COPY(PointerGetDatum(prefix));
	unsigned char *bytes = (unsigned char *) VARDATA(end);
	int			len = VARSIZE(end) - VARHDRSZ;

	while (len > 0 && bytes[len - 1] == 0xFF)
		len--;
	if (len == 0)
		return NULL;
	bytes[len - 1]++;
	SET_VARSIZE(end, VARHDRSZ + len);
	return end;
}

/* Takes the tasks of one scene whose keys begin with what is meant. */
static void
scan_key(Bulk *bulk, int leaf, int32 scene_id, text *end)
{
	ScanKeyData keys[3];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(scene_id));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTGreaterEqualStrategyNumber, InvalidOid, DEFAULT_COLLATION_OID,
						   F_TEXT_PATTERN_GE, PointerGetDatum(bulk->selection.key_prefix));
	ScanKeyEntryInitialize(&keys[2], 0, 2, BTLessStrategyNumber, InvalidOid, DEFAULT_COLLATION_OID,
						   F_TEXT_PATTERN_LT, PointerGetDatum(end));
	retry_scan_start(bulk->reader, RETRY_TASK_KEY, leaf, end == NULL ? 2 : 3, keys);
	take_scanned(bulk, RETRY_TASK_KEY, leaf);
}

static void
take_leaf(Bulk *bulk, int leaf)
{
	RetryDatabase *db = retry_shmem_database();

	if ((db != NULL && retry_shmem_leaf_done(db, leaf)) ||
		!retry_reader_leaf(bulk->reader, leaf) ||
		retry_reader_empty(bulk->reader, RETRY_TASK, leaf))
		return;
	if (bulk->selection.reference != NULL)
	{
		for (int i = 0; i < bulk->selection.nscenes; i++)
			scan_reference(bulk, leaf, bulk->selection.scenes[i]);
	}
	else if (bulk->selection.key_prefix != NULL)
	{
		text	   *end = end_of_prefix(bulk->selection.key_prefix);

		for (int i = 0; i < bulk->selection.nscenes; i++)
			scan_key(bulk, leaf, bulk->selection.scenes[i], end);
	}
	else
		scan_time(bulk, leaf);
}

/* All leaves, those of the ring in the order of their days, the oldest first. */
static void
take_all(Bulk *bulk, RetryWriter *writer)
{
	pg_uuid_t	today;
	int			first;

	bulk->writer = writer;
	bulk->total = bulk->found;
	bulk->found = 0;
	retry_uuid7_bound(bulk->selection.now, &today);
	first = retry_ring_leaf(&today) + 1;
	take_leaf(bulk, RETRY_LONG_LEAF);
	for (int i = 0; i < RETRY_RING_LEAVES; i++)
		take_leaf(bulk, (first + i) % RETRY_RING_LEAVES);
}

/*
 * Keeps upkeep from clearing leaves until the end of the transaction; it does
 * not wait for us, but leaves them to the next upkeep.
 */
static void
lock_leaves(void)
{
	for (int leaf = 0; leaf < RETRY_LEAVES; leaf++)
		LockRelationOid(retry_leaf_oid(RETRY_TASK, leaf), AccessShareLock);
}

/* Asks it of all that are meant; "change" is NULL but for RETRY_SIGNAL_AMEND. */
static int64
ask_all(FunctionCallInfo fcinfo, const RetrySelectionArgs *args, const char *function, char action,
		const RetryChange *change)
{
	Bulk		bulk = {.action = action};
	RetryWriter *writer = retry_writer_begin(function);

	if (change != NULL)
		bulk.change = *change;
	retry_selection_read(fcinfo, args, GetActiveSnapshot(), &bulk.selection);
	lock_leaves();
	PushActiveSnapshot(GetLatestSnapshot());
	bulk.reader = retry_reader_begin(GetActiveSnapshot(), false);
	bulk.scratch = AllocSetContextCreate(CurrentMemoryContext, "retry bulk", ALLOCSET_DEFAULT_SIZES);

	if (bulk.selection.spread_us > 0)
		take_all(&bulk, NULL);
	take_all(&bulk, writer);

	MemoryContextDelete(bulk.scratch);
	retry_reader_end(bulk.reader);
	PopActiveSnapshot();
	retry_writer_end(writer);
	return bulk.found;
}

/* retry.cancel_where(target, since, until, reference, group_name, key_prefix, error) */
Datum
retry_cancel_where(PG_FUNCTION_ARGS)
{
	static const RetrySelectionArgs args = {0, 1, 2, 3, -1, 4, 5, 6};

	PG_RETURN_INT64(ask_all(fcinfo, &args, "retry.cancel_where()", RETRY_SIGNAL_CANCEL, NULL));
}

/* retry.run_now_where(target, since, until, reference, spread, group_name, key_prefix, error) */
Datum
retry_run_now_where(PG_FUNCTION_ARGS)
{
	static const RetrySelectionArgs args = {0, 1, 2, 3, 4, 5, 6, 7};

	PG_RETURN_INT64(ask_all(fcinfo, &args, "retry.run_now_where()", RETRY_SIGNAL_RUN_NOW, NULL));
}

/* retry.amend_where(changes, target, since, until, reference, group_name, key_prefix, error) */
Datum
retry_amend_where(PG_FUNCTION_ARGS)
{
	static const RetrySelectionArgs args = {1, 2, 3, 4, -1, 5, 6, 7};
	RetryChange change;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("changes must not be null")));
	retry_change_read(PG_GETARG_JSONB_P(0), GetCurrentTimestamp(), &change);
	PG_RETURN_INT64(ask_all(fcinfo, &args, "retry.amend_where()", RETRY_SIGNAL_AMEND, &change));
}
