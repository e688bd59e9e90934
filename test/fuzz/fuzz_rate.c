/*
 * fuzz_rate.c
 *		libFuzzer entry point for the rate leaf.
 *
 * Any text must be refused with a part that lies in it, or be accepted with a
 * canonical text that reads back to the same bytes; and a bucket of whatever
 * was accepted must never give more than its rate and its burst, whatever it
 * is asked and whenever.
 *
 *		clang -fsanitize=fuzzer,address,undefined -I$(pg_config --includedir-server)
 *			test/fuzz/fuzz_rate.c src/rate.c -L$(pg_config --pkglibdir) -lpgport
 */
#include "postgres.h"

#include "../../src/rate.h"

#define REQUIRE(cond) do { if (!(cond)) __builtin_trap(); } while (0)

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

static void
check_text(const RetryRate *rate)
{
	RetryRate	again;
	RetryParseError err;
	char		text[RETRY_RATE_TEXT_SIZE];
	int			len = retry_rate_format(rate, text, sizeof(text));

	memset(&again, 0x55, sizeof(again));
	REQUIRE(len < sizeof(text) && len == strlen(text));
	REQUIRE(retry_rate_valid(rate));
	REQUIRE(retry_rate_parse(text, &again, &err));
	REQUIRE(memcmp(rate, &again, sizeof(again)) == 0);
}

/* Each byte is a step: wait for some time, then take, reserve, or give back. */
static void
check_bucket(const RetryRate *rate, const uint8 *steps, size_t nsteps)
{
	RetryPace	pace;
	int64		now = INT64CONST(1) << 40;
	int64		start = now;
	int64		bucket;
	int64		given = 0;
	int64		last = 0;

	retry_rate_pace(rate, &pace);
	REQUIRE(pace.step >= 1024 && pace.slack >= 0);
	bucket = retry_bucket_full(&pace, now);
	for (size_t i = 0; i < nsteps; i++)
	{
		/* a gift would be more than was asked for, so none goes back untaken */
		now += (int64) 1 << (steps[i] >> 2) % 40;
		switch (steps[i] & 3)
		{
			case 0:
			case 1:
				given += retry_bucket_take(&pace, &bucket, now);
				break;
			case 2:
				REQUIRE(retry_bucket_reserve(&pace, &bucket, now) >= now);
				last = Max(last, retry_bucket_when(bucket));
				given++;
				break;
			default:
				if (given > 0)
				{
					retry_bucket_give_back(&pace, &bucket);
					given--;
				}
		}
		/* until the last moment given out: the burst, and a step each */
		REQUIRE((given - 1) * (double) pace.step <=
				(Max(now, last) - start) * 1024.0 + pace.slack + pace.step);
	}
	bucket = retry_bucket_convert(bucket, &pace, &pace, now);
	REQUIRE(retry_bucket_when(bucket) <= now + pace.step / 1024 + 1);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	char		text[64];
	size_t		len = 0;
	RetryRate	rate;
	RetryParseError err = {-1, -1, NULL, NULL};

	/* a text up to the first zero, then the steps */
	while (len < size && len < sizeof(text) - 1 && data[len] != '\0')
	{
		text[len] = data[len];
		len++;
	}
	text[len] = '\0';
	memset(&rate, 0xAA, sizeof(rate));
	if (retry_rate_parse(text, &rate, &err))
	{
		check_text(&rate);
		check_bucket(&rate, data + len, size - len);
		return 0;
	}
	REQUIRE(err.part_at >= 0 && err.part_len >= 0 && err.reason && err.hint);
	REQUIRE(err.part_at + err.part_len <= strlen(text));
	REQUIRE(err.part_len > 0 || strspn(text, " \t\n\v\f\r") == strlen(text));
	return 0;
}
