/*
 * limits_view.c
 *		What groups with limits use of them, as rows for retry.limits.
 *
 * Who operates a group sees how much room is left before enqueue is refused,
 * and who administers retry who it is that floods.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "compat.h"
#include "group_use.h"

/* Columns of retry.limit_rows(), as retry--1.0.sql has them. */
enum
{
	Row_group_id, Row_pending, Row_lanes, Row_enqueue_left, Row_refused, Row_refused_at, Row_natts
};

PG_FUNCTION_INFO_V1(retry_limit_rows);

static void
add_row(ReturnSetInfo *result, int32 group_id, RetryGroupUse *use)
{
	Datum		values[Row_natts];
	bool		isnull[Row_natts] = {0};
	RetryRate	rate = use->rate;

	values[Row_group_id] = Int32GetDatum(group_id);
	values[Row_pending] = Int64GetDatum(retry_group_use_pending(use));
	isnull[Row_pending] = !use->counted;
	values[Row_lanes] = Int32GetDatum(use->lanes);
	isnull[Row_lanes] = !use->lanes_counted;
	isnull[Row_enqueue_left] = !retry_rate_valid(&rate);
	values[Row_enqueue_left] = Int64GetDatum(isnull[Row_enqueue_left] ? 0 : retry_group_use_left(use, &rate));
	values[Row_refused] = Int64GetDatum((int64) pg_atomic_read_u64(&use->refused));
	values[Row_refused_at] = TimestampTzGetDatum(use->refused_at);
	isnull[Row_refused_at] = use->refused_at == 0;
	tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
}

/* retry.limit_rows(): a row for each group that the role may see and that uses any. */
Datum
retry_limit_rows(PG_FUNCTION_ARGS)
{
	int32	   *groups;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	groups = retry_visible_groups(GetActiveSnapshot(), GetUserId(), false, &n);
	for (int i = 0; i < n; i++)
	{
		RetryGroupUse *use = retry_group_use_find(groups[i]);

		if (use != NULL)
			add_row((ReturnSetInfo *) fcinfo->resultinfo, groups[i], use);
	}
	return (Datum) 0;
}
