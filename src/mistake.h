/*
 * mistake.h
 *		Why a text that names a target is refused.
 *
 * Whoever judges such a text raises no error, since a dispatcher must go on
 * whatever it says; a session makes the error it raises of this.
 */
#ifndef RETRY_MISTAKE_H
#define RETRY_MISTAKE_H

typedef struct RetryMistake
{
	int			sqlstate;
	char		message[400];
	const char *hint;			/* a constant; NULL: none */
} RetryMistake;

/*
 * Fills in a mistake; a message that is too long is cut off.  Always false, to
 * be returned at once.  Raises nothing.
 */
extern bool retry_refuse(RetryMistake *mistake, int sqlstate, const char *hint,
						 const char *format,...) pg_attribute_printf(4, 5);

#endif							/* RETRY_MISTAKE_H */
