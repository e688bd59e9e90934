/*
 * lane_ring.c
 *		Whose turn it is to send, and who waits for what.
 *
 * Lanes that may send are in a ring, which is a heap, for each class: whoever
 * has least under way for its weight is first, and among those the one whose
 * last turn was longest ago.  Lanes whose scene lets them have all transfers are
 * in one of their own, as they may go on when the first of the others may not.
 * A lane that has some under way gets no more than its weight times what is
 * free, and nothing of the last eighth: so a lane whose endpoint hangs leaves
 * half to the others, and ten of them still leave some.  However many hang,
 * and be it with one transfer each, they get half of all together: a lane that
 * hangs is known by a call that has failed after a while, until one ends well
 * or soon.
 *
 * Before an entry is taken, the flow of its lane is asked.  A lane that may not
 * send leaves the heap and costs nothing until its moment, which is in another.
 */
#include "postgres.h"

#ifdef FRONTEND
#include "common/logging.h"
#endif
#include "lane_private.h"

#define LOAD_UNIT	INT64CONST(1000000) /* one transfer, with a weight of 1 */

/* A call that fails in less has not held up anybody. */
#define HANGS_US	USECS_PER_SEC

void
retry_rings_init(RetryLanes *lanes)
{
	for (int i = 0; i < RINGS; i++)
		retry_heap_init(&lanes->ready[i]);
	retry_heap_init(&lanes->wake);
}

void
retry_ring_init(RetryLane *lane)
{
	retry_heap_node_init(&lane->ready_node);
	retry_heap_node_init(&lane->wake_node);
}

void
retry_ring_forget(RetryLanes *lanes, RetryLane *lane)
{
	retry_heap_remove(&lanes->ready[lane->ring], &lane->ready_node);
	retry_heap_remove(&lanes->wake, &lane->wake_node);
}

int64
retry_ring_moment(const RetryLane *lane)
{
	int64		moment = lane->blocked ? lane->blocked_until_us : PG_INT64_MAX;

	for (int i = 0; i < RETRY_SIDES; i++)
	{
		if (lane->side[i].gate != RETRY_GATE_OPEN)
			moment = Min(moment, lane->side[i].shut_until_us);
	}
	return moment;
}

bool
retry_ring_closed(const RetryLane *lane)
{
	if (lane->blocked || lane->paused)
		return true;
	for (int i = 0; i < RETRY_SIDES; i++)
	{
		if (lane->side[i].queued > 0 && lane->side[i].gate == RETRY_GATE_OPEN)
			return false;
	}
	return true;
}

static bool
is_ready(const RetryLanes *lanes, const RetryLane *lane)
{
	return !lane->stopped && lane->in_flight < lane_limit_now(lanes, lane) && !retry_ring_closed(lane);
}

static uint8
ring_of(const RetryLanes *lanes, const RetryLane *lane)
{
	int			kind = RING_SOME;

	if (lane->hangs)
		kind = RING_HANGING;
	else if (lane->limit >= lanes->limits.max_in_flight)
		kind = RING_ALL;
	return lane_class(lane) * RING_KINDS + kind;
}

void
retry_ring_update(RetryLanes *lanes, RetryLane *lane)
{
	uint8		ring = ring_of(lanes, lane);
	bool		ready = is_ready(lanes, lane);
	int64		load = lane->in_flight * LOAD_UNIT / lane->weight;
	int64		moment = retry_ring_moment(lane);

	if (!ready || ring != lane->ring)
		retry_heap_remove(&lanes->ready[lane->ring], &lane->ready_node);
	lane->ring = ring;
	if (ready)
	{
		/* who comes back has no claim to the turns it was away */
		if (!retry_heap_has(&lane->ready_node))
			lane->turn = Max(lane->turn, lanes->turn);
		if (!retry_heap_has(&lane->ready_node) || lane->ready_node.key != load ||
			lane->ready_node.tie != lane->turn)
			retry_heap_put(&lanes->ready[ring], &lane->ready_node, load, lane->turn);
	}
	if (moment == PG_INT64_MAX)
		retry_heap_remove(&lanes->wake, &lane->wake_node);
	else if (!retry_heap_has(&lane->wake_node) || lane->wake_node.key != moment)
		retry_heap_put(&lanes->wake, &lane->wake_node, moment, 0);
}

static int32
count_ready(const RetryLanes *lanes)
{
	int32		n = 0;

	for (int i = 0; i < RINGS; i++)
		n += lanes->ready[i].len;
	return n;
}

/* May the lane, which is the first of its ring, have one more of what is free? */
static bool
has_share(const RetryLanes *lanes, const RetryLane *lane)
{
	int32		most = lanes->limits.max_in_flight;
	int32		free = most - lanes->in_flight;
	bool		scarce = free <= most / 8;

	if (lane->hangs && lanes->hanging >= Max(most / 2, 1))
		return false;
	/* a lane that may have all transfers may have the last ones too */
	if (lane->in_flight == 0 || lane->limit >= most)
		return true;
	if (lane->in_flight == lanes->in_flight && count_ready(lanes) == 1)
		return !scarce || lane_limit(lanes, lane) >= most;
	return !scarce && (lane->high || lane->in_flight < (int64) lane->weight * free);
}

/* Takes the entry that is due first of those that the gates let pass. */
static bool
take_from(RetryLanes *lanes, RetryLane *lane, int64 now_us, RetryEntry *entry)
{
	RetrySide  *first = &lane->side[RETRY_SIDE_FIRST];
	RetrySide  *other = &lane->side[RETRY_SIDE_RETRY];
	RetrySide  *order[RETRY_SIDES] = {first, other};

	if (retry_side_has(lanes, first) && retry_side_has(lanes, other) &&
		retry_pos_compare(&other->queue[other->queue_head].pos, &first->queue[first->queue_head].pos) < 0)
	{
		order[0] = other;
		order[1] = first;
	}
	for (int i = 0; i < RETRY_SIDES; i++)
	{
		RetrySide  *side = order[i];
		bool		retry = side->which == RETRY_SIDE_RETRY;

		if (side->gate != RETRY_GATE_OPEN || !retry_side_has(lanes, side))
			continue;
		if (lane->flow != NULL)
		{
			side->gate = retry_flow_gate(lane->flow, retry, now_us, &side->shut_until_us);
			if (side->gate != RETRY_GATE_OPEN)
			{
				if (side->shut_until_us - RETRY_LANE_LONG_US >= now_us)
					retry_side_give_up(lanes, side);
				continue;
			}
			retry_flow_started(lane->flow, retry, now_us);
		}
		return retry_side_pop(lanes, side, entry);
	}
	return false;
}

/* The lane whose turn it is in a class, NULL: none may send. */
static RetryLane *
next_of(RetryLanes *lanes, int class)
{
	RetryHeapNode *next = NULL;

	for (int kind = 0; kind < RING_KINDS; kind++)
	{
		RetryHeapNode *first = retry_heap_first(&lanes->ready[class * RING_KINDS + kind]);

		if (first != NULL && (next == NULL || retry_heap_before(first, next)) &&
			has_share(lanes, retry_heap_container(RetryLane, ready_node, first)))
			next = first;
	}
	return next != NULL ? retry_heap_container(RetryLane, ready_node, next) : NULL;
}

/* The lane has so many more under way, or fewer. */
static void
add_in_flight(RetryLanes *lanes, RetryLane *lane, int32 n)
{
	lane->in_flight += n;
	lanes->in_flight += n;
	if (lane->hangs)
		lanes->hanging += n;
}

bool
retry_lanes_take(RetryLanes *lanes, int64 now_us, RetryLane **taken, RetryEntry *entry)
{
	lanes->now_us = now_us;
	if (lanes->in_flight >= lanes->limits.max_in_flight)
		return false;
	for (;;)
	{
		RetryLane  *lane = next_of(lanes, CLASS_HIGH);
		bool		found;

		if (lane == NULL)
			lane = next_of(lanes, CLASS_NORMAL);
		if (lane == NULL)
			return false;
		found = take_from(lanes, lane, now_us, entry);
		if (found)
		{
			add_in_flight(lanes, lane, 1);
			lane->unrecorded++;
			lanes->turn = Max(lanes->turn, lane->turn);
			lane->turn += LOAD_UNIT / lane->weight;
		}
		retry_lane_update(lanes, lane);
		*taken = lane;
		if (found)
			return true;
	}
}

bool
retry_lane_take_more(RetryLanes *lanes, RetryLane *lane)
{
	if (lane->blocked || lane->paused || lane->stopped ||
		lane->in_flight >= lane_limit_now(lanes, lane) ||
		lanes->in_flight >= lanes->limits.max_in_flight)
		return false;
	add_in_flight(lanes, lane, 1);
	retry_lane_update(lanes, lane);
	return true;
}

void
retry_lane_more_ended(RetryLanes *lanes, RetryLane *lane)
{
	add_in_flight(lanes, lane, -1);
	retry_lane_update(lanes, lane);
}

static void
open_gates(RetryLane *lane)
{
	for (int i = 0; i < RETRY_SIDES; i++)
		lane->side[i].gate = RETRY_GATE_OPEN;
}

/* What the end of a transfer says of whether the lane hangs. */
static void
note_hanging(RetryLanes *lanes, RetryLane *lane, const RetryFlowEnd *end)
{
	bool		hangs = end->measured == RETRY_FLOW_FAILED && end->latency_us >= HANGS_US;

	if (end->unsent || end->measured == RETRY_FLOW_NEUTRAL || hangs == lane->hangs)
		return;
	lane->hangs = hangs;
	lanes->hanging += hangs ? lane->in_flight : -lane->in_flight;
}

RetryBreakerNews
retry_lane_transfer_ended(RetryLanes *lanes, RetryLane *lane, const RetryFlowEnd *end, int64 now_us)
{
	RetryFlowEnd told = *end;
	RetryBreakerNews news;

	told.in_flight = lane->in_flight;
	news = retry_flow_ended(lane->flow, &told, now_us);
	if (lane->gauge != NULL)
	{
		retry_gauge_ended(lane->gauge, &told, lane_limit(lanes, lane), now_us);
		if (lane->found > 0)
			lane->found = retry_adaptive_limit(&lane->gauge->adaptive, lane_limit(lanes, lane));
	}
	add_in_flight(lanes, lane, -1);
	note_hanging(lanes, lane, end);
	open_gates(lane);
	retry_lane_update(lanes, lane);
	return news;
}

void
retry_lane_block(RetryLanes *lanes, RetryLane *lane, const RetryEntry *entry, RetryGate why,
				 int64 until_us)
{
	retry_side_unpop(lanes, &lane->side[entry->side], entry);
	lane->unrecorded--;
	lane->blocked = true;
	lane->blocked_why = why;
	lane->blocked_until_us = until_us;
	for (int i = 0; i < RETRY_SIDES && until_us - RETRY_LANE_LONG_US >= lanes->now_us; i++)
		retry_side_give_up(lanes, &lane->side[i]);
	retry_lane_update(lanes, lane);
}

void
retry_lane_unblock(RetryLanes *lanes, RetryLane *lane)
{
	lane->blocked = false;
	open_gates(lane);
	retry_lane_update(lanes, lane);
}

void
retry_lane_block_until(RetryLanes *lanes, RetryLane *lane, RetryGate why, int64 until_us)
{
	if (!lane->blocked || lane->blocked_why != why)
		return;
	lane->blocked_until_us = Min(lane->blocked_until_us, until_us);
	retry_lane_update(lanes, lane);
}

static void
unblock(RetryLane *lane, void *arg)
{
	retry_lane_unblock(arg, lane);
}

void
retry_lanes_unblock_all(RetryLanes *lanes)
{
	retry_lanes_each(lanes, unblock, lanes);
	retry_dormant_wake_all(lanes);
}

void
retry_lanes_unblock_due(RetryLanes *lanes, int64 now_us)
{
	RetryHeapNode *node;

	lanes->now_us = now_us;
	while ((node = retry_heap_first(&lanes->wake)) != NULL && node->key <= now_us)
	{
		RetryLane  *lane = retry_heap_container(RetryLane, wake_node, node);

		if (lane->blocked && lane->blocked_until_us <= now_us)
			lane->blocked = false;
		for (int i = 0; i < RETRY_SIDES; i++)
		{
			if (lane->side[i].shut_until_us <= now_us)
				lane->side[i].gate = RETRY_GATE_OPEN;
		}
		retry_lane_update(lanes, lane);
	}
	retry_dormant_wake_due(lanes);
}

int64
retry_lanes_next_unblock(const RetryLanes *lanes)
{
	RetryHeapNode *node = retry_heap_first(&lanes->wake);
	int64		dormant = retry_dormant_next(lanes);

	return node != NULL ? Min(node->key, dormant) : dormant;
}

RetryGate
retry_lane_gate(const RetryLane *lane, RetrySideName side, int64 *until_us)
{
	*until_us = PG_INT64_MAX;
	if (lane->paused)
		return RETRY_GATE_PAUSED;
	if (lane->blocked)
	{
		*until_us = lane->blocked_until_us;
		return lane->blocked_why;
	}
	*until_us = lane->side[side].shut_until_us;
	return lane->side[side].gate;
}

int32
retry_lanes_in_flight(const RetryLanes *lanes)
{
	return lanes->in_flight;
}
