/*
 * locate.h
 *		Finding one task by its id, for a role that may know of it.
 *
 * Whether a task does not exist or is none of the caller's business looks the
 * same from outside, so both are found out here and reported alike.
 */
#ifndef RETRY_LOCATE_H
#define RETRY_LOCATE_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "nodes/pg_list.h"
#include "utils/uuid.h"
#include "compat.h"
#include "scene.h"
#include "store.h"

/* One task and what its facts say of it, as of a snapshot. */
typedef struct RetryLocated
{
	pg_uuid_t	id;
	int			leaf;			/* -1: only its dead letter is left */
	int32		scene_id;
	bool		has_scene;		/* false: it has gone, as only superusers see */
	RetrySceneRow scene;
	int64		lane_hash;
	uint64		xid;			/* top-level transaction that enqueued it */
	RetryProbe	probe;			/* of a dead letter: terminal, not succeeded */
	HeapTuple	row;			/* a copy; its columns begin with retry.task's */
	TupleDesc	desc;			/* of the row */
	List	   *changes;		/* to be laid over the row, see amend.h */
} RetryLocated;

/*
 * Finds the task in the leaves, else among the dead letters, as the newest
 * snapshot sees them, and checks that the current role may administer it.
 * ERROR (undefined_object) otherwise.  The row and the scene are in the current
 * memory context.
 */
extern void retry_locate(const pg_uuid_t *id, RetryLocated *task);

/*
 * Asks the facts again, with this snapshot, which must be active; false when
 * the snapshot does not see the task where it was.  Only "probe" is changed.
 */
extern bool retry_locate_again(Snapshot snapshot, RetryLocated *task);

/* "task ... does not exist" */
pg_noreturn extern void retry_no_such_task(const pg_uuid_t *id);

/* An id as text, palloc'd. */
extern char *retry_id_text(const pg_uuid_t *id);

#endif							/* RETRY_LOCATE_H */
