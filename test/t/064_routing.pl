# Scenes with several targets: each route sends where it says, a target that
# fails is left alone and found again, and when none works nothing is counted.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main');
my @receivers = map { start_endpoint() } 1 .. 3;
my @target = map { $_->url('/ok/work') } @receivers;

sub sql
{
	return ask($node, $_[0]);
}

# The targets as an array of SQL.
sub targets
{
	return 'ARRAY[' . join(', ', map { "'$_'" } @_) . ']';
}

sub scene
{
	my ($name, $route, $targets, $columns, $values) = @_;

	sql("INSERT INTO retry.scene (name, route, targets, backoff" . ($columns ? ", $columns" : '')
		  . ") VALUES ('$name', '$route', " . targets(@$targets) . ", 'fixed 100ms'"
		  . ($values ? ", $values" : '') . ')');
	return;
}

# Enqueues tasks and waits for them; how many each receiver got, as a string.
sub deliver
{
	my ($scene, $count, $more) = @_;

	$_->reset foreach @receivers;
	sql("SELECT count(retry.enqueue('$scene', to_jsonb(i)" . ($more // '') . ")) FROM generate_series(1, $count) i");
	all_succeed($scene);
	return map { $_->stats->{total} } @receivers;
}

sub all_succeed
{
	my ($scene) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/$scene' AND state <> 'succeeded'",
		"$scene: all succeed", expected => '0');
	return;
}

# Each route, with all targets well.
foreach my $route (qw(hash random round_robin least_in_flight lru first last))
{
	my $name = "route-$route";
	$name =~ tr/_/-/;
	scene($name, $route, \@target);
	my @got = deliver($name, 300);
	my $got = join(' ', @got);
	is($got[0] + $got[1] + $got[2], 300, "$route: each task once");
	if ($route eq 'first') { is($got, '300 0 0', "$route: all to the first") }
	elsif ($route eq 'last') { is($got, '0 0 300', "$route: all to the last") }
	elsif ($route =~ /round_robin|lru/) { is($got, '100 100 100', "$route: in turn") }
	else
	{
		# who answers more slowly gets fewer of those that look at what is in flight
		my $part = $route eq 'least_in_flight' ? 1 : 50;
		ok(!(grep { $_ < $part } @got), "$route: each has a part: $got");
	}
	is( sql("SELECT string_agg(n::text, ' ' ORDER BY target) FROM (SELECT target, count(*) AS n FROM retry.attempts WHERE scene = 'default/$name' GROUP BY 1) a"),
		join(' ', map { $_->[1] } sort { $a->[0] cmp $b->[0] } grep { $_->[1] > 0 } map { [ $target[$_], $got[$_] ] } 0 .. 2),
		"$route: and the attempts say which");
}
is(sql("SELECT DISTINCT lane || ' ' || coalesce(url, 'null') FROM retry.tasks WHERE scene = 'default/route-hash'"),
	'route-hash null', 'a routed task has its scene\'s lane and no URL of its own');

# A key goes where it went before.
$_->reset foreach @receivers;
sql("SELECT count(retry.enqueue('route-hash', '1', key => 'k' || i % 10, delay => make_interval(secs => 0.02 * (i / 10)), on_conflict => 'return')) FROM generate_series(1, 10) i");
all_succeed('route-hash');
sql("SELECT count(retry.enqueue('route-hash', '2', key => 'k' || i)) FROM generate_series(0, 9) i");
sql("SELECT count(retry.enqueue('route-hash', '2', reference => 'k' || i)) FROM generate_series(0, 9) i");
all_succeed('route-hash');
is(sql("SELECT count(*) FROM (SELECT coalesce(t.key, t.reference) FROM retry.attempt a JOIN retry.task t ON t.leaf = a.leaf AND t.id = a.task_id WHERE coalesce(t.key, t.reference) LIKE 'k_' GROUP BY 1 HAVING count(*) = 3 AND count(DISTINCT a.target) = 1) k"),
	'10', 'hash: the same key, else the same reference, the same target');

# Weights.
scene('weighted', 'round_robin', [ "$target[0] weight=1", "$target[1] weight=3", "$target[2]   weight=6" ]);
is(join(' ', deliver('weighted', 100)), '10 30 60', 'weights share the work');

# Targets that change are live for the next attempt; a task's own URL is not routed.
sql("UPDATE retry.scene SET targets = " . targets($target[2]) . " WHERE name = 'weighted'");
is(join(' ', deliver('weighted', 50)), '0 0 50', 'other targets are live at once');
is(join(' ', deliver('weighted', 10, ", url => '$target[0]'")), '10 0 0', 'a task with a URL goes there');
is(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/weighted' AND url IS NOT NULL AND lane = retry.origin(url)"),
	'10', 'through the lane of its origin');
is(sql("SELECT count(*) FROM retry.attempt a JOIN retry.task t ON t.leaf = a.leaf AND t.id = a.task_id WHERE t.url IS NOT NULL AND a.target IS NOT NULL"),
	'0', 'and no target is noted for it');

# Failover: the first refuses, then fails, then works again.
scene('failover', 'first', \@target);
$receivers[0]->stop;
$receivers[1]->mode('status:503');
sql("SELECT count(retry.enqueue('failover', '{}')) FROM generate_series(1, 200) i");
all_succeed('failover');

# Tasks go to that target, some time from now on.
sub comes_to
{
	my ($wanted, $what) = @_;
	wait_for(
		sub {
			my $id = enqueue($node, "'failover'");
			sql("SELECT retry.wait('$id')");
			return sql("SELECT target FROM retry.attempts WHERE task_id = '$id' ORDER BY attempt_no DESC LIMIT 1") eq $wanted;
		},
		$what);
	return;
}
is(sql("SELECT string_agg(DISTINCT target, ' ') FROM retry.attempts WHERE scene = 'default/failover' AND outcome = 'succeeded'"),
	$target[2], 'failover: the third did all of the work');
cmp_ok(sql("SELECT count(*) FROM retry.attempts WHERE scene = 'default/failover' AND outcome = 'failed'"),
	'<=', 130, 'failover: the others cost what was under way when they failed, and probes');
wait_sql($node, "SELECT string_agg(state || CASE WHEN failures > 0 AND out_since < now() THEN ' failed' ELSE '' END, ', ' ORDER BY array_position("
	  . targets(@target) . ", target)) FROM retry.targets WHERE scene = 'default/failover'",
	'failover: retry.targets shows them', expected => 'out failed, out failed, well');
$receivers[1]->mode('up');
comes_to($target[1], 'failover: the second heals and has the work');
$receivers[0]->start;
comes_to($target[0], 'failover: then the first');
$_->reset foreach @receivers;

# None works: the lane waits, nothing is counted but probes, others go on, and
# what is known survives a change of the configuration.
scene('none', 'random', [ @target[ 0, 1 ] ], 'max_attempts', 30);
$receivers[$_]->mode('status:503') foreach 0, 1;
sql("SELECT count(retry.enqueue('none', '{}', key => 'n' || i)) FROM generate_series(1, 100) i");
wait_for(sub { $receivers[0]->stats->{total} >= 3 && $receivers[1]->stats->{total} >= 3 }, 'none: both were probed');
sql("UPDATE retry.scene SET description = 'changed' WHERE name = 'failover'");
my $other = enqueue($node, "'route-last'");
wait_state($node, $other, 'succeeded', description => 'none: others go on');
my ($attempts, $most) = split /\|/, sql("SELECT count(*), max(attempt_no) FROM retry.attempts WHERE scene = 'default/none'");
cmp_ok($attempts, '<=', 75, "none: what was under way, then a probe at a time ($attempts)");
is(sql("SELECT count(*) FROM retry.attempts WHERE scene = 'default/none' AND (target IS NULL OR outcome <> 'failed')"), '0',
	'none: nothing is recorded but those');
cmp_ok(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/none' AND state = 'pending'"), '>=', 30,
	'none: most tasks have not been counted an attempt');

wait_sql($node, "SELECT string_agg(DISTINCT held_reason, ', ') FROM retry.tasks WHERE scene = 'default/none' AND state = 'pending'",
	'none: they say why', expected => 'no healthy target');

# No busy loop while it waits: what the dispatcher turns.
my $turns = sql('SELECT turns FROM retry.dispatchers');
wait_sql($node, "SELECT last_turn_at > '" . sql('SELECT clock_timestamp()') . "' FROM retry.dispatchers", 'none: the dispatcher turns on');
cmp_ok(sql('SELECT turns FROM retry.dispatchers') - $turns, '<', 30, 'none: but not all the time');

# One that is cancelled while it waits is not sent.
my $cancelled = enqueue($node, "'none', '{}', key => 'cancelled'");
is(sql("SELECT retry.cancel('$cancelled')"), 't', 'none: one is cancelled');
my $told = "SELECT string_agg(DISTINCT target, ' ' ORDER BY target) FROM retry.events WHERE scene = 'default/none' AND kind = 'target out'";
wait_sql($node, $told, 'none: an event tells of each', expected => join(' ', sort @target[ 0, 1 ]));
$receivers[$_]->mode('up') foreach 0, 1;
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/none' AND state NOT IN ('succeeded', 'cancelled', 'dead')",
	'none: when one works again all go', expected => '0');
wait_sql($node, "SELECT count(*) > 0 FROM retry.events WHERE scene = 'default/none' AND kind = 'target back' AND target IN ('$target[0]', '$target[1]')",
	'none: and an event tells so');
is(scalar(map { $_->ledger('cancelled') } @receivers), 0, 'none: but the one cancelled');

# Expiry, with a target that nothing answers at for as long as it takes.
scene('gone', 'first', ['http://127.0.0.1:1/']);
wait_sql($node, "SELECT count(*) >= 3 FROM retry.attempts WHERE task_id = '" . enqueue($node, "'gone', '{}'") . "'", 'gone: it is out for longer and longer');
my $doomed = enqueue($node, "'gone', '{}', expires_at => clock_timestamp() + interval '300 ms'");
wait_state($node, $doomed, 'dead', description => 'gone: a task whose time is over dies while it waits');
is(sql("SELECT reason || ' ' || attempts FROM retry.dead_letters WHERE id = '$doomed'"), 'expired 1', 'gone: of that');
is(sql("SELECT count(*) FROM retry.attempts WHERE task_id = '$doomed' AND outcome <> 'expired'"), '0', 'gone: without having been sent');

# Targets that replace those that do not work: at once, not at the next probe.
sql("UPDATE retry.scene SET targets = " . targets($target[0]) . " WHERE name = 'gone'");
all_but_dead('gone');

# A scene that is given a URL instead.
sql("UPDATE retry.scene SET targets = " . targets('http://127.0.0.1:1/moved') . " WHERE name = 'gone'");
my $moved = enqueue($node, "'gone', '{}'");
wait_sql($node, "SELECT count(*) > 0 FROM retry.attempts WHERE task_id = '$moved'", 'moved: tried in vain');
sql("UPDATE retry.scene SET targets = NULL, url = '$target[1]' WHERE name = 'gone'");
wait_state($node, $moved, 'succeeded', description => 'moved: goes to the URL that its scene has now');

sub all_but_dead
{
	my ($scene) = @_;

	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/$scene' AND state NOT IN ('succeeded', 'dead')",
		"$scene: new targets are live at once", expected => '0');
	return;
}

# A call in the session is routed too, away from what has failed in it.
scene('called', 'first', [ 'http://127.0.0.1:1/', $target[1], $target[2] ]);
$receivers[1]->mode('status:503');
is(sql("SELECT state || ' ' || attempts || ' ' || http_status FROM retry.call('called', '{}', mode => 'local', local_interval => '10 ms')"),
	'succeeded 3 200', 'call: fails over to the third');
is(sql("SELECT state || ' ' || attempts || ' ' || http_status FROM retry.call('called', '{}', mode => 'local', local_interval => '10 ms', local_attempts => 2)"),
	'dead 2 503', 'call: or fails when there are no more attempts');
$receivers[1]->mode('up');

# Fan-out: an order event for three consumers, one of which is broken.
my @consumers = map { start_endpoint() } 1 .. 3;
scene('order-event', 'all', [ map { $_->url('/ok/event') } @consumers ], 'max_attempts', 50);
$consumers[1]->mode('hang');
sql("SELECT count(retry.enqueue('order-event', jsonb_build_object('order', i), key => 'order-' || i, timeout => '2 s')) FROM generate_series(1, 40) i");
wait_for(sub { $consumers[0]->stats->{total} == 40 && $consumers[2]->stats->{total} == 40 },
	'fan-out: the other two have all events while the third hangs');
is(sql("SELECT count(DISTINCT parent_id) || ' ' || count(*) FROM retry.tasks WHERE scene = 'default/order-event'"),
	'40 120', 'fan-out: a task for each of them, and one parent an event');
is($consumers[0]->stats->{distinct}, 40, 'fan-out: the receiver sees the caller\'s key …');
is(scalar($consumers[2]->ledger('order-7')), 1, 'fan-out: … as it was given');
my $event = sql("SELECT DISTINCT parent_id FROM retry.tasks WHERE key = 'order-7' AND scene = 'default/order-event'");
is(sql("SELECT retry.enqueue('order-event', '{}', key => 'order-7') = '$event'"), 't', 'fan-out: enqueued again it has the same parent');
is(sql("SELECT count(*) FROM retry.tasks WHERE parent_id = '$event'"), '5',
	'fan-out: and new tasks for those whose first had finished');
$consumers[1]->mode('up');
all_succeed('order-event');
cmp_ok($consumers[1]->stats->{distinct}, '==', 40, 'fan-out: the third has all when it works again');

$node->stop;
done_testing();
