/*
 * test_decision.c
 *		What the answers to a check say, and what says nothing.
 *
 * A word too many delivers what was never committed, so whatever is not exactly
 * one of the forms that are documented must leave the message undecided.
 */
#include "postgres.h"

#include "../../src/decision.h"
#include "../../src/part.h"
#include "check.h"

static void
check_body(const char *body, RetryDecision want)
{
	/* a block of exactly its size, for the sanitizers */
	size_t		len = strlen(body);
	char	   *copy = malloc(len > 0 ? len : 1);
	RetryDecision got;

	memcpy(copy, body, len);
	got = retry_decision_read(copy, len);
	free(copy);
	CHECK(got == want, "%s: %s (got %s)", body, retry_decision_word(want), retry_decision_word(got));
}

static void
test_words(void)
{
	check_body("commit", RETRY_COMMIT);
	check_body("rollback", RETRY_ROLLBACK);
	check_body(" \r\n\tcommit\n", RETRY_COMMIT);
	check_body("\"commit\"", RETRY_COMMIT);
	check_body(" \"rollback\" ", RETRY_ROLLBACK);
	check_body("", RETRY_UNDECIDED);
	check_body("  ", RETRY_UNDECIDED);
	check_body("unknown", RETRY_UNDECIDED);
	check_body("COMMIT", RETRY_UNDECIDED);
	check_body("committed", RETRY_UNDECIDED);
	check_body("comm", RETRY_UNDECIDED);
	check_body("commit rollback", RETRY_UNDECIDED);
	check_body("do not commit", RETRY_UNDECIDED);
	check_body("\"commit", RETRY_UNDECIDED);
	check_body("\"commit\"x", RETRY_UNDECIDED);
	check_body("\"commit\\\"", RETRY_UNDECIDED);
	check_body("\"", RETRY_UNDECIDED);
	check_body("\"\\", RETRY_UNDECIDED);
	check_body("[\"commit\"]", RETRY_UNDECIDED);
	check_body("true", RETRY_UNDECIDED);
}

static void
test_objects(void)
{
	check_body("{\"decision\":\"commit\"}", RETRY_COMMIT);
	check_body("{ \"decision\" : \"rollback\" }\n", RETRY_ROLLBACK);
	check_body("{\"a\":1,\"decision\":\"commit\"}", RETRY_COMMIT);
	check_body("{\"decision\": \"commit\", \"why\": [1, {\"x\": \"}\"}, \"],\\\"\"], \"n\": null}", RETRY_COMMIT);
	check_body("{\"a\": {\"decision\": \"rollback\"}, \"decision\": \"commit\"}", RETRY_COMMIT);
	check_body("{\"a\": {\"decision\": \"commit\"}}", RETRY_UNDECIDED);
	check_body("{}", RETRY_UNDECIDED);
	check_body("{\"decision\":\"unknown\"}", RETRY_UNDECIDED);
	check_body("{\"decision\":commit}", RETRY_UNDECIDED);
	check_body("{\"decision\":[\"commit\"]}", RETRY_UNDECIDED);
	check_body("{\"Decision\":\"commit\"}", RETRY_UNDECIDED);
	check_body("{\"decision\":\"commit\",\"decision\":\"rollback\"}", RETRY_UNDECIDED);
	check_body("{\"decision\":\"commit\",\"decision\":1}", RETRY_UNDECIDED);
	check_body("{\"x\":\"decision\",\"y\":\"commit\"}", RETRY_UNDECIDED);
	check_body("{\"a\":\"\\\"decision\\\":\\\"commit\\\"\"}", RETRY_UNDECIDED);
	check_body("{\"decision\":\"commit\"}}", RETRY_UNDECIDED);
	check_body("{\"decision\":\"commit\"} x", RETRY_UNDECIDED);
	check_body("{\"decision\":\"commit\"]", RETRY_UNDECIDED);
	check_body("{\"decision\":\"commit\",}", RETRY_UNDECIDED);
	check_body("{,\"decision\":\"commit\"}", RETRY_UNDECIDED);
	check_body("{\"decision\" \"commit\"}", RETRY_UNDECIDED);
}

/* However much of an answer is lost at its end, what is left decides nothing. */
static void
test_cut(void)
{
	static const char whole[] = "{\"a\": [1, \"}\"], \"decision\": \"commit\", \"b\": {\"c\": 1}}";
	bool		good = true;

	for (size_t len = 0; len < strlen(whole); len++)
		good &= retry_decision_read(whole, len) == RETRY_UNDECIDED;
	CHECK(good, "an object that was cut anywhere decides nothing");
	CHECK(retry_decision_read(whole, strlen(whole)) == RETRY_COMMIT, "and whole it does");
}

int
main(void)
{
	test_words();
	test_objects();
	test_cut();
	CHECK(retry_part("retry:decide") == RETRY_PART_CHECK && retry_part("retry:must") == RETRY_PART_MUST &&
		  retry_part("retry:first") == RETRY_PART_FIRST && retry_part("retry:timer") == RETRY_PART_TIMER &&
		  retry_part(NULL) == RETRY_PART_NONE && retry_part("shop/paid") == RETRY_PART_NONE &&
		  retry_part("retry:") == RETRY_PART_NONE && retry_part("retry:decided") == RETRY_PART_NONE,
		  "what a task is to a transaction is told by its mark");
	return check_done();
}
