/*
 * coordinate.c
 *		What follows, in a global transaction, from what is known of it.
 *
 * Sets of branches instead of lists: each rule is a line, and all of them can be
 * held against random transactions without a server (test_coordinate.c).
 */
#include "coordinate.h"

/* Branches in which nothing of the first operation is to come any more. */
static RetryBranchSet
ended(const RetryBranches *b)
{
	return ~b->first | b->done | b->failed | b->not_begun;
}

static RetryBranchSet
all(const RetryBranches *b)
{
	return b->n == RETRY_MAX_BRANCHES ? ~UINT64_C(0) : RETRY_BRANCH(b->n) - 1;
}

RetryBranchSet
retry_branches_first(const RetryBranches *b)
{
	RetryBranchSet have = b->done | ~b->first;
	RetryBranchSet turn = 0;

	/* what had not begun by the decision does not begin after it */
	if (b->decision != RETRY_UNDECIDED)
		return b->first & ~b->not_begun;
	for (int i = 0; i < b->n; i++)
	{
		if ((b->needs[i] & ~have) == 0)
			turn |= RETRY_BRANCH(i);
	}
	return turn & b->first;
}

RetryBranchSet
retry_branches_confirm(const RetryBranches *b)
{
	return b->decision == RETRY_COMMIT ? b->confirm : 0;
}

/* Branches of which all that needed them is undone. */
static RetryBranchSet
not_needed(const RetryBranches *b, RetryBranchSet clear)
{
	RetryBranchSet needed = 0;

	for (int i = 0; i < b->n; i++)
	{
		if ((clear & RETRY_BRANCH(i)) == 0)
			needed |= b->needs[i];
	}
	return ~needed & all(b);
}

RetryBranchSet
retry_branches_undo(const RetryBranches *b)
{
	RetryBranchSet over = ended(b) & all(b);
	RetryBranchSet clear = 0;	/* nothing of these is left */
	RetryBranchSet last;

	if (b->decision != RETRY_ROLLBACK)
		return 0;

	/* from those that nobody needs to those that these need, and so on */
	do
	{
		last = clear;
		clear = over & not_needed(b, last) & (~b->undo | b->undone | b->not_begun);
	} while (clear != last);
	return b->undo & over & not_needed(b, clear) & ~b->not_begun;
}

static RetryDecision
decide(const RetryBranches *b)
{
	if (b->failed != 0)
		return RETRY_ROLLBACK;
	if (b->may_commit && (b->first & ~b->done) == 0)
		return RETRY_COMMIT;
	return RETRY_UNDECIDED;
}

void
retry_branches_go_on(const RetryBranches *before, RetryBranches *after, RetryCourse *course)
{
	RetryBranchSet begun = retry_branches_first(before);

	memset(course, 0, sizeof(*course));
	if (after->decision == RETRY_UNDECIDED)
		after->decision = decide(after);
	if (before->decision == RETRY_UNDECIDED)
		course->decision = after->decision;
	if (course->decision == RETRY_ROLLBACK)
	{
		course->not_begun = after->first & ~begun;
		after->not_begun |= course->not_begun;
		course->stop = begun & ~ended(after);
	}
	course->first = retry_branches_first(after) & ~begun;
	course->confirm = retry_branches_confirm(after) & ~retry_branches_confirm(before);
	course->undo = retry_branches_undo(after) & ~retry_branches_undo(before);
}

bool
retry_branches_all_begin(const RetryBranches *b)
{
	RetryBranches run = *b;
	RetryBranchSet last;

	run.decision = RETRY_UNDECIDED;
	do
	{
		last = run.done;
		run.done |= retry_branches_first(&run);
	} while (run.done != last);
	return (run.first & ~run.done) == 0;
}
