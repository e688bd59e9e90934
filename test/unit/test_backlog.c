/*
 * test_backlog.c
 *		Unit test of the estimate of what is due: exact where it can be, within
 *		bounds where it cannot, and never beyond them.
 */
#include "postgres.h"

#include "../../src/backlog.h"
#include "check.h"

#define SEC		USECS_PER_SEC

/* What is due when it becomes known is counted one by one. */
static void
check_due(void)
{
	RetryBacklog b = {0};

	CHECK(retry_backlog_due(&b, 0) == 0, "nothing at first");
	retry_backlog_add(&b, 1000000, 5 * SEC, 10 * SEC);
	CHECK(retry_backlog_due(&b, 10 * SEC) == 1000000, "what is due counts whole");
	for (int i = 0; i < 400000; i++)
		retry_backlog_read(&b, 5 * SEC);
	CHECK(retry_backlog_due(&b, 10 * SEC) == 600000, "and what is read does not");
	retry_backlog_drained(&b, 10 * SEC);
	CHECK(retry_backlog_due(&b, 10 * SEC) == 0, "read to the end: nothing");
	retry_backlog_read(&b, 5 * SEC);
	CHECK(retry_backlog_due(&b, 10 * SEC) == 0, "never less than nothing");
	retry_backlog_add(&b, PG_UINT32_MAX, 0, SEC);
	retry_backlog_add(&b, 5, 0, SEC);
	CHECK(retry_backlog_due(&b, SEC) == PG_UINT32_MAX, "nor more than there can be");
}

/* What is to be due later becomes due as time passes, without a call. */
static void
check_later(void)
{
	RetryBacklog b = {0};

	for (int i = 0; i < 100; i++)
		retry_backlog_add(&b, 1, (100 + i) * SEC, 0);
	CHECK(retry_backlog_due(&b, 99 * SEC) == 0, "not before the first");
	CHECK(retry_backlog_due(&b, 100 * SEC) >= 1, "from the first on");
	CHECK(retry_backlog_due(&b, 150 * SEC) >= 45 && retry_backlog_due(&b, 150 * SEC) <= 55, "half of them in the middle");
	CHECK(retry_backlog_due(&b, 200 * SEC) == 100, "all after the last");

	/* read as they become due */
	for (int i = 0; i < 50; i++)
		retry_backlog_read(&b, (100 + i) * SEC);
	retry_backlog_drained(&b, 149 * SEC);
	CHECK(retry_backlog_due(&b, 149 * SEC) <= 1, "read to the end in the middle");
	CHECK(retry_backlog_due(&b, 1000 * SEC) >= 48 && retry_backlog_due(&b, 1000 * SEC) <= 50, "the rest comes later");
	retry_backlog_drained(&b, 1000 * SEC);
	CHECK(retry_backlog_due(&b, 2000 * SEC) == 0, "and is read too");
}

/* What is delayed for long does not blur what is due soon. */
static void
check_kinds(void)
{
	RetryBacklog b = {0};

	retry_backlog_add(&b, 1000, 60 * SEC, 0);
	retry_backlog_add(&b, 1, 20 * USECS_PER_DAY, 0);
	CHECK(retry_backlog_due(&b, 61 * SEC) == 1000, "a thousand in a minute, one in twenty days");
	for (int i = 0; i < 1000; i++)
		retry_backlog_read(&b, 60 * SEC);
	CHECK(retry_backlog_due(&b, 61 * SEC) == 0, "the thousand are read");
	CHECK(retry_backlog_due(&b, 20 * USECS_PER_DAY) == 1, "the one is not");
}

int
main(void)
{
	check_due();
	check_later();
	check_kinds();
	return check_done();
}
