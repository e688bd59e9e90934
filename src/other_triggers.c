/*
 * other_triggers.c
 *		Triggers that others have put on our tables.
 *
 * Rows are stored past the executor and our own triggers (append.c).  But who
 * follows a table by a trigger must hear of each row: pg_repack builds a table
 * anew beside the one that is in use, and what its trigger did not tell of it
 * would be gone when it puts the new one in its place.
 *
 * They act as the owner of the tables, and as a maintenance command has functions
 * act: nothing that they set or defer is left when they have ended.  So whoever
 * enqueues need not trust who made them, and a worker, which may do everything,
 * does not lend them that.  Those that could be deferred are passed like ours.
 */
#include "postgres.h"

#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "other_triggers.h"

/* Ours call functions of our schema, in which nobody else makes any. */
static bool
is_ours(Relation rel, const Trigger *trigger)
{
	return trigger->tgisinternal || get_func_namespace(trigger->tgfoid) == RelationGetNamespace(rel);
}

bool
retry_only_other_triggers(ResultRelInfo *result_rel)
{
	TriggerDesc *all = result_rel->ri_TrigDesc;
	int			kept = 0;

	if (all == NULL || !all->trig_insert_after_row)
		return false;
	all->trig_insert_after_row = false;
	for (int i = 0; i < all->numtriggers; i++)
	{
		Trigger    *trigger = &all->triggers[i];

		if (is_ours(result_rel->ri_RelationDesc, trigger) || trigger->tgdeferrable)
			continue;
		all->trig_insert_after_row |= TRIGGER_FOR_ROW(trigger->tgtype) && TRIGGER_FOR_AFTER(trigger->tgtype) &&
			TRIGGER_FOR_INSERT(trigger->tgtype);
		all->triggers[kept++] = *trigger;
	}
	all->numtriggers = kept;
	return all->trig_insert_after_row;
}

void
retry_fire_other_triggers(ResultRelInfo *result_rel, TupleTableSlot **slots, int nslots)
{
	EState	   *estate = CreateExecutorState();
	bool		pushed = !ActiveSnapshotSet();
	int			settings = NewGUCNestLevel();
	RetryRoleSwitch before;
	Oid			owner;
	int			context;

	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	retry_become_owner(&before);
	GetUserIdAndSecContext(&owner, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_RESTRICTED_OPERATION);
	AfterTriggerBeginQuery();
	for (int i = 0; i < nslots; i++)
		ExecARInsertTriggers(estate, result_rel, slots[i], NIL, NULL);
	AfterTriggerEndQuery(estate);
	retry_become_caller(&before);
	AtEOXact_GUC(false, settings);
	if (pushed)
		PopActiveSnapshot();
	ExecResetTupleTable(estate->es_tupleTable, false);
	ExecCloseResultRelations(estate);
	FreeExecutorState(estate);
}

void
retry_refuse_other_triggers(Relation rel)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (!is_ours(rel, trigger))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("table \"%s\" has a trigger that is not its own: \"%s\"",
							RelationGetRelationName(rel), trigger->tgname),
					 errhint("Try again when pg_repack has ended, or drop the trigger.")));
	}
}
