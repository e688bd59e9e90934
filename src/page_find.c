/*
 * page_find.c
 *		The ids of one page of the tasks in a state, by index.
 *
 * A page is the first so many places in an order, and every index that has
 * entries of a state has them in that order, within one lane of one leaf or
 * within one leaf.  So each is read from where it may have something, and only
 * until the page that was found so far is better than what follows.
 *
 * What is pending or retrying may lie behind millions of entries that are
 * finished; those that the dispatchers know to be resolved are not read
 * (unresolved.h).  Lanes of groups that the role does not see cost one look.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "lane.h"
#include "page_find.h"
#include "scene.h"
#include "scene_ids.h"
#include "shmem.h"
#include "store.h"
#include "unresolved.h"

typedef struct Look
{
	const RetryPageWanted *wanted;
	Snapshot	snapshot;
	RetryReader *reader;
	RetryUnresolved *unresolved;	/* NULL: not for this state */
	HTAB	   *groups;			/* SceneGroup */
	HTAB	   *seen;			/* groups of which the role sees scenes */
	RetryInFlight *running;		/* by id */
	int			nrunning;
	RetryPos   *found;
	int			n;
} Look;

typedef struct SceneGroup
{
	int32		scene_id;		/* hash key */
	int32		group_id;		/* 0: the scene has gone */
} SceneGroup;

/* The stream that has a state's entries lane by lane. */
typedef struct Stream
{
	RetryTable	table;
	RetryIndex	index;
	int			lane_column;
	int			id_column;
	int			time_column;
} Stream;

static const Stream pending_stream = {RETRY_TASK, RETRY_TASK_DUE, Task_lane_hash, Task_id, Task_due_at};
static const Stream retrying_stream = {RETRY_ATTEMPT, RETRY_ATTEMPT_DUE, Attempt_lane_hash, Attempt_task_id, Attempt_next_due};
static const Stream cancelled_stream = {RETRY_SIGNAL, RETRY_SIGNAL_DUE, Signal_lane_hash, Signal_task_id, Signal_due_at};

static bool
newest_first(RetryTaskState state)
{
	return state != RETRY_STATE_PENDING && state != RETRY_STATE_RETRYING;
}

/* In the order of the page. */
static int
compare(const Look *look, const RetryPos *a, const RetryPos *b)
{
	int			order = retry_pos_compare(a, b);

	return newest_first(look->wanted->state) ? -order : order;
}

/* Is the page full of what comes before this time? */
static bool
is_beyond(const Look *look, TimestampTz time)
{
	TimestampTz last;

	if (look->n < look->wanted->size)
		return false;
	last = look->found[look->n - 1].due;
	return newest_first(look->wanted->state) ? time < last : time > last;
}

/* May this place be of the page, as far as others are known? */
static bool
has_place(const Look *look, const RetryPos *pos)
{
	if (look->wanted->goes_on && compare(look, pos, &look->wanted->after) <= 0)
		return false;
	return look->n < look->wanted->size || compare(look, pos, &look->found[look->n - 1]) < 0;
}

static void
put(Look *look, const RetryPos *pos)
{
	int			low = 0;
	int			high = look->n;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			order = compare(look, pos, &look->found[middle]);

		if (order == 0)
			return;				/* asked for twice in one moment */
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	if (look->n < look->wanted->size)
		look->n++;
	memmove(&look->found[low + 1], &look->found[low], (look->n - 1 - low) * sizeof(RetryPos));
	look->found[low] = *pos;
}

/* ---- what the role may see ---- */

/* May the role see a task of the scene, which lies in this leaf? */
static bool
may_see(Look *look, int32 scene_id, int leaf, const pg_uuid_t *id)
{
	const RetryPageWanted *wanted = look->wanted;
	TupleTableSlot *slot;

	if (retry_scene_ids_has(wanted->scenes, wanted->nscenes, scene_id))
		return true;
	if (!retry_scene_ids_has(wanted->own_scenes, wanted->n_own_scenes, scene_id))
		return false;
	slot = retry_find_task(look->reader, id, NULL, &leaf);
	return slot != NULL &&
		has_privs_of_role(wanted->role, DatumGetObjectId(retry_column(slot, Task_enqueued_by)));
}

/* A scene's group; 0: the scene has gone. */
static int32
group_of(Look *look, int32 scene_id)
{
	bool		found;
	SceneGroup *group = hash_search(look->groups, &scene_id, HASH_ENTER, &found);
	RetrySceneRow scene;

	if (!found)
		group->group_id = retry_scene_by_id(look->snapshot, scene_id, &scene) ? scene.group.id : 0;
	return group->group_id;
}

static void
note_groups(Look *look, const int32 *scenes, int n)
{
	for (int i = 0; i < n; i++)
	{
		int32		group_id = group_of(look, scenes[i]);

		hash_search(look->seen, &group_id, HASH_ENTER, NULL);
	}
}

/* ---- what the facts say ---- */

static int
compare_running(const void *a, const void *b)
{
	return memcmp(((const RetryInFlight *) a)->id.data, ((const RetryInFlight *) b)->id.data, UUID_LEN);
}

static void
read_running(Look *look)
{
	int			max = retry_max_in_flight * RETRY_MAX_DISPATCHERS;

	if (!retry_shmem_ready())
		return;
	look->running = palloc(sizeof(RetryInFlight) * max);
	look->nrunning = retry_shmem_running(MyDatabaseId, look->running, max);
	qsort(look->running, look->nrunning, sizeof(RetryInFlight), compare_running);
}

/* Is an attempt after this one under way? */
static bool
is_running(const Look *look, const pg_uuid_t *id, int attempt_no)
{
	RetryInFlight key = {.id = *id};
	const RetryInFlight *found = NULL;

	if (look->nrunning > 0)
		found = bsearch(&key, look->running, look->nrunning, sizeof(RetryInFlight), compare_running);
	return found != NULL && found->attempt_no > attempt_no;
}

/* When it was first asked to cancel a task; DT_NOEND: never. */
static TimestampTz
cancelled_at(RetryReader *reader, int leaf, const pg_uuid_t *id)
{
	TimestampTz first = DT_NOEND;
	TupleTableSlot *slot;

	if (retry_reader_empty(reader, RETRY_SIGNAL, leaf))
		return first;
	for (slot = retry_first_signal(reader, leaf, id); slot != NULL;
		 slot = retry_scan_next(reader, RETRY_SIGNAL_TASK, leaf, ForwardScanDirection))
	{
		if (DatumGetChar(retry_column(slot, Signal_action)) == RETRY_SIGNAL_CANCEL)
			first = Min(first, DatumGetTimestampTz(retry_column(slot, Signal_due_at)));
	}
	return first;
}

/* Is the task of this entry in the state, and for the role to see? */
static bool
is_meant(Look *look, int leaf, TupleTableSlot *slot, const RetryPos *pos)
{
	RetryReader *reader = look->reader;
	RetryProbe	probe;
	int32		scene_id;
	int			attempt_no;

	switch (look->wanted->state)
	{
		case RETRY_STATE_PENDING:
			scene_id = DatumGetInt32(retry_column(slot, Task_scene_id));
			return !retry_task_tried(reader, leaf, &pos->id) &&
				!retry_task_cancelled(reader, leaf, &pos->id) &&
				!is_running(look, &pos->id, 0) && may_see(look, scene_id, leaf, &pos->id);
		case RETRY_STATE_RETRYING:
			scene_id = DatumGetInt32(retry_column(slot, Attempt_scene_id));
			attempt_no = DatumGetInt32(retry_column(slot, Attempt_attempt_no));
			retry_probe_task(reader, leaf, &pos->id, &probe);
			return probe.attempts == attempt_no && !probe.terminal && !probe.cancelled &&
				!is_running(look, &pos->id, attempt_no) && may_see(look, scene_id, leaf, &pos->id);
		default:
			if (DatumGetChar(retry_column(slot, Signal_action)) != RETRY_SIGNAL_CANCEL)
				return false;
			retry_probe_task(reader, leaf, &pos->id, &probe);
			if (probe.terminal || cancelled_at(reader, leaf, &pos->id) != pos->due ||
				is_running(look, &pos->id, probe.attempts))
				return false;
			slot = retry_find_task(reader, &pos->id, NULL, &leaf);
			return slot != NULL &&
				may_see(look, DatumGetInt32(retry_column(slot, Task_scene_id)), leaf, &pos->id);
	}
}

/* ---- reading ---- */

/* Starts where a lane may have something for the page. */
static void
start_lane(Look *look, const Stream *stream, int leaf, int64 lane_hash, int32 group_id)
{
	const RetryPageWanted *wanted = look->wanted;
	ScanKeyData keys[2];
	RetryPos	from = {.due = DT_NOBEGIN};

	if (newest_first(wanted->state))
	{
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(lane_hash));
		ScanKeyInit(&keys[1], 2, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
					TimestampTzGetDatum(wanted->goes_on ? wanted->after.due : DT_NOEND));
		retry_scan_start(look->reader, stream->index, leaf, 2, keys);
		return;
	}
	if (look->unresolved != NULL)
		from.due = retry_unresolved_from(look->unresolved, lane_hash, group_id);
	from = retry_pos_before(&from);
	if (wanted->goes_on && retry_pos_compare(&wanted->after, &from) > 0)
		from = wanted->after;
	retry_scan_lane_after(look->reader, stream->index, leaf, lane_hash, &from);
}

static void
read_lane(Look *look, const Stream *stream, int leaf, int64 lane_hash, int32 group_id)
{
	ScanDirection direction = newest_first(look->wanted->state) ? BackwardScanDirection : ForwardScanDirection;
	TupleTableSlot *slot;

	start_lane(look, stream, leaf, lane_hash, group_id);
	while ((slot = retry_scan_next(look->reader, stream->index, leaf, direction)) != NULL)
	{
		RetryPos	pos;

		CHECK_FOR_INTERRUPTS();
		pos.due = DatumGetTimestampTz(retry_column(slot, stream->time_column));
		pos.id = *DatumGetUUIDP(retry_column(slot, stream->id_column));
		if (is_beyond(look, pos.due))
			return;
		if (has_place(look, &pos) && is_meant(look, leaf, slot, &pos))
			put(look, &pos);
	}
}

/* The group of a lane, from one of its entries; 0: not known. */
static int32
group_of_lane(Look *look, const Stream *stream, int leaf, TupleTableSlot *slot)
{
	if (stream->table == RETRY_ATTEMPT)
		return group_of(look, DatumGetInt32(retry_column(slot, Attempt_scene_id)));
	if (stream->table == RETRY_SIGNAL)
	{
		pg_uuid_t	id = *DatumGetUUIDP(retry_column(slot, Signal_task_id));

		slot = retry_find_task(look->reader, &id, NULL, &leaf);
		if (slot == NULL)
			return 0;
	}
	return group_of(look, DatumGetInt32(retry_column(slot, Task_scene_id)));
}

/* Jumps from lane to lane. */
static void
read_lanes(Look *look, const Stream *stream, int leaf)
{
	int64		lane_hash = PG_INT64_MIN;	/* no hash is it */

	for (;;)
	{
		TupleTableSlot *slot;
		int32		group_id;

		CHECK_FOR_INTERRUPTS();
		retry_scan_lanes_after(look->reader, stream->index, leaf, lane_hash);
		slot = retry_scan_next(look->reader, stream->index, leaf, ForwardScanDirection);
		if (slot == NULL)
			return;
		lane_hash = DatumGetInt64(retry_column(slot, stream->lane_column));
		group_id = group_of_lane(look, stream, leaf, slot);
		if (group_id == 0 || hash_search(look->seen, &group_id, HASH_FIND, NULL) != NULL)
			read_lane(look, stream, leaf, lane_hash, group_id);
	}
}

static void
read_succeeded(Look *look, int leaf)
{
	const RetryPageWanted *wanted = look->wanted;
	ScanKeyData keys[2];
	TupleTableSlot *slot;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_ENUM_EQ,
				ObjectIdGetDatum(retry_outcome_oid(RETRY_SUCCEEDED)));
	ScanKeyInit(&keys[1], 2, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(wanted->goes_on ? wanted->after.due : DT_NOEND));
	retry_scan_start(look->reader, RETRY_ATTEMPT_END, leaf, 2, keys);
	while ((slot = retry_scan_next(look->reader, RETRY_ATTEMPT_END, leaf, BackwardScanDirection)) != NULL)
	{
		RetryPos	pos;

		CHECK_FOR_INTERRUPTS();
		pos.due = DatumGetTimestampTz(retry_column(slot, Attempt_finished_at));
		if (is_beyond(look, pos.due))
			return;
		pos.id = *DatumGetUUIDP(retry_column(slot, Attempt_task_id));
		if (has_place(look, &pos) &&
			may_see(look, DatumGetInt32(retry_column(slot, Attempt_scene_id)), leaf, &pos.id))
			put(look, &pos);
	}
}

static void
read_leaf(Look *look, int leaf)
{
	const Stream *stream;

	switch (look->wanted->state)
	{
		case RETRY_STATE_SUCCEEDED:
			if (!retry_reader_empty(look->reader, RETRY_ATTEMPT, leaf))
				read_succeeded(look, leaf);
			return;
		case RETRY_STATE_PENDING:
			stream = &pending_stream;
			break;
		case RETRY_STATE_RETRYING:
			stream = &retrying_stream;
			break;
		default:
			stream = &cancelled_stream;
	}
	if (!retry_reader_empty(look->reader, stream->table, leaf))
		read_lanes(look, stream, leaf);
}

/* What is under way and not recorded, though its dispatcher may not have let go of it. */
static void
take_running(Look *look)
{
	for (int i = 0; i < look->nrunning; i++)
	{
		const RetryInFlight *transfer = &look->running[i];
		RetryPos	pos = {.due = transfer->started_at,.id = transfer->id};
		RetryProbe	probe;

		if (!has_place(look, &pos) || !retry_reader_leaf(look->reader, transfer->leaf))
			continue;
		retry_probe_task(look->reader, transfer->leaf, &pos.id, &probe);
		if (probe.attempts < transfer->attempt_no &&
			may_see(look, transfer->scene_id, transfer->leaf, &pos.id))
			put(look, &pos);
	}
}

static void
begin(Look *look, const RetryPageWanted *wanted)
{
	HASHCTL		groups = {.keysize = sizeof(int32),.entrysize = sizeof(SceneGroup),.hcxt = CurrentMemoryContext};
	HASHCTL		seen = {.keysize = sizeof(int32),.entrysize = sizeof(int32),.hcxt = CurrentMemoryContext};

	memset(look, 0, sizeof(*look));
	look->wanted = wanted;
	look->snapshot = GetActiveSnapshot();
	look->reader = retry_reader_begin(look->snapshot, false);
	look->groups = hash_create("retry groups of scenes", 64, &groups, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	look->seen = hash_create("retry groups seen", 64, &seen, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

int
retry_page_find(const RetryPageWanted *wanted, RetryPos *found)
{
	Look		look;

	if (wanted->nscenes + wanted->n_own_scenes == 0)
		return 0;
	begin(&look, wanted);
	look.found = found;
	read_running(&look);
	if (wanted->state == RETRY_STATE_RUNNING)
		take_running(&look);
	else
	{
		note_groups(&look, wanted->scenes, wanted->nscenes);
		note_groups(&look, wanted->own_scenes, wanted->n_own_scenes);
		if (!newest_first(wanted->state))
			look.unresolved = retry_unresolved_read(look.reader, look.snapshot, GetCurrentTimestamp());
		for (int leaf = 0; leaf < RETRY_LEAVES; leaf++)
		{
			if (retry_reader_leaf(look.reader, leaf))
				read_leaf(&look, leaf);
		}
	}
	retry_reader_end(look.reader);
	return look.n;
}

/* When a task succeeded, or when the newest attempt that asked for another had it due. */
static bool
attempt_time(RetryReader *reader, int leaf, const pg_uuid_t *id, RetryTaskState state, TimestampTz *time)
{
	TupleTableSlot *slot;

	for (slot = retry_last_attempt(reader, leaf, id); slot != NULL;
		 slot = retry_scan_next(reader, RETRY_ATTEMPT_NO, leaf, BackwardScanDirection))
	{
		bool		ended;
		Datum		next_due = slot_getattr(slot, Attempt_next_due + 1, &ended);

		if (state == RETRY_STATE_SUCCEEDED)
		{
			*time = DatumGetTimestampTz(retry_column(slot, Attempt_finished_at));
			return ended &&
				DatumGetObjectId(retry_column(slot, Attempt_outcome)) == retry_outcome_oid(RETRY_SUCCEEDED);
		}
		*time = DatumGetTimestampTz(next_due);
		if (!ended)
			return true;
	}
	return false;
}

bool
retry_page_place(const RetryPageWanted *wanted, const pg_uuid_t *id, RetryPos *place)
{
	Look		look;
	int			leaf = -1;
	TupleTableSlot *slot;
	bool		found = false;

	begin(&look, wanted);
	place->id = *id;
	slot = retry_find_task(look.reader, id, NULL, &leaf);
	if (slot != NULL)
	{
		int32		scene_id = DatumGetInt32(retry_column(slot, Task_scene_id));

		place->due = DatumGetTimestampTz(retry_column(slot, Task_due_at));
		found = may_see(&look, scene_id, leaf, id);
	}
	if (found)
	{
		const RetryInFlight *transfer;
		RetryInFlight key = {.id = *id};

		switch (wanted->state)
		{
			case RETRY_STATE_PENDING:
				break;
			case RETRY_STATE_RUNNING:
				read_running(&look);
				transfer = look.nrunning == 0 ? NULL :
					bsearch(&key, look.running, look.nrunning, sizeof(RetryInFlight), compare_running);
				found = transfer != NULL;
				if (found)
					place->due = transfer->started_at;
				break;
			case RETRY_STATE_CANCELLED:
				place->due = cancelled_at(look.reader, leaf, id);
				found = place->due != DT_NOEND;
				break;
			default:
				found = attempt_time(look.reader, leaf, id, wanted->state, &place->due);
		}
	}
	retry_reader_end(look.reader);
	return found;
}
