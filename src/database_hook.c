/*
 * database_hook.c
 *		Empties a database of dispatchers while a command needs it for itself.
 *
 * DROP DATABASE, CREATE DATABASE from a template, and renaming or moving a
 * database wait until nobody else is connected to it, and then fail; and
 * nobody tells background workers to leave.  So before such a command its
 * database is held: its dispatchers record what they have and leave, and no
 * new ones start until the end of the transaction, however that ends.  (The end
 * of the transaction and not of the command, since a renamed database stays
 * locked until then, and a dispatcher that connects would wait for that lock.)
 *
 * Only those who may execute the command get that far: delivery must not stop
 * because somebody without rights tries to drop a database.
 *
 * DROP EXTENSION and ALTER EXTENSION do the same to their own database, and the
 * launcher looks at once whether ALTER left the library's version.  ALTER
 * DATABASE SET restarts the dispatchers when it has committed, because they
 * read such settings when they start.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "database_hook.h"
#include "shmem.h"
#include "trigger_guard.h"
#include "wakeup.h"

/*
 * How long a command waits for dispatchers.  They get themselves less time to
 * finish; if one does not manage, the command goes on and PostgreSQL's own wait
 * (5 s) and error message follow.
 */
#define LEAVE_TIMEOUT_US	(5 * USECS_PER_SEC)

static ProcessUtility_hook_type previous_hook = NULL;

/* ---------------------------------------------------------------- who may */

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may = false;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

static bool
is_template(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		result = false;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return result;
}

static bool
owns(Oid database)
{
	return retry_owns_database(database, GetUserId());
}

/* ---------------------------------------------------------------- which */

static const char *
string_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/* DROP EXTENSION of ours, among others? */
static bool
drops_ours(const DropStmt *drop)
{
	ListCell   *cell;

	if (drop->removeType != OBJECT_EXTENSION)
		return false;
	foreach(cell, drop->objects)
	{
		if (strcmp(strVal(lfirst(cell)), "retry") == 0)
			return true;
	}
	return false;
}

/*
 * DROP and ALTER EXTENSION need the dispatchers of their own database out of
 * the way, so that these do not stumble over what is no longer there.
 */
static bool
changes_extension(Node *statement)
{
	Oid			extension;

	if (!(IsA(statement, DropStmt) && drops_ours(castNode(DropStmt, statement))) &&
		!(IsA(statement, AlterExtensionStmt) &&
		  strcmp(castNode(AlterExtensionStmt, statement)->extname, "retry") == 0))
		return false;
	extension = get_extension_oid("retry", true);
	return OidIsValid(extension) && retry_owns_extension(extension, GetUserId());
}

/*
 * The database that the command needs empty of dispatchers, if this user may
 * execute it.  Mistakes of any kind are left to the command itself to report.
 */
static Oid
database_needed(Node *statement)
{
	const char *name = NULL;
	Oid			database;
	bool		may;

	if (changes_extension(statement))
		return MyDatabaseId;
	if (IsA(statement, DropdbStmt))
		name = castNode(DropdbStmt, statement)->dbname;
	else if (IsA(statement, CreatedbStmt))
	{
		name = string_option(castNode(CreatedbStmt, statement)->options, "template");
		if (name == NULL)
			name = "template1";
	}
	else if (IsA(statement, AlterDatabaseStmt) &&
			 string_option(castNode(AlterDatabaseStmt, statement)->options, "tablespace") != NULL)
		name = castNode(AlterDatabaseStmt, statement)->dbname;
	else if (IsA(statement, RenameStmt) &&
			 castNode(RenameStmt, statement)->renameType == OBJECT_DATABASE)
		name = castNode(RenameStmt, statement)->subname;
	if (name == NULL)
		return InvalidOid;

	/* The others refuse to run in a transaction block. */
	if (!IsA(statement, RenameStmt) && IsTransactionBlock())
		return InvalidOid;

	database = get_database_oid(name, true);
	if (!OidIsValid(database))
		return InvalidOid;
	if (IsA(statement, CreatedbStmt))
		may = may_create_databases() && (is_template(database) || owns(database));
	else if (database == MyDatabaseId)
		may = false;			/* these refuse the current database */
	else
		may = owns(database) && (!IsA(statement, RenameStmt) || may_create_databases());
	return may ? database : InvalidOid;
}

/* ---------------------------------------------------------------- holding */

static void
at_transaction_event(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		retry_shmem_release_hold();
}

/*
 * Holds the database and waits, for a bounded time, until its dispatchers have
 * left.  Can be interrupted; the end of the transaction releases the hold.
 */
static void
empty_database(Oid database)
{
	static bool registered = false;
	int64		until = retry_monotonic_us() + LEAVE_TIMEOUT_US;

	if (!registered)
	{
		RegisterXactCallback(at_transaction_event, NULL);
		registered = true;
	}
	if (!retry_shmem_hold(database))
		return;
	while (retry_shmem_occupied(database) && retry_monotonic_us() < until)
	{
		/* A dispatcher that leaves sets our latch. */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 100, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* ---------------------------------------------------------------- the hook */

/* Is it about a setting of ours, such as retry.enabled? */
static bool
sets_ours(const VariableSetStmt *set)
{
	return set->kind == VAR_RESET_ALL ||
		(set->name != NULL && pg_strncasecmp(set->name, "retry.", 6) == 0);
}

/* After the command: who has to know of it, at commit? */
static void
tell(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_CreatedbStmt:
		case T_DropdbStmt:
		case T_AlterDatabaseStmt:
			retry_wakeup_databases();
			break;
		case T_RenameStmt:
			if (castNode(RenameStmt, statement)->renameType == OBJECT_DATABASE)
				retry_wakeup_databases();
			break;
		case T_AlterDatabaseSetStmt:
			if (sets_ours(castNode(AlterDatabaseSetStmt, statement)->setstmt))
				retry_wakeup_restart(get_database_oid(castNode(AlterDatabaseSetStmt, statement)->dbname, true));
			break;
		case T_AlterExtensionStmt:
			/* it may be of the library's version now */
			if (strcmp(castNode(AlterExtensionStmt, statement)->extname, "retry") == 0)
				retry_wakeup_launcher();
			break;
		default:
			break;
	}
}

/* True when dispatchers are to be told after the statement. */
static bool
note_prepared(const TransactionStmt *statement)
{
	if (statement->kind == TRANS_STMT_PREPARE)
		retry_wakeup_preparing(statement->gid);
	return statement->kind == TRANS_STMT_COMMIT_PREPARED && retry_wakeup_wanted(statement->gid);
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;
	Oid			database = InvalidOid;
	bool		ours = false;
	bool		prepared = false;
	bool		alters = false;

	switch (nodeTag(statement))
	{
		case T_CreatedbStmt:
		case T_DropdbStmt:
		case T_AlterDatabaseStmt:
		case T_RenameStmt:
		case T_DropStmt:
		case T_AlterExtensionStmt:
			ours = retry_shmem_ready();
			if (ours)
				database = database_needed(statement);
			break;
		case T_AlterDatabaseSetStmt:
			ours = retry_shmem_ready();
			break;
		case T_AlterTableStmt:
			alters = true;
			break;
		case T_TransactionStmt:
			prepared = note_prepared(castNode(TransactionStmt, statement));
			break;
		default:
			break;
	}
	if (OidIsValid(database))
		empty_database(database);

	if (previous_hook)
		previous_hook(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);

	if (ours)
		tell(statement);
	if (prepared)
		retry_wakeup_prepared();
	if (alters)
		retry_guard_triggers(castNode(AlterTableStmt, statement));
}

void
retry_database_hook_init(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
