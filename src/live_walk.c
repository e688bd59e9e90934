/*
 * live_walk.c
 *		A walk over the live tasks of a database, to ask something of many.
 *
 * The tasks are found with one snapshot, by index, and nothing of them is kept
 * in memory; to spread them evenly over a time, the same walk counts them
 * first.
 *
 * TRUNCATE heeds no snapshots: a leaf that upkeep cleared after the snapshot
 * was taken would look empty, while the few tasks that were moved out of it
 * are not to be seen in their new place yet.  So the leaves are locked against
 * that first, and the snapshot is taken after.
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "live_walk.h"
#include "shmem.h"
#include "uuid7.h"

/* Tasks after which scratch memory is given back. */
#define SCRATCH_ROWS	64

void
retry_live_walk_take(RetryLiveWalk *walk, RetryIndex index, int leaf)
{
	TupleTableSlot *slot;

	while ((slot = retry_scan_next(walk->reader, index, leaf, ForwardScanDirection)) != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(walk->scratch);

		CHECK_FOR_INTERRUPTS();
		walk->take(walk, slot, leaf);
		MemoryContextSwitchTo(old);
		if (++walk->looked_at % SCRATCH_ROWS == 0)
			MemoryContextReset(walk->scratch);
		retry_progress_set(walk->progress, walk->looked_at, walk->writer == NULL ? 0 : walk->found);
	}
}

TimestampTz
retry_spread_due(TimestampTz from, int64 over_us, int64 n, int64 total)
{
	if (over_us == 0 || total <= 0)
		return from;
	return from + (int64) ((double) over_us * Min(n, total) / total);
}

/* Is everything in the leaf known to be finished? */
static bool
leaf_done(int leaf)
{
	RetryDatabase *db = retry_shmem_database();

	return db != NULL && retry_shmem_leaf_done(db, leaf);
}

/* How many tasks lie in the leaves that are to be walked through, about. */
static int64
estimate(void)
{
	double		sum = 0;

	for (int leaf = 0; leaf < RETRY_LEAVES; leaf++)
	{
		Relation	rel;
		BlockNumber pages;
		double		tuples;
		double		visible;

		if (leaf_done(leaf))
			continue;
		rel = relation_open(retry_leaf_oid(RETRY_TASK, leaf), NoLock);
		estimate_rel_size(rel, NULL, &pages, &tuples, &visible);
		if (RelationGetNumberOfBlocks(rel) > 0)
			sum += tuples;
		relation_close(rel, NoLock);
	}
	return (int64) sum;
}

static void
walk_leaf(RetryLiveWalk *walk, int leaf)
{
	if (leaf_done(leaf) || !retry_reader_leaf(walk->reader, leaf) ||
		retry_reader_empty(walk->reader, RETRY_TASK, leaf))
		return;
	walk->scan_leaf(walk, leaf);
}

/* All leaves, those of the ring in the order of their days, the oldest first. */
static void
walk_all(RetryLiveWalk *walk, RetryWriter *writer, TimestampTz now)
{
	pg_uuid_t	today;
	int			first;

	walk->writer = writer;
	walk->total = walk->found;
	walk->found = walk->looked_at = 0;
	retry_uuid7_bound(now, &today);
	first = retry_ring_leaf(&today) + 1;
	walk_leaf(walk, RETRY_LONG_LEAF);
	for (int i = 0; i < RETRY_RING_LEAVES; i++)
		walk_leaf(walk, (first + i) % RETRY_RING_LEAVES);
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

int64
retry_live_walk(RetryLiveWalk *walk, RetryWriter *writer, TimestampTz now, bool count_first)
{
	int64		expected = -1;

	walk->total = walk->found = walk->looked_at = 0;
	lock_leaves();
	PushActiveSnapshot(GetLatestSnapshot());
	walk->reader = retry_reader_begin(GetActiveSnapshot(), false);
	walk->scratch = AllocSetContextCreate(CurrentMemoryContext, "retry live walk",
										  ALLOCSET_DEFAULT_SIZES);

	if (walk->progress != NULL && !walk->narrow)
		expected = estimate();
	if (count_first)
	{
		retry_progress_phase(walk->progress, "counting tasks", expected, true);
		walk_all(walk, NULL, now);
		expected = walk->looked_at;
	}
	retry_progress_phase(walk->progress, "going through tasks", expected, !count_first);
	walk_all(walk, writer, now);

	MemoryContextDelete(walk->scratch);
	retry_reader_end(walk->reader);
	PopActiveSnapshot();
	return walk->found;
}
