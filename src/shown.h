/*
 * shown.h
 *		A table in shared memory that grows: one process writes, all may read.
 *
 * A dispatcher has as many lanes as there are endpoints, which nobody knows
 * when the server starts.  So what it shows of them lies in dynamic shared
 * memory, in chunks each twice as large as the one before; their handles stand
 * in its RetryWorker.  Entries are handed out and taken back by the writer
 * alone.  Readers take no lock that could hold it up: each entry has a counter
 * that is odd while it is being written.
 */
#ifndef RETRY_SHOWN_H
#define RETRY_SHOWN_H

#include "port/atomics.h"
#include "storage/dsm_impl.h"

#define RETRY_SHOWN_CHUNKS	16
#define RETRY_SHOWN_FIRST	32	/* entries in the first chunk */

/* Nothing is shown more often than this. */
#define RETRY_SHOW_EVERY_MS	50

/* Where the chunks are: in the writer's RetryWorker.  All zero: there are none. */
typedef struct RetryShownPlace
{
	volatile uint32 nchunks;
	volatile bool failed;		/* memory could not be had lately */
	dsm_handle	chunks[RETRY_SHOWN_CHUNKS];
} RetryShownPlace;

/* What each entry begins with. */
typedef struct RetryShownHead
{
	pg_atomic_uint32 version;	/* odd: being written */
	bool		used;
} RetryShownHead;

/* The writer's side. */
typedef struct RetryShown RetryShown;

/*
 * A table of entries of this size, each of which begins with RetryShownHead,
 * shown at "place".  In the current memory context, no chunk yet.
 */
extern RetryShown *retry_shown_create(RetryShownPlace *place, Size entry_size);

/*
 * Makes another chunk when all entries are in use; false when there is no
 * memory for it, which is tried again only after some seconds.  To be called
 * outside a transaction; raises no error.
 */
extern bool retry_shown_grow(RetryShown *shown, int64 now_us);

/*
 * An entry, all zero but for its head, to be filled between begin and end; NULL
 * when all are in use.  Usable anywhere.
 */
extern void *retry_shown_get(RetryShown *shown);

/* Takes an entry back: readers pass it over. */
extern void retry_shown_free(RetryShown *shown, void *entry);

static inline void
retry_shown_begin(void *entry)
{
	RetryShownHead *head = entry;

	pg_atomic_write_u32(&head->version, pg_atomic_read_u32(&head->version) + 1);
	pg_write_barrier();
}

static inline void
retry_shown_end(void *entry)
{
	RetryShownHead *head = entry;

	pg_write_barrier();
	pg_atomic_write_u32(&head->version, pg_atomic_read_u32(&head->version) + 1);
}

/* Copies a text, cut between characters to fit "size" bytes with its zero. */
extern void retry_shown_copy_text(char *to, const char *from, int size);

/*
 * Calls "visit" with a copy of each entry in use.  What the writer has not made
 * yet, or no longer has, is passed over.  Needs a resource owner.
 */
extern void retry_shown_each(const RetryShownPlace *place, Size entry_size,
							 void (*visit) (const void *copy, void *arg), void *arg);

#endif							/* RETRY_SHOWN_H */
