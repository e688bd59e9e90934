/*
 * prepared.h
 *		Branches of two-phase commits: which there are, and what is to become
 *		of what is found prepared on a server.
 *
 * A branch is a row that never changes: where it is prepared, and under which
 * name.  What is done about it are operations (global.h), as in other modes: its
 * rollback is stored with it, its commit with the decision.
 */
#ifndef RETRY_PREPARED_H
#define RETRY_PREPARED_H

#include "nodes/pg_list.h"
#include "global.h"
#include "prepared_name.h"

/* Branches of one transaction, so that a session asks all servers at once. */
#define RETRY_MAX_PREPARED	16

/* Columns of retry.global_branch. */
enum
{
	Prepared_gid, Prepared_no, Prepared_server, Prepared_name, Prepared_natts
};

typedef struct RetryPreparedBranch
{
	pg_uuid_t	gid;
	int			no;				/* from 1 */
	char	   *server;			/* of the group of the transaction's scene */
	char	   *label;			/* what people call the branch; not stored
								 * here */
	char	   *name;			/* of the prepared transaction there */
} RetryPreparedBranch;

/* What is to become of a prepared transaction. */
typedef enum RetryFate
{
	RETRY_FATE_FOREIGN,			/* another database knows */
	RETRY_FATE_OPEN,			/* who registered it has not ended yet */
	RETRY_FATE_UNDECIDED,
	RETRY_FATE_COMMIT,
	RETRY_FATE_ROLLBACK,
	RETRY_FATE_ORPHAN,			/* nobody can ever decide: rolled back */
	RETRY_FATE_AGAIN			/* prepared again when it was committed */
} RetryFate;

/* All of a transaction (RetryPreparedBranch *), in order, as committed now; in the current memory context. */
extern List *retry_prepared_of(const pg_uuid_t *gid);

/* One of them; NULL when there is none. */
extern RetryPreparedBranch *retry_prepared_find(const pg_uuid_t *gid, int no);

extern void retry_prepared_store(const RetryPreparedBranch *branch);

/* A name for this branch, of this database and transaction. */
extern void retry_prepared_new_name(const pg_uuid_t *gid, int no, char *text);

/*
 * What another transaction has decided, for good: what is not committed yet, the
 * current transaction's own decision too, is RETRY_UNDECIDED, and what is
 * committed is on disk.  So it may be acted upon where nothing can be undone.
 */
extern RetryDecision retry_decision_for_good(const pg_uuid_t *gid);

/*
 * What is to become of a prepared transaction of this name, which must have been
 * seen on a server before this is called: who registers a branch does so before
 * its name is used.
 */
extern RetryFate retry_fate_of(const char *text, RetryPreparedName *name);

#endif							/* RETRY_PREPARED_H */
