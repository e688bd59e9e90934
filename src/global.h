/*
 * global.h
 *		Global transactions: what is decided, by whom, and exactly once.
 *
 * A transaction is a row that never changes; its decision is another row, which
 * is there or not.  Whoever decides has the transaction's row locked: sessions
 * wait for each other there, dispatchers for nobody.  What a decision brings
 * about is written by the transaction that writes the decision.
 */
#ifndef RETRY_GLOBAL_H
#define RETRY_GLOBAL_H

#include "datatype/timestamp.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"
#include "decision.h"
#include "global_scan.h"
#include "store.h"

/* Columns of retry.global_transaction. */
enum
{
	Global_gid, Global_mode, Global_scene_id, Global_begun_by, Global_begun_at,
	Global_at_limit, Global_check_id, Global_expires_at, Global_key, Global_reference, Global_natts
};

/* Columns of retry.global_decision. */
enum
{
	Decision_gid, Decision_decided_at, Decision_decided_by, Decision_decision,
	Decision_how, Decision_natts
};

/* Its kind. */
typedef enum RetryGlobalMode
{
	RETRY_MODE_MESSAGE,			/* delivered when it is committed */
	RETRY_MODE_SAGA,			/* actions, which are compensated */
	RETRY_MODE_TCC,				/* tries, which are confirmed or cancelled */
	RETRY_MODE_2PC				/* prepared transactions of other servers */
} RetryGlobalMode;

typedef struct RetryGlobal
{
	pg_uuid_t	gid;
	RetryGlobalMode mode;
	int32		scene_id;
	Oid			begun_by;
	RetryDecision at_limit;		/* when nobody else has decided */
	bool		has_check;
	pg_uuid_t	check_id;		/* the task that decides if nobody else does */
	TimestampTz expires_at;		/* 0: never */
	text	   *key;			/* NULL: none.  These two are not read back */
	text	   *reference;
} RetryGlobal;

typedef enum RetryGlobalLock
{
	RETRY_GLOBAL_MISSING,
	RETRY_GLOBAL_BUSY,			/* somebody is deciding, or has a table locked */
	RETRY_GLOBAL_LOCKED			/* until the end of the current transaction */
} RetryGlobalLock;

/* The decision that a column has the word for; it may be toasted. */
extern RetryDecision retry_decision_in(Datum value);

/* The mode, likewise. */
extern RetryGlobalMode retry_global_mode_in(Datum value);

/* Reads a transaction, as it is committed now; false when there is none. */
extern bool retry_global_find(const pg_uuid_t *gid, RetryGlobal *global);

/*
 * Locks it against others who decide, and reads it and what is decided so far
 * (RETRY_UNDECIDED: nothing), by what is committed then.  Without "wait" it
 * waits for nothing that a session can hold.
 */
extern RetryGlobalLock retry_global_lock(const pg_uuid_t *gid, bool wait, RetryGlobal *global,
										 RetryDecision *decision);

/* The same, for who locks many of them, by scans that wait or do not. */
extern RetryGlobalLock retry_global_lock_by(RetryGlobalScans *scans, const pg_uuid_t *gid,
											RetryGlobal *global, RetryDecision *decision);

/* Stores a transaction, as begun at this moment. */
extern void retry_global_store(const RetryGlobal *global, TimestampTz now);

/* Stores the message of one; the values are whole, as of retry.task. */
extern void retry_global_store_message(const Datum *values, const bool *isnull);

/*
 * Opens one of these tables, locked until the end of the transaction; NULL when,
 * without "wait", that cannot be had at once.
 */
extern Relation retry_global_open(const char *name, LOCKMODE mode, bool wait);

/* Stores a decision of the current role, in the current transaction. */
extern void retry_global_decide(const pg_uuid_t *gid, RetryDecision decision);

/*
 * A row of retry.global_decision, in the current memory context.  "how" says
 * what decided, a word that the column knows; "by" is InvalidOid but for a caller.
 */
extern void retry_global_decision_row(const pg_uuid_t *gid, RetryDecision decision, const char *how,
									  Oid by, TimestampTz at, Datum *values, bool *isnull);

/*
 * Reads the message of a transaction, as a row of retry.task of which leaf, id,
 * xid and due_at are to be filled in anew, and the moment before which it is not
 * due; in the current memory context.  False when it is not there, or ("wait" is
 * false) cannot be read at once, which *busy tells apart.
 */
extern bool retry_global_message(const pg_uuid_t *gid, bool wait, Datum *values, bool *isnull,
								 TimestampTz *due_at, bool *busy);

/* What is decided, by what is committed now; false when that cannot be read at once, and the scans do not wait. */
extern bool retry_global_decided(RetryGlobalScans *scans, const pg_uuid_t *gid, RetryDecision *decision);

/* What is decided over it, as of now; false when there is no such transaction. */
extern bool retry_global_decision(const pg_uuid_t *gid, RetryDecision *decision);

#endif							/* RETRY_GLOBAL_H */
