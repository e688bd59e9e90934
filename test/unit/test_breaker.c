/*
 * test_breaker.c
 *		The breaker through its life, in a simulated clock, and against a model.
 *
 * First each rule by itself, with the moments just before and just after it
 * applies; then random calls, whose ends overlap, against a slow breaker that
 * keeps every call and counts anew each time.
 */
#include "postgres.h"

#include "breaker.h"
#include "check.h"

#define SECOND	INT64CONST(1000000)

static const RetryBreakerRules defaults = {.ratio = 0.5,.min_calls = 20,.window_us = 30 * SECOND,.open_us = 5 * SECOND};
static RetryBreaker breaker;
static RetryBreakerRules rules;

static void
start_over(void)
{
	memset(&breaker, 0, sizeof(breaker));
	rules = defaults;
}

/* n calls that begin and end at that moment; what the last one did. */
static RetryBreakerNews
calls(int n, RetryBreakerEnd end, int64 now)
{
	RetryBreakerNews news = RETRY_BREAKER_NO_NEWS;

	for (int i = 0; i < n; i++)
	{
		retry_breaker_started(&breaker, now);
		news = retry_breaker_ended(&breaker, &rules, end, now, now);
	}
	return news;
}

static bool
lets_pass(int64 now)
{
	int64		until;

	return retry_breaker_gate(&breaker, &rules, now, &until);
}

static int64
closed_until(int64 now)
{
	int64		until = -1;

	return retry_breaker_gate(&breaker, &rules, now, &until) ? -1 : until;
}

/* Is it shut for that time, and no more than a quarter longer? */
static bool
shut_for(int64 now, int64 time_us)
{
	int64		until = closed_until(now);

	return until >= now + time_us && until <= now + time_us + time_us / 4;
}

static void
test_opens(void)
{
	int64		now = 1000 * SECOND;

	start_over();
	CHECK_INT(calls(19, RETRY_BREAKER_FAILED, now), RETRY_BREAKER_NO_NEWS, "19 calls are no sample of 20");
	CHECK(lets_pass(now), "so all may pass");
	CHECK_INT(calls(1, RETRY_BREAKER_FAILED, now), RETRY_BREAKER_HAS_OPENED, "the 20th opens it");
	CHECK(!lets_pass(now), "nothing passes");
	CHECK(shut_for(now, 5 * SECOND), "for the time of the rules");
	CHECK_INT(closed_until(now + 3), closed_until(now), "whenever it is asked");
	CHECK_INT(calls(1, RETRY_BREAKER_FAILED, now + 5), RETRY_BREAKER_NO_NEWS, "what ends now is no news");
	CHECK_INT(breaker.opened_us, now, "it is known since when");

	start_over();
	(void) calls(11, RETRY_BREAKER_WELL, now);
	CHECK_INT(calls(9, RETRY_BREAKER_FAILED, now), RETRY_BREAKER_NO_NEWS, "9 of 20 are not half");
	CHECK_INT(calls(1, RETRY_BREAKER_FAILED, now), RETRY_BREAKER_NO_NEWS, "nor 10 of 21");
	CHECK_INT(calls(1, RETRY_BREAKER_FAILED, now), RETRY_BREAKER_HAS_OPENED, "but 11 of 22");

	start_over();
	(void) calls(19, RETRY_BREAKER_FAILED, now);
	CHECK_INT(calls(1, RETRY_BREAKER_WELL, now), RETRY_BREAKER_HAS_OPENED,
			  "a call that went well may complete the sample");
	start_over();
	(void) calls(19, RETRY_BREAKER_FAILED, now);
	(void) calls(50, RETRY_BREAKER_UNKNOWN, now);
	CHECK(lets_pass(now), "what says nothing does not");

	start_over();
	rules.ratio = 0;
	(void) calls(1000, RETRY_BREAKER_FAILED, now);
	CHECK(lets_pass(now) && breaker.state == RETRY_BREAKER_CLOSED, "without a ratio it never opens");
	start_over();
	rules.min_calls = 1;
	CHECK_INT(calls(1, RETRY_BREAKER_FAILED, now), RETRY_BREAKER_HAS_OPENED, "a sample may be one call");
}

/* A real such as 0.2 is a little more than 0.2: 4 of 20 open it all the same. */
static void
test_ratio_is_exact(void)
{
	int			wrong = 0;

	for (int n = 1; n <= 100; n++)
	{
		for (int k = 1; k <= n; k++)
		{
			float		ratio = (float) k / 100;

			start_over();
			rules.ratio = ratio;
			rules.min_calls = n;
			for (int failed = 0; failed <= n; failed++)
			{
				memset(&breaker, 0, sizeof(breaker));
				(void) calls(failed, RETRY_BREAKER_FAILED, 1);
				(void) calls(n - failed, RETRY_BREAKER_WELL, 1);
				wrong += (breaker.state == RETRY_BREAKER_OPEN) != (failed * 100 >= k * n);
			}
		}
	}
	CHECK_INT(wrong, 0, "it opens at the ratio exactly, whatever the sample");
}

static void
test_window(void)
{
	int64		now = 1000 * SECOND;

	start_over();
	(void) calls(19, RETRY_BREAKER_FAILED, now);
	CHECK_INT(calls(1, RETRY_BREAKER_FAILED, now + 26 * SECOND), RETRY_BREAKER_HAS_OPENED,
			  "calls are counted for nine tenths of the window at least");
	start_over();
	(void) calls(19, RETRY_BREAKER_FAILED, now);
	CHECK_INT(calls(1, RETRY_BREAKER_FAILED, now + 30 * SECOND), RETRY_BREAKER_NO_NEWS,
			  "and not longer than the window");
	CHECK_INT(breaker.calls, 1, "then they are forgotten");

	start_over();
	for (int i = 0; i < 1000; i++)
		(void) calls(1, i % 3 == 0 ? RETRY_BREAKER_FAILED : RETRY_BREAKER_WELL, now + i * SECOND);
	CHECK(breaker.calls >= 27 && breaker.calls <= 30, "a window of 30 s, one call a second: %u", breaker.calls);
	CHECK(breaker.failed >= 9 && breaker.failed <= 10, "a third failed: %u", breaker.failed);
	CHECK(breaker.state == RETRY_BREAKER_CLOSED, "which is less than half");
	CHECK(!retry_breaker_at_rest(&breaker, now + 1010 * SECOND), "it remembers failures");
	CHECK(retry_breaker_at_rest(&breaker, now + 1031 * SECOND), "until they are out of the window");

	/* another window: what was counted is of no use for it */
	(void) calls(15, RETRY_BREAKER_FAILED, now + 2000 * SECOND);
	rules.window_us = SECOND;
	(void) calls(19, RETRY_BREAKER_FAILED, now + 2000 * SECOND);
	CHECK_INT(breaker.calls, 19, "a new window starts empty");
	CHECK_INT(calls(1, RETRY_BREAKER_FAILED, now + 2000 * SECOND), RETRY_BREAKER_HAS_OPENED, "and is obeyed at once");
	start_over();
	rules.window_us = SECOND;
	(void) calls(19, RETRY_BREAKER_FAILED, now);
	rules.window_us = 3600 * SECOND;
	(void) calls(18, RETRY_BREAKER_FAILED, now);
	CHECK_INT(breaker.calls, 18, "a longer one does, too");
	(void) calls(1, RETRY_BREAKER_FAILED, now + 3600 * SECOND);
	CHECK_INT(breaker.calls, 1, "and moves on as it should");
}

static void
test_half_open(void)
{
	int64		now = 1000 * SECOND;

	start_over();
	(void) calls(20, RETRY_BREAKER_FAILED, now);
	now = closed_until(now);
	CHECK_INT(retry_breaker_state(&breaker, &rules, now - 1), RETRY_BREAKER_OPEN, "open …");
	CHECK(!lets_pass(now - 1), "… to the last moment");
	CHECK_INT(retry_breaker_state(&breaker, &rules, now), RETRY_BREAKER_HALF_OPEN, "then half open, also unasked");
	CHECK_INT(breaker.state, RETRY_BREAKER_OPEN, "which is only said");
	CHECK(lets_pass(now) && lets_pass(now), "one may pass, and asking takes nothing");
	CHECK_INT(breaker.state, RETRY_BREAKER_HALF_OPEN, "it is half open");
	retry_breaker_started(&breaker, now);
	CHECK_INT(closed_until(now), now + 60 * SECOND, "one only");
	CHECK_INT(retry_breaker_ended(&breaker, &rules, RETRY_BREAKER_WELL, now, now + 10), RETRY_BREAKER_NO_NEWS,
			  "one good probe is not enough");
	CHECK(lets_pass(now + 10), "another one may find out");
	CHECK_INT(calls(1, RETRY_BREAKER_WELL, now + 20), RETRY_BREAKER_HAS_CLOSED, "two in a row close it");
	CHECK(lets_pass(now + 20), "and all may pass");
	CHECK_INT(breaker.calls, 0, "what was before is forgotten");

	/* one good, one bad, one good, one bad: never two in a row */
	(void) calls(20, RETRY_BREAKER_FAILED, now + 30);
	now = retry_breaker_until(&breaker, &rules);
	CHECK(lets_pass(now), "it opened anew, and is half open again");
	(void) calls(1, RETRY_BREAKER_WELL, now);
	(void) calls(1, RETRY_BREAKER_FAILED, now);
	CHECK(shut_for(now, 10 * SECOND), "a bad probe after a good one opens it for twice as long");
	now = closed_until(now);
	CHECK(lets_pass(now), "half open");
	CHECK_INT(calls(1, RETRY_BREAKER_WELL, now), RETRY_BREAKER_NO_NEWS, "the good one before does not count any more");

	/* probes that say nothing are as if they had not been */
	CHECK_INT(calls(5, RETRY_BREAKER_UNKNOWN, now), RETRY_BREAKER_NO_NEWS, "a probe that was not sent leaves it to another");
	CHECK(lets_pass(now), "at once");
	CHECK_INT(calls(1, RETRY_BREAKER_WELL, now), RETRY_BREAKER_HAS_CLOSED, "and breaks no row");
}

static void
test_doubling(void)
{
	static const int want[] = {5, 10, 20, 40, 60, 60, 60};
	int64		now = 1000 * SECOND;

	start_over();
	(void) calls(20, RETRY_BREAKER_FAILED, now);
	for (int i = 0; i < lengthof(want); i++)
	{
		CHECK(shut_for(now, want[i] * SECOND), "each time twice as long, up to a minute");
		now = closed_until(now);
		CHECK(lets_pass(now), "a probe");
		CHECK_INT(calls(1, RETRY_BREAKER_FAILED, now), RETRY_BREAKER_NO_NEWS, "which fails, and that is no news");
	}
	CHECK_INT(breaker.opened_us, 1000 * SECOND, "it is not closed since the first moment");
	now = retry_breaker_until(&breaker, &rules);
	(void) lets_pass(now);
	(void) calls(2, RETRY_BREAKER_WELL, now);
	(void) calls(20, RETRY_BREAKER_FAILED, now);
	CHECK(shut_for(now, 5 * SECOND), "once closed, it begins from the beginning");

	start_over();
	rules.open_us = 300 * SECOND;
	(void) calls(20, RETRY_BREAKER_FAILED, 0);
	CHECK(shut_for(0, 300 * SECOND), "a time longer than a minute is kept");
	now = closed_until(0);
	(void) lets_pass(now);
	(void) calls(1, RETRY_BREAKER_FAILED, now);
	CHECK(shut_for(now, 300 * SECOND), "and not doubled");
	rules.open_us = SECOND;
	CHECK(lets_pass(now + 3 * SECOND), "rules that change count at once: one second, twice");
	CHECK_INT(breaker.state, RETRY_BREAKER_HALF_OPEN, "for what is open");

	start_over();
	rules.open_us = 1;
	(void) calls(20, RETRY_BREAKER_FAILED, 0);
	for (int i = 0; i < 258; i++)
	{
		now = retry_breaker_until(&breaker, &rules);
		(void) lets_pass(now);
		(void) calls(1, RETRY_BREAKER_FAILED, now);
	}
	CHECK(shut_for(now, 60 * SECOND), "many doublings are no overflow");
}

/* Those that are due within a grain are due at its end, so that one turn does for all. */
static void
test_grain(void)
{
	for (int64 since = 0; since < 40; since++)
	{
		start_over();
		(void) calls(20, RETRY_BREAKER_FAILED, 1000 * SECOND + since * 997);
		CHECK_INT(retry_breaker_until(&breaker, &rules) % RETRY_BREAKER_GRAIN_US, 0, "it ends with a grain");
		CHECK(retry_breaker_until(&breaker, &rules) >= breaker.since_us + rules.open_us, "and never early");
	}
}

/* A thousand that open within a millisecond do not probe within one. */
static void
test_spread(void)
{
	int64		now = 1000 * SECOND;
	int			quarter[4] = {0};

	for (int i = 0; i < 1000; i++)
	{
		start_over();
		(void) calls(20, RETRY_BREAKER_FAILED, now + i);
		quarter[Min((closed_until(now + i) - now - i - 5 * SECOND) * 16 / (5 * SECOND), 3)]++;
	}
	for (int i = 0; i < 4; i++)
		CHECK(quarter[i] > 180, "each quarter of the spread has its share: %d", quarter[i]);
}

/* It has opened, and its first probe begins at the moment that is returned. */
static int64
begin_probe(void)
{
	int64		now = 1000 * SECOND;

	start_over();
	(void) calls(20, RETRY_BREAKER_FAILED, now);
	now = closed_until(now);
	(void) lets_pass(now);
	retry_breaker_started(&breaker, now);
	return now;
}

/* A probe whose end nobody tells. */
static void
test_lost_probe(void)
{
	int64		now = begin_probe();

	CHECK(!lets_pass(now + 60 * SECOND - 1), "a probe under way holds up the next");
	CHECK(lets_pass(now + 60 * SECOND), "but not for ever");
	retry_breaker_started(&breaker, now + 60 * SECOND);
	CHECK_INT(closed_until(now + 61 * SECOND), now + 120 * SECOND, "then it is the next one's turn");
	CHECK_INT(retry_breaker_ended(&breaker, &rules, RETRY_BREAKER_FAILED, now, now + 62 * SECOND),
			  RETRY_BREAKER_NO_NEWS, "one that ends after all");
	CHECK_INT(breaker.state, RETRY_BREAKER_OPEN, "is heard");
	CHECK_INT(retry_breaker_ended(&breaker, &rules, RETRY_BREAKER_WELL, now + 60 * SECOND, now + 63 * SECOND),
			  RETRY_BREAKER_NO_NEWS, "but not when it is older than that");
	CHECK_INT(breaker.state, RETRY_BREAKER_OPEN, "it stays open");
}

/* Calls that began before the state was as it is. */
static void
test_old_news(void)
{
	int64		now = begin_probe();

	(void) retry_breaker_ended(&breaker, &rules, RETRY_BREAKER_FAILED, now - 6 * SECOND, now + 1);
	CHECK(breaker.state == RETRY_BREAKER_HALF_OPEN && breaker.probing,
		  "what began before it opened does not speak for the probe");
	(void) retry_breaker_ended(&breaker, &rules, RETRY_BREAKER_WELL, now, now + 2);
	(void) calls(1, RETRY_BREAKER_WELL, now + 2);
	CHECK_INT(breaker.state, RETRY_BREAKER_CLOSED, "closed");
	for (int i = 0; i < 50; i++)
		(void) retry_breaker_ended(&breaker, &rules, RETRY_BREAKER_FAILED, now - 6 * SECOND, now + 3);
	CHECK(breaker.state == RETRY_BREAKER_CLOSED && breaker.calls == 0,
		  "nor does it count when the breaker has closed again");
	CHECK_INT(calls(20, RETRY_BREAKER_FAILED, now + 3), RETRY_BREAKER_HAS_OPENED, "new calls do");
}

static void
test_rules_change(void)
{
	start_over();
	(void) calls(20, RETRY_BREAKER_FAILED, SECOND);
	CHECK_INT(retry_breaker_follow(&breaker, &rules, SECOND), RETRY_BREAKER_NO_NEWS, "the same rules close nothing");
	rules.ratio = 0;
	CHECK_INT(retry_breaker_follow(&breaker, &rules, SECOND), RETRY_BREAKER_HAS_CLOSED, "no ratio closes it");
	CHECK(lets_pass(SECOND), "all may pass");
	CHECK_INT(retry_breaker_follow(&breaker, &rules, SECOND), RETRY_BREAKER_NO_NEWS, "once");

	start_over();
	(void) calls(20, RETRY_BREAKER_FAILED, SECOND);
	CHECK_INT(retry_breaker_reset(&breaker, SECOND), RETRY_BREAKER_HAS_CLOSED, "a reset closes it");
	CHECK(lets_pass(SECOND) && retry_breaker_at_rest(&breaker, SECOND), "as if nothing had been");
	CHECK_INT(retry_breaker_reset(&breaker, SECOND), RETRY_BREAKER_NO_NEWS, "which is news only when it was open");
	start_over();
	CHECK(retry_breaker_at_rest(&breaker, 0), "a new one is at rest");
}

/* A breaker that keeps every call. */
#define KEPT	4096
static struct
{
	int64		ended;
	bool		failed;
}			kept[KEPT];
static int	nkept;

/* Would a breaker open that counts calls since that moment? */
static bool
model_opens(int64 since)
{
	int			n = 0;
	int			failed = 0;

	for (int i = 0; i < nkept; i++)
	{
		if (kept[i].ended < since)
			continue;
		n++;
		failed += kept[i].failed;
	}
	return failed > 0 && n >= rules.min_calls && (float) failed / n >= (float) rules.ratio;
}

static void
random_life(int *opened, int *wrong)
{
	int64		now = (int64) (check_random() % 1000000000);
	int			percent = (int) (check_random() % 100);

	start_over();
	nkept = 0;
	rules.min_calls = 1 + (int) (check_random() % 40);
	rules.ratio = (float) (1 + check_random() % 100) / 100;
	rules.window_us = SECOND + (int64) (check_random() % (60 * SECOND));
	while (nkept < KEPT)
	{
		int64		length = rules.window_us / RETRY_BREAKER_BUCKETS;
		bool		failed = (int) (check_random() % 100) < percent;
		RetryBreakerNews news;

		now += (int64) (check_random() % (uint64) (rules.window_us / 16));
		kept[nkept].ended = now;
		kept[nkept++].failed = failed;
		news = retry_breaker_ended(&breaker, &rules, failed ? RETRY_BREAKER_FAILED : RETRY_BREAKER_WELL, now, now);

		/* the oldest bucket that counts begins at a multiple of its length */
		if ((news == RETRY_BREAKER_HAS_OPENED) !=
			model_opens((now / length - RETRY_BREAKER_BUCKETS + 1) * length))
			(*wrong)++;
		if (news == RETRY_BREAKER_HAS_OPENED)
		{
			(*opened)++;
			return;
		}
		if (check_random() % 500 == 0)
			percent = (int) (check_random() % 100);
	}
}

/* Whatever happens: no two probes, nothing while open, no lasting standstill. */
static void
random_abuse(int *wrong)
{
	int64		started[8];
	int64		now = 0;
	int64		last_pass = 0;
	int64		longest;
	int			under_way = 0;
	int			up = 0;

	start_over();
	rules.min_calls = 3;
	rules.open_us = 1 + (int64) (check_random() % (100 * SECOND));
	longest = Max(rules.open_us, 60 * SECOND) * 5 / 4;
	for (int step = 0; step < 3000; step++)
	{
		int64		until = -1;

		now += (int64) (check_random() % (3 * SECOND));
		if (check_random() % 200 == 0)
			up = !up;
		if (retry_breaker_gate(&breaker, &rules, now, &until))
		{
			last_pass = now;
			if (breaker.state == RETRY_BREAKER_OPEN)
				(*wrong)++;
			if (under_way < 8)
			{
				retry_breaker_started(&breaker, now);
				started[under_way++] = now;
			}
		}
		else if (until <= now || until > now + longest)
			(*wrong)++;
		if (now - last_pass > longest + RETRY_BREAKER_PROBE_US + 3 * SECOND)
			(*wrong)++;
		if (under_way > 0 && check_random() % 2 == 0)
		{
			int			i = (int) (check_random() % (uint64) under_way);
			RetryBreakerEnd end = check_random() % 10 == 0 ? RETRY_BREAKER_UNKNOWN :
				up ? RETRY_BREAKER_WELL : RETRY_BREAKER_FAILED;

			(void) retry_breaker_ended(&breaker, &rules, end, started[i], now);
			started[i] = started[--under_way];
		}
		else if (under_way == 8 && check_random() % 4 == 0)
			under_way = 0;		/* ends that nobody tells */
		if (breaker.failed > breaker.calls)
			(*wrong)++;
	}
}

int
main(void)
{
	int			opened = 0;
	int			wrong = 0;

	test_opens();
	test_ratio_is_exact();
	test_window();
	test_half_open();
	test_doubling();
	test_grain();
	test_spread();
	test_lost_probe();
	test_old_news();
	test_rules_change();
	for (int i = 0; i < 60; i++)
		random_life(&opened, &wrong);
	CHECK_INT(wrong, 0, "it opens when one that keeps every call would, and at no other moment");
	CHECK(opened > 10 && opened < 60, "some of them did: %d of 60", opened);
	wrong = 0;
	for (int i = 0; i < 50; i++)
		random_abuse(&wrong);
	CHECK_INT(wrong, 0, "nothing passes while it is open, and it is asked again in finite time");
	return check_done();
}
