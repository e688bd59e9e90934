/*
 * latency.c
 *		Latency histograms as SQL has them: arrays of counts.
 *
 * Statistics are kept by the minute and read by the hour or the day, so
 * histograms must add up; percentiles do not.  The arrays come from tables that
 * an administrator may write to, so they are checked before they are believed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "histogram.h"
#include "latency.h"

PG_FUNCTION_INFO_V1(retry_latency_add);
PG_FUNCTION_INFO_V1(retry_latency_total);
PG_FUNCTION_INFO_V1(retry_percentile);

bool
retry_latency_datum(const int64 *counts, Datum *value)
{
	Datum		elements[RETRY_HISTOGRAM_BUCKETS];
	int			first = 0;
	int			last = RETRY_HISTOGRAM_BUCKETS - 1;
	int			length;

	while (first <= last && counts[first] == 0)
		first++;
	if (first > last)
		return false;
	while (counts[last] == 0)
		last--;
	length = last - first + 1;
	for (int i = 0; i < length; i++)
		elements[i] = Int64GetDatum(counts[first + i]);
	*value = PointerGetDatum(construct_md_array(elements, NULL, 1, &length, &first, INT8OID,
												sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	return true;
}

/* Adds an array's counts to these; ERROR for one that is no histogram. */
static void
add_array(ArrayType *array, int64 *counts)
{
	Datum	   *elements;
	bool	   *isnull;
	int			n;
	int			first;

	if (ARR_NDIM(array) == 0)
		return;
	deconstruct_array(array, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &elements, &isnull, &n);
	first = ARR_LBOUND(array)[0];
	if (ARR_NDIM(array) != 1 || first < 0 || n > RETRY_HISTOGRAM_BUCKETS ||
		first > RETRY_HISTOGRAM_BUCKETS - n)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("an array of %d dimensions and %d elements from %d on is no latency histogram",
						ARR_NDIM(array), n, first),
				 errhint("Its subscripts are buckets from 0 to %d.", RETRY_HISTOGRAM_BUCKETS - 1)));
	for (int i = 0; i < n; i++)
	{
		int64		count = isnull[i] ? -1 : DatumGetInt64(elements[i]);

		if (count < 0 || count > PG_INT64_MAX - counts[first + i])
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("element %d of a latency histogram is null, negative or too large", first + i)));
		counts[first + i] += count;
	}
}

/* Transition of retry.latency_sum(): the state is an array of all counts. */
Datum
retry_latency_add(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	int64	   *counts;

	if (!AggCheckCallContext(fcinfo, &context))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("retry.latency_add() is called by an aggregate only")));
	if (PG_ARGISNULL(0))
		counts = MemoryContextAllocZero(context, RETRY_HISTOGRAM_BUCKETS * sizeof(int64));
	else
		counts = (int64 *) PG_GETARG_POINTER(0);
	if (!PG_ARGISNULL(1))
		add_array(PG_GETARG_ARRAYTYPE_P(1), counts);
	PG_RETURN_POINTER(counts);
}

Datum
retry_latency_total(PG_FUNCTION_ARGS)
{
	Datum		total;

	if (PG_ARGISNULL(0) || !retry_latency_datum((const int64 *) PG_GETARG_POINTER(0), &total))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(total);
}

/* retry.percentile(latency, share): the time within which that share ended. */
Datum
retry_percentile(PG_FUNCTION_ARGS)
{
	int64		counts[RETRY_HISTOGRAM_BUCKETS] = {0};
	Interval   *interval;
	int64		us;

	add_array(PG_GETARG_ARRAYTYPE_P(0), counts);
	us = retry_histogram_percentile_of(counts, PG_GETARG_FLOAT8(1));
	if (us < 0)
		PG_RETURN_NULL();
	interval = palloc0(sizeof(Interval));
	interval->time = us;
	PG_RETURN_INTERVAL_P(interval);
}
