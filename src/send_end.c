/*
 * send_end.c
 *		From the end of a transfer to a verdict, and what follows when that is
 *		recorded.
 *
 * What an exchange or a function said is kept with its attempt, judged by the
 * rules of now, and told to the lane at once: the next request may depend on
 * it.  The lane lets go of the task only when the attempt is in the store.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "disabled.h"
#include "govern.h"
#include "hedge.h"
#include "judge.h"
#include "notify.h"
#include "ordered.h"
#include "scene_secret.h"
#include "scene_stats.h"
#include "sqlsend.h"
#include "transfer.h"

typedef RetrySending Transfer;

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
	retry_sending_set_verdict(t, retry_judge_part(retry_part(t->ended.on_dead), scene, &limits, answer, &at,
												  &t->ended.decision));
	if (t->result != NULL)
	{
		retry_scene_mask(scene, unconstify(char *, t->result->body), t->result->body_len);
		retry_scene_mask(scene, unconstify(char *, &t->result->error_text[0]), strlen(t->result->error_text));
	}
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
			retry_sending_put_back(d, t);
			continue;
		}
		dlist_delete(&t->node);
		t->ended.finished_at = result.finished_at;
		t->ended.duration_us = result.duration_us;
		t->ended.remote_ip = t->ended.response = "";
		t->ended.recorded = result.end == RETRY_JOB_RECORDED;
		if (t->ended.recorded)
		{
			t->ended.verdict.outcome = result.outcome;
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
		retry_scene_stats_recorded(d, ended);
		retry_note_end(d->notes, retry_config_scene(d->config, ended->scene_id), ended);
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
		retry_sending_free(d, t);
		d->worker->attempts++;
		d->busy = true;
	}
}
