/*
 * zone.c
 *		Time zones of the server, in the shape that the cron leaf asks for.
 *
 * Cron schedules must agree with what AT TIME ZONE says in the same database,
 * so they use the server's own copy of the time-zone data.  The server keeps a
 * zone that it has read for the life of the process; asking it for an offset
 * afterwards costs a binary search and no memory.
 */
#include "postgres.h"

#include "pgtime.h"

#include "zone.h"

/* Is this the name of a zone in the server's list, in any case? */
static bool
is_listed(const char *name)
{
	pg_tzenum  *list = pg_tzenumerate_start();
	bool		found = false;
	pg_tz	   *tz;

	while (!found && (tz = pg_tzenumerate_next(list)) != NULL)
		found = pg_strcasecmp(pg_get_timezone_name(tz), name) == 0;
	pg_tzenumerate_end(list);
	return found;
}

/*
 * Find a zone by its name, in any case; NULL if there is none.
 *
 * pg_tzset would also take POSIX rules, and with them nearly any word that has
 * a digit in it, mistyped names included ("Europe/Pari5").  Such names must be
 * in the list of zones, which is slow to read, but few have one (Etc/GMT+1).
 * Memory: the server's, kept.  Runs out of memory with an ERROR.
 */
pg_tz *
retry_zone_find(const char *name)
{
	pg_tz	   *tz = pg_tzset(name);

	/* zones that count leap seconds are not what timestamps are made of */
	if (tz == NULL || !pg_tz_acceptable(tz))
		return NULL;
	if (strpbrk(name, "0123456789") != NULL && !is_listed(name))
		return NULL;
	return tz;
}

static void
next_change(const void *opaque, int64 at, int32 *offset, int64 *change)
{
	pg_time_t	when = (pg_time_t) at;
	pg_time_t	boundary;
	long int	before;
	long int	after;
	int			before_isdst;
	int			after_isdst;
	int			found = pg_next_dst_boundary(&when, &before, &before_isdst,
											 &boundary, &after, &after_isdst,
											 (const pg_tz *) opaque);

	*offset = found < 0 ? 0 : (int32) before;
	*change = found > 0 ? (int64) boundary : PG_INT64_MAX;
}

/*
 * Make the zone of a stored schedule ready for retry_cron_next and
 * retry_backoff_next.  The names of stored schedules were checked when they
 * came in; if the zone has left the server's data since, the result is false
 * and *zone is UTC, so that a caller can complain and go on.  name may be NULL
 * (no cron form): UTC.  *zone needs no cleaning up.
 */
bool
retry_zone_open(const char *name, RetryZone *zone)
{
	pg_tz	   *tz;

	memset(zone, 0, sizeof(*zone));
	if (name == NULL || pg_strcasecmp(name, "UTC") == 0)
		return true;
	tz = pg_tzset(name);
	if (tz == NULL)
		return false;
	zone->next_change = next_change;
	zone->opaque = tz;
	return true;
}
