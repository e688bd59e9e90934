# Functions as targets: they are run as the role that enqueued, what they do and
# the record of it are one transaction, and nothing that they do or suffer is
# felt by anybody else.
use strict;
use warnings FATAL => 'all';

use RetryTest;
use Test::More;

my $node = new_node('main', conf => "retry.sql_workers = 2\n");

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
GRANT CREATE, USAGE ON SCHEMA public TO app, other;
SELECT retry.grant('app', 'default'), retry.grant('other', 'default');
SET ROLE app;
CREATE TABLE done (n serial, what text, by name DEFAULT current_user, session name DEFAULT session_user,
	path text DEFAULT current_setting('search_path'));
GRANT ALL ON done, done_n_seq TO other;
CREATE FUNCTION note(j jsonb) RETURNS jsonb LANGUAGE sql AS
	$$ INSERT INTO public.done (what) VALUES ($1 ->> 'what'); SELECT $1 || '{"ok": true}' $$;
CREATE FUNCTION fail(j jsonb) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.done (what) VALUES ('failed'); RAISE EXCEPTION 'no %', j ->> 'what' USING ERRCODE = 'P0042'; END $$;
SQL

# One task as a role; returns its id.
sub enqueue_as
{
	my ($role, $target, $payload, $more) = @_;
	return $node->safe_psql('postgres',
		"SET ROLE $role; SELECT retry.enqueue('$target', '$payload'" . ($more ? ", $more" : '') . ')');
}

my $id = enqueue_as('app', 'sql:public.note', '{"what": "one"}');
wait_state($node, $id, 'succeeded');
is($node->safe_psql('postgres', 'SELECT what, by, session, path FROM done'),
	'one|app|app|"$user", public', 'it ran as the role that enqueued');
is( $node->safe_psql('postgres',
		"SELECT attempt_no, lane, outcome, http_status, error, convert_from(response, 'UTF8') FROM retry.attempts WHERE task_id = '$id'"),
	'1|sql:public.note|succeeded|||{"ok": true, "what": "one"}',
	'the attempt has its result');

$id = enqueue_as('app', 'sql:public.fail', '{"what": "luck"}', 'max_attempts => 2, backoff => \'fixed 1ms\'');
wait_state($node, $id, 'dead');
is( $node->safe_psql('postgres',
		"SELECT attempt_no, outcome, http_status, error FROM retry.attempts WHERE task_id = '$id' ORDER BY 1"),
	"1|failed||P0042: no luck\n2|failed||P0042: no luck", 'a failure is a failed attempt');
is($node->safe_psql('postgres', "SELECT count(*) FROM done WHERE what = 'failed'"), '0', 'and is undone');

done_testing();
