/*
 * retry_health.c
 *		retry.health(): what is well and what is not, and what to do.
 *
 * Delivery can stand still for reasons that no error message will ever name,
 * because nobody did anything wrong at that moment: the library is not
 * preloaded, there are too few worker slots, the database is a copy.  Each
 * such reason is one row here, told from shared memory and a few index probes,
 * so that monitoring may ask every few seconds and any role may ask at all.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "config.h"
#include "crash.h"
#include "extension.h"
#include "group_use.h"
#include "guc.h"
#include "quarantine.h"
#include "scene_stats.h"
#include "shmem.h"
#include "statement.h"
#include "store.h"

/* A dispatcher that has not turned for so long hangs, whatever poll_interval. */
#define TURN_LATE_MS		(10 * 1000)

/* What is due for longer than this should have been sent. */
#define DUE_LATE_MS			(60 * 1000)

/* The lack of an executor is noted every second while it lasts. */
#define EXECUTORS_SHORT_MS	(5 * 1000)

/* Upkeep is done every hour, and may take its time. */
#define UPKEEP_LATE_MS		(3 * 60 * 60 * 1000)

/* Alarms are looked at every retry.alarm_interval, and a look takes no minute. */
#define ALARMS_LATE_MS		(60 * 1000)

/* Statistics are stored every minute. */
#define STATISTICS_LATE_MS	(10 * 60 * 1000)

/* A pause that holds tasks back for so long may have been forgotten. */
#define PAUSE_LATE_MS		(24 * 60 * 60 * 1000)

/* How many of a leaf's oldest tasks are looked at for held ones. */
#define TASKS_LOOKED_AT		100

/* Of a limit. */
#define LIMIT_NEAR			0.8

#define HEALTH_COLUMNS		4

typedef enum Status
{
	OK, WARN, CRITICAL
} Status;

static const char *const status_names[] = {"ok", "warning", "critical"};

PG_FUNCTION_INFO_V1(retry_health);

static void
report(ReturnSetInfo *result, const char *check, Status status, const char *detail, const char *hint)
{
	Datum		values[HEALTH_COLUMNS];
	bool		nulls[HEALTH_COLUMNS] = {0};

	values[0] = CStringGetTextDatum(check);
	values[1] = CStringGetTextDatum(status_names[status]);
	values[2] = CStringGetTextDatum(detail);
	nulls[3] = status == OK || hint == NULL;
	if (!nulls[3])
		values[3] = CStringGetTextDatum(hint);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
check_version(ReturnSetInfo *result)
{
	char	   *version = retry_extension_version();

	if (version != NULL && strcmp(version, RETRY_VERSION) == 0)
		report(result, "version", OK, psprintf("extension and library are %s", version), NULL);
	else
		report(result, "version", CRITICAL,
			   psprintf("the extension is %s, the library is %s",
						version != NULL ? version : "not there", RETRY_VERSION),
			   "ALTER EXTENSION retry UPDATE, or restart the server if the library was replaced; nothing is delivered until they agree");
}

/* The settings and processes without which nothing is delivered. */
static bool
check_preload(ReturnSetInfo *result)
{
	if (!retry_shmem_ready())
	{
		report(result, "preload", CRITICAL,
			   "the library is not preloaded: tasks are stored and not delivered",
			   "Add retry to shared_preload_libraries and restart the server");
		return false;
	}
	report(result, "preload", OK, "the library is preloaded", NULL);
	return true;
}

static void
check_enabled(ReturnSetInfo *result)
{
	if (retry_enabled)
		report(result, "enabled", OK, "retry.enabled is on", NULL);
	else
		report(result, "enabled", WARN, "retry.enabled is off: nothing is sent",
			   "ALTER DATABASE ... SET retry.enabled = on, or ALTER SYSTEM, lets delivery go on");
}

static void
check_launcher(ReturnSetInfo *result)
{
	if (RecoveryInProgress())
		report(result, "launcher", OK, "the server is a standby: it starts when that is promoted", NULL);
	else if (retry_shmem_launcher_pid() != 0)
		report(result, "launcher", OK,
			   psprintf("running as process %d", (int) retry_shmem_launcher_pid()), NULL);
	else
		report(result, "launcher", CRITICAL, "the launcher is not running",
			   "It starts again within seconds, unless max_worker_processes is too low");
}

static void
check_slots(ReturnSetInfo *result)
{
	int			starved = retry_shmem_starved();

	if (starved == 0)
		report(result, "worker_slots", OK,
			   psprintf("max_worker_processes = %d is enough", max_worker_processes), NULL);
	else
		report(result, "worker_slots", CRITICAL,
			   psprintf("dispatchers of %d database(s) wait for a free background worker slot; max_worker_processes is %d",
						starved, max_worker_processes),
			   "Raise max_worker_processes: one for the launcher, and retry.dispatchers for each database with the extension; then restart");
}

/* Do functions wait for what will not come by itself? */
static void
check_executors(ReturnSetInfo *result)
{
	RetryDatabase *db = retry_shmem_database();
	TimestampTz short_at = db != NULL ? db->executors_short_at : 0;

	if (short_at == 0 ||
		TimestampDifferenceExceeds(short_at, GetCurrentTimestamp(), EXECUTORS_SHORT_MS))
		report(result, "sql_workers", OK,
			   psprintf("retry.sql_workers = %d is enough", retry_sql_workers), NULL);
	else if (retry_sql_workers == 0)
		report(result, "sql_workers", WARN,
			   "tasks of sql: targets wait, since retry.sql_workers is 0",
			   "Set retry.sql_workers and reload the configuration");
	else
		report(result, "sql_workers", CRITICAL,
			   psprintf("tasks of sql: targets wait for an executor, which finds no free background worker slot; max_worker_processes is %d",
						max_worker_processes),
			   "Raise max_worker_processes by retry.sql_workers for each database that uses sql: targets; then restart");
}

static void
check_dispatchers(ReturnSetInfo *result, const RetryWorker *workers, int count)
{
	RetryDatabase *db = retry_shmem_database();
	int			running = 0;

	for (int i = 0; i < count; i++)
		running += workers[i].phase == RETRY_WORKER_RUNNING;

	if (RecoveryInProgress())
		report(result, "dispatchers", OK, "the server is a standby, which delivers nothing", NULL);
	else if (running == retry_dispatchers)
		report(result, "dispatchers", OK, psprintf("%d running", running), NULL);
	else if (db != NULL && db->state == RETRY_DB_EXCLUDED)
		report(result, "dispatchers", CRITICAL,
			   "retry.databases leaves this database out: nothing is delivered",
			   "Add the database to retry.databases and reload the configuration");
	else
		report(result, "dispatchers", running == 0 ? CRITICAL : WARN,
			   psprintf("%d running, %d configured", running, retry_dispatchers),
			   "Dispatchers start within seconds; the server's log says why they do not");
}

/* Have dispatchers or executors crashed lately, and what was under way then? */
static void
check_crashes(ReturnSetInfo *result)
{
	int			pause = retry_crash_pause_ms(MyDatabaseId);
	RetryCrashes crashes;
	RetrySuspects suspects;
	char	   *detail;

	retry_crash_summary(MyDatabaseId, &crashes);
	retry_quarantine_count(&suspects);
	if (crashes.n == 0)
	{
		report(result, "crashes", OK, "no dispatcher or executor has crashed in the last day", NULL);
		return;
	}
	detail = psprintf("%d crash(es) of dispatchers or executors in the last day, the last at %s; %d attempts were under way then, %d of them put aside",
					  crashes.n, timestamptz_to_str(crashes.last.at), suspects.suspected, suspects.condemned);
	if (pause > 0)
		report(result, "crashes", CRITICAL,
			   psprintf("%s; the next start of the dispatchers waits for %d ms", detail, pause),
			   "The server's log has the crashes; what is quarantined in retry.dead_letters is not the whole cause. ALTER SYSTEM SET retry.enabled = off stops delivery");
	else
		report(result, "crashes", WARN, detail,
			   "See the server's log, and retry.dead_letters with reason = 'quarantined'; retry.replay() tries a task again");
}

/* Is there memory for what the dispatchers show? */
static void
check_shown(ReturnSetInfo *result, const RetryWorker *workers, int count)
{
	bool		failed = false;

	for (int i = 0; i < count; i++)
		failed |= workers[i].phase == RETRY_WORKER_RUNNING &&
			(workers[i].lanes_shown.failed || workers[i].targets_shown.failed);
	if (!failed)
		report(result, "lanes_shown", OK, "retry.lanes shows all lanes in memory", NULL);
	else
		report(result, "lanes_shown", WARN, "retry.lanes lacks lanes: no dynamic shared memory can be had; delivery goes on",
			   "See the server's log, and how much room there is for dynamic_shared_memory_type (/dev/shm)");
}

/* Do the dispatchers turn, and do they keep up? */
static void
check_work(ReturnSetInfo *result, const RetryWorker *workers, int count)
{
	TimestampTz now = GetCurrentTimestamp();
	int			late_ms = TURN_LATE_MS + 3 * Min(retry_poll_interval_ms, PG_INT32_MAX / 10);
	TimestampTz oldest = now;
	TimestampTz turn = now;

	for (int i = 0; i < count; i++)
	{
		if (workers[i].phase != RETRY_WORKER_RUNNING)
			continue;
		turn = Min(turn, workers[i].last_turn_at != 0 ? workers[i].last_turn_at : workers[i].started_at);
		if (workers[i].oldest_due != 0)
			oldest = Min(oldest, workers[i].oldest_due);
	}

	if (!TimestampDifferenceExceeds(turn, now, late_ms))
		report(result, "turns", OK, "every dispatcher has looked for work lately", NULL);
	else
		report(result, "turns", CRITICAL,
			   psprintf("a dispatcher last looked for work at %s", timestamptz_to_str(turn)),
			   "See what it waits for in pg_stat_activity; pg_terminate_backend() starts it anew and loses nothing");

	if (!TimestampDifferenceExceeds(oldest, now, DUE_LATE_MS))
		report(result, "backlog", OK, "nothing is due for longer than a minute", NULL);
	else
		report(result, "backlog", WARN,
			   psprintf("tasks have been due since %s", timestamptz_to_str(oldest)),
			   "See the receivers' answers in retry.attempts; retry.lane_max_in_flight and retry.max_in_flight limit what is sent at once");
}

/* Does a job of pg_cron call for upkeep?  In words. */
static const char *
upkeep_jobs(void)
{
	Oid			schema = get_namespace_oid("cron", true);
	Oid			job = OidIsValid(schema) ? get_relname_relid("job", schema) : InvalidOid;

	if (!OidIsValid(get_extension_oid("pg_cron", true)) || !OidIsValid(job))
		return "pg_cron is not in this database: dispatchers see to it";
	if (!ConditionalLockRelationOid(job, AccessShareLock))
		return "the jobs of pg_cron are locked: dispatchers see to it";
	if (retry_statement_as_owner("SELECT FROM cron.job j WHERE j.active AND j.database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
								 " AND j.command OPERATOR(pg_catalog.~*) 'retry[.]maintain'", 0, NULL, NULL, SPI_OK_SELECT) == 0)
		return "no active job of pg_cron calls retry.maintain(): dispatchers see to it";
	return "a job of pg_cron calls retry.maintain(), dispatchers stand in for it";
}

/* Is the store kept in order? */
static void
check_upkeep(ReturnSetInfo *result, const RetryWorker *workers, int count)
{
	RetryDatabase *db = retry_shmem_database();
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz done = db != NULL ? db->upkeep_at : 0;
	TimestampTz since = now;

	for (int i = 0; i < count; i++)
	{
		if (workers[i].phase == RETRY_WORKER_RUNNING)
			since = Min(since, workers[i].started_at);
	}
	if (TimestampDifferenceExceeds(Max(since, done), now, UPKEEP_LATE_MS))
		report(result, "upkeep", WARN,
			   done == 0 ? "upkeep was not done since the server's start" :
			   psprintf("upkeep was last done at %s", timestamptz_to_str(done)),
			   "See the server's log; upkeep needs a free slot of max_worker_processes. CALL retry.maintain() does it now");
	else if (db != NULL && db->upkeep_failed_at != 0)
		report(result, "upkeep", WARN,
			   psprintf("a part of upkeep failed at %s", timestamptz_to_str(db->upkeep_failed_at)),
			   "See the server's log, and \"upkeep failed\" in retry.events; the other parts are done, and all are tried again");
	else if (done == 0)
		report(result, "upkeep", OK, psprintf("upkeep was not due yet; %s", upkeep_jobs()), NULL);
	else
		report(result, "upkeep", OK,
			   psprintf("upkeep was last done at %s, started by %s%s; %s", timestamptz_to_str(done),
						db->upkeep_asked ? "retry.maintain()" : "a dispatcher",
						db->upkeep_blocked ? ", and left what was locked to the next" : "", upkeep_jobs()), NULL);
}

/* Does somebody look whether alarms fire? */
static void
check_alarms(ReturnSetInfo *result, const RetryWorker *workers, int count)
{
	RetryDatabase *db = retry_shmem_database();
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz since = db != NULL ? db->alarms_at : 0;

	for (int i = 0; i < count; i++)
	{
		if (workers[i].phase == RETRY_WORKER_RUNNING)
			since = Max(since, workers[i].started_at);
	}
	if (db == NULL || !db->alarms_watched)
		report(result, "alarms", OK, "there are no rules for alarms", NULL);
	else if (db->alarms_rest ||
			 !TimestampDifferenceExceeds(since, now, ALARMS_LATE_MS + 3 * Min(retry_alarm_interval_ms, PG_INT32_MAX / 10)))
		report(result, "alarms", OK, "alarms are looked at", NULL);
	else
		report(result, "alarms", WARN,
			   psprintf("alarms were not looked at since %s", timestamptz_to_str(since)),
			   "See the server's log; it takes a free slot of max_worker_processes");
}

static void
check_statistics(ReturnSetInfo *result, const RetryWorker *workers, int count)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz since = now;

	for (int i = 0; i < count; i++)
	{
		if (workers[i].phase == RETRY_WORKER_RUNNING && workers[i].stats_since != 0)
			since = Min(since, workers[i].stats_since);
	}
	if (!TimestampDifferenceExceeds(since, now, STATISTICS_LATE_MS))
		report(result, "statistics", OK, "statistics are stored every minute", NULL);
	else
		report(result, "statistics", WARN,
			   psprintf("statistics since %s are not stored", timestamptz_to_str(since)),
			   "See the server's log, and who has locked retry.stat_minute or retry.count_change in pg_locks; delivery goes on");
}

/* The earliest due time of what pauses hold back. */
static void
look_at_scene(const void *copy, void *arg)
{
	const RetrySceneShown *scene = copy;
	TimestampTz *earliest = arg;

	*earliest = Min(*earliest, scene->held_due);
}

static void
check_pauses(ReturnSetInfo *result, const RetryWorker *workers, int count)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due = now;

	for (int i = 0; i < count; i++)
	{
		if (workers[i].phase == RETRY_WORKER_RUNNING)
			retry_shown_each(&workers[i].scenes_shown, sizeof(RetrySceneShown), look_at_scene, &due);
	}
	if (!TimestampDifferenceExceeds(due, now, PAUSE_LATE_MS))
		report(result, "pauses", OK, "no pause holds back what is due for longer than a day", NULL);
	else
		report(result, "pauses", WARN,
			   psprintf("a paused scene has tasks that are due since %s", timestamptz_to_str(due)),
			   "Those with oldest_due in retry.overview and a state other than active; end the pause, or cancel the tasks with retry.cancel_where()");
}

/*
 * Is there an unresolved task in this leaf that is held because it came from
 * elsewhere?  Such rows are older than what was enqueued here, so the leaf's
 * oldest rows tell.
 */
static bool
leaf_holds_foreign(RetryReader *reader, const RetryConfig *config, int leaf)
{
	TupleTableSlot *slot;

	if (!retry_reader_leaf(reader, leaf) || retry_reader_empty(reader, RETRY_TASK, leaf))
		return false;
	retry_scan_start(reader, RETRY_TASK_XID, leaf, 0, NULL);
	for (int i = 0; i < TASKS_LOOKED_AT; i++)
	{
		RetryProbe	probe;
		bool		isnull;
		bool		inert;
		uint64		xid;

		slot = retry_scan_next(reader, RETRY_TASK_XID, leaf, ForwardScanDirection);
		if (slot == NULL)
			return false;
		inert = DatumGetBool(slot_getattr(slot, Task_inert + 1, &isnull));
		xid = (uint64) DatumGetInt64(slot_getattr(slot, Task_xid + 1, &isnull));
		if (retry_config_may_send(config, inert, xid))
			continue;
		retry_probe_task(reader, leaf, DatumGetUUIDP(slot_getattr(slot, Task_id + 1, &isnull)), &probe);
		if (!probe.terminal && !probe.cancelled)
			return true;
	}
	return false;
}

static void
check_foreign(ReturnSetInfo *result, RetryReader *reader, const RetryConfig *config)
{
	int			leaves = 0;

	if (retry_config_waits(config))
	{
		report(result, "foreign_rows", WARN,
			   "this database is a copy: what was unfinished when it was made is held",
			   "SELECT retry.adopt() lets it go; make sure that the original does not send it too");
		return;
	}
	for (int n = 0; n < RETRY_LEAVES; n++)
	{
		CHECK_FOR_INTERRUPTS();
		leaves += leaf_holds_foreign(reader, config, n);
	}

	if (leaves == 0)
		report(result, "foreign_rows", OK, "no task is held because it was restored or copied", NULL);
	else
		report(result, "foreign_rows", WARN,
			   psprintf("tasks that were restored or copied from elsewhere are held, in %d of %d leaves",
						leaves, RETRY_LEAVES),
			   "SELECT retry.adopt() lets this database send them; make sure that their origin does not send them too");
}

/* Are there scenes whose tasks wait for a secret? */
static void
check_secrets(ReturnSetInfo *result, RetryConfig *config)
{
	const RetryScene *scene;
	int			waiting = 0;

	for (int n = 0; (scene = retry_config_nth_scene(config, n)) != NULL; n++)
		waiting += scene->missing_secret != NULL;
	if (waiting == 0)
		report(result, "secrets", OK, "every secret that a scene names is set", NULL);
	else
		report(result, "secrets", WARN,
			   psprintf("tasks of %d scene(s) wait for a secret that is not set", waiting),
			   "Those without set_at in retry.secrets are not set; SELECT retry.set_secret() lets the tasks go");
}

/*
 * What is listed to a role that asks: of its own groups by name, of others only
 * that there is something.
 */
typedef struct Listed
{
	int32	   *groups;			/* that it may see */
	int			ngroups;
	StringInfoData text;
	bool		others;
} Listed;

static void
list_begin(Listed *list)
{
	list->groups = retry_visible_groups(GetActiveSnapshot(), GetUserId(), false, &list->ngroups);
	list->others = false;
	initStringInfo(&list->text);
}

static void
list_add(Listed *list, int32 group_id, const char *what)
{
	for (int i = 0; i < list->ngroups; i++)
	{
		if (list->groups[i] == group_id)
		{
			appendStringInfo(&list->text, "%s%s", list->text.len > 0 ? ", " : "", what);
			return;
		}
	}
	list->others = true;
}

/* NULL: there is nothing to list. */
static const char *
list_end(Listed *list)
{
	if (list->others)
		appendStringInfoString(&list->text, list->text.len > 0 ? ", and others" : "groups of others");
	return list->text.len > 0 ? list->text.data : NULL;
}

/* Are there scenes that believe any server? */
static void
check_tls(ReturnSetInfo *result, RetryConfig *config)
{
	const RetryScene *scene;
	const char *names;
	Listed		list;

	list_begin(&list);
	for (int n = 0; (scene = retry_config_nth_scene(config, n)) != NULL; n++)
	{
		if (scene->tls != NULL && scene->tls->unverified)
			list_add(&list, scene->group_id, scene->name);
	}
	names = list_end(&list);
	if (names == NULL)
		report(result, "tls", OK, "every scene verifies certificates", NULL);
	else
		report(result, "tls", WARN,
			   psprintf("certificates are not verified in %s", names),
			   "Set tls_ca to the certificates of the authority that they are from, and tls_verify to true");
}

static void
add_near(Listed *list, const RetryScene *scene, int64 used, int64 limit, const char *what)
{
	if (limit < 0 || used < limit * LIMIT_NEAR)
		return;
	list_add(list, scene->group_id, psprintf("\"%.*s\" (" INT64_FORMAT " of " INT64_FORMAT " %s)",
											 (int) strcspn(scene->name, "/"), scene->name, used, limit, what));
}

/* Groups that will soon be refused tasks, or are. */
static void
check_limits(ReturnSetInfo *result, RetryConfig *config)
{
	const RetryScene *scene;
	const char *names;
	Listed		list;
	int32	   *seen = palloc(sizeof(int32));
	int			nseen = 0;

	list_begin(&list);
	for (int n = 0; (scene = retry_config_nth_scene(config, n)) != NULL; n++)
	{
		RetryGroupUse *use = scene->counted ? retry_group_use_find(scene->group_id) : NULL;
		bool		again = false;

		for (int i = 0; i < nseen; i++)
			again |= seen[i] == scene->group_id;
		if (use == NULL || again)
			continue;
		seen = repalloc(seen, (nseen + 1) * sizeof(int32));
		seen[nseen++] = scene->group_id;
		add_near(&list, scene, retry_group_use_pending(use), scene->max_pending, "tasks");
		add_near(&list, scene, use->lanes, scene->max_lanes, "lanes");
	}
	names = list_end(&list);
	if (names == NULL)
		report(result, "limits", OK, "no group is near its max_pending or max_lanes", NULL);
	else
		report(result, "limits", WARN, psprintf("groups near a limit: %s", names),
			   "See retry.limits, and in retry.overview what keeps their tasks; at the limit enqueue is refused, to these groups alone");
}

/*
 * A leaf holds the days whose number is its own modulo the ring.  Tomorrow's
 * should be empty by now; if it is not, old and new tasks will share it.
 */
static void
check_ring(ReturnSetInfo *result, RetryReader *reader)
{
	int64		day = GetCurrentTimestamp() / USECS_PER_DAY;
	int			tomorrow = (int) ((day + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) + 1) % RETRY_RING_LEAVES);

	if (!retry_reader_leaf(reader, tomorrow) || retry_reader_empty(reader, RETRY_TASK, tomorrow))
		report(result, "ring", OK, "tomorrow's leaf is clean", NULL);
	else
		report(result, "ring", WARN,
			   psprintf("tomorrow's leaf, retry.task_%02d, still holds tasks of %d days ago",
						tomorrow, RETRY_RING_LEAVES - 1),
			   "Nothing is lost, but the leaf cannot be truncated: look for old unfinished tasks in retry.tasks, and at retry.retention");
}

Datum
retry_health(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	RetryConfig *config = retry_config_create();
	RetryReader *reader;

	InitMaterializedSRF(fcinfo, 0);

	if (check_preload(result))
	{
		RetryWorker *workers = palloc(sizeof(RetryWorker) * retry_shmem_max_workers());
		int			count = retry_shmem_workers(MyDatabaseId, workers);

		check_launcher(result);
		check_slots(result);
		check_dispatchers(result, workers, count);
		check_executors(result);
		check_work(result, workers, count);
		check_shown(result, workers, count);
		check_crashes(result);
		check_upkeep(result, workers, count);
		check_statistics(result, workers, count);
		check_pauses(result, workers, count);
		check_alarms(result, workers, count);
	}
	check_enabled(result);
	check_version(result);

	/* a locked table says nothing of health: what it would tell is left out */
	reader = retry_reader_begin(GetActiveSnapshot(), true);
	if (retry_config_read(config, GetActiveSnapshot()))
	{
		check_foreign(result, reader, config);
		check_secrets(result, config);
		check_tls(result, config);
		check_limits(result, config);
	}
	check_ring(result, reader);
	retry_reader_end(reader);
	return (Datum) 0;
}
