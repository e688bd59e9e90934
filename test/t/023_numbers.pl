# An attempt is recorded before the next of its task is sent, and numbers have
# no gaps and no repeats: with retries that follow each other as fast as they
# can, most of which fail, and crashes in between.
use strict;
use warnings FATAL => 'all';

use RetryTest;
use RetryTest::Campaign;
use Test::More;
use Time::HiRes qw(usleep);

my $seed = $ENV{RETRY_TEST_SEED} // int(rand(1_000_000));
my $node = new_node('numbers', conf => <<'CONF');
retry.poll_interval = 200ms
CONF
hold_nothing($node);
my $campaign = RetryTest::Campaign->new($node,
	seed => $seed,
	slow => 0,
	pause_ms => 20,
	receiver => [ '--fail-percent', 85, '--seed', $seed ],
	options => "backoff => 'fixed 1ms', max_attempts => 1000");

diag("seed $seed (RETRY_TEST_SEED)");
srand($seed);
$campaign->start(2);
$campaign->await_arrival('requests arrive');
foreach my $n (1 .. 6)
{
	usleep(int(200_000 + rand(600_000)));
	$campaign->kill_server(all => $n % 2);
	$campaign->await_arrival("crash $n: requests arrive again");
}
$campaign->stop;
$campaign->await_end;
$campaign->report;
is( $node->safe_psql('postgres', "SELECT max(attempt_no) > 10 FROM retry.attempt"),
	't', 'some needed many attempts');

# What the store itself forbids.
is( $node->safe_psql(
		'postgres',
		"SELECT count(*) FROM pg_index WHERE indisunique AND indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'retry.attempt'::regclass)"),
	'33',
	'the store takes no number twice');
$node->stop;
done_testing();
