/*
 * held_count.h
 *		How many tasks each disabled URL holds back, as far as dispatchers know.
 *
 * Counted where they are passed over, in shared memory, so that a view shows it
 * without looking for the tasks, which no index leads to.  There is room for
 * some thousand URLs of all databases together; of those beyond, and of tasks
 * passed over before the last restart, nothing is known.
 *
 * One writer for each count, and readers that need no lock.
 */
#ifndef RETRY_HELD_COUNT_H
#define RETRY_HELD_COUNT_H

/* Its part of the shared memory, for the hooks of shmem.c. */
extern void retry_held_count_request_memory(void);
extern void retry_held_count_create_memory(void);

/* Forgets what a dispatcher of this number had counted in the database. */
extern void retry_held_count_clear(Oid database, int dispatcher);

/*
 * Sets a count of this dispatcher's, for a URL (by its hash, which is not 0);
 * 0 frees its place.  Does nothing when there is no room.
 */
extern void retry_held_count_set(Oid database, int dispatcher, uint64 hash, int64 count);

/* The counts of all dispatchers of the database for a URL. */
extern int64 retry_held_count_get(Oid database, uint64 hash);

#endif							/* RETRY_HELD_COUNT_H */
