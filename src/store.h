/*
 * store.h
 *		The store: how rows get into the leaves, and how they are found again.
 *
 * Everything that runs often goes straight through table and index access
 * methods.  It never depends on the planner's statistics, pays for no
 * executor, and passes no trigger: rows that arrive in any other way meet the
 * leaves' trigger and are marked as foreign.
 */
#ifndef RETRY_STORE_H
#define RETRY_STORE_H

#include "access/genam.h"
#include "executor/tuptable.h"
#include "port/atomics.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "task.h"

/* Columns of retry.task, in the order of retry--1.0.sql. */
enum
{
	Task_leaf, Task_inert, Task_max_attempts, Task_id, Task_xid, Task_lane_hash,
	Task_due_at, Task_scene_id, Task_enqueued_by, Task_expires_at,
	Task_timeout_ms, Task_depth, Task_lane, Task_key, Task_reference, Task_url,
	Task_method, Task_headers, Task_content_type, Task_backoff,
	Task_on_success, Task_on_dead, Task_origin_id, Task_replay_of,
	Task_parent_id, Task_body, Task_natts
};

/* Columns that retry.dead_letter has besides those of retry.task. */
enum
{
	Dead_reason = Task_natts, Dead_died_at, Dead_attempts, Dead_http_status,
	Dead_error, Dead_response, Dead_natts
};

/* Columns of retry.attempt. */
enum
{
	Attempt_leaf, Attempt_http_status, Attempt_attempt_no, Attempt_task_id,
	Attempt_lane_hash, Attempt_finished_at, Attempt_duration_us,
	Attempt_scene_id, Attempt_outcome, Attempt_next_due, Attempt_dns_us,
	Attempt_connect_us, Attempt_tls_us, Attempt_first_byte_us, Attempt_pendings,
	Attempt_hedged, Attempt_remote_address, Attempt_target, Attempt_error,
	Attempt_response, Attempt_natts
};

/* Columns of retry.signal. */
enum
{
	Signal_leaf, Signal_action, Signal_after_attempt, Signal_task_id,
	Signal_xid, Signal_lane_hash, Signal_due_at, Signal_inert,
	Signal_asked_by, Signal_change, Signal_natts
};

typedef enum RetryTable
{
	RETRY_TASK, RETRY_ATTEMPT, RETRY_SIGNAL, RETRY_TABLES
} RetryTable;

typedef enum RetryIndex
{
	RETRY_TASK_ID, RETRY_TASK_XID, RETRY_TASK_DUE, RETRY_TASK_KEY,
	RETRY_TASK_REFERENCE, RETRY_TASK_REPLAY,
	RETRY_ATTEMPT_NO, RETRY_ATTEMPT_DUE, RETRY_ATTEMPT_END,
	RETRY_SIGNAL_TASK, RETRY_SIGNAL_XID, RETRY_SIGNAL_DUE,
	RETRY_INDEXES
} RetryIndex;

/* One column, by its number above, of a row in which it is not null. */
static inline Datum
retry_column(TupleTableSlot *slot, int attribute)
{
	bool		isnull;

	return slot_getattr(slot, attribute + 1, &isnull);
}

/*
 * OID of a relation in schema retry, by name ("scene", "task_07"), found once
 * and kept until the extension is dropped or made again.  ERROR
 * (undefined_table) when the extension is not there.
 */
extern Oid	retry_relation_oid(const char *name);

/* OIDs of the values of retry.outcome, retry.dead_reason, retry.task_state, by their order. */
extern Oid	retry_outcome_oid(RetryOutcome outcome);
extern Oid	retry_dead_reason_oid(RetryDeadReason reason);
extern Oid	retry_task_state_oid(int state);

/* The way back: -1 when the OID is none of them. */
extern int	retry_outcome_of(Oid value);

/* The leaf for a task with this id and due time. */
extern int	retry_leaf_for(const pg_uuid_t *id, TimestampTz due_at);

/* The leaf of the ring for this id, whatever its due time. */
extern int	retry_ring_leaf(const pg_uuid_t *id);

/*
 * Appending rows to one table, bypassing the executor and triggers.  Rows are
 * given as Datum arrays in column order, the first "natts" of the table,
 * or all of them (0); what they point to is read at once or copied.  What the
 * table has besides gets its default (row.h says what can fail).  begin takes RowExclusiveLock until the end of the transaction (with
 * "nowait" it returns NULL when that cannot be had at once).  Unique
 * violations and other errors are raised as usual.  Nothing is sure to be in
 * the table before flush or end.
 */
typedef struct RetryAppender RetryAppender;
extern RetryAppender *retry_append_begin(Oid relation, int natts, bool nowait);
extern void retry_append_row(RetryAppender *appender, const Datum *values, const bool *isnull);
extern void retry_append_flush(RetryAppender *appender);
extern void retry_append_end(RetryAppender *appender);

/*
 * A column of a row that is to be appended, in arrays "values" and "isnull" that
 * begin as nulls: the datum, which is only made if there is one.
 */
#define RETRY_FILL(column, given, datum) \
	do { \
		if (given) \
		{ \
			values[column] = (datum); \
			isnull[column] = false; \
		} \
	} while (0)

/* The relation OID of a leaf's table. */
extern Oid	retry_leaf_oid(RetryTable table, int leaf);

/*
 * Reading: a set of leaves' relations opened in one transaction, all read
 * with one snapshot.  Leaves are opened at first use, under AccessShareLock,
 * and closed by retry_reader_end().
 */
typedef struct RetryReader RetryReader;

/*
 * "nowait": a leaf that somebody has locked is skipped (retry_reader_leaf is
 * false and retry_reader_blocked() true) rather than waited for.  The snapshot
 * must be registered or active for as long as the reader lives.
 */
extern RetryReader *retry_reader_begin(Snapshot snapshot, bool nowait);
extern void retry_reader_end(RetryReader *reader);

/*
 * From now on, a leaf that is opened after "counter" has left "value" counts as
 * locked.  The counter goes up with each truncation, before its locks are
 * released, and the value was read before the snapshot was taken: so no leaf is
 * taken for empty whose rows the snapshot should see, there or elsewhere.
 */
extern void retry_reader_watch(RetryReader *reader, pg_atomic_uint64 *counter, uint64 value);
extern bool retry_reader_blocked(const RetryReader *reader);

/* True when a table or an index of the leaf was locked: what was read may lack rows. */
extern bool retry_reader_leaf_blocked(const RetryReader *reader, int leaf);

/* Opens a leaf; false when it is locked. */
extern bool retry_reader_leaf(RetryReader *reader, int leaf);

/* True when no row was ever put into the leaf's table since it was truncated. */
extern bool retry_reader_empty(RetryReader *reader, RetryTable table, int leaf);

/* What the facts say of one task. */
typedef struct RetryProbe
{
	int32		attempts;		/* number of attempts recorded */
	int32		pendings;		/* how many of them do not count in
								 * max_attempts */
	bool		terminal;		/* the last of them ended the task */
	bool		cancelled;		/* a cancel signal is visible */
	int			outcome;		/* of the last attempt; -1: none */
	TimestampTz finished_at;	/* of the last attempt */
	TimestampTz next_due;		/* of the last attempt, when not terminal */
} RetryProbe;

/* One or two index descents; the leaf must be open. */
extern void retry_probe_task(RetryReader *reader, int leaf, const pg_uuid_t *id, RetryProbe *probe);

/*
 * Of that, only whether there is an attempt.  What is found counts for the ids
 * after it, too, up to the next that has one: those that were enqueued after all
 * that were tried cost one look together.  Nothing is known (false) when an
 * index is locked, see retry_reader_leaf_blocked.
 */
extern bool retry_task_tried(RetryReader *reader, int leaf, const pg_uuid_t *id);

/* The slot of the last attempt, until the next call; NULL: there is none.  The leaf must be open. */
extern TupleTableSlot *retry_last_attempt(RetryReader *reader, int leaf, const pg_uuid_t *id);

/* Of that, only whether it was cancelled: nothing to look up where nobody asked for anything. */
extern bool retry_task_cancelled(RetryReader *reader, int leaf, const pg_uuid_t *id);

/*
 * The first of what was asked of a task, in no order; retry_scan_next() with
 * RETRY_SIGNAL_TASK gives the others.  NULL: nothing.  The leaf must be open.
 */
extern TupleTableSlot *retry_first_signal(RetryReader *reader, int leaf, const pg_uuid_t *id);

/*
 * Finds a task's row in this leaf, else (leaf -1) in the leaf of its id, the
 * long leaf, and then all others.  Returns a slot owned by the reader that
 * holds the row until the next call, and the leaf; NULL when there is none.
 * The attributes are in the order of the enum above.  "tid", when valid, is
 * tried first.
 */
extern TupleTableSlot *retry_find_task(RetryReader *reader, const pg_uuid_t *id,
									   const ItemPointerData *tid, int *leaf);

/*
 * Index scans of one leaf.  The scan object is kept by the reader and handed
 * out again, so only one scan of the same index and leaf can be under way.
 * NULL from next: no more.
 */
extern void retry_scan_start(RetryReader *reader, RetryIndex index, int leaf, int nkeys, ScanKey keys);
extern TupleTableSlot *retry_scan_next(RetryReader *reader, RetryIndex index, int leaf,
									   ScanDirection direction);

/* Entries of a lane after a place, in order; for the three indexes by due time. */
extern void retry_scan_lane_after(RetryReader *reader, RetryIndex index, int leaf,
								  int64 lane_hash, const RetryPos *pos);

/* Entries of the lanes after this one; for the three indexes by due time. */
extern void retry_scan_lanes_after(RetryReader *reader, RetryIndex index, int leaf, int64 lane_hash);

/*
 * Rows of transactions from "first" to before "end", from after ("first",
 * "id") on; for the two indexes by transaction.
 */
extern void retry_scan_xids(RetryReader *reader, RetryIndex index, int leaf,
							uint64 first, const pg_uuid_t *id, uint64 end);

#endif							/* RETRY_STORE_H */
