/*
 * lane_dormant.c
 *		Lanes that may not send for long, kept as little more than a moment.
 *
 * Thousands of endpoints may be down, each with a backlog.  Their lanes have
 * something to do and can never be forgotten as idle ones are, so they would
 * fill the table of lanes against those that are well.  When there is no place
 * for another lane, one that is closed for a while therefore gives up its queue
 * (it is read again from where it lies) and its place; what stays is from when
 * on something is due, and when to ask again.  When that moment comes it gets a
 * place like any other lane.  Of a lane that is idle but whose flow remembers
 * something, the same is kept in place of forgetting it.
 *
 * So are newcomers for which there is no place: they get the next, in the order
 * in which they came.  There is a bound for all of these; beyond it, newcomers
 * wait for a sweep.
 */
#include "postgres.h"

#include "common/hashfn.h"
#ifdef FRONTEND
#include "common/logging.h"
#endif
#include "lane_private.h"

#define DORMANT_PER_LANE	4	/* so many for each lane that memory may hold */
#define LOOK_AT				32	/* lanes looked at to find one */
#define NO_PLACE_PAUSE_US	(100 * 1000)	/* until the next look for a place */
#define REST_CHECK_US		(10 * USECS_PER_SEC)	/* has it come to rest? */

typedef struct Dormant
{
	int64		hash;
	TimestampTz due;			/* something is due from then on; DT_NOEND:
								 * nothing known */
	RetryFlow  *flow;
	bool		paused;
	bool		open;			/* it may send: kept for its flow, or it is
								 * early */
	RetryHeapNode wake_node;	/* key: when to ask again */
} Dormant;

typedef struct DormantEntry
{
	int64		hash;
	Dormant    *dormant;
	char		status;
} DormantEntry;

#ifdef FRONTEND
#define SH_RAW_ALLOCATOR palloc0
#endif
#define SH_PREFIX dormanthash
#define SH_ELEMENT_TYPE DormantEntry
#define SH_KEY_TYPE int64
#define SH_KEY hash
#define SH_HASH_KEY(tb, key) ((uint32) ((uint64) (key) ^ ((uint64) (key) >> 32)))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

void
retry_dormant_init(RetryLanes *lanes)
{
#ifdef FRONTEND
	lanes->dormant = dormanthash_create(64, NULL);
#else
	lanes->dormant = dormanthash_create(lanes->context, 64, NULL);
#endif
	retry_heap_init(&lanes->dormant_wake);
	dlist_init(&lanes->closed);
}

static Dormant *
find(const RetryLanes *lanes, int64 hash)
{
	DormantEntry *entry = dormanthash_lookup(lanes->dormant, hash);

	return entry != NULL ? entry->dormant : NULL;
}

static bool
is_full(const RetryLanes *lanes)
{
	return lanes->dormant->members >= (uint64) lanes->limits.max_lanes * DORMANT_PER_LANE;
}

/* The record goes; its flow is the caller's. */
static void
remove_record(RetryLanes *lanes, Dormant *dormant)
{
	retry_heap_remove(&lanes->dormant_wake, &dormant->wake_node);
	dormanthash_delete(lanes->dormant, dormant->hash);
	pfree(dormant);
}

/* The same with its flow. */
static void
forget(RetryLanes *lanes, Dormant *dormant)
{
	if (dormant->flow != NULL)
		pfree(dormant->flow);
	remove_record(lanes, dormant);
}

/* When to ask again; in no heap when it is not to be asked by itself. */
static void
set_wake(RetryLanes *lanes, Dormant *dormant, int64 wake_us)
{
	if (wake_us == PG_INT64_MAX)
		retry_heap_remove(&lanes->dormant_wake, &dormant->wake_node);
	else
		retry_heap_put(&lanes->dormant_wake, &dormant->wake_node, wake_us, ++lanes->dormant_turn);
}

/*
 * When a closed lane may have something to do; PG_INT64_MAX: when somebody says
 * so.  One that waits for its head, and of which the head does not tell all,
 * has nothing queued, and waits by the clock of the wall, which may be set.
 */
static int64
moment_of(const RetryLanes *lanes, const RetryLane *lane)
{
	TimestampTz due = lane_next_due(lane);
	int64		moment = lane->paused ? PG_INT64_MAX : retry_ring_moment(lane);

	if (lane->paused || moment < PG_INT64_MAX || !retry_lane_early(lane))
		return moment;
	return lanes->now_us + (due > lanes->now ? Min(due - lanes->now, REST_CHECK_US) : 0);
}

/*
 * A lane that is closed for long enough, NULL when none is found.  Those that
 * are not go to the end of the list, so that the next look is at others.
 */
RetryLane *
retry_dormant_candidate(RetryLanes *lanes)
{
	if (is_full(lanes))
		return NULL;
	for (int i = 0; i < LOOK_AT && !dlist_is_empty(&lanes->closed); i++)
	{
		RetryLane  *lane = dlist_head_element(RetryLane, rest_node, &lanes->closed);

		if (moment_of(lanes, lane) >= lanes->now_us + RETRY_LANE_LONG_US)
			return lane;
		dlist_delete(&lane->rest_node);
		dlist_push_tail(&lanes->closed, &lane->rest_node);
	}
	return NULL;
}

static Dormant *
add_record(RetryLanes *lanes, int64 hash, TimestampTz due)
{
	Dormant    *dormant = lanes_alloc(lanes, sizeof(Dormant));
	bool		found;

	memset(dormant, 0, sizeof(Dormant));
	dormant->hash = hash;
	dormant->due = due;
	retry_heap_node_init(&dormant->wake_node);
	dormanthash_insert(lanes->dormant, hash, &found)->dormant = dormant;
	return dormant;
}

/* Its flow goes over to the record. */
static Dormant *
make_record(RetryLanes *lanes, RetryLane *lane)
{
	Dormant    *dormant = add_record(lanes, lane->hash, retry_lane_oldest(lane));

	dormant->flow = lane->flow;
	dormant->paused = lane->paused;
	lane->flow = NULL;
	return dormant;
}

void
retry_dormant_close(RetryLanes *lanes, RetryLane *lane)
{
	Dormant    *dormant = make_record(lanes, lane);

	dormant->open = retry_lane_early(lane) && !lane->paused;
	set_wake(lanes, dormant, moment_of(lanes, lane));
	retry_lanes_drop(lanes, lane);
}

bool
retry_dormant_keep(RetryLanes *lanes, RetryLane *lane)
{
	Dormant    *dormant;
	int64		until_us;

	if (retry_flow_at_rest(lane->flow, lanes->now_us) ||
		is_full(lanes))
		return false;
	dormant = make_record(lanes, lane);
	dormant->open = retry_flow_gate(dormant->flow, false, lanes->now_us, &until_us) == RETRY_GATE_OPEN;
	set_wake(lanes, dormant, dormant->open ? lanes->now_us + REST_CHECK_US : until_us);
	retry_lanes_drop(lanes, lane);
	return true;
}

bool
retry_dormant_may_wait(const RetryLanes *lanes)
{
	return !is_full(lanes);
}

bool
retry_dormant_wait(RetryLanes *lanes, int64 hash, TimestampTz due)
{
	Dormant    *dormant;

	if (is_full(lanes))
		return false;
	dormant = add_record(lanes, hash, due);
	dormant->open = true;
	set_wake(lanes, dormant, lanes->now_us);
	return true;
}

bool
retry_dormant_waiting(const RetryLanes *lanes)
{
	RetryHeapNode *node = retry_heap_first(&lanes->dormant_wake);

	return node != NULL && node->key <= lanes->now_us;
}

bool
retry_dormant_has(const RetryLanes *lanes, int64 hash)
{
	return find(lanes, hash) != NULL;
}

bool
retry_dormant_note(RetryLanes *lanes, int64 hash, TimestampTz due)
{
	Dormant    *dormant = find(lanes, hash);

	if (dormant == NULL)
		return false;
	dormant->due = Min(dormant->due, due);
	/* who waits for a place already keeps its turn */
	if (dormant->open &&
		(!retry_heap_has(&dormant->wake_node) || dormant->wake_node.key > lanes->now_us))
		set_wake(lanes, dormant, lanes->now_us);
	return true;
}

void
retry_lanes_wake(RetryLanes *lanes, int64 hash)
{
	Dormant    *dormant = find(lanes, hash);

	if (dormant != NULL)
		set_wake(lanes, dormant, lanes->now_us);
}

/* Its flow may know without reading anything that the time has not come yet. */
static bool
still_shut(RetryLanes *lanes, Dormant *dormant)
{
	int64		first_us;
	int64		retry_us;

	if (dormant->flow == NULL ||
		retry_flow_gate(dormant->flow, false, lanes->now_us, &first_us) == RETRY_GATE_OPEN ||
		retry_flow_gate(dormant->flow, true, lanes->now_us, &retry_us) == RETRY_GATE_OPEN ||
		Min(first_us, retry_us) < lanes->now_us + RETRY_LANE_LONG_US)
		return false;
	set_wake(lanes, dormant, Min(first_us, retry_us));
	return true;
}

/* A lane again, or nothing to be remembered any more; false: there is no place. */
static bool
wake(RetryLanes *lanes, Dormant *dormant)
{
	if (dormant->due == DT_NOEND)
	{
		if (!retry_flow_at_rest(dormant->flow, lanes->now_us))
		{
			dormant->open = true;
			set_wake(lanes, dormant, lanes->now_us + REST_CHECK_US);
			return true;
		}
		forget(lanes, dormant);
		return true;
	}
	if (still_shut(lanes, dormant))
		return true;
	if (retry_lane_make(lanes, dormant->hash, dormant->due, lanes->now, dormant->flow,
						dormant->paused) == NULL)
		return false;
	remove_record(lanes, dormant);
	return true;
}

void
retry_dormant_wake_due(RetryLanes *lanes)
{
	/* whoever has ended gives up its place at once */
	if (lanes->now_us < lanes->dormant_not_before && dlist_is_empty(&lanes->idle))
		return;
	while (retry_dormant_waiting(lanes))
	{
		RetryHeapNode *node = retry_heap_first(&lanes->dormant_wake);

		if (wake(lanes, retry_heap_container(Dormant, wake_node, node)))
			continue;
		lanes->dormant_not_before = lanes->now_us + NO_PLACE_PAUSE_US;
		return;
	}
}

int64
retry_dormant_next(const RetryLanes *lanes)
{
	RetryHeapNode *node = retry_heap_first(&lanes->dormant_wake);

	return node != NULL ? Max(node->key, lanes->dormant_not_before) : PG_INT64_MAX;
}

/* All of them */

int32
retry_lanes_dormant(const RetryLanes *lanes)
{
	return lanes->dormant->members;
}

void
retry_lanes_each_dormant(const RetryLanes *lanes,
						 void (*visit) (int64 hash, TimestampTz due, void *arg), void *arg)
{
	dormanthash_iterator it;
	DormantEntry *entry;

	dormanthash_start_iterate(lanes->dormant, &it);
	while ((entry = dormanthash_iterate(lanes->dormant, &it)) != NULL)
		visit(entry->hash, entry->dormant->due, arg);
}

void
retry_lanes_each_dormant_flow(const RetryLanes *lanes,
							  void (*visit) (int64 hash, RetryFlow *flow, void *arg), void *arg)
{
	dormanthash_iterator it;
	DormantEntry *entry;

	dormanthash_start_iterate(lanes->dormant, &it);
	while ((entry = dormanthash_iterate(lanes->dormant, &it)) != NULL)
	{
		if (entry->dormant->flow != NULL)
			visit(entry->hash, entry->dormant->flow, arg);
	}
}

void
retry_dormant_wake_all(RetryLanes *lanes)
{
	dormanthash_iterator it;
	DormantEntry *entry;

	dormanthash_start_iterate(lanes->dormant, &it);
	while ((entry = dormanthash_iterate(lanes->dormant, &it)) != NULL)
		set_wake(lanes, entry->dormant, lanes->now_us);
}

void
retry_dormant_note_all(RetryLanes *lanes, TimestampTz due)
{
	dormanthash_iterator it;
	DormantEntry *entry;

	dormanthash_start_iterate(lanes->dormant, &it);
	while ((entry = dormanthash_iterate(lanes->dormant, &it)) != NULL)
		(void) retry_dormant_note(lanes, entry->hash, due);
}

void
retry_dormant_forget_slots(RetryLanes *lanes, uint64 slots)
{
	dormanthash_iterator it;
	DormantEntry *entry;

	dormanthash_start_iterate(lanes->dormant, &it);
	while ((entry = dormanthash_iterate(lanes->dormant, &it)) != NULL)
	{
		Dormant    *dormant = entry->dormant;

		if ((slots & (UINT64CONST(1) << RETRY_SLOT(dormant->hash))) == 0)
			continue;
		forget(lanes, dormant);
	}
}
