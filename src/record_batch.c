/*
 * record_batch.c
 *		Puts a batch of attempts into the store, in one transaction.
 *
 * With each goes what belongs to it: its dead letter, the tasks of those who are
 * to be told, notes on its ordered lane, a URL to be disabled.  All locks that
 * an item needs are taken before anything of it is put in, and none is waited
 * for that a session may hold: what is locked is left out, whole, and the
 * others go on.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "amend.h"
#include "disabled.h"
#include "group_lanes.h"
#include "group_use.h"
#include "letter.h"
#include "record_private.h"
#include "wakeup.h"
#include "writer.h"

/* What an item needs besides itself, locked and looked up. */
typedef struct Needs
{
	TupleTableSlot *task;		/* its row; NULL: gone, or not needed */
	bool		told;			/* there is a callback to be stored: */
	RetryCallback callback;
	pg_uuid_t	id;				/* of the first, if it goes to several */
	int			leaf;
	RetryHeadDuty head;			/* what it means to its ordered lane */
	RetryRecordDecision *decision;	/* what a check decides; NULL: it is none */
	RetryRecordOperation *operation;	/* what the end of an operation brings
										 * about; NULL: nothing */
} Needs;

static bool
is_dead(const RetryEnded *ended)
{
	return ended->verdict.terminal && ended->verdict.outcome != RETRY_SUCCEEDED;
}

/* Appenders keep what they allocate, so not in the context of one row. */
void
retry_record_put(RetryRecordBatch *batch, RetryAppender *appender, const Datum *values, const bool *isnull)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	retry_append_row(appender, values, isnull);
	MemoryContextSwitchTo(old);
}

bool
retry_record_open(RetryRecordBatch *batch, RetryAppender **appender, Oid table, int natts)
{
	if (*appender == NULL)
		*appender = retry_append_begin(table, natts, !batch->wait);
	return *appender != NULL;
}

bool
retry_record_open_tasks(RetryRecordBatch *batch, int leaf)
{
	return retry_record_open(batch, &batch->tasks[leaf], retry_leaf_oid(RETRY_TASK, leaf), Task_natts);
}

/* The appender of a leaf's attempts; false when it cannot be locked at once. */
static bool
open_attempts(RetryRecordBatch *batch, int leaf)
{
	if (batch->attempts[leaf] == NULL && !batch->locked[leaf])
	{
		batch->attempts[leaf] = retry_append_begin(retry_leaf_oid(RETRY_ATTEMPT, leaf), Attempt_natts, !batch->wait);
		batch->locked[leaf] = batch->attempts[leaf] == NULL;
	}
	return !batch->locked[leaf];
}

static bool
open_letters(RetryRecordBatch *batch)
{
	if (batch->letters == NULL && !batch->letters_locked)
	{
		batch->letters = retry_append_begin(retry_relation_oid("dead_letter"), Dead_natts, !batch->wait);
		batch->letters_locked = batch->letters == NULL;
	}
	return !batch->letters_locked;
}

/*
 * Looks for the task of an item.  False when it cannot be looked for, because
 * a leaf is locked.  A task whose row is gone leaves nothing to keep or tell.
 */
static bool
find_task(RetryRecordBatch *batch, const RetryEnded *ended, TupleTableSlot **task)
{
	int			leaf = ended->entry.leaf;
	List	   *changes;
	bool		cancelled;

	if (batch->reader == NULL)
		batch->reader = retry_reader_begin(GetActiveSnapshot(), !batch->wait);
	*task = retry_find_task(batch->reader, &ended->entry.pos.id, &ended->entry.tid, &leaf);
	if (*task == NULL)
		return !retry_reader_blocked(batch->reader);
	slot_getallattrs(*task);
	if (batch->form.bare)
		return true;

	/* as it was meant when it ended */
	changes = retry_task_changes(batch->reader, leaf, &ended->entry.pos.id, &cancelled);
	if (retry_reader_leaf_blocked(batch->reader, leaf))
		return false;
	retry_changes_apply_slot(changes, *task);
	return true;
}

/* Finds out what a callback is to be, and opens where it goes; see open_tables. */
static bool
open_callback(RetryRecordBatch *batch, int32 scene_id, const char *column, const char *target, Needs *needs)
{
	/* most of a batch have the same target */
	if (batch->last_target == NULL || strcmp(batch->last_target, target) != 0 ||
		strcmp(batch->last_column, column) != 0)
	{
		int			own = strcmp(column, "on_success") == 0 ? Task_on_success : Task_on_dead;

		batch->last_target = NULL;
		if (!retry_callback_resolve(batch->config, needs->task->tts_isnull[own] ? scene_id : 0,
									column, target, &batch->last_callback))
			return false;
		batch->last_target = target;
		batch->last_column = column;
	}
	needs->callback = batch->last_callback;
	retry_callback_deepen(&needs->callback, needs->task);
	retry_new_id(batch->now, &needs->id);
	needs->leaf = retry_leaf_for(&needs->id, batch->now);
	needs->told = true;

	if (!retry_record_open_tasks(batch, needs->leaf))
		return false;
	return needs->callback.refusal == NULL ||
		(open_letters(batch) && open_attempts(batch, needs->leaf));
}

/*
 * What the end of a task that is part of a global transaction means to that.  Of
 * an operation of which the transaction was rolled back it makes the last attempt.
 */
static bool
open_part(RetryRecordBatch *batch, RetryEnded *ended, RetryPart part, Needs *needs)
{
	const pg_uuid_t *origin = NULL;
	pg_uuid_t	gid;

	if (part == RETRY_PART_CHECK && !ended->verdict.terminal)
		return true;
	if (ended->row_unread)
	{
		if (!retry_record_part(batch, &ended->entry.pos.id, &part, &gid))
			return false;
		if (part == RETRY_PART_NONE)
			return true;
	}
	else
	{
		if (needs->task == NULL && !find_task(batch, ended, &needs->task))
			return false;
		if (needs->task == NULL || needs->task->tts_isnull[Task_parent_id])
			return true;
		gid = *DatumGetUUIDP(needs->task->tts_values[Task_parent_id]);
		if (!needs->task->tts_isnull[Task_origin_id])
			origin = DatumGetUUIDP(needs->task->tts_values[Task_origin_id]);
	}
	if (part != RETRY_PART_CHECK)
		return retry_record_operation_open(batch, ended, &gid, origin, part, &needs->operation);
	needs->decision = palloc(sizeof(RetryRecordDecision));
	return retry_record_decision_open(batch, ended, &gid, needs->decision);
}

/* Takes the locks that an item needs; false when one cannot be had at once. */
static bool
open_tables(RetryRecordBatch *batch, RetryEnded *ended, Needs *needs)
{
	bool		told = batch->form.callback != RETRY_CALLBACK_NONE;
	RetryPart	part = ended->row_unread ? RETRY_PART_NONE : retry_part(ended->on_dead);
	const char *column = NULL;
	const char *target;
	bool		letter;

	memset(needs, 0, sizeof(*needs));
	if (!open_attempts(batch, ended->entry.leaf))
		return false;
	if ((part != RETRY_PART_NONE || ended->row_unread) && !open_part(batch, ended, part, needs))
		return false;
	letter = is_dead(ended) && !batch->has_letter;
	target = told && part == RETRY_PART_NONE ? retry_callback_of(ended, &column) : NULL;
	if (letter && !open_letters(batch))
		return false;
	if (ended->row_unread)
		return true;
	if (!retry_head_duty(&batch->head_notes, batch->config, ended, batch->wait, &needs->head))
		return false;
	if (needs->task == NULL && (letter || target != NULL || retry_head_needs_task(&needs->head)) &&
		!find_task(batch, ended, &needs->task))
		return false;
	if (target == NULL || needs->task == NULL)
		return true;
	return open_callback(batch, ended->scene_id, column, target, needs);
}

/* Puts in the dead letter of a task that has just died; the values are its row's. */
static void
put_letter(RetryRecordBatch *batch, const RetryEnded *ended, Datum *values, bool *isnull)
{
	values[Dead_reason] = ObjectIdGetDatum(retry_dead_reason_oid(ended->verdict.reason));
	values[Dead_died_at] = TimestampTzGetDatum(ended->finished_at);
	values[Dead_attempts] = Int32GetDatum(ended->entry.attempts + 1);
	isnull[Dead_reason] = isnull[Dead_died_at] = isnull[Dead_attempts] = false;
	retry_record_answer(batch, ended, values, isnull, Dead_http_status, Dead_error, Dead_response);
	retry_record_put(batch, batch->letters, values, isnull);
}

static void
add_letter(RetryRecordBatch *batch, const RetryEnded *ended, TupleTableSlot *task)
{
	Datum		values[Dead_natts];
	bool		isnull[Dead_natts];

	if (ended->row_unread)
		retry_letter_unread(ended, values, isnull);
	else
		retry_letter_of_task(task, batch->form.bare, values, isnull);
	put_letter(batch, ended, values, isnull);
}

static void
add_attempt(RetryRecordBatch *batch, const RetryEnded *ended)
{
	Datum		values[Attempt_natts];
	bool		isnull[Attempt_natts];

	retry_record_attempt(batch, ended, values, isnull);
	retry_record_put(batch, batch->attempts[ended->entry.leaf], values, isnull);
}

/* It counts among its group's tasks, and is stored however many these are. */
void
retry_record_count(RetryRecordBatch *batch, int32 scene_id, int64 lane_hash)
{
	const RetryScene *scene = retry_config_scene(batch->config, scene_id);
	RetryGroupUse *use = scene != NULL && scene->counted ? retry_group_use(scene->group_id) : NULL;

	if (use == NULL)
		return;
	(void) retry_group_use_add(use, 1, -1);
	if (scene->max_lanes >= 0)
		(void) retry_group_lanes_add(use, lane_hash, -1);
}

/*
 * Puts in a callback's task.  One that cannot be sent is dead in the same
 * transaction: it has an attempt, so nobody sends it, and a letter that says why.
 */
static void
add_callback(RetryRecordBatch *batch, const RetryEnded *ended, Needs *needs, const pg_uuid_t *id)
{
	RetryCallback *callback = &needs->callback;
	FullTransactionId xid = GetTopFullTransactionId();
	Datum		values[Dead_natts];
	bool		isnull[Dead_natts];
	RetryEnded	refused = {.lane_hash = callback->lane_hash,.scene_id = callback->scene_id};

	retry_callback_row(callback, batch->config, ended, needs->task, batch->form.callback, values, isnull);
	values[Task_leaf] = Int16GetDatum(needs->leaf);
	values[Task_id] = UUIDPGetDatum(id);
	values[Task_xid] = FullTransactionIdGetDatum(xid);
	values[Task_due_at] = TimestampTzGetDatum(batch->now);
	isnull[Task_leaf] = isnull[Task_id] = isnull[Task_xid] = isnull[Task_due_at] = false;
	retry_wakeup_row(needs->leaf, callback->lane_hash, U64FromFullTransactionId(xid));
	retry_record_put(batch, batch->tasks[needs->leaf], values, isnull);
	if (callback->refusal == NULL)
	{
		retry_record_count(batch, callback->scene_id, callback->lane_hash);
		return;
	}

	refused.entry.pos.id = *id;
	refused.entry.leaf = needs->leaf;
	refused.finished_at = batch->now;
	refused.verdict.outcome = RETRY_ERROR;
	refused.verdict.terminal = true;
	refused.verdict.reason = RETRY_DEAD_REJECTED;
	refused.error = callback->refusal;
	put_letter(batch, &refused, values, isnull);
	add_attempt(batch, &refused);
	retry_callback_log(ended, true, callback->refusal);
}

/* One task, or one for each target of a scene that tells all of them. */
static void
add_callbacks(RetryRecordBatch *batch, const RetryEnded *ended, Needs *needs)
{
	pg_uuid_t	id = needs->id;

	for (int i = 0; i < retry_callback_copies(&needs->callback); i++)
	{
		/* ids of one moment lie in one leaf */
		if (i > 0)
			retry_new_id(batch->now, &id);
		retry_callback_copy(&needs->callback, needs->task, i);
		add_callback(batch, ended, needs, &id);
	}
}

/* What belongs to the transaction, which has just been started. */
static void
begin_batch(RetryRecordBatch *batch)
{
	memset(&batch->context, 0, sizeof(RetryRecordBatch) - offsetof(RetryRecordBatch, context));
	batch->context = CurrentMemoryContext;
	batch->now = GetCurrentTimestamp();
	batch->row_context = AllocSetContextCreate(CurrentMemoryContext, "retry row",
											   ALLOCSET_DEFAULT_SIZES);
}

static void
end_batch(RetryRecordBatch *batch)
{
	for (int i = 0; i < RETRY_LEAVES; i++)
	{
		if (batch->attempts[i] != NULL)
			retry_append_end(batch->attempts[i]);
	}
	for (int i = 0; i < RETRY_LEAVES; i++)
	{
		if (batch->tasks[i] != NULL)
			retry_append_end(batch->tasks[i]);
	}
	retry_head_notes_end(&batch->head_notes);
	if (batch->letters != NULL)
		retry_append_end(batch->letters);
	if (batch->gone != NULL)
		retry_append_end(batch->gone);
	for (int i = 0; i < RETRY_LEAVES; i++)
	{
		if (batch->signals[i] != NULL)
			retry_append_end(batch->signals[i]);
	}
	if (batch->decisions != NULL)
		retry_append_end(batch->decisions);
	if (batch->outcomes != NULL)
		retry_append_end(batch->outcomes);
	if (batch->globals != NULL)
		retry_global_scans_end(batch->globals);
	if (batch->reader != NULL)
		retry_reader_end(batch->reader);
}

/* One item, in the transaction; false when something of it is locked. */
static bool
store_item(RetryRecordBatch *batch, RetryEnded *ended)
{
	MemoryContext old;
	Needs		needs;

	/* what an appender or the reader allocates stays till the end */
	if (!open_tables(batch, ended, &needs))
		return false;
	old = MemoryContextSwitchTo(batch->row_context);
	if ((needs.task != NULL || ended->row_unread) && is_dead(ended) && !batch->has_letter)
		add_letter(batch, ended, needs.task);
	if (needs.task != NULL && retry_head_needs_task(&needs.head))
	{
		MemoryContextSwitchTo(batch->context);
		retry_head_note(&batch->head_notes, &needs.head, ended, needs.task);
		MemoryContextSwitchTo(batch->row_context);
	}
	if (needs.told)
		add_callbacks(batch, ended, &needs);
	if (needs.decision != NULL)
		retry_record_decision_put(batch, needs.decision);
	if (needs.operation != NULL)
		retry_record_operation_put(batch, needs.operation);
	add_attempt(batch, ended);
	ended->gone_stored = ended->gone != NULL && !batch->form.bare && retry_gone_append(&batch->gone, batch->context, ended->gone);
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->row_context);
	return true;
}

void
retry_record_batch(RetryRecordBatch *batch)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	begin_batch(batch);

	for (int i = 0; i < batch->count; i++)
	{
		batch->stored[i] = store_item(batch, batch->items[i]);
		batch->finished |= batch->stored[i] && batch->items[i]->verdict.terminal;
	}

	end_batch(batch);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

void
retry_record_here(RetryEnded *ended, RetryConfig *config)
{
	RetryRecordBatch batch = {.config = config,.form = {.callback = RETRY_CALLBACK_FULL},.wait = true};
	bool		stored;

	PushActiveSnapshot(GetTransactionSnapshot());
	begin_batch(&batch);
	stored = store_item(&batch, ended);
	end_batch(&batch);
	PopActiveSnapshot();
	if (!stored)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the attempt cannot be recorded now")));
}
