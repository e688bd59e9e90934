# A power cut: what was written to the WAL and not synced is gone.  Preloaded into
# a server (test/chaos/power.c), it remembers what a cut would undo.
package RetryTest::Power;

use strict;
use warnings FATAL => 'all';

use File::Basename;
use PostgreSQL::Test::Utils;
use RetryTest::Preload;

# new(): to be preloaded as `library`, with `env` in the environment.
sub new
{
	my ($class) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir . '/power';
	my $self = bless { folder => $folder, library => "$folder.so", env => { RETRY_TEST_POWER => $folder } }, $class;

	mkdir $folder or die "$folder: $!";
	build_library('chaos/power.c', $self->{library});
	return $self;
}

# After all processes of the server are gone: undoes what was not synced, in the
# WAL in this folder.  Returns how many bytes.
sub cut
{
	my ($self, $wal) = @_;
	my $bytes = 0;

	foreach my $file (glob "$self->{folder}/*")
	{
		my @undo = _read($file);

		unlink $file;
		open(my $segment, '+<:raw', "$wal/" . basename($file)) or next;
		foreach my $undo (reverse @undo)
		{
			sysseek($segment, $undo->[0], 0) or die $!;
			syswrite($segment, $undo->[1]) == length $undo->[1] or die $!;
			$bytes += length $undo->[1];
		}
		close $segment;
	}
	return $bytes;
}

# Offsets and bytes; the last may be cut off, and then was not written.
sub _read
{
	my ($file) = @_;
	my $text = do { local $/; open(my $in, '<:raw', $file) or die $!; <$in> } // '';
	my @undo;

	while (length $text >= 16)
	{
		my ($offset, $length) = unpack 'qq', $text;

		last if length $text < 16 + $length;
		push @undo, [ $offset, substr($text, 16, $length) ];
		substr($text, 0, 16 + $length, '');
	}
	return @undo;
}

1;
