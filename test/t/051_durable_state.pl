# The state that SQL shows is never ahead of what is durable (I9): whoever has
# seen a task succeed will still see it after a crash at that very moment.  The
# database tells every session not to wait for its WAL; the dispatchers must not
# listen to that.
use strict;
use warnings FATAL => 'all';

use RetryTest;
use RetryTest::Campaign;
use Test::More;

my $node = new_node('durable', fsync => 1, conf => <<'CONF');
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
bgwriter_lru_maxpages = 0
autovacuum = off
CONF
my $campaign = RetryTest::Campaign->new($node, receiver => []);
my $receiver = $campaign->receiver;
my $url = $receiver->url('/ok');

$node->safe_psql('postgres', 'ALTER DATABASE postgres SET synchronous_commit = off');
$node->restart;

foreach my $n (1 .. 8)
{
	my $id = enqueue($node, "'$url', '{}', key => 'durable-$n'");

	$node->poll_query_until('postgres',
		"SELECT true FROM retry.attempt WHERE task_id = '$id' AND outcome = 'succeeded'")
	  or die 'it does not succeed';
	$campaign->kill_server(all => 1);
	is($node->safe_psql('postgres', "SELECT state FROM retry.tasks WHERE id = '$id'"),
		'succeeded', "crash $n: what was seen to have succeeded has");
}
is($receiver->stats->{after_success}, 0, 'nothing that had succeeded was sent again');
$receiver->stop;
$node->stop('immediate');
done_testing();
