/*
 * shown_rows.h
 *		Rows of views made of what dispatchers show in shared memory.
 *
 * What retry.lanes and retry.targets have in common: all dispatchers of the
 * database are read, one entry after the other, and an entry becomes a row when
 * the role may see its group.
 */
#ifndef RETRY_SHOWN_ROWS_H
#define RETRY_SHOWN_ROWS_H

#include "fmgr.h"
#include "nodes/execnodes.h"
#include "shmem.h"

/* One call of a function that returns such rows. */
typedef struct RetryShownRows
{
	ReturnSetInfo *result;
	TimestampTz now;
	int64		now_us;			/* the same moment of the other clock */
	int			dispatcher;		/* whose entries are being read */
	const int32 *groups;		/* that the role may see */
	int			ngroups;
	bool		sees_unknown;	/* entries whose group is not known yet */
	void		(*add) (struct RetryShownRows *rows, const void *entry);
} RetryShownRows;

/*
 * Calls "add" with a copy of each entry that the running dispatchers of this
 * database show at "place", which finds it in a worker; what it allocates is
 * freed after each.  With "shared", the shared group default is visible to all
 * who may use it.  Sets up the set that the function returns, in the
 * executor's memory.  Needs an active snapshot; errors are those of memory and
 * of "add".
 */
extern void retry_shown_rows_read(FunctionCallInfo fcinfo, Size entry_size, bool shared,
								  const RetryShownPlace *(*place) (const RetryWorker *worker),
								  void (*add) (RetryShownRows *rows, const void *entry));

/* May the role see entries of this group?  0: whose group is not known. */
extern bool retry_shown_rows_visible(const RetryShownRows *rows, int32 group_id);

/* Adds a row. */
extern void retry_shown_rows_add(RetryShownRows *rows, Datum *values, bool *isnull);

/*
 * A moment of the monotonic clock as one of the calendar, the last of all as
 * infinity; null unless it is known and has come to be.
 */
extern void retry_shown_rows_moment(const RetryShownRows *rows, Datum *value, bool *isnull,
									bool known, int64 moment_us);

/* A text; null when it is empty. */
extern void retry_shown_rows_text(Datum *value, bool *isnull, const char *text);

#endif							/* RETRY_SHOWN_ROWS_H */
