/*
 * live_walk.h
 *		A walk over the live tasks of a database, to ask something of many.
 *
 * Whoever walks says how a leaf is scanned and what becomes of a task; the walk
 * sees to it that no leaf is missed, none is cleared meanwhile, and memory
 * does not grow with what is found.
 */
#ifndef RETRY_LIVE_WALK_H
#define RETRY_LIVE_WALK_H

#include "progress.h"
#include "store.h"
#include "writer.h"

typedef struct RetryLiveWalk RetryLiveWalk;

struct RetryLiveWalk
{
	/* set by the caller: starts scans of a leaf, and has their rows taken */
	void		(*scan_leaf) (RetryLiveWalk *walk, int leaf);
	/* judges one row, in scratch memory; counts it in "found" if it is meant */
	void		(*take) (RetryLiveWalk *walk, TupleTableSlot *slot, int leaf);
	void	   *arg;
	RetryProgress *progress;	/* where it is shown; NULL: nowhere */
	bool		narrow;			/* scan_leaf does not start at all tasks:
								 * nobody knows at how many */

	/* for the two functions */
	RetryReader *reader;
	RetryWriter *writer;		/* NULL: tasks are only counted */
	int64		total;			/* as counted before; 0 if not */
	int64		found;

	/* its own */
	MemoryContext scratch;
	int64		looked_at;
};

/*
 * Walks through all leaves, those of the ring in the order of their days as of
 * "now", with one snapshot that is the active one meanwhile; with
 * "count_first" twice, first without the writer.  Locks the leaves of
 * tasks until the end of the transaction.  Returns how many were found.
 */
extern int64 retry_live_walk(RetryLiveWalk *walk, RetryWriter *writer, TimestampTz now,
							 bool count_first);

/* For scan_leaf: has all rows of a scan taken that was started. */
extern void retry_live_walk_take(RetryLiveWalk *walk, RetryIndex index, int leaf);

/* When the n-th (from 0) of so many is due that are spread evenly over a time. */
extern TimestampTz retry_spread_due(TimestampTz from, int64 over_us, int64 n, int64 total);

#endif							/* RETRY_LIVE_WALK_H */
