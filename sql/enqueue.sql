--
-- Enqueue: what is stored of a task, keys, batches, rights.  The groups are
-- paused, so that nothing is sent while it is looked at.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
CREATE ROLE regress_retry_ann;
CREATE ROLE regress_retry_ben;
GRANT USAGE ON SCHEMA retry TO regress_retry_ann, regress_retry_ben;
INSERT INTO retry.scene_group (name, paused) VALUES ('enq', true);
INSERT INTO retry.scene (group_name, name, url) VALUES ('enq', 'plain', 'HTTP://Api.Example:80/path');
INSERT INTO retry.scene (group_name, name, url, max_in_flight) VALUES ('enq', 'lane', 'http://api.example/', 2);
INSERT INTO retry.scene (group_name, name) VALUES ('enq', 'nourl');

-- the tasks of this test, with what differs from run to run left out
CREATE VIEW pg_temp.mine AS
SELECT t.*, s.name AS scene, g.id AS group_id
FROM retry.task t JOIN retry.scene s ON s.id = t.scene_id JOIN retry.scene_group g ON g.name = s.group_name
WHERE g.name = 'enq';

-- a task has whatever was given, and nothing else
SELECT retry.enqueue('enq/plain') AS id \gset
\x on
SELECT leaf = floor(extract(epoch FROM retry.task_time(id)) / 86400)::int8 % 32 AS leaf_of_day,
	inert, max_attempts, substr(id::text, 15, 1) AS version, xid <= pg_current_xact_id() AS xid,
	due_at = retry.task_time(id) AS due_at_once, retry.task_time(id) BETWEEN now() - interval '1 min' AND now() AS now,
	enqueued_by = current_user::regrole AS by_me, expires_at, timeout_ms, depth, lane, key, reference, url, method, headers,
	content_type, backoff, on_success, on_dead, origin_id, replay_of, parent_id, body
FROM pg_temp.mine WHERE id = :'id';
SELECT retry.enqueue('enq/plain', '{"order": 1, "text": "greater"}', key => 'k1', due_at => '2100-02-03 04:05:06+00', lane => 'tenant 7',
	url => 'https://Other.example:443/x#frag', method => 'put', headers => '{"X-A": "1"}', content_type => 'application/cloudevents+json',
	expires_at => '2100-03-01 00:00:00+00', max_attempts => 7, reference => 'order 1', timeout => '1.5 s', backoff => 'fixed 30s') AS id \gset
SELECT leaf, inert, max_attempts, due_at, expires_at, timeout_ms, lane, key, reference, url, method, headers,
	content_type, backoff, convert_from(body, 'UTF8') AS body
FROM pg_temp.mine WHERE id = :'id';
\x off
SELECT retry.enqueue('enq/plain', body => '\x00ff') AS id \gset
SELECT body, content_type FROM retry.task WHERE id = :'id';

-- due: never before now; delay counts from now; far ahead goes to the leaf that is kept apart
SELECT retry.enqueue('enq/plain', due_at => '2001-01-01', reference => 'due') IS NOT NULL AND
	retry.enqueue('enq/plain', delay => '0', reference => 'due') IS NOT NULL AND
	retry.enqueue('enq/plain', delay => '90 s', reference => 'due') IS NOT NULL AND
	retry.enqueue('enq/plain', delay => '23 d', reference => 'due') IS NOT NULL AND
	retry.enqueue('enq/plain', delay => '25 d', reference => 'due') IS NOT NULL AS enqueued;
SELECT leaf = 32 AS long, due_at - retry.task_time(id) AS due
FROM pg_temp.mine WHERE reference = 'due' ORDER BY due_at - retry.task_time(id);

-- lanes: of the URL's origin, of the scene, or named
CREATE FUNCTION pg_temp.lane_hash(group_id int, kind text, name text) RETURNS bigint LANGUAGE sql AS $$
	SELECT ('x' || encode(substr(sha256(int4send(group_id) || convert_to(kind || name, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint
$$;
SELECT retry.enqueue('enq/plain', '"origin of the scene"', reference => 'lane') IS NOT NULL AND
	retry.enqueue('enq/plain', '"own origin"', reference => 'lane', url => 'https://own.example:443/') IS NOT NULL AND
	retry.enqueue('enq/lane', '"scene"', reference => 'lane') IS NOT NULL AND
	retry.enqueue('enq/lane', '"named"', reference => 'lane', lane => 'x') IS NOT NULL AND
	retry.enqueue('enq/plain', '"named as an origin"', reference => 'lane', lane => 'http://api.example') IS NOT NULL AS enqueued;
SELECT convert_from(body, 'UTF8') AS which, lane,
	CASE lane_hash
		WHEN pg_temp.lane_hash(group_id, 'o', 'http://api.example') THEN 'origin of the scene'
		WHEN pg_temp.lane_hash(group_id, 'o', 'https://own.example') THEN 'own origin'
		WHEN pg_temp.lane_hash(group_id, 's', scene_id::text) THEN 'scene'
		WHEN pg_temp.lane_hash(group_id, 'n', lane) THEN 'named' END AS hash
FROM pg_temp.mine WHERE reference = 'lane' ORDER BY id;
SELECT retry.origin('http://EXAMPLE.com:80/x?y'), retry.origin('https://example.com:444'), retry.origin('http://[::1]:80/');

-- a scene of the same transaction is found, one that was rolled back is not
BEGIN;
SAVEPOINT a;
INSERT INTO retry.scene (group_name, name, url) VALUES ('enq', 'new', 'http://new.example/');
SELECT retry.enqueue('enq/new') IS NOT NULL AS found;
ROLLBACK TO a;
SELECT retry.enqueue('enq/new') IS NOT NULL AS found;
ROLLBACK;

-- rolled back, in whole or in part
SELECT count(*) AS before FROM pg_temp.mine \gset
BEGIN;
SELECT count(retry.enqueue('enq/plain')) FROM generate_series(1, 3);
ROLLBACK;
BEGIN;
SELECT retry.enqueue('enq/plain', key => 'kept') AS kept \gset
SAVEPOINT a;
SELECT retry.enqueue('enq/plain', key => 'dropped') AS dropped \gset
ROLLBACK TO a;
SELECT retry.enqueue('enq/plain', key => 'kept') = :'kept' AS same;
SELECT retry.enqueue('enq/plain', key => 'dropped') = :'dropped' AS same;
COMMIT;
SELECT count(*) - :before AS stored FROM pg_temp.mine;

--
-- Keys
--
SELECT retry.enqueue('enq/plain', key => 'K') AS a \gset
SELECT retry.enqueue('enq/plain', key => 'K') = :'a' AS same_key_same_task;
SELECT retry.enqueue('enq/plain', key => 'K', on_conflict => NULL) = :'a' AS same_key_same_task;
SELECT retry.enqueue('enq/lane', key => 'K') <> :'a' AS other_scene_other_task;
SELECT retry.enqueue('enq/plain', key => 'k') <> :'a' AS other_case_other_task;
SELECT count(DISTINCT retry.enqueue('enq/plain', key => 'same statement')) AS tasks FROM generate_series(1, 5);
\set VERBOSITY terse
DO $$
BEGIN
	PERFORM retry.enqueue('enq/plain', key => 'K', on_conflict => 'error');
EXCEPTION WHEN unique_violation THEN
	RAISE NOTICE 'refused: %', SQLERRM;
END
$$;
-- replaced: the old one is cancelled, the new one is the key's
SELECT retry.enqueue('enq/plain', key => 'K', on_conflict => 'replace') AS b \gset
SELECT :'a' <> :'b' AS another, retry.wait(:'a', '0') AS old, retry.wait(:'b', '0') AS new,
	retry.enqueue('enq/plain', key => 'K') = :'b' AS same;
-- not when it has been sent
INSERT INTO retry.attempt (leaf, http_status, attempt_no, task_id, lane_hash, finished_at, duration_us, scene_id, outcome, next_due)
SELECT leaf, 503, 1, id, lane_hash, clock_timestamp(), 1000, scene_id, 'failed', 'tomorrow' FROM retry.task WHERE id = :'b';
SELECT retry.wait(:'b', '0');
DO $$
BEGIN
	PERFORM retry.enqueue('enq/plain', key => 'K', on_conflict => 'replace');
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	RAISE NOTICE 'refused: %', regexp_replace(SQLERRM, '[0-9a-f-]{36}', '(id)');
END
$$;
SELECT retry.enqueue('enq/plain', key => 'K') = :'b' AS same;
-- finished: the key may be used again, whatever on_conflict says
INSERT INTO retry.attempt (leaf, http_status, attempt_no, task_id, lane_hash, finished_at, duration_us, scene_id, outcome)
SELECT leaf, 200, 2, id, lane_hash, clock_timestamp(), 1000, scene_id, 'succeeded' FROM retry.task WHERE id = :'b';
SELECT retry.enqueue('enq/plain', key => 'K', on_conflict => 'error') AS c \gset
SELECT :'b' <> :'c' AS another, retry.wait(:'b', '0') AS old, retry.wait(:'c', '0') AS new;
-- cancelled: the same, also within one transaction
BEGIN;
SELECT retry.cancel(:'c');
SELECT retry.enqueue('enq/plain', key => 'K') <> :'c' AS another;
ROLLBACK;
SELECT retry.enqueue('enq/plain', key => 'K') = :'c' AS same;
-- a savepoint that is rolled back takes the key back, too
BEGIN;
SELECT retry.cancel(:'c');
SAVEPOINT a;
SELECT retry.enqueue('enq/plain', key => 'K') <> :'c' AS another;
ROLLBACK TO a;
SELECT task_id = :'c' AS points_back FROM retry.key WHERE key = 'K' AND task_id = :'c';
ROLLBACK;
-- gone with its leaf
BEGIN;
DO $$ BEGIN EXECUTE format('TRUNCATE retry.task_%s', to_char((SELECT leaf FROM retry.key k WHERE k.key = 'kept'), 'FM00')); END $$;
SELECT retry.enqueue('enq/plain', key => 'K') <> :'c' AS another;
ROLLBACK;
-- moved to the leaf that is kept apart
BEGIN;
CREATE TEMP TABLE moved ON COMMIT DROP AS SELECT * FROM retry.task WHERE id = :'c';
DO $$ BEGIN EXECUTE format('TRUNCATE retry.task_%s', to_char((SELECT leaf FROM moved), 'FM00')); END $$;
UPDATE moved SET leaf = 32;
INSERT INTO retry.task SELECT * FROM moved;
SELECT retry.enqueue('enq/plain', key => 'K') = :'c' AS same;
ROLLBACK;
-- keys made from target and payload
SELECT retry.digest_key('enq/plain', '{"b": 1, "a": [2, 3.0]}') AS digest,
	retry.digest_key('enq/plain', '{"b": 1, "a": [2, 3.0]}') = encode(sha256(convert_to(E'enq/plain\n\n{"a": [2, 3.0], "b": 1}', 'UTF8')), 'hex') AS as_documented,
	retry.digest_key('s', '1') = retry.digest_key('default/s', '1') AS same_scene,
	retry.digest_key('http://a.example/', '1') = encode(sha256(convert_to(E'default/default\nhttp://a.example/\n1', 'UTF8')), 'hex') AS url,
	retry.digest_key('enq/plain', NULL) = encode(sha256(convert_to(E'enq/plain\n\n', 'UTF8')), 'hex') AS no_payload,
	retry.digest_key('enq/plain', 'null') <> retry.digest_key('enq/plain', NULL) AS json_null_is_a_payload,
	retry.digest_key(NULL, '1') IS NULL AS no_target;
SELECT retry.digest_key('Enq/plain', '1');
SELECT retry.enqueue('enq/plain', '{"a": 1}', key => retry.digest_key('enq/plain', '{"a": 1}')) AS d \gset
INSERT INTO retry.scene (group_name, name, url, generate_key) VALUES ('enq', 'digest', 'http://api.example/', true);
SELECT retry.enqueue('enq/digest', '{"a": 1, "b": 2}') AS d \gset
SELECT key = retry.digest_key('enq/digest', '{"b":2,"a":1}') AS digest FROM pg_temp.mine WHERE id = :'d';
SELECT retry.enqueue('enq/digest', '{"b": 2,   "a": 1}') = :'d' AS same_payload,
	retry.enqueue('enq/digest', body => '{"a": 1, "b": 2}') = :'d' AS same_bytes,
	retry.enqueue('enq/digest', '{"a": 1, "b": 2}', reference => 'r', delay => '1 h', headers => '{"X": "1"}') = :'d' AS same_whatever_else,
	retry.enqueue('enq/digest', '{"a": 1, "b": 2}', key => 'own') = :'d' AS own_key,
	retry.enqueue('enq/digest', '{"a": 1, "b": 2}', url => 'http://api.example/') = :'d' AS other_url,
	retry.enqueue('enq/digest') = :'d' AS no_payload,
	retry.enqueue('enq/digest') = retry.enqueue('enq/digest') AS no_payload_again;
SELECT array_agg(i) AS ids FROM retry.enqueue_many('enq/digest', ARRAY['{"a": 1, "b": 2}', '7', '7', NULL, '8', '8']::jsonb[], ARRAY[NULL, NULL, NULL, NULL, 'e', NULL]) i \gset
SELECT n, t.id = :'d' AS known, CASE WHEN length(t.key) = 64 THEN 'digest' ELSE t.key END AS key, convert_from(t.body, 'UTF8') AS body
FROM unnest(:'ids'::uuid[]) WITH ORDINALITY AS x (id, n) JOIN retry.task t USING (id) ORDER BY n;
SELECT count(DISTINCT i) AS tasks FROM unnest(:'ids'::uuid[]) i;
SELECT array_agg(i) = (SELECT array_agg(retry.enqueue('enq/digest', to_jsonb(g))) FROM generate_series(1, 200) g) AS same
FROM retry.enqueue_many('enq/digest', (SELECT array_agg(to_jsonb(g)) FROM generate_series(1, 200) g)) i;

-- a key that leads to its task for a while after that has finished
INSERT INTO retry.scene (group_name, name, url, key_window) VALUES ('enq', 'window', 'http://api.example/', '10 min');
CREATE FUNCTION pg_temp.finish(of_task uuid, age interval, how text DEFAULT 'succeeded') RETURNS void LANGUAGE sql AS $$
	INSERT INTO retry.attempt (leaf, http_status, attempt_no, task_id, lane_hash, finished_at, duration_us, scene_id, outcome)
	SELECT leaf, 200, 1, id, lane_hash, clock_timestamp() - age, 1000, scene_id, how::retry.outcome FROM retry.task WHERE id = of_task
$$;
-- how an enqueue with the key of a task ends
CREATE FUNCTION pg_temp.again(task uuid, of_key text, on_conflict text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail	text;
BEGIN
	RETURN CASE WHEN retry.enqueue('enq/window', key => of_key, on_conflict => on_conflict) = task THEN 'the same' ELSE 'another' END;
EXCEPTION WHEN unique_violation OR object_not_in_prerequisite_state THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN regexp_replace(SQLSTATE || ' ' || SQLERRM || '. ' || detail, '[0-9a-f]{8}-[0-9a-f-]{27}', '(id)', 'g');
END
$$;
SELECT retry.enqueue('enq/window', key => 'ok') AS ok \gset
SELECT retry.enqueue('enq/window', key => 'dead') AS dead \gset
SELECT retry.enqueue('enq/window', key => 'over') AS over \gset
SELECT retry.enqueue('enq/window', key => 'cancelled') AS cancelled \gset
SELECT pg_temp.finish(:'ok', '9 min'), pg_temp.finish(:'dead', '1 s', 'stopped'), pg_temp.finish(:'over', '11 min'), retry.cancel(:'cancelled');
SELECT c AS on_conflict, pg_temp.again(:'ok', 'ok', c) AS succeeded, pg_temp.again(:'dead', 'dead', c) AS dead
FROM unnest(ARRAY['return', 'error', 'replace']) c;
BEGIN;
SELECT pg_temp.again(:'over', 'over', 'error') AS window_over, pg_temp.again(:'cancelled', 'cancelled', 'error') AS cancelled;
ROLLBACK;
SELECT array_agg(i) = ARRAY[:'ok', :'dead']::uuid[] AS same FROM retry.enqueue_many('enq/window', '{1, 2}', '{ok, dead}') i;
-- the row of the key is enough: with its history gone, and the end noted or not
BEGIN;
DO $$ BEGIN EXECUTE format('TRUNCATE retry.task_%s', to_char((SELECT leaf FROM retry.key k WHERE k.key = 'ok'), 'FM00')); END $$;
SELECT pg_temp.again(:'ok', 'ok', 'return') AS not_noted;
UPDATE retry.key SET finished_at = clock_timestamp() - interval '9 min' WHERE key = 'ok';
SELECT pg_temp.again(:'ok', 'ok', 'return') AS noted, pg_temp.again(:'ok', 'ok', 'replace') AS replaced;
UPDATE retry.key SET finished_at = clock_timestamp() - interval '11 min' WHERE key = 'ok';
SELECT pg_temp.again(:'ok', 'ok', 'error') AS over;
SELECT finished_at IS NULL AS forgotten FROM retry.key WHERE key = 'ok';
ROLLBACK;
-- the window may be changed at any time
BEGIN;
UPDATE retry.scene SET key_window = '30 s' WHERE group_name = 'enq' AND name = 'window';
SELECT pg_temp.again(:'ok', 'ok', 'return') AS shorter, pg_temp.again(:'dead', 'dead', 'return') AS still;
UPDATE retry.scene SET key_window = NULL WHERE group_name = 'enq' AND name = 'window';
SELECT pg_temp.again(:'dead', 'dead', 'return') AS none;
ROLLBACK;
\set VERBOSITY default

-- batches: ids in the order of the payloads, which is also that of delivery
SELECT array_agg(i) AS ids FROM retry.enqueue_many('enq/plain', (SELECT array_agg(to_jsonb(g) ORDER BY g) FROM generate_series(1, 1000) g), reference => 'batch') i \gset
SELECT count(*) AS tasks, bool_and(convert_from(t.body, 'UTF8') = n::text) AS in_order, count(DISTINCT t.due_at) AS moments
FROM unnest(:'ids'::uuid[]) WITH ORDINALITY AS x (id, n) JOIN retry.task t USING (id);
SELECT array_agg(convert_from(body, 'UTF8') ORDER BY due_at, id) = array_agg(convert_from(body, 'UTF8') ORDER BY convert_from(body, 'UTF8')::int) AS delivered_in_order
FROM pg_temp.mine WHERE reference = 'batch';
-- with keys: known ones, new ones, repeated ones, none
SELECT array_agg(i) AS ids FROM retry.enqueue_many('enq/plain', '{1,2,3,4,5,6}'::jsonb[], ARRAY['z', 'K', NULL, 'z', 'a', NULL]) i \gset
SELECT n, t.key, convert_from(t.body, 'UTF8') AS body, t.id = :'c' AS known
FROM unnest(:'ids'::uuid[]) WITH ORDINALITY AS x (id, n) JOIN retry.task t USING (id) ORDER BY n;
SELECT retry.enqueue_many('enq/plain', '{1,2,3,4,5,6}'::jsonb[], ARRAY['z', 'K', NULL, 'z', 'a', NULL]) = ANY (:'ids'::uuid[]) AS same;
-- nothing to do, bodies that are null
SELECT count(*) FROM retry.enqueue_many('enq/plain', '{}');
SELECT count(*) FROM retry.enqueue_many('enq/plain', NULL);
SELECT array_agg(i) AS ids FROM retry.enqueue_many('enq/plain', ARRAY[NULL, 'null']::jsonb[]) i \gset
SELECT n, convert_from(t.body, 'UTF8') AS body
FROM unnest(:'ids'::uuid[]) WITH ORDINALITY AS x (id, n) JOIN retry.task t USING (id) ORDER BY n;

-- a payload larger than a page
SELECT retry.enqueue('enq/plain', to_jsonb((SELECT string_agg(md5(g::text), '') FROM generate_series(1, 5000) g))) AS id \gset
SELECT length(body) FROM retry.task WHERE id = :'id';

-- rows that did not come by enqueue are marked
BEGIN;
INSERT INTO retry.task (leaf, inert, id, xid, lane_hash, due_at, scene_id, enqueued_by)
SELECT leaf, false, '01900000-0000-7000-8000-000000000001', '3', lane_hash, due_at, scene_id, enqueued_by FROM retry.task WHERE id = :'id';
SELECT inert, xid = pg_current_xact_id() AS xid_of_now FROM retry.task WHERE id = '01900000-0000-7000-8000-000000000001';
ROLLBACK;

--
-- Rights
--
SET ROLE regress_retry_ann;
SELECT retry.enqueue('enq/plain');
SELECT retry.enqueue('http://any.example/');
SELECT retry.grant('regress_retry_ann', 'enq');
RESET ROLE;
SELECT retry.grant('regress_retry_ann', 'enq');
SET ROLE regress_retry_ann;
SELECT retry.enqueue('enq/plain', key => 'ann') AS id \gset
SELECT retry.enqueue('http://any.example/');
RESET ROLE;
SELECT enqueued_by FROM retry.task WHERE id = :'id';
-- members may, too; the key is the group's
GRANT regress_retry_ann TO regress_retry_ben;
SET ROLE regress_retry_ben;
SELECT retry.enqueue('enq/plain', key => 'ann') = :'id' AS same;
RESET ROLE;
REVOKE regress_retry_ann FROM regress_retry_ben;
SET ROLE regress_retry_ben;
SELECT retry.enqueue('enq/plain', key => 'ann') = :'id' AS same;
RESET ROLE;
-- in the group default each role has its own keys
SELECT retry.grant('regress_retry_ann', 'default'), retry.grant('regress_retry_ben', 'default');
SET ROLE regress_retry_ann;
SELECT retry.enqueue('http://any.example/', key => 'shared', delay => '1 day') AS ann \gset
SET ROLE regress_retry_ben;
SELECT retry.enqueue('http://any.example/', key => 'shared', delay => '1 day') AS ben \gset
SELECT :'ann' <> :'ben' AS own, retry.enqueue('http://any.example/', key => 'shared') = :'ben' AS same;
RESET ROLE;
-- called by a function of another role, it is that role's
CREATE FUNCTION pg_temp.as_definer() RETURNS uuid LANGUAGE sql SECURITY DEFINER AS $$ SELECT retry.enqueue('enq/plain') $$;
SET ROLE regress_retry_ben;
SELECT pg_temp.as_definer() IS NOT NULL AS allowed;
RESET ROLE;
-- what a role may not read it cannot read through the functions either
SET ROLE regress_retry_ann;
SELECT count(*) FROM retry.key;
RESET ROLE;
SELECT retry.revoke('regress_retry_ann', 'enq'), retry.revoke('regress_retry_ann', 'enq');
SET ROLE regress_retry_ann;
SELECT retry.enqueue('enq/plain');
RESET ROLE;

SELECT count(retry.cancel(i)) FROM unnest(ARRAY[:'ann', :'ben']::uuid[]) i;
SELECT retry.revoke('regress_retry_ann', 'default'), retry.revoke('regress_retry_ben', 'default');
DELETE FROM retry.scene WHERE group_name = 'enq';
SELECT name, archived FROM retry.scene WHERE group_name = 'enq' ORDER BY name;
REVOKE USAGE ON SCHEMA retry FROM regress_retry_ann, regress_retry_ben;
DROP ROLE regress_retry_ann, regress_retry_ben;
