/*
 * enqueue_options.c
 *		Judges the arguments of retry.enqueue().
 *
 * A task that cannot be sent as asked would only be found out by a worker,
 * after the caller's transaction has long committed; so whatever can be known
 * to be wrong is refused here, with a message that names it.  The same checks
 * are offered to the constraints of the configuration tables.
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "enqueue_options.h"
#include "guc.h"
#include "quote.h"
#include "secret_ref.h"
#include "sqltarget.h"
#include "target.h"
#include "url.h"
#include "uuid7.h"

PG_FUNCTION_INFO_V1(retry_check_url);
PG_FUNCTION_INFO_V1(retry_check_headers);
PG_FUNCTION_INFO_V1(retry_origin);
PG_FUNCTION_INFO_V1(retry_task_time);

/*
 * Positions of the arguments of retry.enqueue().  enqueue_many has no body,
 * call has neither delay nor due_at.
 */
enum
{
	Arg_target, Arg_payload, Arg_key, Arg_delay, Arg_due_at, Arg_lane, Arg_url,
	Arg_method, Arg_headers, Arg_body, Arg_content_type, Arg_expires_at,
	Arg_max_attempts, Arg_reference, Arg_timeout, Arg_backoff, Arg_on_success,
	Arg_on_dead, Arg_on_conflict
};

/* The arguments of one call, whichever function it is. */
typedef struct Args
{
	FunctionCallInfo fcinfo;
	RetrySignature signature;
} Args;

/* -1 when the function does not have this argument. */
static inline int
arg_position(const Args *args, int arg)
{
	switch (args->signature)
	{
		case RETRY_SIGNATURE_MANY:
			return arg < Arg_body ? arg : arg == Arg_body ? -1 : arg - 1;
		case RETRY_SIGNATURE_CALL:
			return arg < Arg_delay ? arg : arg <= Arg_due_at ? -1 : arg - 2;
		default:
			return arg;
	}
}

static inline bool
arg_given(const Args *args, int arg)
{
	int			position = arg_position(args, arg);

	return position >= 0 && !args->fcinfo->args[position].isnull;
}

/* Only of an argument that is given. */
static inline Datum
arg_value(const Args *args, int arg)
{
	int			position = arg_position(args, arg);

	Assert(position >= 0);
	return position >= 0 ? args->fcinfo->args[position].value : (Datum) 0;
}

static inline text *
arg_text(const Args *args, int arg)
{
	return arg_given(args, arg) ? DatumGetTextPP(arg_value(args, arg)) : NULL;
}

static void
refuse_control_characters(const char *what, const text *value)
{
	const unsigned char *bytes = (const unsigned char *) VARDATA_ANY(value);

	for (int i = 0; i < VARSIZE_ANY_EXHDR(value); i++)
	{
		if (bytes[i] < 0x20 || bytes[i] == 0x7F)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s contains a control character (byte 0x%02X) at position %d",
							what, bytes[i], i + 1)));
	}
}

void
retry_check_short_text(const char *what, const text *value)
{
	int			len = VARSIZE_ANY_EXHDR(value);

	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is empty", what),
				 errhint("Use NULL for none.")));
	if (len > RETRY_SHORT_TEXT_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of %d bytes is longer than %d bytes", what, len, RETRY_SHORT_TEXT_MAX)));
	refuse_control_characters(what, value);
}

int
retry_check_word(const char *what, const text *given, const char *const *words, int n)
{
	char	   *word = text_to_cstring(given);
	StringInfoData all;

	initStringInfo(&all);
	for (int i = 0; i < n; i++)
	{
		if (strcmp(word, words[i]) == 0)
			return i;
		appendStringInfo(&all, i > 0 ? ", %s" : "%s", words[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid %s: \"%.*s\"", what, pg_mbcliplen(word, strlen(word), 100), word),
			 errhint("It is one of %s.", all.data)));
}

void
retry_check_body_size(Size bytes)
{
	if (bytes > (Size) retry_max_request_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("body of %zu bytes is larger than retry.max_request_bytes, %d bytes",
						bytes, retry_max_request_bytes),
				 errhint("Store large data elsewhere and send a reference to it, or raise the setting.")));
}

/* Reads a URL or function, or raises the reason why it cannot be called. */
static bool
check_url(const char *url, RetryUrl *parsed)
{
	RetryMistake mistake;
	RetryUrl	ignored;
	bool		sql;

	if (!retry_target_parse_url("target", url, parsed != NULL ? parsed : &ignored, &sql, &mistake))
		ereport(ERROR,
				(errcode(mistake.sqlstate),
				 errmsg("%s", mistake.message),
				 mistake.hint != NULL ? errhint("%s", mistake.hint) : 0));
	return sql;
}

void
retry_check_task_url(const char *url)
{
	RetryUrl	parsed;

	if (retry_is_sql_target(url))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("url is a function: \"%s\"", retry_quoted_string(url)),
				 errhint("A task that is enqueued to be called by HTTP stays one.")));
	check_url(url, &parsed);
	retry_destination_check("", &parsed, NULL, NULL);
}

/*
 * Headers whose meaning for receivers is retry's: who may enqueue a signed
 * request is not to choose over which transaction it decides there.
 */
static bool
is_reserved_header(const char *name, int len)
{
	static const char *const reserved[] = {
		"Idempotency-Key", "Retry-Attempt", "Retry-Branch", "Retry-Deadline-Ms", "Retry-Gid", "Retry-Operation"
	};

	for (int i = 0; i < lengthof(reserved); i++)
	{
		if (strlen(reserved[i]) == len && pg_strncasecmp(name, reserved[i], len) == 0)
			return true;
	}
	return len >= 8 && pg_strncasecmp(name, "webhook-", 8) == 0;
}

static void
check_header(const JsonbValue *name, const JsonbValue *value)
{
	char		why[256];

	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("value of header \"%s\" is not a string",
						retry_quoted(name->val.string.val, name->val.string.len)),
				 errhint("Headers are an object of strings: {\"Name\": \"value\"}.")));
	if (is_reserved_header(name->val.string.val, name->val.string.len))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("header \"%.*s\" is reserved", name->val.string.len, name->val.string.val),
				 errhint("Idempotency-Key, Retry-Attempt, Retry-Branch, Retry-Deadline-Ms, Retry-Gid, Retry-Operation and webhook-* are set by retry itself.")));
	if (!retry_header_check(name->val.string.val, name->val.string.len,
							value->val.string.val, value->val.string.len, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid header: %s", why)));
}

/*
 * References to secrets.  Whoever may use a scene may give a task headers, but
 * is not to choose what its group's secrets are sent as.
 */
static void
check_references(const JsonbValue *name, const JsonbValue *value, bool of_scene)
{
	const char *text = value->val.string.val;
	int			from = 0;
	RetrySecretRef ref;
	RetrySecretFound found;

	while ((found = retry_secret_ref_next(text, value->val.string.len, from, &ref)) != RETRY_SECRET_REF_NONE)
	{
		if (!of_scene)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("header \"%.*s\" of a task names a secret", name->val.string.len, name->val.string.val),
					 errhint("Secrets are filled into the headers of scenes only.")));
		if (found == RETRY_SECRET_REF_BAD)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("header \"%.*s\" has {{secret: without a name and }}", name->val.string.len, name->val.string.val),
					 errhint("Write {{secret:name}}, the name of 1 to %d lower-case letters, digits, _ and -.",
							 RETRY_SECRET_NAME_MAX)));
		from = ref.end;
	}
}

void
retry_check_header_object(Jsonb *headers, bool of_scene)
{
	JsonbIterator *it;
	JsonbValue	name;
	JsonbValue	value;
	Size		bytes = 0;

	if (!JB_ROOT_IS_OBJECT(headers))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("headers are not a JSON object"),
				 errhint("Headers are an object of strings: {\"Name\": \"value\"}.")));

	it = JsonbIteratorInit(&headers->root);
	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &name, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&it, &value, true);
		check_header(&name, &value);
		check_references(&name, &value, of_scene);
		bytes += name.val.string.len + value.val.string.len;
	}
	if (bytes > RETRY_HEADERS_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("headers of %zu bytes are larger than %d bytes", bytes, RETRY_HEADERS_MAX_BYTES)));
}

/* Finds out which scene is meant, and which URL the task brings itself. */
static void
read_target(const Args *args, RetryTarget *target, RetryUrl *url, RetryEnqueueOptions *o)
{
	text	   *given = arg_text(args, Arg_target);

	if (given == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target must not be null"),
				 errhint("A target is an http or https URL, scene, group/scene, or sql:schema.function.")));
	retry_target_read("target", text_to_cstring(given), target);
	o->url = arg_text(args, Arg_url);
	if (target->kind == RETRY_TARGET_URL)
	{
		if (o->url != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("both target and url are URLs"),
					 errhint("Give one of them, or the name of a scene as target.")));
		o->url = given;
		*url = target->url;
		o->sql = target->sql;
	}
	else if (o->url != NULL)
		o->sql = check_url(text_to_cstring(o->url), url);
}

/*
 * A function gets the payload and nothing else, and is run as the role that
 * enqueues: who could not call it now is told now.
 */
static void
check_function(const Args *args, Oid role, const RetryEnqueueOptions *o)
{
	static const int senseless[] = {Arg_method, Arg_headers, Arg_body, Arg_content_type};
	static const char *const names[] = {"method", "headers", "body", "content_type"};
	RetrySqlTarget target;

	for (int i = 0; i < lengthof(senseless); i++)
	{
		if (arg_given(args, senseless[i]))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s is given for a target that is a function", names[i]),
					 errhint("A function is called with the payload alone.")));
	}
	retry_sql_target_check("target", o->url != NULL ? text_to_cstring(o->url) : o->scene.url,
						   role, &target);
}

/* A scene that sends mail knows where to, and needs nothing but the body. */
static void
check_mail(const Args *args, const RetryTarget *target)
{
	static const int senseless[] = {Arg_url, Arg_method, Arg_headers, Arg_content_type};
	static const char *const names[] = {"url", "method", "headers", "content_type"};

	for (int i = 0; i < lengthof(senseless); i++)
	{
		if (arg_given(args, senseless[i]))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s is given for scene \"%s/%s\", which sends mail", names[i], target->group, target->scene),
					 errhint("Its payload is an object with the strings subject and text.")));
	}
}

/* Length of an interval, a month as 30 days; as wide as intervals are. */
static double
interval_length_us(const Interval *interval)
{
	return ((double) interval->month * DAYS_PER_MONTH + interval->day) * (double) USECS_PER_DAY +
		(double) interval->time;
}

/* The moment of the first attempt, from delay or due_at. */
static void
read_due(const Args *args, TimestampTz now, RetryEnqueueOptions *o)
{
	if (arg_given(args, Arg_delay) && arg_given(args, Arg_due_at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("both delay and due_at are given"),
				 errhint("Give one of them.")));
	if (arg_given(args, Arg_delay))
	{
		Interval   *delay = DatumGetIntervalP(arg_value(args, Arg_delay));

		if (interval_length_us(delay) < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("delay is negative: %s",
							DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(delay))))));
		o->due_at = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															TimestampTzGetDatum(now),
															IntervalPGetDatum(delay)));
	}
	else if (arg_given(args, Arg_due_at))
		o->due_at = DatumGetTimestampTz(arg_value(args, Arg_due_at));
	else
		return;

	if (TIMESTAMP_NOT_FINITE(o->due_at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is infinite", arg_given(args, Arg_delay) ? "delay" : "due_at")));
	o->has_due = true;
}

void
retry_check_expiry(TimestampTz expires_at, TimestampTz now)
{
	if (expires_at <= now || TIMESTAMP_IS_NOEND(expires_at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expires_at is %s: %s",
						TIMESTAMP_IS_NOEND(expires_at) ? "infinite" : "in the past",
						timestamptz_to_str(expires_at)),
				 errhint("Use NULL for no limit.")));
}

void
retry_check_max_attempts(int32 max_attempts)
{
	if (max_attempts < 1 || max_attempts > 1000000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_attempts is not between 1 and 1000000: %d", max_attempts)));
}

int32
retry_check_timeout(const Interval *timeout)
{
	double		us = interval_length_us(timeout);

	if (!(us >= 1000.0 && us <= (double) USECS_PER_HOUR))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout is not between 1 ms and 1 h: %s",
						DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(timeout))))));
	return (int32) (us / 1000.0);
}

static void
read_limits(const Args *args, TimestampTz now, RetryEnqueueOptions *o)
{
	if (arg_given(args, Arg_expires_at))
	{
		o->expires_at = DatumGetTimestampTz(arg_value(args, Arg_expires_at));
		retry_check_expiry(o->expires_at, now);
		o->has_expiry = true;
	}
	if (arg_given(args, Arg_max_attempts))
	{
		o->max_attempts = DatumGetInt32(arg_value(args, Arg_max_attempts));
		retry_check_max_attempts(o->max_attempts);
	}
	if (arg_given(args, Arg_timeout))
		o->timeout_ms = retry_check_timeout(DatumGetIntervalP(arg_value(args, Arg_timeout)));
}

text *
retry_check_method(text *given)
{
	char	   *method = text_to_cstring(given);
	char		why[256];

	for (char *p = method; *p; p++)
		*p = pg_ascii_toupper((unsigned char) *p);
	if (!retry_method_check(method, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid method: %s", why)));
	return cstring_to_text(method);
}

static void
read_request(const Args *args, RetryEnqueueOptions *o)
{
	if (arg_given(args, Arg_method))
		o->method = retry_check_method(arg_text(args, Arg_method));
	if (arg_given(args, Arg_headers))
	{
		o->headers = DatumGetJsonbP(arg_value(args, Arg_headers));
		retry_check_header_object(o->headers, false);
	}
	o->content_type = arg_text(args, Arg_content_type);
	if (o->content_type != NULL)
		retry_check_short_text("content_type", o->content_type);
	o->reference = arg_text(args, Arg_reference);
	if (o->reference != NULL)
		retry_check_short_text("reference", o->reference);
	o->has_backoff = arg_given(args, Arg_backoff);
	if (o->has_backoff)
		o->backoff = arg_value(args, Arg_backoff);
}

/* Who is to be told of the outcome; NULL: nobody, or whom the scene says. */
static text *
read_callback(const Args *args, int arg, const char *name, Snapshot snapshot, Oid role,
			  const RetryEnqueueOptions *o)
{
	text	   *target = arg_text(args, arg);

	if (target != NULL)
		retry_target_check_callback(name, text_to_cstring(target), snapshot, role, role,
									o->scene.group.name, o->scene.name);
	return target;
}

static RetryKeyConflict
read_on_conflict(const Args *args)
{
	static const char *const words[] = {
		[RETRY_KEY_RETURN] = "return",[RETRY_KEY_ERROR] = "error",[RETRY_KEY_REPLACE] = "replace"
	};

	if (!arg_given(args, Arg_on_conflict))
		return RETRY_KEY_RETURN;
	return retry_check_word("on_conflict", arg_text(args, Arg_on_conflict), words, lengthof(words));
}

/* What functions that make one task have besides. */
static void
read_single(const Args *args, RetryEnqueueOptions *o)
{
	if (arg_given(args, Arg_payload) && arg_given(args, Arg_body))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("both payload and body are given"),
				 errhint("Give one of them.")));
	if (arg_given(args, Arg_payload))
		o->payload = DatumGetJsonbP(arg_value(args, Arg_payload));
	if (arg_given(args, Arg_body))
	{
		o->body = DatumGetByteaPP(arg_value(args, Arg_body));
		retry_check_body_size(VARSIZE_ANY_EXHDR(o->body));
		retry_group_check_body(&o->scene.group, VARSIZE_ANY_EXHDR(o->body));
	}
	o->key = arg_text(args, Arg_key);
	if (o->key != NULL)
		retry_check_short_text("key", o->key);
}

void
retry_enqueue_options(FunctionCallInfo fcinfo, RetrySignature signature, Snapshot snapshot,
					  Oid role, TimestampTz now, RetryEnqueueOptions *o)
{
	Args		args = {fcinfo, signature};
	RetryTarget target;
	RetryUrl	url;

	memset(o, 0, sizeof(*o));
	read_target(&args, &target, &url, o);
	read_due(&args, now, o);
	read_limits(&args, now, o);
	read_request(&args, o);
	o->on_conflict = read_on_conflict(&args);

	retry_target_find("target", &target, snapshot, role, &o->scene);
	if (o->url != NULL && !o->sql)
		retry_destination_check("", &url, o->scene.group.name, &o->scene.group.to);
	retry_group_check_headers(&o->scene.group, o->headers);
	o->on_success = read_callback(&args, Arg_on_success, "on_success", snapshot, role, o);
	o->on_dead = read_callback(&args, Arg_on_dead, "on_dead", snapshot, role, o);
	if (o->scene.mail)
		check_mail(&args, &target);
	else if (o->url == NULL && !o->scene.routed)
	{
		if (o->scene.url == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("scene \"%s/%s\" has no URL, and none is given", target.group, target.scene),
					 errhint("Give the argument url, or set the URL or the targets of the scene.")));
		o->sql = check_url(o->scene.url, &url);
	}
	if (o->sql)
		check_function(&args, role, o);
	o->lane_of.named = arg_text(&args, Arg_lane);
	if (o->lane_of.named != NULL)
		retry_check_short_text("lane", o->lane_of.named);
	o->lane_of.reference = o->reference;
	o->lane_of.own_url = o->url != NULL;
	if (o->url != NULL || (!o->scene.routed && !o->scene.mail))
		o->lane_of.origin = pstrdup(url.origin);
	if (o->scene.fan_out && o->url == NULL)
		o->fanout = retry_fanout_create(&o->scene, &o->lane_of);
	if (signature != RETRY_SIGNATURE_MANY)
		read_single(&args, o);
}

/* retry.check_url(url): for the constraints of configuration tables. */
Datum
retry_check_url(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(0))
		check_url(text_to_cstring(PG_GETARG_TEXT_PP(0)), NULL);
	PG_RETURN_BOOL(true);
}

/* retry.check_headers(headers): for the constraints of configuration tables. */
Datum
retry_check_headers(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(0))
		retry_check_header_object(PG_GETARG_JSONB_P(0), true);
	PG_RETURN_BOOL(true);
}

/* retry.origin(url): the name of a URL's lane. */
Datum
retry_origin(PG_FUNCTION_ARGS)
{
	RetryUrl	url;

	check_url(text_to_cstring(PG_GETARG_TEXT_PP(0)), &url);
	PG_RETURN_TEXT_P(cstring_to_text(url.origin));
}

/* retry.task_time(id): when a task was enqueued. */
Datum
retry_task_time(PG_FUNCTION_ARGS)
{
	TimestampTz time;

	if (!retry_uuid7_time(PG_GETARG_UUID_P(0), &time))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(time);
}
