/*
 * selection.h
 *		Which tasks a call for many of them means: replay_dead, cancel_where,
 *		run_now_where, amend_where.
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
	text	   *key_prefix;		/* NULL: no such filter */
	text	   *error;			/* LIKE pattern; NULL: no such filter */
	int64		spread_us;		/* 0: all at once */
} RetrySelection;

/* Where a function has which argument; -1: it does not have it. */
typedef struct RetrySelectionArgs
{
	int			target;
	int			since;
	int			until;
	int			reference;
	int			spread;
	int			group_name;
	int			key_prefix;
	int			error;
} RetrySelectionArgs;

/*
 * Reads the arguments, all of which may be null.  The arrays are palloc'd.
 * ERROR for an unknown target or group (undefined_object), one in a group that
 * the current role may not use (insufficient_privilege), and what cannot be
 * meant (invalid_parameter_value): no target, a target of another group than
 * the one named, an empty text, "since" that is not before "until", a negative or
 * infinite spread.
 */
extern void retry_selection_read(FunctionCallInfo fcinfo, const RetrySelectionArgs *args,
								 Snapshot snapshot, RetrySelection *selection);

/* Is a task of that scene, enqueued by that role, among those meant? */
extern bool retry_selection_has(const RetrySelection *selection, int32 scene_id, Oid enqueued_by);

/* Does a task's key begin with what is meant?  NULL: it has none. */
extern bool retry_selection_has_key(const RetrySelection *selection, const text *key);

/*
 * Is an error like what is meant?  NULL: there was none, or an answer whose
 * status says it all: this is then "status 503", as retry.call() names it.  0: no such status.
 */
extern bool retry_selection_has_error(const RetrySelection *selection, const text *error, int http_status);

#endif							/* RETRY_SELECTION_H */
