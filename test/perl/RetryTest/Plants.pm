# Makes a real ledger false, as a fault would, so that a whole campaign can be
# seen to fail.  The checker's own test plants more kinds (test/t/071_checker.pl).
package RetryTest::Plants;

use strict;
use warnings FATAL => 'all';

use RetryTest::Chaos;

my %plants = (
	# a session saw its task commit, and it is nowhere
	lost => sub {
		my ($campaign) = @_;
		my $key = "$campaign->{tag}-planted";

		$campaign->note($_ => $key) foreach qw(T C);
	},
	# what was rolled back is called all the same
	phantom => sub { _post($_[0], (sort keys %{ $_[0]->promises->{R} })[0]) },
	# what had succeeded is sent once more
	double => sub { _post($_[0], (sort keys %{ $_[0]->promises->{C} })[0]) },
	# an attempt's record is gone
	gap => sub {
		_sql($_[0], 'DELETE FROM retry.attempt a USING (SELECT leaf, task_id FROM retry.attempt WHERE attempt_no = 2 LIMIT 1) b '
			  . 'WHERE a.leaf = b.leaf AND a.task_id = b.task_id AND a.attempt_no = 1');
	},
	# the record of an attempt was late
	early => sub {
		_sql($_[0], "UPDATE retry.attempt a SET finished_at = finished_at + interval '5 min' FROM (SELECT leaf, task_id FROM retry.attempt WHERE attempt_no = 2 LIMIT 1) b "
			  . 'WHERE a.leaf = b.leaf AND a.task_id = b.task_id AND a.attempt_no = 1');
	},
	# the last of a lane that arrived was to be before one that had arrived already
	order => sub {
		my ($campaign) = @_;
		my @lines = @{ $campaign->noted('O') };
		my ($key, $lane) = split ' ', $lines[0];
		my ($last) = map { (split)[0] } reverse grep { (split)[1] eq $lane } @lines;

		_sql($campaign, "UPDATE retry.task SET due_at = due_at + interval '1 year' WHERE key = '$key'");
		$campaign->note(O => "$last planted");
		$campaign->note(O => "$key planted");
	},
	# a dead letter is missing
	state => sub { _sql($_[0], 'DELETE FROM retry.dead_letter WHERE id = (SELECT id FROM retry.dead_letter LIMIT 1)') });

sub names { return sort keys %plants; }

sub plant
{
	my ($chaos, $name) = @_;

	$plants{$name}->($chaos->campaign);
	return;
}

sub _sql
{
	my ($campaign, $sql) = @_;

	$campaign->{node}->safe_psql($RetryTest::Chaos::DBNAME, $sql);
	return;
}

sub _post
{
	my ($campaign, $key) = @_;
	my $receiver = $campaign->receiver;

	$receiver->{http}->request('POST', $receiver->url('/ok'),
		{ headers => { 'Idempotency-Key' => "\"$key\"", 'Retry-Attempt' => 1 }, content => '{}' });
	return;
}

1;
