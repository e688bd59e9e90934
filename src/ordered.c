/*
 * ordered.c
 *		Who is next in an ordered lane.
 *
 * First comes a task that has begun: it has attempts, and no outcome.  It is
 * found in the stream of next attempts, however far ahead its next one is.
 * Then, where a dead task holds up the lane, its replay.  Then the first task
 * by (due_at, id) that has no outcome; the cursor of that stream passes only
 * tasks that have one.  Nothing is queued while anything of the lane is queued,
 * under way, or not yet recorded, so the facts are all there is to know.
 *
 * A lane that comes into memory is read from the horizon on, and tasks that
 * waited behind another may lie before it.  What they waited for is after the
 * horizon, though, or in a table: the next attempt of the one that had begun,
 * its dead head, or its scene's pause.  So the place of each of these is looked
 * up once, and the lane read from the first of them.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "dead_head.h"
#include "ordered.h"

#define LOOK_BUDGET		1000	/* entries looked at in one lane in a turn */
#define LOCKED_PAUSE_US	100000	/* a leaf is locked: look again after this */
#define ORDER_ENDED_US	USECS_PER_DAY	/* it ended so much later, at most,
										 * than it says: clocks are set */

/* One lane being looked at. */
typedef struct Look
{
	RetryTurn  *turn;
	RetryLane  *lane;
	int			looked_at;
	bool		fresh;			/* it is not known yet where to read it from */
	bool		locked;			/* something could not be read */

	/* the task that is next; its entry's place is that of the task */
	bool		found;
	RetryEntry	entry;
	TimestampTz due;			/* when it may be sent; its own side's */

	/* a dead task holds up the lane: the first of them */
	bool		held_up;
	RetryPos	dead;
} Look;

bool
retry_order_wanted(const RetryDispatcher *d, int64 lane_hash, const RetryScene *scene)
{
	RetryFlowRules mixed;

	return scene != NULL && retry_override_rules(d->overrides, lane_hash, &scene->flow, &mixed)->ordered;
}

void
retry_order_reopen(RetryDispatcher *d, RetryLane *lane)
{
	RetrySide  *side = &lane->side[RETRY_SIDE_FIRST];

	retry_lane_advance(d->lanes, side, &side->cursor, Min(side->cursor.due, GetCurrentTimestamp()));
}

static void
reopen_if_ordered(RetryLane *lane, void *arg)
{
	if (lane->ordered)
		retry_order_reopen(arg, lane);
}

void
retry_order_reopen_all(RetryDispatcher *d)
{
	retry_lanes_each(d->lanes, reopen_if_ordered, d);
}

/* Nothing is to be read before somebody says so, or before these moments. */
static void
close_until(Look *look, TimestampTz first, TimestampTz retry)
{
	RetryLane  *lane = look->lane;

	for (int i = 0; i < RETRY_SIDES; i++)
		retry_lane_advance(look->turn->d->lanes, &lane->side[i], &lane->side[i].cursor,
						   i == RETRY_SIDE_FIRST ? first : retry);
}

/* The same while a leaf is locked; the cursor is all that is known of what is there. */
static void
wait_for_lock(Look *look)
{
	RetrySide  *side = &look->lane->side[RETRY_SIDE_FIRST];

	close_until(look, DT_NOEND, DT_NOEND);
	retry_lane_go_ahead(look->turn->d->lanes, side, &side->cursor, look->turn->now + LOCKED_PAUSE_US);
}

void
retry_order_begin(RetryDispatcher *d, RetryLane *lane, int32 scene_id)
{
	const RetryScene *scene = retry_config_scene(d->config, scene_id);
	TimestampTz held = scene != NULL ? retry_held_due_in_lane(d, scene->group_id, lane->hash) : DT_NOEND;

	lane->ordered = true;
	lane->order_known = false;
	memset(&lane->head, 0, sizeof(lane->head));
	lane->head.due = DT_NOBEGIN;
	retry_lane_unqueue(d->lanes, lane);

	/* what was passed over may have begun, and others wait behind it */
	if (held < DT_NOEND)
		retry_lane_note_both(d->lanes, lane, held);
	retry_order_reopen(d, lane);
}

/* It is a lane like any other from now on. */
static void
end_order(Look *look)
{
	RetryLane  *lane = look->lane;

	lane->ordered = lane->order_known = lane->dead_head = false;
	close_until(look, lane->side[RETRY_SIDE_FIRST].cursor.due, lane->side[RETRY_SIDE_RETRY].cursor.due);
}

/*
 * May tasks that are due then have begun while the lane was ordered?  Those that
 * waited behind such a one lie after its place, and nothing tells of them but it.
 */
static bool
may_have_led(const RetryScene *scene, TimestampTz due)
{
	return scene->order_ended_at > DT_NOBEGIN && due <= scene->order_ended_at + ORDER_ENDED_US;
}

/* The lane is read from there on; false when it was before. */
static bool
read_left(RetryLanes *lanes, RetryLane *lane, const RetryPos *place)
{
	if (place->due >= lane->read_from)
		return false;
	lane->read_from = place->due;
	retry_lane_note(lanes, &lane->side[RETRY_SIDE_FIRST], place);
	return true;
}

/* Where a task lies in its lane, and of which scene it is. */
typedef struct Placed
{
	RetryPos	place;
	RetryScene *scene;
} Placed;

/* False when that cannot be had: its row is gone or locked, or the scene not known yet. */
static bool
look_up(RetryTurn *turn, const RetryEntry *entry, Placed *task)
{
	int			leaf = entry->leaf;
	TupleTableSlot *slot = retry_find_task(turn->reader, &entry->pos.id, NULL, &leaf);

	if (slot == NULL)
		return false;
	task->place.id = entry->pos.id;
	task->place.due = DatumGetTimestampTz(retry_column(slot, Task_due_at));
	task->scene = retry_turn_scene(turn, DatumGetInt32(retry_column(slot, Task_scene_id)));
	return task->scene != NULL;
}

/* May order be of any concern in a lane? */
static bool
may_matter(const RetryDispatcher *d, int64 lane_hash)
{
	return retry_config_orders(d->config) || retry_override_find(d->overrides, lane_hash) != NULL;
}

bool
retry_order_met(RetryTurn *turn, RetryLane *lane, const RetryEntry *entry, const RetryScene *scene)
{
	RetryDispatcher *d = turn->d;
	bool		begun = entry->attempts > 0;
	bool		placed = false;
	Placed		task = {0};

	/* a signal does not say of which scene it is */
	if (scene == NULL && begun && entry->scene_id == 0 && may_matter(d, lane->hash))
		placed = look_up(turn, entry, &task);
	if (placed)
		scene = task.scene;
	if (scene == NULL)
		return false;
	if (retry_order_wanted(d, lane->hash, scene))
	{
		retry_order_begin(d, lane, scene->id);
		return true;
	}
	if (!begun || scene->order_ended_at == DT_NOBEGIN || !(placed || look_up(turn, entry, &task)))
		return false;
	return may_have_led(scene, task.place.due) && read_left(d->lanes, lane, &task.place);
}

/* Looking */

static bool
leaf_open(Look *look, int leaf)
{
	if (!retry_turn_leaf_live(look->turn, leaf))
		return false;
	if (retry_reader_leaf(look->turn->reader, leaf))
		return true;
	look->locked = true;
	return false;
}

/* To be called when a leaf was read: was an index of it locked? */
static void
leaf_done(Look *look, int leaf)
{
	if (retry_reader_leaf_blocked(look->turn->reader, leaf))
		look->locked = true;
}

/* Has the task no outcome?  Fills in what the entry presumes. */
static bool
is_open(Look *look, RetryEntry *entry, RetryProbe *probe)
{
	retry_probe_task(look->turn->reader, entry->leaf, &entry->pos.id, probe);
	leaf_done(look, entry->leaf);
	return !probe->terminal && !probe->cancelled;
}

/* The first of those that were found, by the place of the task. */
static void
consider(Look *look, const RetryEntry *entry, const RetryProbe *probe)
{
	if (look->found && retry_pos_compare(&entry->pos, &look->entry.pos) > 0)
		return;
	look->found = true;
	look->entry = *entry;
	look->entry.attempts = probe->attempts;
	look->entry.pendings = probe->pendings;
	look->entry.side = probe->attempts > 0 ? RETRY_SIDE_RETRY : RETRY_SIDE_FIRST;
	look->due = probe->attempts > 0 ? probe->next_due : entry->pos.due;
}

/*
 * Looks up the place of a task in its lane.  False when its row is gone, or it
 * is one that may not be sent.
 */
static bool
find_place(Look *look, RetryEntry *entry)
{
	RetryTurn  *turn = look->turn;
	int			leaf = entry->leaf;
	TupleTableSlot *slot = retry_find_task(turn->reader, &entry->pos.id, NULL, &leaf);

	if (slot == NULL)
	{
		look->locked |= retry_reader_blocked(turn->reader);
		return false;
	}
	entry->pos.due = DatumGetTimestampTz(retry_column(slot, Task_due_at));
	entry->scene_id = DatumGetInt32(retry_column(slot, Task_scene_id));
	entry->tid = slot->tts_tid;
	entry->leaf = leaf;
	return !retry_held_foreign(turn, DatumGetBool(retry_column(slot, Task_inert)),
							   DatumGetUInt64(retry_column(slot, Task_xid)), entry->pos.due);
}

/* Those that may have waited behind this one lie after it. */
static void
read_from(Look *look, const RetryPos *pos)
{
	retry_lane_note(look->turn->d->lanes, &look->lane->side[RETRY_SIDE_FIRST], pos);
}

/* One stream of one leaf, at its first entry that was not looked at. */
typedef struct Stream
{
	RetryIndex	index;
	int			leaf;
	RetryCandidate next;
} Stream;

static bool
stream_next(Look *look, Stream *stream)
{
	TupleTableSlot *slot = retry_scan_next(look->turn->reader, stream->index, stream->leaf,
										   ForwardScanDirection);

	leaf_done(look, stream->leaf);
	if (slot == NULL)
		return false;
	retry_candidate_read(stream->index, slot, stream->leaf, &stream->next);
	return true;
}

/* Opens the lane's streams of one kind, from the cursor of a side on. */
static int
open_streams(Look *look, RetryIndex index, RetrySideName side, Stream *open)
{
	RetryReader *reader = look->turn->reader;
	int			n = 0;

	for (int leaf = 0; leaf < RETRY_LEAVES; leaf++)
	{
		if (!leaf_open(look, leaf) ||
			retry_reader_empty(reader, index == RETRY_TASK_DUE ? RETRY_TASK : RETRY_ATTEMPT, leaf))
			continue;
		retry_scan_lane_after(reader, index, leaf, look->lane->hash, &look->lane->side[side].cursor);
		open[n].index = index;
		open[n].leaf = leaf;
		if (stream_next(look, &open[n]))
			n++;
	}
	return n;
}

/* The stream that comes first; NULL: there is nothing more, or it cannot be read. */
static Stream *
earliest(const Look *look, Stream *open, int n)
{
	Stream	   *first = NULL;

	for (int i = 0; i < n && !look->locked; i++)
	{
		if (first == NULL || retry_pos_compare(&open[i].next.entry.pos, &first->next.entry.pos) < 0)
			first = &open[i];
	}
	return first;
}

/* The place up to which everything due has been looked at. */
static RetryPos
end_of_due(const Look *look)
{
	RetryPos	pos = {.due = look->turn->now};

	memset(pos.id.data, 0xFF, UUID_LEN);
	return pos;
}

/*
 * Is the next attempt that an entry speaks of still to be made?  Then its task
 * has begun.  At first also finds out where to read the lane from.
 */
static bool
look_at_attempt(Look *look, const RetryEntry *seen)
{
	RetryEntry	entry = *seen;
	RetryProbe	probe;
	bool		open = is_open(look, &entry, &probe) && probe.attempts == entry.attempts;

	if (look->locked || (!open && !look->fresh))
		return false;
	if (find_place(look, &entry) && open)
		consider(look, &entry, &probe);
	if (look->fresh && !look->locked)
		read_from(look, &entry.pos);
	return open;
}

/*
 * Looks for tasks that have begun.  Of the next attempts in the stream, all but
 * the last of a task without an outcome are past, and the cursor goes on over
 * them.  True when there may be more to look at before anything else is.
 */
static bool
look_at_retries(Look *look)
{
	RetryLane  *lane = look->lane;
	RetrySide  *side = &lane->side[RETRY_SIDE_RETRY];
	Stream		open[RETRY_LEAVES];
	int			n = open_streams(look, RETRY_ATTEMPT_DUE, RETRY_SIDE_RETRY, open);
	RetryPos	pos = side->cursor;
	bool		past = true;	/* so far */
	Stream	   *stream;

	while ((stream = earliest(look, open, n)) != NULL && look->looked_at < LOOK_BUDGET)
	{
		RetryPos	seen = stream->next.entry.pos;

		look->looked_at++;
		if (look_at_attempt(look, &stream->next.entry) || look->locked)
			past = false;
		if (past)
			pos = seen;
		if (!stream_next(look, stream))
			*stream = open[--n];
	}
	if (look->locked)
		return false;
	if (stream == NULL)
	{
		lane->order_known = true;
		if (past)
			pos = end_of_due(look);
	}
	if (retry_pos_compare(&pos, &side->cursor) > 0)
		retry_lane_advance(look->turn->d->lanes, side, &pos, side->next_due);
	return stream != NULL && !look->found;
}

/* The replay of a dead task that may be sent, if there is one. */
static void
look_for_replay(Look *look, int leaf, const pg_uuid_t *dead)
{
	RetryReader *reader = look->turn->reader;
	TupleTableSlot *slot;
	ScanKeyData key;

	if (retry_reader_empty(reader, RETRY_TASK, leaf))
		return;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(dead));
	retry_scan_start(reader, RETRY_TASK_REPLAY, leaf, 1, &key);
	while ((slot = retry_scan_next(reader, RETRY_TASK_REPLAY, leaf, ForwardScanDirection)) != NULL)
	{
		RetryCandidate c;
		RetryProbe	probe;

		look->looked_at++;
		retry_candidate_read(RETRY_TASK_DUE, slot, leaf, &c);
		if (DatumGetInt64(retry_column(slot, Task_lane_hash)) == look->lane->hash &&
			!retry_held_foreign(look->turn, c.inert, c.xid, c.entry.pos.due) &&
			is_open(look, &c.entry, &probe))
			consider(look, &c.entry, &probe);
	}
	leaf_done(look, leaf);
}

/*
 * Looks at the dead tasks of the lane: whether one holds it up, and which replay
 * then is next.  Where it was held up once, it is read from there.
 */
static void
look_at_dead(Look *look)
{
	RetryTurn  *turn = look->turn;
	RetryDeadHead *heads;
	int			n;

	if (!retry_dead_heads_read(turn->snapshot, &look->lane->hash, true, &heads, &n))
		look->locked = true;
	for (int i = 0; i < n; i++)
	{
		RetryPos	place = {.due = heads[i].due_at,.id = heads[i].task_id};
		RetryScene *scene = retry_turn_scene(turn, heads[i].scene_id);

		if (look->fresh)
			read_from(look, &place);
		if (heads[i].passed || scene == NULL || !scene->flow.dead_head_blocks ||
			!retry_order_wanted(turn->d, look->lane->hash, scene))
			continue;
		if (!look->held_up || retry_pos_compare(&place, &look->dead) < 0)
			look->dead = place;
		look->held_up = true;
		for (int leaf = 0; leaf < RETRY_LEAVES && !look->found; leaf++)
		{
			if (leaf_open(look, leaf))
				look_for_replay(look, leaf, &heads[i].task_id);
		}
	}
}

/* How far a walk over tasks with an outcome has come. */
typedef enum Walk
{
	WALK_OPEN,					/* to one that has none */
	WALK_END,					/* to the end */
	WALK_MORE					/* not so far: the budget is used up, or
								 * something is locked */
} Walk;

/*
 * Walks over tasks that have an outcome, or may not be sent at all, from the
 * cursor on, and no farther than "last".  *passed is the last of them; *entry and
 * *probe are those of the open one.
 */
static Walk
walk_ended(Look *look, const RetryPos *last, RetryPos *passed, RetryEntry *entry, RetryProbe *probe)
{
	Stream		open[RETRY_LEAVES];
	int			n = open_streams(look, RETRY_TASK_DUE, RETRY_SIDE_FIRST, open);
	Stream	   *stream;

	*passed = look->lane->side[RETRY_SIDE_FIRST].cursor;
	while ((stream = earliest(look, open, n)) != NULL && retry_pos_compare(&stream->next.entry.pos, last) <= 0)
	{
		RetryCandidate *c = &stream->next;

		if (look->looked_at++ >= LOOK_BUDGET)
			return WALK_MORE;
		if (!retry_held_foreign(look->turn, c->inert, c->xid, c->entry.pos.due) && is_open(look, &c->entry, probe))
		{
			*entry = c->entry;
			return WALK_OPEN;
		}
		if (look->locked)
			return WALK_MORE;
		*passed = c->entry.pos;
		if (!stream_next(look, stream))
			*stream = open[--n];
	}
	return look->locked ? WALK_MORE : WALK_END;
}

/* Looks for the first task without an outcome; true when there may be more to look at. */
static bool
look_at_tasks(Look *look)
{
	RetrySide  *side = &look->lane->side[RETRY_SIDE_FIRST];
	RetryPos	last = {.due = DT_NOEND};
	RetryPos	pos;
	RetryEntry	entry;
	RetryProbe	probe;
	Walk		walk = walk_ended(look, &last, &pos, &entry, &probe);

	if (walk == WALK_OPEN)
	{
		consider(look, &entry, &probe);
		pos = retry_pos_before(&entry.pos);
	}
	/* one that becomes visible later is noted when it does */
	if (walk == WALK_END && pos.due < look->turn->now)
		pos = end_of_due(look);
	retry_lane_advance(look->turn->d->lanes, side, &pos, side->next_due);
	return walk == WALK_MORE;
}

/*
 * The lane waits for the task at this place, or for the replay of a dead one
 * there.  The cursor goes on to it, unless something without an outcome lies
 * before: a late commit, or one by a clock that was behind.  It waits as well,
 * and is what the lane has to be read from.
 */
static void
wait_behind(Look *look, const RetryPos *place)
{
	RetrySide  *side = &look->lane->side[RETRY_SIDE_FIRST];
	RetryPos	head = retry_pos_before(place);

	if (retry_pos_compare(&side->cursor, &head) < 0)
	{
		RetryPos	pos;
		RetryEntry	entry;
		RetryProbe	probe;
		Walk		walk = walk_ended(look, &head, &pos, &entry, &probe);

		if (look->locked)
			return;
		retry_lane_advance(look->turn->d->lanes, side, walk == WALK_END ? &head : &pos, side->next_due);
	}
	retry_lane_wait_behind(look->turn->d->lanes, look->lane, &head);
}

/* What is to be done about the one that was found */

/*
 * When somebody asked for the next attempt to be made; DT_NOEND: nobody did.
 * What was asked for before a pause counts no more than what was due before it.
 */
static TimestampTz
asked_for(Look *look, RetryScene *scene)
{
	const RetryEntry *entry = &look->entry;
	RetryTurn  *turn = look->turn;
	TimestampTz asked = DT_NOEND;
	TupleTableSlot *slot;

	if (retry_reader_empty(turn->reader, RETRY_SIGNAL, entry->leaf))
		return DT_NOEND;
	for (slot = retry_first_signal(turn->reader, entry->leaf, &entry->pos.id); slot != NULL;
		 slot = retry_scan_next(turn->reader, RETRY_SIGNAL_TASK, entry->leaf, ForwardScanDirection))
	{
		TimestampTz due = DatumGetTimestampTz(retry_column(slot, Signal_due_at));

		if (DatumGetChar(retry_column(slot, Signal_action)) == RETRY_SIGNAL_RUN_NOW &&
			DatumGetInt32(retry_column(slot, Signal_after_attempt)) == entry->attempts &&
			!retry_held_foreign(turn, DatumGetBool(retry_column(slot, Signal_inert)),
								DatumGetUInt64(retry_column(slot, Signal_xid)), due) &&
			!retry_held_back(turn, scene, look->lane->hash, due))
			asked = Min(asked, due);
	}
	leaf_done(look, entry->leaf);
	return asked;
}

/* Queues it if it is due, or says when it will be. */
static void
queue_next(Look *look, RetryScene *scene)
{
	RetryTurn  *turn = look->turn;
	RetryEntry *entry = &look->entry;
	TimestampTz due = look->due;
	TimestampTz asked = DT_NOEND;

	if (scene != NULL)
	{
		if (retry_held_back(turn, scene, look->lane->hash, due))
			due = DT_NOEND;		/* it is said when it no longer is */
		asked = asked_for(look, scene);
		retry_override_lane(turn->d, look->lane, scene);
	}
	if (asked < due)
	{
		due = asked;
		entry->side = RETRY_SIDE_FIRST; /* the budget does not hold it */
	}
	close_until(look, entry->side == RETRY_SIDE_FIRST ? due : DT_NOEND,
				entry->side == RETRY_SIDE_RETRY ? due : DT_NOEND);
	if (due > turn->now)
		return;
	entry->pos.due = due;
	if (retry_lane_push(turn->d->lanes, look->lane, entry))
		close_until(look, DT_NOEND, DT_NOEND);
}

int
retry_order_refill(RetryTurn *turn, RetryLane *lane)
{
	Look		look = {.turn = turn,.lane = lane};
	RetryPos	nowhere = {.due = DT_NOBEGIN};
	RetryScene *scene;
	bool		more = false;

	/* when that is recorded, it is read again */
	if (lane->unrecorded > 0 || lane->side[RETRY_SIDE_FIRST].queued > 0 ||
		lane->side[RETRY_SIDE_RETRY].queued > 0)
	{
		close_until(&look, DT_NOEND, DT_NOEND);
		return 0;
	}

	look.fresh = !lane->order_known;
	more = look_at_retries(&look);
	look_at_dead(&look);
	lane->dead_head = look.held_up;
	if (!look.locked && !more && !look.found && !look.held_up)
		more = look_at_tasks(&look);
	if (!look.locked && !more)
		wait_behind(&look, look.held_up ? &look.dead : look.found ? &look.entry.pos : &nowhere);
	if (look.locked)
		lane->order_known = false;
	scene = look.found ? retry_turn_scene(turn, look.entry.scene_id) : NULL;
	if (look.found && scene == NULL && !turn->config_read)
	{
		turn->locked = true;	/* it may be a new one */
		look.locked = true;
	}

	if (look.locked)
		wait_for_lock(&look);
	else if (more)
		retry_order_reopen(turn->d, lane);
	else if (!look.found)
		close_until(&look, DT_NOEND, DT_NOEND);
	else if (scene != NULL && !retry_order_wanted(turn->d, lane->hash, scene))
		end_order(&look);
	else
		queue_next(&look, scene);
	return look.looked_at + 1;
}

/* What becomes known of lanes that may not be in memory */

/* The lane of a task of this scene, ordered; NULL when there is no room for it. */
static RetryLane *
ordered_lane(RetryTurn *turn, int64 hash, int32 scene_id, TimestampTz due)
{
	RetryLane  *lane = retry_lanes_get(turn->d->lanes, hash, due, turn->now);

	if (lane != NULL && !lane->ordered)
		retry_order_begin(turn->d, lane, scene_id);
	return lane;
}

void
retry_order_signalled(RetryTurn *turn, const RetryCandidate *c, int64 lane_hash)
{
	RetryDispatcher *d = turn->d;
	RetryLane  *lane = retry_lanes_find(d->lanes, lane_hash);

	if (lane == NULL || !lane->ordered)
	{
		Placed		task;

		if (!may_matter(d, lane_hash) || !look_up(turn, &c->entry, &task))
			return;
		if (!retry_order_wanted(d, lane_hash, task.scene))
		{
			if (c->entry.attempts > 0 && may_have_led(task.scene, task.place.due) &&
				(lane = retry_lanes_get(d->lanes, lane_hash, task.place.due, turn->now)) != NULL)
				(void) read_left(d->lanes, lane, &task.place);
			return;
		}
		lane = ordered_lane(turn, lane_hash, task.scene->id, task.place.due);
		if (lane == NULL)
			return;
	}
	retry_lane_unqueue(d->lanes, lane);
	retry_order_reopen(d, lane);
}

bool
retry_order_look(RetryTurn *turn, uint64 slots)
{
	RetryDeadHead *heads;
	int			n;

	if (!retry_dead_heads_read(turn->snapshot, NULL, true, &heads, &n))
		return false;
	for (int i = 0; i < n; i++)
	{
		RetryPos	place = {.due = heads[i].due_at,.id = heads[i].task_id};
		RetryLane  *lane;

		if ((slots & (UINT64CONST(1) << RETRY_SLOT(heads[i].lane_hash))) == 0)
			continue;
		lane = ordered_lane(turn, heads[i].lane_hash, heads[i].scene_id, place.due);
		if (lane == NULL)
			continue;
		retry_lane_note(turn->d->lanes, &lane->side[RETRY_SIDE_FIRST], &place);
		retry_order_reopen(turn->d, lane);
	}
	return true;
}
