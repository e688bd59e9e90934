# The scenarios of examples/: each is run as a reader would run it, in a
# database of its own, and must show what stands beside it in NAME.out.  Ids,
# times with fractions of a second and the receiver's address differ from run to
# run and are replaced by words.  RETRY_EXAMPLES=NAME,… runs only some;
# RETRY_ACCEPT=FOLDER writes what they showed there, to be looked at.
use strict;
use warnings FATAL => 'all';

use Encode qw(decode_utf8);
use File::Basename;
use File::Spec;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $folder = File::Spec->rel2abs(dirname(__FILE__) . '/../../examples');
my @names = sort map { basename($_, '.sql') } glob("$folder/*.sql");
@names = split /,/, $ENV{RETRY_EXAMPLES} if $ENV{RETRY_EXAMPLES};

cmp_ok(scalar @names, '>', 0, 'there are examples');

my $node = new_node('examples', extension => 0);
my $receiver = start_endpoint();
my $address = $receiver->url('');

sub without_what_differs
{
	my ($text) = @_;

	$text =~ s/\Q$address\E/RECEIVER/g;
	$text =~ s/\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/UUID/g;
	$text =~ s/(?:\d{4}-\d\d-\d\d[ T])?\d\d:\d\d:\d\d\.\d+(?:[+-]\d\d(?::\d\d)?)?/TIME/g;
	$text =~ s/-{2,}\+?/--/g;
	$text =~ s/[ \t]+/ /g;
	$text =~ s/ +$//mg;
	return $text;
}

foreach my $name (@names)
{
	my $database = $name =~ tr/-/_/r;
	my ($out, $err) = ('', '');

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION retry');
	my $good = IPC::Run::run(
		[   'psql', '-X', '-q', '-a', '-d', $node->connstr($database),
			'-v', "receiver=$address", '-f', "$folder/$name.sql"
		],
		'<', \'', '>', \$out, '2>', \$err, IPC::Run::timeout(120));
	ok($good, "$name runs") or diag($err);

	if ($ENV{RETRY_ACCEPT})
	{
		open(my $file, '>', "$ENV{RETRY_ACCEPT}/$name.out") or die $!;
		print $file $out =~ s/\Q$address\E/http:\/\/127.0.0.1:8080/gr;
		close($file);
	}
	my $expected = -e "$folder/$name.out" ? slurp_file("$folder/$name.out") : '';
	$expected =~ s{\Qhttp://127.0.0.1:8080\E}{RECEIVER}g;
	is(decode_utf8(without_what_differs($out)),
		decode_utf8(without_what_differs($expected)),
		"$name shows what $name.out says");
	$node->safe_psql('postgres', "DROP DATABASE $database WITH (FORCE)");
}

$node->stop;
done_testing();
