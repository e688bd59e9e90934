--
-- What the scripts of this folder open with: the extension, settings that make
-- output the same everywhere, and functions that several of them use.  It is
-- included with ECHO off, so that it is no part of their output, and ends with
-- ECHO on again.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS retry;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';

-- how a statement is refused, the ids of new tasks left out
CREATE FUNCTION pg_temp.refused(statement text, OUT code text, OUT message text, OUT detail text, OUT hint text,
	OUT at_column text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	code := '00000';
	message := 'not refused';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT, at_column = COLUMN_NAME;
	message := regexp_replace(message, '\m01[0-9a-f]{6}-[0-9a-f-]{27}', '(id)');
END
$$;

-- the same in one line
CREATE FUNCTION pg_temp.said(statement text) RETURNS text
LANGUAGE sql AS $$
	SELECT CASE code WHEN '00000' THEN 'done' ELSE concat_ws('|', code, message, hint) END FROM pg_temp.refused(statement)
$$;

-- an attempt, as a worker would record it
CREATE FUNCTION pg_temp.attempt(of_task uuid, no int, outcome text, next timestamptz DEFAULT NULL,
	error text DEFAULT NULL, ended timestamptz DEFAULT clock_timestamp()) RETURNS int
LANGUAGE sql AS $$
	INSERT INTO retry.attempt (leaf, http_status, attempt_no, task_id, lane_hash, finished_at, duration_us, scene_id, outcome, next_due, error)
	SELECT leaf, CASE outcome WHEN 'succeeded' THEN 200 ELSE 503 END, no, id, lane_hash, ended, 1000, scene_id,
		outcome::retry.outcome, next, error
	FROM retry.task WHERE id = of_task
	RETURNING attempt_no
$$;

-- and a death
CREATE FUNCTION pg_temp.die(of_task uuid, at timestamptz DEFAULT clock_timestamp(), error text DEFAULT 'HTTP 503',
	reason retry.dead_reason DEFAULT 'exhausted') RETURNS int
LANGUAGE sql AS $$
	SELECT pg_temp.attempt(of_task, 1, 'failed', NULL, error, at);
	INSERT INTO retry.dead_letter
	SELECT t.*, reason, at, 1, 503, error, NULL FROM retry.task t WHERE id = of_task;
	SELECT 1
$$;

\set ECHO all
