/*
 * test_rate.c
 *		Unit test of the rate leaf: text form, and buckets in a simulated clock.
 *
 * Texts with their canonical form or their offending part.  Then senders that
 * wake up late, coarsely and in numbers take from one bucket, and what they
 * were given is counted over every window; bursts, pauses, reservations,
 * changes of the rate, and the ends of all ranges.
 */
#include "postgres.h"

#include "../../src/rate.h"
#include "check.h"

#define SEC			INT64CONST(1000000)
#define START		(INT64CONST(1000) * SEC)	/* of the simulated clock */
#define MAX_SENT	2000000

static int64 sent_at[MAX_SENT];
static int	nsent;

static RetryRate
make(const char *text)
{
	RetryRate	rate = {0, 0, 0};
	RetryParseError err;

	if (!retry_rate_parse(text, &rate, &err))
		CHECK(false, "\"%s\" is accepted", text);
	return rate;
}

static RetryPace
pace_of(const char *text)
{
	RetryRate	rate = make(text);
	RetryPace	pace;

	retry_rate_pace(&rate, &pace);
	return pace;
}

/* ---------------------------------------------------------------- text */

static void
check_accepts(const char *text, const char *want)
{
	RetryRate	a;
	RetryRate	b;
	RetryParseError err = {0, 0, "", ""};
	char		buf[RETRY_RATE_TEXT_SIZE];

	memset(&a, 0x55, sizeof(a));
	memset(&b, 0xAA, sizeof(b));
	if (!CHECK(retry_rate_parse(text, &a, &err), "\"%s\" is accepted", text))
	{
		printf("# \"%.*s\" %s\n", err.part_len, text + err.part_at, err.reason);
		return;
	}
	retry_rate_format(&a, buf, sizeof(buf));
	CHECK_STR(buf, want, text);
	CHECK(retry_rate_parse(buf, &b, &err) && memcmp(&a, &b, sizeof(a)) == 0 &&
		  retry_rate_valid(&a), "\"%s\" reads back to the same value", buf);
}

static void
check_refuses(const char *text, const char *part)
{
	RetryRate	rate;
	RetryParseError err = {-1, -1, NULL, NULL};
	char		buf[200];

	if (!CHECK(!retry_rate_parse(text, &rate, &err), "\"%s\" is refused", text))
		return;
	snprintf(buf, sizeof(buf), "%.*s", err.part_len, text + err.part_at);
	CHECK_STR(buf, part, text);
}

static void
test_text(void)
{
	RetryRate	rate = {1, 2, 3};

	check_accepts("100/s", "100/s");
	check_accepts("5000/m burst 200", "5000/m burst 200");
	check_accepts("10/h", "10/h");
	check_accepts("1000/d", "1000/d");
	check_accepts("  7 / S  BURST  3 ", "7/s burst 3");
	check_accepts("60/m", "1/s");
	check_accepts("1440/d", "1/m");
	check_accepts("86400/d", "1/s");
	check_accepts("48/d", "2/h");
	check_accepts("25/d", "25/d");
	check_accepts("1000000/s", "1000000/s");
	check_accepts("1000000000/h", "1000000000/h");
	check_accepts("100/s burst 10", "100/s");
	check_accepts("100/s burst 11", "100/s burst 11");
	check_accepts("5/m burst 1", "5/m");
	check_accepts("1/d burst 36500", "1/d burst 36500");
	check_accepts("1000/d burst 10000000", "1000/d burst 10000000");
	check_accepts("007/s", "7/s");

	check_refuses("", "");
	check_refuses("  ", "");
	check_refuses("fast", "fast");
	check_refuses("-1/s", "-1/s");
	check_refuses("1.5/s", "1.5/s");
	check_refuses("1e3/s", "1e3/s");
	check_refuses("1,000/s", "1,000/s");
	check_refuses("100", "100");
	check_refuses("100 ", "100");
	check_refuses("100 per s", "per");
	check_refuses("100/", "100/");
	check_refuses("100 / ", "/");
	check_refuses("100/x", "x");
	check_refuses("100/sec", "sec");
	check_refuses("100/ms", "ms");
	check_refuses("0/s", "0/s");
	check_refuses("1000001/s", "1000001/s");
	check_refuses("1000000001/d", "1000000001/d");
	check_refuses("99999999999999999999999/d", "99999999999999999999999/d");
	check_refuses("5/s 3", "3");
	check_refuses("5/s bursts 3", "bursts");
	check_refuses("5/s burst", "burst");
	check_refuses("5/s burst many", "many");
	check_refuses("5/s burst 0", "0");
	check_refuses("5/s burst 10000001", "10000001");
	check_refuses("1/d burst 36501", "36501");
	check_refuses("5/s burst 3x", "3x");
	check_refuses("5/s burst 3 burst 3", "burst");
	check_refuses("5/s;", ";");
	check_refuses("5/\xc3\xa9t\xc3\xa9", "\xc3\xa9t\xc3\xa9");

	CHECK(!retry_rate_valid(&rate), "a unit that there is not is not valid");
}

/* ---------------------------------------------------------------- counts */

static void
note(int64 at)
{
	if (nsent < MAX_SENT)
		sent_at[nsent++] = at;
}

/* Fewest and most sent in any window of that length, the run's ends apart. */
static void
count_windows(int64 length, int64 from, int64 to, int *fewest, int *most)
{
	int			first = 0;
	int			last = 0;

	*fewest = PG_INT32_MAX;
	*most = 0;
	for (int64 at = from; at + length <= to; at += length / 97)
	{
		while (first < nsent && sent_at[first] < at)
			first++;
		while (last < nsent && sent_at[last] < at + length)
			last++;
		*fewest = Min(*fewest, last - first);
		*most = Max(*most, last - first);
	}
}

/*
 * One sender that always has more: it takes all it can get, then sleeps until
 * the moment it is told, and wakes up late: at the next grain, and by as much
 * as the jitter more.
 */
static void
run_sender(const RetryPace *pace, int64 bucket, int64 from, int64 to, int64 grain, int64 jitter)
{
	int64		now = from;

	while (now < to)
	{
		while (retry_bucket_take(pace, &bucket, now))
			note(now);
		now = Max(retry_bucket_when(bucket), now + 1);
		now = (now + grain - 1) / grain * grain;
		now += jitter > 0 ? check_random() % jitter : 0;
	}
}

static void
check_precise(const char *text, double per_second, int64 grain, int64 jitter)
{
	RetryPace	pace = pace_of(text);
	int64		length = 10 * SEC;
	int64		to = START + 60 * SEC;
	int			fewest;
	int			most;

	nsent = 0;
	run_sender(&pace, retry_bucket_full(&pace, START), START, to, grain, jitter);
	count_windows(length, START, to, &fewest, &most);
	if (!CHECK(fewest >= Min(per_second * 9.8, per_second * 10 - 1) && most <= Max(per_second * 10.2, per_second * 10 + 1),
			   "%s is within 2 %% over any 10 s, with a grain of " INT64_FORMAT " us and a jitter of " INT64_FORMAT " us",
			   text, grain, jitter))
		printf("# %d to %d in 10 s\n", fewest, most);
}

/* Many senders, each with a reserved moment, are served in turn and none is lost. */
static void
check_reserving(const char *text, double per_second, int senders, int64 jitter)
{
	RetryPace	pace = pace_of(text);
	int64		bucket = retry_bucket_full(&pace, START);
	int64	   *turn = calloc(senders, sizeof(int64));
	int		   *got = calloc(senders, sizeof(int));
	int64		now = START;
	int64		to = START + 40 * SEC;
	int			fewest;
	int			most;
	int			least = PG_INT32_MAX;
	int			greatest = 0;
	int64		last = 0;
	bool		ordered = true;

	nsent = 0;
	for (int i = 0; i < senders; i++)
	{
		turn[i] = retry_bucket_reserve(&pace, &bucket, now);
		ordered = ordered && turn[i] >= last && turn[i] >= now;
		last = turn[i];
	}
	for (; now < to; now += 1000 + (jitter > 0 ? check_random() % jitter : 0))
	{
		for (int i = 0; i < senders; i++)
		{
			while (turn[i] <= now)
			{
				note(now);
				got[i] += now >= START + 20 * SEC;
				turn[i] = retry_bucket_reserve(&pace, &bucket, now);
			}
		}
	}
	count_windows(10 * SEC, START, to, &fewest, &most);
	CHECK(ordered, "%s: reserved moments are in the order in which they were asked for", text);
	if (!CHECK(fewest >= Min(per_second * 9.8, per_second * 10 - 1) && most <= Max(per_second * 10.2, per_second * 10 + 1),
			   "%s: %d senders with reserved moments are within 2 %% over any 10 s", text, senders))
		printf("# %d to %d in 10 s\n", fewest, most);
	for (int i = 0; i < senders; i++)
	{
		least = Min(least, got[i]);
		greatest = Max(greatest, got[i]);
	}
	CHECK(senders < 7 || greatest - least <= 1 + greatest / 10, "%s: they are served equally (%d to %d)", text, least, greatest);
	free(turn);
	free(got);
}

static void
test_precision(void)
{
	const int64 grains[] = {1, 1000, 10000, 30000};

	for (int i = 0; i < lengthof(grains); i++)
	{
		check_precise("100/s", 100, grains[i], 0);
		check_precise("100/s", 100, grains[i], 20000);
		check_precise("7/s", 7.0, grains[i], 20000);
		check_precise("333/s", 333, grains[i], 30000);
		check_precise("5000/s", 5000, grains[i], 30000);
		check_precise("300000/m", 5000, grains[i], 40000);
		check_precise("30000/s", 30000, grains[i], 0);
		check_precise("3/s", 3, grains[i], 10000);
	}
	check_precise("100/s burst 1", 100, 1000, 5000);
	check_precise("5000/s burst 1", 5000, 1000, 5000);
	check_precise("100/s burst 12", 100, 1000, 50000);
	check_reserving("100/s", 100, 1000, 3000);
	check_reserving("5000/s", 5000, 1000, 3000);
	check_reserving("5000/s", 5000, 3, 3000);
	check_reserving("50/s burst 1", 50, 7, 3000);
}

/* No drift: what a year of taking on time brings is what was asked for. */
static void
test_drift(void)
{
	RetryPace	pace = pace_of("7/s");
	int64		now = START;
	int64		bucket = retry_bucket_full(&pace, now);
	int64		taken = 0;

	for (; now < START + 30 * USECS_PER_DAY; now = retry_bucket_when(bucket))
		taken += retry_bucket_take(&pace, &bucket, now);
	CHECK(taken >= INT64CONST(7) * 30 * SECS_PER_DAY - 7 && taken <= INT64CONST(7) * 30 * SECS_PER_DAY + 1,
		  "7/s over thirty days is exact (" INT64_FORMAT ")", taken);

	pace = pace_of("700001/s");
	CHECK(pace.step >= 1024 && pace.step * 700001.0 >= 1024e6 && pace.step * 700001.0 < 1.001 * 1024e6,
		  "a step is rounded up, by less than a thousandth at the highest rates");
	CHECK_INT(pace_of("1000000/s").step, 1024, "the highest rate is exact");
}

/* ---------------------------------------------------------------- bursts */

static int
take_all(const RetryPace *pace, int64 *bucket, int64 now)
{
	int			n = 0;

	while (n < 2 * RETRY_RATE_MAX_BURST && retry_bucket_take(pace, bucket, now))
		n++;
	return n;
}

static void
test_burst(void)
{
	RetryPace	pace = pace_of("10/s burst 25");
	int64		bucket = retry_bucket_full(&pace, START);

	CHECK_INT(take_all(&pace, &bucket, START), 25, "a full bucket gives its burst at once");
	CHECK_INT(retry_bucket_when(bucket), START + SEC / 20, "and tells the next moment");
	CHECK_INT(take_all(&pace, &bucket, START + SEC / 20 - 1), 0, "before which there is nothing");
	CHECK_INT(take_all(&pace, &bucket, START + SEC / 20), 1, "and then one");
	CHECK_INT(retry_bucket_when(bucket), START + SEC / 20 + SEC / 10, "and the next a step later");
	CHECK_INT(take_all(&pace, &bucket, START + SEC), 9, "a pause of a second brings a second's worth");
	CHECK_INT(take_all(&pace, &bucket, START + 3600 * SEC), 25, "an hour's pause brings no more than the burst");
	CHECK_INT(take_all(&pace, &bucket, START + 90 * 365 * USECS_PER_DAY), 25, "nor do ninety years");

	pace = pace_of("100/s");
	bucket = retry_bucket_full(&pace, START);
	CHECK_INT(take_all(&pace, &bucket, START), 10, "by default a burst is a tenth of a second's worth");
	pace = pace_of("5/m");
	bucket = retry_bucket_full(&pace, START);
	CHECK_INT(take_all(&pace, &bucket, START), 1, "but at least one");
	CHECK_INT(retry_bucket_when(bucket), START + 12 * SEC, "then one every twelve seconds");

	pace = pace_of("5000/s burst 1");
	bucket = retry_bucket_full(&pace, START);
	CHECK_INT(take_all(&pace, &bucket, START), 100, "a burst of less than 20 ms counts as that");

	pace = pace_of("1000/d burst 1000");
	bucket = retry_bucket_fresh(&pace, START);
	CHECK_INT(take_all(&pace, &bucket, START), 1, "after a restart there is no large burst");
	pace = pace_of("100/s burst 500");
	bucket = retry_bucket_fresh(&pace, START);
	CHECK_INT(take_all(&pace, &bucket, START), 10, "but that of a tenth of a second");
}

static void
test_many(void)
{
	RetryPace	pace = pace_of("10/s burst 25");
	int64		bucket = retry_bucket_full(&pace, START);

	CHECK_INT(retry_bucket_left(&pace, bucket, START), 25, "a full bucket has its burst");
	CHECK_INT(retry_bucket_take_many(&pace, &bucket, 26, START), -1, "more than a burst is never there at once");
	CHECK_INT(retry_bucket_take_many(&pace, &bucket, RETRY_RATE_MAX_COUNT, START), -1, "however many they are");
	CHECK_INT(retry_bucket_take_many(&pace, &bucket, 20, START), 0, "20 of 25 are");
	CHECK_INT(retry_bucket_left(&pace, bucket, START), 5, "which leaves 5");
	CHECK_INT(retry_bucket_take_many(&pace, &bucket, 6, START), SEC / 20, "for 6 there is a time to wait");
	CHECK_INT(retry_bucket_left(&pace, bucket, START), 5, "and nothing is taken");
	CHECK_INT(retry_bucket_take_many(&pace, &bucket, 6, START + SEC / 20 - 1), 1, "and no less");
	CHECK_INT(retry_bucket_take_many(&pace, &bucket, 6, START + SEC / 20), 0, "then they are there");
	CHECK_INT(retry_bucket_left(&pace, bucket, START + SEC / 20), 0, "and nothing is left");
	CHECK_INT(retry_bucket_take_many(&pace, &bucket, 1, START + 3600 * SEC), 0, "an hour's pause");
	CHECK_INT(retry_bucket_left(&pace, bucket, START + 3600 * SEC), 24, "brings no more than the burst");
	pace = pace_of("1/d");
	bucket = retry_bucket_full(&pace, START);
	CHECK_INT(retry_bucket_take_many(&pace, &bucket, 1, START), 0, "one a day");
	CHECK_INT(retry_bucket_take_many(&pace, &bucket, 1, START), 24 * 3600 * SEC, "is one a day");
}

static void
test_reserve(void)
{
	RetryPace	pace = pace_of("10/s burst 2");
	int64		bucket = retry_bucket_full(&pace, START);

	CHECK_INT(retry_bucket_reserve(&pace, &bucket, START), START, "what is there is reserved for now");
	CHECK_INT(retry_bucket_reserve(&pace, &bucket, START), START, "as long as the burst lasts");
	CHECK_INT(retry_bucket_reserve(&pace, &bucket, START), START + SEC / 20, "then for the next moment");
	CHECK_INT(retry_bucket_reserve(&pace, &bucket, START), START + SEC / 20 + SEC / 10, "and for the one after");
	CHECK(!retry_bucket_take(&pace, &bucket, START + 2 * SEC / 10), "what is reserved is not there for others");
	retry_bucket_give_back(&pace, &bucket);
	CHECK(retry_bucket_take(&pace, &bucket, START + 2 * SEC / 10), "unless it is given back");
	CHECK_INT(take_all(&pace, &bucket, START + 2 * SEC / 10), 0, "once");

	bucket = retry_bucket_full(&pace, START);
	for (int i = 0; i < 1000; i++)
		retry_bucket_give_back(&pace, &bucket);
	CHECK_INT(take_all(&pace, &bucket, START), 2, "what is given back makes no burst larger");
}

/* ---------------------------------------------------------------- changes */

static void
check_change(const char *from_text, const char *to_text, int taken, int reserved, int want_now,
			 int64 want_next)
{
	RetryPace	from = pace_of(from_text);
	RetryPace	to = pace_of(to_text);
	int64		bucket = retry_bucket_full(&from, START);
	int			got;

	for (int i = 0; i < taken; i++)
		retry_bucket_take(&from, &bucket, START);
	for (int i = 0; i < reserved; i++)
		retry_bucket_reserve(&from, &bucket, START);
	bucket = retry_bucket_convert(bucket, &from, &to, START);
	got = take_all(&to, &bucket, START);
	if (!CHECK(got == want_now && llabs(retry_bucket_when(bucket) - START - want_next) <= 1,
			   "%s, %d taken and %d reserved, then %s", from_text, taken, reserved, to_text))
		printf("# %d now, the next after " INT64_FORMAT " us\n", got, retry_bucket_when(bucket) - START);
}

static void
test_change(void)
{
	RetryPace	slow = pace_of("10/s");
	RetryPace	fast = pace_of("1000/s");
	int64		bucket = retry_bucket_full(&slow, START);
	int			fewest;
	int			most;

	check_change("100/m burst 20", "50/m burst 20", 0, 0, 20, 1200000);
	check_change("10/m burst 20", "50/m burst 20", 0, 0, 20, 1200000);
	check_change("10/m burst 20", "50/m burst 20", 15, 0, 5, 1200000);
	check_change("10/m burst 20", "50/m burst 20", 20, 0, 0, 1200000);
	check_change("10/m burst 20", "50/m burst 20", 20, 500, 0, 1200000);
	check_change("10/m burst 20", "10/m burst 5", 0, 0, 5, 6000000);
	check_change("10/m burst 5", "10/m burst 50", 0, 0, 5, 6000000);
	check_change("1/d", "1000/s", 1, 3, 0, 1000);
	check_change("1000/s", "1/d", 100, 0, 0, USECS_PER_DAY / 2);
	check_change("1/d burst 36500", "1000000/s burst 20000", 3, 0, 20000, 1);
	check_change("1000000/s burst 10000000", "1/d burst 36500", 0, 0, 36500, USECS_PER_DAY);

	/* while in use, back and forth: each second is by its own rate */
	nsent = 0;
	for (int i = 0; i < 20; i++)
	{
		int64		from = START + i * SEC;

		run_sender(i % 2 ? &fast : &slow, bucket, from, from + SEC, 1000, 0);

		/* the sender has a copy: replay what it took */
		for (int k = 0; k < nsent; k++)
		{
			if (sent_at[k] >= from)
				retry_bucket_take(i % 2 ? &fast : &slow, &bucket, sent_at[k]);
		}
		bucket = retry_bucket_convert(bucket, i % 2 ? &fast : &slow, i % 2 ? &slow : &fast, from + SEC);
	}
	count_windows(2 * SEC, START + 2 * SEC, START + 20 * SEC, &fewest, &most);
	if (!CHECK(fewest >= 985 && most <= 1025, "a rate that is changed every second is kept to"))
		printf("# %d to %d in 2 s, nominal 1010\n", fewest, most);
}

/* The ends of all ranges, where a sum could overflow. */
static void
test_ends(void)
{
	const char *texts[] = {"1/d burst 36500", "1000/d burst 10000000", "1/d", "1000000/s burst 10000000",
	"1000000000/h burst 10000000", "12/h burst 9999999"};
	const int64 moments[] = {0, 1, START, INT64CONST(100) * 365 * USECS_PER_DAY};

	for (int i = 0; i < lengthof(texts); i++)
	{
		RetryPace	pace = pace_of(texts[i]);

		for (int k = 0; k < lengthof(moments); k++)
		{
			int64		now = moments[k];
			int64		bucket = retry_bucket_full(&pace, now);
			bool		good = retry_bucket_take(&pace, &bucket, now);
			int64		last = 0;

			for (int n = 0; n < 20000; n++)
			{
				int64		at = retry_bucket_reserve(&pace, &bucket, now);

				good = good && at >= now && at >= last;
				last = at;
			}
			CHECK(good, "%s at " INT64_FORMAT ": moments are in order", texts[i], now);
		}
	}
}

int
main(void)
{
	test_text();
	test_precision();
	test_drift();
	test_burst();
	test_many();
	test_reserve();
	test_change();
	test_ends();
	return check_done();
}
