/*
 * send.c
 *		From a lane's entry to a transfer, and from its end to a verdict.
 *
 * An entry passes through four hands: prepared in a turn's transaction (its
 * row is read, its limits are judged), started after that transaction (no
 * snapshot or lock is held while the network works), ended (the policy has
 * said what it means), settled once that is recorded.  Nothing is sent whose
 * commit is not on disk: it might un-happen.
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
#include "govern.h"
#include "guc.h"
#include "hedge.h"
#include "judge.h"
#include "ordered.h"
#include "scene_rate.h"
#include "scene_secret.h"
#include "sqlsend.h"
#include "sqltarget.h"
#include "uuid7.h"

/* Requests made ready in one turn. */
#define PREPARE_BUDGET	512

/* The head of an ordered lane whose URL is disabled is looked at again after this. */
#define HEAD_PAUSE_US	USECS_PER_SEC

typedef RetrySending Transfer;

void
retry_send_create(RetryDispatcher *d)
{
	RetrySender *s = palloc0(sizeof(RetrySender));

	dlist_init(&s->taken);
	dlist_init(&s->flying);
	dlist_init(&s->unused);
	dlist_init(&d->ended);
	s->shared = retry_shmem_in_flight(d->worker);
	s->free_shared = palloc(retry_max_in_flight * sizeof(int));
	for (int i = retry_max_in_flight - 1; i >= 0; i--)
		s->free_shared[s->nfree_shared++] = i;
	d->sender = s;
}

static Transfer *
new_transfer(RetryDispatcher *d)
{
	RetrySender *s = d->sender;
	Transfer   *t;

	if (dlist_is_empty(&s->unused))
		t = MemoryContextAlloc(d->context, sizeof(Transfer));
	else
	{
		t = dlist_head_element(Transfer, node, &s->unused);
		dlist_delete(&t->node);
	}
	memset(t, 0, sizeof(Transfer));
	t->shared = -1;
	return t;
}

static void
free_transfer(RetryDispatcher *d, Transfer *t)
{
	RetrySender *s = d->sender;

	if (t->shared >= 0)
	{
		s->shared[t->shared].attempt_no = 0;
		s->free_shared[s->nfree_shared++] = t->shared;
	}
	if (t->prepared.backoff != NULL)
		pfree(t->prepared.backoff);
	retry_target_use_release(&t->target);
	if (t->error != NULL)
		pfree(t->error);
	retry_callback_forget(&t->ended);
	dlist_push_head(&s->unused, &t->node);
}

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

/* Gives an entry back: it is read again from its place. */
static void
put_back(RetryDispatcher *d, Transfer *t)
{
	dlist_delete(&t->node);
	retry_lane_forget_sent(d->lanes, t->lane, &t->ended.entry.pos.id);
	retry_lane_note(d->lanes, &t->lane->side[t->ended.entry.side], &t->ended.entry.pos);
	retry_lane_unread(d->lanes, &t->lane->side[t->ended.entry.side], 1, t->ended.entry.pos.due,
					  t->ended.entry.pos.due);
	retry_govern_unsent(d, t);
	free_transfer(d, t);
}

/* Lets go of an entry that is not to be sent, for good or until its scene resumes. */
static void
drop(RetryDispatcher *d, Transfer *t)
{
	dlist_delete(&t->node);
	retry_lane_forget_sent(d->lanes, t->lane, &t->ended.entry.pos.id);
	retry_govern_unsent(d, t);
	free_transfer(d, t);
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
	put_back(d, t);
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
	free_transfer(d, t);
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

/* What became of it; t->ended.error is set before. */
static void
set_verdict(Transfer *t, RetryVerdict verdict)
{
	t->ended.verdict = verdict;
	t->ended.pendings = retry_policy_pendings(t->ended.entry.pendings, verdict.outcome);
	if (t->ended.error[0] == '\0' && verdict.why != NULL)
		t->ended.error = verdict.why;
}

/* An attempt that ends without having been sent; the verdict says why. */
static void
end_unsent(RetryDispatcher *d, Transfer *t, TimestampTz now, RetryVerdict verdict)
{
	dlist_delete(&t->node);
	t->ended.started_at = now;
	t->ended.finished_at = now;
	t->ended.error = "";
	set_verdict(t, verdict);
	t->ended.remote_ip = "";
	t->ended.response = "";
	retry_lane_stats_ended(t->lane, &t->ended, NULL);
	retry_govern_unsent(d, t);
	dlist_push_tail(&d->ended, &t->ended.node);
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
		end_unsent(d, t, turn->now, lane_disabled);
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

/*
 * Reads the row of an entry and makes its request.  The transfer stays in the
 * list of those taken when it is to be sent; otherwise it is dealt with here.
 */
static void
prepare(RetryTurn *turn, Transfer *t)
{
	RetryDispatcher *d = turn->d;
	RetryEntry *entry = &t->ended.entry;
	int			leaf = entry->leaf;
	TupleTableSlot *slot = retry_find_task(turn->reader, &entry->pos.id, &entry->tid, &leaf);
	RetryVerdict rejected = {.outcome = RETRY_ERROR,.terminal = true,.reason = RETRY_DEAD_REJECTED};
	RetryVerdict verdict;
	RetryLimits limits;
	RetryScene *scene;
	RetryZone	zone;
	List	   *changes = NIL;
	bool		cancelled = false;
	bool		isnull;

	/* what was asked for; of a cancel the feed may not have read yet */
	if (slot != NULL)
		changes = retry_task_changes(turn->reader, leaf, &entry->pos.id, &cancelled);
	if (slot == NULL || cancelled || retry_reader_leaf_blocked(turn->reader, leaf))
	{
		if (!cancelled && retry_reader_blocked(turn->reader))
			put_back(d, t);
		else
			drop_for_good(d, t);	/* or its leaf was truncated: it had
									 * finished */
		return;
	}
	entry->leaf = leaf;			/* upkeep may have moved it since it was
								 * queued */
	d->sender->shared[t->shared].leaf = leaf;

	/* attempts and signals do not say whether their task was adopted */
	if (!retry_config_may_send(d->config,
							   DatumGetBool(slot_getattr(slot, Task_inert + 1, &isnull)),
							   DatumGetUInt64(slot_getattr(slot, Task_xid + 1, &isnull))))
	{
		drop_for_good(d, t);
		return;
	}
	retry_changes_apply_slot(changes, slot);
	t->ended.scene_id = DatumGetInt32(slot_getattr(slot, Task_scene_id + 1, &isnull));
	t->enqueued_by = DatumGetObjectId(slot_getattr(slot, Task_enqueued_by + 1, &isnull));
	scene = retry_turn_scene(turn, t->ended.scene_id);
	if (scene == NULL && !turn->config_read)
	{
		turn->config_locked = true; /* it may be a new one */
		put_back(d, t);
		return;
	}
	retry_callback_note(d->context, slot, scene, &t->ended);
	if (scene == NULL)
	{
		rejected.why = "its scene no longer exists";
		end_unsent(d, t, turn->now, rejected);
		return;
	}
	if (is_held(turn, t, scene, slot))
		return;
	if (!retry_request_prepare(slot, scene, entry->attempts + 1, turn->now, &t->prepared))
	{
		rejected.why = t->prepared.why;
		end_unsent(d, t, turn->now, rejected);
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
		end_unsent(d, t, turn->now, verdict);
		return;
	}
	if (t->prepared.http.url != NULL &&
		hold_for_url(turn, t, scene, t->prepared.http.url, limits.expires_at))
		return;
	if (!pass_rate(turn, t, scene, limits.expires_at) ||
		!choose_target(turn, t, scene, slot, limits.expires_at))
		return;
	if (limits.backoff->jitter == RETRY_JITTER_DECORRELATED)
		t->previous_delay_us = previous_delay(turn, t);
	if (entry->attempts == 0)
		note_commit(d->sender, DatumGetUInt64(slot_getattr(slot, Task_xid + 1, &isnull)));
}

void
retry_send_prepare(RetryTurn *turn)
{
	RetryDispatcher *d = turn->d;
	RetrySender *s = d->sender;
	RetryLane  *lane;
	RetryEntry	entry;

	retry_lanes_unblock_due(d->lanes, turn->now_us);
	retry_scene_rates_run(d, turn->now_us);
	for (int i = 0; i < PREPARE_BUDGET; i++)
	{
		Transfer   *t;

		if (s->nfree_shared == 0 || !retry_lanes_take(d->lanes, turn->now_us, &lane, &entry))
			return;
		t = new_transfer(d);
		t->lane = lane;
		t->taken_us = turn->now_us;
		t->ended.entry = entry;
		t->ended.lane_hash = lane->hash;
		t->ended.started_at = turn->now;
		t->ended.owner = t;
		publish(s, t);
		/* in the list first: an error on the way gives it back */
		dlist_push_tail(&s->taken, &t->node);
		prepare(turn, t);
	}
	turn->more = true;
}

/* From those taken to those under way, and to retry.running. */
static void
fly(RetrySender *s, Transfer *t, TimestampTz now)
{
	dlist_delete(&t->node);
	s->shared[t->shared].started_at = now;
	s->shared[t->shared].enqueued_by = t->enqueued_by;
	s->shared[t->shared].scene_id = t->ended.scene_id;
	dlist_push_tail(&s->flying, &t->node);
	s->nflying++;
	retry_lane_stats_sent(t->lane, t->taken_us);
}

/* Hands a task to an executor, or blocks its lane until there is one. */
static void
start_function(RetryDispatcher *d, Transfer *t, TimestampTz now)
{
	RetryJob	job = {
		.entry = t->ended.entry,
		.lane_hash = t->ended.lane_hash,
		.scene_id = t->ended.scene_id,
		.role = t->enqueued_by,
		.timeout_ms = t->prepared.http.timeout_ms,
		.ordered = t->ended.ordered,
		.started_at = now
	};
	int64		now_us = retry_monotonic_us();
	int64		until_us = retry_sql_start(d, &job, t, now, now_us);

	if (until_us == 0)
	{
		fly(d->sender, t, now);
		return;
	}
	dlist_delete(&t->node);
	retry_lane_block(d->lanes, t->lane, &t->ended.entry, RETRY_GATE_TARGETS, until_us);
	retry_govern_unsent(d, t);
	free_transfer(d, t);
}

void
retry_send_start(RetryDispatcher *d)
{
	RetrySender *s = d->sender;
	TimestampTz now = GetCurrentTimestamp();
	char		error[RETRY_HTTP_ERROR_TEXT];

	if (dlist_is_empty(&s->taken))
		return;
	if (s->flush != InvalidXLogRecPtr && XLogNeedsFlush(s->flush))
		XLogFlush(s->flush);
	s->flush = InvalidXLogRecPtr;

	while (!dlist_is_empty(&s->taken))
	{
		Transfer   *t = dlist_head_element(Transfer, node, &s->taken);

		if (now > t->prepared.expires_at)
		{
			/* what went before took long: the last look at the clock counts */
			RetryLimits limits = {.max_attempts = PG_INT32_MAX,.expires_at = t->prepared.expires_at};
			RetryVerdict verdict;

			if (retry_policy_spent(0, 0, &limits, now, &verdict))
				end_unsent(d, t, now, verdict);
			continue;
		}
		t->ended.started_at = now;
		if (retry_is_sql_target(t->prepared.http.url))
		{
			start_function(d, t, now);
			continue;
		}
		t->flights[0].sending = t;
		t->prepared.http.tag = &t->flights[0];
		if (!retry_http_start(d->http, &t->prepared.http, error, sizeof(error)))
		{
			put_back(d, t);
			continue;
		}
		fly(s, t, now);
		retry_hedge_arm(d, t);
	}
	d->busy = true;
}

void
retry_send_undo(RetryDispatcher *d)
{
	RetrySender *s = d->sender;

	while (!dlist_is_empty(&s->taken))
	{
		Transfer   *t = dlist_head_element(Transfer, node, &s->taken);

		/* the turn's memory is gone, and with it what was not copied yet */
		t->prepared.backoff = NULL;
		put_back(d, t);
	}
}

/* What the end of a transfer means. */
static void
judge(RetryDispatcher *d, Transfer *t, const RetryAnswer *answer)
{
	/* NULL: its row is gone since the start */
	RetryScene *scene = retry_config_scene(d->config, t->ended.scene_id);
	RetryAttemptAt at = {
		.attempt_no = t->ended.entry.attempts + 1,
		.pendings = t->ended.entry.pendings,
		.ended_at = t->ended.finished_at,
		.previous_delay_us = t->previous_delay_us
	};
	RetryLimits limits;
	RetryZone	zone;

	retry_judge_limits(scene, t->prepared.max_attempts, t->prepared.expires_at,
					   t->prepared.backoff, &limits, &zone);
	set_verdict(t, retry_judge_exchange(scene, &limits, answer, &at));
	if (t->result != NULL)
		retry_scene_mask(scene, unconstify(char *, t->result->body), t->result->body_len);
	retry_govern_answered(d, t, answer);
	if (t->result != NULL)
		retry_disabled_note(d, &t->ended, scene, t->result->url, t->enqueued_by);
}

/*
 * Functions that have ended.  What an executor has committed is recorded with
 * it; what failed was undone, and is recorded here as any failure is.
 */
static void
reap_functions(RetryDispatcher *d)
{
	RetryJobResult result;
	void	   *tag;

	while (retry_sql_next(d, &tag, &result))
	{
		Transfer   *t = tag;
		RetryAnswer answer = {.exchange = RETRY_EXCHANGE_FAILED,.sqlstate = result.sqlstate};

		d->sender->nflying--;
		if (result.end == RETRY_JOB_AGAIN)
		{
			put_back(d, t);
			continue;
		}
		dlist_delete(&t->node);
		t->ended.finished_at = result.finished_at;
		t->ended.duration_us = result.duration_us;
		t->ended.remote_ip = t->ended.response = "";
		t->ended.recorded = result.end == RETRY_JOB_RECORDED;
		if (t->ended.recorded)
		{
			t->ended.verdict.terminal = result.terminal;
			t->ended.verdict.next_due = result.next_due;
			retry_govern_returned(t);
		}
		else
		{
			t->error = MemoryContextStrdup(d->context, result.message);
			t->ended.error = t->error;
			judge(d, t, &answer);
		}
		retry_lane_stats_ended(t->lane, &t->ended, &answer);
		retry_govern_ended(d, t);
		dlist_push_tail(&d->ended, &t->ended.node);
	}

	/* with the executors that have become free, and before their lanes go on */
	retry_sql_run(d);
}

/* What an exchange said, which began so much later than its attempt. */
static void
note_result(RetryEnded *ended, const RetryHttpResult *result, int64 late_us)
{
	int64		from_start[] = {result->connect_us, result->tls_us, result->first_byte_us};

	for (int i = 0; i < lengthof(from_start); i++)
		from_start[i] = from_start[i] > 0 ? Min(from_start[i] + late_us, PG_INT32_MAX) : 0;
	ended->duration_us = result->total_us + late_us;
	ended->http_status = result->http_status;
	ended->dns_us = (int32) Min(result->dns_us, PG_INT32_MAX);
	ended->connect_us = (int32) from_start[0];
	ended->tls_us = (int32) from_start[1];
	ended->first_byte_us = (int32) from_start[2];
	ended->remote_ip = result->remote_ip;
	ended->error = result->error_text;
	ended->response = result->body;
	ended->response_len = result->body_len;
}

void
retry_send_reap(RetryDispatcher *d)
{
	RetrySender *s = d->sender;
	const RetryHttpResult *result;
	RetryAnswer answer;
	TimestampTz now = 0;

	reap_functions(d);

	retry_http_run(d->http);
	while ((result = retry_http_next(d->http)) != NULL)
	{
		RetryFlight *flight = result->tag;
		Transfer   *t = flight->sending;

		if (!retry_hedge_landed(d, flight, &result))
			continue;
		if (now == 0)
			now = GetCurrentTimestamp();
		dlist_delete(&t->node);
		s->nflying--;
		t->result = result;

		/*
		 * by the clock of now: the next attempt is not put off by one that
		 * was ahead
		 */
		t->ended.finished_at = now;
		note_result(&t->ended, result, t->hedge.late_us);
		if (t->ended.hedged == RETRY_HEDGED_YES)
			t->ended.duration_us = retry_monotonic_us() - t->flights[0].started_us;
		retry_answer_of_http(result, &answer);
		judge(d, t, &answer);
		retry_lane_stats_ended(t->lane, &t->ended, &answer);
		retry_govern_ended(d, t);
		dlist_push_tail(&d->ended, &t->ended.node);
	}
}

void
retry_send_settle(RetryDispatcher *d)
{
	dlist_mutable_iter it;
	TimestampTz now = GetCurrentTimestamp();

	dlist_foreach_modify(it, &d->ended)
	{
		RetryEnded *ended = dlist_container(RetryEnded, node, it.cur);
		Transfer   *t = ended->owner;

		if (!ended->recorded)
			continue;
		dlist_delete(it.cur);
		retry_disabled_recorded(d, ended);
		retry_lane_forget_sent(d->lanes, t->lane, &ended->entry.pos.id);
		if (!ended->verdict.terminal)
		{
			RetryPos	next = {.due = ended->verdict.next_due,.id = ended->entry.pos.id};

			retry_lane_note(d->lanes, &t->lane->side[RETRY_SIDE_RETRY], &next);
			if (!t->lane->ordered)
				retry_lane_unread(d->lanes, &t->lane->side[RETRY_SIDE_RETRY], 1, next.due, now);
		}
		else if (t->lane->ordered)
			retry_lane_read(&t->lane->side[RETRY_SIDE_FIRST], ended->entry.pos.due);
		if (t->lane->ordered)
			retry_order_reopen(d, t->lane);
		d->leaf_live[ended->entry.leaf] = true;
		if (t->result != NULL)
			retry_http_release(d->http, t->result);
		free_transfer(d, t);
		d->worker->attempts++;
		d->busy = true;
	}
}

int
retry_send_flying(const RetryDispatcher *d)
{
	return d->sender->nflying;
}

void
retry_send_each(RetryDispatcher *d,
				void (*visit) (int64 lane_hash, const RetryPos *pos, void *arg), void *arg)
{
	dlist_iter	it;

	dlist_foreach(it, &d->sender->taken)
	{
		Transfer   *t = dlist_container(Transfer, node, it.cur);

		visit(t->ended.lane_hash, &t->ended.entry.pos, arg);
	}
	dlist_foreach(it, &d->sender->flying)
	{
		Transfer   *t = dlist_container(Transfer, node, it.cur);

		visit(t->ended.lane_hash, &t->ended.entry.pos, arg);
	}
	dlist_foreach(it, &d->ended)
	{
		RetryEnded *ended = dlist_container(RetryEnded, node, it.cur);

		visit(ended->lane_hash, &ended->entry.pos, arg);
	}
}
