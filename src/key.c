/*
 * key.c
 *		Claims idempotency keys.
 *
 * Uniqueness is left to the index of retry.key, which also makes the second of
 * two sessions with the same key wait until the first has committed or rolled
 * back.  A row of it outlives its task: whoever finds one asks the store what
 * became of that task, and points the row at a new one when it has finished or
 * is gone, and its scene's key_window is over.  Upkeep notes in the row when the
 * task finished before it clears the task's leaf, so that a window may be longer
 * than the history is kept.
 *
 * These statements go through SPI; all are prepared once a backend.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "global.h"
#include "key.h"
#include "shmem.h"
#include "statement.h"
#include "store.h"
#include "writer.h"

/* $1 scene, $2 role, $3 key, $4 task, $5 leaf */
typedef enum KeyStatement
{
	KEY_INSERT, KEY_READ, KEY_LOCK, KEY_POINT, KEY_STATEMENTS
} KeyStatement;

#define THE_KEY \
	"WHERE k.scene_id OPERATOR(pg_catalog.=) $1 AND k.role OPERATOR(pg_catalog.=) $2" \
	" AND k.key OPERATOR(pg_catalog.=) $3"

static const char *const statement_text[KEY_STATEMENTS] =
{
	[KEY_INSERT] =
	"INSERT INTO retry.key (scene_id, role, key, task_id, leaf)"
	" VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
	[KEY_READ] =
	"SELECT k.task_id, k.leaf, k.finished_at FROM retry.key k " THE_KEY,
	[KEY_LOCK] =
	"SELECT k.task_id, k.leaf, k.finished_at FROM retry.key k " THE_KEY " FOR UPDATE",
	[KEY_POINT] =
	"UPDATE retry.key k SET task_id = $4, leaf = $5, finished_at = NULL " THE_KEY
};

static const int statement_args[KEY_STATEMENTS] = {5, 3, 3, 5};

/* What the store says of the task that a key points at. */
typedef struct KeyTask
{
	pg_uuid_t	id;
	int			leaf;
	bool		alive;
	bool		running;		/* an attempt was under way before we looked */
	bool		prepared;		/* it is a message that is not decided */
	bool		kept;			/* it has finished, and its key still leads to
								 * it */
	bool		cancelled;		/* when it has finished: that way */
	TimestampTz finished_at;	/* DT_NOEND: not, or not known */
	int32		attempts;
	int64		lane_hash;
	bool		has_parent;
	pg_uuid_t	parent;
} KeyTask;

static SPIPlanPtr
prepared(KeyStatement which)
{
	static SPIPlanPtr plans[KEY_STATEMENTS];
	Oid			types[5] = {INT4OID, OIDOID, TEXTOID, UUIDOID, INT2OID};

	if (plans[which] == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(statement_text[which], statement_args[which], types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not prepare a statement on retry.key: %s",
							SPI_result_code_string(SPI_result))));
		plans[which] = plan;
	}
	return plans[which];
}

/*
 * Runs a statement for one key; the number of rows.  Plans are kept, and may
 * have been made while the table was empty, so sequential scans are ruled out
 * for all but the INSERT, which does not plan any.
 */
static uint64
run(KeyStatement which, const RetryKeyring *keyring, text *key, const pg_uuid_t *id, int leaf)
{
	Datum		values[5] = {
		Int32GetDatum(keyring->scene->id), ObjectIdGetDatum(keyring->role),
		PointerGetDatum(key), UUIDPGetDatum(id), Int16GetDatum(leaf)
	};
	int			nest = 0;
	int			rc;

	if (which != KEY_INSERT)
	{
		nest = NewGUCNestLevel();
		(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	rc = SPI_execute_plan(prepared(which), values, NULL, false, 0);
	if (rc < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not execute a statement on retry.key: %s", SPI_result_code_string(rc))));
	if (which != KEY_INSERT)
		AtEOXact_GUC(true, nest);
	return SPI_processed;
}

/* Where a key points; false when its row is not there (any more). */
static bool
read_key(const RetryKeyring *keyring, text *key, bool lock, KeyTask *task)
{
	bool		isnull;
	HeapTuple	tuple;

	if (run(lock ? KEY_LOCK : KEY_READ, keyring, key, NULL, 0) == 0)
		return false;
	tuple = SPI_tuptable->vals[0];
	task->id = *DatumGetUUIDP(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull));
	task->leaf = DatumGetInt16(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &isnull));
	task->finished_at = DatumGetTimestampTz(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 3, &isnull));
	if (isnull)
		task->finished_at = DT_NOEND;
	SPI_freetuptable(SPI_tuptable);
	return true;
}

/*
 * Looks for the task in one leaf and asks what became of it; false when it is
 * not there.
 */
static bool
look_in_leaf(RetryReader *reader, int leaf, KeyTask *task)
{
	ScanKeyData key;
	TupleTableSlot *slot;
	RetryProbe	probe;
	Datum		parent;
	bool		isnull;

	if (!retry_reader_leaf(reader, leaf))
		return false;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(&task->id));
	retry_scan_start(reader, RETRY_TASK_ID, leaf, 1, &key);
	slot = retry_scan_next(reader, RETRY_TASK_ID, leaf, ForwardScanDirection);
	if (slot == NULL)
		return false;

	task->lane_hash = DatumGetInt64(slot_getattr(slot, Task_lane_hash + 1, &isnull));
	task->leaf = leaf;
	parent = slot_getattr(slot, Task_parent_id + 1, &isnull);
	task->has_parent = !isnull;
	if (!isnull)
		task->parent = *DatumGetUUIDP(parent);
	retry_probe_task(reader, leaf, &task->id, &probe);
	task->attempts = probe.attempts;
	task->alive = !probe.terminal && !probe.cancelled;
	task->cancelled = !probe.terminal && probe.cancelled;
	if (probe.terminal)
		task->finished_at = probe.finished_at;
	return true;
}

/*
 * Does the key of a task that is not alive still lead to it?  Nobody was told
 * of a cancelled task, so its key is free at once.  Of one that is gone and
 * whose end was not noted, nobody knows that its time is over; upkeep notes one
 * when it finds it so.
 */
static bool
is_kept(const RetryKeyring *keyring, const KeyTask *task)
{
	if (keyring->scene->key_window_us == 0 || task->cancelled)
		return false;
	return task->finished_at == DT_NOEND ||
		task->finished_at + keyring->scene->key_window_us > GetCurrentTimestamp();
}

/*
 * Is the key's task alive, as of now rather than of the caller's snapshot?  An
 * attempt that ends meanwhile leaves shared memory when it is recorded: who
 * asks there first, and then the facts, sees it in one of them.  A
 * task moves from its leaf to the long one at most.  While it does, a snapshot
 * taken before sees it in neither, so the second look takes a new one; the same
 * is true of a message that is being committed.
 */
static void
look_at_task(const RetryKeyring *keyring, KeyTask *task)
{
	bool		found = false;

	task->running = keyring->on_conflict == RETRY_KEY_REPLACE &&
		retry_shmem_task_running(MyDatabaseId, &task->id);
	task->alive = false;
	task->prepared = false;
	task->cancelled = false;
	task->has_parent = false;
	for (int i = 0; i < 2 && !found; i++)
	{
		RetryReader *reader;
		RetryDecision decision;

		PushActiveSnapshot(GetLatestSnapshot());
		reader = retry_reader_begin(GetActiveSnapshot(), false);
		found = look_in_leaf(reader, task->leaf, task) ||
			(task->leaf != RETRY_LONG_LEAF && look_in_leaf(reader, RETRY_LONG_LEAF, task));
		retry_reader_end(reader);
		PopActiveSnapshot();
		if (!found && retry_global_decision(&task->id, &decision) && decision == RETRY_UNDECIDED)
			found = task->alive = task->prepared = true;
	}
	task->kept = !task->alive && is_kept(keyring, task);
}

/* A key as its caller knows it: what comes after a line feed is fanout.c's. */
static char *
given_key(const text *key)
{
	char	   *name = text_to_cstring(key);

	name[strcspn(name, "\n")] = '\0';
	return name;
}

/* The DETAIL of an error: why the key is not free. */
static char *
why_in_use(const RetryKeyring *keyring, const KeyTask *task, const char *id)
{
	if (task->prepared)
		return psprintf(_("It is a message that is neither committed nor rolled back."));
	if (task->alive)
		return psprintf(_("Its task %s has not finished."), id);
	return psprintf(_("Its task %s has finished, and the key_window of the scene is not over."), id);
}

static void
refuse(const RetryKeyring *keyring, const text *key, const KeyTask *task)
{
	char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&task->id)));
	char	   *name = given_key(key);

	if (keyring->on_conflict == RETRY_KEY_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("key \"%s\" is in use in scene \"%s/%s\"", name,
						keyring->scene->group.name, keyring->scene->name),
				 errdetail_internal("%s", why_in_use(keyring, task, id)),
				 errhint("on_conflict => 'return' gives the id of that task.")));
	if (task->kept || task->prepared)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task %s with key \"%s\" cannot be replaced", id, name),
				 errdetail_internal("%s", why_in_use(keyring, task, id)),
				 errhint("on_conflict => 'return' gives the id of that task.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("task %s with key \"%s\" cannot be replaced", id, name),
			 errdetail("It has been sent already, and has not finished."),
			 errhint("Cancel it, or wait until it has finished.")));
}

/* Cancels a task of which nothing was sent, to make way for another. */
static void
cancel_pending(const RetryKeyring *keyring, const text *key, const KeyTask *task)
{
	RetryWriter *writer;

	if (task->prepared || task->attempts > 0 || task->running || retry_shmem_task_running(MyDatabaseId, &task->id))
		refuse(keyring, key, task);
	writer = retry_writer_begin("retry.enqueue()");
	retry_write_signal(writer, RETRY_SIGNAL_CANCEL, &task->id, task->leaf, task->lane_hash,
					   task->attempts, keyring->caller.role);
	retry_writer_end(writer);
}

void
retry_keyring_begin(RetryKeyring *keyring, const RetrySceneRow *scene, RetryKeyConflict on_conflict)
{
	keyring->scene = scene;
	keyring->on_conflict = on_conflict;
	keyring->role = scene->group.shared ? GetUserId() : InvalidOid;
	retry_statement_connect();
	retry_become_owner(&keyring->caller);
}

void
retry_keyring_end(RetryKeyring *keyring)
{
	retry_become_caller(&keyring->caller);
	SPI_finish();
}

bool
retry_key_claim(RetryKeyring *keyring, text *key, int leaf, pg_uuid_t *id)
{
	bool		lock = keyring->on_conflict == RETRY_KEY_REPLACE;
	KeyTask		task;

	/*
	 * Most keys are new.  When one is not, its row is read without a lock
	 * first, so that asking for a live task's id delays nobody; it is locked
	 * to be changed, and then all is asked again.  Upkeep may remove the row
	 * of a finished task at any moment.
	 */
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (run(KEY_INSERT, keyring, key, id, leaf) == 1)
			return true;
		if (!read_key(keyring, key, lock, &task))
			continue;
		look_at_task(keyring, &task);
		if ((task.alive || task.kept) && keyring->on_conflict == RETRY_KEY_RETURN)
		{
			*id = task.id;
			keyring->has_parent = task.has_parent;
			keyring->parent = task.parent;
			return false;
		}
		if (task.kept || (task.alive && keyring->on_conflict == RETRY_KEY_ERROR))
			refuse(keyring, key, &task);
		if (lock)
			break;
		lock = true;
	}

	if (task.alive)
		cancel_pending(keyring, key, &task);
	if (run(KEY_POINT, keyring, key, id, leaf) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not claim key \"%s\" because of a concurrent change", given_key(key))));
	return true;
}
