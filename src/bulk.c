/*
 * bulk.c
 *		retry.cancel_where(), retry.run_now_where() and retry.amend_where(): what
 *		is asked of all live tasks that the filters let through.
 *
 * Each task gets a signal of its own, appended as for a single one, so nothing
 * is locked that anybody could wait for, and dispatchers need to know nothing
 * of the filters.  live_walk.c goes through the tasks; here is by which index
 * it does so, and which of them are meant.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_collation.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "amend.h"
#include "audit.h"
#include "live_walk.h"
#include "part.h"
#include "progress.h"
#include "selection.h"
#include "uuid7.h"

PG_FUNCTION_INFO_V1(retry_cancel_where);
PG_FUNCTION_INFO_V1(retry_run_now_where);
PG_FUNCTION_INFO_V1(retry_amend_where);

/* Ids bound a time to the millisecond: in_time() decides. */
#define BOUND_SLACK_US	2000

/* One call. */
typedef struct Bulk
{
	RetrySelection selection;
	char		action;
	RetryChange change;			/* RETRY_SIGNAL_AMEND: what */
} Bulk;

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

/* Of a global transaction, which waits for its end: retry.cancel() refuses it, too. */
static bool
is_needed(const text *on_dead)
{
	return on_dead != NULL && retry_part_is_needed(text_to_cstring(on_dead));
}

/* Is the error of the task's last attempt one that is meant? */
static bool
has_error(const Bulk *bulk, RetryReader *reader, const pg_uuid_t *id, int leaf, int outcome)
{
	TupleTableSlot *slot;
	Datum		status;
	bool		isnull;

	if (bulk->selection.error == NULL)
		return true;
	slot = retry_last_attempt(reader, leaf, id);
	if (slot == NULL)
		return false;
	/* a receiver that is still at work has not failed, whatever the status */
	status = slot_getattr(slot, Attempt_http_status + 1, &isnull);
	return retry_selection_has_error(&bulk->selection, text_or_null(slot, Attempt_error),
									 isnull || outcome != RETRY_FAILED ? 0 : DatumGetInt16(status));
}

/* Judges one task, and asks of it what is to be asked. */
static void
take_task(RetryLiveWalk *walk, TupleTableSlot *slot, int leaf)
{
	Bulk	   *bulk = walk->arg;
	pg_uuid_t  *id = DatumGetUUIDP(retry_column(slot, Task_id));
	RetryProbe	probe;

	if (!retry_selection_has(&bulk->selection, DatumGetInt32(retry_column(slot, Task_scene_id)),
							 DatumGetObjectId(retry_column(slot, Task_enqueued_by))) ||
		!in_time(&bulk->selection, id) ||
		!retry_selection_has_key(&bulk->selection, text_or_null(slot, Task_key)))
		return;
	if (bulk->action == RETRY_SIGNAL_CANCEL && is_needed(text_or_null(slot, Task_on_dead)))
		return;
	retry_probe_task(walk->reader, leaf, id, &probe);
	if (probe.terminal || probe.cancelled || !has_error(bulk, walk->reader, id, leaf, probe.outcome))
		return;
	if (bulk->action == RETRY_SIGNAL_AMEND)
	{
		retry_change_check_task(&bulk->change, GetActiveSnapshot(), DatumGetInt32(retry_column(slot, Task_scene_id)),
								text_or_null(slot, Task_url), text_or_null(slot, Task_on_success),
								DatumGetObjectId(retry_column(slot, Task_enqueued_by)));
		retry_write_change(walk->writer, id, leaf, DatumGetInt64(retry_column(slot, Task_lane_hash)), probe.attempts,
						   bulk->selection.role, bulk->change.stored);
	}
	else if (walk->writer != NULL)
		retry_write_signal_at(walk->writer, bulk->action, id, leaf,
							  DatumGetInt64(retry_column(slot, Task_lane_hash)), probe.attempts,
							  bulk->selection.role,
							  retry_spread_due(bulk->selection.now, bulk->selection.spread_us,
											   walk->found, walk->total));
	walk->found++;
}

/* Takes the tasks enqueued within the time that is meant. */
static void
scan_time(RetryLiveWalk *walk, int leaf)
{
	Bulk	   *bulk = walk->arg;
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
	retry_scan_start(walk->reader, RETRY_TASK_ID, leaf, 2, keys);
	retry_live_walk_take(walk, RETRY_TASK_ID, leaf);
}

/*
 * Adds a key for the second column of an index, where one scene is meant; of
 * several take_task() finds out, for the first column says nearly all.
 */
static int
add_scene(const RetrySelection *s, ScanKeyData *keys, int n)
{
	if (s->nscenes == 1)
		ScanKeyInit(&keys[n++], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(s->scenes[0]));
	return n;
}

/* Takes the tasks with the reference that is meant. */
static void
scan_reference(RetryLiveWalk *walk, int leaf)
{
	Bulk	   *bulk = walk->arg;
	ScanKeyData keys[2];

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, DEFAULT_COLLATION_OID,
						   F_TEXTEQ, PointerGetDatum(bulk->selection.reference));
	retry_scan_start(walk->reader, RETRY_TASK_REFERENCE, leaf, add_scene(&bulk->selection, keys, 1), keys);
	retry_live_walk_take(walk, RETRY_TASK_REFERENCE, leaf);
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

/* Takes the tasks whose keys begin with what is meant. */
static void
scan_key(RetryLiveWalk *walk, int leaf)
{
	Bulk	   *bulk = walk->arg;
	text	   *end = end_of_prefix(bulk->selection.key_prefix);
	ScanKeyData keys[3];
	int			n = 0;

	ScanKeyEntryInitialize(&keys[n++], 0, 1, BTGreaterEqualStrategyNumber, InvalidOid, DEFAULT_COLLATION_OID,
						   F_TEXT_PATTERN_GE, PointerGetDatum(bulk->selection.key_prefix));
	if (end != NULL)
		ScanKeyEntryInitialize(&keys[n++], 0, 1, BTLessStrategyNumber, InvalidOid, DEFAULT_COLLATION_OID,
							   F_TEXT_PATTERN_LT, PointerGetDatum(end));
	retry_scan_start(walk->reader, RETRY_TASK_KEY, leaf, add_scene(&bulk->selection, keys, n), keys);
	retry_live_walk_take(walk, RETRY_TASK_KEY, leaf);
}

static void
scan_leaf(RetryLiveWalk *walk, int leaf)
{
	Bulk	   *bulk = walk->arg;

	if (bulk->selection.nscenes == 0)
		return;
	if (bulk->selection.reference != NULL)
		scan_reference(walk, leaf);
	else if (bulk->selection.key_prefix != NULL)
		scan_key(walk, leaf);
	else
		scan_time(walk, leaf);
}

/* Asks it of all that are meant; "change" is NULL but for RETRY_SIGNAL_AMEND. */
static int64
ask_all(FunctionCallInfo fcinfo, const RetrySelectionArgs *args, const char *function, char action,
		const RetryChange *change)
{
	Bulk		bulk = {.action = action};
	RetryLiveWalk walk = {.scan_leaf = scan_leaf,.take = take_task,.arg = &bulk};
	RetryWriter *writer = retry_writer_begin(function);

	if (change != NULL)
		bulk.change = *change;
	retry_selection_read(fcinfo, args, GetActiveSnapshot(), &bulk.selection);
	walk.narrow = bulk.selection.reference != NULL || bulk.selection.key_prefix != NULL ||
		bulk.selection.since != DT_NOBEGIN || bulk.selection.until != DT_NOEND;
	walk.progress = retry_progress_begin_call(fcinfo, function, bulk.selection.nscenes == 1 ? bulk.selection.scenes[0] : 0);
	PG_TRY();
	{
		retry_live_walk(&walk, writer, bulk.selection.now, bulk.selection.spread_us > 0);
	}
	PG_FINALLY();
	{
		retry_progress_end(walk.progress);
	}
	PG_END_TRY();
	retry_writer_end(writer);
	retry_audit_call(fcinfo, action == RETRY_SIGNAL_CANCEL ? "tasks cancelled" :
					 action == RETRY_SIGNAL_RUN_NOW ? "tasks run now" : "tasks amended", walk.found);
	return walk.found;
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
