-- One event, three consumers, each served for itself.
--
-- An order is announced to stock, billing and mail in one statement: three
-- tasks, stored together or not at all.  Billing is down; the other two have
-- long been served while its task waits and tries again.
--
-- Run it with: examples/run order-event-fan-out

\set ON_ERROR_STOP 1

INSERT INTO retry.scene (name, targets, route, backoff, max_attempts)
VALUES ('order-placed',
		ARRAY[:'receiver' || '/ok/stock', :'receiver' || '/flaky/3?fail=503', :'receiver' || '/ok/mail'],
		'all', 'fixed 300ms', 20);

SELECT retry.enqueue('order-placed', '{"order": 4711}', reference => '4711') AS event \gset

-- One task for each consumer, found by what they have in common.
SELECT count(*), count(DISTINCT url) AS consumers FROM retry.tasks WHERE parent_id = :'event';

SELECT count(retry.wait(id)) AS finished FROM retry.tasks WHERE parent_id = :'event';
SELECT substr(url, length(:'receiver') + 1) AS consumer, state, attempts
FROM retry.tasks WHERE parent_id = :'event' ORDER BY substr(url, length(:'receiver') + 1) COLLATE "C";
