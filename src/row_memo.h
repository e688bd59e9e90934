/*
 * row_memo.h
 *		Remembers where a row was last found, and what it looked like.
 *
 * Each enqueue asks for the same few rows of configuration.  A cache could be
 * wrong about what the own transaction or a snapshot sees; this asks the table
 * each time, and saves only the search for the row and the reading of its
 * columns.
 */
#ifndef RETRY_ROW_MEMO_H
#define RETRY_ROW_MEMO_H

#include "access/htup.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* Zeroed: nothing is remembered. */
typedef struct RetryRowMemo
{
	HeapTuple	row;			/* a copy, for as long as the process; NULL:
								 * none */
} RetryRowMemo;

/*
 * True when the snapshot sees a row at the place where the remembered one was,
 * with the same contents, byte by byte.  If these contain a unique key, it is
 * the row of that key: whatever was made of it before still holds.  Raises
 * only what table access raises.
 */
extern bool retry_memo_holds(const RetryRowMemo *memo, Relation rel, Snapshot snapshot);

/*
 * Remembers a row in place of the former one.  False, with nothing remembered,
 * when part of it lies in a TOAST table.  ERROR when memory is short; nothing
 * is remembered then.
 */
extern bool retry_memo_keep(RetryRowMemo *memo, HeapTuple row);

#endif							/* RETRY_ROW_MEMO_H */
