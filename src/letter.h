/*
 * letter.h
 *		What a dead letter keeps of its task.
 *
 * Usually all of its row.  When the row cannot be stored a second time, what
 * is of fixed length; and when it must not even be read, since whoever reads it
 * crashes, what was known of it without: a dead letter there is in any case.
 */
#ifndef RETRY_LETTER_H
#define RETRY_LETTER_H

#include "executor/tuptable.h"
#include "record.h"

/*
 * The columns that a dead letter shares with its task, from the task's row,
 * which all columns have been read of.  The values are the row's.  With "bare"
 * those that may lie elsewhere are left out.
 */
extern void retry_letter_of_task(TupleTableSlot *task, bool bare, Datum *values, bool *isnull);

/*
 * The same from what was known without the row; the rest is null, and nobody
 * the one who enqueued it.  The values are palloc'd or point into "ended".
 */
extern void retry_letter_unread(const RetryEnded *ended, Datum *values, bool *isnull);

#endif							/* RETRY_LETTER_H */
