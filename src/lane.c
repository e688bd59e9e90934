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

enum
{
	REST_NONE,
	REST_IDLE,					/* nothing queued: it may be forgotten */
	REST_CLOSED					/* it may become dormant */
};

static uint8
rest_of(const RetryLane *lane)
{
	bool		queued = false;

	for (int i = 0; i < RETRY_SIDES; i++)
	{
		if (lane->side[i].is_ahead)
			return REST_NONE;
		queued |= lane->side[i].queued > 0;
	}
	if (lane->in_flight > 0 || lane->unrecorded > 0)
		return REST_NONE;
	if (lane->paused)
		return REST_CLOSED;		/* whether it has anything is not known */
	if (!queued)
		return retry_lane_early(lane) ? REST_CLOSED : REST_IDLE;
	return retry_ring_closed(lane) ? REST_CLOSED : REST_NONE;
}

void
retry_lane_update(RetryLanes *lanes, RetryLane *lane)
{
	uint8		rest;

	for (int i = 0; i < RETRY_SIDES; i++)
		retry_side_update(lanes, &lane->side[i]);
	retry_ring_update(lanes, lane);
	rest = rest_of(lane);
	if (rest != lane->rest)
	{
		if (lane->rest != REST_NONE)
			dlist_delete(&lane->rest_node);
		if (rest != REST_NONE)
			dlist_push_tail(rest == REST_IDLE ? &lanes->idle : &lanes->closed, &lane->rest_node);
		lane->rest = rest;
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
	dlist_init(&lanes->changed);
	retry_queues_init(lanes);
	retry_rings_init(lanes);
	retry_dormant_init(lanes);
	return lanes;
}

void
retry_lanes_set_hooks(RetryLanes *lanes, const RetryLaneHooks *hooks)
{
	lanes->hooks = *hooks;
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
retry_lane_set_cap(RetryLanes *lanes, RetryLane *lane, int32 cap)
{
	if (lane->cap != cap)
	{
		lane->cap = cap;
		retry_lane_update(lanes, lane);
	}
}

/* What is measured for those rules; returns what the endpoint was found to take. */
static int32
follow_gauge(RetryLanes *lanes, RetryLane *lane, const RetryFlowRules *rules)
{
	if (lane->gauge == NULL && (rules->adaptive || rules->hedge))
	{
		RetryGauge *gauge = lanes_alloc(lanes, sizeof(RetryGauge));

		memset(gauge, 0, sizeof(RetryGauge));
		lane->gauge = gauge;
	}
	return rules->adaptive ? retry_adaptive_limit(&lane->gauge->adaptive, PG_INT32_MAX) : 0;
}

void
retry_lane_set_rules(RetryLanes *lanes, RetryLane *lane, const RetryFlowRules *rules)
{
	int16		weight = Max(1, rules->weight);
	int32		found = follow_gauge(lanes, lane, rules);

	if (lane->found != found)
	{
		lane->found = found;
		retry_lane_update(lanes, lane);
	}
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

static bool
is_of_slots(int64 hash, uint64 slots)
{
	return (slots & (UINT64CONST(1) << RETRY_SLOT(hash))) != 0;
}

void
retry_lanes_stop(RetryLanes *lanes, uint64 slots)
{
	lanehash_iterator it;
	LaneEntry  *entry;

	lanes->stopped = slots;
	lanehash_start_iterate(lanes->by_hash, &it);
	while ((entry = lanehash_iterate(lanes->by_hash, &it)) != NULL)
	{
		entry->lane->stopped = is_of_slots(entry->hash, slots);
		retry_lane_update(lanes, entry->lane);
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
	if (lane->rest != REST_NONE)
		dlist_delete(&lane->rest_node);
	if (lane->in_high)
		dlist_delete(&lane->high_node);
	if (lane->changed)
		dlist_delete(&lane->changed_node);
	if (lanes->hooks.dropped != NULL)
		lanes->hooks.dropped(lane, lanes->hooks.arg);
	lanes->in_flight -= lane->in_flight;
	lanehash_delete(lanes->by_hash, lane->hash);
	if (lane->flow != NULL)
		pfree(lane->flow);
	if (lane->name != NULL)
		pfree(lane->name);
	if (lane->gauge != NULL)
		pfree(lane->gauge);
	pfree(lane);
}

void
retry_lanes_drop_slots(RetryLanes *lanes, uint64 slots)
{
	lanehash_iterator it;
	LaneEntry  *entry;

	lanehash_start_iterate(lanes->by_hash, &it);
	while ((entry = lanehash_iterate(lanes->by_hash, &it)) != NULL)
	{
		if (is_of_slots(entry->hash, slots))
			retry_lanes_drop(lanes, entry->lane);
	}
	retry_dormant_forget_slots(lanes, slots);
}

static inline bool
is_full(const RetryLanes *lanes)
{
	return lanes->by_hash->members >= lanes->limits.max_lanes;
}

/* The idle lane to forget for another; NULL when the next one waits to be read. */
static RetryLane *
find_victim(const RetryLanes *lanes, TimestampTz now)
{
	dlist_head *idle = unconstify(dlist_head *, &lanes->idle);
	RetryLane  *victim;

	if (dlist_is_empty(idle))
		return NULL;
	victim = dlist_head_element(RetryLane, rest_node, idle);
	return lane_next_due(victim) > now ? victim : NULL;
}

bool
retry_lanes_has_place(RetryLanes *lanes, TimestampTz now)
{
	if (retry_dormant_may_wait(lanes))
		return true;
	return !retry_dormant_waiting(lanes) &&
		(!is_full(lanes) || find_victim(lanes, now) != NULL);
}

/* One lane gives up its place for another; false when none can. */
static bool
evict(RetryLanes *lanes, TimestampTz now)
{
	RetryLane  *victim = find_victim(lanes, now);

	if (victim != NULL)
	{
		TimestampTz due = lane_next_due(victim);

		if (!retry_dormant_keep(lanes, victim))
		{
			lower_horizon(lanes, due);
			retry_lanes_drop(lanes, victim);
		}
		return true;
	}
	victim = retry_dormant_candidate(lanes);
	if (victim == NULL)
		return false;
	retry_dormant_close(lanes, victim);
	return true;
}

/* Makes a place for one more lane; false when none can be made. */
static bool
make_place(RetryLanes *lanes, TimestampTz now)
{
	if (is_full(lanes) && !evict(lanes, now))
		return false;
	/* when the limit was lowered, one more each time */
	if (is_full(lanes))
		(void) evict(lanes, now);
	return true;
}

/* A lane for which there is a place; the flow is its own from now on. */
static RetryLane *
add_lane(RetryLanes *lanes, int64 hash, TimestampTz due, TimestampTz now, RetryFlow *flow,
		 bool paused)
{
	RetryLane  *lane = lanes_alloc(lanes, sizeof(RetryLane));
	bool		found;

	memset(lane, 0, sizeof(RetryLane));
	lane->hash = hash;
	lane->read_from = DT_NOEND;
	lane->weight = 1;
	lane->flow = flow;
	lane->paused = paused;
	lane->stopped = is_of_slots(hash, lanes->stopped);
	for (int i = 0; i < RETRY_SIDES; i++)
	{
		RetrySide  *side = &lane->side[i];

		retry_side_init(side, i);
		side->next_due = due;
		side->cursor.due = Min(due, now);
		side->cursor = retry_pos_before(&side->cursor);
	}
	retry_ring_init(lane);
	lanehash_insert(lanes->by_hash, hash, &found)->lane = lane;
	retry_lane_update(lanes, lane);
	if (lanes->hooks.made != NULL)
		lanes->hooks.made(lane, lanes->hooks.arg);
	return lane;
}

RetryLane *
retry_lane_make(RetryLanes *lanes, int64 hash, TimestampTz due, TimestampTz now, RetryFlow *flow,
				bool paused)
{
	return make_place(lanes, now) ? add_lane(lanes, hash, due, now, flow, paused) : NULL;
}

RetryLane *
retry_lanes_get(RetryLanes *lanes, int64 hash, TimestampTz due, TimestampTz now)
{
	RetryLane  *lane = retry_lanes_find(lanes, hash);

	lanes->now = now;
	if (lane != NULL || retry_dormant_note(lanes, hash, due))
		return lane;
	/* whoever is forgotten for it may lower the horizon */
	if (!retry_dormant_waiting(lanes) && make_place(lanes, now))
		return add_lane(lanes, hash, retry_lanes_horizon(lanes), now, NULL, false);
	/* the newcomer waits for a place, or for a sweep to find it */
	if (!retry_dormant_wait(lanes, hash, Min(due, retry_lanes_horizon(lanes))))
		lower_horizon(lanes, due);
	return NULL;
}

bool
retry_lanes_knows(RetryLanes *lanes, int64 hash)
{
	return retry_lanes_find(lanes, hash) != NULL || retry_dormant_has(lanes, hash);
}

RetryLane *
retry_lanes_next_changed(RetryLanes *lanes)
{
	RetryLane  *lane;

	if (dlist_is_empty(&lanes->changed))
		return NULL;
	lane = dlist_container(RetryLane, changed_node, dlist_pop_head_node(&lanes->changed));
	lane->changed = false;
	return lane;
}

bool
retry_lanes_any_changed(const RetryLanes *lanes)
{
	return !dlist_is_empty(unconstify(dlist_head *, &lanes->changed));
}

int32
retry_lane_limit(const RetryLanes *lanes, const RetryLane *lane)
{
	return lane_limit_now(lanes, lane);
}

/* What is due, about */

void
retry_lane_unread(RetryLanes *lanes, RetrySide *side, uint32 n, TimestampTz due, TimestampTz now)
{
	retry_backlog_add(&side->backlog, n, due, now);
	lane_changed(lanes, retry_side_lane(side));
}

void
retry_lane_read(RetrySide *side, TimestampTz due)
{
	retry_backlog_read(&side->backlog, due);
}

void
retry_lane_drained(RetryLanes *lanes, RetrySide *side, TimestampTz now)
{
	retry_backlog_drained(&side->backlog, now);
	lane_changed(lanes, retry_side_lane(side));
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
retry_lanes_note_all(RetryLanes *lanes, TimestampTz due)
{
	lanehash_iterator it;
	LaneEntry  *entry;

	lanehash_start_iterate(lanes->by_hash, &it);
	while ((entry = lanehash_iterate(lanes->by_hash, &it)) != NULL)
		retry_lane_note_both(lanes, entry->lane, due);
	retry_dormant_note_all(lanes, due);
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
	retry_dormant_note_all(lanes, DT_NOBEGIN);
	lanes->sweeping = false;
	lanes->horizon = DT_NOBEGIN;
}

void
retry_lane_wait_behind(RetryLanes *lanes, RetryLane *lane, const RetryPos *head)
{
	lane->head = *head;
	retry_lane_update(lanes, lane);
}

bool
retry_lane_early(const RetryLane *lane)
{
	return lane->ordered && retry_pos_compare(&lane->side[RETRY_SIDE_FIRST].cursor, &lane->head) < 0;
}

TimestampTz
retry_lane_oldest(const RetryLane *lane)
{
	TimestampTz oldest = retry_lane_early(lane) ? lane->side[RETRY_SIDE_FIRST].cursor.due : DT_NOEND;

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
