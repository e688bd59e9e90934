# TLS as scenes ask for it, against receivers whose certificates are good, and
# wrong in every way: what is refused says which part was wrong, and no request
# leaves; client certificates are shown to whom they are for, through rotation,
# and no connection serves two of them.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Cases 'every_case_has_its_set';
use RetryTest::Tls;
use Test::More;

my $node = new_node('main');
my $receiver = start_endpoint();
hold_nothing($node);
my $ours = authority('ours');
my $theirs = authority('theirs');
my $server = certificate($ours, 'server');
my $good = tls_receiver($server);

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# Makes or changes a scene: one attempt, trusting our authority.
sub scene
{
	my ($name, %column) = @_;

	%column = (max_attempts => 1, tls_ca => $ours->{pem}, %column);
	my %value = map { $_ => defined $column{$_} ? "'$column{$_}'" : 'NULL' } keys %column;
	my @columns = sort keys %column;
	sql("INSERT INTO retry.scene (name, " . join(', ', @columns) . ") VALUES ('$name', "
		  . join(', ', map { $value{$_} } @columns) . ") ON CONFLICT (group_name, name) DO UPDATE SET "
		  . join(', ', map { "$_ = $value{$_}" } @columns));
	return;
}

# What a task of the scene is answered, as the receiver saw it; else its error.
sub answer
{
	my ($name, $more) = @_;
	my $id = enqueue($node, "'$name', '{}'" . ($more // ''));
	wait_sql($node, "SELECT state IN ('succeeded', 'dead') FROM retry.tasks WHERE id = '$id'", "a task of $name ends");
	my ($error, $response) = split /\|/,
	  sql("SELECT coalesce(error, ''), convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$id' ORDER BY attempt_no DESC LIMIT 1"), 2;
	return $error ne '' ? $error : decode_json($response);
}

sub error_is
{
	my ($name, $expected, $what, %column) = @_;

	scene($name, %column);
	my $got = answer($name);
	$got = 'answered: ' . encode_json($got) if ref $got;
	return ref $expected ? like($got, $expected, $what) : is($got, $expected, $what);
}

# Verified, by an authority of the scene's own.
scene('good', url => "$good/");
is(answer('good')->{version}, 'TLSv1.3', 'a certificate by an authority of the scene is verified');
is(answer('good')->{client}, undef, 'no client certificate is shown');
error_is('usual', qr/^tls: issuer of the server's certificate is not trusted: /, 'the system does not trust it', url => "$good/", tls_ca => undef);
error_is('other_ca', qr/^tls: issuer of the server's certificate is not trusted: /, 'nor does who trusts another authority', url => "$good/", tls_ca => $theirs->{pem});
error_is('two_ca', qr/TLSv1/, 'several may be trusted', url => "$good/", tls_ca => $theirs->{pem} . $ours->{pem});
my $alone = certificate($ours, 'alone');
PostgreSQL::Test::Utils::run_command([ 'openssl', 'req', '-x509', '-new', '-key', $alone->{key}, '-days', '2', '-subj', '/CN=alone',
	'-addext', 'subjectAltName=IP:127.0.0.1', '-out', $alone->{certificate} ]);
error_is('self', "tls: issuer of the server's certificate is not trusted: self-signed certificate", 'self-signed', url => tls_receiver($alone) . '/');
error_is('expired', "tls: server's certificate has expired", 'expired', url => tls_receiver(certificate($ours, 'old', from => '20200101000000Z')) . '/');
error_is('early', "tls: server's certificate is not valid yet", 'not valid yet',
	url => tls_receiver(certificate($ours, 'early', from => '21000101000000Z')) . '/');
error_is('wrong_host', "tls: server's certificate is for another host name", 'for another host',
	url => tls_receiver(certificate($ours, 'elsewhere', for => 'DNS:elsewhere.test')) . '/');

# Versions.
my $from_1_1 = tls_receiver($server, '--highest', '1.1');
my $from_1_2 = tls_receiver($server, '--highest', '1.2');
error_is('v1_1', 'tls: server speaks no version of TLS that is allowed', 'TLS 1.1 is not spoken', url => "$from_1_1/");
error_is('v1_2', qr/TLSv1\.2/, 'TLS 1.2 is', url => "$from_1_2/");
error_is('v1_3', 'tls: server speaks no version of TLS that is allowed', 'unless 1.3 is the least', url => "$from_1_2/", tls_min_version => '1.3');
error_is('v1_3', qr/TLSv1\.3/, '1.3 is, then', url => "$good/", tls_min_version => '1.3');
error_is('plain', 'tls: server does not speak TLS', 'one that has none', url => tls_receiver($server, '--plain') . '/');

# Pinned keys.
my $pin = public_key_pin($server);
my $other_pin = public_key_pin($theirs);
error_is('pinned', qr/TLSv1/, 'the pinned key', url => "$good/", tls_pin => $pin);
error_is('pinned', "tls: server's public key is not one of those that are pinned", 'another key', url => "$good/", tls_pin => $other_pin);
error_is('pinned', qr/TLSv1/, 'one of two', url => "$good/", tls_pin => "$other_pin;$pin");
error_is('pinned', qr/^tls: issuer/, 'a pin does not replace verification', url => "$good/", tls_pin => $pin, tls_ca => undef);

# Not verified: superusers only, for the scene's own origin.
scene('unverified', url => "$good/", tls_ca => undef, tls_verify => 'false');
is(answer('unverified')->{version}, 'TLSv1.3', 'a superuser can switch verification off');
is(sql("SELECT tls_unverified_by = session_user FROM retry.scene WHERE name = 'unverified'"), 't', 'and is named');
like(answer('usual'), qr/issuer/, 'a connection that was not verified serves no other scene');
like(answer('unverified', ", url => '$from_1_2/'"), qr/not of the scene's origin/, 'nor another origin');
error_is('unverified', qr/pinned/, 'what is pinned is looked at all the same', url => "$good/", tls_ca => undef, tls_verify => 'false', tls_pin => $other_pin);
scene('unverified', url => "$good/", tls_ca => undef, tls_verify => 'false', tls_pin => undef);
like(sql("SELECT status || ': ' || detail FROM retry.health() WHERE check_name = 'tls'"), qr/^warning: .*default\/unverified/, 'health tells');
sql(<<'SQL');
CREATE ROLE ops;
CREATE ROLE boss SUPERUSER;
GRANT SELECT, INSERT, UPDATE ON retry.scene TO ops;
SET ROLE boss;
UPDATE retry.scene SET tls_verify = true WHERE name = 'unverified';
UPDATE retry.scene SET tls_verify = false WHERE name = 'unverified';
SQL
foreach my $change (
	"tls_verify = false WHERE name = 'usual'",
	"url = '$from_1_2/' WHERE name = 'unverified'",
	"tls_verify = false, tls_unverified_by = 'boss' WHERE name = 'usual'")
{
	sql_fails($node, "SET ROLE ops; UPDATE retry.scene SET $change", '42501', 'may not send without verifying', "not for others: $change");
}
sql("SET ROLE ops; UPDATE retry.scene SET description = 'x', tls_unverified_by = 'ops' WHERE name = 'unverified'");
is(sql("SELECT tls_unverified_by FROM retry.scene WHERE name = 'unverified'"), 'boss', 'others can change the rest of it, and not who it was');
is(answer('unverified')->{version}, 'TLSv1.3', 'which counts');
sql("ALTER ROLE boss NOSUPERUSER; UPDATE retry.scene SET description = 'y' WHERE name = 'good'");
wait_for(sub { my $got = answer('unverified'); !ref $got && $got =~ /^tls: issuer/ }, 'as long as that role is a superuser');
sql("ALTER TABLE retry.scene DISABLE TRIGGER check_unverified; UPDATE retry.scene SET tls_verify = false WHERE name = 'usual'; ALTER TABLE retry.scene ENABLE TRIGGER check_unverified");
like(answer('usual'), qr/^tls: issuer/, 'a row that got past the trigger does not count');
sql("UPDATE retry.scene SET tls_verify = true WHERE name IN ('usual', 'unverified')");

# Client certificates: wanted, shown, refused.
my $wanting = tls_receiver($server, '--clients-of', $ours->{certificate});
my $wanting_1_2 = tls_receiver($server, '--clients-of', $ours->{certificate}, '--highest', '1.2');
my $asking = tls_receiver($server, '--clients-of', $ours->{certificate}, '--ask');
my %client = map { $_ => certificate($ours, $_) } qw(alice bob);
my $mallory = certificate($theirs, 'mallory');
my $lapsed = certificate($ours, 'lapsed', from => '20200101000000Z');
error_is('none', qr/^tls: server wants a client certificate: certificate required/, 'one is wanted', url => "$wanting/");
error_is('none_1_2', qr/^tls: server refused the handshake; it may want a client certificate/, 'by TLS 1.2', url => "$wanting_1_2/");
sub set_secret
{
	my ($name, $certificate) = @_;

	sql("SELECT retry.set_secret('$name', '" . identity($certificate) . "')");
	return;
}
scene('alice', url => "$wanting/", tls_cert => 'alice');
my $held = enqueue($node, q('alice', '{}'));
others_go_on($node, $receiver, 'a missing certificate');
is(sql("SELECT state || ' ' || held_reason FROM retry.tasks WHERE id = '$held'"), 'pending missing secret', 'a task waits for its certificate');
sql_fails($node, "SELECT retry.set_secret('alice', 'a token')", '22023', 'is no client certificate, but it is that of scenes .*: alice', 'it cannot be a token');
set_secret('alice', $client{alice});
wait_state($node, $held, 'succeeded', description => 'and goes when it is set');
is(answer('alice')->{client}, 'alice', 'a client certificate is shown');
scene('alice_1_2', url => "$wanting_1_2/", tls_cert => 'alice');
is(answer('alice_1_2')->{client}, 'alice', 'in TLS 1.2 too');
is(decode_json(sql("SELECT convert_from((retry.call('alice', '{}')).response, 'UTF8')"))->{client}, 'alice', 'and by a call in the session');
set_secret('mallory', $mallory);
error_is('mallory', 'tls: server refused the client certificate: unknown ca', 'one of another authority is refused', url => "$wanting/", tls_cert => 'mallory');
set_secret('lapsed', $lapsed);
error_is('lapsed', 'tls: server refused the client certificate: certificate expired', 'one that has expired', url => "$wanting_1_2/", tls_cert => 'lapsed');
error_is('lapsed', 'tls: server refused the client certificate: certificate expired', 'in TLS 1.3 too', url => "$wanting/", tls_cert => 'lapsed');
like(answer('alice', ", url => '$good/'"), qr/client certificate .* not of the scene's origin/, 'it is not shown to another origin');

# Whom a connection serves: each identity has its own, kept and used again.
set_secret('bob', $client{bob});
scene('ask_alice', url => "$asking/", tls_cert => 'alice');
scene('ask_bob', url => "$asking/", tls_cert => 'bob');
scene('ask_nobody', url => "$asking/");
scene('ask_pinned', url => "$asking/", tls_pin => $pin);
scene('ask_unverified', url => "$asking/", tls_ca => undef, tls_verify => 'false');
my %whose;
foreach my $turn (1 .. 4)
{
	foreach my $name (qw(alice bob nobody pinned unverified))
	{
		my $seen = answer("ask_$name");
		is($seen->{client}, $name =~ /alice|bob/ ? $name : undef, "turn $turn: who it is for $name");
		$whose{ $seen->{connection} }{$name} = 1;
	}
}
is(scalar(grep { keys %$_ > 1 } values %whose), 0, 'no connection has served two of them');
cmp_ok(scalar(keys %whose), '<', 20, 'though connections are used again');

# Rotation: the new certificate counts for the next attempt, on a connection of its own.
my $renewed = certificate($ours, 'alice renewed');
set_secret('alice', $renewed);
wait_for(sub { answer('ask_alice')->{client} eq 'alice renewed' }, 'a renewed certificate is shown');
is(answer('ask_alice')->{client}, 'alice renewed', 'and stays');
scene('retried', url => "$asking/status/503", tls_cert => 'alice', max_attempts => 100, backoff => 'fixed 100ms');
my $id = enqueue($node, q('retried', '{}'));
my $clients = "SELECT DISTINCT convert_from(response, 'UTF8')::jsonb ->> 'client' FROM retry.attempts WHERE task_id = '$id'";
wait_sql($node, "SELECT 'alice renewed' IN ($clients)", 'a task is tried with it');
set_secret('alice', $client{alice});
wait_sql($node, "SELECT 'alice' IN ($clients)", 'its retries take the next one');
sql("SELECT retry.cancel('$id')");
sql("SELECT retry.drop_secret('alice')");
wait_sql($node, "SELECT detail LIKE '%wait for a secret%' FROM retry.health() WHERE check_name = 'secrets'", 'a dropped one is missing');

# A private key is in no view, log, dump or document.
my $key = (split /\n/, slurp_file($client{bob}->{key}))[1];
my ($dump) = run_command([ 'pg_dumpall', '--no-sync', '-d', $node->connstr('postgres') ]);
like($dump, qr/BEGIN CERTIFICATE/, 'a dump has what scenes trust');
is(index($dump, $key), -1, 'and no private key');
my $log = slurp_file($node->logfile);
$log =~ s/^.*STATEMENT:.*$//mg;
is(index($log, $key), -1, 'nor has the log');
my $document = sql('SELECT retry.export_config()');
is(index($document, $key), -1, 'nor an exported configuration');
is(sql(<<'SQL'), 't', 'a document says it all and can be imported');
BEGIN;
CREATE TEMP TABLE before ON COMMIT DROP AS SELECT name, url, tls_verify, tls_min_version, tls_ca, tls_pin, tls_cert FROM retry.scene;
CREATE TEMP TABLE document ON COMMIT DROP AS SELECT retry.export_config() AS d;
UPDATE retry.scene SET tls_verify = true, tls_min_version = '1.2', tls_ca = NULL, tls_pin = NULL, tls_cert = NULL;
DO $$ BEGIN PERFORM retry.import_config(d) FROM document; END $$;
SELECT count(*) = 0 FROM (SELECT * FROM before EXCEPT SELECT name, url, tls_verify, tls_min_version, tls_ca, tls_pin, tls_cert FROM retry.scene) x;
ROLLBACK;
SQL

every_case_has_its_set();
done_testing();
