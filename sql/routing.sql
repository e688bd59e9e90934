--
-- Routing: what targets a scene may have, and how bad ones are refused
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS retry;
RESET client_min_messages;
\pset format unaligned
\pset null '(null)'

CREATE FUNCTION pg_temp.refused(statement text, OUT code text, OUT message text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	code := '00000';
	message := 'not refused';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
END
$$;

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
