# How bench/run measures (bash, sourced): servers, settings, receivers, rounds.
# A scenario is a function scenario_NAME in another file of this folder, which
# makes it known with scenario; it finds a fresh server at $WORK/data-NAME and
# tells its figures with keep and result (report.sh).

sql()
{
	psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

# new_server DATA-FOLDER [LINE...]: with the extension, and enough room that checkpoints
# disturb nothing; the lines are for its configuration.  Its WAL is recycled
# already: a commit into a file that has to be made first takes several times as long.
# It is at port $PORT where that is set, and sql goes there from then on.
new_server()
{
	local data=$1 warm=2GB

	shift
	[ -z "$SHORT" ] || warm=512MB
	start_server "$data" "shared_buffers = 1GB" "max_wal_size = 16GB" "min_wal_size = $warm" \
		"checkpoint_timeout = 1h" "synchronous_commit = on" "retry.max_in_flight = 1000" \
		"log_checkpoints = off" "port = ${PORT:-5432}" "$@" || die "the server does not start"
	export PGPORT=${PORT:-5432}
	sql -c "CREATE EXTENSION retry" || die "the extension cannot be created"
	sql -c "SELECT count(pg_logical_emit_message(false, 'warm-up', repeat('x', 1048576)))
			FROM generate_series(1, pg_size_bytes('$warm') / 1048576)" -c "CHECKPOINT" >/dev/null
}

# again DATA-FOLDER: starts a server that was stopped.
again()
{
	pg_ctl -D "$1" -l "$1.log" -w -t 60 start >/dev/null 2>&1 </dev/null || die "the server does not start again"
}

# sized FULL SHORT: the size of something, by how long the run may be.
sized()
{
	[ -n "$SHORT" ] && echo "$2" || echo "$1"
}

# stop_server DATA-FOLDER [MODE]
stop_server()
{
	pg_ctl -D "$1" -m "${2:-fast}" -w stop >/dev/null 2>&1
}

# After a scenario: its servers, receivers and peers go.
clear_up()
{
	local p

	for p in "$WORK"/data-*/postmaster.pid; do
		[ ! -e "$p" ] || stop_server "${p%/*}" immediate
	done
	for p in $(our_processes); do
		[[ $(readlink "/proc/$p/exe") == "$WORK/pg"/* ]] || kill "$p" 2>/dev/null
	done
	rm -rf "$WORK"/data-*
}

# await_total N [URL]: until the receiver has had so many requests.  What comes to
# a stop for ten seconds is a failure of the run.
await_total()
{
	local now last=-1 since=$SECONDS

	until now=$(stat total "${2:-}"); [ "$now" -ge "$1" ]; do
		[ "$now" = "$last" ] || { last=$now since=$SECONDS; }
		[ $((SECONDS - since)) -lt 10 ] || die "only $now of $1 requests have arrived"
		sleep 0.05
	done
}

setting()
{
	sql -c "ALTER SYSTEM SET $1" -c "SELECT pg_reload_conf()" >/dev/null
}

# another_receiver NAME [OPTION...]: one more beside it, for what is not measured;
# prints its URL.  It ends with the run.
another_receiver()
{
	local name=$1

	shift
	rm -f "$WORK/run/$name.port"
	"$ENDPOINT" --port 0 --port-file "$WORK/run/$name.port" "$@" >"$WORK/log/$name.log" 2>&1 </dev/null &
	disown $!
	until [ -s "$WORK/run/$name.port" ]; do sleep 0.05; done
	echo "http://127.0.0.1:$(cat "$WORK/run/$name.port")"
}

# Starts another receiver in the place of the last; its options as arguments.
receiver()
{
	[ -z "${RECEIVER_PID:-}" ] || kill "$RECEIVER_PID" 2>/dev/null
	rm -f "$WORK/run/receiver.port"
	"$ENDPOINT" --port 0 --port-file "$WORK/run/receiver.port" "$@" >"$WORK/log/receiver.log" 2>&1 </dev/null &
	RECEIVER_PID=$!
	disown "$RECEIVER_PID"
	until [ -s "$WORK/run/receiver.port" ]; do sleep 0.05; done
	RECEIVER=http://127.0.0.1:$(cat "$WORK/run/receiver.port")
}

# A number out of the receiver's statistics, or another's: the first of this name.
stat()
{
	RECEIVER=${2:-$RECEIVER} receiver_request GET /_stats | sed "s/.*\"$1\":\([0-9.]*\).*/\1/"
}

# release N SQL: enqueues N tasks by the statement while nothing is sent, lets
# them go, and prints how many were delivered and durably recorded per second,
# from the first arrival on; where the receiver does not tell when that was (it is
# not ours, or speaks TLS), from when they were let go.
release()
{
	local n=$1 statement=$2 before begin end

	setting "retry.enabled = off"
	sleep 0.3
	sql -c "$statement" >/dev/null
	sql -c "CHECKPOINT"
	before=$(sql -c "SELECT sum(attempts) FROM retry.dispatchers")
	[[ $RECEIVER == https:* ]] || receiver_request POST /_reset >/dev/null
	begin=$(date +%s%6N)
	setting "retry.enabled = on"
	end=$(sql <<-SQL
		DO \$\$ BEGIN
			WHILE (SELECT sum(attempts) FROM retry.dispatchers) < $before + $n LOOP
				PERFORM pg_sleep(0.005);
				IF clock_timestamp() > now() + interval '10 min' THEN
					RAISE EXCEPTION 'tasks are left undelivered';
				END IF;
			END LOOP;
		END \$\$;
		SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint;
	SQL
	)
	[ -n "$end" ] || die "what was released was not delivered"
	[[ $RECEIVER == https:* ]] || begin=$(stat first_us)
	awk -v a="$begin" -v b="$end" -v n="$n" 'BEGIN { printf "%.0f\n", n / ((b - a) / 1e6) }'
}

# deliver N PATH [BYTES]: the same with N tasks of one lane, with bodies of so
# many bytes; those of more than 200 do not compress.
deliver()
{
	local bytes=${3:-200} pad

	if [ "$bytes" = 200 ]; then
		release "$1" "SELECT count(*) FROM retry.enqueue_many('$RECEIVER$2', array(
			SELECT jsonb_build_object('n', n, 'pad', repeat('x', 175)) FROM generate_series(1, $1) n))"
	else
		pad="(SELECT left(string_agg(translate(encode(sha512(i::text::bytea), 'base64'), E'\\n', ''), ''), $bytes - 25)
			FROM generate_series(1, $bytes / 88 + 1) i)"
		release "$1" "SELECT count(retry.enqueue('$RECEIVER$2', jsonb_build_object('n', n, 'pad', $pad))) FROM generate_series(1, $1) n"
	fi
}

# bare_curl LOOP REQUESTS IN-FLIGHT URL [OPTION...]: prints requests a second, by
# connections that have been used already.
bare_curl()
{
	local url=$4 warm_up=$(($3 * 8))

	"$WORK/curl_limit" --loop="$1" -n $(($2 + warm_up)) -c "$3" --warm-up "$warm_up" "${@:5}" "$url" | sed -n 's/^requests_per_s=//p'
}

# Milliseconds from commit to arrival of each task, from the two ledgers.
arrivals()
{
	awk 'NR == FNR { committed[$1] = $2; next }
		$5 in committed { printf "%.3f\n", ($2 - committed[$5]) / 1000 }' "$WORK/commits" "$WORK/ledger" | sort -n
}

# percentile P FILE: of a sorted file with a figure a line.
percentile()
{
	sed -n "$(($(wc -l <"$2") * $1 / 100))p" "$2"
}

# pgbench_tps SECONDS OPTION...: transactions a second.
pgbench_tps()
{
	pgbench -n -T "$1" "${@:2}" 2>>"$WORK/log/pgbench.log" | awk '/^tps = / { printf "%.0f", $3 }'
}
