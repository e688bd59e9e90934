/*
 * answer_rules.c
 *		A scene's conditions on an answer's JSON body, evaluated safely.
 *
 * Parsing and matching raise errors, recurse, and may run for hours: a short
 * jsonpath over a long body is enough, and so is a regular expression.  So all
 * of it happens in a memory context of its own, within PG_TRY, and under a
 * timer that asks for the evaluation to be cancelled as a session's user would.
 *
 * Nothing that runs here takes locks, pins, or anything else that a transaction
 * would have to give back: without catalog access, catching an error needs no
 * subtransaction.  That is why the body is converted to the database's encoding
 * character by character, and why paths are evaluated without a time zone.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "answer_rules.h"

/* A condition that cannot be evaluated is logged at most this often. */
#define LOG_INTERVAL_MS		(60 * 1000)

/* What is evaluated: a body, or a value that somebody has parsed. */
typedef struct Subject
{
	const char *body;
	Size		len;
	const Jsonb *json;
	const char *condition;		/* under way; NULL: still being read */
} Subject;

/* Scenes whose conditions took too long; enough for those worst at a time. */
#define SLOW_SCENES		16

typedef struct SlowScene
{
	int32		id;
	TimestampTz until;
} SlowScene;

static SlowScene slow_scenes[SLOW_SCENES];
static volatile sig_atomic_t timed_out;

/* In the signal handler: as if the user had asked for it. */
static void
time_is_over(void)
{
	/* a cancel that is asked for already is somebody else's */
	if (QueryCancelPending)
		return;
	timed_out = true;
	QueryCancelPending = true;
	InterruptPending = true;
}

static int
limit_ms(const RetryScene *scene)
{
	for (int i = 0; i < SLOW_SCENES; i++)
	{
		if (slow_scenes[i].id == scene->id && slow_scenes[i].until != 0)
		{
			TimestampTz now = GetCurrentTimestamp();

			/* the second is for a clock that was ahead */
			if (now < slow_scenes[i].until &&
				now > slow_scenes[i].until - RETRY_RULES_SHORT_FOR_MS * INT64CONST(1000))
				return RETRY_RULES_SHORT_MS;
		}
	}
	return RETRY_RULES_LIMIT_MS;
}

/* Takes the place of the same scene, else of the one that is longest ago. */
static void
note_slow(const RetryScene *scene)
{
	SlowScene  *place = &slow_scenes[0];

	for (int i = 0; i < SLOW_SCENES; i++)
	{
		if (slow_scenes[i].id == scene->id)
		{
			place = &slow_scenes[i];
			break;
		}
		if (slow_scenes[i].until < place->until)
			place = &slow_scenes[i];
	}
	place->id = scene->id;
	place->until = GetCurrentTimestamp() + RETRY_RULES_SHORT_FOR_MS * INT64CONST(1000);
}

static TimeoutId
limit_timer(void)
{
	static TimeoutId id = MAX_TIMEOUTS;

	if (id == MAX_TIMEOUTS)
		id = RegisterTimeout(USER_TIMEOUT, time_is_over);
	return id;
}

/*
 * The body in the database's encoding, terminated, in the current memory
 * context; NULL when it is no text that this can hold.
 */
static char *
readable_text(const char *body, Size len)
{
	char	   *text;
	char	   *to;

	if (memchr(body, '\0', len) != NULL || pg_encoding_verifymbstr(PG_UTF8, body, len) != len)
		return NULL;
	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return pnstrdup(body, len);

	/*
	 * two bytes or more become four at most, and some room is asked for
	 * besides
	 */
	to = text = palloc(2 * len + MAX_UNICODE_EQUIVALENT_STRING + 1);
	for (const char *end = body + len; body < end; body += pg_utf_mblen((const unsigned char *) body))
	{
		if (!IS_HIGHBIT_SET(*body))
			*to++ = *body;
		else
		{
			/* an error when there is no such character there */
			pg_unicode_to_server(utf8_to_unicode((const unsigned char *) body), (unsigned char *) to);
			to += strlen(to);
		}
	}
	*to = '\0';
	return text;
}

/* Is the first item that the path finds neither false nor null? */
static bool
matches(const Jsonb *json, const JsonPath *path)
{
	LOCAL_FCINFO(fcinfo, 4);
	Jsonb		variables;		/* none: an empty object */
	Datum		found;
	Jsonb	   *first;
	JsonbValue	scalar;

	SET_VARSIZE(&variables, sizeof(variables));
	variables.root.header = JB_FOBJECT;
	InitFunctionCallInfoData(*fcinfo, NULL, 4, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(json);
	fcinfo->args[1].value = PointerGetDatum(path);
	fcinfo->args[2].value = PointerGetDatum(&variables);
	fcinfo->args[3].value = BoolGetDatum(true); /* silent */
	for (int i = 0; i < 4; i++)
		fcinfo->args[i].isnull = false;
	found = jsonb_path_query_first(fcinfo);
	if (fcinfo->isnull)
		return false;

	first = DatumGetJsonbP(found);
	if (!JB_ROOT_IS_SCALAR(first) || !JsonbExtractScalar(&first->root, &scalar))
		return true;
	return scalar.type != jbvNull && !(scalar.type == jbvBool && !scalar.val.boolean);
}

/* Evaluates what is needed, in the order of precedence. */
static void
evaluate(const RetryScene *scene, Subject *subject, RetryTruths *truths)
{
	const Jsonb *json = subject->json;

	if (json == NULL)
	{
		char	   *text = readable_text(subject->body, subject->len);

		if (text == NULL)
			return;
		json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	}
	subject->condition = "stop_when";
	if (scene->stop_when != NULL && matches(json, scene->stop_when))
	{
		truths->stop_when = true;
		return;
	}
	subject->condition = "pending_when";
	if (scene->pending_when != NULL && matches(json, scene->pending_when))
	{
		truths->pending_when = true;
		return;
	}
	subject->condition = "success_when";
	truths->success_when = scene->success_when != NULL && matches(json, scene->success_when);
}

static void
log_trouble(const RetryScene *scene, const Subject *subject, int limit, const ErrorData *error)
{
	static TimestampTz last = 0;
	static int64 unlogged = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (last != 0 && !TimestampDifferenceExceeds(last, now, LOG_INTERVAL_MS) && now >= last)
	{
		unlogged++;
		return;
	}
	if (error == NULL)
		ereport(LOG,
				(errmsg("retry: %s of scene \"%s\" takes longer than %d ms over an answer, which counts as no match",
						subject->condition != NULL ? subject->condition : "reading the answer for a condition",
						scene->name, limit),
				 errdetail("Since the last such message " INT64_FORMAT " others were not logged.", unlogged),
				 errhint("Simplify the condition; .** and like_regex are what takes longest.")));
	else
		ereport(LOG,
				(errmsg("retry: %s of scene \"%s\" cannot be evaluated over an answer, which counts as no match: %s",
						subject->condition, scene->name, error->message),
				 errdetail("Since the last such message " INT64_FORMAT " others were not logged.", unlogged)));
	last = now;
	unlogged = 0;
}

static RetryTruths
match(const RetryScene *scene, Subject *subject)
{
	static MemoryContext context = NULL;
	MemoryContext caller = CurrentMemoryContext;
	RetryTruths truths = {false, false, false};
	TimeoutId	timer = limit_timer();
	int			limit = limit_ms(scene);
	ErrorData  *volatile error = NULL;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "retry answer rules", ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(context);
	MemoryContextSwitchTo(context);
	timed_out = false;
	enable_timeout_after(timer, limit);
	PG_TRY();
	{
		evaluate(scene, subject, &truths);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	disable_timeout(timer, false);

	/* too late to have cancelled this, and it must not cancel what comes next */
	if (timed_out && (error == NULL || error->sqlerrcode != ERRCODE_QUERY_CANCELED))
		QueryCancelPending = false;

	MemoryContextSwitchTo(caller);
	if (error != NULL)
	{
		memset(&truths, 0, sizeof(truths));

		/*
		 * somebody else's; it is copied, and the context reset at the next
		 * call
		 */
		if (!timed_out && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		if (timed_out)
		{
			note_slow(scene);
			log_trouble(scene, subject, limit, NULL);
		}
		else if (subject->condition != NULL)
			log_trouble(scene, subject, limit, error);
	}
	MemoryContextReset(context);
	return truths;
}

RetryTruths
retry_rules_match(const RetryScene *scene, const char *body, Size len)
{
	Subject		subject = {.body = body,.len = len};

	return match(scene, &subject);
}

RetryTruths
retry_rules_match_json(const RetryScene *scene, const Jsonb *json)
{
	Subject		subject = {.json = json};
	RetryTruths none = {false, false, false};

	return json != NULL ? match(scene, &subject) : none;
}
