/*
 * dispatchers_view.c
 *		Shared memory as rows: what is in flight, by task and by scene, and the dispatchers.
 *
 * All functions show the current database only.  They return nothing when the
 * library is not preloaded, because then nothing is in flight.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "access.h"
#include "compat.h"
#include "guc.h"
#include "shmem.h"

#define RUNNING_COLUMNS		6
#define DISPATCHER_COLUMNS	11

PG_FUNCTION_INFO_V1(retry_running_rows);
PG_FUNCTION_INFO_V1(retry_scene_running);
PG_FUNCTION_INFO_V1(retry_dispatcher_rows);

/* The scenes whose tasks the current role may see. */
typedef struct Visible
{
	int32	   *all;			/* all their tasks */
	int			nall;
	int32	   *own;			/* only those of roles that it is a member of */
	int			nown;
} Visible;

static bool
contains(const int32 *scenes, int n, int32 scene_id)
{
	for (int i = 0; i < n; i++)
	{
		if (scenes[i] == scene_id)
			return true;
	}
	return false;
}

static bool
may_see(const Visible *visible, const RetryInFlight *transfer)
{
	return contains(visible->all, visible->nall, transfer->scene_id) ||
		(contains(visible->own, visible->nown, transfer->scene_id) &&
		 has_privs_of_role(GetUserId(), transfer->enqueued_by));
}

/*
 * What was in flight when a query asked first: it asks for each state of tasks
 * by itself, and a task that is sent meanwhile would have two of them, or none.
 */
typedef struct Reading
{
	struct Reading *next;
	MemoryContext query;		/* lives as long as the query does, and this
								 * in it */
	MemoryContextCallback forget;
	RetryInFlight *transfers;
	int			n;
} Reading;

static Reading *readings = NULL;

static void
forget(void *arg)
{
	Reading   **at = &readings;

	while (*at != arg)
		at = &(*at)->next;
	*at = (*at)->next;
}

static const Reading *
reading_of(MemoryContext query)
{
	int			max = retry_max_in_flight * RETRY_MAX_DISPATCHERS;
	Reading    *reading;

	for (reading = readings; reading != NULL; reading = reading->next)
	{
		if (reading->query == query)
			return reading;
	}
	reading = MemoryContextAllocZero(query, sizeof(Reading));
	reading->query = query;
	reading->transfers = MemoryContextAlloc(query, sizeof(RetryInFlight) * max);
	reading->n = retry_shmem_running(MyDatabaseId, reading->transfers, max);
	reading->transfers = repalloc(reading->transfers, sizeof(RetryInFlight) * Max(reading->n, 1));
	reading->forget.func = forget;
	reading->forget.arg = reading;
	MemoryContextRegisterResetCallback(query, &reading->forget);
	reading->next = readings;
	readings = reading;
	return reading;
}

/* retry.running_rows() */
Datum
retry_running_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	const Reading *reading;
	Visible		visible;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	if (!retry_shmem_ready())
		return (Datum) 0;

	reading = reading_of(result->econtext->ecxt_per_query_memory);
	visible.all = retry_visible_scenes(GetActiveSnapshot(), GetUserId(), NULL, false, &visible.nall);
	visible.own = retry_visible_scenes(GetActiveSnapshot(), GetUserId(), NULL, true, &visible.nown);
	for (i = 0; i < reading->n; i++)
	{
		const RetryInFlight *transfer = &reading->transfers[i];
		Datum		values[RUNNING_COLUMNS];
		bool		nulls[RUNNING_COLUMNS] = {0};

		if (!may_see(&visible, transfer))
			continue;
		values[0] = UUIDPGetDatum(&transfer->id);
		values[1] = Int32GetDatum(transfer->attempt_no);
		values[2] = TimestampTzGetDatum(transfer->started_at);
		values[3] = Int16GetDatum(transfer->leaf);
		values[4] = Int64GetDatum(transfer->lane_hash);
		values[5] = Int32GetDatum(transfer->scene_id);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* A moment, or null when it is not known. */
static Datum
moment(TimestampTz value, bool *isnull)
{
	*isnull = value == 0;
	return TimestampTzGetDatum(value);
}

/* What is under way of a scene. */
typedef struct Running
{
	int32		scene_id;		/* hash key */
	int64		all;
	int64		first;
} Running;

static HTAB *
count_running(const Reading *reading)
{
	HASHCTL		ctl = {.keysize = sizeof(int32),.entrysize = sizeof(Running),.hcxt = CurrentMemoryContext};
	HTAB	   *scenes = hash_create("retry running scenes", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	for (int i = 0; i < reading->n; i++)
	{
		const RetryInFlight *transfer = &reading->transfers[i];
		bool		found;
		Running    *running = hash_search(scenes, &transfer->scene_id, HASH_ENTER, &found);

		if (!found)
			running->all = running->first = 0;
		running->all++;
		running->first += transfer->attempt_no == 1;
	}
	return scenes;
}

/* retry.scene_running() */
Datum
retry_scene_running(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		sees_all = retry_sees_all_groups(GetUserId());
	HASH_SEQ_STATUS seq;
	Running    *running;
	int32	   *ids;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	if (!retry_shmem_ready())
		return (Datum) 0;
	ids = retry_visible_scenes(GetActiveSnapshot(), GetUserId(), NULL, false, &n);
	hash_seq_init(&seq, count_running(reading_of(result->econtext->ecxt_per_query_memory)));
	while ((running = hash_seq_search(&seq)) != NULL)
	{
		Datum		values[3];
		bool		isnull[3] = {0};

		if (!sees_all && !contains(ids, n, running->scene_id))
			continue;
		values[0] = Int32GetDatum(running->scene_id);
		values[1] = Int64GetDatum(running->all);
		values[2] = Int64GetDatum(running->first);
		tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	}
	return (Datum) 0;
}

/* retry.dispatcher_rows() */
Datum
retry_dispatcher_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	RetryWorker *workers;
	int			n;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	if (!retry_shmem_ready())
		return (Datum) 0;

	workers = palloc(sizeof(RetryWorker) * retry_shmem_max_workers());
	n = retry_shmem_workers(MyDatabaseId, workers);
	for (i = 0; i < n; i++)
	{
		const RetryWorker *worker = &workers[i];
		Datum		values[DISPATCHER_COLUMNS];
		bool		nulls[DISPATCHER_COLUMNS] = {0};

		if (worker->phase != RETRY_WORKER_RUNNING)
			continue;
		values[0] = Int32GetDatum(worker->number);
		values[1] = Int32GetDatum(worker->count);
		values[2] = Int32GetDatum((int32) worker->pid);
		values[3] = moment(worker->started_at, &nulls[3]);
		values[4] = Int32GetDatum(worker->in_flight);
		values[5] = Int32GetDatum(worker->queued);
		values[6] = Int32GetDatum(worker->lanes);
		values[7] = Int64GetDatum((int64) worker->attempts);
		values[8] = Int64GetDatum((int64) worker->turns);
		values[9] = moment(worker->last_turn_at, &nulls[9]);
		values[10] = moment(worker->oldest_due, &nulls[10]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	pfree(workers);
	return (Datum) 0;
}
