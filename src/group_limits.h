/*
 * group_limits.h
 *		What a group may have and ask for, and the refusal of more.
 *
 * The limits are columns of retry.scene_group that the group's owner cannot
 * set.  They are there for a group that floods the store, by mistake or not:
 * it gets errors, and other groups notice nothing.
 */
#ifndef RETRY_GROUP_LIMITS_H
#define RETRY_GROUP_LIMITS_H

#include "utils/jsonb.h"
#include "rate.h"

/* As a row of retry.scene_group has them; -1: no limit. */
typedef struct RetryGroupLimits
{
	bool		any;			/* at least one of them is set */
	int32		max_body_size;	/* bytes */
	int32		max_headers;	/* of a task */
	int32		max_headers_size;	/* names and values together, bytes */
} RetryGroupLimits;

/* From the columns of a row of retry.scene_group. */
extern void retry_group_limits_read(const Datum *values, const bool *isnull, RetryGroupLimits *limits);

/*
 * ERROR (program_limit_exceeded) when a body of so many bytes, or the headers of
 * a task (NULL: none), are more than the group may have.  "group" is its name.
 */
extern void retry_group_check_body(const RetryGroupLimits *limits, const char *group, Size bytes);
extern void retry_group_check_headers(const RetryGroupLimits *limits, const char *group, Jsonb *headers);

#endif							/* RETRY_GROUP_LIMITS_H */
