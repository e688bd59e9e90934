/*
 * operation.h
 *		The operations of global transactions: rows of retry.global_operation
 *		and retry.global_outcome.
 *
 * Each operation is stored whole when its transaction begins, as the task that
 * it becomes; its end is another row.  What is known of a transaction is read
 * together, by whoever has its row locked (global.h).
 */
#ifndef RETRY_OPERATION_H
#define RETRY_OPERATION_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/uuid.h"
#include "coordinate.h"
#include "global.h"
#include "store.h"

/* Columns that retry.global_operation has besides those of retry.task. */
enum
{
	Operation_gid = Task_natts, Operation_branch_no, Operation_op, Operation_branch,
	Operation_needs, Operation_natts
};

/* Columns of retry.global_outcome. */
enum
{
	Outcome_gid, Outcome_branch_no, Outcome_op, Outcome_outcome, Outcome_at,
	Outcome_settled_by, Outcome_natts
};

typedef enum RetryOp
{
	RETRY_OP_ACTION, RETRY_OP_COMPENSATE, RETRY_OP_TRY, RETRY_OP_CONFIRM,
	RETRY_OP_CANCEL, RETRY_OP_COMMIT, RETRY_OP_ROLLBACK, RETRY_OPS
} RetryOp;

typedef enum RetryOpPhase
{
	RETRY_PHASE_FIRST, RETRY_PHASE_CONFIRM, RETRY_PHASE_UNDO
} RetryOpPhase;

/* One operation.  What it points to is with its transaction. */
typedef struct RetryOperation
{
	pg_uuid_t	id;				/* of its task */
	int			branch;			/* from 0 */
	RetryOp		op;
	char	   *name;			/* of the branch */
	int32		scene_id;
	int32		attempts;		/* of its task, the last that is recorded in
								 * the transaction under way; 0: none is */
	HeapTuple	row;
} RetryOperation;

/* A transaction with all that is known of it. */
typedef struct RetryWhole
{
	RetryGlobal global;
	RetryBranches known;
	int			n;
	RetryOperation *operations;
	TupleDesc	desc;			/* of their rows */
} RetryWhole;

extern const char *retry_op_word(RetryOp op);
extern RetryOpPhase retry_op_phase(RetryOp op);

/* The operation that a column has the word for; ERROR (data_corrupted) when there is none. */
extern RetryOp retry_op_in(Datum value);

/*
 * Reads what is known of whole->global, which is locked, and over which this is
 * decided, into the current memory context.
 */
extern void retry_whole_read(RetryWhole *whole, RetryDecision decision);

/*
 * The same by scans, which have to stay for as long as "whole" is used.  False
 * when that cannot be had at once, and they do not wait.
 */
extern bool retry_whole_read_by(RetryGlobalScans *scans, RetryWhole *whole, RetryDecision decision);

/* The operation with this task, or of which the task replays that; NULL: none. */
extern RetryOperation *retry_whole_find(RetryWhole *whole, const pg_uuid_t *task_id);

/* The operation of a phase in a branch (from 0); NULL: there is none. */
extern RetryOperation *retry_whole_of(RetryWhole *whole, int branch, RetryOpPhase phase);

/* Has it ended?  And has it had its turn? */
extern bool retry_operation_ended(const RetryWhole *whole, const RetryOperation *operation);
extern bool retry_operation_begun(const RetryWhole *whole, const RetryOperation *operation);

/* Notes its end in "known". */
extern void retry_operation_note(RetryBranches *known, const RetryOperation *operation, bool done);

/*
 * Its task, as a row of retry.task of which leaf, inert, id, xid and due_at are to be
 * filled in anew; in the current memory context.
 */
extern void retry_operation_task(const RetryWhole *whole, const RetryOperation *operation,
								 Datum *values, bool *isnull);

/*
 * A row of retry.global_outcome, in the current memory context; branch 0 is the
 * first, -1 the transaction as a whole.  "by" is InvalidOid unless somebody said so.
 */
extern void retry_outcome_row(const pg_uuid_t *gid, int branch, const char *op, const char *outcome,
							  TimestampTz at, Oid by, Datum *values, bool *isnull);

#endif							/* RETRY_OPERATION_H */
