/*
 * tcc.c
 *		retry.tcc_begin() and retry.tcc_branch(): try, then confirm or cancel.
 *
 * A transaction is begun, gets branches, and is decided over by whoever began it
 * (advance.c), by a try that fails, or by its time (begin_timed.c).
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "advance.h"
#include "arguments.h"
#include "begin_timed.h"
#include "locate.h"
#include "operation_new.h"
#include "quote.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(retry_tcc_begin);
PG_FUNCTION_INFO_V1(retry_tcc_branch);

/* Arguments of retry.tcc_begin(). */
enum
{
	Begin_timeout, Begin_scene, Begin_key, Begin_reference
};

/* Arguments of retry.tcc_branch(). */
enum
{
	Branch_gid, Branch_name, Branch_try, Branch_confirm, Branch_cancel, Branch_payload, Branch_options
};

/* retry.tcc_begin(timeout, scene, key, reference) */
Datum
retry_tcc_begin(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *gid = palloc(sizeof(pg_uuid_t));
	RetryTimed	begun = {.function = "retry.tcc_begin()",.mode = RETRY_MODE_TCC};

	retry_require_argument(fcinfo, Begin_timeout, "timeout");
	retry_require_argument(fcinfo, Begin_scene, "scene");
	begun.timeout = PG_GETARG_INTERVAL_P(Begin_timeout);
	begun.scene = PG_GETARG_TEXT_PP(Begin_scene);
	begun.key = PG_ARGISNULL(Begin_key) ? NULL : PG_GETARG_TEXT_PP(Begin_key);
	begun.reference = PG_ARGISNULL(Begin_reference) ? NULL : PG_GETARG_TEXT_PP(Begin_reference);
	retry_begin_timed(&begun, gid);
	PG_RETURN_UUID_P(gid);
}

/* ---------------------------------------------------------------- branches */

static void
refuse_late(const RetryWhole *whole, const char *name)
{
	const char *gid = retry_id_text(&whole->global.gid);

	if (whole->global.mode != RETRY_MODE_TCC)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("transaction %s was not begun by retry.tcc_begin()", gid)));
	if (whole->known.decision != RETRY_UNDECIDED || whole->known.may_commit)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("transaction %s gets no other branch, since it is %s", gid,
						whole->known.decision == RETRY_ROLLBACK ? "rolled back" : "to be committed")));
	if (whole->known.n >= RETRY_MAX_BRANCHES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("transaction %s has %d branches, and gets no more", gid, RETRY_MAX_BRANCHES)));
	for (int i = 0; i < whole->n; i++)
	{
		if (strcmp(whole->operations[i].name, name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("transaction %s has a branch \"%s\"", gid, name)));
	}
}

static JsonbContainer *
read_options(Jsonb *given)
{
	JsonbIterator *it;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options is not an object")));
	it = JsonbIteratorInit(&given->root);
	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &value, true) == WJB_KEY)
	{
		if (!retry_operation_option(value.val.string.val, value.val.string.len))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown option \"%s\"", retry_quoted(value.val.string.val, value.val.string.len)),
					 errhint("There are headers, timeout, backoff, max_attempts, lane, method, content_type and reference.")));
		(void) JsonbIteratorNext(&it, &value, true);
	}
	return &given->root;
}

/* retry.tcc_branch(gid, name, try, confirm, cancel, payload, options) */
Datum
retry_tcc_branch(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"gid", "name", "try", "confirm", "cancel"};
	static const RetryOp ops[] = {RETRY_OP_TRY, RETRY_OP_CONFIRM, RETRY_OP_CANCEL};
	RetryNewOperation *made = palloc0(lengthof(ops) * sizeof(RetryNewOperation));
	RetryWhole	whole;
	RetrySceneRow scene;
	RetryWriter *writer;
	RetryAppender *appender;
	char	   *name;

	for (int i = 0; i < lengthof(names); i++)
	{
		if (i != Branch_try)
			retry_require_argument(fcinfo, i, names[i]);
	}
	retry_require_writable("retry.tcc_branch()");
	name = text_to_cstring(PG_GETARG_TEXT_PP(Branch_name));
	retry_operation_check_name(name);
	retry_advance_open(PG_GETARG_UUID_P(Branch_gid), &whole, &scene);
	refuse_late(&whole, name);
	for (int i = 0; i < lengthof(ops); i++)
	{
		RetryNewOperation *o = &made[i];

		if (PG_ARGISNULL(Branch_try + i))
			continue;
		o->gid = &whole.global.gid;
		o->branch = whole.known.n;
		o->name = name;
		o->op = ops[i];
		o->target = PG_GETARG_TEXT_PP(Branch_try + i);
		o->payload = PG_ARGISNULL(Branch_payload) ? NULL : PG_GETARG_JSONB_P(Branch_payload);
		o->options = PG_ARGISNULL(Branch_options) ? NULL : read_options(PG_GETARG_JSONB_P(Branch_options));
		o->expires_at = whole.global.expires_at;
		retry_operation_make(o);
	}

	writer = retry_writer_begin("retry.tcc_branch()");
	appender = retry_operation_appender();
	for (int i = 0; i < lengthof(ops); i++)
	{
		if (!PG_ARGISNULL(Branch_try + i))
			retry_operation_store(appender, &made[i]);
	}
	retry_append_end(appender);
	if (!PG_ARGISNULL(Branch_try))
		(void) retry_store_new_task(writer, &made[0].task);
	retry_writer_end(writer);
	PG_RETURN_VOID();
}
