/*
 * upkeep.c
 *		The background worker that keeps the store in order, and its schedule.
 *
 * Retention works leaf by leaf and may take long where there is much history,
 * so it is no business of a process that delivers.  Dispatcher 0 starts a
 * worker for it a minute after its own start, then every hour, and at once
 * when retry.purge() has asked.  The worker goes through its jobs, each in
 * transactions of its own; one that fails or finds a table locked does not
 * keep the others from being done.  A lock lets only one work at a time.
 *
 * The worker must not outlive the wish to have the database empty: whoever
 * wants that makes the dispatchers leave, and the one that started the worker
 * ends it.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "event.h"
#include "guc.h"
#include "shmem.h"
#include "statement.h"
#include "store.h"
#include "upkeep.h"
#include "worker.h"

#define FIRST_US		USECS_PER_MINUTE	/* after the dispatcher's start */
#define INTERVAL_US		USECS_PER_HOUR
#define WANTED_US		(10 * USECS_PER_MINUTE) /* for what is wanted often */
#define PAUSE_US		(2 * USECS_PER_SEC) /* between two looks at it */
#define AGAIN_US		(10 * USECS_PER_SEC)	/* when a request could not be
												 * carried out */
#define TELL_US			USECS_PER_HOUR	/* at most one event of its failures */

/* SQL's advisory locks use 1 and 2 here, the dispatchers' slots 0x52. */
#define UPKEEP_LOCK_CLASS	0x53

PG_FUNCTION_INFO_V1(retry_maintain);

PGDLLEXPORT void retry_upkeep_main(Datum arg);

/* ---------------------------------------------------------------- starting it */

static BackgroundWorkerHandle *handle = NULL;

/* NULL when no worker slot is free.  "wait": for one that is at work already. */
static BackgroundWorkerHandle *
start_worker(bool wait)
{
	char		name[BGW_MAXLEN];

	snprintf(name, sizeof(name), "retry upkeep for database %u", MyDatabaseId);
	return retry_worker_start(name, "retry upkeep", "retry_upkeep_main",
							  ObjectIdGetDatum(MyDatabaseId), &wait, sizeof(wait));
}

/* True when retry.purge() has asked for something that is not done yet. */
static bool
requests_waiting(Snapshot snapshot)
{
	Oid			oid = retry_relation_oid("purge_request");
	Relation	rel;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		found;

	if (!ConditionalLockRelationOid(oid, AccessShareLock))
		return true;
	rel = table_open(oid, NoLock);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	slot = table_slot_create(rel, NULL);
	found = table_scan_getnextslot(scan, ForwardScanDirection, slot);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, NoLock);
	return found;
}

static TimestampTz wanted_at = DT_NOEND;	/* see retry_upkeep_want() */
static TimestampTz started_at = 0;	/* the last one */

/* Rows that are replicated come all the time. */
void
retry_upkeep_want(TimestampTz moment)
{
	wanted_at = Min(wanted_at, Max(moment + AGAIN_US, started_at + WANTED_US));
}

void
retry_upkeep_consider(Snapshot snapshot, uint64 generation, TimestampTz now)
{
	static TimestampTz next = 0;	/* the regular one */
	static TimestampTz not_before = 0;
	static uint64 seen_generation = PG_UINT64_MAX;
	static bool requested = false;

	/* all databases at the same moment would want all worker slots */
	if (next == 0)
		next = now + FIRST_US + (MyDatabaseId % 60) * USECS_PER_SEC / 4;
	if (generation != seen_generation)
	{
		seen_generation = generation;
		requested = requests_waiting(snapshot) || requested;
	}
	/* whoever else does it in time, as a job of pg_cron, spares us the work */
	if (now >= next)
		next = Max(next, retry_shmem_database()->upkeep_at + INTERVAL_US);
	/* a clock that is set back must not put it off */
	next = Min(next, now + INTERVAL_US);
	not_before = Min(not_before, now + AGAIN_US);
	if (now < not_before || (handle == NULL && !requested && now < next && now < wanted_at))
		return;
	not_before = now + PAUSE_US;
	if (handle != NULL)
	{
		if (retry_worker_ended(&handle) && requests_waiting(snapshot))
		{
			requested = true;
			not_before = now + AGAIN_US;
		}
		return;
	}
	retry_worker_ends_with_us(&handle);
	handle = start_worker(false);
	if (handle != NULL)
	{
		started_at = now;
		next = now + INTERVAL_US;
		wanted_at = DT_NOEND;
	}
	requested = false;
}

/*
 * retry.maintain(): the same worker, started by hand, and waited for.
 */
Datum
retry_maintain(PG_FUNCTION_ARGS)
{
	BackgroundWorkerHandle *mine;
	BgwHandleStatus status = BGWH_STOPPED;

	PreventCommandDuringRecovery("retry.maintain()");
	mine = start_worker(true);
	if (mine == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker slot is free for retry.maintain()"),
				 errhint("Try again later, or increase max_worker_processes.")));
	PG_TRY();
	{
		status = WaitForBackgroundWorkerShutdown(mine);
	}
	PG_CATCH();
	{
		TerminateBackgroundWorker(mine);
		PG_RE_THROW();
	}
	PG_END_TRY();
	pfree(mine);
	if (status == BGWH_POSTMASTER_DIED)
		ereport(ERROR,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("the server ended before retry.maintain() was done")));
	PG_RETURN_VOID();
}

/* ---------------------------------------------------------------- the worker */

static bool
extension_present(void)
{
	bool		present;

	retry_worker_begin_spi("looking for the extension");
	present = OidIsValid(get_extension_oid("retry", true));
	retry_worker_commit_spi();
	return present;
}

/*
 * The worker's own settings, whatever the database says.  Plans must not
 * depend on statistics that were true for a table that has been filled or
 * truncated since: every statement that is run is one for index lookups.
 */
static void
pin_settings(void)
{
	static const RetrySetting pinned[] = {
		{"enable_seqscan", "off"},
		{"enable_hashjoin", "off"},
		{"enable_mergejoin", "off"},
		{"max_parallel_workers_per_gather", "0"},
	};

	retry_pin_settings();
	retry_worker_set(pinned, lengthof(pinned));
}

/* Makes this the only upkeep of the database, until the process ends. */
static bool
lock_upkeep(bool wait)
{
	LOCKTAG		tag;
	bool		locked;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0x72657472, 0, UPKEEP_LOCK_CLASS);
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	retry_worker_begin_spi("waiting for another upkeep");
	locked = LockAcquire(&tag, ExclusiveLock, true, !wait) != LOCKACQUIRE_NOT_AVAIL;
	retry_worker_commit_spi();
	return locked;
}

/* A job, for each of some leaves; most know nothing of leaves. */
typedef struct Job
{
	void		(*run) (RetryUpkeep *upkeep, int leaf);
	const char *word;			/* as retry.progress shows it */
	int			first;
	int			last;
} Job;

/* In this order: keys note what the leaves tell of the ends of tasks. */
static const Job jobs[] = {
	{retry_upkeep_triggers, "triggers"},
	{retry_upkeep_keys, "keys"},
	{retry_upkeep_leaf, "history", 0, RETRY_RING_LEAVES - 1},
	{retry_upkeep_long_leaf, "history beside the ring", RETRY_LONG_LEAF, RETRY_LONG_LEAF},
	{retry_upkeep_dead_letters, "dead letters"},
	{retry_upkeep_consumed, "messages seen"},
	{retry_upkeep_barriers, "barriers"},
	{retry_upkeep_decided, "decided transactions"},
	{retry_upkeep_runs, "runs of schedules"},
	{retry_upkeep_events, "events"},
	{retry_upkeep_audit, "audit"},
	{retry_upkeep_secrets, "former secrets"},
	{retry_upkeep_stats, "statistics"},
	{retry_upkeep_count, "counting tasks"},
	{retry_upkeep_scenes, "archived scenes"},
};

void
retry_upkeep_count_rows(RetryUpkeep *upkeep, int64 looked_at, int64 removed)
{
	upkeep->looked_at += looked_at;
	upkeep->removed += removed;
	retry_progress_set(upkeep->progress, upkeep->looked_at, upkeep->removed);
}

/* Tells operators that a job failed; no more often than TELL_US, for the log has all. */
static bool
store_failure(void *arg)
{
	RetryEvent	event = {.kind = RETRY_EVENT_UPKEEP_FAILED,.detail = arg};

	return retry_event_store(&event, false);
}

static void
note_failure(const Job *job, const ErrorData *failure)
{
	RetryDatabase *db = retry_shmem_database();
	TimestampTz now = GetCurrentTimestamp();
	bool		stored;

	if (db == NULL)
		return;
	db->upkeep_failed_at = now;
	if (db->upkeep_told_at != 0 && now >= db->upkeep_told_at && now < db->upkeep_told_at + TELL_US)
		return;
	if (retry_worker_store(store_failure, psprintf("%s: %s", job->word, failure->message), &stored) == NULL && stored)
		db->upkeep_told_at = now;
}

/*
 * Does one job.  What goes wrong in it is logged, unless it is just a lock
 * that somebody holds.  False when there is nothing left to work on.
 */
static bool
attempt(const Job *job, RetryUpkeep *upkeep, int leaf)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool failed = false;

	upkeep->looked_at = 0;
	retry_progress_phase(upkeep->progress, job->first == job->last ? job->word : psprintf("%s, leaf %d", job->word, leaf),
						 -1, false);
	PG_TRY();
	{
		job->run(upkeep, leaf);
	}
	PG_CATCH();
	{
		ErrorData  *error = retry_worker_recover(context);

		upkeep->blocked = true;
		failed = true;
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE && extension_present())
		{
			ereport(LOG,
					(errmsg("retry: upkeep goes on after an error: %s", error->message),
					 error->detail ? errdetail_internal("%s", error->detail) : 0,
					 error->context ? errcontext("%s", error->context) : 0));
			note_failure(job, error);
		}
		MemoryContextSwitchTo(context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	MemoryContextReset(context);
	return !failed || extension_present();
}

/*
 * What retry.purge() has asked for moves the cut-off.  Requests are known by
 * their ctid: a row of that table is never changed, and only upkeep deletes.
 */
static ArrayType *
read_requests(RetryUpkeep *upkeep, MemoryContext context)
{
	ArrayType  *requests = NULL;
	Datum		value;
	bool		isnull;

	retry_worker_begin_spi("reading requests to purge");
	(void) retry_statement("SELECT max(p.before), array_agg(p.ctid) FROM retry.purge_request p",
						   0, NULL, NULL, NULL, SPI_OK_SELECT);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		upkeep->cutoff = Max(upkeep->cutoff, Min(DatumGetTimestampTz(value), upkeep->now));
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
		requests = DatumGetArrayTypePCopy(value);
		MemoryContextSwitchTo(old);
	}
	retry_worker_commit_spi();
	return requests;
}

static void
delete_requests(ArrayType *requests)
{
	Oid			type = TIDARRAYOID;
	Datum		value = PointerGetDatum(requests);

	retry_worker_begin_spi("deleting requests to purge");
	(void) retry_statement("DELETE FROM retry.purge_request p WHERE p.ctid = ANY ($1)",
						   1, &type, &value, NULL, SPI_OK_DELETE);
	retry_worker_commit_spi();
}

/* For retry.health(). */
static void
note_done(const RetryUpkeep *upkeep, bool asked)
{
	RetryDatabase *db = retry_shmem_database();

	if (db == NULL)
		return;
	if (db->upkeep_failed_at < upkeep->now)
		db->upkeep_failed_at = 0;
	db->upkeep_asked = asked;
	db->upkeep_blocked = upkeep->blocked;
	db->upkeep_at = GetCurrentTimestamp();
}

/* One pass through everything; "asked": by retry.maintain(). */
static void
run(bool asked)
{
	RetryUpkeep upkeep = {.now = GetCurrentTimestamp()};
	ArrayType  *requests;
	bool		going = true;

	upkeep.cutoff = upkeep.now - retry_retention_s * USECS_PER_SEC;
	upkeep.dead_cutoff = upkeep.now - retry_dead_letter_retention_s * USECS_PER_SEC;
	if (retry_upkeep_amidst_restore(&upkeep))
		return;
	requests = read_requests(&upkeep, TopMemoryContext);

	upkeep.progress = retry_progress_begin("upkeep", 0, 0, requests != NULL ? "retry.purge()" : NULL);
	for (int i = 0; i < lengthof(jobs) && going; i++)
	{
		for (int leaf = jobs[i].first; leaf <= jobs[i].last && going; leaf++)
			going = attempt(&jobs[i], &upkeep, leaf);
	}
	retry_progress_end(upkeep.progress);
	if (going && requests != NULL && !upkeep.blocked)
		delete_requests(requests);
	if (going)
		note_done(&upkeep, asked);
}

/* Entry point; the argument is the database's OID. */
void
retry_upkeep_main(Datum arg)
{
	bool		wait = MyBgworkerEntry->bgw_extra[0] != 0;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	pin_settings();
	CurrentMemoryContext = AllocSetContextCreate(TopMemoryContext, "retry upkeep",
												 ALLOCSET_DEFAULT_SIZES);
	if (lock_upkeep(wait))
	{
		SetConfigOption("lock_timeout", "50ms", PGC_SUSET, PGC_S_OVERRIDE);
		if (extension_present())
			run(wait);
	}
	proc_exit(0);
}
