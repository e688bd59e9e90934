/*
 * coordinate.h
 *		What follows, in a global transaction, from what is known of it.
 *
 * A transaction has branches.  In each something is done first (an action, a
 * try) that may fail; when it is decided, something must be done that follows
 * from the decision: it is confirmed, or undone.  Whose turn it is follows from
 * the outcomes and the decision alone, so whoever stores one of these asks here
 * what else to store, and gets the same answer whoever it is.
 *
 * A leaf: no clock, no memory, nothing that fails.
 */
#ifndef RETRY_COORDINATE_H
#define RETRY_COORDINATE_H

#include <stdbool.h>
#include <stdint.h>
#include "decision.h"

#define RETRY_MAX_BRANCHES	64

/* Branches of a transaction: 1 is the first, 2 the second, 4 the third. */
typedef uint64_t RetryBranchSet;

#define RETRY_BRANCH(n)		(UINT64_C(1) << (n))	/* from 0 */

typedef struct RetryBranches
{
	int			n;
	RetryBranchSet needs[RETRY_MAX_BRANCHES];	/* whose first operations are
												 * to be done before its own */

	/* which operations there are */
	RetryBranchSet first;
	RetryBranchSet confirm;
	RetryBranchSet undo;

	/* what became of them */
	RetryBranchSet done;		/* the first */
	RetryBranchSet failed;
	RetryBranchSet not_begun;	/* and never will: it was rolled back before */
	RetryBranchSet confirmed;
	RetryBranchSet undone;

	bool		may_commit;		/* as soon as all first ones are done */
	RetryDecision decision;
} RetryBranches;

/* What is to be stored. */
typedef struct RetryCourse
{
	RetryDecision decision;		/* RETRY_UNDECIDED: none */
	RetryBranchSet not_begun;	/* noted as such */
	RetryBranchSet stop;		/* first operations that are under way */
	RetryBranchSet first;		/* whose operation begins */
	RetryBranchSet confirm;
	RetryBranchSet undo;
} RetryCourse;

/*
 * Branches whose operation has its turn, or has had it: the first one, the one
 * that confirms, the one that undoes.
 *
 * An operation is undone when its first has ended, whatever its end was, and all
 * that needed it are undone; one that failed, too, since it may have had an
 * effect that nobody was told of.
 */
extern RetryBranchSet retry_branches_first(const RetryBranches *b);
extern RetryBranchSet retry_branches_confirm(const RetryBranches *b);
extern RetryBranchSet retry_branches_undo(const RetryBranches *b);

/*
 * What follows when "before" has become "after": another outcome is known, or
 * somebody has decided.  Puts into "after" what it decides and notes.
 */
extern void retry_branches_go_on(const RetryBranches *before, RetryBranches *after, RetryCourse *course);

/* False when branches need each other in a circle, so that some would never begin. */
extern bool retry_branches_all_begin(const RetryBranches *b);

#endif							/* RETRY_COORDINATE_H */
