/*
 * upkeep_leaf.c
 *		Retention: truncating leaves whose tasks are all old and finished.
 *
 * A leaf goes as a whole, so it must be certain that nothing in it is still
 * wanted.  The long part of that is done under a snapshot, beside enqueue and
 * delivery: a merge of the leaf's tasks, attempts and signals, each in the
 * order of their ids by index, so that no plan and no statistics matter.  Then
 * the leaf's tables are locked if that can be had at once, which means that
 * every transaction that has written to them has ended; and only what the
 * snapshot could not see is looked at again before they are truncated.
 *
 *	- A task that was enqueued meanwhile carries a transaction number that the
 *	  snapshot does not see, and is found by it.
 *	- A finished task stays finished.  What is in flight shows itself in shared
 *	  memory while its dispatcher holds a lock on the leaf, and until its
 *	  attempt is recorded, so with our lock held it is either shown or cannot
 *	  begin.
 *	- A dispatcher whose snapshot is older than the truncation must not take an
 *	  empty leaf for the truth, since TRUNCATE heeds no snapshots: it counts
 *	  truncations, see retry_reader_watch().
 *
 * The few tasks that keep an otherwise finished leaf from going when the ring
 * is about to come round to it are moved to the leaf beside the ring, whole
 * and with their transaction numbers and due times, hence with their place in
 * their lanes.  That leaf is always read and is kept row by row.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "shmem.h"
#include "statement.h"
#include "store.h"
#include "turn.h"
#include "upkeep.h"
#include "wakeup.h"
#include "worker.h"

#define MOVE_LIMIT			1000	/* survivors that are moved, not waited
									 * for */
#define MOVE_AGE_US			(28 * USECS_PER_DAY)	/* the ring comes round
													 * after 32 */
#define DELETE_BATCH		500
#define EXAMINE_BATCH		20000	/* tasks looked at in one transaction */
#define SHOWN_TASKS			1024	/* tasks after which progress is shown */

/* A task as its facts tell, in a walk through a leaf by id. */
typedef struct Folded
{
	pg_uuid_t	id;
	bool		finished;		/* ended by an attempt, or cancelled */
	TimestampTz ended_at;		/* when */
} Folded;

/* The walk: the next attempt and signal that are not passed yet. */
typedef struct Walk
{
	RetryReader *reader;
	int			leaf;
	TupleTableSlot *attempt;
	TupleTableSlot *signal;
} Walk;

/* What is known of a leaf under the snapshot. */
typedef struct Look
{
	bool		old;			/* no task is younger than the cut-off */
	bool		coming_round;	/* its turn in the ring is near */
	bool		complete;		/* the walk came to its end */
	TimestampTz last_end;		/* of those finished; DT_NOBEGIN: none */
	int64		ntasks;			/* that were looked at */
	int			nsurvivors;
	pg_uuid_t	survivors[MOVE_LIMIT];
} Look;

/* The moment in the first 48 bits of an id, whatever its kind. */
static TimestampTz
id_time(const pg_uuid_t *id)
{
	int64		ms = 0;

	for (int i = 0; i < 6; i++)
		ms = (ms << 8) | id->data[i];
	return (ms - (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000) * 1000;
}

static inline int
compare_ids(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a->data, b->data, UUID_LEN);
}

/* Starts a scan of one of the indexes that begin with the task's id. */
static void
scan_after(RetryReader *reader, RetryIndex index, int leaf, const pg_uuid_t *after)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_UUID_GT, UUIDPGetDatum(after));
	retry_scan_start(reader, index, leaf, 1, &key);
}

static TupleTableSlot *
next_of(Walk *walk, RetryIndex index)
{
	return retry_scan_next(walk->reader, index, walk->leaf, ForwardScanDirection);
}

static void
walk_begin(Walk *walk, RetryReader *reader, int leaf, const pg_uuid_t *after)
{
	walk->reader = reader;
	walk->leaf = leaf;
	scan_after(reader, RETRY_TASK_ID, leaf, after);
	scan_after(reader, RETRY_ATTEMPT_NO, leaf, after);
	scan_after(reader, RETRY_SIGNAL_TASK, leaf, after);
	walk->attempt = next_of(walk, RETRY_ATTEMPT_NO);
	walk->signal = next_of(walk, RETRY_SIGNAL_TASK);
}

/* The next task in the order of ids; false at the end. */
static bool
walk_next(Walk *walk, Folded *task)
{
	TupleTableSlot *slot = next_of(walk, RETRY_TASK_ID);
	bool		isnull;
	int			order;

	if (slot == NULL)
		return false;
	memset(task, 0, sizeof(*task));
	task->id = *DatumGetUUIDP(retry_column(slot, Task_id));

	/* the attempts come in the order of their numbers: the last one counts */
	while (walk->attempt != NULL &&
		   (order = compare_ids(DatumGetUUIDP(retry_column(walk->attempt, Attempt_task_id)), &task->id)) <= 0)
	{
		if (order == 0)
		{
			(void) slot_getattr(walk->attempt, Attempt_next_due + 1, &isnull);
			task->finished = isnull;
			task->ended_at = DatumGetTimestampTz(retry_column(walk->attempt, Attempt_finished_at));
		}
		walk->attempt = next_of(walk, RETRY_ATTEMPT_NO);
	}
	while (walk->signal != NULL &&
		   (order = compare_ids(DatumGetUUIDP(retry_column(walk->signal, Signal_task_id)), &task->id)) <= 0)
	{
		if (order == 0 && DatumGetChar(retry_column(walk->signal, Signal_action)) == RETRY_SIGNAL_CANCEL)
		{
			task->ended_at = Max(task->ended_at, DatumGetTimestampTz(retry_column(walk->signal, Signal_due_at)));
			task->finished = true;
		}
		walk->signal = next_of(walk, RETRY_SIGNAL_TASK);
	}
	return true;
}

/* When the newest task was made that a leaf's index has a row of; DT_NOBEGIN: it has none. */
static TimestampTz
newest(RetryReader *reader, RetryIndex index, int id_column, int leaf)
{
	static const pg_uuid_t zero = {{0}};
	TupleTableSlot *slot;

	scan_after(reader, index, leaf, &zero);
	slot = retry_scan_next(reader, index, leaf, BackwardScanDirection);
	return slot != NULL ? id_time(DatumGetUUIDP(retry_column(slot, id_column))) : DT_NOBEGIN;
}

/*
 * Has the leaf attempts or signals and no task?  A restore brings them in this
 * order.  When the ring is about to come round to it, they are left over.
 */
static bool
lacks_tasks(const RetryUpkeep *upkeep, RetryReader *reader, int leaf, TimestampTz newest_task)
{
	TimestampTz orphan;

	if (newest_task != DT_NOBEGIN)
		return false;
	orphan = Max(newest(reader, RETRY_ATTEMPT_NO, Attempt_task_id, leaf),
				 newest(reader, RETRY_SIGNAL_TASK, Signal_task_id, leaf));
	return orphan >= upkeep->now - MOVE_AGE_US;
}

bool
retry_upkeep_amidst_restore(const RetryUpkeep *upkeep)
{
	RetryDatabase *db = retry_shmem_database();
	RetryReader *reader;
	bool		restoring = false;

	retry_worker_begin_spi("looking whether a restore is under way");
	reader = retry_reader_begin(GetActiveSnapshot(), true);
	for (int leaf = 0; leaf < RETRY_RING_LEAVES && !restoring; leaf++)
		restoring = retry_reader_leaf(reader, leaf) &&
			lacks_tasks(upkeep, reader, leaf, newest(reader, RETRY_TASK_ID, Task_id, leaf));
	retry_reader_end(reader);
	if (restoring && (db == NULL || !db->upkeep_waits))
		ereport(LOG,
				(errmsg("retry: upkeep of database \"%s\" waits, since attempts have come whose tasks have not",
						get_database_name(MyDatabaseId)),
				 errhint("It goes on by itself when the restore that brings them is done.")));
	if (db != NULL)
		db->upkeep_waits = restoring;
	retry_worker_commit_spi();
	return restoring;
}

/*
 * Looks through a leaf.  False when there is no reason to: it is empty, or
 * young, or known to be finished and not old enough to go; or it has attempts
 * and no tasks, as in the midst of a restore, which brings the tasks later.
 */
static bool
look_at_leaf(RetryUpkeep *upkeep, RetryReader *reader, int leaf, Look *look)
{
	static const pg_uuid_t zero = {{0}};
	RetryDatabase *db = retry_shmem_database();
	TimestampTz newest_task;
	Folded		task;
	Walk		walk;
	int			limit;

	memset(look, 0, offsetof(Look, survivors));
	look->last_end = DT_NOBEGIN;
	if (retry_reader_empty(reader, RETRY_TASK, leaf) &&
		retry_reader_empty(reader, RETRY_ATTEMPT, leaf) &&
		retry_reader_empty(reader, RETRY_SIGNAL, leaf))
		return false;
	newest_task = newest(reader, RETRY_TASK_ID, Task_id, leaf);
	if (lacks_tasks(upkeep, reader, leaf, newest_task))
		return false;
	look->old = newest_task < upkeep->cutoff;
	look->coming_round = newest_task < upkeep->now - MOVE_AGE_US;
	if (!look->old &&
		(newest_task > upkeep->now - USECS_PER_DAY || db == NULL || retry_shmem_leaf_done(db, leaf)))
		return false;

	limit = look->old && look->coming_round ? MOVE_LIMIT : 0;
	walk_begin(&walk, reader, leaf, &zero);
	while (walk_next(&walk, &task))
	{
		CHECK_FOR_INTERRUPTS();
		if (++look->ntasks % SHOWN_TASKS == 0)
			retry_upkeep_count_rows(upkeep, SHOWN_TASKS, 0);
		if (task.finished)
			look->last_end = Max(look->last_end, task.ended_at);
		else if (look->nsurvivors == limit)
			return true;
		else
			look->survivors[look->nsurvivors++] = task.id;
	}
	look->complete = !retry_reader_blocked(reader);
	return true;
}

/* True when a row is visible now that the earlier snapshot could not see. */
static bool
has_newer(RetryReader *reader, RetryIndex index, int leaf, const RetryHorizon *seen)
{
	pg_uuid_t	highest;
	TupleTableSlot *slot;

	memset(highest.data, 0xFF, UUID_LEN);
	retry_scan_xids(reader, index, leaf, seen->xmin - 1, &highest, PG_UINT64_MAX);
	while ((slot = retry_scan_next(reader, index, leaf, ForwardScanDirection)) != NULL)
	{
		uint64		xid = DatumGetUInt64(retry_column(slot, index == RETRY_TASK_XID ? Task_xid : Signal_xid));

		if (retry_horizon_hides(seen, xid))
			return true;
	}
	return retry_reader_blocked(reader);
}

/* Copies the rows of one task from one of a leaf's tables to the long leaf's. */
static void
move_rows(RetryReader *reader, RetryIndex index, int leaf, const pg_uuid_t *id, RetryAppender *appender)
{
	ScanKeyData key;
	TupleTableSlot *slot;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	retry_scan_start(reader, index, leaf, 1, &key);
	while ((slot = retry_scan_next(reader, index, leaf, ForwardScanDirection)) != NULL)
	{
		/* leaf is the first column of all three */
		slot_getallattrs(slot);
		slot->tts_values[0] = Int16GetDatum(RETRY_LONG_LEAF);
		retry_append_row(appender, slot->tts_values, slot->tts_isnull);
	}
}

/* Moves those that are still not finished; false when the long leaf is locked. */
static bool
move_survivors(RetryReader *reader, int leaf, const Look *look)
{
	static const RetryIndex by_id[RETRY_TABLES] = {RETRY_TASK_ID, RETRY_ATTEMPT_NO, RETRY_SIGNAL_TASK};
	RetryAppender *appenders[RETRY_TABLES] = {NULL};
	uint64		xid;
	bool		open = true;
	int			moved = 0;

	if (look->nsurvivors == 0)
		return true;
	xid = U64FromFullTransactionId(GetTopFullTransactionId());
	for (int i = 0; i < RETRY_TABLES; i++)
	{
		appenders[i] = retry_append_begin(retry_leaf_oid((RetryTable) i, RETRY_LONG_LEAF), 0, true);
		open = open && appenders[i] != NULL;
	}
	for (int i = 0; open && i < look->nsurvivors; i++)
	{
		const pg_uuid_t *id = &look->survivors[i];
		RetryProbe	probe;
		int			found = leaf;
		TupleTableSlot *slot;

		retry_probe_task(reader, leaf, id, &probe);
		slot = retry_find_task(reader, id, NULL, &found);
		if (probe.terminal || probe.cancelled || slot == NULL)
			continue;
		/* a feed that is far behind must look for their numbers there */
		retry_wakeup_row(RETRY_LONG_LEAF, DatumGetInt64(retry_column(slot, Task_lane_hash)), xid);
		for (int t = 0; t < RETRY_TABLES; t++)
			move_rows(reader, by_id[t], leaf, id, appenders[t]);
		moved++;
	}
	for (int i = 0; i < RETRY_TABLES; i++)
	{
		if (appenders[i] != NULL)
			retry_append_end(appenders[i]);
	}
	if (moved > 0)
		ereport(LOG,
				(errmsg("retry: %d unfinished tasks were moved from leaf %d, which the ring comes round to, to leaf %d",
						moved, leaf, RETRY_LONG_LEAF)));
	return open;
}

static bool truncated = false;

/*
 * When the truncation has become visible and before its locks are released:
 * who gets a lock on the leaf from now on knows of it.
 */
static void
at_transaction_event(XactEvent event, void *arg)
{
	RetryDatabase *db;

	if (!truncated || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	truncated = false;
	db = retry_shmem_peek_database();
	if (event == XACT_EVENT_COMMIT && db != NULL)
		pg_atomic_fetch_add_u64(&db->truncations, 1);
}

static void
truncate_leaf(int leaf)
{
	static bool registered = false;
	char	   *sql = psprintf("TRUNCATE ONLY retry.task_%02d, ONLY retry.attempt_%02d, ONLY retry.signal_%02d",
							   leaf, leaf, leaf);

	if (!registered)
		RegisterXactCallback(at_transaction_event, NULL);
	registered = true;
	(void) retry_shmem_database();
	truncated = true;
	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg_internal("could not execute \"%s\"", sql)));
}

/*
 * Truncates a leaf that the look has found fit to go; "seen" is what the look
 * saw.  False when something is locked, or in flight there; nothing must be
 * committed then.
 */
static bool
drop_leaf(int leaf, const Look *look, const RetryHorizon *seen)
{
	RetryReader *reader;
	bool		newer;
	bool		good = true;

	for (int i = 0; i < RETRY_TABLES; i++)
	{
		if (!ConditionalLockRelationOid(retry_leaf_oid((RetryTable) i, leaf), AccessExclusiveLock))
			return false;
	}
	if (retry_shmem_leaf_running(MyDatabaseId, leaf))
		return false;

	PushActiveSnapshot(GetLatestSnapshot());
	reader = retry_reader_begin(GetActiveSnapshot(), true);
	if (!retry_reader_leaf(reader, leaf))
		good = false;
	newer = good && (has_newer(reader, RETRY_TASK_XID, leaf, seen) ||
					 has_newer(reader, RETRY_SIGNAL_XID, leaf, seen));
	if (good && !newer)
		good = move_survivors(reader, leaf, look);
	retry_reader_end(reader);
	PopActiveSnapshot();
	if (good && !newer)
	{
		truncate_leaf(leaf);
		elog(DEBUG1, "retry: leaf %d is old and finished, and truncated", leaf);
	}
	return good;
}

void
retry_upkeep_leaf(RetryUpkeep *upkeep, int leaf)
{
	RetryDatabase *db = retry_shmem_database();
	Look	   *look = palloc(sizeof(Look));
	RetryReader *reader;
	RetryHorizon seen;
	bool		looked;
	bool		gone;

	retry_worker_begin_spi("looking for history that may go");
	reader = retry_reader_begin(GetActiveSnapshot(), true);
	retry_horizon_of(GetActiveSnapshot(), &seen);
	if (!retry_reader_leaf(reader, leaf))
		upkeep->blocked = true;
	looked = !retry_reader_blocked(reader) && look_at_leaf(upkeep, reader, leaf, look);
	retry_reader_end(reader);

	/* see retry_shmem_leaf_done() for why this is safe to say */
	if (looked && look->complete && look->nsurvivors == 0 && db != NULL)
		pg_atomic_write_u64(&db->leaf_done[leaf], seen.xmin);

	if (looked && look->complete && look->old &&
		(look->coming_round || look->last_end < upkeep->cutoff) &&
		!drop_leaf(leaf, look, &seen))
	{
		upkeep->blocked = true;
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("leaf %d is in use", leaf)));
	}
	gone = truncated;
	retry_worker_commit_spi();
	if (gone)
		retry_upkeep_count_rows(upkeep, 0, look->ntasks - look->nsurvivors);
}

/* Collects finished and old tasks after an id; the id it came to, false at the end. */
static bool
collect_old(RetryUpkeep *upkeep, int leaf, pg_uuid_t *after, pg_uuid_t *ids, int *count, int *looked_at)
{
	RetryReader *reader = retry_reader_begin(GetActiveSnapshot(), true);
	Folded		task;
	Walk		walk;
	bool		more = false;

	*count = *looked_at = 0;
	if (!retry_reader_leaf(reader, leaf))
		upkeep->blocked = true;
	else if (!retry_reader_empty(reader, RETRY_TASK, leaf))
	{
		walk_begin(&walk, reader, leaf, after);
		for (int i = 0; (more = walk_next(&walk, &task)); i++)
		{
			CHECK_FOR_INTERRUPTS();
			*after = task.id;
			(*looked_at)++;
			if (task.finished && task.ended_at < upkeep->cutoff && id_time(&task.id) < upkeep->cutoff &&
				!retry_shmem_task_running(MyDatabaseId, &task.id))
				ids[(*count)++] = task.id;
			if (*count == DELETE_BATCH || i == EXAMINE_BATCH)
				break;
		}
	}
	retry_reader_end(reader);
	return more;
}

static void
delete_tasks(int leaf, const pg_uuid_t *ids, int count)
{
	static const char *const statements[] = {
		"DELETE FROM ONLY retry.signal_%02d t WHERE t.task_id OPERATOR(pg_catalog.=) ANY ($1)",
		"DELETE FROM ONLY retry.attempt_%02d t WHERE t.task_id OPERATOR(pg_catalog.=) ANY ($1)",
		"DELETE FROM ONLY retry.task_%02d t WHERE t.id OPERATOR(pg_catalog.=) ANY ($1)"
	};
	Oid			type = UUIDARRAYOID;
	Datum	   *elements = palloc(count * sizeof(Datum));
	Datum		array;

	for (int i = 0; i < count; i++)
		elements[i] = UUIDPGetDatum(&ids[i]);
	array = PointerGetDatum(construct_array(elements, count, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	for (int i = 0; i < lengthof(statements); i++)
		(void) retry_statement(psprintf(statements[i], leaf), 1, &type, &array, NULL, SPI_OK_DELETE);
}

void
retry_upkeep_long_leaf(RetryUpkeep *upkeep, int leaf)
{
	pg_uuid_t  *ids = palloc(DELETE_BATCH * sizeof(pg_uuid_t));
	pg_uuid_t	after = {{0}};
	bool		more = true;

	while (more)
	{
		int			count;
		int			looked_at;

		retry_worker_begin_spi("deleting old history beside the ring");
		more = collect_old(upkeep, leaf, &after, ids, &count, &looked_at);
		if (count > 0)
			delete_tasks(leaf, ids, count);
		retry_worker_commit_spi();
		retry_upkeep_count_rows(upkeep, looked_at, count);
	}
}
