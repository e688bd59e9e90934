# Mails of a channel, to a mail server of ours, which is a process that writes down
# the subject of each mail that it has answered for.
package RetryTest::Load::Mail;

use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use POSIX ();
use Time::HiRes qw(time);

sub new
{
	my ($class, $campaign) = @_;
	my $listener = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1', ReuseAddr => 1) or die "cannot listen: $!";
	my $self = bless { campaign => $campaign, log => "$campaign->{base}.mails", read => 0 }, $class;
	my $parent = $$;

	append_to_file($self->{log}, '');
	if (!(fork() // die "cannot fork: $!"))
	{
		open(STDIN, '<', '/dev/null');
		eval { _serve($listener, $self->{log}, $parent); };
		POSIX::_exit(0);
	}
	$campaign->{node}->safe_psql($campaign->{dbname}, sprintf <<'SQL', $listener->sockport);
INSERT INTO retry.channel (name, kind, url, mail_from, mail_to)
VALUES ('box', 'email', 'smtp+plaintext://127.0.0.1:%d', 'retry@sender.test', '{box@reader.test}');
UPDATE retry.scene SET breaker_ratio = NULL, retry_share = NULL, expires_after = NULL WHERE name = 'alarm-box';
SQL
	return $self;
}

sub share { return 0.04; }

sub transaction
{
	my ($self, $key) = @_;
	my $call = "SELECT retry.enqueue('alarm-box', '{\"subject\": \"$key\", \"text\": \"text\"}', key => '$key', $self->{campaign}{options});\n";

	return "\\echo R $key\nBEGIN;\n${call}ROLLBACK;\n" if rand() < 0.2;
	return "\\echo T $key\n\\echo E $key mail\n$call\\echo C $key\n";
}

# A mail server for as long as the test lives.  What it answers for is written first.
sub _serve
{
	my ($listener, $log, $parent) = @_;
	my $select = IO::Select->new($listener);
	my %talk;

	while (getppid() == $parent)
	{
		foreach my $socket ($select->can_read(1))
		{
			if ($socket == $listener)
			{
				my $client = $listener->accept or next;

				$select->add($client);
				$talk{$client} = { input => '', mail => undef };
				syswrite($client, "220 mail.test\r\n");
				next;
			}
			my $talk = $talk{$socket};
			if (!sysread($socket, $talk->{input}, 65536, length $talk->{input}))
			{
				$select->remove($socket);
				delete $talk{$socket};
				close $socket;
				next;
			}
			while ($talk->{input} =~ s/^([^\n]*)\n//)
			{
				my $answer = _answer($talk, $1 =~ s/\r$//r, $log) // next;
				local $SIG{PIPE} = 'IGNORE';

				syswrite($socket, "$answer\r\n");
			}
		}
	}
	return;
}

# What it says to a line; undef: nothing yet.
sub _answer
{
	my ($talk, $line, $log) = @_;

	if (defined $talk->{mail})
	{
		if ($line ne '.')
		{
			$talk->{mail} .= "$line\n";
			return;
		}
		my ($subject) = $talk->{mail} =~ /^Subject: (.*)$/m;

		append_to_file($log, sprintf "%d %s\n", time() * 1e6, $subject // '?');
		$talk->{mail} = undef;
		return '250 taken';
	}
	$talk->{mail} = '' if $line =~ /^DATA/i;
	return $line =~ /^DATA/i ? '354 go on' : $line =~ /^QUIT/i ? '221 bye' : '250 ok';
}

# Adds the mails of this round to the facts of the checker.
sub add_facts
{
	my ($self, $facts) = @_;
	my $text = slurp_file($self->{log});

	substr($text, 0, $self->{read}, '');
	$self->{read} += length $text;
	push @{ $facts->{mails} }, map { my ($wall, $key) = split ' '; { wall => $wall, key => $key } } split /\n/, $text;
	return;
}

1;
