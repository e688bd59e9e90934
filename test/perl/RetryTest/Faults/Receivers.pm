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

# The namespace's only link is lo; servers and sessions talk through a socket file.
sub _network
{
	my ($chaos) = @_;
	my $needs = sub { $ENV{RETRY_CHAOS_NET} ? undef : 'no network namespace of our own' };
	my $qdisc = sub {
		my ($name, $needs_too, @arguments) = @_;

		return {
			name => $name, repeats => 1, delays => 1, lasts => 3, needs => sub { $needs->() // $needs_too->() },
			begin => sub { _tc('add', @arguments) },
			end => sub { _tc('del') } };
	};
	my @loss = qw(INPUT -i lo -m statistic --mode random --probability 0.2 -j DROP);
	my $iptables = sub { system("iptables -A @loss 2>/dev/null && iptables -D @loss") == 0 ? undef : 'no iptables with random matches' };
	my $netem = sub { _has_qdisc(qw(netem delay 1ms)) ? undef : 'this kernel has no netem' };
	my $tbf = sub { _has_qdisc(qw(tbf rate 1mbit burst 64kb limit 64kb)) ? undef : 'this kernel has no tbf' };

	return (
		# nothing passes, nothing is refused: connections stay half open
		$qdisc->('network-partition', $tbf, qw(tbf rate 8kbit burst 10 limit 10)),
		$qdisc->('network-narrow', $tbf, qw(tbf rate 400kbit burst 66000 limit 70000)),
		{ name => 'network-loss', repeats => 1, delays => 1, lasts => 3, needs => sub { $needs->() // $iptables->() },
			begin => sub { system_or_bail('iptables', '-A', @loss) },
			end => sub { system_or_bail('iptables', '-D', @loss) } },
		$qdisc->('network-delay', $netem, qw(netem delay 100ms 80ms)),
		{ name => 'network-down', repeats => 1, delays => 1, lasts => 3, needs => $needs,
			begin => sub { system_or_bail(qw(ip link set lo down)) },
			end => sub { system_or_bail(qw(ip link set lo up)) } },
		{ name => 'dns-down', needs => sub { $ENV{RETRY_CHAOS_HOST} ? undef : 'no /etc/hosts of our own' },
			begin => sub { _hosts('localhost') },
			end => sub { _hosts("localhost $ENV{RETRY_CHAOS_HOST}") } });
}

sub _tc
{
	my ($verb, @arguments) = @_;

	return system_or_bail('tc', 'qdisc', $verb, 'dev', 'lo', 'root', @arguments);
}

sub _has_qdisc
{
	my (@arguments) = @_;
	my $there = system("tc qdisc add dev lo root @arguments 2>/dev/null") == 0;

	system('tc qdisc del dev lo root') if $there;
	return $there;
}

sub _hosts
{
	my ($names) = @_;

	open(my $out, '>', '/etc/hosts') or die "/etc/hosts: $!";
	print $out "127.0.0.1 $names\n";
	close $out;
	return;
}

1;
