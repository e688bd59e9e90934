/*
 * test_histogram.c
 *		Unit test of the latency histogram: percentiles against exact ones,
 *		forgetting, and the ends of its range.
 *
 * Thousands of latencies of several distributions are sorted for the exact
 * percentile; the histogram may be wrong by the width of a bucket, which is a
 * quarter of the value, and no more.
 */
#include "postgres.h"

#include <math.h>

#include "../../src/histogram.h"
#include "check.h"

#define SAMPLES		20000
#define SEC			INT64CONST(1000000)
#define HOUR		(3600 * SEC)

static int64 samples[SAMPLES];

static double
uniform(void)
{
	return (check_random() >> 11) * (1.0 / 9007199254740992.0);
}

static int64
constant_20ms(void)
{
	return 20000;
}

static int64
uniform_to_1s(void)
{
	return (int64) (uniform() * 1e6);
}

static int64
exponential_30ms(void)
{
	return (int64) (-30000 * log(1 - uniform()));
}

static int64
lognormal_200ms(void)
{
	double		z = sqrt(-2 * log(1 - uniform())) * cos(2 * M_PI * uniform());

	return (int64) (200000 * exp(z));
}

/* most are quick, some hang for 30 s */
static int64
two_humps(void)
{
	return uniform() < 0.97 ? 2000 + (int64) (uniform() * 1000) : 30 * SEC;
}

/* very heavy tail, over nine orders of magnitude */
static int64
pareto(void)
{
	return (int64) Min(300 / pow(1 - uniform(), 2), 4e9);
}

static int
compare(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

static void
test_distribution(const char *name, int64 (*draw) (void))
{
	static const double shares[] = {0.01, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999};
	RetryHistogram h = {{0}};

	for (int i = 0; i < SAMPLES; i++)
	{
		samples[i] = draw();
		retry_histogram_add(&h, samples[i], SEC + i);
	}
	qsort(samples, SAMPLES, sizeof(int64), compare);
	for (int i = 0; i < lengthof(shares); i++)
	{
		int64		exact = samples[(int) (shares[i] * SAMPLES) - 1];
		int64		next = samples[(int) (shares[i] * SAMPLES)];
		int64		got = retry_histogram_percentile(&h, shares[i]);

		/* below the first bucket's end, within 256 microseconds */
		CHECK(got >= exact - Max(exact * 0.27, 256) && got <= next + Max(next * 0.27, 256),
			  "%s: p%g is about %lld (%lld)", name, shares[i] * 100, (long long) exact, (long long) got);
	}
	CHECK_INT(retry_histogram_count(&h), SAMPLES, "all are counted");
}

static void
test_range(void)
{
	RetryHistogram h = {{0}};
	int64		previous = -1;
	bool		sorted = true;
	bool		near = true;

	CHECK(sizeof(RetryHistogram) <= 160, "it takes %zu bytes", sizeof(RetryHistogram));
	CHECK_INT(retry_histogram_percentile(&h, 0.5), -1, "empty: no percentile");
	CHECK_INT(retry_histogram_count(&h), 0, "empty: nothing counts");
	retry_histogram_add(&h, -5, SEC);
	retry_histogram_add(&h, 0, SEC);
	CHECK(retry_histogram_percentile(&h, 1) <= 256, "negative and zero are in the first bucket");
	memset(&h, 0, sizeof(h));
	retry_histogram_add(&h, PG_INT64_MAX, SEC);
	CHECK(retry_histogram_percentile(&h, 0.5) > HOUR, "what is beyond all counts as over an hour");

	/* each value alone: the whole range, in steps finer than buckets */
	for (double v = 1; v < 1.1 * HOUR; v *= 1.01)
	{
		int64		got;

		memset(&h, 0, sizeof(h));
		retry_histogram_add(&h, (int64) v, SEC);
		got = retry_histogram_percentile(&h, 0.5);
		sorted &= got >= previous;
		near &= fabs(got - v) <= Max(v * 0.27, 256);
		previous = got;
	}
	CHECK(sorted, "a greater latency never has a smaller percentile");
	CHECK(near, "a single value is told to within a bucket, from 1 us to over an hour");
}

static void
test_forgetting(void)
{
	RetryHistogram h = {{0}};
	int64		now = SEC;

	for (int i = 0; i < 1000; i++)
		retry_histogram_add(&h, 10000, now);
	CHECK_INT(retry_histogram_count(&h), 1000, "a thousand at one moment");
	retry_histogram_add(&h, 10000, now + 59 * SEC);
	CHECK_INT(retry_histogram_count(&h), 1001, "kept for a minute");
	retry_histogram_forget(&h, now + 60 * SEC);
	CHECK_INT(retry_histogram_count(&h), 500, "half of them is left after a minute");
	retry_histogram_forget(&h, now + 180 * SEC);
	CHECK_INT(retry_histogram_count(&h), 125, "an eighth after three");
	retry_histogram_forget(&h, now + 240 * SEC);
	CHECK_INT(retry_histogram_count(&h), 62, "and few are left");
	retry_histogram_forget(&h, now + 300 * SEC);
	CHECK_INT(retry_histogram_count(&h), 62, "which are kept for longer");
	retry_histogram_forget(&h, now + 840 * SEC);
	CHECK_INT(retry_histogram_count(&h), 31, "but not for ever");
	retry_histogram_forget(&h, now + 100 * HOUR);
	CHECK_INT(retry_histogram_count(&h), 0, "after a long time nothing is known");
	CHECK_INT(retry_histogram_percentile(&h, 0.5), -1, "no percentile either");

	/* a lane that was slow and is quick now, 10 a second */
	memset(&h, 0, sizeof(h));
	for (int i = 0; i < 6000; i++)
		retry_histogram_add(&h, SEC, now += SEC / 10);
	for (int i = 0; i < 1800; i++)
		retry_histogram_add(&h, 5000, now += SEC / 10);
	CHECK(retry_histogram_percentile(&h, 0.5) < 7000, "three minutes later the new latency is the median");
	for (int i = 0; i < 3600; i++)
		retry_histogram_add(&h, 5000, now += SEC / 10);
	CHECK(retry_histogram_percentile(&h, 0.95) < 7000, "and after nine the old one is not in the p95");

	/* spread over all buckets with one each: halving keeps the shape */
	memset(&h, 0, sizeof(h));
	for (double v = 130; v < HOUR; v *= cbrt(2))
		retry_histogram_add(&h, (int64) v, now);
	CHECK(retry_histogram_count(&h) > 70, "one in each bucket");
	retry_histogram_forget(&h, now + 60 * SEC);
	CHECK(retry_histogram_count(&h) >= 35 && retry_histogram_percentile(&h, 0.9) > 100 * SEC &&
		  retry_histogram_percentile(&h, 0.1) < 3000, "halved, low and high ones are still there");

	/* a clock of another start, as after a restart */
	retry_histogram_add(&h, 1000, 0);
	CHECK(retry_histogram_count(&h) >= 36, "an earlier clock loses nothing");
}

static void
test_saturation(void)
{
	RetryHistogram h = {{0}};
	uint64		sum = 0;

	for (int i = 0; i < 1000000; i++)
		retry_histogram_add(&h, i % 10 == 0 ? SEC : 1000, SEC);
	for (int i = 0; i < RETRY_HISTOGRAM_BUCKETS; i++)
		sum += h.counts[i];
	CHECK_INT(sum, h.total, "a million in one moment: counters do not overflow");
	CHECK(h.total > 30000, "and many still count");
	CHECK(retry_histogram_percentile(&h, 0.5) < 1300 && retry_histogram_percentile(&h, 0.95) > 790000,
		  "with the right shares");
}

int
main(void)
{
	test_distribution("constant", constant_20ms);
	test_distribution("uniform", uniform_to_1s);
	test_distribution("exponential", exponential_30ms);
	test_distribution("lognormal", lognormal_200ms);
	test_distribution("two humps", two_humps);
	test_distribution("pareto", pareto);
	test_range();
	test_forgetting();
	test_saturation();
	return check_done();
}
