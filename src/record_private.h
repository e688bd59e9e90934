/*
 * record_private.h
 *		What the files share that record attempts: record.c tries, and tries
 *		smaller, record_batch.c puts a batch in, record_decision.c what a check
 *		decides, record_operation.c what follows from the end of an operation,
 *		record_part.c what an unread task is to a transaction, record_values.c
 *		makes its values.
 *
 * Included by those six only.
 */
#ifndef RETRY_RECORD_PRIVATE_H
#define RETRY_RECORD_PRIVATE_H

#include "utils/hsearch.h"
#include "callback.h"
#include "dead_head.h"
#include "global.h"
#include "part.h"
#include "record.h"
#include "store.h"

/* How much of an attempt is stored. */
typedef struct RetryRecordForm
{
	bool		bare;			/* the fact, and why it is not more */
	RetryCallbackForm callback;
} RetryRecordForm;

/* One transaction's worth of attempts. */
typedef struct RetryRecordBatch
{
	RetryConfig *config;
	RetryEnded **items;
	int			count;
	bool	   *stored;			/* of each item: it was put in */
	bool		finished;		/* a task has ended among those put in */
	RetryRecordForm form;
	bool		has_letter;		/* the dead letter is there already */
	const char *why;			/* when bare: the error that led to it */
	bool		wait;			/* for locks; else what is locked is left out */

	/* from here on: of the transaction, see begin_batch */
	MemoryContext context;		/* until its end */
	MemoryContext row_context;	/* until the next row */
	RetryAppender *attempts[RETRY_LEAVES];
	bool		locked[RETRY_LEAVES];
	RetryHeadNotes head_notes;
	RetryAppender *letters;
	bool		letters_locked;
	RetryAppender *gone;
	RetryAppender *decisions;
	RetryAppender *outcomes;
	RetryAppender *signals[RETRY_LEAVES];
	HTAB	   *wholes;			/* global transactions that were read */
	RetryGlobalScans *globals;	/* which read them */
	RetryReader *reader;
	RetryAppender *tasks[RETRY_LEAVES]; /* for callbacks */
	TimestampTz now;			/* when these are enqueued */
	const char *last_target;	/* the text that last_callback is of */
	const char *last_column;
	RetryCallback last_callback;
	Oid			outcome_oid[RETRY_OUTCOMES];
	char		last_ip[64];
	Datum		last_address;
} RetryRecordBatch;

/* record_batch.c */

/*
 * Puts the items in, in a transaction of its own that it commits, and sets
 * "stored" of each that was not locked, and "finished".  Raises errors, with the
 * transaction still open.
 */
extern void retry_record_batch(RetryRecordBatch *batch);

/*
 * Opens the appender of a table with so many columns, or that of a leaf's tasks,
 * unless it is open.  False when it cannot be locked at once.
 */
extern bool retry_record_open(RetryRecordBatch *batch, RetryAppender **appender, Oid table, int natts);
extern bool retry_record_open_tasks(RetryRecordBatch *batch, int leaf);

/* Puts a row in by an appender of the batch's. */
extern void retry_record_put(RetryRecordBatch *batch, RetryAppender *appender, const Datum *values,
							 const bool *isnull);

/* One task more of this scene's group, in this lane, however many there are. */
extern void retry_record_count(RetryRecordBatch *batch, int32 scene_id, int64 lane_hash);

/* record_decision.c */

/* What a check that has ended decides. */
typedef struct RetryRecordDecision
{
	RetryGlobal global;
	RetryDecision decision;		/* RETRY_UNDECIDED: nothing, it was done */
	bool		at_limit;		/* since nobody has told */
	int			leaf;			/* of the message's task, if it is committed */
	TimestampTz due_at;
	Datum		values[Task_natts];
	bool		isnull[Task_natts];
} RetryRecordDecision;

/*
 * Finds out what the end of a check decides, locks the transaction and opens what is
 * needed; the transaction is that of the check.  False when something cannot be had at
 * once.  What it reads is in the current memory context.
 */
extern bool retry_record_decision_open(RetryRecordBatch *batch, const RetryEnded *ended,
									   const pg_uuid_t *gid, RetryRecordDecision *need);

/* Puts it in. */
extern void retry_record_decision_put(RetryRecordBatch *batch, RetryRecordDecision *need);

/* record_operation.c */

/* What the end of an operation brings about; of batch->context's time or less. */
typedef struct RetryRecordOperation RetryRecordOperation;

/*
 * Finds out what an attempt of an operation, or a timer's end, means to its
 * transaction, locks that and opens what is needed; *need is NULL when nothing is
 * to be stored for it.  Of what was rolled back it makes the last attempt: so it
 * may change the verdict.  "origin" is the task that this one replays, or NULL.
 * False when something cannot be had at once.
 */
extern bool retry_record_operation_open(RetryRecordBatch *batch, RetryEnded *ended, const pg_uuid_t *gid,
										const pg_uuid_t *origin, RetryPart part, RetryRecordOperation **need);

/* Puts it in. */
extern void retry_record_operation_put(RetryRecordBatch *batch, RetryRecordOperation *need);

/* record_part.c */

/*
 * What the task is to a global transaction (RETRY_PART_NONE: nothing) and to which,
 * by what the transactions say of their tasks, which costs a read of all of them.
 * False when that cannot be had at once.
 */
extern bool retry_record_part(const RetryRecordBatch *batch, const pg_uuid_t *task_id, RetryPart *part,
							  pg_uuid_t *gid);

/* record_values.c: in the current memory context, but for what a batch keeps. */

/*
 * Error, status and response, into these columns: the same in an attempt and
 * in a dead letter.
 */
extern void retry_record_answer(const RetryRecordBatch *batch, const RetryEnded *ended,
								Datum *values, bool *isnull, int status, int error, int response);

/* A row of retry.attempt. */
extern void retry_record_attempt(RetryRecordBatch *batch, const RetryEnded *ended,
								 Datum *values, bool *isnull);

#endif							/* RETRY_RECORD_PRIVATE_H */
