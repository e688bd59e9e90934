/*
 * replay.c
 *		retry.replay() and retry.replay_dead(): finished tasks once more.
 *
 * A replay is a new task with attempts of its own; what it replays stays as it
 * is.  It names itself to the receiver as the first task of its chain, so that
 * a receiver that did act the first time can tell.  Which dead letters were
 * replayed is decided by a unique index, so that two administrators who ask
 * for the same ones at the same moment send each only once.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "amend.h"
#include "audit.h"
#include "live_walk.h"
#include "locate.h"
#include "part.h"
#include "progress.h"
#include "row.h"
#include "scene_use.h"
#include "selection.h"
#include "statement.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(retry_replay);
PG_FUNCTION_INFO_V1(retry_replay_dead);

/* Dead letters fetched at once. */
#define REPLAY_BATCH	500

/* Parameters of the query for dead letters. */
#define FILTERS			7

/* One call of replay_dead. */
typedef struct ReplayDead
{
	RetrySelection selection;
	Datum		values[FILTERS];	/* parameters of the query: scenes, since, */
	char		nulls[FILTERS + 1]; /* until, reference, key_prefix, error,
									 * reason */
	int64		total;			/* among which they are spread */
	int64		seen;
	int64		replayed;
	int32		kept;			/* the scene that was last seen to stay */
	RetryGroupRow group;		/* of it */
	bool		limited;		/* and that has limits */
	RetryProgress *progress;
	RetryWriter *writer;
	SPIPlanPtr	mark;
} ReplayDead;

#define DEAD_FILTER \
	" FROM retry.dead_letter d" \
	" WHERE d.scene_id OPERATOR(pg_catalog.=) ANY ($1)" \
	" AND ($2 IS NULL OR d.died_at OPERATOR(pg_catalog.>=) $2)" \
	" AND ($3 IS NULL OR d.died_at OPERATOR(pg_catalog.<) $3)" \
	" AND ($4 IS NULL OR d.reference OPERATOR(pg_catalog.=) $4)" \
	" AND ($5 IS NULL OR pg_catalog.starts_with(d.key, $5))" \
	" AND ($6 IS NULL OR coalesce(d.error, 'status ' OPERATOR(pg_catalog.||) d.http_status::pg_catalog.text)" \
	"  OPERATOR(pg_catalog.~~) $6)" \
	" AND ($7 IS NULL OR d.reason::pg_catalog.text OPERATOR(pg_catalog.=) $7)" \
	" AND NOT EXISTS (SELECT FROM retry.replayed r WHERE r.task_id OPERATOR(pg_catalog.=) d.id)"

static const char *const dead_count = "SELECT pg_catalog.count(*)" DEAD_FILTER;
static const char *const dead_rows = "SELECT d.*" DEAD_FILTER " ORDER BY d.died_at, d.id";

/* In ordered scenes they keep the order that they had; it costs a sort. */
static const char *const dead_rows_in_order = "SELECT d.*" DEAD_FILTER " ORDER BY d.due_at, d.id";
static const char *const is_ordered =
"SELECT FROM retry.scene s WHERE s.id OPERATOR(pg_catalog.=) ANY ($1) AND s.ordered LIMIT 1";
static const char *const dead_mark =
"INSERT INTO retry.replayed (task_id, replayed_as) VALUES ($1, $2) ON CONFLICT DO NOTHING";

static Oid	filter_types[FILTERS] = {
	INT4ARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID
};
static Oid	mark_types[2] = {UUIDOID, UUIDOID};

static void
spi_failed(int rc)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not replay: %s", SPI_result_code_string(rc))));
}

/*
 * Stores the task anew.  The row's columns begin with those of retry.task; the
 * changes are those that are not in it yet.
 * The key goes with it, because it is what the receiver knows the message by,
 * but it is not claimed: a live task that has it meanwhile keeps it.
 */
static void
write_replay(RetryWriter *writer, HeapTuple row, TupleDesc desc, const List *changes, Oid role,
			 const pg_uuid_t *new_id, TimestampTz due_at)
{
	Datum		values[Task_natts];
	bool		isnull[Task_natts];

	retry_row_read(row, desc, Task_natts, values, isnull);
	retry_changes_apply(changes, values, isnull);

	values[Task_replay_of] = values[Task_id];
	isnull[Task_replay_of] = false;
	if (isnull[Task_origin_id])
	{
		values[Task_origin_id] = values[Task_id];
		isnull[Task_origin_id] = false;
	}
	if (!isnull[Task_expires_at] && DatumGetTimestampTz(values[Task_expires_at]) <= due_at)
		isnull[Task_expires_at] = true;
	if (!SearchSysCacheExists1(AUTHOID, values[Task_enqueued_by]))
		values[Task_enqueued_by] = ObjectIdGetDatum(role);
	retry_write_task(writer, new_id, due_at, values, isnull);
}

/* Notes that a dead letter was replayed; false when it was already. */
static bool
mark_replayed(SPIPlanPtr plan, const pg_uuid_t *id, const pg_uuid_t *new_id)
{
	Datum		values[2] = {UUIDPGetDatum(id), UUIDPGetDatum(new_id)};
	int			rc = SPI_execute_plan(plan, values, NULL, false, 0);

	if (rc < 0)
		spi_failed(rc);
	return SPI_processed == 1;
}

/* Connects to SPI as the tables' owner, with the statement above prepared. */
static SPIPlanPtr
connect_to_mark(RetryRoleSwitch *caller)
{
	SPIPlanPtr	plan;

	retry_statement_connect();
	retry_become_owner(caller);
	plan = SPI_prepare(dead_mark, 2, mark_types);
	if (plan == NULL)
		spi_failed(SPI_result);
	return plan;
}

/*
 * A replay is a task like others, so that no limit is got around by it; but not
 * held to the rate, by which who mends a day's damage would have to go slowly.
 */
static bool
find_limits(int32 scene_id, RetryGroupRow *group)
{
	RetrySceneRow scene;

	if (!retry_scene_by_id(GetActiveSnapshot(), scene_id, &scene))
		return false;
	*group = scene.group;
	return group->limits.shared;
}

/*
 * What may fail in a global transaction has had its consequences, and must not
 * be done after them; what must be done there may be tried again.
 */
static bool
is_past(HeapTuple row, TupleDesc desc)
{
	bool		isnull;
	Datum		on_dead = heap_getattr(row, Task_on_dead + 1, desc, &isnull);
	RetryPart	part = isnull ? RETRY_PART_NONE : retry_part(TextDatumGetCString(on_dead));

	return part == RETRY_PART_FIRST || part == RETRY_PART_TIMER;
}

/*
 * retry.replay(id): explicit, so a dead letter may be replayed so again; it
 * then still shows the first replay.
 */
Datum
retry_replay(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *new_id = palloc(sizeof(pg_uuid_t));
	TimestampTz now = GetCurrentTimestamp();
	RetryLocated task;
	RetryGroupRow group;
	RetryWriter *writer;

	retry_locate(PG_GETARG_UUID_P(0), &task);
	if (!task.probe.terminal && !task.probe.cancelled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task %s has not finished", retry_id_text(&task.id)),
				 errhint("retry.run_now() makes its next attempt now.")));

	if (is_past(task.row, task.desc))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task %s is an action or a try of a global transaction, which has gone on without it",
						retry_id_text(&task.id)),
				 errhint("Begin the transaction again.")));
	writer = retry_writer_begin("retry.replay()");
	if (find_limits(task.scene_id, &group))
	{
		retry_group_admit(&group, 1, false);
		retry_writer_group(writer, &group);
	}
	retry_new_id(now, new_id);
	if (task.probe.terminal && task.probe.outcome != RETRY_SUCCEEDED)
	{
		RetryRoleSwitch caller;

		(void) mark_replayed(connect_to_mark(&caller), &task.id, new_id);
		retry_become_caller(&caller);
		SPI_finish();
	}
	write_replay(writer, task.row, task.desc, task.changes, GetUserId(), new_id, now);
	retry_scene_keep_id(task.scene_id);
	retry_writer_end(writer);
	retry_audit_task("task replayed", &task, NULL);
	PG_RETURN_UUID_P(new_id);
}

static Datum
int4_array(const int32 *ids, int count)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		elements[i] = Int32GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elements, count, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

static void
replay_row(ReplayDead *call, HeapTuple row, TupleDesc desc)
{
	bool		isnull;
	Datum		id = heap_getattr(row, Task_id + 1, desc, &isnull);
	int32		scene_id = DatumGetInt32(heap_getattr(row, Task_scene_id + 1, desc, &isnull));
	Oid			enqueued_by = DatumGetObjectId(heap_getattr(row, Task_enqueued_by + 1, desc, &isnull));
	TimestampTz due_at;
	pg_uuid_t	new_id;

	if (!retry_selection_has(&call->selection, scene_id, enqueued_by) || is_past(row, desc))
		return;
	due_at = retry_spread_due(call->selection.now, call->selection.spread_us,
							  call->seen++, call->total);

	retry_new_id(call->selection.now, &new_id);
	if (mark_replayed(call->mark, DatumGetUUIDP(id), &new_id))
	{
		if (scene_id != call->kept)
		{
			call->limited = find_limits(scene_id, &call->group);
			call->writer->laned = NULL;
			if (call->limited)
				retry_writer_group(call->writer, &call->group);
		}
		if (call->limited)
			retry_group_admit(&call->group, 1, false);
		write_replay(call->writer, row, desc, NIL, call->selection.role, &new_id, due_at);
		if (scene_id != call->kept)
			retry_scene_keep_id(scene_id);
		call->kept = scene_id;
		call->replayed++;
	}
}

/* How many there are, which only spreading them needs to know. */
static int64
count_dead(ReplayDead *call)
{
	bool		isnull;
	int			rc = SPI_execute_with_args(dead_count, FILTERS, filter_types, call->values, call->nulls, true, 0);
	int64		count;

	if (rc != SPI_OK_SELECT)
		spi_failed(rc);
	count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return count;
}

/* Is one of the scenes ordered? */
static bool
in_order(ReplayDead *call)
{
	int			rc = SPI_execute_with_args(is_ordered, 1, filter_types, call->values, call->nulls, true, 1);

	if (rc != SPI_OK_SELECT)
		spi_failed(rc);
	SPI_freetuptable(SPI_tuptable);
	return SPI_processed > 0;
}

/* Shows how many there are, as counted or as the planner thinks. */
static void
show_total(const ReplayDead *call, Portal portal)
{
	PlannedStmt *plan = PortalGetPrimaryStmt(portal);
	bool		counted = call->selection.spread_us > 0;

	retry_progress_phase(call->progress, "replaying dead letters",
						 counted ? call->total : plan != NULL ? (int64) plan->planTree->plan_rows : -1, !counted);
}

/* Replays them in batches, so that memory does not grow with their number. */
static void
replay_all(ReplayDead *call)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "retry replay",
												  ALLOCSET_DEFAULT_SIZES);
	Portal		portal;
	int64		looked_at = 0;

	if (call->selection.spread_us > 0)
	{
		retry_progress_phase(call->progress, "counting dead letters", -1, false);
		call->total = count_dead(call);
	}
	portal = SPI_cursor_open_with_args(NULL, in_order(call) ? dead_rows_in_order : dead_rows, FILTERS, filter_types, call->values, call->nulls, true, 0);
	show_total(call, portal);
	for (;;)
	{
		SPITupleTable *batch;
		uint64		n;

		SPI_cursor_fetch(portal, true, REPLAY_BATCH);
		batch = SPI_tuptable;
		n = SPI_processed;
		if (n == 0)
			break;
		for (uint64 i = 0; i < n; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(scratch);

			CHECK_FOR_INTERRUPTS();
			replay_row(call, batch->vals[i], batch->tupdesc);
			retry_progress_set(call->progress, ++looked_at, call->replayed);
			MemoryContextSwitchTo(old);
		}
		SPI_freetuptable(batch);
		MemoryContextReset(scratch);
	}
	SPI_cursor_close(portal);
	MemoryContextDelete(scratch);
}

static void
set_filter(ReplayDead *call, int number, bool given, Datum value)
{
	call->values[number] = given ? value : (Datum) 0;
	call->nulls[number] = given ? ' ' : 'n';
}

/* The filters as parameters of the query; "reason" is an argument's number. */
static void
set_filters(FunctionCallInfo fcinfo, ReplayDead *call, int reason)
{
	const RetrySelection *s = &call->selection;
	char	   *label = NULL;

	if (!PG_ARGISNULL(reason))
		label = DatumGetCString(OidFunctionCall1(F_ENUM_OUT, PG_GETARG_DATUM(reason)));
	set_filter(call, 0, true, int4_array(s->scenes, s->nscenes));
	set_filter(call, 1, s->since != DT_NOBEGIN, TimestampTzGetDatum(s->since));
	set_filter(call, 2, s->until != DT_NOEND, TimestampTzGetDatum(s->until));
	set_filter(call, 3, s->reference != NULL, PointerGetDatum(s->reference));
	set_filter(call, 4, s->key_prefix != NULL, PointerGetDatum(s->key_prefix));
	set_filter(call, 5, s->error != NULL, PointerGetDatum(s->error));
	set_filter(call, 6, label != NULL, label != NULL ? CStringGetTextDatum(label) : (Datum) 0);
}

/*
 * retry.replay_dead(target, since, until, reference, spread, group_name,
 * key_prefix, error, reason)
 */
Datum
retry_replay_dead(PG_FUNCTION_ARGS)
{
	static const RetrySelectionArgs args = {0, 1, 2, 3, 4, 5, 6, 7};
	ReplayDead	call = {0};
	RetryProgress *progress;
	RetryRoleSwitch caller;

	retry_selection_read(fcinfo, &args, GetActiveSnapshot(), &call.selection);
	set_filters(fcinfo, &call, 8);

	progress = call.progress = retry_progress_begin_call(fcinfo, "retry.replay_dead()",
														 call.selection.nscenes == 1 ? call.selection.scenes[0] : 0);
	PG_TRY();
	{
		call.writer = retry_writer_begin("retry.replay_dead()");
		call.mark = connect_to_mark(&caller);
		replay_all(&call);
	}
	PG_FINALLY();
	{
		retry_progress_end(progress);
	}
	PG_END_TRY();
	retry_become_caller(&caller);
	SPI_finish();
	retry_writer_end(call.writer);
	retry_audit_call(fcinfo, "dead letters replayed", call.replayed);
	PG_RETURN_INT64(call.replayed);
}
