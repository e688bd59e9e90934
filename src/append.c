/*
 * append.c
 *		Appending rows to one table of the store, past executor and triggers.
 *
 * Enqueue and record are the two places where every task passes, so they pay
 * for what a row needs and nothing else: one tuple, its index entries, its
 * WAL.  Rows are gathered and put in page by page, as COPY does, which also
 * makes their WAL smaller.  Passing no trigger is not only faster: it is how
 * a row that came in by enqueue is told from one that was restored.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "compat.h"
#include "store.h"

/* Rows gathered before they are put in; a page of ours holds fewer. */
#define APPEND_ROWS		64

/* Bytes gathered before they are put in, however few the rows. */
#define APPEND_BYTES	(256 * 1024)

struct RetryAppender
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *result_rel;
	CommandId	cid;
	BulkInsertState bulk;		/* made at the second flush: not for one row */
	int			nslots;			/* slots made so far */
	int			nrows;			/* slots filled now */
	Size		bytes;
	bool		flushed;
	TupleTableSlot *slots[APPEND_ROWS];
};

RetryAppender *
retry_append_begin(Oid relation, bool nowait)
{
	RetryAppender *a;

	if (nowait)
	{
		if (!ConditionalLockRelationOid(relation, RowExclusiveLock))
			return NULL;
	}
	else
		LockRelationOid(relation, RowExclusiveLock);

	a = palloc0(offsetof(RetryAppender, slots) + APPEND_ROWS * sizeof(TupleTableSlot *));
	a->rel = table_open(relation, NoLock);
	a->estate = CreateExecutorState();
	a->result_rel = makeNode(ResultRelInfo);
	InitResultRelInfo(a->result_rel, a->rel, 1, NULL, 0);
	ExecOpenIndices(a->result_rel, false);
	a->cid = GetCurrentCommandId(true);
	return a;
}

void
retry_append_row(RetryAppender *a, const Datum *values, const bool *isnull)
{
	int			natts = RelationGetDescr(a->rel)->natts;
	TupleTableSlot *slot;

	if (a->nrows == a->nslots)
		a->slots[a->nslots++] = table_slot_create(a->rel, NULL);
	slot = a->slots[a->nrows];

	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull, isnull, natts * sizeof(bool));
	ExecStoreVirtualTuple(slot);
	ExecMaterializeSlot(slot);
	slot->tts_tableOid = RelationGetRelid(a->rel);
	a->nrows++;
	a->bytes += ((HeapTupleTableSlot *) slot)->tuple->t_len;

	if (a->nrows == APPEND_ROWS || a->bytes >= APPEND_BYTES)
		retry_append_flush(a);
}

void
retry_append_flush(RetryAppender *a)
{
	MemoryContext old;

	if (a->nrows == 0)
		return;

	if (a->flushed && a->bulk == NULL)
		a->bulk = GetBulkInsertState();

	/* what the table's access method allocates goes with the next reset */
	ResetPerTupleExprContext(a->estate);
	old = MemoryContextSwitchTo(GetPerTupleMemoryContext(a->estate));

	if (a->nrows == 1 && a->bulk == NULL)
		table_tuple_insert(a->rel, a->slots[0], a->cid, 0, NULL);
	else
		table_multi_insert(a->rel, a->slots, a->nrows, a->cid, 0, a->bulk);
	MemoryContextSwitchTo(old);

	if (a->result_rel->ri_NumIndices > 0)
	{
		for (int i = 0; i < a->nrows; i++)
		{
			ResetPerTupleExprContext(a->estate);
			retry_insert_index_tuples(a->result_rel, a->slots[i], a->estate);
		}
	}
	for (int i = 0; i < a->nrows; i++)
		ExecClearTuple(a->slots[i]);
	a->nrows = 0;
	a->bytes = 0;
	a->flushed = true;
}

void
retry_append_end(RetryAppender *a)
{
	retry_append_flush(a);
	for (int i = 0; i < a->nslots; i++)
		ExecDropSingleTupleTableSlot(a->slots[i]);
	if (a->bulk != NULL)
		FreeBulkInsertState(a->bulk);
	ExecCloseIndices(a->result_rel);
	pfree(a->result_rel);
	FreeExecutorState(a->estate);
	table_close(a->rel, NoLock);
	pfree(a);
}
