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
 * goes, before an outcome stays unrecorded.  What it brings about in a global
 * transaction is none: the outcome would never be told again, and nobody decide.
 *
 * Nothing here waits for a lock that a session may hold: attempts of a leaf
 * that is locked stay with the caller too, and the others go on.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "record_private.h"
#include "shmem.h"

/* So many failures in a row, and it is not the rows: leave the rest for later. */
#define HOPELESS		3

/* What cannot be recorded is logged at most this often. */
#define LOG_INTERVAL_MS	(60 * 1000)

/* Everything of one call, reset at the next. */
static MemoryContext scratch = NULL;

/*
 * Stores a batch in a transaction of its own and sets "recorded" on what is
 * now in the store.  NULL when it went well, locked leaves included; else the
 * error, in the scratch context, and nothing is stored.
 */
static ErrorData *
try_batch(RetryRecordBatch *batch)
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
		retry_record_batch(batch);
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
try_single(RetryRecordBatch *batch, RetryRecordForm form)
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
	static const RetryRecordForm ladder[] = {
		{false, RETRY_CALLBACK_FULL}, {false, RETRY_CALLBACK_SMALL}, {true, RETRY_CALLBACK_SMALL},
		{false, RETRY_CALLBACK_NONE}, {true, RETRY_CALLBACK_NONE}
	};
	const char *column;
	const char *target = retry_callback_of(ended, &column);
	ErrorData  *error = NULL;
	RetryRecordBatch batch;

	memset(&batch, 0, sizeof(batch));
	batch.config = config;
	batch.items = &ended;
	batch.count = 1;

	for (int i = 0; i < lengthof(ladder); i++)
	{
		/* without a callback these would be the same again */
		if (target == NULL && i != 0 && i != lengthof(ladder) - 1)
			continue;
		if (retry_part(target) != RETRY_PART_NONE && ladder[i].callback == RETRY_CALLBACK_NONE)
			break;
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
	RetryRecordBatch batch;
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
