/*
 * database_hook.h
 *		Lets commands on whole databases, such as DROP DATABASE, get past the
 *		dispatchers.
 *
 * PostgreSQL makes such commands wait until nobody is connected to the
 * database, and background workers stay connected until they are told.
 */
#ifndef RETRY_DATABASE_HOOK_H
#define RETRY_DATABASE_HOOK_H

/* Puts itself into the chain of ProcessUtility hooks; while preloading only. */
extern void retry_database_hook_init(void);

#endif							/* RETRY_DATABASE_HOOK_H */
