--
-- Two-phase commit: what is refused, and who may what.  What it does is in
-- t/103_twophase.pl, with servers.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS retry;
RESET client_min_messages;
CREATE ROLE regress_twophase_owner;
CREATE ROLE regress_twophase_app;
CREATE ROLE regress_twophase_other;
INSERT INTO retry.scene_group (name, owner, paused) VALUES ('tp', 'regress_twophase_owner', true);
INSERT INTO retry.scene (group_name, name) VALUES ('tp', 'transfer');
SELECT retry.grant('regress_twophase_app', 'tp');

-- servers: what is no connection string, or says too much or too little
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'x', 'host');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'x', 'host=h dbname=d user=u unknown=1');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'x', 'host=h dbname=d user=u password=p');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'x', 'postgresql://u:p@h/d');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'x', 'host=h dbname=d user=u passfile=/tmp/p');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'x', 'service=s');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'x', 'host=h dbname=d user=u replication=true');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'x', 'dbname=d user=u');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'x', 'host=h user=u');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'x', 'host=h dbname=d');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'X', 'host=h dbname=d user=u');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('none', 'x', 'host=h dbname=d user=u');
INSERT INTO retry.server (group_name, name, conninfo, timeout) VALUES ('tp', 'x', 'host=h dbname=d user=u', '2 min');
INSERT INTO retry.server (group_name, name, conninfo, secret) VALUES ('tp', 'x', 'host=h dbname=d user=u', 'No');
SELECT count(*) FROM retry.server;
INSERT INTO retry.server (group_name, name, conninfo, timeout) VALUES
	('tp', 'a', 'host=127.0.0.1 port=1 dbname=d user=u', '5 s'), ('tp', 'b', 'postgresql://u@127.0.0.1:1/d', '5 s');
SELECT action, group_name, object, after ->> 'conninfo' AS conninfo FROM retry.audit WHERE action LIKE 'server%' ORDER BY object;

-- for the owner of the extension alone
SET ROLE regress_twophase_owner;
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('tp', 'x', 'host=h dbname=d user=u');
SELECT * FROM retry.server;
SELECT * FROM retry.global_branch;
RESET ROLE;

-- begin
SET ROLE regress_twophase_app;
SELECT retry.twophase_begin('none/such');
SELECT retry.twophase_begin('http://127.0.0.1:9/');
SELECT retry.twophase_begin(NULL);
SELECT retry.twophase_begin('tp/transfer', NULL);
SELECT retry.twophase_begin('tp/transfer', '0');
SELECT retry.twophase_begin('tp/transfer', '31 days');
SELECT retry.twophase_begin();
SELECT retry.twophase_begin('tp/transfer', '1 h', 'R1') AS gid \gset
SELECT mode, scene, reference, state, open_operations, begun_by, at_limit, expires_at - begun_at BETWEEN '59 min' AND '61 min' AS in_an_hour
FROM retry.transactions;

-- branches
SELECT retry.twophase_branch(:'gid', NULL);
SELECT retry.twophase_branch(NULL, 'a');
SELECT retry.twophase_branch(:'gid', 'none');
SELECT retry.twophase_branch('00000000-0000-7000-8000-000000000000', 'a');
SELECT retry.twophase_branch(:'gid', s) ~ ('^retry_\d+_' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '_' || :'gid' || '_\d_\d+$') AS good
FROM unnest('{a,b,a}'::text[]) AS s;
SELECT branch, op, outcome, state FROM retry.branches WHERE gid = :'gid' ORDER BY branch, op;
\set VERBOSITY sqlstate
SELECT count(retry.twophase_branch(:'gid', 'b')) FROM generate_series(1, 13);
SELECT retry.twophase_branch(:'gid', 'b');
\set VERBOSITY default
-- begun and given branches by one statement, and undone by a savepoint
BEGIN;
SAVEPOINT s;
SELECT retry.twophase_branch(retry.twophase_begin('tp/transfer'), 'a') LIKE 'retry\_%' AS named;
ROLLBACK TO s;
COMMIT;
SELECT count(*) FROM retry.transactions;

-- nothing is committed that nobody can ask about
\set VERBOSITY sqlstate
SELECT retry.commit(:'gid');
SELECT retry.settle_branch(jsonb_build_object('gid', :'gid', 'branch', 1));
SELECT retry.settle_branch(jsonb_build_object('gid', :'gid', 'branch', 99));
\set VERBOSITY default
SELECT retry.settle_branch(jsonb_build_object('gid', :'gid'));
SELECT retry.settle_branch('"x"');
SELECT retry.settle_server('{"server": "a", "group": "tp"}');
SELECT * FROM retry.in_doubt('a', 'tp');
RESET ROLE;

-- others
SET ROLE regress_twophase_other;
SELECT retry.twophase_begin('tp/transfer');
\set VERBOSITY sqlstate
SELECT retry.twophase_branch(:'gid', 'a');
SELECT retry.commit(:'gid');
SELECT retry.settle_branch(jsonb_build_object('gid', :'gid', 'branch', 1));
SELECT count(*) FROM retry.transactions;
RESET ROLE;
\set VERBOSITY default

-- rolled back: each branch has its task, and no more come
SET ROLE regress_twophase_app;
SELECT retry.rollback(:'gid');
SELECT retry.rollback(:'gid');
\set VERBOSITY sqlstate
SELECT retry.commit(:'gid');
SELECT retry.twophase_branch(:'gid', 'a');
SELECT state, decided_how, decided_by, open_operations FROM retry.transactions;
SELECT k.scene, k.lane, k.url, k.state, count(*) FROM retry.branches b JOIN retry.tasks k ON k.id = b.task_id
WHERE b.gid = :'gid' GROUP BY 1, 2, 3, 4 ORDER BY 2;
SELECT retry.settle_branch(jsonb_build_object('gid', :'gid', 'branch', 1)) AS refused;
\set VERBOSITY default
-- a transaction without branches
SELECT retry.twophase_begin('tp/transfer') AS gid \gset
SELECT retry.commit(:'gid');
SELECT state FROM retry.transactions WHERE gid = :'gid';
BEGIN READ ONLY;
SELECT retry.twophase_begin('tp/transfer');
ROLLBACK;
RESET ROLE;

-- the group's owner looks
SET ROLE regress_twophase_owner;
SELECT on_server, name, state, error LIKE 'server "_": %' AS why FROM retry.in_doubt(group_name => 'tp');
SELECT * FROM retry.in_doubt('none', 'tp');
SELECT * FROM retry.in_doubt(NULL, NULL);
SELECT * FROM retry.in_doubt(NULL, 'default');
SELECT retry.settle_server('{"server": "none", "group": "tp"}');
SELECT retry.settle_server('{"group": "tp"}');
RESET ROLE;

BEGIN;
TRUNCATE retry.server;
SELECT action, object FROM retry.audit WHERE object = 'server';
ROLLBACK;
DELETE FROM retry.server WHERE group_name = 'tp';
SELECT action, object FROM retry.audit WHERE action = 'server deleted' ORDER BY object;
DELETE FROM retry.global_branch;
DELETE FROM retry.global_outcome;
DELETE FROM retry.global_operation;
DELETE FROM retry.global_transaction;
DELETE FROM retry.global_decision;
DELETE FROM retry.signal WHERE task_id IN (SELECT t.id FROM retry.task t JOIN retry.scene s ON s.id = t.scene_id WHERE s.group_name = 'tp');
DELETE FROM retry.task WHERE scene_id IN (SELECT s.id FROM retry.scene s WHERE s.group_name = 'tp');
DELETE FROM retry.scene WHERE group_name = 'tp';
SELECT retry.revoke('regress_twophase_app', 'tp');
DELETE FROM retry.scene_group WHERE name = 'tp';
DROP ROLE regress_twophase_owner, regress_twophase_app, regress_twophase_other;
