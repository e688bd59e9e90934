/*
 * advance.c
 *		What sessions do to sagas and TCC transactions: decide and settle.
 *
 * What follows from what is said here is the same as when a task's end says it
 * (record_operation.c), and is stored in the caller's transaction: it counts when
 * that commits.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "advance.h"
#include "arguments.h"
#include "audit.h"
#include "locate.h"
#include "statement.h"
#include "twophase.h"

PG_FUNCTION_INFO_V1(retry_settle);

void
retry_no_such_transaction(const pg_uuid_t *gid)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("transaction %s does not exist", retry_id_text(gid)),
			 errhint("The view retry.transactions shows what was begun, as far as you may see it.")));
}

void
retry_advance_open(const pg_uuid_t *gid, RetryWhole *whole, RetrySceneRow *scene)
{
	RetryDecision decision = RETRY_UNDECIDED;
	bool		allowed;

	if (!retry_global_find(gid, &whole->global) || whole->global.mode == RETRY_MODE_MESSAGE)
		retry_no_such_transaction(gid);
	PushActiveSnapshot(GetLatestSnapshot());
	allowed = retry_scene_by_id(GetActiveSnapshot(), whole->global.scene_id, scene) &&
		retry_may_use_task(GetActiveSnapshot(), GetUserId(), &scene->group, whole->global.begun_by);
	PopActiveSnapshot();
	if (!allowed || retry_global_lock(gid, true, &whole->global, &decision) != RETRY_GLOBAL_LOCKED)
		retry_no_such_transaction(gid);
	retry_whole_read(whole, decision);
}

void
retry_advance_note(const pg_uuid_t *gid, int branch, const char *op, const char *outcome, Oid by)
{
	Datum		values[Outcome_natts];
	bool		isnull[Outcome_natts];
	RetryAppender *appender = retry_append_begin(retry_relation_oid("global_outcome"), Outcome_natts, false);

	retry_outcome_row(gid, branch, op, outcome, GetCurrentTimestamp(), by, values, isnull);
	retry_append_row(appender, values, isnull);
	retry_append_end(appender);
}

/* Its group has one task more, however many there are: what is decided must be done. */
static void
count_task(RetryWriter *writer, int32 scene_id)
{
	RetrySceneRow scene;
	RetryGroupRow *group;

	PushActiveSnapshot(GetLatestSnapshot());
	if (retry_scene_by_id(GetActiveSnapshot(), scene_id, &scene) && scene.group.limits.shared)
	{
		group = palloc(sizeof(RetryGroupRow));
		*group = scene.group;
		group->limits.max_pending = -1;
		if (group->limits.max_lanes >= 0)
			group->limits.max_lanes = PG_INT32_MAX;
		retry_group_admit(group, 1, false);
		retry_writer_group(writer, group);
	}
	PopActiveSnapshot();
}

void
retry_advance_begin(RetryWriter *writer, RetryWhole *whole, const RetryOperation *operation)
{
	Datum		values[Task_natts];
	bool		isnull[Task_natts];
	TimestampTz due_at;

	retry_operation_task(whole, operation, values, isnull);
	due_at = DatumGetTimestampTz(values[Task_due_at]);
	writer->laned = NULL;
	count_task(writer, operation->scene_id);
	retry_write_task(writer, &operation->id, Max(due_at, GetCurrentTimestamp()), values, isnull);
	writer->laned = NULL;
}

void
retry_advance_signal(RetryWriter *writer, const pg_uuid_t *task_id, char action)
{
	RetryReader *reader;
	TupleTableSlot *slot;
	RetryProbe	probe;
	int			leaf = -1;

	PushActiveSnapshot(GetLatestSnapshot());
	reader = retry_reader_begin(GetActiveSnapshot(), false);
	slot = retry_find_task(reader, task_id, NULL, &leaf);
	if (slot != NULL)
	{
		int64		lane_hash = DatumGetInt64(retry_column(slot, Task_lane_hash));

		retry_probe_task(reader, leaf, task_id, &probe);
		if (!probe.terminal && !probe.cancelled)
			retry_write_signal(writer, action, task_id, leaf, lane_hash, probe.attempts, GetUserId());
	}
	retry_reader_end(reader);
	PopActiveSnapshot();
}

/* Does this for the operation of that phase in each of these branches. */
static void
begin_all(RetryWriter *writer, RetryWhole *whole, RetryBranchSet branches, RetryOpPhase phase)
{
	for (int i = 0; i < whole->n; i++)
	{
		const RetryOperation *o = &whole->operations[i];

		if ((branches & RETRY_BRANCH(o->branch)) != 0 && retry_op_phase(o->op) == phase)
			retry_advance_begin(writer, whole, o);
	}
}

void
retry_advance(RetryWriter *writer, RetryWhole *whole, RetryBranches *after)
{
	const RetryGlobal *global = &whole->global;
	RetryCourse course;

	retry_branches_go_on(&whole->known, after, &course);
	if (course.decision != RETRY_UNDECIDED)
	{
		retry_global_decide(&global->gid, course.decision);
		if (global->has_check)
			retry_advance_signal(writer, &global->check_id, RETRY_SIGNAL_CANCEL);
	}
	for (int i = 0; i < whole->n; i++)
	{
		const RetryOperation *o = &whole->operations[i];
		RetryBranchSet branch = RETRY_BRANCH(o->branch);
		RetryOpPhase phase = retry_op_phase(o->op);

		if ((course.not_begun & branch) != 0 && phase != RETRY_PHASE_CONFIRM)
			retry_advance_note(&global->gid, o->branch, retry_op_word(o->op), "not begun", InvalidOid);
		if ((course.stop & branch) != 0 && phase == RETRY_PHASE_FIRST)
			retry_advance_signal(writer, &o->id, RETRY_SIGNAL_RUN_NOW);
	}
	begin_all(writer, whole, course.first, RETRY_PHASE_FIRST);
	begin_all(writer, whole, course.confirm, RETRY_PHASE_CONFIRM);
	begin_all(writer, whole, course.undo, RETRY_PHASE_UNDO);
	whole->known = *after;
}

/* Somebody else decides over what another role has begun: that is to be known later. */
static void
note_forced(const RetryWhole *whole, const RetrySceneRow *scene, RetryDecision decision)
{
	RetryAuditEntry entry = {
		.action = decision == RETRY_COMMIT ? "transaction committed" : "transaction rolled back",
		.group = &scene->group,.object = scene->name,.task_id = &whole->global.gid
	};

	if (whole->global.begun_by != GetUserId())
		retry_audit(&entry);
}

static void
refuse_commit(const RetryWhole *whole)
{
	if (whole->global.mode == RETRY_MODE_SAGA)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("transaction %s is a saga, which is committed when its actions are done",
						retry_id_text(&whole->global.gid)),
				 errhint("retry.rollback() ends it before; retry.settle() regards an action as done.")));
}

bool
retry_advance_decide(const char *function, RetryGlobal *global, RetryDecision decision)
{
	RetryWhole	whole;
	RetryBranches after;
	RetrySceneRow scene;
	RetryWriter *writer;

	retry_advance_open(&global->gid, &whole, &scene);
	if (whole.known.decision == decision)
		return false;
	if (whole.known.decision != RETRY_UNDECIDED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("transaction %s is %s already", retry_id_text(&global->gid),
						whole.known.decision == RETRY_COMMIT ? "committed" : "rolled back"),
				 errhint("A decision is final; the view retry.transactions shows when and by whom it was made.")));
	after = whole.known;
	if (decision == RETRY_COMMIT)
	{
		refuse_commit(&whole);
		if (whole.global.mode == RETRY_MODE_2PC)
		{
			retry_twophase_before_commit(&whole.global, &scene);
			retry_whole_read(&whole, RETRY_UNDECIDED);
			after = whole.known;
		}
		if (whole.known.may_commit)
			return false;
		after.may_commit = true;
	}
	else
		after.decision = RETRY_ROLLBACK;

	writer = retry_writer_begin(function);
	if (decision == RETRY_COMMIT)
		retry_advance_note(&global->gid, -1, "commit", "asked", GetUserId());
	retry_advance(writer, &whole, &after);
	retry_writer_end(writer);
	note_forced(&whole, &scene, decision);
	return true;
}

/* ---------------------------------------------------------------- settle */

static RetryOperation *
find_operation(RetryWhole *whole, const char *branch, const char *op)
{
	for (int i = 0; i < whole->n; i++)
	{
		RetryOperation *o = &whole->operations[i];

		if (strcmp(o->name, branch) == 0 && strcmp(retry_op_word(o->op), op) == 0)
			return o;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("transaction %s has no operation \"%s\" of a branch \"%s\"", retry_id_text(&whole->global.gid), op, branch),
			 errhint("The view retry.branches shows its operations.")));
}

static void
audit_settled(const RetryWhole *whole, const RetrySceneRow *scene, const RetryOperation *o, bool done)
{
	RetryAuditEntry entry = {
		.action = done ? "operation settled as done" : "operation settled as failed",
		.group = &scene->group,.task_id = &whole->global.gid
	};

	entry.object = psprintf("%s of %s", retry_op_word(o->op), o->name);
	retry_audit(&entry);
}

/*
 * retry.settle(gid, branch, op, done): somebody knows how it ended, or has done it
 * by hand.  Its task is cancelled.
 */
Datum
retry_settle(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"gid", "branch", "op", "done"};
	RetryWhole	whole;
	RetryBranches after;
	RetrySceneRow scene;
	RetryOperation *o;
	RetryWriter *writer;
	bool		done;

	for (int i = 0; i < lengthof(names); i++)
		retry_require_argument(fcinfo, i, names[i]);
	done = PG_GETARG_BOOL(3);
	retry_require_writable("retry.settle()");
	retry_advance_open(PG_GETARG_UUID_P(0), &whole, &scene);
	o = find_operation(&whole, text_to_cstring(PG_GETARG_TEXT_PP(1)), text_to_cstring(PG_GETARG_TEXT_PP(2)));
	if (retry_operation_ended(&whole, o))
		PG_RETURN_BOOL(false);
	if (!retry_operation_begun(&whole, o))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("it is not the turn of %s of branch \"%s\"", retry_op_word(o->op), o->name),
				 errhint("The view retry.branches shows which operations have tasks.")));
	if (!done && retry_op_phase(o->op) != RETRY_PHASE_FIRST)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s cannot be settled as failed", retry_op_word(o->op)),
				 errhint("What follows from a decision must be done; only an action or a try may fail.")));

	after = whole.known;
	retry_operation_note(&after, o, done);
	writer = retry_writer_begin("retry.settle()");
	retry_advance_note(&whole.global.gid, o->branch, retry_op_word(o->op), done ? "done" : "failed", GetUserId());
	retry_advance_signal(writer, &o->id, RETRY_SIGNAL_CANCEL);
	retry_advance(writer, &whole, &after);
	retry_writer_end(writer);
	audit_settled(&whole, &scene, o, done);
	PG_RETURN_BOOL(true);
}
