/*
 * session_http.c
 *		One HTTP exchange at a time, in the session of whoever wants it.
 *
 * A session may be cancelled, timed out or terminated at any moment, and goes
 * on to do other things afterwards.  So all waiting is done here, in loops that
 * look for interrupts; an exchange that is given up leaves nothing under way;
 * and the client, made at the first call of a session, keeps a few connections
 * for the next and goes with the process.  Nothing here knows of tasks.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "http_settings.h"
#include "session_http.h"

/* Connections that a session keeps open for its next call. */
#define KEPT_CONNECTIONS	4

/* Descriptors besides: the event loop's, curl's own, the resolver's. */
#define OTHER_DESCRIPTORS	6

static RetryHttp *client = NULL;
static WaitEventSet *events = NULL;
static const RetryHttpResult *kept = NULL;

/* At the end of the process, also after a FATAL in the middle of an exchange. */
static void
close_client(int code, Datum arg)
{
	retry_http_destroy(client);
	client = NULL;
}

/* The client, with the settings of now, and what to wait on for it. */
static void
open_client(void)
{
	RetryHttpOptions options;
	char		error[256];

	retry_http_settings(&options);
	options.max_in_flight = 1;
	options.max_connections = KEPT_CONNECTIONS;
	if (client == NULL)
	{
		client = retry_http_create(&options, error, sizeof(error));
		if (client == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("the HTTP client cannot be started: %s", error)));
		for (int i = 0; i < KEPT_CONNECTIONS + OTHER_DESCRIPTORS; i++)
			ReserveExternalFD();
		on_proc_exit(close_client, 0);
	}
	else if (!retry_http_configure(client, &options, error, sizeof(error)))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("the HTTP client cannot be given its settings: %s", error)));
	if (events == NULL)
	{
		WaitEventSet *set = retry_create_wait_event_set(3);

		AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		AddWaitEventToSet(set, WL_SOCKET_READABLE, retry_http_fd(client), NULL, NULL);
		events = set;
	}
}

/* Until the transfer under way has ended. */
static void
wait_for_end(void)
{
	for (;;)
	{
		WaitEvent	event[2];

		retry_http_run(client);
		kept = retry_http_next(client);
		if (kept != NULL)
			break;
		if (WaitEventSetWait(events, retry_http_timeout_ms(client), event, lengthof(event),
							 PG_WAIT_EXTENSION) > 0)
			ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

const RetryHttpResult *
retry_session_exchange(const RetryHttpRequest *request)
{
	RetryHttpRequest tagged = *request;
	char		error[RETRY_HTTP_ERROR_TEXT];

	retry_session_release();
	open_client();
	tagged.tag = &kept;
	if (!retry_http_start(client, &tagged, error, sizeof(error)))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("the request could not be started: %s", error)));
	PG_TRY();
	{
		wait_for_end();
	}
	PG_CATCH();
	{
		(void) retry_http_cancel(client, &kept);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return kept;
}

void
retry_session_release(void)
{
	if (kept != NULL)
		retry_http_release(client, kept);
	kept = NULL;
}

void
retry_session_sleep(int64 us)
{
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		instr_time	now;
		int64		left;

		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		left = us - (int64) INSTR_TIME_GET_MICROSEC(now);
		if (left <= 0)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) ((left + 999) / 1000), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}
