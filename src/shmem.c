/*
 * shmem.c
 *		The memory that sessions, the launcher and the dispatchers share.
 *
 * Its size is fixed when the server starts: an entry for each background worker
 * there can be, with its in-flight transfers, and RETRY_MAX_DATABASES entries
 * for databases.  One LWLock guards who works where; everything that sessions
 * touch at each commit is atomic or a latch and takes no lock.
 *
 * Nothing in here raises an error while it holds the lock, so that an exit
 * callback finds the lock free.
 */
#include "postgres.h"

#include <time.h>

#include "access/transam.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "crash.h"
#include "group_lanes.h"
#include "group_use.h"
#include "guc.h"
#include "held_count.h"
#include "pool.h"
#include "progress.h"
#include "shmem_private.h"

#define TRANCHE		"retry"

RetryShared *retry_shared = NULL;
static RetryInFlight *in_flight = NULL; /* in shared memory */

/* This process's own entries. */
static RetryDatabase *my_database = NULL;
static RetryWorker *my_worker = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static Size
workers_size(void)
{
	return MAXALIGN(add_size(offsetof(RetryShared, workers),
							 mul_size(sizeof(RetryWorker), max_worker_processes)));
}

static Size
shared_size(void)
{
	return add_size(workers_size(),
					mul_size(sizeof(RetryInFlight),
							 mul_size(max_worker_processes, retry_max_in_flight)));
}

static void
request_memory(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche(TRANCHE, 2);
	retry_pool_request_memory();
	retry_held_count_request_memory();
	retry_group_use_request_memory();
	retry_group_lanes_request_memory();
	retry_crash_request_memory();
	retry_progress_request_memory();
}

/* Runs in the postmaster, again after each crash; elsewhere under EXEC_BACKEND. */
static void
create_memory(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	retry_shared = ShmemInitStruct("retry", shared_size(), &found);
	in_flight = (RetryInFlight *) ((char *) retry_shared + workers_size());
	if (!found)
	{
		memset(retry_shared, 0, shared_size());
		retry_shared->lock = &(GetNamedLWLockTranche(TRANCHE))[0].lock;
		retry_shared->lanes_lock = &(GetNamedLWLockTranche(TRANCHE))[1].lock;
		pg_atomic_init_u32(&retry_shared->catalog_generation, 0);
	}
	retry_pool_create_memory();
	retry_held_count_create_memory();
	retry_group_use_create_memory();
	retry_group_lanes_create_memory();
	retry_crash_create_memory();
	retry_progress_create_memory();
	LWLockRelease(AddinShmemInitLock);
}

void
retry_shmem_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = create_memory;
}

bool
retry_shmem_ready(void)
{
	return retry_shared != NULL;
}

void
retry_warn_not_preloaded(void)
{
	static bool warned = false;

	if (warned || retry_shared != NULL)
		return;
	warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("tasks are stored, but nothing delivers them: the library retry is not preloaded"),
			 errhint("Add retry to shared_preload_libraries and restart the server.")));
}

/* ---------------------------------------------------------------- databases */

/* The caller holds the lock, except where a stale answer does no harm. */
static RetryDatabase *
find_database(Oid database)
{
	int			i;

	for (i = 0; i < RETRY_MAX_DATABASES; i++)
	{
		if (retry_shared->databases[i].database == database)
			return &retry_shared->databases[i];
	}
	return NULL;
}

/*
 * Fills a free entry.  "xid" is the next transaction id as of some moment
 * before: transactions that got theirs since raise the values themselves, as
 * they find no entry, or this one, but cannot have written any row yet.
 */
static void
init_database(RetryDatabase *db, Oid database, uint64 xid)
{
	int			leaf;

	pg_atomic_init_u32(&db->look, 0);
	pg_atomic_init_u32(&db->prepared, 0);
	pg_atomic_init_u32(&db->schedule_looks, 0);
	pg_atomic_init_u64(&db->config_generation, 0);
	pg_atomic_init_u64(&db->disabled_generation, 0);
	for (leaf = 0; leaf < RETRY_LEAVES; leaf++)
	{
		pg_atomic_init_u64(&db->leaf_xid[leaf], xid);
		pg_atomic_init_u64(&db->leaf_done[leaf], 0);
	}
	pg_atomic_init_u64(&db->truncations, 0);
	db->executors_short_at = 0;
	db->upkeep_at = 0;
	db->upkeep_blocked = false;
	db->upkeep_asked = false;
	db->upkeep_failed_at = 0;
	db->upkeep_told_at = 0;
	pg_atomic_init_u64(&db->crash_noted, 0);
	db->alarms_at = 0;
	db->alarms_watched = false;
	db->alarms_rest = false;
	db->first_xid = xid;
	ConditionVariableInit(&db->finished);
	db->state = RETRY_DB_UNKNOWN;
	pg_write_barrier();
	db->database = database;
}

RetryDatabase *
retry_shmem_database(void)
{
	RetryDatabase *db;
	uint64		xid;

	if (my_database != NULL || retry_shared == NULL || !OidIsValid(MyDatabaseId))
		return my_database;

	/*
	 * what a standby receives raises nothing here: an entry made now would
	 * know too little of it after the promotion
	 */
	if (RecoveryInProgress())
		return NULL;

	xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	db = find_database(MyDatabaseId);
	if (db == NULL)
	{
		db = find_database(InvalidOid);
		if (db != NULL)
			init_database(db, MyDatabaseId, xid);
	}
	LWLockRelease(retry_shared->lock);
	my_database = db;
	return db;
}

/* Unlocked: the entry of one's own database does not go away. */
RetryDatabase *
retry_shmem_peek_database(void)
{
	if (my_database == NULL && retry_shared != NULL && OidIsValid(MyDatabaseId))
		my_database = find_database(MyDatabaseId);
	return my_database;
}

int
retry_shmem_databases(RetryDatabaseLook *out)
{
	int			n = 0;
	int			i;

	LWLockAcquire(retry_shared->lock, LW_SHARED);
	for (i = 0; i < RETRY_MAX_DATABASES; i++)
	{
		RetryDatabase *db = &retry_shared->databases[i];

		if (!OidIsValid(db->database))
			continue;
		out[n].database = db->database;
		out[n].look = pg_atomic_read_u32(&db->look);
		out[n].state = db->state;
		n++;
	}
	LWLockRelease(retry_shared->lock);
	return n;
}

void
retry_shmem_forget_database(Oid database)
{
	RetryDatabase *db;

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	db = find_database(database);
	if (db != NULL)
		db->database = InvalidOid;
	LWLockRelease(retry_shared->lock);
}

void
retry_shmem_publish(Oid database, RetryDatabaseState state)
{
	RetryDatabase *db;

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	db = find_database(database);
	if (db != NULL)
		db->state = state;
	LWLockRelease(retry_shared->lock);
}

/* ---------------------------------------------------------------- workers */

static RetryInFlight *
transfers_of(int index)
{
	return in_flight + (Size) index * retry_max_in_flight;
}

/*
 * Exit callback of a dispatcher.  It was registered before the process
 * connected, so it runs after the process has left its database, and whoever
 * waits for the database can have it at once.
 */
static void
release_worker(int code, Datum arg)
{
	RetryWorker *worker = my_worker;

	if (worker == NULL)
		return;
	my_worker = NULL;
	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	if (worker->phase == RETRY_WORKER_RUNNING && worker->pid == MyProcPid)
	{
		memset(transfers_of(worker - retry_shared->workers), 0,
			   sizeof(RetryInFlight) * retry_max_in_flight);
		worker->in_flight = worker->queued = worker->lanes = 0;
		worker->latch = NULL;
		worker->pid = 0;
		worker->phase = RETRY_WORKER_ENDED;
		retry_wake_holders(worker->database);
	}
	LWLockRelease(retry_shared->lock);
	retry_set_launcher_latch();
}

/*
 * The ticket in bgw_extra tells this start from an earlier one that the
 * launcher has given up: then the entry may be free, or somebody else's.
 */
RetryWorker *
retry_shmem_attach_worker(int index)
{
	RetryWorker *worker;
	uint64		ticket;
	bool		wanted = false;

	if (retry_shared == NULL || index < 0 || index >= max_worker_processes)
		return NULL;
	worker = &retry_shared->workers[index];
	memcpy(&ticket, MyBgworkerEntry->bgw_extra, sizeof(ticket));

	on_shmem_exit(release_worker, (Datum) 0);

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	if (worker->phase == RETRY_WORKER_STARTING && worker->ticket == ticket)
	{
		wanted = !worker->stop && !retry_is_held(worker->database);
		if (wanted)
		{
			worker->phase = RETRY_WORKER_RUNNING;
			worker->pid = MyProcPid;
			worker->started_at = GetCurrentTimestamp();
			worker->latch = MyLatch;
		}
		else
		{
			worker->stop = true;
			worker->phase = RETRY_WORKER_ENDED;
		}
	}
	LWLockRelease(retry_shared->lock);
	if (!wanted)
	{
		retry_set_launcher_latch();
		return NULL;
	}
	my_worker = worker;
	return worker;
}

void
retry_shmem_mark_database(RetryDatabaseState state)
{
	RetryDatabase *db = NULL;

	if (my_worker == NULL)
		return;
	if (state == RETRY_DB_PRESENT)
	{
		db = retry_shmem_database();
		if (db == NULL)
		{
			my_worker->stop = true;
			state = RETRY_DB_NO_ROOM;
		}
	}
	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	my_worker->verdict = state;
	db = find_database(my_worker->database);
	if (db != NULL)
		db->state = state;
	LWLockRelease(retry_shared->lock);
	retry_set_launcher_latch();
}

RetryInFlight *
retry_shmem_in_flight(const RetryWorker *worker)
{
	return transfers_of(worker - retry_shared->workers);
}

bool
retry_shmem_worker_unwanted(const RetryWorker *worker)
{
	return ShutdownRequestPending || worker->stop;
}

/*
 * Copies an in-flight entry while its owner may be writing it.  False when the
 * entry is free, or changed meanwhile: then the transfer has ended, or has
 * hardly begun.
 */
static bool
copy_transfer(const RetryInFlight *entry, RetryInFlight *out)
{
	const volatile int32 *owned = &entry->attempt_no;
	int32		attempt_no = *owned;

	if (attempt_no == 0)
		return false;
	pg_read_barrier();
	memcpy(out, entry, sizeof(RetryInFlight));
	pg_read_barrier();
	return *owned == attempt_no && out->attempt_no == attempt_no;
}

/*
 * Copies what is in flight in a database; with "id" or "leaf" (not negative)
 * only those entries.  Returns how many, at most "max".
 */
static int
find_transfers(Oid database, const pg_uuid_t *id, int leaf, RetryInFlight *out, int max)
{
	int			n = 0;
	int			w;
	int			i;

	if (retry_shared == NULL)
		return 0;
	for (w = 0; w < max_worker_processes; w++)
	{
		const RetryWorker *worker = &retry_shared->workers[w];
		const RetryInFlight *transfers = transfers_of(w);

		if (worker->database != database || worker->phase != RETRY_WORKER_RUNNING)
			continue;
		for (i = 0; i < retry_max_in_flight && n < max; i++)
		{
			if (copy_transfer(&transfers[i], &out[n]) &&
				(id == NULL || memcmp(&out[n].id, id, sizeof(pg_uuid_t)) == 0) &&
				(leaf < 0 || out[n].leaf == leaf))
				n++;
		}
	}
	return n;
}

bool
retry_shmem_transfer(Oid database, const pg_uuid_t *id, RetryInFlight *found)
{
	return find_transfers(database, id, -1, found, 1) > 0;
}

bool
retry_shmem_task_running(Oid database, const pg_uuid_t *id)
{
	RetryInFlight found;

	return retry_shmem_transfer(database, id, &found);
}

bool
retry_shmem_leaf_running(Oid database, int leaf)
{
	RetryInFlight found;

	return find_transfers(database, NULL, leaf, &found, 1) > 0;
}

bool
retry_shmem_leaf_done(RetryDatabase *db, int leaf)
{
	return pg_atomic_read_u64(&db->leaf_xid[leaf]) < pg_atomic_read_u64(&db->leaf_done[leaf]);
}

int
retry_shmem_running(Oid database, RetryInFlight *out, int max)
{
	return find_transfers(database, NULL, -1, out, max);
}

int
retry_shmem_max_workers(void)
{
	return max_worker_processes;
}

int
retry_shmem_workers(Oid database, RetryWorker *out)
{
	int			n = 0;
	int			i;

	if (retry_shared == NULL)
		return 0;
	LWLockAcquire(retry_shared->lock, LW_SHARED);
	for (i = 0; i < max_worker_processes; i++)
	{
		const RetryWorker *worker = &retry_shared->workers[i];

		if ((worker->phase == RETRY_WORKER_STARTING || worker->phase == RETRY_WORKER_RUNNING) &&
			(database == InvalidOid || worker->database == database))
			out[n++] = *worker;
	}
	LWLockRelease(retry_shared->lock);
	return n;
}

void
retry_shmem_get_worker(int index, RetryWorker *out)
{
	LWLockAcquire(retry_shared->lock, LW_SHARED);
	*out = retry_shared->workers[index];
	LWLockRelease(retry_shared->lock);
}

int
retry_shmem_prepare_worker(Oid database, int number, int count, uint64 *ticket)
{
	RetryWorker *worker = NULL;
	RetryDatabase *db;
	int			i;

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	if (retry_is_held(database))
	{
		LWLockRelease(retry_shared->lock);
		return -2;
	}
	for (i = 0; i < max_worker_processes && worker == NULL; i++)
	{
		if (retry_shared->workers[i].phase == RETRY_WORKER_FREE)
			worker = &retry_shared->workers[i];
	}
	if (worker != NULL)
	{
		memset(worker, 0, sizeof(RetryWorker));
		db = find_database(database);
		worker->phase = RETRY_WORKER_STARTING;
		worker->database = database;
		worker->number = number;
		worker->count = count;
		worker->ticket = *ticket = ++retry_shared->last_ticket;
		worker->look = db != NULL ? pg_atomic_read_u32(&db->look) : 0;
	}
	LWLockRelease(retry_shared->lock);
	return worker != NULL ? worker - retry_shared->workers : -1;
}

void
retry_shmem_free_worker(int index)
{
	RetryWorker *worker = &retry_shared->workers[index];

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	if (worker->phase != RETRY_WORKER_RUNNING)
	{
		worker->phase = RETRY_WORKER_FREE;
		worker->database = InvalidOid;
		worker->ticket = 0;
	}
	LWLockRelease(retry_shared->lock);
}

void
retry_shmem_stop_worker(int index)
{
	RetryWorker *worker = &retry_shared->workers[index];

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	worker->stop = true;
	if (worker->latch != NULL)
		SetLatch(worker->latch);
	LWLockRelease(retry_shared->lock);
}

void
retry_shmem_set_count(int index, int count)
{
	RetryWorker *worker = &retry_shared->workers[index];

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	if (worker->count != count)
	{
		worker->count = count;
		if (worker->latch != NULL)
			SetLatch(worker->latch);
	}
	LWLockRelease(retry_shared->lock);
}

/* ---------------------------------------------------------------- waking */

/* Does dispatcher number of count own any of these slots? */
static bool
owns_any(int number, int count, uint64 slots)
{
	int			slot;

	if (count <= 1 || slots == PG_UINT64_MAX)
		return true;
	for (slot = number; slot < RETRY_SLOTS; slot += count)
	{
		if (slots & (UINT64CONST(1) << slot))
			return true;
	}
	return false;
}

/*
 * Without the lock: a dispatcher that attaches at this moment takes its first
 * snapshot later than it sets its latch here, and sees what we committed.
 */
static void
wake_workers(Oid database, uint64 slots, bool even_deaf)
{
	int			i;

	pg_memory_barrier();
	for (i = 0; i < max_worker_processes; i++)
	{
		RetryWorker *worker = &retry_shared->workers[i];
		Latch	   *latch = worker->latch;

		if (latch != NULL && worker->database == database && (even_deaf || !worker->deaf) &&
			owns_any(worker->number, worker->count, slots))
			SetLatch(latch);
	}
}

void
retry_shmem_wake(RetryDatabase *db, uint64 slots)
{
	if (db != NULL && slots != 0)
		wake_workers(db->database, slots, false);
}

void
retry_shmem_wake_workers(Oid database)
{
	if (retry_shared != NULL)
		wake_workers(database, PG_UINT64_MAX, true);
}

void
retry_shmem_wake_config(Oid database)
{
	RetryDatabase *db;

	if (retry_shared == NULL)
		return;
	db = find_database(database);
	if (db == NULL)
		return;
	pg_atomic_fetch_add_u64(&db->config_generation, 1);
	wake_workers(database, PG_UINT64_MAX, true);
}

void
retry_shmem_restart_workers(Oid database)
{
	int			i;

	if (retry_shared == NULL)
		return;
	for (i = 0; i < max_worker_processes; i++)
	{
		if (retry_shared->workers[i].database == database)
			retry_shared->workers[i].stop = true;
	}
	wake_workers(database, PG_UINT64_MAX, true);
}

void
retry_shmem_wake_launcher(void)
{
	if (retry_shared == NULL)
		return;
	pg_atomic_fetch_add_u32(&retry_shared->catalog_generation, 1);
	retry_set_launcher_latch();
}

void
retry_shmem_look(RetryDatabase *db)
{
	if (db == NULL)
		return;
	pg_atomic_fetch_add_u32(&db->look, 1);
	retry_set_launcher_latch();
}

int
retry_shmem_starved(void)
{
	return retry_shared != NULL ? *(volatile int *) &retry_shared->starved : 0;
}

void
retry_shmem_set_starved(int databases)
{
	retry_shared->starved = databases;
}

/* ---------------------------------------------------------------- the launcher */

uint32
retry_shmem_catalog_generation(void)
{
	return pg_atomic_read_u32(&retry_shared->catalog_generation);
}

pid_t
retry_shmem_launcher_pid(void)
{
	return retry_shared != NULL ? *(volatile pid_t *) &retry_shared->launcher_pid : 0;
}

static void
release_launcher(int code, Datum arg)
{
	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	if (retry_shared->launcher_pid == MyProcPid)
	{
		retry_shared->launcher_latch = NULL;
		retry_shared->launcher_pid = 0;
	}
	LWLockRelease(retry_shared->lock);
}

void
retry_shmem_become_launcher(void)
{
	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	retry_shared->launcher_pid = MyProcPid;
	retry_shared->launcher_latch = MyLatch;
	LWLockRelease(retry_shared->lock);
	on_shmem_exit(release_launcher, (Datum) 0);
}

int64
retry_monotonic_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}
