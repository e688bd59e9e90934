# How long global transactions are kept: what is over goes with the history, in all
# its tables; what is not stays however old it is, and what may still be of use to it.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('kept', conf => "retry.sql_workers = 2\n");
hold_nothing($node);

sub sql
{
	my ($query) = @_;
	return ask($node, $query);
}

sql(<<'SQL');
CREATE FUNCTION done(j jsonb) RETURNS text LANGUAGE sql AS $$ SELECT 'done' $$;
CREATE FUNCTION refuses(j jsonb) RETURNS text LANGUAGE sql AS $$ SELECT 'failure' $$;
CREATE FUNCTION raises(j jsonb) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
CREATE TABLE gate ();
CREATE FUNCTION waits(j jsonb) RETURNS text LANGUAGE plpgsql AS $$ BEGIN LOCK TABLE public.gate IN SHARE MODE; RETURN 'done'; END $$;
INSERT INTO retry.scene (name, url, backoff) VALUES
	('fine', 'sql:public.done', 'fixed 1h'), ('refuse', 'sql:public.refuses', 'fixed 1h'),
	('fail', 'sql:public.raises', 'fixed 1h'), ('wait', 'sql:public.waits', 'fixed 1h'), ('gone', 'sql:public.done', 'fixed 1h');
UPDATE retry.scene SET timeout = '5 min' WHERE name = 'wait';
INSERT INTO retry.lane_override (group_name, lane, disabled) VALUES ('default', 'shut', true);
SQL

sub step
{
	my ($name, $action, $compensate, $more) = @_;
	return qq({"name": "$name", "action": "$action", "compensate": "$compensate"}) =~ s/\}$/($more ? ", $more" : '') . '}'/er;
}

sub saga
{
	return sql("SELECT retry.saga('[" . join(', ', @_) . "]', key => '" . (scalar @_) . "-' || gen_random_uuid())");
}

sub tcc
{
	my ($try, $confirm, $cancel, $scene) = @_;
	my $gid = sql("SELECT retry.tcc_begin('1 h', scene => '" . ($scene // 'fine') . "')");
	sql("SELECT retry.tcc_branch('$gid', 'b', '$try', '$confirm', '$cancel')");
	return $gid;
}

sub message
{
	my ($decide) = @_;
	my $gid = sql("SELECT retry.prepare('fine', '{}', check_target => 'fine', check_after => '1 h')");
	sql("SELECT retry.$decide('$gid')") if $decide;
	return $gid;
}

my %over = (
	'a message' => message('commit'), 'a message that was rolled back' => message('rollback'),
	'a saga' => saga(step('a', 'fine', 'fine')), 'a saga that was compensated' => saga(step('a', 'fine', 'fine'), step('b', 'refuse', 'fine')),
	'a TCC' => tcc('fine', 'fine', 'fine'), 'a TCC that was cancelled' => tcc('fine', 'fine', 'fine'));
sql("SELECT retry.tcc_commit('$over{'a TCC'}'), retry.tcc_rollback('$over{'a TCC that was cancelled'}')");

# The action of one goes on after the transaction was rolled back, and nothing else of it is open.
my $shut = session($node);
$shut->query_safe('BEGIN; LOCK TABLE gate');
my %open = (
	'an undecided message' => message(''), 'an undecided saga' => saga(step('a', 'fail', 'fine')), 'an undecided TCC' => tcc('fine', 'fine', 'fine'),
	'a TCC that is being confirmed, of a scene that is deleted' => tcc('fine', 'fail', 'fine', 'gone'),
	'a saga that is being compensated' => saga(step('a', 'fine', 'fail'), step('b', 'refuse', 'fine')),
	'a saga whose compensation is dead' => saga(step('a', 'refuse', 'fine', '"lane": "shut"')),
	'a saga whose action has not ended' => saga('{"name": "a", "action": "wait"}'));
my ($of_gone, $dead, $acting) = @open{'a TCC that is being confirmed, of a scene that is deleted', 'a saga whose compensation is dead', 'a saga whose action has not ended'};
sql("SELECT retry.tcc_commit('$of_gone')");
wait_sql($node, "SELECT state FROM retry.branches WHERE gid = '$acting' AND op = 'action'", 'an action is under way', expected => 'running');
sql("SELECT retry.rollback('$acting')");
my ($young) = message('rollback');
wait_sql($node, "SELECT count(*) FROM retry.transactions WHERE state IN ('committed', 'rolled back')", 'what can end has ended', expected => (scalar keys %over) + 1);
wait_sql($node, "SELECT string_agg(op || ' ' || state, ', ' ORDER BY op, state::text) FROM retry.branches WHERE state IN ('retrying', 'running')
	OR outcome IS NULL AND state = 'dead'", 'the others wait', expected => 'action retrying, action running, compensate dead, compensate retrying, confirm retrying');

# All of this is ten years old, but the one.
sub age
{
	sql("UPDATE retry.global_decision SET decided_at = decided_at - interval '10 years' WHERE gid <> '$young'");
	sql("UPDATE retry.global_transaction SET begun_at = begun_at - interval '10 years' WHERE gid <> '$young'");
	sql("UPDATE retry.dead_letter SET died_at = died_at - interval '10 years'");
	return;
}

# What there is of a transaction, in any of the tables.
sub rows
{
	my ($gid) = @_;
	return sql("SELECT (SELECT count(*) FROM retry.global_transaction WHERE gid = '$gid') || ' ' || (SELECT count(*) FROM retry.global_decision WHERE gid = '$gid')
		|| ' ' || (SELECT count(*) FROM retry.global_message WHERE id = '$gid') || ' ' || (SELECT count(*) FROM retry.global_operation WHERE gid = '$gid')
		|| ' ' || (SELECT count(*) FROM retry.global_outcome WHERE gid = '$gid')");
}

age();
my %rows = map { $_ => rows($open{$_}) } keys %open;
my $of_young = rows($young);
like(rows($over{'a TCC'}), qr/^1 1 0 3 [23]$/, 'a transaction has rows in several tables');

# Somebody holds one of them.
my $holder = session($node);
$holder->query_safe("BEGIN; SELECT FROM retry.global_transaction WHERE gid = '$over{'a saga'}' FOR UPDATE");
# A decision whose transaction comes later, in a restore that is under way.
sql("INSERT INTO retry.global_decision (gid, decided_at, decision, how) VALUES (gen_random_uuid(), now() - interval '10 years', 'commit', 'caller')");
# A scene of which nothing is left but a transaction, since its timer went with a leaf.
sql("DELETE FROM retry.task WHERE scene_id = (SELECT id FROM retry.scene WHERE name = 'gone'); DELETE FROM retry.scene WHERE name = 'gone'");
sql('CALL retry.maintain()');
like(rows($over{'a saga'}), qr/^1 1 /, 'a transaction that somebody holds is passed over');
$holder->query_safe('COMMIT');
is(rows($over{$_}), '0 0 0 0 0', "$_ is forgotten, all of it") foreach grep { $_ ne 'a saga' } sort keys %over;
sql('CALL retry.maintain()');
is(rows($over{'a saga'}), '0 0 0 0 0', '... until it is let go');
is(rows($open{$_}), $rows{$_}, "$_ is kept, all of it") foreach sort keys %open;
is(rows($young), $of_young, 'so is what is not old');
is(sql("SELECT count(*) FROM retry.global_decision d WHERE NOT EXISTS (SELECT FROM retry.global_transaction t WHERE t.gid = d.gid)"), '1',
	'a decision stays whose transaction may come yet');
is(sql("SELECT string_agg(b.op, ',') FROM retry.dead_letter d JOIN retry.branches b ON b.task_id = d.id"), 'compensate',
	'of the dead letters that of the compensation that was not done');

# The dead compensation can be replayed after all that time, and the saga ends.
sql('UPDATE retry.lane_override SET disabled = false');
sql("SELECT retry.replay(task_id) FROM retry.branches WHERE gid = '$dead' AND state = 'dead'");
wait_sql($node, "SELECT state FROM retry.transactions WHERE gid = '$dead'", 'a compensation that died long ago is replayed', expected => 'rolled back');
sql('CALL retry.maintain()');
is(rows($dead), '0 0 0 0 0', '... and then the saga is forgotten');
is(sql('SELECT count(*) FROM retry.dead_letter'), '0', '... and its dead letter');

# The scene of one is there as long as it is, when no transaction is as old as that it was deleted in.
$shut->query_safe('COMMIT');
sql('CALL retry.maintain()');
is(sql("SELECT t.state || ' ' || t.scene || ' ' || s.archived FROM retry.transactions t, retry.scene s WHERE t.gid = '$of_gone' AND s.name = 'gone'"), 'committing default/gone true', 'a scene stays for what waits for its end');
sql("UPDATE retry.scene SET url = 'sql:public.done' WHERE name = 'fail'");
sql("SELECT retry.run_now(task_id) FROM retry.branches WHERE state = 'retrying'");
wait_sql($node, "SELECT count(*) FROM retry.transactions WHERE state IN ('committing', 'rolling back') OR gid = '$open{'an undecided saga'}' AND state = 'undecided'",
	'all but what nobody has decided over ends', expected => '0');
age();
sql('CALL retry.maintain()');
is(sql("SELECT string_agg(t.gid::text, ' ' ORDER BY gid) FROM retry.transactions t"),
	join(' ', sort($young, @open{'an undecided message', 'an undecided TCC'})), 'what has ended goes, and what is not decided or not old stays');

# What is over and young goes when somebody wants it to.
sql('SELECT retry.purge(now())');
sql('CALL retry.maintain()');
is(rows($young), '0 0 0 0 0', 'retry.purge() reaches what is over');
is(rows($open{'an undecided TCC'}), $rows{'an undecided TCC'}, '... and nothing else');

wait_for(sub { sql('CALL retry.maintain()'); return sql("SELECT count(*) FROM retry.scene WHERE name = 'gone'") eq '0'; }, 'a scene goes after all that was of it');

$_->quit for $shut, $holder;
$node->stop;
done_testing();
