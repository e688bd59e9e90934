# Keys that outlast their tasks, and administration of many tasks beside live
# traffic: what the SQL tests cannot show without workers.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => "shared_buffers = 128MB");
my $receiver = start_endpoint();
my $ok = $receiver->url('/ok');

sub sql
{
	my ($query) = @_;

	return ask($node, $query);
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
my $end = sql("SELECT finished_at FROM retry.tasks WHERE id = '$id{window}'");
purge_now();
is(sql('SELECT count(*) FROM retry.task'), '0', 'the history is gone');
is( sql("SELECT string_agg(name || CASE WHEN finished_at IS NULL THEN '' ELSE ' noted' END, ', ' ORDER BY name)"
		  . ' FROM retry.key k JOIN retry.scene s ON s.id = k.scene_id'),
	'dies noted, window noted', 'the keys with a window are kept, with the ends of their tasks');
is(sql("SELECT finished_at FROM retry.key WHERE task_id = '$id{window}'"), $end, 'which are the true ones');
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

##########################################################################
# Amended: from the next attempt on, in memory or not, and for good
##########################################################################

sql(<<"SQL");
INSERT INTO retry.scene (group_name, name, url, backoff, max_in_flight, max_attempts) VALUES
	('default', 'amend', '$ok', 'fixed 1h', NULL, 16),
	('default', 'fails', '@{[ $receiver->url('/echo?status=500') ]}', 'fixed 1h', NULL, 16),
	('default', 'queue', '@{[ $receiver->url('/delay/500') ]}', 'fixed 1h', 1, 16);
SQL
my $fails = enqueue($node, "'fails', '1', key => 'amended', headers => '{\"X-Old\": \"1\"}'");
wait_state($node, $fails, 'retrying');
is(sql(<<"SQL"), 't', 'a task that waits for its next attempt is amended');
SELECT retry.amend('$fails', '{"url": "@{[ $receiver->url('/echo') ]}", "method": "PUT", "headers": {"X-New": "2"},
	"payload": {"amended": true}, "content_type": "application/amended"}')
SQL
is(sql("SELECT next_due > now() + interval '30 min' FROM retry.tasks WHERE id = '$fails'"),
	't', 'which does not make it due');
sql("SELECT retry.run_now('$fails')");
wait_state($node, $fails, 'succeeded', description => 'its next attempt goes where it was told');
my $echo = decode_json(sql("SELECT convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$fails' AND attempt_no = 2"));
my %header = map { lc($_->[0]) => $_->[1] } @{ $echo->{headers} };
is("$echo->{method} $echo->{path}", 'PUT /echo', 'with the method and to the URL that it was given');
is("$header{'x-new'} $header{'content-type'}", '2 application/amended', 'with its headers');
ok(!exists $header{'x-old'}, 'in place of the old ones');
is($echo->{body}, '{"amended": true}', 'and its payload');

# queued in memory behind one that is slow
sql("SELECT count(retry.enqueue('queue', key => 'queued-' || i)) FROM generate_series(1, 20) i");
wait_sql($node, "SELECT queued >= 1 FROM retry.dispatchers", 'some wait in memory');
my $amended = sql("SELECT retry.amend_where('{\"url\": \"@{[ $receiver->url('/echo') ]}\"}', 'queue')");
cmp_ok($amended, '>', 10, 'most are amended');
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/queue' AND state = 'succeeded'",
	'and all go', expected => '20');
cmp_ok(scalar(grep { $_->{key} =~ /^queued-/ && $_->{path} eq '/echo' } $receiver->ledger), '>=', $amended - 1,
	'where they were told, but for one that was under way');

# a function gets what it was changed to, and stays the function
sql('CREATE TABLE called (payload jsonb);'
	  . ' CREATE FUNCTION note(jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO called VALUES ($1) $$');
my $function = enqueue($node, "'sql:public.note', '1', delay => '1 day'");
sql(qq{SELECT retry.amend('$function', '{"payload": {"n": 2}}')});
sql_fails($node, qq{SELECT retry.amend('$function', '{"url": "$ok"}')},
	'22023', 'calls the function "sql:public.note"', 'a function is not made a URL');
sql("SELECT retry.run_now('$function')");
wait_state($node, $function, 'succeeded', description => 'a function is called');
is(sql('SELECT string_agg(payload::text, chr(10)) FROM called'), '{"n": 2}', 'with what the payload was changed to');

# limits count when they are next looked at
my %limit = map { $_ => enqueue($node, "'fails', '1', key => '$_'") } qw(lower higher expires replayed);
wait_state($node, $limit{$_}, 'retrying') foreach sort keys %limit;
sql("SELECT retry.amend('$limit{lower}', '{\"max_attempts\": 1}')");
sql("SELECT retry.amend('$limit{higher}', '{\"max_attempts\": 1}'), retry.amend('$limit{higher}', '{\"max_attempts\": 2}')");
sql("SELECT retry.amend('$limit{expires}', jsonb_build_object('expires_at', clock_timestamp() + interval '1 s'))");
wait_sql($node, "SELECT expires_at < now() FROM retry.tasks WHERE id = '$limit{expires}'", 'the time of one is over');
sql("SELECT retry.amend('$limit{replayed}', '{\"max_attempts\": 2, \"payload\": \"amended\", \"backoff\": \"fixed 10ms\"}')");
$node->stop('immediate');
$node->start;
sql("SELECT retry.run_now_where('fails')");
wait_state($node, $limit{$_}, 'dead') foreach sort keys %limit;
is( sql("SELECT string_agg(key || ' ' || reason || ' ' || attempts || '/' || max_attempts, ', ' ORDER BY key) FROM retry.dead_letters WHERE key IN ('lower', 'higher', 'expires', 'replayed')"),
	'expires expired 2/16, higher exhausted 2/2, lower exhausted 2/1, replayed exhausted 2/2',
	'they die of the limits that they were given');
is(scalar(@{ [ $receiver->ledger('lower') ] }), 1, 'one of them without another request');
is(sql("SELECT convert_from(body, 'UTF8') || ' ' || max_attempts FROM retry.dead_letters WHERE key = 'replayed'"),
	'"amended" 2', 'a dead letter is what the task was meant to be');
is(sql("SELECT retry.replay_dead('fails', key_prefix => 'replayed')"), '1', 'it is replayed');
wait_sql($node, "SELECT count(*) FROM retry.dead_letters WHERE key = 'replayed'", 'dies again', expected => '2');
is( sql(<<"SQL"), '1 "amended" "amended" "amended"', 'as it was meant to be');
SELECT string_agg(convert_from(a.response, 'UTF8')::jsonb->>'body', ' ' ORDER BY a.finished_at)
FROM retry.attempts a JOIN retry.task t ON t.id = a.task_id WHERE t.key = 'replayed'
SQL

##########################################################################
# By the error, which may be nothing but a status
##########################################################################

sql(<<"SQL");
INSERT INTO retry.scene (name, url, backoff, max_attempts, pending_interval) VALUES
	('unwell', '@{[ $receiver->url('/status/503') ]}', 'fixed 1h', 16, '1 h'),
	('working', '@{[ $receiver->url('/retry-control/processing?status=503') ]}', 'fixed 1h', 16, '1 h'),
	('unwell-once', '@{[ $receiver->url('/status/504') ]}', 'fixed 1h', 1, '1 h');
SQL
my %of = map { $_ => enqueue($node, "'$_', '{}'") } qw(unwell working unwell-once);
wait_state($node, $of{unwell}, 'retrying');
wait_state($node, $of{working}, 'retrying');
wait_state($node, $of{'unwell-once'}, 'dead');
is( sql("SELECT retry.run_now_where('unwell', error => 'status 50_') || ' ' || retry.run_now_where('unwell', error => 'status 504')"
		  . " || ' ' || retry.run_now_where('working', error => '%')"),
	'1 0 0', 'a failure by status is found by it, and a receiver still at work is none');
is( sql("SELECT retry.replay_dead('unwell-once', error => 'status 503') || ' ' || retry.replay_dead('unwell-once', error => 'status 504')"),
	'0 1', 'so is a dead letter');

##########################################################################
# Many dead letters beside live traffic
##########################################################################

my $letters = 100000;
sql(<<"SQL");
INSERT INTO retry.scene (group_name, name, url, backoff) VALUES ('default', 'again', '$ok', 'fixed 1h');
CREATE TEMP TABLE t AS SELECT d.* FROM retry.dead_letter d WHERE d.key = 'lower';
UPDATE t SET scene_id = (SELECT id FROM retry.scene WHERE name = 'again'), key = NULL, max_attempts = NULL;
CREATE TEMP TABLE many AS SELECT t.* FROM t, generate_series(1, $letters);
UPDATE many SET id = gen_random_uuid();
INSERT INTO retry.dead_letter SELECT * FROM many;
SQL
is(sql("SELECT count(*) FROM retry.dead_letters WHERE scene = 'default/again'"), $letters, "$letters dead letters");

# Memory of the dispatcher's own, in kB.
sub memory
{
	my ($pid) = workers($node, 'retry dispatcher');

	return slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m ? $1 : 0;
}

my $before = memory();
my $start = time;
is(sql("SELECT retry.replay_dead('again', spread => '5 s')"), $letters, 'all are replayed in one call');
my ($live, $most, $left) = (0, 0, $letters);
while ($left > 0)
{
	my $id = enqueue($node, "'amend', key => 'live-@{[ ++$live ]}', lane => 'live'");

	$node->poll_query_until('postgres', "SELECT retry.wait('$id', '60 s')", 'succeeded')
	  or die 'a live task is not delivered';
	$most = memory() if memory() > $most;
	$left = sql("SELECT $letters - count(*) FROM retry.attempt a WHERE a.outcome = 'succeeded' AND a.next_due IS NULL"
		  . " AND a.scene_id = (SELECT id FROM retry.scene WHERE name = 'again')");
}
note("$letters dead letters replayed and delivered in " . (time - $start) . " s; meanwhile $live live tasks, one after the other;"
	  . " memory of the dispatcher $before kB before, at most $most kB");
is(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/again' AND state = 'succeeded'"), $letters, 'each is delivered');
is(sql("SELECT count(*) FROM retry.attempt a WHERE a.scene_id = (SELECT id FROM retry.scene WHERE name = 'again')"),
	$letters, 'once');
cmp_ok($live, '>', 5, 'and live tasks go on beside them');
cmp_ok($most - $before, '<', 64 * 1024, 'in bounded memory');
is(sql("SELECT retry.replay_dead('again')"), '0', 'none is left to be replayed');

$node->stop;
done_testing();
