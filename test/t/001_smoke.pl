# One task from SQL to a receiver and back, and what the request looked like.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('smoke');
my $receiver = start_endpoint();

is( $node->safe_psql(
		'postgres', "SELECT extversion FROM pg_extension WHERE extname = 'retry'"),
	'1.0',
	'the extension is installed');

# A plain URL, and success.
my $id = enqueue($node,
	"'" . $receiver->url('/ok') . "', '{\"order\": 17}', key => 'order-17'");
like($id, qr/^[0-9a-f]{8}-[0-9a-f]{4}-7/, 'the id is a UUID of version 7');
wait_state($node, $id, 'succeeded');
is( $node->safe_psql(
		'postgres',
		"SELECT attempt_no, outcome, http_status, next_due IS NULL FROM retry.attempts WHERE task_id = '$id'"),
	'1|succeeded|200|t',
	'its one attempt is recorded');
my @got = $receiver->ledger('order-17');
is(scalar @got, 1, 'the receiver got one request');
is("$got[0]{method} $got[0]{path} attempt $got[0]{attempt}",
	'POST /ok attempt 1', 'by POST, marked as attempt 1');

# What was sent, as the receiver echoes it.
$id = enqueue($node,
	"'" . $receiver->url('/echo') . "', '{\"n\": 1}', headers => '{\"X-Trace\": \"abc\"}'");
wait_state($node, $id, 'succeeded');
my $echo = decode_json(
	$node->safe_psql(
		'postgres',
		"SELECT convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$id'"));
my %header = map { lc $_->[0] => $_->[1] } @{ $echo->{headers} };
is_deeply(decode_json($echo->{body}), { n => 1 }, 'the body is the payload');
is($header{'content-type'}, 'application/json', 'Content-Type');
is($header{'idempotency-key'}, "\"$id\"", 'Idempotency-Key is the id, quoted');
is($header{'webhook-id'}, $id, 'webhook-id');
like($header{'webhook-timestamp'}, qr/^\d{10}$/, 'webhook-timestamp');
is($header{'retry-attempt'}, '1', 'Retry-Attempt');
like($header{'user-agent'}, qr{^pg-retry/1\.0}, 'User-Agent');
is($header{'x-trace'}, 'abc', "the task's own header");

# A receiver that fails at first.
$node->safe_psql('postgres',
	"INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES ('default', 'flaky', '"
	  . $receiver->url('/flaky/2?fail=500')
	  . "', 'fixed 100ms', 5)");
$id = enqueue($node, "'flaky', '{}', key => 'flaky-1'");
wait_state($node, $id, 'succeeded');
is( $node->safe_psql(
		'postgres',
		"SELECT string_agg(attempt_no || ' ' || outcome || ' ' || http_status, ', ' ORDER BY attempt_no) FROM retry.attempts WHERE task_id = '$id'"
	),
	'1 failed 500, 2 failed 500, 3 succeeded 200',
	'two failures and a success');
is(join(' ', map { $_->{attempt} } $receiver->ledger('flaky-1')),
	'1 2 3', 'the receiver saw the attempts numbered');

# Rolled back: never sent.  The task after it shows that delivery went on.
$node->safe_psql('postgres',
	"BEGIN; SELECT retry.enqueue('flaky', '{}', key => 'undone'); ROLLBACK");
$id = enqueue($node, "'" . $receiver->url('/ok') . "', '{}', key => 'after'");
wait_state($node, $id, 'succeeded');
is(scalar $receiver->ledger('undone'), 0, 'what was rolled back is not sent');

# Bad input is refused with a specific SQLSTATE.
sql_fails($node, "SELECT retry.enqueue('no-such-scene')",
	'[0-9A-Z]{5}', qr/no-such-scene/, 'an unknown scene is named');

$node->stop;
done_testing();
