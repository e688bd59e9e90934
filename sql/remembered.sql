-- A session remembers where it found scenes, groups and grants. What counts is
-- what the statement sees, whatever was remembered.
SET client_min_messages = warning;
INSERT INTO retry.scene (name, url) VALUES ('memo', 'http://127.0.0.1:1/');
CREATE FUNCTION goes_to(scene text DEFAULT 'memo') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	task	uuid := retry.enqueue(scene, '{}', delay => '1 day');
BEGIN
	RETURN (SELECT t.lane FROM retry.task t WHERE t.id = task);
END
$$;
SELECT goes_to(), goes_to();

-- changed in this transaction, in a part of it that is rolled back, and not at all
BEGIN;
UPDATE retry.scene SET url = 'http://127.0.0.1:2/' WHERE name = 'memo';
SELECT goes_to(), goes_to();
SAVEPOINT s;
UPDATE retry.scene SET url = 'http://127.0.0.1:3/' WHERE name = 'memo';
SELECT goes_to(), goes_to();
ROLLBACK TO s;
SELECT goes_to(), goes_to();
ROLLBACK;
SELECT goes_to(), goes_to();

-- made, and rolled back
BEGIN;
INSERT INTO retry.scene (name, url) VALUES ('memo-2', 'http://127.0.0.1:4/');
SELECT goes_to('memo-2'), goes_to('memo-2');
ROLLBACK;
SELECT goes_to('memo-2');

-- archived, and taken back
UPDATE retry.scene SET archived = true WHERE name = 'memo';
SELECT goes_to();
UPDATE retry.scene SET archived = false WHERE name = 'memo';
SELECT goes_to(), goes_to();

-- the table is another file
VACUUM FULL retry.scene;
VACUUM FULL retry.scene_group;
SELECT goes_to(), goes_to();

-- the page it was on is gone
INSERT INTO retry.scene (name, url) SELECT 'memo-' || n, 'http://127.0.0.1:5/' FROM generate_series(1, 300) n;
BEGIN;
SELECT goes_to('memo-300'), goes_to('memo-300');
ROLLBACK;
DELETE FROM retry.scene WHERE name LIKE 'memo-%';
VACUUM retry.scene;
SELECT goes_to('memo-300');

-- another scene at the same place
INSERT INTO retry.scene (name, url) SELECT 'memo-' || n, 'http://127.0.0.1:' || 1000 + n || '/' FROM generate_series(300, 1, -1) n;
SELECT goes_to('memo-300'), goes_to('memo-1'), goes_to('memo-300');

-- a grant, while it lasts
CREATE ROLE regress_memo;
SELECT retry.grant('regress_memo', 'default');
GRANT SELECT ON retry.task TO regress_memo;
SET ROLE regress_memo;
SELECT goes_to(), goes_to();
RESET ROLE;
BEGIN;
DELETE FROM retry.group_member WHERE role = 'regress_memo'::regrole;
SET LOCAL ROLE regress_memo;
SELECT goes_to();
ROLLBACK;
SET ROLE regress_memo;
SELECT goes_to();
RESET ROLE;
DELETE FROM retry.group_member WHERE role = 'regress_memo'::regrole;
SET ROLE regress_memo;
SELECT goes_to();
RESET ROLE;

-- an owner of the group, while it is
INSERT INTO retry.scene_group (name, owner) VALUES ('memo-group', 'regress_memo');
INSERT INTO retry.scene (group_name, name, url) VALUES ('memo-group', 'memo', 'http://127.0.0.1:7/');
SET ROLE regress_memo;
SELECT goes_to('memo-group/memo');
RESET ROLE;
UPDATE retry.scene_group SET owner = current_user::regrole WHERE name = 'memo-group';
SET ROLE regress_memo;
SELECT goes_to('memo-group/memo');
RESET ROLE;

-- indexes that a leaf did not have when it was last written to
DO $$
DECLARE
	leaf	name;
BEGIN
	FOR leaf IN SELECT c.relname FROM pg_class c WHERE c.relname ~ '^task_\d\d$' AND c.relnamespace = 'retry'::regnamespace LOOP
		EXECUTE format('CREATE INDEX memo_%s ON retry.%1$s (content_type) WHERE content_type IS NOT NULL', leaf);
	END LOOP;
END
$$;
SELECT retry.enqueue('memo', body => 'a', content_type => 'text/memo', delay => '1 day') IS NOT NULL AS stored,
	goes_to();
SET enable_seqscan = off;
SELECT count(*) FROM retry.task WHERE content_type = 'text/memo';
RESET enable_seqscan;
DO $$
DECLARE
	leaf	name;
BEGIN
	FOR leaf IN SELECT c.relname FROM pg_class c WHERE c.relname ~ '^task_\d\d$' AND c.relnamespace = 'retry'::regnamespace LOOP
		EXECUTE format('DROP INDEX retry.memo_%s', leaf);
	END LOOP;
END
$$;
SELECT retry.enqueue('memo', body => 'a', content_type => 'text/memo', delay => '1 day') IS NOT NULL AS stored;

-- leave as it was
REVOKE SELECT ON retry.task FROM regress_memo;
SELECT retry.cancel_where('memo') > 0 AS cancelled;
SELECT retry.cancel_where('memo-group/memo') > 0 AS cancelled;
DROP FUNCTION goes_to(text);
