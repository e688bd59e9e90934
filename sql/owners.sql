--
-- Members of a group's owner look after its scenes and overrides themselves,
-- and come near nothing of others by it.
--
SET client_min_messages = warning;
CREATE ROLE regress_owners_shop;
CREATE ROLE regress_owners_bank;
CREATE ROLE regress_owners_ops;
CREATE ROLE regress_owners_clerk;
INSERT INTO retry.scene_group (name, owner) VALUES ('own-shop', 'regress_owners_shop'), ('own-bank', 'regress_owners_bank');
INSERT INTO retry.scene (group_name, name, url, headers) VALUES
	('own-shop', 'order', 'http://127.0.0.1:9/order', NULL),
	('own-bank', 'payment', 'http://127.0.0.1:9/payment', '{"X-Token": "of the bank"}');
INSERT INTO retry.lane_override (group_name, lane, paused) VALUES ('own-bank', 'vault', true);

-- what is seen, whatever is called with it
CREATE FUNCTION owners_peek(text) RETURNS boolean LANGUAGE plpgsql STRICT COST 0.0000001 AS
$$ BEGIN IF $1 LIKE '%bank%' THEN RAISE WARNING 'seen: %', $1; END IF; RETURN true; END $$;
SET ROLE regress_owners_shop;
SELECT group_name, name FROM retry.scene s WHERE owners_peek(s::text);
SELECT name FROM retry.scene_group g WHERE owners_peek(g::text);
SELECT count(*) FROM retry.lane_override o WHERE owners_peek(o::text);
SELECT g ->> 'name' AS name, jsonb_array_length(g -> 'scenes') AS scenes
FROM jsonb_path_query(retry.export_config(), '$.groups[*]') g;

-- what is its own it may change
INSERT INTO retry.scene (group_name, name, url, on_dead) VALUES ('own-shop', 'mail', 'http://127.0.0.1:9/mail', 'own-shop/order');
UPDATE retry.scene SET max_attempts = 3, paused = true RETURNING group_name, name;
UPDATE retry.scene SET name = 'orders' WHERE name = 'order';
SELECT name, on_dead FROM retry.scene ORDER BY name;
UPDATE retry.scene_group SET paused = true, description = 'of the shop' RETURNING name;
INSERT INTO retry.lane_override (group_name, lane, max_in_flight) VALUES ('own-shop', 'tills', 2);
SELECT retry.reset_lane('own-shop', 'tills');
UPDATE retry.lane_override SET paused = true RETURNING lane, reset_at IS NOT NULL AS reset;
SELECT * FROM retry.import_config(jsonb_set(retry.export_config(), '{groups,0,scenes,0,max_attempts}', '4'));
SELECT retry.drop_lane_override('own-shop', 'tills'), retry.drop_lane_override('own-shop', 'tills');
SELECT retry.enqueue('own-shop/mail', '{}', delay => '20 days') AS id \gset
SELECT retry.drop_scene('own-shop/mail') AS gone;
SELECT retry.cancel(:'id');
UPDATE retry.scene SET archived = false WHERE name = 'mail';

-- and not what is of others, or weighs it against others
\set VERBOSITY terse
INSERT INTO retry.scene (group_name, name, url) VALUES ('own-bank', 'mine', 'http://127.0.0.1:9/');
INSERT INTO retry.scene (name, url) VALUES ('mine', 'http://127.0.0.1:9/');
INSERT INTO retry.scene (group_name, name, url) VALUES ('default', 'default', 'http://127.0.0.1:9/');
INSERT INTO retry.scene (id, group_name, name) VALUES (1000000, 'own-shop', 'taken');
UPDATE retry.scene SET group_name = 'own-bank' WHERE name = 'mail';
UPDATE retry.scene SET priority = 'high';
UPDATE retry.scene SET weight = 100;
UPDATE retry.scene_group SET owner = 'regress_owners_shop';
UPDATE retry.scene_group SET name = 'own-shops';
INSERT INTO retry.scene_group (name) VALUES ('own-mine');
INSERT INTO retry.lane_override (group_name, lane) VALUES ('own-bank', 'vault');
SELECT retry.reset_lane('own-bank', 'vault');
SELECT retry.drop_lane_override('own-bank', 'vault');
SELECT retry.drop_scene('own-bank/payment');
SELECT retry.drop_scene('own-bank/nothing');
SELECT retry.drop_scene('Own/Bank');
SELECT retry.export_config('own-bank');
SELECT * FROM retry.import_config('{"retry": "1.0", "groups": [{"name": "own-bank", "paused": true}]}');
DELETE FROM retry.scene;
TRUNCATE retry.lane_override;
-- callbacks into another's scene, and functions that would run as whoever enqueues
UPDATE retry.scene SET on_dead = 'own-bank/payment' WHERE name = 'mail';
SET check_function_bodies = off;
UPDATE retry.scene SET on_dead = 'own-bank/payment' WHERE name = 'mail';
UPDATE retry.scene SET url = 'sql:public.owners_run' WHERE name = 'mail';
UPDATE retry.scene SET on_dead = 'sql:public.owners_run' WHERE name = 'mail';
RESET check_function_bodies;
-- whether another's secret is a key is not told
INSERT INTO retry.scene (group_name, name, url, secret) VALUES ('own-bank', 'x', 'http://127.0.0.1:9/', 'token');
SELECT retry.check_secret('own-bank', 'token', false);
-- nobody is held up by a lock on a whole table
BEGIN;
LOCK TABLE retry.scene IN ROW SHARE MODE;
ROLLBACK;
BEGIN;
LOCK TABLE retry.scene_group IN SHARE MODE;
ROLLBACK;
BEGIN;
LOCK TABLE retry.lane_override IN ROW EXCLUSIVE MODE;
ROLLBACK;
-- nor are trigger functions of retry of use on a table of one's own
CREATE TEMP TABLE owners_table (group_name text, name text);
CREATE TRIGGER t BEFORE INSERT ON owners_table FOR EACH ROW EXECUTE FUNCTION retry.archive_scene();
CREATE TRIGGER t AFTER INSERT ON owners_table FOR EACH ROW EXECUTE FUNCTION retry.config_changed();
DROP TABLE owners_table;
RESET ROLE;

-- Who may use a group does not own it, nor does who was given nothing.
SELECT retry.grant('regress_owners_clerk', 'own-shop');
SET ROLE regress_owners_clerk;
SELECT count(*) FROM retry.scene;
UPDATE retry.scene SET paused = false;
INSERT INTO retry.scene (group_name, name, url) VALUES ('own-shop', 'mine', 'http://127.0.0.1:9/');
SELECT retry.drop_scene('own-shop/mail');
RESET ROLE;

-- A privilege on the whole table is for all rows of it.
GRANT SELECT, INSERT, UPDATE, DELETE ON retry.scene, retry.lane_override TO regress_owners_ops;
SET ROLE regress_owners_ops;
WITH u AS (UPDATE retry.scene SET weight = 2 WHERE group_name LIKE 'own-%' RETURNING group_name, name) SELECT * FROM u ORDER BY 1, 2;
INSERT INTO retry.lane_override (group_name, lane) VALUES ('own-shop', 'by ops');
DELETE FROM retry.lane_override WHERE group_name LIKE 'own-%' RETURNING group_name, lane;
SELECT count(*) FROM retry.scene_group;
-- but not to act as whoever enqueues
UPDATE retry.scene SET url = 'sql:public.owners_run' WHERE name = 'mail' AND group_name = 'own-shop';
RESET ROLE;

-- What a function gets that runs as another role, only members of that role change.
CREATE FUNCTION owners_run(jsonb) RETURNS void LANGUAGE sql AS '';
UPDATE retry.scene_group SET paused = true WHERE name = 'own-shop';
SET ROLE regress_owners_clerk;
SELECT retry.enqueue('own-shop/mail', '{"do": "good"}', url => 'http://127.0.0.1:9/', delay => '20 days') AS by_http \gset
RESET ROLE;
UPDATE retry.scene SET url = 'sql:public.owners_run' WHERE name = 'mail' AND group_name = 'own-shop';
SET ROLE regress_owners_clerk;
SELECT retry.enqueue('own-shop/mail', '{"do": "good"}', delay => '20 days') AS by_scene \gset
RESET ROLE;
UPDATE retry.scene SET url = NULL WHERE name = 'mail' AND group_name = 'own-shop';
SET ROLE regress_owners_clerk;
SELECT retry.enqueue('own-shop/mail', '{"do": "good"}', url => 'sql:public.owners_run', delay => '20 days') AS by_url \gset
SET ROLE regress_owners_shop;
SELECT retry.amend(:'by_url', '{"payload": {"do": "evil"}}');
SELECT retry.amend(:'by_url', '{"body": "ZXZpbA=="}');
SELECT retry.amend_where('{"payload": {"do": "evil"}}', 'own-shop/mail');
SELECT retry.amend(:'by_url', '{"url": "sql:public.owners_run"}');
SELECT retry.amend(:'by_http', '{"url": "sql:public.owners_run"}');
SELECT retry.amend(:'by_url', '{"max_attempts": 2}'), retry.amend(:'by_http', '{"payload": {"do": "other"}}');
SELECT retry.enqueue('own-shop/mail', '{"do": "good"}', url => 'sql:public.owners_run', delay => '20 days') AS own_url \gset
SELECT retry.amend(:'own_url', '{"payload": {"do": "better"}}');
RESET ROLE;
UPDATE retry.scene SET url = 'sql:public.owners_run' WHERE name = 'mail' AND group_name = 'own-shop';
SET ROLE regress_owners_shop;
SELECT retry.amend(:'by_scene', '{"payload": {"do": "evil"}}');
RESET ROLE;
SELECT convert_from(body, 'UTF8'), count(*) FROM retry.tasks WHERE scene = 'own-shop/mail' AND state = 'pending' GROUP BY 1 ORDER BY 1;

SELECT retry.cancel_where(group_name => 'own-shop') AS cancelled;
DROP FUNCTION owners_peek(text), owners_run(jsonb);
DROP OWNED BY regress_owners_ops;
DROP ROLE regress_owners_shop, regress_owners_bank, regress_owners_ops, regress_owners_clerk;
