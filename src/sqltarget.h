/*
 * sqltarget.h
 *		Targets that are functions of the database: sql:schema.function.
 *
 * What such a text means, and whether a role may call what it names.  The
 * first is syntax and is the same for ever; the second is looked up when a task
 * is enqueued, so that a mistake is found by whoever makes it, and again when
 * the task runs, because what was true then need not be any more.
 */
#ifndef RETRY_SQLTARGET_H
#define RETRY_SQLTARGET_H

#include "utils/relcache.h"
#include "mistake.h"

#define RETRY_SQL_PREFIX	"sql:"

/* The longest canonical text: two identifiers of nothing but double quotes. */
#define RETRY_SQL_TEXT_MAX	(8 + 2 * 2 * NAMEDATALEN)

typedef struct RetrySqlTarget
{
	char		schema[NAMEDATALEN];
	char		function[NAMEDATALEN];
	char		text[RETRY_SQL_TEXT_MAX];	/* canonical: equal texts, equal
											 * functions */
} RetrySqlTarget;

/* How a function is to be called, which depends on what it returns. */
typedef enum RetrySqlReturns
{
	RETRY_SQL_VALUE, RETRY_SQL_VOID, RETRY_SQL_SET
} RetrySqlReturns;

/* Does the text, if there is one, begin as these targets do? */
static inline bool
retry_is_sql_target(const char *text)
{
	return text != NULL && strncmp(text, RETRY_SQL_PREFIX, sizeof(RETRY_SQL_PREFIX) - 1) == 0;
}

/*
 * Reads sql:schema.function by SQL's rules for identifiers, looking nothing
 * up.  False with the reason when it is none.  Raises nothing but out of memory.
 */
extern bool retry_sql_target_parse(const char *text, RetrySqlTarget *target,
								   RetryMistake *mistake);

/*
 * Looks the function up: it must be a plain function of one argument of type
 * jsonb, and the role must be allowed to call it (InvalidOid: whoever it is).
 * False with the reason otherwise.  Needs a transaction.
 */
extern bool retry_sql_target_find(const RetrySqlTarget *target, Oid role,
								  RetrySqlReturns *returns, RetryMistake *mistake);

/*
 * ERROR (insufficient_privilege) unless the current role owns the table, for a
 * column of retry.scene that is to name a function: it would be run as whoever
 * enqueues, so who could write it into a scene could act as all of them.
 */
extern void retry_sql_target_check_author(Relation rel, const char *column);

/* Both, with an ERROR for a mistake; "what" names the argument or column in it. */
extern void retry_sql_target_check(const char *what, const char *text, Oid role,
								   RetrySqlTarget *target);

#endif							/* RETRY_SQLTARGET_H */
