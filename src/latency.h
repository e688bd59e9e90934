/*
 * latency.h
 *		Latency histograms as SQL has them: arrays of counts.
 *
 * An array's subscripts are the numbers of the buckets of histogram.h, so that
 * a scene whose answers take alike stores a handful of numbers.  Arrays are
 * added up by retry.latency_sum() and read by retry.percentile().
 */
#ifndef RETRY_LATENCY_H
#define RETRY_LATENCY_H

/*
 * An array of bigint with the counts of all buckets from the first to the last
 * that is not empty, in the current memory context; false when all are empty.
 */
extern bool retry_latency_datum(const int64 *counts, Datum *value);

#endif							/* RETRY_LATENCY_H */
