/*
 * pool.c
 *		The executors that run functions, as dispatchers and they share them.
 *
 * One slot for each background worker there can be, one lock over all.  Nobody
 * waits for anybody here: a dispatcher that finds no executor tries again when
 * it is woken, and an executor that has ended its job wakes all dispatchers of
 * its database, because any of them may be waiting for it.
 *
 * What a job has come to is never in doubt.  The result that counts if the
 * function's transaction commits is in the slot before, and the commit itself
 * marks it as valid (by a transaction callback, which runs when the rows have
 * become visible).  A process that leaves without that has committed nothing.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "pool.h"
#include "shmem.h"

#define TRANCHE		"retry executors"

typedef enum Phase
{
	EXECUTOR_FREE,
	EXECUTOR_STARTING,			/* with a job; its process is to come */
	EXECUTOR_BUSY,
	EXECUTOR_DONE,				/* the result waits for the dispatcher */
	EXECUTOR_IDLE
} Phase;

struct RetryExecutor
{
	Phase		phase;
	Oid			database;
	Oid			role;			/* that it serves for as long as it lives */
	uint64		ticket;			/* names the process that is to come */
	pid_t		owner;			/* dispatcher that wants the result; 0: nobody */
	pid_t		pid;			/* 0: no process */
	Latch	   *latch;
	bool		stop;			/* it is to leave when it is idle */
	volatile bool committed;	/* the result is valid, see will_commit */
	bool		ended;			/* its end was asked for, for being late */
	volatile int64 began_at;	/* of the function; retry_monotonic_us; 0: not
								 * yet */
	RetryJob	job;
	RetryJobResult result;
};

typedef struct Pool
{
	LWLock	   *lock;
	uint64		last_ticket;
	RetryExecutor executors[FLEXIBLE_ARRAY_MEMBER];
} Pool;

static Pool *pool = NULL;
static RetryExecutor *mine = NULL;	/* of an executor's process */
static bool committing = false; /* the transaction is the function's */

static Size
pool_size(void)
{
	return add_size(offsetof(Pool, executors),
					mul_size(sizeof(RetryExecutor), max_worker_processes));
}

void
retry_pool_request_memory(void)
{
	RequestAddinShmemSpace(pool_size());
	RequestNamedLWLockTranche(TRANCHE, 1);
}

void
retry_pool_create_memory(void)
{
	bool		found;

	pool = ShmemInitStruct("retry executors", pool_size(), &found);
	if (!found)
	{
		memset(pool, 0, pool_size());
		pool->lock = &(GetNamedLWLockTranche(TRANCHE))->lock;
	}
}

/* ---------------------------------------------------------------- inside; the caller holds the lock */

static void
free_executor(RetryExecutor *e)
{
	memset(e, 0, sizeof(RetryExecutor));
}

static int
count_executors(Oid database)
{
	int			n = 0;

	for (int i = 0; i < max_worker_processes; i++)
		n += pool->executors[i].phase != EXECUTOR_FREE && pool->executors[i].database == database;
	return n;
}

/* An idle executor of this database, of this role if it is given. */
static RetryExecutor *
find_idle(Oid database, Oid role)
{
	for (int i = 0; i < max_worker_processes; i++)
	{
		RetryExecutor *e = &pool->executors[i];

		if (e->phase == EXECUTOR_IDLE && e->database == database && !e->stop &&
			(!OidIsValid(role) || e->role == role))
			return e;
	}
	return NULL;
}

static RetryExecutor *
find_free(void)
{
	for (int i = 0; i < max_worker_processes; i++)
	{
		if (pool->executors[i].phase == EXECUTOR_FREE)
			return &pool->executors[i];
	}
	return NULL;
}

static void
give_job(RetryExecutor *e, const RetryJob *job)
{
	e->job = *job;
	e->owner = MyProcPid;
	e->committed = false;
	e->ended = false;
	e->began_at = 0;
	memset(&e->result, 0, sizeof(e->result));
}

static void
ask_to_leave(RetryExecutor *e)
{
	e->stop = true;
	if (e->latch != NULL)
		SetLatch(e->latch);
}

/* ---------------------------------------------------------------- for dispatchers */

int
retry_pool_hand_over(const RetryJob *job, uint64 *ticket)
{
	RetryExecutor *e;

	*ticket = 0;
	LWLockAcquire(pool->lock, LW_EXCLUSIVE);
	e = find_idle(MyDatabaseId, job->role);
	if (e != NULL)
	{
		give_job(e, job);
		e->phase = EXECUTOR_BUSY;
		SetLatch(e->latch);
	}
	else if (count_executors(MyDatabaseId) < retry_sql_workers)
	{
		e = find_free();
		if (e != NULL)
		{
			free_executor(e);
			give_job(e, job);
			e->database = MyDatabaseId;
			e->role = job->role;
			e->ticket = *ticket = ++pool->last_ticket;
			e->phase = EXECUTOR_STARTING;
		}
	}
	else
	{
		/* one that served another role makes room */
		RetryExecutor *other = find_idle(MyDatabaseId, InvalidOid);

		if (other != NULL)
			ask_to_leave(other);
	}
	LWLockRelease(pool->lock);
	return e != NULL ? e - pool->executors : -1;
}

bool
retry_pool_take_back(int executor)
{
	RetryExecutor *e = &pool->executors[executor];
	bool		taken;

	LWLockAcquire(pool->lock, LW_EXCLUSIVE);
	taken = e->phase == EXECUTOR_STARTING && e->owner == MyProcPid;
	if (taken)
		free_executor(e);
	LWLockRelease(pool->lock);
	return taken;
}

bool
retry_pool_collect(int executor, RetryJobResult *result)
{
	RetryExecutor *e = &pool->executors[executor];
	bool		done;

	/* a glance, since this is asked often; the lock makes it true */
	if (*(volatile Phase *) &e->phase != EXECUTOR_DONE)
		return false;
	LWLockAcquire(pool->lock, LW_EXCLUSIVE);
	done = e->phase == EXECUTOR_DONE && e->owner == MyProcPid;
	if (done)
	{
		*result = e->result;
		if (e->pid == 0)
			free_executor(e);
		else
		{
			e->phase = EXECUTOR_IDLE;
			e->owner = 0;
			SetLatch(e->latch); /* it may have been asked to leave */
		}
	}
	LWLockRelease(pool->lock);
	return done;
}

int
retry_pool_room(void)
{
	int			idle = 0;
	int			ours = 0;
	int			unused = 0;

	LWLockAcquire(pool->lock, LW_SHARED);
	for (int i = 0; i < max_worker_processes; i++)
	{
		const RetryExecutor *e = &pool->executors[i];

		if (e->phase == EXECUTOR_FREE)
			unused++;
		else if (e->database == MyDatabaseId)
		{
			ours++;
			idle += e->phase == EXECUTOR_IDLE && !e->stop;
		}
	}
	LWLockRelease(pool->lock);
	return idle + Min(unused, Max(retry_sql_workers - ours, 0));
}

long
retry_pool_enforce(int executor, int grace_ms)
{
	RetryExecutor *e = &pool->executors[executor];
	int64		began = e->began_at;
	int64		left;

	if (began == 0)
		return -1;
	left = began + ((int64) e->job.timeout_ms + grace_ms) * 1000 - retry_monotonic_us();
	if (left > 0)
		return (long) (left / 1000 + 1);

	LWLockAcquire(pool->lock, LW_EXCLUSIVE);
	if (e->phase == EXECUTOR_BUSY && e->owner == MyProcPid && e->began_at == began &&
		e->pid != 0 && !e->ended)
	{
		e->ended = true;
		kill(e->pid, SIGTERM);
	}
	LWLockRelease(pool->lock);
	return -1;
}

void
retry_pool_abandon(void)
{
	if (pool == NULL)
		return;
	LWLockAcquire(pool->lock, LW_EXCLUSIVE);
	for (int i = 0; i < max_worker_processes; i++)
	{
		RetryExecutor *e = &pool->executors[i];

		if (e->owner != MyProcPid)
			continue;
		e->owner = 0;
		if (e->phase == EXECUTOR_STARTING || (e->phase == EXECUTOR_DONE && e->pid == 0))
			free_executor(e);
		else if (e->phase == EXECUTOR_DONE)
			e->phase = EXECUTOR_IDLE;
		else if (e->phase == EXECUTOR_BUSY && e->pid != 0)
			kill(e->pid, SIGTERM);
	}
	LWLockRelease(pool->lock);
}

/* ---------------------------------------------------------------- for executors */

/* Dispatchers of the database look at their executors. */
static void
wake_dispatchers(Oid database)
{
	retry_shmem_wake_workers(database);
}

/*
 * Exit callback.  Registered before the process connected, so it runs after
 * the process has left its database, and whatever it had not committed is
 * undone.
 */
static void
release(int code, Datum arg)
{
	RetryExecutor *e = mine;
	Oid			database;

	if (e == NULL)
		return;
	mine = NULL;
	LWLockAcquire(pool->lock, LW_EXCLUSIVE);
	database = e->database;
	e->pid = 0;
	e->latch = NULL;
	if (e->phase == EXECUTOR_BUSY && e->owner != 0)
	{
		if (e->committed)
			e->result.end = RETRY_JOB_RECORDED;
		else if (e->began_at == 0)
			e->result.end = RETRY_JOB_AGAIN;
		else
		{
			e->result.end = RETRY_JOB_FAILED;
			e->result.sqlstate = ERRCODE_ADMIN_SHUTDOWN;
			e->result.finished_at = GetCurrentTimestamp();
			e->result.duration_us = retry_monotonic_us() - e->began_at;
			strlcpy(e->result.message,
					e->ended ? "the function did not heed its time-out, and its executor was ended" :
					"the function's executor was ended", RETRY_POOL_MESSAGE);
		}
		e->phase = EXECUTOR_DONE;
	}
	else if (e->phase != EXECUTOR_DONE || e->owner == 0)
		free_executor(e);
	LWLockRelease(pool->lock);
	wake_dispatchers(database);
	retry_shmem_wake_holders(database);
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	/* an error here would bring the server down: one store */
	if (event == XACT_EVENT_COMMIT && committing && mine != NULL)
		mine->committed = true;
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		committing = false;
}

Oid
retry_pool_attach(int executor, uint64 ticket)
{
	RetryExecutor *e;

	if (pool == NULL || executor < 0 || executor >= max_worker_processes)
		return InvalidOid;
	e = &pool->executors[executor];
	LWLockAcquire(pool->lock, LW_EXCLUSIVE);
	if (e->phase == EXECUTOR_STARTING && e->ticket == ticket)
	{
		e->phase = EXECUTOR_BUSY;
		e->pid = MyProcPid;
		e->latch = MyLatch;
		mine = e;
	}
	LWLockRelease(pool->lock);
	if (mine == NULL)
		return InvalidOid;
	on_shmem_exit(release, (Datum) 0);
	RegisterXactCallback(at_transaction_event, NULL);
	return e->database;
}

bool
retry_pool_job(RetryJob *job)
{
	bool		busy;

	LWLockAcquire(pool->lock, LW_SHARED);
	busy = mine->phase == EXECUTOR_BUSY;
	*job = mine->job;
	LWLockRelease(pool->lock);
	return busy;
}

bool
retry_pool_unwanted(void)
{
	return *(volatile bool *) &mine->stop;
}

void
retry_pool_begin(void)
{
	mine->began_at = retry_monotonic_us();
}

void
retry_pool_will_commit(const RetryJobResult *result)
{
	mine->result = *result;
	mine->result.end = RETRY_JOB_RECORDED;
	committing = true;
}

bool
retry_pool_committed(void)
{
	return mine->committed;
}

void
retry_pool_finish(const RetryJobResult *result)
{
	Oid			database = mine->database;

	LWLockAcquire(pool->lock, LW_EXCLUSIVE);
	if (!mine->committed)
		mine->result = *result;
	mine->began_at = 0;
	mine->committed = false;
	mine->phase = mine->owner != 0 ? EXECUTOR_DONE : EXECUTOR_IDLE;
	LWLockRelease(pool->lock);
	wake_dispatchers(database);
}

bool
retry_pool_leave(void)
{
	bool		left;

	LWLockAcquire(pool->lock, LW_EXCLUSIVE);
	left = mine->phase == EXECUTOR_IDLE;
	mine->stop |= left;			/* nobody hands it a job any more */
	LWLockRelease(pool->lock);
	return left;
}

/* ---------------------------------------------------------------- for everybody */

int
retry_pool_at_work(int executor, Oid *database, RetryEntry *entry)
{
	const RetryExecutor *e = &pool->executors[executor];

	*database = e->database;
	*entry = e->job.entry;
	return e->phase == EXECUTOR_BUSY && e->began_at != 0 && !e->committed ? 1 : 0;
}

void
retry_pool_stop(Oid database)
{
	if (pool == NULL)
		return;
	LWLockAcquire(pool->lock, LW_EXCLUSIVE);
	for (int i = 0; i < max_worker_processes; i++)
	{
		if (pool->executors[i].phase != EXECUTOR_FREE && pool->executors[i].database == database)
			ask_to_leave(&pool->executors[i]);
	}
	LWLockRelease(pool->lock);
}

bool
retry_pool_occupied(Oid database)
{
	bool		occupied = false;

	LWLockAcquire(pool->lock, LW_SHARED);
	for (int i = 0; i < max_worker_processes && !occupied; i++)
		occupied = pool->executors[i].database == database && pool->executors[i].pid != 0;
	LWLockRelease(pool->lock);
	return occupied;
}

int
retry_pool_count(Oid database)
{
	int			n;

	if (pool == NULL)
		return 0;
	LWLockAcquire(pool->lock, LW_SHARED);
	n = count_executors(database);
	LWLockRelease(pool->lock);
	return n;
}
