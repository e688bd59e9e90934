# Runs the examples of README.md and doc/*.md, as a reader would who pastes them
# into psql one after the other, and compares what comes out with what the page
# says.  Documentation that is not run goes wrong without anybody noticing; so
# this also checks that the reference names everything that exists, that the
# settings shown are accepted, and that links lead somewhere.  The conventions
# for writers are in test/README.md.
#
# With arguments, only the examples of these files are run (no other checks).
use strict;
use warnings FATAL => 'all';

use File::Basename;
use File::Spec;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;
use Time::HiRes qw(time);

my $top = File::Spec->rel2abs(dirname(__FILE__) . '/../..');
my @pages = @ARGV ? @ARGV : ("$top/README.md", sort glob("$top/doc/*.md"));

# The hosts of the examples.  Each is a receiver of its own; what it does with
# all requests is said by the path that goes before the example's own.
my %behaviour = (
	hooks => '/ok',						# accepts
	flaky => '/flaky/2?fail=503&path=',	# refuses each message twice
	down => '/status/503?path=',
	picky => '/status/422?path=',
	gone => '/status/410?path=',
	bank => '/processing/2?status=202&path=',
	slow => '/delay/300?path=',
	busy => '/retry-after/60?status=429&path=',
	echo => '/echo?path=');
my %address = map { $_ => start_endpoint()->keep->url } keys %behaviour;

# What a page calls ports 8081 and 8082 and a folder in /tmp is free, and ours.
my $folder = PostgreSQL::Test::Utils::tempdir;
my $scripts = PostgreSQL::Test::Utils::tempdir;    # a page may remove its folder
my %own = ('/tmp/retry-tutorial' => $folder,
	map { $_ => PostgreSQL::Test::Cluster::get_free_port() } 8081, 8082);

# What a page leaves running says so there.
END
{
	foreach my $file ($folder ? glob("$folder/*.pid") : ())
	{
		kill 'TERM', slurp_file($file) =~ /(\d+)/;
	}
}

# A receiver ends when its object is destroyed: hold on to all of them.
my @receivers;
sub RetryTest::Endpoint::keep { push @receivers, $_[0]; return $_[0] }

my $node = new_node('docs', extension => 0, conf => <<'CONF');
wal_level = logical
retry.alarm_interval = 100ms
CONF

# https://hooks.example.com/x is http://127.0.0.1:PORT/ok/x, and back.
sub to_receiver
{
	my ($text) = @_;
	$text =~ s{https://(\w+)\.example\.com(?=(/?))}
		{ exists $address{$1} ? $address{$1} . ($2 ? $behaviour{$1} : '') : "https://$1.example.com" }ge;
	$text =~ s{(/tmp/retry-tutorial|\b808[12]\b)}{$own{$1}}g;
	return $text;
}

sub from_receiver
{
	my ($text) = @_;
	foreach my $name (keys %own)
	{
		$text =~ s/\Q$own{$name}\E(?!\d)/$name/g;
	}
	while (my ($host, $url) = each %address)
	{
		$text =~ s/\Q$url$behaviour{$host}\E/https:\/\/$host.example.com/g;
		$text =~ s/\Q$url\E(?!\d)/https:\/\/$host.example.com/g;
		my ($name) = $url =~ m{^http://(.*)};
		$text =~ s/\Q$name\E(?!\d)/$host.example.com/g;
	}
	return $text;
}

# The fenced blocks of a page: { kind, words, text, line }.
sub blocks
{
	my ($file) = @_;
	my (@blocks, $open);
	my $number = 0;

	foreach my $line (split /\n/, slurp_file($file))
	{
		$number++;
		if (!$open && $line =~ /^```(\w*)\s*(.*?)\s*$/)
		{
			$open = { kind => $1, words => $2, text => '', line => $number };
		}
		elsif ($open && $line =~ /^```\s*$/)
		{
			push @blocks, $open;
			undef $open;
		}
		elsif ($open)
		{
			$open->{text} .= "$line\n";
		}
	}
	die "$file: a block is not closed\n" if $open;
	return @blocks;
}

# What psql prints, or a page shows, without what differs each time: ids, times
# with fractions of a second, and the width of columns.
sub lines_of
{
	my ($text) = @_;
	my @lines;

	foreach my $line (split /\n/, $text)
	{
		$line =~ s/\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/UUID/g;
		$line =~ s/(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d\.\d+(?:[+-]\d\d)?/TIME/g;
		$line =~ s/^\s+|\s+$//g;
		$line =~ s/\s+/ /g;
		$line =~ s/-{2,}/--/g;
		push @lines, $line if length $line;
	}
	return @lines;
}

# A pattern for all lines of a text block: "…" is any text of a line, and alone
# on a line any number of lines.
sub pattern_of
{
	my ($text) = @_;
	my $pattern = '';

	utf8::decode($text);
	foreach my $line (lines_of($text))
	{
		if ($line eq "\x{2026}")
		{
			$pattern .= '(?:[^\n]*\n)*';
			next;
		}
		$pattern .= join('[^\n]*?', map { quotemeta } split /\x{2026}/, $line, -1) . "\n";
	}
	return qr/\A$pattern\z/;
}

sub printed
{
	my ($text) = @_;

	# the position in the server's source is none of the reader's business
	$text =~ s/^LOCATION: .*\n//mg;
	$text =~ s/^((?:ERROR|WARNING|NOTICE|INFO): )\s*\w{5}: /$1 /mg;
	$text = from_receiver($text);
	utf8::decode($text);
	return $text;
}

# What psql is given for a block: its SQL, or a shell that runs its commands in
# the project's folder, each of which must succeed.
sub command
{
	my ($block) = @_;
	my $script = "$scripts/line_$block->{line}.sh";

	return to_receiver($block->{text}) . ';' if $block->{kind} eq 'sql';
	open(my $file, '>', $script) or die "$script: $!\n";
	print $file "cd '$top'\n" . to_receiver($block->{text});
	close $file;
	return "\\! bash -e $script || echo 'ERROR:  shell: a command failed'";
}

# Runs all blocks of a page in one session, each between two marks.
sub run_page
{
	my ($dbname, @blocks) = @_;
	my $input = "\\set VERBOSITY verbose\n\\pset pager off\n";
	my $output = '';

	foreach my $block (@blocks)
	{
		$input .= "\\echo \@\@\@ $block->{line}\n" . command($block) . "\n";
	}
	$input .= "\\echo \@\@\@ 0\n";
	IPC::Run::run(
		[ 'psql', '-X', '-q', '-d', $node->connstr($dbname), '-f', '-' ],
		'<', \$input, '>&', \$output, IPC::Run::timeout(300));
	$output =~ s/^psql:<stdin>:\d+: //mg;

	my %output;
	my (undef, @parts) = split /^@@@ (\d+)\n/m, $output;
	while (my ($line, $text) = splice @parts, 0, 2)
	{
		$output{$line} = $text // '';
	}
	return %output;
}

# The verdict on one example, as a test of ours.
sub report
{
	my ($good, $name, $explanation) = @_;

	ok($good, $name) or diag($explanation);
	return;
}

# Each file: a database of its own, and afterwards as if it had not been run.
# The verdicts go to $report.
sub check_page
{
	my ($file, $report) = @_;
	my $page = $file =~ m{^\Q$top\E/(.*)} ? $1 : basename($file);
	my @all = blocks($file);
	my @sql = grep { $_->{kind} eq 'sql' || ($_->{kind} eq 'sh' && $_->{words} eq 'run') } @all;
	my $dbname = 'shop';

	return if !@sql;
	for my $i (0 .. $#all - 1)
	{
		$all[$i]{expected} = $all[ $i + 1 ]{text}
		  if $all[$i]{kind} =~ /^(?:sql|sh)$/ && $all[ $i + 1 ]{kind} eq 'text';
	}
	$node->safe_psql('postgres', "CREATE DATABASE $dbname");
	# the page that installs the extension itself is not robbed of its example
	$node->safe_psql($dbname, 'CREATE EXTENSION retry')
	  if !grep { $_->{text} =~ /^CREATE EXTENSION retry\b/m } @sql;
	my %output = run_page($dbname, @sql);

	foreach my $block (@sql)
	{
		my $what = "$page, line $block->{line}";
		my $raw = $output{ $block->{line} } // "(it was not reached)\nERROR:  -----: not reached\n";
		my @codes = $raw =~ /^(?:ERROR|FATAL):\s+(\S{5}): /mg;
		my $shown = printed($raw);
		my ($wanted) = $block->{words} =~ /^error:\s*(\w{5})$/;

		if ($block->{kind} eq 'sql' && $block->{words} ne '' && !defined $wanted)
		{
			$report->(0, "$what: \"sql $block->{words}\" is not understood", '');
		}
		elsif (defined $wanted)
		{
			$report->("@codes" eq $wanted, "$what: fails as it says", "it should fail with $wanted:\n" . encoded($shown));
		}
		else
		{
			$report->(!@codes, "$what: runs", encoded($shown));
		}
		next if !defined $block->{expected};
		my $got = join('', map { "$_\n" } lines_of($shown));
		$report->(scalar($got =~ pattern_of($block->{expected})), "$what: shows what it says",
			"the page says:\n$block->{expected}\nit is:\n" . encoded($shown));
	}

	$node->safe_psql('postgres', "DROP DATABASE $dbname");
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	foreach my $role (split /\n/, $node->safe_psql('postgres',
			"SELECT quote_ident(rolname) FROM pg_roles WHERE oid > 16383"))
	{
		$node->safe_psql('postgres', "DROP ROLE $role");
	}
	return;
}

sub encoded
{
	my ($text) = @_;
	utf8::encode($text);
	return $text;
}

# Blocks of postgresql.conf: the server must accept each line.
sub check_settings
{
	my ($file) = @_;
	my $page = $file =~ m{^\Q$top\E/(.*)} ? $1 : $file;

	foreach my $block (grep { $_->{kind} eq 'conf' } blocks($file))
	{
		foreach my $line (grep { /^\s*[^#\s]/ } split /\n/, $block->{text})
		{
			my ($name, $value) = $line =~ /^\s*([\w.]+)\s*=\s*('[^']*'|[^#]*?)\s*(?:#.*)?$/;
			$value = "'$value'" if defined $value && $value !~ /^'/;
			my ($rc, $out, $err) = defined $value
			  ? $node->psql('postgres', "ALTER SYSTEM SET $name = $value") : (1, '', 'cannot be read');
			is($err, '', "$page, line $block->{line}: $line");
		}
	}
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
	return;
}

# Commands of a shell that name a file of ours: it is there and can be run.
sub check_commands
{
	my ($file) = @_;
	my $page = $file =~ m{^\Q$top\E/(.*)} ? $1 : $file;

	foreach my $block (grep { $_->{kind} eq 'sh' } blocks($file))
	{
		foreach my $command ($block->{text} =~ m{^((?:scripts|bench|examples|test)/\S+)}mg)
		{
			ok(-x "$top/$command", "$page, line $block->{line}: $command can be run");
		}
	}
	return;
}

# The anchors that a page offers, as the usual renderers make them.
sub anchors
{
	my ($file) = @_;
	my $text = slurp_file($file);
	my %anchor;

	utf8::decode($text);
	$text =~ s/^```.*?^```//msg;
	while ($text =~ /^#+\s+(.*?)\s*$/mg)
	{
		my $heading = lc $1;
		$heading =~ s/[^\w\s-]//g;
		$heading =~ s/\s/-/g;
		$anchor{$heading} = 1;
	}
	return \%anchor;
}

sub check_links
{
	my ($file) = @_;
	my $page = $file =~ m{^\Q$top\E/(.*)} ? $1 : $file;
	my $text = slurp_file($file);
	my @broken;

	$text =~ s/^```.*?^```//msg;
	while ($text =~ /\]\(([^)\s]+)\)/g)
	{
		my $link = $1;
		next if $link =~ m{^https?://};
		my ($path, $anchor) = split /#/, $link, 2;
		my $target = $path eq '' ? $file : dirname($file) . "/$path";
		push @broken, $link
		  if !-e $target || (defined $anchor && $target =~ /\.md$/ && !anchors($target)->{$anchor});
	}
	is(join(' ', @broken), '', "$page: its links lead somewhere");
	return;
}

# A table whose last column is "example" names, in each line, examples that are
# there: comments such as "-- A1" or "-- A1, A2" in blocks of SQL.
sub check_examples
{
	my ($file) = @_;
	my $page = $file =~ m{^\Q$top\E/(.*)} ? $1 : $file;
	my (%there, %used, @wrong);
	my $inside = 0;

	foreach my $block (grep { $_->{kind} eq 'sql' } blocks($file))
	{
		$there{$_} = 1 foreach map { split /, / } $block->{text} =~ /^-- ([A-Z]\d+(?:, [A-Z]\d+)*)\b/mg;
	}
	foreach my $line (split /\n/, slurp_file($file))
	{
		if ($inside && $line =~ /^\|/ && $line !~ /^\|[-|]+$/)
		{
			my ($names) = $line =~ /\|\s*([^|]*?)\s*\|$/;
			my @names = split /, /, $names;

			push @wrong, $line if !@names || grep { !$there{$_} } @names;
			@used{@names} = ();
		}
		$inside = 0 if $line !~ /^\|/;
		$inside = 1 if $line =~ /\| example \|$/;
	}
	return if !%used;
	is(join("\n", @wrong), '', "$page: each line of its tables has an example");
	is(join(' ', grep { !exists $used{$_} } sort keys %there), '', "$page: and each example a line");
	return;
}

# The reference leaves nothing out: each function, type, table, view and setting
# is named in doc/sql.md, and so is each column of those that users look at.
sub check_coverage
{
	my $reference = slurp_file("$top/doc/sql.md");
	my @missing;

	$node->safe_psql('postgres', 'CREATE EXTENSION retry');
	foreach my $name (split /\n/, $node->safe_psql('postgres', <<'SQL'))
SELECT DISTINCT 'retry.' || p.proname || '('
FROM pg_proc p
WHERE p.pronamespace = 'retry'::regnamespace
UNION
SELECT 'retry.' || c.relname
FROM pg_class c
WHERE c.relnamespace = 'retry'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND c.relname !~ '_\d\d$'
UNION
SELECT 'retry.' || t.typname
FROM pg_type t
WHERE t.typnamespace = 'retry'::regnamespace AND t.typtype IN ('b', 'e') AND t.typelem = 0
UNION
SELECT name FROM pg_settings WHERE name LIKE 'retry.%'
UNION
SELECT '`' || e.enumlabel || '`'
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid WHERE t.typnamespace = 'retry'::regnamespace
UNION
SELECT '`' || a.attname || '`'
FROM pg_attribute a
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid IN (
	'retry.tasks'::regclass, 'retry.attempts'::regclass, 'retry.running'::regclass,
	'retry.dead_letters'::regclass, 'retry.dispatchers'::regclass,
	'retry.scene'::regclass, 'retry.scene_group'::regclass)
UNION
SELECT '`' || check_name || '`' FROM retry.health()
SQL
	{
		push @missing, $name if $reference !~ /\Q$name\E(?![a-z_])/ && !($name =~ m{\W\z} && index($reference, $name) >= 0);
	}
	is(join(' ', @missing), '', 'doc/sql.md leaves out nothing that exists');
	check_reference();
	$node->safe_psql('postgres', 'DROP EXTENSION retry');
	return;
}

# doc/reference.md is what the catalog's comments make of it.
sub check_reference
{
	my ($out) = run_command([ 'psql', '-X', '-qAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
			'-f', "$top/scripts/lib/reference.sql" ]);
	my @is = split /\n/, $out;
	my @was = -e "$top/doc/reference.md" ? split /\n/, slurp_file("$top/doc/reference.md") : ();
	my $line = 0;

	$line++ while $line < @is && $line < @was && $is[$line] eq $was[$line];
	ok($line > 100 && $line == @is && $line == @was, 'doc/reference.md is current')
	  or diag('line ' . ($line + 1) . ' would be: ' . ($is[$line] // 'the end') . "\nscripts/reference writes it");
	return;
}

# examples/receiver.py: a task and a repeat of it are acted upon once.
sub check_receiver
{
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my ($out, $err) = ('', '');

	if (system('python3 -c "import sqlite3" >/dev/null 2>&1') != 0)
	{
		note('examples/receiver.py was not run: there is no python3');
		return;
	}
	my $handle = IPC::Run::start(
		[ 'python3', "$top/examples/receiver.py", '--port', 0, '--database', "$dir/seen.db" ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	$handle->pump until $out =~ /port (\d+)\n/;
	my $url = "http://127.0.0.1:$1/orders";
	$node->safe_psql('postgres', 'CREATE EXTENSION retry');
	my $id = enqueue($node, "'$url', '{\"order\": 17}', key => 'order-17'");
	wait_state($node, $id, 'succeeded', description => 'examples/receiver.py takes a task');
	my $again = $node->safe_psql('postgres', "SELECT retry.replay('$id')");
	wait_state($node, $again, 'succeeded', description => '... and its replay');
	is($node->safe_psql('postgres',
			"SELECT string_agg(convert_from(response, 'UTF8'), ' ' ORDER BY finished_at) FROM retry.attempts"),
		'{"new": true} {"new": false}', '... which it knows again');
	$node->safe_psql('postgres', 'DROP EXTENSION retry');
	$handle->kill_kill;
	return;
}

# doc/architecture.md says of each file of src/ what it is for.
sub check_files
{
	my $text = slurp_file("$top/doc/architecture.md");
	my %named = map { $_ => 1 } $text =~ /`(\w+\.c)`/g;
	my %there = map { basename($_) => 1 } glob("$top/src/*.c");

	is(join(' ', grep { !$named{$_} } sort keys %there), '', 'doc/architecture.md leaves out no file');
	is(join(' ', grep { !$there{$_} } sort keys %named), '', 'and names none that is gone');
	return;
}

# All of this can fail: a page of which most is wrong.
sub check_checks
{
	my @verdicts;

	check_page("$top/test/docs/broken.md", sub { push @verdicts, $_[0] ? 'good' : 'bad' });
	is("@verdicts", 'good bad good bad bad bad bad bad good bad bad good good',
		'wrong examples are found, and right ones pass');
	return;
}

check_page($_, \&report) foreach @pages;
if (!@ARGV)
{
	my @linked = (@pages, "$top/CHANGELOG.md", glob("$top/examples/*.md"), "$top/test/README.md");

	check_settings($_) foreach @pages;
	check_commands($_) foreach @pages;
	check_links($_) foreach @linked;
	check_examples($_) foreach @pages;
	check_coverage();
	check_files();
	check_receiver();
	check_checks();
}
$node->stop;
done_testing();
