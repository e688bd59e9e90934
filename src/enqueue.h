/*
 * enqueue.h
 *		One new task, judged and made, and then stored or not.
 *
 * The two steps are apart because retry.call() first tries in the session what
 * it stores only when that has failed; and both must make the same request,
 * under the same id, as retry.enqueue() would have.
 */
#ifndef RETRY_ENQUEUE_H
#define RETRY_ENQUEUE_H

#include "enqueue_options.h"
#include "writer.h"

/* What it points to is in the context it was made in, or the arguments. */
typedef struct RetryNewTask
{
	RetryEnqueueOptions options;
	TimestampTz now;			/* when it was made */
	TimestampTz due_at;			/* may be changed before it is stored */
	pg_uuid_t	id;				/* of the task; with a fan-out, of the parent */
	Datum		values[Task_natts]; /* of retry.task, but for what
									 * retry_write_task() fills in */
	bool		isnull[Task_natts];
} RetryNewTask;

/*
 * Makes a task of the arguments, for the current role and by the active
 * snapshot.  ERROR as of retry_enqueue_options(), and when the body is too
 * large.
 */
extern void retry_new_task(FunctionCallInfo fcinfo, RetrySignature signature, RetryNewTask *task);

/*
 * Claims its key, if it has one, and stores it, or with a fan-out its children;
 * of these, the targets' that have one with that key are not stored.  False, with nothing stored,
 * when the key has a live task: that one's id is then in "id".  ERROR as of
 * retry_key_claim().
 */
extern bool retry_store_new_task(RetryWriter *writer, RetryNewTask *task);

/*
 * The text of a payload as the bytes to be sent, which are UTF-8 always; in the
 * current memory context.  ERROR when they are too many.
 */
extern bytea *retry_payload_body(Jsonb *payload);

#endif							/* RETRY_ENQUEUE_H */
