/*
 * test_adaptive.c
 *		Unit test of the adaptive limit against a simulated endpoint.
 *
 * The endpoint has so many workers and a queue before them; a request takes its
 * turn and then the time that its work takes.  Nothing here waits: the clock is
 * moved from one end of a request to the next.  Workers, work and failures
 * change under way, and the limit has to follow within a bounded time.
 */
#include "postgres.h"

#include <math.h>
#include <stdlib.h>

#include "../../src/adaptive.h"
#include "check.h"

#define SEC			INT64CONST(1000000)
#define MS			INT64CONST(1000)
#define MAX_WORKERS	512
#define MAX_FLYING	2048

typedef struct Request
{
	int64		sent_at;
	int64		ends_at;
	RetryFlowKind kind;
} Request;

/* The simulated endpoint and its only client. */
static struct
{
	int64		now;
	int			workers;
	int64		work_us;
	double		scatter;		/* standard deviation of the logarithm */
	double		failing;		/* share that fails, whatever the load */
	int			shed_above;		/* refuses beyond so many at once; 0: never */
	int			timeout_ms;		/* 0: none */
	int64		turn_us;		/* the client looks so often; 0: at once */
	int			wanted;			/* the client has so many to send at most */
	int			max;
	int64		free_at[MAX_WORKERS];
	Request		flying[MAX_FLYING];
	int			nflying;
	int64		done;
	int64		refused;
	RetryAdaptive a;
} sim;

static double
uniform(void)
{
	return ((check_random() >> 11) + 1) * (1.0 / 9007199254740993.0);
}

static double
normal(void)
{
	return sqrt(-2 * log(uniform())) * cos(2 * M_PI * uniform());
}

static void
sim_begin(int workers, int64 work_us, int max)
{
	memset(&sim, 0, sizeof(sim));
	sim.now = SEC;
	sim.workers = workers;
	sim.work_us = work_us;
	sim.max = max;
	sim.wanted = MAX_FLYING;
}

/* A smaller number of workers ends what it has; a greater one is free at once. */
static void
sim_workers(int workers)
{
	for (int i = sim.workers; i < workers; i++)
		sim.free_at[i] = sim.now;
	sim.workers = workers;
}

static void
sim_send(void)
{
	Request    *r = &sim.flying[sim.nflying++];
	int			worker = 0;
	int64		work = (int64) (sim.work_us * exp(sim.scatter * normal()));

	r->sent_at = sim.now;
	r->kind = RETRY_FLOW_WELL;
	if (sim.shed_above > 0 && sim.nflying > sim.shed_above)
	{
		r->kind = RETRY_FLOW_THROTTLED;
		r->ends_at = sim.now + MS;
		return;
	}
	for (int i = 1; i < sim.workers; i++)
		if (sim.free_at[i] < sim.free_at[worker])
			worker = i;
	r->ends_at = sim.free_at[worker] = Max(sim.free_at[worker], sim.now) + work;
	if (uniform() < sim.failing)
		r->kind = RETRY_FLOW_FAILED;
	if (sim.timeout_ms > 0 && r->ends_at > sim.now + sim.timeout_ms * MS)
	{
		r->kind = RETRY_FLOW_FAILED;
		r->ends_at = sim.now + sim.timeout_ms * MS;
	}
}

static void
sim_end_next(void)
{
	int			next = 0;
	Request		r;

	for (int i = 1; i < sim.nflying; i++)
		if (sim.flying[i].ends_at < sim.flying[next].ends_at)
			next = i;
	r = sim.flying[next];
	if (sim.turn_us > 0 && r.ends_at > sim.now)
		sim.now = (r.ends_at / sim.turn_us + 1) * sim.turn_us;
	sim.now = Max(sim.now, r.ends_at);
	retry_adaptive_ended(&sim.a, r.kind, sim.now - r.sent_at, sim.nflying, sim.max, sim.now);
	sim.flying[next] = sim.flying[--sim.nflying];
	sim.done += r.kind == RETRY_FLOW_WELL;
	sim.refused += r.kind == RETRY_FLOW_THROTTLED;
}

/* Is there another that has ended by now, and is seen in the same turn? */
static bool
ended_already(void)
{
	for (int i = 0; i < sim.nflying; i++)
		if (sim.flying[i].ends_at <= sim.now)
			return true;
	return false;
}

typedef struct Seen
{
	double		mean;			/* of the limit */
	int			least;
	int			most;
	double		per_second;
} Seen;

/* Runs for so many seconds and says what the limit was meanwhile. */
static Seen
sim_run(double seconds)
{
	int64		from = sim.now;
	int64		until = sim.now + (int64) (seconds * SEC);
	double		weighed = 0;
	Seen		seen = {.least = PG_INT32_MAX};

	sim.done = sim.refused = 0;
	while (sim.now < until)
	{
		int			limit = retry_adaptive_limit(&sim.a, sim.max);
		int64		before = sim.now;

		while (sim.nflying < Min(limit, sim.wanted))
			sim_send();
		do
			sim_end_next();
		while (sim.turn_us > 0 && ended_already());
		weighed += (double) limit * (sim.now - before);
		seen.least = Min(seen.least, limit);
		seen.most = Max(seen.most, limit);
	}
	seen.mean = weighed / (sim.now - from);
	seen.per_second = sim.done * (double) SEC / (sim.now - from);
	return seen;
}

#define SHOW(seen) (seen).mean, (seen).least, (seen).most, (seen).per_second

/* For endpoints of many sizes: near the capacity, and all of it is used. */
static void
test_converges(double scatter)
{
	static const int workers[] = {1, 2, 5, 10, 30, 100};

	for (int i = 0; i < lengthof(workers); i++)
	{
		int			w = workers[i];
		Seen		seen;
		double		best;

		sim_begin(w, 50 * MS, 500);
		sim.scatter = scatter;
		best = w * 20.0 / exp(scatter * scatter / 2);

		/* the more latencies scatter, the earlier a queue is suspected */
		sim_run(30);
		seen = sim_run(120);
		CHECK(seen.mean > 0.7 * w && seen.mean < 2.0 * w + 2,
			  "scatter %g, %d workers: the limit is near that (mean %.1f, %d to %d, %.0f/s)", scatter, w, SHOW(seen));
		CHECK(seen.per_second > (0.92 - 0.25 * scatter) * best,
			  "and the endpoint is kept busy (%.0f of %.0f a second)", seen.per_second, best);
		CHECK(seen.most < 3 * w + 4, "and never sent much more");
	}
}

static void
test_follows(double scatter)
{
	Seen		seen;

	sim_begin(40, 50 * MS, 200);
	sim.scatter = scatter;
	sim_run(30);
	sim_workers(8);
	sim_run(10);
	seen = sim_run(30);
	CHECK(seen.mean < 17 && seen.mean > 5.5,
		  "scatter %g, from 40 workers to 8: found within 10 s (mean %.1f, %d to %d, %.0f/s)", scatter, SHOW(seen));
	CHECK(seen.per_second > (0.85 - 0.1 * scatter) * 160 / exp(scatter * scatter / 2), "and they are kept busy");
	sim_workers(40);
	sim_run(15);
	seen = sim_run(30);
	CHECK(seen.mean > 28 && seen.mean < 80,
		  "and back to 40 within 15 s (mean %.1f, %d to %d, %.0f/s)", SHOW(seen));
	sim_workers(1);
	sim_run(30);
	seen = sim_run(60);
	CHECK(seen.mean < 4, "down to a single one (mean %.1f, %d to %d, %.0f/s)", SHOW(seen));
}

/* Ends are seen in turns, many at once, and only then is more sent. */
static void
test_turns(void)
{
	static const int turns[] = {5, 20, 50};

	for (int i = 0; i < lengthof(turns); i++)
	{
		Seen		seen;

		sim_begin(3, 100 * MS, 200);
		sim.scatter = 0.05;
		sim.turn_us = turns[i] * MS;
		sim_run(30);
		sim_workers(40);
		sim_run(15);
		seen = sim_run(30);
		CHECK(seen.mean > 26 && seen.mean < 80 && seen.per_second > 200,
			  "a turn each %d ms, from 3 workers to 40 (mean %.1f, %d to %d, %.0f/s)", turns[i], SHOW(seen));
	}
}

/* The work itself takes longer: no reason to send less. */
static void
test_work_changes(void)
{
	Seen		seen;

	sim_begin(20, 20 * MS, 100);
	sim.scatter = 0.3;
	sim_run(30);
	sim.work_us = 100 * MS;
	sim_run(30);
	seen = sim_run(60);
	CHECK(seen.mean > 14 && seen.mean < 45 && seen.per_second > 0.85 * 200 / exp(0.045),
		  "work five times as long on the same workers (mean %.1f, %d to %d, %.0f/s)", SHOW(seen));
	sim.work_us = 20 * MS;
	sim_run(20);
	seen = sim_run(60);
	CHECK(seen.mean > 14 && seen.mean < 45 && seen.per_second > 0.85 * 1000 / exp(0.045),
		  "and as short as before (mean %.1f, %d to %d, %.0f/s)", SHOW(seen));
}

/* Never a queue: all that the lane may have. */
static void
test_never_slow(void)
{
	static const double scatters[] = {0, 0.3, 0.8, 1.5};

	for (int i = 0; i < lengthof(scatters); i++)
	{
		Seen		seen;

		sim_begin(200, 10 * MS, 50);
		sim.scatter = scatters[i];
		sim_run(20);
		seen = sim_run(300);
		CHECK(seen.mean > (scatters[i] < 0.5 ? 49 : 42),
			  "no queue, scatter %g: at the maximum (mean %.1f, %d to %d, %.0f/s)", scatters[i], SHOW(seen));
	}
}

/* A limit that nobody comes near says nothing: it must not grow on that. */
static void
test_unused(void)
{
	Seen		seen;

	sim_begin(10, 50 * MS, 400);
	sim.wanted = 3;
	seen = sim_run(300);
	CHECK(seen.most <= 8, "three at once never let it grow (%d)", seen.most);
	sim.wanted = MAX_FLYING;
	sim_run(20);
	seen = sim_run(60);
	CHECK(seen.mean > 7 && seen.mean < 22, "until they are more (mean %.1f, %d to %d, %.0f/s)", SHOW(seen));
}

static void
test_failures(void)
{
	Seen		seen;

	/* refuses with 429 or 503 what is too much, and is no slower for it */
	sim_begin(100, 50 * MS, 100);
	sim.shed_above = 12;
	sim.scatter = 0.2;
	sim_run(30);
	seen = sim_run(120);
	CHECK(seen.mean > 8 && seen.mean < 16, "refuses beyond 12 (mean %.1f, %d to %d, %.0f/s)", SHOW(seen));
	CHECK(sim.refused * 10 < sim.done, "few are refused (%lld to %lld)", (long long) sim.refused, (long long) sim.done);
	sim.shed_above = 50;
	sim_run(30);
	seen = sim_run(60);
	CHECK(seen.mean > 30, "refuses beyond 50 (mean %.1f, %d to %d, %.0f/s)", SHOW(seen));

	/* a share fails whatever the load: it must not be throttled for that */
	sim_begin(100, 50 * MS, 40);
	sim.scatter = 0.2;
	sim_run(20);
	sim.failing = 0.3;
	sim_run(60);
	seen = sim_run(120);
	CHECK(seen.mean > 25, "a third fails whatever the load (mean %.1f, %d to %d, %.0f/s)", SHOW(seen));

	/* so slow that requests time out */
	sim_begin(10, 100 * MS, 200);
	sim.timeout_ms = 500;
	sim_run(30);
	sim_workers(2);
	sim_run(30);
	seen = sim_run(60);
	CHECK(seen.mean < 6 && seen.per_second > 14,
		  "timeouts at first, then what two workers do (mean %.1f, %d to %d, %.0f/s)", SHOW(seen));

	/* all fail for a while, at once: as when it is restarted */
	sim_begin(20, 20 * MS, 60);
	sim_run(20);
	sim.failing = 1;
	sim_run(20);
	sim.failing = 0;
	sim_run(10);
	seen = sim_run(30);
	CHECK(seen.mean > 14, "recovers after everything failed (mean %.1f, %d to %d, %.0f/s)", SHOW(seen));
}

/*
 * What it took for the latency without a queue was that of a long one: it finds
 * out, because it looks below from time to time.
 */
static void
test_wrong_beginning(void)
{
	Seen		seen;

	sim_begin(5, 50 * MS, 200);
	sim.scatter = 0.2;
	sim.a.limit = 60;
	sim.a.found = true;
	sim.a.window_start = sim.a.epoch_start = sim.now;
	sim.a.least[0] = sim.a.least[1] = log2(60 * 10 * MS);
	sim_run(150);
	seen = sim_run(60);
	CHECK(seen.mean < 8, "begun in a long queue (mean %.1f, %d to %d, %.0f/s)", SHOW(seen));
}

static void
test_bounds(void)
{
	RetryAdaptive a;
	Seen		seen;

	memset(&a, 0, sizeof(a));
	CHECK_INT(retry_adaptive_limit(&a, 1000), 4, "nothing known: a small number");
	CHECK_INT(retry_adaptive_limit(&a, 3), 3, "or what the lane may have");
	CHECK_INT(retry_adaptive_limit(&a, 0), 1, "but never nothing");
	for (int i = 0; i < 1000; i++)
		retry_adaptive_ended(&a, RETRY_FLOW_NEUTRAL, 1000, 8, 100, i * MS);
	CHECK_INT(retry_adaptive_limit(&a, 1000), 4, "what says nothing changes nothing");
	for (int i = 0; i < 1000; i++)
		retry_adaptive_ended(&a, RETRY_FLOW_THROTTLED, 0, 8, 100, (1000 + i) * MS);
	CHECK_INT(retry_adaptive_limit(&a, 1000), 1, "nothing but refusals: one at a time");
	for (int i = 0; i < 1000; i++)
		retry_adaptive_ended(&a, RETRY_FLOW_WELL, -5, PG_INT32_MAX, PG_INT32_MAX, (2000 + i) * MS);
	CHECK(retry_adaptive_limit(&a, PG_INT32_MAX) > 1, "latencies of nothing are borne");

	sim_begin(100, 10 * MS, 60);
	sim_run(20);
	sim.max = 5;
	seen = sim_run(20);
	CHECK(seen.mean < 5.5, "the lane's limit was lowered: at once");
	sim.max = 60;
	sim_run(20);
	seen = sim_run(10);
	CHECK(seen.mean > 55, "and raised: used again (mean %.1f)", seen.mean);
	CHECK(sizeof(RetryAdaptive) <= 160, "it takes %zu bytes", sizeof(RetryAdaptive));
}

int
main(void)
{
	test_bounds();
	test_converges(0);
	test_converges(0.3);
	test_converges(0.8);
	test_follows(0);
	test_follows(0.3);
	test_follows(0.6);
	test_turns();
	test_work_changes();
	test_never_slow();
	test_unused();
	test_failures();
	test_wrong_beginning();
	return check_done();
}
