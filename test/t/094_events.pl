# What operators and applications are told of: NOTIFY of the ends of tasks, for
# scenes that want it, while no session that notifies holds up delivery; and
# retry.events.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

# commits wait for a standby that is not there, where a session wants that
my $node = new_node('main', streaming => 1, conf => "synchronous_standby_names = 'nobody'\nsynchronous_commit = local\n");
my $receiver = start_endpoint();
my $ok = $receiver->url('/ok');
my $bad = $receiver->url('/status/400');

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# ---- NOTIFY

sql(<<"SQL");
CREATE FUNCTION public.done(jsonb) RETURNS void LANGUAGE sql AS '';
INSERT INTO retry.scene_group (name) VALUES ('shop');
INSERT INTO retry.scene (group_name, name, url, notify) VALUES
	('shop', 'heard', '$ok', 'done'),
	('shop', 'dies', '$bad', 'done'),
	('shop', 'function', 'sql:public.done', 'Done, too'),
	('shop', 'retries', '@{[$receiver->url('/flaky/2')]}', 'done'),
	('shop', 'off', '$ok', NULL);
UPDATE retry.scene SET backoff = 'fixed 10ms';
SQL
my $listener = session($node);
my %heard;

# What the listener has heard so far: channel, scene and state, by task.
sub hear
{
	my $out = $listener->query_safe('SELECT 1');

	while ($out =~ /Asynchronous notification "(.*?)" with payload "(.*)" received/g)
	{
		my $told = decode_json($2);
		push @{ $heard{ $told->{id} } }, "$1: $told->{scene} $told->{state}";
	}
	return \%heard;
}

# Waits until it has heard of a task, and says how often and what.
sub hears
{
	my ($id, $expected, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_for(sub { hear()->{$id} }, "$description: heard");
	return is(join(', ', @{ $heard{$id} }), $expected, $description);
}

$listener->query_safe('LISTEN done; LISTEN "Done, too"');
my $group = q('shop/);
my $silent = enqueue($node, "${group}off', '{}'");
my @many = split /\n/, sql("SELECT * FROM retry.enqueue_many(${group}heard', array_fill('{}'::jsonb, ARRAY[200]))");
my ($dies, $function, $retries) = map { enqueue($node, "$group$_', '{}'") } qw(dies function retries);
wait_state($node, $silent, 'succeeded');
hears($dies, 'done: shop/dies dead', 'a dead letter');
hears($function, 'Done, too: shop/function succeeded', 'a function');
hears($retries, 'done: shop/retries succeeded', 'one that was tried three times, once');
hears($_, 'done: shop/heard succeeded', 'one of many') foreach @many[ 0, 199 ];
wait_for(sub { keys %{ hear() } == 203 }, 'all are heard of, where it is wanted');
is(scalar(grep { @$_ != 1 } values %heard), 0, 'each once');
ok(!$heard{$silent}, 'and none of where it is not');

# A session that notifies and waits in its commit for a standby has the lock that
# each NOTIFY needs: delivery goes on, and what is to be heard waits.
my $stuck = session($node);
my $holds = "SELECT pid FROM pg_locks WHERE locktype = 'object' AND mode = 'AccessExclusiveLock' AND granted AND database = 0";
$stuck->query_until(qr/sent/, "\\echo sent\nBEGIN; SET LOCAL synchronous_commit = on; CREATE TABLE public.written (); NOTIFY other; COMMIT;\n");
wait_sql($node, "SELECT count(*) FROM ($holds) AS h", 'a session that notifies holds the lock', expected => '1');
my $waits = enqueue($node, "${group}heard', '{}'");
wait_state($node, $waits, 'succeeded');
foreach my $n (1 .. 3)
{
	my $next = enqueue($node, "${group}off', '{}'");
	wait_state($node, $next, 'succeeded', description => "delivery goes on, $n");
}
ok(!hear()->{$waits}, 'nobody has heard of it yet');
is(sql("SELECT pg_cancel_backend(h.pid) FROM ($holds) AS h"), 't', 'the lock is let go');
hears($waits, 'done: shop/heard succeeded', 'and then it is heard of');
$stuck->quit;

sql(q(UPDATE retry.scene SET notify = NULL WHERE name = 'heard'));
my $after = enqueue($node, "${group}heard', '{}'");
wait_state($node, $after, 'succeeded');
my $last = enqueue($node, "${group}dies', '{}'");
hears($last, 'done: shop/dies dead', 'those that go on');
ok(!$heard{$after}, 'switched off');
$listener->quit;

sql_fails($node, q(UPDATE retry.scene SET notify = repeat('x', 64) WHERE name = 'heard'), '23514', 'notify', 'a channel that is too long');
sql_fails($node, q(UPDATE retry.scene SET notify = '' WHERE name = 'heard'), '23514', 'notify', 'and none');

$node->stop;
done_testing();
