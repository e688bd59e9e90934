/*
 * notify.c
 *		NOTIFY for scenes that want it when a task has its outcome.
 *
 * Whoever commits a NOTIFY holds one lock of the whole server meanwhile, in all
 * databases, until its WAL is flushed.  The transaction that records outcomes
 * must neither wait for that lock nor keep others waiting for its flush, and
 * must not fail because the queue of notifications is full.  So notifications
 * have a transaction of their own, right after that one, which takes the lock
 * only if it is free, and waits for no WAL.  What this costs is that a crash
 * between the two loses them.
 *
 * A session that listens and stays in a transaction makes the queue grow, for
 * all; when it is full, every commit with a NOTIFY fails.  So nothing is added
 * to one that is half full.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/async.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "event.h"
#include "notify.h"
#include "turn.h"
#include "worker.h"

#define NOTES_MAX		20000	/* while the lock cannot be had */
#define QUEUE_FULL		0.5		/* of the server's queue: no more from us */
#define LOOK_US			USECS_PER_SEC	/* at the queue */
#define PATIENCE_US		USECS_PER_SEC	/* then it waits for the lock */
#define LOG_INTERVAL_MS	(60 * 1000)

/* The end of a task.  text: the channel, and after its zero the scene. */
typedef struct Note
{
	dlist_node	node;
	pg_uuid_t	id;
	bool		succeeded;
	char		text[FLEXIBLE_ARRAY_MEMBER];
} Note;

struct RetryNotes
{
	MemoryContext context;		/* of the notes; reset when they are sent */
	dlist_head	list;
	int			n;
	int64		dropped;
	TimestampTz since;			/* the lock is not to be had; 0: it is */
	TimestampTz looked_at;		/* the queue */
	bool		full;			/* it was too full then */
};

RetryNotes *
retry_notes_create(void)
{
	RetryNotes *notes = palloc0(sizeof(RetryNotes));

	notes->context = AllocSetContextCreate(CurrentMemoryContext, "retry notes", ALLOCSET_DEFAULT_SIZES);
	dlist_init(&notes->list);
	return notes;
}

void
retry_note_end(RetryNotes *notes, const RetryScene *scene, const RetryEnded *ended)
{
	Size		channel;
	Size		name;
	Note	   *note = NULL;

	if (scene == NULL || scene->notify == NULL || !ended->verdict.terminal)
		return;
	channel = strlen(scene->notify) + 1;
	name = strlen(scene->name) + 1;
	if (notes->n < NOTES_MAX)
		note = MemoryContextAllocExtended(notes->context, offsetof(Note, text) + channel + name, MCXT_ALLOC_NO_OOM);
	if (note == NULL)
	{
		notes->dropped++;
		return;
	}
	note->id = ended->entry.pos.id;
	note->succeeded = ended->verdict.outcome == RETRY_SUCCEEDED;
	memcpy(note->text, scene->notify, channel);
	memcpy(note->text + channel, scene->name, name);
	dlist_push_tail(&notes->list, &note->node);
	notes->n++;
}

/* Is there room in the server's queue?  Asked about once a second. */
static bool
queue_has_room(RetryNotes *notes)
{
	TimestampTz now = GetCurrentTimestamp();

	if (now < notes->looked_at || now >= notes->looked_at + LOOK_US)
	{
		notes->full = DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) >= QUEUE_FULL;
		notes->looked_at = now;
	}
	return !notes->full;
}

/* The lock that the commit of a NOTIFY takes. */
static bool
lock_queue(bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, InvalidOid, 0);
	return LockAcquire(&tag, AccessExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static void
send_note(const Note *note, StringInfo payload)
{
	const char *scene = note->text + strlen(note->text) + 1;

	resetStringInfo(payload);
	appendStringInfo(payload, "{\"id\":\"%s\",\"state\":\"%s\",\"scene\":",
					 DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&note->id))),
					 note->succeeded ? "succeeded" : "dead");
	escape_json(payload, scene);
	appendStringInfoChar(payload, '}');
	Async_Notify(note->text, payload->data);
}

/* What notifying needs to know. */
typedef struct Sending
{
	RetryNotes *notes;
	bool		wait;
	bool		full;
} Sending;

/* False: the lock is taken. */
static bool
send_notes(void *arg)
{
	Sending    *sending = arg;
	StringInfoData payload;
	dlist_iter	iter;

	sending->full = !queue_has_room(sending->notes);
	if (sending->full)
		return true;
	if (!lock_queue(sending->wait))
		return false;
	initStringInfo(&payload);
	dlist_foreach(iter, &sending->notes->list)
	{
		send_note(dlist_container(Note, node, iter.cur), &payload);
	}
	return true;
}

/* Says that tasks ended of which nobody was notified, and why; "at_once": even within the minute. */
static void
note_loss(RetryDispatcher *d, int64 count, bool at_once, const char *why)
{
	static TimestampTz last = 0;
	static int64 untold = 0;
	TimestampTz now = GetCurrentTimestamp();
	RetryEvent	event = {.kind = RETRY_EVENT_NOT_NOTIFIED};
	char		detail[256];

	untold += count;
	if (!at_once && now >= last && !TimestampDifferenceExceeds(last, now, LOG_INTERVAL_MS))
		return;
	last = now;
	snprintf(detail, sizeof(detail), "of the ends of " INT64_FORMAT " tasks: %s", untold, why);
	event.detail = detail;
	retry_event_add(d, &event);
	ereport(LOG, (errmsg("retry: nobody was notified %s", detail)));
	untold = 0;
}

bool
retry_notify(RetryDispatcher *d, bool last)
{
	RetryNotes *notes = d->notes;
	TimestampTz now;
	Sending		sending = {.notes = notes};
	MemoryContext caller;
	ErrorData  *error;
	bool		sent;
	bool		locked;
	int64		count = notes->n + notes->dropped;

	if (count == 0)
		return true;
	now = GetCurrentTimestamp();
	sending.wait = last || (notes->since != 0 && now >= notes->since + PATIENCE_US);
	caller = MemoryContextSwitchTo(d->turn_context);
	error = retry_worker_store(send_notes, &sending, &sent);
	locked = !sent && (error == NULL || error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE);
	if (locked && !last)
	{
		if (notes->since == 0 || now < notes->since || sending.wait)
			notes->since = now;
		MemoryContextSwitchTo(caller);
		return false;
	}
	if (locked)
		note_loss(d, count, last, "others notify all the time, and the dispatcher stops");
	else if (error != NULL)
		note_loss(d, count, last, error->message);
	else if (sending.full)
		note_loss(d, count, last, "the server's queue of notifications is half full, see pg_notification_queue_usage()");
	else if (notes->dropped > 0)
		note_loss(d, notes->dropped, last, "others notify all the time, and too many waited");
	MemoryContextSwitchTo(caller);
	dlist_init(&notes->list);
	notes->n = 0;
	notes->dropped = 0;
	notes->since = 0;
	MemoryContextReset(notes->context);
	return true;
}
