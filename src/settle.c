/*
 * settle.c
 *		Carries out what is decided over prepared transactions, on their
 *		servers.
 *
 * COMMIT PREPARED that is sent twice says the second time that there is no such
 * transaction, which must not be taken for success: it might never have been
 * prepared, or have been rolled back by hand.  So before a commit is decided
 * each server is asked, and tells the number of the transaction.  With that it
 * can say for certain later what became of it.  A rollback needs no such care:
 * what is not there is not committed, since only the decision's tasks commit.
 *
 * The functions here are targets of tasks.  They act by what is stored as
 * decided, not by what they are told, so it does no harm when anybody calls
 * them who might decide.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "access.h"
#include "judge.h"
#include "locate.h"
#include "remote.h"
#include "settle.h"

PG_FUNCTION_INFO_V1(retry_settle_branch);
PG_FUNCTION_INFO_V1(retry_settle_server);

/* ---------------------------------------------------------------- before the decision */

/*
 * What it takes is planned each time, which costs more than to execute it: hence
 * the function, not the view pg_prepared_xacts, which joins two catalogs to it.
 */
static const char *const ask_prepared =
"SELECT p.gid, p.transaction, pg_snapshot_xmax(pg_current_snapshot()),"
" pg_get_userbyid(p.ownerid) = current_user OR current_setting('is_superuser') = 'on',"
" (SELECT d.datname FROM pg_database d WHERE d.oid = p.dbid), current_database(),"
" pg_get_userbyid(p.ownerid), current_user, current_setting('max_prepared_transactions'), c.system_identifier"
" FROM pg_control_system() c LEFT JOIN pg_prepared_xact() p ON p.gid = ANY ($1::text[])";

enum
{
	Asked_gid, Asked_xid, Asked_next, Asked_may, Asked_database, Asked_here, Asked_owner,
	Asked_user, Asked_max, Asked_system, Asked_columns
};

/* The eight bytes of a transaction number, given those of one that is near. */
static uint64
widen(const char *xid, const char *near)
{
	uint64		next = strtoull(near, NULL, 10);

	return next + (int32) ((uint32) strtoul(xid, NULL, 10) - (uint32) next);
}

/* What a server has answered about a branch; ERROR unless it can be committed. */
static RetryPreparedNumber
look_at_answer(const RetryPreparedBranch *branch, const RetryRemoteResult *result)
{
	for (int row = 0; row < result->rows; row++)
	{
		char	  **values = result->values + row * result->columns;

		if (values[Asked_gid] == NULL || strcmp(values[Asked_gid], branch->name) != 0)
			continue;
		for (int i = 0; i < Asked_columns; i++)
		{
			if (values[i] == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_PROTOCOL_VIOLATION),
						 errmsg("server \"%s\" does not say how branch %d is prepared", branch->server, branch->no)));
		}
		if (strcmp(values[Asked_database], values[Asked_here]) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("branch %d is prepared in database \"%s\" of server \"%s\"", branch->no,
							values[Asked_database], branch->server),
					 errhint("It can be committed only in that database, which conninfo of the server must name.")));
		if (values[Asked_may][0] != 't')
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("branch %d is prepared on server \"%s\" by role \"%s\"", branch->no, branch->server,
							values[Asked_owner]),
					 errhint("It can be committed only by that role or a superuser, and conninfo of the server says \"%s\".",
							 values[Asked_user])));
		return (RetryPreparedNumber)
		{
			.xid = widen(values[Asked_xid], values[Asked_next]),.cluster = pstrdup(values[Asked_system])
		};
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("branch %d is not prepared on server \"%s\"", branch->no, branch->server),
			 result->values[Asked_max] != NULL && strcmp(result->values[Asked_max], "0") == 0 ?
			 errhint("That server prepares no transactions: its max_prepared_transactions is 0.") :
			 errhint("PREPARE TRANSACTION '%s' comes before retry.commit(); retry.rollback() needs none.", branch->name)));
}

/* An array, as text, of the names of those branches that are on this one's server. */
static char *
names_of(const List *branches, const RetryPreparedBranch *at)
{
	StringInfoData text;
	ListCell   *cell;

	initStringInfo(&text);
	foreach(cell, branches)
	{
		const RetryPreparedBranch *branch = lfirst(cell);

		if (strcmp(branch->server, at->server) == 0)
			appendStringInfo(&text, "%c%s", text.len == 0 ? '{' : ',', branch->name);
	}
	appendStringInfoChar(&text, '}');
	return text.data;
}

RetryPreparedNumber *
retry_settle_verify(const RetryGroupRow *group, const List *branches)
{
	int			n = list_length(branches);
	RetryPreparedNumber *numbers = palloc(Max(n, 1) * sizeof(RetryPreparedNumber));
	RetryServer *servers = palloc(Max(n, 1) * sizeof(RetryServer));
	RetryRemote **asked = palloc0(Max(n, 1) * sizeof(RetryRemote *));
	const char **params = palloc(Max(n, 1) * sizeof(char *));
	RetryRemoteResult *answers = palloc0(Max(n, 1) * sizeof(RetryRemoteResult));
	int		   *asked_by = palloc(Max(n, 1) * sizeof(int));

	StaticAssertStmt(RETRY_MAX_PREPARED <= RETRY_REMOTES, "a commit asks all servers of its branches at once");

	/* all servers at once, each once */
	for (int i = 0; i < n; i++)
	{
		const RetryPreparedBranch *branch = list_nth(branches, i);

		for (asked_by[i] = 0; asked_by[i] < i; asked_by[i]++)
		{
			if (strcmp(((RetryPreparedBranch *) list_nth(branches, asked_by[i]))->server, branch->server) == 0)
				break;
		}
		if (asked_by[i] < i)
			continue;
		retry_server_get(GetActiveSnapshot(), group, branch->server, &servers[i]);
		params[i] = names_of(branches, branch);
		asked[i] = retry_remote_send(&servers[i], ask_prepared, 1, &params[i], Asked_columns);
	}
	for (int i = 0; i < n; i++)
	{
		if (asked[i] != NULL)
			retry_remote_receive(asked[i], &answers[i]);
	}
	for (int i = 0; i < n; i++)
	{
		if (answers[asked_by[i]].failed)
			retry_remote_raise(&answers[asked_by[i]]);
		numbers[i] = look_at_answer(list_nth(branches, i), &answers[asked_by[i]]);
	}
	return numbers;
}

/* ---------------------------------------------------------------- after the decision */

/* Nothing can be done about it but by a person: it is not tried again. */
static void
damaged(const RetryPreparedBranch *branch, const char *what)
{
	ereport(ERROR,
			(errcode(RETRY_ERRCODE_STOP),
			 errmsg("branch %d of transaction %s, which is committed, %s on server \"%s\"", branch->no,
					retry_id_text(&branch->gid), what, branch->server),
			 errhint("Do there by hand what the branch was to do.")));
}

/*
 * There is no such prepared transaction: is that because it is committed?  Where
 * the row of the server leads to another cluster by now, the number is that of
 * something else there.
 */
static void
require_committed(const RetryServer *server, const RetryPreparedBranch *branch, const char *xid, const char *cluster)
{
	static const char *const ask_status =
	"SELECT CASE WHEN c.system_identifier::text = $2 THEN pg_xact_status($1::text::xid8) ELSE 'elsewhere' END"
	" FROM pg_control_system() c";
	const char *params[2] = {xid, cluster};
	RetryRemoteResult result;

	if (xid == NULL || cluster == NULL)
		damaged(branch, "is not prepared, and nobody knows its number");
	retry_remote_command(server, ask_status, 2, params, 1, &result);
	if (result.failed)
		retry_remote_raise(&result);
	if (result.rows != 1 || result.values[0] == NULL)
		damaged(branch, "is so old that nobody knows what became of it");
	if (strcmp(result.values[0], "elsewhere") == 0)
		damaged(branch, "was prepared on another cluster, and is not prepared");
	if (strcmp(result.values[0], "aborted") == 0)
		damaged(branch, "was rolled back");
	if (strcmp(result.values[0], "committed") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("branch %d is still in progress on server \"%s\"", branch->no, branch->server)));
}

/* Does it; what it found is returned in a word. */
static const char *
settle(const RetryServer *server, const RetryPreparedBranch *branch, RetryDecision decision,
	   const char *xid, const char *cluster)
{
	bool		commit = decision == RETRY_COMMIT;
	char	   *sql = psprintf("%s PREPARED %s", commit ? "COMMIT" : "ROLLBACK",
							   quote_literal_cstr(branch->name));
	RetryRemoteResult result;

	retry_remote_command(server, sql, 0, NULL, 0, &result);
	if (!result.failed)
		return commit ? "committed" : "rolled back";
	if (result.sqlstate != ERRCODE_UNDEFINED_OBJECT)
		retry_remote_raise(&result);
	if (!commit)
		return "not prepared";
	require_committed(server, branch, xid, cluster);
	return "committed before";
}

/* A member of an object that is a string or a number, as text; NULL: there is none. */
static char *
member(Jsonb *object, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value;

	if (object == NULL || !JB_ROOT_IS_OBJECT(object))
		return NULL;
	value = getKeyJsonValueFromContainer(&object->root, name, strlen(name), &buffer);
	if (value == NULL)
		return NULL;
	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	if (value->type == jbvNumeric)
		return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	return NULL;
}

static char *
required_member(Jsonb *object, const char *name)
{
	char	   *value = member(object, name);

	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("task has no member \"%s\" that is a text or a number", name)));
	return value;
}

/* Which branch a task is about. */
static RetryPreparedBranch *
branch_of_task(Jsonb *task, RetryGlobal *global, RetrySceneRow *scene)
{
	pg_uuid_t	gid = *DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(required_member(task, "gid"))));
	int			no = pg_strtoint32(required_member(task, "branch"));
	RetryPreparedBranch *branch = NULL;

	PushActiveSnapshot(GetLatestSnapshot());
	if (retry_global_find(&gid, global) && retry_scene_by_id(GetActiveSnapshot(), global->scene_id, scene) &&
		retry_may_use_task(GetActiveSnapshot(), GetUserId(), &scene->group, global->begun_by))
		branch = retry_prepared_find(&gid, no);
	PopActiveSnapshot();
	if (branch == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("transaction %s has no branch %d", retry_id_text(&gid), no)));
	return branch;
}

/* retry.settle_branch(jsonb): what the tasks of a decision call. */
Datum
retry_settle_branch(PG_FUNCTION_ARGS)
{
	Jsonb	   *task = PG_GETARG_JSONB_P(0);
	RetryGlobal global;
	RetrySceneRow scene;
	RetryPreparedBranch *branch = branch_of_task(task, &global, &scene);
	RetryDecision decision = retry_decision_for_good(&branch->gid);
	RetryServer server;

	if (decision == RETRY_UNDECIDED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("transaction %s is not decided", retry_id_text(&branch->gid)),
				 errdetail("A decision counts from its commit on.")));
	PushActiveSnapshot(GetLatestSnapshot());
	retry_server_get(GetActiveSnapshot(), &scene.group, branch->server, &server);
	PopActiveSnapshot();
	PG_RETURN_TEXT_P(cstring_to_text(settle(&server, branch, decision, member(task, "xid"), member(task, "cluster"))));
}

/* ---------------------------------------------------------------- what is left behind */

static const char *const ask_ours =
"SELECT p.gid FROM pg_prepared_xacts p WHERE p.database = current_database() AND starts_with(p.gid, 'retry_')";

/*
 * retry.settle_server(jsonb): what is prepared there, whose fate is known, meets
 * it.  Mostly there is nothing to do: tasks have done it.
 */
Datum
retry_settle_server(PG_FUNCTION_ARGS)
{
	Jsonb	   *task = PG_GETARG_JSONB_P(0);
	char	   *group_name = member(task, "group");
	char	   *server_name = required_member(task, "server");
	RetryGroupRow group;
	RetryServer server;
	RetryRemoteResult found;
	int			committed = 0;
	int			rolled_back = 0;

	retry_own_group(group_name != NULL ? group_name : RETRY_DEFAULT_NAME, "settle what is prepared on servers of",
					&group);
	retry_server_get(GetActiveSnapshot(), &group, server_name, &server);
	retry_remote_command(&server, ask_ours, 0, NULL, 1, &found);
	if (found.failed)
		retry_remote_raise(&found);
	for (int i = 0; i < found.rows; i++)
	{
		RetryPreparedName name = {0};
		RetryFate	fate = found.values[i] == NULL ? RETRY_FATE_FOREIGN : retry_fate_of(found.values[i], &name);
		RetryPreparedBranch branch = {.no = name.branch,.server = server.name,.name = found.values[i]};
		RetryRemoteResult result;

		if (fate != RETRY_FATE_COMMIT && fate != RETRY_FATE_ROLLBACK && fate != RETRY_FATE_ORPHAN)
			continue;
		CHECK_FOR_INTERRUPTS();
		retry_remote_command(&server, psprintf("%s PREPARED %s", fate == RETRY_FATE_COMMIT ? "COMMIT" : "ROLLBACK",
											   quote_literal_cstr(branch.name)), 0, NULL, 0, &result);
		if (!result.failed)
			*(fate == RETRY_FATE_COMMIT ? &committed : &rolled_back) += 1;
		else if (result.sqlstate != ERRCODE_UNDEFINED_OBJECT &&
				 result.sqlstate != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
			retry_remote_raise(&result);	/* its task may be at it, else it
											 * is for a person */
	}
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("committed %d, rolled back %d", committed, rolled_back)));
}
