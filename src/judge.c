/*
 * judge.c
 *		From the end of one exchange to the verdict over its task.
 *
 * The policy is pure and knows neither HTTP client nor jsonpath; this brings
 * both to it.  It is apart from send_end.c because a dispatcher is not the only
 * one that makes attempts, and an answer should mean the same to all.
 *
 * A scene without conditions on the body costs nothing here: no timer, no
 * memory, no look at the body.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "lib/stringinfo.h"

#include "answer_rules.h"
#include "judge.h"

#define UNIX_SHIFT_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

static RetryExchange
exchange_of(const RetryHttpResult *result)
{
	if (result->http_status > 0)
		return RETRY_EXCHANGE_ANSWERED;
	if (result->delivered)
		return RETRY_EXCHANGE_RETURNED;
	switch (result->error)
	{
		case RETRY_HTTP_BLOCKED:
			return RETRY_EXCHANGE_BLOCKED;
		case RETRY_HTTP_BAD_REQUEST:
		case RETRY_HTTP_REFUSED:
			return RETRY_EXCHANGE_REFUSED;
		case RETRY_HTTP_INTERNAL:
			return RETRY_EXCHANGE_INTERNAL;
		default:
			return RETRY_EXCHANGE_FAILED;
	}
}

static RetryErrorClass
class_of(RetryHttpError error)
{
	switch (error)
	{
		case RETRY_HTTP_DNS:
			return RETRY_CLASS_DNS;
		case RETRY_HTTP_CONNECT:
			return RETRY_CLASS_CONNECT;
		case RETRY_HTTP_CONNECT_TIMEOUT:
			return RETRY_CLASS_CONNECT_TIMEOUT;
		case RETRY_HTTP_TLS:
			return RETRY_CLASS_TLS;
		case RETRY_HTTP_TIMEOUT:
			return RETRY_CLASS_TIMEOUT;
		case RETRY_HTTP_CLOSED:
			return RETRY_CLASS_CLOSED;
		case RETRY_HTTP_MALFORMED:
			return RETRY_CLASS_MALFORMED;
		default:
			return RETRY_CLASS_NONE;
	}
}

void
retry_answer_of_http(const RetryHttpResult *result, RetryAnswer *answer)
{
	memset(answer, 0, sizeof(*answer));
	answer->exchange = exchange_of(result);
	answer->http_status = result->http_status;
	answer->error_class = class_of(result->error);
	answer->body = result->body;
	answer->body_len = result->body_len;
	answer->body_cut = result->error != RETRY_HTTP_OK;
	answer->body_truncated = result->body_truncated;
	answer->retry_after = result->retry_after;
	answer->rate_limit = result->rate_limit;
	answer->retry_control = result->retry_control;
}

/*
 * Retry-After speaks for the whole endpoint only with the two statuses that do:
 * with others it says when this one request makes sense again (still working
 * on it, moved for a while).  Limits that are used up are so with any status.
 */
int64
retry_answer_pause_us(const RetryAnswer *answer, TimestampTz now)
{
	int64		now_unix_us = now + UNIX_SHIFT_US;
	int64		pause = 0;

	if (answer->exchange != RETRY_EXCHANGE_ANSWERED)
		return 0;
	if (answer->http_status == 429 || answer->http_status == 503)
		pause = retry_after_delay_us(&answer->retry_after, now_unix_us, RETRY_AFTER_CAP_US);
	return Max(pause, retry_ratelimit_wait_us(&answer->rate_limit, now_unix_us, RETRY_AFTER_CAP_US));
}

void
retry_judge_limits(const RetryScene *scene, int32 max_attempts, TimestampTz expires_at,
				   const RetryBackoff *backoff, RetryLimits *limits, RetryZone *zone)
{
	static RetryBackoff fallback;

	if (backoff == NULL && scene != NULL)
		backoff = scene->backoff;
	if (backoff == NULL)
	{
		RetryParseError never;

		if (fallback.kind == 0)
			(void) retry_backoff_parse("fixed 1m", &fallback, &never);
		backoff = &fallback;
	}
	limits->max_attempts = max_attempts;
	limits->expires_at = expires_at;
	limits->backoff = backoff;
	limits->zone = NULL;
	if (backoff->kind == RETRY_BACKOFF_CRON &&
		retry_zone_open(retry_backoff_zone_name(backoff), zone))
		limits->zone = zone;
}

/* The scene's conditions, where the answer has a body that they may look at. */
static void
look_at_body(const RetryScene *scene, const RetryAnswer *answer, RetryEnd *end)
{
	RetryTruths truths;

	if (scene == NULL || !retry_rules_any(scene))
		return;
	if (answer->exchange == RETRY_EXCHANGE_RETURNED)
		truths = retry_rules_match_json(scene, answer->json);
	else if (answer->exchange == RETRY_EXCHANGE_ANSWERED && answer->body_len > 0 &&
			 !answer->body_cut && !answer->body_truncated)
		truths = retry_rules_match(scene, answer->body, answer->body_len);
	else
		return;
	end->stop_when = truths.stop_when;
	end->pending_when = truths.pending_when;
	end->success_when = truths.success_when;
}

RetryVerdict
retry_judge_exchange(const RetryScene *scene, const RetryLimits *limits,
					 const RetryAnswer *answer, const RetryAttemptAt *at)
{
	static RetryRules defaults;
	const RetryRules *rules = &defaults;
	RetryEnd	end = {0};

	if (scene != NULL)
		rules = &scene->rules;
	else if (defaults.pending_interval_us == 0)
		retry_rules_default(&defaults);

	end.exchange = answer->exchange == RETRY_EXCHANGE_FAILED && answer->sqlstate == RETRY_ERRCODE_STOP ?
		RETRY_EXCHANGE_REFUSED : answer->exchange;
	end.http_status = answer->http_status;
	end.body_cut = answer->body_cut;
	end.error_class = answer->error_class;
	end.sqlstate = answer->sqlstate;
	end.retry_after = answer->retry_after;
	end.retry_control = answer->retry_control != NULL ? answer->retry_control : "";
	end.attempt_no = at->attempt_no;
	end.pendings = at->pendings;
	end.ended_at = at->ended_at;
	end.previous_delay_us = at->previous_delay_us;
	end.random = pg_prng_uint64(&pg_global_prng_state);
	look_at_body(scene, answer, &end);
	return retry_policy_judge(&end, rules, limits);
}

/* What the answer to a check says. */
static RetryDecision
decision_of(const RetryAnswer *answer)
{
	StringInfoData text;
	RetryDecision decision;

	if (answer->exchange == RETRY_EXCHANGE_ANSWERED)
		return answer->http_status / 100 == 2 && !answer->body_cut && !answer->body_truncated ?
			retry_decision_read(answer->body, answer->body_len) : RETRY_UNDECIDED;
	if (answer->exchange != RETRY_EXCHANGE_RETURNED || answer->json == NULL)
		return RETRY_UNDECIDED;
	initStringInfo(&text);
	(void) JsonbToCString(&text, unconstify(JsonbContainer *, &answer->json->root), VARSIZE(answer->json));
	decision = retry_decision_read(text.data, text.len);
	pfree(text.data);
	return decision;
}

RetryVerdict
retry_judge_check(const RetryLimits *limits, const RetryAnswer *answer, const RetryAttemptAt *at,
				  RetryDecision *decision)
{
	RetryAnswer plain = {
		.exchange = RETRY_EXCHANGE_ANSWERED,.http_status = 500,.retry_after = answer->retry_after
	};
	RetryVerdict verdict;

	*decision = decision_of(answer);
	if (*decision != RETRY_UNDECIDED)
		plain.http_status = 200;
	verdict = retry_judge_exchange(NULL, limits, &plain, at);
	if (*decision == RETRY_UNDECIDED &&
		(answer->exchange == RETRY_EXCHANGE_RETURNED || answer->exchange == RETRY_EXCHANGE_ANSWERED))
		verdict.why = "the answer is neither commit nor rollback";
	return verdict;
}

bool
retry_judge_returned(const Jsonb *answer, const char *word)
{
	JsonbContainer *root;
	JsonbValue *value;

	if (answer == NULL)
		return false;
	root = unconstify(JsonbContainer *, &answer->root);
	if (!JsonContainerIsScalar(root))
		return false;
	value = getIthJsonbValueFromContainer(root, 0);
	return value != NULL && value->type == jbvString && value->val.string.len == strlen(word) &&
		memcmp(value->val.string.val, word, value->val.string.len) == 0;
}

/* An operation that may fail. */
static RetryVerdict
judge_first(const RetryScene *scene, const RetryLimits *limits, const RetryAnswer *answer, const RetryAttemptAt *at)
{
	RetryAnswer ongoing = {
		.exchange = RETRY_EXCHANGE_ANSWERED,.http_status = 425,.retry_after = answer->retry_after,
		.retry_control = "processing"
	};
	RetryVerdict verdict = retry_judge_exchange(scene, limits, answer, at);
	bool		answered = answer->exchange == RETRY_EXCHANGE_ANSWERED;

	if (verdict.terminal && verdict.reason == RETRY_DEAD_GONE)
		verdict.reason = RETRY_DEAD_STOPPED;	/* nothing is disabled by it */
	if (verdict.outcome == RETRY_FAILED && answered && answer->http_status == 425)
		return retry_judge_exchange(scene, limits, &ongoing, at);
	if (verdict.outcome == RETRY_SUCCEEDED && retry_judge_returned(answer->json, "ongoing"))
		return retry_judge_exchange(scene, limits, &ongoing, at);
	if ((verdict.outcome == RETRY_FAILED && answered && answer->http_status == 409) ||
		(answer->exchange == RETRY_EXCHANGE_FAILED && answer->sqlstate == RETRY_ERRCODE_FAILURE))
	{
		verdict.outcome = RETRY_STOPPED;
		verdict.terminal = true;
		verdict.reason = RETRY_DEAD_STOPPED;
		verdict.next_due = 0;
		verdict.why = NULL;
	}
	return verdict;
}

/* One that must be done, however long it takes. */
static RetryVerdict
judge_must(const RetryScene *scene, const RetryLimits *limits, const RetryAnswer *answer, const RetryAttemptAt *at)
{
	RetryAnswer plain = {
		.exchange = RETRY_EXCHANGE_ANSWERED,.http_status = 500,.retry_after = answer->retry_after
	};
	RetryVerdict verdict = retry_judge_exchange(scene, limits, answer, at);
	const char *why = verdict.why;

	if (answer->exchange == RETRY_EXCHANGE_FAILED && answer->sqlstate == RETRY_ERRCODE_STOP)
		return verdict;			/* it can never be done */
	if (retry_judge_returned(answer->json, "ongoing"))
		why = "the function says that it is not done";
	else if (!verdict.terminal || verdict.outcome == RETRY_SUCCEEDED)
		return verdict;
	verdict = retry_judge_exchange(NULL, limits, &plain, at);
	verdict.why = why;
	return verdict;
}

RetryVerdict
retry_judge_part(RetryPart part, const RetryScene *scene, const RetryLimits *limits, const RetryAnswer *answer,
				 const RetryAttemptAt *at, RetryDecision *decision)
{
	switch (part)
	{
		case RETRY_PART_CHECK:
			return retry_judge_check(limits, answer, at, decision);
		case RETRY_PART_FIRST:
			return judge_first(scene, limits, answer, at);
		case RETRY_PART_MUST:
			return judge_must(scene, limits, answer, at);
		default:
			return retry_judge_exchange(scene, limits, answer, at);
	}
}

RetryFlowKind
retry_judge_endpoint(const RetryAnswer *answer, RetryOutcome outcome)
{
	switch (answer->exchange)
	{
		case RETRY_EXCHANGE_RETURNED:
			return RETRY_FLOW_WELL;
		case RETRY_EXCHANGE_FAILED:
			return RETRY_FLOW_FAILED;
		case RETRY_EXCHANGE_ANSWERED:
			break;
		default:
			return RETRY_FLOW_NEUTRAL;
	}
	if (outcome == RETRY_SUCCEEDED || outcome == RETRY_PROCESSING)
		return RETRY_FLOW_WELL;
	if (answer->body_cut)
		return RETRY_FLOW_FAILED;
	if (answer->http_status == 429)
		return RETRY_FLOW_THROTTLED;
	if (answer->http_status < 500 || answer->http_status == 501 || answer->http_status == 505)
		return RETRY_FLOW_WELL;
	return RETRY_FLOW_FAILED;
}
