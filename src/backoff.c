/*
 * backoff.c
 *		How long to wait between attempts: the arithmetic of retry.backoff.
 *
 * Retries that come in step, or too soon, keep a failing callee down; how long
 * to wait is therefore part of the configuration, and every form can spread
 * its delays.  The text form is in backoff_text.c.
 *
 * Delay n follows attempt n and is counted from the end of that attempt.  All
 * results are exact functions of the arguments, the random number included, so
 * a decision can be repeated in a test.  Nothing here overflows: delays are
 * held under 365 days before they are multiplied, and moments saturate at the
 * last one that the timestamp type can hold.
 */
#include "postgres.h"

#include "backoff.h"

#define LIMIT_US	(RETRY_BACKOFF_LIMIT_MS * 1000)

#define SECONDS(n)	((int64) (n) * 1000)
#define MINUTES(n)	SECONDS((n) * 60)
#define HOURS(n)	MINUTES((n) * 60)

/* Named lists.  Values are stored by number: these must never change. */
static const int64 easyretry_ms[] = {
	SECONDS(10), SECONDS(15), SECONDS(30), SECONDS(35), SECONDS(40),
	SECONDS(50), MINUTES(1), MINUTES(2), MINUTES(4), MINUTES(6), MINUTES(8),
	MINUTES(10), MINUTES(20), MINUTES(40), HOURS(1), HOURS(2), HOURS(3),
	HOURS(4), HOURS(5), HOURS(6), HOURS(7), HOURS(8), HOURS(9), HOURS(10),
	HOURS(11), HOURS(12)
};
static const int64 rocketmq_ms[] = {
	SECONDS(1), SECONDS(5), SECONDS(10), SECONDS(30), MINUTES(1), MINUTES(2),
	MINUTES(3), MINUTES(4), MINUTES(5), MINUTES(6), MINUTES(7), MINUTES(8),
	MINUTES(9), MINUTES(10), MINUTES(20), MINUTES(30), HOURS(1), HOURS(2)
};
static const int64 standard_webhooks_ms[] = {
	SECONDS(5), MINUTES(5), MINUTES(30), HOURS(2), HOURS(5), HOURS(10),
	HOURS(14), HOURS(20), HOURS(24)
};
static const int64 best_effort_ms[] = {
	MINUTES(1), MINUTES(5), MINUTES(10), MINUTES(30), HOURS(1), HOURS(2),
	HOURS(5), HOURS(10)
};

static const RetryLadder ladders[] = {
	{"easyretry", easyretry_ms, lengthof(easyretry_ms)},
	{"rocketmq", rocketmq_ms, lengthof(rocketmq_ms)},
	{"standard-webhooks", standard_webhooks_ms, lengthof(standard_webhooks_ms)},
	{"best-effort", best_effort_ms, lengthof(best_effort_ms)},
};

/*
 * A named list by its number, from 1; NULL if there is none.  The result is a
 * constant.
 */
const RetryLadder *
retry_backoff_ladder(int number)
{
	return number >= 1 && number <= lengthof(ladders) ? &ladders[number - 1] :
		NULL;
}

/*
 * The first delay in milliseconds, from which decorrelated jitter grows; 0 for
 * cron.
 */
int64
retry_backoff_first_ms(const RetryBackoff *b)
{
	if (b->kind == RETRY_BACKOFF_LEVELS)
		return b->u.levels_ms[0];
	if (b->kind == RETRY_BACKOFF_LADDER)
		return retry_backoff_ladder(b->ladder)->levels_ms[0];
	return b->base_ms;
}

/* A second, independent number out of one (the finalizer of splitmix64). */
static uint64
another_random(uint64 x)
{
	x += UINT64CONST(0x9E3779B97F4A7C15);
	x = (x ^ (x >> 30)) * UINT64CONST(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64CONST(0x94D049BB133111EB);
	return x ^ (x >> 31);
}

/*
 * A number in [low, high], both included: the upper half of the product of the
 * random number and their count, which needs neither a division nor a 128-bit
 * type.
 */
static int64
draw(uint64 random, int64 low, int64 high)
{
	uint64		n = (uint64) (high - low) + 1;
	uint64		n_hi = n >> 32;
	uint64		n_lo = n & 0xFFFFFFFF;
	uint64		r_hi = random >> 32;
	uint64		r_lo = random & 0xFFFFFFFF;
	uint64		mid = r_hi * n_lo + ((r_lo * n_lo) >> 32);
	uint64		mid2 = r_lo * n_hi + (mid & 0xFFFFFFFF);

	return low + (int64) (r_hi * n_hi + (mid >> 32) + (mid2 >> 32));
}

/* base * factor^(n-1), at most max; in double, where overflow is infinity. */
static int64
exponential_us(const RetryBackoff *b, int32 n)
{
	double		factor = b->factor_milli / 1000.0;
	double		delay = (double) b->base_ms * 1000.0;
	double		max = (double) b->max_ms * 1000.0;

	for (uint32 power = (uint32) n - 1; power > 0 && delay < max; power >>= 1)
	{
		if (power & 1)
			delay *= factor;
		factor *= factor;
	}
	return delay < max ? (int64) (delay + 0.5) : b->max_ms * 1000;
}

static int64
level_us(const RetryBackoff *b, int32 n)
{
	if (b->kind == RETRY_BACKOFF_LADDER)
	{
		const RetryLadder *ladder = retry_backoff_ladder(b->ladder);

		return ladder->levels_ms[Min(n, ladder->nlevels) - 1] * 1000;
	}
	return b->u.levels_ms[Min(n, b->nlevels) - 1] * 1000;
}

/* The delay after attempt n before jitter; for random, the middle. */
static int64
plain_us(const RetryBackoff *b, int32 n)
{
	switch (b->kind)
	{
		case RETRY_BACKOFF_LINEAR:
			return n > b->max_ms / b->base_ms ? b->max_ms * 1000 :
				b->base_ms * n * 1000;
		case RETRY_BACKOFF_EXPONENTIAL:
			return exponential_us(b, n);
		case RETRY_BACKOFF_LEVELS:
		case RETRY_BACKOFF_LADDER:
			return level_us(b, n);
		case RETRY_BACKOFF_RANDOM:
			return (b->base_ms + b->max_ms) * 1000 / 2;
		default:
			return b->base_ms * 1000;
	}
}

/*
 * How far decorrelated jitter may go: the longest delay that the form can have
 * by itself, and three times its only one for fixed.
 */
static int64
decorrelated_cap_us(const RetryBackoff *b)
{
	int64		cap = 0;

	switch (b->kind)
	{
		case RETRY_BACKOFF_LEVELS:
		case RETRY_BACKOFF_LADDER:
			for (int n = 1; n <= RETRY_BACKOFF_MAX_LEVELS; n++)
				cap = Max(cap, level_us(b, n));
			return cap;
		case RETRY_BACKOFF_FIXED:
			return Min(3 * b->base_ms * 1000, LIMIT_US);
		default:
			return b->max_ms * 1000;
	}
}

/* What jitter makes of a delay: drawn from [low, high], then cut at cap. */
typedef struct Range
{
	int64		low;
	int64		high;
	int64		cap;
} Range;

static Range
jitter_range(const RetryBackoff *b, int64 plain, int64 previous)
{
	Range		r = {plain, plain, PG_INT64_MAX};
	int64		share;

	switch (b->jitter)
	{
		case RETRY_JITTER_FULL:
			r.low = 0;
			break;
		case RETRY_JITTER_EQUAL:
			r.low = plain / 2;
			break;
		case RETRY_JITTER_DECORRELATED:
			r.low = retry_backoff_first_ms(b) * 1000;
			if (previous <= 0)
				previous = r.low;
			r.high = Max(3 * Min(previous, LIMIT_US), r.low);
			r.cap = decorrelated_cap_us(b);
			break;
		case RETRY_JITTER_PERCENT:
			share = plain * b->percent / 100;
			r.low = plain - share;
			r.high = plain + share;

			/*
			 * A max is a promise, but many tasks cut to it would come at
			 * once: narrow the range instead.
			 */
			if (b->kind == RETRY_BACKOFF_LINEAR ||
				b->kind == RETRY_BACKOFF_EXPONENTIAL)
				r.high = Min(r.high, b->max_ms * 1000);
			break;
		default:
			break;
	}
	return r;
}

/*
 * The delay in microseconds between the end of attempt attempt_no, from 1 (what
 * is less counts as 1), and the next attempt.
 *
 * previous_us is the delay before that attempt, 0 if there was none; only
 * decorrelated jitter looks at it.  random is 64 random bits.  A cron form has
 * no delay of its own: it gives 0, use retry_backoff_next.
 */
int64
retry_backoff_delay_us(const RetryBackoff *b, int32 attempt_no,
					   int64 previous_us, uint64 random)
{
	int64		plain;
	Range		r;

	if (b->kind == RETRY_BACKOFF_CRON)
		return 0;
	plain = plain_us(b, Max(attempt_no, 1));
	if (b->kind == RETRY_BACKOFF_RANDOM)
		plain = draw(another_random(random), b->base_ms * 1000,
					 b->max_ms * 1000);
	r = jitter_range(b, plain, previous_us);
	return Min(draw(random, r.low, r.high), r.cap);
}

static TimestampTz
add_saturating(TimestampTz at, int64 delay_us)
{
	return at >= END_TIMESTAMP - 1 - delay_us ? END_TIMESTAMP - 1 :
		at + delay_us;
}

/*
 * The next occurrence of a cron form, and how much jitter may add to it: up to
 * the following occurrence for full (and decorrelated: a schedule has nothing
 * to grow), half of that for equal, N% of it for a percentage.
 */
static TimestampTz
next_occurrence(const RetryBackoff *b, TimestampTz after,
				const RetryZone *zone, int64 *spread_us)
{
	const RetryCron *cron = &b->u.cron.schedule;
	TimestampTz next;
	TimestampTz following;
	int			percent = 100;

	*spread_us = 0;
	if (!retry_cron_next(cron, after, zone, &next))
		return END_TIMESTAMP - 1;
	if (b->jitter == RETRY_JITTER_NONE ||
		!retry_cron_next(cron, next, zone, &following))
		return next;
	if (b->jitter == RETRY_JITTER_EQUAL)
		percent = 50;
	else if (b->jitter == RETRY_JITTER_PERCENT)
		percent = b->percent;
	*spread_us = Min((following - next) * percent / 100, following - next - 1);
	return next;
}

/*
 * The moment of the next attempt after attempt attempt_no ended at ended_at,
 * for every form; the other arguments as for retry_backoff_delay_us.  zone is
 * the one that retry_backoff_zone_name names; NULL means UTC, and only cron
 * looks at it.
 *
 * The result saturates at the last timestamp.  An infinite ended_at is given
 * back.
 */
TimestampTz
retry_backoff_next(const RetryBackoff *b, int32 attempt_no,
				   TimestampTz ended_at, int64 previous_us,
				   uint64 random, const RetryZone *zone)
{
	TimestampTz next;
	int64		spread;

	if (TIMESTAMP_NOT_FINITE(ended_at))
		return ended_at;
	if (b->kind != RETRY_BACKOFF_CRON)
		return add_saturating(ended_at,
							  retry_backoff_delay_us(b, attempt_no,
													 previous_us, random));
	next = next_occurrence(b, ended_at, zone, &spread);
	return add_saturating(next, draw(random, 0, spread));
}

/*
 * Between which moments retry_backoff_next can lie, over all random numbers,
 * and where it would be without jitter (random: the middle of its range),
 * which is moved to the nearest bound if jitter excludes it.
 */
void
retry_backoff_window(const RetryBackoff *b, int32 attempt_no,
					 TimestampTz ended_at, int64 previous_us,
					 const RetryZone *zone, RetryWindow *window)
{
	int64		plain;
	int64		low;
	int64		high;
	Range		r;

	window->at = window->earliest = window->latest = ended_at;
	if (TIMESTAMP_NOT_FINITE(ended_at))
		return;
	if (b->kind == RETRY_BACKOFF_CRON)
	{
		window->at = next_occurrence(b, ended_at, zone, &high);
		window->earliest = window->at;
		window->latest = add_saturating(window->at, high);
		return;
	}
	plain = plain_us(b, Max(attempt_no, 1));
	if (b->kind == RETRY_BACKOFF_RANDOM)
	{
		r = jitter_range(b, b->base_ms * 1000, previous_us);
		low = Min(r.low, r.cap);
		r = jitter_range(b, b->max_ms * 1000, previous_us);
		high = Min(r.high, r.cap);
	}
	else
	{
		r = jitter_range(b, plain, previous_us);
		low = Min(r.low, r.cap);
		high = Min(r.high, r.cap);
	}
	window->at = add_saturating(ended_at, Min(Max(plain, low), high));
	window->earliest = add_saturating(ended_at, low);
	window->latest = add_saturating(ended_at, high);
}
