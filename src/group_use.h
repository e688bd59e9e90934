/*
 * group_use.h
 *		What groups with limits use of them, in shared memory.
 *
 * A group that has a limit on what is shared (unfinished tasks, tasks a second)
 * has an entry; others have none and cost nothing.  Sessions count what they
 * store, dispatchers what is finished, each with an atomic of its own group, so
 * that neither a lock nor a row is shared.  An entry begins empty, when the
 * server starts or the group gets its first limit; it is put right by
 * whoever counts (see RetryGroupMark), and again by each upkeep.
 */
#ifndef RETRY_GROUP_USE_H
#define RETRY_GROUP_USE_H

#include "port/atomics.h"
#include "datatype/timestamp.h"
#include "rate.h"

/* Groups that there is room for; of nearly as many some may find none. */
#define RETRY_GROUP_USES	4096

typedef struct RetryGroupUse
{
	pg_atomic_uint64 owner;		/* database and group; 0: this entry is free */
	pg_atomic_uint64 pending;	/* an int64: unfinished tasks, with those of
								 * transactions under way */
	pg_atomic_uint64 reserved;	/* an int64: of these, those of transactions
								 * under way */
	pg_atomic_uint64 refused;	/* calls since the entry was made */
	volatile TimestampTz refused_at;	/* the last of them; 0: none */
	uint32		version;		/* grows with each correction; under a lock */
	volatile uint32 made;		/* how often this place was taken */
	volatile int64 made_us;		/* when it last was */
	volatile bool counted;		/* it was corrected at least once */
	volatile bool lanes_counted;	/* so were its lanes; these three under
									 * the lock of group_lanes.c */
	volatile bool lanes_marked; /* and they are being counted anew */
	volatile int32 lanes;		/* with unfinished tasks, if it has max_lanes */
	RetryRate	rate;			/* by which the bucket is kept; count 0: none
								 * yet */
	pg_atomic_uint64 bucket;	/* see rate.h; an int64 */
} RetryGroupUse;

/* Its part of the shared memory, for the hooks of shmem.c. */
extern void retry_group_use_request_memory(void);
extern void retry_group_use_create_memory(void);

/*
 * The entry of a group of the current database, made if need be; NULL when the
 * library is not preloaded, or there is no room.  One comparison when it is the one that was asked for last.
 */
extern RetryGroupUse *retry_group_use(int32 group_id);

/* The same, but NULL when there is none. */
extern RetryGroupUse *retry_group_use_find(int32 group_id);

/* The entry whose owner this is, or NULL. */
extern RetryGroupUse *retry_group_use_of(uint64 owner);

/*
 * Frees the entries of the current database's groups for which "keep" says no,
 * but those that were made since that moment: "keep" may know too little of them.
 */
extern void retry_group_use_sweep(int64 since_us, bool (*keep) (int32 group_id, void *arg), void *arg);

/*
 * Forgets the lanes of those for which "keep" says no, with the same exception.
 * True when those of another are still to be counted.
 */
extern bool retry_group_use_sweep_lanes(int64 since_us, bool (*keep) (int32 group_id, void *arg), void *arg);

/*
 * Lanes of the current database's groups are to be counted, or have been, for
 * group_lanes.c; the caller holds its lock.
 */
extern void retry_group_use_mark_lanes(bool begin);

/* Unfinished tasks, as far as is known; never negative. */
extern int64 retry_group_use_pending(const RetryGroupUse *use);

/*
 * The current transaction stores so many tasks: counted now, taken back if the
 * (sub)transaction rolls back, and kept for good when it commits or is prepared.
 * False, with nothing counted, when there would be more than "max" then (-1: no
 * limit).  ERROR only when memory is short.
 */
extern bool retry_group_use_add(RetryGroupUse *use, int64 tasks, int64 max);

/* So many are finished.  No errors. */
extern void retry_group_use_ended(RetryGroupUse *use, int64 tasks);

/*
 * Takes so many out of the bucket of this rate; 0, or the microseconds after
 * which they may be there; -1: never, since they are more than one burst.
 */
extern int64 retry_group_use_take(RetryGroupUse *use, const RetryRate *rate, int64 tasks);

/* How many could be taken now. */
extern int64 retry_group_use_left(const RetryGroupUse *use, const RetryRate *rate);

/*
 * An entry as it was just before the snapshot by which tasks are counted: what
 * is committed between the two is counted twice then, rather than never.
 */
typedef struct RetryGroupMark
{
	RetryGroupUse *use;
	int32		group_id;
	uint64		owner;
	uint32		version;
	int64		committed;		/* what it said of committed transactions */
	bool		counted;		/* it was corrected before */
} RetryGroupMark;

/* Notes an entry, or all of the current database (palloc'd, returns how many). */
extern void retry_group_use_mark(RetryGroupUse *use, RetryGroupMark *mark);
extern int	retry_group_use_mark_all(RetryGroupMark **marks);

/*
 * "counted" tasks of committed transactions were unfinished when the mark was
 * made: the entry is put right, unless somebody has done so since.
 */
extern void retry_group_use_correct(const RetryGroupMark *mark, int64 counted);

#endif							/* RETRY_GROUP_USE_H */
