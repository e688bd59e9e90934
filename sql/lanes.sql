--
-- Lanes: what the table of overrides takes and refuses, what it leaves behind
-- in the events, how it travels, and who sees what.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
\pset format unaligned
SET client_min_messages = warning;
CREATE ROLE regress_lanes_shop;
CREATE ROLE regress_lanes_nobody;

-- Each constraint says which column of which lane has which value.
INSERT INTO retry.scene_group (name, owner) VALUES ('lanes-shop', 'regress_lanes_shop');
INSERT INTO retry.scene (group_name, name) VALUES ('lanes-shop', 'order');
INSERT INTO retry.lane_override (group_name, lane) VALUES ('lanes-shop', 'http://127.0.0.1:9');
SELECT max_in_flight, rate, ordered, weight, paused, disabled, reset_at FROM retry.lane_override;
SELECT change, r.code, left(r.message, 80) AS message, r.at_column
FROM (VALUES
	(1, $$lane = ''$$),
	(2, $$lane = NULL$$),
	(3, $$lane = repeat('x', 10001)$$),
	(4, $$group_name = 'nosuch'$$),
	(5, $$max_in_flight = 0$$),
	(6, $$max_in_flight = 10001$$),
	(7, $$rate = 'fast'$$),
	(12, $$weight = 0$$),
	(8, $$weight = 101$$),
	(9, $$paused = NULL$$),
	(10, $$disabled = NULL$$),
	(11, $$reset_at = 'infinity'$$)
) AS t (n, change), pg_temp.refused('UPDATE retry.lane_override SET ' || change) r
ORDER BY n;
SELECT r.code, r.message FROM pg_temp.refused($$INSERT INTO retry.lane_override (group_name, lane) VALUES ('lanes-shop', 'http://127.0.0.1:9')$$) r;

-- Pausing, disabling and resetting leave an event each, once, with who did it.
UPDATE retry.lane_override SET paused = true;
UPDATE retry.lane_override SET paused = true, weight = 2;
UPDATE retry.lane_override SET paused = false, disabled = true;
SELECT retry.reset_lane('lanes-shop', 'http://127.0.0.1:9');
SELECT retry.reset_lane('lanes-shop', 'tenant 7');
UPDATE retry.lane_override SET reset_at = reset_at - interval '1 hour' WHERE lane = 'tenant 7';
DELETE FROM retry.lane_override WHERE lane = 'http://127.0.0.1:9';
SELECT kind, group_name, lane, detail = format('by role %I', session_user) AS by_whom, lane_hash, dispatcher
FROM retry.events WHERE group_name = 'lanes-shop' AND kind ^@ 'lane ' ORDER BY at;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.reset_lane('nosuch', 'x')$$) r;

-- Renaming a group renames; deleting it deletes.
UPDATE retry.scene_group SET name = 'lanes-store' WHERE name = 'lanes-shop';
SELECT group_name, lane FROM retry.lane_override;
UPDATE retry.scene_group SET name = 'lanes-shop' WHERE name = 'lanes-store';

-- In documents.
UPDATE retry.lane_override SET max_in_flight = 3, rate = '60/m', ordered = true, weight = 5, description = 'slow one';
SELECT jsonb_pretty(retry.export_config('lanes-shop') #> '{groups,0,lane_overrides}');
SELECT retry.export_config('lanes-shop') AS doc \gset
SELECT * FROM retry.import_config(:'doc');
DELETE FROM retry.lane_override;
SELECT * FROM retry.import_config(:'doc') WHERE kind = 'lane';
SELECT lane, max_in_flight, ordered, weight, reset_at, description FROM retry.lane_override;
SELECT * FROM retry.import_config(jsonb_set(:'doc', '{groups,0,lane_overrides,0,weight}', '7')) WHERE kind = 'lane';
SELECT given, r.code, r.message, r.at_column
FROM (VALUES
	(1, '{"weight": "7"}'),
	(2, '{"weight": 0}'),
	(3, '{"speed": 1}'),
	(4, '{"lane": null}')
) AS t (n, given), pg_temp.refused(format('SELECT retry.import_config(%L)',
	jsonb_set(:'doc', '{groups,0,lane_overrides,0}', :'doc'::jsonb #> '{groups,0,lane_overrides,0}' || given::jsonb))) r
ORDER BY n;
SELECT r.code, r.message FROM pg_temp.refused(format('SELECT retry.import_config(%L)',
	jsonb_set(:'doc', '{groups,0,lane_overrides,1}', :'doc'::jsonb #> '{groups,0,lane_overrides,0}'))) r;
SELECT r.code, r.message FROM pg_temp.refused(format('SELECT retry.import_config(%L)',
	jsonb_set(:'doc', '{groups,0,lane_overrides}', '{}'))) r;
SELECT retry.export_config('default') #> '{groups,0}' ? 'lane_overrides' AS mentioned_without_any;

-- A group's owner sees to its lanes, and no other does.
SET ROLE regress_lanes_shop;
SELECT DISTINCT group_name FROM retry.lane_override;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.reset_lane('default', 'tenant 7')$$) r;
SELECT count(*) FROM retry.events WHERE kind ^@ 'lane ';
RESET ROLE;
GRANT SELECT, INSERT, UPDATE ON retry.lane_override TO regress_lanes_shop;
SET ROLE regress_lanes_shop;
SELECT retry.reset_lane('lanes-shop', 'tenant 7');
UPDATE retry.lane_override SET paused = true;
SELECT kind, lane, detail = format('by role %I', session_user) AS by_session FROM retry.events ORDER BY at DESC LIMIT 2;
RESET ROLE;
-- the trigger that acts for the owner does so for retry's own table only
CREATE TEMP TABLE forged (group_name text, lane text, paused boolean);
CREATE TRIGGER forged AFTER INSERT ON forged FOR EACH ROW EXECUTE FUNCTION retry.override_changed();
SELECT r.code, r.message FROM pg_temp.refused($$INSERT INTO forged VALUES ('default', 'x', true)$$) r;
DROP TABLE forged;

DELETE FROM retry.scene WHERE group_name = 'lanes-shop';
DELETE FROM retry.scene_group WHERE name = 'lanes-shop';
SELECT count(*) FROM retry.lane_override;
DELETE FROM retry.event WHERE kind LIKE 'lane %';
REVOKE ALL ON retry.lane_override FROM regress_lanes_shop;
DROP ROLE regress_lanes_shop, regress_lanes_nobody;
