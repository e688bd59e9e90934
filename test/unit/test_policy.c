/*
 * test_policy.c
 *		Unit test of the policy leaf: every rule, their order, and the limits.
 *
 * A table says for each status and exchange what comes out; then come the
 * limits (attempts, expiry, Retry-After) with values on both sides of each,
 * and the ends of the ranges of times and numbers, where arithmetic could
 * overflow.
 */
#include "postgres.h"

#include "../../src/policy.h"
#include "check.h"

#define SEC		INT64CONST(1000000)
#define HOUR	(3600 * SEC)
#define DAY		(24 * HOUR)

/* 2025-01-01, in both of the epochs that policy deals with */
#define NOW			(INT64CONST(9132) * DAY)
#define NOW_UNIX	INT64CONST(1735689600)

static RetryBackoff backoff;
static RetryLimits limits;
static RetryRules rules;
static RetryEnd end;
static RetryVerdict verdict;

/* Everything as in the middle of an ordinary task's life. */
static void
reset(void)
{
	RetryParseError err;

	if (!retry_backoff_parse("fixed 10s", &backoff, &err))
		CHECK(false, "the backoff is accepted");
	retry_rules_default(&rules);
	memset(&limits, 0, sizeof(limits));
	limits.max_attempts = 16;
	limits.expires_at = DT_NOEND;
	limits.backoff = &backoff;
	memset(&end, 0, sizeof(end));
	end.exchange = RETRY_EXCHANGE_ANSWERED;
	end.http_status = 500;
	end.retry_control = "";
	end.attempt_no = 3;
	end.ended_at = NOW;
	end.random = UINT64CONST(0x123456789ABCDEF0);
}

static void
judge(void)
{
	verdict = retry_policy_judge(&end, &rules, &limits);
}

static void
is_dead(RetryOutcome outcome, RetryDeadReason reason, const char *name)
{
	judge();
	CHECK(verdict.terminal && verdict.outcome == outcome && verdict.reason == reason &&
		  verdict.next_due == 0, "%s", name);
}

static void
is_retried(RetryOutcome outcome, TimestampTz due, const char *name)
{
	judge();
	CHECK(!verdict.terminal && verdict.outcome == outcome, "%s: retried", name);
	CHECK_INT(verdict.next_due, due, name);
}

static void
test_statuses(void)
{
	static const int stops[] = {400, 405, 406, 411, 413, 414, 415, 422, 431, 451, 501, 505};

	for (int status = 0; status <= 999; status++)
	{
		RetryOutcome want = status >= 200 && status <= 299 ? RETRY_SUCCEEDED : RETRY_FAILED;
		bool		good;

		for (int i = 0; i < lengthof(stops); i++)
		{
			if (stops[i] == status)
				want = RETRY_STOPPED;
		}
		if (status == 410)
			want = RETRY_STOPPED;

		reset();
		end.http_status = status;
		judge();
		good = verdict.outcome == want &&
			verdict.terminal == (want != RETRY_FAILED) &&
			verdict.next_due == (want == RETRY_FAILED ? NOW + 10 * SEC : 0);
		if (want == RETRY_STOPPED)
			good = good && verdict.reason == (status == 410 ? RETRY_DEAD_GONE : RETRY_DEAD_STOPPED);
		if (!good || status % 100 == 0)
			CHECK(good, "status %d", status);
	}
}

static void
test_answers(void)
{
	reset();
	end.http_status = 200;
	end.body_cut = true;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "a 200 whose body broke off");

	reset();
	end.body_cut = true;
	end.http_status = 422;
	is_dead(RETRY_STOPPED, RETRY_DEAD_STOPPED, "a 422 whose body broke off");

	reset();
	end.retry_control = "stop";
	is_dead(RETRY_STOPPED, RETRY_DEAD_STOPPED, "Retry-Control: stop with a 500");
	end.http_status = 200;
	is_dead(RETRY_STOPPED, RETRY_DEAD_STOPPED, "Retry-Control: stop with a 200");
	end.http_status = 410;
	is_dead(RETRY_STOPPED, RETRY_DEAD_GONE, "a 410 wins over Retry-Control");

	reset();
	end.retry_control = "stopp";
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "an unknown Retry-Control");
	end.http_status = 204;
	judge();
	CHECK(verdict.outcome == RETRY_SUCCEEDED, "an unknown Retry-Control with a 204");
}

static void
test_exchanges(void)
{
	reset();
	end.http_status = 200;
	end.retry_control = "stop";
	end.retry_after.kind = RETRY_AFTER_SECONDS;
	end.retry_after.value = 100;

	end.exchange = RETRY_EXCHANGE_FAILED;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "a failed exchange, whatever else is set");
	end.http_status = 500;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "a failed exchange has no Retry-After");
	end.exchange = RETRY_EXCHANGE_INTERNAL;
	is_retried(RETRY_ERROR, NOW + 10 * SEC, "our own fault");
	end.exchange = RETRY_EXCHANGE_BLOCKED;
	is_dead(RETRY_BLOCKED, RETRY_DEAD_BLOCKED, "a blocked address");
	end.exchange = RETRY_EXCHANGE_REFUSED;
	is_dead(RETRY_STOPPED, RETRY_DEAD_STOPPED, "a request that cannot be sent");

	end.exchange = (RetryExchange) 77;
	is_retried(RETRY_ERROR, NOW + 10 * SEC, "an exchange of no known kind");
}

/*
 * The order of precedence: each of these is made true together with each that
 * comes after it, and must win.
 */
typedef enum Sign
{
	SIGN_GONE, SIGN_CONTROL_STOP, SIGN_CONTROL_PROCESSING, SIGN_STOP_WHEN, SIGN_PENDING_WHEN,
	SIGN_SUCCESS_WHEN, SIGN_STOP_STATUS, SIGN_SUCCESS_STATUS, SIGNS
} Sign;

static void
give(Sign sign)
{
	int			status = end.http_status;

	switch (sign)
	{
		case SIGN_GONE:
			end.http_status = 410;
			break;
		case SIGN_CONTROL_STOP:
			end.retry_control = "stop";
			break;
		case SIGN_CONTROL_PROCESSING:
			end.retry_control = "processing";
			break;
		case SIGN_STOP_WHEN:
			end.stop_when = true;
			break;
		case SIGN_PENDING_WHEN:
			end.pending_when = true;
			break;
		case SIGN_SUCCESS_WHEN:
			rules.success_when = end.success_when = true;
			break;
		case SIGN_STOP_STATUS:
			rules.stop_status.bits[(status - 100) / 32] |= UINT32_C(1) << (status - 100) % 32;
			break;
		case SIGN_SUCCESS_STATUS:
			rules.success_status.bits[(status - 100) / 32] |= UINT32_C(1) << (status - 100) % 32;
			break;
		default:
			break;
	}
}

static void
test_precedence(void)
{
	static const struct
	{
		const char *name;
		RetryOutcome outcome;
		bool		terminal;
		RetryDeadReason reason;
	}			want[SIGNS] =
	{
		{"410", RETRY_STOPPED, true, RETRY_DEAD_GONE},
		{"Retry-Control: stop", RETRY_STOPPED, true, RETRY_DEAD_STOPPED},
		{"Retry-Control: processing", RETRY_PROCESSING, false, RETRY_DEAD_EXHAUSTED},
		{"stop_when", RETRY_STOPPED, true, RETRY_DEAD_STOPPED},
		{"pending_when", RETRY_PROCESSING, false, RETRY_DEAD_EXHAUSTED},
		{"success_when", RETRY_SUCCEEDED, true, RETRY_DEAD_STOPPED},
		{"stop_status", RETRY_STOPPED, true, RETRY_DEAD_STOPPED},
		{"success_status", RETRY_SUCCEEDED, true, RETRY_DEAD_STOPPED},
	};

	for (int first = 0; first < SIGNS; first++)
	{
		for (int second = first; second < SIGNS; second++)
		{
			if (first == SIGN_CONTROL_STOP && second == SIGN_CONTROL_PROCESSING)
				continue;		/* one header has one value */
			reset();
			give((Sign) first);
			give((Sign) second);
			judge();
			CHECK(verdict.outcome == want[first].outcome && verdict.terminal == want[first].terminal &&
				  verdict.reason == want[first].reason, "%s with %s: the former counts",
				  want[first].name, want[second].name);
		}
	}

	reset();
	end.http_status = 200;
	rules.success_when = true;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "a 200 without the match that success_when wants");
	CHECK(verdict.why != NULL && strstr(verdict.why, "success_when") != NULL, "... and says so");
	end.http_status = 422;
	is_dead(RETRY_STOPPED, RETRY_DEAD_STOPPED, "a 422 without that match still stops");
	end.http_status = 500;
	judge();
	CHECK(verdict.why == NULL, "a 500 without that match says itself what it is");
	end.stop_when = true;
	judge();
	CHECK(verdict.why != NULL && strstr(verdict.why, "stop_when") != NULL, "stop_when is named");

	reset();
	retry_rules_default(&rules);
	memset(&rules.success_status, 0, sizeof(rules.success_status));
	end.http_status = 200;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "a 200 that is not in success_status");
	end.retry_after.kind = RETRY_AFTER_SECONDS;
	end.retry_after.value = 60;
	is_retried(RETRY_FAILED, NOW + 60 * SEC, "... with Retry-After");
}

/* What a function of this database returned: there is no status to go by. */
static void
test_returns(void)
{
	reset();
	end.exchange = RETRY_EXCHANGE_RETURNED;
	end.http_status = 0;
	judge();
	CHECK(verdict.outcome == RETRY_SUCCEEDED && verdict.terminal, "a function that returned");
	rules.success_when = true;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "without the match that success_when wants");
	end.success_when = true;
	judge();
	CHECK(verdict.outcome == RETRY_SUCCEEDED, "with that match");
	end.pending_when = true;
	is_retried(RETRY_PROCESSING, NOW + 60 * SEC, "pending_when counts before it");
	end.stop_when = true;
	is_dead(RETRY_STOPPED, RETRY_DEAD_STOPPED, "stop_when counts before both");
}

static void
test_stop_errors(void)
{
	RetryParseError err;

	reset();
	CHECK(retry_error_list_parse("tls,40001", &rules.stop_errors, &err), "a list of errors");
	end.exchange = RETRY_EXCHANGE_FAILED;
	end.http_status = 0;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "an error of no class");
	end.error_class = RETRY_CLASS_TIMEOUT;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "an error that is not in the list");
	end.sqlstate = MAKE_SQLSTATE('4', '0', '0', '0', '1');
	is_dead(RETRY_STOPPED, RETRY_DEAD_STOPPED, "an SQLSTATE that is");
	end.sqlstate = 0;
	end.error_class = RETRY_CLASS_TLS;
	is_dead(RETRY_STOPPED, RETRY_DEAD_STOPPED, "a class that is");
	end.exchange = RETRY_EXCHANGE_INTERNAL;
	is_retried(RETRY_ERROR, NOW + 10 * SEC, "our own fault is never the receiver's");

	end.exchange = RETRY_EXCHANGE_ANSWERED;
	end.http_status = 200;
	end.body_cut = true;
	is_dead(RETRY_STOPPED, RETRY_DEAD_STOPPED, "a body that broke off with such an error");
	end.error_class = RETRY_CLASS_CLOSED;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "and with another");
	end.error_class = RETRY_CLASS_TLS;
	end.body_cut = false;
	judge();
	CHECK(verdict.outcome == RETRY_SUCCEEDED, "no error, no matter which class");
}

static void
test_processing(void)
{
	RetryParseError err;

	reset();
	end.retry_control = "processing";
	end.http_status = 202;
	is_retried(RETRY_PROCESSING, NOW + 60 * SEC, "processing: after pending_interval");
	rules.pending_interval_us = 5 * SEC;
	is_retried(RETRY_PROCESSING, NOW + 5 * SEC, "another pending_interval");
	end.body_cut = true;
	end.retry_after.kind = RETRY_AFTER_SECONDS;
	end.retry_after.value = 60;
	is_retried(RETRY_PROCESSING, NOW + 60 * SEC, "Retry-After that is later, whatever the status");
	end.retry_after.value = 4;
	is_retried(RETRY_PROCESSING, NOW + 5 * SEC, "Retry-After that is earlier");

	reset();
	end.retry_control = "processing";
	end.attempt_no = limits.max_attempts + 40;
	end.pendings = 5;
	is_retried(RETRY_PROCESSING, NOW + 60 * SEC, "takes no place in max_attempts");
	limits.expires_at = NOW + 60 * SEC;
	is_retried(RETRY_PROCESSING, NOW + 60 * SEC, "at the very moment of expiry");
	limits.expires_at--;
	is_dead(RETRY_PROCESSING, RETRY_DEAD_EXPIRED, "later than the expiry");

	reset();
	end.retry_control = "processing";
	rules.pending_limit = 7;
	end.attempt_no = 9;
	end.pendings = 5;
	is_retried(RETRY_PROCESSING, NOW + 60 * SEC, "the last but one that pending_limit allows");
	end.pendings = 6;
	is_dead(RETRY_PROCESSING, RETRY_DEAD_EXHAUSTED, "the last");
	CHECK(verdict.why != NULL && strstr(verdict.why, "pending_limit") != NULL, "... and says so");
	end.pendings = 8;
	is_dead(RETRY_PROCESSING, RETRY_DEAD_EXHAUSTED, "more than that, when it was lowered");
	rules.pending_limit = 0;
	is_retried(RETRY_PROCESSING, NOW + 60 * SEC, "without a limit");

	reset();
	limits.max_attempts = 3;
	end.attempt_no = 7;
	end.pendings = 5;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "the second failure after five times processing");
	end.pendings = 4;
	is_dead(RETRY_FAILED, RETRY_DEAD_EXHAUSTED, "the third");
	retry_backoff_parse("linear 10s max 5m", &backoff, &err);
	limits.max_attempts = 16;
	is_retried(RETRY_FAILED, NOW + 30 * SEC, "the backoff's level counts likewise");

	reset();
	end.retry_control = "processing";
	end.ended_at = END_TIMESTAMP - 5;
	is_retried(RETRY_PROCESSING, END_TIMESTAMP - 1, "at the end of time");
	end.ended_at = DT_NOEND;
	is_retried(RETRY_PROCESSING, DT_NOEND, "at infinity");
}

/* Which attempts take no place in max_attempts. */
static void
test_pendings(void)
{
	for (int outcome = 0; outcome < RETRY_OUTCOMES; outcome++)
	{
		bool		none = outcome == RETRY_PROCESSING || outcome == RETRY_EXPIRED ||
			outcome == RETRY_BLOCKED;

		CHECK_INT(retry_policy_pendings(4, (RetryOutcome) outcome), none ? 5 : 4, "attempts that do not count");
	}
	reset();
	CHECK(!retry_policy_spent(19, 4, &limits, NOW, &verdict), "15 of 19 count: not spent");
	CHECK(retry_policy_spent(19, 3, &limits, NOW, &verdict), "16 of 19 count: spent");
}

static void
test_max_attempts(void)
{
	reset();
	end.attempt_no = 15;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "the last but one attempt");
	end.attempt_no = 16;
	is_dead(RETRY_FAILED, RETRY_DEAD_EXHAUSTED, "the last attempt");
	end.attempt_no = 17;
	is_dead(RETRY_FAILED, RETRY_DEAD_EXHAUSTED, "one more than allowed");
	end.exchange = RETRY_EXCHANGE_INTERNAL;
	is_dead(RETRY_ERROR, RETRY_DEAD_EXHAUSTED, "the last attempt, our own fault");

	end.exchange = RETRY_EXCHANGE_ANSWERED;
	end.http_status = 200;
	judge();
	CHECK(verdict.terminal && verdict.outcome == RETRY_SUCCEEDED, "success at the last attempt");

	reset();
	end.attempt_no = 1;
	limits.max_attempts = 1;
	is_dead(RETRY_FAILED, RETRY_DEAD_EXHAUSTED, "the only attempt");

	reset();
	end.attempt_no = PG_INT32_MAX;
	limits.max_attempts = PG_INT32_MAX;
	is_dead(RETRY_FAILED, RETRY_DEAD_EXHAUSTED, "the highest number there is");
	end.attempt_no--;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "the highest but one");
}

static void
test_expiry(void)
{
	reset();
	limits.expires_at = NOW + 10 * SEC;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "due at the very moment of expiry");
	limits.expires_at--;
	is_dead(RETRY_FAILED, RETRY_DEAD_EXPIRED, "due a microsecond too late");
	limits.max_attempts = 3;
	is_dead(RETRY_FAILED, RETRY_DEAD_EXHAUSTED, "no attempts left and no time either");
	end.http_status = 200;
	limits.expires_at = DT_NOBEGIN;
	judge();
	CHECK(verdict.outcome == RETRY_SUCCEEDED, "success after the expiry still counts");

	reset();
	end.exchange = RETRY_EXCHANGE_INTERNAL;
	limits.expires_at = NOW;
	is_dead(RETRY_ERROR, RETRY_DEAD_EXPIRED, "our own fault, and no time left");
}

static void
test_retry_after(void)
{
	reset();
	end.http_status = 503;
	end.retry_after.kind = RETRY_AFTER_SECONDS;
	end.retry_after.value = 60;
	is_retried(RETRY_FAILED, NOW + 60 * SEC, "later than the backoff");
	end.retry_after.value = 9;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "earlier than the backoff");
	end.retry_after.value = 0;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "at once");
	end.retry_after.value = 86400 * 30;
	is_retried(RETRY_FAILED, NOW + DAY, "at most a day");
	limits.expires_at = NOW + DAY - 1;
	is_dead(RETRY_FAILED, RETRY_DEAD_EXPIRED, "later than the expiry");
	limits.expires_at = DT_NOEND;

	end.retry_after.kind = RETRY_AFTER_DATE;
	end.retry_after.value = NOW_UNIX + 120;
	is_retried(RETRY_FAILED, NOW + 120 * SEC, "a date to come");
	end.retry_after.value = NOW_UNIX - 120;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "a date that is past");
	end.retry_after.value = INT64CONST(253402300799);
	is_retried(RETRY_FAILED, NOW + DAY, "the last second of the year 9999");

	end.retry_after.kind = RETRY_AFTER_SECONDS;
	end.retry_after.value = 60;
	end.http_status = 301;
	is_retried(RETRY_FAILED, NOW + 60 * SEC, "with a redirect");
	end.http_status = 300;
	is_retried(RETRY_FAILED, NOW + 60 * SEC, "with a 300");
	end.http_status = 299;
	end.body_cut = true;
	is_retried(RETRY_FAILED, NOW + 10 * SEC, "not with a 2xx");
}

static void
test_extremes(void)
{
	RetryParseError err;

	reset();
	retry_backoff_parse("fixed 365d", &backoff, &err);
	end.ended_at = END_TIMESTAMP - 5;
	is_retried(RETRY_FAILED, END_TIMESTAMP - 1, "at the end of time");
	end.http_status = 503;
	end.retry_after.kind = RETRY_AFTER_SECONDS;
	end.retry_after.value = 86400;
	is_retried(RETRY_FAILED, END_TIMESTAMP - 1, "Retry-After at the end of time");
	retry_backoff_parse("fixed 1ms", &backoff, &err);
	end.ended_at = END_TIMESTAMP - DAY - 1;
	is_retried(RETRY_FAILED, END_TIMESTAMP - 1, "a day before the end of time");
	end.ended_at++;
	is_retried(RETRY_FAILED, END_TIMESTAMP - 1, "and a microsecond less");
	end.ended_at -= 2;
	is_retried(RETRY_FAILED, END_TIMESTAMP - 2, "and a microsecond more");
	end.retry_after.kind = RETRY_AFTER_DATE;
	end.ended_at = END_TIMESTAMP - HOUR;
	is_retried(RETRY_FAILED, END_TIMESTAMP - HOUR + 1000, "a date in the past, near the end of time");

	end.ended_at = MIN_TIMESTAMP;
	is_retried(RETRY_FAILED, MIN_TIMESTAMP + DAY, "at the beginning of time");
	end.ended_at = DT_NOBEGIN;
	is_retried(RETRY_FAILED, DT_NOBEGIN, "at minus infinity");
	end.ended_at = DT_NOEND;
	is_retried(RETRY_FAILED, DT_NOEND, "at infinity");
	limits.expires_at = END_TIMESTAMP;
	is_dead(RETRY_FAILED, RETRY_DEAD_EXPIRED, "at infinity, with an expiry");
}

/* An hour east of Greenwich, for ever. */
static void
one_hour_east(const void *opaque, int64 at, int32 *offset, int64 *change)
{
	*offset = SECS_PER_HOUR;
	*change = PG_INT64_MAX;
}

/* What the backoff is given: number, previous delay, random bits, zone. */
static void
test_backoff_arguments(void)
{
	RetryParseError err;
	RetryZone	zone = {one_hour_east, NULL};
	TimestampTz want;

	reset();
	retry_backoff_parse("linear 10s max 5m", &backoff, &err);
	end.attempt_no = 4;
	is_retried(RETRY_FAILED, NOW + 40 * SEC, "the number of the attempt");

	retry_backoff_parse("exponential 1s factor 2 max 1h jitter decorrelated", &backoff, &err);
	end.previous_delay_us = 20 * SEC;
	want = retry_backoff_next(&backoff, 4, NOW, 20 * SEC, end.random, NULL);
	CHECK(want != retry_backoff_next(&backoff, 4, NOW, 0, end.random, NULL) &&
		  want != retry_backoff_next(&backoff, 4, NOW, 20 * SEC, 0, NULL),
		  "previous delay and random bits matter here");
	is_retried(RETRY_FAILED, want, "the previous delay and the random bits");

	retry_backoff_parse("cron '0 12 * * *' tz Europe/Berlin", &backoff, &err);
	limits.zone = &zone;
	is_retried(RETRY_FAILED, NOW + 11 * HOUR, "the time zone");
}

static void
test_spent(void)
{
	RetryVerdict untouched;

	/* padding included, since all of it is compared */
	memset(&untouched, 0, sizeof(untouched));
	untouched.outcome = RETRY_PROCESSING;
	untouched.reason = RETRY_DEAD_REJECTED;
	untouched.next_due = 42;
	reset();
	memcpy(&verdict, &untouched, sizeof(verdict));
	CHECK(!retry_policy_spent(15, 0, &limits, NOW, &verdict) &&
		  memcmp(&verdict, &untouched, sizeof(verdict)) == 0, "attempts and time are left");
	CHECK(retry_policy_spent(16, 0, &limits, NOW, &verdict) && verdict.terminal &&
		  verdict.outcome == RETRY_FAILED && verdict.reason == RETRY_DEAD_EXHAUSTED &&
		  verdict.next_due == 0, "no attempts left");
	limits.expires_at = NOW;
	CHECK(!retry_policy_spent(0, 0, &limits, NOW, &verdict), "at the very moment of expiry");
	CHECK(retry_policy_spent(0, 0, &limits, NOW + 1, &verdict) && verdict.terminal &&
		  verdict.outcome == RETRY_EXPIRED && verdict.reason == RETRY_DEAD_EXPIRED &&
		  verdict.next_due == 0, "a microsecond later");
	CHECK(retry_policy_spent(16, 0, &limits, NOW + 1, &verdict) &&
		  verdict.reason == RETRY_DEAD_EXHAUSTED, "neither is left: attempts are named");
	limits.expires_at = DT_NOEND;
	CHECK(!retry_policy_spent(0, 0, &limits, DT_NOEND, &verdict), "never expires");
}

int
main(void)
{
	test_statuses();
	test_answers();
	test_exchanges();
	test_precedence();
	test_returns();
	test_stop_errors();
	test_processing();
	test_pendings();
	test_max_attempts();
	test_expiry();
	test_retry_after();
	test_extremes();
	test_backoff_arguments();
	test_spent();
	return check_done();
}
