/*
 * rate_table.c
 *		Buckets of scenes with a rate, shared by all dispatchers of a server.
 *
 * A table of fixed size, searched from its beginning: only the reading of a
 * configuration searches it, and what takes from a bucket knows its place.
 * Entries of scenes that have no rate any more are freed by the dispatcher that
 * notices first; those of databases that are gone, or have lost the extension,
 * are taken by whoever needs one and finds no other.  It starts empty with the
 * server, as all of this memory does.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "rate_table.h"
#include "shmem_private.h"

static RetrySharedRate *
find(Oid database, int32 scene_id)
{
	for (int i = 0; i < RETRY_MAX_RATES; i++)
	{
		RetrySharedRate *shared = &retry_shared->rates[i];

		if (shared->database == database && shared->scene_id == scene_id)
			return shared;
	}
	return NULL;
}

bool
retry_is_alive(Oid database)
{
	for (int i = 0; i < RETRY_MAX_DATABASES; i++)
	{
		const RetryDatabase *db = &retry_shared->databases[i];

		if (db->database == database)
			return db->state != RETRY_DB_ABSENT;
	}
	return false;
}

/* An entry to use; the caller holds the lock. */
static RetrySharedRate *
find_free(void)
{
	RetrySharedRate *shared = find(InvalidOid, 0);

	if (shared != NULL)
		return shared;
	for (shared = retry_shared->rates; shared < retry_shared->rates + RETRY_MAX_RATES; shared++)
	{
		if (!retry_is_alive(shared->database))
			return shared;
	}
	return NULL;
}

RetrySharedRate *
retry_rate_table_join(int32 scene_id, const RetryRate *rate, bool restarted, int64 now_us)
{
	RetrySharedRate *shared;
	RetryPace	pace;

	if (retry_shared == NULL)
		return NULL;
	retry_rate_pace(rate, &pace);
	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	shared = find(MyDatabaseId, scene_id);
	if (shared == NULL)
	{
		shared = find_free();
		if (shared != NULL)
		{
			shared->database = InvalidOid;
			pg_atomic_init_u64(&shared->bucket, (uint64)
							   (restarted ? retry_bucket_fresh(&pace, now_us) :
								retry_bucket_full(&pace, now_us)));
			shared->rate = *rate;
			shared->scene_id = scene_id;
			pg_write_barrier();
			shared->database = MyDatabaseId;
		}
	}
	else if (!retry_rate_same(&shared->rate, rate))
	{
		RetryPace	from;
		int64		bucket;

		retry_rate_pace(&shared->rate, &from);
		bucket = retry_bucket_convert((int64) pg_atomic_read_u64(&shared->bucket), &from, &pace,
									  now_us);
		pg_atomic_write_u64(&shared->bucket, (uint64) bucket);
		shared->rate = *rate;
	}
	LWLockRelease(retry_shared->lock);
	return shared;
}

RetrySharedRate *
retry_rate_table_find(int32 scene_id, RetryRate *rate)
{
	RetrySharedRate *shared;

	if (retry_shared == NULL)
		return NULL;
	LWLockAcquire(retry_shared->lock, LW_SHARED);
	shared = find(MyDatabaseId, scene_id);
	if (shared != NULL)
		*rate = shared->rate;
	LWLockRelease(retry_shared->lock);
	return shared;
}

void
retry_rate_table_leave(int32 scene_id)
{
	RetrySharedRate *shared;

	LWLockAcquire(retry_shared->lock, LW_EXCLUSIVE);
	shared = find(MyDatabaseId, scene_id);
	if (shared != NULL)
	{
		shared->database = InvalidOid;
		shared->scene_id = 0;
	}
	LWLockRelease(retry_shared->lock);
}

/* Is it still the scene's? */
static inline bool
is_of(const RetrySharedRate *shared, int32 scene_id)
{
	return shared->database == MyDatabaseId && shared->scene_id == scene_id;
}

bool
retry_shared_rate_take(RetrySharedRate *shared, int32 scene_id, const RetryPace *pace, int64 now_us)
{
	uint64		old = pg_atomic_read_u64(&shared->bucket);
	int64		bucket;

	do
	{
		bucket = (int64) old;
		if (!is_of(shared, scene_id))
			return true;
		if (!retry_bucket_take(pace, &bucket, now_us))
			return false;
	} while (!pg_atomic_compare_exchange_u64(&shared->bucket, &old, (uint64) bucket));
	return true;
}

int64
retry_shared_rate_reserve(RetrySharedRate *shared, int32 scene_id, const RetryPace *pace, int64 now_us)
{
	uint64		old = pg_atomic_read_u64(&shared->bucket);
	int64		bucket;
	int64		at_us;

	do
	{
		bucket = (int64) old;
		if (!is_of(shared, scene_id))
			return now_us;
		at_us = retry_bucket_reserve(pace, &bucket, now_us);
	} while (!pg_atomic_compare_exchange_u64(&shared->bucket, &old, (uint64) bucket));
	return at_us;
}

void
retry_shared_rate_give_back(RetrySharedRate *shared, int32 scene_id, const RetryPace *pace)
{
	if (is_of(shared, scene_id))
		pg_atomic_fetch_sub_u64(&shared->bucket, pace->step);
}
