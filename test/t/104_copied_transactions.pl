# Copies of a database with global transactions in every stage: by themselves they
# ask nobody, undo nothing, and finish nothing on other servers; after retry.adopt()
# everything goes on from where it was, and ends.  The original is not disturbed.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('original', conf => "retry.sql_workers = 2\n");
my $other = new_node('other', extension => 0, conf => "retry.sql_workers = 2\n");
my $shop = start_endpoint();

# Of these, "own" is a database of the original's server.
my %server = (own => $node, far => $other);
for my $name (sort keys %server)
{
	$server{$name}->safe_psql('postgres', "CREATE DATABASE bank_$name");
	$server{$name}->safe_psql("bank_$name", 'CREATE TABLE account (amount int); INSERT INTO account VALUES (100)');
}

sub address
{
	my ($at, $dbname) = @_;
	return 'host=' . $at->host . ' port=' . $at->port . " dbname=$dbname user=" . getpwuid($<);
}

$node->safe_psql('postgres', 'CREATE DATABASE origin');
$node->safe_psql('origin', 'CREATE EXTENSION retry');
hold_nothing($node, dbname => 'origin');

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('origin', $query);
}

# What is stuck waits for so long that nothing happens by itself from here on.
sql("INSERT INTO retry.scene_group (name) VALUES ('g')");
sql("INSERT INTO retry.scene (group_name, name, url, backoff) VALUES
	('g', 'good', '" . $shop->url('/ok/good') . "', 'fixed 1h'),
	('g', 'stuck', '" . $shop->url('/status/500') . "', 'fixed 1h'),
	('g', 'refuse', '" . $shop->url('/status/409') . "', 'fixed 1h'),
	('g', 'transfer', NULL, 'fixed 1h')");
sql("INSERT INTO retry.server (group_name, name, conninfo) VALUES ('g', '$_', '" . address($server{$_}, "bank_$_") . "')") for keys %server;

sub step
{
	my ($name, $action, $compensate) = @_;
	return qq({"name": "$name", "action": "g/$action", "compensate": "g/$compensate"});
}

sub tcc
{
	my ($confirm) = @_;
	my $gid = sql("SELECT retry.tcc_begin('1 h', scene => 'g/good')");
	sql("SELECT retry.tcc_branch('$gid', 'b', 'g/good', 'g/$confirm', 'g/stuck')");
	return $gid;
}

# Its branches are prepared on both servers.
sub twophase
{
	my $gid = sql("SELECT retry.twophase_begin('g/transfer', '1 h')");
	for my $name (sort keys %server)
	{
		my $prepared = sql("SELECT retry.twophase_branch('$gid', '$name')");
		$server{$name}->safe_psql("bank_$name", "BEGIN; INSERT INTO account VALUES (1); PREPARE TRANSACTION '$prepared'");
	}
	return $gid;
}

my %gid;
$gid{forward} = sql("SELECT retry.saga('[" . step('a', 'good', 'good') . ', ' . step('b', 'stuck', 'good') . "]')");
$gid{back} = sql("SELECT retry.saga('[" . step('a', 'good', 'stuck') . ', ' . step('b', 'refuse', 'good') . "]')");
$gid{reserved} = tcc('good');
$gid{confirming} = tcc('stuck');
$gid{unasked} = sql("SELECT retry.prepare('g/good', '{}', check_target => 'g/good', check_after => '1 h', check_limit => 1, undecided => 'commit')");
$gid{asked} = sql("SELECT retry.prepare('g/good', '{}', check_target => 'g/good', check_after => '0', check_every => '1 h', check_limit => 2)");
$gid{open} = twophase();
$gid{told} = twophase();
wait_sql($node, "SELECT outcome FROM retry.branches WHERE gid = '$gid{confirming}' AND op = 'try'", 'a try is done', dbname => 'origin', expected => 'done');
sql("SELECT retry.tcc_commit('$gid{confirming}')");
sql("UPDATE retry.scene SET paused = true WHERE name = 'transfer'");
sql("SELECT retry.commit('$gid{told}')");

my $names = join ', ', map { "('$_', '$gid{$_}'::uuid)" } sort keys %gid;

# How all of them stand, and the tasks that have not ended.
sub standing
{
	my ($at, $dbname) = @_;
	return $at->safe_psql($dbname, <<"SQL");
SELECT n.name, t.state, t.open_operations,
	(SELECT string_agg(concat_ws(' ', b.branch, b.op, b.outcome, b.state), ', ' ORDER BY b.branch, b.op) FROM retry.branches b
	 WHERE b.gid = t.gid AND (b.outcome IS NOT NULL OR b.state IS NOT NULL))
FROM (VALUES $names) AS n (name, gid) JOIN retry.transactions t USING (gid) ORDER BY n.name
SQL
}

sub unfinished
{
	my ($at, $dbname) = @_;
	return split /\n/, $at->safe_psql($dbname, "SELECT id FROM retry.tasks WHERE state IN ('pending', 'retrying') ORDER BY id");
}

sub stands
{
	my ($at, $dbname, $name, $expected, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_sql($at, "SELECT concat_ws('|', state, decided_how, open_operations) FROM retry.transactions WHERE gid = '$gid{$name}'",
		"$description: $name", dbname => $dbname, expected => $expected);
}

sub prepared
{
	return join ',', map { $server{$_}->safe_psql("bank_$_", 'SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()') } sort keys %server;
}

my $there = <<'END';
asked|undecided|0|message check retrying
back|rolling back|1|a action done succeeded, a compensate retrying, b action failed dead, b compensate done succeeded
confirming|committing|1|b confirm retrying, b try done succeeded
forward|undecided|1|a action done succeeded, b action retrying
open|undecided|0|
reserved|undecided|0|b try done succeeded
told|committing|2|far commit pending, own commit pending
unasked|undecided|0|message check pending
END
chomp $there;
my $before = '';
wait_for(sub { return ($before = standing($node, 'origin')) eq $there; }, 'transactions in every stage', diag => sub { return $before; });
is(prepared(), '2,2', '... of which four branches are prepared');
my @open = unfinished($node, 'origin');
is(scalar @open, 9, '... and nine tasks have not ended');

my $dump = "${PostgreSQL::Test::Utils::tmp_check}/transactions";
system_or_bail('pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('origin'));
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE origin');
$other->safe_psql('postgres', 'CREATE DATABASE restored');
system_or_bail('pg_restore', '--single-transaction', '--exit-on-error', '-d', $other->connstr('restored'), $dump);

# What its server gives numbers to is something else than what the other's numbers mean.
$other->safe_psql('postgres', 'DO $$ BEGIN FOR i IN 1 .. 3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');

# Requests for what was under way.
sub calls
{
	my %count;
	$count{ $_->{key} // '' }++ for $shop->ledger;
	return join ',', map { $count{"\"$_\""} // $count{$_} // 0 } @open;
}
my $none = join ',', (0) x @open;

sub look_at_copy
{
	my ($at, $dbname, $how) = @_;
	my $ask = sub { return $at->safe_psql($dbname, $_[0]); };

	$shop->reset;
	is(standing($at, $dbname), $before, "$how: all is there as it was");
	is(join(' ', unfinished($at, $dbname)), "@open", "$how: and so are the tasks that have not ended");

	# whatever held them up is over, and they are asked for
	$ask->("UPDATE retry.scene SET paused = false, url = replace(url, '/status/500', '/ok/stuck')");
	is($ask->("SELECT count(*) FROM retry.tasks WHERE state IN ('pending', 'retrying') AND held_reason = 'not adopted'"), '9', "$how: they are held");
	is($ask->("SELECT count(retry.run_now(id)) FROM retry.tasks WHERE state IN ('pending', 'retrying')"), '9', "$how: and wanted at once");
	for my $round (1, 2)
	{
		my $new = enqueue($at, "'g/good', '{}'", dbname => $dbname);
		wait_state($at, $new, 'succeeded', dbname => $dbname, description => "$how: what is new is sent");
		$ask->('CALL retry.maintain()');
	}
	is(calls(), $none, "$how: nobody is asked, and nothing undone or confirmed");
	is(prepared(), '2,2', "$how: nothing is finished on other servers");
	is(standing($at, $dbname), $before, "$how: nothing has moved on");
	is(standing($node, 'origin'), $before, "$how: nor has the original");
	return;
}

# After retry.adopt(), all but what is prepared on other servers ends.
sub look_at_adopted
{
	my ($at, $dbname, $how, %other) = @_;

	$at->safe_psql($dbname, 'SELECT retry.adopt()');
	my %ends = (
		forward => 'committed|answers|0', back => 'rolled back|answers|0', reserved => 'rolled back|timeout|0',
		confirming => 'committed|caller|0', unasked => 'committed|limit|0', asked => 'rolled back|limit|0',
		open => 'rolled back|timeout|0', %other);
	stands($at, $dbname, $_, $ends{$_}, $how) foreach sort keys %ends;
	wait_state($at, $gid{unasked}, 'succeeded', dbname => $dbname, description => "$how: the message is delivered");
	my $http = $at->safe_psql($dbname, <<"SQL");
SELECT string_agg(CASE WHEN b.op IS NULL OR b.op IN ('commit', 'rollback') OR b.state = 'cancelled' THEN '0' ELSE '1' END, ',' ORDER BY i.id)
FROM unnest('{${\join(',', @open)}}'::uuid[]) AS i (id) LEFT JOIN retry.branches b ON b.task_id = i.id
SQL
	is(calls(), $http, "$how: each is called once");
	return;
}

look_at_copy($node, 'copy', 'template');
look_at_copy($other, 'restored', 'restored');

# What was prepared on a server is not in what is restored of it.
$other->safe_psql('postgres', 'CREATE DATABASE bank_own');
$other->safe_psql('bank_own', 'CREATE TABLE account (amount int); INSERT INTO account VALUES (100)');
$other->safe_psql('restored', "UPDATE retry.server SET conninfo = '" . address($other, 'bank_own') . "' WHERE name = 'own'");

# Only what somebody decides there counts, at once.
is($other->safe_psql('restored', "SELECT retry.commit('$gid{unasked}')"), 't', 'restored: somebody decides');
wait_state($other, $gid{unasked}, 'succeeded', dbname => 'restored', description => '... and that is carried out');
is(calls(), $none, '... and nothing else');
look_at_adopted($other, 'restored', 'restored', unasked => 'committed|caller|0');
is(prepared(), '0,2', 'restored: what is decided is carried out on the servers that its rows name, alone');
is($other->safe_psql('bank_far', 'SELECT count(*) FROM account'), '2', '... the commit');
wait_sql($other, "SELECT string_agg(concat_ws(' ', branch, outcome, state, last_error), ', ' ORDER BY branch) FROM retry.branches
	WHERE gid = '$gid{told}' AND op = 'commit' AND state IN ('succeeded', 'dead')", 'what is not prepared there is for a person', dbname => 'restored',
	expected => "far done succeeded, own dead RTSTP: branch 2 of transaction $gid{told}, which is committed, was prepared on another cluster, and is not prepared on server \"own\"");
$other->safe_psql('restored', "UPDATE retry.dead_letter SET died_at = died_at - interval '10 years'");
$other->safe_psql('restored', 'CALL retry.maintain()');
is($other->safe_psql('restored', "SELECT string_agg(b.branch || ' ' || b.op, ', ') FROM retry.branches b WHERE b.state = 'dead'"), 'own commit',
	'... and is kept until it is done, when other dead letters go');
is($other->safe_psql('restored', "SELECT retry.settle('$gid{told}', 'own', 'commit', true)"), 't', '... who says that it is done');
stands($other, 'restored', 'told', 'committed|caller|0', 'restored');

$shop->reset;
look_at_adopted($node, 'copy', 'template');
stands($node, 'copy', 'told', 'committed|caller|0', 'template');
is(prepared(), '0,0', 'template: the other servers are told again');
is($server{$_}->safe_psql("bank_$_", 'SELECT count(*) FROM account'), '2', "... and $_ has the commit, once") foreach sort keys %server;

# The original, for which others have done what it was to do.
is(standing($node, 'origin'), $before, 'the original stands where it stood');
$shop->reset;
sql("UPDATE retry.scene SET paused = false, url = replace(url, '/status/500', '/ok/stuck')");
sql("SELECT count(retry.run_now(id)) FROM retry.tasks WHERE state IN ('pending', 'retrying')");
look_at_adopted($node, 'origin', 'original');
stands($node, 'origin', 'told', 'committed|caller|0', 'original');

$_->stop for $node, $other;
done_testing();
