/*
 * amend.h
 *		Changes to tasks that are enqueued already: retry.amend().
 *
 * A task's row is never changed.  What is to be different about it is a signal
 * with an object of columns and values, and whoever needs the row as it is
 * meant now (who sends it, buries it, replays it or shows it) lays the
 * signals of the task over it, in the order in which they were asked for.
 */
#ifndef RETRY_AMEND_H
#define RETRY_AMEND_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "store.h"

/* Changes as a caller gives them, checked. */
typedef struct RetryChange
{
	Jsonb	   *stored;			/* for retry.signal.change */
	bool		url;			/* it says something about the URL */
	bool		no_url;			/* namely that the task has none of its own */
	bool		body;			/* it says something about the body */
	int			body_size;		/* namely that it has so many bytes */
	Jsonb	   *headers;		/* NULL: nothing, or that there are none */
} RetryChange;

/*
 * Checks an object of changes as the arguments of retry.enqueue() are checked,
 * and writes them as they are stored, in the current memory context: by column
 * of retry.task, null for none.  ERROR for a member that is none or has another
 * type, and all errors of those checks.
 */
extern void retry_change_read(Jsonb *given, TimestampTz now, RetryChange *change);

/*
 * ERROR (invalid_parameter_value) when the change cannot be made to a task of
 * this scene with this URL of its own (NULL: none): it would have no URL, or it
 * calls a function.  ERROR (insufficient_privilege) when another role would
 * change what a function is given that runs as the role which enqueued, or a
 * check ("on_success" of it says so) of a message that this role has prepared:
 * who chooses whom to ask, or how often, decides.  ERROR
 * (program_limit_exceeded) when its group may not have such a body, or headers.
 */
extern void retry_change_check_task(const RetryChange *change, Snapshot snapshot, int32 scene_id,
									const text *url, const text *on_success, Oid enqueued_by);

/*
 * The changes that were asked for of one task, as Jsonb in the current memory
 * context, in their order; NIL when there are none.  "cancelled" is set when it
 * was cancelled, too, which nothing else is then looked for.  One descent of an
 * index, none where nobody has asked for anything in the leaf, which must be
 * open.  See retry_reader_leaf_blocked().
 */
extern List *retry_task_changes(RetryReader *reader, int leaf, const pg_uuid_t *id, bool *cancelled);

/*
 * Lays changes over a task's row: values in the order of store.h, which must
 * all be there.  New values are in the current memory context.  Raises no
 * error: what cannot be understood, because no function of ours wrote it,
 * changes nothing.
 */
extern void retry_changes_apply(const List *changes, Datum *values, bool *isnull);

/* The same, for the row in a slot, until the slot gets another. */
extern void retry_changes_apply_slot(const List *changes, TupleTableSlot *slot);

#endif							/* RETRY_AMEND_H */
