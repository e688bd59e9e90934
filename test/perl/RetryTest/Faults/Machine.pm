# What a machine runs out of, and its clock.
package RetryTest::Faults::Machine;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;

my @CLOCKS = (30, 3600, 26 * 3600, -1200, 0);

sub faults
{
	my ($chaos) = @_;

	return (_disks($chaos), _limits($chaos),
		{ name => 'clock', begin => sub {
			$chaos->set_clock($CLOCKS[ rand @CLOCKS ]);
		} });
}

sub _disks
{
	my ($chaos) = @_;
	my $needs = sub { $ENV{RETRY_CHAOS_DATA} ? undef : 'no disks of our own' };

	return (
		{ name => 'disk-full', needs => $needs, lasts => 2,
			begin => sub { _fill($ENV{RETRY_CHAOS_DATA}) },
			end => sub { $chaos->make_room } },
		# PostgreSQL itself ends at this, and cannot start before there is room
		{ name => 'wal-disk-full', needs => $needs, repeats => 1, begin => sub {
			$chaos->excuse(qr/No space left on device/);
			$chaos->excuse(qr/terminated by signal 6/);
			_fill($ENV{RETRY_CHAOS_WAL});
			foreach (1 .. 20)
			{
				last if !defined $chaos->try_sql('SELECT pg_switch_wal()');
				$chaos->pause(0.1);
			}
			$chaos->pause(2);
			$chaos->make_room;
			$chaos->recover;
		} });
}

# Leaves a file system of ours no more room than it uses.
sub _fill
{
	my ($folder) = @_;

	# it is refused when more has been used meanwhile
	foreach (1 .. 20)
	{
		my ($used) = (qx(df -k --output=used $folder) // '') =~ /(\d+)\s*$/ or die "df $folder";

		return if system("mount -o remount,size=${used}k $folder 2>/dev/null") == 0;
	}
	die "cannot fill $folder";
}

# Limits of a dispatcher, lowered to what it has now.
sub _limits
{
	my ($chaos) = @_;
	my $limit = sub {
		my ($name, $option, $now) = @_;
		my $pid;

		return {
			name => $name, lasts => 2, repeats => 1,
			begin => sub {
				$pid = ($chaos->pids('retry dispatcher'))[0] or return;
				my $value = $now->($pid) or return;
				system("prlimit --pid $pid --$option=$value: 2>/dev/null");
				_demand($chaos);
			},
			end => sub {
				system("prlimit --pid $pid --$option=unlimited: 2>/dev/null || prlimit --pid $pid --$option=1024: 2>/dev/null")
				  if $pid;
			} };
	};

	return (
		$limit->('out-of-memory', 'as', sub { _status($_[0], 'VmSize') * 1024 + int(rand(128)) * 1024 }),
		$limit->('out-of-files', 'nofile', sub { my @open = glob "/proc/$_[0]/fd/*"; return @open + int(rand(4)) }));
}

# Tasks that cannot be sent without more memory and more connections.
sub _demand
{
	my ($chaos) = @_;
	my $url = $chaos->receiver->url('/ok');
	my @keys = map { $chaos->new_key("large") } 1 .. 12;
	my $calls = join ', ', map {
		"retry.enqueue('$url', jsonb_build_object('x', repeat('x', 3000000)), key => '$_', lane => '$_', $chaos->{campaign}{options})"
	} @keys;

	$chaos->campaign->note(T => $_) foreach @keys;
	defined $chaos->try_sql("SELECT num_nonnulls($calls)") or return;
	$chaos->campaign->note(C => $_) foreach @keys;
	return;
}

sub _status
{
	my ($pid, $name) = @_;

	open(my $in, '<', "/proc/$pid/status") or return 0;
	while (my $line = <$in>)
	{
		return $1 if $line =~ /^$name:\s+(\d+)/;
	}
	return 0;
}

1;
