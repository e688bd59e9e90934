# More lanes than fit into memory: those that are forgotten are found again by
# the sweep, in time, once each, and the dispatcher's memory stays bounded.
# Slow.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('main', conf => <<'CONF');
retry.max_lanes = 1000
retry.max_in_flight = 64
shared_buffers = 128MB
CONF
my $ledger = PostgreSQL::Test::Utils::tempdir . '/ledger';
my $receiver = start_endpoint(args => [ '--ledger', $ledger ]);
my $url = $receiver->url('/ok');

sub rss_kb
{
	my ($pid) = workers($node, 'retry dispatcher%');
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m;

	return $kb;
}

sub enqueue_lanes
{
	my ($count, $more) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(retry.enqueue('$url', '{}', lane => 'l' || i $more)) FROM generate_series(1, $count) i");
}

sub all_done
{
	my ($count, $what) = @_;
	my $begun = time();
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_for(sub { $receiver->stats->{distinct} >= $count },
		"$what: all arrive", timeout => 150,
		diag => sub { explain $receiver->stats, RetryTest::picture($node, 'postgres') });
	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE state <> 'succeeded'",
		"$what: nothing is left", expected => '0');
	my $stats = $receiver->stats;
	is("$stats->{distinct} $stats->{duplicates}", "$count 0", "$what: each once");
	note sprintf('%s: %.1f s', $what, time() - $begun);
	$receiver->reset;
	return;
}

enqueue($node, "'$url'");
all_done(1, 'one task');
my $small = rss_kb();

# A lane a task.
enqueue_lanes(100_000, '');
all_done(100_001 - 1, '100000 lanes');
is($node->safe_psql('postgres', 'SELECT lanes <= 1000 FROM retry.dispatchers'),
	't', 'no more lanes in memory than allowed');

# The same lanes again, due in one to four seconds: most are forgotten by then.
enqueue_lanes(100_000, ", delay => make_interval(secs => 1 + 3 * random())");
all_done(100_000, '100000 lanes, due a little later');
# By the receiver's clock; it writes its ledger every 100 ms.
my $seen = <<"SQL";
CREATE TEMP TABLE ledger (mono bigint, wall bigint, method text, path text, key text, attempt text, status int, len int);
COPY ledger FROM '$ledger';
SQL
wait_sql($node, "$seen SELECT count(*) FROM ledger", 'the ledger is written', expected => 200_001);
is( $node->safe_psql(
		'postgres',
		"$seen SELECT count(*), count(*) FILTER (WHERE wall < extract(epoch FROM due_at) * 1000000)
		FROM ledger l JOIN retry.task t ON t.id = l.key::uuid"),
	'200001|0',
	'none before it was due');

# Lanes that come and go: a few tasks each, some failing, over more lanes than fit.
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (group_name, name, url, backoff) VALUES
	('default', 'flaky', '${\$receiver->url('/flaky/2')}', 'random 100ms..2s');
SELECT count(retry.enqueue('flaky', '{}', lane => 'f' || i % 5000)) FROM generate_series(1, 10000) i;
SQL
wait_for(sub { $receiver->stats->{total} >= 30000 }, 'retries of 5000 lanes: all arrive',
	diag => sub { explain $receiver->stats, RetryTest::picture($node, 'postgres') });
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE state <> 'succeeded'",
	'retries of 5000 lanes: nothing is left', expected => '0');
is($receiver->stats->{total}, 30000, 'retries of 5000 lanes: each three times');

# Far ahead: they cost no memory.
enqueue_lanes(100_000, ", delay => '1 hour'");
my $id = enqueue($node, "'$url'");
wait_state($node, $id, 'succeeded', description => 'a task beside 100000 lanes that wait');
my $kb = rss_kb();
cmp_ok($kb, '<', $small + 40_000, "memory: $small kB at first, $kb kB now");

$node->stop;
done_testing();
