# Trouble in one lane is that lane's: hanging and refusing receivers with long
# queues beside healthy ones, and a huge backlog beside a trickle.  No time is
# asserted, only what had happened before what.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => "retry.max_in_flight = 256\nshared_buffers = 128MB");
hold_nothing($node);
my $healthy = start_endpoint();
my $hanging = start_endpoint();
my $refusing = start_endpoint();
my $refused_port = $refusing->port;
$refusing->stop;

# No attempt ends by itself while this runs, and those refused keep failing.
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (group_name, name, url, backoff, timeout, max_attempts) VALUES
	('default', 'hangs', '${\$hanging->url('/hang')}', 'fixed 1s', '10 min', 3),
	('default', 'refuses', 'http://127.0.0.1:$refused_port/', 'fixed 50ms', '10 min', 1000000),
	('default', 'works', '${\$healthy->url('/ok')}', 'fixed 1s', '10 s', 3);
SELECT count(*) FROM generate_series(1, 10) lane,
	LATERAL retry.enqueue_many('hangs', array_fill('{}'::jsonb, ARRAY[5000]), lane => 'hangs' || lane);
SELECT count(*) FROM generate_series(1, 10) lane,
	LATERAL retry.enqueue_many('refuses', array_fill('{}'::jsonb, ARRAY[5000]), lane => 'refuses' || lane);
SQL
wait_for(sub { $hanging->stats->{in_progress} >= 100 }, 'requests hang');
wait_sql($node, "SELECT count(*) > 1000 FROM retry.attempts WHERE outcome = 'failed'", 'others are refused');

$node->safe_psql('postgres', <<"SQL");
SELECT count(*) FROM generate_series(1, 5) lane,
	LATERAL retry.enqueue_many('works', array_fill('{}'::jsonb, ARRAY[1000]), lane => 'works' || lane);
SQL
wait_for(sub { $healthy->stats->{distinct} >= 5000 }, 'all healthy tasks arrive',
	diag => sub { RetryTest::picture($node, 'postgres') });
my $stats = $hanging->stats;
cmp_ok($stats->{in_progress}, '>=', 100, 'while the others still hang');
is($stats->{aborted}, 0, 'not one of them has ended');
cmp_ok($stats->{total}, '<=', 224 + 10, 'and they had no more than their share');
is($healthy->stats->{duplicates}, 0, 'each healthy one once');
wait_sql($node,
	"SELECT count(*) FROM retry.tasks WHERE scene = 'default/works' AND state = 'succeeded'",
	'and all are recorded', expected => '5000');
is( $node->safe_psql(
		'postgres', "SELECT count(*) FROM retry.tasks WHERE scene <> 'default/works' AND state = 'succeeded'"),
	'0', 'nothing else has succeeded');
cmp_ok($node->safe_psql('postgres', 'SELECT queued FROM retry.dispatchers'),
	'<=', 65536, 'what is in memory is bounded');

# A huge backlog in one lane, slow enough to last, beside a trickle.
$node->safe_psql('postgres', 'UPDATE retry.scene SET paused = true WHERE name IN (\'hangs\', \'refuses\')');
$healthy->reset;
$hanging->control('/_reset?drop=1');
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (group_name, name, url, timeout) VALUES
	('default', 'slow', '${\$healthy->url('/delay/20')}', '10 s');
SELECT count(*) FROM retry.enqueue_many('slow', array_fill('{}'::jsonb, ARRAY[100000]), lane => 'backlog');
SQL
wait_for(sub { $healthy->stats->{distinct} >= 200 }, 'the backlog is being sent');
foreach my $n (1 .. 20)
{
	my $id = enqueue($node, "'works', '{}', lane => 'trickle', key => 'trickle-$n'");
	wait_state($node, $id, 'succeeded', description => "a trickle gets through, $n");
}
cmp_ok($healthy->stats->{distinct}, '<', 50000, 'while most of the backlog was waiting');

$node->stop('immediate');
done_testing();
