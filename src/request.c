/*
 * request.c
 *		From a task's row and its scene to the bytes of a request.
 *
 * What every receiver may rely on is put together in this one place: the
 * headers by which it knows a repeated message (Idempotency-Key, webhook-id),
 * how old it is, and how often and how long it will be tried.  It runs for
 * every attempt, so all header lines of a request are written into one piece
 * of memory, and a task without headers of its own costs no JSON.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "part.h"
#include "request.h"
#include "scene_mail.h"
#include "scene_secret.h"
#include "scene_tls.h"
#include "store.h"
#include "uuid7.h"

/* Room for the lines that are ours, without the key; and how many they are. */
#define OWN_BYTES	512
#define OWN_LINES	7

/* Header lines being written. */
typedef struct Lines
{
	char	   *at;				/* where the next line begins */
	const char **line;
	int			count;
	bool		has_type;		/* somebody gave a Content-Type */
} Lines;

/* These say what this attempt is, and cannot be given by anybody else. */
static const char *const own_names[] = {
	"idempotency-key", "webhook-id", "webhook-timestamp",
	"retry-attempt", "retry-deadline-ms"
};

static void
end_line(Lines *lines, char *end)
{
	*end++ = '\0';
	lines->line[lines->count++] = lines->at;
	lines->at = end;
}

/* "Name: " with its value to follow.  This runs for every attempt: no printf. */
static char *
begin_line(Lines *lines, const char *name)
{
	size_t		len = strlen(name);

	memcpy(lines->at, name, len);
	return lines->at + len;
}

static void
add_number(Lines *lines, const char *name, int64 value)
{
	char	   *to = begin_line(lines, name);

	end_line(lines, to + pg_lltoa(value, to));
}

static void
add_text(Lines *lines, const char *name, const char *value, int len)
{
	char	   *to = begin_line(lines, name);

	memcpy(to, value, len);
	end_line(lines, to + len);
}

static char *
write_uuid(char *to, const pg_uuid_t *id)
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*to++ = '-';
		*to++ = digits[id->data[i] >> 4];
		*to++ = digits[id->data[i] & 0xF];
	}
	return to;
}

/*
 * A key as a string of structured fields (RFC 9651), which may hold printable
 * ASCII only: other bytes are written as %XX, and so is the percent sign, so
 * that different keys never become the same.
 */
static char *
write_key(char *to, const char *key, int len)
{
	static const char digits[] = "0123456789ABCDEF";

	for (int i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) key[i];

		if (c < 0x20 || c > 0x7E || c == '%')
		{
			*to++ = '%';
			*to++ = digits[c >> 4];
			c = digits[c & 0xF];
		}
		else if (c == '"' || c == '\\')
			*to++ = '\\';
		*to++ = c;
	}
	return to;
}

static bool
same_name(const char *a, int a_len, const char *b, int b_len)
{
	return a_len == b_len && pg_strncasecmp(a, b, a_len) == 0;
}

static bool
is_own_name(const char *name, int len)
{
	for (int i = 0; i < lengthof(own_names); i++)
	{
		if (same_name(name, len, own_names[i], strlen(own_names[i])))
			return true;
	}
	return false;
}

/* Is the name among the lines from this one on? */
static bool
has_line(const Lines *lines, int from, const char *name, int len)
{
	for (int i = from; i < lines->count; i++)
	{
		if (pg_strncasecmp(lines->line[i], name, len) == 0 && lines->line[i][len] == ':')
			return true;
	}
	return false;
}

/*
 * Adds the headers of an object, but for names that are there already (from
 * line "from" on).  Values that are no strings did not come in by enqueue or
 * a scene, which refuse them: they are left out.
 */
static void
add_headers(Lines *lines, int from, Jsonb *headers)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(headers))
		return;
	it = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		char	   *to = lines->at;

		if (token != WJB_KEY || JsonbIteratorNext(&it, &value, true) != WJB_VALUE ||
			value.type != jbvString)
			continue;
		if (is_own_name(name.val.string.val, name.val.string.len))
			continue;

		/* one object too may hold a name twice, in different case */
		if (has_line(lines, from, name.val.string.val, name.val.string.len))
			continue;
		if (same_name(name.val.string.val, name.val.string.len, "content-type", 12))
		{
			if (lines->has_type)
				continue;
			lines->has_type = true;
		}

		memcpy(to, name.val.string.val, name.val.string.len);
		to += name.val.string.len;
		*to++ = ':';
		*to++ = ' ';
		memcpy(to, value.val.string.val, value.val.string.len);
		end_line(lines, to + value.val.string.len);
	}
}

/* The headers by which a receiver knows the message and the attempt. */
static void
add_own(Lines *lines, const pg_uuid_t *id, const text *key, int32 attempt_no,
		TimestampTz now, TimestampTz expires_at)
{
	char	   *to;

	to = begin_line(lines, "Idempotency-Key: \"");
	if (key != NULL)
		to = write_key(to, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	else
		to = write_uuid(to, id);
	*to++ = '"';
	end_line(lines, to);

	to = begin_line(lines, "webhook-id: ");
	end_line(lines, write_uuid(to, id));

	add_number(lines, "webhook-timestamp: ", retry_sign_seconds(now));
	add_number(lines, "Retry-Attempt: ", attempt_no);
	if (expires_at < DT_NOEND)
		add_number(lines, "Retry-Deadline-Ms: ", expires_at > now ? (expires_at - now) / 1000 : 0);
}

/* The signature by each value of the scene's secret that is in force, the newest first. */
static void
add_signatures(Lines *lines, const RetryScene *scene, const pg_uuid_t *id, TimestampTz now,
			   const RetryHttpRequest *http)
{
	char		id_text[2 * UUID_LEN + 4];
	char		timestamp[32];
	RetrySigned message = {
		.id = id_text,
		.id_len = write_uuid(id_text, id) - id_text,
		.timestamp = timestamp,
		.timestamp_len = sprintf(timestamp, INT64_FORMAT, retry_sign_seconds(now)),
		.body = http->body,
		.body_len = http->body_len
	};
	char	   *to = begin_line(lines, "webhook-signature:");

	for (int i = 0; i < scene->nsigning; i++)
	{
		const RetrySecret *secret = &scene->signing[i];

		if (secret->key.len == 0 || secret->signs_until <= now)
			continue;
		*to++ = ' ';
		if (!retry_sign(&secret->key, &message, to))
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("retry: a request of scene \"%s\" cannot be signed", scene->name)));
		to += strlen(to);
	}
	end_line(lines, to);
}

/* The value of a text column, terminated, in the current memory context; or NULL. */
static char *
text_column(TupleTableSlot *slot, int column)
{
	text	   *value;
	char	   *result;
	int			len;

	if (slot->tts_isnull[column])
		return NULL;
	value = DatumGetTextPP(slot->tts_values[column]);
	len = VARSIZE_ANY_EXHDR(value);
	result = palloc(len + 1);
	memcpy(result, VARDATA_ANY(value), len);
	result[len] = '\0';
	return result;
}

/* That much after a moment; DT_NOEND when there is no such limit or moment. */
static TimestampTz
limit_after(TimestampTz moment, int64 limit_us)
{
	if (limit_us <= 0 || TIMESTAMP_NOT_FINITE(moment) || moment >= END_TIMESTAMP - limit_us)
		return DT_NOEND;
	return moment + limit_us;
}

/* When the task with the id in that column was enqueued. */
static TimestampTz
enqueued_at(TupleTableSlot *slot, int column)
{
	TimestampTz at;

	/* an id that some other cluster gave it may not carry the time */
	if (!retry_uuid7_time(DatumGetUUIDP(slot->tts_values[column]), &at))
		at = DatumGetTimestampTz(slot->tts_values[Task_due_at]);
	return at;
}

/*
 * The moment after which no attempt may start: the earliest of the task's own,
 * the scene's, which counts from the enqueue, and the end of the time budget.
 */
static TimestampTz
expiry(TupleTableSlot *slot, const RetryScene *scene, TimestampTz budget_end)
{
	TimestampTz earliest = budget_end;

	if (!slot->tts_isnull[Task_expires_at])
		earliest = Min(earliest, DatumGetTimestampTz(slot->tts_values[Task_expires_at]));
	if (scene->expires_after_us > 0)
		earliest = Min(earliest, limit_after(enqueued_at(slot, Task_id), scene->expires_after_us));
	return earliest;
}

/* A timeout, cut to what is left of the budget. */
static int32
cut_timeout(int32 timeout_ms, TimestampTz budget_end, TimestampTz now)
{
	if (budget_end == DT_NOEND || now >= budget_end)
		return timeout_ms;		/* no budget; or it is not sent anyway */
	return (int32) Min(timeout_ms, Max((budget_end - now) / 1000, 1));
}

/* The id by which receivers know the message: a replay has that of the first task. */
static int
id_column(TupleTableSlot *slot)
{
	return slot->tts_isnull[Task_origin_id] ? Task_id : Task_origin_id;
}

/* Writes all header lines; see the file's head. */
static void
prepare_headers(TupleTableSlot *slot, const RetryScene *scene, int32 attempt_no,
				TimestampTz now, RetryPrepared *prepared)
{
	const pg_uuid_t *id = DatumGetUUIDP(slot->tts_values[id_column(slot)]);
	text	   *key = NULL;
	text	   *type = NULL;
	Jsonb	   *own_headers = NULL;
	Lines		lines = {0};
	Size		bytes = OWN_BYTES;
	int			most = OWN_LINES;
	int			first;

	if (!slot->tts_isnull[Task_key])
	{
		key = DatumGetTextPP(slot->tts_values[Task_key]);
		bytes += 3 * VARSIZE_ANY_EXHDR(key);
	}
	if (!slot->tts_isnull[Task_content_type])
	{
		type = DatumGetTextPP(slot->tts_values[Task_content_type]);
		bytes += VARSIZE_ANY_EXHDR(type);
	}
	if (scene->secret_use == RETRY_USE_WEBHOOK)
		bytes += scene->nsigning * (RETRY_SIGNATURE_MAX + 1);

	/* each header takes 8 bytes of an object besides its strings; we add 3 */
	if (!slot->tts_isnull[Task_headers])
	{
		own_headers = DatumGetJsonbP(slot->tts_values[Task_headers]);
		bytes += VARSIZE(own_headers);
		most += JB_ROOT_COUNT(own_headers);
	}
	if (scene->headers != NULL)
	{
		bytes += VARSIZE(scene->headers);
		most += JB_ROOT_COUNT(scene->headers);
	}
	lines.line = palloc(most * sizeof(char *) + bytes);
	lines.at = (char *) (lines.line + most);

	add_own(&lines, id, key, attempt_no, now, prepared->expires_at);
	if (scene->nsigning > 0 && scene->secret_use == RETRY_USE_WEBHOOK)
		add_signatures(&lines, scene, id, now, &prepared->http);
	first = lines.count;
	if (prepared->http.has_body && type != NULL)
	{
		add_text(&lines, "Content-Type: ", VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type));
		lines.has_type = true;
	}
	if (own_headers != NULL)
		add_headers(&lines, first, own_headers);
	if (scene->headers != NULL)
		add_headers(&lines, first, scene->headers);
	if (prepared->http.has_body && !lines.has_type)
		add_text(&lines, "Content-Type: ", "application/json", strlen("application/json"));

	prepared->http.headers = lines.line;
	prepared->http.header_count = lines.count;
}

/*
 * Puts the current value of the scene's secret, or a signature by it, where this
 * kind of receiver looks for it.  False, with "why", when there is no such place.
 */
static bool
use_secret(const RetryScene *scene, TimestampTz now, RetryPrepared *prepared)
{
	RetryHttpRequest *http = &prepared->http;
	const RetrySecret *secret = scene->signing;
	char	   *piece;
	int64		unix_ms = retry_sign_seconds(now) * 1000 + (now % USECS_PER_SEC) / 1000;
	StringInfoData body;
	size_t		place;
	size_t		len;
	bool		empty;

	/* a password for a mail server is of no use to any other */
	if (scene->secret_use == RETRY_USE_EMAIL)
		return true;
	piece = palloc(retry_secret_use_room(secret->value_len));
	len = retry_secret_use_write(scene->secret_use, secret->value, secret->value_len, unix_ms, piece);
	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("retry: a request of scene \"%s\" cannot be signed", scene->name)));
	if (scene->secret_use == RETRY_USE_DINGTALK)
	{
		http->parameters = piece;
		return true;
	}
	place = http->has_body ? retry_secret_use_place(http->body, http->body_len, &empty) : 0;
	if (place == 0)
	{
		prepared->why = "its scene's secret goes into a JSON object, and its body is none";
		return false;
	}
	initStringInfo(&body);
	enlargeStringInfo(&body, http->body_len + len + 1);
	appendBinaryStringInfo(&body, http->body, place);
	appendBinaryStringInfo(&body, piece, len);
	if (!empty)
		appendStringInfoChar(&body, ',');
	appendBinaryStringInfo(&body, http->body + place, http->body_len - place);
	http->body = body.data;
	http->body_len = body.len;
	return true;
}

/* The mail of a task whose scene sends some. */
static bool
write_mail(TupleTableSlot *slot, const RetryScene *scene, RetryPrepared *prepared)
{
	int			column = id_column(slot);

	return retry_scene_mail_write(scene, DatumGetUUIDP(slot->tts_values[column]),
								  enqueued_at(slot, column), prepared);
}

bool
retry_request_prepare(TupleTableSlot *slot, const RetryScene *scene, int32 attempt_no,
					  TimestampTz now, RetryPrepared *prepared)
{
	RetryHttpRequest *http = &prepared->http;
	TimestampTz budget_end = DT_NOEND;
	bool		must;

	slot_getallattrs(slot);
	memset(prepared, 0, sizeof(*prepared));

	http->url = text_column(slot, Task_url);
	if (scene->mail != NULL)
	{
		if (http->url != NULL)
		{
			prepared->why = "its scene sends mail, and it has a URL";
			return false;
		}
		http->url = pstrdup(scene->mail->url);
	}
	else if (http->url == NULL)
	{
		if (scene->url == NULL && scene->ntargets == 0)
		{
			prepared->why = "neither the task nor its scene has a URL";
			return false;
		}
		if (scene->ntargets == 0)
			http->url = pstrdup(scene->url);
	}
	else if (!retry_scene_may_call(scene, http->url))
	{
		prepared->why = retry_scene_tls_binds(scene) && scene->filled == NULL ?
			"its scene has a client certificate or does not verify the server's, and its URL is not of the scene's origin" :
			"its scene's headers hold secrets, and its URL is not of the scene's origin";
		return false;
	}
	http->method = text_column(slot, Task_method);
	if (http->method == NULL)
		http->method = pstrdup(scene->method);

	if (!slot->tts_isnull[Task_body])
	{
		bytea	   *body = DatumGetByteaPCopy(slot->tts_values[Task_body]);

		http->has_body = true;
		http->body = VARDATA(body);
		http->body_len = VARSIZE(body) - VARHDRSZ;
	}
	http->timeout_ms = slot->tts_isnull[Task_timeout_ms] ? scene->timeout_ms :
		DatumGetInt32(slot->tts_values[Task_timeout_ms]);
	must = !slot->tts_isnull[Task_on_dead] &&
		retry_part(text_column(slot, Task_on_dead)) == RETRY_PART_MUST;
	if (!must)
		budget_end = limit_after(DatumGetTimestampTz(slot->tts_values[Task_due_at]), scene->time_budget_us);
	http->timeout_ms = cut_timeout(http->timeout_ms, budget_end, now);
	http->connect_timeout_ms = scene->connect_timeout_ms;
	http->tls = scene->tls;

	prepared->max_attempts = slot->tts_isnull[Task_max_attempts] ? scene->max_attempts :
		DatumGetInt32(slot->tts_values[Task_max_attempts]);
	prepared->expires_at = expiry(slot, scene, budget_end);
	if (must)
	{
		prepared->max_attempts = PG_INT32_MAX;
		prepared->expires_at = DT_NOEND;
	}
	if (!slot->tts_isnull[Task_backoff])
		prepared->backoff = (RetryBackoff *) PG_DETOAST_DATUM_COPY(slot->tts_values[Task_backoff]);

	if (scene->mail != NULL)
		return write_mail(slot, scene, prepared);
	if (scene->nsigning > 0 && scene->secret_use != RETRY_USE_WEBHOOK && !use_secret(scene, now, prepared))
		return false;
	prepare_headers(slot, scene, attempt_no, now, prepared);
	return true;
}
