-- What is refused as a target that is a function, and what of it is stored.
-- Nothing here is run: the group is paused.
SET client_min_messages = warning;
\set VERBOSITY default
CREATE ROLE regress_retry_sql;
CREATE SCHEMA "Odd schema";
CREATE FUNCTION "Odd schema"."Ship ""it"""(jsonb) RETURNS void LANGUAGE sql AS '';
CREATE SCHEMA plain;
CREATE FUNCTION plain.ship(jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION plain.rows(jsonb) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION plain.only_json(json) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION plain.two(jsonb, int DEFAULT 0) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION plain.none() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION plain.trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION plain.any(anyelement) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE plain.proc(jsonb) LANGUAGE sql AS '';
CREATE FUNCTION plain.add(int, jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE plain.agg(jsonb) (SFUNC = plain.add, STYPE = int);

INSERT INTO retry.scene_group (name, paused) VALUES ('sqlt', true);
INSERT INTO retry.scene (group_name, name, url) VALUES ('sqlt', 'here', 'sql:plain.ship');
INSERT INTO retry.scene (group_name, name) VALUES ('sqlt', 'none');

-- texts that name no function
SELECT retry.enqueue('sqlt/none', url => 'sql:');
SELECT retry.enqueue('sqlt/none', url => 'sql:ship');
SELECT retry.enqueue('sqlt/none', url => 'sql:a.b.c');
SELECT retry.enqueue('sqlt/none', url => 'sql:plain.ship(jsonb)');
SELECT retry.enqueue('sqlt/none', url => 'sql:plain."ship');
SELECT retry.enqueue('sqlt/none', url => 'sql:plain.ship; DROP TABLE x');
SELECT retry.enqueue('sql:plain.');
SELECT retry.enqueue('SQL:plain.ship');
SELECT retry.check_url('sql:plain.ship x');

-- functions that cannot be one
SELECT retry.enqueue('sql:nowhere.ship');
SELECT retry.enqueue('sql:plain.nothing');
SELECT retry.enqueue('sql:plain.only_json');
SELECT retry.enqueue('sql:plain.two');
SELECT retry.enqueue('sql:plain.none');
SELECT retry.enqueue('sql:plain.trigger');
SELECT retry.enqueue('sql:plain.any');
SELECT retry.enqueue('sql:plain.proc');
SELECT retry.enqueue('sql:plain.agg');
SELECT retry.enqueue('sql:plain.Ship"');
SELECT retry.enqueue('sql:plain."Ship"');

-- what means nothing to a function
SELECT retry.enqueue('sqlt/here', body => 'x');
SELECT retry.enqueue('sqlt/here', '{}', method => 'PUT');
SELECT retry.enqueue('sqlt/here', '{}', headers => '{}');
SELECT retry.enqueue_many('sqlt/here', '{}', content_type => 'text/plain');
SELECT retry.enqueue('sql:plain.ship', url => 'sql:plain.ship');
SELECT retry.call('sqlt/here', '{}');

-- whom it is refused
SELECT retry.grant('regress_retry_sql', 'sqlt');
SET ROLE regress_retry_sql;
SELECT retry.enqueue('sqlt/here', '{}');
RESET ROLE;
GRANT USAGE ON SCHEMA plain TO regress_retry_sql;
REVOKE EXECUTE ON FUNCTION plain.ship FROM PUBLIC;
SET ROLE regress_retry_sql;
SELECT retry.enqueue('sqlt/here', '{}');
SELECT retry.enqueue('sqlt/none', '{}', url => 'sql:plain.rows') IS NOT NULL AS enqueued;
RESET ROLE;
GRANT EXECUTE ON FUNCTION plain.ship TO regress_retry_sql;
SET ROLE regress_retry_sql;
SELECT retry.enqueue('sqlt/here', '{}') IS NOT NULL AS enqueued;
RESET ROLE;

-- scenes
INSERT INTO retry.scene (group_name, name, url) VALUES ('sqlt', 'bad', 'sql:plain.nothing');
INSERT INTO retry.scene (group_name, name, url) VALUES ('sqlt', 'bad', 'sql:plain');
UPDATE retry.scene SET url = 'sql:plain.proc' WHERE (group_name, name) = ('sqlt', 'here');
INSERT INTO retry.scene (group_name, name, targets) VALUES ('sqlt', 'bad', '{sql:plain.ship,sql:plain.rows}');
-- as in a restore, where the function may come later or be gone
BEGIN;
SET LOCAL check_function_bodies = off;
INSERT INTO retry.scene (group_name, name, url) VALUES ('sqlt', 'restored', 'sql:plain.gone');
ROLLBACK;

-- one lane for each function, however it is spelt
SELECT retry.enqueue('sqlt/none', url => 'sql:PLAIN . Ship') IS NOT NULL AS enqueued;
SELECT retry.enqueue('sqlt/none', url => 'sql:"plain"."ship"') IS NOT NULL AS enqueued;
SELECT retry.enqueue('sqlt/none', url => 'sql:"Odd schema"."Ship ""it"""') IS NOT NULL AS enqueued;
SELECT retry.enqueue('sqlt/none', url => 'sql:plain.ship', lane => 'mine') IS NOT NULL AS enqueued;
SELECT scene, url, lane, held_reason, enqueued_by FROM retry.tasks WHERE scene ^@ 'sqlt/' ORDER BY id;
SELECT count(DISTINCT lane_hash) FROM retry.task
WHERE scene_id IN (SELECT id FROM retry.scene WHERE group_name = 'sqlt');

SELECT retry.cancel_where('sqlt/none') + retry.cancel_where('sqlt/here') AS cancelled;
SELECT retry.revoke('regress_retry_sql', 'sqlt');
