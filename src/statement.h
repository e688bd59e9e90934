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

/* The same of a query that goes by the snapshot of the caller's statement. */
extern uint64 retry_statement_query(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls);

/*
 * The same of a query that goes by what is committed now, whatever snapshot
 * the transaction has.
 */
extern uint64 retry_statement_latest(const char *sql, int nargs, Oid *types, Datum *values);

/*
 * The same of one statement, with a connection of its own and as the owner of
 * retry's tables, of which only the number of rows is wanted.
 */
extern uint64 retry_statement_as_owner(const char *sql, int nargs, Oid *types, Datum *values,
									   int expected);

#endif							/* RETRY_STATEMENT_H */
