# A PostgreSQL server that means harm: it lets everybody in, and answers each
# command as the name of the database says, part by part:
#
#   rows=N,M         M rows of N columns, all null
#   text=WORD,N      one row of N columns that are this word; %XX is a byte
#   first=WORD,N     one row of N columns, the first is this word, the others null
#   flood=N,M        N rows of M columns, the first of a megabyte
#   long=N,M         one row of M columns, the first of N megabytes
#   error=WORD       an error that says so
#   none             nothing was done, as of an empty query
#   copy             it waits for data, as of COPY FROM STDIN
#   more             two answers
#   notice           a notice that looks like lines of a log, then the next part
#   password         asks for the password in the clear, then the next part
#   gone             ends the connection
package RetryTest::RogueServer;

use strict;
use warnings FATAL => 'all';

use parent -norequire, 'RetryTest::Rogue';
use RetryTest::Rogue;

sub conninfo
{
	my ($self, $how) = @_;

	return "host=$self->{host} port=$self->{port} user=anybody sslmode=disable gssencmode=disable dbname='$how'";
}

sub _get
{
	my ($socket, $n) = @_;
	my $bytes = '';

	while (length $bytes < $n)
	{
		sysread($socket, $bytes, $n - length $bytes, length $bytes) or die "gone\n";
	}
	return $bytes;
}

sub _put
{
	my ($socket, @messages) = @_;

	syswrite($socket, join '', map { $_->[0] . pack('N', 4 + length $_->[1]) . $_->[1] } @messages);
	return;
}

sub _complaint
{
	my ($kind, $text) = @_;

	return [ $kind, join('', map { "$_\0" } "S" . ($kind eq 'N' ? 'NOTICE' : 'ERROR'), 'C42P01', "M$text", "H$text") . "\0" ];
}

my $notice = _complaint('N', "first\n2026-01-01 00:00:00 UTC [1] LOG:  forged by a server");

sub _columns
{
	my ($n) = @_;

	return [ 'T', pack('n', $n) . join('', map { "c$_\0" . pack('NnNnNn', 0, 0, 25, 65535, 4294967295, 0) } 1 .. $n) ];
}

sub _messages
{
	my ($part) = @_;
	my ($word, $rest) = split /=/, $part, 2;
	my @done = [ 'C', "SELECT 1\0" ];

	if ($word eq 'rows')
	{
		my ($n, $m) = split /,/, $rest;
		return (_columns($n), (map { [ 'D', pack('n', $n) . pack('N', 4294967295) x $n ] } 1 .. $m), @done);
	}
	if ($word eq 'text')
	{
		my ($text, $n) = split /,/, $rest;
		$text =~ s/%([0-9A-F]{2})/chr hex $1/ge;
		return (_columns($n), [ 'D', pack('n', $n) . (pack('N', length $text) . $text) x $n ], @done);
	}
	if ($word eq 'first')
	{
		my ($text, $n) = split /,/, $rest;
		return (_columns($n), [ 'D', pack('n', $n) . pack('N', length $text) . $text . pack('N', 4294967295) x ($n - 1) ], @done);
	}
	if ($word eq 'flood' || $word eq 'long')
	{
		my ($megabytes, $n) = split /,/, $rest;
		my $text = 'x' x (1048576 * ($word eq 'long' ? $megabytes : 1));
		my $row = [ 'D', pack('n', $n) . pack('N', length $text) . $text . pack('N', 4294967295) x ($n - 1) ];
		return (_columns($n), ($row) x ($word eq 'long' ? 1 : $megabytes), @done);
	}
	return _complaint('E', $rest =~ s/%([0-9A-F]{2})/chr hex $1/ger) if $word eq 'error';
	return [ 'I', '' ] if $word eq 'none';
	return [ 'G', "\0" . pack('n', 0) ] if $word eq 'copy';
	return (_columns(1), @done, @done) if $word eq 'more';
	return $notice if $word eq 'notice';
	die "gone\n" if $word eq 'gone';
	return ();
}

sub _answer
{
	my ($self, $socket) = @_;
	my ($start, @parts);

	while (1)
	{
		my $length = unpack 'N', _get($socket, 4);
		$start = _get($socket, $length - 4);
		last if unpack('N', $start) == 196608;
		syswrite($socket, 'N');
	}
	my %said = split /\0/, substr $start, 4;
	$self->_note(join(' ', map { "$_=$said{$_}" } sort keys %said) . "\n");
	@parts = split /;/, $said{database};
	if (grep { $_ eq 'password' } @parts)
	{
		_put($socket, [ 'R', pack('N', 3) ]);
		_get($socket, 1);
		$self->_note('password: ' . _get($socket, unpack('N', _get($socket, 4)) - 4) . "\n");
	}
	_put($socket, [ 'R', pack('N', 0) ], ((grep { $_ eq 'notice' } @parts) ? $notice : ()),
		 [ 'S', "server_version\00016.0\0" ], [ 'S', "client_encoding\0UTF8\0" ], [ 'K', pack('NN', 1, 1) ], [ 'Z', 'I' ]);
	while (1)
	{
		my $type = _get($socket, 1);
		my $text = _get($socket, unpack('N', _get($socket, 4)) - 4);

		$self->_note("$type $text\n");
		next if $type ne 'S';
		_put($socket, [ '1', '' ], [ '2', '' ], (map { _messages($_) } @parts), [ 'Z', 'I' ]);
	}
}

1;
