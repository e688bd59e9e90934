--
-- retry.call(): what needs no receiver. Port 1 of this machine refuses.
--
SET client_min_messages = warning;
\set VERBOSITY terse
SELECT current_setting('retry_test.endpoint') AS receiver \gset

SELECT count(*) AS before FROM retry.task \gset

-- What comes back: the columns of retry.call_result.
SELECT * FROM retry.call('http://127.0.0.1:1/', '{}', mode => 'local', local_attempts => 1);
SELECT * FROM retry.call('http://127.0.0.1:1/', '{}', mode => 'local', local_attempts => 3, local_interval => '1 ms');
SELECT state, attempts, error FROM retry.call('http://127.0.0.1:1/', mode => 'local', local_interval => '0');
SELECT count(*) - :before AS stored FROM retry.task;

-- A blocked network ends it, whatever the mode, and nothing is stored.
SELECT state, http_status, attempts, task_id, error FROM retry.call('http://[::1]:1/', '{}');
INSERT INTO retry.scene (name, url) VALUES ('call-blocked', 'http://[::1]:1/');
SELECT state, http_status, attempts, task_id, error FROM retry.call('call-blocked', '{}');
UPDATE retry.scene_group SET https_only = true WHERE name = 'default';
SELECT state, http_status, attempts, task_id, error FROM retry.call('call-blocked', '{}');
UPDATE retry.scene_group SET https_only = false WHERE name = 'default';
DELETE FROM retry.scene WHERE name = 'call-blocked';
SELECT count(*) - :before AS stored FROM retry.task;

-- A task follows; it is the same transaction's.
BEGIN;
SELECT state, http_status, attempts, task_id IS NOT NULL AS has_task, error
FROM retry.call('http://127.0.0.1:1/call', '{"n": 1}', key => 'call-1', local_attempts => 2, local_interval => '0',
	max_attempts => 7, reference => 'call', timeout => '5 s', backoff => 'fixed 1h', headers => '{"X-A": "b"}', lane => 'calls');
SELECT key, state, method, url, headers, convert_from(body, 'UTF8') AS body, max_attempts, reference, lane, attempts,
	due_at - created_at BETWEEN '1 h' AND '1 h 1 min' AS due_by_the_backoff
FROM retry.tasks WHERE key = 'call-1';
ROLLBACK;
SELECT count(*) - :before AS stored FROM retry.task;

-- remote is enqueue.
BEGIN;
SELECT state, http_status, response, attempts, task_id IS NOT NULL AS has_task, error
FROM retry.call('http://127.0.0.1:1/', '{}', key => 'call-2', mode => 'remote') \gset call_
SELECT :'call_state' AS state, :'call_attempts' AS attempts, :'call_has_task' AS has_task;
SELECT state, attempts, due_at - created_at < '1 min' AS due FROM retry.tasks WHERE key = 'call-2';
ROLLBACK;

-- A key of a live task: that task, or an error, after the attempts here.
BEGIN;
SELECT retry.enqueue('http://127.0.0.1:1/', '{}', key => 'call-3', delay => '1 h') AS id \gset
SELECT state, attempts, task_id = :'id' AS that_task
FROM retry.call('http://127.0.0.1:1/', '{}', key => 'call-3', local_attempts => 1);
SELECT retry.call('http://127.0.0.1:1/', '{}', key => 'call-3', local_attempts => 1, on_conflict => 'error');
ROLLBACK;

-- Null means not given, as everywhere.
SELECT state, attempts FROM retry.call('http://127.0.0.1:1/', mode => 'local', local_attempts => NULL, local_interval => '0');

-- Limits in time: none is made after them, and no task is stored that could not be sent.
SELECT retry.call('http://127.0.0.1:1/', mode => 'local', expires_at => '2020-01-01 00:00:00+00');
SELECT state, attempts, task_id, error
FROM retry.call('http://127.0.0.1:1/', expires_at => clock_timestamp() + '1 min', local_attempts => 1, backoff => 'fixed 1h');

-- Bad arguments, named.
SELECT retry.call('http://127.0.0.1:1/', mode => 'nowhere');
SELECT retry.call('http://127.0.0.1:1/', mode => 'LOCAL');
SELECT retry.call('http://127.0.0.1:1/', local_attempts => 0);
SELECT retry.call('http://127.0.0.1:1/', local_attempts => 101);
SELECT retry.call('http://127.0.0.1:1/', local_interval => '-1 ms');
SELECT retry.call('http://127.0.0.1:1/', local_interval => '1 h 1 us');
SELECT retry.call('http://127.0.0.1:1/', local_interval => '178000000 years');
SELECT retry.call('http://127.0.0.1:1/', local_interval => '1 mon');
SELECT retry.call(NULL);
SELECT retry.call('ftp://127.0.0.1/');
SELECT retry.call('no-such-scene');
SELECT retry.call('http://127.0.0.1:1/', '{}', body => '\x00');
SELECT retry.call('http://127.0.0.1:1/', headers => '{"Idempotency-Key": "x"}');
SELECT retry.call('http://127.0.0.1:1/', key => '');
SELECT retry.call('http://127.0.0.1:1/', timeout => '2 h');
SELECT retry.call('http://127.0.0.1:1/', on_conflict => 'maybe');
\set VERBOSITY default
SELECT retry.call('sql:public.ship_order');
SELECT retry.call('sql:public.ship_order', mode => 'local');
\set VERBOSITY terse

-- Scenes: paused ones wait; a local call cannot.
INSERT INTO retry.scene (name, url, paused) VALUES ('call-paused', 'http://127.0.0.1:1/', true), ('call-nowhere', NULL, false);
\set VERBOSITY default
SELECT retry.call('call-paused', mode => 'local');
\set VERBOSITY terse
BEGIN;
SELECT state, attempts, task_id IS NOT NULL AS has_task, error FROM retry.call('call-paused', '{}');
UPDATE retry.scene SET paused = false WHERE name = 'call-paused';
UPDATE retry.scene_group SET paused = true WHERE name = 'default';
SELECT retry.call('call-paused', mode => 'local');
ROLLBACK;
SELECT retry.call('call-nowhere', mode => 'local');
BEGIN;
SET LOCAL retry.enabled = off;
SAVEPOINT s;
SELECT retry.call('http://127.0.0.1:1/', mode => 'local');
ROLLBACK TO s;
SELECT state, attempts, task_id IS NOT NULL AS has_task FROM retry.call('http://127.0.0.1:1/');
ROLLBACK;

-- All targets at once are for tasks.
INSERT INTO retry.scene (name, targets, route) VALUES ('call-all', '{http://127.0.0.1:1/, http://127.0.0.1:2/}', 'all');
SELECT retry.call('call-all', mode => 'local');
BEGIN;
SELECT state, attempts, task_id IS NOT NULL AS has_task FROM retry.call('call-all');
ROLLBACK;
SELECT state, attempts FROM retry.call('call-all', url => 'http://127.0.0.1:1/', mode => 'local', local_attempts => 1);

-- The scene's rules and headers count, as the transaction sees them now.
BEGIN;
INSERT INTO retry.scene (name, url, headers) VALUES ('call-echo', :'receiver' || '/echo', '{"X-Scene": "mine"}');
SELECT state, http_status, attempts, task_id, error,
	convert_from(response, 'UTF8')::jsonb ->> 'method' AS method,
	convert_from(response, 'UTF8')::jsonb ->> 'body' AS body,
	convert_from(response, 'UTF8') LIKE '%X-Scene%mine%' AS scene_headers,
	convert_from(response, 'UTF8') LIKE '%X-Task%yours%' AS own_headers
FROM retry.call('call-echo', '{"n": 1}', headers => '{"X-Task": "yours"}', mode => 'local');
UPDATE retry.scene SET method = 'PUT' WHERE name = 'call-echo';
SELECT state, convert_from(response, 'UTF8')::jsonb ->> 'method' AS method FROM retry.call('call-echo', mode => 'local');
ROLLBACK;

-- A transaction that may write nothing may still call, but only if nothing need be stored.
BEGIN READ ONLY;
SELECT state, attempts FROM retry.call('http://127.0.0.1:1/', mode => 'local', local_attempts => 1);
SELECT retry.call('http://127.0.0.1:1/');
ROLLBACK;

-- Whoever may not use the group may not call.
CREATE ROLE regress_call_nobody;
SET ROLE regress_call_nobody;
SELECT retry.call('http://127.0.0.1:1/', mode => 'local');
SELECT retry.call('call-paused', mode => 'local');
RESET ROLE;
DROP ROLE regress_call_nobody;

-- Errors are caught like others, and the next call works.
DO $$
BEGIN
	FOR i IN 1 .. 3 LOOP
		BEGIN
			PERFORM retry.call('http://127.0.0.1:1/', key => 'x', mode => 'local', local_attempts => 1);
			PERFORM retry.call('no-such-scene');
		EXCEPTION WHEN undefined_object THEN
			RAISE WARNING 'caught: %', sqlerrm;
		END;
	END LOOP;
END
$$;

DELETE FROM retry.scene WHERE name LIKE 'call-%';
SELECT count(*) - :before AS stored FROM retry.task;
