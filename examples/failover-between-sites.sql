-- Two sites serve the same calls; the second is there for when the first fails.
--
-- The first call finds site A broken, which takes A out: its second attempt,
-- and all calls after it, go to site B, until A has answered a probe.  Where
-- each attempt went is recorded.
--
-- Run it with: examples/run failover-between-sites

\set ON_ERROR_STOP 1

INSERT INTO retry.scene (name, targets, route, backoff)
VALUES ('quote', ARRAY[:'receiver' || '/status/503/site-a', :'receiver' || '/ok/site-b'], 'first', 'fixed 50ms');

SELECT retry.enqueue('quote', '{"n": 1}') AS id \gset
SELECT retry.wait(:'id');
SELECT attempt_no, substr(target, length(:'receiver') + 1) AS target, outcome, http_status
FROM retry.attempts WHERE task_id = :'id' ORDER BY attempt_no;

-- Site A is mended, and half of the work may go there.
UPDATE retry.scene SET targets = ARRAY[:'receiver' || '/ok/site-a weight=1', :'receiver' || '/ok/site-b weight=1'],
	route = 'round_robin' WHERE name = 'quote';
SELECT count(*) AS sent FROM retry.enqueue_many('quote', array_fill('{"n": 2}'::jsonb, ARRAY[20]));
SELECT count(retry.wait(id)) AS finished FROM retry.tasks WHERE scene = 'default/quote';
SELECT substr(a.target, length(:'receiver') + 1) AS target, count(*) > 0 AS used
FROM retry.attempts a WHERE http_status = 200 GROUP BY a.target ORDER BY a.target COLLATE "C";
