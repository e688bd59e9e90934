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
	int64		pending_interval_us;
	int32		pendings;
	int32		pending_limit;
	uint32		statuses[2];	/* bits that sets are made from */
	uint16		error_class;
	uint16		truths;
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
must_hold(const RetryEnd *end, const RetryRules *rules, const RetryLimits *limits,
		  const RetryVerdict *v)
{
	bool		answered = end->exchange == RETRY_EXCHANGE_ANSWERED;
	bool		returned = end->exchange == RETRY_EXCHANGE_RETURNED;

	MUST(v->outcome < RETRY_OUTCOMES && v->reason < RETRY_DEAD_REASONS);
	MUST(v->outcome != RETRY_EXPIRED);
	if (v->terminal)
		MUST(v->next_due == 0);
	else
	{
		MUST(v->outcome == RETRY_FAILED || v->outcome == RETRY_ERROR || v->outcome == RETRY_PROCESSING);
		MUST(v->next_due >= end->ended_at && v->next_due <= limits->expires_at);
		if (v->outcome != RETRY_PROCESSING)
			MUST(end->attempt_no - end->pendings < limits->max_attempts);
		else
			MUST(rules->pending_limit == 0 || end->pendings + 1 < rules->pending_limit);
	}
	if (v->outcome == RETRY_PROCESSING)
		MUST((answered && strcmp(end->retry_control, "processing") == 0) ||
			 ((answered || returned) && end->pending_when && !end->stop_when));
	if (v->outcome == RETRY_SUCCEEDED)
	{
		MUST(v->terminal && (answered || returned) && !end->stop_when && !end->pending_when);
		MUST(end->success_when || !rules->success_when);
		if (answered && !end->success_when)
			MUST(!end->body_cut && retry_status_set_has(&rules->success_status, end->http_status) &&
				 !retry_status_set_has(&rules->stop_status, end->http_status));
	}
	if (v->outcome == RETRY_STOPPED && end->exchange == RETRY_EXCHANGE_FAILED)
		MUST(retry_error_set_has(&rules->stop_errors, end->error_class, end->sqlstate));
}

/* The rules, and what is true of the answer. */
static void
read_rules(const Input *in, RetryRules *rules, RetryEnd *end)
{
	retry_rules_default(rules);
	if (in->truths & 1)
	{
		for (int i = 0; i < lengthof(rules->success_status.bits); i++)
		{
			rules->success_status.bits[i] ^= in->statuses[0] * (2 * i + 1);
			rules->stop_status.bits[i] ^= in->statuses[1] * (2 * i + 1);
		}
	}
	rules->stop_errors.classes = in->truths >> 8;
	rules->stop_errors.nstates = 1;
	rules->stop_errors.states[0] = in->random % 7;
	rules->success_when = (in->truths & 2) != 0;
	rules->pending_interval_us = in->pending_interval_us & PG_INT64_MAX;
	rules->pending_limit = in->pending_limit & PG_INT32_MAX;

	end->error_class = (RetryErrorClass) (in->error_class % (RETRY_CLASSES + 1));
	end->sqlstate = in->error_class % 11;
	end->stop_when = (in->truths & 4) != 0;
	end->pending_when = (in->truths & 8) != 0;
	end->success_when = rules->success_when && (in->truths & 16) != 0;

	/* fewer than there were attempts */
	end->attempt_no = Max(in->attempt_no & PG_INT32_MAX, 1);
	end->pendings = (in->pendings & PG_INT32_MAX) % end->attempt_no;
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
	RetryRules	rules;
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
	end.exchange = (RetryExchange) (in.exchange % 7);
	end.http_status = in.status % 1000;
	end.body_cut = (in.flags & 1) != 0;
	end.retry_control = controls[(in.flags >> 1) & 3];
	end.retry_after.kind = (RetryRetryAfterKind) ((in.flags >> 3) % 3);
	/* as far as the parser goes: the year 9999 */
	end.retry_after.value = in.retry_after % INT64CONST(253402300800);
	if (end.retry_after.kind == RETRY_AFTER_SECONDS && end.retry_after.value < 0)
		end.retry_after.value = -end.retry_after.value;
	end.ended_at = moment(in.ended_at);
	end.previous_delay_us = in.previous_delay_us;
	end.random = in.random;
	read_rules(&in, &rules, &end);
	limits.max_attempts = in.max_attempts;
	limits.expires_at = moment(in.expires_at);
	limits.backoff = &backoff;

	first = retry_policy_judge(&end, &rules, &limits);
	must_hold(&end, &rules, &limits, &first);
	second = retry_policy_judge(&end, &rules, &limits);
	MUST(first.outcome == second.outcome && first.terminal == second.terminal &&
		 first.reason == second.reason && first.next_due == second.next_due);

	if (retry_policy_spent(end.attempt_no, end.pendings, &limits, end.ended_at, &second))
		MUST(second.terminal && second.next_due == 0 &&
			 (second.outcome == RETRY_FAILED || second.outcome == RETRY_EXPIRED));
	else
		MUST(end.attempt_no - end.pendings < in.max_attempts && end.ended_at <= limits.expires_at);
	return 0;
}
