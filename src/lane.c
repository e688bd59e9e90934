/*
 * lane.c
 *		Lanes in a dispatcher's memory: cursors, queues, turns.
 *
 * Three structures hold the lanes: a hash by lane, a heap of those that have
 * something unread, by when it is due, and two rings of those that have
 * something queued and may send it: lanes with no transfer under way come
 * first.  One set holds the ids of all entries that are queued or sent; it is
 * what makes reading an entry twice harmless.
 *
 * Room is shared without anybody counting shares: a lane may queue an eighth
 * of what is left, so a flood leaves room for the next lane, however many
 * lanes flood; and the last eighth of the transfers goes to lanes that have
 * none under way.  When all queues are full, lanes that have something queued
 * are parked, out of the heap, so that one that has nothing is still found.
 */
#include "postgres.h"

#include "common/hashfn.h"
#ifdef FRONTEND
#include "common/logging.h"
#endif
#include "lane.h"

/* Outside the server there is one heap; inside, the lanes' own context. */
#ifdef FRONTEND
#define lanes_alloc(lanes, size) palloc(size)
#define SH_RAW_ALLOCATOR palloc0
#else
#define lanes_alloc(lanes, size) MemoryContextAlloc((lanes)->context, size)
#endif

typedef struct LaneEntry
{
	int64		hash;
	RetryLane  *lane;
	char		status;
} LaneEntry;

typedef struct IdEntry
{
	pg_uuid_t	id;
	uint8		place;			/* RetryPlace */
	char		status;
} IdEntry;

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

#ifdef FRONTEND
#define SH_RAW_ALLOCATOR palloc0
#endif
#define SH_PREFIX idhash
#define SH_ELEMENT_TYPE IdEntry
#define SH_KEY_TYPE pg_uuid_t
#define SH_KEY id
#define SH_HASH_KEY(tb, key) hash_bytes((key).data, UUID_LEN)
#define SH_EQUAL(tb, a, b) (memcmp((a).data, (b).data, UUID_LEN) == 0)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

#define QUEUE_MIN		8		/* first size of a lane's queue */
#define QUEUE_PER_LIMIT	4		/* a lane queues this many times its limit */
#define TURNS_AT_ONCE	64		/* lanes asked in vain before giving up */
#define ROOM_MIN		8		/* less room than this in all is none */

/* The rings that a lane may wait in. */
enum
{
	RING_NONE,
	RING_FRESH,					/* no transfer under way */
	RING_MORE,
	RINGS
};

struct RetryLanes
{
#ifndef FRONTEND
	MemoryContext context;
#endif
	RetryLaneLimits limits;
	lanehash_hash *by_hash;
	idhash_hash *ids;
	RetryLane **heap;			/* by next_due */
	int32		heap_len;
	int32		heap_size;
	dlist_head	parked;
	dlist_head	ready[RINGS];
	dlist_head	idle;			/* longest idle first */
	dlist_head	blocked;
	TimestampTz next_unblock;	/* no blocked lane's moment is before */
	TimestampTz unblock_clock;	/* of the last look at them */
	int32		queued;
	int32		in_flight;
	TimestampTz horizon;
	bool		sweeping;
	TimestampTz sweep_horizon;	/* what the horizon will be after the sweep */
};

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

/* The heap of lanes that have something unread */

static inline bool
sooner(const RetryLane *a, const RetryLane *b)
{
	return a->next_due < b->next_due;
}

static void
heap_place(RetryLanes *lanes, RetryLane *lane, int32 i)
{
	lanes->heap[i] = lane;
	lane->heap_index = i;
}

static void
heap_up(RetryLanes *lanes, RetryLane *lane, int32 i)
{
	while (i > 0 && sooner(lane, lanes->heap[(i - 1) / 2]))
	{
		heap_place(lanes, lanes->heap[(i - 1) / 2], i);
		i = (i - 1) / 2;
	}
	heap_place(lanes, lane, i);
}

static void
heap_down(RetryLanes *lanes, RetryLane *lane, int32 i)
{
	for (;;)
	{
		int32		child = 2 * i + 1;

		if (child >= lanes->heap_len)
			break;
		if (child + 1 < lanes->heap_len && sooner(lanes->heap[child + 1], lanes->heap[child]))
			child++;
		if (!sooner(lanes->heap[child], lane))
			break;
		heap_place(lanes, lanes->heap[child], i);
		i = child;
	}
	heap_place(lanes, lane, i);
}

static void
heap_remove(RetryLanes *lanes, RetryLane *lane)
{
	int32		i = lane->heap_index;
	RetryLane  *last = lanes->heap[--lanes->heap_len];

	lane->heap_index = -1;
	if (last == lane)
		return;
	heap_up(lanes, last, i);
	heap_down(lanes, last, last->heap_index);
}

static void
heap_add(RetryLanes *lanes, RetryLane *lane)
{
	if (lanes->heap_len == lanes->heap_size)
	{
		lanes->heap_size *= 2;
		lanes->heap = repalloc(lanes->heap, lanes->heap_size * sizeof(RetryLane *));
	}
	heap_up(lanes, lane, lanes->heap_len++);
}

/* Limits and membership */

static inline int32
lane_limit(const RetryLanes *lanes, const RetryLane *lane)
{
	int32		limit = lane->limit != 0 ? Max(lane->limit, 0) : lanes->limits.lane_max_in_flight;

	return lane->cap > 0 ? Min(limit, lane->cap) : limit;
}

static inline int32
queue_limit(const RetryLanes *lanes, const RetryLane *lane)
{
	return Max(QUEUE_MIN, lane_limit(lanes, lane) * QUEUE_PER_LIMIT);
}

int32
retry_lane_room(const RetryLanes *lanes, const RetryLane *lane)
{
	int32		left = lanes->limits.max_queued - lanes->queued;
	int32		room = queue_limit(lanes, lane) - lane->queued;

	if (left > ROOM_MIN)
		return Min(room, left / 8);
	/* full: a lane with nothing queued still gets one, up to twice the limit */
	if (lane->queued == 0 && left > -lanes->limits.max_queued)
		return 1;
	return 0;
}

/* Puts a lane where its state says it belongs. */
static void
lane_update(RetryLanes *lanes, RetryLane *lane)
{
	bool		unread = lane->next_due < DT_NOEND && lane->queued <= queue_limit(lanes, lane) / 2;
	bool		idle = lane->queued == 0 && lane->in_flight == 0 && !lane->is_ahead;
	uint8		ring = RING_NONE;

	if (lane->queued > 0 && !lane->blocked && lane->in_flight < lane_limit(lanes, lane))
		ring = lane->in_flight == 0 ? RING_FRESH : RING_MORE;

	if (lane->parked && (!unread || lane->queued == 0))
	{
		dlist_delete(&lane->parked_node);
		lane->parked = false;
	}
	if (unread && !lane->parked && lane->heap_index < 0)
		heap_add(lanes, lane);
	else if (!unread && lane->heap_index >= 0)
		heap_remove(lanes, lane);

	if (ring != lane->ring)
	{
		if (lane->ring != RING_NONE)
			dlist_delete(&lane->ready_node);
		if (ring != RING_NONE)
			dlist_push_tail(&lanes->ready[ring], &lane->ready_node);
		lane->ring = ring;
	}
	if (idle != lane->idle)
	{
		if (idle)
			dlist_push_tail(&lanes->idle, &lane->idle_node);
		else
			dlist_delete(&lane->idle_node);
		lane->idle = idle;
	}
}

static void
set_next_due(RetryLanes *lanes, RetryLane *lane, TimestampTz due)
{
	if (lane->heap_index >= 0)
		heap_remove(lanes, lane);
	lane->next_due = due;
	lane_update(lanes, lane);
}

/* Lanes */

RetryLanes *
retry_lanes_create(const RetryLaneLimits *limits, TimestampTz horizon)
{
	RetryLanes *lanes = palloc0(sizeof(RetryLanes));

	lanes->limits = *limits;
	lanes->horizon = horizon;
#ifdef FRONTEND
	lanes->by_hash = lanehash_create(64, NULL);
	lanes->ids = idhash_create(256, NULL);
#else
	lanes->context = CurrentMemoryContext;
	lanes->by_hash = lanehash_create(lanes->context, 64, NULL);
	lanes->ids = idhash_create(lanes->context, 256, NULL);
#endif
	lanes->heap_size = 64;
	lanes->heap = palloc(lanes->heap_size * sizeof(RetryLane *));
	dlist_init(&lanes->parked);
	for (int i = 0; i < RINGS; i++)
		dlist_init(&lanes->ready[i]);
	dlist_init(&lanes->idle);
	dlist_init(&lanes->blocked);
	lanes->next_unblock = DT_NOEND;
	lanes->unblock_clock = DT_NOBEGIN;
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
		lane_update(lanes, entry->lane);
}

void
retry_lane_set_limit(RetryLanes *lanes, RetryLane *lane, int32 limit)
{
	if (lane->limit != limit)
	{
		lane->limit = limit;
		lane_update(lanes, lane);
	}
}

/* From when on a lane that is not in memory may have something untaken. */
void
retry_lane_set_cap(RetryLanes *lanes, RetryLane *lane, int32 cap)
{
	if (lane->cap != cap)
	{
		lane->cap = cap;
		lane_update(lanes, lane);
	}
}

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

RetryLane *
retry_lanes_find(RetryLanes *lanes, int64 hash)
{
	LaneEntry  *entry = lanehash_lookup(lanes->by_hash, hash);

	return entry != NULL ? entry->lane : NULL;
}

void
retry_lanes_drop(RetryLanes *lanes, RetryLane *lane)
{
	if (lane->heap_index >= 0)
		heap_remove(lanes, lane);
	if (lane->parked)
		dlist_delete(&lane->parked_node);
	if (lane->ring != RING_NONE)
		dlist_delete(&lane->ready_node);
	if (lane->idle)
		dlist_delete(&lane->idle_node);
	if (lane->blocked)
		dlist_delete(&lane->blocked_node);
	for (int32 i = 0; i < lane->queued; i++)
	{
		RetryEntry *entry = &lane->queue[(lane->queue_head + i) % lane->queue_size];

		idhash_delete(lanes->ids, entry->pos.id);
	}
	lanes->queued -= lane->queued;
	lanes->in_flight -= lane->in_flight;
	lanehash_delete(lanes->by_hash, lane->hash);
	if (lane->queue != NULL)
		pfree(lane->queue);
	pfree(lane);
}

static void
lower_horizon(RetryLanes *lanes, TimestampTz due)
{
	if (lanes->sweeping)
		lanes->sweep_horizon = Min(lanes->sweep_horizon, due);
	else
		lanes->horizon = Min(lanes->horizon, due);
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
	return victim->next_due > now ? victim : NULL;
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
		lower_horizon(lanes, victim->next_due);
		retry_lanes_drop(lanes, victim);
	}

	lane = lanes_alloc(lanes, sizeof(RetryLane));
	memset(lane, 0, sizeof(RetryLane));
	lane->hash = hash;
	lane->next_due = retry_lanes_horizon(lanes);	/* untaken entries from
													 * there on */
	lane->cursor.due = Min(lane->next_due, now);
	lane->cursor = retry_pos_before(&lane->cursor);
	lane->heap_index = -1;
	entry = lanehash_insert(lanes->by_hash, hash, &found);
	entry->lane = lane;
	lane_update(lanes, lane);
	return lane;
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
		entry->lane->cursor = beginning;
		entry->lane->is_ahead = false;
		set_next_due(lanes, entry->lane, DT_NOBEGIN);
	}
	lanes->sweeping = false;
	lanes->horizon = DT_NOBEGIN;
}

/* Entries */

void
retry_lane_note(RetryLanes *lanes, RetryLane *lane, const RetryPos *pos)
{
	if (retry_pos_compare(pos, &lane->cursor) <= 0)
		lane->cursor = retry_pos_before(pos);
	if (lane->is_ahead && retry_pos_compare(pos, &lane->ahead) <= 0)
		lane->ahead = retry_pos_before(pos);
	if (pos->due < lane->next_due)
		set_next_due(lanes, lane, pos->due);
}

static void
grow_queue(RetryLanes *lanes, RetryLane *lane)
{
	int32		size = Max(QUEUE_MIN, lane->queue_size * 2);
	RetryEntry *queue = lanes_alloc(lanes, size * sizeof(RetryEntry));

	for (int32 i = 0; i < lane->queued; i++)
		queue[i] = lane->queue[(lane->queue_head + i) % lane->queue_size];
	if (lane->queue != NULL)
		pfree(lane->queue);
	lane->queue = queue;
	lane->queue_size = size;
	lane->queue_head = 0;
}

bool
retry_lane_push(RetryLanes *lanes, RetryLane *lane, const RetryEntry *entry)
{
	IdEntry    *id;
	bool		found;

	if (retry_lanes_holds(lanes, &entry->pos.id))
		return true;
	if (retry_lane_room(lanes, lane) <= 0)
		return false;

	if (lane->queued == lane->queue_size)
		grow_queue(lanes, lane);
	id = idhash_insert(lanes->ids, entry->pos.id, &found);
	id->place = RETRY_PLACE_QUEUED;
	lane->queue[(lane->queue_head + lane->queued) % lane->queue_size] = *entry;
	lane->queued++;
	lanes->queued++;
	lane_update(lanes, lane);
	return true;
}

void
retry_lane_advance(RetryLanes *lanes, RetryLane *lane, const RetryPos *pos, TimestampTz next_due)
{
	lane->cursor = *pos;
	lane->is_ahead = false;
	set_next_due(lanes, lane, next_due);
}

void
retry_lane_go_ahead(RetryLanes *lanes, RetryLane *lane, const RetryPos *pos, TimestampTz next_due)
{
	lane->ahead = *pos;
	lane->is_ahead = true;
	set_next_due(lanes, lane, next_due);
}

bool
retry_lanes_holds(const RetryLanes *lanes, const pg_uuid_t *id)
{
	return idhash_lookup(lanes->ids, *id) != NULL;
}

void
retry_lanes_cancel(RetryLanes *lanes, const pg_uuid_t *id)
{
	IdEntry    *entry = idhash_lookup(lanes->ids, *id);

	if (entry != NULL && entry->place == RETRY_PLACE_QUEUED)
		entry->place = RETRY_PLACE_CANCELLED;
}

/* Takes the first entry of a lane's queue that was not cancelled meanwhile. */
static bool
take_from(RetryLanes *lanes, RetryLane *lane, RetryEntry *entry)
{
	while (lane->queued > 0)
	{
		IdEntry    *id;

		*entry = lane->queue[lane->queue_head];
		lane->queue_head = (lane->queue_head + 1) % lane->queue_size;
		lane->queued--;
		lanes->queued--;
		id = idhash_lookup(lanes->ids, entry->pos.id);
		if (id->place == RETRY_PLACE_QUEUED)
		{
			id->place = RETRY_PLACE_SENT;
			lane->in_flight++;
			lanes->in_flight++;
			return true;
		}
		idhash_delete(lanes->ids, entry->pos.id);
	}
	return false;
}

/* The lane whose turn it is in a ring goes to its end, or out of it. */
static bool
take_turn(RetryLanes *lanes, int ring, bool scarce, RetryLane **lane, RetryEntry *entry)
{
	RetryLane  *next = dlist_head_element(RetryLane, ready_node, &lanes->ready[ring]);
	bool		taken = false;

	/* a lane that may have all transfers may have the last ones too */
	if (!scarce || lane_limit(lanes, next) >= lanes->limits.max_in_flight)
		taken = take_from(lanes, next, entry);
	dlist_delete(&next->ready_node);
	next->ring = RING_NONE;
	lane_update(lanes, next);
	*lane = next;
	return taken;
}

bool
retry_lanes_take(RetryLanes *lanes, RetryLane **lane, RetryEntry *entry)
{
	int32		most = lanes->limits.max_in_flight;
	bool		scarce = most - lanes->in_flight <= most / 8;
	int			turns = TURNS_AT_ONCE;

	if (lanes->in_flight >= most)
		return false;
	while (!dlist_is_empty(&lanes->ready[RING_FRESH]))
	{
		if (take_turn(lanes, RING_FRESH, false, lane, entry))
			return true;
	}
	while (turns-- > 0 && !dlist_is_empty(&lanes->ready[RING_MORE]))
	{
		if (take_turn(lanes, RING_MORE, scarce, lane, entry))
			return true;
	}
	return false;
}

void
retry_lane_block(RetryLanes *lanes, RetryLane *lane, const RetryEntry *entry, TimestampTz until)
{
	idhash_lookup(lanes->ids, entry->pos.id)->place = RETRY_PLACE_QUEUED;
	if (lane->queued == lane->queue_size)
		grow_queue(lanes, lane);
	lane->queue_head = (lane->queue_head + lane->queue_size - 1) % lane->queue_size;
	lane->queue[lane->queue_head] = *entry;
	lane->queued++;
	lanes->queued++;

	if (!lane->blocked)
		dlist_push_tail(&lanes->blocked, &lane->blocked_node);
	lane->blocked = true;
	lane->blocked_until = until;
	lanes->next_unblock = Min(lanes->next_unblock, until);
	retry_lane_transfer_ended(lanes, lane);
}

void
retry_lane_unblock(RetryLanes *lanes, RetryLane *lane)
{
	if (lane->blocked)
		dlist_delete(&lane->blocked_node);
	lane->blocked = false;
	lane_update(lanes, lane);
}

void
retry_lanes_unblock_due(RetryLanes *lanes, TimestampTz now)
{
	bool		all = now == DT_NOEND || now < lanes->unblock_clock;
	dlist_mutable_iter it;

	lanes->unblock_clock = now == DT_NOEND ? DT_NOBEGIN : now;
	if (!all && now < lanes->next_unblock)
		return;
	lanes->next_unblock = DT_NOEND;
	dlist_foreach_modify(it, &lanes->blocked)
	{
		RetryLane  *lane = dlist_container(RetryLane, blocked_node, it.cur);

		if (all || lane->blocked_until <= now)
			retry_lane_unblock(lanes, lane);
		else
			lanes->next_unblock = Min(lanes->next_unblock, lane->blocked_until);
	}
}

TimestampTz
retry_lanes_next_unblock(const RetryLanes *lanes)
{
	return lanes->next_unblock;
}

void
retry_lane_transfer_ended(RetryLanes *lanes, RetryLane *lane)
{
	lane->in_flight--;
	lanes->in_flight--;
	lane_update(lanes, lane);
}

void
retry_lanes_forget_sent(RetryLanes *lanes, const pg_uuid_t *id)
{
	idhash_delete(lanes->ids, *id);
}

/*
 * The lane with the earliest unread entry among those that have room.  Lanes
 * without are parked until a sixteenth of all queues is free again.
 */
static RetryLane *
first_unread(RetryLanes *lanes)
{
	int32		left = lanes->limits.max_queued - lanes->queued;

	if (left > Max(ROOM_MIN, lanes->limits.max_queued / 16))
	{
		while (!dlist_is_empty(&lanes->parked))
		{
			RetryLane  *lane = dlist_container(RetryLane, parked_node,
											   dlist_pop_head_node(&lanes->parked));

			lane->parked = false;
			heap_add(lanes, lane);
		}
	}
	while (lanes->heap_len > 0)
	{
		RetryLane  *lane = lanes->heap[0];

		if (lane->queued == 0 || retry_lane_room(lanes, lane) > 0)
			return lane;
		heap_remove(lanes, lane);
		dlist_push_tail(&lanes->parked, &lane->parked_node);
		lane->parked = true;
	}
	return NULL;
}

RetryLane *
retry_lanes_due(RetryLanes *lanes, TimestampTz now)
{
	RetryLane  *lane = first_unread(lanes);

	return lane != NULL && lane->next_due <= now && retry_lane_room(lanes, lane) > 0 ? lane : NULL;
}

TimestampTz
retry_lanes_next_due(RetryLanes *lanes)
{
	RetryLane  *lane = first_unread(lanes);

	return lane != NULL && retry_lane_room(lanes, lane) > 0 ? lane->next_due : DT_NOEND;
}

int32
retry_lanes_count(const RetryLanes *lanes)
{
	return lanes->by_hash->members;
}

int32
retry_lanes_queued(const RetryLanes *lanes)
{
	return lanes->queued;
}

int32
retry_lanes_in_flight(const RetryLanes *lanes)
{
	return lanes->in_flight;
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

TimestampTz
retry_lane_oldest(const RetryLane *lane)
{
	TimestampTz oldest = lane->is_ahead ? Min(lane->cursor.due, lane->next_due) : lane->next_due;

	for (int32 i = 0; i < lane->queued; i++)
	{
		const RetryEntry *entry = &lane->queue[(lane->queue_head + i) % lane->queue_size];

		oldest = Min(oldest, entry->pos.due);
	}
	return oldest;
}
