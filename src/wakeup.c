/*
 * wakeup.c
 *		Notes what a transaction did for the dispatchers, and tells them when
 *		it has committed.
 *
 * Sessions that enqueue must not pay for delivery, so nothing here takes a
 * lock: the leaf's transaction id is an atomic maximum, and the commit callback
 * sets latches.  (NOTIFY would take a lock on the whole database at commit.)
 * At the time of the callback the rows are visible to new snapshots.
 *
 * COMMIT PREPARED is another session's, and knows nothing but a name.  So what
 * wants something takes a lock on its name when it is prepared: that stays with
 * it, through restarts, and who commits it sees whether it is held.  Most
 * prepared transactions are none of our business, and wake nobody.
 *
 * What a rolled-back subtransaction asked for is not taken back: the dispatcher
 * wakes and finds nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"

#include "shmem.h"
#include "wakeup.h"

/* SQL's advisory locks use 1 and 2 here, others of ours 0x52 to 0x54. */
#define PREPARED_LOCK_CLASS	0x55

/* What the current transaction wants at commit. */
static uint64 wanted_slots = 0;
static uint64 wanted_leaves = 0;	/* leaves already noted for this_xid */
static uint64 this_xid = 0;
static bool wanted_config = false;
static Oid	wanted_restart = InvalidOid;
static bool wanted_launcher = false;
static bool wanted_databases = false;

/* Of the name that is being prepared; 0: it is prepared by no statement. */
static uint64 preparing = 0;

static void
forget(void)
{
	wanted_slots = 0;
	wanted_leaves = 0;
	this_xid = 0;
	wanted_config = false;
	wanted_restart = InvalidOid;
	wanted_launcher = false;
	wanted_databases = false;
}

/*
 * Runs when the rows have become visible.  An error here would bring the
 * server down, so: atomics and latches only.
 */
static void
after_commit(void)
{
	RetryDatabase *db = retry_shmem_peek_database();

	if (wanted_config)
		retry_shmem_wake_config(MyDatabaseId);
	else if (wanted_slots != 0)
		retry_shmem_wake(db, wanted_slots);
	if (wanted_launcher)
		retry_shmem_look(db);
	else if (wanted_slots != 0 && db != NULL && db->state == RETRY_DB_ABSENT)
		retry_shmem_look(db);	/* tasks where no extension was seen: look
								 * again */
	if (OidIsValid(wanted_restart))
		retry_shmem_restart_workers(wanted_restart);
	if (wanted_databases)
		retry_shmem_wake_launcher();
}

static uint64
name_hash(const char *name)
{
	return hash_bytes_extended((const unsigned char *) name, strlen(name), 0);
}

static void
name_tag(uint64 hash, LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, PREPARED_LOCK_CLASS);
}

/* Does a prepared transaction of this name want something? */
static bool
is_held(uint64 hash)
{
	LOCKTAG		tag;

	name_tag(hash, &tag);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	(void) LockRelease(&tag, ExclusiveLock, false);
	return false;
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	RetryDatabase *db;
	LOCKTAG		tag;

	if (wanted_slots == 0 && !wanted_config && !OidIsValid(wanted_restart) &&
		!wanted_launcher && !wanted_databases)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			after_commit();
			forget();
			break;
		case XACT_EVENT_PRE_PREPARE:
			name_tag(preparing, &tag);
			(void) LockAcquire(&tag, ShareLock, false, false);
			break;
		case XACT_EVENT_PREPARE:

			/*
			 * The commit will be another session's, and reaches us as
			 * retry_wakeup_prepared().
			 */
			db = retry_shmem_peek_database();
			if (wanted_launcher && db != NULL)
				pg_atomic_write_u32(&db->prepared, 1);
			forget();
			break;
		case XACT_EVENT_ABORT:
			forget();
			break;
		default:
			break;
	}
}

/*
 * Makes sure that the callback is registered, so that nothing is left to do at
 * commit that could fail.  False when there is nobody to be told.
 */
static bool
be_ready(void)
{
	static bool registered = false;

	if (!retry_shmem_ready())
		return false;
	if (!registered)
	{
		RegisterXactCallback(at_transaction_event, NULL);
		registered = true;
	}
	return true;
}

/* Raises an atomic value to at least this one. */
static void
raise_to(pg_atomic_uint64 *value, uint64 xid)
{
	uint64		seen = pg_atomic_read_u64(value);

	while (seen < xid && !pg_atomic_compare_exchange_u64(value, &seen, xid))
		;
}

void
retry_wakeup_row(int leaf, int64 lane_hash, uint64 full_xid)
{
	uint64		bit = UINT64CONST(1) << leaf;
	RetryDatabase *db;

	Assert(leaf >= 0 && leaf < RETRY_LEAVES);

	/* The many rows of a bulk load differ in their lanes at most. */
	if (full_xid == this_xid && (wanted_leaves & bit))
	{
		wanted_slots |= UINT64CONST(1) << RETRY_SLOT(lane_hash);
		return;
	}
	if (!be_ready())
		return;
	db = retry_shmem_database();
	if (db == NULL)
		return;
	raise_to(&db->leaf_xid[leaf], full_xid);
	if (full_xid != this_xid)
		wanted_leaves = 0;
	this_xid = full_xid;
	wanted_leaves |= bit;
	wanted_slots |= UINT64CONST(1) << RETRY_SLOT(lane_hash);
}

void
retry_wakeup_config(void)
{
	if (be_ready() && retry_shmem_database() != NULL)
		wanted_config = true;
}

void
retry_wakeup_restart(Oid database)
{
	if (be_ready())
		wanted_restart = database;
}

void
retry_wakeup_launcher(void)
{
	if (be_ready() && retry_shmem_database() != NULL)
		wanted_launcher = true;
}

void
retry_wakeup_databases(void)
{
	if (be_ready())
		wanted_databases = true;
}

void
retry_wakeup_preparing(const char *name)
{
	preparing = name_hash(name);
}

bool
retry_wakeup_wanted(const char *name)
{
	return retry_shmem_ready() && (is_held(name_hash(name)) || is_held(0));
}

void
retry_wakeup_prepared(void)
{
	RetryDatabase *db;

	if (!retry_shmem_ready())
		return;
	retry_shmem_wake_config(MyDatabaseId);
	db = retry_shmem_peek_database();
	if (db != NULL && pg_atomic_exchange_u32(&db->prepared, 0) != 0)
		retry_shmem_look(db);
}
