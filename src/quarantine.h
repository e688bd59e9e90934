/*
 * quarantine.h
 *		Attempts that may have crashed a dispatcher: sent with few others, then
 *		alone, and at last not at all.
 *
 * What was under way at a crash (crash.h) is under suspicion.  Suspects are
 * held apart, so that another crash tells more: those of one crash are sent a
 * few at a time, those of two alone, and one that was alone at three crashes is
 * put aside as a dead letter.  Everybody else goes on meanwhile.  A dispatcher
 * that knows of no suspect, as nearly all do, has d->quarantine = NULL.
 */
#ifndef RETRY_QUARANTINE_H
#define RETRY_QUARANTINE_H

#include "turn.h"

struct RetrySending;

/* How an attempt is to be dealt with, in growing order of suspicion. */
typedef enum RetrySuspicion
{
	RETRY_SUSPECT_NONE,
	RETRY_SUSPECT_FEW,			/* sent with few other suspects */
	RETRY_SUSPECT_ALONE,		/* sent when nothing else is under way */
	RETRY_SUSPECT_CONDEMNED,	/* its task is put aside */
	RETRY_SUSPECT_UNREADABLE,	/* the same, but its row is not even read */
	RETRY_SUSPECT_SHUNNED		/* not even that: it stays where it is */
} RetrySuspicion;

/*
 * What a new dispatcher has to hold apart, in the current memory context; NULL
 * when there is nothing.
 */
extern struct RetryQuarantine *retry_quarantine_create(void);

/*
 * An attempt has been taken from its lane.  True: it waits here for its turn,
 * and the caller lets go of it; it counts as under way in its lane.
 */
extern bool retry_quarantine_hold(RetryDispatcher *d, struct RetrySending *t);

/* One that waited here and whose turn it is, or NULL; "flying": others are under way. */
extern struct RetrySending *retry_quarantine_next(RetryDispatcher *d, bool flying);

/* True while nothing else may be taken: one is alone, or waits until it can be. */
extern bool retry_quarantine_closed(const RetryDispatcher *d);

/* An attempt is let go of: recorded, or not sent after all. */
extern void retry_quarantine_left(RetryDispatcher *d, struct RetrySending *t);

/*
 * The verdict over a condemned attempt, whose "ended.error" is set; *verdict is
 * untouched and false returned for others.  Notes an event.
 */
extern bool retry_quarantine_condemned(RetryDispatcher *d, struct RetrySending *t,
									   RetrySuspicion as, RetryVerdict *verdict);

/* Visits those that wait here, as retry_send_each does. */
extern void retry_quarantine_each(const RetryDispatcher *d,
								  void (*visit) (int64 lane_hash, const RetryPos *pos, void *arg), void *arg);

/* Milliseconds until one may have its turn though nothing happens; -1 none. */
extern long retry_quarantine_timeout_ms(const RetryDispatcher *d);

/* What is known of this database's suspects. */
typedef struct RetrySuspects
{
	int			suspected;		/* attempts */
	int			condemned;		/* tasks that are to be put aside, or are */
} RetrySuspects;
extern void retry_quarantine_count(RetrySuspects *out);

#endif							/* RETRY_QUARANTINE_H */
