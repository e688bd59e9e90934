/*
 * selection.c
 *		The filters of calls for many tasks, and the rights to them.
 *
 * Rights are found out once for each scene, before any task is looked at: a
 * scene's tasks are all the caller's, or only those of roles that it is a
 * member of, or none of its business.  What is none of its business is passed
 * over without a word, so that counting tells nothing about others.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "access.h"
#include "scene.h"
#include "selection.h"

static int
compare_ids(const void *a, const void *b)
{
	int32		x = *(const int32 *) a;
	int32		y = *(const int32 *) b;

	return x < y ? -1 : x > y;
}

static bool
is_member(const int32 *ids, int count, int32 id)
{
	return count > 0 && bsearch(&id, ids, count, sizeof(int32), compare_ids) != NULL;
}

/* The one scene of the target. */
static void
choose_scene(RetrySelection *s, Snapshot snapshot, const text *target)
{
	char	   *given = text_to_cstring(target);
	char		group[RETRY_NAME_MAX + 1];
	char		name[RETRY_NAME_MAX + 1];
	RetrySceneRow scene;

	if (!retry_scene_parse(given, group, name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid target: \"%.100s\"", given),
				 errhint("The target is scene or group/scene here; plain URLs are of the scene default.")));
	if (!retry_scene_by_name(snapshot, group, name, &scene))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("scene \"%s/%s\" does not exist", group, name),
				 errhint("Scenes are rows of retry.scene; a target without a group means the group default.")));
	retry_check_group(snapshot, s->role, &scene.group);
	s->scenes = palloc(sizeof(int32));
	s->scenes[0] = scene.id;
	s->nscenes = 1;
}

/* All scenes that the role may use. */
static void
choose_all(RetrySelection *s, Snapshot snapshot)
{
	s->scenes = retry_visible_scenes(snapshot, s->role, false, &s->nscenes);
	s->scenes = repalloc(s->scenes, sizeof(int32) * (Size) Max(s->nscenes + s->n_own_scenes, 1));
	memcpy(s->scenes + s->nscenes, s->own_scenes, sizeof(int32) * s->n_own_scenes);
	s->nscenes += s->n_own_scenes;
	qsort(s->scenes, s->nscenes, sizeof(int32), compare_ids);
}

static int64
read_spread(TimestampTz now, Datum spread)
{
	TimestampTz end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															  TimestampTzGetDatum(now), spread));

	if (end < now || TIMESTAMP_NOT_FINITE(end))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("spread is negative or infinite: %s",
						DatumGetCString(DirectFunctionCall1(interval_out, spread)))));
	return end - now;
}

void
retry_selection_read(FunctionCallInfo fcinfo, Snapshot snapshot, RetrySelection *s)
{
	memset(s, 0, sizeof(*s));
	s->role = GetUserId();
	s->now = GetCurrentTimestamp();
	s->own_scenes = retry_visible_scenes(snapshot, s->role, true, &s->n_own_scenes);
	qsort(s->own_scenes, s->n_own_scenes, sizeof(int32), compare_ids);
	if (PG_ARGISNULL(0))
		choose_all(s, snapshot);
	else
		choose_scene(s, snapshot, PG_GETARG_TEXT_PP(0));
	s->since = PG_ARGISNULL(1) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(1);
	s->until = PG_ARGISNULL(2) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(2);
	s->reference = PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3);
	if (PG_NARGS() > 4 && !PG_ARGISNULL(4))
		s->spread_us = read_spread(s->now, PG_GETARG_DATUM(4));
}

bool
retry_selection_has(const RetrySelection *s, int32 scene_id, Oid enqueued_by)
{
	return is_member(s->scenes, s->nscenes, scene_id) &&
		(!is_member(s->own_scenes, s->n_own_scenes, scene_id) ||
		 has_privs_of_role(s->role, enqueued_by));
}

TimestampTz
retry_selection_due(const RetrySelection *s, int64 n, int64 total)
{
	if (s->spread_us == 0 || total <= 0)
		return s->now;
	return s->now + (int64) ((double) s->spread_us * Min(n, total) / total);
}
