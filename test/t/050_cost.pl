# What delivery costs must not depend on how much is waiting or done (I7), an
# idle dispatcher reads nothing (I8), and its memory is bounded by settings, not
# by the backlog (I6).  Nothing here looks at a clock: work is counted in index
# entries read and index scans begun, which the server counts itself.
use strict;
use warnings FATAL => 'all';

use RetryTest;
use Test::More;

my $node = new_node('cost', conf => <<'CONF');
autovacuum = off
jit = off
retry.poll_interval = 50ms
retry.max_queued = 2000
max_prepared_transactions = 5
CONF
my $receiver = start_endpoint();
my $url = $receiver->url('/ok');

# Index entries and index scans of the extension's relations, up to now.
sub work
{
	my $row = $node->safe_psql('postgres', <<'SQL');
SELECT pg_stat_clear_snapshot();
SELECT coalesce(sum(idx_tup_read), 0), coalesce(sum(idx_scan), 0)
FROM pg_stat_user_indexes WHERE schemaname = 'retry'
SQL
	my ($tuples, $scans) = (split /\n/, $row)[-1] =~ /(\d+)\|(\d+)/;
	return { tuples => $tuples, scans => $scans };
}

# Statistics reach shared memory once a second: wait until they stay as they are
# over many turns of the dispatcher.
sub settled_work
{
	my $last = work();
	for (1 .. 100)
	{
		my $turns = $node->safe_psql('postgres', 'SELECT turns FROM retry.dispatchers');
		$node->poll_query_until('postgres', "SELECT turns > $turns + 25 FROM retry.dispatchers")
		  or die 'the dispatcher does not turn';
		my $now = work();
		return $now if $now->{tuples} == $last->{tuples} && $now->{scans} == $last->{scans};
		$last = $now;
	}
	die 'the counters do not come to rest';
}

# Attempts recorded; asking the tables would count as work.
sub finished
{
	return $node->safe_psql('postgres', 'SELECT attempts FROM retry.dispatchers');
}

# Delivers n tasks, one commit each, and returns what was read for each of them.
sub deliver
{
	my ($n) = @_;
	my $before = settled_work();
	my $done = finished() + $n;

	$node->safe_psql('postgres', "DO \$\$ BEGIN FOR i IN 1 .. $n LOOP PERFORM retry.enqueue('$url', '{}'); COMMIT; END LOOP; END \$\$");
	wait_for(sub { finished() == $done }, "$n tasks are delivered");
	my $after = settled_work();
	return { map { $_ => ($after->{$_} - $before->{$_}) / $n } keys %$before };
}

deliver(300);
my $empty = deliver(300);
note("read for each task: $empty->{tuples} entries, $empty->{scans} scans");

# I8: while others are busy, but not with us, not one index is looked into.
my $idle = settled_work();
$node->safe_psql('postgres', 'SELECT pg_current_xact_id()') for 1 .. 20;
is_deeply(settled_work(), $idle, 'an idle dispatcher begins no index scan');

# Nor is configuration read for what others have prepared.
my $configured = $node->safe_psql('postgres', 'SELECT seq_scan FROM pg_stat_all_tables WHERE relid = \'retry.scene\'::regclass');
$node->safe_psql('postgres', "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'other-$_'") for 1 .. 5;
$node->safe_psql('postgres', "COMMIT PREPARED 'other-$_'") for 1 .. 5;
settled_work();
is($node->safe_psql('postgres', 'SELECT seq_scan FROM pg_stat_all_tables WHERE relid = \'retry.scene\'::regclass'), $configured, 'a COMMIT PREPARED that is not about us has no configuration read');

# I7: much that is finished and much that is due later, in the same lane.
$node->safe_psql('postgres', "SELECT count(*) FROM retry.enqueue_many('$url', array_fill('{}'::jsonb, ARRAY[30000]))");
wait_for(sub { finished() == 30600 }, '30000 tasks are finished');
$node->safe_psql('postgres', "SELECT count(*) FROM retry.enqueue_many('$url', array_fill('{}'::jsonb, ARRAY[30000]), delay => '1 day')");
my $full = deliver(300);
note("with 30000 finished and 30000 pending: $full->{tuples} entries, $full->{scans} scans");
cmp_ok($full->{tuples}, '<=', $empty->{tuples} * 1.5 + 2, 'a task costs no more index entries than in an empty store');
cmp_ok($full->{scans}, '<=', $empty->{scans} * 1.5 + 2, 'nor more index scans');

# I7: the same with a snapshot that has been open for all that time.
my $old = session($node);
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$old->query_safe('SELECT count(*) FROM retry.scene');
$old->query_safe('SELECT pg_current_xact_id()');
deliver(3000);
my $held = deliver(300);
cmp_ok($held->{tuples}, '<=', $empty->{tuples} * 1.5 + 2, 'an old snapshot makes a task cost no more');
$old->query_safe('ROLLBACK');
$old->quit;

# I6: no more in memory than the settings allow, whatever is due.
$receiver->mode('hang');
$node->safe_psql('postgres', <<SQL);
SELECT count(*) FROM generate_series(1, 200) lane,
	LATERAL retry.enqueue_many('$url', array_fill('{}'::jsonb, ARRAY[100]), lane => 'lane-' || lane) x
SQL
wait_sql($node, 'SELECT in_flight >= 200 FROM retry.dispatchers', 'transfers hang');
cmp_ok($node->safe_psql('postgres', 'SELECT queued FROM retry.dispatchers'),
	'<=', 2000 + 200, 'the queues hold what retry.max_queued allows, the backlog stays on disk');
$receiver->mode('up');
$receiver->stop;
$node->stop('immediate');
done_testing();
