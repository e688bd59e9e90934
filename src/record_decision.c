/*
 * record_decision.c
 *		The end of a check decides over its transaction, with its record.
 *
 * A check is a task that asks whoever began a transaction what is to become of
 * it.  What it was answered, or that its attempts are used up, is recorded by
 * the same transaction that stores the decision and, for a message that is
 * committed, its task: no crash can come between them.  A session that decides at
 * the same moment is not waited for; the record comes later then, and finds what
 * was decided.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "event.h"
#include "locate.h"
#include "record_private.h"
#include "wakeup.h"

bool
retry_record_decision_open(RetryRecordBatch *batch, const RetryEnded *ended, const pg_uuid_t *gid,
						   RetryRecordDecision *need)
{
	RetryDecision before;
	RetryGlobalLock lock;
	bool		busy;

	need->decision = RETRY_UNDECIDED;
	lock = retry_global_lock(gid, batch->wait, &need->global, &before);
	if (lock == RETRY_GLOBAL_BUSY)
		return false;
	if (lock == RETRY_GLOBAL_MISSING || before != RETRY_UNDECIDED || need->global.mode != RETRY_MODE_MESSAGE)
		return true;

	if (!retry_record_open(batch, &batch->decisions, retry_relation_oid("global_decision"), Decision_natts))
		return false;
	need->at_limit = ended->verdict.outcome != RETRY_SUCCEEDED || ended->decision == RETRY_UNDECIDED;
	need->decision = need->at_limit ? need->global.at_limit : ended->decision;
	if (need->decision != RETRY_COMMIT)
		return true;

	if (!retry_global_message(gid, batch->wait, need->values, need->isnull, &need->due_at, &busy))
	{
		need->decision = RETRY_UNDECIDED;
		return !busy;
	}
	need->leaf = retry_leaf_for(gid, need->due_at);
	return retry_record_open_tasks(batch, need->leaf);
}

/* The message's task, due as it was to be. */
static void
put_task(RetryRecordBatch *batch, RetryRecordDecision *need)
{
	FullTransactionId xid = GetTopFullTransactionId();
	Datum	   *values = need->values;
	bool	   *isnull = need->isnull;

	RETRY_FILL(Task_leaf, true, Int16GetDatum(need->leaf));
	RETRY_FILL(Task_inert, true, BoolGetDatum(false));
	RETRY_FILL(Task_xid, true, FullTransactionIdGetDatum(xid));
	RETRY_FILL(Task_due_at, true, TimestampTzGetDatum(need->due_at));
	retry_wakeup_row(need->leaf, DatumGetInt64(values[Task_lane_hash]), U64FromFullTransactionId(xid));
	retry_record_put(batch, batch->tasks[need->leaf], values, isnull);
	retry_record_count(batch, need->global.scene_id, DatumGetInt64(values[Task_lane_hash]));
}

void
retry_record_decision_put(RetryRecordBatch *batch, RetryRecordDecision *need)
{
	Datum		values[Decision_natts];
	bool		isnull[Decision_natts];

	if (need->decision == RETRY_UNDECIDED)
		return;
	retry_global_decision_row(&need->global.gid, need->decision, need->at_limit ? "limit" : "check",
							  InvalidOid, batch->now, values, isnull);
	retry_record_put(batch, batch->decisions, values, isnull);
	if (need->decision == RETRY_COMMIT)
		put_task(batch, need);
	if (need->at_limit)
	{
		const RetryScene *scene = retry_config_scene(batch->config, need->global.scene_id);
		RetryEvent	event = {.kind = RETRY_EVENT_DECIDED,.scene_id = need->global.scene_id};

		event.group_id = scene != NULL ? scene->group_id : 0;
		event.detail = psprintf("message %s: %s, since nobody has decided and no check has told",
								retry_id_text(&need->global.gid),
								retry_decision_word(need->decision));
		(void) retry_event_store(&event, false);	/* none while the table is
													 * locked */
	}
}
