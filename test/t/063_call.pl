# retry.call(): attempts in the caller's session, and a task when they fail;
# whatever interrupts it leaves the session as it was.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Socket ();
use Test::More;

my $node = new_node('main');
my $receiver = start_endpoint();

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub url
{
	return $receiver->url($_[0]);
}

# A call's result, without the task's id, and the id.
sub call
{
	my ($arguments) = @_;
	my $row = sql("SELECT concat_ws(' ', state, coalesce(http_status::text, '-'), attempts, error) || '|' || coalesce(task_id::text, '') FROM retry.call($arguments)");
	return split /\|/, $row, 2;
}

sub attempts_of
{
	my ($key) = @_;
	return join ' ', map { "$_->{attempt}:$_->{status}" } $receiver->ledger($key);
}

# In the session.
my ($result, $id) = call("'${\url('/ok')}', '{}', key => 'ok', mode => 'local'");
is($result, 'succeeded 200 1', 'local: success');
is($id, '', 'no task');
($result) = call("'${\url('/flaky/2')}', key => 'flaky', mode => 'local', local_interval => '10 ms'");
is($result, 'succeeded 200 3', 'local: success at the third attempt');
is(attempts_of('flaky'), '1:500 2:500 3:200', 'under one key, with the attempts counted');
($result) = call("'${\url('/status/500')}', key => 'fails', mode => 'local', local_attempts => 4, local_interval => '10 ms'");
is($result, 'dead 500 4 status 500', 'local: all fail');
($result) = call("'${\url('/flaky/2')}', key => 'both', local_interval => '10 ms'");
is($result, 'succeeded 200 3', 'local_remote: success in the session');
foreach my $case (
	[ '/status/400', '400' ],
	[ '/status/410', '410' ],
	[ '/retry-control/stop?status=500', '500' ])
{
	my ($path, $status) = @$case;
	foreach my $mode ('local', 'local_remote')
	{
		($result, $id) = call("'${\url($path)}', mode => '$mode', local_interval => '10 ms'");
		is("$result $id", "dead $status 1 status $status ", "$mode: $path stops at once");
	}
}
($result) = call("'${\url('/hang')}', mode => 'local', local_attempts => 2, local_interval => '0', timeout => '300 ms'");
is($result, 'dead - 2 timeout: no answer within 300 ms', 'local: a receiver that hangs');
($result) = call("'${\url('/reset-mid')}', mode => 'local', local_attempts => 1");
like($result, qr/^dead 200 1 closed: connection reset .*body/, 'local: an answer that breaks off is none');
is(sql("SELECT length(response) FROM retry.call('${\url('/oversize/200000')}', mode => 'local')"), 65536, 'of a long answer, what is allowed is kept');
is(sql('SELECT count(*) FROM retry.task'), 0, 'nothing of all this was stored');

# The same request as the dispatcher's, but for what says when it was sent.
sub request_of
{
	my ($json) = @_;
	$json =~ s/"webhook-(?:id|timestamp)"\s*:\s*"[^"]*"//g;
	$json =~ s/\[\s*"(?:webhook-(?:id|timestamp))"\s*,\s*"[^"]*"\s*\]//gi;
	$json =~ s/webhook-(?:id|timestamp):? [^"\\]*//gi;
	return $json;
}
sql("INSERT INTO retry.scene (name, url, headers, method) VALUES ('echo', '${\url('/echo')}', '{\"X-Scene\": \"s\"}', 'PATCH')");
my $arguments = q('echo', '{"a": [1, "é"]}', key => 'same "request"', headers => '{"X-Task": "t"}');
my $local = sql("SELECT convert_from(response, 'UTF8') FROM retry.call($arguments, mode => 'local')");
$id = enqueue($node, $arguments);
wait_state($node, $id, 'succeeded', description => 'the same, enqueued');
my $remote = sql("SELECT convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$id'");
like($local, qr/PATCH.*Idempotency-Key.*Retry-Attempt.*X-Task.*X-Scene/s, 'the request of a call has all headers');
is(request_of($local), request_of($remote), 'and is that of the dispatcher');

# All fail: a task follows, with the same identity.
$receiver->reset;
($result, $id) = call("'${\url('/flaky/3')}', '{}', local_attempts => 2, local_interval => '10 ms', backoff => 'fixed 100ms', reference => 'handed over'");
is($result, 'pending 500 2 status 500', 'local_remote: handed over');
wait_state($node, $id, 'succeeded', description => 'the task succeeds');
is(attempts_of($id), '1:500 2:500 1:500 2:200', 'under the key of the calls before, its attempts counted anew');
is(sql("SELECT attempts || ' ' || reference FROM retry.tasks WHERE id = '$id'"), '2 handed over', 'the task knows its own attempts');
($result, $id) = call("'${\url('/echo?status=503')}', local_attempts => 1, backoff => 'fixed 1ms', max_attempts => 1");
wait_state($node, $id, 'dead', description => 'its webhook-id: the task is dead');
is(sql("SELECT count(*) FROM retry.attempts WHERE task_id = '$id' AND convert_from(response, 'UTF8') LIKE '%$id%$id%'"), 1,
	'webhook-id and Idempotency-Key are the id that the caller got');

# Rolled back, it leaves nothing.
$receiver->reset;
$id = sql("BEGIN; SELECT task_id FROM retry.call('${\url('/status/503')}', local_attempts => 1); ROLLBACK");
is(sql("SELECT count(*) FROM retry.task WHERE id = '$id'"), 0, 'after a rollback there is no task');

# Retry-After: kept to if it fits, else it is the task that waits.
($result) = call("'${\url('/retry-after/1?status=503&then=ok')}', key => 'after-1', mode => 'local', local_attempts => 3, local_interval => '1 s'");
is($result, 'succeeded 200 2', 'Retry-After that fits into the time for waiting');
my @requests = $receiver->ledger('after-1');
cmp_ok($requests[1]{mono_us} - $requests[0]{mono_us}, '>=', 1_000_000, 'is waited for');
($result) = call("'${\url('/retry-after/60?status=503&then=ok')}', key => 'after-60', mode => 'local', local_interval => '10 ms'");
is($result, 'dead 503 1 status 503; not to be asked again for 60 s', 'local: one that does not fit ends it');
($result, $id) = call("'${\url('/retry-after/60?status=503&then=ok')}', key => 'after-61', local_interval => '10 ms'");
is($result, 'pending 503 1 status 503; not to be asked again for 60 s', 'local_remote: then the task waits');
is(sql("SELECT due_at - created_at BETWEEN '59 s' AND '90 s' FROM retry.tasks WHERE id = '$id'"), 't', 'for as long as was asked');

# Time that is over, before an attempt and between two.
sql("INSERT INTO retry.scene (name, url, expires_after, backoff) VALUES ('brief', '${\url('/status/503')}', '1 s', 'fixed 1ms')");
($result) = call("'brief', key => 'brief', local_attempts => 100, local_interval => '300 ms'");
like($result, qr/^dead 503 \d+ its time was over$/, 'no attempt after the expiry');
@requests = $receiver->ledger('brief');
cmp_ok($requests[-1]{mono_us} - $requests[0]{mono_us}, '<=', 1_000_000, 'the receiver saw those before');

# The scene's rules; a receiver that is still at work is asked again.
sql("INSERT INTO retry.scene (name, url, pending_when, pending_interval) VALUES ('slow', '${\url('/processing/2')}', '\$.status == \"processing\"', '1 h')");
sql("INSERT INTO retry.scene (name, url, success_when, stop_when, success_status) VALUES ('picky', '${\url('/json?body=')}', '\$.done == true', '\$.wrong == true', '200,503')");
sql("INSERT INTO retry.scene (name, url, stop_errors) VALUES ('fragile', 'http://127.0.0.1:1/', 'connect')");
($result) = call("'slow', key => 'slow-1', mode => 'local', local_interval => '10 ms'");
is($result, 'succeeded 200 3', 'local: asked until it is done');
($result) = call("'slow', key => 'slow-2', mode => 'local', local_attempts => 2, local_interval => '10 ms'");
is($result, 'dead 202 2 still being processed, status 202', 'local: not done by the last attempt');
($result, $id) = call("'slow', key => 'slow-3', local_attempts => 1");
is($result, 'pending 202 1 still being processed, status 202', 'local_remote: a task asks on');
is(sql("SELECT due_at - created_at BETWEEN '59 min' AND '61 min' FROM retry.tasks WHERE id = '$id'"), 't', 'after pending_interval');
sql("SELECT retry.run_now('$id')");
wait_sql($node, "SELECT outcome FROM retry.attempts WHERE task_id = '$id' AND attempt_no = 1", 'it is not done yet', expected => 'processing');
sql("SELECT retry.run_now('$id')");
wait_state($node, $id, 'succeeded', description => 'and then it is');
($result) = call("'picky', url => '${\url('/json?status=503&body=%7B%22done%22%3Atrue%7D')}'");
is($result, 'succeeded 503 1', 'success_when and success_status');
($result) = call("'picky', url => '${\url('/json?body=%7B%22wrong%22%3Atrue%7D')}'");
like($result, qr/^dead 200 1 ./, 'stop_when');
($result) = call("'picky', url => '${\url('/json?body=%7B%22done%22%3Afalse%7D')}', mode => 'local', local_attempts => 2, local_interval => '0'");
like($result, qr/^dead 200 2 ./, 'success_when that does not match');
($result) = call("'fragile'");
is($result, 'dead - 1 connect: connection refused', 'stop_errors');

# Interrupts: whatever it waits for, and the session goes on.
sub waiting
{
	my ($session, $call, $pid, $name) = @_;

	$session->{stderr} = '';
	$session->query_until(qr/going/, "\\echo going\nSELECT retry.call($call);\n");
	wait_sql($node, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid AND query LIKE '%retry.call(%'", "$name: it waits", expected => 'Extension');
	return;
}

sub after
{
	my ($session, $error, $name) = @_;
	my $one = $session->query('SELECT 1');

	is($one, '1', "$name: the session goes on");
	like($session->{stderr}, qr/ERROR:  $error/, "$name: $error");
	$session->{stderr} = '';
	is($session->query("SELECT (retry.call('${\url('/ok')}', mode => 'local')).state"), 'succeeded', "$name: and calls again");
	return;
}
my @moments = (
	[ 'a hanging answer', "'${\url('/hang')}', mode => 'local', timeout => '1 h'" ],
	[ 'an endless answer', "'${\url('/endless')}', mode => 'local', timeout => '1 h'" ],
	[ 'the interval', "'${\url('/status/503')}', local_interval => '1 h'" ]);
my $session = session($node, on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
foreach my $moment (@moments)
{
	my ($name, $call) = @$moment;

	$receiver->reset;
	waiting($session, $call, $pid, $name);
	wait_for(sub { $receiver->stats->{total} == 1 }, "$name: the request is there");
	is(sql("SELECT pg_cancel_backend($pid)"), 't', "$name: cancelled");
	after($session, 'canceling statement due to user request', $name);
	wait_for(sub { $receiver->stats->{in_progress} == 0 }, "$name: the receiver is let go");

	$session->query_safe("SET statement_timeout = '300 ms'");
	$session->query("SELECT retry.call($call)");
	$session->query('RESET statement_timeout');
	after($session, 'canceling statement due to statement timeout', "$name, timed out");
}
waiting($session, $moments[0][1], $pid, 'in a subtransaction');
sql("SELECT pg_cancel_backend($pid)");
after($session, 'canceling statement', 'once more');
is( $session->query("DO \$\$ BEGIN PERFORM set_config('statement_timeout', '0', false); PERFORM retry.call('${\url('/hang')}', mode => 'local', timeout => '100 ms', local_attempts => 1); END \$\$; SELECT 2"),
	'2', 'inside a function too');

# While it connects: a listener whose queue is full answers nothing.
socket(my $listener, Socket::PF_INET(), Socket::SOCK_STREAM(), 0) or die "socket: $!";
bind($listener, Socket::sockaddr_in(0, Socket::INADDR_LOOPBACK())) or die "bind: $!";
listen($listener, 0) or die "listen: $!";
my ($port) = Socket::sockaddr_in(getsockname($listener));
my @fillers;
for (1 .. 4)
{
	socket(my $filler, Socket::PF_INET(), Socket::SOCK_STREAM(), 0) or die "socket: $!";
	$filler->blocking(0);
	connect($filler, Socket::sockaddr_in($port, Socket::INADDR_LOOPBACK()));
	push @fillers, $filler;
}
sql("INSERT INTO retry.scene (name, url, connect_timeout) VALUES ('full', 'http://127.0.0.1:$port/', '1 h')");
waiting($session, "'full', mode => 'local', timeout => '1 h'", $pid, 'connecting');
sql("SELECT pg_cancel_backend($pid)");
after($session, 'canceling statement due to user request', 'connecting');

# Terminated in the middle of it: no process is left, and no connection.
$receiver->reset;
waiting($session, $moments[0][1], $pid, 'terminated');
wait_for(sub { $receiver->stats->{total} == 1 }, 'terminated: the request is there');
is(sql("SELECT pg_terminate_backend($pid, 30000)"), 't', 'terminated while it waits');
wait_for(sub { $receiver->stats->{in_progress} == 0 }, 'the receiver is let go');
eval { $session->quit };
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP/, 'no crash');

# Nobody else is held up, and the settings of now count.
$node->append_conf('postgresql.conf', "retry.allowed_networks = ''");
sql("INSERT INTO retry.scene (name, url) VALUES ('kept', '${\url('/ok')}')");
$session = session($node, on_error_stop => 0);
is($session->query_safe("SELECT (retry.call('${\url('/ok')}', mode => 'local')).state"), 'succeeded', 'allowed, a connection is kept');
$node->reload;
wait_for(
	sub { $session->query_safe('SHOW retry.allowed_networks') eq '' },
	'nothing is allowed any more');
is($session->query_safe("SELECT c.state || ' ' || c.error FROM retry.call('kept') c"),
	'dead blocked network: 127.0.0.1 is in 127.0.0.0/8', 'the kept connection is not used');
$node->append_conf('postgresql.conf', "retry.allowed_networks = '127.0.0.0/8'");
$node->reload;
wait_for(
	sub { $session->query_safe('SHOW retry.allowed_networks') ne '' },
	'allowed again');

# A thousand calls leave neither memory nor descriptors behind.
my $other = start_endpoint();
# Contexts that are no caches' own; 18 tells where they are in another way.
my $not_cached = $node->pg_version < 18 ? "parent IS DISTINCT FROM 'CacheMemoryContext'" :
  "NOT path && ARRAY(SELECT c.path[cardinality(c.path)] FROM pg_backend_memory_contexts c WHERE c.name = 'CacheMemoryContext')";

sub many
{
	my ($count) = @_;

	$session->query_safe("SELECT count(*) FROM generate_series(1, $count) n, LATERAL (SELECT retry.call(CASE n % 4 WHEN 0 THEN '${\url('/status/503')}' WHEN 1 THEN '${\$other->url('/close')}' WHEN 2 THEN 'http://127.0.0.1:1/' ELSE '${\url('/ok')}' END, jsonb_build_object('n', n), mode => 'local', local_attempts => 1)) c");
	return $session->query_safe(
		"SELECT (SELECT count(*) FROM pg_ls_dir('/proc/' || pg_backend_pid() || '/fd')) || ' ' || (SELECT sum(used_bytes) FROM pg_backend_memory_contexts WHERE name <> 'CacheMemoryContext' AND $not_cached)"
			. " || ' ' || (SELECT substring(pg_read_file('/proc/' || pg_backend_pid() || '/status') FROM 'VmRSS:\\s*(\\d+)'))");
}
many(200);
my ($fds, $bytes, $rss) = split / /, many(200);
my ($fds_after, $bytes_after, $rss_after) = split / /, many(1000);
cmp_ok($fds_after, '<=', $fds + 4, "a thousand calls: descriptors $fds, then $fds_after");
my @crowd = map { start_endpoint() } 1 .. 10;
$session->query_safe("SELECT count(*) FROM (VALUES " . join(', ', map { "('" . $_->url('/ok') . "')" } @crowd) . ") v(url), LATERAL (SELECT retry.call(url, mode => 'local')) c");
my ($fds_crowd) = split / /, many(4);
cmp_ok($fds_crowd, '<=', $fds + 4, "and few connections are kept, to however many receivers: $fds, then $fds_crowd");
cmp_ok($bytes_after, '<=', $bytes + 65536, "memory contexts $bytes, then $bytes_after");
cmp_ok($rss_after, '<=', $rss + 2048, "resident kB $rss, then $rss_after");
$session->quit;

# On a server that does not preload the library too.
my $plain = new_node('plain', preload => 0);
$plain->append_conf('postgresql.conf', "retry.allowed_networks = '127.0.0.0/8'");
$plain->reload;
is($plain->safe_psql('postgres', "SELECT state FROM retry.call('${\url('/ok')}', mode => 'local')"),
	'succeeded', 'a local call needs no workers');

# The postmaster dies while a call waits: the session ends with it.
$receiver->reset;
$session = session($node, on_error_stop => 0);
$pid = $session->query_safe('SELECT pg_backend_pid()');
waiting($session, $moments[0][1], $pid, 'crash');
wait_for(sub { $receiver->stats->{in_progress} == 1 }, 'the request is there');
$node->kill9;
wait_for(sub { !kill(0, $pid) }, 'the session ends with the server');
wait_for(sub { $receiver->stats->{in_progress} == 0 }, 'and its request');

$plain->stop;
done_testing();
