/*
 * scene.c
 *		Finds a scene and its group by name or number, by index.
 *
 * Every enqueue passes here, so it costs two index look-ups and no query; and
 * mostly none of these: the rows that were asked for last are remembered.
 * The names in a target are checked before they are looked for, so that
 * anything else that might be meant by a target has a syntax of its own.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "row.h"
#include "row_memo.h"
#include "scene.h"
#include "store.h"

static void
text_key(ScanKey key, int column, const char *value)
{
	ScanKeyEntryInitialize(key, 0, column + 1, BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(value));
}

/* An interval in microseconds, a month as 30 days; its constraint keeps it small. */
static int64
interval_us(Datum value)
{
	const Interval *interval = DatumGetIntervalP(value);

	return ((int64) interval->month * DAYS_PER_MONTH + interval->day) * USECS_PER_DAY + interval->time;
}

static void
copy_name(char *out, Datum value)
{
	text_to_cstring_buffer(DatumGetTextPP(value), out, RETRY_NAME_MAX + 1);
}

/* How many scenes, and groups, a session remembers. */
#define REMEMBERED	16

typedef struct RememberedGroup
{
	RetryRowMemo memo;
	RetryGroupRow group;		/* what was made of it */
} RememberedGroup;

typedef struct RememberedScene
{
	RetryRowMemo memo;
	RetrySceneRow scene;		/* but for what find_group() adds */
} RememberedScene;

static RememberedGroup groups[REMEMBERED];
static RememberedScene scenes[REMEMBERED];

static inline unsigned int
place_of(const char *name)
{
	return hash_bytes((const unsigned char *) name, strlen(name)) % REMEMBERED;
}

/* For the next time. */
static void
remember_group(RememberedGroup *known, HeapTuple tuple, const RetryGroupRow *group)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	RetryDestination to;

	retry_destination_copy(&to, &group->to);
	MemoryContextSwitchTo(old);
	if (!retry_memo_keep(&known->memo, tuple))
	{
		if (to.nhosts > 0)
			pfree(to.hosts);
		return;
	}
	if (known->group.to.nhosts > 0)
		pfree(known->group.to.hosts);
	known->group = *group;
	known->group.to = to;
}

bool
retry_group_by_name(Snapshot snapshot, const char *name, RetryGroupRow *group)
{
	Relation	rel = table_open(retry_relation_oid("scene_group"), AccessShareLock);
	RememberedGroup *known = &groups[place_of(name)];
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (strcmp(known->group.name, name) == 0 && retry_memo_holds(&known->memo, rel, snapshot))
	{
		*group = known->group;
		retry_destination_copy(&group->to, &known->group.to);
		table_close(rel, NoLock);
		return true;
	}
	text_key(&key, Group_name, name);
	scan = systable_beginscan(rel, retry_relation_oid("scene_group_pkey"), true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Datum		values[Group_natts];
		bool		isnull[Group_natts];

		retry_row_read(tuple, RelationGetDescr(rel), Group_natts, values, isnull);
		group->id = DatumGetInt32(values[Group_id]);
		group->owner = DatumGetObjectId(values[Group_owner]);
		strlcpy(group->name, name, sizeof(group->name));
		group->shared = strcmp(name, RETRY_DEFAULT_NAME) == 0;
		retry_destination_read(values, isnull, &group->to);
		retry_group_limits_read(values, isnull, &group->limits);
		remember_group(known, tuple, group);
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	return HeapTupleIsValid(tuple);
}

static void
read_scene(Relation rel, HeapTuple tuple, RetrySceneRow *scene)
{
	Datum		values[Scene_natts];
	bool		isnull[Scene_natts];

	retry_row_read(tuple, RelationGetDescr(rel), Scene_natts, values, isnull);
	scene->id = DatumGetInt32(values[Scene_id]);
	scene->place = tuple->t_self;
	copy_name(scene->group.name, values[Scene_group_name]);
	copy_name(scene->name, values[Scene_name]);
	scene->url = isnull[Scene_url] ? NULL : TextDatumGetCString(values[Scene_url]);
	scene->archived = DatumGetBool(values[Scene_archived]);
	scene->generate_key = DatumGetBool(values[Scene_generate_key]);
	scene->key_window_us = isnull[Scene_key_window] ? 0 : interval_us(values[Scene_key_window]);
	retry_lane_rules_read(values, isnull, &scene->lanes);
	scene->routed = scene->lanes.routed;
	scene->mail = !isnull[Scene_mail];
	scene->fan_out = scene->routed &&
		strcmp(TextDatumGetCString(values[Scene_route]), "all") == 0;
	scene->targets = scene->fan_out ? DatumGetArrayTypePCopy(values[Scene_targets]) : NULL;
}

/* Adds the scene's group, which may be gone. */
static bool
find_group(Snapshot snapshot, RetrySceneRow *scene)
{
	char		name[RETRY_NAME_MAX + 1];

	strcpy(name, scene->group.name);
	if (!retry_group_by_name(snapshot, name, &scene->group))
		return false;
	scene->lanes.group_id = scene->group.id;
	return true;
}

/* For the next time; not one whose targets would have to be kept, too. */
static void
remember_scene(RememberedScene *known, HeapTuple tuple, const RetrySceneRow *scene)
{
	char	   *url = NULL;

	if (scene->fan_out)
		return;
	if (scene->url != NULL)
		url = MemoryContextStrdup(TopMemoryContext, scene->url);
	if (!retry_memo_keep(&known->memo, tuple))
	{
		if (url != NULL)
			pfree(url);
		return;
	}
	if (known->scene.url != NULL)
		pfree(known->scene.url);
	known->scene = *scene;
	known->scene.url = url;
}

/* The first row of retry.scene that the keys lead to, and its group. */
static bool
find_scene(Snapshot snapshot, const char *index, int nkeys, ScanKey keys, RememberedScene *known,
		   RetrySceneRow *scene)
{
	Relation	rel = table_open(retry_relation_oid("scene"), AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	scan = systable_beginscan(rel, retry_relation_oid(index), true, snapshot, nkeys, keys);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		read_scene(rel, tuple, scene);
		if (known != NULL)
			remember_scene(known, tuple, scene);
	}
	systable_endscan(scan);
	table_close(rel, NoLock);

	return found && find_group(snapshot, scene);
}

/* The same from memory; false when it has to be looked for. */
static bool
recall_scene(Snapshot snapshot, const RememberedScene *known, RetrySceneRow *scene)
{
	Relation	rel = table_open(retry_relation_oid("scene"), AccessShareLock);
	bool		holds = retry_memo_holds(&known->memo, rel, snapshot);

	table_close(rel, NoLock);
	if (!holds)
		return false;
	*scene = known->scene;
	if (scene->url != NULL)
		scene->url = pstrdup(scene->url);
	return true;
}

bool
retry_scene_by_name(Snapshot snapshot, const char *group, const char *name, RetrySceneRow *scene)
{
	RememberedScene *known = &scenes[place_of(name)];
	ScanKeyData keys[2];

	if (strcmp(known->scene.name, name) == 0 && strcmp(known->scene.group.name, group) == 0 &&
		recall_scene(snapshot, known, scene))
		return find_group(snapshot, scene);
	text_key(&keys[0], Scene_group_name, group);
	text_key(&keys[1], Scene_name, name);
	return find_scene(snapshot, "scene_pkey", 2, keys, known, scene);
}

bool
retry_scene_by_id(Snapshot snapshot, int32 id, RetrySceneRow *scene)
{
	ScanKeyData key;

	ScanKeyInit(&key, Scene_id + 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	return find_scene(snapshot, "scene_id_key", 1, &key, NULL, scene);
}

/* Copies a name up to its end or a slash; the length, 0 when it is no name. */
static int
scan_name(const char *text, char *name)
{
	int			n = 0;

	while (text[n] != '\0' && text[n] != '/')
	{
		char		c = text[n];

		if (n == RETRY_NAME_MAX ||
			!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-'))
			return 0;
		name[n++] = c;
	}
	name[n] = '\0';
	return n;
}

bool
retry_name_check(const char *name)
{
	char		copy[RETRY_NAME_MAX + 1];
	int			n = scan_name(name, copy);

	return n > 0 && name[n] == '\0';
}

bool
retry_scene_parse(const char *target, char *group, char *name)
{
	int			n = scan_name(target, name);

	if (n == 0)
		return false;
	if (target[n] == '\0')
	{
		strcpy(group, RETRY_DEFAULT_NAME);
		return true;
	}
	strcpy(group, name);
	target += n + 1;
	n = scan_name(target, name);
	return n > 0 && target[n] == '\0';
}
