/*
 * lane.h
 *		Lanes in a dispatcher's memory: where each has read to, what it has
 *		queued, and which of them can do something next.
 *
 * A lane is a cache over the facts.  Its cursors say up to where its entries
 * have been taken; what lies after them is read again whenever it may be due.
 * Lanes that have nothing to do may be forgotten: the horizon says from when
 * on a forgotten lane may have work, so that a sweep finds it in time.
 *
 * First attempts and next attempts are two sides of a lane, each with a cursor
 * and a queue, so that retries that must wait hold up nothing but themselves.
 *
 * A leaf: no catalogs, no clock, no errors but those of palloc.  Times are
 * arguments, memory comes from the context that is current at creation.  What
 * is due is a TimestampTz; when a lane may send (now_us, until_us) is a moment
 * of a clock that nobody sets, in microseconds.
 */
#ifndef RETRY_LANE_H
#define RETRY_LANE_H

#include "lib/ilist.h"
#include "backlog.h"
#include "flow.h"
#include "gauge.h"
#include "lane_heap.h"
#include "task.h"

typedef struct RetrySide
{
	RetryPos	cursor;			/* everything at or before is taken */
	RetryPos	ahead;			/* with is_ahead, see retry_lane_go_ahead */
	TimestampTz next_due;		/* no entry after the cursor is due before;
								 * DT_NOEND: none known */
	RetryEntry *queue;			/* ring of queue_size entries, or NULL */
	int32		queue_size;
	int32		queue_head;
	int32		queued;
	uint8		which;			/* RetrySideName */
	uint8		gate;			/* RetryGate: why it sends nothing now */
	bool		parked;			/* unread, but there is no room in all queues */
	bool		is_ahead;		/* a leaf is locked: the cursor stays behind */
	int64		shut_until_us;	/* with gate: when to ask it again */
	RetryHeapNode due_node;		/* in the heap of what is unread */
	dlist_node	parked_node;
	RetryBacklog backlog;		/* what is known of the unread */
} RetrySide;

typedef struct RetryLane
{
	int64		hash;
	char	   *name;			/* as people see it; NULL: not known yet */
	RetrySide	side[RETRY_SIDES];
	RetryFlow  *flow;			/* NULL: it has nothing to remember */
	RetryGauge *gauge;			/* NULL: nobody asks for what it says */
	int32		in_flight;
	int32		unrecorded;		/* sent, and not yet recorded: those in flight
								 * and some that have ended */
	int32		limit;			/* transfers at once; 0: the default */
	int32		cap;			/* never more, whatever the limit; 0: as the
								 * limit says */
	int32		found;			/* what its endpoint was found to take; 0:
								 * that is not looked for */
	int16		weight;			/* of its share, 1 and more */
	bool		high;			/* before all that are not */
	bool		stopped;		/* its slot is being given up */
	bool		hangs;			/* its last call failed, and took long to */
	bool		paused;			/* neither read nor sent */
	bool		blocked;		/* sends nothing before blocked_until_us */
	uint8		blocked_why;	/* RetryGate */
	uint8		rest;			/* the list that rest_node is in; see lane.c */
	bool		in_high;		/* in the list of high ones */
	uint8		ring;			/* the one that ready_node is in */
	bool		ordered;		/* one after the other; ordered.c fills it */
	bool		order_known;	/* and knows where to read it from */
	bool		dead_head;		/* it waits for a dead task to be replayed */
	RetryPos	head;			/* ordered: just before what it waits for; see
								 * retry_lane_early() */
	TimestampTz read_from;		/* not ordered: it was read from there on for
								 * those that had waited; DT_NOEND: never */
	int64		blocked_until_us;
	uint64		turn;			/* grows with what it sent, by its weight */
	RetryHeapNode ready_node;
	RetryHeapNode wake_node;
	dlist_node	rest_node;
	dlist_node	high_node;
	int32		group_id;		/* 0: not known yet */
	bool		changed;		/* in the list of lanes that have changed */
	dlist_node	changed_node;
	struct RetryLaneShown *shown;	/* what sessions see of it, or NULL */
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

/*
 * Called for each lane that has come to memory, before anything is read or sent
 * of it, and for each that goes.  "arg" is passed on.
 */
typedef struct RetryLaneHooks
{
	void		(*made) (RetryLane *lane, void *arg);
	void		(*dropped) (RetryLane *lane, void *arg);
	void	   *arg;
} RetryLaneHooks;

extern void retry_lanes_set_hooks(RetryLanes *lanes, const RetryLaneHooks *hooks);

/* How many it may have whatever its limit: what serves it is shared; 0: no such cap. */
extern void retry_lane_set_cap(RetryLanes *lanes, RetryLane *lane, int32 cap);

/* Its limit, weight and class; the rules of its flow are told to that. */
extern void retry_lane_set_rules(RetryLanes *lanes, RetryLane *lane, const RetryFlowRules *rules);

/* It is neither read nor sent from; what it has queued stays there. */
extern void retry_lane_pause(RetryLanes *lanes, RetryLane *lane, bool pause);

/*
 * A second transfer of what is under way in the lane: false when it may have no
 * more, or nobody may.  Its end is not told to the flow: to that there is one.
 */
extern bool retry_lane_take_more(RetryLanes *lanes, RetryLane *lane);
extern void retry_lane_more_ended(RetryLanes *lanes, RetryLane *lane);

/* The flow of a lane, made at rest if it had none; it lives as long as the lane. */
extern RetryFlow *retry_lane_flow(RetryLanes *lanes, RetryLane *lane);

/* The lane, or NULL when it is not in memory, or dormant. */
extern RetryLane *retry_lanes_find(RetryLanes *lanes, int64 hash);

/*
 * Lanes that cannot send for long give up their place to others, and get one
 * again when their moment comes; this makes it come now.
 */
extern void retry_lanes_wake(RetryLanes *lanes, int64 hash);

/* True when the lane is in memory, or dormant: a sweep need not look at it. */
extern bool retry_lanes_knows(RetryLanes *lanes, int64 hash);

/*
 * The lane, made if need be with its cursors just before the horizon (or "now",
 * whichever is earlier), to be read from the horizon on.  NULL when it is
 * dormant, which has been told of "due", or when the limit of lanes is reached
 * and none can give way: then "due" has lowered the horizon, and a sweep will
 * find it.
 */
extern RetryLane *retry_lanes_get(RetryLanes *lanes, int64 hash, TimestampTz due, TimestampTz now);

/* Forgets a lane, whatever it holds. */
extern void retry_lanes_drop(RetryLanes *lanes, RetryLane *lane);

/* Forgets the lanes of these slots, as bits: they belong to another dispatcher now. */
extern void retry_lanes_drop_slots(RetryLanes *lanes, uint64 slots);

/* Lanes of these slots, as bits, send nothing: they are being given up.  Others do. */
extern void retry_lanes_stop(RetryLanes *lanes, uint64 slots);

/* Horizon and sweeps: see sweep.c. */
extern TimestampTz retry_lanes_horizon(const RetryLanes *lanes);
extern void retry_lanes_lower_horizon(RetryLanes *lanes, TimestampTz due);	/* ends a sweep */
extern void retry_lanes_sweep_begin(RetryLanes *lanes);
extern void retry_lanes_sweep_saw(RetryLanes *lanes, TimestampTz due);
extern void retry_lanes_sweep_end(RetryLanes *lanes);

/*
 * Whether retry_lanes_get can make a lane now, or remember that it waits for a
 * place; otherwise it is for a sweep to find it.
 */
extern bool retry_lanes_has_place(RetryLanes *lanes, TimestampTz now);

/* Makes every lane read again from the beginning of time. */
extern void retry_lanes_restart(RetryLanes *lanes);

/* The lane that a side is of. */
static inline RetryLane *
retry_side_lane(RetrySide *side)
{
	return (RetryLane *) ((char *) (side - side->which) - offsetof(RetryLane, side));
}

/* An entry became known: an untaken one exists on this side, at this place. */
extern void retry_lane_note(RetryLanes *lanes, RetrySide *side, const RetryPos *pos);

/* The same for both sides, where it is not known which: anything due from then on. */
extern void retry_lane_note_both(RetryLanes *lanes, RetryLane *lane, TimestampTz due);

/* Notes that on all lanes that are in memory and high. */
extern void retry_lanes_note_high(RetryLanes *lanes, TimestampTz due);

/*
 * Puts an entry into the queue of its side.  False when there is no room; true
 * also when the entry is already queued or sent, which is what makes reading
 * anything twice harmless.
 */
extern bool retry_lane_push(RetryLanes *lanes, RetryLane *lane, const RetryEntry *entry);

/* How many entries a side's queue has room for now. */
extern int32 retry_lane_room(const RetryLanes *lanes, const RetrySide *side);

/*
 * "n" entries of the side that are due then became known, or went back, and
 * are unread; one was read; and all that are due by now were.  For the
 * estimate of what is due.
 */
extern void retry_lane_unread(RetryLanes *lanes, RetrySide *side, uint32 n, TimestampTz due,
							  TimestampTz now);
extern void retry_lane_read(RetrySide *side, TimestampTz due);
extern void retry_lane_drained(RetryLanes *lanes, RetrySide *side, TimestampTz now);

/* One of the lanes that have changed since it was last returned here; NULL: none. */
extern RetryLane *retry_lanes_next_changed(RetryLanes *lanes);
extern bool retry_lanes_any_changed(const RetryLanes *lanes);

/* How many transfers it may have at once, all things considered. */
extern int32 retry_lane_limit(const RetryLanes *lanes, const RetryLane *lane);

/* The cursor has come to "pos" and the next entry after it is due at "next_due". */
extern void retry_lane_advance(RetryLanes *lanes, RetrySide *side, const RetryPos *pos,
							   TimestampTz next_due);

/*
 * The same, while a leaf is locked: what the other leaves have has been taken
 * up to "pos", and the cursor stays where it is until all can be read.  The
 * side is looked at again at "next_due", which says nothing of the locked leaf.
 */
extern void retry_lane_go_ahead(RetryLanes *lanes, RetrySide *side, const RetryPos *pos,
								TimestampTz next_due);

/*
 * An ordered lane waits for what lies just after "head"; for nothing when that
 * is before the cursor of its first attempts.
 */
extern void retry_lane_wait_behind(RetryLanes *lanes, RetryLane *lane, const RetryPos *head);

/*
 * Does something lie before what an ordered lane waits for?  It was committed
 * late, or by a clock that was behind, and nothing but the cursor tells of it.
 */
extern bool retry_lane_early(const RetryLane *lane);

/* True when the task is queued or sent and not recorded. */
extern bool retry_lanes_holds(const RetryLanes *lanes, const pg_uuid_t *id);

/* A queued task is dropped when its turn comes; a sent one is not touched. */
extern void retry_lanes_cancel(RetryLanes *lanes, const pg_uuid_t *id);

/*
 * Somebody asked for a task that is held: when it is queued as a retry after as
 * many attempts as it had then, it goes over to the side of what was asked for,
 * and has the place of that request, from which it would be read again.  Looks
 * at the lane's queue one by one.
 */
extern void retry_lane_promote(RetryLanes *lanes, RetryLane *lane, const RetryEntry *asked);

/*
 * The next entry to send; false when nothing may be sent now.  High lanes come
 * first, then whoever has least under way for its weight, then whoever waited
 * longest.  The entry counts as in flight and sent, and the lane's flow is told
 * of the start.
 */
extern bool retry_lanes_take(RetryLanes *lanes, int64 now_us, RetryLane **lane, RetryEntry *entry);

/*
 * The transfer of an entry that was taken has ended, or will not be made: its
 * lane may send another.  "end" says what it means to the lane's flow, which is
 * told, with the number in flight, and asked again.  Says what the flow says.
 */
extern RetryBreakerNews retry_lane_transfer_ended(RetryLanes *lanes, RetryLane *lane,
												  const RetryFlowEnd *end, int64 now_us);

/*
 * Gives an entry that was taken back, to the head of its queue, and lets the
 * lane send nothing before "until_us": what it needs does not work now.  Who
 * learns earlier that it works again unblocks it.  That its transfer has ended
 * is said as for any other.
 */
extern void retry_lane_block(RetryLanes *lanes, RetryLane *lane, const RetryEntry *entry,
							 RetryGate why, int64 until_us);

/* Lets it send, if it is blocked, and asks its gates again: something has changed. */
extern void retry_lane_unblock(RetryLanes *lanes, RetryLane *lane);

/* A lane that is blocked for this reason is so until this moment, if that is earlier. */
extern void retry_lane_block_until(RetryLanes *lanes, RetryLane *lane, RetryGate why, int64 until_us);
extern void retry_lanes_unblock_all(RetryLanes *lanes);

/* Unblocks the lanes whose moment has come, and asks the gates whose has. */
extern void retry_lanes_unblock_due(RetryLanes *lanes, int64 now_us);

/* When retry_lanes_unblock_due may have something to do; PG_INT64_MAX: never by itself. */
extern int64 retry_lanes_next_unblock(const RetryLanes *lanes);

/*
 * Why the lane sends nothing from a side just now, as far as it was asked, and
 * until when; RETRY_GATE_OPEN, when nothing but its turn is in the way.
 */
extern RetryGate retry_lane_gate(const RetryLane *lane, RetrySideName side, int64 *until_us);

/* The attempt of a sent entry is recorded (or will never be made). */
extern void retry_lane_forget_sent(RetryLanes *lanes, RetryLane *lane, const pg_uuid_t *id);

/* Empties the lane's queues; what was in them is read again. */
extern void retry_lane_unqueue(RetryLanes *lanes, RetryLane *lane);

/*
 * The side with the earliest unread entry that is due and has room, high lanes
 * first; NULL: none.
 */
extern RetrySide *retry_lanes_due(RetryLanes *lanes, TimestampTz now);

/* When retry_lanes_due will next find one; DT_NOEND: never by itself. */
extern TimestampTz retry_lanes_next_due(RetryLanes *lanes);

/* Counts for people. */
extern int32 retry_lanes_count(const RetryLanes *lanes);
extern int32 retry_lanes_dormant(const RetryLanes *lanes);
extern int32 retry_lanes_queued(const RetryLanes *lanes);
extern int32 retry_lanes_in_flight(const RetryLanes *lanes);

/* Calls "visit" for each lane that is not dormant; it may not make or drop lanes. */
extern void retry_lanes_each(RetryLanes *lanes, void (*visit) (RetryLane *lane, void *arg), void *arg);

/* The same for those that are, with the earliest entry that they have. */
extern void retry_lanes_each_dormant(const RetryLanes *lanes,
									 void (*visit) (int64 hash, TimestampTz due, void *arg), void *arg);

/* The flows that those have that are dormant. */
extern void retry_lanes_each_dormant_flow(const RetryLanes *lanes,
										  void (*visit) (int64 hash, RetryFlow *flow, void *arg), void *arg);

/* Something of any lane may be due from then on: all read again. */
extern void retry_lanes_note_all(RetryLanes *lanes, TimestampTz due);

/*
 * The earliest entry of the lane that is queued or unread; DT_NOEND when there
 * is none.  What was sent and is not recorded is for the caller to add.
 */
extern TimestampTz retry_lane_oldest(const RetryLane *lane);

/* Order of places, and the place just before another. */
extern int	retry_pos_compare(const RetryPos *a, const RetryPos *b);
extern RetryPos retry_pos_before(const RetryPos *pos);

#endif							/* RETRY_LANE_H */
