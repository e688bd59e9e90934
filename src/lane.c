/*
 * lane.c
 *		Which lanes are in a dispatcher's memory, and how far each was read.
 *
 * A hash finds a lane.  Lanes that have nothing queued and nothing under way
 * may be forgotten when there are too many, the one that has been idle longest
 * first; the horizon then says from when on something of a forgotten lane may
 * be due, so that a sweep brings it back in time.
 *
 * What a lane has queued is in lane_queue.c, whose turn it is in lane_ring.c.
 */
#include "postgres.h"

#include "common/hashfn.h"
#ifdef FRONTEND
#include "common/logging.h"
#endif
#include "lane_private.h"

typedef struct LaneEntry
{
	int64		hash;
	RetryLane  *lane;
	char		status;
} LaneEntry;

#ifdef FRONTEND
#define SH_RAW_ALLOCATOR palloc0
#endif
#define SH_PREFIX lanehash
#define SH_ELEMENT_TYPE LaneEntry
#define SH_KEY_TYPE int64
#define SH_KEY hash
#define SH_HASH_KEY(tb, key) ((uint32) ((uint64) (key) ^ ((uint64) (key) >> 32)))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Places */

int
retry_pos_compare(const RetryPos *a, const RetryPos *b)
{
	if (a->due != b->due)
		return a->due < b->due ? -1 : 1;
	return memcmp(a->id.data, b->id.data, UUID_LEN);
}

RetryPos
retry_pos_before(const RetryPos *pos)
{
	RetryPos	result = *pos;
	int			i = UUID_LEN - 1;

	while (i >= 0 && result.id.data[i] == 0)
		result.id.data[i--] = 0xFF;
	if (i >= 0)
		result.id.data[i]--;
	else if (result.due > DT_NOBEGIN)
		result.due--;
	return result;
}

/* Where a lane belongs */

static bool
is_idle(const RetryLane *lane)
{
	for (int i = 0; i < RETRY_SIDES; i++)
	{
		if (lane->side[i].queued > 0 || lane->side[i].is_ahead)
			return false;
	}
	return lane->in_flight == 0;
}

void
retry_lane_update(RetryLanes *lanes, RetryLane *lane)
{
	bool		idle = is_idle(lane);

	for (int i = 0; i < RETRY_SIDES; i++)
		retry_side_update(lanes, &lane->side[i]);
	retry_ring_update(lanes, lane);
	if (idle != lane->idle)
	{
		if (idle)
			dlist_push_tail(&lanes->idle, &lane->idle_node);
		else
			dlist_delete(&lane->idle_node);
		lane->idle = idle;
	}
	if (lane->high != lane->in_high)
	{
		if (lane->high)
			dlist_push_tail(&lanes->high, &lane->high_node);
		else
			dlist_delete(&lane->high_node);
		lane->in_high = lane->high;
	}
}

/* Limits and rules */

RetryLanes *
retry_lanes_create(const RetryLaneLimits *limits, TimestampTz horizon)
{
	RetryLanes *lanes = palloc0(sizeof(RetryLanes));

	lanes->limits = *limits;
	lanes->horizon = horizon;
#ifdef FRONTEND
	lanes->by_hash = lanehash_create(64, NULL);
#else
	lanes->context = CurrentMemoryContext;
	lanes->by_hash = lanehash_create(lanes->context, 64, NULL);
#endif
	dlist_init(&lanes->idle);
	dlist_init(&lanes->high);
	retry_queues_init(lanes);
	retry_rings_init(lanes);
	return lanes;
}

void
retry_lanes_set_limits(RetryLanes *lanes, const RetryLaneLimits *limits)
{
	lanehash_iterator it;
	LaneEntry  *entry;

	lanes->limits = *limits;
	lanehash_start_iterate(lanes->by_hash, &it);
	while ((entry = lanehash_iterate(lanes->by_hash, &it)) != NULL)
		retry_lane_update(lanes, entry->lane);
}

void
retry_lane_set_limit(RetryLanes *lanes, RetryLane *lane, int32 limit)
{
	if (lane->limit != limit)
	{
		lane->limit = limit;
		retry_lane_update(lanes, lane);
	}
}

void
retry_lane_set_cap(RetryLanes *lanes, RetryLane *lane, int32 cap)
{
	if (lane->cap != cap)
	{
		lane->cap = cap;
		retry_lane_update(lanes, lane);
	}
}

void
retry_lane_set_rules(RetryLanes *lanes, RetryLane *lane, const RetryFlowRules *rules)
{
	int16		weight = Max(1, rules->weight);

	if (lane->limit == rules->max_in_flight && lane->weight == weight && lane->high == rules->high)
		return;
	retry_ring_forget(lanes, lane);
	for (int i = 0; i < RETRY_SIDES; i++)
		retry_side_unlist(lanes, &lane->side[i]);
	lane->limit = rules->max_in_flight;
	lane->weight = weight;
	lane->high = rules->high;
	retry_lane_update(lanes, lane);
}

void
retry_lane_stop(RetryLanes *lanes, RetryLane *lane, bool stop)
{
	if (lane->stopped != stop)
	{
		lane->stopped = stop;
		retry_lane_update(lanes, lane);
	}
}

void
retry_lane_pause(RetryLanes *lanes, RetryLane *lane, bool pause)
{
	if (lane->paused != pause)
	{
		lane->paused = pause;
		retry_lane_update(lanes, lane);
	}
}

RetryFlow *
retry_lane_flow(RetryLanes *lanes, RetryLane *lane)
{
	if (lane->flow == NULL)
	{
		RetryFlow  *flow = lanes_alloc(lanes, sizeof(RetryFlow));

		memset(flow, 0, sizeof(RetryFlow));
		lane->flow = flow;
	}
	return lane->flow;
}

/* The horizon: from when on a lane that is not in memory may have something untaken. */

TimestampTz
retry_lanes_horizon(const RetryLanes *lanes)
{
	return lanes->sweeping ? Min(lanes->horizon, lanes->sweep_horizon) : lanes->horizon;
}

void
retry_lanes_lower_horizon(RetryLanes *lanes, TimestampTz due)
{
	lanes->horizon = Min(retry_lanes_horizon(lanes), due);
	lanes->sweeping = false;
}

static void
lower_horizon(RetryLanes *lanes, TimestampTz due)
{
	if (lanes->sweeping)
		lanes->sweep_horizon = Min(lanes->sweep_horizon, due);
	else
		lanes->horizon = Min(lanes->horizon, due);
}

void
retry_lanes_sweep_begin(RetryLanes *lanes)
{
	lanes->sweeping = true;
	lanes->sweep_horizon = DT_NOEND;
}

void
retry_lanes_sweep_saw(RetryLanes *lanes, TimestampTz due)
{
	lower_horizon(lanes, due);
}

void
retry_lanes_sweep_end(RetryLanes *lanes)
{
	lanes->sweeping = false;
	lanes->horizon = lanes->sweep_horizon;
}

/* Lanes */

static TimestampTz
next_due_of(const RetryLane *lane)
{
	return Min(lane->side[RETRY_SIDE_FIRST].next_due, lane->side[RETRY_SIDE_RETRY].next_due);
}

RetryLane *
retry_lanes_find(RetryLanes *lanes, int64 hash)
{
	LaneEntry  *entry = lanehash_lookup(lanes->by_hash, hash);

	return entry != NULL ? entry->lane : NULL;
}

void
retry_lanes_drop(RetryLanes *lanes, RetryLane *lane)
{
	for (int i = 0; i < RETRY_SIDES; i++)
		retry_side_forget(lanes, &lane->side[i]);
	retry_ring_forget(lanes, lane);
	if (lane->idle)
		dlist_delete(&lane->idle_node);
	if (lane->in_high)
		dlist_delete(&lane->high_node);
	lanes->in_flight -= lane->in_flight;
	lanehash_delete(lanes->by_hash, lane->hash);
	if (lane->flow != NULL)
	{
		retry_flow_clear(lane->flow);
		pfree(lane->flow);
	}
	if (lane->name != NULL)
		pfree(lane->name);
	pfree(lane);
}

static inline bool
is_full(const RetryLanes *lanes)
{
	return lanes->by_hash->members >= lanes->limits.max_lanes;
}

/* The lane to forget for another; NULL when the next one waits to be read. */
static RetryLane *
find_victim(const RetryLanes *lanes, TimestampTz now)
{
	dlist_head *idle = unconstify(dlist_head *, &lanes->idle);
	RetryLane  *victim;

	if (dlist_is_empty(idle))
		return NULL;
	victim = dlist_head_element(RetryLane, idle_node, idle);
	return next_due_of(victim) > now ? victim : NULL;
}

bool
retry_lanes_has_place(const RetryLanes *lanes, TimestampTz now)
{
	return !is_full(lanes) || find_victim(lanes, now) != NULL;
}

RetryLane *
retry_lanes_get(RetryLanes *lanes, int64 hash, TimestampTz due, TimestampTz now)
{
	RetryLane  *lane = retry_lanes_find(lanes, hash);
	TimestampTz horizon;
	LaneEntry  *entry;
	bool		found;

	if (lane != NULL)
		return lane;

	if (is_full(lanes))
	{
		RetryLane  *victim = find_victim(lanes, now);

		if (victim == NULL)
		{
			/* the newcomer is found later */
			lower_horizon(lanes, due);
			return NULL;
		}
		lower_horizon(lanes, next_due_of(victim));
		retry_lanes_drop(lanes, victim);
	}

	lane = lanes_alloc(lanes, sizeof(RetryLane));
	memset(lane, 0, sizeof(RetryLane));
	lane->hash = hash;
	lane->weight = 1;
	horizon = retry_lanes_horizon(lanes);	/* untaken entries from there on */
	for (int i = 0; i < RETRY_SIDES; i++)
	{
		RetrySide  *side = &lane->side[i];

		retry_side_init(side, i);
		side->next_due = horizon;
		side->cursor.due = Min(horizon, now);
		side->cursor = retry_pos_before(&side->cursor);
	}
	retry_ring_init(lane);
	entry = lanehash_insert(lanes->by_hash, hash, &found);
	entry->lane = lane;
	retry_lane_update(lanes, lane);
	return lane;
}

/* How far they were read */

static void
set_next_due(RetryLanes *lanes, RetrySide *side, TimestampTz due)
{
	side->next_due = due;
	retry_side_update(lanes, side);
}

void
retry_lane_note(RetryLanes *lanes, RetrySide *side, const RetryPos *pos)
{
	if (retry_pos_compare(pos, &side->cursor) <= 0)
		side->cursor = retry_pos_before(pos);
	if (side->is_ahead && retry_pos_compare(pos, &side->ahead) <= 0)
		side->ahead = retry_pos_before(pos);
	if (pos->due < side->next_due)
		set_next_due(lanes, side, pos->due);
}

void
retry_lane_note_both(RetryLanes *lanes, RetryLane *lane, TimestampTz due)
{
	RetryPos	pos = {.due = due};

	for (int i = 0; i < RETRY_SIDES; i++)
		retry_lane_note(lanes, &lane->side[i], &pos);
}

void
retry_lanes_note_high(RetryLanes *lanes, TimestampTz due)
{
	dlist_iter	it;

	dlist_foreach(it, &lanes->high)
	{
		RetryPos	pos = {.due = due};

		retry_lane_note(lanes, &dlist_container(RetryLane, high_node, it.cur)->side[RETRY_SIDE_FIRST],
						&pos);
	}
}

void
retry_lane_advance(RetryLanes *lanes, RetrySide *side, const RetryPos *pos, TimestampTz next_due)
{
	bool		was_ahead = side->is_ahead;

	side->cursor = *pos;
	side->is_ahead = false;
	set_next_due(lanes, side, next_due);
	if (was_ahead)
		retry_lane_update(lanes, retry_side_lane(side));
}

void
retry_lane_go_ahead(RetryLanes *lanes, RetrySide *side, const RetryPos *pos, TimestampTz next_due)
{
	side->ahead = *pos;
	side->is_ahead = true;
	set_next_due(lanes, side, next_due);
	retry_lane_update(lanes, retry_side_lane(side));
}

void
retry_lanes_restart(RetryLanes *lanes)
{
	lanehash_iterator it;
	LaneEntry  *entry;
	RetryPos	beginning;

	memset(&beginning, 0, sizeof(beginning));
	beginning.due = DT_NOBEGIN;
	lanehash_start_iterate(lanes->by_hash, &it);
	while ((entry = lanehash_iterate(lanes->by_hash, &it)) != NULL)
	{
		for (int i = 0; i < RETRY_SIDES; i++)
			retry_lane_advance(lanes, &entry->lane->side[i], &beginning, DT_NOBEGIN);
	}
	lanes->sweeping = false;
	lanes->horizon = DT_NOBEGIN;
}

TimestampTz
retry_lane_oldest(const RetryLane *lane)
{
	TimestampTz oldest = DT_NOEND;

	for (int i = 0; i < RETRY_SIDES; i++)
	{
		const RetrySide *side = &lane->side[i];

		oldest = Min(oldest, side->next_due);
		if (side->is_ahead)
			oldest = Min(oldest, side->cursor.due);
		for (int32 j = 0; j < side->queued; j++)
			oldest = Min(oldest, side->queue[(side->queue_head + j) % side->queue_size].pos.due);
	}
	return oldest;
}

int32
retry_lanes_count(const RetryLanes *lanes)
{
	return lanes->by_hash->members;
}

void
retry_lanes_each(RetryLanes *lanes, void (*visit) (RetryLane *lane, void *arg), void *arg)
{
	lanehash_iterator it;
	LaneEntry  *entry;

	lanehash_start_iterate(lanes->by_hash, &it);
	while ((entry = lanehash_iterate(lanes->by_hash, &it)) != NULL)
		visit(entry->lane, arg);
}
