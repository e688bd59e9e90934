# Where dispatchers run, and when: started by CREATE EXTENSION without a restart
# of the server, gone after DROP EXTENSION, out of the way of commands that need
# a database empty, back after any of them has been terminated; and all that
# without filling the server's log.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

# The prefix tells workers' messages from those of sessions, whose errors some
# of these tests provoke.
my $prefix = "log_line_prefix = '%b| '\nretry.poll_interval = 100ms\n";

# The dispatchers of a database: "number/count" of each.
my $numbers =
  "SELECT coalesce(string_agg(number || '/' || count, ' ' ORDER BY number), 'none') FROM retry.dispatchers";

# How many dispatchers are connected to each of these databases.
sub connected
{
	my $names = join ', ', map { "'$_'" } @_;
	return
	  "SELECT coalesce(string_agg(datname || ':' || n, ' ' ORDER BY datname), 'none') FROM "
	  . "(SELECT datname, count(*) AS n FROM pg_stat_activity WHERE backend_type = 'retry dispatcher' "
	  . "AND datname IN ($names) GROUP BY datname) s";
}

sub wait_connected
{
	my ($node, $expected, $description, @names) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_sql($node, connected(@names), $description,
		expected => $expected);
}

sub dispatcher_pid
{
	my ($node, $dbname) = @_;
	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'retry dispatcher' AND datname = '$dbname'"
	);
}

# A command on a whole database, which must succeed at the first try.
sub command_works
{
	my ($node, $sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($rc == 0, $sql) || diag($err);
}

# What workers complained about in a part of the log.
sub complaints
{
	my ($node, $offset) = @_;
	my $log = substr(slurp_file($node->logfile), $offset // 0);
	return join "\n",
	  grep { /^retry [a-z]+\| +(WARNING|ERROR|FATAL|PANIC)/ || /TRAP|server process .* was terminated/ }
	  # upkeep that is under way when somebody copies its database or leaves it out is ended, and says so
	  grep { !/^retry upkeep\| +FATAL: +terminating background worker "retry upkeep" due to administrator command/ }
	  split /\n/, $log;
}

sub log_size
{
	my ($node) = @_;
	return -s $node->logfile;
}

##########################################################################
# CREATE EXTENSION and DROP EXTENSION
##########################################################################

my $node = new_node('main', extension => 0, conf => $prefix);

wait_sql($node,
	"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'retry launcher'",
	'the launcher runs', expected => 1);
my $pid;
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

# What was rolled back must start nothing; that it has not is known when the
# launcher has dealt with what came later.
$node->safe_psql('postgres', "BEGIN; CREATE EXTENSION retry; ROLLBACK");
$node->safe_psql('postgres', "CREATE DATABASE one");
$node->safe_psql('one', "CREATE EXTENSION retry");
wait_connected($node, 'one:1', 'CREATE EXTENSION starts a dispatcher, its rollback does not',
	'postgres', 'one');

$node->safe_psql('postgres', "CREATE EXTENSION retry");
wait_sql($node, $numbers, 'after the rollback CREATE EXTENSION works', expected => '0/1');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'),
	$started, 'no restart of the server was needed');

$node->safe_psql('postgres', "BEGIN; DROP EXTENSION retry; ROLLBACK");
wait_sql($node, $numbers, 'a DROP EXTENSION that is rolled back leaves the dispatcher', expected => '0/1');
for my $round (1 .. 3)
{
	$node->safe_psql('postgres', "DROP EXTENSION retry");
	wait_connected($node, 'none', "DROP EXTENSION ends the dispatcher ($round)", 'postgres')
	  if $round < 3;
	$node->safe_psql('postgres', "CREATE EXTENSION retry");
	wait_sql($node, $numbers, "CREATE EXTENSION starts another ($round)", expected => '0/1');
}

$node->safe_psql('postgres', "CREATE DATABASE prepared");
$node->safe_psql('prepared', "BEGIN; CREATE EXTENSION retry; PREPARE TRANSACTION 'p'");
$node->safe_psql('prepared', "COMMIT PREPARED 'p'");
wait_connected($node, 'prepared:1', 'a prepared CREATE EXTENSION counts when it is committed', 'prepared');
command_works($node, "DROP DATABASE prepared");

##########################################################################
# Commands that need a database empty, from another database
##########################################################################

command_works($node, "CREATE DATABASE two TEMPLATE one");
wait_connected($node, 'one:1 two:1', 'both template and copy have a dispatcher', 'one', 'two');
command_works($node, "ALTER DATABASE two RENAME TO three");
wait_connected($node, 'three:1', 'the renamed database has a dispatcher', 'two', 'three');
$node->safe_psql('postgres', "BEGIN; ALTER DATABASE three RENAME TO two; ROLLBACK");
wait_connected($node, 'three:1', 'and after a rename that is rolled back', 'two', 'three');
command_works($node, "DROP DATABASE three");
is($node->safe_psql('postgres', connected('three', 'one')), 'one:1', 'no dispatcher is left of it');

# A command that fails brings the dispatcher back, though its session goes on.
my $user = session($node, dbname => 'one');
$user->query_safe('SELECT 1');
my $session = session($node, on_error_stop => 0);
$pid = dispatcher_pid($node, 'one');
my ($out) = $session->query("DROP DATABASE one;\n\\echo :SQLSTATE");
like($out, qr/55006/, 'DROP DATABASE of a database that is in use fails');
wait_for(sub { my $p = dispatcher_pid($node, 'one'); $p && $p ne $pid },
	'and its dispatcher is back');
$user->quit;
$session->quit;

# The same when the session that waits for the dispatcher is terminated.
$pid = dispatcher_pid($node, 'one');
kill 'STOP', $pid;
$session = session($node, on_error_stop => 0);
my $backend = $session->query_safe('SELECT pg_backend_pid()');
$session->query_until(qr/going/, "\\echo going\nDROP DATABASE one;\n");
wait_sql($node, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $backend",
	'DROP DATABASE waits for a dispatcher', expected => 'Extension');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($backend)");
wait_sql($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $backend",
	'its session is terminated', expected => 0);
kill 'CONT', $pid;
wait_for(sub { (dispatcher_pid($node, 'one') || $pid) ne $pid },
	'another dispatcher has taken over');
eval { $session->quit };

# Without the rights to execute the command, nobody can stop a dispatcher.
$node->safe_psql('postgres', "CREATE ROLE stranger LOGIN");
$pid = dispatcher_pid($node, 'one');
for my $sql ('DROP DATABASE one', 'ALTER DATABASE one RENAME TO two', 'CREATE DATABASE two TEMPLATE one',
	'ALTER DATABASE one SET TABLESPACE pg_default')
{
	isnt($node->psql('postgres', $sql, extra_params => [ '-U', 'stranger' ]),
		0, "a stranger cannot $sql");
}
# It looks in each turn whether it is to stop.
my $turns = $node->safe_psql('one', 'SELECT turns FROM retry.dispatchers');
wait_sql($node, "SELECT turns > $turns + 2 FROM retry.dispatchers WHERE pid = $pid",
	'meanwhile the dispatcher goes on', dbname => 'one');
is(dispatcher_pid($node, 'one'), $pid, 'and its dispatcher was not stopped');

# What ALTER DATABASE sets reaches the dispatchers.
$node->safe_psql('postgres', "ALTER DATABASE one SET retry.enabled = off");
wait_for(sub { my $p = dispatcher_pid($node, 'one'); $p && $p ne $pid },
	'ALTER DATABASE SET retry.enabled restarts the dispatcher');
$node->safe_psql('postgres', "ALTER DATABASE one RESET retry.enabled");

##########################################################################
# Terminated workers come back
##########################################################################

wait_sql($node, $numbers, 'a dispatcher is there', expected => '0/1');
for my $round (1 .. 2)
{
	$pid = dispatcher_pid($node, 'postgres');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_for(sub { my $p = dispatcher_pid($node, 'postgres'); $p && $p ne $pid },
		"a terminated dispatcher comes back ($round)");
}

my ($launcher) = workers($node, 'retry launcher');
$pid = dispatcher_pid($node, 'postgres');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
wait_for(sub { my ($l) = workers($node, 'retry launcher'); $l && $l ne $launcher },
	'a terminated launcher comes back');
is(dispatcher_pid($node, 'postgres'), $pid, 'the dispatchers went on without it');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_for(sub { my $p = dispatcher_pid($node, 'postgres'); $p && $p ne $pid },
	'the new launcher looks after the old dispatchers');

##########################################################################
# Reload
##########################################################################

for my $n (4, 2, 1)
{
	$node->append_conf('postgresql.conf', "retry.dispatchers = $n");
	$node->reload;
	wait_sql($node, $numbers, "retry.dispatchers = $n",
		expected => join(' ', map { "$_/$n" } 0 .. $n - 1));
}

$node->append_conf('postgresql.conf', "retry.databases = 'one, no_such_database'");
$node->reload;
wait_connected($node, 'one:1', 'retry.databases leaves a database out', 'one', 'postgres');
$node->append_conf('postgresql.conf', "retry.databases = '*'");
$node->reload;
wait_connected($node, 'one:1 postgres:1', 'and takes it in again', 'one', 'postgres');

like(complaints($node), qr/^[^\n]* WARNING:  retry: database "two" is a copy, the tasks that came with it are held$/,
	'nothing of all this made a worker complain, but of the copy that was made');

##########################################################################
# Stopping and starting
##########################################################################

for my $mode ('fast', 'smart', 'immediate')
{
	my $offset = log_size($node);
	ok($node->stop($mode), "$mode shutdown");
	$node->start;
	wait_connected($node, 'one:1 postgres:1', "dispatchers are back after it", 'one', 'postgres');
	is(complaints($node, $offset), '', "$mode shutdown is quiet");
}

# pg_upgrade wants the databases for itself.
$node->stop;
system_or_bail('pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, '-o', '-b', 'start');
is(scalar(my @none = workers($node)), 0, 'no worker runs under pg_upgrade');
system_or_bail('pg_ctl', '-w', '-D', $node->data_dir, '-m', 'fast', 'stop');

##########################################################################
# More databases than worker slots
##########################################################################

my $few = new_node('few', conf => $prefix . "max_worker_processes = 4\n");
wait_sql($few, $numbers, 'the first database has its dispatcher', expected => '0/1');
$few->safe_psql('template1', "CREATE EXTENSION retry");
$few->safe_psql('postgres', "CREATE DATABASE many$_") for 1 .. 6;
wait_for(sub { slurp_file($few->logfile) =~ /no background worker slot is free/ },
	'the log says that slots are short');
wait_sql($few, "SELECT bool_or(status <> 'ok') FROM retry.health() WHERE check_name ~ 'slot|worker'",
	'and so does retry.health()');
# Two slots are left for dispatchers beside the two launchers.  One database
# after the other gives its slot to the next.
for my $n (1 .. 6)
{
	command_works($few, "DROP DATABASE many$n");
}
$few->safe_psql('template1', "DROP EXTENSION retry");
wait_sql($few, $numbers, 'the last one has its dispatcher', expected => '0/1');
$few->stop;
my @warnings = grep { /slot/ } split /\n/, complaints($few);
is(scalar(@warnings), 1, 'one warning, however long slots were short')
  || diag(join "\n", @warnings);

##########################################################################
# Not preloaded
##########################################################################

my $plain = new_node('plain', preload => 0, extension => 0, conf => "retry.max_in_flight = 100\n");
my ($rc, $err);
($rc, $out, $err) = $plain->psql('postgres',
	"CREATE EXTENSION retry; SELECT retry.check_workers(); SELECT retry.check_workers(); SHOW retry.max_in_flight");
is($rc, 0, 'CREATE EXTENSION works without preloading');
is(() = $err =~ /WARNING: .*not preloaded/g, 1, 'and warns, once a session');
is((split /\n/, $out)[-1], 100, 'settings are known');
$plain->stop;

##########################################################################
# A standby is quiet until it is promoted
##########################################################################

my $primary = new_node('primary', streaming => 1, conf => $prefix);
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
is(scalar(@none = workers($standby)), 0, 'no worker runs on a standby');
$primary->stop;
$standby->promote;
wait_connected($standby, 'postgres:1', 'after promotion the dispatcher is there', 'postgres');
is(complaints($standby), '', 'without a complaint');
$standby->stop;

##########################################################################
# The log as a whole
##########################################################################

my @lines = grep { /^retry |background worker "retry/ } split /\n/, slurp_file($node->logfile);
cmp_ok(scalar(@lines), '<', 60, 'workers wrote little')
  || diag(join "\n", @lines[ 0 .. 59 ]);

done_testing();
