/*
 * scene_stats.h
 *		What a dispatcher counts of its scenes: for retry.overview, retry.stats.
 *
 * Each scene that has had something to do has an entry in shared memory with
 * the counts of the minute, which any session can read without stopping the
 * dispatcher.  When the minute is over they become rows, one a scene, and begin
 * anew: nothing is written for a task, and a crash loses a minute at most.
 */
#ifndef RETRY_SCENE_STATS_H
#define RETRY_SCENE_STATS_H

#include "histogram.h"
#include "shown.h"
#include "task.h"

struct RetryDispatcher;
struct RetryEnded;
struct RetryTurn;
struct RetryCandidate;

/* Counts of a time. */
typedef struct RetrySceneCounts
{
	int64		enqueued;		/* tasks that have come */
	int64		outcomes[RETRY_OUTCOMES];	/* of attempts */
	int64		retries;		/* of these, not the first of their tasks */
	int64		dead;			/* tasks */
	int64		cancelled;		/* tasks */
	int64		busy_us;		/* the attempts together */
	int64		late_us;		/* the longest from due to begun */
	int64		pending;		/* how many more of these there are than
								 * before */
	int64		retrying;
	uint32		latency[RETRY_HISTOGRAM_BUCKETS];	/* of what was sent */
} RetrySceneCounts;

typedef enum RetrySceneRate
{
	RETRY_RATE_ENQUEUED,
	RETRY_RATE_ATTEMPTS,
	RETRY_RATE_FAILED,			/* attempts that did not succeed */
	RETRY_SCENE_RATES
} RetrySceneRate;

/* The rates forget by a factor of e in so many seconds. */
#define RETRY_SCENE_RATE_S	15.0

/* One scene.  Moments that end in _us are of retry_monotonic_us(). */
typedef struct RetrySceneShown
{
	RetryShownHead head;
	int32		scene_id;
	int32		group_id;
	TimestampTz minute;			/* since when the counts count */
	RetrySceneCounts counts;
	double		rate[RETRY_SCENE_RATES];	/* a second, as of: */
	int64		rate_us;
	RetryHistogram recent;
	TimestampTz held_due;		/* earliest of what is passed over, since the
								 * scene is paused; DT_NOEND: nothing is */
} RetrySceneShown;

typedef struct RetrySceneStats RetrySceneStats;

/* In the current memory context; shown in the dispatcher's worker entry. */
extern RetrySceneStats *retry_scene_stats_create(struct RetryDispatcher *d);

/* The configuration was read anew, since that moment: which groups' tasks are to be counted. */
extern void retry_scene_stats_configured(struct RetryDispatcher *d, int64 since_us);

/* A task of this scene has come; no errors. */
extern void retry_scene_stats_enqueued(struct RetryDispatcher *d, int32 scene_id);

/*
 * Somebody has asked for the end of a task, in the row that the feed reads: looks
 * whether it was still alive.  Costs some index descents, which it returns.
 */
extern int	retry_scene_stats_cancelled(struct RetryTurn *turn, const struct RetryCandidate *c);

/* An attempt is in the store; no errors. */
extern void retry_scene_stats_recorded(struct RetryDispatcher *d, const struct RetryEnded *ended);

/* Rows have come that this server did not make: the tasks must be counted anew. */
extern void retry_scene_stats_foreign(struct RetryDispatcher *d);

/* Shows what paused scenes hold back.  At each turn, outside a transaction. */
extern void retry_scene_stats_publish(struct RetryDispatcher *d, int64 now_us);

/*
 * Stores the counts of a minute that is over ("all": in any case), in a
 * transaction of its own.  To be called outside one; raises no error.  What
 * cannot be stored stays, and is tried again when retry_scene_stats_next() says.
 */
extern void retry_scene_stats_write(struct RetryDispatcher *d, TimestampTz now, bool all);

/*
 * The columns that retry.stat_minute and retry.scene_rows() have in common, from
 * enqueued to latency; what they point to is in the current memory context.
 */
#define RETRY_SCENE_COUNT_COLUMNS	(RETRY_OUTCOMES + 7)

extern void retry_scene_counts_values(const RetrySceneCounts *counts, Datum *values, bool *isnull);

/* When it is to be called next; DT_NOEND: nothing was counted. */
extern TimestampTz retry_scene_stats_next(const struct RetryDispatcher *d);

#endif							/* RETRY_SCENE_STATS_H */
