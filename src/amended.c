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

#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
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

/* One place where the function is called, in one execution of a statement. */
typedef struct Site
{
	int			column;
	uint32		empty;			/* leaves of the ring that were found without
								 * signals that the snapshot could see */
	TransactionId xmin;			/* the snapshot */
	TransactionId xmax;
	uint32		xcnt;
	CommandId	curcid;
} Site;

static Site *
find_site(FunctionCallInfo fcinfo)
{
	Site	   *site = fcinfo->flinfo->fn_extra;
	Snapshot	snapshot = GetActiveSnapshot();

	if (site == NULL)
	{
		char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(3));

		site = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(Site));
		site->column = -1;
		for (int i = 0; i < lengthof(shown); i++)
		{
			if (strcmp(shown[i].name, name) == 0 &&
				get_fn_expr_argtype(fcinfo->flinfo, 2) == shown[i].type)
				site->column = shown[i].column;
		}
		if (site->column < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("tasks have no column \"%s\" of this type", name)));
		fcinfo->flinfo->fn_extra = site;
	}
	if (site->xmin != snapshot->xmin || site->xmax != snapshot->xmax ||
		site->xcnt != snapshot->xcnt || site->curcid != snapshot->curcid)
	{
		site->empty = 0;
		site->xmin = snapshot->xmin;
		site->xmax = snapshot->xmax;
		site->xcnt = snapshot->xcnt;
		site->curcid = snapshot->curcid;
	}
	return site;
}

/* Whether the leaf has no signals that the statement could see. */
static bool
is_empty(Site *site, RetryReader *reader, int leaf)
{
	bool		empty = retry_reader_empty(reader, RETRY_SIGNAL, leaf);

	if (empty && leaf < RETRY_RING_LEAVES)
		site->empty |= (uint32) 1 << leaf;
	return empty;
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
look_up(Site *site, int leaf, const pg_uuid_t *id, Datum *value, bool *isnull)
{
	Snapshot	snapshot = GetActiveSnapshot();
	RetryReader *reader = retry_reader_begin(snapshot, false);
	List	   *changes = NIL;
	bool		cancelled;

	if (retry_reader_leaf(reader, leaf) && !is_empty(site, reader, leaf))
		changes = retry_task_changes(reader, leaf, id, &cancelled);
	if (changes != NIL)
	{
		TupleTableSlot *slot = retry_find_task(reader, id, NULL, &leaf);
		Datum		values[Task_natts] = {0};
		bool		nulls[Task_natts];

		memset(nulls, true, sizeof(nulls));
		values[site->column] = *value;
		nulls[site->column] = *isnull;
		if (slot != NULL && may_see(snapshot, slot))
			retry_changes_apply(changes, values, nulls);
		*value = values[site->column];
		*isnull = nulls[site->column];
	}
	retry_reader_end(reader);
}

/* retry.amended(leaf, id, own, "column"): own, unless it was changed. */
Datum
retry_amended(PG_FUNCTION_ARGS)
{
	Datum		value = PG_GETARG_DATUM(2);
	bool		isnull = PG_ARGISNULL(2);
	Site	   *site;
	int			leaf;

	if (!PG_ARGISNULL(0) && !PG_ARGISNULL(1) && !PG_ARGISNULL(3))
	{
		site = find_site(fcinfo);
		leaf = PG_GETARG_INT16(0);
		if (leaf >= 0 && leaf < RETRY_LEAVES &&
			(leaf == RETRY_LONG_LEAF || (site->empty & ((uint32) 1 << leaf)) == 0))
			look_up(site, leaf, PG_GETARG_UUID_P(1), &value, &isnull);
	}
	if (isnull)
		PG_RETURN_NULL();
	return value;
}
