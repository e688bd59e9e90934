# Tasks of a scene whose lanes are ordered: each session has two lanes of its own, and
# each third task fails once before it succeeds, so that there is always one that
# holds up others.  Some are of another scene, which is ordered for a while only, so
# that of these nothing is asked but that all end.  In the ledger of the sessions
#   O key lane    the next of its lane, which its session saw commit before it went on
package RetryTest::Load::Order;

use strict;
use warnings FATAL => 'all';

sub new
{
	my ($class, $campaign) = @_;
	my $ok = $campaign->{receiver}->url('/ok/order');

	$campaign->{node}->safe_psql($campaign->{dbname}, <<"SQL");
INSERT INTO retry.scene (name, url, ordered, lane_by, max_attempts, backoff, timeout)
VALUES ('order', '$ok', true, 'reference', 100000, 'random 100ms..1s', '1500 ms'),
	('fickle', '$ok', false, 'reference', 100000, 'random 1s..4s', '1500 ms');
SQL
	return bless { campaign => $campaign }, $class;
}

sub share { return 0.06; }

sub transaction
{
	my ($self, $key) = @_;
	my $flaky = $self->{campaign}{receiver}->url('/flaky/1?fail=500');
	my $scene = rand() < 0.3 ? 'fickle' : 'order';
	# of the former more than are in memory when `lanes` says so
	my $lane = $key =~ s/-\d+\z//r . '-' . int(rand($scene eq 'order' ? 2 : 30));
	my $text = '';

	foreach my $n (1 .. 3)
	{
		my $target = rand() < 0.3 ? ", url => '$flaky'" : '';

		$text .= "\\echo T $key-$n\nSELECT retry.enqueue('$scene', '{}', key => '$key-$n', reference => '$lane'$target);\n"
		  . "\\echo C $key-$n\n";
		$text .= "\\echo O $key-$n $lane\n" if $scene eq 'order';
	}
	return $text;
}

# Adds the lanes to the facts of the checker: keys in the order of their commits, with
# the moments that the server's clock showed then.
sub add_facts
{
	my ($self, $facts) = @_;
	my $campaign = $self->{campaign};
	my %due = map { $_->{key} => $_->{due} }
	  @{ $campaign->rows([qw(key due)], 'SELECT key, (extract(epoch FROM due_at) * 1000000)::bigint FROM retry.task WHERE key MINE') };

	foreach my $line (@{ $campaign->noted('O') })
	{
		my ($key, $lane) = split ' ', $line;

		push @{ $facts->{lanes}{$lane} }, { key => $key, due => $due{$key} };
	}
	return;
}

1;
