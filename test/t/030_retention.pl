# Retention: what is old and finished goes, a leaf at a time; what is not stays,
# also when it was committed at the worst moment; and upkeep gets out of the way.
# Slow.
use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_node('main');
my $receiver = start_endpoint();
my $ok = $receiver->url('/ok');

# One number from SQL.
sub sql
{
	return ask($node, $_[0]);
}

sub purge_now
{
	sql("SELECT retry.purge(clock_timestamp())");
	sql("CALL retry.maintain()");
	return;
}

my $rows =
  'SELECT (SELECT count(*) FROM retry.task), (SELECT count(*) FROM retry.attempt), (SELECT count(*) FROM retry.signal)';

# Finished history goes when asked for, and what belonged to it.
sql(<<SQL);
INSERT INTO retry.scene (group_name, name, url, max_attempts, backoff)
VALUES ('default', 'dies', '@{[ $receiver->url('/status/500') ]}', 2, 'fixed 10ms'),
	('default', 'waits', '$ok', 3, 'fixed 1h'),
	('default', 'leaves', '$ok', 3, 'fixed 1h'),
	('default', 'holds', '@{[ $receiver->url('/status/500') ]}', 5, 'fixed 1h');
SQL
my @done = map { enqueue($node, "'$ok', '{}', key => 'done-$_'") } 1 .. 5;
my $dead = enqueue($node, "'dies', '{}', key => 'dead'");
my $cancelled = enqueue($node, "'waits', '{}', key => 'cancelled', delay => '1 h'");
enqueue($node, "'leaves'");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE state = 'succeeded'", 'delivered', expected => 6);
wait_state($node, $dead, 'dead');
is(sql("SELECT retry.cancel('$cancelled')"), 't', 'one is cancelled');
sql("DELETE FROM retry.scene WHERE name = 'leaves'");
is(sql("SELECT archived FROM retry.scene WHERE name = 'leaves'"), 't', 'a scene in use is archived');
purge_now();
is(sql($rows), '0|0|0', 'purge: nothing of the finished is left');
is(sql('SELECT count(*) FROM retry.purge_request'), 0, 'the request is carried out');
is(sql("SELECT state FROM retry.tasks WHERE id = '$dead'"), 'dead', 'the dead letter stays');
is(sql('SELECT count(*) FROM retry.key'), 0, 'keys of finished tasks are gone');
is(sql("SELECT count(*) FROM retry.scene WHERE name = 'leaves'"), 0, 'an archived scene without tasks is gone');
my $again = enqueue($node, "'$ok', '{}', key => 'done-1'");
isnt($again, $done[0], 'their keys are free');
wait_state($node, $again, 'succeeded');

# purge() alone, without maintain(): it wakes whoever does it.
sql("SELECT retry.purge('infinity')");
wait_sql($node, $rows, 'purge() needs nothing more', expected => '0|0|0');
wait_sql($node, 'SELECT count(*) FROM retry.purge_request', 'and is done', expected => 0);

# What is not finished keeps its leaf, whole.
my $pending = enqueue($node, "'waits', '{}', key => 'pending', delay => '1 h'");
my $retrying = enqueue($node, "'holds', '{}', key => 'retrying'");
my $finished = enqueue($node, "'$ok'");
wait_state($node, $retrying, 'retrying');
wait_state($node, $finished, 'succeeded');
purge_now();
is(sql($rows), '3|2|0', 'a leaf with unfinished tasks is left whole');
is(sql('SELECT count(*) FROM retry.key'), 2, 'and the keys of these');
is(enqueue($node, "'waits', '{}', key => 'pending'"), $pending, 'which still count');
sql("SELECT retry.cancel('$_')") foreach $pending, $retrying;

# In flight: cancelled, and yet its attempt is to be recorded.
my $slow = start_endpoint();
my $flying = enqueue($node, "'" . $slow->url('/delay/600000') . "', timeout => '15 min'");
wait_state($node, $flying, 'running');
sql("SELECT retry.cancel('$flying')");
purge_now();
is(sql('SELECT count(*) FROM retry.task'), 4, 'a leaf with an attempt under way is left');
is(sql('SELECT count(*) FROM retry.purge_request'), 1, 'and the request kept');
$slow->stop('KILL');
wait_state($node, $flying, 'cancelled');
wait_sql($node, 'SELECT count(*) FROM retry.purge_request', 'which is carried out later', expected => 0);
is(sql('SELECT count(*) FROM retry.task'), 4, 'what ended after the moment it named is not meant');
purge_now();
is(sql($rows), '0|0|0', 'when the attempt has ended, the leaf goes');

# Locks that sessions hold: nobody waits for anybody.
my $holder = session($node);
$holder->query_safe('BEGIN');
my $open = $holder->query_safe("SELECT retry.enqueue('$ok', '{}', key => 'open')");
purge_now();
$holder->query_safe('COMMIT');
wait_state($node, $open, 'succeeded', description => 'enqueued before upkeep, committed after');
$holder->query_safe('BEGIN');
$holder->query_safe('SELECT count(*) FROM retry.tasks');
purge_now();
is(sql('SELECT count(*) FROM retry.task'), 1, 'a leaf that a session reads is left');
is(enqueue($node, "'$ok', '{}', key => 'meanwhile'") =~ /^[0-9a-f-]{36}$/, 1, 'and enqueue goes on');
$holder->query_safe('ROLLBACK');
$holder->query_safe('BEGIN; LOCK TABLE retry.key IN ACCESS EXCLUSIVE MODE');
sql('CALL retry.maintain()');
pass('upkeep ends though a table is locked');
$holder->query_safe('ROLLBACK');
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE state <> 'dead' AND state <> 'succeeded'",
	'all is delivered', expected => 0);
purge_now();
wait_sql($node, $rows, 'and all goes in the end', expected => '0|0|0');

# An index that is being rebuilt: its leaf's tasks must not be taken for not
# attempted, when they are all read again.
my $read_again = enqueue($node, "'$ok', '{}', key => 'read-again'");
wait_state($node, $read_again, 'succeeded');
my $index = sql("SELECT to_char(leaf, '\"attempt_\"FM00\"_no\"') FROM retry.task WHERE id = '$read_again'");
$holder->query_safe("BEGIN; REINDEX INDEX retry.$index");
sql('SELECT retry.adopt()');
my $turns = sql('SELECT turns FROM retry.dispatchers');
wait_sql($node, "SELECT turns > $turns + 5 FROM retry.dispatchers", 'turns pass while an index is locked');
$holder->query_safe('COMMIT');
my $afterwards = enqueue($node, "'$ok', '{}', key => 'afterwards'");
wait_state($node, $afterwards, 'succeeded');
my @requests = $receiver->ledger('read-again');
is(scalar @requests, 1, 'what had finished is not sent again');
purge_now();

# The worst moment: committed after upkeep's snapshot and before its lock.  The
# worker goes in steps, stopped between them, until it looks through the leaf,
# which takes many.
sql("UPDATE retry.scene SET paused = true WHERE name = 'waits'");
my $worker = "FROM pg_stat_activity WHERE backend_type = 'retry upkeep'";
my ($pid, $late);
# stopped with something in hand that others wait for
local $SIG{ALRM} = sub { kill('CONT', $pid) };
for (my $try = 1; $try <= 20 && !defined $late; $try++)
{
	if (sql('SELECT count(*) FROM retry.task') eq '0')
	{
		sql("SELECT count(*) FROM retry.enqueue_many('$ok', array_fill('{}'::jsonb, ARRAY[20000]))");
		wait_sql($node, 'SELECT count(*) FROM retry.attempt', 'many are delivered', expected => 20000);
	}
	my $leaf = sql("SELECT to_char(leaf, '\"task_\"FM00') FROM retry.task LIMIT 1");
	$holder->query_safe('SELECT retry.purge(clock_timestamp())');
	my $call = IPC::Run::start([ 'psql', '-X', '-q', '-d', $node->connstr('postgres'), '-c', 'CALL retry.maintain()' ], '2>', \my $said);
	my $end = time + 60;
	do { $pid = $holder->query_safe("SELECT coalesce(max(pid), 0) $worker") } until $pid || time > $end;
	while ($pid && kill('STOP', $pid))
	{
		alarm 3;
		my ($there, $looks) = split /\|/, $holder->query_safe(<<SQL);
SELECT count(*), bool_or(query = 'looking for history that may go' AND (
	SELECT array_agg(DISTINCT l.mode) = '{AccessShareLock}' FROM pg_locks l
	WHERE l.pid = $pid AND l.relation = 'retry.$leaf'::regclass)) $worker AND pid = $pid
SQL
		$late = $holder->query_safe("SELECT retry.enqueue('waits', '{}', key => 'late')") if $looks && $looks eq 't';
		alarm 0;
		kill('CONT', $pid);
		last if !$there || defined $late;
	}
	$call->finish;
	is($said, '', 'retry.maintain() ends');
	wait_sql($node, "SELECT count(*) $worker", 'upkeep ends', expected => 0);
}
ok(defined $late, 'a task was committed while upkeep looked through its leaf');
is(sql("SELECT state FROM retry.tasks WHERE id = '$late'"), 'pending', 'it is not lost');
like(sql("SELECT count(*), min(leaf) FILTER (WHERE id = '$late') FROM retry.task"), qr/^20001\||^1\|32$/, 'its leaf is left, or cleared at the next look, which took it elsewhere');
sql("UPDATE retry.scene SET paused = false WHERE name = 'waits'");
wait_state($node, $late, 'succeeded');
$holder->quit;

# Dead letters have a retention of their own; so has a replay, which dies before they are looked at.
wait_state($node, sql("SELECT retry.replay('$dead')"), 'dead');
sql("ALTER SYSTEM SET retry.dead_letter_retention = 0");
sql("SELECT pg_reload_conf()");
wait_sql($node, "SELECT setting = '0' FROM pg_settings WHERE name = 'retry.dead_letter_retention'", 'workers that start have the setting', fresh => 1);
sql('CALL retry.maintain()');
is(sql('SELECT count(*) FROM retry.dead_letter'), 0, 'old dead letters go');
is(sql('SELECT count(*) FROM retry.replayed'), 0, 'and the notes on their replay');

# Triggers that somebody has changed are put back.
sql("ALTER TABLE retry.task_05 ENABLE TRIGGER mark_foreign_row");
sql("ALTER TABLE retry.signal_06 DISABLE TRIGGER mark_foreign_row");
sql('CALL retry.maintain()');
is(sql("SELECT count(*) FROM pg_trigger WHERE tgname = 'mark_foreign_row' AND tgenabled <> 'A'"),
	0, 'triggers are put back');

# Rights, and commands that need the database to themselves.
sql('CREATE ROLE plain');
sql_fails($node, 'SET ROLE plain; CALL retry.maintain()', '42501', 'permission denied', 'maintain() is not for everybody');
sql("CREATE DATABASE other");
$node->safe_psql('other', 'CREATE EXTENSION retry');
wait_sql($node, "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'other' AND backend_type = 'retry dispatcher'",
	'the other database has its dispatcher');
$node->safe_psql('other', "SELECT retry.purge(now())");
sql('DROP DATABASE other');
pass('DROP DATABASE while upkeep is wanted');

# DROP EXTENSION while upkeep is at work, and again with nothing there.
sql('CREATE DATABASE another');
$node->safe_psql('another', 'CREATE EXTENSION retry');
$node->safe_psql('another', "SELECT retry.purge(now())");
$node->safe_psql('another', 'DROP EXTENSION retry');
wait_sql($node, "SELECT count(*) FROM pg_stat_activity WHERE datname = 'another'", 'nobody stays behind', expected => 0);
sql('DROP DATABASE another');

unlike(slurp_file($node->logfile), qr/upkeep goes on after an error/, 'upkeep met no errors');
$node->stop;

# Without the library preloaded, history can be kept in order by hand.
my $quiet = new_node('quiet', preload => 0, conf => "retry.allowed_networks = '127.0.0.0/8'\n");
$quiet->safe_psql('postgres', "SELECT retry.enqueue('$ok', '{}', delay => '1 h')");
$quiet->safe_psql('postgres', "SELECT retry.cancel(id) FROM retry.tasks");
$quiet->safe_psql('postgres', "SELECT retry.purge(clock_timestamp())");
$quiet->safe_psql('postgres', 'CALL retry.maintain()');
is($quiet->safe_psql('postgres', 'SELECT count(*) FROM retry.task'), 0, 'maintain() works without preloading');
$quiet->stop;
done_testing();
