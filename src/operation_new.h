/*
 * operation_new.h
 *		New operations of global transactions: judged as tasks are that are
 *		enqueued, and stored as what they become.
 *
 * The including file includes postgres.h first.
 */
#ifndef RETRY_OPERATION_NEW_H
#define RETRY_OPERATION_NEW_H

#include "enqueue.h"
#include "operation.h"

/* An operation as it was asked for, and the task that it becomes. */
typedef struct RetryNewOperation
{
	const pg_uuid_t *gid;
	int			branch;			/* from 0 */
	const char *name;			/* of the branch */
	RetryOp		op;
	RetryBranchSet needs;
	text	   *target;
	Jsonb	   *payload;		/* NULL: none */
	JsonbContainer *options;	/* members are arguments of retry.enqueue();
								 * NULL: none */
	text	   *reference;		/* NULL: none, unless it is among the options */
	TimestampTz expires_at;		/* of a first operation; 0: its scene's */

	RetryNewTask task;
} RetryNewOperation;

/* Is this member of a step one of the options? */
extern bool retry_operation_option(const char *name, int len);

/* ERROR (invalid_parameter_value) unless a branch may have this name. */
extern void retry_operation_check_name(const char *name);

/*
 * Makes its task, as the caller could enqueue it.  ERROR as of retry.enqueue(),
 * and for options that are not what they should be, with a context that names
 * the operation.
 */
extern void retry_operation_make(RetryNewOperation *operation);

/* Stores it in retry.global_operation, whose appender this is. */
extern void retry_operation_store(RetryAppender *appender, RetryNewOperation *operation);

/* The appender of that table. */
extern RetryAppender *retry_operation_appender(void);

/* Claims a key for a transaction; false: it has another one, whose id is in *gid then. */
extern bool retry_operation_claim(const RetrySceneRow *scene, text *key, TimestampTz now, pg_uuid_t *gid);

#endif							/* RETRY_OPERATION_NEW_H */
