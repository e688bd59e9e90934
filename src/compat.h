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

/*
 * The library is compiled with -fvisibility=hidden, because 15 loads libraries
 * into one name space.  Only from 16 on do the macros make visible what the
 * server looks up.  Hence each file that has SQL-callable functions, the magic
 * block or a worker's main function includes this file.
 */
#if PG_VERSION_NUM < 160000
#include "fmgr.h"
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(funcname) \
extern PGDLLEXPORT Datum funcname(PG_FUNCTION_ARGS); \
extern PGDLLEXPORT const Pg_finfo_record *CppConcat(pg_finfo_,funcname) (void); \
const Pg_finfo_record * \
CppConcat(pg_finfo_,funcname) (void) \
{ \
	static const Pg_finfo_record my_finfo = {1}; \
	return &my_finfo; \
} \
extern int	no_such_variable
#endif

/* 18 has one word for it, which comes first, and forgot the attribute's. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

/* 16 keeps what belongs to values of settings in a memory context. */
#if PG_VERSION_NUM < 160000
#define guc_malloc(elevel, size)	malloc(size)
#define guc_free(pointer)			free(pointer)
#endif

/* 16 moved the macros of variable-length values out of postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 16 replaced one function for each kind of object by one for all. */
#if PG_VERSION_NUM < 160000
#define retry_owns_database(database, role) \
	pg_database_ownercheck(database, role)
#define retry_owns_extension(extension, role) \
	pg_extension_ownercheck(extension, role)
#else
#define retry_owns_database(database, role) \
	object_ownercheck(DatabaseRelationId, database, role)
#define retry_owns_extension(extension, role) \
	object_ownercheck(ExtensionRelationId, extension, role)
#endif

#if PG_VERSION_NUM < 160000
#define retry_may_use_schema(schema, role) \
	(pg_namespace_aclcheck(schema, role, ACL_USAGE) == ACLCHECK_OK)
#define retry_may_execute(function, role) \
	(pg_proc_aclcheck(function, role, ACL_EXECUTE) == ACLCHECK_OK)
#else
#define retry_may_use_schema(schema, role) \
	(object_aclcheck(NamespaceRelationId, schema, role, ACL_USAGE) == ACLCHECK_OK)
#define retry_may_execute(function, role) \
	(object_aclcheck(ProcedureRelationId, function, role, ACL_EXECUTE) == ACLCHECK_OK)
#endif

/* 18 counts index searches for EXPLAIN; nobody explains ours. */
#if PG_VERSION_NUM < 180000
#define retry_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#else
#define retry_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#endif

/* 17 moved it. */
#if PG_VERSION_NUM < 170000
#define retry_my_lxid() (MyProc->lxid)
#else
#define retry_my_lxid() (MyProc->vxid.lxid)
#endif

/* 16 can do without indexes that only summarize. */
#if PG_VERSION_NUM < 160000
#define retry_insert_index_tuples(result_rel, slot, estate) \
	ExecInsertIndexTuples(result_rel, slot, estate, false, false, NULL, NIL)
#else
#define retry_insert_index_tuples(result_rel, slot, estate) \
	ExecInsertIndexTuples(result_rel, slot, estate, false, false, NULL, NIL, false)
#endif

/* 17 has indexes that have something to do after the last insertion. */
#if PG_VERSION_NUM < 170000
#define retry_index_insert_cleanup(index, info) ((void) 0)
#else
#define retry_index_insert_cleanup(index, info) \
	index_insert_cleanup(index, info)
#endif

/* 17 ties event sets to resource owners; ours live as long as the process. */
#if PG_VERSION_NUM < 170000
#define retry_create_wait_event_set(nevents) \
	CreateWaitEventSet(TopMemoryContext, nevents)
#else
#define retry_create_wait_event_set(nevents) \
	CreateWaitEventSet(NULL, nevents)
#endif

#endif							/* RETRY_COMPAT_H */
