# Recording attempts when something is in the way: rows that cannot be stored
# as they are, rows that are there already, and tables that somebody has locked.
# Whatever it is, no attempt is made twice and the other tasks go on.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('record');
my $receiver = start_endpoint();

# An index whose expression fails for some rows is a poison that passes no
# constraint.  418: a row with a response; 419: any row.
sub poison
{
	my ($action) = @_;
	$node->safe_psql('postgres', <<"SQL");
DO \$\$
BEGIN
	FOR n IN 0 .. 32 LOOP
		IF '$action' = 'set' THEN
			EXECUTE format('CREATE INDEX poison_%s ON retry.attempt_%s '
				'((1 / (CASE WHEN http_status = 418 AND response IS NOT NULL OR http_status = 419 THEN 0 ELSE 1 END)))',
				n, to_char(n, 'FM00'));
		ELSE
			EXECUTE format('DROP INDEX retry.poison_%s', n);
		END IF;
	END LOOP;
END
\$\$
SQL
	return;
}

sub facts
{
	my ($id) = @_;
	return $node->safe_psql('postgres',
		"SELECT attempt_no, outcome, http_status, error, next_due IS NULL, response IS NOT NULL FROM retry.attempt WHERE task_id = '$id' ORDER BY attempt_no");
}

sub target
{
	return "'" . $receiver->url($_[0]) . "', '{}'";
}

# One poison row among others: it is stored without its response.
poison('set');
my $bare = enqueue($node, target('/status/418') . ", key => 'bare', max_attempts => 1");
my @others = split /\n/, $node->safe_psql('postgres',
	"SELECT retry.enqueue_many('" . $receiver->url('/ok') . "', array_agg(jsonb_build_object('n', n))) FROM generate_series(1, 50) n");
wait_state($node, $others[-1], 'succeeded');
wait_state($node, $bare, 'dead');
is(facts($bare), '1|failed|418|could not be recorded: division by zero|t|f',
	'what cannot be stored whole is stored without its response');
is($node->safe_psql('postgres', "SELECT reason, attempts, error, body IS NULL FROM retry.dead_letter WHERE id = '$bare'"),
	'exhausted|1|could not be recorded: division by zero|t', '... and has a dead letter');
is(scalar $receiver->ledger('bare'), 1, '... and was sent once');
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE state = 'succeeded'",
	'the others are recorded', expected => '50');

# A row that cannot be stored at all: it is held, and stored when it can be.
my $held = enqueue($node, target('/status/419') . ", key => 'held', backoff => 'fixed 100ms', max_attempts => 2");
wait_for(sub { slurp_file($node->logfile) =~ /attempt 1 of task $held cannot be recorded: division by zero/ },
	'the log tells what cannot be recorded');
my $after = enqueue($node, target('/ok'));
wait_state($node, $after, 'succeeded', description => 'other tasks go on');
is(facts($held), '', 'nothing of it is stored');
is(scalar $receiver->ledger('held'), 1, 'it is not sent again');
poison('lift');
wait_state($node, $held, 'dead', description => 'it goes on when it can be recorded');
# (the poison may go between the two tries of the first attempt)
like(facts($held), qr/^1\|failed\|419\|(\|f\|t|could not be recorded: .*\|f\|f)\n2\|failed\|419\|\|t\|t$/,
	'both attempts are recorded, with what they were');
is(scalar $receiver->ledger('held'), 2, 'and no other was made');

# An attempt that is in the store already counts as recorded.
my $twice = enqueue($node, target('/delay/3000') . ", key => 'twice'");
wait_state($node, $twice, 'running');
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.attempt (leaf, attempt_no, task_id, lane_hash, finished_at, duration_us, scene_id, outcome)
SELECT leaf, 1, id, lane_hash, now(), 0, scene_id, 'succeeded' FROM retry.task WHERE id = '$twice'
SQL
wait_sql($node, "SELECT count(*) FROM retry.running WHERE id = '$twice'",
	'an attempt that is in the store already is let go', expected => '0');
$after = enqueue($node, target('/ok'));
wait_state($node, $after, 'succeeded');
is(facts($twice), '1|succeeded|||t|f', 'the row that was there stays');
is(scalar $receiver->ledger('twice'), 1, 'it was sent once');

# The same for a dead letter: the attempt is recorded without a second one.
my $letter = enqueue($node, target('/delay/4500?status=410') . ", key => 'letter', max_attempts => 1, timeout => '3 s'");
wait_state($node, $letter, 'running');
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.dead_letter
SELECT t.*, 'rejected', now(), 1, NULL, 'by hand', NULL FROM retry.task t WHERE id = '$letter'
SQL
wait_sql($node, "SELECT count(*) FROM retry.attempt WHERE task_id = '$letter'",
	'the attempt is recorded', expected => '1');
like(facts($letter), qr/^1\|failed\|\|timeout: no answer within 3 s\|t\|f$/, '... in full');
is($node->safe_psql('postgres', "SELECT reason, error FROM retry.dead_letter WHERE id = '$letter'"),
	'rejected|by hand', 'the dead letter that was there stays');

# Tables that somebody has locked: attempts wait, and are not made again.
foreach my $table ('attempt', 'dead_letter')
{
	my $key = "locked-$table";
	$node->safe_psql('postgres', "UPDATE retry.scene SET paused = true WHERE name = 'default'");
	my $id = enqueue($node, target('/status/422') . ", key => '$key'");
	my $leaf = $node->safe_psql('postgres', "SELECT to_char(leaf, 'FM00') FROM retry.task WHERE id = '$id'");
	my $name = $table eq 'attempt' ? "attempt_$leaf" : $table;
	my $holder = session($node);

	# the lock that lets a task be read and its attempt not be written
	$holder->query_safe('BEGIN');
	$holder->query_safe("LOCK TABLE retry.$name IN SHARE MODE");
	$node->safe_psql('postgres', "UPDATE retry.scene SET paused = false WHERE name = 'default'");
	wait_for(sub { scalar($receiver->ledger($key)) == 1 }, "retry.$name is locked: the task is sent");
	if ($table eq 'dead_letter')
	{
		$after = enqueue($node, target('/ok'));
		wait_state($node, $after, 'succeeded', description => '... others are recorded');
	}
	is(facts($id), '', '... nothing is recorded');
	$holder->query_safe('COMMIT');
	$holder->quit;
	wait_state($node, $id, 'dead', description => '... until the lock is released');
	is(scalar $receiver->ledger($key), 1, '... and it was sent once');
	is($node->safe_psql('postgres', "SELECT count(*) FROM retry.dead_letter WHERE id = '$id'"),
		'1', '... and has its dead letter');
}

# Whatever became of them: numbers without gaps, a dead letter for each dead task.
is($node->safe_psql('postgres', <<'SQL'), '0|0', 'the facts hold together');
SELECT (SELECT count(*) FROM (SELECT task_id, max(attempt_no) <> count(*) AS bad FROM retry.attempt GROUP BY 1) a WHERE bad),
	(SELECT count(*) FROM retry.attempt a LEFT JOIN retry.dead_letter d ON d.id = a.task_id
	 WHERE a.next_due IS NULL AND (a.outcome <> 'succeeded') <> (d.id IS NOT NULL))
SQL

$node->stop;
done_testing();
