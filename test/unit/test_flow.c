/*
 * test_flow.c
 *		All that may hold a lane back, together, in a simulated clock.
 *
 * The parts have tests of their own.  Here is what their composition adds: the
 * order in which they are named, what a lane without anything to remember does,
 * that what is given back leaves no trace, and an outage from begin to end.
 */
#include "postgres.h"

#include "check.h"
#include "flow.h"

#define SECOND	INT64CONST(1000000)

static const RetryFlowRules defaults = {
	.weight = 1,
	.breaker = {.ratio = 0.5,.min_calls = 20,.window_us = 30 * SECOND,.open_us = 5 * SECOND},
	.retry_share = 0.2,
	.retry_floor = 10
};
static RetryFlow flow;

static void
start_over(void)
{
	memset(&flow, 0, sizeof(flow));
	(void) retry_flow_follow(&flow, &defaults, 7, SECOND);
}

static RetryGate
gate(bool retry, int64 now)
{
	int64		until;

	return retry_flow_gate(&flow, retry, now, &until);
}

static RetryBreakerNews
ended(RetryFlowKind kind, bool retry, int64 started, int64 now)
{
	RetryFlowEnd end = {
		.kind = kind,.retry = retry,.succeeded = kind == RETRY_FLOW_WELL,.in_flight = 1,
		.started_us = started,.latency_us = now - started
	};

	return retry_flow_ended(&flow, &end, now);
}

static RetryBreakerNews
call(RetryFlowKind kind, bool retry, int64 now)
{
	retry_flow_started(&flow, retry, now);
	return ended(kind, retry, now, now);
}

static void
test_nothing(void)
{
	RetryFlowEnd end = {.kind = RETRY_FLOW_FAILED};
	int64		until = 5;

	CHECK_INT(retry_flow_gate(NULL, true, SECOND, &until), RETRY_GATE_OPEN, "a lane without a flow may send");
	CHECK_INT(until, 0, "now");
	retry_flow_started(NULL, true, SECOND);
	CHECK_INT(retry_flow_ended(NULL, &end, SECOND), RETRY_BREAKER_NO_NEWS, "its calls end");
	CHECK(retry_flow_spend(NULL, SECOND) && retry_flow_at_rest(NULL, SECOND), "it has a budget, and is at rest");
	CHECK_INT(retry_flow_reset(NULL, SECOND), RETRY_BREAKER_NO_NEWS, "there is nothing to reset");

	memset(&flow, 0, sizeof(flow));
	for (int i = 0; i < 1000; i++)
		(void) call(RETRY_FLOW_FAILED, true, SECOND);
	CHECK_INT(gate(true, SECOND), RETRY_GATE_OPEN, "without rules nothing holds it");
	CHECK(sizeof(RetryFlow) <= 512, "it is small: %d bytes", (int) sizeof(RetryFlow));
}

static void
test_remembers(void)
{
	static const struct
	{
		RetryFlowEnd end;
		bool		want;
	}			cases[] = {
		{{.kind = RETRY_FLOW_WELL}, false}, {{.kind = RETRY_FLOW_NEUTRAL}, false},
		{{.kind = RETRY_FLOW_FAILED}, true}, {{.kind = RETRY_FLOW_FAILED,.unsent = true}, false},
		{{.kind = RETRY_FLOW_THROTTLED}, false}, {{.kind = RETRY_FLOW_THROTTLED,.slows = true}, true},
		{{.kind = RETRY_FLOW_WELL,.retry_after_until_us = 1}, true}
	};

	for (int i = 0; i < lengthof(cases); i++)
		CHECK_INT(retry_flow_remembers(&cases[i].end), cases[i].want, "what leaves something to remember");
}

/* Everything closed at once, and opened one after the other. */
static void
test_order_of_gates(void)
{
	int64		now = 1000 * SECOND;
	int64		until;
	int64		half_open;
	RetryFlowEnd slowed = {.kind = RETRY_FLOW_THROTTLED,.slows = true,.in_flight = 1,.latency_us = SECOND / 2};
	RetryFlowEnd blocked = {.kind = RETRY_FLOW_THROTTLED,.slows = true,.retry_after_until_us = now + 23 * SECOND};

	start_over();
	while (gate(true, now) == RETRY_GATE_OPEN)
		retry_flow_started(&flow, true, now);
	CHECK_INT(gate(true, now), RETRY_GATE_BUDGET, "the budget of retries is spent");
	CHECK_INT(gate(false, now), RETRY_GATE_OPEN, "first attempts are not asked about it");
	CHECK(!retry_flow_spend(&flow, now), "a second transfer is");

	now += 3 * SECOND;			/* nothing was sent for a while */
	(void) retry_flow_ended(&flow, &slowed, now);
	CHECK_INT(gate(true, now), RETRY_GATE_SLOWED, "slowed");
	CHECK_INT(gate(false, now), RETRY_GATE_SLOWED, "which first attempts are too");
	(void) retry_flow_ended(&flow, &blocked, now);
	CHECK_INT(retry_flow_gate(&flow, false, now, &until), RETRY_GATE_BLOCKED, "blocked");
	CHECK_INT(until, now + 20 * SECOND, "as long as was asked for");
	for (int i = 0; i < 20; i++)
		(void) ended(RETRY_FLOW_FAILED, false, now, now);
	CHECK_INT(retry_flow_gate(&flow, true, now, &until), RETRY_GATE_BREAKER, "the breaker has opened");
	CHECK(until >= now + 5 * SECOND && until <= now + 5 * SECOND * 5 / 4, "for its own time");
	half_open = until;
	CHECK_INT(gate(false, half_open), RETRY_GATE_BLOCKED, "half open, and still blocked");
	now += 20 * SECOND;
	CHECK_INT(gate(true, now), RETRY_GATE_OPEN, "then a probe may go");
	retry_flow_started(&flow, true, now);
	CHECK_INT(gate(true, now), RETRY_GATE_BREAKER, "a single one");
	CHECK_INT(ended(RETRY_FLOW_WELL, true, now, now + 5), RETRY_BREAKER_NO_NEWS, "it goes well");
	CHECK_INT(call(RETRY_FLOW_WELL, true, now + 10 * SECOND), RETRY_BREAKER_HAS_CLOSED, "as does the next");

	(void) retry_flow_ended(&flow, &blocked, now + 10 * SECOND);
	CHECK(gate(false, now + 10 * SECOND) != RETRY_GATE_BLOCKED, "a moment that is over blocks nothing");
	start_over();
	flow.blocked_until_us = now + 100 * SECOND;
	for (int i = 0; i < 20; i++)
		(void) call(RETRY_FLOW_FAILED, false, now);
	CHECK_INT(retry_flow_reset(&flow, now), RETRY_BREAKER_HAS_CLOSED, "a reset forgets all of it");
	CHECK(gate(true, now) == RETRY_GATE_OPEN && retry_flow_at_rest(&flow, now), "and the lane is at rest");
	CHECK_INT(flow.scene_id, 7, "with its rules");
}

static void
test_kinds(void)
{
	int64		now = 1000 * SECOND;
	RetryFlowRules rules = defaults;

	start_over();
	for (int i = 0; i < 500; i++)
	{
		(void) call(RETRY_FLOW_THROTTLED, false, now);
		(void) call(RETRY_FLOW_NEUTRAL, false, now);
	}
	CHECK(gate(false, now) == RETRY_GATE_OPEN && flow.breaker.calls == 0,
		  "neither what asks for less nor what says nothing is a call to the breaker");

	/* taken and given back, as the one entry that is left */
	for (int i = 0; i < 500; i++)
	{
		RetryFlowEnd end = {.kind = RETRY_FLOW_NEUTRAL,.retry = i % 2 == 0,.unsent = true,.started_us = now};

		retry_flow_started(&flow, end.retry, now);
		(void) retry_flow_ended(&flow, &end, now);
	}
	CHECK(retry_flow_at_rest(&flow, now), "what is given back leaves no trace");
	CHECK_INT(flow.budget.first_attempts, 1000, "nor a share of a first attempt");
	memset(&flow.throttle, 0, sizeof(flow.throttle));
	retry_throttle_cut(&flow.throttle, 1, now - 3 * SECOND);
	retry_flow_started(&flow, false, now);
	CHECK_INT(gate(false, now), RETRY_GATE_SLOWED, "a lane that is slowed may send one at a time");
	{
		RetryFlowEnd end = {.kind = RETRY_FLOW_NEUTRAL,.unsent = true,.started_us = now};

		(void) retry_flow_ended(&flow, &end, now);
	}
	CHECK_INT(gate(false, now), RETRY_GATE_OPEN, "or another, if that was given back");
	memset(&flow.throttle, 0, sizeof(flow.throttle));
	for (int i = 0; i < 20; i++)
		(void) call(RETRY_FLOW_FAILED, true, now);
	now = retry_breaker_until(&flow.breaker, &flow.rules.breaker);
	for (int i = 0; i < 500; i++)
	{
		RetryFlowEnd end = {.kind = RETRY_FLOW_NEUTRAL,.retry = true,.unsent = true,.started_us = now};

		if (gate(true, now) == RETRY_GATE_OPEN)
			retry_flow_started(&flow, true, now);
		(void) retry_flow_ended(&flow, &end, now);
	}
	CHECK_INT(gate(true, now), RETRY_GATE_OPEN, "not even of a probe");

	/* one 503 among many good answers, and the same with a 429 */
	start_over();
	for (int i = 0; i < 500; i++)
		(void) call(RETRY_FLOW_WELL, false, now);
	for (int sure = 0; sure < 2; sure++)
	{
		RetryFlowEnd end = {.kind = RETRY_FLOW_FAILED,.slows = true,.may_be_chance = !sure,.started_us = now,.in_flight = 1,.latency_us = SECOND};

		retry_flow_started(&flow, false, now);
		(void) retry_flow_ended(&flow, &end, now);
		CHECK_INT(flow.throttle.rate > 0, sure, "what may be an accident slows nothing, what is none does");
	}
	start_over();
	for (int i = 0; i < 20; i++)
		(void) call(RETRY_FLOW_FAILED, true, now);

	rules.breaker.ratio = 0;
	CHECK_INT(retry_flow_follow(&flow, &rules, 7, now), RETRY_BREAKER_HAS_CLOSED, "rules without a breaker close it");
	for (int i = 0; i < 500; i++)
		(void) call(RETRY_FLOW_FAILED, false, now);
	CHECK_INT(gate(false, now), RETRY_GATE_OPEN, "and keep it so");
	rules.retry_share = -1;
	(void) retry_flow_follow(&flow, &rules, 7, now);
	for (int i = 0; i < 5000; i++)
		(void) call(RETRY_FLOW_FAILED, true, now);
	CHECK_INT(gate(true, now), RETRY_GATE_OPEN, "rules without a budget hold no retry");
}

/*
 * 100 new tasks a second; the endpoint is down from the 20th second to the
 * 80th.  Each task that fails asks again in the next second, for ever.
 */
static void
test_outage(bool with_breaker)
{
	RetryFlowRules rules = defaults;
	int64		now = 1000 * SECOND;
	int			waiting[2] = {0, 0};	/* first attempts, retries */
	int			next = 0;		/* retries of the next second */
	int			sent_down = 0;
	int			retried_down = 0;
	int			opened = 0;
	int			closed = 0;
	int			late = 0;
	int			after = 0;
	int			step = 0;

	start_over();
	if (!with_breaker)
		rules.breaker.ratio = 0;
	(void) retry_flow_follow(&flow, &rules, 7, now);
	for (; step < 100 * 160; step++, now += SECOND / 100)
	{
		int			second = step / 100;
		bool		down = second >= 20 && second < 80;

		waiting[0]++;
		if (step % 100 == 0)
		{
			waiting[1] += next;
			next = 0;
		}
		for (int retry = 0; retry < 2; retry++)
		{
			for (int room = 100; room > 0 && waiting[retry] > 0; room--)
			{
				RetryBreakerNews news;

				if (gate(retry, now) != RETRY_GATE_OPEN)
					break;
				waiting[retry]--;
				sent_down += down;
				retried_down += down && retry;
				next += down;
				news = call(down ? RETRY_FLOW_FAILED : RETRY_FLOW_WELL, retry, now);
				opened += news == RETRY_BREAKER_HAS_OPENED;
				closed += news == RETRY_BREAKER_HAS_CLOSED;
			}
		}
		if (!with_breaker && waiting[0] > 0)
			late++;
		if (second >= 80 && waiting[0] + waiting[1] + next > 1)
			after = step - 8000;
	}
	if (with_breaker)
	{
		CHECK(sent_down > 1500 && sent_down < 2000,
			  "with a breaker an outage is tried for half a window, then no more: %d", sent_down);
		CHECK(opened == 1 && closed == 1, "it opens once and closes once");
		CHECK(after < 100 * 65, "all is sent soon after the end: %g s", after / 100.0);
	}
	else
	{
		CHECK_INT(late, 0, "first attempts are never held back");
		CHECK_INT(sent_down - retried_down, 6000, "all are sent in the outage");
		CHECK(retried_down <= 60 * 30 + 300 && retried_down >= 60 * 30 - 100,
			  "with a fifth of them and ten a second as retries: %d", retried_down);
		CHECK(after < 100 * 10, "the backlog is worked off at full speed afterwards: %g s", after / 100.0);
	}
	CHECK(waiting[0] + waiting[1] + next <= 1, "nothing is left over");
}

static void
test_rate(void)
{
	RetryRate	rate = {.count = 10,.seconds = 1,.burst = 5};
	RetryRate	faster = {.count = 1000,.seconds = 1,.burst = 5};
	RetryFlowEnd unsent = {.kind = RETRY_FLOW_NEUTRAL,.unsent = true};
	int64		until;
	int			sent = 0;

	start_over();
	retry_flow_set_rate(&flow, &rate, SECOND);
	CHECK(retry_flow_at_rest(&flow, SECOND), "a lane with a rate that was not used is at rest");
	while (sent < 100 && gate(false, SECOND) == RETRY_GATE_OPEN)
	{
		(void) call(RETRY_FLOW_WELL, sent % 2 == 1, SECOND);
		sent++;
	}
	CHECK_INT(sent, 5, "a lane's rate lets its burst pass, retries too");
	CHECK_INT(retry_flow_gate(&flow, true, SECOND, &until), RETRY_GATE_RATE, "then its gate is closed");
	CHECK(until > SECOND && until <= SECOND + SECOND / 10, "until the next one's moment");
	CHECK(!retry_flow_spend(&flow, SECOND), "also for second transfers");
	CHECK(!retry_flow_at_rest(&flow, SECOND), "it has something to remember");
	CHECK_INT(gate(false, until), RETRY_GATE_OPEN, "when that comes one passes");
	retry_flow_started(&flow, false, until);
	CHECK_INT(gate(false, until), RETRY_GATE_RATE, "and no more");
	(void) retry_flow_ended(&flow, &unsent, until);
	CHECK_INT(gate(false, until), RETRY_GATE_OPEN, "what was not sent is given back");

	for (sent = 0; gate(false, until) == RETRY_GATE_OPEN && sent < 100; sent++)
		retry_flow_started(&flow, false, until);
	retry_flow_set_rate(&flow, &faster, until);
	CHECK_INT(gate(false, until), RETRY_GATE_RATE, "another rate brings no second burst");
	CHECK_INT(gate(false, until + 1000), RETRY_GATE_OPEN, "and counts at once");
	retry_flow_set_rate(&flow, NULL, until);
	CHECK_INT(gate(false, until), RETRY_GATE_OPEN, "none lets everything pass");
}

int
main(void)
{
	test_nothing();
	test_remembers();
	test_order_of_gates();
	test_kinds();
	test_outage(false);
	test_outage(true);
	test_rate();
	return check_done();
}
