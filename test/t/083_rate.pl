# Rates of scenes: counted where the requests arrive.  The upper bounds are what
# is promised, with a little room for requests that were sent in time and came
# late; the lower bounds only show that the rate is used.
# Slow.
use strict;
use warnings FATAL => 'all';

use List::Util qw(max min);
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main');
my $receiver = start_endpoint();

# A scene of its own for each part; its requests have a path of their own.
sub scene
{
	my ($name, $rate, $more) = @_;
	my $url = $receiver->url("/ok/$name");

	$node->safe_psql('postgres', sprintf(
		"INSERT INTO retry.scene (group_name, name, url, rate%s) VALUES ('default', '%s', '%s', %s%s)",
		join('', map { ", $_" } sort keys %{ $more // {} }),
		$name, $url, defined $rate ? "'$rate'" : 'NULL',
		join('', map { ", $more->{$_}" } sort keys %{ $more // {} })));
	return;
}

sub enqueue_many
{
	my ($name, $count, $more) = @_;

	$node->safe_psql('postgres', "SELECT count(retry.enqueue('$name', '{}'" . ($more // '') . ")) FROM generate_series(1, $count) i");
	return;
}

# When its requests arrived, in seconds, the first at 0.
sub arrivals
{
	my ($name) = @_;
	my @at = sort { $a <=> $b } map { $_->{mono_us} / 1e6 } grep { $_->{path} eq "/ok/$name" } $receiver->ledger;

	return map { $_ - $at[0] } @at;
}

sub arrived
{
	my ($name) = @_;

	# not taken apart: it is looked at often, and is long
	return scalar(() = $receiver->control('/_ledger') =~ m{"path":"/ok/\Q$name\E"}g);
}

sub await
{
	my ($name, $count, $what, %more) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_for(sub { arrived($name) >= $count }, $what,
		diag => sub { explain RetryTest::picture($node, 'postgres') }, %more);
}

# Most that arrived in any window of so many seconds.
sub most_within
{
	my ($seconds, @at) = @_;
	my ($most, $first) = (0, 0);

	foreach my $last (0 .. $#at)
	{
		$first++ while $at[$last] - $at[$first] >= $seconds;
		$most = max($most, $last - $first + 1);
	}
	return $most;
}

sub check_rate
{
	my ($name, $rate, $count) = @_;
	my @at = arrivals($name);
	my $most = most_within(5, @at);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok($most, '<=', 5 * $rate * 1.05 + 1, "$name: no more than the rate in any 5 s ($most)");
	cmp_ok($at[-1], '<=', 1.5 * $count / $rate, sprintf('%s: %d in %.2f s', $name, scalar @at, $at[-1]));
	return;
}

sub check_all
{
	my ($name, $rate, $count, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	await($name, $count, $what);
	check_rate($name, $rate, $count);
	return;
}

# One lane, and many.
scene('one-lane', '100/s');
scene('many-lanes', '200/s');
enqueue_many('one-lane', 1000);
enqueue_many('many-lanes', 1600, ", lane => 'many' || i % 200, key => i::text");
check_all('one-lane', 100, 1000, 'one lane: all arrive');
check_all('many-lanes', 200, 1600, 'many lanes: all arrive');
is($receiver->stats->{duplicates}, 0, 'each once');

# Lanes that wait are served in turn.
my %half;
my @keys = map { $_->{key} } grep { $_->{path} eq '/ok/many-lanes' } $receiver->ledger;
$half{ $_ % 200 }++ foreach @keys[0 .. 799];
cmp_ok(min(map { $half{$_} // 0 } 0 .. 199), '>=', 2, 'of 200 lanes with 8 each, all have got 2 when half are through');

# A slow rate that changes while its lanes wait, and ends.
scene('changed', '1/h');
enqueue_many('changed', 2000, ", lane => 'c' || i % 10");
await('changed', 1, 'slow: the first goes at once');
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/changed' AND state <> 'pending'", 'slow: the others wait', expected => 1);
$node->safe_psql('postgres', "UPDATE retry.scene SET rate = '100/s' WHERE name = 'changed'");
await('changed', 700, 'a faster rate counts for those that wait');
check_rate('changed', 100, 700);
$node->safe_psql('postgres', "UPDATE retry.scene SET rate = NULL WHERE name = 'changed'");
await('changed', 2000, 'and none lets them all go');
cmp_ok(most_within(5, arrivals('changed')), '>', 1000, 'at once');
is($node->safe_psql('postgres', "UPDATE retry.scene SET rate = '1/d' WHERE name = 'changed' RETURNING rate"), '1/d', 'a rate once more');
enqueue_many('changed', 3, ", lane => 'c' || i");
await('changed', 2001, 'which begins anew');

# A burst, then the rate.
scene('burst', '20/m burst 3');
enqueue_many('burst', 5, ", lane => 'b' || i");
await('burst', 5, 'a burst: all arrive');
my @burst = arrivals('burst');
cmp_ok($burst[2], '<', 2, 'three at once');
cmp_ok($burst[3], '>', 2.9, 'the fourth after three seconds');
cmp_ok($burst[4], '>', 5.9, 'the fifth after six');

# What is not sent takes nothing: those that have expired, and those in front of
# a rate that was spent when they were asked.
scene('unsent', '1/h', { paused => 'true' });
enqueue_many('unsent', 20, ", lane => 'u' || i, expires_at => clock_timestamp() + interval '200 ms'");
wait_sql($node, "SELECT bool_and(expires_at < clock_timestamp()) FROM retry.task WHERE lane ~ '^u'", 'they expire', expected => 't');
enqueue_many('unsent', 1, ", lane => 'unexpired'");
$node->safe_psql('postgres', "UPDATE retry.scene SET paused = false WHERE name = 'unsent'");
await('unsent', 1, 'twenty that expired have taken nothing');
wait_sql($node, "SELECT count(*) FROM retry.dead_letters WHERE scene = 'default/unsent'", 'and are dead', expected => 20);
enqueue_many('unsent', 1, ", lane => 'late', expires_at => clock_timestamp() + interval '300 ms'");
wait_sql($node, "SELECT count(*) FROM retry.dead_letters WHERE scene = 'default/unsent'", 'who expires while it waits for its turn is dead in time', expected => 21);

# Nor does what is put back before it is sent.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION called(payload jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
INSERT INTO retry.scene (name, url, rate) VALUES ('put-back', 'sql:public.called', '1/h');
ALTER SYSTEM SET retry.sql_workers = 0;
SQL
$node->reload;
wait_sql($node, "SELECT setting FROM pg_settings WHERE name = 'retry.sql_workers'", 'no executors', expected => 0);
enqueue_many('put-back', 1);
wait_sql($node, "SELECT status FROM retry.health() WHERE check_name = 'sql_workers'", 'put back: it waits for an executor', expected => 'warning');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET retry.sql_workers');
$node->reload;
wait_sql($node, "SELECT state FROM retry.tasks WHERE scene = 'default/put-back'", 'put back: it has taken nothing', expected => 'succeeded');

# Retries count.
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (group_name, name, url, rate, backoff, retry_share, breaker_ratio)
VALUES ('default', 'flaky', '${\$receiver->url('/flaky/1')}', '50/s', 'fixed 10ms', NULL, NULL);
SELECT count(retry.enqueue('flaky', '{}', lane => 'r' || i % 5)) FROM generate_series(1, 200) i;
SQL
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/flaky' AND state = 'succeeded'", 'retries: all succeed', expected => 200);
my @flaky = sort { $a <=> $b } map { $_->{mono_us} / 1e6 } grep { $_->{path} eq '/flaky/1' } $receiver->ledger;
is(scalar @flaky, 400, 'retries: each twice');
cmp_ok(most_within(5, @flaky), '<=', 264, 'retries count');

# So do calls in a session, which wait for their turn as long as they may.
scene('called', '2/s burst 1');
scene('called-once', '1/h');
# calls heed the rate from when a dispatcher has read of it
scene('read', undef);
enqueue_many('read', 1);
wait_sql($node, "SELECT state FROM retry.tasks WHERE scene = 'default/read'", 'the dispatcher knows of these scenes', expected => 'succeeded');
my $call = "SELECT concat_ws('|', state, attempts, error) FROM retry.call('%s', '{}', local_attempts => %d, local_interval => '1 s', mode => '%s')";
wait_sql($node, sprintf($call, 'called-once', 1, 'local'), 'a call takes what there is', expected => 'succeeded|1');
is($node->safe_psql('postgres', sprintf($call, 'called-once', 1, 'local')), 'dead|0|the rate of its scene is spent', 'and then there is nothing left');
is($node->safe_psql('postgres', sprintf($call, 'called-once', 3, 'local_remote')), 'pending|0|the rate of its scene is spent', 'for a task it is left to wait');
is($node->safe_psql('postgres', sprintf($call, 'called', 3, 'local')), 'succeeded|1', "call $_ waits for its turn") foreach 1 .. 4;
my @called = arrivals('called');
cmp_ok($called[3], '>', 1.3, 'calls have their moments');
is(arrived('called-once'), 1, 'what had no turn was not called');

# A restart brings no second burst.
scene('restart', '1/m burst 40');
enqueue_many('restart', 60);
await('restart', 40, 'restart: a burst');
$node->restart;
wait_sql($node, 'SELECT count(*) FROM retry.dispatchers', 'restart: it runs again', expected => 1);
my $id = enqueue($node, "'${\$receiver->url('/ok')}'");
wait_state($node, $id, 'succeeded', description => 'restart: others are delivered');
cmp_ok(arrived('restart'), '<=', 42, 'restart: no second burst');

# Several dispatchers share a rate, and each has its part.
$node->append_conf('postgresql.conf', 'retry.dispatchers = 3');
$node->reload;
wait_sql($node, 'SELECT count(*) FROM retry.dispatchers', 'three dispatchers', expected => 3);
scene('shared', '200/s');
scene('shared-few', '100/s');
enqueue_many('shared', 2000, ", lane => 's' || i % 100");
enqueue_many('shared-few', 600, ", lane => 'f' || i % 2");
check_all('shared', 200, 2000, 'shared: all arrive');
check_all('shared-few', 100, 600, 'shared by few: all arrive');

# More scenes with a rate than there is room for: those that find none are not
# faster for it, and there is room again when others end.
$node->safe_psql('postgres', "INSERT INTO retry.scene (name, rate) SELECT 'fill' || i, '1/s' FROM generate_series(1, 4200) i");
scene('no-room', '50/s');
enqueue_many('no-room', 400, ", lane => 'n' || i % 60");
await('no-room', 400, 'no room: all arrive');
my $crowded = most_within(5, arrivals('no-room'));
cmp_ok($crowded, '<=', 5 * 50 * 1.05 + 3, "no room: no more than the rate in any 5 s ($crowded)");
like(slurp_file($node->logfile), qr/more than 4096 scenes of this server have a rate/, 'no room: it is told');
$node->safe_psql('postgres', "DELETE FROM retry.scene WHERE name ~ '^fill'");
scene('room', '100/s');
enqueue_many('room', 600, ", lane => 'm' || i % 2");
check_all('room', 100, 600, 'room again: all arrive');

# When one of them goes, the others take over its lanes, and nothing it had
# reserved is waited for.
scene('handed', '30/m');
enqueue_many('handed', 12, ", lane => 'h' || i");
await('handed', 3, 'handed over: some arrive');
$node->safe_psql('postgres', 'ALTER SYSTEM SET retry.dispatchers = 1');
$node->reload;
wait_sql($node, 'SELECT count(*) FROM retry.dispatchers', 'one dispatcher', expected => 1);
await('handed', 12, 'handed over: all arrive');
my @handed = arrivals('handed');
cmp_ok(most_within(10, @handed), '<=', 8, 'handed over: at the same rate');
cmp_ok($handed[-1], '<', 40, 'handed over: without long pauses');

$node->stop;
done_testing();
