# A receiver that means harm: what the one of test/endpoint, which keeps to HTTP's
# rules where it is not told otherwise, does not do.  It answers by path, each
# connection in a process of its own, and keeps every byte that it was sent.
#
#   /raw             what it was sent, byte by byte
#   /huge-header     a header of two megabytes
#   /many-headers    headers without end
#   /drip            a header of which a byte comes every 20 ms, without end
#   /bomb            gzip of 64 MB of zeros
#   /cookie          a cookie, for this host and all others
#   /header/NAME/VALUE   any header; the value is decoded
#   /lengths         two different lengths
#   /interim         interim answers without end
#   /upgrade         101 and another protocol
#   /old             no status and no headers, as in HTTP/0.9
package RetryTest::Rogue;

use strict;
use warnings FATAL => 'all';

use Compress::Zlib;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

my $count = 0;
my %running;

sub new
{
	my ($class, $host) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => $host, LocalPort => 0, Listen => 64, ReuseAddr => 1)
	  or die "cannot listen on $host: $!";
	my $self = bless { host => $host, port => $listener->sockport,
		file => PostgreSQL::Test::Utils::tempdir . '/rogue' . ++$count }, $class;

	$self->{pid} = fork() // die "cannot fork: $!";
	if ($self->{pid} == 0)
	{
		$self->_serve($listener);
		require POSIX;
		POSIX::_exit(0);
	}
	$running{ $self->{pid} } = 1;
	return $self;
}

sub url
{
	my ($self, $path) = @_;

	return "http://$self->{host}:$self->{port}$path";
}

# All that it was sent so far, of all connections.
sub received
{
	my ($self) = @_;

	return -e $self->{file} ? slurp_file($self->{file}) : '';
}

END
{
	local ($?, $!);
	kill 'KILL', -$_, $_ foreach keys %running;
	waitpid $_, 0 foreach keys %running;
}

sub _serve
{
	my ($self, $listener) = @_;

	# the test's own handlers die, and END blocks are the test's
	setpgrp(0, 0);
	$SIG{$_} = 'DEFAULT' foreach qw(TERM INT);
	$SIG{CHLD} = 'IGNORE';
	$SIG{PIPE} = 'DEFAULT';
	while (1)
	{
		my $socket = $listener->accept or next;

		next if fork();
		eval { $self->_answer($socket) };
		require POSIX;
		POSIX::_exit(0);
	}
}

# One request, whole, as far as its own lines say.
sub _read
{
	my ($socket) = @_;
	my $all = '';

	while ($all !~ /\r\n\r\n/ || length($') < ($all =~ /^content-length: *(\d+)/mi ? $1 : 0))
	{
		sysread($socket, $all, 65536, length $all) or last;
		# what came besides is part of it too
		if ($all =~ /\r\n\r\n/)
		{
			my $ready = '';

			vec($ready, fileno($socket), 1) = 1;
			sysread($socket, $all, 65536, length $all) if select($ready, undef, undef, 0.02);
		}
	}
	return $all;
}

# Keeps what has come.
sub _note
{
	my ($self, $bytes) = @_;

	open(my $f, '>>', $self->{file}) or die;
	syswrite($f, $bytes);
	close $f;
	return;
}

sub _answer
{
	my ($self, $socket) = @_;
	my $request = _read($socket);
	my ($path) = $request =~ m{^\S+ (\S+)};
	my $ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n";

	$self->_note($request);
	if ($path eq '/huge-header') { print $socket $ok, 'X-Huge: ', 'a' x (2 << 20), "\r\n\r\n" }
	elsif ($path eq '/many-headers') { print $socket $ok; print $socket "X-Many: more of it\r\n" while 1 }
	elsif ($path eq '/drip')
	{
		$socket->autoflush(1);
		print $socket $ok, 'X-Drip: ';
		while (1) { print $socket 'a'; usleep(20_000) }
	}
	elsif ($path eq '/bomb')
	{
		my $bomb = Compress::Zlib::memGzip("\0" x (64 << 20));

		print $socket $ok, "Content-Encoding: gzip\r\nContent-Length: ", length $bomb, "\r\n\r\n", $bomb;
	}
	elsif ($path eq '/cookie') { print $socket $ok, "Set-Cookie: crumb=1; Path=/\r\nContent-Length: 0\r\n\r\n" }
	elsif ($path =~ m{^/header/([^/]+)/(.*)})
	{
		my ($name, $value) = ($1, $2);

		$value =~ s/%([0-9A-F]{2})/chr hex $1/ge;
		print $socket $ok, "$name: $value\r\nContent-Length: 0\r\n\r\n";
	}
	elsif ($path eq '/lengths') { print $socket $ok, "Content-Length: 5\r\nContent-Length: 50\r\n\r\n", 'x' x 50 }
	elsif ($path eq '/interim') { print $socket "HTTP/1.1 100 Continue\r\n\r\n" while 1 }
	elsif ($path eq '/upgrade') { print $socket "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" }
	elsif ($path eq '/old') { print $socket "SSH-2.0-other\r\n" }
	else { print $socket $ok, 'Content-Length: ', length $request, "\r\n\r\n", $request }
	close $socket;
	return;
}

1;
