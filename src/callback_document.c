/*
 * callback_document.c
 *		What a callback says: the outcome of a task as a JSON document.
 *
 * The document is put together as text and never passes through a parser that
 * might raise an error, since it is made while an outcome is being recorded.
 * What a receiver answered goes into it as JSON only if it is JSON that a
 * jsonb can hold, so that whoever takes the document apart in SQL can do so
 * whatever a third party answered; anything else goes as text, and what is no
 * text in base64.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "common/base64.h"
#include "common/jsonapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "callback.h"
#include "guc.h"
#include "store.h"

/* A larger payload is left out. */
#define PAYLOAD_MAX		8192

/* JSON that is nested deeper is text: parsers need stack for each level. */
#define NESTING_MAX		500

/* Longest number, and largest exponent, that are sure to be a numeric. */
#define NUMBER_MAX		1000

/* The order is that of RetryDeadReason. */
static const char *const reason_names[RETRY_DEAD_REASONS] = {
	"exhausted", "expired", "stopped", "gone", "blocked", "quarantined", "rejected"
};

/* Is it JSON that can be a jsonb? */

static bool
too_deep(const char *bytes, Size len)
{
	bool		in_string = false;
	int			depth = 0;

	for (Size i = 0; i < len; i++)
	{
		char		c = bytes[i];

		if (in_string && c == '\\')
			i++;
		else if (c == '"')
			in_string = !in_string;
		else if (!in_string && (c == '[' || c == '{') && ++depth > NESTING_MAX)
			return true;
		else if (!in_string && (c == ']' || c == '}'))
			depth--;
	}
	return false;
}

static bool
is_huge_number(const char *token)
{
	const char *exponent = strpbrk(token, "eE");

	return strlen(token) > NUMBER_MAX ||
		(exponent != NULL && labs(strtol(exponent + 1, NULL, 10)) > NUMBER_MAX);
}

#if PG_VERSION_NUM < 160000
#define SCALAR_RESULT	void
#define SCALAR_DONE
#else
#define SCALAR_RESULT	JsonParseErrorType
#define SCALAR_DONE		JSON_SUCCESS
#endif

static SCALAR_RESULT
look_at_scalar(void *state, char *token, JsonTokenType type)
{
	if (type == JSON_TOKEN_NUMBER && is_huge_number(token))
		*(bool *) state = false;
	return SCALAR_DONE;
}

static bool
is_jsonb(const char *bytes, Size len)
{
	bool		good = true;
	JsonSemAction actions = {.semstate = &good,.scalar = look_at_scalar};
	JsonLexContext *lex;

	if (len == 0 || too_deep(bytes, len) ||
		pg_encoding_verifymbstr(PG_UTF8, bytes, (int) len) != (int) len)
		return false;

	/* with strings unescaped: that finds what no text can hold */
#if PG_VERSION_NUM < 170000
	lex = makeJsonLexContextCstringLen(unconstify(char *, bytes), (int) len, PG_UTF8, true);
#else
	lex = makeJsonLexContextCstringLen(NULL, bytes, len, PG_UTF8, true);
#endif
	return pg_parse_json(lex, &actions) == JSON_SUCCESS && good;
}

/* Writing */

static void
add_name(StringInfo out, const char *name)
{
	appendStringInfo(out, "%s\"%s\": ", out->len > 1 ? ", " : "", name);
}

/* A string of UTF-8. */
static void
add_string(StringInfo out, const char *name, const char *value)
{
	add_name(out, name);
	escape_json(out, value);
}

/* A text in the server's encoding. */
static void
add_text(StringInfo out, const char *name, Datum value)
{
	char	   *given = TextDatumGetCString(value);

	add_string(out, name, pg_server_to_any(given, strlen(given), PG_UTF8));
}

static void
add_base64(StringInfo out, const char *name, const void *bytes, Size len)
{
	int			room = pg_b64_enc_len((int) len) + 1;
	char	   *encoded = palloc(room);
	int			written = pg_b64_encode(bytes, (int) len, encoded, room);

	add_name(out, name);
	appendStringInfoChar(out, '"');
	if (written > 0)
		appendBinaryStringInfo(out, encoded, written);
	appendStringInfoChar(out, '"');
}

static void
add_response(StringInfo out, const char *bytes, Size len)
{
	int			valid;

	if (is_jsonb(bytes, len))
	{
		add_name(out, "response");
		appendBinaryStringInfo(out, bytes, (int) len);
		return;
	}
	valid = pg_encoding_verifymbstr(PG_UTF8, bytes, (int) len);

	/* the last character may have been cut in two with the response */
	if (len >= retry_max_response_bytes && len - valid < 4 && len > valid && IS_HIGHBIT_SET(bytes[valid]))
		len = valid;
	if (len == valid)
		add_string(out, "response", pnstrdup(bytes, len));
	else
		add_base64(out, "response_base64", bytes, len);
}

/* The body that the task itself sent. */
static void
add_payload(StringInfo out, TupleTableSlot *task)
{
	bytea	   *body;

	if (task->tts_isnull[Task_body])
		return;
	if (!task->tts_isnull[Task_content_type])
	{
		char	   *type = TextDatumGetCString(task->tts_values[Task_content_type]);

		if (pg_strncasecmp(type, "application/json", 16) != 0)
			return;
	}
	if (toast_raw_datum_size(task->tts_values[Task_body]) - VARHDRSZ > PAYLOAD_MAX)
		return;
	body = DatumGetByteaPP(task->tts_values[Task_body]);
	if (!is_jsonb(VARDATA_ANY(body), VARSIZE_ANY_EXHDR(body)))
		return;
	add_name(out, "payload");
	appendBinaryStringInfo(out, VARDATA_ANY(body), VARSIZE_ANY_EXHDR(body));
}

static void
add_outcome(StringInfo out, const RetryEnded *ended, TupleTableSlot *task, const char *scene)
{
	bool		dead = ended->verdict.outcome != RETRY_SUCCEEDED;
	char		time[MAXDATELEN + 1];
	int			utc = 0;

	add_string(out, "outcome", dead ? "dead" : "succeeded");
	add_string(out, "task", DatumGetCString(DirectFunctionCall1(uuid_out,
																UUIDPGetDatum(&ended->entry.pos.id))));
	if (scene != NULL)
		add_string(out, "scene", scene);
	if (!task->tts_isnull[Task_key])
		add_text(out, "key", task->tts_values[Task_key]);
	if (!task->tts_isnull[Task_reference])
		add_text(out, "reference", task->tts_values[Task_reference]);
	add_name(out, "attempts");
	appendStringInfo(out, "%d", ended->entry.attempts + 1);
	if (dead)
		add_string(out, "reason", reason_names[ended->verdict.reason]);
	if (ended->http_status != 0)
	{
		add_name(out, "status");
		appendStringInfo(out, "%d", ended->http_status);
	}
	if (ended->error != NULL && ended->error[0] != '\0')
		add_text(out, "error", retry_error_datum(ended->error));
	JsonEncodeDateTime(time, TimestampTzGetDatum(ended->finished_at), TIMESTAMPTZOID, &utc);
	add_string(out, "finished_at", time);
}

bytea *
retry_callback_document(const RetryEnded *ended, TupleTableSlot *task, const char *scene,
						RetryCallbackForm form)
{
	StringInfoData out;
	bytea	   *body;

	slot_getallattrs(task);
	initStringInfo(&out);
	appendStringInfoChar(&out, '{');
	add_outcome(&out, ended, task, scene);
	if (form == RETRY_CALLBACK_FULL)
	{
		if (ended->response != NULL && ended->response_len > 0)
			add_response(&out, ended->response, ended->response_len);
		add_payload(&out, task);
	}
	appendStringInfoChar(&out, '}');
	if (form == RETRY_CALLBACK_FULL && out.len > retry_max_request_bytes)
		return retry_callback_document(ended, task, scene, RETRY_CALLBACK_SMALL);

	body = palloc(VARHDRSZ + out.len);
	SET_VARSIZE(body, VARHDRSZ + out.len);
	memcpy(VARDATA(body), out.data, out.len);
	return body;
}
