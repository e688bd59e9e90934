-- A notice that is worth trying for a day, and not worth a person's time.
--
-- The ladder of the payment providers: after 1, 5, 10, 30 minutes, then 1, 2,
-- 5, 10 hours.  When the last try has failed too, the notice is let go: a dead
-- letter nobody is told of, kept for retry.dead_letter_retention.
--
-- Run it with: examples/run best-effort-notification
-- Here the ladder is climbed in milliseconds.

\set ON_ERROR_STOP 1

-- What the ladder means: nine attempts over 18 hours and 46 minutes.
SELECT attempt_no, at - first_value(at) OVER (ORDER BY attempt_no) AS after
FROM retry.preview('levels best-effort', 9);

INSERT INTO retry.scene (name, url, backoff, max_attempts, description)
VALUES ('notice', :'receiver' || '/status/503', 'levels best-effort', 9, 'At most nine times, then let go');

-- The same steps, each hour as 10 ms.
UPDATE retry.scene SET backoff = 'levels 1ms,1ms,2ms,5ms,10ms,20ms,50ms,100ms' WHERE name = 'notice';

SELECT retry.enqueue('notice', '{"trade": "T1", "state": "paid"}', key => 'notice-T1') AS id \gset
SELECT retry.wait(:'id');
SELECT attempt_no, outcome, http_status, next_due - finished_at AS pause FROM retry.attempts WHERE task_id = :'id' ORDER BY attempt_no;
SELECT state, attempts, reason FROM retry.dead_letters WHERE id = :'id';

-- The merchant asks for it after all: one statement sends it again.
UPDATE retry.scene SET url = :'receiver' || '/ok/notice' WHERE name = 'notice';
SELECT retry.replay(:'id') AS again \gset
SELECT retry.wait(:'again');
