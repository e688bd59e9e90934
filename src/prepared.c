/*
 * prepared.c
 *		Reads and writes branches of two-phase commits, and tells what is to
 *		become of a prepared transaction that was found on a server.
 *
 * What is told here is done there, and cannot be undone; so it goes by what is
 * committed and on disk, never by what the current transaction sees alone.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "operation.h"
#include "prepared.h"
#include "row.h"

static RetryPreparedBranch *
read_branch(HeapTuple row, TupleDesc desc)
{
	RetryPreparedBranch *branch = palloc0(sizeof(RetryPreparedBranch));
	Datum		values[Prepared_natts];
	bool		isnull[Prepared_natts];

	retry_row_read(row, desc, Prepared_natts, values, isnull);
	branch->gid = *DatumGetUUIDP(values[Prepared_gid]);
	branch->no = DatumGetInt16(values[Prepared_no]);
	branch->server = TextDatumGetCString(values[Prepared_server]);
	branch->name = TextDatumGetCString(values[Prepared_name]);
	return branch;
}

/* Those of a transaction, or with "no" the one. */
static List *
read_branches(const pg_uuid_t *gid, int no)
{
	Relation	rel = table_open(retry_relation_oid("global_branch"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	List	   *branches = NIL;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	row;

	ScanKeyInit(&keys[0], Prepared_gid + 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(gid));
	ScanKeyInit(&keys[1], Prepared_no + 1, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(no));
	scan = systable_beginscan(rel, retry_relation_oid("global_branch_pkey"), true, snapshot,
							  no == 0 ? 1 : 2, keys);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
		branches = lappend(branches, read_branch(row, RelationGetDescr(rel)));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return branches;
}

List *
retry_prepared_of(const pg_uuid_t *gid)
{
	return read_branches(gid, 0);
}

RetryPreparedBranch *
retry_prepared_find(const pg_uuid_t *gid, int no)
{
	List	   *found = no > 0 && no <= RETRY_MAX_PREPARED ? read_branches(gid, no) : NIL;

	return found == NIL ? NULL : linitial(found);
}

void
retry_prepared_store(const RetryPreparedBranch *branch)
{
	Datum		values[Prepared_natts];
	bool		isnull[Prepared_natts] = {false};
	RetryAppender *appender = retry_append_begin(retry_relation_oid("global_branch"), Prepared_natts, false);

	values[Prepared_gid] = UUIDPGetDatum(&branch->gid);
	values[Prepared_no] = Int16GetDatum(branch->no);
	values[Prepared_server] = CStringGetTextDatum(branch->server);
	values[Prepared_name] = CStringGetTextDatum(branch->name);
	retry_append_row(appender, values, isnull);
	retry_append_end(appender);
}

void
retry_prepared_new_name(const pg_uuid_t *gid, int no, char *text)
{
	RetryPreparedName name = {
		.system = GetSystemIdentifier(),.database = MyDatabaseId,.branch = no,
		.xid = U64FromFullTransactionId(GetTopFullTransactionId())
	};

	memcpy(name.gid, gid->data, UUID_LEN);
	retry_prepared_name_write(&name, text);
}

RetryDecision
retry_decision_for_good(const pg_uuid_t *gid)
{
	Relation	rel = table_open(retry_relation_oid("global_decision"), AccessShareLock);
	RetryDecision decision = RETRY_UNDECIDED;
	ScanKeyData key;
	HeapTuple	row;

	ScanKeyInit(&key, Decision_gid + 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(gid));
	PushActiveSnapshot(GetLatestSnapshot());
	row = retry_row_find(rel, retry_relation_oid("global_decision_pkey"), &key, GetActiveSnapshot());
	PopActiveSnapshot();
	if (row != NULL)
	{
		TransactionId xid = HeapTupleHeaderGetXmin(row->t_data);
		Datum		values[Decision_natts];
		bool		isnull[Decision_natts];

		retry_row_read(row, RelationGetDescr(rel), Decision_natts, values, isnull);
		if (!TransactionIdIsCurrentTransactionId(xid))
			decision = retry_decision_in(values[Decision_decision]);

		/* a commit that is not on disk can be undone by a crash */
		if (decision != RETRY_UNDECIDED && TransactionIdIsNormal(xid))
			XLogFlush(TransactionIdGetCommitLSN(xid));
	}
	table_close(rel, NoLock);
	return decision;
}

/* Is it noted that a task has committed it? */
static bool
is_committed(const pg_uuid_t *gid, int no)
{
	Relation	rel = table_open(retry_relation_oid("global_outcome"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData keys[3];
	SysScanDesc scan;
	bool		found;

	ScanKeyInit(&keys[0], Outcome_gid + 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(gid));
	ScanKeyInit(&keys[1], Outcome_branch_no + 1, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(no));
	ScanKeyEntryInitialize(&keys[2], 0, Outcome_op + 1, BTEqualStrategyNumber, InvalidOid, DEFAULT_COLLATION_OID,
						   F_TEXTEQ, CStringGetTextDatum(retry_op_word(RETRY_OP_COMMIT)));
	scan = systable_beginscan(rel, retry_relation_oid("global_outcome_pkey"), true, snapshot, lengthof(keys), keys);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return found;
}

/* Has this transaction of ours ended, so that what it wrote can be seen or never will be? */
static bool
has_ended(uint64 xid)
{
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());

	/* a name from the future: this database was restored from a backup */
	if (xid >= next)
		return false;
	return next - xid > PG_INT32_MAX || !TransactionIdIsInProgress((TransactionId) xid);
}

RetryFate
retry_fate_of(const char *text, RetryPreparedName *name)
{
	RetryPreparedBranch *branch;
	pg_uuid_t	gid;
	bool		ours;
	bool		ended;

	if (!retry_prepared_name_read(text, name))
		return RETRY_FATE_FOREIGN;
	ours = name->system == GetSystemIdentifier() && name->database == MyDatabaseId;

	/* first this, then what it may have written */
	ended = ours && has_ended(name->xid);
	memcpy(gid.data, name->gid, UUID_LEN);
	branch = retry_prepared_find(&gid, name->branch);
	if (branch == NULL || strcmp(branch->name, text) != 0)
		return !ours ? RETRY_FATE_FOREIGN : ended ? RETRY_FATE_ORPHAN : RETRY_FATE_OPEN;
	switch (retry_decision_for_good(&gid))
	{
		case RETRY_UNDECIDED:
			return RETRY_FATE_UNDECIDED;
		case RETRY_ROLLBACK:
			return RETRY_FATE_ROLLBACK;
		case RETRY_COMMIT:
			break;
	}
	return is_committed(&gid, name->branch) ? RETRY_FATE_AGAIN : RETRY_FATE_COMMIT;
}
