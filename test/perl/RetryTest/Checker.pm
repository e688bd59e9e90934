# Compares three ledgers and says what contradicts the promises.  Pure: it is
# given facts and returns violations, so that each kind of violation can be
# planted and seen (test/t/071_checker.pl).  Campaign.pm gathers the facts.
#
# A hash of facts:
#   promises   what the sessions wrote down, key => 1 in each of
#                C committed for sure       A the same, asynchronously
#                T tried                    R rolled back for sure
#   expect     key => how it has to end, where that is not `succeeded`: dead or
#              cancelled; `effect`: a function was called, and has left one row;
#              `mail`: one was sent
#   arrivals   requests, oldest first: key, attempt, status (0: none answered),
#              wall (true time, microseconds since 1970)
#   stored     of retry.task: key, cancelled (somebody asked for it)
#   attempts   of retry.attempt, by key and number: key, attempt, status (0: no
#              answer), outcome, error (is there a text?), terminal, finished
#              (microseconds of the server's clock)
#   views      of retry.tasks: key, state, attempts
#   letters    of retry.dead_letters: key
#   effects    rows that functions have left: key
#   mails      that a mail server has answered for: key, wall
#   fate       of messages, key => commit or rollback: what their sender has done
#   messages   of retry.prepare(): key, decision (none: undecided), how, state (as shown)
#   notes      notifications that a session got: key, state
#   lanes      of ordered ones, name => tasks in the order of their commits: key, due
#              (microseconds of the server's clock)
#   faults     [from, to, name, delays]: what was under way in that time may be sent
#              again; delays: what it got no answer to may arrive when it is over
#   failovers  [from, to]: what was recorded in that time may be sent again too
#   clock      [from, offset]: from that true time on the server's clock was so
#              far ahead; microseconds
package RetryTest::Checker;

use strict;
use warnings FATAL => 'all';

# What it means that there is no violation of a kind.
our %SAYS = (
	lost => 'nothing that committed is lost, and all of it ends as it should',
	phantom => 'nothing that did not commit was sent or is stored',
	gap => 'attempts are numbered without gaps, as they were sent and answered',
	early => 'no attempt was sent before the one before it was recorded',
	double => 'only what a fault caught under way was sent again',
	order => 'in ordered lanes nothing was sent before what precedes it had ended',
	state => 'what the views show agrees with the facts');

# A request may have been on its way for this long after a fault was over.
my $SLACK_US = 200_000;

# What was sent by a process that ended may be on its way for this long.
my $ON_ITS_WAY_US = 1_000_000;

# Until TCP tries again once a network passes packets again: its pauses double.
my $RETRANSMIT_US = 10_000_000;

# check(FACTS): violations, a hash of lists of texts by kind; a line of counts that
# says how much was looked at; and how many requests were repeated, by fault.
sub check
{
	my ($facts) = @_;
	my $self = bless { %$facts, of => {}, repeated => {}, found => { map { $_ => [] } keys %SAYS } },
	  __PACKAGE__;

	foreach my $what (qw(arrivals stored attempts views letters effects mails messages notes))
	{
		$self->{$what} //= [];
		$self->{of}{$what} = {};
		push @{ $self->{of}{$what}{ $_->{key} } }, $_ foreach @{ $self->{$what} };
	}
	$self->{$_} //= [] foreach qw(faults failovers clock);
	$self->_committed($_) foreach sort keys %{ $self->{promises}{C} };
	foreach my $key (sort keys %{ $self->{of}{stored} })
	{
		$self->_is_promised($key);
		$self->_has_ended($key);
		$self->_is_shown($key);
	}
	$self->_is_known($_) foreach sort keys %{ $self->{of}{arrivals} };
	foreach my $key (sort keys %{ $self->{of}{attempts} })
	{
		$self->_numbers($key);
		$self->_answers($key);
	}
	$self->_times($_) foreach sort keys %{ $self->{of}{arrivals} };
	$self->_mailed($_) foreach sort keys %{ $self->{of}{mails} };
	$self->_decided($_) foreach @{ $self->{messages} };
	$self->_notified($_) foreach sort keys %{ $self->{of}{notes} };
	$self->_in_order($_) foreach sort keys %{ $self->{lanes} // {} };
	return ($self->{found}, $self->_size, $self->{repeated});
}

# The rows of a ledger for a key.
sub _rows
{
	my ($self, $what, $key) = @_;

	return @{ $self->{of}{$what}{$key} // [] };
}

sub _violation
{
	my ($self, $kind, $text) = @_;

	push @{ $self->{found}{$kind} }, $text;
	return;
}

sub _expected
{
	my ($self, $key) = @_;

	return $self->{expect}{$key} // 'succeeded';
}

# What a session saw commit is stored, and was sent where it had to be.
sub _committed
{
	my ($self, $key) = @_;
	my $expected = $self->_expected($key);
	my $effects = $self->_rows('effects', $key);

	$self->_violation(lost => "$key committed and is not stored")
	  if !$self->_rows('stored', $key);
	$self->_violation(lost => "$key committed and never arrived")
	  if $expected eq 'succeeded' && !$self->_rows('arrivals', $key);
	$self->_violation(lost => "$key committed and its function has left nothing")
	  if $expected eq 'effect' && $effects == 0;
	$self->_violation(lost => "$key committed and its mail never arrived")
	  if $expected eq 'mail' && !$self->_rows('mails', $key);
	return;
}

sub _is_promised
{
	my ($self, $key) = @_;

	$self->_violation(phantom => "$key was rolled back and is stored")
	  if $self->{promises}{R}{$key};
	$self->_violation(phantom => "$key is stored and nobody enqueued it")
	  if !$self->{promises}{T}{$key};
	$self->_violation(double => "$key is stored more than once")
	  if $self->_rows('stored', $key) > 1;
	return;
}

# What was sent is stored, and was to be sent.
sub _is_known
{
	my ($self, $key) = @_;

	$self->_violation(phantom => "$key arrived and was rolled back")
	  if $self->{promises}{R}{$key};
	$self->_violation(phantom => "$key arrived and is not stored")
	  if !$self->_rows('stored', $key);
	$self->_violation(phantom => "$key arrived and was cancelled before it was due")
	  if $self->_expected($key) eq 'cancelled';
	return;
}

# The state by the facts: the views' own rules, written a second time.
sub _state
{
	my ($self, $key) = @_;
	my ($task) = $self->_rows('stored', $key);
	my $last = ($self->_rows('attempts', $key))[-1];

	return $last->{outcome} eq 'succeeded' ? 'succeeded' : 'dead' if $last && $last->{terminal};
	return 'cancelled' if $task->{cancelled};
	return $last ? 'retrying' : 'pending';
}

sub _has_ended
{
	my ($self, $key) = @_;
	my $expected = $self->_expected($key);
	my $state = $self->_state($key);
	my $effects = $self->_rows('effects', $key);
	my $last = ($self->_rows('attempts', $key))[-1];

	$self->_violation(lost => "$key is $state, not $expected" . ($last ? ", at last $last->{outcome}" : ''))
	  if $state ne ($expected =~ /^(effect|mail)$/ ? 'succeeded' : $expected);
	$self->_violation(lost => "$key has succeeded and its function has left nothing")
	  if $expected eq 'effect' && $state eq 'succeeded' && $effects == 0;
	$self->_violation(double => "$key has left $effects rows")
	  if $effects > 1;
	return;
}

sub _is_shown
{
	my ($self, $key) = @_;
	my $state = $self->_state($key);
	my @views = $self->_rows('views', $key);
	my $attempts = $self->_rows('attempts', $key);
	my $letters = $self->_rows('letters', $key);

	if (@views != 1)
	{
		$self->_violation(state => "$key is shown " . @views . ' times');
		return;
	}
	$self->_violation(state => "$key is $state by the facts and shown as $views[0]{state}")
	  if $views[0]{state} ne $state;
	$self->_violation(state => "$key has $attempts attempts and is shown with $views[0]{attempts}")
	  if $views[0]{attempts} != $attempts;
	$self->_violation(state => "$key is $state and has $letters dead letters")
	  if $letters != ($state eq 'dead' ? 1 : 0);
	return;
}

# 1 to n, each once, and none after the end.
sub _numbers
{
	my ($self, $key) = @_;
	my @attempts = $self->_rows('attempts', $key);
	my $numbers = join ',', map { $_->{attempt} } @attempts;

	$self->_violation(gap => "$key has attempts $numbers")
	  if $numbers ne join ',', 1 .. @attempts;
	$self->_violation(gap => "$key has another attempt after its end")
	  if grep { $_->{terminal} } @attempts[ 0 .. $#attempts - 1 ];
	$self->_violation(gap => "$key has attempts and is not stored")
	  if !$self->_rows('stored', $key);
	return;
}

# Recorded is what was sent, with the status that was answered.
sub _answers
{
	my ($self, $key) = @_;
	my (%answered, %other);

	return if $self->_expected($key) =~ /^(effect|mail)$/;
	foreach my $arrival ($self->_rows('arrivals', $key))
	{
		my $n = $arrival->{attempt};

		# of two, the last is recorded, unless a network turned them round
		push @{ $other{$n} }, $answered{$n} if defined $answered{$n} && $self->_was_held(undef, $arrival->{wall});
		$answered{$n} = $arrival->{status};
	}
	foreach my $attempt ($self->_rows('attempts', $key))
	{
		my $n = $attempt->{attempt};
		my $status = delete $answered{$n};

		# an attempt that ended without an answer may have gone astray
		$self->_violation(gap => "$key attempt $n is recorded and never arrived")
		  if !defined $status && $attempt->{status} != 0;
		$self->_violation(gap => "$key attempt $n was answered $status, $attempt->{status} is recorded")
		  if defined $status && $attempt->{status} != 0 && !grep { $_ == $attempt->{status} } $status, @{ $other{$n} // [] };
		# an answer that broke off is none
		$self->_violation(gap => "$key attempt $n has status $attempt->{status} and is recorded as $attempt->{outcome}")
		  if !$attempt->{error}
		  && ($attempt->{outcome} eq 'succeeded') != ($attempt->{status} >= 200 && $attempt->{status} < 300);
	}
	$self->_violation(gap => "$key attempts " . join(',', sort keys %answered) . ' arrived and are not recorded')
	  if %answered;
	return;
}

# A number arrives again only across a fault, while it was not recorded; and
# the next number only after it was.
sub _times
{
	my ($self, $key) = @_;
	my @attempts = $self->_rows('attempts', $key);
	my %finished = map { $_->{attempt} => $_->{finished} } @attempts;
	my %unanswered = map { $_->{attempt} => $_->{status} == 0 } @attempts;
	my (%held, %arrived, $previous);

	foreach my $arrival ($self->_rows('arrivals', $key))
	{
		my $n = $arrival->{attempt};
		my $fault = $previous && $n == $previous->{attempt} ? _between($self->{faults}, $previous, $arrival) : undef;

		# a network kept it until nobody waited for the answer any more
		next if $unanswered{$n} && $self->_was_delayed($finished{$n}, $arrival->{wall});
		# or it was on its way when it was given up: large, or the machine slow
		next if $unanswered{$n} && !$arrived{$n}++ && grep { $arrival->{wall} > $_ && $arrival->{wall} < $_ + $RETRANSMIT_US } $self->_true_times($finished{$n});
		# or until who had sent it was gone, and another had taken over: once, each
		if (($previous && $n <= $previous->{attempt} || $self->_before($finished{$n}, $arrival->{wall}))
			&& grep({ $self->_was_held($finished{$n}, $_->{wall}) } $arrival, $previous && $n == $previous->{attempt} ? $previous : ())
			&& !$held{$n}++)
		{
			$self->{repeated}{ $fault ? $fault->[2] // '' : 'late' }++;
			next;
		}
		if ($previous && $n <= $previous->{attempt})
		{
			$self->{repeated}{ $fault ? $fault->[2] // '' : 'none' }++;
			$self->_violation(double => "$key attempt $n arrived without a fault after attempt $previous->{attempt}" . _at($previous, $arrival))
			  if !$fault;
		}
		$self->_violation(double => "$key attempt $n arrived after it was recorded")
		  if $self->_before($finished{$n}, $arrival->{wall}) && !$self->_may_be_lost($finished{$n});
		$self->_violation(early => "$key attempt $n arrived before attempt " . ($n - 1) . ' was recorded')
		  if $n > 1 && defined $finished{ $n - 1 } && !$self->_before($finished{ $n - 1 }, $arrival->{wall}, 1);
		$previous = $arrival;
	}
	return;
}

# A mail has no number; one that arrives again was under way at a fault, or its
# server's answer was lost in one.
sub _mailed
{
	my ($self, $key) = @_;
	my $previous;

	$self->_violation(phantom => "$key was mailed and was rolled back")
	  if $self->{promises}{R}{$key};
	$self->_violation(phantom => "$key was mailed and is not stored")
	  if !$self->_rows('stored', $key);
	foreach my $mail ($self->_rows('mails', $key))
	{
		my $fault = $previous && _between($self->{faults}, $previous, $mail);

		$self->_violation(double => "$key was mailed again without a fault" . _at($previous, $mail))
		  if $previous && !$fault;
		$self->{repeated}{ $fault->[2] // '' }++ if $fault;
		$previous = $mail;
	}
	return;
}

# A message is delivered if its sender has done its work, and only then; the
# requests themselves are judged as those of any task.
sub _decided
{
	my ($self, $message) = @_;
	my $key = $message->{key};
	my $decision = $message->{decision};
	my $fate = $self->{fate}{$key} // 'unknown';
	my $shown = { commit => 'committed', rollback => 'rolled back' }->{$decision} // 'undecided';

	$self->_violation(lost => "message $key is undecided")
	  if $decision eq 'none';
	$self->_violation(lost => "message $key is rolled back and its sender says commit")
	  if $decision eq 'rollback' && $fate eq 'commit';
	$self->_violation(phantom => "message $key is committed and its sender says $fate")
	  if $decision eq 'commit' && $fate ne 'commit';
	$self->_violation(phantom => "message $key is prepared and nobody did")
	  if $fate eq 'unknown';
	$self->_violation(state => "message $key was decided at a limit that was not reached")
	  if $message->{how} eq 'limit';
	$self->_violation(state => "message $key is $shown by the facts and shown as $message->{state}")
	  if $message->{state} ne $shown;
	$self->_violation(state => "message $key is $shown and is " . ($self->_rows('stored', $key) ? 'a task' : 'none'))
	  if ($decision eq 'commit') != ($self->_rows('stored', $key) > 0);
	$self->_violation(double => "message $key is stored more than once")
	  if $self->_rows('messages', $key) > 1;
	return;
}

# Notifications may be missed; those that come tell the truth, once.
sub _notified
{
	my ($self, $key) = @_;
	my @notes = $self->_rows('notes', $key);

	if (!$self->_rows('stored', $key))
	{
		$self->_violation(phantom => "$key was notified of and is not stored");
		return;
	}
	$self->_violation(double => "$key was notified of " . @notes . ' times')
	  if @notes > 1;
	$self->_violation(state => "$key is " . $self->_state($key) . " and was notified of as $notes[0]{state}")
	  if $notes[0]{state} ne $self->_state($key);
	return;
}

# When requests arrived, to be compared with what happened.
sub _at
{
	return ' at ' . join ' and ', map {
		my ($s, $m, $h) = gmtime($_->{wall} / 1e6);

		sprintf '%02d:%02d:%06.3f', $h, $m, $s + $_->{wall} % 1e6 / 1e6;
	} @_;
}

# The last fault between two requests.
sub _between
{
	my ($faults, $a, $b) = @_;

	return (grep { $b->{wall} >= $_->[0] && $a->{wall} <= $_->[1] + $SLACK_US } @$faults)[-1];
}

# Each task of a lane ends before the next one begins: its last attempt had arrived.
# By a clock that went back meanwhile, a later one may have come first.
sub _in_order
{
	my ($self, $lane) = @_;
	my ($before, $ended);

	foreach my $task (grep { defined $_->{due} } @{ $self->{lanes}{$lane} })
	{
		my $key = $task->{key};
		my ($last) = map { $_->{attempt} } grep { $_->{terminal} } $self->_rows('attempts', $key);
		my @arrivals = $self->_rows('arrivals', $key);
		my ($end) = grep { $_->{attempt} == ($last // 0) } @arrivals;

		$self->_violation(order => "$key arrived before $before->{key} of the same lane had ended" . _at($arrivals[0], $ended))
		  if @arrivals && $ended && $before->{due} < $task->{due} && $arrivals[0]{wall} < $ended->{wall};
		($before, $ended) = ($task, $end);
	}
	return;
}

# Did a network keep a request that was given up then, and arrived then?
sub _was_delayed
{
	my ($self, $finished, $wall) = @_;

	foreach my $fault (grep { $_->[3] } @{ $self->{faults} })
	{
		return 1
		  if $wall >= $fault->[0] && $wall <= $fault->[1] + $RETRANSMIT_US
		  && grep { $_ >= $fault->[0] && $_ <= $wall } $self->_true_times($finished);
	}
	return 0;
}

# May this be a request of somebody who had ended by then, either just before, or while
# a network kept it?  It was sent again, so it was recorded after that end.
sub _was_held
{
	my ($self, $finished, $wall) = @_;

	my @networks = grep { $_->[3] && $wall >= $_->[0] && $wall <= $_->[1] + $RETRANSMIT_US } @{ $self->{faults} };
	my @ends = grep { !$_->[3] && $_->[0] < $wall } @{ $self->{faults} };

	foreach my $end (@ends)
	{
		next if $wall > $end->[1] + $ON_ITS_WAY_US && !grep { $end->[1] >= $_->[0] } @networks;
		return 1 if !defined $finished || grep { $_ >= $end->[0] } $self->_true_times($finished);
	}
	return 0;
}

# Was it recorded while a failover could lose it?  Then it was recorded again.
sub _may_be_lost
{
	my ($self, $finished) = @_;

	return scalar grep { my $t = $_; grep { $t >= $_->[0] && $t <= $_->[1] } @{ $self->{failovers} } }
	  $self->_true_times($finished);
}

# True times at which the server's clock showed this: several when it was set.
sub _true_times
{
	my ($self, $shown) = @_;
	my @steps = ([ 0, 0 ], @{ $self->{clock} });
	my @times;

	foreach my $i (0 .. $#steps)
	{
		my $time = $shown - $steps[$i][1];

		push @times, $time
		  if $time >= $steps[$i][0] - $SLACK_US && ($i == $#steps || $time <= $steps[ $i + 1 ][0] + $SLACK_US);
	}
	return @times;
}

# Did the server's clock show SHOWN before the true time WALL?  In doubt, no;
# with MAYBE, yes.
sub _before
{
	my ($self, $shown, $wall, $maybe) = @_;
	my @times = defined $shown ? $self->_true_times($shown) : ();
	my $before = grep { $_ < $wall || $maybe && $_ == $wall } @times;

	return $maybe ? $before > 0 || @times == 0 : @times > 0 && $before == @times;
}

sub _sum
{
	my $sum = 0;

	$sum += $_ foreach @_;
	return $sum;
}

sub _size
{
	my ($self) = @_;

	my %of = (map({ $_ => scalar @{ $self->{$_} } } qw(stored arrivals attempts effects messages mails notes)),
		map({ $_ => scalar keys %{ $self->{promises}{$_} } } qw(C R)), ordered => _sum(map { scalar @$_ } values %{ $self->{lanes} // {} }),
		repeated => _sum(values %{ $self->{repeated} }));
	my @names = ([ stored => 'tasks' ], [ arrivals => 'requests' ], [ attempts => 'attempts' ], [ C => 'committed' ], [ R => 'rolled back' ],
		[ effects => 'effects' ], [ messages => 'messages' ], [ mails => 'mails' ], [ notes => 'notifications' ], [ ordered => 'in order' ],
		[ repeated => 'requests repeated' ]);

	return join ', ', map { "$of{ $_->[0] } $_->[1]" } @names;
}

1;
