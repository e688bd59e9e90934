# retry.page() of what is pending or retrying, which goes by what the dispatchers
# wrote down: whatever it is that keeps tasks open behind that, they are found, as
# the view finds them.  (What pages are is in sql/page.sql.)
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => "retry.lane_max_in_flight = 1");
my $receiver = start_endpoint();

sub sql
{
	return ask($node, $_[0]);
}

# A scene that calls this path, in a group and a lane of its own: what keeps its tasks open keeps no others'.
sub scene
{
	my ($name, $path, %more) = @_;
	my %columns = (group_name => "'$name'", name => "'s'", url => "'" . $receiver->url($path) . "'", max_in_flight => 1, backoff => "'fixed 1s'", %more);
	my @names = sort keys %columns;

	sql("INSERT INTO retry.scene_group (name) VALUES ('$name')");
	sql('INSERT INTO retry.scene (' . join(', ', @names) . ') VALUES (' . join(', ', map { $columns{$_} } @names) . ')');
	return;
}

sub put
{
	my ($scene, $key) = @_;
	return enqueue($node, "'$scene/s', '{}', key => '$key'");
}

# One that is due later.
enqueue($node, "'" . $receiver->url('/ok') . "', '{}', key => 'later', delay => '1 day'");

# Passed over: its scene is paused, in a lane where others go on.
scene('goes', '/ok', max_in_flight => 'NULL');
sql("INSERT INTO retry.scene (group_name, name, url) VALUES ('goes', 'paused', '${\ $receiver->url('/ok') }')");
sql("UPDATE retry.scene SET paused = true WHERE name = 'paused'");
enqueue($node, "'goes/paused', '{}', key => 'paused'");
wait_state($node, put('goes', 'goes'), 'succeeded');

# Passed over: its URL has gone.
scene('gone', '/status/410');
wait_state($node, put('gone', 'gone'), 'dead');
put('gone', 'held');
wait_sql($node, "SELECT held FROM retry.disabled_urls WHERE scene = 'gone/s'", 'a task is held by its URL', expected => 1);

# Behind a dead task.
scene('ordered', '/status/400', ordered => 'true', dead_head => "'block'", stop_status => "'400'");
wait_state($node, put('ordered', 'dead'), 'dead');
put('ordered', 'behind');

# A lane that lags: all but the first wait for that, and one whose tasks have failed, and wait.
scene('hangs', '/hang', timeout => "'1 min'");
put('hangs', "hangs $_") foreach 1 .. 3;
wait_sql($node, "SELECT count(*) FROM retry.running WHERE scene = 'hangs/s'", 'an attempt hangs', expected => 1);
scene('fails', '/status/503', breaker_ratio => 'NULL', retry_share => 'NULL');
my $failed = put('fails', 'fails');
wait_sql($node, "SELECT count(*) > 0 FROM retry.attempts WHERE task_id = '$failed'", 'an attempt failed');
sql("INSERT INTO retry.lane_override (group_name, lane, paused) SELECT 'fails', lane, true FROM retry.tasks WHERE id = '$failed'");
wait_sql($node, "SELECT next_due < now() - interval '1.1 s' FROM retry.tasks WHERE id = '$failed' AND state = 'retrying'", 'its retry is overdue');
wait_state($node, put('goes', 'last'), 'succeeded', description => 'and the dispatcher has seen it so');

# What is open and was due before what the dispatchers have written down, but for lanes that lag; and the pages.
sub is_found
{
	my ($open, $pending, $retrying, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(sql("SELECT string_agg(key, ', ' ORDER BY key) FROM retry.tasks, (TABLE retry.checkpoint_a UNION ALL TABLE retry.checkpoint_b) c"
			. " WHERE state IN ('pending', 'retrying') AND next_due < low_water - interval '1 s'"
			. " AND taken_at = (SELECT max(taken_at) FROM (TABLE retry.checkpoint_a UNION ALL TABLE retry.checkpoint_b) x)"),
		$open, "$what lies behind what was written down");
	is(sql("SELECT string_agg(key, ', ' ORDER BY key) FROM retry.page('pending')"), $pending, '... and all that is pending is found');
	is(sql("SELECT string_agg(key, ', ' ORDER BY key) FROM retry.page('retrying')"), $retrying, '... and all that is retrying');
	return;
}

# The dispatchers write it down when they stop, and do nothing from then on.
$node->stop;
$node->append_conf('postgresql.conf', 'retry.enabled = off');
$node->start;
is_found('behind, fails, hangs 1, hangs 2, hangs 3, held, paused', 'behind, hangs 1, hangs 2, hangs 3, held, later, paused', 'fails',
	'what is held, or lags,');

# Not seen: its transaction goes on.
$node->append_conf('postgresql.conf', 'retry.enabled = on');
$node->restart;
scene('late', '/ok');
$node->safe_psql('postgres', "BEGIN; SELECT retry.enqueue('late/s', '{}', key => 'late'); PREPARE TRANSACTION 'late'");
my $then = sql("SELECT clock_timestamp() + interval '1.1 s'");
wait_sql($node, "SELECT clock_timestamp() > '$then'", 'it was enqueued a while ago');
wait_state($node, put('goes', 'after it'), 'succeeded');
$node->stop;
$node->append_conf('postgresql.conf', 'retry.enabled = off');
$node->start;
$node->safe_psql('postgres', "COMMIT PREPARED 'late'");
is_found('behind, fails, hangs 1, hangs 2, hangs 3, held, late, paused',
	'behind, hangs 1, hangs 2, hangs 3, held, late, later, paused', 'fails', 'what was not seen');

$node->stop;
done_testing();
