# All that an installed extension has made of a database's catalog, as text that
# can be compared: how an extension was updated must leave no trace in it.
package RetryTest::Catalog;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Utils;

our @EXPORT = qw(catalog first_difference);

# catalog(NODE, DBNAME): the extension's objects one by one, as pg_upgrade has
# them dumped: definitions, order of columns, constraints, owners, rights (those
# of the installation, too) and comments; which tables a dump takes along, and
# what of them; and the configuration that is there from the start.  What is
# left out differs between any two installations: numbers of objects, files and
# transactions, columns that once were.
sub catalog
{
	my ($node, $dbname) = @_;
	my ($dump, $err) = run_command(
		[ 'pg_dump', '--binary-upgrade', '--schema-only', '--no-sync', '-d', $node->connstr($dbname) ]);
	my @kept;

	die "pg_dump: $err\n" if $err ne '';
	foreach my $statement (split /;\n/, $dump)
	{
		my @lines = grep { !/^(?:--.*|\\(?:un)?restrict .*|)$/ } split /\n/, $statement;

		next if !@lines;
		next if "@lines" =~ /\bbinary_upgrade_(?!set_record_init_privs)|\bSET relfrozenxid = /;
		if ("@lines" =~ /\bpg\.dropped\./)
		{
			next if $lines[0] !~ /^CREATE /;
			@lines = grep { !/\bpg\.dropped\./ } @lines;
		}
		# the last column that is left has no comma
		push @kept, map { s/,$//r } @lines;
	}
	return join("\n", @kept, $node->safe_psql($dbname, <<'SQL')) . "\n";
SELECT 'dumped: ' || table_id::regclass || ' ' || condition
FROM pg_extension, unnest(extconfig, extcondition) AS t(table_id, condition)
WHERE extname = 'retry' ORDER BY 1;
SELECT 'group: ' || (to_jsonb(g) - 'created_at')::text FROM retry.scene_group g ORDER BY 1;
SELECT 'scene: ' || (to_jsonb(s) - 'created_at')::text FROM retry.scene s ORDER BY 1;
SQL
}

# Where two catalogs begin to differ; empty when they do not.
sub first_difference
{
	my @a = split /\n/, $_[0];
	my @b = split /\n/, $_[1];
	my $line = 0;

	$line++ while $line < @a && $line < @b && $a[$line] eq $b[$line];
	return '' if $line == @a && $line == @b;
	return join("\n", "after \"" . ($line ? $a[ $line - 1 ] : 'nothing') . '":', $a[$line] // 'the end', 'or', $b[$line] // 'the end');
}

1;
