/*
 * fuzz_backoff.c
 *		libFuzzer entry point for the backoff leaves.
 *
 * Any text must be refused with a part that lies in it, or be accepted with a
 * canonical text that reads back to the same bytes and is its own canonical
 * text; and whatever was accepted must give delays and moments within their
 * bounds for arguments that the fuzzer chooses too.
 *
 *		clang -fsanitize=fuzzer,address,undefined -I$(pg_config --includedir-server)
 *			test/fuzz/fuzz_backoff.c src/backoff.c src/backoff_text.c src/cron.c
 *			-L$(pg_config --pkglibdir) -lpgcommon -lpgport
 */
#include "postgres.h"

#include "../../src/compat.h"
#include "../../src/backoff.h"

#define REQUIRE(cond) do { if (!(cond)) __builtin_trap(); } while (0)

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

typedef struct Arguments
{
	int32		attempt_no;
	int32		pad;
	TimestampTz ended_at;
	int64		previous_us;
	uint64		random;
} Arguments;

static void
check_text(const RetryBackoff *b)
{
	RetryBackoff again;
	RetryParseError err;
	char		text[RETRY_BACKOFF_TEXT_SIZE];
	char		text2[RETRY_BACKOFF_TEXT_SIZE];
	int			len = retry_backoff_format(b, text, sizeof(text));

	memset(&again, 0x55, sizeof(again));
	REQUIRE(len < sizeof(text) && len == strlen(text));
	REQUIRE(retry_backoff_parse(text, &again, &err));
	REQUIRE(VARSIZE(b) == VARSIZE(&again) && VARSIZE(b) <= sizeof(*b));
	REQUIRE(memcmp(b, &again, sizeof(again)) == 0);
	REQUIRE(retry_backoff_format(&again, text2, sizeof(text2)) == len);
	REQUIRE(strcmp(text, text2) == 0);
}

static void
check_moments(const RetryBackoff *b, const Arguments *a)
{
	TimestampTz next;
	RetryWindow w;
	int64		delay = retry_backoff_delay_us(b, a->attempt_no,
											   a->previous_us, a->random);

	REQUIRE(delay >= 0 && delay <= 2 * RETRY_BACKOFF_LIMIT_MS * 1000);
	next = retry_backoff_next(b, a->attempt_no, a->ended_at, a->previous_us,
							  a->random, NULL);
	retry_backoff_window(b, a->attempt_no, a->ended_at, a->previous_us, NULL, &w);
	REQUIRE(w.earliest <= w.at && w.at <= w.latest);
	if (TIMESTAMP_NOT_FINITE(a->ended_at))
		REQUIRE(next == a->ended_at);
	else if (IS_VALID_TIMESTAMP(a->ended_at))
	{
		REQUIRE(w.earliest <= next && next <= w.latest);
		REQUIRE(next >= a->ended_at && IS_VALID_TIMESTAMP(next));
	}
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	char		text[2048];
	Arguments	a;
	RetryBackoff b;
	RetryParseError err = {-1, -1, NULL, NULL};

	if (size < sizeof(a) || size - sizeof(a) >= sizeof(text))
		return 0;
	memcpy(&a, data, sizeof(a));
	size -= sizeof(a);
	memcpy(text, data + sizeof(a), size);
	text[size] = '\0';
	memset(&b, 0xAA, sizeof(b));
	if (retry_backoff_parse(text, &b, &err))
	{
		check_text(&b);
		check_moments(&b, &a);
		return 0;
	}
	REQUIRE(err.part_at >= 0 && err.part_len >= 0 && err.reason && err.hint);
	REQUIRE(err.part_at + err.part_len <= strlen(text));
	/* something can always be shown, unless there is nothing to show */
	REQUIRE(err.part_len > 0 || strspn(text, " \t\n\v\f\r") == strlen(text));
	return 0;
}
