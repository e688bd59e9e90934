# Attacks of one role on what belongs to another.  The bank has tasks in every
# state, scenes, secrets and schedules, all marked with the word LOOT; mallory
# may do what PUBLIC may, owns a group of its own, and may make functions,
# operators and tables.  An attack has worked when the word comes out, or
# something of mallory's has run as somebody else.
#
# Each attack is made twice in a transaction that is rolled back: as things are,
# when it must fail, and, where SQL can take its defence away ("without"), with
# the defence gone, when it must succeed: so a test that could not fail is seen.
# What only C defends is taken away by test/attack/without.
use strict;
use warnings FATAL => 'all';

use RetryTest;
use RetryTest::Cases 'every_case_has_its_set';
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', conf => 'autovacuum = off');
my $receiver = start_endpoint();
my $url = $receiver->url('');
my $gid = '01900000-0000-7000-8000-00000000b00c';
hold_nothing($node);

# ---------------------------------------------------------------- the scenery

$node->safe_psql('postgres', <<"SQL");
CREATE ROLE mallory;
CREATE ROLE bank;
CREATE ROLE clerk;
CREATE ROLE eve;
CREATE ROLE watcher IN ROLE pg_monitor;
CREATE ROLE reader IN ROLE pg_read_all_data;
GRANT CREATE ON SCHEMA public TO mallory, reader;
INSERT INTO retry.scene_group (name, owner) VALUES ('bank', 'bank'), ('mallory', 'mallory'), ('answers', 'clerk');
INSERT INTO retry.scene (group_name, name, url, headers, max_attempts, backoff) VALUES
	('bank', 'ok', '$url/ok/LOOT-url', '{"X-Of-Scene": "LOOT-of-scene"}', 3, 'fixed 1h'),
	('bank', 'stop', '$url/status/422?body=LOOT-answer', NULL, 3, 'fixed 1h'),
	('bank', 'fail', '$url/status/500?body=LOOT-answer', NULL, 3, 'fixed 1h'),
	('bank', 'hang', '$url/hang', NULL, 3, 'fixed 1h'),
	('bank', 'blocked', 'http://169.254.1.1/LOOT-url', NULL, 3, 'fixed 1h'),
	('mallory', 'own', '$url/ok/own', NULL, 3, 'fixed 1h'),
	('answers', 'ask', '$url/ok/ask', NULL, 3, 'fixed 1h');
INSERT INTO retry.scene (group_name, name, targets) VALUES ('bank', 'routed', '{$url/ok/LOOT-target}');
INSERT INTO retry.alarm_rule (group_name, name, condition) VALUES ('bank', 'loot', 'disabled');
UPDATE retry.scene_group SET max_pending = 100000 WHERE name = 'bank';
UPDATE retry.scene SET timeout = '1 h' WHERE name = 'hang';
SELECT retry.grant('bank', 'default'), retry.grant('mallory', 'default'), retry.grant('bank', 'answers'), retry.grant('eve', 'answers');
SET ROLE bank;
SELECT retry.set_secret('loot-secret', 'LOOT-of-secret', 'bank');
INSERT INTO retry.lane_override (group_name, lane, description) VALUES ('bank', 'LOOT-lane-2', 'LOOT');
SELECT retry.schedule('loot', '0 0 1 1 *', 'bank/ok', '{"of": "LOOT-schedule"}');
SELECT retry.disable_url('bank/ok', 'https://loot.example.com/LOOT', 'LOOT-reason');
SELECT retry.enqueue('bank/ok', url => 'https://loot.example.com/LOOT', key => 'LOOT-key-held');
SELECT retry.enqueue('bank/' || s, '{"of": "LOOT-body"}', key => 'LOOT-key-' || s, reference => 'LOOT-reference',
	headers => '{"X-Of-Task": "LOOT-of-task"}', lane => 'LOOT-lane-' || s)
FROM unnest('{ok,stop,fail,hang,blocked,routed}'::text[]) s;
SELECT retry.enqueue('bank/ok', '{"of": "LOOT-body"}', key => 'LOOT-key-later', delay => '20 days', reference => 'LOOT-reference');
SELECT retry.amend(id, '{"url": "$url/ok/LOOT-amended"}') FROM retry.tasks WHERE key = 'LOOT-key-later';
SELECT retry.enqueue('bank/ok', '{"of": "LOOT-body"}', key => 'LOOT-key-cancelled', delay => '20 days') AS id \\gset
SELECT retry.cancel(:'id');
SELECT retry.enqueue('$url/ok/LOOT', '{"of": "LOOT-body"}', key => 'LOOT-shared', delay => '20 days');
SELECT retry.prepare('bank/ok', '{"of": "LOOT-body"}', key => 'LOOT-message', reference => 'LOOT-reference', headers => '{"X-Of-Task": "LOOT-of-task"}',
	check_target => 'answers/ask', check_after => '20 days');
SELECT retry.barrier('$gid', 'debit', 'try');
SELECT retry.saga('[{"name": "LOOT-step", "action": "bank/fail", "compensate": "bank/ok"}]', '{"of": "LOOT-body"}', key => 'LOOT-saga', reference => 'LOOT-reference');
SELECT retry.tcc_begin('20 days', 'bank/fail', key => 'LOOT-tcc', reference => 'LOOT-reference') AS gid \\gset
SELECT retry.tcc_branch(:'gid', 'LOOT-branch', 'bank/fail', 'bank/ok', 'bank/ok', '{"of": "LOOT-body"}');
SET ROLE mallory;
SELECT retry.enqueue('mallory/own', '{}', key => 'own', delay => '20 days');
SQL
wait_sql($node, "SELECT string_agg(DISTINCT state::text, ' ' ORDER BY state::text) FROM retry.tasks WHERE scene ^\@ 'bank/'",
	'the bank has tasks in every state', expected => 'cancelled dead pending retrying running succeeded');
wait_sql($node, "SELECT sum(retry.held_tasks(id, 'https://loot.example.com/LOOT')) FROM retry.scene", 'and one that is held', expected => '1');
$node->safe_psql('postgres', 'SELECT count(*) FROM retry.look_at_alarms(now())');
# enough rows that plans may differ from those of a few
$node->safe_psql('postgres', 'ANALYZE');

# What leaks, as mallory would write it: strict and cheap, so that the planner
# may use it first and everywhere.
my $peek = <<'SQL';
CREATE FUNCTION public.peek(text) RETURNS boolean LANGUAGE plpgsql STRICT COST 0.0000001 AS
$$ BEGIN IF $1 ILIKE '%loot%' THEN RAISE WARNING 'seen: %', upper($1); END IF; RETURN true; END $$;
SQL

# ---------------------------------------------------------------- how it is done

sub run_attack
{
	my ($role, $sql, $without) = @_;
	my ($rc, $out, $err) = $node->psql('postgres',
		"BEGIN;\n" . ($without // '') . "\nSET LOCAL ROLE $role;\n$sql\nROLLBACK;",
		on_error_stop => 0);
	return ($out // '') . "\n" . ($err // '');
}

# attack(NAME, SQL, %options): it brings no LOOT.
#   role => 'mallory'    who does it
#   without => SQL       a superuser takes the defence away: then it brings LOOT
#   loot => REGEX        what coming out of it means that it worked
my $attacks = 0;
sub attack
{
	my ($name, $sql, %opt) = @_;
	my $role = $opt{role} // 'mallory';
	my $loot = $opt{loot} // qr/LOOT/;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$attacks++;
	my $seen = run_attack($role, $sql);
	# psql repeats the line of an error, in which mallory may have named it
	$seen =~ s/^LINE \d+:.*\n.*$//mg;
	unlike($seen, $loot, $name);
	return unless defined $opt{without};
	like(run_attack($role, $sql, $opt{without}), $loot, "  … and works without its defence");
	return;
}

# ---------------------------------------------------------------- views

foreach my $state (qw(pending running retrying succeeded dead cancelled))
{
	attack("a leaky function in a condition sees nothing of tasks that are $state",
		"$peek SET LOCAL enable_nestloop = off; SELECT count(*) FROM retry.tasks WHERE state = '$state' AND peek(key);",
		# what is running is found by a function that knows the rights itself
		$state eq 'running' ? () : (without => "ALTER VIEW retry.tasks_$state SET (security_barrier = false);"));
}
attack('nor of the last errors of what is retried', "$peek SET LOCAL enable_nestloop = off; SELECT count(*) FROM retry.tasks WHERE peek(key || coalesce(last_error, ''));");

my %views = (attempts => 'convert_from(response, \'UTF8\')', branches => 'branch', disabled_urls => 'url', events => 'target', schedules => 'name', transactions => 'key');
my %barred = map { $_ => 1 } qw(branches disabled_urls transactions);
foreach my $view (sort keys %views)
{
	attack("nor of retry.$view",
		"$peek SET LOCAL jit = off; SELECT count(*) FROM retry.$view WHERE peek($views{$view});",
		# DISTINCT ON is a barrier too, in most plans, and so is a join that must come first
		$barred{$view} ? () : (without => "ALTER VIEW retry.$view SET (security_barrier = false);"));
}
attack('nor of retry.secrets', "$peek SELECT count(*) FROM retry.secrets WHERE peek(name);");

# whatever views there are
my @views = split /\n/, $node->safe_psql('postgres', <<'SQL');
SELECT c.oid::regclass FROM pg_class c
WHERE relnamespace = 'retry'::regnamespace AND relkind = 'v' AND has_table_privilege('mallory', c.oid, 'SELECT') ORDER BY 1
SQL
cmp_ok(scalar @views, '>=', 10, 'views that everybody may read');
# a replay is shown while it goes on, as it waits for another
my $loot = $node->safe_psql('postgres', "SELECT id FROM retry.dead_letters WHERE scene = 'bank/stop'");
my ($holder, $runner) = map { session($node, on_error_stop => 0) } 1 .. 2;
$holder->query_safe('BEGIN');
$holder->query_safe("SELECT retry.replay('$loot')");
$runner->query_until(qr/going/, "\\echo going\nSET ROLE bank; SELECT retry.replay_dead('bank/stop');\n");
wait_sql($node, "SELECT count(*) FROM retry.progress WHERE operation = 'retry.replay_dead()'", 'a replay waits', expected => '1');
is(join(' ', grep { !/dispatchers/ && $node->safe_psql('postgres', "SELECT v::text FROM $_ v") !~ /loot|\bbank\b/i } @views), '', 'each view has something of the bank');
attack("all columns of $_ show nothing of the bank's", "SELECT v::text FROM $_ v;", loot => qr/loot|\bbank\b/i) foreach @views;
my $hex = unpack 'H*', 'LOOT';	# as bodies and answers are shown
foreach my $view (grep { !/dispatchers/ } @views)
{
	my $out = $node->safe_psql('postgres', "SET ROLE watcher; SELECT v::text FROM $view v");

	unlike($out, qr/LOOT-(?:body|of-scene|of-task|of-secret|schedule|answer)|$hex/,
		"pg_monitor sees no bodies, headers, secrets or answers in $view");
}
like($node->safe_psql('postgres', 'SET ROLE watcher; SELECT lane FROM retry.lanes'), qr/LOOT-lane/,
	'pg_monitor sees the lanes of all');

$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM retry.progress WHERE operation = 'retry.replay_dead()'");
wait_sql($node, "SELECT count(*) FROM retry.progress WHERE operation = 'retry.replay_dead()'", 'and is given up', expected => '0');
$_->quit foreach $runner, $holder;

attack('statistics of the planner are not shown',
	"SELECT array_to_string(most_common_vals::text::text[], ' ') || array_to_string(histogram_bounds::text::text[], ' ') FROM pg_stats WHERE schemaname = 'retry';");
attack('statistics of columns that all may read are not shown',
	"SELECT most_common_vals::text || histogram_bounds::text, histogram_bounds FROM pg_stats WHERE tablename = 'scene';",
	without => 'ALTER TABLE retry.scene DISABLE ROW LEVEL SECURITY;',
	loot => qr/LOOT|blocked/);
attack('an estimate that calls an operator of one\'s own gets no statistics',
	"$peek CREATE FUNCTION peek2(text, text) RETURNS boolean LANGUAGE plpgsql STRICT AS 'BEGIN RETURN peek(\$1); END';
	CREATE OPERATOR public.=== (FUNCTION = peek2, LEFTARG = text, RIGHTARG = text, RESTRICT = eqsel);
	EXPLAIN SELECT * FROM retry.tasks WHERE key === 'x'; EXPLAIN SELECT * FROM retry.dead_letters WHERE key OPERATOR(public.===) 'x';");

# ---------------------------------------------------------------- tables

my @closed = split /\n/, $node->safe_psql('postgres', <<'SQL');
SELECT c.oid::regclass FROM pg_class c
WHERE relnamespace = 'retry'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') AND c.relname !~ '_\d\d$'
	AND NOT has_any_column_privilege('mallory', c.oid, 'SELECT') ORDER BY 1
SQL
cmp_ok(scalar @closed, '>=', 30, 'relations that nobody else may read');
attack('no table of the store can be read', join("\n", map { "SAVEPOINT s; SELECT 'LOOT' FROM $_; ROLLBACK TO s;" } @closed),
	without => 'GRANT SELECT ON retry.task TO PUBLIC;');
attack('nor one of its leaves',
	"DO \$\$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'retry'::regnamespace AND relname ~ '_\\d\\d\$' AND relkind = 'r' LOOP
	BEGIN EXECUTE 'SELECT FROM ' || t; RAISE WARNING 'LOOT in %', t; EXCEPTION WHEN insufficient_privilege THEN NULL; END; END LOOP; END \$\$;",
	without => 'GRANT SELECT ON retry.attempt_17 TO PUBLIC;');
attack('scenes of others are not seen', "$peek SELECT count(*) FROM retry.scene WHERE peek(headers::text);",
	without => 'ALTER TABLE retry.scene DISABLE ROW LEVEL SECURITY;');
attack('nor overrides', "$peek SELECT count(*) FROM retry.lane_override WHERE peek(description);",
	without => 'ALTER TABLE retry.lane_override DISABLE ROW LEVEL SECURITY;');
attack('nor exported', "SELECT retry.export_config();",
	without => 'ALTER TABLE retry.scene DISABLE ROW LEVEL SECURITY; ALTER TABLE retry.scene_group DISABLE ROW LEVEL SECURITY;');
attack('nor changed', "UPDATE retry.scene SET url = '$url/ok/mine', headers = NULL WHERE group_name = 'bank' RETURNING 'LOOT';",
	without => 'ALTER TABLE retry.scene DISABLE ROW LEVEL SECURITY;');
attack('nor imported', qq(SELECT 'LOOT' FROM retry.import_config('{"retry": "1.0", "groups": [{"name": "mallory", "scenes": [{"name": "own"}]}, {"name": "bank", "paused": true}]}');),
	without => 'ALTER TABLE retry.scene_group DISABLE ROW LEVEL SECURITY;');
attack('whether a scene of others is there does not show in an error',
	"INSERT INTO retry.scene (group_name, name) VALUES ('bank', 'ok');", loot => qr/duplicate key|already exists/,
	without => 'ALTER TABLE retry.scene DISABLE ROW LEVEL SECURITY;');
attack('pg_read_all_data does not read secrets', "SELECT value FROM retry.secret;", role => 'reader',
	without => 'ALTER TABLE retry.secret DISABLE ROW LEVEL SECURITY;');
attack('no table of retry can be locked',
	"DO \$\$ DECLARE t regclass; m text; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'retry'::regnamespace AND relkind IN ('r', 'p', 'v') LOOP
	FOREACH m IN ARRAY ARRAY['ROW SHARE', 'ROW EXCLUSIVE', 'SHARE', 'EXCLUSIVE', 'ACCESS EXCLUSIVE'] LOOP
	BEGIN EXECUTE format('LOCK TABLE %s IN %s MODE NOWAIT', t, m); RAISE WARNING 'LOOT: % of %', m, t; EXCEPTION WHEN insufficient_privilege OR lock_not_available THEN NULL; END; END LOOP; END LOOP; END \$\$;",
	without => 'GRANT DELETE ON retry.scene TO PUBLIC;');
attack('nothing can be put into the schema', 'CREATE TABLE retry.loot (); SELECT upper(relname) FROM pg_class WHERE relname = \'loot\';',
	without => 'GRANT CREATE ON SCHEMA retry TO PUBLIC;');

# ---------------------------------------------------------------- functions

# A task of the bank and one that does not exist are told apart by no error.
my $of_bank = $node->safe_psql('postgres', "SELECT id FROM retry.tasks WHERE key = 'LOOT-key-later'");
my $dead_one = $node->safe_psql('postgres', "SELECT id FROM retry.tasks WHERE key = 'LOOT-key-stop'");
my $nobodys = '01900000-0000-7000-8000-000000000000';
my $message = $node->safe_psql('postgres', "SELECT gid FROM retry.transactions WHERE key = 'LOOT-message'");
my $check = $node->safe_psql('postgres', "SELECT check_id FROM retry.transactions WHERE key = 'LOOT-message'");
my $shared = $node->safe_psql('postgres', "SELECT id FROM retry.tasks WHERE key = 'LOOT-shared'");
my ($saga, $tcc) = map { $node->safe_psql('postgres', "SELECT gid FROM retry.transactions WHERE key = 'LOOT-$_'") } qw(saga tcc);
foreach my $call ('cancel(%s)', 'run_now(%s)', 'replay(%s)', 'wait(%s)', 'step_over(%s)', q[amend(%s, '{"max_attempts": 1}')], 'commit(%s)', 'rollback(%s)',
	q[settle(%s, 'LOOT-step', 'action')], q[tcc_branch(%s, 'x', 'mallory/own', 'mallory/own', 'mallory/own')], q[twophase_branch(%s, 'x')])
{
	foreach my $id ($call =~ /commit|rollback/ ? ($message, $saga, $tcc) : $call =~ /settle/ ? $saga : $call =~ /branch/ ? $tcc : ($of_bank, $dead_one))
	{
		my ($theirs, $none) = map {
			my $sql = 'SELECT retry.' . sprintf($call, "'$_'");
			my $said = run_attack('mallory', $sql . ';');
			$said =~ s/\Q$_\E/(id)/gr =~ s/^psql:\S*//mgr
		} $id, $nobodys;

		$attacks++;
		is($theirs, $none, "retry.$call says the same of a task of others and of none");
	}
}
attack("retry.$_ finds nothing of others", "SELECT CASE WHEN n > 1 THEN 'LOOT' END FROM retry.$_ n;",
	without => "GRANT bank TO mallory;")
  foreach ('cancel_where()', 'run_now_where()', q(amend_where('{"max_attempts": 1}')));
attack('retry.replay_dead() finds nothing of others', "SELECT CASE WHEN retry.replay_dead() > 0 THEN 'LOOT' END;",
	without => 'GRANT bank TO mallory;');
attack('no page has tasks of others', "SELECT p::text FROM unnest(enum_range(NULL::retry.task_state)) s, retry.page(s, size => 1000) p;", without => 'GRANT bank TO mallory;');
attack('none is found that is of others', "SELECT t::text FROM (VALUES ('$of_bank'::uuid), ('$dead_one')) v (id), retry.find(id => v.id) t;", without => 'GRANT bank TO mallory;');
attack('nor by its key', "SELECT t::text FROM retry.find('LOOT-key-later') t;", without => 'GRANT bank TO mallory;');
attack('a key of others in the shared group is not met', "SELECT 'met' WHERE retry.enqueue('$url/ok/x', key => 'LOOT-shared', delay => '1 day') = '$shared';", loot => qr/^met$/m);
attack('no message about health names what is of others', 'SELECT h::text FROM retry.health() h;', loot => qr/LOOT|\bbank\b/);
attack('nor which scenes of others believe any server', "RESET ROLE; UPDATE retry.scene SET url = 'https://bank.example.com', tls_verify = false WHERE name = 'ok'; SET LOCAL ROLE mallory; SELECT h::text FROM retry.health() h;",
	loot => qr/bank\/ok/, without => 'GRANT pg_monitor TO mallory;');
attack('nor does an alarm about it', "RESET ROLE; UPDATE retry.scene SET url = 'https://bank.example.com', tls_verify = false WHERE name = 'ok';
	INSERT INTO retry.alarm_rule (group_name, name, condition) VALUES ('mallory', 'health', 'health'); SELECT count(*) > 0 AS about, string_agg(detail, ' ') FROM retry.alarm_subjects(now()) WHERE rule_id = (SELECT a.id FROM retry.alarm_rule a WHERE a.group_name = 'mallory');",
	loot => qr/bank\/ok/, without => 'GRANT pg_monitor TO mallory;');
attack('what excepts a channel from verification does not go with it elsewhere', "RESET ROLE; INSERT INTO retry.channel (group_name, name, kind, url) VALUES ('mallory', 'hook', 'webhook', 'https://inside.example.com');
	UPDATE retry.scene SET tls_verify = false WHERE name = 'alarm-hook'; SET LOCAL ROLE mallory; UPDATE retry.channel SET description = 'x'; SELECT 'kept' FROM retry.scene WHERE NOT tls_verify;
	UPDATE retry.channel SET url = 'https://elsewhere.example.com'; SELECT 'LOOT' FROM retry.scene WHERE NOT tls_verify;");
attack('retry.held_tasks() counts nothing of others', q(SELECT 'LOOT' FROM generate_series(1, 30) s WHERE retry.held_tasks(s, 'https://loot.example.com/LOOT') > 0;));
attack('retry.amended() shows nothing of others',
	"SELECT retry.amended(l::int2, '$of_bank', 'x'::text, 'url') FROM generate_series(0, 32) l; SELECT retry.amended(32::int2, '$of_bank', 1::int8, 'url');");
attack('nor does a schedule run of others', "SELECT CASE WHEN retry.run_schedules() > 0 THEN 'LOOT' END; SELECT CASE WHEN retry.run_schedules('2100-01-01') > 0 THEN 'LOOT' END;");
attack('a schedule of others is not replaced', q(SELECT retry.unschedule('loot') AND true; SELECT retry.schedule('loot', '* * * * *', 'mallory/own'); SELECT count(*) || ' LOOT' FROM retry.schedules WHERE owner <> 'mallory'::regrole HAVING count(*) > 0;));
attack('nobody enqueues into a group of others', "SELECT 'LOOT' WHERE retry.enqueue('bank/ok', delay => '1 day') IS NOT NULL;",
	without => "SELECT retry.grant('mallory', 'bank');");
attack('nor by a callback', "SELECT 'LOOT' WHERE retry.enqueue('mallory/own', delay => '1 day', on_success => 'bank/ok') IS NOT NULL;",
	without => "SELECT retry.grant('mallory', 'bank');");
attack('nor by the callback of a scene of one\'s own',
	"SET LOCAL check_function_bodies = off; UPDATE retry.scene SET on_success = 'bank/ok' RETURNING 'LOOT';",
	without => 'DROP TRIGGER check_callbacks ON retry.scene;');
attack('nor does a scene of one\'s own call a function as whoever enqueues',
	"CREATE FUNCTION run_as(jsonb) RETURNS void LANGUAGE sql AS ''; SET LOCAL check_function_bodies = off; UPDATE retry.scene SET url = 'sql:public.run_as' RETURNING 'LOOT';",
	without => 'DROP TRIGGER check_function ON retry.scene;');
attack("nor do its $_ or its check", "CREATE FUNCTION run_as(jsonb) RETURNS void LANGUAGE sql AS ''; SET LOCAL check_function_bodies = off; UPDATE retry.scene SET $_ = 'sql:public.run_as' RETURNING 'LOOT';",
	without => 'DROP TRIGGER check_callbacks ON retry.scene;') foreach qw(on_success on_dead check_target);
attack('nobody prepares a message for a group of others', "SELECT 'LOOT' WHERE retry.prepare('bank/ok', check_target => 'mallory/own') IS NOT NULL;",
	without => "SELECT retry.grant('mallory', 'bank');");
attack('nor asks one about a message of his own', "SELECT 'LOOT' WHERE retry.prepare('mallory/own', check_target => 'bank/ok') IS NOT NULL;",
	without => "SELECT retry.grant('mallory', 'bank');");
attack("nobody has an operation in a group of others: $_->[0]", "SELECT 'LOOT' WHERE $_->[1] IS NOT NULL;", without => "SELECT retry.grant('mallory', 'bank');")
  foreach ([ 'an action', q(retry.saga('[{"action": "bank/ok"}]')) ],
	[ 'a compensation', q(retry.saga('[{"action": "mallory/own", "compensate": "bank/ok"}]')) ],
	[ 'a confirm', q(retry.tcc_branch(retry.tcc_begin('1 day', 'mallory/own'), 'x', 'mallory/own', 'bank/ok', 'mallory/own')::text) ],
	[ 'the time', q(retry.tcc_begin('1 day', 'bank/ok')) ],
	[ 'a commit', q(retry.twophase_begin('bank/ok')) ]);
# Eve administers the tasks of the group in which the bank's message is asked about.
attack("a check of others is not changed: $_", "SELECT 'LOOT' WHERE retry.amend('$check', '$_');", role => 'eve', without => 'GRANT bank TO eve;')
  foreach qq({"url": "$url/status/200?body=commit"}), '{"max_attempts": 1}';
attack('a check of others is not changed with many', qq(SELECT 'LOOT' WHERE retry.amend_where('{"max_attempts": 1}') > 0;), role => 'eve', without => 'GRANT bank TO eve;');
attack('nor does who is asked decide himself', "SELECT 'LOOT' WHERE retry.commit('$message'); SELECT t::text FROM retry.transactions t;", role => 'eve',
	without => "SELECT retry.grant('eve', 'bank');");
attack('a barrier of others is not met', "SELECT 'LOOT' WHERE NOT retry.barrier('$gid', 'debit', 'try');");
attack('the limits of one\'s own group cannot be lifted',
	"UPDATE retry.scene_group SET max_pending = NULL, max_body_size = 1000000000 WHERE name = 'mallory' RETURNING 'LOOT';",
	without => 'GRANT UPDATE (max_pending, max_body_size) ON retry.scene_group TO PUBLIC; DROP TRIGGER check_limits ON retry.scene_group;');
attack('nor with a privilege on the whole table',
	"RESET ROLE; GRANT SELECT, UPDATE ON retry.scene_group TO mallory; SET LOCAL ROLE mallory; UPDATE retry.scene_group SET max_pending = 1000000 RETURNING 'LOOT';",
	without => 'DROP TRIGGER check_limits ON retry.scene_group;');
attack('a secret of others cannot be set', q(SELECT 'LOOT' FROM retry.set_secret('loot-secret', 'mine', 'bank');));
attack('whether one is a key is not told',
	"INSERT INTO retry.scene (group_name, name, url, secret) VALUES ('bank', 'mine', '$url/ok', 'loot-secret');", loot => qr/is no key/,
	without => 'ALTER TABLE retry.scene DISABLE ROW LEVEL SECURITY;');
attack('nor is it named in a group of one\'s own', "UPDATE retry.scene SET headers = '{\"X\": \"{{secret:loot-secret}}\"}'; SELECT 'LOOT' FROM retry.secrets WHERE set_at IS NOT NULL;",
	without => "UPDATE retry.secret SET group_id = (SELECT id FROM retry.scene_group WHERE name = 'mallory');");

# ---------------------------------------------------------------- acting as others

# Planted before pg_catalog in the path: each says as whom it ran.
my $planted = <<'SQL';
CREATE FUNCTION public.note(what text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS
$$ BEGIN IF current_user <> 'mallory' THEN RAISE WARNING 'LOOT: % ran as %', what, current_user; END IF; END $$;
CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('clock_timestamp'); RETURN pg_catalog.clock_timestamp(); END $$;
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('now'); RETURN pg_catalog.now(); END $$;
CREATE FUNCTION public.format(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('format'); RETURN pg_catalog.format($1, $2); END $$;
CREATE FUNCTION public.format(text, name) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('format'); RETURN pg_catalog.format($1, $2); END $$;
SQL
foreach my $type (qw(oid int4 int8 text name regclass timestamptz bool uuid))
{
	foreach my $operator ('=', '<>')
	{
		my $word = $operator eq '=' ? 'eq' : 'ne';
		$planted .= "CREATE FUNCTION public.${type}_$word($type, $type) RETURNS boolean LANGUAGE plpgsql AS "
		  . "\$\$ BEGIN PERFORM public.note('$type $operator'); RETURN \$1 OPERATOR(pg_catalog.$operator) \$2; END \$\$;\n"
		  . "CREATE OPERATOR public.$operator (FUNCTION = public.${type}_$word, LEFTARG = $type, RIGHTARG = $type);\n"
		  unless $type eq 'regclass';
	}
}
$planted .= <<'SQL';
CREATE FUNCTION public.cat(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('||'); RETURN $1 OPERATOR(pg_catalog.||) $2; END $$;
CREATE OPERATOR public.|| (FUNCTION = public.cat, LEFTARG = text, RIGHTARG = text);
SET LOCAL search_path = public, pg_catalog;
SQL
my $loose = <<'SQL';
DO $$ DECLARE f regprocedure; BEGIN
FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'retry'::regnamespace AND prosecdef LOOP
EXECUTE format('ALTER FUNCTION %s SET search_path = public, pg_catalog', f); END LOOP; END $$;
SQL
# a failing statement must not hide what the next would do
sub each_alone
{
	return join "\n", map { "SAVEPOINT a; $_; ROLLBACK TO a;" } @_;
}
my %as_owner = (
	'pausing a lane' => "INSERT INTO retry.lane_override (group_name, lane, paused) VALUES ('mallory', 'x', true)",
	'dropping a scene' => "SELECT retry.drop_scene('mallory/own')",
	'renaming a scene' => "UPDATE retry.scene SET name = 'renamed'");
attack("$_ runs nothing planted as the owner of the extension", "$planted\n$as_owner{$_};", without => $loose)
  foreach sort keys %as_owner;
attack('giving a scene a secret does not either', "SELECT retry.set_secret('s', 'token', 'mallory');\n$planted\n" . each_alone("UPDATE retry.scene SET secret = 's'"), without => $loose);
attack('nor does what the functions do as the owner', $planted . each_alone(
		"SELECT retry.grant('clerk', 'mallory')", "SELECT retry.revoke('clerk', 'mallory')",
		"SELECT retry.set_secret('s', 'token', 'mallory')", "SELECT retry.set_secret('s', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'mallory')",
		"SELECT retry.disable_url('mallory/own', 'http://x.example.com/')", "SELECT retry.enable_url('mallory/own', 'http://x.example.com/')",
		"SELECT retry.replay_dead()", "SELECT retry.replay_dead(error => '%', reference => 'x', reason => 'stopped')", "SELECT retry.drop_lane_override('mallory', 'x')",
		"SELECT retry.schedule('s', '* * * * *', 'mallory/own')", 'SELECT retry.run_schedules()', "SELECT retry.unschedule('s')",
		"SELECT retry.once('c', 'm')", "SELECT retry.enqueue('mallory/own', key => 'k', delay => '1 day')", "SELECT retry.barrier('$gid', 'b', 'cancel')",
		"SELECT retry.commit(retry.prepare('mallory/own', key => 'm', check_target => '$url/ok/ask'))", 'SELECT count(*) FROM retry.transactions', 'SELECT count(*) FROM retry.branches',
		q(SELECT retry.rollback(retry.saga('[{"action": "mallory/own", "compensate": "mallory/own"}]', key => 's'))), "SELECT retry.commit(retry.tcc_begin('1 day', 'mallory/own', key => 't'))",
		"SELECT retry.cancel_where()", "SELECT count(*) FROM retry.tasks", "SELECT count(*) FROM retry.attempts", 'SELECT count(*) FROM retry.health()'));
attack('nor does a page of dead tasks', "$planted SELECT count(*) FROM retry.page('dead');", without => 'ALTER FUNCTION retry.page SET search_path = public, pg_catalog;');
attack('nor does what counts the tasks of a group with limits', <<"SQL");
RESET ROLE; UPDATE retry.scene_group SET max_pending = 1000 WHERE name = 'mallory'; SET LOCAL ROLE mallory;
$planted SELECT retry.enqueue('mallory/own', delay => '1 day');
SQL
my $in_temp = $planted =~ s/search_path = public, pg_catalog/search_path = pg_catalog/r . <<'SQL';
CREATE TEMP TABLE pg_class AS SELECT * FROM pg_catalog.pg_class LIMIT 0; CREATE TEMP TABLE pg_locks (locktype text);
CREATE TEMP VIEW pg_roles AS SELECT 'LOOT'::text AS rolname, 1::oid AS oid;
CREATE DOMAIN pg_temp.regclass AS pg_catalog.regclass CHECK (coalesce(public.note('regclass')::text, '') IS NOT NULL);
SQL
attack('nor do objects of a temporary schema', $in_temp . each_alone("SELECT retry.grant('clerk', 'mallory')", "UPDATE retry.scene SET name = 'renamed'", "SELECT retry.drop_scene('mallory/own')"),
	without => $loose =~ s/public, pg_catalog/pg_temp, pg_catalog/r);
attack('nor does a view of that schema say who is a superuser',
	"CREATE TEMP VIEW pg_roles AS SELECT current_user AS rolname, true AS rolsuper; UPDATE retry.scene SET tls_verify = false RETURNING 'LOOT';",
	without => 'ALTER FUNCTION retry.check_unverified() SET search_path = pg_temp, pg_catalog;');
attack('functions that run as the owner are no trigger for a table of one\'s own',
	q(CREATE TABLE public.own (id int, group_name text, name text, archived boolean, secret text); CREATE TRIGGER t BEFORE DELETE ON own FOR EACH ROW EXECUTE FUNCTION retry.archive_scene();
	SELECT tgname || ' LOOT' FROM pg_trigger WHERE tgrelid = 'own'::regclass;),
	without => 'GRANT EXECUTE ON FUNCTION retry.archive_scene() TO PUBLIC;');
attack('nor, if they could be, do they act', <<'SQL',
CREATE TABLE public.own (id int, group_name text, name text);
INSERT INTO own SELECT s, 'bank', 'hang' FROM generate_series(1, 40) s;
CREATE TRIGGER t BEFORE DELETE ON own FOR EACH ROW EXECUTE FUNCTION retry.archive_scene();
SAVEPOINT s; DELETE FROM own; SELECT 'LOOT' FROM own HAVING count(*) > 0; ROLLBACK TO s;
SQL
	without => q(GRANT EXECUTE ON FUNCTION retry.archive_scene() TO PUBLIC;
	DO $$ BEGIN EXECUTE replace(pg_get_functiondef('retry.archive_scene()'::regprocedure), $q$TG_RELID <> 'retry.scene'::regclass$q$, 'false'); END $$;));
attack('a cast of one\'s own between types of others cannot be planted',
	"CREATE FUNCTION c(int) RETURNS regrole LANGUAGE sql AS 'SELECT ''postgres''::regrole'; CREATE CAST (int AS regrole) WITH FUNCTION c(int) AS IMPLICIT; SELECT 'LOOT' FROM pg_cast WHERE castsource = 'int'::regtype AND casttarget = 'regrole'::regtype AND castfunc <> 0;");
attack('nor a type in the place of one of retry\'s', each_alone(map { "$_; SELECT 'LOOT'" }
		'ALTER TYPE retry.backoff OWNER TO mallory', 'ALTER EXTENSION retry UPDATE',
		'CREATE TYPE public.backoff AS (x int); ALTER EXTENSION retry ADD TYPE public.backoff'),
	without => 'ALTER ROLE mallory SUPERUSER;');
attack('input that is no backoff, rate or header crashes nothing', each_alone(
		"SELECT repeat('(', 100000)::retry.backoff", "SELECT ('levels ' || repeat('1s,', 100000) || '1s')::retry.backoff", "SELECT 'exponential 1s factor 1e308'::retry.backoff",
		"SELECT '99999999999999999999/s'::retry.rate", "SELECT retry.check_headers(('{\"' || repeat('x', 1000000) || '\": \"\"}')::jsonb)",
		"SELECT retry.check_status_list(repeat('1-', 100000))", "SELECT retry.check_url('http://' || repeat('[', 100000))",
		"SELECT retry.check_targets(array_fill('http://x'::text, '{100000}'))", "SELECT retry.cron_next(repeat('*', 100000))",
		"SELECT retry.verify_signature(repeat('whsec_', 100000), 'x', repeat('9', 100000), '', repeat('v1,', 100000))"),
	loot => qr/server closed|crash|terminat/);
# Half of a character is no text: who keeps such an error has a row that no dump brings back.
my @refused = ("retry.saga('[{\"action\": \"mallory/own\", \"LONG\": 1}]')", "retry.saga('[{\"action\": \"mallory/own\", \"needs\": [\"LONG\"]}]')",
	"retry.saga('[{\"action\": \"mallory/own\", \"name\": \"LONG\"}]')", "retry.enqueue('LONG')", "retry.enqueue('sql:LONG')", "retry.enqueue('mallory/own', url => 'sql:LONG')",
	"retry.enqueue('mallory/own', headers => '{\"LONG\": 1}')", "retry.enqueue('mallory/own', on_success => 'LONG')", "retry.enqueue('mallory/own', lane => repeat('LONG', 9))",
	"retry.call('LONG')", "retry.call('sql:LONG')", "retry.page('dead', scene => 'LONG')", "retry.cancel_where(target => 'LONG')", "retry.set_secret('LONG', 'x', 'mallory')",
	"retry.tcc_branch(retry.tcc_begin('1 day', 'mallory/own'), 'x', 'mallory/own', 'mallory/own', 'mallory/own', '{}', '{\"LONG\": 1}')",
	"retry.twophase_branch(retry.twophase_begin('mallory/own'), 'LONG')", "retry.amend(id, '{\"LONG\": 1}') FROM retry.tasks", "retry.amend(id, '{\"max_attempts\": \"LONG\"}') FROM retry.tasks",
	"retry.check_targets('{http://x LONG}')", "retry.check_targets('{http://x weight=LONG}')", "retry.check_targets('{LONG}')", "retry.check_headers('{\"LONG\": \"\"}')");
attack('no error has half of a character', each_alone(map { my $call = $_; map { sprintf(<<'SQL', $_, $call) } 1, 2 } @refused));
DO $do$ BEGIN EXECUTE replace($call$SELECT %2$s$call$, 'LONG', repeat('x', %1$s) || repeat(U&'\00e9', 600)); EXCEPTION WHEN others THEN
	BEGIN PERFORM convert_from(textsend(SQLERRM), 'UTF8'); EXCEPTION WHEN character_not_in_repertoire THEN RAISE WARNING 'LOOT'; END;
END $do$
SQL
is($node->safe_psql('postgres', "SELECT count(*) FROM retry.tasks WHERE state = 'running'"), '1', 'the server is the one that it was');

# What ALTER DEFAULT PRIVILEGES gives to everybody does not open the store.
$node->safe_psql('postgres', 'CREATE DATABASE generous');
$node->safe_psql('generous', 'ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC; ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC; CREATE EXTENSION retry');
is($node->safe_psql('generous', <<'SQL'), '', 'default privileges open no table or sequence');
SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'retry'::regnamespace AND relkind IN ('r', 'p', 'S')
AND CASE relkind WHEN 'S' THEN has_sequence_privilege('mallory', oid, 'USAGE, SELECT, UPDATE') ELSE has_table_privilege('mallory', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') END
SQL

# What one role has written and another decides on runs as the first.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE ran (who text, what text);
GRANT INSERT ON ran TO PUBLIC;
CREATE FUNCTION runs(jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.ran VALUES (current_user, $1 ->> 'operation') $$;
SET ROLE mallory;
SELECT retry.tcc_begin('20 days', 'mallory/own', key => 'runs') AS gid \gset
SELECT retry.tcc_branch(:'gid', 'x', 'sql:public.runs', 'sql:public.runs', 'sql:public.runs');
RESET ROLE;
SELECT retry.commit(:'gid');
SQL
wait_sql($node, "SELECT count(*) FROM ran", 'a confirm is done that somebody else has decided on', expected => '2');
is($node->safe_psql('postgres', "SELECT string_agg(who || ' ' || what, ',' ORDER BY what) FROM ran"), 'mallory confirm,mallory try', 'as who has written it');

# ---------------------------------------------------------------- who answers for it

# The role in force counts, and inside a function of somebody else that one.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION for_all() RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT retry.enqueue('bank/ok', delay => '20 days') $$;
ALTER FUNCTION for_all() OWNER TO bank;
SQL
my $sent = $node->safe_psql('postgres', 'SET ROLE mallory; SELECT for_all()');
is($node->safe_psql('postgres', "SELECT enqueued_by FROM retry.tasks WHERE id = '$sent'"), 'bank',
	'what a function that runs as its owner enqueues is its owner\'s');
attack('and is not seen by who called it', "SELECT 'LOOT' FROM retry.tasks WHERE id = '$sent';", without => 'GRANT bank TO mallory;');
attack('SET ROLE takes the rights of before away', "SELECT 'LOOT' FROM retry.tasks WHERE key = 'LOOT-key-ok';", role => 'clerk',
	without => "SELECT retry.grant('clerk', 'bank');");

cmp_ok($attacks, '>=', 60, 'there are many attacks');
$node->stop;
every_case_has_its_set();
done_testing();
