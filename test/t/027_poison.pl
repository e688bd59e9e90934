# Tasks that crash the process that has them: they are found, put aside as dead
# letters, and everything else is delivered.  The crashes are real ones, and so
# is what the server makes of them.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Poison;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
restart_after_crash = on
retry.dispatchers = 2
retry.sql_workers = 2
retry.poll_interval = 200ms
CONF
my $receiver = start_endpoint();
my $poison = RetryTest::Poison->new;

# Whoever asks may have to wait until the server is there again.
sub wait_value
{
	my ($query, $expected, $description) = @_;

	return wait_sql($node, $query, $description, expected => $expected);
}

sub sql
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

sub health
{
	return sql("SELECT status FROM retry.health() WHERE check_name = 'crashes'");
}

sub end_is
{
	my ($id, $what) = @_;

	wait_state($node, $id, 'dead', description => "$what: it is dead");
	is(sql("SELECT reason, attempts FROM retry.dead_letters WHERE id = '$id'"), 'quarantined|1', "$what: quarantined");
	is(sql("SELECT outcome, error FROM retry.attempts WHERE task_id = '$id'"),
		'error|the server crashed each time that this attempt was made alone', "$what: with an attempt that says why");
	return;
}

# In the files of the server's log, from a position on.
sub crashes
{
	my ($from) = @_;
	my $log = slurp_file($node->logfile, $from);

	return scalar(() = $log =~ /reinitializing/g);
}

is(health(), 'ok', 'no crash so far');

# In a crowd: of 150 attempts under way at the first crash one is the cause.
$node->safe_psql('postgres', "SELECT retry.enqueue('" . $receiver->url('/delay/300') . "', '{}', key => 'good-' || n, lane => 'l' || n % 10) FROM generate_series(1, 150) n");
my $bad = enqueue($node, "'" . $poison->url('/crowd') . "'");
$poison->arm;
end_is($bad, 'in a crowd');
wait_value("SELECT count(*) FROM retry.tasks WHERE state = 'succeeded'", '150', 'in a crowd: all others are delivered');
cmp_ok($poison->deaths, '>=', 3, 'in a crowd: three crashes and more');
cmp_ok($poison->deaths, '<=', 6, 'in a crowd: but few');
is(sql("SELECT count(*) FROM retry.dead_letters"), '1', 'in a crowd: nobody else was put aside');
is(sql("SELECT count(*) FROM retry.events WHERE kind = 'task quarantined' AND detail = 'task $bad, attempt 1'"), '1', 'there is an event');
is(health(), 'warning', 'retry.health() tells of it');
others_go_on($node, $receiver, 'in a crowd');

# Another chance.
$poison->cure;
my $again = sql("SELECT retry.replay('$bad')");
wait_state($node, $again, 'succeeded', description => 'it can be replayed when it is cured');

# At the head of an ordered lane, alone: three crashes exactly, and the next go on.
$poison = RetryTest::Poison->new;
sql("INSERT INTO retry.scene (name, url, ordered, max_in_flight) VALUES ('line', '" . $receiver->url('/ok/line') . "', true, 1)");
my $head = enqueue($node, "'line', '{}', url => '" . $poison->url('/line') . "'");
my $next = enqueue($node, "'line', '{}'");
$poison->arm;
end_is($head, 'in an ordered lane');
wait_state($node, $next, 'succeeded', description => 'in an ordered lane: the next goes on');
is($poison->deaths, 3, 'in an ordered lane: after three crashes');

# A function that crashes its executor: known at the first crash, and nobody else
# is held up for it.  Here it is the action of a saga, which has failed then.
sql(<<'SQL');
CREATE TABLE done (what text);
CREATE TABLE armed ();
CREATE FUNCTION crash(j jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.done VALUES ('crash');
	IF j -> 'payload' ? 'really' THEN
		WHILE NOT EXISTS (SELECT FROM public.armed) LOOP PERFORM pg_sleep(0.01); END LOOP;
		EXECUTE format('COPY (SELECT 1) TO PROGRAM ''kill -SEGV %s''', pg_backend_pid());
		PERFORM pg_sleep(60);
	END IF;
END $$;
SQL
my $from = -s $node->logfile;
my $undo = $receiver->url('/ok/undone');
my $saga = sql(qq{SELECT retry.saga('[{"action": "sql:public.crash", "compensate": "$undo"}]', '{"really": 1}')});
my $crash = sql("SELECT task_id FROM retry.branches WHERE gid = '$saga' AND op = 'action'");
$node->psql('postgres', 'INSERT INTO armed DEFAULT VALUES');
end_is($crash, 'a function');
my $well = enqueue($node, q('sql:public.crash', '{}'));
wait_state($node, $well, 'succeeded', description => 'a function: the next call of it');
is(sql('SELECT count(*) FROM done'), '1', 'a function: what crashed left nothing behind');
is(crashes($from), 3, 'a function: after three crashes');
is(sql("SELECT outcome FROM retry.branches WHERE gid = '$saga' AND op = 'action'"), 'failed', 'a function: its saga knows that it has failed');

# The count goes on where the server stays down after a crash, and is started.
# What crashes it here is the check of a message, over which the limit decides then.
$node->append_conf('postgresql.conf', "restart_after_crash = off\n");
$node->reload;
$poison = RetryTest::Poison->new;
my $message = sql("SELECT retry.prepare('" . $receiver->url('/ok/message') . "', check_target => '" . $poison->url('/restart') . "', check_after => '0')");
$bad = sql("SELECT check_id FROM retry.transactions WHERE gid = '$message'");
$poison->arm;
foreach my $n (1 .. 3)
{
	wait_for(sub { !-e $node->data_dir . '/postmaster.pid' }, "without restart: crash $n ends the server");
	$from = -s $node->logfile;
	$node->append_conf('postgresql.conf', "restart_after_crash = on\n") if $n == 3;

	# it may be down again before pg_ctl has seen it up, so its word is not asked
	PostgreSQL::Test::Utils::system_log('pg_ctl', '-W', '-D', $node->data_dir, '-l', $node->logfile, 'start');
	wait_for(sub { slurp_file($node->logfile, $from) =~ /ready to accept connections/ }, "without restart: start $n");
}
end_is($bad, 'without restart');
$node->_update_pid(1);
is($poison->deaths, 3, 'without restart: after three crashes');
is(sql("SELECT t.state, t.decided_how, b.state FROM retry.transactions t JOIN retry.branches b ON b.gid = t.gid AND b.op = 'check'"), 'rolled back|limit|dead',
	'without restart: nobody is left to ask about the message');
is(sql("SELECT count(*) FROM retry.events WHERE kind = 'decided at the limit'"), '1', 'without restart: which an event tells');
others_go_on($node, $receiver, 'without restart');

# What crashes again while its death is recorded is not even read any more; and
# what goes on crashing then is left where it is.  Recording waits for the lock.
# A transaction of which it is a part learns its end all the same.
sub with_callback { return enqueue($node, "'$_[0]', on_dead => '" . $receiver->url('/ok/told') . "'"); }

sub as_action
{
	my ($url) = @_;

	$saga = sql(qq{SELECT retry.saga('[{"action": "$url", "compensate": "$undo"}]')});
	return sql("SELECT task_id FROM retry.operations WHERE gid = '$saga' AND op = 'action'");
}

sub as_check
{
	my ($url) = @_;

	$message = sql("SELECT retry.prepare('" . $receiver->url('/ok/message') . "', check_target => '$url', check_after => '0', undecided => 'commit')");
	return sql("SELECT check_id FROM retry.transactions WHERE gid = '$message'");
}

sub crash_while_recording
{
	my ($times, $what, $make) = @_;

	$poison = RetryTest::Poison->new;
	sql("BEGIN; LOCK TABLE retry.dead_letter; PREPARE TRANSACTION 'lock'");
	$from = -s $node->logfile;
	$bad = $make->($poison->url('/letter'));
	$poison->arm;
	foreach my $n (1 .. $times)
	{
		my @pids;

		wait_for(sub { (@pids = slurp_file($node->logfile, $from) =~ /\[(\d+)\] WARNING:  retry: task $bad is put aside/g) == $n }, "$what: its death is to be recorded ($n)");
		kill 'SEGV', $pids[-1];
		wait_for(sub { crashes($from) == 3 + $n }, "$what: crash while it is ($n)");
	}
	wait_sql($node, 'SELECT count(*) FROM retry.dispatchers', "$what: the dispatchers are there", expected => '2');
	sql("COMMIT PREPARED 'lock'");
	others_go_on($node, $receiver, $what);
	is($poison->deaths, 3, "$what: it was not sent again");
	return;
}
crash_while_recording(1, 'unread', \&with_callback);
wait_sql($node, "SELECT state FROM retry.tasks WHERE id = '$bad'", 'unread: it is dead', expected => 'dead');
is(sql("SELECT reason, url IS NULL, body IS NULL FROM retry.dead_letters WHERE id = '$bad'"), 'quarantined|t|t', 'unread: its letter has nothing of its row');
crash_while_recording(1, 'action', \&as_action);
wait_sql($node, "SELECT state FROM retry.transactions WHERE gid = '$saga'", 'action: its saga is rolled back', expected => 'rolled back');
crash_while_recording(1, 'check', \&as_check);
wait_sql($node, "SELECT state, decided_how, retry.wait(gid, '0') FROM retry.transactions WHERE gid = '$message'", 'check: the limit has decided, and the message is delivered',
	expected => 'committed|limit|succeeded');
crash_while_recording(2, 'shunned', \&with_callback);
is(sql("SELECT state FROM retry.tasks WHERE id = '$bad'"), 'pending', 'shunned: it stays where it is');
is(sql("SELECT count(*) FROM retry.tasks WHERE url LIKE '%/ok/told'"), '0', 'nobody was told of these');
sql("SELECT retry.cancel('$bad')");

# Who is killed by somebody is not at fault.
my $kills = 5;
my $hangs = enqueue($node, "'" . $receiver->url('/hang') . "', timeout => '60 s'");
foreach my $n (1 .. $kills)
{
	wait_sql($node, "SELECT count(*) FROM retry.running WHERE id = '$hangs'", "killed: it is under way ($n)", expected => '1');
	$from = -s $node->logfile;
	kill 'KILL', workers($node, 'retry dispatcher%');
	wait_for(sub { crashes($from) == 1 }, "killed: the server begins anew ($n)");
}
wait_sql($node, "SELECT count(*) FROM retry.running WHERE id = '$hangs'", 'killed: it is under way again', expected => '1');
is(scalar(() = slurp_file($node->logfile, $from) =~ /that crashed/g), 0, 'killed: nothing is held against it');

# A dispatcher that crashes with nothing under way: nobody is put aside for it,
# and the server is left in peace for longer and longer.
sql("SELECT retry.cancel('$hangs')");
$node->restart;
foreach my $n (1 .. 12)
{
	wait_sql($node, "SELECT (SELECT count(*) FROM retry.dispatchers) = 2 OR (SELECT status FROM retry.health() WHERE check_name = 'crashes') = 'critical'",
		"idle: the dispatchers are there, or it is said why not ($n)");
	last if health() eq 'critical';
	$from = -s $node->logfile;
	kill 'SEGV', (workers($node, 'retry dispatcher%'))[0];
	wait_for(sub { crashes($from) == 1 }, "idle: the server begins anew ($n)");
}
is(health(), 'critical', 'idle: retry.health() says that they wait');
is(sql("SELECT count(*) FROM retry.dead_letters WHERE reason = 'quarantined'"), '7', 'idle: nobody is put aside');
$node->stop;
done_testing();
