/*
 * selection.h
 *		Which tasks a call for many of them means: replay_dead, cancel_where,
 *		run_now_where.
 *
 * They take the same filters, mean the same by them, and let a role touch the
 * same tasks as their sisters for one task do.
 */
#ifndef RETRY_SELECTION_H
#define RETRY_SELECTION_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/snapshot.h"

typedef struct RetrySelection
{
	Oid			role;			/* who called */
	TimestampTz now;			/* when */
	int32	   *scenes;			/* ascending: the scenes that are meant */
	int			nscenes;
	int32	   *own_scenes;		/* ascending: of them, only its own tasks */
	int			n_own_scenes;
	TimestampTz since;			/* DT_NOBEGIN: no such filter */
	TimestampTz until;			/* DT_NOEND: no such filter */
	text	   *reference;		/* NULL: no such filter */
	int64		spread_us;		/* 0: all at once */
} RetrySelection;

/*
 * Reads the arguments target, since, until, reference and, if the function has
 * five, spread; all may be null.  The arrays are palloc'd.  ERROR for an
 * unknown target (undefined_object), one that is none, a negative or infinite
 * spread (invalid_parameter_value), and a target in a group that the current
 * role may not use (insufficient_privilege): as retry.enqueue() has them.
 */
extern void retry_selection_read(FunctionCallInfo fcinfo, Snapshot snapshot, RetrySelection *selection);

/* Is a task of that scene, enqueued by that role, among those meant? */
extern bool retry_selection_has(const RetrySelection *selection, int32 scene_id, Oid enqueued_by);

/* When the n-th (from 0) of so many is due. */
extern TimestampTz retry_selection_due(const RetrySelection *selection, int64 n, int64 total);

#endif							/* RETRY_SELECTION_H */
