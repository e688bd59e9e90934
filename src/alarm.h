/*
 * alarm.h
 *		Alarms, as a dispatcher knows them: when they are to be looked at.
 *
 * The rules are in retry.alarm_rule, what fires in retry.alarm_state; messages
 * are tasks like any others, which nobody here ever sends.
 */
#ifndef RETRY_ALARM_H
#define RETRY_ALARM_H

#include "datatype/timestamp.h"
#include "utils/snapshot.h"
#include "shmem.h"

/*
 * For dispatcher 0, once a turn, in its transaction: starts a worker when there
 * are rules, retry.alarm_interval is over, and something may have changed.
 * "generation" is that of the configuration, read before the snapshot was
 * taken.  Waits for nobody; when no worker can be started it tries again later.
 */
extern void retry_alarms_consider(Snapshot snapshot, RetryDatabase *db, uint64 generation, TimestampTz now);

/* When it wants to be asked next; DT_NOEND: not for its own sake. */
extern TimestampTz retry_alarms_next(void);

#endif							/* RETRY_ALARM_H */
