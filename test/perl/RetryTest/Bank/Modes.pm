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
		between => sub { return 1; },
		make => \&_saga },
	# both tried, then confirmed or cancelled
	tcc => {
		between => sub { return 1; },
		make => \&_tcc },
	# both prepared, then committed or rolled back
	twophase => {
		between => sub { my ($from, $to) = @_; return $from->{node} && $to->{node} },
		make => \&_twophase });

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

# Where a transfer is decided: in one of these, if it is a database, else anywhere.
sub _through
{
	my ($bank, @houses) = @_;
	my @databases = @{ $bank->{databases} };

	return (grep { $_->{node} } @houses)[0] // $databases[ rand @databases ];
}

my @OPTIONS = (backoff => 'fixed 100ms', max_attempts => 100000, timeout => '1500 ms');

# What is asked of both houses, each as a step of this name; the second may refuse it.
sub _parts
{
	my ($t, $refuses) = @_;
	my %refused = $refuses ? (refuse => JSON::PP::true) : ();

	return (
		{ op => 'debit', house => $t->{from}, payload => { transfer => $t->{id}, account => $t->{from_account}, amount => $t->{amount} } },
		{ op => 'credit', house => $t->{to}, payload => { transfer => $t->{id}, account => $t->{to_account}, amount => $t->{amount}, %refused } });
}

# Whom the database "through" asks for it: its own function, that for another, or a service.
sub _target
{
	my ($through, $house, $path) = @_;

	return "$house->{url}$path" if !$house->{node};
	return $house eq $through ? 'sql:public.step' : "sql:public.step_$house->{name}";
}

sub _saga
{
	my ($bank, $t) = @_;
	my $through = _through($bank, $t->{from}, $t->{to});
	my @steps = map { +{
			name => $_->{op}, action => _target($through, $_->{house}, "/$_->{op}"), compensate => _target($through, $_->{house}, "/un$_->{op}"),
			payload => $_->{payload}, @OPTIONS } } _parts($t, rand() < 0.2);
	my $timeout = rand() < 0.2 ? ", timeout => '1 s'" : '';
	my $concurrent = rand() < 0.3 ? ', concurrent => true' : '';

	$bank->sql($through, "SELECT retry.saga('" . encode_json(\@steps) . "', reference => '$t->{id}'$timeout$concurrent)");
	return 0;
}

# A debit is taken at once, and given back; a credit comes at the end.
sub _tcc
{
	my ($bank, $t) = @_;
	my %paths = (debit => [qw(/debit /fine /undebit)], credit => [qw(/fine /credit /uncredit)]);
	my $through = _through($bank, $t->{from}, $t->{to});
	my $sql = "SELECT retry.tcc_begin('3 s', reference => '$t->{id}') AS gid \\gset\n";

	foreach my $part (_parts($t))
	{
		$sql .= "SELECT retry.tcc_branch(:'gid', '$part->{op}', "
		  . join(', ', map { q(') . _target($through, $part->{house}, $_) . q(') } @{ $paths{ $part->{op} } })
		  . ", '" . encode_json($part->{payload}) . "', '" . encode_json({@OPTIONS}) . "');\n";

		# who has not told of both does not decide
		if (_dies())
		{
			$bank->sql($through, $sql);
			return 0;
		}
	}
	$bank->sql($through, "${sql}SELECT retry.tcc_" . (rand() < 0.2 ? 'rollback' : 'commit') . "(:'gid');\n");
	return 0;
}

sub _twophase
{
	my ($bank, $t) = @_;
	my ($from, $to) = ($t->{from}, $t->{to});
	my @databases = @{ $bank->{databases} };
	my $through = $databases[ rand @databases ];
	my $begun = $bank->sql($through, "SELECT retry.twophase_begin(timeout => '2 s', reference => '$t->{id}') AS gid \\gset\n"
		  . join '', "SELECT :'gid';\n", map { "SELECT retry.twophase_branch(:'gid', '$_->{name}');\n" } $from, $to) // return;
	my ($gid, @names) = split /\n/, $begun;

	return if _dies();
	my $prepared = $bank->sql($from, <<"SQL");
BEGIN;
SELECT public.debit('$t->{id}', '$t->{from_account}', $t->{amount}) AS done \\gset
\\if :done
PREPARE TRANSACTION '$names[0]';
SELECT 'prepared';
\\endif
SQL
	return if _dies();
	if (($prepared // '') ne 'prepared' || rand() < 0.1)
	{
		$bank->sql($through, "SELECT retry.rollback('$gid')");
		return;
	}
	$bank->sql($to, "BEGIN; SELECT public.credit('@{[ _credit($t) ]}'); PREPARE TRANSACTION '$names[1]'") // return;
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
