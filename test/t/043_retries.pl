# What receivers do and what becomes of the task: outcome, error, next attempt,
# dead letter; and what an administrator may ask of a task meanwhile.
use strict;
use warnings FATAL => 'all';

use POSIX qw(strftime);
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main');
hold_nothing($node);
my $receiver = start_endpoint();
my $gone = start_endpoint();
my $refusing = 'http://127.0.0.1:' . $gone->port . '/';
$gone->stop;

sub sql
{
	return ask($node, $_[0]);
}

sub wait_finished
{
	my ($where, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_sql($node,
		"SELECT count(*) FROM retry.tasks WHERE $where AND state IN ('pending', 'running', 'retrying')",
		$what, expected => '0');
	return;
}

# Each: path or URL, then what its attempts say (outcome and status; two equal
# ones when it is retried), why it is dead, and the error.
my @table = (
	[ '/ok', 'succeeded 200', '', '' ],
	[ '/status/204', 'succeeded 204', '', '' ],
	(map { [ "/status/$_", "failed $_, failed $_", 'exhausted', '' ] } 301, 304, 401, 403, 404, 408, 429, 500, 502, 503),
	(map { [ "/status/$_", "stopped $_", 'stopped', '' ] } 400, 405, 406, 411, 413, 414, 415, 422, 431, 451, 501, 505),
	[ '/status/410', 'stopped 410', 'gone', '' ],
	[ '/retry-control/stop?status=500', 'stopped 500', 'stopped', '' ],
	[ '/retry-control/stop?status=200', 'stopped 200', 'stopped', '' ],
	[ '/redirect/302?to=' . $receiver->url('/ok/redirected'), 'failed 302, failed 302', 'exhausted', '' ],
	[ '/redirect/307?to=' . $receiver->url('/ok/redirected'), 'failed 307, failed 307', 'exhausted', '' ],
	[ '/oversize/200000', 'succeeded 200', '', '' ],
	[ '/oversize/30000000', 'succeeded 200', '', '' ],
	[ '/encoding', 'succeeded 200', '', '' ],
	[ '/gzip-lie', 'succeeded 200', '', '' ],
	[ '/answer-twice?status=200&then=500', 'succeeded 200', '', '' ],
	[ '/answer-early?status=200&close=1', 'succeeded 200', '', '' ],
	[ '/early-close-keepalive', 'succeeded 200', '', '' ],
	[ '/early-close-keepalive?reset=1', 'succeeded 200', '', '' ],
	[ '/100-continue?n=5', 'succeeded 200', '', '' ],
	[ '/flaky/1?fail=500', 'failed 500, succeeded 200', '', '' ],
	[ '/hang', 'failed -, failed -', 'exhausted', '^timeout: no answer within 400 ms$' ],
	[ '/hang-accept', 'failed -, failed -', 'exhausted', '^timeout: no answer within 400 ms$' ],
	[ '/delay/5000', 'failed -, failed -', 'exhausted', '^timeout: no answer within 400 ms$' ],
	[ '/drip?bytes=100&ms=50', 'failed 200, failed 200', 'exhausted', '^timeout: answer not complete within 400 ms: \d+ of 100 bytes of its body came \(status 200\)$' ],
	[ '/endless', 'failed 200, failed 200', 'exhausted', '^timeout: answer not complete within 400 ms: \d+ bytes of its body came \(status 200\)$' ],
	[ '/reset', 'failed -, failed -', 'exhausted', '^closed: connection reset before any answer$' ],
	[ '/close', 'failed -, failed -', 'exhausted', '^closed: connection closed.* before any answer$' ],
	[ '/reset-mid', 'failed 200, failed 200', 'exhausted', '^closed: connection reset .*body.*\(status 200\)$' ],
	[ '/malformed/status-line', 'failed -, failed -', 'exhausted', '^malformed: answer is not valid HTTP' ],
	[ '/malformed/chunk', 'failed 200, failed 200', 'exhausted', '^malformed: answer is not valid HTTP' ],
	[ '/malformed/length', 'failed 200, failed 200|failed -, failed -', 'exhausted', '.' ],
	[ '/malformed/nul', 'failed 200, failed 200|failed -, failed -', 'exhausted', '^malformed: answer is not valid HTTP' ],
	[ $refusing, 'failed -, failed -', 'exhausted', '^connect: connection refused$' ],
	[ 'http://no-such-host.invalid/', 'failed -, failed -', 'exhausted', '^(?:dns: host name could not be|connect_timeout: host name not) resolved' ],
);

my $n = 0;
foreach my $case (@table)
{
	my $url = $case->[0] =~ /^http/ ? $case->[0] : $receiver->url($case->[0]);
	my $timeout = $case->[3] =~ /400 ms/ ? '400 ms' : '10 s';
	sql("SELECT retry.enqueue('$url', reference => 'case-" . $n++ . "', timeout => '$timeout', max_attempts => 2, backoff => 'fixed 50ms')");
}
wait_finished("reference LIKE 'case-%'", 'all kinds of answers: all tasks have finished');
$n = 0;
foreach my $case (@table)
{
	my ($path, $attempts, $reason, $error) = @$case;
	my $got = sql("SELECT string_agg(outcome || ' ' || coalesce(http_status::text, '-'), ', ' ORDER BY attempt_no) || E'\\n' || (array_agg(coalesce(error, '') ORDER BY attempt_no DESC))[1] FROM retry.attempts a WHERE a.task_id = (SELECT id FROM retry.tasks WHERE reference = 'case-$n')");
	my ($got_attempts, $got_error) = split /\n/, $got, 2;
	my $name = length $path > 60 ? substr($path, 0, 57) . '...' : $path;
	like($got_attempts, qr/^(?:$attempts)$/, "$name: $attempts");
	is(sql("SELECT coalesce(max(reason::text), '') FROM retry.dead_letters WHERE reference = 'case-$n'"),
		$reason, "$name: " . ($reason || 'no dead letter'));
	if ($error eq '')
	{
		is($got_error // '', '', "$name: no error");
	}
	else
	{
		like($got_error // '', qr/$error/, "$name: $error");
	}
	$n++;
}
is( sql("SELECT length(response) FROM retry.attempts WHERE task_id = (SELECT id FROM retry.tasks WHERE url LIKE '%/oversize/200000')"),
	65536, 'of a long answer, what is allowed is kept');
is(scalar(grep { $_->{path} =~ m{^/ok/redirected} } $receiver->ledger), 0, 'redirects are not followed');

# A network that is not allowed.
$node->append_conf('postgresql.conf', "retry.allowed_networks = ''");
$node->reload;
wait_sql($node, 'SHOW retry.allowed_networks', 'nothing is allowed', expected => '');
sql("INSERT INTO retry.scene (name, url) VALUES ('blocked', '" . $receiver->url('/ok/blocked') . "')");
wait_for(
	sub {
		my $id = enqueue($node, q('blocked'));
		sql("SELECT retry.wait('$id')");
		sql("SELECT reason || ' ' || attempts || ' ' || last_error FROM retry.dead_letters WHERE id = '$id'")
		  eq 'blocked 1 blocked network: 127.0.0.1 is in 127.0.0.0/8';
	},
	'a blocked network: dead at once, and why');
sql_fails($node, "SELECT retry.enqueue('" . $receiver->url('/ok/blocked') . "')", '42501',
	qr/host "127\.0\.0\.1:\d+" is in a blocked network, 127\.0\.0\.0\/8/, 'an address that is given with the task is refused at once');
$node->append_conf('postgresql.conf', "retry.allowed_networks = '127.0.0.0/8'");
$node->reload;
wait_for(
	sub {
		my $id = enqueue($node, "'" . $receiver->url('/ok/allowed') . "'");
		sql("SELECT retry.wait('$id')") eq 'succeeded';
	},
	'allowed again');

# When: by the receiver's clock, no attempt before its time.
$receiver->reset;
my $date = strftime('%a,%%20%d%%20%b%%20%Y%%20%H:%M:%S%%20GMT', gmtime(time() + 3));
sql(<<"SQL");
SELECT retry.enqueue('${\$receiver->url('/status/500')}', key => 'fixed', max_attempts => 5, backoff => 'fixed 200ms');
SELECT retry.enqueue('${\$receiver->url('/status/500')}', key => 'levels', max_attempts => 5, backoff => 'levels 100ms,200ms,400ms');
SELECT retry.enqueue('${\$receiver->url('/status/500')}', key => 'jitter', max_attempts => 6, backoff => 'exponential 50ms max 2s jitter decorrelated');
SELECT retry.enqueue('${\$receiver->url('/retry-after/2?status=503&then=ok')}', lane => 'seconds', key => 'seconds', backoff => 'fixed 50ms');
SELECT retry.enqueue('${\$receiver->url("/retry-after/$date?status=503&then=ok")}', lane => 'date', key => 'date', backoff => 'fixed 50ms');
SELECT retry.enqueue('${\$receiver->url('/status/500')}', key => 'cron', max_attempts => 2, backoff => 'cron ''* * * * *''');
SELECT retry.enqueue('${\$receiver->url('/status/500')}', key => 'expires', expires_at => now() + '1 s', max_attempts => 1000, backoff => 'fixed 300ms');
SQL
wait_finished("key IN ('fixed', 'levels', 'jitter', 'seconds', 'date', 'expires')", 'different backoffs: all have finished');
foreach my $key (qw(fixed levels jitter seconds date expires))
{
	my @requests = $receiver->ledger($key);
	my @attempts = split /\n/, sql("SELECT attempt_no || ' ' || coalesce((extract(epoch FROM next_due) * 1000000)::bigint, 0) FROM retry.attempts WHERE task_id = (SELECT id FROM retry.tasks WHERE key = '$key') ORDER BY attempt_no");
	my $early = 0;
	my $due = 0;

	is(join(' ', map { $_->{attempt} } @requests), join(' ', 1 .. @requests), "$key: attempts are numbered");
	foreach my $i (0 .. $#attempts)
	{
		my ($no, $next) = split / /, $attempts[$i];
		$early++ if defined $requests[$i] && $requests[$i]{wall_us} < $due;
		$due = $next;
	}
	is($early, 0, "$key: none was early");
}
sub delays
{
	return sql("SELECT string_agg(round(extract(epoch FROM next_due - started_at - duration) * 1000)::text, ' ' ORDER BY attempt_no) FROM retry.attempts WHERE next_due IS NOT NULL AND task_id = (SELECT id FROM retry.tasks WHERE key = '$_[0]')");
}
like(delays('fixed'), qr/^20\d 20\d 20\d 20\d$/, 'fixed 200ms');
like(delays('levels'), qr/^10\d 20\d 40\d 40\d$/, 'levels');
{
	my @delays = split / /, delays('jitter');
	my $last = 50;
	my $wrong = 0;
	foreach (@delays)
	{
		$wrong++ if $_ < 48 || $_ > 3 * $last + 10;
		$last = $_ < 50 ? 50 : $_;
	}
	is($wrong, 0, "decorrelated jitter: each within three times the last: @delays");
}
like(delays('seconds'), qr/^200\d$/, 'Retry-After in seconds is not before');
is( sql("SELECT a.next_due >= to_timestamp(" . (time() - 3600) . ") AND extract(microseconds FROM a.next_due)::int % 1000000 = 0 FROM retry.attempts a JOIN retry.tasks t ON t.id = a.task_id WHERE t.key = 'date' AND a.attempt_no = 1"),
	't', 'Retry-After as a date is that second');
# its state may have moved on: the minute may be over
wait_sql($node, "SELECT extract(microseconds FROM a.next_due)::int FROM retry.attempts a JOIN retry.tasks t ON t.id = a.task_id WHERE t.key = 'cron' AND a.attempt_no = 1",
	'cron: the next minute', expected => '0');
is( sql("SELECT reason, attempts BETWEEN 1 AND 5, (SELECT max(started_at) <= t.expires_at FROM retry.attempts WHERE task_id = t.id) FROM retry.dead_letters t WHERE key = 'expires'"),
	'expired|t|t', 'expires_at: dead, and no attempt after');

# Expired before it could be sent at all.
sql("INSERT INTO retry.scene (group_name, name, url, paused) VALUES ('default', 'held', '" . $receiver->url('/ok/held') . "', true)");
my $id = enqueue($node, "'held', expires_at => now() + '200 ms', key => 'held'");
wait_sql($node, "SELECT expires_at < now() FROM retry.tasks WHERE id = '$id'", 'it expires while it is held');
sql("UPDATE retry.scene SET paused = false WHERE name = 'held'");
wait_state($node, $id, 'dead', description => 'an expired task dies');
is(sql("SELECT reason FROM retry.dead_letters WHERE id = '$id'"), 'expired', 'as expired');
is(sql("SELECT attempt_no || ' ' || outcome FROM retry.attempts WHERE task_id = '$id'"), '1 expired', 'by an attempt that was not sent');
is(scalar $receiver->ledger('held'), 0, 'and was not sent');

# The scene's limits, and the task's own.
sql("INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts, timeout) VALUES ('default', 'own', '" . $receiver->url('/hang') . "', 'fixed 1h', 9, '1 min')");
$id = enqueue($node, "'own', backoff => 'fixed 50ms', max_attempts => 3, timeout => '200 ms'");
wait_state($node, $id, 'dead', description => "a task's own backoff, max_attempts and timeout");
is(sql("SELECT string_agg(DISTINCT attempts || ' ' || last_error, ', ') FROM retry.dead_letters WHERE id = '$id'"),
	'3 timeout: no answer within 200 ms', 'are those that count');

# A snapshot that shows the last attempt shows the dead letter.
{
	my $seen = 0;
	my $without = 0;
	sql("SELECT count(*) FROM retry.enqueue_many('" . $receiver->url('/status/400') . "', array_fill('{}'::jsonb, ARRAY[3000]), lane => 'deaths')");
	wait_for(
		sub {
			my ($deaths, $missing) = split /\|/, sql(<<'SQL');
SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (SELECT FROM retry.dead_letter d WHERE d.id = a.task_id))
FROM retry.attempt a WHERE next_due IS NULL AND http_status = 400
SQL
			$without += $missing;
			$seen++;
			$deaths >= 3000;
		},
		'3000 tasks die');
	is($without, 0, "in $seen snapshots none had died without its letter");
}

# Cancelling, by where the task is.
$receiver->reset;
sql(<<"SQL");
INSERT INTO retry.scene (group_name, name, url, backoff, max_in_flight) VALUES
	('default', 'failing', '${\$receiver->url('/status/500')}', 'fixed 1h', NULL),
	('default', 'narrow', '${\$receiver->url('/delay/4000')}', 'fixed 1h', 1),
	('default', 'failslate', '${\$receiver->url('/delay/4000?status=500')}', 'fixed 100ms', 1);
SQL
my %task = map { $_->[0] => enqueue($node, "$_->[1], key => '$_->[0]'") } (
	[ 'far', "'failing', delay => '1 h'" ],
	[ 'retrying', "'failing'" ],
	[ 'running', "'narrow'" ],
	[ 'queued', "'narrow'" ],
	[ 'failing', "'failslate'" ]);
wait_state($node, $task{retrying}, 'retrying');
wait_state($node, $task{running}, 'running');
wait_state($node, $task{failing}, 'running');

# all at once: the two that are running must not end meanwhile
is(sql("SELECT " . join(' AND ', map { "retry.cancel('$task{$_}')" } sort keys %task)), 't', 'all are cancelled');
wait_state($node, $task{running}, 'succeeded', description => 'running: it succeeded, and that counts');
wait_state($node, $task{failing}, 'cancelled', description => 'running: it failed, and is cancelled');
wait_state($node, $task{$_}, 'cancelled', description => "$_: it is cancelled") foreach qw(far retrying queued);
my $after = enqueue($node, "'narrow', key => 'after'");
wait_state($node, $after, 'succeeded', description => 'what is enqueued after goes through');
is(scalar $receiver->ledger($_->[0]), $_->[1], "$_->[0]: requests: $_->[1]")
  foreach ([ 'far', 0 ], [ 'retrying', 1 ], [ 'running', 1 ], [ 'queued', 0 ], [ 'failing', 1 ]);
is(sql("SELECT retry.cancel('$task{running}')"), 'f', 'one that has finished cannot be cancelled');
is(sql("SELECT retry.run_now('$task{running}')"), 'f', 'nor run again');

# Run now.
$id = enqueue($node, "'failing', key => 'now'");
wait_state($node, $id, 'retrying');
foreach my $attempt (2 .. 4)
{
	is(sql("SELECT retry.run_now('$id')"), 't', "run_now $attempt");
	wait_sql($node, "SELECT attempts FROM retry.tasks WHERE id = '$id'", "makes attempt $attempt", expected => $attempt);
}
is(join(' ', map { $_->{attempt} } $receiver->ledger('now')), '1 2 3 4', 'the receiver saw each once');
$id = enqueue($node, "'" . $receiver->url('/ok') . "', delay => '1 h'");
sql("SELECT retry.run_now('$id')");
wait_state($node, $id, 'succeeded', description => 'run_now of one that was due later');

# Replay.
sql("INSERT INTO retry.scene (group_name, name, url, max_attempts) VALUES ('default', 'dying', '" . $receiver->url('/status/500') . "', 1)");
my @dead = map { enqueue($node, "'dying', key => 'dead-$_'") } 1 .. 20;
wait_finished("scene = 'default/dying'", 'twenty die');
sql("UPDATE retry.scene SET url = '" . $receiver->url('/ok') . "' WHERE name = 'dying'");
my $again = sql("SELECT retry.replay('$dead[0]')");
wait_state($node, $again, 'succeeded', description => 'a replay succeeds');
is(join(' ', map { "$_->{attempt} $_->{status}" } $receiver->ledger('dead-1')), '1 500 1 200', 'under the same key, its attempts counted anew');
is(sql("SELECT replay_of FROM retry.tasks WHERE id = '$again'"), $dead[0], 'it names its original');
is(sql("SELECT retry.replay_dead('dying', spread => '1 s')"), 19, 'replay_dead replays the others');
is(sql("SELECT retry.replay_dead('dying')"), 0, 'and none a second time');
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/dying' AND replay_of IS NOT NULL AND state = 'succeeded'",
	'all have succeeded', expected => 20);
is(sql("SELECT max(due_at) - min(due_at) BETWEEN '500 ms' AND '1 s' FROM retry.tasks WHERE replay_of IS NOT NULL AND replay_of <> '$dead[0]'"),
	't', 'spread over the time that was asked for');
is(sql("SELECT count(*) FROM retry.dead_letters WHERE scene = 'default/dying' AND replayed_as IS NOT NULL"), 20, 'each letter names its replay');

# Wait.
$id = enqueue($node, "'" . $receiver->url('/delay/300') . "'");
is(sql("SELECT retry.wait('$id')"), 'succeeded', 'wait waits for the end');
$id = enqueue($node, "'" . $receiver->url('/ok') . "', delay => '1 h'");
is(sql("SELECT retry.wait('$id', '50 ms')"), 'pending', 'and not longer than it was told');

$node->stop;
done_testing();
