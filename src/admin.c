/*
 * admin.c
 *		Groups for roles, and what is asked of one task: grant, revoke, cancel,
 *		run_now, amend.
 *
 * An ordinary role uses these; the rights are checked here for the role that
 * called.  Nothing is changed about a task: what is asked of it is another
 * fact, which the dispatcher reads as it reads the tasks, and which does not
 * have to wait for anybody.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "amend.h"
#include "audit.h"
#include "locate.h"
#include "part.h"
#include "statement.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(retry_grant);
PG_FUNCTION_INFO_V1(retry_revoke);
PG_FUNCTION_INFO_V1(retry_cancel);
PG_FUNCTION_INFO_V1(retry_run_now);
PG_FUNCTION_INFO_V1(retry_amend);

static void
check_role(Oid role)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", role)));
}

/* retry.grant(role, group_name) */
Datum
retry_grant(PG_FUNCTION_ARGS)
{
	Oid			types[] = {INT4OID, OIDOID, OIDOID};
	RetryGroupRow group;
	Datum		values[lengthof(types)];

	check_role(PG_GETARG_OID(0));
	retry_own_group(text_to_cstring(PG_GETARG_TEXT_PP(1)), "grant or revoke", &group);
	values[0] = Int32GetDatum(group.id);
	values[1] = ObjectIdGetDatum(PG_GETARG_OID(0));
	values[2] = ObjectIdGetDatum(GetUserId());
	retry_statement_as_owner("INSERT INTO retry.group_member (group_id, role, granted_by)"
							 " VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
							 lengthof(types), types, values, SPI_OK_INSERT);
	PG_RETURN_VOID();
}

/* retry.revoke(role, group_name); the role need not exist any more. */
Datum
retry_revoke(PG_FUNCTION_ARGS)
{
	Oid			types[] = {INT4OID, OIDOID};
	RetryGroupRow group;
	Datum		values[lengthof(types)];

	retry_own_group(text_to_cstring(PG_GETARG_TEXT_PP(1)), "grant or revoke", &group);
	values[0] = Int32GetDatum(group.id);
	values[1] = ObjectIdGetDatum(PG_GETARG_OID(0));
	retry_statement_as_owner("DELETE FROM retry.group_member m"
							 " WHERE m.group_id OPERATOR(pg_catalog.=) $1 AND m.role OPERATOR(pg_catalog.=) $2",
							 lengthof(types), types, values, SPI_OK_DELETE);
	PG_RETURN_VOID();
}

static void
signal_task(const char *function, char action, const RetryLocated *task)
{
	RetryWriter *writer = retry_writer_begin(function);

	retry_write_signal(writer, action, &task->id, task->leaf, task->lane_hash,
					   task->probe.attempts, GetUserId());
	retry_writer_end(writer);
}

/* Nobody would tell its transaction that it is not going to be done, or when its time is over. */
static void
refuse_needed(const RetryLocated *task)
{
	bool		isnull;
	Datum		on_dead = heap_getattr(task->row, Task_on_dead + 1, task->desc, &isnull);
	Datum		gid;
	bool		operation;

	if (isnull || !retry_part_is_needed(TextDatumGetCString(on_dead)))
		return;
	operation = retry_part_is_operation(TextDatumGetCString(on_dead));
	gid = heap_getattr(task->row, Task_parent_id + 1, task->desc, &isnull);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(operation ? "task %s is an operation of transaction %s" : "task %s ends the time of transaction %s",
					retry_id_text(&task->id), retry_id_text(DatumGetUUIDP(gid))),
			 errhint(operation ? "retry.rollback() ends an undecided transaction; retry.settle() regards one operation as done or failed." :
					 "retry.commit() or retry.rollback() decides over it before.")));
}

/*
 * retry.cancel(id): asking again for what is already asked stores nothing and
 * is true.
 */
Datum
retry_cancel(PG_FUNCTION_ARGS)
{
	RetryLocated task;

	retry_locate(PG_GETARG_UUID_P(0), &task);
	if (task.probe.terminal)
		PG_RETURN_BOOL(false);
	if (!task.probe.cancelled)
	{
		refuse_needed(&task);
		signal_task("retry.cancel()", RETRY_SIGNAL_CANCEL, &task);
		retry_audit_task("task cancelled", &task, NULL);
	}
	PG_RETURN_BOOL(true);
}

/* retry.run_now(id) */
Datum
retry_run_now(PG_FUNCTION_ARGS)
{
	RetryLocated task;

	retry_locate(PG_GETARG_UUID_P(0), &task);
	if (task.probe.terminal || task.probe.cancelled)
		PG_RETURN_BOOL(false);
	signal_task("retry.run_now()", RETRY_SIGNAL_RUN_NOW, &task);
	retry_audit_task("task run now", &task, NULL);
	PG_RETURN_BOOL(true);
}

/* retry.amend(id, changes) */
Datum
retry_amend(PG_FUNCTION_ARGS)
{
	RetryLocated task;
	RetryChange change;
	RetryWriter *writer;
	Datum		url;
	Datum		on_success;
	Datum		enqueued_by;
	bool		no_url;
	bool		no_callback;
	bool		isnull;

	retry_change_read(PG_GETARG_JSONB_P(1), GetCurrentTimestamp(), &change);
	retry_locate(PG_GETARG_UUID_P(0), &task);
	if (task.probe.terminal || task.probe.cancelled)
		PG_RETURN_BOOL(false);
	enqueued_by = heap_getattr(task.row, Task_enqueued_by + 1, task.desc, &isnull);
	url = heap_getattr(task.row, Task_url + 1, task.desc, &no_url);
	on_success = heap_getattr(task.row, Task_on_success + 1, task.desc, &no_callback);
	retry_change_check_task(&change, GetActiveSnapshot(), task.scene_id, no_url ? NULL : DatumGetTextPP(url),
							no_callback ? NULL : DatumGetTextPP(on_success), DatumGetObjectId(enqueued_by));
	writer = retry_writer_begin("retry.amend()");
	retry_write_change(writer, &task.id, task.leaf, task.lane_hash, task.probe.attempts, GetUserId(), change.stored);
	retry_writer_end(writer);
	retry_audit_task("task amended", &task, retry_audit_members(change.stored));
	PG_RETURN_BOOL(true);
}
