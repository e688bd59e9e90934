# How bench/run measures (bash, sourced): settings, receivers, rounds, results.
# A scenario is a function scenario_NAME in another file of this folder; it finds
# a fresh server and reports its figures with result.

sql()
{
	psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

# new_server DATA-FOLDER: with the extension, and enough room that checkpoints
# and recycled WAL disturb nothing.
new_server()
{
	start_server "$1" "shared_buffers = 1GB" "max_wal_size = 16GB" "min_wal_size = 2GB" \
		"checkpoint_timeout = 1h" "synchronous_commit = on" "retry.max_in_flight = 1000" \
		"log_checkpoints = off" || die "the server does not start"
	sql -c "CREATE EXTENSION retry"
}

# again DATA-FOLDER: starts a server that was stopped.
again()
{
	pg_ctl -D "$1" -l "$1.log" -w -t 60 start >/dev/null 2>&1 </dev/null || die "the server does not start again"
}

# stop_server DATA-FOLDER [MODE]
stop_server()
{
	pg_ctl -D "$1" -m "${2:-fast}" -w stop >/dev/null 2>&1
}

remove_server()
{
	stop_server "$1"
	rm -rf "$1"
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

# result SCENARIO WHAT VALUE OPERATOR BOUND: one figure, and whether it will do.
result()
{
	local verdict=ok

	if awk -v v="$3" -v o="$4" -v b="$5" 'BEGIN { exit !(o == "-" || (o == ">=" ? v >= b : v <= b)) }'; then
		passed=$((passed + 1))
	else
		[ -n "$REPORT" ] && passed=$((passed + 1)) || failed=$((failed + 1))
		verdict=BAD
	fi
	[ "$4" != - ] || verdict=
	printf '%-11s %-52s %12s  %-10s %s\n' "$1" "$2" "$3" "$([ "$4" = - ] || echo "$4 $5")" "$verdict"
}

median()
{
	sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

ratio()
{
	awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", (b > 0 ? a / b : 0) }'
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
# from the first arrival on.
release()
{
	local n=$1 statement=$2 before end

	setting "retry.enabled = off"
	sleep 0.3
	sql -c "$statement" >/dev/null
	sql -c "CHECKPOINT"
	before=$(sql -c "SELECT sum(attempts) FROM retry.dispatchers")
	receiver_request POST /_reset >/dev/null
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
	awk -v a="$(stat first_us)" -v b="$end" -v n="$n" 'BEGIN { printf "%.0f\n", n / ((b - a) / 1e6) }'
}

# deliver N PATH: the same with N tasks of one lane.
deliver()
{
	release "$1" "SELECT count(*) FROM retry.enqueue_many('$RECEIVER$2', array(
		SELECT jsonb_build_object('n', n, 'pad', repeat('x', 175)) FROM generate_series(1, $1) n))"
}

bare_curl()
{
	"$WORK/curl_limit" --loop="$1" -n "$2" -c "$3" "$4" | tr ' ' '\n' | sed -n 's/^requests_per_s=//p'
}

# Milliseconds from commit to arrival of each task, from the two ledgers.
arrivals()
{
	awk 'NR == FNR { committed[$1] = $2; next }
		$5 in committed { printf "%.3f\n", ($2 - committed[$5]) / 1000 }' "$WORK/commits" "$WORK/ledger" | sort -n
}
