/*
 * enqueue_options.h
 *		What a caller asked for, checked, as a plain struct.
 *
 * All arguments of retry.enqueue() are judged in one place and before
 * anything is written, so that a bad one stores nothing and every function
 * that makes tasks from arguments refuses the same things in the same words.
 */
#ifndef RETRY_ENQUEUE_OPTIONS_H
#define RETRY_ENQUEUE_OPTIONS_H

#include "fmgr.h"
#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"
#include "fanout.h"
#include "key.h"
#include "scene.h"

/* Longest key, reference, lane name and content type, in bytes. */
#define RETRY_SHORT_TEXT_MAX	255

/* Names and values of a task's or scene's headers together, in bytes. */
#define RETRY_HEADERS_MAX_BYTES	32768

/* Whose arguments are read. */
typedef enum RetrySignature
{
	RETRY_SIGNATURE_ENQUEUE,
	RETRY_SIGNATURE_MANY,		/* retry.enqueue_many(): no body */
	RETRY_SIGNATURE_CALL		/* retry.call(): no delay, no due_at */
} RetrySignature;

/*
 * Pointers are to the function's arguments or to the memory context that was
 * current; NULL or 0 means not given, where nothing else is said.
 */
typedef struct RetryEnqueueOptions
{
	RetrySceneRow scene;
	RetryLaneTask lane_of;		/* what its lane is chosen by, but for the key */
	bool		has_due;
	TimestampTz due_at;			/* of delay or due_at */
	bool		has_expiry;
	TimestampTz expires_at;
	text	   *url;			/* the task's own, from target or url */
	bool		sql;			/* what is called is a function, not a URL */
	text	   *method;
	Jsonb	   *headers;
	text	   *content_type;
	text	   *reference;
	text	   *on_success;		/* texts of targets, checked */
	text	   *on_dead;
	int32		max_attempts;
	int32		timeout_ms;
	Datum		backoff;
	bool		has_backoff;
	RetryKeyConflict on_conflict;
	RetryFanout *fanout;		/* a task for each target of the scene */

	/* not of retry.enqueue_many(), which has them once for each task */
	Jsonb	   *payload;
	bytea	   *body;
	text	   *key;
} RetryEnqueueOptions;

/*
 * Checks the arguments of retry.enqueue(), retry.call() or
 * retry.enqueue_many() (of the last but those that are there once for each
 * task), finds the scene with this snapshot, and checks that the role may use its group.  "now" is the moment that
 * the task is enqueued.  ERROR, with an SQLSTATE for each mistake, otherwise.
 */
extern void retry_enqueue_options(FunctionCallInfo fcinfo, RetrySignature signature, Snapshot snapshot,
								  Oid role, TimestampTz now, RetryEnqueueOptions *options);

/*
 * ERROR (invalid_parameter_value) unless the text has 1 to 255 bytes and no
 * control characters.  "what" names it in the message.
 */
extern void retry_check_short_text(const char *what, const text *value);

/* ERROR (invalid_parameter_value) unless the value may stand in a task. */
extern void retry_check_expiry(TimestampTz expires_at, TimestampTz now);
extern void retry_check_max_attempts(int32 max_attempts);
extern void retry_check_task_url(const char *url);

/* Only headers of a scene may name secrets. */
extern void retry_check_header_object(Jsonb *headers, bool of_scene);

/* The same; the timeout in milliseconds, and the method in capitals, in which it is stored. */
extern int32 retry_check_timeout(const Interval *timeout);
extern text *retry_check_method(text *given);

/*
 * The index of an argument among the words that it may be; ERROR
 * (invalid_parameter_value), naming it and them, when it is none.
 */
extern int	retry_check_word(const char *what, const text *given, const char *const *words, int n);

/* ERROR (program_limit_exceeded) when a body is larger than retry.max_request_bytes. */
extern void retry_check_body_size(Size bytes);

#endif							/* RETRY_ENQUEUE_OPTIONS_H */
