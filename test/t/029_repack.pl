# pg_repack builds a table anew beside the one that is in use, is told by a
# trigger of what happens meanwhile, and puts the new one in its place.  Rows that
# are stored past the executor must be among what it is told.  And whoever else
# has a trigger on a table hears of its rows, as the owner of the tables.
use strict;
use warnings FATAL => 'all';

use POSIX ();
use PostgreSQL::Test::Utils;
use RetryTest;
use Test::More;

my $node = new_node('main', conf => "retry.poll_interval = 200ms\n");
my $receiver = start_endpoint();
my $url = $receiver->url('');
$url =~ s{/$}{};
my $repack = $node->config_data('--bindir') . '/pg_repack';

sub sql
{
	return ask($node, $_[0]);
}

# ---- a trigger of somebody else

my $id = sql("SELECT retry.enqueue('$url/ok', '{}', key => 'first')");
wait_state($node, $id, 'succeeded');
my $nn = sql("SELECT to_char(leaf, 'FM00') FROM retry.task WHERE id = '$id'");

sql("CREATE ROLE app; SELECT retry.grant('app', 'default')");
sql('CREATE TABLE heard (name text, role text)');
sql("CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.heard VALUES (TG_TABLE_NAME, current_user); RETURN NULL; END'");
sql("CREATE TRIGGER hear AFTER INSERT ON retry.$_ FOR EACH ROW EXECUTE FUNCTION hear()") foreach "task_$nn", "attempt_$nn", 'secret';
sql("CREATE TRIGGER unheard BEFORE INSERT ON retry.task_$nn FOR EACH ROW EXECUTE FUNCTION hear()");
$id = $node->safe_psql('postgres', "SET ROLE app; SELECT retry.enqueue('$url/ok', '{}')");
wait_state($node, $id, 'succeeded', description => 'a task of a role that may not do what the trigger does');
is(sql('SELECT name, role, count(*) FROM heard, LATERAL (SELECT session_user) s WHERE role = s.session_user GROUP BY 1, 2 ORDER BY 1'),
	join("\n", map { "$_|" . sql('SELECT session_user') . '|1' } "attempt_$nn", "task_$nn"), 'who has a trigger hears of the rows');
is(sql("SELECT count(*) FROM retry.enqueue_many('$url/ok', (SELECT array_agg('{}'::jsonb) FROM generate_series(1, 1000)))"), '1000', 'many');
is(sql("SELECT count(*) FROM heard WHERE name = 'task_$nn'"), '1001', '... of each of many');
sql('TRUNCATE heard');
sql_fails($node, "SELECT retry.set_secret('key', 'x')", '55006', qr/trigger that is not its own: "hear".*Try again/s, 'secrets are not changed past a trigger');

# Nothing that it sets or defers is left, for it may run in a worker, which may do everything.
sql('CREATE TABLE deeds (n int)');
sql("CREATE FUNCTION deed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.heard VALUES (TG_TABLE_NAME, current_user); RETURN NULL; END'");
sql('CREATE CONSTRAINT TRIGGER deed AFTER INSERT ON deeds DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION deed()');
sql("CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.deeds VALUES (1); RETURN NULL; END'");
sql("CREATE FUNCTION set() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''statement_timeout'', ''7min'', false); RETURN NULL; END'");
sql("CREATE TRIGGER set AFTER INSERT ON retry.task_$nn FOR EACH ROW EXECUTE FUNCTION set()");
is($node->safe_psql('postgres', "SELECT retry.enqueue('$url/ok', '{}') \\g /dev/null\nSHOW statement_timeout"), '0', 'what a trigger sets');
sql("CREATE TRIGGER leave AFTER INSERT ON retry.task_$nn FOR EACH ROW EXECUTE FUNCTION leave()");
sql_fails($node, "SELECT retry.enqueue('$url/ok', '{}')", '42501', qr/cannot fire deferred trigger/, 'what it defers');
sql("DROP TRIGGER leave ON retry.task_$nn; DROP TRIGGER set ON retry.task_$nn; TRUNCATE heard");
sql("CREATE CONSTRAINT TRIGGER deed AFTER INSERT ON retry.task_$nn DEFERRABLE FOR EACH ROW EXECUTE FUNCTION deed()");
sql("BEGIN; SET CONSTRAINTS ALL DEFERRED; SELECT retry.enqueue('$url/ok', '{}'); COMMIT");
is(sql("SELECT count(*) FROM heard WHERE name = 'task_$nn'"), '1', 'one that can be deferred is not fired, only the other');
sql("DROP TRIGGER deed ON retry.task_$nn");

# What cannot be recorded for it is held, and recorded when it can be.
sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.duration_us > 400000 THEN RAISE ''refused''; END IF; RETURN NULL; END'");
sql("CREATE TRIGGER refuse AFTER INSERT ON retry.attempt_$nn FOR EACH ROW EXECUTE FUNCTION refuse()");
$id = sql("SELECT retry.enqueue('$url/delay/500', '{}', key => 'refused')");
wait_for(sub { slurp_file($node->logfile) =~ /attempt 1 of task $id cannot be recorded: refused/ }, 'a trigger that fails');
wait_state($node, sql("SELECT retry.enqueue('$url/ok', '{}')"), 'succeeded', description => 'holds no other task');
is(sql("SELECT state FROM retry.tasks WHERE id = '$id'"), 'running', 'but its own');
sql("DROP TRIGGER refuse ON retry.attempt_$nn");
wait_state($node, $id, 'succeeded', description => 'which goes on without it');
is(scalar(grep { $_->{key} =~ /refused/ } $receiver->ledger), 1, 'and was sent once');

# ---- pg_repack

SKIP:
{
	skip 'pg_repack is not installed', 1 unless -x $repack;

	sql("DROP TRIGGER hear ON retry.$_") foreach "task_$nn", "attempt_$nn", 'secret';
	sql("DROP TRIGGER unheard ON retry.task_$nn");
	sql('CREATE EXTENSION pg_repack');
	foreach my $table ("task_$nn", "attempt_$nn")
	{
		my $file = sql("SELECT relfilenode FROM pg_class WHERE oid = 'retry.$table'::regclass");
		my $old = $node->background_psql('postgres');
		my $log = "$PostgreSQL::Test::Utils::tmp_check/$table.log";

		# it does not put the new table in place while an older transaction is there
		$old->query_safe('BEGIN; SELECT pg_current_xact_id()');
		my $pid = fork() // die "cannot fork: $!";
		if ($pid == 0)
		{
			open(STDOUT, '>', $log);
			open(STDERR, '>&', \*STDOUT);
			exec($repack, '-h', $node->host, '-p', $node->port, '-d', 'postgres', '-t', "retry.$table", '-D')
			  or POSIX::_exit(127);
		}
		wait_sql($node, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'retry.$table'::regclass AND tgname = 'repack_trigger'",
			"$table: pg_repack listens", expected => '1');
		my @ids = map { sql("SELECT retry.enqueue('$url/ok', '{}', key => '$table $_')") } 1 .. 3;
		wait_state($node, $_, 'succeeded', description => "$table: a task is delivered meanwhile") foreach @ids;
		is(sql("SELECT relfilenode FROM pg_class WHERE oid = 'retry.$table'::regclass"), $file, "$table: the old one is in use yet");
		$old->query_safe('COMMIT');
		$old->quit;
		waitpid($pid, 0);
		is($? >> 8, 0, "$table: pg_repack has ended") or diag(slurp_file($log));
		isnt(sql("SELECT relfilenode FROM pg_class WHERE oid = 'retry.$table'::regclass"), $file, "$table: another is in use");
		is(sql("SELECT state FROM retry.tasks WHERE id = '$_'"), 'succeeded', "$table: nothing is lost") foreach @ids;
		my $after = sql("SELECT retry.enqueue('$url/ok', '{}', key => 'after $table')");
		wait_state($node, $after, 'succeeded', description => "$table: all goes on");
	}
	is(scalar(grep { $_->{key} =~ /^(task|attempt)_/ } $receiver->ledger), 6, 'each was sent once');
}

unlike(slurp_file($node->logfile), qr/WARNING|reference leak/, 'nothing is left open');
$node->stop;
done_testing();
