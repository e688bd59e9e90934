/*
 * server.c
 *		Reads rows of retry.server, past the rights of who calls.
 *
 * Who may use a group may have its transactions finished on the group's
 * servers, without being told how one connects to them; only the owner of the
 * extension writes and reads the table itself.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "quote.h"
#include "row.h"
#include "secret.h"
#include "server.h"
#include "store.h"

static void
text_key(ScanKey key, int column, const char *value)
{
	ScanKeyEntryInitialize(key, 0, column + 1, BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(value));
}

/* The value of its secret. */
static void
read_password(Snapshot snapshot, const RetryGroupRow *group, RetryServer *server)
{
	const RetrySecret *secret;
	int			count;

	server->password = NULL;
	if (server->secret == NULL)
		return;
	secret = retry_secrets_find(retry_secrets_of_group(group->id, snapshot), group->id,
								server->secret, strlen(server->secret), &count);
	if (secret != NULL && !secret->certificate)
		server->password = secret->value;
}

static void
read_row(HeapTuple row, TupleDesc desc, RetryServer *server)
{
	Datum		values[Server_natts];
	bool		isnull[Server_natts];
	const Interval *timeout;

	retry_row_read(row, desc, Server_natts, values, isnull);
	text_to_cstring_buffer(DatumGetTextPP(values[Server_group_name]), server->group, sizeof(server->group));
	text_to_cstring_buffer(DatumGetTextPP(values[Server_name]), server->name, sizeof(server->name));
	server->conninfo = TextDatumGetCString(values[Server_conninfo]);
	server->secret = isnull[Server_secret] ? NULL : TextDatumGetCString(values[Server_secret]);
	timeout = DatumGetIntervalP(values[Server_timeout]);
	server->timeout_ms = (int32) ((((int64) timeout->month * DAYS_PER_MONTH + timeout->day) * USECS_PER_DAY +
								   timeout->time) / 1000);	/* at most a minute */
}

bool
retry_server_find(Snapshot snapshot, const RetryGroupRow *group, const char *name,
				  RetryServer *server)
{
	Relation	rel = table_open(retry_relation_oid("server"), AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	row;

	text_key(&keys[0], Server_group_name, group->name);
	text_key(&keys[1], Server_name, name);
	scan = systable_beginscan(rel, retry_relation_oid("server_pkey"), true, snapshot, lengthof(keys), keys);
	row = systable_getnext(scan);
	if (HeapTupleIsValid(row))
		read_row(row, RelationGetDescr(rel), server);
	systable_endscan(scan);
	table_close(rel, NoLock);
	if (!HeapTupleIsValid(row))
		return false;
	read_password(snapshot, group, server);
	return true;
}

void
retry_server_get(Snapshot snapshot, const RetryGroupRow *group, const char *name,
				 RetryServer *server)
{
	if (!retry_server_find(snapshot, group, name, server))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("group \"%s\" has no server \"%s\"", group->name, retry_quoted_string(name)),
				 errhint("Servers are rows of retry.server, which the owner of the extension writes.")));
}

List *
retry_servers_of_group(Snapshot snapshot, const RetryGroupRow *group)
{
	Relation	rel = table_open(retry_relation_oid("server"), AccessShareLock);
	List	   *names = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;
	bool		isnull;

	text_key(&key, Server_group_name, group->name);
	scan = systable_beginscan(rel, retry_relation_oid("server_pkey"), true, snapshot, 1, &key);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
		names = lappend(names, TextDatumGetCString(heap_getattr(row, Server_name + 1, RelationGetDescr(rel),
																&isnull)));
	systable_endscan(scan);
	table_close(rel, NoLock);
	return names;
}
