# Attacks around two-phase commit: by servers that are connected to and do not
# answer as PostgreSQL does, by who may write there, by roles here that have no
# say over a server or a transaction, and by the environment of this server.
# Each case passes because its attack fails; test/attack/cases says which set of
# test/attack/without removes its defence.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Cases 'every_case_has_its_set';
use RetryTest::RogueServer;
use Test::More;

my $rogue = RetryTest::RogueServer->new('127.0.0.1');
my $node = new_node('main', start => 0);
my $password = 'word-77a1-not-seen';
{
	local @ENV{qw(PGPASSWORD PGAPPNAME PGOPTIONS)} = ('of-the-environment', 'of-the-environment', '-c search_path=planted');
	$node->start;
}
$node->safe_psql('postgres', 'CREATE EXTENSION retry');
$node->safe_psql('postgres', 'CREATE DATABASE there');
hold_nothing($node);
my $there = 'host=' . $node->host . ' port=' . $node->port . ' dbname=there user=till';

sub sql
{
	return ask($node, $_[0]);
}

# What a statement says, as a role, each in a session of its own: its error as SQLSTATE and text.
sub said
{
	my ($statement, %opt) = @_;
	my $timed_out;
	my ($rc, $out, $err);

	# it dies when the server does, which is for the case to tell
	eval {
		($rc, $out, $err) = $node->psql('postgres', (defined $opt{role} ? "SET ROLE $opt{role};\n" : '') . $statement,
			extra_params => [ '-v', 'VERBOSITY=verbose' ], timeout => $opt{timeout}, timed_out => \$timed_out);
		1;
	} or return "the server is gone: $@";
	return 'no end' if $timed_out;
	return $out if $err !~ /ERROR:  (.*)/;
	return $1;
}

sql(<<"SQL");
CREATE ROLE bank;
CREATE ROLE mallory;
CREATE ROLE till LOGIN;
CREATE ROLE writer IN ROLE pg_write_all_data, pg_read_all_data;
INSERT INTO retry.scene_group (name, owner) VALUES ('bank', 'bank'), ('mallory', 'mallory');
INSERT INTO retry.scene (group_name, name) VALUES ('bank', 'transfer'), ('mallory', 'own');
INSERT INTO retry.server (group_name, name, conninfo) VALUES ('bank', 'there', '$there'), ('mallory', 'same', '$there');
INSERT INTO retry.server (group_name, name, conninfo, timeout) VALUES ('bank', 'rogue', \$\$@{[ $rogue->conninfo('gone') ]}\$\$, '5 s');
SQL
$node->safe_psql('there', 'GRANT CREATE ON SCHEMA public TO PUBLIC; CREATE TABLE work (n int); GRANT ALL ON work TO PUBLIC');

# How the rogue is to answer from now on.
sub rogue
{
	my ($how) = @_;

	sql('UPDATE retry.server SET conninfo = $$' . $rogue->conninfo($how) . q($$ WHERE name = 'rogue'));
	return;
}

sub doubt
{
	my ($how, %opt) = @_;

	rogue($how);
	return said("SELECT error FROM retry.in_doubt('rogue', 'bank')", role => 'bank', %opt);
}

sub look
{
	my ($how) = @_;

	rogue($how);
	return said(q(SELECT retry.settle_server('{"group": "bank", "server": "rogue"}')), role => 'bank');
}

sub begin
{
	my ($role, $scene, $server) = @_;
	my $gid = said("SELECT retry.twophase_begin('$scene', '1 h')", role => $role);

	return ($gid, said("SELECT retry.twophase_branch('$gid', '$server')", role => $role));
}

sub prepare
{
	my ($name) = @_;

	return $node->safe_psql('there', "SET SESSION AUTHORIZATION till; BEGIN; INSERT INTO work VALUES (1); PREPARE TRANSACTION '$name'");
}

sub prepared
{
	return sql(q(SELECT coalesce(string_agg(gid, ' '), 'none') FROM pg_prepared_xacts));
}

# ---------------------------------------------------------------- rights

foreach my $role (qw(mallory bank writer))
{
	like(said("INSERT INTO retry.server (group_name, name, conninfo) VALUES ('$role', 'x', '$there')", role => $role), qr/^42501: /, "rights: $role makes no server");
}
like(said("SELECT conninfo FROM retry.server", role => 'mallory'), qr/^42501: /, 'rights: mallory does not read how one connects');
said("UPDATE retry.server SET conninfo = 'host=elsewhere dbname=x user=y' WHERE name = 'same'; DELETE FROM retry.server WHERE name = 'there'", role => 'writer');
is(sql(q(SELECT string_agg(name || ' ' || (conninfo ~ 'elsewhere'), ',' ORDER BY name) FROM retry.server)), 'rogue false,same false,there false', 'rights: nor does who may write all data change one');
foreach my $table (qw(task task_17 signal signal_17 dead_letter global_message global_operation schedule_definition))
{
	like(said("INSERT INTO retry.$table (" . ($table =~ /schedule/ ? 'name' : 'leaf') . ') VALUES (17)', role => 'writer'), qr/^42501: /, "rights: nor put a task of others into $table");
}
sql("SELECT retry.grant('writer', 'default'); CREATE FUNCTION public.evil(jsonb) RETURNS void LANGUAGE sql AS ''");
my $task = said(q(SELECT retry.enqueue('sql:public.evil', delay => '20 days')), role => 'writer');
said(join('; ', 'UPDATE retry.task SET enqueued_by = 10', map { sprintf('UPDATE retry.task_%02d SET enqueued_by = 10', $_) } 0 .. 32), role => 'writer');
is(sql("SELECT enqueued_by FROM retry.tasks WHERE id = '$task'"), 'writer', 'rights: nor have a function called as a superuser');
foreach my $statement (q(SELECT * FROM retry.in_doubt(group_name => 'bank')), q(SELECT * FROM retry.in_doubt('there', 'bank')),
	q(SELECT retry.settle_server('{"group": "bank", "server": "there"}')), q(SELECT retry.twophase_begin('bank/transfer')))
{
	like(said($statement, role => 'mallory'), qr/^42501: /, "rights: not for mallory: $statement");
}
my ($gid, $name) = begin('bank', 'bank/transfer', 'there');
my $nobodys = '01900000-0000-7000-8000-000000000000';
foreach my $call (q[twophase_branch('%s', 'there')], q[commit('%s')], q[rollback('%s')], q[settle('%s', 'there', 'rollback')],
	q[settle_branch('{"gid": "%s", "branch": 1}')], q[tcc_branch('%s', 'x', 'mallory/own', 'mallory/own', 'mallory/own')])
{
	my ($theirs, $none) = map { my $said = said('SELECT retry.' . sprintf($call, $_), role => 'mallory'); $said =~ s/\Q$_\E/(id)/gr } $gid, $nobodys;

	is($theirs, $none, "rights: retry.$call says the same of a transaction of others and of none");
}
my ($own) = begin('mallory', 'mallory/own', 'same');
like(said("SELECT retry.twophase_branch('$own', 'there')", role => 'mallory'), qr/^42704: .*has no server/, 'rights: a server of others is not used in a transaction of one\'s own');
prepare($name);
is(said(q(SELECT retry.settle_server('{"group": "mallory", "server": "same"}')), role => 'mallory'), 'committed 0, rolled back 0', 'rights: what others have not decided is not settled');
is(prepared(), $name, 'rights: and stays');
said("BEGIN; SELECT retry.rollback('$gid'); SELECT retry.settle_branch('{\"gid\": \"$gid\", \"branch\": 1}')", role => 'bank');
is(prepared(), $name, 'rights: nor by a decision that is not committed');
is(said("SELECT retry.rollback('$gid')", role => 'bank'), 't', 'control: it is rolled back');
wait_for(sub { prepared() eq 'none' }, 'control: as was decided');

# ---------------------------------------------------------------- connection strings

foreach my $more ('password=x', 'passfile=/tmp/x', 'sslpassword=x', 'service=x', 'replication=database', 'client_encoding=LATIN1')
{
	like(said("UPDATE retry.server SET conninfo = '$there $more' WHERE name = 'there'"), qr/^22023: conninfo must not contain/, "conninfo: $more");
}
like(said("UPDATE retry.server SET conninfo = 'postgresql://till:secret\@127.0.0.1/there' WHERE name = 'there'"), qr/^22023: conninfo must not contain password/, 'conninfo: a password in a URI');
like(said("UPDATE retry.server SET conninfo = 'dbname=there user=till' WHERE name = 'there'"), qr/^22023: conninfo names no host/, 'conninfo: where the environment leads');
like(said("UPDATE retry.server SET conninfo = 'host=127.0.0.1 dbname=there' WHERE name = 'there'"), qr/^22023: conninfo names no user/, 'conninfo: who the environment is');
like(doubt('password;error=no'), qr/no password supplied/, 'environment: its password is not used');
unlike($rogue->received, qr/of-the-environment|planted/, 'environment: nothing of it is sent');
sql("SELECT retry.set_secret('word', '$password', 'bank'); UPDATE retry.server SET secret = 'word' WHERE name = 'rogue'");
doubt('password;error=no');
like($rogue->received, qr/^password: \Q$password\E/m, 'control: that of the secret is');

# ---------------------------------------------------------------- answers

my $not_postgres = 'server "rogue": it does not answer as PostgreSQL does';
is(doubt('rows=6,0'), 'server "rogue" does not say what is prepared there', 'answer: no row');
is(doubt('rows=6,1'), 'server "rogue" does not say what is prepared there', 'answer: nulls');
is(doubt('rows=1,1'), $not_postgres, 'answer: one column of six');
is(doubt('rows=0,3'), $not_postgres, 'answer: rows without columns');
is(doubt('rows=7,1'), $not_postgres, 'answer: a column more');
is(doubt('none'), $not_postgres, 'answer: nothing was done');
is(doubt('more'), $not_postgres, 'answer: another command\'s');
is(doubt('rows=6,1;rows=6,1'), 'server "rogue": it answers more than once', 'answer: two');
is(doubt('text=%FF%FE,6'), 'server "rogue": its answer is not in the encoding of this database', 'answer: what is no text');
is(doubt('error=%FF%FE and %1B[31m'), 'server "rogue": ?? and ?[31m', 'answer: an error that is no text');
is(doubt("password;error=password is $password"), 'server "rogue": password is ' . '*' x length $password, 'answer: an error that tells the password');
unlike(said("SELECT retry.settle_server('{\"group\": \"bank\", \"server\": \"rogue\"}')", role => 'bank'), qr/\Q$password/, 'answer: nor is it in a hint');
is(doubt('password;error=' . 'x' x 500 . $password), 'server "rogue": ' . 'x' x 500 . '*' x 11, 'answer: nor a part of it, where it is cut');
is(doubt('flood=17,6'), 'server "rogue": it answers with more than 16 MB', 'answer: more rows than anybody wants');
is(doubt('long=17,6'), 'server "rogue": it answers with more than 16 MB', 'answer: a row that is as long');
is(doubt("password;text=$password,6"), $not_postgres, 'answer: the password, in place of a time');
is(doubt('notice;rows=6,1'), 'server "rogue" does not say what is prepared there', 'answer: a notice');
unlike(slurp_file($node->logfile), qr/forged by a server/, 'answer: which is not in the log of this server');
is(look('rows=1,2'), 'committed 0, rolled back 0', 'answer: transactions without a name');
is(look(q(text=retry_1_1_x%27%3B DROP TABLE work%3B --,1)), 'committed 0, rolled back 0', 'answer: a name that ends the command');
unlike($rogue->received, qr/^[PQ] .*DROP/m, 'answer: is not sent back');
(my $at_rogue, $name) = begin('bank', 'bank/transfer', 'rogue');
rogue("first=$name,10");
is(said("SELECT retry.commit('$at_rogue')", role => 'bank'), '08P01: server "rogue" does not say how branch 1 is prepared', 'answer: a name and nothing else, to a commit');
rogue('rows=10,2');
like(said("SELECT retry.commit('$at_rogue')", role => 'bank'), qr/^55000: branch 1 is not prepared/, 'answer: nulls, to a commit');
rogue('rows=10,0');
like(said("SELECT retry.commit('$at_rogue')", role => 'bank'), qr/^55000: branch 1 is not prepared/, 'answer: nothing, to a commit');

# ---------------------------------------------------------------- what is planted there

$node->safe_psql('there', <<'SQL');
CREATE SEQUENCE public.loot;
GRANT ALL ON SEQUENCE public.loot TO PUBLIC;
CREATE FUNCTION public.starts_with(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.loot'); RETURN true; END $$;
CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.loot'); RETURN '1'; END $$;
CREATE VIEW public.pg_prepared_xacts AS SELECT 1::text::xid AS transaction, 'retry_planted'::text AS gid, now() AS prepared, 'till'::name AS owner, 'there'::name AS database;
GRANT SELECT ON public.pg_prepared_xacts TO PUBLIC;
ALTER ROLE till SET search_path = public, pg_catalog;
SQL
is(said("SELECT count(name), count(error) FROM retry.in_doubt('there', 'bank')", role => 'bank'), '0|0', 'planted: a view there is not asked');
is($node->safe_psql('there', "SELECT is_called, setval('loot', 1, false) FROM loot"), 'f|1', 'planted: no function there is called');
is(said(q(SELECT retry.settle_server('{"group": "bank", "server": "there"}')), role => 'bank') . ', ' . $node->safe_psql('there', 'SELECT is_called FROM loot'), 'committed 0, rolled back 0, f', 'planted: nor to settle');
my ($system, $database) = split /\|/, sql(q(SELECT s.system_identifier, d.oid FROM pg_control_system() s, pg_database d WHERE datname = current_database()));
foreach my $forged ("retry_${system}_${database}_${nobodys}_1_18446744073709551615", "retry_${system}_${database}_${nobodys}_1_3 ", "retry_${system}_1_${nobodys}_1_3")
{
	prepare($forged);
	said(q(SELECT retry.settle_server('{"group": "bank", "server": "there"}')), role => 'bank');
	is(prepared(), $forged, 'planted: a name that only looks like ours: ' . $forged =~ s/$system|_$database\b/N/gr);
	$node->psql('there', "ROLLBACK PREPARED '$forged'");
}

# Last, since a process that does not end could not be stopped.
my $end = doubt('copy', timeout => 10);
is($end, $not_postgres, 'answer: it waits for data');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing has crashed');
unlike(slurp_file($node->logfile) =~ s/^.*STATEMENT:.*$//mgr, qr/\Q$password/, 'the log has no password');
$node->stop($end eq 'no end' ? 'immediate' : 'fast');
every_case_has_its_set();
done_testing();
