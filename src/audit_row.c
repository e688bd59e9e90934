/*
 * audit_row.c
 *		The trigger that notes changes of configuration in retry.audit_entry.
 *
 * It knows the columns from the table, so that one which a later version adds
 * is noted by itself.  Of an update only what differs is kept.  What may be a
 * credential or belongs to the business is not: of headers only the names, of
 * payloads nothing.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "audit.h"
#include "event.h"
#include "scene.h"
#include "store.h"

PG_FUNCTION_INFO_V1(retry_audit_row);

/* In place of what is not shown. */
#define HIDDEN	"***"

/*
 * The tables that have the trigger, and how their changes are told.  What
 * decides what is sent is for retry.events too, beside what came of it.
 */
static const struct
{
	const char *table;
	bool		event;
	const char *named_by;		/* column that names the object */
	const char *added;
	const char *changed;
	const char *deleted;
}			tables[] =

{
	{"scene_group", true, "name", "group added", "group changed", "group deleted"},
	{"scene", true, "name", "scene added", "scene changed", "scene deleted"},
	{"lane_override", false, "lane", "lane override added", "lane override changed", "lane override deleted"},
	{"channel", true, "name", "channel added", "channel changed", "channel deleted"},
	{"alarm_rule", true, "name", "alarm rule added", "alarm rule changed", "alarm rule deleted"},
	{"server", true, "name", "server added", "server changed", "server deleted"},
	{"group_member", false, "role", "group granted", "grant changed", "group revoked"},
	{"schedule_definition", true, "name", "schedule added", "schedule changed", "schedule deleted"},
	{"purge_request", false, "before", "purge asked for", "purge changed", "purge deleted"},
	{"installation", true, "database", "database adopted", "adoption changed", "adoption deleted"},
};

/* Columns that say nothing to people. */
static bool
is_noise(const char *column)
{
	static const char *const noise[] = {
		"id", "group_id", "xid", "inert", "cron_job", "boundary",
		/* what the row of the audit says itself */
		"created_at", "since", "granted_at", "granted_by", "at", "by", "asked_at", "asked_by",
		/* what follows from another column */
		"resumed_at", "order_ended_at", "deleted_at", "scene_id"
	};

	for (int i = 0; i < lengthof(noise); i++)
	{
		if (strcmp(column, noise[i]) == 0)
			return true;
	}
	return false;
}

/* A column as text; NULL when it is null or there is no such row. */
static char *
column_text(HeapTuple row, TupleDesc desc, int number)
{
	return row == NULL ? NULL : SPI_getvalue(row, desc, number);
}

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, const char *string)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, string);
	value.val.string.len = strlen(string);
	pushJsonbValue(state, token, &value);
}

/* Headers: their names. */
static void
push_headers(JsonbParseState **state, Jsonb *headers)
{
	JsonbIterator *it = JsonbIteratorInit(&headers->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		pushJsonbValue(state, WJB_KEY, &value);
		push_string(state, WJB_VALUE, HIDDEN);
	}
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* One column of a row, which is not null, as a member. */
static void
push_column(JsonbParseState **state, HeapTuple row, TupleDesc desc, int number, const char *text)
{
	JsonbValue	value;
	bool		isnull;
	Datum		datum = heap_getattr(row, number, desc, &isnull);

	switch (TupleDescAttr(desc, number - 1)->atttypid)
	{
		case BOOLOID:
			value.type = jbvBool;
			value.val.boolean = DatumGetBool(datum);
			pushJsonbValue(state, WJB_VALUE, &value);
			break;
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
			value.type = jbvNumeric;
			value.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(text),
																	ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
			pushJsonbValue(state, WJB_VALUE, &value);
			break;
		case JSONBOID:
			if (strcmp(NameStr(TupleDescAttr(desc, number - 1)->attname), "headers") == 0 &&
				JB_ROOT_IS_OBJECT(DatumGetJsonbP(datum)))
				push_headers(state, DatumGetJsonbP(datum));
			else
				push_string(state, WJB_VALUE, HIDDEN);
			break;
		default:
			push_string(state, WJB_VALUE, text);
	}
}

/*
 * The columns of a row that differ from the other's.  Of a row that has no
 * other, those that are not null.
 */
static Jsonb *
describe_row(HeapTuple row, HeapTuple other, TupleDesc desc)
{
	JsonbParseState *state = NULL;

	if (row == NULL)
		return NULL;
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int number = 1; number <= desc->natts; number++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, number - 1);
		char	   *text;
		char	   *other_text;
		JsonbValue	none = {.type = jbvNull};

		if (column->attisdropped || is_noise(NameStr(column->attname)))
			continue;
		text = column_text(row, desc, number);
		other_text = column_text(other, desc, number);
		if (text == NULL ? other_text == NULL : other_text != NULL && strcmp(text, other_text) == 0)
			continue;
		push_string(&state, WJB_KEY, NameStr(column->attname));
		if (text == NULL)
			pushJsonbValue(&state, WJB_VALUE, &none);
		else
			push_column(&state, row, desc, number, text);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* The group with this number; false when there is none any more. */
static bool
group_by_id(const char *id, RetryGroupRow *group)
{
	Relation	rel = table_open(retry_relation_oid("scene_group"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;
	bool		found;

	ScanKeyInit(&key, Group_id + 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(pg_strtoint32(id)));
	scan = systable_beginscan(rel, retry_relation_oid("scene_group_id_key"), true, GetActiveSnapshot(), 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		group->id = pg_strtoint32(id);
		text_to_cstring_buffer(DatumGetTextPP(heap_getattr(tuple, Group_name + 1, RelationGetDescr(rel), &isnull)),
							   group->name, sizeof(group->name));
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	return found;
}

/* The group that a row is about; false when it is about none. */
static bool
group_of_row(Relation rel, HeapTuple row, RetryGroupRow *group)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			number;

	if ((number = SPI_fnumber(desc, "group_name")) > 0)
		return retry_group_by_name(GetActiveSnapshot(), SPI_getvalue(row, desc, number), group);
	if ((number = SPI_fnumber(desc, "group_id")) > 0)
		return group_by_id(SPI_getvalue(row, desc, number), group);
	if (RelationGetRelid(rel) != retry_relation_oid("scene_group"))
		return false;
	group->id = pg_strtoint32(SPI_getvalue(row, desc, Group_id + 1));
	strlcpy(group->name, SPI_getvalue(row, desc, Group_name + 1), sizeof(group->name));
	return true;
}

/* Which of the tables; ERROR for any other. */
static int
find_table(Relation rel)
{
	for (int i = 0; i < lengthof(tables); i++)
	{
		if (RelationGetRelid(rel) == retry_relation_oid(tables[i].table))
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("audit_row() is of no use on table \"%s\"", RelationGetRelationName(rel))));
}

/* For retry.events: what was changed, and who did it; values are the audit's. */
static void
note_event(const RetryAuditEntry *entry, Relation rel, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(rel);
	RetryEvent	event = {.kind = RETRY_EVENT_CONFIGURED};
	StringInfoData detail;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	const char *separator = ": ";

	initStringInfo(&detail);
	appendStringInfo(&detail, "%s \"%s\"", entry->action, entry->object != NULL ? entry->object : "");
	if (entry->before != NULL && entry->after != NULL)
	{
		it = JsonbIteratorInit(&entry->after->root);
		while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
		{
			if (token != WJB_KEY)
				continue;
			appendStringInfo(&detail, "%s%.*s", separator, value.val.string.len, value.val.string.val);
			separator = ", ";
		}
	}
	appendStringInfo(&detail, ", by role %s", GetUserNameFromId(GetSessionUserId(), true));
	event.detail = detail.data;
	if (entry->group != NULL)
		event.group_id = entry->group->id;
	if (RelationGetRelid(rel) == retry_relation_oid("scene"))
		event.scene_id = pg_strtoint32(SPI_getvalue(row, desc, Scene_id + 1));
	(void) retry_event_store(&event, true);
}

static void
note_row(TriggerData *trigger, int table)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	bool		inserted = TRIGGER_FIRED_BY_INSERT(trigger->tg_event);
	bool		updated = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	HeapTuple	old = inserted ? NULL : trigger->tg_trigtuple;
	HeapTuple	new = inserted ? trigger->tg_trigtuple : updated ? trigger->tg_newtuple : NULL;
	RetryAuditEntry entry = {0};
	RetryGroupRow group;

	entry.action = inserted ? tables[table].added : updated ? tables[table].changed : tables[table].deleted;
	entry.object = SPI_getvalue(new != NULL ? new : old, desc, SPI_fnumber(desc, tables[table].named_by));
	entry.before = describe_row(old, new, desc);
	if (updated && JB_ROOT_COUNT(entry.before) == 0)
		return;
	entry.after = describe_row(new, old, desc);
	PushActiveSnapshot(GetLatestSnapshot());
	if (group_of_row(trigger->tg_relation, new != NULL ? new : old, &group))
		entry.group = &group;
	PopActiveSnapshot();
	retry_audit(&entry);
	if (tables[table].event)
		note_event(&entry, trigger->tg_relation, new != NULL ? new : old);
}

/*
 * AFTER INSERT OR UPDATE OR DELETE, FOR EACH ROW, and AFTER TRUNCATE.  A dump
 * that is restored brings its own audit; who does that owns the tables.
 */
Datum
retry_audit_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	int			table;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("audit_row() can only be called as an AFTER trigger")));
	table = find_table(trigger->tg_relation);
	if (!check_function_bodies && has_privs_of_role(GetUserId(), trigger->tg_relation->rd_rel->relowner))
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
	{
		RetryAuditEntry entry = {.action = "table truncated",.object = tables[table].table};

		retry_audit(&entry);
	}
	else
		note_row(trigger, table);
	return PointerGetDatum(NULL);
}
