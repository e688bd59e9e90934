/*
 * launcher.c
 *		Starts dispatchers in the databases that have the extension, and starts
 *		them again when they end.
 *
 * Only a process inside a database can see whether the extension is there.  So
 * the launcher reads the list of databases and sends dispatcher number 0 into
 * each that it does not know: it either finds the extension and stays, and the
 * other dispatchers follow, or says that it is absent and ends.  After that the
 * database is left alone until CREATE EXTENSION says, at its commit, that it is
 * worth another look (RetryDatabase.look).
 *
 * The launcher's memory can be lost at any time.  Which dispatchers run is
 * written in shared memory; a new launcher finds them there and lets them work.
 *
 *		UNKNOWN --start 0--> PRESENT --DROP EXTENSION--> ABSENT
 *		   ^  \--> ABSENT, MISMATCH, NO_ROOM               |
 *		   +---------------------- look -------------------+
 *
 * Moments in here are those of retry_monotonic_us().
 *
 * A database is EXCLUDED while retry.databases leaves it out.  A dispatcher that
 * ends without having been asked to is started again at once, and then with
 * growing pauses while it lives only for seconds.
 */
#include "postgres.h"

#include <limits.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procsignal.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "crash.h"
#include "guc.h"
#include "launcher.h"
#include "shmem.h"
#include "worker.h"

#define IDLE_MS				60000	/* between looks that nobody asked for */
#define MAX_PROBES			3	/* unknown databases looked into at once */
#define SHORT_MS			100 /* until a slot is asked for again, the first
								 * time */
#define STARVED_MS			5000	/* and later */
#define FIRST_PAUSE_MS		100 /* after a second untimely end; then doubled */
#define LAST_PAUSE_MS		5000
#define MISMATCH_MS			60000	/* until another version may be there */
#define WARN_AGAIN_MS		60000	/* between two warnings that slots are
									 * short */
#define LONG_LIFE_MS		10000	/* a dispatcher that lived so long was
									 * well */

/* Milliseconds in the unit of retry_monotonic_us(). */
#define AFTER_MS(ms)		((int64) (ms) * 1000)

/* What the launcher knows of one database. */
typedef struct Database
{
	Oid			oid;			/* hash key */
	NameData	name;
	RetryDatabaseState state;
	bool		seen;			/* in the latest scan of pg_database */
	bool		urgent;			/* somebody asked to look here */
	bool		starved;		/* lacks a dispatcher for want of a slot */
	uint32		look;			/* the last RetryDatabase.look that was heeded */
	uint32		numbers;		/* bit k: dispatcher k has an entry */
	int			failures;		/* untimely ends in a row */
	int64		not_before;		/* no start earlier */
} Database;

static HTAB *databases = NULL;
static BackgroundWorkerHandle **handles = NULL; /* by worker index; may be
												 * NULL */
static int	slots_short = 0;	/* rounds in a row in which slots were short */
static int64 slots_again = 0;	/* no start earlier: slots were short */
static uint32 generation = 0;	/* of the list of databases, when it was read */
static int64 wake_at = 0;		/* the next moment something is to be done */

PGDLLEXPORT void retry_launcher_main(Datum arg);

void
retry_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	snprintf(worker.bgw_name, BGW_MAXLEN, "retry launcher");
	snprintf(worker.bgw_type, BGW_MAXLEN, "retry launcher");
	snprintf(worker.bgw_library_name, BGW_MAXLEN, RETRY_LIBRARY);
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "retry_launcher_main");
	RegisterBackgroundWorker(&worker);
}

/* Something is to be done at this moment, if not earlier. */
static void
remind(int64 at)
{
	if (wake_at == 0 || at < wake_at)
		wake_at = at;
}

/* ---------------------------------------------------------------- databases */

static bool
included(const char *name)
{
	char	   *copy;
	List	   *names;
	ListCell   *cell;
	bool		found = false;

	if (retry_databases == NULL || strcmp(retry_databases, "*") == 0)
		return true;
	copy = pstrdup(retry_databases);
	if (SplitIdentifierString(copy, ',', &names))
	{
		foreach(cell, names)
			found = found || strcmp((char *) lfirst(cell), name) == 0;
	}
	return found;
}

/* Enters one row of pg_database into our table. */
static void
note_database(Form_pg_database form)
{
	Database   *db;
	bool		known;
	bool		may;

	db = hash_search(databases, &form->oid, HASH_ENTER, &known);
	if (!known)
	{
		memset((char *) db + sizeof(Oid), 0, sizeof(Database) - sizeof(Oid));
		db->state = RETRY_DB_UNKNOWN;

		/* this launcher is new, maybe because a dispatcher crashed again */
		db->not_before = retry_monotonic_us() + AFTER_MS(retry_crash_pause_ms(db->oid));
	}
	namestrcpy(&db->name, NameStr(form->datname));
	db->seen = true;

	/* A negative limit other than -1 marks a database that was half dropped. */
	may = form->datallowconn && form->datconnlimit >= -1 && included(NameStr(form->datname));
	if (!may)
		db->state = RETRY_DB_EXCLUDED;
	else if (db->state == RETRY_DB_EXCLUDED)
		db->state = RETRY_DB_UNKNOWN;
}

/*
 * Brings our table up to date with pg_database.  Entries in shared memory are
 * listed first: whoever made one was connected, so its database is seen by the
 * scan unless it was dropped.
 */
static void
scan_databases(void)
{
	static RetryDatabaseLook entries[RETRY_MAX_DATABASES];
	int			n = retry_shmem_databases(entries);
	HASH_SEQ_STATUS all;
	Database   *db;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	int			i;

	hash_seq_init(&all, databases);
	while ((db = hash_seq_search(&all)) != NULL)
		db->seen = false;

	pgstat_report_activity(STATE_RUNNING, "looking at the list of databases");
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
		note_database((Form_pg_database) GETSTRUCT(tuple));
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);

	for (i = 0; i < n; i++)
	{
		db = hash_search(databases, &entries[i].database, HASH_FIND, NULL);
		if (db == NULL || !db->seen)
			retry_shmem_forget_database(entries[i].database);
	}
	hash_seq_init(&all, databases);
	while ((db = hash_seq_search(&all)) != NULL)
	{
		if (!db->seen)
			hash_search(databases, &db->oid, HASH_REMOVE, NULL);
	}
}

/* Heeds those who asked, by retry_shmem_look(), that we look into a database. */
static void
heed_looks(void)
{
	static RetryDatabaseLook entries[RETRY_MAX_DATABASES];
	int			n = retry_shmem_databases(entries);
	int			i;

	for (i = 0; i < n; i++)
	{
		Database   *db = hash_search(databases, &entries[i].database, HASH_FIND, NULL);

		if (db == NULL || db->look == entries[i].look)
			continue;
		db->look = entries[i].look;
		if (db->state == RETRY_DB_PRESENT || db->state == RETRY_DB_EXCLUDED)
			continue;
		db->state = RETRY_DB_UNKNOWN;
		db->urgent = true;
		db->failures = 0;
		db->not_before = 0;
	}
}

/* Shows in shared memory what is known of each database. */
static void
publish_states(void)
{
	static RetryDatabaseLook entries[RETRY_MAX_DATABASES];
	int			n = retry_shmem_databases(entries);
	int			i;

	for (i = 0; i < n; i++)
	{
		Database   *db = hash_search(databases, &entries[i].database, HASH_FIND, NULL);

		if (db != NULL && db->state != entries[i].state)
			retry_shmem_publish(db->oid, db->state);
	}
}

/* ---------------------------------------------------------------- dispatchers that ended */

/* An untimely end: start again at once if it had been well, else pause. */
static void
note_failure(Database *db, const RetryWorker *worker, int64 now)
{
	int			pause = 0;

	if (worker->started_at != 0 &&
		TimestampDifferenceExceeds(worker->started_at, GetCurrentTimestamp(), LONG_LIFE_MS))
		db->failures = 0;
	if (db->failures > 0)
		pause = Min(LAST_PAUSE_MS, FIRST_PAUSE_MS << Min(db->failures - 1, 10));
	db->failures++;
	db->not_before = now + AFTER_MS(pause);
}

/*
 * Draws the conclusions from a worker that has ended, or never came.  What it
 * said of the extension counts only if nobody has asked to look since it was
 * started: it may have met the extension before, and its successor created.
 */
static void
judge(Database *db, const RetryWorker *worker, int64 now)
{
	bool		current = worker->look == db->look;

	switch (worker->verdict)
	{
		case RETRY_DB_ABSENT:
			if (current && db->state != RETRY_DB_EXCLUDED)
				db->state = RETRY_DB_ABSENT;
			break;
		case RETRY_DB_MISMATCH:
			if (!current)
				break;
			if (db->state != RETRY_DB_MISMATCH)
				ereport(WARNING,
						(errmsg("nothing is delivered in database \"%s\": its extension retry is not of version %s, as the server's library is",
								NameStr(db->name), RETRY_VERSION),
						 errhint("Execute ALTER EXTENSION retry UPDATE, or restart the server if it still runs the old library.")));
			db->state = RETRY_DB_MISMATCH;
			db->not_before = now + AFTER_MS(MISMATCH_MS);
			break;
		case RETRY_DB_NO_ROOM:
			if (db->state != RETRY_DB_NO_ROOM)
				ereport(WARNING,
						(errmsg("nothing is delivered in database \"%s\": %d other databases have the extension retry already",
								NameStr(db->name), RETRY_MAX_DATABASES)));
			db->state = RETRY_DB_NO_ROOM;
			db->not_before = now + AFTER_MS(MISMATCH_MS);
			break;
		default:
			if (!worker->stop)
				note_failure(db, worker, now);
			break;
	}
}

/*
 * Is this entry's process gone, or will it never come?  A process that has
 * released its entry still has its worker slot for a moment, which its
 * successor may need; so we ask the postmaster.  Entries without a handle are
 * an earlier launcher's: if such a process is still to come, it finds its
 * ticket invalid.
 */
static bool
is_over(int index, const RetryWorker *worker)
{
	pid_t		pid;

	if (worker->phase == RETRY_WORKER_RUNNING)
		return false;
	return handles[index] == NULL ||
		GetBackgroundWorkerPid(handles[index], &pid) == BGWH_STOPPED;
}

static void
drop_handle(int index)
{
	if (handles[index] != NULL)
		pfree(handles[index]);
	handles[index] = NULL;
}

/*
 * Looks at all worker entries: frees those that are over, tells the others what
 * has changed for them, and notes in each database which numbers it has.
 */
static void
review_workers(int64 now)
{
	HASH_SEQ_STATUS all;
	Database   *db;
	int			i;

	hash_seq_init(&all, databases);
	while ((db = hash_seq_search(&all)) != NULL)
		db->numbers = 0;

	for (i = 0; i < retry_shmem_max_workers(); i++)
	{
		RetryWorker worker;

		retry_shmem_get_worker(i, &worker);
		if (worker.phase == RETRY_WORKER_FREE)
			continue;
		db = hash_search(databases, &worker.database, HASH_FIND, NULL);
		if (is_over(i, &worker))
		{
			bool		forgotten = worker.phase == RETRY_WORKER_STARTING && handles[i] == NULL;

			drop_handle(i);
			retry_shmem_free_worker(i);
			slots_again = 0;
			if (db != NULL && !forgotten)
				judge(db, &worker, now);
			continue;
		}
		/* one that is beyond the count hands its lanes over, and ends itself */
		if (db == NULL || db->state == RETRY_DB_EXCLUDED)
		{
			if (!worker.stop)
				retry_shmem_stop_worker(i);
		}
		else if (worker.verdict == RETRY_DB_PRESENT && db->state != RETRY_DB_ABSENT)
			db->state = RETRY_DB_PRESENT;	/* ABSENT needs a look first */
		if (db != NULL)
			db->numbers |= 1U << worker.number;
		if (worker.count != retry_dispatchers)
			retry_shmem_set_count(i, retry_dispatchers);
	}
}

/* ---------------------------------------------------------------- starting dispatchers */

typedef enum StartResult
{
	STARTED, HELD, NO_SLOT
} StartResult;

static StartResult
start_dispatcher(Database *db, int number)
{
	char		name[BGW_MAXLEN];
	uint64		ticket;
	int			index;

	index = retry_shmem_prepare_worker(db->oid, number, retry_dispatchers, &ticket);
	if (index == -2)
		return HELD;
	if (index < 0)
		return NO_SLOT;
	if (generation != retry_shmem_catalog_generation())
	{
		/* It was held, and may be gone: read the list first. */
		retry_shmem_free_worker(index);
		return HELD;
	}

	drop_handle(index);
	snprintf(name, sizeof(name), "retry dispatcher %d for database %u", number, db->oid);
	handles[index] = retry_worker_start(name, "retry dispatcher", "retry_dispatcher_main",
										Int32GetDatum(index), &ticket, sizeof(ticket));
	if (handles[index] == NULL)
	{
		retry_shmem_free_worker(index);
		return NO_SLOT;
	}
	db->numbers |= 1U << number;
	return STARTED;
}

/*
 * The dispatchers that are wanted first: number 0 of known databases and of
 * those that somebody asked about; then unknown databases, a few at a time;
 * then the other numbers.
 */
typedef enum Pass
{
	PASS_FIRST, PASS_PROBE, PASS_OTHERS, PASSES
} Pass;

/* Which numbers does the database lack that this pass would start? */
static uint32
lacking(const Database *db, Pass pass)
{
	uint32		wanted = (1U << retry_dispatchers) - 1;
	bool		known = db->state == RETRY_DB_PRESENT;

	switch (pass)
	{
		case PASS_FIRST:
			wanted = known || (db->urgent && db->state == RETRY_DB_UNKNOWN) ? 1 : 0;
			break;
		case PASS_PROBE:
			if (known || db->state == RETRY_DB_ABSENT || db->state == RETRY_DB_EXCLUDED)
				wanted = 0;
			else
				wanted = 1;
			break;
		default:
			if (!known)
				wanted = 0;
			break;
	}
	return wanted & ~db->numbers;
}

/* Databases that are being probed at the moment. */
static int
count_probes(void)
{
	HASH_SEQ_STATUS all;
	Database   *db;
	int			n = 0;

	hash_seq_init(&all, databases);
	while ((db = hash_seq_search(&all)) != NULL)
	{
		if (db->state != RETRY_DB_PRESENT && (db->numbers & 1))
			n++;
	}
	return n;
}

/*
 * Starts what one database lacks.  False when it has to go without for want of
 * a worker slot.
 */
static bool
serve(Database *db, Pass pass, int *probes, int64 now)
{
	uint32		numbers = lacking(db, pass);
	int			number;

	if (numbers == 0)
		return true;
	if (db->not_before > now)
	{
		remind(db->not_before);
		return true;
	}
	if (pass == PASS_PROBE && *probes >= MAX_PROBES)
		return true;			/* the end of a probe wakes us */
	if (slots_again > now)
		return false;

	for (number = 0; number < RETRY_MAX_DISPATCHERS; number++)
	{
		if ((numbers & (1U << number)) == 0)
			continue;
		switch (start_dispatcher(db, number))
		{
			case STARTED:
				if (pass == PASS_PROBE)
					(*probes)++;
				db->urgent = false;
				break;
			case HELD:
				return true;	/* its release wakes us */
			case NO_SLOT:
				if (pass == PASS_PROBE && *probes > 0)
					return true;	/* as above */
				slots_again = now + AFTER_MS(slots_short > 0 ? STARVED_MS : SHORT_MS);
				return false;
		}
	}
	return true;
}

/*
 * Says that slots are short, and that they no longer are, but not every few
 * seconds.  The first time may be a passing matter, of a process that is just
 * ending.
 */
static void
report_slots(int starved, bool tried, int64 now)
{
	static bool said = false;
	static int64 said_at = 0;

	if (starved == 0)
		slots_short = 0;
	else if (tried && slots_short < 2)
		slots_short++;
	retry_shmem_set_starved(slots_short > 1 ? starved : 0);

	if (slots_short > 1 && !said &&
		(said_at == 0 || now >= said_at + AFTER_MS(WARN_AGAIN_MS)))
	{
		said = true;
		said_at = now;
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg_plural("no background worker slot is free for the dispatchers of %d database",
							   "no background worker slot is free for the dispatchers of %d databases",
							   starved, starved),
				 errdetail("They are started when slots become free."),
				 errhint("Increase max_worker_processes, or set fewer retry.dispatchers or retry.databases.")));
	}
	else if (slots_short == 0 && said)
	{
		said = false;
		ereport(LOG,
				(errmsg("all dispatchers have a background worker slot again")));
	}
}

static void
start_what_lacks(int64 now)
{
	HASH_SEQ_STATUS all;
	Database   *db;
	Pass		pass;
	int			probes = count_probes();
	int			starved = 0;
	bool		tried = slots_again <= now;

	hash_seq_init(&all, databases);
	while ((db = hash_seq_search(&all)) != NULL)
		db->starved = false;
	for (pass = PASS_FIRST; pass < PASSES; pass++)
	{
		hash_seq_init(&all, databases);
		while ((db = hash_seq_search(&all)) != NULL)
		{
			if (!serve(db, pass, &probes, now) && !db->starved)
			{
				db->starved = true;
				starved++;
			}
		}
	}
	if (starved > 0)
		remind(slots_again);
	report_slots(starved, tried, now);
}

/* ---------------------------------------------------------------- main */

/*
 * The settings that this process must not inherit: it waits for no lock for
 * long, because its SIGTERM handler only sets a flag.
 */
static void
pin_settings(void)
{
	static const RetrySetting pinned[] = {
		{"lock_timeout", "2s"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"transaction_timeout", "0"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"search_path", ""},
	};

	retry_worker_set(pinned, lengthof(pinned));
}

static void
init_memory(void)
{
	HASHCTL		control;

	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(Database);
	control.hcxt = TopMemoryContext;
	databases = hash_create("retry databases", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	handles = MemoryContextAllocZero(TopMemoryContext,
									 sizeof(BackgroundWorkerHandle *) * retry_shmem_max_workers());
}

/* Milliseconds to wait, as a long that WaitLatch takes. */
static long
time_to_wait(void)
{
	int64		now = retry_monotonic_us();

	if (wake_at == 0)
		return IDLE_MS;
	return wake_at <= now ? 0 : Min(IDLE_MS, (wake_at - now) / 1000 + 1);
}

/*
 * One round.  "scan": the list of databases may have changed.
 */
static void
look_around(bool scan)
{
	int64		now = retry_monotonic_us();

	wake_at = 0;
	if (scan || generation != retry_shmem_catalog_generation())
	{
		generation = retry_shmem_catalog_generation();
		retry_shmem_sweep_holds();
		scan_databases();
	}
	heed_looks();
	review_workers(now);
	start_what_lacks(now);
	publish_states();
}

/*
 * Main function of the process.  An error ends it, and the postmaster starts
 * another a second later, which finds the dispatchers at work.  The exit code
 * is 1 because 0 would mean that it is never wanted again.
 */
void
retry_launcher_main(Datum arg)
{
	MemoryContext scratch;
	bool		scan = true;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pin_settings();
	init_memory();
	retry_shmem_become_launcher();
	scratch = AllocSetContextCreate(TopMemoryContext, "retry launcher", ALLOCSET_DEFAULT_SIZES);
	pgstat_report_activity(STATE_IDLE, NULL);

	while (!ShutdownRequestPending)
	{
		int			events;

		MemoryContextSwitchTo(scratch);
		look_around(scan);
		MemoryContextReset(scratch);

		events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						   time_to_wait(), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (catchupInterruptPending)
			ProcessCatchupInterrupt();

		scan = false;
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			scan = true;
		}
		if (events & WL_TIMEOUT)
			scan = true;
	}
	proc_exit(1);
}
