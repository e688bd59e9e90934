/*
 * send.c
 *		The attempts of a dispatcher: what each goes through, and their start.
 *
 * An entry passes through four hands: prepared in a turn's transaction
 * (send_prepare.c: its row is read, its limits are judged), started after that
 * transaction (here: no snapshot or lock is held while the network works),
 * ended (send_end.c: the policy has said what it means), settled once that is
 * recorded.  Nothing is sent whose commit is not on disk: it might un-happen.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "callback.h"
#include "govern.h"
#include "guc.h"
#include "hedge.h"
#include "quarantine.h"
#include "sqlsend.h"
#include "sqltarget.h"

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

RetrySending *
retry_sending_new(RetryDispatcher *d)
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

void
retry_sending_free(RetryDispatcher *d, Transfer *t)
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
	if (d->quarantine != NULL)
		retry_quarantine_left(d, t);
	dlist_push_head(&s->unused, &t->node);
}

void
retry_sending_put_back(RetryDispatcher *d, Transfer *t)
{
	dlist_delete(&t->node);
	retry_lane_forget_sent(d->lanes, t->lane, &t->ended.entry.pos.id);
	retry_lane_note(d->lanes, &t->lane->side[t->ended.entry.side], &t->ended.entry.pos);
	retry_lane_unread(d->lanes, &t->lane->side[t->ended.entry.side], 1, t->ended.entry.pos.due,
					  t->ended.entry.pos.due);
	retry_govern_unsent(d, t);
	retry_sending_free(d, t);
}

void
retry_sending_set_verdict(Transfer *t, RetryVerdict verdict)
{
	t->ended.verdict = verdict;
	t->ended.pendings = retry_policy_pendings(t->ended.entry.pendings, verdict.outcome);
	if (t->ended.error[0] == '\0' && verdict.why != NULL)
		t->ended.error = verdict.why;
}

void
retry_sending_end_unsent(RetryDispatcher *d, Transfer *t, TimestampTz now, RetryVerdict verdict)
{
	dlist_delete(&t->node);
	t->ended.started_at = now;
	t->ended.finished_at = now;
	t->ended.error = "";
	retry_sending_set_verdict(t, verdict);
	t->ended.remote_ip = "";
	t->ended.response = "";
	retry_lane_stats_ended(t->lane, &t->ended, NULL);
	retry_govern_unsent(d, t);
	dlist_push_tail(&d->ended, &t->ended.node);
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
	retry_lane_stats_scene(t->lane, t->ended.scene_id);
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
	retry_sending_free(d, t);
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
				retry_sending_end_unsent(d, t, now, verdict);
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
			retry_sending_put_back(d, t);
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
		retry_sending_put_back(d, t);
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
	if (d->quarantine != NULL)
		retry_quarantine_each(d, visit, arg);
}
