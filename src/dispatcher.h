/*
 * dispatcher.h
 *		The background worker that delivers.
 *
 * Started by the launcher, one or more for each database in which the
 * extension is; see dispatcher.c for what it does all day.
 */
#ifndef RETRY_DISPATCHER_H
#define RETRY_DISPATCHER_H

/* Entry point; the argument is the index of its RetryWorker. */
extern PGDLLEXPORT void retry_dispatcher_main(Datum main_arg);

#endif							/* RETRY_DISPATCHER_H */
