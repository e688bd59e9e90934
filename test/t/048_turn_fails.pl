# A turn of the dispatcher that fails half-way, or finds a leaf locked when it has taken
# a task already, loses nothing: what it has read is read again.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main');
my $receiver = start_endpoint();
my $base = $receiver->url('');
$base =~ s{/$}{};

sub sql
{
	return ask($node, $_[0]);
}

# Does something while a table's file is away, so that the first dispatcher that
# wants to look into it fails; it is told to look anew.
sub with_error
{
	my ($table, $sub, $what) = @_;
	my $file = $node->data_dir . '/' . sql("SELECT pg_relation_filepath('$table')");
	my $log = -s $node->logfile;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	rename($file, "$file.away") or die "$file: $!";
	sql("ALTER TABLE $table SET (autovacuum_enabled = false)");
	my $result = $sub->();
	wait_for(sub { slurp_file($node->logfile, $log) =~ /ERROR:  could not open file/ }, "$what: a turn fails");
	rename("$file.away", $file) or die "$file: $!";
	others_go_on($node, $receiver, $what);
	return $result;
}

# While it looks at a row that has come: whether that task was cancelled.
my $id = sql("SELECT retry.enqueue('$base/ok', lane => 'a')");
wait_state($node, $id, 'succeeded');
my $signals = sql("SELECT tableoid::regclass FROM retry.task WHERE id = '$id'") =~ s/task/signal/r;
$id = with_error($signals, sub { sql("SELECT retry.enqueue('$base/ok', lane => 'a')") }, 'a row that has come');
wait_state($node, $id, 'succeeded', description => 'a task that was being looked at is sent');

# Between reading the configuration and doing as it says.
sql("INSERT INTO retry.scene (name, url, paused) VALUES ('resumed', '$base/ok', true)");
$id = sql("SELECT retry.enqueue('resumed')");
others_go_on($node, $receiver, 'paused');
with_error('retry.lane_override', sub { sql("UPDATE retry.scene SET paused = false WHERE name = 'resumed'") }, 'configuration');
wait_state($node, $id, 'succeeded', description => 'what a scene that was resumed had held is sent');

# Asked for before its next attempt was due, by a transaction that ends after; and
# when it is to be sent, its leaf is locked.
sql("INSERT INTO retry.scene (name, url, lane_by, breaker_calls, breaker_open, backoff, retry_share) VALUES ('given-back', '$base/flaky/1?fail=500', 'scene', 3, '10 s', 'fixed 4s', NULL)");
sql("SELECT count(retry.enqueue('given-back', '{}', key => i::text)) FROM generate_series(1, 3) i");
my $mine = "FROM retry.tasks WHERE scene = 'default/given-back'";
wait_sql($node, "SELECT count(*) $mine AND state = 'retrying'", 'a breaker opens', expected => '3');
my $user = session($node);
$user->query_safe('BEGIN');
is($user->query_safe("SELECT retry.run_now(id) $mine ORDER BY next_due, id LIMIT 1"), 't', 'the first is asked for');
sql("SELECT retry.enqueue('given-back', '{}', key => '4', url => '$base/ok')");
others_go_on($node, $receiver, 'another task');
is(sql("SELECT count(*) $mine AND state = 'retrying' AND next_due > clock_timestamp()"), 3, 'before it is due');
wait_sql($node, "SELECT count(*) $mine AND state = 'retrying' AND next_due < clock_timestamp()", 'all become due', expected => '3');
my $lane = "FROM retry.lanes WHERE lane = 'given-back'";
wait_sql($node, "SELECT queued > 1 $lane", 'and it is queued');
$user->query_safe('COMMIT');
others_go_on($node, $receiver, 'asked for');
is(sql("SELECT count(*) $mine AND state = 'retrying'"), 3, 'they wait for the breaker');
my $leaf = sql('SELECT tableoid::regclass FROM retry.task LIMIT 1');
$user->query_safe('BEGIN');
$user->query_safe("LOCK TABLE $leaf IN ACCESS EXCLUSIVE MODE");
wait_sql($node, "SELECT queued = 0 $lane", 'its time comes, and it is given back');
$user->query_safe('COMMIT');
$user->quit;
wait_sql($node, "SELECT count(*) $mine AND state = 'succeeded'", 'all are sent when the leaf can be read', expected => '4');

$node->stop;
done_testing();
