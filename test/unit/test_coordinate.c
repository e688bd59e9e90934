/*
 * test_coordinate.c
 *		What follows in a global transaction from what is known of it.
 *
 * Named cases first; then random transactions, run to their end in random order,
 * each step held against what a saga promises.
 */
#include "postgres.h"

#include "../../src/coordinate.h"
#include "check.h"

#define B(n)	RETRY_BRANCH((n) - 1)

static RetryCourse course;

/* Tells of the end of first operations, and says what follows. */
static void
end_first(RetryBranches *b, RetryBranchSet done, RetryBranchSet failed)
{
	RetryBranches before = *b;

	b->done |= done;
	b->failed |= failed;
	retry_branches_go_on(&before, b, &course);
}

static void
end_undo(RetryBranches *b, RetryBranchSet undone)
{
	RetryBranches before = *b;

	b->undone |= undone;
	retry_branches_go_on(&before, b, &course);
}

static void
roll_back(RetryBranches *b)
{
	RetryBranches before = *b;

	b->decision = RETRY_ROLLBACK;
	retry_branches_go_on(&before, b, &course);
}

static void
check_course(const char *what, RetryDecision decision, RetryBranchSet first, RetryBranchSet confirm,
			 RetryBranchSet undo, RetryBranchSet stop, RetryBranchSet not_begun)
{
	CHECK(course.decision == decision && course.first == first && course.confirm == confirm &&
		  course.undo == undo && course.stop == stop && course.not_begun == not_begun,
		  "%s (%s first %llx confirm %llx undo %llx stop %llx not begun %llx)", what,
		  retry_decision_word(course.decision), (unsigned long long) course.first,
		  (unsigned long long) course.confirm, (unsigned long long) course.undo,
		  (unsigned long long) course.stop, (unsigned long long) course.not_begun);
}

/* Three actions one after the other, all of which can be compensated. */
static RetryBranches
in_order(void)
{
	RetryBranches b = {.n = 3,.first = 7,.undo = 7,.may_commit = true};

	b.needs[1] = B(1);
	b.needs[2] = B(2);
	return b;
}

static void
test_in_order(void)
{
	RetryBranches b = in_order();

	CHECK(retry_branches_first(&b) == B(1), "in order: the first begins");
	end_first(&b, B(1), 0);
	check_course("in order: then the second", RETRY_UNDECIDED, B(2), 0, 0, 0, 0);
	end_first(&b, B(2), 0);
	check_course("in order: then the third", RETRY_UNDECIDED, B(3), 0, 0, 0, 0);
	end_first(&b, B(3), 0);
	check_course("in order: then it is committed", RETRY_COMMIT, 0, 0, 0, 0, 0);

	b = in_order();
	end_first(&b, B(1), 0);
	end_first(&b, 0, B(2));
	check_course("in order: a failure rolls back, and is compensated too", RETRY_ROLLBACK, 0, 0, B(2), 0, B(3));
	end_undo(&b, B(2));
	check_course("in order: then the one before it", RETRY_UNDECIDED, 0, 0, B(1), 0, 0);
	end_undo(&b, B(1));
	check_course("in order: then nothing is left", RETRY_UNDECIDED, 0, 0, 0, 0, 0);

	b = in_order();
	end_first(&b, B(1), 0);
	roll_back(&b);
	check_course("in order: who is under way is stopped first", RETRY_ROLLBACK, 0, 0, 0, B(2), B(3));
	end_first(&b, B(2), 0);
	check_course("in order: and undone when it has ended, though it was done", RETRY_UNDECIDED, 0, 0, B(2), 0, 0);

	b = in_order();
	b.undo = B(1) | B(3);
	end_first(&b, B(1), 0);
	end_first(&b, B(2), 0);
	end_first(&b, 0, B(3));
	check_course("in order: one that has nothing to undo", RETRY_ROLLBACK, 0, 0, B(3), 0, 0);
	end_undo(&b, B(3));
	check_course("in order: ... is passed over", RETRY_UNDECIDED, 0, 0, B(1), 0, 0);

	b = in_order();
	b.undo = 0;
	end_first(&b, 0, B(1));
	check_course("in order: nothing to undo at all", RETRY_ROLLBACK, 0, 0, 0, 0, B(2) | B(3));
}

static void
test_concurrent(void)
{
	RetryBranches b = {.n = 4,.first = 15,.undo = 15,.may_commit = true};

	/* a diamond: 2 and 3 need 1, 4 needs both */
	b.needs[1] = b.needs[2] = B(1);
	b.needs[3] = B(2) | B(3);
	CHECK(retry_branches_all_begin(&b), "diamond: all begin");
	end_first(&b, B(1), 0);
	check_course("diamond: two begin", RETRY_UNDECIDED, B(2) | B(3), 0, 0, 0, 0);
	end_first(&b, B(2), 0);
	check_course("diamond: one of two is not enough", RETRY_UNDECIDED, 0, 0, 0, 0, 0);
	end_first(&b, 0, B(3));
	check_course("diamond: both are undone", RETRY_ROLLBACK, 0, 0, B(2) | B(3), 0, B(4));
	end_undo(&b, B(3));
	check_course("diamond: the first waits for both", RETRY_UNDECIDED, 0, 0, 0, 0, 0);
	end_undo(&b, B(2));
	check_course("diamond: and is undone", RETRY_UNDECIDED, 0, 0, B(1), 0, 0);

	b.needs[0] = B(4);
	b.done = b.failed = b.undone = 0;
	CHECK(!retry_branches_all_begin(&b), "a circle is found");
	b.needs[0] = B(1);
	CHECK(!retry_branches_all_begin(&b), "who needs itself is found");
}

static void
test_tcc(void)
{
	RetryBranches b = {.n = 2,.first = 3,.confirm = 3,.undo = 3};
	RetryBranches before;

	end_first(&b, B(1) | B(2), 0);
	check_course("tries that are done decide nothing", RETRY_UNDECIDED, 0, 0, 0, 0, 0);
	before = b;
	b.may_commit = true;
	retry_branches_go_on(&before, &b, &course);
	check_course("a commit confirms all", RETRY_COMMIT, 0, 3, 0, 0, 0);

	b = (RetryBranches) {.n = 2,.first = 3,.confirm = 3,.undo = 3,.may_commit = true,.done = B(1)};
	end_first(&b, B(2), 0);
	check_course("a commit that was asked for waits for the last try", RETRY_COMMIT, 0, 3, 0, 0, 0);

	b = (RetryBranches) {.n = 2,.first = 3,.confirm = 3,.undo = 3,.may_commit = true};
	end_first(&b, 0, B(1));
	check_course("a try that fails cancels it, and stops the other", RETRY_ROLLBACK, 0, 0, B(1), B(2), 0);
	end_first(&b, 0, B(2));
	check_course("which is cancelled when it has ended", RETRY_UNDECIDED, 0, 0, B(2), 0, 0);

	b = (RetryBranches) {.n = 1,.confirm = 1,.undo = 1};
	before = b;
	b.may_commit = true;
	retry_branches_go_on(&before, &b, &course);
	check_course("without tries a commit is one at once", RETRY_COMMIT, 0, 1, 0, 0, 0);
	b = (RetryBranches) {.n = 1,.confirm = 1,.undo = 1};
	roll_back(&b);
	check_course("and a rollback too", RETRY_ROLLBACK, 0, 0, 1, 0, 0);
}

static uint64_t seed = 88172645463325252ULL;

static unsigned
random_below(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned) (seed >> 11) % n;
}

/* Runs one random saga to its end; NULL, or what was broken. */
static const char *
run(int n)
{
	RetryBranches b = {.n = n,.may_commit = true};
	RetryBranchSet whole = n == 64 ? ~UINT64_C(0) : RETRY_BRANCH(n) - 1;
	RetryBranchSet actions;
	RetryBranchSet undos = 0;

	b.first = whole;
	for (int i = 0; i < n; i++)
	{
		if (random_below(4) > 0)
			b.undo |= RETRY_BRANCH(i);
		for (int k = 0; k < i; k++)
		{
			if (random_below(n) < 2)
				b.needs[i] |= RETRY_BRANCH(k);
		}
	}
	actions = retry_branches_first(&b);
	for (int step = 0; step < 4 * n + 4; step++)
	{
		RetryBranchSet pending = (actions & ~b.done & ~b.failed) | 0;
		RetryBranchSet undoing = undos & ~b.undone;
		RetryBranchSet one = RETRY_BRANCH(random_below(n));
		RetryBranches before = b;

		if (pending == 0 && undoing == 0)
			break;
		while ((one & (pending | undoing)) == 0)
			one = one << 1 != 0 && (one << 1 & whole) != 0 ? one << 1 : 1;
		if ((one & pending) == 0)
			b.undone |= one;
		else if (random_below(2 * n) == 0)
			b.failed |= one;
		else
			b.done |= one;
		retry_branches_go_on(&before, &b, &course);
		if (before.decision != RETRY_UNDECIDED && (course.decision != RETRY_UNDECIDED || course.first != 0))
			return "a decision is final, and nothing begins after it";
		if ((course.first & actions) != 0 || (course.undo & undos) != 0)
			return "nothing begins twice";
		actions |= course.first;
		undos |= course.undo;
		for (int i = 0; i < n; i++)
		{
			if ((course.first & RETRY_BRANCH(i)) != 0 && (b.needs[i] & ~b.done) != 0)
				return "an action begins when those that it needs are done";
			if ((course.undo & RETRY_BRANCH(i)) == 0)
				continue;
			if ((actions & ~b.done & ~b.failed & RETRY_BRANCH(i)) != 0)
				return "nothing is undone that is still under way";
			for (int k = 0; k < n; k++)
			{
				if ((b.needs[k] & RETRY_BRANCH(i)) != 0 && (actions & RETRY_BRANCH(k)) != 0 &&
					((RETRY_BRANCH(k) & ~b.done & ~b.failed) != 0 || (RETRY_BRANCH(k) & b.undo & ~b.undone) != 0))
					return "it is undone after those that needed it";
			}
		}
	}
	if (b.decision == RETRY_COMMIT)
		return b.done == whole && undos == 0 ? NULL : "committed: all is done, and nothing undone";
	if (b.decision != RETRY_ROLLBACK)
		return "it is decided in the end";
	if ((b.undone & b.undo) != (actions & b.undo))
		return "rolled back: all that has begun is undone";
	return (b.not_begun | actions) == whole && (b.not_begun & actions) == 0 ? NULL :
		"rolled back: what has not begun is noted";
}

static void
test_random(void)
{
	const char *broken = NULL;
	int			n = 0;

	for (int i = 0; i < 20000 && broken == NULL; i++)
		broken = run(n = 1 + (i % 997 == 0 ? 63 : (int) random_below(9)));
	CHECK(broken == NULL, "20000 random sagas (%s; with %d branches)", broken != NULL ? broken : "all well", n);
}

int
main(void)
{
	test_in_order();
	test_concurrent();
	test_tcc();
	test_random();
	return check_done();
}
