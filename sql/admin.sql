--
-- Administration: cancel, run_now, replay, replay_dead, wait, and who may.
-- The groups are paused; attempts are put into the store by hand, so that
-- every state can be looked at without a receiver.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
CREATE ROLE regress_retry_owner;
CREATE ROLE regress_retry_user;
CREATE ROLE regress_retry_other;
GRANT USAGE ON SCHEMA retry TO regress_retry_owner, regress_retry_user, regress_retry_other;
INSERT INTO retry.scene_group (name, paused, owner) VALUES ('adm', true, 'regress_retry_owner');
INSERT INTO retry.scene (group_name, name, url) VALUES ('adm', 's', 'http://adm.example/'), ('adm', 't', 'http://adm.example/');

-- states
SELECT retry.enqueue('adm/s', '1') AS p \gset
SELECT retry.enqueue('adm/s', '2') AS r \gset
SELECT retry.enqueue('adm/s', '3', key => 'k3', reference => 'ref', headers => '{"X": "y"}', expires_at => clock_timestamp() + '1 hour') AS s \gset
SELECT retry.enqueue('adm/s', '4', key => 'k4') AS d \gset
SELECT pg_temp.attempt(:'r', 1, 'failed', 'tomorrow'), pg_temp.attempt(:'s', 1, 'failed', 'now'), pg_temp.attempt(:'s', 2, 'succeeded'), pg_temp.die(:'d');
SELECT retry.wait(:'p', '0') AS p, retry.wait(:'r', '-1 s') AS r, retry.wait(:'s') AS s, retry.wait(:'d') AS d;

-- run_now: only for what has not finished
SELECT retry.run_now(:'p') AS p, retry.run_now(:'r') AS r, retry.run_now(:'s') AS s, retry.run_now(:'d') AS d;
SELECT id = :'r' AS r, action, after_attempt, g.lane_hash = t.lane_hash AS lane, g.leaf = t.leaf AS leaf, g.inert,
	g.due_at BETWEEN retry.task_time(id) AND clock_timestamp() AS now, asked_by = current_user::regrole AS by_me
FROM retry.signal g JOIN retry.task t ON t.id = g.task_id WHERE id IN (:'p', :'r') ORDER BY id;

-- cancel: only once, only what has not finished; what it cancelled is not run
SELECT retry.cancel(:'p') AS p, retry.cancel(:'r') AS r, retry.cancel(:'s') AS s, retry.cancel(:'d') AS d;
SELECT retry.cancel(:'p') AS p, retry.run_now(:'p') AS run, retry.wait(:'p') AS wait, retry.wait(:'r') AS r;
SELECT count(*) FROM retry.signal WHERE task_id IN (:'p', :'r') AND action = 'c';
-- an attempt that ended the task meanwhile wins
SELECT pg_temp.attempt(:'r', 2, 'succeeded');
SELECT retry.wait(:'r'), retry.cancel(:'r');
-- rolled back, it was not asked
SELECT retry.enqueue('adm/s') AS p \gset
BEGIN;
SELECT retry.cancel(:'p'), retry.wait(:'p');
ROLLBACK;
SELECT retry.wait(:'p', '0');

-- wait: not for what can never be seen
BEGIN;
SELECT code, message, hint FROM pg_temp.refused($$SELECT retry.wait(retry.enqueue('adm/s'))$$);
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT code, message, hint FROM pg_temp.refused(format('SELECT retry.wait(%L)', :'p'));
SELECT retry.wait(:'s');
ROLLBACK;
SELECT retry.wait(NULL), retry.wait(:'p', NULL);

-- replay: a new task that names itself as the old
SELECT code, message, hint FROM pg_temp.refused(format('SELECT retry.replay(%L)', :'p'));
SELECT retry.replay(:'s') AS s2 \gset
SELECT id <> :'s' AS new, replay_of = :'s' AS replay_of, origin_id = :'s' AS origin, key, reference, headers,
	convert_from(body, 'UTF8') AS body, expires_at IS NOT NULL AS expires, due_at = retry.task_time(id) AS due_now, inert
FROM retry.task WHERE id = :'s2';
SELECT retry.wait(:'s2', '0') AS replay, retry.wait(:'s', '0') AS original;
-- the key belongs to whoever claims it, not to the replay
SELECT retry.enqueue('adm/s', key => 'k3') NOT IN (:'s', :'s2') AS free;
-- replays of replays name the first
SELECT pg_temp.attempt(:'s2', 1, 'succeeded');
SELECT retry.replay(:'s2') AS s3 \gset
SELECT replay_of = :'s2' AS replay_of, origin_id = :'s' AS origin FROM retry.task WHERE id = :'s3';
SELECT retry.cancel(:'s3'), retry.replay(:'s3') IS NOT NULL AS cancelled_too;
-- of a dead letter: noted, and may be asked for again
SELECT retry.replay(:'d') AS d2 \gset
SELECT task_id = :'d' AS d, replayed_as = :'d2' AS d2 FROM retry.replayed;
SELECT retry.replay(:'d') <> :'d2' AS again;
SELECT task_id = :'d' AS d, replayed_as = :'d2' AS d2 FROM retry.replayed;
-- when only the dead letter is left, and its expiry is over
BEGIN;
SELECT retry.enqueue('adm/s', '5', key => 'k5', expires_at => clock_timestamp() + '1 hour') AS g \gset
SELECT pg_temp.die(:'g');
UPDATE retry.dead_letter SET expires_at = '2001-01-01' WHERE id = :'g';
DELETE FROM retry.task WHERE id = :'g';
DELETE FROM retry.attempt WHERE task_id = :'g';
SELECT retry.cancel(:'g'), retry.run_now(:'g');
SELECT retry.replay(:'g') AS g2 \gset
SELECT key, convert_from(body, 'UTF8') AS body, expires_at FROM retry.task WHERE id = :'g2';
SELECT retry.enqueue('adm/s', key => 'k5') NOT IN (:'g', :'g2') AS free;
ROLLBACK;

-- replay_dead: each once, filtered, spread
SELECT count(pg_temp.die(i, '2020-01-01'::timestamptz + n * interval '1 day'))
FROM (SELECT i, n FROM retry.enqueue_many('adm/s', (SELECT array_agg(to_jsonb(g) ORDER BY g) FROM generate_series(1, 10) g), reference => 'many')
	WITH ORDINALITY AS x (i, n)) e;
SELECT pg_temp.die(i) IS NOT NULL AS dead FROM (SELECT retry.enqueue('adm/t', reference => 'other') AS i OFFSET 0) e;
SELECT count(*) FROM retry.dead_letter WHERE reference IN ('many', 'other');
SELECT retry.replay_dead('adm/s', reference => 'none') AS none,
	retry.replay_dead('adm/t', reference => 'many') AS other_scene;
BEGIN;
SELECT retry.replay_dead(reference => 'many', since => '2020-01-03', until => '2020-01-05') AS two;
SELECT retry.replay_dead(reference => 'many', since => '2020-01-03', until => '2020-01-05') AS again;
SELECT retry.replay_dead('adm/s', reference => 'many', spread => '80 s') AS the_rest;
SELECT retry.replay_dead('adm/s', reference => 'many') AS none_left;
SELECT convert_from(body, 'UTF8')::int AS body, due_at - min(due_at) FILTER (WHERE replay_of IS NOT NULL) OVER () AS due
FROM retry.task WHERE reference = 'many' AND replay_of IS NOT NULL AND convert_from(body, 'UTF8')::int NOT IN (2, 3) ORDER BY 1;
ROLLBACK;
SELECT retry.replay_dead('adm/s', reference => 'many') AS all_again;
SELECT count(*), count(DISTINCT replay_of), bool_and(origin_id = replay_of) AS origin FROM retry.task WHERE reference = 'many' AND replay_of IS NOT NULL;

--
-- Who may
--
SELECT retry.enqueue('adm/s', '"by the superuser"') AS id \gset
SET ROLE regress_retry_other;
SELECT code, message FROM (VALUES (1, 'cancel'), (2, 'run_now'), (3, 'replay'), (4, 'wait')) v (n, f),
	pg_temp.refused(format('SELECT retry.%s(%L)', f, :'id')) ORDER BY n;
SELECT code, message FROM pg_temp.refused($$SELECT retry.replay_dead('adm/s')$$);
SELECT retry.replay_dead() AS nothing_seen;
SELECT code, message, hint FROM pg_temp.refused($$SELECT retry.grant('regress_retry_other', 'adm')$$);
SELECT code, message, hint FROM pg_temp.refused($$SELECT retry.revoke('regress_retry_user', 'adm')$$);
SELECT code, message FROM pg_temp.refused($$INSERT INTO retry.group_member (group_id, role) SELECT 1, 'regress_retry_other'$$);
SELECT count(*) FROM retry.my_scenes(false);
SELECT count(*) FROM retry.my_scenes(true);
-- members of the owner may grant
SET ROLE regress_retry_owner;
SELECT retry.grant('regress_retry_user', 'adm'), retry.grant('regress_retry_user', 'adm');
RESET ROLE;
SELECT m.role, m.granted_by FROM retry.group_member m JOIN retry.scene_group g ON g.id = m.group_id WHERE g.name = 'adm';
-- whoever was granted the group has all its tasks
SET ROLE regress_retry_user;
SELECT count(*) FROM retry.my_scenes(false);
SELECT retry.run_now(:'id'), retry.cancel(:'id'), retry.wait(:'id'), retry.replay(:'id') IS NOT NULL AS replay;
SELECT retry.replay_dead() AS other;
SELECT code, message FROM pg_temp.refused($$SELECT retry.grant('regress_retry_other', 'adm')$$);
RESET ROLE;
SELECT enqueued_by = current_user::regrole AS still_of_the_superuser FROM retry.task WHERE replay_of = :'id';
-- in the group default only its own
SELECT retry.grant('regress_retry_user', 'default'), retry.grant('regress_retry_other', 'default');
SET ROLE regress_retry_user;
SELECT retry.enqueue('http://127.0.0.1:9/', delay => '1 day', reference => 'default') AS u \gset
SELECT count(*) > 0 AS own_only FROM retry.my_scenes(true);
SET ROLE regress_retry_other;
SELECT retry.enqueue('http://127.0.0.1:9/', delay => '1 day', reference => 'default') AS o \gset
SELECT retry.wait(:'o', '0');
SELECT code, message FROM pg_temp.refused(format('SELECT retry.cancel(%L)', :'u'));
RESET ROLE;
SELECT pg_temp.die(:'u'), pg_temp.die(:'o');
SET ROLE regress_retry_other;
SELECT retry.replay_dead() AS own;
SELECT retry.replay_dead('default') AS none_left;
SELECT code, message FROM pg_temp.refused(format('SELECT retry.replay(%L)', :'u'));
SELECT retry.cancel(:'o') AS finished;
RESET ROLE;
SELECT enqueued_by FROM retry.task WHERE replay_of = :'o';
-- not after it was revoked
SET ROLE regress_retry_owner;
SELECT retry.revoke('regress_retry_user', 'adm');
SET ROLE regress_retry_user;
SELECT code, message FROM pg_temp.refused(format('SELECT retry.wait(%L)', :'id'));
RESET ROLE;

SELECT retry.revoke('regress_retry_user', 'default'), retry.revoke('regress_retry_other', 'default');
SELECT count(retry.cancel(id)) > 0 AS cancelled FROM retry.task WHERE reference = 'default';
DELETE FROM retry.scene WHERE group_name = 'adm';
UPDATE retry.scene_group SET owner = current_user::regrole WHERE name = 'adm';
REVOKE USAGE ON SCHEMA retry FROM regress_retry_owner, regress_retry_user, regress_retry_other;
DROP ROLE regress_retry_owner, regress_retry_user, regress_retry_other;
