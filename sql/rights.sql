--
-- Rights: a role sees its own tasks and nothing of others, whatever it tries.
--
SET client_min_messages = warning;
CREATE ROLE regress_rights_shop;
CREATE ROLE regress_rights_bank;
CREATE ROLE regress_rights_nobody;
INSERT INTO retry.scene_group (name, owner) VALUES ('rights-shop', 'regress_rights_shop'), ('rights-bank', 'regress_rights_bank');
INSERT INTO retry.scene (group_name, name, url) VALUES
	('rights-shop', 'order', 'http://127.0.0.1:9/order'),
	('rights-bank', 'payment', 'http://127.0.0.1:9/payment');
SELECT retry.grant('regress_rights_shop', 'default'), retry.grant('regress_rights_bank', 'default');

-- One task of each in a group of its own, and in the shared group default.
SET ROLE regress_rights_shop;
SELECT retry.enqueue('rights-shop/order', '{}', key => 'shop-secret', delay => '20 days') IS NOT NULL AS enqueued;
SELECT retry.enqueue('http://127.0.0.1:9/', '{}', key => 'shop-default', delay => '20 days') IS NOT NULL AS enqueued;
SET ROLE regress_rights_bank;
SELECT retry.enqueue('rights-bank/payment', '{}', key => 'bank-secret', delay => '20 days') IS NOT NULL AS enqueued;
SELECT retry.enqueue('http://127.0.0.1:9/', '{}', key => 'bank-default', delay => '20 days') IS NOT NULL AS enqueued;
RESET ROLE;

-- As if the bank's tasks had been attempted, one died, one been cancelled.
INSERT INTO retry.attempt (leaf, attempt_no, task_id, lane_hash, finished_at, duration_us, scene_id, outcome, error, next_due)
SELECT leaf, 1, id, lane_hash, now(), 1000, scene_id, 'failed', 'bank-error', now() + interval '1 day'
FROM retry.task WHERE key = 'bank-default';
INSERT INTO retry.attempt (leaf, attempt_no, task_id, lane_hash, finished_at, duration_us, scene_id, outcome, error)
SELECT leaf, 1, id, lane_hash, now(), 1000, scene_id, 'stopped', 'bank-error'
FROM retry.task WHERE key = 'bank-secret';
INSERT INTO retry.dead_letter
SELECT t.*, 'stopped', now(), 1, 400, 'bank-error', NULL FROM retry.task t WHERE key = 'bank-secret';

-- A cheap function in a condition would be called with every row that the
-- planner lets it see before the rights are looked at.
CREATE FUNCTION rights_peek(text) RETURNS boolean LANGUAGE plpgsql STRICT COST 0.0000001 AS
$$ BEGIN IF $1 LIKE 'bank%' THEN RAISE WARNING 'seen: %', $1; END IF; RETURN true; END $$;
GRANT EXECUTE ON FUNCTION rights_peek TO PUBLIC;

SET ROLE regress_rights_shop;
SELECT key, state FROM retry.tasks WHERE rights_peek(key) ORDER BY key;
SELECT key, state FROM retry.tasks WHERE state = 'retrying' AND rights_peek(key) ORDER BY key;
SELECT key, state FROM retry.tasks WHERE state = 'dead' AND rights_peek(key) ORDER BY key;
-- whatever joins the planner is made to choose
SET enable_nestloop = off;
SELECT count(*) FROM retry.tasks WHERE rights_peek(last_error);
SELECT count(*) FROM retry.tasks WHERE state = 'running' AND rights_peek(last_error);
RESET enable_nestloop;
SELECT count(*) FROM retry.attempts WHERE rights_peek(error);
SELECT count(*) FROM retry.dead_letters WHERE rights_peek(last_error);
SELECT count(*) FROM retry.running WHERE rights_peek(key);
SELECT key, state FROM retry.tasks_dead, LATERAL (VALUES ('dead')) v(state) WHERE rights_peek(key);
SELECT key FROM retry.dead_letters WHERE rights_peek(key);
RESET ROLE;

SET ROLE regress_rights_bank;
SELECT key, state FROM retry.tasks ORDER BY key;
SELECT error FROM retry.attempts ORDER BY error;
SELECT key, reason FROM retry.dead_letters;
RESET ROLE;

SET ROLE regress_rights_nobody;
SELECT count(*) FROM retry.tasks;
SELECT count(*) FROM retry.attempts;
SELECT count(*) FROM retry.dead_letters;
\set VERBOSITY terse
SELECT retry.enqueue('http://127.0.0.1:9/', '{}');
SELECT retry.enqueue('rights-bank/payment', '{}');
SELECT retry.replay_dead('rights-bank/payment');
RESET ROLE;

-- How one task stands: what the view tells this role of it.
CREATE TABLE rights_ids AS SELECT id, key FROM retry.task WHERE key ~ '^(shop|bank)-';
GRANT SELECT ON rights_ids TO PUBLIC;
SET ROLE regress_rights_shop;
SELECT i.key, n.state, n.attempts, n.last_error FROM rights_ids i, retry.task_now(i.id) n ORDER BY i.key;
SET ROLE regress_rights_bank;
SELECT i.key, n.state, n.attempts, n.last_error FROM rights_ids i, retry.task_now(i.id) n ORDER BY i.key;
SET ROLE regress_rights_nobody;
SELECT i.key, n.state FROM rights_ids i, retry.task_now(i.id) n ORDER BY i.key;
RESET ROLE;
DROP TABLE rights_ids;

-- Events are those of the lanes of one's groups; those of the shared group tell
-- of all who use it, and are for its owner and for pg_monitor.
INSERT INTO retry.event (at, group_id, kind, lane)
SELECT now(), g.id, 'rights test', 'lane of ' || g.name FROM retry.scene_group g WHERE g.name IN ('default', 'rights-shop', 'rights-bank')
UNION ALL SELECT now(), NULL, 'rights test', 'lane of nobody';
CREATE FUNCTION rights_peek_lane(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
$$ BEGIN RAISE WARNING 'seen: %', $1; RETURN true; END $$;
SET ROLE regress_rights_shop;
SELECT group_name, lane FROM retry.events WHERE rights_peek_lane(lane) AND kind = 'rights test' ORDER BY lane;
SELECT count(*) FROM retry.my_groups();
SET ROLE regress_rights_nobody;
SELECT count(*) FROM retry.events WHERE rights_peek_lane(lane);
SELECT count(*) FROM retry.my_groups();
SET ROLE pg_monitor;
SELECT group_name, lane FROM retry.events WHERE kind = 'rights test' ORDER BY lane;
RESET ROLE;
GRANT regress_rights_bank TO regress_rights_nobody;
SET ROLE regress_rights_nobody;
SELECT group_name, lane FROM retry.events WHERE kind = 'rights test' ORDER BY lane;
RESET ROLE;
REVOKE regress_rights_bank FROM regress_rights_nobody;
SELECT group_name, lane FROM retry.events WHERE kind = 'rights test' ORDER BY lane;
DELETE FROM retry.event WHERE kind = 'rights test';
DROP FUNCTION rights_peek_lane(text);

-- Whose rights count: those of the role in force, inside a function of another
-- owner that owner's.
CREATE FUNCTION rights_send() RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT retry.enqueue('rights-shop/order', '{}', delay => '20 days') IS NOT NULL $$;
ALTER FUNCTION rights_send() OWNER TO regress_rights_shop;
SET ROLE regress_rights_nobody;
SELECT rights_send();
RESET ROLE;
SELECT enqueued_by, count(*) FROM retry.tasks WHERE scene = 'rights-shop/order' GROUP BY 1;

DELETE FROM retry.dead_letter WHERE key LIKE 'bank-%';
DROP FUNCTION rights_peek(text), rights_send();
DROP ROLE regress_rights_shop, regress_rights_bank, regress_rights_nobody;
