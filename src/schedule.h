/*
 * schedule.h
 *		Recurring tasks: what their parts share.
 *
 * A schedule names moments, and each becomes at most one task: the row of
 * retry.schedule_run commits together with the task, and its key is the
 * schedule and the moment.  So it does not matter who runs a schedule, nor how
 * many do at once: a job of pg_cron, a worker of ours, or somebody by hand.
 */
#ifndef RETRY_SCHEDULE_H
#define RETRY_SCHEDULE_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"
#include "cron.h"
#include "shmem.h"

/*
 * A worker of ours leaves a run to pg_cron for so long.  It is less than what
 * makes a run a missed one.
 */
#define RETRY_SCHEDULE_GRACE_US		(10 * USECS_PER_SEC)

/* Columns of retry.schedule_definition that dispatchers read. */
enum
{
	Schedule_id, Schedule_owner, Schedule_name, Schedule_cron, Schedule_tz,
	Schedule_target, Schedule_payload, Schedule_options, Schedule_missed,
	Schedule_active, Schedule_since, Schedule_cron_job, Schedule_natts
};

/* What a run of a schedule is enqueued with; palloc'd. */
typedef struct RetryScheduled
{
	Oid			owner;
	char	   *name;			/* begins the task's key; NULL: it has none */
	text	   *target;
	Jsonb	   *payload;		/* NULL: none */
	Jsonb	   *options;		/* NULL: none */
} RetryScheduled;

/* What became of the schedules that were looked at. */
typedef struct RetryScheduleRuns
{
	int64		enqueued;
	bool		more;			/* there are runs left for another look */
	bool		busy;			/* somebody else has one under way, or it has
								 * to be tried again */
} RetryScheduleRuns;

/* schedule.c */

/*
 * Reads a stored schedule, which schedule() has checked; false when the
 * server's time zone data has lost its zone, which is then UTC.
 */
extern bool retry_schedule_read(const char *cron, const char *tz, RetryCron *out, RetryZone *zone);

/* schedule_run.c; all of them in a transaction, connected to SPI */

/*
 * Enqueues one run as its owner, with the rights that has now, in a
 * subtransaction.  nominal DT_NOBEGIN: on trial, nothing is stored.  NULL when
 * that went well, with the task in *id, else the error, palloc'd in the current
 * memory context.  Errors that have passed by the next try (locks, resources)
 * are thrown instead.
 */
extern ErrorData *retry_schedule_enqueue(const RetryScheduled *what, TimestampTz nominal, pg_uuid_t *id);

/*
 * Runs the schedules that are due at "now" and that "role" may run (InvalidOid:
 * all of them), or of these only one (id other than 0).  "grace": those of
 * pg_cron only when they are late.
 */
extern void retry_schedules_run(int32 id, Oid role, bool grace, TimestampTz now, RetryScheduleRuns *runs);

/* The ids of the schedules with something due, for one transaction each. */
extern int32 *retry_schedules_due(Oid role, bool grace, TimestampTz now, int *count);

/* schedule_worker.c; for dispatcher 0 */

/*
 * Once a turn, in its transaction: starts a worker when a schedule is due.
 * "generation" is that of the configuration, read before the snapshot was
 * taken.  Costs a few comparisons when there is nothing to do.
 */
extern void retry_schedules_consider(Snapshot snapshot, RetryDatabase *db, uint64 generation, TimestampTz now);

/* When it wants to be asked next; DT_NOEND: not for its own sake. */
extern TimestampTz retry_schedules_next(void);

#endif							/* RETRY_SCHEDULE_H */
