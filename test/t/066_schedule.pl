# Recurring tasks: the dispatcher runs them itself, on a clock that the test
# moves; none is lost or doubled over restarts, crashes, clock jumps, two
# dispatchers, sessions that run them at the same time, and locks; missed runs
# by policy; a restored copy waits for adoption.  With pg_cron where it is
# installed: its jobs run them, and when it fails, the dispatcher does.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Clock;
use Test::More;

my $clock = RetryTest::Clock->new;
my $receiver = start_endpoint();
my $url = $receiver->url('/ok');

# Moves it on, never back, to that second of an hour.
sub forward_to
{
	my ($minute, $second) = @_;

	$clock->set($clock->offset + ($minute * 60 + $second - $clock->now) % 3600);
	return;
}

# Nominal times at which a schedule has become tasks, as minutes of the hour.
sub ran
{
	my ($node, $name) = @_;

	return $node->safe_psql('postgres', <<"SQL");
SELECT string_agg(to_char(r.nominal AT TIME ZONE 'UTC', 'MI'), ' ' ORDER BY r.nominal)
FROM retry.schedule_run r JOIN retry.schedule_definition s ON s.id = r.schedule_id
WHERE s.name = '$name' AND r.task_id IS NOT NULL
SQL
}

sub has_run
{
	my ($node, $name, $minutes, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_for(sub { ran($node, $name) eq $minutes }, $what,
		diag => sub { "minutes: " . ran($node, $name) . "\n" . $node->safe_psql('postgres', 'TABLE retry.schedules') });
}

# All that the tests below have made, once: a run is a task is a request.
sub nothing_doubled
{
	my ($node, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($node->safe_psql('postgres', <<'SQL'), 't', "$what: each run is one task");
SELECT count(r.task_id) = count(DISTINCT r.task_id) AND count(r.task_id) = (SELECT count(*) FROM retry.task WHERE key LIKE '%@%')
	AND bool_and(t.key = s.name || '@' || to_char(r.nominal AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
FROM retry.schedule_run r JOIN retry.schedule_definition s ON s.id = r.schedule_id LEFT JOIN retry.task t ON t.id = r.task_id
WHERE r.task_id IS NOT NULL
SQL
	return;
}

my $node = new_node('main', start => 0, conf => "retry.dispatchers = 2\n");
forward_to(3, 50);
$clock->start($node);
$node->safe_psql('postgres', 'CREATE EXTENSION retry');

# ---- the dispatcher runs them

$node->safe_psql('postgres', <<"SQL");
SELECT retry.schedule('five', '*/5 * * * *', '$url', '{"every": 5}');
SELECT retry.schedule('skip', '*/10 * * * *', '$url', missed => 'skip');
SELECT retry.schedule('once', '*/10 * * * *', '$url', missed => 'once');
SELECT retry.schedule('all', '*/10 * * * *', '$url', missed => 'all');
SELECT retry.schedule('off', '* * * * *', '$url', active => false);
SELECT retry.schedule('paris', '0 * * * *', '$url', tz => 'Asia/Kolkata');
SQL
wait_sql($node, "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'retry dispatcher%'", 'there are dispatchers');
forward_to(4, 59);
has_run($node, 'five', '05', 'a run is made when its time comes');
my $key = $node->safe_psql('postgres', "SELECT key FROM retry.tasks WHERE key LIKE 'five@%'");
wait_for(sub { $receiver->ledger("\"$key\"") || $receiver->ledger($key) }, 'and arrives, with its name and nominal time as key');
is($node->safe_psql('postgres', "SELECT last_run = (SELECT nominal FROM retry.schedule_run) AND last_task IS NOT NULL AND last_error IS NULL AND next_run = last_run + interval '5 min' AND runs_by = 'retry' FROM retry.schedules WHERE name = 'five'"),
	't', 'the view says so');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retry.schedule_run'), '1', 'nothing else has run');
forward_to(9, 59);
has_run($node, $_, '10', "$_: its first run") foreach qw(skip once all);
has_run($node, 'five', '05 10', 'five: its second run');

# ---- a changed schedule counts at once, a rolled-back one never

$node->safe_psql('postgres', "BEGIN; SELECT retry.schedule('never', '* * * * *', '$url'); ROLLBACK");
$node->safe_psql('postgres', "SELECT retry.schedule('once', '12,20,30,40,50 * * * *', '$url')");
forward_to(11, 59);
has_run($node, 'once', '10 12', 'a replaced schedule runs at its new times');

# ---- missed while the server was down

$node->stop('immediate');
forward_to(50, 20);
$clock->start($node);
has_run($node, 'skip', '10 50', 'skip: only what is not a minute late');
has_run($node, 'once', '10 12 40 50', 'once: the latest of those that were missed, and what is not');
has_run($node, 'all', '10 20 30 40 50', 'all: each');
has_run($node, 'five', '05 10 45 50', 'once is the default');
$node->stop;
forward_to(59, 30);
$clock->start($node);
wait_sql($node, "SELECT max(nominal) = date_trunc('hour', clock_timestamp()) + interval '55 min' FROM retry.schedule_run", 'a run that was missed is found at the start');
nothing_doubled($node, 'after two restarts');

# ---- the clock is set back an hour, and on again

wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE state <> 'succeeded'", 'all tasks are done', expected => '0');
$clock->set($clock->offset - 3600);
$node->safe_psql('postgres', "SELECT retry.run_schedules()");
nothing_doubled($node, 'an hour back');
$clock->set($clock->offset + 3600);
forward_to(59, 59) if $clock->now % 3600 < 3599;
has_run($node, 'all', '10 20 30 40 50 00', 'after a clock that went back and forth the next run is made');
nothing_doubled($node, 'back and forth');

# ---- others run them at the same time

forward_to(9, 58);
my @sessions = map { session($node) } 1 .. 3;
foreach (1 .. 100)
{
	$_->query_safe('SELECT retry.run_schedules()') foreach @sessions;
	last if ran($node, 'all') =~ / 10$/ && $_ > 20;
	select(undef, undef, undef, 0.05);
}
$_->quit foreach @sessions;
has_run($node, 'all', '10 20 30 40 50 00 10', 'three sessions and the worker run it');
nothing_doubled($node, 'three sessions and the worker');

# ---- locks: the dispatcher waits for nobody, and the run is made up for

my $holder = session($node);
$holder->query_safe("BEGIN; LOCK retry.schedule_definition");
forward_to(14, 59);
wait_for(sub { $clock->now % 3600 >= 901 }, 'its time comes while the table is locked');
my $id = enqueue($node, "'$url'");
$node->safe_psql('postgres', "SELECT retry.wait('$id')");
is($node->safe_psql('postgres', "SELECT state FROM retry.tasks WHERE id = '$id'"), 'succeeded', 'tasks are delivered meanwhile');
$holder->query_safe('COMMIT');
wait_for(sub { ran($node, 'five') =~ /10 15$/ }, 'the run is made when the lock is gone');
$holder->query_safe("BEGIN; SELECT retry.schedule('skip', '*/10 * * * *', '$url', missed => 'skip')");
forward_to(19, 59);
wait_for(sub { ran($node, 'all') =~ /10 20$/ }, 'a schedule that somebody changes does not hold up another');
$holder->query_safe('ROLLBACK');
wait_for(sub { ran($node, 'skip') =~ /10 20$/ }, 'and runs when he is done');
$holder->quit;

# ---- the worker, the dispatcher, the server die

my $terminated = 0;
forward_to(29, 58);
wait_for(
	sub {
		$terminated += $node->safe_psql('postgres', "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type LIKE 'retry%'");
		return $clock->now % 3600 >= 1801;
	},
	'workers are ended as they come');
wait_for(sub { ran($node, $_) =~ /20 30$/ }, "$_: runs all the same") foreach qw(skip once all);
forward_to(39, 59);
wait_for(sub { $clock->now % 3600 >= 2400 }, 'ten minutes later');
$node->stop('immediate');
$clock->start($node);
wait_for(sub { ran($node, $_) =~ /30 40$/ }, "$_: none is lost in a crash at that moment") foreach qw(skip once all);
nothing_doubled($node, 'after crashes');

# ---- what cannot be enqueued

$node->safe_psql('postgres', "INSERT INTO retry.scene (name, url) VALUES ('gone', '$url')");
enqueue($node, "'gone'");	# or upkeep would delete it once it is archived
$node->safe_psql('postgres', "SELECT retry.schedule('broken', '* * * * *', 'gone'); UPDATE retry.scene SET archived = true WHERE name = 'gone'");
my $log = -s $node->logfile;
forward_to(44, 59);
wait_sql($node, "SELECT last_error LIKE '%is archived%' FROM retry.schedules WHERE name = 'broken'", 'a run that cannot be enqueued is noted');
wait_for(sub { ran($node, 'five') =~ / 45$/ }, 'and holds up nothing');
forward_to(46, 59);
wait_sql($node, "SELECT count(*) >= 2 FROM retry.schedule_run WHERE error IS NOT NULL", 'it is tried each time');
is(() = slurp_file($node->logfile, $log) =~ /schedule "broken" of role "postgres" could not run/g, 1, 'and said once');
is($node->safe_psql('postgres', "SELECT group_name, detail LIKE 'schedule \"broken\" of role \"postgres\": %is archived%' FROM retry.events WHERE kind = 'schedule failed'"),
	'default|t', 'and among the events, once');
$node->safe_psql('postgres', "UPDATE retry.scene SET archived = false WHERE name = 'gone'");
forward_to(48, 59);
wait_sql($node, "SELECT last_error IS NULL AND last_task IS NOT NULL FROM retry.schedules WHERE name = 'broken'", 'it runs again when it can');
is($node->safe_psql('postgres', "SELECT retry.unschedule('broken')"), 't', 'unscheduled');

# ---- a restored copy

my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'pg_restore', '-1', '-d', $node->connstr('copy'), $dump ], 'restore');
is($node->safe_psql('copy', "SELECT bool_and(inert), count(*) FROM retry.schedule_definition"), 't|6', 'the schedules came with it');
is($node->safe_psql('copy', "SELECT count(*), min(held_reason) FROM retry.schedules WHERE next_run IS NULL"), '6|not adopted', 'they are held');
my $runs = $node->safe_psql('copy', 'SELECT count(*) FROM retry.schedule_run');
forward_to(54, 59);
wait_for(sub { ran($node, 'five') =~ / 55$/ }, 'the original runs');
is($node->safe_psql('copy', 'SELECT retry.run_schedules()'), '0', 'the copy does not');
is($node->safe_psql('copy', 'SELECT count(*) FROM retry.schedule_run'), $runs, 'not by itself either');
$node->safe_psql('copy', 'SELECT retry.adopt()');
is($node->safe_psql('copy', 'SELECT retry.run_schedules()'), '0', 'adopted: what went before is not made up for');
forward_to(59, 59);
wait_sql($node, "SELECT count(*) - $runs FROM retry.schedule_run WHERE task_id IS NOT NULL", 'from then on it runs',
	dbname => 'copy', expected => '3');
wait_for(sub { ran($node, 'five') =~ / 00$/ }, 'as does the original');
$node->safe_psql('postgres', 'DROP DATABASE copy');
$node->safe_psql('postgres', 'DROP EXTENSION retry; CREATE EXTENSION retry');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retry.schedules'), '0', 'they go with the extension');
$node->stop;

# ---- pg_cron

my $libraries = $node->config_data('--pkglibdir');
SKIP:
{
	skip 'pg_cron is not installed', 1 unless -e "$libraries/pg_cron.so";

	my $cron = new_node('cron', preload => 0, start => 0, conf => <<"CONF");
shared_preload_libraries = 'pg_cron,retry'
cron.database_name = 'postgres'
cron.use_background_workers = on
retry.allowed_networks = '127.0.0.0/8'
retry.databases = 'none'
CONF
	$clock->set(0);
	forward_to(3, 40);
	$clock->start($cron);
	$cron->safe_psql('postgres', 'CREATE EXTENSION pg_cron; CREATE EXTENSION retry; CREATE ROLE tenant LOGIN; CREATE ROLE stranger LOGIN; CREATE ROLE application');
	$cron->safe_psql('postgres', "GRANT USAGE ON SCHEMA cron TO tenant, application");
	$cron->safe_psql('postgres', "SELECT retry.grant('tenant', 'default'), retry.grant('stranger', 'default'), retry.grant('application', 'default')");
	$cron->safe_psql('postgres', <<"SQL");
SET ROLE tenant;
SELECT retry.schedule('report', '*/5 * * * *', '$url', '{"n": 1}');
SELECT retry.schedule('local', '30 9 * * *', '$url', tz => 'Europe/Paris');
SET ROLE stranger;
SELECT retry.schedule('own', '30 9 * * *', '$url');
SET ROLE application;
SELECT retry.schedule('nologin', '30 9 * * *', '$url');
SQL
	is($cron->safe_psql('postgres', 'SELECT jobname, schedule, command, username FROM cron.job ORDER BY 1'),
		"retry: local|* * * * *|SELECT retry.run_schedules()|tenant\nretry: report|*/5 * * * *|SELECT retry.run_schedules()|tenant",
		'each schedule has a job, if its role may make one');
	is($cron->safe_psql('postgres', 'SELECT name, runs_by FROM retry.schedules ORDER BY 1'),
		"local|pg_cron\nnologin|retry\nown|retry\nreport|pg_cron", 'the view says who runs what');

	forward_to(4, 57);
	has_run($cron, 'report', '05', 'pg_cron runs it, with no dispatcher there');
	is($cron->safe_psql('postgres', "SELECT enqueued_by FROM retry.tasks WHERE key LIKE 'report@%'"), 'tenant', 'as its role');
	wait_sql($cron, "SELECT count(*) > 0 FROM cron.job_run_details WHERE status = 'succeeded' AND username = 'tenant'", 'pg_cron is content');

	# when pg_cron does not come, the worker does; both together do no harm
	$cron->append_conf('postgresql.conf', "retry.databases = '*'");
	$cron->reload;
	wait_sql($cron, "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'retry dispatcher%'", 'now there is a dispatcher');
	forward_to(9, 57);
	has_run($cron, 'report', '05 10', 'pg_cron and the dispatcher are there');
	$cron->safe_psql('postgres', 'SELECT cron.alter_job(jobid, active => false) FROM cron.job');
	forward_to(14, 57);
	wait_for(sub { $clock->now % 3600 >= 901 }, 'its time comes, and pg_cron does not');
	forward_to(15, 9);
	has_run($cron, 'report', '05 10 15', 'the dispatcher stands in');
	nothing_doubled($cron, 'pg_cron and the dispatcher');

	$cron->safe_psql('postgres', "SET ROLE tenant; SELECT retry.schedule('report', '*/2 * * * *', '$url'); SELECT retry.unschedule('local')");
	is($cron->safe_psql('postgres', 'SELECT jobname, schedule FROM cron.job'), 'retry: report|*/2 * * * *',
		'the job follows its schedule, and goes with it');
	$cron->safe_psql('postgres', 'SELECT cron.unschedule(jobid) FROM cron.job');
	$cron->safe_psql('postgres', "SET ROLE tenant; SELECT retry.schedule('report', '*/5 * * * *', '$url'); SELECT retry.unschedule('report')");
	is($cron->safe_psql('postgres', 'SELECT count(*) FROM cron.job'), '0', 'a job that somebody took away is no trouble');
	$cron->safe_psql('postgres', "SET ROLE tenant; SELECT retry.schedule('report', '*/5 * * * *', '$url')");

	# upkeep, for which a job is made by hand
	my $upkeep = "SELECT regexp_replace(detail, '.*(started by|not due)', '\\1') FROM retry.health() WHERE check_name = 'upkeep'";
	$cron->safe_psql('postgres', "SELECT cron.schedule('retry upkeep', '* * * * *', 'CALL retry.maintain()')");
	forward_to(16, 57);
	wait_sql($cron, $upkeep, 'pg_cron has upkeep done',
		expected => 'started by retry.maintain(); a job of pg_cron calls retry.maintain(), dispatchers stand in for it');
	wait_sql($cron, "SELECT count(*) > 0 FROM cron.job_run_details WHERE status = 'succeeded' AND command LIKE '%maintain%'", 'and is content');
	$cron->safe_psql('postgres', "SELECT cron.alter_job(jobid, active => false) FROM cron.job WHERE jobname = 'retry upkeep'");
	wait_sql($cron, $upkeep, 'its job is not active',
		expected => 'started by retry.maintain(); no active job of pg_cron calls retry.maintain(): dispatchers see to it');
	$cron->safe_psql('postgres', 'DROP EXTENSION pg_cron');
	forward_to(29, 57);
	wait_for(sub { $clock->now % 3600 >= 1801 }, 'its time comes, and pg_cron is gone');
	forward_to(30, 9);
	wait_for(sub { ran($cron, 'report') =~ /30$/ }, 'it runs without');
	wait_sql($cron, "SELECT runs_by FROM retry.schedules WHERE name = 'report'", 'and the view says so', expected => 'retry');
	$clock->set($clock->offset + 3700);
	wait_sql($cron, $upkeep, 'an hour later, upkeep is done as well',
		expected => 'started by a dispatcher; pg_cron is not in this database: dispatchers see to it');
	$cron->stop;
}

done_testing();
