/*
 * mistake.c
 *		Says why a text that names a target is refused.
 *
 * Texts of targets are read in two places, since functions follow SQL's rules
 * and the others those of retry.  What is wrong with one is told in the same
 * form by both, so that it can be raised as an error by a session and be noted
 * by a dispatcher, which may not raise one.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "mistake.h"

bool
retry_refuse(RetryMistake *mistake, int sqlstate, const char *hint, const char *format,...)
{
	va_list		args;

	mistake->sqlstate = sqlstate;
	mistake->hint = hint;
	va_start(args, format);
	vsnprintf(mistake->message, sizeof(mistake->message), format, args);
	va_end(args);

	/* it may have been cut in the middle of a character */
	mistake->message[pg_mbcliplen(mistake->message, strlen(mistake->message), strlen(mistake->message))] = '\0';
	return false;
}
