/*
 * find.c
 *		Tasks by a key, a reference or an id: retry.find().
 *
 * A query of retry.tasks is planned for each leaf in each of its arms, which
 * takes many times as long as to read a few tasks.  Here the indexes are asked
 * first in which leaves there is one, and the query is planned for these alone.
 *
 * The first goes by nobody's rights, and tells nothing but where to look; the
 * second is done as the caller, and is what decides what is shown.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "statement.h"
#include "store.h"

PG_FUNCTION_INFO_V1(retry_find);

/* In more leaves than that, all together are planned faster than one by one. */
#define MAX_PLANS		4

/* What a task may be found by, in the order of the arguments. */
typedef enum Way
{
	By_key, By_reference, By_id, Ways
} Way;

static const struct
{
	const char *column;
	RetryIndex	index;
	Oid			type;
}			ways[Ways] =

{
	[By_key] = {"key", RETRY_TASK_KEY, TEXTOID},
	[By_reference] = {"reference", RETRY_TASK_REFERENCE, TEXTOID},
	[By_id] = {"id", RETRY_TASK_ID, UUIDOID},
};

typedef struct Wanted
{
	Way			way;
	Datum		value;
	int			leaves[RETRY_LEAVES];	/* that have such a task */
	int			nleaves;
} Wanted;

static void
read_arguments(FunctionCallInfo fcinfo, Wanted *wanted)
{
	int			given = 0;

	for (Way way = By_key; way < Ways; way++)
	{
		if (PG_ARGISNULL(way))
			continue;
		wanted->way = way;
		wanted->value = PG_GETARG_DATUM(way);
		given++;
	}
	if (given != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%d of key, reference and id are given", given),
				 errhint("Give one of them, as in retry.find(key => 'order-1'). The view retry.tasks takes any condition.")));
}

/* Is there such a task in the leaf? */
static bool
has_task(RetryReader *reader, int leaf, const Wanted *wanted)
{
	RetryIndex	index = ways[wanted->way].index;
	bool		by_id = wanted->way == By_id;
	ScanKeyData key;

	if (!retry_reader_leaf(reader, leaf) || retry_reader_empty(reader, RETRY_TASK, leaf))
		return false;
	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid, by_id ? InvalidOid : DEFAULT_COLLATION_OID,
						   by_id ? F_UUID_EQ : F_TEXTEQ, wanted->value);
	retry_scan_start(reader, index, leaf, 1, &key);
	return retry_scan_next(reader, index, leaf, ForwardScanDirection) != NULL;
}

static void
find_leaves(Wanted *wanted)
{
	RetryReader *reader = retry_reader_begin(GetActiveSnapshot(), false);

	for (int leaf = 0; leaf < RETRY_LEAVES; leaf++)
	{
		if (has_task(reader, leaf, wanted))
			wanted->leaves[wanted->nleaves++] = leaf;
	}
	retry_reader_end(reader);
}

/* Adds what a query has found; of its columns, those that the function returns come first. */
static void
add_rows(ReturnSetInfo *result, const Wanted *wanted, const char *from)
{
	Oid			types[] = {ways[wanted->way].type};
	Datum		value = wanted->value;
	uint64		n = retry_statement_query(psprintf("SELECT * FROM %s AND %s = $1", from, ways[wanted->way].column),
										  1, types, &value, NULL);
	TupleDesc	desc = SPI_tuptable->tupdesc;
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *isnull = palloc(sizeof(bool) * desc->natts);

	Assert(desc->natts >= result->setDesc->natts);
	for (uint64 i = 0; i < n; i++)
	{
		heap_deform_tuple(SPI_tuptable->vals[i], desc, values, isnull);
		tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* retry.find(key, reference, id): the tasks with one of them. */
Datum
retry_find(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Wanted		wanted = {.nleaves = 0};

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	read_arguments(fcinfo, &wanted);
	find_leaves(&wanted);
	retry_statement_connect();
	if (wanted.nleaves > MAX_PLANS)
		add_rows(result, &wanted, "retry.tasks WHERE true");
	else
	{
		for (int i = 0; i < wanted.nleaves; i++)
			add_rows(result, &wanted, psprintf("retry.tasks_by_leaf WHERE leaf = %d", wanted.leaves[i]));
		add_rows(result, &wanted, "retry.tasks WHERE state = 'dead'");
	}
	SPI_finish();
	return (Datum) 0;
}
