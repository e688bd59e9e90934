/*
 * row.c
 *		Rows of retry's tables, of which this library knows the first columns.
 *
 * Rows are read and stored past the executor, so it is here that a table whose
 * columns are not those that were compiled in is met: a dropped column counts,
 * too.  Arrays that are sized for the known columns never see the others.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "executor/executor.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "row.h"

struct RetryOtherColumns
{
	Relation	rel;
	EState	   *estate;
	int			known;			/* columns before them */
	ExprState  *defaults[FLEXIBLE_ARRAY_MEMBER];	/* NULL: null */
};

static void
require_columns(TupleDesc desc, const char *table, int n)
{
	if (desc->natts < n)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 table != NULL ?
				 errmsg("table \"retry.%s\" has %d columns and not %d: it is that of an earlier version of extension \"retry\"",
						table, desc->natts, n) :
				 errmsg("a row of extension \"retry\" has %d columns and not %d: it is that of an earlier version",
						desc->natts, n),
				 errhint("ALTER EXTENSION retry UPDATE brings its tables to the version of its library.")));
}

void
retry_require_columns(Relation rel, int n)
{
	require_columns(RelationGetDescr(rel), RelationGetRelationName(rel), n);
}

HeapTuple
retry_row_find(Relation rel, Oid index, ScanKey key, Snapshot snapshot)
{
	SysScanDesc scan = systable_beginscan(rel, index, true, snapshot, 1, key);
	HeapTuple	tuple = heap_copytuple(systable_getnext(scan));

	systable_endscan(scan);
	return tuple;
}

void
retry_row_read(HeapTuple row, TupleDesc desc, int n, Datum *values, bool *isnull)
{
	Datum	   *all_values;
	bool	   *all_isnull;

	if (desc->natts == n)
	{
		heap_deform_tuple(row, desc, values, isnull);
		return;
	}
	require_columns(desc, NULL, n);
	all_values = palloc(desc->natts * sizeof(Datum));
	all_isnull = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(row, desc, all_values, all_isnull);
	memcpy(values, all_values, n * sizeof(Datum));
	memcpy(isnull, all_isnull, n * sizeof(bool));
	pfree(all_values);
	pfree(all_isnull);
}

RetryOtherColumns *
retry_other_columns(Relation rel, int n, EState *estate)
{
	TupleDesc	desc = RelationGetDescr(rel);
	RetryOtherColumns *others;
	MemoryContext old;

	retry_require_columns(rel, n);
	if (desc->natts == n)
		return NULL;
	old = MemoryContextSwitchTo(estate->es_query_cxt);
	others = palloc0(offsetof(RetryOtherColumns, defaults) + (desc->natts - n) * sizeof(ExprState *));
	others->rel = rel;
	others->estate = estate;
	others->known = n;
	for (int i = n; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		Node	   *expression;

		if (column->attisdropped)
			continue;
		if (column->attgenerated != '\0')
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" of table \"retry.%s\" is generated, which retry's tables cannot have",
							NameStr(column->attname), RelationGetRelationName(rel)),
					 errhint("Drop the column; a view can compute it.")));
		expression = build_column_default(rel, i + 1);
		if (expression != NULL)
			others->defaults[i - n] = ExecPrepareExpr((Expr *) expression, estate);
	}
	MemoryContextSwitchTo(old);
	return others;
}

void
retry_other_columns_fill(RetryOtherColumns *others, TupleTableSlot *slot)
{
	TupleDesc	desc = RelationGetDescr(others->rel);
	ExprContext *context = GetPerTupleExprContext(others->estate);

	for (int i = others->known; i < desc->natts; i++)
	{
		ExprState  *expression = others->defaults[i - others->known];

		slot->tts_values[i] = (Datum) 0;
		slot->tts_isnull[i] = true;
		if (expression != NULL)
			slot->tts_values[i] = ExecEvalExprSwitchContext(expression, context, &slot->tts_isnull[i]);
		if (slot->tts_isnull[i] && TupleDescAttr(desc, i)->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("column \"%s\" of table \"retry.%s\" must not be null, and has no default",
							NameStr(TupleDescAttr(desc, i)->attname), RelationGetRelationName(others->rel)),
					 errhint("Give it a default, or drop it: this version of retry does not know it.")));
	}
}
