/*
 * quarantine.c
 *		Attempts that may have crashed a dispatcher: sent with few others, then
 *		alone, and at last not at all.
 *
 * Each crash with an attempt under way is worth points against it (crash.h).
 * After one crash the suspects, a few hundred at most, are sent a few at a
 * time, as many as the square root of their number, while others go on; so at
 * the next crash these few have been there twice, and are sent alone from then
 * on: the dispatcher takes nothing else until all that is under way has ended.
 * That costs the others time, so they have as much for themselves after each,
 * and when the rest does not end they go on before.  One that was alone at
 * three crashes is the cause, as far as anybody can tell.
 *
 * An attempt that was alone in an executor needs no company to be ruled out:
 * its crashes count, but hold nobody up.
 *
 * If a dispatcher crashes whatever it sends, innocents would be put aside one
 * by one; so no more than a few are in a day, and the launcher's pauses are
 * what keeps the server usable.
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "crash.h"
#include "quarantine.h"
#include "transfer.h"

#define FEW_POINTS			RETRY_POINTS_FAULT
#define ALONE_POINTS		(2 * RETRY_POINTS_FAULT)

/* Alone. */
#define CONDEMNED_POINTS	RETRY_POINTS_CONDEMNED
#define UNREADABLE_POINTS	(4 * RETRY_POINTS_FAULT)
#define SHUNNED_POINTS		(5 * RETRY_POINTS_FAULT)

/* Nobody waits longer than this for what is under way to end. */
#define DRAIN_US			(30 * USECS_PER_SEC)

/* Of a task's attempt, which is the hash key. */
typedef struct Suspect
{
	pg_uuid_t	id;
	int32		attempt_no;
	int32		points;
	int32		alone;
} Suspect;

typedef struct RetryQuarantine
{
	HTAB	   *suspects;
	MemoryContext context;
	bool		hopeless;		/* too many were put aside already */
	dlist_head	few;			/* those that wait here */
	dlist_head	lone;
	dlist_head	shunned;
	int			few_limit;
	int			few_out;		/* of these, under way */
	struct RetrySending *alone; /* under way, alone */
	int64		drain_us;		/* since when all others are to end; 0: not */
	int64		open_until_us;	/* the others have until then */
} RetryQuarantine;

static RetrySuspicion
suspicion(const RetryQuarantine *q, int32 points, int32 alone)
{
	if (alone >= CONDEMNED_POINTS && !q->hopeless)
		return alone >= SHUNNED_POINTS ? RETRY_SUSPECT_SHUNNED :
			alone >= UNREADABLE_POINTS ? RETRY_SUSPECT_UNREADABLE : RETRY_SUSPECT_CONDEMNED;
	return points >= ALONE_POINTS ? RETRY_SUSPECT_ALONE :
		points >= FEW_POINTS ? RETRY_SUSPECT_FEW : RETRY_SUSPECT_NONE;
}

static void
count_suspect(const RetrySuspect *suspect, void *arg)
{
	RetrySuspects *out = arg;

	out->suspected++;
	out->condemned += suspect->alone >= CONDEMNED_POINTS;
}

void
retry_quarantine_count(RetrySuspects *out)
{
	memset(out, 0, sizeof(*out));
	retry_crash_each_suspect(count_suspect, out);
}

static Suspect *
find(const RetryQuarantine *q, const pg_uuid_t *id, int32 attempt_no, HASHACTION action)
{
	Suspect		key;

	memset(&key, 0, sizeof(key));
	key.id = *id;
	key.attempt_no = attempt_no;
	return hash_search(q->suspects, &key, action, NULL);
}

static void
add_suspect(const RetrySuspect *suspect, void *arg)
{
	RetryQuarantine *q = arg;
	Suspect    *s = find(q, &suspect->id, suspect->attempt_no, HASH_ENTER);

	s->points = suspect->points;
	s->alone = suspect->alone;
}

RetryQuarantine *
retry_quarantine_create(void)
{
	RetrySuspects known;
	RetryQuarantine *q;
	HASHCTL		control = {0};

	retry_quarantine_count(&known);
	if (known.suspected == 0)
		return NULL;
	q = palloc0(sizeof(RetryQuarantine));
	control.keysize = offsetof(Suspect, points);
	control.entrysize = sizeof(Suspect);
	control.hcxt = CurrentMemoryContext;
	q->suspects = hash_create("retry suspects", known.suspected, &control,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	dlist_init(&q->few);
	dlist_init(&q->lone);
	dlist_init(&q->shunned);
	retry_crash_each_suspect(add_suspect, q);
	q->few_limit = Max(1, (int) sqrt(known.suspected));
	q->hopeless = known.condemned > RETRY_CONDEMNED_MAX;
	ereport(LOG,
			(errmsg("retry: %d attempts that were under way at crashes are sent with care", known.suspected)));
	if (q->hopeless)
		ereport(WARNING,
				(errmsg("retry: %d tasks were put aside for crashes in a day, and the server still crashes: no more are",
						known.condemned)));
	return q;
}

bool
retry_quarantine_hold(RetryDispatcher *d, RetrySending *t)
{
	RetryQuarantine *q = d->quarantine;
	Suspect    *s = find(q, &t->ended.entry.pos.id, t->ended.entry.attempts + 1, HASH_FIND);

	t->suspicion = s == NULL ? RETRY_SUSPECT_NONE : suspicion(q, s->points, s->alone);
	switch (t->suspicion)
	{
		case RETRY_SUSPECT_NONE:
			return false;
		case RETRY_SUSPECT_FEW:
			if (q->few_out < q->few_limit)
			{
				q->few_out++;
				return false;
			}
			dlist_push_tail(&q->few, &t->node);
			return true;
		case RETRY_SUSPECT_SHUNNED:
			dlist_push_tail(&q->shunned, &t->node);
			return true;
		default:
			dlist_push_tail(&q->lone, &t->node);
			return true;
	}
}

static RetrySending *
pop(dlist_head *list)
{
	RetrySending *t = dlist_head_element(RetrySending, node, list);

	dlist_delete(&t->node);
	return t;
}

RetrySending *
retry_quarantine_next(RetryDispatcher *d, bool flying)
{
	RetryQuarantine *q = d->quarantine;
	int64		now_us;

	if (q->alone != NULL)
		return NULL;
	if (!dlist_is_empty(&q->lone))
	{
		now_us = retry_monotonic_us();
		if (now_us >= q->open_until_us)
		{
			if (q->drain_us == 0)
				q->drain_us = now_us;
			if (!flying)
				return q->alone = pop(&q->lone);
			if (now_us - q->drain_us < DRAIN_US)
				return NULL;
			q->open_until_us = now_us + DRAIN_US;
			q->drain_us = 0;
		}
	}
	if (!dlist_is_empty(&q->few) && q->few_out < q->few_limit)
	{
		q->few_out++;
		return pop(&q->few);
	}
	return NULL;
}

bool
retry_quarantine_closed(const RetryDispatcher *d)
{
	return d->quarantine->alone != NULL || d->quarantine->drain_us != 0;
}

void
retry_quarantine_left(RetryDispatcher *d, RetrySending *t)
{
	RetryQuarantine *q = d->quarantine;

	if (t->suspicion == RETRY_SUSPECT_NONE)
		return;
	if (t == q->alone)
	{
		int64		now_us = retry_monotonic_us();

		q->alone = NULL;
		q->open_until_us = now_us + (now_us - q->drain_us);
		q->drain_us = 0;
	}
	else if (t->suspicion == RETRY_SUSPECT_FEW)
		q->few_out--;
	t->suspicion = RETRY_SUSPECT_NONE;

	/* it has been done, and nothing has happened */
	if (t->ended.recorded)
		(void) find(q, &t->ended.entry.pos.id, t->ended.entry.attempts + 1, HASH_REMOVE);
}

bool
retry_quarantine_condemned(RetryDispatcher *d, RetrySending *t, RetrySuspicion as,
						   RetryVerdict *verdict)
{
	RetryVerdict dead = {
		.outcome = RETRY_ERROR,.terminal = true,.reason = RETRY_DEAD_QUARANTINED,
		.why = "the server crashed each time that this attempt was made alone"
	};
	RetryEvent	event = {
		.kind = RETRY_EVENT_QUARANTINED,.lane_hash = t->lane->hash,.lane = t->lane->name,
		.scene_id = t->ended.scene_id
	};
	RetryScene *scene;
	char	   *id;

	if (t->suspicion != as)
		return false;
	*verdict = dead;
	t->ended.row_unread = as == RETRY_SUSPECT_UNREADABLE;
	scene = retry_config_scene(d->config, t->ended.scene_id);
	if (scene != NULL)
		event.group_id = scene->group_id;
	id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&t->ended.entry.pos.id)));
	event.detail = psprintf("task %s, attempt %d", id, t->ended.entry.attempts + 1);
	retry_event_add(d, &event);
	ereport(WARNING,
			(errmsg("retry: task %s is put aside, since the server crashes whenever its attempt %d is made",
					id, t->ended.entry.attempts + 1),
			 errhint("It is in retry.dead_letters. retry.replay() tries it again, once the cause is removed.")));
	return true;
}

void
retry_quarantine_each(const RetryDispatcher *d,
					  void (*visit) (int64 lane_hash, const RetryPos *pos, void *arg), void *arg)
{
	const RetryQuarantine *q = d->quarantine;
	const dlist_head *lists[] = {&q->few, &q->lone, &q->shunned};
	dlist_iter	it;

	for (int i = 0; i < lengthof(lists); i++)
	{
		dlist_foreach(it, unconstify(dlist_head *, lists[i]))
		{
			RetrySending *t = dlist_container(RetrySending, node, it.cur);

			visit(t->ended.lane_hash, &t->ended.entry.pos, arg);
		}
	}
}

long
retry_quarantine_timeout_ms(const RetryDispatcher *d)
{
	RetryQuarantine *q = d->quarantine;
	int64		at_us;

	if (q->alone != NULL || dlist_is_empty(&q->lone))
		return -1;
	at_us = q->drain_us != 0 ? q->drain_us + DRAIN_US : q->open_until_us;
	return (long) (Max(at_us - retry_monotonic_us(), 0) / 1000 + 1);
}
