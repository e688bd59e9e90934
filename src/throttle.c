/*
 * throttle.c
 *		Sends less to an endpoint that says that it is too much.
 *
 * A rate that halves and grows back, and the moment of the next request by it.
 * Requests that come close together may go together (a twentieth of a second's
 * worth), since nobody could time them better; at a slow rate each waits for
 * its own moment.
 *
 * It grows when an answer comes that does not complain, not when time passes:
 * while nothing is sent, or everything is refused, there is no reason to
 * believe that more can be borne.
 */
#include "postgres.h"

#include <math.h>

#include "throttle.h"

#define SECOND_US	INT64CONST(1000000)
#define TOGETHER_US	INT64CONST(50000)
#define GROWTH		1.25

/* The last answers: one that is so many back counts for a third of the newest. */
#define LAST_ANSWERS	64

/* As many seconds of growth leave nothing of any cut. */
#define GROWTH_MAX	100

bool
retry_throttle_gate(const RetryThrottle *throttle, int64 now_us, int64 *until_us)
{
	if (throttle->rate <= 0 || now_us >= throttle->next_us - TOGETHER_US)
		return true;
	*until_us = throttle->next_us - TOGETHER_US;
	return false;
}

/* Moves on to the second that now is in. */
static void
count_seconds(RetryThrottle *throttle, int64 now_us)
{
	int64		passed = (now_us - throttle->second_us) / SECOND_US;

	if (throttle->second_us == 0)
		throttle->second_us = now_us;
	else if (passed > 0)
	{
		throttle->sent_before = passed == 1 ? throttle->sent : 0;
		throttle->sent = 0;
		throttle->second_us += passed * SECOND_US;
	}
}

void
retry_throttle_started(RetryThrottle *throttle, int64 now_us)
{
	count_seconds(throttle, now_us);
	throttle->sent++;
	if (throttle->rate > 0)
		throttle->next_us = Max(throttle->next_us, now_us) + (int64) (SECOND_US / throttle->rate);
}

void
retry_throttle_unsent(RetryThrottle *throttle)
{
	throttle->sent = Max(throttle->sent - 1, 0);
	if (throttle->rate > 0)
		throttle->next_us -= (int64) (SECOND_US / throttle->rate);
}

/* In the second before now: of the one before, as much as is younger than that. */
static double
sent_lately(RetryThrottle *throttle, int64 now_us)
{
	count_seconds(throttle, now_us);
	return throttle->sent + throttle->sent_before *
		(1 - (double) (now_us - throttle->second_us) / SECOND_US);
}

void
retry_throttle_cut(RetryThrottle *throttle, double guess, int64 now_us)
{
	bool		known = throttle->second_us > 0;
	bool		again = throttle->rate > 0;
	double		sent = sent_lately(throttle, now_us);

	throttle->calm_us = now_us;
	if (again && now_us < throttle->cut_us + SECOND_US)
		return;
	throttle->cut_us = now_us;
	if (!again)
	{
		throttle->before = known ? Max(sent, 1) : Max(guess, 1);
		throttle->rate = throttle->before / 2;
		throttle->next_us = now_us;
	}
	else
		throttle->rate = Min(throttle->rate, Max(sent, 0)) / 2;
	throttle->rate = Max(throttle->rate, (double) SECOND_US / RETRY_THROTTLE_SLOWEST_US);
	throttle->next_us = Max(throttle->next_us, now_us + (int64) (SECOND_US / throttle->rate));
}

void
retry_throttle_doubt(RetryThrottle *throttle, double guess, int64 now_us)
{
	throttle->good -= throttle->good / LAST_ANSWERS;
	if (throttle->good < RETRY_THROTTLE_GOOD)
		retry_throttle_cut(throttle, guess, now_us);
}

void
retry_throttle_grow(RetryThrottle *throttle, int64 now_us)
{
	int64		seconds = (now_us - throttle->calm_us) / SECOND_US;

	throttle->good += (1 - throttle->good) / LAST_ANSWERS;
	if (throttle->rate <= 0 || seconds < 1)
		return;
	throttle->rate *= pow(GROWTH, Min(seconds, GROWTH_MAX));
	throttle->calm_us += seconds * SECOND_US;
	if (throttle->rate >= throttle->before * 2)
		throttle->rate = 0;
}

bool
retry_throttle_at_rest(const RetryThrottle *throttle)
{
	return throttle->rate <= 0;
}
