--
-- Routing: what targets a scene may have, and how bad ones are refused
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
\pset format unaligned
\pset null '(null)'

INSERT INTO retry.scene_group (name, paused) VALUES ('routing', true);
INSERT INTO retry.scene (group_name, name, targets) VALUES
	('routing', 'work', ARRAY['http://a.example/x', 'https://b.example weight=1000', 'http://[::1]:8080/y  weight=2']);

-- each is refused, by the column's name and the value
SELECT left(v, 120) AS value, r.code, left(r.message, 200) AS message, r.hint
FROM (VALUES
	(1, '{}'), (2, '{NULL}'), (3, '{http://a.example,NULL}'), (4, '{""}'), (5, '{a.example}'),
	(6, '{ftp://a.example}'), (7, '{sql:public.f}'), (8, '{routing/work}'), (9, '{" http://a.example"}'),
	(10, '{http://a.example weight=0}'), (11, '{http://a.example weight=1001}'), (12, '{http://a.example weight=x}'),
	(13, '{http://a.example weight=}'), (14, '{http://a.example weight=1 weight=2}'), (15, '{http://a.example share=1}'),
	(16, '{http://a.example,http://b.example,http://a.example weight=3}'), (17, '{{http://a.example},{http://b.example}}'),
	(18, '{http://user:secret@a.example}'), (19, '{http://a.example,weight=3}'),
	(20, (SELECT array_agg('http://a.example/' || i) FROM generate_series(1, 257) i)::text)
) AS t (n, v),
pg_temp.refused(format('UPDATE retry.scene SET targets = %L WHERE name = ''work''', v)) AS r
ORDER BY n;
SELECT s AS statement, r.code, r.message
FROM (VALUES
	(1, $$UPDATE retry.scene SET url = 'http://c.example' WHERE name = 'work'$$),
	(2, $$INSERT INTO retry.scene (group_name, name, url, targets) VALUES ('routing', 'both', 'http://a.example', '{http://b.example}')$$),
	(3, $$INSERT INTO retry.scene (group_name, name, url, route) VALUES ('routing', 'all', 'http://a.example', 'all')$$),
	(4, $$UPDATE retry.scene SET route = 'best' WHERE name = 'work'$$)
) AS t (n, s), pg_temp.refused(s) AS r
ORDER BY n;
SELECT cardinality(targets) AS targets, route FROM retry.scene WHERE name = 'work';
SELECT retry.check_targets(NULL), retry.check_targets((SELECT array_agg('http://a.example/' || i || ' weight=' || i) FROM generate_series(1, 256) i));

-- the lane: the scene's, unless the task brings a URL or names one
SELECT retry.enqueue('routing/work', '"routed"', reference => 'r') IS NOT NULL AND
	retry.enqueue('routing/work', '"own url"', reference => 'r', url => 'http://own.example/x') IS NOT NULL AND
	retry.enqueue('routing/work', '"named"', reference => 'r', lane => 'mine') IS NOT NULL AS enqueued;
SELECT convert_from(body, 'UTF8') AS body, url, lane FROM retry.tasks WHERE reference = 'r' ORDER BY created_at, id;
UPDATE retry.scene SET max_in_flight = 3 WHERE name = 'work';
SELECT retry.enqueue('routing/work', '"own url, limited scene"', reference => 'r2', url => 'http://own.example/x') IS NOT NULL AS enqueued;
SELECT convert_from(body, 'UTF8') AS body, url, lane FROM retry.tasks WHERE reference = 'r2';
SELECT count(DISTINCT lane_hash) FROM retry.task WHERE reference LIKE 'r%' AND scene_id = (SELECT id FROM retry.scene WHERE name = 'work');

-- Fan-out: a task for each target, with a common parent
INSERT INTO retry.scene (group_name, name, targets, route) VALUES
	('routing', 'all', ARRAY['http://a.example/x', 'http://b.example/y weight=7', 'http://c.example/z'], 'all');
CREATE VIEW pg_temp.children AS
SELECT CASE parent_id WHEN current_setting('test.p1', true)::uuid THEN 'p1' WHEN current_setting('test.p2', true)::uuid THEN 'p2' ELSE 'other' END AS parent,
	url, lane, key, state, convert_from(body, 'UTF8') AS body
FROM retry.tasks WHERE scene = 'routing/all';
SELECT set_config('test.p1', retry.enqueue('routing/all', '"one"')::text, false) <> '' AS p1;
SELECT * FROM pg_temp.children ORDER BY url;
SELECT count(*) FROM retry.tasks WHERE id = current_setting('test.p1')::uuid;
SELECT count(retry.cancel(id)) FROM retry.tasks WHERE parent_id = current_setting('test.p1')::uuid;

-- with a key: each target's task has it; again, and the same parent comes back
SELECT set_config('test.p1', retry.enqueue('routing/all', '"two"', key => 'k')::text, false) <> '' AS p1;
SELECT retry.enqueue('routing/all', '"again"', key => 'k') = current_setting('test.p1')::uuid AS same;
SELECT * FROM pg_temp.children WHERE key = 'k' ORDER BY url;
SELECT s AS statement, r.code, regexp_replace(r.message, '[0-9a-f]{8}-[-0-9a-f]*', '(id)') AS message
FROM (VALUES (1, $$SELECT retry.enqueue('routing/all', '"again"', key => 'k', on_conflict => 'error')$$)) AS t (n, s), pg_temp.refused(s) AS r;

-- what is missing is made: for a target whose task has ended, and for a new one
SELECT retry.cancel(id) FROM retry.tasks WHERE key = 'k' AND url = 'http://b.example/y';
UPDATE retry.scene SET targets = ARRAY['http://d.example/', 'http://c.example/z', 'http://b.example/y'] WHERE group_name = 'routing' AND name = 'all';
SELECT retry.enqueue('routing/all', '"completed"', key => 'k') = current_setting('test.p1')::uuid AS same;
SELECT * FROM pg_temp.children WHERE key = 'k' ORDER BY url, body;

-- replace makes all anew, and a new parent
SELECT set_config('test.p2', retry.enqueue('routing/all', '"new"', key => 'k', on_conflict => 'replace')::text, false) <> '' AS p2;
SELECT parent, url, state, body FROM pg_temp.children WHERE key = 'k' AND state <> 'cancelled' ORDER BY url, body;

-- when all have ended, a new parent too
SELECT count(retry.cancel(id)) FROM retry.tasks WHERE key = 'k' AND scene = 'routing/all' AND state = 'pending';
SELECT retry.enqueue('routing/all', '"fresh"', key => 'k') NOT IN (current_setting('test.p1')::uuid, current_setting('test.p2')::uuid) AS new_parent;

-- many at once: one parent a payload, the same one for the same key
CREATE TEMP TABLE parents AS
SELECT p, n FROM retry.enqueue_many('routing/all', ARRAY['1', '2', '3', '4']::jsonb[], ARRAY['m1', NULL, 'm2', 'm1']) WITH ORDINALITY AS e (p, n);
SELECT array_agg(n ORDER BY n) AS payloads, count(DISTINCT p) AS parents FROM parents GROUP BY p ORDER BY 1;
SELECT p.n, count(*), count(DISTINCT t.url) AS targets, min(t.key) AS key, min(convert_from(t.body, 'UTF8')) AS body
FROM parents p JOIN retry.tasks t ON t.parent_id = p.p WHERE p.n < 4 GROUP BY 1 ORDER BY 1;
SELECT p = (SELECT p FROM parents WHERE n = 3) AS same FROM retry.enqueue_many('routing/all', ARRAY['5']::jsonb[], ARRAY['m2']) AS e (p);

-- lanes: named by the caller; with a limit, one for each origin of the scene
SELECT count(retry.enqueue('routing/all', '"named"', lane => 'mine'));
UPDATE retry.scene SET max_in_flight = 2 WHERE group_name = 'routing' AND name = 'all';
SELECT count(retry.enqueue('routing/all', '"limited"'));
SELECT body, url, lane FROM pg_temp.children WHERE body IN ('"named"', '"limited"') ORDER BY body DESC, url;

-- a task with a URL of its own is one task; a call goes to all
SELECT retry.enqueue('routing/all', '"own"', url => 'http://own.example/') AS own \gset
SELECT parent_id, url FROM retry.tasks WHERE id = :'own';
SELECT state, attempts FROM retry.call('routing/all', '"called"');
SELECT count(*) FROM pg_temp.children WHERE body = '"called"';

-- nothing is stored by half
BEGIN;
SELECT retry.enqueue('routing/all', '"never"') IS NOT NULL AS enqueued;
ROLLBACK;
SELECT count(*) FROM pg_temp.children WHERE body = '"never"';
