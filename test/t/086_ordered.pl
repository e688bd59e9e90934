# Ordered lanes: one after the other, the head until it has an outcome, whatever
# happens meanwhile.  Judged by what the receiver got.
# Slow.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

# Few lanes in memory, so that most of them come and go all the time.
my $node = new_node('main', conf => "retry.max_in_flight = 64\nretry.max_lanes = 64\n");
my $receiver = start_endpoint();
my $base = $receiver->url('');
$base =~ s{/$}{};

sub sql
{
	return ask($node, $_[0]);
}

# A scene of this test: its lanes are ordered, its backoff is short, and neither
# breaker nor budget gets in the way of what is looked at.
sub scene
{
	my ($name, %more) = @_;
	my %columns = (
		name => "'$name'", url => "'$base/ok'", ordered => 'true', lane_by => "'reference'",
		backoff => "'fixed 30ms'", max_attempts => 5, timeout => "'5 s'",
		breaker_ratio => 'NULL', retry_share => 'NULL', %more);
	my @names = sort keys %columns;

	sql("INSERT INTO retry.scene (" . join(', ', @names) . ') VALUES (' . join(', ', map { $columns{$_} } @names) . ')');
	return;
}

# What the receiver got of a scene, in order of arrival.
sub received
{
	my ($scene) = @_;

	my @requests = sort { $a->{mono_us} <=> $b->{mono_us} } grep { $_->{key} =~ /^\Q$scene\E:/ } $receiver->ledger;
	return @requests;
}

# The oracle: in each lane of a scene, the tasks (keys scene:lane:number) came in
# the order in which the database has them, one finished before the next began,
# and no request while another was being answered.  "wait": each takes so long.
sub in_order
{
	my ($scene, $what, %opt) = @_;
	my %expected;
	my %seen;
	my @wrong;
	my %last;
	my $n = 0;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $row (split /\n/,
		sql("SELECT lane_hash, key FROM retry.task WHERE key LIKE '$scene:%' AND replay_of IS NULL ORDER BY lane_hash, due_at, id"))
	{
		my ($lane, $key) = split /\|/, $row;
		push @{ $expected{$lane} }, $key;
	}
	my %lane_of = map { my $lane = $_; map { $_ => $lane } @{ $expected{$lane} } } keys %expected;
	foreach my $request (received($scene))
	{
		my ($key, $at, $path) = @$request{qw(key mono_us path)};
		my $lane = $lane_of{$key};
		my $wait = $path =~ m{/delay/(\d+)} ? $1 * 1000 : 0;
		my $before = $last{$lane};

		$n++;
		push @wrong, "$key at $at before $before->[0] was answered at $before->[1]"
		  if $before && $at < $before->[1];
		push @{ $seen{$lane} }, $key unless $before && $before->[0] eq $key;
		$last{$lane} = [ $key, $at + $wait ];
	}
	foreach my $lane (sort keys %expected)
	{
		my @want = grep { !$opt{but}{$_} } @{ $expected{$lane} };
		my @got = @{ $seen{$lane} // [] };
		push @wrong, "lane $lane: expected @want, got @got" if "@want" ne "@got";
	}
	is(@wrong ? join("\n", @wrong[ 0 .. ($#wrong < 5 ? $#wrong : 5) ]) : '', '', "$what: in order ($n requests, " . keys(%expected) . ' lanes)');
	return;
}

sub all_finished
{
	my ($scene, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_sql($node,
		"SELECT count(*) FROM retry.tasks WHERE scene = 'default/$scene' AND state IN ('pending', 'running', 'retrying')",
		"$what: all end", expected => '0', timeout => 90);
	return;
}

# Many lanes, of which each third task fails twice before it succeeds, and each
# seventh takes a while; enqueued by many statements across the lanes.
scene('many');
sub enqueue_many_orders
{
	my ($scene, $lanes, $from, $to) = @_;

	foreach my $n ($from .. $to)
	{
		my $path = $n % 3 == 0 ? '/flaky/2?fail=500' : $n % 7 == 0 ? '/delay/20' : '/ok';
		sql("SELECT count(retry.enqueue('$scene', '{}', key => format('$scene:%s:$n', i), reference => 'order ' || i, url => '$base$path')) FROM generate_series(1, $lanes) i");
	}
	return;
}
enqueue_many_orders('many', 200, 1, 7);
all_finished('many', 'two hundred orders of seven steps each');
in_order('many', 'by reference');
is(sql("SELECT count(DISTINCT lane_hash) || ' ' || count(*) FROM retry.task WHERE key LIKE 'many:%'"), '200 1400', 'each order had a lane');


# One lane, whose tasks are told apart by their keys "scene:lane:number".
# add(LANE, NUMBER, PATH, MORE) enqueues one and returns its id.
my $scene;
sub add
{
	my ($lane, $n, $path, $more) = @_;

	return sql("SELECT retry.enqueue('$scene', '{}', key => '$scene:$lane:$n', reference => '$lane', url => '$base$path'"
		  . ($more ? ", $more" : '') . ')');
}

# The numbers of a lane's requests, in the order in which they came.
sub numbers
{
	my ($lane) = @_;

	return join(' ', map { $_->{key} =~ /:([^:]+)$/ } grep { $_->{key} =~ /^$scene:\Q$lane\E:/ } received($scene));
}

sub state
{
	return sql("SELECT state FROM retry.tasks WHERE id = '$_[0]'");
}

# Lanes that are not in use are forgotten: other lanes take their place.
sub forget_lanes
{
	sql("SELECT count(retry.enqueue('$base/ok/forget', '{}', lane => 'forget' || i)) FROM generate_series(1, 80) i");
	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE url LIKE '%/ok/forget' AND state <> 'succeeded'",
		'other lanes take the place of those that are not in use', expected => '0');
	return;
}

# What has been enqueued would have been sent by now if it might be.
sub nothing_more
{
	others_go_on($node, $receiver, $_[0]);
	return;
}

# A head that waits for its next attempt: what is asked of it and of those behind.
foreach my $forgotten (0, 1)
{
	my $what = $forgotten ? 'not in memory' : 'in memory';

	$scene = "asked$forgotten";
	scene($scene, backoff => "'fixed 1h'");
	my %id;
	foreach my $lane (qw(cancel behind run amend replace bulk))
	{
		$id{$lane}{1} = add($lane, 1, '/status/500');
		$id{$lane}{$_} = add($lane, $_, '/ok') for 2 .. 4;
	}
	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/$scene' AND state = 'retrying'",
		"$what: the heads wait for their next attempt", expected => '6');
	forget_lanes() if $forgotten;
	nothing_more($what);
	is(sql("SELECT count(*) FROM retry.attempts WHERE scene = 'default/$scene'"), 6, "$what: and those behind wait for them");

	is(sql("SELECT retry.cancel('$id{behind}{2}'), retry.run_now('$id{behind}{3}')"), 't|t', "$what: one behind is cancelled, and another asked for");
	nothing_more("$what, one behind");
	is(numbers('behind'), '1', "$what: neither is sent before its turn");
	sql("SELECT retry.cancel('$id{$_}{1}')") for qw(cancel behind);
	wait_state($node, $id{$_}{4}, 'succeeded', description => "$what: the head is cancelled, and those behind go on ($_)") for qw(cancel behind);
	is(numbers('cancel') . ', ' . numbers('behind'), '1 2 3 4, 1 3 4', "$what: in order");

	sql("SELECT retry.run_now('$id{run}{1}')");
	wait_sql($node, "SELECT attempts, state FROM retry.tasks WHERE id = '$id{run}{1}'", "$what: the head is asked for, and tried once more", expected => '2|retrying');
	sql("SELECT retry.amend('$id{$_}{1}', jsonb_build_object('url', '$base/ok')), retry.run_now('$id{$_}{1}')") for qw(run amend);
	wait_state($node, $id{$_}{4}, 'succeeded', description => "$what: the head is changed and asked for ($_)") for qw(run amend);
	is(numbers('run') . ', ' . numbers('amend'), '1 1 1 2 3 4, 1 1 2 3 4', "$what: in order");

	$id{replace}{5} = sql("SELECT retry.enqueue('$scene', '{}', key => '$scene:replace:2', reference => 'replace', url => '$base/ok', on_conflict => 'replace')");
	is(sql("SELECT retry.cancel_where('$scene', key_prefix => '$scene:replace:1')"), '1', "$what: the head is cancelled among others");
	wait_state($node, $id{replace}{5}, 'succeeded', description => "$what: what replaces another goes to the end");
	is(numbers('replace'), '1 3 4 2', "$what: in order");
	is(sql("SELECT retry.run_now_where('$scene', reference => 'bulk')"), '4', "$what: all of a lane are asked for");
	wait_sql($node, "SELECT attempts FROM retry.tasks WHERE id = '$id{bulk}{1}'", "$what: the head is tried", expected => '2');
	nothing_more("$what, all asked for");
	is(numbers('bulk'), '1 1', "$what: and nothing else");
}

# Answers and ends of many kinds; the next one begins when there is an outcome.
$scene = 'kinds';
scene($scene, pending_interval => "'40 ms'", pending_when => "'\$.status ? (\@ == \"processing\")'");
foreach my $lane (1 .. 5)
{
	add($lane, 1, '/processing/2');
	add($lane, 2, '/status/500', 'max_attempts => 3');
	add($lane, 3, '/status/400');
	add($lane, 4, '/status/500', "max_attempts => 1000, expires_at => clock_timestamp() + interval '1 s'");
	add($lane, 5, '/hang', "timeout => '50 ms', max_attempts => 2");
	add($lane, 6, '/ok');
}
all_finished($scene, 'answers of many kinds');
in_order($scene, 'answers of many kinds');
is(numbers(1) =~ s/ 4( 4)*//r, '1 1 1 2 2 2 3 5 5 6', 'each as often as it should');
is(sql("SELECT string_agg(DISTINCT right(t.key, 1) || ' ' || t.state || coalesce(' ' || d.reason, ''), ', ') FROM retry.tasks t LEFT JOIN retry.dead_letters d USING (id) WHERE t.key LIKE '$scene:%'"),
	'1 succeeded, 2 dead exhausted, 3 dead stopped, 4 dead expired, 5 dead exhausted, 6 succeeded', 'and each has its outcome');

# One that expires while it waits dies in its turn, unsent.
$scene = 'expiry';
scene($scene, backoff => "'fixed 1h'");
{
	my $head = add('a', 1, '/status/500');
	my $late = add('a', 2, '/ok', "expires_at => clock_timestamp() + interval '200 ms'");
	my $last = add('a', 3, '/ok');
	wait_state($node, $head, 'retrying');
	wait_sql($node, "SELECT expires_at < clock_timestamp() FROM retry.tasks WHERE id = '$late'", 'the time of one behind is over');
	nothing_more('expiry');
	is(state($late), 'pending', 'it waits for its turn all the same');
	sql("SELECT retry.cancel('$head')");
	wait_state($node, $last, 'succeeded');
	is(state($late) . ' ' . numbers('a'), 'dead 1 3', 'and dies then, without having been sent');
}

# Delays: what is due earlier goes first; one that was committed late goes when
# it is there, after what has begun.
$scene = 'delays';
scene($scene, backoff => "'fixed 300ms'");
{
	my $later = add('a', 9, '/ok', "delay => '1 s'");
	add('a', 1, '/ok');
	my $next = add('a', 2, '/flaky/1?fail=500', "delay => '500 ms'");
	wait_state($node, $later, 'succeeded', description => 'delayed tasks');
	is(numbers('a'), '1 2 2 9', 'a delayed one holds up nothing that is due before');

	my $far = add('b', 9, '/ok', "delay => '1 h'");
	wait_state($node, add('b', 1, '/ok'), 'succeeded');
	sql("SELECT retry.run_now('$far')");
	wait_state($node, $far, 'succeeded', description => 'a delayed one is the head when it is the only one, and can be asked for');

	my $user = session($node);
	$user->query_safe('BEGIN');
	$user->query_safe("SELECT retry.enqueue('$scene', '{}', key => '$scene:c:early', reference => 'c', url => '$base/ok')");
	wait_state($node, add('c', 1, '/ok'), 'succeeded', description => 'one that is not committed holds up nothing');
	my $failing = add('c', 2, '/flaky/2?fail=500');
	add('c', 3, '/ok');
	wait_state($node, $failing, 'retrying');
	$user->query_safe('COMMIT');
	$user->quit;
	all_finished($scene, 'and is sent when it is there');
	is(numbers('c'), '1 2 2 2 early 3', 'not before the one that has begun, but before those that have not');
}

# Pauses, one after the other or spread.
foreach my $spread ('NULL', "'2 s'")
{
	my $what = $spread eq 'NULL' ? 'resumed' : 'resumed little by little';

	$scene = $spread eq 'NULL' ? 'pause' : 'spread';
	scene($scene, resume_over => $spread, backoff => "'fixed 500ms'");
	foreach my $lane (1 .. 25)
	{
		add($lane, 1, '/flaky/1?fail=500');
		add($lane, 2, '/ok');
	}
	sql("UPDATE retry.scene SET paused = true WHERE name = '$scene'");
	foreach my $lane (1 .. 25)
	{
		add($lane, $_, $_ == 4 ? '/flaky/1?fail=500' : '/ok') for 3 .. 5;
	}
	forget_lanes();
	nothing_more("$what: paused");
	my $sent = received($scene);
	$node->restart;
	nothing_more("$what: paused, restarted");
	is(scalar(received($scene)), $sent, "$what: nothing is sent meanwhile");
	sql("UPDATE retry.scene SET paused = false WHERE name = '$scene'");
	all_finished($scene, $what);
	in_order($scene, $what);
	is(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/$scene' AND state = 'succeeded'"), 125, "$what: all of them");
}

# A head that is passed over because its scene is paused still leads to those behind it,
# which were due before anything that was noted of the pause: also after a restart, when
# the lane is wanted again during the pause.
$scene = 'led';
scene($scene, backoff => "'fixed 700ms'");
{
	my $head = add('a', 1, '/flaky/1?fail=500');
	add('a', 2, '/ok');
	wait_state($node, $head, 'retrying');
	sql("UPDATE retry.scene SET paused = true WHERE name = '$scene'");
	add('b', 1, '/ok');
	wait_sql($node, "SELECT next_due < clock_timestamp() FROM retry.tasks WHERE id = '$head'", 'its next attempt becomes due during a pause');
	nothing_more('paused');
	$node->restart;
	my $last = add('a', 3, '/ok');
	nothing_more('paused, one more');
	sql("UPDATE retry.scene SET paused = false WHERE name = '$scene'");
	wait_state($node, $last, 'succeeded');
	is(numbers('a'), '1 1 2 3', 'those behind it are sent, in order');
}

# The same when the pause is that of another scene, whose task is the head of their lane.
$scene = 'shares';
scene('shared', backoff => "'fixed 700ms'");
scene($scene);
{
	my $enqueue = sub {
		my ($of, $n) = @_;
		return sql("SELECT retry.enqueue('$of', '{}', key => 'shares:both:$n', lane => 'both', url => '$base/" . ($n == 1 ? 'flaky/1?fail=500' : 'ok') . "')");
	};
	my $head = $enqueue->('shared', 1);
	$enqueue->($scene, 2);
	wait_state($node, $head, 'retrying');
	sql("UPDATE retry.scene SET paused = true WHERE name = 'shared'");
	wait_sql($node, "SELECT next_due < clock_timestamp() FROM retry.tasks WHERE id = '$head'", 'the next attempt of another scene becomes due during its pause');
	nothing_more('another scene is paused');
	forget_lanes();
	my $last = $enqueue->($scene, 3);
	nothing_more('another scene is paused, one more');
	is(numbers('both'), '1', 'it holds up the lane that they share');
	sql("UPDATE retry.scene SET paused = false WHERE name = 'shared'");
	wait_state($node, $last, 'succeeded');
	is(numbers('both'), '1 1 2 3', 'and when it goes on, so do the others, in order');
}

# Next attempts that were to come, and that nobody will make any more, hide nothing.
$scene = 'stale';
scene($scene, ordered => 'false', backoff => "'fixed 1h'", max_in_flight => 64);
{
	sql("SELECT count(retry.enqueue('$scene', '{}', reference => 'a', url => '$base/status/500')) FROM generate_series(1, 1100)");
	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE scene = 'default/$scene' AND state = 'retrying'", 'many wait for their next attempt', expected => '1100');
	is(sql("SELECT retry.cancel_where('$scene')"), 1100, 'and are cancelled');
	sql("UPDATE retry.scene SET ordered = true WHERE name = '$scene'");
	wait_state($node, add('a', 1, '/ok'), 'succeeded', description => 'a lane that becomes ordered goes on behind them');
}

# A dead head that holds up its lane, in memory or not, until its replay has
# succeeded or somebody steps over it.
$scene = 'block';
scene($scene, dead_head => "'block'", max_attempts => 2);
{
	my %id;
	foreach my $lane (qw(replay step skip))
	{
		add($lane, 1, '/ok');
		$id{$lane}{2} = add($lane, 2, '/status/500');
		$id{$lane}{$_} = add($lane, $_, '/ok') for 3 .. 5;
	}
	my $held = "SELECT count(*) FROM retry.tasks WHERE scene = 'default/block' AND state = 'pending' AND held_reason = 'behind a dead task'";
	wait_sql($node, $held, 'a dead head holds up its lane', expected => '9');
	forget_lanes();
	nothing_more('dead heads, not in memory');
	$node->stop('immediate');
	$node->start;
	nothing_more('dead heads, after a crash');
	is(sql($held), 9, 'those behind still wait');
	is(numbers($_), '1 2 2', "and were not sent ($_)") for qw(replay step skip);

	sql("INSERT INTO retry.dead_letter SELECT (jsonb_populate_record(d, jsonb_build_object('id', gen_random_uuid(), 'key', 'gone', 'died_at', now() - interval '100 days'))).* FROM retry.dead_letter d WHERE d.id = '$id{skip}{2}'");
	sql("UPDATE retry.dead_letter SET died_at = now() - interval '100 days' WHERE id = '$id{skip}{2}'");
	sql('CALL retry.maintain()');
	is(sql("SELECT count(*), min(id::text) = '$id{skip}{2}' FROM retry.dead_letter WHERE died_at < now() - interval '99 days'"), '1|t',
		'a dead letter is kept as long as it holds up a lane');

	my $again = sql("SELECT retry.replay('$id{replay}{2}')");
	wait_state($node, $again, 'dead', description => 'the replay dies as well');
	nothing_more('a replay that died');
	is(sql($held), 9, 'those behind still wait');
	# amended, so that it succeeds in the end; its own death is what is replayed
	my $user = session($node);
	$user->query_safe('BEGIN');
	my $third = $user->query_safe("SELECT retry.replay('$again')");
	$user->query_safe("SELECT retry.amend('$third', jsonb_build_object('url', '$base/ok'))");
	$user->query_safe('COMMIT');
	$user->quit;
	wait_state($node, $id{replay}{5}, 'succeeded', description => 'a replay succeeds, and those behind go on');
	is(numbers('replay'), '1 2 2 2 2 2 3 4 5', 'in order, the replays in the place of the head');
	is(sql("SELECT retry.step_over('$id{replay}{2}')"), 'f', 'there is nothing to step over then');

	is(sql("SELECT retry.step_over('$id{step}{2}')"), 't', 'somebody steps over a dead head');
	wait_state($node, $id{step}{5}, 'succeeded', description => 'and those behind go on');
	is(numbers('step'), '1 2 2 3 4 5', 'in order');
	is(sql("SELECT retry.step_over('$id{step}{3}')"), 'f', 'one that has succeeded holds up nothing');
	my $late = sql("SELECT retry.replay('$id{step}{2}')");
	wait_state($node, $late, 'dead', description => 'what was stepped over is replayed, and dies at its place now');
	my $behind = add('step', 6, '/ok');
	wait_sql($node, "SELECT held_reason FROM retry.tasks WHERE id = '$behind'", 'it holds up the lane once more', expected => 'behind a dead task');
	is(sql("SELECT retry.step_over('$late')"), 't', 'and is stepped over');
	wait_state($node, $behind, 'succeeded');

	sql("UPDATE retry.scene SET dead_head = 'skip' WHERE name = 'block'");
	wait_state($node, $id{skip}{5}, 'succeeded', description => 'the scene no longer waits for the dead');
	is(numbers('skip'), '1 2 2 3 4 5', 'in order');
	sql("UPDATE retry.scene SET dead_head = 'block' WHERE name = 'block'");
	wait_state($node, add('skip', 6, '/ok'), 'succeeded', description => 'those dead by then hold up nothing when it waits once more');
}

# Replays of many keep the order in which they were enqueued.
$scene = 'replays';
scene($scene, max_attempts => 1);
{
	add('a', $_, '/flaky/1?fail=500') for 1 .. 20;
	wait_sql($node, "SELECT count(*) FROM retry.dead_letters WHERE scene = 'default/replays'", 'all of a lane have died', expected => '20');
	is(sql("SELECT retry.replay_dead('replays')"), 20, 'all of them are replayed');
	all_finished($scene, 'replays');
	is(numbers('a'), join(' ', 1 .. 20, 1 .. 20), 'in order');
}

# Switched on and off with a backlog.
$scene = 'switch';
scene($scene, ordered => 'false', backoff => "'random 20ms..200ms'", max_in_flight => 4);
{
	sql("SELECT count(retry.enqueue('$scene', '{}', key => format('$scene:%s:%s', i % 10, i), reference => (i % 10)::text, url => '$base/' || CASE WHEN i % 3 = 0 THEN 'flaky/2?fail=500' ELSE 'delay/300' END)) FROM generate_series(1, 1000) i");
	wait_for(sub { received($scene) > 50 }, 'a backlog without order is being worked off');
	sql("UPDATE retry.scene SET ordered = true WHERE name = '$scene'");
	nothing_more('order is switched on');
	my %begun = map { $_->{key} => 1 } received($scene);
	cmp_ok(scalar(keys %begun), '<', 900, 'some have not begun');
	wait_for(sub { scalar(received($scene)) > keys(%begun) + 150 }, 'they go on', timeout => 90);
	my %seen;
	my @wrong;
	foreach my $request (grep { !$begun{ $_->{key} } } received($scene))
	{
		my ($lane, $n) = $request->{key} =~ /:(\d+):(\d+)$/;
		push @wrong, "$n after $seen{$lane}" if $n < ($seen{$lane} // 0);
		$seen{$lane} = $n;
	}
	is("@wrong", '', 'those that have not begun begin in order');
	sql("UPDATE retry.scene SET ordered = false WHERE name = '$scene'");
	all_finished($scene, 'switched off');
	is(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'default/$scene' AND state = 'succeeded'"), 1000, 'all of them');
}

# Switched off while a head waits that is not in memory: nothing but it leads to those
# behind it, whatever becomes of it.
$scene = 'off';
{
	my $switch = sub { return "UPDATE retry.scene SET ordered = $_[0] WHERE name = '$scene'" };
	my $override = sub { return map { "INSERT INTO retry.lane_override (group_name, lane, ordered) VALUES ('default', '$scene $_', $_[0])" } @_[ 1 .. $#_ ] };
	my %ordered_by = (
		scene => sub { return ([ $switch->('true') ], [ $switch->('false') ]) },
		override => sub { return ([ $override->('true', @_) ], ["DELETE FROM retry.lane_override WHERE lane ~ '^$scene '"]) },
		exception => sub { return ([ $switch->('true') ], [ $override->('false', @_) ]) });
	my %done = (asked => sub { sql("SELECT retry.run_now('$_[0]')") }, cancelled => sub { sql("SELECT retry.cancel('$_[0]')") }, retried => sub { });

	scene($scene, ordered => 'false');
	foreach my $by (sort keys %ordered_by)
	{
		# that its time comes is waited for once
		my @what = sort grep { $by eq 'scene' || $_ ne 'retried' } keys %done;
		my ($on, $off) = $ordered_by{$by}->(map { "$by-$_" } @what);
		my (%head, $last);

		sql($_) foreach @$on;
		foreach my $what (@what)
		{
			sql("UPDATE retry.scene SET backoff = '" . ($what eq 'retried' ? 'fixed 8s' : 'fixed 1h') . "' WHERE name = '$scene'");
			$head{$what} = add("$by-$what", 1, '/flaky/1?fail=500');
			$last = add("$by-$what", $_, '/ok') foreach 2, 3;
			wait_state($node, $head{$what}, 'retrying', description => "$by: a head waits");
		}
		$node->restart;
		# nobody looks for what was due before then
		add("other $by", 1, '/ok');
		wait_sql($node, "SELECT EXISTS (SELECT FROM (TABLE retry.checkpoint_a UNION ALL TABLE retry.checkpoint_b) c JOIN retry.tasks t ON t.id = '$last' WHERE low_water > t.due_at AND taken_at > pg_postmaster_start_time())",
			"$by: those behind are past", expected => 't');
		$node->restart;
		sql($_) foreach @$off;
		$done{$_}->($head{$_}) foreach @what;
		foreach my $what (@what)
		{
			wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE reference = '$by-$what' AND state NOT IN ('succeeded', 'cancelled')",
				"$by-$what: those behind it go", expected => '0');
			is(join(' ', sort split / /, numbers("$by-$what")), $what eq 'cancelled' ? '1 2 3' : '1 1 2 3', "$by-$what: each once");
		}
		sql($switch->('false'));
	}
	sql("DELETE FROM retry.lane_override WHERE lane ~ '^$scene '");
}

# One lane of a scene without order is ordered, as an override says.
$scene = 'override';
scene($scene, ordered => 'false', backoff => "'fixed 300ms'");
sql("INSERT INTO retry.lane_override (group_name, lane, ordered) VALUES ('default', 'override a', true)");
sql("SELECT count(retry.enqueue('$scene', '{}', key => format('$scene:%s:%s', l, i), reference => l, url => '$base/' || CASE i WHEN 1 THEN 'flaky/1?fail=500' ELSE 'ok' END)) FROM unnest(ARRAY['a', 'b']) l, generate_series(1, 3) i");
all_finished($scene, 'an override');
is(numbers('a'), '1 1 2 3', 'the lane of an override is ordered');
like(numbers('b'), qr/1$/, 'and others are not');
sql("DELETE FROM retry.lane_override WHERE lane = 'override a'");

# Crashes and more dispatchers, under load.
sub load_goes_on
{
	my ($first, $last, $what) = @_;
	my $before = $receiver->stats->{total};
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	enqueue_many_orders($scene, 100, $first, $last);
	wait_for(sub { $receiver->stats->{total} > $before + 150 }, $what);
	return;
}

# The checkpoint says when a head is due again; it ends after that is written, and then
# comes a crash: those behind it were due before, and are found all the same.
$scene = 'ended';
scene($scene, backoff => "'fixed 2s'");
foreach my $how ('by itself', 'asked for')
{
	my $asked = $how eq 'asked for';
	my $head = add($how, 1, '/flaky/1?fail=500');
	add($how, 2, '/slow-first/60000');
	add($how, 3, '/ok');
	wait_state($node, $head, 'retrying');
	$node->restart;
	add("other $how", 1, '/ok');
	wait_sql($node, 'SELECT EXISTS (SELECT FROM (TABLE retry.checkpoint_a UNION ALL TABLE retry.checkpoint_b) c WHERE taken_at > pg_postmaster_start_time())',
		'a checkpoint is written', expected => 't');
	sql("SELECT retry.run_now('$head')") if $asked;
	wait_for(sub { numbers($how) eq '1 1 2' }, "$how the head ends, and the next begins");
	$node->stop('immediate');
	$node->start;
	all_finished($scene, "killed after the head had ended $how");
	is(numbers($how), '1 1 2 2 3', 'those behind it go on, in order');
	sql("UPDATE retry.scene SET backoff = 'fixed 1h' WHERE name = '$scene'");
}

# One that is committed late lies before the head that waits: it is not forgotten with
# the lane, nor at a restart.
$scene = 'early';
scene($scene, backoff => "'fixed 3s'");
foreach my $how ('forgotten', 'restarted')
{
	my $user = session($node);
	$user->query_safe('BEGIN');
	$user->query_safe("SELECT retry.enqueue('$scene', '{}', key => '$scene:$how:early', reference => '$how', url => '$base/ok')");
	my $head = add($how, 1, '/flaky/1?fail=500');
	wait_state($node, $head, 'retrying', description => "$how: the head waits");
	$user->query_safe('COMMIT');
	$user->quit;
	# a turn of the dispatcher after it
	wait_state($node, add("other $how", 1, '/ok'), 'succeeded');
	$how eq 'forgotten' ? forget_lanes() : $node->restart;
	all_finished($scene, "one that is committed late, $how");
	is(numbers($how), '1 1 early', 'it goes when the head has ended');
}

$scene = 'crash';
scene($scene, backoff => "'random 20ms..200ms'", max_attempts => 20);
foreach my $round (0 .. 4)
{
	load_goes_on($round * 9 + 1, $round * 9 + 9, "round $round: some are sent");
	$node->stop('immediate');
	$node->append_conf('postgresql.conf', 'retry.dispatchers = ' . (1 + $round % 3));
	$node->start;
}
all_finished($scene, 'killed again and again under load');
in_order($scene, 'killed again and again');
$scene = 'handover';
scene($scene, backoff => "'random 20ms..200ms'", max_attempts => 20);
my $n = 1;
foreach my $dispatchers (3, 1, 2, 4, 2)
{
	sql("ALTER SYSTEM SET retry.dispatchers = $dispatchers");
	$node->reload;
	load_goes_on($n, $n + 5, "$dispatchers dispatchers go on");
	$n += 6;
}
all_finished($scene, 'handed over again and again under load');
in_order($scene, 'handed over again and again');

$node->stop;
done_testing();
