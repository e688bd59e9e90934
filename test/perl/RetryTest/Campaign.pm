# A load whose every promise can be checked afterwards: sessions that enqueue
# with keys and write down what committed, a receiver that writes down what it
# got, and the comparison of both with what the database says.  Tests of crashes
# and test/chaos/run use it; what they do to the server in between is their own.
#
# Three ledgers:
#   sessions   C key  committed for sure         A key  the same, asynchronously
#              T key  tried, perhaps committed   R key  rolled back for sure
#              E key end   how it has to end, when that is not by success
#              M key fate  of a message, see RetryTest::Load::Messages
#   receiver   key, attempt number, status answered, when
#   database   what is stored, and what the views show of it, in the end
# They are compared by RetryTest::Checker.
#
# A long campaign goes in rounds: each has keys of its own, and is checked before
# the next begins.
package RetryTest::Campaign;

use strict;
use warnings FATAL => 'all';

use POSIX ();
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Checker;
use RetryTest::Crash;
use RetryTest::Load::Ends;
use RetryTest::Load::Mail;
use RetryTest::Load::Messages;
use RetryTest::Load::Order;
use Test::More import => [qw(ok diag)];
use Time::HiRes qw(time usleep);

my $campaigns = 0;

# new(NODE, %options)
#   seed      => N        of everything random here
#   receiver  => [...]    arguments of the receiver
#   place     => {...}    where it is, as RetryTest::Endpoint has it (host, called)
#   options   => "..."    more arguments of each retry.enqueue call
#   lanes     => N        lanes that tasks are spread over
#   slow      => 0.08     share of the tasks in a lane of slow answers
#   pause_ms  => N        between two transactions of a session
#   dbname    => 'postgres'
#   mixed     => 1        also tasks that die, are cancelled, or call a function
#   loads     => [...]    and what is not plain tasks: Messages, Mail, Ends, Order (see RetryTest/Load)
#   named     => 'HOST'   by which some tasks call the receiver
#   start     => SUB      instead of starting the server plainly
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
		mixed => $opt{mixed} // 0,
		named => $opt{named},
		start_server => $opt{start} // sub { $node->start },
		round => 1,
		sessions => 0,
		arrivals_file => "$base.arrivals",
		stop_file => "$base.stop",
		children => [],
		logs => [],
		faults => [],
		failovers => [],
		clock => [],
		checked => {},
		repeated => {},
		arrived_before => 0,
		arrivals_read => 0
	}, $class;

	$self->{tag} = "$campaigns-$self->{seed}";

	$self->{receiver} = start_endpoint(
		%{ $opt{place} // {} },
		args => [
			'--ledger', $self->{arrivals_file},
			@{ $opt{receiver} // [ '--delay-ms', 3, '--fail-percent', 5, '--seed', $self->{seed} ] }
		]);
	$self->_make_function if $self->{mixed};
	$self->{loads} = [ map { "RetryTest::Load::$_"->new($self) } @{ $opt{loads} // [] } ];
	return $self;
}

# What tasks call that are no requests: it leaves a row.
sub _make_function
{
	my ($self) = @_;

	$self->{node}->safe_psql($self->{dbname}, <<'SQL');
CREATE TABLE public.effect (key text);
CREATE FUNCTION public.take_effect(task jsonb) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.effect VALUES (task ->> 'key') $$;
SQL
	return;
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

		# a receiver that is known by name
		return "SELECT retry.enqueue('http://$self->{named}:" . $self->{receiver}->port . "/ok', '{}', key => '$key', $self->{options});\n"
		  if $self->{named} && rand() < 0.1;
		# a lane that does not keep up, so that there is always something waiting
		return "SELECT retry.enqueue('$slow', '{}', key => '$key', lane => 'slow', $self->{options});\n"
		  if rand() < $self->{slow};
		return "SELECT retry.enqueue('$url', '{}', key => '$key', lane => '$lane'$delay, $self->{options});\n";
	};
	my $key = "$prefix-$n";
	my $kind = rand();

	foreach my $load (@{ $self->{loads} })
	{
		return $load->transaction($key) if rand() < $load->share;
	}
	return $self->_other_end($key) if $self->{mixed} && rand() < 0.12;
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

# A task that is not to end with a request that succeeds.
sub _other_end
{
	my ($self, $key) = @_;
	my $kind = int(rand(4));
	my ($end, $target, $more) = @{ (
		[ 'dead', $self->{receiver}->url('/status/400'), "lane => 'dies', $self->{options}" ],
		[ 'dead', $self->{receiver}->url('/status/500'), "lane => 'dies', max_attempts => 3, backoff => 'fixed 40ms'" ],
		[ 'cancelled', $self->{receiver}->url('/ok'), "delay => '29 days', lane => 'lane0'" ],
		[ 'effect', 'sql:public.take_effect', $self->{options} ])[$kind] };
	my $call = "retry.enqueue('$target', '{\"key\": \"$key\"}', key => '$key', $more)";

	return "\\echo T $key\n\\echo E $key $end\nSELECT $call;\n\\echo C $key\n" if $end ne 'cancelled';
	# both or neither: who did not see its commit knows nothing of a cancellation
	return "\\echo T $key\n\\echo E $key $end\nBEGIN;\nSELECT $call AS id \\gset\n"
	  . "SELECT retry.cancel(:'id');\nCOMMIT;\n\\echo C $key\n";
}

# What one enqueuing process does until told to stop; psql is started anew when
# the server has gone away, and ends at any error.
sub _session
{
	my ($self, $number, $parent) = @_;
	my $prefix = "$self->{tag}-$number";
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
	$_->{pid} //= $_->start foreach grep { $_->can('start') } @{ $self->{loads} };
	foreach (1 .. $count)
	{
		my $number = ++$self->{sessions};
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

# kill_server(%options): kill -9 of the postmaster, and of all its children at
# once (all => 1) or of none, so that they find out by themselves; then waits
# until they are gone, does what is to be done meanwhile (between => SUB), and
# starts it again.  Notes when that was.
sub kill_server
{
	my ($self, %opt) = @_;
	my $node = $self->{node};
	my $from = time();

	RetryTest::Crash::crash($node, $opt{all});
	$opt{between}->() if $opt{between};
	$self->moment($from, time(), $opt{name});
	$self->{start_server}->() unless $opt{stay_down};
	return;
}

# moment(FROM, TO, NAME, DELAYS): attempts that were under way then may be sent twice;
# DELAYS: or arrive when it is over.
sub moment
{
	my ($self, $from, $to, $name, $delays) = @_;

	push @{ $self->{faults} }, [ $from * 1e6, $to * 1e6, $name // 'crash', $delays // 0 ];
	return;
}

# failover(FROM, TO): attempts recorded then may not have reached the standby.
sub failover
{
	my ($self, $from, $to) = @_;

	push @{ $self->{failovers} }, [ $from * 1e6, $to * 1e6 ];
	return;
}

# clock_set(FROM, OFFSET): the server's clock is so far ahead from now on.
sub clock_set
{
	my ($self, $from, $offset) = @_;

	push @{ $self->{clock} }, [ $from * 1e6, $offset * 1e6 ];
	return;
}

# Requests that the receiver has got.
sub arrived
{
	my ($self) = @_;

	return $self->{arrived_before} + $self->{receiver}->stats->{total};
}

# end_receiver, restart_receiver: its process ends, and writes down what it got.
sub end_receiver
{
	my ($self) = @_;

	$self->{receiver}->stop;
	$self->{arrived_before} = -e $self->{arrivals_file} ? slurp_file($self->{arrivals_file}) =~ tr/\n// : 0;
	return;
}

sub restart_receiver
{
	my ($self) = @_;

	$self->{receiver}->start;
	return;
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

# Waits until every task has a terminal attempt, or was cancelled, and every message
# is decided.  (Tasks without a key are none of the campaign's.)
sub await_end
{
	my ($self, $description, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_sql(
		$self->{node},
		"SELECT (SELECT count(*) FROM retry.global_transaction g WHERE NOT EXISTS (SELECT FROM retry.global_decision d WHERE d.gid = g.gid)) + count(*) "
		  . "FROM retry.task t WHERE key IS NOT NULL AND NOT EXISTS "
		  . "(SELECT FROM retry.attempt a WHERE a.leaf = t.leaf AND a.task_id = t.id AND a.next_due IS NULL) "
		  . "AND NOT EXISTS (SELECT FROM retry.signal s WHERE s.leaf = t.leaf AND s.task_id = t.id AND s.action = 'c')",
		$description // 'every task comes to an end',
		expected => '0', dbname => $self->{dbname}, %opt);
	$_->await foreach grep { $_->can('await') } @{ $self->{loads} };
	return;
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

# What the sessions wrote down of one kind, without its letter.
sub noted
{
	my ($self, $what) = @_;

	return [ map { (slurp_file($_) =~ /^$what (.+)$/mg) } grep { -e } @{ $self->{logs} } ];
}

# What the sessions wrote down: a hash of keys by kind, and their ends.
sub promises
{
	my ($self) = @_;
	my %keys = (C => {}, A => {}, T => {}, R => {});
	my %ends;

	foreach my $log (@{ $self->{logs} })
	{
		foreach my $line (split /\n/, -e $log ? slurp_file($log) : '')
		{
			$keys{$1}{$2} = 1 if $line =~ /^([CATR]) (\S+)$/;
			$ends{$1} = $2 if $line =~ /^E (\S+) (\S+)$/;
		}
	}
	return wantarray ? (\%keys, \%ends) : \%keys;
}

# What the receiver wrote down since the last round, oldest first.
sub arrivals
{
	my ($self) = @_;
	my @arrivals;
	my $total = $self->arrived;
	my $text;

	# written with a delay
	wait_for_quietly(sub {
		$text = -e $self->{arrivals_file} ? slurp_file($self->{arrivals_file}) : '';
		return ($text =~ tr/\n//) >= $total;
	}) or die "the receiver's ledger is not complete";
	substr($text, 0, $self->{arrivals_read}, '');
	$self->{arrivals_next} = $self->{arrivals_read} + length $text;
	foreach my $line (split /\n/, $text)
	{
		my (undef, $wall, undef, undef, $key, $attempt, $status) = split /\t/, $line;

		# others may send here too, tasks without a key: it is their id
		push @arrivals, { wall => $wall, key => $key, attempt => $attempt, status => $status }
		  if $key !~ /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-/;
	}
	return \@arrivals;
}

sub wait_for_quietly
{
	my ($condition, $timeout) = @_;
	my $deadline = time() + ($timeout // $RetryTest::TIMEOUT);

	until ($condition->())
	{
		return 0 if time() > $deadline;
		usleep(20_000);
	}
	return 1;
}

# rows(NAMES, QUERY): of a query, as hashes with these names; MINE stands for: key is of this round.
sub rows
{
	my ($self, $names, $query) = @_;
	my @rows;

	# a test's own keys are of the first round
	my $mine = $self->{round} > 1 ? "LIKE '$self->{tag}-%'" : 'IS NOT NULL';

	$query =~ s/\bMINE\b/$mine/g;
	foreach my $line (split /\n/, $self->{node}->safe_psql($self->{dbname}, $query))
	{
		my %row;

		@row{@$names} = map { $_ eq 't' ? 1 : $_ eq 'f' ? 0 : $_ } split /\|/, $line, -1;
		push @rows, \%row;
	}
	return \@rows;
}

# What the database holds and shows.
sub _database
{
	my ($self) = @_;

	return (
		stored => $self->rows([qw(key cancelled)],
			"SELECT key, EXISTS (SELECT FROM retry.signal s WHERE s.leaf = t.leaf AND s.task_id = t.id AND s.action = 'c') "
			  . 'FROM retry.task t WHERE key MINE'),
		attempts => $self->rows([qw(key attempt status outcome error terminal finished)],
			'SELECT t.key, a.attempt_no, coalesce(a.http_status, 0), a.outcome, a.error IS NOT NULL, a.next_due IS NULL, '
			  . '(extract(epoch FROM a.finished_at) * 1000000)::bigint '
			  . 'FROM retry.attempt a JOIN retry.task t ON t.leaf = a.leaf AND t.id = a.task_id '
			  . 'WHERE t.key MINE ORDER BY t.key, a.attempt_no'),
		views => $self->rows([qw(key state attempts)], 'SELECT key, state, attempts FROM retry.tasks WHERE key MINE'),
		letters => $self->rows(['key'], 'SELECT key FROM retry.dead_letters WHERE key MINE'),
		effects => $self->{mixed} ? $self->rows(['key'], 'SELECT key FROM public.effect WHERE key MINE') : []);
}

# check(): compares the ledgers; returns violations, a hash of lists by kind.
# What arrives of an earlier round, all of which had ended, is one as well.
sub check
{
	my ($self) = @_;
	my ($promises, $ends) = $self->promises;
	my @arrivals = @{ $self->arrivals };
	my @late = grep { $self->{checked}{ $_->{key} } } @arrivals;

	$_->stop(delete $_->{pid}) foreach grep { $_->{pid} } @{ $self->{loads} };
	my %facts = (
		promises => $promises,
		expect => $ends,
		arrivals => [ grep { !$self->{checked}{ $_->{key} } } @arrivals ],
		faults => $self->{faults},
		failovers => $self->{failovers},
		clock => $self->{clock},
		$self->_database);

	$_->add_facts(\%facts) foreach @{ $self->{loads} };
	my ($found, $size, $repeated) = RetryTest::Checker::check(\%facts);

	push @{ $found->{double} }, "$_->{key} attempt $_->{attempt} arrived after its round" foreach @late;
	$self->{size} = $size;
	$self->{looked}{$2} += $1 while $size =~ /(\d+) ([a-z ]+)/g;
	$self->{repeated}{$_} += $repeated->{$_} foreach keys %$repeated;
	return $found;
}

# report(): check, as a test for each kind with its first violations; then a new
# round begins.
sub report
{
	my ($self) = @_;
	my $found = $self->check;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $kind (sort keys %$found)
	{
		my @violations = @{ $found->{$kind} };

		ok(!@violations, $RetryTest::Checker::SAYS{$kind})
		  or diag(scalar(@violations) . " violations, e.g.\n  " . join "\n  ",
			@violations[ 0 .. ($#violations < 9 ? $#violations : 9) ]);
	}
	diag($self->{size});
	return;
}

# next_round(): forgets what has been checked, and its keys' details.
sub next_round
{
	my ($self) = @_;

	$self->{checked}{$_} = 1 foreach keys %{ $self->promises->{T} };
	unlink @{ $self->{logs} };
	$self->{logs} = [];
	$self->{arrivals_read} = $self->{arrivals_next};
	$self->{round}++;
	$self->{tag} =~ s/(-r\d+)?$/-r$self->{round}/;
	return;
}

1;
