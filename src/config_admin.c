/*
 * config_admin.c
 *		retry.drop_scene() and the like: deleting what a group's owner may
 *		otherwise change with plain SQL.
 *
 * Members of a group's owner insert and update rows of the configuration by
 * privileges on columns.  There is none such for DELETE; and who may delete from a
 * table may also LOCK it, and so hold up all who enqueue.  So the right is
 * checked here, and the row deleted as the owner of the table would.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "compat.h"
#include "access.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(retry_drop_scene);
PG_FUNCTION_INFO_V1(retry_drop_channel);
PG_FUNCTION_INFO_V1(retry_drop_alarm_rule);
PG_FUNCTION_INFO_V1(retry_drop_lane_override);

/* Deletes one row, which two texts name; false when there is none, or a trigger kept it. */
static bool
delete_row(const char *function, const char *sql, const char *group, const char *name)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[] = {CStringGetTextDatum(group), CStringGetTextDatum(name)};

	retry_require_writable(function);
	return retry_statement_as_owner(sql, lengthof(types), types, values, SPI_OK_DELETE) > 0;
}

/* retry.drop_scene(scene): false when it is archived instead. */
Datum
retry_drop_scene(PG_FUNCTION_ARGS)
{
	RetrySceneRow scene;

	retry_own_scene(text_to_cstring(PG_GETARG_TEXT_PP(0)), "drop scenes of", &scene);
	PG_RETURN_BOOL(delete_row("retry.drop_scene()",
							  "DELETE FROM retry.scene s WHERE s.group_name OPERATOR(pg_catalog.=) $1"
							  " AND s.name OPERATOR(pg_catalog.=) $2", scene.group.name, scene.name));
}

/* The same of a group's row, which the function's arguments name. */
static Datum
drop_named(FunctionCallInfo fcinfo, const char *function, const char *action, const char *sql)
{
	RetryGroupRow group;

	retry_own_group(text_to_cstring(PG_GETARG_TEXT_PP(0)), action, &group);
	PG_RETURN_BOOL(delete_row(function, sql, group.name, text_to_cstring(PG_GETARG_TEXT_PP(1))));
}

/* retry.drop_channel(group_name, name): false when there is none. */
Datum
retry_drop_channel(PG_FUNCTION_ARGS)
{
	return drop_named(fcinfo, "retry.drop_channel()", "drop channels of",
					  "DELETE FROM retry.channel c WHERE c.group_name OPERATOR(pg_catalog.=) $1"
					  " AND c.name OPERATOR(pg_catalog.=) $2");
}

/* retry.drop_alarm_rule(group_name, name): false when there is none. */
Datum
retry_drop_alarm_rule(PG_FUNCTION_ARGS)
{
	return drop_named(fcinfo, "retry.drop_alarm_rule()", "drop alarm rules of",
					  "DELETE FROM retry.alarm_rule a WHERE a.group_name OPERATOR(pg_catalog.=) $1"
					  " AND a.name OPERATOR(pg_catalog.=) $2");
}

/* retry.drop_lane_override(group_name, lane): false when there is none. */
Datum
retry_drop_lane_override(PG_FUNCTION_ARGS)
{
	return drop_named(fcinfo, "retry.drop_lane_override()", "drop overrides of lanes of",
					  "DELETE FROM retry.lane_override o WHERE o.group_name OPERATOR(pg_catalog.=) $1"
					  " AND o.lane OPERATOR(pg_catalog.=) $2");
}
