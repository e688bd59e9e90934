/*
 * test_budget.c
 *		The retry budget, in a simulated clock.
 *
 * What has to hold however things go: first attempts are never asked about,
 * retries that fail stay under the share and the floor over any stretch of
 * time, and those that succeed are not rationed at all.
 */
#include "postgres.h"

#include "budget.h"
#include "check.h"

#define SECOND	INT64CONST(1000000)

static RetryBudget budget;
static double share;
static int32 floor_rate;

static void
start_over(double its_share, int32 its_floor)
{
	memset(&budget, 0, sizeof(budget));
	share = its_share;
	floor_rate = its_floor;
}

static bool
may_retry(int64 now)
{
	int64		until;

	return retry_budget_gate(&budget, share, floor_rate, now, &until);
}

/* Retries as many as may go at that moment, up to "most". */
static int
retries(int most, int64 now)
{
	int			n = 0;

	while (n < most && may_retry(now))
	{
		retry_budget_take(&budget, share, floor_rate, now);
		n++;
	}
	return n;
}

static void
firsts(int n, int64 now)
{
	for (int i = 0; i < n; i++)
		retry_budget_first(&budget, share, floor_rate, now);
}

static void
test_floor(void)
{
	int64		now = 1000 * SECOND;
	int64		until;

	start_over(0.2, 10);
	CHECK_INT(retries(1000, now), 100, "a new lane may retry what ten seconds of the floor bring");
	CHECK(!retry_budget_gate(&budget, share, floor_rate, now, &until), "then no more");
	CHECK_INT(until, now + SECOND / 10, "before the next one is there");
	CHECK(!may_retry(until - 1) && may_retry(until), "to the microsecond");
	CHECK_INT(retries(1000, now + SECOND), 10, "ten a second");
	CHECK_INT(retries(1000, now + 4 * SECOND), 30, "or thirty in three");
	CHECK_INT(retries(1000, now + 3600 * SECOND), 100, "but not more than of ten seconds after a pause");
	CHECK(retry_budget_left(&budget, share, floor_rate, now + 3600 * SECOND) < 1, "nothing is left");
}

static void
test_share(void)
{
	int64		now = 1000 * SECOND;
	int			got = 0;

	start_over(0.2, 10);
	(void) retries(1000, now);
	for (int i = 0; i < 100; i++)
	{
		now += SECOND;
		firsts(50, now);
		got += retries(1000, now);
	}
	CHECK_INT(got, 100 * (10 + 10), "a fifth of the first attempts, and ten a second");

	now += 1000 * SECOND;
	firsts(1000, now);
	CHECK_INT(retries(10000, now), 100 + 200, "what has just been sent counts at once");
	now += 1000 * SECOND;
	firsts(1000, now);
	CHECK_INT(retries(10000, now + 8 * SECOND), 100 + 200, "it is kept for nine seconds at least");
	now += 1000 * SECOND;
	firsts(1000, now);
	CHECK_INT(retries(10000, now + 10 * SECOND), 100, "and for ten at most");

	start_over(0, 3);
	firsts(1000, now);
	CHECK_INT(retries(1000, now), 30, "a share of none leaves the floor");
	start_over(2.5, 1);
	firsts(10, now);
	CHECK_INT(retries(1000, now), 10 + 25, "a share may be more than all");
	start_over(0.3, 1);
	(void) retries(1000, now);
	firsts(3, now);
	CHECK_INT(retries(1000, now), 0, "parts of a retry");
	firsts(1, now);
	CHECK_INT(retries(1000, now), 1, "add up");

	start_over(-1, 10);
	CHECK_INT(retries(100000, now), 100000, "without a share there is no budget");
	share = 0.2;
	CHECK_INT(retries(100000, now), 100, "and it is there once there is one");
	share = -1;
	CHECK_INT(retries(100000, now), 100000, "or gone again");
}

static void
test_give_back(void)
{
	int64		now = 1000 * SECOND;
	int			passed = 0;

	start_over(0.2, 10);
	(void) retries(1000, now);
	now += SECOND / 2;
	for (int i = 0; i < 100000 && may_retry(now); i++)
	{
		retry_budget_take(&budget, share, floor_rate, now);
		retry_budget_give_back(&budget, share, floor_rate, now);
		passed++;
	}
	CHECK_INT(passed, 100000, "retries that succeed cost nothing");
	CHECK_INT(retries(1000, now), 5, "and bring nothing");

	start_over(0.2, 10);
	for (int i = 0; i < 1000; i++)
		retry_budget_give_back(&budget, share, floor_rate, now);
	CHECK_INT(retries(10000, now), 100, "there is never more than what fits");

	start_over(0.5, 1);
	(void) retries(1000, now);
	for (int i = 0; i < 1000; i++)
	{
		firsts(1, now);
		retry_budget_first_unsent(&budget, share, floor_rate, now);
	}
	CHECK_INT(retries(1000, now), 0, "first attempts that were not sent bring nothing");
	CHECK_INT(budget.first_attempts, 0, "and are not counted");
	retry_budget_first_unsent(&budget, share, floor_rate, now);
	CHECK_INT(budget.first_attempts, 0, "not even below nothing");
}

static void
test_rest(void)
{
	int64		now = 1000 * SECOND;

	start_over(0.2, 10);
	CHECK(retry_budget_at_rest(&budget, share, floor_rate, now), "a new one is at rest");
	(void) retries(50, now);
	CHECK(!retry_budget_at_rest(&budget, share, floor_rate, now), "one that was drawn from is not");
	CHECK(retry_budget_at_rest(&budget, share, floor_rate, now + 5 * SECOND), "until it is full again");

	/* settings that change: what fits changes at once */
	start_over(0.2, 1000);
	CHECK(may_retry(now), "full");
	floor_rate = 1;
	CHECK_INT(retries(100000, now), 10, "a lower floor takes away what it would not have brought");
	floor_rate = 100;
	CHECK_INT(retries(100000, now), 0, "a higher one brings it in time");
	CHECK_INT(retries(100000, now + SECOND), 100, "a second's worth in a second");
	CHECK_INT(retries(100000, now - SECOND), 0, "a clock that goes back brings nothing");
}

/*
 * Random traffic, part of it failing.  Over every stretch of time, the retries
 * that failed are at most what the stretch brought and what fitted before it.
 */
#define STEPS	3000
static int	worst_excess;

static void
random_traffic(void)
{
	static int64 at[STEPS];
	static int	nfirsts[STEPS + 1];
	static int	nfailed[STEPS + 1];
	int64		now = (int64) (check_random() % (100 * SECOND));
	int			percent = (int) (check_random() % 101);

	start_over((double) (check_random() % 100) / 100, 1 + (int) (check_random() % 50));
	for (int i = 0; i < STEPS; i++)
	{
		int			n = (int) (check_random() % 30);

		now += (int64) (check_random() % (SECOND / 2));
		at[i] = now;
		firsts(n, now);
		nfirsts[i + 1] = nfirsts[i] + n;
		nfailed[i + 1] = nfailed[i];
		for (n = (int) (check_random() % 60); n > 0 && may_retry(now); n--)
		{
			retry_budget_take(&budget, share, floor_rate, now);
			if ((int) (check_random() % 100) < percent)
				nfailed[i + 1]++;
			else
				retry_budget_give_back(&budget, share, floor_rate, now);
		}
	}
	for (int from = 0; from < STEPS; from += 7)
	{
		int			ten = from;

		/* first attempts of the ten seconds before the stretch */
		while (ten > 0 && at[ten - 1] > at[from] - 10 * SECOND)
			ten--;
		for (int to = from; to < STEPS; to += 13)
		{
			double		most = floor_rate * (10 + (double) (at[to] - at[from]) / SECOND) +
				share * (nfirsts[to + 1] - nfirsts[ten]);

			worst_excess = Max(worst_excess, nfailed[to + 1] - nfailed[from] - (int) (most + 1));
		}
	}
}

int
main(void)
{
	test_floor();
	test_share();
	test_give_back();
	test_rest();
	worst_excess = PG_INT32_MIN;
	for (int i = 0; i < 40; i++)
		random_traffic();
	CHECK(worst_excess <= 0, "retries that fail stay under the budget over any stretch of time (%d)", worst_excess);
	CHECK(worst_excess > -60, "which is not because none were let through (%d)", worst_excess);
	return check_done();
}
