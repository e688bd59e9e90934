/*
 * sqlsend.c
 *		The dispatcher's side of tasks that call functions of the database.
 *
 * To the dispatcher an executor is like a receiver: a job is handed over, the
 * loop goes on, and some turns later there is a result.  What differs is that
 * executors are few.  A lane that finds none waits in a queue of lanes, with
 * its entry at its head, and takes no place among the requests under way; so
 * functions that are slow, however many, are in nobody's way but their own.
 * An executor that becomes free is for the lane that has waited longest: who
 * comes while others wait, and be it the lane that had it, goes behind them.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "sqlsend.h"
#include "worker.h"

/* How long a function that has not heeded its time-out may still go on. */
#define GRACE_MS		2000

/* A lane whose job could not be tried waits so long. */
#define PAUSE_US		(200 * 1000)
#define PAUSES			16

/* No worker slot is free: so long until the next try. */
#define STARVED_US		USECS_PER_SEC
#define LOG_INTERVAL_MS	(60 * 1000)

/* One that waits for an executor is told when there is one. */
#define WAIT_US			USECS_PER_HOUR

/* Lanes that are told in one turn. */
#define CALLS			RETRY_MAX_SQL_WORKERS

typedef struct Running
{
	int			executor;
	void	   *tag;
	int64		lane_hash;
	BackgroundWorkerHandle *handle; /* until its process has come; or NULL */
} Running;

typedef struct Pause
{
	int64		lane_hash;
	int64		until_us;
} Pause;

struct RetrySqlSender
{
	Running		running[RETRY_MAX_SQL_WORKERS];
	int			nrunning;
	Pause		pauses[PAUSES];
	int			next_pause;
	int64	   *waiting;		/* ring of lanes that want an executor */
	int			waiting_size;
	int			waiting_head;
	int			nwaiting;
	int64		called[CALLS];	/* lanes whose turn it is */
	int			ncalled;
	long		timeout_ms;		/* until a time-out has to be enforced, 0 when
								 * lanes were called; -1 */
};

static void
abandon_at_exit(int code, Datum arg)
{
	retry_pool_abandon();
}

RetrySqlSender *
retry_sql_create(void)
{
	RetrySqlSender *s = palloc0(sizeof(RetrySqlSender));

	s->waiting_size = 16;
	s->waiting = palloc(s->waiting_size * sizeof(int64));
	s->timeout_ms = -1;
	before_shmem_exit(abandon_at_exit, (Datum) 0);
	return s;
}

/*
 * With two executors or more, a function leaves at least one to the others,
 * however slow it is and whatever its scene says.
 */
int32
retry_sql_lane_cap(void)
{
	return Max(1, retry_sql_workers - 1);
}

/* Starts the process for a slot; NULL when no worker slot is free. */
static BackgroundWorkerHandle *
start_executor(int executor, uint64 ticket)
{
	char		name[BGW_MAXLEN];

	snprintf(name, sizeof(name), "retry executor for database %u", MyDatabaseId);
	return retry_worker_start(name, "retry executor", "retry_executor_main",
							  Int32GetDatum(executor), &ticket, sizeof(ticket));
}

static void
note_shortage(RetryDispatcher *d)
{
	static TimestampTz said = 0;
	TimestampTz now = GetCurrentTimestamp();

	d->db->executors_short_at = now;
	if (!TimestampDifferenceExceeds(said, now, LOG_INTERVAL_MS))
		return;
	said = now;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("retry: no background worker slot is free for an executor, functions of sql: targets wait"),
			 errhint("Increase max_worker_processes, or set fewer retry.sql_workers.")));
}

/*
 * The lane's turn will come when an executor is free.  One whose turn it was,
 * and which found none all the same, is first again.
 */
static void
enqueue_lane(RetrySqlSender *s, int64 lane_hash, bool first)
{
	if (s->nwaiting == s->waiting_size)
	{
		int64	   *bigger = MemoryContextAlloc(GetMemoryChunkContext(s->waiting),
												2 * s->waiting_size * sizeof(int64));

		for (int i = 0; i < s->nwaiting; i++)
			bigger[i] = s->waiting[(s->waiting_head + i) % s->waiting_size];
		pfree(s->waiting);
		s->waiting = bigger;
		s->waiting_size *= 2;
		s->waiting_head = 0;
	}
	if (first)
	{
		s->waiting_head = (s->waiting_head + s->waiting_size - 1) % s->waiting_size;
		s->waiting[s->waiting_head] = lane_hash;
	}
	else
		s->waiting[(s->waiting_head + s->nwaiting) % s->waiting_size] = lane_hash;
	s->nwaiting++;
}

/* Is it the lane's turn?  For one job. */
static bool
take_call(RetrySqlSender *s, int64 lane_hash)
{
	for (int i = 0; i < s->ncalled; i++)
	{
		if (s->called[i] != lane_hash)
			continue;
		s->called[i] = s->called[--s->ncalled];
		return true;
	}
	return false;
}

static int64
paused_until(const RetrySqlSender *s, int64 lane_hash)
{
	int64		until = 0;

	for (int i = 0; i < PAUSES; i++)
	{
		if (s->pauses[i].lane_hash == lane_hash)
			until = Max(until, s->pauses[i].until_us);
	}
	return until;
}

int64
retry_sql_start(RetryDispatcher *d, const RetryJob *job, void *tag, TimestampTz now, int64 now_us)
{
	RetrySqlSender *s = d->sql;
	int64		until = paused_until(s, job->lane_hash);
	Running    *r = &s->running[s->nrunning];
	int			executor = -1;
	bool		called;
	uint64		ticket = 0;

	if (until > now_us)
		return until;
	called = take_call(s, job->lane_hash);
	if (s->nrunning < RETRY_MAX_SQL_WORKERS && (called || s->nwaiting + s->ncalled == 0))
		executor = retry_pool_hand_over(job, &ticket);
	if (executor < 0)
	{
		if (retry_sql_workers == 0)
		{
			d->db->executors_short_at = now;
			return now_us + STARVED_US;
		}
		enqueue_lane(s, job->lane_hash, called);
		return now_us + WAIT_US;
	}
	r->executor = executor;
	r->tag = tag;
	r->lane_hash = job->lane_hash;
	r->handle = NULL;
	if (ticket != 0)
	{
		r->handle = start_executor(r->executor, ticket);
		if (r->handle == NULL)
		{
			(void) retry_pool_take_back(r->executor);
			note_shortage(d);
			return now_us + STARVED_US;
		}
	}
	d->db->executors_short_at = 0;
	s->nrunning++;
	return 0;
}

/* A job that was not tried: the lane has its turn a little later. */
static void
pause_lane(RetrySqlSender *s, int64 lane_hash)
{
	s->pauses[s->next_pause].lane_hash = lane_hash;
	s->pauses[s->next_pause].until_us = retry_monotonic_us() + PAUSE_US;
	s->next_pause = (s->next_pause + 1) % PAUSES;
}

/* Has the process of a slot given up before it came?  Then its job is ours again. */
static bool
never_came(Running *r)
{
	return retry_worker_ended(&r->handle) && retry_pool_take_back(r->executor);
}

bool
retry_sql_next(RetryDispatcher *d, void **tag, RetryJobResult *result)
{
	RetrySqlSender *s = d->sql;

	for (int i = 0; i < s->nrunning; i++)
	{
		Running    *r = &s->running[i];

		if (never_came(r))
			memset(result, 0, sizeof(*result));
		else if (!retry_pool_collect(r->executor, result))
			continue;

		/* until now it was busy to them, and they were not told since */
		if (d->worker->count > 1)
			retry_shmem_wake_workers(MyDatabaseId);

		/*
		 * whoever ends us ends executors too: that is no fault of the
		 * function
		 */
		if (result->end == RETRY_JOB_FAILED && result->sqlstate == ERRCODE_ADMIN_SHUTDOWN &&
			retry_shmem_worker_unwanted(d->worker))
			result->end = RETRY_JOB_AGAIN;
		if (result->end == RETRY_JOB_AGAIN)
			pause_lane(s, r->lane_hash);
		if (r->handle != NULL)
			pfree(r->handle);
		*tag = r->tag;
		*r = s->running[--s->nrunning];
		return true;
	}
	return false;
}

void
retry_sql_run(RetryDispatcher *d)
{
	RetrySqlSender *s = d->sql;

	s->timeout_ms = -1;
	for (int i = 0; i < s->nrunning; i++)
	{
		long		ms = retry_pool_enforce(s->running[i].executor, GRACE_MS);

		if (ms >= 0)
			s->timeout_ms = s->timeout_ms < 0 ? ms : Min(s->timeout_ms, ms);
	}

	/* as many as there is room for; some have nothing to do any more */
	for (int room = s->nwaiting > 0 ? Min(retry_pool_room(), CALLS) : 0;
		 s->ncalled < room && s->nwaiting > 0;)
	{
		int64		lane_hash = s->waiting[s->waiting_head];
		RetryLane  *lane = retry_lanes_find(d->lanes, lane_hash);

		s->waiting_head = (s->waiting_head + 1) % s->waiting_size;
		s->nwaiting--;
		if (lane == NULL)
			retry_lanes_wake(d->lanes, lane_hash);
		if (lane == NULL || !lane->blocked)
			continue;
		retry_lane_unblock(d->lanes, lane);
		s->called[s->ncalled++] = lane_hash;
	}
	if (s->ncalled > 0)
		s->timeout_ms = 0;
}

void
retry_sql_started(RetryDispatcher *d)
{
	d->sql->ncalled = 0;
}

long
retry_sql_timeout_ms(const RetryDispatcher *d)
{
	return d->sql->timeout_ms;
}
