/*
 * writer.c
 *		Puts the rows of tasks and signals into their leaves.
 *
 * Leaves' triggers mark every row that comes in by other ways as foreign; what
 * comes through here is ours, carries the number of the transaction that the
 * feed will look for, and has announced itself in shared memory before it can
 * become visible.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "scene.h"
#include "shmem.h"
#include "statement.h"
#include "uuid7.h"
#include "wakeup.h"
#include "writer.h"

/* Random bytes are drawn for this many ids at once. */
#define RANDOM_IDS	64

RetryWriter *
retry_writer_begin(const char *function)
{
	RetryWriter *writer;

	retry_require_writable(function);
	retry_warn_not_preloaded();

	writer = palloc0(sizeof(RetryWriter));
	writer->last_leaf = -1;
	return writer;
}

void
retry_writer_end(RetryWriter *writer)
{
	for (int i = 0; i < RETRY_LEAVES; i++)
	{
		if (writer->tasks[i] != NULL)
			retry_append_end(writer->tasks[i]);
		if (writer->signals[i] != NULL)
			retry_append_end(writer->signals[i]);
	}
	pfree(writer);

	/* what was stored can be seen by whatever follows in the same statement */
	CommandCounterIncrement();
}

void
retry_new_id(TimestampTz now, pg_uuid_t *id)
{
	static RetryUuid7State state;
	static uint8 random[RANDOM_IDS][RETRY_UUID7_RANDOM];
	static int	left = 0;

	if (left == 0)
	{
		if (!pg_strong_random(random, sizeof(random)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values for a task's id")));
		left = RANDOM_IDS;
	}
	retry_uuid7_make(&state, now, random[--left], id);
}

/*
 * Tells the dispatchers of a row to come, unless they were just told, and
 * returns the row's transaction number.  A call that stores nothing, because
 * its key has a live task, takes none.
 */
static Datum
announce(RetryWriter *writer, int leaf, int64 lane_hash)
{
	if (writer->xid == 0)
		writer->xid = U64FromFullTransactionId(GetTopFullTransactionId());
	if (leaf != writer->last_leaf || lane_hash != writer->last_lane)
	{
		retry_wakeup_row(leaf, lane_hash, writer->xid);
		writer->last_leaf = leaf;
		writer->last_lane = lane_hash;
	}
	return FullTransactionIdGetDatum(FullTransactionIdFromU64(writer->xid));
}

/* The appender of a leaf; it must outlive whatever context is current. */
static RetryAppender *
open_appender(RetryWriter *writer, RetryAppender **appenders, RetryTable table, int natts, int leaf)
{
	if (appenders[leaf] == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(writer));

		appenders[leaf] = retry_append_begin(retry_leaf_oid(table, leaf), natts, false);
		MemoryContextSwitchTo(old);
	}
	return appenders[leaf];
}

static void
append(RetryWriter *writer, RetryAppender *appender, const Datum *values, const bool *isnull)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(writer));

	retry_append_row(appender, values, isnull);
	MemoryContextSwitchTo(old);
}

void
retry_writer_group(RetryWriter *writer, const RetryGroupRow *group)
{
	writer->laned = group->limits.max_lanes >= 0 ? group : NULL;
}

void
retry_write_task(RetryWriter *writer, const pg_uuid_t *id, TimestampTz due_at,
				 Datum *values, bool *isnull)
{
	int			leaf = retry_leaf_for(id, due_at);

	if (writer->laned != NULL)
		retry_group_admit_lane(writer->laned, DatumGetInt64(values[Task_lane_hash]),
							   isnull[Task_lane] ? NULL : DatumGetTextPP(values[Task_lane]));
	values[Task_leaf] = Int16GetDatum(leaf);
	values[Task_inert] = BoolGetDatum(false);
	values[Task_id] = UUIDPGetDatum(id);
	values[Task_xid] = announce(writer, leaf, DatumGetInt64(values[Task_lane_hash]));
	values[Task_due_at] = TimestampTzGetDatum(due_at);
	isnull[Task_leaf] = isnull[Task_inert] = isnull[Task_id] = false;
	isnull[Task_xid] = isnull[Task_due_at] = false;

	append(writer, open_appender(writer, writer->tasks, RETRY_TASK, Task_natts, leaf), values, isnull);
}

void
retry_write_signal(RetryWriter *writer, char action, const pg_uuid_t *id, int leaf,
				   int64 lane_hash, int32 attempts, Oid asked_by)
{
	retry_write_signal_at(writer, action, id, leaf, lane_hash, attempts, asked_by, GetCurrentTimestamp());
}

static void
write_signal(RetryWriter *writer, char action, const pg_uuid_t *id, int leaf, int64 lane_hash,
			 int32 attempts, Oid asked_by, TimestampTz due_at, Jsonb *change)
{
	Datum		values[Signal_natts];
	bool		isnull[Signal_natts] = {0};

	values[Signal_leaf] = Int16GetDatum(leaf);
	values[Signal_action] = CharGetDatum(action);
	values[Signal_after_attempt] = Int32GetDatum(attempts);
	values[Signal_task_id] = UUIDPGetDatum(id);
	values[Signal_xid] = announce(writer, leaf, lane_hash);
	values[Signal_lane_hash] = Int64GetDatum(lane_hash);
	values[Signal_due_at] = TimestampTzGetDatum(due_at);
	values[Signal_inert] = BoolGetDatum(false);
	values[Signal_asked_by] = ObjectIdGetDatum(asked_by);
	values[Signal_change] = PointerGetDatum(change);
	isnull[Signal_change] = change == NULL;

	append(writer, open_appender(writer, writer->signals, RETRY_SIGNAL, Signal_natts, leaf), values, isnull);
}

void
retry_write_signal_at(RetryWriter *writer, char action, const pg_uuid_t *id, int leaf,
					  int64 lane_hash, int32 attempts, Oid asked_by, TimestampTz due_at)
{
	write_signal(writer, action, id, leaf, lane_hash, attempts, asked_by, due_at, NULL);
}

void
retry_write_change(RetryWriter *writer, const pg_uuid_t *id, int leaf, int64 lane_hash,
				   int32 attempts, Oid asked_by, Jsonb *change)
{
	static TimestampTz last = 0;

	/* a clock that was set back makes later changes win, too */
	last = Max(GetCurrentTimestamp(), last + 1);
	write_signal(writer, RETRY_SIGNAL_AMEND, id, leaf, lane_hash, attempts, asked_by, last, change);
}
