/*
 * histogram.c
 *		How long the requests of a lane took lately, in 160 bytes.
 *
 * Each lane with traffic has one of these, so it must be small, and it answers
 * for what happens now rather than for all that ever happened: so the counters
 * are short and halved in time.  What is halved is the distribution, not each
 * counter, so that many buckets with one request each keep half of them.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "histogram.h"

/*
 * Bucket 0 is everything below FIRST; then three for each octave; the last is
 * everything beyond.
 */
#define FIRST_SHIFT		8		/* 256 microseconds */
#define LAST			(RETRY_HISTOGRAM_BUCKETS - 1)

#define HALF_LIFE_US	(INT64CONST(60) * 1000000)

/* A lane with little traffic keeps what it has for longer. */
#define FEW				64
#define HALF_LIFE_OF_FEW_US	(INT64CONST(600) * 1000000)

/* The beginning of a bucket, in microseconds. */
static int64
bucket_start(int bucket)
{
	/* 2^16 and the two steps to the next octave: cube roots of 2 and 4 */
	static const int64 thirds[3] = {65536, 82570, 104032};
	int			octave = (bucket - 1) / 3;

	if (bucket == 0)
		return 0;
	return ((thirds[(bucket - 1) % 3] << FIRST_SHIFT) << octave) >> 16;
}

int
retry_histogram_bucket(int64 latency_us)
{
	int			bucket;

	if (latency_us < (1 << FIRST_SHIFT))
		return 0;
	bucket = (pg_leftmost_one_pos64(latency_us) - FIRST_SHIFT) * 3 + 1;
	if (bucket >= LAST)
		return LAST;
	if (latency_us >= bucket_start(bucket + 2))
		return bucket + 2;
	return latency_us >= bucket_start(bucket + 1) ? bucket + 1 : bucket;
}

/* Halves the running sums, so that what is rounded away here is kept there. */
static void
halve(RetryHistogram *h)
{
	uint32		sum = 0;
	uint32		kept = 0;

	for (int i = 0; i < RETRY_HISTOGRAM_BUCKETS; i++)
	{
		sum += h->counts[i];
		h->counts[i] = (uint16) (sum / 2 - kept);
		kept = sum / 2;
	}
	h->total = kept;
}

void
retry_histogram_forget(RetryHistogram *h, int64 now_us)
{
	if (h->total == 0 || now_us < h->halved_at)
	{
		h->halved_at = now_us;
		return;
	}
	while (h->total > 0)
	{
		int64		half_life = h->total > FEW ? HALF_LIFE_US : HALF_LIFE_OF_FEW_US;

		if (now_us - h->halved_at < half_life)
			return;
		halve(h);
		h->halved_at += half_life;
	}
	h->halved_at = now_us;
}

void
retry_histogram_add(RetryHistogram *h, int64 latency_us, int64 now_us)
{
	int			bucket = retry_histogram_bucket(latency_us);

	retry_histogram_forget(h, now_us);
	if (h->counts[bucket] == PG_UINT16_MAX)
		halve(h);
	h->counts[bucket]++;
	h->total++;
}

uint32
retry_histogram_count(const RetryHistogram *h)
{
	return h->total;
}

int64
retry_histogram_percentile_of(const int64 *counts, double p)
{
	int64		total = 0;
	int64		below = 0;
	double		rank;

	for (int i = 0; i < RETRY_HISTOGRAM_BUCKETS; i++)
		total += counts[i];
	if (total <= 0)
		return -1;
	rank = Min(Max(p, 0.0), 1.0) * total;

	for (int i = 0; i < LAST; i++)
	{
		if (counts[i] > 0 && below + counts[i] >= rank)
		{
			int64		start = bucket_start(i);
			int64		width = bucket_start(i + 1) - start;

			return start + (int64) (width * (Max(rank - below, 0.0) / counts[i]));
		}
		below += counts[i];
	}
	return bucket_start(LAST);
}

int64
retry_histogram_percentile(const RetryHistogram *h, double p)
{
	int64		counts[RETRY_HISTOGRAM_BUCKETS];

	/* not h->total: another process may be adding */
	for (int i = 0; i < RETRY_HISTOGRAM_BUCKETS; i++)
		counts[i] = h->counts[i];
	return retry_histogram_percentile_of(counts, p);
}
