/*
 * group_lanes.c
 *		Which lanes the tasks of groups with max_lanes are in, in shared memory.
 *
 * One hash table under one lock, which is held for a search and some sums, and
 * in which nothing can fail.  Groups without the limit never come here.
 *
 * What a transaction has added is noted until it ends.  The notes of a
 * subtransaction are behind those of the ones around it, so that its end looks
 * at its own only; when there are many, those of one lane become one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "group_lanes.h"
#include "shmem_private.h"

#define LOOK_BACK	8			/* notes among which one of the same lane is
								 * looked for */
#define NOTES_FIRST	64
#define NOTES_KEPT	4096		/* more are given back when the transaction
								 * ends */

typedef struct LaneKey
{
	uint64		owner;			/* as in RetryGroupUse */
	int64		hash;
} LaneKey;

/* It is there while it counts anything, or the count anew is under way. */
typedef struct Lane
{
	LaneKey		key;			/* hash key */
	uint32		made;			/* by which a note knows it to be the same */
	int64		tasks;			/* unfinished, those of transactions under way
								 * with them; below 0 only while the group is
								 * counted */
	int64		reserved;		/* of these, those of transactions under way */
	int64		marked;			/* what committed ones had when counting began */
	int64		found;			/* by counting, so far */
} Lane;

/* What the current transaction has added. */
typedef struct Note
{
	LaneKey		key;
	uint32		made;
	SubTransactionId subid;
	int64		tasks;
} Note;

static HTAB *lanes = NULL;

static Note *notes = NULL;
static int	nnotes = 0;
static int	notes_room = 0;

void
retry_group_lanes_request_memory(void)
{
	RequestAddinShmemSpace(hash_estimate_size(RETRY_GROUP_LANES, sizeof(Lane)));
}

void
retry_group_lanes_create_memory(void)
{
	HASHCTL		info = {.keysize = sizeof(LaneKey),.entrysize = sizeof(Lane)};

	lanes = ShmemInitHash("retry lanes of groups", RETRY_GROUP_LANES, RETRY_GROUP_LANES, &info,
						  HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

/* ---------------------------------------------------------------- entries; the caller holds the lock */

static inline void
lock_lanes(void)
{
	LWLockAcquire(retry_shared->lanes_lock, LW_EXCLUSIVE);
}

static inline void
unlock_lanes(void)
{
	LWLockRelease(retry_shared->lanes_lock);
}

static inline Lane *
find(const LaneKey *key)
{
	return hash_search(lanes, key, HASH_FIND, NULL);
}

/* NULL: there is no room. */
static Lane *
find_or_make(const LaneKey *key)
{
	bool		found;
	Lane	   *lane = hash_search(lanes, key, HASH_ENTER_NULL, &found);

	if (lane == NULL || found)
		return lane;
	lane->made = ++retry_shared->lanes_made;
	lane->tasks = lane->reserved = lane->marked = lane->found = 0;
	return lane;
}

/* Changes the number of tasks, and with it that of the group's lanes. */
static void
change(RetryGroupUse *use, Lane *lane, int64 by)
{
	bool		had = lane->tasks > 0;

	lane->tasks += by;
	if (use != NULL && had != (lane->tasks > 0))
		use->lanes += had ? -1 : 1;
}

/* Removes an entry that says nothing. */
static void
tidy(const RetryGroupUse *use, Lane *lane)
{
	if (lane->tasks <= 0 && lane->reserved <= 0 && (use == NULL || !use->lanes_marked))
		(void) hash_search(lanes, &lane->key, HASH_REMOVE, NULL);
}

/* The group's use of its limits; NULL: it has none any more. */
static inline RetryGroupUse *
use_of(const LaneKey *key)
{
	return retry_group_use_of(key->owner);
}

/* ---------------------------------------------------------------- what transactions add */

static void
settle(const Note *note, bool keep)
{
	Lane	   *lane;
	RetryGroupUse *use = use_of(&note->key);

	lock_lanes();
	lane = find(&note->key);
	if (lane != NULL && lane->made == note->made)
	{
		lane->reserved -= note->tasks;
		if (!keep)
			change(use, lane, -note->tasks);
		tidy(use, lane);
	}
	unlock_lanes();
}

static void
at_end(XactEvent event, void *arg)
{
	bool		keep = event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE;

	if (nnotes == 0 || (!keep && event != XACT_EVENT_ABORT))
		return;
	for (int i = 0; i < nnotes; i++)
		settle(&notes[i], keep);
	nnotes = 0;
	if (notes_room > NOTES_KEPT)
	{
		pfree(notes);
		notes = NULL;
		notes_room = 0;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	int			first = nnotes;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	while (first > 0 && notes[first - 1].subid == subid)
	{
		if (event == SUBXACT_EVENT_ABORT_SUB)
			settle(&notes[first - 1], false);
		notes[--first].subid = parent;
	}
	if (event == SUBXACT_EVENT_ABORT_SUB)
		nnotes = first;
}

static int
compare_notes(const void *a, const void *b)
{
	const Note *x = a;
	const Note *y = b;

	/* a subtransaction has a greater number than the one around it */
	if (x->subid != y->subid)
		return x->subid < y->subid ? -1 : 1;
	if (x->made != y->made)
		return x->made < y->made ? -1 : 1;
	return memcmp(&x->key, &y->key, sizeof(LaneKey));
}

/* Those of one lane become one. */
static void
merge_notes(void)
{
	int			kept = 0;

	qsort(notes, nnotes, sizeof(Note), compare_notes);
	for (int i = 1; i < nnotes; i++)
	{
		if (compare_notes(&notes[kept], &notes[i]) == 0)
			notes[kept].tasks += notes[i].tasks;
		else
			notes[++kept] = notes[i];
	}
	nnotes = Min(nnotes, kept + 1);
}

/* Room for one more note. */
static void
make_room(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(at_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		registered = true;
	}
	if (nnotes < notes_room)
		return;
	merge_notes();
	if (notes == NULL || nnotes > notes_room / 2)
	{
		int			room = Max(NOTES_FIRST, 2 * notes_room);

		notes = notes == NULL ? MemoryContextAlloc(TopMemoryContext, room * sizeof(Note)) :
			repalloc_huge(notes, (Size) room * sizeof(Note));
		notes_room = room;
	}
}

static void
take_note(const Lane *lane)
{
	SubTransactionId subid = GetCurrentSubTransactionId();

	for (int i = nnotes - 1; i >= Max(0, nnotes - LOOK_BACK) && notes[i].subid == subid; i--)
	{
		if (notes[i].made == lane->made && memcmp(&notes[i].key, &lane->key, sizeof(LaneKey)) == 0)
		{
			notes[i].tasks++;
			return;
		}
	}
	notes[nnotes++] = (Note)
	{
		.key = lane->key,.made = lane->made,.subid = subid,.tasks = 1
	};
}

/* With this lane the group would have one too many. */
static bool
is_too_many(const RetryGroupUse *use, const Lane *lane, int32 max)
{
	return max >= 0 && use->lanes_counted && use->lanes >= max && (lane == NULL || lane->tasks <= 0);
}

RetryLaneAdded
retry_group_lanes_add(RetryGroupUse *use, int64 lane_hash, int32 max)
{
	LaneKey		key = {.owner = pg_atomic_read_u64(&use->owner),.hash = lane_hash};
	RetryLaneAdded result = RETRY_LANE_REFUSED;
	Lane	   *lane;

	make_room();
	lock_lanes();
	lane = find(&key);
	if (!is_too_many(use, lane, max))
	{
		if (lane == NULL)
			lane = find_or_make(&key);
		if (lane != NULL)
		{
			change(use, lane, 1);
			lane->reserved++;
			take_note(lane);
		}
		result = lane != NULL ? RETRY_LANE_ADDED : RETRY_LANE_NO_ROOM;
	}
	unlock_lanes();
	return result;
}

void
retry_group_lanes_none(RetryGroupUse *use)
{
	lock_lanes();
	use->lanes_counted = true;
	unlock_lanes();
}

bool
retry_group_lanes_full(RetryGroupUse *use, int64 lane_hash, int32 max)
{
	LaneKey		key = {.owner = pg_atomic_read_u64(&use->owner),.hash = lane_hash};
	bool		full;

	lock_lanes();
	full = is_too_many(use, find(&key), max);
	unlock_lanes();
	return full;
}

void
retry_group_lanes_ended(RetryGroupUse *use, int64 lane_hash)
{
	LaneKey		key = {.owner = pg_atomic_read_u64(&use->owner),.hash = lane_hash};
	Lane	   *lane;

	lock_lanes();
	/* a task that nobody has counted yet may be being counted now */
	lane = use->lanes_marked ? find_or_make(&key) : find(&key);
	if (lane != NULL && (lane->tasks > 0 || use->lanes_marked))
	{
		change(use, lane, -1);
		tidy(use, lane);
	}
	unlock_lanes();
}

/* ---------------------------------------------------------------- counting anew */

void
retry_group_lanes_forget(RetryGroupUse *use, uint64 owner)
{
	HASH_SEQ_STATUS status;
	Lane	   *lane;

	lock_lanes();
	use->lanes = 0;
	use->lanes_counted = use->lanes_marked = false;
	if (hash_get_num_entries(lanes) > 0)
	{
		hash_seq_init(&status, lanes);
		while ((lane = hash_seq_search(&status)) != NULL)
		{
			if (lane->key.owner == owner)
				(void) hash_search(lanes, &lane->key, HASH_REMOVE, NULL);
		}
	}
	unlock_lanes();
}

void
retry_group_lanes_begin_count(void)
{
	HASH_SEQ_STATUS status;
	Lane	   *lane;

	if (lanes == NULL)
		return;
	lock_lanes();
	retry_group_use_mark_lanes(true);
	hash_seq_init(&status, lanes);
	while ((lane = hash_seq_search(&status)) != NULL)
	{
		if (lane->key.owner >> 32 != MyDatabaseId)
			continue;
		lane->marked = lane->tasks - lane->reserved;
		lane->found = 0;
	}
	unlock_lanes();
}

void
retry_group_lanes_found(int32 group_id, int64 lane_hash, int64 tasks)
{
	RetryGroupUse *use = retry_group_use_find(group_id);
	LaneKey		key = {.hash = lane_hash};
	Lane	   *lane;

	if (use == NULL || !use->lanes_marked)
		return;
	key.owner = pg_atomic_read_u64(&use->owner);
	lock_lanes();
	lane = find_or_make(&key);
	if (lane != NULL)
		lane->found += tasks;
	unlock_lanes();
}

void
retry_group_lanes_apply(void)
{
	HASH_SEQ_STATUS status;
	Lane	   *lane;

	if (lanes == NULL)
		return;
	lock_lanes();
	hash_seq_init(&status, lanes);
	while ((lane = hash_seq_search(&status)) != NULL)
	{
		RetryGroupUse *use;

		if (lane->key.owner >> 32 != MyDatabaseId && retry_is_alive((Oid) (lane->key.owner >> 32)))
			continue;
		use = use_of(&lane->key);
		if (use != NULL && use->lanes_marked)
			change(use, lane, lane->found - lane->marked);
		lane->found = lane->marked = 0;
		if (use == NULL || (lane->tasks <= 0 && lane->reserved <= 0))
			(void) hash_search(lanes, &lane->key, HASH_REMOVE, NULL);
	}
	retry_group_use_mark_lanes(false);
	unlock_lanes();
}
