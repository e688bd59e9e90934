/*
 * json_member.c
 *		Members of a jsonb object that is being built.
 *
 * pushJsonbValue() wants key and value one by one, each in a struct of its own;
 * who writes an object names a member.
 */
#include "postgres.h"

#include "json_member.h"

void
retry_push_member(JsonbParseState **state, const char *name, JsonbValue *value)
{
	JsonbValue	key = {.type = jbvString};

	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &key);
	pushJsonbValue(state, WJB_VALUE, value);
}

void
retry_push_string(JsonbParseState **state, const char *name, const char *string)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, string);
	value.val.string.len = strlen(string);
	retry_push_member(state, name, &value);
}
