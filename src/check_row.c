/*
 * check_row.c
 *		Bad values in the configuration tables: which column, and what value.
 *
 * PostgreSQL's own words for a violated CHECK are the name of the constraint
 * and the whole row, of some thirty columns.  Whoever has mistyped one of them,
 * or imports a document of hundreds of scenes, wants to know which.  So this
 * trigger looks at the same constraints just before, whatever they are, and
 * says it plainly; an error that a checking function raises itself is kept,
 * and gets the column's name in front.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#include "compat.h"
#include "quote.h"

PG_FUNCTION_INFO_V1(retry_check_row);

/* The value of the column as text; NULL when it is null or there is none such. */
static char *
value_named(const TriggerData *trigger, HeapTuple row, const char *name)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);

	return SPI_getvalue(row, desc, SPI_fnumber(desc, name));
}

/* What the row is, for people: scene "billing/invoice". */
static char *
describe_row(const TriggerData *trigger, HeapTuple row)
{
	Relation	rel = trigger->tg_relation;
	char	   *group = value_named(trigger, row, "group_name");
	char	   *name = value_named(trigger, row, "name");
	char	   *lane = value_named(trigger, row, "lane");

	if (lane != NULL)
		return psprintf("lane \"%s\" of group \"%s\"", retry_quoted_string(lane), group != NULL ? group : "");
	if (name == NULL)
		return psprintf("a row of retry.%s", RelationGetRelationName(rel));
	if (SPI_fnumber(RelationGetDescr(rel), "group_name") == SPI_ERROR_NOATTRIBUTE)
		return psprintf("group \"%s\"", name);
	return psprintf("%s \"%s/%s\"",
					strcmp(RelationGetRelationName(rel), "alarm_rule") == 0 ? "alarm rule" : RelationGetRelationName(rel),
					group != NULL ? group : "", name);
}

/*
 * What a constraint is about: its column and the value of that, or all of
 * them.  Returns the number of the first column, 0 if there is none.
 */
static int
describe_columns(const TriggerData *trigger, HeapTuple row, Node *expression, StringInfo names, StringInfo values)
{
	Bitmapset  *columns = NULL;
	int			first = 0;
	int			n = -1;

	initStringInfo(names);
	initStringInfo(values);
	pull_varattnos(expression, 1, &columns);
	while ((n = bms_next_member(columns, n)) >= 0)
	{
		int			number = n + FirstLowInvalidHeapAttributeNumber;
		char	   *value;

		if (number <= 0)
			continue;
		value = SPI_getvalue(row, RelationGetDescr(trigger->tg_relation), number);
		appendStringInfo(names, first ? ", \"%s\"" : "\"%s\"",
						 NameStr(TupleDescAttr(RelationGetDescr(trigger->tg_relation), number - 1)->attname));
		appendStringInfoString(values, first ? ", " : "");
		appendStringInfo(values, value != NULL ? "\"%s\"" : "null", value);
		if (first == 0)
			first = number;
	}
	return first;
}

/* Puts the row and the column in front of an error, and raises it again. */
static void
raise_again(ErrorData *error, const char *where, const char *column)
{
	const char *said = psprintf("column %s: ", column);
	const char *message = error->message;

	if (strncmp(message, said, strlen(said)) == 0)
		message += strlen(said);
	error->message = psprintf("%s, column \"%s\": %s", where, column, message);
	if (error->column_name == NULL)
		error->column_name = pstrdup(column);
	ReThrowError(error);
}

/* Does the row satisfy it? */
static bool
is_satisfied(Expr *expression, ExprContext *context, EState *estate, const char *where, const char *column)
{
	MemoryContext caller = CurrentMemoryContext;
	bool		good = true;

	PG_TRY();
	{
		good = ExecCheck(ExecPrepareExpr(expression, estate), context);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		raise_again(error, where, column);
	}
	PG_END_TRY();
	return good;
}

/* Judges one constraint. */
static void
check_one(const TriggerData *trigger, HeapTuple row, ExprContext *context, EState *estate, int n)
{
	const Relation rel = trigger->tg_relation;
	const ConstrCheck *check = &rel->rd_att->constr->check[n];
	Expr	   *expression = stringToNode(check->ccbin);
	StringInfoData names;
	StringInfoData values;
	int			number = describe_columns(trigger, row, (Node *) expression, &names, &values);
	char	   *where;

	if (number == 0)
		return;
	where = describe_row(trigger, row);
	if (!is_satisfied(expression, context, estate, where,
					  NameStr(TupleDescAttr(RelationGetDescr(rel), number - 1)->attname)))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 strchr(names.data, ',') == NULL ?
				 errmsg("%s, column %s: invalid value %s", where, names.data, values.data) :
				 errmsg("%s, columns %s: invalid together: %s", where, names.data, values.data),
				 errdetail("It must satisfy %s.",
						   deparse_expression((Node *) expression,
											  deparse_context_for(RelationGetRelationName(rel), RelationGetRelid(rel)),
											  false, false)),
				 errtablecol(rel, number),
				 errtableconstraint(rel, check->ccname)));
}

/* A null where there must be none: without the whole row, which may hold secrets. */
static void
check_nulls(const TriggerData *trigger, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);

	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attnotnull && heap_attisnull(row, i + 1, desc))
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("%s, column \"%s\": it must not be null", describe_row(trigger, row),
							NameStr(TupleDescAttr(desc, i)->attname)),
					 errtablecol(trigger->tg_relation, i + 1)));
	}
}

/*
 * BEFORE INSERT OR UPDATE, FOR EACH ROW, on the configuration tables.  The
 * constraints are judged again after; here they only find better words.
 */
Datum
retry_check_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleConstr *constraints;
	TupleTableSlot *slot;
	ExprContext *context;
	HeapTuple	row;
	EState	   *estate;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) || TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("check_row() can only be called as a BEFORE INSERT OR UPDATE trigger for each row")));

	row = TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? trigger->tg_trigtuple : trigger->tg_newtuple;
	check_nulls(trigger, row);
	constraints = RelationGetDescr(trigger->tg_relation)->constr;
	if (constraints == NULL || constraints->num_check == 0)
		return PointerGetDatum(row);
	estate = CreateExecutorState();
	slot = MakeSingleTupleTableSlot(RelationGetDescr(trigger->tg_relation), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(row, slot, false);
	context = GetPerTupleExprContext(estate);
	context->ecxt_scantuple = slot;
	for (int i = 0; i < constraints->num_check; i++)
		check_one(trigger, row, context, estate, i);
	ExecDropSingleTupleTableSlot(slot);
	FreeExecutorState(estate);
	return PointerGetDatum(row);
}
