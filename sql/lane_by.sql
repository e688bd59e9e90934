--
-- Which lane a task goes into: by what its scene says, and what is known of the
-- task.  The group is paused, so that nothing is sent while it is looked at.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
INSERT INTO retry.scene_group (name, paused) VALUES ('lb', true);
CREATE FUNCTION pg_temp.hash(group_id int, kind text, name text) RETURNS bigint LANGUAGE sql AS $$
	SELECT ('x' || encode(substr(sha256(int4send(group_id) || convert_to(kind || name, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint
$$;

-- each task with the kind of its lane: what its number was made of
CREATE VIEW pg_temp.lanes AS
SELECT t.id, t.xid, s.name AS scene, t.key, t.reference, t.url, convert_from(t.body, 'UTF8') AS body, t.lane,
	CASE t.lane_hash
		WHEN pg_temp.hash(g.id, 'n', t.lane) THEN 'named'
		WHEN pg_temp.hash(g.id, 's', s.id::text) THEN 'scene'
		WHEN pg_temp.hash(g.id, 'o', retry.origin(coalesce(t.url, s.url))) THEN 'origin'
		WHEN pg_temp.hash(g.id, 't', s.id || ' ' || retry.origin(coalesce(t.url, s.url))) THEN 'scene and origin'
		WHEN pg_temp.hash(g.id, 'k', s.id || ' ' || t.key) THEN 'key'
		WHEN pg_temp.hash(g.id, 'k', s.id || ' ' || retry.origin(t.url) || ' ' || t.key) THEN 'origin and key'
		WHEN pg_temp.hash(g.id, 'r', s.id || ' ' || t.reference) THEN 'reference'
		WHEN pg_temp.hash(g.id, 'r', s.id || ' ' || retry.origin(t.url) || ' ' || t.reference) THEN 'origin and reference'
	END AS kind
FROM retry.task t JOIN retry.scene s ON s.id = t.scene_id JOIN retry.scene_group g ON g.name = s.group_name
WHERE g.name = 'lb';
CREATE FUNCTION pg_temp.lane_of(task uuid) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s: %s', kind, coalesce(lane, '(none)')) FROM pg_temp.lanes WHERE id = task
$$;

-- null: the origin's, unless the scene needs lanes of its own
INSERT INTO retry.scene (group_name, name, url) VALUES ('lb', 's', 'http://a.example/');
CREATE FUNCTION pg_temp.with_setting(setting text, OUT its_url text, OUT own_url text, OUT named text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('UPDATE retry.scene SET %s WHERE group_name = ''lb'' AND name = ''s''', setting);
	SELECT pg_temp.lane_of(retry.enqueue('lb/s')),
		pg_temp.lane_of(retry.enqueue('lb/s', url => 'http://b.example/')),
		pg_temp.lane_of(retry.enqueue('lb/s', lane => 'mine', key => gen_random_uuid()::text, reference => 'lr'))
		INTO its_url, own_url, named;
	-- as a new scene is
	DELETE FROM retry.scene WHERE group_name = 'lb' AND name = 'fresh';
	INSERT INTO retry.scene (group_name, name, url) VALUES ('lb', 'fresh', 'http://a.example/');
	UPDATE retry.scene s SET (lane_by, max_in_flight, ordered, dead_head, priority, weight, adaptive, hedge,
			breaker_ratio, breaker_calls, breaker_window, breaker_open, retry_share, retry_floor) =
		(f.lane_by, f.max_in_flight, f.ordered, f.dead_head, f.priority, f.weight, f.adaptive, f.hedge,
			f.breaker_ratio, f.breaker_calls, f.breaker_window, f.breaker_open, f.retry_share, f.retry_floor)
		FROM retry.scene f WHERE s.group_name = 'lb' AND s.name = 's' AND f.group_name = 'lb' AND f.name = 'fresh';
END
$$;
SELECT setting, w.* FROM unnest(ARRAY['description = ''none''', 'dead_head = ''block''', 'max_in_flight = 3', 'ordered = true',
	'priority = ''high''', 'weight = 2', 'adaptive = true', 'hedge = true', 'breaker_ratio = 0.4', 'breaker_ratio = NULL',
	'breaker_calls = 21', 'breaker_window = ''31 s''', 'breaker_open = ''6 s''', 'breaker_open = ''5 s''', 'retry_share = 0.3',
	'retry_share = NULL', 'retry_floor = 11',
	'lane_by = ''origin''', 'lane_by = ''origin'', ordered = true', 'lane_by = ''origin'', weight = 2',
	'lane_by = ''scene''', 'lane_by = ''scene'', weight = 2']) AS setting, pg_temp.with_setting(setting) AS w;

-- key and reference; without one, the scene's
INSERT INTO retry.scene (group_name, name, url, lane_by) VALUES
	('lb', 'bykey', 'http://a.example/', 'key'), ('lb', 'byref', 'http://a.example/', 'reference');
SELECT how, pg_temp.lane_of(id) AS lane FROM (VALUES
	(1, 'key', retry.enqueue('lb/bykey', key => 'A 1', reference => 'lr')),
	(2, 'key, own URL', retry.enqueue('lb/bykey', key => 'A 2', url => 'http://b.example/')),
	(3, 'no key', retry.enqueue('lb/bykey', reference => 'lr')),
	(4, 'no key, own URL', retry.enqueue('lb/bykey', reference => 'lr', url => 'http://b.example/')),
	(5, 'reference', retry.enqueue('lb/byref', key => 'A 1', reference => 'order 17')),
	(6, 'reference, own URL', retry.enqueue('lb/byref', reference => 'order 17', url => 'http://b.example/')),
	(7, 'no reference', retry.enqueue('lb/byref', key => 'A 2')),
	(8, 'named', retry.enqueue('lb/byref', reference => 'order 17', lane => 'mine'))) AS v (n, how, id) ORDER BY n;
SELECT count(*), count(DISTINCT lane_hash) AS lanes FROM retry.task WHERE reference = 'order 17' AND lane LIKE 'byref %';

-- the same value means different lanes in different scenes
INSERT INTO retry.scene (group_name, name, url, lane_by) VALUES ('lb', 'byref2', 'http://a.example/', 'reference');
SELECT count(retry.enqueue(s, reference => 'order 17')) FROM unnest(ARRAY['lb/byref', 'lb/byref2']) AS s;
SELECT count(DISTINCT lane_hash) AS lanes FROM retry.task WHERE reference = 'order 17' AND lane LIKE 'byref%';

-- a batch: each key its lane; one reference for all
SELECT id AS m FROM retry.enqueue_many('lb/bykey', ARRAY['1', '2', '3']::jsonb[], ARRAY['n1', NULL, 'n2']) AS e (id) LIMIT 1 \gset
SELECT key, lane, kind FROM pg_temp.lanes WHERE xid = (SELECT xid FROM retry.task WHERE id = :'m') ORDER BY id;
SELECT id AS m FROM retry.enqueue_many('lb/byref', ARRAY['1', '2']::jsonb[], reference => 'order 18') AS e (id) LIMIT 1 \gset
SELECT lane, kind FROM pg_temp.lanes WHERE xid = (SELECT xid FROM retry.task WHERE id = :'m') ORDER BY id;

-- a generated key is a key
UPDATE retry.scene SET generate_key = true WHERE group_name = 'lb' AND name = 'bykey';
SELECT regexp_replace(pg_temp.lane_of(retry.enqueue('lb/bykey', '"generated"')), '[0-9a-f]{20,}', '(digest)') AS lane;

-- targets: the scene's lane, whatever is called in the end
INSERT INTO retry.scene (group_name, name, targets, lane_by) VALUES
	('lb', 'routed', '{http://a.example/,http://b.example/}', NULL),
	('lb', 'routed_o', '{http://a.example/,http://b.example/}', 'origin'),
	('lb', 'routed_r', '{http://a.example/,http://b.example/}', 'reference');
SELECT s AS scene, pg_temp.lane_of(retry.enqueue('lb/' || s, reference => 'lr1')) AS no_url,
	pg_temp.lane_of(retry.enqueue('lb/' || s, reference => 'lr1', url => 'http://c.example/')) AS own_url,
	pg_temp.lane_of(retry.enqueue('lb/' || s)) AS no_reference
FROM unnest(ARRAY['routed', 'routed_o', 'routed_r']) AS s;

-- a fan-out: each target has lanes of its own, unless the scene wants one
INSERT INTO retry.scene (group_name, name, targets, route, lane_by, ordered)
SELECT 'lb', format('all_%s%s', coalesce(b, 'need'), CASE WHEN o THEN '_o' END), '{http://a.example/x,http://b.example/y}', 'all', b, o
FROM unnest(ARRAY[NULL, 'origin', 'scene', 'key', 'reference']) AS b, unnest(ARRAY[false, true]) AS o;
SELECT count(retry.enqueue('lb/' || name, key => 'k1', reference => 'lr1')), count(retry.enqueue('lb/' || name))
FROM retry.scene WHERE group_name = 'lb' AND name LIKE 'all%';
SELECT count(*) FROM retry.enqueue_many('lb/all_key', ARRAY['1', '2']::jsonb[], ARRAY['k2', NULL]);
SELECT scene, url, key IS NOT NULL AS "values", count(*), string_agg(DISTINCT format('%s: %s', kind, coalesce(lane, '(none)')), ', ') AS lane
FROM pg_temp.lanes WHERE scene LIKE 'all%' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

-- a replay stays in the lane
SELECT id FROM pg_temp.lanes WHERE lane = 'byref order 18' ORDER BY id LIMIT 1 \gset
SELECT pg_temp.die(:'id');
UPDATE retry.scene SET lane_by = 'scene' WHERE group_name = 'lb' AND name = 'byref';
SELECT pg_temp.lane_of(retry.replay(:'id')), pg_temp.lane_of(retry.enqueue('lb/byref', reference => 'order 18'));

-- what cannot be
UPDATE retry.scene SET lane_by = 'url' WHERE group_name = 'lb' AND name = 's';
