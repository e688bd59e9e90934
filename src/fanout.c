/*
 * fanout.c
 *		One enqueue that makes a task for each of a scene's targets.
 *
 * The children are ordinary tasks from then on: nothing remembers the message
 * but their parent_id, so there is no state of the whole that could disagree
 * with theirs, and one that fails is retried, dies and is replayed alone.
 *
 * With a key, each child claims a key of its own, made of the caller's and the
 * target, while its column keeps the caller's, which is what the receiver
 * sees.  So a message that is enqueued again is completed: targets whose task
 * lives keep it, the others get one, under the parent of those that live.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "compat.h"
#include "fanout.h"
#include "lane_name.h"
#include "route.h"
#include "target.h"

#define SUFFIX_LEN	17			/* a line feed and 16 digits */

/* One of the scene's targets, as its children will have it. */
typedef struct FanoutTarget
{
	text	   *url;
	char	   *origin;
	text	   *lane;			/* for the column; of a message without key */
	int64		lane_hash;
	char		suffix[SUFFIX_LEN + 1]; /* what its keys end with */
} FanoutTarget;

struct RetryFanout
{
	int			count;
	int		   *claim_order;	/* the same for all sessions, whatever the
								 * order of the targets */
	FanoutTarget *targets;
	const RetryLaneRules *lanes;
	RetryLaneTask lane_of;		/* a child, but for origin and key */
};

pg_noreturn static void hash_failed(void);

static void
hash_failed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not compute the SHA-256 of a target")));
}

/* The lane of a child that has this key, or none. */
static void
choose_lane(const RetryFanout *fanout, const FanoutTarget *target, const text *key,
			text **lane, int64 *lane_hash)
{
	RetryLaneTask task = fanout->lane_of;

	task.origin = target->origin;
	task.key = key;
	retry_lane_choose(fanout->lanes, &task, lane, lane_hash);
}

static void
make_target(const RetryFanout *fanout, const RetrySceneRow *scene, char *element, FanoutTarget *target)
{
	char		why[RETRY_ROUTE_ERROR];
	RetryUrl	url;
	int64		hash;
	int32		weight;
	int			len;

	if (!retry_route_parse_target(element, &len, &weight, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a target of scene \"%s/%s\" is invalid: %s", scene->group.name, scene->name, why)));
	element[len] = '\0';
	if (!retry_url_check(element, &url, why, sizeof(why)) ||
		!retry_lane_hash(0, 'k', element, len, &hash))
		hash_failed();
	target->url = cstring_to_text(element);
	snprintf(target->suffix, sizeof(target->suffix), "\n%016llx", (unsigned long long) hash);
	target->origin = pstrdup(url.origin);
	choose_lane(fanout, target, NULL, &target->lane, &target->lane_hash);
}

static int
compare_suffixes(const void *a, const void *b, void *arg)
{
	const FanoutTarget *targets = arg;

	return strcmp(targets[*(const int *) a].suffix, targets[*(const int *) b].suffix);
}

RetryFanout *
retry_fanout_create(const RetrySceneRow *scene, const RetryLaneTask *lane)
{
	RetryFanout *fanout = palloc0(sizeof(RetryFanout));
	Datum	   *elements;
	bool	   *nulls;

	fanout->lanes = &scene->lanes;
	fanout->lane_of = *lane;
	fanout->lane_of.own_url = fanout->lane_of.child = true;
	deconstruct_array(scene->targets, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &fanout->count);
	fanout->targets = palloc0(Max(fanout->count, 1) * sizeof(FanoutTarget));
	fanout->claim_order = palloc(Max(fanout->count, 1) * sizeof(int));
	for (int i = 0; i < fanout->count; i++)
	{
		make_target(fanout, scene, nulls[i] ? pstrdup("") : TextDatumGetCString(elements[i]),
					&fanout->targets[i]);
		fanout->claim_order[i] = i;
	}
	qsort_arg(fanout->claim_order, fanout->count, sizeof(int), compare_suffixes, fanout->targets);
	return fanout;
}

int
retry_fanout_count(const RetryFanout *fanout)
{
	return fanout->count;
}

int
retry_fanout_new(const RetryFanout *fanout, const RetryFanoutChild *children)
{
	int			n = 0;

	for (int i = 0; i < fanout->count; i++)
		n += !children[i].stored_before;
	return n;
}

void
retry_fanout_new_ids(const RetryFanout *fanout, TimestampTz now, RetryFanoutChild *children)
{
	for (int i = 0; i < fanout->count; i++)
	{
		retry_new_id(now, &children[i].id);
		children[i].stored_before = false;
	}
}

/* The key that stands for the caller's at one target; no caller can give it. */
static text *
child_key(const text *key, const FanoutTarget *target)
{
	int			len = VARSIZE_ANY_EXHDR(key);
	text	   *result = palloc(VARHDRSZ + len + SUFFIX_LEN);

	memcpy(VARDATA(result), VARDATA_ANY(key), len);
	memcpy(VARDATA(result) + len, target->suffix, SUFFIX_LEN);
	SET_VARSIZE(result, VARHDRSZ + len + SUFFIX_LEN);
	return result;
}

void
retry_fanout_claim(const RetryFanout *fanout, RetryKeyring *keyring, const text *key,
				   TimestampTz due_at, pg_uuid_t *parent, RetryFanoutChild *children)
{
	int			first = fanout->count;

	for (int i = 0; i < fanout->count; i++)
	{
		int			which = fanout->claim_order[i];
		RetryFanoutChild *child = &children[which];

		CHECK_FOR_INTERRUPTS();
		child->stored_before = !retry_key_claim(keyring, child_key(key, &fanout->targets[which]),
												retry_leaf_for(&child->id, due_at), &child->id);

		/* unknown when nothing but the key is left of a finished task */
		if (child->stored_before && keyring->has_parent && which < first)
		{
			*parent = keyring->parent;
			first = which;
		}
	}
}

void
retry_fanout_write(const RetryFanout *fanout, RetryWriter *writer, const pg_uuid_t *parent,
				   const RetryFanoutChild *children, TimestampTz due_at, Datum *values, bool *isnull)
{
	values[Task_parent_id] = UUIDPGetDatum(parent);
	isnull[Task_parent_id] = isnull[Task_url] = isnull[Task_lane_hash] = false;
	for (int i = 0; i < fanout->count; i++)
	{
		const FanoutTarget *target = &fanout->targets[i];
		text	   *lane = target->lane;
		int64		lane_hash = target->lane_hash;

		if (children[i].stored_before)
			continue;
		if (fanout->lanes->by == RETRY_LANE_BY_KEY && !isnull[Task_key])
			choose_lane(fanout, target, DatumGetTextPP(values[Task_key]), &lane, &lane_hash);
		values[Task_url] = PointerGetDatum(target->url);
		values[Task_lane_hash] = Int64GetDatum(lane_hash);
		values[Task_lane] = PointerGetDatum(lane);
		isnull[Task_lane] = lane == NULL;
		retry_write_task(writer, &children[i].id, due_at, values, isnull);
	}
}
