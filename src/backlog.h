/*
 * backlog.h
 *		An estimate of how much of a lane is due and lies on disk.
 *
 * A dispatcher reads of each lane what it can use soon, so nobody ever counts
 * the rest.  But it meets every entry when that becomes known and when it is
 * read, which is enough to estimate, at any moment and with no work as time
 * passes, how many of those that are left have become due: what was due when
 * it became known counts whole, what was to be due later is taken to be spread
 * evenly between the earliest and the latest of its kind.  Whenever a lane has
 * been read to the end, the estimate is corrected.
 *
 * A leaf: plain data, no clock, no errors.
 */
#ifndef RETRY_BACKLOG_H
#define RETRY_BACKLOG_H

#include "datatype/timestamp.h"

/* What is to be due within ten minutes, and what later. */
#define RETRY_BACKLOG_KINDS		2
#define RETRY_BACKLOG_SOON_US	(10 * USECS_PER_MINUTE)

/* All zero: nothing. */
typedef struct RetryBacklog
{
	uint32		due;			/* was due when it became known */
	uint32		later[RETRY_BACKLOG_KINDS];
	TimestampTz first[RETRY_BACKLOG_KINDS]; /* of these; where there are some */
	TimestampTz last[RETRY_BACKLOG_KINDS];
} RetryBacklog;

/* "n" entries that are due then became known, and were not read into a queue. */
extern void retry_backlog_add(RetryBacklog *backlog, uint32 n, TimestampTz due, TimestampTz now);

/* One that is due then was read. */
extern void retry_backlog_read(RetryBacklog *backlog, TimestampTz due);

/* Everything that is due by now was read. */
extern void retry_backlog_drained(RetryBacklog *backlog, TimestampTz now);

/* How many are due. */
extern uint32 retry_backlog_due(const RetryBacklog *backlog, TimestampTz now);

#endif							/* RETRY_BACKLOG_H */
