# Tables with columns that this library does not know: of a later version while
# sessions and workers still have the old library, of an administrator, and what
# is left of them when they are dropped.  Everything goes on as before, in
# sessions that were open and in new ones, and what is stored gets its defaults.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => "retry.poll_interval = 200ms\n");
my $receiver = start_endpoint();
my $url = $receiver->url('');
$url =~ s{/$}{};
my $open;    # a session that is there from beginning to end

my $tables = "pg_class WHERE relnamespace = 'retry'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition";

# A statement in the open session and, where it may be done twice, in a new one.
sub here_and_there
{
	my ($sql) = @_;

	$open->query_safe($sql);
	$node->safe_psql('postgres', $sql);
	return;
}

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# One of everything that reads or stores rows past the executor.
sub everything
{
	my ($round, $when) = @_;
	my %id;

	here_and_there("SELECT retry.set_secret('key', 'whsec_' || encode(sha256(random()::text::bytea), 'base64'), 'g', overlap => '" . ($round % 2) . " h')");
	sql("UPDATE retry.scene SET max_attempts = 3, secret = 'key', headers = '{\"X\": \"{{secret:key}}\"}' WHERE name = 'fine'");
	sql("INSERT INTO retry.lane_override (group_name, lane, paused) VALUES ('g', 'lane$round', true)");
	$id{plain} = $open->query_safe("SELECT retry.enqueue('$url/ok', '{}', key => 'plain$round')");
	$id{scene} = sql("SELECT retry.enqueue('g/fine', '{}', key => 'scene$round')");
	$id{many} = sql("SELECT id FROM retry.enqueue_many('g/fine', ARRAY['{}', '{}']::jsonb[], keys => ARRAY['m1$round', 'm2$round']) AS id LIMIT 1");
	$id{dead} = sql("SELECT retry.enqueue('g/dies', '{}', key => 'dead$round')");
	$id{ordered} = sql("SELECT retry.enqueue('g/ordered', '{}', reference => 'r$round', url => '$url/status/500')");
	$id{gone} = sql("SELECT retry.enqueue('g/fine', '{}', url => '$url/status/410?$round')");
	$id{told} = $open->query_safe("SELECT retry.enqueue('$url/ok', '{}', key => 'told$round', on_success => 'g/fine')");
	$id{later} = sql("SELECT retry.enqueue('$url/ok', '{}', key => 'later$round', delay => '1 year')");
	$id{cancelled} = sql("SELECT retry.enqueue('$url/ok', '{}', delay => '1 h')");
	here_and_there("SELECT retry.enqueue('g/all', '{}')");
	sql("SELECT retry.schedule('s$round', '0 0 1 1 *', '$url/ok'); SELECT retry.run_schedules('now'::timestamptz + '2 years')");
	is(sql("SELECT retry.cancel('$id{cancelled}')"), 't', "$when: cancelled");
	is(sql("SELECT retry.amend('$id{later}', '{\"max_attempts\": 7}')"), 't', "$when: amended");
	sql("SELECT retry.run_now('$id{later}')");
	wait_state($node, $id{$_}, 'succeeded', description => "$when: $_") foreach qw(plain scene many told later);
	wait_state($node, $id{$_}, 'dead', description => "$when: $_") foreach qw(dead ordered);
	wait_sql($node, "SELECT count(*) FROM retry.tasks WHERE id = '$id{gone}' AND state = 'dead'", "$when: gone", expected => 1);
	wait_sql($node, "SELECT count(*) FROM retry.disabled_url WHERE url LIKE '%410?$round'", "$when: its URL is disabled", expected => 1);
	is(sql("SELECT retry.step_over('$id{ordered}')"), 't', "$when: stepped over");
	sql("UPDATE retry.scene SET url = '$url/ok' WHERE name = 'dies'");
	my $again = sql("SELECT retry.replay('$id{dead}')");
	wait_state($node, $again, 'succeeded', description => "$when: replayed");
	is($open->query_safe("SELECT http_status FROM retry.call('$url/ok')"), 200, "$when: called");
	sql("UPDATE retry.scene SET url = '$url/status/500' WHERE name = 'dies'");
	wait_sql($node, 'SELECT count(*) FROM retry.tasks WHERE state IN (\'pending\', \'retrying\', \'running\')', "$when: nothing is left",
		expected => 0);
	sql('CALL retry.maintain()');
	return;
}

sql(<<SQL);
INSERT INTO retry.scene_group (name) VALUES ('g');
INSERT INTO retry.scene (group_name, name, url, backoff, max_attempts, ordered, lane_by, dead_head, breaker_ratio, retry_share) VALUES
	('g', 'fine', '$url/ok', 'fixed 10ms', 2, false, NULL, 'skip', NULL, NULL),
	('g', 'dies', '$url/status/500', 'fixed 10ms', 1, false, NULL, 'skip', NULL, NULL),
	('g', 'ordered', '$url/ok', 'fixed 10ms', 1, true, 'reference', 'block', NULL, NULL);
INSERT INTO retry.scene (group_name, name, route, targets) VALUES ('g', 'all', 'all', ARRAY['$url/ok/1', '$url/ok/2']);
SQL
$open = session($node);
everything(1, 'before');

# A leaf's rows are moved whole: one that is due in far future, stored before.
sql("DO \$\$ DECLARE t text; BEGIN FOR t IN SELECT oid::regclass FROM $tables LOOP"
	  . " EXECUTE format('ALTER TABLE %s ADD COLUMN later1 int NOT NULL DEFAULT 7, ADD COLUMN later2 text, ADD COLUMN later3 timestamptz NOT NULL DEFAULT clock_timestamp()', t);"
	  . ' END LOOP; END $$');
everything(2, 'with more columns');
$node->restart;
$open->quit;
$open = session($node);
everything(3, 'with more columns, after a crash');

foreach my $table (qw(task attempt signal dead_letter dead_head dead_head_passed secret disabled_url event audit_entry))
{
	is(sql("SELECT count(*) FILTER (WHERE later1 IS DISTINCT FROM 7 OR later2 IS NOT NULL OR later3 IS NULL) || ' of ' || (count(*) > 0) FROM retry.$table"),
		'0 of true', "$table: rows have the columns' defaults");
}

# One that cannot be stored says so, and nothing is half-stored.
sql('ALTER TABLE retry.task ADD COLUMN needed int NOT NULL DEFAULT 1; ALTER TABLE retry.task ALTER COLUMN needed DROP DEFAULT');
sql_fails($node, "SELECT retry.enqueue('$url/ok')", '23502', 'column "needed" of table "retry.task_[0-9]+" must not be null.*HINT:  Give it a default',
	'a column that must have a value and has no default');
sql('ALTER TABLE retry.task DROP COLUMN needed');
sql("ALTER TABLE retry.secret ADD COLUMN computed int GENERATED ALWAYS AS (1) STORED");
sql_fails($node, "SELECT retry.set_secret('other', 'value', 'g')", '0A000', 'column "computed" of table "retry.secret" is generated', 'a generated column');
sql('ALTER TABLE retry.secret DROP COLUMN computed');

sql("DO \$\$ DECLARE t text; BEGIN FOR t IN SELECT oid::regclass FROM $tables LOOP"
	  . " EXECUTE format('ALTER TABLE %s DROP COLUMN later1, DROP COLUMN later2, DROP COLUMN later3', t);"
	  . ' END LOOP; END $$');
everything(4, 'with columns that were dropped');
$node->restart;
$open->quit;
$open = session($node);
everything(5, 'with columns that were dropped, after a restart');
$open->quit;

unlike(slurp_file($node->logfile), qr/was terminated by signal|PANIC|TRAP:|stack smashing/, 'nothing crashed');
my @errors = grep { !/"(needed|computed)"/ } slurp_file($node->logfile) =~ /^.*ERROR:.*$/mg;
is_deeply(\@errors, [], 'nor was there an error but those that were asked for');

done_testing();
