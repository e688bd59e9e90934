/*
 * override.h
 *		What an administrator says of single lanes.
 *
 * An override names a lane as people see it; dispatchers know lanes by number.
 * So each override stands here under the numbers of all lanes that may show its
 * name: the caller's, an origin's, a scene's own and its parts.  It wins over
 * what the scene of a task says.
 */
#ifndef RETRY_OVERRIDE_H
#define RETRY_OVERRIDE_H

#include "utils/snapshot.h"
#include "config.h"
#include "lane.h"

struct RetryDispatcher;

/* One row of retry.lane_override. */
typedef struct RetryOverride
{
	int32		group_id;
	const char *lane;			/* its name; until the next read */
	int32		max_in_flight;	/* 0: as the scene says */
	int32		weight;			/* 0: as the scene says */
	RetryRate	rate;			/* of the lane; count 0: none */
	bool		has_ordered;
	bool		ordered;
	bool		paused;
	bool		disabled;
	TimestampTz reset_at;		/* DT_NOBEGIN: never */
} RetryOverride;

typedef struct RetryOverrides RetryOverrides;

/* None yet; in the current memory context. */
extern RetryOverrides *retry_overrides_create(void);

/*
 * Reads all of them again with this snapshot, for the groups and scenes of a
 * configuration that was just read.  False, with the former ones kept, when the
 * table is locked.
 */
extern bool retry_overrides_read(RetryOverrides *overrides, RetryConfig *config, Snapshot snapshot);

/* What concerns the lane; NULL: nothing.  Until the next read. */
extern const RetryOverride *retry_override_find(const RetryOverrides *overrides, int64 lane_hash);

/*
 * The rules of a lane in force: those of the scene, or in "mixed" what an
 * override leaves of them.
 */
extern const RetryFlowRules *retry_override_rules(const RetryOverrides *overrides, int64 lane_hash,
												  const RetryFlowRules *rules, RetryFlowRules *mixed);

/* The lane has its limit, weight and class by these rules from now on. */
extern void retry_override_lane(struct RetryDispatcher *d, RetryLane *lane, const RetryScene *scene);

/* A lane that has just come to memory of the dispatcher "arg" is as its override says. */
extern void retry_override_apply(RetryLane *lane, void *arg);

/* The same for all that are in memory, once they were read again. */
extern void retry_overrides_apply(struct RetryDispatcher *d);

#endif							/* RETRY_OVERRIDE_H */
