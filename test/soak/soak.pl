# A mixed load for an hour, while weeks pass by the server's clock: what a server
# uses must level off, and at the end nothing may be missing.
use strict;
use warnings FATAL => 'all';

use Getopt::Long;
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Campaign;
use RetryTest::Clock;
use RetryTest::Growth;
use Test::More;
use Time::HiRes qw(time usleep);

my %opt = (minutes => 60, days => 24, seed => int(rand(1_000_000)));
GetOptions(\%opt, 'minutes=f', 'days=i', 'seed=i', 'out=s') or exit 2;

my $stdout = Test::More->builder->output;
my $seconds = $opt{minutes} * 60;
my $clock = RetryTest::Clock->new;
my $node = new_node('soak', start => 0, fsync => 1, conf => <<'CONF');
retry.poll_interval = 200ms
retry.retention = '2d'
retry.dead_letter_retention = '4d'
retry.dispatchers = 2
max_wal_size = 256MB
autovacuum_naptime = 5s
CONF
srand($opt{seed});
$clock->start($node);
$node->safe_psql('postgres', 'CREATE EXTENSION retry');
hold_nothing($node);
my $campaign = RetryTest::Campaign->new($node,
	seed => $opt{seed}, mixed => 1, lanes => 40, pause_ms => 5, start => sub { $clock->start($node) },
	options => "backoff => 'fixed 100ms', max_attempts => 1000, timeout => '3 s'");
my $growth = RetryTest::Growth->new($node, 'postgres');

# A day passes: retention and the ring of leaves go by it.
sub next_day
{
	my $offset = $clock->offset + 86_400;

	$campaign->clock_set(time(), $offset);
	$clock->set($offset);
	$node->psql('postgres', 'CALL retry.maintain()', timeout => 60);
	return;
}

print $stdout "# seed $opt{seed}, $opt{minutes} minutes, $opt{days} days\n";
my $began = time();
my $day = $began + $seconds / ($opt{days} + 1);
my $every = $seconds / 240 > 1 ? $seconds / 240 : 1;

$campaign->start(3);
$campaign->await_arrival('requests arrive');
while ((my $now = time()) < $began + $seconds)
{
	$growth->sample($now - $began);
	if ($now >= $day)
	{
		# what has been checked is cleared away later
		$campaign->stop;
		$campaign->await_end('every task of a day comes to an end');
		$campaign->report;
		$campaign->next_round;
		next_day();
		$campaign->start(3);
		$day += $seconds / ($opt{days} + 1);
	}
	my $rest = $now + $every - time();
	usleep($rest * 1e6) if $rest > 0;
}
$campaign->stop;
$campaign->await_end;
$campaign->report;
$growth->write("$opt{out}/soak.tsv") if $opt{out};
foreach my $verdict ($growth->verdicts)
{
	ok($verdict->{levels}, "$verdict->{name} levels off: $verdict->{middle} in the middle third, $verdict->{last} in the last");
}
is(join(', ', grep { /PANIC|TRAP|terminated by signal/ } split /\n/, slurp_file($node->logfile)), '', 'no crash');
$node->stop;
done_testing();

Test::More->builder->no_ending(1);
my @results = Test::More->builder->summary;
my $failed = grep { !$_ } @results;
append_to_file("$ENV{TESTDIR}/result", sprintf("%d passed, %d failed\n", @results - $failed, $failed));
exit($failed ? 1 : 0);
