--
-- amend and amend_where: what may be changed of a task that is enqueued, and
-- where the change shows.  The group is paused, so that no worker has a part
-- in it.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
CREATE ROLE regress_amend_user;
CREATE ROLE regress_amend_other;
INSERT INTO retry.scene_group (name, paused) VALUES ('amend', true);
INSERT INTO retry.scene (group_name, name, url, max_attempts) VALUES ('amend', 's', 'http://amend.example/s', 7), ('amend', 'nourl', NULL, 7);
CREATE VIEW pg_temp.shown AS
SELECT id, reference, state, max_attempts, expires_at, method, url, headers, convert_from(body, 'UTF8') AS body
FROM retry.tasks WHERE scene LIKE 'amend/%';
\set VERBOSITY terse

-- each member, and back again
SELECT retry.enqueue('amend/s', '1', reference => 'one', max_attempts => 3, expires_at => '2100-01-01', backoff => 'fixed 30s', timeout => '3 s',
	url => 'http://amend.example/own', method => 'put', headers => '{"X-A": "1"}', content_type => 'text/plain') AS id \gset
SELECT * FROM pg_temp.shown WHERE reference = 'one' \gset before_
SELECT retry.amend(:'id', '{"max_attempts": 9, "expires_at": "2101-02-03 04:05:06.789+02", "backoff": "EXPONENTIAL 1000ms", "timeout": "1.5 s",
	"url": "https://amend.example/new?x=1#f", "method": "patch", "headers": {"X-B": "2", "Content-Language": "de"}, "payload": {"b": [1, 2.50], "a": "ä"}, "content_type": "application/x"}') AS amended;
SELECT jsonb_pretty(change) AS change FROM retry.signal WHERE task_id = :'id' AND action = 'a';
SELECT action, after_attempt, g.lane_hash = t.lane_hash AND g.leaf = t.leaf AND NOT g.inert AS as_for_one, g.due_at <= clock_timestamp() AS now,
	asked_by = current_user::regrole AS by_me
FROM retry.signal g JOIN retry.task t ON t.id = g.task_id WHERE t.id = :'id';
\x on
SELECT reference, state, max_attempts, expires_at, method, url, headers, body FROM pg_temp.shown WHERE id = :'id';
SELECT retry.amend(:'id', '{"max_attempts": null, "expires_at": null, "backoff": null, "timeout": null, "url": null, "method": null, "headers": null, "body": null, "content_type": null}') AS amended;
SELECT reference, state, max_attempts, expires_at, method, url, headers, body FROM pg_temp.shown WHERE id = :'id';
\x off
-- the row itself is as it was
SELECT max_attempts, expires_at, method, url, headers, body FROM retry.task WHERE id = :'id';
-- the last counts, whatever the order in which they are stored; in one transaction and in one statement, too
BEGIN;
SELECT retry.amend(:'id', '{"payload": 1, "method": "PUT"}'), retry.amend(:'id', '{"payload": 2}'), retry.amend(:'id', '{"body": "Mw=="}');
SELECT method, body FROM pg_temp.shown WHERE id = :'id';
SAVEPOINT a;
SELECT retry.amend(:'id', '{"body": "AP/+"}');
SELECT t.body FROM retry.tasks t WHERE id = :'id';
ROLLBACK TO a;
SELECT method, body FROM pg_temp.shown WHERE id = :'id';
ROLLBACK;
BEGIN;
SELECT retry.amend(:'id', '{"payload": "first"}');
SELECT retry.amend(:'id', '{"payload": "second"}');
UPDATE retry.signal SET due_at = '2000-01-01' WHERE change = '{"body": "InNlY29uZCI="}';
SELECT body FROM pg_temp.shown WHERE id = :'id';
ROLLBACK;
SELECT body, url FROM pg_temp.shown WHERE id = :'id';
-- no row of another is touched, and it is not due any earlier
SELECT retry.enqueue('amend/s', '2', reference => 'two', delay => '1 day') AS two \gset
SELECT retry.amend(:'two', '{"payload": 3}');
SELECT convert_from(body, 'UTF8') AS body, next_due > now() + interval '23 h' AS tomorrow FROM retry.tasks WHERE id = :'two';

-- in which states; what a dead letter and a replay have
SELECT retry.enqueue('amend/s', '"cancelled"') AS c \gset
SELECT retry.enqueue('amend/s', '"succeeded"') AS s \gset
SELECT retry.enqueue('amend/s', '"dead"') AS d \gset
SELECT retry.enqueue('amend/s', '"retrying"') AS r \gset
SELECT retry.amend(i::uuid, '{"payload": "amended", "url": "http://amend.example/2"}') FROM unnest(ARRAY[:'c', :'s', :'d']) i;
SELECT retry.cancel(:'c'), pg_temp.attempt(:'s', 1, 'succeeded'), pg_temp.die(:'d'), pg_temp.attempt(:'r', 1, 'failed', 'tomorrow');
SELECT retry.amend(:'c', '{"max_attempts": 1}') AS cancelled, retry.amend(:'s', '{"max_attempts": 1}') AS succeeded,
	retry.amend(:'d', '{"max_attempts": 1}') AS dead, retry.amend(:'r', '{"max_attempts": 1}') AS retrying;
SELECT state, body, url, max_attempts FROM pg_temp.shown WHERE id IN (:'c', :'s', :'r') ORDER BY state;
SELECT ARRAY[retry.replay(:'c'), retry.replay(:'s'), retry.replay(:'d')] AS replays \gset
SELECT state, body, url FROM pg_temp.shown WHERE id = ANY (:'replays') ORDER BY id;
SELECT after_attempt FROM retry.signal WHERE task_id = :'r';

-- many
SELECT count(retry.enqueue('amend/s', to_jsonb(g), reference => 'many', key => 'k' || g % 2 || '-' || g, delay => '1 day')) FROM generate_series(1, 100) g;
BEGIN;
SELECT retry.amend_where('{"max_attempts": 2}', 'amend/s', reference => 'many') AS all_100,
	retry.amend_where('{"url": "http://amend.example/odd"}', group_name => 'amend', key_prefix => 'k1') AS odd,
	retry.amend_where('{"max_attempts": 3}', 'amend/s', error => '%') AS failed,
	retry.amend_where('{"max_attempts": 3}', 'amend/s', until => '2001-01-01') AS none,
	retry.amend_where('{"max_attempts": 3}', group_name => 'default', reference => 'many') AS of_others;
SELECT max_attempts, url, count(*) FROM pg_temp.shown WHERE reference = 'many' GROUP BY 1, 2 ORDER BY 2;
ROLLBACK;
SELECT DISTINCT max_attempts, url FROM pg_temp.shown WHERE reference = 'many';

-- what cannot be meant: as enqueue says it, and nothing is stored
\set VERBOSITY default
\pset format unaligned
SELECT s AS changes, r.code, r.message, r.hint
FROM unnest(ARRAY['1', '[]', '{}', '{"delay": "1 s"}', '{"max_attempts": 3, "key": null}', '{"expires_after": "1 h"}',
	'{"max_attempts": "3"}', '{"max_attempts": 2.5}', '{"max_attempts": 0}', '{"max_attempts": 1e30}', '{"max_attempts": 3000000}',
	'{"expires_at": 5}', '{"expires_at": "2001-01-01"}', '{"expires_at": "infinity"}', '{"expires_at": "soon"}',
	'{"backoff": 30}', '{"backoff": "fixed 30"}', '{"timeout": 5}', '{"timeout": "2 h"}', '{"timeout": "long"}',
	'{"url": ""}', '{"url": "ftp://amend.example/"}', '{"url": "sql:public.f"}', '{"url": ["http://amend.example/"]}',
	'{"method": "GE T"}', '{"method": true}', '{"headers": []}', '{"headers": "X"}', '{"headers": {"X": 1}}', '{"headers": {"webhook-id": "1"}}',
	'{"headers": {"X": "a\nb"}}', '{"content_type": ""}', '{"content_type": "a\nb"}', '{"body": {}}', '{"body": "not base64"}',
	'{"payload": 1, "body": "MQ=="}']) WITH ORDINALITY t (s, n),
	pg_temp.refused(format('SELECT retry.amend(%L, %L)', :'two', s)) r
ORDER BY n;
SELECT s AS call, r.code, r.message, r.hint
FROM (VALUES (1, $$amend('00000000-0000-7000-8000-000000000000', '{"max_attempts": 3}')$$), (2, $$amend_where(NULL)$$),
	(3, $$amend_where('{"max_attempts": 0}', 'amend/none')$$), (4, $$amend_where('{"max_attempts": 3}', 'amend/none')$$),
	(5, $$amend_where('{"max_attempts": 3}', 'amend/s', group_name => 'default')$$), (6, $$amend_where('{"max_attempts": 3}', key_prefix => '')$$)) t (n, s),
	pg_temp.refused('SELECT retry.' || s) r
ORDER BY n;
SELECT retry.enqueue('amend/nourl', url => 'http://amend.example/') AS nourl \gset
SELECT code, message, hint FROM pg_temp.refused(format($$SELECT retry.amend(%L, '{"url": null}')$$, :'nourl'));
SELECT code, message, hint FROM pg_temp.refused($$SELECT retry.amend_where('{"url": null}', 'amend/nourl')$$);
SET retry.max_request_bytes = 1024;
SELECT code, message FROM pg_temp.refused(format('SELECT retry.amend(%L, %L)', :'two', jsonb_build_object('payload', repeat('x', 1023))));
SELECT code, message FROM pg_temp.refused(format('SELECT retry.amend(%L, %L)', :'two', jsonb_build_object('body', repeat('MDEy', 400))));
RESET retry.max_request_bytes;
BEGIN READ ONLY;
SELECT code, message FROM pg_temp.refused(format('SELECT retry.amend(%L, %L)', :'two', '{"max_attempts": 3}'));
SELECT code, message FROM pg_temp.refused($$SELECT retry.amend_where('{"max_attempts": 3}', 'amend/s')$$);
ROLLBACK;
SELECT count(*) AS of_two FROM retry.signal WHERE task_id = :'two';
-- what no function of ours wrote changes nothing, and hurts nobody
BEGIN;
INSERT INTO retry.signal (leaf, action, after_attempt, task_id, xid, lane_hash, due_at, inert, asked_by, change)
SELECT leaf, 'a', 0, id, '3', lane_hash, clock_timestamp(), false, enqueued_by, c::jsonb
FROM retry.task, unnest(ARRAY['1', '[]', '{"x": 1}', '{"max_attempts": "x", "expires_at": "x", "url": 1, "headers": 1, "body": "x", "method": {}}',
	'{"max_attempts": -1, "expires_at": "2100-13-01T00:00:00+00:00", "backoff": "x", "body": "Mg==", "timeout_ms": 1e40}', NULL]) c
WHERE id = :'two';
SELECT max_attempts, expires_at, method, url, headers, body FROM pg_temp.shown WHERE id = :'two';
ROLLBACK;
\pset format aligned

-- who may, and who may see it
SELECT retry.grant('regress_amend_user', 'default'), retry.grant('regress_amend_other', 'default');
INSERT INTO retry.scene (name, url, paused) VALUES ('amend-shared', 'http://amend.example/', true);
SET ROLE regress_amend_user;
SELECT retry.enqueue('amend-shared', '"own"', reference => 'amend-shared') AS own \gset
SELECT retry.amend(:'own', '{"payload": "secret"}');
SELECT convert_from(body, 'UTF8') AS body FROM retry.tasks WHERE reference = 'amend-shared';
SELECT retry.amend_where('{"max_attempts": 3}') AS only_own;
SELECT code FROM pg_temp.refused(format('SELECT retry.amend(%L, %L)', :'two', '{"max_attempts": 3}'));
SELECT code, message FROM pg_temp.refused($$SELECT retry.amend_where('{"max_attempts": 3}', 'amend/s')$$);
RESET ROLE;
SELECT leaf AS leaf FROM retry.task WHERE id = :'own' \gset
SET ROLE regress_amend_other;
SELECT count(*) FROM retry.tasks WHERE reference = 'amend-shared';
SELECT retry.amended(:leaf::smallint, :'own', NULL::bytea, 'body') IS NULL AS not_told;
SELECT code FROM pg_temp.refused(format('SELECT retry.amend(%L, %L)', :'own', '{"max_attempts": 3}'));
SELECT retry.amend_where('{"max_attempts": 3}') AS none;
SELECT retry.amended(:leaf::smallint, :'own', 1, 'body');
SELECT retry.amended(:leaf::smallint, :'own', 1, 'key');
RESET ROLE;
SELECT convert_from(retry.amended(:leaf::smallint, :'own', NULL::bytea, 'body'), 'UTF8') AS told;

SELECT retry.cancel_where('amend-shared') AS shared, retry.cancel_where(group_name => 'amend') > 0 AS rest;
SELECT retry.revoke('regress_amend_user', 'default'), retry.revoke('regress_amend_other', 'default');
DELETE FROM retry.scene WHERE group_name = 'amend' OR name = 'amend-shared';
DROP ROLE regress_amend_user, regress_amend_other;
