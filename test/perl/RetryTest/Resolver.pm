# Names that lead where a test wants, for servers that were started with it: what
# an attacker who owns a name server can do.  Built from test/resolver/resolver.c,
# which says how the answers are written.
package RetryTest::Resolver;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest::Preload;

my $count = 0;

# new(NAME => ANSWERS, ...): the names that there are at first.
sub new
{
	my ($class, %answers) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir . '/names' . ++$count;
	my $self = bless { file => $file, library => "$file.so", answers => {} }, $class;

	build_library('resolver/resolver.c', $self->{library});
	$self->set(%answers);
	return $self;
}

# Adds names, or changes their answers, from the next look-up on.
sub set
{
	my ($self, %answers) = @_;

	$self->{answers} = { %{ $self->{answers} }, %answers };
	open(my $f, '>', "$self->{file}.new") or die $!;
	print $f "$_ $self->{answers}{$_}\n" foreach sort keys %{ $self->{answers} };
	close $f or die $!;
	rename "$self->{file}.new", $self->{file} or die $!;
	return;
}

# start(NODE, %environment): starts a server that goes by it.
sub start
{
	my ($self, $node, %environment) = @_;
	local %ENV = (%ENV, %environment, RETRY_TEST_NAMES => $self->{file}, LD_PRELOAD => $self->{library});

	$node->start;
	return;
}

1;
