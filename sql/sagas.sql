--
-- retry.saga(), retry.tcc_begin(), retry.tcc_branch(), retry.settle(): what is
-- stored, what is refused, and who may.  What is sent is t/101_saga.pl's.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS retry;
RESET client_min_messages;
CREATE ROLE regress_sagas_owner;
CREATE ROLE regress_sagas_app;
CREATE ROLE regress_sagas_other;
INSERT INTO retry.scene_group (name, owner, paused) VALUES ('sg', 'regress_sagas_owner', true), ('sgother', 'regress_sagas_other', true);
INSERT INTO retry.scene (group_name, name, url) VALUES
	('sg', 'do', 'http://127.0.0.1:9/do'),
	('sg', 'undo', 'http://127.0.0.1:9/undo'),
	('sgother', 'do', 'http://127.0.0.1:9/do');
INSERT INTO retry.scene (group_name, name, targets, route) VALUES
	('sg', 'all', ARRAY['http://127.0.0.1:9/1', 'http://127.0.0.1:9/2'], 'all');
SELECT retry.grant('regress_sagas_app', 'sg'), retry.grant('regress_sagas_app', 'default');
CREATE TABLE sagas_id (name text PRIMARY KEY, id uuid);
GRANT ALL ON sagas_id TO PUBLIC;

-- what is stored: all operations, of which the first is a task
SET ROLE regress_sagas_app;
INSERT INTO sagas_id VALUES ('a', retry.saga('[
	{"name": "one", "action": "sg/do", "compensate": "sg/undo", "payload": {"n": 1}, "headers": {"X-A": "b"}, "max_attempts": 3, "backoff": "fixed 5s", "timeout": "2 s"},
	{"action": "sg/do"},
	{"name": "three", "action": "sg/do", "compensate": "sg/undo", "needs": ["one"], "payload": null}]',
	payload => '{"n": 0}', timeout => '1 h', reference => 'R1', key => 'K1'));
SELECT mode, scene, key, reference, state, open_operations, at_limit, begun_by, expires_at - begun_at AS time_left, decided_how, check_id FROM retry.transactions;
SELECT branch, op, outcome, state FROM retry.branches ORDER BY task_id;
SELECT t.reference, t.max_attempts, t.expires_at BETWEEN now() + '59 min' AND now() + '1 h' AS expires, replace(t.headers::text, i.id::text, 'GID') AS headers, convert_from(t.body, 'UTF8') AS body, t.parent_id = i.id AS parent
FROM retry.tasks t, sagas_id i;
RESET ROLE;
SELECT branch_no, op, branch, needs, max_attempts, timeout_ms, backoff, on_success, on_dead, expires_at IS NOT NULL AS expires, convert_from(body, 'UTF8') AS body
FROM retry.global_operation ORDER BY id;
SET ROLE regress_sagas_app;
SELECT retry.saga('[{"action": "sg/do"}]', key => 'K1') = id AS same FROM sagas_id;

-- a rollback stops what is under way, and nothing else begins
SELECT retry.rollback(id) AS decided, retry.rollback(id) AS again FROM sagas_id;
SELECT retry.wait(task_id) FROM retry.branches WHERE branch = 'one' AND op = 'action';
SELECT state, decided_how, decided_by, open_operations FROM retry.transactions;
SELECT retry.settle(id, 'one', 'action') AS ended FROM sagas_id;
SELECT branch, op, outcome, settled_by, state FROM retry.branches ORDER BY task_id;
SELECT retry.settle(id, 'one', 'compensate') FROM sagas_id;
SELECT state, open_operations FROM retry.transactions;
SELECT retry.saga('[{"action": "sg/do"}]', key => 'K1') <> id AS free_again FROM sagas_id;

-- settled to its end; a saga commits by itself
INSERT INTO sagas_id VALUES ('b', retry.saga('[{"action": "sg/do"}, {"action": "sg/do"}]'));
\set VERBOSITY sqlstate
SELECT retry.commit(id) FROM sagas_id WHERE name = 'b';
SELECT retry.settle(id, '2', 'action') FROM sagas_id WHERE name = 'b';
SELECT retry.settle(id, '1', 'action') FROM sagas_id WHERE name = 'b';
SELECT retry.settle(id, '2', 'action') FROM sagas_id WHERE name = 'b';
SELECT state, decided_how FROM retry.transactions JOIN sagas_id ON gid = id WHERE name = 'b';
SELECT retry.settle(id, '2', 'compensate') FROM sagas_id WHERE name = 'b';
SELECT retry.settle(id, '3', 'action') FROM sagas_id WHERE name = 'b';
SELECT retry.settle(id, NULL, 'action') FROM sagas_id WHERE name = 'b';

-- TCC
INSERT INTO sagas_id VALUES ('t', retry.tcc_begin('1 h', scene => 'sg/do', reference => 'R2'));
SELECT retry.tcc_branch(id, 'x', 'sg/do', 'sg/do', 'sg/undo', '{"n": 1}', '{"lane": "l", "max_attempts": 2}') FROM sagas_id WHERE name = 't';
SELECT retry.tcc_branch(id, 'y', NULL, 'sg/do', 'sg/undo') FROM sagas_id WHERE name = 't';
SELECT branch, op, state, outcome FROM retry.branches JOIN sagas_id ON gid = id WHERE name = 't' ORDER BY task_id;
SELECT retry.tcc_branch(id, 'x', 'sg/do', 'sg/do', 'sg/undo') FROM sagas_id WHERE name = 't';
SELECT retry.tcc_branch(id, 'z', 'sg/do', NULL, 'sg/undo') FROM sagas_id WHERE name = 't';
SELECT retry.tcc_branch(id, 'z', 'sg/do', 'sg/do', 'sg/undo', options => '{"delay": "1 s"}') FROM sagas_id WHERE name = 't';
SELECT retry.tcc_branch(id, 'z', 'sg/do', 'sg/do', 'sg/undo', options => '[]') FROM sagas_id WHERE name = 't';
SELECT retry.tcc_commit(id) AS asked, retry.tcc_commit(id) AS again FROM sagas_id WHERE name = 't';
SELECT retry.tcc_branch(id, 'z', 'sg/do', 'sg/do', 'sg/undo') FROM sagas_id WHERE name = 't';
SELECT state, open_operations FROM retry.transactions JOIN sagas_id ON gid = id WHERE name = 't';
SELECT retry.settle(id, 'x', 'try') FROM sagas_id WHERE name = 't';
SELECT state, decided_how, open_operations FROM retry.transactions JOIN sagas_id ON gid = id WHERE name = 't';
SELECT branch, op, state, outcome FROM retry.branches JOIN sagas_id ON gid = id WHERE name = 't' ORDER BY task_id;
SELECT retry.settle(id, 'x', 'confirm', false) FROM sagas_id WHERE name = 't';
-- in one transaction, undone with it
BEGIN;
SELECT retry.tcc_begin(scene => 'sg/do') AS gone \gset
SELECT retry.tcc_branch(:'gone', 'x', 'sg/do', 'sg/do', 'sg/undo');
SELECT retry.tcc_rollback(:'gone');
SELECT state FROM retry.transactions WHERE gid = :'gone';
ROLLBACK;
SELECT retry.tcc_rollback(:'gone');
SELECT retry.tcc_begin('0');
SELECT retry.tcc_begin('31 days');
SELECT retry.tcc_begin(NULL);
SELECT retry.tcc_begin(scene => 'http://127.0.0.1:9/');
SELECT retry.tcc_begin(scene => 'sg/none');
SELECT retry.tcc_branch(id, 'z', 'sg/do', 'sg/do', 'sg/undo') FROM sagas_id WHERE name = 'a';

-- what is refused stores nothing
SELECT count(*) AS before FROM retry.transactions \gset
\set VERBOSITY terse
SELECT retry.saga(NULL);
SELECT retry.saga('{}');
SELECT retry.saga('[]');
SELECT retry.saga('[1]');
SELECT retry.saga((SELECT jsonb_agg('{"action": "sg/do"}'::jsonb) FROM generate_series(1, 65)));
SELECT retry.saga('[{"compensate": "sg/do"}]');
SELECT retry.saga('[{"action": 1}]');
SELECT retry.saga('[{"action": "sg/none"}]');
SELECT retry.saga('[{"action": "no target"}]');
SELECT retry.saga('[{"action": "sg/do", "compensate": "sql:no.such_function"}]');
SELECT retry.saga('[{"action": "sg/do", "compensate": "sg/all"}]');
SELECT retry.saga('[{"action": "sg/do", "compensate": "sgother/do"}]');
SELECT retry.saga('[{"action": "sg/do", "compensation": "sg/undo"}]');
SELECT retry.saga('[{"name": "a", "action": "sg/do"}, {"name": "a", "action": "sg/do"}]');
SELECT retry.saga('[{"name": "a b", "action": "sg/do"}]');
SELECT retry.saga('[{"name": "", "action": "sg/do"}]');
SELECT retry.saga('[{"action": "sg/do", "needs": "a"}]');
SELECT retry.saga('[{"action": "sg/do", "needs": ["b"]}]');
SELECT retry.saga('[{"action": "sg/do", "needs": [1]}]');
SELECT retry.saga('[{"name": "a", "action": "sg/do", "needs": ["b"]}, {"name": "b", "action": "sg/do"}]');
SELECT retry.saga('[{"name": "a", "action": "sg/do", "needs": ["a"]}]');
SELECT retry.saga('[{"action": "sg/do", "max_attempts": "3"}]');
SELECT retry.saga('[{"action": "sg/do", "max_attempts": 0}]');
SELECT retry.saga('[{"action": "sg/do", "backoff": "often"}]');
SELECT retry.saga('[{"action": "sg/do", "headers": {"retry-gid": "1"}}]');
SELECT retry.saga('[{"action": "sg/do", "headers": "X"}]');
SELECT retry.saga('[{"action": "sg/do"}]', timeout => '-1 s');
SELECT count(*) = :before AS nothing_stored FROM retry.transactions;
BEGIN READ ONLY;
SELECT retry.saga('[{"action": "sg/do"}]');
ROLLBACK;

-- rights: who may use the group decides, and sees; others do not know of it
SET ROLE regress_sagas_other;
SELECT count(*) FROM retry.transactions;
SELECT count(*) FROM retry.branches;
\set VERBOSITY sqlstate
SELECT retry.rollback(id) FROM sagas_id WHERE name = 't';
SELECT retry.settle(id, 'x', 'confirm') FROM sagas_id WHERE name = 't';
SELECT retry.tcc_branch(id, 'z', 'sgother/do', 'sgother/do', 'sgother/do') FROM sagas_id WHERE name = 't';
SELECT * FROM retry.operations;
SELECT * FROM retry.global_operation;
SELECT * FROM retry.global_outcome;
-- another role decides: that is in the audit
SET ROLE regress_sagas_app;
INSERT INTO sagas_id VALUES ('f', retry.saga('[{"action": "sg/do"}]'));
SET ROLE regress_sagas_owner;
SELECT retry.rollback(id) FROM sagas_id WHERE name = 'f';
SELECT retry.wait(task_id) FROM retry.branches JOIN sagas_id ON gid = id WHERE name = 'f';
SELECT role, action, object FROM retry.audit JOIN sagas_id ON task = id ORDER BY at;
RESET ROLE;

-- retention: what has ended goes, what is open stays
UPDATE retry.global_decision SET decided_at = decided_at - interval '8 days';
CALL retry.maintain();
SELECT i.name, t.gid IS NULL AS gone, (SELECT count(*) FROM retry.global_operation o WHERE o.gid = i.id) AS operations,
	(SELECT count(*) FROM retry.global_outcome o WHERE o.gid = i.id) AS outcomes
FROM sagas_id i LEFT JOIN retry.global_transaction t ON t.gid = i.id ORDER BY 1;

-- a scene that only an operation refers to is archived
INSERT INTO retry.scene (group_name, name, url) VALUES ('sg', 'last', 'http://127.0.0.1:9/last');
SELECT retry.saga('[{"action": "sg/do", "compensate": "sg/last"}]') IS NOT NULL AS begun;
DELETE FROM retry.scene WHERE group_name = 'sg' AND name = 'last';
SELECT archived FROM retry.scene WHERE group_name = 'sg' AND name = 'last';

DELETE FROM retry.global_transaction;
DELETE FROM retry.global_decision;
DELETE FROM retry.global_operation;
DELETE FROM retry.global_outcome;
DELETE FROM retry.signal WHERE task_id IN (SELECT t.id FROM retry.task t JOIN retry.scene s ON s.id = t.scene_id WHERE s.group_name = 'sg');
DELETE FROM retry.dead_letter WHERE scene_id IN (SELECT s.id FROM retry.scene s WHERE s.group_name = 'sg');
DELETE FROM retry.attempt WHERE scene_id IN (SELECT s.id FROM retry.scene s WHERE s.group_name = 'sg');
DELETE FROM retry.task WHERE scene_id IN (SELECT s.id FROM retry.scene s WHERE s.group_name = 'sg');
DELETE FROM retry.key WHERE scene_id IN (SELECT s.id FROM retry.scene s WHERE s.group_name = 'sg');
DELETE FROM retry.scene WHERE group_name IN ('sg', 'sgother');
SELECT retry.revoke('regress_sagas_app', 'sg'), retry.revoke('regress_sagas_app', 'default');
DELETE FROM retry.scene_group WHERE name IN ('sg', 'sgother');
DROP TABLE sagas_id;
DROP ROLE regress_sagas_owner, regress_sagas_app, regress_sagas_other;
