# Single lanes, seen and told: overrides act at once, on lanes in memory and on
# those to come, and survive a restart.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main');
my $receiver = start_endpoint();
my $other = start_endpoint();
my $lane = $receiver->url('');
$lane =~ s{/$}{};

sub sql { return ask($node, $_[0]) }

sub enqueue_n
{
	my ($url, $n, $more) = @_;
	return split /\n/, sql("SELECT retry.enqueue('$url', to_jsonb(i)" . ($more // '') . ") FROM generate_series(1, $n) i");
}

sub events
{
	my ($where) = @_;
	return sql("SELECT string_agg(kind, ', ' ORDER BY at) FROM retry.events WHERE $where");
}

sub states
{
	return sql("SELECT string_agg(n, ', ' ORDER BY n) FROM (SELECT state || ' ' || count(*) FROM retry.tasks WHERE $_[0] GROUP BY state) x (n)");
}

is(sql("SELECT retry.origin('" . $receiver->url('/ok/1') . "')"), $lane, 'the name of the lane');

# Paused before it exists: nothing is sent, and others go on.
sql("INSERT INTO retry.lane_override (lane, paused) VALUES ('$lane', true)");
my ($first) = enqueue_n($receiver->url('/ok/a'), 20);
others_go_on($node, $other, 'a lane is paused');
is(states("lane = '$lane'"), 'pending 20', 'nothing of it was sent');
is($receiver->stats->{total}, 0, 'nothing has arrived');

# Resumed, it goes on at once.
sql("UPDATE retry.lane_override SET paused = false");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE lane = '$lane' AND state = 'succeeded'", 'all are sent when it is resumed', expected => '20');

# Paused while it has more than its queue holds, then resumed by deleting the row.
enqueue_n($receiver->url('/delay/100'), 200);
wait_sql($node, "SELECT count(*) > 0 FROM retry.tasks WHERE lane = '$lane' AND state = 'running'", 'it is sending');
sql("UPDATE retry.lane_override SET paused = true");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE lane = '$lane' AND state = 'running'", 'what was under way ends', expected => '0');
my $before = states("lane = '$lane'");
others_go_on($node, $other, 'a lane is paused while it sends');
is(states("lane = '$lane'"), $before, 'no more of it was sent');
$node->restart;
others_go_on($node, $other, 'it is paused across a restart');
is(states("lane = '$lane'"), $before, 'nor after a restart');
sql("DELETE FROM retry.lane_override");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE lane = '$lane' AND state = 'succeeded'", 'the rest is sent when the override is deleted', expected => '220');

# Its limit, up while it is full, and down again.
sql("INSERT INTO retry.lane_override (lane, max_in_flight) VALUES ('$lane', 1)");
my @slow = enqueue_n($receiver->url('/hang'), 8, ", timeout => '20 s', max_attempts => 1");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE lane = '$lane' AND state = 'running'", 'one at a time', expected => '1');
others_go_on($node, $other, 'a lane with a limit of one');
is(sql("SELECT count(*) FROM retry.tasks WHERE lane = '$lane' AND state = 'running'"), '1', 'still one at a time');
sql("UPDATE retry.lane_override SET max_in_flight = 3");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE lane = '$lane' AND state = 'running'", 'three at a time, while the first one hangs', expected => '3');
sql("DELETE FROM retry.lane_override");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE lane = '$lane' AND state = 'running'", 'all without the override', expected => '8');

# Disabled: what becomes due dies, whole, and can be replayed.
sql("INSERT INTO retry.lane_override (lane, disabled) VALUES ('$lane', true)");
my $arrived = $receiver->stats->{total};
my ($dead) = enqueue_n($receiver->url('/ok/dead'), 50);
wait_sql($node, "SELECT count(*) FROM retry.dead_letters WHERE lane = '$lane' AND reason = 'blocked'", 'what becomes due dies', expected => '50');
is(sql("SELECT outcome || ' ' || error FROM retry.attempts WHERE task_id = '$dead'"), 'blocked its lane is disabled', 'its attempt says why');
is($receiver->stats->{total}, $arrived, 'nothing of it has arrived');
sql("UPDATE retry.lane_override SET disabled = false");
is(sql("SELECT retry.replay_dead(reason => 'blocked')"), '50', 'they are replayed');
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE replay_of IS NOT NULL AND state = 'succeeded'", 'and sent', expected => '50');

# A scene's own lane, by its name; other groups have other lanes of that name.
sql(<<"SQL");
INSERT INTO retry.scene_group (name) VALUES ('shop'), ('bank');
INSERT INTO retry.scene (group_name, name, url, max_in_flight) VALUES
	('shop', 'order', '@{[ $receiver->url('/ok/shop') ]}', 2), ('bank', 'order', '@{[ $receiver->url('/ok/bank') ]}', 2);
INSERT INTO retry.lane_override (group_name, lane, paused) VALUES ('shop', 'order', true), ('shop', 'tenant 7', true);
SQL
my $shop = enqueue($node, "'shop/order'");
my $tenant = enqueue($node, "'shop/order', lane => 'tenant 7'");
my $bank = enqueue($node, "'bank/order'");
wait_state($node, $bank, 'succeeded', description => 'the lane of that name in another group goes on');
is(states("id IN ('$shop', '$tenant')"), 'pending 2', 'a scene\'s own lane and a named one are paused');
sql("DELETE FROM retry.lane_override WHERE lane = 'order'");
wait_state($node, $shop, 'succeeded');
is(states("id = '$tenant'"), 'pending 1', 'each for itself');
sql("DELETE FROM retry.lane_override");
wait_state($node, $tenant, 'succeeded');

# While a session has the table locked, delivery goes on with what was read;
# the view waits, as any query of the table does.
sql("INSERT INTO retry.lane_override (lane, paused) VALUES ('$lane', true)");
my $held = enqueue($node, "'" . $receiver->url('/ok/held') . "'");
others_go_on($node, $other, 'it is paused again');
my $locker = session($node);
$locker->query_safe('BEGIN');
$locker->query_safe('LOCK TABLE retry.lane_override');
$locker->query_safe("UPDATE retry.scene SET description = 'changed' WHERE name = 'order'");
$locker->query_safe('SAVEPOINT a');
sql("UPDATE retry.scene SET description = 'x' WHERE group_name = 'default'");
my $there = $other->stats->{total};
my $here = $receiver->stats->{total};
enqueue($node, "'" . $other->url('/ok/locked') . "'");
wait_for(sub { $other->stats->{total} > $there }, 'the table is locked: others go on');
is($receiver->stats->{total}, $here, 'the lane is still paused');
$locker->query_safe('DELETE FROM retry.lane_override');
$locker->query_safe('COMMIT');
$locker->quit;
wait_state($node, $held, 'succeeded');

is(events("group_name = 'default' AND kind ^@ 'lane '"),
	'lane paused, lane resumed, lane paused, lane resumed, lane disabled, lane enabled, lane paused, lane resumed',
	'what was done to lanes is noted');

# What is seen of lanes: a working one, a refusing one, a slow one, an angry one.
sub lane_is
{
	my ($name, $expression, $description, $expected) = @_;
	wait_sql($node, "SELECT $expression FROM retry.lanes WHERE lane = '$name'", $description, expected => $expected // 't');
}

sql("INSERT INTO retry.scene (name, url, max_attempts, backoff, breaker_ratio) VALUES ('angry', '@{[ $receiver->url('/status/500') ]}', 1, 'fixed 1h', NULL)");
sql("SELECT retry.enqueue('" . $receiver->url('/delay/20') . "', lane => 'works') FROM generate_series(1, 50)");
lane_is('works', "(attempts, network, timeout, http_5xx, http_4xx, throttled, other) = (50, 0, 0, 0, 0, 0, 0)", 'attempts are counted');
lane_is('works', "p50 BETWEEN '15 ms' AND '10 s' AND p95 >= p50 AND p99 >= p95", 'and timed');
lane_is('works', "rate > 0 AND in_flight = 0 AND queued = 0 AND due = 0 AND oldest_due IS NULL AND last_status = 200 AND last_error IS NULL AND last_at > now() - interval '1 min'", 'all of it is done');
lane_is('works', "group_name || ' ' || state || ' ' || breaker || ' ' || limit_now || ' ' || weight", 'what it is', 'default idle closed 32 1');

sql("SELECT retry.enqueue('http://127.0.0.1:1/', lane => 'refuses', max_attempts => 1) FROM generate_series(1, 3)");
lane_is('refuses', "network || ' ' || last_error", 'no answer', '3 connect: connection refused');
sql("SELECT retry.enqueue('" . $receiver->url('/hang') . "', lane => 'hangs', timeout => '300 ms', max_attempts => 1)");
lane_is('hangs', 'timeout', 'none in time', '1');
sql("SELECT retry.enqueue('angry', lane => 'angry'), retry.enqueue('angry', lane => 'angry', url => '" . $receiver->url('/status/404') . "'), retry.enqueue('angry', lane => 'angry', url => '" . $receiver->url('/status/429') . "')");
lane_is('angry', "http_5xx || ' ' || http_4xx || ' ' || throttled", 'answers', '1 1 1');
sql("INSERT INTO retry.lane_override (lane, disabled) VALUES ('refused', true)");
sql("SELECT retry.enqueue('angry', lane => 'refused')");
lane_is('refused', "other || ' ' || state || ' ' || disabled || ' ' || overridden", 'what was not sent', '1 disabled true true');

# A breaker that opens; a backlog on disk that is estimated, and survives a restart.
sql("SELECT retry.enqueue('http://127.0.0.1:1/', lane => 'down') FROM generate_series(1, 2000)");
lane_is('down', "breaker <> 'closed' AND breaker_since IS NOT NULL AND state IN ('breaker', 'half-open')", 'a breaker that opens');
lane_is('down', "due + queued BETWEEN 1000 AND 2100 AND oldest_due < now()", 'what waits is estimated');
sql("INSERT INTO retry.lane_override (lane, paused) VALUES ('down', true)");
lane_is('down', 'state', 'paused', 'paused');
$node->restart;
lane_is('down', "state || ' ' || (due + queued BETWEEN 1000 AND 2100)", 'known after a restart', 'paused true');
sql("DELETE FROM retry.lane_override");

# Hanging requests fill a lane; the rest waits for its end.
sql("SELECT retry.enqueue('" . $receiver->url('/hang') . "', lane => 'full', timeout => '20 s', max_attempts => 1) FROM generate_series(1, 100)");
lane_is('full', "state || ' ' || in_flight", 'a lane that is full', 'full 32');
lane_is('full', 'queued + due', 'and what waits behind', '68');

# Each sees its own.
sql(<<'SQL');
CREATE ROLE shop_owner LOGIN;
UPDATE retry.scene_group SET owner = 'shop_owner' WHERE name = 'shop';
SELECT retry.enqueue('shop/order'), retry.enqueue('bank/order');
SQL
wait_sql($node, "SELECT count(*) FROM retry.lanes WHERE lane = 'order'", 'two lanes of one name', expected => '2');
is(sql("SET ROLE shop_owner; SELECT string_agg(DISTINCT group_name, ' ') FROM retry.lanes"), 'shop', 'a tenant sees its own lanes');
is(sql("SET ROLE pg_monitor; SELECT count(DISTINCT group_name) FROM retry.lanes"), '3', 'who monitors sees all');

# A dispatcher is killed while its lanes are read again and again.
my $reader = $node->background_psql('postgres', on_error_stop => 0);
my ($pid) = sql('SELECT pid FROM retry.dispatchers');
$reader->query_until(qr/begun/, "\\echo begun\nDO \$\$ BEGIN FOR i IN 1..300 LOOP PERFORM count(*) FROM retry.lanes; END LOOP; END \$\$;\n");
sql("SELECT pg_terminate_backend($pid)");
wait_sql($node, "SELECT count(*) FROM retry.dispatchers WHERE pid <> $pid", 'another dispatcher', expected => '1');
is($reader->query_safe('SELECT count(*) >= 0 FROM retry.lanes'), 't', 'the reader met no error');
$reader->quit;

# Two dispatchers show their lanes each; few lanes fit, the others are forgotten.
sql("ALTER SYSTEM SET retry.dispatchers = 2");
sql("ALTER SYSTEM SET retry.max_lanes = 64");
$node->restart;
sql("SELECT retry.enqueue('" . $receiver->url('/ok') . "', lane => 'many ' || i) FROM generate_series(1, 500) i");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE lane LIKE 'many %' AND state = 'succeeded'", 'more lanes than fit', expected => '500');
is(sql("SELECT count(*) BETWEEN 1 AND 2 * 64 AND count(*) = count(DISTINCT lane_hash) FROM retry.lanes"), 't', 'what is forgotten is not seen');
is(sql("SELECT count(DISTINCT dispatcher) FROM retry.lanes"), '2', 'both show theirs');

$node->stop;
done_testing();
