# Two-phase commit over several servers: what is prepared on them is committed
# everywhere or nowhere, whoever is killed between any two steps, and what nobody
# can decide any more is found and rolled back.
use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

# The environment of a server is not that of its connections: this would refuse them all.
my $node = new_node('coordinator', conf => "retry.sql_workers = 2\n", start => 0);
{
	local $ENV{PGREQUIREPEER} = 'nobody';
	$node->start;
}
$node->safe_psql('postgres', 'CREATE EXTENSION retry');
my $east = new_node('east', preload => 0, extension => 0);
my $west = new_node('west', preload => 0, extension => 0);
my %server = (east => $east, west => $west);

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

# Who connects to west needs a password.
my $hba = slurp_file($west->data_dir . '/pg_hba.conf');
$west->safe_psql('postgres', "CREATE ROLE bank LOGIN PASSWORD 'pass word''s'");
unlink $west->data_dir . '/pg_hba.conf';
$west->append_conf('pg_hba.conf', "local all bank scram-sha-256\n$hba");
$west->reload;
$east->safe_psql('postgres', 'CREATE ROLE bank LOGIN; CREATE ROLE other LOGIN; CREATE DATABASE elsewhere');
for my $at ($east, $west)
{
	$at->safe_psql('postgres', 'CREATE TABLE account (name text PRIMARY KEY, amount int);
		INSERT INTO account VALUES (\'a\', 1000); GRANT ALL ON account TO PUBLIC');
}

hold_nothing($node);
sql("INSERT INTO retry.scene_group (name) VALUES ('bank')");
# Its conditions would have each answer of a server be none.
sql(q{INSERT INTO retry.scene (group_name, name, backoff, success_when, pending_when)
	VALUES ('bank', 'transfer', 'fixed 50ms', '$.never == true', '$ == "committed"')});
for my $name (sort keys %server)
{
	sql("INSERT INTO retry.server (group_name, name, conninfo, secret, timeout) VALUES ('bank', '$name',
		'host=" . $server{$name}->host . ' port=' . $server{$name}->port . " dbname=postgres user=bank', "
		. ($name eq 'west' ? "'west-password'" : 'NULL') . ", '5 s')");
}
sql('CREATE TABLE transfer (gid uuid PRIMARY KEY, amount int)');

sub amounts
{
	return join ',', map { $server{$_}->safe_psql('postgres', 'SELECT amount FROM account') } sort keys %server;
}

sub prepared
{
	return join ',', map { $server{$_}->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts') } sort keys %server;
}

# Does its work on a server, under a name, as the application would.
sub prepare
{
	my ($at, $name, $change, %opt) = @_;
	my $role = $opt{role} // 'bank';
	return $server{$at}->safe_psql($opt{dbname} // 'postgres',
		"BEGIN; SET LOCAL SESSION AUTHORIZATION $role; UPDATE account SET amount = amount + $change; PREPARE TRANSACTION '$name'");
}

# Begins a transfer, and registers both branches: (gid, name, name).
sub begin
{
	my $gid = sql("SELECT retry.twophase_begin('bank/transfer', '1 h')");
	return ($gid, map { sql("SELECT retry.twophase_branch('$gid', '$_')") } qw(east west));
}

sub begin_and_prepare
{
	my ($amount) = @_;
	my ($gid, @names) = begin();
	prepare('east', $names[0], -$amount);
	prepare('west', $names[1], $amount);
	return ($gid, @names);
}

sub state_is
{
	my ($gid, $state, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_sql($node, "SELECT state FROM retry.transactions WHERE gid = '$gid'", $description, expected => $state);
}

# What the tasks of its branches said last, each.
sub answers
{
	my ($gid) = @_;
	return sql("SELECT string_agg(coalesce(convert_from(a.response, 'UTF8'), a.error), ',' ORDER BY b.branch)
		FROM retry.branches b JOIN retry.tasks k ON k.id = b.task_id
		JOIN retry.attempts a ON a.task_id = k.id AND a.attempt_no = k.attempts WHERE b.gid = '$gid'");
}

sub doubts
{
	return sql("SELECT coalesce(string_agg(on_server || ': ' || coalesce(state, error), ', ' ORDER BY on_server, prepared_at), 'none')
		FROM retry.in_doubt(group_name => 'bank')");
}

sub look
{
	return join '; ', map { sql("SELECT retry.settle_server('{\"group\": \"bank\", \"server\": \"$_\"}')") } sort keys %server;
}

sub crash
{
	my ($at) = @_;
	$at->stop('immediate');
	$at->start;
	return;
}

# A password that is missing, wrong, and right.
like(doubts(), qr/^west: server "west": secret "west-password" of group "bank", which is to hold the password, is not set$/,
	'a password that is not set');
sql("SELECT retry.set_secret('west-password', 'wrong', group_name => 'bank')");
like(doubts(), qr/^west: server "west": .*password authentication failed for user "bank"$/, 'a wrong password');
sql("SELECT retry.set_secret('west-password', 'pass word''s', group_name => 'bank')");
is(doubts(), 'none', 'the right password: nothing is in doubt');

# A session keeps its connection, until it is lost or another is asked for.
my $app = session($node);
sub ask_west
{
	return $app->query_safe("SELECT coalesce(string_agg(error, ' '), 'well') FROM retry.in_doubt('west', 'bank')");
}
sub connections
{
	return $west->safe_psql('postgres', "SELECT string_agg(pid || ' ' || application_name, ',') FROM pg_stat_activity WHERE usename = 'bank'");
}
is(ask_west(), 'well', 'a session asks a server');
wait_for(sub { return connections() =~ /^\d+ retry$/; }, '... over a connection of its own');
my $kept = connections();
is(ask_west() . ' ' . connections(), "well $kept", '... which it keeps');
$west->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = 'bank'");
is(ask_west(), 'well', '... and makes anew when it was lost');
sql("SELECT retry.set_secret('west-password', 'changed', group_name => 'bank')");
like(ask_west(), qr/password authentication failed/, 'another password: another connection');
sql("SELECT retry.set_secret('west-password', 'pass word''s', group_name => 'bank')");
sql("UPDATE retry.server SET conninfo = conninfo || ' application_name=moved' WHERE name = 'west'");
is(ask_west(), 'well', 'another connection string');
like(connections(), qr/^\d+ moved$/, '... likewise, and the former one is closed');

# All goes well.
my ($gid, @names) = begin_and_prepare(10);
is(prepared(), '1,1', 'both branches are prepared');
is(doubts(), 'east: undecided, west: undecided', '... and in doubt');
is(sql("BEGIN; INSERT INTO transfer VALUES ('$gid', 10); SELECT retry.commit('$gid'); COMMIT"), 't', 'the decision, with data of this database');
state_is($gid, 'committed', 'it is committed');
is(amounts(), '990,1010', '... on both servers');
is(prepared(), '0,0', '... and nothing is left');
is(answers($gid), '"committed","committed"', '... each by its first task');
is(sql("SELECT retry.commit('$gid')"), 'f', 'decided is decided');
sql_fails($node, "SELECT retry.settle_branch('{\"gid\": \"$gid\", \"branch\": 1}')", 'RTSTP', qr/nobody knows its number/,
	'what is not there is not taken for committed without its number');
sql_fails($node, "SELECT retry.rollback('$gid')", '55000', qr/is committed already/, '... for good');

# Not all is prepared.
($gid, @names) = begin();
prepare('east', $names[0], -1);
sql_fails($node, "SELECT retry.commit('$gid')", '55000', qr/branch 2 is not prepared on server "west".*PREPARE TRANSACTION '\Q$names[1]\E'/s,
	'a commit before all is prepared');
prepare('west', $names[1], 1, role => (getpwuid($<))[0]);
sql_fails($node, "SELECT retry.commit('$gid')", '42501', qr/branch 2 is prepared on server "west" by role/, '... or by another role');
is(sql("SELECT retry.rollback('$gid')"), 't', 'it can be rolled back');
wait_sql($node, "SELECT count(*), min(last_error) FROM retry.branches WHERE gid = '$gid' AND op = 'rollback' AND attempts > 0 AND last_error ~ '^42501'",
	'what another role has prepared cannot be rolled back, and is tried again', expected => '1|42501: server "west": permission denied to finish prepared transaction');
$west->safe_psql('postgres', "ROLLBACK PREPARED '$names[1]'");
state_is($gid, 'rolled back', '... until it is done');
is(prepared() . ' ' . amounts(), '0,0 990,1010', '... and nothing has happened');
($gid, @names) = begin();
$east->safe_psql('elsewhere', "BEGIN; CREATE TABLE t (); PREPARE TRANSACTION '$names[0]'");
sql_fails($node, "SELECT retry.commit('$gid')", '55000', qr/branch 1 is prepared in database "elsewhere" of server "east"/, 'prepared in another database');
$east->safe_psql('elsewhere', "ROLLBACK PREPARED '$names[0]'");
sql("SELECT retry.rollback('$gid')");

# Crash point: before the first is prepared, and: all are prepared and nobody decides.
my ($unborn) = begin();
my ($undecided) = begin_and_prepare(20);
sql("SELECT retry.run_now(check_id) FROM retry.transactions WHERE gid IN ('$unborn', '$undecided')");
state_is($_, 'rolled back', 'nobody decides in time: rolled back') for $unborn, $undecided;
is(prepared() . ' ' . amounts(), '0,0 990,1010', '... on all servers');
is(sql("SELECT string_agg(DISTINCT at_limit || ',' || decided_how, ' ') FROM retry.transactions WHERE gid IN ('$unborn', '$undecided')"),
	'rollback,timeout', '... for want of a decision');

# Crash point: the application's transaction that has begun it is not committed.
my $lost = $app->query_safe("BEGIN; SELECT retry.twophase_begin('bank/transfer')");
my $name = $app->query_safe("SELECT retry.twophase_branch('$lost', 'east')");
prepare('east', $name, 5);
is(doubts(), 'east: open', 'who registered it has not ended');
is(look(), 'committed 0, rolled back 0; committed 0, rolled back 0', '... so it is left alone');
my $waiter = session($east);
$waiter->query_until(qr/waiting/, "\\echo waiting\nUPDATE account SET amount = amount;\n");
wait_sql($node, "SELECT concat_ws(' ', locked, cardinality(waiting), owner, branch, gid = '$lost', prepared_at <= now()) FROM retry.in_doubt('east', 'bank')",
	'what it holds, and who waits for it, can be seen', expected => '{public.account} 1 bank 1 t t', timeout => 10);
$app->query_safe('ROLLBACK');
is(doubts(), 'east: orphan', 'it has ended without a trace: nobody can ever decide');
is(look(), 'committed 0, rolled back 1; committed 0, rolled back 0', '... so it is rolled back');
$waiter->quit;

# The same with a crash of this server.
$lost = $app->query_safe("BEGIN; SELECT retry.twophase_begin('bank/transfer')");
$name = $app->query_safe("SELECT retry.twophase_branch('$lost', 'west')");
prepare('west', $name, 5);
crash($node);
eval { $app->quit };
is(look(), 'committed 0, rolled back 0; committed 0, rolled back 1', 'what a crash here has left there is rolled back');

# Prepared after it was rolled back.
($gid, @names) = begin();
sql("SELECT retry.rollback('$gid')");
state_is($gid, 'rolled back', 'rolled back before anything was prepared');
is(answers($gid), '"not prepared","not prepared"', '... of which the servers knew nothing');
prepare('west', $names[1], 7);
is(doubts(), 'west: to be rolled back', 'prepared after that');
is(look(), 'committed 0, rolled back 0; committed 0, rolled back 1', '... is rolled back too');
$west->safe_psql('postgres', "BEGIN; UPDATE account SET amount = 0; PREPARE TRANSACTION 'retry_of_somebody_else'");
is(doubts(), 'west: foreign', 'what only looks like ours');
is(look(), 'committed 0, rolled back 0; committed 0, rolled back 0', '... is left alone');
$west->safe_psql('postgres', "ROLLBACK PREPARED 'retry_of_somebody_else'");

# Nothing can be done on the strength of a decision that may yet be undone.
($gid, @names) = begin_and_prepare(3);
sql_fails($node, "BEGIN; SELECT retry.commit('$gid'); SELECT retry.settle_branch('{\"gid\": \"$gid\", \"branch\": 1}')",
	'55000', qr/is not decided/, 'a decision counts from its commit on');
is(sql("BEGIN; SELECT retry.commit('$gid'); SELECT retry.settle_server('{\"group\": \"bank\", \"server\": \"east\"}'); ROLLBACK"),
	"t\ncommitted 0, rolled back 0", '... not before');
is(prepared(), '1,1', '... so both are still in doubt');
sql("SELECT retry.rollback('$gid')");
state_is($gid, 'rolled back', '... and can be rolled back');

# Crash point: decided, and this server is killed before it could tell anybody.
sub decide_and_hold
{
	my ($amount) = @_;
	my ($id, @prepared) = begin_and_prepare($amount);
	sql("UPDATE retry.scene SET paused = true WHERE name = 'transfer'");
	sql("SELECT retry.commit('$id')");
	return ($id, @prepared);
}

sub go_on
{
	sql("UPDATE retry.scene SET paused = false WHERE name = 'transfer'");
	return;
}
($gid) = decide_and_hold(30);
crash($node);
is(sql("SELECT state FROM retry.transactions WHERE gid = '$gid'"), 'committing', 'crash after the decision: it is known');
is(doubts(), 'east: to be committed, west: to be committed', '... and not carried out');
go_on();
state_is($gid, 'committed', '... until later');
is(amounts(), '960,1040', '... everywhere');

# Crash point: a server is killed before COMMIT PREPARED, and comes back.
($gid) = decide_and_hold(40);
$east->stop('immediate');
go_on();
wait_sql($node, "SELECT string_agg(b.branch || ' ' || k.state, ', ' ORDER BY b.branch) FROM retry.branches b JOIN retry.tasks k ON k.id = b.task_id
	WHERE b.gid = '$gid' AND k.attempts > 0", 'a server is down: the other commits', expected => 'east retrying, west succeeded');
like(sql("SELECT last_error FROM retry.branches WHERE gid = '$gid' AND op = 'commit' AND branch = 'east'"), qr/^08\w\w\w: server "east": /,
	'... and it is said why');
like(doubts(), qr/^east: server "east": /, '... there too');
$undecided = sql("SELECT retry.twophase_begin('bank/transfer')");
sql("SELECT retry.twophase_branch('$undecided', 'east')");
sql_fails($node, "SELECT retry.commit('$undecided')", '08\w\w\w', qr/server "east": /, 'nothing is committed that cannot be verified');
sql("SELECT retry.rollback('$undecided')");
$east->start;
state_is($gid, 'committed', 'it is committed when the server is back');
is(amounts(), '920,1080', '... on both');

# Crash point: between COMMIT PREPARED and its record, both servers.
($gid) = decide_and_hold(50);
my $hold = session($node);
$hold->query_safe('BEGIN; LOCK TABLE retry.attempt IN SHARE MODE');
go_on();
wait_for(sub { return prepared() eq '0,0'; }, 'committed there, and not yet recorded here');
is(sql("SELECT count(*) FROM retry.branches WHERE gid = '$gid' AND attempts > 0"), '0', '... here it is not known');
crash($_) for $node, $east, $west;
eval { $hold->quit };
is(amounts(), '870,1130', 'crash: there it is committed');
state_is($gid, 'committed', '... here it is found out');
is(answers($gid), '"committed before","committed before"', '... by what the servers know of these transactions');

# Somebody has done by hand what must not be done.
($gid, @names) = decide_and_hold(60);
$west->safe_psql('postgres', "ROLLBACK PREPARED '$names[1]'");
go_on();
wait_sql($node, "SELECT d.reason || ' ' || d.attempts || ' ' || d.last_error FROM retry.dead_letters d JOIN retry.branches b ON b.task_id = d.id WHERE b.gid = '$gid'",
	'a branch of a commit that was rolled back by hand is a dead letter at once',
	expected => "stopped 1 RTSTP: branch 2 of transaction $gid, which is committed, was rolled back on server \"west\"");
state_is($gid, 'committing', '... and the transaction stays open');
is(amounts(), '810,1130', '... half done, as somebody wanted');
$west->safe_psql('postgres', 'UPDATE account SET amount = amount + 60');
sql("SELECT retry.settle('$gid', 'west', 'commit', true)");
state_is($gid, 'committed', '... until somebody has done it by hand, and says so');
my $by_hand = $gid;

# Committed by hand is committed.
($gid, @names) = decide_and_hold(70);
$west->safe_psql('postgres', "COMMIT PREPARED '$names[1]'");
go_on();
state_is($gid, 'committed', 'committed by hand is committed');
is(answers($gid), '"committed","committed before"', '... as its server says');

# Somebody says that a branch is committed while it is prepared.
my ($settled, @kept) = decide_and_hold(0);
sql("SELECT retry.settle('$settled', 'west', 'commit', true)");
go_on();
state_is($settled, 'committed', 'settled by hand while it is prepared');
is(doubts(), 'west: prepared again', '... is left prepared');
is(look(), 'committed 0, rolled back 0; committed 0, rolled back 0', '... for a person');
sql("UPDATE retry.global_decision SET decided_at = decided_at - interval '10 years' WHERE gid = '$settled'");
sql('CALL retry.maintain()');
is(doubts(), 'west: prepared again', '... however long ago it was');
is(look(), 'committed 0, rolled back 0; committed 0, rolled back 0', '... and is not taken for an orphan');
$west->safe_psql('postgres', "COMMIT PREPARED '$kept[1]'");

# The look does what is decided, too: a server that was away for long need not wait for the backoff.
($gid) = decide_and_hold(80);
is(look(), 'committed 1, rolled back 0; committed 1, rolled back 0', 'the look carries out what is decided');
is(amounts(), '660,1340', '... on both');
go_on();
state_is($gid, 'committed', '... and the tasks find it done');
is(answers($gid), '"committed before","committed before"', '... already');

# One that never answers: nobody waits for it longer than the row says, or the session.
my $silent = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "cannot listen: $!";
sql("INSERT INTO retry.server (group_name, name, conninfo, timeout) VALUES ('bank', 'silent', 'host=127.0.0.1 port=" . $silent->sockport . " dbname=d user=u', '100 ms')");
is(sql("SELECT error FROM retry.in_doubt('silent', 'bank')"), 'server "silent": no answer within 100 ms', 'a server that does not answer');
sql("UPDATE retry.server SET timeout = '1 min' WHERE name = 'silent'");
sql_fails($node, "SET statement_timeout = '100 ms'; SELECT * FROM retry.in_doubt('silent', 'bank')", '57014', qr/statement timeout/, '... and who cannot wait');
sql("DELETE FROM retry.server WHERE name = 'silent'");

# A server that prepares nothing.
$west->append_conf('postgresql.conf', 'max_prepared_transactions = 0');
$west->restart;
is(doubts(), 'west: max_prepared_transactions is 0: nothing can be prepared there', 'a server that prepares nothing');
$gid = sql("SELECT retry.twophase_begin('bank/transfer')");
sql("SELECT retry.twophase_branch('$gid', 'west')");
sql_fails($node, "SELECT retry.commit('$gid')", '55000', qr/max_prepared_transactions is 0/, '... cannot be committed on');

# What has ended long ago is forgotten, its branches too; what is undecided is not, nor what a person has settled.
wait_sql($node, "SELECT count(*) FROM retry.transactions WHERE state IN ('committing', 'rolling back')", 'all that is decided ends', expected => '0');
sql("UPDATE retry.global_decision SET decided_at = decided_at - interval '10 years'");
sql('CALL retry.maintain()');
is(sql("SELECT string_agg(DISTINCT gid::text, ',' ORDER BY gid::text) FROM (SELECT gid FROM retry.global_branch UNION ALL SELECT gid FROM retry.global_transaction
	UNION ALL SELECT gid FROM retry.global_operation UNION ALL SELECT gid FROM retry.global_outcome) x"), join(',', sort $by_hand, $settled, $gid), 'upkeep leaves nothing of what is over');

$_->stop for $node, $east, $west;
done_testing();
