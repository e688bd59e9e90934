/*
 * target.c
 *		Reads and checks the texts that name a target.
 *
 * Syntax is judged without raising an error and without looking anything up,
 * because a dispatcher that resolves a callback has to go on whatever the text
 * says; what a session gets is the same judgement as an ERROR.  The syntaxes
 * exclude each other: a name has no colon, and a function begins with "sql:".
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "access.h"
#include "quote.h"
#include "sqltarget.h"
#include "target.h"

PG_FUNCTION_INFO_V1(retry_check_callbacks);

#define TARGET_SYNTAX \
	"A target is an http or https URL, scene, group/scene, or sql:schema.function; names have lower-case letters, digits, _ and -, at most 63."

/* The argument that a message need not name: there is nothing else to mean. */
static bool
goes_without_saying(const char *what)
{
	return strcmp(what, "target") == 0;
}

bool
retry_target_parse_url(const char *what, const char *text, RetryUrl *url, bool *sql,
					   RetryMistake *mistake)
{
	bool		silent = goes_without_saying(what);
	RetrySqlTarget function;
	RetryMistake no_function;
	char		why[256];

	*sql = retry_is_sql_target(text);
	if (*sql)
	{
		memset(url, 0, sizeof(*url));
		if (!retry_sql_target_parse(text, &function, &no_function))
			return retry_refuse(mistake, no_function.sqlstate, no_function.hint,
								"invalid %s: %s", what, no_function.message);
		strlcpy(url->origin, function.text, sizeof(url->origin));
		return true;
	}

	/* the URL is not shown: there may be a password in it */
	if (retry_url_check(text, url, why, sizeof(why)))
		return true;
	return retry_refuse(mistake, ERRCODE_INVALID_PARAMETER_VALUE,
						"A URL looks like https://host[:port]/path.",
						"invalid URL%s%s: %s", silent ? "" : " in ", silent ? "" : what, why);
}

bool
retry_target_names_scene(const char *text)
{
	return !retry_is_sql_target(text) && strstr(text, ":/") == NULL;
}

bool
retry_target_parse(const char *what, const char *text, RetryTarget *target,
				   RetryMistake *mistake)
{
	memset(target, 0, sizeof(*target));
	target->text = text;

	if (!retry_target_names_scene(text))
	{
		target->kind = RETRY_TARGET_URL;
		strcpy(target->group, RETRY_DEFAULT_NAME);
		strcpy(target->scene, RETRY_DEFAULT_NAME);
		return retry_target_parse_url(what, text, &target->url, &target->sql, mistake);
	}
	target->kind = RETRY_TARGET_SCENE;
	if (retry_scene_parse(text, target->group, target->scene))
		return true;
	return retry_refuse(mistake, ERRCODE_INVALID_PARAMETER_VALUE, TARGET_SYNTAX,
						"invalid %s: \"%s\"", what, retry_quoted_string(text));
}

void
retry_target_read(const char *what, const char *text, RetryTarget *target)
{
	RetryMistake mistake;

	if (!retry_target_parse(what, text, target, &mistake))
		ereport(ERROR,
				(errcode(mistake.sqlstate),
				 errmsg("%s", mistake.message),
				 mistake.hint != NULL ? errhint("%s", mistake.hint) : 0));
}

/* Says for what a group or scene was looked up. */
typedef struct Subject
{
	const char *what;
	const RetryTarget *target;
} Subject;

static void
name_subject(void *arg)
{
	const Subject *subject = arg;

	errcontext("%s \"%s\"", subject->what, retry_quoted_string(subject->target->text));
}

/* A table of the scenes is what the hint points at; it knows no rights. */
void
retry_target_find(const char *what, const RetryTarget *target, Snapshot snapshot, Oid role,
				  RetrySceneRow *scene)
{
	Subject		subject = {what, target};
	ErrorContextCallback callback = {error_context_stack, name_subject, &subject};
	bool		silent = goes_without_saying(what);

	if (!silent)
		error_context_stack = &callback;
	if (!retry_scene_by_name(snapshot, target->group, target->scene, scene))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s%sscene \"%s/%s\" does not exist", silent ? "" : what, silent ? "" : ": ",
						target->group, target->scene),
				 errhint("Scenes are rows of retry.scene; a target without a group means the group default.")));
	retry_check_group(snapshot, role, &scene->group);
	if (scene->archived)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s%sscene \"%s/%s\" is archived and takes no new tasks", silent ? "" : what,
						silent ? "" : ": ", target->group, target->scene),
				 errhint("UPDATE retry.scene SET archived = false makes it take tasks again.")));
	error_context_stack = callback.previous;
}

void
retry_target_check_callback(const char *what, const char *text, Snapshot snapshot, Oid role,
							Oid caller, const char *own_group, const char *own_scene)
{
	RetryTarget target;
	RetrySqlTarget function;
	RetrySceneRow scene;

	retry_target_read(what, text, &target);
	if (target.kind == RETRY_TARGET_SCENE &&
		strcmp(target.group, own_group) == 0 && strcmp(target.scene, own_scene) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s: scene \"%s/%s\" would be told of its own outcomes", what,
						own_group, own_scene),
				 errhint("A callback needs a scene of its own.")));
	if (target.sql)
		retry_sql_target_check(what, text, caller, &function);
	retry_target_find(what, &target, snapshot, role, &scene);
	if (target.kind == RETRY_TARGET_URL && !target.sql && OidIsValid(caller))
		retry_destination_check(what, &target.url, scene.group.name, &scene.group.to);
	if (target.kind == RETRY_TARGET_SCENE && scene.url == NULL && !scene.routed)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s: scene \"%s/%s\" has no URL", what, target.group, target.scene),
				 errhint("A callback brings no URL, so its scene must have one.")));
}

/* One of a scene's callbacks, unless it is as it was. */
static void
check_scene_callback(TriggerData *trigger, HeapTuple row, int column, const char *name)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	bool		isnull;
	char	   *group = TextDatumGetCString(heap_getattr(row, Scene_group_name + 1, desc, &isnull));
	char	   *scene = TextDatumGetCString(heap_getattr(row, Scene_name + 1, desc, &isnull));
	Datum		value = heap_getattr(row, column + 1, desc, &isnull);
	char	   *target;

	if (isnull)
		return;
	target = TextDatumGetCString(value);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		value = heap_getattr(trigger->tg_trigtuple, column + 1, desc, &isnull);
		if (!isnull && strcmp(TextDatumGetCString(value), target) == 0)
			return;
	}

	if (retry_is_sql_target(target))
		retry_sql_target_check_author(trigger->tg_relation, name);

	/*
	 * What restores a dump says by this setting that things may come in an
	 * order in which they refer to what is not there yet.  It is no way past
	 * the rights of others' groups.
	 */
	if (!check_function_bodies && has_privs_of_role(GetUserId(), trigger->tg_relation->rd_rel->relowner))
	{
		RetryTarget ignored;

		retry_target_read(name, target, &ignored);
		return;
	}
	retry_target_check_callback(name, target, GetActiveSnapshot(), GetUserId(), InvalidOid,
								group, scene);
}

/*
 * AFTER INSERT OR UPDATE, FOR EACH ROW, on retry.scene: after the statement,
 * so that scenes which one statement makes may name each other.
 */
Datum
retry_check_callbacks(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) || TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("check_callbacks() can only be called as an AFTER INSERT OR UPDATE trigger for each row")));

	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;

	/* what the statement itself has done counts */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	check_scene_callback(trigger, row, Scene_on_success, "on_success");
	check_scene_callback(trigger, row, Scene_on_dead, "on_dead");
	check_scene_callback(trigger, row, Scene_check_target, "check_target");
	PopActiveSnapshot();
	return PointerGetDatum(NULL);
}
