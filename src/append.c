/*
 * append.c
 *		Appending rows to one table of the store, past executor and triggers.
 *
 * Enqueue and record are the two places where every task passes, so they pay
 * for what a row needs and nothing else: one tuple, its index entries, its
 * WAL.  Rows are gathered and put in page by page, as COPY does, which also
 * makes their WAL smaller.  Passing none of our triggers is not only faster: it
 * is how a row that came in by enqueue is told from one that was restored.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "nodes/primnodes.h"
#include "storage/lmgr.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "compat.h"
#include "other_triggers.h"
#include "row.h"
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
	Oid		   *index_oids;
	AttrNumber *index_needs;	/* of each index: the column whose null keeps
								 * a row out of it, 0: no row */
	int			natts;			/* columns that rows are given with */
	RetryOtherColumns *others;	/* NULL: the table has no others */
	CommandId	cid;
	bool		fires;			/* triggers of others */
	BulkInsertState bulk;		/* made at the second flush: not for one row */
	int			nslots;			/* slots made so far */
	int			nrows;			/* slots filled now */
	Size		bytes;
	bool		flushed;
	TupleTableSlot *slots[APPEND_ROWS];
};

/* index_column() for indexes met before; forgotten with the relation cache's. */
typedef struct KnownIndex
{
	Oid			oid;			/* key */
	AttrNumber	column;
} KnownIndex;

static HTAB *known_indexes = NULL;

static void
forget_index(Datum arg, Oid relation)
{
	HASH_SEQ_STATUS all;
	KnownIndex *known;

	if (OidIsValid(relation))
	{
		(void) hash_search(known_indexes, &relation, HASH_REMOVE, NULL);
		return;
	}
	hash_seq_init(&all, known_indexes);
	while ((known = hash_seq_search(&all)) != NULL)
		(void) hash_search(known_indexes, &known->oid, HASH_REMOVE, NULL);
}

/* The column of a partial index WHERE column IS NOT NULL; 0 for any other index. */
static AttrNumber
predicate_column(Relation index)
{
	List	   *predicate = RelationGetIndexPredicate(index);
	NullTest   *test;

	if (list_length(predicate) != 1 || !IsA(linitial(predicate), NullTest))
		return 0;
	test = linitial_node(NullTest, predicate);
	if (test->nulltesttype != IS_NOT_NULL || test->argisrow || !IsA(test->arg, Var) ||
		((Var *) test->arg)->varattno < 1)
		return 0;
	return ((Var *) test->arg)->varattno;
}

static AttrNumber
index_column(Oid oid)
{
	KnownIndex *known;
	Relation	index;
	AttrNumber	column;

	if (known_indexes == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(KnownIndex)};

		known_indexes = hash_create("retry indexes", 64, &ctl, HASH_ELEM | HASH_BLOBS);
		CacheRegisterRelcacheCallback(forget_index, (Datum) 0);
	}
	known = hash_search(known_indexes, &oid, HASH_FIND, NULL);
	if (known != NULL)
		return known->column;

	index = index_open(oid, RowExclusiveLock);
	column = predicate_column(index);
	known = hash_search(known_indexes, &oid, HASH_ENTER, NULL);
	known->column = column;
	index_close(index, RowExclusiveLock);
	return column;
}

/*
 * What ExecOpenIndices() does, but nothing is opened yet: most of our indexes
 * are partial, and most rows in none of these.
 */
static void
list_indexes(RetryAppender *a)
{
	List	   *oids = RelationGetIndexList(a->rel);
	int			n = list_length(oids);
	ResultRelInfo *result_rel = a->result_rel;

	if (n == 0)
		return;
	result_rel->ri_NumIndices = n;
	result_rel->ri_IndexRelationDescs = palloc0(n * sizeof(Relation));
	result_rel->ri_IndexRelationInfo = palloc0(n * sizeof(IndexInfo *));
	a->index_oids = palloc(n * sizeof(Oid));
	a->index_needs = palloc(n * sizeof(AttrNumber));
	for (int i = 0; i < n; i++)
	{
		a->index_oids[i] = list_nth_oid(oids, i);
		a->index_needs[i] = index_column(a->index_oids[i]);
	}
	list_free(oids);
}

/* Opens the indexes that this row has entries in. */
static void
open_indexes(RetryAppender *a, const bool *isnull)
{
	ResultRelInfo *result_rel = a->result_rel;

	for (int i = 0; i < result_rel->ri_NumIndices; i++)
	{
		MemoryContext old;

		if (result_rel->ri_IndexRelationDescs[i] != NULL ||
			(a->index_needs[i] != 0 && isnull[a->index_needs[i] - 1]))
			continue;
		old = MemoryContextSwitchTo(GetMemoryChunkContext(a));
		result_rel->ri_IndexRelationDescs[i] = index_open(a->index_oids[i], RowExclusiveLock);
		result_rel->ri_IndexRelationInfo[i] = BuildIndexInfo(result_rel->ri_IndexRelationDescs[i]);
		MemoryContextSwitchTo(old);
	}
}

/* What ExecCloseIndices() does, which 18 only does when all were opened. */
static void
close_indexes(RetryAppender *a)
{
	ResultRelInfo *result_rel = a->result_rel;

	for (int i = 0; i < result_rel->ri_NumIndices; i++)
	{
		Relation	index = result_rel->ri_IndexRelationDescs[i];

		if (index == NULL)
			continue;
		retry_index_insert_cleanup(index, result_rel->ri_IndexRelationInfo[i]);
		index_close(index, RowExclusiveLock);
	}
}

RetryAppender *
retry_append_begin(Oid relation, int natts, bool nowait)
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
	a->fires = retry_only_other_triggers(a->result_rel);
	list_indexes(a);
	a->natts = natts != 0 ? natts : RelationGetDescr(a->rel)->natts;
	a->others = retry_other_columns(a->rel, a->natts, a->estate);
	a->cid = GetCurrentCommandId(true);
	return a;
}

void
retry_append_row(RetryAppender *a, const Datum *values, const bool *isnull)
{
	TupleTableSlot *slot;

	if (a->nrows == a->nslots)
		a->slots[a->nslots++] = table_slot_create(a->rel, NULL);
	slot = a->slots[a->nrows];

	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, a->natts * sizeof(Datum));
	memcpy(slot->tts_isnull, isnull, a->natts * sizeof(bool));
	if (a->others != NULL)
		retry_other_columns_fill(a->others, slot);
	open_indexes(a, slot->tts_isnull);
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
	if (a->fires)
		retry_fire_other_triggers(a->result_rel, a->slots, a->nrows);
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
	close_indexes(a);
	if (a->index_oids != NULL)
	{
		pfree(a->index_oids);
		pfree(a->index_needs);
	}
	pfree(a->result_rel);
	FreeExecutorState(a->estate);
	table_close(a->rel, NoLock);
	pfree(a);
}
