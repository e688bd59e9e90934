# A bank of accounts in three databases, each of a server of its own, and behind two
# HTTP services, which all may be killed; and the comparison of its books.
#
# A transfer has a name, a debit in one house and a credit in another; each may be
# undone by an entry of its own (undebit, uncredit).  A house enters nothing twice.
# What is entered with 0 was refused: it never comes.
package RetryTest::Bank;

use strict;
use warnings FATAL => 'all';

use File::Basename;
use HTTP::Tiny;
use IO::Handle;
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Utils;
use RetryTest;
use RetryTest::Bank::Modes;
use RetryTest::Campaign;
use RetryTest::Crash;
use Test::More import => [qw(is ok diag)];
use Time::HiRes qw(time usleep);

my $ACCOUNTS = 4;
my $EACH = 1000;

my $BOOKS = <<'SQL';
CREATE TABLE account (name text PRIMARY KEY, amount bigint NOT NULL);
CREATE TABLE entry (transfer text, op text, account text, amount bigint, PRIMARY KEY (transfer, op));
-- true: it is done, by this call or before
CREATE FUNCTION debit(transfer text, account text, amount bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	taken bigint := 0;
BEGIN
	UPDATE public.account a SET amount = a.amount - debit.amount WHERE a.name = debit.account AND a.amount >= debit.amount;
	IF FOUND THEN
		taken := debit.amount;
	END IF;
	INSERT INTO public.entry VALUES (transfer, 'debit', account, -taken);
	RETURN taken > 0;
EXCEPTION WHEN unique_violation THEN
	RETURN (SELECT e.amount < 0 FROM public.entry e WHERE e.transfer = debit.transfer AND e.op = 'debit');
END $$;
CREATE FUNCTION credit(ask jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.entry VALUES (ask ->> 'transfer', 'credit', ask ->> 'account', (ask ->> 'amount')::bigint) ON CONFLICT DO NOTHING;
	IF FOUND THEN
		UPDATE public.account a SET amount = a.amount + (ask ->> 'amount')::bigint WHERE a.name = ask ->> 'account';
	END IF;
END $$;
CREATE FUNCTION undo(ask jsonb, what text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	done public.entry;
BEGIN
	INSERT INTO public.entry VALUES (ask ->> 'transfer', what, NULL, 0) ON CONFLICT DO NOTHING;
	SELECT e.* INTO done FROM public.entry e WHERE e.transfer = ask ->> 'transfer' AND e.op = what;
	IF done.amount <> 0 THEN
		INSERT INTO public.entry VALUES (done.transfer, 'un' || what, done.account, -done.amount) ON CONFLICT DO NOTHING;
		IF FOUND THEN
			UPDATE public.account a SET amount = a.amount - done.amount WHERE a.name = done.account;
		END IF;
	END IF;
END $$;
-- an operation of a saga or of TCC: the branch is what is done, a credit at the end
CREATE FUNCTION step(ask jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	p jsonb := ask -> 'payload';
BEGIN
	CASE (ask ->> 'branch') || ' ' || (ask ->> 'operation')
		WHEN 'debit action', 'debit try' THEN
			IF NOT public.debit(p ->> 'transfer', p ->> 'account', (p ->> 'amount')::bigint) THEN
				RETURN 'failure';
			END IF;
		WHEN 'credit action', 'credit confirm' THEN
			IF p ? 'refuse' THEN
				RETURN 'failure';
			END IF;
			PERFORM public.credit(p);
		WHEN 'debit confirm', 'credit try' THEN
			NULL;
		ELSE
			PERFORM public.undo(p, ask ->> 'branch');
	END CASE;
	RETURN 'done';
END $$;
-- whoever is asked first decides: the row of a debit that never comes takes nothing
CREATE FUNCTION ask(question jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.entry VALUES (question ->> 'key', 'debit', NULL, 0) ON CONFLICT DO NOTHING;
	RETURN (SELECT CASE WHEN e.amount < 0 THEN 'commit' ELSE 'rollback' END FROM public.entry e WHERE e.transfer = question ->> 'key' AND e.op = 'debit');
END $$;
SQL

# new(SEED): all houses, open, each with the same money.
sub new
{
	my ($class, $seed) = @_;
	my $self = bless { seed => $seed, tellers => {}, hired => 0, logs => [], base => PostgreSQL::Test::Utils::tempdir . '/bank' }, $class;

	$self->{http} = HTTP::Tiny->new(timeout => 2, keep_alive => 0);
	$self->{databases} = [ map { $self->_database($_) } 0 .. 2 ];
	$self->{services} = [ map { $self->_service($_) } 0 .. 1 ];
	$self->_introduce;
	return $self;
}

# A house is a hash with a name and either a node or the parts of a service.
sub _database
{
	my ($self, $n) = @_;
	my $node = new_node("bank$n", fsync => 1, conf => <<'CONF');
restart_after_crash = on
retry.poll_interval = 200ms
retry.sql_workers = 2
max_worker_processes = 16
max_prepared_transactions = 50
CONF
	hold_nothing($node);
	$node->safe_psql('postgres', "CREATE EXTENSION dblink; $BOOKS"
		  . "INSERT INTO account SELECT 'a' || n, $EACH FROM generate_series(0, @{[ $ACCOUNTS - 1 ]}) n;");
	return { name => "bank$n", node => $node };
}

# Databases know each other as servers, and ask each other, as a check or a step does,
# through a function for each.
sub _introduce
{
	my ($self) = @_;

	foreach my $house (@{ $self->{databases} })
	{
		foreach my $other (@{ $self->{databases} })
		{
			my $connection = $other->{node}->connstr('postgres') . ' connect_timeout=2';

			$house->{node}->safe_psql('postgres', <<"SQL");
INSERT INTO retry.server (name, conninfo, timeout) VALUES ('$other->{name}', \$c\$$connection user=@{[ scalar getpwuid $> ]}\$c\$, '3 s');
SQL
			$house->{node}->safe_psql('postgres', <<"SQL") foreach qw(ask step);
CREATE FUNCTION $_\_$other->{name}(question jsonb) RETURNS text LANGUAGE sql AS \$\$
	SELECT says FROM public.dblink(\$c\$$connection\$c\$, format('SELECT public.$_(%L)', question)) AS a(says text)
\$\$;
SQL
		}
	}
	return;
}

sub _service
{
	my ($self, $n) = @_;
	my $service = { name => "shop$n", file => "$self->{base}.shop$n", port_file => "$self->{base}.shop$n.port", port => 0, n => $n };

	$self->open_service($service);
	return $service;
}

# open_service(SERVICE): its process, on the port that it had.
sub open_service
{
	my ($self, $service) = @_;

	unlink $service->{port_file};
	my $pid = fork() // die "cannot fork: $!";
	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', "$service->{file}.log");
		open(STDERR, '>&', \*STDOUT);
		{
			no warnings;
			exec 'python3', dirname(__FILE__) . '/../../chaos/service.py',
			  @$service{qw(file port_file port)}, $self->{seed} * 10 + $service->{n};
		}
		POSIX::_exit(127);
	}
	$service->{pid} = $pid;
	RetryTest::Campaign::wait_for_quietly(sub { -s $service->{port_file} })
	  or die "$service->{name} does not start: " . slurp_file("$service->{file}.log");
	$service->{port} = slurp_file($service->{port_file}) + 0;
	$service->{url} = "http://127.0.0.1:$service->{port}";
	return;
}

sub close_service
{
	my ($self, $service) = @_;
	my $pid = delete $service->{pid} // return;

	kill 'KILL', $pid;
	local ($?, $!);
	waitpid($pid, 0);
	return;
}

sub houses { my ($self) = @_; return (@{ $self->{databases} }, @{ $self->{services} }); }

# What a teller does in a house

# sql(HOUSE, STATEMENTS): what psql prints of them; undef when they failed, or their
# end is not known.
sub sql
{
	my ($self, $house, $statements) = @_;
	my ($rc, $out, $err);

	eval { ($rc, $out, $err) = $house->{node}->psql('postgres', $statements, timeout => 20, on_error_stop => 1); 1; } or return;
	return ($rc // 1) == 0 && ($err // '') !~ /ERROR|FATAL|PANIC/ ? $out : undef;
}

# post(SERVICE, PATH, WHAT): the status that it answers, 599 for none.
sub post
{
	my ($self, $service, $path, $what) = @_;

	return $self->{http}->post($service->{url} . $path, { content => encode_json($what) })->{status};
}

# debit(HOUSE, TRANSFER): true, false, or undef: that is not known.
sub debit
{
	my ($self, $house, $t) = @_;

	if ($house->{node})
	{
		my $says = $self->sql($house, "SELECT public.debit('$t->{id}', '$t->{from_account}', $t->{amount})") // return;
		return $says eq 't';
	}
	my $status = $self->post($house, '/debit', { transfer => $t->{id}, account => $t->{from_account}, amount => $t->{amount} });
	return $status == 200 ? 1 : $status == 409 ? 0 : undef;
}

# Tellers

# hire(): a process that makes transfers until told to stop, or killed; what it
# knows of them is in a ledger:
#   T name mode from to amount   begun          C name   it is bound to come
sub hire
{
	my ($self) = @_;
	my $number = ++$self->{hired};
	my $log = "$self->{base}.teller$number";
	my $parent = $$;
	my $pid = fork() // die "cannot fork: $!";

	if ($pid == 0)
	{
		eval {
			open(my $ledger, '>>', $log) or die "$log: $!";
			$ledger->autoflush(1);
			srand($self->{seed} * 1000 + $number);
			$self->_work($number, $ledger) while !-e "$self->{base}.stop" && getppid() == $parent;
			1;
		} or print STDERR "teller $number: $@";
		POSIX::_exit(0);
	}
	$self->{tellers}{$pid} = 1;
	push @{ $self->{logs} }, $log;
	return;
}

sub _work
{
	my ($self, $number, $ledger) = @_;
	my @modes = @{ $self->{modes} };
	my $mode = $modes[ rand @modes ];
	my @pairs = RetryTest::Bank::Modes::pairs($self, $mode);
	my ($from, $to) = @{ $pairs[ rand @pairs ] };
	my %t = (
		id => sprintf('%s-%d-%d', $mode, $number, ++$self->{made}), mode => $mode, from => $from, to => $to,
		from_account => 'a' . int(rand($ACCOUNTS)), to_account => 'a' . int(rand($ACCOUNTS)), amount => 1 + int(rand(300)));

	print $ledger "T $t{id} $mode $from->{name} $to->{name} $t{amount}\n";
	print $ledger "C $t{id}\n" if RetryTest::Bank::Modes::make($self, \%t);
	usleep(int(rand(40_000)));
	return;
}

# fire(): one of them, without notice; another one is hired.
sub fire
{
	my ($self) = @_;
	my ($pid) = keys %{ $self->{tellers} };

	delete $self->{tellers}{$pid};
	kill 'KILL', $pid;
	waitpid($pid, 0);
	$self->hire;
	return;
}

sub close_doors
{
	my ($self) = @_;

	append_to_file("$self->{base}.stop", '');
	waitpid($_, 0) foreach keys %{ $self->{tellers} };
	$self->{tellers} = {};
	return;
}

# Books

# look(HOUSE): has what it has prepared in any database looked at.
sub look
{
	my ($self, $house) = @_;

	$self->sql($house, join '', map { qq(SELECT retry.settle_server('{"server": "$_->{name}"}');) } @{ $self->{databases} });
	return;
}

# settle(SECONDS): waits until nothing is under way any more, in any database.
sub settle
{
	my ($self, $seconds) = @_;

	# what a teller has prepared too late is nobody's any more
	$self->look($_) foreach @{ $self->{databases} };
	foreach my $house (@{ $self->{databases} })
	{
		wait_sql($house->{node}, <<'SQL', "$house->{name}: nothing is stuck", expected => '0|0|0', timeout => $seconds);
SELECT (SELECT count(*) FROM retry.transactions WHERE state NOT IN ('committed', 'rolled back')),
	(SELECT count(*) FROM retry.tasks WHERE state IN ('pending', 'running', 'retrying')),
	(SELECT count(*) FROM pg_prepared_xacts)
SQL
	}
	return;
}

# What was begun: transfers by name, with `bound` where that is known.
sub _begun
{
	my ($self) = @_;
	my %begun;

	foreach my $line (map { split /\n/, -e $_ ? slurp_file($_) : '' } @{ $self->{logs} })
	{
		@{ $begun{$1} }{qw(mode from to amount)} = ($2, $3, $4, $5) if $line =~ /^T (\S+) (\S+) (\S+) (\S+) (\d+)$/;
		$begun{$1}{bound} = 1 if $line =~ /^C (\S+)$/;
	}
	return \%begun;
}

# What a house has in its books: accounts and entries.
sub _books
{
	my ($self, $house) = @_;

	return decode_json($self->{http}->get("$house->{url}/books")->{content}) if !$house->{node};
	return {
		accounts => { map { split /\|/ } split /\n/, $house->{node}->safe_psql('postgres', 'SELECT name, amount FROM account') },
		entries => [ map { [ split /\|/, $_, -1 ] } split /\n/, $house->{node}->safe_psql('postgres', 'SELECT transfer, op, account, amount FROM entry') ] };
}

# What was decided over transfers, by their names; of those that are tasks there is nothing.
sub _decided
{
	my ($self) = @_;

	return { map { split /\|/ } map { split /\n/ }
		  map { $_->{node}->safe_psql('postgres', 'SELECT coalesce(reference, key), state FROM retry.transactions') } @{ $self->{databases} } };
}

# audit(): what is wrong with the books, as texts; and counts of what was looked at.
sub audit
{
	my ($self) = @_;
	my $begun = $self->_begun;
	my @houses = $self->houses;
	my (%entries, @wrong);
	my $sum = 0;

	foreach my $house (@houses)
	{
		my $books = $self->_books($house);
		my %of = map { $_ => $EACH } keys %{ $books->{accounts} };

		foreach my $entry (@{ $books->{entries} })
		{
			my ($transfer, $op, $account, $amount) = @$entry;

			push @{ $entries{$transfer}{$op} }, { house => $house->{name}, amount => $amount };
			$of{$account} += $amount if $amount != 0;
		}
		foreach my $account (sort keys %of)
		{
			push @wrong, "$house->{name} $account has $books->{accounts}{$account}, its entries say $of{$account}"
			  if $of{$account} != $books->{accounts}{$account};
			$sum += $books->{accounts}{$account};
		}
	}
	push @wrong, "all accounts together have $sum" if $sum != $ACCOUNTS * $EACH * @houses;
	my $decided = $self->_decided;
	push @wrong, map { judge($_, $begun->{$_}, $entries{$_} // {}, $decided->{$_}) } sort keys %{ { %$begun, %entries } };
	my %done;
	$done{ $begun->{$_}{mode} }++ foreach grep { $begun->{$_} && !$entries{$_}{uncredit} && grep { $_->{amount} } @{ $entries{$_}{credit} // [] } } keys %entries;
	return (\@wrong, scalar(keys %$begun), \%done);
}

# plant(MODE): takes back half of a transfer that was made, as if nobody had asked for
# that; or ("nowhere") brings in money.  Returns what it has made false.
sub plant
{
	my ($self, $what) = @_;
	my $begun = $self->_begun;

	if ($what eq 'nowhere')
	{
		$self->post($self->{services}[0], '/credit', { transfer => 'planted', account => 'a0', amount => 1 });
		return 'planted';
	}
	foreach my $house ($self->houses)
	{
		foreach my $entry (@{ $self->_books($house)->{entries} })
		{
			my ($transfer, $op, $account, $amount) = @$entry;

			next if $op ne 'credit' || $amount == 0 || $begun->{$transfer}{mode} ne $what;
			if ($house->{node}) { $self->sql($house, qq(SELECT public.undo('{"transfer": "$transfer"}', 'credit'))) }
			else { $self->post($house, '/uncredit', { transfer => $transfer, account => $account }) }
			return $transfer;
		}
	}
	die "no transfer was made by $what\n";
}

# judge(NAME, TRANSFER, ENTRIES, DECIDED): what is wrong with one transfer.  Pure.
sub judge
{
	my ($name, $transfer, $entries, $decided) = @_;
	my (@wrong, %stays);

	return "$name was begun by nobody" if !$transfer;
	foreach my $op (qw(debit credit))
	{
		my @done = grep { $_->{amount} != 0 } @{ $entries->{$op} // [] };
		my @undone = @{ $entries->{"un$op"} // [] };

		push @wrong, "$name has " . @done . " entries of $op" if @done > 1;
		push @wrong, "$name is undone and had no $op" if @undone > @done;
		push @wrong, map { "$name undoes $_->{amount} in $_->{house}" }
		  grep { $_->{amount} != -$done[0]{amount} || $_->{house} ne $done[0]{house} } @undone[ 0 .. (@done ? $#undone : -1) ];
		$stays{$op} = @undone ? [] : \@done;
	}
	my @debits = @{ $stays{debit} };
	my @credits = @{ $stays{credit} };

	push @wrong, "$name was debited and not credited" if @debits && !@credits;
	push @wrong, "$name was credited and not debited" if @credits && !@debits;
	push @wrong, "$name was bound to come and did not" if $transfer->{bound} && !@credits;
	push @wrong, "$name is $decided, and was " . (@credits ? '' : 'not ') . 'credited'
	  if defined $decided && $decided ne (@credits ? 'committed' : 'rolled back');
	push @wrong, map { "$name took $_->{amount} from $_->{house}" }
	  grep { $_->{amount} != -$transfer->{amount} || $_->{house} ne $transfer->{from} } @debits;
	push @wrong, map { "$name brought $_->{amount} to $_->{house}" }
	  grep { $_->{amount} != $transfer->{amount} || $_->{house} ne $transfer->{to} } @credits;
	return @wrong;
}

1;
