/*
 * barrier.c
 *		retry.barrier(): tells a participant in a global transaction whether it
 *		is to act.
 *
 * The operations of a branch come more than once, and in any order: a cancel may
 * overtake its try, or come without one.  Each operation leaves a note in the
 * participant's own transaction.  One that undoes also notes what it undoes, in
 * its place: if that note is new there is nothing to undo, and what comes too
 * late finds the note and does nothing.  The primary key makes two calls for
 * one branch wait for each other.
 *
 * The calling role is part of the key, as of retry.once().
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "arguments.h"
#include "compat.h"
#include "access.h"
#include "enqueue_options.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(retry_barrier);

#define BARRIER_ARGS	5

/* The operations, and what each of them undoes. */
static const char *const operations[] = {"try", "confirm", "cancel", "action", "compensate", "message"};
static const char *const undone[] = {NULL, NULL, "try", NULL, "action", NULL};

static const char *const note_operation =
"INSERT INTO retry.barrier_note (role, gid, branch, op, noted_by) VALUES ($1, $2, $3, $4, $5)"
" ON CONFLICT DO NOTHING";

/* The statement, prepared at the first call in a session. */
static SPIPlanPtr
prepared(void)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[BARRIER_ARGS] = {OIDOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID};

	if (plan == NULL)
	{
		SPIPlanPtr	made = SPI_prepare(note_operation, BARRIER_ARGS, types);

		if (made == NULL || SPI_keepplan(made) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not prepare a statement on retry.barrier_note: %s",
							SPI_result_code_string(SPI_result))));
		plan = made;
	}
	return plan;
}

/* Notes that an operation was done, or is not to be done any more; true: it was not noted. */
static bool
note(Datum *values, const char *op)
{
	int			rc;

	values[3] = CStringGetTextDatum(op);
	rc = SPI_execute_plan(prepared(), values, NULL, false, 0);
	if (rc < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not write to retry.barrier_note: %s", SPI_result_code_string(rc))));
	return SPI_processed == 1;
}

/*
 * retry.barrier(gid, branch, op).  What is undone is noted first: so a cancel
 * waits for a try that is under way, and is told by how that ends.
 */
Datum
retry_barrier(PG_FUNCTION_ARGS)
{
	Datum		values[BARRIER_ARGS];
	RetryRoleSwitch caller;
	bool		nothing_to_undo = false;
	bool		first;
	int			op;

	retry_require_argument(fcinfo, 0, "gid");
	retry_require_argument(fcinfo, 1, "branch");
	retry_require_argument(fcinfo, 2, "op");
	op = retry_check_word("op", PG_GETARG_TEXT_PP(2), operations, lengthof(operations));
	retry_check_short_text("branch", PG_GETARG_TEXT_PP(1));
	retry_require_writable("retry.barrier()");

	values[0] = ObjectIdGetDatum(GetUserId());
	values[1] = PG_GETARG_DATUM(0);
	values[2] = PG_GETARG_DATUM(1);
	values[4] = PG_GETARG_DATUM(2);
	retry_statement_connect();
	retry_become_owner(&caller);
	if (undone[op] != NULL)
		nothing_to_undo = note(values, undone[op]);
	first = note(values, operations[op]);
	retry_become_caller(&caller);
	SPI_finish();
	PG_RETURN_BOOL(first && !nothing_to_undo);
}
