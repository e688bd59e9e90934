/*
 * record_part.c
 *		What a task is to a global transaction, when its row must not be read.
 *
 * A task that has crashed whoever read it ends as well, and so does what waits for
 * its end.  Its transaction names it: that is found without an index, since it
 * hardly ever happens.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "operation.h"
#include "record_private.h"

/*
 * The columns that are wanted of the row which has this id in that column.  False
 * when the table cannot be read at once; the first is 0 when there is no such row.
 */
static bool
look(const RetryRecordBatch *batch, const char *table, int column, const pg_uuid_t *id, const int *wanted, Datum *found)
{
	Relation	rel = retry_global_open(table, AccessShareLock, batch->wait);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;
	bool		isnull;

	found[0] = found[1] = (Datum) 0;
	if (rel == NULL)
		return false;
	PushActiveSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, column + 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	scan = systable_beginscan(rel, InvalidOid, false, GetActiveSnapshot(), 1, &key);
	row = systable_getnext(scan);
	if (HeapTupleIsValid(row))
	{
		row = heap_copytuple(row);
		for (int i = 0; i < 2; i++)
			found[i] = heap_getattr(row, wanted[i] + 1, RelationGetDescr(rel), &isnull);
	}
	systable_endscan(scan);
	PopActiveSnapshot();
	table_close(rel, NoLock);
	return true;
}

bool
retry_record_part(const RetryRecordBatch *batch, const pg_uuid_t *task_id, RetryPart *part, pg_uuid_t *gid)
{
	static const int of_global[] = {Global_gid, Global_mode};
	static const int of_operation[] = {Operation_gid, Operation_op};
	Datum		found[2];

	*part = RETRY_PART_NONE;
	if (!look(batch, "global_transaction", Global_check_id, task_id, of_global, found))
		return false;
	if (found[0] != (Datum) 0)
		*part = retry_global_mode_in(found[1]) == RETRY_MODE_MESSAGE ? RETRY_PART_CHECK : RETRY_PART_TIMER;
	else
	{
		if (!look(batch, "global_operation", Task_id, task_id, of_operation, found))
			return false;
		if (found[0] == (Datum) 0)
			return true;
		*part = retry_op_phase(retry_op_in(found[1])) == RETRY_PHASE_FIRST ? RETRY_PART_FIRST : RETRY_PART_MUST;
	}
	*gid = *DatumGetUUIDP(found[0]);
	return true;
}
