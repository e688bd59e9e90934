# Sagas and TCC: what each answer means, in which order things are done and
# undone, who decides, and that no crash between two steps leaves one half done.
use strict;
use warnings FATAL => 'all';

use RetryTest;
use Test::More;

my $node = new_node('saga', conf => "restart_after_crash = on\nretry.sql_workers = 2\n");
my $shop = start_endpoint();
my $bank = start_endpoint();

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

hold_nothing($node);
sql("INSERT INTO retry.scene_group (name) VALUES ('g')");
sql("INSERT INTO retry.scene (group_name, name, url, timeout, backoff, max_attempts) VALUES
	('g', 'slow', '" . $bank->url('/hang') . "', '200 ms', 'fixed 1ms', 2),
	('g', 'later', '" . $shop->url('/status/500') . "', '15 s', 'fixed 1h', 9),
	('g', 'paused', '" . $shop->url('/ok/paused') . "', '15 s', 'fixed 1ms', 9),
	('g', 'stops', '" . $shop->url('/status/500?stops') . "', '15 s', 'fixed 1ms', 9)");
sql("UPDATE retry.scene SET stop_status = '500' WHERE name = 'stops'");
sql(<<'SQL');
-- three accounts, and what is done to them through the barrier
CREATE TABLE account (name text PRIMARY KEY, amount int, held int DEFAULT 0);
INSERT INTO account VALUES ('a', 1000), ('b', 1000), ('c', 1000);
CREATE FUNCTION pay(j jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	p	jsonb := j -> 'payload';
	n	int := (p ->> 'amount')::int * CASE WHEN j ->> 'operation' = 'compensate' THEN -1 ELSE 1 END;
BEGIN
	IF retry.barrier((j ->> 'gid')::uuid, j ->> 'branch', j ->> 'operation') THEN
		UPDATE public.account SET amount = amount + CASE j ->> 'branch' WHEN 'in' THEN n ELSE -n END
		WHERE name = CASE j ->> 'branch' WHEN 'in' THEN p ->> 'to' ELSE p ->> 'from' END;
	END IF;
	-- which undoes that
	IF (p ->> 'bad') = j ->> 'branch' AND j ->> 'operation' = 'action' THEN
		RETURN 'failure';
	END IF;
	RETURN 'done';
END $$;
CREATE FUNCTION hold(j jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	p	jsonb := j -> 'payload';
	n	int := (p ->> 'amount')::int;
	w	text := p ->> (j ->> 'branch');
BEGIN
	IF NOT retry.barrier((j ->> 'gid')::uuid, j ->> 'branch', j ->> 'operation') THEN
		RETURN 'nothing to do';
	END IF;
	CASE j ->> 'operation'
		WHEN 'try' THEN
			UPDATE public.account SET amount = amount - n, held = held + n WHERE name = w AND j ->> 'branch' = 'from' AND amount >= n;
			IF NOT FOUND AND j ->> 'branch' = 'from' THEN RAISE 'too little' USING ERRCODE = 'RT409'; END IF;
		WHEN 'confirm' THEN
			UPDATE public.account SET held = held - n WHERE name = w AND j ->> 'branch' = 'from';
			UPDATE public.account SET amount = amount + n WHERE name = w AND j ->> 'branch' = 'to';
		ELSE
			UPDATE public.account SET amount = amount + n, held = held - n WHERE name = w AND j ->> 'branch' = 'from';
	END CASE;
	RETURN 'done';
END $$;
CREATE FUNCTION ongoing(j jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN count(*) < 2 THEN 'ongoing' ELSE 'done' END FROM retry.attempts a
	WHERE a.task_id = (SELECT b.task_id FROM retry.branches b WHERE b.gid = (j ->> 'gid')::uuid AND b.branch = j ->> 'branch' AND b.op = j ->> 'operation')
$$;
CREATE FUNCTION raises(j jsonb) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
SQL
sql("UPDATE retry.scene SET pending_interval = '1 ms', backoff = 'fixed 1ms' WHERE name = 'default'");

sub good { return $shop->url("/ok/$_[0]"); }

sub saga
{
	my ($steps, $arguments) = @_;
	return sql("SELECT retry.saga('$steps'" . ($arguments ? ", $arguments" : '') . ')');
}

# How it stands: state|how it was decided|open operations.
sub stands
{
	my ($gid, $expected, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_sql($node, "SELECT concat_ws('|', state, decided_how, open_operations) FROM retry.transactions WHERE gid = '$gid'",
		$description, expected => $expected);
}

# The operations, with what is known of each: "a action done, a compensate".
sub operations
{
	my ($gid) = @_;
	return sql("SELECT string_agg(concat_ws(' ', branch, op, outcome), ', ' ORDER BY task_id) FROM retry.branches WHERE gid = '$gid'");
}

# The paths that were called of one saga, in their order.
sub calls
{
	my ($tag) = @_;
	return join ' ', map { $_->{path} =~ m{/\Q$tag\E-(\S+)} ? $1 : () } $shop->ledger;
}

sub step
{
	my ($name, $action, $compensate, $more) = @_;
	return "{\"name\": \"$name\", \"action\": \"$action\"" . ($compensate ? ", \"compensate\": \"$compensate\"" : '')
		. ($more ? ", $more" : '') . '}';
}

# Steps a, b, c whose actions and compensations are called by these names.
sub steps
{
	my ($tag, %other) = @_;
	return '[' . join(', ', map { step($_, $other{$_} // good("$tag-$_"), good("$tag-un$_")) } 'a' .. 'c') . ']';
}

# ---------------------------------------------------------------- sagas

my $gid = saga(steps('all'), 'payload => \'{"x": 1}\'');
stands($gid, 'committed|answers|0', 'all is done');
is(calls('all'), 'a b c', '... in order, and nothing is compensated');
my ($task) = split /\n/, sql("SELECT task_id FROM retry.branches WHERE gid = '$gid' AND branch = 'b' AND op = 'action'");
is(scalar(() = $shop->ledger($task)), 1, '... each once, by its task');
is(sql("SELECT headers->>'Retry-Gid' = '$gid', headers->>'Retry-Branch', headers->>'Retry-Operation', convert_from(body, 'UTF8') FROM retry.tasks WHERE id = '$task'"),
	't|b|action|{"x": 1}', '... and told which operation it is');
is(sql("SELECT count(DISTINCT x) FROM (SELECT xmin::text x FROM retry.attempt a WHERE a.task_id = (SELECT task_id FROM retry.branches WHERE gid = '$gid' AND branch = 'c' AND op = 'action')
	UNION SELECT xmin::text FROM retry.global_decision WHERE gid = '$gid' UNION SELECT xmin::text FROM retry.global_outcome WHERE gid = '$gid' AND branch_no = 3) y"),
	'1', 'the end of the last action, its outcome and the decision were stored by one transaction');

# What is a failure, and what is not.
for my $case ([ 'refused', $shop->url('/status/409') ], [ 'gone', $shop->url('/status/410') ], [ 'stops', 'g/stops' ],
	[ 'usedup', 'g/slow' ], [ 'returned', 'sql:public.pay', '"payload": {"bad": "c", "amount": 1}' ])
{
	my ($tag, $action, $more) = @$case;
	$gid = saga('[' . join(', ', step('a', good("$tag-a"), good("$tag-una")), step('b', good("$tag-b")), step('c', $action, good("$tag-unc"), $more)) . ']');
	stands($gid, 'rolled back|answers|0', "$tag: rolled back");
	is(calls($tag), 'a b unc una', "$tag: what has begun is compensated, in reverse");
	is(operations($gid), 'a action done, b action done, c action failed, a compensate done, c compensate done', "$tag: and shown so");
}
is(sql('SELECT count(*) FROM retry.disabled_urls'), '0', 'an operation that is answered 410 disables nothing');
$gid = saga('[' . join(', ', step('a', $shop->url('/processing/2?status=425')), step('b', 'sql:public.ongoing'), step('c', $shop->url('/flaky/2'))) . ']');
stands($gid, 'committed|answers|0', '425, "ongoing" and failures with attempts left are asked again');
is(sql("SELECT string_agg(attempts::text, ',' ORDER BY branch) FROM retry.branches WHERE gid = '$gid'"), '3,3,3', '... as often as it takes');
is(sql("SELECT count(*) FROM retry.attempts a JOIN retry.branches b USING (task_id) WHERE b.gid = '$gid' AND a.outcome = 'processing'"), '4', '... 425 and "ongoing" do not count');

# A compensation is repeated until it succeeds, whatever its scene says, and in the meantime the rest waits.
$gid = saga('[' . join(', ', step('a', good('must-a'), good('must-una')),
	step('b', $shop->url('/status/409'), 'g/stops', '"max_attempts": 1')) . ']');
wait_sql($node, "SELECT attempts > 3 FROM retry.branches WHERE gid = '$gid' AND branch = 'b' AND op = 'compensate'", 'a compensation that is refused is repeated');
is(calls('must'), 'a', '... and what comes after it waits');
stands($gid, 'rolling back|answers|2', '... the saga is being rolled back');
sql("UPDATE retry.scene SET url = '" . good('must-unb') . "' WHERE name = 'stops'");
stands($gid, 'rolled back|answers|0', '... until it succeeds');
is(calls('must'), 'a unb una', '... and then the rest follows');
sql("UPDATE retry.scene SET url = '" . $shop->url('/status/500?stops') . "' WHERE name = 'stops'");

# Concurrently, and with needs.
$gid = saga(steps('par'), 'concurrent => true');
stands($gid, 'committed|answers|0', 'concurrently');
$gid = saga('[' . join(', ', step('d', good('dia-d'), good('dia-und'), '"needs": ["b", "c"]'), step('a', good('dia-a'), good('dia-una'), '"needs": []'),
	step('b', good('dia-b'), good('dia-unb'), '"needs": ["a"]'), step('c', good('dia-c'), good('dia-unc'), '"needs": ["a"]'),
	step('e', $shop->url('/status/409'), undef, '"needs": ["d"]')) . ']');
stands($gid, 'rolled back|answers|0', 'with needs');
like(calls('dia'), qr/^a (b c|c b) d und (unb unc|unc unb) una$/, '... done in the order of needs, and undone in reverse');

# One fails while others are under way: what waits for its next attempt ends at once, what is in flight is waited for.
$gid = saga('[' . join(', ', step('a', good('stop-a'), good('stop-una')), step('b', 'g/later', good('stop-unb')),
	step('c', $bank->url('/delay/300?status=409'), good('stop-unc')), step('d', 'g/paused', good('stop-und'))) . ']', 'concurrent => true');
stands($gid, 'rolled back|answers|0', 'one of several fails');
is(operations($gid), 'a action done, b action failed, c action failed, d action done, a compensate done, b compensate done, c compensate done, d compensate done',
	'... all are undone, and nobody waits an hour');
is(join(' ', sort split / /, calls('stop')), 'a una unb unc und', '... each once');

# One waits for its next attempt by a record that comes with the failure of another: it ends at once all the same.
my $hold = session($node);
sql("UPDATE retry.scene SET paused = true WHERE name IN ('later', 'paused')");
sql("UPDATE retry.scene SET url = '" . $shop->url('/status/409?batch-c') . "' WHERE name = 'paused'");
$gid = saga('[' . join(', ', step('b', 'g/later', good('batch-unb')), step('c', 'g/paused', good('batch-unc'))) . ']', 'concurrent => true');
$hold->query_safe("BEGIN; SELECT FROM retry.global_transaction WHERE gid = '$gid' FOR UPDATE");
for my $case ([ 'b', 'later' ], [ 'c', 'paused' ])
{
	my $id = sql("SELECT task_id FROM retry.branches WHERE gid = '$gid' AND branch = '$case->[0]' AND op = 'action'");
	sql("UPDATE retry.scene SET paused = false WHERE name = '$case->[1]'");
	wait_for(sub { return scalar(() = $shop->ledger($id)); }, "$case->[0] of two in a batch is answered");
	others_go_on($node, $shop, $case->[0]);
}
$hold->query_safe('COMMIT');
stands($gid, 'rolled back|answers|0', 'one that failed in the batch of the failure does not wait an hour');
sql("UPDATE retry.scene SET url = '" . $shop->url('/ok/paused') . "' WHERE name = 'paused'");

# One is in flight when somebody rolls back, and would be repeated in an hour.
$gid = saga('[' . step('a', $bank->url('/delay/1000?status=500'), good('flying-una'), '"backoff": "fixed 1h"') . ']');
wait_sql($node, "SELECT count(*) FROM retry.running r JOIN retry.branches b ON b.task_id = r.id WHERE b.gid = '$gid'", 'an action in flight', expected => '1');
is(sql("SELECT retry.rollback('$gid')"), 't', '... is rolled back');
is(calls('flying'), '', '... and waited for');
stands($gid, 'rolled back|caller|0', '... its attempt is the last');
is(calls('flying'), 'una', '... and then it is compensated');

# Decisions cannot be read: what may have been rolled back is not sent, and nobody turns in circles.
$hold->query_safe('BEGIN; LOCK TABLE retry.global_decision IN SHARE MODE');
$gid = saga('[' . step('a', good('unread-a')) . ']');
others_go_on($node, $shop, 'decisions are locked');
is(sql("SELECT sum(turns) AS before FROM retry.dispatchers \\gset
	SELECT FROM pg_sleep(0.5);
	SELECT sum(turns) - :before < 50 FROM retry.dispatchers"), 't', 'dispatchers look for it a few times');
is(calls('unread'), '', '... and send nothing');
$hold->query_safe('COMMIT');
stands($gid, 'committed|answers|0', '... until it can be read');
$hold->quit;

# Somebody rolls back.
sql("UPDATE retry.scene SET paused = true WHERE name = 'paused'");
$gid = saga('[' . join(', ', step('a', good('abort-a'), good('abort-una')), step('b', 'g/paused', good('abort-unb')), step('c', good('abort-c'), good('abort-unc'))) . ']');
wait_sql($node, "SELECT outcome FROM retry.branches WHERE gid = '$gid' AND branch = 'a' AND op = 'action'", 'a saga that waits for a paused scene', expected => 'done');
my $late = saga('[' . join(', ', step('a', good('late-a'), good('late-una')), step('b', 'g/later', good('late-unb'))) . ']', "timeout => '1500 ms'");
is(sql("SELECT retry.rollback('$gid')"), 't', '... is rolled back by who may');
stands($gid, 'rolled back|caller|0', '... though the scene is paused');
is(calls('abort'), 'a unb una', '... undone as far as it has begun');
is(operations($gid), 'a action done, b action failed, c action not begun, a compensate done, b compensate done, c compensate not begun', '... and shown so');
is(sql("SELECT retry.rollback('$gid')"), 'f', 'again is no error');
sql_fails($node, "SELECT retry.commit('$gid')", '55000', 'rolled back already', 'the opposite is one');
sql("UPDATE retry.scene SET paused = false WHERE name = 'paused'");

# Somebody says how an operation ended, or replays what was given up.
$gid = saga('[' . join(', ', step('a', 'g/later', good('hand-una')), step('b', good('hand-b'))) . ']');
$task = sql("SELECT task_id FROM retry.branches WHERE gid = '$gid' AND branch = 'a' AND op = 'action'");
wait_state($node, $task, 'retrying');
sql_fails($node, "SELECT retry.cancel('$task')", '55000', "operation of transaction $gid", 'an operation is not cancelled');
is(sql("SELECT retry.cancel_where('g/later')"), '0', '... nor by a filter');
is(sql("SELECT retry.settle('$gid', 'a', 'action')"), 't', 'an action is settled as done');
stands($gid, 'committed|answers|0', '... and the saga goes on');
is(calls('hand'), 'b', '... with the next');
is(sql("SELECT settled_by IS NOT NULL, state FROM retry.branches WHERE gid = '$gid' AND branch = 'a' AND op = 'action'"), 't|cancelled', '... its task is cancelled');
is(sql("SELECT action, object FROM retry.audit WHERE task = '$gid'"), 'operation settled as done|action of a', '... which is in the audit');
$gid = saga('[' . step('a', $shop->url('/status/409'), good('given-una'), '"lane": "given"') . ']');
stands($gid, 'rolled back|answers|0', 'a saga of one');
sql("INSERT INTO retry.lane_override (group_name, lane, disabled) VALUES ('default', 'shut', true)");
$gid = saga('[' . join(', ', step('a', $shop->url('/status/409'), good('shut-una'), '"lane": "shut"')) . ']');
wait_sql($node, "SELECT count(*) FROM retry.events WHERE kind = 'operation given up' AND detail LIKE '%$gid%'", 'a compensation that dies is an event', expected => '1');
stands($gid, 'rolling back|answers|1', '... and the saga waits');
sql("SELECT retry.drop_lane_override('default', 'shut')");
$task = sql("SELECT task_id FROM retry.branches WHERE gid = '$gid' AND op = 'compensate'");
sql_fails($node, "SELECT retry.replay(task_id) FROM retry.branches WHERE gid = '$gid' AND op = 'action'", '55000', 'gone on without it', 'an action is not replayed');
sql("SELECT retry.replay('$task')");
stands($gid, 'rolled back|answers|0', '... until it is replayed');
is(calls('shut'), 'una', '... once');
stands($late, 'rolled back|answers|0', 'a saga whose time is over');
is(calls('late'), 'a unb una', '... is undone');

# A key.
my $first = saga(steps('key'), "key => 'K', timeout => '1 h'");
is(saga(steps('key'), "key => 'K'"), $first, 'a saga with the same key is the same') if sql("SELECT state = 'undecided' FROM retry.transactions WHERE gid = '$first'") eq 't';
stands($first, 'committed|answers|0', 'a saga with a key');

# ---------------------------------------------------------------- TCC

sub tcc
{
	my ($arguments, %payload) = @_;
	my $payload = "{\"amount\": $payload{amount}, \"from\": \"$payload{from}\", \"to\": \"$payload{to}\"}";
	return sql("BEGIN; SELECT retry.tcc_begin($arguments) AS g \\gset
		SELECT retry.tcc_branch(:'g', 'from', 'sql:public.hold', 'sql:public.hold', 'sql:public.hold', '$payload') \\g /dev/null
		SELECT retry.tcc_branch(:'g', 'to', 'sql:public.hold', 'sql:public.hold', 'sql:public.hold', '$payload') \\g /dev/null
		" . ($payload{then} ? "SELECT $payload{then}(:'g') \\g /dev/null" : '') . "
		COMMIT; SELECT :'g'");
}

sub tried
{
	my ($id) = @_;
	return wait_sql($node, "SELECT open_operations FROM retry.transactions WHERE gid = '$id'", 'all tries are done', expected => '0');
}

my $open = tcc("timeout => '2 s'", amount => 1, from => 'a', to => 'b');
$gid = tcc('', amount => 10, from => 'a', to => 'b');
tried($gid);
is(sql("SELECT state FROM retry.transactions WHERE gid = '$gid'"), 'undecided', 'TCC: tries that are done decide nothing');
is(sql("SELECT retry.tcc_commit('$gid')"), 't', 'TCC: a commit');
stands($gid, 'committed|caller|0', 'TCC: is confirmed');
is(sql("SELECT retry.tcc_commit('$gid')"), 'f', 'TCC: again is no error');
sql_fails($node, "SELECT retry.tcc_rollback('$gid')", '55000', 'committed already', 'TCC: the opposite is one');
is(sql("SELECT state FROM retry.tasks WHERE id = (SELECT check_id FROM retry.transactions WHERE gid = '$gid')"), 'cancelled', 'TCC: its timer is cancelled');
$gid = tcc('', amount => 10, from => 'a', to => 'b');
is(sql("SELECT retry.tcc_rollback('$gid')"), 't', 'TCC: a rollback');
stands($gid, 'rolled back|caller|0', 'TCC: is cancelled');
$gid = tcc('', amount => 5000, from => 'a', to => 'b', then => 'retry.tcc_commit');
stands($gid, 'rolled back|answers|0', 'TCC: a commit that is asked for before the tries are done is none when a try fails');
$gid = sql("SELECT retry.tcc_begin() AS g \\gset
	SELECT retry.tcc_branch(:'g', 'x', '" . $bank->url('/delay/200') . "', '" . good('wish-confirm') . "', '" . good('wish-cancel') . "') \\g /dev/null
	SELECT retry.tcc_branch(:'g', 'y', NULL, '" . $shop->url('/flaky/2') . "', '" . good('wish-cancel') . "') \\g /dev/null
	SELECT retry.tcc_commit(:'g') \\g /dev/null
	SELECT :'g'");
stands($gid, 'committed|answers|0', 'TCC: asked for before, it is committed when the last try is done; who tried itself has no try');
is(calls('wish'), 'confirm', 'TCC: confirmed, repeated until it succeeds, and not cancelled');
is(sql("SELECT state FROM retry.tasks WHERE id = (SELECT check_id FROM retry.transactions WHERE gid = '$gid')"), 'cancelled', 'TCC: its timer is cancelled with the record');
$gid = sql("SELECT retry.tcc_begin('1 h', 'g/stops')");
is(sql("SELECT retry.cancel_where('g/stops')"), '0', 'TCC: a timer is not cancelled by a filter');
sql_fails($node, "SELECT retry.cancel(check_id) FROM retry.transactions WHERE gid = '$gid'", '55000', "ends the time of transaction $gid", 'TCC: nor by its id');
is(sql("SELECT retry.tcc_rollback('$gid')"), 't', 'TCC: but by a decision');
stands($open, 'rolled back|timeout|0', 'TCC: cancelled when its time is over, though all tries are done');
is(sql("SELECT count(*) FROM retry.events WHERE kind = 'decided at the limit' AND detail LIKE '%$open%'"), '1', 'TCC: which is an event');
sql("UPDATE retry.scene SET paused = true WHERE name = 'default'");
$gid = sql("SELECT retry.tcc_begin('1 ms')");
sql("UPDATE retry.scene SET paused = false WHERE name = 'default'");
stands($gid, 'rolled back|timeout|0', 'TCC: while its scene is paused no time is over; it is when that goes on');
is(sql('SELECT string_agg(amount || \'/\' || held, \',\' ORDER BY name) FROM account'), '990/0,1010/0,1000/0', 'TCC: the accounts are as they should be');

# ---------------------------------------------------------------- crashes

sub crash
{
	my ($signal) = @_;
	if ($signal)
	{
		my @killed = workers($node, 'retry dispatcher%');

		kill 'KILL', @killed;
		# a session that the crash has yet to end would say so too early
		wait_sql($node, "SELECT count(*) > 0 AND bool_and(pid NOT IN (" . join(', ', @killed) . "))
			FROM pg_stat_activity WHERE backend_type = 'retry dispatcher'", 'the server is back');
		return;
	}
	$node->stop('immediate');
	$node->start;
	return;
}

# Each between two steps: the record of the step is held up by a lock, and undone by the crash.
$hold = session($node);
my $transfer = '[' . join(', ', map { step($_, 'sql:public.pay', 'sql:public.pay') } 'out', 'in', 'fee') . ']';
my $n = 0;
for my $crash ([ 'first action answered, not recorded', 'first', 'ok', 0 ], [ 'first action recorded, outcome not stored', 'outcome', 'ok', 1 ],
	[ 'last action answered, decision not stored', 'last', 'ok', 0 ], [ 'failure answered, rollback not stored', 'last', 'bad', 1 ])
{
	my ($name, $when, $kind, $signal) = @$crash;
	my $tag = 'crash' . $n++;
	my ($id, $last);

	sql("UPDATE retry.scene SET paused = true, url = '" . ($kind eq 'ok' ? good("$tag-b") : $shop->url("/status/409?$tag")) . "' WHERE name = 'paused'");
	$hold->query_safe('BEGIN; LOCK TABLE ' . ($when eq 'first' ? 'retry.attempt' : 'retry.global_outcome') . ' IN SHARE MODE') if $when ne 'last';
	$id = saga('[' . join(', ', step('a', good("$tag-a"), good("$tag-una")), step('b', 'g/paused', good("$tag-unb"))) . ']');
	$last = sql("SELECT task_id FROM retry.branches WHERE gid = '$id' AND branch = 'b' AND op = 'action'");
	if ($when eq 'last')
	{
		wait_sql($node, "SELECT outcome FROM retry.branches WHERE gid = '$id' AND branch = 'a' AND op = 'action'", "$name: before the last", expected => 'done');
		$hold->query_safe("BEGIN; SELECT FROM retry.global_transaction WHERE gid = '$id' FOR UPDATE");
	}
	sql("UPDATE retry.scene SET paused = false WHERE name = 'paused'");
	wait_for(sub { return $when eq 'last' ? scalar(() = $shop->ledger($last)) : calls($tag) eq 'a'; }, "$name: it is answered");
	others_go_on($node, $shop, $name) if $when ne 'first';
	is(sql("SELECT state FROM retry.transactions WHERE gid = '$id'"), 'undecided', "$name: undecided before the crash");
	crash($signal);
	eval { $hold->quit };
	$hold = session($node);
	stands($id, ($kind eq 'ok' ? 'committed' : 'rolled back') . '|answers|0', "$name: goes on after it");
	like(calls($tag), $kind eq 'ok' ? qr/^a( a)*( b)+$/ : qr/^a( unb)+( una)+$/, "$name: at least once each, in order, and nothing else");
	is(sql("SELECT count(*) FROM retry.global_decision WHERE gid = '$id'"), '1', "$name: decided once");
}
sql("UPDATE retry.scene SET url = '" . $shop->url('/ok/paused') . "' WHERE name = 'paused'");

# Everything at once, while dispatchers and the server are killed: sums stay the same.
sql("SELECT retry.saga('$transfer', jsonb_build_object('amount', n, 'from', 'a', 'to', 'c', 'bad', CASE n % 3 WHEN 0 THEN 'fee' WHEN 1 THEN 'in' END)) FROM generate_series(1, 60) n");
sql("DO \$\$
	DECLARE g uuid; p jsonb;
	BEGIN
		FOR n IN 1 .. 40 LOOP
			p := jsonb_build_object('amount', n, 'from', 'b', 'to', 'c');
			g := retry.tcc_begin(CASE WHEN n % 4 = 0 THEN interval '1 s' ELSE '1 h' END);
			PERFORM retry.tcc_branch(g, 'from', 'sql:public.hold', 'sql:public.hold', 'sql:public.hold', p);
			PERFORM retry.tcc_branch(g, 'to', 'sql:public.hold', 'sql:public.hold', 'sql:public.hold', p);
			IF n % 4 = 1 THEN PERFORM retry.tcc_rollback(g); ELSIF n % 4 > 1 THEN PERFORM retry.tcc_commit(g); END IF;
		END LOOP;
	END \$\$");
crash(1);
crash(0);
crash(1);
wait_sql($node, "SELECT count(*) FROM retry.transactions WHERE state IN ('undecided', 'committing', 'rolling back') AND gid <> '$first'",
	'kills: all that was begun ends', expected => '0');
# fee takes from a as well: of the sagas a third is committed, and the fee is gone
is(sql("SELECT sum(amount) + (SELECT coalesce(sum((m.body ->> 'amount')::int), 0) FROM (SELECT (convert_from(o.body, 'UTF8')::jsonb -> 'payload') AS body
		FROM retry.global_operation o JOIN retry.transactions t USING (gid) WHERE o.op = 'action' AND o.branch = 'fee' AND t.state = 'committed') m), sum(held) FROM account"),
	'3000|0', 'kills: the sum is what it was, and nothing is held');
is(sql("SELECT count(*) FILTER (WHERE state = 'committed'), count(*) FILTER (WHERE state = 'rolled back') FROM retry.transactions t
	WHERE t.mode = 'saga' AND EXISTS (SELECT FROM retry.operations b WHERE b.gid = t.gid AND b.branch = 'fee')"), '20|40', 'kills: sagas ended as they should');

# ---------------------------------------------------------------- copies

$hold->quit;
sql("UPDATE retry.scene SET paused = true WHERE name = 'paused'");
$gid = saga('[' . join(', ', step('a', good('copy-a'), good('copy-una')), step('b', 'g/paused', good('copy-unb'))) . ']');
wait_sql($node, "SELECT outcome FROM retry.branches WHERE gid = '$gid' AND branch = 'a' AND op = 'action'", 'a saga half way', expected => 'done');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], '... is dumped');
sql('CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dump ], '... and restored');
is($node->safe_psql('copy', "SELECT state FROM retry.transactions WHERE gid = '$gid'"), 'undecided', '... where it is undecided');
$node->safe_psql('copy', "SELECT retry.adopt(); SELECT retry.rollback('$gid')");
wait_sql($node, "SELECT concat_ws('|', state, decided_how, open_operations) FROM retry.transactions WHERE gid = '$gid'", 'the copy goes on when it is adopted',
	expected => 'rolled back|caller|0', dbname => 'copy');
is(calls('copy'), 'a unb una', '... and compensates');
is(sql("SELECT state FROM retry.transactions WHERE gid = '$gid'"), 'undecided', 'the original has not decided');

$node->stop;
done_testing();
