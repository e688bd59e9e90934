/*
 * twophase.c
 *		retry.twophase_begin(), retry.twophase_branch(), and what a commit needs
 *		before it can be decided.
 *
 * A branch is stored with the task that rolls it back, so that whoever decides
 * to do so, be it the end of the transaction's time, has nothing to ask.  The
 * task that commits it says which transaction it is on its server, which is
 * only known when that is prepared; so it is stored with the decision.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "compat.h"
#include "advance.h"
#include "arguments.h"
#include "begin_timed.h"
#include "enqueue.h"
#include "json_member.h"
#include "locate.h"
#include "operation_new.h"
#include "part.h"
#include "prepared.h"
#include "scene_use.h"
#include "settle.h"
#include "statement.h"
#include "twophase.h"

PG_FUNCTION_INFO_V1(retry_twophase_begin);
PG_FUNCTION_INFO_V1(retry_twophase_branch);

/* In place of the scene's: locks are held on a server until it is done. */
#define SETTLE_BACKOFF	"exponential 500ms factor 2 max 30s jitter full"

/* What an executor may need for itself, besides the server's time. */
#define SPARE_MS		5000

extern Datum retry_backoff_in(PG_FUNCTION_ARGS);

/* Arguments of retry.enqueue(). */
enum
{
	Arg_target, Arg_payload, Arg_lane = 5, Arg_url = 6, Arg_backoff = 15, Arg_enqueue_args = 19
};

/* What the task of an operation is made of. */
typedef struct Plan
{
	const char *scene;			/* group/scene */
	const char *lane;
	int32		timeout_ms;
	Jsonb	   *payload;
	pg_uuid_t	gid;
} Plan;

/* Makes a task, as the caller could enqueue it. */
static void
make_task(const Plan *plan, RetryNewTask *task)
{
	LOCAL_FCINFO(args, Arg_enqueue_args);
	Datum	   *values = task->values;
	bool	   *isnull = task->isnull;

	InitFunctionCallInfoData(*args, NULL, Arg_enqueue_args, InvalidOid, NULL, NULL);
	for (int i = 0; i < Arg_enqueue_args; i++)
		args->args[i].isnull = true;
#define GIVE(arg, datum) (args->args[arg].isnull = false, args->args[arg].value = (datum))
	GIVE(Arg_target, CStringGetTextDatum(plan->scene));
	GIVE(Arg_url, CStringGetTextDatum(RETRY_SETTLE_TARGET));
	GIVE(Arg_lane, CStringGetTextDatum(plan->lane));
	GIVE(Arg_backoff, DirectFunctionCall1(retry_backoff_in, CStringGetDatum(SETTLE_BACKOFF)));
	GIVE(Arg_payload, JsonbPGetDatum(plan->payload));
#undef GIVE
	retry_new_task(args, RETRY_SIGNATURE_ENQUEUE, task);

	/* its key would be that of its payload */
	isnull[Task_key] = true;
	RETRY_FILL(Task_timeout_ms, true, Int32GetDatum(plan->timeout_ms));
	RETRY_FILL(Task_on_success, true, CStringGetTextDatum(RETRY_PART_MUST_WORD));
	RETRY_FILL(Task_on_dead, true, CStringGetTextDatum(RETRY_PART_MUST_WORD));
	RETRY_FILL(Task_parent_id, true, UUIDPGetDatum(&plan->gid));
}

/* retry.twophase_begin(scene, timeout, reference) */
Datum
retry_twophase_begin(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *gid = palloc(sizeof(pg_uuid_t));
	RetryTimed	begun = {.function = "retry.twophase_begin()",.mode = RETRY_MODE_2PC};

	retry_require_argument(fcinfo, 0, "scene");
	retry_require_argument(fcinfo, 1, "timeout");
	begun.scene = PG_GETARG_TEXT_PP(0);
	begun.timeout = PG_GETARG_INTERVAL_P(1);
	begun.reference = PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2);
	retry_begin_timed(&begun, gid);
	PG_RETURN_UUID_P(gid);
}

/* ---------------------------------------------------------------- branches */

/* What the task of a branch is told; the number is not needed for a rollback. */
static Jsonb *
errand(const RetryPreparedBranch *branch, const RetryPreparedNumber *number)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	retry_push_string(&state, "gid", retry_id_text(&branch->gid));
	retry_push_string(&state, "branch", psprintf("%d", branch->no));
	if (number->xid != 0)
	{
		retry_push_string(&state, "xid", psprintf(UINT64_FORMAT, number->xid));
		retry_push_string(&state, "cluster", number->cluster);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Stores an operation of a branch, as the task that it becomes when its turn comes. */
static void
store_operation(const RetrySceneRow *scene, const RetryServer *server, const RetryPreparedBranch *branch,
				RetryOp op, const RetryPreparedNumber *number)
{
	RetryNewOperation *operation = palloc0(sizeof(RetryNewOperation));
	RetryAppender *appender;
	Plan		plan = {
		.scene = psprintf("%s/%s", scene->group.name, scene->name),
		.lane = psprintf("server: %s", server->name),
		.timeout_ms = server->timeout_ms + SPARE_MS,
		.payload = errand(branch, number),
		.gid = branch->gid
	};

	operation->gid = &branch->gid;
	operation->branch = branch->no - 1;
	operation->name = branch->label;
	operation->op = op;
	make_task(&plan, &operation->task);
	appender = retry_operation_appender();
	retry_operation_store(appender, operation);
	retry_append_end(appender);
}

static void
no_such_transaction(const pg_uuid_t *gid)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("two-phase commit %s does not exist", retry_id_text(gid)),
			 errhint("retry.twophase_begin() begins one; the view retry.transactions shows those that you may see.")));
}

/* Locks it; ERROR unless the caller may decide over it and nobody has. */
static void
lock_undecided(const pg_uuid_t *gid, RetrySceneRow *scene)
{
	RetryWhole	whole;
	RetryDecision decision;

	retry_advance_open(gid, &whole, scene);
	decision = whole.known.decision;
	if (whole.global.mode != RETRY_MODE_2PC)
		no_such_transaction(gid);
	if (decision != RETRY_UNDECIDED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("transaction %s is %s already", retry_id_text(gid),
						decision == RETRY_COMMIT ? "committed" : "rolled back"),
				 errhint("A decided transaction gets no new branches.")));
}

/* What people call it: the server, and which one there if it is not the first. */
static char *
label_of(const List *others, const char *server)
{
	ListCell   *cell;
	int			n = 1;

	foreach(cell, others)
	{
		if (strcmp(((RetryPreparedBranch *) lfirst(cell))->server, server) == 0)
			n++;
	}
	return n == 1 ? pstrdup(server) : psprintf("%s/%d", server, n);
}

/* retry.twophase_branch(gid, server) */
Datum
retry_twophase_branch(PG_FUNCTION_ARGS)
{
	char		name[RETRY_PREPARED_NAME_MAX];
	RetryPreparedBranch branch = {.name = name};
	RetryPreparedNumber unknown = {0};
	RetrySceneRow scene;
	RetryServer server;
	List	   *others;

	retry_require_argument(fcinfo, 0, "gid");
	retry_require_argument(fcinfo, 1, "server");
	retry_require_writable("retry.twophase_branch()");
	branch.gid = *PG_GETARG_UUID_P(0);
	branch.server = text_to_cstring(PG_GETARG_TEXT_PP(1));
	lock_undecided(&branch.gid, &scene);
	retry_server_get(GetActiveSnapshot(), &scene.group, branch.server, &server);
	others = retry_prepared_of(&branch.gid);
	branch.no = list_length(others) + 1;
	if (branch.no > RETRY_MAX_PREPARED)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("transaction %s has %d branches already", retry_id_text(&branch.gid), RETRY_MAX_PREPARED)));
	branch.label = label_of(others, branch.server);
	retry_prepared_new_name(&branch.gid, branch.no, name);
	retry_prepared_store(&branch);
	store_operation(&scene, &server, &branch, RETRY_OP_ROLLBACK, &unknown);
	retry_scene_keep(&scene);
	CommandCounterIncrement();
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

/* ---------------------------------------------------------------- commit */

void
retry_twophase_before_commit(const RetryGlobal *global, const RetrySceneRow *scene)
{
	List	   *branches = retry_prepared_of(&global->gid);
	RetryPreparedNumber *numbers;
	RetryServer server;
	ListCell   *cell;

	if (branches == NIL)
		return;
	numbers = retry_settle_verify(&scene->group, branches);
	foreach(cell, branches)
	{
		RetryPreparedBranch *branch = lfirst(cell);

		branch->label = label_of(list_truncate(list_copy(branches), foreach_current_index(cell)), branch->server);
		retry_server_get(GetActiveSnapshot(), &scene->group, branch->server, &server);
		store_operation(scene, &server, branch, RETRY_OP_COMMIT, &numbers[foreach_current_index(cell)]);
	}
	CommandCounterIncrement();
}
