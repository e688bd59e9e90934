# Adaptive concurrency: a lane finds how many requests at once its endpoint can
# work on, gives way when that becomes less, and comes back when it becomes more.
#
# The receiver is a queue before so many workers; it is asked how many requests
# were there at once.  What is expected are wide ranges around the number of
# workers, so that a slow machine does not matter.
# Slow.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => "retry.max_in_flight = 400\nretry.lane_max_in_flight = 200");
my $receiver = start_endpoint();
my $adaptive = start_endpoint();

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub scene
{
	my ($name, $endpoint, $columns, $values) = @_;

	sql("INSERT INTO retry.scene (name, url, max_in_flight" . ($columns ? ", $columns" : '')
		  . ") VALUES ('$name', '" . $endpoint->url('/capacity/10?ms=100') . "', 200" . ($values ? ", $values" : '') . ')');
	return;
}

sub put
{
	my ($name, $count) = @_;

	sql("SELECT count(retry.enqueue('$name', 'null')) FROM generate_series(1, $count)");
	return;
}

sub left
{
	return sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/$_[0]' AND state <> 'succeeded'");
}

# How many are at the receiver now, often looked at until so many have come;
# the median, and the most there were since the last look.
sub in_progress
{
	my ($endpoint, $count) = @_;
	my @seen;
	my $from = $endpoint->stats->{total};

	wait_for(
		sub {
			my $stats = $endpoint->stats;

			push @seen, $stats->{concurrency}{capacity}{now};
			return $stats->{total} >= $from + $count;
		},
		"$count more have come");
	@seen = sort { $a <=> $b } @seen;
	return $seen[ @seen / 2 ];
}

# One that does not adapt sends all that the lane may have
scene('fixed', $receiver);
put('fixed', 400);
wait_for(sub { left('fixed') == 0 }, 'a fixed limit: all are delivered');
cmp_ok($receiver->stats->{concurrency}{capacity}{max}, '>', 100, 'and all at once, as far as the lane may');
is(sql("SELECT max(attempt_no) FROM retry.attempts"), 1, 'in one attempt each');

# One that does finds the ten workers
scene('adaptive', $adaptive, 'adaptive', 'true');
put('adaptive', 20000);
wait_for(sub { $adaptive->stats->{total} > 800 }, 'an adaptive one: it looks for what the endpoint can take');
my $seen = in_progress($adaptive, 300);
cmp_ok($seen, '>=', 5, "ten workers: they are used ($seen at once)");
cmp_ok($seen, '<=', 30, 'and little waits for them');
cmp_ok($adaptive->stats->{concurrency}{capacity}{max}, '<', 100, 'never was anything near the limit sent at once');

# Fewer workers: it gives way
$adaptive->control('/_capacity?n=3');
my $total = $adaptive->stats->{total};
wait_for(sub { $adaptive->stats->{total} > $total + 250 }, 'three workers');
$seen = in_progress($adaptive, 100);
cmp_ok($seen, '<=', 11, "less is sent at once ($seen)");
cmp_ok(sql("SELECT limit_now FROM retry.lanes WHERE lane = (SELECT lane FROM retry.tasks WHERE scene = 'default/adaptive' LIMIT 1)"), '<=', 15, 'and retry.lanes shows what was found');

# More of them: it comes back
$adaptive->control('/_capacity?n=40');
$total = $adaptive->stats->{total};
wait_for(sub { $adaptive->stats->{total} > $total + 3000 }, 'forty workers');
$seen = in_progress($adaptive, 1000);
cmp_ok($seen, '>=', 15, "more is sent at once ($seen)");
cmp_ok($seen, '<=', 120, 'not without measure');

# The scene's limit holds all the same, and at once
sql("UPDATE retry.scene SET max_in_flight = 4 WHERE name = 'adaptive'");
wait_for(sub { $adaptive->stats->{in_progress} <= 4 }, 'never more than max_in_flight');
$total = $adaptive->stats->{total};
wait_for(sub { $adaptive->stats->{total} > $total + 40 }, 'and it goes on');
cmp_ok($adaptive->stats->{in_progress}, '<=', 4, 'within it');

# Switched off
sql("UPDATE retry.scene SET max_in_flight = 200, adaptive = false WHERE name = 'adaptive'");
wait_for(sub { $adaptive->stats->{in_progress} > 130 || left('adaptive') == 0 }, 'switched off: all that the lane may have');

done_testing();
