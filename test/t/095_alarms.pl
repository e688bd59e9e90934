# Alarms: what fires is told once, in one message, by a task; so is its end; and
# an alarm about a channel does not go through that channel.
use strict;
use warnings FATAL => 'all';

use File::Basename;
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

# messages are to be seen when they are made, not a minute later, and once where there are two dispatchers
my $node = new_node('main', conf => "retry.alarm_interval = '100ms'\nretry.dispatchers = 2\n");
hold_nothing($node);
my $receiver = start_endpoint();
my $url = $receiver->url('');

my $robots;
END { local $?; $robots->kill_kill if $robots }

sub sql { return ask($node, $_[0]) }

# Bodies of the messages of a channel, in the order in which they were made.
sub messages
{
	my ($channel) = @_;
	my $out = sql("SELECT convert_from(body, 'UTF8') FROM retry.tasks WHERE scene = 'shop/alarm-$channel' ORDER BY created_at, id");

	return map { decode_json($_) } split /\n/, $out;
}

# Waits until a channel has so many messages, all of them taken.
sub told
{
	my ($channel, $count, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_sql($node, "SELECT count(*) || ' ' || count(*) FILTER (WHERE state = 'succeeded') FROM retry.tasks WHERE scene = 'shop/alarm-$channel'",
		$description, expected => "$count $count");
	return messages($channel);
}

sql(<<"SQL");
CREATE ROLE app;
CREATE ROLE stranger;
INSERT INTO retry.scene_group (name, owner) VALUES ('shop', 'app');
SET ROLE app;
INSERT INTO retry.scene (group_name, name, url, max_attempts, backoff, breaker_ratio, retry_share) VALUES
	('shop', 'orders', '$url/status/500', 2, 'fixed 10ms', NULL, NULL),
	('shop', 'mail', '$url/status/500', 1, 'fixed 10ms', NULL, NULL),
	('shop', 'well', '$url/ok', 2, 'fixed 10ms', NULL, NULL);
INSERT INTO retry.channel (group_name, name, kind, url, template) VALUES
	('shop', 'ops', 'webhook', '$url/ok/ops', NULL),
	('shop', 'own', 'webhook', '$url/ok/own', '{"what": "{{title}}", "all": {{alarms}}, "lines": "{{text}}"}'),
	('shop', 'chat', 'slack', '$url/ok/chat', NULL),
	('shop', 'deaf', 'webhook', '$url/status/400', NULL);
SQL

# A channel can be tried, by its group's owner.
my $id = sql("SET ROLE app; SELECT retry.test_channel('ops', 'shop')");
is(sql("SELECT retry.wait('$id')"), 'succeeded', 'a test message is taken');
is((messages('ops'))[0]{title}, 'shop on postgres: test is firing', 'and says what it is');
sql_fails($node, "SET ROLE stranger; SELECT retry.test_channel('ops', 'shop')", '42704', 'does not exist', 'by nobody else');

# An outage: two scenes fail, two rules see it, each channel gets one message.
sql(<<'SQL');
SELECT count(retry.enqueue('shop/orders', to_jsonb(i))) FROM generate_series(1, 3) i;
SELECT count(retry.enqueue('shop/mail', to_jsonb(i))) FROM generate_series(1, 2) i;
SELECT count(retry.enqueue('shop/well', to_jsonb(i))) FROM generate_series(1, 9) i;
SQL
wait_sql($node, "SELECT string_agg(n, ' ' ORDER BY n) FROM (SELECT scene || ' ' || dead || ' ' || succeeded AS n FROM retry.stats WHERE per = 'hour' AND scene NOT LIKE '%alarm%') x",
	'all has ended', expected => 'shop/mail 2 0 shop/orders 3 0 shop/well 0 9');
sql(<<'SQL');
SET ROLE app;
INSERT INTO retry.alarm_rule (group_name, name, condition, threshold, min_attempts, channels, collect, quiet, description) VALUES
	('shop', 'deaths', 'dead', 2, 20, '{ops,own,chat}', '0', '0', 'say "sorry" <to> them'),
	('shop', 'failing', 'failure_ratio', 0.5, 4, '{ops,chat}', '0', '0', NULL),
	('shop', 'many', 'dead', 1000, 20, '{ops}', '0', '0', NULL);
SQL
my @ops = told('ops', 2, 'an outage is one message');
my $alarm = $ops[1];
is_deeply([ map { "$_->{rule} $_->{state} $_->{count}" } @{ $alarm->{alarms} } ],
	[ 'deaths firing 2', 'failing firing 1' ], 'of all rules that see it');
is_deeply([ @$alarm{qw(type state severity group database title)} ],
	[ 'retry.alarm', 'firing', 'error', 'shop', 'postgres', 'shop on postgres: 2 alarms are firing' ], 'with what one has to know');
is($alarm->{alarms}[0]{summary}, 'shop/mail 2 dead letters in 5m; shop/orders 3 dead letters in 5m', 'and what is wrong where');
my @own = told('own', 1, 'a template');
is($own[0]{lines}, 'FIRING deaths (error): shop/mail 2 dead letters in 5m; shop/orders 3 dead letters in 5m. say "sorry" <to> them',
	'is filled in, escaped');
is($own[0]{all}[0]{rule}, 'deaths', 'with the array');
my @chat = told('chat', 1, 'slack');
like($chat[0]{text}, qr/^shop on postgres: .*say "sorry" &lt;to&gt; them/s, 'gets its own form');
is(sql("SELECT string_agg(rule || ' ' || told || ' ' || (error IS NULL), ', ' ORDER BY rule) FROM retry.alarms"),
	'deaths true true, failing true true', 'retry.alarms shows what fires');
is(sql("SET ROLE stranger; SELECT count(*) FROM retry.alarms"), 0, 'not to others');
is(sql("SELECT string_agg(DISTINCT lane, ' ') FROM retry.tasks WHERE scene = 'shop/alarm-ops'"),
	sql("SELECT string_agg(DISTINCT lane, ' ') FROM retry.tasks WHERE scene = 'shop/alarm-ops' AND enqueued_by = 'app'::regrole"),
	'messages are the owner\'s tasks');
isnt(sql("SELECT min(lane) FROM retry.tasks WHERE scene = 'shop/alarm-ops'"),
	sql("SELECT min(lane) FROM retry.tasks WHERE scene = 'shop/alarm-chat'"), 'each channel has a lane');

# More of the same: a scene that joins is news, more dead letters are not.
sql("SELECT retry.enqueue('shop/orders', '{}')");
wait_sql($node, "SELECT details::text LIKE '%4 dead%' FROM retry.alarms WHERE rule = 'deaths'", 'more of the same is seen');
sql("UPDATE retry.scene SET url = '$url/status/500' WHERE name = 'well'; SELECT count(retry.enqueue('shop/well', '{}')) FROM generate_series(1, 2)");
@own = told('own', 2, 'and told when another scene joins');
is($own[1]{all}[0]{state} . ' ' . $own[1]{all}[0]{count}, 'still firing 3', 'as such');

# Its end is told, to those who want it.
sql("UPDATE retry.alarm_rule SET tell_recovery = false WHERE name = 'failing'; UPDATE retry.alarm_rule SET active = false");
@own = told('own', 3, 'the end is told');
is($own[2]{all}[0]{state}, 'recovered', 'as the end');
is((told('ops', 4, 'to all channels'))[3]{alarms}[1], undef, 'but for rules that do not say so');
is(sql("SELECT count(*) FROM retry.alarms"), 0, 'nothing fires');
is(sql("SELECT string_agg(concat_ws(' ', kind, group_name, detail), E'\n' ORDER BY at, detail COLLATE \"C\") FROM retry.events WHERE kind LIKE 'alarm %'"),
	"alarm fires shop deaths (dead): shop/mail 2 dead letters in 5m; shop/orders 3 dead letters in 5m\n"
	. "alarm fires shop failing (failure_ratio): shop/orders 100% of 6 attempts failed in 5m\n"
	. "alarm over shop deaths (dead)\nalarm over shop failing (failure_ratio)", 'both are events, once each');
is(sql("SET ROLE stranger; SELECT count(*) FROM retry.events WHERE kind LIKE 'alarm %'"), 0, 'not to others');

# A restart tells nothing anew.
sql("UPDATE retry.alarm_rule SET active = true WHERE name = 'deaths'");
told('own', 4, 'the same rule fires again');
$node->restart;
sql("UPDATE retry.alarm_rule SET active = false WHERE name = 'deaths'");
told('own', 5, 'and over a restart is told nothing but its end');

# A channel that fails: it is told through others, and not about the message itself.
sql(<<'SQL');
INSERT INTO retry.alarm_rule (group_name, name, condition, channels, collect, quiet) VALUES
	('shop', 'channels', 'channel', '{deaf,own}', '0', '0'),
	('shop', 'any', 'dead', '{deaf}', '0', '0');
SQL
@own = told('own', 6, 'a channel that fails is told of');
is($own[5]{all}[0]{rule} . ' ' . $own[5]{all}[0]{subjects}[0]{subject}, 'channels deaf', 'through the other');
is(sql("SELECT count(*) FROM retry.tasks WHERE scene = 'shop/alarm-deaf'"), 1, 'not through itself');
is(sql("SELECT 'shop/alarm-deaf' = ANY (subjects) FROM retry.alarms WHERE rule = 'any'"), 'f', 'and no rule looks at its scene');

# Robots and pagers: signed as each wants it, afresh for every attempt.
my $secret = 'SECabc+/"x=';
my $dir = PostgreSQL::Test::Utils::tempdir;
$robots = IPC::Run::start([ 'python3', dirname(__FILE__) . '/../perl/RetryTest/chat_receiver.py', "$dir/robots", "$dir/ledger", $secret ]);
wait_for(sub { -s "$dir/robots" }, 'robots listen');
my $robot = 'http://127.0.0.1:' . slurp_file("$dir/robots");
my @robots = qw(ding lark pager wework);
sql(<<"SQL");
SET ROLE app;
INSERT INTO retry.channel (group_name, name, kind, url, secret) VALUES
	('shop', 'ding', 'dingtalk', '$robot/robot/send?access_token=t0ken', 'robot'),
	('shop', 'lark', 'feishu', '$robot/hook', 'robot'),
	('shop', 'wework', 'wecom', '$robot/wecom?key=k', NULL),
	('shop', 'pager', 'pagerduty', '$robot/enqueue', 'robot');
SQL
my %test = map { $_ => sql("SET ROLE app; SELECT retry.test_channel('$_', 'shop')") } @robots;
wait_state($node, $test{wework}, 'succeeded', description => 'one without a secret is told');
is(sql("SELECT string_agg(DISTINCT held_reason, ' ') FROM retry.tasks WHERE id IN ('$test{ding}', '$test{lark}', '$test{pager}')"),
	'missing secret', 'the others wait for theirs');

# What is seen only where delivery runs: nothing of a lane may be sent, and health says what the others wait for.
sql(<<"SQL");
SET ROLE app;
INSERT INTO retry.scene (group_name, name, targets, route, max_attempts, backoff) VALUES
	('shop', 'lost', '{$url/status/503}', 'first', 1000, 'fixed 10ms');
INSERT INTO retry.alarm_rule (group_name, name, scene, condition, age) VALUES
	('shop', 'no-target', 'lost', 'no_target', DEFAULT), ('shop', 'late', 'lost', 'oldest_due', '1 s'), ('shop', 'ill', NULL, 'health', DEFAULT);
SELECT retry.enqueue('shop/lost', '{}');
SQL
wait_sql($node, "SELECT string_agg(rule || ' ' || subjects[1], ', ' ORDER BY rule) FROM retry.alarms WHERE rule IN ('no-target', 'late')",
	'a lane without a target, and what it keeps waiting', expected => 'late shop/lost, no-target lost');
wait_sql($node, "SELECT 'secrets' = ANY (subjects) FROM retry.alarms WHERE rule = 'ill'", 'a row of health that is not ok');
sql("SET ROLE app; SELECT retry.set_secret('robot', '$secret', 'shop')");
wait_sql($node, "SELECT count(*) FROM retry.alarms WHERE rule = 'ill' AND 'secrets' = ANY (subjects)", 'until it is', expected => 0);
wait_state($node, $test{$_}, 'succeeded', description => "$_ takes what is signed") foreach @robots;
is(sql("SELECT count(*) FROM retry.tasks t WHERE t.id = '$test{pager}' AND convert_from(t.body, 'UTF8') LIKE '%routing_key%'"), 0,
	'the key is in no task');
$id = enqueue($node, "'shop/alarm-pager', '{}', url => '" . $receiver->url('/ok') . "'");
wait_sql($node, "SELECT last_error FROM retry.tasks WHERE id = '$id'", 'and goes nowhere else',
	expected => q(its scene's headers hold secrets, and its URL is not of the scene's origin));

sql("INSERT INTO retry.alarm_rule (group_name, name, condition, severity, channels, collect, quiet) VALUES
	('shop', 'loud', 'dead', 'critical', '{ding,lark,pager,wework}', '0', '0')");
told($_, 2, "$_ is told") foreach grep { $_ ne 'pager' } @robots;
sql("UPDATE retry.alarm_rule SET active = false WHERE name = 'loud'");
told($_, 3, "and $_ of the end") foreach grep { $_ ne 'pager' } @robots;
wait_sql($node, "SELECT string_agg(state::text, ' ') FROM retry.tasks WHERE scene = 'shop/alarm-pager' AND id <> '$id'", 'the pager too',
	expected => 'succeeded succeeded succeeded');
my @ledger = map { decode_json($_) } split /\n/, slurp_file("$dir/ledger");
is(scalar(grep { !$_->{good} } @ledger), 0, 'all of it was signed well');
my @events = map { "$_->{body}{event_action} $_->{body}{dedup_key}" } grep { $_->{path} eq '/enqueue' } @ledger;
is_deeply([ @events[ 1, 2 ] ], [ 'trigger retry/postgres/shop/loud', 'resolve retry/postgres/shop/loud' ], 'the pager resolves what it was told');

sql("SET ROLE app; SELECT retry.set_secret('robot', 'another', 'shop', overlap => '0')");
foreach (qw(ding lark pager))
{
	$id = sql("SET ROLE app; SELECT retry.test_channel('$_', 'shop')");
	wait_state($node, $id, 'dead', description => "$_ refuses a wrong signature, and it is seen");
}

# A role may not have its messages sent with the rights of another.
sql_fails($node, "INSERT INTO retry.channel (name, kind, url) VALUES ('x', 'webhook', 'sql:pg_catalog.now')", '23514', 'invalid value', 'functions are no channels');
sql_fails($node, "SET ROLE stranger; INSERT INTO retry.channel (group_name, name, kind, url) VALUES ('shop', 'x', 'webhook', '$url/ok')",
	'42501', 'row-level security', 'nor has a stranger any');
is(sql("SELECT count(*) FROM retry.scene WHERE name = 'alarm-x'"), 0, 'and nothing stays of it');
sql("UPDATE retry.scene SET archived = true WHERE name = 'alarm-own'; UPDATE retry.alarm_rule SET active = false");
wait_sql($node, "SELECT count(*) FROM retry.events WHERE kind = 'alarm not told' AND detail LIKE '%archived%'", 'there is an event', expected => '1');
wait_sql($node, "SELECT error LIKE '%archived%' FROM retry.alarm_state s JOIN retry.alarm_rule a ON a.id = s.rule_id WHERE a.name = 'channels'",
	'a message that cannot be made is noted');

# Nothing to watch: nobody looks.
sql("SELECT retry.drop_alarm_rule('shop', name) FROM retry.alarm_rule");
wait_sql($node, "SELECT status || ': ' || detail FROM retry.health() WHERE check_name = 'alarms'", 'health says so',
	expected => 'ok: there are no rules for alarms');

$node->stop;
done_testing();
