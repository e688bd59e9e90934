# Twenty crashes of the whole server at random moments under load.  Afterwards
# three ledgers must agree: what the sessions saw commit, what the receiver got,
# and what the database holds.  Half of the crashes kill every process at once,
# in the others the children of the killed postmaster have to notice.
use strict;
use warnings FATAL => 'all';

use RetryTest;
use RetryTest::Campaign;
use Test::More;
use Time::HiRes qw(usleep);

my $crashes = $ENV{RETRY_TEST_CRASHES} // 20;
my $seed = $ENV{RETRY_TEST_SEED} // int(rand(1_000_000));
my $node = new_node('recovery', fsync => 1, conf => <<'CONF');
retry.poll_interval = 200ms
retry.lane_max_in_flight = 1
checkpoint_timeout = 30s
max_wal_size = 64MB
restart_after_crash = on
CONF
my $campaign = RetryTest::Campaign->new($node, seed => $seed);

diag("seed $seed (RETRY_TEST_SEED)");
srand($seed);
$campaign->start(3);
$campaign->await_arrival('requests arrive');
foreach my $n (1 .. $crashes)
{
	usleep(int(rand(600_000)));
	$campaign->kill_server(all => $n % 2);
	$campaign->await_arrival("crash $n: requests arrive again");
}
$campaign->stop;
$campaign->await_end;
$campaign->report;
cmp_ok(scalar keys %{ $campaign->promises->{C} }, '>', 100, 'there was a load');
$node->stop;
done_testing();
