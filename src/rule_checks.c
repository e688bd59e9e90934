/*
 * rule_checks.c
 *		Constraints on what a scene says about answers.
 *
 * A list that nobody can read, or a condition that can never be evaluated,
 * must not be found out when the first answer comes: the constraints of
 * retry.scene call these, and the one who writes the rule learns at once which
 * part of it is wrong, and why.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "compat.h"
#include "status_list.h"

PG_FUNCTION_INFO_V1(retry_check_status_list);
PG_FUNCTION_INFO_V1(retry_check_error_classes);
PG_FUNCTION_INFO_V1(retry_check_condition);

/* "column success_status: ", or nothing. */
static const char *
column_prefix(FunctionCallInfo fcinfo)
{
	return PG_ARGISNULL(1) ? "" : psprintf("column %s: ", text_to_cstring(PG_GETARG_TEXT_PP(1)));
}

static void
refuse_list(FunctionCallInfo fcinfo, const char *list, const RetryParseError *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s\"%.*s\" at position %d %s", column_prefix(fcinfo),
					pg_mbcliplen(list + error->part_at, error->part_len, 60), list + error->part_at,
					pg_mbstrlen_with_len(list, error->part_at) + 1, error->reason),
			 error->part_len < (int) strlen(list) ? errdetail("The whole list is \"%.*s\".",
															  pg_mbcliplen(list, strlen(list), 200), list) : 0,
			 errhint("%s", error->hint)));
}

/* retry.check_status_list(list, column) */
Datum
retry_check_status_list(PG_FUNCTION_ARGS)
{
	RetryStatusSet set;
	RetryParseError error;
	char	   *list;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(true);
	list = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!retry_status_list_parse(list, &set, &error))
		refuse_list(fcinfo, list, &error);
	PG_RETURN_BOOL(true);
}

/* retry.check_error_classes(list, column) */
Datum
retry_check_error_classes(PG_FUNCTION_ARGS)
{
	RetryErrorSet set;
	RetryParseError error;
	char	   *list;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(true);
	list = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!retry_error_list_parse(list, &set, &error))
		refuse_list(fcinfo, list, &error);
	PG_RETURN_BOOL(true);
}

/*
 * The first variable ($name) of a path's canonical text, where names of keys
 * and strings are always in double quotes; NULL: none.
 */
static const char *
find_variable(const char *path, int *len)
{
	for (const char *at = path; *at != '\0'; at++)
	{
		const char *start = at;
		bool		variable = *at == '$' && at[1] == '"';

		if (variable)
			at++;
		if (*at != '"')
			continue;
		for (at++; *at != '"' && *at != '\0'; at++)
		{
			if (*at == '\\' && at[1] != '\0')
				at++;
		}
		if (variable)
		{
			*len = at + 1 - start;
			return start;
		}
		if (*at == '\0')
			break;
	}
	return NULL;
}

/* retry.check_condition(path, column) */
Datum
retry_check_condition(PG_FUNCTION_ARGS)
{
	char	   *path;
	const char *variable;
	int			len;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(true);
	path = DatumGetCString(DirectFunctionCall1(jsonpath_out, PG_GETARG_DATUM(0)));
	variable = find_variable(path, &len);
	if (variable != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%sthe condition %s uses the variable %.*s", column_prefix(fcinfo), path, len, variable),
				 errhint("There are no variables in a condition on an answer. Write the value itself.")));
	PG_RETURN_BOOL(true);
}
