/*
 * target_health.h
 *		What a dispatcher knows of the targets of its scenes.
 *
 * Routes and health are decided in route.c from what is kept here: one state
 * for each target of a scene, in this dispatcher's memory, which outlives the
 * copy of the configuration that named the target.
 */
#ifndef RETRY_TARGET_HEALTH_H
#define RETRY_TARGET_HEALTH_H

#include "executor/tuptable.h"
#include "breaker.h"
#include "config.h"
#include "disabled.h"
#include "judge.h"
#include "route.h"
#include "shown.h"

typedef struct RetryTargetHealth RetryTargetHealth;
typedef struct RetryKnownTarget RetryKnownTarget;

#define RETRY_TARGET_SHOWN_URL	256 /* longest URL that is shown, with its
									 * zero */

/* One target, for retry.targets.  Moments are of retry_monotonic_us(). */
typedef struct RetryTargetShown
{
	RetryShownHead head;
	uint8		breaker;		/* RetryBreakerState */
	bool		disabled;		/* its URL is */
	bool		out;			/* it failed: one request at a time finds out */
	int32		group_id;
	int32		scene_id;
	int32		in_flight;
	int32		failures;		/* since it was last well */
	uint32		calls;			/* that the breaker counts */
	uint32		failed;			/* of these */
	int64		out_since_us;	/* these two while out */
	int64		out_until_us;
	int64		rest_until_us;	/* as it asked itself; 0: it did not */
	int64		breaker_since_us;	/* these two while the breaker is not
									 * closed */
	int64		breaker_until_us;
	char		url[RETRY_TARGET_SHOWN_URL];
} RetryTargetShown;

/* One request's hold on the target that was chosen for it; all zero: none. */
typedef struct RetryTargetUse
{
	RetryKnownTarget *target;
	bool		in_flight;
	bool		all_disabled;	/* no target was chosen, since all are */
	bool		probe;			/* it finds out whether the target works again */
	bool		trial;			/* the same for the target's breaker */
	int64		started_us;
	uint64		key_hash;		/* by which it was chosen, if by hash */
} RetryTargetUse;

/* What is to be told of a target; several may be true at once. */
#define RETRY_TARGET_OPENED		0x1 /* its breaker */
#define RETRY_TARGET_CLOSED		0x2
#define RETRY_TARGET_OUT		0x4 /* it is left alone, and was probed in
									 * vain */
#define RETRY_TARGET_BACK		0x8

/*
 * In the current memory context, which must outlive everything that uses it.
 * Targets that "disabled" has are not chosen; NULL: there are none.
 */
extern RetryTargetHealth *retry_target_health_create(const RetryDisabled *disabled);

/*
 * Chooses a target of the scene, which has some, for the task in the slot
 * (all of whose columns are read), and counts it as in flight there.  False
 * when none may be called now, with the moment to ask again in *retry_at, and
 * whether all are disabled in the use.  All moments are microseconds of the
 * same clock, best of one that nobody sets.
 */
extern bool retry_target_use_take(RetryTargetHealth *health, RetryScene *scene, TupleTableSlot *slot,
								  int64 now, RetryTargetUse *use, int64 *retry_at);

/*
 * The same for the attempts of one call in a session, which has a health of its
 * own and a copy of the scene: targets that have failed in it are left out, as
 * long as there are others.  Nobody takes turns there, so what would be in turn
 * is at random.
 */
extern void retry_target_use_here(RetryTargetHealth *health, RetryScene *scene,
								  TupleTableSlot *slot, int64 now, RetryTargetUse *use);

/*
 * Takes another target of the scene than the one in "first", for a second
 * transfer of the same request: by the scene's route, among those that are
 * well.  False when there is none.
 */
extern bool retry_target_use_other(RetryTargetHealth *health, RetryScene *scene,
								   const RetryTargetUse *first, int64 now, RetryTargetUse *use);

/* The URL of a target that was taken; NULL when none was.  Valid until it is released. */
extern const char *retry_target_use_url(const RetryTargetUse *use);

/*
 * The request has ended, and this is what it meant for its task.  "rules" are
 * those of its scene (NULL: it is gone).  What is news of the target is set in
 * the result.
 */
extern int	retry_target_use_done(RetryTargetUse *use, const RetryAnswer *answer,
								  RetryOutcome outcome, const RetryBreakerRules *rules, int64 now);

/* How many calls the target's breaker counts, and how many of them failed. */
extern void retry_target_use_counts(const RetryTargetUse *use, uint32 *calls, uint32 *failed);

/* The target has asked to be left alone until then; before it is released. */
extern void retry_target_use_rest(RetryTargetUse *use, int64 until);

/* Lets go of it; a request that was not sent after all says nothing of the target. */
extern void retry_target_use_release(RetryTargetUse *use);

/*
 * The configuration was read: calls "closed" for each target whose breaker has
 * closed since its scene wants none any more.
 */
extern void retry_target_health_follow(RetryTargetHealth *health, RetryConfig *config, int64 now,
									   void (*closed) (const RetryScene *scene, const char *url, void *arg),
									   void *arg);

/*
 * From now on what is known is shown at "place", as RetryTargetShown.  For a
 * dispatcher, once.
 */
extern void retry_target_health_show(RetryTargetHealth *health, RetryShownPlace *place);

/*
 * Shows what has changed, once in a while.  To be called at each turn, outside
 * a transaction.  No errors.
 */
extern void retry_target_health_publish(RetryTargetHealth *health, RetryConfig *config,
										int64 now_us);

/* Forgets the targets that nothing has used for a while; no scene may be in use. */
extern void retry_target_health_forget(RetryTargetHealth *health, int64 now);

#endif							/* RETRY_TARGET_HEALTH_H */
