/*
 * held.c
 *		What was passed over because its scene is paused.
 *
 * A lane may carry tasks of several scenes, so a paused one's entries cannot
 * be left in the queue: they are passed over, and it is noted here from when
 * on to read again, and in which lanes, once the scene goes on.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "turn.h"

#define HELD_LANES	16			/* noted one by one; more means all */

typedef struct HeldScene
{
	int32		scene_id;		/* hash key */
	int32		nlanes;			/* HELD_LANES + 1: all of them */
	TimestampTz due;
	int64		lane[HELD_LANES];
} HeldScene;

struct RetryHeld
{
	HTAB	   *scenes;
};

RetryHeld *
retry_held_create(void)
{
	RetryHeld  *held = palloc0(sizeof(RetryHeld));
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(HeldScene);
	ctl.hcxt = CurrentMemoryContext;
	held->scenes = hash_create("retry held scenes", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return held;
}

static HeldScene *
note(RetryHeld *held, int32 scene_id, TimestampTz due)
{
	bool		found;
	HeldScene  *scene = hash_search(held->scenes, &scene_id, HASH_ENTER, &found);

	if (!found)
	{
		scene->nlanes = 0;
		scene->due = due;
	}
	scene->due = Min(scene->due, due);
	return scene;
}

void
retry_held_note(RetryHeld *held, int32 scene_id, int64 lane_hash, TimestampTz due)
{
	HeldScene  *scene = note(held, scene_id, due);

	if (scene->nlanes > HELD_LANES)
		return;
	for (int i = 0; i < scene->nlanes; i++)
	{
		if (scene->lane[i] == lane_hash)
			return;
	}
	if (scene->nlanes < HELD_LANES)
		scene->lane[scene->nlanes] = lane_hash;
	scene->nlanes++;
}

void
retry_held_note_all(RetryHeld *held, int32 scene_id, TimestampTz due)
{
	note(held, scene_id, due)->nlanes = HELD_LANES + 1;
}

typedef struct Reread
{
	RetryLanes *lanes;
	RetryPos	pos;
} Reread;

static void
reread_lane(RetryLane *lane, void *arg)
{
	Reread	   *reread = arg;

	retry_lane_note(reread->lanes, lane, &reread->pos);
}

/* Makes the lanes read again what a scene that is no longer paused had due. */
void
retry_held_resume(RetryTurn *turn)
{
	RetryDispatcher *d = turn->d;
	HASH_SEQ_STATUS seq;
	HeldScene  *held;

	if (hash_get_num_entries(d->held->scenes) == 0)
		return;
	hash_seq_init(&seq, d->held->scenes);
	while ((held = hash_seq_search(&seq)) != NULL)
	{
		RetryScene *scene = retry_config_scene(d->config, held->scene_id);
		Reread		reread = {.lanes = d->lanes,.pos = {.due = held->due}};

		if (scene != NULL && scene->paused)
			continue;
		if (held->nlanes > HELD_LANES)
		{
			retry_lanes_each(d->lanes, reread_lane, &reread);
			retry_lanes_lower_horizon(d->lanes, held->due);
			retry_sweep_reset(d->sweep);
		}
		else
		{
			for (int i = 0; i < held->nlanes; i++)
			{
				RetryLane  *lane;

				/*
				 * another dispatcher's by now, which has it from the
				 * checkpoint
				 */
				if ((d->owned & (UINT64CONST(1) << RETRY_SLOT(held->lane[i]))) == 0)
					continue;
				lane = retry_turn_lane(turn, held->lane[i], held->due);
				if (lane != NULL)
					retry_lane_note(d->lanes, lane, &reread.pos);
			}
		}
		hash_search(d->held->scenes, &held->scene_id, HASH_REMOVE, NULL);
	}
}

int
retry_held_list(const RetryHeld *held, Datum **scenes, Datum **dues)
{
	long		n = hash_get_num_entries(held->scenes);
	HASH_SEQ_STATUS seq;
	HeldScene  *scene;
	int			i = 0;

	*scenes = palloc(Max(n, 1) * sizeof(Datum));
	*dues = palloc(Max(n, 1) * sizeof(Datum));
	hash_seq_init(&seq, held->scenes);
	while ((scene = hash_seq_search(&seq)) != NULL)
	{
		(*scenes)[i] = Int32GetDatum(scene->scene_id);
		(*dues)[i++] = TimestampTzGetDatum(scene->due);
	}
	return i;
}
