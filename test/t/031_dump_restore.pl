# pg_dump and pg_restore into another cluster: every row arrives, nothing that
# came so is sent before retry.adopt(), and after it everything is, once.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $receiver = start_endpoint();
my $url = $receiver->url('');
my $source = new_node('source');
my $dump = "${PostgreSQL::Test::Utils::tmp_check}/dump";

sub sent
{
	my @got = $receiver->ledger($_[0]);
	return scalar @got;
}

# Makes a server use up transaction numbers.
sub burn
{
	my ($node, $n) = @_;

	$node->safe_psql('postgres', "DO \$\$ BEGIN FOR i IN 1 .. $n LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END \$\$");
	return;
}

# All that is to arrive, in an order of its own; what each row was given anew
# (the number of its transaction, the inert mark) left out, and so are the keys
# of finished tasks, which upkeep may drop at any time.
my @tables = (
	[ task => "to_jsonb(t) - 'xid' - 'inert'" ],
	[ attempt => 'to_jsonb(t)' ],
	[ signal => "to_jsonb(t) - 'xid' - 'inert'" ],
	[ dead_letter => 'to_jsonb(t)' ],
	[ replayed => 'to_jsonb(t)' ],
	[ key => 'to_jsonb(t)', q{WHERE key IN ('retrying', 'soon', 'pending', 'year')} ],
	[ scene => 'to_jsonb(t)' ],
	[ scene_group => 'to_jsonb(t)' ],
	[ group_member => 'to_jsonb(t)' ],
	[ channel => 'to_jsonb(t)' ],
	[ alarm_rule => 'to_jsonb(t)' ],
	[ server => 'to_jsonb(t)' ],
	[ global_branch => 'to_jsonb(t)' ]);

sub contents
{
	my ($node, $dbname) = @_;
	my %rows;

	$rows{ $_->[0] } =
	  $node->safe_psql($dbname, "SELECT $_->[1]::text FROM retry.$_->[0] t " . ($_->[2] // '') . ' ORDER BY 1')
	  foreach @tables;
	return \%rows;
}

sub same_rows
{
	my ($before, $after, $how) = @_;

	is($after->{$_}, $before->{$_}, "$how: retry.$_ is the same") foreach map { $_->[0] } @tables;
	return;
}

# The source: tasks in every state, built-in rows changed, own groups and scenes.
$source->safe_psql('postgres', <<SQL);
CREATE ROLE app;
INSERT INTO retry.scene_group (name, owner, description) VALUES ('shop', 'app', 'x');
SELECT retry.grant('app', 'default');
UPDATE retry.scene SET max_attempts = 7, description = 'ours' WHERE name = 'default';
UPDATE retry.scene_group SET description = 'ours too' WHERE name = 'default';
INSERT INTO retry.channel (group_name, name, kind, url, mail_from, mail_to) VALUES ('shop', 'post', 'email', 'smtps://127.0.0.1', 'a\@b', '{c\@d}');
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES
	('shop', 'later', '$url/status/500', 'fixed 1h', 5),
	('shop', 'soon', '$url/status/500', 'fixed 1s', 1000),
	('shop', 'dies', '$url/status/500', 'fixed 10ms', 2),
	('shop', 'paused', '$url/ok', 'fixed 1h', 5);
UPDATE retry.scene SET paused = true WHERE name = 'paused';
INSERT INTO retry.channel (group_name, name, kind, url) VALUES ('shop', 'ops', 'webhook', '$url/ok/alarm');
INSERT INTO retry.alarm_rule (group_name, name, scene, condition, threshold, channels, collect) VALUES
	('shop', 'full', 'soon', 'pending', 1e9, '{ops}', '0');
INSERT INTO retry.server (group_name, name, conninfo, secret) VALUES ('shop', 'bank', 'host=127.0.0.1 dbname=d user=u', 'p');
INSERT INTO retry.global_branch VALUES (gen_random_uuid(), 1, 'bank', 'retry_of_one');
SQL
my %id;
$id{done} = enqueue($source, "'$url/ok', '{\"n\": 1}', key => 'done', reference => 'r-1'");
$id{retrying} = enqueue($source, "'shop/later', '{}', key => 'retrying', headers => '{\"X-A\": \"b\"}'");
$id{soon} = enqueue($source, "'shop/soon', '{}', key => 'soon'");
$id{dead} = enqueue($source, "'shop/dies', '{}', key => 'dead'");
$id{replayed} = enqueue($source, "'shop/dies', '{}', key => 'replayed'");
$id{pending} = enqueue($source, "'shop/paused', '{}', key => 'pending'");
$id{year} = enqueue($source, "'$url/ok', '{}', key => 'year', delay => '1 year'");
$id{cancelled} = enqueue($source, "'shop/paused', '{}', key => 'cancelled'");
wait_state($source, $id{$_}, $_ eq 'done' ? 'succeeded' : $_ =~ /retrying|soon/ ? 'retrying' : 'dead')
  foreach qw(done retrying soon dead replayed);
$source->safe_psql('postgres', "SELECT retry.cancel('$id{cancelled}'), retry.replay('$id{replayed}')");
wait_sql($source, "SELECT count(*) FROM retry.tasks WHERE state = 'dead'", 'the replay died too', expected => 3);
$source->append_conf('postgresql.conf', 'retry.enabled = off');
$source->restart;
my $before = contents($source, 'postgres');
my $total = () = $before->{task} =~ /^/mg;
is($total, 9, 'nine tasks are in the source');

system_or_bail('pg_dump', '-Fc', '-f', "$dump.custom", '-d', $source->connstr('postgres'));
system_or_bail('pg_dump', '-Fp', '-f', "$dump.sql", '-d', $source->connstr('postgres'));
system_or_bail('pg_dump', '-a', '-Fc', '-f', "$dump.data", '-d', $source->connstr('postgres'));
# It is not to interfere with what the copies send.
$source->stop;

# What every copy must do, however it came about.
sub check_copy
{
	my ($node, $dbname, $how) = @_;
	my %opt = (dbname => $dbname);
	my $sql = sub { $node->safe_psql($dbname, $_[0]) };

	same_rows($before, contents($node, $dbname), $how);
	is($sql->('SELECT count(*) FROM retry.task WHERE NOT inert'), 0, "$how: all are marked as foreign");
	is($sql->('SELECT count(*) FROM retry.task WHERE xid > pg_current_xact_id()'),
		0, "$how: with numbers of this cluster");
	is($sql->("SELECT count(*) FROM pg_trigger WHERE tgname = 'mark_foreign_row' AND tgenabled <> 'A'"),
		0, "$how: the triggers are as they were");
	$receiver->reset;

	# Make due what is not finished, and let it be tempted.  One task's next
	# attempt was due long ago.
	$sql->("UPDATE retry.scene SET paused = false, url = replace(url, '/status/500', '/ok')");
	foreach my $id (@id{qw(retrying year)})
	{
		is($sql->("SELECT retry.run_now('$id')"), 't', "$how: run_now() is heard");
	}
	my $new = enqueue($node, "'$url/ok', '{}', key => 'new-$how'", %opt);
	wait_state($node, $new, 'succeeded', %opt, description => "$how: a new task is sent at once");
	my $scene = $sql->("INSERT INTO retry.scene (group_name, name, url) VALUES ('shop', 'made', '$url/ok') RETURNING id");
	cmp_ok($scene, '>', $sql->("SELECT max(id) FROM retry.scene WHERE name <> 'made'"),
		"$how: the numbers of scenes go on");
	is($sql->("INSERT INTO retry.alarm_rule (group_name, name, condition, channels, active) VALUES ('shop', 'made', 'dead', '{ops}', false)
		RETURNING id > (SELECT max(id) FROM retry.alarm_rule)"), 't', "$how: those of rules too, and channels are known");
	my $made = enqueue($node, "'shop/made', '{}', key => 'made-$how'", %opt);
	wait_state($node, $made, 'succeeded', %opt, description => "$how: so is one of a new scene");
	is(enqueue($node, "'shop/paused', '{}', key => 'pending'", %opt), $id{pending},
		"$how: a key still names its task");
	is(sent($_), 0, "$how: $_ is not sent") foreach keys %id;
	$sql->('CALL retry.maintain()');
	is($sql->("SELECT count(*) FROM retry.tasks WHERE state IN ('pending', 'retrying')"),
		4, "$how: upkeep leaves them alone");

	$sql->('SELECT retry.adopt()');
	foreach my $name (qw(retrying soon pending year))
	{
		wait_state($node, $id{$name}, 'succeeded', %opt, description => "$how: adopted, $name is sent");
		is(sent($name), 1, "$how: once");
	}
	is($sql->("SELECT string_agg(attempt_no || ' ' || outcome, ', ' ORDER BY attempt_no) FROM retry.attempts WHERE task_id = '$id{retrying}'"),
		'1 failed, 2 succeeded', "$how: its attempts go on counting");
	is($sql->("SELECT count(*) = max(attempt_no), count(*) FILTER (WHERE outcome = 'succeeded') FROM retry.attempts WHERE task_id = '$id{soon}'"),
		't|1', "$how: so do those of the one that was due");
	is(sent($_), 0, "$how: $_ is not") foreach qw(done dead replayed cancelled);
	return;
}

# Into a younger cluster, in one transaction.
my $younger = new_node('younger', extension => 0);
cmp_ok($younger->safe_psql('postgres', 'SELECT pg_current_xact_id()'), '>', 0, 'another cluster');
$younger->safe_psql('postgres', 'CREATE ROLE app');
$younger->safe_psql('postgres', 'CREATE DATABASE restored');
system_or_bail('pg_restore', '--single-transaction', '--exit-on-error', '-d', $younger->connstr('restored'), "$dump.custom");
check_copy($younger, 'restored', 'pg_restore -1');

# Into an older one, as plain SQL.
burn($younger, 30000);
$younger->safe_psql('postgres', 'CREATE DATABASE plain');
$younger->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $younger->connstr('plain'), '-f', "$dump.sql" ],
	'psql runs a plain dump');
check_copy($younger, 'plain', 'plain');

# Data only, with triggers off, beside an extension that is there already.
$younger->safe_psql('postgres', 'CREATE DATABASE dataonly');
$younger->safe_psql('dataonly', 'CREATE EXTENSION retry');
wait_sql($younger, "SELECT count(*) FROM pg_stat_activity WHERE datname = 'dataonly' AND backend_type = 'retry dispatcher'",
	'delivery runs already', expected => 1);
system_or_bail('pg_restore', '--data-only', '--disable-triggers', '--single-transaction', '--exit-on-error', '-d', $younger->connstr('dataonly'), "$dump.data");
check_copy($younger, 'dataonly', 'disable-triggers');

# In parts, with upkeep amidst: attempts and keys come before their tasks, and are not taken for left over.
$younger->safe_psql('postgres', 'CREATE DATABASE parts');
$younger->safe_psql('parts', 'CREATE EXTENSION retry');
my %part = (first => '', others => '');
$part{ / retry (?:attempt_|key|scene )/ ? 'first' : 'others' } .= $_ foreach `pg_restore -l '$dump.data'` =~ /^.*\n/mg;
foreach my $part (qw(first others))
{
	append_to_file("$dump.$part", $part{$part});
	system_or_bail('pg_restore', '--data-only', '--disable-triggers', '--exit-on-error', '-L', "$dump.$part",
		'-d', $younger->connstr('parts'), "$dump.data");
	$younger->safe_psql('parts', 'CALL retry.maintain(); CALL retry.maintain()') if $part eq 'first';
	is($younger->safe_psql('parts', 'SELECT to_jsonb(t)::text FROM retry.attempt t ORDER BY 1'), $before->{attempt}, "in parts, $part: attempts are there");
	is($younger->safe_psql('parts', "SELECT to_jsonb(t)::text FROM retry.key t $tables[5][2] ORDER BY 1"), $before->{key}, "in parts, $part: so are keys");
}
is(() = slurp_file($younger->logfile) =~ /LOG: .*upkeep of database "parts" waits/g, 1, 'upkeep said that it waits, once');
$younger->safe_psql('parts', 'CALL retry.maintain()');
is($younger->safe_psql('parts', "SELECT count(*) FROM retry.key WHERE key = 'done'"), 0, 'and goes on when all is there');

unlike(slurp_file($younger->logfile), qr/PANIC|TRAP|ERROR:.*(?:task_|attempt_|retry)/, 'no errors in the log');
done_testing();
