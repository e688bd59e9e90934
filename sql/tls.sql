--
-- What scenes ask of TLS: what is taken and refused when it is stored.  What it
-- does is in test/t/074_tls.pl.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
SET client_min_messages = warning;
\pset format unaligned
-- a key and its certificate, and another key
\set identity `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=client -keyout - -out - 2>/dev/null`
\set other_key `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2>/dev/null`
SELECT substring(:'identity' FROM '-----BEGIN CERT.*') AS certificate \gset
CREATE ROLE regress_tls_owner;
CREATE ROLE regress_tls_ops;
GRANT SELECT, INSERT, UPDATE ON retry.scene TO regress_tls_ops;
GRANT SELECT ON retry.scene_group TO regress_tls_ops;
INSERT INTO retry.scene_group (name, owner) VALUES ('tls', 'regress_tls_owner');
INSERT INTO retry.scene (group_name, name, url) VALUES ('tls', 'usual', 'https://127.0.0.1:9/');
SELECT tls_verify, tls_unverified_by, tls_min_version, tls_ca, tls_pin, tls_cert FROM retry.scene WHERE name = 'usual';

-- Values that are refused, and why.
SELECT n, r.code, r.message, r.detail, r.hint, r.at_column
FROM (VALUES
	(1, $$tls_min_version = '1.1'$$),
	(2, $$tls_min_version = NULL$$),
	(3, $$tls_pin = 'sha256//AAAA'$$),
	(4, $$tls_pin = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='$$),
	(5, $$tls_pin = 'sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='$$),
	(6, $$tls_cert = 'No'$$),
	(7, $$tls_verify = NULL$$),
	(8, $$tls_verify = false, url = NULL$$),
	(9, $$tls_cert = 'client', url = NULL$$),
	(10, $$tls_cert = 'client', url = 'sql:pg_catalog.jsonb_typeof'$$)
) AS t (n, change), pg_temp.refused('UPDATE retry.scene SET ' || change || $$ WHERE group_name = 'tls'$$) r
ORDER BY n;
SELECT n, r.code, r.message, r.hint
FROM (VALUES
	(1, 'ca.pem'), (2, ''), (3, :'identity'), (4, :'other_key'), (5, left(:'certificate', -30)),
	(6, E'-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'), (7, repeat('x', 65537))
) AS t (n, ca), pg_temp.refused(format($$UPDATE retry.scene SET tls_ca = %L WHERE group_name = 'tls'$$, ca)) r
ORDER BY n;
UPDATE retry.scene SET tls_ca = :'certificate', tls_min_version = '1.3',
	tls_pin = 'sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=;sha256//BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB='
WHERE group_name = 'tls';
UPDATE retry.scene SET tls_ca = E'two of them:\n' || :'certificate' || E'\n' || :'certificate' WHERE group_name = 'tls';

-- Client certificates are secrets with a certificate and its key.
SELECT n, r.code, r.message, r.hint
FROM (VALUES
	(1, :'certificate'), (2, :'other_key'), (3, :'certificate' || E'\n' || :'other_key'), (4, :'identity' || E'\n' || :'other_key'),
	(5, replace(:'identity', 'PRIVATE KEY', 'ENCRYPTED PRIVATE KEY')), (6, rpad(:'identity', 66000, 'x')),
	(7, E'-----BEGIN hidden')
) AS t (n, value), pg_temp.refused(format($$SELECT retry.set_secret('client', %L, 'tls')$$, value)) r
ORDER BY n;
SELECT retry.set_secret('client', :'identity', 'tls'), retry.set_secret('token', 'hidden', 'tls'),
	retry.set_secret('key', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'tls');
SELECT r.code, r.message, r.hint, r.at_column
FROM unnest(ARRAY[$$secret = 'client'$$, $$tls_cert = 'token'$$, $$tls_cert = 'key'$$]) WITH ORDINALITY AS t (change, n),
	pg_temp.refused('UPDATE retry.scene SET ' || change || $$ WHERE group_name = 'tls'$$) r
ORDER BY n;
UPDATE retry.scene SET tls_cert = 'client', secret = 'key' WHERE group_name = 'tls';
SELECT r.code, r.message, r.hint FROM pg_temp.refused($$SELECT retry.set_secret('client', 'hidden', 'tls')$$) r;
SELECT r.code, r.message, r.hint FROM pg_temp.refused(format($$SELECT retry.set_secret('key', %L, 'tls')$$, :'identity')) r;
INSERT INTO retry.scene (group_name, name, url, tls_cert) VALUES ('tls', 'tls-early', 'https://127.0.0.1:9/', 'later');
-- in a header it is as if it were not set: nobody gets to see a private key
INSERT INTO retry.scene (group_name, name, url, headers) VALUES ('tls', 'tls-header', 'https://127.0.0.1:9/', '{"X": "{{secret:client}}"}');
SELECT name, set_at IS NOT NULL AS set, signs, certificate, used_by FROM retry.secrets WHERE group_name = 'tls' ORDER BY name;
SELECT retry.enqueue('tls/' || s, delay => '1 day') IS NOT NULL FROM unnest('{usual,tls-early,tls-header}'::text[]) s;
SELECT scene, held_reason FROM retry.tasks WHERE scene LIKE 'tls/%' ORDER BY scene;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.call('tls/tls-header', mode => 'local')$$) r;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.call('tls/usual', mode => 'local', url => 'https://127.0.0.2:9/')$$) r;

-- Verification is switched off by superusers only, who are named.
SET ROLE regress_tls_ops;
SELECT r.code, r.message, r.detail, r.hint, r.at_column FROM pg_temp.refused($$UPDATE retry.scene SET tls_verify = false WHERE name = 'tls-early'$$) r;
SELECT r.code, r.message FROM pg_temp.refused($$INSERT INTO retry.scene (group_name, name, url, tls_verify) VALUES ('tls', 'new', 'https://127.0.0.1:9/', false)$$) r;
RESET ROLE;
UPDATE retry.scene SET tls_verify = false WHERE name = 'tls-early';
SET ROLE regress_tls_ops;
SELECT n, r.code, r.message
FROM unnest(ARRAY[$$url = 'https://127.0.0.2:9/'$$, $$url = NULL, targets = '{https://127.0.0.2:9/}'$$, $$tls_pin = NULL, url = 'https://127.0.0.3:9/'$$]) WITH ORDINALITY AS t (change, n),
	pg_temp.refused('UPDATE retry.scene SET ' || change || $$ WHERE name = 'tls-early'$$) r
ORDER BY n;
UPDATE retry.scene SET description = 'changed', tls_unverified_by = 'regress_tls_ops' WHERE name = 'tls-early';
UPDATE retry.scene SET tls_unverified_by = 'regress_tls_ops' WHERE name = 'tls-header';
RESET ROLE;
SELECT name, tls_verify, tls_unverified_by = session_user AS by_me FROM retry.scene WHERE group_name = 'tls' ORDER BY name;
SELECT status, detail, hint FROM retry.health() WHERE check_name = 'tls';
SET ROLE regress_tls_ops;
UPDATE retry.scene SET tls_verify = true WHERE name = 'tls-early';
RESET ROLE;
SELECT tls_verify, tls_unverified_by FROM retry.scene WHERE name = 'tls-early';
SELECT status, detail, hint FROM retry.health() WHERE check_name = 'tls';

SELECT count(retry.cancel(id)) FROM retry.tasks WHERE scene LIKE 'tls/%';
SELECT count(retry.drop_secret(name, 'tls')) FROM retry.secrets WHERE group_name = 'tls' AND set_at IS NOT NULL;
REVOKE ALL ON retry.scene, retry.scene_group FROM regress_tls_ops;
DELETE FROM retry.scene WHERE group_name = 'tls';
