/*
 * scene.h
 *		Scenes and groups, as sessions look them up.
 *
 * Dispatchers keep copies of the configuration; a session reads the two rows
 * that it needs from the tables, with the snapshot of its statement.  So a
 * scene that the same transaction inserted is found, and one that was rolled
 * back is not, without a cache that could be wrong about either.
 */
#ifndef RETRY_SCENE_H
#define RETRY_SCENE_H

#include "storage/itemptr.h"
#include "utils/array.h"
#include "utils/snapshot.h"
#include "destination.h"
#include "lane_choice.h"
#include "group_limits.h"

#define RETRY_NAME_MAX		63	/* bytes of a group's or scene's name */
#define RETRY_DEFAULT_NAME	"default"	/* of the group, and the scene in it */

/* Columns of retry.scene_group. */
enum
{
	Group_id, Group_name, Group_owner, Group_paused, Group_resume_over,
	Group_resumed_at, Group_order_ended_at, Group_allowed_hosts, Group_https_only, Group_max_pending, Group_max_lanes,
	Group_max_enqueue_rate, Group_max_body_size, Group_max_headers, Group_max_headers_size, Group_description, Group_created_at,
	Group_natts
};

/* Columns of retry.scene. */
enum
{
	Scene_id, Scene_group_name, Scene_name, Scene_url, Scene_targets,
	Scene_route, Scene_method, Scene_headers, Scene_timeout,
	Scene_connect_timeout, Scene_backoff, Scene_max_attempts,
	Scene_expires_after, Scene_time_budget, Scene_success_status,
	Scene_stop_status, Scene_stop_errors, Scene_success_when,
	Scene_pending_when, Scene_stop_when, Scene_pending_interval,
	Scene_pending_limit, Scene_on_success, Scene_on_dead, Scene_notify,
	Scene_check_target, Scene_check_after, Scene_check_every, Scene_check_limit,
	Scene_undecided, Scene_generate_key, Scene_key_window, Scene_lane_by, Scene_rate, Scene_max_in_flight, Scene_ordered,
	Scene_dead_head, Scene_priority, Scene_weight, Scene_adaptive, Scene_hedge,
	Scene_breaker_ratio, Scene_breaker_calls, Scene_breaker_window,
	Scene_breaker_open, Scene_retry_share, Scene_retry_floor, Scene_secret, Scene_secret_use, Scene_mail,
	Scene_tls_verify, Scene_tls_unverified_by, Scene_tls_min_version, Scene_tls_ca,
	Scene_tls_pin, Scene_tls_cert, Scene_paused,
	Scene_resume_over, Scene_resumed_at, Scene_order_ended_at, Scene_archived, Scene_deleted_at, Scene_description,
	Scene_created_at,
	Scene_natts
};

/* Columns of retry.group_member. */
enum
{
	Member_group_id, Member_role, Member_granted_by, Member_granted_at
};

typedef struct RetryGroupRow
{
	int32		id;
	Oid			owner;
	char		name[RETRY_NAME_MAX + 1];
	bool		shared;			/* it is the group default, shared by all */
	RetryDestination to;		/* where its requests may go; in the caller's
								 * memory context */
	RetryGroupLimits limits;
} RetryGroupRow;

typedef struct RetrySceneRow
{
	int32		id;
	ItemPointerData place;		/* of the row that the snapshot sees */
	RetryGroupRow group;
	char		name[RETRY_NAME_MAX + 1];
	char	   *url;			/* in the caller's memory context, or NULL */
	bool		archived;
	bool		generate_key;	/* a task without a key gets one */
	int64		key_window_us;	/* 0: a finished task's key is free */
	RetryLaneRules lanes;		/* of its tasks */
	bool		routed;			/* it has targets */
	bool		mail;			/* it sends mail, and has no URL */
	bool		fan_out;		/* with route all: a task for each of them */
	ArrayType  *targets;		/* with route all, in the caller's memory
								 * context */
} RetrySceneRow;

/*
 * Each is false when there is no such row that the snapshot sees; the result
 * is then undefined.  They take AccessShareLock until the end of the
 * transaction, and raise only what table access raises.
 */
extern bool retry_group_by_name(Snapshot snapshot, const char *name, RetryGroupRow *group);
extern bool retry_scene_by_name(Snapshot snapshot, const char *group, const char *name,
								RetrySceneRow *scene);
extern bool retry_scene_by_id(Snapshot snapshot, int32 id, RetrySceneRow *scene);

/* 1 to RETRY_NAME_MAX lower-case letters, digits, _ and -. */
extern bool retry_name_check(const char *name);

/*
 * Reads "scene" or "group/scene" into two buffers of RETRY_NAME_MAX + 1 bytes;
 * false when it is neither.
 */
extern bool retry_scene_parse(const char *target, char *group, char *name);

#endif							/* RETRY_SCENE_H */
