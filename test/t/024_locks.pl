# While a receiver hangs a dispatcher holds no transaction, no snapshot, and no
# lock but those of its slots.  Locks that a superuser's session holds on what a
# dispatcher uses delay what they must and lose nothing; it never waits for them
# longer than its lock_timeout.  And no session waits for a dispatcher.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_node('locks', conf => "retry.poll_interval = 60s\nautovacuum = off\n");
hold_nothing($node);
my $receiver = start_endpoint();
my $ok = $receiver->url('/ok');

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub dispatcher
{
	my ($pid) = workers($node, 'retry dispatcher');
	return $pid;
}

sub arrives
{
	my ($key, $description, $count) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_for(sub { scalar($receiver->ledger($key)) >= ($count // 1) },
		$description, diag => sub { RetryTest::picture($node, 'postgres') });
}

# What a dispatcher holds.

my $hung = enqueue($node, "'" . $receiver->url('/hang') . "', '{}', key => 'hung', lane => 'hung', timeout => '10 min'");
arrives('hung', 'a request hangs');
my $holds =
  "SELECT coalesce(string_agg(what, ', '), 'nothing') FROM ("
  . "SELECT 'a transaction' AS what FROM pg_stat_activity WHERE backend_type = 'retry dispatcher' AND xact_start IS NOT NULL "
  . "UNION ALL SELECT 'a snapshot' FROM pg_stat_activity WHERE backend_type = 'retry dispatcher' AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) "
  . "UNION ALL SELECT 'a lock on ' || coalesce(relation::regclass::text, locktype || ' ' || coalesce(objsubid, 0)) FROM pg_locks l "
  . "WHERE pid IN (SELECT pid FROM pg_stat_activity WHERE backend_type = 'retry dispatcher') AND NOT (locktype = 'advisory' AND objsubid = 82)) s";
wait_sql($node, $holds, 'the dispatcher holds nothing', expected => 'nothing');
my %seen;
$seen{ sql($holds) } = 1 foreach 1 .. 20;
is(join('; ', keys %seen), 'nothing', 'and not in between');
is( sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 82"), '64', 'but its slots');
is( sql("SELECT state FROM pg_stat_activity WHERE backend_type = 'retry dispatcher'"), 'idle', 'it is idle');

# Locks of a session.  Each time: tasks that fall due while the lock is held,
# which were enqueued before, since enqueue may need the same table; after the
# release all must have been delivered, once.

my $round = 0;
my $restarts = 0;
my $leaf = sql('SELECT leaf FROM retry.task LIMIT 1');
my $nn = sprintf '%02d', $leaf;

# Ends the dispatcher, and waits until another has had a second's time.
sub restart
{
	my $pid = dispatcher();

	sql("SELECT pg_terminate_backend($pid)");
	$restarts++;
	return wait_sql($node,
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'retry dispatcher' AND pid <> $pid AND backend_start < clock_timestamp() - interval '1 s'",
		'another dispatcher has started', expected => '1');
}

# locked(TABLE, %options):
#   meanwhile => 0   the tasks may have to wait for the release
#   restart   => 1   the dispatcher is terminated under the lock as well
#   path, outcome    what the receiver answers, and how the tasks end
sub locked
{
	my ($table, %opt) = @_;
	my $holder = session($node);
	my $path = $opt{path} // '/ok';
	my $outcome = $opt{outcome} // 'succeeded';
	my $name = "$table" . ($opt{restart} ? ', dispatcher terminated' : '');
	my ($pid, $waited) = (dispatcher(), 0);

	$round++;
	sql("SELECT retry.enqueue('" . $receiver->url($path) . "', '{}', key => 'lock-$round-' || n, lane => 'lock' || n, delay => '500 ms') FROM generate_series(1, 4) n");
	my $early = enqueue($node, "'" . $receiver->url('/delay/700') . "', '{}', key => 'early-$round', lane => 'early'");
	arrives("early-$round", "$name: a request is under way");
	$holder->query_safe("BEGIN; LOCK TABLE $table IN ACCESS EXCLUSIVE MODE");
	restart() if $opt{restart};
	if ($opt{meanwhile} // 1)
	{
		arrives("lock-$round-$_", "$name locked: task $_ is sent all the same") foreach 1 .. 4;
	}
	my $until = time() + 1.5;
	while (time() < $until)
	{
		my $worst = sql("SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0) FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity WHERE backend_type = 'retry dispatcher')");

		$waited = $worst if $worst > $waited;
		usleep(10_000);
	}
	# its limit is 50 ms; the machine may be slow
	cmp_ok($waited, '<', 1, "$name locked: the dispatcher does not wait for it");
	$holder->query_safe('COMMIT');
	$holder->quit;
	foreach my $n (1 .. 4)
	{
		wait_sql($node, "SELECT state || ' ' || attempts FROM retry.tasks WHERE key = 'lock-$round-$n'",
			"$name released: task $n is $outcome", expected => "$outcome 1");
	}
	wait_state($node, $early, 'succeeded', description => "$name released: so is what was under way");
	is(join(',', map { scalar $receiver->ledger($_) } map { "lock-$round-$_" } 1 .. 4),
		'1,1,1,1', "$name: each was sent once");
	is(dispatcher(), $pid, "$name: by the same dispatcher") unless $opt{restart};
	return;
}

locked('retry.scene');
locked('retry.scene_group');
locked('retry.installation');
locked('retry.key');
locked('retry.checkpoint_a, retry.checkpoint_b');
locked('retry.task_' . sprintf('%02d', ($leaf + 5) % 32));
locked('retry.dead_letter', path => '/status/400', outcome => 'dead');
locked("retry.task_$nn", meanwhile => 0);
locked("retry.attempt_$nn", meanwhile => 0);
locked("retry.signal_$nn", meanwhile => 0);
locked('retry.task', meanwhile => 0);
locked('retry.scene', restart => 1, meanwhile => 0);
locked('retry.checkpoint_a, retry.checkpoint_b', restart => 1);

# A scene that is made while the configuration is locked cannot be known yet:
# its task waits, and the others go on.
{
	my $holder = session($node);
	my $maker = session($node);

	$maker->query_safe("BEGIN; INSERT INTO retry.scene (name, url) VALUES ('fresh', '$ok'); SELECT retry.enqueue('fresh', '{}', key => 'fresh')");
	$holder->query_safe('BEGIN; LOCK TABLE retry.installation IN ACCESS EXCLUSIVE MODE');
	$maker->query_safe('COMMIT');
	$maker->quit;
	enqueue($node, "'$ok', '{}', key => 'known-$_', lane => 'known'") foreach 1 .. 3;
	arrives("known-$_", "a scene that is not known yet: others go on") foreach 1 .. 3;
	# not by the view, which reads what is locked here
	is( sql("SELECT (SELECT count(*) FROM retry.task WHERE key = 'fresh') || ' ' || (SELECT count(*) FROM retry.attempt a JOIN retry.task t ON t.id = a.task_id WHERE t.key = 'fresh')"),
		'1 0', 'its task waits');
	$holder->query_safe('COMMIT');
	$holder->quit;
	wait_sql($node, "SELECT state FROM retry.tasks WHERE key = 'fresh'", 'and is delivered then', expected => 'succeeded');
}

# What sessions do to the tables while tasks are delivered from them.

sql("SELECT retry.enqueue('" . $receiver->url('/flaky-percent/60') . "', '{}', lane => 'l' || n % 5, backoff => 'fixed 5ms', max_attempts => 100000) FROM generate_series(1, 300) n");
$ENV{PGOPTIONS} = '-c lock_timeout=20s';
foreach my $statement (
	"VACUUM retry.task_$nn",
	"VACUUM retry.attempt_$nn",
	"ANALYZE retry.attempt_$nn",
	"CREATE INDEX mine ON retry.attempt_$nn (finished_at)",
	"DROP INDEX retry.mine",
	"CREATE INDEX CONCURRENTLY mine ON retry.task_$nn (method)",
	"DROP INDEX retry.mine",
	"REINDEX TABLE retry.attempt_$nn",
	"VACUUM FULL retry.attempt_$nn",
	"LOCK TABLE retry.task, retry.attempt, retry.signal",
	"LOCK TABLE retry.scene, retry.scene_group, retry.dead_letter, retry.checkpoint_a, retry.checkpoint_b",
	"UPDATE retry.scene SET description = 'x'",
	"ALTER TABLE retry.attempt_$nn SET (fillfactor = 90)",
	"CLUSTER retry.task_$nn USING task_${nn}_id")
{
	my ($rc, $out, $err) = $node->psql('postgres', "BEGIN; $statement; COMMIT");

	# some cannot run in a transaction
	($rc, $out, $err) = $node->psql('postgres', $statement) if $rc || ($err // '') =~ /ERROR/;
	is($err, '', "$statement gets through");
}
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE state NOT IN ('succeeded', 'dead', 'running')",
	'all is delivered', expected => '0');
is( sql("SELECT count(*) FROM (SELECT FROM retry.attempt GROUP BY task_id HAVING count(*) <> max(attempt_no)) s"),
	'0', 'and numbered without gaps');
is($receiver->stats->{after_success}, 0, 'nothing was sent after its success');
is(scalar $receiver->ledger('hung'), 1 + $restarts, 'what hangs was sent again by new dispatchers only');
$node->stop;
done_testing();
