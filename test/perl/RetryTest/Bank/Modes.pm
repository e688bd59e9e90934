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
		make => \&_message });

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
	my @databases = @{ $bank->{databases} };
	# a function is called where it is, a service from anywhere
	my $through = $to->{node} ? $to : $databases[ rand @databases ];
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

# The payload of a credit.
sub _credit
{
	my ($t) = @_;

	return encode_json({ transfer => $t->{id}, account => $t->{to_account}, amount => $t->{amount} });
}

1;
