-- Messages between two schemas of one database, each acted on exactly once.
--
-- The shop announces orders; billing lives in the same database and has a
-- function for them.  A task whose target is sql:billing.take_order runs that
-- function as the role that enqueued it, and is recorded in the function's own
-- transaction: the invoice and the fact that the task is done are one commit.
-- When the same order comes over the network too, retry.once() knows it.
--
-- Run it with: examples/run transactional-inbox

\set ON_ERROR_STOP 1

CREATE SCHEMA billing;
CREATE TABLE billing.rate (country text PRIMARY KEY, percent int);
CREATE TABLE billing.invoice (order_no text PRIMARY KEY, total numeric(10,2));
CREATE FUNCTION billing.take_order(message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	percent	int;
BEGIN
	IF NOT retry.once('billing', message->>'order') THEN
		RETURN jsonb_build_object('seen', true);
	END IF;
	SELECT r.percent INTO STRICT percent FROM billing.rate r WHERE country = message->>'country';
	INSERT INTO billing.invoice VALUES (message->>'order', (message->>'net')::numeric * (100 + percent) / 100);
	RETURN jsonb_build_object('invoiced', message->>'order');
END
$$;

-- The function is called like any other target: with a backoff and a limit.
INSERT INTO retry.scene (name, url, backoff, max_attempts)
VALUES ('to-billing', 'sql:billing.take_order', 'fixed 200ms', 50);

-- The rate of the country is missing at first: the attempts fail, and leave nothing behind.
SELECT retry.enqueue('to-billing', '{"order": "B-1", "net": 100, "country": "FR"}', key => 'B-1') AS id \gset
DO $$
BEGIN
	WHILE NOT EXISTS (SELECT FROM retry.tasks WHERE key = 'B-1' AND state = 'retrying') LOOP
		PERFORM pg_sleep(0.05);
	END LOOP;
END
$$;
SELECT last_error, (SELECT count(*) FROM billing.invoice) AS invoices FROM retry.tasks WHERE id = :'id';

-- Somebody enters it, and the task succeeds by itself.
INSERT INTO billing.rate VALUES ('FR', 20);
SELECT retry.wait(:'id');
SELECT convert_from(response, 'UTF8') AS answer FROM retry.attempts WHERE task_id = :'id' AND outcome = 'succeeded';
SELECT * FROM billing.invoice;

-- The same order, announced once more under another key: seen, and not billed again.
SELECT retry.enqueue('to-billing', '{"order": "B-1", "net": 100, "country": "FR"}', key => 'B-1 again') AS id \gset
SELECT retry.wait(:'id');
SELECT convert_from(response, 'UTF8') AS answer FROM retry.attempts WHERE task_id = :'id';
SELECT count(*) AS invoices FROM billing.invoice;
