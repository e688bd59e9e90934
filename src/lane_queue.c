/*
 * lane_queue.c
 *		What lanes have queued, and which of them is to be read next.
 *
 * Each side of a lane has a queue of its own.  One set holds the ids of all
 * entries that are queued or sent; it is what makes reading an entry twice
 * harmless.  Sides that have something unread and want it are in a heap by when
 * it is due.
 *
 * Room is shared without anybody counting shares: a side may queue an eighth of
 * what is left, so a flood leaves room for the next lane, however many lanes
 * flood.  When all queues are full, sides that have something queued are
 * parked, out of the heap, so that one that has nothing is still found.  What
 * may not be sent now is not read either, but for one entry to try with; and
 * when room gets scarce, a queue that must wait for long is given up.
 */
#include "postgres.h"

#include "common/hashfn.h"
#ifdef FRONTEND
#include "common/logging.h"
#endif
#include "lane_private.h"

typedef struct IdEntry
{
	pg_uuid_t	id;
	uint8		place;			/* RetryPlace */
	char		status;
} IdEntry;

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

#define QUEUE_FIRST		2		/* first size of a queue's ring */
#define QUEUE_MIN		8		/* any lane may queue so many on each side */
#define QUEUE_PER_LIMIT	4		/* and this many times its limit */
#define ROOM_MIN		8		/* less room than this in all is none */
#define SCARCE_SHARE	8		/* one in so many of all queues is in use */

void
retry_queues_init(RetryLanes *lanes)
{
#ifdef FRONTEND
	lanes->ids = idhash_create(256, NULL);
#else
	lanes->ids = idhash_create(lanes->context, 256, NULL);
#endif
	for (int i = 0; i < CLASSES; i++)
		retry_heap_init(&lanes->due[i]);
	dlist_init(&lanes->parked);
}

/* Of a side that is all zero. */
void
retry_side_init(RetrySide *side, RetrySideName which)
{
	side->which = which;
	retry_heap_node_init(&side->due_node);
}

/* Room */

static inline int32
queue_limit(const RetryLanes *lanes, const RetryLane *lane)
{
	return Max(QUEUE_MIN, lane_limit(lanes, lane) * QUEUE_PER_LIMIT);
}

static inline bool
is_shut(const RetryLane *lane, const RetrySide *side)
{
	return lane->blocked || side->gate != RETRY_GATE_OPEN;
}

int32
retry_lane_room(const RetryLanes *lanes, const RetrySide *side)
{
	const RetryLane *lane = retry_side_lane(unconstify(RetrySide *, side));
	int32		left = lanes->limits.max_queued - lanes->queued;
	int32		room = is_shut(lane, side) ? 1 : queue_limit(lanes, lane);

	if (left > ROOM_MIN)
		return Min(room - side->queued, left / 8);
	/* full: a side with nothing queued still gets one, up to twice the limit */
	if (side->queued == 0 && left > -lanes->limits.max_queued)
		return 1;
	return 0;
}

/* Who is to be read */

static void
unpark(RetrySide *side)
{
	dlist_delete(&side->parked_node);
	side->parked = false;
}

void
retry_side_unlist(RetryLanes *lanes, RetrySide *side)
{
	if (side->parked)
		unpark(side);
	retry_heap_remove(&lanes->due[lane_class(retry_side_lane(side))], &side->due_node);
}

void
retry_side_update(RetryLanes *lanes, RetrySide *side)
{
	RetryLane  *lane = retry_side_lane(side);
	RetryHeap  *heap = &lanes->due[lane_class(lane)];
	int32		enough = is_shut(lane, side) ? 0 : queue_limit(lanes, lane) / 2;
	bool		unread = side->next_due < DT_NOEND && side->queued <= enough &&
	!lane->paused && !lane->stopped;

	lane_changed(lanes, lane);
	if (side->parked && (!unread || side->queued == 0))
		unpark(side);
	if (!unread)
		retry_heap_remove(heap, &side->due_node);
	else if (!side->parked &&
			 (!retry_heap_has(&side->due_node) || side->due_node.key != side->next_due))
		retry_heap_put(heap, &side->due_node, side->next_due, 0);
}

/*
 * The side with the earliest unread entry of a class among those that have
 * room.  Sides without are parked until a sixteenth of all queues is free again.
 */
static RetrySide *
first_unread(RetryLanes *lanes, int class)
{
	int32		left = lanes->limits.max_queued - lanes->queued;
	RetryHeapNode *node;

	if (left > Max(ROOM_MIN, lanes->limits.max_queued / 16))
	{
		while (!dlist_is_empty(&lanes->parked))
		{
			RetrySide  *side = dlist_head_element(RetrySide, parked_node, &lanes->parked);

			unpark(side);
			retry_side_update(lanes, side);
		}
	}
	while ((node = retry_heap_first(&lanes->due[class])) != NULL)
	{
		RetrySide  *side = retry_heap_container(RetrySide, due_node, node);

		if (retry_lane_room(lanes, side) > 0)
			return side;
		if (side->queued == 0)
			return NULL;		/* full twice over: nobody has room */
		retry_heap_remove(&lanes->due[class], node);
		dlist_push_tail(&lanes->parked, &side->parked_node);
		side->parked = true;
	}
	return NULL;
}

RetrySide *
retry_lanes_due(RetryLanes *lanes, TimestampTz now)
{
	lanes->now = now;
	for (int class = 0; class < CLASSES; class++)
	{
		RetrySide  *side = first_unread(lanes, class);

		if (side != NULL && side->next_due <= now)
			return side;
	}
	return NULL;
}

TimestampTz
retry_lanes_next_due(RetryLanes *lanes)
{
	TimestampTz next = DT_NOEND;

	for (int class = 0; class < CLASSES; class++)
	{
		RetrySide  *side = first_unread(lanes, class);

		if (side != NULL)
			next = Min(next, side->next_due);
	}
	return next;
}

/* Entries */

static inline RetryEntry *
nth(RetrySide *side, int32 n)
{
	return &side->queue[(side->queue_head + n) % side->queue_size];
}

static void
make_room(RetryLanes *lanes, RetrySide *side)
{
	int32		size = Max(QUEUE_FIRST, side->queue_size * 2);
	RetryEntry *queue;

	if (side->queued < side->queue_size)
		return;
	queue = lanes_alloc(lanes, size * sizeof(RetryEntry));
	for (int32 i = 0; i < side->queued; i++)
		queue[i] = *nth(side, i);
	if (side->queue != NULL)
		pfree(side->queue);
	side->queue = queue;
	side->queue_size = size;
	side->queue_head = 0;
}

static void
append(RetryLanes *lanes, RetrySide *side, const RetryEntry *entry)
{
	make_room(lanes, side);
	*nth(side, side->queued) = *entry;
	nth(side, side->queued)->side = side->which;
	side->queued++;
	lanes->queued++;
}

bool
retry_lane_push(RetryLanes *lanes, RetryLane *lane, const RetryEntry *entry)
{
	RetrySide  *side = &lane->side[entry->side];
	IdEntry    *id;
	bool		found;

	if (retry_lanes_holds(lanes, &entry->pos.id))
		return true;
	if (retry_lane_room(lanes, side) <= 0)
		return false;

	id = idhash_insert(lanes->ids, entry->pos.id, &found);
	id->place = RETRY_PLACE_QUEUED;
	append(lanes, side, entry);
	retry_lane_update(lanes, lane);
	return true;
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

void
retry_lane_forget_sent(RetryLanes *lanes, RetryLane *lane, const pg_uuid_t *id)
{
	idhash_delete(lanes->ids, *id);
	lane->unrecorded--;
	retry_lane_update(lanes, lane);
}

void
retry_lane_promote(RetryLanes *lanes, RetryLane *lane, const RetryEntry *asked)
{
	RetrySide  *side = &lane->side[RETRY_SIDE_RETRY];

	for (int32 i = 0; i < side->queued; i++)
	{
		RetryEntry	entry = *nth(side, i);

		if (memcmp(&entry.pos.id, &asked->pos.id, UUID_LEN) != 0)
			continue;
		if (entry.attempts != asked->attempts)
			return;				/* that attempt has been made */
		entry.pos = asked->pos;
		for (int32 j = i; j > 0; j--)
			*nth(side, j) = *nth(side, j - 1);
		side->queue_head = (side->queue_head + 1) % side->queue_size;
		side->queued--;
		lanes->queued--;
		append(lanes, &lane->side[RETRY_SIDE_FIRST], &entry);
		retry_lane_update(lanes, lane);
		return;
	}
}

/* Takes the first entry off; the memory of an empty queue goes back. */
static void
shift(RetryLanes *lanes, RetrySide *side)
{
	side->queue_head = (side->queue_head + 1) % side->queue_size;
	lanes->queued--;
	if (--side->queued > 0)
		return;
	pfree(side->queue);
	side->queue = NULL;
	side->queue_size = side->queue_head = 0;
}

void
retry_lane_unqueue(RetryLanes *lanes, RetryLane *lane)
{
	for (int i = 0; i < RETRY_SIDES; i++)
	{
		RetrySide  *side = &lane->side[i];
		int32		queued = side->queued;

		for (int32 j = 0; j < queued; j++)
		{
			idhash_delete(lanes->ids, nth(side, j)->pos.id);
			retry_lane_note(lanes, side, &nth(side, j)->pos);
		}
		while (side->queued > 0)
			shift(lanes, side);
	}
	retry_lane_update(lanes, lane);
}

bool
retry_side_has(RetryLanes *lanes, RetrySide *side)
{
	while (side->queued > 0)
	{
		pg_uuid_t	id = nth(side, 0)->pos.id;

		if (idhash_lookup(lanes->ids, id)->place == RETRY_PLACE_QUEUED)
			return true;
		idhash_delete(lanes->ids, id);
		shift(lanes, side);
	}
	return false;
}

bool
retry_side_pop(RetryLanes *lanes, RetrySide *side, RetryEntry *entry)
{
	if (!retry_side_has(lanes, side))
		return false;
	*entry = *nth(side, 0);
	idhash_lookup(lanes->ids, entry->pos.id)->place = RETRY_PLACE_SENT;
	shift(lanes, side);
	return true;
}

void
retry_side_unpop(RetryLanes *lanes, RetrySide *side, const RetryEntry *entry)
{
	idhash_lookup(lanes->ids, entry->pos.id)->place = RETRY_PLACE_QUEUED;
	make_room(lanes, side);
	side->queue_head = (side->queue_head + side->queue_size - 1) % side->queue_size;
	side->queued++;
	lanes->queued++;
	*nth(side, 0) = *entry;
}

/*
 * Gives up what is queued, but for one entry to try with: it is read again from
 * where it lies.
 */
void
retry_side_give_up(RetryLanes *lanes, RetrySide *side)
{
	RetryPos	earliest;

	if (side->queued < 2 || lanes->queued < lanes->limits.max_queued / SCARCE_SHARE)
		return;
	earliest = nth(side, 1)->pos;
	for (int32 i = 1; i < side->queued; i++)
	{
		RetryEntry *entry = nth(side, i);

		if (retry_pos_compare(&entry->pos, &earliest) < 0)
			earliest = entry->pos;
		idhash_delete(lanes->ids, entry->pos.id);
	}
	lanes->queued -= side->queued - 1;
	side->queued = 1;
	retry_lane_note(lanes, side, &earliest);
}

void
retry_side_forget(RetryLanes *lanes, RetrySide *side)
{
	retry_side_unlist(lanes, side);
	for (int32 i = 0; i < side->queued; i++)
		idhash_delete(lanes->ids, nth(side, i)->pos.id);
	lanes->queued -= side->queued;
	side->queued = 0;
	if (side->queue != NULL)
		pfree(side->queue);
	side->queue = NULL;
}

int32
retry_lanes_queued(const RetryLanes *lanes)
{
	return lanes->queued;
}
