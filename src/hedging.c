/*
 * hedging.c
 *		When a request is worth sending a second time, and which answer counts.
 *
 * Apart from hedge.c, which does it, so that the rules can be read and tested
 * by themselves: after how long, and what becomes of two ends of one attempt in
 * whatever order they come.
 */
#include "postgres.h"

#include "hedging.h"

/* Fewer successes than this say nothing of the slowest twentieth. */
#define ENOUGH		20
#define SHARE		0.95

/* An endpoint so quick that the network's own hiccups are what is slow. */
#define LEAST_US	5000

int64
retry_hedging_after(const RetryHistogram *successes, int64 timeout_us)
{
	int64		after;

	if (successes == NULL || retry_histogram_count(successes) < ENOUGH)
		return -1;
	after = Max(retry_histogram_percentile(successes, SHARE), LEAST_US);
	return after < timeout_us ? after : -1;
}

/* Is it a word of the endpoint on the request, and not on its own state? */
bool
retry_hedging_settles(const RetryHedgeEnd *end)
{
	return end->complete && end->http_status < 500 &&
		end->http_status != 408 && end->http_status != 429;
}

bool
retry_hedging_later_counts(const RetryHedgeEnd *earlier, const RetryHedgeEnd *later)
{
	if (retry_hedging_settles(later))
		return true;

	/* an answer says more than none; of two of a kind the first */
	return later->http_status > 0 && earlier->http_status == 0;
}
