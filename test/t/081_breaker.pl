# Breakers: what fails is left alone, nothing is sent, recorded or used up while
# one is open, single calls find out when it works again, and the rest of the
# world does not notice.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Clock;
use Test::More;

my $clock = RetryTest::Clock->new;
my $node = new_node('main', start => 0, conf => "retry.max_in_flight = 128\nrestart_after_crash = on");
my $healthy = start_endpoint();
$clock->start($node);
$node->safe_psql('postgres', 'CREATE EXTENSION retry');

sub sql
{
	return ask($node, $_[0]);
}

# A scene whose lane sends one at a time, so that everything can be counted.
sub scene
{
	my ($name, $url, %set) = @_;
	my %column = (
		backoff => "'fixed 50ms'",
		max_attempts => 1000000,
		max_in_flight => 1,
		retry_share => 'NULL',
		%set);

	$column{url} = "'$url'" if defined $url;
	my @names = sort keys %column;
	sql("INSERT INTO retry.scene (name, " . join(', ', @names) . ") VALUES ('$name', "
		  . join(', ', map { $column{$_} } @names) . ')');
	return;
}

sub tasks
{
	my ($scene, $count) = @_;

	sql("SELECT count(retry.enqueue('$scene', to_jsonb(i))) FROM generate_series(1, $count) i");
	return;
}

sub events
{
	my ($scene) = @_;

	return sql("SELECT coalesce(string_agg(kind, ', ' ORDER BY at), '') FROM retry.events WHERE scene = 'default/$scene' AND kind <> 'configuration changed'");
}

sub events_are
{
	my ($scene, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_sql($node, "SELECT coalesce(string_agg(kind, ', ' ORDER BY at), '') FROM retry.events WHERE scene = 'default/$scene' AND kind <> 'configuration changed'",
		$what, expected => $expected);
	return;
}

sub attempts
{
	my ($scene) = @_;

	return sql("SELECT count(*) FROM retry.attempts WHERE scene = 'default/$scene'");
}

# The dispatcher goes on with everything else for so many turns.
sub time_passes
{
	my ($what) = @_;
	my $turns = sql('SELECT sum(turns) FROM retry.dispatchers');
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $n (1 .. 20)
	{
		my $id = enqueue($node, "'" . $healthy->url('/ok') . "'");
		wait_sql($node, "SELECT state FROM retry.tasks WHERE id = '$id'", "$what: others go on ($n)", expected => 'succeeded');
	}
	cmp_ok(sql('SELECT sum(turns) FROM retry.dispatchers'), '>', $turns, "$what: in many turns");
	return;
}

sub all_succeed
{
	my ($scene, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/$scene' AND state <> 'succeeded'",
		"$what: all succeed", expected => '0');
	return;
}

# It opens after the sample, and then nothing happens in its lane.
my $bad = start_endpoint();
$bad->mode('status:500');
scene('bad', $bad->url('/ok'), breaker_open => "'1 h'");
tasks('bad', 100);
events_are('bad', 'breaker opened', 'bad: its breaker opens');
is($bad->stats->{total}, 20, 'bad: after 20 calls');
wait_sql($node, "SELECT count(*) FROM retry.running WHERE scene = 'default/bad'", 'bad: the last is recorded', expected => '0');
is(attempts('bad'), 20, 'bad: which are recorded');
is(sql("SELECT lane FROM retry.events WHERE scene = 'default/bad' AND kind = 'breaker opened'"),
	sql("SELECT DISTINCT lane FROM retry.tasks WHERE scene = 'default/bad'"), 'bad: the event names the lane');
my $picture = "SELECT state, attempts, next_due FROM retry.tasks WHERE scene = 'default/bad' ORDER BY id";
my $before = sql($picture);
time_passes('bad');
tasks('bad', 50);
time_passes('bad');
is($bad->stats->{total}, 20, 'bad: nothing more has been sent');
is(attempts('bad'), 20, 'bad: nor recorded');
is(join("\n", (split /\n/, sql($picture))[ 0 .. 99 ]), $before, 'bad: no task has been touched');
is(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/bad' AND state = 'pending' AND attempts = 0"),
	80 + 50, 'bad: most have not used up any attempt');

wait_sql($node, "SELECT string_agg(DISTINCT held_reason, ', ') FROM retry.tasks WHERE scene = 'default/bad' AND state IN ('pending', 'retrying')",
	'bad: the tasks say why', expected => 'breaker');
sql("CREATE ROLE clerk; SELECT retry.grant('clerk', 'default')");
is(sql("SET ROLE clerk; SELECT count(*) FROM retry.lanes"), '0', 'bad: lanes of the shared group are not for all who use it');
sql("SET ROLE clerk; SELECT retry.enqueue('bad')");
is(sql("SET ROLE clerk; SELECT held_reason FROM retry.tasks"), 'breaker', 'bad: but why a task of theirs waits is');

# A clock that is moved opens nothing.
$clock->set(2 * 86400);
time_passes('bad, two days later');
is($bad->stats->{total}, 20, 'bad: nothing is sent, however late it seems to be');
$clock->set(0);
time_passes('bad, the clock set back');
is($bad->stats->{total}, 20, 'bad: nor now');

# Asked for by hand, it waits as well: what does not work does not work.
my $asked = sql("SELECT id FROM retry.tasks WHERE scene = 'default/bad' AND state = 'retrying' LIMIT 1");
sql("SELECT retry.run_now('$asked')");
time_passes('bad, with one asked for');
is($bad->stats->{total}, 20, 'bad: nor when it is asked for');

# Other settings count at once; without a ratio it never opens again.
sql("UPDATE retry.scene SET breaker_ratio = NULL WHERE name = 'bad'");
events_are('bad', 'breaker opened, breaker closed', 'bad: without a ratio it closes');
wait_for(sub { $bad->stats->{total} > 300 }, 'bad: and all of it is sent, again and again');
is(events('bad'), 'breaker opened, breaker closed', 'bad: without opening');
sql("UPDATE retry.scene SET breaker_ratio = 1, breaker_calls = 50 WHERE name = 'bad'");
events_are('bad', 'breaker opened, breaker closed, breaker opened', 'bad: with one, it opens');
my $total = $bad->stats->{total};
time_passes('bad, open again');
is($bad->stats->{total}, $total, 'bad: and nothing is sent');
sql("UPDATE retry.scene SET breaker_open = '200 ms' WHERE name = 'bad'");
$bad->mode('up');
all_succeed('bad', 'bad, open for a shorter time');
events_are('bad', 'breaker opened, breaker closed, breaker opened, breaker closed', 'bad: it has closed');

# Probes: one at a time, and no news as long as they fail.
my $ill = start_endpoint();
scene('ill', $ill->url('/delay/30?status=500'), max_in_flight => 20, breaker_open => "'100 ms'");
tasks('ill', 200);
events_are('ill', 'breaker opened', 'ill: its breaker opens');
wait_sql($node, "SELECT count(*) FROM retry.running WHERE scene = 'default/ill'", 'ill: what was under way has ended', expected => '0');
$ill->reset;
wait_for(sub { $ill->stats->{total} >= 4 }, 'ill: it is probed');
is($ill->stats->{max_in_progress}, 1, 'ill: by one call at a time');
is(events('ill'), 'breaker opened', 'ill: which is not noted');
is(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/ill' AND state = 'pending' AND attempts = 0") >= 100 ? 1 : 0,
	1, 'ill: most tasks wait untouched');
sql("UPDATE retry.scene SET url = '" . $ill->url('/ok') . "' WHERE name = 'ill'");
all_succeed('ill', 'ill, made well');
events_are('ill', 'breaker opened, breaker closed', 'ill: it is closed');

# A probe that hangs does not keep others from being sent afterwards.
my $hangs = start_endpoint();
$hangs->mode('status:500');
scene('hangs', $hangs->url('/ok'), breaker_open => "'2 s'", timeout => "'1 s'", connect_timeout => "'1 s'");
tasks('hangs', 30);
events_are('hangs', 'breaker opened', 'hangs: its breaker opens');
$hangs->mode('hang');
wait_for(sub { $hangs->stats->{aborted} >= 1 }, 'hangs: a probe hangs');
$hangs->mode('up');
all_succeed('hangs', 'hangs');

# No answer is a failure; an answer, whatever it says, is none.
scene('refused', 'http://127.0.0.1:1/', breaker_open => "'1 h'");
tasks('refused', 30);
events_are('refused', 'breaker opened', 'refused: a connection that is refused is a failure');
wait_sql($node, "SELECT count(*) FROM retry.running WHERE scene = 'default/refused'", 'refused: the last is recorded', expected => '0');
is(attempts('refused'), 20, 'refused: 20 of them are enough');
scene('missing', $healthy->url('/status/404'), max_in_flight => 10);
scene('unknown', $healthy->url('/status/501'), max_attempts => 3);
tasks('missing', 60);
tasks('unknown', 60);
wait_sql($node, "SELECT count(*) > 200 FROM retry.attempts WHERE scene = 'default/missing'", 'missing: answers of 404 go on');
wait_sql($node, "SELECT count(*) FROM retry.dead_letters WHERE scene = 'default/unknown'", 'unknown: so do those of 501', expected => '60');
is(events('missing') . events('unknown'), '', 'both: without a breaker');
sql("UPDATE retry.scene SET paused = true WHERE name IN ('missing', 'refused')");

# Functions of this database are called, too.
sql(<<'SQL');
CREATE SEQUENCE calls;
CREATE TABLE switch AS SELECT true AS broken;
CREATE FUNCTION works_at_times(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nextval('calls');
	IF (SELECT broken FROM switch) THEN
		RAISE 'broken';
	END IF;
	RETURN payload;
END $$;
SQL
scene('function', 'sql:public.works_at_times', breaker_open => "'300 ms'", breaker_calls => 10);
tasks('function', 50);
events_are('function', 'breaker opened', 'function: its breaker opens');
cmp_ok(sql('SELECT last_value FROM calls'), '>=', 10, 'function: after ten calls');
sql('UPDATE switch SET broken = false');
all_succeed('function', 'function');
events_are('function', 'breaker opened, breaker closed', 'function: it has closed');

# A target of a routed scene has a breaker of its own.
my @receivers = map { start_endpoint() } 1 .. 2;
my @target = map { $_->url('/ok/target') } @receivers;
scene('routed', undef, targets => "ARRAY['$target[0]', '$target[1]']", route => "'random'",
	max_in_flight => 4, breaker_calls => 4, breaker_ratio => 0.3, breaker_open => "'1 h'");
$receivers[0]->mode('status:500');
wait_for(
	sub {
		tasks('routed', 20);
		return events('routed') =~ /breaker opened/;
	},
	'routed: the breaker of a target opens');
is(sql("SELECT DISTINCT target FROM retry.events WHERE scene = 'default/routed' AND kind = 'breaker opened'"),
	$target[0], 'routed: of the one that fails');
my $shown = "SELECT string_agg(state || ' ' || breaker || CASE WHEN blocked_until > now() THEN ' blocked' ELSE '' END, ', ' ORDER BY target = '$target[0]' DESC)
	FROM retry.targets WHERE scene = 'default/routed'";
wait_sql($node, $shown, 'routed: retry.targets shows which is open', expected => 'breaker open blocked, well closed');
is(sql("SELECT failed BETWEEN 1 AND calls AND breaker_since < now() FROM retry.targets WHERE target = '$target[0]'"), 't', 'routed: and why');
sql('CREATE ROLE stranger');
is(sql('SET ROLE stranger; SELECT count(*) FROM retry.targets'), '0', 'routed: to those who may see the lanes of its group');
is(sql('SET ROLE pg_monitor; SELECT count(*) FROM retry.targets'), '2', 'routed: or all');
all_succeed('routed', 'routed, with one target left');
$_->reset foreach @receivers;
tasks('routed', 200);
all_succeed('routed', 'routed, afterwards');
is($receivers[0]->stats->{total}, 0, 'routed: nothing goes to the one that is open');
is($receivers[1]->stats->{total}, 200, 'routed: the other has it all');

# ... which has worked so often that it takes another ratio to count its failures.
$receivers[1]->mode('status:500');
sql("UPDATE retry.scene SET breaker_ratio = 0.01 WHERE name = 'routed'");
wait_for(
	sub {
		tasks('routed', 20);
		return sql("SELECT count(DISTINCT target) FROM retry.events WHERE scene = 'default/routed' AND kind = 'breaker opened'") == 2;
	},
	'routed: then the other one opens too');
wait_sql($node, "SELECT count(*) FROM retry.running WHERE scene = 'default/routed'", 'routed: nothing is under way', expected => '0');
$_->reset foreach @receivers;
time_passes('routed, all open');
is($receivers[0]->stats->{total} + $receivers[1]->stats->{total}, 0, 'routed: and nothing is sent');
sql("UPDATE retry.scene SET breaker_ratio = NULL WHERE name = 'routed'");
all_succeed('routed', 'routed, without breakers');
# one that was out is only called again when there is something to send
wait_for(
	sub {
		tasks('routed', 20);
		return sql($shown) eq 'well closed, well closed';
	},
	'routed: retry.targets shows that they are closed');
all_succeed('routed', 'routed, when both are back');
wait_sql($node, 'SELECT sum(in_flight) FROM retry.targets', 'routed: and that nothing is under way', expected => '0');

# Many that opened together do not probe together, and not each in a turn of its
# own either: what was sent in one turn has ended at the same moment.
scene('refuses', 'http://127.0.0.1:1/', breaker_calls => 1, breaker_open => "'1 s'");
sql("SELECT count(retry.enqueue('refuses', '{}', lane => 'refuses-' || i)) FROM generate_series(1, 100) i");
wait_sql($node, "SELECT count(*) FROM retry.attempts WHERE scene = 'default/refuses' AND attempt_no = 2", 'refuses: all are probed', expected => '100');
my $probes = "FROM retry.attempt a JOIN retry.task t ON t.leaf = a.leaf AND t.id = a.task_id WHERE t.lane LIKE 'refuses-%' AND a.attempt_no = 2";
cmp_ok(sql("SELECT count(DISTINCT finished_at) $probes"), '<=', 30, 'refuses: many in a turn');
cmp_ok(sql("SELECT count(DISTINCT a.xmin::text) $probes"), '<=', 30, 'refuses: and recorded so');
sql("UPDATE retry.scene SET paused = true WHERE name = 'refuses'");

# More lanes that are closed than there is memory for: others go on, and all of
# them are found when there is no reason any more to be closed.
sql("ALTER SYSTEM SET retry.max_lanes = 64");
$node->reload;
my $many = start_endpoint();
$many->mode('status:500');
scene('many', $many->url('/ok'), breaker_calls => 1, breaker_open => "'1 h'");
sql("SELECT count(retry.enqueue('many', '{}', lane => 'many-' || i % 200)) FROM generate_series(1, 600) i");
wait_sql($node, "SELECT count(*) FROM retry.events WHERE scene = 'default/many' AND kind = 'breaker opened'", 'many: 200 lanes are closed', expected => '200');
time_passes('many');
is($many->stats->{total}, 200, 'many: after one call each');
$many->mode('up');
sql("UPDATE retry.scene SET breaker_ratio = NULL WHERE name = 'many'");
all_succeed('many', 'many, without breakers');
is(sql("SELECT count(*) FROM retry.events WHERE scene = 'default/many' AND kind = 'breaker closed'"), '200', 'many: all have closed');

# A dispatcher that dies forgets what it knew, and loses nothing.
$bad->mode('status:500');
sql("UPDATE retry.scene SET breaker_open = '1 h' WHERE name = 'bad'");
tasks('bad', 100);
wait_sql($node, "SELECT count(*) FROM retry.events WHERE scene = 'default/bad' AND kind = 'breaker opened'", 'bad: open once more', expected => '3');
$bad->mode('up');
kill 'KILL', workers($node, 'retry dispatcher%');
all_succeed('bad', 'bad, after its dispatcher was killed');
is(sql("SELECT count(*) - count(DISTINCT (task_id, attempt_no)) FROM retry.attempts"), '0', 'no attempt is recorded twice');

$node->stop;
done_testing();
