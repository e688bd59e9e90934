-- The steps of an order reach the warehouse in their order, and no two at once:
-- "packed" before "sent", however often "packed" has to be tried.  Orders wait
-- for themselves only.  A step that is given up for good stops its order until a
-- person has looked; all others go on.
--
-- Run it with: examples/run fifo-per-order-number

\pset null '(null)'

INSERT INTO retry.scene (group_name, name, url, ordered, lane_by, dead_head, backoff, max_attempts, description)
VALUES ('default', 'warehouse', :'receiver' || '/ok/warehouse', true, 'reference', 'block', 'fixed 100ms', 3,
	'one lane for each order number; a step that dies stops its order');

-- Three orders.  The first answer to a step of order 1001 is an error; the
-- warehouse does not know the article of order 1002.
CREATE TABLE step (n int GENERATED ALWAYS AS IDENTITY, order_no text, what text, task uuid);
INSERT INTO step (order_no, what)
SELECT o, w FROM unnest(ARRAY['packed', 'sent', 'billed']) WITH ORDINALITY AS s (w, i),
	unnest(ARRAY['1001', '1002', '1003']) AS o ORDER BY i, o;
UPDATE step SET task = retry.enqueue('warehouse', jsonb_build_object('order', order_no, 'step', what),
	reference => order_no,
	url => CASE
		WHEN order_no = '1001' AND what = 'packed' THEN :'receiver' || '/flaky/1'
		WHEN order_no = '1002' AND what = 'sent' THEN :'receiver' || '/status/422'
	END);

SELECT count(retry.wait(task)) FROM step WHERE order_no <> '1002' OR what <> 'billed';
SELECT s.order_no, s.what, t.state, t.attempts, t.lane, t.held_reason
FROM step s JOIN retry.tasks t ON t.id = s.task ORDER BY s.order_no, s.n;

-- No step of an order began before the one before it had ended.
SELECT count(*) AS out_of_order
FROM (
	SELECT s.order_no, s.n, a.started_at, max(a.finished_at) OVER (PARTITION BY s.order_no ORDER BY s.n, a.attempt_no
		ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
	FROM step s JOIN retry.attempts a ON a.task_id = s.task) AS attempts
WHERE started_at < before;

-- The article is known now: the replay takes the place of the dead step, and the
-- order goes on.  Had the step been done by hand, retry.step_over(task) would
-- let it go on without.
BEGIN;
SELECT retry.replay(task) AS again FROM step WHERE order_no = '1002' AND what = 'sent' \gset
SELECT retry.amend(:'again', jsonb_build_object('url', :'receiver' || '/ok/warehouse'));
COMMIT;
SELECT retry.wait(task) FROM step WHERE order_no = '1002' AND what = 'billed';
