/*
 * callback.h
 *		Completion callbacks: who is told of a task's outcome, and what.
 *
 * A callback is a task of its own, stored in the transaction that records the
 * outcome it tells of, so there is exactly one for each outcome, whatever
 * crashes.  What it takes to make one is kept out of the way of tasks that
 * have none: for them nothing is read, allocated or looked up.
 */
#ifndef RETRY_CALLBACK_H
#define RETRY_CALLBACK_H

#include "executor/tuptable.h"
#include "config.h"
#include "record.h"

/* A task that so many callbacks led to may have no callback itself. */
#define RETRY_MAX_DEPTH		16

/* What is put into the document. */
typedef enum RetryCallbackForm
{
	RETRY_CALLBACK_FULL,
	RETRY_CALLBACK_SMALL,		/* without response and payload */
	RETRY_CALLBACK_NONE			/* no callback is made at all */
} RetryCallbackForm;

/* Where a callback goes, and as which task. */
typedef struct RetryCallback
{
	int32		scene_id;
	RetryLaneRules lanes;		/* of the scene */
	char	   *origin;			/* of what is called; NULL: not known */
	text	   *lost_lane;		/* NULL; else a lane for what goes nowhere */
	int64		lane_hash;
	text	   *lane;			/* as in the column: NULL, the origin of url */
	text	   *url;			/* NULL: the scene's */
	const RetryScene *all;		/* NULL; else it goes to each of this scene's
								 * targets, see retry_callback_copy */
	const char *refusal;		/* NULL; else why it cannot be sent: then it
								 * is to be stored as dead (rejected) */
	int			depth;
} RetryCallback;

/*
 * Notes in "ended" whom to tell of the end of this attempt: the task's own
 * targets, else those of the scene (which may be NULL).  The texts are copied
 * into "context"; retry_callback_forget frees them.
 */
extern void retry_callback_note(MemoryContext context, TupleTableSlot *task,
								const RetryScene *scene, RetryEnded *ended);
extern void retry_callback_forget(RetryEnded *ended);

/*
 * Whom to tell that this attempt has ended as it did: the text of a target, and
 * the name of the column it came from.  NULL: nobody.
 */
extern const char *retry_callback_of(const RetryEnded *ended, const char **column);

/*
 * Finds out what a target text means now.  A scene that the configuration does
 * not know makes it be read again with the active snapshot; false when that
 * cannot be had because a table is locked.  The texts of the result are in the
 * current memory context; depth is left to the caller.  "scene_id" is the scene
 * that the text came from, whose newer text counts when a scene was renamed
 * since; 0: it is the task's own.
 */
extern bool retry_callback_resolve(RetryConfig *config, int32 scene_id, const char *column,
								   const char *text, RetryCallback *callback);

/* How many tasks it takes: one, or one for each target. */
extern int	retry_callback_copies(const RetryCallback *callback);

/*
 * Gives a callback of this task the lane it goes to, and one that goes to all
 * targets the URL and lane of the n-th, in the current memory context.
 */
extern void retry_callback_copy(RetryCallback *callback, TupleTableSlot *task, int n);

/*
 * Takes the depth from the finished task's row, and refuses a callback at the
 * end of a chain that is too long.
 */
extern void retry_callback_deepen(RetryCallback *callback, TupleTableSlot *task);

/*
 * Fills in a row of retry.task for a callback, but for leaf, id, xid and
 * due_at.  "task" is the row of the finished task; what the values point to is
 * in its slot or in the current memory context.
 */
extern void retry_callback_row(const RetryCallback *callback, const RetryConfig *config,
							   const RetryEnded *ended, TupleTableSlot *task,
							   RetryCallbackForm form, Datum *values, bool *isnull);

/*
 * Logs that a callback will not reach its target, and why: now and then, when a
 * dead letter tells of each ("kept"), else always.
 */
extern void retry_callback_log(const RetryEnded *ended, bool kept, const char *why);

/*
 * callback_document.c: the body, JSON in UTF-8; see doc/sql.md.  "scene" is the
 * name of the finished task's scene, NULL when it is not known.
 */
extern bytea *retry_callback_document(const RetryEnded *ended, TupleTableSlot *task,
									  const char *scene, RetryCallbackForm form);

#endif							/* RETRY_CALLBACK_H */
