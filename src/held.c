/*
 * held.c
 *		What was passed over: its scene is paused, or being resumed, the URL that
 *		it would call is disabled, or it came from elsewhere.
 *
 * A lane may carry tasks of several scenes and for several URLs, so entries
 * that are held back cannot be left in the queue: they are passed over, and it
 * is noted here from when on to read again, and in which lanes, once whatever
 * holds them no longer does.
 *
 * A scene that is resumed little by little has signals instead, due one after
 * the other (see resume.c).  What was due before it was resumed is passed over
 * as long as these last; then it is read again for those that have none.
 *
 * For disabled URLs there is a note for each, up to a bound; what lies beyond,
 * or was written down by another dispatcher or before a restart, is one note
 * for all URLs of its scene, which is read again when any of them is enabled.
 * Tasks that are held so may expire meanwhile, and are to die when they do.  So
 * their lanes are read again then, too, if seldom: each time costs as much as
 * has become due in the lane since, and so no more than a share of that time.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "disabled.h"
#include "held_count.h"
#include "turn.h"

#define HELD_LANES	16			/* noted one by one; more means all */
#define HELD_URLS	10000		/* notes; beyond, one for the scene */

/* To expired tasks: after this, or a share of how far back is to be read. */
#define LOOK_LEAST_US	USECS_PER_SEC
#define LOOK_SHARE		16

/* In place of a scene's number: rows that came from elsewhere, of any scene. */
#define FOREIGN		0

/* What holds them: all of a scene, one URL in it, or some of its URLs. */
typedef enum HeldKind
{
	HELD_PAUSED,
	HELD_URL,
	HELD_URLS_OF_SCENE
} HeldKind;

/* No padding; hash, second_hash are 0 but for HELD_URL. */
typedef struct HeldKey
{
	uint64		hash;
	uint64		second_hash;
	int32		scene_id;
	int32		kind;
} HeldKey;

typedef struct HeldNote
{
	HeldKey		key;			/* hash key */
	int32		nlanes;			/* HELD_LANES + 1: all of them */
	TimestampTz due;
	TimestampTz resumed_at;		/* it is being resumed since; DT_NOBEGIN: it
								 * is paused, or it is not known why */

	/* with disabled URLs */
	int64		where;			/* the scene's tasks went, see where_to() */
	bool		restored;		/* from a checkpoint: the digest is to be
								 * compared, which "where" is in, or whether
								 * it was adopted is to be found out */
	int64		digest;
	uint64		version;		/* of the set, when it was noted first */
	TimestampTz noted_at;		/* likewise */
	TimestampTz expires_at;		/* of the first that does; DT_NOEND: none */
	int64		count;
	int64		lane[HELD_LANES];
} HeldNote;

struct RetryHeld
{
	HTAB	   *notes;
	TimestampTz look_at;		/* something is to be read again from then on */
};

RetryHeld *
retry_held_create(void)
{
	RetryHeld  *held = palloc0(sizeof(RetryHeld));
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(HeldKey);
	ctl.entrysize = sizeof(HeldNote);
	ctl.hcxt = CurrentMemoryContext;
	held->notes = hash_create("retry held tasks", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
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

static HeldNote *
note(RetryHeld *held, const HeldKey *key, TimestampTz due, bool *found)
{
	HeldNote   *result = hash_search(held->notes, key, HASH_ENTER, found);

	if (!*found)
	{
		memset((char *) result + sizeof(HeldKey), 0, sizeof(HeldNote) - sizeof(HeldKey));
		result->due = due;
		result->resumed_at = DT_NOBEGIN;
		result->expires_at = DT_NOEND;
	}
	result->due = Min(result->due, due);
	return result;
}

static void
note_lane(HeldNote *held, int64 lane_hash)
{
	if (held->nlanes > HELD_LANES)
		return;
	for (int i = 0; i < held->nlanes; i++)
	{
		if (held->lane[i] == lane_hash)
			return;
	}
	if (held->nlanes < HELD_LANES)
		held->lane[held->nlanes] = lane_hash;
	held->nlanes++;
}

/* Has the lane something of what was noted?  True also when that is not known. */
static bool
may_be_of_lane(const HeldNote *held, int64 lane_hash)
{
	for (int i = 0; i < Min(held->nlanes, HELD_LANES); i++)
	{
		if (held->lane[i] == lane_hash)
			return true;
	}
	return held->nlanes > HELD_LANES;
}

bool
retry_held_back(RetryTurn *turn, const RetryScene *scene, int64 lane_hash, TimestampTz due)
{
	RetryHeld  *held = turn->d->held;
	HeldKey		key = {.scene_id = scene->id,.kind = HELD_PAUSED};
	HeldNote   *noted;
	bool		found;

	if (!scene->paused && (due >= scene->resumed_at || turn->now >= spread_end(scene)))
		return false;
	noted = note(held, &key, due, &found);
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
	HeldKey		key = {.scene_id = scene_id,.kind = HELD_PAUSED};
	const HeldNote *noted = hash_search(held->notes, &key, HASH_FIND, NULL);

	return noted != NULL ? noted->due : DT_NOEND;
}

TimestampTz
retry_held_due_in_lane(const RetryDispatcher *d, int32 group_id, int64 lane_hash)
{
	TimestampTz due = DT_NOEND;
	HASH_SEQ_STATUS seq;
	HeldNote   *noted;

	hash_seq_init(&seq, d->held->notes);
	while ((noted = hash_seq_search(&seq)) != NULL)
	{
		const RetryScene *scene = retry_config_scene(d->config, noted->key.scene_id);

		if (scene != NULL && scene->group_id == group_id && may_be_of_lane(noted, lane_hash))
			due = Min(due, noted->due);
	}
	return due;
}

bool
retry_held_foreign(RetryTurn *turn, bool inert, uint64 xid, TimestampTz due)
{
	HeldKey		key = {.scene_id = FOREIGN,.kind = HELD_PAUSED};
	bool		found;

	if (retry_config_may_send(turn->d->config, inert, xid))
		return false;
	note(turn->d->held, &key, due, &found)->nlanes = HELD_LANES + 1;
	return true;
}

void
retry_held_adopted(RetryHeld *held)
{
	HeldKey		key = {.scene_id = FOREIGN,.kind = HELD_PAUSED};

	hash_search(held->notes, &key, HASH_REMOVE, NULL);
}

/* Stands for where the scene's tasks go that bring no URL of their own. */
static int64
where_to(const RetryScene *scene)
{
	uint64		where = scene->url != NULL ? retry_route_hash(scene->url, strlen(scene->url)) : 0;

	for (int i = 0; i < scene->ntargets; i++)
		where = where * 31 + scene->targets[i].hash;
	return (int64) where;
}

/* When to look whether what expires first has expired. */
static TimestampTz
next_look(const HeldNote *held)
{
	TimestampTz least;

	if (held->expires_at == DT_NOEND)
		return DT_NOEND;
	least = held->noted_at + Max(LOOK_LEAST_US, (held->noted_at - held->due) / LOOK_SHARE);
	return Max(held->expires_at + 1, least);
}

static void
show_count(const RetryDispatcher *d, const HeldNote *held, int64 count)
{
	if (held->key.kind == HELD_URL)
		retry_held_count_set(MyDatabaseId, d->worker->number, held->key.hash, count);
}

bool
retry_held_url(RetryTurn *turn, const RetryScene *scene, const char *url,
			   int64 lane_hash, TimestampTz due, TimestampTz expires_at)
{
	RetryDispatcher *d = turn->d;
	HeldKey		key = {.scene_id = scene->id,.kind = HELD_URLS_OF_SCENE};
	RetryUrlKey url_key;
	HeldNote   *noted;
	bool		found;

	if (url != NULL)
	{
		if (!retry_disabled_has(d->disabled, scene->id, url, &url_key))
			return false;
		key.hash = url_key.hash;
		key.second_hash = url_key.second_hash;
		key.kind = HELD_URL;
		if (hash_get_num_entries(d->held->notes) >= HELD_URLS &&
			hash_search(d->held->notes, &key, HASH_FIND, NULL) == NULL)
		{
			key.hash = key.second_hash = 0;
			key.kind = HELD_URLS_OF_SCENE;
		}
	}
	noted = note(d->held, &key, due, &found);
	if (!found)
	{
		noted->where = where_to(scene);
		noted->version = retry_disabled_version(d->disabled);
		noted->noted_at = turn->now;
	}
	noted->expires_at = Min(noted->expires_at, expires_at);
	d->held->look_at = Min(d->held->look_at, next_look(noted));
	note_lane(noted, lane_hash);
	show_count(d, noted, ++noted->count);
	return true;
}

void
retry_held_note_all(RetryHeld *held, int32 scene_id, TimestampTz due)
{
	HeldKey		key = {.scene_id = scene_id,.kind = HELD_PAUSED};
	bool		found;
	HeldNote   *noted = note(held, &key, due, &found);

	noted->nlanes = HELD_LANES + 1;
	noted->resumed_at = DT_NOBEGIN;
	noted->restored = true;
	held->look_at = DT_NOBEGIN;
}

void
retry_held_note_urls(RetryHeld *held, int32 scene_id, TimestampTz due,
					 TimestampTz expires_at, int64 digest)
{
	HeldKey		key = {.scene_id = scene_id,.kind = HELD_URLS_OF_SCENE};
	bool		found;
	HeldNote   *noted = note(held, &key, due, &found);

	/* of two that differ one at least is not what is known here */
	if (noted->restored && noted->digest != digest)
		digest = ~noted->digest;
	noted->restored = true;
	noted->digest = digest;
	noted->nlanes = HELD_LANES + 1;
	noted->expires_at = Min(noted->expires_at, expires_at);
	held->look_at = DT_NOBEGIN;
}

/* Makes the lanes read again what the scene had due, as far as it was noted. */
static void
read_again(RetryTurn *turn, const HeldNote *held)
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

/* A paused scene's, or one's that is being resumed little by little. */
static bool
is_paused(RetryTurn *turn, const HeldNote *noted)
{
	RetryDispatcher *d = turn->d;
	const RetryScene *scene = retry_config_scene(d->config, noted->key.scene_id);

	/* those from elsewhere: adopted while nobody was looking? */
	if (noted->key.scene_id == FOREIGN)
		return !noted->restored;
	if (scene == NULL)
		return false;
	if (scene->paused)
		return true;
	if (turn->now >= spread_end(scene) || noted->resumed_at != scene->resumed_at)
		return false;
	d->held->look_at = Min(d->held->look_at, spread_end(scene));
	return true;
}

/* May what was noted of disabled URLs stay passed over? */
static bool
is_disabled(RetryTurn *turn, HeldNote *noted)
{
	RetryDispatcher *d = turn->d;
	const RetryScene *scene = retry_config_scene(d->config, noted->key.scene_id);
	RetryUrlKey url = {
		.hash = noted->key.hash,
		.second_hash = noted->key.second_hash,
		.scene_id = noted->key.scene_id
	};

	if (scene == NULL || (noted->key.kind == HELD_URL && !retry_disabled_has_key(d->disabled, &url)))
		return false;
	if (noted->restored)
	{
		if (noted->digest != (retry_disabled_digest(d->disabled, scene->id) ^ where_to(scene)))
			return false;
		noted->restored = false;
		noted->where = where_to(scene);
		noted->version = retry_disabled_version(d->disabled);
		noted->noted_at = turn->now;
	}
	if (noted->where != where_to(scene))
		return false;
	if (noted->key.kind == HELD_URLS_OF_SCENE &&
		retry_disabled_enabled_at(d->disabled, noted->key.scene_id) > noted->version)
		return false;

	/* the second is for a clock that was set back */
	if (turn->now >= next_look(noted) || noted->noted_at > turn->now)
		return false;
	d->held->look_at = Min(d->held->look_at, next_look(noted));
	return true;
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
	HeldNote   *noted;

	d->held->look_at = DT_NOEND;
	if (hash_get_num_entries(d->held->notes) == 0)
		return;
	hash_seq_init(&seq, d->held->notes);
	while ((noted = hash_seq_search(&seq)) != NULL)
	{
		if (noted->key.kind == HELD_PAUSED ? is_paused(turn, noted) : is_disabled(turn, noted))
			continue;
		read_again(turn, noted);
		show_count(d, noted, 0);
		hash_search(d->held->notes, &noted->key, HASH_REMOVE, NULL);
	}
}

/* For a checkpoint: what is noted of a scene's URLs, one by one, as one. */
typedef struct UrlsOfScene
{
	int32		scene_id;		/* hash key */
	TimestampTz due;
	TimestampTz expires_at;
} UrlsOfScene;

static void
add_urls(HTAB *scenes, const HeldNote *noted)
{
	bool		found;
	UrlsOfScene *urls = hash_search(scenes, &noted->key.scene_id, HASH_ENTER, &found);

	urls->due = found ? Min(urls->due, noted->due) : noted->due;
	urls->expires_at = found ? Min(urls->expires_at, noted->expires_at) : noted->expires_at;
}

/* What it all depends on whether they may stay passed over, as one number. */
static int64
digest_of(const RetryDispatcher *d, int32 scene_id)
{
	const RetryScene *scene = retry_config_scene(d->config, scene_id);

	return retry_disabled_digest(d->disabled, scene_id) ^ (scene != NULL ? where_to(scene) : 0);
}

static void
list_urls(const RetryDispatcher *d, HTAB *scenes, RetryHeldList *list)
{
	long		n = Max(hash_get_num_entries(scenes), 1);
	HASH_SEQ_STATUS seq;
	UrlsOfScene *urls;

	list->url_scenes = palloc(n * sizeof(Datum));
	list->url_dues = palloc(n * sizeof(Datum));
	list->url_expiries = palloc(n * sizeof(Datum));
	list->url_digests = palloc(n * sizeof(Datum));
	hash_seq_init(&seq, scenes);
	while ((urls = hash_seq_search(&seq)) != NULL)
	{
		list->url_scenes[list->nurls] = Int32GetDatum(urls->scene_id);
		list->url_dues[list->nurls] = TimestampTzGetDatum(urls->due);
		list->url_expiries[list->nurls] = TimestampTzGetDatum(urls->expires_at);
		list->url_digests[list->nurls++] = Int64GetDatum(digest_of(d, urls->scene_id));
	}
}

void
retry_held_list(const RetryDispatcher *d, RetryHeldList *list)
{
	long		n = Max(hash_get_num_entries(d->held->notes), 1);
	HASHCTL		ctl = {.keysize = sizeof(int32),.entrysize = sizeof(UrlsOfScene),.hcxt = CurrentMemoryContext};
	HTAB	   *scenes = hash_create("retry scenes", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	HASH_SEQ_STATUS seq;
	HeldNote   *noted;

	memset(list, 0, sizeof(*list));
	list->scenes = palloc(n * sizeof(Datum));
	list->dues = palloc(n * sizeof(Datum));
	hash_seq_init(&seq, d->held->notes);
	while ((noted = hash_seq_search(&seq)) != NULL)
	{
		if (noted->key.kind != HELD_PAUSED)
		{
			add_urls(scenes, noted);
			continue;
		}
		list->scenes[list->n] = Int32GetDatum(noted->key.scene_id);
		list->dues[list->n++] = TimestampTzGetDatum(noted->due);
	}
	list_urls(d, scenes, list);
	hash_destroy(scenes);
}
