/*
 * row.h
 *		Rows of retry's tables, of which this library knows the first columns.
 *
 * A table can have more columns than the library that reads it: those of a
 * later version, whose library this session has not loaded, those that an
 * administrator added, and what is left of them when they are dropped again.
 */
#ifndef RETRY_ROW_H
#define RETRY_ROW_H

#include "access/htup.h"
#include "access/skey.h"
#include "access/tupdesc.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

struct EState;

/*
 * ERROR (object_not_in_prerequisite_state) when the table has fewer than n
 * columns: it was made by an earlier version of the extension.
 */
extern void retry_require_columns(Relation rel, int n);

/*
 * Takes a row apart: the first n columns, which are room in values and isnull.
 * What the values point to is in the row.  ERROR as above.
 */
extern void retry_row_read(HeapTuple row, TupleDesc desc, int n, Datum *values, bool *isnull);

/*
 * The first row with this key, by an index of the table that begins with its
 * column: a copy in the current memory context, or NULL.  The key names the
 * table's column.  Raises only what table access raises.
 */
extern HeapTuple retry_row_find(Relation rel, Oid index, ScanKey key, Snapshot snapshot);

/*
 * The columns after the first n, for rows to be stored: they get their
 * defaults, else null.  NULL when there are none.  It lives as long as estate.
 * ERROR (feature_not_supported) for a generated column.
 */
typedef struct RetryOtherColumns RetryOtherColumns;
extern RetryOtherColumns *retry_other_columns(Relation rel, int n, struct EState *estate);

/*
 * Fills them in; the values live until estate's context per tuple is reset.
 * ERROR (not_null_violation) for a column that is NOT NULL and has no default,
 * and whatever a default's expression raises.
 */
extern void retry_other_columns_fill(RetryOtherColumns *others, TupleTableSlot *slot);

#endif							/* RETRY_ROW_H */
