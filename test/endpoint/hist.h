/*
 * hist.h
 *		A latency histogram with a bounded relative error (about 1.6 %).
 *
 * A bench compares tails, so neither averages nor a sample will do: every
 * value is counted, in 64 buckets per power of two, in constant memory.
 */
#ifndef ENDPOINT_HIST_H
#define ENDPOINT_HIST_H

#include <stdint.h>

#define HIST_SUB		64
#define HIST_BUCKETS	(HIST_SUB * 42)

typedef struct Hist
{
	uint64_t	count;
	int64_t		max;
	int64_t		min;
	double		sum;
	uint32_t	bucket[HIST_BUCKETS];
} Hist;

extern void hist_reset(Hist *h);

/* Count one value in microseconds; a negative one (clocks differ) counts as 0. */
extern void hist_add(Hist *h, int64_t us);

/* The value at `percent` (0 to 100), 0 when nothing was counted. */
extern int64_t hist_percentile(const Hist *h, double percent);

#endif							/* ENDPOINT_HIST_H */
