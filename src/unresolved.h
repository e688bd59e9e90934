/*
 * unresolved.h
 *		From when on something unresolved may be due in a lane.
 *
 * What the dispatchers write down to start from serves a session as well that
 * looks for what is pending or retrying: it need not read what is finished.
 */
#ifndef RETRY_UNRESOLVED_H
#define RETRY_UNRESOLVED_H

#include "store.h"

typedef struct RetryUnresolved RetryUnresolved;

/* As the reader's snapshot sees it at "now"; in the current memory context. */
extern RetryUnresolved *retry_unresolved_read(RetryReader *reader, Snapshot snapshot, TimestampTz now);

/*
 * Every task that has no end, every attempt that asks for another which was
 * not made, is due at this time or later, in a lane of this group.
 */
extern TimestampTz retry_unresolved_from(const RetryUnresolved *unresolved, int64 lane_hash, int32 group_id);

#endif							/* RETRY_UNRESOLVED_H */
