/*
 * group_lanes.h
 *		Which lanes the tasks of groups with max_lanes are in, in shared memory.
 *
 * A lane costs the dispatchers memory, so a group that names one for each task
 * is a flood of another kind.  Here is an entry for each lane that has
 * unfinished tasks of a group with that limit, with their number: sessions add
 * what they store, dispatchers take off what is finished, and upkeep puts right
 * what a crash has forgotten.  How many entries a group has is in its
 * RetryGroupUse.
 */
#ifndef RETRY_GROUP_LANES_H
#define RETRY_GROUP_LANES_H

#include "group_use.h"

/* Lanes that there is room for, of all groups with the limit together. */
#define RETRY_GROUP_LANES	32768

/* Its part of the shared memory, for the hooks of shmem.c. */
extern void retry_group_lanes_request_memory(void);
extern void retry_group_lanes_create_memory(void);

typedef enum RetryLaneAdded
{
	RETRY_LANE_ADDED,
	RETRY_LANE_REFUSED,			/* it would be new, and one too many */
	RETRY_LANE_NO_ROOM			/* it is new, and not counted */
} RetryLaneAdded;

/*
 * The current transaction stores a task in this lane: counted now, taken back
 * if the (sub)transaction rolls back, and kept when it commits or is prepared.
 * Refused, with nothing counted, when the lane has no unfinished task yet and
 * the group has "max" others (-1: no limit); never before upkeep has counted
 * for the first time.  ERROR only when memory is short.
 */
extern RetryLaneAdded retry_group_lanes_add(RetryGroupUse *use, int64 lane_hash, int32 max);

/* The group of this use has no unfinished task: its lanes are as good as counted. */
extern void retry_group_lanes_none(RetryGroupUse *use);

/* Would a task of this lane be refused now? */
extern bool retry_group_lanes_full(RetryGroupUse *use, int64 lane_hash, int32 max);

/* A task of the lane is finished.  No errors. */
extern void retry_group_lanes_ended(RetryGroupUse *use, int64 lane_hash);

/*
 * Forgets the lanes of the group of this use, whose "owner" is not there yet, or
 * has no max_lanes any more.
 */
extern void retry_group_lanes_forget(RetryGroupUse *use, uint64 owner);

/*
 * Counting anew, of all groups of the current database.  To be begun just
 * before the snapshot by which tasks are counted; then "found" for each lane
 * and leaf, with how many unfinished tasks the snapshot sees; and applied when
 * all of them are.  What has come and gone since it was begun counts with it.
 */
extern void retry_group_lanes_begin_count(void);
extern void retry_group_lanes_found(int32 group_id, int64 lane_hash, int64 tasks);
extern void retry_group_lanes_apply(void);

#endif							/* RETRY_GROUP_LANES_H */
