# What may be sent at all: tasks of a copied database are held and new ones go,
# until retry.adopt() lets the old go too; and what dispatchers do with
# configuration while somebody changes it or has it locked.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('copies');
my $receiver = start_endpoint();

sub target
{
	return "'" . $receiver->url($_[0]) . "', '{}'";
}

sub requests
{
	my ($key) = @_;
	my @got = $receiver->ledger($key);
	return scalar @got;
}

sub health
{
	my ($dbname, $check) = @_;
	return $node->safe_psql($dbname, "SELECT status FROM retry.health() WHERE check_name = '$check'");
}

# A copy of a database with a paused task, a finished one, and one due later.
$node->safe_psql('postgres', 'CREATE DATABASE origin');
$node->safe_psql('origin', 'CREATE EXTENSION retry');
my $done = enqueue($node, target('/ok') . ", key => 'done'", dbname => 'origin');
wait_state($node, $done, 'succeeded', dbname => 'origin');
$node->safe_psql('origin', "UPDATE retry.scene SET paused = true");
my $paused = enqueue($node, target('/ok') . ", key => 'paused'", dbname => 'origin');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE origin');
wait_sql($node, "SELECT count(*) FROM retry.installation i JOIN pg_database d ON d.oid = i.database WHERE datname = 'copy' AND NOT adopted",
	'the copy is noticed', dbname => 'copy', expected => '1');
is(health('copy', 'foreign_rows'), 'warning', 'health tells of tasks that are held');
is(health('origin', 'foreign_rows'), 'ok', '... in the copy only');

$node->safe_psql('copy', "UPDATE retry.scene SET paused = false");
my $new = enqueue($node, target('/ok') . ", key => 'new'", dbname => 'copy');
wait_state($node, $new, 'succeeded', dbname => 'copy', description => 'a new task of the copy is sent');
is($node->safe_psql('copy', "SELECT state FROM retry.tasks WHERE id = '$paused'"), 'pending', 'one that was copied is held');
is(requests('paused'), 0, '... and was not sent');

# The copy's dispatcher may start again: it finds its own mark.
$node->restart;
$new = enqueue($node, target('/ok') . ", key => 'newer'", dbname => 'copy');
wait_state($node, $new, 'succeeded', dbname => 'copy', description => 'after a restart too a new task is sent');
is(requests('paused'), 0, '... and the old one is not');
is($node->safe_psql('copy', "SELECT count(*) FROM retry.installation"), '2', 'the copy is noted once');

$node->safe_psql('copy', 'SELECT retry.adopt()');
wait_state($node, $paused, 'succeeded', dbname => 'copy', description => 'adopt() lets the old ones go');
is(requests('paused'), 1, '... once');
is(requests('done'), 1, 'what was finished is not sent again');
is(health('copy', 'foreign_rows'), 'ok', 'health has no more to say');

# The origin goes on as if nothing had happened.
$node->safe_psql('origin', "UPDATE retry.scene SET paused = false");
wait_state($node, $paused, 'succeeded', dbname => 'origin', description => 'the origin sends its own');
is(requests('paused'), 2, '... as the copy did');

# Rows that did not come by enqueue: inert until adopted, and new ones go.
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->safe_psql('restored', 'CREATE EXTENSION retry');
my ($leaf) = split /\n/, $node->safe_psql('origin', "SELECT to_char(leaf, 'FM00') FROM retry.task WHERE id = '$paused'");

# A row as a restore brings it; returns its id.
sub foreign
{
	my ($key) = @_;
	return $node->safe_psql('restored', <<"SQL");
INSERT INTO retry.task_$leaf (leaf, inert, id, xid, lane_hash, due_at, scene_id, enqueued_by, url, key)
SELECT $leaf, false, gen_random_uuid(), '3', 17, now() - interval '1 min', id, 'postgres'::regrole, '${\ $receiver->url('/ok') }', '$key'
FROM retry.scene WHERE name = 'default'
RETURNING id
SQL
}

my $foreign = foreign('foreign');
$new = enqueue($node, target('/ok') . ", key => 'beside'", dbname => 'restored');
wait_state($node, $new, 'succeeded', dbname => 'restored', description => 'a task enqueued beside restored rows is sent');
is(requests('foreign'), 0, 'a restored one is not');
is(health('restored', 'foreign_rows'), 'warning', 'health tells of it');
$node->safe_psql('restored', 'SELECT retry.adopt()');
wait_state($node, $foreign, 'succeeded', dbname => 'restored', description => 'after adopt() it is');

# Configuration: locked tables do not stop delivery, and a change counts after.
$node->safe_psql('postgres',
	"INSERT INTO retry.scene (name, url, method) VALUES ('conf', '" . $receiver->url('/ok') . "', 'PUT')");
my $id = enqueue($node, "'conf', '{}', key => 'put'");
wait_state($node, $id, 'succeeded');
my $holder = session($node);
my $during = enqueue($node, "'conf', '{}', key => 'during', delay => '1 s'");
$holder->query_safe('BEGIN');
$holder->query_safe('LOCK TABLE retry.scene, retry.scene_group, retry.installation');
$holder->query_safe("UPDATE retry.scene SET method = 'PATCH' WHERE name = 'conf'");
# a change elsewhere, so that the dispatcher tries to read what is locked
$node->safe_psql('postgres', "SELECT retry.purge('2000-01-01')");
wait_for(sub { requests('during') == 1 }, 'while configuration is locked, delivery goes on');
$holder->query_safe('COMMIT');
$holder->quit;
$id = enqueue($node, "'conf', '{}', key => 'patch'");
wait_state($node, $id, 'succeeded', description => 'a task enqueued after the change is sent');
is(join(',', map { ($receiver->ledger($_))[0]{method} } 'put', 'during', 'patch'), 'PUT,PUT,PATCH',
	'... as the scene is from then on');

# A value that no constraint would let in: the former version stays in force.
$node->safe_psql('postgres', <<'SQL');
ALTER TABLE retry.scene DROP CONSTRAINT scene_timeout_valid;
UPDATE retry.scene SET timeout = '2 h', method = 'GET' WHERE name = 'conf';
SQL
wait_for(sub { slurp_file($node->logfile) =~ /column timeout of scene \d+ cannot be used, its former version stays in force/ },
	'the log names a column that cannot be used');
$id = enqueue($node, "'conf', '{}', key => 'former'");
wait_state($node, $id, 'succeeded');
is(($receiver->ledger('former'))[0]{method}, 'PATCH', 'its former version stays in force');

# The same in a scene that has no former version: its tasks wait for a good one.
$node->safe_psql('postgres', "INSERT INTO retry.scene (name, url, timeout) VALUES ('odd', '" . $receiver->url('/ok') . "', '2 h')");
wait_for(sub { slurp_file($node->logfile) =~ /column timeout of scene \d+ cannot be used, its tasks are held/ },
	'a new scene that cannot be used holds its tasks');
my $odd = enqueue($node, "'odd', '{}', key => 'odd'");
$id = enqueue($node, "'conf', '{}', key => 'beside'");
wait_state($node, $id, 'succeeded', description => 'others go on');
is($node->safe_psql('postgres', "SELECT state FROM retry.tasks WHERE id = '$odd'"), 'pending', 'they wait');
$node->safe_psql('postgres', "UPDATE retry.scene SET timeout = '2 s' WHERE name = 'odd'");
wait_state($node, $odd, 'succeeded', description => 'and are sent when it is corrected');

# Adopted while no dispatcher runs: those that were passed over long ago are read again.
my $late = foreign('late');
$id = enqueue($node, target('/ok') . ", key => 'after it'", dbname => 'restored');
wait_state($node, $id, 'succeeded', dbname => 'restored');
$node->stop;
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
is($node->safe_psql('restored', "SELECT low_water > due_at FROM retry.task, (TABLE retry.checkpoint_a UNION ALL TABLE retry.checkpoint_b) c"
		. " WHERE id = '$late' ORDER BY taken_at DESC LIMIT 1"), 't', 'the dispatcher is beyond a restored task');
is($node->safe_psql('restored', "SELECT count(*) FROM retry.page('pending') WHERE id = '$late'"), '1', '... which is in the page of pending tasks');
$node->safe_psql('restored', 'SELECT retry.adopt()');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'retry'");
$node->restart;
wait_state($node, $late, 'succeeded', dbname => 'restored', description => 'adopted while no dispatcher ran, it is sent');

$node->stop;
done_testing();
