/*
 * crash.h
 *		Which process of ours brought the server down, and what it had in hand.
 *
 * When a dispatcher or an executor crashes, the postmaster ends all others,
 * and the shared memory starts empty: nobody would know which tasks were under
 * way, and they would be sent again, and bring the server down again.  So the
 * postmaster looks at the shared memory once more before it goes, and
 * remembers, in its own memory, which its children inherit, and in a file.
 */
#ifndef RETRY_CRASH_H
#define RETRY_CRASH_H

#include "shmem.h"

/*
 * What one crash says against an attempt that was under way in the process that
 * crashed.  Who is killed for want of memory need not be the one who took it.
 */
#define RETRY_POINTS_FAULT	3	/* its process was at fault: SIGSEGV, abort() … */
#define RETRY_POINTS_MEMORY 1	/* the kernel killed its process: out of
								 * memory */

/* A task is put aside when its attempt has so many for crashes with it alone. */
#define RETRY_POINTS_CONDEMNED	(3 * RETRY_POINTS_FAULT)

/* More tasks of a database than that are not put aside in a day: it is not them. */
#define RETRY_CONDEMNED_MAX		16

/* Crashes are remembered for so long. */
#define RETRY_CRASH_MEMORY_US	USECS_PER_DAY

/* An attempt that was under way in a process that crashed. */
typedef struct RetrySuspect
{
	Oid			database;
	int32		attempt_no;
	pg_uuid_t	id;				/* of the task */
	int32		points;			/* of crashes of dispatchers */
	int32		alone;			/* of crashes with nothing else under way, be
								 * it in a dispatcher or in an executor */
	TimestampTz last_at;		/* of the last crash */
} RetrySuspect;

typedef struct RetryCrash
{
	TimestampTz at;
	Oid			database;
	int32		signal;			/* SIGKILL: out of memory */
	int32		company;		/* attempts that were under way in it */
	int16		executor;		/* 1: not a dispatcher */
	int16		explained;		/* 1: a task was put aside after it */
} RetryCrash;

/*
 * The part of this in the shared memory, for the hooks of shmem.c: asks for it,
 * and finds or makes it.  The second is called in the postmaster.
 */
extern void retry_crash_request_memory(void);
extern void retry_crash_create_memory(void);

/*
 * From now on, until it exits in order, the end of this process by a signal of
 * its own making is a crash with what it has in hand: a dispatcher's in-flight
 * entries, the job of an executor (the number of its slot).  Installs signal
 * handlers.  Once a process.
 */
extern void retry_crash_watch_dispatcher(const RetryWorker *worker);
extern void retry_crash_watch_executor(int executor);

/*
 * Calls back with each suspect of this process's database.  What is known is
 * complete: this process is younger than the last crash.
 */
extern void retry_crash_each_suspect(void (*visit) (const RetrySuspect *suspect, void *arg), void *arg);

/* What is known of a database's crashes of the last day. */
typedef struct RetryCrashes
{
	int			n;				/* at most 64 are remembered, of all databases */
	RetryCrash	last;			/* if n > 0 */
} RetryCrashes;
extern void retry_crash_summary(Oid database, RetryCrashes *out);

/*
 * Milliseconds that the dispatchers of a database should not be started for
 * after the last crash, by the moment of now: 0, unless it crashes on and on
 * and no task is found that could be put aside for it.
 */
extern int	retry_crash_pause_ms(Oid database);

#endif							/* RETRY_CRASH_H */
