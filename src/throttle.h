/*
 * throttle.h
 *		Sends less to an endpoint that says that it is too much.
 *
 * An answer like 429 that names no moment says only "less".  So the lane sends
 * half of what it sent, and half of that if it is still too much; and while
 * good answers come again it feels its way up, until it is as fast as before.
 *
 * A 503 may also be an accident of one request.  So where nearly all of the
 * last answers were good it is passed over; many of them are believed.
 *
 * A leaf: no allocation, no clock, nothing fails.  Moments are microseconds of
 * a clock that nobody sets, never negative.  One process, no locks.
 */
#ifndef RETRY_THROTTLE_H
#define RETRY_THROTTLE_H

/* No slower than one request in so long. */
#define RETRY_THROTTLE_SLOWEST_US	INT64CONST(10000000)

/* A share of good answers beside which others are accidents. */
#define RETRY_THROTTLE_GOOD			0.9

/* All zero: not slowed, nothing known. */
typedef struct RetryThrottle
{
	double		rate;			/* requests a second; 0: as many as there are */
	double		before;			/* what was sent when it began; with rate > 0 */
	int64		next_us;		/* by the rate, the next one's moment */
	int64		cut_us;			/* last cut; with rate > 0 */
	int64		calm_us;		/* last complaint or growth; with rate > 0 */
	int64		second_us;		/* begin of the second that is being counted */
	int32		sent;			/* since then */
	int32		sent_before;	/* in the second before */
	double		good;			/* of the last answers, this share did not
								 * complain */
} RetryThrottle;

/* May a request be sent now?  When not, *until_us is the moment to ask again. */
extern bool retry_throttle_gate(const RetryThrottle *throttle, int64 now_us, int64 *until_us);

/* A request is sent. */
extern void retry_throttle_started(RetryThrottle *throttle, int64 now_us);

/* One that was started was not sent after all. */
extern void retry_throttle_unsent(RetryThrottle *throttle);

/*
 * It was too much: cuts the rate to half of what was sent in the last second,
 * at most once a second.  Where that is not known (nothing was told before),
 * "guess" is taken instead, in requests a second.
 */
extern void retry_throttle_cut(RetryThrottle *throttle, double guess, int64 now_us);

/*
 * An answer that may mean that it was too much, or be an accident: cuts as well
 * unless at least RETRY_THROTTLE_GOOD of the last answers were good.
 */
extern void retry_throttle_doubt(RetryThrottle *throttle, double guess, int64 now_us);

/*
 * It was not too much: a quarter more for each second without complaint, until
 * there is twice of what was sent before it all began.
 */
extern void retry_throttle_grow(RetryThrottle *throttle, int64 now_us);

/* Does it slow nothing, as a new one? */
extern bool retry_throttle_at_rest(const RetryThrottle *throttle);

#endif							/* RETRY_THROTTLE_H */
