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

#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "access.h"
#include "enqueue_options.h"
#include "quote.h"
#include "scene.h"
#include "scene_ids.h"
#include "selection.h"

/* The group by its name, which the role may use. */
static void
find_group(Snapshot snapshot, Oid role, const char *name)
{
	RetryGroupRow group;

	if (!retry_group_by_name(snapshot, name, &group))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("group \"%s\" does not exist", name),
				 errhint("Groups are rows of retry.scene_group.")));
	retry_check_group(snapshot, role, &group);
}

/* The one scene of the target; "group_name" is NULL when none is given. */
static void
choose_scene(RetrySelection *s, Snapshot snapshot, const text *target, const char *group_name)
{
	char	   *spelled = text_to_cstring(target);
	char		group[RETRY_NAME_MAX + 1];
	char		name[RETRY_NAME_MAX + 1];
	RetrySceneRow scene;

	if (!retry_scene_parse(spelled, group, name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid target: \"%s\"", retry_quoted_string(spelled)),
				 errhint("The target is scene or group/scene here; plain URLs are of the scene default.")));
	if (group_name != NULL && strcmp(group, group_name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("target \"%s\" is not of group \"%s\"", spelled, group_name),
				 errhint("A target without a group means the group default. Give target or group_name.")));
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

/* All scenes that the role may use, or those of one group. */
static void
choose_all(RetrySelection *s, Snapshot snapshot, const char *group_name)
{
	int			n_own;
	int32	   *own = s->own_scenes;

	if (group_name != NULL)
		own = retry_visible_scenes(snapshot, s->role, group_name, true, &n_own);
	else
		n_own = s->n_own_scenes;
	s->scenes = retry_visible_scenes(snapshot, s->role, group_name, false, &s->nscenes);
	s->scenes = repalloc(s->scenes, sizeof(int32) * (Size) Max(s->nscenes + n_own, 1));
	memcpy(s->scenes + s->nscenes, own, sizeof(int32) * n_own);
	s->nscenes += n_own;
	retry_scene_ids_sort(s->scenes, s->nscenes);
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

static inline bool
given(FunctionCallInfo fcinfo, int argument)
{
	return argument >= 0 && !PG_ARGISNULL(argument);
}

/* A text that is not empty, or NULL. */
static text *
read_text(FunctionCallInfo fcinfo, int argument, const char *what)
{
	text	   *value;

	if (!given(fcinfo, argument))
		return NULL;
	value = PG_GETARG_TEXT_PP(argument);
	retry_check_short_text(what, value);
	return value;
}

/* A pattern is judged here, since it is not looked at when there is no error to compare. */
static text *
read_pattern(FunctionCallInfo fcinfo, int argument)
{
	text	   *pattern;
	const char *bytes;
	int			len;
	int			escapes = 0;

	if (!given(fcinfo, argument))
		return NULL;
	pattern = PG_GETARG_TEXT_PP(argument);
	bytes = VARDATA_ANY(pattern);
	len = VARSIZE_ANY_EXHDR(pattern);
	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("error is empty"),
				 errhint("Use NULL for none, and '%%' for any error.")));

	/* backslash is a byte of no other character in a server's encoding */
	while (escapes < len && bytes[len - 1 - escapes] == '\\')
		escapes++;
	if (escapes % 2 != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_ESCAPE_SEQUENCE),
				 errmsg("error ends with an escape character: \"%s\"", text_to_cstring(pattern)),
				 errhint("It is a pattern of LIKE; write \\\\ for a backslash.")));
	return pattern;
}

static void
read_times(FunctionCallInfo fcinfo, const RetrySelectionArgs *args, RetrySelection *s)
{
	s->since = given(fcinfo, args->since) ? PG_GETARG_TIMESTAMPTZ(args->since) : DT_NOBEGIN;
	s->until = given(fcinfo, args->until) ? PG_GETARG_TIMESTAMPTZ(args->until) : DT_NOEND;
	if (given(fcinfo, args->since) && given(fcinfo, args->until) && s->since >= s->until)
	{
		char	   *since = pstrdup(timestamptz_to_str(s->since));

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("since is not before until: %s, %s", since, timestamptz_to_str(s->until))));
	}
}

void
retry_selection_read(FunctionCallInfo fcinfo, const RetrySelectionArgs *args,
					 Snapshot snapshot, RetrySelection *s)
{
	char	   *group_name = NULL;

	memset(s, 0, sizeof(*s));
	s->role = GetUserId();
	s->now = GetCurrentTimestamp();
	read_times(fcinfo, args, s);
	s->reference = read_text(fcinfo, args->reference, "reference");
	s->key_prefix = read_text(fcinfo, args->key_prefix, "key_prefix");
	s->error = read_pattern(fcinfo, args->error);
	if (given(fcinfo, args->spread))
		s->spread_us = read_spread(s->now, PG_GETARG_DATUM(args->spread));

	if (given(fcinfo, args->group_name))
	{
		group_name = text_to_cstring(read_text(fcinfo, args->group_name, "group_name"));
		find_group(snapshot, s->role, group_name);
	}
	s->own_scenes = retry_visible_scenes(snapshot, s->role, NULL, true, &s->n_own_scenes);
	retry_scene_ids_sort(s->own_scenes, s->n_own_scenes);
	if (given(fcinfo, args->target))
		choose_scene(s, snapshot, PG_GETARG_TEXT_PP(args->target), group_name);
	else
		choose_all(s, snapshot, group_name);
}

bool
retry_selection_has(const RetrySelection *s, int32 scene_id, Oid enqueued_by)
{
	return retry_scene_ids_has(s->scenes, s->nscenes, scene_id) &&
		(!retry_scene_ids_has(s->own_scenes, s->n_own_scenes, scene_id) ||
		 has_privs_of_role(s->role, enqueued_by));
}

bool
retry_selection_has_key(const RetrySelection *s, const text *key)
{
	int			len;

	if (s->key_prefix == NULL)
		return true;
	len = VARSIZE_ANY_EXHDR(s->key_prefix);
	return key != NULL && VARSIZE_ANY_EXHDR(key) >= len &&
		memcmp(VARDATA_ANY(key), VARDATA_ANY(s->key_prefix), len) == 0;
}

bool
retry_selection_has_error(const RetrySelection *s, const text *error, int http_status)
{
	if (s->error == NULL)
		return true;
	if (error == NULL && http_status != 0)
		error = cstring_to_text(psprintf("status %d", http_status));
	return error != NULL &&
		DatumGetBool(DirectFunctionCall2Coll(textlike, DEFAULT_COLLATION_OID,
											 PointerGetDatum(error), PointerGetDatum(s->error)));
}
