/*
 * page_find.h
 *		The ids of one page of the tasks in a state, by index.
 *
 * Who asks reads the rows of these ids as any query does; this only says which,
 * and in which order, without a plan that statistics could spoil.
 */
#ifndef RETRY_PAGE_FIND_H
#define RETRY_PAGE_FIND_H

#include "utils/snapshot.h"
#include "task.h"

/*
 * A page is ordered by one time of its tasks, then by their ids: by when the
 * next attempt is due for pending and retrying, the first first; by when the
 * attempt began for running, and by when they ended for succeeded and
 * cancelled, the last first.
 */
typedef struct RetryPageWanted
{
	RetryTaskState state;		/* any but dead */
	int			size;			/* places in it, at least 1 */
	bool		goes_on;		/* after this place */
	RetryPos	after;
	Oid			role;			/* who asks */
	const int32 *scenes;		/* ascending: of these */
	int			nscenes;
	const int32 *own_scenes;	/* ascending: of these, those of roles that
								 * "role" is a member of */
	int			n_own_scenes;
} RetryPageWanted;

/*
 * Finds the page as the active snapshot sees it, what is under way as it is
 * now; returns how many, at most wanted->size, in their order.  Locks the leaves for
 * reading until the end of the transaction.
 */
extern int	retry_page_find(const RetryPageWanted *wanted, RetryPos *found);

/*
 * Where a task is, or was, in the order of the pages of that state, for a role
 * that may see it; false when it has no place there.
 */
extern bool retry_page_place(const RetryPageWanted *wanted, const pg_uuid_t *id, RetryPos *place);

#endif							/* RETRY_PAGE_FIND_H */
