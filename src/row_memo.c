/*
 * row_memo.c
 *		Looks whether a row is still where, and as, it was last found.
 *
 * A row that is looked up by its key costs the search of an index, with two
 * relations to lock; where it was, one look at a page.  The place may hold
 * another row by now, the table may be another file or shorter: what counts is
 * that the row found there is seen by the snapshot and has the same contents.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "row_memo.h"

/* All that the columns are read from; headers differ in who wrote them. */
static bool
same_contents(HeapTuple a, HeapTuple b)
{
	HeapTupleHeader ha = a->t_data;
	HeapTupleHeader hb = b->t_data;

	return a->t_len == b->t_len && ha->t_hoff == hb->t_hoff &&
		HeapTupleHeaderGetNatts(ha) == HeapTupleHeaderGetNatts(hb) &&
		HeapTupleHasNulls(a) == HeapTupleHasNulls(b) &&
		memcmp(ha->t_bits, hb->t_bits, a->t_len - offsetof(HeapTupleHeaderData, t_bits)) == 0;
}

bool
retry_memo_holds(const RetryRowMemo *memo, Relation rel, Snapshot snapshot)
{
	HeapTupleData tuple;
	Buffer		buffer;
	bool		same;

	if (memo->row == NULL)
		return false;
	tuple.t_self = memo->row->t_self;
	if (ItemPointerGetBlockNumber(&tuple.t_self) >= RelationGetNumberOfBlocks(rel) ||
		!heap_fetch(rel, snapshot, &tuple, &buffer, false))
		return false;
	same = same_contents(&tuple, memo->row);
	ReleaseBuffer(buffer);
	return same;
}

bool
retry_memo_keep(RetryRowMemo *memo, HeapTuple row)
{
	MemoryContext old;

	if (memo->row != NULL)
		heap_freetuple(memo->row);
	memo->row = NULL;
	if (HeapTupleHasExternal(row))
		return false;
	old = MemoryContextSwitchTo(TopMemoryContext);
	memo->row = heap_copytuple(row);
	MemoryContextSwitchTo(old);
	return true;
}
