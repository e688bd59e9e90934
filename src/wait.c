/*
 * wait.c
 *		retry.wait(): until a task has finished.
 *
 * Made for scripts and tests, and for callers that need an answer after all.
 * The session sleeps on a condition variable that dispatchers broadcast after
 * they have recorded outcomes, looks again at least five times a second, and
 * holds no snapshot of its own while it sleeps.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "locate.h"
#include "shmem.h"

PG_FUNCTION_INFO_V1(retry_wait);

/* Look again after this long, whoever may have been forgotten to be woken. */
#define LOOK_AGAIN_MS	200

/*
 * The state of a task.  An attempt that ended it wins over a request to cancel
 * it that came in while it was under way; until it has ended, nobody knows.
 */
static int
state_of(const RetryLocated *task)
{
	if (task->probe.terminal)
		return task->probe.outcome == RETRY_SUCCEEDED ? RETRY_STATE_SUCCEEDED : RETRY_STATE_DEAD;
	if (retry_shmem_task_running(MyDatabaseId, &task->id))
		return RETRY_STATE_RUNNING;
	if (task->probe.cancelled)
		return RETRY_STATE_CANCELLED;
	return task->probe.attempts > 0 ? RETRY_STATE_RETRYING : RETRY_STATE_PENDING;
}

static bool
is_finished(int state)
{
	return state == RETRY_STATE_SUCCEEDED || state == RETRY_STATE_DEAD || state == RETRY_STATE_CANCELLED;
}

/* Refuses what could only end in waiting for nothing. */
static void
check_can_wait(RetryLocated *task)
{
	if (task->xid == U64FromFullTransactionId(GetTopFullTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task %s was enqueued by this transaction", retry_id_text(&task->id)),
				 errhint("Nothing is sent before the transaction has committed: COMMIT, then wait.")));

	/* from REPEATABLE READ on, the transaction's snapshot decides for good */
	if (IsolationUsesXactSnapshot())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		if (!retry_locate_again(GetActiveSnapshot(), task) || !is_finished(state_of(task)))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("task %s has not finished as this transaction sees it, and never will",
							retry_id_text(&task->id)),
					 errhint("A transaction of isolation level REPEATABLE READ or above sees nothing that happens after it began; wait in READ COMMITTED.")));
		PopActiveSnapshot();
	}
}

static void
sleep_a_while(RetryDatabase *db, int64 left_us)
{
	long		ms = (long) Min(Max(left_us / 1000, 1), LOOK_AGAIN_MS);

	if (db != NULL)
		(void) ConditionVariableTimedSleep(&db->finished, ms, PG_WAIT_EXTENSION);
	else
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	CHECK_FOR_INTERRUPTS();
}

/* retry.wait(id, timeout) */
Datum
retry_wait(PG_FUNCTION_ARGS)
{
	TimestampTz deadline;
	RetryDatabase *db;
	RetryLocated task;
	int			state;

	deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(GetCurrentTimestamp()),
													   PG_GETARG_DATUM(1)));
	retry_locate(PG_GETARG_UUID_P(0), &task);
	check_can_wait(&task);

	db = retry_shmem_database();
	if (db != NULL)
		ConditionVariablePrepareToSleep(&db->finished);
	for (;;)
	{
		TimestampTz now;
		bool		seen;

		/* the clock first: a last look after the time is over */
		now = GetCurrentTimestamp();
		PushActiveSnapshot(IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : GetLatestSnapshot());
		seen = retry_locate_again(GetActiveSnapshot(), &task);
		PopActiveSnapshot();
		if (!seen)
			retry_locate(PG_GETARG_UUID_P(0), &task);	/* its leaf was cleared */
		state = state_of(&task);
		if (is_finished(state) || now >= deadline)
			break;
		sleep_a_while(db, deadline - now);
	}
	if (db != NULL)
		ConditionVariableCancelSleep();
	PG_RETURN_OID(retry_task_state_oid(state));
}
