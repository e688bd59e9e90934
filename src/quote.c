/*
 * quote.c
 *		Parts of a user's text in error messages.
 *
 * Every input function repeats the part that it refuses.  It is cut where a
 * character ends, and marked as cut, in one place: a message that is cut in
 * the middle of a character is refused by the client in its turn.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "quote.h"

#define MAX_QUOTED		200

char *
retry_quoted(const char *text, int len)
{
	int			clip = pg_mbcliplen(text, len, MAX_QUOTED);

	return clip < len ? psprintf("%.*s...", clip, text) : pnstrdup(text, len);
}

char *
retry_quoted_string(const char *text)
{
	return retry_quoted(text, strlen(text));
}
