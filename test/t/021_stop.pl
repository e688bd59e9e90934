# Ends of a dispatcher without the end of the server, and ends of the server
# that are not crashes.  What has ended is recorded, what is under way is sent
# again and nothing else, and no receiver that hangs keeps a server from
# stopping.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Campaign;
use Test::More;
use Time::HiRes qw(time usleep);

my $seed = $ENV{RETRY_TEST_SEED} // int(rand(1_000_000));
my $node = new_node('stop', conf => <<'CONF');
retry.poll_interval = 200ms
retry.lane_max_in_flight = 4
restart_after_crash = on
CONF
my $campaign = RetryTest::Campaign->new($node, seed => $seed);
my $receiver = $campaign->receiver;

diag("seed $seed (RETRY_TEST_SEED)");
srand($seed);

sub dispatcher
{
	my ($out) = workers($node, 'retry dispatcher');
	return $out;
}

sub log_since
{
	my ($from) = @_;
	return substr(slurp_file($node->logfile), $from);
}

# pg_terminate_backend: a dispatcher may finish what it has under way, and it
# has time for it here, so that nothing at all is sent twice.

$campaign->start(3);
$campaign->await_arrival('requests arrive');
foreach my $n (1 .. 8)
{
	usleep(int(rand(300_000)));
	my $pid = dispatcher();
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)") if $pid;
	wait_sql($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = " . ($pid // 0),
		"terminated $n: it leaves", expected => '0');
	$campaign->await_arrival("terminated $n: another one delivers");
}
$campaign->stop;
$campaign->await_end;
$campaign->report;

# The same with a receiver that hangs: it leaves all the same, and what was under
# way is sent again.  (Tasks without a key are not the campaign's.)

my $hanging = start_endpoint();
my $hung = sub { $hanging->stats->{total} };
my $hang = sub {
	enqueue($node, "'" . $hanging->url('/hang') . "', '{}', timeout => '10 min', lane => 'hang$_[0]'");
};
my $id = $hang->(1);
wait_for(sub { $hung->() == 1 }, 'a request is under way');
my $pid = dispatcher();
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_for(sub { $hung->() == 2 }, 'its dispatcher terminated: it is sent again');
isnt(dispatcher(), $pid, 'by another dispatcher');
is(join(',', map { $_->{attempt} } $hanging->ledger), '1,1', 'with the same number');
is($node->safe_psql('postgres', "SELECT count(*) FROM retry.attempts WHERE task_id = '$id'"),
	'0', 'and nothing is recorded of it');

# Stopping the server.

foreach my $mode ('smart', 'fast', 'immediate')
{
	my $before = $hung->();

	$hang->($_) foreach 2 .. 5;
	wait_for(sub { $hung->() == $before + 4 }, "requests hang before a $mode stop");
	if ($mode ne 'smart')
	{
		$campaign->start(2);
		$campaign->await_arrival('others arrive');
	}

	# a minute at most, then pg_ctl gives up: the requests hang longer than that
	my $offset = -s $node->logfile;
	my $from = time();
	ok($node->stop($mode, fail_ok => 1), "a $mode stop comes to its end");
	unlike(log_since($offset), qr/PANIC|was terminated by signal|TRAP/, 'and is clean');
	$campaign->stop;
	$campaign->moment($from, time());
	$before = $hung->();
	$node->start;
	wait_for(sub { $hung->() >= $before + 5 }, "after the $mode stop: what hung is sent again");
	$node->safe_psql('postgres',
		"SELECT retry.cancel(id) FROM retry.tasks WHERE key IS NULL AND id <> '$id' AND state <> 'cancelled'");
	$hanging->reset;
	$hanging->control('/_reset?drop=1');
	wait_for(sub { $hung->() == 1 }, 'the one that was not cancelled hangs again');
}

# A crash of one process: the server ends all others and starts anew by itself.

foreach my $victim ('retry dispatcher', 'client backend', 'retry launcher')
{
	my $offset = -s $node->logfile;

	$campaign->start(2);
	$campaign->await_arrival("before a crash of a $victim");
	my $from = time();
	foreach my $process (workers($node, $victim))
	{
		last if kill('KILL', $process);
	}
	wait_for(sub { log_since($offset) =~ /database system is ready to accept connections/ },
		"$victim killed: the server starts anew");
	$campaign->moment($from, time());
	$campaign->await_arrival("$victim killed: requests arrive again");
	$campaign->stop;
}
$campaign->await_end;
$campaign->report;
$node->stop;
done_testing();
