/*
 * scene_use.c
 *		A scene that tasks refer to does not go, whoever is first to commit.
 *
 * A foreign key would do that by locking the scene's row for each task, which
 * makes it the hottest row of all, and by making whoever changes the scene
 * wait.  Instead both sides show themselves first and look for the other then,
 * so that at least one sees the other:
 *
 *	- Who deletes has the row locked when the trigger is called, and then looks
 *	  who is writing tasks, of whatever scene, and at the tasks that there are.
 *	- Who writes a task has its leaf locked, and then looks whether somebody has
 *	  locked the scene's row against those who refer to it.  If so, the end of
 *	  that transaction is awaited as a foreign key would.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "access.h"
#include "scene_use.h"
#include "statement.h"
#include "store.h"

PG_FUNCTION_INFO_V1(retry_scene_in_use);

/* ---------------------------------------------------------------- who writes */

/*
 * Has somebody deleted the row, or locked it as who deletes it or changes its
 * name does?  True as well when it cannot be told.  The row cannot have been
 * pruned, since a snapshot that sees it is active.
 */
static bool
is_contended(const ItemPointerData *place)
{
	Relation	rel = table_open(retry_relation_oid("scene"), AccessShareLock);
	Buffer		buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(place));
	bool		contended = true;
	Page		page;
	ItemId		item;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	item = PageGetItemId(page, ItemPointerGetOffsetNumber(place));
	if (ItemIdIsNormal(item))
	{
		HeapTupleHeader row = (HeapTupleHeader) PageGetItem(page, item);

		contended = (row->t_infomask & HEAP_XMAX_INVALID) == 0 &&
			(row->t_infomask2 & HEAP_KEYS_UPDATED) != 0;
	}
	UnlockReleaseBuffer(buffer);
	table_close(rel, NoLock);
	return contended;
}

/* Waits until it is known whether the scene goes; if it stays, then to our end. */
static void
await_row(int32 id, const char *spelled)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(id);

	if (retry_statement_as_owner("SELECT FROM retry.scene s WHERE s.id OPERATOR(pg_catalog.=) $1 FOR KEY SHARE",
								 1, &type, &value, SPI_OK_SELECT) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("scene \"%s\" does not exist any more", spelled),
				 errdetail("It was deleted before a task of it could be stored.")));
}

void
retry_scene_keep(const RetrySceneRow *scene)
{
	if (is_contended(&scene->place))
		await_row(scene->id, psprintf("%s/%s", scene->group.name, scene->name));
}

void
retry_scene_keep_id(int32 id)
{
	RetrySceneRow scene;

	PushActiveSnapshot(GetLatestSnapshot());
	if (!retry_scene_by_id(GetActiveSnapshot(), id, &scene))
		await_row(id, psprintf("number %d", id));
	else
		retry_scene_keep(&scene);
	PopActiveSnapshot();
}

/* ---------------------------------------------------------------- who deletes */

/* Whether a query of one boolean, by what is committed now, says so. */
static bool
is_so(const char *sql, int32 id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(id);
	RetryRoleSwitch caller;
	bool		isnull;
	bool		found;

	retry_statement_connect();
	retry_become_owner(&caller);
	(void) retry_statement_latest(sql, 1, &type, &value);
	found = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	retry_become_caller(&caller);
	SPI_finish();
	return found;
}

/*
 * Is a transaction writing tasks, which may be of any scene?  Vacuum has a lock
 * that conflicts with the same others as who writes, but another one.
 */
static const char *const tasks_are_written =
"SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l"
" WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.mode OPERATOR(pg_catalog.=) 'RowExclusiveLock'"
" AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()"
" AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d"
"  WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())"
" AND (l.relation OPERATOR(pg_catalog.=) ANY (SELECT i.inhrelid FROM pg_catalog.pg_inherits i"
"   WHERE i.inhparent OPERATOR(pg_catalog.=) 'retry.task'::pg_catalog.regclass)"
"  OR l.relation OPERATOR(pg_catalog.=) 'retry.global_operation'::pg_catalog.regclass))";

static const char *const is_referred_to =
"SELECT EXISTS (SELECT FROM retry.task t WHERE t.scene_id OPERATOR(pg_catalog.=) $1)"
" OR EXISTS (SELECT FROM retry.dead_letter d WHERE d.scene_id OPERATOR(pg_catalog.=) $1)"
" OR EXISTS (SELECT FROM retry.global_message m WHERE m.scene_id OPERATOR(pg_catalog.=) $1)"
" OR EXISTS (SELECT FROM retry.global_operation o WHERE o.scene_id OPERATOR(pg_catalog.=) $1)"
" OR EXISTS (SELECT FROM retry.global_transaction g WHERE g.scene_id OPERATOR(pg_catalog.=) $1)"
" OR EXISTS (SELECT FROM retry.key k WHERE k.scene_id OPERATOR(pg_catalog.=) $1)";

/*
 * retry.scene_in_use(id): for the trigger that has the scene's row locked.  The
 * order matters: who is no longer writing has committed what we see then.
 */
Datum
retry_scene_in_use(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(is_so(tasks_are_written, 0) || is_so(is_referred_to, PG_GETARG_INT32(0)));
}
