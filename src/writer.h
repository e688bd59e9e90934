/*
 * writer.h
 *		Writing tasks and signals from a session.
 *
 * Enqueue, replay and administration all end here, so that no row reaches a
 * leaf without the dispatchers being told of it first.
 */
#ifndef RETRY_WRITER_H
#define RETRY_WRITER_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"
#include "store.h"

struct RetryGroupRow;

/* Tasks and signals of one call, in leaves that are opened at first use. */
typedef struct RetryWriter
{
	RetryAppender *tasks[RETRY_LEAVES];
	RetryAppender *signals[RETRY_LEAVES];
	uint64		xid;			/* top-level; 0 before the first row */
	int			last_leaf;		/* what the dispatchers were last told of */
	int64		last_lane;
	const struct RetryGroupRow *laned;	/* whose lanes are limited, of the
										 * tasks to come; NULL: they are not */
} RetryWriter;

/*
 * Refuses read-only and parallel transactions (25006, 25000), naming
 * "function", and warns once when nothing will deliver.  The writer lives in
 * the current memory context.
 */
extern RetryWriter *retry_writer_begin(const char *function);

/* Nothing is sure to be stored before this. */
extern void retry_writer_end(RetryWriter *writer);

/* A new id for this moment, greater than all before in this process. */
extern void retry_new_id(TimestampTz now, pg_uuid_t *id);

/*
 * Tasks that follow are of this group, which has to outlive them: each of them
 * has to be let into its lane, see group_limits.h.
 */
extern void retry_writer_group(RetryWriter *writer, const struct RetryGroupRow *group);

/*
 * Stores one task.  "values" and "isnull" are those of retry.task; leaf,
 * inert, id, xid and due_at are filled in here.  What they point to may be
 * freed afterwards.  ERROR as for retry_group_admit_lane().
 */
extern void retry_write_task(RetryWriter *writer, const pg_uuid_t *id, TimestampTz due_at,
							 Datum *values, bool *isnull);

/*
 * Stores what "asked_by" asks of a task that has had so many attempts and lies
 * in this leaf, due now.
 */
extern void retry_write_signal(RetryWriter *writer, char action, const pg_uuid_t *id, int leaf,
							   int64 lane_hash, int32 attempts, Oid asked_by);

/*
 * The same, with what is to be changed in the task (see amend.h).  What one
 * session asks for later is also of a later moment.
 */
extern void retry_write_change(RetryWriter *writer, const pg_uuid_t *id, int leaf, int64 lane_hash,
							   int32 attempts, Oid asked_by, Jsonb *change);

/* The same, due at a moment. */
extern void retry_write_signal_at(RetryWriter *writer, char action, const pg_uuid_t *id, int leaf,
								  int64 lane_hash, int32 attempts, Oid asked_by, TimestampTz due_at);

#endif							/* RETRY_WRITER_H */
