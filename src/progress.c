/*
 * progress.c
 *		How far long operations have come, in shared memory.
 *
 * A table of fixed size.  A process takes an entry by putting its number there,
 * and writes only what it has taken; readers take no lock, and read an entry
 * again that changed meanwhile.  The numbers that change all the time are not
 * guarded: each is right by itself.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "audit.h"
#include "progress.h"
#include "shown.h"

#define ENTRIES			128
#define WORD_BYTES		64
#define FILTER_BYTES	512
#define READ_TRIES		100		/* of an entry that is being written */
#define COLUMNS			12

PG_FUNCTION_INFO_V1(retry_progress_rows);

struct RetryProgress
{
	pg_atomic_uint32 pid;		/* whose it is; 0: free */
	pg_atomic_uint32 version;	/* odd while it is being written */
	bool		live;			/* there is something to be seen */
	bool		estimated;
	Oid			database;
	Oid			role;
	int32		group_id;
	int32		scene_id;
	TimestampTz started_at;
	int64		total;			/* -1: not known */
	volatile int64 looked_at;
	volatile int64 done;
	char		operation[WORD_BYTES];
	char		phase[WORD_BYTES];
	char		filter[FILTER_BYTES];
};

static RetryProgress *entries = NULL;

void
retry_progress_request_memory(void)
{
	RequestAddinShmemSpace(ENTRIES * sizeof(RetryProgress));
}

void
retry_progress_create_memory(void)
{
	bool		found;

	entries = ShmemInitStruct("retry progress", ENTRIES * sizeof(RetryProgress), &found);
	if (found)
		return;
	memset(entries, 0, ENTRIES * sizeof(RetryProgress));
	for (int i = 0; i < ENTRIES; i++)
	{
		pg_atomic_init_u32(&entries[i].pid, 0);
		pg_atomic_init_u32(&entries[i].version, 0);
	}
}

/* Between these two the entry is being written. */
static void
write_begin(RetryProgress *entry)
{
	pg_atomic_fetch_add_u32(&entry->version, 1);
}

static void
write_end(RetryProgress *entry)
{
	pg_atomic_fetch_add_u32(&entry->version, 1);
}

/* What a process that ends has left; an entry may have been cut off in writing. */
static void
leave(int code, Datum arg)
{
	for (int i = 0; i < ENTRIES; i++)
	{
		if (pg_atomic_read_u32(&entries[i].pid) != MyProcPid)
			continue;
		if (pg_atomic_read_u32(&entries[i].version) % 2 != 0)
			write_end(&entries[i]);
		retry_progress_end(&entries[i]);
	}
}

/* A free entry, now this process's; NULL when there is none. */
static RetryProgress *
take_entry(void)
{
	static bool registered = false;

	if (entries == NULL)
		return NULL;
	if (!registered)
		on_shmem_exit(leave, (Datum) 0);
	registered = true;
	for (int i = 0; i < ENTRIES; i++)
	{
		uint32		nobody = 0;

		if (pg_atomic_compare_exchange_u32(&entries[i].pid, &nobody, MyProcPid))
			return &entries[i];
	}
	return NULL;
}

RetryProgress *
retry_progress_begin(const char *operation, int32 group_id, int32 scene_id, const char *filter)
{
	RetryProgress *entry = take_entry();

	if (entry == NULL)
		return NULL;
	write_begin(entry);
	entry->database = MyDatabaseId;
	entry->role = retry_acting_role();
	entry->group_id = group_id;
	entry->scene_id = scene_id;
	entry->started_at = GetCurrentTimestamp();
	entry->total = -1;
	entry->estimated = false;
	entry->looked_at = entry->done = 0;
	retry_shown_copy_text(entry->operation, operation, WORD_BYTES);
	entry->phase[0] = '\0';
	retry_shown_copy_text(entry->filter, filter != NULL ? filter : "", FILTER_BYTES);
	entry->live = true;
	write_end(entry);
	return entry;
}

RetryProgress *
retry_progress_begin_call(FunctionCallInfo fcinfo, const char *operation, int32 scene_id)
{
	RetryGroupRow group = {0};
	bool		has_group = false;
	Jsonb	   *arguments = retry_audit_arguments(fcinfo, -1, &group, &has_group);
	char	   *filter = NULL;

	if (JB_ROOT_COUNT(arguments) > 0)
		filter = JsonbToCString(NULL, &arguments->root, VARSIZE(arguments));
	return retry_progress_begin(operation, has_group ? group.id : 0, scene_id, filter);
}

void
retry_progress_phase(RetryProgress *progress, const char *phase, int64 total, bool estimated)
{
	if (progress == NULL)
		return;
	write_begin(progress);
	retry_shown_copy_text(progress->phase, phase, WORD_BYTES);
	progress->total = total;
	progress->estimated = estimated;
	progress->looked_at = 0;
	write_end(progress);
}

void
retry_progress_set(RetryProgress *progress, int64 looked_at, int64 done)
{
	if (progress == NULL)
		return;
	progress->looked_at = looked_at;
	progress->done = done;
}

void
retry_progress_end(RetryProgress *progress)
{
	if (progress == NULL || pg_atomic_read_u32(&progress->pid) != MyProcPid)
		return;
	write_begin(progress);
	progress->live = false;
	write_end(progress);
	pg_atomic_write_u32(&progress->pid, 0);
}

/* A consistent copy; false when there is nothing to be seen. */
static bool
copy_entry(RetryProgress *entry, RetryProgress *copy)
{
	for (int i = 0; i < READ_TRIES; i++)
	{
		uint32		version = pg_atomic_read_u32(&entry->version);

		pg_read_barrier();
		if (version % 2 != 0)
			continue;
		memcpy(copy, entry, sizeof(*copy));
		pg_read_barrier();
		if (pg_atomic_read_u32(&entry->version) == version)
			return copy->live && copy->database == MyDatabaseId;
	}
	return false;
}

static void
set_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text[0] == '\0';
	if (!nulls[column])
		values[column] = CStringGetTextDatum(text);
}

/* Is it about one of these groups, or done by a role whose member asks? */
static bool
may_see(const RetryProgress *entry, const int32 *groups, int ngroups)
{
	if (retry_sees_all_groups(GetUserId()) || has_privs_of_role(GetUserId(), entry->role))
		return true;
	for (int i = 0; i < ngroups; i++)
	{
		if (groups[i] == entry->group_id)
			return true;
	}
	return false;
}

/* retry.progress_rows() */
Datum
retry_progress_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	RetryProgress copy;
	int32	   *groups;
	int			ngroups;

	InitMaterializedSRF(fcinfo, 0);
	if (entries == NULL)
		return (Datum) 0;
	groups = retry_visible_groups(GetActiveSnapshot(), GetUserId(), false, &ngroups);
	for (int i = 0; i < ENTRIES; i++)
	{
		Datum		values[COLUMNS] = {0};
		bool		nulls[COLUMNS] = {0};

		if (pg_atomic_read_u32(&entries[i].pid) == 0 || !copy_entry(&entries[i], &copy) ||
			!may_see(&copy, groups, ngroups))
			continue;
		values[0] = Int32GetDatum((int32) pg_atomic_read_u32(&copy.pid));
		values[1] = ObjectIdGetDatum(copy.role);
		set_text(values, nulls, 2, copy.operation);
		values[3] = Int32GetDatum(copy.group_id);
		nulls[3] = copy.group_id == 0;
		values[4] = Int32GetDatum(copy.scene_id);
		nulls[4] = copy.scene_id == 0;
		set_text(values, nulls, 5, copy.filter);
		set_text(values, nulls, 6, copy.phase);
		values[7] = Int64GetDatum(copy.looked_at);
		values[8] = Int64GetDatum(copy.total);
		nulls[8] = copy.total < 0;
		values[9] = BoolGetDatum(copy.estimated);
		values[10] = Int64GetDatum(copy.done);
		values[11] = TimestampTzGetDatum(copy.started_at);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
