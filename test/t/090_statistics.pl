# Statistics: what retry.overview and retry.stats say is what happened, whoever
# asks sees its own, and a restart loses none of it.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => "log_timezone = 'Asia/Kolkata'\n");
hold_nothing($node);
my $receiver = start_endpoint();

sub sql { return ask($node, $_[0]) }

# Columns of a scene's row of retry.overview, once they are what they should be.
sub overview_is
{
	my ($scene, $columns, $expected, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_sql($node, "SELECT concat_ws(' ', $columns) FROM retry.overview WHERE scene = '$scene'",
		$description, expected => $expected);
}

# The same of retry.stats, all that there is of the kind.
sub stats_are
{
	my ($scene, $per, $columns, $expected, $description) = @_;
	my $sums = join ', ', map { "coalesce(sum($_), 0)" } split / /, $columns;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_sql($node, "SELECT concat_ws(' ', $sums) FROM retry.stats WHERE scene = '$scene' AND per = '$per'",
		$description, expected => $expected);
}

my $url = $receiver->url('');
sql(<<"SQL");
CREATE ROLE app;
CREATE ROLE guest;
CREATE ROLE stranger;
INSERT INTO retry.scene_group (name, owner) VALUES ('shop', 'app');
SELECT retry.grant('guest', 'shop');
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES
	('shop', 'good', '$url/ok', 'fixed 1h', 5),
	('shop', 'flaky', '$url/flaky/2', 'fixed 10ms', 5),
	('shop', 'fails', '$url/status/500', 'fixed 1h', 5),
	('shop', 'dies', '$url/status/500', 'fixed 10ms', 2),
	('shop', 'held', '$url/ok', 'fixed 1h', 5),
	('shop', 'slow', '$url/hang', 'fixed 1h', 5),
	('shop', 'idle', '$url/ok', 'fixed 1h', 5);
UPDATE retry.scene SET paused = true WHERE name = 'held';
UPDATE retry.scene SET timeout = '10 min' WHERE name = 'slow';
SQL
others_go_on($node, $receiver, 'the first');

# Nothing is stored before it is counted: whatever the clock says, what is only in
# memory must not be counted twice.
my $holder = session($node);
$holder->query_safe('BEGIN');
$holder->query_safe('LOCK TABLE retry.stat_minute IN SHARE MODE');

# Each kind of fate.
sql(<<'SQL');
SELECT count(retry.enqueue('shop/good', to_jsonb(i))) FROM generate_series(1, 20) i;
SELECT count(retry.enqueue('shop/good', '{}', delay => '1 day')) FROM generate_series(1, 7) i;
SELECT count(retry.enqueue('shop/flaky', to_jsonb(i), key => 'f' || i)) FROM generate_series(1, 3) i;
SELECT count(retry.enqueue('shop/fails', to_jsonb(i))) FROM generate_series(1, 5) i;
SELECT count(retry.enqueue('shop/dies', to_jsonb(i))) FROM generate_series(1, 4) i;
SELECT count(retry.enqueue('shop/held', to_jsonb(i))) FROM generate_series(1, 6) i;
SELECT count(retry.enqueue('shop/slow', to_jsonb(i))) FROM generate_series(1, 2) i;
BEGIN;
SELECT count(retry.enqueue('shop/good', to_jsonb(i))) FROM generate_series(1, 9) i;
ROLLBACK;
SQL
my $all = 'state, pending, running, retrying, dead';
my @expected = (
	[ good => 'active 7 0 0 0', '27 20 20 0 0 0' ],
	[ flaky => 'active 0 0 0 0', '3 9 3 6 6 0' ],
	[ fails => 'active 0 0 5 0', '5 5 0 5 0 0' ],
	[ dies => 'active 0 0 0 4', '4 8 0 8 4 4' ],
	[ held => 'scene paused 6 0 0 0', '6 0 0 0 0 0' ],
	[ slow => 'active 0 2 0 0', '2 0 0 0 0 0' ],
	[ idle => 'active 0 0 0 0', '0 0 0 0 0 0' ]);
my $columns = 'enqueued attempts succeeded failed retries dead';

sub all_is_well
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $e (@expected)
	{
		overview_is("shop/$e->[0]", $all, $e->[1], "$when: overview of $e->[0]: $e->[1]");
		stats_are("shop/$e->[0]", $_, $columns, $e->[2], "$when: $e->[0] by the $_: $e->[2]") foreach qw(minute hour day);
	}
	return;
}

all_is_well('at first');
is( sql("SELECT bool_and(p50 BETWEEN '0' AND '30 s' AND p50 <= p95 AND p95 <= p99 AND busy > '0') FROM retry.stats WHERE scene = 'shop/good'"),
	't', 'percentiles of a minute, an hour and a day');
is( sql("SELECT p50 <= p95 AND p95 <= p99 AND attempt_rate > 0 FROM retry.overview WHERE scene = 'shop/good'"),
	't', 'percentiles and rates of now');
wait_sql($node, "SELECT oldest_due = (SELECT min(due_at) FROM retry.tasks WHERE scene = 'shop/held') FROM retry.overview WHERE scene = 'shop/held'",
	'since when a paused scene has tasks due');
is(sql("SELECT oldest_due IS NULL FROM retry.overview WHERE scene = 'shop/good'"), 't', 'what is due later is not due');
is( sql("SELECT enqueued_day || ' ' || succeeded_day || ' ' || died_day FROM retry.overview WHERE scene = 'shop/good'"),
	'27 20 0', 'the last day');

# Cancelled: pending ones, retrying ones, one that is over, one twice.
sql(<<'SQL');
SELECT count(retry.cancel(id)) FROM (SELECT id FROM retry.tasks WHERE scene = 'shop/good' AND state = 'pending' LIMIT 3) x;
SELECT count(retry.cancel(id)) FROM (SELECT id FROM retry.tasks WHERE scene = 'shop/good' AND state = 'succeeded' LIMIT 3) x;
SELECT count(retry.cancel(id)) FROM (SELECT id FROM retry.tasks WHERE scene = 'shop/fails' AND state = 'retrying' LIMIT 2) x;
SELECT count(retry.cancel(id)) FROM retry.tasks WHERE scene = 'shop/fails' AND state = 'cancelled';
SQL
$expected[0][1] = 'active 4 0 0 0';
$expected[2][1] = 'active 0 0 3 0';
all_is_well('cancelled');
stats_are('shop/good', 'minute', 'cancelled', '3', 'cancelled pending ones are counted');
stats_are('shop/fails', 'hour', 'cancelled', '2', 'cancelled retrying ones are counted, once');

# Counting anew finds the same, as often as it is done.
foreach my $n (1 .. 2)
{
	sql('CALL retry.maintain()');
	all_is_well("counted $n");
}
$holder->query_safe('ROLLBACK');
$holder->quit;
is(sql("SELECT count(*) FROM retry.counted WHERE took > '0' AND at > now() - interval '1 hour'"), '1', 'it was counted');

# Who sees what.
sub seen
{
	my ($role) = @_;
	return sql("SET ROLE $role; SELECT (SELECT count(*) FROM retry.overview), (SELECT count(DISTINCT scene) FROM retry.stats), (SELECT count(*) FROM retry.scene_running())");
}
is(seen('app'), '7|6|1', 'the owner of a group sees its scenes');
is(seen('guest'), '7|6|1', 'so does a role it was granted to');
is(seen('stranger'), '0|0|0', 'a stranger sees none');
is(seen('pg_monitor'), '8|7|1', 'who monitors sees all');
is(seen('postgres'), '8|7|1', 'as a superuser does') if sql('SELECT current_user') eq 'postgres';
sql_fails($node, 'SET ROLE app; SELECT * FROM retry.stat_minute', '42501', 'permission denied', 'the tables are not for all');
is( sql("EXPLAIN (COSTS OFF) SELECT * FROM retry.stats WHERE per = 'hour' AND at > now() - interval '1 day'") =~ /stat_day/ ? 'reads' : 'skips',
	'skips', 'who asks for hours does not read the days');
like(sql("SET enable_seqscan = off; EXPLAIN (COSTS OFF) SELECT * FROM retry.stats WHERE per = 'hour' AND at > now() - interval '1 day'"),
	qr/ on stat_hour h.*\n +(?:Index|Recheck) Cond: \(+at > /, 'and finds them by index');

# A clean restart loses nothing; what was counted is in the tables then.
$receiver->stop;
$node->stop('fast');
$node->start;
is(sql("SELECT count(*) > 0 FROM retry.stat_minute"), 't', 'counts were stored at the stop');
$expected[5][1] =~ s/0 2 0/0 0 2/;
$expected[5][2] = '2 2 0 2 0 0';
sql("CALL retry.maintain()");
overview_is('shop/good', $all, $expected[0][1], 'after a restart: overview');
stats_are('shop/good', 'hour', $columns, $expected[0][2], 'after a restart: statistics');
stats_are('shop/dies', 'day', $columns, $expected[3][2], 'after a restart: statistics of a day');

# After a crash it is counted anew.
$node->stop('immediate');
$node->start;
sql("CALL retry.maintain()");
overview_is('shop/good', $all, $expected[0][1], 'after a crash: overview');
overview_is('shop/fails', $all, $expected[2][1], 'after a crash: retrying ones');
overview_is('shop/dies', $all, $expected[3][1], 'after a crash: dead ones');

# Minutes become hours and days, all of them, and the old ones go.
sql(<<'SQL');
INSERT INTO retry.stat_minute
SELECT t, s.id, 10, 8, 2, 0, 0, 0, 0, 0, 2, 1, 0, 1000000, i, '[20:21]={9,1}', 0
FROM retry.scene s, generate_series(now() - interval '50 hours', now() - interval '3 hours', interval '10 min') WITH ORDINALITY AS g (t, i)
WHERE s.name = 'idle';
SQL
my $count = sql("SELECT count(*) FROM retry.stat_minute m JOIN retry.scene s ON s.id = m.scene_id WHERE s.name = 'idle'");
my $sum = 10 * $count . ' ' . 10 * $count . ' ' . 2 * $count;
stats_are('shop/idle', $_, 'enqueued attempts failed', $sum, "before: by the $_") foreach qw(minute hour day);
my $days = "SELECT string_agg(concat_ws(' ', at, enqueued, p50, p99, late), E'\\n' ORDER BY at) FROM retry.stats WHERE scene = 'shop/idle' AND per = ";
my %before = map { $_ => sql("$days '$_'") } qw(hour day);
sql('CALL retry.maintain()');
is(sql("SELECT count(*) > 40 FROM retry.stat_hour"), 't', 'hours are stored');
is(sql("SELECT count(*) >= 1 FROM retry.stat_day"), 't', 'and days');
is(sql("SELECT count(*) FROM retry.stat_minute WHERE at < now() - interval '49 hours'"), '0', 'old minutes are gone');
is(sql("$days '$_'"), $before{$_}, "by the $_: as before") foreach qw(hour day);
is(sql("SELECT count(*) FROM retry.stats WHERE per = 'day' AND date_trunc('day', at, 'Asia/Kolkata') <> at"), '0', 'days are those of log_timezone');
sql('CALL retry.maintain()');
is(sql("$days '$_'"), $before{$_}, "by the $_: added up once") foreach qw(hour day);

# Histograms.
is(sql("SELECT retry.latency_sum(h) FROM (VALUES ('[3:4]={1,2}'::bigint[]), ('[4:6]={5,0,7}'), (NULL), ('{}')) x (h)"),
	'[3:6]={1,7,0,7}', 'histograms add up');
is(sql("SELECT retry.percentile('[20:20]={5}', 0.5) BETWEEN '10 ms' AND '30 ms', retry.percentile('{}', 0.5) IS NULL"), 't|t', 'and are read');
sql_fails($node, "SELECT retry.percentile(x, 0.5) FROM (VALUES ('$_->[0]'::bigint[])) v (x)", $_->[1], $_->[2], "no histogram: $_->[0]")
  foreach [ '[70:74]={1,1,1,1,1}', '2202E', 'from 70 on' ], [ '[-1:0]={1,1}', '2202E', 'from -1 on' ], [ '{{1}}', '2202E', '2 dimensions' ],
  [ '{NULL}', '22003', 'null' ], [ '{-1}', '22003', 'negative' ];

# What is committed and not yet read by a dispatcher is counted once, too.
sql("INSERT INTO retry.scene (group_name, name, url) VALUES ('shop', 'later', '$url/ok')");
wait_sql($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'retry upkeep'", 'no upkeep is under way', expected => 0);
my ($dispatcher) = workers($node, 'retry dispatcher');
kill 'STOP', $dispatcher;
sql("SELECT count(retry.enqueue('shop/later', delay => '1 h')) FROM generate_series(1, 20)");
my $maintainer = session($node);
$maintainer->query_until(qr/begun/, "\\echo begun\nCALL retry.maintain();\n");
wait_sql($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'retry upkeep' AND query = 'counting tasks'",
	'upkeep counts', expected => 1);
kill 'CONT', $dispatcher;
$maintainer->query_safe('SELECT');
$maintainer->quit;
overview_is('shop/later', 'pending', 20, 'counted while a dispatcher had yet to read it');

$node->stop;
done_testing();
