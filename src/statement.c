/*
 * statement.c
 *		One SQL statement that is given with its parameters.
 *
 * SPI reports a statement that did something else than its caller had in mind
 * by a code that is easily passed over; here it is an error that names the
 * statement.  Everything else is SPI's.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "statement.h"

void
retry_require_writable(const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);
}

void
retry_statement_connect(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not connect to SPI")));
}

static uint64
checked(const char *sql, int rc, int expected)
{
	if (rc != expected)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg_internal("unexpected result %s of \"%s\"", SPI_result_code_string(rc), sql)));
	return SPI_processed;
}

uint64
retry_statement(const char *sql, int nargs, Oid *types, Datum *values,
				const char *nulls, int expected)
{
	return checked(sql, SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0), expected);
}

uint64
retry_statement_query(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	return checked(sql, SPI_execute_with_args(sql, nargs, types, values, nulls, true, 0), SPI_OK_SELECT);
}

uint64
retry_statement_latest(const char *sql, int nargs, Oid *types, Datum *values)
{
	uint64		rows;

	PushActiveSnapshot(GetLatestSnapshot());
	/* read-only, so that it goes by that snapshot */
	rows = retry_statement_query(sql, nargs, types, values, NULL);
	PopActiveSnapshot();
	return rows;
}

uint64
retry_statement_as_owner(const char *sql, int nargs, Oid *types, Datum *values, int expected)
{
	RetryRoleSwitch caller;
	uint64		rows;

	retry_statement_connect();
	retry_become_owner(&caller);
	rows = retry_statement(sql, nargs, types, values, NULL, expected);
	retry_become_caller(&caller);
	SPI_finish();
	return rows;
}
