# An old cluster becomes a new one: by pg_upgrade, after which the new one goes
# on by itself, since the old one is not to be started again; and by pg_dumpall,
# after which it waits for retry.adopt(), since the old one may be alive.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $receiver = start_endpoint();
my $url = $receiver->url('');
my $conf = "retry.poll_interval = 200ms\n";
my $old = new_node('old', extension => 0, conf => $conf);
my $dump = "${PostgreSQL::Test::Utils::tmp_check}/all.sql";

sub sent
{
	my @got = $receiver->ledger($_[0]);
	return scalar @got;
}

# The old one: tasks of each kind.
$old->safe_psql('postgres', 'CREATE ROLE app; CREATE DATABASE shop');
my %opt = (dbname => 'shop');
$old->safe_psql('shop', <<SQL);
CREATE EXTENSION retry;
INSERT INTO retry.scene_group (name, owner) VALUES ('shop', 'app');
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES
	('shop', 'later', '$url/status/500', 'fixed 1h', 5), ('shop', 'dies', '$url/status/500', 'fixed 10ms', 1);
SELECT retry.schedule('yearly', '0 0 1 1 *', '$url/ok');
SQL
my %id;
$id{done} = enqueue($old, "'$url/ok', '{}', key => 'done'", %opt);
$id{later} = enqueue($old, "'shop/later', '{}', key => 'later', headers => '{\"X-A\": \"b\"}'", %opt);
$id{dead} = enqueue($old, "'shop/dies', '{}', key => 'dead'", %opt);
$id{year} = enqueue($old, "'$url/ok', '{}', key => 'year', delay => '1 year'", %opt);
wait_state($old, $id{ $_->[0] }, $_->[1], %opt) foreach [ done => 'succeeded' ], [ later => 'retrying' ], [ dead => 'dead' ];
$old->append_conf('postgresql.conf', 'retry.enabled = off');
$old->restart;
$id{due} = enqueue($old, "'$url/ok', '{}', key => 'due'", %opt);
my $state = "SELECT string_agg(key || ' ' || state || ' ' || attempts, ', ' ORDER BY key) FROM retry.tasks";
my $before = $old->safe_psql('shop', $state);
is($before, 'dead dead 1, done succeeded 1, due pending 0, later retrying 1, year pending 0', 'the old one has all kinds');
$old->command_ok([ 'pg_dumpall', '-f', $dump, '-d', $old->connstr('postgres') ], 'pg_dumpall');
$old->stop;

sub goes_on
{
	my ($new, $how) = @_;

	wait_state($new, $id{due}, 'succeeded', %opt, description => "$how: what is due is sent");
	$new->safe_psql('shop', "UPDATE retry.scene SET url = '$url/ok' WHERE name = 'later'");
	$new->safe_psql('shop', "SELECT retry.run_now('$id{$_}')") foreach qw(later year);
	wait_state($new, $id{$_}, 'succeeded', %opt, description => "$how: $_ too") foreach qw(later year);
	is($new->safe_psql('shop', "SELECT string_agg(attempt_no || ' ' || outcome, ', ' ORDER BY attempt_no) FROM retry.attempts WHERE task_id = '$id{later}'"),
		'1 failed, 2 succeeded', "$how: its attempts go on counting");
	like($new->safe_psql('shop', $state), qr/dead dead 1, done succeeded 1, due succeeded 1, later succeeded 2, .*year succeeded 1/,
		"$how: all tasks are there");
	like($new->safe_psql('shop', "SELECT retry.replay('$id{dead}')"), qr/^[0-9a-f-]{36}$/, "$how: a dead letter can be replayed");
	is(sent($_), 1, "$how: $_ once") foreach qw(due year);
	is(sent($_), 0, "$how: $_ not again") foreach qw(done);
	return;
}

# pg_upgrade, here to the same version: files and transaction numbers stay as they are.
$receiver->reset;
my $new = new_node('new', start => 0, conf => $conf);
$new->command_ok(
	[ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $old->config_data('--bindir'),
		'-B', $new->config_data('--bindir'), '-s', $new->host, '-p', $old->port, '-P', $new->port, '-j', '1' ],
	'pg_upgrade');
$new->start;
goes_on($new, 'pg_upgrade');
is($new->safe_psql('shop', 'SELECT held_reason IS NULL FROM retry.schedules'), 't', 'pg_upgrade: the schedule runs');
like(slurp_file($new->logfile), qr/LOG: .*this server goes on with what directory/, 'pg_upgrade: the log says who goes on');
$new->stop;

# pg_dumpall
$receiver->reset;
my $restored = new_node('restored', extension => 0, conf => $conf);
$restored->command_ok([ 'psql', '-X', '-q', '-d', $restored->connstr('postgres'), '-f', $dump ], 'psql runs the dump');
is($restored->safe_psql('shop', $state), $before, 'pg_dumpall: tasks and attempts are there');
my $id = enqueue($restored, "'$url/ok', '{}', key => 'new'", %opt);
wait_state($restored, $id, 'succeeded', %opt, description => 'a new task is sent');
is(sent('due'), 0, 'what is due is not');
$restored->safe_psql('shop', 'SELECT retry.adopt()');
goes_on($restored, 'pg_dumpall');
$restored->stop;
done_testing();
