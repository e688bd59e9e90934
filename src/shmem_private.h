/*
 * shmem_private.h
 *		What the shared memory of retry looks like inside, for shmem.c, holds.c,
 *		rate_table.c, group_use.c, group_lanes.c and crash.c alone.
 *
 * The first two keep who works where and who wants whom to leave under one
 * lock, so that no dispatcher starts in a database at the moment at which it is
 * held.
 */
#ifndef RETRY_SHMEM_PRIVATE_H
#define RETRY_SHMEM_PRIVATE_H

#include "storage/lwlock.h"
#include "rate_table.h"
#include "shmem.h"

#define RETRY_MAX_HOLDS		64

/* A session that needs a database empty. */
typedef struct RetryHold
{
	Oid			database;		/* InvalidOid: this entry is free */
	pid_t		pid;
	Latch	   *latch;
} RetryHold;

typedef struct RetryShared
{
	LWLock	   *lock;
	LWLock	   *lanes_lock;		/* of group_lanes.c; may be taken after the
								 * other */
	uint32		lanes_made;		/* under it */
	uint64		last_ticket;
	pid_t		launcher_pid;
	Latch	   *volatile launcher_latch;
	pg_atomic_uint32 catalog_generation;
	int			starved;
	RetryHold	holds[RETRY_MAX_HOLDS];
	RetryDatabase databases[RETRY_MAX_DATABASES];
	RetrySharedRate rates[RETRY_MAX_RATES];
	RetryWorker workers[FLEXIBLE_ARRAY_MEMBER];
	/* then the in-flight entries of each worker */
} RetryShared;

/* NULL when the library was not preloaded. */
extern RetryShared *retry_shared;

/* Wakes the launcher, if it is there.  Takes no lock and cannot fail. */
static inline void
retry_set_launcher_latch(void)
{
	Latch	   *latch = retry_shared->launcher_latch;

	if (latch != NULL)
		SetLatch(latch);
}

/* Has the database the extension, as far as is known? */
extern bool retry_is_alive(Oid database);

/* Does a session need the database empty?  The caller holds the lock. */
extern bool retry_is_held(Oid database);

/* Those who need the database empty look again.  The caller holds the lock. */
extern void retry_wake_holders(Oid database);

#endif							/* RETRY_SHMEM_PRIVATE_H */
