/*
 * feed.c
 *		What has newly committed: every row once, none missed.
 *
 * Between two snapshots P and S, exactly those rows become visible whose
 * transaction P could not see and S can.  P could not see transactions from
 * P.xmax on and those in its list of running ones; the stored transaction
 * number of each row is indexed.  Late committers, bulk loads and prepared
 * transactions need no special case.
 *
 * The difference is worked off in slices.  Rows are read with the turn's own,
 * newer snapshot, so a slice may see rows that belong to the next difference;
 * they are then met twice, which is harmless (see lane.h).  P moves on when
 * the whole difference has been read.
 */
#include "postgres.h"

#include "access/transam.h"
#include "executor/tuptable.h"
#include "utils/timestamp.h"

#include "ordered.h"
#include "scene_stats.h"
#include "turn.h"

#define FEED_BUDGET		4000	/* rows in a turn */

/*
 * While it works off a long difference, high lanes are read from so long ago
 * on: what they got meanwhile need not wait for what came before it.
 */
#define HIGH_LOOK_BACK_US	(100 * 1000)

/* Transactions from first to before end. */
typedef struct XidRange
{
	uint64		first;
	uint64		end;
} XidRange;

struct RetryFeed
{
	MemoryContext context;
	RetryHorizon seen;			/* P */
	RetryHorizon target;		/* S, while a difference is being worked off */
	RetryHorizon counted;		/* what was seen before it was rewound */
	bool		working;
	XidRange   *ranges;
	int			nranges;
	/* where the work stands */
	int			leaf;
	int			stream;			/* of streams[] */
	int			range;
	uint64		xid;			/* rows of this range up to (xid, id) are done */
	pg_uuid_t	id;
};

static const RetryIndex streams[] = {RETRY_TASK_XID, RETRY_SIGNAL_XID};
static const RetryTable stream_tables[] = {RETRY_TASK, RETRY_SIGNAL};

RetryFeed *
retry_feed_create(void)
{
	RetryFeed  *feed = palloc0(sizeof(RetryFeed));

	feed->context = CurrentMemoryContext;
	return feed;
}

const RetryHorizon *
retry_feed_seen(const RetryFeed *feed)
{
	return &feed->seen;
}

static int
compare_xids(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

/* The full number of a transaction that is not newer than "next". */
static uint64
widen(TransactionId xid, FullTransactionId next)
{
	uint32		epoch = EpochFromFullTransactionId(next);

	if (!TransactionIdIsNormal(xid))
		return xid;
	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid));
}

void
retry_horizon_of(Snapshot snapshot, RetryHorizon *horizon)
{
	FullTransactionId next = ReadNextFullTransactionId();

	horizon->xmin = widen(snapshot->xmin, next);
	horizon->xmax = widen(snapshot->xmax, next);
	horizon->nxip = snapshot->xcnt;
	horizon->xip = snapshot->xcnt > 0 ? palloc(snapshot->xcnt * sizeof(uint64)) : NULL;
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		horizon->xip[i] = widen(snapshot->xip[i], next);
	if (horizon->nxip > 1)
		qsort(horizon->xip, horizon->nxip, sizeof(uint64), compare_xids);
}

bool
retry_horizon_hides(const RetryHorizon *horizon, uint64 xid)
{
	return xid >= horizon->xmax ||
		(horizon->nxip > 0 &&
		 bsearch(&xid, horizon->xip, horizon->nxip, sizeof(uint64), compare_xids) != NULL);
}

static void
free_horizon(RetryHorizon *horizon)
{
	if (horizon->xip != NULL)
		pfree(horizon->xip);
	memset(horizon, 0, sizeof(*horizon));
}

static void
copy_horizon(RetryHorizon *to, const RetryHorizon *from)
{
	*to = *from;
	to->xip = palloc((from->nxip + 1) * sizeof(uint64));
	if (from->nxip > 0)
		memcpy(to->xip, from->xip, from->nxip * sizeof(uint64));
}

/* Both horizons' unseen transactions together: the older of the two. */
static void
merge_horizons(RetryHorizon *into, const RetryHorizon *other)
{
	uint64		xmax = Min(into->xmax, other->xmax);
	uint64	   *xip = palloc((into->nxip + other->nxip + 1) * sizeof(uint64));
	int			n = 0;

	for (int i = 0; i < into->nxip; i++)
	{
		if (into->xip[i] < xmax)
			xip[n++] = into->xip[i];
	}
	for (int i = 0; i < other->nxip; i++)
	{
		if (other->xip[i] < xmax && !retry_horizon_hides(into, other->xip[i]))
			xip[n++] = other->xip[i];
	}
	qsort(xip, n, sizeof(uint64), compare_xids);
	if (into->xip != NULL)
		pfree(into->xip);
	into->xip = xip;
	into->nxip = n;
	into->xmax = xmax;
	into->xmin = Min(into->xmin, other->xmin);
}

void
retry_feed_rewind(RetryFeed *feed, const RetryHorizon *seen)
{
	MemoryContext old = MemoryContextSwitchTo(feed->context);

	if (feed->seen.xmax == 0)
		copy_horizon(&feed->seen, seen);
	else
	{
		if (feed->seen.xmax > feed->counted.xmax)
		{
			free_horizon(&feed->counted);
			copy_horizon(&feed->counted, &feed->seen);
		}
		merge_horizons(&feed->seen, seen);
	}
	if (feed->working)
		free_horizon(&feed->target);
	feed->working = false;
	MemoryContextSwitchTo(old);
}

/* Starts on the difference between what was seen and this turn's snapshot. */
static bool
begin_work(RetryFeed *feed, Snapshot snapshot)
{
	MemoryContext old = MemoryContextSwitchTo(feed->context);

	retry_horizon_of(snapshot, &feed->target);
	if (feed->ranges != NULL)
		pfree(feed->ranges);
	feed->ranges = palloc((feed->seen.nxip + 1) * sizeof(XidRange));
	feed->nranges = 0;
	for (int i = 0; i < feed->seen.nxip; i++)
	{
		if (!retry_horizon_hides(&feed->target, feed->seen.xip[i]))
		{
			feed->ranges[feed->nranges].first = feed->seen.xip[i];
			feed->ranges[feed->nranges++].end = feed->seen.xip[i] + 1;
		}
	}
	if (feed->target.xmax > feed->seen.xmax)
	{
		feed->ranges[feed->nranges].first = feed->seen.xmax;
		feed->ranges[feed->nranges++].end = feed->target.xmax;
	}
	feed->working = true;
	feed->leaf = 0;
	feed->stream = 0;
	feed->range = 0;
	feed->xid = 0;
	MemoryContextSwitchTo(old);
	return feed->nranges > 0;
}

static void
end_work(RetryFeed *feed)
{
	free_horizon(&feed->seen);
	feed->seen = feed->target;
	memset(&feed->target, 0, sizeof(feed->target));
	feed->working = false;
}

/*
 * Counts what has come; returns what that has cost of the budget.  What a later
 * difference has, or an earlier one had, is counted there.
 */
static int
count_row(RetryTurn *turn, const RetryFeed *feed, const RetryCandidate *c)
{
	if (retry_horizon_hides(&feed->target, c->xid) ||
		(feed->counted.xmax != 0 && !retry_horizon_hides(&feed->counted, c->xid)))
		return 0;
	if (c->inert)
		retry_scene_stats_foreign(turn->d);
	else if (c->cancel)
		return retry_scene_stats_cancelled(turn, c);
	else if (c->entry.scene_id != 0)
		retry_scene_stats_enqueued(turn->d, c->entry.scene_id);
	return 0;
}

/* Tells the lane of a newly visible row. */
static void
feed_row(RetryTurn *turn, const RetryCandidate *c, int64 lane_hash)
{
	RetryDispatcher *d = turn->d;
	RetryLane  *lane;
	RetrySide  *side;

	if (c->cancel)
	{
		retry_lanes_cancel(d->lanes, &c->entry.pos.id);
		retry_order_signalled(turn, c, lane_hash);
		return;
	}
	if (c->step)
		d->order_look |= UINT64CONST(1) << RETRY_SLOT(lane_hash);
	if (c->amend || c->step)
		return;
	lane = retry_lanes_get(turn->d->lanes, lane_hash, c->entry.pos.due, turn->now);
	if (lane == NULL)
		return;
	if (c->entry.pos.due <= turn->now && retry_lanes_holds(d->lanes, &c->entry.pos.id))
	{
		/* asked for: it need not wait with other retries */
		if (c->xid != 0 && c->entry.attempts > 0)
			retry_lane_promote(d->lanes, lane, &c->entry);
		return;
	}
	side = &lane->side[c->entry.side];

	/* nothing unread before it: it need not be read a second time */
	if (!lane->ordered && c->entry.pos.due <= turn->now && side->next_due > c->entry.pos.due)
	{
		RetryAdmitted admitted = retry_admit(turn, lane, c);

		if (admitted != RETRY_ADMIT_NO_ROOM && admitted != RETRY_ADMIT_ANEW)
		{
			if (!side->is_ahead && retry_pos_compare(&c->entry.pos, &side->cursor) > 0)
				retry_lane_advance(d->lanes, side, &c->entry.pos, side->next_due);
			return;
		}
	}
	retry_lane_note(d->lanes, side, &c->entry.pos);
	retry_lane_unread(d->lanes, side, 1, c->entry.pos.due, turn->now);
}

static int64
row_lane(int stream, TupleTableSlot *slot)
{
	bool		isnull;
	int			attribute = streams[stream] == RETRY_TASK_XID ? Task_lane_hash : Signal_lane_hash;

	return DatumGetInt64(slot_getattr(slot, attribute + 1, &isnull));
}

/*
 * Reads rows of the current leaf, stream and range.  True when the range is
 * done, false when the budget is, or an index is locked; it then goes on after
 * (xid, id).  That is moved when all rows of a key are done, so that after an
 * error none is passed over.
 */
static bool
feed_range(RetryTurn *turn, RetryFeed *feed, int *budget)
{
	XidRange   *range = &feed->ranges[feed->range];
	RetryIndex	index = streams[feed->stream];
	TupleTableSlot *slot;
	uint64		xid;
	pg_uuid_t	id;

	if (feed->xid == 0)
	{
		feed->xid = range->first - 1;
		memset(feed->id.data, 0xFF, UUID_LEN);
	}
	xid = feed->xid;
	id = feed->id;
	retry_scan_xids(turn->reader, index, feed->leaf, xid, &id, range->end);
	while ((slot = retry_scan_next(turn->reader, index, feed->leaf, ForwardScanDirection)) != NULL)
	{
		RetryCandidate c;
		int64		lane_hash;

		retry_candidate_read(index, slot, feed->leaf, &c);
		/* a task may have several signals: stop only where the key changes */
		if (c.xid != xid || memcmp(&c.entry.pos.id, &id, UUID_LEN) != 0)
		{
			feed->xid = xid;
			feed->id = id;
			if (*budget <= 0)
				return false;
			xid = c.xid;
			id = c.entry.pos.id;
		}
		turn->d->leaf_live[feed->leaf] = true;
		turn->d->busy = true;
		lane_hash = row_lane(feed->stream, slot);
		if ((turn->d->owned & (UINT64CONST(1) << RETRY_SLOT(lane_hash))) != 0)
		{
			feed_row(turn, &c, lane_hash);
			*budget -= count_row(turn, feed, &c);
		}
		(*budget)--;
	}
	feed->xid = xid;
	feed->id = id;
	if (retry_reader_leaf_blocked(turn->reader, feed->leaf))
		return false;
	feed->xid = 0;
	return true;
}

/* Nothing was inserted there by any transaction that the ranges name. */
static bool
leaf_untouched(RetryTurn *turn, RetryFeed *feed)
{
	return pg_atomic_read_u64(&turn->d->db->leaf_xid[feed->leaf]) < feed->ranges[0].first;
}

void
retry_feed(RetryTurn *turn)
{
	RetryFeed  *feed = turn->d->feed;
	int			budget = FEED_BUDGET;

	if (!feed->working && !begin_work(feed, turn->snapshot))
	{
		end_work(feed);
		return;
	}
	for (; feed->leaf < RETRY_LEAVES; feed->leaf++, feed->stream = 0)
	{
		if (feed->stream == 0 && feed->range == 0 && feed->xid == 0 && leaf_untouched(turn, feed))
			continue;
		if (!retry_reader_leaf(turn->reader, feed->leaf))
			return;				/* locked: go on here at the next turn */
		for (; feed->stream < lengthof(streams); feed->stream++, feed->range = 0)
		{
			if (retry_reader_empty(turn->reader, stream_tables[feed->stream], feed->leaf))
				continue;
			for (; feed->range < feed->nranges; feed->range++)
			{
				if (!feed_range(turn, feed, &budget))
				{
					if (budget <= 0)
					{
						turn->more = true;
						retry_lanes_note_high(turn->d->lanes, turn->now - HIGH_LOOK_BACK_US);
					}
					return;
				}
			}
		}
	}
	end_work(feed);
}
