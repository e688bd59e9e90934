/*
 * letter.c
 *		What a dead letter keeps of its task.
 *
 * All of it, so that the task can be replayed when its leaf has been cleared.
 * But there are rows that cannot be read without an error, or without a crash,
 * and these tasks have to end too.
 */
#include "postgres.h"

#include "access/transam.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "utils/xid8.h"

#include "letter.h"
#include "store.h"

void
retry_letter_of_task(TupleTableSlot *task, bool bare, Datum *values, bool *isnull)
{
	for (int i = 0; i < Task_natts; i++)
	{
		values[i] = task->tts_values[i];
		isnull[i] = task->tts_isnull[i];

		/* what may lie elsewhere may be what cannot be read */
		if (bare && TupleDescAttr(task->tts_tupleDescriptor, i)->attlen < 0)
			isnull[i] = true;
	}
}

void
retry_letter_unread(const RetryEnded *ended, Datum *values, bool *isnull)
{
	static const int known[] = {
		Task_leaf, Task_inert, Task_id, Task_xid, Task_lane_hash, Task_due_at, Task_scene_id,
		Task_enqueued_by
	};

	for (int i = 0; i < Task_natts; i++)
		isnull[i] = true;
	for (int i = 0; i < lengthof(known); i++)
		isnull[known[i]] = false;
	values[Task_leaf] = Int16GetDatum(ended->entry.leaf);
	values[Task_inert] = BoolGetDatum(false);
	values[Task_id] = UUIDPGetDatum(&ended->entry.pos.id);
	values[Task_xid] = FullTransactionIdGetDatum(FullTransactionIdFromU64(0));
	values[Task_lane_hash] = Int64GetDatum(ended->lane_hash);
	values[Task_due_at] = TimestampTzGetDatum(ended->entry.pos.due);
	values[Task_scene_id] = Int32GetDatum(ended->scene_id);
	values[Task_enqueued_by] = ObjectIdGetDatum(InvalidOid);
}
