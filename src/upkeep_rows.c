/*
 * upkeep_rows.c
 *		Upkeep of what stands beside the ring: dead letters, keys, scenes, and
 *		the triggers that tell foreign rows from our own.
 *
 * All of it is done in small batches, each in a transaction of its own, and
 * rows that a session has locked are passed over.  What enqueue may want is
 * locked only for one short statement.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "global.h"
#include "guc.h"
#include "statement.h"
#include "store.h"
#include "trigger_guard.h"
#include "upkeep.h"
#include "uuid7.h"
#include "worker.h"

#define BATCH	500

static Datum
result_or_null(uint64 row, int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, isnull);
}

static Datum
result(uint64 row, int number)
{
	bool		isnull;

	return result_or_null(row, number, &isnull);
}

/* ---------------------------------------------------------------- triggers */

/* Mends the triggers of one table; it is passed over while it is locked. */
static void
mend_table(RetryUpkeep *upkeep, Oid table)
{
	int			mended = -1;

	if (ConditionalLockRelationOid(table, AccessShareLock))
		mended = retry_mend_triggers(table);
	if (mended < 0)
		upkeep->blocked = true;
	else if (mended > 0)
		ereport(LOG,
				(errmsg("retry: triggers of table retry.%s are put back to ENABLE ALWAYS", get_rel_name(table)),
				 errdetail("Rows that were put into the table while they were off are not known as foreign, and may be sent.")));
}

void
retry_upkeep_triggers(RetryUpkeep *upkeep, int unused)
{
	retry_worker_begin_spi("looking at the triggers");
	for (int leaf = 0; leaf < RETRY_LEAVES; leaf++)
	{
		mend_table(upkeep, retry_leaf_oid(RETRY_TASK, leaf));
		mend_table(upkeep, retry_leaf_oid(RETRY_SIGNAL, leaf));
	}
	mend_table(upkeep, retry_relation_oid("scene_group"));
	mend_table(upkeep, retry_relation_oid("scene"));
	mend_table(upkeep, retry_relation_oid("lane_override"));
	mend_table(upkeep, retry_relation_oid("schedule_definition"));
	retry_worker_commit_spi();
}

/* For delete_older(), of a table whose rows have a moment "at", which is indexed. */
#define DELETE_OLDER(table) \
	"DELETE FROM retry." table " o WHERE o.ctid = ANY (ARRAY" \
	" (SELECT x.ctid FROM retry." table " x WHERE x.at < $1" \
	"  ORDER BY x.at LIMIT $2 FOR UPDATE SKIP LOCKED))"

/*
 * Runs a DELETE of at most $2 rows that are older than $1, each time in a
 * transaction of its own, until there are no more.
 */
static void
delete_older(RetryUpkeep *upkeep, const char *activity, const char *sql, TimestampTz cutoff)
{
	Oid			types[2] = {TIMESTAMPTZOID, INT4OID};
	Datum		values[2] = {TimestampTzGetDatum(cutoff), Int32GetDatum(BATCH)};
	uint64		count;

	do
	{
		retry_worker_begin_spi(activity);
		count = retry_statement(sql, 2, types, values, NULL, SPI_OK_DELETE);
		retry_worker_commit_spi();
		retry_upkeep_count_rows(upkeep, count, count);
	} while (count == BATCH);
}

/* ---------------------------------------------------------------- dead letters */

/* Does the dead task hold up its lane?  Then it is kept as long as it does. */
#define HOLDS_UP(id) \
	"EXISTS (SELECT FROM retry.dead_head h WHERE h.task_id = " id \
	" AND NOT EXISTS (SELECT FROM retry.dead_head_passed p WHERE p.task_id = h.task_id))"

/*
 * Does its global transaction still wait for what the dead task, or the one that
 * it replays, was to do?  Then it is kept until that is done: it can be replayed.
 */
#define AWAITED \
	"EXISTS (SELECT FROM retry.global_operation o WHERE o.gid = x.parent_id" \
	" AND o.id = coalesce(x.origin_id, x.id) AND NOT EXISTS (SELECT FROM retry.global_outcome y" \
	"  WHERE y.gid = o.gid AND y.branch_no = o.branch_no AND y.op = o.op))"

static const char *const delete_letters =
"DELETE FROM retry.dead_letter d WHERE d.id IN"
" (SELECT x.id FROM retry.dead_letter x WHERE x.died_at < $1 AND NOT " HOLDS_UP("x.id") " AND NOT " AWAITED
"  ORDER BY x.died_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

/*
 * Notes on dead tasks that were passed are of use as long as a dispatcher may
 * start from a checkpoint that is older: much less than this.
 */
#define PASSED_KEPT_US	USECS_PER_DAY

static const char *const delete_heads =
"DELETE FROM retry.dead_head h WHERE h.task_id IN"
" (SELECT x.task_id FROM retry.dead_head x"
"  WHERE EXISTS (SELECT FROM retry.dead_head_passed p WHERE p.task_id = x.task_id AND p.passed_at < $1)"
"   OR NOT EXISTS (SELECT FROM retry.scene s WHERE s.id = x.scene_id)"
"  LIMIT $2 FOR UPDATE SKIP LOCKED)";

static const char *const delete_passed =
"DELETE FROM retry.dead_head_passed p WHERE p.task_id IN"
" (SELECT x.task_id FROM retry.dead_head_passed x WHERE x.passed_at < $1"
"  AND NOT EXISTS (SELECT FROM retry.dead_head h WHERE h.task_id = x.task_id)"
"  LIMIT $2 FOR UPDATE SKIP LOCKED)";

/* By id, a batch at a time: the last id of the batch, and how many it had. */
static const char *const delete_replayed =
"WITH batch AS MATERIALIZED (SELECT r.task_id FROM retry.replayed r WHERE r.task_id > $1"
"  ORDER BY r.task_id LIMIT $2),"
" gone AS (DELETE FROM retry.replayed r USING batch b WHERE r.task_id = b.task_id"
"  AND NOT EXISTS (SELECT FROM retry.dead_letter d WHERE d.id = r.task_id))"
"SELECT b.task_id FROM batch b ORDER BY b.task_id DESC LIMIT 1";

void
retry_upkeep_dead_letters(RetryUpkeep *upkeep, int unused)
{
	Oid			types[2] = {UUIDOID, INT4OID};
	Datum		values[2] = {(Datum) 0, Int32GetDatum(BATCH)};
	pg_uuid_t	after = {{0}};
	uint64		count;

	delete_older(upkeep, "deleting old dead letters", delete_letters, upkeep->dead_cutoff);
	delete_older(upkeep, "deleting notes on dead tasks that were passed", delete_heads,
				 upkeep->now - PASSED_KEPT_US);
	delete_older(upkeep, "deleting notes on dead tasks that were passed", delete_passed,
				 upkeep->now - PASSED_KEPT_US);
	do
	{
		retry_worker_begin_spi("deleting notes on replays of dead letters that are gone");
		values[0] = UUIDPGetDatum(&after);
		count = retry_statement(delete_replayed, 2, types, values, NULL, SPI_OK_SELECT);
		if (count > 0)
			after = *DatumGetUUIDP(result(0, 1));
		retry_worker_commit_spi();
	} while (count > 0);
}

/* ---------------------------------------------------------------- messages */

/*
 * retry.purge() does not reach these: it is about history, and a message that
 * is forgotten too early is acted upon twice.
 */
void
retry_upkeep_consumed(RetryUpkeep *upkeep, int unused)
{
	delete_older(upkeep, "deleting notes on old messages", DELETE_OLDER("consumed"),
				 upkeep->now - retry_retention_s * USECS_PER_SEC);
}

void
retry_upkeep_barriers(RetryUpkeep *upkeep, int unused)
{
	delete_older(upkeep, "deleting notes of old barriers", DELETE_OLDER("barrier_note"),
				 upkeep->now - retry_retention_s * USECS_PER_SEC);
}

/* ---------------------------------------------------------------- global transactions */

/*
 * What is not decided stays, however old it is, and so does what has not ended:
 * an operation is open that follows from the decision.  A decision whose
 * transaction is not there came in the midst of a restore: its operations may
 * not be there either.  Where a person has said that a prepared transaction is
 * committed, no server has; it may be prepared still, and without its branch it
 * would be taken for one that was never registered, and be rolled back.
 */
static const char *const delete_decided =
"WITH old AS MATERIALIZED (SELECT x.gid FROM retry.global_decision x"
"  JOIN retry.global_transaction t ON t.gid = x.gid WHERE x.decided_at < $1"
"  AND NOT EXISTS (SELECT FROM retry.global_operation o WHERE o.gid = x.gid"
"   AND (x.decision = 'commit') = (o.op IN ('confirm', 'commit'))"
"   AND NOT EXISTS (SELECT FROM retry.global_outcome y"
"    WHERE y.gid = o.gid AND y.branch_no = o.branch_no AND y.op = o.op))"
"  AND NOT EXISTS (SELECT FROM retry.global_outcome y"
"   WHERE y.gid = x.gid AND y.branch_no > 0 AND y.op = 'commit' AND y.settled_by IS NOT NULL)"
"  ORDER BY x.decided_at LIMIT $2 FOR UPDATE OF x, t SKIP LOCKED),"
" outcome AS (DELETE FROM retry.global_outcome o USING old WHERE o.gid = old.gid),"
" operation AS (DELETE FROM retry.global_operation o USING old WHERE o.gid = old.gid),"
" branch AS (DELETE FROM retry.global_branch b USING old WHERE b.gid = old.gid),"
" message AS (DELETE FROM retry.global_message m USING old WHERE m.id = old.gid),"
" begun AS (DELETE FROM retry.global_transaction t USING old WHERE t.gid = old.gid)"
"DELETE FROM retry.global_decision d USING old WHERE d.gid = old.gid";

void
retry_upkeep_decided(RetryUpkeep *upkeep, int unused)
{
	delete_older(upkeep, "deleting old transactions that are decided", delete_decided, upkeep->cutoff);
}

/* ---------------------------------------------------------------- schedules */

/* One that old stays for each schedule: it says how far that has come. */
static const char *const delete_runs =
"DELETE FROM retry.schedule_run r WHERE (r.schedule_id, r.nominal) IN"
" (SELECT x.schedule_id, x.nominal FROM retry.schedule_run x WHERE x.nominal < $1"
"  AND EXISTS (SELECT FROM retry.schedule_run y WHERE y.schedule_id = x.schedule_id"
"   AND y.nominal > x.nominal AND y.nominal < $1)"
"  ORDER BY x.nominal LIMIT $2 FOR UPDATE SKIP LOCKED)";

void
retry_upkeep_runs(RetryUpkeep *upkeep, int unused)
{
	delete_older(upkeep, "deleting notes on old runs of schedules", delete_runs, upkeep->cutoff);
}

/* ---------------------------------------------------------------- events */

void
retry_upkeep_events(RetryUpkeep *upkeep, int unused)
{
	delete_older(upkeep, "deleting old events", DELETE_OLDER("event"), upkeep->cutoff);
}

/* ---------------------------------------------------------------- audit */

void
retry_upkeep_audit(RetryUpkeep *upkeep, int unused)
{
	delete_older(upkeep, "deleting old rows of the audit", DELETE_OLDER("audit_entry"),
				 upkeep->now - retry_audit_retention_s * USECS_PER_SEC);
}

/* ---------------------------------------------------------------- secrets */

static const char *const delete_secrets =
"DELETE FROM retry.secret s WHERE (s.group_id, s.name, s.set_at) IN"
" (SELECT x.group_id, x.name, x.set_at FROM retry.secret x WHERE x.signs_until < $1"
"  LIMIT $2 FOR UPDATE SKIP LOCKED)";

/*
 * Who changes secrets updates and deletes the rows that it sees, and would fail
 * where one has just been deleted: so not while somebody does, and whoever comes
 * next waits for us.
 */
void
retry_upkeep_secrets(RetryUpkeep *upkeep, int unused)
{
	Oid			types[2] = {TIMESTAMPTZOID, INT4OID};
	Datum		values[2] = {TimestampTzGetDatum(upkeep->now), Int32GetDatum(BATCH)};
	uint64		count = 0;

	do
	{
		retry_worker_begin_spi("deleting former secrets");
		if (ConditionalLockRelationOid(retry_relation_oid("secret"), ShareRowExclusiveLock))
			count = retry_statement(delete_secrets, 2, types, values, NULL, SPI_OK_DELETE);
		else
			count = 0;
		retry_worker_commit_spi();
	} while (count == BATCH);
}

/* ---------------------------------------------------------------- keys */

/* Where a batch ended: the primary key of retry.key. */
typedef struct KeyPlace
{
	int32		scene_id;
	text	   *key;
	Oid			role;
} KeyPlace;

static const char *const read_keys =
"SELECT k.scene_id, k.key, k.role, k.task_id, k.leaf, k.finished_at,"
" (SELECT s.key_window FROM retry.scene s WHERE s.id = k.scene_id)"
" FROM retry.key k"
" WHERE (k.scene_id, k.key, k.role) > ($1, $2, $3)"
" ORDER BY k.scene_id, k.key, k.role LIMIT $4";

/*
 * A key that points at another task by now stays as it is: the statements see
 * that when they have locked the row.
 */
#define THE_KEYS \
	"WITH g AS (SELECT k.scene_id, k.key, k.role, g.finished_at FROM retry.key k" \
	"  JOIN ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)," \
	"   pg_catalog.unnest($4), pg_catalog.unnest($5))" \
	"   AS g (scene_id, key, role, task_id, finished_at)" \
	"   ON k.scene_id = g.scene_id AND k.key = g.key AND k.role = g.role" \
	"  WHERE k.task_id = g.task_id FOR UPDATE OF k SKIP LOCKED)"

static const char *const delete_keys =
THE_KEYS "DELETE FROM retry.key k USING g"
" WHERE k.scene_id = g.scene_id AND k.key = g.key AND k.role = g.role";

static const char *const note_keys =
THE_KEYS "UPDATE retry.key k SET finished_at = g.finished_at FROM g"
" WHERE k.scene_id = g.scene_id AND k.key = g.key AND k.role = g.role";

/* What is to be done about a key. */
typedef enum KeyDuty
{
	KEY_STAYS,
	KEY_GOES,
	KEY_NOTED					/* it stays, and its task's end is to be noted */
} KeyDuty;

/* Keys of one batch with the same duty: their columns, and their tasks' ends. */
typedef struct KeyList
{
	Datum	   *elements[5];
	int			n;
} KeyList;

/* Is it a message that is not decided, or was committed since the snapshot was taken? */
static bool
may_become_task(const pg_uuid_t *id)
{
	RetryDecision decision;

	return retry_global_decision(id, &decision) && decision != RETRY_ROLLBACK;
}

/*
 * Is the task finished, or gone, and when did it end?  Only upkeep moves tasks,
 * so one that is not found now is nowhere.  DT_NOBEGIN: it was cancelled;
 * DT_NOEND: nobody knows.
 */
static bool
is_over(RetryReader *reader, const pg_uuid_t *id, int leaf, TimestampTz *ended_at)
{
	RetryProbe	probe;

	*ended_at = DT_NOEND;
	if (retry_find_task(reader, id, NULL, &leaf) == NULL)
		return !retry_reader_blocked(reader) && !may_become_task(id);
	retry_probe_task(reader, leaf, id, &probe);
	*ended_at = probe.terminal ? probe.finished_at : DT_NOBEGIN;
	return !retry_reader_blocked(reader) && (probe.terminal || probe.cancelled);
}

/*
 * What to do about the key in a row of the batch.  The end of its task is noted
 * when the task's leaf may go before the window is over, which it cannot
 * while the task is younger than the cut-off: most windows are so short that
 * nothing is ever noted.
 */
static KeyDuty
key_duty(const RetryUpkeep *upkeep, RetryReader *reader, uint64 row, TimestampTz *ended_at)
{
	pg_uuid_t  *id = DatumGetUUIDP(result(row, 4));
	bool		no_note;
	bool		no_window;
	TimestampTz noted = DatumGetTimestampTz(result_or_null(row, 6, &no_note));
	Datum		window = result_or_null(row, 7, &no_window);
	TimestampTz enqueued_at;
	bool		to_note;

	if (!no_note)
		*ended_at = noted;
	else if (!is_over(reader, id, DatumGetInt16(result(row, 5)), ended_at))
		return KEY_STAYS;
	if (no_window || *ended_at == DT_NOBEGIN)
		return KEY_GOES;
	to_note = no_note && (*ended_at == DT_NOEND || !retry_uuid7_time(id, &enqueued_at) ||
						  enqueued_at < upkeep->cutoff);
	if (*ended_at == DT_NOEND)
		*ended_at = upkeep->now;
	if (DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												TimestampTzGetDatum(*ended_at), window)) <= upkeep->now)
		return KEY_GOES;
	return to_note ? KEY_NOTED : KEY_STAYS;
}

static Datum
array_of(Datum *elements, int n, Oid type)
{
	int16		length;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	return PointerGetDatum(construct_array(elements, n, type, length, by_value, align));
}

/* Changes the keys of a list. */
static void
change_keys(const KeyList *list, const char *sql, int expected)
{
	static const Oid element_types[5] = {INT4OID, TEXTOID, OIDOID, UUIDOID, TIMESTAMPTZOID};
	Oid			types[5] = {INT4ARRAYOID, TEXTARRAYOID, OIDARRAYOID, UUIDARRAYOID, TIMESTAMPTZARRAYOID};
	Datum		values[5];

	if (list->n == 0)
		return;
	for (int i = 0; i < 5; i++)
		values[i] = array_of(list->elements[i], list->n, element_types[i]);
	(void) retry_statement(sql, 5, types, values, NULL, expected);
}

/* Looks after one batch of keys; the rows are SPI's last result.  How many go. */
static int
keep_key_batch(const RetryUpkeep *upkeep, uint64 count)
{
	KeyList		gone = {.n = 0};
	KeyList		noted = {.n = 0};
	RetryReader *reader;

	for (int i = 0; i < 5; i++)
	{
		gone.elements[i] = palloc(count * sizeof(Datum));
		noted.elements[i] = palloc(count * sizeof(Datum));
	}

	/* newer than what was read, so that each key's task is visible */
	PushActiveSnapshot(GetLatestSnapshot());
	reader = retry_reader_begin(GetActiveSnapshot(), true);
	for (uint64 row = 0; row < count; row++)
	{
		TimestampTz ended_at;
		KeyDuty		duty = key_duty(upkeep, reader, row, &ended_at);
		KeyList    *list = duty == KEY_GOES ? &gone : &noted;

		if (duty == KEY_STAYS)
			continue;
		for (int i = 0; i < 4; i++)
			list->elements[i][list->n] = result(row, i + 1);
		list->elements[4][list->n++] = TimestampTzGetDatum(ended_at);
	}
	retry_reader_end(reader);
	PopActiveSnapshot();
	change_keys(&gone, delete_keys, SPI_OK_DELETE);
	change_keys(&noted, note_keys, SPI_OK_UPDATE);
	return gone.n;
}

void
retry_upkeep_keys(RetryUpkeep *upkeep, int unused)
{
	Oid			types[4] = {INT4OID, TEXTOID, OIDOID, INT4OID};
	MemoryContext context = CurrentMemoryContext;
	KeyPlace	place = {PG_INT32_MIN, cstring_to_text(""), InvalidOid};
	uint64		count;

	do
	{
		int			gone = 0;
		Datum		values[4] = {
			Int32GetDatum(place.scene_id), PointerGetDatum(place.key),
			ObjectIdGetDatum(place.role), Int32GetDatum(BATCH)
		};

		retry_worker_begin_spi("looking after the keys of finished tasks");
		count = retry_statement(read_keys, 4, types, values, NULL, SPI_OK_SELECT);
		if (count > 0)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			place.scene_id = DatumGetInt32(result(count - 1, 1));
			pfree(place.key);
			place.key = DatumGetTextPCopy(result(count - 1, 2));
			place.role = DatumGetObjectId(result(count - 1, 3));
			MemoryContextSwitchTo(old);
			gone = keep_key_batch(upkeep, count);
		}
		retry_worker_commit_spi();
		retry_upkeep_count_rows(upkeep, count, gone);
	} while (count == BATCH);
}

/* ---------------------------------------------------------------- scenes */

/*
 * Those that somebody archived without a DELETE stay, and those that others
 * name as their callback.  A session may have looked at the scene before it
 * was archived, and store a task of it yet.  So it has to be archived for
 * longer than the oldest snapshot and transaction there are.
 */
static const char *const delete_scenes =
"DELETE FROM retry.scene s WHERE s.archived AND s.deleted_at IS NOT NULL"
" AND pg_catalog.age(s.xmin) > pg_catalog.age($1)"
" AND NOT EXISTS (SELECT FROM retry.dead_letter d WHERE d.scene_id = s.id)"
" AND NOT EXISTS (SELECT FROM retry.key k WHERE k.scene_id = s.id)"
" AND NOT EXISTS (SELECT FROM retry.task t WHERE t.scene_id = s.id)"
" AND NOT EXISTS (SELECT FROM retry.global_message m WHERE m.scene_id = s.id)"
" AND NOT EXISTS (SELECT FROM retry.global_operation o WHERE o.scene_id = s.id)"
" AND NOT EXISTS (SELECT FROM retry.global_transaction g WHERE g.scene_id = s.id)"
" AND NOT EXISTS (SELECT FROM retry.scene c"
" WHERE s.group_name || '/' || s.name IN (c.on_success, c.on_dead, c.check_target)"
" OR s.group_name = 'default' AND s.name IN (c.on_success, c.on_dead, c.check_target))";

static const char *const archived_scenes = "SELECT FROM retry.scene s WHERE s.deleted_at IS NOT NULL LIMIT 1";

void
retry_upkeep_scenes(RetryUpkeep *upkeep, int unused)
{
	Oid			type = XIDOID;
	Relation	rel;
	Datum		horizon;
	uint64		count = 0;

	retry_worker_begin_spi("deleting archived scenes");
	if (retry_statement(archived_scenes, 0, NULL, NULL, NULL, SPI_OK_SELECT) > 0)
	{
		rel = table_open(retry_relation_oid("scene"), RowExclusiveLock);
		horizon = TransactionIdGetDatum(GetOldestNonRemovableTransactionId(rel));
		table_close(rel, NoLock);
		PushActiveSnapshot(GetLatestSnapshot());
		count = retry_statement(delete_scenes, 1, &type, &horizon, NULL, SPI_OK_DELETE);
		PopActiveSnapshot();
	}
	retry_worker_commit_spi();
	if (count > 0)
		elog(DEBUG1, "retry: " UINT64_FORMAT " archived scenes are gone", count);
}
