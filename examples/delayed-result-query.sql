-- Ask a slow third party until it says how it ended.
--
-- A bank takes a transfer and answers at once that it is working on it.  A
-- minute later, and every minute from then on, it is asked for the result, at
-- most a hundred times.  "Still working" is no failure: it uses up no attempt.
-- When the bank says yes, the ledger is told; when it says no, so is support.
--
-- Run it with: examples/run delayed-result-query
-- Here the minute is 200 ms.

\set ON_ERROR_STOP 1

INSERT INTO retry.scene_group (name, description) VALUES ('bank', 'Transfers');
INSERT INTO retry.scene (group_name, name, url, description) VALUES
	('bank', 'ledger', :'receiver' || '/ok/ledger', 'Is told of transfers that are done'),
	('bank', 'support', :'receiver' || '/ok/support', 'Is told of those that went wrong');
INSERT INTO retry.scene (group_name, name, url, method, pending_when, success_when, stop_when,
						 pending_interval, pending_limit, on_success, on_dead)
VALUES ('bank', 'result', :'receiver' || '/processing/3', 'GET',
		'$.status == "processing"', '$.status == "done"', '$.status == "refused"',
		'200 ms', 100, 'bank/ledger', 'bank/support');

-- The bank is at work on transfer 71 for three questions, then done.
SELECT retry.enqueue('bank/result', key => 'transfer-71', reference => 'T-71', delay => '200 ms') AS id \gset
SELECT retry.wait(:'id');
SELECT attempt_no, outcome, http_status, convert_from(response, 'UTF8') AS answer
FROM retry.attempts WHERE task_id = :'id' ORDER BY attempt_no;

-- Who was told, and of what.
SELECT id AS told FROM retry.tasks WHERE parent_id = :'id' \gset
SELECT retry.wait(:'told');
SELECT scene, state, convert_from(body, 'UTF8')::jsonb - 'task' - 'finished_at' AS document
FROM retry.tasks WHERE id = :'told';

-- Another transfer is refused: nobody asks again, and support is told.
SELECT retry.enqueue('bank/result', key => 'transfer-72', reference => 'T-72',
	url => :'receiver' || '/json?body={"status":"refused"}') AS id \gset
SELECT retry.wait(:'id');
SELECT reason, attempts, convert_from(last_response, 'UTF8') AS answer FROM retry.dead_letters WHERE id = :'id';
SELECT scene FROM retry.tasks WHERE parent_id = :'id';
