--
-- Groups and scenes: what the tables take and refuse, and how they travel as
-- one document.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
SET intervalstyle = 'postgres_verbose';
\pset format unaligned
SET client_min_messages = warning;
CREATE ROLE regress_config_owner;
CREATE ROLE "regress_config Odd";

-- Each constraint says which column has which value.
INSERT INTO retry.scene_group (name, owner) VALUES ('conf', 'regress_config_owner');
INSERT INTO retry.scene (group_name, name, url) VALUES ('conf', 'one', 'http://127.0.0.1:9/one');
SELECT change, r.code, r.message, r.at_column
FROM (VALUES
	(1, $$name = 'Upper'$$),
	(2, $$name = ''$$),
	(3, $$name = repeat('x', 64)$$),
	(4, $$name = NULL$$),
	(5, $$group_name = 'nosuch'$$),
	(6, $$url = 'ftp://host/'$$),
	(7, $$route = 'nearest'$$),
	(8, $$method = 'post'$$),
	(9, $$method = 'GE T'$$),
	(10, $$headers = '{"Host": "x"}'$$),
	(11, $$headers = '[]'$$),
	(12, $$timeout = '0'$$),
	(13, $$timeout = '1 h 1 s'$$),
	(14, $$timeout = NULL$$),
	(15, $$connect_timeout = '-1 s'$$),
	(16, $$max_attempts = 0$$),
	(17, $$max_attempts = 1000001$$),
	(18, $$expires_after = '0'$$),
	(19, $$time_budget = '-1 day'$$),
	(20, $$pending_interval = '31 days'$$),
	(21, $$pending_limit = 0$$),
	(22, $$key_window = '31 days'$$),
	(23, $$max_in_flight = 0$$),
	(24, $$resume_over = '-1 s'$$),
	(25, $$backoff = 'sometimes'$$),
	(26, $$success_when = '$.a ==='$$),
	(27, $$paused = NULL$$)
) AS t (n, change), pg_temp.refused('UPDATE retry.scene SET ' || change || $$ WHERE group_name = 'conf'$$) r
ORDER BY n;
SELECT change, r.code, r.message, r.at_column
FROM (VALUES
	(1, $$name = 'No'$$),
	(2, $$resume_over = '31 days'$$),
	(3, $$owner = 'regress_config_nobody'$$),
	(4, $$owner = NULL$$),
	(5, $$owner = 0$$),
	(6, $$owner = 1234567$$)
) AS t (n, change), pg_temp.refused('UPDATE retry.scene_group SET ' || change || $$ WHERE name = 'conf'$$) r
ORDER BY n;
SELECT r.* FROM pg_temp.refused($$INSERT INTO retry.scene (group_name, name, max_attempts) VALUES ('conf', 'two', 0)$$) r;
-- what comes first in one statement is refused with it
SELECT r.message FROM pg_temp.refused($$INSERT INTO retry.scene (group_name, name, timeout) VALUES ('conf', 'two', '1 s'), ('conf', 'three', '2 h')$$) r;
SELECT name FROM retry.scene WHERE group_name = 'conf';

-- What is built in stays, under its name.
SELECT statement, r.code, r.message, r.hint
FROM (VALUES
	(1, $$DELETE FROM retry.scene WHERE group_name = 'default' AND name = 'default'$$),
	(2, $$DELETE FROM retry.scene_group WHERE name = 'default'$$),
	(3, $$UPDATE retry.scene SET name = 'other' WHERE group_name = 'default' AND name = 'default'$$),
	(4, $$UPDATE retry.scene SET group_name = 'conf' WHERE group_name = 'default' AND name = 'default'$$),
	(5, $$UPDATE retry.scene_group SET name = 'other' WHERE name = 'default'$$)
) AS t (n, statement), pg_temp.refused(statement) r
ORDER BY n;

-- A scene that nothing refers to is deleted; one that tasks refer to is
-- archived, and its group stays as long.
INSERT INTO retry.scene (group_name, name) VALUES ('conf', 'unused');
DELETE FROM retry.scene WHERE group_name = 'conf' AND name = 'unused';
SELECT retry.enqueue('conf/one', '{}', delay => '1 day') AS id \gset
DELETE FROM retry.scene WHERE group_name = 'conf';
SELECT name, archived, deleted_at IS NOT NULL AS deleted FROM retry.scene WHERE group_name = 'conf';
SELECT state FROM retry.tasks WHERE id = :'id';
SELECT r.code, r.message, r.hint FROM pg_temp.refused($$SELECT retry.enqueue('conf/one')$$) r;
SELECT r.* FROM pg_temp.refused($$DELETE FROM retry.scene_group WHERE name = 'conf'$$) r;
DELETE FROM retry.scene WHERE group_name = 'conf';
SELECT jsonb_pretty(retry.export_config('conf'));
UPDATE retry.scene SET archived = false WHERE group_name = 'conf';
SELECT name, archived, deleted_at IS NOT NULL AS deleted FROM retry.scene WHERE group_name = 'conf';
SELECT retry.enqueue('conf/one', '{}', delay => '1 day') IS NOT NULL AS enqueued;
-- only a DELETE means that it may go
UPDATE retry.scene SET archived = true WHERE group_name = 'conf';
SELECT archived, deleted_at IS NOT NULL AS deleted FROM retry.scene WHERE group_name = 'conf';
-- the triggers that act for the owner do so for retry's own tables only
CREATE TEMP TABLE forged (id int, group_name text, name text, paused boolean, resume_over interval, resumed_at timestamptz);
INSERT INTO forged SELECT id, group_name, name FROM retry.scene;
CREATE TRIGGER forged BEFORE DELETE ON forged FOR EACH ROW EXECUTE FUNCTION retry.archive_scene();
SELECT r.code, r.message FROM pg_temp.refused('DELETE FROM forged') r;
CREATE TRIGGER forged_resumption AFTER UPDATE ON forged FOR EACH ROW EXECUTE FUNCTION retry.resumed();
SELECT r.code, r.message FROM pg_temp.refused('UPDATE forged SET paused = false') r;
DROP TABLE forged;

-- Renaming: tasks follow, and so do scenes with their group.
UPDATE retry.scene SET name = 'first', archived = false WHERE group_name = 'conf';
UPDATE retry.scene_group SET name = 'renamed' WHERE name = 'conf';
SELECT scene, state FROM retry.tasks WHERE id = :'id';
SELECT retry.enqueue('renamed/first', '{}', delay => '1 day') IS NOT NULL AS enqueued;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.enqueue('conf/one')$$) r;
UPDATE retry.scene_group SET name = 'conf' WHERE name = 'renamed';
UPDATE retry.scene SET name = 'one' WHERE group_name = 'conf';

-- resumed_at is the server's.
UPDATE retry.scene SET paused = true, resumed_at = '2001-01-01' WHERE group_name = 'conf';
SELECT resumed_at FROM retry.scene WHERE group_name = 'conf';
UPDATE retry.scene SET paused = false WHERE group_name = 'conf';
SELECT resumed_at FROM retry.scene WHERE group_name = 'conf';
SELECT count(*) FROM retry.signal WHERE task_id IN (SELECT id FROM retry.tasks WHERE scene = 'conf/one');
UPDATE retry.scene SET paused = true, resume_over = '10 s' WHERE group_name = 'conf';
UPDATE retry.scene SET paused = false, resumed_at = '2001-01-01' WHERE group_name = 'conf';
SELECT resumed_at BETWEEN now() - interval '1 min' AND clock_timestamp() AS resumed FROM retry.scene WHERE group_name = 'conf';
SELECT count(*) AS due_before FROM retry.signal WHERE task_id IN (SELECT id FROM retry.tasks WHERE scene = 'conf/one');
INSERT INTO retry.scene (group_name, name, resumed_at) VALUES ('conf', 'fresh', '2001-01-01') RETURNING resumed_at;
DELETE FROM retry.scene WHERE name = 'fresh';

-- So is order_ended_at: of a scene, and of its group when it is a lane that is no longer ordered.
UPDATE retry.scene SET ordered = true, order_ended_at = '2001-01-01' WHERE group_name = 'conf';
SELECT order_ended_at FROM retry.scene WHERE group_name = 'conf';
UPDATE retry.scene SET ordered = false, order_ended_at = '2001-01-01' WHERE group_name = 'conf';
SELECT order_ended_at BETWEEN now() - interval '1 min' AND clock_timestamp() AS ended FROM retry.scene WHERE group_name = 'conf';
CREATE FUNCTION pg_temp.ended(statement text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	before	timestamptz := clock_timestamp();
BEGIN
	EXECUTE statement;
	RETURN coalesce((SELECT g.order_ended_at >= before FROM retry.scene_group g WHERE g.name = 'conf'), false);
END
$$;
SELECT pg_temp.ended($$INSERT INTO retry.lane_override (group_name, lane, ordered) VALUES ('conf', 'a', true), ('conf', 'b', NULL)$$) AS made,
	pg_temp.ended($$UPDATE retry.lane_override SET weight = 2 WHERE lane = 'a'$$) AS weighed,
	pg_temp.ended($$UPDATE retry.lane_override SET ordered = false WHERE lane = 'a'$$) AS switched_off,
	pg_temp.ended($$UPDATE retry.lane_override SET ordered = true WHERE lane = 'a'$$) AS switched_on,
	pg_temp.ended($$UPDATE retry.lane_override SET lane = 'c' WHERE lane = 'a'$$) AS of_another_lane,
	pg_temp.ended($$UPDATE retry.lane_override SET ordered = false WHERE lane = 'b'$$) AS excepted,
	pg_temp.ended($$DELETE FROM retry.lane_override WHERE lane = 'b'$$) AS no_longer_excepted,
	pg_temp.ended($$DELETE FROM retry.lane_override WHERE lane = 'c'$$) AS gone;
SELECT count(*) AS audited FROM retry.audit a WHERE a::text ~ 'order_ended_at';
-- a group is renamed with its ordered lanes
INSERT INTO retry.lane_override (group_name, lane, ordered) VALUES ('conf', 'd', true);
UPDATE retry.scene_group SET name = 'renamed' WHERE name = 'conf';
UPDATE retry.scene_group SET name = 'conf' WHERE name = 'renamed';
DELETE FROM retry.lane_override WHERE lane = 'd' RETURNING group_name, ordered;
-- all of them at once, and not for good
BEGIN;
SELECT pg_temp.ended('TRUNCATE retry.lane_override') AS truncated;
ROLLBACK;
INSERT INTO retry.scene_group (name, order_ended_at) VALUES ('fresh', '2001-01-01') RETURNING order_ended_at;
DELETE FROM retry.scene_group WHERE name = 'fresh';

-- A whole configuration as a document, and back.
UPDATE retry.scene_group SET owner = '"regress_config Odd"', paused = true, resume_over = '1 h', description = 'it''s "odd"' WHERE name = 'conf';
INSERT INTO retry.scene (group_name, name, targets, route, method, headers, timeout, backoff, max_attempts, expires_after,
	success_status, success_when, pending_limit, generate_key, max_in_flight, archived, description)
VALUES ('conf', 'full', ARRAY['http://127.0.0.1:9/a', 'http://127.0.0.1:10/b weight=3'], 'round_robin', 'PUT',
	'{"X-A": "b", "X-C": ""}', '1.5 s', 'levels 10s,1m jitter 10%', 7, '1 mon 2 days', '200,202', '$.ok == true', NULL, true, 5, true, 'all');
SELECT jsonb_pretty(retry.export_config('conf'));
SELECT retry.export_config('conf') AS doc \gset
SELECT (SELECT array_agg(a.attname::text ORDER BY a.attname::text) FROM pg_attribute a
	WHERE a.attrelid = 'retry.scene'::regclass AND a.attnum > 0 AND NOT a.attisdropped
		AND NOT :'doc'::jsonb #> '{groups,0,scenes,0}' ? a.attname::text) AS not_exported;
SELECT * FROM retry.import_config(:'doc');
SELECT xmin::text || ctid::text AS version FROM retry.scene WHERE name = 'full' \gset
SELECT count(*) FILTER (WHERE change <> 'left') AS changed, count(*) > 4 AS some FROM retry.import_config(retry.export_config());
SELECT xmin::text || ctid::text = :'version' AS untouched FROM retry.scene WHERE name = 'full';
SET IntervalStyle = 'iso_8601';
SELECT retry.export_config('conf') = :'doc' AS same;
SELECT * FROM retry.import_config(:'doc');
RESET IntervalStyle;

-- Elsewhere, where there is nothing: the same again. Order does not matter.
DELETE FROM retry.scene WHERE name = 'full';
INSERT INTO retry.scene (group_name, name, description) VALUES ('conf', 'untouched', 'not in the document');
SELECT * FROM retry.import_config(:'doc');
SELECT * FROM retry.import_config(jsonb_set(:'doc', '{groups,0,name}', '"copy"'));
SELECT (retry.export_config('copy') #> '{groups,0,scenes}') = (:'doc'::jsonb #> '{groups,0,scenes}') AS same;
DELETE FROM retry.scene WHERE group_name = 'copy' OR name = 'untouched';
DELETE FROM retry.scene_group WHERE name = 'copy';
SELECT * FROM retry.import_config('{"retry": "1.0", "groups": [{"name": "callers", "scenes": [
	{"name": "a", "url": "http://127.0.0.1:9/a", "on_success": "callers/b", "on_dead": "callers/c"},
	{"name": "c", "url": "http://127.0.0.1:9/c"},
	{"name": "b", "url": "http://127.0.0.1:9/b", "on_dead": "callers/c"}]}]}');
SELECT name, on_success, on_dead, max_attempts FROM retry.scene WHERE group_name = 'callers' ORDER BY name;
-- a member that is not there is left as it is, null is null, another value is another
UPDATE retry.scene SET max_attempts = 3, description = 'x' WHERE group_name = 'callers' AND name = 'a';
SELECT * FROM retry.import_config('{"retry": "1.0", "groups": [{"name": "callers", "scenes": [
	{"name": "a", "on_success": null, "description": null, "timeout": "60 s"}, {"name": "b", "on_dead": "callers/c"}]}]}');
SELECT name, on_success, on_dead, max_attempts, timeout, description FROM retry.scene WHERE group_name = 'callers' ORDER BY name;
SELECT * FROM retry.import_config('{"retry": "1.0", "groups": []}');

-- What is wrong is refused, whole, with group, scene, column and value.
CREATE TEMP TABLE before AS SELECT retry.export_config() AS doc;
SELECT n, r.code, r.message, r.detail, r.hint, r.at_column
FROM (VALUES
	(1, 'null'), (2, '[]'), (3, '{}'), (4, '{"retry": "2.0", "groups": []}'), (5, '{"retry": 1.0, "groups": []}'),
	(6, '{"retry": "1.0"}'), (7, '{"retry": "1.0", "groups": {}}'), (8, '{"retry": "1.0", "groups": [], "x": 1}'),
	(9, '{"retry": "1.0", "groups": [7]}'),
	(10, '{"retry": "1.0", "groups": [{}]}'),
	(11, '{"retry": "1.0", "groups": [{"name": 7}]}'),
	(12, '{"retry": "1.0", "groups": [{"name": "bad", "scenes": {}}]}'),
	(13, '{"retry": "1.0", "groups": [{"name": "bad", "scenes": [7]}]}'),
	(14, '{"retry": "1.0", "groups": [{"name": "bad", "scenes": [{"url": "http://a/"}]}]}'),
	(15, '{"retry": "1.0", "groups": [{"name": "bad", "colour": "red"}]}'),
	(16, '{"retry": "1.0", "groups": [{"name": "bad", "id": 7}]}'),
	(17, '{"retry": "1.0", "groups": [{"name": "bad", "owner": "regress_config_nobody"}]}'),
	(18, '{"retry": "1.0", "groups": [{"name": "bad", "owner": "1234567"}]}'),
	(19, '{"retry": "1.0", "groups": [{"name": "bad", "owner": null}]}'),
	(20, '{"retry": "1.0", "groups": [{"name": "Bad"}]}'),
	(21, '{"retry": "1.0", "groups": [{"name": "bad", "paused": "yes"}]}'),
	(22, '{"retry": "1.0", "groups": [{"name": "bad"}, {"name": "bad"}]}')
) AS t (n, doc), pg_temp.refused(format('SELECT retry.import_config(%L)', doc)) r
ORDER BY n;
SELECT scene, r.code, r.message, r.detail, r.hint, r.at_column
FROM (VALUES
	(1, '"colour": "red"'), (2, '"archved": true'), (3, '"created_at": "2001-01-01"'), (4, '"group_name": "x"'),
	(5, '"max_attempts": "5"'), (6, '"max_attempts": 1.5'), (7, '"max_attempts": 0'), (8, '"max_attempts": 99999999999'),
	(9, '"max_attempts": null'),
	(10, '"timeout": 15'), (11, '"timeout": "soon"'), (12, '"timeout": "2 h"'),
	(13, '"paused": 1'), (14, '"backoff": "fixed 30"'), (15, '"backoff": {}'), (16, '"success_when": "$."'),
	(17, '"headers": [1]'), (18, '"headers": "x"'), (19, '"headers": {"Host": "x"}'),
	(20, '"targets": "http://a/"'), (21, '"targets": [1]'), (22, '"targets": [["a"]]'),
	(23, '"url": "nowhere"'), (24, '"route": "nearest"'), (25, '"url": ["a"]')
) AS t (n, scene), pg_temp.refused(format('SELECT retry.import_config(%L)',
	'{"retry": "1.0", "groups": [{"name": "good", "scenes": [{"name": "fine"}, {"name": "bad", ' || scene || '}]}]}')) r
ORDER BY n;
SELECT r.message FROM pg_temp.refused($$SELECT retry.import_config('{"retry": "1.0", "groups": [{"name": "good", "scenes": [{"name": "a"}, {"name": "a"}]}]}')$$) r;
SELECT r.message FROM pg_temp.refused($$SELECT retry.export_config('nosuch')$$) r;
SELECT r.code FROM pg_temp.refused($$SELECT retry.import_config(NULL)$$) r;
SELECT retry.export_config() = doc AS nothing_imported FROM before;

-- Who owns no group reads none so, and imports none.
SET ROLE regress_config_owner;
SELECT retry.export_config();
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.import_config('{"retry": "1.0", "groups": [{"name": "mine"}]}')$$) r;
RESET ROLE;
GRANT SELECT, INSERT, UPDATE ON retry.scene, retry.scene_group, retry.lane_override TO regress_config_owner;
SET ROLE regress_config_owner;
SELECT * FROM retry.import_config('{"retry": "1.0", "groups": [{"name": "mine", "scenes": [{"name": "a"}]}]}');
SELECT retry.export_config('mine') #>> '{groups,0,owner}' AS owner;
RESET ROLE;

-- A group whose owner was dropped is still the same group.
CREATE ROLE regress_config_gone;
INSERT INTO retry.scene_group (name, owner) VALUES ('orphan', 'regress_config_gone');
DROP ROLE regress_config_gone;
SELECT * FROM retry.import_config(retry.export_config('orphan'));
DELETE FROM retry.scene_group WHERE name = 'orphan';

-- A column that a later version adds travels by itself.
BEGIN;
ALTER TABLE retry.scene ADD COLUMN novelty interval NOT NULL DEFAULT '5 s';
SELECT retry.export_config('mine') #> '{groups,0,scenes,0,novelty}' AS novelty;
SELECT * FROM retry.import_config('{"retry": "1.0", "groups": [{"name": "mine", "scenes": [{"name": "a", "novelty": "1 min"}]}]}');
SELECT novelty FROM retry.scene WHERE group_name = 'mine';
ROLLBACK;

SELECT count(retry.cancel(id)) > 0 AS cancelled FROM retry.tasks WHERE scene = 'conf/one' AND state = 'pending';
DELETE FROM retry.scene WHERE group_name IN ('mine', 'callers');
DELETE FROM retry.scene_group WHERE name IN ('mine', 'callers');
REVOKE SELECT, INSERT, UPDATE ON retry.scene, retry.scene_group, retry.lane_override FROM regress_config_owner;
DROP ROLE regress_config_owner;
UPDATE retry.scene_group SET owner = quote_ident(current_user)::regrole WHERE name = 'conf';
DROP ROLE "regress_config Odd";
