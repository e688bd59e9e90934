# Completion callbacks: who is told of a task's outcome, what the document says,
# that it is stored with the outcome it tells of, and that neither a chain of
# them, nor a target that is gone, nor a lock, nor a crash loses one or makes two.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('callbacks', conf => 'restart_after_crash = on');
my $receiver = start_endpoint();
my $bells = start_endpoint();
my $json = JSON::PP->new->canonical;

sub sql
{
	my ($query) = @_;
	return ask($node, $query);
}

# The only child of a task, when it has reached the state.
sub child
{
	my ($id, $state) = @_;
	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE parent_id = '$id' AND state = '$state'",
		"one callback of it has $state", expected => '1');
	return sql("SELECT id FROM retry.tasks WHERE parent_id = '$id'");
}

# The document a task was told with, moments and ids made steady.
sub document
{
	my ($id) = @_;
	my $document = decode_json(sql("SELECT convert_from(body, 'UTF8') FROM retry.tasks WHERE id = '$id'"));
	my $finished = sql("SELECT finished_at = '$document->{finished_at}' FROM retry.tasks WHERE id = '$document->{task}'");

	$document->{finished_at} = $finished eq 't' ? 'as recorded' : 'wrong';
	return $document;
}

sql("INSERT INTO retry.scene_group (name) VALUES ('shop')");
sql("INSERT INTO retry.scene (group_name, name, url, backoff) VALUES
	('shop', 'paid', '" . $bells->url('/ok/paid') . "', 'fixed 100ms'),
	('shop', 'failed', '" . $bells->url('/ok/failed') . "', 'fixed 100ms'),
	('shop', 'other', '" . $bells->url('/ok/other') . "', 'fixed 100ms'),
	('shop', 'flaky', '" . $bells->url('/flaky/2') . "', 'fixed 20ms')");
sql("INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts, on_success, on_dead) VALUES
	('shop', 'charge', '" . $receiver->url('/json?body=%7B%22charge%22%3A%2017%7D') . "', 'fixed 20ms', 2, 'shop/paid', 'shop/failed')");

# A callback to a scene with route all is told to each of its targets.
sql("INSERT INTO retry.scene (group_name, name, targets, route, backoff) VALUES
	('shop', 'everybody', ARRAY['" . join("', '", map { $bells->url("/ok/$_") } 1 .. 3) . "'], 'all', 'fixed 20ms')");
my $announced = enqueue($node, "'" . $receiver->url('/ok/announced') . "', '{}', on_success => 'shop/everybody'");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE parent_id = '$announced' AND state = 'succeeded'",
	'each target of a callback with route all is told', expected => '3');
is( sql("SELECT count(DISTINCT url), count(DISTINCT body), count(DISTINCT id) FROM retry.tasks WHERE parent_id = '$announced'"),
	'3|1|3', 'of the same, in tasks of their own');

# The scene of a callback gets another name while the attempt is under way.
sql("INSERT INTO retry.scene_group (name) VALUES ('before')");
sql("INSERT INTO retry.scene (group_name, name, url) VALUES ('before', 'told', '" . $bells->url('/ok/told') . "')");
sql("INSERT INTO retry.scene (group_name, name, url, on_success) VALUES
	('before', 'slow', '" . $receiver->url('/delay/3000') . "', 'before/told')");
my $slow = enqueue($node, "'before/slow', '{}'");
wait_state($node, $slow, 'running');
sql("UPDATE retry.scene_group SET name = 'after' WHERE name = 'before'");
is(sql("SELECT scene FROM retry.tasks WHERE id = '" . child($slow, 'succeeded') . "'"),
	'after/told', 'a callback finds its scene by the new name');

# Success: the whole document, and the row that carries it.
my $id = enqueue($node, q{'shop/charge', '{"order": 1}', key => 'order-1', reference => 'R-1'});
my $told = child($id, 'succeeded');
is_deeply(document($told),
	{ outcome => 'succeeded', task => $id, scene => 'shop/charge', key => 'order-1', reference => 'R-1',
		attempts => 1, status => 200, finished_at => 'as recorded', response => { charge => 17 }, payload => { order => 1 } },
	'the document of a success');
is(sql("SELECT scene, key IS NULL, reference, method, enqueued_by = (SELECT enqueued_by FROM retry.tasks WHERE id = '$id') FROM retry.tasks WHERE id = '$told'"),
	'shop/paid|t|R-1|POST|t', 'the callback is a task of its own scene, of the same role and reference');
is(sql("SELECT depth FROM retry.task WHERE id = '$told'"), '1', 'its depth is one more');
is(sql("SELECT count(DISTINCT x) FROM (SELECT xmin::text FROM retry.attempt WHERE task_id = '$id' UNION ALL SELECT xmin::text FROM retry.task WHERE id = '$told') AS t(x)"),
	'1', 'outcome and callback were stored by one transaction');
my ($request) = $bells->ledger($told);
is($request->{path}, '/ok/paid', 'the receiver got it, known by the callback\'s own id');

# Death: attempts, reason and error; a text is a string, and the rest base64.
$id = enqueue($node, "'shop/charge', '{\"order\": 2}', url => '" . $receiver->url('/status/503?body=try%20later') . "'");
$told = child($id, 'succeeded');
is_deeply(document($told),
	{ outcome => 'dead', task => $id, scene => 'shop/charge', attempts => 2, reason => 'exhausted', status => 503,
		finished_at => 'as recorded',
		response => 'try later', payload => { order => 2 } },
	'the document of a death');
is(sql("SELECT scene FROM retry.tasks WHERE id = '$told'"), 'shop/failed', '... goes to on_dead');

$id = enqueue($node, "'" . $receiver->url('/encoding') . "', body => '\\x00ff', on_success => 'shop/paid'");
my $document = document(child($id, 'succeeded'));
is($document->{response_base64}, sql("SELECT replace(encode(response, 'base64'), E'\\n', '') FROM retry.attempts WHERE task_id = '$id'"),
	'an answer that is no text comes in base64');
is_deeply([ sort keys %$document ], [qw(attempts finished_at outcome response_base64 scene status task)],
	'what has no value, and a body that is no JSON, is left out');

for my $case ([ '%7B%22a%22%3A%22%5Cu0000%22%7D', 'a zero character' ], [ '1e999999', 'a number beyond numeric' ],
	[ '%5B' x 600 . '%5D' x 600, 'deep nesting' ])
{
	$id = enqueue($node, "'" . $receiver->url("/json?body=$case->[0]") . "', on_success => 'shop/paid'");
	$told = child($id, 'succeeded');
	is(sql("SELECT jsonb_typeof(convert_from(body, 'UTF8')::jsonb -> 'response') FROM retry.tasks WHERE id = '$told'"),
		'string', "JSON with $case->[1] comes as text, and the document is a jsonb");
}
$id = enqueue($node, "'" . $receiver->url('/oversize/200000') . "', jsonb_build_object('x', repeat('y', 9000)), on_success => 'shop/paid'");
$document = document(child($id, 'succeeded'));
is(length($document->{response}) . ' ' . (exists $document->{payload} ? 1 : 0), 65536 . ' 0',
	'of a large answer the kept part comes, and a large payload is left out');

# The task's own target wins; every way to die is told of; cancelling is not.
$id = enqueue($node, q{'shop/charge', on_success => 'shop/other', on_dead => 'shop/other'});
is(sql("SELECT scene FROM retry.tasks WHERE id = '" . child($id, 'succeeded') . "'"), 'shop/other', 'the task\'s own target wins');
my $url = $bells->url('/ok/direct');
$id = enqueue($node, q{'shop/charge', on_success => '} . $url . q{'});
is(sql("SELECT scene || ' ' || url FROM retry.tasks WHERE id = '" . child($id, 'succeeded') . "'"), "default/default $url", 'a URL is called by the scene default');

my %ways = (
	stopped => "'shop/charge', url => '" . $receiver->url('/status/400') . "'",
	gone => "'shop/charge', url => '" . $receiver->url('/status/410') . "'",
	blocked => "'shop/barred'");
sql("INSERT INTO retry.scene (group_name, name, url, on_dead) VALUES ('shop', 'barred', 'http://[::1]:1/', 'shop/failed')");
sql("UPDATE retry.scene_group SET paused = true WHERE name = 'shop'");
my $expired = enqueue($node, q{'shop/charge', expires_at => clock_timestamp() + interval '300 ms'});
my $cancelled = enqueue($node, q{'shop/charge'});
sql("SELECT retry.cancel('$cancelled')");
wait_sql($node, "SELECT clock_timestamp() > expires_at FROM retry.tasks WHERE id = '$expired'", 'the time of a task is over', expected => 't');
sql("UPDATE retry.scene_group SET paused = false WHERE name = 'shop'");
is(document(child($expired, 'succeeded'))->{reason}, 'expired', 'told of an expired task');
for my $way (qw(stopped gone blocked))
{
	$id = enqueue($node, $ways{$way});
	$document = document(child($id, 'succeeded'));
	is($document->{reason}, $way, "told of a task that is dead because $way");
	is($document->{error}, (split /\|/, sql("SELECT last_error FROM retry.tasks WHERE id = '$id'") . '|')[0] || undef, '... and with its error');
}
wait_state($node, $cancelled, 'cancelled');
is(sql("SELECT count(*) FROM retry.task WHERE parent_id = '$cancelled'"), '0', 'nobody is told of a cancelled task');

# A callback is retried by its own policy, and a replay tells again.
$id = enqueue($node, q{'shop/charge', key => 'again', on_success => 'shop/flaky'});
$told = child($id, 'succeeded');
is(sql("SELECT attempts FROM retry.tasks WHERE id = '$told'"), '3', 'a callback is repeated by its own scene\'s policy');
my $replay = sql("SELECT retry.replay('$id')");
isnt(child($replay, 'succeeded'), $told, 'a replay has a callback of its own');

# A chain: authorize, capture, ship, each the callback of the one before.
sql("INSERT INTO retry.scene (group_name, name, url, on_success) VALUES
	('shop', 'authorize', '" . $bells->url('/ok/authorize') . "', 'shop/capture'),
	('shop', 'capture', '" . $bells->url('/ok/capture') . "', 'shop/ship'),
	('shop', 'ship', '" . $bells->url('/ok/ship') . "', NULL)");
$id = enqueue($node, q{'shop/authorize', '{"order": 3}', reference => 'R-3'});
wait_sql($node, <<"SQL", 'a chain of three ends', expected => 'shop/authorize 0,shop/capture 1,shop/ship 2');
WITH RECURSIVE chain AS (
	SELECT id, scene, 0 AS depth FROM retry.tasks WHERE id = '$id'
	UNION ALL
	SELECT t.id, t.scene, depth + 1 FROM retry.tasks t JOIN chain c ON t.parent_id = c.id AND t.reference = 'R-3' AND t.state = 'succeeded')
SELECT string_agg(scene || ' ' || depth, ',' ORDER BY depth) FROM chain
SQL

# A loop is stopped by its length.
sql("INSERT INTO retry.scene (group_name, name, url, on_success, on_dead) VALUES
	('shop', 'a', '" . $bells->url('/ok/a') . "', 'shop/b', 'shop/failed'),
	('shop', 'b', '" . $bells->url('/ok/b') . "', 'shop/a', 'shop/failed')");
$id = enqueue($node, q{'shop/a', reference => 'loop'});
wait_sql($node, "SELECT reason, attempts, last_error FROM retry.dead_letters WHERE reference = 'loop'",
	'a loop ends in a dead letter', expected => 'rejected|1|chain of callbacks is longer than 16');
is(sql("SELECT count(*), count(*) FILTER (WHERE state = 'succeeded') FROM retry.tasks WHERE reference = 'loop'"), '18|17',
	'... after 16 callbacks, and nobody is told of that');
like(slurp_file($node->logfile), qr/LOG:  retry: callback on_success "shop\/b" of task [0-9a-f-]*: chain of callbacks is longer than 16/,
	'... and the log tells of it');

# A function as a callback, and a function that has one: both in the function's own transaction.
sql('CREATE TABLE told (document jsonb, by_role name); CREATE FUNCTION tell(document jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.told VALUES (document, current_user) $$');
sql('CREATE FUNCTION give(jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT $1 || \'{"given": true}\' $$');
$id = enqueue($node, q{'sql:public.give', '{"order": 5}', on_success => 'sql:public.tell'});
$told = child($id, 'succeeded');
is(sql("SELECT document ->> 'outcome', document -> 'response' FROM told WHERE document ->> 'task' = '$id'"),
	'succeeded|{"given": true, "order": 5}', 'a function is told of the outcome of a function');
is(sql("SELECT count(DISTINCT x) FROM (SELECT xmin::text FROM retry.attempt WHERE task_id = '$id' UNION ALL SELECT xmin::text FROM retry.task WHERE id = '$told') AS t(x)"),
	'1', '... with a callback that was stored by the transaction of the first');

# A target that is gone.
sql("INSERT INTO retry.scene (group_name, name, url) VALUES ('shop', 'short-lived', '" . $bells->url('/ok/gone') . "')");
sql("UPDATE retry.scene_group SET paused = true WHERE name = 'shop'");
$id = enqueue($node, q{'shop/charge', '{"order": 4}', reference => 'R-4', on_success => 'shop/short-lived'});
sql("DELETE FROM retry.scene WHERE name = 'short-lived'");
sql("UPDATE retry.scene_group SET paused = false WHERE name = 'shop'");
wait_state($node, $id, 'succeeded');
$told = child($id, 'dead');
is(sql("SELECT scene, reason, last_error, reference FROM retry.dead_letters WHERE id = '$told'"),
	'default/default|rejected|on_success: scene "shop/short-lived" does not exist|R-4', 'a lost callback is a dead letter that names its target');
is_deeply(document($told)->{payload}, { order => 4 }, '... with the document');

# A locked leaf holds up the outcome that has a callback, and no other; a lock
# on the configuration holds up nothing.
my $leaf = sql("SELECT to_char(leaf, 'FM00') FROM retry.task WHERE id = '$id'");
my $holder = session($node);
$holder->query_safe('BEGIN');
my @both = map { enqueue($node, "'" . $receiver->url('/delay/700') . "', key => '$_'" . ($_ eq 'told' ? ", on_success => 'shop/paid'" : '')) } qw(told untold);
$holder->query_safe("LOCK TABLE retry.task_$leaf IN SHARE MODE");
wait_state($node, $both[1], 'succeeded', description => 'with the leaf for callbacks locked, an outcome without one is recorded');
wait_for(sub { my @got = $receiver->ledger('told'); @got == 1 }, 'the other was sent');
is(sql("SELECT count(*) FROM retry.attempt WHERE task_id = '$both[0]'"), '0', '... and its outcome waits with its callback');
$holder->query_safe('COMMIT');
child($both[0], 'succeeded');
is(scalar(my @sent = $receiver->ledger('told')), 1, '... and is recorded without another request');

$holder->query_safe('BEGIN');
$id = sql("SELECT retry.enqueue('" . $receiver->url('/delay/300') . "', on_success => 'shop/paid')");
$holder->query_safe('LOCK TABLE retry.scene, retry.scene_group IN ACCESS EXCLUSIVE MODE');
wait_sql($node, "SELECT count(*) FROM retry.task t JOIN retry.attempt a ON a.task_id = t.id WHERE t.parent_id = '$id' AND a.outcome = 'succeeded'",
	'with the configuration locked a callback is stored and sent', expected => '1');
$holder->query_safe('COMMIT');
$holder->quit;

# What cannot be stored: first the document gets smaller, then the callback goes,
# but never the outcome.
sub poison
{
	my ($condition) = @_;
	sql("CREATE INDEX poison ON retry.task_$leaf ((1 / (CASE WHEN parent_id IS NOT NULL AND $condition THEN 0 ELSE 1 END)))");
	return;
}
my $answer = $receiver->url('/json?body=%7B%22say%22%3A%22poisonous%22%7D');
poison("position('\\x706f69736f6e6f7573'::bytea IN body) > 0");
$id = enqueue($node, "'$answer', on_success => 'shop/paid'");
$document = document(child($id, 'succeeded'));
is_deeply([ exists $document->{response}, $document->{outcome} ], [ '', 'succeeded' ], 'a document that cannot be stored loses its large parts');
is(sql("SELECT convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$id'"), '{"say":"poisonous"}', '... and the attempt nothing');
sql('DROP INDEX retry.poison');
poison("reference = 'poison'");
$id = enqueue($node, "'$answer', reference => 'poison', on_success => 'shop/paid'");
my $other = enqueue($node, "'$answer', reference => 'good', on_success => 'shop/paid'");
child($other, 'succeeded');
wait_state($node, $id, 'succeeded', description => 'a callback that cannot be stored does not hold its outcome back');
is(sql("SELECT convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$id'"), '{"say":"poisonous"}', '... which is stored whole');
is(sql("SELECT count(*) FROM retry.task WHERE parent_id = '$id'"), '0', '... without it');
wait_for(sub { slurp_file($node->logfile) =~ /LOG:  retry: callback on_success "shop\/paid" of task $id: it cannot be stored, and is dropped: division by zero/ },
	'... and the log tells of it');
sql('DROP INDEX retry.poison');

# A dump is restored in whatever order its rows come.
sql("UPDATE retry.scene SET on_success = 'shop/ship' WHERE group_name = 'default' AND name = 'default'");
my $scenes = q{SELECT string_agg(concat_ws(' ', group_name, name, on_success, on_dead), ',' ORDER BY group_name, name) FROM retry.scene};
foreach my $way ([], ['--inserts'], [ '--inserts', '--disable-triggers' ])
{
	my $name = 'restored' . (join '', map { s/\W//gr } @$way);
	my $file = "$PostgreSQL::Test::Utils::tmp_check/$name.sql";
	sql("CREATE DATABASE $name");
	$node->command_ok([ 'pg_dump', @$way, '-f', $file, 'postgres' ], "dumped @$way");
	$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $name, '-f', $file ], '... and restored');
	is($node->safe_psql($name, $scenes), sql($scenes), '... with the callbacks of the scenes');
	sql("DROP DATABASE $name");
}
sql("UPDATE retry.scene SET on_success = NULL WHERE group_name = 'default' AND name = 'default'");

# Ten thousand at once, and a dispatcher that is killed amid them: each outcome
# has one callback.
sql("SELECT count(*) FROM retry.enqueue_many('" . $receiver->url('/ok/many') . "', (SELECT array_agg('1'::jsonb) FROM generate_series(1, 10000)), reference => 'many', on_success => '" . $bells->url('/ok/many') . "')");
wait_sql($node, "SELECT count(*) > 1000 FROM retry.task WHERE reference = 'many' AND parent_id IS NOT NULL", 'some have ended', expected => 't');
my ($dispatcher) = split /\n/, sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'retry dispatcher'");
kill 'KILL', $dispatcher;
wait_for(sub {
		my ($status, $out) = eval { $node->psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'retry dispatcher' AND pid <> $dispatcher") };
		return defined $status && $status == 0 && $out >= 1;
	}, 'the dispatcher is back');
wait_sql($node, "SELECT count(*) FROM retry.task t JOIN retry.attempt a ON a.task_id = t.id WHERE t.reference = 'many' AND a.outcome = 'succeeded'", 'all have ended, and their callbacks', expected => '20000');
is(sql("SELECT count(*), count(DISTINCT parent_id) FROM retry.task WHERE reference = 'many' AND parent_id IS NOT NULL"), '10000|10000', 'each has one callback');
is(sql("SELECT count(*) FROM retry.task c JOIN retry.attempt a ON a.task_id = c.parent_id AND a.next_due IS NULL WHERE c.reference = 'many' AND a.xmin <> c.xmin"),
	'0', '... stored with its outcome');

done_testing();
