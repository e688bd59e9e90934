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

uint64
retry_statement(const char *sql, int nargs, Oid *types, Datum *values,
				const char *nulls, int expected)
{
	int			rc = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);

	if (rc != expected)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg_internal("unexpected result %s of \"%s\"", SPI_result_code_string(rc), sql)));
	return SPI_processed;
}
