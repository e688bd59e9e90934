/*
 * sqltarget.c
 *		Reads targets that are functions, and finds out who may call them.
 *
 * The text follows SQL's rules: an identifier is folded to lower case unless it
 * is in double quotes.  What is stored is one canonical spelling, so that a
 * function has one lane however its callers spell it.  Nothing here calls the
 * function; executor.c does.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "quote.h"
#include "sqltarget.h"

PG_FUNCTION_INFO_V1(retry_check_function);

bool
retry_sql_target_parse(const char *text, RetrySqlTarget *target, RetryMistake *mistake)
{
	char	   *copy;
	List	   *names = NIL;
	bool		good;

	memset(target, 0, sizeof(*target));
	if (!retry_is_sql_target(text))
		return retry_refuse(mistake, ERRCODE_INVALID_PARAMETER_VALUE, NULL,
							"\"%s\" is no function target", retry_quoted_string(text));
	copy = pstrdup(text + strlen(RETRY_SQL_PREFIX));
	good = SplitIdentifierString(copy, '.', &names) && list_length(names) == 2;
	if (good)
	{
		strlcpy(target->schema, linitial(names), NAMEDATALEN);
		strlcpy(target->function, lsecond(names), NAMEDATALEN);
		snprintf(target->text, sizeof(target->text), "%s%s", RETRY_SQL_PREFIX,
				 quote_qualified_identifier(target->schema, target->function));
	}
	list_free(names);
	pfree(copy);
	if (!good)
		return retry_refuse(mistake, ERRCODE_INVALID_PARAMETER_VALUE,
							"A function is given as sql:schema.function, without arguments; names with capitals or other characters go into double quotes.",
							"\"%s\" names no function", retry_quoted_string(text));
	return true;
}

/* The schema's OID, if the role may look into it. */
static bool
find_schema(const RetrySqlTarget *target, Oid role, Oid *schema, RetryMistake *mistake)
{
	*schema = get_namespace_oid(target->schema, true);
	if (!OidIsValid(*schema))
		return retry_refuse(mistake, ERRCODE_UNDEFINED_SCHEMA,
							"A target sql:schema.function needs the function's schema.",
							"schema \"%s\" does not exist", target->schema);
	if (OidIsValid(role) && !retry_may_use_schema(*schema, role))
		return retry_refuse(mistake, ERRCODE_INSUFFICIENT_PRIVILEGE,
							"GRANT USAGE ON SCHEMA lets the role that enqueues call its functions.",
							"permission denied for schema %s", target->schema);
	return true;
}

/* Whether a result of this type can be told as JSON at all. */
static bool
returns_something_usable(Oid type)
{
	return type == VOIDOID || type == RECORDOID || get_typtype(type) != TYPTYPE_PSEUDO;
}

bool
retry_sql_target_find(const RetrySqlTarget *target, Oid role, RetrySqlReturns *returns,
					  RetryMistake *mistake)
{
	Oid			argument = JSONBOID;
	oidvector  *arguments = buildoidvector(&argument, 1);
	Oid			schema;
	Oid			function;
	Oid			type;
	char		kind;
	HeapTuple	tuple;

	if (!find_schema(target, role, &schema, mistake))
		return false;
	tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(target->function),
							PointerGetDatum(arguments), ObjectIdGetDatum(schema));
	if (!HeapTupleIsValid(tuple))
		return retry_refuse(mistake, ERRCODE_UNDEFINED_FUNCTION,
							"A target is a function with exactly one argument, of type jsonb: it is called with the payload.",
							"function %s(jsonb) does not exist", target->text + strlen(RETRY_SQL_PREFIX));
	function = ((Form_pg_proc) GETSTRUCT(tuple))->oid;
	kind = ((Form_pg_proc) GETSTRUCT(tuple))->prokind;
	type = ((Form_pg_proc) GETSTRUCT(tuple))->prorettype;
	*returns = ((Form_pg_proc) GETSTRUCT(tuple))->proretset ? RETRY_SQL_SET :
		type == VOIDOID ? RETRY_SQL_VOID : RETRY_SQL_VALUE;
	ReleaseSysCache(tuple);

	if (kind != PROKIND_FUNCTION || !returns_something_usable(type))
		return retry_refuse(mistake, ERRCODE_WRONG_OBJECT_TYPE,
							"A target is a plain function: no procedure, aggregate, window or trigger function.",
							"%s(jsonb) cannot be a target", target->text + strlen(RETRY_SQL_PREFIX));
	if (OidIsValid(role) && !retry_may_execute(function, role))
		return retry_refuse(mistake, ERRCODE_INSUFFICIENT_PRIVILEGE,
							"GRANT EXECUTE ON FUNCTION lets the role that enqueues call it.",
							"permission denied for function %s", target->text + strlen(RETRY_SQL_PREFIX));
	return true;
}

void
retry_sql_target_check(const char *what, const char *text, Oid role, RetrySqlTarget *target)
{
	RetryMistake mistake;
	RetrySqlReturns returns;

	if (!retry_sql_target_parse(text, target, &mistake) ||
		!retry_sql_target_find(target, role, &returns, &mistake))
		ereport(ERROR,
				(errcode(mistake.sqlstate),
				 errmsg("invalid %s: %s", what, mistake.message),
				 mistake.hint != NULL ? errhint("%s", mistake.hint) : 0));
}

void
retry_sql_target_check_author(Relation rel, const char *column)
{
	if (!has_privs_of_role(GetUserId(), rel->rd_rel->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not let scenes call functions, by column \"%s\"",
						GetUserNameFromId(GetUserId(), true), column),
				 errdetail("A function is run as the role that enqueues."),
				 errhint("The owner of the extension may; or the task itself names the function, as its target or url.")));
}

/*
 * Trigger on retry.scene: its url, when it names a function, names one that
 * there is.  Who may call it is for those who enqueue.  A restore, which says by
 * check_function_bodies = off that not everything is in its place, brings back
 * what was, as it does with functions that refer to what is gone.
 */
Datum
retry_check_function(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	RetrySqlTarget target;
	HeapTuple	row;
	char	   *url;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("retry.check_function() is a trigger for rows of retry.scene")));
	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	url = SPI_getvalue(row, trigger->tg_relation->rd_att,
					   SPI_fnumber(trigger->tg_relation->rd_att, "url"));
	if (url != NULL && retry_is_sql_target(url))
	{
		retry_sql_target_check_author(trigger->tg_relation, "url");
		if (check_function_bodies)
			retry_sql_target_check("url", url, InvalidOid, &target);
	}
	return PointerGetDatum(row);
}
