/*
 * dead_head.h
 *		Ordered lanes that wait at a dead task: the facts.
 *
 * Where a scene says so, a task that dies in an ordered lane holds up those
 * behind it, until it is replayed with success or somebody steps over it.
 * That has to outlast restarts and the retention of what has ended, so both
 * are noted in tables of their own, which only grow until upkeep removes what
 * is over.  Both are empty where nobody wants that.
 */
#ifndef RETRY_DEAD_HEAD_H
#define RETRY_DEAD_HEAD_H

#include "config.h"
#include "record.h"
#include "store.h"

/* Columns of retry.dead_head. */
enum
{
	Head_task_id, Head_origin_id, Head_lane_hash, Head_scene_id, Head_due_at,
	Head_died_at, Head_natts
};

/* Columns of retry.dead_head_passed. */
enum
{
	Passed_task_id, Passed_at, Passed_by, Passed_natts
};

/* A task that died at the head of an ordered lane. */
typedef struct RetryDeadHead
{
	pg_uuid_t	task_id;
	pg_uuid_t	origin_id;		/* of the chain of replays that it is in */
	int64		lane_hash;
	int32		scene_id;
	TimestampTz due_at;			/* with task_id, its place in the lane */
	bool		passed;			/* it no longer holds up anything */
} RetryDeadHead;

/*
 * Those of one lane, or of all (lane_hash NULL), that the snapshot sees, in the
 * current memory context.  False when that cannot be had without waiting for a
 * lock, and "nowait" forbids it.
 */
extern bool retry_dead_heads_read(Snapshot snapshot, const int64 *lane_hash, bool nowait,
								  RetryDeadHead **heads, int *n);

/* What is noted in one transaction that records attempts; all zero at first. */
typedef struct RetryHeadNotes
{
	RetryAppender *heads;
	RetryAppender *passed;
	bool		none;			/* its snapshot sees no dead head at all */
} RetryHeadNotes;

/* What is to be noted of one attempt that has ended. */
typedef struct RetryHeadDuty
{
	bool		died;			/* it holds up its lane now */
	RetryDeadHead *passed;		/* these may hold up nothing any more */
	int			npassed;
} RetryHeadDuty;

/*
 * Finds out what is to be noted, by the active snapshot, and opens the table.
 * False when something is locked, and "wait" is not allowed.  What it allocates
 * is in the current memory context, which must outlast the notes.
 */
extern bool retry_head_duty(RetryHeadNotes *notes, RetryConfig *config, const RetryEnded *ended,
							bool wait, RetryHeadDuty *duty);

/* Is the task's row needed to note that? */
static inline bool
retry_head_needs_task(const RetryHeadDuty *duty)
{
	return duty->died || duty->npassed > 0;
}

/* Notes it; "task" is the row of the task that has ended. */
extern void retry_head_note(RetryHeadNotes *notes, const RetryHeadDuty *duty, const RetryEnded *ended,
							TupleTableSlot *task);
extern void retry_head_notes_end(RetryHeadNotes *notes);

#endif							/* RETRY_DEAD_HEAD_H */
