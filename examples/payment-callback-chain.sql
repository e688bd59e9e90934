-- A payment sets off a chain: shop, warehouse, customer.
--
-- The payment and the first call are one commit.  Each link is a scene with a
-- policy of its own, and its success sets off the next: the shop marks the
-- order as paid, the warehouse packs it, the customer is told.  The warehouse
-- fails twice on the way, and nobody has to know.  What cannot be delivered
-- goes to the desk where a person looks at it.
--
-- Run it with: examples/run payment-callback-chain
-- Here the pauses are milliseconds.

\set ON_ERROR_STOP 1

CREATE TABLE payment (id int PRIMARY KEY, order_no text, amount numeric(10,2), paid_at timestamptz DEFAULT now());

INSERT INTO retry.scene_group (name, description) VALUES ('pay', 'What follows a payment');
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES
	('pay', 'desk', :'receiver' || '/ok/desk', 'fixed 1h', 1000),
	('pay', 'customer', :'receiver' || '/ok/customer', 'exponential 100ms max 10s jitter full', 10);
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts, on_success, on_dead) VALUES
	('pay', 'warehouse', :'receiver' || '/flaky/2?fail=503', 'fixed 100ms', 5, 'pay/customer', 'pay/desk'),
	('pay', 'shop', :'receiver' || '/ok/shop', 'fixed 100ms', 5, 'pay/warehouse', 'pay/desk');

BEGIN;
INSERT INTO payment VALUES (1, 'A-100', 49.90);
SELECT retry.enqueue('pay/shop', '{"order": "A-100", "paid": 49.90}', key => 'payment-1', reference => 'A-100') AS shop \gset
COMMIT;

SELECT retry.wait(:'shop');
SELECT id AS warehouse FROM retry.tasks WHERE parent_id = :'shop' \gset
SELECT retry.wait(:'warehouse');
SELECT id AS customer FROM retry.tasks WHERE parent_id = :'warehouse' \gset
SELECT retry.wait(:'customer');

-- The whole chain by its business number.
SELECT scene, state, attempts FROM retry.tasks WHERE reference = 'A-100' ORDER BY created_at;

-- What the customer's service was given to know.
SELECT doc->>'scene' AS scene, doc->>'outcome' AS outcome, doc->>'attempts' AS attempts, doc->>'reference' AS reference
FROM retry.tasks, LATERAL (SELECT convert_from(body, 'UTF8')::jsonb) AS callback(doc)
WHERE id = :'customer';

-- Payment 2 meets a shop that refuses it for good: the desk is told why.
BEGIN;
INSERT INTO payment VALUES (2, 'A-101', 12.00);
SELECT retry.enqueue('pay/shop', '{"order": "A-101"}', key => 'payment-2', reference => 'A-101',
	url => :'receiver' || '/status/422') AS shop \gset
COMMIT;
SELECT retry.wait(:'shop');
SELECT scene, doc->>'outcome' AS outcome, doc->>'reason' AS reason, doc->>'status' AS status, doc->'payload' AS payload
FROM retry.tasks, LATERAL (SELECT convert_from(body, 'UTF8')::jsonb) AS callback(doc)
WHERE parent_id = :'shop';
