/*
 * enqueue.c
 *		retry.enqueue() and retry.enqueue_many(): where tasks come from.
 *
 * Both run inside a user's transaction, in the path of whatever the user is
 * really doing, so one task costs little more than an INSERT and a batch has
 * no cost per task but its row.  The order is: judge all arguments, then claim
 * keys, then store; an error anywhere stores nothing.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "digest.h"
#include "enqueue.h"
#include "key.h"
#include "scene_use.h"

PG_FUNCTION_INFO_V1(retry_enqueue);
PG_FUNCTION_INFO_V1(retry_enqueue_many);

/* Rows of a batch after which scratch memory is given back. */
#define SCRATCH_ROWS	64

/* One row of a batch. */
typedef struct BatchRow
{
	pg_uuid_t	id;
	bool		stored_before;	/* its key had a live task, or came earlier in
								 * the batch */
	RetryFanoutChild *children; /* of a fan-out */
} BatchRow;

/* A key of a batch and the row it came with, to be sorted. */
typedef struct BatchKey
{
	text	   *key;
	int			row;
} BatchKey;

/* What all tasks of one call have in common. */
static void
fill_common(const RetryEnqueueOptions *o, Oid role, Datum *values, bool *isnull)
{
	for (int i = 0; i < Task_natts; i++)
	{
		values[i] = (Datum) 0;
		isnull[i] = true;
	}

	RETRY_FILL(Task_max_attempts, o->max_attempts != 0, Int32GetDatum(o->max_attempts));
	RETRY_FILL(Task_scene_id, true, Int32GetDatum(o->scene.id));
	RETRY_FILL(Task_enqueued_by, true, ObjectIdGetDatum(role));
	RETRY_FILL(Task_expires_at, o->has_expiry, TimestampTzGetDatum(o->expires_at));
	RETRY_FILL(Task_timeout_ms, o->timeout_ms != 0, Int32GetDatum(o->timeout_ms));
	RETRY_FILL(Task_reference, o->reference != NULL, PointerGetDatum(o->reference));
	RETRY_FILL(Task_url, o->url != NULL, PointerGetDatum(o->url));
	RETRY_FILL(Task_method, o->method != NULL, PointerGetDatum(o->method));
	RETRY_FILL(Task_headers, o->headers != NULL, JsonbPGetDatum(o->headers));
	RETRY_FILL(Task_content_type, o->content_type != NULL, PointerGetDatum(o->content_type));
	RETRY_FILL(Task_backoff, o->has_backoff, o->backoff);
	RETRY_FILL(Task_on_success, o->on_success != NULL, PointerGetDatum(o->on_success));
	RETRY_FILL(Task_on_dead, o->on_dead != NULL, PointerGetDatum(o->on_dead));
}

/* The lane of a task with this key, or without; targets of a fan-out have others. */
static void
set_lane(const RetryEnqueueOptions *o, const text *key, Datum *values, bool *isnull)
{
	RetryLaneTask task = o->lane_of;
	text	   *lane;
	int64		hash;

	task.key = key;
	retry_lane_choose(&o->scene.lanes, &task, &lane, &hash);
	values[Task_lane_hash] = Int64GetDatum(hash);
	values[Task_lane] = PointerGetDatum(lane);
	isnull[Task_lane_hash] = false;
	isnull[Task_lane] = lane == NULL;
}

bytea *
retry_payload_body(Jsonb *payload)
{
	StringInfoData text;
	char	   *utf8;
	int			len;
	bytea	   *body;

	initStringInfo(&text);
	JsonbToCString(&text, &payload->root, VARSIZE(payload));
	utf8 = pg_server_to_any(text.data, text.len, PG_UTF8);
	len = utf8 == text.data ? text.len : (int) strlen(utf8);

	retry_check_body_size(len);

	body = palloc(VARHDRSZ + len);
	SET_VARSIZE(body, VARHDRSZ + len);
	memcpy(VARDATA(body), utf8, len);
	return body;
}

/* The same, when its group may have a body of this size. */
static bytea *
make_body(const RetryEnqueueOptions *o, Jsonb *payload)
{
	bytea	   *body = retry_payload_body(payload);

	retry_group_check_body(&o->scene.group, VARSIZE(body) - VARHDRSZ);
	return body;
}

static inline TimestampTz
first_due(const RetryEnqueueOptions *o, TimestampTz now)
{
	return o->has_due && o->due_at > now ? o->due_at : now;
}

/* The key that a task with this body, or none, gets in a scene with generate_key. */
static text *
generated_key(const RetryEnqueueOptions *o, const bytea *body)
{
	return retry_make_digest_key(o->scene.group.name, o->scene.name, o->url,
								 body != NULL ? VARDATA_ANY(body) : NULL,
								 body != NULL ? VARSIZE_ANY_EXHDR(body) : 0);
}

void
retry_new_task(FunctionCallInfo fcinfo, RetrySignature signature, RetryNewTask *task)
{
	RetryEnqueueOptions *o = &task->options;
	Oid			role = GetUserId();

	task->now = GetCurrentTimestamp();
	retry_enqueue_options(fcinfo, signature, GetActiveSnapshot(), role, task->now, o);
	fill_common(o, role, task->values, task->isnull);
	task->isnull[Task_body] = o->payload == NULL && o->body == NULL;
	if (!task->isnull[Task_body])
		task->values[Task_body] = PointerGetDatum(o->body != NULL ? o->body : make_body(o, o->payload));
	if (o->key == NULL && o->scene.generate_key)
		o->key = generated_key(o, (bytea *) DatumGetPointer(task->values[Task_body]));
	task->isnull[Task_key] = o->key == NULL;
	task->values[Task_key] = PointerGetDatum(o->key);
	if (o->fanout == NULL)
		set_lane(o, o->key, task->values, task->isnull);
	retry_new_id(task->now, &task->id);
	task->due_at = first_due(o, task->now);
}

/* The children of a message, each with its key, if there is one. */
static void
store_children(RetryWriter *writer, RetryNewTask *task)
{
	const RetryFanout *fanout = task->options.fanout;
	RetryFanoutChild *children = palloc(retry_fanout_count(fanout) * sizeof(RetryFanoutChild));

	retry_fanout_new_ids(fanout, task->now, children);
	if (!task->isnull[Task_key])
	{
		RetryKeyring keyring;

		retry_keyring_begin(&keyring, &task->options.scene, task->options.on_conflict);
		retry_fanout_claim(fanout, &keyring, DatumGetTextPP(task->values[Task_key]), task->due_at,
						   &task->id, children);
		retry_keyring_end(&keyring);
	}
	retry_group_admit(&task->options.scene.group, retry_fanout_new(fanout, children), true);
	retry_writer_group(writer, &task->options.scene.group);
	retry_fanout_write(fanout, writer, &task->id, children, task->due_at, task->values, task->isnull);
}

bool
retry_store_new_task(RetryWriter *writer, RetryNewTask *task)
{
	if (task->options.fanout != NULL)
	{
		store_children(writer, task);
		retry_scene_keep(&task->options.scene);
		return true;
	}
	if (!task->isnull[Task_key])
	{
		RetryKeyring keyring;
		bool		is_new;

		retry_keyring_begin(&keyring, &task->options.scene, task->options.on_conflict);
		is_new = retry_key_claim(&keyring, DatumGetTextPP(task->values[Task_key]),
								 retry_leaf_for(&task->id, task->due_at), &task->id);
		retry_keyring_end(&keyring);
		if (!is_new)
			return false;
	}
	retry_group_admit(&task->options.scene.group, 1, true);
	retry_writer_group(writer, &task->options.scene.group);
	retry_write_task(writer, &task->id, task->due_at, task->values, task->isnull);
	retry_scene_keep(&task->options.scene);
	return true;
}

/* retry.enqueue(): stores one task and returns its id. */
Datum
retry_enqueue(PG_FUNCTION_ARGS)
{
	RetryNewTask *task = palloc(sizeof(RetryNewTask));
	RetryWriter *writer;

	retry_new_task(fcinfo, RETRY_SIGNATURE_ENQUEUE, task);
	writer = retry_writer_begin("retry.enqueue()");
	(void) retry_store_new_task(writer, task);
	retry_writer_end(writer);
	PG_RETURN_UUID_P(&task->id);
}

/* The elements of a one-dimensional array. */
static int
read_array(const char *what, ArrayType *array, Oid type, Datum **elements, bool **nulls)
{
	int			count;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s has more than one dimension", what)));
	deconstruct_array(array, type, -1, false, TYPALIGN_INT, elements, nulls, &count);
	return count;
}

static int
compare_keys(const void *a, const void *b)
{
	const BatchKey *ka = a;
	const BatchKey *kb = b;
	int			la = VARSIZE_ANY_EXHDR(ka->key);
	int			lb = VARSIZE_ANY_EXHDR(kb->key);
	int			order = memcmp(VARDATA_ANY(ka->key), VARDATA_ANY(kb->key), Min(la, lb));

	if (order == 0)
		order = la - lb;
	return order != 0 ? order : ka->row - kb->row;
}

/*
 * Gives the tasks of a batch that have no key the digest of their payload.
 * "keys" may be NULL; the arrays that come back are new.
 */
static void
generate_keys(const RetryEnqueueOptions *o, const Datum *payloads, const bool *payload_nulls,
			  Datum **keys, bool **nulls, int count)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "retry digests",
												  ALLOCSET_DEFAULT_SIZES);
	Datum	   *all = palloc_extended(sizeof(Datum) * count, MCXT_ALLOC_HUGE);

	for (int i = 0; i < count; i++)
	{
		MemoryContext old;
		text	   *key;

		if (*keys != NULL && !(*nulls)[i])
		{
			all[i] = (*keys)[i];
			continue;
		}
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(scratch);
		key = generated_key(o, payload_nulls[i] ? NULL : make_body(o, DatumGetJsonbP(payloads[i])));
		MemoryContextSwitchTo(old);
		all[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(PointerGetDatum(key)));
		MemoryContextReset(scratch);
	}
	MemoryContextDelete(scratch);
	*keys = all;
	*nulls = palloc_extended(sizeof(bool) * count, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

/*
 * Claims the keys of a batch in one order for all sessions, so that two
 * batches with keys in common never wait for each other.  Rows of a key that
 * came earlier in the batch get the same task.
 */
static void
claim_keys(const RetryEnqueueOptions *o, TimestampTz now, const Datum *keys, const bool *nulls,
		   BatchRow *rows, int count)
{
	BatchKey   *sorted = palloc_extended(sizeof(BatchKey) * Max(count, 1), MCXT_ALLOC_HUGE);
	RetryKeyring keyring;
	int			n = 0;

	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			continue;
		sorted[n].key = DatumGetTextPP(keys[i]);
		sorted[n].row = i;
		retry_check_short_text("key", sorted[n].key);
		n++;
	}
	qsort(sorted, n, sizeof(BatchKey), compare_keys);

	retry_keyring_begin(&keyring, &o->scene, o->on_conflict);
	for (int i = 0; i < n; i++)
	{
		BatchRow   *row = &rows[sorted[i].row];
		text	   *key = sorted[i].key;

		CHECK_FOR_INTERRUPTS();
		if (i > 0 && VARSIZE_ANY_EXHDR(key) == VARSIZE_ANY_EXHDR(sorted[i - 1].key) &&
			memcmp(VARDATA_ANY(key), VARDATA_ANY(sorted[i - 1].key), VARSIZE_ANY_EXHDR(key)) == 0)
		{
			row->id = rows[sorted[i - 1].row].id;
			row->stored_before = true;
		}
		else if (o->fanout != NULL)
			retry_fanout_claim(o->fanout, &keyring, key, first_due(o, now), &row->id, row->children);
		else
			row->stored_before = !retry_key_claim(&keyring, key, retry_leaf_for(&row->id, first_due(o, now)),
												  &row->id);
	}
	retry_keyring_end(&keyring);
	pfree(sorted);
}

/* How many tasks a batch is that are new. */
static int64
count_new(const RetryEnqueueOptions *o, const BatchRow *rows, int count)
{
	int64		n = 0;

	for (int i = 0; i < count; i++)
	{
		if (!rows[i].stored_before)
			n += o->fanout == NULL ? 1 : retry_fanout_new(o->fanout, rows[i].children);
	}
	return n;
}

/* Stores the rows of a batch that are new, in the order of the array. */
static void
write_batch(RetryWriter *writer, const RetryEnqueueOptions *o, Oid role, TimestampTz now,
			const BatchRow *rows, const Datum *payloads, const bool *payload_nulls,
			const Datum *keys, const bool *key_nulls, int count)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "retry enqueue batch",
												  ALLOCSET_DEFAULT_SIZES);
	Datum		values[Task_natts];
	bool		isnull[Task_natts];

	fill_common(o, role, values, isnull);
	if (o->fanout == NULL)
		set_lane(o, NULL, values, isnull);
	for (int i = 0; i < count; i++)
	{
		MemoryContext old;

		if (rows[i].stored_before)
			continue;
		old = MemoryContextSwitchTo(scratch);
		isnull[Task_body] = payload_nulls[i];
		if (!payload_nulls[i])
			values[Task_body] = PointerGetDatum(make_body(o, DatumGetJsonbP(payloads[i])));
		isnull[Task_key] = keys == NULL || key_nulls[i];
		if (!isnull[Task_key])
			values[Task_key] = keys[i];
		if (o->fanout == NULL && o->scene.lanes.by == RETRY_LANE_BY_KEY)
			set_lane(o, isnull[Task_key] ? NULL : DatumGetTextPP(keys[i]), values, isnull);
		if (o->fanout != NULL)
			retry_fanout_write(o->fanout, writer, &rows[i].id, rows[i].children, first_due(o, now),
							   values, isnull);
		else
			retry_write_task(writer, &rows[i].id, first_due(o, now), values, isnull);
		MemoryContextSwitchTo(old);

		if (i % SCRATCH_ROWS == SCRATCH_ROWS - 1)
		{
			MemoryContextReset(scratch);
			CHECK_FOR_INTERRUPTS();
		}
	}
	MemoryContextDelete(scratch);
}

/* Ids for the rows of a batch; in a fan-out each is a parent's, and its children's follow. */
static void
new_ids(const RetryEnqueueOptions *o, TimestampTz now, BatchRow *rows, int count)
{
	RetryFanoutChild *children = NULL;
	Size		each = o->fanout != NULL ? retry_fanout_count(o->fanout) : 0;

	if (each > 0)
		children = palloc_extended(sizeof(RetryFanoutChild) * each * count, MCXT_ALLOC_HUGE);
	for (int i = 0; i < count; i++)
	{
		retry_new_id(now, &rows[i].id);
		if (each == 0)
			continue;
		rows[i].children = children + i * each;
		retry_fanout_new_ids(o->fanout, now, rows[i].children);
	}
}

/*
 * retry.enqueue_many(): all tasks of a batch are enqueued at one moment, and
 * their ids ascend in the order of the array, so that order is the batch's.
 */
Datum
retry_enqueue_many(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();
	Oid			role = GetUserId();
	RetryEnqueueOptions options;
	RetryWriter *writer;
	BatchRow   *rows;
	Datum	   *payloads = NULL;
	Datum	   *keys = NULL;
	bool	   *payload_nulls = NULL;
	bool	   *key_nulls = NULL;
	int			count = 0;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	retry_enqueue_options(fcinfo, RETRY_SIGNATURE_MANY, GetActiveSnapshot(), role, now, &options);
	if (!PG_ARGISNULL(1))
		count = read_array("payloads", PG_GETARG_ARRAYTYPE_P(1), JSONBOID, &payloads, &payload_nulls);
	if (!PG_ARGISNULL(2))
	{
		int			nkeys = read_array("keys", PG_GETARG_ARRAYTYPE_P(2), TEXTOID, &keys, &key_nulls);

		if (nkeys != count)
			ereport(ERROR,
					(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
					 errmsg("%d keys are given for %d payloads", nkeys, count),
					 errhint("keys has one element, which may be null, for each payload.")));
	}
	if (count == 0)
		return (Datum) 0;
	if (options.scene.generate_key)
		generate_keys(&options, payloads, payload_nulls, &keys, &key_nulls, count);

	writer = retry_writer_begin("retry.enqueue_many()");
	rows = palloc_extended(sizeof(BatchRow) * count, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	new_ids(&options, now, rows, count);
	if (keys != NULL)
		claim_keys(&options, now, keys, key_nulls, rows, count);
	retry_writer_group(writer, &options.scene.group);
	if (options.scene.group.limits.shared)
		retry_group_admit(&options.scene.group, count_new(&options, rows, count), true);
	write_batch(writer, &options, role, now, rows, payloads, payload_nulls, keys, key_nulls, count);
	retry_scene_keep(&options.scene);
	retry_writer_end(writer);

	for (int i = 0; i < count; i++)
	{
		Datum		value = UUIDPGetDatum(&rows[i].id);
		bool		isnull = false;

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
	}
	return (Datum) 0;
}
