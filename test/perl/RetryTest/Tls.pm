# Certificates, authorities that issue them, and receivers behind TLS, for tests.
# All files are in the test's temporary folder; nothing is trusted but by whom a
# test tells to.
package RetryTest::Tls;

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename;
use MIME::Base64;
use PostgreSQL::Test::Utils;
use RetryTest;

our @EXPORT = qw(authority certificate identity public_key_pin tls_receiver);

my $made = 0;
my @running;

sub run_openssl
{
	my @command = ('openssl', @_);
	my ($out, $err) = run_command(\@command);

	die "@command: $err\n" if $?;
	return $out;
}

sub new_key
{
	my $base = PostgreSQL::Test::Utils::tempdir . '/tls' . ++$made;

	run_openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', "$base.key");
	return $base;
}

# authority(NAME): one that issues certificates; { certificate => FILE, key => FILE, pem => TEXT }.
sub authority
{
	my ($name) = @_;
	my $base = new_key();

	run_openssl('req', '-x509', '-new', '-key', "$base.key", '-days', 2, '-subj', "/CN=$name",
		'-addext', 'basicConstraints=critical,CA:TRUE', '-out', "$base.crt");
	return loaded($base);
}

# certificate(AUTHORITY, NAME, %options): one that it issued for 127.0.0.1, as above.
#   for  => 'DNS:other.test'   for another host
#   from => '21000101000000Z'  it is valid from then on, for a year
#   base => that of another    for the same key again
sub certificate
{
	my ($authority, $name, %opt) = @_;
	my $base = $opt{base} // new_key();
	my $for = $opt{for} // 'IP:127.0.0.1';

	append_to_file("$base.ext", "subjectAltName=$for\n") if !-e "$base.ext";
	run_openssl('req', '-new', '-key', "$base.key", '-subj', "/CN=$name", '-out', "$base.csr");
	if ($opt{from})
	{
		issue_from($authority, $base, $opt{from});
	}
	else
	{
		run_openssl('x509', '-req', '-in', "$base.csr", '-CA', $authority->{certificate}, '-CAkey', $authority->{key},
			'-set_serial', ++$made, '-days', 2, '-extfile', "$base.ext", '-out', "$base.crt");
	}
	return loaded($base);
}

# Only openssl ca, which wants a folder and a configuration, can say when it begins.
sub issue_from
{
	my ($authority, $base, $from) = @_;

	my ($year, $rest) = $from =~ /^(\d{4})(.*)$/;

	append_to_file("$base.index", '');
	append_to_file("$base.cnf", <<"CONF");
[ca]
default_ca = own
[own]
database = $base.index
new_certs_dir = ${\ dirname($base)}
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
CONF
	run_openssl('ca', '-batch', '-notext', '-config', "$base.cnf", '-in', "$base.csr", '-cert', $authority->{certificate},
		'-keyfile', $authority->{key}, '-startdate', $from, '-enddate', $year + 1 . $rest,
		'-extfile', "$base.ext", '-out', "$base.crt");
	return;
}

sub loaded
{
	my ($base) = @_;

	return { base => $base, certificate => "$base.crt", key => "$base.key", pem => slurp_file("$base.crt") };
}

# identity(CERTIFICATE): the text of a secret that is this client certificate.
sub identity
{
	my ($certificate) = @_;

	return $certificate->{pem} . slurp_file($certificate->{key});
}

# public_key_pin(CERTIFICATE): as retry.scene.tls_pin has it.
sub public_key_pin
{
	my ($certificate) = @_;
	my $file = "$certificate->{base}.pub";

	run_openssl('pkey', '-in', $certificate->{key}, '-pubout', '-outform', 'DER', '-out', $file);
	run_openssl('dgst', '-sha256', '-binary', '-out', "$file.sum", $file);
	return 'sha256//' . encode_base64(slurp_file("$file.sum"), '');
}

# tls_receiver(CERTIFICATE, @ARGUMENTS): the base of the URLs of a receiver with
# that certificate, which ends with the test; what it answers, and arguments, see
# tls_receiver.py.
sub tls_receiver
{
	my ($certificate, @arguments) = @_;
	my $program = abs_path(dirname(__FILE__)) . '/tls_receiver.py';
	my $port_file = PostgreSQL::Test::Utils::tempdir . '/tls-port' . ++$made;
	my $pid = fork() // die "cannot fork: $!";

	if ($pid == 0)
	{
		# POSIX::_exit: this copy of the test must not run its END blocks.
		require POSIX;
		no warnings;
		open(STDIN, '<', '/dev/null');
		exec 'python3', $program, '--port-file', $port_file, '--certificate', $certificate->{certificate},
		  '--key', $certificate->{key}, @arguments;
		POSIX::_exit(127);
	}
	push @running, $pid;
	wait_for(sub { -s $port_file }, 'a receiver behind TLS is ready');
	return 'https://127.0.0.1:' . slurp_file($port_file);
}

END
{
	my $status = $?;

	kill 'KILL', @running;
	waitpid($_, 0) foreach @running;
	$? = $status;
}

1;
