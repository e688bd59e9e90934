/*
 * audit.c
 *		Writes who did what to tasks, secrets and grants.
 *
 * An audit is read by people long after, when roles and groups may be gone:
 * so it has names, not numbers.  Rows are appended past the executor, as all
 * facts are, which asks nobody for a privilege; and nobody but retry has one
 * to write.  Changes of configuration are noted by a trigger, audit_row.c.
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "audit.h"
#include "json_member.h"
#include "store.h"

/* Columns of retry.audit_entry. */
enum
{
	Audit_at, Audit_session_role, Audit_role, Audit_action, Audit_group_id,
	Audit_group_name, Audit_object, Audit_task_id, Audit_before, Audit_after,
	Audit_natts
};

static Datum
role_name(Oid role)
{
	const char *name = GetUserNameFromId(role, true);

	return name != NULL ? CStringGetTextDatum(name) : CStringGetTextDatum(psprintf("%u", role));
}

void
retry_audit(const RetryAuditEntry *entry)
{
	RetryAppender *appender;
	Datum		values[Audit_natts] = {0};
	bool		isnull[Audit_natts];

	memset(isnull, true, sizeof(isnull));
	RETRY_FILL(Audit_at, true, TimestampTzGetDatum(GetCurrentTimestamp()));
	RETRY_FILL(Audit_session_role, true, role_name(GetSessionUserId()));
	RETRY_FILL(Audit_role, true, role_name(retry_acting_role()));
	RETRY_FILL(Audit_action, true, CStringGetTextDatum(entry->action));
	RETRY_FILL(Audit_group_id, entry->group != NULL, Int32GetDatum(entry->group->id));
	RETRY_FILL(Audit_group_name, entry->group != NULL, CStringGetTextDatum(entry->group->name));
	RETRY_FILL(Audit_object, entry->object != NULL, CStringGetTextDatum(entry->object));
	RETRY_FILL(Audit_task_id, entry->task_id != NULL, UUIDPGetDatum(entry->task_id));
	RETRY_FILL(Audit_before, entry->before != NULL, JsonbPGetDatum(entry->before));
	RETRY_FILL(Audit_after, entry->after != NULL, JsonbPGetDatum(entry->after));

	appender = retry_append_begin(retry_relation_oid("audit_entry"), Audit_natts, false);
	retry_append_row(appender, values, isnull);
	retry_append_end(appender);
}

void
retry_audit_task(const char *action, const RetryLocated *task, Jsonb *after)
{
	RetryAuditEntry entry = {.action = action,.task_id = &task->id,.after = after};

	if (task->has_scene)
	{
		entry.group = &task->scene.group;
		entry.object = task->scene.name;
	}
	retry_audit(&entry);
}

Jsonb *
retry_audit_members(Jsonb *object)
{
	JsonbParseState *state = NULL;
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			pushJsonbValue(&state, WJB_ELEM, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/* An argument as it is noted. */
static void
push_argument(JsonbParseState **state, const char *name, Oid type, Datum datum)
{
	Oid			output;
	bool		varlena;

	if (type == JSONBOID)
		datum = JsonbPGetDatum(retry_audit_members(DatumGetJsonbP(datum)));
	getTypeOutputInfo(type, &output, &varlena);
	retry_push_string(state, name, OidOutputFunctionCall(output, datum));
}

Jsonb *
retry_audit_arguments(FunctionCallInfo fcinfo, int64 tasks, RetryGroupRow *group, bool *has_group)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	JsonbParseState *state = NULL;
	JsonbValue	count = {.type = jbvNumeric};
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			nargs;
	Jsonb	   *described;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", fcinfo->flinfo->fn_oid)));
	nargs = Min(get_func_arg_info(tuple, &types, &names, &modes), fcinfo->nargs);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (tasks >= 0)
	{
		count.val.numeric = int64_to_numeric(tasks);
		retry_push_member(&state, "tasks", &count);
	}
	for (int i = 0; i < nargs; i++)
	{
		char		name[RETRY_NAME_MAX + 1];
		char		scene[RETRY_NAME_MAX + 1];

		if (PG_ARGISNULL(i))
			continue;
		push_argument(&state, names[i], types[i], PG_GETARG_DATUM(i));
		if (strcmp(names[i], "group_name") == 0)
			*has_group = retry_group_by_name(GetActiveSnapshot(), text_to_cstring(PG_GETARG_TEXT_PP(i)), group);
		else if (strcmp(names[i], "target") == 0 &&
				 retry_scene_parse(text_to_cstring(PG_GETARG_TEXT_PP(i)), name, scene))
			*has_group = retry_group_by_name(GetActiveSnapshot(), name, group);
	}
	described = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	ReleaseSysCache(tuple);
	return described;
}

void
retry_audit_call(FunctionCallInfo fcinfo, const char *action, int64 tasks)
{
	RetryAuditEntry entry = {.action = action};
	RetryGroupRow group;
	bool		has_group = false;

	if (tasks == 0)
		return;
	entry.after = retry_audit_arguments(fcinfo, tasks, &group, &has_group);
	if (has_group)
		entry.group = &group;
	retry_audit(&entry);
}
