/*
 * progress.h
 *		How far long operations have come: replays, cancellations, upkeep.
 *
 * What a transaction has done cannot be seen before it commits, and that is
 * when nobody wonders any more.  So whoever does something long says in shared
 * memory how far it is, for the view retry.progress.  It is a hint for people:
 * when there is no room for it, the operation goes on unseen.
 *
 * The including file includes postgres.h first.
 */
#ifndef RETRY_PROGRESS_H
#define RETRY_PROGRESS_H

#include "fmgr.h"

typedef struct RetryProgress RetryProgress;

/*
 * Shows an operation of this process from now on: "operation" as people know
 * it, the ids of the group and scene it is about (0: several, or none), and the
 * filter, NULL when there is none.  Texts are copied and cut.  NULL, which all
 * others take, when it cannot be shown; cannot fail.  An ERROR must lead to
 * retry_progress_end() too; the end of the process does by itself.
 */
extern RetryProgress *retry_progress_begin(const char *operation, int32 group_id, int32 scene_id,
										   const char *filter);

/* The same for an SQL function, its arguments as the filter; raises what reading them raises. */
extern RetryProgress *retry_progress_begin_call(FunctionCallInfo fcinfo, const char *operation,
												int32 scene_id);

/*
 * Another phase begins: nothing of it is looked at yet, of "total" (-1: nobody
 * knows how many).  "estimated": that is not exact.
 */
extern void retry_progress_phase(RetryProgress *progress, const char *phase, int64 total, bool estimated);

/* So many were looked at in this phase, and it was done for so many in all. */
extern void retry_progress_set(RetryProgress *progress, int64 looked_at, int64 done);

/* Shows it no longer; once is enough, twice does no harm. */
extern void retry_progress_end(RetryProgress *progress);

/* Shared memory, see shmem.c. */
extern void retry_progress_request_memory(void);
extern void retry_progress_create_memory(void);

#endif							/* RETRY_PROGRESS_H */
