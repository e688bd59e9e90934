/*
 * access.c
 *		Rights: which role may use which group.
 *
 * A group belongs to its owner's members and to the roles it was granted to.
 * The built-in group default is different in one way: everybody who was
 * granted it shares it, so there each role sees and administers only tasks of
 * roles it is a member of.  All of it is decided here, for the functions and,
 * through retry.my_scenes(), for the views.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "access.h"
#include "quote.h"
#include "row_memo.h"
#include "store.h"

PG_FUNCTION_INFO_V1(retry_my_scenes);
PG_FUNCTION_INFO_V1(retry_my_groups);

bool
retry_owns_group(Oid role, const RetryGroupRow *group)
{
	return has_privs_of_role(role, group->owner);
}

void
retry_check_owner(const RetryGroupRow *group, const char *what)
{
	if (!retry_owns_group(GetUserId(), group))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not %s group \"%s\"",
						GetUserNameFromId(GetUserId(), true), what, group->name),
				 errhint("Members of the group's owner may.")));
}

void
retry_own_group(const char *name, const char *what, RetryGroupRow *group)
{
	if (!retry_group_by_name(GetActiveSnapshot(), name, group))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("group \"%s\" does not exist", name),
				 errhint("Groups are rows of retry.scene_group.")));
	retry_check_owner(group, what);
}

void
retry_not_a_scene(const char *given)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("scene: \"%s\" is not the name of a scene", retry_quoted_string(given)),
			 errhint("Write scene or group/scene.")));
}

void
retry_own_scene(const char *given, const char *what, RetrySceneRow *scene)
{
	char		group[RETRY_NAME_MAX + 1];
	char		name[RETRY_NAME_MAX + 1];

	if (!retry_scene_parse(given, group, name))
		retry_not_a_scene(given);
	if (!retry_scene_by_name(GetActiveSnapshot(), group, name, scene))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("scene \"%s/%s\" does not exist", group, name),
				 errhint("Scenes are rows of retry.scene.")));
	retry_check_owner(&scene->group, what);
}

/* Whether the group was granted to a role that this one is a member of. */
static bool
was_granted(Snapshot snapshot, Oid role, int32 group_id)
{
	static struct
	{
		RetryRowMemo memo;
		int32		group_id;
		Oid			member;
	}			last;			/* that was found to grant something */
	Relation	rel = table_open(retry_relation_oid("group_member"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		granted = false;

	if (last.group_id == group_id && retry_memo_holds(&last.memo, rel, snapshot) &&
		has_privs_of_role(role, last.member))
	{
		table_close(rel, NoLock);
		return true;
	}
	ScanKeyInit(&key, Member_group_id + 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(group_id));
	scan = systable_beginscan(rel, retry_relation_oid("group_member_pkey"), true, snapshot, 1, &key);
	while (!granted && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Oid			member = DatumGetObjectId(heap_getattr(tuple, Member_role + 1,
														   RelationGetDescr(rel), &isnull));

		granted = has_privs_of_role(role, member);
		if (granted && retry_memo_keep(&last.memo, tuple))
		{
			last.group_id = group_id;
			last.member = member;
		}
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	return granted;
}

bool
retry_may_use_group(Snapshot snapshot, Oid role, const RetryGroupRow *group)
{
	return retry_owns_group(role, group) || was_granted(snapshot, role, group->id);
}

void
retry_check_group(Snapshot snapshot, Oid role, const RetryGroupRow *group)
{
	if (!retry_may_use_group(snapshot, role, group))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not use group \"%s\"",
						GetUserNameFromId(role, true), group->name),
				 errhint("A member of the group's owner can allow it: SELECT retry.grant('%s', '%s').",
						 quote_identifier(GetUserNameFromId(role, true)), group->name)));
}

bool
retry_may_use_task(Snapshot snapshot, Oid role, const RetryGroupRow *group, Oid enqueued_by)
{
	if (retry_owns_group(role, group))
		return true;
	if (group->shared && !has_privs_of_role(role, enqueued_by))
		return false;
	return was_granted(snapshot, role, group->id);
}

int32 *
retry_visible_scenes(Snapshot snapshot, Oid role, const char *group_name, bool own_only, int *count)
{
	Relation	rel = table_open(retry_relation_oid("scene"), AccessShareLock);
	int			room = 64;
	int32	   *ids = palloc(room * sizeof(int32));
	RetryGroupRow group = {0};
	bool		visible = false;
	SysScanDesc scan;
	HeapTuple	tuple;

	/* the rows of a group mostly lie together, so the last group is kept */
	*count = 0;
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		char		name[RETRY_NAME_MAX + 1];

		text_to_cstring_buffer(DatumGetTextPP(heap_getattr(tuple, Scene_group_name + 1,
														   RelationGetDescr(rel), &isnull)),
							   name, sizeof(name));
		if (group_name != NULL && strcmp(name, group_name) != 0)
			continue;
		if (strcmp(name, group.name) != 0)
		{
			if (!retry_group_by_name(snapshot, name, &group))
				continue;
			if (retry_owns_group(role, &group))
				visible = !own_only;
			else
				visible = group.shared == own_only && was_granted(snapshot, role, group.id);
		}
		if (!visible)
			continue;
		if (*count == room)
		{
			room *= 2;
			ids = repalloc(ids, room * sizeof(int32));
		}
		ids[(*count)++] = DatumGetInt32(heap_getattr(tuple, Scene_id + 1,
													 RelationGetDescr(rel), &isnull));
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	return ids;
}

bool
retry_sees_all_groups(Oid role)
{
	return has_privs_of_role(role, ROLE_PG_MONITOR);
}

int32 *
retry_visible_groups(Snapshot snapshot, Oid role, bool shared, int *count)
{
	Relation	rel = table_open(retry_relation_oid("scene_group"), AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	bool		monitor = retry_sees_all_groups(role);
	int			room = 16;
	int32	   *ids = palloc(room * sizeof(int32));
	SysScanDesc scan;
	HeapTuple	tuple;

	*count = 0;
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		RetryGroupRow group;
		bool		isnull;

		group.id = DatumGetInt32(heap_getattr(tuple, Group_id + 1, desc, &isnull));
		group.owner = DatumGetObjectId(heap_getattr(tuple, Group_owner + 1, desc, &isnull));
		text_to_cstring_buffer(DatumGetTextPP(heap_getattr(tuple, Group_name + 1, desc, &isnull)),
							   group.name, sizeof(group.name));
		group.shared = strcmp(group.name, RETRY_DEFAULT_NAME) == 0;
		if (!monitor && !retry_owns_group(role, &group) &&
			((group.shared && !shared) || !was_granted(snapshot, role, group.id)))
			continue;
		if (*count == room)
		{
			room *= 2;
			ids = repalloc(ids, room * sizeof(int32));
		}
		ids[(*count)++] = group.id;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return ids;
}

/* Numbers as rows of one column. */
static void
return_ids(FunctionCallInfo fcinfo, const int32 *ids, int count)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < count; i++)
	{
		Datum		value = Int32GetDatum(ids[i]);
		bool		isnull = false;

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
	}
}

/* retry.my_scenes(own_only): what the role sees, for the views. */
Datum
retry_my_scenes(PG_FUNCTION_ARGS)
{
	int			count;
	int32	   *ids = retry_visible_scenes(GetActiveSnapshot(), GetUserId(), NULL,
										   PG_GETARG_BOOL(0), &count);

	return_ids(fcinfo, ids, count);
	return (Datum) 0;
}

/* retry.my_groups(): the same of lanes and events. */
Datum
retry_my_groups(PG_FUNCTION_ARGS)
{
	int			count;
	int32	   *ids = retry_visible_groups(GetActiveSnapshot(), GetUserId(), false, &count);

	return_ids(fcinfo, ids, count);
	return (Datum) 0;
}

/*
 * For whom the owner acts.  An ERROR leaves it behind; that the subtransaction
 * is no longer active says that it is of the past.
 */
static struct
{
	LocalTransactionId lxid;
	SubTransactionId subxact;
	Oid			owner;
	Oid			caller;
}			acting;

void
retry_become_owner(RetryRoleSwitch *before)
{
	Oid			key = retry_relation_oid("key");
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(key));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", key)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);

	before->nested = retry_acting_role() != GetUserId();
	GetUserIdAndSecContext(&before->role, &before->sec_context);
	SetUserIdAndSecContext(owner, before->sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
	if (before->nested)
		return;
	acting.lxid = retry_my_lxid();
	acting.subxact = GetCurrentSubTransactionId();
	acting.owner = owner;
	acting.caller = before->role;
}

void
retry_become_caller(const RetryRoleSwitch *before)
{
	SetUserIdAndSecContext(before->role, before->sec_context);
	if (!before->nested)
		acting.subxact = InvalidSubTransactionId;
}

Oid
retry_acting_role(void)
{
	Oid			role = GetUserId();

	if (acting.subxact != InvalidSubTransactionId && acting.lxid == retry_my_lxid() &&
		SubTransactionIsActive(acting.subxact) && acting.owner == role)
		return acting.caller;
	return role;
}
