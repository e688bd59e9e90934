/*
 * table_read.c
 *		Reads a small table of retry's from one end to the other.
 *
 * Several tables of configuration may have to be read with one snapshot, and
 * any of them may be locked: then what was opened before is given back, and
 * the worker goes on with what it knew.
 */
#include "postgres.h"

#include "access/table.h"
#include "storage/lmgr.h"

#include "row.h"
#include "store.h"
#include "table_read.h"

bool
retry_table_read_begin(RetryTableRead *read, const char *name, int natts, Snapshot snapshot)
{
	Oid			oid = retry_relation_oid(name);

	if (!ConditionalLockRelationOid(oid, AccessShareLock))
		return false;
	read->rel = table_open(oid, NoLock);
	retry_require_columns(read->rel, natts);
	read->slot = table_slot_create(read->rel, NULL);
	read->scan = table_beginscan(read->rel, snapshot, 0, NULL);
	return true;
}

bool
retry_table_read_next(RetryTableRead *read)
{
	if (!table_scan_getnextslot(read->scan, ForwardScanDirection, read->slot))
		return false;
	slot_getallattrs(read->slot);
	return true;
}

void
retry_table_read_end(RetryTableRead *read)
{
	if (read->rel == NULL)
		return;
	table_endscan(read->scan);
	ExecDropSingleTupleTableSlot(read->slot);
	table_close(read->rel, AccessShareLock);
	read->rel = NULL;
}
