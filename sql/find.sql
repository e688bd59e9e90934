--
-- retry.find(): tasks by a key, a reference or an id.  The groups are paused, so
-- that no worker has a part in it; attempts are put into the store by hand.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
CREATE ROLE regress_find_owner;
CREATE ROLE regress_find_other;
CREATE ROLE regress_find_one;
CREATE ROLE regress_find_two;
UPDATE retry.scene_group SET paused = true WHERE name = 'default';
INSERT INTO retry.scene_group (name, paused, owner) VALUES ('find', true, 'regress_find_owner');
INSERT INTO retry.scene (group_name, name, url) VALUES ('find', 's', 'http://find.example/'), ('find', 't', 'http://find.example/');
SELECT retry.grant('regress_find_one', 'default'), retry.grant('regress_find_two', 'default');

-- one task of each state but running, and one in the leaf of what is due in long; the same key in two scenes
SELECT retry.enqueue('find/' || scene, '{}', key => 'find-' || key, reference => 'find',
	delay => CASE key WHEN 'late' THEN interval '100 days' END) IS NOT NULL AS enqueued
FROM unnest(ARRAY['pending', 'retrying', 'succeeded', 'dead', 'cancelled', 'late']) key, unnest(ARRAY['s', 't']) scene \g /dev/null
SELECT pg_temp.attempt(id, 1, 'failed', now() + interval '1 day') FROM retry.task WHERE key = 'find-retrying' \g /dev/null
SELECT pg_temp.attempt(id, 1, 'succeeded') FROM retry.task WHERE key = 'find-succeeded' \g /dev/null
SELECT pg_temp.die(id) FROM retry.task WHERE key = 'find-dead' \g /dev/null
SELECT retry.cancel(id) FROM retry.task WHERE key = 'find-cancelled' \g /dev/null
SELECT count(DISTINCT leaf) AS leaves, count(*) FILTER (WHERE leaf = 32) AS in_the_long_one FROM retry.task WHERE reference = 'find';
-- of a group that roles share, each its own, under the same key and reference
SET ROLE regress_find_one;
SELECT retry.enqueue('http://find.example/', '{}', key => 'find-shared', reference => 'find-shared') IS NOT NULL AS enqueued;
SET ROLE regress_find_two;
SELECT retry.enqueue('http://find.example/two', '{}', key => 'find-two', reference => 'find-shared') IS NOT NULL AS enqueued;
RESET ROLE;
-- a reference in so many leaves that all are looked at together
CREATE TEMP TABLE days AS SELECT t.*, n AS day FROM retry.task t, generate_series(1, 6) n WHERE t.key = 'find-pending' AND t.scene_id =
	(SELECT id FROM retry.scene WHERE group_name = 'find' AND name = 's');
UPDATE days SET key = 'find-day-' || day, reference = 'find-days', leaf = (leaf + day) % 32,
	id = (lpad(to_hex((extract(epoch FROM retry.task_time(id) + day * interval '1 day') * 1000)::bigint), 12, '0') || right(replace(id::text, '-', ''), 20))::uuid;
ALTER TABLE days DROP COLUMN day;
INSERT INTO retry.task SELECT * FROM days;
-- a dead letter whose task has gone with its leaf
CREATE TEMP TABLE gone AS SELECT * FROM retry.dead_letter WHERE key = 'find-dead' LIMIT 1;
UPDATE gone SET id = '01000000-0000-7000-8000-000000000000', key = 'find-gone', reference = 'find-gone';
INSERT INTO retry.dead_letter SELECT * FROM gone;

SET ROLE regress_find_owner;
SELECT scene, state FROM retry.find('find-retrying') ORDER BY 1;
SELECT scene, key, state FROM retry.find(reference => 'find') ORDER BY 1, 2;
SELECT key, state FROM retry.find(reference => 'find-days') ORDER BY 1;
SELECT key, state FROM retry.find(id => '01000000-0000-7000-8000-000000000000');
SELECT count(*) FROM retry.find(id => '01000000-0000-7000-8000-000000000001');
SELECT count(*) FROM retry.find('none');
RESET ROLE;

-- each role is shown what the view shows it, row by row
CREATE TEMP TABLE asked (way text, value text);
INSERT INTO asked SELECT DISTINCT 'key', key FROM retry.task WHERE key LIKE 'find-%' UNION SELECT DISTINCT 'reference', reference
FROM retry.task WHERE key LIKE 'find-%' UNION SELECT 'id', id::text FROM retry.task WHERE key LIKE 'find-%'
UNION VALUES ('key', 'find-gone'), ('reference', 'find-gone'), ('id', '01000000-0000-7000-8000-000000000000');
GRANT SELECT ON asked TO PUBLIC;
CREATE FUNCTION pg_temp.compared(OUT way text, OUT found bigint, OUT missing bigint, OUT others bigint)
RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
	a		record;
BEGIN
	CREATE TEMP TABLE seen ON COMMIT DROP AS SELECT ''::text AS by_way, ''::text AS by_value, t.* FROM retry.tasks t WHERE false;
	CREATE TEMP TABLE shown ON COMMIT DROP AS TABLE seen;
	FOR a IN TABLE asked LOOP
		EXECUTE format('INSERT INTO seen SELECT %L, %L, t.* FROM retry.find(%I => %L) t', a.way, a.value, a.way, a.value);
	END LOOP;
	-- by index: tasks of other tests are many
	INSERT INTO shown SELECT 'key', t.key, t.* FROM retry.tasks t WHERE t.key = ANY (ARRAY(SELECT value FROM asked x WHERE x.way = 'key'));
	INSERT INTO shown SELECT 'reference', t.reference, t.* FROM retry.tasks t
	WHERE t.reference = ANY (ARRAY(SELECT value FROM asked x WHERE x.way = 'reference'));
	INSERT INTO shown SELECT 'id', t.id, t.* FROM retry.tasks t WHERE t.id = ANY (ARRAY(SELECT value::uuid FROM asked x WHERE x.way = 'id'));
	RETURN QUERY
		SELECT w, (SELECT count(*) FROM seen s WHERE s.by_way = w),
			(SELECT count(*) FROM (TABLE shown EXCEPT ALL TABLE seen) x WHERE x.by_way = w),
			(SELECT count(*) FROM (TABLE seen EXCEPT ALL TABLE shown) x WHERE x.by_way = w)
		FROM unnest(ARRAY['key', 'reference', 'id']) w;
END
$$;
SELECT * FROM pg_temp.compared();
SET ROLE regress_find_owner;
SELECT * FROM pg_temp.compared();
SET ROLE regress_find_one;
SELECT * FROM pg_temp.compared();
SELECT key, url FROM retry.find(reference => 'find-shared');
SET ROLE regress_find_other;
SELECT * FROM pg_temp.compared();
RESET ROLE;

-- a snapshot shows what it did before
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM retry.find('find-new');
SELECT retry.enqueue('find/s', '{}', key => 'find-new') IS NOT NULL AS enqueued;
SELECT state FROM retry.find('find-new');
ROLLBACK;
SELECT count(*) FROM retry.find('find-new');

-- what is refused
SELECT pg_temp.said('SELECT retry.find()');
SELECT pg_temp.said('SELECT retry.find(''a'', ''b'')');
SELECT pg_temp.said('SELECT retry.find(id => NULL)');
UPDATE retry.scene_group SET paused = false WHERE name = 'default';
