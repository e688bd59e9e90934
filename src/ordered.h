/*
 * ordered.h
 *		Lanes whose tasks are sent one after the other.
 *
 * A task that has begun is finished before another begins, and those that have
 * not begun begin by (due_at, id).  Nothing is remembered of that but where to
 * read from: who is next is read from the facts each time, once everything that
 * was sent is recorded.
 */
#ifndef RETRY_ORDERED_H
#define RETRY_ORDERED_H

#include "turn.h"

/*
 * Are tasks of this scene in this lane to be sent in order, as the scene or an
 * override says?
 */
extern bool retry_order_wanted(const RetryDispatcher *d, int64 lane_hash, const RetryScene *scene);

/*
 * The lane is ordered from now on: what it has queued goes back, and what it
 * has under way ends first.  "scene_id" is the scene that wants it.
 */
extern void retry_order_begin(RetryDispatcher *d, RetryLane *lane, int32 scene_id);

/*
 * An entry of a lane that is not ordered, so far; "scene" is NULL when it does not
 * say.  True when the lane is to be read anew, and the entry then met again: order
 * begins; or it was ordered when this task began, and others that waited behind it
 * may lie where nobody reads.
 */
extern bool retry_order_met(RetryTurn *turn, RetryLane *lane, const RetryEntry *entry, const RetryScene *scene);

/*
 * Queues what is next in an ordered lane, if it is due, and says when to look
 * again if it is not.  Returns how many entries it looked at.
 */
extern int	retry_order_refill(RetryTurn *turn, RetryLane *lane);

/* Something of an ordered lane has changed: who is next is read again. */
extern void retry_order_reopen(RetryDispatcher *d, RetryLane *lane);
extern void retry_order_reopen_all(RetryDispatcher *d);

/*
 * A cancel, or that somebody stepped over a dead task, has become visible: what
 * comes after it may go on, whether or not the lane is in memory.
 */
extern void retry_order_signalled(RetryTurn *turn, const RetryCandidate *c, int64 lane_hash);

/*
 * Looks for lanes of these slots that waited at a dead task and may not be in
 * memory.  False when that cannot be had because a table is locked.
 */
extern bool retry_order_look(RetryTurn *turn, uint64 slots);

#endif							/* RETRY_ORDERED_H */
