# Functions as targets: they are run as the role that enqueued, what they do and
# the record of it are one transaction, and nothing that they do or suffer is
# felt by anybody else.
use strict;
use warnings FATAL => 'all';

use RetryTest;
use Test::More;

my $node = new_node('main', conf => "retry.sql_workers = 2\nrestart_after_crash = on\n");
my $receiver = start_endpoint();

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE app LOGIN;
CREATE ROLE other NOLOGIN;
GRANT CREATE, USAGE ON SCHEMA public TO app, other;
SELECT retry.grant('app', 'default'), retry.grant('other', 'default');
SET ROLE app;
CREATE TABLE done (n serial, what text, by name DEFAULT current_user, session name DEFAULT session_user,
	path text DEFAULT current_setting('search_path'));
GRANT ALL ON done, done_n_seq TO other;
CREATE FUNCTION note(j jsonb) RETURNS jsonb LANGUAGE sql AS
	$$ INSERT INTO public.done (what) VALUES ($1 ->> 'what'); SELECT $1 || '{"ok": true}' $$;
-- notes, then does the statement
CREATE FUNCTION exec(j jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.done (what) VALUES (j ->> 'what');
	EXECUTE j ->> 'do';
	RETURN 'did';
END $$;
-- waits until a lock is free, which the test holds
CREATE FUNCTION hang(j jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.done (what) VALUES (j ->> 'what');
	PERFORM pg_advisory_xact_lock(4711);
END $$;
CREATE FUNCTION wait(j jsonb) RETURNS void LANGUAGE sql AS 'SELECT public.hang($1)';
-- heeds no time-out
CREATE FUNCTION stubborn(j jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
	END LOOP;
END $$;
CREATE FUNCTION nothing(j jsonb) RETURNS text LANGUAGE sql STRICT AS $$ SELECT 'called' $$;
CREATE FUNCTION rows(j jsonb) RETURNS TABLE (a int, b text) LANGUAGE sql AS $$ VALUES (1, 'x'), (2, 'y') $$;
CREATE FUNCTION big(j jsonb) RETURNS text LANGUAGE sql AS $$ SELECT repeat('x', 50000000) $$;
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.done (what) VALUES ('deferred');
	EXECUTE 'RESET SESSION AUTHORIZATION';
	RETURN NULL;
END $$;
CREATE TABLE deferring (a int);
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON deferring DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION later();
SQL

# One task as a role; returns its id.
sub enqueue_as
{
	my ($role, $target, $payload, $more) = @_;
	$payload =~ s/'/''/g;
	return $node->safe_psql('postgres',
		"SET ROLE $role; SELECT retry.enqueue('$target', '$payload'" . ($more ? ", $more" : '') . ')');
}

sub done
{
	my ($what) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM done WHERE what = '$what'");
}

sub attempts
{
	my ($id) = @_;
	return $node->safe_psql('postgres',
		"SELECT string_agg(attempt_no || ' ' || outcome || coalesce(' ' || error, ''), ', ' ORDER BY attempt_no) FROM retry.attempts WHERE task_id = '$id'");
}

sub executors
{
	my ($more) = @_;
	return "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'retry executor'" . ($more // '');
}

my $once = 'max_attempts => 1';

# What a function gets, who it is, and what is kept of it.
my $id = enqueue_as('app', 'sql:public.note', '{"what": "one"}');
wait_state($node, $id, 'succeeded');
is($node->safe_psql('postgres', 'SELECT what, by, session, path FROM done'),
	'one|app|app|"$user", public', 'it ran as the role that enqueued');
is( $node->safe_psql('postgres',
		"SELECT attempt_no, lane, outcome, http_status, error, convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$id'"),
	'1|sql:public.note|succeeded|||{"ok": true, "what": "one"}',
	'the attempt has its result');
$id = enqueue_as('other', 'sql:public.note', '{"what": "two"}');
wait_state($node, $id, 'succeeded', description => 'a role that cannot log in');
is($node->safe_psql('postgres', "SELECT by, session FROM done WHERE what = 'two'"),
	'other|other', 'and it is that role');
foreach my $case (
	[ 'nothing', 'NULL', 'null', 'STRICT, without a payload' ],
	[ 'nothing', q('"x"'), '"called"', 'a text' ],
	[ 'rows', q('{}'), '[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]', 'rows' ])
{
	my ($function, $payload, $response, $what) = @$case;

	$id = $node->safe_psql('postgres', "SET ROLE app; SELECT retry.enqueue('sql:public.$function', $payload)");
	wait_state($node, $id, 'succeeded');
	is( $node->safe_psql('postgres', "SELECT convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$id'"),
		$response, $what);
}
$id = enqueue_as('app', 'sql:public.big', '{}');
wait_state($node, $id, 'succeeded');
is($node->safe_psql('postgres', "SELECT length(response) FROM retry.attempts WHERE task_id = '$id'"),
	65536, 'of a huge result the first bytes are kept');

# What fails is undone whole, and is a failed attempt.
foreach my $case (
	[ 'SELECT 1 / 0', '22012: division by zero' ],
	[ 'INSERT INTO public.parent VALUES (1), (1)', '23505: duplicate key value violates unique constraint "parent_pkey"' ],
	[ q{DO $$ BEGIN ASSERT false, 'never'; END $$}, 'P0004: never' ],
	[ 'INSERT INTO public.child VALUES (99)', '23503: insert or update on table "child" violates foreign key constraint "child_parent_fkey"' ],
	[ 'INSERT INTO public.deferring VALUES (1)', '42501: cannot set parameter "session_authorization" within security-definer function' ],
	[ 'COMMIT', '0A000: EXECUTE of transaction commands is not implemented' ],
	[ 'DO $$ BEGIN COMMIT; END $$', '2D000: invalid transaction termination' ],
	[ 'SET ROLE postgres', '42501: cannot set parameter "role" within security-definer function' ],
	[ 'RESET SESSION AUTHORIZATION', '42501: cannot set parameter "session_authorization" within security-definer function' ],
	[ 'LISTEN x', '0A000: cannot execute LISTEN within a background process' ],
	[ 'DECLARE c CURSOR WITH HOLD FOR SELECT 1 / (i - 5) FROM generate_series(1, 9) i', '22012: division by zero' ],
	[ 'SELECT * FROM retry.task', '42501: permission denied for table task' ])
{
	my ($do, $error) = @$case;
	my $json = $do =~ s/"/\\"/gr;

	$id = enqueue_as('app', 'sql:public.exec', qq({"what": "undone", "do": "$json"}), $once);
	wait_state($node, $id, 'dead', description => "fails: $do");
	is(attempts($id), "1 failed $error", 'with that error');
}
is(done('undone') + done('deferred'), 0, 'what failed was undone');
is($node->safe_psql('postgres', executors() ) =~ /^[12]$/, 1, 'the executors are still there');

# What a function leaves behind is not found by the next.
foreach my $do ('SET search_path = nowhere', q{SET LOCAL search_path = nowhere; SET statement_timeout = 1; SET row_security = off},
	q{SELECT pg_advisory_lock(1), set_config('app.x', 'y', false)}, 'SET LOCAL transaction_read_only = on',
	q{DECLARE c CURSOR FOR SELECT 1}, 'SET LOCAL synchronous_commit = off',
	('CREATE TEMP TABLE t (a int)', 'PREPARE p AS SELECT 1', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1') x 2)
{
	$id = enqueue_as('app', 'sql:public.exec', qq({"what": "left", "do": "$do"}));
	wait_state($node, $id, 'succeeded', description => "succeeds: $do");
	$id = enqueue_as('app', 'sql:public.note', '{"what": "after"}');
	wait_state($node, $id, 'succeeded', description => 'and the next one too');
}
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT path, ',') FROM done WHERE what = 'after'}),
	'"$user", public', 'with the settings of the database');
is($node->safe_psql('postgres', 'SELECT pg_try_advisory_lock(1)'), 't', 'locks are given back');

# A function may enqueue, as its role.
$id = enqueue_as('app', 'sql:public.exec',
	q({"what": "enqueues", "do": "SELECT retry.enqueue('sql:public.note', '{\"what\": \"enqueued\"}', key => 'inner')"}));
wait_sql($node, "SELECT state, enqueued_by FROM retry.tasks WHERE key = 'inner'", 'what it enqueued is run',
	expected => 'succeeded|app');
is(done('enqueued'), 1, 'once');

# What was true at enqueue need not be later.
$node->safe_psql('postgres', "UPDATE retry.scene SET paused = true WHERE name = 'default'");
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE gone;
GRANT USAGE ON SCHEMA public TO gone;
SELECT retry.grant('gone', 'default');
CREATE FUNCTION dropped(jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION revoked(jsonb) RETURNS void LANGUAGE sql AS '';
SQL
my %later = (
	dropped => enqueue_as('app', 'sql:public.dropped', '{}', $once),
	revoked => enqueue_as('app', 'sql:public.revoked', '{}', $once),
	gone => enqueue_as('gone', 'sql:public.nothing', '{}', $once));
$node->safe_psql('postgres', <<'SQL');
DROP FUNCTION dropped;
REVOKE EXECUTE ON FUNCTION revoked FROM PUBLIC;
REVOKE USAGE ON SCHEMA public FROM gone;
SELECT retry.revoke('gone', 'default');
DROP ROLE gone;
UPDATE retry.scene SET paused = false WHERE name = 'default';
SQL
wait_state($node, $later{$_}, 'dead', description => "$_ meanwhile") foreach sort keys %later;
is(attempts($later{dropped}), '1 failed 42883: function public.dropped(jsonb) does not exist', 'a dropped function');
is(attempts($later{revoked}), '1 failed 42501: permission denied for function public.revoked', 'a revoked function');
like(attempts($later{gone}), qr/^1 failed 42704: the role that enqueued the task no longer exists/, 'a dropped role');

# Time-outs, also of who does not heed them.
$id = enqueue_as('app', 'sql:public.exec', '{"what": "slow", "do": "SELECT pg_sleep(60)"}', "$once, timeout => '100 ms'");
wait_state($node, $id, 'dead');
is(attempts($id), '1 failed 57014: canceling statement due to statement timeout', 'a time-out');
$id = enqueue_as('app', 'sql:public.stubborn', '{}', "$once, timeout => '100 ms'");
wait_state($node, $id, 'dead');
is(attempts($id), '1 failed the function did not heed its time-out, and its executor was ended',
	'a time-out that is caught');

# Somebody holds what a function wants: it takes one executor, the others work on.
my $holder = session($node);
$holder->query_safe('SELECT pg_advisory_lock(4711)');
my @hanging = map { enqueue_as('app', 'sql:public.hang', qq({"what": "hung"}), "timeout => '1 h', backoff => 'fixed 10 ms'") } 1 .. 5;
wait_sql($node, executors(q{ AND wait_event = 'advisory'}), 'a function hangs', expected => '1');
is($node->safe_psql('postgres', "SELECT count(*), min(url), min(lane) FROM retry.running"),
	'1|sql:public.hang|sql:public.hang', 'retry.running shows it');
$id = enqueue_as('app', 'sql:public.note', '{"what": "beside"}');
wait_state($node, $id, 'succeeded', description => 'another function is run beside it');
$id = enqueue($node, "'" . $receiver->url('/ok') . "'");
wait_state($node, $id, 'succeeded', description => 'and requests are sent');

# All executors hang: requests are sent all the same.
my $second = enqueue_as('app', 'sql:public.wait', '{"what": "hung"}', "timeout => '1 h', backoff => 'fixed 10 ms'");
wait_sql($node, executors(q{ AND wait_event = 'advisory'}), 'two functions hang', expected => '2');
my @waiting = map { enqueue_as($_, 'sql:public.note', '{"what": "waited"}') } qw(app other app other);
$id = enqueue($node, "'" . $receiver->url('/ok') . "'");
wait_state($node, $id, 'succeeded', description => 'requests need no executor');
is(done('waited'), 0, 'functions wait for one');

# An administrator's means.
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'retry executor' AND query ~ 'hang'");
wait_sql($node, "SELECT count(*) >= 1 FROM retry.attempts WHERE error = '57014: canceling statement due to user request'",
	'one that is cancelled has failed');
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'retry executor' AND wait_event = 'advisory'");
wait_sql($node, "SELECT count(*) >= 1 FROM retry.attempts WHERE error = 'the function''s executor was ended'",
	'one whose executor is ended has failed');
$holder->query_safe('SELECT pg_advisory_unlock(4711)');
wait_state($node, $_, 'succeeded') foreach @hanging, $second, @waiting;
is(done('hung'), 6, 'and each has taken effect once in the end');
is(done('waited'), 4, 'those that waited too');

# A dispatcher that ends, an executor that is killed: nothing twice, nothing lost.
$holder->query_safe('SELECT pg_advisory_lock(4711)');
$id = enqueue_as('app', 'sql:public.hang', '{"what": "restarted"}', "timeout => '1 h', $once");
wait_sql($node, executors(q{ AND wait_event = 'advisory'}), 'it hangs', expected => '1');
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM retry.dispatchers");
wait_sql($node, executors(q{ AND wait_event = 'advisory' AND backend_start > (SELECT started_at FROM retry.dispatchers)}),
	'its successor has it run anew', expected => '1');
$holder->query_safe('SELECT pg_advisory_unlock(4711)');
wait_state($node, $id, 'succeeded');
is(done('restarted') . ' ' . attempts($id), '1 1 succeeded', 'a dispatcher that ends counts as no attempt');

$holder->query_safe('SELECT pg_advisory_lock(4711)');
$id = enqueue_as('app', 'sql:public.hang', '{"what": "crashed"}', "timeout => '1 h', $once");
wait_sql($node, executors(q{ AND wait_event = 'advisory'}), 'it hangs', expected => '1');
my $pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'retry executor' AND wait_event = 'advisory'");
$holder->quit;
kill 'KILL', $pid;
$node->poll_query_until('postgres', 'SELECT true') or die 'the server has not come back';
wait_state($node, $id, 'succeeded', description => 'after a crash it is run again');
is(done('crashed') . ' ' . attempts($id), '1 1 succeeded', 'and has taken effect once');

# While executors and dispatchers are ended again and again.
$node->safe_psql('postgres',
	q{SET ROLE app; SELECT count(*) FROM retry.enqueue_many('sql:public.note', (SELECT array_agg(jsonb_build_object('what', 'n' || i)) FROM generate_series(1, 300) i), backoff => 'fixed 1 ms', max_attempts => 1000)});
my $rounds = 0;
wait_for(
	sub {
		$rounds++;
		$node->psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = '"
			  . ($rounds % 5 ? 'retry executor' : 'retry dispatcher') . "'") if $rounds < 25;
		$node->safe_psql('postgres', q{SELECT count(*) FROM retry.tasks WHERE state = 'succeeded' AND convert_from(body, 'UTF8') ~ '"n\d'}) == 300;
	},
	'all are run');
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT what) FROM done WHERE what ~ '^n\d'}),
	'300|300', 'each has taken effect exactly once');

# Commands that need the database for themselves.
$holder = session($node);
$holder->query_safe('SELECT pg_advisory_lock(4711)');
$id = enqueue_as('app', 'sql:public.hang', '{"what": "template"}', "timeout => '1 h', $once");
wait_sql($node, executors(q{ AND wait_event = 'advisory'}), 'it hangs', expected => '1');
$holder->quit;
$holder = session($node, dbname => 'template1');
$node->psql('template1', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres' AND backend_type = 'client backend'});
is($node->psql('template1', 'CREATE DATABASE copied TEMPLATE postgres'), 0, 'a database is copied while a function is run');
wait_state($node, $id, 'succeeded');
is(done('template') . ' ' . attempts($id), '1 1 succeeded', 'which has taken effect once');
is($node->psql('template1', 'DROP DATABASE copied'), 0, 'a database is dropped');

# Without executors functions wait, and it is seen.
$node->append_conf('postgresql.conf', 'retry.sql_workers = 0');
$node->reload;
wait_sql($node, "SELECT setting FROM pg_settings WHERE name = 'retry.sql_workers'", 'no executors', expected => '0');
$id = enqueue_as('app', 'sql:public.note', '{"what": "zero"}');
wait_sql($node, "SELECT status, detail FROM retry.health() WHERE check_name = 'sql_workers'", 'retry.health() says so',
	expected => 'warning|tasks of sql: targets wait, since retry.sql_workers is 0');
$node->append_conf('postgresql.conf', 'retry.sql_workers = 2');
$node->reload;
wait_state($node, $id, 'succeeded', description => 'and goes on');
$node->append_conf('postgresql.conf', 'max_worker_processes = 3');
$node->restart;
$id = enqueue_as('app', 'sql:public.note', '{"what": "slots"}');
wait_sql($node, "SELECT status FROM retry.health() WHERE check_name = 'sql_workers'", 'too few worker slots are critical',
	expected => 'critical');
is(done('slots'), 0, 'the function waits');
$node->append_conf('postgresql.conf', 'max_worker_processes = 16');
$node->restart;
wait_state($node, $id, 'succeeded', description => 'and is run when there are some');

# The extension is dropped under a function that is being run.
$holder = session($node);
$holder->query_safe('SELECT pg_advisory_lock(4711)');
enqueue_as('app', 'sql:public.hang', '{"what": "dropped"}', "timeout => '1 h'");
wait_sql($node, executors(q{ AND wait_event = 'advisory'}), 'it hangs', expected => '1');
is($node->psql('postgres', 'DROP EXTENSION retry'), 0, 'the extension is dropped');
wait_sql($node, executors(), 'executors leave', expected => '0');
$holder->quit;
$node->stop;
is(() = PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /TRAP|PANIC/g, 0, 'no server came down by itself');

done_testing();
