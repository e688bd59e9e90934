/*
 * group_limits.c
 *		What a group may have and ask for, and the refusal of more.
 *
 * A group without limits costs an enqueue the test of one flag, in the row of
 * the group that it has at hand anyway.
 */
#include "postgres.h"

#include "group_limits.h"
#include "scene.h"

static int32
read_int(const Datum *values, const bool *isnull, int column, RetryGroupLimits *limits)
{
	if (isnull[column])
		return -1;
	limits->any = true;
	return DatumGetInt32(values[column]);
}

void
retry_group_limits_read(const Datum *values, const bool *isnull, RetryGroupLimits *limits)
{
	memset(limits, 0, sizeof(*limits));
	limits->max_body_size = read_int(values, isnull, Group_max_body_size, limits);
	limits->max_headers = read_int(values, isnull, Group_max_headers, limits);
	limits->max_headers_size = read_int(values, isnull, Group_max_headers_size, limits);
}

void
retry_group_check_body(const RetryGroupLimits *limits, const char *group, Size bytes)
{
	if (!limits->any || limits->max_body_size < 0 || bytes <= (Size) limits->max_body_size)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("body of %zu bytes is larger than group \"%s\" may have, %d bytes",
					bytes, group, limits->max_body_size),
			 errhint("Store large data elsewhere and send a reference to it; who administers retry can raise max_body_size of the group.")));
}

void
retry_group_check_headers(const RetryGroupLimits *limits, const char *group, Jsonb *headers)
{
	JsonbIterator *it;
	JsonbValue	name;
	JsonbValue	value;
	Size		bytes = 0;
	int			count = 0;

	if (!limits->any || headers == NULL || (limits->max_headers < 0 && limits->max_headers_size < 0))
		return;
	it = JsonbIteratorInit(&headers->root);
	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &name, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&it, &value, true);
		bytes += name.val.string.len + value.val.string.len;
		count++;
	}
	if (limits->max_headers >= 0 && count > limits->max_headers)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%d headers are more than a task of group \"%s\" may have, %d",
						count, group, limits->max_headers),
				 errhint("Who administers retry can raise max_headers of the group.")));
	if (limits->max_headers_size >= 0 && bytes > (Size) limits->max_headers_size)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("headers of %zu bytes are larger than a task of group \"%s\" may have, %d bytes",
						bytes, group, limits->max_headers_size),
				 errhint("Who administers retry can raise max_headers_size of the group.")));
}
