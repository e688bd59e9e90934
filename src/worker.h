/*
 * worker.h
 *		What all background workers of retry have in common: how they are
 *		started, the settings that are their own, and their transactions.
 *
 * Whatever a worker of ours is for, it runs in a database whose owner may have
 * set anything for it, and it outlives its errors.
 */
#ifndef RETRY_WORKER_H
#define RETRY_WORKER_H

#include "postmaster/bgworker.h"

/* The library's name, as the server looks it up. */
#define RETRY_LIBRARY	"retry"

/*
 * Starts a worker that may connect to a database, is not started again by the
 * server when it ends, and whose start and end this process is told of.  "extra"
 * (of "extra_size" bytes, at most BGW_EXTRALEN, 0: none) is what it finds in
 * bgw_extra.  The handle is allocated in TopMemoryContext and the caller's to
 * free; NULL when no worker slot is free.
 */
extern BackgroundWorkerHandle *retry_worker_start(const char *name, const char *type,
												  const char *function, Datum arg,
												  const void *extra, Size extra_size);

/*
 * True when the worker has ended, or never came: then the handle is freed and
 * NULL.  A handle that is NULL already is none of a worker that has ended.
 */
extern bool retry_worker_ended(BackgroundWorkerHandle **handle);

/*
 * The workers whose handles are kept in these variables (which may be NULL at
 * times) are to end when this process does, or when the second is called.  For
 * static variables; the same may be given again.
 */
extern void retry_worker_ends_with_us(BackgroundWorkerHandle **handle);
extern void retry_worker_end_ours(void);

/* A setting and the value that it is to have. */
typedef struct RetrySetting
{
	const char *name;
	const char *value;
} RetrySetting;

/*
 * Gives this process settings of its own, above all that is set for its
 * database, role or server.  Names that this major does not know are left out;
 * ERROR for a value that is none.
 */
extern void retry_worker_set(const RetrySetting *settings, int n);

/*
 * Sets what a worker of ours depends on, whatever is set for the database:
 * isolation, timeouts, search_path and the like.  After connecting.
 */
extern void retry_pin_settings(void);

/* Starts a transaction with an active snapshot, seen as "activity". */
extern void retry_worker_begin(const char *activity);

/*
 * The same for one that uses SPI, and its end, which returns to the memory
 * context that was current before.
 */
extern void retry_worker_begin_spi(const char *activity);
extern void retry_worker_commit_spi(void);

/*
 * For PG_CATCH: ends the error and whatever transaction it was in, returns to
 * this memory context, and tells the error, which is allocated there.
 */
extern ErrorData *retry_worker_recover(MemoryContext context);

/*
 * Calls "store" in a transaction of its own, which does not wait for its WAL:
 * for what is worth keeping and not worth holding up delivery.  NULL when it
 * has committed, with what "store" returned in *stored; else the error, in the
 * current memory context, and nothing is stored.  To be called outside a
 * transaction; raises no error.
 */
extern ErrorData *retry_worker_store(bool (*store) (void *arg), void *arg, bool *stored);

#endif							/* RETRY_WORKER_H */
