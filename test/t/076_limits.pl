# Limits of groups, as far as it takes dispatchers, several sessions, crashes or
# a schedule to see them; what one session sees is in sql/limits.sql. A group
# that floods gets errors, and another one feels nothing.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $receiver = start_endpoint();
my $url = $receiver->url('');
my $node = new_node('main', conf => "retry.alarm_interval = '100ms'\n");
hold_nothing($node);

sub sql
{
	return ask($node, shift);
}

sub use_is
{
	my ($group, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_sql($node, "SELECT pending FROM retry.limits WHERE group_name = '$group'", $what, expected => $expected);
}

# Lanes that have unfinished tasks, as they are counted.
sub lanes_are
{
	my ($expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_sql($node, "SELECT lanes FROM retry.limits WHERE group_name = 'wide'", $what, expected => $expected);
}

sub stored
{
	my ($group) = @_;

	return sql("SELECT count(*) FROM retry.tasks WHERE scene ^\@ '$group/'");
}

sql(<<"SQL");
CREATE ROLE mallory;
CREATE ROLE bank;
INSERT INTO retry.scene_group (name, owner, max_pending) VALUES ('flood', 'mallory', 100), ('bank', 'bank', NULL);
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES
	('flood', 'held', '$url/ok/held', 'fixed 1h', 2), ('flood', 'ok', '$url/ok/flood', 'fixed 1h', 2),
	('flood', 'stop', '$url/status/422', 'fixed 1h', 2), ('flood', 'fail', '$url/status/500', 'fixed 1h', 2),
	('bank', 'ok', '$url/ok/bank', 'fixed 1h', 2);
UPDATE retry.scene SET paused = true WHERE name = 'held';
SQL

# Many at once: not one too many is stored, and none too few.
my $flood = <<'SQL';
DO $$
BEGIN
	SET LOCAL ROLE mallory;
	FOR i IN 1 .. 60 LOOP
		BEGIN
			PERFORM retry.enqueue_many('flood/held', array_fill('{}'::jsonb, ARRAY[i % 3 + 1]));
		EXCEPTION WHEN configuration_limit_exceeded THEN
			NULL;
		END;
	END LOOP;
END
$$
SQL
my @sessions = map { session($node) } 1 .. 4;
$_->query_until(qr/begun/, "\\echo begun\n$flood;\n") foreach @sessions;
$_->query_safe('SELECT 1') foreach @sessions;
is(stored('flood'), 100, 'four sessions that flood store what the group may have');
use_is('flood', 100, 'and that is what is counted');
like(sql("SELECT status || ' ' || detail FROM retry.health() WHERE check_name = 'limits'"),
	qr/^warning groups near a limit: "flood" \(100 of 100 tasks\)$/, 'retry.health() names the group');
cmp_ok(sql("SELECT refused FROM retry.limits WHERE group_name = 'flood'"), '>', 0, 'what was refused is counted');

# The others.
my $id = sql("SET ROLE bank; SELECT retry.enqueue('bank/ok', '{}')");
wait_state($node, $id, 'succeeded', description => 'another group goes on');
others_go_on($node, $receiver, 'and who has no group of its own');

# What ends makes room: by success, death, cancellation, and not by a failure that is retried.
sql("SELECT retry.cancel_where(target => 'flood/held')");
use_is('flood', 0, 'cancelled tasks make room');
sql("SELECT retry.enqueue('flood/' || s) FROM unnest('{ok,ok,stop,fail,fail}'::text[]) s");
wait_sql($node, "SELECT string_agg(state::text, ' ' ORDER BY state::text) FROM retry.tasks WHERE scene ^\@ 'flood/' AND state <> 'cancelled'",
	'two succeed, one dies, two will be tried again', expected => 'dead retrying retrying succeeded succeeded');
use_is('flood', 2, 'what will be tried again is not finished');
sql("SELECT retry.run_now_where(target => 'flood/fail')");
use_is('flood', 0, 'what is dead is');

# Callbacks are stored however many there are, and count.
sql(<<"SQL");
UPDATE retry.scene SET on_success = 'flood/held' WHERE name = 'ok' AND group_name = 'bank';
UPDATE retry.scene_group SET max_pending = 1 WHERE name = 'flood';
SELECT retry.enqueue('bank/ok') FROM generate_series(1, 3);
SQL
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'flood/held' AND state = 'pending'",
	'callbacks into a group that is full are not lost', expected => 3);
use_is('flood', 3, 'they count');
sql_fails($node, "SELECT retry.enqueue('flood/held')", '53400', 'has 3 unfinished ones and may have 1', 'as others see');
sql("UPDATE retry.scene SET on_success = NULL WHERE name = 'ok' AND group_name = 'bank'");

# Replays count: a dead letter can be replayed any number of times.
sql_fails($node, "SELECT retry.replay_dead(target => 'flood/stop')", '53400', 'has 3 unfinished ones', 'a replay is a new task');
is(sql("SELECT count(*) FROM retry.dead_letters WHERE scene = 'flood/stop' AND replayed_as IS NULL"), 1, 'and the dead letter is as it was');
sql("SELECT retry.cancel_where(target => 'flood/held')");
use_is('flood', 0, 'room again');
is(sql("SELECT retry.replay_dead(target => 'flood/stop')"), 1, 'the replay goes through');
use_is('flood', 0, 'and dies again');

# A schedule whose group is full notes that, and others run.
sql(<<"SQL");
SELECT retry.schedule('full', '0 0 1 1 *', 'flood/held'), retry.schedule('other', '0 0 1 1 *', 'bank/ok');
SELECT retry.enqueue('flood/held');
SELECT retry.run_schedules(now() + interval '1 year');
SQL
is(sql("SELECT string_agg(concat_ws(' ', name, last_task IS NOT NULL, last_error), ', ' ORDER BY name) FROM retry.schedules"),
	'full f 1 new task is too many for group "flood", which has 1 unfinished ones and may have 1, other t',
	'a full group fails its own schedules alone');

# An alarm of a group that is full is told.
sql(<<"SQL");
INSERT INTO retry.channel (group_name, name, kind, url) VALUES ('flood', 'ops', 'webhook', '$url/ok/ops');
INSERT INTO retry.alarm_rule (group_name, name, condition, threshold, channels, collect, quiet, tell_recovery) VALUES
	('flood', 'deaths', 'dead', 1, '{ops}', '0', '0', false);
SQL
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'flood/alarm-ops' AND state = 'succeeded'", 'alarms of a group that is full are told',
	expected => 1);
sql("DELETE FROM retry.alarm_rule");
sql("SELECT retry.cancel_where(target => 'flood/held'), retry.unschedule('full'), retry.unschedule('other')");
use_is('flood', 0, 'room again');

# Sessions that end in other ways: killed, prepared, rolled back later.
sql("UPDATE retry.scene_group SET max_pending = 100 WHERE name = 'flood'");
my $held = session($node);
$held->query_safe("BEGIN; SELECT retry.enqueue_many('flood/held', array_fill('{}'::jsonb, ARRAY[40]))");
use_is('flood', 40, 'an open transaction counts');
sql("SELECT pg_terminate_backend(" . $held->query_safe('SELECT pg_backend_pid()') . ")");
use_is('flood', 0, 'until its session is killed');
sql("BEGIN; SELECT retry.enqueue_many('flood/held', array_fill('{}'::jsonb, ARRAY[$_])); PREPARE TRANSACTION 'p$_'") foreach 10, 20;
use_is('flood', 30, 'what is prepared counts');
sql("COMMIT PREPARED 'p10'");
sql("ROLLBACK PREPARED 'p20'");
use_is('flood', 30, 'also what is rolled back then');
sql('CALL retry.maintain()');
use_is('flood', 10, 'until upkeep counts');
$held = session($node);
$held->query_safe("BEGIN; SELECT retry.enqueue_many('flood/held', array_fill('{}'::jsonb, ARRAY[40]))");
sql("UPDATE retry.scene_group SET max_pending = NULL WHERE name = 'flood'");
wait_sql($node, 'SELECT count(*) FROM retry.limit_rows()', 'nothing is counted without a limit', expected => 0);
sql("UPDATE retry.scene_group SET max_pending = 100 WHERE name = 'flood'");
sql("BEGIN; SELECT retry.enqueue('flood/held'); ROLLBACK");
use_is('flood', 10, 'with a limit again, it is counted');
$held->query_safe('ROLLBACK');
$held->quit;
is(sql("SELECT pending FROM retry.limits WHERE group_name = 'flood'"), 10, 'from which a transaction of before takes nothing');

# Lanes: a group that names one for each task gets errors, and goes on in those that it has.
sql(<<"SQL");
CREATE ROLE tenant;
INSERT INTO retry.scene_group (name, owner, max_lanes) VALUES ('wide', 'tenant', 20);
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES
	('wide', 'held', '$url/ok/wide', 'fixed 1h', 2), ('wide', 'ok', '$url/ok/wide', 'fixed 1h', 2), ('wide', 'stop', '$url/status/422', 'fixed 1h', 2),
	('wide', 'fail', '$url/status/500', 'fixed 1h', 2);
UPDATE retry.scene SET paused = true WHERE group_name = 'wide' AND name = 'held';
SQL
my $wide = <<'SQL';
DO $$
BEGIN
	SET LOCAL ROLE tenant;
	FOR i IN 1 .. 60 LOOP
		BEGIN
			PERFORM retry.enqueue('wide/held', lane => 'tenant ' || (random() * 1000)::int);
		EXCEPTION WHEN configuration_limit_exceeded THEN
			NULL;
		END;
	END LOOP;
END
$$
SQL
$_->query_until(qr/begun/, "\\echo begun\n$wide;\n") foreach @sessions;
$_->query_safe('SELECT 1') foreach @sessions;
is(sql("SELECT count(DISTINCT lane) FROM retry.tasks WHERE scene = 'wide/held'"), 20, 'four sessions get the lanes that the group may have');
lanes_are(20, 'and these are counted');
like(sql("SELECT detail FROM retry.health() WHERE check_name = 'limits'"), qr/"wide" \(20 of 20 lanes\)/, 'retry.health() names the group');
sql_fails($node, "SELECT retry.enqueue('wide/ok', lane => 'one more')", '53400', 'lane "one more" is one too many', 'another lane is refused');
sql("SELECT retry.enqueue('wide/ok', lane => (SELECT min(lane) FROM retry.tasks WHERE scene = 'wide/held'))");
others_go_on($node, $receiver, 'and who has another group');
sql("SELECT retry.cancel_where(target => 'wide/held')");
lanes_are(0, 'lanes of which all tasks are cancelled make room');
sql("SELECT retry.enqueue('wide/' || s, lane => l) FROM (VALUES ('ok', 'a'), ('ok', 'a'), ('stop', 'b'), ('fail', 'c'), ('fail', 'd'), ('held', 'd')) v (s, l)");
wait_sql($node, "SELECT string_agg(state::text, ' ' ORDER BY state::text) FROM retry.tasks WHERE lane IN ('a', 'b', 'c', 'd')",
	'tasks in four lanes', expected => 'dead pending retrying retrying succeeded succeeded');
lanes_are(2, 'those in which all have succeeded or are dead make room, those that wait for another attempt do not');
sql("UPDATE retry.scene_group SET max_lanes = 2 WHERE name = 'wide'");
sql("UPDATE retry.scene SET on_success = 'wide/held' WHERE group_name = 'bank'; SELECT retry.enqueue('bank/ok')");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'wide/held' AND state = 'pending'", 'a callback is not refused for its lane', expected => 2);
is(sql("SELECT lanes FROM retry.limits WHERE group_name = 'wide'"), 3, 'which counts as soon as it is there');
sql("UPDATE retry.scene SET on_success = NULL WHERE group_name = 'bank'");
sql("CREATE FUNCTION agree(jsonb) RETURNS text LANGUAGE sql AS 'SELECT ''commit''::text'");
sql("SELECT retry.prepare('wide/held', lane => 'message', check_target => 'sql:public.agree', check_after => '0')");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'wide/held' AND state = 'pending'", 'nor is a message that its check commits', expected => 3);
is(sql("SELECT lanes FROM retry.limits WHERE group_name = 'wide'"), 4, 'which counts, too');

# Counted anew: what was prepared and rolled back, and what nobody counted.
sql("BEGIN; SELECT retry.enqueue('wide/held', lane => 'd'); PREPARE TRANSACTION 'd'");
sql("SELECT retry.cancel_where(target => 'wide/held'), retry.run_now_where(target => 'wide/fail')");
lanes_are(1, 'what is prepared keeps its lane');
sql("ROLLBACK PREPARED 'd'");
sql('CALL retry.maintain()');
lanes_are(0, 'until upkeep counts after it is rolled back');
sql("UPDATE retry.scene_group SET max_lanes = NULL WHERE name = 'wide'");
wait_sql($node, "SELECT count(*) FROM retry.limits WHERE group_name = 'wide'", 'no limit', expected => 0);
sql("SELECT retry.enqueue('wide/held', lane => 'l' || i % 5) FROM generate_series(1, 50) i");
sql("SELECT retry.enqueue('wide/ok', lane => 'ended')");
sql("UPDATE retry.scene_group SET max_lanes = 3 WHERE name = 'wide'");
sql("SELECT retry.enqueue('wide/held', lane => 'not known yet')");
$held = session($node);
$held->query_safe("BEGIN; SELECT retry.enqueue('wide/held', lane => 'open'), retry.enqueue('wide/held', lane => 'l0')");
sql('CALL retry.maintain()');
lanes_are(7, 'lanes of before the limit are counted by upkeep, and those of an open transaction');
$held->query_safe('ROLLBACK');
lanes_are(6, 'which are given back when it is rolled back');
sql_fails($node, "SELECT retry.enqueue('wide/held', lane => 'open')", '53400', 'are in 6 and may be in 3', 'no more lanes');
sql("SELECT retry.enqueue('wide/held', lane => 'l' || i) FROM generate_series(0, 4) i");
$held->quit;

# A crash forgets, and what statistics know is counted at once, exactly by the next upkeep.
$node->stop('immediate');
$node->start;
wait_sql($node, "SELECT retry.enqueue('flood/held') IS NOT NULL", 'the group may enqueue after a crash');
wait_sql($node, "SELECT count(*) FROM retry.dispatchers", 'a dispatcher is there', expected => 1);
sql('CALL retry.maintain()');
use_is('flood', 11, 'and upkeep counts what is there');
lanes_are(6, 'lanes too');
sql("UPDATE retry.scene SET paused = false WHERE name = 'held'");
use_is('flood', 0, 'which is sent, and finished');
wait_sql($node, "SELECT sum(pending) + sum(lanes) FROM retry.limits", 'nothing is left', expected => 0);
$node->stop;

# Without the library preloaded nobody counts; what a call shows is refused all the same.
my $quiet = new_node('quiet', preload => 0);
$quiet->safe_psql('postgres', <<'SQL');
UPDATE retry.scene_group SET max_pending = 0, max_lanes = 0, max_enqueue_rate = '1/d', max_body_size = 3 WHERE name = 'default';
SELECT retry.enqueue('https://example.com/', '1'), retry.enqueue('https://example.com/', '2');
SQL
sql_fails($quiet, "SELECT retry.enqueue('https://example.com/', '1234')", '54000', 'body of 4 bytes', 'a body is judged without preloading');
is($quiet->safe_psql('postgres', 'SELECT pending IS NULL FROM retry.limits'), 't', 'nothing is counted then');
$quiet->stop;
done_testing();
