/*
 * rate_table.h
 *		Buckets of scenes with a rate, shared by all dispatchers of a server.
 *
 * A scene's lanes belong to several dispatchers, and its rate is that of all
 * of them together.  So its bucket lies in shared memory, where one
 * compare-and-swap takes a request out of it.
 */
#ifndef RETRY_RATE_TABLE_H
#define RETRY_RATE_TABLE_H

#include "port/atomics.h"
#include "rate.h"

/* Scenes with a rate, in all databases. */
#define RETRY_MAX_RATES		4096

typedef struct RetrySharedRate
{
	Oid			database;		/* InvalidOid: this entry is free */
	int32		scene_id;
	RetryRate	rate;			/* by which the bucket is kept */
	pg_atomic_uint64 bucket;	/* see rate.h; an int64 */
} RetrySharedRate;

/*
 * The bucket of a scene of the current database, kept by this rate from now on.
 * One that is not there is made: with a whole burst in it, or, when "restarted",
 * with what a tenth of a second brings, since nobody knows what was sent before.
 * NULL when all RETRY_MAX_RATES are in use.  Takes a lock for moments.
 */
extern RetrySharedRate *retry_rate_table_join(int32 scene_id, const RetryRate *rate,
											  bool restarted, int64 now_us);

/* The bucket of a scene of the current database, and its rate; NULL when it has none. */
extern RetrySharedRate *retry_rate_table_find(int32 scene_id, RetryRate *rate);

/* The scene has no rate any more: its bucket is free for others.  No error if it has none. */
extern void retry_rate_table_leave(int32 scene_id);

/*
 * As their namesakes in rate.h; no lock.  A bucket that was freed meanwhile, and
 * is perhaps another's, is left alone: then everything is let pass, since its
 * scene has no rate, or a new bucket, which is known as soon as the
 * configuration is read.
 */
extern bool retry_shared_rate_take(RetrySharedRate *shared, int32 scene_id, const RetryPace *pace,
								   int64 now_us);
extern int64 retry_shared_rate_reserve(RetrySharedRate *shared, int32 scene_id,
									   const RetryPace *pace, int64 now_us);
extern void retry_shared_rate_give_back(RetrySharedRate *shared, int32 scene_id,
										const RetryPace *pace);

#endif							/* RETRY_RATE_TABLE_H */
