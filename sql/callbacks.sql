--
-- Callbacks of scenes: what may be named, and what happens to those that name
-- a scene when it is renamed or deleted.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
\pset format unaligned
\pset null '(null)'

INSERT INTO retry.scene_group (name, paused) VALUES ('cb', true), ('cb2', true);
-- scenes that one statement makes may name each other
INSERT INTO retry.scene (group_name, name, url, on_success, on_dead) VALUES
	('cb', 'a', 'http://cb.example/', 'cb/b', 'cb2/c'),
	('cb', 'b', 'http://cb.example/', 'cb/a', 'http://cb.example/dead'),
	('cb2', 'c', 'http://cb.example/', NULL, NULL),
	('default', 'cb-d', 'http://cb.example/', 'cb2/c', NULL),
	('cb2', 'e', 'http://cb.example/', 'cb-d', 'default/cb-d'),
	('cb', 'no-url', NULL, NULL, NULL),
	('cb', 'targets', NULL, NULL, NULL);
UPDATE retry.scene SET archived = true WHERE name = 'no-url';
UPDATE retry.scene SET targets = '{http://cb.example/}' WHERE name = 'targets';
INSERT INTO retry.scene (group_name, name, targets, route) VALUES ('cb', 'all', '{http://cb.example/}', 'all');

SELECT s AS statement, r.code, r.message, r.hint
FROM (VALUES
	(1, $$UPDATE retry.scene SET on_success = '' WHERE group_name = 'cb' AND name = 'a'$$),
	(2, $$UPDATE retry.scene SET on_success = 'cb/B' WHERE group_name = 'cb' AND name = 'a'$$),
	(3, $$UPDATE retry.scene SET on_dead = 'cb/none' WHERE group_name = 'cb' AND name = 'a'$$),
	(4, $$UPDATE retry.scene SET on_dead = 'none/a' WHERE group_name = 'cb' AND name = 'a'$$),
	(5, $$UPDATE retry.scene SET on_dead = 'cb/a' WHERE group_name = 'cb' AND name = 'a'$$),
	(6, $$UPDATE retry.scene SET on_success = 'cb-d' WHERE name = 'cb-d'$$),
	(7, $$UPDATE retry.scene SET on_success = 'default/cb-d' WHERE name = 'cb-d'$$),
	(8, $$UPDATE retry.scene SET on_success = 'ftp://host/' WHERE name = 'cb-d'$$),
	(9, $$UPDATE retry.scene SET on_success = 'http://user:secret@host/' WHERE name = 'cb-d'$$),
	(10, $$UPDATE retry.scene SET on_success = 'cb/no-url' WHERE name = 'cb-d'$$),
	(11, $$UPDATE retry.scene SET on_success = 'default' WHERE name = 'cb-d'$$),
	(12, $$UPDATE retry.scene SET on_success = 'cb/targets' WHERE name = 'cb-d'$$),
	(17, $$UPDATE retry.scene SET on_dead = 'cb/all' WHERE name = 'cb-d'$$),
	(13, $$INSERT INTO retry.scene (group_name, name, url, on_dead) VALUES ('cb', 'x', 'http://cb.example/', 'cb/x')$$),
	(14, $$INSERT INTO retry.scene (group_name, name, url, on_dead) VALUES ('cb', 'x', 'http://cb.example/', 'cb/y')$$),
	(15, $$DELETE FROM retry.scene WHERE name = 'cb-d'$$),
	(16, $$DELETE FROM retry.scene WHERE group_name = 'cb2' AND name = 'c'$$)
) AS t (n, s), pg_temp.refused(s) AS r
ORDER BY n;

-- checked at the end of the transaction, when that is asked for
BEGIN;
SET CONSTRAINTS retry.check_callbacks DEFERRED;
INSERT INTO retry.scene (group_name, name, url, on_dead) VALUES ('cb', 'x', 'http://cb.example/', 'cb/y');
INSERT INTO retry.scene (group_name, name, url, on_dead) VALUES ('cb', 'y', 'http://cb.example/', 'cb/x');
COMMIT;
-- as while a dump is restored: what is named may come later, but must be a target
BEGIN;
SET LOCAL check_function_bodies = off;
INSERT INTO retry.scene (group_name, name, url, on_dead) VALUES ('cb', 'z', 'http://cb.example/', 'cb/zz');
INSERT INTO retry.scene (group_name, name, url, on_dead) VALUES ('cb', 'zz', 'http://cb.example/', 'CB');
ROLLBACK;

-- a renamed scene, and a renamed group, are followed
UPDATE retry.scene SET name = 'b2' WHERE group_name = 'cb' AND name = 'b';
UPDATE retry.scene SET name = 'cb-d2' WHERE name = 'cb-d';
UPDATE retry.scene SET group_name = 'cb' WHERE group_name = 'cb2' AND name = 'c';
UPDATE retry.scene_group SET name = 'cb3' WHERE name = 'cb';
SELECT group_name, name, on_success, on_dead FROM retry.scene
WHERE group_name LIKE 'cb%' OR name LIKE 'cb%' ORDER BY 1, 2;

-- who writes a callback must be allowed to use its group
CREATE ROLE regress_retry_cb;
GRANT ALL ON retry.scene TO regress_retry_cb;
GRANT SELECT ON retry.scene_group, retry.group_member TO regress_retry_cb;
SELECT retry.grant('regress_retry_cb', 'cb2');
SET ROLE regress_retry_cb;
UPDATE retry.scene SET on_dead = 'cb3/a' WHERE group_name = 'cb2' AND name = 'e';
UPDATE retry.scene SET on_dead = 'cb2/e' WHERE group_name = 'cb3' AND name = 'c';
SELECT retry.enqueue('cb2/e', on_dead => 'cb3/a');
RESET ROLE;
REVOKE ALL ON retry.scene, retry.scene_group, retry.group_member FROM regress_retry_cb;
SELECT retry.revoke('regress_retry_cb', 'cb2');
DROP ROLE regress_retry_cb;

-- those that name each other can be deleted together
DELETE FROM retry.scene WHERE group_name LIKE 'cb%' OR name LIKE 'cb%';
DELETE FROM retry.scene_group WHERE name LIKE 'cb%';
SELECT count(*) FROM retry.scene WHERE group_name LIKE 'cb%' OR name LIKE 'cb%';
