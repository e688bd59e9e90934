-- Prints doc/reference.md from the catalog of a database that has the extension,
-- on a server that preloads it: what there is, and the COMMENT of each.  Run by
-- scripts/reference, which writes the page, and by test/docs/docs.pl, which
-- compares it; psql -X -qAt.  Nothing here may depend on the machine.
SET search_path = pg_catalog, pg_temp;
SET client_min_messages = warning;
SET quote_all_identifiers = off;

-- Text that stands in a page as it is.
CREATE FUNCTION pg_temp.md(t text) RETURNS text LANGUAGE sql AS
$$SELECT regexp_replace(replace(t, '<', '&lt;'), '([*|\\])', '\\\1', 'g')$$;

CREATE FUNCTION pg_temp.link(name text, kind text) RETURNS text LANGUAGE sql AS
$$SELECT format('[`%s`](#%s)', name, kind || replace(name, '.', ''))$$;

-- Types by their short names, and constants without; a line for each argument
-- when there are many.
CREATE FUNCTION pg_temp.short(t text) RETURNS text LANGUAGE sql AS $$
SELECT CASE WHEN length(s) > 90 THEN regexp_replace(E'\n        ' || s, ', ', E',\n        ', 'g') ELSE s END
FROM regexp_replace(replace(t, 'timestamp with time zone', 'timestamptz'), '::[a-z._]+(\[\])?', '', 'g') s
$$;

-- Functions that are there for others of ours only say so, or are a type's own.
CREATE TEMP VIEW function AS
SELECT p.oid, p.proname AS name, obj_description(p.oid, 'pg_proc') AS comment, p.prokind,
	'retry.' || p.proname || '(' || pg_temp.short(pg_get_function_arguments(p.oid)) || ')' ||
		CASE WHEN p.prokind = 'p' THEN '' ELSE ' returns ' || pg_temp.short(pg_get_function_result(p.oid)) END AS signature,
	has_function_privilege('public', p.oid, 'EXECUTE') AS open
FROM pg_proc p WHERE p.pronamespace = 'retry'::regnamespace;

CREATE TEMP VIEW internal_function AS
SELECT oid FROM function
WHERE comment ~ '^(Trigger: |For the aggregate |For import_config|implementation of |hash|reads the |writes the )'
	OR comment ~ '; look at |; for retry\.|; CREATE EXTENSION calls it|^True for |^The lines of the view '
	OR comment ~ 'the worker that looks at alarms'
	OR name IN ('my_groups', 'my_scenes', 'scene_in_use', 'check_secret', 'check_mail_client', 'config_columns', 'secret_names',
		'alarm_message', 'channel_body', 'channel_success', 'fill_template');

CREATE TEMP TABLE chapter (n int, title text, names text[]);
INSERT INTO chapter VALUES
	(1, 'Enqueue', '{enqueue,enqueue_many,call,wait,digest_key}'),
	(2, 'One task', '{cancel,run_now,amend,replay,step_over}'),
	(3, 'Many tasks', '{cancel_where,run_now_where,amend_where,replay_dead}'),
	(4, 'Groups, scenes and lanes', '{grant,revoke,drop_scene,drop_lane_override,reset_lane,disable_url,enable_url,export_config,import_config}'),
	(5, 'Secrets and signatures', '{set_secret,drop_secret,public_key,verify_signature}'),
	(6, 'Schedules', '{schedule,unschedule,run_schedules,cron_next}'),
	(7, 'Running it', '{health,maintain,purge,adopt}'),
	(8, 'Alarms', '{test_channel,drop_channel,drop_alarm_rule}'),
	(9, 'For receivers in PostgreSQL', '{once}'),
	(11, 'Two-phase commit', '{twophase_begin,twophase_branch,in_doubt,settle_server,settle_branch}');

CREATE TEMP VIEW placed AS
SELECT f.*, coalesce(c.n, 10) AS chapter, coalesce(c.title, 'Helpers') AS title,
	coalesce(array_position(c.names, f.name::text), 0) AS place
FROM function f LEFT JOIN chapter c ON f.name = ANY (c.names)
WHERE f.oid NOT IN (TABLE internal_function);

-- What users look at and write to; the rest is the store.
CREATE TEMP VIEW relation AS
SELECT c.oid, c.relname AS name, c.relkind, obj_description(c.oid, 'pg_class') AS comment,
	(has_any_column_privilege('public', c.oid, 'SELECT') OR
		has_any_column_privilege('pg_monitor', c.oid, 'SELECT')) AND obj_description(c.oid, 'pg_class') !~ '; look at ' AS open
FROM pg_class c
WHERE c.relnamespace = 'retry'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND c.relname !~ '_\d\d$';

CREATE TEMP VIEW attribute AS
SELECT r.oid, a.attnum, format('| `%s` | %s | %s | %s |', a.attname,
	pg_temp.short(format_type(a.atttypid, a.atttypmod)),
	CASE WHEN r.relkind = 'v' THEN ''
		WHEN a.attidentity <> '' THEN 'a number'
		WHEN d.adbin IS NOT NULL THEN '`' || pg_temp.short(pg_get_expr(d.adbin, d.adrelid)) || '`'
		WHEN a.attnotnull THEN 'must be given' ELSE '' END,
	pg_temp.md(col_description(r.oid, a.attnum))) AS line
FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
WHERE r.open;

CREATE TEMP VIEW type AS
SELECT t.oid, t.typname AS name, t.typtype, t.typrelid, obj_description(t.oid, 'pg_type') AS comment
FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typnamespace = 'retry'::regnamespace AND t.typelem = 0 AND t.typtype IN ('b', 'e', 'd', 'c')
	AND (c.relkind = 'c' OR t.typrelid = 0);

CREATE TEMP VIEW setting AS
SELECT name, format('| `%s` | %s | %s | %s | %s |', name,
	CASE vartype WHEN 'bool' THEN 'on, off' WHEN 'enum' THEN replace(array_to_string(enumvals, ', '), '|', '\|')
		WHEN 'string' THEN 'text' ELSE format('%s to %s', min_val, max_val) || coalesce(' ' || nullif(unit, ''), '') END,
	CASE WHEN boot_val = '' THEN 'empty'
		WHEN unit = 's' THEN boot_val::int / 86400 || ' days'
		WHEN unit = 'B' THEN pg_size_pretty(boot_val::bigint)
		ELSE pg_temp.md(boot_val) || coalesce(' ' || unit, '') END,
	CASE context WHEN 'postmaster' THEN 'a restart' WHEN 'sighup' THEN 'a reload'
		WHEN 'superuser' THEN 'a superuser, in a session' ELSE 'anybody, in a session' END,
	pg_temp.md(short_desc || coalesce(' ' || extra_desc, ''))) AS line
FROM pg_settings WHERE name LIKE 'retry.%';

-- The page.
SELECT '# Reference' || E'\n\n' ||
	'All that extension `retry` ' || extversion || ' has, from the comments in its catalog, as `\df+ retry.*` and' || E'\n' ||
	'`\d+ retry.*` show them. How things work together, with examples, is in the [SQL manual](sql.md).' || E'\n' ||
	'This page is written by `scripts/reference`; a test compares it with the catalog.' || E'\n'
FROM pg_extension WHERE extname = 'retry';

SELECT '| | |' || E'\n' || '|---|---|';
SELECT format('| %s | %s |', title, string_agg(pg_temp.link('retry.' || name, ''), ', ' ORDER BY place, name))
FROM (SELECT DISTINCT chapter, title, place, name FROM placed) p GROUP BY chapter, title ORDER BY chapter;
SELECT format('| [Tables](#tables) | %s |', string_agg(pg_temp.link('retry.' || name, ''), ', ' ORDER BY name))
FROM relation WHERE open AND relkind <> 'v';
SELECT format('| [Views](#views) | %s |', string_agg(pg_temp.link('retry.' || name, ''), ', ' ORDER BY name))
FROM relation WHERE open AND relkind = 'v';
SELECT format('| [Types](#types) | %s |', string_agg(pg_temp.link('retry.' || name, ''), ', ' ORDER BY name)) FROM type;
SELECT '| [Settings](#settings) | |' || E'\n' || '| [What is not for use](#what-is-not-for-use) | |';

SELECT E'\n## Functions';
SELECT text FROM (
	SELECT DISTINCT chapter, '' AS name, 0 AS place, E'\n### ' || title AS text FROM placed
	UNION ALL
	SELECT chapter, name, place + 1, E'\n#### retry.' || name || E'\n\n' ||
		string_agg('    ' || signature || E'\n\n' || pg_temp.md(comment) ||
			CASE WHEN comment ~ '\.$' THEN '' ELSE '.' END ||
			CASE WHEN open THEN '' ELSE ' Only for superusers, unless it is granted.' END, E'\n\n' ORDER BY signature)
	FROM placed GROUP BY chapter, name, place) page
ORDER BY chapter, place, name COLLATE "C";

SELECT text FROM (
	SELECT DISTINCT relkind = 'v' AS view, '' AS name, 0 AS n,
		E'\n## ' || CASE relkind WHEN 'v' THEN 'Views' ELSE 'Tables' END AS text FROM relation WHERE open
	UNION ALL
	SELECT relkind = 'v', name, 1, format(E'\n### retry.%s\n\n%s.\n', name, pg_temp.md(comment)) ||
		CASE relkind WHEN 'v' THEN E'\n| column | type | | |' ELSE E'\n| column | type | default | |' END || E'\n|---|---|---|---|' ||
		(SELECT string_agg(E'\n' || line, '' ORDER BY attnum) FROM attribute a WHERE a.oid = relation.oid)
	FROM relation WHERE open) page
ORDER BY view, n, name COLLATE "C";

SELECT E'\n## Types';
SELECT E'\n### retry.' || name || E'\n\n' || pg_temp.md(comment) || '.' ||
	CASE typtype WHEN 'e' THEN E'\n\nValues: ' ||
		(SELECT string_agg('`' || enumlabel || '`', ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = type.oid) || '.'
	WHEN 'c' THEN E'\n\n| column | type | |\n|---|---|---|' ||
		(SELECT string_agg(format(E'\n| `%s` | %s | %s |', attname, format_type(atttypid, atttypmod),
			pg_temp.md(col_description(attrelid, attnum))), '' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped)
	ELSE '' END
FROM type ORDER BY name COLLATE "C";

SELECT E'\n## Settings\n\nOf `postgresql.conf` and ALTER SYSTEM; what is changed counts after what the fourth column says.\n';
SELECT E'| setting | values | default | changed by | |\n|---|---|---|---|---|';
SELECT line FROM setting ORDER BY name COLLATE "C";

SELECT E'\n## What is not for use\n\nTables of the store, and what is there for views and triggers. It may change in any version.\n';
SELECT E'| relation | |\n|---|---|';
SELECT format('| `%s` | %s |', name, pg_temp.md(comment)) FROM relation WHERE NOT open ORDER BY name COLLATE "C";
SELECT E'\n| function | |\n|---|---|';
SELECT format('| `%s` | %s |', name, pg_temp.md(min(comment))) FROM function
WHERE oid IN (TABLE internal_function) AND comment !~ '^(implementation of|hash|reads the|writes the)' GROUP BY name ORDER BY name COLLATE "C";
