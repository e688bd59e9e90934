/*
 * pool.h
 *		The executors that run functions, as dispatchers and they share them.
 *
 * A dispatcher hands a task to an executor through a slot in shared memory and
 * finds there, later, what became of it.  Slots belong to no database and no
 * dispatcher: whoever of a database needs an executor takes one that is idle,
 * or a free slot as long as the database has fewer than retry.sql_workers.
 *
 *		FREE --hand over--> STARTING --process--> BUSY --end--> DONE
 *		  ^                                        ^              |
 *		  |                                        +--- IDLE <----+
 *		  +------ the process leaves --------------------+
 *
 * An executor serves one role for as long as it lives, so that nothing which a
 * function leaves behind in its session is ever met by another role.
 */
#ifndef RETRY_POOL_H
#define RETRY_POOL_H

#include "storage/latch.h"
#include "policy.h"
#include "task.h"

#define RETRY_MAX_SQL_WORKERS	64	/* for one database */
#define RETRY_POOL_MESSAGE		1024	/* bytes kept of an error's message */

/* What is to be run. */
typedef struct RetryJob
{
	RetryEntry	entry;
	int64		lane_hash;
	int32		scene_id;
	Oid			role;			/* that enqueued the task */
	int32		timeout_ms;
	bool		ordered;		/* its lane is */
	TimestampTz started_at;
} RetryJob;

typedef enum RetryJobEnd
{
	RETRY_JOB_AGAIN,			/* nothing happened: look at the facts, and
								 * try again */
	RETRY_JOB_RECORDED,			/* the function's transaction has committed,
								 * and the attempt with it */
	RETRY_JOB_FAILED			/* rolled back whole; not recorded yet */
} RetryJobEnd;

typedef struct RetryJobResult
{
	RetryJobEnd end;
	RetryOutcome outcome;		/* RECORDED: of the attempt */
	bool		terminal;		/* RECORDED: the task has ended, else ... */
	TimestampTz next_due;		/* ... its next attempt is due then */
	int			sqlstate;		/* FAILED */
	TimestampTz finished_at;
	int64		duration_us;
	char		message[RETRY_POOL_MESSAGE];	/* FAILED: UTF-8 */
} RetryJobResult;

typedef struct RetryExecutor RetryExecutor;

/*
 * The pool's part of the shared memory, for the hooks of shmem.c: asks for it,
 * and finds or makes it, which the lock AddinShmemInitLock is held for.
 */
extern void retry_pool_request_memory(void);
extern void retry_pool_create_memory(void);

/* ---- for dispatchers; "executor" is the number of a slot ---- */

/*
 * Hands a job over; returns the executor, and in *ticket, when it is not 0,
 * what the process has to be started with that is to be it.  -1: none can be had
 * now; the dispatchers of the database are woken when one is.
 */
extern int	retry_pool_hand_over(const RetryJob *job, uint64 *ticket);

/* The process cannot be started, or has not come: takes the job back; false when it came. */
extern bool retry_pool_take_back(int executor);

/* True when the job has ended, which frees the executor for another. */
extern bool retry_pool_collect(int executor, RetryJobResult *result);

/* How many jobs could be handed over now, or soon, were they of the right roles. */
extern int	retry_pool_room(void);

/*
 * Ends the process of an executor that has been at its job's function for
 * longer than the time-out and "grace_ms".  Returns the milliseconds until
 * that will be so, -1 when it is not at work.
 */
extern long retry_pool_enforce(int executor, int grace_ms);

/* Gives up the jobs of this process: whoever works at one is ended. */
extern void retry_pool_abandon(void);

/* ---- for executors ---- */

/*
 * Claims the slot for this process and registers its release at exit, to be
 * called before connecting to the slot's database, which is returned.
 * InvalidOid: no longer wanted.
 */
extern Oid	retry_pool_attach(int executor, uint64 ticket);

/* The next job; false when there is none at the moment. */
extern bool retry_pool_job(RetryJob *job);

/* True once this process should leave. */
extern bool retry_pool_unwanted(void);

/* The time-out of the job begins to run now. */
extern void retry_pool_begin(void);

/*
 * What the result will be if the current transaction commits: from its commit
 * on it counts, whatever becomes of the process.
 */
extern void retry_pool_will_commit(const RetryJobResult *result);

/* True when it has committed. */
extern bool retry_pool_committed(void);

/* The job has ended; "result" is ignored when it has committed. */
extern void retry_pool_finish(const RetryJobResult *result);

/* Leaves the pool if no job has come meanwhile: false, stay. */
extern bool retry_pool_leave(void);

/* ---- for everybody ---- */

/*
 * After a crash, for the postmaster: 1 when the executor was at a task's
 * function and had not committed, with the database and the task; else 0, with
 * the database.  Takes no lock.
 */
extern int	retry_pool_at_work(int executor, Oid *database, RetryEntry *entry);

/* Asks the executors of a database to leave; one at work is not disturbed. */
extern void retry_pool_stop(Oid database);

/* True while an executor's process has not yet left the database. */
extern bool retry_pool_occupied(Oid database);

/* How many executors the database has. */
extern int	retry_pool_count(Oid database);

#endif							/* RETRY_POOL_H */
