/*
 * decision.h
 *		The decision over a global transaction, and how an answer gives it.
 *
 * Whoever began a transaction is asked about it by a task like any other (a
 * check).  What an answer says is read here, apart from HTTP, SQL and the store,
 * because receivers and functions must be understood alike, and a stranger's
 * bytes decide whether something is delivered.
 */
#ifndef RETRY_DECISION_H
#define RETRY_DECISION_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef enum RetryDecision
{
	RETRY_UNDECIDED,
	RETRY_COMMIT,
	RETRY_ROLLBACK
} RetryDecision;

/*
 * What a body says, of so many bytes: commit or rollback, as the bare word, as a
 * JSON string, or as the member "decision" of a JSON object.  Everything else is
 * undecided, an object that breaks off or says both among it.  Reads no byte
 * beyond; allocates nothing; cannot fail.
 */
extern RetryDecision retry_decision_read(const char *body, size_t len);

/* The word for a decision, as the tables have it; "word" of another is undecided. */
extern const char *retry_decision_word(RetryDecision decision);
extern RetryDecision retry_decision_of_word(const char *word, size_t len);

#endif							/* RETRY_DECISION_H */
