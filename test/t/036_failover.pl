# A synchronous standby is promoted under load: the sessions go over to it and
# on, nothing that committed is lost, nothing that did not is sent, and what the
# primary left undone is delivered by itself.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Campaign;
use Test::More;
use Time::HiRes qw(time usleep);

# What sessions connect to: whichever of the servers is the primary.
package RetryTest::Whichever
{
	sub new { my ($class, @nodes) = @_; return bless { nodes => \@nodes }, $class; }

	sub connstr
	{
		my ($self, $dbname) = @_;
		return sprintf "host='%s' port='%s' dbname=%s target_session_attrs=read-write",
		  join(',', map { $_->host } @{ $self->{nodes} }), join(',', map { $_->port } @{ $self->{nodes} }), $dbname;
	}
}

my $primary = new_node('primary', streaming => 1, fsync => 1, conf => "retry.poll_interval = 200ms\n");
my $standby = PostgreSQL::Test::Cluster->new('standby');

$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->append_conf('postgresql.conf', "synchronous_standby_names = 'standby'");
$primary->reload;
wait_sql($primary, "SELECT sync_state FROM pg_stat_replication", 'the standby is synchronous', expected => 'sync');

# one attempt is enough for each, so each that comes twice was lost on the way
my $campaign = RetryTest::Campaign->new($primary, receiver => [ '--delay-ms', 3 ]);
my $receiver = $campaign->receiver;
$campaign->{node} = RetryTest::Whichever->new($primary, $standby);
$campaign->start(3);
$campaign->{node} = $primary;
$campaign->await_arrival('the primary sends');
wait_sql($standby, 'SELECT count(*) > 100 FROM retry.attempt', 'it is under load');

# In pieces that have been delivered, under way, and due while nobody is there.
enqueue($primary, "'" . $receiver->url('/delay/1500') . "', '{}', key => 'under-way'");
wait_for(sub { scalar $receiver->ledger('under-way') }, 'a request is under way');
enqueue($primary, "'" . $receiver->url('/ok') . "', '{}', key => 'due', delay => '2 s'");

my $from = time();
$campaign->kill_server(all => 1, stay_down => 1);

# a standby is no sender, however long its primary is gone and whatever is due
wait_sql($standby, "SELECT due_at < clock_timestamp() FROM retry.tasks WHERE key = 'due'", 'something is due');
$standby->restart;
my $arrived = $campaign->arrived;
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'retry%'"),
	'0', 'no worker runs on the standby');
is($campaign->arrived, $arrived, 'it sends nothing');
is(scalar $receiver->ledger('due'), 0, '... that is due either');

# The number that the primary left in its folder is another process' by now.
append_to_file($primary->data_dir . '/postmaster.pid', "$$\n" . $primary->data_dir . "\n");
my $promoted = time();
$standby->psql('postgres', 'SELECT pg_promote(false)');
wait_for(sub { $campaign->arrived > $arrived }, 'promoted: it sends');
diag sprintf '%.0f ms from the promotion to the first request', (time() - $promoted) * 1000;
$campaign->moment($from, time());
$campaign->{node} = $standby;
$campaign->await_arrival('and goes on');
wait_sql($standby, "SELECT count(*) > 0 FROM retry.task WHERE retry.task_time(id) > now() - interval '1 s'",
	'sessions have gone over to it');
wait_for(sub { scalar($receiver->ledger('under-way')) == 2 }, 'what was under way is sent again');
$campaign->stop;
$campaign->await_end;
is(scalar $receiver->ledger('due'), 1, 'what became due meanwhile is sent');
is($standby->safe_psql('postgres', "SELECT status FROM retry.health() WHERE check_name = 'foreign_rows'"), 'ok', 'it is no copy');
$campaign->note($_->[0] => $_->[1]) foreach map { [ C => $_ ], [ T => $_ ] } qw(under-way due);
$campaign->report;
cmp_ok(scalar keys %{ $campaign->promises->{C} }, '>', 100, 'there was a load');
$standby->stop;
done_testing();
