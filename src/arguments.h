/*
 * arguments.h
 *		Arguments of SQL functions that are not STRICT and must be given, and
 *		arrays whose elements are judged one by one.
 *
 * A function that answers null for a null would let a mistake pass in silence:
 * a message that is lost, a URL that stays enabled.  So these say which of
 * their arguments it was.
 */
#ifndef RETRY_ARGUMENTS_H
#define RETRY_ARGUMENTS_H

#include "fmgr.h"
#include "utils/array.h"

/* ERROR (null_value_not_allowed), with its name, if the argument is null. */
extern void retry_require_argument(FunctionCallInfo fcinfo, int number, const char *name);

/* What is wrong with an array as a whole; name: as people know the column. */
typedef struct RetryArrayRules
{
	const char *name;
	int			max;			/* elements */
	const char *if_empty;		/* hints */
	const char *if_null;
} RetryArrayRules;

/*
 * Hands each element of an array of texts to "check", palloc'd, numbered from
 * 1.  ERROR, naming the array, when it is not a list, is empty or too long
 * (array_subscript_error, invalid_parameter_value, program_limit_exceeded), or
 * has nulls (null_value_not_allowed); and whatever "check" raises.
 */
extern void retry_check_elements(ArrayType *array, const RetryArrayRules *rules,
								 void (*check) (const char *element, int number, void *arg),
								 void *arg);

#endif							/* RETRY_ARGUMENTS_H */
