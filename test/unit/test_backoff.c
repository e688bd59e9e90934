/*
 * test_backoff.c
 *		Unit test of the backoff leaves: text form and delays.
 *
 * Texts with their canonical form or their offending part; the exact delays of
 * every form; what jitter may and does draw, by its bounds and its mean over
 * many numbers; and the ends of all ranges, where arithmetic could overflow.
 */
#include "postgres.h"

#include "../../src/compat.h"
#include "../../src/backoff.h"
#include "check.h"

#define MS		INT64CONST(1000)
#define SEC		(1000 * MS)
#define MINUTE	(60 * SEC)
#define HOUR	(60 * MINUTE)
#define DAY		(24 * HOUR)

static RetryBackoff
make(const char *text)
{
	RetryBackoff b;
	RetryParseError err;

	if (!retry_backoff_parse(text, &b, &err))
		CHECK(false, "\"%s\" is accepted", text);
	return b;
}

static void
check_accepts(const char *text, const char *want)
{
	RetryBackoff a;
	RetryBackoff b;
	RetryParseError err = {0, 0, "", ""};
	char		buf[RETRY_BACKOFF_TEXT_SIZE];

	/* leftovers would make equal values differ */
	memset(&a, 0x55, sizeof(a));
	memset(&b, 0xAA, sizeof(b));
	if (!CHECK(retry_backoff_parse(text, &a, &err), "\"%s\" is accepted", text))
	{
		printf("# \"%.*s\" %s\n", err.part_len, text + err.part_at, err.reason);
		return;
	}
	retry_backoff_format(&a, buf, sizeof(buf));
	CHECK_STR(buf, want, text);
	CHECK(retry_backoff_parse(buf, &b, &err) && VARSIZE(&a) == VARSIZE(&b) &&
		  memcmp(&a, &b, sizeof(a)) == 0, "\"%s\" reads back to the same value",
		  buf);
}

static void
check_refuses(const char *text, const char *part)
{
	RetryBackoff b;
	RetryParseError err = {-1, -1, NULL, NULL};
	char		buf[1000];

	if (!CHECK(!retry_backoff_parse(text, &b, &err), "\"%s\" is refused", text))
		return;
	snprintf(buf, sizeof(buf), "%.*s", err.part_len, text + err.part_at);
	CHECK_STR(buf, part, "its offending part");
	CHECK(err.reason && err.hint, "with a reason and a hint");
}

static void
test_accepted(void)
{
	char		longest[2000] = "levels 31535999999ms";

	check_accepts("fixed 30s", "fixed 30s");
	check_accepts("  FIXED   30 S  ", "fixed 30s");
	check_accepts("\tfixed\n30s\r", "fixed 30s");
	check_accepts("fixed 90s", "fixed 90s");
	check_accepts("fixed 60s", "fixed 1m");
	check_accepts("fixed 3600s", "fixed 1h");
	check_accepts("fixed 86400000ms", "fixed 1d");
	check_accepts("fixed 1500ms", "fixed 1500ms");
	check_accepts("fixed 36h", "fixed 36h");
	check_accepts("fixed 0d", "fixed 0s");
	check_accepts("fixed 365d", "fixed 365d");
	check_accepts("fixed 007s", "fixed 7s");
	check_accepts("linear 10s max 5m", "linear 10s max 5m");
	check_accepts("linear 10s", "linear 10s");
	check_accepts("linear 10s max 365d", "linear 10s");
	check_accepts("linear 10s max 10s", "linear 10s max 10s");
	check_accepts("exponential 1s factor 2 max 1h", "exponential 1s factor 2 max 1h");
	check_accepts("Exponential 1s Max 60m Factor 2.0", "exponential 1s factor 2 max 1h");
	check_accepts("exponential 1s", "exponential 1s factor 2");
	check_accepts("exponential 1s factor 1.050", "exponential 1s factor 1.05");
	check_accepts("exponential 1s factor 1.005", "exponential 1s factor 1.005");
	check_accepts("exponential 1s factor 1", "exponential 1s factor 1");
	check_accepts("exponential 1ms factor 100 jitter full max 1d",
				  "exponential 1ms factor 100 max 1d jitter full");
	check_accepts("levels 10s,15s,30s,1m", "levels 10s,15s,30s,1m");
	check_accepts("levels 10s , 15s ,\n60s", "levels 10s,15s,1m");
	check_accepts("levels 0s", "levels 0s");
	check_accepts("levels 10s,15s,30s,35s", "levels 10s,15s,30s,35s");
	check_accepts("levels EasyRetry", "levels easyretry");
	check_accepts("levels rocketmq jitter 10%", "levels rocketmq jitter 10%");
	check_accepts("levels standard-webhooks jitter equal",
				  "levels standard-webhooks jitter equal");
	check_accepts("levels best-effort", "levels best-effort");
	check_accepts("random 5s..60s", "random 5s..1m");
	check_accepts("random 5 s .. 60 s", "random 5s..1m");
	check_accepts("random 0s..0s", "random 0s..0s");
	check_accepts("random 0s..365d", "random 0s..365d");
	check_accepts("cron '*/5 9-17 * * mon-fri'", "cron '*/5 9-17 * * mon-fri'");
	check_accepts("cron'@daily'tz Europe/Paris", "cron '0 0 * * *' tz Europe/Paris");
	check_accepts("cron \"0 0 * * 0\" jitter 5% tz Etc/GMT+1",
				  "cron '0 0 * * sun' tz Etc/GMT+1 jitter 5%");
	check_accepts("cron '@hourly' tz utc", "cron '0 * * * *'");
	check_accepts("cron '@hourly' tz UTC jitter decorrelated",
				  "cron '0 * * * *' jitter decorrelated");
	check_accepts("fixed 1s jitter NONE", "fixed 1s");
	check_accepts("fixed 1s jitter 0%", "fixed 1s");
	check_accepts("fixed 1s jitter 100 %", "fixed 1s jitter 100%");
	check_accepts("fixed 1s jitter decorrelated", "fixed 1s jitter decorrelated");

	for (int i = 1; i < RETRY_BACKOFF_MAX_LEVELS; i++)
		strcat(longest, ",31535999999ms");
	strcat(longest, " jitter decorrelated");
	check_accepts(longest, longest);
	CHECK(strlen(longest) < RETRY_BACKOFF_TEXT_SIZE, "the longest text fits");
}

static void
test_refused(void)
{
	char		many[2000] = "levels 1s";

	check_refuses("", "");
	check_refuses("   ", "");
	check_refuses("nonsense 1s", "nonsense");
	check_refuses("30s", "30s");
	check_refuses("fixed", "fixed");
	check_refuses("fixed 30", "30");
	check_refuses("fixed 30 jitter full", "30");
	check_refuses("fixed s", "s");
	check_refuses("fixed -1s", "-1s");
	check_refuses("fixed +1s", "+1s");
	check_refuses("fixed 1.5h", "1.5h");
	check_refuses("fixed 1h30m", "1h30m");
	check_refuses("fixed 1y", "1y");
	check_refuses("fixed 1sec", "1sec");
	check_refuses("fixed 1\xc2\xb5s", "1\xc2\xb5s");
	check_refuses("fixed 366d", "366d");
	check_refuses("fixed 31536000001ms", "31536000001ms");
	check_refuses("fixed 99999999999999999999999999ms", "99999999999999999999999999ms");
	check_refuses("fixed 18446744073709551617s", "18446744073709551617s");
	check_refuses("fixed 1s 2s", "2s");
	check_refuses("fixed 1s,2s", ",2s");
	check_refuses("fixed 1s max 2s", "max");
	check_refuses("fixed 1s factor 2", "factor");
	check_refuses("fixed 1s tz UTC", "tz");
	check_refuses("fixed 1s;", ";");
	check_refuses("fixed-1s", "fixed-1s");
	check_refuses("fixed30s", "fixed30s");
	check_refuses("linear 0s", "0s");
	check_refuses("linear 10s max", "max");
	check_refuses("linear 10s max 5s", "5s");
	check_refuses("linear 10s max 5m max 6m", "max");
	check_refuses("linear 10s factor 2", "factor");
	check_refuses("exponential 0ms", "0ms");
	check_refuses("exponential 1s factor", "factor");
	check_refuses("exponential 1s factor 0.999", "0.999");
	check_refuses("exponential 1s factor 100.001", "100.001");
	check_refuses("exponential 1s factor 1.0001", "1.0001");
	check_refuses("exponential 1s factor 2.", "2.");
	check_refuses("exponential 1s factor .5", ".5");
	check_refuses("exponential 1s factor 2x", "2x");
	check_refuses("exponential 1s factor -2", "-2");
	check_refuses("exponential 1s factor 1e1", "1e1");
	check_refuses("exponential 1s factor 2 factor 3", "factor");
	check_refuses("exponential 1s factor 99999999999999999999", "99999999999999999999");
	check_refuses("levels", "levels");
	check_refuses("levels ,", ",");
	check_refuses("levels 1s,", "1s,");
	check_refuses("levels 1s,,2s", ",2s");
	check_refuses("levels 1s 2s", "2s");
	check_refuses("levels unknown", "unknown");
	check_refuses("levels easyretry,1s", ",1s");
	check_refuses("levels easyretry2", "easyretry2");
	check_refuses("levels 1s,easyretry", "easyretry");
	check_refuses("random 5s", "5s");
	check_refuses("random 5s jitter full", "5s");
	check_refuses("random 5s , 60s", "5s");
	check_refuses("random 5s..", "5s..");
	check_refuses("random ..5s", "..5s");
	check_refuses("random 5s.60s", "5s.60s");
	check_refuses("random 5s...60s", ".60s");
	check_refuses("random 5..60s", "5..60s");
	check_refuses("random 60s..5s", "5s");
	check_refuses("random 5s-60s", "5s-60s");
	check_refuses("cron", "cron");
	check_refuses("cron * * * * *", "*");
	check_refuses("cron ''", "''");
	check_refuses("cron '* * * * *", "'* * * * *");
	check_refuses("cron '* * * *'", "* * * *");
	check_refuses("cron '0 0 30 2 *'", "0 0 30 2 *");
	check_refuses("cron '61 * * * *'", "61");
	check_refuses("cron '* * * * *' tz", "tz");
	check_refuses("cron '* * * * *' tz Europe/P\xc3\xa4ris", "Europe/P\xc3\xa4ris");
	check_refuses("cron '* * * * *' tz 'UTC'", "'UTC'");
	check_refuses("cron '* * * * *' tz UTC tz UTC", "tz");
	check_refuses("cron '* * * * *' max 1h", "max");
	check_refuses("cron '* * * * *' extra", "extra");
	check_refuses("fixed 1s jitter", "jitter");
	check_refuses("fixed 1s jitter some", "some");
	check_refuses("fixed 1s jitter 10", "10");
	check_refuses("fixed 1s jitter 101%", "101%");
	check_refuses("fixed 1s jitter -5%", "-5%");
	check_refuses("fixed 1s jitter 1.5%", "1.5%");
	check_refuses("fixed 1s jitter 10%%", "%");
	check_refuses("fixed 1s jitter full full", "full");
	check_refuses("fixed 1s jitter full jitter none", "jitter");
	check_refuses("random 0s..9s jitter decorrelated", "decorrelated");
	check_refuses("levels 0s,1s jitter decorrelated", "decorrelated");
	check_refuses("cron '* * * * *' tz "
				  "A123456789A123456789A123456789A123456789A123456789A123456789A123",
				  "A123456789A123456789A123456789A123456789A123456789A123456789A123");

	for (int i = 1; i < RETRY_BACKOFF_MAX_LEVELS; i++)
		strcat(many, ",1s");
	strcat(many, ",77s");
	check_refuses(many, "77s");
}

static void
check_delays(const char *text, const int64 *want, int n)
{
	RetryBackoff b = make(text);

	for (int i = 0; i < n; i++)
		CHECK_INT(retry_backoff_delay_us(&b, i + 1, 0, check_random()), want[i],
				  text);
}

#define DELAYS(text, ...) \
	check_delays((text), (const int64[]) {__VA_ARGS__}, \
				 lengthof(((const int64[]) {__VA_ARGS__})))

static void
test_delays(void)
{
	static const char *const forms[] = {
		"fixed 365d jitter 100%", "linear 365d jitter 100%",
		"linear 1ms jitter full", "exponential 1ms factor 100 jitter 100%",
		"exponential 365d factor 100 jitter equal",
		"exponential 1ms factor 1.001 jitter decorrelated",
		"levels 365d,1ms jitter decorrelated", "levels easyretry jitter full",
		"random 0s..365d jitter 100%", "random 1ms..365d jitter decorrelated",
		"fixed 0s jitter full",
	};
	static const int32 attempts[] = {PG_INT32_MIN, -1, 0, 1, 2, 64, 65, 100000,
	PG_INT32_MAX - 1, PG_INT32_MAX};
	static const int64 previous[] = {PG_INT64_MIN, -1, 0, 1, DAY, PG_INT64_MAX};
	static const uint64 randoms[] = {0, 1, PG_UINT64_MAX, UINT64CONST(1) << 63};
	RetryBackoff b;

	DELAYS("fixed 30s", 30 * SEC, 30 * SEC, 30 * SEC);
	DELAYS("fixed 0s", 0, 0);
	DELAYS("linear 10s max 35s", 10 * SEC, 20 * SEC, 30 * SEC, 35 * SEC, 35 * SEC);
	DELAYS("linear 10s max 30s", 10 * SEC, 20 * SEC, 30 * SEC, 30 * SEC);
	DELAYS("exponential 1s factor 2 max 1m", SEC, 2 * SEC, 4 * SEC, 8 * SEC,
		   16 * SEC, 32 * SEC, MINUTE, MINUTE);
	DELAYS("exponential 1s factor 1.5", SEC, 1500 * MS, 2250 * MS, 3375 * MS, 5062500);
	DELAYS("exponential 10ms factor 10 max 1d", 10 * MS, 100 * MS, SEC, 10 * SEC, 100 * SEC,
		   1000 * SEC, 10000 * SEC, DAY);
	DELAYS("levels 10s,15s,30s", 10 * SEC, 15 * SEC, 30 * SEC, 30 * SEC, 30 * SEC);
	DELAYS("levels easyretry", 10 * SEC, 15 * SEC, 30 * SEC, 35 * SEC, 40 * SEC,
		   50 * SEC, MINUTE, 2 * MINUTE, 4 * MINUTE, 6 * MINUTE, 8 * MINUTE,
		   10 * MINUTE, 20 * MINUTE, 40 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR,
		   4 * HOUR, 5 * HOUR, 6 * HOUR, 7 * HOUR, 8 * HOUR, 9 * HOUR,
		   10 * HOUR, 11 * HOUR, 12 * HOUR, 12 * HOUR);
	DELAYS("levels rocketmq", SEC, 5 * SEC, 10 * SEC, 30 * SEC, MINUTE,
		   2 * MINUTE, 3 * MINUTE, 4 * MINUTE, 5 * MINUTE, 6 * MINUTE,
		   7 * MINUTE, 8 * MINUTE, 9 * MINUTE, 10 * MINUTE, 20 * MINUTE,
		   30 * MINUTE, HOUR, 2 * HOUR, 2 * HOUR);
	DELAYS("levels standard-webhooks", 5 * SEC, 5 * MINUTE, 30 * MINUTE,
		   2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR, 24 * HOUR);
	DELAYS("levels best-effort", MINUTE, 5 * MINUTE, 10 * MINUTE, 30 * MINUTE,
		   HOUR, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR);

	b = make("exponential 1s factor 1.001");
	CHECK_INT(retry_backoff_delay_us(&b, 1000, 0, 0), 2714210, "a slow growth is exact");
	CHECK_INT(retry_backoff_delay_us(&b, PG_INT32_MAX, 0, 0), 365 * DAY, "and saturates");
	b = make("exponential 3s factor 1");
	CHECK_INT(retry_backoff_delay_us(&b, PG_INT32_MAX, 0, 0), 3 * SEC, "factor 1 stays");
	b = make("linear 1ms");
	CHECK_INT(retry_backoff_delay_us(&b, PG_INT32_MAX, 0, 0),
			  PG_INT32_MAX * MS, "linear at the last attempt number");
	b = make("cron '* * * * *'");
	CHECK_INT(retry_backoff_delay_us(&b, 1, 0, 0), 0, "cron has no delay of its own");

	for (int f = 0; f < lengthof(forms); f++)
	{
		bool		good = true;

		b = make(forms[f]);
		for (int a = 0; a < lengthof(attempts); a++)
			for (int p = 0; p < lengthof(previous); p++)
				for (int r = 0; r < lengthof(randoms); r++)
				{
					int64		d = retry_backoff_delay_us(&b, attempts[a],
														   previous[p], randoms[r]);

					good = good && d >= 0 && d <= 2 * 365 * DAY;
				}
		CHECK(good, "\"%s\" stays in bounds at the ends of all arguments", forms[f]);
	}
}

/* Draw many times: all inside, both ends nearly reached, the mean as wanted. */
static void
check_draws(const char *text, int32 n, int64 previous, int64 low, int64 high,
			int64 mean)
{
	RetryBackoff b = make(text);
	RetryWindow w;
	int64		least = PG_INT64_MAX;
	int64		most = PG_INT64_MIN;
	double		sum = 0;
	int64		slack = (high - low) / 100 + 1;

	for (int i = 0; i < 20000; i++)
	{
		int64		d = retry_backoff_delay_us(&b, n, previous, check_random());

		least = Min(least, d);
		most = Max(most, d);
		sum += d;
	}
	CHECK(least >= low && least <= low + slack, "%s: shortest draw", text);
	CHECK(most <= high && most >= high - slack, "%s: longest draw", text);
	if (!CHECK(sum / 20000 > mean - 2 * slack && sum / 20000 < mean + 2 * slack,
			   "%s: mean", text))
		printf("# %f, want %lld\n", sum / 20000, (long long) mean);
	retry_backoff_window(&b, n, 0, previous, NULL, &w);
	CHECK_INT(w.earliest, low, "the earliest bound says the same");
	CHECK_INT(w.latest, high, "the latest bound says the same");
	CHECK(w.at >= low && w.at <= high, "the plain moment is within");
}

static void
test_jitter(void)
{
	RetryBackoff b;

	check_draws("fixed 10s jitter full", 1, 0, 0, 10 * SEC, 5 * SEC);
	check_draws("fixed 10s jitter equal", 1, 0, 5 * SEC, 10 * SEC, 7500 * MS);
	check_draws("fixed 10s jitter 20%", 1, 0, 8 * SEC, 12 * SEC, 10 * SEC);
	check_draws("fixed 10s jitter 100%", 1, 0, 0, 20 * SEC, 10 * SEC);
	check_draws("exponential 1s jitter full", 4, 0, 0, 8 * SEC, 4 * SEC);
	/* a max is never passed, nor do the draws gather there */
	check_draws("exponential 1s max 10s jitter 20%", 9, 0, 8 * SEC, 10 * SEC, 9 * SEC);
	check_draws("linear 1s max 10s jitter full", 99, 0, 0, 10 * SEC, 5 * SEC);
	check_draws("levels 1s,4s jitter equal", 2, 0, 2 * SEC, 4 * SEC, 3 * SEC);
	check_draws("random 5s..60s", 1, 0, 5 * SEC, 60 * SEC, 32500 * MS);
	check_draws("random 0s..365d", 1, 0, 0, 365 * DAY, 365 * DAY / 2);
	/* decorrelated: first delay to three times the one before, cut at the cap */
	check_draws("exponential 1s max 1h jitter decorrelated", 1, 0, SEC, 3 * SEC, 2 * SEC);
	check_draws("exponential 1s max 1h jitter decorrelated", 5, 7 * SEC, SEC, 21 * SEC, 11 * SEC);
	check_draws("exponential 1s max 3s jitter decorrelated", 5, 3 * SEC, SEC, 3 * SEC, 2750 * MS);
	check_draws("levels 2s,10s jitter decorrelated", 9, 2 * SEC, 2 * SEC, 6 * SEC, 4 * SEC);
	check_draws("random 2s..5s jitter decorrelated", 1, 0, 2 * SEC, 5 * SEC, 3875 * MS);
	check_draws("fixed 10s jitter decorrelated", 2, 10 * SEC, 10 * SEC, 30 * SEC, 20 * SEC);

	b = make("fixed 10s jitter decorrelated");
	CHECK(retry_backoff_delay_us(&b, 2, DAY, UINT64CONST(1) << 63) == 30 * SEC,
		  "fixed, decorrelated: cut at three times the delay");

	b = make("random 10s..20s jitter full");
	{
		RetryWindow w;
		double		sum = 0;

		retry_backoff_window(&b, 1, 0, 0, NULL, &w);
		CHECK(w.earliest == 0 && w.at == 15 * SEC && w.latest == 20 * SEC,
			  "jitter on a random delay: bounds");
		for (int i = 0; i < 20000; i++)
			sum += retry_backoff_delay_us(&b, 1, 0, check_random());
		CHECK(sum / 20000 > 7300 * MS && sum / 20000 < 7700 * MS,
			  "jitter on a random delay: two independent draws");
	}
	b = make("fixed 10s jitter full");
	CHECK(retry_backoff_delay_us(&b, 1, 0, 0) == 0 &&
		  retry_backoff_delay_us(&b, 1, 0, PG_UINT64_MAX) == 10 * SEC,
		  "the ends of the random number are the ends of the range");
	b = make("fixed 365d jitter full");
	CHECK_INT(retry_backoff_delay_us(&b, 1, 0, PG_UINT64_MAX), 365 * DAY,
			  "also when the range has more than 32 bits");
	b = make("exponential 1s max 1h jitter decorrelated");
	CHECK_INT(retry_backoff_delay_us(&b, 1, PG_INT64_MAX / 2, UINT64CONST(1) << 63), HOUR,
			  "a previous delay beyond all bounds counts as the longest");
	CHECK_INT(retry_backoff_delay_us(&b, 1, 0, 12345678901234567), retry_backoff_delay_us(&b, 1, 0, 12345678901234567),
			  "the same arguments give the same delay");
}

static void
test_moments(void)
{
	RetryBackoff b = make("fixed 365d jitter 100%");
	RetryWindow w;
	TimestampTz last = END_TIMESTAMP - 1;
	TimestampTz noon = 12 * HOUR;	/* 2000-01-01 12:00 */

	CHECK_INT(retry_backoff_next(&b, 1, last - 1, 0, PG_UINT64_MAX, NULL), last, "moments saturate");
	CHECK_INT(retry_backoff_next(&b, 1, DT_NOEND, 0, 7, NULL), DT_NOEND, "infinity stays");
	CHECK_INT(retry_backoff_next(&b, 1, DT_NOBEGIN, 0, 7, NULL), DT_NOBEGIN, "also the other");
	CHECK(retry_backoff_next(&b, 1, MIN_TIMESTAMP, 0, 0, NULL) == MIN_TIMESTAMP, "the first moment works");
	b = make("fixed 30s");
	CHECK_INT(retry_backoff_next(&b, 1, noon, 0, 7, NULL), noon + 30 * SEC, "a delay is added to the end");

	b = make("cron '0 * * * *'");
	CHECK_INT(retry_backoff_next(&b, 1, noon, 0, 7, NULL), noon + HOUR, "cron: strictly after");
	CHECK_INT(retry_backoff_next(&b, 1, noon - 1, 0, 7, NULL), noon, "cron: the very next");
	CHECK_INT(retry_backoff_next(&b, 1, last, 0, 7, NULL), last, "cron: saturates");
	b = make("cron '0 * * * *' jitter full");
	retry_backoff_window(&b, 1, noon, 0, NULL, &w);
	CHECK(w.at == noon + HOUR && w.earliest == w.at && w.latest == noon + 2 * HOUR - 1,
		  "cron, full: up to the following occurrence");
	CHECK(retry_backoff_next(&b, 1, noon, 0, 0, NULL) == w.earliest &&
		  retry_backoff_next(&b, 1, noon, 0, PG_UINT64_MAX, NULL) == w.latest,
		  "cron, full: draws reach the bounds");
	b = make("cron '0 * * * *' jitter equal");
	retry_backoff_window(&b, 1, noon, 0, NULL, &w);
	CHECK_INT(w.latest, noon + HOUR + 30 * MINUTE, "cron, equal: half of the gap");
	b = make("cron '0 * * * *' jitter 10%");
	retry_backoff_window(&b, 1, noon, 0, NULL, &w);
	CHECK_INT(w.latest, noon + HOUR + 6 * MINUTE, "cron, percentage of the gap");
	b = make("cron '0 * * * *' jitter 100%");
	retry_backoff_window(&b, 1, noon, 0, NULL, &w);
	CHECK_INT(w.latest, noon + 2 * HOUR - 1, "cron, 100%: never the following occurrence itself");
	CHECK_STR(retry_backoff_zone_name(&b), "UTC", "no zone means UTC");
	b = make("cron '0 * * * *' tz Asia/Tokyo");
	CHECK_STR(retry_backoff_zone_name(&b), "Asia/Tokyo", "a zone is kept");
	b = make("fixed 1s");
	CHECK(retry_backoff_zone_name(&b) == NULL, "other forms have none");
}

static void
test_buffers(void)
{
	RetryBackoff b = make("exponential 1s factor 2.5 max 1h jitter full");
	char		buf[RETRY_BACKOFF_TEXT_SIZE];
	int			full = retry_backoff_format(&b, buf, sizeof(buf));
	bool		good = true;

	for (int size = 0; size <= full + 1; size++)
	{
		char		small[100];

		memset(small, '#', sizeof(small));
		good = good && retry_backoff_format(&b, small, size) == full &&
			small[size] == '#' &&
			(size == 0 || (strlen(small) == Min(size - 1, full) &&
						   strncmp(small, buf, strlen(small)) == 0));
	}
	CHECK(good, "a buffer that is too small is filled, terminated and not passed");
	b = make("cron '1,3,7 * * * *'");
	full = retry_cron_format(&b.u.cron.schedule, buf, sizeof(buf));
	for (int size = 0; size <= full + 1; size++)
	{
		char		small[100];

		memset(small, '#', sizeof(small));
		good = good && retry_cron_format(&b.u.cron.schedule, small, size) == full &&
			small[size] == '#' &&
			(size == 0 || strlen(small) == Min(size - 1, full));
	}
	CHECK(good, "the same for schedules");
}

int
main(void)
{
	test_accepted();
	test_refused();
	test_delays();
	test_jitter();
	test_moments();
	test_buffers();
	return check_done();
}
