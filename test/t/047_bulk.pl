# cancel_where and run_now_where while a dispatcher delivers: what is cancelled
# is not sent any more, what is to run does, and not before its turn.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $in_flight = 4;
my $node = new_node('main', conf => "retry.max_in_flight = $in_flight\nshared_buffers = 128MB");
hold_nothing($node);
my $receiver = start_endpoint();
my $markers = 0;

sub sql
{
	my ($query) = @_;

	return ask($node, $query);
}

# A task that is enqueued now and has gone through; returns its key.
sub marker
{
	my ($what) = @_;
	my $key = 'marker-' . ++$markers;
	my $id = enqueue($node, "'" . $receiver->url('/ok') . "', key => '$key', lane => '$key'");
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_state($node, $id, 'succeeded', description => "$what: what comes later goes through");
	return $key;
}

# Requests that came after the one with this key.
sub after
{
	my ($key) = @_;
	my @all = $receiver->ledger;
	my ($at) = grep { $all[$_]{key} eq $key } 0 .. $#all;

	return @all[ $at + 1 .. $#all ];
}

sql(<<"SQL");
INSERT INTO retry.scene (group_name, name, url, backoff, paused, max_attempts) VALUES
	('default', 'flow', '${\$receiver->url('/delay/2')}', 'fixed 1s', true, 16),
	('default', 'hangs', '${\$receiver->url('/delay/1000')}', 'fixed 100ms', false, 16),
	('default', 'fails', '${\$receiver->url('/delay/1000?status=500')}', 'fixed 100ms', false, 16),
	('default', 'later', '${\$receiver->url('/ok')}', 'fixed 1s', false, 16),
	('default', 'flaky', '${\$receiver->url('/flaky/1')}', 'fixed 1h', false, 16);
SQL

##########################################################################
# Cancelled in the middle of delivery.  The last enqueued are the first due, so
# that those at the heads of the queues are the last to be read of.
##########################################################################

my $tasks = 80000;
sql(<<"SQL");
SELECT count(retry.enqueue('flow', key => 'flow-' || i, lane => 'flow-' || i % 4, delay => make_interval(secs => ($tasks - i) * 0.00005)))
FROM generate_series(1, $tasks) i;
SQL
wait_sql($node, "SELECT max(due_at) < now() FROM retry.tasks WHERE scene = 'default/flow'", 'all are due');
sql("UPDATE retry.scene SET paused = false WHERE name = 'flow'");
wait_for(sub { $receiver->stats->{total} > 200 }, 'delivery is under way');

my $session = session($node);
$session->query_safe('BEGIN');
my $cancelled = $session->query_safe("SELECT retry.cancel_where('flow')");
my $before = $receiver->stats->{total};
wait_for(sub { $receiver->stats->{total} > $before + 200 }, 'delivery goes on until the commit');
# What arrives of this transaction says that its commit was seen.
my $id = $session->query_safe("SELECT retry.enqueue('" . $receiver->url('/ok') . "', key => 'committed')");
$session->query_safe('COMMIT');
wait_state($node, $id, 'succeeded', description => 'what was enqueued with it is sent');
cmp_ok($cancelled, '>', $tasks / 2, 'most were cancelled');
is(sql("SELECT count(*) || ' ' || count(DISTINCT task_id) FROM retry.signal WHERE action = 'c'"),
	"$cancelled $cancelled", 'as many as it says, each once');
marker('cancelled');
my @late = grep { $_->{key} =~ /^flow-/ } after('committed');
cmp_ok(scalar(@late), '<', $in_flight, 'nothing is sent later but what was in flight')
  || diag(scalar(@late) . ' came later');
is(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/flow' AND state NOT IN ('succeeded', 'cancelled')"),
	'0', 'all have either succeeded or are cancelled');
is( sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/flow' AND state = 'succeeded'"),
	scalar(grep { $_->{key} =~ /^flow-/ } $receiver->ledger),
	'those sent have succeeded');
is(sql("SELECT retry.cancel_where('flow') + retry.run_now_where('flow')"), '0', 'none is left to be asked anything of');
$before = $receiver->stats->{total};
$node->stop('immediate');
$node->start;
marker('after a crash');
is($receiver->stats->{total}, $before + 1, 'after a crash they are still cancelled');

##########################################################################
# Under way: it may end the task, and nothing comes after it.
##########################################################################

my %id = map { $_ => enqueue($node, "'$_', key => '$_'") } qw(hangs fails);
wait_sql($node, "SELECT count(*) FROM retry.running WHERE scene IN ('default/hangs', 'default/fails')",
	'two are under way', expected => '2');
is(sql("SELECT retry.cancel_where('hangs') || ' ' || retry.cancel_where('fails')"), '1 1', 'they are cancelled');
wait_state($node, $id{hangs}, 'succeeded', description => 'the one that ended well has succeeded');
wait_state($node, $id{fails}, 'cancelled', description => 'the one that failed is cancelled');
marker('cancelled under way');
is(scalar(my @requests = $receiver->ledger('fails')), 1, 'and not tried again');

##########################################################################
# Run now: pending and retrying, at once and only once
##########################################################################

sql("SELECT count(retry.enqueue('flaky', key => 'flaky-' || i)) FROM generate_series(1, 50) i");
sql("SELECT count(retry.enqueue('later', key => 'later-' || i, delay => '1 day')) FROM generate_series(1, 50) i");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/flaky' AND state = 'retrying'",
	'some wait for their next attempt', expected => '50');
is(sql("SELECT retry.run_now_where() || ' ' || retry.cancel_where('later', until => now() - interval '1 hour')"),
	'100 0', 'all are to run now');
wait_sql($node,
	"SELECT count(*) FROM retry.tasks WHERE scene IN ('default/flaky', 'default/later') AND state = 'succeeded'",
	'and do', expected => '100');
is(scalar(grep { $_->{key} =~ /^flaky-/ } $receiver->ledger), 100, 'twice in all for those that had failed');
is(scalar(grep { $_->{key} =~ /^later-/ } $receiver->ledger), 50, 'once for those that were due tomorrow');

##########################################################################
# Spread: none before its turn
##########################################################################

sql("SELECT count(retry.enqueue('later', key => 'spread-' || i, delay => '1 day')) FROM generate_series(1, 300) i");
is(sql("SELECT retry.run_now_where('later', since => now() - interval '1 hour', spread => '3 s')"),
	'300', 'three hundred over three seconds');
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE key LIKE 'spread-%' AND state = 'succeeded'",
	'all of them run', expected => '300');
my %due = map { split /\|/ } split /\n/, sql(<<"SQL");
SELECT t.key, (extract(epoch FROM s.due_at) * 1000000)::bigint
FROM retry.signal s JOIN retry.task t ON t.id = s.task_id WHERE t.key LIKE 'spread-%'
SQL
my @spread = grep { $_->{key} =~ /^spread-/ } $receiver->ledger;
is(scalar(@spread), 300, 'each once');
is(scalar(grep { $_->{wall_us} < $due{ $_->{key} } } @spread), 0, 'none before it is due');
my @gaps = sort { $a <=> $b } values %due;
@gaps = map { $gaps[ $_ + 1 ] - $gaps[$_] } 0 .. $#gaps - 1;
is(scalar(grep { abs($_ - 10000) > 1 } @gaps), 0, 'and they are due evenly');

##########################################################################
# Many
##########################################################################

sql("SELECT count(*) FROM retry.enqueue_many('later', array_fill('{}'::jsonb, ARRAY[100000]), delay => '1 day')");
is(sql("SELECT retry.cancel_where('later')"), '100000', 'a hundred thousand in one call');
marker('many cancelled');
is(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/later' AND state = 'cancelled'"),
	'100000', 'all of them');
is(sql("SELECT count(*) FROM retry.tasks WHERE state IN ('pending', 'retrying', 'running')"), '0', 'nothing is left');

$node->stop;
done_testing();
