/*
 * record_operation.c
 *		The end of an operation moves its global transaction on, with its record.
 *
 * The transaction that records how an action ended also stores what follows:
 * the outcome, the decision if there is one by it, and the tasks whose turn has
 * come.  So no crash can come between them, and nobody has to look for
 * transactions that stand still.
 *
 * What is known of a transaction is read under the lock of its row, once a
 * batch.  Who holds that lock is not waited for: the record comes later then.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "event.h"
#include "locate.h"
#include "operation.h"
#include "record_private.h"
#include "wakeup.h"

/* One that was read in this batch. */
typedef struct Known
{
	pg_uuid_t	gid;			/* first: the key */
	RetryWhole *whole;			/* NULL: it is gone */
} Known;

/* The task of an operation that begins, or what is asked of one that there is. */
typedef struct Row
{
	const RetryOperation *operation;	/* NULL: it is the timer that is asked */
	const pg_uuid_t *task_id;
	char		action;			/* of the signal; 0: the task begins */
	int			leaf;
	TimestampTz due_at;
	int64		lane_hash;
	int32		attempts;
} Row;

struct RetryRecordOperation
{
	RetryWhole *whole;
	RetryOperation *operation;	/* NULL: of a timer */
	RetryBranches after;
	RetryCourse course;
	bool		ended;			/* its end is to be noted; else it goes on, or
								 * was given up */
	bool		done;
	bool		given_up;
	int			nrows;
	Row		   *rows;
};

/*
 * Finds the transaction, and locks it.  False when that cannot be had at once;
 * *whole is NULL when it is gone.
 */
static bool
find_whole(RetryRecordBatch *batch, const pg_uuid_t *gid, RetryWhole **whole)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	RetryDecision decision = RETRY_UNDECIDED;
	RetryGlobalLock lock;
	Known	   *known;
	bool		found;

	if (batch->wholes == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(pg_uuid_t),.entrysize = sizeof(Known),.hcxt = batch->context};

		batch->wholes = hash_create("retry transactions of a batch", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		batch->globals = retry_global_scans_begin(batch->wait);
	}
	known = hash_search(batch->wholes, gid, HASH_FIND, NULL);
	if (known == NULL)
	{
		*whole = palloc(sizeof(RetryWhole));
		lock = retry_global_lock_by(batch->globals, gid, &(*whole)->global, &decision);
		if (lock == RETRY_GLOBAL_BUSY ||
			(lock == RETRY_GLOBAL_LOCKED && !retry_whole_read_by(batch->globals, *whole, decision)))
		{
			MemoryContextSwitchTo(old);
			return false;
		}
		known = hash_search(batch->wholes, gid, HASH_ENTER, &found);
		known->whole = lock == RETRY_GLOBAL_LOCKED ? *whole : NULL;
	}
	*whole = known->whole;
	MemoryContextSwitchTo(old);
	return true;
}

static Row *
add_row(RetryRecordOperation *need, const RetryOperation *operation)
{
	Row		   *row = &need->rows[need->nrows++];

	memset(row, 0, sizeof(Row));
	row->operation = operation;
	return row;
}

/* Opens where the tasks of these branches go. */
static bool
open_begin(RetryRecordBatch *batch, RetryRecordOperation *need, RetryBranchSet branches, RetryOpPhase phase)
{
	for (int i = 0; i < need->after.n; i++)
	{
		const RetryOperation *o;
		Row		   *row;
		bool		isnull;

		if ((branches & RETRY_BRANCH(i)) == 0)
			continue;
		o = retry_whole_of(need->whole, i, phase);
		if (o == NULL)
			continue;
		row = add_row(need, o);
		row->due_at = DatumGetTimestampTz(heap_getattr(o->row, Task_due_at + 1, need->whole->desc, &isnull));
		row->due_at = Max(row->due_at, batch->now);
		row->lane_hash = DatumGetInt64(heap_getattr(o->row, Task_lane_hash + 1, need->whole->desc, &isnull));
		row->leaf = retry_leaf_for(&o->id, row->due_at);
		if (!retry_record_open_tasks(batch, row->leaf))
			return false;
	}
	return true;
}

/* Opens where a task is asked for that, if there is such a task. */
static bool
open_signal(RetryRecordBatch *batch, RetryRecordOperation *need, RetryReader *reader,
			const RetryOperation *operation, const pg_uuid_t *task_id, char action)
{
	int			leaf = -1;
	TupleTableSlot *slot = retry_find_task(reader, task_id, NULL, &leaf);
	RetryProbe	probe;
	Row		   *row;

	if (slot == NULL)
		return !retry_reader_blocked(reader);
	row = add_row(need, operation);
	row->task_id = task_id;
	row->action = action;
	row->leaf = leaf;
	row->lane_hash = DatumGetInt64(retry_column(slot, Task_lane_hash));
	retry_probe_task(reader, leaf, task_id, &probe);
	row->attempts = operation == NULL ? probe.attempts : Max(probe.attempts, operation->attempts);
	return retry_record_open(batch, &batch->signals[leaf], retry_leaf_oid(RETRY_SIGNAL, leaf), Signal_natts) &&
		!retry_reader_blocked(reader);
}

/*
 * Finds those that are to end, to ask for their next attempt, which is not made
 * any more; and the timer of what is decided before its time is over, which is
 * cancelled.  By a snapshot that sees all their records but those of this batch:
 * each is made under the lock that is held.
 */
static bool
open_signals(RetryRecordBatch *batch, RetryRecordOperation *need)
{
	const RetryGlobal *global = &need->whole->global;
	bool		timer = need->course.decision != RETRY_UNDECIDED && need->operation != NULL && global->has_check;
	RetryReader *reader;
	bool		open = true;

	if (need->course.stop == 0 && !timer)
		return true;
	PushActiveSnapshot(GetLatestSnapshot());
	reader = retry_reader_begin(GetActiveSnapshot(), !batch->wait);
	if (timer)
		open = open_signal(batch, need, reader, NULL, &global->check_id, RETRY_SIGNAL_CANCEL);
	for (int i = 0; i < need->after.n && open; i++)
	{
		const RetryOperation *o;

		if ((need->course.stop & RETRY_BRANCH(i)) == 0)
			continue;
		o = retry_whole_of(need->whole, i, RETRY_PHASE_FIRST);
		if (o != NULL)
			open = open_signal(batch, need, reader, o, &o->id, RETRY_SIGNAL_RUN_NOW);
	}
	retry_reader_end(reader);
	PopActiveSnapshot();
	return open;
}

/* What the end of this attempt is to its operation; true: nothing needs to be stored for it. */
static bool
judge_end(RetryRecordOperation *need, RetryEnded *ended, RetryPart part)
{
	const RetryWhole *whole = need->whole;

	need->after = whole->known;
	if (part == RETRY_PART_TIMER)
	{
		if (whole->known.decision != RETRY_UNDECIDED)
			return true;
		need->after.decision = whole->global.at_limit;
		return false;
	}
	if (need->operation == NULL || retry_operation_ended(whole, need->operation))
		return true;
	if (!ended->verdict.terminal)
	{
		/* no other attempt of what was rolled back */
		if (part != RETRY_PART_FIRST || whole->known.decision == RETRY_UNDECIDED)
		{
			need->operation->attempts = ended->entry.attempts + 1;
			return true;
		}
		ended->verdict.terminal = true;
		ended->verdict.reason = RETRY_DEAD_STOPPED;
		ended->verdict.next_due = 0;
	}
	need->done = ended->verdict.outcome == RETRY_SUCCEEDED;
	need->given_up = part == RETRY_PART_MUST && !need->done;
	need->ended = !need->given_up;
	if (need->ended)
		retry_operation_note(&need->after, need->operation, need->done);
	return false;
}

bool
retry_record_operation_open(RetryRecordBatch *batch, RetryEnded *ended, const pg_uuid_t *gid,
							const pg_uuid_t *origin, RetryPart part, RetryRecordOperation **result)
{
	RetryRecordOperation *need = palloc0(sizeof(RetryRecordOperation));

	*result = NULL;
	if (!find_whole(batch, gid, &need->whole))
		return false;
	if (need->whole == NULL)
		return true;
	need->operation = retry_whole_find(need->whole, &ended->entry.pos.id);
	if (need->operation == NULL && origin != NULL)
		need->operation = retry_whole_find(need->whole, origin);
	if (judge_end(need, ended, part))
		return true;

	retry_branches_go_on(&need->whole->known, &need->after, &need->course);
	need->rows = palloc((pg_popcount64(need->course.first) + pg_popcount64(need->course.confirm) +
						 pg_popcount64(need->course.undo) + pg_popcount64(need->course.stop) + 1) * sizeof(Row));
	if ((need->ended || need->course.not_begun != 0) &&
		!retry_record_open(batch, &batch->outcomes, retry_relation_oid("global_outcome"), Outcome_natts))
		return false;
	if (need->course.decision != RETRY_UNDECIDED &&
		!retry_record_open(batch, &batch->decisions, retry_relation_oid("global_decision"), Decision_natts))
		return false;
	if (!open_begin(batch, need, need->course.first, RETRY_PHASE_FIRST) ||
		!open_begin(batch, need, need->course.confirm, RETRY_PHASE_CONFIRM) ||
		!open_begin(batch, need, need->course.undo, RETRY_PHASE_UNDO) ||
		!open_signals(batch, need))
		return false;
	*result = need;
	return true;
}

static void
put_outcome(RetryRecordBatch *batch, const RetryRecordOperation *need, const RetryOperation *o, const char *outcome)
{
	Datum		values[Outcome_natts];
	bool		isnull[Outcome_natts];

	retry_outcome_row(&need->whole->global.gid, o->branch, retry_op_word(o->op), outcome, batch->now,
					  InvalidOid, values, isnull);
	retry_record_put(batch, batch->outcomes, values, isnull);
}

static void
put_not_begun(RetryRecordBatch *batch, const RetryRecordOperation *need)
{
	for (int i = 0; i < need->whole->n; i++)
	{
		const RetryOperation *o = &need->whole->operations[i];

		if ((need->course.not_begun & RETRY_BRANCH(o->branch)) != 0 && retry_op_phase(o->op) != RETRY_PHASE_CONFIRM)
			put_outcome(batch, need, o, "not begun");
	}
}

static void
put_decision(RetryRecordBatch *batch, const RetryRecordOperation *need)
{
	const RetryGlobal *global = &need->whole->global;
	Datum		values[Decision_natts];
	bool		isnull[Decision_natts];

	retry_global_decision_row(&global->gid, need->course.decision, need->operation == NULL ? "timeout" : "answers",
							  InvalidOid, batch->now, values, isnull);
	retry_record_put(batch, batch->decisions, values, isnull);
}

/* Its task, due as it was to be. */
static void
put_task(RetryRecordBatch *batch, const RetryRecordOperation *need, const Row *row)
{
	FullTransactionId xid = GetTopFullTransactionId();
	Datum		values[Task_natts];
	bool		isnull[Task_natts];

	retry_operation_task(need->whole, row->operation, values, isnull);
	RETRY_FILL(Task_leaf, true, Int16GetDatum(row->leaf));
	RETRY_FILL(Task_inert, true, BoolGetDatum(false));
	RETRY_FILL(Task_xid, true, FullTransactionIdGetDatum(xid));
	RETRY_FILL(Task_due_at, true, TimestampTzGetDatum(row->due_at));
	retry_wakeup_row(row->leaf, row->lane_hash, U64FromFullTransactionId(xid));
	retry_record_put(batch, batch->tasks[row->leaf], values, isnull);
	retry_record_count(batch, row->operation->scene_id, row->lane_hash);
}

/* It is cancelled, or its next attempt comes at once, which ends it (send_prepare.c). */
static void
put_signal(RetryRecordBatch *batch, const RetryRecordOperation *need, const Row *row)
{
	FullTransactionId xid = GetTopFullTransactionId();
	Datum		values[Signal_natts];
	bool		isnull[Signal_natts];

	memset(isnull, true, sizeof(isnull));
	RETRY_FILL(Signal_leaf, true, Int16GetDatum(row->leaf));
	RETRY_FILL(Signal_action, true, CharGetDatum(row->action));
	RETRY_FILL(Signal_after_attempt, true, Int32GetDatum(row->attempts));
	RETRY_FILL(Signal_task_id, true, UUIDPGetDatum(row->task_id));
	RETRY_FILL(Signal_xid, true, FullTransactionIdGetDatum(xid));
	RETRY_FILL(Signal_lane_hash, true, Int64GetDatum(row->lane_hash));
	RETRY_FILL(Signal_due_at, true, TimestampTzGetDatum(batch->now));
	RETRY_FILL(Signal_inert, true, BoolGetDatum(false));
	RETRY_FILL(Signal_asked_by, true, ObjectIdGetDatum(need->whole->global.begun_by));
	retry_wakeup_row(row->leaf, row->lane_hash, U64FromFullTransactionId(xid));
	retry_record_put(batch, batch->signals[row->leaf], values, isnull);
}

static void
put_event(RetryRecordBatch *batch, RetryEventKind kind, int32 scene_id, const char *detail)
{
	const RetryScene *scene = retry_config_scene(batch->config, scene_id);
	RetryEvent	event = {.kind = kind,.scene_id = scene_id,.detail = detail};

	event.group_id = scene != NULL ? scene->group_id : 0;
	(void) retry_event_store(&event, false);	/* none while the table is
												 * locked */
}

void
retry_record_operation_put(RetryRecordBatch *batch, RetryRecordOperation *need)
{
	const RetryGlobal *global = &need->whole->global;

	if (need->ended)
		put_outcome(batch, need, need->operation, need->done ? "done" : "failed");
	put_not_begun(batch, need);
	if (need->course.decision != RETRY_UNDECIDED)
		put_decision(batch, need);
	for (int i = 0; i < need->nrows; i++)
	{
		if (need->rows[i].action == 0)
			put_task(batch, need, &need->rows[i]);
		else
			put_signal(batch, need, &need->rows[i]);
	}
	if (need->operation == NULL)
		put_event(batch, RETRY_EVENT_DECIDED, global->scene_id,
				  psprintf("transaction %s: %s, since its time is over", retry_id_text(&global->gid),
						   retry_decision_word(need->course.decision)));
	else if (need->given_up)
		put_event(batch, RETRY_EVENT_GIVEN_UP, need->operation->scene_id,
				  psprintf("transaction %s: %s of branch \"%s\" is dead, and has not been done",
						   retry_id_text(&global->gid), retry_op_word(need->operation->op), need->operation->name));

	/* for what else of it has ended in this batch */
	need->whole->known = need->after;
}
