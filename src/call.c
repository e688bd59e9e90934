/*
 * call.c
 *		retry.call(): attempts in the caller's session, and a task if they fail.
 *
 * For callers that want the answer, and would rather have it at once than
 * hear of it later.  The request is that of the task which may follow, made
 * of the same row, under the same id, judged by the same rules; the row is
 * only not stored until the attempts here have failed.  What is different is
 * the price: the caller's transaction stays open while it waits.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "config.h"
#include "enqueue.h"
#include "guc.h"
#include "judge.h"
#include "quote.h"
#include "rate_table.h"
#include "record.h"
#include "request.h"
#include "scene_secret.h"
#include "session_http.h"
#include "shmem.h"
#include "sqltarget.h"
#include "target_health.h"

PG_FUNCTION_INFO_V1(retry_call);

#define MAX_LOCAL_ATTEMPTS	100

#define UNIX_SHIFT_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* Positions of those arguments that mean something here. */
enum
{
	Arg_on_success = 14, Arg_on_dead, Arg_mode = 17, Arg_local_attempts, Arg_local_interval
};

/* Columns of retry.call_result. */
enum
{
	Result_state, Result_http_status, Result_response, Result_attempts,
	Result_task_id, Result_error, Result_natts
};

typedef enum CallMode
{
	MODE_LOCAL,
	MODE_REMOTE,
	MODE_LOCAL_REMOTE
} CallMode;

typedef struct Call
{
	CallMode	mode;
	int32		local_attempts;
	int64		interval_us;
	int64		wait_left_us;	/* for all waits between the attempts */
	RetryNewTask task;
	RetryScene *scene;
	RetryLimits limits;			/* of the task, but for max_attempts, which
								 * counts its own attempts only */
	RetryZone	zone;
	RetryTargetHealth *targets; /* when the scene has some */
	RetryTargetUse target;		/* of the attempt under way */
	MemoryContext context;		/* of one attempt, until the next */

	/* of the last attempt, in its context */
	int32		made;			/* how many so far; 0: nothing below is set */
	int32		pendings;		/* of these, those that found it at work */
	RetryVerdict verdict;
	int			http_status;
	bytea	   *response;
	const char *error;			/* NULL: none */
	int64		asked_wait_us;	/* by Retry-After */
} Call;

/* Arguments */

static CallMode
read_mode(FunctionCallInfo fcinfo)
{
	static const char *const words[] = {
		[MODE_LOCAL] = "local",[MODE_REMOTE] = "remote",[MODE_LOCAL_REMOTE] = "local_remote"
	};

	if (PG_ARGISNULL(Arg_mode))
		return MODE_LOCAL_REMOTE;
	return retry_check_word("mode", PG_GETARG_TEXT_PP(Arg_mode), words, lengthof(words));
}

static void
read_local_limits(FunctionCallInfo fcinfo, Call *call)
{
	call->local_attempts = 3;
	if (!PG_ARGISNULL(Arg_local_attempts))
		call->local_attempts = PG_GETARG_INT32(Arg_local_attempts);
	if (call->local_attempts < 1 || call->local_attempts > MAX_LOCAL_ATTEMPTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("local_attempts is not between 1 and %d: %d",
						MAX_LOCAL_ATTEMPTS, call->local_attempts)));

	call->interval_us = 2 * USECS_PER_SEC;
	if (!PG_ARGISNULL(Arg_local_interval))
	{
		Interval   *interval = PG_GETARG_INTERVAL_P(Arg_local_interval);

		/* the fields are looked at first: their sum could overflow */
		if (interval->month != 0 || interval->day != 0 ||
			interval->time < 0 || interval->time > USECS_PER_HOUR)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("local_interval is not between 0 and 1 h: %s",
							DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval))))));
		call->interval_us = interval->time;
	}
	call->wait_left_us = call->interval_us * (call->local_attempts - 1);
}

/* A function of the database is not called by HTTP. */
static void
refuse_function(const char *target)
{
	if (target != NULL && retry_is_sql_target(target))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("target \"%s\" is a function of the database, which is not called in the session",
						retry_quoted_string(target)),
				 errhint("SELECT the function itself, or enqueue it with mode => 'remote'.")));
}

/* One message to all targets of the scene: as many tasks, and no one answer. */
static bool
goes_to_all(const Call *call)
{
	return call->task.options.url == NULL && call->scene->ntargets > 0 &&
		call->scene->route == RETRY_ROUTE_ALL;
}

/* What only a task can do is refused where there will be none. */
static void
check_local(FunctionCallInfo fcinfo, const Call *call)
{
	const RetryEnqueueOptions *o = &call->task.options;

	if (call->mode == MODE_LOCAL && !(PG_ARGISNULL(Arg_on_success) && PG_ARGISNULL(Arg_on_dead)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is given, but mode => 'local' makes no task that could call it",
						PG_ARGISNULL(Arg_on_success) ? "on_dead" : "on_success"),
				 errhint("The caller is told of the outcome by the result.")));

	if (call->mode == MODE_LOCAL && goes_to_all(call))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("scene \"%s/%s\" sends to all of its targets, which a call in the session does not",
						o->scene.group.name, o->scene.name),
				 errhint("Enqueue it, or give the argument url.")));
	if (call->mode == MODE_LOCAL && call->scene->missing_secret != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("secret \"%s\" of scene \"%s/%s\" is not set", call->scene->missing_secret,
						o->scene.group.name, o->scene.name),
				 errhint("With mode => 'local_remote' a task is enqueued, which waits until it is.")));
	if (call->mode == MODE_LOCAL && call->scene->paused)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("scene \"%s/%s\" is paused", o->scene.group.name, o->scene.name),
				 errhint("With mode => 'local_remote' a task is enqueued, which waits until the scene, or its group, is resumed.")));
	if (call->mode == MODE_LOCAL && !retry_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nothing is sent from this database, since retry.enabled is off"),
				 errhint("With mode => 'local_remote' a task is enqueued, which waits until it is on.")));
}

/* Attempts */

/* The row of the task, as it would be read from the store. */
static TupleTableSlot *
make_row(Call *call)
{
	Relation	rel = table_open(retry_relation_oid("task"), AccessShareLock);
	TupleTableSlot *row = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)),
												   &TTSOpsVirtual);

	table_close(rel, AccessShareLock);
	memcpy(row->tts_values, call->task.values, sizeof(call->task.values));
	memcpy(row->tts_isnull, call->task.isnull, sizeof(call->task.isnull));
	row->tts_values[Task_id] = UUIDPGetDatum(&call->task.id);
	row->tts_values[Task_due_at] = TimestampTzGetDatum(call->task.due_at);
	row->tts_isnull[Task_id] = row->tts_isnull[Task_due_at] = false;
	return ExecStoreVirtualTuple(row);
}

/*
 * What the end of an attempt means, by the task's own limits but one: that it
 * would expire before the next attempt is for the caller to see, since here the
 * next one does not wait for the backoff.
 */
static void
judge(Call *call, const RetryHttpResult *result)
{
	RetryLimits limits = call->limits;
	RetryAnswer answer;
	RetryAttemptAt at = {
		.attempt_no = call->made,
		.pendings = call->pendings,
		.ended_at = GetCurrentTimestamp()
	};

	retry_answer_of_http(result, &answer);
	limits.expires_at = DT_NOEND;
	call->verdict = retry_judge_exchange(call->scene, &limits, &answer, &at);
	(void) retry_target_use_done(&call->target, &answer, call->verdict.outcome,
								 call->scene != NULL ? &call->scene->flow.breaker : NULL, at.ended_at);
	retry_target_use_release(&call->target);
	call->pendings = retry_policy_pendings(call->pendings, call->verdict.outcome);
	call->asked_wait_us = result->http_status == 0 ? 0 :
		retry_after_delay_us(&result->retry_after, at.ended_at + UNIX_SHIFT_US, RETRY_AFTER_CAP_US);
}

/* Keeps of the answer what the caller gets. */
static void
keep_answer(Call *call, const RetryHttpResult *result)
{
	call->http_status = result->http_status;
	call->response = NULL;
	retry_scene_mask(call->scene, unconstify(char *, result->body), result->body_len);
	retry_scene_mask(call->scene, unconstify(char *, &result->error_text[0]), strlen(result->error_text));
	if (result->body_len > 0)
	{
		call->response = palloc(VARHDRSZ + result->body_len);
		SET_VARSIZE(call->response, VARHDRSZ + result->body_len);
		memcpy(VARDATA(call->response), result->body, result->body_len);
	}
	call->error = NULL;
	if (call->verdict.outcome == RETRY_SUCCEEDED)
		return;
	if (result->error_text[0] != '\0')
		call->error = TextDatumGetCString(retry_error_datum(result->error_text));
	else if (call->verdict.why != NULL)
		call->error = call->verdict.why;
	else if (call->verdict.outcome == RETRY_PROCESSING)
		call->error = psprintf("still being processed, status %d", result->http_status);
	else
		call->error = psprintf("status %d", result->http_status);
}

/* Do its group's rules keep the request from this URL?  Then that is the end. */
static bool
may_not_go(Call *call, const char *url)
{
	RetryVerdict blocked = {.outcome = RETRY_BLOCKED,.terminal = true,.reason = RETRY_DEAD_BLOCKED};

	blocked.why = retry_destination_refusal(&call->scene->to, url);
	if (blocked.why == NULL)
		return false;
	retry_target_use_release(&call->target);
	call->verdict = blocked;
	call->http_status = 0;
	call->response = NULL;
	call->error = blocked.why;
	return true;
}

/* One attempt.  False, having sent nothing, when the time for it is over. */
static bool
make_attempt(Call *call, TupleTableSlot *row)
{
	MemoryContext next = AllocSetContextCreate(CurrentMemoryContext, "retry call attempt",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(next);
	TimestampTz now = GetCurrentTimestamp();
	RetryVerdict spent;
	RetryPrepared prepared;
	const RetryHttpResult *result;

	if (!retry_request_prepare(row, call->scene, call->made + 1, now, &prepared))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("scene \"%s\": %s", call->scene->name, prepared.why)));
	retry_judge_limits(call->scene, PG_INT32_MAX, prepared.expires_at, prepared.backoff,
					   &call->limits, &call->zone);
	if (retry_policy_spent(0, 0, &call->limits, now, &spent))
	{
		call->verdict = spent;
		MemoryContextSwitchTo(old);
		return false;
	}
	if (prepared.http.url == NULL)
	{
		retry_target_use_here(call->targets, call->scene, row, now, &call->target);
		prepared.http.url = retry_target_use_url(&call->target);
	}

	/* what is left of the one before is not needed any more */
	if (call->context != NULL)
		MemoryContextDelete(call->context);
	call->context = next;
	call->made++;
	if (may_not_go(call, prepared.http.url))
	{
		MemoryContextSwitchTo(old);
		return true;
	}
	result = retry_session_exchange(&prepared.http);
	judge(call, result);
	keep_answer(call, result);
	retry_session_release();
	MemoryContextSwitchTo(old);
	return true;
}

/*
 * Waits until the next attempt, no longer in all than the caller has reckoned
 * with; false when the receiver does not want to be asked so soon.
 */
static bool
wait_for_next(Call *call)
{
	int64		wait = Max(Min(call->interval_us, call->wait_left_us), call->asked_wait_us);

	if (wait > call->wait_left_us)
		return false;
	call->wait_left_us -= wait;
	retry_session_sleep(wait);
	return true;
}

/*
 * Counts an attempt to the scene's rate, and waits for its moment.  False when
 * that is later than the caller has reckoned with.
 */
static bool
wait_for_rate(Call *call)
{
	int32		scene_id = call->scene->id;
	RetrySharedRate *shared = NULL;
	RetryRate	rate;
	RetryPace	pace;
	int64		now_us = retry_monotonic_us();
	int64		wait;

	if (call->scene->rate.count > 0)
		shared = retry_rate_table_find(scene_id, &rate);
	if (shared == NULL)
		return true;
	retry_rate_pace(&rate, &pace);
	wait = retry_shared_rate_reserve(shared, scene_id, &pace, now_us) - now_us;
	if (wait > call->wait_left_us)
	{
		retry_shared_rate_give_back(shared, scene_id, &pace);
		return false;
	}
	call->wait_left_us -= wait;
	if (wait > 0)
		retry_session_sleep(wait);
	return true;
}

/* All attempts that are to be made here; the last one's verdict counts. */
static void
attempt_here(Call *call)
{
	TupleTableSlot *row = make_row(call);
	bool		spent = false;

	if (call->scene->ntargets > 0)
		call->targets = retry_target_health_create(NULL);
	do
	{
		spent = !wait_for_rate(call);
		if (spent)
		{
			call->error = call->made == 0 ? "the rate of its scene is spent" :
				psprintf("%s; the rate of its scene is spent", call->error);
			break;
		}
		if (!make_attempt(call, row))
		{
			call->error = "its time was over";
			break;
		}
	} while (!call->verdict.terminal && call->made < call->local_attempts && wait_for_next(call));
	ExecDropSingleTupleTableSlot(row);

	if (!call->verdict.terminal && !spent && call->made < call->local_attempts)
		call->error = psprintf("%s; not to be asked again for " INT64_FORMAT " s",
							   call->error, (call->asked_wait_us + USECS_PER_SEC - 1) / USECS_PER_SEC);
	if (!call->verdict.terminal && call->mode == MODE_LOCAL_REMOTE &&
		call->verdict.next_due > call->limits.expires_at)
	{
		call->verdict.terminal = true;
		call->error = psprintf("%s; it would expire before its next attempt",
							   call->error);
	}
}

/* Result */

static Datum
make_result(FunctionCallInfo fcinfo, const Call *call, RetryTaskState state)
{
	TupleDesc	desc;
	Datum		values[Result_natts];
	bool		isnull[Result_natts];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != Result_natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("retry.call() does not return what this version of the library expects"),
				 errhint("ALTER EXTENSION retry UPDATE.")));
	values[Result_state] = ObjectIdGetDatum(retry_task_state_oid(state));
	isnull[Result_state] = false;
	values[Result_http_status] = Int32GetDatum(call->http_status);
	isnull[Result_http_status] = call->http_status == 0;
	values[Result_response] = PointerGetDatum(call->response);
	isnull[Result_response] = call->response == NULL;
	values[Result_attempts] = Int32GetDatum(call->made);
	isnull[Result_attempts] = false;
	values[Result_task_id] = UUIDPGetDatum(&call->task.id);
	isnull[Result_task_id] = state != RETRY_STATE_PENDING;
	isnull[Result_error] = call->error == NULL;
	if (call->error != NULL)
		values[Result_error] = CStringGetTextDatum(call->error);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, isnull));
}

/* ERROR when the group may not have one more task, as far as is known of its lane. */
static void
expect_room(const Call *call)
{
	const RetryNewTask *task = &call->task;
	int64		hash;

	/* a task for each target, each in a lane of its own */
	if (task->options.fanout != NULL)
	{
		retry_group_expect(&task->options.scene.group, NULL, NULL);
		return;
	}
	hash = DatumGetInt64(task->values[Task_lane_hash]);
	retry_group_expect(&task->options.scene.group, &hash,
					   task->isnull[Task_lane] ? NULL : DatumGetTextPP(task->values[Task_lane]));
}

/* retry.call() */
Datum
retry_call(PG_FUNCTION_ARGS)
{
	Call	   *call = palloc0(sizeof(Call));
	RetryWriter *writer = NULL;

	call->mode = read_mode(fcinfo);
	read_local_limits(fcinfo, call);
	if (call->mode != MODE_REMOTE)
		refuse_function(PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	retry_new_task(fcinfo, RETRY_SIGNATURE_CALL, &call->task);
	if (call->mode != MODE_REMOTE && call->task.options.sql)
		refuse_function(call->task.options.url != NULL ? text_to_cstring(call->task.options.url) :
						call->task.options.scene.url);

	/* what cannot be stored is not tried first */
	if (call->mode != MODE_LOCAL)
	{
		writer = retry_writer_begin("retry.call()");
		expect_room(call);
	}
	if (call->mode != MODE_REMOTE)
	{
		call->scene = retry_config_one_scene(call->task.options.scene.id, GetActiveSnapshot());
		check_local(fcinfo, call);
		if (!call->scene->paused && retry_enabled && !goes_to_all(call))
			attempt_here(call);
	}
	if (call->verdict.terminal || call->mode == MODE_LOCAL)
		return make_result(fcinfo, call, call->made > 0 && call->verdict.outcome == RETRY_SUCCEEDED ?
						   RETRY_STATE_SUCCEEDED : RETRY_STATE_DEAD);

	if (call->made > 0)
		call->task.due_at = Max(call->task.due_at, call->verdict.next_due);
	(void) retry_store_new_task(writer, &call->task);
	retry_writer_end(writer);
	return make_result(fcinfo, call, RETRY_STATE_PENDING);
}
