--
-- Secrets: set, rotated, dropped, named by scenes; and signatures.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
SET client_min_messages = warning;
\pset format unaligned
CREATE ROLE regress_secret_owner;
CREATE ROLE regress_secret_user;
CREATE ROLE regress_secret_reader;
GRANT pg_read_all_data TO regress_secret_reader;
INSERT INTO retry.scene_group (name, owner) VALUES ('vault', 'regress_secret_owner');
SELECT retry.grant('regress_secret_user', 'vault');

-- What is refused, without ever showing the value.
SELECT n, r.code, r.message, r.detail, r.hint
FROM (VALUES
	(1, $$retry.set_secret('a', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La', 'vault')$$),
	(2, $$retry.set_secret('a', 'whsec_hidden', 'vault')$$),
	(3, $$retry.set_secret('a', '', 'vault')$$),
	(4, $$retry.set_secret('a', repeat('h', 8193), 'vault')$$),
	(5, $$retry.set_secret('a', E'hidden\n', 'vault')$$),
	(6, $$retry.set_secret('A', 'hidden', 'vault')$$),
	(7, $$retry.set_secret('', 'hidden', 'vault')$$),
	(8, $$retry.set_secret(repeat('a', 64), 'hidden', 'vault')$$),
	(9, $$retry.set_secret('a', 'hidden', 'nosuch')$$),
	(10, $$retry.set_secret('a', 'hidden', 'vault', '-1 s')$$),
	(11, $$retry.set_secret('a', 'hidden', 'vault', '2 years')$$),
	(12, $$retry.set_secret(NULL, 'hidden', 'vault')$$),
	(13, $$retry.set_secret('a', NULL, 'vault')$$),
	(14, $$retry.set_secret('a', 'hidden', NULL)$$),
	(15, $$retry.set_secret('a', 'hidden', 'vault', NULL)$$),
	(16, $$retry.drop_secret('a', 'vault')$$),
	(17, $$retry.drop_secret('a', 'nosuch')$$),
	(18, $$retry.drop_secret(NULL)$$)
) AS t (n, call), pg_temp.refused('SELECT ' || call) r
ORDER BY n;
SELECT count(*) FROM retry.secret;
BEGIN READ ONLY;
SELECT retry.set_secret('a', 'hidden', 'vault');
ROLLBACK;

-- Members of the owner set them; who may use the group does not.
SET ROLE regress_secret_owner;
SELECT retry.set_secret('key', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'vault');
SELECT retry.set_secret('token', 'hidden-1', 'vault');
SELECT retry.set_secret('key', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw');
SET ROLE regress_secret_user;
SELECT retry.set_secret('key', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'vault');
SELECT retry.drop_secret('key', 'vault');
SELECT name, set_at <= now() AS set, age >= '0' AS aged, active, overlap_until, signs, used_by FROM retry.secrets ORDER BY name;
SELECT value FROM retry.secret;
SET ROLE regress_secret_reader;
SELECT name, value FROM retry.secret;
SELECT count(*) FROM retry.secrets;
RESET ROLE;

-- Rotation: the values before stay for the overlap, and no longer than it says.
SELECT retry.set_secret('token', 'hidden-1', 'vault');
SELECT active FROM retry.secrets WHERE name = 'token';
SELECT retry.set_secret('token', 'hidden-2', 'vault'), retry.set_secret('token', 'hidden-3', 'vault', '1 h');
SELECT active, overlap_until - set_at AS overlap FROM retry.secrets WHERE name = 'token';
SELECT value, signs_until IS NULL AS current FROM retry.secret WHERE name = 'token' ORDER BY set_at DESC;
-- back to a former one
SELECT retry.set_secret('token', 'hidden-1', 'vault');
SELECT value, signs_until IS NULL AS current FROM retry.secret WHERE name = 'token' ORDER BY set_at DESC;
SELECT retry.set_secret('token', 'hidden-4', 'vault', '0');
SELECT value, signs_until IS NULL AS current FROM retry.secret WHERE name = 'token' ORDER BY set_at DESC;
SELECT count(retry.set_secret('many', 'hidden-' || i, 'vault')) FROM generate_series(1, 8) i;
SELECT r.code, r.message, r.hint FROM pg_temp.refused($$SELECT retry.set_secret('many', 'hidden-9', 'vault'), retry.set_secret('many', 'hidden-10', 'vault')$$) r;
SELECT retry.drop_secret('many', 'vault');
BEGIN;
SELECT retry.set_secret('undone', 'hidden', 'vault');
ROLLBACK;
SELECT name FROM retry.secrets ORDER BY name;
SELECT kind, group_name, replace(detail, session_user, 'me') AS detail FROM retry.events WHERE kind LIKE 'secret%' AND detail NOT LIKE '"many"%' ORDER BY at;

-- Scenes name them, also before they are set.
INSERT INTO retry.scene (group_name, name, url, secret) VALUES
	('vault', 'signed', 'http://127.0.0.1:9/signed', 'key'),
	('vault', 'early', 'http://127.0.0.1:9/early', 'later');
INSERT INTO retry.scene (group_name, name, url, headers) VALUES
	('vault', 'bearer', 'http://127.0.0.1:9/bearer', '{"Authorization": "Bearer {{secret:token}}", "X-Two": "{{secret:one}}{{secret:two}}"}');
SELECT n, r.code, r.message, r.hint, r.at_column
FROM (VALUES
	(1, $$secret = 'Bad'$$),
	(2, $$secret = 'token'$$),
	(3, $$secret = 'key', url = 'sql:pg_catalog.jsonb_typeof'$$),
	(4, $$headers = '{"X": "{{secret:}}"}'$$),
	(5, $$headers = '{"X": "a {{secret:A}} hidden"}'$$),
	(6, $$headers = '{"X": "{{secret:token}}"}', url = NULL$$)
) AS t (n, change), pg_temp.refused('UPDATE retry.scene SET ' || change || $$ WHERE group_name = 'vault' AND name = 'signed'$$) r
ORDER BY n;
SELECT r.code, r.message, r.hint FROM pg_temp.refused($$SELECT retry.set_secret('key', 'hidden', 'vault')$$) r;
SELECT r.code, r.message, r.hint FROM pg_temp.refused($$SELECT retry.set_secret('later', 'hidden', 'vault')$$) r;
SELECT retry.secret_names('{"A": "x{{secret:a}}y{{secret:b}}", "B": "{secret:c}"}'), retry.secret_names('{}');
SELECT name, set_at IS NOT NULL AS set, signs, used_by FROM retry.secrets ORDER BY name;
SELECT status, detail, hint FROM retry.health() WHERE check_name = 'secrets';

-- Tasks of a scene that needs one which is not set wait; so does no other.
SELECT retry.enqueue('vault/' || s, delay => '1 day') IS NOT NULL FROM unnest('{signed,early,bearer}'::text[]) s;
SELECT scene, held_reason FROM retry.tasks WHERE scene LIKE 'vault/%' ORDER BY scene;
SELECT retry.set_secret('one', '1', 'vault'), retry.set_secret('two', '2', 'vault');
SELECT scene, held_reason FROM retry.tasks WHERE scene LIKE 'vault/%' ORDER BY scene;
SELECT retry.set_secret('later', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'vault');
SELECT scene, held_reason FROM retry.tasks WHERE scene LIKE 'vault/%' ORDER BY scene;
SELECT status, detail, hint FROM retry.health() WHERE check_name = 'secrets';
SELECT retry.drop_secret('key', 'vault');
SELECT scene, held_reason FROM retry.tasks WHERE scene LIKE 'vault/%' ORDER BY scene;
SELECT r.code, r.message, r.hint FROM pg_temp.refused($$SELECT retry.call('vault/signed', mode => 'local')$$) r;

-- A task's own headers cannot name them, nor be amended so.
SELECT r.code, r.message, r.hint FROM pg_temp.refused($$SELECT retry.enqueue('vault/bearer', headers => '{"X": "{{secret:token}}"}')$$) r;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.amend(id, '{"headers": {"X": "{{secret:token}}"}}') FROM retry.tasks WHERE scene = 'vault/bearer'$$) r;
-- and its own URL must be of the scene's origin, or nothing is filled in
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.call('vault/bearer', mode => 'local', url => 'http://127.0.0.2:9/')$$) r;

-- Documents name secrets, and hold none.
SELECT s ->> 'name' AS scene, s -> 'secret' AS secret FROM jsonb_array_elements(retry.export_config('vault') #> '{groups,0,scenes}') s;
SELECT retry.export_config('vault')::text LIKE '%hidden%' AS leaks;
-- the table is not part of a dump, and has no statistics of its values
SELECT 'retry.secret'::regclass = ANY (extconfig) AS dumped FROM pg_extension WHERE extname = 'retry';
ANALYZE retry.secret;
SELECT attname FROM pg_stats WHERE schemaname = 'retry' AND tablename = 'secret' AND attname = 'value';

-- Verified: the example of the specification, and what is not it.
CREATE FUNCTION pg_temp.verified(secret text, id text, sent text, body text, signature text, tolerance interval DEFAULT '100 years')
RETURNS boolean LANGUAGE sql AS
$$ SELECT retry.verify_signature(secret, id, sent, convert_to(body, 'UTF8'), signature, tolerance) $$;
\set good '''whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'', ''msg_p5jXN8AQM9LWM0D4loKWxJek'', ''1614265330'', ''{"test": 2432232314}'''
\set v1 '''v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='''
SELECT pg_temp.verified(:good, :v1) AS exact,
	pg_temp.verified(:good, 'v1,AAAA v1a,x ' || :v1 || ' v1,BBBB') AS among_others,
	pg_temp.verified(:good, :v1, '5 min') AS long_ago,
	pg_temp.verified(:good, '') AS empty,
	pg_temp.verified(:good, NULL) AS absent,
	pg_temp.verified(:good, replace(:v1, 'v1', 'v2')) AS version,
	pg_temp.verified(:good, replace(:v1, 'g0', 'g1')) AS forged;
SELECT k, pg_temp.verified('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', id, sent, body, :v1)
FROM (VALUES
	(1, 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330', '{"test": 2432232314}'),
	(2, 'msg_p5jXN8AQM9LWM0D4loKWxJe', '1614265330', '{"test": 2432232314}'),
	(3, 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265331', '{"test": 2432232314}'),
	(4, 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330', '{"test": 2432232315}'),
	(5, 'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330', '1614265330', '{"test": 2432232314}'),
	(6, 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330.0', '{"test": 2432232314}'),
	(7, 'msg_p5jXN8AQM9LWM0D4loKWxJek', 'now', '{"test": 2432232314}'),
	(8, NULL, '1614265330', '{"test": 2432232314}'),
	(9, 'msg_p5jXN8AQM9LWM0D4loKWxJek', NULL, '{"test": 2432232314}'),
	(10, 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330', NULL)
) AS t (k, id, sent, body)
ORDER BY k;
SELECT pg_temp.verified('whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330', '{"test": 2432232314}', :v1) AS other_key;
SELECT retry.verify_signature(ARRAY['whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'],
	'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330', '{"test": 2432232314}', :v1, '100 years') AS one_of_two,
	retry.verify_signature('{}'::text[], 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330', '{"test": 2432232314}', :v1, '100 years') AS one_of_none;
SELECT n, r.code, r.message, r.hint
FROM (VALUES
	(1, $$retry.verify_signature(NULL::text, 'i', '1', '', '')$$),
	(2, $$retry.verify_signature('hidden', 'i', '1', '', '')$$),
	(3, $$retry.verify_signature('whsec_hidden', 'i', '1', '', '')$$),
	(4, $$retry.verify_signature(ARRAY['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', NULL], 'i', '1', '', '')$$),
	(5, $$retry.verify_signature('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'i', '1', '', '', '-1 s')$$),
	(6, $$retry.verify_signature('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'i', '1', '', '', NULL)$$)
) AS t (n, call), pg_temp.refused('SELECT ' || call) r
ORDER BY n;

-- By ed25519: who has the public key verifies, and cannot sign.
SELECT n, r.code, r.message, r.hint
FROM (VALUES
	(1, $$retry.set_secret('edkey', 'whsk_hidden', 'vault')$$),
	(2, $$retry.set_secret('edkey', 'whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=', 'vault')$$),
	(3, $$retry.set_secret('edkey', 'whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2CdYbGd7/1aYLqESvSS7CzEREnFaXsyaRlwO6wDHK5/YA==', 'vault')$$),
	(4, $$retry.public_key('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')$$),
	(5, $$retry.public_key('whsk_hidden')$$),
	(6, $$retry.verify_signature('whpk_hidden', 'i', '1', '', '')$$)
) AS t (n, call), pg_temp.refused('SELECT ' || call) r
ORDER BY n;
SELECT retry.set_secret('edkey', 'whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=', 'vault');
SELECT signs FROM retry.secrets WHERE name = 'edkey';
SELECT retry.public_key('whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=') AS public \gset
SELECT :'public', retry.public_key('whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==') = :'public' AS of_both;
\set signed '''msg_p5jXN8AQM9LWM0D4loKWxJek'', ''1614265330'', ''{"test": 2432232314}'''
\set v1a '''v1a,fldxM4gAKugP6nnt1hdz3sgGfZ6d99nzrMFnZOELIxbzEHoVmAb2ADpkJK7zgPePmPsle0zV9jSeGlHFG2NVAw=='''
SELECT pg_temp.verified(:'public', :signed, :v1a) AS exact,
	pg_temp.verified(:'public', :signed, 'v1,AAAA ' || :v1a || ' v1a,BBBB') AS among_others,
	pg_temp.verified('whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=', :signed, :v1a) AS private,
	pg_temp.verified(:'public', :signed, :v1) AS other_version,
	pg_temp.verified(:'public', :signed, replace(:v1a, 'v1a,', 'v1,')) AS renamed,
	pg_temp.verified(:'public', :signed, overlay(:v1a PLACING 'xx' FROM 10)) AS forged,
	pg_temp.verified(:'public', :signed, :v1a, '5 min') AS long_ago,
	pg_temp.verified(:'public', 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265331', '{"test": 2432232314}', :v1a) AS other_time,
	retry.verify_signature(ARRAY['whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', :'public'], 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330', '{"test": 2432232314}', :v1a, '100 years') AS one_of_two;

-- A group takes its secrets with it.
SELECT count(*) > 0 AS has FROM retry.secret;
SELECT count(retry.cancel(id)) FROM retry.tasks WHERE scene LIKE 'vault/%';
INSERT INTO retry.scene_group (name, owner) VALUES ('brief', 'regress_secret_owner');
SELECT retry.set_secret('key', 'hidden', 'brief');
DELETE FROM retry.scene_group WHERE name = 'brief';
SELECT count(*) FROM retry.secret s WHERE NOT EXISTS (SELECT FROM retry.scene_group g WHERE g.id = s.group_id);
DELETE FROM retry.secret;
