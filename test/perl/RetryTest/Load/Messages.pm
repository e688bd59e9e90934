# Messages that wait for a decision, by senders that may die before they make it.
#
# Of half of them it is settled beforehand what their sender does, and the URL that
# is asked answers so.  The others are decided by the sender's own table, in which
# both who does the work and who says that it was given up put a row with the same
# key: a function that is asked reads it.  In the ledger of the sessions
#   M key commit      the sender's work is done, or is known to come
#   M key rollback    it never is
#   M key table       public.business says it
package RetryTest::Load::Messages;

use strict;
use warnings FATAL => 'all';

sub new
{
	my ($class, $campaign) = @_;

	$campaign->{node}->safe_psql($campaign->{dbname}, <<'SQL');
CREATE TABLE public.business (key text PRIMARY KEY, done boolean NOT NULL);
CREATE FUNCTION public.ask(question jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF random() < 0.3 THEN
		RETURN 'cannot tell';
	END IF;
	INSERT INTO public.business VALUES (question ->> 'key', false) ON CONFLICT DO NOTHING;
	RETURN (SELECT CASE WHEN b.done THEN 'commit' ELSE 'rollback' END FROM public.business b WHERE b.key = question ->> 'key');
END $$;
SQL
	return bless { campaign => $campaign }, $class;
}

# Of the transactions of a session.
sub share { return 0.12; }

# The commands of a sender, as psql has them.
sub transaction
{
	my ($self, $key) = @_;

	return rand() < 0.5 ? $self->_settled($key) : $self->_by_table($key);
}

sub _prepare
{
	my ($self, $key, $check) = @_;
	my $campaign = $self->{campaign};
	my $target = $campaign->{receiver}->url('/ok/message');

	return "SELECT retry.prepare('$target', '{}', key => '$key', lane => 'message', check_target => '$check', "
	  . "check_after => '300 ms', check_every => '200 ms', check_limit => 10000, $campaign->{options}) AS gid \\gset\n";
}

# What the sender does is known before, so it may die at any moment.
sub _settled
{
	my ($self, $key) = @_;
	my $url = sub { $self->_prepare($key, $self->{campaign}{receiver}->url("/status/200?body=$_[0]")) };
	my $kind = int(rand(6));

	return "\\echo R $key\n\\echo M $key rollback\nBEGIN;\n" . $url->('commit') . "ROLLBACK;\n" if $kind == 0;
	if ($kind <= 2)
	{
		my $says = "\\echo T $key\n\\echo R $key\n\\echo M $key rollback\n" . $url->('rollback');

		return $kind == 1 ? $says : $says . "SELECT retry.rollback(:'gid');\n";
	}
	my $tried = "\\echo T $key\n\\echo M $key commit\n";
	return $tried . "BEGIN;\n" . $url->('commit') . "SELECT retry.commit(:'gid');\nCOMMIT;\n\\echo C $key\n" if $kind == 3;
	return $tried . $url->('commit') . "\\echo C $key\n" . ($kind == 4 ? "SELECT retry.commit(:'gid');\n" : '');
}

# What holds is what its table has first.
sub _by_table
{
	my ($self, $key) = @_;
	my $prepared = "\\echo T $key\n\\echo M $key table\n" . $self->_prepare($key, 'sql:public.ask');
	my $work = "INSERT INTO public.business VALUES ('$key', true) ON CONFLICT DO NOTHING;\n";
	my $tell = "SELECT CASE WHEN done THEN retry.commit(:'gid') ELSE retry.rollback(:'gid') END FROM public.business WHERE key = '$key';\n";
	my $kind = int(rand(6));

	return $prepared if $kind == 0;
	return $prepared . $work if $kind == 1;
	return $prepared . $work . $tell if $kind == 2;
	return $prepared . "BEGIN;\n" . $work . $tell . "COMMIT;\n" if $kind == 3;
	return $prepared . "BEGIN;\n" . $work . $tell . "ROLLBACK;\n" if $kind == 4;
	# it takes its time, and may be told that it was given up
	return $prepared . sprintf("SELECT pg_sleep(%.3f);\n", 0.2 + rand(0.3)) . $work . $tell;
}

# Adds what there is of messages to the facts of the checker.
sub add_facts
{
	my ($self, $facts) = @_;
	my $campaign = $self->{campaign};
	my %fate = map { split ' ' } @{ $campaign->noted('M') };
	my %done = map { $_->{key} => $_->{done} } @{ $campaign->rows([qw(key done)], 'SELECT key, done FROM public.business WHERE key MINE') };

	foreach my $key (grep { $fate{$_} eq 'table' } keys %fate)
	{
		$fate{$key} = $done{$key} ? 'commit' : 'rollback';
		$facts->{promises}{ $done{$key} ? 'C' : 'R' }{$key} = 1;
	}
	$facts->{fate} = \%fate;
	$facts->{messages} = $campaign->rows([qw(key decision how state)],
		"SELECT m.key, coalesce(d.decision, 'none'), d.how, t.state FROM retry.global_message m "
		  . 'LEFT JOIN retry.global_decision d ON d.gid = m.id LEFT JOIN retry.transactions t ON t.gid = m.id WHERE m.key MINE');
	return;
}

1;
