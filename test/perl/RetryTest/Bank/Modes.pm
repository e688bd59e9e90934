# The ways in which a transfer of the bank can be made.  Each mode says between which
# houses, and how; what makes one returns true when it is bound to come.
package RetryTest::Bank::Modes;

use strict;
use warnings FATAL => 'all';

use JSON::PP;

my %modes = (
	# a debit here, and its credit as a task of the same transaction
	enqueue => {
		between => sub { my ($from, $to) = @_; return $from->{node} && !$to->{node} },
		make => \&_enqueue },
	# a debit anywhere, and its credit as a message that waits for it
	message => {
		between => sub { return 1; },
		make => \&_message },
	# both as steps, of which one may fail after the other is done
	saga => {
		between => \&_in_one,
		make => \&_saga },
	# both tried, then confirmed or cancelled
	tcc => {
		between => \&_in_one,
		make => \&_tcc },
	# both prepared, then committed or rolled back
	twophase => {
		between => sub { my ($from, $to) = @_; return $from->{node} && $to->{node} },
		make => \&_twophase });

# Functions of one database at most: they are called where it is decided.
sub _in_one { my ($from, $to) = @_; return !$from->{node} || !$to->{node}; }

sub names { return sort keys %modes; }

# pairs(BANK, MODE): [from, to] of the houses that it is possible between.
sub pairs
{
	my ($bank, $mode) = @_;
	my @houses = $bank->houses;

	return map { my $from = $_; map { [ $from, $_ ] } grep { $_ ne $from && $modes{$mode}{between}->($from, $_) } @houses } @houses;
}

sub make
{
	my ($bank, $transfer) = @_;

	return $modes{ $transfer->{mode} }{make}->($bank, $transfer);
}

# Who makes a transfer may die at any of these moments.
sub _dies { return rand() < 0.08; }

my $OPTIONS = "backoff => 'fixed 100ms', max_attempts => 100000, timeout => '1500 ms'";

sub _enqueue
{
	my ($bank, $t) = @_;
	my $commit = _dies() ? 'ROLLBACK' : 'COMMIT';
	my $out = $bank->sql($t->{from}, <<"SQL");
BEGIN;
SELECT public.debit('$t->{id}', '$t->{from_account}', $t->{amount}) AS done \\gset
\\if :done
SELECT retry.enqueue('$t->{to}{url}/credit', '@{[ _credit($t) ]}', key => '$t->{id}', $OPTIONS);
\\endif
$commit;
SQL
	return $commit eq 'COMMIT' && defined $out && length $out;
}

sub _message
{
	my ($bank, $t) = @_;
	my ($from, $to) = ($t->{from}, $t->{to});
	my $through = _through($bank, $to);
	my $target = $to->{node} ? 'sql:public.credit' : "$to->{url}/credit";
	my $check = !$from->{node} ? "$from->{url}/check" : $from eq $through ? 'sql:public.ask' : "sql:public.ask_$from->{name}";
	my $gid = $bank->sql($through, "SELECT retry.prepare('$target', '@{[ _credit($t) ]}', key => '$t->{id}', check_target => '$check', "
		  . "check_after => '500 ms', check_every => '200 ms', check_limit => 10000, $OPTIONS)") // return;

	return if _dies();
	my $done = $bank->debit($from, $t);
	return $done if _dies() || !defined $done;
	$bank->sql($through, 'SELECT retry.' . ($done ? 'commit' : 'rollback') . "('$gid')");
	return $done;
}

# Where a transfer is decided: a function is called where it is, a service from anywhere.
sub _through
{
	my ($bank, @houses) = @_;
	my @databases = @{ $bank->{databases} };

	return (grep { $_->{node} } @houses)[0] // $databases[ rand @databases ];
}

my @OPTIONS = (backoff => 'fixed 100ms', max_attempts => 100000, timeout => '1500 ms');

# What is asked of both houses; one of them may refuse it.
sub _parts
{
	my ($t) = @_;
	my $refuse = rand() < 0.2 ? 'credit' : '';

	return map {
		my ($op, $house, $account) = @$_;

		{ op => $op, house => $house, payload => {
				transfer => $t->{id}, account => $account, amount => $t->{amount}, $refuse eq $op ? (refuse => JSON::PP::true) : () } };
	} ([ debit => $t->{from}, $t->{from_account} ], [ credit => $t->{to}, $t->{to_account} ]);
}

sub _target
{
	my ($part, $path) = @_;

	return $part->{house}{node} ? 'sql:public.step' : $part->{house}{url} . $path;
}

sub _saga
{
	my ($bank, $t) = @_;
	my @steps = map { +{
			name => $_->{op}, action => _target($_, "/$_->{op}"), compensate => _target($_, "/un$_->{op}"), payload => $_->{payload}, @OPTIONS } } _parts($t);
	my $timeout = rand() < 0.2 ? ", timeout => '1 s'" : '';
	my $concurrent = rand() < 0.3 ? ', concurrent => true' : '';

	$bank->sql(_through($bank, $t->{from}, $t->{to}), "SELECT retry.saga('" . encode_json(\@steps) . "'$timeout$concurrent)");
	return 0;
}

# A debit is taken at once, and given back; a credit comes at the end.
sub _tcc
{
	my ($bank, $t) = @_;
	my %of = (debit => [qw(/debit /fine /undebit)], credit => [qw(/fine /credit /uncredit)]);
	my $dies = 0;
	my $sql = "SELECT retry.tcc_begin('3 s') AS gid \\gset\n";

	foreach my $part (_parts($t))
	{
		delete $part->{payload}{refuse};
		$sql .= "SELECT retry.tcc_branch(:'gid', '$part->{op}', "
		  . join(', ', map { q(') . _target($part, $_) . q(') } @{ $of{ $part->{op} } })
		  . ", '" . encode_json($part->{payload}) . "', '" . encode_json({@OPTIONS}) . "');\n";
		$dies ||= _dies();
		last if $dies;
	}
	# who has not told of both does not decide
	$sql .= 'SELECT retry.tcc_' . (rand() < 0.2 ? 'rollback' : 'commit') . "(:'gid');\n" if !$dies;
	$bank->sql(_through($bank, $t->{from}, $t->{to}), $sql);
	return 0;
}

sub _twophase
{
	my ($bank, $t) = @_;
	my ($debit, $credit) = _parts($t);
	my $through = _through($bank, $bank->{databases}[ rand @{ $bank->{databases} } ]);
	my $says = $bank->sql($through, "SELECT retry.twophase_begin(timeout => '2 s') AS gid \\gset\nSELECT :'gid';\n"
		  . join '', map { "SELECT retry.twophase_branch(:'gid', '$_->{house}{name}');\n" } $debit, $credit) // return;
	my ($gid, @names) = split /\n/, $says;

	return if _dies();
	my $done = $bank->sql($t->{from}, <<"SQL");
BEGIN;
SELECT public.debit('$t->{id}', '$t->{from_account}', $t->{amount}) AS done \\gset
\\if :done
PREPARE TRANSACTION '$names[0]';
SELECT 'prepared';
\\endif
SQL
	return if _dies();
	if (($done // '') ne 'prepared' || rand() < 0.1)
	{
		$bank->sql($through, "SELECT retry.rollback('$gid')");
		return;
	}
	$bank->sql($t->{to}, "BEGIN; SELECT public.credit('@{[ _credit($t) ]}'); PREPARE TRANSACTION '$names[1]'") // return;
	return if _dies();
	return ($bank->sql($through, "SELECT retry.commit('$gid')") // '') eq 't';
}

# The payload of a credit.
sub _credit
{
	my ($t) = @_;

	return encode_json({ transfer => $t->{id}, account => $t->{to_account}, amount => $t->{amount} });
}

1;
