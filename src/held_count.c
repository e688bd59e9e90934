/*
 * held_count.c
 *		How many tasks each disabled URL holds back, as far as dispatchers know.
 *
 * A table of fixed size with open addressing, in which a place belongs to
 * whoever has put its number there: a dispatcher writes only its own places,
 * so nothing but taking one needs more than a plain store.  A search looks at a
 * few places from where the hash points and never further, so that a place
 * that becomes free breaks no chain.
 */
#include "postgres.h"

#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "held_count.h"

#define COUNTS	4096
#define LOOKS	16				/* places looked at for one hash */

typedef struct HeldCount
{
	pg_atomic_uint64 owner;		/* database and dispatcher; 0: free */
	volatile uint64 hash;
	volatile int64 count;
} HeldCount;

static HeldCount *counts = NULL;

void
retry_held_count_request_memory(void)
{
	RequestAddinShmemSpace(COUNTS * sizeof(HeldCount));
}

void
retry_held_count_create_memory(void)
{
	bool		found;

	counts = ShmemInitStruct("retry held tasks", COUNTS * sizeof(HeldCount), &found);
	if (found)
		return;
	memset(counts, 0, COUNTS * sizeof(HeldCount));
	for (int i = 0; i < COUNTS; i++)
		pg_atomic_init_u64(&counts[i].owner, 0);
}

static inline uint64
owner_of(Oid database, int dispatcher)
{
	return (uint64) database << 32 | (uint32) dispatcher;
}

static inline HeldCount *
place(uint64 hash, int look)
{
	return &counts[(hash + look) % COUNTS];
}

void
retry_held_count_clear(Oid database, int dispatcher)
{
	if (counts == NULL)
		return;
	for (int i = 0; i < COUNTS; i++)
	{
		if (pg_atomic_read_u64(&counts[i].owner) != owner_of(database, dispatcher))
			continue;
		counts[i].count = 0;
		pg_atomic_write_u64(&counts[i].owner, 0);
	}
}

static HeldCount *
find(uint64 hash, uint64 owner)
{
	for (int i = 0; i < LOOKS; i++)
	{
		HeldCount  *at = place(hash, i);

		if (at->hash == hash && pg_atomic_read_u64(&at->owner) == owner)
			return at;
	}
	return NULL;
}

/* A free place, which is the owner's then; NULL: there is none. */
static HeldCount *
take(uint64 hash, uint64 owner)
{
	for (int i = 0; i < LOOKS; i++)
	{
		HeldCount  *at = place(hash, i);
		uint64		nobody = 0;

		if (pg_atomic_compare_exchange_u64(&at->owner, &nobody, owner))
		{
			at->hash = hash;
			return at;
		}
	}
	return NULL;
}

void
retry_held_count_set(Oid database, int dispatcher, uint64 hash, int64 count)
{
	uint64		owner = owner_of(database, dispatcher);
	HeldCount  *mine;

	if (counts == NULL)
		return;
	mine = find(hash, owner);
	if (mine == NULL && count != 0)
		mine = take(hash, owner);
	if (mine == NULL)
		return;
	mine->count = count;
	if (count == 0)
		pg_atomic_write_u64(&mine->owner, 0);
}

int64
retry_held_count_get(Oid database, uint64 hash)
{
	int64		sum = 0;

	for (int i = 0; i < LOOKS && counts != NULL; i++)
	{
		const HeldCount *at = place(hash, i);

		if (at->hash == hash && pg_atomic_read_u64(&place(hash, i)->owner) >> 32 == database)
			sum += at->count;
	}
	return sum;
}
