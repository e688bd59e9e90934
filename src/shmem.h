/*
 * shmem.h
 *		What the processes of retry share: who works where, what is in flight,
 *		and the flags by which sessions make dispatchers look again.
 *
 * Everything here is a cache or a hint.  After a crash it starts empty and
 * the dispatchers rebuild what they need from the facts in the store.
 */
#ifndef RETRY_SHMEM_H
#define RETRY_SHMEM_H

#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "shown.h"
#include "task.h"

/* The version of this library; that of the SQL objects must be the same. */
#define RETRY_VERSION			"1.0"
#define RETRY_VERSION_NUM		10000

#define RETRY_MAX_DISPATCHERS	16	/* for one database */
#define RETRY_MAX_DATABASES		1024	/* with the extension, in one cluster */

/* One transfer that is under way, as retry.running shows it. */
typedef struct RetryInFlight
{
	pg_uuid_t	id;
	TimestampTz started_at;
	int64		lane_hash;
	int32		attempt_no;		/* 0: this entry is free; see below */
	Oid			enqueued_by;	/* role of the task */
	int32		scene_id;
	int16		leaf;
} RetryInFlight;

/* What is known of one database. */
typedef enum RetryDatabaseState
{
	RETRY_DB_UNKNOWN,			/* not looked at yet */
	RETRY_DB_ABSENT,			/* the extension is not there */
	RETRY_DB_PRESENT,			/* dispatchers are running or to be started */
	RETRY_DB_MISMATCH,			/* the extension is of another version */
	RETRY_DB_EXCLUDED,			/* retry.databases leaves it out */
	RETRY_DB_NO_ROOM			/* RETRY_MAX_DATABASES others have it already */
} RetryDatabaseState;

/* Where one worker entry is in its life. */
typedef enum RetryWorkerPhase
{
	RETRY_WORKER_FREE,
	RETRY_WORKER_STARTING,		/* the launcher asked for a process */
	RETRY_WORKER_RUNNING,		/* the process has claimed the entry */
	RETRY_WORKER_ENDED			/* it has left; the launcher draws conclusions */
} RetryWorkerPhase;

/*
 * One dispatcher process, as the launcher started it.  The upper part changes
 * under the lock of shmem.c only.  Readers that only set latches look at it
 * without: a latch of another process stays valid memory when it ends, and
 * setting the wrong one does no harm.
 */
typedef struct RetryWorker
{
	RetryWorkerPhase phase;
	Oid			database;		/* InvalidOid: this entry is free */
	int			number;			/* k of n, from 0 */
	volatile int count;			/* n; changes by reload; when it is k or less,
								 * the dispatcher hands over and ends */
	uint64		ticket;			/* names this start, see attach_worker */
	uint32		look;			/* RetryDatabase.look when it was started */
	volatile bool stop;			/* it is to end */
	RetryDatabaseState verdict; /* what it found, by mark_database */
	pid_t		pid;			/* 0: not running */
	Latch	   *volatile latch; /* its process latch, while pid is set */
	volatile bool deaf;			/* it reads no tasks until it is told
								 * otherwise by other means: commits need not
								 * wake it */
	TimestampTz started_at;

	/* statistics: written by the dispatcher alone, read without a lock */
	int32		in_flight;
	int32		queued;
	int32		lanes;
	uint64		attempts;
	uint64		turns;
	TimestampTz last_turn_at;
	TimestampTz oldest_due;		/* earliest due entry not yet sent; 0 none */
	RetryShownPlace lanes_shown;	/* see lane_stats.h */
	RetryShownPlace targets_shown;	/* see target_health.h */
	RetryShownPlace scenes_shown;	/* see scene_stats.h */
	TimestampTz stats_since;	/* since when its statistics are not stored;
								 * 0: nothing was counted */
	/* its in-flight entries lie apart, see retry_shmem_in_flight */
} RetryWorker;

/*
 * One database in which the extension is, or may soon be.  An entry is never
 * freed while a process is connected to its database.
 *
 * leaf_xid is what lets the feed skip leaves.  It is never lower than the
 * newest full transaction id that put a task or signal into the leaf, and it
 * is raised before the row is put there, hence before any snapshot can see the
 * row.  So a feed whose last snapshot had this xmin has to look into a leaf
 * exactly while
 *
 *		leaf_xid >= xmin
 *
 * since rows of older transactions were all seen or rolled back by then.
 * Shared memory forgets: transactions that are prepared, or were running at a
 * crash, may have touched any leaf.  Hence a new entry starts with all values
 * at the next transaction id to be given out, which none of them reaches.
 *
 * leaf_done is how upkeep says that everything in a leaf was finished: the
 * xmin of the snapshot it looked with, or 0.  That stays true until a later
 * transaction puts something there, see retry_shmem_leaf_done().
 */
typedef struct RetryDatabase
{
	Oid			database;		/* InvalidOid: this entry is free */
	volatile RetryDatabaseState state;	/* for show and for hints; the
										 * launcher knows better */
	pg_atomic_uint32 look;		/* bumped to make the launcher look here */
	pg_atomic_uint32 prepared;	/* a prepared transaction may make the
								 * extension appear */
	pg_atomic_uint32 schedule_looks;	/* bumped when a worker has run all
										 * schedules that were due */
	/* bumped at commit of a configuration change */
	pg_atomic_uint64 config_generation;
	/* bumped when a dispatcher has recorded that an endpoint is gone */
	pg_atomic_uint64 disabled_generation;
	/* newest full xid that inserted tasks or signals into each leaf */
	pg_atomic_uint64 leaf_xid[RETRY_LEAVES];
	/* everything in the leaf by transactions before this one is finished */
	pg_atomic_uint64 leaf_done[RETRY_LEAVES];
	/* leaves truncated so far: bumped before the locks on them are released */
	pg_atomic_uint64 truncations;
	/* when a function last waited because no executor can be started */
	volatile TimestampTz executors_short_at;
	/* when upkeep was last done; 0: not since the server's start */
	volatile TimestampTz upkeep_at;
	volatile bool upkeep_blocked;	/* and left something undone */
	volatile bool upkeep_asked; /* retry.maintain() had started it */
	volatile TimestampTz upkeep_failed_at;	/* a job of the last one; 0: none */
	volatile TimestampTz upkeep_told_at;	/* of which there is an event */
	volatile bool upkeep_waits; /* for a restore, as the log says */
	pg_atomic_uint64 crash_noted;	/* moment of the last crash that there is
									 * an event of */

	/*
	 * when alarms were last looked at, or until when they need not be; 0:
	 * never
	 */
	volatile TimestampTz alarms_at;
	volatile bool alarms_watched;	/* there are rules */
	volatile bool alarms_rest;	/* none changes before something happens */
	uint64		first_xid;		/* next xid when this entry was made: what was
								 * there already has a lower one */
	/* broadcast by dispatchers when terminal attempts have been recorded */
	ConditionVariable finished;
} RetryDatabase;

/* Installs the shared memory hooks; called from _PG_init while preloading. */
extern void retry_shmem_init(void);

/* True when the library was preloaded and shared memory exists. */
extern bool retry_shmem_ready(void);

/*
 * WARNING, once a session, when the library is not preloaded: tasks are stored
 * and nothing delivers them.  Does nothing otherwise.
 */
extern void retry_warn_not_preloaded(void);

/*
 * The entry of this process's database, made on first use; NULL when the
 * library is not preloaded, no entry is free, or the server is a standby.  Valid
 * until the process ends.
 * Only for processes that are connected to a database.
 */
extern RetryDatabase *retry_shmem_database(void);

/* The same, but NULL when there is no entry yet.  Takes no lock. */
extern RetryDatabase *retry_shmem_peek_database(void);

/* ---- for dispatchers ---- */

/*
 * Claims the worker entry that the launcher prepared (index from bgw_main_arg)
 * for this process, and registers its release at exit.  To be called before
 * connecting to the database, which is worker->database: the release must come
 * after the process has left the database.  NULL: the process is no longer
 * wanted and should end quietly, with exit code 0.
 *
 * While it connects, the process should leave SIGTERM to the handler that
 * background workers start with (or die()): connecting may wait for a lock on
 * the database, and a handler that only sets a flag would not end the wait.
 */
extern RetryWorker *retry_shmem_attach_worker(int index);

/*
 * What this dispatcher found about the extension in its database.  PRESENT
 * makes the launcher start the other dispatchers; after ABSENT or MISMATCH the
 * process should end with exit code 0, the launcher then says what is to be
 * said and does not start it again in vain.  Needs a connected database.
 */
extern void retry_shmem_mark_database(RetryDatabaseState state);

/*
 * The in-flight entries of a worker: retry_max_in_flight of them.  Readers take
 * no lock, so the owner sets attempt_no last (after pg_write_barrier()) and
 * clears it first.
 */
extern RetryInFlight *retry_shmem_in_flight(const RetryWorker *worker);

/*
 * True once this worker is to stop at once: its database is wanted empty, or
 * the server or an administrator asked for it.  One memory read.
 */
extern bool retry_shmem_worker_unwanted(const RetryWorker *worker);

/* ---- for everybody ---- */

/* True when this task is in flight in any dispatcher of the database. */
extern bool retry_shmem_task_running(Oid database, const pg_uuid_t *id);

/* The same, with what is known of the attempt. */
extern bool retry_shmem_transfer(Oid database, const pg_uuid_t *id, RetryInFlight *found);

/* True when any in-flight task of the database lies in this leaf. */
extern bool retry_shmem_leaf_running(Oid database, int leaf);

/*
 * True when everything in the leaf that a snapshot taken before the call can
 * see is finished.  Two memory reads.
 *
 * leaf_done is the xmin of a snapshot under which all of the leaf was finished,
 * and finished tasks stay so.  What that snapshot did not see was put there by
 * a transaction that was running or had not begun: its number is not lower than
 * that xmin, and raised leaf_xid to it before any row of it could be seen.
 */
extern bool retry_shmem_leaf_done(RetryDatabase *db, int leaf);

/*
 * Sets the latches of this database's dispatchers that own any of these slots
 * (bit s for slot s), but not of deaf ones.  Takes no lock and cannot fail:
 * usable in a commit callback.
 */
extern void retry_shmem_wake(RetryDatabase *db, uint64 slots);

/* All dispatchers of a database that need not be one's own, deaf ones too. */
extern void retry_shmem_wake_workers(Oid database);

/*
 * The same for all dispatchers of a database that need not be one's own, with
 * its configuration generation bumped.
 */
extern void retry_shmem_wake_config(Oid database);

/*
 * Asks all dispatchers of a database to end, and so to be started again: they
 * then see what ALTER DATABASE has set.  No lock, as above.
 */
extern void retry_shmem_restart_workers(Oid database);

/* Sets the launcher's latch, so that it looks at the list of databases again. */
extern void retry_shmem_wake_launcher(void);

/* Sets the launcher's latch, so that it looks into this database again. */
extern void retry_shmem_look(RetryDatabase *db);

/*
 * Databases whose dispatchers wait for a free background worker slot, as of
 * the launcher's last look; 0 when all is well.
 */
extern int	retry_shmem_starved(void);

/* The launcher's process id, 0 when it is not running. */
extern pid_t retry_shmem_launcher_pid(void);

/*
 * Copies the worker entries of a database (InvalidOid: of all) that are
 * STARTING or RUNNING, consistently but for the statistics; returns how many.
 * "out" has room for retry_shmem_max_workers().
 */
extern int	retry_shmem_workers(Oid database, RetryWorker *out);
extern int	retry_shmem_max_workers(void);

/*
 * Copies the in-flight entries of a database; returns how many, at most "max".
 */
extern int	retry_shmem_running(Oid database, RetryInFlight *out, int max);

/*
 * Microseconds of a clock that never jumps, from an arbitrary start: for
 * pauses and time-outs, which must survive a change of the system's time.
 */
extern int64 retry_monotonic_us(void);

/* ---- for commands that need a database empty (database_hook.c) ---- */

/*
 * From now on no dispatcher starts in the database, and those there are asked
 * to end.  False when too many sessions hold databases already: nothing is
 * held then.  A session holds one database at a time.
 */
extern bool retry_shmem_hold(Oid database);

/* Ends this session's hold, if there is one; cannot fail. */
extern void retry_shmem_release_hold(void);

/* True while a dispatcher or an executor has not yet left the database. */
extern bool retry_shmem_occupied(Oid database);

/* To be called when one has left: those who hold the database look again. */
extern void retry_shmem_wake_holders(Oid database);

/* ---- for the launcher ---- */

/* Makes this process the launcher until it exits. */
extern void retry_shmem_become_launcher(void);

/*
 * Changes when the list of databases may have changed: by
 * retry_shmem_wake_launcher, and before a hold ends.
 */
extern uint32 retry_shmem_catalog_generation(void);

/*
 * Takes a free entry for dispatcher number of count; *ticket is to reach the
 * process in bgw_extra.  -1: no entry is free.  -2: the database is held.
 */
extern int	retry_shmem_prepare_worker(Oid database, int number, int count, uint64 *ticket);

/* Frees an entry: of a worker that has ENDED, or never came (STARTING). */
extern void retry_shmem_free_worker(int index);

/* Asks for the end of a worker / tells it the number of dispatchers. */
extern void retry_shmem_stop_worker(int index);
extern void retry_shmem_set_count(int index, int count);

/* A consistent copy of one entry, whatever its phase. */
extern void retry_shmem_get_worker(int index, RetryWorker *out);

/* Shows a database's state in its entry, if it has one. */
extern void retry_shmem_publish(Oid database, RetryDatabaseState state);

/* The database entries in use; "out" has room for RETRY_MAX_DATABASES. */
typedef struct RetryDatabaseLook
{
	Oid			database;
	uint32		look;			/* how often retry_shmem_look was called */
	RetryDatabaseState state;
} RetryDatabaseLook;
extern int	retry_shmem_databases(RetryDatabaseLook *out);

/* Frees the entry of a database that no longer exists. */
extern void retry_shmem_forget_database(Oid database);

/* Ends holds whose session is gone. */
extern void retry_shmem_sweep_holds(void);

extern void retry_shmem_set_starved(int databases);

#endif							/* RETRY_SHMEM_H */
