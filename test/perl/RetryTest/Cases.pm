# The cases of the attacks (t/071 to t/075), and what each of them has for a
# defence: test/attack/cases names the sets of test/attack/without that make it
# fail, or says why none does.  A line is
#
#   PROGRAM <tab> CASE <tab> SET...          or    - REASON
#
# and in CASE what differs from run to run is a word (see case_name).  An attack
# in 072 that is followed by "... and works without its defence" shows that
# itself, and has no line.
package RetryTest::Cases;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Basename;
use Test::Builder;

our @EXPORT_OK = qw(every_case_has_its_set cases_of read_cases write_cases);

my $file = dirname(__FILE__) . '/../../attack/cases';
my $shows_itself = qr/and works without its defence/;
my $own_case = 'test/attack/cases has each case';

# The name of a case without ports, ids and what is not ASCII, which logs spoil.
sub case_name
{
	my ($name) = @_;

	$name =~ s/(?<=:)\d{4,5}\b/PORT/g;
	$name =~ s/[^\x20-\x7e]+/?/g;
	return $name =~ s/^\s+|\s+$//gr;
}

# [PROGRAM, CASE, [SET...], REASON or undef] of each line, in order.
sub read_cases
{
	my @cases;

	open(my $in, '<', $file) or die "$file: $!";
	while (my $line = <$in>)
	{
		chomp $line;
		next if $line =~ /^#|^$/;
		my ($program, $case, $what) = split /\t/, $line, 3;
		die "$file, line $.: not PROGRAM, CASE, SET\n" unless defined $what && $what ne '';
		push @cases, [ $program, $case, $what =~ /^- (.+)/ ? ([], $1) : ([ split / /, $what ]) ];
	}
	close $in;
	return @cases;
}

sub write_cases
{
	my @cases = @_;

	open(my $out, '>', "$file.new") or die "$file.new: $!";
	print $out "# What defends each attack: written by test/attack/without --write, see RetryTest::Cases.\n";
	print $out join("\t", @$_[0, 1], defined $_->[3] ? "- $_->[3]" : join(' ', sort @{ $_->[2] }) || '?') . "\n" foreach @cases;
	close $out or die "$file.new: $!";
	rename("$file.new", $file) or die "$file: $!";
	return;
}

# The cases of a program by the names that it has reported, in order: two lists,
# of all, and of those that need a line.
sub cases_of
{
	my @names = map { case_name($_) } @_;
	my @attacks = grep { $names[$_] !~ $shows_itself && $names[$_] ne $own_case } 0 .. $#names;

	return ([ @names[@attacks] ], [ map { $names[$_] } grep { ($names[ $_ + 1 ] // '') !~ $shows_itself } @attacks ]);
}

# A test, to be the last but the end: each case so far has a set or a reason, and
# each line of the program's is about a case.
sub every_case_has_its_set
{
	my $program = basename($0, '.pl');
	my $builder = Test::Builder->new;
	my ($all, $needy) = cases_of(map { $_->{name} } $builder->details);
	my %have = map { $_ => 1 } @$all;
	my %said = map { $_->[1] => 1 } grep { $_->[0] eq $program } read_cases();
	my %bare = map { $_ => 1 } grep { !$said{$_} } @$needy;
	my @gone = grep { !$have{$_} } sort keys %said;

	$builder->ok(!%bare && !@gone, $own_case)
	  or $builder->diag((map { "needs a set, or a reason to have none: $_\n" } sort keys %bare), (map { "no such case: $_\n" } @gone));
	return;
}

1;
