/*
 * launcher.h
 *		The process that starts dispatchers where they are needed.
 *
 * There is one launcher for the cluster.  Everything else talks to it through
 * shared memory (shmem.h) and learns nothing of how it decides.
 */
#ifndef RETRY_LAUNCHER_H
#define RETRY_LAUNCHER_H

/* Registers the launcher with the postmaster; while preloading only. */
extern void retry_launcher_register(void);

#endif							/* RETRY_LAUNCHER_H */
