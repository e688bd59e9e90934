# Shared by scripts/demo, scripts/test and .ci/run (bash, sourced).
#
# It makes a private place to work in: a temporary folder with a copy of the
# sources and a copy of the PostgreSQL installation, both owned by a user who
# may run a server.  Nothing is written outside that folder (apart from the
# packages that a fresh machine lacks), so no existing cluster is touched, two
# runs at once do not meet, and removing the folder is all the cleaning up.
#
# A script uses it in two stages.  The outer stage runs as whoever called:
# it installs packages (need_packages) and calls enter, which copies everything
# and executes the script again, now as the unprivileged user, from the copy.
# The inner stage (RETRY_WORK is set) builds, runs servers, and at its end
# removes the folder.

MIN_MAJOR=15					# oldest PostgreSQL that the extension supports
WORK=${RETRY_WORK:-}

say()
{
	printf '%s\n' "$*"
}

die()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# ---------------------------------------------------------------- PostgreSQL

# Prints the pg_config to use: $PG_CONFIG, else that of the newest major with
# a server and its headers, else of any pg_config in the PATH.  Fails when
# there is none.
find_pg_config()
{
	local c best="" major bestmajor=0

	if [ -n "${PG_CONFIG:-}" ]; then
		c=$(command -v "$PG_CONFIG") || return 1
		usable_pg_config "$c" || return 1
		printf '%s\n' "$c"
		return 0
	fi
	for c in /usr/lib/postgresql/*/bin/pg_config /usr/pgsql-*/bin/pg_config "$(command -v pg_config)"; do
		usable_pg_config "$c" || continue
		major=$(pg_major "$c")
		if [ "$major" -gt "$bestmajor" ]; then
			best=$c bestmajor=$major
		fi
	done
	[ -n "$best" ] && printf '%s\n' "$best"
}

pg_major()
{
	"$1" --version | sed 's/^[^0-9]*\([0-9][0-9]*\).*/\1/'
}

# A pg_config is of use when its server program, the headers and the build
# system for extensions are all there.
usable_pg_config()
{
	[ -x "$1" ] &&
		[ -x "$("$1" --bindir)/postgres" ] &&
		[ -e "$("$1" --includedir-server)/postgres.h" ] &&
		[ -e "$("$1" --pgxs)" ] &&
		[ "$(pg_major "$1")" -ge "$MIN_MAJOR" ]
}

# ---------------------------------------------------------------- packages

# Prints the Debian packages that are missing, by looking for what they bring
# rather than for their names, so that other ways of installing count as well.
# Arguments: extra needs: "perl" (the TAP tests'), "lint", "clang" (with its
# sanitizers and fuzzer), "valgrind", "debian" (what builds packages).
missing_packages()
{
	local major bin

	if ! find_pg_config >/dev/null; then
		[ -z "${PG_CONFIG:-}" ] ||
			die "PG_CONFIG=$PG_CONFIG is not a pg_config of PostgreSQL $MIN_MAJOR or later with server and headers"
		major=$(wanted_major)
		say "postgresql-$major"
		say "postgresql-server-dev-$major"
	fi
	command -v cc >/dev/null || command -v gcc >/dev/null || say gcc
	[ -e /usr/include/stdio.h ] || say libc6-dev
	command -v make >/dev/null || say make
	has_header curl/curl.h || say libcurl4-openssl-dev
	has_header openssl/evp.h || say libssl-dev
	has_libpq || say libpq-dev
	case " $* " in *" perl "*)
		command -v prove >/dev/null || say perl
		perl -MIPC::Run -e 1 2>/dev/null || say libipc-run-perl
		perl -MTest::More -MJSON::PP -e 1 2>/dev/null || say perl
		command -v curl >/dev/null || say curl
		command -v openssl >/dev/null || say openssl
		python3 -c 'import http.server, ssl' 2>/dev/null || say python3
		[ ! -e /etc/debian_version ] || [ -e /etc/ssl/certs/ca-certificates.crt ] || say ca-certificates
		;;
	esac
	case " $* " in *" lint "*)
		command -v cppcheck >/dev/null || say cppcheck
		command -v pg_bsd_indent >/dev/null || say pg-bsd-indent
		command -v shellcheck >/dev/null || say shellcheck
		command -v objdump >/dev/null || say binutils
		command -v python3 >/dev/null || say python3
		;;
	esac
	case " $* " in *" lint "* | *" clang "*)
		command -v clang >/dev/null || say clang
		;;
	esac
	# The sanitizers' libraries; valgrind needs the names in the C library.
	case " $* " in *" clang "*)
		has_sanitizers || clang_runtime_package
		;;
	esac
	case " $* " in *" debian "*)
		command -v dpkg-buildpackage >/dev/null || say dpkg-dev
		[ -e /usr/share/doc/build-essential ] || say build-essential
		command -v dh >/dev/null || say debhelper
		[ -e /usr/share/doc/postgresql-server-dev-all ] || say postgresql-server-dev-all
		;;
	esac
	case " $* " in *" valgrind "*)
		command -v valgrind >/dev/null || say valgrind
		[ ! -e /etc/debian_version ] || [ -d /usr/lib/debug/.build-id ] || say libc6-dbg
		;;
	esac
}

has_sanitizers()
{
	command -v clang >/dev/null || return 1
	echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
		clang -fsanitize=fuzzer,address,undefined -x c -o /dev/null - 2>/dev/null
}

# Debian's clang only recommends them, in a package named after the version.
clang_runtime_package()
{
	local major

	major=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9][0-9]*\)$/\1/p' | head -n 1)
	[ -z "$major" ] || say "libclang-rt-$major-dev"
}

has_header()
{
	local d

	for d in /usr/include /usr/local/include /usr/include/"$(uname -m)"-linux-gnu; do
		[ -e "$d/$1" ] && return 0
	done
	return 1
}

# Beside the server's headers, or as another package has it.
has_libpq()
{
	local pgc

	pgc=$(find_pg_config) || return 0	# comes with them
	[ -e "$("$pgc" --includedir)/libpq-fe.h" ] || has_header libpq-fe.h
}

# The major version to install where none is complete: that of an installed
# server, which then lacks only its headers, else the newest on offer.
wanted_major()
{
	local bin best=0 m

	for bin in /usr/lib/postgresql/*/bin/postgres; do
		[ -x "$bin" ] || continue
		m=$(basename "$(dirname "$(dirname "$bin")")")
		[ "$m" -ge "$MIN_MAJOR" ] && [ "$m" -gt "$best" ] && best=$m
	done
	if [ "$best" = 0 ]; then
		for m in $(apt-cache search --names-only '^postgresql-server-dev-[0-9]+$' 2>/dev/null |
			sed 's/^postgresql-server-dev-\([0-9]*\).*/\1/'); do
			[ "$m" -gt "$best" ] && best=$m
		done
	fi
	[ "$best" -ge "$MIN_MAJOR" ] || best=$MIN_MAJOR
	say "$best"
}

# Installs what is missing, or stops and names it.
need_packages()
{
	local list log sudo=

	list=$(missing_packages "$@" | sort -u | tr '\n' ' ')
	[ -n "${list// /}" ] || return 0
	if ! command -v apt-get >/dev/null; then
		die "please install first what these Debian packages bring: $list"
	fi
	if [ "$(id -u)" != 0 ]; then
		sudo -n true 2>/dev/null ||
			die "please install first (there is no passwordless sudo to do it): apt-get install $list"
		sudo="sudo -n"
	fi
	say "installing: $list"
	log=$(mktemp) || die "cannot make a temporary file"
	$sudo apt-get update -qq >"$log" 2>&1 </dev/null || {
		cat "$log" >&2
		die "apt-get update failed; needed: $list"
	}
	# Only now is it known which major versions there are.
	list=$(missing_packages "$@" | sort -u | tr '\n' ' ')
	# shellcheck disable=SC2086
	apt_install "$sudo" $list >"$log" 2>&1 || {
		tail -n 30 "$log" >&2
		die "apt-get could not install: $list"
	}
	rm -f "$log"
	list=$(missing_packages "$@" | sort -u | tr '\n' ' ')
	[ -z "${list// /}" ] || die "still missing after apt-get install: $list"
}

# Installs what some tests need, when that is easy.  They leave out what needs it
# where it is not there, and say so; nothing else does.
want_for_tests()
{
	local pgc list=() package sudo=

	pgc=$(find_pg_config) || return 0
	PATH=/usr/bin:/bin python3 -c 'import aiosmtpd' 2>/dev/null || list+=(python3-aiosmtpd)
	for package in cron repack; do
		[ -e "$("$pgc" --pkglibdir)/pg_$package.so" ] || [ -n "${PG_CONFIG:-}" ] ||
			list+=("postgresql-$(pg_major "$pgc")-$package")
	done
	[ "$(id -u)" = 0 ] || sudo="sudo -n"
	[ ${#list[@]} != 0 ] && $sudo true 2>/dev/null && command -v apt-get >/dev/null || return 0
	for package in "${list[@]}"; do
		[ -n "$(apt-cache show "$package" 2>/dev/null)" ] || continue
		say "installing: $package"
		apt_install "$sudo" "$package" >/dev/null 2>&1 ||
			say "that failed; tests that need it are left out"
	done
}

# apt_install SUDO PACKAGE...: Debian's PostgreSQL packages create and start a
# cluster when a server is first installed.  Nobody asked for one here, so this
# is switched off for the moment of the installation.
apt_install()
{
	local conf=/etc/postgresql-common/createcluster.conf rc
	local apt="$1 env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"

	case " $* " in
		*" postgresql-"[1-9]*)
			$apt postgresql-common </dev/null || return 1
			CONF_SAVED=$(mktemp) || return 1
			cat "$conf" >"$CONF_SAVED" 2>/dev/null
			# shellcheck disable=SC2064
			trap "$1 tee $conf <$CONF_SAVED >/dev/null; rm -f $CONF_SAVED" EXIT
			{ grep -v '^ *create_main_cluster' "$CONF_SAVED"; echo 'create_main_cluster = false'; } |
				$1 tee "$conf" >/dev/null
			$apt "${@:2}" </dev/null
			rc=$?
			$1 tee "$conf" <"$CONF_SAVED" >/dev/null
			rm -f "$CONF_SAVED"
			trap - EXIT
			return $rc
			;;
		*)
			$apt "${@:2}" </dev/null
			;;
	esac
}

# ---------------------------------------------------------------- the private place

# Prints the user to run servers as when we are root.  PostgreSQL refuses root.
server_user()
{
	local u

	for u in postgres nobody; do
		id "$u" >/dev/null 2>&1 && { say "$u"; return; }
	done
	die "there is neither a user postgres nor a user nobody to run the server as"
}

# A short path, without spaces (make cannot handle them), that every user may
# pass through; $TMPDIR is taken when it is such a folder.
make_work()
{
	local base=${TMPDIR:-/tmp}

	case $base in
		*[!A-Za-z0-9/._-]*) base=/tmp ;;
	esac
	[ "${#base}" -le 40 ] || base=/tmp
	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid="$1" --regid="$(id -g "$1")" --clear-groups test -x "$base" || base=/tmp
	fi
	mktemp -d "$base/retry-XXXXXX"
}

# Copies the PostgreSQL installation of pg_config $1 to $2, with the same
# layout below the folder that its parts have in common.  PostgreSQL finds its
# files relative to its programs, so the copy is complete in itself, and `make
# install` with its pg_config writes into the copy.  Prints the copy's pg_config.
copy_postgres()
{
	local pgc=$1 to=$2 bin lib share inc libdir top d

	bin=$(realpath "$("$pgc" --bindir)")
	lib=$(realpath "$("$pgc" --pkglibdir)")
	share=$(realpath "$("$pgc" --sharedir)")
	inc=$("$pgc" --includedir)
	libdir=$("$pgc" --libdir)
	top=$bin
	for d in "$lib" "$share"; do
		while [ "${d#"$top"/}" = "$d" ]; do top=$(dirname "$top"); done
	done
	for d in "$bin" "$lib" "$share"; do
		mkdir -p "$to${d#"$top"}"
		cp -a "$d/." "$to${d#"$top"}/" || return 1
	done
	# Headers and client libraries are only read: links will do.
	for d in "$inc" "$libdir"; do
		[ "${d#"$top"/}" != "$d" ] && [ ! -e "$to${d#"$top"}" ] || continue
		mkdir -p "$(dirname "$to${d#"$top"}")"
		ln -s "$d" "$to${d#"$top"}"
	done
	say "$to${bin#"$top"}/pg_config"
}

# Copies the project to $2 without what a build or git left in it.
copy_sources()
{
	mkdir -p "$2"
	tar -C "$1" --exclude=./.git --exclude=./build --exclude=node_modules --exclude=tmp_check \
		--exclude='*.o' --exclude='*.so' --exclude='*.bc' --exclude='*.gcda' --exclude='*.gcno' \
		-cf - . | tar -C "$2" -xf - --no-same-owner
}

# enter TOP SCRIPT ARGUMENT...: prepares the folder and becomes the inner
# stage.  Does not return.
enter()
{
	local top=$1 script=$2 user pgc work var keep=()

	shift 2
	user=$(id -un)
	[ "$(id -u)" != 0 ] || user=$(server_user)
	pgc=$(find_pg_config) || die "no usable PostgreSQL found"
	if [ -n "${RETRY_AGAIN:-}" ]; then
		# a folder that RETRY_KEEP has left, with sources that may have changed since
		work=$RETRY_AGAIN
		rm -rf "${work:?}/tmp" "$work/run" "$work/log" "$work/tmp_check" "$work"/data*
		mkdir "$work/tmp" "$work/run" "$work/log" || die "cannot use the folder $work again"
		pgc=$(find "$work/pg" -type f -name pg_config) || die "there is no PostgreSQL in $work"
	else
		work=$(make_work "$user") || die "cannot make a temporary folder"
		trap 'rm -rf "$work"' EXIT
		trap 'exit 130' INT
		trap 'exit 143' TERM HUP
		mkdir "$work/home" "$work/tmp" "$work/run" "$work/log"
		copy_sources "$top" "$work/src" || die "cannot copy the sources to $work"
		pgc=$(copy_postgres "$pgc" "$work/pg") || die "cannot copy the PostgreSQL installation to $work"
	fi

	# Of the caller's environment only what a script or a test understands.
	for var in TERM CI COLUMNS NO_COLOR CC CFLAGS COPT FUZZ_SECONDS TAP_JOBS TAP_LIMIT TAP_FILE_LIMIT TAP_TAIL \
		$(compgen -e RETRY_); do
		[ -z "${!var:-}" ] || keep+=("$var=${!var}")
	done
	# The locale decides the encoding of the servers that initdb makes.
	keep+=(HOME="$work/home" TMPDIR="$work/tmp" LC_ALL=C.UTF-8 TZ=UTC RETRY_WORK="$work" USER="$user"
		RETRY_CALLER="$top" PG_CONFIG="$pgc" PATH="$(dirname "$pgc"):/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
	cd "$work/src" || die "cannot enter $work/src"
	if [ "$(id -u)" = 0 ]; then
		chown -R "$user:" "$work" || die "cannot give $work to $user"
		exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups \
			env -i "${keep[@]}" bash "$work/src/$script" "$@"
	fi
	exec env -i "${keep[@]}" bash "$work/src/$script" "$@"
}

# writable_folder DIR: makes it, for the user who runs servers as well, and prints
# its whole path.
writable_folder()
{
	local user

	mkdir -p "$1" || return 1
	if [ "$(id -u)" = 0 ]; then
		user=$(server_user)
		chown "$user:" "$1" || return 1
	fi
	(cd "$1" && pwd -P)
}

# ---------------------------------------------------------------- inner stage

# Kills what still runs from the folder's programs, and removes the folder.
# The private copy of PostgreSQL makes this exact: no other process can have
# its executable in there.
leave()
{
	local rc=$? p s sig

	trap '' INT TERM HUP
	trap - EXIT
	[ -z "${JOB:-}" ] || kill -TERM "$JOB" 2>/dev/null
	[ -z "${BESIDE:-}" ] || kill -TERM "$BESIDE" 2>/dev/null
	# To a postmaster QUIT means to stop at once; others may ignore it, as what
	# a script starts in the background does, and heed TERM.
	for sig in "TERM QUIT" KILL; do
		for p in $(our_processes); do
			for s in $sig; do kill -"$s" "$p" 2>/dev/null; done
		done
		for p in 1 2 3 4 5 6 7 8 9 10; do
			[ -n "$(our_processes)" ] || break
			sleep 0.2
		done
	done
	cd /
	if [ -n "${RETRY_KEEP:-}" ]; then
		say "kept: $WORK" >&2
	else
		rm -rf "$WORK"
	fi
	exit "$rc"
}

our_processes()
{
	local exe

	for exe in /proc/[0-9]*/exe; do
		case $(readlink "$exe" 2>/dev/null) in
			"$WORK"/*) exe=${exe#/proc/}; say "${exe%/exe}" ;;
		esac
	done
}

# To be called first in the inner stage.
settle()
{
	trap leave EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

# run_job SECONDS COMMAND...: runs it with a time limit, in a process group of
# its own, so that it can be stopped whole, and a signal to the script is acted
# on at once instead of when the command ends.  Returns its status, 124 for a
# time-out.
run_job()
{
	local limit=$1 rc

	shift
	set -m
	timeout -k 20 "$limit" "$@" </dev/null &
	JOB=$!
	set +m
	wait "$JOB"
	rc=$?
	JOB=
	return $rc
}

# Builds the extension and installs it into the private copy of PostgreSQL.
# Bitcode for inlining is left out: it doubles the time and nothing here uses it.
# What was built from the same sources in the folder RETRY_BUILT is taken from
# there; make finds out whether that is so.
build_extension()
{
	[ -z "${RETRY_BUILT:-}" ] || cp -p "$RETRY_BUILT"/src/*.o src/ 2>/dev/null
	run_job "${1:-300}" make -s -j2 all PG_CONFIG="$PG_CONFIG" with_llvm=no >"$WORK/log/build.log" 2>&1 &&
		run_job 60 make -s install PG_CONFIG="$PG_CONFIG" with_llvm=no >>"$WORK/log/build.log" 2>&1
}

# Builds the receiver that demo and tests send to; prints nothing.
build_endpoint()
{
	run_job 120 make -s -C test/endpoint >"$WORK/log/endpoint-build.log" 2>&1
}

# start_server DATA-FOLDER [LINE...]: makes and starts a server that listens on
# a socket in the folder only, with the extension preloaded and the given lines
# in its configuration.
start_server()
{
	local data=$1

	shift
	initdb -D "$data" -U postgres -A trust -N -E UTF8 --locale=C.UTF-8 >"$data.initdb.log" 2>&1 || {
		tail -n 20 "$data.initdb.log" >&2
		return 1
	}
	{
		say "listen_addresses = ''"
		say "unix_socket_directories = '$WORK/run'"
		say "port = 5432"
		say "shared_preload_libraries = 'retry'"
		say "retry.allowed_networks = '127.0.0.0/8'"
		say "max_worker_processes = 24"
		printf '%s\n' "$@"
	} >>"$data/postgresql.conf"
	export PGHOST=$WORK/run PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
	pg_ctl -D "$data" -l "$data.log" -w -t 60 start >"$data.start.log" 2>&1 </dev/null || {
		tail -n 20 "$data.start.log" "$data.log" >&2
		return 1
	}
}

# start_receiver LOG: starts the receiver on a free port, sets RECEIVER to its
# URL and RECEIVER_PID.
start_receiver()
{
	local portfile=$WORK/run/receiver.port

	rm -f "$portfile"
	"$ENDPOINT" --port 0 --port-file "$portfile" >"$1" 2>&1 </dev/null &
	RECEIVER_PID=$!
	disown "$RECEIVER_PID"
	for _ in $(seq 100); do
		[ -s "$portfile" ] && break
		kill -0 "$RECEIVER_PID" 2>/dev/null || { tail -n 5 "$1" >&2; return 1; }
		sleep 0.1
	done
	[ -s "$portfile" ] || return 1
	RECEIVER=http://127.0.0.1:$(cat "$portfile")
}

# Prints the path of the receiver's program, if it was built.
find_endpoint()
{
	local f

	for f in build/endpoint/endpoint build/endpoint test/endpoint/endpoint; do
		[ -f "$f" ] && [ -x "$f" ] && { say "$PWD/$f"; return 0; }
	done
	return 1
}

# kill_server DATA-FOLDER: what a power cut would do to the processes.
kill_server()
{
	kill -9 "$(head -n 1 "$1/postmaster.pid")"
}

# start_again DATA-FOLDER: after kill_server.  The first tries may find that the
# old server's children have not noticed yet.
start_again()
{
	for _ in $(seq 50); do
		pg_ctl -D "$1" -l "$1.log" -w -t 60 start >"$1.start.log" 2>&1 </dev/null && return 0
		sleep 0.2
	done
	tail -n 20 "$1.start.log" >&2
	return 1
}

# receiver_request METHOD PATH [BODY]: prints the answer's body.  Plain bash, so
# that the demo needs no HTTP client.
receiver_request()
{
	local host=${RECEIVER#http://} fd body=${3:-} line

	exec {fd}<>"/dev/tcp/${host%:*}/${host#*:}" || return 1
	printf '%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
		"$1" "$2" "$host" "${#body}" "$body" >&"$fd"
	while IFS= read -r line <&"$fd"; do
		[ -n "${line%$'\r'}" ] || break
	done
	cat <&"$fd"
	exec {fd}>&-
}
