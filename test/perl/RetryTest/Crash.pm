# Servers that end without warning.
package RetryTest::Crash;

use strict;
use warnings FATAL => 'all';

use Cwd ();
use Time::HiRes qw(time usleep);

# Process ids of the children of a process.
sub children_of
{
	my ($parent) = @_;
	my @pids;

	foreach my $file (glob '/proc/[0-9]*/stat')
	{
		open(my $in, '<', $file) or next;
		my $line = <$in> // next;
		push @pids, $1 if $line =~ /^(\d+) \(.*\) [^Z] $parent /;
	}
	return @pids;
}

# Process ids of a server that lost its postmaster: all work in its data folder.
# Its children at some moment before are not all of them.  One that was started
# after that, and outlives the others, waits for ever for a lock that one of
# them held when it was killed, since nobody is left to clear the memory they share.
sub orphans_of
{
	my ($node) = @_;
	my $folder = Cwd::realpath($node->data_dir);

	return grep { (readlink("/proc/$_/cwd") // '') eq $folder && (state_of($_) // 'Z') ne 'Z' }
	  map { m{(\d+)$} } glob '/proc/[0-9]*';
}

# A process's state, by its letter; undef: there is none.
sub state_of
{
	my ($pid) = @_;

	open(my $in, '<', "/proc/$pid/stat") or return;
	return (<$in> // '') =~ /^\d+ \(.*\) (\S)/ ? $1 : undef;
}

# crash(NODE, ALL): kill -9 of the postmaster, and of all its children at once or
# of none, so that they find out by themselves; returns when they are gone.
sub crash
{
	my ($node, $all) = @_;
	my $postmaster = $node->{_pid};
	my @pids = children_of($postmaster);
	my $deadline = time() + 60;

	$node->kill9;
	kill 'KILL', @pids if $all;
	# first the postmaster, which may have been starting another child
	usleep(1_000) while (state_of($postmaster) // 'Z') ne 'Z' && time() < $deadline;
	while (@pids = orphans_of($node))
	{
		die "process $pids[0] does not notice that its postmaster is gone"
		  if time() > $deadline;
		kill 'KILL', @pids if $all;
		usleep(5_000);
	}
	# Where nobody collects it at once, a dead postmaster still seems to run.
	unlink $node->data_dir . '/postmaster.pid',
	  $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	return;
}

1;
