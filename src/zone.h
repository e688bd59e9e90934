/*
 * zone.h
 *		Time zones of the server, in the shape that the cron leaf asks for.
 *
 * Kept apart from cron.c, so that the schedule arithmetic can be tested and
 * fuzzed without the server's time-zone library.
 */
#ifndef RETRY_ZONE_H
#define RETRY_ZONE_H

#include "cron.h"
#include "pgtime.h"

extern pg_tz *retry_zone_find(const char *name);
extern bool retry_zone_open(const char *name, RetryZone *zone);

#endif							/* RETRY_ZONE_H */
