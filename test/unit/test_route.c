/*
 * test_route.c
 *		Routes in numbers: shares, minimal movement, and the life of a target.
 *
 * How work is shared can only be judged over many choices, so each route makes
 * some ten thousand with a fixed series of random numbers, and the shares must
 * lie within bounds that a fair choice misses once in many thousand runs (five
 * standard deviations).  What moves when targets come and go is counted
 * exactly.  Health is followed through its states by a clock that the test
 * moves.
 */
#include "postgres.h"

#include <math.h>

#include "route.h"
#include "check.h"

#define CHOICES	20000
#define SECOND	USECS_PER_SEC

static RetryRouteState states[RETRY_ROUTE_TARGETS_MAX];
static RetryRouteTarget targets[RETRY_ROUTE_TARGETS_MAX];
static char urls[RETRY_ROUTE_TARGETS_MAX][64];
static uint64 uses;

/* n targets that are well; weights[i], or 1 when there are none. */
static void
make_targets(int n, const int32 *weights)
{
	memset(states, 0, sizeof(states));
	for (int i = 0; i < n; i++)
	{
		snprintf(urls[i], sizeof(urls[i]), "http://node%d.example.com/api", i);
		targets[i].url = urls[i];
		targets[i].hash = retry_route_hash(urls[i], strlen(urls[i]));
		targets[i].weight = weights != NULL ? weights[i] : 1;
		targets[i].state = &states[i];
	}
}

static uint64
key_hash(int n)
{
	char		key[32];

	snprintf(key, sizeof(key), "order-%d", n);
	return retry_route_hash(key, strlen(key));
}

static int
choose(RetryRoute route, int n, uint64 key, TimestampTz now)
{
	TimestampTz at;

	return retry_route_choose(route, targets, n, key, check_random(), now, &at);
}

/* Fails a request to a target, sent at that moment. */
static void
fail_at(int i, TimestampTz now)
{
	bool		probe = retry_route_started(&states[i], ++uses);

	retry_route_ended(&states[i], probe, RETRY_ROUTE_END_FAILED, now);
}

/* Share of a target is as its weight says, within five standard deviations. */
static bool
share_is_fair(int got, int total, double share)
{
	double		deviation = sqrt(total * share * (1 - share));

	return fabs(got - total * share) <= 5 * deviation + 1;
}

static void
check_shares(const char *name, RetryRoute route, int n, const int32 *weights, bool even)
{
	int			got[8] = {0};
	int			sum = 0;

	make_targets(n, weights);
	for (int i = 0; i < n; i++)
		sum += even ? 1 : weights[i];
	for (int i = 0; i < CHOICES; i++)
	{
		int			chosen = choose(route, n, key_hash(i), 0);

		got[chosen]++;
		retry_route_ended(&states[chosen], retry_route_started(&states[chosen], ++uses),
						  RETRY_ROUTE_END_WELL, 0);
	}
	for (int i = 0; i < n; i++)
		CHECK(share_is_fair(got[i], CHOICES, (double) (even ? 1 : weights[i]) / sum),
			  "%s: target %d of weight %d got %d of %d", name, i, weights[i], got[i], CHOICES);
}

static void
test_shares(void)
{
	static const int32 equal[] = {1, 1, 1, 1, 1};
	static const int32 weighted[] = {1, 2, 3, 4, 90};
	static const int32 extreme[] = {1000, 1, 999};

	check_shares("hash", RETRY_ROUTE_HASH, 5, equal, false);
	check_shares("hash, weighted", RETRY_ROUTE_HASH, 5, weighted, false);
	check_shares("hash, extreme", RETRY_ROUTE_HASH, 3, extreme, false);
	check_shares("random", RETRY_ROUTE_RANDOM, 5, equal, false);
	check_shares("random, weighted", RETRY_ROUTE_RANDOM, 5, weighted, false);
	check_shares("least in flight, idle", RETRY_ROUTE_LEAST_IN_FLIGHT, 5, weighted, false);
	check_shares("lru", RETRY_ROUTE_LRU, 5, weighted, true);
}

/* Exactly, and spread: no target twice in a row unless it must. */
static void
test_round_robin(void)
{
	static const int32 weights[] = {5, 1, 1};
	char		order[15] = {0};
	int			got[3] = {0};

	make_targets(3, weights);
	for (int i = 0; i < 14; i++)
		order[i] = (char) ('a' + choose(RETRY_ROUTE_ROUND_ROBIN, 3, 0, 0));
	CHECK_STR(order, "aabacaaaabacaa", "round robin takes turns smoothly");
	for (int i = 0; i < 7000; i++)
		got[choose(RETRY_ROUTE_ROUND_ROBIN, 3, 0, 0)]++;
	CHECK(got[0] == 5000 && got[1] == 1000 && got[2] == 1000, "round robin is exact over whole rounds");

	make_targets(3, weights);
	fail_at(0, 0);
	memset(got, 0, sizeof(got));
	for (int i = 0; i < 100; i++)
		got[choose(RETRY_ROUTE_ROUND_ROBIN, 3, 0, 1)]++;
	CHECK(got[0] == 0 && got[1] == 50 && got[2] == 50, "round robin goes on without one that is out");
}

/* The key of every task that moves must have had a reason to. */
static void
test_minimal_movement(void)
{
	static int	before[CHOICES];
	int			moved = 0;
	int			strays = 0;
	int			of_removed = 0;
	int			got[10] = {0};
	RetryRouteTarget last;

	make_targets(10, NULL);
	for (int i = 0; i < CHOICES; i++)
		before[i] = choose(RETRY_ROUTE_HASH, 10, key_hash(i), 0);

	/* one is removed: the eleventh part, and only what it had, moves */
	for (int i = 0; i < CHOICES; i++)
	{
		int			now = choose(RETRY_ROUTE_HASH, 9, key_hash(i), 0);

		of_removed += before[i] == 9;
		moved += now != before[i];
		strays += now != before[i] && before[i] != 9;
		if (before[i] == 9)
			got[now]++;
	}
	CHECK_INT(strays, 0, "removing a target moves no key of another");
	CHECK_INT(moved, of_removed, "and all of its own");
	CHECK(share_is_fair(moved, CHOICES, 0.1), "which were a tenth: %d of %d", moved, CHOICES);
	for (int i = 0; i < 9; i++)
		CHECK(share_is_fair(got[i], of_removed, 1.0 / 9), "target %d takes over its share: %d", i, got[i]);

	/* one goes out: the same, as long as it is out */
	fail_at(4, 0);
	strays = 0;
	for (int i = 0; i < CHOICES; i++)
	{
		int			now = choose(RETRY_ROUTE_HASH, 10, key_hash(i), 1);

		strays += before[i] == 4 ? now == 4 : now != before[i];
	}
	CHECK_INT(strays, 0, "a target that is out loses its keys, and no other does");

	/* order means nothing, and one that is added takes from all alike */
	make_targets(11, NULL);
	last = targets[10];
	memmove(&targets[1], &targets[0], 10 * sizeof(targets[0]));
	targets[0] = last;
	strays = moved = 0;
	for (int i = 0; i < CHOICES; i++)
	{
		int			now = choose(RETRY_ROUTE_HASH, 11, key_hash(i), 0);

		moved += now == 0;
		strays += now != 0 && now != before[i] + 1;
	}
	CHECK_INT(strays, 0, "what moves when a target is added goes to that target");
	CHECK(share_is_fair(moved, CHOICES, 1.0 / 11), "which gets its share: %d of %d", moved, CHOICES);
}

/* A heavier target: keys move to it, and between no others. */
static void
test_weight_change(void)
{
	static int	before[CHOICES];
	int			strays = 0;

	make_targets(5, NULL);
	for (int i = 0; i < CHOICES; i++)
		before[i] = choose(RETRY_ROUTE_HASH, 5, key_hash(i), 0);
	targets[2].weight = 3;
	for (int i = 0; i < CHOICES; i++)
	{
		int			now = choose(RETRY_ROUTE_HASH, 5, key_hash(i), 0);

		strays += now != before[i] && now != 2;
	}
	CHECK_INT(strays, 0, "more weight takes keys, and moves none between others");
}

/* Requests that last: the slow target has few at a time. */
static void
test_least_in_flight(void)
{
	static const int32 weights[] = {1, 1, 2};
	int			most = 0;

	make_targets(3, weights);
	states[0].in_flight = 40;
	for (int i = 0; i < 120; i++)
		(void) retry_route_started(&states[choose(RETRY_ROUTE_LEAST_IN_FLIGHT, 3, 0, 0)], ++uses);
	CHECK(states[0].in_flight <= 45, "least in flight leaves a full target alone: %d", states[0].in_flight);
	CHECK(abs(states[2].in_flight - 2 * states[1].in_flight) <= 16,
		  "and holds the others to their weights: %d, %d", states[1].in_flight, states[2].in_flight);

	make_targets(8, NULL);
	for (int i = 0; i < 8000; i++)
		(void) retry_route_started(&states[choose(RETRY_ROUTE_LEAST_IN_FLIGHT, 8, 0, 0)], ++uses);
	for (int i = 0; i < 8; i++)
		most = Max(most, abs(states[i].in_flight - 1000));
	CHECK(most <= 10, "two choices keep all nearly equal: off by %d of 1000", most);
}

static void
test_order(void)
{
	int			order[6];

	make_targets(4, NULL);
	CHECK_INT(choose(RETRY_ROUTE_FIRST, 4, 0, 0), 0, "first is the first");
	CHECK_INT(choose(RETRY_ROUTE_LAST, 4, 0, 0), 3, "last is the last");
	fail_at(0, 0);
	fail_at(3, 0);
	CHECK_INT(choose(RETRY_ROUTE_FIRST, 4, 0, 1), 1, "first, with that out, is the second");
	CHECK_INT(choose(RETRY_ROUTE_LAST, 4, 0, 1), 2, "last, with that out, is the one before");
	fail_at(1, 0);
	CHECK_INT(choose(RETRY_ROUTE_FIRST, 4, 0, 1), 2, "and so on");

	make_targets(3, NULL);
	for (int i = 0; i < 6; i++)
	{
		order[i] = choose(RETRY_ROUTE_LRU, 3, 0, 0);
		(void) retry_route_started(&states[order[i]], ++uses);
	}
	CHECK(order[0] == 0 && order[1] == 1 && order[2] == 2 && order[3] == 0 && order[4] == 1 && order[5] == 2,
		  "lru goes round");
	CHECK(choose(RETRY_ROUTE_ALL, 3, key_hash(1), 0) == choose(RETRY_ROUTE_HASH, 3, key_hash(1), 0),
		  "a task of a scene with route all that has no target of its own goes by hash");
}

/* One target through its life. */
static void
test_health(void)
{
	TimestampTz now = 1000 * SECOND;
	TimestampTz at = 0;
	bool		probe;

	make_targets(1, NULL);
	fail_at(0, now);
	CHECK_INT(retry_route_choose(RETRY_ROUTE_FIRST, targets, 1, 0, 0, now, &at), -1, "one failure takes it out");
	CHECK_INT(at - now, SECOND, "for a second");
	CHECK_INT(choose(RETRY_ROUTE_FIRST, 1, 0, now + SECOND - 1), -1, "not earlier");
	now += SECOND;
	for (int seconds = 2; seconds <= 200; seconds *= 2)
	{
		int			want = Min(seconds, 60);

		CHECK_INT(choose(RETRY_ROUTE_FIRST, 1, 0, now), 0, "then it is probed");
		probe = retry_route_started(&states[0], ++uses);
		CHECK(probe, "by this request");
		CHECK_INT(retry_route_choose(RETRY_ROUTE_FIRST, targets, 1, 0, 0, now, &at), -1, "and by one only");
		CHECK_INT(at - now, SECOND, "which is asked about again in a second");
		now += 500;
		retry_route_ended(&states[0], probe, RETRY_ROUTE_END_FAILED, now);
		(void) retry_route_choose(RETRY_ROUTE_FIRST, targets, 1, 0, 0, now, &at);
		CHECK_INT(at - now, want * SECOND, "it fails and is out for longer");
		now = at;
	}
	probe = retry_route_started(&states[0], ++uses);
	retry_route_ended(&states[0], probe, RETRY_ROUTE_END_UNKNOWN, now);
	CHECK_INT(choose(RETRY_ROUTE_FIRST, 1, 0, now), 0, "a probe that was not sent leaves it to another");
	probe = retry_route_started(&states[0], ++uses);
	retry_route_ended(&states[0], probe, RETRY_ROUTE_END_WELL, now);
	CHECK_INT(choose(RETRY_ROUTE_FIRST, 1, 0, now), 0, "a probe that succeeds heals it");
	CHECK(!retry_route_started(&states[0], ++uses) && choose(RETRY_ROUTE_FIRST, 1, 0, now) == 0,
		  "and all may use it");
	fail_at(0, now);
	(void) retry_route_choose(RETRY_ROUTE_FIRST, targets, 1, 0, 0, now, &at);
	CHECK_INT(at - now, SECOND, "which forgets how long it was out before");
	CHECK_INT(choose(RETRY_ROUTE_FIRST, 1, 0, now - 3600 * SECOND), 0,
			  "a clock that was set back does not keep it out");
}

static void
test_what_counts(void)
{
	static const struct
	{
		int			status;
		bool		cut;
		RetryRouteEnd want;
	}			cases[] = {
		{0, false, RETRY_ROUTE_END_FAILED}, {200, false, RETRY_ROUTE_END_WELL},
		{200, true, RETRY_ROUTE_END_FAILED}, {404, false, RETRY_ROUTE_END_WELL},
		{410, false, RETRY_ROUTE_END_WELL}, {429, false, RETRY_ROUTE_END_FAILED},
		{500, false, RETRY_ROUTE_END_WEAK}, {501, false, RETRY_ROUTE_END_WEAK},
		{502, false, RETRY_ROUTE_END_FAILED}, {503, false, RETRY_ROUTE_END_FAILED},
		{504, false, RETRY_ROUTE_END_FAILED}, {599, false, RETRY_ROUTE_END_WEAK}
	};
	static const RetryRouteEnd ends[] = {
		RETRY_ROUTE_END_WEAK, RETRY_ROUTE_END_WEAK, RETRY_ROUTE_END_WELL,
		RETRY_ROUTE_END_WEAK, RETRY_ROUTE_END_WEAK, RETRY_ROUTE_END_UNKNOWN, RETRY_ROUTE_END_WEAK
	};
	bool		probe;

	for (int i = 0; i < lengthof(cases); i++)
		CHECK(retry_route_judge(cases[i].status, cases[i].cut) == cases[i].want,
			  "status %d%s", cases[i].status, cases[i].cut ? ", cut" : "");

	make_targets(1, NULL);
	for (int i = 0; i < lengthof(ends); i++)
	{
		CHECK_INT(choose(RETRY_ROUTE_FIRST, 1, 0, 5), 0, "weak answers do not take it out …");
		(void) retry_route_started(&states[0], ++uses);
		retry_route_ended(&states[0], false, ends[i], 5);
	}
	CHECK_INT(choose(RETRY_ROUTE_FIRST, 1, 0, 5), -1, "… but three in a row");
	CHECK_INT(states[0].in_flight, 0, "and all have ended");

	/* sent before it went out, and ending after: no news */
	make_targets(1, NULL);
	(void) retry_route_started(&states[0], ++uses);
	(void) retry_route_started(&states[0], ++uses);
	fail_at(0, 0);
	retry_route_ended(&states[0], false, RETRY_ROUTE_END_FAILED, 10);
	CHECK_INT(states[0].out_until, SECOND, "an older request that fails does not put it off");
	retry_route_ended(&states[0], false, RETRY_ROUTE_END_WELL, 20);
	CHECK_INT(choose(RETRY_ROUTE_FIRST, 1, 0, 30), -1, "nor does one that succeeds heal it");
	probe = retry_route_started(&states[0], ++uses);
	retry_route_ended(&states[0], probe, RETRY_ROUTE_END_WEAK, 40);
	CHECK_INT(states[0].out_until, 40 + 2 * SECOND, "a weak answer is no success of a probe");
}

/* A target that somebody else has a reason to leave out. */
static void
test_barred(void)
{
	int64		at = 0;

	make_targets(2, NULL);
	states[0].barred_until = 500;
	for (RetryRoute route = RETRY_ROUTE_HASH; route < RETRY_ROUTES; route++)
		CHECK_INT(choose(route, 2, 1, 499), 1, "no route takes one that is barred");
	CHECK_INT(choose(RETRY_ROUTE_FIRST, 2, 0, 500), 0, "until its moment");
	states[1].barred_until = 400;
	CHECK_INT(retry_route_choose(RETRY_ROUTE_RANDOM, targets, 2, 0, 7, 300, &at), -1, "all are barred");
	CHECK_INT(at, 400, "the first moment is told");
	fail_at(1, 300);
	(void) retry_route_choose(RETRY_ROUTE_RANDOM, targets, 2, 0, 7, 301, &at);
	CHECK_INT(at, 500, "one that is out as well comes later");
}

/* None to choose: the earliest of all probes. */
static void
test_none(void)
{
	TimestampTz at = 0;

	make_targets(3, NULL);
	fail_at(0, 300);
	fail_at(1, 100);
	fail_at(2, 200);
	CHECK_INT(retry_route_choose(RETRY_ROUTE_RANDOM, targets, 3, 0, 7, 400, &at), -1, "none is well");
	CHECK_INT(at, 100 + SECOND, "the first to be probed is told");
	(void) retry_route_started(&states[1], ++uses);
	(void) retry_route_choose(RETRY_ROUTE_RANDOM, targets, 3, 0, 7, 400, &at);
	CHECK_INT(at, 200 + SECOND, "but not one that is being probed");
	for (RetryRoute route = RETRY_ROUTE_HASH; route < RETRY_ROUTES; route++)
		CHECK_INT(choose(route, 3, 1, 200 + SECOND), 2, "every route takes the only one");
}

static void
check_target(const char *text, int len, int32 weight, const char *error)
{
	char		err[RETRY_ROUTE_ERROR] = "";
	int			got_len;
	int32		got_weight;
	bool		good = retry_route_parse_target(text, &got_len, &got_weight, err, sizeof(err));

	if (error == NULL)
		CHECK(good && got_len == len && got_weight == weight, "\"%s\": %s", text, err);
	else
		CHECK(!good && strstr(err, error) != NULL, "\"%.60s\" is refused: %s", text, err);
}

static void
test_parse(void)
{
	static char big[9000] = "http://a.example/";
	RetryRoute	route;

	check_target("http://a.example/x", 18, 1, NULL);
	check_target("http://a.example/x weight=7", 18, 7, NULL);
	check_target("https://a.example   weight=1000", 17, 1000, NULL);
	check_target("https://a.example ", 17, 1, NULL);
	check_target("http://a weight=0", 0, 0, "weight \"0\"");
	check_target("http://a weight=1001", 0, 0, "weight \"1001\"");
	check_target("http://a weight=99999999999999999999", 0, 0, "weight \"9999");
	check_target("http://a weight=", 0, 0, "weight \"\"");
	check_target("http://a weight=-1", 0, 0, "weight \"-1\"");
	check_target("http://a weight=1.5", 0, 0, "weight \"1.5\"");
	check_target("http://a weight=1 weight=2", 0, 0, "weight \"1 weight=2\"");
	check_target("http://a wait=1", 0, 0, "unknown word \"wait=1\"");
	check_target("http://a Weight=1", 0, 0, "unknown word");
	check_target("", 0, 0, "");
	check_target(" http://a", 0, 0, "");
	check_target("weight=3", 0, 0, "");
	check_target("ftp://a", 0, 0, "ftp");
	check_target("http://a\tweight=1", 0, 0, "");
	check_target("sql:public.f", 0, 0, "function");
	check_target("some-scene", 0, 0, "");
	memset(big + strlen(big), 'x', sizeof(big) - strlen(big) - 1);
	check_target(big, 0, 0, "8192");

	CHECK(retry_route_by_name("least_in_flight", &route) && route == RETRY_ROUTE_LEAST_IN_FLIGHT, "a route by name");
	CHECK(retry_route_by_name("all", &route) && route == RETRY_ROUTE_ALL, "another");
	CHECK(!retry_route_by_name("best", &route) && !retry_route_by_name("", &route), "and none");
}

int
main(void)
{
	test_parse();
	test_shares();
	test_round_robin();
	test_minimal_movement();
	test_weight_change();
	test_least_in_flight();
	test_order();
	test_health();
	test_what_counts();
	test_none();
	test_barred();
	return check_done();
}
