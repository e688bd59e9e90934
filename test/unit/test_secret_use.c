/*
 * test_secret_use.c
 *		Unit test of how secrets get into requests of chat robots and pagers.
 *
 * The signatures were made by Python's hmac from the makers' descriptions.
 */
#include "postgres.h"

#include "../../src/secret_use.h"
#include "check.h"

#define SECRET "SECabc+/\"x"

static bool
writes(RetrySecretUse use, const char *secret, int64 unix_ms, const char *expected)
{
	char	   *out = malloc(retry_secret_use_room(strlen(secret)));
	size_t		len = retry_secret_use_write(use, secret, strlen(secret), unix_ms, out);
	bool		same = len == strlen(expected) && strcmp(out, expected) == 0;

	if (!same)
		printf("# %s\n", out);
	free(out);
	return same;
}

static void
test_pieces(void)
{
	char		secret[2001];

	CHECK(writes(RETRY_USE_DINGTALK, SECRET, INT64CONST(1700000000123),
				 "timestamp=1700000000123&sign=OvWLOHBwfwVcF1oThTSXPMrnlIZnd%2FDGMBoEFrGzWkQ%3D"), "DingTalk");
	CHECK(writes(RETRY_USE_FEISHU, SECRET, INT64CONST(1700000000123),
				 "\"timestamp\":\"1700000000\",\"sign\":\"KM6QfIqyzaoh8Z0mEjGt+Qkjym1lR+lyWloZ7uznbg4=\""), "Feishu");
	CHECK(writes(RETRY_USE_PAGERDUTY, "R0\"\\\n\x01", 0, "\"routing_key\":\"R0\\\"\\\\\\u000a\\u0001\""), "PagerDuty, escaped");
	CHECK(writes(RETRY_USE_WEBHOOK, SECRET, 0, ""), "nothing of webhooks");

	/* within the room, whatever the bytes: seen by valgrind */
	memset(secret, 1, sizeof(secret) - 1);
	secret[sizeof(secret) - 1] = '\0';
	for (int use = RETRY_USE_DINGTALK; use < RETRY_USES; use++)
	{
		char	   *out = malloc(retry_secret_use_room(sizeof(secret) - 1));

		CHECK(retry_secret_use_write(use, secret, sizeof(secret) - 1, PG_INT64_MAX, out) <
			  retry_secret_use_room(sizeof(secret) - 1), "long secrets fit");
		free(out);
	}
}

static void
test_places(void)
{
	static const struct
	{
		const char *body;
		size_t		place;
		bool		empty;
	}			cases[] = {
		{"{\"a\":1}", 1, false}, {" \n{ }", 3, true}, {"{}", 1, true}, {"{", 1, false},
		{"", 0, false}, {"  ", 0, false}, {"[1]", 0, false}, {"x{}", 0, false}
	};

	for (int i = 0; i < lengthof(cases); i++)
	{
		bool		empty = false;

		CHECK(retry_secret_use_place(cases[i].body, strlen(cases[i].body), &empty) == cases[i].place &&
			  empty == cases[i].empty, "members of '%s'", cases[i].body);
	}
}

int
main(void)
{
	RetrySecretUse use;

	test_pieces();
	test_places();
	CHECK(retry_secret_use_named("feishu", &use) && use == RETRY_USE_FEISHU, "a word");
	CHECK(!retry_secret_use_named("lark", &use), "no word");
	return check_done();
}
