--
-- retry.page(): one page of the tasks in a state, newest first.  The groups are
-- paused, so that no worker has a part in it; attempts are put into the store by hand.
--
\set ECHO none
\set helpers `echo "${PG_ABS_SRCDIR:-.}/sql/include/helpers.sql"`
\i :helpers
CREATE ROLE regress_page_owner;
CREATE ROLE regress_page_other;
CREATE ROLE regress_page_one;
CREATE ROLE regress_page_two;
GRANT USAGE ON SCHEMA public TO regress_page_owner;
UPDATE retry.scene_group SET paused = true WHERE name = 'default';
INSERT INTO retry.scene_group (name, paused, owner) VALUES ('page', true, 'regress_page_owner');
INSERT INTO retry.scene (group_name, name, url) VALUES ('page', 's', 'http://page.example/'), ('page', 't', 'http://page.example/');
SELECT retry.grant('regress_page_one', 'default'), retry.grant('regress_page_two', 'default');

-- forty tasks, each in its own moment; the last digit says what becomes of them
SELECT retry.enqueue(CASE i % 3 WHEN 0 THEN 'page/t' ELSE 'page/s' END, '{}', key => to_char(i, 'FM00'), reference => 'page',
	delay => CASE i % 10 WHEN 9 THEN interval '100 days' ELSE interval '0' END) IS NOT NULL AS enqueued, pg_sleep(0.002)
FROM generate_series(1, 40) i \g /dev/null
CREATE VIEW pg_temp.made AS SELECT id, key, right(key, 1)::int AS digit FROM retry.task WHERE reference = 'page';
-- those that end do so in the opposite order, and two of them in the same moment
SELECT pg_temp.attempt(id, 1, 'succeeded', ended => '2026-01-01'::timestamptz - (key::int / 2) * interval '1 min')
FROM pg_temp.made WHERE digit IN (0, 1, 2) \g /dev/null
SELECT pg_temp.die(id, '2026-01-02'::timestamptz - key::int * interval '1 min') FROM pg_temp.made WHERE digit = 3 \g /dev/null
SELECT pg_temp.attempt(id, 1, 'failed', now() + interval '1 day') FROM pg_temp.made WHERE digit IN (4, 5, 6) \g /dev/null
SELECT pg_temp.attempt(id, 2, 'failed', now() + interval '1 day') FROM pg_temp.made WHERE digit = 5 \g /dev/null
SELECT retry.cancel(id) FROM (SELECT id FROM pg_temp.made WHERE digit IN (6, 7) ORDER BY key) x \g /dev/null
-- two who asked at once: the first counts
CREATE TEMP TABLE again AS SELECT s.* FROM retry.signal s JOIN pg_temp.made m ON m.id = s.task_id WHERE m.digit = 7;
UPDATE again SET due_at = due_at + interval '1 min';
INSERT INTO retry.signal SELECT * FROM again;

-- the pages of a state, one after the other, each begun where the one before ended
CREATE FUNCTION pg_temp.pages(state retry.task_state, size int, scene text DEFAULT NULL, OUT page bigint, OUT keys text)
RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
	last	uuid;
	found	uuid[];
BEGIN
	LOOP
		SELECT string_agg(p.key, ' ' ORDER BY p.n), array_agg(p.id ORDER BY p.n) INTO keys, found
		FROM retry.page(pages.state, last, pages.size, pages.scene) WITH ORDINALITY
			AS p (id, scene, key, reference, state, attempts, max_attempts, last_status, last_error, created_at, due_at,
				next_due, finished_at, expires_at, lane, held_reason, method, url, headers, body, enqueued_by, replay_of,
				replayed_as, parent_id, n);
		EXIT WHEN found IS NULL;
		last := found[cardinality(found)];
		page := coalesce(page, 0) + 1;
		RETURN NEXT;
	END LOOP;
END
$$;
SET ROLE regress_page_owner;
SELECT * FROM pg_temp.pages('pending', 5);
SELECT * FROM pg_temp.pages('retrying', 3);
SELECT * FROM pg_temp.pages('succeeded', 5);
SELECT * FROM pg_temp.pages('dead', 3);
SELECT * FROM pg_temp.pages('cancelled', 5);
-- the view of dead letters, too, is the newest first, and whoever asks for that order sorts nothing
SELECT key FROM retry.dead_letters WHERE reference = 'page';
CREATE FUNCTION pg_temp.sorts(query text, OUT sorts boolean) LANGUAGE plpgsql SET enable_sort = off AS $$
DECLARE
	line	text;
BEGIN
	sorts := false;
	FOR line IN EXECUTE 'EXPLAIN ' || query LOOP
		sorts := sorts OR line ~ 'Sort Key';
	END LOOP;
END
$$;
SELECT pg_temp.sorts('SELECT * FROM retry.dead_letters ORDER BY finished_at DESC LIMIT 50') AS by_death,
	pg_temp.sorts('SELECT * FROM retry.dead_letters ORDER BY attempts LIMIT 50') AS by_attempts;
SELECT * FROM pg_temp.pages('running', 5);
SELECT * FROM pg_temp.pages('succeeded', 3, 'page/t');

-- all rows are those of the view
CREATE FUNCTION pg_temp.compared(state retry.task_state, OUT tasks bigint, OUT others bigint) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TEMP TABLE seen ON COMMIT DROP AS SELECT * FROM retry.tasks WHERE state = %L', state);
	SELECT count(*) INTO tasks FROM seen;
	SELECT count(*) INTO others FROM (SELECT * FROM retry.page(compared.state, size => 1000) EXCEPT ALL TABLE seen) x;
END
$$;
SELECT 'pending' AS state, * FROM pg_temp.compared('pending');
SELECT 'running' AS state, * FROM pg_temp.compared('running');
SELECT 'retrying' AS state, * FROM pg_temp.compared('retrying');
SELECT 'succeeded' AS state, * FROM pg_temp.compared('succeeded');
SELECT 'dead' AS state, * FROM pg_temp.compared('dead');
SELECT 'cancelled' AS state, * FROM pg_temp.compared('cancelled');

-- a role sees what the view shows it
SET ROLE regress_page_other;
SELECT s AS state, (SELECT count(*) FROM retry.page(s)) AS seen FROM unnest(enum_range(NULL::retry.task_state)) s;
-- of a group that roles share, each its own
SET ROLE regress_page_one;
SELECT count(retry.enqueue('http://page.example/', '{}', reference => 'one')) FROM generate_series(1, 2);
SET ROLE regress_page_two;
SELECT count(retry.enqueue('http://page.example/', '{}', reference => 'two')) FROM generate_series(1, 3);
SELECT reference, count(*) FROM retry.page('pending') GROUP BY 1;
SET ROLE regress_page_one;
SELECT reference, count(*) FROM retry.page('pending') GROUP BY 1;
RESET ROLE;
SELECT pg_temp.attempt(id, 1, 'succeeded') FROM retry.task WHERE reference IN ('one', 'two') \g /dev/null
SET ROLE regress_page_one;
SELECT reference, count(*) FROM retry.page('succeeded', size => 2) GROUP BY 1;
-- one that it does not see is to it as one that is not there
SELECT pg_temp.said('SELECT retry.page(''succeeded'', scene => ''page/t'')');
RESET ROLE;

-- what is refused
SELECT pg_temp.said('SELECT retry.page(NULL)');
SELECT pg_temp.said('SELECT retry.page(''dead'', size => 0)');
SELECT pg_temp.said('SELECT retry.page(''dead'', size => 1001)');
SELECT pg_temp.said('SELECT retry.page(''dead'', size => NULL)');
SELECT pg_temp.said('SELECT retry.page(''dead'', scene => ''page/none'')');
SELECT pg_temp.said('SELECT retry.page(''dead'', scene => ''a/b/c'')');
SELECT pg_temp.said('SELECT retry.page(''dead'', ''01000000-0000-7000-8000-000000000000'')');
SET ROLE regress_page_other;
SELECT pg_temp.said(format('SELECT retry.page(''dead'', %L)', '00000000-0000-7000-8000-000000000001'));
RESET ROLE;
UPDATE retry.scene_group SET paused = false WHERE name = 'default';
