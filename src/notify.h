/*
 * notify.h
 *		NOTIFY for scenes that want it when a task has its outcome.
 *
 * A notification is a hint for sessions that listen, never the fact itself: it
 * is sent after the outcome is recorded, and may be missing after a crash, or
 * while the server's queue of notifications is half full.
 *
 * The including file includes postgres.h first.
 */
#ifndef RETRY_NOTIFY_H
#define RETRY_NOTIFY_H

#include "config.h"
#include "record.h"

struct RetryDispatcher;

typedef struct RetryNotes RetryNotes;

/* An empty list, in the current memory context. */
extern RetryNotes *retry_notes_create(void);

/*
 * Notes the recorded end of a task for the channel of its scene; nothing where
 * the scene (NULL: it is gone) has none, or the task goes on.  Copies what it
 * needs.  Cannot fail: when there are too many, or there is no memory, the note
 * is only counted.
 */
extern void retry_note_end(RetryNotes *notes, const RetryScene *scene, const RetryEnded *ended);

/*
 * Notifies of what was noted, in a transaction of its own.  To be called outside
 * a transaction; raises no error.  False while other sessions that notify have
 * the lock that takes: the notes are kept, and the caller calls again.  "last":
 * it does not, so this waits for the lock, as long as lock_timeout allows, and
 * what cannot be sent then is given up, with an event.
 */
extern bool retry_notify(struct RetryDispatcher *d, bool last);

#endif							/* RETRY_NOTIFY_H */
