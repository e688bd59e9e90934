# A receiver for tests to send to: starts the program of test/endpoint on a free
# port, asks it what it has seen, tells it how to behave, and ends it with the
# test.  What its paths do is described in test/endpoint/README.md.
package RetryTest::Endpoint;

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);

my $count = 0;
my %running;

# new(%options):
#   args => [...]   further arguments of the program, e.g. '--delay-ms', 50
#   port => N       instead of a free one, e.g. that of a receiver just stopped
#   host => TEXT    the address that it listens on, instead of 127.0.0.1
#   called => TEXT  the address in url(), where the way to it is another one; the test
#                   itself talks to it directly
sub new
{
	my ($class, %opt) = @_;
	my $program = $ENV{RETRY_ENDPOINT}
	  or die "RETRY_ENDPOINT does not name the receiver's program";
	my $base = PostgreSQL::Test::Utils::tempdir . '/endpoint' . ++$count;
	my $self = bless {
		port => $opt{port} // 0,
		host => $opt{host} // '127.0.0.1',
		called => $opt{called},
		args => $opt{args} // [],
		program => $program,
		port_file => "$base.port",
		log => "$base.log",
		http => HTTP::Tiny->new(timeout => 30, keep_alive => 0)
	}, $class;

	$self->start;
	return $self;
}

# Starts the program again after stop, on the port that it had.
sub start
{
	my ($self) = @_;
	my $deadline = time() + 30;

	unlink $self->{port_file};
	my $pid = fork() // die "cannot fork: $!";
	if ($pid == 0)
	{
		# POSIX::_exit: this copy of the test must not run its END blocks.
		require POSIX;
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', $self->{log});
		open(STDERR, '>&', \*STDOUT);
		{
			no warnings;
			exec $self->{program}, '--port', $self->{port}, '--bind', $self->{host},
			  '--port-file', $self->{port_file}, @{ $self->{args} };
		}
		POSIX::_exit(127);
	}
	$self->{pid} = $pid;
	$running{$pid} = 1;
	while (!-s $self->{port_file})
	{
		if (waitpid($pid, 1) == $pid || time() > $deadline)
		{
			delete $running{$pid};
			die "the receiver did not start: " . slurp_file($self->{log});
		}
		usleep(10_000);
	}
	$self->{port} = slurp_file($self->{port_file}) + 0;
	return $self;
}

# The address of a path at the receiver: url('/flaky/3').
sub url
{
	my ($self, $path) = @_;

	return $self->_address($self->{called} // $self->{host}, $path);
}

sub _address
{
	my ($self, $host, $path) = @_;

	$host = "[$host]" if $host =~ /:/;
	return "http://$host:$self->{port}" . ($path // '');
}

sub port
{
	my ($self) = @_;

	return $self->{port};
}

# What it counted: a hash with total, keyed, distinct, duplicates, ...
sub stats
{
	my ($self) = @_;

	return decode_json($self->control('/_stats'));
}

# The requests it got, oldest first, each a hash with method, path, key,
# attempt, status, body_length, wall_us, mono_us; with a key, only those.
sub ledger
{
	my ($self, $key) = @_;
	my $text = $self->control('/_ledger'
		  . (defined $key ? '?key=' . _encode($key) : ''));

	return map { _request($_) } grep { length } split /\n/, $text;
}

# A line of the ledger.  Nearly all are plain, and there can be many thousands,
# for which JSON::PP takes seconds.
my $PLAIN = qr/"([^"\\\x80-\xff]*)"/;

sub _request
{
	my ($line) = @_;

	return decode_json($line)
	  if $line !~
	  /^\{"mono_us":(\d+),"wall_us":(\d+),"method":$PLAIN,"path":$PLAIN,"key":$PLAIN,"attempt":$PLAIN,"status":(\d+),"body_length":(\d+)\}$/o;
	return {
		mono_us => $1, wall_us => $2, method => $3, path => $4, key => $5, attempt => $6, status => $7, body_length => $8
	};
}

# Forgets what it has seen, and behaves again.
sub reset
{
	my ($self) = @_;

	$self->control('/_reset');
	return;
}

# How to behave, whatever the path: up, down, hang, slow:MS, status:NNN.
sub mode
{
	my ($self, $mode) = @_;

	$self->control('/_mode?global=' . _encode($mode));
	return;
}

sub control
{
	my ($self, $path) = @_;
	my $answer = $self->{http}->get($self->_address($self->{host}, $path));

	die "receiver: $path: $answer->{status} $answer->{content}"
	  if !$answer->{success};
	return $answer->{content};
}

# stop(SIGNAL): ends the program; TERM unless told otherwise.
sub stop
{
	my ($self, $signal) = @_;
	my $pid = delete $self->{pid} or return;

	delete $running{$pid};
	kill $signal // 'TERM', $pid;
	# $? belongs to the test when this runs at its end.
	local ($?, $!);
	waitpid($pid, 0);
	return;
}

sub DESTROY
{
	my ($self) = @_;

	$self->stop('KILL');
	return;
}

END
{
	kill 'KILL', keys %running if %running;
}

sub _encode
{
	my ($text) = @_;

	utf8::encode($text) if utf8::is_utf8($text);
	$text =~ s/([^A-Za-z0-9._~-])/sprintf '%%%02X', ord $1/ge;
	return $text;
}

1;
