/*
 * config.h
 *		A dispatcher's copy of the scenes, and of what may be sent at all.
 *
 * Read whole, in a short transaction of the dispatcher's, whenever somebody
 * committed a change; kept as it was while a table is locked.  Strings live in
 * the copy's own memory context until the next successful read.
 */
#ifndef RETRY_CONFIG_H
#define RETRY_CONFIG_H

#include "access/htup.h"
#include "utils/jsonb.h"
#include "utils/jsonpath.h"
#include "utils/snapshot.h"
#include "backoff.h"
#include "destination.h"
#include "flow.h"
#include "http.h"
#include "lane_choice.h"
#include "policy.h"
#include "rate.h"
#include "route.h"
#include "secret.h"
#include "secret_use.h"
#include "task.h"

typedef struct RetryScene
{
	int32		id;				/* hash key */
	int32		group_id;
	char	   *name;			/* "group/scene" */
	RetryDestination to;		/* where its group may send */
	int64		max_pending;	/* of its group; -1: no limit */
	int32		max_lanes;		/* the same */
	bool		counted;		/* its group's tasks are, see group_use.h */
	char	   *url;			/* NULL: every task brings its own */
	RetryRouteTarget *targets;	/* their states are not read, see
								 * target_health.c */
	int			ntargets;		/* 0: none */
	RetryRoute	route;
	char	   *method;
	Jsonb	   *headers;		/* NULL: none */
	int32		timeout_ms;
	int32		connect_timeout_ms;
	RetryBackoff *backoff;
	int32		max_attempts;
	int64		expires_after_us;	/* 0: no limit */
	int64		time_budget_us; /* 0: no limit */
	RetryRules	rules;
	JsonPath   *success_when;	/* NULL: none */
	JsonPath   *pending_when;
	JsonPath   *stop_when;
	char	   *on_success;		/* NULL: none */
	char	   *on_dead;
	char	   *notify;			/* channel that ends are notified on; NULL:
								 * none */
	RetryFlowRules flow;		/* what it says of its lanes */
	RetryLaneRules lanes;		/* and of which lane a task goes into */
	RetryRate	rate;			/* of all its lanes together; count 0: none */
	char	   *secret;			/* its requests are signed with; NULL: none */
	RetrySecretUse secret_use;	/* how */
	struct RetrySceneMail *mail;	/* it sends mail, see scene_mail.h; NULL:
									 * it does not */
	const RetrySecret *signing; /* its values */
	int			nsigning;
	const RetrySecrets *filled; /* its group's are filled into headers; NULL:
								 * none are */
	char	   *missing_secret; /* one that is not set; NULL: none */
	RetryTls   *tls;			/* NULL: the usual; see scene_tls.h */
	char	   *tls_cert;		/* the secret that is its client certificate;
								 * NULL: none */
	bool		paused;			/* the scene or its group, or a secret is
								 * missing */
	TimestampTz resumed_at;		/* of the scene or its group, the later; with
								 * resume_over_us > 0 */
	int64		resume_over_us; /* what was due before resumed_at is spread
								 * over this; 0: it is not */
	TimestampTz order_ended_at; /* it, or a lane of its group, was ordered
								 * until then; DT_NOBEGIN: never */
	HeapTuple	row;			/* what it was read from */
} RetryScene;

typedef struct RetryConfig RetryConfig;

/* An empty configuration in the current memory context. */
extern RetryConfig *retry_config_create(void);

/*
 * Reads everything again with this snapshot (registered or active), in the
 * current transaction.  False, with the old copy kept whole, when a table is
 * locked; ERROR, with the old copy kept too, when the extension is gone.
 */
extern bool retry_config_read(RetryConfig *config, Snapshot snapshot);

/* The scene, or NULL when it is not known (its row was made after the read). */
extern RetryScene *retry_config_scene(RetryConfig *config, int32 scene_id);

/* All of them, from 0 on and by id; NULL after the last. */
extern RetryScene *retry_config_nth_scene(RetryConfig *config, int n);

/* The same by "group/scene"; looks at one after the other. */
extern RetryScene *retry_config_scene_named(RetryConfig *config, const char *name);

/* The id of a group that has scenes; 0 when there is none such. */
extern int32 retry_config_group_named(RetryConfig *config, const char *name);

/* Is there a scene whose lanes are ordered? */
extern bool retry_config_orders(const RetryConfig *config);

/*
 * One scene as a session needs it, read with this snapshot, in the current
 * memory context; NULL when the snapshot does not see it.  Waits for locks.
 * ERROR (data_corrupted) for a row that no constraint would have let in.
 */
extern RetryScene *retry_config_one_scene(int32 id, Snapshot snapshot);

/*
 * May a row be sent that carries this transaction number and inert mark?
 * False for rows that were restored or copied from elsewhere and not adopted.
 */
extern bool retry_config_may_send(const RetryConfig *config, bool inert, uint64 full_xid);

/*
 * True when no row of retry.installation names this database: it is a copy of
 * another, and nothing may be sent before retry_config_note_copy.
 */
extern bool retry_config_is_copy(const RetryConfig *config);

/*
 * Notes in retry.installation, and says in the log, that this database is a
 * copy and why that is known (a sentence): what transactions before first_xid
 * wrote is held, what comes later goes.  In the current transaction; at its
 * commit all dispatchers read the configuration again.  False, and nothing was
 * done, while somebody has the table locked.
 */
extern bool retry_config_note_copy(uint64 first_xid, const char *reason);

/* Is this database a copy in which nothing was adopted yet? */
extern bool retry_config_waits(const RetryConfig *config);

/* Number of rows in retry.installation: it grows with every adoption. */
extern int	retry_config_adoptions(const RetryConfig *config);

#endif							/* RETRY_CONFIG_H */
