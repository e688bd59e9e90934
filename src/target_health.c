/*
 * target_health.c
 *		What a dispatcher knows of the targets of its scenes.
 *
 * The configuration is read whole at each change, so what has been learnt of a
 * target cannot lie in it: it is kept here by scene and URL, and a scene that
 * was just read is joined with it when its first task comes.  The same URL in
 * two scenes is two targets, since one scene's timeouts and rules say little
 * about another's.  Each dispatcher finds out for itself; a target that is out
 * costs each of them one failed attempt at most for each time it is probed.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "store.h"
#include "target_health.h"

/* What nothing has used for so long may be forgotten. */
#define FORGET_AFTER_US		(10 * USECS_PER_MINUTE)

/* Two hashes and a length stand for a URL of up to 8192 bytes. */
typedef struct KnownKey
{
	uint64		hash;
	uint64		second_hash;
	int32		scene_id;
	int32		url_len;
} KnownKey;

struct RetryKnownTarget
{
	KnownKey	key;			/* hash key; no padding */
	RetryTargetHealth *health;	/* that it belongs to */
	RetryRouteState state;
	RetryBreaker breaker;
	bool		told_out;		/* that it is out was news */
	int64		rest_until;		/* as it asked for itself */
	bool		disabled;		/* its URL is … */
	uint64		checked;		/* … as of this version of the disabled URLs */
	char	   *url;
	int32		users;			/* requests that may still ask for url */
	int64		used_at;
	int32		group_id;
	bool		changed;		/* since it was shown */
	RetryTargetShown *entry;	/* NULL: it is not shown */
};

struct RetryTargetHealth
{
	MemoryContext context;
	const RetryDisabled *disabled;
	HTAB	   *known;
	uint64		uses;			/* numbers them, for lru */
	RetryShown *shown;			/* NULL: nothing is shown */
	bool		changed;		/* any of them, since they were shown */
	int64		show_at_us;		/* not before */
};

RetryTargetHealth *
retry_target_health_create(const RetryDisabled *disabled)
{
	RetryTargetHealth *health = palloc0(sizeof(RetryTargetHealth));
	HASHCTL		ctl = {0};

	health->context = CurrentMemoryContext;
	health->disabled = disabled;
	ctl.keysize = sizeof(KnownKey);
	ctl.entrysize = sizeof(RetryKnownTarget);
	ctl.hcxt = health->context;
	health->known = hash_create("retry targets", 32, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return health;
}

static void
note_change(RetryKnownTarget *known)
{
	known->changed = known->health->changed = true;
}

static RetryRouteState *
find_state(RetryTargetHealth *health, const RetryScene *scene, const RetryRouteTarget *target,
		   int64 now)
{
	int			len = strlen(target->url);
	KnownKey	key = {.hash = target->hash,.scene_id = scene->id,.url_len = len};
	RetryKnownTarget *known;
	bool		found;

	key.second_hash = hash_bytes_extended((const unsigned char *) target->url, len, 1);
	known = hash_search(health->known, &key, HASH_FIND, NULL);
	if (known == NULL)
	{
		/* first what may fail, so that there is no half of an entry */
		char	   *url = MemoryContextStrdup(health->context, target->url);

		known = hash_search(health->known, &key, HASH_ENTER, &found);
		memset(&known->state, 0, sizeof(known->state));
		memset(&known->breaker, 0, sizeof(known->breaker));
		known->told_out = false;
		known->rest_until = 0;
		known->disabled = false;
		known->checked = 0;
		known->url = url;
		known->health = health;
		known->users = 0;
		known->used_at = now;
		known->entry = NULL;
	}
	known->group_id = scene->group_id;
	note_change(known);
	return &known->state;
}

/* By which the hash route chooses: the key, else the reference, else the task. */
static uint64
route_key(TupleTableSlot *slot)
{
	static const int columns[] = {Task_key, Task_reference};

	for (int i = 0; i < lengthof(columns); i++)
	{
		text	   *value;

		if (slot->tts_isnull[columns[i]])
			continue;
		value = DatumGetTextPP(slot->tts_values[columns[i]]);
		return retry_route_hash(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	}
	return retry_route_hash(DatumGetUUIDP(slot->tts_values[Task_id])->data, UUID_LEN);
}

static inline RetryKnownTarget *
known_of(RetryRouteState *state)
{
	return (RetryKnownTarget *) ((char *) state - offsetof(RetryKnownTarget, state));
}

/* A scene that was just read is joined with what is known of its targets. */
static void
join_states(RetryTargetHealth *health, RetryScene *scene, int64 now)
{
	for (int i = 0; i < scene->ntargets && scene->targets[i].state == NULL; i++)
		scene->targets[i].state = find_state(health, scene, &scene->targets[i], now);
}

/* Is it disabled?  Asked again when the state of any URL has changed. */
static bool
is_disabled(const RetryTargetHealth *health, RetryKnownTarget *known)
{
	uint64		version;
	RetryUrlKey key;

	if (health->disabled == NULL)
		return false;
	version = retry_disabled_version(health->disabled);
	if (known->checked != version)
	{
		known->checked = version;
		known->disabled = retry_disabled_has(health->disabled, known->key.scene_id, known->url, &key);
		note_change(known);
	}
	return known->disabled;
}

/* Leaves out the targets whose breaker is open, and those that said so themselves. */
static void
bar_targets(const RetryTargetHealth *health, RetryScene *scene, int64 now)
{
	const RetryBreakerRules *rules = &scene->flow.breaker;

	for (int i = 0; i < scene->ntargets; i++)
	{
		RetryRouteState *state = scene->targets[i].state;
		RetryKnownTarget *known = known_of(state);

		state->barred_until = 0;
		if (rules->ratio > 0)
			(void) retry_breaker_gate(&known->breaker, rules, now, &state->barred_until);
		if (known->rest_until > now)
			state->barred_until = Max(state->barred_until, known->rest_until);
		if (is_disabled(health, known))
			state->barred_until = PG_INT64_MAX;
	}
}

static bool
all_disabled(const RetryScene *scene)
{
	for (int i = 0; i < scene->ntargets; i++)
	{
		if (!known_of(scene->targets[i].state)->disabled)
			return false;
	}
	return true;
}

static void
take_target(RetryTargetHealth *health, RetryRouteState *state, int64 now, RetryTargetUse *use)
{
	RetryKnownTarget *known = known_of(state);

	known->users++;
	known->used_at = now;
	use->target = known;
	use->in_flight = true;
	use->probe = retry_route_started(&known->state, ++health->uses);
	use->trial = known->breaker.state == RETRY_BREAKER_HALF_OPEN;
	use->started_us = now;
	retry_breaker_started(&known->breaker, now);
	note_change(known);
}

bool
retry_target_use_take(RetryTargetHealth *health, RetryScene *scene, TupleTableSlot *slot,
					  int64 now, RetryTargetUse *use, int64 *retry_at)
{
	int			chosen;

	join_states(health, scene, now);
	bar_targets(health, scene, now);
	if (scene->route == RETRY_ROUTE_HASH || scene->route == RETRY_ROUTE_ALL)
		use->key_hash = route_key(slot);
	chosen = retry_route_choose(scene->route, scene->targets, scene->ntargets, use->key_hash,
								pg_prng_uint64(&pg_global_prng_state), now, retry_at);
	if (chosen < 0)
	{
		use->all_disabled = all_disabled(scene);
		return false;
	}
	take_target(health, scene->targets[chosen].state, now, use);
	return true;
}

bool
retry_target_use_other(RetryTargetHealth *health, RetryScene *scene,
					   const RetryTargetUse *first, int64 now, RetryTargetUse *use)
{
	RetryRouteTarget others[RETRY_ROUTE_TARGETS_MAX];
	int			count = 0;
	int			chosen;
	int64		retry_at;

	/* none that is out, or whose breaker tries it, is to be tried with this */
	join_states(health, scene, now);
	bar_targets(health, scene, now);
	for (int i = 0; i < scene->ntargets; i++)
	{
		RetryKnownTarget *known = known_of(scene->targets[i].state);

		if (known != first->target && !known->state.out &&
			known->breaker.state == RETRY_BREAKER_CLOSED)
			others[count++] = scene->targets[i];
	}
	chosen = retry_route_choose(scene->route, others, count, first->key_hash,
								pg_prng_uint64(&pg_global_prng_state), now, &retry_at);
	if (chosen < 0)
		return false;
	use->key_hash = first->key_hash;
	take_target(health, others[chosen].state, now, use);
	return true;
}

void
retry_target_use_here(RetryTargetHealth *health, RetryScene *scene, TupleTableSlot *slot,
					  int64 now, RetryTargetUse *use)
{
	int64		retry_at;

	if (scene->route == RETRY_ROUTE_ROUND_ROBIN || scene->route == RETRY_ROUTE_LRU)
		scene->route = RETRY_ROUTE_RANDOM;
	if (retry_target_use_take(health, scene, slot, now, use, &retry_at))
		return;
	for (int i = 0; i < scene->ntargets; i++)
	{
		memset(&known_of(scene->targets[i].state)->breaker, 0, sizeof(RetryBreaker));
		memset(scene->targets[i].state, 0, sizeof(RetryRouteState));
	}
	(void) retry_target_use_take(health, scene, slot, now, use, &retry_at);
}

const char *
retry_target_use_url(const RetryTargetUse *use)
{
	return use->target != NULL ? use->target->url : NULL;
}

void
retry_target_use_counts(const RetryTargetUse *use, uint32 *calls, uint32 *failed)
{
	*calls = use->target->breaker.calls;
	*failed = use->target->breaker.failed;
}

/* Tells the breaker how a request ended that began at started_us. */
static int
tell_breaker(RetryKnownTarget *known, const RetryBreakerRules *rules, RetryFlowKind kind,
			 int64 started_us, int64 now)
{
	RetryBreakerEnd end = RETRY_BREAKER_UNKNOWN;

	if (kind == RETRY_FLOW_WELL)
		end = RETRY_BREAKER_WELL;
	else if (kind == RETRY_FLOW_FAILED)
		end = RETRY_BREAKER_FAILED;
	switch (retry_breaker_ended(&known->breaker, rules, end, started_us, now))
	{
		case RETRY_BREAKER_HAS_OPENED:
			return RETRY_TARGET_OPENED;
		case RETRY_BREAKER_HAS_CLOSED:
			return RETRY_TARGET_CLOSED;
		default:
			return 0;
	}
}

int
retry_target_use_done(RetryTargetUse *use, const RetryAnswer *answer, RetryOutcome outcome,
					  const RetryBreakerRules *rules, int64 now)
{
	RetryRouteEnd end = RETRY_ROUTE_END_FAILED;
	RetryKnownTarget *known = use->target;
	static const RetryBreakerRules none;
	int			news;

	if (!use->in_flight)
		return 0;
	if (outcome == RETRY_SUCCEEDED || outcome == RETRY_PROCESSING)
		end = RETRY_ROUTE_END_WELL; /* whatever its scene takes for that */
	else if (answer->exchange == RETRY_EXCHANGE_ANSWERED)
		end = retry_route_judge(answer->http_status, answer->body_cut);
	else if (answer->exchange == RETRY_EXCHANGE_REFUSED || answer->exchange == RETRY_EXCHANGE_INTERNAL)
		end = RETRY_ROUTE_END_UNKNOWN;
	use->in_flight = false;
	note_change(known);
	retry_route_ended(&known->state, use->probe, end, now);
	news = tell_breaker(known, rules != NULL ? rules : &none, retry_judge_endpoint(answer, outcome), use->started_us, now);

	/* a single failure that the first probe makes good is not worth a word */
	if (known->state.out && known->state.times_out >= 2 && !known->told_out)
	{
		known->told_out = true;
		news |= RETRY_TARGET_OUT;
	}
	else if (!known->state.out && known->told_out)
	{
		known->told_out = false;
		news |= RETRY_TARGET_BACK;
	}
	return news;
}

void
retry_target_use_rest(RetryTargetUse *use, int64 until)
{
	if (use->target == NULL)
		return;
	use->target->rest_until = Max(use->target->rest_until, until);
	note_change(use->target);
}

void
retry_target_use_release(RetryTargetUse *use)
{
	static const RetryBreakerRules none;

	if (use->target == NULL)
		return;
	if (use->in_flight)
	{
		retry_route_ended(&use->target->state, use->probe, RETRY_ROUTE_END_UNKNOWN, 0);
		(void) tell_breaker(use->target, &none, RETRY_FLOW_NEUTRAL, use->started_us, 0);
		note_change(use->target);
	}
	use->target->users--;
	memset(use, 0, sizeof(*use));
}

void
retry_target_health_follow(RetryTargetHealth *health, RetryConfig *config, int64 now,
						   void (*closed) (const RetryScene *scene, const char *url, void *arg),
						   void *arg)
{
	HASH_SEQ_STATUS seq;
	RetryKnownTarget *known;

	hash_seq_init(&seq, health->known);
	while ((known = hash_seq_search(&seq)) != NULL)
	{
		const RetryScene *scene = retry_config_scene(config, known->key.scene_id);

		if (scene != NULL && retry_breaker_follow(&known->breaker, &scene->flow.breaker, now) == RETRY_BREAKER_HAS_CLOSED)
		{
			note_change(known);
			closed(scene, known->url, arg);
		}
	}
}

void
retry_target_health_show(RetryTargetHealth *health, RetryShownPlace *place)
{
	health->shown = retry_shown_create(place, sizeof(RetryTargetShown));
}

static void
show_target(RetryKnownTarget *known, const RetryBreakerRules *rules, int64 now_us)
{
	const RetryBreaker *breaker = &known->breaker;
	RetryTargetShown *entry = known->entry;

	retry_shown_begin(entry);
	entry->group_id = known->group_id;
	entry->scene_id = known->key.scene_id;
	entry->disabled = known->disabled;
	entry->out = known->state.out;
	entry->in_flight = known->state.in_flight;
	entry->failures = known->state.times_out;
	entry->out_since_us = known->state.out_since;
	entry->out_until_us = known->state.out_until;
	entry->rest_until_us = known->rest_until;
	entry->breaker = retry_breaker_state(breaker, rules, now_us);
	entry->calls = breaker->calls;
	entry->failed = breaker->failed;
	entry->breaker_since_us = breaker->opened_us;
	entry->breaker_until_us = entry->breaker == RETRY_BREAKER_CLOSED ? 0 :
		retry_breaker_until(breaker, rules);
	retry_shown_copy_text(entry->url, known->url, RETRY_TARGET_SHOWN_URL);
	retry_shown_end(entry);
}

void
retry_target_health_publish(RetryTargetHealth *health, RetryConfig *config, int64 now_us)
{
	HASH_SEQ_STATUS seq;
	RetryKnownTarget *known;

	if (!health->changed || now_us < health->show_at_us)
		return;
	health->show_at_us = now_us + RETRY_SHOW_EVERY_MS * 1000;
	health->changed = false;
	hash_seq_init(&seq, health->known);
	while ((known = hash_seq_search(&seq)) != NULL)
	{
		const RetryScene *scene = retry_config_scene(config, known->key.scene_id);

		if (!known->changed || scene == NULL)
			continue;
		if (known->entry == NULL && retry_shown_grow(health->shown, now_us))
			known->entry = retry_shown_get(health->shown);
		if (known->entry == NULL)
			continue;
		show_target(known, &scene->flow.breaker, now_us);
		known->changed = false;
	}
}

void
retry_target_health_forget(RetryTargetHealth *health, int64 now)
{
	HASH_SEQ_STATUS seq;
	RetryKnownTarget *known;

	if (hash_get_num_entries(health->known) == 0)
		return;
	hash_seq_init(&seq, health->known);
	while ((known = hash_seq_search(&seq)) != NULL)
	{
		if (known->users > 0 || now < known->used_at + FORGET_AFTER_US || now < known->rest_until)
			continue;
		if (known->entry != NULL)
			retry_shown_free(health->shown, known->entry);
		pfree(known->url);
		hash_search(health->known, &known->key, HASH_REMOVE, NULL);
	}
}
