/*
 * checkpoint.h
 *		The rows of retry.checkpoint_a and _b, for those who read them.
 *
 * Dispatchers start from them, and pages of what is open do not look before
 * them: both must take the same row for the newest, and know its columns.
 */
#ifndef RETRY_CHECKPOINT_H
#define RETRY_CHECKPOINT_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/snapshot.h"
#include "task.h"

/* Columns of both tables. */
enum
{
	Cp_taken_at, Cp_dispatcher, Cp_slots, Cp_xmin, Cp_xmax, Cp_xip,
	Cp_low_water, Cp_lane_hash, Cp_lane_due, Cp_lane_waiting, Cp_held_scene, Cp_held_due,
	Cp_url_scene, Cp_url_due, Cp_url_expires, Cp_url_digest, Cp_natts
};

/*
 * The newest row for each slot, NULL: none; that of the latest transaction,
 * since the clock may have been set back.
 */
typedef struct RetryCheckpoints
{
	TransactionId written_by[RETRY_SLOTS];
	HeapTuple	row[RETRY_SLOTS];
	TupleDesc	desc;
} RetryCheckpoints;

/* As the snapshot sees them; a table that is locked counts as empty.  In the current memory context. */
extern void retry_checkpoints_read(Snapshot snapshot, RetryCheckpoints *newest);

/* The slots that the row of this slot is the newest of; it must have one. */
extern uint64 retry_checkpoint_slots(const RetryCheckpoints *newest, int slot);

/* Takes one of a row's arrays apart, of int4 or 8 bytes a value; returns how many there are. */
extern int	retry_checkpoint_array(HeapTuple row, TupleDesc desc, int column, Oid type, Datum **values);

#endif							/* RETRY_CHECKPOINT_H */
