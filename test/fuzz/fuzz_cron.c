/*
 * fuzz_cron.c
 *		libFuzzer entry point for the cron leaf.
 *
 * The input is a moment, a time zone of four random changes, and a schedule.
 * Whatever is accepted must read back from its canonical text, and its next
 * occurrence must lie after the moment, follow the one of an earlier moment,
 * and, unless it is at a change of the offset, match the schedule on the clock
 * on the wall.
 *
 *		clang -fsanitize=fuzzer,address,undefined -I$(pg_config --includedir-server)
 *			test/fuzz/fuzz_cron.c src/cron.c -L$(pg_config --pkglibdir) -lpgcommon -lpgport
 */
#include "postgres.h"

#include <time.h>

#include "../../src/cron.h"

#define REQUIRE(cond) do { if (!(cond)) __builtin_trap(); } while (0)
#define CHANGES		4

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

typedef struct Arguments
{
	TimestampTz after;
	uint32		gap[CHANGES];	/* seconds from one change to the next */
	int32		offset[CHANGES];	/* seconds */
	int64		first;			/* moment of the first change */
} Arguments;

static void
next_change(const void *opaque, int64 at, int32 *offset, int64 *change)
{
	const Arguments *a = opaque;

	*offset = 0;
	*change = a->first;
	for (int i = 0; i < CHANGES && *change <= at; i++)
	{
		*offset = a->offset[i] % 86400;
		*change = i + 1 < CHANGES ? *change + a->gap[i] % 40000000 + 1 :
			PG_INT64_MAX;
	}
}

/* Does local time match, by libc's calendar? */
static bool
matches(const RetryCron *cron, int64 local)
{
	time_t		t = local;
	struct tm	tm;
	bool		day;
	bool		weekday;

	gmtime_r(&t, &tm);
	day = (cron->days >> tm.tm_mday) & 1;
	weekday = (cron->weekdays >> tm.tm_wday) & 1;
	return tm.tm_sec == 0 && ((cron->minutes >> tm.tm_min) & 1) &&
		((cron->hours >> tm.tm_hour) & 1) &&
		((cron->months >> (tm.tm_mon + 1)) & 1) &&
		((cron->flags & (RETRY_CRON_DAY_STAR | RETRY_CRON_WEEKDAY_STAR)) ?
		 day && weekday : day || weekday);
}

static void
check_next(const RetryCron *cron, Arguments *a)
{
	RetryZone	zone = {next_change, a};
	TimestampTz next = 0;
	TimestampTz sooner = 0;
	int32		offset;
	int32		before;
	int64		change;
	int64		at;

	/* in the years -2000 to 6000 libc and the result have room */
	a->after %= INT64CONST(4000) * 365 * USECS_PER_DAY;
	a->first = a->after / USECS_PER_SEC + INT64CONST(946684800) +
		a->first % 40000000;
	REQUIRE(retry_cron_next(cron, a->after, &zone, &next));
	REQUIRE(next > a->after && next % USECS_PER_SEC == 0);
	REQUIRE(retry_cron_next(cron, a->after - USECS_PER_HOUR, &zone, &sooner));
	REQUIRE(sooner <= next && (sooner == next || sooner <= a->after));
	at = next / USECS_PER_SEC + INT64CONST(946684800);
	next_change(a, at, &offset, &change);
	next_change(a, at - 1, &before, &change);
	REQUIRE(matches(cron, at + offset) || offset > before);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	Arguments	a;
	RetryCron	cron;
	RetryCron	again;
	RetryParseError err = {-1, -1, NULL, NULL};
	char		text[RETRY_CRON_TEXT_SIZE];
	const char *schedule;
	int			len;

	if (size < sizeof(a))
		return 0;
	memcpy(&a, data, sizeof(a));
	schedule = (const char *) data + sizeof(a);
	size -= sizeof(a);
	if (!retry_cron_parse(schedule, (int) size, &cron, &err))
	{
		REQUIRE(err.part_at >= 0 && err.part_len >= 0 && err.reason && err.hint);
		REQUIRE(err.part_at + err.part_len <= size);
		return 0;
	}
	len = retry_cron_format(&cron, text, sizeof(text));
	REQUIRE(len < sizeof(text) && len == strlen(text));
	memset(&again, 0x55, sizeof(again));
	REQUIRE(retry_cron_parse(text, len, &again, &err));
	REQUIRE(memcmp(&cron, &again, sizeof(cron)) == 0);
	check_next(&cron, &a);
	return 0;
}
