/*
 * scene_rate.c
 *		Keeps the requests of a scene's lanes to the scene's rate.
 *
 * A lane that has to wait gets a turn.  Turns stand in line, and the first of
 * them have a moment that is reserved in the shared bucket: a second's worth
 * for all dispatchers together, and at least one for each.  So dispatchers with
 * many lanes leave moments to those with few, whichever of them looks more
 * often, and what is reserved in vain by one that ends is not worth mention.
 *
 * A lane that comes late still uses its moment, since the next one counts from
 * it and not from when it was used; but not much later, or a thousand lanes that
 * were held up by something else would all go at once.  Then the moment goes
 * back to the bucket, and the lane asks anew.
 *
 * Lanes are known by their number: one that is forgotten meanwhile just does not
 * come.
 */
#include "postgres.h"

#include "storage/ipc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "rate_table.h"
#include "scene_rate.h"

/* Moments that are reserved ahead, by all dispatchers together. */
#define AHEAD_US		USECS_PER_SEC

/* How late a turn may be taken. */
#define LATE_US			INT64CONST(100000)

/* A scene with a rate. */
typedef struct SceneRate
{
	int32		scene_id;		/* hash key */
	RetryRate	rate;
	RetryPace	pace;
	RetrySharedRate *shared;	/* NULL: there was no room, and this
								 * dispatcher keeps to its part of the rate */
	int64		own;			/* then its bucket */
	int			parts;			/* and how many parts there are */
	bool		seen;			/* by the reading that is under way */
	dlist_head	reserved;		/* turns with a moment, the earliest first */
	dlist_head	waiting;		/* turns without, the first first */
	int			nreserved;
	int			nwaiting;
	dlist_node	busy_node;		/* in the list of those with turns */
} SceneRate;

/* A lane that waits. */
typedef struct Turn
{
	int64		lane_hash;		/* hash key */
	SceneRate  *of;
	int64		at_us;			/* 0: none yet */
	dlist_node	node;
} Turn;

struct RetrySceneRates
{
	HTAB	   *rates;
	HTAB	   *turns;
	dlist_head	busy;
	bool		configured;		/* at least once */
	bool		told;			/* that there is no room in shared memory */
};

/* ---------------------------------------------------------------- the bucket */

static bool
take(SceneRate *r, int64 now_us)
{
	if (r->shared == NULL)
		return retry_bucket_take(&r->pace, &r->own, now_us);
	return retry_shared_rate_take(r->shared, r->scene_id, &r->pace, now_us);
}

static int64
reserve(SceneRate *r, int64 now_us)
{
	if (r->shared == NULL)
		return retry_bucket_reserve(&r->pace, &r->own, now_us);
	return retry_shared_rate_reserve(r->shared, r->scene_id, &r->pace, now_us);
}

static void
give_back(SceneRate *r)
{
	if (r->shared == NULL)
		retry_bucket_give_back(&r->pace, &r->own);
	else
		retry_shared_rate_give_back(r->shared, r->scene_id, &r->pace);
}

/* ---------------------------------------------------------------- turns */

/* The turn is over, one way or another; what it reserved is the caller's affair. */
static void
end_turn(RetrySceneRates *rates, Turn *turn)
{
	SceneRate  *r = turn->of;

	dlist_delete(&turn->node);
	if (turn->at_us != 0)
		r->nreserved--;
	else
		r->nwaiting--;
	if (r->nreserved + r->nwaiting == 0)
		dlist_delete(&r->busy_node);
	hash_search(rates->turns, &turn->lane_hash, HASH_REMOVE, NULL);
}

static Turn *
new_turn(RetrySceneRates *rates, SceneRate *r, int64 lane_hash)
{
	Turn	   *turn = hash_search(rates->turns, &lane_hash, HASH_ENTER, NULL);

	turn->of = r;
	turn->at_us = 0;
	dlist_push_tail(&r->waiting, &turn->node);
	if (r->nreserved + r->nwaiting++ == 0)
		dlist_push_tail(&rates->busy, &r->busy_node);
	return turn;
}

/* How many turns of this dispatcher may have a moment. */
static int
most_reserved(const RetryDispatcher *d, const SceneRate *r)
{
	int64		most = AHEAD_US * RETRY_TICKS_PER_US / r->pace.step / Max(d->worker->count, 1);

	return (int) Max(most, 1);
}

/* Those that are next in line get a moment; a lane that is asleep learns it. */
static void
reserve_turns(RetryDispatcher *d, SceneRate *r, int64 now_us)
{
	int			most = most_reserved(d, r);

	while (r->nwaiting > 0 && r->nreserved < most)
	{
		Turn	   *turn = dlist_head_element(Turn, node, &r->waiting);
		RetryLane  *lane = retry_lanes_find(d->lanes, turn->lane_hash);

		if (lane == NULL)
		{
			end_turn(d->rates, turn);
			continue;
		}
		turn->at_us = reserve(r, now_us);
		dlist_delete(&turn->node);
		dlist_push_tail(&r->reserved, &turn->node);
		r->nwaiting--;
		r->nreserved++;
		retry_lane_block_until(d->lanes, lane, RETRY_GATE_SCENE_RATE, turn->at_us);
	}
}

/* About when one that waits without a moment will have its turn. */
static int64
guess_turn(const RetryDispatcher *d, const SceneRate *r, int64 now_us)
{
	double		us = (double) (r->nreserved + r->nwaiting) * r->pace.step / RETRY_TICKS_PER_US * Max(d->worker->count, 1);

	return now_us + Max(USECS_PER_SEC, (int64) Min(us, (double) USECS_PER_DAY));
}

/* ---------------------------------------------------------------- scenes */

/* Nobody waits for this rate any more. */
static void
end_turns(RetryDispatcher *d, SceneRate *r)
{
	while (r->nreserved + r->nwaiting > 0)
	{
		Turn	   *turn = r->nreserved > 0 ? dlist_head_element(Turn, node, &r->reserved) :
		dlist_head_element(Turn, node, &r->waiting);
		RetryLane  *lane = retry_lanes_find(d->lanes, turn->lane_hash);

		if (lane != NULL && lane->blocked && lane->blocked_why == RETRY_GATE_SCENE_RATE)
			retry_lane_unblock(d->lanes, lane);
		end_turn(d->rates, turn);
	}
}

/* The scene's rate as it is now; one that was not known before begins. */
static SceneRate *
join(RetryDispatcher *d, const RetryScene *scene, int64 now_us)
{
	RetrySceneRates *rates = d->rates;
	bool		found;
	SceneRate  *r = hash_search(rates->rates, &scene->id, HASH_ENTER, &found);
	int			parts = 1;

	if (!found)
	{
		memset((char *) r + sizeof(r->scene_id), 0, sizeof(SceneRate) - sizeof(r->scene_id));
		dlist_init(&r->reserved);
		dlist_init(&r->waiting);
	}
	r->shared = retry_rate_table_join(scene->id, &scene->rate, !rates->configured, now_us);
	if (r->shared == NULL)
	{
		parts = Max(d->worker->count, 1);
		if (!rates->told)
			ereport(LOG,
					(errmsg("retry: more than %d scenes of this server have a rate; each dispatcher keeps to its part of the rate of scene \"%s\"",
							RETRY_MAX_RATES, scene->name)));
		rates->told = true;
	}
	if (!retry_rate_same(&r->rate, &scene->rate) || r->parts != parts)
	{
		/*
		 * what was reserved by the old one is not in the bucket of the new
		 * one
		 */
		end_turns(d, r);
		r->rate = scene->rate;
		r->parts = parts;
		retry_rate_pace(&r->rate, &r->pace);
		r->pace.step *= parts;
		r->own = retry_bucket_fresh(&r->pace, now_us);
	}
	return r;
}

static SceneRate *
rate_of(RetryDispatcher *d, const RetryScene *scene, int64 now_us)
{
	SceneRate  *r = hash_search(d->rates->rates, &scene->id, HASH_FIND, NULL);

	return r != NULL ? r : join(d, scene, now_us);
}

void
retry_scene_rates_configured(RetryDispatcher *d, int64 now_us)
{
	RetrySceneRates *rates = d->rates;
	HASH_SEQ_STATUS status;
	RetryScene *scene;
	SceneRate  *r;

	for (int i = 0; (scene = retry_config_nth_scene(d->config, i)) != NULL; i++)
	{
		if (scene->rate.count > 0)
			join(d, scene, now_us)->seen = true;
	}
	hash_seq_init(&status, rates->rates);
	while ((r = hash_seq_search(&status)) != NULL)
	{
		if (!r->seen)
		{
			end_turns(d, r);
			retry_rate_table_leave(r->scene_id);
			hash_search(rates->rates, &r->scene_id, HASH_REMOVE, NULL);
			continue;
		}
		r->seen = false;
	}
	rates->configured = true;
}

/* ---------------------------------------------------------------- requests */

bool
retry_scene_rate_pass(RetryDispatcher *d, const RetryScene *scene, const RetryLane *lane,
					  int64 now_us, int64 *until_us)
{
	Turn	   *turn;
	SceneRate  *r;

	if (scene->rate.count == 0)
		return true;
	r = rate_of(d, scene, now_us);
	turn = hash_search(d->rates->turns, &lane->hash, HASH_FIND, NULL);
	if (turn != NULL && turn->at_us != 0 && (turn->of != r || now_us > turn->at_us + LATE_US))
	{
		/* what it was for is not to be sent now, or it comes too late */
		give_back(turn->of);
		end_turn(d->rates, turn);
		turn = NULL;
	}
	if (turn != NULL && turn->of != r)
	{
		end_turn(d->rates, turn);
		turn = NULL;
	}
	if (turn == NULL)
	{
		if (r->nwaiting == 0 && take(r, now_us))
			return true;
		turn = new_turn(d->rates, r, lane->hash);
		reserve_turns(d, r, now_us);
	}
	if (turn->at_us != 0 && turn->at_us <= now_us)
	{
		end_turn(d->rates, turn);
		reserve_turns(d, r, now_us);
		return true;
	}
	*until_us = turn->at_us != 0 ? turn->at_us : guess_turn(d, r, now_us);
	return false;
}

bool
retry_scene_rate_spare(RetryDispatcher *d, const RetryScene *scene, int64 now_us)
{
	SceneRate  *r;

	if (scene->rate.count == 0)
		return true;
	r = rate_of(d, scene, now_us);
	return r->nwaiting == 0 && take(r, now_us);
}

void
retry_scene_rate_unsent(RetryDispatcher *d, int32 scene_id)
{
	SceneRate  *r = hash_search(d->rates->rates, &scene_id, HASH_FIND, NULL);

	if (r != NULL)
		give_back(r);
}

void
retry_scene_rates_run(RetryDispatcher *d, int64 now_us)
{
	dlist_mutable_iter it;

	dlist_foreach_modify(it, &d->rates->busy)
	{
		SceneRate  *r = dlist_container(SceneRate, busy_node, it.cur);
		bool		ended = false;

		while (r->nreserved > 0)
		{
			Turn	   *turn = dlist_head_element(Turn, node, &r->reserved);

			if (now_us <= turn->at_us + LATE_US)
				break;
			give_back(r);
			end_turn(d->rates, turn);
			ended = true;
		}
		if (ended)
			reserve_turns(d, r, now_us);
	}
}

int64
retry_scene_rates_next(const RetryDispatcher *d)
{
	int64		next = PG_INT64_MAX;
	dlist_iter	it;

	dlist_foreach(it, &d->rates->busy)
	{
		SceneRate  *r = dlist_container(SceneRate, busy_node, it.cur);

		if (r->nreserved > 0)
			next = Min(next, dlist_head_element(Turn, node, &r->reserved)->at_us + LATE_US + 1);
	}
	return next;
}

void
retry_scene_rates_forget(RetryDispatcher *d, uint64 slots)
{
	HASH_SEQ_STATUS status;
	Turn	   *turn;

	hash_seq_init(&status, d->rates->turns);
	while ((turn = hash_seq_search(&status)) != NULL)
	{
		if ((slots & (UINT64CONST(1) << RETRY_SLOT(turn->lane_hash))) == 0)
			continue;
		if (turn->at_us != 0)
			give_back(turn->of);
		end_turn(d->rates, turn);
	}
}

/* At exit: what is reserved by a process that is no more would be waited for in vain. */
static void
give_all_back(int code, Datum arg)
{
	RetryDispatcher *d = (RetryDispatcher *) DatumGetPointer(arg);
	dlist_iter	it;

	dlist_foreach(it, &d->rates->busy)
	{
		SceneRate  *r = dlist_container(SceneRate, busy_node, it.cur);

		for (; r->nreserved > 0; r->nreserved--)
			give_back(r);
	}
}

RetrySceneRates *
retry_scene_rates_create(RetryDispatcher *d)
{
	RetrySceneRates *rates = palloc0(sizeof(RetrySceneRates));
	HASHCTL		control = {.hcxt = CurrentMemoryContext};

	control.keysize = sizeof(int32);
	control.entrysize = sizeof(SceneRate);
	rates->rates = hash_create("retry scene rates", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	control.keysize = sizeof(int64);
	control.entrysize = sizeof(Turn);
	rates->turns = hash_create("retry turns", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	dlist_init(&rates->busy);
	before_shmem_exit(give_all_back, PointerGetDatum(d));
	return rates;
}
