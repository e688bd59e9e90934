/*
 * begin_timed.h
 *		Begins global transactions that must be decided within a time: TCC, and
 *		two-phase commits.
 *
 * The including file includes postgres.h first.
 */
#ifndef RETRY_BEGIN_TIMED_H
#define RETRY_BEGIN_TIMED_H

#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "global.h"

typedef struct RetryTimed
{
	const char *function;		/* for errors */
	RetryGlobalMode mode;
	text	   *scene;			/* whose group says who may decide */
	Interval   *timeout;
	text	   *key;			/* NULL: none */
	text	   *reference;		/* NULL: none */
} RetryTimed;

/*
 * Stores the transaction, and the task that rolls it back when its time is over
 * (part.h), so that other calls of the same statement find it.  Puts its id into
 * *gid; with a key that another one has, that one's.  ERROR when a value is not
 * what it should be, the caller may not use the scene, or its group may not have
 * another task.
 */
extern void retry_begin_timed(const RetryTimed *begun, pg_uuid_t *gid);

#endif							/* RETRY_BEGIN_TIMED_H */
