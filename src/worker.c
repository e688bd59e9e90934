/*
 * worker.c
 *		What all background workers of retry have in common.
 *
 * The launcher, dispatchers and sessions start workers, each of another kind
 * and with another argument, but all under the same conditions.  Workers that
 * do their jobs by SQL begin and end their transactions alike, and go on
 * alike after an error.  So that none of them forgets a setting or a step, all
 * of that is here once.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "worker.h"

/* The memory context that was current before the transaction. */
static MemoryContext outside = NULL;

BackgroundWorkerHandle *
retry_worker_start(const char *name, const char *type, const char *function, Datum arg,
				   const void *extra, Size extra_size)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	Assert(extra_size <= BGW_EXTRALEN);
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_name, name, BGW_MAXLEN);
	strlcpy(worker.bgw_type, type, BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, RETRY_LIBRARY, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	worker.bgw_main_arg = arg;
	worker.bgw_notify_pid = MyProcPid;
	if (extra_size > 0)
		memcpy(worker.bgw_extra, extra, extra_size);
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		handle = NULL;
	MemoryContextSwitchTo(old);
	return handle;
}

bool
retry_worker_ended(BackgroundWorkerHandle **handle)
{
	pid_t		pid;

	if (*handle == NULL || GetBackgroundWorkerPid(*handle, &pid) != BGWH_STOPPED)
		return false;
	pfree(*handle);
	*handle = NULL;
	return true;
}

#define MAX_KEPT	4			/* upkeep, schedules */

static BackgroundWorkerHandle **kept[MAX_KEPT];
static int	nkept = 0;

void
retry_worker_end_ours(void)
{
	for (int i = 0; i < nkept; i++)
	{
		BackgroundWorkerHandle *handle = *kept[i];

		if (handle != NULL)
			TerminateBackgroundWorker(handle);
	}
}

static void
end_ours_at_exit(int code, Datum arg)
{
	retry_worker_end_ours();
}

void
retry_worker_ends_with_us(BackgroundWorkerHandle **handle)
{
	for (int i = 0; i < nkept; i++)
	{
		if (kept[i] == handle)
			return;
	}
	Assert(nkept < MAX_KEPT);
	if (nkept == 0)
		before_shmem_exit(end_ours_at_exit, (Datum) 0);
	kept[nkept++] = handle;
}

void
retry_worker_set(const RetrySetting *settings, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (GetConfigOption(settings[i].name, true, false) != NULL)
			SetConfigOption(settings[i].name, settings[i].value, PGC_SUSET, PGC_S_OVERRIDE);
	}
}

/*
 * What a DBA may set for a database or a role must not change how the worker
 * works: whatever ALTER DATABASE says, these are its own.
 */
void
retry_pin_settings(void)
{
	static const RetrySetting pinned[] = {
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"transaction_timeout", "0"},
		{"statement_timeout", "0"},
		{"lock_timeout", "50ms"},
		{"idle_in_transaction_session_timeout", "0"},
		{"idle_session_timeout", "0"},
		{"synchronous_commit", "local"},
		{"row_security", "off"},
		{"session_replication_role", "origin"},
		{"jit", "off"},
		{"search_path", "pg_catalog, pg_temp"},
		{"client_min_messages", "error"},
		{"log_min_duration_statement", "-1"},
	};

	retry_worker_set(pinned, lengthof(pinned));
}

void
retry_worker_begin(const char *activity)
{
	pgstat_report_activity(STATE_RUNNING, activity);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
retry_worker_begin_spi(const char *activity)
{
	outside = CurrentMemoryContext;
	retry_worker_begin(activity);
	SPI_connect();
}

void
retry_worker_commit_spi(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(outside);
	pgstat_report_stat(false);
	CHECK_FOR_INTERRUPTS();
}

ErrorData *
retry_worker_recover(MemoryContext context)
{
	ErrorData  *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(context);
	RESUME_INTERRUPTS();
	return error;
}

ErrorData *
retry_worker_store(bool (*store) (void *arg), void *arg, bool *stored)
{
	MemoryContext caller = CurrentMemoryContext;
	int			saved = synchronous_commit;
	ErrorData  *volatile error = NULL;
	volatile bool result = false;

	PG_TRY();
	{
		synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		result = store(arg);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		error = retry_worker_recover(caller);
	}
	PG_END_TRY();
	synchronous_commit = saved;
	MemoryContextSwitchTo(caller);
	pgstat_report_stat(false);
	*stored = result && error == NULL;
	return error;
}
