# What an operator asks: single tasks, keys and references are found by index
# among many, for whoever asks; long operations are seen while they go on, by
# who may see them, and nothing is left of them when they end in whatever way.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main');
hold_nothing($node);
my $receiver = start_endpoint();
my $ok = $receiver->url('/ok');

sub sql
{
	return ask($node, $_[0]);
}

# A statement that is under way in a session of its own, and will wait.
sub going
{
	my ($query) = @_;
	my $session = session($node, on_error_stop => 0);

	$session->query_until(qr/going/, "\\echo going\n$query;\n");
	return $session;
}

# What is shown of one operation, as a role sees it.
sub shown
{
	my ($columns, $operation) = @_;

	return "SELECT concat_ws('|', $columns) FROM retry.progress WHERE operation = '$operation'";
}

my $letters = 1000;
my $gone = "SELECT count(*) FROM retry.progress WHERE operation <> 'upkeep'";
sql(<<"SQL");
CREATE ROLE app LOGIN;
CREATE ROLE granted;
CREATE ROLE stranger;
CREATE ROLE monitor IN ROLE pg_monitor;
INSERT INTO retry.scene_group (name, owner) VALUES ('app', 'app');
INSERT INTO retry.scene (group_name, name, url, max_attempts, paused) VALUES
	('app', 'dies', '@{[ $receiver->url('/status/500') ]}', 1, false), ('app', 'waits', '$ok', 3, true);
SELECT retry.grant('granted', 'app');
SQL
my $first = enqueue($node, "'app/dies', '{}'");
wait_state($node, $first, 'dead');
sql(<<"SQL");
UPDATE retry.scene SET url = '$ok' WHERE name = 'dies';
CREATE TEMP TABLE t AS SELECT d.* FROM retry.dead_letter d, generate_series(1, $letters - 1);
UPDATE t SET id = gen_random_uuid();
INSERT INTO retry.dead_letter SELECT * FROM t;
ANALYZE retry.dead_letter;
SQL

# ---- a replay that waits for another one, in the middle

my $held = sql('SELECT id FROM retry.dead_letter ORDER BY died_at, id LIMIT 1 OFFSET 599');
my $holder = session($node);
$holder->query_safe('BEGIN');
$holder->query_safe("SELECT retry.replay('$held')");
my $call = "SET ROLE app; SELECT retry.replay_dead('app/dies', reason => 'exhausted')";
my $runner = going($call);
wait_sql($node, shown('role, group_name, scene, filter, phase, looked_at, estimated, done', 'retry.replay_dead()'),
	'a replay shows how far it is',
	expected => 'app|app|app/dies|{"reason": "exhausted", "spread": "00:00:00", "target": "app/dies"}|replaying dead letters|599|t|599');
is(sql('SELECT total > 0 FROM retry.progress'), 't', 'of about so many');
foreach my $role (qw(app granted monitor postgres stranger))
{
	is(sql("SET ROLE $role; SELECT count(*) FROM retry.progress"), $role eq 'stranger' ? '0' : '1', "as $role sees it");
}
is($node->safe_psql('template1', "CREATE EXTENSION retry; $gone; DROP EXTENSION retry"),
	'0', 'and no other database does');

# cancelled; its session lives on
sql('SELECT pg_cancel_backend(pid) FROM retry.progress');
wait_sql($node, $gone, 'nothing is left of one that is cancelled', expected => '0');
is(sql('SELECT count(*) FROM retry.replayed'), '0', 'nor of what it had done');

# failed in a subtransaction, whose caller goes on
$holder->query_safe('SELECT pg_advisory_lock(1)');
$runner->query_until(qr/going/, <<'SQL');
RESET ROLE;
\echo going
DO $$ BEGIN
	BEGIN
		SET LOCAL lock_timeout = '10ms';
		PERFORM retry.replay_dead('app/dies');
	EXCEPTION WHEN lock_not_available THEN NULL;
	END;
	PERFORM pg_advisory_lock(1);
END $$;
SQL
wait_sql($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND objsubid = 1 AND NOT granted", 'one that has failed was caught', expected => '1');
is(sql($gone), '0', 'and nothing is left of it');
sql("SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND objsubid = 1 AND NOT granted");
$runner->quit;

# its process ends
$runner = going($call);
wait_sql($node, shown('looked_at', 'retry.replay_dead()'), 'another one', expected => '599');
is(sql("SELECT pg_terminate_backend(pid, 60000) FROM retry.progress"), 't', 'whose process ends');
is(sql($gone), '0', 'leaves nothing behind');
eval { $runner->quit };
$holder->query_safe('ROLLBACK');
is(sql("SELECT retry.replay_dead('app/dies', spread => '1 s')"), $letters, 'and all are there to be replayed');
is(sql($gone), '0', 'nothing is left of one that is done');

# ---- a walk over live tasks that waits to write, having counted them

my $leaf = sql("SELECT to_char(leaf, 'FM00') FROM retry.task WHERE id = '$first'");
sql("SELECT count(*) FROM retry.enqueue_many('app/waits', array_fill('{}'::jsonb, ARRAY[50]))");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'app/dies' AND state = 'succeeded'", 'delivered', expected => $letters);
$holder->query_safe("BEGIN; LOCK TABLE retry.signal_$leaf IN SHARE MODE");
$runner = going("SELECT retry.run_now_where('app/waits', spread => '1 s')");
wait_sql($node, shown("scene, phase, total >= 50, estimated, done", 'retry.run_now_where()'),
	'to spread tasks it has counted them', expected => 'app/waits|going through tasks|t|f|0');
$holder->query_safe('ROLLBACK');
wait_sql($node, $gone, 'and it ends', expected => '0');
$runner->quit;
$holder->query_safe("BEGIN; LOCK TABLE retry.signal_$leaf IN SHARE MODE");
$runner = going("UPDATE retry.scene SET paused = false, resume_over = '10 s' WHERE name = 'waits'");
wait_sql($node, shown('group_name, scene, phase, total > 0, done', 'resumption'), 'so has a resumption',
	expected => 'app|app/waits|going through tasks|t|0');
$holder->query_safe('ROLLBACK');
wait_sql($node, $gone, 'which ends, too', expected => '0');
$runner->quit;

# ---- upkeep, while a row that it deletes takes long

sql(<<'SQL');
CREATE TABLE go (on_ boolean);
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	WHILE NOT EXISTS (SELECT FROM public.go) LOOP PERFORM pg_sleep(0.01); END LOOP;
	RETURN OLD;
END $$;
INSERT INTO retry.event (at, kind) SELECT now() - interval '1 year', 'old' FROM generate_series(1, 1200);
CREATE TRIGGER slow BEFORE DELETE ON retry.event FOR EACH STATEMENT EXECUTE FUNCTION slow();
SELECT retry.purge('-infinity');
SQL
wait_sql($node, shown('filter, phase, looked_at', 'upkeep'), 'upkeep shows what it does', expected => 'retry.purge()|events|0');
is(sql('SET ROLE app; SELECT count(*) FROM retry.progress'), '0', 'not to everybody');
is(sql('SET ROLE monitor; SELECT count(*) FROM retry.progress'), '1', 'but to who monitors');
sql('INSERT INTO go VALUES (true)');
wait_sql($node, 'SELECT count(*) FROM retry.progress', 'and ends', expected => '0');
is(sql("SELECT count(*) FROM retry.event WHERE kind = 'old'"), '0', 'having done it');
$holder->quit;

# ---- what is looked for is found by index, under the rights of whoever asks

sql(<<"SQL");
SELECT count(retry.enqueue('app/waits', '{}', key => 'key-' || repeat('x', 100) || n, reference => 'number-' || repeat('x', 100) || n, delay => '1 day'))
FROM generate_series(1, 10000) n;
SELECT retry.enqueue('app/waits', '{}', key => 'one', reference => 'number', delay => '1 day');
INSERT INTO retry.attempt (leaf, http_status, attempt_no, task_id, lane_hash, finished_at, duration_us, scene_id, outcome)
SELECT leaf, 200, 1, id, lane_hash, now(), 1, scene_id, 'succeeded' FROM retry.task WHERE key LIKE 'key-%';
VACUUM ANALYZE retry.task, retry.attempt;
SQL
my $one = sql("SELECT id FROM retry.tasks WHERE key = 'one'");

# Pages that a query reads of an index, at most in one look; undef when it does
# not look there.  At this size whole tables are cheap, so they are forbidden.
# Catalogs are read as well when they have changed: the least of some times counts.
sub pages
{
	my ($role, $query, $index) = @_;
	my $explain = "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) $query";
	my $least;

	foreach my $plan (split /^again$/m, sql("SET ROLE $role; SET enable_seqscan = off; SET jit = off;"
		  . join("; SELECT 'again';", ($explain) x 4)))
	{
		my $most;

		$plan =~ s/^Planning:.*//ms;
		foreach my $part (split /->/, $plan)
		{
			next if $part !~ /^\s+(Index|Bitmap Index|Index Only) Scan (using|on) $index\b/;
			my $pages = 0;
			$pages += $1 while $part =~ /Buffers: shared.*?=(\d+)/g;
			my ($loops) = $part =~ /loops=(\d+)/;
			$pages /= $loops if $loops;
			$most = $pages if !defined $most || $pages > $most;
		}
		$least = $most if defined $most && (!defined $least || $most < $least);
	}
	return $least;
}

my %index = ("id = '$one'" => "task_${leaf}_id", "key = 'one'" => "task_${leaf}_key", "reference = 'number'" => "task_${leaf}_reference");
foreach my $role (qw(app granted stranger))
{
	foreach my $by (sort keys %index)
	{
		cmp_ok(pages($role, "SELECT * FROM retry.tasks WHERE $by", $index{$by}) // 1000, '<=', 30, "$role, $by: an index leads there");
	}
	is(sql("SET ROLE $role; SELECT count(*) FROM retry.tasks WHERE id = '$one' AND key = 'one' AND reference = 'number'"),
		$role eq 'stranger' ? 0 : 1, 'by whom it may be found');
}
foreach my $by (qw(key reference))
{
	cmp_ok(pages('app', "SELECT * FROM retry.tasks WHERE $by = 'one'", "dead_letter_$by") // 1000, '<=', 30, "$by: so it does among dead letters");
}

# Indexes of the store that a session locks for a statement, when it knows all of them.
sub locked
{
	my ($role, $query) = @_;

	return sql(<<"SQL");
SET ROLE $role;
SELECT FROM retry.tasks WHERE key = 'none';
BEGIN;
DO \$\$ BEGIN PERFORM count(*) FROM $query; END \$\$;
SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE l.pid = pg_backend_pid() AND c.relkind = 'i' AND c.relname ~ '^(task|attempt|signal)_[0-9]';
COMMIT;
SQL
}
foreach my $role (qw(app granted stranger))
{
	foreach my $by (sort keys %index)
	{
		my ($column, $value) = split / = /, $by;

		is(sql("SET ROLE $role; SELECT count(*) FROM retry.find($column => $value)"), $role eq 'stranger' ? 0 : 1, "$role, retry.find() by $column");
		cmp_ok(locked($role, "retry.find($column => $value)"), '<=', 60, '... is planned for the leaf where it lies');
	}
}
cmp_ok(locked('app', "retry.tasks WHERE key = 'one'"), '>', 300, '... and the view for all');
cmp_ok(pages('app', "SELECT * FROM retry.attempts WHERE task_id = '$one'", "attempt_${leaf}_no") // 1000, '<=', 30, 'so it does to the attempts of a task');
cmp_ok(pages('app', "SELECT * FROM retry.tasks WHERE state = 'retrying' LIMIT 50", "attempt_${leaf}_due") // 1000, '<=', 30, 'and to tasks that retry');

$node->stop;
done_testing();
