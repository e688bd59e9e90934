/*
 * table_read.h
 *		Reads a small table of retry's from one end to the other.
 *
 * As workers do with configuration: straight from the heap, so that no plan,
 * setting or search path matters, and only if nobody has the table locked, so
 * that no session can make a worker wait.
 */
#ifndef RETRY_TABLE_READ_H
#define RETRY_TABLE_READ_H

#include "access/tableam.h"
#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* Zeroed before its begin. */
typedef struct RetryTableRead
{
	Relation	rel;			/* NULL: it was not opened */
	TableScanDesc scan;
	TupleTableSlot *slot;		/* the row at hand */
} RetryTableRead;

/*
 * Opens the table of that name, of which the first natts columns will be
 * looked at, as the snapshot sees it, in the current transaction and memory
 * context.  False when it cannot be locked at once; ERROR when there is no such
 * table, or it has fewer columns.
 */
extern bool retry_table_read_begin(RetryTableRead *read, const char *name, int natts, Snapshot snapshot);

/* The next row, with all its columns read; false after the last. */
extern bool retry_table_read_next(RetryTableRead *read);

/* Gives the table and its lock back, if it was opened.  Nobody needs it after an error. */
extern void retry_table_read_end(RetryTableRead *read);

#endif							/* RETRY_TABLE_READ_H */
