/*
 * checkpoint.c
 *		Where a dispatcher is, written down so that the next one starts there.
 *
 * A checkpoint says: everything that this snapshot sees and that was due
 * before the low-water time is resolved, but for these lanes, which are at
 * these times.  It only saves work: without one, everything is read from the
 * beginning.  Rows are appended, every hour to the other of two tables; the
 * one left behind is truncated once the new one speaks for every slot.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "catalog/heap.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "checkpoint.h"
#include "turn.h"

#define LAGGING_LANES	1000	/* named one by one */

static const char *const tables[] = {"checkpoint_a", "checkpoint_b"};

/* One lane that has something unresolved. */
typedef struct Lagging
{
	int64		hash;
	TimestampTz due;
	int64		waiting;		/* how many entries, about: see waiting() */
} Lagging;

typedef struct Collect
{
	TimestampTz before;
	Lagging    *lanes;
	int			n;
	int			size;
} Collect;

static void
collect(Collect *c, int64 hash, TimestampTz due, int64 waiting)
{
	if (due >= c->before)
		return;
	if (c->n == c->size)
	{
		c->size *= 2;
		c->lanes = repalloc(c->lanes, c->size * sizeof(Lagging));
	}
	c->lanes[c->n].hash = hash;
	c->lanes[c->n].waiting = waiting;
	c->lanes[c->n++].due = due;
}

/* What waits on both sides of a lane: retries in the lower half of the number. */
static int64
waiting(const RetryLane *lane, TimestampTz now)
{
	int64		count[RETRY_SIDES];

	for (int i = 0; i < RETRY_SIDES; i++)
	{
		const RetrySide *side = &lane->side[i];

		count[i] = Min((int64) side->queued + retry_backlog_due(&side->backlog, now), PG_INT32_MAX);
	}
	return (count[RETRY_SIDE_FIRST] << 32) | count[RETRY_SIDE_RETRY];
}

static void
collect_lane(RetryLane *lane, void *arg)
{
	Collect    *c = arg;

	collect(c, lane->hash, retry_lane_oldest(lane), waiting(lane, c->before));
}

static void
collect_dormant(int64 hash, TimestampTz due, void *arg)
{
	collect(arg, hash, due, 0);
}

static void
collect_sent(int64 lane_hash, const RetryPos *pos, void *arg)
{
	collect(arg, lane_hash, pos->due, 0);
}

static int
compare_lagging(const void *a, const void *b)
{
	TimestampTz x = ((const Lagging *) a)->due;
	TimestampTz y = ((const Lagging *) b)->due;

	return x < y ? -1 : x > y;
}

static Datum
array_of(Datum *values, int n, Oid type)
{
	bool		is_int = type == INT4OID;

	return PointerGetDatum(construct_array(values, n, type, is_int ? 4 : 8, true,
										   is_int ? TYPALIGN_INT : TYPALIGN_DOUBLE));
}

/* The lanes that lag, the worst first, and the time that holds for the others. */
static void
describe_lanes(RetryDispatcher *d, TimestampTz now, Datum *values)
{
	Collect		c = {.size = 256};
	Datum	   *hashes;
	Datum	   *dues;
	Datum	   *counts;
	int			n;

	c.before = Min(now, retry_lanes_horizon(d->lanes));
	c.lanes = palloc(c.size * sizeof(Lagging));
	retry_lanes_each(d->lanes, collect_lane, &c);
	retry_lanes_each_dormant(d->lanes, collect_dormant, &c);
	retry_send_each(d, collect_sent, &c);
	qsort(c.lanes, c.n, sizeof(Lagging), compare_lagging);

	n = Min(c.n, LAGGING_LANES);
	hashes = palloc((n + 1) * sizeof(Datum));
	dues = palloc((n + 1) * sizeof(Datum));
	counts = palloc((n + 1) * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		hashes[i] = Int64GetDatum(c.lanes[i].hash);
		dues[i] = TimestampTzGetDatum(c.lanes[i].due);
		counts[i] = Int64GetDatum(c.lanes[i].waiting);
	}
	values[Cp_low_water] = TimestampTzGetDatum(c.n > n ? c.lanes[n].due : c.before);
	values[Cp_lane_hash] = array_of(hashes, n, INT8OID);
	values[Cp_lane_due] = array_of(dues, n, TIMESTAMPTZOID);
	values[Cp_lane_waiting] = array_of(counts, n, INT8OID);
}

/* The table of this hour. */
static int
current_table(TimestampTz now)
{
	return (int) ((uint64) (now / USECS_PER_HOUR) & 1);
}

/* Adds up the slots that the rows of a table speak for. */
static uint64
covered_slots(const char *table, Snapshot snapshot)
{
	Relation	rel = table_open(retry_relation_oid(table), AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	uint64		slots = 0;
	bool		isnull;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		slots |= (uint64) DatumGetInt64(slot_getattr(slot, Cp_slots + 1, &isnull));
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, NoLock);
	return slots;
}

/* Empties the table of the last hour, once it is of no more use. */
static void
truncate_other(int current)
{
	Oid			other = retry_relation_oid(tables[1 - current]);
	Relation	rel;

	if (!ConditionalLockRelationOid(other, AccessShareLock))
		return;
	rel = table_open(other, NoLock);
	if (RelationGetNumberOfBlocks(rel) > 0 &&
		covered_slots(tables[current], GetActiveSnapshot()) == ~UINT64CONST(0) &&
		ConditionalLockRelationOid(other, AccessExclusiveLock))
		heap_truncate_one_rel(rel);
	table_close(rel, NoLock);
}

void
retry_checkpoint_save(RetryDispatcher *d)
{
	TimestampTz now = GetCurrentTimestamp();
	const RetryHorizon *seen = retry_feed_seen(d->feed);
	Datum		values[Cp_natts];
	bool		isnull[Cp_natts] = {false};
	Datum	   *xip = palloc((seen->nxip + 1) * sizeof(Datum));
	RetryHeldList held;
	int			current = current_table(now);

	/* for what was gained, the checkpoint that is still to be read speaks */
	uint64		slots = d->owned & ~d->gained;
	RetryAppender *appender;

	if (slots == 0 || seen->xmax == 0)
		return;
	for (int i = 0; i < seen->nxip; i++)
		xip[i] = UInt64GetDatum(seen->xip[i]);
	values[Cp_taken_at] = TimestampTzGetDatum(now);
	values[Cp_dispatcher] = Int32GetDatum(d->worker->number);
	values[Cp_slots] = Int64GetDatum((int64) slots);
	values[Cp_xmin] = UInt64GetDatum(seen->xmin);
	values[Cp_xmax] = UInt64GetDatum(seen->xmax);
	values[Cp_xip] = array_of(xip, seen->nxip, XID8OID);
	describe_lanes(d, d->last_snapshot_at, values);
	retry_held_list(d, &held);
	values[Cp_held_scene] = array_of(held.scenes, held.n, INT4OID);
	values[Cp_held_due] = array_of(held.dues, held.n, TIMESTAMPTZOID);
	values[Cp_url_scene] = array_of(held.url_scenes, held.nurls, INT4OID);
	values[Cp_url_due] = array_of(held.url_dues, held.nurls, TIMESTAMPTZOID);
	values[Cp_url_expires] = array_of(held.url_expiries, held.nurls, TIMESTAMPTZOID);
	values[Cp_url_digest] = array_of(held.url_digests, held.nurls, INT8OID);

	appender = retry_append_begin(retry_relation_oid(tables[current]), Cp_natts, true);
	if (appender == NULL)
		return;
	retry_append_row(appender, values, isnull);
	retry_append_end(appender);
	if (d->worker->number == 0)
		truncate_other(current);
	d->busy = false;
}

static void
find_newest(const char *table, Snapshot snapshot, RetryCheckpoints *newest)
{
	Oid			oid = retry_relation_oid(table);
	Relation	rel;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		isnull;

	/* a checkpoint that cannot be read now is one that saves no work */
	if (!ConditionalLockRelationOid(oid, AccessShareLock))
		return;
	rel = table_open(oid, NoLock);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	slot = table_slot_create(rel, NULL);
	if (newest->desc == NULL)
		newest->desc = CreateTupleDescCopy(RelationGetDescr(rel));
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		uint64		slots = (uint64) DatumGetInt64(slot_getattr(slot, Cp_slots + 1, &isnull));
		TransactionId written_by = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber,
																		 &isnull));
		HeapTuple	row = NULL;

		for (int i = 0; i < RETRY_SLOTS; i++)
		{
			if ((slots & (UINT64CONST(1) << i)) == 0 ||
				(newest->row[i] != NULL && TransactionIdPrecedes(written_by, newest->written_by[i])))
				continue;
			if (row == NULL)
				row = ExecCopySlotHeapTuple(slot);
			newest->row[i] = row;
			newest->written_by[i] = written_by;
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, NoLock);
}

void
retry_checkpoints_read(Snapshot snapshot, RetryCheckpoints *newest)
{
	memset(newest, 0, sizeof(*newest));
	for (int i = 0; i < lengthof(tables); i++)
		find_newest(tables[i], snapshot, newest);
}

uint64
retry_checkpoint_slots(const RetryCheckpoints *newest, int slot)
{
	uint64		slots = 0;

	for (int i = 0; i < RETRY_SLOTS; i++)
	{
		if (newest->row[i] == newest->row[slot])
			slots |= UINT64CONST(1) << i;
	}
	return slots;
}

int
retry_checkpoint_array(HeapTuple row, TupleDesc desc, int column, Oid type, Datum **values)
{
	bool		isnull;
	Datum		array = heap_getattr(row, column + 1, desc, &isnull);
	bool		is_int = type == INT4OID;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(array), type, is_int ? 4 : 8, true,
					  is_int ? TYPALIGN_INT : TYPALIGN_DOUBLE, values, NULL, &n);
	return n;
}

/* What was passed over, since it was held back. */
static void
apply_held(RetryHeld *held, HeapTuple row, TupleDesc desc)
{
	Datum	   *scenes;
	Datum	   *dues;
	Datum	   *expiries;
	Datum	   *digests;
	int			n = retry_checkpoint_array(row, desc, Cp_held_scene, INT4OID, &scenes);

	retry_checkpoint_array(row, desc, Cp_held_due, TIMESTAMPTZOID, &dues);
	for (int i = 0; i < n; i++)
		retry_held_note_all(held, DatumGetInt32(scenes[i]), DatumGetTimestampTz(dues[i]));
	n = retry_checkpoint_array(row, desc, Cp_url_scene, INT4OID, &scenes);
	retry_checkpoint_array(row, desc, Cp_url_due, TIMESTAMPTZOID, &dues);
	retry_checkpoint_array(row, desc, Cp_url_expires, TIMESTAMPTZOID, &expiries);
	retry_checkpoint_array(row, desc, Cp_url_digest, INT8OID, &digests);
	for (int i = 0; i < n; i++)
		retry_held_note_urls(held, DatumGetInt32(scenes[i]), DatumGetTimestampTz(dues[i]),
							 DatumGetTimestampTz(expiries[i]), DatumGetInt64(digests[i]));
}

/* Starts from one row, for those of the slots that it is the newest of. */
static void
apply_row(RetryTurn *turn, HeapTuple row, TupleDesc desc, uint64 slots)
{
	RetryDispatcher *d = turn->d;
	RetryHorizon seen;
	TimestampTz low_water;
	Datum	   *first;
	Datum	   *second;
	Datum	   *third;
	bool		isnull;
	int			n;

	seen.xmin = DatumGetUInt64(heap_getattr(row, Cp_xmin + 1, desc, &isnull));
	seen.xmax = DatumGetUInt64(heap_getattr(row, Cp_xmax + 1, desc, &isnull));
	seen.nxip = retry_checkpoint_array(row, desc, Cp_xip, XID8OID, &first);
	seen.xip = palloc((seen.nxip + 1) * sizeof(uint64));
	for (int i = 0; i < seen.nxip; i++)
		seen.xip[i] = DatumGetUInt64(first[i]);
	retry_feed_rewind(d->feed, &seen);

	/*
	 * a time to come was none when the clock was ahead: it may hide retries
	 * recorded since
	 */
	low_water = DatumGetTimestampTz(heap_getattr(row, Cp_low_water + 1, desc, &isnull));
	retry_lanes_lower_horizon(d->lanes, low_water > turn->now ? DT_NOBEGIN : low_water);
	n = retry_checkpoint_array(row, desc, Cp_lane_hash, INT8OID, &first);
	retry_checkpoint_array(row, desc, Cp_lane_due, TIMESTAMPTZOID, &second);
	retry_checkpoint_array(row, desc, Cp_lane_waiting, INT8OID, &third);
	for (int i = 0; i < n; i++)
	{
		int64		hash = DatumGetInt64(first[i]);
		TimestampTz due = DatumGetTimestampTz(second[i]);
		RetryLane  *lane;

		if ((slots & (UINT64CONST(1) << RETRY_SLOT(hash))) == 0)
			continue;
		lane = retry_lanes_get(turn->d->lanes, hash, due, turn->now);
		if (lane == NULL)
			continue;
		retry_lane_note_both(d->lanes, lane, due);
		retry_lane_unread(d->lanes, &lane->side[RETRY_SIDE_FIRST],
						  (uint32) (DatumGetInt64(third[i]) >> 32), due, turn->now);
		retry_lane_unread(d->lanes, &lane->side[RETRY_SIDE_RETRY],
						  (uint32) DatumGetInt64(third[i]), due, turn->now);
	}
	apply_held(d->held, row, desc);
}

void
retry_checkpoint_load(RetryTurn *turn, uint64 slots)
{
	RetryDispatcher *d = turn->d;
	RetryCheckpoints newest;
	uint64		found = 0;

	retry_checkpoints_read(turn->snapshot, &newest);
	for (int i = 0; i < RETRY_SLOTS; i++)
	{
		uint64		mine;

		if ((slots & (UINT64CONST(1) << i)) == 0 || newest.row[i] == NULL)
			continue;
		mine = retry_checkpoint_slots(&newest, i);
		found |= UINT64CONST(1) << i;
		if ((found & mine) == (UINT64CONST(1) << i))
			apply_row(turn, newest.row[i], newest.desc, mine & slots);
	}
	if (found != slots)
	{
		RetryHorizon seen;

		/*
		 * never written down: the sweep reads everything, the feed what is
		 * new
		 */
		retry_horizon_of(turn->snapshot, &seen);
		retry_feed_rewind(d->feed, &seen);
		retry_lanes_lower_horizon(d->lanes, DT_NOBEGIN);
	}
	retry_sweep_reset(d->sweep);
}
