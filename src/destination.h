/*
 * destination.h
 *		Whether a group's request may go to a URL, as far as the URL tells.
 *
 * Judged twice: when a task with a URL of its own is enqueued, so that its
 * caller is told, and before each attempt, since rules change and URLs come from
 * scenes too.  What a name leads to is judged when a connection is made.
 */
#ifndef RETRY_DESTINATION_H
#define RETRY_DESTINATION_H

#include "host_rule.h"

/* What a row of retry.scene_group says. */
typedef struct RetryDestination
{
	bool		limited;		/* to these hosts, of which there may be none
								 * that can be read */
	int			nhosts;
	RetryHostRule *hosts;
	bool		https_only;
} RetryDestination;

/*
 * From the columns of a row of retry.scene_group; the hosts are palloc'd.  An
 * entry that no constraint would have let in matches nothing.
 */
extern void retry_destination_read(const Datum *values, const bool *isnull, RetryDestination *to);

/* A copy in the current memory context. */
extern void retry_destination_copy(RetryDestination *copy, const RetryDestination *to);

/*
 * Why the group's rules, or the server's for schemes, keep a request from this
 * URL: a constant sentence; NULL when they do not, or it is a function.
 */
extern const char *retry_destination_refusal(const RetryDestination *to, const char *url);

/*
 * ERROR (insufficient_privilege) when a request to this URL would be refused, by
 * the rules of the group or because its host is an address in a blocked network.
 * "what" is the argument that it came in, or "" for the target; "group" names
 * the group, NULL with "to": not known, so that only the server's rules count.
 */
extern void retry_destination_check(const char *what, const RetryUrl *url, const char *group,
									const RetryDestination *to);

#endif							/* RETRY_DESTINATION_H */
