--
-- What scenes say about answers: a rule that makes no sense is refused when it
-- is written, with the column, the part that is wrong, and a hint.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
SET intervalstyle = 'postgres_verbose';
\pset format unaligned
\pset null '(null)'

INSERT INTO retry.scene_group (name, paused) VALUES ('rules', true);
INSERT INTO retry.scene (group_name, name, url) VALUES ('rules', 'r', 'http://rules.example/');

-- what a new scene says
SELECT success_status, stop_status, stop_errors, success_when, pending_when, stop_when, pending_interval, pending_limit, time_budget
FROM retry.scene WHERE group_name = 'rules';

-- lists, one that is long shortened
SELECT format('%s = %L', c, CASE WHEN length(v) > 60 THEN left(v, 20) || '…' ELSE v END) AS assignment, r.code, left(r.message, 200) AS message, left(r.detail, 60) AS detail, r.hint
FROM (VALUES
	(1, 'success_status', '2xx'),
	(2, 'success_status', '200-299,40é9'),
	(3, 'success_status', 'é,200'),
	(4, 'success_status', '299-200'),
	(5, 'success_status', '600'),
	(6, 'success_status', '200,,300'),
	(7, 'success_status', '200,'),
	(8, 'success_status', repeat('200,', 2000) || '200'),
	(9, 'success_status', repeat('2', 500)),
	(11, 'stop_status', '99'),
	(12, 'stop_status', '-400'),
	(13, 'stop_errors', 'tls,time'),
	(14, 'stop_errors', 'TLS'),
	(15, 'stop_errors', '40p01'),
	(16, 'stop_errors', '00000')
) AS t (n, c, v), pg_temp.refused(format('UPDATE retry.scene SET %I = %L WHERE group_name = %L', c, v, 'rules')) AS r
ORDER BY n;

-- conditions, and numbers
SELECT format('%s = %L', c, v) AS assignment, r.code, r.message, r.hint
FROM (VALUES
	(1, 'success_when', '$.a =='),
	(2, 'success_when', ''),
	(3, 'pending_when', '$.a like_regex "("'),
	(4, 'pending_when', '$.a == $limit'),
	(5, 'stop_when', '$."a \"$b" ? (@.c == "$d" && @.e > $"f g")'),
	(6, 'pending_interval', '0'),
	(7, 'pending_interval', '31 days'),
	(8, 'pending_limit', '0'),
	(9, 'time_budget', '0'),
	(10, 'time_budget', '-1 s')
) AS t (n, c, v), pg_temp.refused(format('UPDATE retry.scene SET %I = %L WHERE group_name = %L', c, v, 'rules')) AS r
ORDER BY n;

-- what is just allowed
SELECT format('%s = %L', c, v) AS assignment, r.message
FROM (VALUES
	(1, 'success_status', ''),
	(2, 'success_status', ' 100 - 199 , 599 '),
	(3, 'stop_status', '100-599'),
	(4, 'stop_errors', ''),
	(5, 'stop_errors', 'dns, connect, connect_timeout, tls, timeout, closed, malformed, 40001, 57014'),
	(6, 'success_when', '$.a == "$b" && $."$c" == "\"$d"'),
	(7, 'stop_when', 'strict $.error.code ? (@ starts with "E")'),
	(8, 'pending_limit', NULL),
	(9, 'time_budget', '100000 years')
) AS t (n, c, v), pg_temp.refused(format('UPDATE retry.scene SET %I = %L WHERE group_name = %L', c, v, 'rules')) AS r
ORDER BY n;

-- the functions alone
SELECT retry.check_status_list(NULL), retry.check_status_list('200'), retry.check_error_classes(NULL),
	retry.check_error_classes('tls'), retry.check_condition(NULL), retry.check_condition('$.a');
SELECT retry.check_status_list('2xx');
SELECT retry.check_status_list('2xx', 'my_column');
SELECT retry.check_condition('$x', 'my_column');

-- a time budget that is longer than time
BEGIN;
SELECT count(retry.enqueue('rules/r', due_at => d)) FROM unnest(ARRAY['2100-01-01', '290000-01-01']::timestamptz[]) d;
SELECT expires_at - due_at AS budget FROM retry.tasks WHERE scene = 'rules/r' ORDER BY due_at;

ROLLBACK;

DELETE FROM retry.scene WHERE group_name = 'rules';
DELETE FROM retry.scene_group WHERE name = 'rules';
