# A copy of the whole server, made by pg_basebackup and started beside the
# original: it is told, holds what the original is to send, and says so, until
# retry.adopt().  One that takes over, promoted or moved, is no copy.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $receiver = start_endpoint();
my $url = $receiver->url('');
my $original = new_node('original', streaming => 1, conf => "retry.poll_interval = 200ms\nretry.dispatchers = 2\n");

sub sent
{
	my @got = $receiver->ledger($_[0]);
	return scalar @got;
}

# The original has what a copy may be tempted by: a task that is due again soon,
# again and again, one that is due later, one adopted long ago, one prepared,
# and a schedule.
hold_nothing($original);
$original->safe_psql('postgres', <<SQL);
INSERT INTO retry.scene (name, url, backoff, max_attempts) VALUES
	('soon', '$url/status/500', 'fixed 300ms', 10000), ('later', '$url/status/500', 'fixed 1h', 5);
SELECT retry.schedule('yearly', '0 0 1 1 *', '$url/ok');
SQL
my %id = (
	soon => enqueue($original, "'soon', '{}', key => 'soon', lane => 'a'"),
	later => enqueue($original, "'later', '{}', key => 'later', lane => 'b'"),
	delayed => enqueue($original, "'$url/ok', '{}', key => 'delayed', delay => '1 h', lane => 'c'"));
wait_state($original, $id{$_}, 'retrying') foreach qw(soon later);
$original->safe_psql('postgres', 'SELECT retry.adopt()');
$original->safe_psql('postgres', "BEGIN; SELECT retry.enqueue('$url/ok', '{}', key => 'prepared'); PREPARE TRANSACTION 'prepared'");
wait_sql($original, 'SELECT count(*) > 0 FROM retry.place', 'the original knows where it is');
$original->backup('base');
$original->restart;
is($original->safe_psql('postgres', 'SELECT count(*) FROM retry.installation WHERE NOT adopted'), 0, 'the original knows itself after a restart');

# What every copy must do.
sub check_copy
{
	my ($copy, $how, $reason) = @_;
	my $new = enqueue($copy, "'$url/ok', '{}', key => 'new-$how'");

	wait_state($copy, $new, 'succeeded', description => "$how: a new task is sent");
	like(slurp_file($copy->logfile), qr/WARNING: .*is a copy, the tasks that came with it are held.*\n.*$reason/, "$how: the log warns");
	is($copy->safe_psql('postgres', "SELECT status FROM retry.health() WHERE check_name = 'foreign_rows'"), 'warning', "$how: so does health");
	is($copy->safe_psql('postgres', "SELECT string_agg(DISTINCT held_reason, ',') FROM retry.tasks WHERE state <> 'succeeded'"),
		'not adopted', "$how: its tasks say what holds them");
	$copy->safe_psql('postgres', "UPDATE retry.scene SET url = replace(url, '/status/500', '/ok') WHERE name <> 'default'");
	$copy->safe_psql('postgres', "SELECT retry.run_now('$id{$_}')") foreach qw(later delayed);
	$copy->restart;
	$copy->safe_psql('postgres', "COMMIT PREPARED 'prepared'");
	$new = enqueue($copy, "'$url/ok', '{}', key => 'newer-$how'");
	wait_state($copy, $new, 'succeeded', description => "$how: after a restart too");
	is($copy->safe_psql('postgres', "SELECT string_agg(key, ' ' ORDER BY key) FROM retry.tasks WHERE state = 'succeeded'"),
		"new-$how newer-$how", "$how: and nothing else is");
	is($copy->safe_psql('postgres', 'SELECT count(*) FROM retry.installation WHERE NOT adopted'), 1, "$how: the copy is noted once");
	return;
}

sub copy_of
{
	my ($backup, $name, %opt) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);

	$copy->init_from_backup($original, $backup, %opt);
	$copy->start;
	return $copy;
}

my $copy = copy_of('base', 'beside');
check_copy($copy, 'beside', 'runs in directory');
is(sent('later'), 1, 'the copy sent nothing that the original has');
is(sent($_), 0, "... nor $_") foreach qw(delayed prepared);
is($copy->safe_psql('postgres', "SELECT held_reason FROM retry.schedules"), 'not adopted', 'its schedule is held too');
$copy->safe_psql('postgres', "SELECT retry.unschedule('yearly')");
$copy->safe_psql('postgres', 'SELECT retry.adopt()');
wait_state($copy, $id{$_}, 'succeeded', description => "adopted, $_ is sent") foreach qw(soon later delayed);
is(sent('prepared'), 1, '... and what was prepared');
is($copy->safe_psql('postgres', "SELECT status FROM retry.health() WHERE check_name = 'foreign_rows'"), 'ok', 'health has no more to say');
$copy->stop;

# A standby that is promoted while its primary works: two primaries, one of which sends.
$receiver->reset;
my $standby = copy_of('base', 'promoted', has_streaming => 1);
$original->wait_for_catchup($standby, 'replay');
$standby->promote;
check_copy($standby, 'promoted', 'runs in directory');
is(sent($_), 0, "it did not send $_") foreach qw(later delayed prepared);
$standby->stop('immediate');

# Nobody is there any more, but whoever starts a base backup and does not
# promote it has a copy.
$original->stop;
$receiver->reset;
$copy = copy_of('base', 'alone');
check_copy($copy, 'alone', 'started from a base backup of');
is(sent($_), 0, "it did not send $_") foreach qw(soon later delayed prepared);
$copy->stop('immediate');

# The original in another directory: it goes on, and says so.
my $backups = $original->backup_dir;
PostgreSQL::Test::RecursiveCopy::copypath($original->data_dir, "$backups/moved");
$receiver->reset;
$copy = copy_of('moved', 'moved');
wait_for(sub { sent('soon') > 0 }, 'moved: it goes on where it was');
like(slurp_file($copy->logfile), qr/WARNING: .*delivered from directory .*before, it goes on in /, '... and warns');
is($copy->safe_psql('postgres', 'SELECT count(*) FROM retry.installation WHERE NOT adopted'), 0, '... as no copy');
$copy->stop;
done_testing();
