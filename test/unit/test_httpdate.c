/*
 * test_httpdate.c
 *		Retry-After in all its forms, and nonsense that must count as absent.
 *
 * The dates are the ones RFC 9110 shows plus the edges of the calendar; every
 * malformed value must leave the caller with "absent", since a receiver's typo
 * may not decide when a task is tried again.
 */
#include "postgres.h"

#include "../../src/httpdate.h"
#include "check.h"

#define NOW INT64CONST(1795200000)	/* 2026-11-20 16:00 UTC */

static void
check_value(const char *text, RetryRetryAfterKind kind, int64 value)
{
	RetryRetryAfter got = retry_after_parse(text, strlen(text), NOW);

	CHECK(got.kind == kind && (kind == RETRY_AFTER_NONE || got.value == value),
		  "\"%s\" gives kind %d, value %lld (got %d, %lld)", text, kind,
		  (long long) value, got.kind, (long long) got.value);
}

static void
test_seconds(void)
{
	check_value("0", RETRY_AFTER_SECONDS, 0);
	check_value("120", RETRY_AFTER_SECONDS, 120);
	check_value(" 120\t", RETRY_AFTER_SECONDS, 120);
	check_value("000007", RETRY_AFTER_SECONDS, 7);
	CHECK(retry_after_parse("99999999999999999999999999", 26, NOW).value >= 1000000000,
		  "a number beyond all bounds stays large");
	check_value("", RETRY_AFTER_NONE, 0);
	check_value("  ", RETRY_AFTER_NONE, 0);
	check_value("-1", RETRY_AFTER_NONE, 0);
	check_value("+1", RETRY_AFTER_NONE, 0);
	check_value("1.5", RETRY_AFTER_NONE, 0);
	check_value("12 s", RETRY_AFTER_NONE, 0);
	check_value("0x10", RETRY_AFTER_NONE, 0);
	check_value("99999999999999999999x", RETRY_AFTER_NONE, 0);
	check_value("soon", RETRY_AFTER_NONE, 0);
}

static void
test_dates(void)
{
	check_value("Sun, 06 Nov 1994 08:49:37 GMT", RETRY_AFTER_DATE, 784111777);
	check_value("Sunday, 06-Nov-94 08:49:37 GMT", RETRY_AFTER_DATE, 784111777);
	check_value("Sun Nov  6 08:49:37 1994", RETRY_AFTER_DATE, 784111777);
	check_value("sun, 06 nov 1994 08:49:37 gmt", RETRY_AFTER_DATE, 784111777);
	check_value("Thu, 01 Jan 1970 00:00:00 GMT", RETRY_AFTER_DATE, 0);
	check_value("Thu, 29 Feb 2024 00:00:00 GMT", RETRY_AFTER_DATE, 1709164800);
	check_value("Tue, 29 Feb 2000 23:59:60 GMT", RETRY_AFTER_DATE, 951868800);
	check_value("Fri Dec 31 23:59:59 9999", RETRY_AFTER_DATE, INT64CONST(253402300799));
	check_value("Saturday, 21-Nov-26 00:00:00 GMT", RETRY_AFTER_DATE, 1795219200);
	check_value("Friday, 21-Nov-75 00:00:00 GMT", RETRY_AFTER_DATE, INT64CONST(3341520000));
	check_value("Wednesday, 01-Jan-76 00:00:00 GMT", RETRY_AFTER_DATE, INT64CONST(3345062400));
	/* 2076 is 50 years ahead, 2077 more: the last century */
	check_value("Monday, 01-Jan-77 00:00:00 GMT", RETRY_AFTER_DATE, 220924800);

	check_value("Fri, 29 Feb 2100 00:00:00 GMT", RETRY_AFTER_NONE, 0);
	check_value("Wed, 31 Apr 2030 00:00:00 GMT", RETRY_AFTER_NONE, 0);
	check_value("Sun, 00 Nov 1994 08:49:37 GMT", RETRY_AFTER_NONE, 0);
	check_value("Sun, 06 Nov 1994 24:00:00 GMT", RETRY_AFTER_NONE, 0);
	check_value("Sun, 06 Nov 1994 08:60:00 GMT", RETRY_AFTER_NONE, 0);
	check_value("Sun, 06 Nov 1994 08:49:61 GMT", RETRY_AFTER_NONE, 0);
	check_value("Sun, 06 Nov 1994 08:49:37", RETRY_AFTER_NONE, 0);
	check_value("Sun, 06 Nov 1994 08:49:37 CET", RETRY_AFTER_NONE, 0);
	check_value("Sun, 06 Nov 1994 08:49:37 GMT x", RETRY_AFTER_NONE, 0);
	check_value("Sun, 6 Nov 1994 08:49:37 GMT", RETRY_AFTER_NONE, 0);
	check_value("Xyz, 06 Nov 1994 08:49:37 GMT", RETRY_AFTER_NONE, 0);
	check_value("Sun, 06 Foo 1994 08:49:37 GMT", RETRY_AFTER_NONE, 0);
	check_value("Sun", RETRY_AFTER_NONE, 0);
	check_value("2026-11-21T00:00:00Z", RETRY_AFTER_NONE, 0);
}

static void
test_delay(void)
{
	RetryRetryAfter after = {RETRY_AFTER_SECONDS, 30};
	int64		now_us = NOW * 1000000 + 250000;

	CHECK_INT(retry_after_delay_us(&after, now_us, RETRY_AFTER_CAP_US), 30000000, "30 seconds");
	after.value = INT64CONST(9000000000000);
	CHECK_INT(retry_after_delay_us(&after, now_us, RETRY_AFTER_CAP_US), RETRY_AFTER_CAP_US, "seconds are capped");
	after.kind = RETRY_AFTER_DATE;
	after.value = NOW - 5;
	CHECK_INT(retry_after_delay_us(&after, now_us, RETRY_AFTER_CAP_US), 0, "a past date means now");
	after.value = NOW + 2;
	CHECK_INT(retry_after_delay_us(&after, now_us, RETRY_AFTER_CAP_US), 1750000, "a date counts from now");
	after.value = NOW + 1000000;
	CHECK_INT(retry_after_delay_us(&after, now_us, RETRY_AFTER_CAP_US), RETRY_AFTER_CAP_US, "a far date is capped");
	after.kind = RETRY_AFTER_NONE;
	CHECK_INT(retry_after_delay_us(&after, now_us, RETRY_AFTER_CAP_US), -1, "absent is -1");
}

int
main(void)
{
	test_seconds();
	test_dates();
	test_delay();
	return check_done();
}
