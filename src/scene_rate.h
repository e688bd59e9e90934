/*
 * scene_rate.h
 *		Keeps the requests of a scene's lanes to the scene's rate.
 *
 * An attempt asks here when it is prepared.  While the rate allows it, nobody
 * waits.  When it is spent, lanes wait in turn: each gets a moment of its own,
 * reserved in the bucket that all dispatchers share, sleeps until then, and may
 * send one request.  So neither do thousands of lanes wake up for one request,
 * nor does one that comes late starve.
 */
#ifndef RETRY_SCENE_RATE_H
#define RETRY_SCENE_RATE_H

#include "turn.h"

/* In the current memory context, which lives as long as the process. */
extern RetrySceneRates *retry_scene_rates_create(RetryDispatcher *d);

/*
 * To be called when the configuration was read: rates that have changed, or are
 * no more, count from now on, for those that wait too.
 */
extern void retry_scene_rates_configured(RetryDispatcher *d, int64 now_us);

/*
 * May a request of the scene be sent from this lane now?  Then it is counted,
 * unless the scene has no rate.  Else the lane is to be blocked until *until_us
 * (RETRY_GATE_SCENE_RATE), and to ask again then; who asks earlier keeps its
 * place.
 */
extern bool retry_scene_rate_pass(RetryDispatcher *d, const RetryScene *scene, const RetryLane *lane,
								  int64 now_us, int64 *until_us);

/* The same for a request that is not worth waiting for: only if nobody else waits. */
extern bool retry_scene_rate_spare(RetryDispatcher *d, const RetryScene *scene, int64 now_us);

/* A request that was counted is not made. */
extern void retry_scene_rate_unsent(RetryDispatcher *d, int32 scene_id);

/* Takes turns back from lanes that did not use them, and gives them to others. */
extern void retry_scene_rates_run(RetryDispatcher *d, int64 now_us);

/* When that may have something to do; PG_INT64_MAX: never by itself. */
extern int64 retry_scene_rates_next(const RetryDispatcher *d);

/* The lanes of these slots are another dispatcher's from now on: so are their turns. */
extern void retry_scene_rates_forget(RetryDispatcher *d, uint64 slots);

#endif							/* RETRY_SCENE_RATE_H */
