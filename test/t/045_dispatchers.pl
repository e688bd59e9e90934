# From one dispatcher to three and back, under load, with receivers that fail
# and one that hangs: lanes are handed over, and no attempt is made twice.
# Slow.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => <<'CONF');
retry.max_in_flight = 64
CONF
hold_nothing($node);
my $ledger = PostgreSQL::Test::Utils::tempdir . '/ledger';
my $receiver = start_endpoint(args => [ '--ledger', $ledger ]);

$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (group_name, name, url, backoff, timeout, max_attempts) VALUES
	('default', 'flaky', '${\$receiver->url('/flaky/2')}', 'random 50ms..500ms', '10 s', 10),
	('default', 'late', '${\$receiver->url('/flaky/1')}', 'random 1s..3s', '10 s', 10),
	('default', 'hangs', '${\$receiver->url('/hang')}', 'fixed 1s', '5 s', 2),
	('default', 'paused', '${\$receiver->url('/ok/paused')}', 'fixed 1s', '5 s', 2);
UPDATE retry.scene SET paused = true WHERE name = 'paused';
SQL

# Slots and who holds their locks: none may lack one, none may be held twice.
sub slots
{
	return $node->safe_psql('postgres', <<'SQL');
SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '') FROM (
	SELECT count(*) AS n FROM pg_locks
	WHERE locktype = 'advisory' AND classid = x'72657472'::int AND objsubid = 82 AND granted
	GROUP BY pid) locks
SQL
}

my $load = 0;

sub more_load
{
	$node->safe_psql('postgres', <<'SQL');
SELECT count(retry.enqueue('flaky', '{}', lane => 'f' || i % 100)) FROM generate_series(1, 2000) i;
SELECT count(retry.enqueue('late', '{}', lane => 't' || i % 100)) FROM generate_series(1, 500) i;
SELECT count(retry.enqueue('paused', '{}', lane => 'p' || i % 100)) FROM generate_series(1, 200) i;
SELECT count(retry.enqueue('hangs', '{}', lane => 'h' || i)) FROM generate_series(1, 2) i;
SQL
	$load++;
	return;
}

my %expected = (1 => '64', 2 => '32 32', 3 => '21 21 22');

wait_for(sub { slots() eq '64' }, 'one dispatcher has all slots');
more_load();
foreach my $count (3, 2, 3, 1)
{
	my $sent = $receiver->stats->{total};
	$node->safe_psql('postgres', "ALTER SYSTEM SET retry.dispatchers = $count");
	$node->reload;
	more_load();
	wait_for(sub { slots() eq $expected{$count} },
		"$count dispatchers share all slots",
		diag => sub { slots() . "\n" . RetryTest::picture($node, 'postgres') });
	wait_for(sub { $receiver->stats->{total} > $sent }, 'and go on');
}
# Tasks that wait, and nothing new: only checkpoints tell the next owner of them.
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts, breaker_ratio, retry_share) VALUES
	('default', 'waits', '${\$receiver->url('/flaky/1?wait')}', 'fixed 2s', 2, NULL, NULL);
SQL
my $waiting = 0;
foreach my $count (3, 2, 3, 2, 3, 2, 3, 1)
{
	$node->safe_psql('postgres',
		"SELECT count(retry.enqueue('waits', '{}', lane => 'w$waiting-' || i)) FROM generate_series(1, 100) i");
	$waiting += 100;
	wait_sql($node,
		"SELECT count(*) FROM retry.tasks WHERE scene = 'default/waits' AND state = 'pending'",
		"$waiting have been tried", expected => '0');
	$node->safe_psql('postgres', "ALTER SYSTEM SET retry.dispatchers = $count");
	$node->reload;
	wait_for(sub { slots() eq $expected{$count} }, "and $count dispatchers take them over");
}

# Once more without waiting for one change before the next.
foreach my $count (2, 3, 1, 2)
{
	$node->safe_psql('postgres', "ALTER SYSTEM SET retry.dispatchers = $count");
	$node->reload;
	more_load();
}
wait_for(sub { slots() eq '32 32' }, 'after quick changes two have all slots',
	diag => sub { slots() . "\n" . RetryTest::picture($node, 'postgres') });
$node->safe_psql('postgres', "UPDATE retry.scene SET paused = false WHERE name = 'paused'");

wait_sql($node,
	"SELECT count(*) FROM retry.tasks WHERE state NOT IN ('succeeded', 'dead')",
	'everything ends', expected => '0', timeout => 90);
is( $node->safe_psql(
		'postgres',
		"SELECT scene, state, attempts, count(*) FROM retry.tasks GROUP BY 1, 2, 3 ORDER BY 1"),
	join("\n",
		'default/flaky|succeeded|3|' . 2000 * $load,
		'default/hangs|dead|2|' . 2 * $load,
		'default/late|succeeded|2|' . 500 * $load,
		'default/paused|succeeded|1|' . 200 * $load,
		"default/waits|succeeded|2|$waiting"),
	'as it should');

my $seen = <<"SQL";
CREATE TEMP TABLE ledger (mono bigint, wall bigint, method text, path text, key text, attempt text, status int, len int);
COPY ledger FROM '$ledger';
SQL
$receiver->stop;
is( $node->safe_psql(
		'postgres',
		"$seen SELECT key, attempt, path, count(*) FROM ledger GROUP BY 1, 2, 3 HAVING count(*) > 1 LIMIT 5"),
	'', 'no attempt was made twice');
is($node->safe_psql('postgres', "$seen SELECT count(*) FROM ledger"),
	(3 * 2000 + 2 * 500 + 200 + 2 * 2) * $load + 2 * $waiting, 'and none is missing');

$node->stop;
done_testing();
