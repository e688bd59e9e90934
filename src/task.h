/*
 * task.h
 *		The vocabulary that every part of retry shares.
 *
 * What a task, an attempt, an outcome and a place in a lane's order are, as
 * plain data.  Nothing here does anything: the store reads and writes these,
 * lanes order them, the policy judges them, and the HTTP client never needs
 * to know where they come from.
 */
#ifndef RETRY_TASK_H
#define RETRY_TASK_H

#include "datatype/timestamp.h"
#include "storage/itemptr.h"
#include "utils/uuid.h"

/* The ring of leaves: one day of ids a leaf, and one leaf kept apart. */
#define RETRY_RING_LEAVES	32
#define RETRY_LONG_LEAF		32	/* tasks due far ahead, and survivors */
#define RETRY_LEAVES		33

/* Tasks due later than this many days ahead go to RETRY_LONG_LEAF. */
#define RETRY_RING_AHEAD_DAYS	24

/* Lanes are dealt to dispatchers by slot. */
#define RETRY_SLOTS			64
#define RETRY_SLOT(lane_hash)	((int) ((uint64) (lane_hash) & (RETRY_SLOTS - 1)))

/* Outcome of one attempt; the order is that of the enum retry.outcome. */
typedef enum RetryOutcome
{
	RETRY_SUCCEEDED,
	RETRY_FAILED,
	RETRY_PROCESSING,
	RETRY_STOPPED,
	RETRY_EXPIRED,
	RETRY_BLOCKED,
	RETRY_ERROR,
	RETRY_OUTCOMES				/* how many there are */
} RetryOutcome;

/* Why a task is dead; the order is that of the enum retry.dead_reason. */
typedef enum RetryDeadReason
{
	RETRY_DEAD_EXHAUSTED,
	RETRY_DEAD_EXPIRED,
	RETRY_DEAD_STOPPED,
	RETRY_DEAD_GONE,
	RETRY_DEAD_BLOCKED,
	RETRY_DEAD_QUARANTINED,
	RETRY_DEAD_REJECTED,
	RETRY_DEAD_REASONS
} RetryDeadReason;

/* State of a task; the order is that of the enum retry.task_state. */
typedef enum RetryTaskState
{
	RETRY_STATE_PENDING,
	RETRY_STATE_RUNNING,
	RETRY_STATE_RETRYING,
	RETRY_STATE_SUCCEEDED,
	RETRY_STATE_DEAD,
	RETRY_STATE_CANCELLED
} RetryTaskState;

/* What an administrator asked of one task: retry.signal.action, stored as is. */
#define RETRY_SIGNAL_CANCEL		'c'
#define RETRY_SIGNAL_RUN_NOW	'r'
#define RETRY_SIGNAL_AMEND		'a'
#define RETRY_SIGNAL_STEP		's' /* over a dead task, see dead_head.h */

/* A place in a lane: entries are ordered by the due time, then by task. */
typedef struct RetryPos
{
	TimestampTz due;
	pg_uuid_t	id;
} RetryPos;

/* Each lane has two sides, which are read and held up one without the other. */
typedef enum RetrySideName
{
	RETRY_SIDE_FIRST,			/* first attempts, and what was asked for */
	RETRY_SIDE_RETRY,			/* next attempts */
	RETRY_SIDES
} RetrySideName;

/*
 * One entry that is due: a task's first attempt, its next one, or a signal.
 * "attempts" is the number of attempts recorded, so that the next attempt's
 * number is attempts + 1; "pendings" is how many of them do not count in
 * max_attempts, known once the entry has passed the probe.  "tid" is where the
 * task's row was last seen, or invalid; whoever follows it checks the id.
 * "scene_id" is 0 when what was read does not name it.
 */
typedef struct RetryEntry
{
	RetryPos	pos;
	int32		attempts;
	int32		pendings;
	int32		scene_id;
	int16		leaf;
	ItemPointerData tid;
	uint8		side;			/* RetrySideName */
} RetryEntry;

#endif							/* RETRY_TASK_H */
