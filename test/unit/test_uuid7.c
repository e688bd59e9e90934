/*
 * test_uuid7.c
 *		Ids of tasks: their bits, their order, and the moment they carry.
 *
 * The leaf a task lies in, the order of a batch and the bulk of its index's
 * locality depend on these ids.  The clock is an argument, so the test can
 * stop it, set it back and let it jump, which no test with a server could.
 */
#include "postgres.h"

#include "../../src/uuid7.h"

#include "check.h"

#define SHIFT_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

static const uint8 ones[RETRY_UUID7_RANDOM] = {255, 255, 255, 255, 255, 255, 255, 255};
static const uint8 zeros[RETRY_UUID7_RANDOM] = {0};

static int
compare(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a->data, b->data, UUID_LEN);
}

/* The example of RFC 9562, appendix A.6, but for the bits that are ours. */
static void
test_bits(void)
{
	RetryUuid7State state = {0};
	TimestampTz at = INT64CONST(1645557742000000) - SHIFT_US;
	static const uint8 want[UUID_LEN] = {
		0x01, 0x7F, 0x22, 0xE2, 0x79, 0xB0, 0x70, 0x00,
		0xBF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF
	};
	pg_uuid_t	id;

	retry_uuid7_make(&state, at, ones, &id);
	CHECK(memcmp(id.data, want, UUID_LEN) == 0, "milliseconds, version and variant are where RFC 9562 has them");

	memset(&state, 0, sizeof(state));
	retry_uuid7_make(&state, at + 500, zeros, &id);
	CHECK_INT(id.data[6], 0x78, "half a millisecond: upper bits of the fraction");
	CHECK_INT(id.data[7], 0x00, "half a millisecond: lower bits of the fraction");
	CHECK_INT(id.data[8], 0x80, "the variant is set over random bits that are zero");
}

static void
test_time(void)
{
	TimestampTz base = INT64CONST(1645557742000000) - SHIFT_US;
	TimestampTz got;
	pg_uuid_t	id;
	int			wrong = 0;

	for (int us = 0; us < 2000; us++)
	{
		RetryUuid7State state = {0};

		retry_uuid7_make(&state, base + us, zeros, &id);
		if (!retry_uuid7_time(&id, &got) || got != base + us)
			wrong++;
	}
	CHECK_INT(wrong, 0, "each microsecond of two milliseconds is read back exactly");

	id.data[6] = 0x40 | (id.data[6] & 0x0F);
	CHECK(!retry_uuid7_time(&id, &got), "version 4 carries no time");
	id.data[6] = 0x70;
	id.data[8] = 0xC0;
	CHECK(!retry_uuid7_time(&id, &got), "another variant carries no time");
}

static void
test_order(void)
{
	RetryUuid7State state = {0};
	TimestampTz now = 0;
	TimestampTz got;
	pg_uuid_t	last;
	pg_uuid_t	id;
	int			wrong = 0;

	retry_uuid7_make(&state, now, ones, &last);
	for (int i = 0; i < 100000; i++)
	{
		/* the clock stands still for 50 ids, then ticks */
		if (i % 50 == 49)
			now++;
		retry_uuid7_make(&state, now, zeros, &id);
		if (compare(&last, &id) >= 0)
			wrong++;
		last = id;
	}
	CHECK_INT(wrong, 0, "100,000 ids, 50 to each microsecond, ascend strictly");
	retry_uuid7_time(&id, &got);
	CHECK(got - now < 100000, "they are no further ahead of the clock than their number tells");

	now -= 9000000;
	retry_uuid7_make(&state, now, zeros, &id);
	CHECK(compare(&last, &id) < 0, "they ascend also when the clock is set back by 9 s");

	now -= INT64CONST(3600000000);
	retry_uuid7_make(&state, now, zeros, &id);
	retry_uuid7_time(&id, &got);
	CHECK(got == now, "set back by an hour, the clock counts again");

	now += INT64CONST(7200000000);
	retry_uuid7_make(&state, now, zeros, &id);
	retry_uuid7_time(&id, &got);
	CHECK(got == now, "set forward by two hours, the clock counts");
}

static void
test_ends(void)
{
	RetryUuid7State state = {0};
	TimestampTz got;
	pg_uuid_t	id;

	retry_uuid7_make(&state, -SHIFT_US - 1, zeros, &id);
	retry_uuid7_time(&id, &got);
	CHECK(got <= -SHIFT_US + 1, "a moment before 1970 counts as 1970");
	retry_uuid7_make(&state, INT64CONST(9000000000) * USECS_PER_SEC / 3, zeros, &id);
	CHECK(retry_uuid7_time(&id, &got) && got == INT64CONST(9000000000) * USECS_PER_SEC / 3,
		  "the year 2095 is read back exactly");
}

/* No id of a moment is below its bound, and what is below is little. */
static void
test_bound(void)
{
	TimestampTz moment = INT64CONST(800000000000000);
	TimestampTz got;
	pg_uuid_t	bound;
	pg_uuid_t	id;
	bool		above = true;
	bool		below = true;

	for (int us = 0; us < 3000; us++)
	{
		RetryUuid7State state = {0};

		retry_uuid7_bound(moment + us, &bound);
		retry_uuid7_make(&state, moment + us, zeros, &id);
		above = above && compare(&bound, &id) < 0;
		state.last = 0;
		retry_uuid7_make(&state, moment + us - 2000, zeros, &id);
		below = below && compare(&bound, &id) > 0;
	}
	CHECK(above, "no id of a moment is below its bound");
	CHECK(below, "ids of two milliseconds before are below it");

	/* the greatest fraction of a millisecond is read back as the next one */
	memset(&id, 0, sizeof(id));
	retry_uuid7_bound(moment + 1000, &id);
	id.data[6] = 0x7F;
	id.data[7] = 0xFF;
	id.data[8] = 0x80;
	retry_uuid7_time(&id, &got);
	retry_uuid7_bound(got, &bound);
	CHECK(compare(&bound, &id) < 0, "also when its fraction is rounded up");

	memset(&id, 0, sizeof(id));
	retry_uuid7_bound(DT_NOBEGIN, &bound);
	CHECK(compare(&bound, &id) == 0, "minus infinity is the first");
	retry_uuid7_bound(-SHIFT_US, &bound);
	CHECK(compare(&bound, &id) == 0, "1970 is the first");
	memset(&id, 0xFF, 6);
	retry_uuid7_bound(DT_NOEND, &bound);
	CHECK(compare(&bound, &id) == 0, "infinity is the last");
	retry_uuid7_bound(DT_NOEND - 1, &bound);
	CHECK(compare(&bound, &id) == 0, "what ids cannot carry too");
}

int
main(void)
{
	test_bits();
	test_time();
	test_order();
	test_ends();
	test_bound();
	return check_done();
}
