/*
 * holds.c
 *		What a session does that needs a database without our processes.
 *
 * DROP DATABASE and others fail, or wait, while a dispatcher is connected.  So
 * whoever is about to do such a thing (database_hook.c) takes a hold of the
 * database: no dispatcher starts there any more, those there are asked to
 * leave, and each that has left wakes the session.  A hold lives in shared
 * memory, under the same lock as who works where.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/procarray.h"

#include "pool.h"
#include "shmem_private.h"

/* This session's. */
static RetryHold *my_hold = NULL;

bool
retry_is_held(Oid database)
{
	int			i;

	for (i = 0; i < RETRY_MAX_HOLDS; i++)
	{
		if (retry_shared->holds[i].database == database)
			return true;
	}
	return false;
}

void
retry_wake_holders(Oid database)
{
	int			i;

	for (i = 0; i < RETRY_MAX_HOLDS; i++)
	{
		if (retry_shared->holds[i].database == database)
			SetLatch(retry_shared->holds[i].latch);
	}
}

void
retry_shmem_wake_holders(Oid database)
{
	LWLockAcquire(retry_shared->lock, LW_SHARED);
	retry_wake_holders(database);
	LWLockRelease(retry_shared->lock);
}

bool
retry_shmem_hold(Oid database)
{
	int			i;

	retry_shmem_release_hold();
	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < RETRY_MAX_HOLDS && my_hold == NULL; i++)
	{
		if (!OidIsValid(retry_shared->holds[i].database))
			my_hold = &retry_shared->holds[i];
	}
	if (my_hold != NULL)
	{
		my_hold->pid = MyProcPid;
		my_hold->latch = MyLatch;
		my_hold->database = database;
		for (i = 0; i < max_worker_processes; i++)
		{
			RetryWorker *worker = &retry_shared->workers[i];

			if (worker->database != database)
				continue;
			worker->stop = true;
			if (worker->latch != NULL)
				SetLatch(worker->latch);
		}
	}
	LWLockRelease(retry_shared->lock);
	if (my_hold != NULL)
		retry_pool_stop(database);
	return my_hold != NULL;
}

void
retry_shmem_release_hold(void)
{
	if (my_hold == NULL)
		return;

	/* First, so that nobody starts a dispatcher by an outdated list. */
	pg_atomic_fetch_add_u32(&retry_shared->catalog_generation, 1);
	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	if (my_hold->pid == MyProcPid)
	{
		my_hold->database = InvalidOid;
		my_hold->pid = 0;
		my_hold->latch = NULL;
	}
	my_hold = NULL;
	LWLockRelease(retry_shared->lock);
	retry_set_launcher_latch();
}

bool
retry_shmem_occupied(Oid database)
{
	bool		occupied = false;
	int			i;

	LWLockAcquire(retry_shared->lock, LW_SHARED);
	for (i = 0; i < max_worker_processes && !occupied; i++)
	{
		if (retry_shared->workers[i].database == database &&
			retry_shared->workers[i].phase == RETRY_WORKER_RUNNING)
			occupied = true;
	}
	LWLockRelease(retry_shared->lock);
	return occupied || retry_pool_occupied(database);
}

/*
 * A session ends its hold itself, however it ends; this is for what nobody
 * thought of, since a forgotten hold would silence a database for good.
 */
void
retry_shmem_sweep_holds(void)
{
	int			i;

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < RETRY_MAX_HOLDS; i++)
	{
		RetryHold  *hold = &retry_shared->holds[i];

		if (OidIsValid(hold->database) && BackendPidGetProc(hold->pid) == NULL)
			memset(hold, 0, sizeof(RetryHold));
	}
	LWLockRelease(retry_shared->lock);
}
