# Sessions that are kept for asking.  A psql of its own for each question costs a
# new session that has to read the catalog first: several times what the answer
# costs, and a test that waits asks again and again.
#
# A session is kept for each server and database, and ends with the server, when
# anything about it is odd, or when it is told to.  It is in no transaction
# between two questions, so it holds up nothing but what wants a database without
# sessions: CREATE DATABASE ... TEMPLATE, DROP DATABASE.
package RetryTest::Asker;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use Time::HiRes qw(time);

use constant PATIENCE => 180;

my %kept;

# A test ends a server with no session in its way, as if there were none here:
# a smart stop waits for sessions.
{
	no warnings 'redefine';
	my $stop = \&PostgreSQL::Test::Cluster::stop;
	*PostgreSQL::Test::Cluster::stop = sub { hang_up($_[0]); goto &$stop; };
}

# ask(NODE, DBNAME, SQL): what psql prints for it, without the last line's end;
# nothing when that failed, or there is no server.
sub ask
{
	my ($node, $dbname, $sql) = @_;
	my $place = _place($node, $dbname);
	my $old = $kept{$place};

	_end($place) if $old && ($old->{server} // 0) != ($node->{_pid} // 0);
	# one that has ended since it was asked last is no answer
	for my $try (1, 2)
	{
		my $fresh = !$kept{$place};
		my $self = $kept{$place} //= _begin($node, $dbname) or return;
		my $answer = _exchange($self, $sql);

		return $answer if defined $answer;
		# psql ends with 3 at an error in what it reads
		return if _end($place) == 3 || $fresh;
	}
	return;
}

# hang_up(NODE, DBNAME): ends its sessions, or the one in that database, and
# returns when they have.
sub hang_up
{
	my ($node, $dbname) = @_;
	my $prefix = _place($node, $dbname // '');

	_end($_) foreach grep { defined $dbname ? $_ eq $prefix : index($_, $prefix) == 0 } keys %kept;
	return;
}

sub _place
{
	my ($node, $dbname) = @_;

	return $node->port . '/' . $node->host . "/$dbname";
}

sub _begin
{
	my ($node, $dbname) = @_;
	my $psql = $node->installed_command('psql');
	my $to = $node->connstr($dbname);

	return if !defined $node->{_pid};
	pipe(my $their_in, my $in) or die "pipe: $!";
	pipe(my $out, my $their_out) or die "pipe: $!";
	my $pid = fork() // die "cannot fork: $!";
	if ($pid == 0)
	{
		# POSIX::_exit: this copy of the test must not run its END blocks.
		require POSIX;
		POSIX::dup2(fileno($their_in), 0);
		POSIX::dup2(fileno($their_out), 1);
		open(STDERR, '>', '/dev/null');
		$ENV{PGAPPNAME} = 'asker';
		{
			no warnings;
			exec $psql, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $to, '-f', '-';
		}
		POSIX::_exit(127);
	}
	close $their_in;
	close $their_out;
	binmode $_ foreach $in, $out;
	$in->autoflush(1);
	return { pid => $pid, in => $in, out => $out, server => $node->{_pid}, asked => 0 };
}

# The answer; undef when the session has ended, which it does at an error.
sub _exchange
{
	my ($self, $sql) = @_;
	my $mark = 'asked ' . ++$self->{asked} . ":$self->{pid}:";
	my $deadline = time() + PATIENCE;
	my $answer = '';
	local $SIG{PIPE} = 'IGNORE';

	utf8::encode($sql) if utf8::is_utf8($sql);
	print { $self->{in} } "$sql\n;\nDISCARD ALL;\n\\echo '$mark'\n" or return;
	while ($answer !~ s/^\Q$mark\E\n\z//m)
	{
		my $set = '';

		vec($set, fileno($self->{out}), 1) = 1;
		if (!select($set, undef, undef, $deadline - time() > 0 ? $deadline - time() : 0))
		{
			kill 'KILL', $self->{pid};
			return;
		}
		sysread($self->{out}, $answer, 65536, length $answer) or return;
	}
	$answer =~ s/\n\z//;
	return $answer;
}

# Ends a session, returns its psql's exit status.
sub _end
{
	my ($place) = @_;
	my $self = delete $kept{$place} or return 0;

	# $? belongs to the test when this runs at its end.
	local ($?, $!);
	close $self->{in};
	close $self->{out};
	waitpid($self->{pid}, 0);
	return $? >> 8;
}

END
{
	_end($_) foreach keys %kept;
}

1;
