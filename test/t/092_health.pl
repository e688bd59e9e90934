# retry.health() of what takes hours to go wrong, on a clock that a test moves:
# upkeep that finds no worker slot, statistics that cannot be stored, a pause
# that was forgotten.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Clock;
use Test::More;

my $clock = RetryTest::Clock->new;
my $receiver = start_endpoint();
my $node = new_node('main', start => 0);

# one for logical replication, one for the launcher, one for the dispatcher
$node->append_conf('postgresql.conf', 'max_worker_processes = 3');
$clock->start($node);
$node->safe_psql('postgres', 'CREATE EXTENSION retry');

sub health_is
{
	my ($check, $status, $like, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_sql($node, "SELECT status || ' ' || (detail ~ '$like') || ' ' || (hint IS NOT NULL) FROM retry.health() WHERE check_name = '$check'",
		$description, expected => "$status true " . ($status eq 'ok' ? 'false' : 'true'));
}

my $url = $receiver->url('/ok');
$node->safe_psql('postgres', <<"SQL");
INSERT INTO retry.scene (name, url, paused) VALUES ('held', '$url', true);
SELECT retry.enqueue('held', '{}');
SQL
others_go_on($node, $receiver, 'at first');
health_is('upkeep', 'ok', 'not due yet', 'upkeep is not due yet');
health_is('statistics', 'ok', 'every minute', 'statistics are stored');
health_is('pauses', 'ok', 'no pause', 'a pause that has just begun');

my $holder = session($node);
$holder->query_safe('BEGIN');
$holder->query_safe('LOCK TABLE retry.stat_minute');
$clock->set(11 * 3600);
enqueue($node, "'$url'");
health_is('upkeep', 'warning', 'not done since', 'upkeep finds no slot');
health_is('statistics', 'warning', 'are not stored', 'somebody has the table locked');
health_is('pauses', 'ok', 'no pause', 'a pause of half a day');
others_go_on($node, $receiver, 'while statistics are locked');
$holder->query_safe('ROLLBACK');
$holder->quit;
health_is('statistics', 'ok', 'every minute', 'and has let it go');
$clock->set(25 * 3600);
health_is('pauses', 'warning', 'are due since', 'a pause that was forgotten');
$node->safe_psql('postgres', "UPDATE retry.scene SET paused = false");
health_is('pauses', 'ok', 'no pause', 'and is over');

# With a slot, it is done.
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->stop;
$clock->start($node);
$node->safe_psql('postgres', 'CALL retry.maintain()');
health_is('upkeep', 'ok', 'last done at', 'upkeep was done');

$node->stop;
done_testing();
