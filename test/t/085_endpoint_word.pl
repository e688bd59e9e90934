# What an endpoint says counts for more than the task that it says it to: gone
# (410) disables the URL, 429, 503 and used-up limits hold back its lane.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main');
my $receiver = start_endpoint();
my $gone = start_endpoint();			# says 410 when told to

sub sql
{
	return ask($node, $_[0]);
}

# scene(NAME, URL, COLUMN => VALUE ...)
sub scene
{
	my ($name, $url, %more) = @_;
	my $columns = join '', map { ", $_" } sort keys %more;
	my $values = join '', map { ", $more{$_}" } sort keys %more;

	sql("INSERT INTO retry.scene (group_name, name, url$columns) VALUES ('default', '$name', '$url'$values)");
	return;
}

sub counted
{
	my ($where) = @_;

	return "SELECT count(*) FROM retry.tasks WHERE $where";
}

sub held
{
	my ($scene) = @_;

	return counted("scene = 'default/$scene' AND state = 'pending' AND held_reason = 'disabled URL'");
}

# Requests that the receiver got for a path.
sub requests
{
	my ($endpoint, $path) = @_;

	return scalar grep { $_->{path} eq $path } $endpoint->ledger;
}

# One after the other, so that only the first of many is sent to what is gone.
{
	scene('one', $gone->url('/ok/one'), max_in_flight => 1);
	$gone->mode('status:410');
	my $first = sql("SELECT (array_agg(retry.enqueue('one', '{}', key => 'one' || i) ORDER BY i))[1] FROM generate_series(1, 50) i");
	wait_sql($node, counted("scene = 'default/one' AND state = 'dead'"), 'one task dies', expected => 1);
	others_go_on($node, $receiver, 'gone');
	wait_sql($node, held('one'), 'the others are held, and it shows why', expected => 49);
	is(requests($gone, '/ok/one'), 1, 'one request was made');
	is(sql("SELECT reason FROM retry.dead_letters WHERE scene = 'default/one'"), 'gone', 'the task is gone');
	is( sql("SELECT scene, url, task = (SELECT id FROM retry.dead_letters WHERE scene = 'default/one'), http_status, held FROM retry.disabled_urls"),
		'default/one|' . $gone->url('/ok/one') . '|t|410|49',
		'the URL is disabled, and what it holds is counted');
	is(sql("SELECT min(attempts) || ' ' || max(attempts) FROM retry.tasks WHERE scene = 'default/one' AND state = 'pending'"),
		'0 0', 'held tasks lose no attempts');
	is(sql("SELECT count(*) FROM retry.events WHERE kind = 'url disabled' AND scene = 'default/one'"), 1, 'there is an event');

	# other spellings of it, later
	my $spelled = $gone->url('/ok/one#part');
	$spelled =~ s/http/HTTP/;
	my $later = enqueue($node, "'one', '{}', url => '$spelled'");
	my $replayed = sql("SELECT retry.replay(id) FROM retry.dead_letters WHERE scene = 'default/one'");
	others_go_on($node, $receiver, 'later');
	wait_sql($node, held('one'), 'a later task in another spelling is held, and a replay of the dead one', expected => 51);
	is(requests($gone, '/ok/one'), 1, 'and not sent');

	# another scene does not care, nor another URL of the same endpoint
	scene('two', $gone->url('/ok/one'));
	$gone->mode('up');
	wait_state($node, enqueue($node, "'two', '{}'"), 'succeeded', description => 'the same URL in another scene is called');
	wait_state($node, enqueue($node, "'one', '{}', url => '" . $gone->url('/ok/other') . "'"), 'succeeded',
		description => 'another URL in the same scene is called');

	# somebody asks for one that is held: it stays
	is(sql("SELECT retry.run_now('$later')"), 't', 'a held task may be asked for');
	others_go_on($node, $receiver, 'asked for');
	is(requests($gone, '/ok/one'), 2, 'and is held all the same');
	# cancelled, amended
	is(sql("SELECT retry.cancel('$replayed')"), 't', 'one is cancelled');
	is(sql("SELECT retry.amend('$later', '{\"url\": \"" . $gone->url('/ok/elsewhere') . "\"}') AND retry.run_now('$later')"), 't', 'one is sent elsewhere');
	wait_state($node, $later, 'succeeded', description => 'and arrives there');

	is(sql("SELECT retry.enable_url('one', '" . $gone->url('/ok/one') . "')"), 't', 'it is enabled');
	wait_sql($node, counted("scene = 'default/one' AND state = 'succeeded'"), 'then they go', expected => 51);
	is(requests($gone, '/ok/one'), 51, 'each once, and the cancelled one not');
	is(sql('SELECT count(*) FROM retry.disabled_urls'), 0, 'and nothing is disabled any more');
	is(sql("SELECT retry.enable_url('one', '" . $gone->url('/ok/one') . "')"), 'f', 'there is nothing to enable now');
}

# By an administrator; a second attempt is held as the first.
{
	my $url = $gone->url('/flaky/1?x=1');
	scene('admin', $url, backoff => "'fixed 100ms'");
	my $id = enqueue($node, "'admin', '{}'");
	is(sql("SELECT retry.disable_url('admin', '$url', 'under repair')"), 't', 'an administrator disables it');
	is(sql("SELECT retry.disable_url('admin', '$url', 'again')"), 'f', 'once');
	is(sql("SELECT reason, task IS NULL, http_status IS NULL, disabled_by FROM retry.disabled_urls"),
		'under repair|t|t|postgres', 'and it shows why and who');
	others_go_on($node, $receiver, 'disabled');
	my $sent = requests($gone, '/flaky/1?x=1');
	enqueue($node, "'admin', '{}'");
	others_go_on($node, $receiver, 'still disabled');
	is(requests($gone, '/flaky/1?x=1'), $sent, 'nothing is sent');
	sql("SELECT retry.enable_url('default/admin', '$url')");
	wait_sql($node, counted("scene = 'default/admin' AND state = 'succeeded'"), 'and all when it is enabled', expected => 2);
	is( sql("SELECT string_agg(kind || ' ' || detail, ', ' ORDER BY at) FROM retry.events WHERE scene = 'default/admin' AND kind ^@ 'url '"),
		'url disabled by postgres, url enabled by postgres', 'both are events');

	# a transaction that does both, or is undone, changes nothing
	sql("BEGIN; SELECT retry.disable_url('admin', '$url'); ROLLBACK");
	wait_state($node, enqueue($node, "'admin', '{}'"), 'succeeded', description => 'undone: it is called');
}

# In an ordered lane nothing passes a task that is held.
{
	my ($head, $next) = ($gone->url('/ok/head'), $gone->url('/ok/next'));
	scene('order', $next, ordered => 'true');
	sql("SELECT retry.disable_url('order', '$head')");
	sql("SELECT retry.enqueue('order', '{}', key => 'head', lane => 'x', url => '$head')");
	sql("SELECT retry.enqueue('order', '{}', key => 'next', lane => 'x')");
	others_go_on($node, $receiver, 'ordered') foreach 1 .. 2;
	is(requests($gone, '/ok/next'), 0, 'ordered: the next waits for the one that is held');
	sql("SELECT retry.enable_url('order', '$head')");
	wait_sql($node, counted("scene = 'default/order' AND state = 'succeeded'"), 'ordered: then both go', expected => 2);
	is(join(' ', map { $_->{key} } grep { $_->{path} =~ m{^/ok/(head|next)} } $gone->ledger), 'head next', 'in their order');
}

# A hundred thousand of them are as good as one.
{
	my $url = $gone->url('/ok/many/');
	scene('many', $gone->url('/ok/many/0'));
	sql("INSERT INTO retry.disabled_url (scene_id, url, since, disabled_by) SELECT s.id, '$url' || n, now(), 'postgres' FROM retry.scene s, generate_series(1, 100000) n WHERE s.name = 'many'");
	wait_state($node, enqueue($node, "'many', '{}'"), 'succeeded', description => 'many: one that is not among them is called');
	sql("SELECT count(retry.enqueue('many', '{}', url => '$url' || n)) FROM generate_series(1, 100000, 9999) n");
	others_go_on($node, $receiver, 'many');
	is(sql(held('many')), 11, 'many: those to the others are held');
	is($gone->stats->{paths}{"/ok/many/1"} // 0, 0, 'and not sent');
	sql("DELETE FROM retry.disabled_url WHERE scene_id = (SELECT id FROM retry.scene WHERE name = 'many')");
	wait_sql($node, counted("scene = 'default/many' AND state = 'succeeded'"), 'many: and go when all are enabled at once', expected => 12);
}

# Held tasks die when their time is over.
{
	scene('expire', $gone->url('/ok/expire'));
	sql("SELECT retry.disable_url('expire', '" . $gone->url('/ok/expire') . "')");
	my $short = enqueue($node, "'expire', '{}', expires_at => now() + interval '2 s'");
	my $long = enqueue($node, "'expire', '{}'");
	others_go_on($node, $receiver, 'to expire');
	wait_state($node, $short, 'dead', description => 'a held task expires');
	is(sql("SELECT reason FROM retry.dead_letters WHERE id = '$short'"), 'expired', 'as any other');
	is(sql("SELECT state, held_reason FROM retry.tasks WHERE id = '$long'"), 'pending|disabled URL', 'another is held on');
	sql("SELECT retry.enable_url('expire', '" . $gone->url('/ok/expire') . "')");
	wait_state($node, $long, 'succeeded', description => 'and goes when it may');
}

# Targets of a routed scene.
{
	my $well = start_endpoint();
	$gone->reset;
	sql("INSERT INTO retry.scene (group_name, name, targets, route, breaker_ratio, retry_share) VALUES ('default', 'routed', ARRAY['"
		  . $gone->url('/ok/target') . "', '" . $well->url('/ok/target') . "'], 'round_robin', NULL, NULL)");
	$gone->mode('status:410');
	my $first = sql("SELECT count(retry.enqueue('routed', '{}')) FROM generate_series(1, 2)");
	wait_sql($node, counted("scene = 'default/routed' AND state = 'dead'"), 'one of two hears that it is gone', expected => 1);
	sql("SELECT count(retry.enqueue('routed', '{}')) FROM generate_series(1, 20)");
	wait_sql($node, counted("scene = 'default/routed' AND state = 'succeeded'"), 'the others go to the other target', expected => 21);
	is(requests($gone, '/ok/target'), 1, 'and none to the one that is gone');
	is(sql("SELECT url FROM retry.disabled_urls WHERE scene = 'default/routed'"), $gone->url('/ok/target'), 'which is disabled');

	sql("SELECT retry.disable_url('routed', '" . $well->url('/ok/target') . "')");
	sql("SELECT count(retry.enqueue('routed', '{}')) FROM generate_series(1, 5)");
	others_go_on($node, $receiver, 'no target');
	wait_sql($node, held('routed'), 'with all targets disabled they are held', expected => 5);
	$gone->mode('up');
	sql("SELECT retry.enable_url('routed', '" . $gone->url('/ok/target') . "')");
	wait_sql($node, counted("scene = 'default/routed' AND state = 'succeeded'"), 'and go when one is enabled', expected => 26);
	is(requests($gone, '/ok/target'), 6, 'to that one');
}

# Restarts: what is held stays so, and none is lost.
foreach my $how ('stop', 'kill', 'away')
{
	my $url = $gone->url("/ok/restart-$how");
	$gone->mode('status:410');
	scene("restart-$how", $url);
	wait_state($node, enqueue($node, "'restart-$how', '{}'"), 'dead', description => "$how: one hears that it is gone");
	sql("SELECT count(retry.enqueue('restart-$how', '{}', lane => 'lane' || i)) FROM generate_series(1, 40) i");
	others_go_on($node, $receiver, $how);
	$gone->mode('up');
	if ($how eq 'away')
	{
		sql("ALTER SYSTEM SET retry.databases = 'none'");
		$node->reload;
		wait_for(sub { !workers($node, 'retry dispatcher%') }, 'no dispatcher runs');
	}
	else
	{
		$node->stop($how eq 'kill' ? 'immediate' : 'fast');
		$node->start;
		others_go_on($node, $receiver, "$how, restarted");
		is(requests($gone, "/ok/restart-$how"), 1, "$how: nothing is sent after it");
		is(sql(held("restart-$how")), 40, "$how: they are held");
	}
	sql("SELECT retry.enable_url('restart-$how', '$url')");
	if ($how eq 'away')
	{
		sql('ALTER SYSTEM RESET retry.databases');
		$node->reload;
	}
	wait_sql($node, counted("scene = 'default/restart-$how' AND state = 'succeeded'"), "$how: all go when it is enabled", expected => 40);
	is(requests($gone, "/ok/restart-$how"), 41, "$how: each once");
}

# A crash at the moment of the answer: either all of it is there, or nothing.
{
	$gone->mode('status:410');
	foreach my $i (1 .. 3)
	{
		scene("crash-$i", $gone->url("/ok/crash-$i"));
		my $id = enqueue($node, "'crash-$i', '{}'");
		wait_for(sub { requests($gone, "/ok/crash-$i") > 0 }, "crash $i: the answer is on its way");
		$node->stop('immediate');
		$node->start;
		is( sql("SELECT (SELECT count(*) FROM retry.dead_letters WHERE id = '$id') - (SELECT count(*) FROM retry.disabled_urls WHERE task = '$id')"),
			0, "crash $i: the URL is disabled if and only if the attempt is recorded");
		wait_state($node, $id, 'dead', description => "crash $i: in the end it is dead");
		is(sql("SELECT count(*) FROM retry.disabled_urls WHERE task = '$id'"), 1, "crash $i: and its URL disabled");
	}
}

# A session that has the table, or the very row, stalls nothing.
{
	my $session = session($node);
	foreach my $lock (
		[ 'table', 'LOCK TABLE retry.disabled_url' ],
		[ 'rows', 'SELECT count(*) FROM (SELECT FROM retry.disabled_url FOR UPDATE) x' ],
		[ 'delete', 'DELETE FROM retry.disabled_url' ],
		[ 'insert', "SELECT retry.disable_url('lock-insert', '" . $gone->url('/ok/lock-insert') . "')" ])
	{
		my ($what, $statement) = @$lock;
		my $url = $gone->url("/ok/lock-$what");
		scene("lock-$what", $url, max_in_flight => 1);
		$session->query_safe('BEGIN');
		$session->query_safe($statement);
		my $id = enqueue($node, "'lock-$what', '{}'");
		wait_sql($node, "SELECT count(*) FROM retry.attempt WHERE task_id = '$id' AND outcome = 'stopped'", "$what locked: the attempt is recorded", expected => 1);
		sql("SELECT count(retry.enqueue('lock-$what', '{}')) FROM generate_series(1, 5)");
		my $other = enqueue($node, "'" . $receiver->url('/ok/locked') . "'");
		wait_sql($node, "SELECT count(*) FROM retry.attempt WHERE task_id = '$other'", "$what locked: others go on", expected => 1);
		is(requests($gone, "/ok/lock-$what"), 1, "$what locked: nothing more is sent there");
		$session->query_safe('ROLLBACK');
		wait_sql($node, "SELECT count(*) FROM retry.disabled_urls WHERE url = '$url' AND task = '$id'", "$what: then the URL is disabled", expected => 1);
		others_go_on($node, $receiver, "$what, unlocked");
		is(requests($gone, "/ok/lock-$what"), 1, "$what: and the others are held");
	}
	$session->quit;
}

# Two dispatchers: what one hears, the other keeps to.
{
	sql('ALTER SYSTEM SET retry.dispatchers = 2');
	$node->reload;
	wait_sql($node, 'SELECT count(*) FROM retry.dispatchers', 'two dispatchers', expected => 2);
	my $url = $gone->url('/ok/both');
	scene('both', $url);
	$gone->mode('status:410');
	wait_state($node, enqueue($node, "'both', '{}', lane => 'a'"), 'dead', description => 'one of them hears that it is gone');
	wait_for(
		sub {
			my $before = requests($gone, '/ok/both');
			sql("SELECT count(retry.enqueue('both', '{}', lane => 'b' || i)) FROM generate_series(1, 10) i");
			others_go_on($node, $receiver, 'a round');
			return requests($gone, '/ok/both') == $before;
		},
		'in the end none of them calls it');
	$gone->mode('up');
	my $held = sql(held('both'));
	cmp_ok($held, '>', 0, 'tasks are held');
	wait_sql($node, "SELECT sum(held) FROM retry.disabled_urls WHERE scene = 'default/both'", 'and counted by both', expected => $held);
	sql("SELECT retry.enable_url('both', '$url')");
	wait_sql($node, counted("scene = 'default/both' AND state = 'succeeded'"), 'both let them go', expected => $held);
	sql('ALTER SYSTEM RESET retry.dispatchers');
	$node->reload;
	wait_sql($node, 'SELECT count(*) FROM retry.dispatchers', 'one dispatcher again', expected => 1);
}

# A lane that is told to come again later is left alone, and no other is.  Each
# of these endpoints has a lane of its own.
my %header = (
	'Retry-After with 503' => '/retry-after/3600?status=503',
	'Retry-After with 429' => '/retry-after/3600?status=429',
	'the older draft' => '/header?name=RateLimit-Remaining&value=0%0D%0ARateLimit-Reset%3A%203600&status=200',
	'the structured field' => '/header?name=RateLimit&value=%22all%22%3Br%3D0%3Bt%3D3600&status=200',
	'X- and a moment' => '/header?name=X-RateLimit-Remaining&value=0%0D%0AX-RateLimit-Reset%3A%20' . (time() + 3600) . '&status=200',
	'X- and milliseconds' => '/header?name=X-Rate-Limit-Remaining&value=0%0D%0AX-Rate-Limit-Reset%3A%20' . (time() + 3600) . '000&status=404');

my %blocked;
foreach my $what (sort keys %header)
{
	my $endpoint = $blocked{$what} = start_endpoint();
	my $name = lc $what =~ s/[^a-zA-Z0-9]+/-/gr;

	scene($name, $endpoint->url($header{$what}), max_in_flight => 1, breaker_ratio => 'NULL', backoff => "'fixed 100ms'");
	my $first = enqueue($node, "'$name', '{}'");
	wait_sql($node, "SELECT count(*) FROM retry.attempts WHERE task_id = '$first'", "$what: the first is answered", expected => 1);
	sql("SELECT count(retry.enqueue('$name', '{}')) FROM generate_series(1, 10)");
	others_go_on($node, $receiver, $what);
	others_go_on($node, $receiver, $what);
	is($endpoint->stats->{total}, 1, "$what: nothing more is sent");
	is( sql("SELECT string_agg(kind || ' ' || detail, ',') FROM retry.events WHERE scene = 'default/$name' AND kind <> 'configuration changed'") =~ /^blocked for 3[56]\d\d s, by an answer with status \d+$/,
		1, "$what: there is an event");
}

# What does not say that, is not taken for it.
foreach my $what (
	[ 'other-status', '/retry-after/3600?status=200' ],
	[ 'some-left', '/header?name=RateLimit&value=%22all%22%3Br%3D1%3Bt%3D3600&status=200' ],
	[ 'nonsense', '/header?name=RateLimit-Remaining&value=0%0D%0ARateLimit-Reset%3A%20soon&status=200' ])
{
	my ($name, $path) = @$what;
	my $endpoint = start_endpoint();

	scene($name, $endpoint->url($path), max_in_flight => 1);
	sql("SELECT count(retry.enqueue('$name', '{}')) FROM generate_series(1, 5)");
	wait_sql($node, counted("scene = 'default/$name' AND state = 'succeeded'"), "$name: all are sent", expected => 5);
}

# A block is not shortened by what was under way when it came, and a task that
# was answered so waits itself, too.
{
	my $endpoint = start_endpoint();
	scene('late', $endpoint->url('/delay/700'), max_in_flight => 4, breaker_ratio => 'NULL');
	my $slow = enqueue($node, "'late', '{}'");
	wait_for(sub { $endpoint->stats->{in_progress} == 1 }, 'one is under way');
	my $told = enqueue($node, "'late', '{}', url => '" . $endpoint->url('/retry-after/3600?status=429') . "'");
	wait_sql($node, "SELECT count(*) FROM retry.attempts WHERE task_id = '$told'", 'another brings the block', expected => 1);
	my $short = enqueue($node, "'late', '{}'");
	wait_state($node, $slow, 'succeeded', description => 'the one under way succeeds');
	others_go_on($node, $receiver, 'late');
	is($endpoint->stats->{total}, 2, 'and the block stays');
	is(sql("SELECT next_due > now() + interval '50 minutes' FROM retry.tasks WHERE id = '$told'"), 't', 'the task that was told waits as long');
	is(sql("SELECT attempts FROM retry.tasks WHERE id = '$short'"), 0, 'what waits for its lane loses no attempt');
	wait_sql($node, "SELECT held_reason FROM retry.tasks WHERE id = '$short'", 'and says why it waits', expected => 'blocked');

	# a block that ends: then they go
	scene('short', $endpoint->url('/ok/short'), max_in_flight => 1, breaker_ratio => 'NULL');
	my $first = enqueue($node, "'short', '{}', url => '" . $endpoint->url('/retry-after/1?status=503&then=ok') . "'");
	wait_sql($node, "SELECT count(*) FROM retry.attempts WHERE task_id = '$first'", 'a short block', expected => 1);
	sql("SELECT count(retry.enqueue('short', '{}')) FROM generate_series(1, 5)");
	wait_sql($node, counted("scene = 'default/short' AND state = 'succeeded'"), 'after it all go', expected => 6);
}

# A target is told for itself, also with a success.
{
	my $busy = start_endpoint();
	my $well = start_endpoint();
	sql("INSERT INTO retry.scene (group_name, name, targets, route) VALUES ('default', 'busy', ARRAY['"
		  . $busy->url($header{'the structured field'}) . "', '" . $well->url('/ok/well') . "'], 'round_robin')");
	sql("SELECT count(retry.enqueue('busy', '{}')) FROM generate_series(1, 2)");
	wait_sql($node, counted("scene = 'default/busy' AND state = 'succeeded'"), 'two targets serve', expected => 2);
	is($busy->stats->{total}, 1, 'one of them says that it is enough');
	sql("SELECT count(retry.enqueue('busy', '{}')) FROM generate_series(1, 20)");
	wait_sql($node, counted("scene = 'default/busy' AND state = 'succeeded'"), 'the other one serves those that come', expected => 22);
	is($busy->stats->{total}, 1, 'and the one that wants to be left alone is');
}

# 429 without a moment: it is sent less, by and by.
{
	my $endpoint = start_endpoint();
	scene('slow', $endpoint->url('/status/429'), breaker_ratio => 'NULL', retry_share => 'NULL', max_attempts => 1);
	sql("SELECT count(retry.enqueue('slow', '{}')) FROM generate_series(1, 100)");
	wait_sql($node, "SELECT count(*) FROM retry.events WHERE scene = 'default/slow' AND kind = 'throttled' AND detail LIKE 'to % requests a second, by an answer with status 429'",
		'a lane is slowed', expected => 1);
	wait_sql($node, counted("scene = 'default/slow' AND state = 'dead'"), 'and is not stopped', expected => 100);
}

# 503 without a moment may be an accident: the first one is believed, and later a
# few among good answers are not.
{
	my $endpoint = start_endpoint();
	my $throttled = "SELECT count(*) FROM retry.events WHERE scene = 'default/accidents' AND kind = 'throttled'";
	my $done = sub {
		wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/accidents' AND state NOT IN ('succeeded', 'dead')",
			"accidents: $_[0]", expected => 0);
	};
	scene('accidents', $endpoint->url('/ok'), max_in_flight => 4, breaker_ratio => 'NULL', max_attempts => 1);
	my $broken = "retry.enqueue('accidents', '{}', url => '" . $endpoint->url('/status/503') . "')";
	sql("SELECT $broken");
	wait_sql($node, $throttled, 'accidents: the first 503 slows the lane', expected => 1);
	my $state = "SELECT state FROM retry.lanes WHERE lane ^@ 'accidents'";
	wait_sql($node, $state, 'accidents: retry.lanes shows that', expected => 'slowed');
	wait_for(
		sub {
			return 1 if sql($state) eq 'idle';
			enqueue($node, "'accidents', '{}'");
			return 0;
		},
		'accidents: good answers speed it up again');
	sql("SELECT count(retry.enqueue('accidents', '{}')) FROM generate_series(1, 200)");
	$done->('many good answers');
	sql("SELECT count(CASE WHEN i % 25 = 0 THEN $broken ELSE retry.enqueue('accidents', '{}') END) FROM generate_series(1, 500) i");
	$done->('and some bad ones among them');
	others_go_on($node, $receiver, 'accidents');
	is(sql($throttled), '1', 'accidents: slow it no more');
	sql("SELECT count($broken) FROM generate_series(1, 50) i");
	$done->('many bad ones');
	wait_sql($node, $throttled, 'accidents: do', expected => '2');
}

# After a restart the blocks are forgotten, what tasks wait for is not.
{
	$node->restart;
	my ($what) = sort keys %blocked;
	wait_for(sub { $blocked{$what}->stats->{total} == 2 }, 'after a restart a lane tries again');
	others_go_on($node, $receiver, 'restarted');
	is($blocked{$what}->stats->{total}, 2, 'and is blocked again');
}

done_testing();
