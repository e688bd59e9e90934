/*
 * breaker.c
 *		Leaves alone what fails, and finds out when it works again.
 *
 * The window is a ring of buckets with their sums, so that a call costs the
 * same however many there were.  Calls are counted at their end, and only while
 * the breaker is closed.
 *
 * Nobody hands in a ticket with a call's end: what a call may say follows from
 * when it began.  While the breaker is open nothing begins, and while it is
 * half open nothing but probes, so whatever began since then is one.  A call
 * that was under way when the breaker opened may end much later, when it has
 * closed again; it must not open it with old news.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "breaker.h"

/*
 * For so long it is open this time.  Breakers that opened together must not go
 * on probing together, so each adds some of its own, at most a quarter: from
 * the microsecond in which it opened, which is as good as chance.
 */
static int64
open_time(const RetryBreaker *breaker, const RetryBreakerRules *rules)
{
	int64		longest = Max(rules->open_us, RETRY_BREAKER_OPEN_MAX_US);
	int64		time_us = rules->open_us;

	for (int i = 0; i < breaker->doublings && time_us < longest; i++)
		time_us *= 2;
	time_us = Min(time_us, longest);
	return time_us + time_us / 1024 * (murmurhash32((uint32) breaker->since_us) % 257);
}

int64
retry_breaker_until(const RetryBreaker *breaker, const RetryBreakerRules *rules)
{
	int64		until_us = breaker->since_us + open_time(breaker, rules);

	return (until_us + RETRY_BREAKER_GRAIN_US - 1) / RETRY_BREAKER_GRAIN_US * RETRY_BREAKER_GRAIN_US;
}

static void
forget_calls(RetryBreaker *breaker)
{
	breaker->calls = breaker->failed = 0;
	memset(breaker->bucket_calls, 0, sizeof(breaker->bucket_calls));
	memset(breaker->bucket_failed, 0, sizeof(breaker->bucket_failed));
}

/* Moves the window on to now, and gives the newest bucket. */
static int
bucket_at(RetryBreaker *breaker, const RetryBreakerRules *rules, int64 now_us)
{
	int64		length = Max(rules->window_us / RETRY_BREAKER_BUCKETS, 1);
	int64		number = now_us / length;

	if (length != breaker->bucket_us || number >= breaker->newest + RETRY_BREAKER_BUCKETS)
	{
		forget_calls(breaker);
		breaker->bucket_us = length;
		breaker->newest = number;
	}
	while (breaker->newest < number)
	{
		int			i = ++breaker->newest % RETRY_BREAKER_BUCKETS;

		breaker->calls -= breaker->bucket_calls[i];
		breaker->failed -= breaker->bucket_failed[i];
		breaker->bucket_calls[i] = breaker->bucket_failed[i] = 0;
	}
	return breaker->newest % RETRY_BREAKER_BUCKETS;
}

static void
set_state(RetryBreaker *breaker, RetryBreakerState state, int64 now_us)
{
	breaker->state = state;
	breaker->since_us = now_us;
	breaker->good = 0;
	breaker->probing = false;
}

/* Too many have failed, or a probe has. */
static void
open_it(RetryBreaker *breaker, int64 now_us)
{
	if (breaker->state == RETRY_BREAKER_CLOSED)
	{
		breaker->opened_us = now_us;
		breaker->doublings = 0;
	}
	else if (breaker->doublings < 40)
		breaker->doublings++;
	set_state(breaker, RETRY_BREAKER_OPEN, now_us);
}

RetryBreakerNews
retry_breaker_reset(RetryBreaker *breaker, int64 now_us)
{
	bool		was_closed = breaker->state == RETRY_BREAKER_CLOSED;

	forget_calls(breaker);
	set_state(breaker, RETRY_BREAKER_CLOSED, now_us);
	return was_closed ? RETRY_BREAKER_NO_NEWS : RETRY_BREAKER_HAS_CLOSED;
}

RetryBreakerNews
retry_breaker_follow(RetryBreaker *breaker, const RetryBreakerRules *rules, int64 now_us)
{
	return rules->ratio > 0 || breaker->state == RETRY_BREAKER_CLOSED ? RETRY_BREAKER_NO_NEWS :
		retry_breaker_reset(breaker, now_us);
}

bool
retry_breaker_gate(RetryBreaker *breaker, const RetryBreakerRules *rules, int64 now_us,
				   int64 *until_us)
{
	if (breaker->state == RETRY_BREAKER_OPEN)
	{
		*until_us = retry_breaker_until(breaker, rules);
		if (now_us < *until_us)
			return false;
		set_state(breaker, RETRY_BREAKER_HALF_OPEN, now_us);
	}
	if (breaker->state == RETRY_BREAKER_HALF_OPEN && breaker->probing)
	{
		*until_us = breaker->probe_us + RETRY_BREAKER_PROBE_US;
		return now_us >= *until_us;
	}
	return true;
}

void
retry_breaker_started(RetryBreaker *breaker, int64 now_us)
{
	if (breaker->state != RETRY_BREAKER_HALF_OPEN)
		return;
	breaker->probing = true;
	breaker->probe_us = now_us;
}

static RetryBreakerNews
probe_ended(RetryBreaker *breaker, RetryBreakerEnd end, int64 now_us)
{
	breaker->probing = false;
	if (end == RETRY_BREAKER_FAILED)
		open_it(breaker, now_us);
	else if (end == RETRY_BREAKER_WELL && ++breaker->good >= RETRY_BREAKER_PROBES)
		return retry_breaker_reset(breaker, now_us);
	return RETRY_BREAKER_NO_NEWS;
}

/*
 * In the precision of the rule, so that 4 of 20 are a ratio of 0.2, however
 * that is rounded.
 */
static bool
too_many_failed(const RetryBreaker *breaker, const RetryBreakerRules *rules)
{
	if (rules->ratio <= 0 || breaker->failed == 0 || breaker->calls < rules->min_calls)
		return false;
	return (float) breaker->failed / (float) breaker->calls >= (float) rules->ratio;
}

RetryBreakerNews
retry_breaker_ended(RetryBreaker *breaker, const RetryBreakerRules *rules, RetryBreakerEnd end,
					int64 started_us, int64 now_us)
{
	int			i;

	if (started_us < breaker->since_us || breaker->state == RETRY_BREAKER_OPEN)
		return RETRY_BREAKER_NO_NEWS;
	if (breaker->state == RETRY_BREAKER_HALF_OPEN)
		return probe_ended(breaker, end, now_us);
	if (end == RETRY_BREAKER_UNKNOWN)
		return RETRY_BREAKER_NO_NEWS;

	i = bucket_at(breaker, rules, now_us);
	breaker->calls++;
	breaker->bucket_calls[i]++;
	if (end == RETRY_BREAKER_FAILED)
	{
		breaker->failed++;
		breaker->bucket_failed[i]++;
	}
	if (!too_many_failed(breaker, rules))
		return RETRY_BREAKER_NO_NEWS;
	open_it(breaker, now_us);
	return RETRY_BREAKER_HAS_OPENED;
}

const char *
retry_breaker_word(RetryBreakerState state)
{
	static const char *const words[] = {
		[RETRY_BREAKER_CLOSED] = "closed",
		[RETRY_BREAKER_OPEN] = "open",
		[RETRY_BREAKER_HALF_OPEN] = "half-open"
	};

	return words[state];
}

RetryBreakerState
retry_breaker_state(const RetryBreaker *breaker, const RetryBreakerRules *rules, int64 now_us)
{
	if (breaker->state == RETRY_BREAKER_OPEN && now_us >= retry_breaker_until(breaker, rules))
		return RETRY_BREAKER_HALF_OPEN;
	return (RetryBreakerState) breaker->state;
}

bool
retry_breaker_at_rest(const RetryBreaker *breaker, int64 now_us)
{
	if (breaker->state != RETRY_BREAKER_CLOSED)
		return false;
	return breaker->failed == 0 ||
		now_us / breaker->bucket_us >= breaker->newest + RETRY_BREAKER_BUCKETS;
}
