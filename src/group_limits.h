/*
 * group_limits.h
 *		What a group may have and ask for, and the refusal of more.
 *
 * The limits are columns of retry.scene_group that the group's owner cannot
 * set.  They are there for a group that floods the store, by mistake or not:
 * it gets errors, and other groups notice nothing.
 */
#ifndef RETRY_GROUP_LIMITS_H
#define RETRY_GROUP_LIMITS_H

#include "utils/jsonb.h"
#include "rate.h"

struct RetryGroupRow;

/* As a row of retry.scene_group has them; -1: no limit. */
typedef struct RetryGroupLimits
{
	bool		any;			/* at least one of them is set */
	bool		shared;			/* one of those on what is counted in shared
								 * memory */
	int64		max_pending;	/* unfinished tasks */
	int32		max_lanes;		/* with unfinished tasks */
	RetryRate	rate;			/* tasks enqueued; count 0: no limit */
	int32		max_body_size;	/* bytes */
	int32		max_headers;	/* of a task */
	int32		max_headers_size;	/* names and values together, bytes */
} RetryGroupLimits;

/*
 * This process refuses nothing from now on, and counts what it stores: what it
 * has to tell must not be lost for the limit that it may be about.
 */
extern void retry_group_exempt(void);

/* From the columns of a row of retry.scene_group. */
extern void retry_group_limits_read(const Datum *values, const bool *isnull, RetryGroupLimits *limits);

/*
 * ERROR (program_limit_exceeded) when a body of so many bytes, or the headers of
 * a task (NULL: none), are more than the group may have.
 */
extern void retry_group_check_body(const struct RetryGroupRow *group, Size bytes);
extern void retry_group_check_headers(const struct RetryGroupRow *group, Jsonb *headers);

/*
 * The current transaction is about to store so many new tasks of the group: they
 * are counted, or refused all, with an ERROR (configuration_limit_exceeded), when
 * it may have no more, or, with "rated", enqueue no faster.  What a transaction
 * that rolls back has taken of the rate stays taken.
 */
extern void retry_group_admit(const struct RetryGroupRow *group, int64 tasks, bool rated);

/*
 * The same for the lane of one of them, when the group has max_lanes; "lane" is
 * its name, NULL when it is that of an origin.
 */
extern void retry_group_admit_lane(const struct RetryGroupRow *group, int64 lane_hash, const text *lane);

/*
 * The same ERRORs when one more task could not be stored now, or not in this
 * lane (NULL: that is not known); counts nothing.  For who would store it only
 * later.
 */
extern void retry_group_expect(const struct RetryGroupRow *group, const int64 *lane_hash, const text *lane);

#endif							/* RETRY_GROUP_LIMITS_H */
