# Transfers between accounts in three databases and behind two HTTP services, in every
# mode, while each of them, and who makes the transfers, is killed at random; in the
# end the sum of all accounts is what it was, no transfer is half done, none stuck.
# See RetryTest::Bank.  What happens follows from the seed, when exactly does not.
use strict;
use warnings FATAL => 'all';

use Getopt::Long;
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Bank;
use RetryTest::Crash;
use Test::More;
use Time::HiRes qw(time usleep);

my %opt = (seconds => 60, seed => int(rand(1_000_000)), modes => '');
GetOptions(\%opt, 'seconds=i', 'minutes=f', 'seed=i', 'modes=s', 'plant=s') or exit 2;
$opt{seconds} = $opt{minutes} * 60 if defined $opt{minutes};

# Standard output is the log here; the tests' own goes where we were started.
my $stdout = Test::More->builder->output;
my $began = time();
my @modes = grep { my $mode = $_; !$opt{modes} || grep { $_ eq $mode } split /,/, $opt{modes} } RetryTest::Bank::Modes::names();
die "no mode is called \"$opt{modes}\"; there are: " . join(', ', RetryTest::Bank::Modes::names()) . "\n" if !@modes;

srand($opt{seed});
$ENV{PGOPTIONS} = '-c lock_timeout=2s';
print $stdout "# seed $opt{seed}, $opt{seconds} seconds, modes: @modes\n";
my $bank = RetryTest::Bank->new($opt{seed});
my @databases = @{ $bank->{databases} };
my @services = @{ $bank->{services} };
my %count;

# Whatever ends this program, but not what it has forked, ends the services.
my $manager = $$;
END
{
	if (defined $manager && $$ == $manager)
	{
		$bank->close_service($_) foreach @services;
	}
}

sub pause { usleep(int(rand($_[0] * 1e6))); return; }

# One process of a database, by its type.
sub kill_one
{
	my ($house, $type) = @_;
	my $pids = $bank->sql($house, "SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND pid <> pg_backend_pid()") // return;
	my @pids = split /\n/, $pids;

	kill 'KILL', $pids[ rand @pids ] if @pids;
	return;
}

# A server that begins anew after a crash, and is told to stop just then, may wait for
# ever for its own checkpointer, with or without retry: so not before it has recovered.
sub recovered
{
	my ($house) = @_;

	wait_for(sub { defined $bank->sql($house, 'SELECT 1') }, "$house->{name} has recovered");
	return;
}

my %faults = (
	'kill-server' => sub { my ($house) = @_; RetryTest::Crash::crash($house->{node}, 1); pause(0.5); $house->{node}->start; },
	'kill-postmaster' => sub { my ($house) = @_; RetryTest::Crash::crash($house->{node}, 0); $house->{node}->start; },
	'stop-immediate' => sub { my ($house) = @_; $house->{node}->stop('immediate'); pause(0.5); $house->{node}->start; },
	'stop-fast' => sub { my ($house) = @_; recovered($house); $house->{node}->stop('fast'); $house->{node}->start; },
	'kill-dispatcher' => sub { kill_one($_[0], 'retry dispatcher') },
	'kill-executor' => sub { kill_one($_[0], 'retry executor') },
	'kill-backend' => sub { kill_one($_[0], 'client backend') },
	'kill-service' => sub { my (undef, $service) = @_; $bank->close_service($service); pause(1); $bank->open_service($service); },
	'freeze-service' => sub { my (undef, $service) = @_; kill 'STOP', $service->{pid}; pause(2.5); kill 'CONT', $service->{pid}; },
	'look' => sub { $bank->look($_[0]) },
	'fire' => sub { $bank->fire });

$bank->{modes} = \@modes;
$bank->hire foreach 1 .. 4;
my $until = time() + $opt{seconds};
while (time() < $until)
{
	pause(0.8);
	my $name = (sort keys %faults)[ rand keys %faults ];
	my ($house, $service) = ($databases[ rand @databases ], $services[ rand @services ]);

	print '# ' . localtime() . " $name $house->{name} $service->{name}\n";
	$faults{$name}->($house, $service);
	$count{$name}++;
}
$bank->close_doors;
$bank->settle(90);
print $stdout '# planted: ' . $bank->plant($opt{plant}) . "\n" if $opt{plant};
my ($wrong, $begun, $done) = $bank->audit;
ok(!@$wrong, 'the sum is what it was, every transfer is done whole or not at all')
  or diag(scalar(@$wrong) . " faults in the books, e.g.\n  " . join "\n  ", @$wrong[ 0 .. ($#$wrong < 9 ? $#$wrong : 9) ]);
ok($done->{$_}, "transfers were made by $_") foreach @modes;
foreach my $house (@databases)
{
	is(join("\n", grep { /PANIC|TRAP|terminated by signal (?!9)/ } split /\n/, slurp_file($house->{node}->logfile)), '', "$house->{name}: no crash but ours");
	$house->{node}->stop;
}
done_testing();

Test::More->builder->no_ending(1);
my @results = Test::More->builder->summary;
my $failed = grep { !$_ } @results;
print $stdout sprintf("# %-20s %6d times\n", $_, $count{$_}) foreach sort keys %count;
print $stdout sprintf("# %d transfers begun; done: %s\n", $begun, join(', ', map { "$_ $done->{$_}" } sort keys %$done));
print $stdout sprintf("# took %.0f s; again: test/chaos/bank --seconds %d --seed %d --modes %s\n", time() - $began, $opt{seconds}, $opt{seed}, join ',', @modes);
print $stdout sprintf("%d passed, %d failed\n", @results - $failed, $failed);
exit($failed ? 1 : 0);
