/*
 * group_limits.c
 *		What a group may have and ask for, and the refusal of more.
 *
 * A group without limits costs an enqueue the test of one flag, in the row of
 * the group that it has at hand anyway.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "access.h"
#include "compat.h"
#include "group_lanes.h"
#include "group_limits.h"
#include "group_use.h"
#include "scene.h"
#include "shmem.h"
#include "statement.h"

static bool exempt = false;

void
retry_group_exempt(void)
{
	exempt = true;
}

static int32
read_int(const Datum *values, const bool *isnull, int column, RetryGroupLimits *limits)
{
	if (isnull[column])
		return -1;
	limits->any = true;
	return DatumGetInt32(values[column]);
}

/*
 * Who enqueues does so when something happens, which is not evenly: what a
 * second brings may come at once.
 */
static void
read_rate(Datum value, RetryRate *rate)
{
	memcpy(rate, DatumGetPointer(value), sizeof(RetryRate));
	if (retry_rate_valid(rate))
		rate->burst = Max(rate->burst, rate->count / rate->seconds);
	else
		rate->count = 0;
}

void
retry_group_limits_read(const Datum *values, const bool *isnull, RetryGroupLimits *limits)
{
	memset(limits, 0, sizeof(*limits));
	limits->max_pending = isnull[Group_max_pending] ? -1 : DatumGetInt64(values[Group_max_pending]);
	if (!isnull[Group_max_enqueue_rate])
		read_rate(values[Group_max_enqueue_rate], &limits->rate);
	limits->max_lanes = read_int(values, isnull, Group_max_lanes, limits);
	limits->shared = limits->any = limits->any || limits->max_pending >= 0 || limits->rate.count > 0;
	limits->max_body_size = read_int(values, isnull, Group_max_body_size, limits);
	limits->max_headers = read_int(values, isnull, Group_max_headers, limits);
	limits->max_headers_size = read_int(values, isnull, Group_max_headers_size, limits);
}

void
retry_group_check_body(const RetryGroupRow *group, Size bytes)
{
	const RetryGroupLimits *limits = &group->limits;

	if (!limits->any || exempt || limits->max_body_size < 0 || bytes <= (Size) limits->max_body_size)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("body of %zu bytes is larger than group \"%s\" may have, %d bytes",
					bytes, group->name, limits->max_body_size),
			 errhint("Store large data elsewhere and send a reference to it; who administers retry can raise max_body_size of the group.")));
}

void
retry_group_check_headers(const RetryGroupRow *group, Jsonb *headers)
{
	const RetryGroupLimits *limits = &group->limits;
	JsonbIterator *it;
	JsonbValue	name;
	JsonbValue	value;
	Size		bytes = 0;
	int			count = 0;

	if (!limits->any || exempt || headers == NULL || (limits->max_headers < 0 && limits->max_headers_size < 0))
		return;
	it = JsonbIteratorInit(&headers->root);
	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &name, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&it, &value, true);
		bytes += name.val.string.len + value.val.string.len;
		count++;
	}
	if (limits->max_headers >= 0 && count > limits->max_headers)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%d headers are more than a task of group \"%s\" may have, %d",
						count, group->name, limits->max_headers),
				 errhint("Who administers retry can raise max_headers of the group.")));
	if (limits->max_headers_size >= 0 && bytes > (Size) limits->max_headers_size)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("headers of %zu bytes are larger than a task of group \"%s\" may have, %d bytes",
						bytes, group->name, limits->max_headers_size),
				 errhint("Who administers retry can raise max_headers_size of the group.")));
}

/* ---------------------------------------------------------------- what is shared */

/* What statistics say of a group's tasks without an outcome. */
static const char *const unfinished =
"SELECT coalesce(pg_catalog.sum(c.pending OPERATOR(pg_catalog.+) c.retrying), 0)::pg_catalog.int8"
" FROM retry.task_counts c JOIN retry.scene s ON s.id OPERATOR(pg_catalog.=) c.scene_id"
" WHERE s.group_name OPERATOR(pg_catalog.=) $1";

/* For an entry that was just made; upkeep counts more exactly. */
static void
count_once(RetryGroupUse *use, const RetryGroupRow *group)
{
	Oid			type = TEXTOID;
	Datum		name = CStringGetTextDatum(group->name);
	RetryRoleSwitch caller;
	RetryGroupMark mark;
	bool		isnull;

	/* nobody adds before it is counted; of several who count, one is heard */
	retry_group_use_mark(use, &mark);
	if (mark.counted)
		return;
	retry_statement_connect();
	retry_become_owner(&caller);
	(void) retry_statement_latest(unfinished, 1, &type, &name);
	retry_group_use_correct(&mark, DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)));
	retry_become_caller(&caller);
	SPI_finish();
}

/* A group that is not held to its limits should be known to who set them; once a session. */
static void
tell_no_room(const RetryGroupRow *group)
{
	static bool told = false;

	if (told || !retry_shmem_ready())
		return;
	told = true;
	ereport(LOG,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("retry: max_pending, max_lanes and max_enqueue_rate of group \"%s\" are not kept, for there is no room to count its tasks",
					group->name),
			 errhint("There is room for some %d groups that have one of these limits, in all databases together.",
					 RETRY_GROUP_USES)));
}

/* The group's entry, counted; NULL: nobody can count here. */
static RetryGroupUse *
counted_use(const RetryGroupRow *group)
{
	RetryGroupUse *use = retry_group_use(group->id);

	if (use == NULL)
		tell_no_room(group);
	else if (!use->counted)
		count_once(use, group);
	return use;
}

static void
note_refusal(RetryGroupUse *use)
{
	(void) pg_atomic_fetch_add_u64(&use->refused, 1);
	use->refused_at = GetCurrentTimestamp();
}

pg_noreturn static void refuse_tasks(RetryGroupUse *use, const RetryGroupRow *group, int64 tasks);
pg_noreturn static void refuse_rate(RetryGroupUse *use, const RetryGroupRow *group, int64 tasks, int64 wait_us);

static void
refuse_tasks(RetryGroupUse *use, const RetryGroupRow *group, int64 tasks)
{
	long long	pending = retry_group_use_pending(use);

	note_refusal(use);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg_plural("%lld new task is too many for group \"%s\", which has %lld unfinished ones and may have %lld",
						   "%lld new tasks are too many for group \"%s\", which has %lld unfinished ones and may have %lld",
						   tasks, (long long) tasks, group->name, pending, (long long) group->limits.max_pending),
			 errhint("Enqueue again when some are finished; who administers retry can raise max_pending of the group.")));
}

static void
refuse_rate(RetryGroupUse *use, const RetryGroupRow *group, int64 tasks, int64 wait_us)
{
	const RetryRate *rate = &group->limits.rate;
	char		allowed[RETRY_RATE_TEXT_SIZE];

	note_refusal(use);
	retry_rate_format(rate, allowed, sizeof(allowed));
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg_plural("%lld new task is too many for group \"%s\", which may enqueue %s",
						   "%lld new tasks are too many for group \"%s\", which may enqueue %s",
						   tasks, (long long) tasks, group->name, allowed),
			 wait_us < 0 ?
			 errhint("Enqueue at most %d at once; who administers retry can raise max_enqueue_rate of the group.", rate->burst) :
			 errhint("Enqueue again in %lld ms; who administers retry can raise max_enqueue_rate of the group.",
					 (long long) (wait_us + 999) / 1000)));
}

void
retry_group_admit(const RetryGroupRow *group, int64 tasks, bool rated)
{
	const RetryGroupLimits *limits = &group->limits;
	RetryGroupUse *use;
	int64		wait_us;

	if (!limits->shared || tasks == 0)
		return;
	use = counted_use(group);
	if (use == NULL)
		return;

	/*
	 * without unfinished tasks there are no lanes that upkeep has to count
	 * first
	 */
	if (limits->max_lanes >= 0 && !use->lanes_counted && use->counted && retry_group_use_pending(use) == 0)
		retry_group_lanes_none(use);
	if (!retry_group_use_add(use, tasks, exempt ? -1 : limits->max_pending))
		refuse_tasks(use, group, tasks);

	/* after an error the transaction takes back what it has added */
	if (rated && !exempt && limits->rate.count > 0 && (wait_us = retry_group_use_take(use, &limits->rate, tasks)) != 0)
		refuse_rate(use, group, tasks, wait_us);
}

pg_noreturn static void refuse_lane(RetryGroupUse *use, const RetryGroupRow *group, const text *lane);

static void
refuse_lane(RetryGroupUse *use, const RetryGroupRow *group, const text *lane)
{
	int			used = use->lanes;
	int			max = group->limits.max_lanes;

	note_refusal(use);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 lane != NULL ?
			 errmsg("lane \"%s\" is one too many for group \"%s\", whose unfinished tasks are in %d and may be in %d",
					text_to_cstring(lane), group->name, used, max) :
			 errmsg("one more lane is too many for group \"%s\", whose unfinished tasks are in %d and may be in %d",
					group->name, used, max),
			 errhint("Use lanes that have tasks, or enqueue again when some have none left; who administers retry can raise max_lanes of the group.")));
}

/* As tell_no_room(). */
static void
tell_no_lane(const RetryGroupRow *group)
{
	static bool told = false;

	if (told)
		return;
	told = true;
	ereport(LOG,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("retry: max_lanes of group \"%s\" is not kept, for there is no room to count its lanes", group->name),
			 errhint("There is room for %d lanes of groups that have this limit, in all databases together.",
					 RETRY_GROUP_LANES)));
}

void
retry_group_admit_lane(const RetryGroupRow *group, int64 lane_hash, const text *lane)
{
	RetryGroupUse *use = group->limits.max_lanes < 0 ? NULL : counted_use(group);

	if (use == NULL)
		return;
	switch (retry_group_lanes_add(use, lane_hash, exempt ? -1 : group->limits.max_lanes))
	{
		case RETRY_LANE_ADDED:
			break;
		case RETRY_LANE_REFUSED:
			refuse_lane(use, group, lane);
		case RETRY_LANE_NO_ROOM:
			tell_no_lane(group);
			break;
	}
}

void
retry_group_expect(const RetryGroupRow *group, const int64 *lane_hash, const text *lane)
{
	const RetryGroupLimits *limits = &group->limits;
	RetryGroupUse *use;

	if (!limits->shared)
		return;
	use = counted_use(group);
	if (use == NULL)
		return;
	if (limits->max_pending >= 0 && retry_group_use_pending(use) >= limits->max_pending)
		refuse_tasks(use, group, 1);
	if (limits->max_lanes >= 0 && lane_hash != NULL && retry_group_lanes_full(use, *lane_hash, limits->max_lanes))
		refuse_lane(use, group, lane);
	if (limits->rate.count > 0 && retry_group_use_left(use, &limits->rate) < 1)
		refuse_rate(use, group, 1, USECS_PER_SEC * limits->rate.seconds / limits->rate.count);
}
