/*
 * upkeep_count.c
 *		Upkeep of the statistics: minutes become hours, hours days, and what
 *		waits is counted anew.
 *
 * How many tasks are pending or retrying is known from what has changed since
 * they were counted last.  Counting reads the leaves that have something
 * unfinished from end to end, once each, and joins nothing: a task is pending
 * unless it has a first attempt, and each attempt that asks for another is
 * followed by one, or its task is retrying.
 *
 * Everything is read with one snapshot.  What the dispatchers have counted and
 * not stored at that moment is taken off again, so that what they store or show
 * later can be added.  A dispatcher counts a task some milliseconds after it was
 * committed, and an outcome as long after it was recorded: so a moment is looked
 * for in which they have counted just what the snapshot sees.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "group_lanes.h"
#include "group_use.h"
#include "shmem.h"
#include "statement.h"
#include "store.h"
#include "upkeep.h"
#include "worker.h"

/* How long statistics are kept: by the minute, by the hour, by the day. */
#define MINUTES_KEPT_US		(2 * USECS_PER_DAY)
#define HOURS_KEPT_US		(100 * USECS_PER_DAY)
#define DAYS_KEPT_US		(1100 * USECS_PER_DAY)

/*
 * An hour is added up when it has been over for so long, a day later than its
 * last hour: what a dispatcher could not store at once comes late.
 */
#define HOUR_LATE_US		USECS_PER_HOUR
#define DAY_LATE_US			(4 * USECS_PER_HOUR)

/*
 * Looking for a moment at which nothing comes or goes: so often, with a pause
 * between, and so long for dispatchers to read what has been committed.  Where
 * there is none, the counts are off by what was on its way.
 */
#define QUIET_TRIES			10
#define QUIET_PAUSE_MS		50
#define TURNS_WAIT_MS		200

#define SUMS \
	"sum(m.enqueued), sum(m.succeeded), sum(m.failed), sum(m.processing), sum(m.stopped), sum(m.expired)," \
	" sum(m.blocked), sum(m.error), sum(m.retries), sum(m.dead), sum(m.cancelled), sum(m.busy_us)," \
	" max(m.late_us), retry.latency_sum(m.latency)"

/* From all that is not added up yet until before $1. */
static const char *const add_hours =
"INSERT INTO retry.stat_hour SELECT pg_catalog.date_trunc('hour', m.at), m.scene_id, " SUMS
" FROM retry.stat_minute m"
" WHERE m.at >= (SELECT coalesce(max(h.at) + interval '1 hour', '-infinity') FROM retry.stat_hour h)"
" AND m.at < pg_catalog.date_trunc('hour', $1) GROUP BY 1, 2";

static const char *const add_days =
"INSERT INTO retry.stat_day"
" SELECT pg_catalog.date_trunc('day', m.at, pg_catalog.current_setting('log_timezone')), m.scene_id, " SUMS
" FROM retry.stat_hour m"
" WHERE m.at >= (SELECT coalesce(pg_catalog.date_trunc('day', max(d.at) + interval '36 hours',"
"   pg_catalog.current_setting('log_timezone')), '-infinity') FROM retry.stat_day d)"
" AND m.at < pg_catalog.date_trunc('day', $1, pg_catalog.current_setting('log_timezone')) GROUP BY 1, 2";

/* Older than $1, and already added up. */
static const char *const delete_minutes =
"DELETE FROM retry.stat_minute m WHERE m.at < $1";
static const char *const delete_hours =
"DELETE FROM retry.stat_hour h WHERE h.at < $1";
static const char *const delete_days =
"DELETE FROM retry.stat_day d WHERE d.at < $1";

static void
run_before(const char *sql, TimestampTz moment, int expected)
{
	Oid			type = TIMESTAMPTZOID;
	Datum		value = TimestampTzGetDatum(moment);

	(void) retry_statement(sql, 1, &type, &value, NULL, expected);
}

void
retry_upkeep_stats(RetryUpkeep *upkeep, int unused)
{
	TimestampTz now = upkeep->now;

	retry_worker_begin_spi("adding up statistics");
	run_before(add_hours, now - HOUR_LATE_US, SPI_OK_INSERT);
	run_before(add_days, now - DAY_LATE_US, SPI_OK_INSERT);
	retry_worker_commit_spi();

	retry_worker_begin_spi("deleting old statistics");
	run_before(delete_minutes, now - MINUTES_KEPT_US, SPI_OK_DELETE);
	run_before(delete_hours, now - HOURS_KEPT_US, SPI_OK_DELETE);
	run_before(delete_days, now - DAYS_KEPT_US, SPI_OK_DELETE);
	retry_worker_commit_spi();
}

/* ---------------------------------------------------------------- what waits */

static const char *const begin_count =
"DELETE FROM retry.scene_count";

/* What is counted and not stored; another text when anything was counted meanwhile. */
static const char *const not_stored =
"SELECT coalesce(jsonb_agg(jsonb_build_array(r.scene_id, r.pending, r.retrying, r.dead, r.enqueued, r.dispatcher)"
"  ORDER BY r.scene_id, r.dispatcher), '[]')::text FROM retry.scene_rows() r";

/* That, $1, taken off; and the dead letters. */
static const char *const count_others =
"INSERT INTO retry.scene_count (scene_id, pending, retrying, dead)"
" SELECT c.scene_id, sum(c.pending), sum(c.retrying), sum(c.dead) FROM ("
"  SELECT (r->>0)::int, -(r->>1)::bigint, -(r->>2)::bigint, -(r->>3)::bigint FROM jsonb_array_elements($1::jsonb) r"
"  UNION ALL SELECT d.scene_id, 0, 0, count(*) FROM retry.dead_letter d GROUP BY d.scene_id"
" ) AS c (scene_id, pending, retrying, dead) GROUP BY c.scene_id";

/* What the groups with limits have by what is counted so far. */
static const char *const unfinished_of_groups =
"SELECT g.id, sum(c.pending + c.retrying)::bigint FROM retry.scene_count c"
" JOIN retry.scene s ON s.id = c.scene_id JOIN retry.scene_group g ON g.name = s.group_name"
" WHERE g.id = ANY ($1) GROUP BY g.id";

/* %1$d: the number of the leaf. */
#define COUNT_LEAF \
	"INSERT INTO retry.scene_count AS old (scene_id, pending, retrying, dead)" \
	" SELECT c.scene_id, sum(c.pending), sum(c.retrying), 0 FROM (" \
	"  SELECT t.scene_id, count(*), 0 FROM retry.task_%1$02d t GROUP BY t.scene_id" \
	"  UNION ALL SELECT a.scene_id, -count(*) FILTER (WHERE a.attempt_no = 1)," \
	"   count(*) FILTER (WHERE a.next_due IS NOT NULL) - count(*) FILTER (WHERE a.attempt_no > 1)" \
	"   FROM retry.attempt_%1$02d a GROUP BY a.scene_id" \
	"  UNION ALL SELECT t.scene_id, -count(*) FILTER (WHERE a.task_id IS NULL), -count(a.task_id)" \
	"   FROM (SELECT DISTINCT s.task_id FROM retry.signal_%1$02d s WHERE s.action = 'c') s" \
	"   JOIN retry.task_%1$02d t ON t.id = s.task_id" \
	"   LEFT JOIN retry.last_attempts a ON a.leaf = %1$d AND a.task_id = s.task_id" \
	"   WHERE a.task_id IS NULL OR a.next_due IS NOT NULL GROUP BY t.scene_id" \
	" ) AS c (scene_id, pending, retrying) GROUP BY c.scene_id" \
	" ON CONFLICT (scene_id) DO UPDATE" \
	" SET pending = old.pending + excluded.pending, retrying = old.retrying + excluded.retrying"

/* Groups that have lanes to be counted, and their scenes. */
static const char *const laned_groups =
"SELECT g.id FROM retry.scene_group g WHERE g.max_lanes IS NOT NULL";
static const char *const laned_scenes =
"SELECT array_agg(s.id) FROM retry.scene s JOIN retry.scene_group g ON g.name = s.group_name WHERE g.max_lanes IS NOT NULL";

/*
 * %1$d: the number of the leaf; $1: those scenes.  A task is unfinished unless
 * it has an attempt that asks for no other, or is cancelled.
 */
#define COUNT_LANES \
	"SELECT g.id, c.lane_hash, sum(c.tasks)::bigint FROM (" \
	"  SELECT t.scene_id, t.lane_hash, count(*) FROM retry.task_%1$02d t WHERE t.scene_id = ANY ($1) GROUP BY 1, 2" \
	"  UNION ALL SELECT a.scene_id, a.lane_hash, -count(*) FROM retry.attempt_%1$02d a" \
	"   WHERE a.scene_id = ANY ($1) AND a.next_due IS NULL GROUP BY 1, 2" \
	"  UNION ALL SELECT t.scene_id, t.lane_hash, -count(*)" \
	"   FROM (SELECT DISTINCT s.task_id FROM retry.signal_%1$02d s WHERE s.action = 'c') s" \
	"   JOIN retry.task_%1$02d t ON t.id = s.task_id" \
	"   LEFT JOIN retry.last_attempts a ON a.leaf = %1$d AND a.task_id = s.task_id" \
	"   WHERE t.scene_id = ANY ($1) AND (a.task_id IS NULL OR a.next_due IS NOT NULL) GROUP BY 1, 2" \
	" ) AS c (scene_id, lane_hash, tasks) JOIN retry.scene s ON s.id = c.scene_id" \
	" JOIN retry.scene_group g ON g.name = s.group_name" \
	" GROUP BY 1, 2 HAVING sum(c.tasks) > 0 LIMIT %2$d"

static const char *const note_counted =
"UPDATE retry.counted SET boundary = pg_catalog.pg_current_snapshot(), at = now(), took = $1 * interval '1 us'";

static const char *const delete_changes =
"DELETE FROM retry.count_change c USING retry.counted k"
" WHERE pg_catalog.pg_visible_in_snapshot(c.xid, k.boundary)";

/* After a start nobody may have asked for the lanes of a group yet. */
static void
make_uses(void)
{
	uint64		rows;

	retry_worker_begin_spi("looking for limits of lanes");
	rows = retry_statement(laned_groups, 0, NULL, NULL, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		(void) retry_group_use(DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)));
	}
	retry_worker_commit_spi();
}

/* The scenes of groups with max_lanes; 0: there are none. */
static Datum
read_laned_scenes(MemoryContext context)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum		scenes;
	bool		isnull;

	(void) retry_statement(laned_scenes, 0, NULL, NULL, NULL, SPI_OK_SELECT);
	scenes = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return (Datum) 0;
	MemoryContextSwitchTo(context);
	scenes = PointerGetDatum(PG_DETOAST_DATUM_COPY(scenes));
	MemoryContextSwitchTo(caller);
	return scenes;
}

/* More lanes than there is room for need not be read. */
static void
count_lanes(int leaf, Datum scenes)
{
	char	   *sql = psprintf(COUNT_LANES, leaf, RETRY_GROUP_LANES);
	Oid			type = INT4ARRAYOID;
	uint64		rows = retry_statement(sql, 1, &type, &scenes, NULL, SPI_OK_SELECT);

	for (uint64 i = 0; i < rows; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		retry_group_lanes_found(DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull)),
								DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull)),
								DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull)));
	}
	SPI_freetuptable(SPI_tuptable);
	pfree(sql);
}

/* False: the leaf is locked. */
static bool
count_leaf(RetryDatabase *db, int leaf, Datum laned)
{
	char	   *sql;

	if (db != NULL && retry_shmem_leaf_done(db, leaf))
		return true;
	if (!ConditionalLockRelationOid(retry_leaf_oid(RETRY_TASK, leaf), AccessShareLock) ||
		!ConditionalLockRelationOid(retry_leaf_oid(RETRY_ATTEMPT, leaf), AccessShareLock) ||
		!ConditionalLockRelationOid(retry_leaf_oid(RETRY_SIGNAL, leaf), AccessShareLock))
		return false;
	sql = psprintf(COUNT_LEAF, leaf);
	(void) retry_statement(sql, 0, NULL, NULL, NULL, SPI_OK_INSERT);
	pfree(sql);
	if (laned != 0)
		count_lanes(leaf, laned);
	return true;
}

/* Adds what the counts say of the groups that are marked, "sign" times, to "counted". */
static void
add_counted(const RetryGroupMark *marks, int n, int sign, int64 *counted)
{
	Datum	   *ids = palloc(n * sizeof(Datum));
	Oid			type = INT4ARRAYOID;
	Datum		array;
	uint64		rows;

	for (int i = 0; i < n; i++)
		ids[i] = Int32GetDatum(marks[i].group_id);
	array = PointerGetDatum(construct_array(ids, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	rows = retry_statement(unfinished_of_groups, 1, &type, &array, NULL, SPI_OK_SELECT);
	for (uint64 r = 0; r < rows; r++)
	{
		bool		isnull;
		int32		id = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[r], SPI_tuptable->tupdesc, 1, &isnull));
		int64		tasks = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[r], SPI_tuptable->tupdesc, 2, &isnull));

		for (int i = 0; i < n; i++)
		{
			if (marks[i].group_id == id)
				counted[i] += sign * tasks;
		}
	}
	SPI_freetuptable(SPI_tuptable);
}

/* All statements of a transaction that begins after this see the same. */
static void
set_isolation(const char *level)
{
	SetConfigOption("default_transaction_isolation", level, PGC_SUSET, PGC_S_OVERRIDE);
}

static void
begin_with_one_snapshot(void)
{
	set_isolation("repeatable read");
	PG_TRY();
	{
		retry_worker_begin_spi("counting tasks");
	}
	PG_FINALLY();
	{
		set_isolation("read committed");
	}
	PG_END_TRY();
}

/* What the dispatchers have counted and not stored; palloc'd in that context. */
static char *
read_not_stored(MemoryContext context)
{
	char	   *text;

	(void) retry_statement(not_stored, 0, NULL, NULL, NULL, SPI_OK_SELECT);
	text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	return MemoryContextStrdup(context, text);
}

static void
pause_ms(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Have all dispatchers that read tasks begun a turn since "before", and ended it? */
static bool
have_turned(const RetryWorker *before, int n, const RetryWorker *now, int nnow)
{
	for (int i = 0; i < n; i++)
	{
		for (int j = 0; j < nnow; j++)
		{
			/* the turn under way may have read before */
			if (now[j].ticket == before[i].ticket && now[j].pid != 0 && !now[j].deaf &&
				now[j].turns < before[i].turns + 2)
				return false;
		}
	}
	return true;
}

/* Waits until dispatchers have read what is committed now; false when that takes long. */
static bool
await_turns(void)
{
	Size		size = retry_shmem_max_workers() * sizeof(RetryWorker);
	RetryWorker *before = palloc(size);
	RetryWorker *now = palloc(size);
	int			n = retry_shmem_workers(MyDatabaseId, before);
	bool		turned = false;

	for (int ms = 0; ms < TURNS_WAIT_MS && !turned; ms++)
	{
		retry_shmem_wake_workers(MyDatabaseId);
		pause_ms(1);
		turned = have_turned(before, n, now, retry_shmem_workers(MyDatabaseId, now));
	}
	pfree(before);
	pfree(now);
	return turned;
}

/*
 * Begins the transaction that counts, at a moment, if there is one, at which
 * what dispatchers have counted is what its snapshot sees: they counted nothing
 * from before it until after they had read all of it.  Returns what they have
 * counted, in the context that was current.
 */
static char *
begin_at_rest(RetryGroupMark **marks, int *nmarks)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *before;
	char	   *after;

	for (int i = 1;; i++)
	{
		bool		turned;

		retry_worker_begin_spi("counting tasks");
		before = read_not_stored(context);
		retry_worker_commit_spi();

		*nmarks = retry_group_use_mark_all(marks);
		retry_group_lanes_begin_count();
		begin_with_one_snapshot();
		turned = await_turns();
		after = read_not_stored(context);
		if ((turned && strcmp(before, after) == 0) || i == QUIET_TRIES)
			break;
		retry_worker_commit_spi();
		pfree(before);
		pfree(after);
		if (*marks != NULL)
			pfree(*marks);
		pause_ms(QUIET_PAUSE_MS);
	}
	pfree(before);
	return after;
}

void
retry_upkeep_count(RetryUpkeep *upkeep, int unused)
{
	RetryDatabase *db = retry_shmem_database();
	int64		begun = retry_monotonic_us();
	Oid			type = INT8OID;
	Oid			text_type = TEXTOID;
	RetryGroupMark *marks;
	int64	   *counted;
	int			nmarks;
	Datum		laned;
	Datum		others;
	Datum		took;

	make_uses();
	others = CStringGetTextDatum(begin_at_rest(&marks, &nmarks));
	laned = read_laned_scenes(CurrentMemoryContext);
	counted = palloc0(Max(nmarks, 1) * sizeof(int64));
	(void) retry_statement(begin_count, 0, NULL, NULL, NULL, SPI_OK_DELETE);
	(void) retry_statement(count_others, 1, &text_type, &others, NULL, SPI_OK_INSERT);
	if (nmarks > 0)
		add_counted(marks, nmarks, -1, counted);
	for (int leaf = 0; leaf < RETRY_LEAVES; leaf++)
	{
		if (!count_leaf(db, leaf, laned))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("leaf %d is locked", leaf)));
	}
	if (nmarks > 0)
		add_counted(marks, nmarks, 1, counted);
	for (int i = 0; i < nmarks; i++)
		retry_group_use_correct(&marks[i], counted[i]);
	retry_group_lanes_apply();
	took = Int64GetDatum(retry_monotonic_us() - begun);
	(void) retry_statement(note_counted, 1, &type, &took, NULL, SPI_OK_UPDATE);
	retry_worker_commit_spi();

	retry_worker_begin_spi("deleting what is counted");
	(void) retry_statement(delete_changes, 0, NULL, NULL, NULL, SPI_OK_DELETE);
	retry_worker_commit_spi();
}
