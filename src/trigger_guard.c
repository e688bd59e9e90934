/*
 * trigger_guard.c
 *		Keeps the triggers that must always fire as they are.
 *
 * The trigger of the leaves is what marks a restored row as foreign, so that it
 * is not sent before somebody says so.  pg_restore --disable-triggers would get
 * its rows past it: ALTER TABLE ... DISABLE TRIGGER ALL stops ENABLE ALWAYS
 * triggers too.  So right after such a command, in its own transaction, ours
 * are put back.  Upkeep does the same for what happened while the library was
 * not loaded.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "trigger_guard.h"

/* Of the triggers of this table, which are to fire always? */
static bool
must_fire(const char *table, const Trigger *trigger)
{
	if (trigger->tgisinternal)
		return false;
	if (strcmp(table, "scene") == 0 || strcmp(table, "scene_group") == 0 || strcmp(table, "lane_override") == 0)
		return strcmp(trigger->tgname, "merge_builtin") == 0 ||
			strcmp(trigger->tgname, "config_changed") == 0;
	if (strcmp(table, "schedule_definition") == 0)
		return strcmp(trigger->tgname, "audit_row") != 0;
	return strcmp(trigger->tgname, "mark_foreign_row") == 0;
}

/* The statements that are needed, as C strings. */
static List *
mending_statements(Oid table)
{
	Relation	rel = table_open(table, AccessShareLock);
	List	   *statements = NIL;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (must_fire(RelationGetRelationName(rel), trigger) &&
			trigger->tgenabled != TRIGGER_FIRES_ALWAYS)
			statements = lappend(statements,
								 psprintf("ALTER TABLE retry.%s ENABLE ALWAYS TRIGGER %s",
										  quote_identifier(RelationGetRelationName(rel)),
										  quote_identifier(trigger->tgname)));
	}
	table_close(rel, NoLock);
	return statements;
}

int
retry_mend_triggers(Oid table)
{
	List	   *statements = mending_statements(table);
	ListCell   *cell;

	if (statements == NIL)
		return 0;
	if (!ConditionalLockRelationOid(table, ShareRowExclusiveLock))
		return -1;
	SPI_connect();
	foreach(cell, statements)
	{
		if (SPI_execute(lfirst(cell), false, 0) != SPI_OK_UTILITY)
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg_internal("could not execute \"%s\"", (char *) lfirst(cell))));
	}
	SPI_finish();
	return list_length(statements);
}

void
retry_guard_triggers(const AlterTableStmt *statement)
{
	bool		concerned = false;
	ListCell   *cell;
	Oid			table;

	foreach(cell, statement->cmds)
	{
		switch (lfirst_node(AlterTableCmd, cell)->subtype)
		{
			case AT_EnableTrigAll:
			case AT_EnableTrigUser:
			case AT_DisableTrigAll:
			case AT_DisableTrigUser:
				concerned = true;
				break;
			default:
				break;
		}
	}
	if (!concerned)
		return;
	CommandCounterIncrement();
	table = RangeVarGetRelid(statement->relation, NoLock, true);
	if (OidIsValid(table) && get_rel_relkind(table) == RELKIND_RELATION &&
		get_rel_namespace(table) == get_namespace_oid("retry", true))
		(void) retry_mend_triggers(table);
}
