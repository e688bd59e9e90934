/*
 * config.c
 *		A dispatcher's copy of the scenes, and of what may be sent at all.
 *
 * Four small tables are read whole, straight from the heap, so that no plan,
 * no statistics and no lock that a session holds stands between a dispatcher
 * and its work.  A new copy replaces the old one only when it is complete;
 * until then, and for a scene whose new row makes no sense, the old one counts.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "common/int.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "config.h"
#include "event.h"
#include "row.h"
#include "scene.h"
#include "scene_mail.h"
#include "scene_secret.h"
#include "scene_tls.h"
#include "store.h"
#include "table_read.h"
#include "wakeup.h"

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
	TimestampTz resumed_at;		/* DT_NOBEGIN: never */
	int64		resume_over_us;
	TimestampTz order_ended_at; /* DT_NOBEGIN: never */
	RetryDestination to;
	RetryGroupLimits limits;
} Group;

/* What one reading brought. */
typedef struct Copy
{
	MemoryContext context;		/* everything below is in it */
	RetryScene **scenes;		/* by id */
	int			nscenes;
	bool		orders;			/* one of them has order, or had */
	int			installations;
	List	   *adopted;		/* pg_snapshot: what adopt() let go here */
	void	   *copied;			/* the newest pg_snapshot of what came with a
								 * copied database; NULL: it is no copy */
	RetrySecrets *secrets;
} Copy;

struct RetryConfig
{
	MemoryContext parent;
	Copy	   *copy;			/* NULL before the first reading */
};

RetryConfig *
retry_config_create(void)
{
	RetryConfig *config = palloc0(sizeof(RetryConfig));

	config->parent = CurrentMemoryContext;
	return config;
}

/* Values */

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

static TimestampTz
time_or_never(const Datum *values, const bool *isnull, int column)
{
	return isnull[column] ? DT_NOBEGIN : DatumGetTimestampTz(values[column]);
}

/* When something was last resumed, and over what time its backlog is spread. */
static void
read_resumption(const Datum *values, const bool *isnull, int at, int over,
				TimestampTz *resumed_at, int64 *over_us)
{
	*resumed_at = time_or_never(values, isnull, at);
	*over_us = isnull[at] || isnull[over] ? 0 : interval_us(values[over]);
}

/* Groups */

static Group *
read_group(const Datum *values, const bool *isnull)
{
	Group	   *group = palloc(sizeof(Group));

	group->id = DatumGetInt32(values[Group_id]);
	group->name = TextDatumGetCString(values[Group_name]);
	group->paused = DatumGetBool(values[Group_paused]);
	read_resumption(values, isnull, Group_resumed_at, Group_resume_over,
					&group->resumed_at, &group->resume_over_us);
	group->order_ended_at = time_or_never(values, isnull, Group_order_ended_at);
	retry_destination_read(values, isnull, &group->to);
	retry_group_limits_read(values, isnull, &group->limits);
	return group;
}

static List *
read_groups(RetryTableRead *read)
{
	List	   *groups = NIL;

	while (retry_table_read_next(read))
		groups = lappend(groups, read_group(read->slot->tts_values, read->slot->tts_isnull));
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

static bool
read_timeout(Datum value, int32 *ms)
{
	int64		us = interval_us(value);

	*ms = (int32) Min(us / 1000, PG_INT32_MAX);
	return us >= 1000 && us <= USECS_PER_HOUR;
}

/* One row of retry.scene, taken apart. */
typedef struct SceneRow
{
	Datum		values[Scene_natts];
	bool		isnull[Scene_natts];
} SceneRow;

static char *
text_or_null(const SceneRow *row, int column)
{
	return row->isnull[column] ? NULL : TextDatumGetCString(row->values[column]);
}

static void *
copy_or_null(const SceneRow *row, int column)
{
	return row->isnull[column] ? NULL : PG_DETOAST_DATUM_COPY(row->values[column]);
}

/* Route and targets; false when they are none that a constraint lets in. */
static bool
read_targets(const SceneRow *row, RetryScene *scene)
{
	char		error[RETRY_ROUTE_ERROR];
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (!retry_route_by_name(TextDatumGetCString(row->values[Scene_route]), &scene->route))
		return false;
	if (row->isnull[Scene_targets])
		return true;
	deconstruct_array(DatumGetArrayTypeP(row->values[Scene_targets]), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, &count);
	if (count == 0 || count > RETRY_ROUTE_TARGETS_MAX)
		return false;
	scene->targets = palloc0(count * sizeof(RetryRouteTarget));
	for (int i = 0; i < count; i++)
	{
		RetryRouteTarget *target = &scene->targets[i];
		char	   *entry = nulls[i] ? pstrdup("") : TextDatumGetCString(elements[i]);
		int			len;

		if (!retry_route_parse_target(entry, &len, &target->weight, error, sizeof(error)))
			return false;
		entry[len] = '\0';
		target->url = entry;
		target->hash = retry_route_hash(entry, len);
	}
	scene->ntargets = count;
	return true;
}

/* A limit in time; false when it is none that a constraint lets in. */
static bool
read_limit(const SceneRow *row, int column, int64 *us)
{
	*us = 0;
	if (row->isnull[column])
		return true;
	*us = interval_us(row->values[column]);
	if (*us <= 0)
		return false;

	/* longer than time itself is no limit */
	if (*us == PG_INT64_MAX)
		*us = 0;
	return true;
}

/* How its answers are to be understood; false, with what is wrong, as below. */
static bool
read_rules(const SceneRow *row, RetryScene *scene, const char **wrong)
{
	RetryRules *rules = &scene->rules;
	RetryParseError error;
	char	   *stop_errors = text_or_null(row, Scene_stop_errors);

	*wrong = "success_status";
	if (!retry_status_list_parse(text_or_null(row, Scene_success_status), &rules->success_status, &error))
		return false;
	*wrong = "stop_status";
	if (!retry_status_list_parse(text_or_null(row, Scene_stop_status), &rules->stop_status, &error))
		return false;
	*wrong = "stop_errors";
	if (stop_errors != NULL && !retry_error_list_parse(stop_errors, &rules->stop_errors, &error))
		return false;
	scene->success_when = copy_or_null(row, Scene_success_when);
	scene->pending_when = copy_or_null(row, Scene_pending_when);
	scene->stop_when = copy_or_null(row, Scene_stop_when);
	rules->success_when = scene->success_when != NULL;
	*wrong = "pending_interval";
	rules->pending_interval_us = interval_us(row->values[Scene_pending_interval]);
	if (rules->pending_interval_us <= 0)
		return false;
	*wrong = "pending_limit";
	rules->pending_limit = row->isnull[Scene_pending_limit] ? 0 :
		DatumGetInt32(row->values[Scene_pending_limit]);
	return rules->pending_limit >= 0;
}

/* What it says of its lanes; false, with what is wrong, as below. */
static bool
read_flow(const SceneRow *row, RetryFlowRules *flow, const char **wrong)
{
	const Datum *values = row->values;

	*wrong = "max_in_flight";
	flow->max_in_flight = row->isnull[Scene_max_in_flight] ? 0 :
		DatumGetInt32(values[Scene_max_in_flight]);
	if (flow->max_in_flight < 0)
		return false;
	flow->ordered = DatumGetBool(values[Scene_ordered]);
	flow->dead_head_blocks = strcmp(TextDatumGetCString(values[Scene_dead_head]), "block") == 0;
	flow->high = strcmp(TextDatumGetCString(values[Scene_priority]), "high") == 0;
	*wrong = "weight";
	flow->weight = DatumGetInt32(values[Scene_weight]);
	if (flow->weight < 1 || flow->weight > RETRY_FLOW_WEIGHT_MAX)
		return false;
	flow->adaptive = DatumGetBool(values[Scene_adaptive]);
	flow->hedge = DatumGetBool(values[Scene_hedge]);
	*wrong = "breaker_ratio";
	flow->breaker.ratio = row->isnull[Scene_breaker_ratio] ? 0 : DatumGetFloat4(values[Scene_breaker_ratio]);
	if (!(flow->breaker.ratio >= 0 && flow->breaker.ratio <= 1))
		return false;
	*wrong = "breaker_calls";
	flow->breaker.min_calls = DatumGetInt32(values[Scene_breaker_calls]);
	if (flow->breaker.min_calls < 1)
		return false;
	*wrong = "breaker_window";
	flow->breaker.window_us = interval_us(values[Scene_breaker_window]);
	if (flow->breaker.window_us < USECS_PER_SEC || flow->breaker.window_us > USECS_PER_HOUR)
		return false;
	*wrong = "breaker_open";
	flow->breaker.open_us = interval_us(values[Scene_breaker_open]);
	if (flow->breaker.open_us < 1 || flow->breaker.open_us > USECS_PER_HOUR)
		return false;
	*wrong = "retry_share";
	flow->retry_share = row->isnull[Scene_retry_share] ? -1 : DatumGetFloat4(values[Scene_retry_share]);
	if (!row->isnull[Scene_retry_share] && !(flow->retry_share >= 0))
		return false;
	*wrong = "retry_floor";
	flow->retry_floor = DatumGetInt32(values[Scene_retry_floor]);
	return flow->retry_floor >= 1;
}

/* The later resumption of the scene's own and its group's. */
static void
read_resumptions(const SceneRow *row, const Group *group, RetryScene *scene)
{
	read_resumption(row->values, row->isnull, Scene_resumed_at, Scene_resume_over,
					&scene->resumed_at, &scene->resume_over_us);
	if (group->resumed_at > scene->resumed_at)
	{
		scene->resumed_at = group->resumed_at;
		scene->resume_over_us = group->resume_over_us;
	}
}

/*
 * Fills a scene from its row, in the current memory context; its secrets later
 * when there are none yet (NULL).  False, with what is wrong, for a row that no
 * constraint would have let in.
 */
static bool
read_scene(const SceneRow *row, const Group *group, const RetrySecrets *secrets,
		   RetryScene *scene, const char **wrong)
{
	const Datum *values = row->values;

	scene->id = DatumGetInt32(values[Scene_id]);
	scene->group_id = group->id;
	scene->to = group->to;
	scene->max_pending = group->limits.max_pending;
	scene->max_lanes = group->limits.max_lanes;
	scene->counted = group->limits.shared;
	scene->name = psprintf("%s/%s", group->name, TextDatumGetCString(values[Scene_name]));
	scene->url = text_or_null(row, Scene_url);
	*wrong = "targets";
	if (!read_targets(row, scene))
		return false;
	scene->method = text_or_null(row, Scene_method);
	scene->headers = copy_or_null(row, Scene_headers);
	*wrong = "timeout";
	if (!read_timeout(values[Scene_timeout], &scene->timeout_ms))
		return false;
	*wrong = "connect_timeout";
	if (!read_timeout(values[Scene_connect_timeout], &scene->connect_timeout_ms))
		return false;
	*wrong = "backoff";
	scene->backoff = copy_or_null(row, Scene_backoff);
	if (VARSIZE(scene->backoff) < offsetof(RetryBackoff, u) ||
		scene->backoff->version != RETRY_BACKOFF_VERSION)
		return false;
	*wrong = "max_attempts";
	scene->max_attempts = DatumGetInt32(values[Scene_max_attempts]);
	if (scene->max_attempts < 1)
		return false;
	*wrong = "expires_after";
	if (!read_limit(row, Scene_expires_after, &scene->expires_after_us))
		return false;
	*wrong = "time_budget";
	if (!read_limit(row, Scene_time_budget, &scene->time_budget_us))
		return false;
	if (!read_flow(row, &scene->flow, wrong))
		return false;
	*wrong = "rate";
	if (!row->isnull[Scene_rate])
		memcpy(&scene->rate, DatumGetPointer(values[Scene_rate]), sizeof(RetryRate));
	if (!row->isnull[Scene_rate] && !retry_rate_valid(&scene->rate))
		return false;
	retry_lane_rules_read(values, row->isnull, &scene->lanes);
	scene->lanes.group_id = group->id;
	scene->on_success = text_or_null(row, Scene_on_success);
	scene->on_dead = text_or_null(row, Scene_on_dead);
	scene->notify = text_or_null(row, Scene_notify);
	scene->paused = DatumGetBool(values[Scene_paused]) || group->paused;
	read_resumptions(row, group, scene);
	scene->order_ended_at = Max(time_or_never(values, row->isnull, Scene_order_ended_at), group->order_ended_at);
	scene->secret = text_or_null(row, Scene_secret);
	*wrong = "secret_use";
	if (!retry_secret_use_named(TextDatumGetCString(values[Scene_secret_use]), &scene->secret_use))
		return false;
	if (!retry_scene_read_tls(values, row->isnull, scene, wrong))
		return false;
	*wrong = "mail";
	if (!retry_scene_read_mail(values, row->isnull, scene))
		return false;
	if (secrets != NULL)
		retry_scene_take_secrets(scene, secrets);
	return read_rules(row, scene, wrong);
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
	retry_rules_default(&scene->rules);
	scene->timeout_ms = scene->connect_timeout_ms = 1000;
	scene->max_attempts = 1;
	scene->backoff = palloc0(sizeof(RetryBackoff));
	(void) retry_backoff_parse("fixed 1m", scene->backoff, &never);
	scene->paused = true;
	scene->max_pending = scene->max_lanes = -1;
}

static int
compare_scenes(const ListCell *a, const ListCell *b)
{
	int32		x = ((const RetryScene *) lfirst(a))->id;
	int32		y = ((const RetryScene *) lfirst(b))->id;

	return x < y ? -1 : x > y;
}

/* The scene of a row; when that cannot be used, its former version, or one that holds. */
static RetryScene *
usable_scene(RetryConfig *config, const RetrySecrets *secrets, RetryTableRead *read, List *groups)
{
	HeapTuple	tuple = ExecCopySlotHeapTuple(read->slot);
	RetryScene *scene = palloc0(sizeof(RetryScene));
	const char *wrong = "group_name";
	const Group *group;
	RetryScene *old;
	SceneRow	row;
	int32		id;

	retry_row_read(tuple, RelationGetDescr(read->rel), Scene_natts, row.values, row.isnull);
	id = DatumGetInt32(row.values[Scene_id]);
	group = find_group(groups, TextDatumGetCString(row.values[Scene_group_name]));

	/* whole, since what lies outside may be gone when it is read again */
	if (HeapTupleHasExternal(tuple))
		tuple = toast_flatten_tuple(tuple, RelationGetDescr(read->rel));
	scene->row = tuple;
	if (group != NULL && read_scene(&row, group, secrets, scene, &wrong))
		return scene;

	old = retry_config_scene(config, id);
	ereport(LOG,
			(errmsg("retry: column %s of scene %d cannot be used, %s", wrong, id,
					old != NULL ? "its former version stays in force" : "its tasks are held"),
			 errhint("Correct the row in retry.scene.")));
	if (group != NULL && old != NULL && old->row != NULL)
	{
		memset(scene, 0, sizeof(RetryScene));
		scene->row = heap_copytuple(old->row);
		retry_row_read(scene->row, RelationGetDescr(read->rel), Scene_natts, row.values, row.isnull);
		if (read_scene(&row, group, secrets, scene, &wrong))
			return scene;
	}
	hold_scene(id, scene);
	return scene;
}

static void
read_scenes(RetryConfig *config, Copy *copy, RetryTableRead *read, List *groups)
{
	List	   *scenes = NIL;
	ListCell   *cell;

	while (retry_table_read_next(read))
		scenes = lappend(scenes, usable_scene(config, copy->secrets, read, groups));

	list_sort(scenes, compare_scenes);
	copy->scenes = palloc(Max(list_length(scenes), 1) * sizeof(RetryScene *));
	foreach(cell, scenes)
	{
		RetryScene *scene = lfirst(cell);

		copy->scenes[copy->nscenes++] = scene;
		copy->orders |= scene->flow.ordered || scene->order_ended_at > DT_NOBEGIN;
	}
}

/* The row that a key leads to, taken apart; it is copied. */
static bool
read_row(const char *table, const char *index, ScanKey key, Snapshot snapshot, int natts,
		 Datum *values, bool *isnull)
{
	Relation	rel = table_open(retry_relation_oid(table), AccessShareLock);
	HeapTuple	tuple = retry_row_find(rel, retry_relation_oid(index), key, snapshot);

	if (tuple != NULL)
		retry_row_read(tuple, RelationGetDescr(rel), natts, values, isnull);
	table_close(rel, NoLock);
	return tuple != NULL;
}

RetryScene *
retry_config_one_scene(int32 id, Snapshot snapshot)
{
	RetryScene *scene = palloc0(sizeof(RetryScene));
	const char *wrong = "group_name";
	Datum		group[Group_natts];
	bool		group_isnull[Group_natts];
	SceneRow	row;
	ScanKeyData key;

	ScanKeyInit(&key, Scene_id + 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	if (!read_row("scene", "scene_id_key", &key, snapshot, Scene_natts, row.values, row.isnull))
		return NULL;
	ScanKeyEntryInitialize(&key, 0, Group_name + 1, BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ, row.values[Scene_group_name]);
	if (!read_row("scene_group", "scene_group_pkey", &key, snapshot, Group_natts, group, group_isnull) ||
		!read_scene(&row, read_group(group, group_isnull), NULL, scene, &wrong))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column %s of scene %d cannot be used", wrong, id),
				 errhint("Correct the row in retry.scene.")));
	if (retry_scene_needs_secrets(scene))
		retry_scene_take_secrets(scene, retry_secrets_of_group(scene->group_id, snapshot));
	return scene;
}

static RetrySecrets *
read_secrets(RetryTableRead *read)
{
	RetrySecrets *secrets = retry_secrets_create();

	while (retry_table_read_next(read))
		retry_secrets_add(secrets, read->slot->tts_values, read->slot->tts_isnull);
	retry_secrets_sort(secrets);
	return secrets;
}

/* Installations */

static uint64
boundary_xmax(void *boundary)
{
	return U64FromFullTransactionId(DatumGetFullTransactionId(DirectFunctionCall1(pg_snapshot_xmax,
																				  PointerGetDatum(boundary))));
}

static void
read_installations(Copy *copy, RetryTableRead *read)
{
	while (retry_table_read_next(read))
	{
		Datum	   *values = read->slot->tts_values;
		void	   *boundary;

		copy->installations++;
		if (DatumGetObjectId(values[Installation_database]) != MyDatabaseId)
			continue;
		boundary = PG_DETOAST_DATUM_COPY(values[Installation_boundary]);
		if (DatumGetBool(values[Installation_adopted]))
			copy->adopted = lappend(copy->adopted, boundary);
		else if (copy->copied == NULL || boundary_xmax(boundary) > boundary_xmax(copy->copied))
			copy->copied = boundary;
	}
}

bool
retry_config_read(RetryConfig *config, Snapshot snapshot)
{
	RetryTableRead groups = {0};
	RetryTableRead scenes = {0};
	RetryTableRead secrets = {0};
	RetryTableRead installations = {0};
	bool		complete;

	complete = retry_table_read_begin(&groups, "scene_group", Group_natts, snapshot) &&
		retry_table_read_begin(&scenes, "scene", Scene_natts, snapshot) &&
		retry_table_read_begin(&secrets, "secret", Secret_natts, snapshot) &&
		retry_table_read_begin(&installations, "installation", Installation_natts, snapshot);
	if (complete)
	{
		/* goes with the transaction if there is an error on the way */
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "retry configuration",
													  ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(context);
		Copy	   *copy = palloc0(sizeof(Copy));

		copy->context = context;
		copy->secrets = read_secrets(&secrets);
		read_scenes(config, copy, &scenes, read_groups(&groups));
		read_installations(copy, &installations);
		MemoryContextSwitchTo(old);

		MemoryContextSetParent(context, config->parent);
		if (config->copy != NULL)
			MemoryContextDelete(config->copy->context);
		config->copy = copy;
	}
	retry_table_read_end(&groups);
	retry_table_read_end(&scenes);
	retry_table_read_end(&secrets);
	retry_table_read_end(&installations);
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

bool
retry_config_orders(const RetryConfig *config)
{
	return config->copy != NULL && config->copy->orders;
}

RetryScene *
retry_config_nth_scene(RetryConfig *config, int n)
{
	return config->copy != NULL && n < config->copy->nscenes ? config->copy->scenes[n] : NULL;
}

RetryScene *
retry_config_scene_named(RetryConfig *config, const char *name)
{
	int			count = config->copy != NULL ? config->copy->nscenes : 0;

	for (int i = 0; i < count; i++)
	{
		if (strcmp(config->copy->scenes[i]->name, name) == 0)
			return config->copy->scenes[i];
	}
	return NULL;
}

int32
retry_config_group_named(RetryConfig *config, const char *name)
{
	int			count = config->copy != NULL ? config->copy->nscenes : 0;
	int			len = strlen(name);

	for (int i = 0; i < count; i++)
	{
		const RetryScene *scene = config->copy->scenes[i];

		if (strncmp(scene->name, name, len) == 0 && scene->name[len] == '/')
			return scene->group_id;
	}
	return 0;
}

static bool
sees(void *boundary, uint64 full_xid)
{
	Datum		xid = FullTransactionIdGetDatum(FullTransactionIdFromU64(full_xid));

	return DatumGetBool(DirectFunctionCall2(pg_visible_in_snapshot, xid, PointerGetDatum(boundary)));
}

/* Was it adopted since the database became a copy (again)? */
static bool
adopted_since(const Copy *copy, void *boundary)
{
	return copy->copied == NULL || boundary_xmax(boundary) >= boundary_xmax(copy->copied);
}

/*
 * What adopt() saw goes, of whatever origin.  Else a row of this database's
 * own goes unless it was there when the database was found to be a copy; then
 * what was adopted where it came from does not count.
 */
bool
retry_config_may_send(const RetryConfig *config, bool inert, uint64 full_xid)
{
	const Copy *copy = config->copy;
	bool		came;			/* with a copy */
	ListCell   *cell;

	if (copy == NULL || retry_config_is_copy(config))
		return false;
	came = copy->copied != NULL && sees(copy->copied, full_xid);
	if (!inert && !came)
		return true;
	foreach(cell, copy->adopted)
	{
		if ((!came || adopted_since(copy, lfirst(cell))) && sees(lfirst(cell), full_xid))
			return true;
	}
	return false;
}

bool
retry_config_is_copy(const RetryConfig *config)
{
	return config->copy != NULL && config->copy->adopted == NIL && config->copy->copied == NULL;
}

bool
retry_config_waits(const RetryConfig *config)
{
	ListCell   *cell;

	if (config->copy == NULL || config->copy->copied == NULL)
		return false;
	foreach(cell, config->copy->adopted)
	{
		if (adopted_since(config->copy, lfirst(cell)))
			return false;
	}
	return true;
}

int
retry_config_adoptions(const RetryConfig *config)
{
	return config->copy != NULL ? config->copy->installations : 0;
}

bool
retry_config_note_copy(uint64 first_xid, const char *reason)
{
	RetryAppender *appender = retry_append_begin(retry_relation_oid("installation"), Installation_natts, true);
	Datum		values[Installation_natts];
	bool		isnull[Installation_natts] = {0};
	RetryEvent	event = {.kind = RETRY_EVENT_COPY,.detail = reason};
	char	   *boundary = psprintf(UINT64_FORMAT ":" UINT64_FORMAT ":", first_xid, first_xid);

	if (appender == NULL)
		return false;
	values[Installation_database] = ObjectIdGetDatum(MyDatabaseId);
	values[Installation_boundary] = DirectFunctionCall1(pg_snapshot_in, CStringGetDatum(boundary));
	values[Installation_adopted] = BoolGetDatum(false);
	values[Installation_at] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	values[Installation_by] = CStringGetTextDatum(GetUserNameFromId(GetSessionUserId(), false));
	retry_append_row(appender, values, isnull);
	retry_append_end(appender);
	(void) retry_event_store(&event, false);
	retry_wakeup_config();

	ereport(WARNING,
			(errmsg("retry: database \"%s\" is a copy, the tasks that came with it are held",
					get_database_name(MyDatabaseId)),
			 errdetail("%s", reason),
			 errhint("SELECT retry.adopt() lets them go.")));
	return true;
}
