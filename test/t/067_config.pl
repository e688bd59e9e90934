# Groups and scenes while they are at work: a change counts for the next attempt
# of every task from its commit on, for nobody before; a paused scene's backlog
# is resumed little by little; a scene is archived, renamed, and goes.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => "retry.poll_interval = '10 s'");
hold_nothing($node);
my $receiver = start_endpoint();
my $ok = $receiver->url('/ok');

sub sql { return ask($node, $_[0]); }

sub set
{
	my ($name, $change) = @_;

	sql("UPDATE retry.scene SET $change WHERE group_name = 'default' AND name = '$name'");
	return;
}

# What the receiver was asked with this key, as "attempt path method".
sub seen
{
	my ($key) = @_;

	return join(', ', map { "$_->{attempt} $_->{method} $_->{path}" } $receiver->ledger($key));
}

# ------------------------------------------------------------ live edits
#
# A task whose first attempt has failed waits for its second.  The scene is
# changed, first in a transaction that is not committed, then in one that is
# rolled back, then for good; each time the task is run, and what the receiver
# gets, or what is recorded, is of the old or the new scene.

# Each: column, its old and new value, and a query on the second attempt.
my $bad = $receiver->url('/status/500');
my @columns = (
	[ 'url', "'$bad'", "'" . $receiver->url('/status/503') . "'", "SELECT http_status", 500, 503 ],
	[ 'method', "'POST'", "'PUT'", undef, 'POST', 'PUT' ],
	[ 'headers', "NULL", "'{\"X-Edited\": \"yes\"}'", "SELECT convert_from(response, 'UTF8') ~* 'x-edited'", 'f', 't' ],
	[ 'timeout', "'30 s'", "'150 ms'", "SELECT outcome = 'failed' AND http_status IS NULL AND error ~ '150 ms'", 'f', 't' ],
	[ 'backoff', "'fixed 1h'", "'fixed 2h'", "SELECT round(extract(epoch FROM next_due - finished_at) / 3600)", 1, 2 ],
	[ 'max_attempts', 100, 1, "SELECT next_due IS NULL", 'f', 't' ],
	[ 'expires_after', 'NULL', "'1 ms'", "SELECT outcome", 'failed', 'expired' ],
);

foreach my $case (@columns)
{
	my ($column, $old, $new, $query, $before, $after) = @$case;
	my $url = $column eq 'headers' ? $receiver->url('/echo?status=500')
	  : $column eq 'timeout' ? $receiver->url('/delay/400?status=500') : $bad;
	sql("INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES ('default', 'edit-$column', '$url', 'fixed 1h', 100)");
	set("edit-$column", "$column = $old");

	my $attempt = 1;
	my $id = enqueue($node, "'edit-$column', '{}', key => '$column'");
	wait_sql($node, "SELECT attempts FROM retry.tasks WHERE id = '$id'", "$column: tried once", expected => 1);
	my $next = sub {
		my ($what, $expected) = @_;
		$attempt++;
		sql("SELECT retry.run_now('$id')");
		wait_sql($node, "SELECT count(*) FROM retry.attempts WHERE task_id = '$id'", "$column: $what: tried again", expected => $attempt);
		my $got = defined $query
		  ? sql("$query FROM retry.attempts WHERE task_id = '$id' AND attempt_no = $attempt")
		  : ($receiver->ledger($column))[-1]{method};
		is($got, $expected, "$column: $what");
	};

	my $editor = session($node);
	$editor->query_safe('BEGIN');
	$editor->query_safe("UPDATE retry.scene SET $column = $new WHERE name = 'edit-$column'");
	others_go_on($node, $receiver, $column);
	$next->('not committed', $before);
	$editor->query_safe('ROLLBACK');
	others_go_on($node, $receiver, $column);
	$next->('rolled back', $before);
	$editor->query_safe('BEGIN');
	$editor->query_safe("UPDATE retry.scene SET $column = $new WHERE name = 'edit-$column'");
	$editor->query_safe('COMMIT');
	$next->('committed', $after);
	$editor->quit;
}

# Without anybody asking for it: the next attempt of each task that waits.
sql("INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES ('default', 'live', '$bad', 'fixed 300ms', 1000)");
sql("SELECT count(retry.enqueue('live', '{}', key => 'live-' || n)) FROM generate_series(1, 20) n");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/live' AND attempts > 0", 'all were tried', expected => 20);
set('live', "url = '$ok/live'");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/live' AND state = 'succeeded'",
	'and all go to the new URL', expected => 20);

# ------------------------------------------------------------ pause and resume

my $paused = start_endpoint();

sub backlog
{
	my ($scene, $count, $lanes) = @_;

	sql("SELECT count(retry.enqueue('$scene', '{}', key => '$scene' || n, lane => 'l' || n % $lanes)) FROM generate_series(1, $count) n");
	return;
}

# How many signals each of ten parts of the interval has, and of how many tasks.
sub spread_of
{
	my ($what, $over, $where) = @_;

	return sql(<<"SQL");
SELECT string_agg(n::text, ' ' ORDER BY part) || ' of ' || sum(n)
FROM (SELECT floor(extract(epoch FROM g.due_at - s.resumed_at) * 10 / extract(epoch FROM interval '$over')) AS part, count(*) AS n
	FROM retry.signal g JOIN retry.task t ON t.leaf = g.leaf AND t.id = g.task_id
		JOIN (SELECT s.id, greatest(s.resumed_at, g.resumed_at) AS resumed_at FROM retry.scene s JOIN retry.scene_group g ON g.name = s.group_name) s ON s.id = t.scene_id
	WHERE g.action = 'r' AND g.due_at >= s.resumed_at AND t.scene_id IN (SELECT id FROM retry.scene WHERE $where) GROUP BY 1) x
SQL
}

sql("INSERT INTO retry.scene (group_name, name, url, paused, resume_over) VALUES ('default', 'spread', '" . $paused->url('/ok/spread') . "', true, '1 h')");
backlog('spread', 100, 30);
my $later = enqueue($node, "'spread', '{}', key => 'later', delay => '2 h'");
my $asked = enqueue($node, "'spread', '{}', key => 'asked', delay => '2 h'");
sql("SELECT retry.run_now('$asked')");
others_go_on($node, $receiver, 'paused');
is($paused->stats->{total}, 0, 'paused: nothing is sent');
set('spread', 'paused = false');
is(spread_of('scene', '1 h', "name = 'spread'"), '11 10 10 10 10 10 10 10 10 10 of 101',
	'resumed over an hour: all that was due is spread evenly, and what is not due is left alone');
# the first is due at once, the others in their time
wait_for(sub { $paused->stats->{total} >= 1 }, 'the first goes at once');
others_go_on($node, $receiver, 'spreading');
is($paused->stats->{distinct}, 1, 'and no other');
my $fresh = enqueue($node, "'spread', '{}', key => 'fresh'");
wait_state($node, $fresh, 'succeeded', description => 'what is enqueued after goes at once');

# After a restart, clean or not, it goes on like that.
foreach my $how (qw(fast immediate))
{
	$node->stop($how);
	$node->start;
	others_go_on($node, $receiver, "$how restart");
	sql('SELECT 1');
	others_go_on($node, $receiver, "$how restart");
	is($paused->stats->{distinct}, 2, "$how restart: the others still wait for their time");
}

# Another change does not matter; paused and resumed again, it begins anew.
set('spread', "description = 'x'");
others_go_on($node, $receiver, 'changed');
is($paused->stats->{distinct}, 2, 'another change: the others still wait');
set('spread', 'paused = true');
others_go_on($node, $receiver, 'paused again');
set('spread', "resume_over = '2 h', paused = false");
is(spread_of('scene', '2 h', "name = 'spread' AND resume_over = '2 h'") =~ /of (\d+)/ && $1 >= 99, 1, 'paused again and resumed: spread anew');
others_go_on($node, $receiver, 'resumed again');
cmp_ok($paused->stats->{distinct}, '<=', 3, 'and only the first of that goes at once');

# With no more time to spread it over, everything goes.
set('spread', 'resume_over = NULL');
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/spread' AND state = 'succeeded'",
	'resume_over taken away: all that is due goes', expected => 102);
is($paused->stats->{total}, 102, 'each once');
is(sql("SELECT state FROM retry.tasks WHERE id = '$later'"), 'pending', 'and what is not due waits');

# A whole one, in seconds: nothing is lost, and a straggler, which no signal
# could be written for, goes when the time is over.
$paused->reset;
sql("INSERT INTO retry.scene (group_name, name, url, paused, resume_over) VALUES ('default', 'quick', '" . $paused->url('/ok/quick') . "', true, '3 s')");
my $straggler = session($node);
$straggler->query_safe('BEGIN');
$straggler->query_safe("SELECT retry.enqueue('quick', '{}', key => 'straggler')");
backlog('quick', 300, 5);
others_go_on($node, $receiver, 'quick');
set('quick', 'paused = false');
$straggler->query_safe('COMMIT');
$straggler->quit;
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/quick' AND state = 'succeeded'",
	'resumed over 3 s: all succeed', expected => 301);
is($paused->stats->{total}, 301, 'each once');
is( sql("SELECT count(*) FROM retry.attempts a, retry.signal g, retry.scene s WHERE s.name = 'quick' AND a.scene = 'default/quick' AND g.task_id = a.task_id AND a.started_at < g.due_at"),
	0, 'none before its time');
is( sql("SELECT a.started_at >= s.resumed_at + s.resume_over FROM retry.attempts a JOIN retry.tasks t ON t.id = a.task_id, retry.scene s WHERE s.name = 'quick' AND t.key = 'straggler'"),
	't', 'the straggler when the time was over');

# Without resume_over: at once, and nothing is written.
$paused->reset;
sql("INSERT INTO retry.scene (group_name, name, url, paused) VALUES ('default', 'atonce', '" . $paused->url('/ok/atonce') . "', true)");
backlog('atonce', 100, 3);
others_go_on($node, $receiver, 'at once');
set('atonce', 'paused = false');
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/atonce' AND state = 'succeeded'", 'no resume_over: at once', expected => 100);
is(sql("SELECT count(*) FROM retry.signal WHERE task_id IN (SELECT id FROM retry.tasks WHERE scene = 'default/atonce')"), 0, 'and nothing is asked for');

# Tasks that were tried before, and a group with a scene that is itself paused.
$paused->reset;
sql(<<"SQL");
INSERT INTO retry.scene_group (name, owner, resume_over) VALUES ('shop', 'postgres', '1 h');
INSERT INTO retry.scene (group_name, name, url, backoff, paused) VALUES
	('shop', 'a', '${\$paused->url('/flaky/1')}', 'fixed 200ms', false),
	('shop', 'b', '${\$paused->url('/ok/b')}', 'fixed 200ms', false),
	('shop', 'c', '${\$paused->url('/ok/c')}', 'fixed 200ms', true);
SQL
sql("SELECT count(retry.enqueue('shop/a', '{}', key => 'a' || n)) FROM generate_series(1, 10) n");
wait_for(sub { $paused->stats->{distinct} >= 10 }, 'all were tried once');
sql("UPDATE retry.scene_group SET paused = true WHERE name = 'shop'");
sql("SELECT count(retry.enqueue('shop/b', '{}', key => 'b' || n)), count(retry.enqueue('shop/c', '{}', key => 'c' || n)) FROM generate_series(1, 10) n");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'shop/a' AND state = 'retrying' AND next_due > now()", 'their next attempts are due', expected => 0);
my $waiting = sql("SELECT count(*) FROM retry.tasks WHERE scene IN ('shop/a', 'shop/b') AND state IN ('pending', 'retrying')");
sql("UPDATE retry.scene_group SET paused = false WHERE name = 'shop'");
like(spread_of('group', '1 h', "group_name = 'shop'"), qr/^\d( \d){9} of $waiting$/, 'a group: its scenes that are not paused share the time evenly');
is(sql("SELECT count(*) FROM retry.signal g JOIN retry.tasks t ON t.id = g.task_id WHERE t.scene = 'shop/c'"), 0, 'nothing is asked for the one that is paused');
others_go_on($node, $receiver, 'group');
set_in_shop("paused = false");
others_go_on($node, $receiver, 'group');
is( sql("SELECT count(*) || ' ' || bool_and(s.due_at >= g.resumed_at AND s.due_at < g.resumed_at + g.resume_over) || ' ' || (max(s.due_at) - min(s.due_at) BETWEEN '50 min' AND '56 min') FROM retry.signal s JOIN retry.tasks t ON t.id = s.task_id, retry.scene_group g WHERE t.scene = 'shop/c' AND g.name = 'shop'"),
	'10 true true', 'resumed too, it takes what is left of the time');
cmp_ok(scalar(grep { $_->{path} =~ m{^/ok/c} } $paused->ledger), '<=', 1, 'and the others of its tasks wait');
sql("UPDATE retry.scene_group SET resume_over = '0' WHERE name = 'shop'");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene LIKE 'shop/%' AND state = 'succeeded'", 'and in the end all are sent', expected => 30);

sub set_in_shop
{
	sql("UPDATE retry.scene SET $_[0] WHERE group_name = 'shop' AND name = 'c'");
	return;
}

# ------------------------------------------------------------ archived, renamed, gone

my $id;
sql("INSERT INTO retry.scene (group_name, name, url, backoff) VALUES ('shop', 'old', '$bad', 'fixed 1h'), ('shop', 'kept', '$ok', 'fixed 1h')");
$id = enqueue($node, "'shop/old', '{}', key => 'old'");
wait_state($node, $id, 'retrying');
sql("DELETE FROM retry.scene WHERE name = 'old'");
sql_fails($node, "SELECT retry.enqueue('shop/old')", '55000', 'archived', 'an archived scene takes no new tasks');
sql("UPDATE retry.scene SET url = '$ok/old' WHERE name = 'old'");
sql("UPDATE retry.scene_group SET name = 'store' WHERE name = 'shop'");
sql("UPDATE retry.scene SET name = 'older' WHERE name = 'old'");
sql("SELECT retry.run_now('$id')");
wait_state($node, $id, 'succeeded', description => 'it serves the old, under whatever name');
is(sql("SELECT scene FROM retry.tasks WHERE id = '$id'"), 'store/older', 'which shows its new name');
my $renamed = enqueue($node, "'store/a', '{}', key => 'renamed'");
wait_state($node, $renamed, 'succeeded', description => 'new tasks go by the new name');
sql_fails($node, "DELETE FROM retry.scene_group WHERE name = 'store'", '2BP01', 'store.*older', 'a group with scenes is not deleted');
sql("UPDATE retry.scene SET archived = true WHERE name = 'kept'");
sql("CALL retry.maintain()");
is(sql("SELECT string_agg(name, ' ' ORDER BY name) FROM retry.scene WHERE archived"), 'kept older', 'upkeep leaves both while there is a task');
sql("DELETE FROM retry.scene WHERE group_name = 'store' AND name <> 'kept'");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE state IN ('pending', 'retrying', 'running') AND scene LIKE 'store/%'", 'nothing is left to do', expected => 0);
sql('SELECT retry.cancel_where()');
sql("SELECT retry.purge('infinity')");
wait_for(
	sub {
		sql("CALL retry.maintain()");
		sql("SELECT string_agg(name, ' ' ORDER BY name) FROM retry.scene WHERE group_name = 'store'") eq 'kept';
	},
	'upkeep removes those that were deleted, once nothing refers to them; the one that was only archived stays',
	diag => sub { sql("SELECT name, archived, deleted_at, xmin, (SELECT count(*) FROM retry.task t WHERE t.scene_id = s.id), (SELECT count(*) FROM retry.key k WHERE k.scene_id = s.id) FROM retry.scene s") });
sql("DELETE FROM retry.scene WHERE name = 'kept'");
sql("DELETE FROM retry.scene_group WHERE name = 'store'");
is(sql("SELECT count(*) FROM retry.scene_group"), 1, 'and then the group can go');

# A task that is not committed yet is one, too.
sql("INSERT INTO retry.scene (group_name, name, url) VALUES ('default', 'open', '$ok/open')");
my $open = session($node);
$open->query_safe('BEGIN');
$id = $open->query_safe("SELECT retry.enqueue('open')");
sql("DELETE FROM retry.scene WHERE name = 'open'");
$open->query_safe('COMMIT');
$open->quit;
wait_state($node, $id, 'succeeded', description => 'a scene deleted while a task of it is being stored serves that task');

# ------------------------------------------------------------ documents

# An import that changes nothing is no change, also for dispatchers.
my $doc = sql('SELECT retry.export_config()');
is(sql("SELECT count(*) FROM retry.import_config('" . ($doc =~ s/'/''/gr) . "') WHERE change <> 'left'"), 0, 'an export imports without a change');
is(sql("SELECT retry.export_config() = '" . ($doc =~ s/'/''/gr) . "'"), 't', 'and is the same after');
sql("SELECT retry.import_config('{\"retry\": \"1.0\", \"groups\": [{\"name\": \"new\", \"scenes\": [{\"name\": \"s\", \"url\": \"$ok/imported\"}]}]}')");
$id = enqueue($node, "'new/s'");
wait_state($node, $id, 'succeeded', description => 'what was imported is at work');

$node->stop;
done_testing();
