-- A partner is down for longer than anybody planned for.
--
-- Two hundred notices use up their attempts and become dead letters.  Then the
-- partner is back, at another address: new tasks go there by an UPDATE, those
-- still waiting are amended, and the dead ones are replayed with one statement,
-- spread over a time so that the partner is not knocked over again.
--
-- Run it with: examples/run outage-and-replay

\set ON_ERROR_STOP 1

-- A breaker would have kept them from being used up; this scene has none.
INSERT INTO retry.scene (name, url, backoff, max_attempts, breaker_ratio, retry_share)
VALUES ('partner', :'receiver' || '/status/500', 'fixed 10ms', 2, NULL, NULL);

SELECT count(*) AS sent
FROM retry.enqueue_many('partner', (SELECT array_agg(jsonb_build_object('n', n)) FROM generate_series(1, 200) n),
						(SELECT array_agg('notice-' || n) FROM generate_series(1, 200) n)) AS id;
SELECT count(retry.wait(id)) AS finished FROM retry.tasks WHERE scene = 'default/partner';
SELECT reason, last_status, count(*) FROM retry.dead_letters WHERE scene = 'default/partner' GROUP BY reason, last_status;

-- One that waits for tomorrow has the old address in its own row.
SELECT retry.enqueue('partner', '{"n": 201}', key => 'notice-201', delay => '1 day', url => :'receiver' || '/status/500/old') AS waiting \gset

-- The partner is back elsewhere.
UPDATE retry.scene SET url = :'receiver' || '/ok/new' WHERE name = 'partner';
SELECT retry.amend_where(jsonb_build_object('url', :'receiver' || '/ok/new'), target => 'partner', key_prefix => 'notice-') AS amended;
SELECT retry.run_now(:'waiting');
SELECT retry.wait(:'waiting');

SELECT retry.replay_dead('partner', key_prefix => 'notice-', spread => '500 ms') AS replayed;
SELECT retry.replay_dead('partner') AS again;
SELECT count(retry.wait(replayed_as)) AS finished FROM retry.dead_letters WHERE scene = 'default/partner';
SELECT state, count(*) FROM retry.tasks WHERE scene = 'default/partner' GROUP BY state ORDER BY state;
