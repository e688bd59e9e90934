/*
 * sqlsend.h
 *		The dispatcher's side of tasks that call functions of the database.
 *
 * As with the HTTP client, a job that is taken has exactly one result, and
 * nothing here waits.  Unlike it, a job that cannot be taken now leaves its
 * lane blocked: retry_sql_run lets it go when an executor is free.
 */
#ifndef RETRY_SQLSEND_H
#define RETRY_SQLSEND_H

#include "pool.h"
#include "turn.h"

/* In the current memory context; ends its jobs when the process exits. */
extern RetrySqlSender *retry_sql_create(void);

/*
 * Hands a job to an executor; "tag" comes back with its result.  0 when it was
 * taken; else the moment, as that of now_us, until which the job's lane is to
 * be blocked (it may be let go earlier).
 */
extern int64 retry_sql_start(RetryDispatcher *d, const RetryJob *job, void *tag,
							 TimestampTz now, int64 now_us);

/* The next job that has ended; false when there is none. */
extern bool retry_sql_next(RetryDispatcher *d, void **tag, RetryJobResult *result);

/* Enforces time-outs, and lets lanes go that wait for an executor, in their order. */
extern void retry_sql_run(RetryDispatcher *d);

/*
 * All jobs of a turn were handed over that could be: lanes that were let go and
 * had none have missed their turn, so that the next in order has it.
 */
extern void retry_sql_started(RetryDispatcher *d);

/* Milliseconds after which retry_sql_run is to be called; -1: when woken. */
extern long retry_sql_timeout_ms(const RetryDispatcher *d);

/* How many jobs of a function's lane may be under way, whatever its scene says. */
extern int32 retry_sql_lane_cap(void);

#endif							/* RETRY_SQLSEND_H */
