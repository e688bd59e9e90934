/*
 * disabled_url.c
 *		retry.disable_url() and retry.enable_url(), and what the view
 *		retry.disabled_urls needs.
 *
 * Dispatchers disable a URL when its endpoint says that it is gone; whoever
 * administers the group may do so, too, and only they can take it back.  What
 * the functions do is to put a row in and to delete rows: the table has no
 * unique index, for a reason that disabled.c tells, so enabling deletes all that
 * there are for the URL.  A trigger tells the dispatchers.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "access.h"
#include "audit.h"
#include "arguments.h"
#include "disabled.h"
#include "enqueue_options.h"
#include "event.h"
#include "held_count.h"
#include "scene.h"
#include "statement.h"
#include "url.h"

PG_FUNCTION_INFO_V1(retry_canonical_url_sql);
PG_FUNCTION_INFO_V1(retry_disable_url);
PG_FUNCTION_INFO_V1(retry_enable_url);
PG_FUNCTION_INFO_V1(retry_held_tasks);

/* What is asked for, checked. */
typedef struct Wanted
{
	RetrySceneRow scene;
	char		url[RETRY_URL_CANONICAL_SIZE];
} Wanted;

static void
read_wanted(FunctionCallInfo fcinfo, const char *function, Wanted *wanted)
{
	char	   *given;
	char		error[256];

	retry_require_argument(fcinfo, 0, "scene");
	retry_require_argument(fcinfo, 1, "url");
	retry_own_scene(text_to_cstring(PG_GETARG_TEXT_PP(0)), "disable or enable URLs of", &wanted->scene);
	given = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (!retry_url_canonical(given, wanted->url))
	{
		(void) retry_url_check(given, NULL, error, sizeof(error));
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("url: %s", error)));
	}
	retry_require_writable(function);
}

/*
 * For people.  In the group that all tenants share, the event names no more
 * than whose address it is, as disabled.c does.
 */
static void
note_event(const Wanted *wanted, RetryEventKind kind)
{
	Oid			types[] = {INT4OID, INT4OID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];
	RetryUrl	url;
	char		error[256];

	(void) retry_url_check(wanted->url, &url, error, sizeof(error));
	values[0] = Int32GetDatum(wanted->scene.group.id);
	values[1] = Int32GetDatum(wanted->scene.id);
	values[2] = CStringGetTextDatum(retry_event_word(kind));
	values[3] = CStringGetTextDatum(wanted->scene.group.shared ? url.origin : wanted->url);
	values[4] = CStringGetTextDatum(psprintf("by %s", GetUserNameFromId(GetSessionUserId(), false)));
	retry_statement("INSERT INTO retry.event (at, group_id, scene_id, kind, target, detail)"
					" VALUES (pg_catalog.clock_timestamp(), $1, $2, $3, $4, $5)",
					lengthof(types), types, values, NULL, SPI_OK_INSERT);
}

/* Runs the statement, and notes the event if it does something; true then. */
static bool
change(const Wanted *wanted, const char *sql, int nargs, Oid *types, Datum *values,
	   const char *nulls, int expected, RetryEventKind kind)
{
	RetryRoleSwitch caller;
	bool		changed;

	retry_statement_connect();
	retry_become_owner(&caller);
	changed = retry_statement(sql, nargs, types, values, nulls, expected) > 0;
	if (changed)
		note_event(wanted, kind);
	retry_become_caller(&caller);
	SPI_finish();
	if (changed)
	{
		RetryAuditEntry entry = {
			.action = retry_event_word(kind),.group = &wanted->scene.group,.object = wanted->url
		};

		retry_audit(&entry);
	}
	return changed;
}

/* retry.disable_url(scene, url, reason): false when it is disabled already. */
Datum
retry_disable_url(PG_FUNCTION_ARGS)
{
	Oid			types[] = {INT4OID, TEXTOID, OIDOID, TEXTOID};
	Datum		values[lengthof(types)];
	Wanted		wanted;

	read_wanted(fcinfo, "retry.disable_url()", &wanted);
	values[0] = Int32GetDatum(wanted.scene.id);
	values[1] = CStringGetTextDatum(wanted.url);
	values[2] = ObjectIdGetDatum(GetUserId());
	values[3] = (Datum) 0;
	if (!PG_ARGISNULL(2))
	{
		retry_check_short_text("reason", PG_GETARG_TEXT_PP(2));
		values[3] = PG_GETARG_DATUM(2);
	}
	PG_RETURN_BOOL(change(&wanted,
						  "INSERT INTO retry.disabled_url (scene_id, url, since, disabled_by, reason)"
						  " SELECT $1, $2, pg_catalog.clock_timestamp(), $3, $4"
						  " WHERE NOT EXISTS (SELECT FROM retry.disabled_url d"
						  " WHERE d.scene_id OPERATOR(pg_catalog.=) $1 AND d.url OPERATOR(pg_catalog.=) $2)",
						  lengthof(types), types, values,
						  PG_ARGISNULL(2) ? "   n" : NULL,
						  SPI_OK_INSERT, RETRY_EVENT_URL_DISABLED));
}

/* retry.enable_url(scene, url): false when it is not disabled. */
Datum
retry_enable_url(PG_FUNCTION_ARGS)
{
	Oid			types[] = {INT4OID, TEXTOID};
	Datum		values[lengthof(types)];
	Wanted		wanted;

	read_wanted(fcinfo, "retry.enable_url()", &wanted);
	values[0] = Int32GetDatum(wanted.scene.id);
	values[1] = CStringGetTextDatum(wanted.url);
	PG_RETURN_BOOL(change(&wanted,
						  "DELETE FROM retry.disabled_url d"
						  " WHERE d.scene_id OPERATOR(pg_catalog.=) $1 AND d.url OPERATOR(pg_catalog.=) $2",
						  lengthof(types), types, values, NULL,
						  SPI_OK_DELETE, RETRY_EVENT_URL_ENABLED));
}

/* retry.canonical_url(url): null for what is no http or https URL. */
Datum
retry_canonical_url_sql(PG_FUNCTION_ARGS)
{
	char		canonical[RETRY_URL_CANONICAL_SIZE];

	if (!retry_url_canonical(text_to_cstring(PG_GETARG_TEXT_PP(0)), canonical))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(canonical));
}

/* The scenes whose tasks the caller may see, found once for a query. */
typedef struct Visible
{
	int32	   *ids[2];
	int			count[2];
} Visible;

static bool
may_see(FmgrInfo *flinfo, int32 scene_id)
{
	Visible    *visible = flinfo->fn_extra;

	if (visible == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(flinfo->fn_mcxt);

		visible = palloc(sizeof(Visible));
		for (int i = 0; i < 2; i++)
			visible->ids[i] = retry_visible_scenes(GetActiveSnapshot(), GetUserId(), NULL, i == 1,
												   &visible->count[i]);
		MemoryContextSwitchTo(old);
		flinfo->fn_extra = visible;
	}
	for (int i = 0; i < 2; i++)
	{
		for (int j = 0; j < visible->count[i]; j++)
		{
			if (visible->ids[i][j] == scene_id)
				return true;
		}
	}
	return false;
}

/* retry.held_tasks(scene_id, url) */
Datum
retry_held_tasks(PG_FUNCTION_ARGS)
{
	char		canonical[RETRY_URL_CANONICAL_SIZE];
	int32		scene_id = PG_GETARG_INT32(0);

	if (!may_see(fcinfo->flinfo, scene_id) ||
		!retry_url_canonical(text_to_cstring(PG_GETARG_TEXT_PP(1)), canonical))
		PG_RETURN_INT64(0);
	PG_RETURN_INT64(retry_held_count_get(MyDatabaseId, retry_url_key(scene_id, canonical).hash));
}
