/*
 * fanout.h
 *		One enqueue that makes a task for each of a scene's targets.
 *
 * In a scene with route all, what a session enqueues is a message for all
 * targets.  Each gets a task of its own, with that target as its URL, in a lane
 * of its own, so that a receiver in trouble holds up no other.  What they have
 * in common is the id of a parent that has no row.
 */
#ifndef RETRY_FANOUT_H
#define RETRY_FANOUT_H

#include "key.h"
#include "scene.h"
#include "writer.h"

typedef struct RetryFanout RetryFanout;

/* The task for one target. */
typedef struct RetryFanoutChild
{
	pg_uuid_t	id;
	bool		stored_before;	/* its key belongs to another, with that id */
} RetryFanoutChild;

/*
 * Reads the targets of a scene with route all, for messages whose lanes are
 * chosen by what "lane" says of them, but for the origin, and the key, which
 * each message has.  In the current memory context; keeps both arguments.
 */
extern RetryFanout *retry_fanout_create(const RetrySceneRow *scene, const RetryLaneTask *lane);

/* How many children a message has. */
extern int	retry_fanout_count(const RetryFanout *fanout);

/* How many of them are new, when their keys are claimed. */
extern int	retry_fanout_new(const RetryFanout *fanout, const RetryFanoutChild *children);

/* New ids for the children of one message, in the order of the targets. */
extern void retry_fanout_new_ids(const RetryFanout *fanout, TimestampTz now, RetryFanoutChild *children);

/*
 * Claims the key for each target, between the begin and end of the keyring, as
 * retry_key_claim() does for one task.  When some targets have a task with that
 * key, *parent becomes the parent of the first of these.
 */
extern void retry_fanout_claim(const RetryFanout *fanout, RetryKeyring *keyring, const text *key,
							   TimestampTz due_at, pg_uuid_t *parent, RetryFanoutChild *children);

/*
 * Stores the children that are new; all columns but those that differ among
 * them are in "values" and "isnull", which are left changed in these.
 */
extern void retry_fanout_write(const RetryFanout *fanout, RetryWriter *writer, const pg_uuid_t *parent,
							   const RetryFanoutChild *children, TimestampTz due_at,
							   Datum *values, bool *isnull);

#endif							/* RETRY_FANOUT_H */
