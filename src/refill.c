/*
 * refill.c
 *		From the facts to a lane's queue: the entries that are due next.
 *
 * A lane's entries lie in three streams (first attempts, next attempts,
 * signals) in each leaf that is alive, every stream ordered by (due, id) from
 * a cursor on.  First attempts and signals are one side of a lane, next attempts
 * the other.  Refill merges a side's streams, with a budget of entries looked
 * at, whether or not they turn out to be of use: what it costs does not depend
 * on how many are waiting behind.
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/timestamp.h"

#include "ordered.h"
#include "turn.h"

#define REFILL_LANE_BUDGET	1000	/* entries looked at in one lane in a turn */
#define REFILL_TURN_BUDGET	4000	/* and in all */
#define LOCKED_PAUSE_US		100000	/* a leaf is locked: look again after this */
#define REFILL_TURN_SIDES	1000	/* sides in a turn: each costs some
									 * descents */

static const RetryIndex streams[] = {RETRY_TASK_DUE, RETRY_ATTEMPT_DUE, RETRY_SIGNAL_DUE};
static const RetryTable stream_tables[] = {RETRY_TASK, RETRY_ATTEMPT, RETRY_SIGNAL};
static const RetrySideName stream_sides[] = {RETRY_SIDE_FIRST, RETRY_SIDE_RETRY, RETRY_SIDE_FIRST};

/* One stream of one leaf, at its first entry that is not taken. */
typedef struct Stream
{
	int			which;			/* of streams[] */
	int			leaf;
	RetryCandidate next;
} Stream;

void
retry_candidate_read(RetryIndex stream, TupleTableSlot *slot, int leaf, RetryCandidate *c)
{
	memset(c, 0, sizeof(*c));
	c->entry.leaf = leaf;
	switch (stream)
	{
		case RETRY_TASK_DUE:
		case RETRY_TASK_XID:
			c->entry.pos.due = DatumGetTimestampTz(retry_column(slot, Task_due_at));
			c->entry.pos.id = *DatumGetUUIDP(retry_column(slot, Task_id));
			c->entry.tid = slot->tts_tid;
			c->entry.scene_id = DatumGetInt32(retry_column(slot, Task_scene_id));
			c->inert = DatumGetBool(retry_column(slot, Task_inert));
			c->xid = DatumGetUInt64(retry_column(slot, Task_xid));
			break;
		case RETRY_ATTEMPT_DUE:
			c->entry.pos.due = DatumGetTimestampTz(retry_column(slot, Attempt_next_due));
			c->entry.pos.id = *DatumGetUUIDP(retry_column(slot, Attempt_task_id));
			c->entry.attempts = DatumGetInt32(retry_column(slot, Attempt_attempt_no));
			c->entry.side = RETRY_SIDE_RETRY;
			c->entry.scene_id = DatumGetInt32(retry_column(slot, Attempt_scene_id));
			break;
		case RETRY_SIGNAL_DUE:
		case RETRY_SIGNAL_XID:
			c->entry.pos.due = DatumGetTimestampTz(retry_column(slot, Signal_due_at));
			c->entry.pos.id = *DatumGetUUIDP(retry_column(slot, Signal_task_id));
			c->entry.attempts = DatumGetInt32(retry_column(slot, Signal_after_attempt));
			c->cancel = DatumGetChar(retry_column(slot, Signal_action)) == RETRY_SIGNAL_CANCEL;
			c->amend = DatumGetChar(retry_column(slot, Signal_action)) == RETRY_SIGNAL_AMEND;
			c->step = DatumGetChar(retry_column(slot, Signal_action)) == RETRY_SIGNAL_STEP;
			c->inert = DatumGetBool(retry_column(slot, Signal_inert));
			c->xid = DatumGetUInt64(retry_column(slot, Signal_xid));
			break;
		default:
			Assert(false);
	}
}

/* The scene; configuration is read again, once a turn, for one that is new. */
RetryScene *
retry_turn_scene(RetryTurn *turn, int32 scene_id)
{
	RetryScene *scene = retry_config_scene(turn->d->config, scene_id);

	if (scene == NULL && !turn->config_read)
	{
		turn->config_read = retry_config_read(turn->d->config, turn->snapshot);
		scene = retry_config_scene(turn->d->config, scene_id);
	}
	return scene;
}

bool
retry_turn_leaf_live(const RetryTurn *turn, int leaf)
{
	return turn->d->leaf_live[leaf] && !retry_shmem_leaf_done(turn->d->db, leaf);
}

/*
 * Do the facts say what the entry presumes, and that it is still to be sent?
 * Counts the attempts that do not count.
 */
static bool
is_current(RetryTurn *turn, RetryEntry *entry)
{
	RetryProbe	probe;

	if (entry->attempts == 0)
		return !retry_task_tried(turn->reader, entry->leaf, &entry->pos.id) &&
			!retry_task_cancelled(turn->reader, entry->leaf, &entry->pos.id);
	retry_probe_task(turn->reader, entry->leaf, &entry->pos.id, &probe);
	entry->pendings = probe.pendings;
	return !probe.terminal && !probe.cancelled && probe.attempts == entry->attempts;
}

RetryAdmitted
retry_admit(RetryTurn *turn, RetryLane *lane, const RetryCandidate *c)
{
	RetryDispatcher *d = turn->d;
	RetryEntry	entry = c->entry;
	RetryScene *scene;
	bool		current;

	if (c->cancel || c->amend || c->step || retry_lanes_holds(d->lanes, &c->entry.pos.id))
		return RETRY_ADMIT_SKIPPED;
	if (retry_lane_room(d->lanes, &lane->side[entry.side]) <= 0)
		return RETRY_ADMIT_NO_ROOM;
	if (c->xid != 0 && retry_held_foreign(turn, c->inert, c->xid, c->entry.pos.due))
		return RETRY_ADMIT_SKIPPED;

	/* also one that is past: what waited behind it may lie before the horizon */
	scene = entry.scene_id != 0 ? retry_turn_scene(turn, entry.scene_id) : NULL;
	if (retry_order_met(turn, lane, &entry, scene))
		return RETRY_ADMIT_ANEW;

	current = is_current(turn, &entry);
	if (retry_reader_leaf_blocked(turn->reader, c->entry.leaf))
		return RETRY_ADMIT_NO_ROOM; /* an index is locked: the probe knows
									 * nothing */
	if (!current)
		return RETRY_ADMIT_SKIPPED;

	if (scene != NULL)
	{
		if (retry_held_back(turn, scene, lane->hash, c->entry.pos.due))
			return RETRY_ADMIT_SKIPPED;
		lane->group_id = scene->group_id;
		retry_lane_stats_scene(lane, scene->id);
		retry_override_lane(d, lane, scene);
	}
	return retry_lane_push(d->lanes, lane, &entry) ? RETRY_ADMIT_TAKEN : RETRY_ADMIT_NO_ROOM;
}

/* Reads the next entry of a stream; false when there is none. */
static bool
stream_next(RetryTurn *turn, Stream *stream)
{
	TupleTableSlot *slot = retry_scan_next(turn->reader, streams[stream->which], stream->leaf,
										   ForwardScanDirection);

	if (slot == NULL)
		return false;
	retry_candidate_read(streams[stream->which], slot, stream->leaf, &stream->next);
	return true;
}

/* Opens a side's streams in one leaf; false when something of it is locked. */
static bool
open_leaf(RetryTurn *turn, RetrySide *side, const RetryPos *from, int leaf, Stream *open, int *n)
{
	int			first = *n;

	if (!retry_reader_leaf(turn->reader, leaf))
		return false;
	for (int which = 0; which < lengthof(streams); which++)
	{
		if (stream_sides[which] != side->which ||
			retry_reader_empty(turn->reader, stream_tables[which], leaf))
			continue;
		retry_scan_lane_after(turn->reader, streams[which], leaf, retry_side_lane(side)->hash, from);
		open[*n].which = which;
		open[*n].leaf = leaf;
		if (stream_next(turn, &open[*n]))
			(*n)++;
	}
	if (retry_reader_leaf_blocked(turn->reader, leaf))
	{
		*n = first;
		return false;
	}
	return true;
}

/*
 * Opens a side's streams after a place, those of leaves that are locked left
 * out.  False when there are such.
 */
static bool
open_streams(RetryTurn *turn, RetrySide *side, const RetryPos *from, Stream *open, int *n)
{
	bool		all = true;

	*n = 0;
	for (int leaf = 0; leaf < RETRY_LEAVES; leaf++)
	{
		if (retry_turn_leaf_live(turn, leaf) && !open_leaf(turn, side, from, leaf, open, n))
			all = false;
	}
	return all;
}

static int
earliest(const Stream *open, int n)
{
	int			first = 0;

	for (int i = 1; i < n; i++)
	{
		if (retry_pos_compare(&open[i].next.entry.pos, &open[first].next.entry.pos) < 0)
			first = i;
	}
	return first;
}

/*
 * Fills one side's queue; returns how many entries it looked at.  While a leaf
 * is locked the others are read on, ahead of the cursor; what they gave is met
 * again when all can be read, and is then known.
 */
static int
refill_side(RetryTurn *turn, RetrySide *side)
{
	RetryLanes *lanes = turn->d->lanes;
	RetryLane  *lane = retry_side_lane(side);
	Stream		open[RETRY_LEAVES * lengthof(streams)];
	RetryPos	pos = side->is_ahead ? side->ahead : side->cursor;
	TimestampTz next_due = DT_NOEND;
	int			looked_at = 0;
	int			n;
	bool		all = open_streams(turn, side, &pos, open, &n);

	if (all && side->is_ahead)
	{
		pos = side->cursor;
		all = open_streams(turn, side, &pos, open, &n);
	}
	while (n > 0)
	{
		int			i = earliest(open, n);
		RetryAdmitted admitted;

		next_due = open[i].next.entry.pos.due;
		if (next_due > turn->now || looked_at >= REFILL_LANE_BUDGET)
			break;
		admitted = retry_admit(turn, lane, &open[i].next);
		if (admitted == RETRY_ADMIT_ANEW)
			return looked_at + 1;
		if (retry_reader_leaf_blocked(turn->reader, open[i].leaf))
		{
			/* an index that the probe needs: this leaf too is locked */
			all = false;
			open[i] = open[--n];
			next_due = DT_NOEND;
			continue;
		}
		if (admitted == RETRY_ADMIT_NO_ROOM)
			break;
		pos = open[i].next.entry.pos;
		looked_at++;
		retry_lane_read(side, pos.due);
		if (!stream_next(turn, &open[i]))
			open[i] = open[--n];
		next_due = DT_NOEND;
	}
	if (next_due > turn->now)
	{
		/* all that is due was taken */
		pos.due = turn->now;
		memset(pos.id.data, 0xFF, UUID_LEN);
		if (all)
			retry_lane_drained(lanes, side, turn->now);
	}

	if (all)
		retry_lane_advance(lanes, side, &pos, next_due);
	else
		retry_lane_go_ahead(lanes, side, &pos, Min(next_due, turn->now + LOCKED_PAUSE_US));
	return looked_at;
}

/* Refills the sides that are due and have room, the most urgent first. */
void
retry_refill(RetryTurn *turn)
{
	int			budget = REFILL_TURN_BUDGET;

	for (int i = 0; i < REFILL_TURN_SIDES && budget > 0; i++)
	{
		RetrySide  *side = retry_lanes_due(turn->d->lanes, turn->now);

		if (side == NULL)
			return;
		budget -= retry_side_lane(side)->ordered ? retry_order_refill(turn, retry_side_lane(side)) :
			refill_side(turn, side);
		if (retry_lane_room(turn->d->lanes, side) <= 0 && side->next_due <= turn->now &&
			side == retry_lanes_due(turn->d->lanes, turn->now))
			return;
	}
	turn->more = true;
}
