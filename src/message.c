/*
 * message.c
 *		retry.prepare(), retry.commit() and retry.rollback(): messages that
 *		are delivered when somebody else has committed.
 *
 * What is prepared is a task that no dispatcher can see, since its row is not
 * in a leaf; a commit puts it there.  So nothing on the way of ordinary tasks
 * knows of it, and a message is delivered if and only if the decision's own
 * transaction has stored its task.  Who never decides is asked: the check is an
 * ordinary task, stored with the message, which decides when it ends
 * (record_decision.c), and is cancelled by whoever decides before.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "compat.h"
#include "access.h"
#include "advance.h"
#include "arguments.h"
#include "audit.h"
#include "enqueue.h"
#include "global.h"
#include "json_member.h"
#include "locate.h"
#include "part.h"
#include "row.h"
#include "scene_use.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(retry_prepare);
PG_FUNCTION_INFO_V1(retry_commit);
PG_FUNCTION_INFO_V1(retry_rollback);

extern Datum retry_backoff_in(PG_FUNCTION_ARGS);

/* Arguments of retry.enqueue(), of which the first two are given to a check. */
enum
{
	Arg_target, Arg_payload, Arg_delay = 3, Arg_max_attempts = 12,
	Arg_reference, Arg_backoff = 15, Arg_enqueue_args = 19
};

/* Those that retry.prepare() has besides. */
enum
{
	Arg_check = Arg_enqueue_args, Arg_check_after, Arg_check_every,
	Arg_check_limit, Arg_undecided
};

/* When a message is asked about, and what holds when nobody knows. */
typedef struct CheckRules
{
	text	   *target;
	Interval   *after;
	Interval   *every;
	int32		limit;
	RetryDecision at_limit;
} CheckRules;

/* ---------------------------------------------------------------- prepare */

/* What the scene of the message says; the row is one that the snapshot sees. */
static void
scene_rules(const RetrySceneRow *scene, CheckRules *rules)
{
	Relation	rel = table_open(retry_relation_oid("scene"), AccessShareLock);
	Datum		values[Scene_natts];
	bool		isnull[Scene_natts];
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Scene_id + 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(scene->id));
	tuple = retry_row_find(rel, retry_relation_oid("scene_id_key"), &key, GetActiveSnapshot());
	if (tuple == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("scene \"%s/%s\" does not exist any more", scene->group.name, scene->name)));
	retry_row_read(tuple, RelationGetDescr(rel), Scene_natts, values, isnull);
	rules->target = isnull[Scene_check_target] ? NULL : DatumGetTextPP(values[Scene_check_target]);
	rules->after = DatumGetIntervalP(values[Scene_check_after]);
	rules->every = DatumGetIntervalP(values[Scene_check_every]);
	rules->limit = DatumGetInt32(values[Scene_check_limit]);
	rules->at_limit = retry_decision_in(values[Scene_undecided]);
	table_close(rel, NoLock);
}

/* Between the same bounds as the columns of retry.scene; in milliseconds. */
static int64
check_interval(const char *what, Interval *interval, int64 least_ms)
{
	double		ms = (((double) interval->month * DAYS_PER_MONTH + interval->day) * (double) USECS_PER_DAY +
					  (double) interval->time) / 1000.0;

	if (!(ms >= (double) least_ms && ms <= 30.0 * SECS_PER_DAY * 1000))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is not between %s and 30 days: %s", what, least_ms == 0 ? "0" : "1 ms",
						DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval))))));
	return (int64) ms;
}

/* The rules of the scene, and what the call says in place of them. */
static void
read_rules(FunctionCallInfo fcinfo, const RetrySceneRow *scene, CheckRules *rules)
{
	static const char *const words[] = {"commit", "rollback"};
	static const RetryDecision meant[] = {RETRY_COMMIT, RETRY_ROLLBACK};

	scene_rules(scene, rules);
	if (!PG_ARGISNULL(Arg_check))
		rules->target = PG_GETARG_TEXT_PP(Arg_check);
	if (!PG_ARGISNULL(Arg_check_after))
		rules->after = PG_GETARG_INTERVAL_P(Arg_check_after);
	if (!PG_ARGISNULL(Arg_check_every))
		rules->every = PG_GETARG_INTERVAL_P(Arg_check_every);
	if (!PG_ARGISNULL(Arg_check_limit))
		rules->limit = PG_GETARG_INT32(Arg_check_limit);
	if (!PG_ARGISNULL(Arg_undecided))
		rules->at_limit = meant[retry_check_word("undecided", PG_GETARG_TEXT_PP(Arg_undecided), words, lengthof(words))];
	if (rules->target == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("check_target must not be null, since scene \"%s/%s\" has none",
						scene->group.name, scene->name),
				 errhint("A check is a target that says whether the message is to be delivered.")));
	if (rules->limit < 1 || rules->limit > 10000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("check_limit is not between 1 and 10000: %d", rules->limit)));
	(void) check_interval("check_after", rules->after, 0);
}

/* What a check is asked with: which transaction, in the words of who began it. */
static Jsonb *
question(const RetryNewTask *message)
{
	const RetryEnqueueOptions *o = &message->options;
	char	   *gid = retry_id_text(&message->id);
	char	   *scene = psprintf("%s/%s", o->scene.group.name, o->scene.name);
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	retry_push_string(&state, "gid", gid);
	retry_push_string(&state, "scene", scene);
	if (o->key != NULL)
		retry_push_string(&state, "key", text_to_cstring(o->key));
	if (o->reference != NULL)
		retry_push_string(&state, "reference", text_to_cstring(o->reference));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* The same for who looks at headers alone; a function has none. */
static Jsonb *
question_headers(const RetryNewTask *message)
{
	char	   *gid = retry_id_text(&message->id);
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	retry_push_string(&state, "Retry-Gid", gid);
	retry_push_string(&state, "Retry-Branch", "message");
	retry_push_string(&state, "Retry-Operation", "check");
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
name_check(void *arg)
{
	errcontext("check of a message");
}

static void
refuse_fanout(const char *what, const RetryNewTask *task)
{
	if (task->options.fanout != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s goes to all targets of scene \"%s/%s\"", what,
						task->options.scene.group.name, task->options.scene.name),
				 errhint("A message goes to one target, and one is asked about it.")));
}

/* Makes the task that asks, as the caller could enqueue it. */
static void
make_check(const RetryNewTask *message, const CheckRules *rules, RetryNewTask *check)
{
	LOCAL_FCINFO(args, Arg_enqueue_args);
	Datum	   *values = check->values;
	bool	   *isnull = check->isnull;
	ErrorContextCallback context = {error_context_stack, name_check, NULL};
	char	   *backoff = psprintf("fixed " INT64_FORMAT "ms", check_interval("check_every", rules->every, 1));

	InitFunctionCallInfoData(*args, NULL, Arg_enqueue_args, InvalidOid, NULL, NULL);
	for (int i = 0; i < Arg_enqueue_args; i++)
		args->args[i].isnull = true;

#define GIVE(arg, datum) (args->args[arg].isnull = false, args->args[arg].value = (datum))
	GIVE(Arg_target, PointerGetDatum(rules->target));
	GIVE(Arg_payload, JsonbPGetDatum(question(message)));
	GIVE(Arg_delay, IntervalPGetDatum(rules->after));
	GIVE(Arg_max_attempts, Int32GetDatum(rules->limit));
	GIVE(Arg_backoff, DirectFunctionCall1(retry_backoff_in, CStringGetDatum(backoff)));
	if (message->options.reference != NULL)
		GIVE(Arg_reference, PointerGetDatum(message->options.reference));
#undef GIVE

	error_context_stack = &context;
	retry_new_task(args, RETRY_SIGNATURE_ENQUEUE, check);
	refuse_fanout("check", check);
	error_context_stack = context.previous;

	RETRY_FILL(Task_on_success, true, CStringGetTextDatum(RETRY_PART_CHECK_WORD));
	RETRY_FILL(Task_on_dead, true, CStringGetTextDatum(RETRY_PART_CHECK_WORD));
	RETRY_FILL(Task_parent_id, true, UUIDPGetDatum(&message->id));
	RETRY_FILL(Task_headers, !check->options.sql, JsonbPGetDatum(question_headers(message)));
}

/* False when a live task or a message has its key: that one's id is in "id" then. */
static bool
claim_key(RetryNewTask *message)
{
	RetryKeyring keyring;
	bool		is_new;

	if (message->isnull[Task_key])
		return true;
	retry_keyring_begin(&keyring, &message->options.scene, message->options.on_conflict);
	is_new = retry_key_claim(&keyring, DatumGetTextPP(message->values[Task_key]),
							 retry_leaf_for(&message->id, message->due_at), &message->id);
	retry_keyring_end(&keyring);
	return is_new;
}

/* Stores a message, with the check that is due if nobody decides. */
static void
store_message(RetryWriter *writer, RetryNewTask *message, RetryNewTask *check, RetryDecision at_limit)
{
	Datum	   *values = message->values;
	bool	   *isnull = message->isnull;
	RetryGlobal global = {
		.gid = message->id,.mode = RETRY_MODE_MESSAGE,.scene_id = message->options.scene.id,
		.begun_by = GetUserId(),.at_limit = at_limit,.has_check = true,.check_id = check->id
	};

	(void) retry_store_new_task(writer, check);
	RETRY_FILL(Task_leaf, true, Int16GetDatum(retry_leaf_for(&message->id, message->due_at)));
	RETRY_FILL(Task_inert, true, BoolGetDatum(false));
	RETRY_FILL(Task_id, true, UUIDPGetDatum(&message->id));
	RETRY_FILL(Task_xid, true, FullTransactionIdGetDatum(GetTopFullTransactionId()));
	RETRY_FILL(Task_due_at, true, TimestampTzGetDatum(message->due_at));
	retry_global_store(&global, message->now);
	retry_global_store_message(values, isnull);
	retry_scene_keep(&message->options.scene);
}

/* retry.prepare(): what retry.enqueue() does, up to the moment that it is delivered. */
Datum
retry_prepare(PG_FUNCTION_ARGS)
{
	RetryNewTask *message = palloc(sizeof(RetryNewTask));
	RetryNewTask *check = palloc(sizeof(RetryNewTask));
	CheckRules	rules;
	RetryWriter *writer;

	retry_new_task(fcinfo, RETRY_SIGNATURE_ENQUEUE, message);
	refuse_fanout("message", message);
	read_rules(fcinfo, &message->options.scene, &rules);
	make_check(message, &rules, check);
	writer = retry_writer_begin("retry.prepare()");
	if (claim_key(message))
		store_message(writer, message, check, rules.at_limit);
	retry_writer_end(writer);
	PG_RETURN_UUID_P(&message->id);
}

/* ---------------------------------------------------------------- commit, rollback */

/* ERROR unless the caller may decide over it; its scene is found for that. */
static void
check_rights(const RetryGlobal *global, RetrySceneRow *scene)
{
	bool		allowed;

	PushActiveSnapshot(GetLatestSnapshot());
	allowed = retry_scene_by_id(GetActiveSnapshot(), global->scene_id, scene) &&
		retry_may_use_task(GetActiveSnapshot(), GetUserId(), &scene->group, global->begun_by);
	PopActiveSnapshot();
	if (!allowed)
		retry_no_such_transaction(&global->gid);
}

/* The message becomes a task like any other, which its group must have room for. */
static void
deliver(RetryWriter *writer, const RetryGlobal *global, const RetrySceneRow *scene)
{
	Datum		values[Task_natts];
	bool		isnull[Task_natts];
	TimestampTz due_at;
	bool		busy;

	if (!retry_global_message(&global->gid, true, values, isnull, &due_at, &busy))
		retry_no_such_transaction(&global->gid);
	retry_group_admit(&scene->group, 1, true);
	retry_writer_group(writer, &scene->group);
	retry_write_task(writer, &global->gid, due_at, values, isnull);
	retry_scene_keep(scene);
}

/* Somebody else decides over what another role has begun: that is to be known later. */
static void
note_forced(const RetryGlobal *global, const RetrySceneRow *scene, RetryDecision decision)
{
	RetryAuditEntry entry = {
		.action = decision == RETRY_COMMIT ? "message committed" : "message rolled back",
		.group = &scene->group,.object = scene->name,.task_id = &global->gid
	};

	if (global->begun_by != GetUserId())
		retry_audit(&entry);
}

/* True: this call has decided; false: it was decided so before. */
static bool
decide(const char *function, const pg_uuid_t *gid, RetryDecision decision)
{
	RetryGlobal global;
	RetrySceneRow scene;
	RetryDecision before;
	RetryWriter *writer;

	retry_require_writable(function);
	if (!retry_global_find(gid, &global))
		retry_no_such_transaction(gid);
	if (global.mode != RETRY_MODE_MESSAGE)
		return retry_advance_decide(function, &global, decision);
	check_rights(&global, &scene);
	if (retry_global_lock(gid, true, &global, &before) != RETRY_GLOBAL_LOCKED)
		retry_no_such_transaction(gid);
	if (before == decision)
		return false;
	if (before != RETRY_UNDECIDED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message %s is %s already", retry_id_text(gid),
						before == RETRY_COMMIT ? "committed" : "rolled back"),
				 errhint("A decision is final; the view retry.transactions shows when and by whom it was made.")));

	writer = retry_writer_begin(function);
	retry_global_decide(gid, decision);
	if (decision == RETRY_COMMIT)
		deliver(writer, &global, &scene);
	if (global.has_check)		/* nobody need be asked any more */
		retry_advance_signal(writer, &global.check_id, RETRY_SIGNAL_CANCEL);
	retry_writer_end(writer);
	note_forced(&global, &scene, decision);
	return true;
}

/* retry.commit(id) */
Datum
retry_commit(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(decide("retry.commit()", PG_GETARG_UUID_P(0), RETRY_COMMIT));
}

/* retry.rollback(id) */
Datum
retry_rollback(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(decide("retry.rollback()", PG_GETARG_UUID_P(0), RETRY_ROLLBACK));
}
