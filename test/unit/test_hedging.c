/*
 * test_hedging.c
 *		Unit test of the rules of hedging: when, and which answer counts.
 *
 * Each pair of ends of one attempt has exactly one outcome, whatever the order
 * in which they come; the table of them is checked whole.
 */
#include "postgres.h"

#include "../../src/hedging.h"
#include "check.h"

#define MS		INT64CONST(1000)
#define SEC		(1000 * MS)

static void
test_when(void)
{
	RetryHistogram h = {{0}};
	int64		after;

	CHECK_INT(retry_hedging_after(NULL, SEC), -1, "nothing known");
	CHECK_INT(retry_hedging_after(&h, SEC), -1, "nothing seen");
	for (int i = 0; i < 19; i++)
		retry_histogram_add(&h, 100 * MS, SEC);
	CHECK_INT(retry_hedging_after(&h, 10 * SEC), -1, "too little seen");
	retry_histogram_add(&h, 100 * MS, SEC);
	after = retry_hedging_after(&h, 10 * SEC);
	CHECK(after > 75 * MS && after < 130 * MS, "enough: about as long as nearly all took (%lld)", (long long) after);
	CHECK_INT(retry_hedging_after(&h, after), -1, "not when it times out by then");
	CHECK_INT(retry_hedging_after(&h, after + 1), after, "but right before");

	for (int i = 0; i < 76; i++)
		retry_histogram_add(&h, 100 * MS, SEC);
	for (int i = 0; i < 4; i++)
		retry_histogram_add(&h, 9 * SEC, SEC);
	after = retry_hedging_after(&h, 30 * SEC);
	CHECK(after < 130 * MS, "four slow ones in a hundred do not count (%lld)", (long long) after);
	for (int i = 0; i < 10; i++)
		retry_histogram_add(&h, 9 * SEC, SEC);
	after = retry_hedging_after(&h, 30 * SEC);
	CHECK(after > 6 * SEC, "a tenth of them does (%lld)", (long long) after);

	memset(&h, 0, sizeof(h));
	for (int i = 0; i < 100; i++)
		retry_histogram_add(&h, 200, SEC);
	CHECK_INT(retry_hedging_after(&h, SEC), 5 * MS, "never at once, however quick they are");
	retry_histogram_forget(&h, 100 * 60 * SEC);
	CHECK_INT(retry_hedging_after(&h, SEC), -1, "what is long ago is not known any more");
}

static void
test_which(void)
{
	static const struct
	{
		RetryHedgeEnd end;
		int			rank;		/* 2 settles it, 1 an answer, 0 none */
		const char *name;
	}			ends[] = {
		{{true, 200}, 2, "200"}, {{true, 404}, 2, "404"}, {{true, 301}, 2, "301"}, {{true, 410}, 2, "410"},
		{{true, 500}, 1, "500"}, {{true, 503}, 1, "503"}, {{true, 429}, 1, "429"}, {{true, 408}, 1, "408"},
		{{false, 200}, 1, "200 cut off"}, {{false, 0}, 0, "no answer"}
	};

	for (int i = 0; i < lengthof(ends); i++)
	{
		CHECK(retry_hedging_settles(&ends[i].end) == (ends[i].rank == 2), "%s %s", ends[i].name,
			  ends[i].rank == 2 ? "settles it" : "waits for the other");
		if (ends[i].rank == 2)
			continue;
		for (int k = 0; k < lengthof(ends); k++)
			CHECK(retry_hedging_later_counts(&ends[i].end, &ends[k].end) ==
				  (ends[k].rank > ends[i].rank), "%s, then %s", ends[i].name, ends[k].name);
	}
}

int
main(void)
{
	test_when();
	test_which();
	return check_done();
}
