/*
 * test_ratelimit_header.c
 *		What endpoints say of their limits, in the spellings that are in use.
 *
 * The examples follow the drafts and what large services send.  Nonsense, and
 * whatever says only half of what is needed, must leave the sender alone: a
 * typo in a header may not silence an endpoint for a day.
 */
#include "postgres.h"

#include "../../src/ratelimit_header.h"
#include "check.h"

#define NOW		INT64CONST(1795200000)	/* 2026-11-20 18:40 UTC */
#define SECOND	INT64CONST(1000000)

/* The wait for "Name: value" lines, in milliseconds. */
static int64
wait_ms(const char *const *lines)
{
	RetryRateLimit limit = {{0}};

	for (; *lines != NULL; lines++)
	{
		const char *colon = strchr(*lines, ':');

		retry_ratelimit_field(&limit, *lines, colon - *lines, colon + 1, strlen(colon + 1), NOW);
	}
	return retry_ratelimit_wait_us(&limit, NOW * SECOND, RETRY_AFTER_CAP_US) / 1000;
}

#define CHECK_WAIT(want, ...) \
	do { \
		const char *const lines[] = {__VA_ARGS__, NULL}; \
		int64		got = wait_ms(lines); \
		CHECK(got == (want), "%s ...: %lld ms (got %lld)", lines[0], (long long) (want), (long long) got); \
	} while (0)

static void
test_plain(void)
{
	CHECK_WAIT(30000, "RateLimit-Limit: 100", "RateLimit-Remaining: 0", "RateLimit-Reset: 30");
	CHECK_WAIT(30000, "ratelimit-reset:30", "RATELIMIT-REMAINING:  0\t");
	CHECK_WAIT(21600000, "RateLimit-Limit: 100;w=21600", "RateLimit-Remaining: 0;w=21600", "RateLimit-Reset: 21600");
	CHECK_WAIT(0, "RateLimit-Remaining: 1", "RateLimit-Reset: 30");
	CHECK_WAIT(0, "RateLimit-Remaining: 0");
	CHECK_WAIT(0, "RateLimit-Reset: 30");
	CHECK_WAIT(0, "RateLimit-Remaining: 0", "RateLimit-Reset: 0");
	CHECK_WAIT(86400000, "RateLimit-Remaining: 0", "RateLimit-Reset: 90000");
	CHECK_WAIT(30000, "RateLimit-Remaining: 0", "RateLimit-Remaining: 5", "RateLimit-Reset: 30", "RateLimit-Reset: 60");
	CHECK_WAIT(30000, "RateLimit-Remaining: few", "RateLimit-Remaining: 0", "RateLimit-Reset: soon", "RateLimit-Reset: 30");
}

static void
test_x(void)
{
	/* seconds, the second and the millisecond since 1970 */
	CHECK_WAIT(60000, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60");
	CHECK_WAIT(60000, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1795200060");
	CHECK_WAIT(61500, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1795200061500");
	CHECK_WAIT(60123, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1795200060.123");
	CHECK_WAIT(0, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1795199999");
	CHECK_WAIT(86400000, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1895200060");
	CHECK_WAIT(86400000, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 999999999");
	CHECK_WAIT(60000, "X-Rate-Limit-Remaining: 0", "X-Rate-Limit-Reset: 1795200060");
	CHECK_WAIT(60000, "x-rate-limit-remaining: 0", "x-ratelimit-reset: 60");
	CHECK_WAIT(60000, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: Fri, 20 Nov 2026 18:41:00 GMT");

	/* a duration, which says the same more exactly */
	CHECK_WAIT(1250, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1795200002", "X-RateLimit-Reset-After: 1.25");
	CHECK_WAIT(1250, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset-After: 1.25", "X-RateLimit-Reset: 1795200002");

	/* each family for itself, and the longest counts */
	CHECK_WAIT(0, "X-RateLimit-Remaining: 0", "RateLimit-Reset: 60");
	CHECK_WAIT(60000, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60", "RateLimit-Remaining: 0", "RateLimit-Reset: 5");
}

static void
test_structured(void)
{
	CHECK_WAIT(30000, "RateLimit: \"default\";r=0;t=30");
	CHECK_WAIT(30000, "RateLimit: default;t=30;r=0");
	CHECK_WAIT(30000, "RateLimit: \"a;b, c=1\" ; r=0 ; pk=:c2VjcmV0: ;t=30");
	CHECK_WAIT(30000, "RateLimit: \"a\\\"b\";r=0;t=30");
	CHECK_WAIT(0, "RateLimit: \"default\";r=50;t=30");
	CHECK_WAIT(0, "RateLimit: \"default\";r=0");
	CHECK_WAIT(0, "RateLimit: \"default\";t=30");
	CHECK_WAIT(0, "RateLimit-Policy: \"default\";q=0;w=30");
	CHECK_WAIT(5000, "RateLimit: \"burst\";r=0;t=5, \"day\";r=900;t=50000");
	CHECK_WAIT(50000, "RateLimit: \"burst\";r=0;t=5, \"day\";r=0;t=50");
	CHECK_WAIT(50000, "RateLimit: \"burst\";r=0;t=5", "RateLimit: \"day\";r=0;t=50");
	CHECK_WAIT(0, "RateLimit: \"burst\";r=0, \"day\";t=50");
	CHECK_WAIT(0, "RateLimit: \"burst;r=0;t=50");
	CHECK_WAIT(0, "RateLimit: \"a\";r=0;t=5, \"burst;r=0;t=50");
	CHECK_WAIT(0, "RateLimit: \"a\";r=-1;t=5");
	CHECK_WAIT(0, "RateLimit: \"a\";r=0;t=1795200060");
	CHECK_WAIT(86400000, "RateLimit: \"a\";r=0;t=100000");

	/* the form of a draft between */
	CHECK_WAIT(30000, "RateLimit: limit=100, remaining=0, reset=30");
	CHECK_WAIT(0, "RateLimit: limit=100, remaining=7, reset=30");
}

static void
test_nonsense(void)
{
	static const char *const bad[] = {
		"", " ", "-1", "+5", "1e3", "0x10", "5 s", "soon", ".5", "5.", "5..5", "1.2.3", ";", ",", "\"",
		"99999999999999999999999", "9000000000000", "2026-11-20T16:01:00Z", "\xff\xfe"
	};
	RetryRateLimit limit = {{0}};

	for (int i = 0; i < (int) lengthof(bad); i++)
	{
		char		line[100];

		snprintf(line, sizeof(line), "X-RateLimit-Reset: %s", bad[i]);
		CHECK_WAIT(0, "X-RateLimit-Remaining: 0", line);
		snprintf(line, sizeof(line), "RateLimit-Remaining: %s", bad[i]);
		CHECK_WAIT(0, "RateLimit-Reset: 30", line);
		snprintf(line, sizeof(line), "RateLimit: %s", bad[i]);
		CHECK_WAIT(0, line);
		snprintf(line, sizeof(line), "RateLimit: \"a\";r=0;t=%s", bad[i]);
		CHECK_WAIT(0, line);
	}
	CHECK(!retry_ratelimit_field(&limit, "Retry-After", 11, "5", 1, NOW), "another header is not meant");
	CHECK(!retry_ratelimit_field(&limit, "X-", 2, "5", 1, NOW), "nor half a name");
	CHECK(!retry_ratelimit_field(&limit, "RateLimits", 10, "5", 1, NOW), "nor one with more letters");
	CHECK(retry_ratelimit_field(&limit, "X-RateLimit-Used", 16, "5", 1, NOW), "one of the family that is of no use is known");
	CHECK_INT(retry_ratelimit_wait_us(&limit, NOW * SECOND, RETRY_AFTER_CAP_US), 0, "and nothing is to be waited for");
}

int
main(void)
{
	test_plain();
	test_x();
	test_structured();
	test_nonsense();
	return check_done();
}
