/*
 * policy.h
 *		What an attempt's end means: the outcome, and what comes next.
 *
 * One pure function from what happened, the limits and the time to a verdict.
 * Everything that decides over a task's life is here and nowhere else.
 */
#ifndef RETRY_POLICY_H
#define RETRY_POLICY_H

#include "backoff.h"
#include "httpdate.h"
#include "zone.h"
#include "task.h"

/* How the exchange itself went; the dispatcher maps RetryHttpError to this. */
typedef enum RetryExchange
{
	RETRY_EXCHANGE_ANSWERED,	/* a complete header block came: http_status
								 * counts */
	RETRY_EXCHANGE_FAILED,		/* network, TLS, timeout, malformed, cut */
	RETRY_EXCHANGE_BLOCKED,		/* the address is not allowed */
	RETRY_EXCHANGE_REFUSED,		/* the request itself cannot be sent (bad URL
								 * …) */
	RETRY_EXCHANGE_INTERNAL		/* our own fault: memory, descriptors */
} RetryExchange;

typedef struct RetryLimits
{
	int32		max_attempts;
	TimestampTz expires_at;		/* DT_NOEND: never */
	const RetryBackoff *backoff;
	const RetryZone *zone;		/* for cron backoffs */
} RetryLimits;

typedef struct RetryEnd
{
	RetryExchange exchange;
	int			http_status;	/* 0: none */
	bool		body_cut;		/* the body broke although the headers came */
	RetryRetryAfter retry_after;
	const char *retry_control;	/* lower case; "" none, what is unknown counts
								 * as none */
	int32		attempt_no;
	TimestampTz ended_at;
	int64		previous_delay_us;	/* between the last two attempts; 0
									 * unknown */
	uint64		random;
} RetryEnd;

typedef struct RetryVerdict
{
	RetryOutcome outcome;
	bool		terminal;
	RetryDeadReason reason;		/* when terminal and not succeeded */
	TimestampTz next_due;		/* when not terminal */
} RetryVerdict;

extern RetryVerdict retry_policy_judge(const RetryEnd *end, const RetryLimits *limits);

/* Before sending: true when no attempt may be made any more, with the verdict to record. */
extern bool retry_policy_spent(int32 attempts, const RetryLimits *limits, TimestampTz now,
							   RetryVerdict *verdict);

#endif							/* RETRY_POLICY_H */
