--
-- retry.prepare(), retry.commit(), retry.rollback(): messages that are delivered
-- when somebody else has committed; and retry.barrier() for those who take part.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS retry;
RESET client_min_messages;
CREATE ROLE regress_messages_owner;
CREATE ROLE regress_messages_app;
CREATE ROLE regress_messages_other;
INSERT INTO retry.scene_group (name, owner, paused) VALUES ('msg', 'regress_messages_owner', true);
INSERT INTO retry.scene (group_name, name, url, check_target) VALUES
	('msg', 'paid', 'http://127.0.0.1:9/paid', NULL),
	('msg', 'ask', 'http://127.0.0.1:9/ask', NULL),
	('msg', 'asked', 'http://127.0.0.1:9/asked', 'msg/ask');
INSERT INTO retry.scene (group_name, name, targets, route) VALUES
	('msg', 'all', ARRAY['http://127.0.0.1:9/1', 'http://127.0.0.1:9/2'], 'all');
SELECT retry.grant('regress_messages_app', 'msg'), retry.grant('regress_messages_app', 'default');

-- what is prepared is no task, but its check is one
CREATE TABLE messages_id (name text PRIMARY KEY, id uuid);
GRANT ALL ON messages_id TO PUBLIC;
SET ROLE regress_messages_app;
INSERT INTO messages_id VALUES ('a', retry.prepare('msg/paid', '{"order": 1}', reference => 'R1', headers => '{"X-A": "b"}',
	max_attempts => 3, check_target => 'msg/ask'));
SELECT mode, scene, reference, state, begun_by, at_limit, decided_by, decided_how FROM retry.transactions;
SELECT b.branch, b.op, b.state, b.attempts, b.next_due - t.begun_at BETWEEN '6 s' AND '6.5 s' AS in_six_seconds
FROM retry.branches b JOIN retry.transactions t USING (gid) ORDER BY b.op;
SELECT t.scene, t.max_attempts, t.reference, t.parent_id = i.id AS of_the_message,
	replace(t.headers::text, i.id::text, 'GID') AS headers, replace(convert_from(t.body, 'UTF8'), i.id::text, 'GID') AS body
FROM retry.tasks t, messages_id i;
RESET ROLE;
SELECT k.backoff, k.on_success, k.on_dead FROM retry.task k JOIN messages_id i ON k.parent_id = i.id;
SET ROLE regress_messages_app;

-- a commit makes the message a task under its own id, and nobody is asked any more
SELECT retry.commit(id) AS decided, retry.commit(id) AS again FROM messages_id WHERE name = 'a';
SELECT t.scene, t.state, t.max_attempts, t.reference, t.headers, t.held_reason, convert_from(t.body, 'UTF8') AS body, t.enqueued_by
FROM retry.tasks t JOIN messages_id i USING (id);
SELECT op, state FROM retry.branches ORDER BY op;
SELECT state, decided_by, decided_how, decided_at BETWEEN begun_at AND clock_timestamp() AS decided_now FROM retry.transactions;
SELECT retry.commit(id) AS again FROM messages_id WHERE name = 'a';
\set VERBOSITY sqlstate
SELECT retry.rollback(id) FROM messages_id WHERE name = 'a';

-- a rollback
INSERT INTO messages_id VALUES ('b', retry.prepare('msg/paid', check_target => 'msg/ask'));
SELECT retry.rollback(id) AS decided, retry.rollback(id) AS again FROM messages_id WHERE name = 'b';
SELECT retry.commit(id) FROM messages_id WHERE name = 'b';
SELECT state, decided_how FROM retry.transactions JOIN messages_id ON gid = id WHERE name = 'b';
SELECT op, state FROM retry.branches JOIN messages_id ON gid = id WHERE name = 'b' ORDER BY op;

-- a decision belongs to its transaction, and so does a message
BEGIN;
INSERT INTO messages_id VALUES ('c', retry.prepare('msg/paid', check_target => 'msg/ask'));
SAVEPOINT s;
SELECT retry.commit(id) FROM messages_id WHERE name = 'c';
ROLLBACK TO s;
SELECT retry.rollback(id) FROM messages_id WHERE name = 'c';
ROLLBACK TO s;
SELECT state FROM retry.transactions JOIN messages_id ON gid = id WHERE name = 'c';
SELECT retry.commit(id) FROM messages_id WHERE name = 'c';
COMMIT;
SELECT state FROM retry.tasks JOIN messages_id USING (id) WHERE name = 'c';
SELECT retry.commit(retry.prepare('msg/paid', check_target => 'msg/ask')) AS at_once;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT retry.commit(retry.prepare('msg/paid', check_target => 'msg/ask')) AS at_once;
COMMIT;
BEGIN;
SELECT retry.prepare('msg/paid', check_target => 'msg/ask') AS gone \gset
ROLLBACK;
SELECT retry.commit(:'gone');

-- the scene's rules, and those of the call
INSERT INTO messages_id VALUES ('d', retry.prepare('msg/asked')),
	('e', retry.prepare('msg/asked', check_target => 'http://127.0.0.1:9/other', check_after => '1 min', check_every => '10 min',
		check_limit => 3, undecided => 'commit', delay => '1 h'));
SELECT i.name, t.at_limit, k.scene, k.url, k.max_attempts, date_trunc('second', k.due_at - t.begun_at) AS after
FROM retry.transactions t JOIN messages_id i ON t.gid = i.id JOIN retry.tasks k ON k.id = t.check_id WHERE i.name IN ('d', 'e') ORDER BY 1;
-- due as it was to be
SELECT retry.commit(id) FROM messages_id WHERE name = 'e';
SELECT due_at - created_at BETWEEN '59 min' AND '61 min' AS later FROM retry.tasks JOIN messages_id USING (id) WHERE name = 'e';
RESET ROLE;
SELECT k.backoff FROM retry.task k JOIN messages_id i ON k.parent_id = i.id WHERE i.name = 'e';
UPDATE retry.scene SET check_after = '1 h', check_every = '2 h', check_limit = 4, undecided = 'commit' WHERE name = 'asked' AND group_name = 'msg';
SET ROLE regress_messages_app;
INSERT INTO messages_id VALUES ('f', retry.prepare('msg/asked'));
SELECT t.at_limit, k.max_attempts, date_trunc('hour', k.due_at - t.begun_at) AS after
FROM retry.transactions t JOIN messages_id i ON t.gid = i.id JOIN retry.tasks k ON k.id = t.check_id WHERE i.name = 'f';

-- an undecided message has its key, as its task has it then
INSERT INTO messages_id VALUES ('k', retry.prepare('msg/paid', '1', key => 'K', check_target => 'msg/ask'));
SELECT retry.prepare('msg/paid', '2', key => 'K', check_target => 'msg/ask') = id AS same,
	retry.enqueue('msg/paid', '3', key => 'K') = id AS same_too FROM messages_id WHERE name = 'k';
SELECT retry.enqueue('msg/paid', '4', key => 'K', on_conflict => 'error');
SELECT retry.enqueue('msg/paid', '5', key => 'K', on_conflict => 'replace');
SELECT retry.commit(id) FROM messages_id WHERE name = 'k';
SELECT retry.enqueue('msg/paid', '6', key => 'K') = id AS same FROM messages_id WHERE name = 'k';
SELECT count(*) AS prepared_once FROM retry.transactions WHERE key = 'K';
SELECT retry.prepare('msg/paid', '1', key => 'L', check_target => 'msg/ask') AS l \gset
SELECT retry.rollback(:'l');
SELECT retry.enqueue('msg/paid', '2', key => 'L') <> :'l' AS free_again;

-- a check that was cancelled asks no more: the message is undecided until somebody decides, and the views show it
INSERT INTO messages_id VALUES ('n', retry.prepare('msg/paid', check_target => 'msg/ask'));
SELECT retry.cancel(check_id) FROM retry.transactions JOIN messages_id ON gid = id WHERE name = 'n';
SELECT t.state, b.op, b.state AS task, b.next_due FROM retry.transactions t JOIN retry.branches b USING (gid) JOIN messages_id ON gid = id WHERE name = 'n' ORDER BY b.op;
SELECT retry.commit(id) FROM messages_id WHERE name = 'n';
SELECT t.state, b.op, b.state AS task FROM retry.transactions t JOIN retry.branches b USING (gid) JOIN messages_id ON gid = id WHERE name = 'n' ORDER BY b.op;
RESET ROLE;
SELECT count(*) AS cancelled_once FROM retry.signal s JOIN retry.transactions t ON t.check_id = s.task_id JOIN messages_id ON gid = id WHERE name = 'n';
SET ROLE regress_messages_app;

-- what is refused stores nothing
SELECT count(*) AS before FROM retry.transactions \gset
SELECT retry.prepare('msg/paid');
SELECT retry.prepare('msg/all', check_target => 'msg/ask');
SELECT retry.prepare('msg/paid', check_target => 'msg/all');
SELECT retry.prepare('msg/paid', check_target => 'msg/none');
SELECT retry.prepare('msg/paid', check_target => 'no target');
SELECT retry.prepare('msg/paid', check_target => 'retry:decide');
SELECT retry.prepare('msg/paid', check_target => 'sql:no.such_function');
SELECT retry.prepare('msg/paid', check_target => 'msg/ask', check_limit => 0);
SELECT retry.prepare('msg/paid', check_target => 'msg/ask', check_after => '-1 s');
SELECT retry.prepare('msg/paid', check_target => 'msg/ask', check_every => '0');
SELECT retry.prepare('msg/paid', check_target => 'msg/ask', undecided => 'maybe');
SELECT retry.prepare('msg/paid', check_target => 'msg/ask', on_conflict => 'what');
SELECT retry.prepare(NULL, check_target => 'msg/ask');
SELECT retry.enqueue('msg/paid', on_success => 'retry:decide');
SELECT count(*) = :before AS nothing_stored FROM retry.transactions;
SELECT retry.commit(NULL) IS NULL AS null_in_null_out;
SELECT retry.commit('00000000-0000-7000-8000-000000000000');
BEGIN READ ONLY;
SELECT retry.rollback(id) FROM messages_id WHERE name = 'd';
ROLLBACK;
\set VERBOSITY terse
SELECT retry.prepare('msg/paid');
SELECT retry.prepare('msg/paid', check_target => 'msg/ask', check_limit => 10001);
SELECT retry.prepare('msg/paid', check_target => 'msg/ask', check_every => '31 days');
SELECT retry.prepare('msg/all', check_target => 'msg/ask');
SELECT retry.commit('00000000-0000-7000-8000-000000000000');
DO $$
BEGIN
	PERFORM retry.rollback(id) FROM messages_id WHERE name = 'a';
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	RAISE NOTICE '%', regexp_replace(SQLERRM, '[0-9a-f-]{36}', 'ID');
END
$$;

-- rights: who may use the group decides, and sees; others do not know of it
SET ROLE regress_messages_other;
SELECT count(*) FROM retry.transactions;
SELECT count(*) FROM retry.branches;
DO $$
BEGIN
	PERFORM retry.commit(id) FROM messages_id WHERE name = 'd';
EXCEPTION WHEN undefined_object THEN
	RAISE NOTICE '%', regexp_replace(SQLERRM, '[0-9a-f-]{36}', 'ID');
END
$$;
SELECT retry.prepare('msg/paid', check_target => 'msg/ask');
SELECT * FROM retry.global_transaction;
SELECT * FROM retry.global_message;
-- another role decides: that is in the audit, and in the view
SET ROLE regress_messages_owner;
SELECT retry.rollback(id) FROM messages_id WHERE name = 'd';
SELECT state, begun_by, decided_by, decided_how FROM retry.transactions JOIN messages_id ON gid = id WHERE name = 'd';
SELECT role, action, group_name, object, task = id AS this_one FROM retry.audit JOIN messages_id ON task = id ORDER BY at;
RESET ROLE;

-- a scene that a message needs, or that is asked, does not go
\set VERBOSITY terse
INSERT INTO retry.scene (group_name, name, url) VALUES ('msg', 'asker', 'http://127.0.0.1:9/asker');
UPDATE retry.scene SET check_target = 'msg/asker' WHERE name = 'paid' AND group_name = 'msg';
DELETE FROM retry.scene WHERE name = 'asker' AND group_name = 'msg';
UPDATE retry.scene SET check_target = NULL WHERE name = 'paid' AND group_name = 'msg';
DELETE FROM retry.scene WHERE name = 'asker' AND group_name = 'msg';
UPDATE retry.scene SET name = 'asking' WHERE name = 'ask' AND group_name = 'msg';
SELECT name, check_target FROM retry.scene WHERE group_name = 'msg' AND check_target IS NOT NULL;
UPDATE retry.scene SET check_target = 'msg/none' WHERE name = 'paid' AND group_name = 'msg';
UPDATE retry.scene SET check_limit = 0 WHERE name = 'paid' AND group_name = 'msg';
UPDATE retry.scene SET undecided = 'perhaps' WHERE name = 'paid' AND group_name = 'msg';

-- the barrier: each operation once, nothing to undo, and too late
SET ROLE regress_messages_app;
SELECT gen_random_uuid() AS g \gset
SELECT retry.barrier(:'g', '1', 'try') AS first, retry.barrier(:'g', '1', 'try') AS again,
	retry.barrier(:'g', '2', 'try') AS other_branch, retry.barrier(gen_random_uuid(), '1', 'try') AS other_gid;
SELECT retry.barrier(:'g', '1', 'cancel') AS undo, retry.barrier(:'g', '1', 'cancel') AS again, retry.barrier(:'g', '1', 'try') AS too_late;
SELECT retry.barrier(:'g', '2', 'confirm') AS confirm, retry.barrier(:'g', '2', 'confirm') AS again;
SELECT retry.barrier(:'g', '3', 'cancel') AS nothing_to_undo, retry.barrier(:'g', '3', 'try') AS too_late, retry.barrier(:'g', '3', 'cancel') AS again;
SELECT retry.barrier(:'g', '4', 'compensate') AS nothing_to_undo, retry.barrier(:'g', '4', 'action') AS too_late;
SELECT retry.barrier(:'g', '5', 'action') AS act, retry.barrier(:'g', '5', 'compensate') AS undo, retry.barrier(:'g', '5', 'compensate') AS again;
SELECT retry.barrier(:'g', 'message', 'message') AS first, retry.barrier(:'g', 'message', 'message') AS again;
BEGIN;
SELECT retry.barrier(:'g', '6', 'try') AS first;
ROLLBACK;
SELECT retry.barrier(:'g', '6', 'cancel') AS nothing_to_undo;
-- each role has branches of its own
SET ROLE regress_messages_other;
SELECT retry.barrier(:'g', '1', 'try') AS first;
SELECT * FROM retry.barrier_note;
\set VERBOSITY sqlstate
SELECT retry.barrier(NULL, '1', 'try');
SELECT retry.barrier(:'g', NULL, 'try');
SELECT retry.barrier(:'g', '', 'try');
SELECT retry.barrier(:'g', '1', 'undo');
SELECT retry.barrier(:'g', '1', NULL);
\set VERBOSITY terse
SELECT retry.barrier(:'g', '1', 'undo');
RESET ROLE;
SELECT branch, op, noted_by FROM retry.barrier_note WHERE gid = :'g' AND role = 'regress_messages_app'::regrole ORDER BY branch, op;


-- retention: what is decided and old goes, whole; what is not stays; barriers as notes of retry.once()
UPDATE retry.global_decision SET decided_at = decided_at - interval '8 days' WHERE gid IN (SELECT id FROM messages_id WHERE name = 'a');
UPDATE retry.barrier_note SET at = at - interval '8 days' WHERE branch = '1';
CALL retry.maintain();
SELECT i.name, t.gid IS NULL AS transaction_gone, d.gid IS NULL AS no_decision, m.id IS NULL AS message_gone
FROM messages_id i LEFT JOIN retry.global_transaction t ON t.gid = i.id LEFT JOIN retry.global_decision d ON d.gid = i.id
LEFT JOIN retry.global_message m USING (id) WHERE i.name IN ('a', 'b', 'f') ORDER BY 1;
SELECT branch, count(*) FROM retry.barrier_note GROUP BY branch ORDER BY branch;
SELECT count(*) AS task_stays FROM retry.tasks JOIN messages_id USING (id) WHERE name = 'a';

-- a scene that only a message refers to is archived, and deleted later
INSERT INTO retry.scene (group_name, name, url) VALUES ('msg', 'last', 'http://127.0.0.1:9/last');
SELECT retry.prepare('msg/last', check_target => 'msg/asking') AS m \gset
DELETE FROM retry.scene WHERE group_name = 'msg' AND name = 'last';
SELECT archived FROM retry.scene WHERE group_name = 'msg' AND name = 'last';

DELETE FROM retry.barrier_note;
DELETE FROM retry.global_transaction;
DELETE FROM retry.global_decision;
DELETE FROM retry.global_message;
DELETE FROM retry.signal WHERE task_id IN (SELECT t.id FROM retry.task t JOIN retry.scene s ON s.id = t.scene_id WHERE s.group_name = 'msg');
DELETE FROM retry.task WHERE scene_id IN (SELECT s.id FROM retry.scene s WHERE s.group_name = 'msg')
	OR url LIKE 'http://127.0.0.1:9/other';
DELETE FROM retry.key WHERE scene_id IN (SELECT s.id FROM retry.scene s WHERE s.group_name = 'msg');
UPDATE retry.scene SET check_target = NULL WHERE group_name = 'msg';
DELETE FROM retry.scene WHERE group_name = 'msg';
SELECT retry.revoke('regress_messages_app', 'msg'), retry.revoke('regress_messages_app', 'default');
DELETE FROM retry.scene_group WHERE name = 'msg';
DROP TABLE messages_id;
DROP ROLE regress_messages_owner, regress_messages_app, regress_messages_other;
