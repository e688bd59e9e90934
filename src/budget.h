/*
 * budget.h
 *		How many of a lane's requests may be retries.
 *
 * When an endpoint fails, each task asks for its call again and again, and an
 * outage is answered with a multiple of the load that caused it.  So retries
 * have a budget: a share of the first attempts, and a few a second for a lane
 * that has none.  First attempts are never held back.
 *
 * A leaf: no allocation, no clock, nothing fails.  Moments are microseconds of
 * a clock that nobody sets, never negative.  One process, no locks.
 */
#ifndef RETRY_BUDGET_H
#define RETRY_BUDGET_H

/* What was not used is kept for so long. */
#define RETRY_BUDGET_SECONDS	10

/* All zero: all of the budget is there. */
typedef struct RetryBudget
{
	bool		begun;
	double		tokens;			/* retries that may go, as of at_us */
	int64		at_us;
	int64		second;			/* number of the newest in firsts */
	uint32		first_attempts; /* of all that are in firsts */
	uint32		firsts[RETRY_BUDGET_SECONDS];
} RetryBudget;

/*
 * Everywhere "share" is how many retries come with each first attempt, < 0
 * that there is no budget; "floor" is how many come with each second, at least
 * one.
 */

/* May a retry go now?  When not, *until_us is the moment to ask again. */
extern bool retry_budget_gate(RetryBudget *budget, double share, int32 floor,
							  int64 now_us, int64 *until_us);

/* A first attempt goes. */
extern void retry_budget_first(RetryBudget *budget, double share, int32 floor, int64 now_us);

/* The last one did not go after all: what came with it is taken back. */
extern void retry_budget_first_unsent(RetryBudget *budget, double share, int32 floor, int64 now_us);

/* A retry goes, or a second transfer of an attempt that is under way. */
extern void retry_budget_take(RetryBudget *budget, double share, int32 floor, int64 now_us);

/*
 * What a retry took comes back: it has succeeded, or was not sent.  Therefore
 * only retries that fail are rationed, and a backlog is worked off at full
 * speed as soon as its endpoint has recovered.
 */
extern void retry_budget_give_back(RetryBudget *budget, double share, int32 floor, int64 now_us);

/* How many retries may go now, for people. */
extern double retry_budget_left(RetryBudget *budget, double share, int32 floor, int64 now_us);

/* Does it know nothing that a new one would not? */
extern bool retry_budget_at_rest(RetryBudget *budget, double share, int32 floor, int64 now_us);

#endif							/* RETRY_BUDGET_H */
