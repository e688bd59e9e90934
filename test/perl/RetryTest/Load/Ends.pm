# Tasks of a scene that tells of their ends by NOTIFY, and a session that listens.
# A notification may be missed; one that comes is true, and comes once.
package RetryTest::Load::Ends;

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use POSIX ();

sub new
{
	my ($class, $campaign) = @_;
	my $self = bless { campaign => $campaign, log => "$campaign->{base}.ends", read => 0 }, $class;
	my ($ok, $dies) = map { $campaign->{receiver}->url($_) } '/ok/ends', '/status/400';

	$campaign->{node}->safe_psql($campaign->{dbname},
		"INSERT INTO retry.scene (name, url, notify) VALUES ('ends', '$ok', 'ends'), ('ends-badly', '$dies', 'ends')");
	append_to_file($self->{log}, '');
	return $self;
}

sub share { return 0.05; }

sub transaction
{
	my ($self, $key) = @_;
	my ($scene, $more) = rand() < 0.8 ? ('ends', '') : ('ends-badly', "\\echo E $key dead\n");

	return "\\echo T $key\n${more}SELECT retry.enqueue('$scene', '{}', key => '$key', $self->{campaign}{options});\n\\echo C $key\n";
}

# start(): a process that listens, whatever happens to the server, until the load ends.
sub start
{
	my ($self) = @_;
	my $campaign = $self->{campaign};
	my $parent = $$;
	my $pid = fork() // die "cannot fork: $!";

	return $pid if $pid;
	open(STDIN, '<', '/dev/null');
	open(STDOUT, '>>', $self->{log});
	open(STDERR, '>', '/dev/null');
	while (getppid() == $parent && !-e "$self->{log}.stop")
	{
		system('psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-d', $campaign->{node}->connstr($campaign->{dbname}),
			'-c', 'LISTEN ends', map { ('-c', 'SELECT pg_sleep(0.1)') } 1 .. 50) == 0
		  or select(undef, undef, undef, 0.05);
	}
	POSIX::_exit(0);
}

# await(): when all is well, ends are heard of; not each: the session may be between
# two of its connections.
sub await
{
	my ($self) = @_;
	my $campaign = $self->{campaign};

	foreach my $n (1 .. 20)
	{
		my $key = "$campaign->{tag}-heard$n";

		$campaign->note($_ => $key) foreach qw(T C);
		my $id = $campaign->{node}->safe_psql($campaign->{dbname}, "SELECT retry.enqueue('ends', '{}', key => '$key', $campaign->{options})");
		return if RetryTest::Campaign::wait_for_quietly(sub { slurp_file($self->{log}) =~ /$id/ }, 10);
	}
	die "gave up waiting: ends of tasks are notified of\n" . RetryTest::picture($campaign->{node}, $campaign->{dbname});
}

sub stop
{
	my ($self, $pid) = @_;

	append_to_file("$self->{log}.stop", '');
	waitpid($pid, 0);
	unlink "$self->{log}.stop";
	return;
}

# Adds the notifications of this round to the facts of the checker.
sub add_facts
{
	my ($self, $facts) = @_;
	my $campaign = $self->{campaign};
	my $text = slurp_file($self->{log});
	my %key = map { $_->{id} => $_->{key} } @{ $campaign->rows([qw(id key)], 'SELECT id, key FROM retry.task WHERE key MINE') };

	substr($text, 0, $self->{read}, '');
	$self->{read} += length $text;
	foreach my $payload ($text =~ /^Asynchronous notification "ends" with payload "(\{.*\})" received/mg)
	{
		my $note = decode_json($payload);

		push @{ $facts->{notes} }, { key => $key{ $note->{id} } // $note->{id}, state => $note->{state} };
	}
	return;
}

1;
