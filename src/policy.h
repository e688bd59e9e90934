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
#include "status_list.h"
#include "zone.h"
#include "task.h"

/* How the exchange itself went; judge.c maps RetryHttpError to this. */
typedef enum RetryExchange
{
	RETRY_EXCHANGE_ANSWERED,	/* a complete header block came: http_status
								 * counts */
	RETRY_EXCHANGE_RETURNED,	/* a function of this database returned: no
								 * status, the conditions count */
	RETRY_EXCHANGE_FAILED,		/* network, TLS, timeout, malformed, cut */
	RETRY_EXCHANGE_BLOCKED,		/* the address is not allowed */
	RETRY_EXCHANGE_REFUSED,		/* the request itself cannot be sent (bad URL
								 * …) */
	RETRY_EXCHANGE_INTERNAL		/* our own fault: memory, descriptors */
} RetryExchange;

/* What a scene says about answers; see retry_rules_default. */
typedef struct RetryRules
{
	RetryStatusSet success_status;
	RetryStatusSet stop_status;
	RetryErrorSet stop_errors;
	bool		success_when;	/* it is set: without a match, no success */
	int64		pending_interval_us;
	int32		pending_limit;	/* 0: none */
} RetryRules;

typedef struct RetryLimits
{
	int32		max_attempts;	/* of attempts that count */
	TimestampTz expires_at;		/* no attempt starts later, for whatever
								 * reason; DT_NOEND: never */
	const RetryBackoff *backoff;
	const RetryZone *zone;		/* for cron backoffs */
} RetryLimits;

typedef struct RetryEnd
{
	RetryExchange exchange;
	int			http_status;	/* 0: none */
	bool		body_cut;		/* the body broke although the headers came */
	RetryErrorClass error_class;
	int			sqlstate;		/* of a function that failed; 0: none */

	/* which of the scene's conditions on the answer match */
	bool		stop_when;
	bool		pending_when;
	bool		success_when;
	RetryRetryAfter retry_after;
	const char *retry_control;	/* lower case; "" none, what is unknown counts
								 * as none */
	int32		attempt_no;
	int32		pendings;		/* how many of those before it do not count in
								 * max_attempts */
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
	const char *why;			/* a constant sentence where neither status
								 * nor error text say it; else NULL */
} RetryVerdict;

/* What a new scene says. */
extern void retry_rules_default(RetryRules *rules);

/*
 * Judges an attempt that has ended.  next_due is 0 when the task has ended
 * too; reason means nothing when it succeeded.  All times are microseconds.
 * Cannot fail; keeps no pointer.
 */
extern RetryVerdict retry_policy_judge(const RetryEnd *end, const RetryRules *rules,
									   const RetryLimits *limits);

/*
 * Asked just before an attempt would be made, since limits may have been
 * lowered and time has passed: true when none may be made any more, with the
 * verdict to record; else *verdict is untouched.  "attempts" is how many are
 * recorded, "pendings" how many of them do not count.
 */
extern bool retry_policy_spent(int32 attempts, int32 pendings, const RetryLimits *limits,
							   TimestampTz now, RetryVerdict *verdict);

/*
 * How many of a task's attempts do not count in max_attempts, when there were
 * "before" of them and another one has ended so.
 */
extern int32 retry_policy_pendings(int32 before, RetryOutcome outcome);

#endif							/* RETRY_POLICY_H */
