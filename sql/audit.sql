--
-- Who did what: it is noted, by whom and as whom, for those who own the group,
-- without what may be a credential; and nobody takes it back.
--
SET client_min_messages = warning;
SET intervalstyle = 'postgres';
CREATE ROLE regress_audit_shop;
CREATE ROLE regress_audit_ann IN ROLE regress_audit_shop;
CREATE ROLE regress_audit_bank;
CREATE VIEW audited AS
SELECT session_role = session_user AS session, role, action, group_name AS "group", object, task IS NOT NULL AS task,
	-- of whole rows a few columns
	CASE WHEN action ~ '(added|deleted)$' THEN before - (SELECT array_agg(k) FROM jsonb_object_keys(before) k WHERE k !~ '^(name|lane|headers|payload)$')
		ELSE before END AS before,
	CASE WHEN action ~ '(added|deleted)$' THEN after - (SELECT array_agg(k) FROM jsonb_object_keys(after) k WHERE k !~ '^(name|lane|headers|payload)$')
		ELSE after END AS after
FROM retry.audit
WHERE group_name LIKE 'audit-%' OR object LIKE '%audit%' ORDER BY at;
GRANT SELECT ON audited TO PUBLIC;
INSERT INTO retry.scene_group (name, owner) VALUES ('audit-shop', 'regress_audit_shop'), ('audit-bank', 'regress_audit_bank');
\pset format unaligned
\pset tuples_only on
SELECT action, object, after FROM audited;

-- configuration: what differs
SET ROLE regress_audit_ann;
INSERT INTO retry.scene (group_name, name, url, headers) VALUES ('audit-shop', 'order', 'http://127.0.0.1:9/', '{"Authorization": "Bearer AUDIT-SECRET"}');
UPDATE retry.scene SET max_attempts = 3, paused = true, headers = '{"Authorization": "Bearer AUDIT-SECRET-2"}', expires_after = '1 day';
UPDATE retry.scene SET paused = true;
UPDATE retry.scene SET expires_after = NULL, name = 'orders', secret = 'audit-key';
INSERT INTO retry.lane_override (group_name, lane, max_in_flight) VALUES ('audit-shop', 'tills', 2);
SELECT retry.drop_lane_override('audit-shop', 'tills');
UPDATE retry.scene_group SET description = 'of the shop';
-- grants and secrets
SELECT retry.grant('regress_audit_bank', 'audit-shop'), retry.grant('regress_audit_bank', 'audit-shop');
SELECT retry.revoke('regress_audit_bank', 'audit-shop');
SELECT retry.set_secret('audit-key', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'audit-shop');
SELECT retry.drop_secret('audit-key', 'audit-shop');
SELECT retry.disable_url('audit-shop/orders', 'https://audit.example.com/hook');
SELECT retry.schedule('audit', '0 0 1 1 *', 'audit-shop/orders', '{"of": "AUDIT-SECRET"}', active => false);
SELECT retry.unschedule('audit');
-- tasks
SELECT retry.enqueue('audit-shop/orders', '{"of": "AUDIT-SECRET"}', key => 'a', delay => '20 days') AS id \gset
SELECT retry.amend(:'id', '{"payload": {"of": "AUDIT-SECRET"}, "max_attempts": 2}');
SELECT retry.run_now(:'id');
SELECT retry.cancel(:'id');
SELECT retry.cancel(:'id');
SELECT retry.replay(:'id') IS NOT NULL;
SELECT retry.run_now_where('audit-shop/orders', spread => '1 min');
SELECT retry.amend_where('{"payload": "AUDIT-SECRET"}', group_name => 'audit-shop');
SELECT retry.cancel_where('audit-shop/orders', reference => 'none');
SELECT retry.cancel_where('audit-shop/orders');
SELECT retry.drop_scene('audit-shop/orders');
RESET ROLE;
SELECT * FROM audited WHERE "group" = 'audit-shop' AND action <> 'group added' OR action LIKE 'schedule%';
SELECT count(*) FROM retry.audit a WHERE a::text LIKE '%AUDIT-SECRET%' OR a::text LIKE '%MfKQ9r8G%';

-- dead letters, and functions that run as their owner
INSERT INTO retry.dead_letter
SELECT t.*, 'stopped', now(), 1, 400, 'error', NULL FROM retry.task t WHERE t.id = :'id';
CREATE FUNCTION audit_cancel() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT retry.replay_dead(group_name => 'audit-shop') $$;
ALTER FUNCTION audit_cancel() OWNER TO regress_audit_shop;
SET ROLE regress_audit_bank;
SELECT audit_cancel();
RESET ROLE;
SELECT role, action, after FROM audited WHERE action = 'dead letters replayed';

-- What is undone was not done.
BEGIN;
UPDATE retry.scene SET weight = 7 WHERE group_name = 'audit-shop';
ROLLBACK;
SELECT count(*) FROM audited WHERE after ? 'weight' AND action = 'scene changed';
-- a restore brings its own audit, and only its owner can say that it is one
SET check_function_bodies = off;
UPDATE retry.scene SET weight = 7 WHERE group_name = 'audit-shop';
SET ROLE regress_audit_ann;
UPDATE retry.scene SET description = 'unseen';
RESET ROLE;
RESET check_function_bodies;
SELECT after FROM audited WHERE action = 'scene changed' AND (after ? 'weight' OR after ? 'description');

-- who reads it
SET ROLE regress_audit_shop;
SELECT count(*) > 10, count(*) FILTER (WHERE group_name <> 'audit-shop') FROM retry.audit;
SET ROLE regress_audit_bank;
SELECT count(*), count(*) FILTER (WHERE group_name <> 'audit-bank') FROM retry.audit;
SET ROLE pg_monitor;
SELECT count(*) FROM retry.audit;
RESET ROLE;

-- nobody takes it back, not even who owns it
\set VERBOSITY terse
UPDATE retry.audit_entry SET role = 'nobody';
DELETE FROM retry.audit_entry;
TRUNCATE retry.audit_entry;
SET ROLE regress_audit_ann;
INSERT INTO retry.audit_entry (at, session_role, role, action) VALUES (now(), 'x', 'x', 'x');
DELETE FROM retry.audit;
RESET ROLE;
INSERT INTO retry.audit_entry (at, session_role, role, action, object) VALUES (now() - interval '91 days', 'x', 'x', 'old', 'audit-old');
DELETE FROM retry.audit_entry WHERE object = 'audit-old' RETURNING action;

SELECT retry.cancel_where(group_name => 'audit-shop');
DROP VIEW audited;
DROP FUNCTION audit_cancel();
DROP ROLE regress_audit_ann, regress_audit_shop, regress_audit_bank;
