/*
 * advance.h
 *		What sessions do to sagas and TCC transactions: begin, decide, settle.
 *
 * The counterpart of record_operation.c, for who may wait for locks.
 *
 * The including file includes postgres.h first.
 */
#ifndef RETRY_ADVANCE_H
#define RETRY_ADVANCE_H

#include "compat.h"
#include "operation.h"
#include "scene.h"
#include "writer.h"

/*
 * Locks a transaction and reads what is known of it; *scene is its own.  ERROR
 * (undefined_object) when there is none over which the caller may decide.
 */
extern void retry_advance_open(const pg_uuid_t *gid, RetryWhole *whole, RetrySceneRow *scene);

/*
 * Stores what follows when "after" is known of it instead of whole->known, and
 * the decision if there is one by that, made by the current role.  No limit of a
 * group refuses it.
 */
extern void retry_advance(RetryWriter *writer, RetryWhole *whole, RetryBranches *after);

/* Puts the task of an operation among the tasks. */
extern void retry_advance_begin(RetryWriter *writer, RetryWhole *whole, const RetryOperation *operation);

/* Stores an outcome, as retry_outcome_row() makes it. */
extern void retry_advance_note(const pg_uuid_t *gid, int branch, const char *op, const char *outcome, Oid by);

/*
 * Asks a task to end: it is cancelled, or (RETRY_SIGNAL_RUN_NOW) its next attempt
 * comes at once.  Nothing when it has ended, or is none.
 */
extern void retry_advance_signal(RetryWriter *writer, const pg_uuid_t *task_id, char action);

/*
 * retry.commit() and retry.rollback() for all modes but message: true when this
 * call has decided, or asked for a commit that follows when all tries are done.
 * The transaction is locked; "before" is what is decided.  ERROR when the mode
 * does not let a caller decide so.
 */
extern bool retry_advance_decide(const char *function, RetryGlobal *global, RetryDecision decision);

/* The ERROR for one that there is not, or that the caller may not see: they are not to be told apart. */
pg_noreturn extern void retry_no_such_transaction(const pg_uuid_t *gid);

#endif							/* RETRY_ADVANCE_H */
