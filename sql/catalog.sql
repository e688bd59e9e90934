--
-- The catalog: what was made, and who may do what with it.  Each object has a
-- line here or breaks a rule below, so nothing comes in unseen: who adds one
-- adds its line, and has thought of its rights.  A line stands for all leaves
-- of a table that are alike.
--
\pset format unaligned
\pset tuples_only on

-- Who a privilege list admits besides the owner.
CREATE FUNCTION pg_temp.admitted(acl aclitem[]) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(of_one, ' ' ORDER BY of_one), '-')
	FROM (
		SELECT format('%s:%s%s', CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee)::text END,
			string_agg(x.privilege_type, ',' ORDER BY x.privilege_type), CASE WHEN bool_or(x.is_grantable) THEN '*' END) AS of_one
		FROM aclexplode(acl) x WHERE x.grantee <> x.grantor GROUP BY x.grantee) g
$$;

\echo # functions: kind, language, volatility, parallel safety, strict, definer, leakproof, settings, who may execute
SELECT format('%s%s | %s %s %s %s%s%s%s | %s | %s',
	regexp_replace(p.oid::regprocedure::text, '^retry\.', ''),
	CASE p.prokind WHEN 'p' THEN ' procedure' WHEN 'f' THEN '' ELSE ' ' || p.prokind::text END,
	l.lanname,
	CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
	CASE p.proparallel WHEN 's' THEN 'safe' WHEN 'r' THEN 'restricted' ELSE 'unsafe' END,
	CASE WHEN p.proisstrict THEN 'strict' ELSE '-' END,
	CASE WHEN p.prosecdef THEN ' DEFINER' END,
	CASE WHEN p.proleakproof THEN ' LEAKPROOF' END,
	CASE WHEN p.prorettype = 'trigger'::regtype THEN ' trigger' END,
	coalesce(array_to_string(p.proconfig, '; '), '-'),
	regexp_replace(pg_temp.admitted(coalesce(p.proacl, acldefault('f', p.proowner))), ':EXECUTE', '', 'g'))
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'retry'::regnamespace
ORDER BY p.oid::regprocedure::text COLLATE "C";

\echo # relations: kind, row security, options, who may do what
SELECT CASE WHEN count(*) > 1 THEN format('%s x%s', name, count(*)) ELSE name END || of_it
FROM (
	SELECT regexp_replace(c.relname, '_\d\d(?=$|_)', '_NN') AS name,
		format(' | %s%s | %s | %s | %s',
			CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence'
				WHEN 'c' THEN 'composite' ELSE c.relkind::text END,
			CASE c.relpersistence WHEN 'p' THEN '' ELSE ' ' || c.relpersistence::text END,
			CASE WHEN c.relrowsecurity THEN 'row security' || CASE WHEN c.relforcerowsecurity THEN ' forced' ELSE '' END ELSE '-' END,
			coalesce(array_to_string(c.reloptions, ', '), '-'),
			pg_temp.admitted(c.relacl)) AS of_it
	FROM pg_class c
	WHERE c.relnamespace = 'retry'::regnamespace AND c.relkind NOT IN ('i', 'I', 't')) x
GROUP BY name, of_it
ORDER BY name COLLATE "C", of_it COLLATE "C";

\echo # columns with privileges of their own
SELECT format('%s | %s | %s', c.relname, pg_temp.admitted(a.attacl), string_agg(a.attname, ', ' ORDER BY a.attnum))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'retry'::regnamespace AND a.attacl IS NOT NULL
GROUP BY c.relname, pg_temp.admitted(a.attacl)
ORDER BY 1;

\echo # columns that stay with the owner, of tables where others have some
SELECT format('%s | %s', c.relname, string_agg(a.attname, ', ' ORDER BY a.attnum))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'retry'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
	AND EXISTS (SELECT FROM pg_attribute b WHERE b.attrelid = c.oid AND pg_temp.admitted(b.attacl) LIKE '%UPDATE%')
	AND pg_temp.admitted(a.attacl) NOT LIKE '%UPDATE%'
GROUP BY c.relname
ORDER BY 1;

\echo # policies: command, roles, rows that are seen, rows that may be written
SELECT CASE WHEN count(*) > 1 THEN format('%s x%s', name, count(*)) ELSE name END || does
FROM (
	SELECT regexp_replace(tablename, '_\d\d$', '_NN') AS name,
		format(' %s | %s %s | %s | %s | %s', policyname, lower(permissive), lower(cmd), array_to_string(roles, ','),
			regexp_replace(qual, '\s+', ' ', 'g'), regexp_replace(with_check, '\s+', ' ', 'g')) AS does
	FROM pg_policies WHERE schemaname = 'retry') x
GROUP BY name, does
ORDER BY name COLLATE "C", does COLLATE "C";

\echo # triggers: O fires but for replication, A always, R for replication only
SELECT CASE WHEN count(*) > 1 THEN format('%s x%s', name, count(*)) ELSE name END || ' | ' || does
FROM (
	SELECT regexp_replace(c.relname, '_\d\d$', '_NN') AS name,
		format('%s %s | %s', t.tgenabled, t.tgname,
			regexp_replace(regexp_replace(pg_get_triggerdef(t.oid), '^.*? (BEFORE|AFTER|INSTEAD OF) ', '\1 '), ' ON retry\.\w+', '')) AS does
	FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
	WHERE c.relnamespace = 'retry'::regnamespace AND NOT t.tgisinternal) x
GROUP BY name, does
ORDER BY name COLLATE "C", does COLLATE "C";

\echo # members of other kinds than functions, relations and their types
SELECT pg_describe_object(d.classid, d.objid, 0)
FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'retry' AND d.deptype = 'e'
WHERE d.classid NOT IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_policy'::regclass, 'pg_trigger'::regclass)
	AND NOT EXISTS (SELECT FROM pg_type t WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND (t.typrelid <> 0 OR t.typelem <> 0))
ORDER BY 1;

\echo # rules: each of the following finds nothing

\echo # a function that is not in C without a search_path, or with another than this
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'retry'::regnamespace AND (l.lanname <> 'c' OR p.prosecdef) AND p.prokind <> 'a'
	AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false);
\echo # a function that runs as its owner, or is a trigger, and that others may execute or attach to a table of theirs
SELECT p.oid::regprocedure FROM pg_proc p
WHERE p.pronamespace = 'retry'::regnamespace AND (p.prosecdef OR p.prorettype = 'trigger'::regtype)
	AND pg_temp.admitted(coalesce(p.proacl, acldefault('f', p.proowner))) <> '-';
\echo # a function that says of itself that it is leakproof
SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'retry'::regnamespace AND p.proleakproof;
\echo # a view that all may read, is no security barrier, and reads a table that they may not
SELECT DISTINCT v.oid::regclass, t.oid::regclass
FROM pg_class v
JOIN pg_rewrite w ON w.ev_class = v.oid
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class t ON t.oid = d.refobjid AND t.relkind IN ('r', 'p')
WHERE v.relnamespace = 'retry'::regnamespace AND v.relkind = 'v' AND pg_temp.admitted(v.relacl) LIKE '%PUBLIC%'
	AND NOT coalesce('security_barrier=true' = ANY (v.reloptions), false)
	-- names of groups and scenes, beside the rows of a function that knows the rights
	AND NOT (v.relname IN ('lanes', 'targets', 'progress') AND t.relname IN ('scene', 'scene_group'));
\echo # a table or sequence that all may use as a whole
SELECT c.oid::regclass FROM pg_class c
WHERE c.relnamespace = 'retry'::regnamespace AND c.relkind IN ('r', 'p', 'S') AND pg_temp.admitted(c.relacl) LIKE '%PUBLIC%';
\echo # a policy on a table without row security
SELECT p.polrelid::regclass, p.polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
WHERE c.relnamespace = 'retry'::regnamespace AND NOT c.relrowsecurity;
\echo # an object that belongs to another than the extension does
SELECT pg_describe_object(d.classid, d.objid, 0)
FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'retry' AND d.deptype = 'e'
LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
LEFT JOIN pg_type t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid
WHERE coalesce(c.relowner, p.proowner, t.typowner, e.extowner) <> e.extowner;
\echo # something in the schema that does not belong to the extension
SELECT pg_describe_object(x.classid, x.objid, 0)
FROM (
	SELECT 'pg_class'::regclass AS classid, oid AS objid FROM pg_class
	WHERE relnamespace = 'retry'::regnamespace AND relkind NOT IN ('i', 'I', 't', 'c')
	UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace = 'retry'::regnamespace
	UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator WHERE oprnamespace = 'retry'::regnamespace) x
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = x.classid AND d.objid = x.objid AND d.deptype IN ('e', 'i'));
\echo # an object without a comment
SELECT pg_describe_object(classid, objid, 0)
FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'retry' AND d.deptype = 'e'
WHERE d.classid <> 'pg_opfamily'::regclass
	AND obj_description(objid, classid::regclass::name) IS NULL
	AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = objid AND classid = 'pg_class'::regclass AND c.relkind NOT IN ('r', 'p', 'v', 'm'))
	AND NOT EXISTS (SELECT FROM pg_type t WHERE t.oid = objid AND classid = 'pg_type'::regclass AND (t.typrelid <> 0 OR t.typelem <> 0))
ORDER BY 1;
\echo # a column without one
SELECT c.relname, a.attname
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'retry'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'c') AND NOT c.relispartition
	AND c.relname NOT IN ('task_rows', 'dead_rows', 'last_attempts', 'cancelled', 'schedule_rows', 'secret_uses', 'missing_secrets',
		'minute_rows', 'hour_rows', 'day_rows', 'task_counts') AND c.relname NOT LIKE 'tasks\_%'
	AND col_description(c.oid, a.attnum) IS NULL
	AND NOT (c.relname = 'dead_letter' AND a.attnum <= 26)
ORDER BY 1, 2;

DROP FUNCTION pg_temp.admitted(aclitem[]);
