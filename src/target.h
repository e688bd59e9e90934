/*
 * target.h
 *		What a target means: where the text of one is read and checked.
 *
 * Targets are named in many places: the argument of enqueue, callbacks of
 * tasks and of scenes, schedules.  All of them read the text here, so that it
 * means the same everywhere and is refused in the same words; and so does a
 * dispatcher, long after it was written, which may not raise an error for it.
 */
#ifndef RETRY_TARGET_H
#define RETRY_TARGET_H

#include "utils/snapshot.h"
#include "mistake.h"
#include "scene.h"
#include "url.h"

typedef enum RetryTargetKind
{
	RETRY_TARGET_URL,			/* called as a task of default/default; a
								 * function (sql:schema.function) is a URL of
								 * this database's own */
	RETRY_TARGET_SCENE
} RetryTargetKind;

typedef struct RetryTarget
{
	RetryTargetKind kind;
	const char *text;			/* the caller's, as it was given */
	char		group[RETRY_NAME_MAX + 1];
	char		scene[RETRY_NAME_MAX + 1];
	RetryUrl	url;			/* of RETRY_TARGET_URL: read and checked; it
								 * is the whole text */
	bool		sql;			/* that is a function; of "url" only origin,
								 * its canonical text, is filled */
} RetryTarget;

/*
 * Reads a text as a target, by its syntax alone.  False when it is none;
 * "mistake" then says why, beginning with "what", the name of the argument or
 * column.  Looks nothing up, raises nothing; "text" must outlive the result.
 */
extern bool retry_target_parse(const char *what, const char *text, RetryTarget *target,
							   RetryMistake *mistake);

/* Is the text the name of a scene, or else neither a URL nor a function? */
extern bool retry_target_names_scene(const char *text);

/*
 * The same for what may stand in place of a URL: a URL or a function.  On
 * success fills "url" as above and "sql".
 */
extern bool retry_target_parse_url(const char *what, const char *text, RetryUrl *url, bool *sql,
								   RetryMistake *mistake);

/* The same, as an ERROR (invalid_parameter_value) when it is none. */
extern void retry_target_read(const char *what, const char *text, RetryTarget *target);

/*
 * Finds the scene of a target with this snapshot, for a task that "role" is to
 * enqueue.  ERROR, naming "what", when there is no such scene, the role may not
 * use its group, or it is archived.
 */
extern void retry_target_find(const char *what, const RetryTarget *target, Snapshot snapshot,
							  Oid role, RetrySceneRow *scene);

/*
 * Checks a text that says who is told of the outcomes of a scene's tasks: a
 * target that "role" may use, which can be called, and is not that scene.  A
 * function must be one that "caller" may call, and a URL one to which requests
 * may go (InvalidOid: whoever it will be; both are judged then).
 * ERROR, naming "what", otherwise.
 */
extern void retry_target_check_callback(const char *what, const char *text, Snapshot snapshot,
										Oid role, Oid caller, const char *own_group,
										const char *own_scene);

#endif							/* RETRY_TARGET_H */
