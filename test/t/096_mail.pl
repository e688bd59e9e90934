# Alarms by mail, to a real mail server: what arrives, to whom, over what
# connection, and what becomes of a message that is refused, put off or lost.
use strict;
use warnings FATAL => 'all';
use utf8;

use Encode;
use File::Basename;
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Preload;
use RetryTest::Tls;
use Test::More;

plan skip_all => 'python3-aiosmtpd is not installed' if system('python3 -c "import aiosmtpd" 2>/dev/null') != 0;

my $password = 'pa ss"wörd\\99';
my $ours = authority('ours');
my $theirs = authority('theirs');
my $dir = PostgreSQL::Test::Utils::tempdir;
my $server = IPC::Run::start([ 'python3', dirname(__FILE__) . '/../perl/RetryTest/mail_server.py', $dir, 'alarms', encode_utf8($password),
	map { ($_->{certificate}, $_->{key}) } certificate($ours, 'mail'), certificate($ours, 'elsewhere', for => 'DNS:elsewhere.test'),
	certificate($theirs, 'untrusted') ]);
END { local $?; $server->kill_kill if $server }

my $node = new_node('main', conf => "retry.alarm_interval = '100ms'\nretry.ca_bundle = '$ours->{certificate}'\n");
hold_nothing($node);
wait_for(sub { -s "$dir/ports" }, 'the mail server listens');
my $port = decode_json(slurp_file("$dir/ports"));
my %url = map { $_ => ($_ eq 'plain' ? 'smtp+plaintext' : $_ eq 'starttls' ? 'smtp' : 'smtps') . "://127.0.0.1:$port->{$_}" } keys %$port;

sub sql { return decode_utf8($node->safe_psql('postgres', encode_utf8($_[0]))) }

# A channel, told to retry soon and give up at the third attempt.
sub channel
{
	my ($name, $url, $to, %more) = @_;
	my $secret = exists $more{secret} ? $more{secret} : 'mail';
	my $sign_in = defined $secret ? "'alarms', '$secret'" : 'NULL, NULL';

	sql("INSERT INTO retry.channel (name, kind, url, mail_from, mail_to, mail_user, secret)
			VALUES ('$name', 'email', '$url', 'Retry <retry\@sender.test>', '{$to}', $sign_in);
		UPDATE retry.scene SET backoff = 'fixed 10ms', max_attempts = 3, timeout = '60s', connect_timeout = '60s', breaker_ratio = NULL, retry_share = NULL WHERE name = 'alarm-$name'");
	return;
}

# What has arrived for an address.
sub arrived
{
	my ($address) = @_;

	return () if !-e "$dir/ledger";
	return grep { grep { $_ eq $address } @{ $_->{recipients} } } map { decode_json($_) } split /\n/, slurp_file("$dir/ledger");
}

# Enqueues a mail of a channel; its attempts, when it has ended.
sub attempts
{
	my ($name, $to, $subject) = @_;
	my $id = enqueue($node, encode_utf8("'alarm-$name', jsonb_build_object('subject', E'" . ($subject // 'test') . "', 'text', 'text'"
		  . ($to ? ", 'to', '$to'" : '') . ')'));

	wait_sql($node, "SELECT state IN ('succeeded', 'dead') FROM retry.tasks WHERE id = '$id'", "a mail of $name ends");
	return sql("SELECT string_agg(outcome || coalesce(': ' || error, ''), E'\\n' ORDER BY attempt_no) FROM retry.attempts WHERE task_id = '$id'");
}

# ---- what arrives
sql("SELECT retry.set_secret('mail', '$password')");
my $ada = 'Ada "A" Lovelace <ada@reader.test>';
my $zoe = 'Zoë, Οδυσσεύς <zoe@reader.test>';
channel('ops', $url{starttls}, join(',', map { s/(["\\])/\\$1/gr =~ s/(.*)/"$1"/r } $ada, $zoe, 'unknown@reader.test'));
my $id = sql("SELECT retry.test_channel('ops')");
wait_state($node, $id, 'dead', description => 'a test of a channel with a recipient who is refused fails');
is(sql("SELECT last_error FROM retry.tasks WHERE id = '$id'"), 'mail server refuses: 550 5.1.1 no such user here', 'and says why');
is(scalar(() = arrived('ada@reader.test')), 0, 'nobody else was written to');

my $text = "..leading dots\n.\nFrom here\r\n= and ÜÖÄ€😀 and blanks at the end  \n" . 'x' x 300 . "\nBcc: no\@header.test";
sql("INSERT INTO retry.scene (name, url, max_attempts) VALUES ('bad', 'http://127.0.0.1:9/', 1);
	INSERT INTO retry.alarm_rule (name, condition, channels, collect, quiet, description) VALUES ('deaths', 'dead', '{ops}', '0', '0', \$\$$text\$\$);
	SELECT retry.enqueue('bad', '{}')");
wait_sql($node, "SELECT string_agg(state::text, ' ' ORDER BY state::text) FROM retry.tasks WHERE scene = 'default/alarm-ops' AND id <> '$id'",
	'an alarm is a task for each recipient', expected => 'dead succeeded succeeded');
my ($mail) = arrived('ada@reader.test');
my ($other) = arrived('zoe@reader.test');
is_deeply([ @$mail{qw(port user sender recipients defects)} ], [ 'starttls', 'alarms', 'retry@sender.test', ['ada@reader.test'], [] ],
	'it came over TLS, signed in, for one');
is_deeply($mail->{names}, [ 'Ada "A" Lovelace', 'Zoë, Οδυσσεύς', '' ], 'names of recipients');
is_deeply($mail->{addresses}, [qw(ada@reader.test zoe@reader.test unknown@reader.test)], 'and addresses: all that are told');
is($mail->{headers}{From}, 'Retry <retry@sender.test>', 'sender');
is($mail->{headers}{Subject}, 'default on postgres: deaths is firing', 'subject');
is($mail->{headers}{'Auto-Submitted'}, 'auto-generated', 'no reply is wanted');
is($mail->{count}, 9, 'no headers but ours');
(my $expected = $text) =~ s/\r\n/\n/;
like($mail->{text}, qr/\Q$expected\E\n/, 'the text, whatever is in it');
like($mail->{text}, qr/^FIRING deaths \(error\): default\/bad 1 dead letter.*^  default\/bad: 1 dead letter.*^database postgres, group default, 2/ms,
	'and what is wrong where');
ok($mail->{ascii} && $mail->{longest} <= 78, 'short lines of ASCII');
isnt($mail->{headers}{'Message-ID'}, $other->{headers}{'Message-ID'}, 'each mail has an id of its own');
is(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/alarm-ops' AND '<' || id || '\@sender.test>' IN ('$mail->{headers}{'Message-ID'}', '$other->{headers}{'Message-ID'}')
	AND abs(extract(epoch FROM created_at) - $mail->{date}) < 600"), 2, 'that of its task, with its time');
is(sql("SELECT convert_from(response, 'UTF8') FROM retry.attempts WHERE outcome = 'succeeded' LIMIT 1"), '250 2.0.0 taken as number 42',
	'what the server said is kept');

# ---- put off, lost, and refused
channel('grey', $url{tls}, 'grey@reader.test');
is(attempts('grey'), "failed: mail server wants to be asked later: 451 4.7.1 greylisted, come back\nsucceeded", 'greylisted: it comes back');
is((arrived('grey@reader.test'))[0]{port}, 'tls', 'with TLS from the first byte');
channel('full', $url{tls}, 'full@reader.test');
is(attempts('full'), join("\n", ('failed: mail server wants to be asked later: 452 4.2.2 mailbox full') x 3), 'put off for ever: until its attempts are used up');
channel('drop', $url{tls}, 'drop@reader.test');
is(attempts('drop'), "failed: closed: connection closed by the mail server, the mail was handed over, and no reply came\nsucceeded", 'lost amidst the mail: sent again');
channel('several', $url{tls}, 'drop@reader.test,unknown@reader.test,ada@reader.test');
is(attempts('several'), 'stopped: mail server refuses: 550 5.1.1 no such user here', 'one of several is refused: none is written to');
is(attempts('several', 'ada@reader.test'), 'succeeded', 'but a mail to one of them is for him alone');
is(attempts('several', 'eve@reader.test'), 'error: it is a mail to somebody who is not among the recipients of its channel', 'and for nobody else');

# A server that takes its time is waited for by nobody else.
channel('slow', $url{tls}, 'slow@reader.test');
my $slow = enqueue($node, q('alarm-slow', '{"subject": "s", "text": ""}'));
wait_for(sub { -e "$dir/slow" }, 'the server thinks about a mail');
my $endpoint = start_endpoint();
wait_state($node, enqueue($node, "'" . $endpoint->url('/ok') . "', '{}'"), 'succeeded', description => 'meanwhile others are sent');
is(sql("SELECT state FROM retry.tasks WHERE id = '$slow'"), 'running', 'while it still thinks');
append_to_file("$dir/go", '');
wait_state($node, $slow, 'succeeded', description => 'then it has taken it');
unlink "$dir/go", "$dir/slow";
sql("UPDATE retry.scene SET timeout = '500ms', max_attempts = 1 WHERE name = 'alarm-slow'");
like(attempts('slow'), qr/^failed: (connect_)?timeout: /, 'a time limit holds');
append_to_file("$dir/go", '');

# ---- who is talked to
channel('wronghost', $url{wronghost}, 'ada@reader.test', secret => undef);
like(attempts('wronghost'), qr/^failed: tls: server's certificate is for another host name$/m, 'a certificate for another host');
channel('untrusted', $url{untrusted}, 'ada@reader.test', secret => undef);
like(attempts('untrusted'), qr/^failed: tls: issuer of the server's certificate is not trusted/, 'one that nobody trusts');
sql("UPDATE retry.scene SET tls_ca = '$theirs->{pem}' WHERE name = 'alarm-untrusted'");
is(attempts('untrusted'), 'succeeded', 'unless the scene does');
sql("UPDATE retry.scene SET tls_pin = '" . public_key_pin($ours) . "' WHERE name = 'alarm-untrusted'");
like(attempts('untrusted'), qr/^failed: tls: server's public key is not one of those that are pinned$/m, 'or wants another key');
channel('notls', $url{plain} =~ s/\+plaintext//r, 'ada@reader.test', secret => undef);
like(attempts('notls'), qr/^failed: tls: mail server does not offer STARTTLS$/m, 'without TLS nothing is sent');
channel('plain', $url{plain}, 'plain@reader.test', secret => undef);
my $subject = 'Οδυσσεύς and all the others who are on duty tonight: ' . '😀' x 20;
is(attempts('plain', undef, "$subject\\r\\nBcc: no\@header.test"), 'succeeded', 'unless that is asked for');
my ($plain) = arrived('plain@reader.test');
is($plain->{port}, 'plain', 'and got');
is($plain->{headers}{Subject}, "$subject  Bcc: no\@header.test", 'a long subject of many scripts, and no second header');
sql("UPDATE retry.scene_group SET https_only = true WHERE name = 'default'");
is(attempts('plain'), 'blocked: blocked scheme: only mail servers with TLS are allowed', 'and allowed');
sql("UPDATE retry.scene_group SET https_only = false, allowed_hosts = '{mail.test:*}' WHERE name = 'default'");
is(attempts('plain'), 'blocked: blocked host: its group does not allow it', 'to hosts that the group may reach');
sql("UPDATE retry.scene_group SET allowed_hosts = NULL WHERE name = 'default'");
sql("SELECT retry.set_secret('wrong', 'not this')");
channel('wrong', $url{starttls}, 'ada@reader.test', secret => 'wrong');
like(attempts('wrong'), qr/^stopped: mail server refuses user and password: 535 /, 'a wrong password');
my $dead = sql("SELECT id FROM retry.dead_letters WHERE scene = 'default/alarm-wrong' AND reason = 'stopped'");
sql("SELECT retry.set_secret('wrong', '$password')");
wait_state($node, sql("SELECT retry.replay('$dead')"), 'succeeded', description => 'its dead letter is replayed with the right one');
is(scalar(() = grep { $_->{headers}{'Message-ID'} eq "<$dead\@sender.test>" } arrived('ada@reader.test')), 1, 'as the same mail');
channel('unset', $url{starttls}, 'ada@reader.test', secret => 'unset');
$id = sql("SELECT retry.test_channel('unset')");
wait_sql($node, "SELECT held_reason FROM retry.tasks WHERE id = '$id'", 'without its password a mail waits', expected => 'missing secret');
my $seen = sql("SELECT coalesce(string_agg(x::text, ''), '') FROM (SELECT t::text FROM retry.tasks t UNION ALL SELECT a::text FROM retry.attempts a UNION ALL SELECT s::text FROM retry.scene s) AS y (x)");
ok(index($seen, 'wörd') < 0, 'the password is in no table');

# ---- networks, as of the moment of each attempt
$node->append_conf('postgresql.conf', "retry.allowed_networks = ''");
$node->reload;
wait_for(sub { attempts('plain') =~ /^blocked: blocked network: 127\.0\.0\.1 is in / }, 'a mail server in a blocked network is not reached');

# ---- a libcurl that cannot send any
my $library = "$dir/without_smtp.so";
build_library('libcurl/without_smtp.c', $library);
$node->stop;
{
	local $ENV{LD_PRELOAD} = $library;
	$node->start;
}
my (undef, undef, $error) = $node->psql('postgres', "INSERT INTO retry.channel (name, kind, url, mail_from, mail_to) VALUES ('late', 'email', 'smtps://127.0.0.1', 'a\@b', '{c\@d}')");
like($error, qr/ERROR:  this server's libcurl cannot send mail\nHINT:  It was built without SMTP/, 'a channel of mail where libcurl knows no SMTP');
is(sql("INSERT INTO retry.channel (name, kind, url) VALUES ('late', 'webhook', 'http://127.0.0.1:9/') RETURNING name"), 'late', 'is all that is refused');

$node->stop;
done_testing();
