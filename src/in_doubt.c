/*
 * in_doubt.c
 *		retry.in_doubt(): what is prepared on other servers, what is to become
 *		of it, and who waits for it there.
 *
 * A prepared transaction keeps its locks, and old row versions from vacuum,
 * until somebody settles it, and shows itself on its server by a name only.  So
 * the servers are asked, and here it is known what the names mean.  A server
 * that cannot be asked is a row that says why.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "access.h"
#include "arguments.h"
#include "prepared.h"
#include "locate.h"
#include "remote.h"
#include "subtransaction.h"

PG_FUNCTION_INFO_V1(retry_in_doubt);

/*
 * The locks of prepared transactions have no process, and are those of one
 * virtual transaction, the lock on the transaction's own number among them; who
 * waits for one of them waits for a lock on the same thing.
 */
static const char *const ask =
"WITH p AS MATERIALIZED (SELECT * FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, 'retry_')),"
" l AS MATERIALIZED (SELECT k.*, (k.locktype, k.database, k.relation, k.page, k.tuple, k.virtualxid, k.transactionid,"
"   k.classid, k.objid, k.objsubid)::text AS thing FROM pg_locks k WHERE EXISTS (SELECT FROM p)),"
" held AS MATERIALIZED (SELECT x.transactionid AS holder, h.* FROM l x"
"  JOIN l h ON h.virtualtransaction = x.virtualtransaction AND h.pid IS NULL AND h.granted"
"  WHERE x.locktype = 'transactionid' AND x.pid IS NULL AND x.granted)"
" SELECT p.gid, to_char(p.prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00'), p.owner,"
" (SELECT array_agg(DISTINCT c.oid::regclass::text ORDER BY c.oid::regclass::text)"
"  FROM held h JOIN pg_class c ON c.oid = h.relation"
"  WHERE h.holder = p.transaction AND h.locktype = 'relation' AND c.relkind IN ('r', 'p', 'm')"
"  AND c.relnamespace <> 'pg_catalog'::regnamespace),"
" (SELECT array_agg(DISTINCT w.pid ORDER BY w.pid) FROM held h JOIN l w ON NOT w.granted AND w.thing = h.thing"
"  WHERE h.holder = p.transaction),"
" current_setting('max_prepared_transactions')"
" FROM (VALUES (1)) AS one (n) LEFT JOIN p ON true ORDER BY p.prepared, p.gid";

enum
{
	Asked_gid, Asked_prepared, Asked_owner, Asked_locked, Asked_waiting, Asked_max, Asked_columns
};

/* Columns of the function. */
enum
{
	Doubt_server, Doubt_name, Doubt_state, Doubt_gid, Doubt_branch,
	Doubt_prepared_at, Doubt_owner, Doubt_locked, Doubt_waiting, Doubt_error, Doubt_natts
};

static const char *
fate_word(RetryFate fate)
{
	switch (fate)
	{
		case RETRY_FATE_OPEN:
			return "open";
		case RETRY_FATE_UNDECIDED:
			return "undecided";
		case RETRY_FATE_COMMIT:
			return "to be committed";
		case RETRY_FATE_ROLLBACK:
			return "to be rolled back";
		case RETRY_FATE_ORPHAN:
			return "orphan";
		case RETRY_FATE_AGAIN:
			return "prepared again";
		case RETRY_FATE_FOREIGN:
			break;
	}
	return "foreign";
}

/* What a server has answered, and what becomes of it. */
typedef struct Answer
{
	AttInMetadata *input;
	const RetryServer *server;
	const RetryRemoteResult *found;
	List	   *rows;			/* of the function, as HeapTuples */
} Answer;

/* A row for each transaction that the server names; ERROR when something is no time, number or list. */
static void
read_rows(void *arg)
{
	Answer	   *answer = arg;
	const RetryRemoteResult *found = answer->found;

	for (int row = 0; row < found->rows; row++)
	{
		char	  **asked = found->values + row * found->columns;
		char	   *values[Doubt_natts] = {0};
		RetryPreparedName name;
		pg_uuid_t	gid;

		if (asked[Asked_gid] == NULL)
			continue;
		CHECK_FOR_INTERRUPTS();
		values[Doubt_server] = pstrdup(answer->server->name);
		values[Doubt_name] = asked[Asked_gid];
		values[Doubt_state] = unconstify(char *, fate_word(retry_fate_of(asked[Asked_gid], &name)));
		if (retry_prepared_name_read(asked[Asked_gid], &name))
		{
			memcpy(gid.data, name.gid, UUID_LEN);
			values[Doubt_gid] = retry_id_text(&gid);
			values[Doubt_branch] = psprintf("%d", name.branch);
		}
		values[Doubt_prepared_at] = asked[Asked_prepared];
		values[Doubt_owner] = asked[Asked_owner];
		values[Doubt_locked] = asked[Asked_locked];
		values[Doubt_waiting] = asked[Asked_waiting];
		answer->rows = lappend(answer->rows, BuildTupleFromCStrings(answer->input, values));
	}
}

/*
 * False when it cannot be read.  What it is instead is not repeated, and the
 * other servers are asked all the same.
 */
static bool
could_read_rows(Answer *answer)
{
	ErrorData  *error = retry_subtransaction(read_rows, answer, true);

	if (error == NULL)
		return true;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
		ReThrowError(error);
	answer->rows = NIL;
	return false;
}

/* What is prepared on one server. */
static void
ask_server(ReturnSetInfo *result, AttInMetadata *input, const RetryServer *server)
{
	char	   *values[Doubt_natts] = {0};
	RetryRemoteResult found;
	Answer		answer = {.input = input,.server = server,.found = &found};
	ListCell   *cell;

	values[Doubt_server] = pstrdup(server->name);
	retry_remote_command(server, ask, 0, NULL, Asked_columns, &found);
	if (found.failed)
		values[Doubt_error] = found.message;
	else if (found.values[Asked_max] == NULL)
		values[Doubt_error] = psprintf("server \"%s\" does not say what is prepared there", server->name);
	else if (strcmp(found.values[Asked_max], "0") == 0)
		values[Doubt_error] = "max_prepared_transactions is 0: nothing can be prepared there";
	else if (!could_read_rows(&answer))
		values[Doubt_error] = psprintf("server \"%s\": it does not answer as PostgreSQL does", server->name);
	if (values[Doubt_error] != NULL)
		tuplestore_puttuple(result->setResult, BuildTupleFromCStrings(input, values));
	foreach(cell, answer.rows)
		tuplestore_puttuple(result->setResult, lfirst(cell));
}

/* retry.in_doubt(server, group_name): of one server, or (null) of all of the group. */
Datum
retry_in_doubt(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	AttInMetadata *input;
	RetryGroupRow group;
	RetryServer server;
	List	   *names;
	ListCell   *cell;

	retry_require_argument(fcinfo, 1, "group_name");
	retry_own_group(text_to_cstring(PG_GETARG_TEXT_PP(1)), "look at servers of", &group);
	names = PG_ARGISNULL(0) ? retry_servers_of_group(GetActiveSnapshot(), &group) :
		list_make1(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	InitMaterializedSRF(fcinfo, 0);
	input = TupleDescGetAttInMetadata(result->setDesc);
	foreach(cell, names)
	{
		retry_server_get(GetActiveSnapshot(), &group, lfirst(cell), &server);
		ask_server(result, input, &server);
	}
	return (Datum) 0;
}
