# The retry budget: an outage is not multiplied, first attempts never wait behind
# retries, and when the endpoint works again its backlog goes at full speed.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('main', conf => "retry.max_in_flight = 128");
my $receiver = start_endpoint();
my $url = $receiver->url('/ok');

sub sql
{
	return ask($node, $_[0]);
}

sub scene
{
	my ($name, $share, $floor) = @_;

	sql("INSERT INTO retry.scene (name, url, backoff, max_attempts, breaker_ratio, max_in_flight, retry_share, retry_floor) "
		  . "VALUES ('$name', '$url', 'fixed 100ms', 1000000, NULL, 16, $share, $floor)");
	return;
}

sub tasks
{
	my ($scene, $count, $more) = @_;

	sql("SELECT count(retry.enqueue('$scene', to_jsonb(i)" . ($more // '') . ")) FROM generate_series(1, $count) i");
	return;
}

sub count
{
	my ($scene, $condition) = @_;

	return sql("SELECT count(*) FROM retry.attempts WHERE scene = 'default/$scene' AND $condition");
}

sub all_succeed
{
	my ($scene, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/$scene' AND state <> 'succeeded'",
		$what, expected => '0');
	return;
}

# 1000 tasks that would ask again ten times a second each.
$receiver->mode('status:500');
scene('outage', 0.2, 1);
my $begin = time();
tasks('outage', 1000);
wait_sql($node, "SELECT count(*) FROM retry.attempts WHERE scene = 'default/outage' AND attempt_no = 1",
	'all first attempts are made', expected => '1000');
wait_for(sub { $receiver->stats->{total} >= 1000 + 200 }, 'retries are made as well');

# One that is recorded was sent before, and so many are all that may have been.
my $retries = $receiver->stats->{total} - 1000;
cmp_ok($retries, '<=', 10 + 0.2 * 1000 + (time() - $begin) + 1, "but not more than a fifth and one a second ($retries)");
is(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/outage' AND state = 'retrying'"), '1000', 'the tasks wait');
is(sql("SELECT count(*) FROM retry.dead_letters"), '0', 'and none is dead');

# New tasks go at once, behind a thousand retries that wait.
tasks('outage', 50, ", key => 'new-' || i");
wait_for(sub { (grep { ($_->{key} // '') =~ /^new-/ } $receiver->ledger) >= 50 }, 'new tasks are sent at once');
wait_sql($node, "SELECT count(*) FROM retry.attempts WHERE scene = 'default/outage' AND attempt_no = 1",
	'each has had its first attempt', expected => '1050');
cmp_ok(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/outage' AND attempts = 1"), '>=', 700,
	'while most of the others still wait for their second');
$retries = $receiver->stats->{total} - 1050;
cmp_ok($retries, '<=', 10 + 0.2 * 1050 + (time() - $begin) + 1, "and they brought a fifth of retries ($retries)");

# One that somebody asks for does not wait either.
my $asked = sql("SELECT id FROM retry.tasks WHERE scene = 'default/outage' AND attempts = 1 ORDER BY id DESC LIMIT 1");
sql("SELECT retry.run_now('$asked')");
wait_sql($node, "SELECT attempts >= 2 FROM retry.tasks WHERE id = '$asked'", 'what is asked for goes at once');

# No other lane pays for it.
others_go_on($node, start_endpoint(), 'outage');

# It works again: at one retry a second this would take a quarter of an hour.
$receiver->mode('up');
all_succeed('outage', 'after the outage the backlog goes at full speed');
is(count('outage', "outcome = 'succeeded'"), 1050, 'each task has succeeded once');

# Without a share there is no budget, and settings count at once.
$receiver->reset;
$receiver->mode('status:500');
scene('free', 'NULL', 1);
tasks('free', 100);
wait_for(sub { $receiver->stats->{total} >= 1500 }, 'without a share retries go as they are due');
$receiver->reset;
$receiver->mode('status:500');
tasks('outage', 200);
wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/outage' AND attempts >= 1 AND state = 'retrying'",
	'another outage', expected => '200');
sql("UPDATE retry.scene SET retry_share = NULL WHERE name = 'outage'");
wait_sql($node, "SELECT min(attempts) >= 5 FROM retry.tasks WHERE scene = 'default/outage' AND state = 'retrying'",
	'without its share it retries all of them, again and again');
sql("UPDATE retry.scene SET retry_share = 0 WHERE name = 'outage'");
sql("UPDATE retry.scene SET paused = true WHERE name = 'free'");
wait_sql($node, "SELECT count(*) FROM retry.running WHERE scene = 'default/free'", 'the other one is paused', expected => '0');
wait_sql($node, "SELECT count(*) < 20 FROM retry.attempts WHERE scene = 'default/outage' AND started_at > clock_timestamp() - interval '3 s'",
	'and with a share of nothing only one a second');

# Functions of this database have a budget, too.
sql(<<'SQL');
CREATE TABLE switch AS SELECT true AS broken;
CREATE FUNCTION works_at_times(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT broken FROM switch) THEN
		RAISE 'broken';
	END IF;
	RETURN payload;
END $$;
INSERT INTO retry.scene (name, url, backoff, max_attempts, breaker_ratio, retry_share, retry_floor)
	VALUES ('function', 'sql:public.works_at_times', 'fixed 10ms', 1000000, NULL, 0, 2);
SQL
$begin = time();
tasks('function', 20);
wait_sql($node, "SELECT count(*) > 22 FROM retry.attempts WHERE scene = 'default/function' AND attempt_no > 1", 'functions are retried');
$retries = count('function', 'attempt_no > 1');
cmp_ok($retries, '<=', 20 + 2 * (time() - $begin) + 1, "within their budget ($retries)");
sql('UPDATE switch SET broken = false');
all_succeed('function', 'and succeed');

$node->stop;
done_testing();
