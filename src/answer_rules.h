/*
 * answer_rules.h
 *		A scene's conditions on an answer's JSON body, evaluated safely.
 *
 * success_when, pending_when and stop_when are jsonpath expressions that users
 * write, over bodies that strangers send: whatever either holds, evaluating
 * them raises no error, leaves no memory behind, and ends within a time limit.
 * The policy gets plain truth values.  Works in any process of the server, in
 * a transaction or outside.
 */
#ifndef RETRY_ANSWER_RULES_H
#define RETRY_ANSWER_RULES_H

#include "config.h"

/*
 * How long all conditions on one answer may take, milliseconds; and how long
 * for a while after they took longer, so that a scene with such a condition,
 * or with a receiver that knows how to provoke it, does not slow down what the
 * process does for others.
 */
#define RETRY_RULES_LIMIT_MS	100
#define RETRY_RULES_SHORT_MS	10
#define RETRY_RULES_SHORT_FOR_MS	(10 * 1000)

typedef struct RetryTruths
{
	bool		stop_when;
	bool		pending_when;
	bool		success_when;
} RetryTruths;

/* Has the scene any condition on the body? */
static inline bool
retry_rules_any(const RetryScene *scene)
{
	return scene->success_when != NULL || scene->pending_when != NULL || scene->stop_when != NULL;
}

/*
 * Evaluates the scene's conditions over a whole body, which should be JSON in
 * UTF-8: stop_when, and if that does not match pending_when, and if neither
 * does success_when.  A condition matches when its first item is neither false
 * nor null.  What is no JSON, what the database's encoding cannot hold, and
 * what takes too long matches nothing.
 *
 * Raises no error but those that end the process or come from outside: in a
 * session a cancel or a statement_timeout goes on to the caller.
 */
extern RetryTruths retry_rules_match(const RetryScene *scene, const char *body, Size len);

/* The same over a value that is there already; NULL matches nothing. */
extern RetryTruths retry_rules_match_json(const RetryScene *scene, const Jsonb *json);

#endif							/* RETRY_ANSWER_RULES_H */
