/*
 * held.c
 *		What was passed over because its scene is paused, or being resumed.
 *
 * A lane may carry tasks of several scenes, so a paused one's entries cannot
 * be left in the queue: they are passed over, and it is noted here from when
 * on to read again, and in which lanes, once the scene goes on.
 *
 * A scene that is resumed little by little has signals instead, due one after
 * the other (see resume.c).  What was due before it was resumed is passed over
 * as long as these last; then it is read again for those that have none.
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
	TimestampTz resumed_at;		/* it is being resumed since; DT_NOBEGIN: it
								 * is paused, or it is not known why */
	int64		lane[HELD_LANES];
} HeldScene;

struct RetryHeld
{
	HTAB	   *scenes;
	TimestampTz look_at;		/* something is to be read again from then on */
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
	held->look_at = DT_NOEND;
	return held;
}

TimestampTz
retry_held_next(const RetryHeld *held)
{
	return held->look_at;
}

/* Until when its backlog is being spread. */
static TimestampTz
spread_end(const RetryScene *scene)
{
	return scene->resume_over_us > 0 ? scene->resumed_at + scene->resume_over_us : DT_NOBEGIN;
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
		scene->resumed_at = DT_NOBEGIN;
	}
	scene->due = Min(scene->due, due);
	return scene;
}

static void
note_lane(HeldScene *scene, int64 lane_hash)
{
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

bool
retry_held_back(RetryTurn *turn, const RetryScene *scene, int64 lane_hash, TimestampTz due)
{
	RetryHeld  *held = turn->d->held;
	HeldScene  *noted;

	if (!scene->paused && (due >= scene->resumed_at || turn->now >= spread_end(scene)))
		return false;
	noted = note(held, scene->id, due);
	if (noted->nlanes == 0 && !scene->paused)
		noted->resumed_at = scene->resumed_at;
	if (!scene->paused)
		held->look_at = Min(held->look_at, spread_end(scene));
	note_lane(noted, lane_hash);
	return true;
}

TimestampTz
retry_held_due(const RetryHeld *held, int32 scene_id)
{
	const HeldScene *scene = hash_search(held->scenes, &scene_id, HASH_FIND, NULL);

	return scene != NULL ? scene->due : DT_NOEND;
}

void
retry_held_note_all(RetryHeld *held, int32 scene_id, TimestampTz due)
{
	HeldScene  *scene = note(held, scene_id, due);

	scene->nlanes = HELD_LANES + 1;
	scene->resumed_at = DT_NOBEGIN;
	held->look_at = DT_NOBEGIN;
}

/* Makes the lanes read again what the scene had due, as far as it was noted. */
static void
read_again(RetryTurn *turn, const HeldScene *held)
{
	RetryDispatcher *d = turn->d;

	if (held->nlanes > HELD_LANES)
	{
		retry_lanes_note_all(d->lanes, held->due);
		retry_lanes_lower_horizon(d->lanes, held->due);
		retry_sweep_reset(d->sweep);
		return;
	}
	for (int i = 0; i < held->nlanes; i++)
	{
		RetryLane  *lane;

		/* another dispatcher's by now, which has it from the checkpoint */
		if ((d->owned & (UINT64CONST(1) << RETRY_SLOT(held->lane[i]))) == 0)
			continue;
		lane = retry_lanes_get(turn->d->lanes, held->lane[i], held->due, turn->now);
		if (lane != NULL)
			retry_lane_note_both(d->lanes, lane, held->due);
	}
}

/*
 * What is no longer held back is read again, and so is, once, what a scene has
 * due that is resumed little by little: some of it may have become due after
 * that, while the scene was not yet known to be resumed.
 */
void
retry_held_resume(RetryTurn *turn)
{
	RetryDispatcher *d = turn->d;
	HASH_SEQ_STATUS seq;
	HeldScene  *held;

	d->held->look_at = DT_NOEND;
	if (hash_get_num_entries(d->held->scenes) == 0)
		return;
	hash_seq_init(&seq, d->held->scenes);
	while ((held = hash_seq_search(&seq)) != NULL)
	{
		const RetryScene *scene = retry_config_scene(d->config, held->scene_id);

		if (scene != NULL && scene->paused)
			continue;
		if (scene != NULL && turn->now < spread_end(scene) && held->resumed_at == scene->resumed_at)
		{
			d->held->look_at = Min(d->held->look_at, spread_end(scene));
			continue;
		}
		read_again(turn, held);
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
