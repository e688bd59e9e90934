# Executors are shared: whoever waits for one gets it in the order of arrival,
# also from a lane that always has more to do, and from another dispatcher; and
# what an executor could not read it does not take for nothing.
use strict;
use warnings FATAL => 'all';

use RetryTest;
use Test::More;

# Nobody may depend on being woken by the poll.
my $node = new_node('main', conf => <<'CONF');
retry.sql_workers = 1
retry.poll_interval = 10min
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE done (n serial, what text, body jsonb);
CREATE FUNCTION busy(j jsonb) RETURNS void LANGUAGE sql AS $$ SELECT pg_sleep(0.02); INSERT INTO done (what) VALUES ('busy') $$;
CREATE FUNCTION rare(j jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO done (what, body) VALUES ('rare', j) $$;
CREATE FUNCTION hang(j jsonb) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO done (what) VALUES ('hang'); SELECT pg_advisory_xact_lock(4711) $$;
SQL

sub done
{
	my ($what) = @_;

	return "SELECT count(*) FROM done WHERE what = '$what'";
}

# One lane that always has something to do.

$node->safe_psql('postgres', q{SELECT retry.enqueue_many('sql:public.busy', array_fill('{}'::jsonb, '{400}'))});
wait_sql($node, 'SELECT count(*) > 3 FROM done', 'a lane with much to do has the only executor', expected => 't');
$node->safe_psql('postgres', q{SELECT retry.enqueue('sql:public.rare', '{}')});
wait_sql($node, done('rare'), 'another lane has its turn', expected => '1');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM done WHERE what = 'busy'}), '<', 390,
	'before the first one is through');
wait_sql($node, done('busy'), 'and then the first goes on', expected => '400');

# The same with two dispatchers, each with a lane of its own; one that has
# nothing to do any more tells the other.

$node->safe_psql('postgres', 'DELETE FROM done');
$node->append_conf('postgresql.conf', 'retry.dispatchers = 2');
$node->reload;
wait_sql($node, 'SELECT count(*) FROM retry.dispatchers WHERE count = 2', 'two dispatchers share the work',
	expected => '2');
$node->safe_psql('postgres',
	"SELECT count(retry.enqueue('sql:public.rare', '{}', lane => 'l' || i)) FROM generate_series(1, 40) i");
wait_sql($node, done('rare'), 'lanes of both have the only executor in turn', expected => '40');

# An index that is locked just when the executor looks at what was changed.

my $reindex = session($node);
my $leaf = $node->safe_psql('postgres', 'SELECT max(leaf) FROM retry.task');
my $executor = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'retry executor'");

$node->safe_psql('postgres', 'DELETE FROM done');
ok($executor, 'there is an executor');
kill 'STOP', $executor;
$node->safe_psql('postgres', <<'SQL');
BEGIN;
SELECT retry.enqueue('sql:public.rare', '{"is": "old"}', reference => 'locked') AS id \gset
SELECT retry.amend(:'id', '{"payload": {"is": "new"}}');
COMMIT;
SQL
wait_sql($node, "SELECT count(*) FROM retry.running", 'it has been handed over', expected => '1');
$reindex->query_safe(sprintf 'BEGIN; REINDEX INDEX retry.signal_%02d_task', $leaf);
kill 'CONT', $executor;
wait_sql($node, "SELECT count(*) FROM retry.running", 'it is given back', expected => '0');
is($node->safe_psql('postgres', 'SELECT count(*) FROM done'), '0', 'what was changed is not taken for unchanged');
$reindex->query_safe('COMMIT');
$reindex->quit;
wait_sql($node, "SELECT body ->> 'is' FROM done", 'the changed one is called when the index can be read', expected => 'new');

$node->stop;
done_testing();
