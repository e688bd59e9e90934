/*
 * compat.h
 *		What differs between PostgreSQL 15 and 18, in one place.
 *
 * Code everywhere else is written for the newest name or signature, and here
 * the older majors learn it; so that dropping a major is a deletion in this
 * file alone.  Nothing belongs here that only one file needs and that reads as
 * well with a plain #if beside its use.
 *
 * The including file includes postgres.h first.
 */
#ifndef RETRY_COMPAT_H
#define RETRY_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "retry needs PostgreSQL 15 or later"
#endif

/* 16 replaced one function for each kind of object by one for all. */
#if PG_VERSION_NUM < 160000
#define retry_owns_database(database, role) \
	pg_database_ownercheck(database, role)
#else
#define retry_owns_database(database, role) \
	object_ownercheck(DatabaseRelationId, database, role)
#endif

/* 18 counts index searches for EXPLAIN; nobody explains ours. */
#if PG_VERSION_NUM < 180000
#define retry_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#else
#define retry_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#endif

#endif							/* RETRY_COMPAT_H */
