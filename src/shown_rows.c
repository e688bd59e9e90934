/*
 * shown_rows.c
 *		Rows of views made of what dispatchers show in shared memory.
 *
 * The entries are read without stopping anybody, and only those of groups that
 * the current role may see become rows: names of lanes and targets say whom a
 * group calls.  There may be very many, so what a row needs is freed before
 * the next one.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "compat.h"
#include "shown_rows.h"

/* What is needed for one entry at a time. */
typedef struct Entry
{
	RetryShownRows *rows;
	MemoryContext context;
} Entry;

static void
read_entry(const void *copy, void *arg)
{
	Entry	   *entry = arg;
	MemoryContext old = MemoryContextSwitchTo(entry->context);

	entry->rows->add(entry->rows, copy);
	MemoryContextSwitchTo(old);
	MemoryContextReset(entry->context);
}

void
retry_shown_rows_read(FunctionCallInfo fcinfo, Size entry_size, bool shared,
					  const RetryShownPlace *(*place) (const RetryWorker *worker),
					  void (*add) (RetryShownRows *rows, const void *entry))
{
	RetryShownRows rows = {.result = (ReturnSetInfo *) fcinfo->resultinfo,.add = add};
	Entry		entry = {.rows = &rows};
	RetryWorker *workers;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	if (!retry_shmem_ready())
		return;

	workers = palloc(sizeof(RetryWorker) * retry_shmem_max_workers());
	n = retry_shmem_workers(MyDatabaseId, workers);
	rows.groups = retry_visible_groups(GetActiveSnapshot(), GetUserId(), shared, &rows.ngroups);
	rows.sees_unknown = retry_sees_all_groups(GetUserId());
	rows.now = GetCurrentTimestamp();
	rows.now_us = retry_monotonic_us();
	entry.context = AllocSetContextCreate(CurrentMemoryContext, "retry shown rows", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < n; i++)
	{
		if (workers[i].phase != RETRY_WORKER_RUNNING)
			continue;
		rows.dispatcher = workers[i].number;
		retry_shown_each(place(&workers[i]), entry_size, read_entry, &entry);
	}
	MemoryContextDelete(entry.context);
}

bool
retry_shown_rows_visible(const RetryShownRows *rows, int32 group_id)
{
	if (group_id == 0)
		return rows->sees_unknown;
	for (int i = 0; i < rows->ngroups; i++)
	{
		if (rows->groups[i] == group_id)
			return true;
	}
	return false;
}

void
retry_shown_rows_add(RetryShownRows *rows, Datum *values, bool *isnull)
{
	tuplestore_putvalues(rows->result->setResult, rows->result->setDesc, values, isnull);
}

void
retry_shown_rows_moment(const RetryShownRows *rows, Datum *value, bool *isnull,
						bool known, int64 moment_us)
{
	*isnull = !known || moment_us <= 0;
	if (!*isnull)
		*value = TimestampTzGetDatum(moment_us == PG_INT64_MAX ? DT_NOEND :
									 rows->now + (moment_us - rows->now_us));
}

void
retry_shown_rows_text(Datum *value, bool *isnull, const char *text)
{
	*isnull = text[0] == '\0';
	if (!*isnull)
		*value = CStringGetTextDatum(text);
}
