# The checker of the fault campaigns notices what it is there for: small ledgers
# that agree, in which one thing at a time is made false.
use strict;
use warnings FATAL => 'all';

use RetryTest::Bank;
use RetryTest::Checker;
use Storable qw(dclone);
use Test::More;

my $MINUTE = 60_000_000;

# Times are in microseconds from 0; what is recorded lies between requests.
sub arrival { return { key => $_[0], attempt => $_[1], status => $_[2], wall => $_[3] }; }

sub attempt
{
	my ($key, $n, $status, $finished, %more) = @_;
	my $ok = $status >= 200 && $status < 300;

	return {
		key => $key, attempt => $n, status => $status, finished => $finished,
		outcome => $ok ? 'succeeded' : 'failed', error => !$ok, terminal => $ok, %more };
}

# What agrees: succeeded at once, at the second attempt, and sent twice across a
# crash; dead; cancelled; a function's effect; tried and undone; rolled back; a mail; a
# message that was committed, and one that was not.
sub world
{
	return {
		promises => {
			C => { map { $_ => 1 } qw(plain second crash dead cancelled effect mail told) },
			A => { async => 1 },
			T => { map { $_ => 1 } qw(plain second crash dead cancelled effect async unsure mail told untold) },
			R => { undone => 1, untold => 1 } },
		expect => { dead => 'dead', cancelled => 'cancelled', effect => 'effect', mail => 'mail' },
		arrivals => [
			arrival('plain', 1, 200, 1 * $MINUTE), arrival('second', 1, 500, 1 * $MINUTE),
			arrival('second', 2, 200, 3 * $MINUTE), arrival('crash', 1, 200, 4 * $MINUTE),
			arrival('crash', 1, 200, 6 * $MINUTE), arrival('dead', 1, 400, 1 * $MINUTE),
			arrival('async', 1, 200, 1 * $MINUTE), arrival('told', 1, 200, 1 * $MINUTE) ],
		stored => [ map { { key => $_, cancelled => $_ eq 'cancelled' } } qw(plain second crash dead cancelled effect async mail told) ],
		attempts => [
			attempt('plain', 1, 200, 2 * $MINUTE), attempt('second', 1, 500, 2 * $MINUTE),
			attempt('second', 2, 200, 4 * $MINUTE), attempt('crash', 1, 200, 7 * $MINUTE),
			attempt('dead', 1, 400, 2 * $MINUTE, outcome => 'stopped', terminal => 1),
			attempt('effect', 1, 0, 2 * $MINUTE, outcome => 'succeeded', terminal => 1, error => 0),
			attempt('mail', 1, 0, 2 * $MINUTE, outcome => 'succeeded', terminal => 1, error => 0),
			attempt('async', 1, 200, 2 * $MINUTE), attempt('told', 1, 200, 2 * $MINUTE) ],
		views => [
			(map { { key => $_, state => 'succeeded', attempts => 1 } } qw(plain crash effect async mail told)),
			{ key => 'second', state => 'succeeded', attempts => 2 },
			{ key => 'dead', state => 'dead', attempts => 1 },
			{ key => 'cancelled', state => 'cancelled', attempts => 0 } ],
		letters => [ { key => 'dead' } ],
		effects => [ { key => 'effect' } ],
		mails => [ { key => 'mail', wall => 1 * $MINUTE } ],
		fate => { told => 'commit', untold => 'rollback' },
		messages => [
			{ key => 'told', decision => 'commit', how => 'caller', state => 'committed' },
			{ key => 'untold', decision => 'rollback', how => 'check', state => 'rolled back' } ],
		notes => [ { key => 'plain', state => 'succeeded' }, { key => 'dead', state => 'dead' } ],
		lanes => { one => [ { key => 'second', due => $MINUTE }, { key => 'crash', due => 2 * $MINUTE } ] },
		faults => [ [ 5 * $MINUTE, 5.1 * $MINUTE ] ] };
}

# The rows of a ledger for a key; without: drops them.
sub rows
{
	my ($world, $what, $key) = @_;

	return grep { $_->{key} eq $key } @{ $world->{$what} };
}

sub without
{
	my ($world, $key, @ledgers) = @_;

	@{ $world->{$_} } = grep { $_->{key} ne $key } @{ $world->{$_} } foreach @ledgers;
	return;
}

# Finds the first violation, e.g. "lost: plain committed and is not stored".
sub verdict
{
	my ($world) = @_;
	my ($found) = RetryTest::Checker::check($world);

	return join '; ', map { my $kind = $_; map { "$kind: $_" } @{ $found->{$kind} } } sort keys %$found;
}

sub caught
{
	my ($name, $plant, $expected) = @_;
	my $world = world();

	$plant->($world);
	like(verdict($world), qr/$expected/, $name);
	return;
}

sub accepted
{
	my ($name, $change) = @_;
	my $world = world();

	$change->($world);
	is(verdict($world), '', $name);
	return;
}

is(verdict(world()), '', 'ledgers that agree');
accepted('an asynchronous commit may be lost',
	sub { without($_[0], 'async', qw(stored attempts arrivals views)) });
accepted('who did not see its commit may have lost it or not', sub {
	push @{ $_[0]{stored} }, { key => 'unsure', cancelled => 0 };
	push @{ $_[0]{views} }, { key => 'unsure', state => 'succeeded', attempts => 1 };
	push @{ $_[0]{arrivals} }, arrival('unsure', 1, 200, $MINUTE);
	push @{ $_[0]{attempts} }, attempt('unsure', 1, 200, 2 * $MINUTE); });
accepted('an attempt without an answer need not have arrived', sub {
	my ($first) = rows($_[0], 'attempts', 'second');
	$first->{status} = 0;
	@{ $_[0]{arrivals} } = grep { !($_->{key} eq 'second' && $_->{attempt} == 1) } @{ $_[0]{arrivals} }; });
sub delayed
{
	my ($world) = @_;
	my ($first) = rows($world, 'attempts', 'second');

	$first->{status} = 0;
	push @{ $world->{arrivals} }, arrival('second', 1, 500, 5 * $MINUTE);
	return;
}

accepted('a network may deliver late what was given up',
	sub { delayed($_[0]); push @{ $_[0]{faults} }, [ 1.5 * $MINUTE, 4.9 * $MINUTE, 'network', 1 ] });
# What arrives after its attempt was given up, and the next was sent.
sub overtaken
{
	my ($world, $late) = @_;
	my ($first) = rows($world, 'attempts', 'second');

	@$first{qw(status finished)} = (0, 2.99 * $MINUTE);
	$world->{arrivals}[1]{wall} = 3 * $MINUTE + $late;
	@{ $world->{arrivals} } = sort { $a->{wall} <=> $b->{wall} } @{ $world->{arrivals} };
	return;
}

accepted('a large request may arrive when it was just given up', sub { overtaken($_[0], 1_000_000) });
# What a process had sent that was killed while the network kept it.
sub held
{
	my ($world, $network) = @_;

	$world->{faults} = [ [ 2 * $MINUTE, 2.1 * $MINUTE, 'kill', 0 ], $network ];
	push @{ $world->{arrivals} }, arrival('plain', 1, 500, 2.2 * $MINUTE);
	without($world, 'crash', qw(stored attempts arrivals views));
	delete $world->{promises}{$_}{crash} foreach keys %{ $world->{promises} };
	return;
}

accepted('a network may deliver what was sent by one that is gone', sub { held($_[0], [ 1.9 * $MINUTE, 2.15 * $MINUTE, 'network', 1 ]) });
accepted('what was sent by one that is gone may be on its way', sub {
	held($_[0], [ 1 * $MINUTE, 1.1 * $MINUTE, 'network', 1 ]); $_[0]{arrivals}[-1]{wall} = 2.1 * $MINUTE + 900_000; });
accepted('a network may deliver nothing of what dies', sub {
	$_->{status} = 0 foreach rows($_[0], 'attempts', 'dead');
	without($_[0], 'dead', 'arrivals'); });
accepted('what a failover loses is sent again', sub {
	push @{ $_[0]{arrivals} }, arrival('plain', 1, 200, 5.05 * $MINUTE);
	$_[0]{failovers} = [ [ 1.5 * $MINUTE, 5 * $MINUTE ] ]; });
accepted('a clock that was ahead', sub {
	$_[0]{clock} = [ [ 1.5 * $MINUTE, 100 * $MINUTE ], [ 2.5 * $MINUTE, 0 ] ];
	$_->{finished} += 100 * $MINUTE foreach grep { $_->{finished} == 2 * $MINUTE } @{ $_[0]{attempts} }; });

accepted('a mail whose answer a crash has lost comes again',
	sub { push @{ $_[0]{mails} }, { key => 'mail', wall => 5.5 * $MINUTE }; });
accepted('a notification may be missed', sub { $_[0]{notes} = []; });

accepted('by a clock that went back a later one comes first', sub { $_[0]{arrivals}[3]{wall} = 2.9 * $MINUTE; $_[0]{lanes}{one}[0]{due} = 3 * $MINUTE; });

caught('a task is gone', sub { without($_[0], 'plain', qw(stored attempts arrivals views)) }, 'lost: plain committed and is not stored');
caught('a task is gone though it was sent', sub { without($_[0], 'plain', qw(stored attempts views)) }, 'phantom: plain arrived and is not stored');
caught('a task was never sent', sub { without($_[0], 'plain', 'arrivals') }, 'lost: plain committed and never arrived');
caught('a task is left lying', sub { without($_[0], 'plain', 'attempts'); (rows($_[0], 'views', 'plain'))[0]{state} = 'pending' }, 'lost: plain is pending, not succeeded');
caught('a task is left half-way', sub { $_->{terminal} = 0, $_->{outcome} = 'failed', $_->{status} = 500 foreach rows($_[0], 'attempts', 'plain') }, 'lost: plain is retrying, not succeeded');
caught('a task died that should not', sub { $_->{outcome} = 'failed' foreach rows($_[0], 'attempts', 'plain') }, 'lost: plain is dead, not succeeded');
caught('a task lived that should not', sub { $_->{outcome} = 'succeeded' foreach rows($_[0], 'attempts', 'dead') }, 'lost: dead is succeeded, not dead');
caught('a cancellation was forgotten', sub { $_->{cancelled} = 0 foreach rows($_[0], 'stored', 'cancelled') }, 'lost: cancelled is pending, not cancelled');
caught('a function was not run', sub { without($_[0], 'effect', 'effects') }, 'lost: effect committed and its function has left nothing');
caught('what was rolled back is sent', sub { push @{ $_[0]{arrivals} }, arrival('undone', 1, 200, $MINUTE) }, 'phantom: undone arrived and was rolled back');
caught('what was rolled back is stored', sub { push @{ $_[0]{stored} }, { key => 'undone' } }, 'phantom: undone was rolled back and is stored');
caught('what nobody enqueued is stored', sub { push @{ $_[0]{stored} }, { key => 'ghost' } }, 'phantom: ghost is stored and nobody enqueued it');
caught('what was cancelled is sent', sub { push @{ $_[0]{arrivals} }, arrival('cancelled', 1, 200, $MINUTE) }, 'phantom: cancelled arrived and was cancelled');
caught('a number is missing', sub { $_->{attempt}++ foreach rows($_[0], 'attempts', 'second') }, 'gap: second has attempts 2,3');
caught('a number is there twice', sub { $_->{attempt} = 1 foreach rows($_[0], 'attempts', 'second') }, 'gap: second has attempts 1,1');
caught('an attempt after the end', sub { (rows($_[0], 'attempts', 'second'))[0]{terminal} = 1 }, 'gap: second has another attempt after its end');
caught('attempts of no task', sub { without($_[0], 'async', qw(stored arrivals views)) }, 'gap: async has attempts and is not stored');
caught('an answer that was not given', sub { (rows($_[0], 'attempts', 'second'))[0]{status} = 503 }, 'gap: second attempt 1 was answered 500, 503 is recorded');
caught('an answer to what was not sent', sub { $_[0]{arrivals}[1]{attempt} = 7 }, 'gap: second attempt 1 is recorded and never arrived');
caught('an answer that was misjudged', sub { (rows($_[0], 'attempts', 'plain'))[0]{outcome} = 'failed' }, 'gap: plain attempt 1 has status 200 and is recorded as failed');
caught('a request that is not recorded', sub { push @{ $_[0]{arrivals} }, arrival('plain', 2, 200, 5 * $MINUTE) }, 'gap: plain attempts 2 arrived and are not recorded');
caught('sent too early', sub { $_[0]{arrivals}[2]{wall} = 1.9 * $MINUTE }, 'early: second attempt 2 arrived before attempt 1 was recorded');
caught('sent too early by a clock that was ahead', sub {
	$_[0]{clock} = [ [ 1.5 * $MINUTE, 100 * $MINUTE ], [ 2.5 * $MINUTE, 0 ] ];
	$_->{finished} += 100 * $MINUTE foreach grep { $_->{finished} == 2 * $MINUTE } @{ $_[0]{attempts} };
	$_[0]{arrivals}[2]{wall} = 1.9 * $MINUTE; }, 'early: second attempt 2 arrived before attempt 1');
caught('sent again without a fault', sub { $_[0]{faults} = [] }, 'double: crash attempt 1 arrived without a fault');
caught('sent again though the fault was before', sub { $_[0]{faults} = [ [ $MINUTE, 2 * $MINUTE ] ] }, 'double: crash attempt 1 arrived without a fault');
caught('sent again after it was recorded', sub { (rows($_[0], 'attempts', 'crash'))[0]{finished} = 4.5 * $MINUTE }, 'double: crash attempt 1 arrived after it was recorded');
caught('an earlier attempt again', sub { push @{ $_[0]{arrivals} }, arrival('second', 1, 500, 5 * $MINUTE) }, 'double: second attempt 1 arrived without a fault after attempt 2');
caught('late though no network was at fault', sub { delayed($_[0]); push @{ $_[0]{faults} }, [ 1.5 * $MINUTE, 4.9 * $MINUTE, 'crash' ] },
	'double: second attempt 1 arrived after it was recorded');
caught('late though it was given up long ago', sub { overtaken($_[0], 9_500_000) }, 'double: second attempt 1 arrived without a fault after attempt 2');
caught('late though it was answered', sub { overtaken($_[0], 1_000_000); (rows($_[0], 'attempts', 'second'))[0]{status} = 500 },
	'double: second attempt 1 arrived without a fault after attempt 2');
caught('late, and not for the first time', sub { overtaken($_[0], 1_000_000); push @{ $_[0]{arrivals} }, arrival('second', 1, 500, 3 * $MINUTE + 1_500_000) },
	'double: second attempt 1 arrived without a fault after attempt 2');
caught('late though it was given up before', sub { delayed($_[0]); push @{ $_[0]{faults} }, [ 3 * $MINUTE, 4.9 * $MINUTE, 'network', 1 ] },
	'double: second attempt 1 arrived after it was recorded');
caught('the same without a network at fault', sub { held($_[0], [ 1.9 * $MINUTE, 2.15 * $MINUTE, 'other', 0 ]) }, 'double: plain attempt 1 arrived after it was recorded');
caught('the same when it is gone for a while', sub {
	held($_[0], [ 1 * $MINUTE, 1.1 * $MINUTE, 'network', 1 ]); $_[0]{arrivals}[-1]{wall} = 2.1 * $MINUTE + 1_100_000; },
	'double: plain attempt 1 arrived after it was recorded');
caught('the same though it was recorded before that', sub {
	held($_[0], [ 1 * $MINUTE, 1.1 * $MINUTE, 'network', 1 ]); $_[0]{arrivals}[-1]{wall} = 2.1 * $MINUTE + 900_000;
	(rows($_[0], 'attempts', 'plain'))[0]{finished} = 1.99 * $MINUTE; }, 'double: plain attempt 1 arrived after it was recorded');
caught('the same with the network back for long', sub { held($_[0], [ 1 * $MINUTE, 1.1 * $MINUTE, 'network', 1 ]) }, 'double: plain attempt 1 arrived after it was recorded');
caught('the same twice', sub { held($_[0], [ 1.9 * $MINUTE, 2.15 * $MINUTE, 'network', 1 ]); push @{ $_[0]{arrivals} }, arrival('plain', 1, 500, 2.2 * $MINUTE) },
	'double: plain attempt 1 arrived after it was recorded');
caught('sent before its turn', sub { $_[0]{arrivals}[3]{wall} = 2.9 * $MINUTE }, 'order: crash arrived before second of the same lane had ended');
caught('stored twice', sub { push @{ $_[0]{stored} }, { key => 'plain' } }, 'double: plain is stored more than once');
caught('a function was run twice', sub { push @{ $_[0]{effects} }, { key => 'effect' } }, 'double: effect has left 2 rows');
caught('not shown', sub { without($_[0], 'plain', 'views') }, 'state: plain is shown 0 times');
caught('shown twice', sub { push @{ $_[0]{views} }, rows($_[0], 'views', 'plain') }, 'state: plain is shown 2 times');
caught('shown in another state', sub { (rows($_[0], 'views', 'plain'))[0]{state} = 'running' }, 'state: plain is succeeded by the facts and shown as running');
caught('shown with other attempts', sub { (rows($_[0], 'views', 'second'))[0]{attempts} = 1 }, 'state: second has 2 attempts and is shown with 1');
caught('dead without a letter', sub { without($_[0], 'dead', 'letters') }, 'state: dead is dead and has 0 dead letters');
caught('a letter of one that lives', sub { push @{ $_[0]{letters} }, { key => 'plain' } }, 'state: plain is succeeded and has 1 dead letters');
caught('a mail was not sent', sub { $_[0]{mails} = [] }, 'lost: mail committed and its mail never arrived');
caught('a mail that was rolled back', sub { push @{ $_[0]{mails} }, { key => 'undone', wall => $MINUTE } }, 'phantom: undone was mailed and was rolled back');
caught('a mail that is not stored', sub { push @{ $_[0]{mails} }, { key => 'ghost', wall => $MINUTE } }, 'phantom: ghost was mailed and is not stored');
caught('a mail again without a fault', sub { push @{ $_[0]{mails} }, { key => 'mail', wall => 3 * $MINUTE } }, 'double: mail was mailed again without a fault');
# message(KEY, SUB): makes something of it false.
sub message
{
	my ($key, %false) = @_;

	return sub { my ($message) = rows($_[0], 'messages', $key); @$message{ keys %false } = values %false; };
}

caught('a message left undecided', message('told', decision => 'none', state => 'undecided'), 'lost: message told is undecided');
caught('a message that was lost', message('told', decision => 'rollback', state => 'rolled back'), 'lost: message told is rolled back and its sender says commit');
caught('a message without a commit', message('untold', decision => 'commit', state => 'committed'), 'phantom: message untold is committed and its sender says rollback');
caught('a message decided by nobody', message('told', how => 'limit'), 'state: message told was decided at a limit');
caught('a message shown in another state', message('told', state => 'undecided'), 'state: message told is committed by the facts and shown as undecided');
caught('a message committed and no task', sub { without($_[0], 'told', 'stored') }, 'state: message told is committed and is none');
caught('a message rolled back and a task', sub { push @{ $_[0]{stored} }, { key => 'untold' } }, 'phantom: untold was rolled back and is stored');
caught('a message that nobody prepared', sub { delete $_[0]{fate}{told} }, 'phantom: message told is prepared and nobody did');
caught('a message stored twice', sub { push @{ $_[0]{messages} }, rows($_[0], 'messages', 'told') }, 'double: message told is stored more than once');
caught('a false notification', sub { $_[0]{notes}[0]{state} = 'dead' }, 'state: plain is succeeded and was notified of as dead');
caught('a notification twice', sub { push @{ $_[0]{notes} }, $_[0]{notes}[0] }, 'double: plain was notified of 2 times');
caught('a notification of nothing', sub { push @{ $_[0]{notes} }, { key => 'ghost', state => 'dead' } }, 'phantom: ghost was notified of and is not stored');

# repeated(NAME, EXPECTED, CHANGE): for which faults requests are counted as repeated.
sub repeated
{
	my ($name, $expected, $change) = @_;
	my $world = world();

	$change->($world);
	my (undef, undef, $repeated) = RetryTest::Checker::check($world);
	return is(join(', ', map { "$_ $repeated->{$_}" } sort keys %$repeated), $expected, $name);
}

repeated('a fault is told what was repeated long after it', 'kill 1', sub { $_[0]{faults}[0][2] = 'kill' });
repeated('and what was repeated at once', 'kill 1', sub { $_[0]{faults}[0][2] = 'kill'; $_[0]{arrivals}[4]{wall} = 5.1 * $MINUTE + 500_000 });
repeated('what is of an earlier attempt is late', 'late 1', sub {
	without($_[0], 'crash', qw(stored attempts arrivals views));
	delete $_->{crash} foreach values %{ $_[0]{promises} };
	$_[0]{faults} = [ [ 2.9 * $MINUTE, 3 * $MINUTE, 'kill' ] ];
	(rows($_[0], 'attempts', 'second'))[0]{finished} = 2.95 * $MINUTE;
	push @{ $_[0]{arrivals} }, arrival('second', 1, 500, 3 * $MINUTE + 500_000); });

# The books of the bank: one transfer, and what is said of it.
sub books
{
	my ($expected, %false) = @_;
	my %transfer = (from => 'one', to => 'two', amount => 7, bound => 1);
	my %entries = (debit => [ { house => 'one', amount => -7 } ], credit => [ { house => 'two', amount => 7 } ]);

	$false{$_} and $entries{$_} = $false{$_} foreach qw(debit undebit credit uncredit);
	return is(join('; ', RetryTest::Bank::judge('it', $false{nobody} ? undef : \%transfer, \%entries, $false{decided})), $expected, $expected || 'books that agree');
}

books('');
books('it was begun by nobody', nobody => 1);
books('it was debited and not credited; it was bound to come and did not', credit => []);
books('it was credited and not debited', debit => [ { house => 'one', amount => 0 } ]);
books('it was bound to come and did not', debit => [], credit => []);
books('it has 2 entries of debit', debit => [ map { { house => 'one', amount => -7 } } 1, 2 ]);
books('it has 2 entries of credit', credit => [ map { { house => 'two', amount => 7 } } 1, 2 ]);
books('it took -8 from one', debit => [ { house => 'one', amount => -8 } ]);
books('it took -7 from two', debit => [ { house => 'two', amount => -7 } ]);
books('it brought 8 to two', credit => [ { house => 'two', amount => 8 } ]);
books('it was bound to come and did not', undebit => [ { house => 'one', amount => 7 } ], uncredit => [ { house => 'two', amount => -7 } ]);
books('it was debited and not credited; it was bound to come and did not', uncredit => [ { house => 'two', amount => -7 } ]);
books('it was credited and not debited', undebit => [ { house => 'one', amount => 7 } ]);
books('it undoes 6 in one; it was credited and not debited', undebit => [ { house => 'one', amount => 6 } ]);
books('it is undone and had no credit; it was debited and not credited; it was bound to come and did not', credit => [ { house => 'two', amount => 0 } ], uncredit => [ { house => 'two', amount => -7 } ]);
books('', decided => 'committed');
books('it is rolled back, and was credited', decided => 'rolled back');
books('it was bound to come and did not; it is committed, and was not credited', debit => [], credit => [], decided => 'committed');
done_testing();
