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
} Meaning;

static const Meaning succeeded = {RETRY_SUCCEEDED, true, RETRY_DEAD_STOPPED};
static const Meaning failed = {RETRY_FAILED, false, RETRY_DEAD_EXHAUSTED};
static const Meaning broken = {RETRY_ERROR, false, RETRY_DEAD_EXHAUSTED};
static const Meaning stopped = {RETRY_STOPPED, true, RETRY_DEAD_STOPPED};
static const Meaning gone = {RETRY_STOPPED, true, RETRY_DEAD_GONE};
static const Meaning blocked = {RETRY_BLOCKED, true, RETRY_DEAD_BLOCKED};

/* This request can never succeed as it is.  (410 has a rule of its own.) */
static bool
is_stop_status(int status)
{
	switch (status)
	{
		case 400:
		case 405:
		case 406:
		case 411:
		case 413:
		case 414:
		case 415:
		case 422:
		case 431:
		case 451:
		case 501:
		case 505:
			return true;
		default:
			return false;
	}
}

/* The order of precedence is that of API.md, "What a receiver can answer". */
static Meaning
classify_answer(const RetryEnd *end)
{
	if (end->http_status == 410)
		return gone;
	if (strcmp(end->retry_control, "stop") == 0)
		return stopped;
	if (is_stop_status(end->http_status))
		return stopped;

	/* of an answer that broke off nobody knows what it was going to say */
	if (end->http_status >= 200 && end->http_status <= 299 && !end->body_cut)
		return succeeded;
	return failed;
}

static Meaning
classify(const RetryEnd *end)
{
	switch (end->exchange)
	{
		case RETRY_EXCHANGE_ANSWERED:
			return classify_answer(end);
		case RETRY_EXCHANGE_FAILED:
			return failed;
		case RETRY_EXCHANGE_BLOCKED:
			return blocked;
		case RETRY_EXCHANGE_REFUSED:
			return stopped;
		case RETRY_EXCHANGE_INTERNAL:
			break;
	}
	return broken;
}

/*
 * When the next attempt may be made: by the backoff, and not before the moment
 * that the receiver asked for.  Never before the end of this one, and never
 * past the last moment that a timestamp can hold.
 */
static TimestampTz
next_attempt(const RetryEnd *end, const RetryLimits *limits)
{
	TimestampTz next = retry_backoff_next(limits->backoff, end->attempt_no, end->ended_at,
										  end->previous_delay_us, end->random, limits->zone);
	int64		wait;

	if (end->exchange != RETRY_EXCHANGE_ANSWERED || end->http_status < 300 ||
		TIMESTAMP_NOT_FINITE(end->ended_at))
		return next;
	/* at the end of time there is no room for arithmetic; dates are long past */
	wait = retry_after_delay_us(&end->retry_after,
								Min(end->ended_at, PG_INT64_MAX / 2) + UNIX_SHIFT_US,
								RETRY_AFTER_CAP_US);
	if (wait <= 0)
		return next;
	if (end->ended_at >= END_TIMESTAMP - 1 - wait)
		return Max(next, END_TIMESTAMP - 1);
	return Max(next, end->ended_at + wait);
}

static RetryVerdict
verdict_dead(RetryOutcome outcome, RetryDeadReason reason)
{
	RetryVerdict verdict = {outcome, true, reason, 0};

	return verdict;
}

/*
 * Judges an attempt that has ended.  next_due is 0 when the task has ended
 * too; reason means nothing when it succeeded.
 */
RetryVerdict
retry_policy_judge(const RetryEnd *end, const RetryLimits *limits)
{
	Meaning		meaning = classify(end);
	RetryVerdict verdict;

	if (meaning.final)
		return verdict_dead(meaning.outcome, meaning.reason);
	if (end->attempt_no >= limits->max_attempts)
		return verdict_dead(meaning.outcome, RETRY_DEAD_EXHAUSTED);

	verdict = verdict_dead(meaning.outcome, RETRY_DEAD_EXHAUSTED);
	verdict.next_due = next_attempt(end, limits);
	if (verdict.next_due > limits->expires_at)
		return verdict_dead(meaning.outcome, RETRY_DEAD_EXPIRED);
	verdict.terminal = false;
	return verdict;
}

/*
 * Asked just before an attempt would be sent, since limits may have been
 * lowered and time has passed.  "attempts" is how many are recorded.  False,
 * with *verdict untouched, when the attempt may be made.
 */
bool
retry_policy_spent(int32 attempts, const RetryLimits *limits, TimestampTz now,
				   RetryVerdict *verdict)
{
	if (attempts >= limits->max_attempts)
		*verdict = verdict_dead(RETRY_FAILED, RETRY_DEAD_EXHAUSTED);
	else if (now > limits->expires_at)
		*verdict = verdict_dead(RETRY_EXPIRED, RETRY_DEAD_EXPIRED);
	else
		return false;
	return true;
}
