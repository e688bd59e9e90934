# A clock that jumps: forty days ahead and back, an hour back, with tasks that
# are due, that wait, and that are retried; and a crash while what was written
# down lies in the future.  Everything is delivered, nothing twice.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Clock;
use Test::More;

my $clock = RetryTest::Clock->new;
my $receiver = start_endpoint();
my $url = $receiver->url('/ok');
my $node = new_node('main', start => 0);

sub offset_is
{
	my ($seconds, $what) = @_;

	wait_sql($node, "SELECT abs(extract(epoch FROM clock_timestamp()) - $seconds - " . time() . ') < 300', $what);
	return;
}

# Tasks in a lane that was used before and in one that was not.
my $round = 0;

sub delivers
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$round++;
	foreach my $lane ("'used'", "'new-$round'", 'NULL')
	{
		my $id = enqueue($node, "'$url', lane => $lane");
		wait_state($node, $id, 'succeeded', description => "$what, lane $lane: a new task is delivered");
	}
	my $id = enqueue($node, "'flaky', key => 'flaky-$round'");
	wait_state($node, $id, 'succeeded', description => "$what: a new task is retried");
	$id = enqueue($node, "'$url', delay => '1 s', lane => 'used'");
	wait_state($node, $id, 'succeeded', description => "$what: one due a little later");
	return;
}

$clock->start($node);
$node->safe_psql('postgres', 'CREATE EXTENSION retry');
hold_nothing($node);
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (group_name, name, url, backoff, paused) VALUES
	('default', 'flaky', '${\$receiver->url('/flaky/2')}', 'fixed 200ms', false),
	('default', 'hourly', '${\$receiver->url('/flaky/1')}', 'fixed 1h', false),
	('default', 'held', '$url', 'fixed 200ms', true);
SQL
delivers('at first');
my @far = ('20 min', '2 days', '30 days', '39 days');
enqueue($node, "'$url', delay => '$_', key => '$_'") foreach @far;
my $hourly = enqueue($node, "'hourly', key => 'hourly'");
my $held = enqueue($node, "'held', key => 'held'");
wait_state($node, $hourly, 'retrying');

$clock->set(40 * 86400);
offset_is(40 * 86400, 'the clock jumps forty days ahead');
# by the receiver's word: their leaves are past retention, and may be emptied
wait_for(sub { $receiver->ledger($_) == 1 }, "what waited for $_ is delivered") foreach @far;
wait_for(sub { $receiver->ledger('hourly') == 2 }, 'what was to be tried in an hour is');
delivers('forty days ahead');
# cancelled later: its next attempt is forty days off
my $stranded = enqueue($node, "'hourly', key => 'stranded'");
wait_state($node, $stranded, 'retrying');

my $flying = enqueue($node, "'" . $receiver->url('/delay/2000?status=500') . "', backoff => 'fixed 1s'");
wait_state($node, $flying, 'running');

$clock->set(0);
offset_is(0, 'the clock jumps back');
wait_sql($node, "SELECT attempts >= 2 FROM retry.tasks WHERE id = '$flying'",
	'what was under way is tried again soon');
$node->safe_psql('postgres', "SELECT retry.cancel('$flying')");
delivers('back again');
$node->safe_psql('postgres', "SELECT retry.run_now('$stranded')");
wait_state($node, $stranded, 'succeeded', description => 'what was put off in the future can be run now');
my $waits = enqueue($node, "'hourly', key => 'waits'");
wait_state($node, $waits, 'retrying');

$clock->set(-3600);
offset_is(-3600, 'an hour back');
delivers('an hour back');
my $crossing = enqueue($node, "'$url', delay => '30 min'");

# What was written down lies in the future now.
$node->stop('immediate');
$clock->start($node);
delivers('after a crash');
$node->safe_psql('postgres', "UPDATE retry.scene SET paused = false WHERE name = 'held'");

$clock->set(7200);
offset_is(7200, 'two hours ahead');
delivers('two hours ahead');
wait_state($node, $held, 'succeeded', description => 'what was held is delivered');
wait_state($node, $crossing, 'succeeded', description => 'what waited over it is');
wait_state($node, $waits, 'succeeded', description => 'and what was to be tried again');

wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE state NOT IN ('succeeded', 'cancelled')", 'nothing is left', expected => '0');
my %seen;
is(scalar(grep { $seen{"$_->{key} $_->{attempt}"}++ } $receiver->ledger), 0, 'no attempt was made twice');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retry.attempts WHERE duration < interval \'0\' OR next_due < started_at'),
	'0', 'no attempt ended before it began');

$node->stop;
done_testing();
