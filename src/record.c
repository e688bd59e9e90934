/*
 * record.c
 *		Recording what became of attempts: the only writer of retry.attempt.
 *
 * An attempt that was made and is not recorded would be made again, so this
 * never gives up a fact because of its company or its trimmings.  All attempts
 * of a turn go in one transaction.  If that fails, each goes alone; if one
 * fails alone, it goes without its response, its address and the large columns
 * of its dead letter; and what even so cannot be stored stays with the caller,
 * who offers it again and does not send the task meanwhile.
 *
 * Whoever is to be told of an outcome gets a task in the same transaction, too
 * (callback.c).  That is a trimming as well: it becomes smaller, and in the end
 * goes, before an outcome stays unrecorded.
 *
 * Nothing here waits for a lock that a session may hold: attempts of a leaf
 * that is locked stay with the caller too, and the others go on.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/tuptable.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inet.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "amend.h"
#include "callback.h"
#include "dead_head.h"
#include "disabled.h"
#include "record.h"
#include "shmem.h"
#include "store.h"
#include "wakeup.h"
#include "writer.h"

/* Longest text of an error that is kept. */
#define ERROR_BYTES		1000

/* So many failures in a row, and it is not the rows: leave the rest for later. */
#define HOPELESS		3

/* What cannot be recorded is logged at most this often. */
#define LOG_INTERVAL_MS	(60 * 1000)

/* How much of an attempt is stored. */
typedef struct Form
{
	bool		bare;			/* the fact, and why it is not more */
	RetryCallbackForm callback;
} Form;

/* One transaction's worth of attempts. */
typedef struct Batch
{
	RetryConfig *config;
	RetryEnded **items;
	int			count;
	bool	   *stored;			/* of each item: it was put in */
	bool		finished;		/* a task has ended among those put in */
	Form		form;
	bool		has_letter;		/* the dead letter is there already */
	const char *why;			/* when bare: the error that led to it */
	bool		wait;			/* for locks; else what is locked is left out */

	/* from here on: of the transaction, see begin_batch */
	MemoryContext context;		/* until its end */
	MemoryContext row_context;	/* until the next row */
	RetryAppender *attempts[RETRY_LEAVES];
	bool		locked[RETRY_LEAVES];
	RetryHeadNotes head_notes;
	RetryAppender *letters;
	bool		letters_locked;
	RetryAppender *gone;
	RetryReader *reader;
	RetryAppender *tasks[RETRY_LEAVES]; /* for callbacks */
	TimestampTz now;			/* when these are enqueued */
	const char *last_target;	/* the text that last_callback is of */
	const char *last_column;
	RetryCallback last_callback;
	Oid			outcome_oid[RETRY_OUTCOMES];
	char		last_ip[64];
	Datum		last_address;
} Batch;

/* What an item needs besides itself, locked and looked up. */
typedef struct Needs
{
	TupleTableSlot *task;		/* its row; NULL: gone, or not needed */
	bool		told;			/* there is a callback to be stored: */
	RetryCallback callback;
	pg_uuid_t	id;				/* of the first, if it goes to several */
	int			leaf;
	RetryHeadDuty head;			/* what it means to its ordered lane */
} Needs;

/* Everything of one call, reset at the next. */
static MemoryContext scratch = NULL;

static bool
is_dead(const RetryEnded *ended)
{
	return ended->verdict.terminal && ended->verdict.outcome != RETRY_SUCCEEDED;
}

/* Values */

Datum
retry_error_datum(const char *error)
{
	text	   *result = palloc(VARHDRSZ + ERROR_BYTES);
	char	   *to = VARDATA(result);
	char	   *end = to + ERROR_BYTES;
	bool		utf8 = GetDatabaseEncoding() == PG_UTF8;

	while (*error != '\0' && to < end)
	{
		int			len = pg_utf_mblen((const unsigned char *) error);

		if (len == 1 && !IS_HIGHBIT_SET(*error))
			*to++ = *error++;
		else if (strnlen(error, len) < len || !pg_utf8_islegal((const unsigned char *) error, len))
		{
			*to++ = '?';
			error++;
		}
		else if (!utf8)
		{
			*to++ = '?';
			error += len;
		}
		else if (to + len > end)
			break;
		else
		{
			memcpy(to, error, len);
			to += len;
			error += len;
		}
	}
	SET_VARSIZE(result, to - (char *) result);
	return PointerGetDatum(result);
}

/* The same for a text of the server's own, which is in its encoding. */
static Datum
why_datum(const char *why)
{
	char	   *text = psprintf("could not be recorded: %s", why);

	return PointerGetDatum(cstring_to_text_with_len(text,
													pg_mbcliplen(text, strlen(text), ERROR_BYTES)));
}

static Datum
response_datum(const RetryEnded *ended)
{
	bytea	   *result = palloc(VARHDRSZ + ended->response_len);

	memcpy(VARDATA(result), ended->response, ended->response_len);
	SET_VARSIZE(result, VARHDRSZ + ended->response_len);
	return PointerGetDatum(result);
}

/* An address as inet; most attempts of a batch have the same. */
static Datum
address_datum(Batch *batch, const char *ip)
{
	if (strcmp(ip, batch->last_ip) != 0)
	{
		MemoryContext old = MemoryContextSwitchTo(batch->context);
		char		plain[sizeof(batch->last_ip)];

		/* inet knows no scope of an address ("fe80::1%eth0") */
		strlcpy(plain, ip, sizeof(plain));
		plain[strcspn(plain, "%")] = '\0';
		batch->last_ip[0] = '\0';
		batch->last_address = DirectFunctionCall1(inet_in, CStringGetDatum(plain));
		strlcpy(batch->last_ip, ip, sizeof(batch->last_ip));
		MemoryContextSwitchTo(old);
	}
	return batch->last_address;
}

static void
set_int(Datum *values, bool *isnull, int column, int32 value)
{
	isnull[column] = value == 0;
	values[column] = Int32GetDatum(value);
}

/* Appenders keep what they allocate, so not in the context of one row. */
static void
put_row(Batch *batch, RetryAppender *appender, const Datum *values, const bool *isnull)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	retry_append_row(appender, values, isnull);
	MemoryContextSwitchTo(old);
}

/* Error, status and response: the same in an attempt and in a dead letter. */
static void
set_answer(const Batch *batch, const RetryEnded *ended, Datum *values, bool *isnull,
		   int status, int error, int response)
{
	isnull[status] = ended->http_status == 0;
	values[status] = Int16GetDatum((int16) ended->http_status);
	isnull[error] = isnull[response] = true;
	if (batch->form.bare)
	{
		isnull[error] = false;
		values[error] = why_datum(batch->why);
		return;
	}
	if (ended->error != NULL && ended->error[0] != '\0')
	{
		isnull[error] = false;
		values[error] = retry_error_datum(ended->error);
	}
	if (ended->response != NULL && ended->response_len > 0)
	{
		isnull[response] = false;
		values[response] = response_datum(ended);
	}
}

/* One transaction */

/* The appender of a leaf's attempts; false when it cannot be locked at once. */
static bool
open_attempts(Batch *batch, int leaf)
{
	if (batch->attempts[leaf] == NULL && !batch->locked[leaf])
	{
		batch->attempts[leaf] = retry_append_begin(retry_leaf_oid(RETRY_ATTEMPT, leaf), !batch->wait);
		batch->locked[leaf] = batch->attempts[leaf] == NULL;
	}
	return !batch->locked[leaf];
}

static bool
open_letters(Batch *batch)
{
	if (batch->letters == NULL && !batch->letters_locked)
	{
		batch->letters = retry_append_begin(retry_relation_oid("dead_letter"), !batch->wait);
		batch->letters_locked = batch->letters == NULL;
	}
	return !batch->letters_locked;
}

/*
 * Looks for the task of an item.  False when it cannot be looked for, because
 * a leaf is locked.  A task whose row is gone leaves nothing to keep or tell.
 */
static bool
find_task(Batch *batch, const RetryEnded *ended, TupleTableSlot **task)
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
open_callback(Batch *batch, int32 scene_id, const char *column, const char *target, Needs *needs)
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

	if (batch->tasks[needs->leaf] == NULL)
		batch->tasks[needs->leaf] = retry_append_begin(retry_leaf_oid(RETRY_TASK, needs->leaf),
													   !batch->wait);
	if (batch->tasks[needs->leaf] == NULL)
		return false;
	return needs->callback.refusal == NULL ||
		(open_letters(batch) && open_attempts(batch, needs->leaf));
}

/* Takes the locks that an item needs; false when one cannot be had at once. */
static bool
open_tables(Batch *batch, const RetryEnded *ended, Needs *needs)
{
	bool		letter = is_dead(ended) && !batch->has_letter;
	const char *column;
	const char *target = batch->form.callback == RETRY_CALLBACK_NONE ? NULL :
	retry_callback_of(ended, &column);

	memset(needs, 0, sizeof(*needs));
	if (!open_attempts(batch, ended->entry.leaf))
		return false;
	if (letter && !open_letters(batch))
		return false;
	if (!retry_head_duty(&batch->head_notes, batch->config, ended, batch->wait, &needs->head))
		return false;
	if ((letter || target != NULL || retry_head_needs_task(&needs->head)) && !find_task(batch, ended, &needs->task))
		return false;
	return target == NULL || needs->task == NULL ||
		open_callback(batch, ended->scene_id, column, target, needs);
}

/* Puts in the dead letter of a task that has just died; the values are its row's. */
static void
put_letter(Batch *batch, const RetryEnded *ended, Datum *values, bool *isnull)
{
	values[Dead_reason] = ObjectIdGetDatum(retry_dead_reason_oid(ended->verdict.reason));
	values[Dead_died_at] = TimestampTzGetDatum(ended->finished_at);
	values[Dead_attempts] = Int32GetDatum(ended->entry.attempts + 1);
	isnull[Dead_reason] = isnull[Dead_died_at] = isnull[Dead_attempts] = false;
	set_answer(batch, ended, values, isnull, Dead_http_status, Dead_error, Dead_response);
	put_row(batch, batch->letters, values, isnull);
}

static void
add_letter(Batch *batch, const RetryEnded *ended, TupleTableSlot *task)
{
	Datum		values[Dead_natts];
	bool		isnull[Dead_natts];

	for (int i = 0; i < Task_natts; i++)
	{
		values[i] = task->tts_values[i];
		isnull[i] = task->tts_isnull[i];

		/* what may lie elsewhere may be what cannot be read */
		if (batch->form.bare && TupleDescAttr(task->tts_tupleDescriptor, i)->attlen < 0)
			isnull[i] = true;
	}
	put_letter(batch, ended, values, isnull);
}

static void
add_attempt(Batch *batch, const RetryEnded *ended)
{
	const RetryVerdict *verdict = &ended->verdict;
	Datum		values[Attempt_natts];
	bool		isnull[Attempt_natts] = {0};

	if (!OidIsValid(batch->outcome_oid[verdict->outcome]))
		batch->outcome_oid[verdict->outcome] = retry_outcome_oid(verdict->outcome);

	values[Attempt_leaf] = Int16GetDatum(ended->entry.leaf);
	values[Attempt_attempt_no] = Int32GetDatum(ended->entry.attempts + 1);
	values[Attempt_task_id] = UUIDPGetDatum(&ended->entry.pos.id);
	values[Attempt_lane_hash] = Int64GetDatum(ended->lane_hash);
	values[Attempt_finished_at] = TimestampTzGetDatum(ended->finished_at);
	values[Attempt_duration_us] = Int64GetDatum(ended->duration_us);
	values[Attempt_scene_id] = Int32GetDatum(ended->scene_id);
	values[Attempt_outcome] = ObjectIdGetDatum(batch->outcome_oid[verdict->outcome]);
	isnull[Attempt_next_due] = verdict->terminal;
	values[Attempt_next_due] = TimestampTzGetDatum(verdict->next_due);
	set_int(values, isnull, Attempt_dns_us, ended->dns_us);
	set_int(values, isnull, Attempt_connect_us, ended->connect_us);
	set_int(values, isnull, Attempt_tls_us, ended->tls_us);
	set_int(values, isnull, Attempt_first_byte_us, ended->first_byte_us);
	set_int(values, isnull, Attempt_pendings, ended->pendings);
	isnull[Attempt_hedged] = ended->hedged == RETRY_HEDGED_NEVER;
	values[Attempt_hedged] = BoolGetDatum(ended->hedged == RETRY_HEDGED_YES);
	isnull[Attempt_target] = ended->target == NULL;
	if (ended->target != NULL)
		values[Attempt_target] = CStringGetTextDatum(ended->target);
	isnull[Attempt_remote_address] = true;
	if (!batch->form.bare && ended->remote_ip != NULL && ended->remote_ip[0] != '\0')
	{
		isnull[Attempt_remote_address] = false;
		values[Attempt_remote_address] = address_datum(batch, ended->remote_ip);
	}
	set_answer(batch, ended, values, isnull, Attempt_http_status, Attempt_error, Attempt_response);
	put_row(batch, batch->attempts[ended->entry.leaf], values, isnull);
}

/*
 * Puts in a callback's task.  One that cannot be sent is dead in the same
 * transaction: it has an attempt, so nobody sends it, and a letter that says why.
 */
static void
add_callback(Batch *batch, const RetryEnded *ended, Needs *needs, const pg_uuid_t *id)
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
	put_row(batch, batch->tasks[needs->leaf], values, isnull);
	if (callback->refusal == NULL)
		return;

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
add_callbacks(Batch *batch, const RetryEnded *ended, Needs *needs)
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
begin_batch(Batch *batch)
{
	memset(&batch->context, 0, sizeof(Batch) - offsetof(Batch, context));
	batch->context = CurrentMemoryContext;
	batch->now = GetCurrentTimestamp();
	batch->row_context = AllocSetContextCreate(CurrentMemoryContext, "retry row",
											   ALLOCSET_DEFAULT_SIZES);
}

static void
end_batch(Batch *batch)
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
	if (batch->reader != NULL)
		retry_reader_end(batch->reader);
}

/* One item, in the transaction; false when something of it is locked. */
static bool
store_item(Batch *batch, RetryEnded *ended)
{
	MemoryContext old;
	Needs		needs;

	/* what an appender or the reader allocates stays till the end */
	if (!open_tables(batch, ended, &needs))
		return false;
	old = MemoryContextSwitchTo(batch->row_context);
	if (needs.task != NULL && is_dead(ended) && !batch->has_letter)
		add_letter(batch, ended, needs.task);
	if (needs.task != NULL && retry_head_needs_task(&needs.head))
	{
		MemoryContextSwitchTo(batch->context);
		retry_head_note(&batch->head_notes, &needs.head, ended, needs.task);
		MemoryContextSwitchTo(batch->row_context);
	}
	if (needs.told)
		add_callbacks(batch, ended, &needs);
	add_attempt(batch, ended);
	ended->gone_stored = ended->gone != NULL && !batch->form.bare && retry_gone_append(&batch->gone, batch->context, ended->gone);
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->row_context);
	return true;
}

/* The whole of one transaction; an error goes to the caller. */
static void
store_batch(Batch *batch)
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
	Batch		batch = {.config = config,.form = {.callback = RETRY_CALLBACK_FULL},.wait = true};
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

/*
 * Stores a batch in a transaction of its own and sets "recorded" on what is
 * now in the store.  NULL when it went well, locked leaves included; else the
 * error, in the scratch context, and nothing is stored.
 */
static ErrorData *
try_batch(Batch *batch)
{
	ErrorData  *volatile error = NULL;
	int			saved = synchronous_commit;

	MemoryContextSwitchTo(scratch);
	batch->stored = palloc0(batch->count * sizeof(bool));
	batch->finished = false;

	PG_TRY();
	{
		/* never wait for a standby: what is done is done */
		synchronous_commit = SYNCHRONOUS_COMMIT_LOCAL_FLUSH;
		store_batch(batch);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(scratch);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	synchronous_commit = saved;
	MemoryContextSwitchTo(scratch);
	if (error == NULL)
	{
		for (int i = 0; i < batch->count; i++)
			batch->items[i]->recorded = batch->stored[i];
	}
	return error;
}

/* One by one */

static void
log_failure(const RetryEnded *ended, const ErrorData *error)
{
	static TimestampTz last = 0;
	static int64 unlogged = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(last, now, LOG_INTERVAL_MS))
	{
		unlogged++;
		return;
	}
	ereport(LOG,
			(errmsg("retry: attempt %d of task %s cannot be recorded: %s",
					ended->entry.attempts + 1,
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&ended->entry.pos.id))),
					error->message),
			 errdetail("The task is held and recording is tried again. Since the last such message " INT64_FORMAT " other failures were not logged.",
					   unlogged)));
	last = now;
	unlogged = 0;
}

/* True when the error says that the attempt itself is in the store already. */
static bool
is_recorded_already(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION && error->table_name != NULL &&
		strncmp(error->table_name, "attempt_", 8) == 0;
}

static bool
has_letter_already(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION && error->table_name != NULL &&
		strcmp(error->table_name, "dead_letter") == 0;
}

/* Tries one form of one attempt; NULL when there is no more to be tried. */
static ErrorData *
try_single(Batch *batch, Form form)
{
	ErrorData  *error;

	batch->form = form;
	error = try_batch(batch);
	if (error != NULL && has_letter_already(error) && !batch->has_letter)
	{
		batch->has_letter = true;
		error = try_batch(batch);
	}
	if (error != NULL && is_recorded_already(error))
	{
		batch->items[0]->recorded = true;
		batch->finished = batch->items[0]->verdict.terminal;
		return NULL;
	}
	return error;
}

/* The ladder for one attempt; false when nothing of it could be stored. */
static bool
record_single(RetryEnded *ended, RetryConfig *config, bool *finished)
{
	static const Form ladder[] = {
		{false, RETRY_CALLBACK_FULL}, {false, RETRY_CALLBACK_SMALL}, {true, RETRY_CALLBACK_SMALL},
		{false, RETRY_CALLBACK_NONE}, {true, RETRY_CALLBACK_NONE}
	};
	const char *column;
	const char *target = retry_callback_of(ended, &column);
	ErrorData  *error = NULL;
	Batch		batch;

	memset(&batch, 0, sizeof(batch));
	batch.config = config;
	batch.items = &ended;
	batch.count = 1;

	for (int i = 0; i < lengthof(ladder); i++)
	{
		/* without a callback these would be the same again */
		if (target == NULL && i != 0 && i != lengthof(ladder) - 1)
			continue;
		if (error != NULL)
			batch.why = error->message;
		error = try_single(&batch, ladder[i]);
		if (error != NULL)
			continue;
		if (target != NULL && ended->recorded && ladder[i].callback == RETRY_CALLBACK_NONE)
			retry_callback_log(ended, false, psprintf("it cannot be stored, and is dropped: %s", batch.why));
		*finished |= ended->recorded && batch.finished;
		return true;
	}
	ended->failures++;
	log_failure(ended, error);
	return false;
}

/* The attempts that have failed as often as that, or oftener, to be recorded. */
static int
collect(dlist_head *list, RetryEnded **items, bool failed_before)
{
	dlist_iter	iter;
	int			count = 0;

	dlist_foreach(iter, list)
	{
		RetryEnded *ended = dlist_container(RetryEnded, node, iter.cur);

		if (!ended->recorded && (ended->failures > 0) == failed_before)
		{
			if (items != NULL)
				items[count] = ended;
			count++;
		}
	}
	return count;
}

/*
 * Records what can be recorded.  What failed before goes last and alone, so
 * that it cannot make the others fail every time.
 */
static bool
record_all(dlist_head *list, RetryConfig *config)
{
	Batch		batch;
	bool		finished = false;
	int			failures = 0;
	int			fresh = collect(list, NULL, false);
	int			failed = collect(list, NULL, true);
	RetryEnded **items = palloc((fresh + failed + 1) * sizeof(RetryEnded *));

	if (fresh > 0)
	{
		memset(&batch, 0, sizeof(batch));
		batch.config = config;
		batch.items = items;
		batch.count = collect(list, items, false);
		if (try_batch(&batch) == NULL)
		{
			finished = batch.finished;
			fresh = 0;
		}
	}
	collect(list, items + fresh, true);
	for (int i = 0; i < fresh + failed && failures < HOPELESS; i++)
	{
		if (record_single(items[i], config, &finished))
			failures = 0;
		else
			failures++;
	}
	return finished;
}

int
retry_record(dlist_head *ended, RetryConfig *config)
{
	MemoryContext caller = CurrentMemoryContext;
	dlist_iter	iter;
	int			before = 0;
	int			after = 0;

	if (dlist_is_empty(ended))
		return 0;
	if (scratch == NULL)
		scratch = AllocSetContextCreate(TopMemoryContext, "retry record", ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(scratch);
	MemoryContextSwitchTo(scratch);

	dlist_foreach(iter, ended)
		before += dlist_container(RetryEnded, node, iter.cur)->recorded;
	if (record_all(ended, config))
	{
		RetryDatabase *db = retry_shmem_database();

		if (db != NULL)
			ConditionVariableBroadcast(&db->finished);
	}
	dlist_foreach(iter, ended)
		after += dlist_container(RetryEnded, node, iter.cur)->recorded;
	pgstat_report_stat(false);
	MemoryContextSwitchTo(caller);
	return after - before;
}
