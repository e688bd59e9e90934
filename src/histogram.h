/*
 * histogram.h
 *		How long the requests of a lane took lately, in 160 bytes.
 *
 * Buckets that grow by a third of an octave, from a quarter of a millisecond to
 * more than an hour, so that a percentile is right to within a quarter of its
 * value wherever it lies.  The counters are halved each minute: the last
 * minutes count most.  Plain data that may lie in shared memory: one process
 * writes, others may read it meanwhile.
 *
 * A leaf: no clock, no memory, no errors.
 */
#ifndef RETRY_HISTOGRAM_H
#define RETRY_HISTOGRAM_H

#define RETRY_HISTOGRAM_BUCKETS	74

/* All zero: empty. */
typedef struct RetryHistogram
{
	uint16		counts[RETRY_HISTOGRAM_BUCKETS];
	uint32		total;			/* the sum of counts */
	int64		halved_at;		/* microseconds of a monotonic clock */
} RetryHistogram;

/*
 * Counts one request that took latency_us microseconds and ended at now_us, of
 * a monotonic clock.  A time that is negative counts as 0.
 */
extern void retry_histogram_add(RetryHistogram *h, int64 latency_us, int64 now_us);

/*
 * Forgets what the time that has passed makes it forget.  Adding does that too;
 * this is for a histogram to which nothing is added any more.
 */
extern void retry_histogram_forget(RetryHistogram *h, int64 now_us);

/* How many requests count now: of those long ago only a part. */
extern uint32 retry_histogram_count(const RetryHistogram *h);

/*
 * The time, in microseconds, within which the share p (0 to 1) of the requests
 * ended, interpolated within a bucket; -1 when it is empty.  What lies beyond
 * the last bucket's beginning counts as just that.
 */
extern int64 retry_histogram_percentile(const RetryHistogram *h, double p);

/* The bucket that a time in microseconds falls into. */
extern int	retry_histogram_bucket(int64 latency_us);

/* The same percentile of counters that nobody halves, one for each bucket. */
extern int64 retry_histogram_percentile_of(const int64 *counts, double p);

#endif							/* RETRY_HISTOGRAM_H */
