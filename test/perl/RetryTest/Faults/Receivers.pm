# Receivers in trouble, and the network between them and the server.  A client may
# repeat a request on its own when a kept connection breaks before any answer.
package RetryTest::Faults::Receivers;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;

# What receivers do that is not an answer, or more than one; see test/endpoint/README.md.
my %AS = (
	'resets' => '/reset', 'resets-midway' => '/reset-mid', 'closes' => '/close', 'trickles' => '/drip',
	'never-ends' => '/endless', 'answers-twice' => '/answer-twice', 'answers-early' => '/answer-early',
	'closes-early' => '/early-close-keepalive', 'babbles' => '/malformed/header', 'cuts-off' => '/malformed/length',
	'lies' => '/gzip-lie', 'bad-encoding' => '/encoding', 'oversize' => '/oversize/3000000',
	'redirects' => '/redirect/302', 'asks-to-wait' => '/retry-after/1');

sub faults
{
	my ($chaos) = @_;
	my $receiver = $chaos->receiver;
	my @faults = (
		_mode($chaos, 'receiver-down', sub { 'down' }, 1),
		_mode($chaos, 'receiver-hangs', sub { 'hang' }),
		_mode($chaos, 'receiver-slow', sub { 'slow:' . (50 + int(rand(400))) }),
		_mode($chaos, 'receiver-fails', sub { 'status:' . (500, 503, 429, 404)[ rand 4 ] }),
		{ name => 'receiver-killed', repeats => 1,
			begin => sub { $chaos->campaign->end_receiver },
			end => sub { $chaos->campaign->restart_receiver } });

	push @faults, _mode($chaos, "receiver-$_", sub { "as:$AS{ $_[0] }" }, (/closes|resets|cuts-off|early|twice|babbles/ ? 1 : 0), $_)
	  foreach sort keys %AS;
	return @faults, _network($chaos);
}

sub _mode
{
	my ($chaos, $name, $mode, $repeats, $argument) = @_;

	return {
		name => $name, repeats => $repeats // 0,
		begin => sub { $chaos->receiver->mode($mode->($argument)) },
		end => sub { $chaos->receiver->mode('up') } };
}

# Servers and sessions talk through a socket file, the receiver is at the end of a wire.
sub _network
{
	my ($chaos) = @_;
	my $needs = sub { $chaos->{no_wire} };
	my $fault = sub {
		my ($name, $begin, $end, %more) = @_;

		return { name => "network-$name", repeats => 1, delays => 1, lasts => 3, needs => $needs, begin => $begin, end => $end, %more };
	};
	my $wire = sub {
		my ($name, %how) = @_;

		return $fault->($name, sub { $chaos->{wire}->set(%how) }, sub { $chaos->{wire}->set });
	};
	my @narrow = qw(tbf rate 400kbit burst 66000 limit 70000);

	return (
		# nothing passes, nothing is refused: connections stay half open
		$wire->('partition', requests => 100, answers => 100),
		# what is asked for is done, and nobody hears of it
		$wire->('deaf', answers => 100),
		$wire->('loss', requests => 20, answers => 20),
		$wire->('delay', delay => 100, jitter => 80),
		$wire->('doubles', doubles => 50, delay => 20, jitter => 20),
		$fault->('narrow', sub { _tc('add', @narrow) }, sub { _tc('del') },
			needs => sub { $needs->() // (_has_qdisc(@narrow) ? undef : 'this kernel has no tbf') }),
		$fault->('down', map { my $to = $_; sub { system_or_bail(qw(ip link set), $RetryTest::Wire::DEVICE, $to) } } qw(down up)),
		{ name => 'dns-down', needs => sub { $ENV{RETRY_CHAOS_HOST} ? undef : 'no /etc/hosts of our own' },
			begin => sub { $chaos->name_receiver(0) },
			end => sub { $chaos->name_receiver(1) } });
}

sub _tc
{
	my ($verb, @arguments) = @_;

	return system_or_bail('tc', 'qdisc', $verb, 'dev', $RetryTest::Wire::DEVICE, 'root', @arguments);
}

sub _has_qdisc
{
	my (@arguments) = @_;
	my $there = system("tc qdisc add dev $RetryTest::Wire::DEVICE root @arguments 2>/dev/null") == 0;

	system("tc qdisc del dev $RetryTest::Wire::DEVICE root") if $there;
	return $there;
}

1;
