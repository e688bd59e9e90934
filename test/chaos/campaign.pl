# Everything that can go wrong, at random and for as long as one likes, under a
# load that is checked at the end: see RetryTest::Campaign for what is promised.
# Between the crashes there are stops, locks, settings, receivers in trouble,
# sessions that rewrite tables, prepared transactions and more.  What happens
# follows from the seed; when exactly does not, so a violation seen once may take
# several runs to be seen again.
use strict;
use warnings FATAL => 'all';

use Getopt::Long;
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Campaign;
use Test::More;
use Time::HiRes qw(time usleep);

my %opt = (seconds => 60, seed => int(rand(1_000_000)), plant => '', only => '');
GetOptions(\%opt, 'seconds=i', 'seed=i', 'plant=s', 'only=s') or exit 2;
die "nothing known to plant called \"$opt{plant}\"\n"
  if $opt{plant} !~ /^(|lost|phantom|gap|double)$/;

# Standard output is the log here; the tests' own goes where we were started.
my $stdout = Test::More->builder->output;

srand($opt{seed});
$ENV{PGOPTIONS} = '-c lock_timeout=2s';
my $node = new_node('campaign', fsync => 1, conf => <<'CONF');
retry.poll_interval = 200ms
retry.lane_max_in_flight = 4
restart_after_crash = on
max_wal_size = 128MB
CONF
my $campaign = RetryTest::Campaign->new($node,
	seed => $opt{seed},
	lanes => 6,
	slow => 0.04,
	pause_ms => 15,
	options => "backoff => 'fixed 100ms', max_attempts => 100000, timeout => '1500 ms'");
my $receiver = $campaign->receiver;
my $leaf;
my %prepared;
my $serial = 0;

# A statement whose failure is no concern: the server may be anywhere, and a
# prepared transaction may hold a lock.
sub try_sql
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, timeout => 60, timed_out => \my $timed_out);

	die "it takes too long: $sql\n" . RetryTest::picture($node, 'postgres') if $timed_out;
	return ($rc // 1) == 0 && ($err // '') !~ /ERROR|FATAL|PANIC/ ? $out : undef;
}

# Runs CODE; attempts under way meanwhile may be made twice.
sub during
{
	my ($code) = @_;
	my $from = time();

	$code->();
	return $campaign->moment($from, time());
}

sub setting
{
	my ($name, $value) = @_;

	try_sql(defined $value ? "ALTER SYSTEM SET $name = '$value'" : "ALTER SYSTEM RESET $name");
	$node->reload;
	return;
}

sub kill_one
{
	my ($type) = @_;
	my $offset = -s $node->logfile;

	return during(sub {
		my $killed = 0;

		foreach my $pid (workers($node, $type))
		{
			last if $killed = kill('KILL', $pid);
		}
		return if !$killed;
		wait_quietly(sub { substr(slurp_file($node->logfile), $offset) =~ /is ready to accept connections/ },
			"the server starts anew after the end of a $type");
	});
}

sub wait_quietly
{
	my ($condition, $description) = @_;

	RetryTest::Campaign::wait_for_quietly($condition)
	  or die "gave up waiting: $description\n" . RetryTest::picture($node, 'postgres');
	return;
}

sub table
{
	my $nn = sprintf '%02d', $leaf;
	my @tables = ("retry.task_$nn", "retry.attempt_$nn", "retry.signal_$nn", 'retry.scene',
		'retry.scene_group', 'retry.key', 'retry.checkpoint_a', 'retry.checkpoint_b', 'retry.dead_letter',
		'retry.installation', 'retry.task', 'retry.attempt');

	return $tables[ rand @tables ];
}

my %actions = (
	'kill' => sub { $campaign->kill_server(all => 1) },
	'kill-postmaster' => sub { $campaign->kill_server },
	'kill-dispatcher' => sub { kill_one('retry dispatcher') },
	'kill-launcher' => sub { kill_one('retry launcher') },
	'kill-backend' => sub { kill_one('client backend') },
	'terminate' => sub {
		during(sub {
			try_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'retry dispatcher'");
			usleep(500_000);
		});
	},
	'terminate-sessions' => sub {
		try_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
	},
	'stop-fast' => sub { during(sub { $node->stop('fast'); $node->start; }) },
	'stop-immediate' => sub { during(sub { $node->stop('immediate'); $node->start; }) },
	'receiver-down' => sub { during(sub { trouble('down') }) },
	'receiver-hangs' => sub { trouble('hang') },
	'receiver-slow' => sub { trouble('slow:' . (50 + int(rand(400)))) },
	'receiver-fails' => sub { trouble('status:' . (500, 503, 429, 404)[ rand 4 ]) },
	'lock' => sub {
		try_sql('BEGIN; LOCK TABLE ' . table() . sprintf(' IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(%.2f); COMMIT', rand(1.5)));
	},
	'rewrite' => sub {
		my $table;

		do { $table = table() } until $table !~ /(task|attempt)$/;
		try_sql((('VACUUM FULL', 'REINDEX TABLE', 'VACUUM FREEZE', 'ANALYZE')[ rand 4 ]) . " $table");
	},
	'old-snapshot' => sub {
		try_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM retry.scene; SELECT pg_sleep(1)");
	},
	'pause' => sub {
		try_sql("UPDATE retry.scene SET paused = true WHERE name = 'default'");
		usleep(int(rand(600_000)));
		try_sql("UPDATE retry.scene SET paused = false WHERE name = 'default'");
	},
	'switch-off' => sub {
		setting('retry.enabled', 'off');
		usleep(int(rand(600_000)));
		setting('retry.enabled');
	},
	'dispatchers' => sub { setting('retry.dispatchers', 1 + int(rand(4))) },
	'in-flight' => sub { setting('retry.lane_max_in_flight', 1 + int(rand(16))) },
	'lanes' => sub { setting('retry.max_lanes', (16, 10000)[ rand 2 ]) },
	'run-now' => sub {
		try_sql("SELECT count(retry.run_now(id)) FROM (SELECT id FROM retry.tasks WHERE state IN ('pending', 'retrying') LIMIT 50) t");
	},
	'bulk' => sub {
		my @keys = map { "bulk-$opt{seed}-" . ++$serial } 1 .. 200;

		$campaign->note(T => $_) foreach @keys;
		defined try_sql("SELECT count(*) FROM retry.enqueue_many('" . $receiver->url('/ok')
			  . "', array_fill('{}'::jsonb, '{200}'), keys => '{" . join(',', @keys) . "}', lane => 'bulk', $campaign->{options})")
		  or return;
		$campaign->note(C => $_) foreach @keys;
	},
	'prepare' => sub {
		my $key = "prepared-$opt{seed}-" . ++$serial;

		return if keys %prepared >= 8;
		$campaign->note(T => $key);
		$prepared{$key} = 1
		  if defined try_sql("BEGIN; SELECT retry.enqueue('" . $receiver->url('/ok') . "', '{}', key => '$key', $campaign->{options}); PREPARE TRANSACTION '$key'");
	},
	'finish-prepared' => sub {
		my ($key) = sort keys %prepared or return;

		finish_prepared($key, rand() < 0.6);
	},
	'checkpoint' => sub { try_sql('CHECKPOINT') });

sub finish_prepared
{
	my ($key, $commit) = @_;

	$campaign->note(R => $key) if !$commit;
	defined try_sql(($commit ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$key'") or return;
	$campaign->note(C => $key) if $commit;
	delete $prepared{$key};
	return;
}

sub trouble
{
	my ($mode) = @_;

	$receiver->mode($mode);
	usleep(100_000 + int(rand(700_000)));
	$receiver->mode('up');
	return;
}

# Makes one ledger false, as a fault would.
my %plants = (
	# a session saw its task commit, and it is nowhere
	lost => sub { $campaign->note(T => 'planted'); $campaign->note(C => 'planted'); },
	# what was rolled back is called all the same
	phantom => sub {
		my ($key) = sort keys %{ $campaign->promises->{R} };
		post($key, 1);
	},
	# an attempt's record is gone
	gap => sub {
		$node->safe_psql('postgres',
			"DELETE FROM retry.attempt a USING (SELECT leaf, task_id FROM retry.attempt WHERE attempt_no = 2 LIMIT 1) b "
			  . "WHERE a.leaf = b.leaf AND a.task_id = b.task_id AND a.attempt_no = 1");
	},
	# what had succeeded is sent once more
	double => sub {
		my ($key) = sort keys %{ $campaign->promises->{C} };
		post($key, 1);
	});

sub post
{
	my ($key, $attempt) = @_;

	$receiver->{http}->request('POST', $receiver->url('/ok'),
		{ headers => { 'Idempotency-Key' => "\"$key\"", 'Retry-Attempt' => $attempt }, content => '{}' });
	return;
}

print $stdout "# seed $opt{seed}, $opt{seconds} seconds\n";
my @names = sort grep { !$opt{only} || ",$opt{only}," =~ /,\Q$_\E,/ } keys %actions;
my %done;
my $until = time() + $opt{seconds};

$campaign->start(3);
$campaign->await_arrival('requests arrive');
$leaf = $node->safe_psql('postgres', 'SELECT leaf FROM retry.task LIMIT 1');
while (time() < $until)
{
	my $name = $names[ rand @names ];

	usleep(int(rand(400_000)));
	print $stdout '# ' . localtime() . " $name\n" if $ENV{RETRY_CHAOS_VERBOSE};
	$actions{$name}->();
	$done{$name}++;
	my $before = $campaign->arrived;
	wait_quietly(sub { $campaign->arrived > $before }, "requests arrive after $name");
}
$campaign->stop;
try_sql('ALTER SYSTEM RESET ALL');
$node->reload;
finish_prepared($_, 1) foreach sort keys %prepared;
$campaign->await_end(undef, timeout => 60 + $opt{seconds});
print $stdout '# went wrong: ', join(', ', map { "$_ $done{$_}" } sort keys %done), "\n";
$plants{ $opt{plant} }->() if $opt{plant};
$campaign->report;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal (?!9)/, 'the log tells of no crash but those that we made');
$node->stop;
done_testing();

# The last line is ours.
Test::More->builder->no_ending(1);
my @results = Test::More->builder->summary;
my $failed = grep { !$_ } @results;
print $stdout sprintf("%d passed, %d failed\n", @results - $failed, $failed);
exit($failed ? 1 : 0);
