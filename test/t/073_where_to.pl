# Attacks: by who may only write URLs, headers and keys, by who owns a name
# server, and by who answers.  What must not be reached is a receiver on
# 127.0.0.1 and ::1, which counts what it gets; all that is allowed is
# 127.0.0.2.  Each case passes because its attack fails; test/attack/without
# removes the defences, one after the other, and shows which cases fail then.
# The part of a case's name before the colon is what it names there.
# Slow.
use strict;
use warnings FATAL => 'all';

use Encode qw(encode_utf8);
use IPC::Run;
use MIME::Base64;
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Cases 'every_case_has_its_set';
use RetryTest::Resolver;
use RetryTest::Rogue;
use Test::More;
use utf8;

my $inner = start_endpoint();
my $port = $inner->port;
my $inner6 = eval { start_endpoint(host => '::1', port => $port) };
my $out = start_endpoint(host => '127.0.0.2');
my $rogue = RetryTest::Rogue->new('127.0.0.2');
my $out_port = $out->port;
my $names = RetryTest::Resolver->new('out.test' => '127.0.0.2');
my $node = new_node('main', start => 0, conf => "retry.allowed_networks = '127.0.0.2/32'");
my $statements = -e $node->config_data('--pkglibdir') . '/pg_stat_statements.so';
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'retry, pg_stat_statements'") if $statements;
my %wicked = map { $_ => "http://127.0.0.1:$port", uc $_ => "http://127.0.0.1:$port" } qw(http_proxy https_proxy all_proxy);
$names->start($node, %wicked, no_proxy => 'other.test', HOME => $node->basedir, CURL_HOME => $node->basedir);
$node->safe_psql('postgres', 'CREATE EXTENSION retry');
hold_nothing($node);
sql("UPDATE retry.scene SET max_attempts = 1, timeout = '20 s'");

sub sql
{
	return ask($node, $_[0]);
}

sub quoted
{
	my ($text) = @_;

	return "'" . $text =~ s/'/''/gr . "'";
}

# Requests that came where none may come, since this was last asked.
my $inside = 0;
sub reached
{
	my $n = 0;

	foreach my $place ($inner, $inner6 // ())
	{
		$n += $place->stats->{total};
		$place->reset;
	}
	$inside += $n;
	return $n;
}

# What a statement that gives a task's id leads to: how that ends; or the error.
sub fate
{
	my ($statement) = @_;
	my ($rc, $id, $err) = $node->psql('postgres', encode_utf8($statement), on_error_stop => 1,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	return "refused $1" if $err =~ /ERROR:  (\w{5})/;
	return "?$err" if $id !~ /^[0-9a-f-]{36}$/;
	sql("SELECT retry.wait('$id')");
	return sql("SELECT concat_ws(' ', t.state, d.reason, CASE WHEN d.reason <> 'blocked' THEN coalesce(split_part(t.last_error, ':', 1), 'status ' || t.last_status) END) FROM retry.tasks t LEFT JOIN retry.dead_letters d USING (id) WHERE t.id = '$id'");
}

# attack(NAME, URL, FATE): what becomes of a task to the URL; nothing gets inside.
sub attack
{
	my ($name, $url, $expected) = @_;
	my $fate = fate('SELECT retry.enqueue(' . quoted($url) . ", '{}')");
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($fate . ', ' . reached() . ' inside', "$expected, 0 inside", encode_utf8($name));
	return;
}

# scene(NAME, COLUMN => VALUE ...): a scene.
sub scene
{
	my ($name, %column) = (@_, timeout => '20 s', max_attempts => 1);

	sql("INSERT INTO retry.scene (name, breaker_ratio, " . join(', ', sort keys %column) . ") VALUES ('$name', NULL, "
		  . join(', ', map { quoted($column{$_}) } sort keys %column) . ")");
	return;
}

# The receiver's address is what makes the attacks worth anything.
attack('control: what is allowed is reached', $out->url('/ok'), 'succeeded');
attack('control: by its name too', "http://out.test:$out_port/ok", 'succeeded');

# Every way to write the address; what reads it strictly is before what judges it.
my $any = 'refused 22023';
my $known = 'refused 42501';
my @forms = (
	[ 'literal: dotted', '127.0.0.1', $known ],
	[ 'literal: another of its network', '127.255.255.254', $known ],
	[ 'literal: with a final dot', '127.0.0.1.', $known ],
	[ 'literal: all of this host', '0.0.0.0', $known ],
	[ 'literal: link-local', '169.254.169.254', $known ],
	[ 'literal: broadcast', '255.255.255.255', $known ],
	[ 'literal: IPv6', '[::1]', $known ],
	[ 'literal: IPv6 in full', '[0000:0000:0000:0000:0000:0000:0000:0001]', $known ],
	[ 'literal: IPv6 of all of this host', '[::]', $known ],
	[ 'embedded: mapped', '[::ffff:127.0.0.1]', $known ],
	[ 'embedded: mapped, hexadecimal', '[::FFFF:7F00:1]', $known ],
	[ 'embedded: translated', '[::ffff:0:127.0.0.1]', $known ],
	[ 'embedded: NAT64', '[64:ff9b::7f00:1]', $known ],
	[ 'embedded: NAT64 of local use', '[64:ff9b:1:7f00:0:100::]', $known ],
	[ 'embedded: 6to4', '[2002:7f00:1::]', $known ],
	[ 'embedded: ISATAP', '[2a00::5efe:7f00:1]', $known ],
	[ 'literal: Teredo', '[2001:0:1:2:3:4:80ff:fffe]', $known ],
	[ 'localhost', 'localhost', $known ],
	[ 'localhost: capitals', 'LOCALHOST', $known ],
	[ 'localhost: with a final dot', 'localhost.', $known ],
	[ 'localhost: below it', 'any.thing.localhost', $known ],
	[ 'number: decimal', '2130706433', $any ],
	[ 'number: hexadecimal', '0x7f000001', $any ],
	[ 'number: octal', '017700000001', $any ],
	[ 'number: octal parts', '0177.0.0.1', $any ],
	[ 'number: hexadecimal parts', '0x7f.0x0.0x0.0x1', $any ],
	[ 'number: two parts', '127.1', $any ],
	[ 'number: three parts', '127.0.1', $any ],
	[ 'number: zeros before it', '127.000.000.001', $any ],
	[ 'number: nothing', '0', $any ],
	[ 'number: too large', '4294967297', $any ],
	[ 'number: too large a part', '383.0.0.1', $any ],
	[ 'host: zone', '[::1%lo]', $any ],
	[ 'host: encoded zone', '[::1%25lo]', $any ],
	[ 'host: percent-encoded', '127.0.0.%31', $any ],
	[ 'host: a name percent-encoded', '%6cocalhost', $any ],
	[ 'host: encoded NUL', 'localhost%00.out.test', $any ],
	[ 'host: fullwidth digits', "\x{ff11}\x{ff12}\x{ff17}.0.0.\x{ff11}", $any ],
	[ 'host: digits in circles', "\x{2460}\x{2461}\x{2466}.0.0.\x{2460}", $any ],
	[ 'host: ideographic full stop', "127\x{3002}0\x{3002}0\x{3002}1", $any ],
	[ 'host: fullwidth letters', "\x{ff4c}ocalhost", $any ],
	[ 'host: soft hyphen', "local\x{ad}host", $any ],
	[ 'host: a tab inside', "local\thost", $any ],
	[ 'host: empty', '', $any ],
	[ 'host: IPv6 without brackets', '::1', $any ],
	[ 'host: name in brackets', '[localhost]', $any ]);
attack("$_->[0], $_->[1]", "http://$_->[1]:$port/ok", $_->[2]) foreach @forms;

# URLs that two readers might read in two ways.
my @readings = (
	[ 'reading: credentials', "http://out.test\@127.0.0.1:$port/ok", $any ],
	[ 'reading: credentials with the port', "http://out.test:$out_port\@127.0.0.1:$port/ok", $any ],
	[ 'reading: host in credentials', "http://127.0.0.1:$port\@out.test:$out_port/ok", $any ],
	[ 'reading: backslash', "http://out.test:$out_port\\\@127.0.0.1:$port/ok", $any ],
	[ 'reading: fragment', "http://out.test:$out_port#\@127.0.0.1:$port/ok", 'succeeded' ],
	[ 'reading: query', "http://out.test:$out_port?\@127.0.0.1:$port/ok", 'succeeded' ],
	[ 'reading: capital scheme', "HTTP://127.0.0.1:$port/ok", $known ],
	[ 'reading: no slashes', "http:127.0.0.1:$port/ok", $any ],
	[ 'reading: one slash', "http:/127.0.0.1:$port/ok", $any ],
	[ 'reading: three slashes', "http:///127.0.0.1:$port/ok", $any ],
	[ 'reading: no scheme', "//127.0.0.1:$port/ok", $any ],
	[ 'reading: blank before', " http://127.0.0.1:$port/ok", $any ],
	[ 'reading: line break in it', "http://out.test:$out_port/ok HTTP/1.1\r\nHost: inner\r\n\r\nGET /ok", $any ],
	[ 'reading: two ports', "http://out.test:$out_port:$port/ok", $any ],
	[ 'reading: port too large', 'http://127.0.0.2:' . ($out_port + 65536) . '/ok', $any ]);
attack(@$_) foreach @readings;
attack("scheme: $_", "$_/etc/passwd", $any)
  foreach qw(file:// file://localhost FILE:// gopher://127.0.0.1 dict://127.0.0.1 ftp://127.0.0.1 ldap://127.0.0.1 telnet://127.0.0.1
  scp://127.0.0.1 smb://127.0.0.1 unix:// http+unix://%2Ftmp%2Fs ws://127.0.0.1 data:text/plain https+http://127.0.0.1 smtp://127.0.0.1 smtps://127.0.0.1 smtp+plaintext://127.0.0.1);

# Names: whoever owns one may lead it anywhere, and elsewhere the next time.
my %led = (
	'loopback' => '127.0.0.1', 'this host' => '0.0.0.0', 'IPv6' => '::1', 'IPv6 of this host' => '::', 'mapped' => '::ffff:127.0.0.1',
	'link-local' => '169.254.169.254', 'NAT64' => '64:ff9b::7f00:1', '6to4' => '2002:7f00:1::');
foreach my $way (sort keys %led)
{
	my $name = lc($way) =~ s/\W/-/gr . '.test';

	$names->set($name => $led{$way});
	attack("name: that leads to $way", "http://$name:$port/ok", 'dead blocked');
}
$names->set('both.test' => '127.0.0.2,127.0.0.1', 'turns.test' => '127.0.0.2 127.0.0.1', 'localhost.test' => '127.0.0.1');
attack('name: of two addresses the forbidden one, as the other does not answer', "http://both.test:$port/ok", 'dead exhausted connect');
attack('name: that looks like localhost', "http://localhost.test:$port/ok", 'dead blocked');
my $session = session($node, on_error_stop => 0);
is($session->query_safe("SELECT state FROM retry.call('http://turns.test:$out_port/ok', mode => 'local')"), 'succeeded',
	'rebinding: it leads to an allowed address at first');
is($session->query_safe("SELECT error FROM retry.call('http://turns.test:$port/ok', mode => 'local')") . ', ' . reached(),
	'blocked network: 127.0.0.1 is in 127.0.0.0/8, 0', 'rebinding: and to a forbidden one when it is asked for again');
$session->quit;
$names->set('later.test' => '127.0.0.2');
scene('later', url => "http://later.test:$out_port/ok");
is(fate("SELECT retry.enqueue('later')"), 'succeeded', 'rebinding: a name that is well when its scene is made');
$names->set('later.test' => '127.0.0.1');
$node->stop;
$names->start($node, %wicked);
scene('later2', url => "http://later.test:$port/ok");
is(fate("SELECT retry.enqueue('later2')") . ', ' . reached(), 'dead blocked, 0', 'rebinding: is judged when it is called');

# Mail servers are reached by channels alone, and those are judged as others are.
sql("CREATE ROLE poster; INSERT INTO retry.scene_group (name, owner) VALUES ('post', 'poster')");
is(fate("INSERT INTO retry.scene (name, url) VALUES ('post', 'smtp://127.0.0.1:$port')"), $any, 'mail: no URL of a scene');
is(fate("INSERT INTO retry.scene (name, targets) VALUES ('post', '{smtp://127.0.0.1:$port}')"), $any, 'mail: no target of one');
is(fate("SET ROLE poster; INSERT INTO retry.scene (group_name, name, mail) VALUES ('post', 'own', '{}')"), $known, 'mail: what a channel sets nobody else does');
is(fate("SELECT retry.enqueue('later', url => 'smtp://127.0.0.1:$port')"), $any, 'mail: no URL of a task');
is(fate("SET ROLE poster; INSERT INTO retry.channel (group_name, name, kind, url) VALUES ('post', 'hook', 'webhook', 'smtp://127.0.0.1:$port')"), 'refused 23514', 'mail: of channels only those of that kind');
$names->set('mail.test' => '127.0.0.1');
sql("SET ROLE poster; INSERT INTO retry.channel (group_name, name, kind, url, mail_from, mail_to) VALUES ('post', 'mail', 'email', 'smtp+plaintext://mail.test:$port', 'a\@b', '{c\@d}')");
sql("UPDATE retry.scene SET max_attempts = 1, timeout = '20 s' WHERE name = 'alarm-mail'");
is(fate("SET ROLE poster; SELECT retry.test_channel('mail', 'post')"), 'dead blocked', 'mail: by a name that leads inside');
is(fate("SET ROLE poster; SELECT retry.enqueue('post/alarm-mail', '{\"subject\": \"\", \"text\": \"\"}', url => '" . $out->url('/ok') . "')"), $any, 'mail: its scene sends nothing else');
is(fate("SET ROLE poster; UPDATE retry.scene SET url = '" . $out->url('/ok') . "' WHERE name = 'alarm-mail'"), 'refused 23514', 'mail: nor is it told to');
is(fate("SET ROLE poster; SELECT retry.enqueue('post/alarm-mail', '{\"subject\": \"\", \"text\": \"\", \"to\": \"eve\@d\"}')"), 'dead rejected it is a mail to somebody who is not among the recipients of its channel', 'mail: to whom its channel does not name');

# By all ways that a URL may take, not only as a target.
my $forbidden = "http://127.0.0.1:$port/ok";
sub refused_way
{
	my ($name, $statement) = @_;

	is(fate($statement) . ', ' . reached(), 'refused 42501, 0', "way: $name");
	return;
}
scene('inner', url => $forbidden);
scene('targets', targets => "{$forbidden}");
scene('everybody', targets => "{$forbidden,$forbidden?2}", route => 'all');
scene('tells', url => $out->url('/ok'), on_success => $forbidden);
is(fate("SELECT retry.enqueue('inner')") . ', ' . reached(), 'dead blocked, 0', 'way: URL of a scene');
is(fate("SELECT retry.enqueue('targets')") . ', ' . reached(), 'dead blocked, 0', 'way: one of several targets');
my $parent = sql("SELECT retry.enqueue('everybody')");
wait_sql($node, "SELECT count(*) FROM retry.dead_letters WHERE parent_id = '$parent' AND reason = 'blocked'", 'way: all of several targets', expected => '2');
my $told = sql("SELECT retry.enqueue('tells')");
wait_sql($node, "SELECT count(*) FROM retry.dead_letters WHERE parent_id = '$told' AND reason = 'blocked'", 'way: callback of a scene', expected => '1');
refused_way('callback of a task', "SELECT retry.enqueue('" . $out->url('/ok') . "', on_success => '$forbidden')");
refused_way('other URL for a scene', "SELECT retry.enqueue('later', url => '$forbidden')");
refused_way('many at once', "SELECT retry.enqueue_many('$forbidden', '{1,2}')");
refused_way('call in the session', "SELECT (retry.call('$forbidden')).task_id");
is(sql("SELECT state || ' ' || error FROM retry.call('inner')") . ', ' . reached(), 'dead blocked network: 127.0.0.1 is in 127.0.0.0/8, 0', 'way: call in the session, of a scene');
my $delayed = enqueue($node, "'" . $out->url('/ok') . "', delay => '1 day'");
refused_way('amended', "SELECT retry.amend('$delayed', '{\"url\": \"$forbidden\"}')");
refused_way('action of a saga', qq(SELECT NULL FROM retry.saga('[{"action": "$forbidden"}]')));
refused_way('compensation of a saga', "SELECT NULL FROM retry.saga('[{\"action\": \"" . $out->url('/ok') . "\", \"compensate\": \"$forbidden\"}]')");
refused_way('cancel of a branch', "SELECT NULL FROM retry.tcc_branch(retry.tcc_begin('1 day', 'later'), 'x', 'later', 'later', '$forbidden')");
my $dead = sql("SELECT id FROM retry.dead_letters WHERE scene = 'default/inner' LIMIT 1");
is(fate("SELECT retry.replay('$dead')") . ', ' . reached(), 'dead blocked, 0', 'way: replayed');

# What a receiver answers leads nowhere.
foreach my $code (301, 302, 303, 307, 308)
{
	my $fate = fate("SELECT retry.enqueue('" . $out->url("/redirect/$code?to=http%3A%2F%2F127.0.0.1%3A$port%2Fok") . "', '{}')");

	is("$fate, " . reached(), 'dead exhausted status ' . $code . ', 0', "redirect: $code");
}
$out->reset;
is(fate("SELECT retry.enqueue('" . $out->url('/redirect/302?to=%2Fok%2Felsewhere') . "', '{}')"), 'dead exhausted status 302', 'redirect: within the host');
is(scalar(grep { $_->{path} =~ m{^/ok/elsewhere} } $out->ledger), 0, 'redirect: is not followed');
foreach my $header ([ 'Refresh', "0; url=http://127.0.0.1:$port/ok" ], [ 'Content-Location', "http://127.0.0.1:$port/ok" ],
	[ 'Alt-Svc', "http/1.1=\"127.0.0.1:$port\"; ma=3600" ], [ 'Strict-Transport-Security', 'max-age=31536000; includeSubDomains' ],
	[ 'Link', "<http://127.0.0.1:$port/ok>; rel=preload" ])
{
	my ($name, $value) = @$header;

	$value =~ s/([^A-Za-z0-9.:-])/sprintf '%%%02X', ord $1/ge;
	is(fate("SELECT retry.enqueue('" . $rogue->url("/header/$name/$value") . "', '{}')") . ', ' . reached(), 'succeeded, 0', "answer: $name");
	is(fate("SELECT retry.enqueue('" . $rogue->url('/raw') . "', '{}')") . ', ' . reached(), 'succeeded, 0', "answer: $name, and the next request");
}

# Connections that are open already are judged by the settings of now.
is(fate("SELECT retry.enqueue('" . $out->url('/ok') . "')"), 'succeeded', 'kept: a connection is made');
scene('kept', url => $out->url('/ok/kept'));
$session = session($node, on_error_stop => 0);
is($session->query_safe("SELECT (retry.call('kept', mode => 'local')).state"), 'succeeded', 'kept: also in a session');
$out->reset;
$node->append_conf('postgresql.conf', "retry.allowed_networks = ''");
$node->reload;
wait_for(sub { $session->query_safe('SHOW retry.allowed_networks') eq '' }, 'kept: nothing is allowed any more');
is($session->query_safe("SELECT error FROM retry.call('kept', mode => 'local')"), 'blocked network: 127.0.0.2 is in 127.0.0.0/8', 'kept: the session does not use it');
wait_for(sub { fate("SELECT retry.enqueue('kept')") eq 'dead blocked' }, 'kept: the dispatcher learns of it');
my $before = $out->stats->{total};
is(fate("SELECT retry.enqueue('kept')") . ' ' . ($out->stats->{total} - $before), 'dead blocked 0', 'kept: nor does the dispatcher');
$session->quit;
$node->append_conf('postgresql.conf', "retry.allowed_networks = '127.0.0.2/32'");
$node->reload;
wait_for(sub { fate("SELECT retry.enqueue('kept')") eq 'succeeded' }, 'kept: allowed again');

# A group's hosts, and https only.
sql("INSERT INTO retry.scene_group (name, allowed_hosts) VALUES ('few', '{out.test:$out_port, *.out.test:*}')");
sql("INSERT INTO retry.scene (group_name, name, url, max_attempts) VALUES ('few', 'well', 'http://out.test:$out_port/ok', 1),
	('few', 'ill', '" . $out->url('/ok') . "', 1), ('few', 'port', 'http://out.test:$port/ok', 1)");
sql("INSERT INTO retry.scene (group_name, name, targets, max_attempts) VALUES ('few', 'targets', '{" . $out->url('/ok') . "}', 1)");
$out->reset;
is(fate("SELECT retry.enqueue('few/well')"), 'succeeded', 'control: hosts: what is allowed');
is($out->stats->{total}, 1, 'control: hosts: arrives');
is(fate("SELECT retry.enqueue('few/$_')") . ' ' . ($out->stats->{total} - 1), 'dead blocked 0', "hosts: $_") foreach qw(ill port targets);
is(fate("SELECT retry.enqueue('few/well', url => '" . $out->url('/ok') . "')"), 'refused 42501', 'hosts: a URL of the task');
is(fate("SELECT retry.enqueue('few/well', url => 'http://out.test.evil.test:$out_port/')"), 'refused 42501', 'hosts: that begins alike');
is(fate("SELECT retry.enqueue('few/well', url => 'http://notout.test:$out_port/')"), 'refused 42501', 'hosts: that ends alike');
is(fate("SELECT retry.enqueue('few/well', url => 'http://evil.test:$out_port/?out.test:$out_port')"), 'refused 42501', 'hosts: elsewhere in the URL');
my $waiting = enqueue($node, "'few/well', delay => '1 day', url => 'http://a.out.test:$out_port/'");
$names->set('a.out.test' => '127.0.0.2');
sql("UPDATE retry.scene_group SET allowed_hosts = '{other.test}' WHERE name = 'few'; SELECT retry.run_now('$waiting')");
wait_sql($node, "SELECT reason || ' ' || last_error FROM retry.dead_letters WHERE id = '$waiting'", 'hosts: by the list of the time when it is sent',
	expected => 'blocked blocked host: its group does not allow it');
$waiting = sql("UPDATE retry.scene_group SET allowed_hosts = '{*.out.test:*}' WHERE name = 'few'; SELECT retry.enqueue('few/well', url => 'http://a.out.test:$out_port/', delay => '1 day')");
sql("SELECT retry.amend('$waiting', '{\"url\": \"" . $out->url('/ok') . "\"}'); SELECT retry.run_now('$waiting')");
wait_state($node, $waiting, 'dead', description => 'hosts: nor if it is amended');
$names->set('inner.out.test' => '127.0.0.1');
is(fate("SELECT retry.enqueue('few/well', url => 'http://inner.out.test:$port/ok')") . ', ' . reached(), 'dead blocked, 0', 'hosts: what one leads to is judged too');
sql("UPDATE retry.scene_group SET https_only = true, allowed_hosts = NULL WHERE name = 'few'");
is(fate("SELECT retry.enqueue('few/well')"), 'dead blocked', 'https: a group sends nothing in the clear');
is(fate("SELECT retry.enqueue('few/well', url => '" . $out->url('/ok') . "')"), 'refused 42501', 'https: nor what its tasks ask for');
is(fate("SELECT retry.enqueue('" . $out->url('/ok') . "')"), 'succeeded', 'control: https: others do');
$node->append_conf('postgresql.conf', 'retry.https_only = on');
$node->reload;
wait_for(sub { fate("SELECT retry.enqueue('kept')") eq 'dead blocked' }, 'https: or nobody does');
is(fate("SELECT retry.enqueue('" . $out->url('/ok') . "')"), 'refused 42501', 'https: and is told');
$node->append_conf('postgresql.conf', 'retry.https_only = off');
$node->reload;
wait_for(sub { fate("SELECT retry.enqueue('kept')") eq 'succeeded' }, 'https: off again');

# What goes out is one request with the headers that were given, whatever is in them.
sub raw
{
	my ($arguments) = @_;
	my ($rc, $id, $err) = $node->psql('postgres', encode_utf8("SELECT retry.enqueue('" . $rogue->url('/raw') . "', $arguments)"), extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	return "refused $1" if $err =~ /ERROR:  (\w{5})/;
	wait_sql($node, "SELECT state IN ('succeeded', 'dead') FROM retry.tasks WHERE id = '$id'", 'a request is made');
	return sql("SELECT convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$id'") =~ s/\r\n/\n/gr;
}
my %values = (
	'CR LF' => '"a\r\nX-Evil: 1"', 'LF' => '"a\nX-Evil: 1"', 'CR' => '"a\rX-Evil: 1"', 'folded' => '"a\r\n X-Evil: 1"',
	'an end of headers' => '"a\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"', 'a vertical tab' => '"a\u000bX-Evil: 1"', 'DEL' => '"a\u007f"');
is(raw("headers => '{\"X-A\": $values{$_}}'"), $any, "injection: $_ in a value") foreach sort keys %values;
is(raw(q(headers => '{"X-A": "a\u0000"}')), 'refused 22P05', 'injection: NUL in a value');
is(raw("headers => '{\"$_\": \"x\"}'"), $any, 'injection: name ' . encode_utf8($_))
  foreach 'X-A\r\nX-Evil', 'X-A: 1\nX-Evil', 'X A', '', 'X-A:', 'X-É', ' X-A', 'X-A ';
is(raw("headers => '{\"$_\": \"5\"}'"), $any, 'framing: ' . $_)
  foreach qw(Host host Content-Length CONTENT-LENGTH Transfer-Encoding Connection Upgrade Expect TE Trailer Keep-Alive Proxy-Authorization HTTP2-Settings);
is(raw("headers => '{\"$_\": \"5\"}'"), $any, 'reserved: ' . $_) foreach qw(Idempotency-Key webhook-id webhook-signature Retry-Attempt Retry-Gid retry-branch Retry-Operation);
sub saga
{
	my ($more) = @_;

	return fate("SELECT NULL FROM retry.saga(jsonb_build_array(jsonb_build_object('action', '" . $rogue->url('/raw') . "', $more)))");
}
is(saga("'name', E'a\\r\\nX-Evil: 1'"), $any, 'injection: name of a branch');
is(saga("'headers', jsonb_build_object('X-A', E'a\\r\\nX-Evil: 1')"), $any, 'injection: headers of an action');
is(saga("'headers', jsonb_build_object('$_', 'x')"), $any, "reserved: $_ of an action") foreach qw(Retry-Gid retry-operation);
is(raw("content_type => E'text/plain\\r\\nX-Evil: 1'"), $any, 'injection: content_type');
is(raw("method => E'GET /evil HTTP/1.1\\r\\nX-Evil: 1\\r\\n\\r\\nPOST'"), $any, 'injection: method');
is(raw("method => '$_'"), $any, "injection: method $_") foreach 'CONNECT', 'TRACE', 'GET /evil', 'G;ET';
is(raw("key => E'a\\r\\nX-Evil: 1'"), $any, 'injection: key');
is(raw("reference => E'a\\r\\nX-Evil: 1'"), $any, 'injection: reference');
is(raw("lane => E'a\\r\\nX-Evil: 1'"), $any, 'injection: lane');
like(raw(q(key => 'a", X-Evil: 1; "\\é')), qr/^Idempotency-Key: "a\\", X-Evil: 1; \\"\\\\%C3%A9"$/m, 'injection: a key that ends its own string does not');
unlike($rogue->received, qr/^X-Evil|^GET \/evil/m, 'injection: no line of theirs came, in all of this');
my $body = "0\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n";
my $seen = raw('body => decode(\'' . encode_base64($body, '') . '\', \'base64\')');
like($seen, qr/^Content-Length: ${\length $body}$/m, 'smuggling: a body has its length');
is(() = $seen =~ /^Content-Length/mgi, 1, 'smuggling: once');
unlike($seen, qr/^Transfer-Encoding/mi, 'smuggling: and no other framing');
is(fate("SELECT retry.enqueue('" . $rogue->url('/cookie') . "')"), 'succeeded', 'control: a receiver sets a cookie');
unlike(raw("'{}'"), qr/^Cookie/mi, 'answer: cookies are not sent back');
sql("INSERT INTO retry.scene_group (name) VALUES ('odd')");
is(fate("INSERT INTO retry.scene (group_name, name, url, headers) VALUES ('odd', 'odd', '" . $rogue->url('/raw') . "', '{\"X-A\": \"a\\r\\nX-Evil: 1\"}')"), $any, 'injection: headers of a scene');
is(fate("SELECT retry.set_secret('odd', E'a\\r\\nX-Evil: 1')"), $any, 'injection: a secret');

# Answers that would use up time, memory or disk.
scene('slow', url => $rogue->url('/drip'), timeout => '1500 ms');
is(fate("SELECT retry.enqueue('slow')"), 'dead exhausted timeout', 'answer: headers by drops end with the time');
is(fate("SELECT retry.enqueue('" . $rogue->url('/huge-header') . "')"), 'dead exhausted malformed', 'answer: a header of megabytes');
is(fate("SELECT retry.enqueue('" . $rogue->url('/many-headers') . "')"), 'dead exhausted malformed', 'answer: headers without end');
is(fate("SELECT retry.enqueue('" . $rogue->url('/lengths') . "')"), 'dead exhausted malformed', 'answer: two lengths');
is(fate("SELECT retry.enqueue('" . $rogue->url('/upgrade') . "')"), 'dead exhausted closed', 'answer: another protocol');
is(fate("SELECT retry.enqueue('" . $rogue->url('/old') . "')"), 'dead exhausted malformed', 'answer: what is no HTTP');
is(fate("SELECT retry.enqueue('" . $rogue->url('/interim') . "')"), 'dead exhausted malformed', 'answer: interim answers without end');
my $bomb = sql("SELECT retry.enqueue('" . $rogue->url('/bomb') . "')");
wait_state($node, $bomb, 'succeeded', description => 'answer: a compressed bomb is taken');
is(sql("SELECT length(response) <= 65536 AND encode(substring(response FROM 1 FOR 2), 'hex') = '1f8b' FROM retry.attempts WHERE task_id = '$bomb'"), 't', 'answer: as it comes');
my $endless = sql("SELECT retry.enqueue('" . $out->url('/endless?bytes=65536&ms=1') . "')");
wait_state($node, $endless, 'succeeded', description => 'answer: a body without end has one');
is(sql("SELECT length(response) FROM retry.attempts WHERE task_id = '$endless'"), '65536', 'answer: of which the beginning is kept');
wait_for(sub { $out->stats->{in_progress} == 0 }, 'answer: its connection is closed');

# Secrets, wherever they could come out; more of it is in 071_signing.pl.
my $token = 'tok-9f27-not-seen';
sql('CREATE EXTENSION pg_stat_statements') if $statements;
my $holder = session($node);
my $script = $node->basedir . '/set.sql';
append_to_file($script, "SELECT retry.set_secret('shown', :value);\n");
$holder->query_safe('BEGIN; LOCK TABLE retry.secret IN ACCESS EXCLUSIVE MODE');
my $driver = IPC::Run::start([ 'pgbench', '-n', '-M', 'extended', '-t', '1', '-D', "value=$token", '-f', $script, $node->connstr('postgres') ],
	'>', \my $driven, '2>', \my $complaints);
my $waits = "FROM pg_stat_activity WHERE query LIKE 'SELECT retry.set_secret%' AND wait_event_type = 'Lock'";
wait_sql($node, "SELECT count(*) $waits", 'control: a secret is being set, through a bound parameter', expected => '1');
is(sql("SELECT query $waits"), q(SELECT retry.set_secret('shown', $1);), 'leak: the statement under way');
$holder->quit;
ok($driver->finish, 'control: a secret is set') || diag($complaints);
scene('uses', url => $rogue->url('/raw'), headers => '{"Authorization": "Bearer {{secret:shown}}"}');
my $used = sql("SELECT retry.enqueue('uses', '{}')");
wait_state($node, $used, 'succeeded', description => 'control: a secret is used');
like($rogue->received, qr/^Authorization: Bearer $token\r$/m, 'control: and sent');
my %places = (
	'settings' => 'SELECT name, setting, boot_val, reset_val FROM pg_settings',
	'activity' => "SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
	'tasks' => 'SELECT t::text FROM retry.tasks t', 'attempts' => 'SELECT a::text, encode(response, \'escape\') FROM retry.attempts a',
	'events' => 'SELECT e::text FROM retry.events e', 'secrets' => 'SELECT s::text FROM retry.secrets s',
	'lanes' => 'SELECT l::text FROM retry.lanes l', 'health' => 'SELECT h::text FROM retry.health() h',
	'configuration' => 'SELECT retry.export_config()', 'statistics of columns' => 'SELECT s::text FROM pg_stats s',
	'locks' => 'SELECT l::text FROM pg_locks l');
$places{'statements'} = 'SELECT query FROM pg_stat_statements' if $statements;
sql("SELECT retry.set_secret('other', 'tok-0')");	# statistics of one value only would have no bounds
sql('ANALYZE');
foreach my $place (sort keys %places)
{
	my $text = sql($places{$place});

	ok(length($text) > 0 && index($text, $token) < 0, "leak: $place");
}
my @pids = workers($node);
ok(!(grep { my $pid = $_; grep { index(slurp_file("/proc/$pid/$_"), $token) >= 0 } qw(cmdline environ) } @pids), 'leak: titles and environments of the workers');
unlike(slurp_file($node->logfile) =~ s/^.*STATEMENT:.*$//mgr, qr/$token/, 'leak: the server\'s log');
my ($dump) = run_command([ 'pg_dump', '-d', $node->connstr('postgres') ]);
ok(length($dump) > 10000 && index($dump, $token) < 0, 'leak: a dump');

# A proxy of the administrator's: what a URL shows is still judged.
$out->reset;
$node->append_conf('postgresql.conf', "retry.proxy = '" . $out->url('') . "'");
$node->reload;
wait_for(sub { fate("SELECT retry.enqueue('later')"); $out->stats->{total} > 0 }, 'proxy: requests go through it');
$before = $out->stats->{total};
scene('proxied', url => "http://localhost:$port/ok");
is(fate("SELECT retry.enqueue('inner')"), 'dead blocked', 'proxy: an address');
is(fate("SELECT retry.enqueue('proxied')"), 'dead blocked', 'proxy: localhost');
is(fate("SELECT retry.enqueue('few/well')"), 'dead blocked', 'proxy: rules of a group');
is($out->stats->{total} - $before, 0, 'proxy: did not get them');

is(reached() + $inside, 0, 'nothing got inside');
is(scalar(@{[ workers($node, 'retry dispatcher%') ]}), 1, 'the dispatcher is well');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'nothing has crashed');
$node->stop;
every_case_has_its_set();
done_testing();
