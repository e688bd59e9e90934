/*
 * callback.c
 *		Completion callbacks: who is told, and as which task.
 *
 * The texts of the targets are noted when an attempt is prepared, where task
 * and scene are at hand, and are given a meaning when the outcome is recorded,
 * by the configuration of that moment.  Whatever a text turns out to mean then,
 * there is a row: one that cannot be sent is stored as a dead letter which says
 * why, because nobody would look for a callback that never was.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "callback.h"
#include "scene.h"
#include "store.h"
#include "target.h"

/* The lane of what cannot be sent because its target means nothing any more. */
#define LOST_LANE	"lost callbacks"

/* Such are logged at most this often; dead letters tell of each. */
#define LOG_INTERVAL_MS	(10 * 1000)

static char *
copy_target(MemoryContext context, TupleTableSlot *task, int column, const char *other)
{
	bool		isnull;
	Datum		own = slot_getattr(task, column + 1, &isnull);
	MemoryContext old;
	char	   *copy;

	if (isnull)
		return other == NULL ? NULL : MemoryContextStrdup(context, other);
	old = MemoryContextSwitchTo(context);
	copy = TextDatumGetCString(own);
	MemoryContextSwitchTo(old);
	return copy;
}

void
retry_callback_note(MemoryContext context, TupleTableSlot *task, const RetryScene *scene,
					RetryEnded *ended)
{
	ended->on_success = copy_target(context, task, Task_on_success,
									scene != NULL ? scene->on_success : NULL);
	ended->on_dead = copy_target(context, task, Task_on_dead,
								 scene != NULL ? scene->on_dead : NULL);
}

void
retry_callback_forget(RetryEnded *ended)
{
	if (ended->on_success != NULL)
		pfree(ended->on_success);
	if (ended->on_dead != NULL)
		pfree(ended->on_dead);
	ended->on_success = ended->on_dead = NULL;
}

const char *
retry_callback_of(const RetryEnded *ended, const char **column)
{
	bool		good = ended->verdict.outcome == RETRY_SUCCEEDED;

	if (!ended->verdict.terminal)
		return NULL;
	*column = good ? "on_success" : "on_dead";
	return good ? ended->on_success : ended->on_dead;
}

/* The scene of a target; NULL with "locked" when it cannot be looked for. */
static RetryScene *
find_scene(RetryConfig *config, const RetryTarget *target, bool *locked)
{
	char		name[2 * RETRY_NAME_MAX + 2];
	RetryScene *scene;

	snprintf(name, sizeof(name), "%s/%s", target->group, target->scene);
	scene = retry_config_scene_named(config, name);
	if (scene == NULL)
	{
		/* it may be a new one */
		*locked = !retry_config_read(config, GetActiveSnapshot());
		scene = retry_config_scene_named(config, name);
	}
	return scene;
}

/* A callback that has nowhere to go is kept with the tasks of plain URLs. */
static bool
lose(RetryConfig *config, RetryCallback *callback)
{
	RetryTarget target = {.group = RETRY_DEFAULT_NAME,.scene = RETRY_DEFAULT_NAME};
	bool		locked = false;
	RetryScene *scene = find_scene(config, &target, &locked);

	if (scene == NULL)
	{
		if (locked)
			return false;
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("scene \"%s/%s\" does not exist", target.group, target.scene)));
	}
	callback->scene_id = scene->id;
	callback->lanes = scene->lanes;
	callback->lost_lane = cstring_to_text(LOST_LANE);
	return true;
}

/* The origin of what is called, as enqueue would find it; NULL: not known. */
static char *
find_origin(const RetryScene *scene, const RetryTarget *target)
{
	RetryUrl	url;
	RetryMistake mistake;
	bool		sql;

	if (target->kind == RETRY_TARGET_URL)
		return pstrdup(target->url.origin);

	/* a scene that has lost its URL still has a lane: there it is rejected */
	if (scene->url == NULL || !retry_target_parse_url("url", scene->url, &url, &sql, &mistake))
		return NULL;
	return pstrdup(url.origin);
}

/*
 * What the scene says now, when that is something else than it said when the
 * attempt was prepared: a target that was renamed meanwhile.
 */
static const char *
new_text(RetryConfig *config, int32 scene_id, const char *column, const char *text)
{
	RetryScene *scene = retry_config_scene(config, scene_id);
	const char *now;

	if (scene == NULL)
		return NULL;
	now = strcmp(column, "on_success") == 0 ? scene->on_success : scene->on_dead;
	return now != NULL && strcmp(now, text) != 0 ? now : NULL;
}

bool
retry_callback_resolve(RetryConfig *config, int32 scene_id, const char *column, const char *text,
					   RetryCallback *callback)
{
	RetryTarget target;
	RetryMistake mistake;
	RetryScene *scene;
	bool		locked = false;

	memset(callback, 0, sizeof(*callback));
	if (!retry_target_parse(column, text, &target, &mistake))
	{
		callback->refusal = pstrdup(mistake.message);
		return lose(config, callback);
	}
	scene = find_scene(config, &target, &locked);
	if (scene == NULL)
	{
		const char *renamed;

		if (locked)
			return false;
		renamed = scene_id == 0 ? NULL : new_text(config, scene_id, column, text);
		if (renamed != NULL)
			return retry_callback_resolve(config, 0, column, pstrdup(renamed), callback);
		callback->refusal = psprintf("%s: scene \"%s/%s\" does not exist", column,
									 target.group, target.scene);
		return lose(config, callback);
	}
	callback->scene_id = scene->id;
	if (target.kind == RETRY_TARGET_URL)
		callback->url = cstring_to_text(text);
	else if (scene->ntargets > 0 && scene->route == RETRY_ROUTE_ALL)
		callback->all = scene;
	callback->lanes = scene->lanes;
	callback->origin = find_origin(scene, &target);
	return true;
}

int
retry_callback_copies(const RetryCallback *callback)
{
	return callback->all != NULL && callback->refusal == NULL ? callback->all->ntargets : 1;
}

void
retry_callback_copy(RetryCallback *callback, TupleTableSlot *task, int n)
{
	RetryLaneTask of = {
		.named = callback->lost_lane,.origin = callback->origin,.own_url = callback->url != NULL
	};
	Datum		reference;
	bool		isnull;
	RetryUrl	url;

	if (callback->all != NULL && callback->refusal == NULL)
	{
		char		why[RETRY_ROUTE_ERROR];

		callback->url = cstring_to_text(callback->all->targets[n].url);
		of.own_url = of.child = true;
		if (retry_url_check(callback->all->targets[n].url, &url, why, sizeof(why)))
			of.origin = url.origin;
	}
	reference = slot_getattr(task, Task_reference + 1, &isnull);
	if (!isnull)
		of.reference = DatumGetTextPP(reference);
	retry_lane_choose(&callback->lanes, &of, &callback->lane, &callback->lane_hash);
}

void
retry_callback_deepen(RetryCallback *callback, TupleTableSlot *task)
{
	bool		isnull;
	Datum		depth = slot_getattr(task, Task_depth + 1, &isnull);

	callback->depth = isnull ? 1 : DatumGetInt16(depth) + 1;
	if (callback->depth > RETRY_MAX_DEPTH && callback->refusal == NULL)
		callback->refusal = psprintf("chain of callbacks is longer than %d", RETRY_MAX_DEPTH);
}

void
retry_callback_row(const RetryCallback *callback, const RetryConfig *config,
				   const RetryEnded *ended, TupleTableSlot *task, RetryCallbackForm form,
				   Datum *values, bool *isnull)
{
	RetryScene *scene = retry_config_scene(unconstify(RetryConfig *, config), ended->scene_id);

	for (int i = 0; i < Task_natts; i++)
	{
		values[i] = (Datum) 0;
		isnull[i] = true;
	}

	slot_getallattrs(task);
	RETRY_FILL(Task_inert, true, BoolGetDatum(false));
	RETRY_FILL(Task_scene_id, true, Int32GetDatum(callback->scene_id));
	RETRY_FILL(Task_lane_hash, true, Int64GetDatum(callback->lane_hash));
	RETRY_FILL(Task_enqueued_by, true, task->tts_values[Task_enqueued_by]);
	RETRY_FILL(Task_depth, true, Int16GetDatum(callback->depth));
	RETRY_FILL(Task_parent_id, true, UUIDPGetDatum(&ended->entry.pos.id));
	RETRY_FILL(Task_lane, callback->lane != NULL, PointerGetDatum(callback->lane));
	RETRY_FILL(Task_url, callback->url != NULL, PointerGetDatum(callback->url));
	RETRY_FILL(Task_reference, !task->tts_isnull[Task_reference], task->tts_values[Task_reference]);
	RETRY_FILL(Task_body, true, PointerGetDatum(retry_callback_document(ended, task,
																		scene != NULL ? scene->name : NULL,
																		form)));
}

void
retry_callback_log(const RetryEnded *ended, bool kept, const char *why)
{
	static TimestampTz last = 0;
	static int64 unlogged = 0;
	TimestampTz now = GetCurrentTimestamp();
	const char *column = "";
	const char *target = retry_callback_of(ended, &column);

	if (kept && !TimestampDifferenceExceeds(last, now, LOG_INTERVAL_MS))
	{
		unlogged++;
		return;
	}
	ereport(LOG,
			(errmsg("retry: callback %s \"%s\" of task %s: %s", column, target,
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&ended->entry.pos.id))),
					why),
			 errdetail("Since the last such message " INT64_FORMAT " others were not logged.", unlogged)));
	last = now;
	unlogged = 0;
}
