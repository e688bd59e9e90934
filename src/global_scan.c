/*
 * global_scan.c
 *		Reads the rows of many global transactions in one transaction of ours.
 *
 * A scan that is begun for each of them costs more than what it finds: relations are
 * locked and opened, a snapshot is taken, and memory for a page of index entries is
 * allocated and given back.  Here that is done once.  The rows are read as they are
 * committed at that moment: whoever could change what is known of a transaction has
 * its row locked, as the caller has, so they agree with each other.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "global.h"
#include "global_scan.h"

static const struct
{
	const char *table;
	const char *index;			/* its first column is the transaction */
}			names[RETRY_GLOBAL_TABLES] = {
	[RETRY_GLOBAL_TRANSACTION] = {"global_transaction", "global_transaction_pkey"},
	[RETRY_GLOBAL_DECISION] = {"global_decision", "global_decision_pkey"},
	[RETRY_GLOBAL_OPERATION] = {"global_operation", "global_operation_pkey"},
	[RETRY_GLOBAL_OUTCOME] = {"global_outcome", "global_outcome_pkey"}
};

typedef struct Scan
{
	Relation	rel;			/* NULL: not opened */
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} Scan;

struct RetryGlobalScans
{
	bool		wait;
	Scan		of[RETRY_GLOBAL_TABLES];
};

RetryGlobalScans *
retry_global_scans_begin(bool wait)
{
	RetryGlobalScans *scans = palloc0(sizeof(RetryGlobalScans));

	scans->wait = wait;
	return scans;
}

void
retry_global_scans_end(RetryGlobalScans *scans)
{
	for (int i = 0; i < RETRY_GLOBAL_TABLES; i++)
	{
		Scan	   *s = &scans->of[i];

		if (s->rel == NULL)
			continue;
		index_endscan(s->scan);
		ExecDropSingleTupleTableSlot(s->slot);
		index_close(s->index, NoLock);
		table_close(s->rel, NoLock);
	}
	pfree(scans);
}

bool
retry_global_scans_wait(const RetryGlobalScans *scans)
{
	return scans->wait;
}

bool
retry_global_scan(RetryGlobalScans *scans, RetryGlobalTable table, const pg_uuid_t *gid)
{
	Scan	   *s = &scans->of[table];
	ScanKeyData key;

	if (s->rel == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(scans));

		/*
		 * a lock that keeps others from its index, too, for which it would
		 * wait
		 */
		s->rel = retry_global_open(names[table].table, RowExclusiveLock, scans->wait);
		if (s->rel != NULL)
		{
			s->index = index_open(retry_relation_oid(names[table].index), AccessShareLock);
			s->scan = retry_index_beginscan(s->rel, s->index, SnapshotSelf, 1);
			s->slot = table_slot_create(s->rel, NULL);
		}
		MemoryContextSwitchTo(old);
		if (s->rel == NULL)
			return false;
	}
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(gid));
	index_rescan(s->scan, &key, 1, NULL, 0);
	return true;
}

HeapTuple
retry_global_scan_next(RetryGlobalScans *scans, RetryGlobalTable table)
{
	Scan	   *s = &scans->of[table];

	if (!index_getnext_slot(s->scan, ForwardScanDirection, s->slot))
		return NULL;
	return ExecFetchSlotHeapTuple(s->slot, false, NULL);
}

Relation
retry_global_scan_table(RetryGlobalScans *scans, RetryGlobalTable table)
{
	return scans->of[table].rel;
}
