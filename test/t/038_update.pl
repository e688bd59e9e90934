# ALTER EXTENSION retry UPDATE leads where CREATE EXTENSION of the newer version
# does: for each update script there is, and for a version that is made up here,
# so that the comparison is known to see what such a script may forget.  What
# waits meanwhile is not lost, and not sent by a library of another version.
use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use File::Basename;
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Catalog;
use Test::More;

my $top = abs_path(dirname(__FILE__) . '/../..');
my ($version) = slurp_file("$top/retry.control") =~ /^default_version = '(.*)'$/m;
my $node = new_node('main', extension => 0, conf => "retry.databases = 'shop'\nretry.poll_interval = 200ms\n");
my $receiver = start_endpoint();

# Files of the version made up, which the installation must not keep.
my $folder = $node->config_data('--sharedir') . '/extension';
my @made;
END { unlink @made }

sub script
{
	my ($versions, $text) = @_;
	my $file = "$folder/retry--$versions.sql";

	die "$file is there already" if -e $file;
	push @made, $file;
	append_to_file($file, $text);
	return;
}

sub installed
{
	my ($dbname, $wanted) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $dbname");
	$node->safe_psql($dbname, "CREATE EXTENSION retry VERSION '$wanted'");
	return;
}

# What a next version may change: its name, the statement that brings an older
# one there, and what a fresh installation executes instead, where it differs.
# The column is in the midst of the script.
my $fresh = slurp_file("$top/retry--$version.sql");
my @change = (
	[ 'a column', 'ALTER TABLE retry.scene_group ADD COLUMN made_up text
		CONSTRAINT scene_group_made_up_valid CHECK (made_up <> $$$$)' ],
	[ 'a comment', 'COMMENT ON COLUMN retry.scene_group.made_up IS $$made up$$' ],
	[ 'a function', 'CREATE FUNCTION retry.made_up(a text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper(a)' ],
	[ 'a right taken', 'REVOKE ALL ON FUNCTION retry.made_up FROM PUBLIC' ],
	[ 'a right given', 'GRANT SELECT (made_up) ON retry.scene_group TO PUBLIC' ],
	[ 'a view changed', 'CREATE OR REPLACE VIEW retry.groups_made_up AS SELECT name, made_up FROM retry.scene_group WHERE made_up <> $$x$$',
		'CREATE VIEW retry.groups_made_up AS SELECT name, made_up FROM retry.scene_group WHERE made_up <> $$x$$' ],
	[ 'a default, in a table that lost a column', 'ALTER TABLE retry.lane_override ADD COLUMN gone int, ALTER COLUMN paused SET DEFAULT true;
		ALTER TABLE retry.lane_override DROP COLUMN gone', 'ALTER TABLE retry.lane_override ALTER COLUMN paused SET DEFAULT true' ],
	[ 'a word', 'ALTER TYPE retry.outcome ADD VALUE $$made_up$$' =~ s/\$\$/'/gr ],
	[ 'a setting of a function', 'ALTER FUNCTION retry.made_up SET search_path = pg_catalog, pg_temp' ],
	[ 'a table and its index', 'CREATE TABLE retry.made_up_rows (a int); CREATE INDEX ON retry.made_up_rows (a)' ],
	[ 'what a dump takes', 'SELECT pg_extension_config_dump($$retry.made_up_rows$$, $$$$)' ],
	[ 'a row', 'UPDATE retry.scene_group SET description = $$made up$$ WHERE name = $$default$$' ]);

$fresh =~ s/(\nCREATE TABLE retry\.scene_group\s*\(.*?)(\n\);)/$1,\n\tmade_up text CONSTRAINT scene_group_made_up_valid CHECK (made_up <> '')$2/s
  or die "the table scene_group was not found";
script('made_up', join(";\n", $fresh, map({ $_->[2] // $_->[1] } @change[ 1 .. $#change ])) . ";\n");
script('made_up--' . $version, "SELECT 1;\n");
my $from = $version;
my $step = 0;
foreach my $change (@change)
{
	my $to = ++$step == @change ? 'made_up' : "step$step";

	script("$from--$to", "$change->[1];\n");
	$from = $to;
}

# Each change is seen when it is not there yet, and at the end nothing differs.
installed('fresh', 'made_up');
installed('steps', $version);
my $goal = catalog($node, 'fresh');
my $last = catalog($node, 'steps');
$step = 0;
foreach my $change (@change)
{
	my $to = ++$step == @change ? 'made_up' : "step$step";

	$node->safe_psql('steps', "ALTER EXTENSION retry UPDATE TO '$to'");
	my $now = catalog($node, 'steps');
	isnt(first_difference($last, $now), '', "the comparison sees $change->[0]");
	isnt(first_difference($now, $goal), '', 'and that more is to come') if $to ne 'made_up';
	$last = $now;
}
is(first_difference($last, $goal), '', 'updated is like fresh');

# The update scripts there are.
my %from = map { m{/retry--([^/]+?)--([^/]+)\.sql$} ? ($1 => $2) : () } glob("$top/retry--*--*.sql");
foreach my $old (sort keys %from)
{
	my $number = ++$step;

	installed("old$number", $old);
	installed("new$number", $from{$old});
	$node->safe_psql("old$number", "ALTER EXTENSION retry UPDATE TO '$from{$old}'");
	is(first_difference(catalog($node, "old$number"), catalog($node, "new$number")), '', "$old updated is like $from{$old}");
}

# A database at work: while library and extension differ, nothing is sent.
my %opt = (dbname => 'shop');
my $url = $receiver->url('/ok');
installed('shop', $version);
my $id = enqueue($node, "'$url', '{}', key => 'before'", %opt);
wait_state($node, $id, 'succeeded', %opt);
$node->safe_psql('shop', "ALTER EXTENSION retry UPDATE TO 'made_up'");
$id = enqueue($node, "'$url', '{}', key => 'meanwhile'", %opt);
my $status = "SELECT status FROM retry.health() WHERE check_name = 'version'";
is($node->safe_psql('shop', $status), 'critical', 'health tells of versions that differ');
$node->wait_for_log(qr/nothing is delivered in database "shop": its extension retry is not of version/);
is($node->safe_psql('shop', "SELECT state FROM retry.tasks WHERE key = 'meanwhile'"), 'pending', 'what is enqueued meanwhile waits');
is(scalar $receiver->ledger('meanwhile'), 0, 'and is not sent');
$node->safe_psql('shop', "ALTER EXTENSION retry UPDATE TO '$version'");
wait_state($node, $id, 'succeeded', %opt, description => 'until they agree');
is($node->safe_psql('shop', $status), 'ok', 'health is content');
$node->stop;
done_testing();
