# A network between the server and a receiver, whose packets are lost, delayed and
# doubled as a test wants; see test/chaos/wire.c.  It needs a network namespace of
# our own, as test/chaos/run makes one.
package RetryTest::Wire;

use strict;
use warnings FATAL => 'all';

use File::Basename;
use IO::Handle;
use IPC::Open2;
use PostgreSQL::Test::Utils;

# The receiver listens on NEAR and is called by the name of FAR.
our $NEAR = '10.99.0.1';
our $FAR = '10.99.0.2';
our $DEVICE = 'wire0';

# missing(): why this machine cannot have one, or undef; then the device is there.
sub missing
{
	return 'no network namespace of our own' if !$ENV{RETRY_CHAOS_NET};
	return system("ip link add $DEVICE type veth peer name wire1 && ip addr add $NEAR/30 dev $DEVICE"
		  . " && ip link set $DEVICE arp off && ip link set $DEVICE up && ip link set wire1 up") == 0
	  ? undef : 'this kernel has no veth';
}

# new(PORT): the wire to the receiver that listens there.
sub new
{
	my ($class, $port) = @_;
	my $program = PostgreSQL::Test::Utils::tempdir . '/wire';
	my $self = bless {}, $class;

	system($ENV{CC} // 'cc', '-O1', '-Wall', '-o', $program, dirname(__FILE__) . '/../../chaos/wire.c') == 0
	  or die 'cannot compile wire.c';
	open2(my $out, $self->{commands}, $program, $DEVICE, 'wire1', $port);
	(<$out> // '') eq "ready\n" or die 'the wire does not begin';
	return $self;
}

# set(%options): of the packets, in percent: requests, answers (lost), doubles;
# in ms: delay, jitter.  What is not named is 0.
sub set
{
	my ($self, %how) = @_;

	$self->{commands}->printflush('set ' . join(' ', map { $how{$_} // 0 } qw(requests answers doubles delay jitter)) . "\n");
	return;
}

1;
