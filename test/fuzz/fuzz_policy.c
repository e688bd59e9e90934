/*
 * fuzz_policy.c
 *		Fuzzes the policy leaf: any end, any limits, and what must always hold.
 *
 * The input's bytes become the numbers of an attempt's end and of the limits,
 * its rest the text of a backoff.  Whatever they are, a verdict must be one
 * that the store can take: dead for a reason, or due between the end of the
 * attempt and the expiry; the same twice; and nothing may overflow (run with
 * -fsanitize=fuzzer,address,undefined).
 */
#include "postgres.h"

#include "../../src/policy.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

typedef struct Input
{
	int64		ended_at;
	int64		expires_at;
	int64		previous_delay_us;
	uint64		random;
	int64		retry_after;
	int32		attempt_no;
	int32		max_attempts;
	uint16		status;
	uint8		exchange;
	uint8		flags;
} Input;

#define MUST(condition) do { if (!(condition)) __builtin_trap(); } while (0)

/* A moment that the server can hold, infinities included. */
static TimestampTz
moment(int64 raw)
{
	if (raw == DT_NOBEGIN || raw == DT_NOEND)
		return raw;
	return Min(Max(raw, MIN_TIMESTAMP), END_TIMESTAMP - 1);
}

static void
must_hold(const RetryEnd *end, const RetryLimits *limits, const RetryVerdict *v)
{
	MUST(v->outcome < RETRY_OUTCOMES && v->reason < RETRY_DEAD_REASONS);
	MUST(v->outcome != RETRY_PROCESSING && v->outcome != RETRY_EXPIRED);
	if (v->terminal)
		MUST(v->next_due == 0);
	else
	{
		MUST(v->outcome == RETRY_FAILED || v->outcome == RETRY_ERROR);
		MUST(v->next_due >= end->ended_at && v->next_due <= limits->expires_at);
		MUST(end->attempt_no < limits->max_attempts);
	}
	if (v->outcome == RETRY_SUCCEEDED)
		MUST(v->terminal && end->exchange == RETRY_EXCHANGE_ANSWERED && !end->body_cut &&
			 end->http_status / 100 == 2);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	static const char *const controls[4] = {"", "stop", "processing", "stopstopstop"};
	Input		in;
	char		text[256];
	RetryBackoff backoff;
	RetryParseError err;
	RetryEnd	end;
	RetryLimits limits = {0};
	RetryVerdict first;
	RetryVerdict second;

	if (size < sizeof(in))
		return 0;
	memcpy(&in, data, sizeof(in));
	size = Min(size - sizeof(in), sizeof(text) - 1);
	memcpy(text, data + sizeof(in), size);
	text[size] = '\0';
	if (!retry_backoff_parse(text, &backoff, &err) &&
		!retry_backoff_parse("exponential 1s factor 2 max 1h jitter full", &backoff, &err))
		return 0;

	memset(&end, 0, sizeof(end));
	end.exchange = (RetryExchange) (in.exchange % 6);
	end.http_status = in.status % 1000;
	end.body_cut = (in.flags & 1) != 0;
	end.retry_control = controls[(in.flags >> 1) & 3];
	end.retry_after.kind = (RetryRetryAfterKind) ((in.flags >> 3) % 3);
	/* as far as the parser goes: the year 9999 */
	end.retry_after.value = in.retry_after % INT64CONST(253402300800);
	if (end.retry_after.kind == RETRY_AFTER_SECONDS && end.retry_after.value < 0)
		end.retry_after.value = -end.retry_after.value;
	end.attempt_no = in.attempt_no;
	end.ended_at = moment(in.ended_at);
	end.previous_delay_us = in.previous_delay_us;
	end.random = in.random;
	limits.max_attempts = in.max_attempts;
	limits.expires_at = moment(in.expires_at);
	limits.backoff = &backoff;

	first = retry_policy_judge(&end, &limits);
	must_hold(&end, &limits, &first);
	second = retry_policy_judge(&end, &limits);
	MUST(first.outcome == second.outcome && first.terminal == second.terminal &&
		 first.reason == second.reason && first.next_due == second.next_due);

	if (retry_policy_spent(in.attempt_no, &limits, end.ended_at, &second))
		MUST(second.terminal && second.next_due == 0 &&
			 (second.outcome == RETRY_FAILED || second.outcome == RETRY_EXPIRED));
	else
		MUST(in.attempt_no < in.max_attempts && end.ended_at <= limits.expires_at);
	return 0;
}
