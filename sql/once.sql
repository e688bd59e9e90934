--
-- retry.once(): a receiver in the database recognizes what it has had.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS retry;
RESET client_min_messages;
CREATE ROLE regress_once_a;
CREATE ROLE regress_once_b;

SELECT retry.once('shop', 'm1') AS first, retry.once('shop', 'm1') AS second, retry.once('shop', 'm2') AS other_message,
	retry.once('bank', 'm1') AS other_consumer;
SELECT retry.once('shop', 'm1') AS later;
-- rolled back, it was not had
BEGIN;
SELECT retry.once('shop', 'm3') AS first, retry.once('shop', 'm3') AS second;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT retry.once('shop', 'm3') AS not_yet_had;
ROLLBACK TO s;
SELECT retry.once('shop', 'm3') AS not_yet_had;
COMMIT;
SELECT retry.once('shop', 'm3') AS had;
-- in a transaction that keeps its snapshot, when that sees it
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT retry.once('shop', 'm3') AS had, retry.once('shop', 'm4') AS new;
COMMIT;

-- each role has consumers of its own, and nothing else of it
SET ROLE regress_once_a;
SELECT retry.once('shop', 'm1') AS new_to_a, retry.once('shop', 'm1') AS had;
SET ROLE regress_once_b;
SELECT retry.once('shop', 'm1') AS new_to_b;
SELECT count(*) FROM retry.consumed;
RESET ROLE;
-- in a function of another owner that owner's
CREATE FUNCTION once_receive(id text) RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT retry.once('shop', id) $$;
ALTER FUNCTION once_receive(text) OWNER TO regress_once_a;
SET ROLE regress_once_b;
SELECT once_receive('m1') AS a_had_it, once_receive('m9') AS new_to_a, retry.once('shop', 'm9') AS new_to_b;
RESET ROLE;
SELECT role = current_user::regrole AS mine, CASE WHEN role <> current_user::regrole THEN role::text END AS role,
	consumer, message_id, at BETWEEN now() - interval '1 hour' AND now() AS lately
FROM retry.consumed ORDER BY 1 DESC, 2, 3, 4;

-- what is no name
\set VERBOSITY sqlstate
SELECT retry.once(NULL, 'm');
SELECT retry.once('shop', NULL);
SELECT retry.once('', 'm');
SELECT retry.once('shop', '');
SELECT retry.once(repeat('c', 256), 'm');
SELECT retry.once('shop', repeat('m', 1025));
\set VERBOSITY terse
SELECT retry.once('shop', NULL);
SELECT retry.once('shop', repeat('m', 1025));
BEGIN READ ONLY;
SELECT retry.once('shop', 'm1');
ROLLBACK;
\set VERBOSITY default
SELECT retry.once(repeat('c', 255), repeat('m', 1024)) AS new, retry.once(repeat('c', 255), repeat('m', 1024)) AS had;
-- also one that cannot be compressed
SELECT retry.once('shop', string_agg(md5(g::text), '' ORDER BY g)) AS new FROM generate_series(1, 32) g;

-- retention: what is old goes, in batches; requests to purge do not reach it
DELETE FROM retry.consumed;
INSERT INTO retry.consumed SELECT 'regress_once_a', 'shop', 'old' || g, now() - interval '7 days 1 hour' FROM generate_series(1, 1201) g;
INSERT INTO retry.consumed SELECT 'regress_once_a', 'shop', 'young' || g, now() - interval '6 days 23 hours' FROM generate_series(1, 600) g;
SELECT retry.purge(now());
CALL retry.maintain();
SELECT left(message_id, 5) AS message, count(*) FROM retry.consumed GROUP BY 1;
SET ROLE regress_once_a;
SELECT retry.once('shop', 'old1') AS new_again, retry.once('shop', 'young1') AS new_again;
RESET ROLE;

DELETE FROM retry.consumed;
DROP FUNCTION once_receive(text);
DROP ROLE regress_once_a, regress_once_b;
