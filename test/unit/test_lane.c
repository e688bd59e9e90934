/*
 * test_lane.c
 *		Lanes against a model: nothing is lost, nothing is early, nobody starves.
 *
 * A dispatcher's memory of lanes is a cache, and the worst thing a cache can do
 * is to forget that something is waiting.  So most of this is one simulation:
 * a store that is a plain array plays the facts, feed, refill, sweep and send
 * are written down in their shortest form, and after each random step every
 * entry of the store is asked whether the lanes would still find it.  The
 * other tests pin down single promises: order, shares, turns, cancelling.
 */
#include "postgres.h"

#include <stdlib.h>

#include "lane.h"
#include "check.h"

#define MINUTE	(60 * USECS_PER_SEC)

static pg_uuid_t
make_id(uint64 number)
{
	pg_uuid_t	id = {{0}};

	for (int i = 0; i < 8; i++)
		id.data[15 - i] = (unsigned char) (number >> (8 * i));
	return id;
}

static RetryEntry
make_entry(TimestampTz due, uint64 number)
{
	RetryEntry	entry = {.pos = {.due = due}};

	entry.pos.id = make_id(number);
	return entry;
}

static void
ended(RetryLanes *lanes, RetryLane *lane)
{
	RetryFlowEnd end = {.kind = RETRY_FLOW_NEUTRAL};

	retry_lane_transfer_ended(lanes, lane, &end, 0);
}

/* What it needs does not work before that moment. */
static void
block(RetryLanes *lanes, RetryLane *lane, const RetryEntry *entry, int64 until_us)
{
	RetryFlowEnd end = {.kind = RETRY_FLOW_NEUTRAL,.unsent = true};

	end.retry = entry->side == RETRY_SIDE_RETRY;
	retry_lane_block(lanes, lane, entry, RETRY_GATE_TARGETS, until_us);
	retry_lane_transfer_ended(lanes, lane, &end, 0);
}

/* Its scene says now how many it may have at once. */
static void
set_limit(RetryLanes *lanes, RetryLane *lane, int32 limit)
{
	RetryFlowRules rules = {.max_in_flight = limit,.weight = lane->weight,.high = lane->high};

	retry_lane_set_rules(lanes, lane, &rules);
}

static RetryLanes *
make_lanes(int32 max_lanes, int32 max_queued, int32 max_in_flight, int32 lane_max)
{
	RetryLaneLimits limits = {max_lanes, max_queued, max_in_flight, lane_max};

	return retry_lanes_create(&limits, DT_NOEND);
}

/* Pushes n entries numbered from "first" on; returns how many went in. */
static int
push_many(RetryLanes *lanes, RetryLane *lane, uint64 first, int n)
{
	int			pushed = 0;

	for (int i = 0; i < n; i++)
	{
		RetryEntry	entry = make_entry(1000 + i, first + i);

		if (!retry_lane_push(lanes, lane, &entry))
			break;
		pushed++;
	}
	return pushed;
}

static void
test_places(void)
{
	RetryPos	a = {.due = 5};
	RetryPos	b = {.due = 5};
	RetryPos	before;

	a.id = make_id(0x100);
	b.id = make_id(0xFF);
	CHECK(retry_pos_compare(&a, &b) > 0, "places of one time are ordered by id");
	before = retry_pos_before(&a);
	CHECK(retry_pos_compare(&before, &b) == 0, "the place before borrows from the next byte");
	b.id = make_id(0);
	before = retry_pos_before(&b);
	CHECK(before.due == 4 && before.id.data[0] == 0xFF && before.id.data[15] == 0xFF,
		  "before the first id of a time lies the last of the time before");
	b.due = DT_NOBEGIN;
	before = retry_pos_before(&b);
	CHECK(before.due == DT_NOBEGIN, "nothing lies before the beginning");
}

static void
test_push(void)
{
	RetryLanes *lanes = make_lanes(64, 1000, 64, 8);
	RetryLane  *lane = retry_lanes_get(lanes, 1, 0, 0);
	RetryLane  *taken;
	RetryEntry	entry = make_entry(1000, 1);
	RetryEntry	got;

	CHECK_INT(retry_lane_room(lanes, &lane->side[0]), 32, "a lane queues four times its limit");
	CHECK(retry_lane_push(lanes, lane, &entry), "an entry goes in");
	CHECK(retry_lane_push(lanes, lane, &entry), "once more is harmless");
	CHECK_INT(lane->side[0].queued, 1, "and it is queued once");
	CHECK(retry_lanes_take(lanes, 0, &taken, &got) && taken == lane, "it is taken");
	CHECK(retry_lane_push(lanes, lane, &entry) && lane->side[0].queued == 0, "what is sent is not queued again");
	CHECK(retry_lanes_holds(lanes, &entry.pos.id), "it is held until it is recorded");
	ended(lanes, lane);
	CHECK(retry_lanes_holds(lanes, &entry.pos.id), "also when its transfer has ended");
	retry_lane_forget_sent(lanes, lane, &entry.pos.id);
	CHECK(!retry_lanes_holds(lanes, &entry.pos.id), "and then no more");

	CHECK_INT(push_many(lanes, lane, 100, 50), 32, "a full lane takes no more");
	for (int i = 0; i < 8; i++)
		CHECK(retry_lanes_take(lanes, 0, &taken, &got) && got.pos.due == 1000 + i, "taken in order, %d", i);
	CHECK(!retry_lanes_take(lanes, 0, &taken, &got), "not more than its limit at once");
	set_limit(lanes, lane, 9);
	CHECK(retry_lanes_take(lanes, 0, &taken, &got), "its limit was raised");
	retry_lanes_stop(lanes, UINT64CONST(1) << RETRY_SLOT(lane->hash));
	ended(lanes, lane);
	CHECK(!retry_lanes_take(lanes, 0, &taken, &got), "a lane that is stopped sends none");
	CHECK_INT(retry_lanes_in_flight(lanes), 8, "eight are under way");
	CHECK_INT(retry_lanes_queued(lanes), 23, "the others are queued");
	retry_lanes_drop(lanes, lane);
	CHECK_INT(retry_lanes_queued(lanes) + retry_lanes_count(lanes), 0, "a dropped lane leaves nothing queued");
	entry = make_entry(1000, 131);
	CHECK(!retry_lanes_holds(lanes, &entry.pos.id), "nor the ids of what it had queued");
}

static void
test_cancel(void)
{
	RetryLanes *lanes = make_lanes(64, 1000, 64, 8);
	RetryLane  *lane = retry_lanes_get(lanes, 1, 0, 0);
	RetryLane  *taken;
	RetryEntry	got;
	pg_uuid_t	id;

	push_many(lanes, lane, 1, 4);
	CHECK(retry_lanes_take(lanes, 0, &taken, &got), "the first is taken");
	for (int i = 1; i <= 3; i++)
	{
		id = make_id(i);
		retry_lanes_cancel(lanes, &id);
	}
	id = make_id(77);
	retry_lanes_cancel(lanes, &id);
	CHECK(retry_lanes_take(lanes, 0, &taken, &got) && got.pos.due == 1003, "cancelled ones are passed over");
	id = make_id(1);
	CHECK(retry_lanes_holds(lanes, &id), "one that was sent is still held");
	id = make_id(2);
	CHECK(!retry_lanes_holds(lanes, &id), "one that was queued is not");
	CHECK_INT(lane->in_flight, 2, "two are under way");

	push_many(lanes, lane, 50, 1);
	id = make_id(50);
	retry_lanes_cancel(lanes, &id);
	CHECK(!retry_lanes_take(lanes, 0, &taken, &got), "nothing but cancelled ones: nothing is taken");
	CHECK_INT(retry_lanes_queued(lanes), 0, "and nothing stays queued");
}

/* Many lanes share queues: each that comes later still gets some. */
static void
test_shares(void)
{
	RetryLanes *lanes = make_lanes(1000, 1000, 64, 64);
	RetryLane  *lane[64];
	RetryLane  *healthy;
	int			first = 0;
	int			least = 1000;

	for (int i = 0; i < 64; i++)
	{
		int			got;

		lane[i] = retry_lanes_get(lanes, i + 1, 0, 0);
		got = push_many(lanes, lane[i], 1000 * (i + 1), 1000);
		if (i == 0)
			first = got;
		least = Min(least, got);
	}
	CHECK(first > 100 && first <= 256, "the first lane got %d of 1000", first);
	CHECK(least >= 1, "the 64th flood still got %d", least);

	/* all queues are full: the flood's lanes are first in the heap */
	for (int i = 0; i < 64; i++)
	{
		RetryPos	pos = {.due = 2000 + i};

		while (push_many(lanes, lane[i], 100000 * (i + 1) + lane[i]->side[0].queued, 1) > 0)
			;
		retry_lane_note(lanes, &lane[i]->side[0], &pos);
	}
	healthy = retry_lanes_get(lanes, 5000, 5000, 0);
	{
		RetryPos	pos = {.due = 5000};

		retry_lane_note(lanes, &healthy->side[0], &pos);
	}
	CHECK(retry_lanes_due(lanes, 10000) == &healthy->side[0], "when queues are full, a lane with nothing queued is found");
	CHECK_INT(retry_lanes_next_due(lanes), 5000, "its time is the next one");
	CHECK_INT(push_many(lanes, healthy, 7777777, 5), 1, "and it may queue one");
	CHECK(retry_lanes_due(lanes, 10000) == NULL, "then there is no room for anybody");
	CHECK_INT(retry_lanes_next_due(lanes) == DT_NOEND, 1, "and nothing to wait for");

	for (int i = 0; i < 100; i++)
	{
		RetryLane  *taken;
		RetryEntry	got;

		if (retry_lanes_take(lanes, 0, &taken, &got))
		{
			ended(lanes, taken);
			retry_lane_forget_sent(lanes, taken, &got.pos.id);
		}
	}
	CHECK(retry_lanes_due(lanes, 10000) != NULL, "when some were sent, lanes are read again");
	CHECK(retry_lanes_due(lanes, 10000)->next_due < 2064, "the most urgent first");
}

static void
test_turns(void)
{
	RetryLanes *lanes = make_lanes(1000, 10000, 64, 60);
	RetryLane  *lane[10];
	int			taken_of[10] = {0};
	RetryLane  *taken;
	RetryEntry	got;
	bool		fair = true;

	for (int i = 0; i < 10; i++)
	{
		lane[i] = retry_lanes_get(lanes, i, 0, 0);
		push_many(lanes, lane[i], 1000 * (i + 1), i == 0 ? 100 : 3);
	}
	for (int n = 0; n < 30; n++)
	{
		if (!retry_lanes_take(lanes, 0, &taken, &got))
			fair = false;
		else
			taken_of[taken->hash]++;
		if (n == 9)
		{
			for (int i = 0; i < 10; i++)
				fair = fair && taken_of[i] == 1;
		}
	}
	CHECK(fair, "each lane once, before any a second time");
	for (int i = 0; i < 10; i++)
		fair = fair && taken_of[i] == 3;
	CHECK(fair, "thirty transfers are three for each of ten lanes");
	while (retry_lanes_take(lanes, 0, &taken, &got))
		taken_of[taken->hash]++;
	CHECK_INT(lane[0]->in_flight, 19, "one lane leaves half of what the others have not");
	CHECK_INT(retry_lanes_in_flight(lanes), 46, "which is free");
	push_many(lanes, lane[1], 50000, 1);
	CHECK(retry_lanes_take(lanes, 0, &taken, &got) && taken == lane[1], "for lanes that have less under way");
	taken = retry_lanes_get(lanes, 77, 0, 0);
	push_many(lanes, taken, 60000, 2);
	CHECK(retry_lanes_take(lanes, 0, &taken, &got) && taken->hash == 77, "and for one that has none");
}

/* Hundreds of lanes that hang and want more do not hide one that is well. */
static void
test_crowd(void)
{
	RetryLanes *lanes = make_lanes(1000, 100000, 256, 8);
	RetryLane  *taken;
	RetryEntry	got;
	int			sent = 0;

	for (int i = 0; i < 200; i++)
		push_many(lanes, retry_lanes_get(lanes, i, 0, 0), 1000 * (i + 1), 8);
	while (retry_lanes_take(lanes, 0, &taken, &got))
		sent++;
	CHECK_INT(sent, 224, "200 lanes use all but the last eighth");
	push_many(lanes, retry_lanes_get(lanes, 999, 0, 0), 900000, 2);
	CHECK(retry_lanes_take(lanes, 0, &taken, &got) && taken->hash == 999, "the lane that has none under way is next");
}

/* A lane that may have all transfers can. */
static void
test_all(void)
{
	RetryLanes *lanes = make_lanes(100, 100000, 64, 64);
	RetryLane  *taken;
	RetryEntry	got;
	int			sent = 0;

	push_many(lanes, retry_lanes_get(lanes, 1, 0, 0), 1, 200);
	while (retry_lanes_take(lanes, 0, &taken, &got))
		sent++;
	CHECK_INT(sent, 64, "a lane whose limit is that of the dispatcher may have all");
}

static void
test_cursor(void)
{
	RetryLanes *lanes = make_lanes(64, 1000, 64, 8);
	RetryLane  *lane = retry_lanes_get(lanes, 1, 0, 500);
	RetryPos	pos = {.due = 400};

	CHECK(lane->side[0].next_due == DT_NOEND && lane->side[0].cursor.due < 500, "a new lane is read from now on");
	pos.id = make_id(7);
	retry_lane_note(lanes, &lane->side[0], &pos);
	CHECK(lane->side[0].next_due == 400 && retry_pos_compare(&lane->side[0].cursor, &pos) < 0,
		  "a late entry lowers the cursor to just before it");
	pos.due = 600;
	retry_lane_note(lanes, &lane->side[0], &pos);
	CHECK(lane->side[0].next_due == 400 && lane->side[0].cursor.due <= 400, "a later one changes nothing");
	CHECK(retry_lanes_due(lanes, 399) == NULL, "not due before its time");
	CHECK(retry_lanes_due(lanes, 400) == &lane->side[0], "due at its time");
	retry_lane_advance(lanes, &lane->side[0], &pos, 700);
	CHECK(retry_lanes_due(lanes, 699) == NULL && retry_lanes_next_due(lanes) == 700, "read up to there");
	push_many(lanes, lane, 1, 20);
	CHECK(retry_lanes_due(lanes, 800) == NULL, "not read again before half of its queue is sent");
	CHECK_INT(retry_lane_oldest(lane), 700, "the oldest of what is queued and unread");
}

/* A leaf is locked: the others are read on, and nothing of it is passed over. */
static void
test_ahead(void)
{
	RetryLanes *lanes = make_lanes(1, 1000, 64, 8);
	RetryLane  *lane = retry_lanes_get(lanes, 1, 0, 500);
	RetryPos	cursor = lane->side[0].cursor;
	RetryPos	pos = {.due = 900};

	retry_lane_go_ahead(lanes, &lane->side[0], &pos, 1000);
	CHECK(retry_pos_compare(&lane->side[0].cursor, &cursor) == 0, "the cursor stays behind");
	CHECK(retry_lanes_next_due(lanes) == 1000, "it is looked at again at its time");
	CHECK(retry_lane_oldest(lane) <= cursor.due, "a checkpoint counts all after the cursor as unread");
	CHECK(retry_lanes_get(lanes, 2, 600, 700) == NULL && retry_lanes_find(lanes, 1) == lane,
		  "a lane that is ahead is not forgotten");
	pos.due = 800;
	retry_lane_note(lanes, &lane->side[0], &pos);
	CHECK(lane->side[0].next_due == 800 && retry_pos_compare(&lane->side[0].ahead, &pos) < 0 &&
		  retry_pos_compare(&lane->side[0].cursor, &cursor) == 0,
		  "a late entry lowers the place ahead, not the cursor");
	pos.due = 100;
	retry_lane_note(lanes, &lane->side[0], &pos);
	CHECK(retry_pos_compare(&lane->side[0].cursor, &pos) < 0, "one before the cursor lowers both");
	pos.due = 1200;
	retry_lane_advance(lanes, &lane->side[0], &pos, DT_NOEND);
	CHECK(!lane->side[0].is_ahead && retry_pos_compare(&lane->side[0].cursor, &pos) == 0 && retry_lane_oldest(lane) == DT_NOEND,
		  "when all leaves could be read the cursor has caught up");
	retry_lanes_unblock_due(lanes, 0);
	CHECK(retry_lanes_find(lanes, 1) == NULL && retry_lanes_find(lanes, 2) != NULL,
		  "and the lane may be forgotten, for the one that waits");

	/* one side's leaf is locked, the other's is not: attempts and tasks have indexes of their own */
	lane = retry_lanes_find(lanes, 2);
	pos.due = 900;
	retry_lane_go_ahead(lanes, &lane->side[RETRY_SIDE_RETRY], &pos, 1000);
	retry_lane_advance(lanes, &lane->side[RETRY_SIDE_FIRST], &pos, 2000);
	CHECK(retry_lanes_due(lanes, 1500) == &lane->side[RETRY_SIDE_RETRY] && lane->side[RETRY_SIDE_FIRST].cursor.due == 900,
		  "each side of a lane goes ahead by itself");
	CHECK(retry_lane_oldest(lane) < 900, "and both count for a checkpoint");
	CHECK(retry_lanes_get(lanes, 3, 600, 700) == NULL, "a lane with one side ahead is not forgotten");
}

/* As many lanes as may wait for a place. */
static void
fill_waiting(RetryLanes *lanes, int n, TimestampTz due, TimestampTz now)
{
	for (int i = 0; i < n; i++)
		CHECK(retry_lanes_get(lanes, 1000 + i, due, now) == NULL, "there is no place for lane %d", 1000 + i);
	CHECK_INT(retry_lanes_dormant(lanes), n, "they wait for one");
}

/* More lanes than have a place at once: all have their turn, first come first served. */
static void
test_wait_for_place(void)
{
	RetryLanes *lanes = make_lanes(4, 1000, 64, 8);
	RetryLane  *lane;
	RetryEntry	entry;
	RetryFlowEnd end = {0};
	int64		last = 0;

	for (int i = 0; i < 4; i++)
		push_many(lanes, retry_lanes_get(lanes, i, 100, 200), 100 * i + 1, 1);
	for (int i = 4; i < 12; i++)
		CHECK(retry_lanes_get(lanes, i, 100 + i, 200) == NULL, "no place for lane %d", i);
	CHECK_INT(retry_lanes_horizon(lanes), DT_NOEND, "no sweep is needed to find them");
	CHECK(retry_lanes_knows(lanes, 11), "they are known");
	CHECK(retry_lanes_get(lanes, 4, 50, 200) == NULL, "something earlier of one that waits");
	for (int turn = 0; turn < 13; turn++)
	{
		RetrySide  *side;

		retry_lanes_unblock_due(lanes, turn);
		while ((side = retry_lanes_due(lanes, 200)) != NULL)
		{
			RetryPos	pos = {.due = 200};

			lane = retry_side_lane(side);
			if (lane->hash >= 4 && side->which == RETRY_SIDE_FIRST)
			{
				CHECK_INT(side->next_due, lane->hash == 4 ? 50 : lane->hash == 100 ? 150 : 100 + lane->hash,
						  "it is read from where it has something");
				push_many(lanes, lane, 100 * (int) lane->hash + 1, 1);
			}
			retry_lane_advance(lanes, side, &pos, DT_NOEND);
		}
		CHECK(retry_lanes_take(lanes, turn, &lane, &entry), "one sends");
		if (lane->hash >= 4)
		{
			CHECK(lane->hash > last, "in the order in which they came");
			last = lane->hash;
		}
		retry_lane_forget_sent(lanes, lane, &entry.pos.id);
		retry_lane_transfer_ended(lanes, lane, &end, turn);
		CHECK(turn > 0 || retry_lanes_get(lanes, 100, 150, 200) == NULL,
			  "there would be a place, but a newcomer comes after those that wait");
	}
	CHECK_INT(last, 100, "the newcomer after them");
	CHECK_INT(retry_lanes_dormant(lanes), 0, "nobody waits");
	CHECK_INT(retry_lanes_horizon(lanes), DT_NOEND, "and nothing was forgotten that has something");
}

/* More lanes than are allowed now: no newcomer is lost, and they become fewer. */
static void
test_fewer_lanes(void)
{
	RetryLanes *lanes = make_lanes(20, 1000, 64, 8);
	RetryLaneLimits limits = {.max_lanes = 4,.max_queued = 1000,.max_in_flight = 64,.lane_max_in_flight = 8};

	for (int i = 0; i < 20; i++)
	{
		RetryLane  *lane = retry_lanes_get(lanes, i, 100, 200);

		if (i >= 3)
			push_many(lanes, lane, 100 * i + 1, 1);
	}
	retry_lanes_set_limits(lanes, &limits);
	for (int i = 50; i < 55; i++)
	{
		RetryLane  *lane = retry_lanes_get(lanes, i, 100, 200);

		CHECK(retry_lanes_knows(lanes, i), "lane %d has a place or waits for one", i);
		if (lane != NULL)
			push_many(lanes, lane, 100 * i + 1, 1);
	}
	CHECK_INT(retry_lanes_count(lanes), 19, "three were idle and gave way to two");
	CHECK_INT(retry_lanes_dormant(lanes), 3, "the others wait");
}

/* What is committed late while a sweep is under way, and finds no place. */
static void
test_late_in_sweep(void)
{
	RetryLanes *lanes = make_lanes(1, 1000, 64, 8);
	RetryLane  *lane = retry_lanes_get(lanes, 1, 0, 1000);
	RetryLane  *other;
	RetryPos	pos = {.due = 1000};

	retry_lane_note(lanes, &lane->side[0], &pos);
	fill_waiting(lanes, 4, 5000, 1000);
	CHECK(retry_lanes_get(lanes, 2, 900, 1000) == NULL, "no place: it waits to be read");
	CHECK_INT(retry_lanes_horizon(lanes), 900, "the horizon knows");
	retry_lanes_sweep_begin(lanes);
	CHECK(retry_lanes_get(lanes, 3, 500, 1000) == NULL, "a late one while it sweeps");
	CHECK_INT(retry_lanes_horizon(lanes), 500, "is known as well");
	pos.due = 1001;
	retry_lane_advance(lanes, &lane->side[0], &pos, 2000);
	CHECK(!retry_lanes_has_place(lanes, 1001), "that is for those that wait");
	retry_lanes_drop_slots(lanes, ~UINT64CONST(0));
	CHECK(retry_lanes_has_place(lanes, 1001), "the lane has been read: its place is free");
	other = retry_lanes_get(lanes, 3, 1001, 1001);
	CHECK(other != NULL && other->side[0].cursor.due < 500 && other->side[0].next_due <= 500,
		  "a lane made now reads what came late");
	retry_lanes_lower_horizon(lanes, 800);
	CHECK_INT(retry_lanes_horizon(lanes), 500, "a sweep that is broken off forgets nothing");
}

/*
 * The flow of a lane, here: two gates that the test opens and shuts.  A flow
 * says by its rules which lane it is of.
 */
#define SIM_LANES	40

typedef struct Gate
{
	int64		until_us;		/* 0: open */
	int			started;
} Gate;

static Gate gates[SIM_LANES][RETRY_SIDES];
static int	asked;

static Gate *
gate_of(const RetryFlow *flow, bool retry)
{
	return &gates[flow->rules.retry_floor][retry];
}

RetryGate
retry_flow_gate(RetryFlow *flow, bool retry, int64 now_us, int64 *until_us)
{
	Gate	   *gate = gate_of(flow, retry);

	asked++;
	*until_us = gate->until_us;
	return now_us < gate->until_us ? RETRY_GATE_BUDGET : RETRY_GATE_OPEN;
}

void
retry_flow_started(RetryFlow *flow, bool retry, int64 now_us)
{
	gate_of(flow, retry)->started++;
}

RetryBreakerNews
retry_flow_ended(RetryFlow *flow, const RetryFlowEnd *end, int64 now_us)
{
	if (flow != NULL)
		gate_of(flow, end->retry)->started--;
	return RETRY_BREAKER_NO_NEWS;
}

bool
retry_flow_at_rest(RetryFlow *flow, int64 now_us)
{
	return flow == NULL || (gate_of(flow, false)->until_us <= now_us && gate_of(flow, true)->until_us <= now_us);
}

/*
 * The simulation
 */
#define SIM_ENTRIES	3000

typedef struct Fact
{
	RetryPos	pos;			/* of the entry that is valid now */
	int			lane;
	int			attempts;
	bool		visible;
	bool		resolved;
	bool		flying;
	RetryLane  *in;				/* flying in */
	uint8		side;			/* from which it was taken */
	bool		in_second;		/* in the second leaf, which may be locked */
} Fact;

static Fact facts[SIM_ENTRIES];
static int	nfacts;
static RetryLanes *sim;
static TimestampTz now;
static bool sweeping;
static bool sweep_partial;
static bool locked;
static int	sweep_at;
static int	early;
static int	leaked;				/* through a gate that was shut */
static int	doubled;
static int	lost;
static int	gating = 2;		/* of 100 steps that move a gate */

static Fact *
fact_of(const pg_uuid_t *id)
{
	uint64		number = 0;

	for (int i = 8; i < 16; i++)
		number = (number << 8) | id->data[i];
	return &facts[number];
}

static int
side_of(const Fact *fact)
{
	return fact->attempts > 0 ? RETRY_SIDE_RETRY : RETRY_SIDE_FIRST;
}

static RetryEntry
entry_of(const Fact *fact)
{
	RetryEntry	entry = {.pos = fact->pos,.attempts = fact->attempts,.side = side_of(fact)};

	return entry;
}

/* A lane of the simulation, with a flow, which every other lane is given late. */
static RetryLane *
sim_lane(const Fact *fact)
{
	RetryLane  *lane = retry_lanes_get(sim, fact->lane, fact->pos.due, now);

	if (lane != NULL && lane->flow == NULL && lane->in_flight == 0)
	{
		RetryFlowRules rules = {.retry_floor = fact->lane};

		/* some count more than others, and some are before all others */
		rules.weight = 1 + fact->lane % 3;
		rules.high = fact->lane % 7 == 3;
		if (fact->lane % 2 == 0 || gating > 2)
			(void) retry_lane_flow(sim, lane);
		if (lane->flow != NULL)
			lane->flow->rules = rules;
		else
			memset(gates[fact->lane], 0, sizeof(gates[fact->lane]));
		retry_lane_set_rules(sim, lane, &rules);
	}
	return lane;
}

/* From when on dormant lanes have something due. */
static TimestampTz dormant_due[SIM_LANES];
static int	most_dormant;

static void
note_dormant(int64 hash, TimestampTz due, void *arg)
{
	dormant_due[hash] = due;
}

/* Is there a way by which the entry will be found? */
static bool
will_be_found(const Fact *fact)
{
	RetryLane  *lane = retry_lanes_find(sim, fact->lane);

	if (fact->resolved || !fact->visible || retry_lanes_holds(sim, &fact->pos.id))
		return true;
	if (lane == NULL && retry_lanes_knows(sim, fact->lane))
		return dormant_due[fact->lane] <= fact->pos.due;
	if (lane == NULL)
		return retry_lanes_horizon(sim) <= fact->pos.due;
	if (retry_pos_compare(&fact->pos, &lane->side[side_of(fact)].cursor) <= 0)
		return false;
	/* while a leaf is locked it is looked at now and then */
	if (lane->side[side_of(fact)].is_ahead)
		return lane->side[side_of(fact)].next_due <= Max(fact->pos.due, now + 1000);
	return lane->side[side_of(fact)].next_due <= fact->pos.due;
}

static void
sim_feed(Fact *fact)
{
	RetryLane  *lane = sim_lane(fact);
	RetrySide  *side;

	fact->visible = true;
	if (lane == NULL || retry_lanes_holds(sim, &fact->pos.id))
		return;
	side = &lane->side[side_of(fact)];
	if (fact->pos.due <= now && side->next_due > fact->pos.due)
	{
		RetryEntry	entry = entry_of(fact);

		if (retry_lane_push(sim, lane, &entry))
		{
			if (!side->is_ahead && retry_pos_compare(&fact->pos, &side->cursor) > 0)
				retry_lane_advance(sim, side, &fact->pos, side->next_due);
			return;
		}
	}
	retry_lane_note(sim, side, &fact->pos);
}

/* The first visible entry of a side (-1: of both) after a place, resolved or not. */
static Fact *
first_after(int lane, int side, const RetryPos *pos)
{
	Fact	   *best = NULL;

	for (int i = 0; i < nfacts; i++)
	{
		Fact	   *f = &facts[i];

		if (f->lane == lane && f->visible && (side < 0 || side == side_of(f)) && !(locked && f->in_second) &&
			retry_pos_compare(&f->pos, pos) > 0 &&
			(best == NULL || retry_pos_compare(&f->pos, &best->pos) < 0))
			best = f;
	}
	return best;
}

static bool
sim_refill(void)
{
	RetrySide  *side = retry_lanes_due(sim, now);
	RetryLane  *lane;
	RetryPos	cursor;
	Fact	   *next;
	int			budget = 20;

	if (side == NULL)
		return false;
	lane = retry_side_lane(side);
	cursor = side->is_ahead && locked ? side->ahead : side->cursor;
	while ((next = first_after((int) lane->hash, side->which, &cursor)) != NULL)
	{
		RetryEntry	entry = entry_of(next);

		if (next->pos.due > now || budget-- == 0)
			break;
		if (!next->resolved && !retry_lane_push(sim, lane, &entry))
			break;
		cursor = next->pos;
	}
	if (next == NULL || next->pos.due > now)
	{
		cursor.due = now;
		memset(cursor.id.data, 0xFF, UUID_LEN);
	}
	if (locked)
		retry_lane_go_ahead(sim, side, &cursor, Min(next == NULL ? DT_NOEND : next->pos.due, now + 1000));
	else
		retry_lane_advance(sim, side, &cursor, next == NULL ? DT_NOEND : next->pos.due);
	return true;
}

/* A few jumps of a sweep, as sweep.c does them. */
static void
sim_sweep(int budget)
{
	if (!sweeping)
	{
		if (retry_lanes_horizon(sim) > now)
			return;
		sweeping = true;
		sweep_partial = false;
		sweep_at = 0;
		retry_lanes_sweep_begin(sim);
	}
	sweep_partial |= locked;
	for (; sweep_at < SIM_LANES && budget-- > 0; sweep_at++)
	{
		RetryPos	from = {.due = retry_lanes_horizon(sim)};
		RetryLane  *lane;
		Fact	   *first;

		if (retry_lanes_knows(sim, sweep_at))
			continue;
		from = retry_pos_before(&from);
		first = first_after(sweep_at, -1, &from);
		if (first == NULL)
			continue;
		if (first->pos.due > now)
		{
			retry_lanes_sweep_saw(sim, first->pos.due);
			continue;
		}
		if (!retry_lanes_has_place(sim, now))
			return;
		lane = sim_lane(first);
		if (lane != NULL)
			retry_lane_note(sim, &lane->side[side_of(first)], &first->pos);
	}
	if (sweep_at < SIM_LANES)
		return;
	sweeping = false;
	if (sweep_partial)
		retry_lanes_lower_horizon(sim, DT_NOEND);
	else
		retry_lanes_sweep_end(sim);
}

static bool
sim_send(void)
{
	RetryLane  *lane;
	RetryEntry	entry;
	Fact	   *fact;

	retry_lanes_unblock_due(sim, now);
	if (!retry_lanes_take(sim, now, &lane, &entry))
		return false;
	fact = fact_of(&entry.pos.id);
	leaked += lane->flow != NULL && now < gates[fact->lane][entry.side].until_us;
	if (nfacts < SIM_ENTRIES && check_random() % 20 == 0)
	{
		block(sim, lane, &entry, now + check_random() % MINUTE);
		return true;
	}
	early += entry.pos.due > now;
	doubled += fact->flying || fact->resolved || entry.attempts != fact->attempts;
	fact->flying = true;
	fact->in = lane;
	fact->side = entry.side;
	return true;
}

/* Ends one flying transfer, with a retry now and then, or puts it back. */
static void
sim_end(Fact *fact)
{
	uint64		what = check_random() % 10;
	RetryFlowEnd end = {.kind = RETRY_FLOW_NEUTRAL,.retry = fact->side == RETRY_SIDE_RETRY};
	RetryLane  *lane;

	fact->flying = false;
	if (what == 0)
	{
		retry_lane_forget_sent(sim, fact->in, &fact->pos.id);
		retry_lane_note(sim, &fact->in->side[fact->side], &fact->pos);
		end.unsent = true;
		retry_lane_transfer_ended(sim, fact->in, &end, now);
		return;
	}
	retry_lane_transfer_ended(sim, fact->in, &end, now);
	retry_lane_forget_sent(sim, fact->in, &fact->pos.id);
	if (what > 3 || fact->attempts > 3)
	{
		fact->resolved = true;
		return;
	}
	fact->attempts++;
	fact->pos.due = now + check_random() % (2 * MINUTE);
	lane = sim_lane(fact);
	if (lane != NULL)
		retry_lane_note(sim, &lane->side[RETRY_SIDE_RETRY], &fact->pos);
}

/* Shuts a gate, or opens it and says so. */
static void
sim_gate(void)
{
	int			number = (int) (check_random() % SIM_LANES);
	RetryLane  *lane = retry_lanes_find(sim, number);
	Gate	   *gate = &gates[number][check_random() % RETRY_SIDES];

	if (lane == NULL || lane->flow == NULL)
		return;
	switch (check_random() % 3)
	{
		case 0:
			gate->until_us = now + check_random() % (3 * MINUTE);
			break;
		case 1:
			gate->until_us = PG_INT64_MAX;
			break;
		default:
			gate->until_us = 0;
			retry_lane_unblock(sim, lane);
	}
}

static void
sim_new_fact(void)
{
	Fact	   *fact = &facts[nfacts];
	uint64		kind = check_random() % 10;

	if (nfacts == SIM_ENTRIES)
		return;
	memset(fact, 0, sizeof(Fact));
	fact->pos.id = make_id(nfacts++);
	fact->lane = (int) (check_random() % SIM_LANES);
	if (check_random() % 3 == 0)
		fact->lane %= 3;		/* three lanes are busy */
	fact->in_second = !locked && check_random() % 2 == 0;
	fact->pos.due = now;
	if (kind < 3)
		fact->pos.due += check_random() % (5 * MINUTE);
	if (kind == 9)
		fact->pos.due -= check_random() % (5 * MINUTE); /* committed late */
	sim_feed(fact);
}

static void
sim_step(void)
{
	uint64		what = check_random() % 100;

	if (what < 40)
		sim_new_fact();
	else if (what < 55)
		(void) sim_refill();
	else if (what < 65)
		sim_sweep(1 + (int) (check_random() % 10));
	else if (what < 80)
		(void) sim_send();
	else if (what < 80 + gating)
		sim_gate();
	else if (what < 97)
	{
		Fact	   *fact = &facts[nfacts == 0 ? 0 : check_random() % nfacts];

		/* with many gates, all that can fly does, so that they are asked */
		while (gating > 2 && fact < &facts[nfacts] && !fact->flying)
			fact++;
		if (fact < &facts[nfacts] && fact->flying)
			sim_end(fact);
	}
	else if (what < 98)
		locked = check_random() % 4 == 0;
	else if (what < 99)
		now += check_random() % MINUTE;
	else if (check_random() % 20 == 0)
	{
		retry_lanes_lower_horizon(sim, now - check_random() % MINUTE);
		sweeping = false;
	}
	retry_lanes_each_dormant(sim, note_dormant, NULL);
	most_dormant = Max(most_dormant, retry_lanes_dormant(sim));
	for (int i = 0; i < nfacts; i++)
		lost += !will_be_found(&facts[i]);
}

static void
simulate(int32 max_lanes, int32 max_queued, int32 max_in_flight)
{
	int			unresolved = 0;
	int			unbalanced = 0;

	sim = make_lanes(max_lanes, max_queued, max_in_flight, 4);
	nfacts = early = doubled = lost = leaked = 0;
	memset(gates, 0, sizeof(gates));
	sweeping = locked = false;
	now = 1000 * MINUTE;
	while (nfacts < SIM_ENTRIES && lost == 0)
		sim_step();
	for (int i = 0; i < SIM_LANES; i++)
		gates[i][0].until_us = gates[i][1].until_us = 0;
	retry_lanes_unblock_all(sim);
	locked = false;
	for (int i = 0; i < 2000; i++)
	{
		now += MINUTE / 10;
		for (int j = 0; j < nfacts; j++)
		{
			if (facts[j].flying)
				sim_end(&facts[j]);
		}
		while (sim_refill())
			;
		sim_sweep(SIM_LANES);
		while (sim_send())
			;
	}
	for (int i = 0; i < nfacts; i++)
		unresolved += !facts[i].resolved;
	for (int i = 0; i < SIM_LANES; i++)
		unbalanced += gates[i][0].started != 0 || gates[i][1].started != 0;
	CHECK_INT(unbalanced, 0, "the flow of a lane was told of the end of each start");
	CHECK_INT(lost, 0, psprintf("%d lanes, %d queued: what is untaken can always be found", max_lanes, max_queued));
	CHECK_INT(early, 0, "nothing is sent early");
	CHECK_INT(doubled, 0, "nothing is sent twice");
	CHECK_INT(leaked, 0, "nothing is sent through a shut gate");
	CHECK_INT(unresolved, 0, "everything is sent in the end");
	CHECK(retry_lanes_count(sim) <= max_lanes, "not more lanes than allowed");
	CHECK_INT(retry_lanes_queued(sim) + retry_lanes_in_flight(sim), 0, "nothing is left over");
}

/* A lane that is blocked sends nothing, keeps its order, and others go on. */
static void
test_block(void)
{
	RetryLanes *lanes = make_lanes(10, 1000, 16, 4);
	RetryLane  *a = retry_lanes_get(lanes, 1, 0, 0);
	RetryLane  *b = retry_lanes_get(lanes, 2, 0, 0);
	RetryLane  *lane;
	RetryEntry	entry;
	RetryEntry	first;
	int64		until;

	push_many(lanes, a, 100, 8);
	CHECK(retry_lanes_take(lanes, 0, &lane, &first) && lane == a, "one is taken");
	block(lanes, a, &first, 500);
	CHECK(a->side[0].queued == 8 && a->in_flight == 0 && retry_lanes_in_flight(lanes) == 0, "and given back");
	CHECK(retry_lanes_holds(lanes, &first.pos.id), "it is still known");
	CHECK(!retry_lanes_take(lanes, 0, &lane, &entry), "its lane sends nothing");
	CHECK_INT(retry_lanes_next_unblock(lanes), 500, "before its moment");
	CHECK(retry_lane_gate(a, RETRY_SIDE_FIRST, &until) == RETRY_GATE_TARGETS && until == 500, "which says why");
	push_many(lanes, b, 300, 1);
	CHECK(push_many(lanes, a, 200, 1) == 0 && retry_lanes_take(lanes, 0, &lane, &entry) && lane == b &&
		  !retry_lanes_take(lanes, 0, &lane, &entry), "nor does it take more room, and another sends");
	block(lanes, b, &entry, 900);
	retry_lanes_cancel(lanes, &first.pos.id);
	retry_lanes_unblock_due(lanes, 499);
	CHECK(!retry_lanes_take(lanes, 499, &lane, &entry), "not a moment earlier");
	retry_lanes_unblock_due(lanes, 500);
	CHECK(retry_lanes_take(lanes, 500, &lane, &entry) && lane == a && entry.pos.due == 1001,
		  "then it goes on, with the next when the first was cancelled meanwhile");
	CHECK_INT(retry_lanes_next_unblock(lanes), 900, "and the other is next");
	block(lanes, a, &entry, 2000);
	retry_lane_unblock(lanes, a);
	CHECK(retry_lanes_take(lanes, 501, &lane, &entry) && lane == a && entry.pos.due == 1001,
		  "who knows better unblocks it, and order is kept");
	block(lanes, a, &entry, PG_INT64_MAX);
	CHECK_INT(retry_lanes_next_unblock(lanes), 900, "one that waits to be told has no moment");
	retry_lanes_unblock_all(lanes);
	CHECK(!a->blocked && !b->blocked, "a change that may concern all unblocks all");
	CHECK(retry_lanes_take(lanes, 502, &lane, &entry), "so they go on");
	block(lanes, lane, &entry, 3000);
	retry_lanes_drop(lanes, lane);
	retry_lanes_unblock_due(lanes, 4000);
	CHECK_INT(retry_lanes_next_unblock(lanes), PG_INT64_MAX, "a lane that is dropped is not waited for");
}

/* Retries that are held up hold up nothing but themselves. */
static void
test_gates(void)
{
	RetryLanes *lanes = make_lanes(10, 1000, 16, 4);
	RetryLane  *a = retry_lanes_get(lanes, 1, 0, 0);
	RetryFlowRules rules = {.retry_floor = 1};
	RetryPos	pos = {.due = 2000};
	RetryEntry	entry = make_entry(10, 500);
	RetryEntry	wanted;
	RetryLane  *lane;
	int64		until;

	memset(gates, 0, sizeof(gates));
	retry_lane_flow(lanes, a)->rules = rules;
	entry.side = RETRY_SIDE_RETRY;
	CHECK(retry_lane_push(lanes, a, &entry), "a retry is queued");
	entry = make_entry(11, 501);
	entry.side = RETRY_SIDE_RETRY;
	(void) retry_lane_push(lanes, a, &entry);
	push_many(lanes, a, 1, 6);
	gates[1][RETRY_SIDE_RETRY].until_us = 100;
	CHECK(retry_lanes_take(lanes, 0, &lane, &entry) && entry.pos.due == 1000,
		  "the gate is shut for retries: a first attempt goes before an earlier retry");
	asked = 0;
	CHECK(retry_lanes_take(lanes, 0, &lane, &entry) && entry.pos.due == 1001, "and the next");
	CHECK_INT(asked, 1, "a gate that said when is not asked before");
	CHECK(retry_lane_gate(a, RETRY_SIDE_RETRY, &until) == RETRY_GATE_BUDGET && until == 100, "it said why");
	CHECK_INT(retry_lanes_next_unblock(lanes), 100, "its moment is known");
	entry = make_entry(12, 502);
	entry.side = RETRY_SIDE_RETRY;
	CHECK(!retry_lane_push(lanes, a, &entry), "what cannot go stays where it is");
	wanted = make_entry(900, 501);
	wanted.attempts = 3;
	retry_lane_promote(lanes, a, &wanted);
	CHECK(a->side[RETRY_SIDE_RETRY].queued == 2, "one that was asked for after another attempt does not");
	wanted.attempts = 0;
	retry_lane_promote(lanes, a, &wanted);
	CHECK(a->side[RETRY_SIDE_RETRY].queued == 1 && a->side[RETRY_SIDE_FIRST].queued == 5,
		  "a retry that was asked for goes with what was asked for");
	CHECK(a->side[RETRY_SIDE_FIRST].queue[(a->side[RETRY_SIDE_FIRST].queue_head + 4) % a->side[RETRY_SIDE_FIRST].queue_size].pos.due == 900,
		  "and would be read again from where that was asked");
	retry_lanes_unblock_due(lanes, 100);
	CHECK(retry_lanes_take(lanes, 100, &lane, &entry) && entry.pos.due == 10 && entry.side == RETRY_SIDE_RETRY,
		  "at that moment the retry goes first");
	CHECK_INT(gates[1][RETRY_SIDE_RETRY].started, 1, "its start was told");

	set_limit(lanes, a, 16);
	gates[1][RETRY_SIDE_FIRST].until_us = PG_INT64_MAX;
	CHECK(!retry_lanes_take(lanes, 100, &lane, &entry), "shut until told");
	retry_lane_note(lanes, &a->side[RETRY_SIDE_FIRST], &pos);
	CHECK(retry_lanes_due(lanes, 3000) == NULL, "what may not be sent is not read");
	gates[1][RETRY_SIDE_FIRST].until_us = 0;
	CHECK(!retry_lanes_take(lanes, 100, &lane, &entry), "nobody told it");
	ended(lanes, a);
	CHECK(retry_lanes_take(lanes, 100, &lane, &entry), "the end of a transfer asks the gate again");
	gates[1][RETRY_SIDE_FIRST].until_us = PG_INT64_MAX;
	CHECK(!retry_lanes_take(lanes, 100, &lane, &entry), "shut once more");
	gates[1][RETRY_SIDE_FIRST].until_us = 0;
	retry_lane_unblock(lanes, a);
	CHECK(retry_lanes_take(lanes, 100, &lane, &entry), "and so does whoever changed something");

	retry_lane_pause(lanes, a, true);
	CHECK(!retry_lanes_take(lanes, 100, &lane, &entry) && retry_lanes_next_due(lanes) == DT_NOEND,
		  "a paused lane is neither sent from nor read");
	retry_lane_pause(lanes, a, false);
	CHECK(retry_lanes_take(lanes, 100, &lane, &entry) && retry_lanes_next_due(lanes) == 2000, "then it is");
}

/* The heap against a plain look at all lanes. */
static TimestampTz earliest;

static void
look(RetryLane *lane, void *arg)
{
	earliest = Min(earliest, Min(lane->side[0].next_due, lane->side[1].next_due));
}

static void
test_heap(void)
{
	RetryLanes *lanes = make_lanes(1000, 100000, 64, 8);
	bool		right = true;

	for (int i = 0; i < 20000; i++)
	{
		RetryLane  *lane = retry_lanes_get(lanes, check_random() % 300, 0, 0);
		RetryPos	pos = {.due = 1 + check_random() % 1000000};
		RetrySide  *side;

		/* mostly it grows, then it is emptied from the top */
		if (i % 2000 > 1400 && (side = retry_lanes_due(lanes, DT_NOEND - 1)) != NULL)
			retry_lane_advance(lanes, side, &pos, DT_NOEND);
		else if (check_random() % 20 == 0)
			retry_lanes_drop(lanes, retry_lanes_get(lanes, check_random() % 300, 0, 0));
		else if (lane != NULL)
			retry_lane_advance(lanes, &lane->side[i % 2], &pos, pos.due);
		earliest = DT_NOEND;
		retry_lanes_each(lanes, look, NULL);
		right = right && retry_lanes_next_due(lanes) == earliest;
	}
	CHECK(right, "after each of 20000 changes the heap names the earliest lane");
}

/* Sends "n" with "m" at once, those that took longest first; counts them by lane. */
static void
run_transfers(RetryLanes *lanes, int n, int m, int *sent_of)
{
	RetryLane  *under_way[64];
	int			first = 0;
	int			count = 0;

	for (int i = 0; i < n; i++)
	{
		RetryLane  *lane;
		RetryEntry	entry;

		while (count < m && retry_lanes_take(lanes, 0, &lane, &entry))
		{
			sent_of[lane->hash]++;
			retry_lane_forget_sent(lanes, lane, &entry.pos.id);
			under_way[(first + count++) % 64] = lane;
		}
		if (count == 0)
			return;
		ended(lanes, under_way[first++ % 64]);
		count--;
	}
	while (count-- > 0)
		ended(lanes, under_way[first++ % 64]);
}

/* Fills the queues of lanes 0 to n - 1 up, as refilling does all the time. */
static void
fill(RetryLanes *lanes, int n)
{
	static uint64 number = 1;

	for (int i = 0; i < n; i++)
		number += push_many(lanes, retry_lanes_get(lanes, i, 0, 0), number, 1000) + 1;
}

static void
test_weights(void)
{
	RetryLanes *lanes = make_lanes(100, 100000, 32, 16);
	int			sent_of[5] = {0};
	RetryFlowRules rules = {.weight = 3};

	for (int i = 0; i < 300; i++)
	{
		fill(lanes, 2);
		run_transfers(lanes, 10, 32, sent_of);
	}
	CHECK(abs(sent_of[0] - sent_of[1]) <= (sent_of[0] + sent_of[1]) / 40, "two equal lanes, equal shares: %d and %d",
		  sent_of[0], sent_of[1]);
	retry_lane_set_rules(lanes, retry_lanes_find(lanes, 0), &rules);
	for (int m = 4; m <= 32; m *= 2)
	{
		memset(sent_of, 0, sizeof(sent_of));
		for (int i = 0; i < 100; i++)
		{
			fill(lanes, 2);
			run_transfers(lanes, 40, m, sent_of);
		}
		CHECK(sent_of[0] > sent_of[1] * 2 && sent_of[0] < sent_of[1] * 4,
			  "weights of 3 and 1 with %d at once: %d and %d", m, sent_of[0], sent_of[1]);
	}
}

/* A lane that hangs, and ten of them, leave enough to the others. */
static void
test_hanging(void)
{
	RetryLanes *lanes = make_lanes(100, 100000, 256, 250);
	RetryLane  *lane;
	RetryEntry	entry;
	RetryFlowRules rules = {.max_in_flight = 256};
	int			of_one = 0;

	push_many(lanes, retry_lanes_get(lanes, 50, 0, 0), 5000000, 1);
	(void) retry_lanes_take(lanes, 0, &lane, &entry);
	fill(lanes, 1);
	while (retry_lanes_take(lanes, 0, &lane, &entry))
		of_one++;
	CHECK_INT(of_one, 128, "a lane beside another that has some under way has half at most");
	fill(lanes, 10);
	while (retry_lanes_take(lanes, 0, &lane, &entry))
		;
	CHECK(retry_lanes_in_flight(lanes) <= 256 - 256 / 8, "ten leave an eighth: %d", retry_lanes_in_flight(lanes));
	push_many(lanes, retry_lanes_get(lanes, 60, 0, 0), 6000000, 1);
	CHECK(retry_lanes_take(lanes, 0, &lane, &entry) && lane->hash == 60, "which is for a lane that comes later");
	retry_lane_set_rules(lanes, retry_lanes_find(lanes, 0), &rules);
	fill(lanes, 1);
	while (retry_lanes_take(lanes, 0, &lane, &entry))
		fill(lanes, 1);
	CHECK_INT(retry_lanes_in_flight(lanes), 256, "whoever is explicitly allowed all has all");
}

/* Hundreds that hang, with a transfer each, have half of all together. */
static void
test_hundreds_hang(void)
{
	RetryLanes *lanes = make_lanes(1000, 100000, 256, 32);
	RetryFlowEnd timeout = {.kind = RETRY_FLOW_FAILED,.measured = RETRY_FLOW_FAILED,.latency_us = 30 * USECS_PER_SEC};
	RetryFlowEnd refused = {.kind = RETRY_FLOW_FAILED,.measured = RETRY_FLOW_FAILED,.latency_us = 100};
	RetryFlowEnd neither = {.kind = RETRY_FLOW_NEUTRAL,.measured = RETRY_FLOW_NEUTRAL,.latency_us = 30 * USECS_PER_SEC};
	RetryLane  *under_way[256];
	RetryLane  *lane;
	RetryEntry	entry;
	int			n = 0;

	for (int i = 0; i < 600; i++)
		push_many(lanes, retry_lanes_get(lanes, i, 0, 0), 1000 * (i + 1), 20);
	for (int i = 0; i < 600; i++)
	{
		if (n == 256)
			(void) retry_lane_transfer_ended(lanes, under_way[i % 256], &timeout, 0);
		else
			n++;
		CHECK(retry_lanes_take(lanes, 0, &under_way[i % 256], &entry), "they all come to their first turn");
	}
	for (int i = 600; i < 600 + 256; i++)
		(void) retry_lane_transfer_ended(lanes, under_way[i % 256], &timeout, 0);
	CHECK_INT(retry_lanes_in_flight(lanes), 0, "all of them have hung");
	n = 0;
	while (retry_lanes_take(lanes, 0, &under_way[n], &entry))
		n++;
	CHECK_INT(n, 128, "then they have half of all");
	push_many(lanes, retry_lanes_get(lanes, 900, 0, 0), 5000000, 100);
	for (int i = 0; i < 100; i++)
	{
		CHECK(retry_lanes_take(lanes, 0, &lane, &entry) && lane->hash == 900, "whoever is well goes on");
		ended(lanes, lane);
	}
	CHECK(!retry_lanes_take(lanes, 0, &lane, &entry), "and they do not");

	(void) retry_lane_transfer_ended(lanes, under_way[0], &neither, 0);
	CHECK(retry_lanes_take(lanes, 0, &under_way[0], &entry), "one ends, and another may go");
	CHECK(!retry_lanes_take(lanes, 0, &lane, &entry), "one");
	ended(lanes, under_way[0]);
	(void) retry_lane_transfer_ended(lanes, under_way[1], &refused, 0);
	for (n = 0; retry_lanes_take(lanes, 0, &lane, &entry); n++)
		;
	CHECK(n > 2, "whoever ends well, or fails at once, hangs no more: %d", n);
}

/* Dead lanes with backlogs do not keep one that is well out of memory. */
/* Who watches lanes come may give them a flow. */
static int	came;
static int	came_without_flow;

static void
watch_third(RetryLane *lane, void *arg)
{
	if (lane->hash != 3)
		return;
	came++;
	came_without_flow += lane->flow == NULL;
	(void) retry_lane_flow(arg, lane);
}

static void
test_dormant(void)
{
	RetryLanes *lanes = make_lanes(8, 1000, 64, 8);
	RetryLaneHooks hooks = {.made = watch_third,.arg = lanes};
	RetryFlowRules rules = {.retry_floor = 3};
	RetryLane  *lane;
	RetryEntry	entry;

	retry_lanes_set_hooks(lanes, &hooks);
	memset(gates, 0, sizeof(gates));
	for (int i = 0; i < 8; i++)
	{
		push_many(lanes, retry_lanes_get(lanes, i, 0, 0), 100 * (i + 1), 3);
		CHECK(retry_lanes_take(lanes, 100, &lane, &entry), "lane %d sends", i);
		if (i == 3)
		{
			retry_lane_flow(lanes, lane)->rules = rules;
			gates[3][RETRY_SIDE_FIRST].until_us = 5 * MINUTE;
			CHECK(!retry_lanes_take(lanes, 100, &lane, &entry) || lane->hash != 3, "its gate is shut");
			lane = retry_lanes_find(lanes, 3);
		}
		if (i < 6)
			block(lanes, lane, &entry, i == 0 ? 200 : MINUTE + i);
	}
	lane = retry_lanes_get(lanes, 20, 5000, 6000);
	CHECK(lane != NULL, "a newcomer gets a place");
	retry_lane_note_both(lanes, lane, 5000);
	CHECK(retry_lanes_find(lanes, 0) != NULL && retry_lanes_find(lanes, 1) == NULL && retry_lanes_knows(lanes, 1),
		  "that of a lane which is closed for long");
	CHECK_INT(retry_lanes_dormant(lanes), 1, "which is dormant");
	CHECK(!retry_lanes_holds(lanes, &(pg_uuid_t){{[15] = 201}}), "what it had queued is on disk alone");
	CHECK(retry_lanes_get(lanes, 1, 50, 6000) == NULL && retry_lanes_horizon(lanes) == DT_NOEND,
		  "something new of it needs no sweep");
	retry_lanes_each_dormant(lanes, note_dormant, NULL);
	CHECK_INT(dormant_due[1], 50, "it is remembered");
	for (int i = 0; i < 4; i++)
	{
		lane = retry_lanes_get(lanes, 30 + i, 5000, 6000);
		CHECK(lane != NULL, "as many newcomers as lanes are closed, %d", i);
		retry_lane_note_both(lanes, lane, 5000);
	}
	CHECK(retry_lanes_get(lanes, 40, 5000, 6000) == NULL && retry_lanes_horizon(lanes) == DT_NOEND,
		  "after that they wait");
	retry_lanes_drop_slots(lanes, UINT64CONST(1) << RETRY_SLOT(40));
	CHECK_INT(retry_lanes_next_unblock(lanes), 200, "the first moment");
	retry_lanes_unblock_due(lanes, MINUTE);
	CHECK(retry_lanes_find(lanes, 1) == NULL, "not before its moment");
	CHECK_INT(retry_lanes_next_unblock(lanes), MINUTE + 1, "which is known");
	for (int i = 0; i < 4; i++)
		retry_lanes_drop(lanes, retry_lanes_find(lanes, 30 + i));
	retry_lanes_unblock_due(lanes, 2 * MINUTE);
	lane = retry_lanes_find(lanes, 1);
	CHECK(lane != NULL && lane->side[0].next_due == 50 && lane->side[1].next_due == 50 && lane->side[0].cursor.due < 50,
		  "then it is read again from where it was");
	CHECK(retry_lanes_find(lanes, 3) == NULL || retry_lanes_find(lanes, 3)->flow != NULL, "with its flow");
	retry_lanes_unblock_due(lanes, 6 * MINUTE);
	CHECK(retry_lanes_find(lanes, 3) != NULL && came == 2, "who watches is told once that it is back: %d", came);
	CHECK_INT(came_without_flow, 1, "and then it has its flow already");
	retry_lanes_drop_slots(lanes, ~UINT64CONST(0));
	CHECK_INT(retry_lanes_count(lanes) + retry_lanes_dormant(lanes), 0, "lanes of another dispatcher are gone at once");
}

/* Something that was committed late lies before the head that an ordered lane waits for. */
static void
test_early(void)
{
	RetryLanes *lanes = make_lanes(2, 1000, 64, 8);
	RetryPos	head = {.due = 5000};
	RetryPos	late = {.due = 4000};

	for (int i = 1; i <= 2; i++)
	{
		RetryLane  *lane = retry_lanes_get(lanes, i, 5000, 6000);

		lane->ordered = true;
		retry_lane_advance(lanes, &lane->side[RETRY_SIDE_FIRST], &head, DT_NOEND);
		retry_lane_advance(lanes, &lane->side[RETRY_SIDE_RETRY], &head, MINUTE);
		retry_lane_wait_behind(lanes, lane, &head);
		CHECK(!retry_lane_early(lane) && retry_lane_oldest(lane) == MINUTE, "it is due when its head is");
		if (i == 2)
			continue;
		retry_lane_note(lanes, &lane->side[RETRY_SIDE_FIRST], &late);
		retry_lane_advance(lanes, &lane->side[RETRY_SIDE_FIRST], &lane->side[RETRY_SIDE_FIRST].cursor, DT_NOEND);
		retry_lane_wait_behind(lanes, lane, &head);
		CHECK(retry_lane_early(lane) && retry_lane_oldest(lane) <= 4000, "or from what lies before it");
	}
	CHECK(retry_lanes_get(lanes, 3, 5000, 6000) != NULL && retry_lanes_find(lanes, 2) == NULL && !retry_lanes_knows(lanes, 2),
		  "one whose head tells all is forgotten");
	CHECK_INT(retry_lanes_horizon(lanes), MINUTE, "until its head is due");
	retry_lane_note_both(lanes, retry_lanes_find(lanes, 3), 5000);
	CHECK(retry_lanes_get(lanes, 4, 5000, 6000) != NULL && retry_lanes_find(lanes, 1) == NULL && retry_lanes_knows(lanes, 1),
		  "the other is dormant");
	retry_lanes_each_dormant(lanes, note_dormant, NULL);
	CHECK(dormant_due[1] <= 4000, "and what lies before its head is remembered");
	CHECK_INT(retry_lanes_next_unblock(lanes), 10 * 1000 * 1000, "it is looked at now and then, for the clock may be set");
	retry_lanes_drop(lanes, retry_lanes_find(lanes, 3));
	CHECK(retry_lanes_get(lanes, 1, 5500, 6000) == NULL, "something new of it");
	retry_lanes_unblock_due(lanes, 1);
	CHECK(retry_lanes_find(lanes, 1) != NULL && retry_lanes_find(lanes, 1)->side[RETRY_SIDE_FIRST].cursor.due <= 4000,
		  "brings it back at once, to be read from there");
}

static void
test_high(void)
{
	RetryLanes *lanes = make_lanes(200, 100000, 64, 32);
	RetryFlowRules rules = {.weight = 1,.high = true};
	RetryLane  *high = retry_lanes_get(lanes, 100, 0, 0);
	RetryPos	pos = {.due = 7000};
	RetryLane  *lane;
	RetryEntry	entry;
	int			n;

	retry_lane_set_rules(lanes, high, &rules);
	fill(lanes, 64);
	while (retry_lanes_take(lanes, 0, &lane, &entry))
		;
	push_many(lanes, high, 9000000, 32);
	fill(lanes, 64);
	n = high->in_flight;
	for (int i = 0; i < 20; i++)
		ended(lanes, retry_lanes_find(lanes, i));
	CHECK_INT(n, 0, "all transfers were given away before");
	for (int i = 0; i < 12; i++)
		CHECK(retry_lanes_take(lanes, 0, &lane, &entry) && lane == high, "a high lane is served before all others");

	pos.due = 10;
	retry_lane_note(lanes, &retry_lanes_get(lanes, 150, 0, 0)->side[0], &pos);
	retry_lanes_note_high(lanes, 7000);
	CHECK(retry_lanes_due(lanes, 8000) == &high->side[RETRY_SIDE_FIRST], "and read before all others");
	CHECK(retry_lanes_due(lanes, 6999) == &retry_lanes_find(lanes, 150)->side[0], "when it has something due");
	CHECK_INT(retry_lanes_next_due(lanes), 10, "and not only then are others thought of");
}

int
main(void)
{
	test_places();
	test_push();
	test_cancel();
	test_shares();
	test_turns();
	test_crowd();
	test_all();
	test_cursor();
	test_ahead();
	test_late_in_sweep();
	test_wait_for_place();
	test_fewer_lanes();
	test_heap();
	test_block();
	test_gates();
	test_weights();
	test_hanging();
	test_hundreds_hang();
	test_high();
	test_dormant();
	test_early();
	simulate(1000, 100000, 256);
	simulate(10, 100000, 256);
	simulate(5, 64, 8);
	simulate(2, 16, 4);
	gating = 8;
	simulate(10, 1000, 64);
	simulate(4, 100000, 16);
	CHECK(most_dormant > 3, "lanes that were closed gave way, up to %d", most_dormant);
	return check_done();
}
