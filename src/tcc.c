/*
 * tcc.c
 *		retry.tcc_begin() and retry.tcc_branch(): try, then confirm or cancel.
 *
 * A transaction is begun, gets branches, and is decided over by whoever began it
 * (advance.c), by a try that fails, or by its time: a timer that is a task like
 * any other, of which nothing is sent.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "advance.h"
#include "arguments.h"
#include "locate.h"
#include "operation_new.h"
#include "part.h"
#include "scene_use.h"
#include "statement.h"
#include "target.h"

PG_FUNCTION_INFO_V1(retry_tcc_begin);
PG_FUNCTION_INFO_V1(retry_tcc_branch);

/* The lane of timers: nothing is in their way there. */
#define TIMER_LANE	"transactions"

/* Arguments of retry.tcc_begin(). */
enum
{
	Begin_timeout, Begin_scene, Begin_key, Begin_reference
};

/* Arguments of retry.tcc_branch(). */
enum
{
	Branch_gid, Branch_name, Branch_try, Branch_confirm, Branch_cancel, Branch_payload, Branch_options
};

static TimestampTz
end_of_time(Datum timeout, TimestampTz now)
{
	TimestampTz end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now), timeout));

	if (end <= now || end - now > 30 * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout is not more than 0 and at most 30 days: %s",
						DatumGetCString(DirectFunctionCall1(interval_out, timeout)))));
	return end;
}

/* The task whose turn is the end of the transaction's time. */
static void
store_timer(RetryWriter *writer, const RetryGlobal *global, const RetrySceneRow *scene, TimestampTz due_at)
{
	RetryLaneTask of = {.named = cstring_to_text(TIMER_LANE)};
	Datum		values[Task_natts];
	bool		isnull[Task_natts];
	text	   *lane;
	int64		hash;

	memset(isnull, true, sizeof(isnull));
	retry_lane_choose(&scene->lanes, &of, &lane, &hash);
	RETRY_FILL(Task_scene_id, true, Int32GetDatum(scene->id));
	RETRY_FILL(Task_enqueued_by, true, ObjectIdGetDatum(global->begun_by));
	RETRY_FILL(Task_lane_hash, true, Int64GetDatum(hash));
	RETRY_FILL(Task_lane, lane != NULL, PointerGetDatum(lane));
	RETRY_FILL(Task_reference, global->reference != NULL, PointerGetDatum(global->reference));
	RETRY_FILL(Task_on_success, true, CStringGetTextDatum(RETRY_PART_TIMER_WORD));
	RETRY_FILL(Task_on_dead, true, CStringGetTextDatum(RETRY_PART_TIMER_WORD));
	RETRY_FILL(Task_parent_id, true, UUIDPGetDatum(&global->gid));
	retry_group_admit(&scene->group, 1, true);
	retry_writer_group(writer, &scene->group);
	retry_write_task(writer, &global->check_id, due_at, values, isnull);
	retry_scene_keep(scene);
}

static void
find_scene(text *given, RetrySceneRow *scene)
{
	RetryTarget target;

	retry_target_read("scene", text_to_cstring(given), &target);
	if (target.kind == RETRY_TARGET_URL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("scene is a URL or a function: \"%.100s\"", text_to_cstring(given)),
				 errhint("The scene says who may decide over the transaction; its branches name their targets.")));
	retry_target_find("scene", &target, GetActiveSnapshot(), GetUserId(), scene);
}

/* retry.tcc_begin(timeout, scene, key, reference) */
Datum
retry_tcc_begin(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *gid = palloc(sizeof(pg_uuid_t));
	TimestampTz now = GetCurrentTimestamp();
	RetryGlobal begun = {.mode = RETRY_MODE_TCC,.begun_by = GetUserId(),.at_limit = RETRY_ROLLBACK,.has_check = true};
	RetrySceneRow scene;
	RetryWriter *writer;

	retry_require_argument(fcinfo, Begin_timeout, "timeout");
	retry_require_argument(fcinfo, Begin_scene, "scene");
	begun.expires_at = end_of_time(PG_GETARG_DATUM(Begin_timeout), now);
	if (!PG_ARGISNULL(Begin_key))
		begun.key = PG_GETARG_TEXT_PP(Begin_key);
	if (!PG_ARGISNULL(Begin_reference))
		begun.reference = PG_GETARG_TEXT_PP(Begin_reference);
	if (begun.key != NULL)
		retry_check_short_text("key", begun.key);
	if (begun.reference != NULL)
		retry_check_short_text("reference", begun.reference);
	find_scene(PG_GETARG_TEXT_PP(Begin_scene), &scene);
	begun.scene_id = scene.id;
	retry_new_id(now, gid);
	retry_new_id(now, &begun.check_id);

	writer = retry_writer_begin("retry.tcc_begin()");
	if (retry_operation_claim(&scene, begun.key, now, gid))
	{
		begun.gid = *gid;
		retry_global_store(&begun, now);
		store_timer(writer, &begun, &scene, begun.expires_at);
	}
	retry_writer_end(writer);
	PG_RETURN_UUID_P(gid);
}

/* ---------------------------------------------------------------- branches */

static void
refuse_late(const RetryWhole *whole, const char *name)
{
	const char *gid = retry_id_text(&whole->global.gid);

	if (whole->global.mode != RETRY_MODE_TCC)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("transaction %s was not begun by retry.tcc_begin()", gid)));
	if (whole->known.decision != RETRY_UNDECIDED || whole->known.may_commit)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("transaction %s gets no other branch, since it is %s", gid,
						whole->known.decision == RETRY_ROLLBACK ? "rolled back" : "to be committed")));
	if (whole->known.n >= RETRY_MAX_BRANCHES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("transaction %s has %d branches, and gets no more", gid, RETRY_MAX_BRANCHES)));
	for (int i = 0; i < whole->n; i++)
	{
		if (strcmp(whole->operations[i].name, name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("transaction %s has a branch \"%s\"", gid, name)));
	}
}

static JsonbContainer *
read_options(Jsonb *given)
{
	JsonbIterator *it;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options is not an object")));
	it = JsonbIteratorInit(&given->root);
	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &value, true) == WJB_KEY)
	{
		if (!retry_operation_option(value.val.string.val, value.val.string.len))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown option \"%.*s\"", Min(value.val.string.len, 100), value.val.string.val),
					 errhint("There are headers, timeout, backoff, max_attempts, lane, method, content_type and reference.")));
		(void) JsonbIteratorNext(&it, &value, true);
	}
	return &given->root;
}

/* retry.tcc_branch(gid, name, try, confirm, cancel, payload, options) */
Datum
retry_tcc_branch(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"gid", "name", "try", "confirm", "cancel"};
	static const RetryOp ops[] = {RETRY_OP_TRY, RETRY_OP_CONFIRM, RETRY_OP_CANCEL};
	RetryNewOperation *made = palloc0(lengthof(ops) * sizeof(RetryNewOperation));
	RetryWhole	whole;
	RetrySceneRow scene;
	RetryWriter *writer;
	RetryAppender *appender;
	char	   *name;

	for (int i = 0; i < lengthof(names); i++)
	{
		if (i != Branch_try)
			retry_require_argument(fcinfo, i, names[i]);
	}
	retry_require_writable("retry.tcc_branch()");
	name = text_to_cstring(PG_GETARG_TEXT_PP(Branch_name));
	retry_operation_check_name(name);
	retry_advance_open(PG_GETARG_UUID_P(Branch_gid), &whole, &scene);
	refuse_late(&whole, name);
	for (int i = 0; i < lengthof(ops); i++)
	{
		RetryNewOperation *o = &made[i];

		if (PG_ARGISNULL(Branch_try + i))
			continue;
		o->gid = &whole.global.gid;
		o->branch = whole.known.n;
		o->name = name;
		o->op = ops[i];
		o->target = PG_GETARG_TEXT_PP(Branch_try + i);
		o->payload = PG_ARGISNULL(Branch_payload) ? NULL : PG_GETARG_JSONB_P(Branch_payload);
		o->options = PG_ARGISNULL(Branch_options) ? NULL : read_options(PG_GETARG_JSONB_P(Branch_options));
		o->expires_at = whole.global.expires_at;
		retry_operation_make(o);
	}

	writer = retry_writer_begin("retry.tcc_branch()");
	appender = retry_operation_appender();
	for (int i = 0; i < lengthof(ops); i++)
	{
		if (!PG_ARGISNULL(Branch_try + i))
			retry_operation_store(appender, &made[i]);
	}
	retry_append_end(appender);
	if (!PG_ARGISNULL(Branch_try))
		(void) retry_store_new_task(writer, &made[0].task);
	retry_writer_end(writer);
	PG_RETURN_VOID();
}
