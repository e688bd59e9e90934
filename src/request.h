/*
 * request.h
 *		From a task's row and its scene to the bytes of a request.
 *
 * The headers that every receiver may rely on are put together here:
 * Idempotency-Key, webhook-id, webhook-timestamp, Retry-Attempt,
 * Retry-Deadline-Ms, User-Agent, and the scene's and the task's own.
 */
#ifndef RETRY_REQUEST_H
#define RETRY_REQUEST_H

#include "executor/tuptable.h"
#include "config.h"
#include "http.h"
#include "policy.h"
#include "task.h"

/* A request ready to be started, in the memory context it was made in. */
typedef struct RetryPrepared
{
	RetryHttpRequest http;		/* tag is the caller's */
	int32		max_attempts;
	TimestampTz expires_at;		/* no attempt starts after it; DT_NOEND: never */
	RetryBackoff *backoff;		/* the task's own copy; NULL: the scene's */
	const char *why;			/* it cannot be made, a constant */
} RetryPrepared;

/*
 * Reads the task's row ("slot", columns in the order of store.h) and fills
 * "prepared" with copies in the current memory context; the URL is left to
 * whoever chooses among the scene's targets, if it has some.  False, with "why",
 * when the task has no URL to go to (its scene lost it), or one that its scene's
 * secrets must not go to.  ERROR when memory is short.
 */
extern bool retry_request_prepare(TupleTableSlot *slot, const RetryScene *scene,
								  int32 attempt_no, TimestampTz now, RetryPrepared *prepared);

#endif							/* RETRY_REQUEST_H */
