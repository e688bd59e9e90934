# A receiver whose callers crash: whichever process of a server sends it a
# request dies of SIGSEGV before there is an answer, as if the task were poison,
# from when the receiver is armed (until then requests wait) to when it is cured;
# then it answers 200.  It acts by itself, so what a
# server does about it is the server's own doing.
package RetryTest::Poison;

use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

my $count = 0;
my %running;

# new(): on a free port, ended with the test.
#   signal => 'KILL'   instead of SEGV
sub new
{
	my ($class, %opt) = @_;
	my $base = PostgreSQL::Test::Utils::tempdir . '/poison' . ++$count;
	my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 128, ReuseAddr => 1)
	  or die "cannot listen: $@";
	my $self = bless {
		port => $listen->sockport,
		log => "$base.log",
		armed => "$base.armed",
		cured => "$base.cured",
		signal => $opt{signal} // 'SEGV'
	}, $class;
	my $pid = fork() // die "cannot fork: $!";

	if ($pid == 0)
	{
		eval { $self->_serve($listen) };
		POSIX::_exit(0);
	}
	$running{$pid} = 1;
	return $self;
}

sub url
{
	my ($self, $path) = @_;

	return "http://127.0.0.1:$self->{port}" . ($path // '/');
}

# How many processes have died of it.
sub deaths
{
	my ($self) = @_;

	return 0 if !-e $self->{log};
	return scalar grep { /died/ } split /\n/, slurp_file($self->{log});
}

# Whoever has enqueued has got the answer, and its session may end now.
sub arm
{
	my ($self) = @_;

	append_to_file($self->{armed}, "yes\n");
	return;
}

# From now on it answers.
sub cure
{
	my ($self) = @_;

	append_to_file($self->{cured}, "yes\n");
	return;
}

# The process at the other end of a connection.
sub _caller
{
	my ($socket) = @_;
	my $ends = sprintf ' 0100007F:%04X 0100007F:%04X ', $socket->peerport, $socket->sockport;
	my ($inode) = map { (split)[9] } grep { /$ends/ } split /\n/, slurp_file('/proc/net/tcp');

	return if !$inode;
	foreach my $fd (glob '/proc/[0-9]*/fd/*')
	{
		my $to = readlink($fd);
		return $1 if defined $to && $to eq "socket:[$inode]" && $fd =~ m{/proc/(\d+)/};
	}
	return;
}

sub _serve
{
	my ($self, $listen) = @_;

	$SIG{PIPE} = 'IGNORE';
	while (my $socket = $listen->accept)
	{
		my $request = '';

		sysread($socket, $request, 65536, length $request) or last while $request !~ /\r\n\r\n/;
		usleep(10_000) while !-e $self->{armed} && !-e $self->{cured};
		if (!-e $self->{cured})
		{
			my $pid = _caller($socket);
			append_to_file($self->{log}, "$pid died\n") if $pid && kill($self->{signal}, $pid);
		}
		else
		{
			syswrite($socket, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
		}
		close $socket;
	}
	return;
}

END
{
	my $status = $?;
	foreach my $pid (keys %running)
	{
		kill 'KILL', $pid;
		waitpid $pid, 0;
	}
	$? = $status;
}

1;
