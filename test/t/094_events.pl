# What operators and applications are told of: NOTIFY of the ends of tasks, for
# scenes that want it, while no session that notifies holds up delivery; and
# retry.events.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

# commits wait for a standby that is not there, where a session wants that
my $node = new_node('main', streaming => 1, conf => "synchronous_standby_names = 'nobody'\nsynchronous_commit = local\nrestart_after_crash = on\n");
my $receiver = start_endpoint();
my $ok = $receiver->url('/ok');
my $bad = $receiver->url('/status/400');

sub sql
{
	return ask($node, $_[0]);
}

# ---- NOTIFY

sql(<<"SQL");
CREATE FUNCTION public.done(jsonb) RETURNS void LANGUAGE sql AS '';
INSERT INTO retry.scene_group (name) VALUES ('shop');
INSERT INTO retry.scene (group_name, name, url, notify) VALUES
	('shop', 'heard', '$ok', 'done'),
	('shop', 'dies', '$bad', 'done'),
	('shop', 'function', 'sql:public.done', 'Done, too'),
	('shop', 'retries', '@{[$receiver->url('/flaky/2')]}', 'done'),
	('shop', 'off', '$ok', NULL);
UPDATE retry.scene SET backoff = 'fixed 10ms';
SQL
my $listener = session($node);
my %heard;

# What the listener has heard so far: channel, scene and state, by task.
sub hear
{
	my $out = $listener->query_safe('SELECT 1');

	while ($out =~ /Asynchronous notification "(.*?)" with payload "(.*)" received/g)
	{
		my $told = decode_json($2);
		push @{ $heard{ $told->{id} } }, "$1: $told->{scene} $told->{state}";
	}
	return \%heard;
}

# Waits until it has heard of a task, and says how often and what.
sub hears
{
	my ($id, $expected, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_for(sub { hear()->{$id} }, "$description: heard");
	return is(join(', ', @{ $heard{$id} }), $expected, $description);
}

$listener->query_safe('LISTEN done; LISTEN "Done, too"');
my $group = q('shop/);
my $silent = enqueue($node, "${group}off', '{}'");
my @many = split /\n/, sql("SELECT * FROM retry.enqueue_many(${group}heard', array_fill('{}'::jsonb, ARRAY[200]))");
my ($dies, $function, $retries) = map { enqueue($node, "$group$_', '{}'") } qw(dies function retries);
wait_state($node, $silent, 'succeeded');
hears($dies, 'done: shop/dies dead', 'a dead letter');
hears($function, 'Done, too: shop/function succeeded', 'a function');
hears($retries, 'done: shop/retries succeeded', 'one that was tried three times, once');
hears($_, 'done: shop/heard succeeded', 'one of many') foreach @many[ 0, 199 ];
wait_for(sub { keys %{ hear() } == 203 }, 'all are heard of, where it is wanted');
is(scalar(grep { @$_ != 1 } values %heard), 0, 'each once');
ok(!$heard{$silent}, 'and none of where it is not');

# A session that notifies and waits in its commit for a standby has the lock that
# each NOTIFY needs: delivery goes on, and what is to be heard waits.
sub notifies_and_waits
{
	my $session = session($node);

	$session->query_until(qr/sent/, "\\echo sent\nBEGIN; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, '', ''); NOTIFY other; COMMIT;\n");
	return $session;
}
my $stuck = notifies_and_waits();
my $holds = "SELECT pid FROM pg_locks WHERE locktype = 'object' AND mode = 'AccessExclusiveLock' AND granted AND database = 0";
wait_sql($node, "SELECT count(*) FROM ($holds) AS h", 'a session that notifies holds the lock', expected => '1');
my $waits = enqueue($node, "${group}heard', '{}'");
wait_state($node, $waits, 'succeeded');
foreach my $n (1 .. 3)
{
	my $next = enqueue($node, "${group}off', '{}'");
	wait_state($node, $next, 'succeeded', description => "delivery goes on, $n");
}
ok(!hear()->{$waits}, 'nobody has heard of it yet');
is(sql("SELECT pg_cancel_backend(h.pid) FROM ($holds) AS h"), 't', 'the lock is let go');
hears($waits, 'done: shop/heard succeeded', 'and then it is heard of');
$stuck->quit;

sql(q(UPDATE retry.scene SET notify = NULL WHERE name = 'heard'));
my $after = enqueue($node, "${group}heard', '{}'");
wait_state($node, $after, 'succeeded');
my $last = enqueue($node, "${group}dies', '{}'");
hears($last, 'done: shop/dies dead', 'those that go on');
ok(!$heard{$after}, 'switched off');
$listener->quit;

sql_fails($node, q(UPDATE retry.scene SET notify = repeat('x', 64) WHERE name = 'heard'), '23514', 'notify', 'a channel that is too long');
sql_fails($node, q(UPDATE retry.scene SET notify = '' WHERE name = 'heard'), '23514', 'notify', 'and none');

# ---- events

# Waits until there are so many events of a kind, and says the last one's detail.
sub event
{
	my ($kind, $count, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_sql($node, "SELECT count(*) FROM retry.events WHERE kind = '$kind'", $description, expected => $count);
	return sql("SELECT detail FROM retry.events WHERE kind = '$kind' ORDER BY at DESC LIMIT 1");
}

# What was changed, in which scene and by whom, without the values.
sql("UPDATE retry.scene SET timeout = '7 s', description = 'secret' WHERE name = 'heard'");
is(sql("SELECT scene, detail = 'scene changed \"heard\": timeout, description, by role ' || session_user FROM retry.events WHERE kind = 'configuration changed' ORDER BY at DESC LIMIT 1"),
	'shop/heard|t', 'a change of a scene');
sql("BEGIN; UPDATE retry.scene_group SET paused = true WHERE name = 'shop'; ROLLBACK");
is(sql("SELECT count(*) FROM retry.events WHERE detail LIKE 'group changed%'"), '0', 'only if it is committed');

# An outage of many lanes does not fill the table.
sql("INSERT INTO retry.scene (group_name, name, url, max_attempts, breaker_calls) VALUES ('shop', 'outage', '" . $receiver->url('/status/500') . "', 1, 1)");
sql("SELECT count(retry.enqueue('shop/outage', '{}', lane => 'lane ' || n)) FROM generate_series(1, 1100) n");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'shop/outage' AND state = 'dead'", 'an outage in many lanes', expected => '1100');
wait_sql($node, "SELECT count(*) > 0 AND bool_and(detail ~ '^[0-9]+ events were too many to be kept\$') FROM retry.events WHERE kind = 'events dropped'",
	'some events of it are dropped, and counted');
is(sql("SELECT count(*) BETWEEN 1000 AND 1050 FROM retry.events WHERE kind = 'breaker opened'"), 't', 'the others are there');

# A part of upkeep that fails is told of once an hour, and seen in retry.health().
my $health = "SELECT status, detail ~ 'started by retry.maintain..; pg_cron is not in this database' FROM retry.health() WHERE check_name = 'upkeep'";
sql(<<'SQL');
CREATE FUNCTION public.fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no such luck'; END $$;
CREATE TRIGGER fails BEFORE DELETE ON retry.event FOR EACH STATEMENT EXECUTE FUNCTION public.fails();
CALL retry.maintain();
CALL retry.maintain();
SQL
is(event('upkeep failed', 1, 'upkeep fails'), 'events: no such luck', 'and says where and why');
is(sql("SELECT status FROM retry.health() WHERE check_name = 'upkeep'"), 'warning', 'as does retry.health()');
sql('DROP TRIGGER fails ON retry.event; CALL retry.maintain()');
is(sql($health), 'ok|t', 'until it is done again, which says by whom');

# Whatever of it a session has locked, upkeep goes round it, and enqueue and delivery go on meanwhile.
my $leaf = sql("SELECT to_char(leaf, 'FM00') FROM retry.task LIMIT 1");
my $holder = session($node);
foreach my $table ('dead_letter', 'event', 'audit_entry', 'schedule_run', 'consumed', 'stat_minute', 'stat_hour', 'count_change', 'purge_request',
	"attempt_$leaf", 'attempt_32', 'task_07')
{
	$holder->query_safe("BEGIN; LOCK TABLE retry.$table IN ACCESS EXCLUSIVE MODE");
	sql('CALL retry.maintain()');
	pass("upkeep goes round $table");
	enqueue($node, "'$ok', '{}', key => 'round-$table'");
	$holder->query_safe('ROLLBACK');
}
$holder->quit;
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE key LIKE 'round-%' AND state = 'succeeded'", 'what was enqueued meanwhile is delivered', expected => '12');

# Dispatchers that come and go, and one that crashes.
my ($pid) = workers($node, 'retry dispatcher');
is(event('dispatcher started', 1, 'one has started'), "process $pid", 'this one');
sql("SELECT pg_terminate_backend($pid)");
is(event('dispatcher stopped', 1, 'it stops'), "process $pid", 'in order');
event('dispatcher started', 2, 'another starts');
($pid) = workers($node, 'retry dispatcher');
sql('CHECKPOINT');		# events do not wait for their WAL, and a crash takes the last of them
kill('SEGV', $pid);
is(event('worker crashed', 1, 'it crashes'), 'a dispatcher, by signal 11, with 0 attempts under way', 'of which its successor tells');
event('dispatcher started', 3, 'it has started');
($pid) = workers($node, 'retry dispatcher');
sql("SELECT pg_terminate_backend($pid)");
event('dispatcher started', 4, 'one more starts');
event('worker crashed', 1, 'and tells nothing that is known');

# One that stops while others have the lock that NOTIFY needs does not wait for them, and says what it gives up.
$stuck = notifies_and_waits();
wait_sql($node, "SELECT count(*) FROM ($holds) AS h", 'a session that notifies holds the lock again', expected => '1');
wait_state($node, enqueue($node, "${group}dies', '{}'"), 'dead');
($pid) = workers($node, 'retry dispatcher');
sql("SELECT pg_terminate_backend($pid)");
is( event('not notified', 1, 'of which nobody is notified'),
	'of the ends of 1 tasks: others notify all the time, and the dispatcher stops', 'there is an event');
sql("SELECT pg_cancel_backend(h.pid) FROM ($holds) AS h");
$stuck->quit;

# Half of the server's queue is full: a dispatcher adds nothing to that.  Before 17 it has 8 GB.
SKIP:
{
	skip 'the queue of notifications has no limit that can be set', 5 if $node->pg_version < 17;
	$listener->quit;
	$node->append_conf('postgresql.conf', 'max_notify_queue_pages = 64');
	$node->restart;
	$listener = session($node);
	$listener->query_safe('LISTEN crowded');
	$listener->query_safe('BEGIN');
	$node->safe_psql('postgres', "SELECT pg_notify('crowded', i || repeat('x', 7900)) FROM generate_series(1, 40) i");
	is($node->safe_psql('postgres', 'SELECT pg_notification_queue_usage() BETWEEN 0.5 AND 0.9'), 't', 'the queue is more than half full');
	my $usage = $node->safe_psql('postgres', 'SELECT pg_notification_queue_usage()');
	wait_state($node, enqueue($node, "${group}dies', '{}'"), 'dead');
	like(event('not notified', 2, 'nobody is notified then'), qr/half full/, 'and the event says why');
	is($node->safe_psql('postgres', 'SELECT pg_notification_queue_usage()'), $usage, 'nothing was added');
	$listener->query_safe('COMMIT');
	$listener->quit;
}

$node->stop;
done_testing();
