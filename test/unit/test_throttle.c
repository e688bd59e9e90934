/*
 * test_throttle.c
 *		Slowing down and feeling the way up again, in a simulated clock.
 *
 * Each rule by itself, and then whole: an endpoint that can take so many
 * requests a second, and says 429 to what is more, against a lane that has an
 * endless backlog.
 */
#include "postgres.h"

#include <math.h>

#include "check.h"
#include "throttle.h"

#define SECOND	INT64CONST(1000000)

static RetryThrottle throttle;

static bool
lets_pass(int64 now)
{
	int64		until;

	return retry_throttle_gate(&throttle, now, &until);
}

/* Sends whatever may go from "now" on, looking every millisecond. */
static int
send_for(int64 now, int64 duration)
{
	int			n = 0;

	for (int64 t = now; t < now + duration; t += 1000)
	{
		while (n < 1000000 && lets_pass(t))
		{
			retry_throttle_started(&throttle, t);
			n++;
			if (throttle.rate <= 0)
				break;
		}
	}
	return n;
}

static void
test_cut(void)
{
	int64		now = 1000 * SECOND;
	int64		until;

	memset(&throttle, 0, sizeof(throttle));
	CHECK(retry_throttle_at_rest(&throttle) && lets_pass(now), "nothing is slowed at first");
	(void) send_for(now, 3 * SECOND);
	now += 3 * SECOND;
	retry_throttle_cut(&throttle, 7, now);
	CHECK(fabs(throttle.rate - 500) < 2, "half of the 1000 sent in the last second: %g", throttle.rate);
	CHECK(!retry_throttle_at_rest(&throttle), "which is remembered");
	retry_throttle_cut(&throttle, 7, now + 10);
	retry_throttle_cut(&throttle, 7, now + SECOND - 1);
	CHECK(fabs(throttle.rate - 500) < 2, "one cut a second");
	CHECK(abs(send_for(now, SECOND) - 500) < 30, "it is kept to");
	now += SECOND;
	retry_throttle_cut(&throttle, 7, now);
	CHECK(fabs(throttle.rate - 250) < 16, "another half: %g", throttle.rate);
	for (int i = 0; i < 30; i++)
	{
		now += SECOND;
		retry_throttle_cut(&throttle, 7, now);
	}
	CHECK(fabs(throttle.rate - 0.1) < 1e-9, "and so on, down to one in ten seconds: %g", throttle.rate);
	CHECK(!retry_throttle_gate(&throttle, now, &until), "that has to wait");
	CHECK_INT(until, now + 10 * SECOND - SECOND / 20, "for ten seconds, more or less");
	CHECK(send_for(now, 100 * SECOND) <= 11, "whatever is tried");

	/* what was sent is not known, but guessed */
	memset(&throttle, 0, sizeof(throttle));
	retry_throttle_cut(&throttle, 640, now);
	CHECK_INT(throttle.rate, 320, "half of what is guessed");
	memset(&throttle, 0, sizeof(throttle));
	retry_throttle_cut(&throttle, 0, now);
	CHECK(throttle.rate == 0.5 && !lets_pass(now + SECOND) && lets_pass(now + 2 * SECOND),
		  "a lane that sends next to nothing waits two seconds");

	/* what was sent long ago is not what is too much now */
	memset(&throttle, 0, sizeof(throttle));
	(void) send_for(now, 2 * SECOND);
	retry_throttle_started(&throttle, now + 20 * SECOND);
	retry_throttle_cut(&throttle, 1000, now + 20 * SECOND + 5);
	CHECK(throttle.rate < 1, "a busy time that is over does not count: %g", throttle.rate);

	/* its own rate is higher than what it sent: that is what was too much */
	memset(&throttle, 0, sizeof(throttle));
	retry_throttle_cut(&throttle, 1000, now);
	for (int i = 0; i < 4; i++)
		retry_throttle_started(&throttle, now + 10 * SECOND + i);
	retry_throttle_cut(&throttle, 1000, now + 10 * SECOND + 10);
	CHECK_INT(throttle.rate, 2, "half of what was sent, not of what might have been");
}

static void
test_growth(void)
{
	int64		now = 1000 * SECOND;
	int			n = 0;

	memset(&throttle, 0, sizeof(throttle));
	retry_throttle_cut(&throttle, 200, now);
	retry_throttle_grow(&throttle, now + SECOND - 1);
	CHECK_INT(throttle.rate, 100, "no growth within a second");
	retry_throttle_grow(&throttle, now + SECOND);
	CHECK_INT(throttle.rate, 125, "then a quarter");
	retry_throttle_grow(&throttle, now + SECOND + 5);
	CHECK_INT(throttle.rate, 125, "once a second");
	retry_throttle_grow(&throttle, now + 3 * SECOND + 5);
	CHECK(fabs(throttle.rate - 195.3125) < 1e-6, "or twice in two");
	retry_throttle_cut(&throttle, 0, now + 3 * SECOND + 6);
	CHECK(!retry_throttle_at_rest(&throttle), "a complaint cuts it again");

	memset(&throttle, 0, sizeof(throttle));
	retry_throttle_cut(&throttle, 200, now);
	while (!retry_throttle_at_rest(&throttle))
		retry_throttle_grow(&throttle, now + ++n * SECOND);
	CHECK_INT(n, 7, "at twice of what was sent before it is over");
	CHECK(lets_pass(now), "and nothing waits");

	memset(&throttle, 0, sizeof(throttle));
	retry_throttle_cut(&throttle, 1e6, now);
	for (n = 0; n < 60; n++)
		retry_throttle_cut(&throttle, 0, now + n * SECOND);
	retry_throttle_grow(&throttle, now + 1000000 * SECOND);
	CHECK(retry_throttle_at_rest(&throttle), "one good answer after a long while ends it too");
	retry_throttle_grow(&throttle, now);
	CHECK(retry_throttle_at_rest(&throttle), "growing what is not slowed is nothing");

	memset(&throttle, 0, sizeof(throttle));
	retry_throttle_cut(&throttle, 0, now);
	retry_throttle_started(&throttle, now + 2 * SECOND);
	CHECK(!lets_pass(now + 3 * SECOND), "one has gone");
	retry_throttle_unsent(&throttle);
	CHECK(lets_pass(now + 3 * SECOND), "it was not sent after all, and another may go");
}

/* A few that complain among many that do not. */
static void
test_doubt(void)
{
	int64		now = 1000 * SECOND;
	int			n = 0;

	memset(&throttle, 0, sizeof(throttle));
	retry_throttle_doubt(&throttle, 200, now);
	CHECK_INT(throttle.rate, 100, "the first answer of all is believed");

	memset(&throttle, 0, sizeof(throttle));
	for (int i = 0; i < 300; i++)
		retry_throttle_grow(&throttle, now);
	for (int i = 0; i < 1000; i++)
	{
		now += SECOND;
		if (i % 20 == 0)
			retry_throttle_doubt(&throttle, 200, now);
		else
			retry_throttle_grow(&throttle, now);
		CHECK(throttle.rate == 0, "one in twenty slows nothing");
	}
	while (throttle.rate == 0 && n < 1000)
	{
		retry_throttle_doubt(&throttle, 200, ++now);
		n++;
	}
	CHECK(n > 1 && n < 10, "a row of them does: %d", n);

	memset(&throttle, 0, sizeof(throttle));
	for (int i = 0; i < 300; i++)
		retry_throttle_grow(&throttle, now);
	retry_throttle_cut(&throttle, 200, now);
	CHECK_INT(throttle.rate, 100, "what asks for less in so many words is always believed");
}

/* So many a second can be borne; what is more in a second is refused. */
static void
against_endpoint(int capacity)
{
	int64		now = 1000 * SECOND;
	int			good = 0;
	int			refused = 0;

	memset(&throttle, 0, sizeof(throttle));
	for (int second = 0; second < 120; second++)
	{
		int			sent = 0;

		for (int ms = 0; ms < 1000; ms++, now += 1000)
		{
			/* eight at once at most, each lasting a millisecond */
			for (int i = 0; i < 8 && lets_pass(now); i++)
			{
				retry_throttle_started(&throttle, now);
				if (++sent > capacity)
				{
					retry_throttle_cut(&throttle, 8000, now + 999);
					refused += second >= 20;
				}
				else
				{
					retry_throttle_grow(&throttle, now + 999);
					good += second >= 20;
				}
			}
		}
	}
	CHECK(good >= capacity * 50, "of %d a second, more than half is used: %d", capacity, good / 100);
	CHECK(refused <= good / 4, "and little is refused: %d of %d", refused, good + refused);
}

int
main(void)
{
	test_cut();
	test_growth();
	test_doubt();
	against_endpoint(10);
	against_endpoint(300);
	against_endpoint(2000);
	return check_done();
}
