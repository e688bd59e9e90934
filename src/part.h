/*
 * part.h
 *		What a task is to a global transaction.
 *
 * Most tasks are part of none.  One that is has a word in place of the targets
 * that would be told of its end (on_success and on_dead): its end is told to the
 * transaction, in the transaction that records it.  No text that a user gives
 * can be such a word, since it is no target.
 */
#ifndef RETRY_PART_H
#define RETRY_PART_H

#include <stdbool.h>
#include <string.h>

typedef enum RetryPart
{
	RETRY_PART_NONE,
	RETRY_PART_CHECK,			/* asks whoever began it what to decide */
	RETRY_PART_FIRST,			/* an action or try: its failure rolls back */
	RETRY_PART_MUST,			/* follows from the decision: it is repeated
								 * until it succeeds */
	RETRY_PART_TIMER			/* nothing is sent: when it is due, the time
								 * of the transaction is over */
} RetryPart;

#define RETRY_PART_CHECK_WORD	"retry:decide"
#define RETRY_PART_FIRST_WORD	"retry:first"
#define RETRY_PART_MUST_WORD	"retry:must"
#define RETRY_PART_TIMER_WORD	"retry:timer"

/* Of on_success or on_dead; NULL: there is none. */
static inline RetryPart
retry_part(const char *target)
{
	if (target == NULL || strncmp(target, "retry:", 6) != 0)
		return RETRY_PART_NONE;
	if (strcmp(target, RETRY_PART_CHECK_WORD) == 0)
		return RETRY_PART_CHECK;
	if (strcmp(target, RETRY_PART_FIRST_WORD) == 0)
		return RETRY_PART_FIRST;
	if (strcmp(target, RETRY_PART_MUST_WORD) == 0)
		return RETRY_PART_MUST;
	if (strcmp(target, RETRY_PART_TIMER_WORD) == 0)
		return RETRY_PART_TIMER;
	return RETRY_PART_NONE;
}

/* Is it an operation, whose end its transaction waits for? */
static inline bool
retry_part_is_operation(const char *target)
{
	RetryPart	part = retry_part(target);

	return part == RETRY_PART_FIRST || part == RETRY_PART_MUST;
}

/* Would its transaction wait for ever if it were cancelled, and nobody tell? */
static inline bool
retry_part_is_needed(const char *target)
{
	return retry_part_is_operation(target) || retry_part(target) == RETRY_PART_TIMER;
}

#endif							/* RETRY_PART_H */
