# examples/participant.py and participant.mjs take part in global transactions:
# messages that are checked and delivered by this extension, and operations of
# any coordinator, twice, in the wrong order, refused and forged.
use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(hmac_sha256);
use File::Basename;
use File::Spec;
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $folder = File::Spec->rel2abs(dirname(__FILE__) . '/../../examples');
my $key = 'whsec_' . encode_base64('k' x 32, '');
my $client = HTTP::Tiny->new(timeout => 30);
my $node = new_node('main');
my ($handle, $url);

hold_nothing($node);
sql("SELECT retry.set_secret('key', '$key')");

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# start(PROGRAM, DATABASE): $handle, $url
sub start
{
	my ($program, $database) = @_;
	my @command = ($program =~ /py$/ ? 'python3' : 'node', "$folder/$program", '--port', 0, '--database', $database, '--key', $key);
	my $out = '';

	$handle = IPC::Run::start(\@command, '<', \undef, '>', \$out, IPC::Run::timeout(120));
	$handle->pump until $out =~ /port (\d+)\n/;
	$url = "http://127.0.0.1:$1";
	return;
}

# post(PATH, CONTENT, headers => {}, signed_with => KEY, at => SECONDS): "STATUS BODY"
sub post
{
	my ($path, $content, %opt) = @_;
	my $body = JSON::PP->new->canonical->encode($content);
	my ($id, $time) = ($opt{id} // 'id', $opt{at} // time());
	my %headers = ('webhook-id' => $id, 'webhook-timestamp' => $time, %{ $opt{headers} // {} });

	$headers{'webhook-signature'} = 'v1a,x v1,' . encode_base64(hmac_sha256("$id.$time.$body", $opt{signed_with} // 'k' x 32), '')
	  unless exists $opt{signed_with} && !defined $opt{signed_with};
	my $response = $client->post("$url$path", { content => $body, headers => \%headers });
	return "$response->{status} $response->{content}" =~ s/": "/":"/gr;
}

# operation(OP, GID, AMOUNT): what it is answered, in short
sub operation
{
	my ($op, $gid, $amount) = @_;

	return post('/alice', { amount => $amount }, headers => { 'Retry-Gid' => $gid, 'Retry-Branch' => 'debit', 'Retry-Operation' => $op })
	  =~ s/^200 \{"done":"(\w+)"\}$/$1/r;
}

# What an account has, and what of it is frozen.
sub account
{
	my ($name) = @_;

	return join ' ', @{ decode_json($client->get($url)->{content})->{$name} // [] };
}

sub take_part
{
	my ($program, $scene) = @_;
	my $database = PostgreSQL::Test::Utils::tempdir . "/$scene";

	start($program, $database);

	# operations, once each, and none that comes too late
	is(operation('try', 'a', 30) . ', ' . operation('try', 'a', 30) . ', ' . account('alice'), 'try, nothing, 70 30', "$program: a try acts once");
	is(operation('confirm', 'a', 30) . ', ' . operation('confirm', 'a', 30) . ', ' . account('alice'), 'confirm, nothing, 70 0', "$program: a confirm acts once");
	is(operation('try', 'b', 20) . ', ' . operation('cancel', 'b', 20) . ', ' . operation('cancel', 'b', 20) . ', ' . account('alice'),
		'try, cancel, nothing, 70 0', "$program: a cancel undoes once");
	is(operation('cancel', 'c', 50) . ', ' . operation('try', 'c', 50) . ', ' . account('alice'),
		'nothing, nothing, 70 0', "$program: a cancel without a try undoes nothing, and the try that comes then does not act");
	is(operation('action', 'd', 10) . ', ' . operation('compensate', 'd', 10) . ', ' . operation('action', 'd', 10) . ', ' . account('alice'),
		'action, compensate, nothing, 70 0', "$program: a step of a saga and its compensation");
	is(operation('compensate', 'e', 10) . ', ' . account('alice'), 'nothing, 70 0', "$program: a compensation without its step");
	like(operation('try', 'f', 1000), qr/^409 .*not enough/, "$program: what cannot be done is refused");
	is(operation('cancel', 'f', 1000) . ', ' . account('alice'), 'nothing, 70 0', "$program: and leaves nothing to undo");
	is(post('/alice', {}, headers => { 'Retry-Operation' => 'undo' }) =~ s/ .*//r, '400', "$program: an operation that is none");

	# who is not the coordinator
	my %forged = (
		'nobody' => [ signed_with => undef ], 'another key' => [ signed_with => 'x' x 32 ],
		'somebody long ago' => [ at => time() - 400 ], 'somebody of tomorrow' => [ at => time() + 400 ]);
	like(post('/alice', { amount => 1 }, @{ $forged{$_} }), qr/^401 /, "$program: signed by $_") foreach sort keys %forged;
	is(account('alice'), '70 0', "$program: none of that acted");

	# what was done is there after a crash
	$handle->kill_kill(grace => 0);
	start($program, $database);
	is(operation('confirm', 'a', 30) . ', ' . operation('try', 'c', 50) . ', ' . account('alice'), 'nothing, nothing, 70 0', "$program: after a crash all is known");

	# messages: Alice pays Bob, and tells nobody
	sql("INSERT INTO retry.scene (name, url, secret) VALUES ('$scene-ask', '$url/alice', 'key')");
	sql("INSERT INTO retry.scene (name, url, secret, check_target, check_after) VALUES ('$scene', '$url/bob', 'key', '$scene-ask', '1 h')");
	my ($paid, $unpaid) = map { sql("SELECT retry.prepare('$scene', '{\"amount\": 30}')") } 1 .. 2;
	is(post('/alice/send', { gid => $paid, amount => 30 }), "200 {\"sent\":\"$paid\"}", "$program: the sender's transaction commits");
	sql("SELECT retry.run_now(check_id) FROM retry.transactions WHERE gid IN ('$paid', '$unpaid')");
	wait_sql($node, "SELECT string_agg(state || ' ' || decided_how, ', ' ORDER BY state) FROM retry.transactions WHERE gid IN ('$paid', '$unpaid') AND decided_how IS NOT NULL",
		"$program: who is asked tells", expected => 'committed check, rolled back check');
	wait_state($node, $paid, 'succeeded', description => "$program: what was committed is delivered");
	like(post('/alice/send', { gid => $unpaid, amount => 30 }), qr/^409 .*given up/, "$program: what was rolled back does not commit later");
	wait_state($node, sql("SELECT retry.replay('$paid')"), 'succeeded', description => "$program: it is delivered again");
	is(account('alice') . ', ' . account('bob'), '40 0, 130 0', "$program: and was paid once");
	$handle->kill_kill(grace => 0);
	return;
}

my %needs = ('participant.py' => 'python3 -c "import sqlite3"', 'participant.mjs' => 'node -e "structuredClone(1)"');
foreach my $program (sort keys %needs)
{
	SKIP:
	{
		skip("$program cannot be run here: $needs{$program}", 1) if system("$needs{$program} >/dev/null 2>&1") != 0;
		take_part($program, $program =~ tr/./-/r);
	}
}
$node->stop;
done_testing();
