# What sessions and administrators do: locks, rewritten tables, old snapshots,
# prepared transactions, settings, other databases that come and go.
package RetryTest::Faults::Sessions;

use strict;
use warnings FATAL => 'all';

use POSIX ();

my @TABLES = qw(task_%s attempt_%s signal_%s scene scene_group key checkpoint_a checkpoint_b dead_letter
  installation event lane_override disabled_url task attempt signal);

sub faults
{
	my ($chaos) = @_;

	return (_locks($chaos), _rewrites($chaos), _transactions($chaos), _switches($chaos), _extensions($chaos));
}

# A table of ours; with `whole`, none that is but a parent.
sub _table
{
	my ($chaos, $whole) = @_;
	my $table;

	$chaos->{leaf} = $chaos->try_sql('SELECT max(leaf) FROM retry.task WHERE leaf < 32') || $chaos->{leaf} || 0;
	do { $table = $TABLES[ rand @TABLES ] } until !$whole || $table !~ /^(task|attempt|signal)$/;
	return "retry." . ($table =~ s{%s}{sprintf "%02d", $chaos->{leaf}}er);
}

sub _locks
{
	my ($chaos) = @_;
	my $lock = sub {
		my ($tables, $seconds) = @_;

		$chaos->try_sql(sprintf "BEGIN; SET LOCAL lock_timeout = '3s'; LOCK TABLE $tables IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(%.2f); COMMIT", $seconds);
	};

	return (
		{ name => 'lock', begin => sub { $lock->(_table($chaos), rand(1.5)) } },
		{ name => 'lock-everything', begin => sub {
			my $all = $chaos->try_sql("SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c WHERE relnamespace = 'retry'::regnamespace AND relkind IN ('r', 'p')") // return;

			$lock->($all, $chaos->{long} ? 60 : 2);
		} });
}

sub _rewrites
{
	my ($chaos) = @_;

	return (
		{ name => 'vacuum', begin => sub {
			$chaos->try_sql(('VACUUM FULL', 'VACUUM FREEZE', 'ANALYZE')[ rand 3 ] . ' ' . _table($chaos, 1));
		} },
		{ name => 'reindex', begin => sub {
			$chaos->try_sql('REINDEX TABLE ' . ('', 'CONCURRENTLY ')[ rand 2 ] . _table($chaos, 1));
		} },
		# a new file under the same name, as pg_repack leaves it
		{ name => 'swap', begin => sub {
			my $table = _table($chaos, 1);
			my $index = $chaos->try_sql("SELECT indexrelid::regclass FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = '$table'::regclass AND indpred IS NULL LIMIT 1")
			  or return;

			$chaos->try_sql("CLUSTER $table USING " . ($index =~ s/^retry\.//r));
		} },
		_repack($chaos),
		{ name => 'alter-table', begin => sub {
			my $table = _table($chaos, 1);
			my $whole = $table =~ s/_\d\d$//r;    # of a partition

			$chaos->try_sql((
				"ALTER TABLE $table SET (fillfactor = " . (50 + int(rand(51))) . ')',
				"ALTER TABLE $table SET LOGGED",
				"ALTER TABLE $table REPLICA IDENTITY FULL",
				"ALTER TABLE $whole ADD COLUMN chaos int NOT NULL DEFAULT 1; ALTER TABLE $whole DROP COLUMN chaos",
				"ALTER TABLE $table DISABLE TRIGGER ALL; ALTER TABLE $table ENABLE TRIGGER ALL")[ rand 5 ]);
		} });
}

# pg_repack itself, which anything may interrupt: then its trigger stays on the table
# until the extension is dropped.
sub _repack
{
	my ($chaos) = @_;
	my $node = $chaos->node;
	my $program = $node->config_data('--bindir') . '/pg_repack';
	my $pid;

	return {
		name => 'repack',
		needs => sub { -x $program ? undef : 'pg_repack is not installed' },
		begin => sub {
			my $table;

			# it needs a primary key
			do { $table = _table($chaos, 1) } until $table =~ /\.(task_|attempt_|dead_letter$|key$)/;
			$chaos->try_sql('DROP EXTENSION IF EXISTS pg_repack CASCADE; CREATE EXTENSION pg_repack') // return;
			$pid = fork() // die "cannot fork: $!";
			return if $pid;
			open(STDOUT, '>', '/dev/null');
			open(STDERR, '>', '/dev/null');
			exec('timeout', 30, $program, '-h', $node->host, '-p', $node->port, '-d', $RetryTest::Chaos::DBNAME, '-t', $table, '-D', '-T', 5)
			  or POSIX::_exit(127);
		},
		end => sub {
			waitpid($pid, 0) if $pid;
			$pid = undef;
			$chaos->try_sql('DROP EXTENSION IF EXISTS pg_repack CASCADE');
		} };
}

sub _transactions
{
	my ($chaos) = @_;
	my $campaign = $chaos->campaign;

	return (
		{ name => 'old-snapshot', begin => sub {
			$chaos->try_sql('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM retry.scene; SELECT pg_sleep('
				  . ($chaos->{long} ? 20 : 1) . ')');
		} },
		{ name => 'prepare', begin => sub {
			my $key = $chaos->new_key('prepared');
			my $url = $chaos->receiver->url('/ok');

			return if keys %{ $chaos->{prepared} } >= 8;
			$campaign->note(T => $key);
			$chaos->{prepared}{$key} = 1
			  if defined $chaos->try_sql("BEGIN; SELECT retry.enqueue('$url', '{}', key => '$key', $campaign->{options}); PREPARE TRANSACTION '$key'");
		} },
		{ name => 'finish-prepared', begin => sub {
			my ($key) = sort keys %{ $chaos->{prepared} } or return;

			$chaos->finish_prepared($key, rand() < 0.6);
		} },
		{ name => 'bulk', begin => sub {
			my @keys = map { $chaos->new_key('bulk') } 1 .. 200;

			$campaign->note(T => $_) foreach @keys;
			defined $chaos->try_sql("SELECT count(*) FROM retry.enqueue_many('" . $chaos->receiver->url('/ok')
				  . "', array_fill('{}'::jsonb, '{200}'), keys => '{" . join(',', @keys) . "}', lane => 'bulk', $campaign->{options})")
			  or return;
			$campaign->note(C => $_) foreach @keys;
		} },
		{ name => 'run-now', begin => sub {
			$chaos->try_sql("SELECT count(retry.run_now(id)) FROM (SELECT id FROM retry.tasks WHERE state IN ('pending', 'retrying') AND key NOT LIKE '%-c%' LIMIT 50) t");
		} },
		{ name => 'checkpoint', begin => sub { $chaos->try_sql('CHECKPOINT') } },
		{ name => 'maintain', begin => sub { $chaos->try_sql('CALL retry.maintain()') } });
}

sub _switches
{
	my ($chaos) = @_;

	return (
		{ name => 'pause', begin => sub {
			$chaos->try_sql("UPDATE retry.scene SET paused = true WHERE name = 'default'");
			$chaos->pause(0.6);
			$chaos->wait_quietly(sub { defined $chaos->try_sql("UPDATE retry.scene SET paused = false WHERE name = 'default'") }, 'a scene is resumed');
		} },
		# a scene that is ordered for a while only, see RetryTest::Load::Order
		{ name => 'order-off', lasts => 3,
			begin => sub { $chaos->try_sql("UPDATE retry.scene SET ordered = true WHERE name = 'fickle'") },
			end => sub {
				$chaos->wait_quietly(sub { defined $chaos->try_sql("UPDATE retry.scene SET ordered = false WHERE name = 'fickle'") }, 'order is switched off');
			} },
		{ name => 'switch-off',
			begin => sub { $chaos->setting('retry.enabled', 'off') },
			end => sub { $chaos->setting('retry.enabled') } },
		{ name => 'dispatchers', begin => sub { $chaos->setting('retry.dispatchers', 1 + int(rand(4))) } },
		{ name => 'in-flight', begin => sub { $chaos->setting('retry.lane_max_in_flight', 1 + int(rand(16))) } },
		{ name => 'lanes', begin => sub { $chaos->setting('retry.max_lanes', (64, 10000)[ rand 2 ]) } },
		{ name => 'reloads', begin => sub {
			foreach (1 .. 10)
			{
				$chaos->setting('retry.dispatchers', 1 + int(rand(4)));
				$chaos->pause(0.1);
			}
		} });
}

# In a database beside ours, while ours works.
sub _extensions
{
	my ($chaos) = @_;

	return (
		{ name => 'drop-create', begin => sub {
			my $url = $chaos->receiver->url('/ok/other');

			foreach (1 .. 3)
			{
				$chaos->try_sql("SELECT retry.enqueue('$url') FROM generate_series(1, 20)", 'other');
				$chaos->try_sql('DROP EXTENSION IF EXISTS retry', 'other');
				$chaos->try_sql('BEGIN; CREATE EXTENSION retry; ROLLBACK', 'other') if rand() < 0.3;
				$chaos->try_sql('CREATE EXTENSION retry', 'other');
			}
		} },
		{ name => 'drop-database', begin => sub {
			$chaos->try_sql('DROP DATABASE other', 'postgres');
			$chaos->try_sql('CREATE DATABASE other', 'postgres');
			$chaos->try_sql('CREATE EXTENSION retry', 'other');
		} });
}

1;
