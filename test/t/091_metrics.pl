# metrics/: each query of the exporter's file runs as a role that may only
# monitor and gives what the file says, and the dashboard asks for nothing else.
# And retry.top, the screen for those who have no dashboard.
use strict;
use warnings FATAL => 'all';

use CPAN::Meta::YAML;
use File::Basename qw(dirname);
use JSON::PP;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $metrics = dirname(__FILE__) . '/../../metrics';
my $node = new_node('main');
hold_nothing($node);
my $receiver = start_endpoint();

sub sql { return $node->safe_psql('postgres', $_[0]) }

my $url = $receiver->url('');
sql(<<"SQL");
CREATE ROLE exporter IN ROLE pg_monitor;
CREATE ROLE stranger;
INSERT INTO retry.scene (name, url, backoff) VALUES ('fails', '$url/status/500', 'fixed 1h'), ('held', '$url/ok', 'fixed 1h');
INSERT INTO retry.lane_override (lane, paused) VALUES ('stopped', true);
UPDATE retry.scene SET paused = true WHERE name = 'held';
SELECT retry.enqueue('fails', '{}'), retry.enqueue('held', '{}'), retry.enqueue('$url/ok', '{}', lane => 'stopped');
SQL
others_go_on($node, $receiver, 'something to count');
wait_sql($node, "SELECT count(*) FROM retry.overview WHERE pending + retrying > 0", 'three scenes have something', expected => '3');
wait_sql($node, "SELECT count(*) FROM retry.stats WHERE per = 'day' AND attempts > 0", 'and two have attempts', expected => '2');

# The queries.
my ($queries) = @{ CPAN::Meta::YAML->read_string(slurp_file("$metrics/postgres_exporter.yml")) };
my %known;
cmp_ok(scalar keys %$queries, '>=', 5, 'there are queries');
foreach my $name (sort keys %$queries)
{
	my $query = $queries->{$name}{query};
	my @metrics = map { my ($column) = keys %$_; [ $column, $_->{$column}{usage}, $_->{$column}{description} ] } @{ $queries->{$name}{metrics} };
	my $rows = decode_json(sql("SET ROLE exporter; SELECT coalesce(json_agg(q), '[]') FROM ($query) q"));

	cmp_ok(scalar @$rows, '>', 0, "$name: has rows");
	is(join(' ', sort keys %{ $rows->[0] }), join(' ', sort map { $_->[0] } @metrics), "$name: has the columns that the file names");
	is(join(' ', grep { $_->[1] !~ /^(?:LABEL|GAUGE|COUNTER)$/ || $_->[2] !~ /\w/ } @metrics), '', "$name: each has a kind and a description");
	my (@wrong, %labels);
	foreach my $row (@$rows)
	{
		my $labels = join '|', map { $row->{ $_->[0] } } grep { $_->[1] eq 'LABEL' } @metrics;
		push @wrong, "$labels twice" if $labels{$labels}++;
		foreach my $m (grep { $_->[1] ne 'LABEL' } @metrics)
		{
			my $value = $row->{ $m->[0] };
			push @wrong, "$m->[0] " . ($value // 'null') if !defined $value || $value !~ /^[\d.eE+-]+$/ || $value < 0;
		}
	}
	is("@wrong", '', "$name: labels are unique, values are numbers");
	$known{"${name}_$_->[0]"} = 1 foreach grep { $_->[1] ne 'LABEL' } @metrics;
}
is(sql("SET ROLE stranger; SELECT count(*) FROM (" . $queries->{retry_scene}{query} . ') q'), '0', 'who may not monitor sees nothing');

# The dashboard.
my $dashboard = decode_json(slurp_file("$metrics/grafana.json"));
my @expressions = map { $_->{expr} } map { @{ $_->{targets} } } @{ $dashboard->{panels} };
my %asked = map { $_ => 1 } map { /\b(retry_\w+)/g } @expressions, map { $_->{definition} // () } @{ $dashboard->{templating}{list} };
cmp_ok(scalar @expressions, '>=', 10, 'the dashboard asks');
is(join(' ', grep { !$known{$_} } sort keys %asked), '', 'for nothing that is not there');
my %ids;
is(join(' ', grep { $ids{$_}++ } map { $_->{id} } @{ $dashboard->{panels} }), '', 'its panels have numbers of their own');

# One screen.
sub top
{
	my ($role) = @_;
	return sql("SET ROLE $role; SELECT top FROM retry.top");
}
my $top = top('exporter');
like($top, qr/^retry  postgres  .* lanes, /, 'top: the first line');
like($top, qr/^all 3 +2 +0 +1 +0 /m, 'top: all together');
like($top, qr/^default\/fails +0 +0 +1 +0 /m, 'top: a scene');
wait_for(sub { top('exporter') =~ /^default\/held \(scene paused\) +1 .*\d(?:ms|s|m)$/m }, 'top: one that is paused, and since when');
like($top, qr/^stopped +paused /m, 'top: a lane in trouble');
like($top, qr/lane paused  stopped  by role/, 'top: an event');
unlike(top('stranger'), qr/fails|held|stopped/, 'top: a stranger sees none of it');
is( sql("SELECT string_agg(retry.brief(x::interval), ' ') FROM unnest('{0,0.0123 s,999.9 ms,59.94 s,59.96 s,59 min,3 h,26 h,40 d}'::text[]) x"),
	'0ms 12ms 1.0s 59.9s 1m 59m 3.0h 1.1d 40.0d', 'spans of time');
$node->append_conf('postgresql.conf', 'retry.enabled = off');
$node->reload;
wait_for(sub { top('exporter') =~ /^WARNING  enabled: /m }, 'top: what is not well');

$node->stop;
done_testing();
