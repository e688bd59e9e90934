/*
 * test_cron.c
 *		Unit test of the cron leaf: reading, canonical text, next occurrence.
 *
 * Three kinds of checks: tables of texts with what they must become or why
 * they must be refused; moments worked out by hand around clock changes, in
 * zones made up of a few changes; and a slow, obvious search minute by minute
 * on libc's calendar that thousands of random schedules are compared with.
 */
#include "postgres.h"

#include <time.h>

#include "../../src/cron.h"
#include "check.h"

#define UNIX_TO_PG	((int64) 10957 * 86400)

static TimestampTz
from_unix(int64 seconds)
{
	return (seconds - UNIX_TO_PG) * USECS_PER_SEC;
}

static int64
to_unix(TimestampTz at)
{
	return at / USECS_PER_SEC + UNIX_TO_PG;
}

/* "2024-03-31 01:00:00", UTC */
static int64
utc(const char *text)
{
	struct tm	tm = {0};

	if (sscanf(text, "%d-%d-%d %d:%d:%d", &tm.tm_year, &tm.tm_mon,
			   &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
		abort();
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	return timegm(&tm);
}

static char *
utc_text(int64 seconds)
{
	static char buf[64];
	time_t		t = seconds;
	struct tm	tm;

	gmtime_r(&t, &tm);
	snprintf(buf, sizeof(buf), "%04d-%02d-%02d %02d:%02d:%02d",
			 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
			 tm.tm_hour, tm.tm_min, tm.tm_sec);
	return buf;
}

/* A zone of a few changes of offset, in minutes. */
typedef struct TestZone
{
	int			first;
	int			n;
	struct
	{
		int64		at;
		int			offset;
	}			change[8];
} TestZone;

static void
test_next_change(const void *opaque, int64 at, int32 *offset, int64 *change)
{
	const TestZone *z = opaque;

	*offset = z->first * 60;
	*change = PG_INT64_MAX;
	for (int i = 0; i < z->n; i++)
	{
		if (z->change[i].at > at)
		{
			*change = z->change[i].at;
			return;
		}
		*offset = z->change[i].offset * 60;
	}
}

static void
check_accepts(const char *text, const char *want)
{
	RetryCron	cron;
	RetryCron	again;
	RetryParseError err;
	char		buf[RETRY_CRON_TEXT_SIZE];

	if (!CHECK(retry_cron_parse(text, strlen(text), &cron, &err),
			   "\"%s\" is accepted", text))
		return;
	retry_cron_format(&cron, buf, sizeof(buf));
	CHECK_STR(buf, want, text);
	CHECK(retry_cron_parse(buf, strlen(buf), &again, &err) &&
		  memcmp(&cron, &again, sizeof(cron)) == 0,
		  "\"%s\" reads back to the same value", buf);
}

static void
check_refuses(const char *text, const char *part)
{
	RetryCron	cron;
	RetryParseError err = {-1, -1, NULL, NULL};
	char		buf[128];

	if (!CHECK(!retry_cron_parse(text, strlen(text), &cron, &err),
			   "\"%s\" is refused", text))
		return;
	snprintf(buf, sizeof(buf), "%.*s", err.part_len, text + err.part_at);
	CHECK_STR(buf, part, "its offending part");
	CHECK(err.reason && err.hint, "with a reason and a hint");
}

static void
test_text(void)
{
	check_accepts("* * * * *", "* * * * *");
	check_accepts("  0\t0  1 1 * ", "0 0 1 jan *");
	check_accepts("*/5 9-17 * * mon-fri", "*/5 9-17 * * mon-fri");
	check_accepts("*/5 9-17 * * MON-Fri", "*/5 9-17 * * mon-fri");
	check_accepts("0 0 * * 7", "0 0 * * sun");
	check_accepts("0 0 * * 0,7", "0 0 * * sun");
	check_accepts("0 0 * * 5-7", "0 0 * * fri-sun");
	check_accepts("0 0 * * fri-sun", "0 0 * * fri-sun");
	check_accepts("0 0 * * sun-sat", "0 0 * * mon-sun");
	check_accepts("0 0 * * sun-sun", "0 0 * * sun");
	check_accepts("0 0 * * 6,0", "0 0 * * sat,sun");
	check_accepts("0 0 * * */2", "0 0 * * */2");
	check_accepts("0 0 * * 1-5/2", "0 0 * * mon-fri/2");
	check_accepts("0-59 * * * *", "* * * * *");
	check_accepts("0,15,30,45 * * * *", "*/15 * * * *");
	check_accepts("0,30 * * * *", "*/30 * * * *");
	check_accepts("0,59 * * * *", "0,59 * * * *");
	check_accepts("5-59/15 * * * *", "5-50/15 * * * *");
	check_accepts("1,2,3,10,20,30,31 * * * *", "1-3,10-30/10,31 * * * *");
	check_accepts("0 0-23 * * *", "0 0-23 * * *");
	check_accepts("0 */2 * * *", "0 */2 * * *");
	check_accepts("0 0-22/2 * * *", "0 0-22/2 * * *");
	check_accepts("0 0 */2 * *", "0 0 */2 * *");
	check_accepts("0 0 1-31/2 * mon", "0 0 1-31/2 * mon");
	check_accepts("0 0 1 jan,apr,jul,oct *", "0 0 1 */3 *");
	check_accepts("0 0 1 feb-may/3 *", "0 0 1 feb,may *");
	check_accepts("*,5 *,3 1 1 *", "* 0-23 1 jan *");
	check_accepts("0 0 31 2 mon", "0 0 31 feb mon");
	check_accepts("0 0 31 2,3 *", "0 0 31 feb,mar *");
	check_accepts("0 0 29 2 *", "0 0 29 feb *");
	check_accepts("007 00 1 1 *", "7 0 1 jan *");
	check_accepts("@hourly", "0 * * * *");
	check_accepts("@daily", "0 0 * * *");
	check_accepts("@midnight", "0 0 * * *");
	check_accepts(" @Weekly ", "0 0 * * sun");
	check_accepts("@monthly", "0 0 1 * *");
	check_accepts("@yearly", "0 0 1 jan *");
	check_accepts("@annually", "0 0 1 jan *");

	check_refuses("", "");
	check_refuses("* * * *", "* * * *");
	check_refuses("* * * * * *", "*");
	check_refuses("60 * * * *", "60");
	check_refuses("* 24 * * *", "24");
	check_refuses("* * 0 * *", "0");
	check_refuses("* * 32 * *", "32");
	check_refuses("* * * 0 *", "0");
	check_refuses("* * * 13 *", "13");
	check_refuses("* * * * 8", "8");
	check_refuses("99999999999999999999 * * * *", "99999999999999999999");
	check_refuses("-1 * * * *", "-1");
	check_refuses("+1 * * * *", "+1");
	check_refuses("1.5 * * * *", "1.5");
	check_refuses("5- * * * *", "5-");
	check_refuses("5-70 * * * *", "70");
	check_refuses("10-5 * * * *", "10-5");
	check_refuses("* * * * fri-mon", "fri-mon");
	check_refuses("* * * * 5-0", "5-0");
	check_refuses("5/15 * * * *", "5/15");
	check_refuses("*/ * * * *", "*/");
	check_refuses("*/0 * * * *", "0");
	check_refuses("*/60 * * * *", "60");
	check_refuses("*/x * * * *", "*/x");
	check_refuses("1-5/5 * * * *", "5");
	check_refuses("*/5/5 * * * *", "*/5/5");
	check_refuses("** * * * *", "**");
	check_refuses("1,,2 * * * *", "1,,2");
	check_refuses("1, * * * *", "1,");
	check_refuses(", * * * *", ",");
	check_refuses("mon * * * *", "mon");
	check_refuses("* * * monday *", "monday");
	check_refuses("* * * * monday", "monday");
	check_refuses("* * * * jan", "jan");
	check_refuses("* * L * *", "L");
	check_refuses("* * ? * *", "?");
	check_refuses("* * * * 5#2", "5#2");
	check_refuses("* * * * m\xc3\xb6n", "m");
	check_refuses("@", "@");
	check_refuses("@reboot", "@reboot");
	check_refuses("@dail", "@dail");
	check_refuses("@dailyx", "@dailyx");
	check_refuses("@daily *", "@daily *");
	check_refuses("0 0 30 2 *", "0 0 30 2 *");
	check_refuses("0 0 31 2,4,6,9,11 *", "0 0 31 2,4,6,9,11 *");
	check_refuses("0 0 31 4 */2", "0 0 31 4 */2");
}

/* Check the occurrences that follow a moment, all in UTC. */
static void
check_next(const TestZone *z, const char *text, const char *after,
		   const char *const *want)
{
	RetryZone	zone = {test_next_change, z};
	RetryCron	cron;
	RetryParseError err;
	TimestampTz at = from_unix(utc(after));

	if (!CHECK(retry_cron_parse(text, strlen(text), &cron, &err),
			   "\"%s\" after %s", text, after))
		return;
	for (; *want; want++)
	{
		TimestampTz next = 0;

		if (!CHECK(retry_cron_next(&cron, at, z ? &zone : NULL, &next),
				   "there is a next one"))
			return;
		CHECK_STR(utc_text(to_unix(next)), *want, text);
		at = next;
	}
}

#define NEXT(zone, text, after, ...) \
	check_next((zone), (text), (after), (const char *const[]) {__VA_ARGS__, NULL})

static void
test_utc(void)
{
	RetryCron	cron;
	RetryParseError err;
	TimestampTz next = 42;

	NEXT(NULL, "* * * * *", "2024-01-01 00:00:00",
		 "2024-01-01 00:01:00", "2024-01-01 00:02:00");
	NEXT(NULL, "* * * * *", "2024-01-01 00:00:01", "2024-01-01 00:01:00");
	NEXT(NULL, "0 0 1 1 *", "2023-12-31 23:59:59", "2024-01-01 00:00:00",
		 "2025-01-01 00:00:00");
	NEXT(NULL, "*/20 9-10 * * mon-fri", "2024-03-01 10:20:00",
		 "2024-03-01 10:40:00", "2024-03-04 09:00:00");
	NEXT(NULL, "0 12 31 * *", "2024-01-31 12:00:00", "2024-03-31 12:00:00",
		 "2024-05-31 12:00:00", "2024-07-31 12:00:00", "2024-08-31 12:00:00");
	/* either day when both are restricted, both when one is a star */
	NEXT(NULL, "0 0 13 * fri", "2024-09-01 00:00:00", "2024-09-06 00:00:00",
		 "2024-09-13 00:00:00", "2024-09-20 00:00:00", "2024-09-27 00:00:00",
		 "2024-10-04 00:00:00", "2024-10-11 00:00:00", "2024-10-13 00:00:00");
	NEXT(NULL, "0 0 */2 * mon", "2024-09-01 00:00:00", "2024-09-09 00:00:00",
		 "2024-09-23 00:00:00", "2024-10-07 00:00:00");
	NEXT(NULL, "0 0 31 feb mon", "2024-02-20 00:00:00", "2024-02-26 00:00:00",
		 "2025-02-03 00:00:00");
	/* leap days, also where a century has none and where it has */
	NEXT(NULL, "0 0 29 2 *", "2023-03-01 00:00:00", "2024-02-29 00:00:00",
		 "2028-02-29 00:00:00");
	NEXT(NULL, "0 0 29 2 *", "2096-02-29 00:00:00", "2104-02-29 00:00:00");
	NEXT(NULL, "0 0 29 2 *", "1996-02-29 00:00:00", "2000-02-29 00:00:00");
	NEXT(NULL, "0 0 29 2 */6", "2072-03-01 00:00:00", "2076-02-29 00:00:00",
		 "2088-02-29 00:00:00", "2116-02-29 00:00:00");
	/* passing over a February of either length */
	NEXT(NULL, "0 0 1 3 *", "2023-02-10 00:00:00", "2023-03-01 00:00:00");
	NEXT(NULL, "0 0 1 3 *", "2024-02-10 00:00:00", "2024-03-01 00:00:00");
	NEXT(NULL, "0 0 1 3 *", "2000-02-10 00:00:00", "2000-03-01 00:00:00");
	NEXT(NULL, "0 0 1 3 *", "2100-02-10 00:00:00", "2100-03-01 00:00:00");
	NEXT(NULL, "30 3 1 1 *", "1969-06-01 00:00:00", "1970-01-01 03:30:00");

	retry_cron_parse("* * * * *", 9, &cron, &err);
	CHECK(!retry_cron_next(&cron, DT_NOEND, NULL, &next) &&
		  !retry_cron_next(&cron, DT_NOBEGIN, NULL, &next) &&
		  !retry_cron_next(&cron, END_TIMESTAMP - 1, NULL, &next) &&
		  next == 42, "no occurrence after the end of time, none after infinity");
	CHECK(retry_cron_next(&cron, MIN_TIMESTAMP, NULL, &next) &&
		  next == MIN_TIMESTAMP + USECS_PER_MINUTE, "the beginning of time works");
	CHECK(retry_cron_next(&cron, from_unix(utc("2024-01-01 00:00:00")) - 1,
						  NULL, &next) &&
		  next == from_unix(utc("2024-01-01 00:00:00")),
		  "a microsecond before an occurrence finds it");
	CHECK(retry_cron_next(&cron, from_unix(utc("2024-01-01 00:00:00")) + 1,
						  NULL, &next) &&
		  next == from_unix(utc("2024-01-01 00:01:00")),
		  "a microsecond after an occurrence finds the following");
	CHECK(retry_cron_next(&cron, -1, NULL, &next) && next == 0,
		  "the epoch itself is found");
}

static void
test_clock_changes(void)
{
	/* winter +1:00, summer +2:00, as in Paris in 2024 */
	TestZone	paris = {60, 3, {{0, 120}, {0, 60}, {0, 120}}};

	/* half an hour, as on Lord Howe island; a whole day, as in Samoa in 2011 */
	TestZone	half = {630, 2, {{0, 660}, {0, 630}}};
	TestZone	samoa = {-600, 1, {{0, 840}}};
	TestZone	fixed = {330, 0, {{0, 0}}};

	paris.change[0].at = utc("2024-03-31 01:00:00");
	paris.change[1].at = utc("2024-10-27 01:00:00");
	paris.change[2].at = utc("2025-03-30 01:00:00");
	half.change[0].at = utc("2024-10-05 15:30:00");
	half.change[1].at = utc("2025-04-05 15:00:00");
	samoa.change[0].at = utc("2011-12-30 10:00:00");

	NEXT(&fixed, "30 5 * * *", "2024-01-01 00:00:00", "2024-01-02 00:00:00");
	NEXT(&fixed, "0 0 1 * *", "2024-01-01 00:00:00", "2024-01-31 18:30:00");
	NEXT(&paris, "0 0 * * *", "2024-03-29 23:00:00", "2024-03-30 23:00:00",
		 "2024-03-31 22:00:00", "2024-04-01 22:00:00");
	/* a time in the gap fires once, at the jump; so do many times in it */
	NEXT(&paris, "30 2 * * *", "2024-03-30 01:30:00", "2024-03-31 01:00:00",
		 "2024-04-01 00:30:00");
	NEXT(&paris, "*/10 2 * * *", "2024-03-30 01:50:00", "2024-03-31 01:00:00",
		 "2024-04-01 00:00:00", "2024-04-01 00:10:00");
	NEXT(&paris, "0 2,3 * * *", "2024-03-30 02:00:00", "2024-03-31 01:00:00",
		 "2024-04-01 00:00:00", "2024-04-01 01:00:00");
	NEXT(&paris, "30 2 * * *", "2024-03-31 01:00:00", "2024-04-01 00:30:00");
	NEXT(&paris, "30 2 31 3 *", "2024-03-01 00:00:00", "2024-03-31 01:00:00",
		 "2025-03-31 00:30:00");
	/* a time that comes twice fires at the first */
	NEXT(&paris, "30 2 * * *", "2024-10-26 00:30:00", "2024-10-27 00:30:00",
		 "2024-10-28 01:30:00");
	NEXT(&paris, "0 2 * * *", "2024-10-26 00:00:00", "2024-10-27 00:00:00",
		 "2024-10-28 01:00:00");
	NEXT(&paris, "0,30 2-3 * * *", "2024-10-27 00:00:00",
		 "2024-10-27 00:30:00", "2024-10-27 02:00:00", "2024-10-27 02:30:00",
		 "2024-10-28 01:00:00");
	NEXT(&paris, "30 2 * * *", "2024-10-27 01:15:00", "2024-10-28 01:30:00");
	/* every hour: by the clock on the wall, through both */
	NEXT(&paris, "30 * * * *", "2024-03-31 00:00:00", "2024-03-31 00:30:00",
		 "2024-03-31 01:30:00");
	NEXT(&paris, "30 * * * *", "2024-10-27 00:00:00", "2024-10-27 00:30:00",
		 "2024-10-27 01:30:00", "2024-10-27 02:30:00");
	NEXT(&paris, "0 */2 * * *", "2024-03-30 23:00:00", "2024-03-31 02:00:00");
	NEXT(&paris, "0 */2 * * *", "2024-10-26 22:00:00", "2024-10-27 00:00:00",
		 "2024-10-27 01:00:00", "2024-10-27 03:00:00");
	/* the rule is the same for other shifts */
	NEXT(&half, "15 2 * * *", "2024-10-04 15:45:00", "2024-10-05 15:30:00",
		 "2024-10-06 15:15:00");
	NEXT(&half, "45 1 * * *", "2025-04-04 14:45:00", "2025-04-05 14:45:00",
		 "2025-04-06 15:15:00");
	NEXT(&samoa, "0 9 * * *", "2011-12-28 19:00:00", "2011-12-29 19:00:00",
		 "2011-12-30 10:00:00", "2011-12-30 19:00:00");
	NEXT(&samoa, "0 9 * * fri", "2011-12-23 19:00:00", "2011-12-30 10:00:00",
		 "2012-01-05 19:00:00");
}

/* Does a moment match, by libc's calendar? */
static bool
obvious_match(const RetryCron *cron, time_t at)
{
	struct tm	tm;
	bool		day;
	bool		weekday;

	localtime_r(&at, &tm);
	day = (cron->days >> tm.tm_mday) & 1;
	weekday = (cron->weekdays >> tm.tm_wday) & 1;
	return ((cron->minutes >> tm.tm_min) & 1) &&
		((cron->hours >> tm.tm_hour) & 1) &&
		((cron->months >> (tm.tm_mon + 1)) & 1) &&
		((cron->flags & (RETRY_CRON_DAY_STAR | RETRY_CRON_WEEKDAY_STAR)) ?
		 day && weekday : day || weekday);
}

static void
random_field(char *buf, int low, int high, bool often)
{
	int			a = low + check_random() % (high - low + 1);
	int			b = low + check_random() % (high - low + 1);

	switch (check_random() % (often ? 3 : 5))
	{
		case 0:
			strcpy(buf, "*");
			break;
		case 1:
			sprintf(buf, "*/%d", (int) (1 + check_random() % (high - low)));
			break;
		case 2:
			sprintf(buf, "%d-%d", Min(a, b), Max(a, b));
			break;
		case 3:
			sprintf(buf, "%d", a);
			break;
		default:
			sprintf(buf, "%d,%d", a, b);
			break;
	}
}

/* The offset from libc; good enough for zones that change on the hour. */
static void
libc_next_change(const void *opaque, int64 at, int32 *offset, int64 *change)
{
	time_t		t = at;
	struct tm	tm;

	localtime_r(&t, &tm);
	*offset = tm.tm_gmtoff;
	for (t = (at / 3600 + 1) * 3600; t < at + 300 * 86400; t += 3600)
	{
		localtime_r(&t, &tm);
		if (tm.tm_gmtoff != *offset)
			break;
	}
	*change = t;
}

/*
 * Compare with the obvious search.  In a zone with clock changes this is done
 * for schedules of every hour, which follow the clock on the wall.
 */
static void
test_random(const char *tz, bool every_hour)
{
	RetryZone	zone = {libc_next_change, NULL};
	int			wrong = 0;
	int			compared = 0;
	int			unread = 0;

	setenv("TZ", tz, 1);
	tzset();
	for (int i = 0; i < 700; i++)
	{
		char		f[5][16];
		char		text[100];
		RetryCron	cron;
		RetryCron	again;
		RetryParseError err;
		TimestampTz next;
		int64		after = utc("2024-01-01 00:00:00") + check_random() % (300 * 86400);
		time_t		t = (after / 60 + 1) * 60;
		char		canonical[RETRY_CRON_TEXT_SIZE];

		random_field(f[0], 0, 59, false);
		random_field(f[1], 0, 23, false);
		random_field(f[2], 1, 31, false);
		random_field(f[3], 1, 12, true);
		random_field(f[4], 0, 7, true);
		snprintf(text, sizeof(text), "%s %s %s %s %s", f[0],
				 every_hour ? "*" : f[1], f[2], f[3], f[4]);
		/* refused: dates that never come, steps of 7 in a week of 0-6 */
		if (!retry_cron_parse(text, strlen(text), &cron, &err))
			continue;
		retry_cron_format(&cron, canonical, sizeof(canonical));
		if (!retry_cron_parse(canonical, strlen(canonical), &again, &err) ||
			memcmp(&cron, &again, sizeof(cron)) != 0)
			unread++;
		while (t < after + 40 * 86400 && !obvious_match(&cron, t))
			t += 60;
		if (t >= after + 40 * 86400)
			continue;
		compared++;
		if (!retry_cron_next(&cron, from_unix(after), &zone, &next) ||
			to_unix(next) != t)
		{
			if (wrong++ < 5)
				printf("# %s after %s: want %lld\n", text, utc_text(after), (long long) t);
		}
	}
	CHECK(compared > 200, "%s: enough random schedules to compare", tz);
	CHECK_INT(wrong, 0, "all agree with the search minute by minute");
	CHECK_INT(unread, 0, "all canonical texts read back");
}

int
main(void)
{
	test_text();
	test_utc();
	test_clock_changes();
	test_random("UTC", false);
	test_random("Europe/Paris", true);
	test_random("America/New_York", true);
	return check_done();
}
