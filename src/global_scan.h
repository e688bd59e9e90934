/*
 * global_scan.h
 *		Reads the rows of many global transactions in one transaction of ours.
 *
 * What a dispatcher records in one go ends operations of hundreds of transactions.
 * The tables and scans are opened once for all of them.
 */
#ifndef RETRY_GLOBAL_SCAN_H
#define RETRY_GLOBAL_SCAN_H

#include "access/htup.h"
#include "utils/relcache.h"
#include "utils/uuid.h"

typedef enum RetryGlobalTable
{
	RETRY_GLOBAL_TRANSACTION, RETRY_GLOBAL_DECISION, RETRY_GLOBAL_OPERATION,
	RETRY_GLOBAL_OUTCOME, RETRY_GLOBAL_TABLES
} RetryGlobalTable;

typedef struct RetryGlobalScans RetryGlobalScans;

/*
 * Scans in the current memory context; nothing is opened yet.  Without "wait" they
 * wait for nothing that a session can hold.  They are ended before the transaction
 * is; locks stay until then.
 */
extern RetryGlobalScans *retry_global_scans_begin(bool wait);
extern void retry_global_scans_end(RetryGlobalScans *scans);
extern bool retry_global_scans_wait(const RetryGlobalScans *scans);

/*
 * Begins to read the rows of a table that belong to a transaction: what is committed
 * at the moment of reading, and what the current transaction has done.  False when the
 * table cannot be locked at once.
 */
extern bool retry_global_scan(RetryGlobalScans *scans, RetryGlobalTable table, const pg_uuid_t *gid);

/* The next of them, until the next call for this table; NULL: there is none. */
extern HeapTuple retry_global_scan_next(RetryGlobalScans *scans, RetryGlobalTable table);

/* The table, which has been scanned; open until the end of "scans". */
extern Relation retry_global_scan_table(RetryGlobalScans *scans, RetryGlobalTable table);

#endif							/* RETRY_GLOBAL_SCAN_H */
