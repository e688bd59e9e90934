/*
 * saga.c
 *		retry.saga(): actions, each with what compensates it.
 *
 * All operations are judged and stored when the saga begins; from then on it is
 * the ends of its tasks that move it on (record_operation.c), and nobody has to
 * wait for it or look after it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "arguments.h"
#include "operation_new.h"
#include "quote.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(retry_saga);

/* Arguments of retry.saga(). */
enum
{
	Arg_steps, Arg_payload, Arg_timeout, Arg_concurrent, Arg_key, Arg_reference
};

/* One element of the array. */
typedef struct Step
{
	char	   *name;
	JsonbContainer *members;
	text	   *action;
	text	   *compensate;		/* NULL: there is nothing to undo */
	Jsonb	   *payload;
	JsonbContainer *needs;		/* NULL: not given */
} Step;

typedef struct Saga
{
	pg_uuid_t	gid;
	TimestampTz now;
	TimestampTz expires_at;		/* 0: never */
	Jsonb	   *payload;		/* of steps without their own */
	text	   *reference;
	bool		concurrent;
	int			n;
	Step		steps[RETRY_MAX_BRANCHES];
	RetryBranches branches;
} Saga;

static JsonbValue *
member(JsonbContainer *object, const char *name)
{
	JsonbValue *value = getKeyJsonValueFromContainer(object, name, strlen(name), NULL);

	return value == NULL || value->type == jbvNull ? NULL : value;
}

static char *
string_member(JsonbContainer *object, const char *step, const char *name)
{
	JsonbValue *value = member(object, name);

	if (value == NULL)
		return NULL;
	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of step \"%s\" is not a string", name, step)));
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static void
refuse_unknown_members(JsonbContainer *object, const char *step)
{
	static const char *const known[] = {"name", "action", "compensate", "payload", "needs"};
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue	value;

	(void) JsonbIteratorNext(&it, &value, false);
	while (JsonbIteratorNext(&it, &value, true) == WJB_KEY)
	{
		bool		found = retry_operation_option(value.val.string.val, value.val.string.len);

		for (int i = 0; i < lengthof(known) && !found; i++)
			found = strlen(known[i]) == value.val.string.len &&
				memcmp(known[i], value.val.string.val, value.val.string.len) == 0;
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("step \"%s\" has an unknown member \"%s\"", step,
							retry_quoted(value.val.string.val, value.val.string.len)),
					 errhint("It may have name, action, compensate, payload, needs, headers, timeout, backoff, max_attempts, lane, method, content_type and reference.")));
		(void) JsonbIteratorNext(&it, &value, true);
	}
}

static void
read_step(Saga *saga, JsonbValue *element)
{
	Step	   *step = &saga->steps[saga->n];
	JsonbValue *value;
	char	   *target;

	if (element->type != jbvBinary || !JsonContainerIsObject(element->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("step %d is not an object", saga->n + 1)));
	step->members = element->val.binary.data;
	step->name = string_member(step->members, psprintf("%d", saga->n + 1), "name");
	if (step->name == NULL)
		step->name = psprintf("%d", saga->n + 1);
	retry_operation_check_name(step->name);
	for (int i = 0; i < saga->n; i++)
	{
		if (strcmp(saga->steps[i].name, step->name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("steps %d and %d have the same name: \"%s\"", i + 1, saga->n + 1, step->name)));
	}
	refuse_unknown_members(step->members, step->name);
	target = string_member(step->members, step->name, "action");
	if (target == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("step \"%s\" has no action", step->name)));
	step->action = cstring_to_text(target);
	target = string_member(step->members, step->name, "compensate");
	step->compensate = target == NULL ? NULL : cstring_to_text(target);
	value = getKeyJsonValueFromContainer(step->members, "payload", strlen("payload"), NULL);
	step->payload = value == NULL ? saga->payload : JsonbValueToJsonb(value);
	value = member(step->members, "needs");
	if (value != NULL && (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("needs of step \"%s\" is not an array", step->name)));
	step->needs = value == NULL ? NULL : value->val.binary.data;
	saga->n++;
}

static void
read_steps(Saga *saga, Jsonb *steps)
{
	int			count;

	if (!JB_ROOT_IS_ARRAY(steps) || JB_ROOT_IS_SCALAR(steps))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("steps is not an array of objects")));
	count = JB_ROOT_COUNT(steps);
	if (count < 1 || count > RETRY_MAX_BRANCHES)
		ereport(ERROR,
				(errcode(count < 1 ? ERRCODE_INVALID_PARAMETER_VALUE : ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a saga has 1 to %d steps, and not %d", RETRY_MAX_BRANCHES, count)));
	for (int i = 0; i < count; i++)
		read_step(saga, getIthJsonbValueFromContainer(&steps->root, i));
}

/* The step that a name in "needs" means. */
static int
find_step(const Saga *saga, const Step *of, const JsonbValue *name)
{
	if (name->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("needs of step \"%s\" has an element that is not a string", of->name)));
	for (int i = 0; i < saga->n; i++)
	{
		if (strlen(saga->steps[i].name) == name->val.string.len &&
			memcmp(saga->steps[i].name, name->val.string.val, name->val.string.len) == 0)
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("step \"%s\" needs \"%s\", and no step has that name", of->name,
					retry_quoted(name->val.string.val, name->val.string.len))));
}

/* Which needs which: what is said, else each the one before it. */
static void
read_needs(Saga *saga)
{
	RetryBranches *b = &saga->branches;

	b->n = saga->n;
	b->may_commit = true;
	for (int i = 0; i < saga->n; i++)
	{
		JsonbContainer *needs = saga->steps[i].needs;

		b->first |= RETRY_BRANCH(i);
		if (saga->steps[i].compensate != NULL)
			b->undo |= RETRY_BRANCH(i);
		if (needs == NULL)
		{
			b->needs[i] = saga->concurrent || i == 0 ? 0 : RETRY_BRANCH(i - 1);
			continue;
		}
		for (int k = 0; k < JsonContainerSize(needs); k++)
			b->needs[i] |= RETRY_BRANCH(find_step(saga, &saga->steps[i], getIthJsonbValueFromContainer(needs, k)));
	}
	if (!retry_branches_all_begin(b))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("steps need each other in a circle, so that they would never begin")));
}

static void
make_operation(const Saga *saga, int branch, RetryOp op, text *target, RetryNewOperation *o)
{
	const Step *step = &saga->steps[branch];

	o->gid = &saga->gid;
	o->branch = branch;
	o->name = step->name;
	o->op = op;
	o->needs = op == RETRY_OP_ACTION ? saga->branches.needs[branch] : 0;
	o->target = target;
	o->payload = step->payload;
	o->options = step->members;
	o->reference = saga->reference;
	o->expires_at = saga->expires_at;
	retry_operation_make(o);
}

/* All operations: the actions in the order of the steps, then what compensates them. */
static RetryNewOperation *
make_operations(const Saga *saga, int *count)
{
	RetryNewOperation *all = palloc(2 * saga->n * sizeof(RetryNewOperation));

	*count = 0;
	for (int i = 0; i < saga->n; i++)
		make_operation(saga, i, RETRY_OP_ACTION, saga->steps[i].action, &all[(*count)++]);
	for (int i = 0; i < saga->n; i++)
	{
		if (saga->steps[i].compensate != NULL)
			make_operation(saga, i, RETRY_OP_COMPENSATE, saga->steps[i].compensate, &all[(*count)++]);
	}
	return all;
}

static void
store(RetryWriter *writer, const Saga *saga, RetryNewOperation *all, int count, text *key)
{
	RetryBranchSet first = retry_branches_first(&saga->branches);
	RetryAppender *appender = retry_operation_appender();
	RetryGlobal global = {
		.gid = saga->gid,.mode = RETRY_MODE_SAGA,.scene_id = all[0].task.options.scene.id,.begun_by = GetUserId(),
		.at_limit = RETRY_ROLLBACK,.expires_at = saga->expires_at,.key = key,.reference = saga->reference
	};

	retry_global_store(&global, saga->now);
	for (int i = 0; i < count; i++)
		retry_operation_store(appender, &all[i]);
	retry_append_end(appender);
	for (int i = 0; i < saga->n; i++)
	{
		if ((first & RETRY_BRANCH(i)) != 0)
			(void) retry_store_new_task(writer, &all[i].task);
	}
}

/* When a transaction that begins now has no time left; 0: never. */
static TimestampTz
end_of_time(FunctionCallInfo fcinfo, TimestampTz now)
{
	TimestampTz end;

	if (PG_ARGISNULL(Arg_timeout))
		return 0;
	end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now),
												  PG_GETARG_DATUM(Arg_timeout)));
	if (end <= now || TIMESTAMP_NOT_FINITE(end))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout is not positive: %s",
						DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(Arg_timeout))))));
	return end;
}

/* retry.saga(steps, payload, timeout, concurrent, key, reference) */
Datum
retry_saga(PG_FUNCTION_ARGS)
{
	Saga	   *saga = palloc0(sizeof(Saga));
	text	   *key = PG_ARGISNULL(Arg_key) ? NULL : PG_GETARG_TEXT_PP(Arg_key);
	RetryNewOperation *all;
	RetryWriter *writer;
	int			count;

	retry_require_argument(fcinfo, Arg_steps, "steps");
	saga->now = GetCurrentTimestamp();
	saga->payload = PG_ARGISNULL(Arg_payload) ? NULL : PG_GETARG_JSONB_P(Arg_payload);
	saga->concurrent = !PG_ARGISNULL(Arg_concurrent) && PG_GETARG_BOOL(Arg_concurrent);
	saga->reference = PG_ARGISNULL(Arg_reference) ? NULL : PG_GETARG_TEXT_PP(Arg_reference);
	saga->expires_at = end_of_time(fcinfo, saga->now);
	if (key != NULL)
		retry_check_short_text("key", key);
	retry_new_id(saga->now, &saga->gid);
	read_steps(saga, PG_GETARG_JSONB_P(Arg_steps));
	read_needs(saga);
	all = make_operations(saga, &count);

	writer = retry_writer_begin("retry.saga()");
	if (retry_operation_claim(&all[0].task.options.scene, key, saga->now, &saga->gid))
		store(writer, saga, all, count, key);
	retry_writer_end(writer);
	PG_RETURN_UUID_P(&saga->gid);
}
