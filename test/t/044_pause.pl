# Pausing, switching off, and changing what tasks that wait will meet: nothing
# is sent that should not be, and nothing is lost, restarts or not.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main');
hold_nothing($node);
my $receiver = start_endpoint();
my $paused = start_endpoint();			# for scenes that are paused

sub enqueue_lanes
{
	my ($scene, $count, $lanes) = @_;

	$node->safe_psql('postgres',
		"SELECT count(retry.enqueue('$scene', '{}', lane => '$scene' || i % $lanes, delay => make_interval(secs => (i % 3) * 0.1))) FROM generate_series(1, $count) i");
	return;
}

sub set
{
	my ($change, $where) = @_;

	$node->safe_psql('postgres', "UPDATE retry.scene SET $change WHERE $where");
	return;
}

# In one lane, in a few, and in more lanes than are remembered one by one.
foreach my $lanes (1, 10, 200)
{
	foreach my $restart ('', 'stop', 'kill')
	{
		my $scene = "paused-$lanes$restart";
		my $what = "$lanes lanes" . ($restart ? ", $restart" : '');
		$node->safe_psql('postgres',
			"INSERT INTO retry.scene (group_name, name, url, paused) VALUES ('default', '$scene', '"
			  . $paused->url("/ok/$scene") . "', true)");
		enqueue_lanes($scene, 400, $lanes);
		others_go_on($node, $receiver, $what);
		wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/$scene' AND due_at < now()",
			"$what: all are due", expected => '400');
		others_go_on($node, $receiver, $what);
		if ($restart eq 'stop')
		{
			$node->restart;
			others_go_on($node, $receiver, "$what, restarted");
		}
		elsif ($restart eq 'kill')
		{
			$node->stop('immediate');
			$node->start;
			others_go_on($node, $receiver, "$what, restarted");
		}
		is($paused->stats->{total}, 0, "$what: nothing is sent while paused");
		is( $node->safe_psql(
				'postgres',
				"SELECT DISTINCT state || ' ' || coalesce(held_reason, '-') FROM retry.tasks WHERE scene = 'default/$scene'"),
			'pending scene paused', "$what: and it shows why");
		set('paused = false', "name = '$scene'");
		wait_sql($node,
			"SELECT count(*) FROM retry.tasks WHERE scene = 'default/$scene' AND state = 'succeeded'",
			"$what: all succeed when it goes on", expected => '400');
		is($paused->stats->{total}, 400, "$what: each once");
		$paused->reset;
	}
}

# A group; tasks that were already tried.
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene_group (name, owner) VALUES ('shop', 'postgres');
INSERT INTO retry.scene (group_name, name, url, backoff) VALUES
	('shop', 'order', '${\$paused->url('/flaky/1')}', 'fixed 300ms');
SELECT count(retry.enqueue('shop/order', '{}', key => 'o' || i)) FROM generate_series(1, 50) i;
SQL
wait_for(sub { $paused->stats->{total} >= 50 }, 'all were tried once');
$node->safe_psql('postgres', "UPDATE retry.scene_group SET paused = true WHERE name = 'shop'");
others_go_on($node, $receiver, 'group paused');
my $before = $paused->stats->{total};
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'shop/order' AND state = 'retrying' AND next_due > now()",
	'their next attempts are due', expected => '0');
others_go_on($node, $receiver, 'group paused');
is($paused->stats->{total}, $before, 'a paused group sends no next attempts');
$node->safe_psql('postgres', "UPDATE retry.scene_group SET paused = false WHERE name = 'shop'");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'shop/order' AND state = 'succeeded'",
	'and does when it goes on', expected => '50');
is($paused->stats->{total}, 100, 'two attempts each');

# A paused scene's task may still be cancelled.
set('paused = true', "name = 'paused-1'");
my $id = enqueue($node, "'paused-1', '{}', key => 'never'");
others_go_on($node, $receiver, 'to cancel');
is($node->safe_psql('postgres', "SELECT retry.cancel('$id')"), 't', 'a held task can be cancelled');
set('paused = false', "name = 'paused-1'");
others_go_on($node, $receiver, 'cancelled');
is(scalar $paused->ledger('never'), 0, 'and is not sent after');

# Off and on, for the server and for one database.
foreach my $how (
	[ 'ALTER SYSTEM SET retry.enabled = off', 'ALTER SYSTEM RESET retry.enabled' ],
	[ 'ALTER DATABASE postgres SET retry.enabled = off', 'ALTER DATABASE postgres RESET retry.enabled' ])
{
	$node->safe_psql('postgres', $how->[0]);
	$node->reload;
	wait_sql($node, 'SHOW retry.enabled', 'off', expected => 'off', fresh => 1);
	# an attempt to catch those that come before workers know
	wait_for(
		sub {
			my $probe = enqueue($node, "'" . $receiver->url('/ok/probe') . "'");
			$node->safe_psql('postgres', "SELECT retry.wait('$probe', '300 ms')") eq 'pending';
		},
		"$how->[0]: nothing is sent");
	my $was = $receiver->stats->{total};
	$node->safe_psql('postgres', "SELECT count(retry.enqueue('" . $receiver->url('/ok/off') . "')) FROM generate_series(1, 100)");
	is($receiver->stats->{total}, $was, "$how->[0]: still nothing");
	$node->safe_psql('postgres', $how->[1]);
	$node->reload;
	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE state <> 'succeeded' AND state <> 'cancelled'",
		"$how->[1]: all is sent", expected => '0');
}

# What is changed holds from the next attempt on, for tasks that wait as well.
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES
	('default', 'changing', '${\$receiver->url('/status/500')}', 'fixed 500ms', 100);
SQL
$id = enqueue($node, "'changing', '{}', key => 'moved'");
wait_for(sub { scalar $receiver->ledger('moved') }, 'a first attempt failed');
set("url = '" . $receiver->url('/status/503') . "', backoff = 'fixed 200ms'", "name = 'changing'");
wait_for(sub { grep { $_->{path} =~ m{^/status/503} } $receiver->ledger('moved') }, 'the next went to the new URL');
set('max_attempts = 3', "name = 'changing'");
wait_state($node, $id, 'dead', description => 'fewer attempts: it is dead');
set("url = '" . $receiver->url('/ok/changed') . "', max_attempts = 3", "name = 'changing'");
$id = enqueue($node, "'changing'");
wait_state($node, $id, 'succeeded', description => 'and the scene works again');

# At once, no more than the scene allows; and more when it allows more.
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (group_name, name, url, max_in_flight) VALUES
	('default', 'narrow', '${\$receiver->url('/concurrency/narrow?ms=10')}', 3);
SELECT count(retry.enqueue('narrow')) FROM generate_series(1, 200);
SQL
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/narrow' AND state = 'succeeded'",
	'a scene with max_in_flight 3', expected => '200');
is($receiver->stats->{concurrency}{narrow}{max}, 3, 'never had more, and used what it had');
$node->safe_psql('postgres', <<"SQL");
UPDATE retry.scene SET url = '${\$receiver->url('/concurrency/wide?ms=10')}', max_in_flight = 20 WHERE name = 'narrow';
SELECT count(retry.enqueue('narrow')) FROM generate_series(1, 400);
SQL
wait_for(sub { ($receiver->stats->{concurrency}{wide}{max} // 0) >= 20 }, 'it has more when it may');
is($receiver->stats->{concurrency}{wide}{max}, 20, 'and not more than that');

$node->stop;
done_testing();
