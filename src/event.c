/*
 * event.c
 *		Writes what happened to lanes and targets into retry.event.
 *
 * Events are noted in memory wherever they occur, in a transaction or not, and
 * written at the end of the turn in a transaction of their own.  So a table
 * that cannot be written (no room, a broken index) costs the events and
 * nothing else; it must never keep an attempt from being recorded or a task
 * from being sent.  That transaction does not wait for its WAL: a crash that
 * takes the last events also takes the breakers that they speak of.
 *
 * There is room for so many events, and for so many of a kind in a time: an
 * outage of a hundred thousand lanes, or one that flaps for days, must not fill
 * the table.  What comes beyond is counted, and the count becomes an event, at
 * most once a minute.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "event.h"
#include "turn.h"
#include "worker.h"

#define EVENTS_MAX		1000	/* noted between two writes */
#define KIND_BURST		1000	/* of a kind at once, and then */
#define KIND_EVERY_US	(10 * USECS_PER_SEC)	/* one in this time */
#define DROPPED_EVERY_US	USECS_PER_MINUTE	/* how many were dropped is
												 * said */
#define TEXT_BYTES		1000	/* longest text that is kept */
#define LOG_INTERVAL_MS	(60 * 1000)

/* Columns of retry.event. */
enum
{
	Event_at, Event_lane_hash, Event_group_id, Event_scene_id,
	Event_dispatcher, Event_kind, Event_lane, Event_target, Event_detail,
	Event_natts
};

struct RetryEvents
{
	MemoryContext context;		/* of the texts; reset when they are written */
	int			n;
	int64		dropped;
	int64		dropped_said_us;	/* when that was said; retry_monotonic_us */
	int64		spent_us[RETRY_EVENT_KINDS];	/* by then the events of the
												 * kind have earned their
												 * place */
	RetryEvent	list[EVENTS_MAX];
};

static const char *const words[RETRY_EVENT_KINDS] = {
	[RETRY_EVENT_BREAKER_OPENED] = "breaker opened",
	[RETRY_EVENT_BREAKER_CLOSED] = "breaker closed",
	[RETRY_EVENT_THROTTLED] = "throttled",
	[RETRY_EVENT_BLOCKED] = "blocked",
	[RETRY_EVENT_TARGET_OUT] = "target out",
	[RETRY_EVENT_TARGET_BACK] = "target back",
	[RETRY_EVENT_URL_DISABLED] = "url disabled",
	[RETRY_EVENT_URL_ENABLED] = "url enabled",
	[RETRY_EVENT_QUARANTINED] = "task quarantined",
	[RETRY_EVENT_STARTED] = "dispatcher started",
	[RETRY_EVENT_STOPPED] = "dispatcher stopped",
	[RETRY_EVENT_CRASHED] = "worker crashed",
	[RETRY_EVENT_CONFIGURED] = "configuration changed",
	[RETRY_EVENT_COPY] = "copy found",
	[RETRY_EVENT_MOVED] = "server changed",
	[RETRY_EVENT_UPKEEP_FAILED] = "upkeep failed",
	[RETRY_EVENT_SCHEDULE_FAILED] = "schedule failed",
	[RETRY_EVENT_ALARM_UNTOLD] = "alarm not told",
	[RETRY_EVENT_NOT_NOTIFIED] = "not notified",
	[RETRY_EVENT_DECIDED] = "decided at the limit",
	[RETRY_EVENT_GIVEN_UP] = "operation given up",
	[RETRY_EVENT_DROPPED] = "events dropped"
};

const char *
retry_event_word(RetryEventKind kind)
{
	return words[kind];
}

RetryEvents *
retry_events_create(void)
{
	RetryEvents *events = palloc0(sizeof(RetryEvents));

	events->context = AllocSetContextCreate(CurrentMemoryContext, "retry events",
											ALLOCSET_SMALL_SIZES);
	events->dropped_said_us = PG_INT64_MIN / 2;
	for (int i = 0; i < RETRY_EVENT_KINDS; i++)
		events->spent_us[i] = PG_INT64_MIN / 2;
	return events;
}

/* A copy, or NULL; sets *failed when there is no memory for it. */
static const char *
keep(RetryEvents *events, const char *text, bool *failed)
{
	Size		len;
	char	   *copy;

	if (text == NULL)
		return NULL;
	len = strnlen(text, TEXT_BYTES);
	copy = MemoryContextAllocExtended(events->context, len + 1, MCXT_ALLOC_NO_OOM);
	if (copy == NULL)
	{
		*failed = true;
		return NULL;
	}
	memcpy(copy, text, len);
	copy[len] = '\0';
	return copy;
}

/* Is there room for one more of a kind? */
static bool
admit(RetryEvents *events, RetryEventKind kind)
{
	int64		now = retry_monotonic_us();
	int64		spent = Max(events->spent_us[kind], now - KIND_BURST * KIND_EVERY_US);

	if (spent + KIND_EVERY_US > now)
		return false;
	events->spent_us[kind] = spent + KIND_EVERY_US;
	return true;
}

void
retry_event_add(RetryDispatcher *d, const RetryEvent *event)
{
	RetryEvents *events = d->events;
	RetryEvent *kept = &events->list[events->n];
	bool		failed = events->n == EVENTS_MAX || !admit(events, event->kind);

	if (!failed)
	{
		*kept = *event;
		kept->lane = keep(events, event->lane, &failed);
		kept->target = keep(events, event->target, &failed);
		kept->detail = keep(events, event->detail, &failed);
		if (kept->at == 0)
			kept->at = GetCurrentTimestamp();
	}
	if (failed)
		events->dropped++;
	else
		events->n++;
}

static void
set_text(Datum *values, bool *isnull, int column, const char *text)
{
	isnull[column] = text == NULL;
	if (text != NULL)
		values[column] = retry_error_datum(text);
}

/* dispatcher: -1 for none. */
static void
append_event(RetryAppender *appender, int dispatcher, const RetryEvent *event)
{
	Datum		values[Event_natts];
	bool		isnull[Event_natts] = {0};

	values[Event_at] = TimestampTzGetDatum(event->at);
	values[Event_lane_hash] = Int64GetDatum(event->lane_hash);
	isnull[Event_lane_hash] = event->lane_hash == 0;
	values[Event_group_id] = Int32GetDatum(event->group_id);
	isnull[Event_group_id] = event->group_id == 0;
	values[Event_scene_id] = Int32GetDatum(event->scene_id);
	isnull[Event_scene_id] = event->scene_id == 0;
	values[Event_dispatcher] = Int32GetDatum(dispatcher);
	isnull[Event_dispatcher] = dispatcher < 0;
	values[Event_kind] = CStringGetTextDatum(words[event->kind]);
	set_text(values, isnull, Event_lane, event->lane);
	set_text(values, isnull, Event_target, event->target);
	set_text(values, isnull, Event_detail, event->detail);
	retry_append_row(appender, values, isnull);
}

bool
retry_event_store(const RetryEvent *event, bool wait)
{
	RetryAppender *appender = retry_append_begin(retry_relation_oid("event"), Event_natts, !wait);
	RetryEvent	now = *event;

	if (appender == NULL)
		return false;
	if (now.at == 0)
		now.at = GetCurrentTimestamp();
	append_event(appender, -1, &now);
	retry_append_end(appender);
	return true;
}

/* What is to be written. */
typedef struct Writing
{
	RetryDispatcher *d;
	bool		dropped;		/* also how many were dropped */
} Writing;

/* False: the table is locked. */
static bool
store(void *arg)
{
	const Writing *writing = arg;
	RetryDispatcher *d = writing->d;
	RetryEvents *events = d->events;
	RetryAppender *appender = retry_append_begin(retry_relation_oid("event"), Event_natts, true);

	if (appender == NULL)
		return false;
	for (int i = 0; i < events->n; i++)
		append_event(appender, d->worker->number, &events->list[i]);
	if (writing->dropped)
	{
		RetryEvent	lost = {.kind = RETRY_EVENT_DROPPED,.at = GetCurrentTimestamp()};

		lost.detail = psprintf(INT64_FORMAT " events were too many to be kept", events->dropped);
		append_event(appender, d->worker->number, &lost);
	}
	retry_append_end(appender);
	return true;
}

static void
log_failure(const ErrorData *error, int n)
{
	static TimestampTz last = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(last, now, LOG_INTERVAL_MS))
		return;
	last = now;
	ereport(LOG,
			(errmsg("retry: %d events cannot be stored and are dropped: %s", n, error->message)));
}

bool
retry_events_write(RetryDispatcher *d, bool last)
{
	RetryEvents *events = d->events;
	Writing		writing = {.d = d};
	MemoryContext caller;
	ErrorData  *error;
	bool		written;

	writing.dropped = events->dropped > 0 &&
		(last || retry_monotonic_us() >= events->dropped_said_us + DROPPED_EVERY_US);
	if (events->n == 0 && !writing.dropped)
		return true;
	caller = MemoryContextSwitchTo(d->turn_context);
	error = retry_worker_store(store, &writing, &written);
	if (error != NULL)
	{
		log_failure(error, events->n);
		written = true;
	}
	MemoryContextSwitchTo(caller);
	if (written)
	{
		events->n = 0;
		if (writing.dropped)
		{
			events->dropped = 0;
			events->dropped_said_us = retry_monotonic_us();
		}
		MemoryContextReset(events->context);
	}
	return written;
}
