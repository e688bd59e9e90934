# What the TAP tests of this project share, on top of PostgreSQL::Test::Cluster:
# a server with the extension preloaded, a receiver to send to, and waiting for
# conditions instead of sleeping.  See test/t/001_smoke.pl for how it is used.
package RetryTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use Fcntl qw(:flock);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RetryTest::Asker;
use RetryTest::Endpoint;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  ask
  new_node
  start_endpoint
  wait_for
  wait_sql
  wait_state
  enqueue
  hold_nothing
  others_go_on
  session
  sql_fails
  workers
);

our $TIMEOUT = $ENV{RETRY_TEST_TIMEOUT} // 60;

# A test that is told to stop must still stop its servers, which END blocks do;
# and END blocks do not run when a signal ends the program.
$SIG{TERM} = sub { die "stopped by SIGTERM\n" };
$SIG{INT} = sub { die "stopped by SIGINT\n" };

# PostgreSQL::Test::Cluster bails out when a server does not start or stop, and
# that would end the programs after this one too.  Failing is enough.
{
	no warnings 'redefine';
	*Test::Builder::BAIL_OUT = sub { die "bail out: $_[1]\n" };
}

# What a session answers has no newline at its end; early releases of PostgreSQL 16 leave it there.
{
	no warnings 'redefine';
	my $query = \&PostgreSQL::Test::BackgroundPsql::query;
	*PostgreSQL::Test::BackgroundPsql::query = sub {
		my ($answer, $failed) = $query->(@_);
		chomp $answer;
		return wantarray ? ($answer, $failed) : $answer;
	};
}

# Making a cluster takes most of a second of CPU, and so does CREATE EXTENSION, so
# the first server of each program is a copy of one that all programs of a run share,
# with the extension or without.  Others are made: a cluster and its copy are told
# apart by their system identifiers, which is what some tests are about.
my $clusters = 0;

# Whether the node has the extension then.
sub init_node
{
	my ($node, $extension, %params) = @_;
	my $shared = defined $ENV{TESTDATADIR} && !$clusters++ ? "$ENV{TESTDATADIR}/cluster" : undef;
	my $system_or_bail = \&PostgreSQL::Test::Utils::system_or_bail;

	no warnings 'redefine';
	local *PostgreSQL::Test::Utils::system_or_bail = sub {
		my ($command, @arguments) = @_;
		my $own = $node->data_dir;

		return $system_or_bail->(@_) if $command ne 'initdb' || !defined $shared;
		open(my $lock, q(>), "$shared.lock") or die "$shared.lock: $!";
		flock($lock, LOCK_EX) or die "$shared.lock: $!";
		if (!-d $shared)
		{
			$system_or_bail->('initdb', map { $_ eq $own ? "$shared.new" : $_ } @arguments);
			rename("$shared.new", $shared) or die "$shared: $!";
		}
		if ($extension && !-d "$shared.with")
		{
			$system_or_bail->('cp', '-R', '-p', $shared, "$shared.new");
			create_extension("$shared.new");
			rename("$shared.new", "$shared.with") or die "$shared.with: $!";
		}
		close $lock;
		return $system_or_bail->('cp', '-R', '-p', $extension ? "$shared.with" : $shared, $own);
	};
	$node->init(%params);
	return defined $shared && $extension;
}

# Creates the extension in a cluster, by a server without the library, so that no
# dispatcher has ever run where the copies come from.  (A standalone backend would
# take OIDs for it that are those of what initdb makes, which pg_dump leaves out.)
sub create_extension
{
	my ($data) = @_;
	my $where = PostgreSQL::Test::Utils::tempdir_short;

	PostgreSQL::Test::Utils::system_or_bail('pg_ctl', '-w', '-D', $data, '-l', "$data.log", '-o',
		"-F -p 5432 -k '$where' -c listen_addresses='' -c max_wal_senders=0 -c wal_level=minimal", 'start');
	my $created = PostgreSQL::Test::Utils::system_log('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-h', $where,
		'-p', 5432, '-d', 'postgres', '-c', 'CREATE EXTENSION retry');
	PostgreSQL::Test::Utils::system_or_bail('pg_ctl', '-w', '-D', $data, 'stop');
	die "CREATE EXTENSION failed\n" if $created != 0;
	return;
}

# new_node(NAME, %options): a server, made and started.
#   preload   => 0        leave the library out of shared_preload_libraries
#   extension => 0        do not CREATE EXTENSION in the database postgres
#   start     => 0        do not start it (implies extension => 0)
#   fsync     => 1        the real thing, for tests of crashes of the machine;
#                         a killed server loses nothing without it
#   streaming => 1        allow standbys, see init's allows_streaming
#   archiving => 1        see init's has_archiving
#   conf      => "a = b"  lines for postgresql.conf, after all others
#   initdb    => [...]    more arguments for initdb
sub new_node
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $preload = $opt{preload} // 1;

	my $start = $opt{start} // 1;
	my $extension = $start && ($opt{extension} // 1);

	$clusters++ if $opt{initdb};
	my $has_extension = init_node(
		$node, $extension,
		extra => [ '--encoding=UTF8', '--locale=C.UTF-8', @{ $opt{initdb} // [] } ],
		allows_streaming => $opt{streaming} // 0,
		has_archiving => $opt{archiving} // 0);
	$node->append_conf('postgresql.conf', <<'CONF');
log_statement = none
log_min_messages = info
max_worker_processes = 24
max_connections = 60
shared_buffers = 32MB
max_prepared_transactions = 10
CONF
	$node->append_conf('postgresql.conf', "fsync = on") if $opt{fsync};
	$node->append_conf('postgresql.conf', <<'CONF') if $preload;
shared_preload_libraries = 'retry'
retry.allowed_networks = '127.0.0.0/8'
CONF
	$node->append_conf('postgresql.conf', $opt{conf}) if defined $opt{conf};
	if ($start)
	{
		$node->start;
		$node->safe_psql('postgres', 'CREATE EXTENSION retry')
		  if $extension && !$has_extension;
	}
	return $node;
}

# start_endpoint(@arguments): a receiver on a free port, which ends with the
# test.  See RetryTest::Endpoint.
sub start_endpoint
{
	return RetryTest::Endpoint->new(@_);
}

# wait_for(SUB, DESCRIPTION, %options): calls SUB until it returns true, and
# reports that as a test.  When it does not within the timeout (seconds), the
# test fails and the program ends, since what follows would only fail slowly
# (unless RETRY_TEST_GO_ON is set, for who wants to see that).
#   timeout => 60
#   diag    => SUB    called after a time-out, returns text that may explain it
sub wait_for
{
	my ($condition, $description, %opt) = @_;
	my $deadline = time() + ($opt{timeout} // $TIMEOUT);
	my $pause = 10_000;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	while (1)
	{
		return pass($description) if $condition->();
		last if time() > $deadline;
		usleep($pause);
		$pause = $pause * 1.5 if $pause < 200_000;
	}
	fail($description);
	diag($opt{diag}->()) if $opt{diag};
	return 0 if $ENV{RETRY_TEST_GO_ON};
	die "gave up waiting: $description\n";
}

# wait_sql(NODE, QUERY, DESCRIPTION, %options): until QUERY prints EXPECTED.
#   expected => 't', dbname => 'postgres', timeout => 60
# A query that fails (the server may be restarting) counts as "not yet".  It is
# asked in a session that is kept; in other databases than the usual one no
# longer than this takes, since tests copy, rename and drop those.  "fresh => 1" has
# each question asked in a session of its own, for what a session reads at its start.
sub wait_sql
{
	my ($node, $query, $description, %opt) = @_;
	my $dbname = $opt{dbname} // 'postgres';
	my $expected = $opt{expected} // 't';
	my $out;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my $passed = eval {
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		wait_for(
			sub {
				RetryTest::Asker::hang_up($node, $dbname) if $opt{fresh};
				$out = RetryTest::Asker::ask($node, $dbname, $query) // '';
				return $out eq $expected;
			},
			$description,
			timeout => $opt{timeout},
			diag => sub {
				my (undef, $now, $error) = eval { $node->psql($dbname, $query) };

				return "query: $query\nexpected: $expected\nlast result: $out\nin a session of its own: "
				  . ($now // '') . "\nits error: " . ($error // '') . "\n" . picture($node, $dbname);
			});
	};
	my $why = $@;

	RetryTest::Asker::hang_up($node, $dbname) if $dbname ne 'postgres';
	die $why if $why ne '';
	return $passed;
}

# ask(NODE, SQL, %options): what safe_psql would return, in a session that is
# kept, which is several times as fast.  What they set, lock or begin ends with them,
# but what is only read when a session begins counts for later ones.
#   dbname => 'postgres'
sub ask
{
	my ($node, $sql, %opt) = @_;
	my $dbname = $opt{dbname} // 'postgres';

	# what fails is done again by who can tell why
	return RetryTest::Asker::ask($node, $dbname, $sql) // $node->safe_psql($dbname, $sql);
}

# wait_state(NODE, ID, STATE, %options): until the task is in that state.
sub wait_state
{
	my ($node, $id, $state, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_sql(
		$node,
		"SELECT state FROM retry.tasks WHERE id = '$id'",
		delete $opt{description} // "task is $state",
		%opt, expected => $state);
}

# enqueue(NODE, ARGUMENTS, %options): calls retry.enqueue(ARGUMENTS), returns
# the task's id.  ARGUMENTS is SQL text.
sub enqueue
{
	my ($node, $arguments, %opt) = @_;

	return $node->safe_psql($opt{dbname} // 'postgres',
		"SELECT retry.enqueue($arguments)");
}

# hold_nothing(NODE, %options): no breaker opens and no retry waits for a budget,
# in any scene, for tests in which receivers fail on purpose and something else
# is to be seen.  Scenes get lanes of their own by that, as with all settings.
#   dbname => 'postgres'
sub hold_nothing
{
	my ($node, %opt) = @_;

	$node->safe_psql($opt{dbname} // 'postgres', <<'SQL');
ALTER TABLE retry.scene ALTER COLUMN breaker_ratio SET DEFAULT NULL, ALTER COLUMN retry_share SET DEFAULT NULL;
UPDATE retry.scene SET breaker_ratio = NULL, retry_share = NULL;
SQL
	return;
}

# others_go_on(NODE, RECEIVER, WHAT): a task enqueued now succeeds.  So would
# what was enqueued before it have been sent by then, if it might be.
sub others_go_on
{
	my ($node, $receiver, $what) = @_;
	my $id = enqueue($node, "'" . $receiver->url('/ok/other') . "'");
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_state($node, $id, 'succeeded', description => "$what: others go on");
}

# session(NODE, %options): a session that stays open, e.g. to hold a
# transaction; a PostgreSQL::Test::BackgroundPsql, whose query_safe(SQL) returns
# the result and quit ends it.  Statements that block: query_until(qr/x/, ...).
sub session
{
	my ($node, %opt) = @_;
	my $dbname = delete $opt{dbname} // 'postgres';

	return $node->background_psql($dbname, %opt);
}

# sql_fails(NODE, SQL, SQLSTATE, REGEX, DESCRIPTION, %options): the statement
# fails with that SQLSTATE and a message (detail and hint included) like REGEX.
# SQLSTATE may be a regular expression too.
sub sql_fails
{
	my ($node, $sql, $sqlstate, $regex, $description, %opt) = @_;
	my ($rc, $out, $err) = $node->psql(
		$opt{dbname} // 'postgres', $sql,
		extra_params => [ '-v', 'VERBOSITY=verbose' ],
		on_error_stop => 1);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return like($err, qr/(?:ERROR|FATAL):  $sqlstate: .*$regex/s,
		$description);
}

# workers(NODE): process ids of the extension's background workers.
# Optionally only those whose backend_type is like a pattern.
sub workers
{
	my ($node, $like) = @_;
	my $out = $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type LIKE '"
		  . ($like // 'retry%') . "' ORDER BY 1");

	return split /\n/, $out;
}

# What the tasks look like, for a failure's report.
sub picture
{
	my ($node, $dbname) = @_;
	my $text = '';

	foreach my $query (
		"SELECT left(id::text, 13) AS id, scene, lane, due_at, state, attempts, last_status, left(last_error, 60) AS last_error, next_due, held_reason, now() FROM retry.tasks "
		  . "ORDER BY state IN ('succeeded', 'dead', 'cancelled'), created_at DESC LIMIT 40",
		'SELECT left(task_id::text, 13) AS task, attempt_no, outcome, http_status, left(error, 60) AS error, started_at, next_due FROM retry.attempts ORDER BY started_at DESC LIMIT 10',
		"SELECT pid, backend_type, state, wait_event_type, wait_event, left(query, 60) AS query FROM pg_stat_activity WHERE backend_type LIKE 'retry%'"
	  )
	{
		my ($rc, $out, $err) = $node->psql($dbname, $query,
			extra_params => [ '-P', 'tuples_only=off', '-P', 'format=aligned' ]);
		$text .= ($out // '') . ($err // '') . "\n";
	}
	my $log = eval { slurp_file($node->logfile) } // '';
	$text .= "end of the server's log:\n" . substr($log, -3000)
	  if length $log;
	return $text;
}

1;
