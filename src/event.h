/*
 * event.h
 *		What happened to lanes and targets, noted for people.
 *
 * A breaker that opened, a lane that was asked to wait, a URL that was
 * disabled: whoever asks the next morning why nothing was sent finds it in the
 * view retry.events.  Nothing reads events to decide anything, so they may be
 * dropped where keeping them would hold up delivery.
 *
 * The including file includes postgres.h first.
 */
#ifndef RETRY_EVENT_H
#define RETRY_EVENT_H

#include "datatype/timestamp.h"

struct RetryDispatcher;

/* What happened; each has its word in event.c.  SQL notes more kinds. */
typedef enum RetryEventKind
{
	RETRY_EVENT_BREAKER_OPENED,
	RETRY_EVENT_BREAKER_CLOSED,
	RETRY_EVENT_THROTTLED,		/* an answer has slowed the lane down */
	RETRY_EVENT_BLOCKED,		/* an answer said when to come again */
	RETRY_EVENT_TARGET_OUT,		/* of a routed scene: it is left alone */
	RETRY_EVENT_TARGET_BACK,
	RETRY_EVENT_URL_DISABLED,
	RETRY_EVENT_URL_ENABLED,
	RETRY_EVENT_QUARANTINED,	/* a task, for crashes */
	RETRY_EVENT_STARTED,		/* a dispatcher */
	RETRY_EVENT_STOPPED,
	RETRY_EVENT_CRASHED,		/* a dispatcher or an executor */
	RETRY_EVENT_CONFIGURED,		/* somebody changed configuration */
	RETRY_EVENT_COPY,			/* this database is a copy, and holds what
								 * came with it */
	RETRY_EVENT_MOVED,			/* it goes on where another server delivered */
	RETRY_EVENT_UPKEEP_FAILED,
	RETRY_EVENT_SCHEDULE_FAILED,	/* one of its runs could not be enqueued */
	RETRY_EVENT_ALARM_UNTOLD,	/* no message about it could be made */
	RETRY_EVENT_NOT_NOTIFIED,	/* of the ends of tasks, for want of room */
	RETRY_EVENT_DECIDED,		/* over a message, since nobody told */
	RETRY_EVENT_GIVEN_UP,		/* an operation that must be done is dead */
	RETRY_EVENT_DROPPED,		/* events, since there were too many */
	RETRY_EVENT_KINDS
} RetryEventKind;

/* One event.  Strings are the caller's; 0 and NULL stand for nothing. */
typedef struct RetryEvent
{
	RetryEventKind kind;
	int32		group_id;
	int32		scene_id;
	int64		lane_hash;
	const char *lane;			/* its name */
	const char *target;			/* URL of a target, or one that was disabled */
	const char *detail;			/* in words; cut after 1000 bytes */
	TimestampTz at;				/* 0: now */
} RetryEvent;

typedef struct RetryEvents RetryEvents;

/* An empty list, in the current memory context. */
extern RetryEvents *retry_events_create(void);

/*
 * Notes an event, to be written when the turn ends.  Copies what it is given;
 * usable anywhere in a dispatcher, in a transaction or not.  Cannot fail: when
 * there are too many of its kind, or there is no memory, it is only counted.
 */
extern void retry_event_add(struct RetryDispatcher *d, const RetryEvent *event);

/*
 * Writes what was noted, in a transaction of its own.  Must be called outside
 * a transaction; raises no error.  False when the table is locked: the events
 * are kept, and the caller calls again.  When they cannot be stored, they are
 * dropped and the log says so.  "last": how many were dropped is said now, not
 * within the minute.
 */
extern bool retry_events_write(struct RetryDispatcher *d, bool last);

/*
 * For those who are no dispatchers: puts one event in, in the current
 * transaction.  "wait": for who has the table locked; else false then, and
 * nothing was put in.  Raises what table access raises.
 */
extern bool retry_event_store(const RetryEvent *event, bool wait);

/* The word for a kind, as the table has it. */
extern const char *retry_event_word(RetryEventKind kind);

#endif							/* RETRY_EVENT_H */
