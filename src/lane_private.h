/*
 * lane_private.h
 *		What the files that implement lane.h share among themselves.
 *
 * lane.c knows which lanes there are and what may be forgotten, lane_queue.c
 * what is queued and what is to be read next, lane_ring.c who sends next,
 * lane_dormant.c who waits for long.  All change the same lanes, so after each
 * change the lane or the side is put where its state says it belongs, by one
 * function that each file has for that.
 *
 * Nobody else includes this.
 */
#ifndef RETRY_LANE_PRIVATE_H
#define RETRY_LANE_PRIVATE_H

#include "lane.h"

/* Outside the server there is one heap; inside, the lanes' own context. */
#ifdef FRONTEND
#define lanes_alloc(lanes, size) palloc(size)
#else
#define lanes_alloc(lanes, size) MemoryContextAlloc((lanes)->context, size)
#endif

enum
{
	CLASS_HIGH,
	CLASS_NORMAL,
	CLASSES
};

/* Lanes that are ready to send, of each class, by what they may have. */
enum
{
	RING_SOME,
	RING_ALL,					/* all transfers */
	RING_HANGING,				/* a part that all who hang share */
	RING_KINDS
};

#define RINGS	(CLASSES * RING_KINDS)	/* class * RING_KINDS + kind */

/* What is closed for so long gives way to others. */
#define RETRY_LANE_LONG_US	USECS_PER_SEC

struct lanehash_hash;
struct idhash_hash;
struct dormanthash_hash;

struct RetryLanes
{
#ifndef FRONTEND
	MemoryContext context;
#endif
	RetryLaneLimits limits;
	RetryLaneHooks hooks;		/* functions may be NULL */
	/* lane.c */
	struct lanehash_hash *by_hash;
	dlist_head	idle;			/* longest idle first */
	dlist_head	closed;			/* they have something, and may not send */
	dlist_head	high;
	TimestampTz now;			/* the last that anybody told */
	dlist_head	changed;
	TimestampTz horizon;
	bool		sweeping;
	TimestampTz sweep_horizon;	/* what the horizon will be after the sweep */
	uint64		stopped;		/* slots whose lanes send nothing */
	/* lane_queue.c */
	struct idhash_hash *ids;
	RetryHeap	due[CLASSES];	/* sides by next_due */
	dlist_head	parked;
	int32		queued;
	/* lane_ring.c */
	RetryHeap	ready[RINGS];	/* lanes by what they have under way */
	RetryHeap	wake;			/* lanes by their next moment */
	uint64		turn;			/* that of the lane that was served last */
	int32		in_flight;
	int32		hanging;		/* of these, in lanes that hang */
	int64		now_us;			/* the last moment that anybody told */
	/* lane_dormant.c */
	struct dormanthash_hash *dormant;
	RetryHeap	dormant_wake;
	uint64		dormant_turn;	/* of two with the same moment, who came first */
	int64		dormant_not_before; /* there was no place */
};

/* How many transfers the lane may ever have at once. */
static inline int32
lane_limit(const RetryLanes *lanes, const RetryLane *lane)
{
	int32		limit = lane->limit > 0 ? lane->limit : lanes->limits.lane_max_in_flight;

	return lane->cap > 0 ? Min(limit, lane->cap) : limit;
}

/* And how many now, by what its endpoint was found to take. */
static inline int32
lane_limit_now(const RetryLanes *lanes, const RetryLane *lane)
{
	int32		limit = lane_limit(lanes, lane);

	return lane->found > 0 ? Min(limit, lane->found) : limit;
}

static inline int
lane_class(const RetryLane *lane)
{
	return lane->high ? CLASS_HIGH : CLASS_NORMAL;
}

/* When there is something to read of it; DT_NOEND: when somebody says so. */
static inline TimestampTz
lane_next_due(const RetryLane *lane)
{
	return Min(lane->side[RETRY_SIDE_FIRST].next_due, lane->side[RETRY_SIDE_RETRY].next_due);
}

/* The lane is to be shown as it is now. */
static inline void
lane_changed(RetryLanes *lanes, RetryLane *lane)
{
	if (!lane->changed)
		dlist_push_tail(&lanes->changed, &lane->changed_node);
	lane->changed = true;
}

/* Puts a lane where its state says it belongs; both sides too. */
extern void retry_lane_update(RetryLanes *lanes, RetryLane *lane);

/*
 * lane.c: a new lane, with its cursors just before the moment (or now), to be
 * read from "due" on.  Its flow, which may be NULL, is its own from then on.
 * NULL: no place.
 */
extern RetryLane *retry_lane_make(RetryLanes *lanes, int64 hash, TimestampTz due, TimestampTz now,
								  RetryFlow *flow, bool paused);

/* lane_queue.c */
extern void retry_queues_init(RetryLanes *lanes);
extern void retry_side_init(RetrySide *side, RetrySideName which);
extern void retry_side_update(RetryLanes *lanes, RetrySide *side);
extern void retry_side_forget(RetryLanes *lanes, RetrySide *side);

/* Out of the lists of what is to be read, until the next update. */
extern void retry_side_unlist(RetryLanes *lanes, RetrySide *side);

/* Takes the first entry that was not cancelled meanwhile off the queue; false: none. */
extern bool retry_side_pop(RetryLanes *lanes, RetrySide *side, RetryEntry *entry);

/* Drops cancelled entries at the head; false when nothing is left. */
extern bool retry_side_has(RetryLanes *lanes, RetrySide *side);

/* It must wait for long: when room is scarce, its queue is given up but for one entry. */
extern void retry_side_give_up(RetryLanes *lanes, RetrySide *side);

/* The reverse of pop. */
extern void retry_side_unpop(RetryLanes *lanes, RetrySide *side, const RetryEntry *entry);

/* lane_ring.c */
extern void retry_rings_init(RetryLanes *lanes);
extern void retry_ring_init(RetryLane *lane);
extern void retry_ring_update(RetryLanes *lanes, RetryLane *lane);
extern void retry_ring_forget(RetryLanes *lanes, RetryLane *lane);

/* Has it something queued, and nothing of that may be sent now? */
extern bool retry_ring_closed(const RetryLane *lane);

/* When something of it is to be asked again; PG_INT64_MAX: never by itself. */
extern int64 retry_ring_moment(const RetryLane *lane);

/* lane_dormant.c */
extern void retry_dormant_init(RetryLanes *lanes);

/* A closed lane that may become dormant; NULL: none was found. */
extern RetryLane *retry_dormant_candidate(RetryLanes *lanes);

/* Makes it so; the lane is gone. */
extern void retry_dormant_close(RetryLanes *lanes, RetryLane *lane);

/* An idle lane is to be forgotten: false when its flow remembers nothing, and nothing was done. */
extern bool retry_dormant_keep(RetryLanes *lanes, RetryLane *lane);

/*
 * A lane that is not in memory has something from then on, and there is no
 * place: it gets the next.  False when there are too many of these already.
 */
extern bool retry_dormant_wait(RetryLanes *lanes, int64 hash, TimestampTz due);

/* Is there room for one that waits? */
extern bool retry_dormant_may_wait(const RetryLanes *lanes);

/* Does anybody wait for a place?  Then newcomers come after. */
extern bool retry_dormant_waiting(const RetryLanes *lanes);

/*
 * Something of a lane is due: false when it is not dormant.  One that is kept
 * for its flow alone, and may send, is to be woken; see retry_dormant_wake_due.
 */
extern bool retry_dormant_note(RetryLanes *lanes, int64 hash, TimestampTz due);
extern bool retry_dormant_has(const RetryLanes *lanes, int64 hash);
extern void retry_dormant_note_all(RetryLanes *lanes, TimestampTz due);

/* Lanes whose moment has come get a place, as far as there is one. */
extern void retry_dormant_wake_due(RetryLanes *lanes);
extern void retry_dormant_wake_all(RetryLanes *lanes);
extern int64 retry_dormant_next(const RetryLanes *lanes);
extern void retry_dormant_forget_slots(RetryLanes *lanes, uint64 slots);

#endif							/* RETRY_LANE_PRIVATE_H */
