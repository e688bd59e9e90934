--
-- Alarms: what rules and channels take and refuse, what is news and when it is
-- told, on a clock of our own.  All in transactions that are rolled back, so
-- that the worker which looks at alarms sees none of it.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
SET client_min_messages = warning;
SET timezone = 'UTC';
\pset format unaligned
BEGIN;
INSERT INTO retry.scene_group (name) VALUES ('alarmed');
INSERT INTO retry.scene (group_name, name, url) VALUES ('alarmed', 'one', 'http://127.0.0.1:9/'), ('alarmed', 'two', 'http://127.0.0.1:9/');
INSERT INTO retry.channel (group_name, name, kind, url) VALUES
	('alarmed', 'ops', 'webhook', 'http://127.0.0.1:9/ops'),
	('alarmed', 'team', 'wecom', 'http://127.0.0.1:9/team');
INSERT INTO retry.alarm_rule (group_name, name, condition, channels) VALUES ('alarmed', 'dead', 'dead', '{ops}');

-- What is refused, and why.
SELECT change, r.code, r.message, r.at_column
FROM (VALUES
	(1, $$name = 'Upper'$$),
	(2, $$kind = 'pigeon'$$),
	(3, $$url = 'ftp://host/'$$),
	(4, $$url = 'sql:pg_catalog.now'$$),
	(5, $$template = '{{nonsense}}'$$),
	(6, $$template = '{"text": {{text}}}'$$),
	(7, $$kind = 'slack', template = '{}'$$),
	(8, $$kind = 'slack', secret = 'x'$$),
	(9, $$kind = 'pagerduty'$$),
	(10, $$url = NULL$$),
	(11, $$secret = 'X'$$),
	(12, $$url = 'smtp://127.0.0.1'$$),
	(13, $$kind = 'email'$$),
	(14, $$mail_to = '{a@b}'$$)
) AS t (n, change), pg_temp.refused('UPDATE retry.channel SET ' || change || $$ WHERE group_name = 'alarmed' AND name = 'ops'$$) r
ORDER BY n;
SELECT change, r.code, r.message, r.at_column
FROM (VALUES
	(1, $$name = ''$$),
	(2, $$condition = 'often'$$),
	(3, $$threshold = 0$$),
	(4, $$threshold = 'NaN'$$),
	(5, $$condition = 'failure_ratio', threshold = 2$$),
	(6, $$condition = 'pending'$$),
	(7, $$period = '2 days'$$),
	(8, $$channels = '{nobody}'$$),
	(9, $$channels = '{NULL}'$$),
	(10, $$channels = NULL$$),
	(11, $$scene = 'three'$$),
	(12, $$scene = 'alarm-ops'$$),
	(13, $$severity = 'awful'$$),
	(14, $$quiet = '-1 s'$$)
) AS t (n, change), pg_temp.refused('UPDATE retry.alarm_rule SET ' || change || $$ WHERE group_name = 'alarmed'$$) r
ORDER BY n;
SELECT r.message, r.hint FROM (VALUES
	(1, $$DELETE FROM retry.channel WHERE group_name = 'alarmed'$$),
	(2, $$UPDATE retry.channel SET group_name = 'default' WHERE group_name = 'alarmed' AND name = 'ops'$$),
	(3, $$DELETE FROM retry.scene WHERE group_name = 'alarmed' AND name = 'alarm-ops'$$)
) AS t (n, change), pg_temp.refused(change) r
ORDER BY n;

-- By mail.
INSERT INTO retry.channel (group_name, name, kind, url, mail_from, mail_to)
VALUES ('alarmed', 'post', 'email', 'smtps://127.0.0.1', 'Ops <ops@example.com>', '{ada@example.com,"Zoe <zoe@example.com>"}');
SELECT url, secret, secret_use, mail FROM retry.scene WHERE name = 'alarm-post';
SELECT change, r.code, r.message, r.at_column
FROM (VALUES
	(1, $$url = 'https://127.0.0.1/'$$),
	(2, $$url = 'smtp://user:secret@127.0.0.1'$$),
	(3, $$url = 'smtp://127.0.0.1/path'$$),
	(4, $$url = 'SMTP://127.0.0.1'$$),
	(5, $$url = 'smtp+nothing://127.0.0.1'$$),
	(6, $$mail_from = NULL$$),
	(7, $$mail_from = 'ops'$$),
	(8, $$mail_from = E'ops@example.com\r\nRCPT TO:<eve@example.com>'$$),
	(9, $$mail_to = '{}'$$),
	(10, $$mail_to = '{ada@example.com,NULL}'$$),
	(11, $$mail_to = '{ada@example.com,zoe@}'$$),
	(12, $$mail_user = 'ops'$$),
	(13, $$secret = 'key'$$),
	(14, $$mail_user = '', secret = 'key'$$),
	(15, $$url = 'smtp+plaintext://127.0.0.1', mail_user = 'ops', secret = 'key'$$),
	(16, $$template = '{}'$$)
) AS t (n, change), pg_temp.refused('UPDATE retry.channel SET ' || change || $$ WHERE group_name = 'alarmed' AND name = 'post'$$) r
ORDER BY n;
UPDATE retry.channel SET url = 'smtp://127.0.0.1:2525', mail_user = 'ops', secret = 'key', mail_to = '{ada@example.com}' WHERE name = 'post';
SELECT url, secret, secret_use, mail FROM retry.scene WHERE name = 'alarm-post';
SELECT change, r.code, r.message
FROM (VALUES
	(1, $$secret_use = 'webhook'$$),
	(2, $$url = 'https://127.0.0.1/'$$),
	(3, $$targets = '{https://127.0.0.1/}'$$)
) AS t (n, change), pg_temp.refused('UPDATE retry.scene SET ' || change || $$ WHERE name = 'alarm-post'$$) r
ORDER BY n;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.enqueue('alarmed/alarm-post', '{"subject": "s", "text": "t"}', url => 'https://127.0.0.1/')$$) r;
SELECT r.code, r.message FROM pg_temp.refused($$SELECT retry.enqueue('alarmed/alarm-post', '{"subject": "s", "text": "t"}', headers => '{"Bcc": "x"}')$$) r;
UPDATE retry.channel SET kind = 'slack', url = 'https://127.0.0.1/', mail_from = NULL, mail_to = NULL, mail_user = NULL, secret = NULL WHERE name = 'post';
SELECT url, secret, secret_use, mail FROM retry.scene WHERE name = 'alarm-post';
UPDATE retry.channel SET kind = 'email', url = 'smtps://127.0.0.1', mail_from = 'ops@example.com', mail_to = '{ada@example.com,zoe@example.com}' WHERE name = 'post';

-- A channel's scene follows it, and rules follow both.
SELECT name, url, success_when, lane_by FROM retry.scene WHERE name LIKE 'alarm-%' ORDER BY name;
UPDATE retry.channel SET name = 'crew', url = 'http://127.0.0.1:9/crew' WHERE name = 'ops';
UPDATE retry.alarm_rule SET scene = 'one' WHERE name = 'dead';
UPDATE retry.scene SET name = 'first' WHERE group_name = 'alarmed' AND name = 'one';
SELECT a.scene, a.channels, s.name, s.url FROM retry.alarm_rule a, retry.scene s WHERE s.group_name = 'alarmed' AND s.name LIKE 'alarm-c%';
UPDATE retry.alarm_rule SET scene = NULL;
SAVEPOINT before;
UPDATE retry.scene_group SET name = 'renamed' WHERE name = 'alarmed';
UPDATE retry.channel SET group_name = 'default' WHERE name = 'team';
SELECT c.group_name, c.name, s.group_name, s.name, (SELECT a.name FROM retry.alarm_rule a WHERE a.group_name = c.group_name AND c.name = ANY (a.channels)) AS rule
FROM retry.channel c JOIN retry.scene s ON s.id = c.scene_id WHERE c.name IN ('crew', 'team') ORDER BY c.name;
-- whatever its name
UPDATE retry.scene SET name = 'pigeon' WHERE name = 'alarm-team';
SELECT retry.test_channel('team') AS test \gset
SELECT s.name FROM retry.task t JOIN retry.scene s ON s.id = t.scene_id WHERE t.id = :'test';
ROLLBACK TO before;

UPDATE retry.channel SET kind = 'pagerduty', url = NULL, secret = 'key' WHERE name = 'team';
SELECT url, secret, secret_use, success_when FROM retry.scene WHERE name = 'alarm-team';
SELECT retry.set_secret('key', 'any text', 'alarmed');
SELECT r.message FROM pg_temp.refused($$UPDATE retry.scene SET secret_use = 'webhook' WHERE name = 'alarm-team'$$) r;
SELECT r.message FROM pg_temp.refused($$UPDATE retry.scene SET secret_use = 'fax' WHERE name = 'alarm-team'$$) r;
UPDATE retry.channel SET kind = 'wecom', url = 'http://127.0.0.1:9/team', secret = NULL WHERE name = 'team';

-- As a document.
SELECT jsonb_pretty(g -> 'channels'), g -> 'alarm_rules' -> 0 -> 'channels' AS channels
FROM jsonb_array_elements(retry.export_config('alarmed') -> 'groups') g;
SELECT set_config('alarms.document', retry.export_config('alarmed')::text, true) IS NOT NULL AS kept;
SELECT retry.drop_alarm_rule('alarmed', 'dead'), retry.drop_alarm_rule('alarmed', 'dead'),
	retry.drop_channel('alarmed', 'crew'), retry.drop_channel('alarmed', 'crew'), retry.drop_channel('alarmed', 'post');
SELECT count(*) FROM retry.scene WHERE name IN ('alarm-crew', 'alarm-post');
SELECT kind, name, change FROM retry.import_config(current_setting('alarms.document')::jsonb);
SELECT DISTINCT change FROM retry.import_config(current_setting('alarms.document')::jsonb);
SELECT retry.export_config('alarmed')::text = current_setting('alarms.document') AS same;
SELECT mail FROM retry.scene WHERE name = 'alarm-post';
SELECT r.message FROM pg_temp.refused($$SELECT retry.import_config('{"retry": "1.0", "groups": [{"name": "alarmed", "channels": [{"name": "x", "kind": "fax", "url": "http://h/"}]}]}')$$) r;
SELECT r.message FROM pg_temp.refused($$SELECT retry.import_config('{"retry": "1.0", "groups": [{"name": "alarmed", "alarm_rules": {}}]}')$$) r;

-- Placeholders are filled in once, and escaped.
SELECT retry.fill_template('{"a": "{{text}}", "b": {{alarms}}, "c": "{{group}}{{none}}"}',
	'{"text": "say \"{{group}}\"\n\\ok", "alarms": [1], "group": "g"}');

-- Each kind has its form; long texts are cut.
SELECT k, retry.channel_body(k, NULL, m)
FROM unnest('{slack,dingtalk,feishu,wecom,pagerduty,email}'::text[]) k,
	jsonb_build_object('title', 'a <title>', 'text', 'a & b', 'state', 'recovered', 'database', 'd', 'group', 'g', 'at', '2100-01-01',
		'alarms', '[{"rule": "r", "summary": "s", "severity": "info", "condition": "dead"}]'::jsonb) m;
SELECT k, octet_length(retry.channel_body(k, NULL, m)::text)
FROM unnest('{slack,dingtalk,feishu,wecom,email}'::text[]) k, jsonb_build_object('title', '', 'text', repeat(U&'\+01F600', 20000)) m;

-- What fires: dead letters from some minute on, in scenes that are no channel's.
CREATE FUNCTION pg_temp.died(scene text, n bigint, at timestamptz) RETURNS void LANGUAGE sql AS $$
	INSERT INTO retry.stat_minute (at, scene_id, dispatcher, enqueued, succeeded, failed, processing, stopped, expired, blocked,
		error, retries, dead, cancelled, busy_us, late_us)
	SELECT at, s.id, 0, n, 0, 0, 0, n, 0, 0, 0, 0, n, 0, 0, 0 FROM retry.scene s WHERE s.group_name = 'alarmed' AND s.name = scene
$$;
CREATE FUNCTION pg_temp.look(clock time) RETURNS TABLE (target text, alarms text) LANGUAGE sql AS $$
	SELECT m.target, (SELECT string_agg(format('%s %s: %s', a ->> 'rule', a ->> 'state', a ->> 'summary'), ' | ')
			FROM jsonb_array_elements(m.payload -> 'alarms') a)
	FROM retry.look_at_alarms('2100-01-01'::timestamptz + clock) m
	WHERE m.target LIKE 'alarmed/%'
$$;
UPDATE retry.alarm_rule SET active = false WHERE group_name <> 'alarmed';
UPDATE retry.alarm_rule SET threshold = 5, collect = '30 s', quiet = '10 min', remind_after = '1 h', period = '2 min', channels = '{crew,team}';
INSERT INTO retry.alarm_rule (group_name, name, condition, threshold, channels, collect, quiet, period)
VALUES ('alarmed', 'more', 'dead', 7, '{crew}', '1 min', '0', '2 min');
SELECT pg_temp.died('alarm-crew', 100, '2100-01-01 00:00');
SELECT pg_temp.died('first', 4, '2100-01-01 00:00');
SELECT pg_temp.look('00:00:10');
SELECT pg_temp.died('first', 4, '2100-01-01 00:00');
-- both fire, and wait for what else there may be
SELECT pg_temp.look('00:00:20');
SELECT pg_temp.died('two', 6, '2100-01-01 00:00');
SELECT pg_temp.look('00:00:45');
SELECT rule, since, subjects, told FROM retry.alarms ORDER BY rule;
-- the first is ripe, and takes the second with it: one message for a channel
SELECT pg_temp.look('00:00:50');
SELECT rule, told, told_at FROM retry.alarms ORDER BY rule;
SELECT pg_temp.look('00:01:50');
-- it is over, which one may say after its collect, the other when it is no longer quiet
SELECT pg_temp.look('00:04:00');
SELECT pg_temp.look('00:04:30');
SELECT pg_temp.look('00:05:00');
SELECT pg_temp.look('00:10:00');
-- what begins again meanwhile is not told as over
SELECT pg_temp.died('two', 6, '2100-01-01 00:10');
SELECT pg_temp.look('00:10:30');
SELECT pg_temp.look('00:11:30');
-- but again after remind_after
SELECT pg_temp.died('two', 6, '2100-01-01 01:00');
UPDATE retry.alarm_rule SET period = '1 day' WHERE name = 'dead';
SELECT pg_temp.look('01:00:49');
SELECT pg_temp.look('01:00:51');
SELECT pg_temp.look('01:01:51');
-- which is not sooner than quiet allows
UPDATE retry.alarm_rule SET quiet = '2 h' WHERE name = 'dead';
SELECT pg_temp.look('02:10:00');
SELECT pg_temp.look('03:01:00');
UPDATE retry.alarm_rule SET quiet = '10 min' WHERE name = 'dead';
-- what is inactive is over
UPDATE retry.alarm_rule SET active = false;
SELECT pg_temp.look('04:00:00');
SELECT pg_temp.look('04:01:00');
SELECT pg_temp.look('04:02:00');
SELECT count(*) FROM retry.alarms;

-- Other conditions, each by what it is about.
DELETE FROM retry.alarm_state;
DELETE FROM retry.stat_minute m USING retry.scene s WHERE s.id = m.scene_id AND s.group_name = 'alarmed';
INSERT INTO retry.stat_minute (at, scene_id, dispatcher, enqueued, succeeded, failed, processing, stopped, expired, blocked,
	error, retries, dead, cancelled, busy_us, late_us)
SELECT '2100-01-01', s.id, 0, 100, 30, 70, 1000, 0, 0, 0, 5, 0, 5, 5, 0, 0 FROM retry.scene s WHERE s.name = 'two' AND s.group_name = 'alarmed';
INSERT INTO retry.scene_count (scene_id, pending, retrying, dead)
SELECT s.id, 1000000, 500000, 0 FROM retry.scene s WHERE s.name = 'two' AND s.group_name = 'alarmed';
INSERT INTO retry.event (at, group_id, scene_id, kind, lane)
SELECT '2099-12-31 23:59:00', g.id, s.id, 'breaker opened', 'https://host' FROM retry.scene_group g JOIN retry.scene s ON s.group_name = g.name
WHERE g.name = 'alarmed' AND s.name = 'two';
INSERT INTO retry.lane_override (group_name, lane, disabled) VALUES ('alarmed', 'https://off', true);
SELECT retry.disable_url('alarmed/two', 'https://gone/');
INSERT INTO retry.alarm_rule (group_name, name, condition, threshold) VALUES
	('alarmed', 'c-failure_ratio', 'failure_ratio', NULL), ('alarmed', 'c-failure_ratio-90', 'failure_ratio', 0.9),
	('alarmed', 'c-errors', 'errors', 5), ('alarmed', 'c-errors-6', 'errors', 6),
	('alarmed', 'c-growth', 'growth', 60), ('alarmed', 'c-growth-61', 'growth', 61),
	('alarmed', 'c-pending', 'pending', 1e6), ('alarmed', 'c-pending-more', 'pending', 2e6),
	('alarmed', 'c-retrying', 'retrying', 5e5), ('alarmed', 'c-retrying-more', 'retrying', 6e5),
	('alarmed', 'c-breaker', 'breaker', NULL), ('alarmed', 'c-disabled', 'disabled', NULL),
	('alarmed', 'c-disk-more', 'disk', 1e15), ('alarmed', 'c-oldest', 'oldest_due', NULL), ('alarmed', 'c-no_target', 'no_target', NULL);
SELECT a.name, x.subject, x.detail FROM retry.alarm_subjects('2100-01-01 00:00:30') x JOIN retry.alarm_rule a ON a.id = x.rule_id
WHERE a.group_name = 'alarmed' ORDER BY a.name, x.subject;
INSERT INTO retry.alarm_rule (group_name, name, condition, threshold, min_attempts) VALUES
	('alarmed', 'd-disk', 'disk', 1, 1), ('alarmed', 'd-few', 'failure_ratio', 0.1, 1000);
SELECT a.name, x.subject = current_database(), x.detail ~ 'on disk$' FROM retry.alarm_subjects('2100-01-01 00:00:30') x
JOIN retry.alarm_rule a ON a.id = x.rule_id WHERE a.name LIKE 'd-%';
-- a rule for another scene does not see it
UPDATE retry.alarm_rule SET scene = 'first' WHERE name LIKE 'c-%';
SELECT count(*) FROM retry.alarm_subjects('2100-01-01 00:00:30') x JOIN retry.alarm_rule a ON a.id = x.rule_id WHERE a.name LIKE 'c-%';
ROLLBACK;
