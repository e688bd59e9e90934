/*
 * hist.c
 *		A latency histogram with a bounded relative error (about 1.6 %).
 *
 * Values below 64 us are exact; above, the six bits after the leading one
 * choose the bucket. The largest value is kept exactly, because the maximum
 * is what a stalled dispatcher shows up in.
 */
#include "hist.h"

#include <string.h>

void
hist_reset(Hist *h)
{
	memset(h, 0, sizeof(*h));
}

static int
bucket_of(uint64_t v)
{
	int			shift;
	int			index;

	if (v < HIST_SUB)
		return (int) v;
	shift = 63 - __builtin_clzll(v) - 6;
	index = (shift + 1) * HIST_SUB + (int) ((v >> shift) - HIST_SUB);
	return index < HIST_BUCKETS ? index : HIST_BUCKETS - 1;
}

/* The middle of a bucket. */
static int64_t
value_of(int index)
{
	int			shift;

	if (index < HIST_SUB)
		return index;
	shift = index / HIST_SUB - 1;
	return ((int64_t) (index % HIST_SUB + HIST_SUB) << shift) + (((int64_t) 1 << shift) >> 1);
}

void
hist_add(Hist *h, int64_t us)
{
	if (us < 0)
		us = 0;
	if (h->count == 0 || us < h->min)
		h->min = us;
	if (us > h->max)
		h->max = us;
	h->count++;
	h->sum += us;
	h->bucket[bucket_of(us)]++;
}

int64_t
hist_percentile(const Hist *h, double percent)
{
	uint64_t	target = (uint64_t) (h->count * percent / 100.0 + 0.5);
	uint64_t	seen = 0;
	int			i;

	if (h->count == 0)
		return 0;
	if (target < 1)
		target = 1;
	for (i = 0; i < HIST_BUCKETS; i++)
	{
		seen += h->bucket[i];
		if (seen >= target)
			return value_of(i) < h->max ? value_of(i) : h->max;
	}
	return h->max;
}
