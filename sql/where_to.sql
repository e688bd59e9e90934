--
-- Where a group's requests may go: what is told at once to who enqueues. What
-- is decided when a request is sent is in test/t/073_where_to.pl.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
SET client_min_messages = warning;
\pset format unaligned
\pset tuples_only on
CREATE ROLE regress_where;
INSERT INTO retry.scene_group (name, owner, allowed_hosts) VALUES
	('where', 'regress_where', '{example.com, *.example.org:*, 127.0.0.1:9, "[2a00::1]:8443"}');
INSERT INTO retry.scene_group (name, owner, https_only) VALUES ('where-tls', 'regress_where', true);
INSERT INTO retry.scene (group_name, name, url) VALUES
	('where', 'any', NULL), ('where', 'elsewhere', 'https://elsewhere.example.net/'), ('where-tls', 'any', NULL);

-- Lists that make no sense, and some that do.
SELECT hosts, pg_temp.said(format('SELECT retry.check_hosts(%L)', hosts)) FROM (VALUES
	(NULL), ('{}'), ('{NULL}'), ('{example.com,http://example.com}'), ('{*}'), ('{*:443,"*.example.com:*"}'), ('{*example.com}'),
	('{10.0.0.0/8}'), ('{2130706433}'), ('{example.com:0}'), ('{"[::1]"}'), ('{::1}'), ('{user@example.com}'),
	('{{a},{b}}'), ('{bücher.example}')) v(hosts);
SELECT pg_temp.said(format('SELECT retry.check_hosts(%L)', array_fill('a'::text, ARRAY[257])));
SELECT pg_temp.said($$UPDATE retry.scene_group SET allowed_hosts = '{a, b/c}' WHERE name = 'where'$$);

-- URLs of tasks.
SELECT url, pg_temp.said(format('SELECT retry.enqueue(''where/any'', url => %L, delay => ''1 day'')', url)) FROM (VALUES
	('https://example.com/'), ('https://EXAMPLE.com./path?q#f'), ('http://example.com/'), ('https://example.com:8443/'),
	('https://www.example.com/'), ('https://example.com.evil.net/'), ('https://a.b.example.org:1/'), ('https://example.org/'),
	('http://127.0.0.1:9/'), ('http://127.0.0.1:10/'), ('http://[2a00:0:0::1]:8443/'), ('http://[2a00::1]/')) v(url);
SELECT pg_temp.said($$SELECT retry.enqueue('where/elsewhere', delay => '1 day')$$);	-- a scene's own URL is judged when it is called
SELECT pg_temp.said($$SELECT retry.enqueue_many('where/any', '{1,2}', url => 'http://elsewhere.example.net/')$$);
SELECT pg_temp.said($$SELECT retry.call('where/any', url => 'http://elsewhere.example.net/', mode => 'remote')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('where-tls/any', url => 'http://example.com/', delay => '1 day')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('where-tls/any', url => 'https://example.com/', delay => '1 day')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('where-tls/any', url => 'sql:public.f', delay => '1 day')$$);
SELECT count(*) FROM retry.task t JOIN retry.scene s ON s.id = t.scene_id WHERE s.group_name LIKE 'where%';

-- Addresses that are blocked, in targets, callbacks and changes.
SELECT target, pg_temp.said(format('SELECT retry.enqueue(%L)', target)) FROM (VALUES
	('http://169.254.169.254/latest/meta-data/'), ('http://100.100.100.200/'), ('http://[::1]:9/'), ('http://[::ffff:169.254.169.254]/'),
	('http://[64:ff9b::a9fe:a9fe]/'), ('http://198.18.0.1/'), ('http://0.0.0.0/'), ('http://255.255.255.255/')) v(target);
SELECT pg_temp.said($$SELECT retry.enqueue('http://127.0.0.1:9/', on_dead => 'http://169.254.169.254/')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('where/any', url => 'https://169.254.169.254/')$$);	-- the list comes first
BEGIN;
SELECT retry.enqueue('https://example.com/', delay => '1 day') AS id \gset
SELECT pg_temp.said(format($$SELECT retry.amend(%L, '{"url": "http://[::1]/"}')$$, :'id'));
ROLLBACK;

-- A list counts from its commit on, as other columns do; NULL is any host.
BEGIN;
UPDATE retry.scene_group SET allowed_hosts = '{*.example.net}' WHERE name = 'where';
SELECT pg_temp.said($$SELECT retry.enqueue('where/any', url => 'https://a.example.net/', delay => '1 day')$$);
SELECT pg_temp.said($$SELECT retry.enqueue('where/any', url => 'https://example.com/', delay => '1 day')$$);
UPDATE retry.scene_group SET allowed_hosts = NULL WHERE name = 'where';
SELECT pg_temp.said($$SELECT retry.enqueue('where/any', url => 'https://example.com/', delay => '1 day')$$);
ROLLBACK;
SELECT pg_temp.said($$SELECT retry.enqueue('where/any', url => 'https://a.example.net/', delay => '1 day')$$);

-- It travels with a document.
SELECT g -> 'allowed_hosts' AS allowed_hosts, g -> 'https_only' AS https_only
FROM jsonb_array_elements(retry.export_config('where') -> 'groups') g;
SELECT pg_temp.said($$SELECT * FROM retry.import_config('{"retry": "1.0", "groups": [{"name": "where", "allowed_hosts": ["a b"]}]}')$$);

SELECT retry.cancel_where(target => 'where/any'), retry.cancel_where(target => 'where/elsewhere'), retry.cancel_where(target => 'where-tls/any');
