/*
 * send_prepare.c
 *		From a lane's entry to a request that is ready to be sent.
 *
 * In a turn's transaction, with its snapshot: the row of the entry is read, and
 * whatever may be in the way is asked in turn, from what lasts (a scene that is
 * gone) to what passes (a rate that is spent).  An entry that is not to be sent
 * now leaves here: for good, back to its place, or with its lane to wait.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "executor/tuptable.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "amend.h"
#include "callback.h"
#include "disabled.h"
#include "global.h"
#include "govern.h"
#include "guc.h"
#include "judge.h"
#include "ordered.h"
#include "quarantine.h"
#include "scene_rate.h"
#include "sqlsend.h"
#include "sqltarget.h"
#include "transfer.h"

/* Requests made ready in one turn. */
#define PREPARE_BUDGET	512

/* The head of an ordered lane whose URL is disabled is looked at again after this. */
#define HEAD_PAUSE_US	USECS_PER_SEC

typedef RetrySending Transfer;

/* Shows the attempt in retry.running. */
static void
publish(RetrySender *s, Transfer *t)
{
	RetryInFlight *shown;

	t->shared = s->free_shared[--s->nfree_shared];
	shown = &s->shared[t->shared];
	shown->id = t->ended.entry.pos.id;
	shown->started_at = t->ended.started_at;
	shown->lane_hash = t->ended.lane_hash;
	shown->scene_id = 0;		/* not shown to anybody before it is sent */
	shown->leaf = t->ended.entry.leaf;
	pg_write_barrier();
	shown->attempt_no = t->ended.entry.attempts + 1;
}

/* Lets go of an entry that is not to be sent, for good or until its scene resumes. */
static void
drop(RetryDispatcher *d, Transfer *t)
{
	dlist_delete(&t->node);
	retry_lane_forget_sent(d->lanes, t->lane, &t->ended.entry.pos.id);
	retry_govern_unsent(d, t);
	retry_sending_free(d, t);
}

/* The same for good: who is behind it may go on. */
static void
drop_for_good(RetryDispatcher *d, Transfer *t)
{
	RetryLane  *lane = t->lane;

	drop(d, t);
	if (lane->ordered)
		retry_order_reopen(d, lane);
}

/*
 * Is the lane ordered, as it turns out when the task of an entry is read that
 * did not name its scene?  Then it is not this entry's turn.
 */
static bool
has_order(RetryDispatcher *d, Transfer *t, const RetryScene *scene, TupleTableSlot *slot)
{
	RetryPos	place = {.id = t->ended.entry.pos.id};
	RetryLane  *lane = t->lane;
	bool		isnull;

	t->ended.ordered = lane->ordered;
	if (lane->ordered || !retry_order_wanted(d, lane->hash, scene))
		return false;
	place.due = DatumGetTimestampTz(slot_getattr(slot, Task_due_at + 1, &isnull));
	retry_order_begin(d, lane, scene->id);
	retry_sending_put_back(d, t);
	retry_lane_note(d->lanes, &lane->side[RETRY_SIDE_FIRST], &place);
	return true;
}

/*
 * The entry and its lane wait, and so does everything behind it; but an entry
 * whose time is over earlier is looked at then.
 */
static void
wait_with_lane(RetryTurn *turn, Transfer *t, RetryGate why, int64 until_us, TimestampTz expires_at)
{
	RetryDispatcher *d = turn->d;

	dlist_delete(&t->node);
	if (expires_at - turn->now < until_us - turn->now_us)
		until_us = turn->now_us + (expires_at - turn->now) + 1;
	retry_lane_block(d->lanes, t->lane, &t->ended.entry, why, until_us);
	retry_govern_unsent(d, t);
	retry_sending_free(d, t);
}

/*
 * Is its URL disabled, or (NULL) are all targets?  Then it is passed over, but
 * for the head of an ordered lane, which nothing may pass.
 */
static bool
hold_for_url(RetryTurn *turn, Transfer *t, const RetryScene *scene, const char *url,
			 TimestampTz expires_at)
{
	RetryUrlKey key;

	if (t->lane->ordered)
	{
		if (url != NULL && !retry_disabled_has(turn->d->disabled, scene->id, url, &key))
			return false;
		wait_with_lane(turn, t, RETRY_GATE_ORDER, turn->now_us + HEAD_PAUSE_US, expires_at);
		return true;
	}
	if (!retry_held_url(turn, scene, url, t->ended.lane_hash, t->ended.entry.pos.due, expires_at))
		return false;
	drop(turn->d, t);
	return true;
}

/* Counts the request to its scene's rate; when that is spent, the lane waits for its turn. */
static bool
pass_rate(RetryTurn *turn, Transfer *t, const RetryScene *scene, TimestampTz expires_at)
{
	int64		until_us;

	if (retry_scene_rate_pass(turn->d, scene, t->lane, turn->now_us, &until_us))
	{
		t->rated = scene->rate.count > 0 ? scene->id : 0;
		return true;
	}
	wait_with_lane(turn, t, RETRY_GATE_SCENE_RATE, until_us, expires_at);
	return false;
}

/*
 * Chooses a target when the scene has several.  When none works, its lane waits
 * for the next probe.
 */
static bool
choose_target(RetryTurn *turn, Transfer *t, RetryScene *scene, TupleTableSlot *slot,
			  TimestampTz expires_at)
{
	int64		until_us;

	if (t->prepared.http.url != NULL)
		return true;
	if (retry_target_use_take(turn->d->targets, scene, slot, turn->now_us, &t->target, &until_us))
	{
		t->prepared.http.url = t->ended.target = retry_target_use_url(&t->target);
		return true;
	}
	if (!t->target.all_disabled || !hold_for_url(turn, t, scene, NULL, expires_at))
		wait_with_lane(turn, t, RETRY_GATE_TARGETS, until_us, expires_at);
	return false;
}

/*
 * A commit that did not wait for its WAL could be undone by a crash; what it
 * enqueued must not have been sent then.  Remembers how far to flush.
 */
static void
note_commit(RetrySender *s, uint64 xid)
{
	XLogRecPtr	lsn;

	/* old ones are on disk, and their status may be gone */
	if (xid == s->flush_xid || xid + 1000000 < U64FromFullTransactionId(ReadNextFullTransactionId()))
		return;
	s->flush_xid = xid;
	lsn = TransactionIdGetCommitLSN((TransactionId) xid);
	if (lsn > s->flush)
		s->flush = lsn;
}

/* What becomes due in a lane that is disabled. */
static const RetryVerdict lane_disabled = {
	.outcome = RETRY_BLOCKED,.terminal = true,.reason = RETRY_DEAD_BLOCKED,
	.why = "its lane is disabled"
};

/* May its request not go where it is to go?  Then that is its end. */
static bool
end_forbidden(RetryTurn *turn, Transfer *t, const RetryScene *scene)
{
	RetryVerdict verdict = {.outcome = RETRY_BLOCKED,.terminal = true,.reason = RETRY_DEAD_BLOCKED};

	verdict.why = retry_destination_refusal(&scene->to, t->prepared.http.url);
	if (verdict.why == NULL)
		return false;
	retry_sending_end_unsent(turn->d, t, turn->now, verdict);
	return true;
}

/* How long the last delay was, for the jitter that builds on it. */
static int64
previous_delay(RetryTurn *turn, Transfer *t)
{
	const RetryEntry *entry = &t->ended.entry;
	RetryProbe	probe;

	if (entry->attempts == 0)
		return 0;
	retry_probe_task(turn->reader, entry->leaf, &entry->pos.id, &probe);
	return probe.terminal || probe.outcome == RETRY_PROCESSING ? 0 : Max(probe.next_due - probe.finished_at, 0);
}

/* Is its order, its scene or its lane in the way?  Then it is dealt with here. */
static bool
is_held(RetryTurn *turn, Transfer *t, RetryScene *scene, TupleTableSlot *slot)
{
	RetryDispatcher *d = turn->d;
	const RetryOverride *override = retry_override_find(d->overrides, t->ended.lane_hash);

	if (has_order(d, t, scene, slot))
		return true;
	if (retry_held_back(turn, scene, t->ended.lane_hash, t->ended.entry.pos.due))
	{
		drop(d, t);
		return true;
	}
	if (override != NULL && override->disabled)
	{
		retry_sending_end_unsent(d, t, turn->now, lane_disabled);
		return true;
	}
	return false;
}

/* What was read in the turn's memory, and is needed when the attempt has ended. */
static void
keep_backoff(RetryDispatcher *d, Transfer *t)
{
	RetryBackoff *kept;

	if (t->prepared.backoff == NULL)
		return;
	kept = MemoryContextAlloc(d->context, VARSIZE(t->prepared.backoff));
	memcpy(kept, t->prepared.backoff, VARSIZE(t->prepared.backoff));
	t->prepared.backoff = kept;
}

/* Has it crashed the server too often?  Then its task is put aside. */
static bool
end_condemned(RetryTurn *turn, Transfer *t, RetrySuspicion as)
{
	RetryVerdict verdict;

	if (t->suspicion == RETRY_SUSPECT_NONE || !retry_quarantine_condemned(turn->d, t, as, &verdict))
		return false;
	retry_sending_end_unsent(turn->d, t, turn->now, verdict);
	return true;
}

/*
 * Is it a timer, or part of a transaction that was rolled back before it ended?
 * Then nothing is sent, and it ends here: though its scene is paused, when its
 * next attempt was asked for.
 */
static bool
end_part(RetryTurn *turn, Transfer *t, TupleTableSlot *slot)
{
	static const RetryVerdict time_over = {.outcome = RETRY_SUCCEEDED,.terminal = true};
	static const RetryVerdict rolled_back = {
		.outcome = RETRY_STOPPED,.terminal = true,.reason = RETRY_DEAD_STOPPED,
		.why = "its transaction was rolled back"
	};
	RetryPart	part = retry_part(t->ended.on_dead);
	RetryDecision decision;
	bool		isnull;
	Datum		gid;

	if (part != RETRY_PART_TIMER && part != RETRY_PART_FIRST)
		return false;
	t->ended.ordered = t->lane->ordered;
	if (part == RETRY_PART_TIMER)
	{
		retry_sending_end_unsent(turn->d, t, turn->now, time_over);
		return true;
	}
	gid = slot_getattr(slot, Task_parent_id + 1, &isnull);
	if (isnull)
		return false;
	if (!retry_global_decided(turn->globals, DatumGetUUIDP(gid), &decision))
	{
		turn->locked = true;
		retry_sending_put_back(turn->d, t);
		return true;
	}
	if (decision != RETRY_ROLLBACK)
		return false;
	retry_sending_end_unsent(turn->d, t, turn->now, rolled_back);
	return true;
}

/*
 * The row of an entry, with what was asked to be changed in it; NULL: it is not
 * to be sent, or cannot be read now, and is dealt with.
 */
static TupleTableSlot *
read_task(RetryTurn *turn, Transfer *t)
{
	RetryDispatcher *d = turn->d;
	RetryEntry *entry = &t->ended.entry;
	int			leaf = entry->leaf;
	TupleTableSlot *slot = retry_find_task(turn->reader, &entry->pos.id, &entry->tid, &leaf);
	List	   *changes = NIL;
	bool		cancelled = false;
	bool		isnull;

	/* what was asked for; of a cancel the feed may not have read yet */
	if (slot != NULL)
		changes = retry_task_changes(turn->reader, leaf, &entry->pos.id, &cancelled);
	if (slot == NULL || cancelled || retry_reader_leaf_blocked(turn->reader, leaf))
	{
		if (!cancelled && retry_reader_blocked(turn->reader))
			retry_sending_put_back(d, t);
		else
			drop_for_good(d, t);	/* or its leaf was truncated: it had
									 * finished */
		return NULL;
	}
	entry->leaf = leaf;			/* upkeep may have moved it since it was
								 * queued */
	d->sender->shared[t->shared].leaf = leaf;

	/* attempts and signals do not say whether their task was adopted */
	if (retry_held_foreign(turn, DatumGetBool(slot_getattr(slot, Task_inert + 1, &isnull)),
						   DatumGetUInt64(slot_getattr(slot, Task_xid + 1, &isnull)), entry->pos.due))
	{
		drop_for_good(d, t);
		return NULL;
	}
	retry_changes_apply_slot(changes, slot);
	return slot;
}

/*
 * Reads the row of an entry and makes its request.  The transfer stays in the
 * list of those taken when it is to be sent; otherwise it is dealt with here.
 */
static void
prepare(RetryTurn *turn, Transfer *t)
{
	RetryDispatcher *d = turn->d;
	RetryEntry *entry = &t->ended.entry;
	TupleTableSlot *slot = read_task(turn, t);
	RetryVerdict rejected = {.outcome = RETRY_ERROR,.terminal = true,.reason = RETRY_DEAD_REJECTED};
	RetryVerdict verdict;
	RetryLimits limits;
	RetryScene *scene;
	RetryZone	zone;
	bool		isnull;

	if (slot == NULL)
		return;
	t->ended.scene_id = DatumGetInt32(slot_getattr(slot, Task_scene_id + 1, &isnull));
	t->enqueued_by = DatumGetObjectId(slot_getattr(slot, Task_enqueued_by + 1, &isnull));
	scene = retry_turn_scene(turn, t->ended.scene_id);
	if (scene == NULL && !turn->config_read)
	{
		turn->locked = true;	/* it may be a new one */
		retry_sending_put_back(d, t);
		return;
	}
	retry_callback_note(d->context, slot, scene, &t->ended);
	if (scene == NULL)
	{
		rejected.why = "its scene no longer exists";
		retry_sending_end_unsent(d, t, turn->now, rejected);
		return;
	}
	if (end_part(turn, t, slot) || is_held(turn, t, scene, slot) || end_condemned(turn, t, RETRY_SUSPECT_CONDEMNED))
		return;
	if (!retry_request_prepare(slot, scene, entry->attempts + 1, turn->now, &t->prepared))
	{
		rejected.why = t->prepared.why;
		retry_sending_end_unsent(d, t, turn->now, rejected);
		return;
	}
	retry_govern_prepared(turn, t, scene, slot);
	retry_lane_set_cap(d->lanes, t->lane,
					   retry_is_sql_target(t->prepared.http.url) ? retry_sql_lane_cap() : 0);
	keep_backoff(d, t);
	retry_judge_limits(scene, t->prepared.max_attempts, t->prepared.expires_at,
					   t->prepared.backoff, &limits, &zone);
	if (retry_policy_spent(entry->attempts, entry->pendings, &limits, turn->now, &verdict))
	{
		retry_sending_end_unsent(d, t, turn->now, verdict);
		return;
	}
	if (t->prepared.http.url != NULL &&
		(end_forbidden(turn, t, scene) ||
		 hold_for_url(turn, t, scene, t->prepared.http.url, limits.expires_at)))
		return;
	if (!pass_rate(turn, t, scene, limits.expires_at) ||
		!choose_target(turn, t, scene, slot, limits.expires_at) ||
		(t->target.target != NULL && end_forbidden(turn, t, scene)))
		return;
	if (limits.backoff->jitter == RETRY_JITTER_DECORRELATED)
		t->previous_delay_us = previous_delay(turn, t);
	if (entry->attempts == 0)
		note_commit(d->sender, DatumGetUInt64(slot_getattr(slot, Task_xid + 1, &isnull)));
}

/* The next entry of the lanes; NULL when none may be sent now. */
static Transfer *
take(RetryTurn *turn)
{
	RetryDispatcher *d = turn->d;
	RetryLane  *lane;
	RetryEntry	entry;
	Transfer   *t;

	if (!retry_lanes_take(d->lanes, turn->now_us, &lane, &entry))
		return NULL;
	t = retry_sending_new(d);
	t->lane = lane;
	t->taken_us = turn->now_us;
	t->ended.entry = entry;
	t->ended.scene_id = entry.scene_id;
	t->ended.lane_hash = lane->hash;
	t->ended.started_at = turn->now;
	t->ended.owner = t;
	return t;
}

void
retry_send_prepare(RetryTurn *turn)
{
	RetryDispatcher *d = turn->d;
	RetrySender *s = d->sender;

	retry_lanes_unblock_due(d->lanes, turn->now_us);
	retry_scene_rates_run(d, turn->now_us);
	for (int i = 0; i < PREPARE_BUDGET; i++)
	{
		Transfer   *t = NULL;

		if (s->nfree_shared == 0)
			return;
		if (d->quarantine != NULL)
		{
			t = retry_quarantine_next(d, s->nfree_shared < retry_max_in_flight);
			if (t == NULL && retry_quarantine_closed(d))
				return;
		}
		if (t == NULL)
		{
			t = take(turn);
			if (t == NULL)
				return;
			if (d->quarantine != NULL && retry_quarantine_hold(d, t))
				continue;
		}
		publish(s, t);
		/* in the list first: an error on the way gives it back */
		dlist_push_tail(&s->taken, &t->node);
		if (!end_condemned(turn, t, RETRY_SUSPECT_UNREADABLE))
			prepare(turn, t);
	}
	turn->more = true;
}
