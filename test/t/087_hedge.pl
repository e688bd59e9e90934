# Hedged requests: an attempt that lasts longer than nearly all others is sent a
# second time, one of the two answers counts, and to everybody but the receiver
# there was one attempt.
#
# What is slow here is slower than any timeout of these tests: a task that ends
# in time has been hedged, however busy the machine is.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => "retry.max_response_bytes = 1kB");
my $receiver = start_endpoint();
my $never = 600_000;    # ms

sub sql
{
	return ask($node, $_[0]);
}

# A scene that hedges, unless told otherwise, with attempts that take a while.
sub scene
{
	my ($name, $columns, $values) = @_;

	sql("INSERT INTO retry.scene (name, url, method, timeout, backoff" . ($columns ? ", $columns" : '')
		  . ") VALUES ('$name', '" . $receiver->url('/ok') . "', 'POST', '5 min', 'fixed 100ms'"
		  . ($values ? ", $values" : '') . ')');
	return;
}

# Quick successes, enough to know what nearly all take.  One that is not so quick
# on a busy machine may be hedged itself: the receiver forgets them.
my $histories = 0;

sub history
{
	my ($name, $count, $url) = @_;
	my $mark = 'history ' . ++$histories;
	my $to = $url ? ", url => '$url'" : '';

	$count //= 60;
	sql("SELECT count(retry.enqueue('$name', '{}', reference => '$mark'$to)) FROM generate_series(1, $count)");
	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/$name' AND reference = '$mark' AND state = 'succeeded'",
		"$name: has a history", expected => $count);
	wait_for(sub { $receiver->stats->{in_progress} == 0 }, "$name: nothing of it is under way");
	$receiver->reset;
	return;
}

# One task to a path; its id.
sub task
{
	my ($name, $path, $more) = @_;
	my $url = $path =~ /^http/ ? $path : $receiver->url($path);

	return enqueue($node, "'$name', '{\"n\": 1}', url => '$url'" . ($more ? ", $more" : ''));
}

# The attempts of a task as a string: outcome, status, hedged, target or address.
sub attempts
{
	my ($id) = @_;

	return sql("SELECT string_agg(concat_ws(' ', attempt_no, outcome, coalesce(http_status::text, 'none'), coalesce(hedged::text, 'null')), ', ' ORDER BY attempt_no) FROM retry.attempts WHERE task_id = '$id'");
}

sub requests
{
	my ($id) = @_;

	return scalar $receiver->ledger($id);
}

# What the receiver has of the losers: the client closes, the receiver notices.
sub aborted
{
	my ($expected, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_for(sub { $receiver->stats->{aborted} == $expected }, $description);
}

# The first answer wins
scene('hedged', 'hedge, max_in_flight', 'true, 50');
history('hedged');
is(sql("SELECT bool_and(hedged IS NOT NULL), bool_or(NOT hedged) FROM retry.attempts WHERE scene = 'default/hedged'"), 't|t',
	'attempts say that quick ones were not sent twice');

sql("CREATE TABLE told (n int); CREATE FUNCTION tell(payload jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO told VALUES (1)'");
my @ids = map { task('hedged', "/slow-first/$never", "on_success => 'sql:public.tell'") } 1 .. 10;
wait_state($node, $_, 'succeeded', description => 'the second transfer is answered') foreach @ids;
is(attempts($_), '1 succeeded 200 true', 'one attempt, and it was hedged') foreach @ids[ 0, 9 ];
is(sql("SELECT count(*) FROM retry.attempts WHERE task_id = ANY ('{" . join(',', @ids) . "}')"), 10, 'one row each');
is(sql("SELECT DISTINCT convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = ANY ('{" . join(',', @ids) . "}')"), '{"visit":2}',
	'with the answer of the second');
is(sql("SELECT bool_and(first_byte_us * interval '1 us' <= duration AND remote_address = '127.0.0.1' AND started_at < finished_at) FROM retry.attempts WHERE hedged"),
	't', 'its times are those of the whole attempt');
aborted(10, 'the losers are aborted');
foreach my $id ($ids[0])
{
	my @got = $receiver->ledger($id);

	is(scalar @got, 2, 'the receiver got it twice');
	is($got[0]{key}, $id, 'with its key');
	is(join(' ', map { $got[0]{$_} } qw(method path key attempt body_length)),
		join(' ', map { $got[1]{$_} } qw(method path key attempt body_length)), 'and it was the same');
}
wait_sql($node, 'SELECT count(*) FROM told', 'who is to be told is told once', expected => 10);
is(sql("SELECT count(*) FROM retry.running"), 0, 'nothing is left under way');

# Also when that was the first one
my $first = task('hedged', '/delay/1500');
wait_state($node, $first, 'succeeded', description => 'as slow the second time: the first is answered');
is(attempts($first), '1 succeeded 200 true', 'and hedged all the same');
is(requests($first), 2, 'sent twice');
aborted(11, 'the second is aborted');

# What is no answer, or a bad one, waits for the other
my $bad = task('hedged', '/slow-first/1500?first=200&then=503');
wait_state($node, $bad, 'succeeded', description => 'the second gets a 503 at once: the first is awaited');
is(attempts($bad), '1 succeeded 200 true', 'in one attempt');
$bad = task('hedged', '/slow-first/1500?first=503&then=500', 'max_attempts => 1');
wait_state($node, $bad, 'dead', description => 'both are bad');
is(attempts($bad), '1 failed 500 true', 'the first to end counts, once');
is(sql("SELECT reason FROM retry.dead_letters WHERE id = '$bad'"), 'exhausted', 'one dead letter');
$bad = task('hedged', "/slow-first/$never?then=404", 'max_attempts => 1');
wait_state($node, $bad, 'dead', description => 'a refusal is an answer');
is(attempts($bad), '1 failed 404 true', 'and the other is not awaited');

# Never
scene('quiet');
history('quiet');
my $id = task('quiet', '/slow-first/1500');
wait_state($node, $id, 'succeeded');
is(attempts($id) . '; ' . requests($id), '1 succeeded 200 null; 1', 'off by default');

scene('young', 'hedge', 'true');
history('young', 10);
$id = task('young', '/slow-first/1500');
wait_state($node, $id, 'succeeded');
is(attempts($id) . '; ' . requests($id), '1 succeeded 200 false; 1', 'no history, no second');

# ten at once, and one a second
scene('poor', 'hedge, retry_share, retry_floor, max_in_flight', 'true, 0, 1, 200');
history('poor');
sql("SELECT count(retry.enqueue('poor', '{}', reference => 'poor', url => '" . $receiver->url('/slow-first/4000') . "')) FROM generate_series(1, 50) i");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE reference = 'poor' AND state = 'succeeded'", 'many slow ones', expected => 50);
my $hedged = sql("SELECT count(*) FILTER (WHERE hedged) FROM retry.attempts a JOIN retry.tasks t ON t.id = a.task_id WHERE t.reference = 'poor'");
cmp_ok($hedged, '<', 40, "not beyond the budget of retries: $hedged of 50");
is($receiver->stats->{duplicates}, $hedged, 'as the receiver has it');

scene('single', 'hedge, max_in_flight', 'true, 1');
history('single');
$id = task('single', '/slow-first/1500');
wait_state($node, $id, 'succeeded');
is(attempts($id) . '; ' . requests($id), '1 succeeded 200 false; 1', 'not beyond what the lane may have');

scene('rated', 'hedge', 'true');
history('rated');
sql("UPDATE retry.scene SET rate = '1/d burst 1' WHERE name = 'rated'");
$id = task('rated', '/slow-first/1500');
wait_state($node, $id, 'succeeded');
is(attempts($id) . '; ' . requests($id), '1 succeeded 200 false; 1', 'not beyond the rate of its scene');

scene('short', 'hedge', 'true');
history('short', 60, $receiver->url('/delay/1000'));
$id = task('short', '/slow-first/1500', "timeout => '400 ms', max_attempts => 1");
wait_state($node, $id, 'dead');
is(attempts($id) . '; ' . requests($id), '1 failed none false; 1', 'not when it times out before');

sql("CREATE FUNCTION slow(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb_build_object() FROM pg_sleep((payload->>0)::float8)'");
sql("INSERT INTO retry.scene (name, url, hedge, timeout) VALUES ('functions', 'sql:public.slow', true, '1 min')");
sql("SELECT count(retry.enqueue('functions', '[0]')) FROM generate_series(1, 30)");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/functions' AND state = 'succeeded'", 'functions', expected => 30);
$id = enqueue($node, "'functions', '[1]'");
wait_state($node, $id, 'succeeded');
is(attempts($id), '1 succeeded none null', 'functions are not called twice');

# Another target, where there is one
my $other = start_endpoint();
sql("INSERT INTO retry.scene (name, targets, route, timeout, backoff, hedge) VALUES ('routed', ARRAY['"
	  . $receiver->url('/ok') . "', '" . $other->url('/ok') . "'], 'first', '5 min', 'fixed 100ms', true)");
history('routed');
$other->reset;
$receiver->mode('hang');
$id = enqueue($node, "'routed', '{}'");
wait_state($node, $id, 'succeeded', description => 'the first target hangs: another one answers');
is(attempts($id), '1 succeeded 200 true', 'in one attempt');
is(sql("SELECT target FROM retry.attempts WHERE task_id = '$id'"), $other->url('/ok'), 'which names the one that answered');
is(scalar $other->ledger($id), 1, 'and got it once');

# the first target breaks while the second is at work
$other->mode('slow:2000');
$id = enqueue($node, "'routed', '{}'");
wait_for(sub { $other->stats->{in_progress} == 1 }, 'both are under way');
$receiver->stop('KILL');
wait_state($node, $id, 'succeeded', description => 'one breaks off: the other is awaited');
is(attempts($id), '1 succeeded 200 true', 'and counts');
is(sql("SELECT target FROM retry.attempts WHERE task_id = '$id'"), $other->url('/ok'), 'from the target that answered');
$receiver->start;

# Meanwhile
history('hedged');
$receiver->mode('hang');
$id = task('hedged', '/ok');
wait_for(sub { $receiver->stats->{in_progress} == 2 }, 'both transfers hang');
is(sql("SELECT attempt_no FROM retry.running WHERE id = '$id'"), 1, 'to people it is one attempt');
sql("SELECT retry.cancel('$id')");
# It comes back later: libcurl repeats by itself what a used connection has lost.
$receiver->stop('KILL');
wait_sql($node, "SELECT count(*) FROM retry.attempts WHERE task_id = '$id'", 'cancelled meanwhile: its attempt is recorded', expected => 1);
$receiver->start;
is(attempts($id), '1 failed none true', 'as it ended');
wait_state($node, $id, 'cancelled');

$receiver->mode('hang');
$id = task('hedged', '/ok');
wait_for(sub { $receiver->stats->{in_progress} == 2 }, 'both hang');
$receiver->mode('up');
$node->restart;
wait_state($node, $id, 'succeeded', description => 'a restart meanwhile: it is delivered afterwards');
is(attempts($id), '1 succeeded 200 false', 'in its first attempt, without a history');
wait_for(sub { $receiver->stats->{in_progress} == 0 }, 'nothing is left under way at the receiver');

history('hedged');
$receiver->mode('hang');
$id = task('hedged', '/ok');
wait_for(sub { $receiver->stats->{in_progress} == 2 }, 'both hang');
$receiver->mode('up');
$node->stop('immediate');
$node->start;
wait_state($node, $id, 'succeeded', description => 'a crash meanwhile: it is delivered afterwards');
is(attempts($id), '1 succeeded 200 false', 'and recorded once');

# Many at once, half of them slow; with places for second transfers of all, since
# one that finds none when its moment has come is not sent.
sql("UPDATE retry.scene SET max_in_flight = 100 WHERE name = 'hedged'");
history('hedged');
$receiver->control('/_reset');
sql("SELECT count(retry.enqueue('hedged', '{}', reference => 'many', url => '" . $receiver->url('') . "' || CASE WHEN i % 2 = 0 THEN '/slow-first/$never' ELSE '/ok' END)) FROM generate_series(1, 40) i");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE reference = 'many' AND state = 'succeeded'", 'many', expected => 40);
is(sql("SELECT count(*) FILTER (WHERE hedged) >= 20, count(*) FROM retry.attempts a JOIN retry.tasks t ON t.id = a.task_id WHERE t.reference = 'many'"),
	't|40', 'each in one attempt, the slow ones hedged');
is($receiver->stats->{duplicates},
	sql("SELECT count(*) FILTER (WHERE hedged) FROM retry.attempts a JOIN retry.tasks t ON t.id = a.task_id WHERE t.reference = 'many'"),
	'which is as often as the receiver got one again');

done_testing();
