/*
 * lane_choice.h
 *		Which lane a new task goes into.
 *
 * A lane is chosen once, when the task is stored, and stays the task's lane.
 * Sessions choose it for what they enqueue, and dispatchers for the callbacks
 * that they make; both come here with what the scene's row says, so that a
 * task goes the same way whoever makes it.
 */
#ifndef RETRY_LANE_CHOICE_H
#define RETRY_LANE_CHOICE_H

/* scene.lane_by */
typedef enum RetryLaneBy
{
	RETRY_LANE_BY_NEED,			/* null: by origin, or one for the scene if it
								 * has settings that ask for it */
	RETRY_LANE_BY_ORIGIN,
	RETRY_LANE_BY_SCENE,
	RETRY_LANE_BY_KEY,
	RETRY_LANE_BY_REFERENCE
} RetryLaneBy;

/* What a scene says of the lanes of its tasks. */
typedef struct RetryLaneRules
{
	int32		group_id;
	int32		scene_id;
	char		scene[NAMEDATALEN]; /* its name, without the group */
	RetryLaneBy by;
	bool		single;			/* it has what needs one lane for all: order,
								 * or a limit of requests at once */
	bool		routed;			/* it has targets */
	bool		own_flow;		/* it has settings that are not those of a new
								 * scene and would govern others' lanes */
} RetryLaneRules;

/* What is known of a task whose lane is to be chosen. */
typedef struct RetryLaneTask
{
	text	   *named;			/* by the caller; NULL: not */
	const char *origin;			/* of what is called; NULL: not known */
	bool		own_url;		/* that is the task's own URL */
	bool		child;			/* of a fan-out: each target has lanes of its
								 * own */
	const text *key;			/* NULL: none */
	const text *reference;
} RetryLaneTask;

/*
 * From the columns of a row of retry.scene, all but group_id: which a row of
 * that table does not have.  Raises nothing for a row that its constraints
 * have let in.
 */
extern void retry_lane_rules_read(const Datum *values, const bool *isnull, RetryLaneRules *rules);

/*
 * The lane: the one named by the caller; else the key's or reference's, when
 * the scene says so and the task has one; else the scene's own or the
 * origin's, as the scene needs it.  A lane that the scene has for the sake of
 * its targets is not for a task with another URL.  "lane" becomes the value of
 * its column, in the current memory context: NULL when the lane is the origin
 * of the task's own URL.  ERROR only when SHA-256 fails.
 */
extern void retry_lane_choose(const RetryLaneRules *rules, const RetryLaneTask *task,
							  text **lane, int64 *hash);

#endif							/* RETRY_LANE_CHOICE_H */
