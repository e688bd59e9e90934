/*
 * schedule.c
 *		retry.schedule(), retry.unschedule(), retry.cron_next().
 *
 * Whatever is wrong with a schedule has to be found out now, in front of the
 * one who makes it, and not at three in the morning: the expression and the
 * zone are read, and a run is enqueued on trial and undone, which judges the
 * target, the options and the rights with the very code that later counts.
 *
 * Where pg_cron is there and the role may use it, a job of pg_cron wakes the
 * schedule; a worker of ours stands behind it, see schedule_worker.c, so
 * nothing depends on pg_cron being there tomorrow.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "compat.h"
#include "access.h"
#include "enqueue_options.h"
#include "quote.h"
#include "schedule.h"
#include "scene.h"
#include "statement.h"
#include "subtransaction.h"
#include "wakeup.h"
#include "zone.h"

PG_FUNCTION_INFO_V1(retry_schedule);
PG_FUNCTION_INFO_V1(retry_unschedule);
PG_FUNCTION_INFO_V1(retry_cron_next_sql);

/* An expression with its zone, as a user gave them. */
typedef struct Timing
{
	RetryCron	cron;
	RetryZone	zone;
	char		text[RETRY_CRON_TEXT_SIZE]; /* canonical */
	const char *tz;				/* as the server spells it */
} Timing;

/* ---------------------------------------------------------------- arguments */

/* A text that must be given. */
static char *
required(FunctionCallInfo fcinfo, int number, const char *name)
{
	retry_require_argument(fcinfo, number, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(number));
}

static void
check_name(const char *name)
{
	if (!retry_name_check(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid name: \"%s\"", retry_quoted_string(name)),
				 errhint("Names of schedules have lower-case letters, digits, _ and -, at most %d.", RETRY_NAME_MAX)));
}

/* The options are arguments of retry.enqueue(); the trial judges their values. */
static void
check_options(Jsonb *options)
{
	static const char *const known[] = {
		"lane", "url", "method", "headers", "content_type", "expires_after", "max_attempts",
		"reference", "timeout", "backoff", "on_success", "on_dead"
	};
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options is not an object"),
				 errhint("Give arguments of retry.enqueue() by name: {\"max_attempts\": 3}.")));
	it = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		bool		is_known = token != WJB_KEY;

		for (int i = 0; i < lengthof(known) && !is_known; i++)
			is_known = strlen(known[i]) == value.val.string.len &&
				memcmp(known[i], value.val.string.val, value.val.string.len) == 0;
		if (!is_known)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown option: \"%s\"", retry_quoted(value.val.string.val, value.val.string.len)),
					 errhint("Options are lane, url, method, headers, content_type, expires_after, max_attempts, reference, timeout, backoff, on_success, on_dead.")));
	}
}

/* ---------------------------------------------------------------- timing */

/*
 * Where the time zone begins in an expression that ends in "tz ZONE"; its
 * length, with that cut off and blanks with it, in *len.  NULL: it has none.
 */
static const char *
find_zone(const char *text, int *len)
{
	int			end = strlen(text);

	while (end > 0 && retry_is_space(text[end - 1]))
		end--;
	*len = end;
	for (int i = 0; i + 3 < end; i++)
	{
		int			at = i + 2;

		if (pg_strncasecmp(text + i, "tz", 2) != 0 || !retry_is_space(text[at]) ||
			(i > 0 && !retry_is_space(text[i - 1])))
			continue;
		while (at < end && retry_is_space(text[at]))
			at++;
		while (i > 0 && retry_is_space(text[i - 1]))
			i--;
		*len = i;
		return pnstrdup(text + at, end - at);
	}
	return NULL;
}

/* Reads an expression and its zone, or raises an error that says what is wrong. */
static void
read_timing(const char *text, const char *tz, Timing *timing)
{
	RetryParseError err;
	const char *zone;
	pg_tz	   *found = NULL;
	int			len;

	zone = find_zone(text, &len);
	if (zone != NULL && tz != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("both cron and tz name a time zone: \"%s\", \"%s\"",
						retry_quoted_string(text), retry_quoted_string(tz)),
				 errhint("Give it in one of them.")));
	if (!retry_cron_parse(text, len, &timing->cron, &err))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid cron: \"%s\"", retry_quoted_string(text)),
				 errdetail("\"%s\" %s.", retry_quoted(text + err.part_at, err.part_len), err.reason),
				 errhint("%s", err.hint)));
	retry_cron_format(&timing->cron, timing->text, sizeof(timing->text));

	zone = zone != NULL ? zone : tz;
	if (zone != NULL && strlen(zone) < TZ_STRLEN_MAX && zone[0] != '\0')
		found = retry_zone_find(zone);
	if (zone != NULL && found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid tz: \"%s\"", retry_quoted_string(zone)),
				 errdetail("It is not the name of a time zone."),
				 errhint("Write the name of a time zone, such as Europe/Paris; see pg_timezone_names.")));
	timing->tz = found != NULL ? pg_get_timezone_name(found) : "UTC";
	(void) retry_zone_open(timing->tz, &timing->zone);
}

bool
retry_schedule_read(const char *cron, const char *tz, RetryCron *out, RetryZone *zone)
{
	RetryParseError err;

	if (!retry_cron_parse(cron, strlen(cron), out, &err))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("retry.schedule_definition holds an expression that cannot be read: \"%s\"",
						retry_quoted_string(cron)),
				 errhint("Call retry.schedule() again.")));
	return retry_zone_open(tz, zone);
}

/* retry.cron_next(cron, after, tz): null when any but tz is. */
Datum
retry_cron_next_sql(PG_FUNCTION_ARGS)
{
	Timing		timing;
	TimestampTz next;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	read_timing(text_to_cstring(PG_GETARG_TEXT_PP(0)),
				PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2)), &timing);
	if (!retry_cron_next(&timing.cron, PG_GETARG_TIMESTAMPTZ(1), &timing.zone, &next))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}

/* ---------------------------------------------------------------- pg_cron */

/* Do the two names mean the same zone?  GMT is what pg_cron calls UTC. */
static bool
same_zone(const char *a, const char *b)
{
	static const char *const utc[] = {"UTC", "GMT", "Etc/UTC", "Etc/GMT", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu"};
	bool		a_utc = false;
	bool		b_utc = false;

	for (int i = 0; i < lengthof(utc); i++)
	{
		a_utc |= pg_strcasecmp(a, utc[i]) == 0;
		b_utc |= pg_strcasecmp(b, utc[i]) == 0;
	}
	return (a_utc && b_utc) || pg_strcasecmp(a, b) == 0;
}

/* One statement of pg_cron's, and the number of the job that it returns. */
typedef struct CronStatement
{
	const char *sql;
	int			nargs;
	Oid		   *types;
	Datum	   *values;
	int64	   *job;
	bool		done;			/* it has returned one */
} CronStatement;

static void
run_cron_statement(void *arg)
{
	CronStatement *s = arg;
	bool		isnull;

	if (retry_statement(s->sql, s->nargs, s->types, s->values, NULL, SPI_OK_SELECT) != 1)
		return;
	*s->job = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	s->done = !isnull;
}

/*
 * Runs one statement of pg_cron's as the calling role, which may fail for
 * reasons of its own: false then, with a WARNING when that is of interest.
 * *job is the number it returns.
 */
static bool
ask_pg_cron(const char *sql, int nargs, Oid *types, Datum *values, bool warn, int64 *job)
{
	CronStatement statement = {sql, nargs, types, values, job};
	ErrorData  *error = retry_subtransaction(run_cron_statement, &statement, true);

	if (error == NULL)
		return statement.done;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
		ReThrowError(error);
	if (warn)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("pg_cron does not take the job, retry runs the schedule itself: %s", error->message)));
	return false;
}

/*
 * Is pg_cron in this database, and may the current role make jobs of it?  Jobs
 * of a role that cannot log in would never run.
 */
static bool
may_use_pg_cron(void)
{
	bool		isnull;

	return OidIsValid(get_extension_oid("pg_cron", true)) &&
		retry_statement("SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE')"
						" AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')"
						" AND (SELECT r.rolcanlogin FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)"
						" FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid"
						" WHERE n.nspname = 'cron' AND p.proname = 'schedule' AND p.pronargs = 3",
						0, NULL, NULL, NULL, SPI_OK_SELECT) == 1 &&
		DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * Makes the job of a schedule, or changes it; false when there is to be none.
 * The job says only when to look: what is due is decided here, so a job that
 * comes every minute, for a zone that is not pg_cron's, does no harm.
 */
static bool
make_job(const char *name, const Timing *timing, int64 *job)
{
	static const char *const sql = "SELECT cron.schedule($1, $2, $3)";
	const char *zone = GetConfigOption("cron.timezone", true, false);
	Oid			types[3] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[3];

	if (!may_use_pg_cron())
		return false;
	values[0] = CStringGetTextDatum(psprintf("retry: %s", name));
	values[1] = CStringGetTextDatum(timing->text);
	values[2] = CStringGetTextDatum("SELECT retry.run_schedules()");
	if (same_zone(timing->tz, zone != NULL ? zone : "GMT") &&
		ask_pg_cron(sql, 3, types, values, false, job))
		return true;

	/* not its zone, or an expression that it cannot read, such as sat-sun */
	values[1] = CStringGetTextDatum("* * * * *");
	return ask_pg_cron(sql, 3, types, values, true, job);
}

/* A job that is gone already is no reason to complain. */
static void
drop_job(int64 job)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(job);
	int64		unused;

	if (may_use_pg_cron())
		(void) ask_pg_cron("SELECT j.jobid FROM cron.job j WHERE j.jobid = $1 AND cron.unschedule(j.jobid)",
						   1, &type, &value, false, &unused);
}

/* ---------------------------------------------------------------- the definition */

/* The schedule of this name as it is; false: there is none. */
static bool
find_definition(Oid owner, const char *name, int32 *id, bool *has_job, int64 *job)
{
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		values[2] = {ObjectIdGetDatum(owner), CStringGetTextDatum(name)};
	bool		isnull;

	if (retry_statement("SELECT s.id, s.cron_job FROM retry.schedule_definition s"
						" WHERE s.owner = $1 AND s.name = $2",
						2, types, values, NULL, SPI_OK_SELECT) == 0)
		return false;
	*id = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	*job = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	*has_job = !isnull;
	return true;
}

/* Parameters of the two statements below, whose order is the same. */
enum
{
	P_owner, P_name, P_cron, P_tz, P_target, P_payload, P_options, P_missed, P_active, P_job, P_now, P_natts
};

static const char *const insert_definition =
"INSERT INTO retry.schedule_definition"
" (owner, name, cron, tz, target, payload, options, missed, active, cron_job, since, inert, xid)"
" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, true, pg_catalog.pg_current_xact_id())"
" ON CONFLICT (owner, name) DO NOTHING";

/*
 * Runs count from now on when other moments are meant than before; else what
 * was due and is not run yet stays due.
 */
static const char *const update_definition =
"UPDATE retry.schedule_definition s SET cron = $3, tz = $4, target = $5, payload = $6, options = $7,"
" missed = $8, active = $9, cron_job = $10, inert = false, xid = pg_catalog.pg_current_xact_id(),"
" since = CASE WHEN s.cron = $3 AND s.tz = $4 AND s.active AND $9 AND NOT s.inert THEN s.since ELSE $11 END"
" WHERE s.owner = $1 AND s.name = $2";

static void
write_definition(const RetryScheduled *what, const Timing *timing, const char *missed, bool active,
				 bool has_job, int64 job)
{
	Oid			types[P_natts] = {
		OIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, TEXTOID, BOOLOID, INT8OID, TIMESTAMPTZOID
	};
	Datum		values[P_natts];
	char		nulls[P_natts + 1];

	memset(nulls, ' ', P_natts);
	nulls[P_natts] = '\0';
	values[P_owner] = ObjectIdGetDatum(what->owner);
	values[P_name] = CStringGetTextDatum(what->name);
	values[P_cron] = CStringGetTextDatum(timing->text);
	values[P_tz] = CStringGetTextDatum(timing->tz);
	values[P_target] = PointerGetDatum(what->target);
	values[P_payload] = JsonbPGetDatum(what->payload);
	nulls[P_payload] = what->payload == NULL ? 'n' : ' ';
	values[P_options] = JsonbPGetDatum(what->options);
	nulls[P_options] = what->options == NULL ? 'n' : ' ';
	values[P_missed] = CStringGetTextDatum(missed);
	values[P_active] = BoolGetDatum(active);
	values[P_job] = Int64GetDatum(job);
	nulls[P_job] = has_job ? ' ' : 'n';
	values[P_now] = TimestampTzGetDatum(GetCurrentTimestamp());

	/*
	 * the trigger marks what is inserted as foreign; the update says it is
	 * not
	 */
	(void) retry_statement(insert_definition, P_natts, types, values, nulls, SPI_OK_INSERT);
	if (retry_statement(update_definition, P_natts, types, values, nulls, SPI_OK_UPDATE) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("schedule \"%s\" was changed by another session at the same time", what->name),
				 errhint("Call retry.schedule() again.")));
}

static void
begin(const char *function)
{
	retry_require_writable(function);
	retry_statement_connect();
}

static void
check_by_trial(const RetryScheduled *what)
{
	pg_uuid_t	id;
	ErrorData  *error = retry_schedule_enqueue(what, DT_NOBEGIN, &id);

	/* how it was found out is of no interest to the caller */
	if (error != NULL)
	{
		error->context = NULL;
		ReThrowError(error);
	}
}

/*
 * retry.schedule(name, cron, target, payload, missed, tz, options, active).
 * What is due under the definition that it replaces is run first, so that
 * nothing falls between the two.
 */
Datum
retry_schedule(PG_FUNCTION_ARGS)
{
	RetryScheduled what = {.owner = GetUserId()};
	RetryRoleSwitch caller;
	RetryScheduleRuns runs = {0};
	Timing		timing;
	static const char *const words[] = {"skip", "once", "all"};
	const char *missed = "once";
	bool		active = PG_ARGISNULL(7) || PG_GETARG_BOOL(7);
	bool		has_job = false;
	bool		had_job = false;
	int64		job = 0;
	int64		old_job = 0;
	int32		id;

	what.name = required(fcinfo, 0, "name");
	check_name(what.name);
	read_timing(required(fcinfo, 1, "cron"), PG_ARGISNULL(5) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(5)),
				&timing);
	(void) required(fcinfo, 2, "target");
	what.target = PG_GETARG_TEXT_PP(2);
	what.payload = PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3);
	if (!PG_ARGISNULL(4))
		missed = words[retry_check_word("missed", PG_GETARG_TEXT_PP(4), words, lengthof(words))];
	what.options = PG_ARGISNULL(6) ? NULL : PG_GETARG_JSONB_P(6);
	if (what.options != NULL)
		check_options(what.options);

	begin("retry.schedule()");
	check_by_trial(&what);
	retry_become_owner(&caller);
	if (find_definition(what.owner, what.name, &id, &had_job, &old_job))
	{
		do
		{
			runs.more = false;
			retry_schedules_run(id, InvalidOid, false, GetCurrentTimestamp(), &runs);
		} while (runs.more);
	}
	retry_become_caller(&caller);
	if (active)
		has_job = make_job(what.name, &timing, &job);
	if (had_job && !(has_job && job == old_job))
		drop_job(old_job);
	retry_become_owner(&caller);
	write_definition(&what, &timing, missed, active, has_job, job);
	retry_become_caller(&caller);
	SPI_finish();
	PG_RETURN_VOID();
}

/* retry.unschedule(name) */
Datum
retry_unschedule(PG_FUNCTION_ARGS)
{
	char	   *name = required(fcinfo, 0, "name");
	RetryRoleSwitch caller;
	Oid			type = INT4OID;
	Datum		value;
	bool		has_job = false;
	int64		job = 0;
	int32		id;
	bool		found;

	check_name(name);
	begin("retry.unschedule()");
	retry_become_owner(&caller);
	found = find_definition(caller.role, name, &id, &has_job, &job);
	if (found)
	{
		value = Int32GetDatum(id);
		found = retry_statement("DELETE FROM retry.schedule_definition s WHERE s.id = $1",
								1, &type, &value, NULL, SPI_OK_DELETE) == 1;
	}
	retry_become_caller(&caller);
	if (found && has_job)
		drop_job(job);
	SPI_finish();
	PG_RETURN_BOOL(found);
}
