/*
 * lane.h
 *		Lanes in a dispatcher's memory: where each has read to, what it has
 *		queued, and which of them can do something next.
 *
 * A lane is a cache over the facts.  Its cursor says up to where its entries
 * have been taken; what lies after it is read again whenever it may be due.
 * Lanes that have nothing to do may be forgotten: the horizon says from when
 * on a forgotten lane may have work, so that a sweep finds it in time.
 *
 * A leaf: no catalogs, no clock, no errors but those of palloc.  Times are
 * arguments, memory comes from the context that is current at creation.
 */
#ifndef RETRY_LANE_H
#define RETRY_LANE_H

#include "lib/ilist.h"
#include "task.h"

typedef struct RetryLane
{
	int64		hash;
	RetryPos	cursor;			/* everything at or before is taken */
	RetryPos	ahead;			/* with is_ahead, see retry_lane_go_ahead */
	TimestampTz next_due;		/* no entry after the cursor is due before;
								 * DT_NOEND: none known */
	RetryEntry *queue;			/* ring of queue_size entries, or NULL */
	int32		queue_size;
	int32		queue_head;
	int32		queued;
	int32		in_flight;
	int32		limit;			/* transfers at once; 0: the default, -1: none */
	int32		cap;			/* never more, whatever the limit; 0: as the
								 * limit says */
	int32		heap_index;		/* in the heap of due lanes; -1: not there */
	bool		parked;			/* unread, but there is no room in all queues */
	bool		idle;			/* in the list of lanes that may be forgotten */
	bool		is_ahead;		/* a leaf is locked: the cursor stays behind */
	bool		blocked;		/* sends nothing before blocked_until */
	uint8		ring;			/* the ring it waits in to send; see lane.c */
	dlist_node	parked_node;
	dlist_node	ready_node;
	dlist_node	idle_node;
	dlist_node	blocked_node;
	TimestampTz blocked_until;
} RetryLane;

/* Where an entry that the dispatcher knows of is. */
typedef enum RetryPlace
{
	RETRY_PLACE_QUEUED,
	RETRY_PLACE_CANCELLED,		/* queued, and dropped when its turn comes */
	RETRY_PLACE_SENT			/* sent, and not yet recorded */
} RetryPlace;

typedef struct RetryLanes RetryLanes;

/* Limits that a reload may change; counts, not bytes. */
typedef struct RetryLaneLimits
{
	int32		max_lanes;
	int32		max_queued;
	int32		max_in_flight;	/* of the dispatcher */
	int32		lane_max_in_flight; /* of a lane that has no limit of its own */
} RetryLaneLimits;

/*
 * "horizon": no lane that is not in memory has an untaken entry due before.
 * Everything is allocated in the current memory context.
 */
extern RetryLanes *retry_lanes_create(const RetryLaneLimits *limits, TimestampTz horizon);
extern void retry_lanes_set_limits(RetryLanes *lanes, const RetryLaneLimits *limits);

/* How many transfers a lane may have at once: 0 the default, -1 none. */
extern void retry_lane_set_limit(RetryLanes *lanes, RetryLane *lane, int32 limit);

/* How many it may have whatever its limit: what serves it is shared; 0: no such cap. */
extern void retry_lane_set_cap(RetryLanes *lanes, RetryLane *lane, int32 cap);

/* The lane, or NULL when it is not in memory. */
extern RetryLane *retry_lanes_find(RetryLanes *lanes, int64 hash);

/*
 * The lane, made if need be with its cursor just before the horizon (or "now",
 * whichever is earlier), to be read from the horizon on.  NULL when the limit
 * of lanes is reached and none can be forgotten: then "due" has lowered the
 * horizon, and a sweep will find it.
 */
extern RetryLane *retry_lanes_get(RetryLanes *lanes, int64 hash, TimestampTz due, TimestampTz now);

/* Forgets a lane, whatever it holds: its slot belongs to another dispatcher now. */
extern void retry_lanes_drop(RetryLanes *lanes, RetryLane *lane);

/* Horizon and sweeps: see sweep.c. */
extern TimestampTz retry_lanes_horizon(const RetryLanes *lanes);
extern void retry_lanes_lower_horizon(RetryLanes *lanes, TimestampTz due);	/* ends a sweep */
extern void retry_lanes_sweep_begin(RetryLanes *lanes);
extern void retry_lanes_sweep_saw(RetryLanes *lanes, TimestampTz due);
extern void retry_lanes_sweep_end(RetryLanes *lanes);

/* Whether retry_lanes_get can make a lane now. */
extern bool retry_lanes_has_place(const RetryLanes *lanes, TimestampTz now);

/* Makes every lane read again from the beginning of time. */
extern void retry_lanes_restart(RetryLanes *lanes);

/* Entries that became known: an untaken one exists at this place. */
extern void retry_lane_note(RetryLanes *lanes, RetryLane *lane, const RetryPos *pos);

/*
 * Puts an entry into the lane's queue.  False when there is no room; true also
 * when the entry is already queued or sent, which is what makes reading
 * anything twice harmless.
 */
extern bool retry_lane_push(RetryLanes *lanes, RetryLane *lane, const RetryEntry *entry);

/* How many entries the lane's queue has room for now. */
extern int32 retry_lane_room(const RetryLanes *lanes, const RetryLane *lane);

/* The cursor has come to "pos" and the next entry after it is due at "next_due". */
extern void retry_lane_advance(RetryLanes *lanes, RetryLane *lane, const RetryPos *pos, TimestampTz next_due);

/*
 * The same, while a leaf is locked: what the other leaves have has been taken
 * up to "pos", and the cursor stays where it is until all can be read.  The
 * lane is looked at again at "next_due", which says nothing of the locked leaf.
 */
extern void retry_lane_go_ahead(RetryLanes *lanes, RetryLane *lane, const RetryPos *pos, TimestampTz next_due);

/* True when the task is queued or sent and not recorded. */
extern bool retry_lanes_holds(const RetryLanes *lanes, const pg_uuid_t *id);

/* A queued task is dropped when its turn comes; a sent one is not touched. */
extern void retry_lanes_cancel(RetryLanes *lanes, const pg_uuid_t *id);

/*
 * The next entry to send, lanes taking turns; false when nothing may be sent
 * now.  The entry counts as in flight and sent.
 */
extern bool retry_lanes_take(RetryLanes *lanes, RetryLane **lane, RetryEntry *entry);

/*
 * Gives an entry that was taken back, to the head of its lane's queue, and lets
 * the lane send nothing before "until": where it goes to does not work now.
 * The lane is read and filled as ever.  Who learns earlier that it works again
 * unblocks it; a lane that is not blocked is left as it is.
 */
extern void retry_lane_block(RetryLanes *lanes, RetryLane *lane, const RetryEntry *entry,
							 TimestampTz until);
extern void retry_lane_unblock(RetryLanes *lanes, RetryLane *lane);

/*
 * Unblocks the lanes whose moment has come, or all when "now" is DT_NOEND or
 * earlier than at the last call: the clock was set back.
 */
extern void retry_lanes_unblock_due(RetryLanes *lanes, TimestampTz now);

/* When retry_lanes_unblock_due may have something to do; DT_NOEND: never by itself. */
extern TimestampTz retry_lanes_next_unblock(const RetryLanes *lanes);

/* The transfer of an entry has ended: its lane may send another. */
extern void retry_lane_transfer_ended(RetryLanes *lanes, RetryLane *lane);

/* The attempt of a sent entry is recorded (or will never be made). */
extern void retry_lanes_forget_sent(RetryLanes *lanes, const pg_uuid_t *id);

/* The lane with the earliest unread entry that is due and has room; NULL: none. */
extern RetryLane *retry_lanes_due(RetryLanes *lanes, TimestampTz now);

/* When retry_lanes_due will next find one; DT_NOEND: never by itself. */
extern TimestampTz retry_lanes_next_due(RetryLanes *lanes);

/* Counts for people. */
extern int32 retry_lanes_count(const RetryLanes *lanes);
extern int32 retry_lanes_queued(const RetryLanes *lanes);
extern int32 retry_lanes_in_flight(const RetryLanes *lanes);

/* Calls "visit" for each lane; it may not make or drop lanes. */
extern void retry_lanes_each(RetryLanes *lanes, void (*visit) (RetryLane *lane, void *arg), void *arg);

/*
 * The earliest entry of the lane that is queued or unread; DT_NOEND when there
 * is none.  What was sent and is not recorded is for the caller to add.
 */
extern TimestampTz retry_lane_oldest(const RetryLane *lane);

/* Order of places, and the place just before another. */
extern int	retry_pos_compare(const RetryPos *a, const RetryPos *b);
extern RetryPos retry_pos_before(const RetryPos *pos);

#endif							/* RETRY_LANE_H */
