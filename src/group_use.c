/*
 * group_use.c
 *		What groups with limits use of them, in shared memory.
 *
 * A table of fixed size with open addressing.  A search looks at a few places
 * from where the hash points, so an entry that becomes free breaks no chain;
 * entries are taken and freed under a lock, and found without.
 *
 * What a transaction has added is remembered here until it ends.  At PREPARE it
 * is counted as if it were committed: COMMIT PREPARED may be another session's,
 * and tells nobody which groups it is about.  If it is rolled back then, too
 * much is counted until the next upkeep.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#include "group_lanes.h"
#include "group_use.h"
#include "shmem_private.h"

#define PLACES	RETRY_GROUP_USES
#define LOOKS	32				/* places looked at for one group */

static RetryGroupUse *table = NULL;

/* What the current transaction has added. */
typedef struct Added
{
	RetryGroupUse *use;
	uint32		made;			/* by which the entry is known to be the same */
	int64		tasks;
	SubTransactionId subid;
} Added;

static Added *added = NULL;
static int	nadded = 0;
static int	added_room = 0;

void
retry_group_use_request_memory(void)
{
	RequestAddinShmemSpace(PLACES * sizeof(RetryGroupUse));
}

void
retry_group_use_create_memory(void)
{
	bool		found;

	table = ShmemInitStruct("retry groups", PLACES * sizeof(RetryGroupUse), &found);
	if (found)
		return;
	memset(table, 0, PLACES * sizeof(RetryGroupUse));
	for (int i = 0; i < PLACES; i++)
	{
		pg_atomic_init_u64(&table[i].owner, 0);
		pg_atomic_init_u64(&table[i].pending, 0);
		pg_atomic_init_u64(&table[i].reserved, 0);
		pg_atomic_init_u64(&table[i].refused, 0);
		pg_atomic_init_u64(&table[i].bucket, 0);
	}
}

/* ---------------------------------------------------------------- entries */

static inline uint64
owner_of(int32 group_id)
{
	return (uint64) MyDatabaseId << 32 | (uint32) group_id;
}

static inline bool
is_of(RetryGroupUse *use, uint64 owner)
{
	return pg_atomic_read_u64(&use->owner) == owner;
}

static inline RetryGroupUse *
place(uint64 owner, int look)
{
	return &table[(murmurhash32((uint32) owner ^ murmurhash32((uint32) (owner >> 32))) + look) % PLACES];
}

static RetryGroupUse *
find(uint64 owner)
{
	for (int i = 0; i < LOOKS; i++)
	{
		if (is_of(place(owner, i), owner))
			return place(owner, i);
	}
	return NULL;
}

/* A place to use: free, or of a database that is gone.  The caller holds the lock. */
static RetryGroupUse *
find_free(uint64 owner)
{
	RetryGroupUse *use = NULL;

	for (int i = 0; i < LOOKS; i++)
	{
		uint64		other = pg_atomic_read_u64(&place(owner, i)->owner);

		if (other == 0)
			return place(owner, i);
		if (use == NULL && !retry_is_alive((Oid) (other >> 32)))
			use = place(owner, i);
	}
	return use;
}

static RetryGroupUse *
take(uint64 owner)
{
	RetryGroupUse *use;

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	use = find(owner);
	if (use == NULL && (use = find_free(owner)) != NULL)
	{
		pg_atomic_write_u64(&use->owner, 0);
		pg_write_barrier();
		pg_atomic_write_u64(&use->pending, 0);
		pg_atomic_write_u64(&use->reserved, 0);
		pg_atomic_write_u64(&use->refused, 0);
		use->version++;
		use->made++;
		use->made_us = retry_monotonic_us();
		use->refused_at = 0;
		use->counted = false;
		retry_group_lanes_forget(use, owner);
		memset(&use->rate, 0, sizeof(use->rate));
		pg_write_barrier();
		pg_atomic_write_u64(&use->owner, owner);
	}
	LWLockRelease(retry_shared->lock);
	return use;
}

RetryGroupUse *
retry_group_use_of(uint64 owner)
{
	return find(owner);
}

RetryGroupUse *
retry_group_use_find(int32 group_id)
{
	return table != NULL ? find(owner_of(group_id)) : NULL;
}

RetryGroupUse *
retry_group_use(int32 group_id)
{
	static RetryGroupUse *last = NULL;
	uint64		owner = owner_of(group_id);
	RetryGroupUse *use;

	if (table == NULL)
		return NULL;
	if (last != NULL && is_of(last, owner))
		return last;
	use = find(owner);
	if (use == NULL)
		use = take(owner);
	if (use != NULL)
		last = use;
	return use;
}

void
retry_group_use_sweep(int64 since_us, bool (*keep) (int32 group_id, void *arg), void *arg)
{
	for (int i = 0; i < PLACES && table != NULL; i++)
	{
		uint64		owner = pg_atomic_read_u64(&table[i].owner);

		if (owner >> 32 != MyDatabaseId || table[i].made_us >= since_us || keep((int32) owner, arg))
			continue;
		LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
		(void) pg_atomic_compare_exchange_u64(&table[i].owner, &owner, 0);
		LWLockRelease(retry_shared->lock);
	}
}

bool
retry_group_use_sweep_lanes(int64 since_us, bool (*keep) (int32 group_id, void *arg), void *arg)
{
	bool		to_count = false;

	for (int i = 0; i < PLACES && table != NULL; i++)
	{
		RetryGroupUse *use = &table[i];
		uint64		owner = pg_atomic_read_u64(&use->owner);

		if (owner >> 32 != MyDatabaseId)
			continue;
		if (keep((int32) owner, arg))
			to_count |= !use->lanes_counted;
		else if (use->made_us < since_us && (use->lanes_counted || use->lanes > 0))
			retry_group_lanes_forget(use, owner);
	}
	return to_count;
}

void
retry_group_use_mark_lanes(bool begin)
{
	for (int i = 0; i < PLACES; i++)
	{
		if (pg_atomic_read_u64(&table[i].owner) >> 32 != MyDatabaseId)
			continue;
		if (!begin && table[i].lanes_marked)
			table[i].lanes_counted = true;
		table[i].lanes_marked = begin;
	}
}

/* ---------------------------------------------------------------- tasks */

int64
retry_group_use_pending(const RetryGroupUse *use)
{
	int64		pending = (int64) pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &use->pending));

	return Max(pending, 0);
}

static inline void
subtract(pg_atomic_uint64 *value, int64 tasks)
{
	(void) pg_atomic_fetch_sub_u64(value, tasks);
}

/* The transaction keeps, or takes back, what it has added; no errors. */
static void
settle(const Added *a, bool keep)
{
	if (a->use->made != a->made)
		return;
	subtract(&a->use->reserved, a->tasks);
	if (!keep)
		subtract(&a->use->pending, a->tasks);
}

static void
at_end(XactEvent event, void *arg)
{
	bool		keep = event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE;

	if (nadded == 0 || (!keep && event != XACT_EVENT_ABORT))
		return;
	for (int i = 0; i < nadded; i++)
		settle(&added[i], keep);
	nadded = 0;
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	int			left = 0;

	if (nadded == 0 || (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB))
		return;
	for (int i = 0; i < nadded; i++)
	{
		if (added[i].subid != subid)
			added[left++] = added[i];
		else if (event == SUBXACT_EVENT_ABORT_SUB)
			settle(&added[i], false);
		else
		{
			added[i].subid = parent;
			added[left++] = added[i];
		}
	}
	nadded = left;
}

/* The note on what this subtransaction adds to the entry. */
static Added *
note_of(RetryGroupUse *use)
{
	static bool registered = false;
	uint32		made = use->made;
	SubTransactionId subid = GetCurrentSubTransactionId();

	for (int i = nadded - 1; i >= 0; i--)
	{
		if (added[i].use == use && added[i].made == made && added[i].subid == subid)
			return &added[i];
	}
	if (!registered)
	{
		RegisterXactCallback(at_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		registered = true;
	}
	if (nadded == added_room)
	{
		int			room = Max(16, 2 * added_room);

		added = added == NULL ? MemoryContextAlloc(TopMemoryContext, room * sizeof(Added)) :
			repalloc(added, room * sizeof(Added));
		added_room = room;
	}
	added[nadded] = (Added)
	{
		.use = use,.made = made,.subid = subid
	};
	return &added[nadded++];
}

bool
retry_group_use_add(RetryGroupUse *use, int64 tasks, int64 max)
{
	Added	   *note = note_of(use);
	uint64		pending = pg_atomic_read_u64(&use->pending);

	do
	{
		if (max >= 0 && (int64) pending > max - tasks)
			return false;
	} while (!pg_atomic_compare_exchange_u64(&use->pending, &pending, pending + tasks));
	(void) pg_atomic_fetch_add_u64(&use->reserved, tasks);
	note->tasks += tasks;
	return true;
}

void
retry_group_use_ended(RetryGroupUse *use, int64 tasks)
{
	subtract(&use->pending, tasks);
}

/* ---------------------------------------------------------------- rates */

/* The bucket is kept by this rate from now on. */
static void
change_rate(RetryGroupUse *use, const RetryRate *rate, const RetryPace *to, int64 now_us)
{
	RetryPace	from;
	int64		bucket;

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	if (!retry_rate_same(&use->rate, rate))
	{
		if (use->rate.count == 0)
			bucket = retry_bucket_full(to, now_us);
		else
		{
			retry_rate_pace(&use->rate, &from);
			bucket = retry_bucket_convert((int64) pg_atomic_read_u64(&use->bucket), &from, to, now_us);
		}
		pg_atomic_write_u64(&use->bucket, (uint64) bucket);
		use->rate = *rate;
	}
	LWLockRelease(retry_shared->lock);
}

int64
retry_group_use_take(RetryGroupUse *use, const RetryRate *rate, int64 tasks)
{
	int64		now_us = retry_monotonic_us();
	uint64		old;
	int64		bucket;
	int64		wait_us;
	RetryPace	pace;

	retry_rate_pace(rate, &pace);
	if (!retry_rate_same(&use->rate, rate))
		change_rate(use, rate, &pace, now_us);
	old = pg_atomic_read_u64(&use->bucket);
	do
	{
		bucket = (int64) old;
		wait_us = retry_bucket_take_many(&pace, &bucket, tasks, now_us);
		if (wait_us != 0)
			return wait_us;
	} while (!pg_atomic_compare_exchange_u64(&use->bucket, &old, (uint64) bucket));
	return 0;
}

int64
retry_group_use_left(const RetryGroupUse *use, const RetryRate *rate)
{
	RetryGroupUse *u = unconstify(RetryGroupUse *, use);
	RetryPace	pace;

	retry_rate_pace(rate, &pace);
	if (!retry_rate_same(&use->rate, rate))
		return retry_bucket_left(&pace, retry_bucket_full(&pace, retry_monotonic_us()), retry_monotonic_us());
	return retry_bucket_left(&pace, (int64) pg_atomic_read_u64(&u->bucket), retry_monotonic_us());
}

/* ---------------------------------------------------------------- corrections */

void
retry_group_use_mark(RetryGroupUse *use, RetryGroupMark *mark)
{
	LWLockAcquire(retry_shared->lock, LW_SHARED);
	mark->use = use;
	mark->owner = pg_atomic_read_u64(&use->owner);
	mark->group_id = (int32) mark->owner;
	mark->version = use->version;
	mark->committed = (int64) pg_atomic_read_u64(&use->pending) - (int64) pg_atomic_read_u64(&use->reserved);
	mark->counted = use->counted;
	LWLockRelease(retry_shared->lock);
}

int
retry_group_use_mark_all(RetryGroupMark **marks)
{
	int			n = 0;

	*marks = NULL;
	for (int i = 0; i < PLACES && table != NULL; i++)
	{
		if (pg_atomic_read_u64(&table[i].owner) >> 32 != MyDatabaseId)
			continue;
		if (*marks == NULL)
			*marks = palloc(PLACES * sizeof(RetryGroupMark));
		retry_group_use_mark(&table[i], &(*marks)[n++]);
	}
	return n;
}

void
retry_group_use_correct(const RetryGroupMark *mark, int64 counted)
{
	RetryGroupUse *use = mark->use;

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	if (is_of(use, mark->owner) && use->version == mark->version)
	{
		use->version++;
		(void) pg_atomic_fetch_add_u64(&use->pending, counted - mark->committed);
		use->counted = true;
	}
	LWLockRelease(retry_shared->lock);
}
