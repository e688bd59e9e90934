/*
 * operation_new.c
 *		New operations of global transactions: judged as tasks are that are
 *		enqueued, and stored as what they become.
 *
 * Whatever can be known to be wrong is refused when the transaction begins, the
 * compensation that will hardly ever be needed included: when it is needed it
 * must be possible.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "json_member.h"
#include "key.h"
#include "locate.h"
#include "operation_new.h"
#include "part.h"
#include "quote.h"
#include "scene_use.h"

extern Datum retry_backoff_in(PG_FUNCTION_ARGS);

/* Arguments of retry.enqueue(). */
enum
{
	Arg_target, Arg_payload, Arg_lane = 5, Arg_method = 7, Arg_headers, Arg_content_type = 10,
	Arg_expires_at, Arg_max_attempts, Arg_reference, Arg_timeout, Arg_backoff,
	Arg_enqueue_args = 19
};

typedef enum OptionKind
{
	OPTION_TEXT, OPTION_INTERVAL, OPTION_BACKOFF, OPTION_INT, OPTION_OBJECT
} OptionKind;

static const struct
{
	const char *name;
	int			arg;
	OptionKind	kind;
}			options[] = {
	{"headers", Arg_headers, OPTION_OBJECT},
	{"timeout", Arg_timeout, OPTION_INTERVAL},
	{"backoff", Arg_backoff, OPTION_BACKOFF},
	{"max_attempts", Arg_max_attempts, OPTION_INT},
	{"lane", Arg_lane, OPTION_TEXT},
	{"method", Arg_method, OPTION_TEXT},
	{"content_type", Arg_content_type, OPTION_TEXT},
	{"reference", Arg_reference, OPTION_TEXT}
};

static const char *const own_headers[] = {"Retry-Gid", "Retry-Branch", "Retry-Operation"};

bool
retry_operation_option(const char *name, int len)
{
	for (int i = 0; i < lengthof(options); i++)
	{
		if (strlen(options[i].name) == len && memcmp(options[i].name, name, len) == 0)
			return true;
	}
	return false;
}

/* It goes into a header, too. */
void
retry_operation_check_name(const char *name)
{
	if (name[0] == '\0' || strlen(name) > NAMEDATALEN - 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a branch does not have 1 to %d bytes: \"%s\"", NAMEDATALEN - 1,
						retry_quoted_string(name))));
	for (const char *p = name; *p; p++)
	{
		if (*p <= ' ' || *p > '~')
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("name of a branch has a character that is not printable ASCII, or a blank: \"%s\"", name)));
	}
}

static void
wrong_type(const char *option, const char *wanted)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s is not %s", option, wanted)));
}

/* The string of an option, as C has it. */
static char *
option_string(const char *name, const JsonbValue *value)
{
	if (value->type != jbvString)
		wrong_type(name, "a string");
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static Datum
option_datum(int option, JsonbValue *value)
{
	const char *name = options[option].name;

	switch (options[option].kind)
	{
		case OPTION_TEXT:
			return CStringGetTextDatum(option_string(name, value));
		case OPTION_INTERVAL:
			return DirectFunctionCall3(interval_in, CStringGetDatum(option_string(name, value)),
									   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		case OPTION_BACKOFF:
			return DirectFunctionCall1(retry_backoff_in, CStringGetDatum(option_string(name, value)));
		case OPTION_INT:
			if (value->type != jbvNumeric)
				wrong_type(name, "a number");
			return DirectFunctionCall1(numeric_int4, NumericGetDatum(value->val.numeric));
		default:
			if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
				wrong_type(name, "an object");
			return JsonbPGetDatum(JsonbValueToJsonb(value));
	}
}

static void
give(FunctionCallInfo args, int arg, Datum value)
{
	args->args[arg].isnull = false;
	args->args[arg].value = value;
}

/* Attempts are limited where it may fail only. */
static void
give_options(FunctionCallInfo args, const RetryNewOperation *o)
{
	for (int i = 0; o->options != NULL && i < lengthof(options); i++)
	{
		JsonbValue *value = getKeyJsonValueFromContainer(o->options, options[i].name, strlen(options[i].name), NULL);

		if (value == NULL || value->type == jbvNull ||
			(options[i].arg == Arg_max_attempts && retry_op_phase(o->op) != RETRY_PHASE_FIRST))
			continue;
		give(args, options[i].arg, option_datum(i, value));
	}
}

/* The task's own headers, and those that say which operation it is, which are reserved. */
static Jsonb *
make_headers(const RetryNewOperation *o, Jsonb *given)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (given != NULL)
	{
		JsonbIterator *it = JsonbIteratorInit(&given->root);
		JsonbValue	name;
		JsonbValue	value;

		(void) JsonbIteratorNext(&it, &value, true);
		while (JsonbIteratorNext(&it, &name, true) == WJB_KEY)
		{
			(void) JsonbIteratorNext(&it, &value, true);
			pushJsonbValue(&state, WJB_KEY, &name);
			pushJsonbValue(&state, WJB_VALUE, &value);
		}
	}
	retry_push_string(&state, own_headers[0], retry_id_text(o->gid));
	retry_push_string(&state, own_headers[1], o->name);
	retry_push_string(&state, own_headers[2], retry_op_word(o->op));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* What a function is called with, which has no headers. */
static Jsonb *
make_argument(const RetryNewOperation *o)
{
	JsonbParseState *state = NULL;
	JsonbValue	value = {.type = jbvNull};

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	retry_push_string(&state, "gid", retry_id_text(o->gid));
	retry_push_string(&state, "branch", o->name);
	retry_push_string(&state, "operation", retry_op_word(o->op));
	if (o->payload != NULL && JB_ROOT_IS_SCALAR(o->payload))
		(void) JsonbExtractScalar(&o->payload->root, &value);
	else if (o->payload != NULL)
	{
		value.type = jbvBinary;
		value.val.binary.data = &o->payload->root;
		value.val.binary.len = VARSIZE(o->payload) - VARHDRSZ;
	}
	retry_push_member(&state, "payload", &value);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
name_operation(void *arg)
{
	const RetryNewOperation *o = arg;

	errcontext("%s of branch \"%s\"", retry_op_word(o->op), o->name);
}

void
retry_operation_make(RetryNewOperation *o)
{
	LOCAL_FCINFO(args, Arg_enqueue_args);
	ErrorContextCallback context = {error_context_stack, name_operation, o};
	const char *part = retry_op_phase(o->op) == RETRY_PHASE_FIRST ? RETRY_PART_FIRST_WORD : RETRY_PART_MUST_WORD;
	RetryNewTask *task = &o->task;
	Datum	   *values = task->values;
	bool	   *isnull = task->isnull;

	InitFunctionCallInfoData(*args, NULL, Arg_enqueue_args, InvalidOid, NULL, NULL);
	for (int i = 0; i < Arg_enqueue_args; i++)
		args->args[i].isnull = true;
	error_context_stack = &context;
	give(args, Arg_target, PointerGetDatum(o->target));
	if (o->payload != NULL)
		give(args, Arg_payload, JsonbPGetDatum(o->payload));
	if (o->reference != NULL)
		give(args, Arg_reference, PointerGetDatum(o->reference));
	if (o->expires_at != 0 && retry_op_phase(o->op) == RETRY_PHASE_FIRST)
		give(args, Arg_expires_at, TimestampTzGetDatum(o->expires_at));
	give_options(args, o);
	retry_new_task(args, RETRY_SIGNATURE_ENQUEUE, task);
	if (task->options.fanout != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("scene \"%s/%s\" goes to all its targets", task->options.scene.group.name, task->options.scene.name),
				 errhint("An operation goes to one target; make a branch of each.")));

	if (task->options.sql)
		RETRY_FILL(Task_body, true, PointerGetDatum(retry_payload_body(make_argument(o))));
	else if (!task->options.scene.mail)
		RETRY_FILL(Task_headers, true, JsonbPGetDatum(make_headers(o, task->options.headers)));
	error_context_stack = context.previous;

	/* the transaction has a key, not its operations */
	isnull[Task_key] = true;
	RETRY_FILL(Task_on_success, true, CStringGetTextDatum(part));
	RETRY_FILL(Task_on_dead, true, CStringGetTextDatum(part));
	RETRY_FILL(Task_parent_id, true, UUIDPGetDatum(o->gid));
}

RetryAppender *
retry_operation_appender(void)
{
	return retry_append_begin(retry_relation_oid("global_operation"), Operation_natts, false);
}

void
retry_operation_store(RetryAppender *appender, RetryNewOperation *o)
{
	Datum		values[Operation_natts];
	bool		isnull[Operation_natts];
	RetryNewTask *task = &o->task;

	memset(isnull, true, sizeof(isnull));
	memcpy(values, task->values, sizeof(task->values));
	memcpy(isnull, task->isnull, sizeof(task->isnull));
	RETRY_FILL(Task_leaf, true, Int16GetDatum(retry_leaf_for(&task->id, task->due_at)));
	RETRY_FILL(Task_inert, true, BoolGetDatum(false));
	RETRY_FILL(Task_id, true, UUIDPGetDatum(&task->id));
	RETRY_FILL(Task_xid, true, FullTransactionIdGetDatum(GetTopFullTransactionId()));
	RETRY_FILL(Task_due_at, true, TimestampTzGetDatum(task->due_at));
	RETRY_FILL(Operation_gid, true, UUIDPGetDatum(o->gid));
	RETRY_FILL(Operation_branch_no, true, Int16GetDatum(o->branch + 1));
	RETRY_FILL(Operation_op, true, CStringGetTextDatum(retry_op_word(o->op)));
	RETRY_FILL(Operation_branch, true, CStringGetTextDatum(o->name));
	RETRY_FILL(Operation_needs, true, Int64GetDatum((int64) o->needs));
	retry_append_row(appender, values, isnull);
	retry_scene_keep(&task->options.scene);
}

bool
retry_operation_claim(const RetrySceneRow *scene, text *key, TimestampTz now, pg_uuid_t *gid)
{
	RetryKeyring keyring;
	bool		is_new;

	if (key == NULL)
		return true;
	retry_keyring_begin(&keyring, scene, RETRY_KEY_RETURN);
	is_new = retry_key_claim(&keyring, key, retry_leaf_for(gid, now), gid);
	retry_keyring_end(&keyring);
	return is_new;
}
