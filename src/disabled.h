/*
 * disabled.h
 *		URLs that nothing is sent to, because their endpoint said it is gone.
 *
 * A status 410 is the endpoint's last word: its URL is disabled in the scene of
 * the task that heard it, until an administrator enables it.  The table
 * retry.disabled_url says which ones are; a dispatcher has a copy as a set of
 * hashes, of some 60 bytes for each.
 *
 * URLs are the same when their canonical forms are (url.h).
 */
#ifndef RETRY_DISABLED_H
#define RETRY_DISABLED_H

#include "lib/ilist.h"
#include "utils/snapshot.h"

#include "record.h"
#include "store.h"

struct RetryDispatcher;
struct RetryTurn;
struct RetryScene;

/* Columns of retry.disabled_url. */
enum
{
	Disabled_scene_id, Disabled_url, Disabled_since, Disabled_task_id,
	Disabled_disabled_by, Disabled_http_status, Disabled_reason,
	Disabled_natts
};

/* Stands for a scene and a canonical URL; without padding. */
typedef struct RetryUrlKey
{
	uint64		hash;
	uint64		second_hash;
	int64		scene_id;
} RetryUrlKey;

/* A URL that is to be written into the table. */
typedef struct RetryGone
{
	dlist_node	node;
	RetryUrlKey key;
	TimestampTz since;
	pg_uuid_t	task_id;
	Oid			enqueued_by;
	int			http_status;
	bool		loose;			/* its attempt is recorded, and it is not */
	char		url[FLEXIBLE_ARRAY_MEMBER]; /* canonical */
} RetryGone;

typedef struct RetryDisabled RetryDisabled;

/* Nothing is known yet.  In the current memory context. */
extern RetryDisabled *retry_disabled_create(void);

/* The key of a canonical URL in a scene. */
extern RetryUrlKey retry_url_key(int32 scene_id, const char *canonical);

/*
 * Reads the table again with this snapshot (registered or active), in the
 * current transaction.  False, with what was known kept, when it is locked.
 * Of more than a million URLs the others are not known.
 */
extern bool retry_disabled_read(RetryDisabled *disabled, Snapshot snapshot);

/*
 * Reads it in a turn when somebody may have changed it: an administrator
 * ("config", the generation of the configuration before the turn's snapshot was
 * taken) or a dispatcher, which is this one mostly and so no hurry ("gone", the
 * generation of those).  True when it was read.
 */
extern bool retry_disabled_refresh(struct RetryTurn *turn, uint64 config, uint64 gone);

/* When to call that again; PG_INT64_MAX: when there is a change. */
extern int64 retry_disabled_next(const RetryDisabled *disabled);

/* It was read at least once; before, nothing may be sent. */
extern bool retry_disabled_known(const RetryDisabled *disabled);

/* Changes whenever a URL comes or goes. */
extern uint64 retry_disabled_version(const RetryDisabled *disabled);

/* The version at which one of the scene's URLs last went; 0: never. */
extern uint64 retry_disabled_enabled_at(const RetryDisabled *disabled, int32 scene_id);

/*
 * Stands for the set of the scene's URLs, 0 for none: the same number, the same
 * set, but for an accident.
 */
extern int64 retry_disabled_digest(const RetryDisabled *disabled, int32 scene_id);

/* Is the URL disabled in the scene?  Costs next to nothing where none is. */
extern bool retry_disabled_has(const RetryDisabled *disabled, int32 scene_id, const char *url,
							   RetryUrlKey *key);
extern bool retry_disabled_has_key(const RetryDisabled *disabled, const RetryUrlKey *key);

/*
 * An attempt has ended, which called this URL for a task of that role.  If the
 * endpoint says that it is gone, nothing more is sent there from now on, and
 * ended->gone is what is to be recorded with the attempt, NULL when that is
 * known already.
 */
extern void retry_disabled_note(struct RetryDispatcher *d, RetryEnded *ended,
								const struct RetryScene *scene, const char *url, Oid enqueued_by);

/*
 * Puts the row in, for record_batch.c; makes the appender, in a context that lives as
 * long, if there is none yet.  False when the table is locked: nobody waits.
 */
extern bool retry_gone_append(RetryAppender **appender, MemoryContext context, const RetryGone *gone);

/* The attempt is recorded, and with it what was gone, or (table locked) not. */
extern void retry_disabled_recorded(struct RetryDispatcher *d, RetryEnded *ended);

/*
 * Writes what could not be recorded with its attempt, in a transaction of its
 * own; to be called outside one.  Raises no error; false when there is
 * something left to be written.
 */
extern bool retry_disabled_write(struct RetryDispatcher *d);

#endif							/* RETRY_DISABLED_H */
