# Messages that are delivered when somebody else has committed: what each answer
# to a check means, who decides when several do, and that no crash between
# prepare, decision, check and record delivers one that was not committed, or
# loses one that was.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('messages', conf => "restart_after_crash = on\nretry.sql_workers = 2\n");
my $shop = start_endpoint();
my $bank = start_endpoint();

sub sql
{
	my ($query) = @_;
	return ask($node, $query);
}

hold_nothing($node);
sql("INSERT INTO retry.scene_group (name) VALUES ('m')");
sql("INSERT INTO retry.scene (group_name, name, url, timeout, check_after, check_every, check_limit) VALUES
	('m', 'deliver', '" . $shop->url('/ok/deliver') . "', '15 s', '0', '10 ms', 2),
	('m', 'ask', '" . $bank->url('/ok/ask') . "', '15 s', '6 s', '30 s', 15),
	('m', 'barred', 'http://[::1]:1/', '15 s', '6 s', '30 s', 15),
	('m', 'slow', '" . $bank->url('/hang') . "', '200 ms', '6 s', '30 s', 15)");
sql(<<'SQL');
CREATE TABLE business (gid uuid PRIMARY KEY);
-- what a service answers that has its own table of what it has committed
CREATE FUNCTION tell(j jsonb) RETURNS text LANGUAGE sql AS
	$$ SELECT CASE WHEN EXISTS (SELECT FROM public.business b WHERE b.gid = (j ->> 'gid')::uuid) THEN 'commit' ELSE 'rollback' END $$;
CREATE FUNCTION tell_object(j jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{"decision": "rollback", "why": {"decision": "commit"}}'::jsonb $$;
CREATE FUNCTION tell_nothing(j jsonb) RETURNS text LANGUAGE sql AS $$ SELECT NULL::text $$;
CREATE FUNCTION tell_void(j jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION fail(j jsonb) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'commit'; END $$;
CREATE FUNCTION decides(j jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM retry.rollback((j ->> 'gid')::uuid);
	RETURN 'commit';
END $$;
SQL

sub prepare
{
	my ($arguments) = @_;
	return sql("SELECT retry.prepare('m/deliver', '{\"a\": 1}', $arguments)");
}

# How it stands: state|how it was decided|attempts of the check.
sub decided
{
	my ($id, $expected, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_sql($node, "SELECT concat_ws('|', t.state, t.decided_how, k.attempts)
		FROM retry.transactions t JOIN retry.tasks k ON k.id = t.check_id WHERE t.gid = '$id' AND t.decided_how IS NOT NULL",
		$description, expected => $expected);
}

sub delivered_once
{
	my ($id, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_state($node, $id, 'succeeded', description => "$description: it is delivered");
	return is(scalar(() = $shop->ledger($id)), 1, "$description: once");
}

sub never_delivered
{
	my ($id, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	others_go_on($node, $shop, $description);
	return is(sql("SELECT count(*) FROM retry.task WHERE id = '$id'") . scalar(() = $shop->ledger($id)), '00',
		"$description: it is not delivered");
}

# What each answer means.  Of those that decide nothing two are asked for, then
# the limit holds, rollback or (every other time) commit.
my @tells = (
	[ '/status/200?body=commit', 'commit' ],
	[ '/status/201?body=%20rollback%0a', 'rollback' ],
	[ '/json?body=%7B%22decision%22%3A%22commit%22%7D', 'commit' ],
	[ '/json?body=%22rollback%22', 'rollback' ]);
my @unknown = (
	map { $bank->url($_) } '/ok/ask', '/status/404?body=commit', '/status/409?body=rollback', '/status/410?body=commit',
	'/status/500?body=commit', '/status/200?body=committed', '/json?body=%7B%22decision%22%3A%22unknown%22%7D',
	'/json?body=%7B%22decision%22%3A%22commit%22', '/retry-control/stop', '/processing/9', '/reset', '/redirect/302?to=/ok');
push @unknown, 'm/barred', 'm/slow', 'sql:public.tell_nothing', 'sql:public.tell_void', 'sql:public.fail';

my %id;
$id{$_->[0]} = prepare("check_target => '" . $bank->url($_->[0]) . "'") for @tells;
my $n = 0;
$id{$_} = prepare("check_target => '$_', undecided => '" . ($n++ % 2 ? 'commit' : 'rollback') . "'") for @unknown;
$id{object} = prepare("check_target => 'sql:public.tell_object'");
$id{decides} = prepare("check_target => 'sql:public.decides'");

for my $tell (@tells)
{
	my ($path, $decision) = @$tell;
	decided($id{$path}, ($decision eq 'commit' ? 'committed' : 'rolled back') . '|check|1', "$path decides");
	delivered_once($id{$path}, $path) if $decision eq 'commit';
}
$n = 0;
for my $url (@unknown)
{
	my $commit = $n++ % 2;
	decided($id{$url}, ($commit ? 'committed' : 'rolled back') . '|limit|2', "$url decides nothing, the limit does");
	delivered_once($id{$url}, $url) if $commit;
}
decided($id{object}, 'rolled back|check|1', 'a function decides, by its member "decision"');
decided($id{decides}, 'rolled back|caller|1', 'a function that decides itself: that holds, whatever it returns');
others_go_on($node, $shop, 'when all is decided');
is(sql("SELECT count(*) FROM retry.transactions t WHERE (t.state = 'committed') <> EXISTS (SELECT FROM retry.task k WHERE k.id = t.gid)"),
	'0', 'those that are committed are tasks, and no others');
is(sql("SELECT count(*), count(DISTINCT detail), bool_and(scene = 'm/deliver' AND group_name = 'm') FROM retry.events WHERE kind = 'decided at the limit'"),
	scalar(@unknown) . '|' . scalar(@unknown) . '|t', 'each decision at the limit is an event');
is(sql('SELECT count(*) FROM retry.disabled_urls'), '0', 'a check that is answered 410 disables nothing');
is(sql("SELECT count(*) FROM (SELECT xmin::text FROM retry.attempt a WHERE a.task_id = (SELECT check_id FROM retry.transactions WHERE gid = '$id{$tells[0][0]}')
	UNION SELECT xmin::text FROM retry.global_decision WHERE gid = '$id{$tells[0][0]}' UNION SELECT xmin::text FROM retry.task WHERE id = '$id{$tells[0][0]}') x"),
	'1', 'the end of the check, the decision and the task were stored by one transaction');
my ($request) = $bank->ledger(sql("SELECT check_id FROM retry.transactions WHERE gid = '$id{$tells[0][0]}'"));
is($request->{path}, '/status/200?body=commit', 'the check reached whom it was to ask');

# Who answers may say when to ask again; and a scene that is paused asks nobody.
my $later = prepare("check_after => '0', check_every => '10 ms', check_target => '" . $bank->url('/retry-after/3600?status=500') . "'");
wait_sql($node, "SELECT k.attempts || '|' || (k.next_due > now() + interval '50 min')
	FROM retry.transactions t JOIN retry.tasks k ON k.id = t.check_id WHERE t.gid = '$later' AND k.attempts > 0",
	'Retry-After puts the next question off', expected => '1|true');
sql("UPDATE retry.scene SET paused = true WHERE name = 'ask'");
my $paused = prepare("check_after => '0', check_every => '10 ms', check_target => 'm/ask'");
my $question = sql("SELECT check_id FROM retry.transactions WHERE gid = '$paused'");
others_go_on($node, $shop, 'while the scene of a check is paused');
is(sql("SELECT concat_ws('|', t.state, k.attempts, k.held_reason) FROM retry.transactions t JOIN retry.tasks k ON k.id = t.check_id WHERE t.gid = '$paused'"),
	'undecided|0|scene paused', 'a paused scene asks nobody, and that does not count');
is(scalar(() = $bank->ledger($question)), 0, '... indeed nobody');
sql("UPDATE retry.scene SET paused = false WHERE name = 'ask'");
decided($paused, 'rolled back|limit|2', 'when it goes on it asks as often as ever');

# A session that is about to decide is not waited for; what it decides holds.
my $hold = session($node);
for my $end ([ 'COMMIT', 'committed|caller|1' ], [ 'ROLLBACK', 'rolled back|check|1' ])
{
	my ($how, $expected) = @$end;
	my $id = prepare("check_after => '1 h', check_target => '" . $bank->url('/status/200?body=rollback') . "'");
	my $check = sql("SELECT check_id FROM retry.transactions WHERE gid = '$id'");
	$hold->query_safe("BEGIN; SELECT retry.commit('$id')");
	sql("SELECT retry.run_now('$check')");
	wait_for(sub { return scalar(() = $bank->ledger($check)) == 1; }, 'the check is answered while a session decides');
	others_go_on($node, $shop, "before $how");
	is(sql("SELECT state FROM retry.transactions WHERE gid = '$id'"), 'undecided', "before $how nothing is decided");
	$hold->query_safe($how);
	decided($id, $expected, "after $how: $expected");
	is(scalar(() = $bank->ledger($check)), 1, '... and nobody was asked again');
	$how eq 'COMMIT' ? delivered_once($id, $how) : never_delivered($id, $how);
}

# Nor is one that has the tables locked.
my $id = prepare("check_after => '1 h', check_target => '" . $bank->url('/status/200?body=commit') . "'");
my $check = sql("SELECT check_id FROM retry.transactions WHERE gid = '$id'");
$hold->query_safe('BEGIN; LOCK TABLE retry.global_decision, retry.global_message, retry.global_transaction');
$hold->query_safe("SELECT retry.run_now('$check')");
$hold->query_safe('COMMIT; BEGIN; LOCK TABLE retry.global_decision');
wait_for(sub { return scalar(() = $bank->ledger($check)) == 1; }, 'a check is answered while a table is locked');
others_go_on($node, $shop, 'while a table is locked');

# Crash between answer and record: it is asked again, and decided once.
$hold->quit;
sub crash
{
	$node->stop('immediate');
	$node->start;
	return;
}
$hold = session($node);
my $crashed = prepare("check_after => '1 h', check_target => '" . $bank->url('/status/200?body=commit') . "'");
my $crashed_check = sql("SELECT check_id FROM retry.transactions WHERE gid = '$crashed'");
decided($id, 'committed|check|1', 'recorded when the table is free');
delivered_once($id, 'a table was locked');
$hold->query_safe('BEGIN; LOCK TABLE retry.attempt IN SHARE MODE');
sql("SELECT retry.run_now('$crashed_check')");
wait_for(sub { return scalar(() = $bank->ledger($crashed_check)) == 1; }, 'crash before the record: the check is answered');

# Crash between decision and commit of a session, and between prepare and everything else.
my $open = session($node);
my $unborn = $open->query_safe("BEGIN; SELECT retry.prepare('m/deliver', check_target => '" . $bank->url('/status/200?body=commit') . "')");
my $alone = prepare("check_after => '1 h', check_target => 'sql:public.tell'");
my $halfway = prepare("check_after => '1 h', check_target => 'sql:public.tell'");
sql("INSERT INTO business VALUES ('$alone')");
my $committing = session($node);
$committing->query_safe("BEGIN; SELECT retry.commit('$halfway')");

# Crash between decision and delivery.
sql("UPDATE retry.scene SET paused = true WHERE name = 'deliver'");
my $waiting = prepare("check_after => '1 h', check_target => 'm/ask'");
sql("SELECT retry.commit('$waiting')");
is(sql("SELECT count(*) FROM retry.attempt WHERE task_id = '$crashed_check'"), '0', 'crash before the record: it is not recorded');
crash();
eval { $_->quit } for $hold, $open, $committing;
is(sql("SELECT string_agg(state, ',' ORDER BY gid) FROM retry.transactions WHERE gid IN ('$alone', '$halfway', '$waiting')"),
	'undecided,undecided,committed', 'after the crash: what was committed is, and nothing else');
is(sql("SELECT count(*) FROM retry.transactions WHERE gid = '$unborn'"), '0', 'what was not committed was never prepared');
is(scalar(() = $shop->ledger($waiting)), 0, 'crash before the delivery: nothing was delivered yet');
sql("UPDATE retry.scene SET paused = false WHERE name = 'deliver'");
delivered_once($waiting, 'crash before the delivery');
sql("SELECT retry.run_now(check_id) FROM retry.transactions WHERE gid IN ('$alone', '$halfway')");
decided($alone, 'committed|check|1', 'crash after prepare: the check decides');
delivered_once($alone, 'crash after prepare');
decided($halfway, 'rolled back|check|1', 'crash before the decision was committed: it was none');
never_delivered($halfway, 'crash before the decision was committed');
decided($crashed, 'committed|check|1', 'crash before the record: the check decides when it is asked again');
delivered_once($crashed, 'crash before the record');
is(sql("SELECT count(*) FROM retry.global_decision WHERE gid = '$crashed'"), '1', '... once');

# What cannot be stored of a decision holds up the record of its check, which is
# not asked again; nothing of it is dropped.
$id = prepare("check_after => '1 h', check_target => '" . $bank->url('/status/200?body=commit') . "'");
$check = sql("SELECT check_id FROM retry.transactions WHERE gid = '$id'");
sql("CREATE INDEX poison ON retry.global_decision ((1 / (CASE WHEN gid = '$id' THEN 0 ELSE 1 END)))");
sql("SELECT retry.run_now('$check')");
wait_for(sub { slurp_file($node->logfile) =~ /LOG:  retry: attempt 1 of task $check cannot be recorded: division by zero/ },
	'a decision that cannot be stored: the log tells of it');
others_go_on($node, $shop, 'a decision that cannot be stored');
is(sql("SELECT count(*) FROM retry.attempt WHERE task_id = '$check'"), '0', '... and of its check nothing is recorded');
sql('DROP INDEX retry.poison');
decided($id, 'committed|check|1', '... until it can');
delivered_once($id, '... until it can');
is(scalar(() = $bank->ledger($check)), 1, '... and nobody was asked again');

# A restored message is asked about when the copy is adopted.
$id = prepare("check_after => '1 h', check_target => '" . $bank->url('/status/200?body=commit') . "'");
$check = sql("SELECT check_id FROM retry.transactions WHERE gid = '$id'");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'a database with messages is dumped');
sql('CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dump ], '... and restored');
is($node->safe_psql('copy', "SELECT state FROM retry.transactions WHERE gid = '$id'"), 'undecided', 'an undecided message is restored');
is($node->safe_psql('copy', "SELECT state, decided_how FROM retry.transactions WHERE gid = '$crashed'"), 'committed|check', 'so are decisions');
$node->safe_psql('copy', 'SELECT retry.adopt()');
$node->safe_psql('copy', "SELECT retry.run_now('$check')");
wait_sql($node, "SELECT state FROM retry.tasks WHERE id = '$id'", 'the copy asks, and delivers', expected => 'succeeded', dbname => 'copy');
is(sql("SELECT state FROM retry.transactions WHERE gid = '$id'"), 'undecided', 'the original has not decided');
is($node->safe_psql('postgres', "SELECT retry.rollback('$id')"), 't', '... and may decide otherwise');

$node->stop;
done_testing();
