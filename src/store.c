/*
 * store.c
 *		Finding rows in the leaves by index, with one snapshot.
 *
 * A planner's choice made while a table was empty can cost minutes when it is
 * full, so what dispatchers and enqueue read is read by naming the index.  A
 * reader opens what it needs at first use and keeps its scans, so that a
 * probe costs one descent of an index and no catalog work.
 */
#include "postgres.h"

#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "executor/tuptable.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/uuid.h"

#include "compat.h"
#include "row.h"
#include "store.h"

static const char *const table_names[RETRY_TABLES] = {"task", "attempt", "signal"};
static const int table_columns[RETRY_TABLES] = {Task_natts, Attempt_natts, Signal_natts};

typedef struct IndexName
{
	RetryTable	table;
	const char *suffix;
} IndexName;

static const IndexName index_names[RETRY_INDEXES] = {
	[RETRY_TASK_ID] = {RETRY_TASK, "id"},
	[RETRY_TASK_XID] = {RETRY_TASK, "xid"},
	[RETRY_TASK_DUE] = {RETRY_TASK, "due"},
	[RETRY_TASK_KEY] = {RETRY_TASK, "key"},
	[RETRY_TASK_REFERENCE] = {RETRY_TASK, "reference"},
	[RETRY_TASK_REPLAY] = {RETRY_TASK, "replay"},
	[RETRY_ATTEMPT_NO] = {RETRY_ATTEMPT, "no"},
	[RETRY_ATTEMPT_DUE] = {RETRY_ATTEMPT, "due"},
	[RETRY_ATTEMPT_END] = {RETRY_ATTEMPT, "end"},
	[RETRY_SIGNAL_TASK] = {RETRY_SIGNAL, "task"},
	[RETRY_SIGNAL_XID] = {RETRY_SIGNAL, "xid"},
	[RETRY_SIGNAL_DUE] = {RETRY_SIGNAL, "due"},
};

/* One index of one leaf, opened. */
/* Tasks that are asked for one by one before it is looked for many. */
#define MAX_ALONE	15

typedef struct OpenIndex
{
	Relation	rel;
	IndexScanDesc scan;
	int			nkeys;			/* that the scan was begun with */
	ScanKeyData row[2];			/* members of a row comparison under way */
	TupleTableSlot *slot;
} OpenIndex;

typedef struct OpenLeaf
{
	bool		blocked;		/* somebody has a relation of it locked */
	Relation	rel[RETRY_TABLES];
	int8		empty[RETRY_TABLES];	/* 0 not looked at, 1 empty, 2 not */
	OpenIndex	index[RETRY_INDEXES];
	TupleTableSlot *by_tid;
	BlockNumber task_blocks;	/* the table of tasks had at least so many */

	/* no task from untried_from on, to before untried_to, has an attempt */
	bool		untried_known;
	bool		untried_to_end; /* nor has any after that */
	pg_uuid_t	untried_from;
	pg_uuid_t	untried_to;
	int			untried_uses;	/* tasks for which that was enough */
	int			asked_alone;	/* since then, tasks for which it was not */
} OpenLeaf;

struct RetryReader
{
	Snapshot	snapshot;
	bool		nowait;
	bool		blocked;
	MemoryContext context;
	pg_atomic_uint64 *truncations;	/* NULL: not watched */
	uint64		truncations_seen;
	OpenLeaf   *leaf[RETRY_LEAVES];
};

/*
 * Names to OIDs.  These go to the system caches every time: two hash look-ups,
 * and nothing to go stale when the extension is dropped and made again.
 */
Oid
retry_relation_oid(const char *name)
{
	Oid			schema = get_namespace_oid("retry", true);
	Oid			oid = OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;

	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"retry.%s\" does not exist", name),
				 errhint("Was the extension dropped? CREATE EXTENSION retry makes it.")));
	return oid;
}

static Oid
enum_value_oid(const char *type, const char *label)
{
	Oid			type_oid = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
										   CStringGetDatum(type),
										   ObjectIdGetDatum(get_namespace_oid("retry", false)));
	Oid			oid = GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
									  ObjectIdGetDatum(type_oid), CStringGetDatum(label));

	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type \"retry.%s\" has no value \"%s\"", type, label)));
	return oid;
}

static const char *const outcome_labels[RETRY_OUTCOMES] = {
	"succeeded", "failed", "processing", "stopped", "expired", "blocked", "error"
};
static const char *const reason_labels[RETRY_DEAD_REASONS] = {
	"exhausted", "expired", "stopped", "gone", "blocked", "quarantined", "rejected"
};

Oid
retry_outcome_oid(RetryOutcome outcome)
{
	return enum_value_oid("outcome", outcome_labels[outcome]);
}

Oid
retry_dead_reason_oid(RetryDeadReason reason)
{
	return enum_value_oid("dead_reason", reason_labels[reason]);
}

Oid
retry_task_state_oid(int state)
{
	static const char *const labels[] = {
		"pending", "running", "retrying", "succeeded", "dead", "cancelled"
	};

	Assert(state >= 0 && state < lengthof(labels));
	return enum_value_oid("task_state", labels[state]);
}

int
retry_outcome_of(Oid value)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(value));
	int			result = -1;

	if (!HeapTupleIsValid(tuple))
		return -1;
	for (int i = 0; i < RETRY_OUTCOMES; i++)
	{
		if (strcmp(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel), outcome_labels[i]) == 0)
			result = i;
	}
	ReleaseSysCache(tuple);
	return result;
}

/* Days since 1970 in a UUIDv7's 48 bits of milliseconds, modulo the ring. */
int
retry_ring_leaf(const pg_uuid_t *id)
{
	uint64		ms = 0;

	for (int i = 0; i < 6; i++)
		ms = (ms << 8) | id->data[i];
	return (int) ((ms / (SECS_PER_DAY * UINT64CONST(1000))) % RETRY_RING_LEAVES);
}

int
retry_leaf_for(const pg_uuid_t *id, TimestampTz due_at)
{
	uint64		ms = 0;
	int64		due_ms;

	for (int i = 0; i < 6; i++)
		ms = (ms << 8) | id->data[i];
	due_ms = due_at / 1000 + (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000;
	if (due_ms > (int64) ms + (int64) RETRY_RING_AHEAD_DAYS * SECS_PER_DAY * 1000)
		return RETRY_LONG_LEAF;
	return retry_ring_leaf(id);
}

Oid
retry_leaf_oid(RetryTable table, int leaf)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "%s_%02d", table_names[table], leaf);
	return retry_relation_oid(name);
}

RetryReader *
retry_reader_begin(Snapshot snapshot, bool nowait)
{
	RetryReader *reader = palloc0(sizeof(RetryReader));

	reader->snapshot = snapshot;
	reader->nowait = nowait;
	reader->context = CurrentMemoryContext;
	return reader;
}

void
retry_reader_watch(RetryReader *reader, pg_atomic_uint64 *counter, uint64 value)
{
	reader->truncations = counter;
	reader->truncations_seen = value;
}

bool
retry_reader_blocked(const RetryReader *reader)
{
	return reader->blocked;
}

static void
close_index(OpenIndex *index)
{
	if (index->scan != NULL)
		index_endscan(index->scan);
	if (index->slot != NULL)
		ExecDropSingleTupleTableSlot(index->slot);
	if (index->rel != NULL)
		index_close(index->rel, NoLock);
}

void
retry_reader_end(RetryReader *reader)
{
	for (int n = 0; n < RETRY_LEAVES; n++)
	{
		OpenLeaf   *leaf = reader->leaf[n];

		if (leaf == NULL)
			continue;
		for (int i = 0; i < RETRY_INDEXES; i++)
			close_index(&leaf->index[i]);
		if (leaf->by_tid != NULL)
			ExecDropSingleTupleTableSlot(leaf->by_tid);
		for (int i = 0; i < RETRY_TABLES; i++)
		{
			if (leaf->rel[i] != NULL)
				table_close(leaf->rel[i], NoLock);
		}
		pfree(leaf);
	}
	pfree(reader);
}

bool
retry_reader_leaf_blocked(const RetryReader *reader, int n)
{
	return reader->leaf[n] != NULL && reader->leaf[n]->blocked;
}

/* Locks a relation for reading as the reader was told to. */
static bool
lock_for_reading(RetryReader *reader, OpenLeaf *leaf, Oid oid)
{
	if (!reader->nowait)
		LockRelationOid(oid, AccessShareLock);
	else if (!ConditionalLockRelationOid(oid, AccessShareLock))
	{
		leaf->blocked = true;
		reader->blocked = true;
		return false;
	}
	return true;
}

static Relation
open_table(RetryReader *reader, RetryTable table, int n)
{
	OpenLeaf   *leaf = reader->leaf[n];

	if (leaf->rel[table] == NULL && !leaf->blocked)
	{
		Oid			oid = retry_leaf_oid(table, n);

		if (!lock_for_reading(reader, leaf, oid))
			return NULL;
		if (reader->truncations != NULL &&
			pg_atomic_read_u64(reader->truncations) != reader->truncations_seen)
		{
			leaf->blocked = true;
			reader->blocked = true;
			return NULL;
		}
		leaf->rel[table] = table_open(oid, NoLock);
		retry_require_columns(leaf->rel[table], table_columns[table]);
	}
	return leaf->rel[table];
}

static OpenIndex *
open_index(RetryReader *reader, RetryIndex which, int n)
{
	OpenLeaf   *leaf = reader->leaf[n];
	OpenIndex  *index = &leaf->index[which];

	if (index->rel == NULL)
	{
		char		name[NAMEDATALEN];
		Relation	table = open_table(reader, index_names[which].table, n);
		Oid			oid;

		if (table == NULL)
			return NULL;
		snprintf(name, sizeof(name), "%s_%02d_%s",
				 table_names[index_names[which].table], n, index_names[which].suffix);
		oid = retry_relation_oid(name);
		if (!lock_for_reading(reader, leaf, oid))
			return NULL;
		index->rel = index_open(oid, NoLock);
		index->slot = table_slot_create(table, NULL);
	}
	return index;
}

bool
retry_reader_leaf(RetryReader *reader, int n)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	bool		open = true;

	if (reader->leaf[n] == NULL)
		reader->leaf[n] = palloc0(sizeof(OpenLeaf));
	for (int i = 0; i < RETRY_TABLES && open; i++)
		open = open_table(reader, (RetryTable) i, n) != NULL;
	MemoryContextSwitchTo(old);
	return open;
}

bool
retry_reader_empty(RetryReader *reader, RetryTable table, int n)
{
	OpenLeaf   *leaf = reader->leaf[n];

	if (leaf->empty[table] == 0)
		leaf->empty[table] = RelationGetNumberOfBlocks(leaf->rel[table]) == 0 ? 1 : 2;
	return leaf->empty[table] == 1;
}

void
retry_scan_start(RetryReader *reader, RetryIndex which, int n, int nkeys, ScanKey keys)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	OpenIndex  *index = open_index(reader, which, n);

	if (index != NULL)
	{
		if (index->scan != NULL && index->nkeys != nkeys)
		{
			index_endscan(index->scan);
			index->scan = NULL;
		}
		if (index->scan == NULL)
			index->scan = retry_index_beginscan(reader->leaf[n]->rel[index_names[which].table],
												index->rel, reader->snapshot, nkeys);
		index->nkeys = nkeys;
		index_rescan(index->scan, keys, nkeys, NULL, 0);
	}
	MemoryContextSwitchTo(old);
}

TupleTableSlot *
retry_scan_next(RetryReader *reader, RetryIndex which, int n, ScanDirection direction)
{
	OpenIndex  *index = &reader->leaf[n]->index[which];
	MemoryContext old;
	bool		found;

	if (index->scan == NULL)
		return NULL;
	old = MemoryContextSwitchTo(reader->context);
	found = index_getnext_slot(index->scan, direction, index->slot);
	MemoryContextSwitchTo(old);
	return found ? index->slot : NULL;
}

/*
 * A key that says (column, column + 1) > (value, id), as an index's row
 * comparison: the members stay in the reader while the scan uses them.
 */
static void
row_after(ScanKey key, ScanKeyData *row, AttrNumber attno, RegProcedure compare,
		  Datum value, const pg_uuid_t *id)
{
	ScanKeyEntryInitialize(&row[0], SK_ROW_MEMBER, attno, BTGreaterStrategyNumber,
						   InvalidOid, InvalidOid, compare, value);
	ScanKeyEntryInitialize(&row[1], SK_ROW_MEMBER | SK_ROW_END, attno + 1, BTGreaterStrategyNumber,
						   InvalidOid, InvalidOid, F_UUID_CMP, UUIDPGetDatum(id));
	memset(key, 0, sizeof(*key));
	key->sk_flags = SK_ROW_HEADER;
	key->sk_attno = attno;
	key->sk_strategy = BTGreaterStrategyNumber;
	key->sk_argument = PointerGetDatum(row);
}

void
retry_scan_lane_after(RetryReader *reader, RetryIndex which, int n, int64 lane_hash, const RetryPos *pos)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(lane_hash));
	row_after(&keys[1], reader->leaf[n]->index[which].row, 2, F_TIMESTAMPTZ_CMP,
			  TimestampTzGetDatum(pos->due), &pos->id);
	retry_scan_start(reader, which, n, 2, keys);
}

void
retry_scan_lanes_after(RetryReader *reader, RetryIndex which, int n, int64 lane_hash)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(lane_hash));
	retry_scan_start(reader, which, n, 1, &key);
}

void
retry_scan_xids(RetryReader *reader, RetryIndex which, int n,
				uint64 first, const pg_uuid_t *id, uint64 end)
{
	ScanKeyData keys[2];

	row_after(&keys[0], reader->leaf[n]->index[which].row, 1, F_XID8CMP,
			  UInt64GetDatum(first), id);
	ScanKeyInit(&keys[1], 1, BTLessStrategyNumber, F_XID8LT, UInt64GetDatum(end));
	retry_scan_start(reader, which, n, 2, keys);
}

/* Looks one uuid up in an index that starts with it. */
static TupleTableSlot *
scan_by_id(RetryReader *reader, RetryIndex which, int n, const pg_uuid_t *id, ScanDirection direction)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	retry_scan_start(reader, which, n, 1, &key);
	return retry_scan_next(reader, which, n, direction);
}

TupleTableSlot *
retry_first_signal(RetryReader *reader, int n, const pg_uuid_t *id)
{
	return scan_by_id(reader, RETRY_SIGNAL_TASK, n, id, ForwardScanDirection);
}

bool
retry_task_cancelled(RetryReader *reader, int n, const pg_uuid_t *id)
{
	TupleTableSlot *slot;
	bool		isnull;

	if (retry_reader_empty(reader, RETRY_SIGNAL, n))
		return false;
	slot = retry_first_signal(reader, n, id);
	while (slot != NULL)
	{
		if (DatumGetChar(slot_getattr(slot, Signal_action + 1, &isnull)) == RETRY_SIGNAL_CANCEL)
			return true;
		slot = retry_scan_next(reader, RETRY_SIGNAL_TASK, n, ForwardScanDirection);
	}
	return false;
}

TupleTableSlot *
retry_last_attempt(RetryReader *reader, int n, const pg_uuid_t *id)
{
	return scan_by_id(reader, RETRY_ATTEMPT_NO, n, id, BackwardScanDirection);
}

void
retry_probe_task(RetryReader *reader, int n, const pg_uuid_t *id, RetryProbe *probe)
{
	TupleTableSlot *slot;
	bool		isnull;

	memset(probe, 0, sizeof(*probe));
	probe->outcome = -1;

	slot = retry_last_attempt(reader, n, id);
	if (slot != NULL)
	{
		Datum		due;

		probe->attempts = DatumGetInt32(slot_getattr(slot, Attempt_attempt_no + 1, &isnull));
		probe->pendings = DatumGetInt32(slot_getattr(slot, Attempt_pendings + 1, &isnull));
		if (isnull)
			probe->pendings = 0;
		probe->outcome = retry_outcome_of(DatumGetObjectId(slot_getattr(slot, Attempt_outcome + 1, &isnull)));
		probe->finished_at = DatumGetTimestampTz(slot_getattr(slot, Attempt_finished_at + 1, &isnull));
		due = slot_getattr(slot, Attempt_next_due + 1, &isnull);
		probe->terminal = isnull;
		probe->next_due = isnull ? 0 : DatumGetTimestampTz(due);
	}
	probe->cancelled = retry_task_cancelled(reader, n, id);
}

static inline int
compare_ids(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a->data, b->data, UUID_LEN);
}

bool
retry_task_tried(RetryReader *reader, int n, const pg_uuid_t *id)
{
	OpenLeaf   *leaf = reader->leaf[n];
	ScanKeyData key;
	TupleTableSlot *slot;
	bool		isnull;

	if (leaf->untried_known && compare_ids(id, &leaf->untried_from) >= 0 &&
		(leaf->untried_to_end || compare_ids(id, &leaf->untried_to) < 0))
	{
		leaf->untried_uses++;
		return false;
	}

	/*
	 * A scan without an end reads the rest of its page.  Where that helped no
	 * other, tasks are asked for one by one, and it is tried again later.
	 */
	if (leaf->untried_known && leaf->untried_uses == 0 && leaf->asked_alone < MAX_ALONE)
	{
		leaf->asked_alone++;
		return scan_by_id(reader, RETRY_ATTEMPT_NO, n, id, ForwardScanDirection) != NULL;
	}
	leaf->untried_uses = leaf->asked_alone = 0;

	ScanKeyInit(&key, 1, BTGreaterEqualStrategyNumber, F_UUID_GE, UUIDPGetDatum(id));
	retry_scan_start(reader, RETRY_ATTEMPT_NO, n, 1, &key);
	slot = retry_scan_next(reader, RETRY_ATTEMPT_NO, n, ForwardScanDirection);
	if (leaf->blocked)
		return false;
	leaf->untried_known = true;
	leaf->untried_to_end = slot == NULL;
	leaf->untried_from = *id;
	if (slot == NULL)
		return false;
	leaf->untried_to = *DatumGetUUIDP(slot_getattr(slot, Attempt_task_id + 1, &isnull));
	return compare_ids(&leaf->untried_to, id) == 0;
}

/* True when the slot holds the task with this id. */
static bool
slot_is_task(TupleTableSlot *slot, const pg_uuid_t *id)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, Task_id + 1, &isnull);

	return memcmp(DatumGetUUIDP(value), id, sizeof(pg_uuid_t)) == 0;
}

/* The task's row where it was last seen, unless it is no longer there. */
static TupleTableSlot *
find_by_tid(RetryReader *reader, int n, const pg_uuid_t *id, const ItemPointerData *tid)
{
	OpenLeaf   *leaf = reader->leaf[n];
	Relation	rel = leaf->rel[RETRY_TASK];
	ItemPointerData copy = *tid;

	/* a table that is open does not shrink */
	if (ItemPointerGetBlockNumber(tid) >= leaf->task_blocks)
		leaf->task_blocks = RelationGetNumberOfBlocks(rel);
	if (ItemPointerGetBlockNumber(tid) >= leaf->task_blocks)
		return NULL;
	if (leaf->by_tid == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(reader->context);

		leaf->by_tid = table_slot_create(rel, NULL);
		MemoryContextSwitchTo(old);
	}
	if (!table_tuple_fetch_row_version(rel, &copy, reader->snapshot, leaf->by_tid))
		return NULL;
	return slot_is_task(leaf->by_tid, id) ? leaf->by_tid : NULL;
}

TupleTableSlot *
retry_find_task(RetryReader *reader, const pg_uuid_t *id, const ItemPointerData *tid, int *leaf)
{
	TupleTableSlot *slot;
	int			ring = retry_ring_leaf(id);

	if (*leaf >= 0 && tid != NULL && ItemPointerIsValid(tid) && retry_reader_leaf(reader, *leaf))
	{
		slot = find_by_tid(reader, *leaf, id, tid);
		if (slot != NULL)
			return slot;
	}
	/* as told, then where its id says, then the long leaf, then everywhere */
	for (int i = -3; i < RETRY_RING_LEAVES; i++)
	{
		int			n = i == -3 ? *leaf : i == -2 ? ring : i == -1 ? RETRY_LONG_LEAF : i;

		if (n < 0 || !retry_reader_leaf(reader, n) || retry_reader_empty(reader, RETRY_TASK, n))
			continue;
		slot = scan_by_id(reader, RETRY_TASK_ID, n, id, ForwardScanDirection);
		if (slot != NULL)
		{
			*leaf = n;
			return slot;
		}
	}
	return NULL;
}
