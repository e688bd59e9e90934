# A clock that a test moves, for servers that were started with it and for all of
# their processes at once; the test and its psql keep the true time.  Built from
# test/clock/clock.c, which says how it works.
package RetryTest::Clock;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest::Preload;

my $count = 0;

# new(%options): a clock that shows the true time.
#   also => { library => ..., env => {...} }   to be preloaded beside it
sub new
{
	my ($class, %opt) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir . '/clock' . ++$count;
	my $self = bless { file => $file, library => "$file.so", offset => 0,
		also => $opt{also} }, $class;

	build_library('clock/clock.c', $self->{library});
	$self->set(0);
	return $self;
}

# Seconds from the true time.
sub set
{
	my ($self, $offset) = @_;

	# written over in place, since the servers have mapped the file
	open(my $f, -e $self->{file} ? '+<' : '>', $self->{file}) or die $!;
	syswrite($f, pack('q', $offset * 1_000_000)) == 8 or die $!;
	close $f;
	$self->{offset} = $offset;
	return;
}

sub offset
{
	my ($self) = @_;

	return $self->{offset};
}

# What it shows: seconds since 1970.
sub now
{
	my ($self) = @_;

	return time() + $self->{offset};
}

# Starts a server that goes by it.
sub start
{
	my ($self, $node) = @_;
	my $also = $self->{also} // { env => {} };
	local %ENV = (%ENV, RETRY_TEST_CLOCK => $self->{file}, %{ $also->{env} },
		LD_PRELOAD => join ' ', $self->{library}, $also->{library} // ());

	return $node->start(fail_ok => 1);
}

1;
