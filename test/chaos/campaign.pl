# A real server under load, in which things go wrong at random for as long as one
# likes, alone and two at a time; at the end of each round everything has to come
# to its end, and the ledgers are compared: see RetryTest::Checker for what is
# promised, RetryTest::Faults for what goes wrong.  What happens follows from the
# seed; when exactly does not, so a violation seen once may take several runs to
# be seen again.
use strict;
use warnings FATAL => 'all';

use Getopt::Long;
use List::Util qw(max sum);
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Campaign;
use RetryTest::Chaos;
use RetryTest::Faults;
use RetryTest::Plants;
use Test::More;
use Time::HiRes qw(time usleep);

my %opt = (seconds => 60, seed => int(rand(1_000_000)), plant => '', faults => '', round => 120);
GetOptions(\%opt, 'seconds=i', 'minutes=f', 'seed=i', 'plant=s', 'faults=s', 'round=i', 'list') or exit 2;
$opt{seconds} = $opt{minutes} * 60 if defined $opt{minutes};
die "nothing known to plant called \"$opt{plant}\"\n" if $opt{plant} && !grep { $_ eq $opt{plant} } RetryTest::Plants::names();

# Standard output is the log here; the tests' own goes where we were started.
my $stdout = Test::More->builder->output;
my $began = time();

srand($opt{seed});
$ENV{PGOPTIONS} = '-c lock_timeout=2s';
my $chaos = RetryTest::Chaos->new(seed => $opt{seed});
my $campaign = $chaos->campaign;
my %known = RetryTest::Faults::known($chaos);
my %count;
my %back;

# locks of a minute and the like are for those who have time
$chaos->{long} = $opt{seconds} >= 600;
print $stdout "# seed $opt{seed}, $opt{seconds} seconds\n";

# Names of the faults that were asked for and can be had here.
my @names = sort grep { my $name = $_; !$opt{faults} || grep { glob_matches($_, $name) } split /,/, $opt{faults} } keys %known;
die "no fault is called \"$opt{faults}\"; there are: " . join(', ', sort keys %known) . "\n" if !@names;
my %unable;
foreach my $name (@names)
{
	my $needs = $known{$name}{needs} or next;
	my $reason = $needs->() // next;

	$unable{$name} = $reason;
	print $stdout "# skipped: $name: $reason\n";
}
@names = grep { !$unable{$_} } @names;
if ($opt{list})
{
	print $stdout "$_\n" foreach @names;
	exit 0;
}

sub glob_matches
{
	my ($pattern, $name) = @_;
	my $regex = join '.*', map { quotemeta } split /\*/, $pattern, -1;

	return $name =~ /^$regex$/;
}

# One fault, perhaps two; then requests have to arrive again.
sub strike
{
	my $name = $names[ rand @names ];
	my $other = $names[ rand @names ];
	my $both = rand() < 0.4 && $known{$name}{end} && $other ne $name && !$known{$other}{end};

	print $_ '# ' . localtime() . " $name", ($both ? " with $other" : ''), "\n" foreach *STDOUT, $ENV{RETRY_CHAOS_VERBOSE} ? $stdout : ();
	$count{$_}++ foreach RetryTest::Faults::happen($chaos, $known{$name}, $both ? $known{$other} : undef);
	my $ended = time();
	my $before = $campaign->arrived;
	$chaos->wait_quietly(sub { $campaign->arrived > $before }, "requests arrive after $name" . ($both ? " with $other" : ''));
	push @{ $back{$name} }, time() - $ended if !$both;
	return;
}

# One round: load and faults, then the end of everything, and the comparison.
sub round
{
	my ($seconds) = @_;
	my $until = time() + $seconds;

	$campaign->start(3);
	$campaign->await_arrival('requests arrive');
	while (time() < $until)
	{
		$chaos->pause(0.4);
		strike();
	}
	$campaign->stop;
	$chaos->recover;
	$chaos->calm;
	$campaign->await_end(undef, timeout => 90 + $seconds);
	RetryTest::Plants::plant($chaos, $opt{plant}) if $opt{plant};
	$campaign->report;
	$campaign->next_round;
	return;
}

# What happened how often, and how often alone; how long it took then until requests
# arrived again; and how many requests were repeated for it, or `late`: they were of an
# attempt before the last one, which no fault of theirs explains.  test/chaos/table reads it.
sub table
{
	my $repeated = $campaign->{repeated};

	print $stdout sprintf("# %-24s %6s %6s %14s %14s %9s\n", 'fault', 'times', 'alone', 'back after s', 'at most', 'repeated');
	foreach my $name (sort keys %{ { %count, %$repeated } })
	{
		my @back = @{ $back{$name} // [] };

		print $stdout sprintf("# %-24s %6d %6d %14s %14s %9d\n", $name, $count{$name} // 0, scalar(@back),
			@back ? sprintf('%.2f', sum(@back) / @back) : '-', @back ? sprintf('%.2f', max(@back)) : '-',
			$repeated->{$name} // 0);
	}
	return;
}

my $until = time() + $opt{seconds};
while ((my $left = $until - time()) > 1)
{
	# no short round at the end
	round($left < 1.5 * $opt{round} ? $left : $opt{round});
}
table();
if (my @cuts = @{ $chaos->{cuts} // [] })
{
	print $stdout sprintf("# power: %d of %d cuts undid WAL, %d bytes of it\n", scalar(grep { $_ > 0 } @cuts), scalar(@cuts), sum(@cuts));
}
if ($count{'out-of-memory'})
{
	print $stdout sprintf("# out-of-memory: %d allocations failed\n", $chaos->failed_allocations);
}
print $stdout sprintf("# looked at: %s\n", join ', ', map { "$campaign->{looked}{$_} $_" } sort keys %{ $campaign->{looked} });
my @crashes = $chaos->crashes;
ok(!@crashes, 'the log tells of no crash but those that we made') or diag(join "\n", @crashes[ 0 .. ($#crashes < 9 ? $#crashes : 9) ]);
$chaos->node->stop;
done_testing();

# The last line is ours.
Test::More->builder->no_ending(1);
my @results = Test::More->builder->summary;
my $failed = grep { !$_ } @results;
print $stdout sprintf("# took %.0f s; again: test/chaos/run --seconds %d --seed %d%s\n", time() - $began, $opt{seconds}, $opt{seed},
	$opt{faults} ? " --faults '$opt{faults}'" : '');
print $stdout sprintf("%d passed, %d failed\n", @results - $failed, $failed);
exit($failed ? 1 : 0);
