/*
 * amend.c
 *		Changes to tasks that are enqueued already: how they are read, stored,
 *		found again and laid over the row.
 *
 * What a session gives is checked here for good and written in a form that
 * needs no function of a type to be read: numbers, texts, a moment in one
 * format, bytes in base64.  For it is read by dispatchers at each attempt of
 * the task, and an error there would stop more than that task.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/base64.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "amend.h"
#include "backoff.h"
#include "enqueue.h"
#include "part.h"
#include "quote.h"
#include "sqltarget.h"

/* backoff_type.c, known to SQL only */
extern Datum retry_backoff_in(PG_FUNCTION_ARGS);
extern Datum retry_backoff_out(PG_FUNCTION_ARGS);

/* What a value becomes. */
typedef enum Kind
{
	KIND_INT, KIND_MOMENT, KIND_BACKOFF, KIND_TEXT, KIND_OBJECT, KIND_BYTES
} Kind;

/* A column that can be changed. */
typedef struct Column
{
	const char *name;
	int			column;
	Kind		kind;
} Column;

static const Column columns[] = {
	{"max_attempts", Task_max_attempts, KIND_INT},
	{"expires_at", Task_expires_at, KIND_MOMENT},
	{"backoff", Task_backoff, KIND_BACKOFF},
	{"timeout_ms", Task_timeout_ms, KIND_INT},
	{"url", Task_url, KIND_TEXT},
	{"method", Task_method, KIND_TEXT},
	{"headers", Task_headers, KIND_OBJECT},
	{"content_type", Task_content_type, KIND_TEXT},
	{"body", Task_body, KIND_BYTES},
};

static const Column *
find_column(const JsonbValue *name)
{
	for (int i = 0; i < lengthof(columns); i++)
	{
		if (strlen(columns[i].name) == name->val.string.len &&
			memcmp(columns[i].name, name->val.string.val, name->val.string.len) == 0)
			return &columns[i];
	}
	return NULL;
}

/* Reading what a caller gives */

/* ERROR unless the value has this type. */
static void
require(const char *member, JsonbValue *value, bool good, const char *what, const char *hint)
{
	char	   *text;

	if (good)
		return;
	text = JsonbToCString(NULL, &JsonbValueToJsonb(value)->root, 100);

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s is not %s: %s", member, what, retry_quoted_string(text)),
			 errhint("%s", hint)));
}

static char *
require_string(const char *member, JsonbValue *value, const char *hint)
{
	require(member, value, value->type == jbvString, "a string", hint);
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static void
set_string(JsonbValue *stored, char *string)
{
	stored->type = jbvString;
	stored->val.string.val = string;
	stored->val.string.len = strlen(string);
}

static void
set_int(JsonbValue *stored, int32 value)
{
	stored->type = jbvNumeric;
	stored->val.numeric = DatumGetNumeric(DirectFunctionCall1(int4_numeric, Int32GetDatum(value)));
}

/* The bytes of base64 are char up to 17 and uint8 from 18 on: hence void. */
static void
set_bytes(JsonbValue *stored, const char *bytes, int len)
{
	int			room = pg_b64_enc_len(len);
	char	   *base64 = palloc(room + 1);
	int			n = pg_b64_encode((const void *) bytes, len, base64, room);

	if (n < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not encode a body of %d bytes", len)));
	base64[n] = '\0';
	set_string(stored, base64);
}

static void
read_max_attempts(JsonbValue *value, TimestampTz now, JsonbValue *stored)
{
	double		number = 0;

	if (value->type == jbvNumeric)
		number = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
													NumericGetDatum(value->val.numeric)));
	require("max_attempts", value,
			value->type == jbvNumeric && number == floor(number) && fabs(number) <= PG_INT32_MAX,
			"an integer", "Write a number, or null for the scene's.");
	retry_check_max_attempts((int32) number);
	set_int(stored, (int32) number);
}

static void
read_expires_at(JsonbValue *value, TimestampTz now, JsonbValue *stored)
{
	char	   *string = require_string("expires_at", value, "Write a moment as a string, or null for no limit.");
	Datum		moment = DirectFunctionCall3(timestamptz_in, CStringGetDatum(string),
											 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	char	   *text = palloc(MAXDATELEN + 1);
	int			utc = 0;

	retry_check_expiry(DatumGetTimestampTz(moment), now);
	JsonEncodeDateTime(text, moment, TIMESTAMPTZOID, &utc);
	set_string(stored, text);
}

static void
read_backoff(JsonbValue *value, TimestampTz now, JsonbValue *stored)
{
	char	   *string = require_string("backoff", value, "Write a string such as \"fixed 30s\", or null for the scene's.");
	Datum		backoff = DirectFunctionCall1(retry_backoff_in, CStringGetDatum(string));

	set_string(stored, DatumGetCString(DirectFunctionCall1(retry_backoff_out, backoff)));
}

static void
read_timeout(JsonbValue *value, TimestampTz now, JsonbValue *stored)
{
	char	   *string = require_string("timeout", value, "Write an interval as a string, such as \"10 s\", or null for the scene's.");
	Datum		interval = DirectFunctionCall3(interval_in, CStringGetDatum(string),
											   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));

	set_int(stored, retry_check_timeout(DatumGetIntervalP(interval)));
}

static void
read_url(JsonbValue *value, TimestampTz now, JsonbValue *stored)
{
	char	   *string = require_string("url", value, "Write a URL, or null for the scene's.");

	retry_check_task_url(string);
	set_string(stored, string);
}

static void
read_method(JsonbValue *value, TimestampTz now, JsonbValue *stored)
{
	char	   *string = require_string("method", value, "Write a method, or null for the scene's.");

	set_string(stored, text_to_cstring(retry_check_method(cstring_to_text(string))));
}

static void
read_headers(JsonbValue *value, TimestampTz now, JsonbValue *stored)
{
	retry_check_header_object(JsonbValueToJsonb(value), false);
	*stored = *value;
}

static void
read_content_type(JsonbValue *value, TimestampTz now, JsonbValue *stored)
{
	char	   *string = require_string("content_type", value, "Write a media type, or null for application/json.");

	retry_check_short_text("content_type", cstring_to_text(string));
	set_string(stored, string);
}

static void
read_payload(JsonbValue *value, TimestampTz now, JsonbValue *stored)
{
	bytea	   *body = retry_payload_body(JsonbValueToJsonb(value));

	set_bytes(stored, VARDATA(body), VARSIZE(body) - VARHDRSZ);
}

static void
read_body(JsonbValue *value, TimestampTz now, JsonbValue *stored)
{
	const char *hint = "Write the bytes in base64, as encode(bytes, 'base64') does, or give payload.";
	char	   *string = require_string("body", value, hint);
	int			room = pg_b64_dec_len(strlen(string));
	char	   *bytes = palloc(room + 1);
	int			len = pg_b64_decode(string, strlen(string), (void *) bytes, room);

	require("body", value, len >= 0, "base64", hint);
	retry_check_body_size(len);
	set_bytes(stored, bytes, len);
}

/* A member that a caller can give. */
static const struct Member
{
	const char *name;
	const char *column;			/* by which it is stored */
	void		(*read) (JsonbValue *value, TimestampTz now, JsonbValue *stored);
}			members[] =

{
	{"max_attempts", "max_attempts", read_max_attempts},
	{"expires_at", "expires_at", read_expires_at},
	{"backoff", "backoff", read_backoff},
	{"timeout", "timeout_ms", read_timeout},
	{"url", "url", read_url},
	{"method", "method", read_method},
	{"headers", "headers", read_headers},
	{"payload", "body", read_payload},
	{"body", "body", read_body},
	{"content_type", "content_type", read_content_type},
};

static const struct Member *
find_member(const JsonbValue *name)
{
	for (int i = 0; i < lengthof(members); i++)
	{
		if (strlen(members[i].name) == name->val.string.len &&
			memcmp(members[i].name, name->val.string.val, name->val.string.len) == 0)
			return &members[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("a task has no \"%s\" that can be changed",
					retry_quoted(name->val.string.val, name->val.string.len)),
			 errhint("It has max_attempts, expires_at, backoff, timeout, url, method, headers, payload or body, and content_type.")));
}

static bool
has_member(Jsonb *object, const char *name)
{
	JsonbValue	value;

	return getKeyJsonValueFromContainer(&object->root, name, strlen(name), &value) != NULL;
}

/* How many bytes a string of base64 stands for that set_bytes() has made. */
static int
decoded_size(const JsonbValue *base64)
{
	int			len = base64->val.string.len;
	int			padding = 0;

	while (padding < len && base64->val.string.val[len - padding - 1] == '=')
		padding++;
	return len / 4 * 3 - padding;
}

void
retry_change_read(Jsonb *given, TimestampTz now, RetryChange *change)
{
	JsonbParseState *state = NULL;
	JsonbIterator *it;
	JsonbValue	name;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("changes are not a JSON object"),
				 errhint("Changes are what is to be different: {\"max_attempts\": 30, \"url\": null}.")));
	if (JB_ROOT_COUNT(given) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("changes are empty")));
	if (has_member(given, "payload") && has_member(given, "body"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("both payload and body are given"),
				 errhint("Give one of them.")));

	memset(change, 0, sizeof(*change));
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	it = JsonbIteratorInit(&given->root);
	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &name, true) == WJB_KEY)
	{
		const struct Member *member = find_member(&name);
		JsonbValue	key;
		JsonbValue	stored = {.type = jbvNull};

		(void) JsonbIteratorNext(&it, &value, true);
		if (value.type != jbvNull)
			member->read(&value, now, &stored);
		if (member->read == read_url)
		{
			change->url = true;
			change->no_url = value.type == jbvNull;
		}
		if (strcmp(member->column, "body") == 0)
		{
			change->body = true;
			change->body_size = stored.type == jbvNull ? 0 : decoded_size(&stored);
		}
		if (member->read == read_headers && value.type != jbvNull)
			change->headers = JsonbValueToJsonb(&value);
		set_string(&key, unconstify(char *, member->column));
		pushJsonbValue(&state, WJB_KEY, &key);
		pushJsonbValue(&state, WJB_VALUE, &stored);
	}
	change->stored = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Is a function called, by the task's own URL or by its scene's? */
static bool
calls_function(Snapshot snapshot, int32 scene_id, const text *url)
{
	RetrySceneRow scene;

	if (url != NULL)
		return retry_is_sql_target(text_to_cstring(url));
	return retry_scene_by_id(snapshot, scene_id, &scene) && scene.url != NULL && retry_is_sql_target(scene.url);
}

void
retry_change_check_task(const RetryChange *change, Snapshot snapshot, int32 scene_id, const text *url,
						const text *on_success, Oid enqueued_by)
{
	RetrySceneRow scene;
	bool		own = has_privs_of_role(GetUserId(), enqueued_by);

	if (!own && on_success != NULL && retry_part(text_to_cstring(on_success)) == RETRY_PART_CHECK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not change how a message of role \"%s\" is asked about",
						GetUserNameFromId(GetUserId(), true), GetUserNameFromId(enqueued_by, true)),
				 errhint("Members of the role that prepared the message may.")));
	if (change->body && !own && calls_function(snapshot, scene_id, url))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not change what a function gets that runs as role \"%s\"",
						GetUserNameFromId(GetUserId(), true), GetUserNameFromId(enqueued_by, true)),
				 errhint("Members of the role that enqueued the task may.")));
	if ((change->body || change->headers != NULL) && retry_scene_by_id(snapshot, scene_id, &scene))
	{
		retry_group_check_body(&scene.group, change->body_size);
		retry_group_check_headers(&scene.group, change->headers);
	}
	if (!change->url)
		return;
	if (url != NULL && retry_is_sql_target(text_to_cstring(url)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("url cannot be changed of a task that calls the function \"%s\"", text_to_cstring(url))));
	if (change->no_url && retry_scene_by_id(snapshot, scene_id, &scene) &&
		scene.url == NULL && !scene.routed)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("url is null, and scene \"%s/%s\" has no URL", scene.group.name, scene.name),
				 errhint("Give a URL, or set the URL or the targets of the scene.")));
}

/* Finding them again */

/* A change, and when it was asked for. */
typedef struct Asked
{
	TimestampTz at;
	uint64		xid;
	Jsonb	   *change;
} Asked;

static int
compare_asked(const ListCell *a, const ListCell *b)
{
	const Asked *x = lfirst(a);
	const Asked *y = lfirst(b);

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->xid < y->xid ? -1 : x->xid > y->xid;
}

List *
retry_task_changes(RetryReader *reader, int leaf, const pg_uuid_t *id, bool *cancelled)
{
	List	   *list = NIL;
	TupleTableSlot *slot;
	ListCell   *cell;

	*cancelled = false;
	if (retry_reader_empty(reader, RETRY_SIGNAL, leaf))
		return NIL;
	for (slot = retry_first_signal(reader, leaf, id); slot != NULL;
		 slot = retry_scan_next(reader, RETRY_SIGNAL_TASK, leaf, ForwardScanDirection))
	{
		bool		isnull;
		char		action = DatumGetChar(slot_getattr(slot, Signal_action + 1, &isnull));
		Datum		change;
		Asked	   *asked;

		if (action == RETRY_SIGNAL_CANCEL)
		{
			*cancelled = true;
			return NIL;
		}
		if (action != RETRY_SIGNAL_AMEND)
			continue;
		change = slot_getattr(slot, Signal_change + 1, &isnull);
		if (isnull)
			continue;
		asked = palloc(sizeof(Asked));
		asked->change = DatumGetJsonbPCopy(change);
		asked->at = DatumGetTimestampTz(slot_getattr(slot, Signal_due_at + 1, &isnull));
		asked->xid = DatumGetUInt64(slot_getattr(slot, Signal_xid + 1, &isnull));
		list = lappend(list, asked);
	}
	list_sort(list, compare_asked);
	foreach(cell, list)
		lfirst(cell) = ((Asked *) lfirst(cell))->change;
	return list;
}

/* Laying them over a row */

/* A moment as it was stored; false when it is none. */
static bool
parse_moment(const char *string, TimestampTz *moment)
{
	struct pg_tm tm = {0};
	char		rest[32] = "";
	char	   *end = rest;
	double		fraction = 0;
	int			utc = 0;

	if (sscanf(string, "%d-%d-%dT%d:%d:%d%31s", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
			   &tm.tm_hour, &tm.tm_min, &tm.tm_sec, rest) < 7)
		return false;
	if (rest[0] == '.')
		fraction = strtod(rest, &end);
	return strcmp(end, "+00:00") == 0 && tm.tm_mon >= 1 && tm.tm_mon <= 12 &&
		tm2timestamp(&tm, (fsec_t) rint(fraction * USECS_PER_SEC), &utc, moment) == 0;
}

static Datum
backoff_datum(const char *string)
{
	RetryBackoff *backoff = palloc0(sizeof(RetryBackoff));
	RetryParseError error;

	return retry_backoff_parse(string, backoff, &error) ? PointerGetDatum(backoff) : (Datum) 0;
}

static Datum
bytes_datum(const char *string)
{
	int			room = pg_b64_dec_len(strlen(string));
	bytea	   *bytes = palloc(VARHDRSZ + room);
	int			len = pg_b64_decode(string, strlen(string), (void *) VARDATA(bytes), room);

	if (len < 0)
		return (Datum) 0;
	SET_VARSIZE(bytes, VARHDRSZ + len);
	return PointerGetDatum(bytes);
}

/* The value that was stored for a column; false when it is not of its kind. */
static bool
read_stored(const Column *column, JsonbValue *stored, Datum *value)
{
	char	   *string = NULL;
	double		number;
	TimestampTz moment;

	if (stored->type == jbvString)
		string = pnstrdup(stored->val.string.val, stored->val.string.len);
	else if (stored->type != (column->kind == KIND_INT ? jbvNumeric : jbvBinary))
		return false;
	if ((string != NULL) != (column->kind != KIND_INT && column->kind != KIND_OBJECT))
		return false;

	switch (column->kind)
	{
		case KIND_INT:
			number = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
														NumericGetDatum(stored->val.numeric)));
			*value = Int32GetDatum((int32) number);
			return number >= 1 && number <= PG_INT32_MAX;
		case KIND_MOMENT:
			*value = 0;
			if (!parse_moment(string, &moment))
				return false;
			*value = TimestampTzGetDatum(moment);
			return true;
		case KIND_BACKOFF:
			*value = backoff_datum(string);
			return *value != 0;
		case KIND_TEXT:
			*value = CStringGetTextDatum(string);
			return true;
		case KIND_OBJECT:
			*value = JsonbPGetDatum(JsonbValueToJsonb(stored));
			return true;
		case KIND_BYTES:
			*value = bytes_datum(string);
			return *value != 0;
	}
	return false;
}

void
retry_changes_apply(const List *changes, Datum *values, bool *isnull)
{
	ListCell   *cell;

	foreach(cell, changes)
	{
		Jsonb	   *change = lfirst(cell);
		JsonbIterator *it;
		JsonbValue	name;
		JsonbValue	stored;

		if (!JB_ROOT_IS_OBJECT(change))
			continue;
		it = JsonbIteratorInit(&change->root);
		(void) JsonbIteratorNext(&it, &stored, true);
		while (JsonbIteratorNext(&it, &name, true) == WJB_KEY)
		{
			const Column *column = find_column(&name);
			Datum		value;

			(void) JsonbIteratorNext(&it, &stored, true);
			if (column == NULL)
				continue;
			if (stored.type == jbvNull)
				isnull[column->column] = true;
			else if (read_stored(column, &stored, &value))
			{
				values[column->column] = value;
				isnull[column->column] = false;
			}
		}
	}
}

void
retry_changes_apply_slot(const List *changes, TupleTableSlot *slot)
{
	if (changes == NIL)
		return;
	slot_getallattrs(slot);
	retry_changes_apply(changes, slot->tts_values, slot->tts_isnull);
}
