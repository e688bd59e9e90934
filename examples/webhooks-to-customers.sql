-- Webhooks to customers: each in a lane of its own, on the ladder of Standard
-- Webhooks.
--
-- One customer's receiver hangs, one has gone for good, one is well.  They do
-- not feel each other; the one that answers 410 is not called again.
--
-- Run it with: examples/run webhooks-to-customers
-- Here the ladder is climbed in milliseconds.

\set ON_ERROR_STOP 1

CREATE TABLE customer (name text PRIMARY KEY, hook text);
INSERT INTO customer VALUES
	('acme', :'receiver' || '/ok/acme'),
	('bravo', :'receiver' || '/hang'),
	('coyote', :'receiver' || '/status/410');

INSERT INTO retry.scene_group (name, description) VALUES ('hooks', 'Webhooks to customers');
INSERT INTO retry.scene (group_name, name, backoff, max_attempts, timeout, headers)
VALUES ('hooks', 'event', 'levels standard-webhooks jitter 10%', 10, '200 ms', '{"X-Event-Version": "1"}');
UPDATE retry.scene SET backoff = 'levels 5ms,30ms' WHERE name = 'event';

CREATE FUNCTION announce(event jsonb) RETURNS SETOF uuid LANGUAGE sql AS $$
	SELECT retry.enqueue('hooks/event', event, url => c.hook, lane => 'customer ' || c.name, reference => c.name)
	FROM customer c
$$;
SELECT count(*) AS announced FROM announce('{"type": "invoice.paid", "id": 1}');

SELECT count(retry.wait(id)) FILTER (WHERE reference <> 'bravo') AS finished FROM retry.tasks WHERE scene = 'hooks/event';
SELECT t.reference, t.lane, t.state, t.attempts, d.reason
FROM retry.tasks t LEFT JOIN retry.dead_letters d USING (id)
WHERE t.reference IN ('acme', 'coyote') ORDER BY t.reference;

-- Bravo is still being tried; nobody waits for it.  It gives up waiting itself.
SELECT retry.cancel_where('hooks/event', reference => 'bravo') AS cancelled;
