/*
 * budget.c
 *		How many of a lane's requests may be retries.
 *
 * A bucket of tokens, one for a retry.  It holds what the last ten seconds
 * brought at most: ten times the floor, and the share of the first attempts of
 * that time, which are counted second by second.  So a burst of retries after
 * a busy while is let through, and one after a quiet while is not.
 *
 * The bucket starts full.  That is also what makes it possible to have none for
 * a lane before its first retry: one that was never drawn from is full.
 */
#include "postgres.h"

#include <math.h>

#include "budget.h"

/* Five times 0.2 is one, however that is rounded. */
#define ENOUGH	0.999999
#define SECOND_US	INT64CONST(1000000)

/* Moves on to now: tokens that came, and tokens that are too old. */
static void
bring_up(RetryBudget *budget, double share, int32 floor, int64 now_us)
{
	int64		second = now_us / SECOND_US;
	double		most;

	if (second >= budget->second + RETRY_BUDGET_SECONDS)
	{
		memset(budget->firsts, 0, sizeof(budget->firsts));
		budget->first_attempts = 0;
		budget->second = second;
	}
	while (budget->second < second)
	{
		int			i = ++budget->second % RETRY_BUDGET_SECONDS;

		budget->first_attempts -= budget->firsts[i];
		budget->firsts[i] = 0;
	}
	most = (double) floor * RETRY_BUDGET_SECONDS + Max(share, 0) * budget->first_attempts;
	if (!budget->begun)
		budget->tokens = most;
	else if (now_us > budget->at_us)
		budget->tokens += (double) (now_us - budget->at_us) / SECOND_US * floor;
	budget->tokens = Min(budget->tokens, most);
	budget->at_us = budget->begun ? Max(budget->at_us, now_us) : now_us;
	budget->begun = true;
}

bool
retry_budget_gate(RetryBudget *budget, double share, int32 floor, int64 now_us, int64 *until_us)
{
	if (share < 0)
		return true;
	bring_up(budget, share, floor, now_us);
	if (budget->tokens >= ENOUGH)
		return true;
	*until_us = now_us + (int64) ceil((1 - budget->tokens) * SECOND_US / floor);
	return false;
}

void
retry_budget_first(RetryBudget *budget, double share, int32 floor, int64 now_us)
{
	int			i;

	bring_up(budget, share, floor, now_us);
	i = budget->second % RETRY_BUDGET_SECONDS;
	budget->firsts[i]++;
	budget->first_attempts++;
	budget->tokens += Max(share, 0);
}

void
retry_budget_first_unsent(RetryBudget *budget, double share, int32 floor, int64 now_us)
{
	int			i;

	bring_up(budget, share, floor, now_us);
	i = budget->second % RETRY_BUDGET_SECONDS;
	if (budget->firsts[i] == 0)
		return;					/* it was counted long ago */
	budget->firsts[i]--;
	budget->first_attempts--;
	budget->tokens = Max(budget->tokens - Max(share, 0), 0);
}

void
retry_budget_take(RetryBudget *budget, double share, int32 floor, int64 now_us)
{
	if (share < 0)
		return;
	bring_up(budget, share, floor, now_us);
	budget->tokens = Max(budget->tokens - 1, 0);
}

void
retry_budget_give_back(RetryBudget *budget, double share, int32 floor, int64 now_us)
{
	if (share < 0)
		return;
	bring_up(budget, share, floor, now_us);
	budget->tokens += 1;		/* what is too much is cut off at the next
								 * look */
}

double
retry_budget_left(RetryBudget *budget, double share, int32 floor, int64 now_us)
{
	if (share < 0)
		return -1;
	bring_up(budget, share, floor, now_us);
	return budget->tokens;
}

bool
retry_budget_at_rest(RetryBudget *budget, double share, int32 floor, int64 now_us)
{
	if (share < 0 || !budget->begun)
		return true;
	bring_up(budget, share, floor, now_us);
	return budget->tokens >= (double) floor * RETRY_BUDGET_SECONDS;
}
