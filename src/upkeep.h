/*
 * upkeep.h
 *		Keeping the store in order: what is old and finished goes.
 *
 * Upkeep is a short-lived background worker, started by dispatcher 0 of a
 * database now and then, or by retry.maintain().  It never waits for a lock
 * that enqueue or delivery may hold, and never holds one for long that they
 * may want; what it does not get to, the next one does.
 */
#ifndef RETRY_UPKEEP_H
#define RETRY_UPKEEP_H

#include "datatype/timestamp.h"
#include "progress.h"
#include "utils/snapshot.h"
#include "task.h"

/* One pass of upkeep. */
typedef struct RetryUpkeep
{
	TimestampTz now;			/* when it began */
	TimestampTz cutoff;			/* finished history before goes */
	TimestampTz dead_cutoff;	/* dead letters before go */
	bool		blocked;		/* something was locked, or went wrong */
	RetryProgress *progress;	/* where it is shown; NULL: nowhere */
	int64		looked_at;		/* rows, in the job that is being done */
	int64		removed;		/* rows and tasks, in all */
} RetryUpkeep;

/*
 * For dispatcher 0, once a turn, in its transaction: starts upkeep when it is
 * time, or when retry.purge() has asked for it.  "generation" is that of the
 * configuration.  Costs a few comparisons when there is nothing to do; raises
 * no error of its own.
 */
extern void retry_upkeep_consider(Snapshot snapshot, uint64 generation, TimestampTz now);

/*
 * Dispatcher 0 is to start it soon after this moment, which it does every ten
 * minutes at most; usable anywhere.
 */
extern void retry_upkeep_want(TimestampTz moment);

/* For the jobs: so many rows more were looked at, and of these removed; shows it. */
extern void retry_upkeep_count_rows(RetryUpkeep *upkeep, int64 looked_at, int64 removed);

/* upkeep_leaf.c */

/* Truncates a leaf of the ring if everything in it is old and finished. */
extern void retry_upkeep_leaf(RetryUpkeep *upkeep, int leaf);

/* Deletes what is old and finished in the leaf beside the ring. */
extern void retry_upkeep_long_leaf(RetryUpkeep *upkeep, int leaf);

/* upkeep_rows.c; the number is of no use to these */

/* Puts triggers right that ALTER TABLE ... TRIGGER ALL has changed. */
extern void retry_upkeep_triggers(RetryUpkeep *upkeep, int unused);

/*
 * True when a dump is being restored, as far as can be seen: attempts are there
 * whose tasks are not, which the log tells.  What is finished or left over cannot be
 * told then.
 */
extern bool retry_upkeep_amidst_restore(const RetryUpkeep *upkeep);

/* Dead letters beyond their retention, and the notes on their replay. */
extern void retry_upkeep_dead_letters(RetryUpkeep *upkeep, int unused);

/* Notes of retry.once() on messages older than the retention. */
extern void retry_upkeep_consumed(RetryUpkeep *upkeep, int unused);

/* Notes of retry.barrier() older than the retention. */
extern void retry_upkeep_barriers(RetryUpkeep *upkeep, int unused);

/* Global transactions that were decided before the history begins. */
extern void retry_upkeep_decided(RetryUpkeep *upkeep, int unused);

/* Events older than the history. */
extern void retry_upkeep_events(RetryUpkeep *upkeep, int unused);

/* What is older than the retention of the audit; retry.purge() does not reach it. */
extern void retry_upkeep_audit(RetryUpkeep *upkeep, int unused);

/* Deletes former values of secrets that sign no longer. */
extern void retry_upkeep_secrets(RetryUpkeep *upkeep, int unused);

/* Notes on old runs of schedules, but for what says how far each has come. */
extern void retry_upkeep_runs(RetryUpkeep *upkeep, int unused);

/* Keys whose tasks have finished, and their scenes' key_window after that. */
extern void retry_upkeep_keys(RetryUpkeep *upkeep, int unused);

/* Scenes that a DELETE archived and nothing refers to any more. */
extern void retry_upkeep_scenes(RetryUpkeep *upkeep, int unused);

/* upkeep_count.c */

/* Statistics: minutes into hours, hours into days, and what is too old goes. */
extern void retry_upkeep_stats(RetryUpkeep *upkeep, int unused);

/* Counts the unfinished tasks and the dead letters of each scene anew. */
extern void retry_upkeep_count(RetryUpkeep *upkeep, int unused);

#endif							/* RETRY_UPKEEP_H */
