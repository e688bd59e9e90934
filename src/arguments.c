/*
 * arguments.c
 *		Arguments of SQL functions that are not STRICT and must be given; see
 *		arguments.h.
 *
 * One sentence for all of them, so that whoever has met one error knows what
 * the others mean, and tests of clients need to know one SQLSTATE.
 */
#include "postgres.h"

#include "arguments.h"

void
retry_require_argument(FunctionCallInfo fcinfo, int number, const char *name)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}
