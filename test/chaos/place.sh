# A place in which a Perl program may break what it likes (bash, sourced): its own
# network, its own small disks, its own /etc/hosts, where the kernel allows that to
# an ordinary user.  Where it does not, the program runs all the same, and leaves
# out what needs them.

DISK_SIZE=1g

# Enough for max_wal_size of a campaign, and little enough to be filled.
WAL_SIZE=512m

# What runs inside: sets up, then becomes the program.
# shellcheck disable=SC2016 # expanded there
PLACE='
	ip link set lo up || exit 125
	# what was sent by one that is gone is to arrive soon or never: the checker waits no minutes for it
	echo 1 >/proc/sys/net/ipv4/tcp_orphan_retries || exit 125
	mount -t tmpfs -o size=$RETRY_CHAOS_DISK,mode=700 data "$RETRY_CHAOS_DATA" || exit 125
	mount -t tmpfs -o size=$RETRY_CHAOS_WAL_SIZE,mode=700 wal "$RETRY_CHAOS_WAL" || exit 125
	if [ -n "$RETRY_CHAOS_MEMORY" ]; then
		mkdir -p "$TESTDIR/tmp_check" "$TESTDIR/log/tap" &&
			mount -t tmpfs -o size=$RETRY_CHAOS_MEMORY,mode=700 server "$TESTDIR/tmp_check" &&
			mkdir "$TESTDIR/tmp_check/log" &&
			mount --bind "$TESTDIR/log/tap" "$TESTDIR/tmp_check/log" || exit 125
	fi
	echo "127.0.0.1 localhost $RETRY_CHAOS_HOST" >"$RETRY_CHAOS_DATA.hosts" || exit 125
	echo "nameserver 127.0.0.1" >"$RETRY_CHAOS_DATA.resolv" || exit 125
	mount --bind "$RETRY_CHAOS_DATA.hosts" /etc/hosts || exit 125
	mount --bind "$RETRY_CHAOS_DATA.resolv" /etc/resolv.conf || exit 125
	exec "$@"'

# With RETRY_CHAOS_MEMORY set, the servers' folders are in memory, of that size: a
# crash loses nothing that was written, and what a power cut loses is decided by
# power.c, so a slow disk would only make fewer faults.

# in_place SECONDS PROGRAM ARGUMENT...: runs it, returns its status.
in_place()
{
	local limit=$1 pgxs perl

	shift
	pgxs=$(cd "$(dirname "$("$PG_CONFIG" --pgxs)")/.." && pwd)
	export PG_REGRESS=$pgxs/test/regress/pg_regress TESTDIR=$WORK TESTDATADIR=$WORK/tmp
	RETRY_ENDPOINT=$(find_endpoint)
	export RETRY_ENDPOINT PG_TEST_PORT_DIR=$WORK/tmp/portlock
	unset PGHOST PGPORT PGUSER PGDATABASE
	perl=(perl -I "$pgxs/test/perl" -I test/perl "$@")

	export RETRY_CHAOS_DATA=$WORK/disk/data RETRY_CHAOS_WAL=$WORK/disk/wal RETRY_CHAOS_NET=1
	export RETRY_CHAOS_HOST=receiver.test RETRY_CHAOS_DISK=$DISK_SIZE RETRY_CHAOS_WAL_SIZE=$WAL_SIZE
	mkdir -p "$RETRY_CHAOS_DATA" "$RETRY_CHAOS_WAL"
	if in_namespaces bash -c "$PLACE" place true 2>"$WORK/log/place.log"; then
		run_job "$limit" "${NAMESPACES[@]}" bash -c "$PLACE" place "${perl[@]}"
	else
		say "# no namespaces here: $(tail -n 1 "$WORK/log/place.log")"
		unset RETRY_CHAOS_MEMORY RETRY_CHAOS_DATA RETRY_CHAOS_WAL RETRY_CHAOS_NET RETRY_CHAOS_HOST
		run_job "$limit" "${perl[@]}"
	fi
}

# campaign HERE COMMAND PROGRAM ARGUMENT...: a whole run, from wherever it is called;
# the last line is "N passed, N failed".
campaign()
{
	local here=$1 command=$2 program=$3 status name

	shift 3
	if [ -z "$WORK" ]; then
		need_packages perl
		enter "$here" "$command" "$@"
	fi
	settle
	cd "$here" || die "cannot enter $here"
	if ! build_extension || ! build_endpoint; then
		tail -n 40 "$WORK"/log/*build.log
		say "0 passed, 1 failed"
		exit 1
	fi
	export RETRY_CHAOS_MEMORY=3g
	# Its own time limit is generous: it waits for conditions with limits of theirs.
	in_place "${CHAOS_LIMIT:-86400}" "$program" "$@"
	status=$?
	name=$(basename "$program" .pl)
	case $status in
		0 | 1) ;;
		*)
			say "--- ended early (status $status); end of its log:"
			tail -n 60 "$WORK"/{log/tap,tmp_check/log}/"regress_log_$name" 2>/dev/null | cut -c 1-400
			say "0 passed, 1 failed"
			;;
	esac
	exit "$status"
}

# The same user inside as outside, with capabilities that count inside only.
NAMESPACES=(unshare --user --map-user="$(id -u)" --map-group="$(id -g)" --net --mount --keep-caps)

in_namespaces()
{
	command -v unshare >/dev/null && command -v ip >/dev/null && "${NAMESPACES[@]}" "$@"
}
