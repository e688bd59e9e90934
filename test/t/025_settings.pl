# Whatever a DBA or a tenant sets for the database or for the role that workers
# run as, and whatever a reload brings: tasks are delivered, and a server that
# is to wait for a standby which does not exist can still be stopped.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('settings', streaming => 1, conf => "retry.poll_interval = 200ms\n");
hold_nothing($node);
my $receiver = start_endpoint();
my $ok = $receiver->url('/flaky/1');
my @settings = (
	[ default_transaction_read_only => 'on' ],
	[ default_transaction_isolation => 'serializable' ],
	[ default_transaction_deferrable => 'on' ],
	[ statement_timeout => '1ms' ],
	[ lock_timeout => '1ms' ],
	[ idle_in_transaction_session_timeout => '1ms' ],
	[ idle_session_timeout => '1ms' ],
	[ search_path => 'evil' ],
	[ synchronous_commit => 'off' ],
	[ synchronous_commit => 'remote_apply' ],
	[ row_security => 'off' ],
	[ session_replication_role => 'replica' ],
	[ role => 'weak' ],
	[ datestyle => 'SQL, DMY' ],
	[ intervalstyle => 'sql_standard' ],
	[ timezone => 'Asia/Kathmandu' ],
	[ client_encoding => 'LATIN1' ],
	[ bytea_output => 'escape' ],
	[ standard_conforming_strings => 'off' ],
	[ enable_indexscan => 'off' ],
	[ jit_above_cost => '0' ],
	[ log_min_duration_statement => '0' ],
	[ client_min_messages => 'debug5' ],
	[ default_tablespace => 'pg_default' ],
	[ check_function_bodies => 'off' ],
	[ work_mem => '64kB' ],
	[ transform_null_equals => 'on' ],
	[ xmloption => 'document' ]);

# Our own sessions want none of that.
$ENV{PGOPTIONS} = join ' ', map { "-c $_" } (
	'default_transaction_read_only=off', 'statement_timeout=0', 'lock_timeout=0',
	'idle_in_transaction_session_timeout=0', 'idle_session_timeout=0', 'synchronous_commit=local',
	'session_replication_role=origin', 'role=none', 'client_encoding=UTF8', 'client_min_messages=notice',
	'default_transaction_isolation=read\ committed', 'default_transaction_deferrable=off',
	'jit=off', 'enable_indexscan=on', 'work_mem=4MB');

# Functions that would be called if a name were looked up in it.
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE weak;
CREATE SCHEMA evil;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$;
CREATE FUNCTION evil.evil_uuid(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$;
CREATE OPERATOR evil.= (FUNCTION = evil.evil_uuid, LEFTARG = uuid, RIGHTARG = uuid);
SQL

# Delivers a task that fails once, and another that dies; by a dispatcher that
# has started with the settings of now, unless told otherwise.
sub delivers
{
	my ($description, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	# a server started anew has a new dispatcher at once
	$node->restart unless $opt{same};
	my ($id, $dead) = split /\n/,
	  $node->safe_psql('postgres',
		"SELECT retry.enqueue('$ok', '{}', backoff => 'fixed 10ms');"
		  . "SELECT retry.enqueue('" . $receiver->url('/status/400') . "', '{}')");
	return wait_sql($node,
		"SELECT (SELECT state || ' ' || attempts FROM retry.tasks WHERE id = '$id') || ', ' || (SELECT state FROM retry.tasks WHERE id = '$dead')",
		$description, expected => 'succeeded 2, dead');
}

sub quoted
{
	my ($name, $value) = @{ $_[0] };

	return $name eq 'datestyle' ? "$name = $value" : "$name = '$value'";
}

# Those that are known to hurt one by one, then the others together.
my @alone = @settings[ 0 .. 12 ];
my @together = @settings[ 13 .. $#settings ];
foreach my $setting (map { quoted($_) } @alone)
{
	$node->safe_psql('postgres', "ALTER DATABASE postgres SET $setting");
	delivers("ALTER DATABASE SET $setting");
	$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET ALL');
}
$node->safe_psql('postgres', "ALTER DATABASE postgres SET $_") foreach map { quoted($_) } @together;
delivers('ALTER DATABASE SET of many others');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET ALL');

# All at once, for the role and, by a reload, for the whole server.
my @bad = grep { $_->[0] !~ /^(role|client_encoding|datestyle|search_path)$/ } @settings;
$node->safe_psql('postgres', "ALTER ROLE postgres SET $_->[0] = '$_->[1]'") foreach @bad;
delivers('ALTER ROLE SET of all of them');
$node->safe_psql('postgres', 'ALTER ROLE postgres RESET ALL');
$node->safe_psql('postgres', join "\n", map { "ALTER SYSTEM SET $_->[0] = '$_->[1]';" } grep { $_->[0] ne 'session_replication_role' } @bad);
my ($dispatcher) = workers($node, 'retry dispatcher');
$node->reload;
delivers("a reload with all of them, task $_", same => 1) foreach 1 .. 2;
is(join(',', workers($node, 'retry dispatcher')), $dispatcher, 'by the same dispatcher');
delivers('and by a new one');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
$node->reload;

# A synchronous standby that does not exist.
foreach my $level ('on', 'remote_apply')
{
	$node->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = 'nobody'; ");
	$node->safe_psql('postgres', "ALTER SYSTEM SET synchronous_commit = '$level'");
	$node->reload;
	is($node->safe_psql('template1', 'SHOW synchronous_standby_names'), 'nobody', 'a standby is waited for');
	delivers("with synchronous_commit = $level and no standby", same => 1);
	delivers('and from the start');
	enqueue($node, "'$ok', '{}', backoff => 'fixed 1ms', max_attempts => 1000") foreach 1 .. 20;
	is( $node->safe_psql('postgres',
			"SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'retry%' AND wait_event = 'SyncRep'"),
		'0', 'no worker waits for it');
	ok($node->stop('fast', fail_ok => 1), 'a fast stop comes to its end');
	$node->start;
	delivers('and it delivers after the restart', same => 1);
}
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|evil|terminated by signal/, 'nothing of it in the log');
$node->stop;
done_testing();
