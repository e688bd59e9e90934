-- A report every night, also after a night without power.
--
-- At 2:30 Paris time a report service is called.  Each run has a key made of
-- the schedule and the moment it was meant for, so no run is lost or doubled
-- by a restart; of the runs missed while the server was down only the latest
-- is made up for.
--
-- Run it with: examples/run nightly-report

\set ON_ERROR_STOP 1

INSERT INTO retry.scene (name, url, backoff, max_attempts)
VALUES ('report', :'receiver' || '/flaky/1?fail=503', 'fixed 100ms', 20);

SELECT retry.schedule('nightly', '30 2 * * * tz Europe/Paris', 'report', '{"kind": "sales"}', missed => 'once');

SELECT name, cron, target, missed,
	(next_run AT TIME ZONE 'Europe/Paris')::time AS at, next_run > now() AS ahead
FROM retry.schedules;

-- What a moment two nights from now would find, the server having slept in between: one run.
SELECT retry.run_schedules(now() + interval '2 days') AS runs;
SELECT max(last_task::text) AS id FROM retry.schedules WHERE name = 'nightly' \gset
SELECT retry.wait(:'id');
SELECT scene, state, attempts, key LIKE 'nightly@%' AS keyed FROM retry.tasks WHERE id = :'id';

SELECT retry.unschedule('nightly');
SELECT count(*) AS schedules FROM retry.schedules;
