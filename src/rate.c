/*
 * rate.c
 *		Rates: their text form, and the arithmetic of a bucket.
 *
 * The reader takes nothing that it does not understand entirely, and tells
 * which part that was.  The writer takes the shortest unit of time in which
 * the number is whole and leaves a default burst out, so that equal rates have
 * equal texts and equal bytes.
 *
 * Buckets count in ticks of 1/1024 microsecond: fine enough that the rounding
 * of a step, which is up, costs less than a thousandth of the highest rate and
 * nothing that could be seen of a usual one, and coarse enough that 63 bits
 * last for centuries.
 */
#include "postgres.h"

#include "rate.h"

/* No burst takes longer to come together, so that no sum of ticks overflows. */
#define MAX_BURST_SECONDS	(INT64CONST(100) * 365 * SECS_PER_DAY)

/*
 * Who takes late must not lose what came meanwhile, or the rate is not reached.
 * So a burst is never less than this brings, and a sender may be late by this,
 * or by half a step, without a loss; but not at rates below one a second: there
 * it would be lost in the noise, and some endpoints count strictly.
 */
#define SMALLEST_BURST_US	INT64CONST(20000)
#define LATENESS			(INT64CONST(50000) * RETRY_TICKS_PER_US)

#define FORM_HINT \
	"Write a number of requests, a slash and one of the units s, m, h, d, then optionally a burst, such as 100/s or 5000/m burst 200."
#define COUNT_HINT \
	"A rate is at least 1/d and at most 1000000/s."
#define BURST_HINT \
	"A burst is a whole number from 1 to 10000000: so many requests may be made at once after a pause."

/* Units of time, the shortest first. */
static const char unit_names[] = "smhd";
static const int32 unit_seconds[] = {1, SECS_PER_MINUTE, SECS_PER_HOUR, SECS_PER_DAY};

/* ---------------------------------------------------------------- reading and writing */

typedef struct Parser
{
	const char *text;
	int			at;				/* the next byte */
	int			part;			/* where the last token began */
	RetryParseError *err;
} Parser;

/* Comes to the next token; false at the end of the text. */
static bool
next_token(Parser *p)
{
	while (retry_is_space(p->text[p->at]))
		p->at++;
	p->part = p->at;
	return p->text[p->at] != '\0';
}

/* Refuses what was read since p->part, and the rest of its word. */
static bool
refuse(Parser *p, const char *reason, const char *hint)
{
	while (p->text[p->at] != '\0' && !retry_is_space(p->text[p->at]))
		p->at++;
	return retry_fail_part(p->err, p->part, p->at - p->part, reason, hint);
}

/* Refuses the text for what does not follow its last word. */
static bool
refuse_missing(Parser *p, const char *reason, const char *hint)
{
	int			end = p->part;

	while (end > 0 && retry_is_space(p->text[end - 1]))
		end--;
	p->at = p->part = end;
	while (p->part > 0 && !retry_is_space(p->text[p->part - 1]))
		p->part--;
	return retry_fail_part(p->err, p->part, end - p->part, reason, hint);
}

/* Reads digits; what is more than any bound comes back as one more than all. */
static int64
digits(Parser *p)
{
	int64		value = 0;

	for (; retry_is_digit(p->text[p->at]); p->at++)
		value = Min(value * 10 + (p->text[p->at] - '0'), (int64) RETRY_RATE_MAX_COUNT + 1);
	return value;
}

/* Is this byte part of a word?  Every byte of a character that is not ASCII is. */
static bool
is_word(char c)
{
	return retry_is_letter(c) || retry_is_digit(c) || c == '_' || (c & 0x80) != 0;
}

/* Reads a word, and says whether it is this one (in lower case). */
static bool
read_word(Parser *p, const char *keyword)
{
	int			len = 0;
	bool		same = true;

	for (; is_word(p->text[p->at]); p->at++)
	{
		same = same && keyword[len] == retry_lower(p->text[p->at]);
		len += same;
	}
	return same && keyword[len] == '\0';
}

/* Reads "100/s". */
static bool
parse_count(Parser *p, RetryRate *rate)
{
	int			start;
	int64		count;

	if (!next_token(p))
		return retry_fail_part(p->err, 0, 0, "is empty", FORM_HINT);
	start = p->part;
	if (!retry_is_digit(p->text[p->at]))
		return refuse(p, "is not a number of requests", FORM_HINT);
	count = digits(p);
	if (is_word(p->text[p->at]) || p->text[p->at] == '.' || p->text[p->at] == ',')
		return refuse(p, "is not a whole number of requests", FORM_HINT);
	if (!next_token(p))
		return refuse_missing(p, "must be followed by a slash and a unit of time", FORM_HINT);
	if (p->text[p->at] != '/')
		return refuse(p, "is not expected here: a slash and a unit of time must follow the number", FORM_HINT);
	p->at++;
	if (!next_token(p))
		return refuse_missing(p, "must be followed by a unit of time", FORM_HINT);

	rate->seconds = 0;
	for (int i = 0; i < lengthof(unit_seconds); i++)
	{
		if (retry_lower(p->text[p->at]) == unit_names[i])
			rate->seconds = unit_seconds[i];
	}
	if (rate->seconds != 0)
		p->at++;
	if (rate->seconds == 0 || is_word(p->text[p->at]))
		return refuse(p, "is not a unit of time", FORM_HINT);
	p->part = start;
	if (count < 1)
		return refuse(p, "is less than one request", COUNT_HINT);
	if (count > RETRY_RATE_MAX_COUNT || count > (int64) RETRY_RATE_MAX_PER_SECOND * rate->seconds)
		return refuse(p, "is more than can be kept to", COUNT_HINT);
	rate->count = (int32) count;
	return true;
}

/* In the shortest unit of time in which the number is whole. */
static void
shorten_unit(RetryRate *rate)
{
	for (int i = 0; i < lengthof(unit_seconds); i++)
	{
		int32		times = rate->seconds / unit_seconds[i];

		if (times > 1 && rate->count % times == 0)
		{
			rate->count /= times;
			rate->seconds = unit_seconds[i];
		}
	}
}

/* What the rate brings in a part of a second, at least 1. */
static int64
brought(const RetryRate *rate, int64 us)
{
	return Max(1, rate->count * us / (rate->seconds * USECS_PER_SEC));
}

static int32
default_burst(const RetryRate *rate)
{
	return (int32) brought(rate, USECS_PER_SEC / 10);
}

bool
retry_rate_parse(const char *text, RetryRate *rate, RetryParseError *err)
{
	Parser		p = {.text = text,.err = err};
	int64		burst;

	if (!parse_count(&p, rate))
		return false;
	shorten_unit(rate);
	rate->burst = default_burst(rate);
	if (!next_token(&p))
		return true;
	if (!read_word(&p, "burst"))
		return refuse(&p, "is not expected here", FORM_HINT);
	if (!next_token(&p))
		return refuse_missing(&p, "must be followed by a number", BURST_HINT);
	if (!retry_is_digit(p.text[p.at]))
		return refuse(&p, "is not a burst", BURST_HINT);
	burst = digits(&p);
	if (p.text[p.at] != '\0' && !retry_is_space(p.text[p.at]))
		return refuse(&p, "is not a burst", BURST_HINT);
	if (burst < 1 || burst > RETRY_RATE_MAX_BURST)
		return refuse(&p, "is out of range", BURST_HINT);
	if (burst * rate->seconds / rate->count > MAX_BURST_SECONDS)
		return refuse(&p, "is more than the rate brings in a hundred years", BURST_HINT);
	rate->burst = (int32) burst;
	if (next_token(&p))
		return refuse(&p, "is not expected here", FORM_HINT);
	return true;
}

int
retry_rate_format(const RetryRate *rate, char *buf, Size size)
{
	char		unit = '?';

	for (int i = 0; i < lengthof(unit_seconds); i++)
	{
		if (unit_seconds[i] == rate->seconds)
			unit = unit_names[i];
	}
	if (rate->burst == default_burst(rate))
		return snprintf(buf, size, "%d/%c", rate->count, unit);
	return snprintf(buf, size, "%d/%c burst %d", rate->count, unit, rate->burst);
}

bool
retry_rate_valid(const RetryRate *rate)
{
	bool		known = false;

	for (int i = 0; i < lengthof(unit_seconds); i++)
		known = known || rate->seconds == unit_seconds[i];
	return known && rate->count >= 1 && rate->count <= RETRY_RATE_MAX_COUNT &&
		rate->count <= (int64) RETRY_RATE_MAX_PER_SECOND * rate->seconds &&
		rate->burst >= 1 && rate->burst <= RETRY_RATE_MAX_BURST &&
		(int64) rate->burst * rate->seconds / rate->count <= MAX_BURST_SECONDS;
}

/* ---------------------------------------------------------------- buckets */

void
retry_rate_pace(const RetryRate *rate, RetryPace *pace)
{
	int64		ticks = rate->seconds * USECS_PER_SEC * RETRY_TICKS_PER_US;
	int64		burst = Max(rate->burst, brought(rate, SMALLEST_BURST_US));

	pace->step = (ticks + rate->count - 1) / rate->count;
	pace->slack = (burst - 1) * pace->step;
	if (pace->step < USECS_PER_SEC * RETRY_TICKS_PER_US)
		pace->slack += Min(pace->step / 2, LATENESS);
}

int64
retry_bucket_full(const RetryPace *pace, int64 now_us)
{
	return now_us * RETRY_TICKS_PER_US - pace->slack;
}

int64
retry_bucket_fresh(const RetryPace *pace, int64 now_us)
{
	int64		behind = USECS_PER_SEC / 10 * RETRY_TICKS_PER_US - pace->step;

	return now_us * RETRY_TICKS_PER_US - Min(pace->slack, Max(behind, 0));
}

bool
retry_bucket_take(const RetryPace *pace, int64 *bucket, int64 now_us)
{
	if (*bucket > now_us * RETRY_TICKS_PER_US)
		return false;
	*bucket = Max(*bucket, retry_bucket_full(pace, now_us)) + pace->step;
	return true;
}

int64
retry_bucket_take_many(const RetryPace *pace, int64 *bucket, int64 n, int64 now_us)
{
	int64		now = now_us * RETRY_TICKS_PER_US;
	int64		at = Max(*bucket, retry_bucket_full(pace, now_us));
	int64		last;			/* from "at" to where the last of them is
								 * taken */

	if (n - 1 > pace->slack / pace->step)
		return -1;
	last = (n - 1) * pace->step;
	if (at > now - last)
		return Max(1, (at - (now - last) + RETRY_TICKS_PER_US - 1) / RETRY_TICKS_PER_US);
	*bucket = at + n * pace->step;
	return 0;
}

int64
retry_bucket_left(const RetryPace *pace, int64 bucket, int64 now_us)
{
	int64		now = now_us * RETRY_TICKS_PER_US;
	int64		at = Max(bucket, retry_bucket_full(pace, now_us));

	return at > now ? 0 : (now - at) / pace->step + 1;
}

int64
retry_bucket_when(int64 bucket)
{
	return bucket <= 0 ? 0 : (bucket + RETRY_TICKS_PER_US - 1) / RETRY_TICKS_PER_US;
}

int64
retry_bucket_reserve(const RetryPace *pace, int64 *bucket, int64 now_us)
{
	int64		at = Max(*bucket, retry_bucket_full(pace, now_us));

	*bucket = at + pace->step;
	return Max(retry_bucket_when(at), now_us);
}

void
retry_bucket_give_back(const RetryPace *pace, int64 *bucket)
{
	*bucket -= pace->step;
}

int64
retry_bucket_convert(int64 bucket, const RetryPace *from, const RetryPace *to, int64 now_us)
{
	int64		now = now_us * RETRY_TICKS_PER_US;

	/*
	 * in steps: how far it lies behind, or how much of the next one is
	 * missing
	 */
	double		level = (double) (now - Max(bucket, now - from->slack)) / from->step;

	level = Max(level, -1.0) * to->step;
	return level < to->slack ? now - (int64) level : now - to->slack;
}
