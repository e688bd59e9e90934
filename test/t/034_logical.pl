# Logical replication of the store, of all its tables: what arrives is history
# and a reserve, sent by nobody but its origin until retry.adopt().  Nothing that
# is true of one installation only takes effect in another, and being published
# is in the way of nothing that sessions and workers of the origin do.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $receiver = start_endpoint();
my $url = $receiver->url('');
my $conf = "wal_level = logical\nretry.poll_interval = 200ms\n";
my $origin = new_node('origin', streaming => 1, conf => $conf);
my $copy = new_node('copy', streaming => 1, conf => $conf);

sub sent
{
	my @got = $receiver->ledger($_[0]);
	return scalar @got;
}

# By OID the databases are the same, and by number the origin's transactions
# come after all of the copy's: neither may be relied upon.
is($copy->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = 'postgres'"),
	$origin->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = 'postgres'"), 'databases with one number');
$origin->safe_psql('postgres', 'DO $$ BEGIN FOR i IN 1 .. 5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');

is($origin->safe_psql('postgres', <<'SQL'), '', 'whatever rows are deleted from can be published');
SELECT c.relname FROM pg_class c
WHERE relnamespace = 'retry'::regnamespace AND relkind = 'r' AND relreplident = 'd'
	AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
	AND relname NOT IN ('installation', 'place', 'checkpoint_a', 'checkpoint_b')
SQL

hold_nothing($origin);
$origin->safe_psql('postgres', <<SQL);
INSERT INTO retry.scene (name, url, backoff, max_attempts) VALUES
	('later', '$url/status/500', 'fixed 1h', 5), ('dies', '$url/status/500', 'fixed 10ms', 2),
	('soon', '$url/status/500', 'fixed 50ms', 100000);
CREATE PUBLICATION everything FOR ALL TABLES;
SQL
my %id;
$id{before} = enqueue($origin, "'later', '{}', key => 'before'");
wait_state($origin, $id{before}, 'retrying');
$copy->safe_psql('postgres',
	q{CREATE SUBSCRIPTION retry_copy CONNECTION $$} . $origin->connstr('postgres') . q{$$ PUBLICATION everything});
$copy->wait_for_subscription_sync($origin, 'retry_copy', 'postgres');

# All that the origin does with its tables, while they are published.
$id{done} = enqueue($origin, "'$url/ok', '{}', key => 'done'");
$id{later} = enqueue($origin, "'later', '{}', key => 'later'");
$id{soon} = enqueue($origin, "'soon', '{}', key => 'soon'");
$id{dead} = enqueue($origin, "'dies', '{}', key => 'dead'");
$id{delayed} = enqueue($origin, "'$url/ok', '{}', key => 'delayed', delay => '1 h'");
$id{cancelled} = enqueue($origin, "'$url/ok', '{}', key => 'cancelled', delay => '1 h'");
$id{hurried} = enqueue($origin, "'$url/ok', '{}', key => 'hurried', delay => '1 year'");
wait_state($origin, $id{ $_->[0] }, $_->[1])
  foreach [ done => 'succeeded' ], [ later => 'retrying' ], [ soon => 'retrying' ], [ dead => 'dead' ];
$origin->safe_psql('postgres', <<SQL);
SELECT retry.cancel('$id{cancelled}'), retry.run_now('$id{hurried}');
SELECT retry.schedule('yearly', '0 0 1 1 *', '$url/ok/yearly');
SELECT retry.schedule('yearly', '0 0 1 1 *', '$url/ok/yearly/2');
SELECT retry.disable_url('default', '$url/gone');
SELECT retry.enable_url('default', '$url/gone');
UPDATE retry.scene SET max_attempts = 99999 WHERE name = 'soon';
INSERT INTO retry.dead_head_passed SELECT gen_random_uuid(), '2000-01-01';
INSERT INTO retry.event (at, kind) SELECT '2000-01-01', 'x' WHERE false;
SELECT retry.purge('2000-01-01');
CALL retry.maintain();
SELECT retry.purge('2000-01-02');
CALL retry.maintain();
SELECT retry.adopt();
SQL
wait_state($origin, $id{hurried}, 'succeeded');
unlike(slurp_file($origin->logfile), qr/replica identity/, 'what is published can be deleted from');
$origin->wait_for_catchup('retry_copy', 'replay', $origin->lsn('insert'));
wait_sql($copy, "SELECT state FROM retry.tasks WHERE id = '$id{hurried}'", 'the copy has what happened', expected => 'succeeded');

# The copy.
is($copy->safe_psql('postgres', "SELECT string_agg(key || ' ' || state, ', ' ORDER BY key) FROM retry.tasks"),
	'before retrying, cancelled cancelled, dead dead, delayed pending, done succeeded, hurried succeeded, later retrying, soon retrying',
	'it has them as they are');
is($copy->safe_psql('postgres', 'SELECT count(*) FROM retry.installation WHERE boundary::text <> \'3:3:\''), '0', 'an adoption there is none here');
is($copy->safe_psql('postgres', 'SELECT count(*) FROM retry.purge_request'), '0', 'nor a request to purge');
is($copy->safe_psql('postgres', "SELECT count(*) FROM retry.place WHERE directory <> current_setting('data_directory')"), '0', 'nor a place');
is($copy->safe_psql('postgres', 'SELECT held_reason FROM retry.schedules'), 'not adopted', 'a schedule that was changed is held');
is($copy->safe_psql('postgres', "SELECT string_agg(DISTINCT held_reason, ',') FROM retry.tasks WHERE state IN ('pending', 'retrying')"),
	'not adopted', 'so are its tasks');
my $seen = sent('soon');
my $new = enqueue($copy, "'$url/ok', '{}', key => 'new'");
wait_state($copy, $new, 'succeeded', description => 'a new task of the copy is sent');
$copy->safe_psql('postgres', 'CALL retry.maintain()');
wait_for(sub { sent('soon') > $seen }, 'the origin sends its own');
$copy->restart;
$new = enqueue($copy, "'$url/ok', '{}', key => 'newer'");
wait_state($copy, $new, 'succeeded', description => 'after a restart too');
my ($last, $again) = (0, 0);
foreach my $request ($receiver->ledger('soon'))
{
	$again++ if $request->{attempt} <= $last;
	$last = $request->{attempt};
}
is($again, 0, 'each attempt was made once');
is(sent($_->[0]), $_->[1], "$_->[0] was sent $_->[1] times") foreach [ before => 1 ], [ later => 1 ], [ delayed => 0 ], [ hurried => 1 ];

# The origin is lost, and the copy goes on where it was.
$origin->stop('immediate');
$copy->safe_psql('postgres', "ALTER SUBSCRIPTION retry_copy DISABLE; UPDATE retry.scene SET url = '$url/ok' WHERE url IS NOT NULL");
$copy->safe_psql('postgres', "SELECT retry.run_now('$id{$_}')") foreach qw(before later delayed);
$copy->safe_psql('postgres', 'SELECT retry.adopt()');
wait_state($copy, $id{$_}, 'succeeded', description => "adopted, $_ is sent") foreach qw(before later delayed soon);
is($copy->safe_psql('postgres', "SELECT string_agg(attempt_no || ' ' || outcome, ', ' ORDER BY attempt_no) FROM retry.attempts WHERE task_id = '$id{later}'"),
	'1 failed, 2 succeeded', 'attempts go on counting');
is(sent($_), 1, "$_ is not sent again") foreach qw(done hurried);
$copy->stop;
done_testing();
