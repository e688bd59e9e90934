/*
 * wakeup.h
 *		What a session leaves behind for the dispatchers when it commits.
 *
 * One transaction callback per backend sets latches after the rows have
 * become visible.  It cannot fail, allocates nothing, and a wake-up that gets
 * lost (a prepared transaction, a crash) costs one poll interval at most.
 */
#ifndef RETRY_WAKEUP_H
#define RETRY_WAKEUP_H

#include "task.h"

/*
 * Called before a task or signal is inserted: notes in shared memory that the
 * leaf has rows of this top-level transaction, and wakes the dispatcher of the
 * lane at commit.  Works, and does nothing, when the library is not preloaded.
 * ERROR only when memory is short, at the first call in a session.
 */
extern void retry_wakeup_row(int leaf, int64 lane_hash, uint64 full_xid);

/* At commit: bump the configuration generation and wake every dispatcher. */
extern void retry_wakeup_config(void);

/* At commit: restart the dispatchers of a database, whose settings changed. */
extern void retry_wakeup_restart(Oid database);

/* At commit: make the launcher look into this database. */
extern void retry_wakeup_launcher(void);

/* At commit: make the launcher look at the list of databases. */
extern void retry_wakeup_databases(void);

/* Before PREPARE TRANSACTION of this name, in which what is wanted at commit is noted. */
extern void retry_wakeup_preparing(const char *name);

/*
 * Before COMMIT PREPARED: did what is prepared under this name want anything at
 * its commit?  Then the other comes after it, which passes no commit callback.
 */
extern bool retry_wakeup_wanted(const char *name);
extern void retry_wakeup_prepared(void);

#endif							/* RETRY_WAKEUP_H */
