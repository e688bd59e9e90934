--
-- Schedules: what is refused, what becomes of missed runs, whose they are.
-- Yearly expressions are run as if it were the year 2100, so that nothing here
-- comes due by itself.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
SET intervalstyle = 'postgres_verbose';
CREATE ROLE regress_schedule_a;
CREATE ROLE regress_schedule_b;
INSERT INTO retry.scene_group (name, owner, paused) VALUES ('sched', 'regress_schedule_a', true);
INSERT INTO retry.scene (group_name, name, url) VALUES
	('sched', 'report', 'http://127.0.0.1:9/report'), ('sched', 'other', 'http://127.0.0.1:9/other');
\pset null '(null)'

-- what is refused, and how
CREATE TEMP TABLE arguments (no int GENERATED ALWAYS AS IDENTITY, given text);
INSERT INTO arguments (given) VALUES
	($$NULL, '@daily', 'sched/report'$$),
	($$'', '@daily', 'sched/report'$$),
	($$'Nightly', '@daily', 'sched/report'$$),
	($$'a b', '@daily', 'sched/report'$$),
	(quote_literal(repeat('n', 64)) || $$, '@daily', 'sched/report'$$),
	($$'x', NULL, 'sched/report'$$),
	($$'x', '', 'sched/report'$$),
	($$'x', '* * * *', 'sched/report'$$),
	($$'x', '* * * * * *', 'sched/report'$$),
	($$'x', '61 * * * *', 'sched/report'$$),
	($$'x', '0 0 30 2 *', 'sched/report'$$),
	($$'x', '0 0 31 feb-apr/2 *', 'sched/report'$$),
	($$'x', '0 0 * * someday', 'sched/report'$$),
	($$'x', '*/0 * * * *', 'sched/report'$$),
	($$'x', '@sometimes', 'sched/report'$$),
	($$'x', '@daily tz', 'sched/report'$$),
	($$'x', '@daily tz Europe/Pari5', 'sched/report'$$),
	($$'x', '@daily tz Europe/Paris', 'sched/report', tz => 'UTC'$$),
	($$'x', '@daily', 'sched/report', tz => 'Nowhere'$$),
	($$'x', '@daily', 'sched/report', tz => ''$$),
	($$'x', '@daily', NULL$$),
	($$'x', '@daily', 'sched/nosuch'$$),
	($$'x', '@daily', 'Not a target'$$),
	($$'x', '@daily', 'ftp://127.0.0.1/'$$),
	($$'x', '@daily', 'sched/report', missed => 'sometimes'$$),
	($$'x', '@daily', 'sched/report', options => '[]'$$),
	($$'x', '@daily', 'sched/report', options => '{"max_attempts": 0}'$$),
	($$'x', '@daily', 'sched/report', options => '{"max_attempts": "many"}'$$),
	($$'x', '@daily', 'sched/report', options => '{"headers": {"Retry-Attempt": "1"}}'$$),
	($$'x', '@daily', 'sched/report', options => '{"key": "k"}'$$);
SELECT a.given, r.code, r.message, r.detail
FROM arguments a, pg_temp.refused(format('SELECT retry.schedule(%s)', a.given)) r ORDER BY a.no \gx
SELECT count(*) FROM retry.schedules;
SELECT count(*) FROM retry.task WHERE scene_id IN (SELECT id FROM retry.scene WHERE group_name = 'sched');
SELECT retry.unschedule(NULL);
SELECT retry.unschedule('Nightly');
SELECT retry.unschedule('nightly');
SELECT retry.cron_next('0 0 30 2 *');

-- when it is
SELECT retry.cron_next('30 2 * * *', '2030-03-30 12:00+01', 'Europe/Paris'),
	retry.cron_next('30 2 * * * tz Europe/Paris', '2030-03-31 12:00+02') AS in_the_text,
	retry.cron_next('0 9 * * mon-fri', '2030-03-30 12:00+00'), retry.cron_next(NULL), retry.cron_next('@daily', NULL),
	retry.cron_next('@daily', 'infinity');

-- replaced and kept: same name, same schedule
SELECT retry.schedule('nightly', '0 3 * * * tz europe/paris', 'sched/report', '{"n": 1}');
SELECT name, owner = current_user::regrole AS mine, cron, tz, target, payload, options, missed, active,
	next_run = retry.cron_next('0 3 * * *', now(), 'Europe/Paris') AS next_ok, last_run, last_task, last_error, runs_by, held_reason
FROM retry.schedules \gx
SELECT retry.schedule('nightly', '@hourly', 'sched/other', missed => 'all', options => '{"max_attempts": 3}', active => false);
SELECT name, cron, tz, target, payload, options, missed, active, next_run FROM retry.schedules \gx
SELECT retry.unschedule('nightly'), retry.unschedule('nightly') AS again;

-- missed runs; the one of the first of January 2100 is thirty seconds late, or missed
CREATE FUNCTION pg_temp.after_years(missed text, at timestamptz, OUT enqueued bigint, OUT runs bigint, OUT last text, OUT of_next_year bigint)
LANGUAGE plpgsql AS $$
DECLARE
	years int := extract(year FROM at) - extract(year FROM now());
BEGIN
	PERFORM retry.schedule(missed || extract(month FROM at), '@yearly', 'sched/report', missed => missed);
	enqueued := retry.run_schedules(at);
	-- how many years that is depends on when the test runs
	IF enqueued = years THEN enqueued := -1; END IF;
	SELECT count(task_id), max(r.nominal || CASE WHEN r.task_id IS NULL THEN ': missed' ELSE '' END)
	INTO runs, last FROM retry.schedule_run r;
	IF runs = years THEN runs := -1; END IF;
	ASSERT retry.run_schedules(at) = 0, 'it ran again';
	-- the clock is set back: what ran does not run again, what was skipped may be in time yet
	ASSERT missed <> 'all' OR retry.run_schedules(at - interval '1 year') = 0, 'a moment ran twice';
	of_next_year := retry.run_schedules('2101-01-01 00:00:59.9+00');
	PERFORM retry.unschedule(missed || extract(month FROM at));
END
$$;
BEGIN;
SELECT missed, at, r.* FROM (VALUES ('skip'), ('once'), ('all')) m (missed),
	(VALUES ('2100-01-01 00:00:30+00'::timestamptz), ('2100-06-01+00')) a (at), pg_temp.after_years(missed, at) r;
ROLLBACK;
BEGIN;
SELECT retry.schedule('minutes', '* * * * *', 'sched/report', missed => 'all');
-- at most a thousand at once, in their order, and the rest next time
SELECT retry.run_schedules(date_trunc('minute', now()) + interval '1500 min') FROM generate_series(1, 3);
SELECT count(*), count(DISTINCT nominal), max(nominal) - min(nominal) AS over FROM retry.schedule_run;
SELECT count(*), count(DISTINCT key), bool_and(key ~ '^minutes@\d{4}-\d\d-\d\dT\d\d:\d\d:00Z$') AS keys FROM retry.tasks
WHERE scene = 'sched/report';
ROLLBACK;

-- what comes with the task
BEGIN;
SELECT retry.schedule('yearly', '0 12 1 1 *', 'sched/report', '{"n": 1}', 'skip', 'America/New_York',
	options => '{"max_attempts": 3, "reference": "R", "timeout": "3 s", "headers": {"X-A": "b"}, "backoff": "fixed 1m", "expires_after": "1 h", "lane": "slow", "method": "put"}');
SELECT retry.run_schedules('2100-01-01 17:00:00+00');
SELECT key, max_attempts, reference, headers, convert_from(body, 'UTF8') AS body, lane, method, expires_at < now() + interval '61 min' AS expires
FROM retry.tasks WHERE scene = 'sched/report' \gx
SELECT last_run, last_task = (SELECT id FROM retry.tasks WHERE scene = 'sched/report') AS its_task, last_error, next_run FROM retry.schedules;
ROLLBACK;

-- functions as targets
CREATE FUNCTION public.sched_note(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
SELECT retry.schedule('x', '@daily', 'sql:public.sched_nosuch');
BEGIN;
SELECT retry.schedule('note', '@yearly', 'sql:public.sched_note', '{"n": 1}', 'skip');
SELECT retry.run_schedules('2100-01-01');
SELECT key FROM retry.tasks WHERE id = (SELECT last_task FROM retry.schedules);
ROLLBACK;
DROP FUNCTION public.sched_note(jsonb);

-- what cannot be enqueued is noted, counts as missed, and holds up nothing else
BEGIN;
SELECT retry.schedule('a', '@yearly', 'sched/other'), retry.schedule('b', '@yearly', 'sched/report'), retry.schedule('c', '@yearly', 'sched/other');
UPDATE retry.scene SET archived = true WHERE group_name = 'sched' AND name = 'other';
SELECT retry.run_schedules('2100-01-01');
SELECT name, last_run, last_task IS NOT NULL AS task, last_error FROM retry.schedules ORDER BY 1;
UPDATE retry.scene SET archived = false WHERE group_name = 'sched' AND name = 'other';
SELECT retry.run_schedules('2100-01-01') AS not_made_up_for;
SELECT retry.run_schedules('2101-01-01');
SELECT name, last_run, last_task IS NOT NULL AS task, last_error FROM retry.schedules ORDER BY 1;
ROLLBACK;

-- each role has schedules of its own, and they run with its rights
SET ROLE regress_schedule_a;
SELECT retry.schedule('mine', '@yearly', 'sched/report', '{"of": "a"}');
SET ROLE regress_schedule_b;
SELECT retry.schedule('mine', '@yearly', 'sched/report', '{"of": "b"}');
RESET ROLE;
SELECT retry.grant('regress_schedule_b', 'sched');
SET ROLE regress_schedule_b;
SELECT retry.schedule('mine', '@yearly', 'sched/other', '{"of": "b"}');
SELECT name, owner, payload FROM retry.schedules;
SELECT count(*) FROM retry.schedule_definition;
SELECT count(*) FROM retry.schedule_run;
SELECT retry.run_schedules('2100-01-01');
SELECT retry.run_schedules();
RESET ROLE;
BEGIN;
SELECT retry.run_schedules('2100-01-01');
SELECT scene, key, enqueued_by FROM retry.tasks WHERE scene LIKE 'sched/%' ORDER BY scene;
ROLLBACK;
-- a right that is gone, a role that is gone
SELECT retry.revoke('regress_schedule_b', 'sched');
BEGIN;
SELECT retry.run_schedules('2100-01-01');
SELECT owner, last_run, last_error FROM retry.schedules ORDER BY owner::text;
ROLLBACK;
SET ROLE regress_schedule_b;
SELECT retry.unschedule('mine') AS ended;
SELECT retry.unschedule('mine') AS not_anothers;
RESET ROLE;
SELECT owner, name FROM retry.schedules;
-- a schedule that is not this installation's
UPDATE retry.schedule_definition SET inert = true;
SELECT held_reason, next_run FROM retry.schedules;
BEGIN;
SELECT retry.run_schedules('2100-01-01');
ROLLBACK;
UPDATE retry.schedule_definition SET inert = false;

-- what is stored goes with its retention, but for what says how far it has come
INSERT INTO retry.schedule_run (schedule_id, nominal)
SELECT s.id, now() - g * interval '1 day' FROM retry.schedule_definition s, generate_series(1, 1200) g;
CALL retry.maintain();
SELECT count(*), max(now() - nominal) < interval '9 days' AS the_newest_of_old FROM retry.schedule_run;

BEGIN READ ONLY;
SELECT retry.run_schedules();
ROLLBACK;
SELECT retry.run_schedules('infinity');
SET client_min_messages = warning;
SET ROLE regress_schedule_a;
SELECT retry.unschedule('mine');
RESET ROLE;
SELECT count(*) FROM retry.schedule_run;
DELETE FROM retry.scene WHERE group_name = 'sched';
DELETE FROM retry.scene_group WHERE name = 'sched';
DROP ROLE regress_schedule_a, regress_schedule_b;
