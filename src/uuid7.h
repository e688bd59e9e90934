/*
 * uuid7.h
 *		Ids of tasks: UUIDs of version 7 (RFC 9562).
 *
 * A task's id says when it was enqueued, which decides the leaf it lies in
 * and lets new ids go to the right end of the index.  A leaf module: the clock
 * and the random bits are arguments.
 *
 * The including file includes postgres.h (or c.h) first.
 */
#ifndef RETRY_UUID7_H
#define RETRY_UUID7_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

/* Random bytes that one id takes. */
#define RETRY_UUID7_RANDOM	8

/*
 * What a process remembers from one id to the next; zeroed at its start.
 * The count is of 1/4096 of a millisecond since 1970.
 */
typedef struct RetryUuid7State
{
	uint64		last;
} RetryUuid7State;

/*
 * Makes the next id for this moment.  Ids of one process are strictly
 * ascending, also within a microsecond and when the clock is set back by less
 * than ten seconds; after a greater jump they start again from the clock, so
 * that an id is never more than ten seconds ahead of it.  Moments before
 * 1970 count as 1970.  Cannot fail.
 */
extern void retry_uuid7_make(RetryUuid7State *state, TimestampTz now,
							 const uint8 random[RETRY_UUID7_RANDOM], pg_uuid_t *id);

/*
 * The moment that an id carries, to the microsecond; false when it is no
 * UUIDv7.  Exact for ids made above, unless several fell into one microsecond.
 */
extern bool retry_uuid7_time(const pg_uuid_t *id, TimestampTz *time);

/*
 * A bound for searching by time: no id that carries this moment, or a later
 * one, is less.  Moments outside of what ids can carry give the first or the
 * last.
 */
extern void retry_uuid7_bound(TimestampTz time, pg_uuid_t *id);

#endif							/* RETRY_UUID7_H */
