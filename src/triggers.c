/*
 * triggers.c
 *		The two triggers that the tables of retry carry, and the function by
 *		which CREATE EXTENSION asks for dispatchers.
 *
 * retry.enqueue() writes rows past the executor and meets no trigger.  So a row
 * that does meet the one on the leaves came in another way: from a dump, by
 * replication, by hand.  It must neither bring another cluster's transaction
 * number into the feed nor be sent before an administrator says so.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/xid8.h"

#include "compat.h"
#include "shmem.h"
#include "task.h"
#include "wakeup.h"

PG_FUNCTION_INFO_V1(retry_mark_foreign_row);
PG_FUNCTION_INFO_V1(retry_config_changed);
PG_FUNCTION_INFO_V1(retry_check_workers);

/* The number of a column that must be there with this type. */
static int
column_number(Relation rel, const char *name, Oid type)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			number = SPI_fnumber(desc, name);

	if (number <= 0 || TupleDescAttr(desc, number - 1)->atttypid != type)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("table \"%s\" has no column \"%s\" of type %s, as mark_foreign_row() needs",
						RelationGetRelationName(rel), name, format_type_be(type))));
	return number;
}

/* BEFORE INSERT, FOR EACH ROW, on the leaves of task and signal. */
Datum
retry_mark_foreign_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	FullTransactionId xid;
	Relation	rel;
	int			columns[2];
	Datum		values[2];
	bool		nulls[2] = {false, false};
	bool		leaf_null;
	bool		lane_null;
	int			leaf;
	int64		lane_hash;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("mark_foreign_row() can only be called as a BEFORE INSERT trigger for each row")));

	rel = trigger->tg_relation;
	xid = GetTopFullTransactionId();
	columns[0] = column_number(rel, "xid", XID8OID);
	values[0] = FullTransactionIdGetDatum(xid);
	columns[1] = column_number(rel, "inert", BOOLOID);
	values[1] = BoolGetDatum(true);

	leaf = DatumGetInt16(SPI_getbinval(trigger->tg_trigtuple, RelationGetDescr(rel),
									   column_number(rel, "leaf", INT2OID), &leaf_null));
	lane_hash = DatumGetInt64(SPI_getbinval(trigger->tg_trigtuple, RelationGetDescr(rel),
											column_number(rel, "lane_hash", INT8OID), &lane_null));
	if (!leaf_null && !lane_null && leaf >= 0 && leaf < RETRY_LEAVES)
		retry_wakeup_row(leaf, lane_hash, U64FromFullTransactionId(xid));

	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_trigtuple, RelationGetDescr(rel),
													 2, columns, values, nulls));
}

/* AFTER, FOR EACH STATEMENT, on the configuration tables. */
Datum
retry_config_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("config_changed() can only be called as a trigger")));
	retry_wakeup_config();
	return PointerGetDatum(NULL);
}

/*
 * retry.check_workers(): the last statement of the install and update scripts.
 * If the transaction rolls back, nothing happens.
 */
Datum
retry_check_workers(PG_FUNCTION_ARGS)
{
	retry_warn_not_preloaded();
	retry_wakeup_launcher();
	PG_RETURN_VOID();
}
