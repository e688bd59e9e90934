/*
 * unresolved.c
 *		From when on something unresolved may be due in a lane.
 *
 * A checkpoint says that everything its snapshot saw and that was due before
 * the low-water time is resolved, but for the lanes that lag, what was passed
 * over, and what waits at a dead task.  What it did not see is due no earlier
 * than it was enqueued, and is either of a transaction that was under way then,
 * which is looked up, or was enqueued later.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "checkpoint.h"
#include "dead_head.h"
#include "scene.h"
#include "unresolved.h"
#include "uuid7.h"

/* From the moment that a task is due at once to its transaction's number. */
#define ENQUEUE_US		USECS_PER_SEC

/* An id may be so far ahead of the clock, see uuid7.h. */
#define AHEAD_US		(10 * USECS_PER_SEC)

typedef struct LaneFrom
{
	int64		hash;			/* hash key */
	TimestampTz due;
} LaneFrom;

typedef struct GroupFrom
{
	int32		group_id;		/* 0: any */
	TimestampTz due;
} GroupFrom;

struct RetryUnresolved
{
	Snapshot	snapshot;
	TimestampTz unseen;			/* what the checkpoints did not see */
	TimestampTz low_water[RETRY_SLOTS];
	HTAB	   *lanes;			/* that lag, or wait */
	GroupFrom  *held;
	int			nheld;
};

static void
note_lane(RetryUnresolved *u, int64 hash, TimestampTz due)
{
	bool		found;
	LaneFrom   *lane = hash_search(u->lanes, &hash, HASH_ENTER, &found);

	lane->due = found ? Min(lane->due, due) : due;
}

static void
note_lanes(RetryUnresolved *u, HeapTuple row, TupleDesc desc, uint64 slots)
{
	Datum	   *hashes;
	Datum	   *dues;
	int			n = retry_checkpoint_array(row, desc, Cp_lane_hash, INT8OID, &hashes);

	retry_checkpoint_array(row, desc, Cp_lane_due, TIMESTAMPTZOID, &dues);
	for (int i = 0; i < n; i++)
	{
		if ((slots & (UINT64CONST(1) << RETRY_SLOT(DatumGetInt64(hashes[i])))) != 0)
			note_lane(u, DatumGetInt64(hashes[i]), DatumGetTimestampTz(dues[i]));
	}
}

/* Those passed over, by the group of their scene. */
static void
note_held(RetryUnresolved *u, HeapTuple row, TupleDesc desc, int scene_column, int due_column)
{
	Datum	   *scenes;
	Datum	   *dues;
	int			n = retry_checkpoint_array(row, desc, scene_column, INT4OID, &scenes);

	retry_checkpoint_array(row, desc, due_column, TIMESTAMPTZOID, &dues);
	if (n == 0)
		return;
	u->held = u->nheld == 0 ? palloc(n * sizeof(GroupFrom)) :
		repalloc(u->held, (u->nheld + n) * sizeof(GroupFrom));
	for (int i = 0; i < n; i++)
	{
		RetrySceneRow scene;
		bool		known = retry_scene_by_id(u->snapshot, DatumGetInt32(scenes[i]), &scene);

		u->held[u->nheld].group_id = known ? scene.group.id : 0;
		u->held[u->nheld++].due = DatumGetTimestampTz(dues[i]);
	}
}

/* What a transaction enqueued that was under way: its first id is its earliest. */
static void
note_transaction(RetryUnresolved *u, RetryReader *reader, uint64 xid)
{
	static const pg_uuid_t zero = {{0}};

	for (int leaf = 0; leaf < RETRY_LEAVES; leaf++)
	{
		TupleTableSlot *slot;
		TimestampTz made;

		if (!retry_reader_leaf(reader, leaf) || retry_reader_empty(reader, RETRY_TASK, leaf))
			continue;
		retry_scan_xids(reader, RETRY_TASK_XID, leaf, xid, &zero, xid + 1);
		slot = retry_scan_next(reader, RETRY_TASK_XID, leaf, ForwardScanDirection);
		if (slot == NULL)
			continue;
		if (retry_uuid7_time(DatumGetUUIDP(retry_column(slot, Task_id)), &made))
			u->unseen = Min(u->unseen, made - AHEAD_US);
		else
			u->unseen = DT_NOBEGIN;
	}
}

static void
note_checkpoint(RetryUnresolved *u, RetryReader *reader, HeapTuple row, TupleDesc desc, uint64 slots,
				TimestampTz now)
{
	bool		isnull;
	TimestampTz low_water = DatumGetTimestampTz(heap_getattr(row, Cp_low_water + 1, desc, &isnull));
	Datum	   *xids;
	int			n = retry_checkpoint_array(row, desc, Cp_xip, XID8OID, &xids);

	/* a time to come is of no use, see checkpoint.c */
	if (low_water > now)
		low_water = DT_NOBEGIN;
	else if (!TIMESTAMP_NOT_FINITE(low_water))
		low_water -= ENQUEUE_US;
	for (int i = 0; i < RETRY_SLOTS; i++)
	{
		if ((slots & (UINT64CONST(1) << i)) != 0)
			u->low_water[i] = low_water;
	}
	note_lanes(u, row, desc, slots);
	note_held(u, row, desc, Cp_held_scene, Cp_held_due);
	note_held(u, row, desc, Cp_url_scene, Cp_url_due);
	for (int i = 0; i < n; i++)
		note_transaction(u, reader, DatumGetUInt64(xids[i]));
}

RetryUnresolved *
retry_unresolved_read(RetryReader *reader, Snapshot snapshot, TimestampTz now)
{
	RetryUnresolved *u = palloc0(sizeof(RetryUnresolved));
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(LaneFrom),.hcxt = CurrentMemoryContext};
	RetryCheckpoints newest;
	RetryDeadHead *heads;
	uint64		done = 0;
	int			n;

	u->snapshot = snapshot;
	u->unseen = DT_NOEND;
	u->lanes = hash_create("retry unresolved lanes", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < RETRY_SLOTS; i++)
		u->low_water[i] = DT_NOBEGIN;

	retry_checkpoints_read(snapshot, &newest);
	for (int i = 0; i < RETRY_SLOTS; i++)
	{
		uint64		slots;

		if (newest.row[i] == NULL || (done & (UINT64CONST(1) << i)) != 0)
			continue;
		slots = retry_checkpoint_slots(&newest, i);
		note_checkpoint(u, reader, newest.row[i], newest.desc, slots, now);
		done |= slots;
	}
	(void) retry_dead_heads_read(snapshot, NULL, false, &heads, &n);
	for (int i = 0; i < n; i++)
		note_lane(u, heads[i].lane_hash, heads[i].due_at);
	return u;
}

TimestampTz
retry_unresolved_from(const RetryUnresolved *u, int64 lane_hash, int32 group_id)
{
	TimestampTz from = Min(u->low_water[RETRY_SLOT(lane_hash)], u->unseen);
	const LaneFrom *lane = hash_search(u->lanes, &lane_hash, HASH_FIND, NULL);

	if (lane != NULL)
		from = Min(from, lane->due);
	for (int i = 0; i < u->nheld; i++)
	{
		if (u->held[i].group_id == group_id || u->held[i].group_id == 0)
			from = Min(from, u->held[i].due);
	}
	return from;
}
