# What an answer means is said by the scene: each rule and each pair of rules
# that contradict each other, limits of attempts and time, and why a task is dead.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => "retry.max_response_bytes = 4kB");
hold_nothing($node);
my $receiver = start_endpoint();
my $gone = start_endpoint();
my $refusing = $gone->url('/');
$gone->stop;

# One that nobody trusts; where there is no openssl, that case is left out.
my $certificate = PostgreSQL::Test::Utils::tempdir . '/certificate';
my $untrusted;
if (system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=none.test -keyout $certificate.key -out $certificate 2>/dev/null") == 0)
{
	$untrusted = start_endpoint(args => [ '--tls', $certificate, "$certificate.key" ]);
}
my $scenes = 0;

sub sql
{
	return ask($node, $_[0]);
}

sub quoted
{
	my ($text) = @_;

	return 'NULL' if !defined $text;
	$text =~ s/'/''/g;
	return "'$text'";
}

# A scene with these columns; returns its name.
sub scene
{
	my (%columns) = @_;
	my $name = 'scene-' . ++$scenes;
	my %all = (backoff => 'fixed 50ms', max_attempts => 2, pending_interval => '50 ms', pending_limit => 3, timeout => '20 s', %columns);
	my @names = sort keys %all;

	sql("INSERT INTO retry.scene (name, " . join(', ', @names) . ") VALUES ('$name', "
		  . join(', ', map { quoted($all{$_}) } @names) . ')');
	return $name;
}

sub encoded
{
	my ($text) = @_;

	$text =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ge;
	return $text;
}

# An answer with that status and body.
sub answer
{
	my ($status, $body) = @_;

	return "/json?status=$status&body=" . encoded($body);
}

# "succeeded 200", "failed 500, failed 500 exhausted": all attempts, and the reason.
sub story
{
	my ($id) = @_;

	return sql(<<"SQL");
SELECT string_agg(outcome || ' ' || coalesce(http_status::text, '-'), ', ' ORDER BY attempt_no)
	|| coalesce((SELECT ': ' || reason FROM retry.dead_letters WHERE id = '$id'), '')
FROM retry.attempts WHERE task_id = '$id'
SQL
}

sub last_error
{
	my ($id) = @_;

	return sql("SELECT coalesce((array_agg(error ORDER BY attempt_no DESC))[1], '') FROM retry.attempts WHERE task_id = '$id'");
}

sub finished
{
	my ($id, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_sql($node, "SELECT state NOT IN ('pending', 'running', 'retrying') FROM retry.tasks WHERE id = '$id'",
		"$name: finished");
}

# Rules.  Each: what is tested, columns of the scene, path or URL, what becomes
# of the task, and the last error.
my $gone410 = 'stopped 410: gone';
my $failed = sub { "failed $_[0], failed $_[0]: exhausted" };
my $asked = sub { join(', ', ("processing $_[0]") x 3) . ': exhausted' };
my $still = '^still processing, and pending_limit is reached$';
my $unmatched = '^success_when does not match the answer$';
my $stop_matched = '^stop_when matches the answer$';
my $true = '$.ok == true';
my $false = '$.ok == false';
my $ok = '{"ok": true}';
my @table = (
	# alone
	[ 'success_status', { success_status => '200-299, 409' }, '/status/409', 'succeeded 409', '' ],
	[ 'not in success_status', { success_status => '200' }, '/status/204', $failed->(204), '' ],
	[ 'an empty success_status', { success_status => '' }, '/ok', $failed->(200), '' ],
	[ 'stop_status', { stop_status => '500-502' }, '/status/502', 'stopped 502: stopped', '' ],
	[ 'an empty stop_status', { stop_status => '' }, '/status/422', $failed->(422), '' ],
	[ 'success_when', { success_when => $true }, '/ok', 'succeeded 200', '' ],
	[ 'no match for success_when', { success_when => $false }, '/ok', $failed->(200), $unmatched ],
	[ 'no match for success_when, with a 422', { success_when => $false }, answer(422, $ok), 'stopped 422: stopped', '' ],
	[ 'no match for success_when, with a 500', { success_when => $false }, answer(500, $ok), $failed->(500), '' ],
	[ 'pending_when', { pending_when => $true }, '/ok', $asked->(200), $still ],
	[ 'no match for pending_when', { pending_when => $false }, '/ok', 'succeeded 200', '' ],
	[ 'stop_when', { stop_when => $true }, '/ok', 'stopped 200: stopped', $stop_matched ],
	[ 'no match for stop_when', { stop_when => $false }, '/ok', 'succeeded 200', '' ],
	[ 'Retry-Control: processing', {}, '/retry-control/processing', $asked->(200), $still ],
	[ 'Retry-Control: stop', {}, '/retry-control/stop', 'stopped 200: stopped', '' ],
	[ 'an unknown Retry-Control', {}, '/retry-control/sometimes', 'succeeded 200', '' ],

	# 410 and what it contradicts
	[ '410, Retry-Control: stop', {}, '/retry-control/stop?status=410', $gone410, '' ],
	[ '410, Retry-Control: processing', {}, '/retry-control/processing?status=410', $gone410, '' ],
	[ '410, stop_when', { stop_when => $true }, answer(410, $ok), $gone410, '' ],
	[ '410, pending_when', { pending_when => $true }, answer(410, $ok), $gone410, '' ],
	[ '410, success_when', { success_when => $true }, answer(410, $ok), $gone410, '' ],
	[ '410, stop_status', { stop_status => '410' }, '/status/410', $gone410, '' ],
	[ '410, success_status', { stop_status => '', success_status => '410' }, '/status/410', $gone410, '' ],

	# Retry-Control
	[ 'Retry-Control: stop, stop_when', { stop_when => $false }, '/retry-control/stop', 'stopped 200: stopped', '' ],
	[ 'Retry-Control: stop, pending_when', { pending_when => $false }, '/retry-control/stop', 'stopped 200: stopped', '' ],
	[ 'Retry-Control: stop, success_when', { success_when => $false }, '/retry-control/stop', 'stopped 200: stopped', '' ],
	[ 'Retry-Control: stop, stop_status', { stop_status => '422' }, '/retry-control/stop?status=422', 'stopped 422: stopped', '' ],
	[ 'Retry-Control: stop, success_status', { success_status => '500' }, '/retry-control/stop?status=500', 'stopped 500: stopped', '' ],
	[ 'Retry-Control: processing, stop_when', { stop_when => $false }, '/retry-control/processing', $asked->(200), $still ],
	[ 'Retry-Control: processing, success_when', { success_when => $false }, '/retry-control/processing', $asked->(200), $still ],
	[ 'Retry-Control: processing, stop_status', {}, '/retry-control/processing?status=422', $asked->(422), $still ],
	[ 'Retry-Control: processing, success_status', { success_status => '500' }, '/retry-control/processing?status=500', $asked->(500), $still ],

	# conditions, and statuses
	[ 'stop_when, pending_when', { stop_when => $true, pending_when => $true }, '/ok', 'stopped 200: stopped', $stop_matched ],
	[ 'stop_when, success_when', { stop_when => $true, success_when => $true }, '/ok', 'stopped 200: stopped', $stop_matched ],
	[ 'stop_when, stop_status', { stop_when => $true }, answer(422, $ok), 'stopped 422: stopped', $stop_matched ],
	[ 'stop_when, success_status', { stop_when => $true, success_status => '500' }, answer(500, $ok), 'stopped 500: stopped', $stop_matched ],
	[ 'pending_when, success_when', { pending_when => $true, success_when => $true }, '/ok', $asked->(200), $still ],
	[ 'pending_when, stop_status', { pending_when => $true }, answer(422, $ok), $asked->(422), $still ],
	[ 'pending_when, success_status', { pending_when => $true, success_status => '500' }, answer(500, $ok), $asked->(500), $still ],
	[ 'success_when, stop_status', { success_when => $true }, answer(422, $ok), 'succeeded 422', '' ],
	[ 'success_when, neither status', { success_when => $true }, answer(503, $ok), 'succeeded 503', '' ],
	[ 'stop_status, success_status', { stop_status => '200', success_status => '200' }, '/ok', 'stopped 200: stopped', '' ],

	# what it is for a condition to match
	[ 'a filter', { success_when => '$.items[*] ? (@ > 3)' }, answer(200, '{"items": [1, 2, 3, 4]}'), 'succeeded 200', '' ],
	[ 'a filter that lets nothing through', { success_when => '$.items[*] ? (@ > 3)' }, answer(200, '{"items": [1, 2, 3]}'), $failed->(200), $unmatched ],
	[ 'the first item counts', { success_when => '$.items[*]' }, answer(200, '{"items": [null, true]}'), $failed->(200), $unmatched ],
	[ 'false', { success_when => '$.a' }, answer(200, '{"a": false}'), $failed->(200), $unmatched ],
	[ 'null', { success_when => '$.a' }, answer(200, '{"a": null}'), $failed->(200), $unmatched ],
	[ 'absent', { success_when => '$.a' }, answer(200, '{}'), $failed->(200), $unmatched ],
	[ 'absent, strictly', { success_when => 'strict $.a' }, answer(200, '{}'), $failed->(200), $unmatched ],
	[ 'zero', { success_when => '$.a' }, answer(200, '{"a": 0}'), 'succeeded 200', '' ],
	[ 'an empty string', { success_when => '$.a' }, answer(200, '{"a": ""}'), 'succeeded 200', '' ],
	[ 'an empty object', { success_when => '$.a' }, answer(200, '{"a": {}}'), 'succeeded 200', '' ],
	[ 'an empty array, strictly', { success_when => 'strict $.a' }, answer(200, '{"a": []}'), 'succeeded 200', '' ],
	[ 'a scalar document', { success_when => '$ == "done"' }, answer(200, '"done"'), 'succeeded 200', '' ],
	[ 'a comparison that makes no sense', { success_when => '$.a > 1' }, answer(200, '{"a": {}}'), $failed->(200), $unmatched ],
	[ 'letters of the world', { success_when => '$.name == "Łódź €"' }, answer(200, '{"name": "Łódź \u20ac"}'), 'succeeded 200', '' ],

	# bodies that match nothing
	[ 'no JSON', { stop_when => '$', success_when => '$' }, '/status/200?body=done', $failed->(200), $unmatched ],
	[ 'no JSON, where no match is needed', { stop_when => '$', pending_when => '$' }, '/status/200?body=done', 'succeeded 200', '' ],
	[ 'no body', { stop_when => '$' }, '/status/204?body=', 'succeeded 204', '' ],
	[ 'JSON and more', { stop_when => '$' }, answer(200, '{} {}'), 'succeeded 200', '' ],
	[ 'invalid UTF-8 and a NUL', { stop_when => '$' }, '/encoding', 'succeeded 200', '' ],
	[ 'an escaped NUL', { stop_when => '$' }, answer(200, '{"a": "\u0000"}'), 'succeeded 200', '' ],
	[ 'deeper than the stack', { stop_when => '$' }, answer(200, '[' x 2000), 'succeeded 200', '' ],
	[ 'longer than what is kept', { stop_when => '$', pending_when => '$' }, '/oversize/5000', 'succeeded 200', '' ],
	[ 'longer than what is kept, where a match is needed', { success_when => '$' }, '/oversize/5000', $failed->(200), $unmatched ],
	[ 'a body that broke off', { stop_when => '$', success_when => '$' }, '/reset-mid', $failed->(200), '^closed: ' ],
	[ 'an error in evaluating', { stop_when => '$.a.datetime() < "2020-01-01T00:00:00+00:00".datetime()' }, answer(200, '{"a": "2020-01-01"}'), 'succeeded 200', '' ],

	# errors by class
	[ 'stop_errors: timeout', { stop_errors => 'dns, timeout', timeout => '300 ms' }, '/hang', 'stopped -: stopped', '^timeout: no answer within 300 ms$' ],
	[ 'stop_errors: connect', { stop_errors => 'connect' }, $refusing, 'stopped -: stopped', '^connect: connection refused$' ],
	[ 'stop_errors: closed', { stop_errors => 'closed' }, '/close', 'stopped -: stopped', '^closed: ' ],
	[ 'stop_errors: closed in the body', { stop_errors => 'closed' }, '/reset-mid', 'stopped 200: stopped', '^closed: ' ],
	[ 'stop_errors: malformed', { stop_errors => 'malformed' }, '/malformed/status-line', 'stopped -: stopped', '^malformed: ' ],
	[ 'stop_errors: connect_timeout', { stop_errors => 'connect_timeout', connect_timeout => '300 ms' }, 'https://127.0.0.1:' . $receiver->port . '/', 'stopped -: stopped', '^connect_timeout: TLS handshake not complete within 300 ms$' ],
	(map { [ 'stop_errors: tls', { stop_errors => 'tls' }, 'https://127.0.0.1:' . $_->port . '/', 'stopped -: stopped', '^tls: .*certificate' ] } grep { defined } $untrusted),
	[ 'another class', { stop_errors => 'dns,tls,timeout,closed,malformed,connect_timeout,40001' }, $refusing, $failed->('-'), '^connect: connection refused$' ],
	[ 'an answer is no error', { stop_errors => 'timeout,closed' }, '/status/500', $failed->(500), '' ],
);

my @ids;
foreach my $case (@table)
{
	my ($name, $columns, $path) = @$case;
	my $url = $path =~ /^http/ ? $path : $receiver->url($path);
	push @ids, enqueue($node, quoted(scene(%$columns, url => $url)));
}
foreach my $i (0 .. $#table)
{
	my ($name, undef, undef, $story, $error) = @{ $table[$i] };
	finished($ids[$i], $name);
	is(story($ids[$i]), $story, "$name: $story");
	if ($error eq '')
	{
		is(last_error($ids[$i]), '', "$name: no error");
	}
	else
	{
		like(last_error($ids[$i]), qr/$error/, "$name: $error");
	}
}
like(slurp_file($node->logfile), qr/LOG:  retry: stop_when of scene "default\/scene-\d+" cannot be evaluated over an answer, which counts as no match: cannot convert value/,
	'a condition that cannot be evaluated is named in the log');

# A receiver that says "processing" is asked again until it says something else.
my $scene = scene(
	url => $receiver->url('/processing/4'), pending_when => '$.status == "processing"',
	success_when => '$.status == "done"', max_attempts => 1, pending_limit => 10, pending_interval => '200 ms');
my $id = enqueue($node, "'$scene', key => 'result'");
finished($id, 'a delayed result');
is(story($id), 'processing 202, processing 202, processing 202, processing 202, succeeded 200',
	'it is asked until it is done, though max_attempts is 1');
is(sql("SELECT string_agg(coalesce(pendings, 0)::text, ' ' ORDER BY attempt_no) FROM retry.attempt WHERE task_id = '$id'"),
	'1 2 3 4 4', 'what does not count is counted');
is( sql("SELECT bool_and(next_due = finished_at + interval '200 ms') FROM retry.attempt WHERE task_id = '$id' AND next_due IS NOT NULL"),
	't', 'every pending_interval');
is(sql("SELECT state || ' ' || attempts FROM retry.tasks WHERE id = '$id'"), 'succeeded 5', 'and has succeeded');
is(join(' ', map { $_->{attempt} } $receiver->ledger('result')), '1 2 3 4 5', 'the receiver saw each attempt once');

# What fails after that has all its attempts, and the backoff begins at its first level.
$scene = scene(
	url => $receiver->url('/processing/3'), pending_when => '$.status == "processing"',
	success_when => 'false', max_attempts => 3, pending_limit => 10, backoff => 'linear 100ms');
$id = enqueue($node, "'$scene'");
finished($id, 'processing, then failures');
is(story($id), join(', ', ('processing 202') x 3, ('failed 200') x 3) . ': exhausted', 'three failures of three, after three times processing');
is( sql("SELECT string_agg(extract(milliseconds FROM next_due - finished_at)::int::text, ' ' ORDER BY attempt_no) FROM retry.attempt WHERE task_id = '$id'"),
	'50 50 50 100 200', 'delays of the backoff count from the first failure');

# Retry-After that is later than pending_interval.
$scene = scene(url => $receiver->url('/retry-after/2?status=202'), pending_when => '$.error == "later"', pending_limit => 2);
$id = enqueue($node, "'$scene'");
finished($id, 'processing with Retry-After');
is(sql("SELECT (next_due - finished_at)::text FROM retry.attempt WHERE task_id = '$id' AND attempt_no = 1"),
	'00:00:02', 'Retry-After puts off also what is processing');

# The count outlives a crash, run_now, and a pause.
$scene = scene(url => $receiver->url('/retry-control/processing?status=202'), pending_interval => '1 h', pending_limit => 6, max_attempts => 1);
$id = enqueue($node, "'$scene', key => 'counted'");
my $attempts = "SELECT attempts FROM retry.tasks WHERE id = '$id'";
wait_sql($node, $attempts, 'asked once', expected => 1);
sql("SELECT retry.run_now('$id')");
wait_sql($node, $attempts, 'asked at once by run_now', expected => 2);
$node->stop('immediate');
$node->start;
sql("SELECT retry.run_now('$id')");
wait_sql($node, $attempts, 'asked after a crash', expected => 3);
sql("UPDATE retry.scene SET paused = true, pending_interval = '100 ms' WHERE name = '$scene'");
sql("SELECT retry.run_now('$id')");
wait_sql($node, "SELECT held_reason IS NOT NULL FROM retry.tasks WHERE id = '$id'", 'it is held');
sql("UPDATE retry.scene SET paused = false WHERE name = '$scene'");
finished($id, 'asked to the end');
is(story($id), join(', ', ('processing 202') x 6) . ': exhausted', 'six times in all, as pending_limit says');
is(sql("SELECT string_agg(pendings::text, ' ' ORDER BY attempt_no) FROM retry.attempt WHERE task_id = '$id'"), '1 2 3 4 5 6', 'counted without gap');

# A change of the rules counts for the next attempt.
$scene = scene(url => $receiver->url('/status/204'), success_status => '200', max_attempts => 1000000, backoff => 'fixed 100ms');
$id = enqueue($node, "'$scene'");
wait_sql($node, "SELECT attempts >= 2 FROM retry.tasks WHERE id = '$id'", 'a 204 is no success here');
sql("UPDATE retry.scene SET success_status = '200-204' WHERE name = '$scene'");
wait_state($node, $id, 'succeeded', description => 'now it is');
$scene = scene(url => $receiver->url('/ok'), pending_when => $true, pending_limit => undef, pending_interval => '50 ms');
$id = enqueue($node, "'$scene'");
wait_sql($node, "SELECT attempts > 5 FROM retry.tasks WHERE id = '$id'", 'without pending_limit it is asked on');
sql("UPDATE retry.scene SET pending_when = NULL, stop_when = '\$.ok' WHERE name = '$scene'");
finished($id, 'another rule');
like(story($id), qr/^(?:processing 200, )+stopped 200: stopped$/, 'what said processing says stop');

# Conditions that would take hours are given up, and hold up nobody.
my ($pid) = workers($node, 'retry dispatcher%');
my $many = 'a' x 1501;		# an odd number: what no backreference can halve
my $slow = scene(url => $receiver->url(answer(200, "{\"a\": \"$many\"}")), max_attempts => 3,
	success_when => '$.a like_regex "^(a+)(a+)(a+)(a+)\\\\1\\\\2\\\\3\\\\4$"');
my $log_from = length slurp_file($node->logfile);
my @slow = map { enqueue($node, "'$slow'") } 1 .. 2;
my $other = enqueue($node, quoted($receiver->url('/ok/other')));
finished($_, 'a condition that takes too long') foreach @slow;
is(story($_), join(', ', ('failed 200') x 3) . ': exhausted', 'it counts as no match') foreach @slow;
wait_state($node, $other, 'succeeded', description => 'another task succeeds');
my $said = () = substr(slurp_file($node->logfile), $log_from) =~ /LOG:  retry: success_when of scene "default\/$slow" takes longer than 100 ms/g;
is($said, 1, 'the log names the scene once, not each time');
is((workers($node, 'retry dispatcher%'))[0], $pid, 'it is still the same dispatcher');
unlike(substr(slurp_file($node->logfile), $log_from), qr/canceling statement/, 'which was not cancelled');
$slow = scene(url => $receiver->url(answer(200, '[' . join(',', 1 .. 600) . ']')), max_attempts => 1,
	success_when => '$[*] ? (exists ($[*] ? (exists ($[*] ? (@ < 0) ? (@ < 0))) ? (exists ($[*] ? (@ < 0)))))');
my $looping = enqueue($node, "'$slow'");
finished($looping, 'a path that loops');

# A session that makes the call itself can be interrupted then, by others only.
my $call = "SELECT (retry.call('$slow', mode => 'local', local_attempts => 1)).state";
my $state = sql($call);
is(sql("$call; SELECT pg_sleep(0.2); $call"), "$state\n\n$state", 'retry.call: nothing else is cancelled by the limit');
sql_fails($node, "SET statement_timeout = '50 ms'; $call", '57014', 'canceling statement due to statement timeout',
	'retry.call: a statement_timeout is');

# A database of another encoding: what it can hold is compared as text.
sql("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
$node->safe_psql('latin', "CREATE EXTENSION retry; INSERT INTO retry.scene (name, success_when, max_attempts) VALUES ('latin', '\$.name == \"\\u00e9\"', 1)");
foreach my $case ([ '{"name": "é"}', 'succeeded' ], [ '{"name": "\u00e9"}', 'succeeded' ], [ '{"name": "e"}', 'dead' ], [ '{"name": "é", "other": "Ł"}', 'dead' ])
{
	my ($body, $end) = @$case;
	my $url = quoted($receiver->url(answer(200, $body)));
	my $task = enqueue($node, "'latin', url => $url", dbname => 'latin');
	is($node->safe_psql('latin', "SELECT retry.wait('$task')"), $end, "LATIN1: $body: $end");
}

# Stopping the server in the middle of such an evaluation.
my @heavy = map { enqueue($node, "'$slow'") } 1 .. 30;
$node->stop('fast');
$node->start;
finished($_, 'interrupted by a stop') foreach @heavy[ 0, 29 ];

# Limits of time.
my $echo = $receiver->url('/echo?status=500');
my $hour = 3600 * 1000;
sub deadline
{
	my ($id) = @_;
	my $headers = decode_json(sql("SELECT convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$id' AND attempt_no = 1"))->{headers};
	my ($found) = grep { $_->[0] eq 'Retry-Deadline-Ms' } @$headers;

	return defined $found ? $found->[1] : undef;
}
foreach my $case (
	[ 'none', {}, '', undef ],
	[ 'time_budget', { time_budget => '1 h', expires_after => '3 h' }, ", expires_at => now() + '2 h'", 1 ],
	[ 'expires_at', { time_budget => '2 h', expires_after => '3 h' }, ", expires_at => now() + '1 h'", 1 ],
	[ 'expires_after', { time_budget => '2 h', expires_after => '1 h' }, ", expires_at => now() + '3 h'", 1 ])
{
	my ($name, $columns, $option, $hours) = @$case;
	$scene = scene(%$columns, url => $echo, max_attempts => 1);
	$id = enqueue($node, "'$scene'$option");
	finished($id, "the earliest limit: $name");
	my $ms = deadline($id);
	if (defined $hours)
	{
		ok(defined $ms && $ms > $hour - 60_000 && $ms <= $hour, "Retry-Deadline-Ms tells it: $ms");
		is(sql("SELECT expires_at - created_at BETWEEN '59 min' AND '61 min' FROM retry.tasks WHERE id = '$id'"), 't', 'so does retry.tasks');
	}
	else
	{
		is($ms, undef, 'no limit, no Retry-Deadline-Ms');
	}
}
$scene = scene(url => $receiver->url('/status/500'), time_budget => '1 s', backoff => 'fixed 300ms', max_attempts => 1000);
$id = enqueue($node, "'$scene', delay => '1500 ms'");
finished($id, 'a time budget');
like(story($id), qr/^failed 500(, failed 500)*: expired$/, 'when it is used up, the task is expired');
is( sql("SELECT bool_and(a.started_at >= t.due_at AND a.started_at <= t.due_at + interval '1 s') FROM retry.attempts a JOIN retry.tasks t ON t.id = a.task_id WHERE t.id = '$id'"),
	't', 'it counts from when the task is due, and no attempt starts later');
$scene = scene(url => $receiver->url('/hang'), time_budget => '700 ms', timeout => '1 min', max_attempts => 1000);
$id = enqueue($node, "'$scene'");
finished($id, 'a time budget that is shorter than the timeout');
is(story($id), 'failed -: expired', 'one attempt');
like(last_error($id), qr/^timeout: no answer within ([1-6]?\d?\d|700) ms$/, 'which may last as long as the budget');
$scene = scene(url => $receiver->url('/ok/late'), time_budget => '300 ms', paused => 't');
$id = enqueue($node, "'$scene', key => 'late'");
wait_sql($node, "SELECT expires_at < now() FROM retry.tasks WHERE id = '$id'", 'the budget ends while the scene is paused');
sql("UPDATE retry.scene SET paused = false WHERE name = '$scene'");
finished($id, 'no time left');
is(story($id), 'expired -: expired', 'an attempt that was not sent');
is(last_error($id), 'its time was over', 'says why');
is(sql("SELECT pendings FROM retry.attempt WHERE task_id = '$id'"), '1', 'and does not count');
is(scalar $receiver->ledger('late'), 0, 'nothing was sent');
$scene = scene(url => $receiver->url('/retry-control/processing'), pending_interval => '1 h', expires_after => '30 min');
$id = enqueue($node, "'$scene'");
finished($id, 'processing beyond the expiry');
is(story($id), 'processing 200: expired', 'what would be asked after its time is dead at once');

# A lowered max_attempts counts before the next attempt.
$scene = scene(url => $receiver->url('/status/500'), backoff => 'fixed 1h', max_attempts => 10);
$id = enqueue($node, "'$scene'");
foreach my $n (1 .. 3)
{
	wait_sql($node, "SELECT attempts FROM retry.tasks WHERE id = '$id'", "attempt $n", expected => $n);
	sql("UPDATE retry.scene SET max_attempts = 3 WHERE name = '$scene'") if $n == 3;
	sql("SELECT retry.run_now('$id')");
}
finished($id, 'attempts used up by a lower limit');
is(story($id), 'failed 500, failed 500, failed 500, failed -: exhausted', 'an attempt that was not sent');
is(last_error($id), 'its attempts were used up', 'says why');

# Every reason, and the letter in the transaction of the last attempt.
$node->append_conf('postgresql.conf', "retry.blocked_networks = '127.0.0.9/32'\nretry.allowed_networks = ''");
$node->reload;
wait_sql($node, 'SHOW retry.allowed_networks', 'one address is blocked', expected => '');
my $blocked = scene(url => $receiver->url('/ok') =~ s/127\.0\.0\.1/127.0.0.9/r);
my %reason = (
	exhausted => enqueue($node, "'" . scene(url => $receiver->url('/status/500'), max_attempts => 1) . "'"),
	expired => enqueue($node, "'" . scene(url => $receiver->url('/status/500'), time_budget => '1 s', backoff => 'fixed 1h') . "'"),
	stopped => enqueue($node, "'" . scene(url => $receiver->url('/status/400')) . "'"),
	gone => enqueue($node, "'" . scene(url => $receiver->url('/status/410')) . "'"));
$scene = scene(url => $receiver->url('/ok'), paused => 't');
$reason{rejected} = enqueue($node, "'$scene'");
sql("UPDATE retry.scene SET url = NULL, paused = false WHERE name = '$scene'");
wait_for(
	sub {
		$reason{blocked} = enqueue($node, "'$blocked'");
		sql("SELECT retry.wait('$reason{blocked}')") eq 'dead';
	},
	'the dispatcher has read what is blocked');
foreach my $reason (sort keys %reason)
{
	finished($reason{$reason}, $reason);
	is( sql("SELECT d.reason || ' ' || (d.xmin = a.xmin) FROM retry.dead_letter d JOIN retry.attempt a ON a.task_id = d.id WHERE d.id = '$reason{$reason}' AND a.next_due IS NULL"),
		"$reason true", "$reason: dead in the transaction of the last attempt");
}
is(sql("SELECT outcome || ' ' || error || ' ' || coalesce(pendings::text, '-') FROM retry.attempt WHERE task_id = '$reason{blocked}'"),
	'blocked blocked network: 127.0.0.9 is in 127.0.0.9/32 1', 'blocked: why, and it does not count');

is(sql("SELECT string_agg(check_name, ' ') FROM retry.health() WHERE status NOT IN ('ok', 'warning')"), '', 'all is well');
$node->stop;
done_testing();
