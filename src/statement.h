/*
 * statement.h
 *		One SQL statement that is given with its parameters.
 *
 * For what runs seldom: upkeep, schedules, administration.  Paths that run
 * often prepare their statements once, or use no SQL at all.
 */
#ifndef RETRY_STATEMENT_H
#define RETRY_STATEMENT_H

/*
 * What a function that writes says first.  ERROR (read_only_sql_transaction,
 * invalid_transaction_state) in a transaction that only reads, in a parallel
 * worker, on a standby, naming the function.
 */
extern void retry_require_writable(const char *function);

/* Connects to SPI; SPI_finish ends that. */
extern void retry_statement_connect(void);

/*
 * Executes it within a connection to SPI; "nulls" as SPI has it, NULL for none.
 * Returns the number of rows, which are SPI's until the next.  ERROR when its
 * result is not "expected" (SPI_OK_...), and whatever the statement raises.
 */
extern uint64 retry_statement(const char *sql, int nargs, Oid *types, Datum *values,
							  const char *nulls, int expected);

#endif							/* RETRY_STATEMENT_H */
