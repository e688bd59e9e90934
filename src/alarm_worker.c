/*
 * alarm_worker.c
 *		The worker that looks at alarms, and when dispatcher 0 starts it.
 *
 * What fires and what of it is news is SQL's to find out (see
 * retry.look_at_alarms() in the install script), from what is counted anyway;
 * that takes locks, which a dispatcher must never wait for.  So a short-lived
 * worker does it, and a dispatcher only knows whether there are rules, and
 * whether it is time.  Where nothing fires or waits, and nothing has happened
 * since the last look, there is none: a machine at rest costs a comparison.
 *
 * The state of an alarm and the tasks that tell of it are one transaction, so
 * that each is told once, whatever crashes.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "alarm.h"
#include "event.h"
#include "group_limits.h"
#include "guc.h"
#include "schedule.h"
#include "statement.h"
#include "table_read.h"
#include "worker.h"

#define LOCKED_US		(100 * 1000)	/* when the rules are locked */

PGDLLEXPORT void retry_alarms_main(Datum arg);

/* ---------------------------------------------------------------- when */

static uint64 seen_generation = PG_UINT64_MAX;
static TimestampTz next_look = DT_NOEND;
static uint64 seen_activity = 0;	/* when it was last looked */

static BackgroundWorkerHandle *handle = NULL;

TimestampTz
retry_alarms_next(void)
{
	return handle != NULL ? DT_NOEND : next_look;
}

/* Are there rules?  False, with "any" as it was, when they are locked. */
static bool
read_rules(Snapshot snapshot, bool *any)
{
	RetryTableRead table = {0};

	if (!retry_table_read_begin(&table, "alarm_rule", 1, snapshot))
		return false;
	*any = retry_table_read_next(&table);
	retry_table_read_end(&table);
	return true;
}

/* A number that is another one when something was enqueued or sent. */
static uint64
activity(RetryDatabase *db)
{
	RetryWorker *workers = palloc(sizeof(RetryWorker) * retry_shmem_max_workers());
	int			count = retry_shmem_workers(MyDatabaseId, workers);
	uint64		sum = pg_atomic_read_u64(&db->config_generation) +
	pg_atomic_read_u64(&db->disabled_generation);

	for (int i = 0; i < count; i++)
		sum += workers[i].attempts;
	for (int i = 0; i < RETRY_LEAVES; i++)
		sum += pg_atomic_read_u64(&db->leaf_xid[i]);
	pfree(workers);
	return sum;
}

static void
start_worker(void)
{
	char		name[BGW_MAXLEN];

	retry_worker_ends_with_us(&handle);
	snprintf(name, sizeof(name), "retry alarms for database %u", MyDatabaseId);
	handle = retry_worker_start(name, "retry alarms", "retry_alarms_main",
								ObjectIdGetDatum(MyDatabaseId), NULL, 0);
}

void
retry_alarms_consider(Snapshot snapshot, RetryDatabase *db, uint64 generation, TimestampTz now)
{
	TimestampTz interval = (TimestampTz) retry_alarm_interval_ms * 1000;
	uint64		active;

	if (!retry_worker_ended(&handle) && handle != NULL)
		return;
	if (generation != seen_generation)
	{
		bool		any = db->alarms_watched;

		if (read_rules(snapshot, &any))
		{
			seen_generation = generation;
			next_look = any ? now : DT_NOEND;
		}
		else
			next_look = now + LOCKED_US;
		if (any && !db->alarms_watched)
			db->alarms_at = now;
		db->alarms_watched = any;
	}
	if (!db->alarms_watched)
		return;

	/* the clock may have been set back */
	next_look = Min(next_look, now + interval);
	if (now < next_look)
		return;
	next_look = now + interval;
	active = activity(db);
	if (db->alarms_rest && active == seen_activity)
		return;
	seen_activity = active;
	if (db->alarms_rest)
		db->alarms_at = now;	/* until now there was nothing to look at */
	db->alarms_rest = false;
	start_worker();
}

/* ---------------------------------------------------------------- the worker */

/* A message, as SQL has made it; palloc'd. */
typedef struct Message
{
	RetryScheduled what;
	Datum		rules;			/* int[] */
} Message;

static Message *
read_messages(TimestampTz now, int *count)
{
	Oid			type = TIMESTAMPTZOID;
	Datum		value = TimestampTzGetDatum(now);
	uint64		n = retry_statement("SELECT * FROM retry.look_at_alarms($1)", 1, &type, &value, NULL, SPI_OK_SELECT);
	SPITupleTable *table = SPI_tuptable;
	Message    *messages = palloc0(Max(n, 1) * sizeof(Message));

	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	row = table->vals[i];
		bool		isnull;

		messages[i].what.owner = DatumGetObjectId(SPI_getbinval(row, table->tupdesc, 1, &isnull));
		messages[i].what.target = DatumGetTextPCopy(SPI_getbinval(row, table->tupdesc, 2, &isnull));
		messages[i].what.payload = DatumGetJsonbPCopy(SPI_getbinval(row, table->tupdesc, 3, &isnull));
		messages[i].rules = PointerGetDatum(DatumGetArrayTypePCopy(SPI_getbinval(row, table->tupdesc, 4, &isnull)));
	}
	SPI_freetuptable(table);
	*count = (int) n;
	return messages;
}

/* Says in the state of its alarms, and in the log, why a message was not made. */
static void
note_failure(const Message *message, const ErrorData *error)
{
	Oid			types[2] = {INT4ARRAYOID, TEXTOID};
	Datum		values[2] = {message->rules, CStringGetTextDatum(error->message)};
	RetryEvent	event = {.kind = RETRY_EVENT_ALARM_UNTOLD};

	/* it may be so each time: an event when it begins, or is something else */
	if (retry_statement("UPDATE retry.alarm_state SET error = $2 WHERE rule_id = ANY ($1) AND error IS DISTINCT FROM $2",
						2, types, values, NULL, SPI_OK_UPDATE) > 0)
	{
		event.detail = psprintf("to %s: %s", text_to_cstring(message->what.target), error->message);
		(void) retry_event_store(&event, false);
	}
	ereport(LOG,
			(errmsg("retry: a message about alarms could not be enqueued for \"%s\": %s",
					text_to_cstring(message->what.target), error->message)));
}

/* One look; true when nothing can change before something happens. */
static bool
look(void)
{
	TimestampTz now = GetCurrentTimestamp();
	Message    *messages;
	int			count;
	bool		rest;
	bool		isnull;

	messages = read_messages(now, &count);
	for (int i = 0; i < count; i++)
	{
		pg_uuid_t	id;
		ErrorData  *error = retry_schedule_enqueue(&messages[i].what, now, &id);

		if (error != NULL)
			note_failure(&messages[i], error);
	}
	(void) retry_statement("SELECT retry.alarms_rest()", 0, NULL, NULL, NULL, SPI_OK_SELECT);
	rest = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	return rest;
}

/* Entry point; the argument is the database's OID. */
void
retry_alarms_main(Datum arg)
{
	MemoryContext context;
	RetryDatabase *db;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	retry_pin_settings();
	retry_group_exempt();
	db = retry_shmem_database();
	context = AllocSetContextCreate(TopMemoryContext, "retry alarms", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		bool		rest = false;

		retry_worker_begin_spi("looking at alarms");
		if (OidIsValid(get_extension_oid("retry", true)))
			rest = look();
		retry_worker_commit_spi();
		if (db != NULL)
		{
			db->alarms_at = GetCurrentTimestamp();
			db->alarms_rest = rest;
		}
	}
	PG_CATCH();
	{
		ErrorData  *error = retry_worker_recover(context);

		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ereport(LOG,
					(errmsg("retry: alarms are looked at again after an error: %s", error->message),
					 error->detail ? errdetail_internal("%s", error->detail) : 0));
	}
	PG_END_TRY();
	proc_exit(0);
}
