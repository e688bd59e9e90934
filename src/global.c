/*
 * global.c
 *		Reads, locks and writes global transactions and their decisions.
 *
 * These tables are read by naming their primary keys, by what is committed now
 * whatever snapshot the caller has: a decision is a fact that does not change,
 * and who is not the first must know who was.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "global.h"
#include "row.h"

static const char *const modes[] = {"message", "saga", "tcc", "2pc"};

/*
 * The row with this id in its first or ("column") another column, as committed
 * now; a copy, NULL when there is none.  The table stays locked.
 */
static HeapTuple
find_row(Relation rel, const char *index, int column, const pg_uuid_t *id)
{
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, column + 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	PushActiveSnapshot(GetLatestSnapshot());
	tuple = retry_row_find(rel, retry_relation_oid(index), &key, GetActiveSnapshot());
	PopActiveSnapshot();
	return tuple;
}

Relation
retry_global_open(const char *name, LOCKMODE mode, bool wait)
{
	Oid			oid = retry_relation_oid(name);

	if (wait)
		LockRelationOid(oid, mode);
	else if (!ConditionalLockRelationOid(oid, mode))
		return NULL;
	return table_open(oid, NoLock);
}

RetryDecision
retry_decision_in(Datum value)
{
	const text *word = DatumGetTextPP(value);

	return retry_decision_of_word(VARDATA_ANY(word), VARSIZE_ANY_EXHDR(word));
}

RetryGlobalMode
retry_global_mode_in(Datum value)
{
	const text *word = DatumGetTextPP(value);

	for (int i = 0; i < lengthof(modes); i++)
	{
		if (strlen(modes[i]) == VARSIZE_ANY_EXHDR(word) &&
			memcmp(modes[i], VARDATA_ANY(word), VARSIZE_ANY_EXHDR(word)) == 0)
			return (RetryGlobalMode) i;
	}
	return RETRY_MODE_MESSAGE;	/* the table's constraint lets no other in */
}

static void
read_global(HeapTuple tuple, TupleDesc desc, RetryGlobal *found)
{
	Datum		values[Global_natts];
	bool		isnull[Global_natts];

	retry_row_read(tuple, desc, Global_natts, values, isnull);
	found->gid = *DatumGetUUIDP(values[Global_gid]);
	found->mode = retry_global_mode_in(values[Global_mode]);
	found->scene_id = DatumGetInt32(values[Global_scene_id]);
	found->begun_by = DatumGetObjectId(values[Global_begun_by]);
	found->at_limit = retry_decision_in(values[Global_at_limit]);
	found->has_check = !isnull[Global_check_id];
	if (found->has_check)
		found->check_id = *DatumGetUUIDP(values[Global_check_id]);
	found->expires_at = isnull[Global_expires_at] ? 0 : DatumGetTimestampTz(values[Global_expires_at]);
	found->key = found->reference = NULL;
}

bool
retry_global_find(const pg_uuid_t *gid, RetryGlobal *global)
{
	Relation	rel = retry_global_open("global_transaction", AccessShareLock, true);
	HeapTuple	tuple = find_row(rel, "global_transaction_pkey", Global_gid, gid);

	if (tuple != NULL)
		read_global(tuple, RelationGetDescr(rel), global);
	table_close(rel, NoLock);
	return tuple != NULL;
}

static RetryDecision
read_decision(HeapTuple tuple, TupleDesc desc)
{
	Datum		values[Decision_natts];
	bool		isnull[Decision_natts];

	retry_row_read(tuple, desc, Decision_natts, values, isnull);
	return retry_decision_in(values[Decision_decision]);
}

bool
retry_global_decided(RetryGlobalScans *scans, const pg_uuid_t *gid, RetryDecision *decision)
{
	HeapTuple	row;

	if (!retry_global_scan(scans, RETRY_GLOBAL_DECISION, gid))
		return false;
	row = retry_global_scan_next(scans, RETRY_GLOBAL_DECISION);
	*decision = row == NULL ? RETRY_UNDECIDED :
		read_decision(row, RelationGetDescr(retry_global_scan_table(scans, RETRY_GLOBAL_DECISION)));
	return true;
}

/* Locks a row as SELECT FOR UPDATE does. */
static RetryGlobalLock
lock_row(Relation rel, ItemPointer tid, bool wait)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TM_FailureData failure;
	TM_Result	result;

	PushActiveSnapshot(GetLatestSnapshot());
	result = table_tuple_lock(rel, tid, GetActiveSnapshot(), slot, GetCurrentCommandId(true),
							  LockTupleExclusive, wait ? LockWaitBlock : LockWaitSkip, 0, &failure);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	switch (result)
	{
		case TM_Ok:
			return RETRY_GLOBAL_LOCKED;
		case TM_WouldBlock:
			return RETRY_GLOBAL_BUSY;
		default:				/* upkeep has just removed it */
			return RETRY_GLOBAL_MISSING;
	}
}

RetryGlobalLock
retry_global_lock_by(RetryGlobalScans *scans, const pg_uuid_t *gid, RetryGlobal *global, RetryDecision *decision)
{
	RetryGlobalLock lock;
	Relation	rel;
	HeapTuple	row;
	ItemPointerData tid;

	if (!retry_global_scan(scans, RETRY_GLOBAL_TRANSACTION, gid))
		return RETRY_GLOBAL_BUSY;
	row = retry_global_scan_next(scans, RETRY_GLOBAL_TRANSACTION);
	if (row == NULL)
		return RETRY_GLOBAL_MISSING;
	rel = retry_global_scan_table(scans, RETRY_GLOBAL_TRANSACTION);
	read_global(row, RelationGetDescr(rel), global);
	tid = row->t_self;
	lock = lock_row(rel, &tid, retry_global_scans_wait(scans));
	if (lock != RETRY_GLOBAL_LOCKED)
		return lock;

	/* who had the lock before may have decided */
	return retry_global_decided(scans, gid, decision) ? lock : RETRY_GLOBAL_BUSY;
}

RetryGlobalLock
retry_global_lock(const pg_uuid_t *gid, bool wait, RetryGlobal *global, RetryDecision *decision)
{
	RetryGlobalScans *scans = retry_global_scans_begin(wait);
	RetryGlobalLock lock = retry_global_lock_by(scans, gid, global, decision);

	retry_global_scans_end(scans);
	return lock;
}

static void
append(const char *table, int natts, const Datum *values, const bool *isnull)
{
	RetryAppender *appender = retry_append_begin(retry_relation_oid(table), natts, false);

	retry_append_row(appender, values, isnull);
	retry_append_end(appender);
}

void
retry_global_store(const RetryGlobal *global, TimestampTz now)
{
	Datum		values[Global_natts];
	bool		isnull[Global_natts];

	memset(isnull, true, sizeof(isnull));
	RETRY_FILL(Global_gid, true, UUIDPGetDatum(&global->gid));
	RETRY_FILL(Global_mode, true, CStringGetTextDatum(modes[global->mode]));
	RETRY_FILL(Global_scene_id, true, Int32GetDatum(global->scene_id));
	RETRY_FILL(Global_begun_by, true, ObjectIdGetDatum(global->begun_by));
	RETRY_FILL(Global_begun_at, true, TimestampTzGetDatum(now));
	RETRY_FILL(Global_at_limit, true, CStringGetTextDatum(retry_decision_word(global->at_limit)));
	RETRY_FILL(Global_check_id, global->has_check, UUIDPGetDatum(&global->check_id));
	RETRY_FILL(Global_expires_at, global->expires_at != 0, TimestampTzGetDatum(global->expires_at));
	RETRY_FILL(Global_key, global->key != NULL, PointerGetDatum(global->key));
	RETRY_FILL(Global_reference, global->reference != NULL, PointerGetDatum(global->reference));
	append("global_transaction", Global_natts, values, isnull);
}

void
retry_global_store_message(const Datum *values, const bool *isnull)
{
	append("global_message", Task_natts, values, isnull);
}

void
retry_global_decision_row(const pg_uuid_t *gid, RetryDecision decision, const char *how, Oid by,
						  TimestampTz at, Datum *values, bool *isnull)
{
	memset(isnull, true, Decision_natts * sizeof(bool));
	RETRY_FILL(Decision_gid, true, UUIDPGetDatum(gid));
	RETRY_FILL(Decision_decided_at, true, TimestampTzGetDatum(at));
	RETRY_FILL(Decision_decided_by, OidIsValid(by), ObjectIdGetDatum(by));
	RETRY_FILL(Decision_decision, true, CStringGetTextDatum(retry_decision_word(decision)));
	RETRY_FILL(Decision_how, true, CStringGetTextDatum(how));
}

void
retry_global_decide(const pg_uuid_t *gid, RetryDecision decision)
{
	Datum		values[Decision_natts];
	bool		isnull[Decision_natts];

	retry_global_decision_row(gid, decision, "caller", GetUserId(), GetCurrentTimestamp(), values, isnull);
	append("global_decision", Decision_natts, values, isnull);
}

bool
retry_global_message(const pg_uuid_t *gid, bool wait, Datum *values, bool *isnull,
					 TimestampTz *due_at, bool *busy)
{
	/* a lock that keeps others from its index, too, for which it would wait */
	Relation	rel = retry_global_open("global_message", RowExclusiveLock, wait);
	HeapTuple	tuple;

	*busy = rel == NULL;
	if (rel == NULL)
		return false;
	tuple = find_row(rel, "global_message_pkey", Task_id, gid);
	if (tuple != NULL)
	{
		retry_row_read(tuple, RelationGetDescr(rel), Task_natts, values, isnull);
		*due_at = Max(DatumGetTimestampTz(values[Task_due_at]), GetCurrentTimestamp());
	}
	table_close(rel, NoLock);
	return tuple != NULL;
}

bool
retry_global_decision(const pg_uuid_t *gid, RetryDecision *decision)
{
	RetryGlobalScans *scans;
	RetryGlobal global;
	bool		known;

	if (!retry_global_find(gid, &global))
		return false;
	scans = retry_global_scans_begin(true);
	known = retry_global_decided(scans, gid, decision);
	retry_global_scans_end(scans);
	return known;
}
