/*
 * shown.c
 *		A table in shared memory that grows: one process writes, all may read.
 *
 * A chunk that cannot be made is no misfortune: there is less to be seen, and
 * delivery goes on.  The chunks end with the process that made them.  A reader
 * that comes when it is just ending finds no chunk at the handle, or one that
 * is not ours, which its header tells.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "shown.h"

#define MAGIC		UINT64CONST(0x72657472736e6577) /* what a chunk begins
													 * with */
#define AGAIN_US	(10 * USECS_PER_SEC)	/* after memory could not be had */
#define READ_TRIES	100			/* of an entry that is being written */

typedef struct Chunk
{
	uint64		magic;
	uint32		entry_size;
	uint32		nentries;
	volatile uint32 ever_used;	/* no entry from here on was ever used */
} Chunk;

#define HEADER_SIZE		MAXALIGN(sizeof(Chunk))
#define ENTRY(chunk, size, i)	((char *) (chunk) + HEADER_SIZE + (Size) (i) * (size))

struct RetryShown
{
	RetryShownPlace *place;
	MemoryContext context;
	Size		entry_size;
	Chunk	   *newest;			/* entries are taken from it, in order */
	void	  **free;			/* stack of entries to be used again */
	uint32		nfree;
	uint32		free_size;
	int64		not_before_us;	/* no other chunk is tried before */
};

RetryShown *
retry_shown_create(RetryShownPlace *place, Size entry_size)
{
	RetryShown *shown = palloc0(sizeof(RetryShown));

	shown->place = place;
	shown->context = CurrentMemoryContext;
	shown->entry_size = MAXALIGN(entry_size);
	return shown;
}

/* Makes another chunk, and room for its entries to come back; raises errors. */
static bool
make_chunk(RetryShown *shown)
{
	RetryShownPlace *place = shown->place;
	uint32		nentries = RETRY_SHOWN_FIRST << place->nchunks;
	Size		size = HEADER_SIZE + nentries * shown->entry_size;
	dsm_segment *segment;
	Chunk	   *chunk;
	void	  **stack;

	if (place->nchunks == RETRY_SHOWN_CHUNKS)
		return false;
	stack = MemoryContextAllocExtended(shown->context, (shown->free_size + nentries) * sizeof(void *),
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (stack == NULL)
		return false;
	segment = dsm_create(size, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	if (segment == NULL)
	{
		pfree(stack);
		return false;
	}
	dsm_pin_mapping(segment);
	chunk = dsm_segment_address(segment);
	memset(chunk, 0, size);
	chunk->magic = MAGIC;
	chunk->entry_size = shown->entry_size;
	chunk->nentries = nentries;

	if (shown->nfree > 0)
		memcpy(stack, shown->free, shown->nfree * sizeof(void *));
	if (shown->free != NULL)
		pfree(shown->free);
	shown->free = stack;
	shown->free_size += nentries;
	shown->newest = chunk;
	place->chunks[place->nchunks] = dsm_segment_handle(segment);
	pg_write_barrier();
	place->nchunks++;
	return true;
}

/* The same without errors; the log says it once in a while. */
static bool
try_chunk(RetryShown *shown)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool made = false;

	PG_TRY();
	{
		made = make_chunk(shown);
	}
	PG_CATCH();
	{
		static bool logged = false;
		ErrorData  *error;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		if (!logged)
			ereport(LOG, (errmsg("retry: not all lanes and targets can be shown: %s", error->message)));
		logged = true;
		FreeErrorData(error);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	return made;
}

static bool
is_full(const RetryShown *shown)
{
	return shown->nfree == 0 &&
		(shown->newest == NULL || shown->newest->ever_used == shown->newest->nentries);
}

bool
retry_shown_grow(RetryShown *shown, int64 now_us)
{
	if (!is_full(shown))
		return true;
	if (now_us < shown->not_before_us)
		return false;
	shown->place->failed = !try_chunk(shown);
	if (shown->place->failed)
		shown->not_before_us = now_us + AGAIN_US;
	return !shown->place->failed;
}

void *
retry_shown_get(RetryShown *shown)
{
	void	   *entry;

	if (is_full(shown))
		return NULL;
	if (shown->nfree > 0)
		entry = shown->free[--shown->nfree];
	else
	{
		entry = ENTRY(shown->newest, shown->entry_size, shown->newest->ever_used);
		pg_atomic_init_u32(&((RetryShownHead *) entry)->version, 0);
		pg_write_barrier();
		shown->newest->ever_used++;
	}
	retry_shown_begin(entry);
	memset((char *) entry + sizeof(RetryShownHead), 0, shown->entry_size - sizeof(RetryShownHead));
	((RetryShownHead *) entry)->used = true;
	retry_shown_end(entry);
	return entry;
}

void
retry_shown_free(RetryShown *shown, void *entry)
{
	retry_shown_begin(entry);
	((RetryShownHead *) entry)->used = false;
	retry_shown_end(entry);
	shown->free[shown->nfree++] = entry;
}

void
retry_shown_copy_text(char *to, const char *from, int size)
{
	int			len = strlen(from);

	if (len >= size)
		len = pg_mbcliplen(from, len, size - 1);
	memcpy(to, from, len);
	to[len] = '\0';
}

/* A consistent copy; false when there is nothing to be seen. */
static bool
copy_entry(const char *entry, Size size, char *copy)
{
	RetryShownHead *head = unconstify(RetryShownHead *, (const RetryShownHead *) entry);

	for (int i = 0; i < READ_TRIES; i++)
	{
		uint32		version = pg_atomic_read_u32(&head->version);

		pg_read_barrier();
		if (version % 2 != 0)
			continue;
		if (!head->used)
			return false;
		memcpy(copy, entry, size);
		pg_read_barrier();
		if (pg_atomic_read_u32(&head->version) == version)
			return ((RetryShownHead *) copy)->used;
	}
	return false;				/* its writer has ended amidst */
}

static void
read_chunk(dsm_segment *segment, Size entry_size, char *copy,
		   void (*visit) (const void *copy, void *arg), void *arg)
{
	Chunk	   *chunk = dsm_segment_address(segment);
	uint32		n;

	if (dsm_segment_map_length(segment) < HEADER_SIZE || chunk->magic != MAGIC ||
		chunk->entry_size != entry_size)
		return;
	n = Min(chunk->ever_used, chunk->nentries);
	n = Min(n, (dsm_segment_map_length(segment) - HEADER_SIZE) / entry_size);
	for (uint32 i = 0; i < n; i++)
	{
		if (copy_entry(ENTRY(chunk, entry_size, i), entry_size, copy))
			visit(copy, arg);
		if (i % 1024 == 1023)
			CHECK_FOR_INTERRUPTS();
	}
}

void
retry_shown_each(const RetryShownPlace *place, Size entry_size,
				 void (*visit) (const void *copy, void *arg), void *arg)
{
	uint32		n = Min(place->nchunks, RETRY_SHOWN_CHUNKS);
	char	   *copy = palloc(MAXALIGN(entry_size));

	pg_read_barrier();
	for (uint32 i = 0; i < n; i++)
	{
		dsm_segment *segment = dsm_attach(place->chunks[i]);

		if (segment == NULL)
			continue;
		read_chunk(segment, MAXALIGN(entry_size), copy, visit, arg);
		dsm_detach(segment);
	}
	pfree(copy);
}
