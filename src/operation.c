/*
 * operation.c
 *		The operations of global transactions: rows of retry.global_operation
 *		and retry.global_outcome.
 *
 * All that is known of one transaction is read at once and in one place, so
 * that a session and a dispatcher judge by the same.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "operation.h"
#include "row.h"

/* Operations that are made room for at once. */
#define ROOM	8

static const struct
{
	const char *word;
	RetryOpPhase phase;
}			ops[RETRY_OPS] = {
	[RETRY_OP_ACTION] = {"action", RETRY_PHASE_FIRST},
	[RETRY_OP_COMPENSATE] = {"compensate", RETRY_PHASE_UNDO},
	[RETRY_OP_TRY] = {"try", RETRY_PHASE_FIRST},
	[RETRY_OP_CONFIRM] = {"confirm", RETRY_PHASE_CONFIRM},
	[RETRY_OP_CANCEL] = {"cancel", RETRY_PHASE_UNDO},
	[RETRY_OP_COMMIT] = {"commit", RETRY_PHASE_CONFIRM},
	[RETRY_OP_ROLLBACK] = {"rollback", RETRY_PHASE_UNDO}
};

const char *
retry_op_word(RetryOp op)
{
	return ops[op].word;
}

RetryOpPhase
retry_op_phase(RetryOp op)
{
	return ops[op].phase;
}

/* Is the column's text this word? */
static bool
is_word(Datum value, const char *word)
{
	const text *given = DatumGetTextPP(value);
	Size		len = strlen(word);

	return VARSIZE_ANY_EXHDR(given) == len && memcmp(VARDATA_ANY(given), word, len) == 0;
}

RetryOp
retry_op_in(Datum value)
{
	for (int i = 0; i < RETRY_OPS; i++)
	{
		if (is_word(value, ops[i].word))
			return (RetryOp) i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("unknown operation in retry.global_operation: \"%s\"", TextDatumGetCString(value))));
}

/* One row more of the transaction's operations. */
static void
add_operation(RetryWhole *whole, HeapTuple row)
{
	Datum		values[Operation_natts];
	bool		isnull[Operation_natts];
	RetryOperation *o;
	RetryBranchSet branch;

	/* most have few */
	if (whole->n % ROOM == 0)
		whole->operations = whole->n == 0 ? palloc(ROOM * sizeof(RetryOperation)) :
			repalloc(whole->operations, (whole->n + ROOM) * sizeof(RetryOperation));
	o = &whole->operations[whole->n++];
	retry_row_read(row, whole->desc, Operation_natts, values, isnull);
	o->row = row;
	o->id = *DatumGetUUIDP(values[Task_id]);
	o->scene_id = DatumGetInt32(values[Task_scene_id]);
	o->attempts = 0;
	o->branch = DatumGetInt16(values[Operation_branch_no]) - 1;
	o->op = retry_op_in(values[Operation_op]);
	o->name = TextDatumGetCString(values[Operation_branch]);
	if (o->branch < 0 || o->branch >= RETRY_MAX_BRANCHES)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("branch %d of retry.global_operation is not between 1 and %d", o->branch + 1, RETRY_MAX_BRANCHES)));
	branch = RETRY_BRANCH(o->branch);
	whole->known.n = Max(whole->known.n, o->branch + 1);
	switch (ops[o->op].phase)
	{
		case RETRY_PHASE_FIRST:
			whole->known.first |= branch;
			whole->known.needs[o->branch] = (RetryBranchSet) DatumGetInt64(values[Operation_needs]);
			break;
		case RETRY_PHASE_CONFIRM:
			whole->known.confirm |= branch;
			break;
		case RETRY_PHASE_UNDO:
			whole->known.undo |= branch;
			break;
	}
}

/* One outcome. */
static void
add_outcome(RetryWhole *whole, HeapTuple row, TupleDesc desc)
{
	Datum		values[Outcome_natts];
	bool		isnull[Outcome_natts];
	RetryOperation o;

	retry_row_read(row, desc, Outcome_natts, values, isnull);
	o.branch = DatumGetInt16(values[Outcome_branch_no]) - 1;
	if (o.branch < 0)
	{
		whole->known.may_commit = true; /* it was asked for */
		return;
	}
	o.op = retry_op_in(values[Outcome_op]);
	if (is_word(values[Outcome_outcome], "not begun"))
		whole->known.not_begun |= RETRY_BRANCH(o.branch);
	else
		retry_operation_note(&whole->known, &o, is_word(values[Outcome_outcome], "done"));
}

bool
retry_whole_read_by(RetryGlobalScans *scans, RetryWhole *whole, RetryDecision decision)
{
	const pg_uuid_t *gid = &whole->global.gid;
	HeapTuple	row;

	memset(&whole->known, 0, sizeof(whole->known));
	whole->n = 0;
	whole->operations = NULL;
	whole->known.decision = decision;
	whole->known.may_commit = whole->global.mode == RETRY_MODE_SAGA;
	if (!retry_global_scan(scans, RETRY_GLOBAL_OPERATION, gid) || !retry_global_scan(scans, RETRY_GLOBAL_OUTCOME, gid))
		return false;
	whole->desc = RelationGetDescr(retry_global_scan_table(scans, RETRY_GLOBAL_OPERATION));
	while ((row = retry_global_scan_next(scans, RETRY_GLOBAL_OPERATION)) != NULL)
		add_operation(whole, heap_copytuple(row));
	while ((row = retry_global_scan_next(scans, RETRY_GLOBAL_OUTCOME)) != NULL)
		add_outcome(whole, row, RelationGetDescr(retry_global_scan_table(scans, RETRY_GLOBAL_OUTCOME)));
	return true;
}

void
retry_whole_read(RetryWhole *whole, RetryDecision decision)
{
	RetryGlobalScans *scans = retry_global_scans_begin(true);

	(void) retry_whole_read_by(scans, whole, decision);
	whole->desc = CreateTupleDescCopy(whole->desc);
	retry_global_scans_end(scans);
}

RetryOperation *
retry_whole_find(RetryWhole *whole, const pg_uuid_t *task_id)
{
	for (int i = 0; i < whole->n; i++)
	{
		if (memcmp(&whole->operations[i].id, task_id, sizeof(pg_uuid_t)) == 0)
			return &whole->operations[i];
	}
	return NULL;
}

RetryOperation *
retry_whole_of(RetryWhole *whole, int branch, RetryOpPhase phase)
{
	for (int i = 0; i < whole->n; i++)
	{
		if (whole->operations[i].branch == branch && ops[whole->operations[i].op].phase == phase)
			return &whole->operations[i];
	}
	return NULL;
}

bool
retry_operation_ended(const RetryWhole *whole, const RetryOperation *operation)
{
	const RetryBranches *b = &whole->known;
	RetryBranchSet branch = RETRY_BRANCH(operation->branch);

	switch (ops[operation->op].phase)
	{
		case RETRY_PHASE_FIRST:
			return ((b->done | b->failed | b->not_begun) & branch) != 0;
		case RETRY_PHASE_CONFIRM:
			return (b->confirmed & branch) != 0;
		default:
			return ((b->undone | b->not_begun) & branch) != 0;
	}
}

bool
retry_operation_begun(const RetryWhole *whole, const RetryOperation *operation)
{
	RetryBranchSet turn;

	switch (ops[operation->op].phase)
	{
		case RETRY_PHASE_FIRST:
			turn = retry_branches_first(&whole->known);
			break;
		case RETRY_PHASE_CONFIRM:
			turn = retry_branches_confirm(&whole->known);
			break;
		default:
			turn = retry_branches_undo(&whole->known);
			break;
	}
	return (turn & RETRY_BRANCH(operation->branch)) != 0;
}

void
retry_operation_note(RetryBranches *known, const RetryOperation *operation, bool done)
{
	RetryBranchSet branch = RETRY_BRANCH(operation->branch);

	switch (ops[operation->op].phase)
	{
		case RETRY_PHASE_FIRST:
			if (done)
				known->done |= branch;
			else
				known->failed |= branch;
			break;
		case RETRY_PHASE_CONFIRM:
			known->confirmed |= branch;
			break;
		case RETRY_PHASE_UNDO:
			known->undone |= branch;
			break;
	}
}

void
retry_operation_task(const RetryWhole *whole, const RetryOperation *operation, Datum *values, bool *isnull)
{
	retry_row_read(operation->row, whole->desc, Task_natts, values, isnull);
}

void
retry_outcome_row(const pg_uuid_t *gid, int branch, const char *op, const char *outcome,
				  TimestampTz at, Oid by, Datum *values, bool *isnull)
{
	memset(isnull, true, Outcome_natts * sizeof(bool));
	RETRY_FILL(Outcome_gid, true, UUIDPGetDatum(gid));
	RETRY_FILL(Outcome_branch_no, true, Int16GetDatum(branch + 1));
	RETRY_FILL(Outcome_op, true, CStringGetTextDatum(op));
	RETRY_FILL(Outcome_outcome, true, CStringGetTextDatum(outcome));
	RETRY_FILL(Outcome_at, true, TimestampTzGetDatum(at));
	RETRY_FILL(Outcome_settled_by, OidIsValid(by), ObjectIdGetDatum(by));
}
