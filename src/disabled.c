/*
 * disabled.c
 *		URLs that nothing is sent to, because their endpoint said it is gone.
 *
 * The dispatcher that hears a 410 keeps to it from that moment on, before it is
 * recorded; the row goes in with the attempt's.  Nothing makes rows unique: a
 * unique index would have a dispatcher wait for a session that is just
 * disabling, or enabling, the same URL.  Two rows for one URL say no more than
 * one does, and enabling deletes both.
 *
 * The set is one of hashes, since all that is asked of it is whether a URL is
 * in it.  A reading marks what it finds and drops the rest, but for what has
 * not been written yet.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "disabled.h"
#include "event.h"
#include "table_read.h"
#include "turn.h"
#include "url.h"

#define URLS_MAX		1000000

/* Not yet written, while somebody has the table locked; the others are forgotten. */
#define UNWRITTEN_MAX	10000

/* What dispatchers have disabled is read again after this, at the earliest. */
#define REFRESH_US			USECS_PER_SEC
#define LOCKED_PAUSE_US		100000

typedef struct Url
{
	RetryUrlKey key;			/* hash key */
	uint64		seen;			/* number of the reading that found it */
	RetryGone  *gone;			/* it is still to be written; NULL: it is */
} Url;

typedef struct Scene
{
	int32		scene_id;		/* hash key */
	int32		count;			/* of its URLs */
	int64		digest;			/* of all of them */
	uint64		enabled_at;		/* version at which one last went */
} Scene;

struct RetryDisabled
{
	MemoryContext context;
	HTAB	   *urls;
	HTAB	   *scenes;			/* that have, or had, some */
	dlist_head	unwritten;
	int			nunwritten;
	uint64		readings;
	uint64		version;
	bool		too_many;

	/* of reading */
	uint64		config;			/* generations that were read */
	uint64		gone;
	int64		not_before_us;	/* while nobody is in a hurry */
	int64		locked_until_us;	/* while somebody is */
	int64		next_us;		/* something is to be read then */
};

RetryDisabled *
retry_disabled_create(void)
{
	RetryDisabled *disabled = palloc0(sizeof(RetryDisabled));
	HASHCTL		ctl = {0};

	disabled->context = CurrentMemoryContext;
	disabled->next_us = PG_INT64_MAX;
	dlist_init(&disabled->unwritten);
	ctl.hcxt = CurrentMemoryContext;
	ctl.keysize = sizeof(RetryUrlKey);
	ctl.entrysize = sizeof(Url);
	disabled->urls = hash_create("retry disabled URLs", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(Scene);
	disabled->scenes = hash_create("retry scenes with disabled URLs", 16, &ctl,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return disabled;
}

RetryUrlKey
retry_url_key(int32 scene_id, const char *canonical)
{
	int			len = strlen(canonical);
	RetryUrlKey key = {
		.hash = hash_bytes_extended((const unsigned char *) canonical, len, (uint64) scene_id),
		.second_hash = hash_bytes_extended((const unsigned char *) canonical, len, ~(uint64) scene_id),
		.scene_id = scene_id
	};

	return key;
}

/* The set */

static Scene *
find_scene(const RetryDisabled *disabled, int64 scene_id)
{
	int32		id = (int32) scene_id;

	return hash_search(disabled->scenes, &id, HASH_FIND, NULL);
}

/* NULL when there is no room. */
static Url *
add(RetryDisabled *disabled, const RetryUrlKey *key, bool *found)
{
	int32		id = (int32) key->scene_id;
	Scene	   *scene;
	Url		   *url = hash_search(disabled->urls, key, HASH_FIND, found);

	if (url != NULL || hash_get_num_entries(disabled->urls) >= URLS_MAX)
		return url;
	scene = hash_search(disabled->scenes, &id, HASH_ENTER, found);
	if (!*found)
	{
		scene->count = 0;
		scene->digest = 0;
		scene->enabled_at = 0;
	}
	url = hash_search(disabled->urls, key, HASH_ENTER, found);
	url->seen = 0;
	url->gone = NULL;
	scene->count++;
	scene->digest ^= (int64) key->hash;
	disabled->version++;
	return url;
}

static void
forget_gone(RetryDisabled *disabled, RetryGone *gone)
{
	dlist_delete(&gone->node);
	disabled->nunwritten--;
	pfree(gone);
}

static void
drop(RetryDisabled *disabled, const Url *url)
{
	RetryUrlKey key = url->key;
	Scene	   *scene = find_scene(disabled, key.scene_id);

	scene->count--;
	scene->digest ^= (int64) key.hash;
	scene->enabled_at = ++disabled->version;
	hash_search(disabled->urls, &key, HASH_REMOVE, NULL);
}

/* What was read has them all: the others have been enabled. */
static void
drop_unseen(RetryDisabled *disabled)
{
	HASH_SEQ_STATUS seq;
	Url		   *url;

	hash_seq_init(&seq, disabled->urls);
	while ((url = hash_seq_search(&seq)) != NULL)
	{
		if (url->seen != disabled->readings && url->gone == NULL)
			drop(disabled, url);
	}
}

static void
read_row(RetryDisabled *disabled, TupleTableSlot *slot)
{
	int32		scene_id = DatumGetInt32(slot->tts_values[Disabled_scene_id]);
	char	   *canonical = TextDatumGetCString(slot->tts_values[Disabled_url]);
	RetryUrlKey key = retry_url_key(scene_id, canonical);
	bool		found;
	Url		   *url = add(disabled, &key, &found);

	pfree(canonical);
	if (url == NULL)
	{
		if (!disabled->too_many)
			ereport(LOG,
					(errmsg("retry: more than %d URLs are disabled, those beyond are called all the same", URLS_MAX),
					 errhint("Enable those that nobody uses: retry.enable_url().")));
		disabled->too_many = true;
		return;
	}
	url->seen = disabled->readings;
}

bool
retry_disabled_read(RetryDisabled *disabled, Snapshot snapshot)
{
	RetryTableRead read = {0};

	if (!retry_table_read_begin(&read, "disabled_url", Disabled_natts, snapshot))
		return false;
	disabled->readings++;
	while (retry_table_read_next(&read))
		read_row(disabled, read.slot);
	drop_unseen(disabled);
	retry_table_read_end(&read);
	return true;
}

bool
retry_disabled_refresh(RetryTurn *turn, uint64 config, uint64 gone)
{
	RetryDisabled *disabled = turn->d->disabled;
	bool		hurry = !retry_disabled_known(disabled) || config != disabled->config;

	disabled->next_us = PG_INT64_MAX;
	if (!hurry && gone == disabled->gone)
		return false;
	disabled->next_us = hurry ? disabled->locked_until_us : disabled->not_before_us;
	if (turn->now_us < disabled->next_us)
		return false;
	if (!retry_disabled_read(disabled, turn->snapshot))
	{
		disabled->next_us = disabled->locked_until_us = disabled->not_before_us = turn->now_us + LOCKED_PAUSE_US;
		return false;
	}
	disabled->not_before_us = turn->now_us + REFRESH_US;
	disabled->next_us = PG_INT64_MAX;
	disabled->config = config;
	disabled->gone = gone;
	return true;
}

int64
retry_disabled_next(const RetryDisabled *disabled)
{
	return disabled->next_us;
}

bool
retry_disabled_known(const RetryDisabled *disabled)
{
	return disabled->readings > 0;
}

uint64
retry_disabled_version(const RetryDisabled *disabled)
{
	return disabled->version;
}

uint64
retry_disabled_enabled_at(const RetryDisabled *disabled, int32 scene_id)
{
	const Scene *scene = find_scene(disabled, scene_id);

	return scene != NULL ? scene->enabled_at : 0;
}

int64
retry_disabled_digest(const RetryDisabled *disabled, int32 scene_id)
{
	const Scene *scene = find_scene(disabled, scene_id);

	return scene != NULL ? scene->digest : 0;
}

bool
retry_disabled_has(const RetryDisabled *disabled, int32 scene_id, const char *url, RetryUrlKey *key)
{
	char		canonical[RETRY_URL_CANONICAL_SIZE];
	const Scene *scene;

	if (hash_get_num_entries(disabled->urls) == 0)
		return false;
	scene = find_scene(disabled, scene_id);
	if (scene == NULL || scene->count == 0 || !retry_url_canonical(url, canonical))
		return false;
	*key = retry_url_key(scene_id, canonical);
	return retry_disabled_has_key(disabled, key);
}

bool
retry_disabled_has_key(const RetryDisabled *disabled, const RetryUrlKey *key)
{
	return hash_search(disabled->urls, key, HASH_FIND, NULL) != NULL;
}

/* A 410 */

/*
 * For people.  In the group that all tenants share, a URL is nobody else's
 * business: there the event names no more than whose address it was.
 */
static void
tell(RetryDispatcher *d, const RetryEnded *ended, const RetryScene *scene, const char *canonical)
{
	bool		shared = strncmp(scene->name, "default/", 8) == 0;
	RetryUrl	url;
	char		error[256];
	char		detail[64];
	RetryEvent	event = {
		.kind = RETRY_EVENT_URL_DISABLED,
		.group_id = scene->group_id,
		.scene_id = scene->id,
		.lane_hash = ended->lane_hash,
		.target = canonical,
		.detail = detail,
		.at = ended->finished_at
	};

	snprintf(detail, sizeof(detail), "status %d", ended->http_status);
	if (shared && retry_url_check(canonical, &url, error, sizeof(error)))
		event.target = url.origin;
	retry_event_add(d, &event);
}

void
retry_disabled_note(RetryDispatcher *d, RetryEnded *ended, const RetryScene *scene,
					const char *url_text, Oid enqueued_by)
{
	RetryDisabled *disabled = d->disabled;
	char		canonical[RETRY_URL_CANONICAL_SIZE];
	RetryUrlKey key;
	RetryGone  *gone;
	Url		   *url;
	bool		found = true;

	if (ended->http_status != 410 || !ended->verdict.terminal ||
		ended->verdict.reason != RETRY_DEAD_GONE || scene == NULL ||
		!retry_url_canonical(url_text, canonical))
		return;
	key = retry_url_key(scene->id, canonical);
	if (retry_disabled_has_key(disabled, &key) || disabled->nunwritten >= UNWRITTEN_MAX)
		return;

	/* first what may fail, so that there is no half of an entry */
	gone = MemoryContextAllocZero(disabled->context, offsetof(RetryGone, url) + strlen(canonical) + 1);
	url = add(disabled, &key, &found);
	if (url == NULL)
	{
		pfree(gone);
		return;
	}
	url->gone = gone;
	gone->key = key;
	gone->since = ended->finished_at;
	gone->task_id = ended->entry.pos.id;
	gone->enqueued_by = enqueued_by;
	gone->http_status = ended->http_status;
	strcpy(gone->url, canonical);
	dlist_push_tail(&disabled->unwritten, &gone->node);
	disabled->nunwritten++;
	ended->gone = gone;
	tell(d, ended, scene, canonical);
}

static void
append(RetryAppender *appender, const RetryGone *gone)
{
	Datum		values[Disabled_natts];
	bool		isnull[Disabled_natts] = {0};

	values[Disabled_scene_id] = Int32GetDatum((int32) gone->key.scene_id);
	values[Disabled_url] = CStringGetTextDatum(gone->url);
	values[Disabled_since] = TimestampTzGetDatum(gone->since);
	values[Disabled_task_id] = UUIDPGetDatum(&gone->task_id);
	values[Disabled_disabled_by] = ObjectIdGetDatum(gone->enqueued_by);
	values[Disabled_http_status] = Int16GetDatum((int16) gone->http_status);
	isnull[Disabled_reason] = true;
	retry_append_row(appender, values, isnull);
}

bool
retry_gone_append(RetryAppender **appender, MemoryContext context, const RetryGone *gone)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	if (*appender == NULL)
		*appender = retry_append_begin(retry_relation_oid("disabled_url"), Disabled_natts, true);
	if (*appender != NULL)
		append(*appender, gone);
	MemoryContextSwitchTo(old);
	return *appender != NULL;
}

/* It is in the table, and the transaction has committed. */
static void
is_written(RetryDispatcher *d, RetryGone *gone)
{
	Url		   *url = hash_search(d->disabled->urls, &gone->key, HASH_FIND, NULL);

	url->gone = NULL;
	forget_gone(d->disabled, gone);
}

static void
tell_others(RetryDispatcher *d)
{
	pg_atomic_fetch_add_u64(&d->db->disabled_generation, 1);
	retry_shmem_wake_workers(MyDatabaseId);
}

void
retry_disabled_recorded(RetryDispatcher *d, RetryEnded *ended)
{
	if (ended->gone == NULL)
		return;
	ended->gone->loose = true;
	if (ended->gone_stored)
	{
		is_written(d, ended->gone);
		tell_others(d);
	}
	ended->gone = NULL;
}

/* Puts in all rows that are loose; false when the table is locked. */
static bool
append_loose(RetryDisabled *disabled)
{
	RetryAppender *appender = retry_append_begin(retry_relation_oid("disabled_url"), Disabled_natts, true);
	dlist_iter	it;

	if (appender == NULL)
		return false;
	dlist_foreach(it, &disabled->unwritten)
	{
		const RetryGone *gone = dlist_container(RetryGone, node, it.cur);

		if (gone->loose)
			append(appender, gone);
	}
	retry_append_end(appender);
	return true;
}

static bool
any_loose(const RetryDisabled *disabled)
{
	dlist_iter	it;

	dlist_foreach(it, &((RetryDisabled *) disabled)->unwritten)
	{
		if (dlist_container(RetryGone, node, it.cur)->loose)
			return true;
	}
	return false;
}

bool
retry_disabled_write(RetryDispatcher *d)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool written = false;
	dlist_mutable_iter it;

	if (!any_loose(d->disabled))
		return true;
	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		written = append_loose(d->disabled);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(caller);
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		RESUME_INTERRUPTS();
		written = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	pgstat_report_stat(false);
	if (!written)
		return false;
	dlist_foreach_modify(it, &d->disabled->unwritten)
	{
		RetryGone  *gone = dlist_container(RetryGone, node, it.cur);

		if (gone->loose)
			is_written(d, gone);
	}
	tell_others(d);
	return true;
}
