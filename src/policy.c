/*
 * policy.c
 *		What the end of an attempt means for its task.
 *
 * Two steps, kept apart.  classify() says what the answer itself means and
 * knows nothing of limits; then the limits say whether there is a next attempt
 * and when.  A new rule about answers goes into the first step, at its place
 * in the order of precedence; a new limit into the second.
 *
 * A leaf: the clock and the random bits are arguments, nothing is allocated,
 * nothing fails.
 */
#include "postgres.h"

#include "policy.h"

#define UNIX_SHIFT_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* What an attempt's end says, whatever the limits. */
typedef struct Meaning
{
	RetryOutcome outcome;
	bool		final;			/* no other attempt, however many are left */
	RetryDeadReason reason;		/* when final and not succeeded */
	const char *why;
} Meaning;

static const Meaning succeeded = {RETRY_SUCCEEDED, true, RETRY_DEAD_STOPPED};
static const Meaning failed = {RETRY_FAILED, false, RETRY_DEAD_EXHAUSTED};
static const Meaning unmatched = {
	RETRY_FAILED, false, RETRY_DEAD_EXHAUSTED, "success_when does not match the answer"
};
static const Meaning processing = {RETRY_PROCESSING, false, RETRY_DEAD_EXHAUSTED};
static const Meaning broken = {RETRY_ERROR, false, RETRY_DEAD_EXHAUSTED};
static const Meaning stopped = {RETRY_STOPPED, true, RETRY_DEAD_STOPPED};
static const Meaning matched_stop = {
	RETRY_STOPPED, true, RETRY_DEAD_STOPPED, "stop_when matches the answer"
};
static const Meaning gone = {RETRY_STOPPED, true, RETRY_DEAD_GONE};
static const Meaning blocked = {RETRY_BLOCKED, true, RETRY_DEAD_BLOCKED};

void
retry_rules_default(RetryRules *rules)
{
	RetryParseError never;

	memset(rules, 0, sizeof(*rules));
	(void) retry_status_list_parse("200-299", &rules->success_status, &never);
	(void) retry_status_list_parse("400,405,406,410,411,413-415,422,431,451,501,505",
								   &rules->stop_status, &never);
	rules->pending_interval_us = USECS_PER_MINUTE;
	rules->pending_limit = 1440;
}

/* The order of precedence is that of API.md, "What a receiver can answer". */
static Meaning
classify_answer(const RetryEnd *end, const RetryRules *rules)
{
	if (end->http_status == 410)
		return gone;
	if (strcmp(end->retry_control, "stop") == 0)
		return stopped;
	if (strcmp(end->retry_control, "processing") == 0)
		return processing;
	if (end->stop_when)
		return matched_stop;
	if (end->pending_when)
		return processing;
	if (end->success_when)
		return succeeded;
	if (retry_status_set_has(&rules->stop_status, end->http_status))
		return stopped;

	/* of an answer that broke off nobody knows what it was going to say */
	if (end->body_cut)
		return retry_error_set_has(&rules->stop_errors, end->error_class, 0) ? stopped : failed;
	if (!retry_status_set_has(&rules->success_status, end->http_status))
		return failed;
	return rules->success_when ? unmatched : succeeded;
}

/* The same for a function, which has no status. */
static Meaning
classify_return(const RetryEnd *end, const RetryRules *rules)
{
	if (end->stop_when)
		return matched_stop;
	if (end->pending_when)
		return processing;
	return rules->success_when && !end->success_when ? unmatched : succeeded;
}

static Meaning
classify(const RetryEnd *end, const RetryRules *rules)
{
	switch (end->exchange)
	{
		case RETRY_EXCHANGE_ANSWERED:
			return classify_answer(end, rules);
		case RETRY_EXCHANGE_RETURNED:
			return classify_return(end, rules);
		case RETRY_EXCHANGE_FAILED:
			return retry_error_set_has(&rules->stop_errors, end->error_class, end->sqlstate) ?
				stopped : failed;
		case RETRY_EXCHANGE_BLOCKED:
			return blocked;
		case RETRY_EXCHANGE_REFUSED:
			return stopped;
		case RETRY_EXCHANGE_INTERNAL:
			break;
	}
	return broken;
}

/* That much after a moment, and no later than a timestamp can be. */
static TimestampTz
later(TimestampTz moment, int64 us)
{
	if (TIMESTAMP_NOT_FINITE(moment))
		return moment;
	if (moment >= END_TIMESTAMP - 1 - us)
		return END_TIMESTAMP - 1;
	return moment + us;
}

/*
 * When the next attempt may be made: when the backoff says, or when a receiver
 * that is still at work is to be asked again; and not before the moment that
 * the receiver named.  Never before the end of this one, and never past the
 * last moment that a timestamp can hold.
 */
static TimestampTz
next_attempt(const RetryEnd *end, const RetryRules *rules, const RetryLimits *limits,
			 RetryOutcome outcome)
{
	TimestampTz next;
	int64		wait;

	/* attempts that do not count do not raise the level either */
	if (outcome == RETRY_PROCESSING)
		next = later(end->ended_at, rules->pending_interval_us);
	else
		next = retry_backoff_next(limits->backoff, Max(end->attempt_no - end->pendings, 1),
								  end->ended_at, end->previous_delay_us, end->random, limits->zone);

	if (end->exchange != RETRY_EXCHANGE_ANSWERED || TIMESTAMP_NOT_FINITE(end->ended_at))
		return next;
	if (end->http_status < 300 && end->body_cut && outcome != RETRY_PROCESSING)
		return next;
	/* at the end of time there is no room for arithmetic; dates are long past */
	wait = retry_after_delay_us(&end->retry_after,
								Min(end->ended_at, PG_INT64_MAX / 2) + UNIX_SHIFT_US,
								RETRY_AFTER_CAP_US);
	return wait > 0 ? Max(next, later(end->ended_at, wait)) : next;
}

static RetryVerdict
verdict_dead(RetryOutcome outcome, RetryDeadReason reason, const char *why)
{
	RetryVerdict verdict = {outcome, true, reason, 0, why};

	return verdict;
}

RetryVerdict
retry_policy_judge(const RetryEnd *end, const RetryRules *rules, const RetryLimits *limits)
{
	Meaning		meaning = classify(end, rules);
	RetryVerdict verdict;

	if (meaning.final)
		return verdict_dead(meaning.outcome, meaning.reason, meaning.why);
	if (meaning.outcome == RETRY_PROCESSING)
	{
		if (rules->pending_limit > 0 && end->pendings >= rules->pending_limit - 1)
			return verdict_dead(meaning.outcome, RETRY_DEAD_EXHAUSTED,
								"still processing, and pending_limit is reached");
	}
	else if (end->attempt_no - end->pendings >= limits->max_attempts)
		return verdict_dead(meaning.outcome, RETRY_DEAD_EXHAUSTED, meaning.why);

	verdict = verdict_dead(meaning.outcome, RETRY_DEAD_EXHAUSTED, meaning.why);
	verdict.next_due = next_attempt(end, rules, limits, meaning.outcome);
	if (verdict.next_due > limits->expires_at)
		return verdict_dead(meaning.outcome, RETRY_DEAD_EXPIRED, meaning.why);
	verdict.terminal = false;
	return verdict;
}

bool
retry_policy_spent(int32 attempts, int32 pendings, const RetryLimits *limits, TimestampTz now,
				   RetryVerdict *verdict)
{
	if (attempts - pendings >= limits->max_attempts)
		*verdict = verdict_dead(RETRY_FAILED, RETRY_DEAD_EXHAUSTED, "its attempts were used up");
	else if (now > limits->expires_at)
		*verdict = verdict_dead(RETRY_EXPIRED, RETRY_DEAD_EXPIRED, "its time was over");
	else
		return false;
	return true;
}

int32
retry_policy_pendings(int32 before, RetryOutcome outcome)
{
	switch (outcome)
	{
		case RETRY_PROCESSING:
		case RETRY_EXPIRED:
		case RETRY_BLOCKED:
			return before + 1;
		default:
			return before;
	}
}
