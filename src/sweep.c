/*
 * sweep.c
 *		Finding the lanes that are not in memory and have something due.
 *
 * After a start no lane is in memory, and later the idle ones beyond
 * retry.max_lanes are forgotten.  The horizon is the time before which no
 * forgotten lane has anything untaken.  When the clock passes it, a sweep
 * jumps from lane to lane through the indexes by due time, a budget of jumps
 * a turn, and brings back those that have something due.
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/timestamp.h"

#include "turn.h"

#define SWEEP_BUDGET	400		/* jumps in a turn */
#define LOCKED_PAUSE_US	100000	/* a leaf is locked: sweep again after this */

struct RetrySweep
{
	bool		active;
	bool		partial;		/* a leaf was locked: all over again */
	TimestampTz not_before;		/* that is, not at once */
	int			leaf;
	int			stream;
	bool		within;			/* lane_hash counts */
	int64		lane_hash;		/* lanes up to here are done */
};

static const RetryIndex streams[] = {RETRY_TASK_DUE, RETRY_ATTEMPT_DUE, RETRY_SIGNAL_DUE};
static const int hash_columns[] = {Task_lane_hash, Attempt_lane_hash, Signal_lane_hash};
static const RetryTable stream_tables[] = {RETRY_TASK, RETRY_ATTEMPT, RETRY_SIGNAL};

RetrySweep *
retry_sweep_create(void)
{
	return palloc0(sizeof(RetrySweep));
}

void
retry_sweep_reset(RetrySweep *sweep)
{
	sweep->active = false;
}

TimestampTz
retry_sweep_next(const RetryDispatcher *d)
{
	return d->sweep->active ? DT_NOEND : Max(retry_lanes_horizon(d->lanes), d->sweep->not_before);
}

/* Looks at one lane that is not in memory; false when there is no place for it. */
static bool
sweep_lane(RetryTurn *turn, RetryIndex index, int leaf, int64 lane_hash)
{
	RetryDispatcher *d = turn->d;
	RetryPos	from = {.due = retry_lanes_horizon(d->lanes)};
	TupleTableSlot *slot;
	RetryCandidate c;
	RetryLane  *lane;

	if ((d->owned & (UINT64CONST(1) << RETRY_SLOT(lane_hash))) == 0 ||
		retry_lanes_knows(d->lanes, lane_hash))
		return true;

	from = retry_pos_before(&from);
	retry_scan_lane_after(turn->reader, index, leaf, lane_hash, &from);
	slot = retry_scan_next(turn->reader, index, leaf, ForwardScanDirection);
	if (slot == NULL)
		return true;
	retry_candidate_read(index, slot, leaf, &c);
	if (c.entry.pos.due > turn->now)
	{
		retry_lanes_sweep_saw(d->lanes, c.entry.pos.due);
		return true;
	}
	if (!retry_lanes_has_place(d->lanes, turn->now))
		return false;			/* when a lane has ended, it goes on here */
	lane = retry_lanes_get(turn->d->lanes, lane_hash, c.entry.pos.due, turn->now);
	if (lane != NULL)
		retry_lane_note(d->lanes, &lane->side[c.entry.side], &c.entry.pos);
	return true;
}

/* Jumps through one index; true when it has come to its end. */
static bool
sweep_index(RetryTurn *turn, RetrySweep *sweep, int *budget)
{
	RetryIndex	index = streams[sweep->stream];

	while ((*budget)-- > 0)
	{
		TupleTableSlot *slot;
		bool		more;
		int64		lane_hash;
		bool		isnull;

		/* the smallest number itself would be jumped over; no hash is it */
		retry_scan_lanes_after(turn->reader, index, sweep->leaf,
							   sweep->within ? sweep->lane_hash : PG_INT64_MIN);
		slot = retry_scan_next(turn->reader, index, sweep->leaf, ForwardScanDirection);
		if (slot == NULL)
		{
			sweep->partial |= retry_reader_leaf_blocked(turn->reader, sweep->leaf);
			sweep->within = false;
			return true;
		}
		lane_hash = DatumGetInt64(slot_getattr(slot, hash_columns[sweep->stream] + 1, &isnull));
		more = sweep_lane(turn, index, sweep->leaf, lane_hash);
		sweep->partial |= retry_reader_leaf_blocked(turn->reader, sweep->leaf);
		if (!more)
			return false;
		sweep->lane_hash = lane_hash;
		sweep->within = true;
	}
	turn->more = true;
	return false;
}

void
retry_sweep(RetryTurn *turn)
{
	RetrySweep *sweep = turn->d->sweep;
	RetryLanes *lanes = turn->d->lanes;
	int			budget = SWEEP_BUDGET;

	if (!sweep->active)
	{
		if (retry_lanes_horizon(lanes) > turn->now || sweep->not_before > turn->now)
			return;
		memset(sweep, 0, sizeof(*sweep));
		sweep->active = true;
		retry_lanes_sweep_begin(lanes);
	}
	for (; sweep->leaf < RETRY_LEAVES; sweep->leaf++, sweep->stream = 0, sweep->within = false)
	{
		if (!retry_turn_leaf_live(turn, sweep->leaf))
			continue;
		for (; sweep->stream < lengthof(streams); sweep->stream++)
		{
			if (!retry_reader_leaf(turn->reader, sweep->leaf))
			{
				sweep->partial = true;
				break;
			}
			if (!retry_reader_empty(turn->reader, stream_tables[sweep->stream], sweep->leaf) &&
				!sweep_index(turn, sweep, &budget))
				return;
		}
	}
	sweep->active = false;
	if (sweep->partial)
	{
		/* the horizon stays where it is, and what was found was found */
		retry_lanes_lower_horizon(lanes, DT_NOEND);
		sweep->not_before = turn->now + LOCKED_PAUSE_US;
	}
	else
		retry_lanes_sweep_end(lanes);
}
