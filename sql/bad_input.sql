--
-- Bad input: every mistake has an SQLSTATE and a message that names it, and
-- nothing is stored.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
\pset format unaligned
\pset null '(null)'

-- shows a moment as a word, since messages name the moments given
CREATE FUNCTION pg_temp.steady(message text) RETURNS text
LANGUAGE sql AS $$ SELECT regexp_replace(message, '\d{4}-\d\d-\d\d [^"]*', '(moment)') $$;

INSERT INTO retry.scene_group (name, paused) VALUES ('bad', true);
INSERT INTO retry.scene (group_name, name, url) VALUES ('bad', 'url', 'http://bad.example/');
INSERT INTO retry.scene (group_name, name) VALUES ('bad', 'nourl');
INSERT INTO retry.scene (group_name, name, url, archived) VALUES ('bad', 'old', 'http://bad.example/', true);

CREATE TEMP TABLE stored AS
SELECT (SELECT count(*) FROM retry.task) AS tasks, (SELECT count(*) FROM retry.signal) AS signals;
-- upkeep may take away what other tests have left
CREATE TEMP TABLE keys_before AS SELECT * FROM retry.key;

-- the target
SELECT s AS statement, r.code, r.message, r.hint
FROM (VALUES
	(1, $$SELECT retry.enqueue(NULL)$$),
	(2, $$SELECT retry.enqueue('')$$),
	(3, $$SELECT retry.enqueue('nosuch')$$),
	(4, $$SELECT retry.enqueue('bad/nosuch')$$),
	(5, $$SELECT retry.enqueue('nosuch/url')$$),
	(6, $$SELECT retry.enqueue('Bad/url')$$),
	(7, $$SELECT retry.enqueue('bad/url/more')$$),
	(8, $$SELECT retry.enqueue('bad/')$$),
	(9, $$SELECT retry.enqueue('/url')$$),
	(10, $$SELECT retry.enqueue('bad url')$$),
	(11, $$SELECT retry.enqueue(repeat('a', 64))$$),
	(12, $$SELECT retry.enqueue('bad/nourl')$$),
	(13, $$SELECT retry.enqueue('bad/old')$$),
	(14, $$SELECT retry.enqueue('sql:public.f')$$),
	(15, $$SELECT retry.enqueue('localhost:8080/x')$$),
	(16, $$SELECT retry.enqueue('mailto:someone@example.com')$$)
) AS t (n, s), pg_temp.refused(s) AS r
ORDER BY n;

-- URLs, in the target and beside it
SELECT replace(replace(s, E'\r', '\r'), E'\n', '\n') AS url, r.code, r.message
FROM (VALUES
	(1, 'ftp://host/'),
	(2, 'file:///etc/passwd'),
	(3, 'gopher://host/'),
	(4, 'http:/host/'),
	(5, 'http://'),
	(6, 'http:///path'),
	(7, 'http://user:secret@host/'),
	(8, 'http://user@host/'),
	(9, E'http://host/\r\nX: y'),
	(10, E'http://host/a\nb'),
	(11, 'http://host/a b'),
	(12, 'http://host\@other/'),
	(13, 'http://host:0/'),
	(14, 'http://host:65536/'),
	(15, 'http://host:port/'),
	(16, 'http://0x7f.1/'),
	(17, 'http://2130706433/'),
	(18, 'http://[::1/'),
	(19, 'http://[fe80::1%25eth0]/'),
	(20, 'http://a..b/')
) AS t (n, s), pg_temp.refused(format('SELECT retry.enqueue(%L)', s)) AS r
ORDER BY n;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.enqueue('http://host/' || repeat('x', 8192))$$) r;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.enqueue('bad/url', url => 'ftp://host/')$$) r;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.enqueue('bad/url', url => '')$$) r;
SELECT r.code, r.message, r.hint FROM pg_temp.refused($$SELECT retry.enqueue('http://a/', url => 'http://b/')$$) r;

-- moments and limits
SELECT s AS statement, r.code, pg_temp.steady(r.message) AS message, r.hint
FROM (VALUES
	(1, $$SELECT retry.enqueue('bad/url', delay => '-1 s')$$),
	(2, $$SELECT retry.enqueue('bad/url', delay => '1 day -25 h')$$),
	(3, $$SELECT retry.enqueue('bad/url', delay => '1 s', due_at => now())$$),
	(4, $$SELECT retry.enqueue('bad/url', due_at => 'infinity')$$),
	(5, $$SELECT retry.enqueue('bad/url', due_at => '-infinity')$$),
	(6, $$SELECT retry.enqueue('bad/url', delay => '300000 years')$$),
	(7, $$SELECT retry.enqueue('bad/url', expires_at => now() - interval '1 s')$$),
	(8, $$SELECT retry.enqueue('bad/url', expires_at => '-infinity')$$),
	(9, $$SELECT retry.enqueue('bad/url', expires_at => 'infinity')$$),
	(10, $$SELECT retry.enqueue('bad/url', max_attempts => 0)$$),
	(11, $$SELECT retry.enqueue('bad/url', max_attempts => -1)$$),
	(12, $$SELECT retry.enqueue('bad/url', max_attempts => 1000001)$$),
	(13, $$SELECT retry.enqueue('bad/url', timeout => '0')$$),
	(14, $$SELECT retry.enqueue('bad/url', timeout => '-1 s')$$),
	(15, $$SELECT retry.enqueue('bad/url', timeout => '0.5 ms')$$),
	(16, $$SELECT retry.enqueue('bad/url', timeout => '1 h 1 us')$$),
	(17, $$SELECT retry.enqueue('bad/url', timeout => '178000000 years')$$),
	(18, $$SELECT retry.enqueue('bad/url', backoff => 'sometimes')$$)
) AS t (n, s), pg_temp.refused(s) AS r
ORDER BY n;

-- the request
SELECT s AS statement, r.code, r.message, r.hint
FROM (VALUES
	(1, $$SELECT retry.enqueue('bad/url', '{}', body => 'x')$$),
	(2, $$SELECT retry.enqueue('bad/url', method => '')$$),
	(3, $$SELECT retry.enqueue('bad/url', method => 'GE T')$$),
	(4, $$SELECT retry.enqueue('bad/url', method => E'GET\r\n')$$),
	(5, $$SELECT retry.enqueue('bad/url', method => 'connect')$$),
	(6, $$SELECT retry.enqueue('bad/url', method => 'TRACE')$$),
	(7, $$SELECT retry.enqueue('bad/url', content_type => '')$$),
	(8, $$SELECT retry.enqueue('bad/url', content_type => E'text/plain\r\nX: y')$$),
	(9, $$SELECT retry.enqueue('bad/url', content_type => repeat('x', 256))$$),
	(10, $$SELECT retry.enqueue('bad/url', reference => '')$$),
	(11, $$SELECT retry.enqueue('bad/url', reference => repeat('x', 256))$$),
	(12, $$SELECT retry.enqueue('bad/url', reference => E'a\tb')$$),
	(13, $$SELECT retry.enqueue('bad/url', lane => '')$$),
	(14, $$SELECT retry.enqueue('bad/url', lane => repeat('x', 256))$$),
	(15, $$SELECT retry.enqueue('bad/url', lane => E'a\x7f')$$),
	(16, $$SELECT retry.enqueue('bad/url', key => '')$$),
	(17, $$SELECT retry.enqueue('bad/url', key => repeat('x', 256))$$),
	(18, $$SELECT retry.enqueue('bad/url', key => E'a\nb')$$),
	(19, $$SELECT retry.enqueue('bad/url', on_conflict => 'ignore')$$),
	(20, $$SELECT retry.enqueue('bad/url', on_success => 'bad/url')$$),
	(21, $$SELECT retry.enqueue('bad/url', on_dead => 'bad/url')$$),
	(22, $$SELECT retry.enqueue('bad/url', on_success => '')$$),
	(23, $$SELECT retry.enqueue('bad/url', on_success => 'Bad/url')$$),
	(24, $$SELECT retry.enqueue('bad/url', on_dead => 'nosuch')$$),
	(25, $$SELECT retry.enqueue('bad/url', on_dead => 'nosuch/url')$$),
	(26, $$SELECT retry.enqueue('bad/url', on_dead => 'http://user:secret@host/')$$),
	(27, $$SELECT retry.enqueue('bad/url', on_dead => 'bad/nourl')$$),
	(28, $$SELECT retry.enqueue('bad/url', on_success => 'bad/old')$$),
	(29, $$SELECT retry.enqueue('http://bad.example/', on_success => 'default')$$)
) AS t (n, s), pg_temp.refused(s) AS r
ORDER BY n;

-- headers
SELECT s AS headers, r.code, r.message
FROM (VALUES
	(1, '[]'),
	(2, '"X: y"'),
	(3, 'null'),
	(4, '{"X": 1}'),
	(5, '{"X": null}'),
	(6, '{"X": ["a"]}'),
	(7, '{"X": {"a": "b"}}'),
	(8, '{"": "x"}'),
	(9, '{"X Y": "x"}'),
	(10, '{"X:": "x"}'),
	(11, '{"X\r\nY": "x"}'),
	(12, '{"X": "a\r\nY: b"}'),
	(13, '{"X": "a\nb"}'),
	(14, '{"X": "a\u0001b"}'),
	(15, '{"content-length": "1"}'),
	(16, '{"Transfer-Encoding": "chunked"}'),
	(17, '{"Connection": "close"}'),
	(18, '{"Host": "other"}'),
	(19, '{"Expect": "100-continue"}'),
	(20, '{"idempotency-key": "x"}'),
	(21, '{"Webhook-Id": "x"}'),
	(22, '{"webhook-signature": "x"}'),
	(23, '{"Retry-Attempt": "7"}'),
	(24, '{"Retry-Deadline-Ms": "7"}'),
	(25, '{"Retry-Gid": "x"}'),
	(26, '{"retry-branch": "x"}'),
	(27, '{"Retry-Operation": "x"}')
) AS t (n, s), pg_temp.refused(format('SELECT retry.enqueue(''bad/url'', headers => %L)', s)) AS r
ORDER BY n;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.enqueue('bad/url', headers => jsonb_build_object('X', repeat('x', 32768)))$$) r;

-- large bodies
SET retry.max_request_bytes = '1kB';
SELECT r.code, r.message, r.hint FROM pg_temp.refused($$SELECT retry.enqueue('bad/url', to_jsonb(repeat('x', 1023)))$$) r;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.enqueue('bad/url', body => convert_to(repeat('x', 1025), 'UTF8'))$$) r;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT * FROM retry.enqueue_many('bad/url', ARRAY['1', to_jsonb(repeat('x', 1023))])$$) r;
RESET retry.max_request_bytes;

-- batches
SELECT s AS statement, r.code, pg_temp.steady(r.message) AS message, r.hint
FROM (VALUES
	(1, $$SELECT * FROM retry.enqueue_many(NULL, ARRAY['1']::jsonb[])$$),
	(2, $$SELECT * FROM retry.enqueue_many('bad/nosuch', ARRAY['1']::jsonb[])$$),
	(3, $$SELECT * FROM retry.enqueue_many('bad/url', ARRAY['1', '2']::jsonb[], ARRAY['k'])$$),
	(4, $$SELECT * FROM retry.enqueue_many('bad/url', NULL, ARRAY['k'])$$),
	(5, $$SELECT * FROM retry.enqueue_many('bad/url', '{{1,2},{3,4}}'::jsonb[])$$),
	(6, $$SELECT * FROM retry.enqueue_many('bad/url', ARRAY['1', '2']::jsonb[], ARRAY['good', ''])$$),
	(7, $$SELECT * FROM retry.enqueue_many('bad/url', ARRAY['1', '2']::jsonb[], ARRAY['good', E'b\nd'])$$),
	(8, $$SELECT * FROM retry.enqueue_many('bad/url', ARRAY['1']::jsonb[], delay => '-1 s')$$),
	(9, $$SELECT * FROM retry.enqueue_many('bad/url', ARRAY['1']::jsonb[], expires_at => '2000-01-01')$$),
	(10, $$SELECT * FROM retry.enqueue_many('bad/url', ARRAY['1']::jsonb[], headers => '[]')$$),
	(11, $$SELECT * FROM retry.enqueue_many('bad/url', ARRAY['1']::jsonb[], on_dead => 'x')$$),
	(12, $$SELECT * FROM retry.enqueue_many('bad/url', ARRAY['1']::jsonb[], on_conflict => 'x')$$)
) AS t (n, s), pg_temp.refused(s) AS r
ORDER BY n;

-- administration
SELECT s AS statement, r.code, r.message, r.hint
FROM (VALUES
	(1, $$SELECT retry.cancel('00000000-0000-7000-8000-000000000000')$$),
	(2, $$SELECT retry.run_now('00000000-0000-7000-8000-000000000000')$$),
	(3, $$SELECT retry.replay('00000000-0000-7000-8000-000000000000')$$),
	(4, $$SELECT retry.wait('ffffffff-ffff-ffff-ffff-ffffffffffff')$$),
	(5, $$SELECT retry.replay_dead('http://host/')$$),
	(6, $$SELECT retry.replay_dead('bad/nosuch')$$),
	(7, $$SELECT retry.replay_dead(spread => '-1 s')$$),
	(8, $$SELECT retry.grant(current_user::regrole, 'nosuch')$$),
	(9, $$SELECT retry.revoke(current_user::regrole, 'nosuch')$$),
	(10, $$SELECT retry.grant('-'::regrole, 'bad')$$),
	(11, $$SELECT retry.grant(4294967295::oid::regrole, 'bad')$$)
) AS t (n, s), pg_temp.refused(s) AS r
ORDER BY n;

-- configuration
SELECT s AS statement, r.code, r.message
FROM (VALUES
	(1, $$INSERT INTO retry.scene (group_name, name, url) VALUES ('bad', 'x', 'ftp://host/')$$),
	(2, $$INSERT INTO retry.scene (group_name, name, headers) VALUES ('bad', 'x', '{"Host": "x"}')$$),
	(3, $$UPDATE retry.scene SET url = 'http://user:secret@host/' WHERE group_name = 'bad' AND name = 'url'$$),
	(4, $$SELECT retry.origin('host')$$)
) AS t (n, s), pg_temp.refused(s) AS r
ORDER BY n;

-- not in a transaction that only reads
BEGIN READ ONLY;
SELECT retry.enqueue('bad/url');
ROLLBACK;
BEGIN READ ONLY;
SELECT * FROM retry.enqueue_many('bad/url', ARRAY['1']::jsonb[]);
ROLLBACK;

-- nothing was stored
SELECT (SELECT count(*) FROM retry.task) - tasks AS tasks,
	(SELECT count(*) FROM (SELECT scene_id, role, key FROM retry.key EXCEPT SELECT scene_id, role, key FROM keys_before) k) AS keys,
	(SELECT count(*) FROM retry.signal) - signals AS signals
FROM stored;

-- what is just allowed is stored
BEGIN;
SELECT count(retry.enqueue('bad/url', method => m)) FROM unnest(ARRAY['get', 'Patch', 'PROPFIND']) m;
SELECT t.method FROM retry.task t JOIN retry.scene s ON s.id = t.scene_id WHERE s.group_name = 'bad' ORDER BY 1;
SELECT retry.enqueue('bad/url', key => repeat('k', 255), lane => repeat('l', 255), reference => repeat('r', 255),
	max_attempts => 1000000, timeout => '1 h', delay => '0', headers => '{"X": "", "Content-Type": "a/b"}') IS NOT NULL AS stored;
SELECT retry.enqueue('bad/url', timeout => '1 ms', max_attempts => 1) IS NOT NULL AS stored;
SELECT retry.enqueue('bad/nourl', url => 'https://bad.example:8443/?q#f') IS NOT NULL AS stored;
SET LOCAL retry.max_request_bytes = '1kB';
SELECT retry.enqueue('bad/url', to_jsonb(repeat('x', 1022))) IS NOT NULL AS stored;
ROLLBACK;

DELETE FROM retry.scene WHERE group_name = 'bad';
DELETE FROM retry.scene_group WHERE name = 'bad';
