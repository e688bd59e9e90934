/*
 * access.h
 *		Who may use which group, and see which tasks.
 *
 * The functions of retry check rights in C, for the role that calls them, and
 * then act for themselves; none is SECURITY DEFINER, so what is stored as the
 * enqueuing role is the role that really called.
 */
#ifndef RETRY_ACCESS_H
#define RETRY_ACCESS_H

#include "utils/snapshot.h"
#include "compat.h"
#include "scene.h"

/* Member of the group's owner, so may also grant and revoke it. */
extern bool retry_owns_group(Oid role, const RetryGroupRow *group);

/*
 * ERROR (insufficient_privilege) unless the caller owns the group; "what" is
 * what it may not do, as in "change secrets of".  The second looks for the
 * group by its name first, with the active snapshot: ERROR (undefined_object).
 * The third does so for a scene's group, and reads the scene; ERROR
 * (invalid_parameter_value) too when the text is not the name of a scene.
 */
extern void retry_check_owner(const RetryGroupRow *group, const char *what);
extern void retry_own_group(const char *name, const char *what, RetryGroupRow *group);
extern void retry_own_scene(const char *given, const char *what, RetrySceneRow *scene);

/* The ERROR for a text that is not the name of a scene. */
pg_noreturn extern void retry_not_a_scene(const char *given);

/* Owner, or a member of a role that was granted the group. */
extern bool retry_may_use_group(Snapshot snapshot, Oid role, const RetryGroupRow *group);

/* ERROR (insufficient_privilege) unless the role may use the group. */
extern void retry_check_group(Snapshot snapshot, Oid role, const RetryGroupRow *group);

/*
 * Whether the role may see and administer a task of the group.  In the shared
 * group default that is its owner and members of the role that enqueued it,
 * else whoever may use the group.
 */
extern bool retry_may_use_task(Snapshot snapshot, Oid role, const RetryGroupRow *group, Oid enqueued_by);

/*
 * Ids of the scenes whose tasks the role may see, palloc'd: all their tasks,
 * or (own_only) only those enqueued by roles that it is a member of.  With a
 * group's name, only the scenes of that group.
 */
extern int32 *retry_visible_scenes(Snapshot snapshot, Oid role, const char *group_name,
								   bool own_only, int *count);

/*
 * Ids of the groups whose lanes and events the role may see, palloc'd.  Those
 * of the shared group default tell of all who use it, so they are for its owner
 * alone, unless with "shared" whoever may use it counts; members of pg_monitor
 * see all groups.
 */
extern int32 *retry_visible_groups(Snapshot snapshot, Oid role, bool shared, int *count);

/* Whether that is all groups: superusers, members of pg_monitor. */
extern bool retry_sees_all_groups(Oid role);

/*
 * Acts as the owner of retry's tables until the second is called.  An ERROR in
 * between needs no care: the end of the (sub)transaction restores the role.
 */
typedef struct RetryRoleSwitch
{
	Oid			role;			/* who called */
	int			sec_context;
	bool		nested;			/* the owner acts for somebody already */
} RetryRoleSwitch;

extern void retry_become_owner(RetryRoleSwitch *before);
extern void retry_become_caller(const RetryRoleSwitch *before);

/* The role in force, as the caller has it: between these two, still the caller. */
extern Oid	retry_acting_role(void);

#endif							/* RETRY_ACCESS_H */
