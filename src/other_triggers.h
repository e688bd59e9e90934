/*
 * other_triggers.h
 *		Triggers that others have put on our tables.
 *
 * Rows are stored past the executor, but who follows a table must hear of them.
 * The including file includes postgres.h first.
 */
#ifndef RETRY_OTHER_TRIGGERS_H
#define RETRY_OTHER_TRIGGERS_H

#include "nodes/execnodes.h"
#include "utils/rel.h"

/*
 * Leaves of the triggers in *result_rel those of others alone.  Is there one that
 * fires after each row that is inserted?
 */
extern bool retry_only_other_triggers(ResultRelInfo *result_rel);

/*
 * Fires what retry_only_other_triggers() has left, for rows that have been
 * inserted, as the owner of the tables.  Raises what they raise, and ERROR
 * (insufficient_privilege) when they want something deferred.
 */
extern void retry_fire_other_triggers(ResultRelInfo *result_rel, TupleTableSlot **slots, int nslots);

/* ERROR when somebody else has a trigger on the table: its rows are about to be changed past all. */
extern void retry_refuse_other_triggers(Relation rel);

#endif							/* RETRY_OTHER_TRIGGERS_H */
