--
-- Limits of groups: who sets them, what is refused, and that it is refused to
-- one group alone. What needs dispatchers is in test/t/076_limits.pl.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
SET client_min_messages = warning;
\pset format unaligned
\pset tuples_only on
CREATE ROLE regress_limits;
CREATE ROLE regress_limits_ops;
GRANT SELECT, INSERT, UPDATE ON retry.scene_group TO regress_limits_ops;
INSERT INTO retry.scene_group (name, owner, paused) VALUES ('lim', 'regress_limits', true), ('free', 'regress_limits', true);
INSERT INTO retry.scene (group_name, name, url) SELECT g, 's', 'https://example.com/' FROM unnest('{lim,free}'::text[]) g;

-- Values that are none.
SELECT pg_temp.said(format('UPDATE retry.scene_group SET %s WHERE name = ''lim''', change))
FROM unnest('{max_pending = -1,max_lanes = -1,max_enqueue_rate = ''0/s'',max_body_size = -1,max_headers = -1,max_headers_size = -1}'::text[]) change;

-- The owner of the group does not set them, nor who may change all groups; the extension's owner does.
SET ROLE regress_limits;
SELECT pg_temp.said('UPDATE retry.scene_group SET max_body_size = NULL WHERE name = ''lim''');
SET ROLE regress_limits_ops;
SELECT pg_temp.said(format('UPDATE retry.scene_group SET %s WHERE name = ''lim''', change))
FROM unnest('{max_pending = 10,max_lanes = 10,max_enqueue_rate = ''1/s'',max_body_size = 10,max_headers = 1,max_headers_size = 10,allowed_hosts = NULL}'::text[]) change;
SELECT pg_temp.said('INSERT INTO retry.scene_group (name, owner, max_headers) VALUES (''ops'', ''regress_limits_ops'', 1000)');
SELECT pg_temp.said($$SELECT * FROM retry.import_config('{"retry": "1.0", "groups": [{"name": "lim", "max_headers": 1000}]}')$$);
RESET ROLE;
UPDATE retry.scene_group SET max_body_size = 20, max_headers = 2, max_headers_size = 16 WHERE name = 'lim';
SET ROLE regress_limits_ops;
SELECT pg_temp.said('UPDATE retry.scene_group SET max_headers = NULL WHERE name = ''lim''');
SELECT pg_temp.said('UPDATE retry.scene_group SET description = ''other'' WHERE name = ''lim''');
RESET ROLE;

-- Bodies and headers, by each way in.
SET ROLE regress_limits;
SELECT pg_temp.said(format('SELECT retry.enqueue(''lim/s'', %s)', what)) FROM (VALUES
	(1, $$to_jsonb(repeat('x', 18))$$), (2, $$to_jsonb(repeat('x', 19))$$), (3, $$body => repeat('x', 20)::bytea$$), (4, $$body => repeat('x', 21)::bytea$$),
	(5, $$headers => '{"A": "1", "B": "2"}'$$), (6, $$headers => '{"A": "1", "B": "2", "C": "3"}'$$),
	(7, $$headers => '{"A": "345678", "B": "23456789"}'$$), (8, $$headers => '{"A": "345678", "B": "234567890"}'$$),
	(9, $$headers => '{}'$$), (10, '''1''')) v(n, what) ORDER BY n;
SELECT pg_temp.said($$SELECT retry.enqueue_many('lim/s', '{1,"\"345678901234567890\"",3}')$$);
SELECT pg_temp.said($$SELECT retry.enqueue_many('lim/s', '{1,"\"3456789012345678901\"",3}')$$);
SELECT pg_temp.said($$SELECT retry.enqueue_many('lim/s', '{1}', headers => '{"A": "1", "B": "2", "C": "3"}')$$);
SELECT pg_temp.said($$SELECT retry.call('lim/s', to_jsonb(repeat('x', 19)), mode => 'remote')$$);
SELECT retry.enqueue('lim/s', '1', key => 'k') AS id \gset
SELECT pg_temp.said(format('SELECT retry.amend(%L, %L)', :'id', changes)) FROM (VALUES
	(1, '{"payload": "345678901234567890"}'), (2, '{"payload": "3456789012345678901"}'), (3, '{"body": "MTIzNDU2Nzg5MDEyMzQ1Njc4OTA="}'),
	(4, '{"body": "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAx"}'), (5, '{"headers": {"A": "1", "B": "2", "C": "3"}}'), (6, '{"headers": {"A": "345678", "B": "234567890"}}'),
	(7, '{"headers": null, "body": null}'), (8, '{"headers": {"A": "1"}}')) v(n, changes) ORDER BY n;
SELECT pg_temp.said(format($$SELECT retry.amend_where('{"payload": "3456789012345678901"}', target => 'lim/s')$$));
SELECT pg_temp.said($$UPDATE retry.scene SET headers = '{"A": "1", "B": "2", "C": "3"}' WHERE group_name = 'lim'$$);
SELECT pg_temp.said($$UPDATE retry.scene SET headers = '{"A": "345678", "B": "234567890"}' WHERE group_name = 'lim'$$);
SELECT pg_temp.said($$UPDATE retry.scene SET headers = '{"A": "345678", "B": "23456789"}' WHERE group_name = 'lim'$$);

-- Another group of the same owner feels nothing.
SELECT pg_temp.said($$SELECT retry.enqueue('free/s', to_jsonb(repeat('x', 1000)), headers => '{"A": "1", "B": "2", "C": "3333333333333333333333"}')$$);
RESET ROLE;

-- What is stored is left alone when a limit comes, or gets lower, and a replay is as it was.
BEGIN;
UPDATE retry.scene_group SET max_body_size = 0, max_headers = 0 WHERE name = 'lim';
SELECT pg_temp.said($$SELECT retry.enqueue('lim/s', '1')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('lim/s')$$);
SELECT pg_temp.said(format('SELECT retry.amend(%L, ''{"max_attempts": 7}'')', :'id'));
SELECT retry.cancel(:'id');
SELECT pg_temp.said(format('SELECT retry.replay(%L)', :'id'));
ROLLBACK;

-- They travel with documents.
SELECT g - 'scenes' - 'owner' FROM jsonb_array_elements(retry.export_config('lim') -> 'groups') g;
SELECT change FROM retry.import_config(jsonb_set(retry.export_config('lim'), '{groups,0,max_body_size}', '21')) WHERE kind = 'group';
SELECT change FROM retry.import_config('{"retry": "1.0", "groups": [{"name": "lim", "max_body_size": null}]}') WHERE kind = 'group';
SELECT max_body_size, max_headers, max_headers_size FROM retry.scene_group WHERE name = 'lim';
UPDATE retry.scene_group SET max_headers = NULL, max_headers_size = NULL WHERE name = 'lim';

-- Unfinished tasks: what waits counts, in the transaction that stores it too, and no longer when that is undone.
INSERT INTO retry.scene_group (name, owner, paused, max_pending) VALUES ('few', 'regress_limits', true, 5);
INSERT INTO retry.scene (group_name, name, url, targets, route) VALUES
	('few', 's', 'https://example.com/', NULL, 'hash'), ('few', 'all', NULL, '{https://a.example.com/,https://b.example.com/}', 'all');
CREATE FUNCTION pg_temp.use() RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', pending, 'of', max_pending, 'refused', refused) FROM retry.limits WHERE group_name = 'few' $$;
SET ROLE regress_limits;
SELECT pg_temp.said($$SELECT retry.enqueue_many('few/s', '{1,2,3}')$$);
SELECT pg_temp.use();
SELECT pg_temp.said($$SELECT retry.enqueue_many('few/s', '{4,5,6}')$$);
SELECT pg_temp.said($$SELECT retry.enqueue_many('few/all', '{4,5}')$$);
SELECT pg_temp.use();
BEGIN;
SELECT pg_temp.said($$SELECT retry.enqueue('few/s', '4')$$);
SAVEPOINT a;
SELECT pg_temp.said($$SELECT retry.enqueue('few/s', '5')$$);
SAVEPOINT b;
SELECT pg_temp.said($$SELECT retry.enqueue('few/s', '6')$$);
SELECT pg_temp.use();
RELEASE b;
ROLLBACK TO a;
SELECT pg_temp.use();
SELECT pg_temp.said($$SELECT retry.enqueue('few/s', '5')$$);
ROLLBACK;
SELECT pg_temp.use();
SELECT pg_temp.said($$SELECT retry.enqueue('few/s', '4', key => 'k')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('few/s', '5')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('few/s', '4', key => 'k')$$);	-- no new one
SELECT pg_temp.said($$SELECT retry.call('few/s', '6')$$);
SELECT pg_temp.said($$SELECT retry.call('few/s', '6', mode => 'remote')$$);
SELECT pg_temp.said($$SELECT retry.schedule('few', '* * * * *', 'few/s')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('free/s', '1')$$);
RESET ROLE;
SELECT count(*) FROM retry.task t JOIN retry.scene s ON s.id = t.scene_id WHERE s.group_name = 'few';

-- The limit can be raised and dropped; a replay counts as any task.
UPDATE retry.scene_group SET max_pending = 6 WHERE name = 'few';
SELECT pg_temp.said($$SELECT retry.enqueue('few/s', '6')$$);
SELECT id FROM retry.tasks WHERE scene = 'few/s' AND key = 'k' \gset
BEGIN;
UPDATE retry.scene_group SET max_pending = 1 WHERE name = 'few';
SELECT retry.cancel(:'id');
SELECT pg_temp.said(format('SELECT retry.replay(%L)', :'id'));
UPDATE retry.scene_group SET max_pending = NULL WHERE name = 'few';
SELECT pg_temp.said(format('SELECT retry.replay(%L)', :'id'));
SELECT pg_temp.said($$SELECT retry.enqueue_many('few/s', array_fill('1'::jsonb, ARRAY[1000]))$$);
ROLLBACK;

-- How fast: a second's worth at once, or the burst; what was taken stays taken.
UPDATE retry.scene_group SET max_pending = NULL, max_enqueue_rate = '4/d burst 4' WHERE name = 'few';
SELECT pg_temp.said($$SELECT retry.enqueue_many('few/s', '{1,2,3,4,5}')$$);
SELECT pg_temp.said($$SELECT retry.enqueue_many('few/s', '{1,2,3}')$$);
SELECT enqueue_left FROM retry.limits WHERE group_name = 'few';
BEGIN;
SELECT pg_temp.said($$SELECT retry.enqueue('few/s', '1')$$);
ROLLBACK;
SELECT regexp_replace(pg_temp.said($$SELECT retry.enqueue('few/s', '1')$$), '\d+ ms', 'N ms');
SELECT pg_temp.said(format('SELECT retry.cancel(%L), retry.replay(%1$L)', :'id'));
UPDATE retry.scene_group SET max_enqueue_rate = '100/s' WHERE name = 'few';
SELECT pg_temp.said($$SELECT retry.enqueue_many('few/s', array_fill('1'::jsonb, ARRAY[101]))$$);
UPDATE retry.scene_group SET max_enqueue_rate = NULL WHERE name = 'few';
SELECT pg_temp.said($$SELECT retry.enqueue_many('few/s', array_fill('1'::jsonb, ARRAY[101]))$$);

-- Lanes: those that have unfinished tasks, by each way in, and given back with what is undone.
INSERT INTO retry.scene_group (name, owner, paused, max_lanes) VALUES ('wide', 'regress_limits', true, 3);
INSERT INTO retry.scene (group_name, name, url, targets, route, lane_by) VALUES
	('wide', 's', 'https://example.com/', NULL, 'hash', NULL), ('wide', 'keys', 'https://example.com/', NULL, 'hash', 'key'),
	('wide', 'all', NULL, '{https://a.example.com/,https://b.example.com/}', 'all', NULL);
CREATE FUNCTION pg_temp.lanes() RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', lanes, 'of', max_lanes, 'refused', refused) FROM retry.limits WHERE group_name = 'wide' $$;
SET ROLE regress_limits;
SELECT pg_temp.said($$SELECT retry.enqueue('wide/s', '1', lane => 'a'), retry.enqueue('wide/s', '2', lane => 'a')$$);
SELECT pg_temp.lanes();
BEGIN;
SELECT pg_temp.said($$SELECT retry.enqueue('wide/s', '1', lane => 'b')$$);
SAVEPOINT a;
SELECT pg_temp.said($$SELECT retry.enqueue('wide/s', '1')$$);
SAVEPOINT b;
SELECT pg_temp.said($$SELECT retry.enqueue('wide/s', '1', lane => 'c')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('wide/s', '1', url => 'https://c.example.com/')$$);
RELEASE b;
SELECT pg_temp.lanes();
ROLLBACK TO a;
SELECT pg_temp.lanes();
SELECT pg_temp.said($$SELECT retry.enqueue('wide/s', '1', lane => 'c')$$);
ROLLBACK;
SELECT pg_temp.lanes();
SELECT pg_temp.said($$SELECT retry.enqueue_many('wide/keys', '{1,2,3}', keys => '{k1,k2,k3}')$$);
SELECT pg_temp.lanes();
SELECT pg_temp.said($$SELECT retry.enqueue_many('wide/keys', '{1,2,3,4}', keys => '{k1,k2,k1,k2}')$$);
SELECT pg_temp.lanes();
SELECT pg_temp.said($$SELECT retry.enqueue('wide/keys', '5', key => 'k1')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('wide/all', '1')$$);
SELECT pg_temp.said($$SELECT retry.call('wide/s', '1', lane => 'c')$$);
SELECT pg_temp.said($$SELECT retry.call('wide/s', '1', lane => 'a', mode => 'remote')$$);
SELECT pg_temp.said($$SELECT retry.schedule('wide', '* * * * *', 'wide/s')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('free/s', '1', lane => 'c')$$);
SELECT pg_temp.lanes();
RESET ROLE;
SELECT count(*), count(DISTINCT lane_hash) FROM retry.task t JOIN retry.scene s ON s.id = t.scene_id WHERE s.group_name = 'wide';
-- many savepoints, and many tasks in each
DO $$
BEGIN
	FOR i IN 1 .. 300 LOOP
		BEGIN
			PERFORM retry.enqueue('wide/s', '1', lane => CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' || i END);
			IF i % 3 = 0 THEN
				RAISE EXCEPTION division_by_zero;
			END IF;
		EXCEPTION WHEN configuration_limit_exceeded OR division_by_zero THEN
			NULL;
		END;
	END LOOP;
END
$$;
SELECT lanes FROM retry.limits WHERE group_name = 'wide';
SELECT id FROM retry.tasks WHERE scene = 'wide/keys' AND key = 'k2' \gset
BEGIN;
UPDATE retry.scene_group SET max_lanes = 1 WHERE name = 'wide';
SELECT pg_temp.said($$SELECT retry.enqueue('wide/s', '3', lane => 'a')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('wide/s', '3', lane => 'c')$$);
UPDATE retry.scene_group SET max_lanes = NULL WHERE name = 'wide';
SELECT pg_temp.said($$SELECT retry.enqueue('wide/s', '3', lane => 'c')$$);
ROLLBACK;

-- A message is in no lane before its commit, and its group must have room for that: else it is undecided, and its check asks.
BEGIN;
SET LOCAL ROLE regress_limits;
SELECT retry.prepare('wide/s', '1', lane => 'm', check_target => 'free/s') AS message \gset
SELECT retry.prepare('wide/s', '1', lane => 'a', check_target => 'free/s') AS known_lane \gset
SELECT pg_temp.said(format('SELECT retry.commit(%L)', :'message'));
SELECT pg_temp.said(format('SELECT retry.commit(%L)', :'known_lane'));
RESET ROLE;
UPDATE retry.scene_group SET max_lanes = 4, max_pending = 0 WHERE name = 'wide';
SELECT substr(pg_temp.said(format('SELECT retry.commit(%L)', :'message')), 1, 5);
SELECT t.state, b.op, b.state FROM retry.transactions t JOIN retry.branches b USING (gid) WHERE t.gid IN (:'message', :'known_lane') ORDER BY t.gid, b.op;
UPDATE retry.scene_group SET max_pending = NULL WHERE name = 'wide';
SELECT pg_temp.said(format('SELECT retry.commit(%L)', :'message'));
SELECT lanes FROM retry.limits WHERE group_name = 'wide';
ROLLBACK;
SELECT lanes FROM retry.limits WHERE group_name = 'wide';

-- Who sees what is used.
UPDATE retry.scene_group SET max_pending = 10000, max_enqueue_rate = '10/s burst 100' WHERE name = 'few';
SET ROLE regress_limits;
SELECT group_name, max_pending, max_enqueue_rate FROM retry.limits ORDER BY 1;
SET ROLE regress_limits_ops;
SELECT count(*) FROM retry.limits;
RESET ROLE;
SELECT count(*) FROM retry.limits WHERE group_name NOT IN ('lim', 'few', 'wide');

SELECT retry.cancel_where(target => 'lim/s') > 0, retry.cancel_where(target => 'free/s'), retry.cancel_where(target => 'few/s') > 0,
	retry.cancel_where(target => 'wide/s') > 0;
REVOKE ALL ON retry.scene_group FROM regress_limits_ops;
DROP ROLE regress_limits_ops;
