-- Ask at once, and leave it to the workers when nobody answers.
--
-- A checkout reserves stock.  It wants the answer now if it can be had, and is
-- content with a promise if not: two attempts in its own session, then a task
-- under the same Idempotency-Key, so that the stock service cannot take it for
-- two reservations.
--
-- Run it with: examples/run call-now-or-later

\set ON_ERROR_STOP 1

INSERT INTO retry.scene (name, url, backoff)
VALUES ('reserve', :'receiver' || '/ok/reserve', 'fixed 100ms');

-- The service is there: an answer, and nothing stored.
SELECT state, http_status, convert_from(response, 'UTF8') AS answer, attempts, task_id
FROM retry.call('reserve', '{"sku": "T-1000", "n": 1}');
SELECT count(*) AS tasks FROM retry.tasks;

-- It is not: two attempts here, and a task that goes on.
UPDATE retry.scene SET url = :'receiver' || '/flaky/3?fail=503' WHERE name = 'reserve';
SELECT state, http_status, attempts, task_id IS NOT NULL AS promised, task_id AS id
FROM retry.call('reserve', '{"sku": "T-1000", "n": 2}', key => 'reserve-2',
				mode => 'local_remote', local_attempts => 2, local_interval => '10 ms') \gset call_
SELECT :'call_state' AS state, :'call_http_status' AS status, :'call_attempts' AS attempts, :'call_promised' AS promised;
SELECT retry.wait(:'call_id');

-- What can never be right is said at once, and not tried again by anybody.
SELECT state, http_status, attempts, task_id
FROM retry.call('reserve', '{"sku": "?"}', url => :'receiver' || '/status/422');
