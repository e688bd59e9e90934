# What is handed out agrees with itself: META.json is one that PGXN takes, all
# places that name the version name the same, and what the recipes for Debian,
# Docker and continuous integration name is there.  No server is needed.
use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use File::Basename;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = abs_path(dirname(__FILE__) . '/../..');

sub text
{
	return slurp_file("$top/$_[0]");
}

# The one match of a pattern in a file; "nothing" when there is none.
sub word
{
	my ($file, $pattern) = @_;
	my ($word) = text($file) =~ $pattern;

	return $word // 'nothing';
}

# https://pgxn.org/meta/spec.txt
my $meta = decode_json(text('META.json'));
my $semantic = qr/^\d+\.\d+\.\d+(?:-[A-Za-z][A-Za-z0-9-]*)?$/;
my %field = map { $_ => 1 } qw(abstract description generated_by license maintainer meta-spec name no_index
  prereqs provides release_status resources tags version);

is(join(' ', grep { !defined $meta->{$_} } qw(abstract license maintainer meta-spec name provides version)),
	'', 'META.json has what it must have');
is(join(' ', grep { !$field{$_} && !/^x_/i } sort keys %$meta), '', 'and nothing that is not known');
like($meta->{version}, $semantic, 'its version is a semantic one');
like($meta->{release_status}, qr/^(?:stable|testing|unstable)$/, 'its status is known');
is(join(' ', grep { !/^(?:agpl_3|apache_1_1|apache_2_0|artistic_1|artistic_2|bsd|freebsd|gfdl_1_[23]|gpl_[123]|lgpl_(?:2_1|3_0)|mit|mozilla_1_[01]|openssl|perl_5|postgresql|qpl_1_0|ssleay|sun|zlib|open_source|restricted|unrestricted|unknown)$/ }
		  ref $meta->{license} ? @{ $meta->{license} } : $meta->{license}),
	'', 'its license is a name that is known');
is($meta->{'meta-spec'}{version}, '1.0.0', 'it says which specification it follows');
is(ref $meta->{tags}, 'ARRAY', 'its tags are a list');
while (my ($phase, $kinds) = each %{ $meta->{prereqs} })
{
	like($phase, qr/^(?:configure|build|test|runtime|develop)$/, "prereqs: phase $phase");
	while (my ($kind, $needs) = each %$kinds)
	{
		like($kind, qr/^(?:requires|recommends|suggests|conflicts)$/, "prereqs: $phase $kind");
		like($needs->{$_}, qr/^(?:(?:[<>]=?|[!=]=) *)?\d+\.\d+\.\d+$|^0$/, "prereqs: $_ $needs->{$_}") foreach sort keys %$needs;
	}
}
while (my ($name, $what) = each %{ $meta->{provides} })
{
	ok(-s "$top/$what->{$_}", "provides: $name: $what->{$_} is there") foreach qw(file docfile);
	like($what->{version}, $semantic, "provides: $name: a semantic version");
}

# One version everywhere.
my $version = word('retry.control', qr/^default_version = '(.*)'$/m);
is(word('src/shmem.h', qr/^#define RETRY_VERSION\s+"(.*)"$/m), $version, 'the library is of the version of retry.control');
is(word('src/shmem.h', qr/^#define RETRY_VERSION_NUM\s+(\d+)$/m), sprintf('%d%02d00', split /\./, $version), 'as a number, too');
like($meta->{version}, qr/^\Q$version\E\.\d+$/, 'so is META.json');
is($meta->{provides}{retry}{version}, $meta->{version}, 'so is what it provides');
is($meta->{provides}{retry}{file}, "retry--$version.sql", 'and its file');
is(word('CHANGELOG.md', qr/^## ([\d.]+)/m), $version, 'so is the first entry of CHANGELOG.md');
like(word('debian/changelog', qr/^retry \((.*?)\)/), qr/^\Q$meta->{version}\E(?:~|$)/, 'so is debian/changelog');

# Debian: control is made of control.in.
my ($source, @packages) = split /\n\n/, text('debian/control');
my ($source_in, $package_in) = split /\n\n/, text('debian/control.in');
is($source, $source_in, 'debian/control follows debian/control.in');
foreach my $package (@packages)
{
	my ($major) = $package =~ /^Package: postgresql-(\d+)-retry$/m;
	my $expected = $package_in =~ s/PGVERSION/$major/gr;

	is($package =~ s/\n+\z//r, $expected =~ s/\n+\z//r, "also for PostgreSQL $major");
}

# The oldest and the newest major that the sources know are those that are tested.
my $workflow = text('.github/workflows/ci.yml');
my ($oldest, $newest) = word('src/compat.h', qr/(\d+ and \d+)/) =~ /\d+/g;
my @matrices = $workflow =~ /^ +postgres: \[(.*)\]$/mg;
is(join(' | ', @matrices), join(' | ', (join ', ', $oldest .. $newest) x 2), 'continuous integration takes all majors');
my $docker = text('Dockerfile') =~ s/\\\n//gr;
my ($default) = $docker =~ /^ARG PG_MAJOR=(\d+)$/m;
cmp_ok($default // 0, '>=', $oldest, 'the image has one of them');
cmp_ok($default // 99, '<=', $newest, 'of those there are');
is(join(' ', grep { !/^(?:#|ARG|FROM|RUN|COPY|$)/ } map { /^(\S*)/ } split /\n/, $docker), '', 'Dockerfile: instructions only');
my %command = map { $_ => 1 } $workflow =~ m{^ +- (?:run: )?((?:scripts|test|bench)/\S+)}mg;
cmp_ok(scalar(keys %command), '>', 4, 'continuous integration runs our scripts');
ok(-x "$top/$_", "$_ can be run") foreach sort keys %command;

done_testing();
