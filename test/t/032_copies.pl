# A database copied with CREATE DATABASE ... TEMPLATE: what was under way in the
# original, retries included, is not sent a second time by the copy before
# retry.adopt().
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('copied');
my $receiver = start_endpoint();
my $url = $receiver->url('');

sub sent
{
	my @got = $receiver->ledger($_[0]);
	return scalar @got;
}

# The original: a task whose next attempt is due soon, one that was asked to run
# now, and one due later; its own dispatcher is kept from sending them.
$node->safe_psql('postgres', 'CREATE DATABASE original');
$node->safe_psql('original', 'CREATE EXTENSION retry');
$node->safe_psql('original', <<SQL);
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES
	('default', 'soon', '$url/status/500', 'fixed 100ms', 10000),
	('default', 'later', '$url/status/500', 'fixed 1h', 5);
SQL
my %opt = (dbname => 'original');
my %id;
$id{soon} = enqueue($node, "'soon', '{}', key => 'soon'", %opt);
$id{later} = enqueue($node, "'later', '{}', key => 'later'", %opt);
$id{delayed} = enqueue($node, "'$url/ok', '{}', key => 'delayed', delay => '1 h'", %opt);
wait_state($node, $id{$_}, 'retrying', %opt) foreach qw(soon later);
$node->safe_psql('original', 'ALTER DATABASE original SET retry.enabled = off');
wait_sql($node, "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'original' AND backend_type = 'retry dispatcher'",
	'the original has a dispatcher that sends nothing');
$node->safe_psql('original', "UPDATE retry.scene SET url = '$url/ok' WHERE url IS NOT NULL");
$node->safe_psql('original', "SELECT retry.run_now('$id{later}')");
$node->safe_psql('original', "SELECT retry.run_now('$id{delayed}')");
$receiver->reset;

$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE original');
%opt = (dbname => 'copy');
my $new = enqueue($node, "'$url/ok', '{}', key => 'new'", %opt);
wait_state($node, $new, 'succeeded', %opt, description => 'a new task of the copy is sent');
is(enqueue($node, "'soon', '{}', key => 'soon'", %opt), $id{soon}, 'an old key names the old task');
$node->safe_psql('copy', 'CALL retry.maintain()');
$new = enqueue($node, "'$url/ok', '{}', key => 'newer'", %opt);
wait_state($node, $new, 'succeeded', %opt, description => 'and another');
is(sent($_), 0, "$_ is not sent") foreach sort keys %id;

is($node->safe_psql('copy', "SELECT string_agg(kind, ', ') FROM retry.events WHERE kind IN ('copy found', 'server changed')"), 'copy found', 'there is an event');
$node->safe_psql('copy', 'SELECT retry.adopt()');
wait_state($node, $id{$_}, 'succeeded', %opt, description => "adopted, $_ is sent") foreach sort keys %id;
is(sent($_), 1, "$_ once") foreach sort keys %id;
is($node->safe_psql('copy', 'SELECT count(*) FROM (SELECT FROM retry.attempt GROUP BY task_id HAVING count(*) <> max(attempt_no)) x'),
	0, 'attempts go on counting');

$node->safe_psql('postgres', 'ALTER DATABASE original RESET retry.enabled');
wait_state($node, $id{$_}, 'succeeded', dbname => 'original', description => "the original sends its own $_")
  foreach sort keys %id;
is(sent($_), 2, "$_ for the second time") foreach sort keys %id;
$node->stop;
done_testing();
