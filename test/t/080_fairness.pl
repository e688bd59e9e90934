# Shares of what a dispatcher may send at once: equal ones whatever the backlogs,
# what a lane that hangs may have, a high class before a flood, and dead lanes
# that give up their place.  What arrived is counted, no time is measured.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
retry.max_in_flight = 40
retry.max_lanes = 64
shared_buffers = 128MB
CONF
my $receiver = start_endpoint();
my $hanging = start_endpoint();
my $dead = start_endpoint();

# Nothing here is to be held back by anything but its share.
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (group_name, name, url, timeout, priority, weight, paused, breaker_ratio, retry_share) VALUES
	('default', 'short', '${\$receiver->url('/delay/5?name=short')}', '30 s', 'normal', 1, true, NULL, NULL),
	('default', 'long', '${\$receiver->url('/delay/5?name=long')}', '30 s', 'normal', 1, true, NULL, NULL),
	('default', 'heavy', '${\$receiver->url('/delay/5?name=heavy')}', '30 s', 'normal', 3, true, NULL, NULL),
	('default', 'light', '${\$receiver->url('/delay/5?name=light')}', '30 s', 'normal', 1, true, NULL, NULL),
	('default', 'hangs', '${\$hanging->url('/hang?name=hangs')}', '10 min', 'normal', 1, false, NULL, NULL),
	('default', 'one', '${\$hanging->url('/hang?name=one')}', '10 min', 'normal', 1, false, NULL, NULL),
	('default', 'works', '${\$receiver->url('/ok?name=works')}', '30 s', 'normal', 1, false, NULL, NULL),
	('default', 'flood', '${\$receiver->url('/delay/5?name=flood')}', '30 s', 'normal', 1, false, NULL, NULL),
	('default', 'urgent', '${\$receiver->url('/delay/5?name=urgent')}', '30 s', 'high', 1, false, NULL, NULL);
SQL

# The names of the scenes whose requests arrived, in their order.
sub arrivals
{
	return map { $_->{path} =~ /name=(\w+)/ ? $1 : '' } $receiver->ledger;
}

sub enqueue_tasks
{
	my ($scene, $count, $lane) = @_;

	$node->safe_psql('postgres',
		"SELECT count(retry.enqueue('$scene', '{}', lane => $lane)) FROM generate_series(1, $count) i");
	return;
}

# How many of one had arrived when the last of "count" of another did.
sub beside
{
	my ($one, $other, $count) = @_;
	my ($ones, $others) = (0, 0);

	foreach my $name (arrivals())
	{
		$ones++ if $name eq $one;
		last if $name eq $other && ++$others == $count;
	}
	return $ones;
}

# Equal lanes, one with ten times the backlog of the other.
enqueue_tasks('long', 20_000, "'long'");
enqueue_tasks('short', 2_000, "'short'");
$node->safe_psql('postgres', "UPDATE retry.scene SET paused = false WHERE name IN ('long', 'short')");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/short' AND state = 'succeeded'",
	'the short backlog is done', expected => '2000');
my $ones = beside('long', 'short', 2000);
cmp_ok(abs($ones - 2000), '<=', 100, "of the long one as many had arrived: $ones beside 2000");

# Weights.
$node->safe_psql('postgres', "UPDATE retry.scene SET paused = true WHERE name = 'long'");
$receiver->reset;
enqueue_tasks('heavy', 6_000, "'heavy'");
enqueue_tasks('light', 6_000, "'light'");
$node->safe_psql('postgres', "UPDATE retry.scene SET paused = false WHERE name IN ('heavy', 'light')");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/heavy' AND state = 'succeeded'",
	'the heavy lane is done', expected => '6000');
$ones = beside('light', 'heavy', 6000);
cmp_ok(abs($ones - 2000), '<=', 300, "three to one, as they weigh: 6000 and $ones");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/light' AND state = 'succeeded'",
	'the light one too', expected => '6000');

# One lane that hangs, while another has something under way.
enqueue_tasks('one', 1, "'one'");
wait_for(sub { $hanging->stats->{in_progress} == 1 }, 'one request hangs');
enqueue_tasks('hangs', 1_000, "'hangs'");
wait_for(sub { $hanging->stats->{in_progress} >= 20 }, 'a lane hangs');
enqueue_tasks('works', 500, "'works'");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/works' AND state = 'succeeded'",
	'another lane works', expected => '500');
cmp_ok($hanging->stats->{in_progress}, '<=', 1 + 20, 'the one that hangs has no more than half');

# Ten of them.
enqueue_tasks('hangs', 1_000, "'hangs' || i % 10");
wait_for(sub { $hanging->stats->{in_progress} >= 30 }, 'ten lanes hang');
enqueue_tasks('works', 500, "'works' || i % 5");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/works' AND state = 'succeeded'",
	'other lanes work', expected => '1000');
cmp_ok($hanging->stats->{in_progress}, '<=', 35, 'those that hang leave an eighth');
is($hanging->stats->{aborted}, 0, 'not one of them has ended');
$node->safe_psql('postgres', "UPDATE retry.scene SET paused = true WHERE name IN ('hangs', 'one')");
$hanging->control('/_reset?drop=1');
wait_for(sub { $hanging->stats->{in_progress} == 0 }, 'they end');

# More lanes than there are transfers: what is left over when their first calls
# have timed out is not theirs.
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (name, url, timeout, max_attempts, breaker_ratio, retry_share)
VALUES ('many', '${\$hanging->url('/hang?name=many')}', '1100 ms', 1, NULL, NULL);
SQL
enqueue_tasks('many', 500, "'many' || i % 50");
my $lanes_hang = "SELECT count(DISTINCT t.lane) FROM retry.attempts a JOIN retry.tasks t ON t.id = a.task_id WHERE a.scene = 'default/many'";
wait_sql($node, $lanes_hang, 'fifty lanes hang', expected => '50');
wait_for(sub { $hanging->stats->{in_progress} <= 20 }, 'what was under way before has ended');
$hanging->reset;
my $timeouts = $node->safe_psql('postgres', "SELECT count(*) FROM retry.attempts WHERE scene = 'default/many'");
enqueue_tasks('works', 500, "'works' || i % 5");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/works' AND state = 'succeeded'",
	'beside fifty lanes that hang others work', expected => '1500');
wait_sql($node, "SELECT count(*) >= $timeouts + 40 FROM retry.attempts WHERE scene = 'default/many'", 'those go on in turns');
cmp_ok($hanging->stats->{max_in_progress}, '<=', 20, 'in one half of the transfers');
$node->safe_psql('postgres', "UPDATE retry.scene SET paused = true WHERE name = 'many'");
wait_for(sub { $hanging->stats->{in_progress} == 0 }, 'and end');

# A flood, which takes many turns to be read, and something urgent behind it.
# That its lane is an urgent one is known once it was served.
enqueue_tasks('urgent', 1, "'urgent'");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/urgent' AND state = 'succeeded'",
	'the urgent lane was served', expected => '1');
$receiver->reset;
enqueue_tasks('flood', 60_000, "'flood' || i % 30");
enqueue_tasks('urgent', 100, "'urgent'");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/urgent' AND state = 'succeeded'",
	'the urgent ones are done', expected => '101');
my @names = arrivals();
my ($first) = grep { $names[$_] eq 'urgent' } 0 .. $#names;
my ($last) = grep { $names[$_] eq 'urgent' } reverse 0 .. $#names;
my $between = grep { $_ eq 'flood' } @names[ $first .. $last ];
cmp_ok($between, '<=', 200, "hardly anything of the flood came between them: $between");
cmp_ok($last, '<', 30_000, "most of it was behind them: the last was number $last");
$node->safe_psql('postgres', "UPDATE retry.scene SET paused = true WHERE name = 'flood'");

# Dead lanes, more of them than fit into memory, each with a backlog.
$receiver->reset;
$dead->mode('down');
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (group_name, name, targets, timeout, backoff, max_attempts, expires_after, breaker_ratio, retry_share)
VALUES ('default', 'dead', ARRAY['${\$dead->url('/')}'], '10 s', 'fixed 1s', 1000, '1 day', NULL, NULL);
SQL
enqueue_tasks('dead', 4_000, "'dead' || i % 200");
wait_sql($node, "SELECT count(*) > 3 FROM retry.attempts WHERE scene = 'default/dead'", 'they are tried');
enqueue_tasks('works', 500, "'well' || i % 5");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/works' AND state = 'succeeded'",
	'lanes that are well find a place', expected => '2000');
cmp_ok($node->safe_psql('postgres', 'SELECT sum(lanes) FROM retry.dispatchers'),
	'<=', 64, 'there are not more in memory than allowed');
$dead->mode('up');
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/dead' AND state = 'succeeded'",
	'when the dead come to life, all of theirs is done', expected => '4000', timeout => 150);
is($dead->stats->{after_success}, 0, 'each once');

$node->stop;
done_testing();
