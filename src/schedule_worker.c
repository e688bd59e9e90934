/*
 * schedule_worker.c
 *		The worker that runs schedules, and when dispatcher 0 starts it.
 *
 * A dispatcher must wait for nobody's lock, and running a schedule takes some;
 * so it only knows when something is due, and has a short-lived worker do it.
 * When that is it computes from the definitions alone, which it reads again
 * when they have changed: an idle system compares a number.  What was run and
 * what was not is for the worker to find out, so a look too many does no harm.
 *
 * The worker looks at all schedules, also those that have a job of pg_cron,
 * but leaves pg_cron some seconds; so it does not matter whether pg_cron is
 * well, is dropped, or was there at all.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "schedule.h"
#include "statement.h"
#include "store.h"
#include "table_read.h"
#include "worker.h"

#define AGAIN_US		(2 * USECS_PER_SEC) /* when not all could be run */
#define LOCKED_US		(100 * 1000)	/* when the definitions are locked */

PGDLLEXPORT void retry_schedules_main(Datum arg);

/* ---------------------------------------------------------------- when */

/* What the dispatcher keeps of a schedule. */
typedef struct Timing
{
	RetryCron	cron;
	RetryZone	zone;
	int64		grace_us;
} Timing;

static Timing *timings = NULL;
static int	ntimings = 0;
static uint32 fingerprint = 0;	/* of the rows they were read from */
static uint64 seen_generation = PG_UINT64_MAX;
static TimestampTz next_look = DT_NOEND;
static TimestampTz computed_at = DT_NOBEGIN;

static BackgroundWorkerHandle *handle = NULL;
static uint32 looks_before;		/* when that was started */

/* Reads one row; false when it never comes due. */
static bool
read_timing(TupleTableSlot *slot, Timing *timing)
{
	bool		isnull;

	if (!DatumGetBool(slot_getattr(slot, Schedule_active + 1, &isnull)))
		return false;
	memset(timing, 0, sizeof(*timing));
	(void) slot_getattr(slot, Schedule_cron_job + 1, &isnull);
	timing->grace_us = isnull ? 0 : RETRY_SCHEDULE_GRACE_US;
	return retry_schedule_read(TextDatumGetCString(slot_getattr(slot, Schedule_cron + 1, &isnull)),
							   TextDatumGetCString(slot_getattr(slot, Schedule_tz + 1, &isnull)),
							   &timing->cron, &timing->zone);
}

/* Reads the definitions; false, with the old ones kept, when they are locked. */
static bool
read_timings(Snapshot snapshot, bool *changed)
{
	RetryTableRead table = {0};
	uint32		hash = 0;
	int			n = 0;
	int			size = 16;
	Timing	   *read;

	if (!retry_table_read_begin(&table, "schedule_definition", Schedule_natts, snapshot))
		return false;
	read = palloc(size * sizeof(Timing));
	while (retry_table_read_next(&table))
	{
		TupleTableSlot *slot = table.slot;
		bool		isnull;
		TransactionId xmin = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull));

		hash = hash_combine(hash, hash_bytes((const unsigned char *) &slot->tts_tid, sizeof(ItemPointerData)));
		hash = hash_combine(hash, hash_bytes_uint32(xmin));
		if (n == size)
		{
			size *= 2;
			read = repalloc(read, size * sizeof(Timing));
		}
		if (read_timing(slot, &read[n]))
			n++;
	}
	retry_table_read_end(&table);

	*changed = n != ntimings || hash != fingerprint;
	fingerprint = hash;
	if (timings != NULL)
		pfree(timings);
	timings = NULL;
	ntimings = n;
	if (n > 0)
	{
		timings = MemoryContextAlloc(TopMemoryContext, n * sizeof(Timing));
		memcpy(timings, read, n * sizeof(Timing));
	}
	return true;
}

/* The earliest moment after "now" at which something is to be looked at. */
static TimestampTz
next_due(TimestampTz now)
{
	TimestampTz earliest = DT_NOEND;

	for (int i = 0; i < ntimings; i++)
	{
		TimestampTz next;

		if (retry_cron_next(&timings[i].cron, now - timings[i].grace_us, &timings[i].zone, &next))
			earliest = Min(earliest, next + timings[i].grace_us);
	}
	computed_at = now;
	return earliest;
}

TimestampTz
retry_schedules_next(void)
{
	return handle != NULL ? DT_NOEND : next_look;
}

/* ---------------------------------------------------------------- starting it */

static void
start_worker(void)
{
	char		name[BGW_MAXLEN];

	snprintf(name, sizeof(name), "retry schedules for database %u", MyDatabaseId);
	handle = retry_worker_start(name, "retry schedules", "retry_schedules_main",
								ObjectIdGetDatum(MyDatabaseId), NULL, 0);
}

/* True while the worker is at it; when it has ended, draws the conclusions. */
static bool
is_working(RetryDatabase *db, TimestampTz now)
{
	if (!retry_worker_ended(&handle))
		return handle != NULL;
	if (pg_atomic_read_u32(&db->schedule_looks) == looks_before)
		next_look = Min(next_look, now + AGAIN_US);
	return false;
}

void
retry_schedules_consider(Snapshot snapshot, RetryDatabase *db, uint64 generation, TimestampTz now)
{
	bool		changed;

	if (is_working(db, now))
		return;
	if (generation != seen_generation)
	{
		if (!read_timings(snapshot, &changed))
			next_look = Min(next_look, now + LOCKED_US);
		else
		{
			/* at the start, or of what was due before: perhaps now */
			if (changed)
				next_look = ntimings > 0 ? now : DT_NOEND;
			seen_generation = generation;
		}
	}

	/*
	 * the clock was set back: what is next now comes before what was next
	 * then
	 */
	if (now < computed_at && next_look != DT_NOEND)
		next_look = Min(next_look, next_due(now));
	if (now < next_look)
		return;
	if (ntimings == 0)
	{
		next_look = DT_NOEND;
		return;
	}
	retry_worker_ends_with_us(&handle);
	looks_before = pg_atomic_read_u32(&db->schedule_looks);
	start_worker();
	next_look = handle != NULL ? next_due(now) : now + AGAIN_US;
}

/* ---------------------------------------------------------------- the worker */

/* A job of pg_cron's that went with pg_cron is none. */
static void
forget_pg_cron(void)
{
	if (!OidIsValid(get_extension_oid("pg_cron", true)))
		(void) retry_statement("UPDATE retry.schedule_definition SET cron_job = NULL WHERE cron_job IS NOT NULL",
							   0, NULL, NULL, NULL, SPI_OK_UPDATE);
}

/* What one pass through the schedules is about. */
typedef struct Pass
{
	TimestampTz now;
	int32	   *due;
	int			count;
	int			current;
	RetryScheduleRuns runs;
} Pass;

static void
find_due(Pass *pass)
{
	MemoryContext outside = CurrentMemoryContext;
	int32	   *found;

	retry_worker_begin_spi("looking for schedules that are due");
	if (OidIsValid(get_extension_oid("retry", true)))
	{
		forget_pg_cron();
		found = retry_schedules_due(InvalidOid, true, pass->now, &pass->count);
		pass->due = MemoryContextAlloc(outside, Max(pass->count, 1) * sizeof(int32));
		memcpy(pass->due, found, pass->count * sizeof(int32));
	}
	retry_worker_commit_spi();
}

static void
run_current(Pass *pass)
{
	retry_worker_begin_spi("running a schedule");
	retry_schedules_run(pass->due[pass->current], InvalidOid, true, pass->now, &pass->runs);
	retry_worker_commit_spi();
}

/*
 * Does one step; what goes wrong in it is logged, unless it is just a lock that
 * somebody holds, and is tried again later.
 */
static void
attempt(void (*step) (Pass *), Pass *pass)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		step(pass);
	}
	PG_CATCH();
	{
		ErrorData  *error = retry_worker_recover(context);

		pass->runs.busy = true;
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ereport(LOG,
					(errmsg("retry: schedules are looked at again after an error: %s", error->message),
					 error->detail ? errdetail_internal("%s", error->detail) : 0));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

/* One pass through the schedules that are due. */
static void
run_all(Pass *pass)
{
	memset(pass, 0, sizeof(*pass));
	pass->now = GetCurrentTimestamp();
	attempt(find_due, pass);
	for (pass->current = 0; pass->current < pass->count; pass->current++)
		attempt(run_current, pass);
}

/* Entry point; the argument is the database's OID. */
void
retry_schedules_main(Datum arg)
{
	Pass		pass;
	RetryDatabase *db;
	MemoryContext context;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	retry_pin_settings();
	db = retry_shmem_database();
	context = AllocSetContextCreate(TopMemoryContext, "retry schedules", ALLOCSET_DEFAULT_SIZES);
	do
	{
		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		run_all(&pass);
	} while (pass.runs.more && !pass.runs.busy);
	if (!pass.runs.busy && db != NULL)
		pg_atomic_fetch_add_u32(&db->schedule_looks, 1);
	proc_exit(0);
}
