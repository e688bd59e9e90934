# Signatures and secrets over the wire: what a receiver gets is verified with
# another implementation of the sums, through retries, rotations and replays;
# what must not get out is looked for wherever it could have.
use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(hmac_sha256);
use Encode qw(encode_utf8);
use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Cases 'every_case_has_its_set';
use Test::More;

my $node = new_node('main');
my $receiver = start_endpoint();
my $echo = $receiver->url('/echo');
my %key = map { $_ => 'whsec_' . encode_base64($_ x 32, '') } qw(a b c);
my $token = 'tok-5e1f-never-seen';

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# scene(NAME, COLUMN => VALUE ...)
sub scene
{
	my ($name, %column) = @_;

	sql("INSERT INTO retry.scene (name, " . join(', ', sort keys %column) . ") VALUES ('$name', "
		  . join(', ', map { "'$column{$_}'" } sort keys %column) . ")");
	return;
}

# The requests of a task, as the receiver echoed them: [{ header => {}, body }].
sub requests
{
	my ($id) = @_;

	return map {
		my $seen = decode_json($_);
		{ header => { map { lc $_->[0] => $_->[1] } @{ $seen->{headers} } }, body => encode_utf8($seen->{body}) }
	} split /\n/, sql("SELECT convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$id' ORDER BY attempt_no");
}

# The names of the keys whose signature a request has, in order; '?' for others.
sub signed_by
{
	my ($request) = @_;
	my $header = $request->{header};
	my $bytes = "$header->{'webhook-id'}.$header->{'webhook-timestamp'}.$request->{body}";
	my %name = map {
		'v1,' . encode_base64(hmac_sha256($bytes, $_ x 32), '') => $_
	} keys %key;

	return join ' ', map { $name{$_} // '?' } split / /, $header->{'webhook-signature'} // '';
}

# As a receiver that is a database would.
sub verified
{
	my ($request, $secret) = @_;
	my $header = $request->{header};

	return sql("SELECT retry.verify_signature($secret, '$header->{'webhook-id'}', '$header->{'webhook-timestamp'}', "
		  . "convert_to(\$body\$$request->{body}\$body\$, 'UTF8'), '$header->{'webhook-signature'}')");
}

sub sent
{
	my ($arguments) = @_;
	my $id = enqueue($node, $arguments);

	wait_state($node, $id, 'succeeded', description => 'a request is made');
	return ($id, (requests($id))[0]);
}

# A scene that has a secret signs, any body and none.
sql("SELECT retry.set_secret('key', '$key{a}')");
scene('signed', url => $echo, secret => 'key');
my ($id, $request) = sent(q('signed', '{"order": 17, "name": "é"}'));
is(signed_by($request), 'a', 'a request is signed');
is($request->{header}{'webhook-id'}, $id, 'the id is that of the task');
is(verified($request, "'$key{a}'"), 't', 'a database verifies it');
is(verified($request, "'$key{b}'"), 'f', 'not with another key');
is(verified($request, "ARRAY['$key{b}', '$key{a}']"), 't', 'with one of two');
$request->{body} .= ' ';
is(verified($request, "'$key{a}'"), 'f', 'not another body');
(undef, $request) = sent(q('signed', body => '\x'));
is(signed_by($request), 'a', 'an empty body is signed');
(undef, $request) = sent(q('signed', method => 'GET'));
is(signed_by($request), 'a', 'no body is signed');
scene('unsigned', url => $echo);
(undef, $request) = sent(q('unsigned', '{}'));
is($request->{header}{'webhook-signature'}, undef, 'a scene without a secret does not sign');
my $called = decode_json(sql("SELECT convert_from((retry.call('signed', '{\"n\": 1}')).response, 'UTF8')"));
is(signed_by({ header => { map { lc $_->[0] => $_->[1] } @{ $called->{headers} } }, body => encode_utf8($called->{body}) }),
	'a', 'a call in the session is signed');

# Each attempt is signed afresh, for its own time and the same id; and replays.
scene('refused', url => "$echo?status=503", secret => 'key', backoff => 'fixed 1100ms', max_attempts => 3);
$id = enqueue($node, q('refused', '{"n": 2}'));
wait_state($node, $id, 'dead', description => 'one that is refused dies');
my @attempts = requests($id);
is(join(',', map { signed_by($_) } @attempts), 'a,a,a', 'each attempt is signed');
my %times = map { $_->{header}{'webhook-timestamp'} => 1 } @attempts;
is(scalar keys %times, 3, 'for its own time');
is(join(',', map { $_->{header}{'webhook-id'} } @attempts), join(',', ($id) x 3), 'with the same id');
sql("UPDATE retry.scene SET url = '$echo' WHERE name = 'refused'");
my $replay = sql("SELECT retry.replay('$id')");
wait_state($node, $replay, 'succeeded', description => 'its replay succeeds');
($request) = requests($replay);
is($request->{header}{'webhook-id'}, $id, 'the id stays that of the original');
is(signed_by($request), 'a', 'and is what is signed');

# By ed25519: verified by another program with the public key, and beside a sum.
my $private = 'whsk_' . encode_base64('s' x 32, '');
my $public = sql("SELECT retry.public_key('$private')");
sql("SELECT retry.set_secret('edkey', '$private')");
scene('ed25519', url => $echo, secret => 'edkey');
(undef, $request) = sent(q('ed25519', '{"order": 18}'));
like($request->{header}{'webhook-signature'}, qr/^v1a,[A-Za-z0-9+\/]{86}==$/, 'an ed25519 key signs');
my $folder = PostgreSQL::Test::Utils::tempdir;
append_to_file("$folder/public.der", pack('H*', '302a300506032b6570032100') . decode_base64(substr $public, 5));
append_to_file("$folder/signed", "$request->{header}{'webhook-id'}.$request->{header}{'webhook-timestamp'}.$request->{body}");
append_to_file("$folder/signature", decode_base64(substr $request->{header}{'webhook-signature'}, 4));
my @openssl = ('openssl', 'pkeyutl', '-verify', '-pubin', '-keyform', 'DER', '-inkey', "$folder/public.der", '-rawin', '-sigfile', "$folder/signature", '-in');
command_ok([ @openssl, "$folder/signed" ], 'openssl verifies it');
append_to_file("$folder/other", "$request->{header}{'webhook-id'}.$request->{header}{'webhook-timestamp'}.{}");
command_fails([ @openssl, "$folder/other" ], 'and not another body');
is(verified($request, "'$public'"), 't', 'a database verifies it');
sql("SELECT retry.set_secret('edkey', '$key{a}')");
wait_for(sub { (sent(q('ed25519', '{}')))[1]{header}{'webhook-signature'} =~ /^v1,\S{44} v1a,\S{88}$/ }, 'while they overlap both kinds sign');
(undef, $request) = sent(q('ed25519', '{}'));
is(verified($request, "'$public'"), 't', 'who has the public key verifies it');
is(verified($request, "'$key{a}'"), 't', 'and who has the new key');

# Rotation: both sign during the overlap, the newest first; then one.
sql("SELECT retry.set_secret('key', '$key{b}')");
wait_for(sub { signed_by((sent(q('signed', '{}')))[1]) ne 'a' }, 'a new value counts');
is(signed_by((sent(q('signed', '{}')))[1]), 'b a', 'both values sign');
is(verified((sent(q('signed', '{}')))[1], "'$key{a}'"), 't', 'who has the old one only can verify it');
sql("SELECT retry.set_secret('key', '$key{c}', overlap => '1 s')");
wait_for(sub { signed_by((sent(q('signed', '{}')))[1]) eq 'c' }, 'when the overlap is over one value signs');
is(sql("SELECT active FROM retry.secrets WHERE name = 'key'"), '1', 'as the view says');
sql('CALL retry.maintain()');
wait_sql($node, "SELECT count(*) FROM retry.secret WHERE name = 'key'", 'upkeep deletes what is over', expected => '1');

# Missing: tasks are held, say so, and go on by themselves; others go on.
my $counted = $receiver->stats->{total};
scene('early', url => $receiver->url('/ok/early'), secret => 'later');
scene('bearer', url => $receiver->url('/ok/bearer'), headers => '{"Authorization": "Bearer {{secret:token}}"}');
$id = enqueue($node, q('early', '{}'));
my $bearer = enqueue($node, q('bearer', '{}'));
others_go_on($node, $receiver, 'missing secrets');
is(sql("SELECT DISTINCT state || ' ' || held_reason FROM retry.tasks WHERE id IN ('$id', '$bearer')"),
	'pending missing secret', 'tasks whose secret is missing are held');
$node->stop('immediate');
$node->start;
others_go_on($node, $receiver, 'after a crash');
is(sql("SELECT string_agg(state || ' ' || held_reason, ',') FROM retry.tasks WHERE id IN ('$id', '$bearer')"),
	'pending missing secret,pending missing secret', 'and are after a crash');
is($receiver->stats->{total}, $counted + 2, 'nothing of theirs was sent');
like(sql("SELECT status || detail FROM retry.health() WHERE check_name = 'secrets'"), qr/^warningtasks of 2 /, 'health tells');
sql("SELECT retry.set_secret('later', '$key{a}')");
wait_state($node, $id, 'succeeded', description => 'it goes when its secret is set');
is(sql("SELECT state FROM retry.tasks WHERE id = '$bearer'"), 'pending', 'another waits on');
sql("SELECT retry.set_secret('token', '$token')");
wait_state($node, $bearer, 'succeeded', description => 'and goes when its own is set');
sql("SELECT retry.drop_secret('later')");
wait_sql($node, "SELECT detail FROM retry.events WHERE kind = 'secret dropped'", 'dropped', expected => '"later", by ' . sql('SELECT session_user'));
$id = enqueue($node, q('early', '{}'));
others_go_on($node, $receiver, 'a dropped secret');
is(sql("SELECT state || ' ' || held_reason FROM retry.tasks WHERE id = '$id'"), 'pending missing secret', 'a dropped secret is missing');

# A secret in a header is filled in, and goes nowhere but to the scene's origin.
sql("SELECT retry.set_secret('shown', 'filled')");
scene('shown', url => $echo, headers => '{"Authorization": "Bearer {{secret:shown}}", "X-Twice": "{{secret:shown}},{{secret:shown}}"}');
(undef, $request) = sent(q('shown', '{}'));
is($request->{header}{authorization}, 'Bearer filled', 'a header is filled in');
is($request->{header}{'x-twice'}, 'filled,filled', 'as often as it is named');
(undef, $request) = sent("'shown', '{}', url => '" . $receiver->url('/echo?other') . "'");
is($request->{header}{authorization}, 'Bearer filled', 'for another path too');
my $thief = start_endpoint();
$id = enqueue($node, "'shown', '{}', url => '" . $thief->url('/ok') . "'");
wait_state($node, $id, 'dead', description => 'for another host it is refused');
is(sql("SELECT reason || ': ' || last_error FROM retry.dead_letters WHERE id = '$id'"),
	"rejected: its scene's headers hold secrets, and its URL is not of the scene's origin", 'and says why');
$id = enqueue($node, q('shown', '{}', delay => '1 day'));
sql("SELECT retry.amend('$id', '{\"url\": \"" . $thief->url('/ok') . "\"}'), retry.run_now('$id')");
wait_state($node, $id, 'dead', description => 'and if the task is amended so');
is($thief->stats->{total}, 0, 'that host never got a request');

# A receiver that repeats it does not tell it to those who see the answer.
sql("SELECT retry.set_secret('shown', '$token', overlap => '0')");
my $stars = '*' x length $token;
wait_for(sub { (sent(q('shown', '{}')))[1]{header}{authorization} ne 'Bearer filled' }, 'a header has the new value');
(undef, $request) = sent(q('shown', '{}'));
is($request->{header}{authorization}, "Bearer $stars", 'what is repeated is kept as stars');
is($request->{header}{'x-twice'}, "$stars,$stars", 'wherever it is');
unlike(sql("SELECT convert_from((retry.call('shown', '{}')).response, 'UTF8')"), qr/\Q$token/, 'nor has the caller of a call in the session');
scene('repeats', url => "$echo?status=500", max_attempts => 1, headers => '{"X-Token": "{{secret:token}}"}');
$id = enqueue($node, q('repeats', '{}'));
wait_state($node, $id, 'dead', description => 'one whose token is repeated dies');

# Values are in no view, no log, no dump, no row but that of the secret.
scene('failing', url => $receiver->url('/status/500'), max_attempts => 2, backoff => 'fixed 10ms', secret => 'key',
	headers => '{"X-Token": "{{secret:token}}"}');
$id = enqueue($node, q('failing', '{}'));
wait_state($node, $id, 'dead', description => 'a task with a token dies');
sql("SELECT retry.set_secret('token', '$token', overlap => '0')");
my @values = ($token, $key{c}, 'tok-5e1f');
my @places = split /\n/, sql(<<'SQL');
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'p', 'm') AND c.oid <> 'retry.secret'::regclass
	AND (n.nspname = 'retry' OR c.relname IN ('pg_stat_activity', 'pg_stats', 'pg_statistic', 'pg_settings'))
SQL
cmp_ok(scalar @places, '>', 60, 'all relations are looked at');
my @leaks = grep {
	my $place = $_;
	my $text = sql("SELECT t::text FROM $place t WHERE t::text NOT LIKE '%SELECT t::text FROM%'");
	# what receivers have answered is bytea, which is shown in hexadecimal
	grep { index($text, $_) >= 0 || index($text, unpack('H*', $_)) >= 0 } @values
} @places;
is("@leaks", '', 'no relation shows a value');
my $document = sql('SELECT retry.export_config()');
ok(!(grep { index($document, $_) >= 0 } @values), 'nor does an exported configuration');
my ($dump, $errors) = run_command([ 'pg_dumpall', '--no-sync', '-d', $node->connstr('postgres') ]);
like($dump, qr/\{\{secret:token\}\}/, 'a dump has the names');
ok(!(grep { index($dump, $_) >= 0 } @values), 'and no value');
my ($rc, $out, $err) = $node->psql('postgres', "SELECT retry.set_secret('token', E'$token\\n')");
unlike($err, qr/ERROR.*\Q$token/, 'an error does not name it');
my $log = slurp_file($node->logfile);
$log =~ s/^.*STATEMENT:.*$//mg;			# the caller's own words
ok(!(grep { index($log, $_) >= 0 } @values), 'nor does the log, but for statements that fail');

every_case_has_its_set();
done_testing();
