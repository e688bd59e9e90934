# A load whose every promise can be checked afterwards: sessions that enqueue
# with keys and write down what committed, a receiver that writes down what it
# got, and the comparison of both with what the database says.  Tests of crashes
# and test/chaos/run use it; what they do to the server in between is their own.
#
# Three ledgers:
#   sessions   C key  committed for sure         A key  the same, asynchronously
#              T key  tried, perhaps committed   R key  rolled back for sure
#   receiver   key, attempt number, status answered, when
#   database   retry.task and retry.attempt, as they are in the end
package RetryTest::Campaign;

use strict;
use warnings FATAL => 'all';

use POSIX ();
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More import => [qw(ok diag)];
use Time::HiRes qw(time usleep);

my $campaigns = 0;

# new(NODE, %options)
#   seed      => N        of everything random here
#   receiver  => [...]    arguments of the receiver
#   options   => "..."    more arguments of each retry.enqueue call
#   lanes     => N        lanes that tasks are spread over
#   slow      => 0.08     share of the tasks in a lane of slow answers
#   pause_ms  => N        between two transactions of a session
#   dbname    => 'postgres'
sub new
{
	my ($class, $node, %opt) = @_;
	my $base = PostgreSQL::Test::Utils::tempdir . '/campaign' . ++$campaigns;
	my $self = bless {
		node => $node,
		base => $base,
		seed => $opt{seed} // 1,
		options => $opt{options} // "backoff => 'fixed 40ms'",
		lanes => $opt{lanes} // 3,
		pause_ms => $opt{pause_ms} // 4,
		slow => $opt{slow} // 0.08,
		dbname => $opt{dbname} // 'postgres',
		arrivals_file => "$base.arrivals",
		stop_file => "$base.stop",
		children => [],
		logs => [],
		kills => []
	}, $class;

	$self->{receiver} = start_endpoint(
		args => [
			'--ledger', $self->{arrivals_file},
			@{ $opt{receiver} // [ '--delay-ms', 3, '--fail-percent', 5, '--seed', $self->{seed} ] }
		]);
	return $self;
}

sub receiver { return $_[0]->{receiver}; }

# Sessions

# One transaction of a session as psql commands.  Keys are never used again, so
# that a COMMIT whose end nobody saw leaves no doubt about any other.
sub _transaction
{
	my ($self, $prefix, $n) = @_;
	my $url = $self->{receiver}->url('/ok');
	my $slow = $self->{receiver}->url('/delay/100');
	my $call = sub {
		my ($key) = @_;
		my $lane = 'lane' . int(rand($self->{lanes}));
		my $delay = rand() < 0.1 ? ", delay => '30ms'" : '';

		# a lane that does not keep up, so that there is always something waiting
		return "SELECT retry.enqueue('$slow', '{}', key => '$key', lane => 'slow', $self->{options});\n"
		  if rand() < $self->{slow};
		return "SELECT retry.enqueue('$url', '{}', key => '$key', lane => '$lane'$delay, $self->{options});\n";
	};
	my $key = "$prefix-$n";
	my $kind = rand();

	return "\\echo R $key-r\nBEGIN;\n" . $call->("$key-r") . "ROLLBACK;\n"
	  if $kind < 0.15;
	return "\\echo R $key-s\n\\echo T $key\nBEGIN;\n" . $call->($key)
	  . "SAVEPOINT s;\n" . $call->("$key-s") . "ROLLBACK TO s;\nCOMMIT;\n\\echo C $key\n"
	  if $kind < 0.25;
	return "\\echo T $key-1\n\\echo T $key-2\n\\echo T $key-3\n"
	  . "SELECT retry.enqueue_many('$url', array_fill('{}'::jsonb, '{3}'), keys => '{$key-1,$key-2,$key-3}', $self->{options});\n"
	  . "\\echo C $key-1\n\\echo C $key-2\n\\echo C $key-3\n"
	  if $kind < 0.32;
	return "\\echo T $key\nBEGIN;\n" . $call->($key)
	  . sprintf("SELECT pg_sleep(%.3f);\n", 0.02 + rand(0.3)) . "COMMIT;\n\\echo C $key\n"
	  if $kind < 0.37;
	return "\\echo T $key\nSET synchronous_commit = off;\n" . $call->($key)
	  . "SET synchronous_commit = on;\n\\echo A $key\n"
	  if $kind < 0.47;
	return "\\echo T $key\n" . $call->($key) . "\\echo C $key\n";
}

# What one enqueuing process does until told to stop; psql is started anew when
# the server has gone away, and ends at any error.
sub _session
{
	my ($self, $number, $parent) = @_;
	my $prefix = "$campaigns-$self->{seed}-$number";
	my $script = "$self->{base}.script$number";
	my $n = 0;

	srand($self->{seed} * 1000 + $number);
	while (!-e $self->{stop_file} && getppid() == $parent)
	{
		my $text = "\\o /dev/null\n";

		for (1 .. 25)
		{
			$text .= $self->_transaction($prefix, ++$n);
			$text .= sprintf "SELECT pg_sleep(%.4f);\n", $self->{pause_ms} / 1000;
		}
		open(my $out, '>', $script) or POSIX::_exit(1);
		print $out $text;
		close $out;
		system('psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1',
			'-d', $self->{node}->connstr($self->{dbname}), '-f', $script) == 0
		  or usleep(20_000);
	}
	return;
}

# start(COUNT): processes that enqueue, until stop.
sub start
{
	my ($self, $count) = @_;
	my $parent = $$;

	unlink $self->{stop_file};
	foreach (1 .. $count)
	{
		my $number = @{ $self->{logs} };
		my $log = "$self->{base}.session$number";
		my $pid = fork() // die "cannot fork: $!";

		if ($pid == 0)
		{
			open(STDIN, '<', '/dev/null');
			open(STDOUT, '>>', $log);
			open(STDERR, '>>', "$log.errors");
			eval { $self->_session($number, $parent); };
			# _exit: this copy of the test must not run its END blocks.
			POSIX::_exit($@ ? 1 : 0);
		}
		push @{ $self->{children} }, $pid;
		push @{ $self->{logs} }, $log;
	}
	return;
}

sub stop
{
	my ($self) = @_;

	open(my $out, '>', $self->{stop_file}) or die $!;
	close $out;
	waitpid($_, 0) foreach @{ $self->{children} };
	$self->{children} = [];
	return;
}

# Crashes

# Process ids of the children of a process.
sub children_of
{
	my ($parent) = @_;
	my @pids;

	foreach my $file (glob '/proc/[0-9]*/stat')
	{
		open(my $in, '<', $file) or next;
		my $line = <$in> // next;
		push @pids, $1 if $line =~ /^(\d+) \(.*\) [^Z] $parent /;
	}
	return @pids;
}

# kill_server(%options): kill -9 of the postmaster, and of all its children at
# once (all => 1) or of none, so that they find out by themselves; then waits
# until they are gone, and starts it again.  Notes when that was.
sub kill_server
{
	my ($self, %opt) = @_;
	my $node = $self->{node};
	my $postmaster = $node->{_pid};
	my @pids = children_of($postmaster);
	my $from = time();
	my $deadline = $from + 60;

	$node->kill9;
	kill 'KILL', @pids if $opt{all};
	foreach my $pid (@pids, $postmaster)
	{
		while ((_state($pid) // 'Z') ne 'Z')
		{
			die "process $pid does not notice that its postmaster is gone"
			  if time() > $deadline;
			usleep(5_000);
		}
	}
	# Where nobody collects it at once, a dead postmaster still seems to run.
	unlink $node->data_dir . '/postmaster.pid',
	  $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	push @{ $self->{kills} }, [ $from * 1e6, time() * 1e6 ];
	$node->start unless $opt{stay_down};
	return;
}

# moment(FROM, TO): attempts that were under way then may be sent twice.
sub moment
{
	my ($self, $from, $to) = @_;

	push @{ $self->{kills} }, [ $from * 1e6, $to * 1e6 ];
	return;
}

sub _state
{
	my ($pid) = @_;

	open(my $in, '<', "/proc/$pid/stat") or return;
	return (<$in> // '') =~ /^\d+ \(.*\) (\S)/ ? $1 : undef;
}

# Requests that the receiver has got.
sub arrived
{
	my ($self) = @_;

	return $self->{receiver}->stats->{total};
}

# Waits until something arrives that had not when this was called.
sub await_arrival
{
	my ($self, $description) = @_;
	my $before = $self->arrived;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_for(sub { $self->arrived > $before }, $description,
		diag => sub { RetryTest::picture($self->{node}, $self->{dbname}) });
}

# Waits until every task has a terminal attempt.  (Tasks without a key are none
# of the campaign's.)
sub await_end
{
	my ($self, $description, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_sql(
		$self->{node},
		"SELECT count(*) FROM retry.task t WHERE key IS NOT NULL AND NOT EXISTS "
		  . "(SELECT FROM retry.attempt a WHERE a.leaf = t.leaf AND a.task_id = t.id AND a.next_due IS NULL)",
		$description // 'every task comes to an end',
		expected => '0', dbname => $self->{dbname}, %opt);
}

# The ledgers

# Adds a line to the sessions' ledger.
sub note
{
	my ($self, $what, $key) = @_;
	my $log = "$self->{base}.noted";

	push @{ $self->{logs} }, $log unless grep { $_ eq $log } @{ $self->{logs} };
	append_to_file($log, "$what $key\n");
	return;
}

# What the sessions wrote down: a hash of keys by kind.
sub promises
{
	my ($self) = @_;
	my %keys = (C => {}, A => {}, T => {}, R => {});

	foreach my $log (@{ $self->{logs} })
	{
		foreach my $line (split /\n/, slurp_file($log))
		{
			$keys{$1}{$2} = 1 if $line =~ /^([CATR]) (\S+)$/;
		}
	}
	return \%keys;
}

# What the receiver wrote down, oldest first.
sub arrivals
{
	my ($self) = @_;
	my @arrivals;
	my $total = $self->{receiver}->stats->{total};
	my $text;

	# written with a delay
	wait_for_quietly(sub {
		$text = -e $self->{arrivals_file} ? slurp_file($self->{arrivals_file}) : '';
		return ($text =~ tr/\n//) >= $total;
	}) or die "the receiver's ledger is not complete";
	foreach my $line (split /\n/, $text)
	{
		my (undef, $wall, undef, $path, $key, $attempt, $status) = split /\t/, $line;

		push @arrivals,
		  { wall => $wall, key => $key, path => $path, attempt => $attempt, status => $status };
	}
	return \@arrivals;
}

sub wait_for_quietly
{
	my ($condition) = @_;
	my $deadline = time() + $RetryTest::TIMEOUT;

	until ($condition->())
	{
		return 0 if time() > $deadline;
		usleep(20_000);
	}
	return 1;
}

# What the database holds: rows as arrays of texts.
sub _rows
{
	my ($self, $query) = @_;
	my $text = $self->{node}->safe_psql($self->{dbname}, $query);

	return map { [ split /\|/, $_, -1 ] } split /\n/, $text;
}

sub tasks
{
	my ($self) = @_;

	return [ map { { id => $_->[0], key => $_->[1], state => $_->[2] } }
		  $self->_rows('SELECT id, key, state FROM retry.tasks WHERE key IS NOT NULL') ];
}

sub attempts
{
	my ($self) = @_;

	return [
		map {
			{   key => $_->[0],
				attempt => $_->[1],
				status => $_->[2],
				outcome => $_->[3],
				terminal => $_->[4] eq 't',
				finished => $_->[5]
			}
		} $self->_rows(
			"SELECT t.key, a.attempt_no, coalesce(a.http_status, 0), a.outcome, a.next_due IS NULL, "
			  . "(extract(epoch FROM a.finished_at) * 1000000)::bigint "
			  . "FROM retry.attempt a JOIN retry.task t ON t.leaf = a.leaf AND t.id = a.task_id "
			  . "WHERE t.key IS NOT NULL ORDER BY t.key, a.attempt_no") ];
}

# Violations

# check(): compares the ledgers; returns a hash of lists of violations, by kind:
#   lost      committed, and not there, not sent, or not at its end
#   phantom   sent or stored though it never committed, or sent and not stored
#   gap       numbers of attempts with gaps or repeats, or unlike those sent
#   double    sent again though nothing was lost, or though it was recorded
# outcome => 'succeeded' is how every task has to end.
sub check
{
	my ($self, %opt) = @_;
	my $outcome = $opt{outcome} // 'succeeded';
	my %facts = (
		promises => $self->promises,
		arrivals => $self->arrivals,
		tasks => $self->tasks,
		attempts => $self->attempts,
		kills => $self->{kills});
	my %found = (lost => [], phantom => [], gap => [], double => []);

	_index(\%facts);
	_check_promises(\%facts, \%found, $outcome);
	_check_numbers(\%facts, \%found);
	_check_times(\%facts, \%found);
	$self->{size} = sprintf '%d tasks, %d requests, %d attempts, %d committed, %d rolled back, %d crashes, %d requests repeated',
	  scalar @{ $facts{tasks} }, scalar @{ $facts{arrivals} }, scalar @{ $facts{attempts} },
	  scalar keys %{ $facts{promises}{C} }, scalar keys %{ $facts{promises}{R} },
	  scalar @{ $self->{kills} }, $facts{repeats} // 0;
	return \%found;
}

sub _index
{
	my ($facts) = @_;

	push @{ $facts->{task_of}{ $_->{key} } }, $_ foreach @{ $facts->{tasks} };
	push @{ $facts->{attempts_of}{ $_->{key} } }, $_ foreach @{ $facts->{attempts} };
	push @{ $facts->{arrivals_of}{ $_->{key} } }, $_ foreach @{ $facts->{arrivals} };
	return;
}

sub _check_promises
{
	my ($facts, $found, $outcome) = @_;
	my $promises = $facts->{promises};

	foreach my $key (sort keys %{ $promises->{C} })
	{
		push @{ $found->{lost} }, "$key committed and is not stored"
		  if !$facts->{task_of}{$key};
		push @{ $found->{lost} }, "$key committed and never arrived"
		  if !$facts->{arrivals_of}{$key};
	}
	foreach my $task (@{ $facts->{tasks} })
	{
		my $key = $task->{key};
		my $last = ($facts->{attempts_of}{$key} // [])->[-1];

		push @{ $found->{lost} }, "$key is $task->{state}, not $outcome"
		  if $task->{state} ne $outcome;
		push @{ $found->{lost} }, "$key is stored and its last attempt does not say so"
		  if !$last || !$last->{terminal};
		push @{ $found->{phantom} }, "$key was rolled back and is stored"
		  if $promises->{R}{$key};
		push @{ $found->{phantom} }, "$key is stored and nobody enqueued it"
		  if !$promises->{T}{$key};
		push @{ $found->{double} }, "$key is stored more than once"
		  if @{ $facts->{task_of}{$key} } > 1;
	}
	foreach my $key (sort keys %{ $facts->{arrivals_of} })
	{
		push @{ $found->{phantom} }, "$key arrived and was rolled back"
		  if $promises->{R}{$key};
		push @{ $found->{phantom} }, "$key arrived and is not stored"
		  if !$facts->{task_of}{$key};
	}
	return;
}

# The numbers of attempts: 1 to n, each once, the same as arrived, with the
# status that was answered, and none after a terminal one.
sub _check_numbers
{
	my ($facts, $found) = @_;

	foreach my $key (sort keys %{ $facts->{attempts_of} })
	{
		my @attempts = @{ $facts->{attempts_of}{$key} };
		my $numbers = join ',', map { $_->{attempt} } @attempts;
		my %answered;

		push @{ $found->{gap} }, "$key has attempts $numbers"
		  if $numbers ne join ',', 1 .. @attempts;
		push @{ $found->{gap} }, "$key has another attempt after its end"
		  if grep { $_->{terminal} } @attempts[ 0 .. $#attempts - 1 ];
		$answered{ $_->{attempt} } = $_->{status}
		  foreach @{ $facts->{arrivals_of}{$key} // [] };
		foreach my $attempt (@attempts)
		{
			my $status = delete $answered{ $attempt->{attempt} };

			# an attempt that ended without an answer may have gone astray
			push @{ $found->{gap} }, "$key attempt $attempt->{attempt} is recorded and never arrived"
			  if !defined $status && $attempt->{status} != 0;
			push @{ $found->{gap} }, "$key attempt $attempt->{attempt} was answered $status, $attempt->{status} is recorded"
			  if defined $status && $status != $attempt->{status} && $attempt->{status} != 0;
			push @{ $found->{gap} }, "$key attempt $attempt->{attempt} was answered $status and is recorded as $attempt->{outcome}"
			  if ($attempt->{outcome} eq 'succeeded') != ($attempt->{status} >= 200 && $attempt->{status} < 300);
		}
		push @{ $found->{gap} }, "$key attempts " . join(',', sort keys %answered) . " arrived and are not recorded"
		  if %answered;
	}
	return;
}

# A number may arrive again only across a crash, while it was not recorded; and
# the next number only after it was.
sub _check_times
{
	my ($facts, $found) = @_;

	foreach my $key (sort keys %{ $facts->{arrivals_of} })
	{
		my %finished = map { $_->{attempt} => $_->{finished} } @{ $facts->{attempts_of}{$key} // [] };
		my $previous;

		foreach my $arrival (@{ $facts->{arrivals_of}{$key} })
		{
			my $n = $arrival->{attempt};

			$facts->{repeats}++ if $previous && $n == $previous->{attempt};
			push @{ $found->{double} }, "$key attempt $n arrived without a crash after attempt $previous->{attempt}"
			  if $previous && $n <= $previous->{attempt}
			  && !($n == $previous->{attempt} && _crashed_between($facts, $previous, $arrival));
			push @{ $found->{double} }, "$key attempt $n arrived after it was recorded"
			  if defined $finished{$n} && $arrival->{wall} > $finished{$n};
			push @{ $found->{double} }, "$key attempt $n arrived before attempt " . ($n - 1) . " was recorded"
			  if $n > 1 && $arrival->{wall} < ($finished{ $n - 1 } // 0);
			$previous = $arrival;
		}
	}
	return;
}

sub _crashed_between
{
	my ($facts, $a, $b) = @_;

	return scalar grep { $b->{wall} >= $_->[0] && $a->{wall} <= $_->[1] + 200_000 } @{ $facts->{kills} };
}

# report(%options): check, as four tests with the first violations of each kind.
sub report
{
	my ($self, %opt) = @_;
	my $found = $self->check(%opt);
	my %says = (
		lost => 'nothing that committed is lost, and all of it ends well',
		phantom => 'nothing that did not commit was sent or is stored',
		gap => 'attempts are numbered without gaps, as they were sent and answered',
		double => 'only what a crash caught under way was sent again');
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $kind (sort keys %says)
	{
		my @violations = @{ $found->{$kind} };

		ok(!@violations, $says{$kind})
		  or diag(scalar(@violations) . " violations, e.g.\n  " . join "\n  ",
			@violations[ 0 .. ($#violations < 9 ? $#violations : 9) ]);
	}
	diag($self->{size});
	return;
}

1;
