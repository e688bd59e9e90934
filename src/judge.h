/*
 * judge.h
 *		From the end of one exchange to the verdict over its task.
 *
 * Whoever makes attempts (a dispatcher, a session, an executor of functions)
 * says what came of one, and gets the same verdict for the same answer: the
 * scene's conditions are evaluated, and the policy judges.  Nothing here knows
 * where a task lies, or who records what became of it.
 */
#ifndef RETRY_JUDGE_H
#define RETRY_JUDGE_H

#include "config.h"
#include "decision.h"
#include "http.h"
#include "part.h"
#include "policy.h"

/* One exchange as it has ended.  Everything belongs to the caller. */
typedef struct RetryAnswer
{
	RetryExchange exchange;
	int			http_status;	/* 0: none */
	RetryErrorClass error_class;
	int			sqlstate;		/* of a function that failed; 0: none */
	const char *body;			/* NULL: none */
	Size		body_len;
	const Jsonb *json;			/* instead of body, what a function returned;
								 * NULL: none */
	bool		body_cut;		/* it broke off although the headers came */
	bool		body_truncated; /* there was more than is kept */
	RetryRetryAfter retry_after;	/* all zero: absent */
	RetryRateLimit rate_limit;	/* likewise */
	const char *retry_control;	/* lower case; NULL or "": absent */
} RetryAnswer;

/*
 * A function that raises this SQLSTATE, RTSTP, is not called again: as
 * Retry-Control: stop.
 */
#define RETRY_ERRCODE_STOP	MAKE_SQLSTATE('R','T','S','T','P')

/* Which attempt of its task it was. */
typedef struct RetryAttemptAt
{
	int32		attempt_no;		/* from 1 */
	int32		pendings;		/* of the attempts before it, those that do
								 * not count; fewer than attempt_no */
	TimestampTz ended_at;
	int64		previous_delay_us;	/* for jitter that builds on it; 0:
									 * unknown */
} RetryAttemptAt;

/* An HTTP result as an answer; it points into the result.  Cannot fail. */
extern void retry_answer_of_http(const RetryHttpResult *result, RetryAnswer *answer);

/*
 * For how long the endpoint wants to be left alone, in microseconds from "now",
 * when the answer came; 0: it does not say so.  At most RETRY_AFTER_CAP_US.
 */
extern int64 retry_answer_pause_us(const RetryAnswer *answer, TimestampTz now);

/*
 * The limits in force: the given ones, with the scene's backoff where "backoff"
 * is NULL.  "zone" is the caller's, and must live as long as *limits.  A NULL
 * scene (its row is gone) means a fixed minute.  Cannot fail.
 */
extern void retry_judge_limits(const RetryScene *scene, int32 max_attempts, TimestampTz expires_at,
							   const RetryBackoff *backoff, RetryLimits *limits, RetryZone *zone);

/*
 * Judges one exchange by the scene's rules (NULL: those of a new scene).  May
 * be called in or outside a transaction, in any process; allocates nothing
 * that stays.  Raises errors only as retry_rules_match does.  verdict.why is
 * for the attempt's error text, when it has none of its own; what is recorded
 * as pendings is retry_policy_pendings(at->pendings, verdict.outcome).
 */
extern RetryVerdict retry_judge_exchange(const RetryScene *scene, const RetryLimits *limits,
										 const RetryAnswer *answer, const RetryAttemptAt *at);

/* SQLSTATE of a function's error that means that an operation has failed: RT409. */
#define RETRY_ERRCODE_FAILURE	MAKE_SQLSTATE('R', 'T', '4', '0', '9')

/* Is what a function returned this string?  "answer" may be NULL. */
extern bool retry_judge_returned(const Jsonb *answer, const char *word);

/*
 * The same for a task that is part of a global transaction.  A first operation
 * has failed with 409, or when a function raises RT409; 425 or
 * the string "ongoing" means that it is to be asked again.  What must be done is
 * over when it succeeds, and with nothing else.  *decision is set for a check.
 */
extern RetryVerdict retry_judge_part(RetryPart part, const RetryScene *scene, const RetryLimits *limits,
									 const RetryAnswer *answer, const RetryAttemptAt *at,
									 RetryDecision *decision);

/*
 * The same for a check, which is over when the answer is a decision, put into
 * *decision; every other end of it is a failure that is tried again, whatever its
 * scene says of answers.
 */
extern RetryVerdict retry_judge_check(const RetryLimits *limits, const RetryAnswer *answer,
									  const RetryAttemptAt *at, RetryDecision *decision);

/*
 * What an exchange says of its endpoint, whatever it means for the task:
 * without an answer, or with one of 5xx, it has failed, unless the scene takes
 * that for a success; 501 and 505 are about the request.  Cannot fail.
 */
extern RetryFlowKind retry_judge_endpoint(const RetryAnswer *answer, RetryOutcome outcome);

#endif							/* RETRY_JUDGE_H */
