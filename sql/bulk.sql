--
-- Administration of many tasks at once: cancel_where and run_now_where.
-- The group is paused, so that no worker has a part in it; attempts are put
-- into the store by hand.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
CREATE ROLE regress_bulk_owner;
CREATE ROLE regress_bulk_user;
CREATE ROLE regress_bulk_other;
INSERT INTO retry.scene_group (name, paused, owner) VALUES ('bulk', true, 'regress_bulk_owner');
INSERT INTO retry.scene (group_name, name, url) VALUES ('bulk', 's', 'http://bulk.example/'), ('bulk', 't', 'http://bulk.example/');

-- what was asked of tasks, by reference
CREATE VIEW pg_temp.asked AS
SELECT t.reference, convert_from(t.body, 'UTF8') AS body, g.action, g.after_attempt, g.asked_by,
	g.lane_hash = t.lane_hash AND g.leaf = t.leaf AND NOT g.inert AND g.xid >= t.xid AS as_for_one, g.due_at
FROM retry.signal g JOIN retry.task t ON t.id = g.task_id JOIN retry.scene s ON s.id = t.scene_id
WHERE s.group_name IN ('bulk', 'default');

-- one of each state, in one leaf of the ring and in the one beside it
SELECT retry.enqueue('bulk/s', '"pending"', reference => 'states') IS NOT NULL AS pending,
	retry.enqueue('bulk/s', '"far"', reference => 'states', delay => '100 days') IS NOT NULL AS far,
	retry.enqueue('bulk/s', '"retrying"', reference => 'states') IS NOT NULL AS retrying,
	retry.enqueue('bulk/s', '"succeeded"', reference => 'states') IS NOT NULL AS succeeded;
SELECT pg_temp.attempt(id, 1, 'failed', 'tomorrow') AS attempts FROM retry.task WHERE reference = 'states' AND body = '"retrying"';
SELECT id FROM retry.task WHERE reference = 'states' AND body = '"succeeded"' \gset
SELECT pg_temp.attempt(:'id', 1, 'failed', 'now'), pg_temp.attempt(:'id', 2, 'succeeded');
SELECT retry.cancel(i) FROM (SELECT retry.enqueue('bulk/s', '"cancelled"', reference => 'states') AS i OFFSET 0) e;
SELECT leaf = 32 AS apart, count(*) FROM retry.task WHERE reference = 'states' GROUP BY 1 ORDER BY 1;

-- run_now_where, then cancel_where: each live task once
BEGIN;
SELECT retry.run_now_where('bulk/s', reference => 'states') AS run;
SELECT body, action, after_attempt, as_for_one, asked_by = current_user::regrole AS by_me, due_at <= clock_timestamp() AS now
FROM pg_temp.asked WHERE reference = 'states' ORDER BY body COLLATE "C";
SELECT retry.cancel_where('bulk/s', reference => 'states') AS cancelled;
SELECT retry.cancel_where('bulk/s', reference => 'states') AS again, retry.run_now_where('bulk/s') AS run;
SELECT body, count(*), bool_and(as_for_one) FROM pg_temp.asked WHERE reference = 'states' AND action = 'c' GROUP BY 1 ORDER BY body COLLATE "C";
SELECT convert_from(body, 'UTF8') AS body, state FROM retry.tasks WHERE reference = 'states' ORDER BY body;
ROLLBACK;
-- the same without the index on references
BEGIN;
SELECT retry.cancel_where('bulk/s') AS cancelled, retry.cancel_where() >= 0 AS all;
SELECT convert_from(body, 'UTF8') AS body, state FROM retry.tasks WHERE reference = 'states' ORDER BY body;
ROLLBACK;
-- rolled back, it was not asked
SELECT count(*) FROM pg_temp.asked WHERE reference = 'states' AND body <> '"cancelled"';

-- filters
SELECT count(retry.enqueue('bulk/s', to_jsonb(g), reference => 'ten', delay => '1 day')) FROM generate_series(1, 10) g;
SELECT retry.enqueue('bulk/t', '11', reference => 'ten', delay => '1 day') AS last \gset
SELECT retry.task_time(id) AS first FROM retry.task WHERE reference = 'ten' AND body = '1' \gset
SELECT retry.task_time(id) AS third FROM retry.task WHERE reference = 'ten' AND body = '3' \gset
SELECT retry.task_time(id) AS fifth FROM retry.task WHERE reference = 'ten' AND body = '5' \gset
BEGIN;
SELECT retry.cancel_where(reference => 'te') AS te, retry.cancel_where('bulk/t', reference => 'states') AS other_scene,
	retry.cancel_where(reference => 'ten', since => 'infinity') AS inf, retry.cancel_where('bulk/s', until => '-infinity') AS before_all,
	retry.cancel_where(reference => 'ten', until => :'first') AS until, retry.cancel_where(until => '2001-01-01') AS long_ago,
	retry.cancel_where(since => clock_timestamp() + interval '1 minute') AS later, retry.cancel_where(since => '294276-01-01') AS far;
SAVEPOINT s;
SELECT retry.cancel_where('bulk/s', :'third', :'fifth') AS third_and_fourth;
SELECT body FROM pg_temp.asked WHERE reference = 'ten' ORDER BY body;
ROLLBACK TO s;
SELECT retry.cancel_where('bulk/s', since => :'third', until => :'fifth', reference => 'ten') AS third_and_fourth;
ROLLBACK TO s;
SELECT retry.cancel_where('bulk/t') AS one_scene;
ROLLBACK TO s;
SELECT retry.cancel_where(reference => 'ten', since => '-infinity', until => 'infinity') AS all_eleven;
ROLLBACK;

-- spread evenly, from now on
BEGIN;
SELECT retry.run_now_where(reference => 'ten', spread => '11 s') AS run;
SELECT body, due_at - min(due_at) OVER () AS due FROM pg_temp.asked WHERE reference = 'ten' ORDER BY due_at;
SELECT min(due_at) BETWEEN now() AND clock_timestamp() AS from_now FROM pg_temp.asked WHERE reference = 'ten';
ROLLBACK;
BEGIN;
SELECT retry.run_now_where('bulk/t', spread => NULL) AS run;
SELECT due_at <= clock_timestamp() AS now FROM pg_temp.asked WHERE reference = 'ten';
ROLLBACK;

-- by group, by the beginning of the key, by the last error
BEGIN;
INSERT INTO retry.scene_group (name, paused) VALUES ('bulk-2', true);
INSERT INTO retry.scene (group_name, name, url) VALUES ('bulk-2', 's', 'http://bulk.example/'), ('bulk-2', 't', 'http://bulk.example/');
CREATE TEMP TABLE made ON COMMIT DROP AS
SELECT retry.enqueue(target, to_jsonb(k), key => k, reference => 'made') AS id, target, k AS key
FROM unnest(ARRAY['bulk/s', 'bulk-2/s', 'bulk-2/t']) target, unnest(ARRAY['a', 'a-1', 'a-2', 'A-3', 'b-%', 'b-_x', 'ä', E'\u00ff-1']) k;
SELECT pg_temp.attempt(id, 1, 'failed', 'tomorrow', 'HTTP 503') AS no FROM made WHERE key = 'a-1' AND target = 'bulk-2/s';
SELECT pg_temp.attempt(id, 1, 'failed', 'tomorrow', 'HTTP 500'), pg_temp.attempt(id, 2, 'failed', 'tomorrow', 'could not connect, 100 % sure') FROM made WHERE key = 'a-2' AND target = 'bulk-2/s';
SELECT pg_temp.attempt(id, 1, 'failed', 'tomorrow', NULL) AS no FROM made WHERE key = 'ä' AND target = 'bulk-2/s';
SELECT pg_temp.attempt(id, 1, 'failed', NULL, 'HTTP 503') AS no FROM made WHERE key = 'b-%' AND target = 'bulk-2/s';
CREATE FUNCTION pg_temp.of(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n	bigint;
	of	text;
BEGIN
	EXECUTE 'SELECT retry.cancel_where(' || call || ')' INTO n;
	SELECT string_agg(replace(m.target, 'bulk-2', '2') || ' ' || m.key, ', ' ORDER BY m.target COLLATE "C", m.key COLLATE "C") INTO of
	FROM retry.signal g JOIN made m ON m.id = g.task_id WHERE g.action = 'c';
	RAISE EXCEPTION USING MESSAGE = n || coalesce(': ' || of, '');
EXCEPTION WHEN raise_exception THEN
	RETURN SQLERRM;
END
$$;
SELECT s AS arguments, pg_temp.of(s)
FROM unnest(ARRAY[
	$$group_name => 'bulk-2', key_prefix => 'a'$$,
	$$key_prefix => 'a-', reference => 'made'$$,
	$$key_prefix => 'a-'$$,
	$$'bulk-2/s', key_prefix => 'b-'$$,
	$$'bulk-2/t', key_prefix => 'b-%'$$,
	$$'bulk-2/t', key_prefix => 'b-_'$$,
	$$group_name => 'bulk-2', key_prefix => 'ä'$$,
	$$group_name => 'bulk-2', key_prefix => 'ÿ'$$,
	$$group_name => 'bulk-2', key_prefix => 'A'$$,
	$$'bulk-2/s', group_name => 'bulk-2', key_prefix => 'a-2'$$,
	$$error => 'HTTP 503'$$,
	$$error => 'HTTP 50_', group_name => 'bulk-2'$$,
	$$error => 'HTTP 500'$$,
	$$'bulk-2/s', error => '%100 \% sure'$$,
	$$'bulk-2/s', error => '%', key_prefix => 'a'$$,
	$$group_name => 'bulk', error => '%'$$]) WITH ORDINALITY t (s, n)
ORDER BY n;
SELECT retry.cancel_where(group_name => 'bulk-2') AS group, retry.cancel_where(group_name => 'default', reference => 'made') AS other_group;
-- with spread they are counted first, by the same filters
ROLLBACK;
BEGIN;
SELECT count(retry.enqueue('bulk/t', key => 'p-' || g, delay => '1 day')) FROM generate_series(1, 10) g;
SELECT retry.run_now_where(group_name => 'bulk', key_prefix => 'p-', spread => '10 s') AS run;
SELECT count(*), max(g.due_at) - min(g.due_at) AS spread FROM retry.signal g JOIN retry.task t ON t.id = g.task_id WHERE t.key LIKE 'p-%';
ROLLBACK;
-- the beginning of a key by index, whatever the collation
BEGIN;
SELECT count(*) FROM retry.enqueue_many('bulk/t', (SELECT array_agg(to_jsonb(g)) FROM generate_series(1, 5000) g),
	(SELECT array_agg('tenant-' || g % 50 || '/' || g) FROM generate_series(1, 5000) g), delay => '1 day');
SELECT retry.cancel_where('bulk/t', key_prefix => 'tenant-7/') AS seven, retry.cancel_where('bulk/t', key_prefix => 'tenant-7') AS none_left,
	retry.cancel_where('bulk/t', key_prefix => 'tenant-4') AS four_and_forties;
ROLLBACK;

-- dead letters: the same, and by reason
BEGIN;
INSERT INTO retry.scene_group (name, paused) VALUES ('bulk-2', true);
INSERT INTO retry.scene (group_name, name, url) VALUES ('bulk-2', 's', 'http://bulk.example/');
SELECT count(pg_temp.die(retry.enqueue(target, key => k), '2020-01-01', e, r))
FROM unnest(ARRAY['bulk/s', 'bulk-2/s']) target,
	(VALUES ('a-1', 'HTTP 503', 'exhausted'::retry.dead_reason), ('a-2', 'HTTP 400', 'stopped'), ('b', NULL, 'expired'), (NULL, 'x', 'gone')) v (k, e, r);
SELECT retry.replay_dead(group_name => 'bulk-2', error => 'HTTP%', reason => 'stopped') AS one;
SELECT d.key, d.reason, d.scene FROM retry.dead_letters d WHERE d.replayed_as IS NOT NULL AND d.scene LIKE 'bulk%';
SELECT retry.replay_dead(group_name => 'bulk-2', key_prefix => 'a') AS one_left, retry.replay_dead('bulk-2/s', error => 'x') AS x;
SELECT retry.replay_dead('bulk-2/s', reason => 'gone') AS already, retry.replay_dead(until => '2020-01-02', key_prefix => 'b') AS of_both,
	retry.replay_dead(group_name => 'bulk', since => '2020-01-02') AS later, retry.replay_dead(group_name => 'bulk', spread => '1 min') AS rest;
ROLLBACK;

-- what cannot be meant
SELECT s AS arguments, r.code, r.message, r.hint
FROM (VALUES (1, $$cancel_where('bulk/none')$$), (2, $$cancel_where('none')$$), (3, $$run_now_where('Bulk/s')$$), (4, $$cancel_where('')$$),
	(5, $$run_now_where('http://bulk.example/')$$), (6, $$run_now_where(spread => '-1 s')$$),
	(7, $$run_now_where(spread => '178000000 years')$$), (8, $$enqueue('bulk/none')$$),
	(9, $$cancel_where('bulk/s', group_name => 'default')$$), (10, $$run_now_where('s', group_name => 'bulk')$$),
	(11, $$cancel_where(group_name => 'no-group')$$), (12, $$cancel_where(group_name => '')$$), (13, $$cancel_where(reference => '')$$),
	(14, $$run_now_where(key_prefix => '')$$), (15, $$run_now_where(error => '')$$), (16, $$cancel_where(error => 'x\')$$),
	(17, $$cancel_where(error => 'x\\')$$), (18, $$cancel_where(key_prefix => E'a\nb')$$), (19, $$cancel_where(key_prefix => repeat('a', 256))$$),
	(20, $$cancel_where(since => '2020-01-02', until => '2020-01-01')$$), (21, $$replay_dead(since => '2020-01-01', until => '2020-01-01')$$),
	(22, $$replay_dead(since => 'infinity', until => '-infinity')$$), (23, $$replay_dead(reason => 'bored')$$),
	(24, $$replay_dead('bulk/s', group_name => 'default')$$), (25, $$replay_dead(group_name => 'no-group')$$), (26, $$replay_dead(error => '')$$)) t (n, s),
	pg_temp.refused('SELECT retry.' || s) r
ORDER BY n;
BEGIN READ ONLY;
SELECT code, message FROM pg_temp.refused($$SELECT retry.cancel_where('bulk/s')$$);
SELECT code, message FROM pg_temp.refused($$SELECT retry.run_now_where('bulk/s')$$);
ROLLBACK;

-- many
SELECT count(*) FROM retry.enqueue_many('bulk/t', (SELECT array_agg(to_jsonb(g)) FROM generate_series(1, 20000) g), reference => 'many', delay => '1 day');
BEGIN;
SELECT retry.cancel_where('bulk/t', reference => 'many') AS cancelled;
SELECT count(*), count(DISTINCT body), bool_and(as_for_one) AS as_for_one FROM pg_temp.asked WHERE reference = 'many';
ROLLBACK;
BEGIN;
SELECT retry.run_now_where('bulk/t', since => '2001-01-01', spread => '1 hour') AS run;
SELECT count(DISTINCT due_at), max(due_at) - min(due_at) BETWEEN '59 min 59 s' AND '1 hour' AS spread FROM pg_temp.asked WHERE reference IN ('many', 'ten');
ROLLBACK;

--
-- Who may
--
SELECT retry.grant('regress_bulk_user', 'bulk'), retry.grant('regress_bulk_user', 'default'), retry.grant('regress_bulk_other', 'default');
INSERT INTO retry.scene (name, url, paused) VALUES ('bulk-shared', 'http://bulk.example/', true);
SET ROLE regress_bulk_user;
SELECT retry.enqueue('bulk-shared', '"user"', reference => 'shared') IS NOT NULL AS enqueued;
SET ROLE regress_bulk_other;
SELECT retry.enqueue('bulk-shared', '"other"', reference => 'shared') IS NOT NULL AS enqueued;
-- not of a group that was not granted, and no word about it
SELECT code, message, hint FROM pg_temp.refused($$SELECT retry.cancel_where('bulk/s')$$);
SELECT code, message FROM pg_temp.refused($$SELECT retry.run_now_where('bulk/none')$$);
SELECT code, message FROM pg_temp.refused($$SELECT retry.cancel_where(group_name => 'bulk')$$);
SELECT code, message FROM pg_temp.refused($$SELECT retry.replay_dead(group_name => 'bulk')$$);
SELECT retry.cancel_where(group_name => 'default', reference => 'ten') AS none, retry.cancel_where(reference => 'ten') AS of_others, retry.run_now_where(reference => 'states') AS of_others;
-- in the group default only its own
BEGIN;
SELECT retry.run_now_where(reference => 'shared') AS run, retry.cancel_where('bulk-shared') AS cancelled, retry.cancel_where() AS none_left;
RESET ROLE;
SELECT body, action, asked_by FROM pg_temp.asked WHERE reference = 'shared' ORDER BY action;
ROLLBACK;
-- one that was granted a group has all of it
SET ROLE regress_bulk_user;
BEGIN;
SELECT retry.cancel_where() AS granted_and_own;
RESET ROLE;
SELECT reference, count(*) FROM pg_temp.asked WHERE action = 'c' AND asked_by = 'regress_bulk_user'::regrole GROUP BY 1 ORDER BY 1;
ROLLBACK;
RESET ROLE;
-- members have what their role has
GRANT regress_bulk_other TO regress_bulk_user;
SET ROLE regress_bulk_user;
BEGIN;
SELECT retry.cancel_where('bulk-shared') AS own_and_others;
ROLLBACK;
-- the owner has all, and the superuser
SET ROLE regress_bulk_owner;
BEGIN;
SELECT retry.cancel_where() AS of_the_group;
ROLLBACK;
RESET ROLE;
BEGIN;
SELECT retry.cancel_where('bulk-shared') AS both;
ROLLBACK;
SELECT count(*) FROM pg_temp.asked WHERE NOT (reference = 'states' AND body = '"cancelled"') AND reference IN ('states', 'ten', 'many', 'shared');

SELECT retry.revoke('regress_bulk_user', 'default'), retry.revoke('regress_bulk_other', 'default');
SELECT retry.cancel_where('bulk-shared') AS shared, retry.cancel_where('bulk/s') AS s, retry.cancel_where('bulk/t') AS t;
DELETE FROM retry.scene WHERE group_name = 'bulk' OR name = 'bulk-shared';
UPDATE retry.scene_group SET owner = current_user::regrole WHERE name = 'bulk';
DROP ROLE regress_bulk_owner, regress_bulk_user, regress_bulk_other;
