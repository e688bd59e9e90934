/*
 * retry.c
 *		Where PostgreSQL meets the library: the magic block and _PG_init.
 *
 * The library is loaded in two ways.  Preloaded by the postmaster it gets
 * shared memory, the launcher and the hooks, and delivers tasks.  Loaded by a
 * session, because a function of the extension was called, it has none of
 * these: tasks can be stored, and a warning says that nothing delivers them.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "compat.h"
#include "database_hook.h"
#include "guc.h"
#include "launcher.h"
#include "shmem.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

/*
 * Called once, when the library is loaded.  Under pg_upgrade no worker may
 * touch the databases, and the settings alone are wanted.
 */
void
_PG_init(void)
{
	bool		preloading = process_shared_preload_libraries_in_progress;

	retry_guc_init(preloading);
	if (!preloading || IsBinaryUpgrade)
		return;
	retry_shmem_init();
	retry_database_hook_init();
	retry_launcher_register();
}
