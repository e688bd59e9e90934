/*
 * arguments.c
 *		Arguments of SQL functions that are not STRICT and must be given; see
 *		arguments.h.
 *
 * One sentence for all of them, so that whoever has met one error knows what
 * the others mean, and tests of clients need to know one SQLSTATE.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "arguments.h"

void
retry_require_argument(FunctionCallInfo fcinfo, int number, const char *name)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

void
retry_check_elements(ArrayType *array, const RetryArrayRules *rules,
					 void (*check) (const char *element, int number, void *arg), void *arg)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s has more than one dimension", rules->name)));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is empty: {}", rules->name),
				 errhint("%s", rules->if_empty)));
	if (count > rules->max)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s has %d elements, and at most %d are possible",
						rules->name, count, rules->max)));
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("element %d of %s is null", i + 1, rules->name),
					 errhint("%s", rules->if_null)));
		check(TextDatumGetCString(elements[i]), i + 1, arg);
	}
}
