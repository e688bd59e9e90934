/*
 * trigger_guard.h
 *		Keeps the triggers that must always fire as they are.
 *
 * A restore with --disable-triggers switches off every trigger of a table
 * while it loads it, and on again in the ordinary way, also those that are
 * ENABLE ALWAYS.
 */
#ifndef RETRY_TRIGGER_GUARD_H
#define RETRY_TRIGGER_GUARD_H

#include "nodes/parsenodes.h"

/*
 * Makes those triggers of a table of schema retry fire always again that are
 * to and do not.  Returns how many there were; -1, with nothing changed, when
 * the lock for it cannot be had at once.  In a transaction, with a snapshot.
 */
extern int	retry_mend_triggers(Oid table);

/* After this command: mends what it has done to a table of ours. */
extern void retry_guard_triggers(const AlterTableStmt *statement);

#endif							/* RETRY_TRIGGER_GUARD_H */
