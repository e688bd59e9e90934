--
-- Disabling and enabling URLs: who may, what is refused, who sees what.
--
SET client_min_messages = warning;
\set VERBOSITY terse
CREATE ROLE regress_gone_shop;
CREATE ROLE regress_gone_guest;
INSERT INTO retry.scene_group (name, owner, paused) VALUES ('gone', 'regress_gone_shop', true);
INSERT INTO retry.scene (group_name, name, url) VALUES ('gone', 'order', 'http://127.0.0.1:9/order');
INSERT INTO retry.scene (group_name, name, targets, paused) VALUES ('gone', 'routed', '{http://127.0.0.1:9/a weight=2,http://127.0.0.1:9/b}', true);
SELECT retry.grant('regress_gone_guest', 'gone'), retry.grant('regress_gone_guest', 'default');

SELECT retry.canonical_url(u) FROM unnest(ARRAY['HTTP://Example.COM:80', 'https://example.com:8443/a?b#c', 'sql:public.f', 'no url', NULL]) u;

SET ROLE regress_gone_shop;
SELECT retry.disable_url('gone/order', 'http://127.0.0.1:9/order', 'it is moved');
SELECT retry.disable_url('gone/order', 'HTTP://127.0.0.1:9/order#again');
SELECT retry.disable_url('gone/routed', 'http://127.0.0.1:9/a');
SELECT scene, url, task, http_status, reason, disabled_by, held FROM retry.disabled_urls;

-- what is held shows it, by whichever URL is in force
SELECT retry.enqueue('gone/order', '1', key => 'scene') IS NOT NULL;
SELECT retry.enqueue('gone/order', '1', key => 'own', url => 'http://127.0.0.1:9/other') IS NOT NULL;
SELECT retry.enqueue('gone/order', '1', key => 'amended', url => 'http://127.0.0.1:9/other') AS amended \gset
SELECT retry.amend(:'amended', '{"url": "http://127.0.0.1:9/order"}');
SELECT retry.enqueue('gone/routed', '1', key => 'routed') IS NOT NULL;
SELECT retry.enqueue('gone/routed', '1', key => 'targeted', url => 'http://127.0.0.1:9/a') IS NOT NULL;
RESET ROLE;
UPDATE retry.scene_group SET paused = false WHERE name = 'gone';
UPDATE retry.scene SET paused = true WHERE group_name = 'gone';
SELECT key, held_reason FROM retry.tasks WHERE scene ^@ 'gone/' ORDER BY key;
BEGIN;
UPDATE retry.scene SET paused = false WHERE group_name = 'gone';
SELECT key, held_reason FROM retry.tasks WHERE scene ^@ 'gone/' ORDER BY key;
SELECT retry.disable_url('gone/routed', 'http://127.0.0.1:9/b');
SELECT key, held_reason FROM retry.tasks WHERE scene ^@ 'gone/' ORDER BY key;
ROLLBACK;

-- refused
SET ROLE regress_gone_shop;
SELECT retry.disable_url('gone/none', 'http://127.0.0.1:9/order');
SELECT retry.disable_url('a b', 'http://127.0.0.1:9/order');
SELECT retry.disable_url('gone/order', 'sql:public.f');
SELECT retry.disable_url('gone/order', NULL);
SELECT retry.enable_url(NULL, 'http://127.0.0.1:9/order');
SELECT retry.disable_url('gone/order', 'http://127.0.0.1:9/x', repeat('x', 2000));
SELECT retry.disable_url('default', 'http://127.0.0.1:9/order');
DELETE FROM retry.disabled_url;
SET ROLE regress_gone_guest;
SELECT retry.enable_url('gone/order', 'http://127.0.0.1:9/order');
-- whoever may use a group sees what is disabled there
SELECT scene, url FROM retry.disabled_urls;
RESET ROLE;

-- in the group that is shared, only those whose task it was
SELECT retry.disable_url('default', 'http://127.0.0.1:9/secret');
SET ROLE regress_gone_guest;
SELECT scene, url FROM retry.disabled_urls WHERE scene ^@ 'default/';
SELECT count(*) FROM retry.events WHERE target ^@ 'http://127.0.0.1:9/s';
RESET ROLE;
SELECT kind, scene, target, detail = 'by ' || session_user AS by FROM retry.events WHERE kind ^@ 'url ' ORDER BY at;
SELECT retry.enable_url('default', 'http://127.0.0.1:9/secret');

SET ROLE regress_gone_shop;
SELECT retry.enable_url('gone/order', 'http://127.0.0.1:9/order');
SELECT retry.enable_url('gone/order', 'http://127.0.0.1:9/order');
RESET ROLE;

-- a scene that goes takes them with it
INSERT INTO retry.scene (group_name, name, url) VALUES ('gone', 'unused', 'http://127.0.0.1:9/order');
SELECT retry.disable_url('gone/unused', 'http://127.0.0.1:9/order');
DELETE FROM retry.scene WHERE group_name = 'gone' AND name = 'unused';
SELECT count(*) FROM retry.disabled_url d WHERE d.url = 'http://127.0.0.1:9/order';

SELECT count(retry.cancel(id)) FROM retry.tasks WHERE scene ^@ 'gone/';
SELECT retry.enable_url('gone/routed', 'http://127.0.0.1:9/a');
SELECT retry.revoke('regress_gone_guest', 'default');
