# Processes that end: killed, terminated, stopped, one or all of them, with or
# without what the disk had not yet been told to keep.
package RetryTest::Faults::Processes;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;

sub faults
{
	my ($chaos) = @_;
	my ($node, $campaign) = ($chaos->node, $chaos->campaign);
	my $kill = sub {
		my ($type) = @_;

		return sub { _kill_one($chaos, $type) };
	};

	return (
		{ name => 'kill', begin => sub { $campaign->kill_server(all => 1, name => 'kill') } },
		{ name => 'kill-postmaster', begin => sub { $campaign->kill_server(name => 'kill-postmaster') } },
		{ name => 'kill-dispatcher', repeats => 1, begin => $kill->('retry dispatcher') },
		{ name => 'kill-launcher', repeats => 1, begin => $kill->('retry launcher') },
		{ name => 'kill-executor', repeats => 1, begin => $kill->('retry executor') },
		{ name => 'kill-backend', repeats => 1, begin => $kill->('client backend') },
		{ name => 'kill-checkpointer', repeats => 1, begin => $kill->('checkpointer') },
		{ name => 'power', begin => sub {
			$campaign->kill_server(all => 1, name => 'power', between => sub { push @{ $chaos->{cuts} }, $chaos->{power}->cut($chaos->{wal}) });
		} },
		{ name => 'terminate', repeats => 1, begin => sub { _terminate($chaos, 'retry dispatcher') } },
		{ name => 'terminate-all', repeats => 1, begin => sub { _terminate($chaos, 'retry%') } },
		{ name => 'terminate-sessions', begin => sub {
			$chaos->try_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
		} },
		{ name => 'cancel', begin => sub {
			$chaos->try_sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'retry%' OR backend_type = 'client backend' AND pid <> pg_backend_pid()");
		} },
		{ name => 'freeze', repeats => 1, lasts => 2,
			begin => sub { _freeze($chaos) },
			end => sub { _thaw($chaos) } },
		{ name => 'stop-fast', repeats => 1, begin => sub { _stop_fast($chaos) } },
		{ name => 'stop-immediate', repeats => 1, begin => sub { $node->stop('immediate'); $chaos->start; } });
}

# It may have what all others wait for, so it thaws by itself, whatever happens meanwhile.
sub _freeze
{
	my ($chaos) = @_;
	my $pid = $chaos->{frozen} = ($chaos->pids('retry dispatcher'))[0] // 0;

	system("kill -STOP $pid; { sleep 3; kill -CONT $pid; } >/dev/null 2>&1 &") if $pid;
	return;
}

# A frozen process ends by SIGKILL only, so nobody who waits for its end can leave it so.
sub _thaw
{
	my ($chaos) = @_;

	kill 'CONT', $chaos->{frozen} if $chaos->{frozen};
	$chaos->{frozen} = 0;
	return;
}

sub _stop_fast
{
	my ($chaos) = @_;
	my $node = $chaos->node;

	_thaw($chaos);
	$node->stop('fast', fail_ok => 1)
	  or die "the server does not stop:\n" . `ps -o pid,ppid,stat,wchan:20,etime,args --forest -e | grep -E "postgres|retry"`
	  . "end of its log:\n" . substr(slurp_file($node->logfile), -3000);
	$chaos->start;
	return;
}

# They record what they have under way before they go, if it does not take long.
sub _terminate
{
	my ($chaos, $type) = @_;

	_thaw($chaos);
	my @pids = split /\n/, $chaos->try_sql(
		"SELECT pid FROM pg_stat_activity WHERE backend_type LIKE '$type' AND pg_terminate_backend(pid)") // '';

	$chaos->wait_quietly(sub { !grep { kill 0, $_ } @pids }, "workers of type $type end");
	return;
}

# kill -9 of one process: the postmaster then ends all, and starts anew.
sub _kill_one
{
	my ($chaos, $type) = @_;
	my $log = $chaos->node->logfile;
	my $offset = -s $log;
	my ($pid) = $chaos->pids($type);

	return if !$pid || !kill('KILL', $pid);
	$chaos->wait_quietly(sub { substr(slurp_file($log), $offset) =~ /is ready to accept connections|database system is shut down/ },
		"the server starts anew after the end of a $type");
	# or it gave up: a disk was full
	if (substr(slurp_file($log), $offset) !~ /is ready to accept connections/)
	{
		$chaos->make_room;
		$chaos->recover;
	}
	return;
}

1;
