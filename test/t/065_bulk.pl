# Keys that outlast their tasks, and administration of many tasks beside live
# traffic: what the SQL tests cannot show without workers.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => "shared_buffers = 128MB");
my $receiver = start_endpoint();
my $ok = $receiver->url('/ok');

sub sql
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

# All history that is finished goes.
sub purge_now
{
	sql("SELECT retry.purge(clock_timestamp())");
	sql("CALL retry.maintain()");
	return;
}

##########################################################################
# A key's window is longer than the history is kept
##########################################################################

sql(<<"SQL");
INSERT INTO retry.scene (group_name, name, url, key_window, max_attempts, backoff) VALUES
	('default', 'window', '$ok', '1 h', 2, 'fixed 10ms'),
	('default', 'dies', '@{[ $receiver->url('/status/500') ]}', '1 h', 1, 'fixed 10ms'),
	('default', 'waits', '$ok', '1 h', 2, 'fixed 10ms'),
	('default', 'free', '$ok', NULL, 2, 'fixed 10ms');
SQL
my %id = map { $_ => enqueue($node, "'$_', '{}', key => 'k'") } qw(window dies free);
$id{waits} = enqueue($node, "'waits', '{}', key => 'k', delay => '1 h'");
wait_state($node, $id{window}, 'succeeded');
wait_state($node, $id{dies}, 'dead');
wait_state($node, $id{free}, 'succeeded');
sql('CALL retry.maintain()');
is(sql('SELECT count(*) FROM retry.key WHERE finished_at IS NOT NULL'), '0',
	'while the history is kept nothing is noted');
sql("SELECT retry.cancel('$id{waits}')");
purge_now();
is(sql('SELECT count(*) FROM retry.task'), '0', 'the history is gone');
is( sql("SELECT string_agg(name || CASE WHEN finished_at IS NULL THEN '' ELSE ' noted' END, ', ' ORDER BY name)"
		  . ' FROM retry.key k JOIN retry.scene s ON s.id = k.scene_id'),
	'dies noted, window noted', 'the keys with a window are kept, with the ends of their tasks');
is(enqueue($node, "'window', '{}', key => 'k'"), $id{window}, 'one still leads to the task that succeeded');
is(enqueue($node, "'dies', '{}', key => 'k'"), $id{dies}, 'and one to that which died');
sql_fails($node, "SELECT retry.enqueue('window', '{}', key => 'k', on_conflict => 'error')",
	'23505', 'key "k" is in use', 'on_conflict error is one');
isnt(enqueue($node, "'waits', '{}', key => 'k'"), $id{waits}, 'that of a cancelled task is free');
isnt(enqueue($node, "'free', '{}', key => 'k'"), $id{free}, 'and that of a scene without a window');
purge_now();
is(enqueue($node, "'window', '{}', key => 'k'"), $id{window}, 'upkeep looks again, and it is still kept');

# the history went in some way that upkeep could not note
sql("UPDATE retry.key SET finished_at = NULL");
sql('CALL retry.maintain()');
is( sql("SELECT finished_at > now() - interval '1 min' FROM retry.key WHERE task_id = '$id{window}'"),
	't', 'an end that nobody knows is taken for now');

# at its end
sql("UPDATE retry.scene SET key_window = '1 us' WHERE name = 'window'");
sql('CALL retry.maintain()');
is( sql("SELECT string_agg(name, ', ' ORDER BY name) FROM retry.key k JOIN retry.scene s ON s.id = k.scene_id"
		  . " WHERE name IN ('window', 'dies')"),
	'dies', 'a key goes when its window is over');
isnt(enqueue($node, "'window', '{}', key => 'k'"), $id{window}, 'and leads to another task');

##########################################################################
# Replaced while it is under way, or waits for its next attempt
##########################################################################

sql(<<"SQL");
INSERT INTO retry.scene (group_name, name, url, backoff) VALUES
	('default', 'hangs', '@{[ $receiver->url('/delay/1000') ]}', 'fixed 1h'),
	('default', 'flaky', '@{[ $receiver->url('/flaky/1') ]}', 'fixed 1h');
SQL
my $hangs = enqueue($node, "'hangs', '1', key => 'replaced'");
wait_state($node, $hangs, 'running');
sql_fails($node, "SELECT retry.enqueue('hangs', '2', key => 'replaced', on_conflict => 'replace')",
	'55000', "task $hangs with key .*cannot be replaced", 'not while its attempt is under way');
wait_state($node, $hangs, 'succeeded', description => 'which ends as if nothing had been');
my $flaky = enqueue($node, "'flaky', '1', key => 'replaced-2'");
wait_state($node, $flaky, 'retrying');
sql_fails($node, "SELECT retry.enqueue('flaky', '2', key => 'replaced-2', on_conflict => 'replace')",
	'55000', "task $flaky with key .*cannot be replaced", 'nor while it waits for its next attempt');
my $later = enqueue($node, "'flaky', '1', key => 'replaced-3', delay => '1 h'");
my $now = enqueue($node, "'window', '2', key => 'replaced-3', on_conflict => 'replace'");
wait_state($node, $now, 'succeeded', description => 'the key of another scene is another key');
$now = enqueue($node, "'free', '2', key => 'replaced-4', delay => '1 h'");
my $instead = enqueue($node, "'free', '3', key => 'replaced-4', on_conflict => 'replace'");
wait_state($node, $instead, 'succeeded', description => 'what replaces one is sent');
is(sql("SELECT retry.wait('$now', '0')"), 'cancelled', 'what was replaced is cancelled');
is(scalar(my @sent = $receiver->ledger('replaced-4')), 1, 'and never sent');
sql("SELECT retry.cancel_where()");

##########################################################################
# The beginning of a key, where texts are not ordered by their bytes
##########################################################################

sql("CREATE DATABASE ordered TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' ENCODING 'UTF8'");
my $many = 3000;
is($node->safe_psql('ordered', <<"SQL"), "$many\n200\n200\n0", 'the beginning of a key finds its tasks in any collation');
SET client_min_messages = warning;
CREATE EXTENSION retry;
INSERT INTO retry.scene_group (name, paused) VALUES ('p', true);
INSERT INTO retry.scene (group_name, name, url) VALUES ('p', 's', '$ok');
SELECT count(*) FROM retry.enqueue_many('p/s', array_fill('{}'::jsonb, ARRAY[$many]),
	(SELECT array_agg((ARRAY['a', 'A', 'a-', 'ab', 'AB', 'a b', 'Ab', 'b', 'B', 'ä', 'z', '-a', 'a1', 'Z', '_'])[1 + g % 15] || '/' || g)
	 FROM generate_series(1, $many) g));
SELECT retry.cancel_where('p/s', key_prefix => 'ab/');
SELECT retry.cancel_where('p/s', key_prefix => 'A') - 400;
SELECT retry.cancel_where('p/s', key_prefix => 'A');
SQL
like(
	$node->safe_psql('ordered', "SET enable_seqscan = off; SET enable_bitmapscan = off;"
		  . " EXPLAIN SELECT id FROM retry.task WHERE scene_id = 7 AND key LIKE 'ab/%'"),
	qr/task_01_key.*key ~>=~ 'ab\/'/s, 'and so do queries, by the same index');
sql('DROP DATABASE ordered');

$node->stop;
done_testing();
