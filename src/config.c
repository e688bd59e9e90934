/*
 * config.c
 *		A dispatcher's copy of the scenes, and of what may be sent at all.
 *
 * Three small tables are read whole, straight from the heap, so that no plan,
 * no statistics and no lock that a session holds stands between a dispatcher
 * and its work.  A new copy replaces the old one only when it is complete;
 * until then, and for a scene whose new row makes no sense, the old one counts.
 */
#include "postgres.h"

#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "commands/dbcommands.h"
#include "common/int.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "config.h"
#include "store.h"
#include "wakeup.h"

/* Columns of retry.scene_group that are read here. */
enum
{
	Group_id, Group_name, Group_owner, Group_paused
};

/* Columns of retry.scene that are read here. */
enum
{
	Scene_id, Scene_group_name, Scene_name, Scene_url, Scene_method, Scene_headers,
	Scene_timeout, Scene_connect_timeout, Scene_backoff, Scene_max_attempts,
	Scene_expires_after, Scene_max_in_flight, Scene_paused
};

/* Columns of retry.installation. */
enum
{
	Installation_database, Installation_boundary, Installation_adopted,
	Installation_at, Installation_by, Installation_natts
};

/* A group, while the scenes are read. */
typedef struct Group
{
	char	   *name;
	int32		id;
	bool		paused;
} Group;

/* What one reading brought. */
typedef struct Copy
{
	MemoryContext context;		/* everything below is in it */
	RetryScene **scenes;		/* by id */
	int			nscenes;
	int			installations;
	List	   *adopted;		/* pg_snapshot: what adopt() let go here */
	List	   *copied;			/* the same: what came with a copied database */
} Copy;

struct RetryConfig
{
	MemoryContext parent;
	Copy	   *copy;			/* NULL before the first reading */
};

/* One table being read. */
typedef struct TableRead
{
	Relation	rel;
	TableScanDesc scan;
	TupleTableSlot *slot;
} TableRead;

RetryConfig *
retry_config_create(void)
{
	RetryConfig *config = palloc0(sizeof(RetryConfig));

	config->parent = CurrentMemoryContext;
	return config;
}

/* Opens a table if it can be locked at once. */
static bool
table_read_begin(TableRead *read, const char *name, Snapshot snapshot)
{
	Oid			oid = retry_relation_oid(name);

	if (!ConditionalLockRelationOid(oid, AccessShareLock))
		return false;
	read->rel = table_open(oid, NoLock);
	read->slot = table_slot_create(read->rel, NULL);
	read->scan = table_beginscan(read->rel, snapshot, 0, NULL);
	return true;
}

static bool
table_read_next(TableRead *read)
{
	if (!table_scan_getnextslot(read->scan, ForwardScanDirection, read->slot))
		return false;
	slot_getallattrs(read->slot);
	return true;
}

static void
table_read_end(TableRead *read)
{
	if (read->rel == NULL)
		return;
	table_endscan(read->scan);
	ExecDropSingleTupleTableSlot(read->slot);
	table_close(read->rel, AccessShareLock);
}

/* Groups */

static List *
read_groups(TableRead *read)
{
	List	   *groups = NIL;

	while (table_read_next(read))
	{
		Group	   *group = palloc(sizeof(Group));

		group->id = DatumGetInt32(read->slot->tts_values[Group_id]);
		group->name = TextDatumGetCString(read->slot->tts_values[Group_name]);
		group->paused = DatumGetBool(read->slot->tts_values[Group_paused]);
		groups = lappend(groups, group);
	}
	return groups;
}

static const Group *
find_group(List *groups, const char *name)
{
	ListCell   *cell;

	foreach(cell, groups)
	{
		Group	   *group = lfirst(cell);

		if (strcmp(group->name, name) == 0)
			return group;
	}
	return NULL;
}

/* Scenes */

/*
 * An interval in microseconds, months of 30 days as when intervals are
 * compared; PG_INT64_MAX when it is longer than that can say.
 */
static int64
interval_us(Datum value)
{
	const Interval *interval = DatumGetIntervalP(value);
	int64		days = (int64) interval->month * DAYS_PER_MONTH + interval->day;
	int64		us;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &us) ||
		pg_add_s64_overflow(us, interval->time, &us))
		return days < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return us;
}

static bool
read_timeout(Datum value, int32 *ms)
{
	int64		us = interval_us(value);

	*ms = (int32) Min(us / 1000, PG_INT32_MAX);
	return us >= 1000 && us <= USECS_PER_HOUR;
}

static char *
text_or_null(TupleTableSlot *slot, int column)
{
	return slot->tts_isnull[column] ? NULL : TextDatumGetCString(slot->tts_values[column]);
}

/*
 * Fills a scene from its row, in the current memory context.  False, with what
 * is wrong, for a row that no constraint would have let in.
 */
static bool
read_scene(TupleTableSlot *slot, const Group *group, RetryScene *scene, const char **wrong)
{
	Datum	   *values = slot->tts_values;
	bool	   *isnull = slot->tts_isnull;

	scene->id = DatumGetInt32(values[Scene_id]);
	scene->group_id = group->id;
	scene->name = psprintf("%s/%s", group->name, TextDatumGetCString(values[Scene_name]));
	scene->url = text_or_null(slot, Scene_url);
	scene->method = text_or_null(slot, Scene_method);
	if (!isnull[Scene_headers])
		scene->headers = (Jsonb *) PG_DETOAST_DATUM_COPY(values[Scene_headers]);
	*wrong = "timeout";
	if (!read_timeout(values[Scene_timeout], &scene->timeout_ms))
		return false;
	*wrong = "connect_timeout";
	if (!read_timeout(values[Scene_connect_timeout], &scene->connect_timeout_ms))
		return false;
	*wrong = "backoff";
	scene->backoff = (RetryBackoff *) PG_DETOAST_DATUM_COPY(values[Scene_backoff]);
	if (VARSIZE(scene->backoff) < offsetof(RetryBackoff, u) ||
		scene->backoff->version != RETRY_BACKOFF_VERSION)
		return false;
	*wrong = "max_attempts";
	scene->max_attempts = DatumGetInt32(values[Scene_max_attempts]);
	if (scene->max_attempts < 1)
		return false;
	*wrong = "expires_after";
	if (!isnull[Scene_expires_after])
	{
		scene->expires_after_us = interval_us(values[Scene_expires_after]);
		if (scene->expires_after_us <= 0)
			return false;

		/* longer than time itself is no limit */
		if (scene->expires_after_us == PG_INT64_MAX)
			scene->expires_after_us = 0;
	}
	*wrong = "max_in_flight";
	scene->max_in_flight = isnull[Scene_max_in_flight] ? 0 :
		DatumGetInt32(values[Scene_max_in_flight]);
	if (scene->max_in_flight < 0)
		return false;
	scene->paused = DatumGetBool(values[Scene_paused]) || group->paused;
	return true;
}

/* A copy of a scene of the previous reading, in the current memory context. */
static void
keep_scene(const RetryScene *old, RetryScene *scene)
{
	*scene = *old;
	scene->name = pstrdup(old->name);
	if (old->url != NULL)
		scene->url = pstrdup(old->url);
	scene->method = pstrdup(old->method);
	if (old->headers != NULL)
		scene->headers = (Jsonb *) PG_DETOAST_DATUM_COPY(PointerGetDatum(old->headers));
	scene->backoff = (RetryBackoff *) PG_DETOAST_DATUM_COPY(PointerGetDatum(old->backoff));
}

/* What stands for a scene that was never readable: paused, so its tasks wait. */
static void
hold_scene(int32 id, RetryScene *scene)
{
	RetryParseError never;

	memset(scene, 0, sizeof(RetryScene));
	scene->id = id;
	scene->name = pstrdup("");
	scene->method = pstrdup("POST");
	scene->timeout_ms = scene->connect_timeout_ms = 1000;
	scene->max_attempts = 1;
	scene->backoff = palloc0(sizeof(RetryBackoff));
	(void) retry_backoff_parse("fixed 1m", scene->backoff, &never);
	scene->paused = true;
}

static int
compare_scenes(const ListCell *a, const ListCell *b)
{
	int32		x = ((const RetryScene *) lfirst(a))->id;
	int32		y = ((const RetryScene *) lfirst(b))->id;

	return x < y ? -1 : x > y;
}

static void
read_scenes(RetryConfig *config, Copy *copy, TableRead *read, List *groups)
{
	List	   *scenes = NIL;
	ListCell   *cell;

	while (table_read_next(read))
	{
		RetryScene *scene = palloc0(sizeof(RetryScene));
		int32		id = DatumGetInt32(read->slot->tts_values[Scene_id]);
		RetryScene *old = retry_config_scene(config, id);
		const Group *group = find_group(groups,
										TextDatumGetCString(read->slot->tts_values[Scene_group_name]));
		const char *wrong = "group_name";

		if (group == NULL || !read_scene(read->slot, group, scene, &wrong))
		{
			ereport(LOG,
					(errmsg("retry: column %s of scene %d cannot be used, %s", wrong, id,
							old != NULL ? "its former version stays in force" : "its tasks are held"),
					 errhint("Correct the row in retry.scene.")));
			if (old != NULL)
				keep_scene(old, scene);
			else
				hold_scene(id, scene);
		}
		scenes = lappend(scenes, scene);
	}

	list_sort(scenes, compare_scenes);
	copy->scenes = palloc(Max(list_length(scenes), 1) * sizeof(RetryScene *));
	foreach(cell, scenes)
		copy->scenes[copy->nscenes++] = lfirst(cell);
}

/* Installations */

static void
read_installations(Copy *copy, TableRead *read)
{
	while (table_read_next(read))
	{
		Datum	   *values = read->slot->tts_values;
		void	   *boundary;

		copy->installations++;
		if (DatumGetObjectId(values[Installation_database]) != MyDatabaseId)
			continue;
		boundary = PG_DETOAST_DATUM_COPY(values[Installation_boundary]);
		if (DatumGetBool(values[Installation_adopted]))
			copy->adopted = lappend(copy->adopted, boundary);
		else
			copy->copied = lappend(copy->copied, boundary);
	}
}

bool
retry_config_read(RetryConfig *config, Snapshot snapshot)
{
	TableRead	groups = {0};
	TableRead	scenes = {0};
	TableRead	installations = {0};
	bool		complete;

	complete = table_read_begin(&groups, "scene_group", snapshot) &&
		table_read_begin(&scenes, "scene", snapshot) &&
		table_read_begin(&installations, "installation", snapshot);
	if (complete)
	{
		/* goes with the transaction if there is an error on the way */
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "retry configuration",
													  ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(context);
		Copy	   *copy = palloc0(sizeof(Copy));

		copy->context = context;
		read_scenes(config, copy, &scenes, read_groups(&groups));
		read_installations(copy, &installations);
		MemoryContextSwitchTo(old);

		MemoryContextSetParent(context, config->parent);
		if (config->copy != NULL)
			MemoryContextDelete(config->copy->context);
		config->copy = copy;
	}
	table_read_end(&groups);
	table_read_end(&scenes);
	table_read_end(&installations);
	return complete;
}

RetryScene *
retry_config_scene(RetryConfig *config, int32 scene_id)
{
	int			low = 0;
	int			high = config->copy != NULL ? config->copy->nscenes : 0;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		RetryScene *scene = config->copy->scenes[middle];

		if (scene->id == scene_id)
			return scene;
		if (scene->id < scene_id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* Does one of these snapshots see the transaction? */
static bool
seen_by_any(List *boundaries, uint64 full_xid)
{
	Datum		xid = FullTransactionIdGetDatum(FullTransactionIdFromU64(full_xid));
	ListCell   *cell;

	foreach(cell, boundaries)
	{
		if (DatumGetBool(DirectFunctionCall2(pg_visible_in_snapshot, xid,
											 PointerGetDatum(lfirst(cell)))))
			return true;
	}
	return false;
}

/*
 * What adopt() saw goes, of whatever origin.  Else a row of this database's
 * own goes unless it was there when the database was found to be a copy.  The
 * order of the rows of retry.installation does not matter: a database is noted
 * as a copy only while nothing was adopted in it.
 */
bool
retry_config_may_send(const RetryConfig *config, bool inert, uint64 full_xid)
{
	const Copy *copy = config->copy;

	if (copy == NULL || retry_config_is_copy(config))
		return false;
	if (!inert && copy->copied == NIL)
		return true;
	if (seen_by_any(copy->adopted, full_xid))
		return true;
	return !inert && !seen_by_any(copy->copied, full_xid);
}

bool
retry_config_is_copy(const RetryConfig *config)
{
	return config->copy != NULL && config->copy->adopted == NIL && config->copy->copied == NIL;
}

int
retry_config_adoptions(const RetryConfig *config)
{
	return config->copy != NULL ? config->copy->installations : 0;
}

void
retry_config_note_copy(void)
{
	RetryAppender *appender = retry_append_begin(retry_relation_oid("installation"), true);
	Datum		values[Installation_natts];
	bool		isnull[Installation_natts] = {0};

	if (appender == NULL)
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	values[Installation_database] = ObjectIdGetDatum(MyDatabaseId);
	values[Installation_boundary] = OidFunctionCall0(F_PG_CURRENT_SNAPSHOT);
	values[Installation_adopted] = BoolGetDatum(false);
	values[Installation_at] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	values[Installation_by] = CStringGetTextDatum(GetUserNameFromId(GetSessionUserId(), false));
	retry_append_row(appender, values, isnull);
	retry_append_end(appender);
	PopActiveSnapshot();
	retry_wakeup_config();

	ereport(LOG,
			(errmsg("retry: database \"%s\" is a copy of another, the tasks that came with it are held",
					get_database_name(MyDatabaseId)),
			 errhint("SELECT retry.adopt() lets them go.")));
}
