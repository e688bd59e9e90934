/*
 * audit.h
 *		Who did what: rows of retry.audit_entry.
 *
 * Written in the transaction that does it, so it is there when and only when
 * that was committed.  Values that may be credentials are never in it.
 */
#ifndef RETRY_AUDIT_H
#define RETRY_AUDIT_H

#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"
#include "locate.h"
#include "scene.h"

/* What is noted; who and when is found out. */
typedef struct RetryAuditEntry
{
	const char *action;			/* "scene changed" */
	const RetryGroupRow *group; /* NULL: none, for the extension's owner to
								 * see */
	const char *object;			/* its name; NULL: none */
	const pg_uuid_t *task_id;	/* NULL: none */
	Jsonb	   *before;			/* NULL: none */
	Jsonb	   *after;			/* NULL: none */
} RetryAuditEntry;

/* Appends one row.  Waits for nobody but who has locked the table; raises what table access raises. */
extern void retry_audit(const RetryAuditEntry *entry);

/* The same for what was done to one task; "after" may be NULL. */
extern void retry_audit_task(const char *action, const RetryLocated *task, Jsonb *after);

/*
 * The same for a call that did it to so many tasks: its arguments that are not
 * null stand after "tasks", of JSON only the names of the members.  Nothing is
 * noted when there were none.
 */
extern void retry_audit_call(FunctionCallInfo fcinfo, const char *action, int64 tasks);

/*
 * The arguments of an SQL call that are not null, as an object: of JSON only the
 * names of the members; after "tasks", unless that is negative.  Also reads the
 * group that they name, by group_name or target, if they do.
 */
extern Jsonb *retry_audit_arguments(FunctionCallInfo fcinfo, int64 tasks, RetryGroupRow *group, bool *has_group);

/* The names of an object's members, as an array. */
extern Jsonb *retry_audit_members(Jsonb *object);

#endif							/* RETRY_AUDIT_H */
