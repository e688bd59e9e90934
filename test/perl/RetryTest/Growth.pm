# What a server uses, over time, and whether it has levelled off: memory and files
# of each kind of process, tables and indexes, WAL, latency.
package RetryTest::Growth;

use strict;
use warnings FATAL => 'all';

use RetryTest;

# Growth from the middle third to the last that is no growth: as a share, and in
# the figure's own unit.
my %ALLOWED = (
	memory => [ 0.15, 3000 ],
	files => [ 0.1, 8 ],
	size => [ 0.3, 20_000 ],
	wal => [ 0.3, 500 ],
	latency => [ 1.0, 50 ]);

# new(NODE, DBNAME)
sub new
{
	my ($class, $node, $dbname) = @_;

	return bless { node => $node, dbname => $dbname, samples => [], kinds => {}, wal => undef }, $class;
}

# sample(SECONDS): what is used at that time; nothing when the server does not answer.
sub sample
{
	my ($self, $seconds) = @_;
	my %sample;
	my (undef, $out) = $self->{node}->psql($self->{dbname}, <<'SQL', timeout => 30);
SELECT 'process', pid, backend_type FROM pg_stat_activity WHERE backend_type <> 'client backend' AND backend_type <> 'autovacuum worker';
SELECT 'size', 'tables', coalesce(sum(pg_table_size(c.oid)), 0) / 1024 FROM pg_class c WHERE relnamespace = 'retry'::regnamespace AND relkind = 'r';
SELECT 'size', 'indexes', coalesce(sum(pg_relation_size(c.oid)), 0) / 1024 FROM pg_class c WHERE relnamespace = 'retry'::regnamespace AND relkind = 'i';
SELECT 'wal', pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'), (SELECT sum(n_tup_ins) FROM pg_stat_user_tables WHERE relname LIKE 'task\_%');
SELECT 'latency', percentile_cont(0.5) WITHIN GROUP (ORDER BY late), percentile_cont(0.99) WITHIN GROUP (ORDER BY late)
FROM (SELECT extract(epoch FROM a.finished_at - a.duration_us * interval '1 us' - t.due_at) * 1000 AS late
	FROM retry.attempt a JOIN retry.task t ON t.leaf = a.leaf AND t.id = a.task_id
	WHERE a.next_due IS NULL AND a.outcome = 'succeeded' AND a.attempt_no = 1 AND t.lane <> 'slow'
		AND a.finished_at BETWEEN clock_timestamp() - interval '5 s' AND clock_timestamp()) l
WHERE late < 3600000;
SQL
	return if !defined $out;
	foreach my $line (split /\n/, $out)
	{
		my ($what, $first, $second) = split /\|/, $line;

		$self->_process(\%sample, $first, $second) if $what eq 'process';
		$sample{"size $first"} = $second if $what eq 'size';
		$self->_wal(\%sample, $first, $second) if $what eq 'wal';
		@sample{ 'latency p50', 'latency p99' } = ($first, $second)
		  if $what eq 'latency' && ($second // '') ne '';
	}
	push @{ $self->{samples} }, [ $seconds, \%sample ];
	$self->{names}{$_} = 1 foreach keys %sample;
	return;
}

# Private memory (kB) and open files of a process; the largest of its kind counts.
sub _process
{
	my ($self, $sample, $pid, $kind) = @_;
	my $files = () = glob "/proc/$pid/fd/*";
	my $memory = 0;

	open(my $in, '<', "/proc/$pid/status") or return;
	while (my $line = <$in>)
	{
		$memory = $1 if $line =~ /^RssAnon:\s+(\d+)/;
	}
	foreach ([ "memory $kind", $memory ], [ "files $kind", $files ])
	{
		my ($name, $value) = @$_;

		$sample->{$name} = $value if $value > ($sample->{$name} // -1);
	}
	return;
}

# WAL since the last sample, for each task that was stored in it.
sub _wal
{
	my ($self, $sample, $bytes, $tasks) = @_;
	my $last = $self->{wal};

	$sample->{'wal bytes a task'} = ($bytes - $last->[0]) / ($tasks - $last->[1])
	  if $last && $tasks > $last->[1] + 20;
	$self->{wal} = [ $bytes, $tasks ];
	return;
}

sub _median
{
	my @sorted = sort { $a <=> $b } @_;

	return @sorted ? $sorted[ @sorted / 2 ] : undef;
}

# verdicts(): for each figure with enough samples, whether its median in the last
# third of the time is no more than in the middle third.
sub verdicts
{
	my ($self) = @_;
	my $whole = @{ $self->{samples} } ? $self->{samples}[-1][0] : 0;
	my @verdicts;

	foreach my $name (sort keys %{ $self->{names} })
	{
		my ($share, $slack) = @{ $ALLOWED{ (split / /, $name)[0] } };
		my @thirds = ([], [], []);

		foreach my $sample (@{ $self->{samples} })
		{
			my $third = $whole ? int(3 * $sample->[0] / $whole) : 0;

			push @{ $thirds[ $third > 2 ? 2 : $third ] }, $sample->[1]{$name}
			  if defined $sample->[1]{$name};
		}
		next if @{ $thirds[1] } < 3 || @{ $thirds[2] } < 3;
		my ($middle, $last) = map { _median(@$_) } @thirds[ 1, 2 ];
		push @verdicts, {
			name => $name, middle => sprintf('%.0f', $middle), last => sprintf('%.0f', $last),
			levels => $last <= $middle * (1 + $share) + $slack };
	}
	return @verdicts;
}

# write(FILE): a table with a column for each figure, for soak.gp.
sub write
{
	my ($self, $file) = @_;
	my @names = sort keys %{ $self->{names} };

	open(my $out, '>', $file) or die "$file: $!";
	print $out join("\t", 'seconds', @names), "\n";
	foreach my $sample (@{ $self->{samples} })
	{
		print $out join("\t", sprintf('%.1f', $sample->[0]), map { $sample->[1]{$_} // 'nan' } @names), "\n";
	}
	close $out;
	return;
}

1;
