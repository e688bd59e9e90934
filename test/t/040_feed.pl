# What commits, and when, must make no difference to what is delivered: each
# committed task once, in whatever order transactions end, and none that was
# undone.  Commits that fall between a dispatcher's reading of what is new and
# its reading of what is due are the ones that would be sent twice or never.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('main', conf => <<'CONF');
retry.max_in_flight = 64
retry.lane_max_in_flight = 32
max_prepared_transactions = 4
shared_buffers = 128MB
CONF
my $receiver = start_endpoint();
my $url = $receiver->url('/ok');

sub delivered_once
{
	my ($count, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_for(sub { $receiver->stats->{distinct} >= $count },
		"$what: all arrive",
		diag => sub { explain $receiver->stats, RetryTest::picture($node, 'postgres') });
	# What has been sent twice may still be under way: a later task says when not.
	my $id = enqueue($node, "'" . $receiver->url('/ok/after') . "'");
	wait_state($node, $id, 'succeeded', description => "$what: and what comes after");
	wait_sql($node,
		"SELECT count(*) FROM retry.tasks WHERE state IN ('pending', 'running', 'retrying') AND due_at <= now()",
		"$what: nothing is left",
		expected => '0');
	my $stats = $receiver->stats;
	is("$stats->{distinct} $stats->{duplicates}",
		($count + 1) . ' 0', "$what: each once");
	$receiver->reset;
	return;
}

# Two sessions keep transactions open that began before everything else.
my $with_xid = session($node);
$with_xid->query_safe('BEGIN');
$with_xid->query_safe("SELECT pg_current_xact_id()");
my $with_snapshot = session($node);
$with_snapshot->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$with_snapshot->query_safe('SELECT count(*) FROM pg_class');

# Commits between feed and refill: four sessions of small transactions, each
# held open for a random moment, all into one lane that is busy all the while.
{
	my $script = PostgreSQL::Test::Utils::tempdir . '/commits.sql';
	append_to_file($script, <<"SQL");
\\set n random(1, 9)
BEGIN;
SELECT count(retry.enqueue('$url', '{}')) FROM generate_series(1, :n);
SELECT pg_sleep(random() * 0.004);
SELECT count(retry.enqueue('$url', '{}', due_at => now() - interval '1 s')) FROM generate_series(1, 10 - :n);
COMMIT;
SQL
	$node->command_ok(
		[ 'pgbench', '-n', '-c', '4', '-t', '500', '-f', $script, 'postgres' ],
		'20000 tasks in 2000 transactions');
	delivered_once(20000, 'small transactions');
}

# Undone by ROLLBACK TO, by an exception, by an aborted transaction.
{
	$node->safe_psql('postgres', <<"SQL");
BEGIN;
SELECT retry.enqueue('$url', key => 'kept-1');
SAVEPOINT a;
SELECT retry.enqueue('$url', key => 'undone-1');
SAVEPOINT b;
SELECT retry.enqueue('$url', key => 'undone-2');
ROLLBACK TO a;
SELECT retry.enqueue('$url', key => 'kept-2');
RELEASE a;
DO \$\$ BEGIN
	BEGIN
		PERFORM retry.enqueue('$url', key => 'undone-3');
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		PERFORM retry.enqueue('$url', key => 'kept-3');
	END;
END \$\$;
COMMIT;
BEGIN;
SELECT retry.enqueue('$url', key => 'undone-4');
ROLLBACK;
SQL
	wait_for(sub { $receiver->stats->{distinct} == 3 }, 'subtransactions: what was kept arrives');
	is_deeply([ sort map { $_->{key} } $receiver->ledger ],
		[qw(kept-1 kept-2 kept-3)], 'and nothing that was undone');
	delivered_once(3, 'subtransactions');
}

# Prepared, and committed after others, by another session, and after a restart.
{
	$node->safe_psql('postgres',
		"BEGIN; SELECT count(retry.enqueue('$url')) FROM generate_series(1, 500); PREPARE TRANSACTION 'late'");
	$node->safe_psql('postgres',
		"BEGIN; SELECT count(retry.enqueue('$url')) FROM generate_series(1, 500); PREPARE TRANSACTION 'never'");
	$node->safe_psql('postgres', "INSERT INTO retry.scene (name, url) VALUES ('changed', '" . $receiver->url('/status/500') . "')");
	$node->safe_psql('postgres', "BEGIN; UPDATE retry.scene SET url = '$url' WHERE name = 'changed'; PREPARE TRANSACTION 'change'");
	my $id = enqueue($node, "'$url'");
	wait_state($node, $id, 'succeeded', description => 'a task enqueued after a prepared transaction');
	is($receiver->stats->{distinct}, 1, 'what is prepared is not sent');
	$node->restart;
	$id = enqueue($node, "'$url'");
	wait_state($node, $id, 'succeeded', description => 'nor after a restart');
	is($receiver->stats->{distinct}, 2, 'nor is it then');
	$node->safe_psql('postgres', "COMMIT PREPARED 'late'");
	$node->safe_psql('postgres', "ROLLBACK PREPARED 'never'");
	delivered_once(502, 'prepared transactions');
	$node->safe_psql('postgres', "COMMIT PREPARED 'change'");
	$id = enqueue($node, "'changed'");
	wait_state($node, $id, 'succeeded', description => 'configuration that was prepared before a restart counts when it is committed');
	is($node->safe_psql('postgres', "SELECT attempts FROM retry.tasks WHERE id = '$id'"), '1', '... at once');
	$receiver->reset;
	# the restart ended these
	eval { $_->quit } foreach ($with_xid, $with_snapshot);
	$with_xid = session($node);
	$with_xid->query_safe('BEGIN');
	$with_xid->query_safe("SELECT pg_current_xact_id()");
}

# A late committer: 100,000 tasks of one lane wait for their commit while
# others, due later, are delivered; and while they are, others still are.
{
	my $late = session($node);
	$late->query_safe('BEGIN');
	$late->query_safe(
		"SELECT count(*) FROM retry.enqueue_many('$url', array_fill('{}'::jsonb, ARRAY[100000]), lane => 'late')");
	my $others = 0;
	foreach my $round (1 .. 5)
	{
		my $id = enqueue($node, "'" . $receiver->url('/ok/other') . "', lane => 'late'");
		wait_state($node, $id, 'succeeded',
			description => "a task of the same lane overtakes the open transaction, $round");
		$others++;
	}
	$late->query_safe('COMMIT');
	$late->quit;
	my $before = $receiver->stats->{distinct};
	foreach my $round (1 .. 5)
	{
		my $id = enqueue($node, "'" . $receiver->url('/ok/other') . "', lane => 'mine'");
		wait_state($node, $id, 'succeeded',
			description => "a task of another lane is served meanwhile, $round");
		$others++;
	}
	my $then = $receiver->stats->{distinct};
	cmp_ok($then, '<', 100000, "the late ones were not all sent by then ($before, then $then)");
	delivered_once(100000 + $others, 'late committer');
}

# A million tasks that were undone: rows that nobody sees stop nothing.
{
	my $begun = time();
	foreach (1 .. 4)
	{
		$node->safe_psql('postgres',
			"BEGIN; SELECT count(*) FROM retry.enqueue_many('$url', array_fill('{}'::jsonb, ARRAY[250000])); ROLLBACK");
	}
	note sprintf('a million tasks undone in %.1f s', time() - $begun);
	$node->safe_psql('postgres', "SELECT count(retry.enqueue('$url')) FROM generate_series(1, 1000)");
	delivered_once(1000, 'after a million that were undone');
}

# Hundreds of thousands in one transaction; a million would take this receiver
# minutes.  Other lanes are served while they are read and sent.
{
	my $many = 200_000;

	$node->safe_psql('postgres',
		"SELECT count(*) FROM retry.enqueue_many('$url', array_fill('{}'::jsonb, ARRAY[$many]), lane => 'load')");
	foreach my $round (1 .. 20)
	{
		my $id = enqueue($node, "'" . $receiver->url('/ok/other') . "', lane => 'mine'");
		wait_state($node, $id, 'succeeded',
			description => "a task of another lane is served beside $many, $round");
	}
	cmp_ok($receiver->stats->{distinct}, '<', $many, 'while many of them were waiting');
	delivered_once($many + 20, 'a bulk load');
}

$with_xid->quit;
$node->stop;
done_testing();
