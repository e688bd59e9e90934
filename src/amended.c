/*
 * amended.c
 *		A task's value as the views show it: its own, or what it was changed to.
 *
 * Views could join the signals, and would be planned over 33 more leaves in each
 * of their arms, for something that hardly any task has.  This costs next to
 * nothing in a leaf where nobody has asked for anything, and one descent of an
 * index elsewhere.
 *
 * Everybody may call it, since views call their functions with the rights of
 * whoever reads them; so it asks for itself whether the task may be seen.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "access.h"
#include "amend.h"
#include "scene.h"

PG_FUNCTION_INFO_V1(retry_amended);

/* The columns that views show, and their types. */
static const struct
{
	const char *name;
	int			column;
	Oid			type;
}			shown[] =

{
	{"max_attempts", Task_max_attempts, INT4OID},
	{"expires_at", Task_expires_at, TIMESTAMPTZOID},
	{"url", Task_url, TEXTOID},
	{"method", Task_method, TEXTOID},
	{"headers", Task_headers, JSONBOID},
	{"body", Task_body, BYTEAOID},
};

/* What a statement sees by. */
typedef struct View
{
	LocalTransactionId lxid;
	TransactionId xmin;
	TransactionId xmax;
	uint32		xcnt;
	int32		subxcnt;
	CommandId	curcid;
} View;

/*
 * What is known by that: views ask for several values of a task, one after the
 * other.
 */
typedef struct Known
{
	View		view;
	uint64		empty;			/* leaves in which no task was changed */
	bool		has_id;
	int			leaf;
	pg_uuid_t	id;				/* a task that was not changed */
} Known;

static Known known;

static void
refresh_known(void)
{
	Snapshot	snapshot = GetActiveSnapshot();
	View		view;

	memset(&view, 0, sizeof(view));
	view.lxid = retry_my_lxid();
	view.xmin = snapshot->xmin;
	view.xmax = snapshot->xmax;
	view.xcnt = snapshot->xcnt;
	view.subxcnt = snapshot->subxcnt;
	view.curcid = snapshot->curcid;
	if (memcmp(&view, &known.view, sizeof(view)) == 0)
		return;
	memset(&known, 0, sizeof(known));
	known.view = view;
}

/* The column by its name, whose type the caller has right. */
static int
find_column(FunctionCallInfo fcinfo)
{
	int		   *column = fcinfo->flinfo->fn_extra;

	if (column == NULL)
	{
		char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(3));

		column = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, sizeof(int));
		*column = -1;
		for (int i = 0; i < lengthof(shown); i++)
		{
			if (strcmp(shown[i].name, name) == 0 &&
				get_fn_expr_argtype(fcinfo->flinfo, 2) == shown[i].type)
				*column = shown[i].column;
		}
		if (*column < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("tasks have no column \"%s\" of this type", name)));
		fcinfo->flinfo->fn_extra = column;
	}
	return *column;
}

/* Looks in the index of the leaf's changes, which is empty almost always. */
static bool
was_changed(int leaf, const pg_uuid_t *id)
{
	Relation	table = table_open(retry_leaf_oid(RETRY_SIGNAL, leaf), AccessShareLock);
	char		name[NAMEDATALEN];
	Relation	index;
	bool		found = false;

	snprintf(name, sizeof(name), "signal_%02d_amend", leaf);
	index = index_open(retry_relation_oid(name), AccessShareLock);
	/* the first block is there from the beginning */
	if (RelationGetNumberOfBlocks(index) <= 1)
		known.empty |= UINT64CONST(1) << leaf;
	else
	{
		IndexScanDesc scan = retry_index_beginscan(table, index, GetActiveSnapshot(), 1);
		TupleTableSlot *slot = table_slot_create(table, NULL);
		ScanKeyData key;

		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
		index_rescan(scan, &key, 1, NULL, 0);
		found = index_getnext_slot(scan, ForwardScanDirection, slot);
		ExecDropSingleTupleTableSlot(slot);
		index_endscan(scan);
	}
	index_close(index, NoLock);
	table_close(table, NoLock);
	if (!found)
	{
		known.has_id = true;
		known.leaf = leaf;
		known.id = *id;
	}
	return found;
}

/* Whether the current role may see the task in the slot. */
static bool
may_see(Snapshot snapshot, TupleTableSlot *slot)
{
	RetrySceneRow scene;
	bool		isnull;

	if (!retry_scene_by_id(snapshot, DatumGetInt32(slot_getattr(slot, Task_scene_id + 1, &isnull)), &scene))
		return superuser();
	return retry_may_use_task(snapshot, GetUserId(), &scene.group,
							  DatumGetObjectId(slot_getattr(slot, Task_enqueued_by + 1, &isnull)));
}

/* Lays the changes of a task over one value of it. */
static void
look_up(int column, int leaf, const pg_uuid_t *id, Datum *value, bool *isnull)
{
	Snapshot	snapshot = GetActiveSnapshot();
	RetryReader *reader = retry_reader_begin(snapshot, false);
	TupleTableSlot *slot = retry_find_task(reader, id, NULL, &leaf);
	Datum		values[Task_natts] = {0};
	bool		nulls[Task_natts];
	bool		cancelled;

	memset(nulls, true, sizeof(nulls));
	values[column] = *value;
	nulls[column] = *isnull;
	if (slot != NULL && may_see(snapshot, slot))
		retry_changes_apply(retry_task_changes(reader, leaf, id, &cancelled), values, nulls);
	*value = values[column];
	*isnull = nulls[column];
	retry_reader_end(reader);
}

/* retry.amended(leaf, id, own, "column"): own, unless it was changed. */
Datum
retry_amended(PG_FUNCTION_ARGS)
{
	Datum		value = PG_GETARG_DATUM(2);
	bool		isnull = PG_ARGISNULL(2);

	if (!PG_ARGISNULL(0) && !PG_ARGISNULL(1) && !PG_ARGISNULL(3))
	{
		int			column = find_column(fcinfo);
		int			leaf = PG_GETARG_INT16(0);
		pg_uuid_t  *id = PG_GETARG_UUID_P(1);

		refresh_known();
		if (leaf >= 0 && leaf < RETRY_LEAVES && (known.empty & (UINT64CONST(1) << leaf)) == 0 &&
			!(known.has_id && known.leaf == leaf && memcmp(&known.id, id, sizeof(*id)) == 0) &&
			was_changed(leaf, id))
			look_up(column, leaf, id, &value, &isnull);
	}
	if (isnull)
		PG_RETURN_NULL();
	return value;
}
