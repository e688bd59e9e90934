/*
 * arguments.h
 *		Arguments of SQL functions that are not STRICT and must be given.
 *
 * A function that answers null for a null would let a mistake pass in silence:
 * a message that is lost, a URL that stays enabled.  So these say which of
 * their arguments it was.
 */
#ifndef RETRY_ARGUMENTS_H
#define RETRY_ARGUMENTS_H

#include "fmgr.h"

/* ERROR (null_value_not_allowed), with its name, if the argument is null. */
extern void retry_require_argument(FunctionCallInfo fcinfo, int number, const char *name);

#endif							/* RETRY_ARGUMENTS_H */
