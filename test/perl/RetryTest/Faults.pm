# Everything that can go wrong, by name.  Each fault is a hash:
#   name    what --faults calls it
#   begin   SUB: makes it go wrong
#   end     SUB: puts an end to it; without one, it is over when begin returns
#   repeats 1: what is under way meanwhile may be sent again
#   delays  1: and what got no answer may arrive when it is over
#   lasts   seconds, at most, unless something else happens meanwhile
#   needs   SUB: why this machine cannot do it, or undef
# The modules below know some each; they are told what they work on (RetryTest::Chaos).
package RetryTest::Faults;

use strict;
use warnings FATAL => 'all';

use RetryTest::Faults::Machine;
use RetryTest::Faults::Processes;
use RetryTest::Faults::Receivers;
use RetryTest::Faults::Sessions;

# known(CHAOS): all, by name.
sub known
{
	my ($chaos) = @_;
	my @faults = (
		RetryTest::Faults::Processes::faults($chaos), RetryTest::Faults::Sessions::faults($chaos),
		RetryTest::Faults::Receivers::faults($chaos), RetryTest::Faults::Machine::faults($chaos));

	return map { $_->{name} => $_ } @faults;
}

# happen(CHAOS, FAULT, MEANWHILE): one fault, and another at the same time if it
# lasts and MEANWHILE is given.  Returns the names of what happened.
sub happen
{
	my ($chaos, $fault, $meanwhile) = @_;
	my $work = sub {
		my @names = $fault->{name};

		$fault->{begin}->();
		if ($fault->{end})
		{
			push @names, happen($chaos, $meanwhile) if $meanwhile;
			$chaos->pause($fault->{lasts} // 0.8) if !$meanwhile;
			$fault->{end}->();
		}
		return @names;
	};

	return $fault->{repeats} ? $chaos->during($fault, $work) : $work->();
}

1;
