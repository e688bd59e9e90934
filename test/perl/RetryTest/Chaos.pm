# What a fault campaign works on: a real server with small disks of its own where
# the machine allows it, a clock that can be set, a load with its ledgers, and the
# ways in which faults reach them.
package RetryTest::Chaos;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Campaign;
use RetryTest::Clock;
use RetryTest::Crash;
use RetryTest::Power;
use RetryTest::Wire;
use Time::HiRes qw(time usleep);

our $DBNAME = 'chaos';

# new(%options): a server, running, with the extension and without a load.
#   seed => N, pause_ms => N
sub new
{
	my ($class, %opt) = @_;
	my $power = RetryTest::Power->new;
	my $self = bless {
		seed => $opt{seed},
		power => $power,
		clock => RetryTest::Clock->new(also => $power),
		latest => 0,
		serial => 0,
		prepared => {},
		no_wire => RetryTest::Wire::missing(),
		excused => []
	}, $class;
	# test/chaos/run sets these where it could make a place of its own
	my $wal = $ENV{RETRY_CHAOS_WAL};
	my $data = $ENV{RETRY_CHAOS_DATA};

	$self->{node} = new_node('campaign', fsync => 1, start => 0,
		initdb => $wal ? [ '--waldir', "$wal/wal" ] : [], conf => "retry.allowed_networks = '127.0.0.0/8, $RetryTest::Wire::FAR/32'\n" . <<'CONF');
retry.poll_interval = 200ms
retry.lane_max_in_flight = 4
retry.max_in_flight = 64
restart_after_crash = on
wal_sync_method = fdatasync
max_wal_size = 128MB
min_wal_size = 32MB
max_locks_per_transaction = 256
CONF
	$self->{wal} = $wal ? "$wal/wal" : $self->{node}->data_dir . '/pg_wal';
	$self->start;
	mkdir "$data/space" if $data;
	$self->{node}->safe_psql('postgres', $_)
	  foreach $data ? "CREATE TABLESPACE small LOCATION '$data/space'" : (),
	  "CREATE DATABASE $DBNAME" . ($data ? ' TABLESPACE small' : ''), 'CREATE DATABASE other';
	$self->{node}->safe_psql($_, 'CREATE EXTENSION retry') foreach $DBNAME, 'other';
	# receivers fail on purpose, and all has to end
	hold_nothing($self->{node}, dbname => $DBNAME);
	$self->{campaign} = RetryTest::Campaign->new($self->{node},
		seed => $opt{seed}, dbname => $DBNAME, mixed => 1, loads => [qw(Messages Mail Ends Order)], lanes => 6, slow => 0.04,
		pause_ms => $opt{pause_ms} // 15, named => $ENV{RETRY_CHAOS_HOST},
		start => sub { $self->start },
		place => $self->{no_wire} ? {} : { host => $RetryTest::Wire::NEAR, called => $RetryTest::Wire::FAR },
		options => "backoff => 'fixed 100ms', max_attempts => 100000, timeout => '1500 ms'");
	$self->{receiver} = $self->{campaign}->receiver;
	$self->{wire} = RetryTest::Wire->new($self->{receiver}->port) if !$self->{no_wire};
	$self->name_receiver(1);
	return $self;
}

sub node { return $_[0]->{node}; }
sub campaign { return $_[0]->{campaign}; }
sub receiver { return $_[0]->{receiver}; }

# start(): the server, by its clock; tries again while what went wrong is in the way.
sub start
{
	my ($self) = @_;
	my $log = $self->{node}->logfile;
	my $offset = -s $log // 0;

	return if $self->{clock}->start($self->{node});
	substr(slurp_file($log), $offset) =~ /No space left on device/ or die 'the server does not start';
	$self->make_room;
	$self->{clock}->start($self->{node}) or die 'the server does not start, though there is room';
	return;
}

# Our disks have room again: PostgreSQL needs some to recover, and ends without.
sub make_room
{
	my ($self) = @_;

	foreach ([ RETRY_CHAOS_DATA => $ENV{RETRY_CHAOS_DISK} ], [ RETRY_CHAOS_WAL => $ENV{RETRY_CHAOS_WAL_SIZE} ])
	{
		my ($folder, $size) = ($ENV{ $_->[0] }, $_->[1]);
		system_or_bail('mount', '-o', "remount,size=$size", $folder) if $folder;
	}
	return;
}

# name_receiver(YES): is its name known?
sub name_receiver
{
	my ($self, $known) = @_;

	return if !$ENV{RETRY_CHAOS_HOST};
	open(my $out, '>', '/etc/hosts') or die "/etc/hosts: $!";
	print $out "127.0.0.1 localhost\n";
	print $out $self->{no_wire} ? '127.0.0.1' : $RetryTest::Wire::FAR, " $ENV{RETRY_CHAOS_HOST}\n" if $known;
	close $out;
	return;
}

# A key of this round that no session uses.
sub new_key
{
	my ($self, $what) = @_;

	return "$self->{campaign}{tag}-$what-" . ++$self->{serial};
}

# A statement whose failure is no concern: the server may be anywhere, and a
# prepared transaction may hold a lock.  Its output, or undef.
sub try_sql
{
	my ($self, $sql, $dbname) = @_;
	my ($rc, $out, $err, $timed_out);

	# psql may have ended, with its server, before it could be told the statement
	eval {
		($rc, $out, $err) = $self->{node}->psql($dbname // $DBNAME, $sql, timeout => 90, timed_out => \$timed_out);
		1;
	} or $@ =~ /Broken pipe/ or die $@;
	die "it takes too long: $sql\n" . RetryTest::picture($self->{node}, $DBNAME) if $timed_out;
	return ($rc // 1) == 0 && ($err // '') !~ /ERROR|FATAL|PANIC/ ? $out : undef;
}

# Runs CODE, for a fault; attempts under way meanwhile may be made twice.
sub during
{
	my ($self, $fault, $code) = @_;
	my $from = time();
	my @result = $code->();

	$self->{campaign}->moment($from, time(), $fault->{name}, $fault->{delays});
	return @result;
}

sub setting
{
	my ($self, $name, $value) = @_;

	$self->try_sql(defined $value ? "ALTER SYSTEM SET $name = '$value'" : "ALTER SYSTEM RESET $name");
	$self->{node}->reload;
	return;
}

# Up to so many seconds, at random.
sub pause
{
	my ($self, $most) = @_;

	usleep(int(rand($most * 1e6)));
	return;
}

sub wait_quietly
{
	my ($self, $condition, $description, $timeout) = @_;

	RetryTest::Campaign::wait_for_quietly($condition, $timeout)
	  or die "gave up waiting: $description\n" . RetryTest::picture($self->{node}, $DBNAME);
	return;
}

# Waits until the server answers; starts it if it is down for good.
sub recover
{
	my ($self) = @_;
	my $node = $self->{node};

	$self->wait_quietly(sub {
		return 1 if defined $self->try_sql('SELECT 1');
		my $pid = -e $node->data_dir . '/postmaster.pid' ? (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0] : 0;
		# a postmaster that gave up: its children are gone, or it would still be there
		if (!$pid || !kill(0, $pid) || (RetryTest::Crash::state_of($pid) // 'Z') eq 'Z')
		{
			unlink $node->data_dir . '/postmaster.pid';
			$node->{_pid} = undef;
			eval { $self->start; };
		}
		return 0;
	}, 'the server comes back');
	return;
}

# Process ids of workers and sessions, by type.
sub pids
{
	my ($self, $type) = @_;
	my $out = $self->try_sql("SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND (datname = '$DBNAME' OR datname IS NULL) AND pid <> pg_backend_pid()");

	return split /\n/, $out // '';
}

# excuse(REGEX): lines of the log like this are what we did.
sub excuse
{
	my ($self, $regex) = @_;

	push @{ $self->{excused} }, $regex;
	return;
}

# How often the server says that it got no memory.
sub failed_allocations
{
	my ($self) = @_;

	return scalar grep { /out of memory/i } split /\n/, slurp_file($self->{node}->logfile);
}

# Lines of the log that tell of a crash that was none of ours.
sub crashes
{
	my ($self) = @_;
	my @lines = grep { /PANIC|TRAP|terminated by signal (?!9)/ } split /\n/, slurp_file($self->{node}->logfile);

	foreach my $regex (@{ $self->{excused} })
	{
		@lines = grep { $_ !~ $regex } @lines;
	}
	return @lines;
}

# set_clock(OFFSET): seconds ahead of the true time, for the server.  Who sleeps by
# the clock would sleep for as long as it went back, so sessions are ended.
sub set_clock
{
	my ($self, $offset) = @_;
	my $back = $offset < $self->{clock}->offset;

	$self->{latest} = $offset if $offset > $self->{latest};
	$self->{campaign}->clock_set(time(), $offset);
	$self->{clock}->set($offset);
	$self->try_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
	  if $back;
	return;
}

# calm(): ends what lasts, so that everything can come to an end.
sub calm
{
	my ($self) = @_;

	$self->{receiver}->mode('up');
	$self->set_clock($self->{latest} + 5) if $self->{latest} > $self->{clock}->offset;
	$self->try_sql('ALTER SYSTEM RESET ALL');
	$self->{node}->reload;
	$self->finish_prepared($_, 1) foreach sort keys %{ $self->{prepared} };
	return;
}

sub finish_prepared
{
	my ($self, $key, $commit) = @_;

	if (defined $self->try_sql(($commit ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$key'"))
	{
		$self->{campaign}->note(($commit ? 'C' : 'R') => $key);
		delete $self->{prepared}{$key};
	}
	elsif (($self->try_sql("SELECT count(*) FROM pg_prepared_xacts WHERE gid = '$key'") // '') eq '0')
	{
		# it ended at the first try, and a crash kept us from hearing of it
		delete $self->{prepared}{$key};
	}
	return;
}

1;
