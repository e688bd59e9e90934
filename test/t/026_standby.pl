# A standby receives the facts and does nothing with them; promoted, it goes on
# where the primary was, at once and without losing or inventing anything.  And
# transactions that are prepared, survive a crash, and are committed or rolled
# back by a session that never heard of them.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use RetryTest;
use RetryTest::Campaign;
use Test::More;
use Time::HiRes qw(time);

my $conf = "retry.poll_interval = 200ms\n";
my $primary = new_node('primary', streaming => 1, conf => $conf);
my $campaign = RetryTest::Campaign->new($primary);
my $receiver = $campaign->receiver;
my $url = $receiver->url('/ok');

# Prepared transactions

my $prepare = sub {
	my ($key) = @_;

	$primary->safe_psql('postgres',
		"BEGIN; SELECT retry.enqueue('$url', '{}', key => '$key'); PREPARE TRANSACTION '$key'");
	return;
};
my $arrives = sub {
	my ($key, $description) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_for(sub { scalar $receiver->ledger($key) }, $description);
};

$prepare->('prepared-1');
$prepare->('prepared-2');
$prepare->('prepared-3');
enqueue($primary, "'$url', '{}', key => 'after-prepare'");
$arrives->('after-prepare', 'a task enqueued after prepared ones is sent');
$primary->safe_psql('postgres', "COMMIT PREPARED 'prepared-1'");
$arrives->('prepared-1', 'COMMIT PREPARED: the task is sent');
$campaign->kill_server(all => 1);
enqueue($primary, "'$url', '{}', key => 'after-crash'");
$arrives->('after-crash', 'a task enqueued after the crash is sent');
$primary->safe_psql('postgres', "COMMIT PREPARED 'prepared-2'; ROLLBACK PREPARED 'prepared-3'");
$arrives->('prepared-2', 'COMMIT PREPARED after a crash: the task is sent');

# one more crash: the dispatcher has no memory of what it had seen running
$prepare->('prepared-4');
enqueue($primary, "'$url', '{}', key => 'after-4'");
$arrives->('after-4', 'another one is sent');
$campaign->kill_server(all => 1);
$primary->safe_psql('postgres', "COMMIT PREPARED 'prepared-4'");
$arrives->('prepared-4', 'COMMIT PREPARED as the first thing after a crash: the task is sent');
is(scalar $receiver->ledger('prepared-3'), 0, 'ROLLBACK PREPARED: never sent');

# What is due later must be there after the promotion too, and what is prepared.
enqueue($primary, "'$url', '{}', key => 'later', delay => '3 s'");
$prepare->('prepared-5');
$prepare->('prepared-6');

# A standby

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby, 'replay');
$campaign->start(2);
$campaign->await_arrival('the primary sends');
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'retry dispatcher'"),
	'0', 'no dispatcher on the standby');
like($standby->safe_psql('postgres', "SELECT count(*) FROM retry.tasks"), qr/^\d+$/, 'its tasks can be looked at');
is($standby->safe_psql('postgres', "SELECT * FROM retry.health() WHERE status <> 'ok' AND check_name <> 'backlog'"), '', 'and nothing is wrong with it');
wait_sql($standby, "SELECT count(*) > 50 FROM retry.attempt", 'it has received attempts');
$campaign->stop;

# What is prepared after somebody looked at the standby, and before the primary
# last wrote down where it was, is known to the standby by nothing but its number.
$prepare->('prepared-7');
enqueue($primary, "'$url', '{}', key => 'after-7'");
$arrives->('after-7', 'another task is sent');
my ($old) = workers($primary, 'retry dispatcher');
$primary->safe_psql('postgres', "SELECT pg_terminate_backend($old)");
wait_for(sub { my ($new) = workers($primary, 'retry dispatcher'); $new && $new != $old }, 'another dispatcher goes on');

# What was under way when the primary died may be sent again by its successor.
my $last = enqueue($primary, "'" . $receiver->url('/delay/1500') . "', '{}', key => 'under-way'");
$arrives->('under-way', 'a request is under way');
$primary->wait_for_catchup($standby, 'replay');
my $from = time();
$campaign->kill_server(all => 1, stay_down => 1);
my $id = $standby->safe_psql('postgres', "SELECT id FROM retry.task WHERE key = 'under-way'");
is($id, $last, 'the standby has it');
$standby->promote;
$campaign->moment($from, time());
$campaign->{node} = $standby;
wait_for(sub { scalar($receiver->ledger('under-way')) == 2 }, 'promoted: it sends again what was under way');
# before anything is enqueued there, which would make it look
$standby->safe_psql('postgres', "COMMIT PREPARED 'prepared-7'");
$arrives->('prepared-7', 'promoted: COMMIT PREPARED of what came after the standby was looked at');
enqueue($standby, "'$url', '{}', key => 'promoted'");
$arrives->('promoted', 'promoted: it sends what is new');
is($standby->safe_psql('postgres', "SELECT count(*) FROM retry.events WHERE kind = 'server changed'"), '1', 'promoted: there is an event');
$standby->safe_psql('postgres', "COMMIT PREPARED 'prepared-5'; ROLLBACK PREPARED 'prepared-6'");
$arrives->('prepared-5', 'promoted: COMMIT PREPARED of the former primary');
$arrives->('later', 'promoted: what was due later is sent');
$campaign->await_end;
is(scalar $receiver->ledger('prepared-6'), 0, 'promoted: ROLLBACK PREPARED, never sent');

$campaign->note(C => $_)
  foreach 'promoted', 'later', 'under-way', 'after-prepare', 'after-crash', 'after-4', 'after-7', map { "prepared-$_" } 1, 2, 4, 5, 7;
$campaign->note(T => $_) foreach keys %{ $campaign->promises->{C} };
$campaign->note(R => $_) foreach 'prepared-3', 'prepared-6';
$campaign->report;
$standby->stop;
done_testing();
