# A commit that does not wait for its WAL can be undone by a crash.  What it
# enqueued must not have been sent then: nothing is called that never was.  So
# a session enqueues asynchronously while nothing else writes WAL to disk, and
# at the moment at which the request arrives the server is killed: the task must
# be there after the restart.
use strict;
use warnings FATAL => 'all';

use RetryTest;
use RetryTest::Campaign;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_node('asynchronous', fsync => 1, conf => <<'CONF');
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
bgwriter_lru_maxpages = 0
autovacuum = off
retry.poll_interval = 1s
CONF
my $campaign = RetryTest::Campaign->new($node, receiver => [ '--delay-ms', 2000 ]);
my $receiver = $campaign->receiver;
my $url = $receiver->url('/ok');

# All dispatchers are up and have written what they write at their start.
sub settle
{
	my $id = enqueue($node, "'$url', '{}', key => '" . $_[0] . "'");
	wait_for(sub { scalar $receiver->ledger($_[0]) }, "$_[0] arrives");
	return;
}

foreach my $n (1 .. 10)
{
	my ($seen, $out);

	settle("before-$n");
	$node->safe_psql('postgres',
		"SET synchronous_commit = off; SELECT retry.enqueue('$url', '{}', key => 'key-$n')");
	until ($receiver->ledger("key-$n"))
	{
		usleep(500);
	}
	$campaign->kill_server(all => 1);
	is( $node->safe_psql('postgres', "SELECT count(*) FROM retry.task WHERE key = 'key-$n'"),
		'1', "crash $n: the task that was sent is there");
}
$receiver->stop;
$node->stop('immediate');
done_testing();
