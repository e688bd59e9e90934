# A task has one state in each query, whatever happens to it while the query
# looks at one state after the other: it is in no two of them, and not in none.
use strict;
use warnings FATAL => 'all';

use RetryTest;
use Test::More;

my $tasks = 3000;
my $node = new_node('main');
my $receiver = start_endpoint();
hold_nothing($node);

# Two tasks are sent while a query waits between two looks at what is running.
my $hanging = start_endpoint();
$node->safe_psql('postgres', 'CREATE TABLE seen (before bigint, after bigint)');
my $lock = session($node);
$lock->query_safe('SELECT pg_advisory_lock(42)');
my $reader = session($node);
$reader->query_until(qr/begun/, <<'SQL');
\echo begun
INSERT INTO seen
WITH first AS MATERIALIZED (SELECT count(*) AS n FROM retry.running_rows()),
	pause AS MATERIALIZED (SELECT n, pg_advisory_lock(42) FROM first)
SELECT n, (SELECT count(*) FROM retry.running_rows()) FROM pause;
SQL
wait_sql($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", 'a query waits', expected => 1);
$node->safe_psql('postgres', "SELECT count(retry.enqueue('" . $hanging->url('/hang') . "', '{}')) FROM generate_series(1, 2)");
wait_sql($node, 'SELECT count(*) FROM retry.running', 'two tasks are sent meanwhile', expected => 2);
$lock->quit;
$reader->quit;
is($node->safe_psql('postgres', 'SELECT before, after FROM seen'), '0|0', 'it sees what was running when it looked first');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retry.running_rows()'), '2', 'the next one sees what runs now');

# How one task stands is what the view says of it, in each state.
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (name, url, backoff, max_attempts) VALUES
	('fails', '${\$receiver->url('/status/500')}', 'fixed 1h', 5),
	('dies', '${\$receiver->url('/status/500')}', 'fixed 1h', 1);
SQL
my %id = map { $_ => enqueue($node, $_ eq 'succeeded' ? "'" . $receiver->url('/ok') . "', '{}'" : "'" . ($_ eq 'dead' ? 'dies' : 'fails') . "', '{}'") }
  qw(succeeded dead retrying given_up);
$id{pending} = enqueue($node, "'fails', '{}', delay => '1 h'");
$id{cancelled} = enqueue($node, "'fails', '{}', delay => '20 days'");
wait_state($node, $id{$_}, $_ eq 'given_up' ? 'retrying' : $_) foreach qw(succeeded dead retrying given_up);
$node->safe_psql('postgres', "SELECT retry.cancel('$id{$_}')") foreach qw(cancelled given_up cancelled);
is($node->safe_psql('postgres', <<'SQL'), 'cancelled 2, dead 1, pending 1, retrying 1, running 2, succeeded 1', 'tasks in each state');
SELECT string_agg(state || ' ' || n, ', ' ORDER BY state::text) FROM (SELECT state, count(*) AS n FROM retry.tasks GROUP BY 1) AS x
SQL
is($node->safe_psql('postgres', <<'SQL'), '', '... of which retry.task_now() says the same');
SELECT * FROM retry.tasks t, retry.task_now(t.id) n
WHERE (t.state, t.attempts, t.last_status, t.last_error, t.next_due, t.finished_at) IS DISTINCT FROM n
SQL
$hanging->stop('KILL');

# Thousands come, fail, and succeed while one query follows the other.
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (name, url, backoff) VALUES ('flaky', '${\$receiver->url('/flaky/1?fail=500')}', 'fixed 10ms');
CREATE VIEW looked_at AS SELECT * FROM retry.tasks WHERE scene = 'default/flaky';
SELECT count(retry.enqueue('flaky', '{}', key => 'k' || i)) FROM generate_series(1, $tasks) i;
SQL
is($node->safe_psql('postgres', <<"SQL"), 'looked', 'each of thousands of tasks has one state in each query');
DO \$\$
DECLARE
	ids bigint;
	states bigint;
	open bigint := 1;
BEGIN
	WHILE open > 0 LOOP
		SELECT count(DISTINCT id), count(*), count(*) FILTER (WHERE state NOT IN ('succeeded', 'dead'))
		INTO ids, states, open FROM looked_at;
		IF ids <> $tasks OR states <> $tasks THEN
			RAISE '% tasks in % states', ids, states;
		END IF;
	END LOOP;
END \$\$;
SELECT 'looked';
SQL
is($receiver->stats->{after_success}, 0, 'none was sent again');

$node->stop;
done_testing();
