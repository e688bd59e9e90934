# Days that pass, clocks that jump, and the ring that comes round: tasks that
# live long, a server that was off for a month, and a year in a few seconds.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Clock;
use Test::More;

my $clock = RetryTest::Clock->new;
my $receiver = start_endpoint();
my $url = $receiver->url('');
my $node = new_node('clock', start => 0);

# The server's clock from now on, in days from today's.
sub set_clock
{
	my ($days) = @_;

	$clock->set($days * 86_400);
	return;
}

# Only the server's processes are to be deceived, not this one and its psql.
sub start_on_day
{
	set_clock($_[0]);
	$clock->start($node);
	return;
}

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub sent
{
	my @got = $receiver->ledger($_[0]);
	return scalar @got;
}

sub make
{
	my ($key, $target, $more) = @_;

	return enqueue($node, "'$target', '{}', key => '$key'" . ($more // ''));
}

my %id;
my $facts = "SELECT to_jsonb(t) - 'leaf' FROM retry.task t WHERE id = '%s' UNION ALL"
  . " SELECT to_jsonb(a) - 'leaf' FROM retry.attempt a WHERE task_id = '%1\$s' UNION ALL"
  . " SELECT to_jsonb(g) - 'leaf' FROM retry.signal g WHERE task_id = '%1\$s' ORDER BY 1";

# Forty days ago.
start_on_day(-40);
sql('CREATE EXTENSION retry');
cmp_ok(sql('SELECT current_date - $$' . `date -u +%F` . '$$::date'), '<', -38, 'the server is deceived');
sql(<<SQL);
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts) VALUES
	('default', 'ok', '$url/ok', 'fixed 1s', 3),
	('default', 'dies', '$url/status/500', 'fixed 1s', 1),
	('default', 'holds', '$url/status/500', 'fixed 20d', 9),
	('default', 'waits', '$url/ok', 'fixed 1s', 3);
UPDATE retry.scene SET paused = true WHERE name = 'waits';
SQL
$id{"done-$_"} = make("done-$_", 'ok') foreach 1 .. 3;
$id{dead} = make('dead', 'dies');
$id{holds} = make('holds', 'holds');
$id{waits} = make('waits', 'waits');
$id{large} = enqueue($node, "'waits', jsonb_build_object('x', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 2000) i)), key => 'large'");
$id{year} = make('year', 'ok', ", delay => '1 year'");
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE state = 'succeeded'", 'three are delivered', expected => 3);
wait_state($node, $id{dead}, 'dead');
wait_state($node, $id{holds}, 'retrying');
is(sql("SELECT retry.run_now('$id{waits}')"), 't', 'one is to be run when its scene is no longer paused');
is(sql("SELECT leaf FROM retry.task WHERE id = '$id{year}'"), 32, 'a task due in a year lies beside the ring');
$node->stop;

# Eleven days ago: the server was off for a month.
start_on_day(-11);
wait_sql($node, "SELECT max(attempt_no) FROM retry.attempt WHERE task_id = '$id{holds}'",
	'after a month off, what was due is attempted', expected => 2);
wait_sql($node, "SELECT count(*) FROM retry.running", 'and recorded', expected => 0);
my %before = map { $_ => sql(sprintf($facts, $id{$_})) } qw(holds waits large year);
sql('CALL retry.maintain()');
is(sql("SELECT count(*) FROM retry.task WHERE leaf <> 32"), 0, 'the leaf that the ring comes round to is empty');
is(sql("SELECT count(*) FROM retry.task WHERE leaf = 32"), 4, 'its survivors were moved');
is(sql(sprintf($facts, $id{$_})), $before{$_}, "whole: $_") foreach sort keys %before;
is(sql("SELECT state FROM retry.tasks WHERE id = '$id{dead}'"), 'dead', 'the dead letter is kept');
is(make('waits', 'waits'), $id{waits}, 'a key still names its task');
is(sent('waits'), 0, 'nothing is sent by being moved');
sql("UPDATE retry.scene SET paused = false WHERE name = 'waits'");
wait_state($node, $id{$_}, 'succeeded') foreach qw(waits large);
is(sent('large'), 1, 'a large body, once');

# The clock jumps ahead while the server runs, and back.
sql("UPDATE retry.scene SET url = '$url/ok' WHERE name = 'holds'");
set_clock(10);
wait_state($node, $id{holds}, 'succeeded', description => 'a jump ahead makes due what is due');
is(sql("SELECT string_agg(attempt_no::text, ',' ORDER BY attempt_no) FROM retry.attempts WHERE task_id = '$id{holds}'"),
	'1,2,3', 'its attempts go on counting in the other leaf');
set_clock(50);
$id{ahead} = make('ahead', 'ok');
$id{future} = make('future', 'ok', ", delay => '1 hour'");
wait_state($node, $id{ahead}, 'succeeded', description => 'enqueued and delivered ahead of time');
wait_sql($node, 'SELECT count(*) > 0 FROM (SELECT FROM retry.checkpoint_a WHERE taken_at > clock_timestamp() - interval $$1 d$$ UNION ALL SELECT FROM retry.checkpoint_b WHERE taken_at > clock_timestamp() - interval $$1 d$$) c',
	'a checkpoint is written there');
set_clock(10);
sql("UPDATE retry.scene SET url = '$url/flaky/1', backoff = 'fixed 2s' WHERE name = 'holds'");
$id{back} = make('back', 'ok');
wait_state($node, $id{back}, 'succeeded', description => 'set back again, delivery goes on');
is(make('future', 'ok'), $id{future}, 'the key of a task of the future is taken');
sql('CALL retry.maintain()');
is(sql("SELECT state FROM retry.tasks WHERE id = '$id{future}'"), 'pending', 'upkeep leaves it');

# A retry that is due while the last checkpoint's clock was far ahead.
$id{flaky} = make('flaky', 'holds');
wait_state($node, $id{flaky}, 'retrying');
$node->stop('immediate');
start_on_day(10);
wait_state($node, $id{flaky}, 'succeeded', description => 'a crash after the clock was set back loses no retry');
$id{flaky2} = make('flaky2', 'holds');
wait_state($node, $id{flaky2}, 'retrying');
$node->stop;
start_on_day(10);
wait_state($node, $id{flaky2}, 'succeeded', description => 'nor does a restart');

# A leaf in which everything is finished is not read any more, until it gets
# another task; then that task's retries are found too.
set_clock(12);
sql('CALL retry.maintain()');
set_clock(10);
$id{again} = make('again', 'ok');
$id{flaky3} = make('flaky3', 'holds');
wait_state($node, $id{$_}, 'succeeded', description => "$_ in a leaf that was finished") foreach qw(again flaky3);
is(sql("SELECT count(DISTINCT leaf) FROM retry.task WHERE id IN ('$id{back}', '$id{flaky3}')"), 1, 'it was the same leaf');

# The ring comes round to a leaf that was not kept up: it is shared.
sql("UPDATE retry.scene SET paused = true WHERE name = 'waits'");
$id{early} = make('early', 'waits');
$node->stop;
start_on_day(42);
$id{late} = make('late', 'ok');
wait_state($node, $id{late}, 'succeeded', description => 'enqueued into a leaf that came round unclean');
is(sql("SELECT count(DISTINCT leaf) FROM retry.task WHERE id IN ('$id{early}', '$id{late}')"), 1, 'the same leaf');
sql('CALL retry.maintain()');
is(sql("SELECT state FROM retry.tasks WHERE id = '$id{early}'"), 'pending', 'the old task is still there');
sql("UPDATE retry.scene SET paused = false WHERE name = 'waits'");
wait_state($node, $id{early}, 'succeeded', description => 'and is delivered');
is(sql("SELECT state FROM retry.tasks WHERE id = '$id{future}'"), 'pending', 'not yet');
set_clock(51);
wait_state($node, $id{future}, 'succeeded', description => 'the future has come');

# A year later.
set_clock(360);
wait_state($node, $id{year}, 'succeeded', description => 'due in a year, and done');
set_clock(370);
sql('CALL retry.maintain()');
is(sql('SELECT count(*) FROM retry.task'), 0, 'and in the end all is gone');
is(sql('SELECT count(*) FROM retry.attempt'), 0, 'attempts too');
is(sql('SELECT count(*) FROM retry.signal'), 0, 'and signals');
is(sql('SELECT count(*) FROM retry.dead_letter'), 0, 'and dead letters');
foreach my $key (sort keys %id)
{
	my $expected = $key eq 'holds' ? 3 : $key =~ /flaky/ ? 2 : 1;
	is(sent($key), $expected, "$key was sent $expected times");
}
$node->stop;
done_testing();
