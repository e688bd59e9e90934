/*
 * govern.h
 *		What the lanes of a dispatcher learn from their attempts.
 *
 * Between the leaves, which know nothing of tasks, and those that send, which know
 * nothing of breakers: from an answer to what it says of the endpoint, from a
 * scene to the rules of its lanes, and from what has changed to an event.
 */
#ifndef RETRY_GOVERN_H
#define RETRY_GOVERN_H

#include "executor/tuptable.h"

#include "judge.h"
#include "transfer.h"

/*
 * The entry of a transfer is about to be sent, for the task in the slot (all
 * of whose columns are read): its lane gets its name and its scene's rules.
 */
extern void retry_govern_prepared(RetryTurn *turn, RetrySending *t, const RetryScene *scene,
								  TupleTableSlot *slot);

/*
 * The answer has come, and t->ended.verdict is set: notes what it says of the
 * endpoint for retry_govern_ended, and tells the target of a routed scene.
 */
extern void retry_govern_answered(RetryDispatcher *d, RetrySending *t, const RetryAnswer *answer);

/* The same to a target alone, when another answer to the attempt counts. */
extern void retry_govern_answered_in_vain(RetryDispatcher *d, RetrySending *t, RetryTargetUse *use,
										  const RetryAnswer *answer);

/*
 * May the attempt, which is under way, have a second transfer?  If so, that is
 * in flight in its lane, and a retry of the lane's budget is spent, and one of
 * its rates.
 */
extern bool retry_govern_hedge(RetryDispatcher *d, RetrySending *t, const RetryScene *scene,
							   int64 now_us);

/* It was allowed, and is not made. */
extern void retry_govern_unhedged(RetryDispatcher *d, RetrySending *t, const RetryScene *scene);

/* A function has returned, and what came of it is recorded. */
extern void retry_govern_returned(RetrySending *t);

/* What was sent has ended: tells its lane, which may send another. */
extern void retry_govern_ended(RetryDispatcher *d, RetrySending *t);

/* It was given back, or its task has ended without it. */
extern void retry_govern_unsent(RetryDispatcher *d, RetrySending *t);

/* Scenes were read again: their rules are in force at once. */
extern void retry_govern_configured(RetryTurn *turn);

#endif							/* RETRY_GOVERN_H */
