/*
 * settle.h
 *		COMMIT PREPARED and ROLLBACK PREPARED on other servers.
 *
 * What a commit must know of its branches before it may be decided; what comes
 * after it are targets of tasks, and need no header.
 */
#ifndef RETRY_SETTLE_H
#define RETRY_SETTLE_H

#include "prepared.h"
#include "server.h"

/* Target of the tasks that do it: what its scene says of answers is not about them. */
#define RETRY_SETTLE_TARGET "sql:retry.settle_branch"

/* By what a prepared transaction is known on its server when it has ended. */
typedef struct RetryPreparedNumber
{
	uint64		xid;			/* 0: not known */
	const char *cluster;		/* which gave the number: its system
								 * identifier */
} RetryPreparedNumber;

/*
 * Asks the servers of these branches (RetryPreparedBranch *) whether each is prepared
 * there, and can be committed by the role that we are there.  ERROR, naming the
 * branch, unless that is so of all; else their numbers there, in order, palloc'd.
 */
extern RetryPreparedNumber *retry_settle_verify(const RetryGroupRow *group, const List *branches);

#endif							/* RETRY_SETTLE_H */
