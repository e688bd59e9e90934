/*
 * executor.c
 *		The worker that runs functions, as the role that enqueued the task.
 *
 * A job goes through two transactions.  The first reads the task's row again
 * and finds out how the function is to be called: whatever is not as it was
 * when the job was handed over makes it go back, and the facts decide.  The
 * second is the function's own.  It calls the function, judges what it returned
 * as an answer of a receiver is judged, and inserts the attempt; so the attempt
 * is recorded if and only if the function's effects are, and no crash between
 * the two can make it run twice.  A function that fails is undone whole, and
 * the dispatcher records the failure.
 *
 * The function's transaction belongs to the role entirely, its commit included:
 * the session's user is that role, and what would give more rights (SET ROLE,
 * SET SESSION AUTHORIZATION) is refused until after the commit, so whatever is
 * deferred until then, triggers and held cursors, runs as the role too.  Hence
 * no restricted operation is needed, which would forbid deferred constraints
 * and temporary tables.  Only the attempt is inserted by retry itself; and what
 * a session could keep is thrown away afterwards.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "amend.h"
#include "callback.h"
#include "config.h"
#include "crash.h"
#include "extension.h"
#include "guc.h"
#include "judge.h"
#include "pool.h"
#include "record.h"
#include "request.h"
#include "settle.h"
#include "shmem.h"
#include "sqltarget.h"
#include "store.h"
#include "worker.h"

#define IDLE_MS			(60 * 1000) /* without a job, until it leaves */
#define LIFE_US			(10 * USECS_PER_MINUTE) /* then it leaves, to take up
												 * changed settings of the
												 * database */

/* SQL's advisory locks use 1 and 2 here, dispatchers 0x52, upkeep 0x53. */
#define TASK_LOCK_CLASS	0x54

PGDLLEXPORT void retry_executor_main(Datum arg);

/* A job that is being done.  What it points to is in its memory context. */
typedef struct Work
{
	RetryJob	job;
	LOCKTAG		lock;			/* held by whoever works at the task */
	RetryPrepared prepared;
	RetryScene *scene;
	RetryEnded	told;			/* of this, who is to be told */
	int64		previous_delay_us;
	RetrySqlTarget target;
	RetrySqlReturns returns;
	bool		superuser;		/* is the role one? */
	int64		began;			/* of the function; retry_monotonic_us */
	bool		recording;		/* the function itself is over */
	Jsonb	   *answer;			/* NULL: SQL's null */
} Work;

static MemoryContext job_context = NULL;
static RetryConfig *config = NULL;
static uint64 config_generation = 0;	/* that it was read at */
static bool config_known = false;

/* The first transaction */

static void
commit(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(job_context);
}

/* The scene as it is now; NULL when that cannot be read at the moment. */
static RetryScene *
current_scene(int32 scene_id, uint64 generation)
{
	if (!config_known || generation != config_generation)
	{
		config_known = retry_config_read(config, GetActiveSnapshot());
		config_generation = generation;
	}
	return retry_config_scene(config, scene_id);
}

/*
 * One at a time works at a task, even while a dispatcher that is new does not
 * know of an executor that its predecessor left behind.
 */
static bool
lock_task(Work *work)
{
	const pg_uuid_t *id = &work->job.entry.pos.id;
	uint32		key[2];

	memcpy(key, id->data + UUID_LEN - sizeof(key), sizeof(key));
	SET_LOCKTAG_ADVISORY(work->lock, MyDatabaseId, key[0], key[1], TASK_LOCK_CLASS);
	return LockAcquire(&work->lock, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* Reads the row; false when the task is not what it was when it was handed over. */
static bool
read_task(Work *work, RetryReader *reader, uint64 generation)
{
	const RetryEntry *entry = &work->job.entry;
	int			leaf = entry->leaf;
	TupleTableSlot *slot = retry_find_task(reader, &entry->pos.id, &entry->tid, &leaf);
	MemoryContext old;
	RetryProbe	probe;
	bool		cancelled;
	bool		good;

	if (slot == NULL || leaf != entry->leaf)
		return false;
	work->scene = current_scene(work->job.scene_id, generation);
	if (work->scene == NULL)
		return false;
	old = MemoryContextSwitchTo(job_context);
	retry_changes_apply_slot(retry_task_changes(reader, leaf, &entry->pos.id, &cancelled), slot);
	good = retry_request_prepare(slot, work->scene, entry->attempts + 1, work->job.started_at,
								 &work->prepared);
	MemoryContextSwitchTo(old);
	retry_callback_note(job_context, slot, work->scene, &work->told);

	retry_probe_task(reader, leaf, &entry->pos.id, &probe);
	if (probe.attempts > 0 && !probe.terminal)
		work->previous_delay_us = Max(probe.next_due - probe.finished_at, 0);

	/* what is locked reads as if there were nothing */
	if (retry_reader_leaf_blocked(reader, leaf))
		return false;
	return good && probe.attempts == entry->attempts && !probe.terminal && !probe.cancelled &&
		retry_is_sql_target(work->prepared.http.url);
}

/* Finds out how, and as whom, the function is to be called. */
static void
find_function(Work *work)
{
	RetryMistake mistake;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(work->job.role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the role that enqueued the task no longer exists (OID %u)", work->job.role)));
	work->superuser = superuser_arg(work->job.role);
	if (!retry_sql_target_parse(work->prepared.http.url, &work->target, &mistake) ||
		!retry_sql_target_find(&work->target, work->job.role, &work->returns, &mistake))
		ereport(ERROR,
				(errcode(mistake.sqlstate),
				 errmsg("%s", mistake.message)));
}

static bool
look_up(Work *work)
{
	uint64		generation = pg_atomic_read_u64(&retry_shmem_database()->config_generation);
	RetryReader *reader;
	bool		good;

	retry_worker_begin("looking up a task");
	good = retry_extension_version() != NULL;
	if (good)
	{
		reader = retry_reader_begin(GetActiveSnapshot(), true);
		good = read_task(work, reader, generation);
		retry_reader_end(reader);
	}
	if (good)
	{
		/* from here on it has been tried: what fails is its failure */
		retry_pool_begin();
		find_function(work);
	}
	commit();
	return good;
}

/* The second transaction */

/* The body, which is UTF-8 always; SQL's null when there is none. */
static Datum
payload(const Work *work, bool *isnull)
{
	const RetryHttpRequest *request = &work->prepared.http;
	char	   *text;

	*isnull = !request->has_body;
	if (*isnull)
		return (Datum) 0;
	text = pnstrdup(request->body, request->body_len);
	return DirectFunctionCall1(jsonb_in,
							   CStringGetDatum(pg_any_to_server(text, request->body_len, PG_UTF8)));
}

static char *
statement(const Work *work)
{
	const char *name = work->target.text + strlen(RETRY_SQL_PREFIX);

	switch (work->returns)
	{
		case RETRY_SQL_VOID:
			return psprintf("SELECT %s($1)", name);
		case RETRY_SQL_SET:
			return psprintf("SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(r)) FROM %s($1) AS r", name);
		default:
			return psprintf("SELECT pg_catalog.to_jsonb(%s($1))", name);
	}
}

/* Calls the function; all that it has deferred is done before this returns. */
static void
call(Work *work)
{
	ConstraintsSetStmt *immediate = makeNode(ConstraintsSetStmt);
	char	   *sql = statement(work);
	Oid			type = JSONBOID;
	bool		isnull;
	Datum		value = payload(work, &isnull);
	char		null = isnull ? 'n' : ' ';

	debug_query_string = sql;
	pgstat_report_activity(STATE_RUNNING, sql);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args(sql, 1, &type, &value, &null, false, 0) != SPI_OK_SELECT ||
		SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("%s gave no single result", sql)));
	if (work->returns != RETRY_SQL_VOID)
	{
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		if (!isnull)
		{
			MemoryContext old = MemoryContextSwitchTo(job_context);

			work->answer = DatumGetJsonbPCopy(value);
			MemoryContextSwitchTo(old);
		}
	}
	PopActiveSnapshot();
	SPI_finish();
	AfterTriggerSetState(immediate);
	debug_query_string = NULL;
}

/* What is kept of the answer: its text in UTF-8, as much as of any response. */
static void
keep_response(const Work *work, RetryEnded *ended)
{
	StringInfoData text;
	char	   *utf8;

	ended->response = "";
	if (work->returns == RETRY_SQL_VOID)
		return;
	initStringInfo(&text);
	if (work->answer == NULL)
		appendStringInfoString(&text, "null");
	else
		JsonbToCString(&text, &work->answer->root, VARSIZE(work->answer));
	utf8 = pg_server_to_any(text.data, text.len, PG_UTF8);
	ended->response = utf8;
	ended->response_len = Min(utf8 == text.data ? text.len : strlen(utf8), retry_max_response_bytes);
}

/*
 * The verdict over what the function returned, by the rules of its scene; which
 * knows nothing of what settles a branch, that has done so when it returns.
 */
static void
judge(const Work *work, RetryEnded *ended)
{
	RetryPart	part = retry_part(ended->on_dead);
	bool		settles = part == RETRY_PART_MUST && strcmp(work->target.text, RETRY_SETTLE_TARGET) == 0;
	RetryAnswer answer = {.exchange = RETRY_EXCHANGE_RETURNED,.json = work->answer};
	RetryAttemptAt at = {
		.attempt_no = ended->entry.attempts + 1,
		.pendings = ended->entry.pendings,
		.ended_at = ended->finished_at,
		.previous_delay_us = work->previous_delay_us
	};
	RetryLimits limits;
	RetryZone	zone;

	retry_judge_limits(work->scene, work->prepared.max_attempts, work->prepared.expires_at,
					   work->prepared.backoff, &limits, &zone);
	ended->verdict = retry_judge_part(part, settles ? NULL : work->scene, &limits, &answer, &at,
									  &ended->decision);
	ended->pendings = retry_policy_pendings(at.pendings, ended->verdict.outcome);
	ended->error = ended->verdict.why != NULL ? ended->verdict.why : "";
}

/*
 * Inserts the attempt, with the rights and the search path of retry itself, not
 * those that the function may have left.
 */
static void
record(Work *work, RetryJobResult *result)
{
	RetryEnded	ended = work->told;
	int			guc_level = NewGUCNestLevel();
	int			sec_context;
	Oid			role;

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&role, &sec_context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, sec_context);

	ended.entry = work->job.entry;
	ended.lane_hash = work->job.lane_hash;
	ended.ordered = work->job.ordered;
	ended.scene_id = work->job.scene_id;
	ended.started_at = work->job.started_at;
	ended.finished_at = GetCurrentTimestamp();
	ended.duration_us = retry_monotonic_us() - work->began;
	ended.remote_ip = "";
	keep_response(work, &ended);
	judge(work, &ended);
	retry_record_here(&ended, config);

	SetUserIdAndSecContext(role, sec_context);
	AtEOXact_GUC(true, guc_level);

	result->outcome = ended.verdict.outcome;
	result->terminal = ended.verdict.terminal;
	result->next_due = ended.verdict.next_due;
	result->finished_at = ended.finished_at;
	result->duration_us = ended.duration_us;
}

static void
run(Work *work, RetryJobResult *result)
{
	int			saved = synchronous_commit;

	work->began = retry_monotonic_us();
	SetSessionAuthorization(work->job.role, work->superuser);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SetUserIdAndSecContext(work->job.role, SECURITY_LOCAL_USERID_CHANGE);
	enable_timeout_after(STATEMENT_TIMEOUT, work->job.timeout_ms);

	call(work);
	if (retry_part_is_operation(work->told.on_dead) && retry_judge_returned(work->answer, "failure"))
		ereport(ERROR,
				(errcode(RETRY_ERRCODE_FAILURE),
				 errmsg("the function returned failure")));
	work->recording = true;
	record(work, result);

	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
	retry_pool_will_commit(result);

	/* never wait for a standby: the function has been called */
	synchronous_commit = SYNCHRONOUS_COMMIT_LOCAL_FLUSH;
	CommitTransactionCommand();
	synchronous_commit = saved;
}

/* Around them */

/* What has gone wrong, for the dispatcher; the transaction is over. */
static void
note_error(RetryJobResult *result, const ErrorData *error, int64 began)
{
	char	   *utf8 = pg_server_to_any(error->message, strlen(error->message), PG_UTF8);

	result->end = RETRY_JOB_FAILED;
	result->sqlstate = error->sqlerrcode;
	result->finished_at = GetCurrentTimestamp();
	result->duration_us = began != 0 ? retry_monotonic_us() - began : 0;
	snprintf(result->message, sizeof(result->message), "%s: %s",
			 unpack_sql_state(error->sqlerrcode), utf8);
}

/* True when the attempt is in the store already, by somebody else's doing. */
static bool
is_recorded_already(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION && error->schema_name != NULL &&
		strcmp(error->schema_name, "retry") == 0 && error->table_name != NULL &&
		strncmp(error->table_name, "attempt_", 8) == 0;
}

/* Nothing that the function has set or taken stays, for the next one to find. */
static void
clean_up(void)
{
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, 0);
	SetSessionAuthorization(BOOTSTRAP_SUPERUSERID, true);
	debug_query_string = NULL;
	disable_all_timeouts(false);
	QueryCancelPending = false;
	StartTransactionCommand();
	PortalHashTableDeleteAll();
	ResetAllOptions();
	DropAllPreparedStatements();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetTempTableNamespace();
	ResetSequenceCaches();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
do_job(const RetryJob *job)
{
	Work		work = {.job = *job};
	RetryJobResult *volatile result;

	MemoryContextReset(job_context);
	MemoryContextSwitchTo(job_context);
	result = palloc0(sizeof(RetryJobResult));
	QueryCancelPending = false;

	PG_TRY();
	{
		if (lock_task(&work) && look_up(&work))
			run(&work, result);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(job_context);
		error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(job_context);
		memset(result, 0, sizeof(RetryJobResult));
		config_known = false;	/* it may have been read again, by what is
								 * undone */
		if (!work.recording || !is_recorded_already(error))
			note_error(result, error, work.began);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	clean_up();
	if (retry_pool_committed() && result->terminal)
		ConditionVariableBroadcast(&retry_shmem_database()->finished);
	retry_pool_finish(result);
}

/*
 * What must not be as the database's settings may have it: a function is called
 * under the rules that retry promises, and else finds what a session would.
 */
static void
pin_settings(void)
{
	static const RetrySetting pinned[] = {
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"transaction_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"idle_session_timeout", "0"},
		{"row_security", "on"},
		{"session_replication_role", "origin"},
	};

	retry_worker_set(pinned, lengthof(pinned));
}

static void
main_loop(void)
{
	int64		start = retry_monotonic_us();
	int64		since = start;	/* without a job */
	RetryJob	job;

	while (!ProcDiePending)
	{
		if (retry_pool_job(&job))
		{
			do_job(&job);
			since = retry_monotonic_us();
			continue;
		}
		if ((retry_pool_unwanted() || retry_monotonic_us() - since >= (int64) IDLE_MS * 1000 ||
			 retry_monotonic_us() - start >= LIFE_US) && retry_pool_leave())
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, IDLE_MS / 4,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		QueryCancelPending = false; /* of what has ended */
		if (ProcDiePending)
			break;
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}

/* Entry point; the argument is the number of its slot. */
void
retry_executor_main(Datum arg)
{
	sigjmp_buf	boundary;
	uint64		ticket;
	Oid			database;

	memcpy(&ticket, MyBgworkerEntry->bgw_extra, sizeof(ticket));
	database = retry_pool_attach(DatumGetInt32(arg), ticket);
	if (!OidIsValid(database))
		proc_exit(0);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	pin_settings();
	if (retry_shmem_database() == NULL)
		proc_exit(0);
	retry_crash_watch_executor(DatumGetInt32(arg));
	job_context = AllocSetContextCreate(TopMemoryContext, "retry job", ALLOCSET_DEFAULT_SIZES);
	config = retry_config_create();

	/* what goes wrong outside of a job ends the process; the job is not lost */
	if (sigsetjmp(boundary, 1) != 0)
	{
		HOLD_INTERRUPTS();
		error_context_stack = NULL;
		EmitErrorReport();
		AbortOutOfAnyTransaction();
		proc_exit(0);
	}
	PG_exception_stack = &boundary;
	main_loop();
	proc_exit(0);
}
