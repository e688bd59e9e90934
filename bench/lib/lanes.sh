# Scenarios of many lanes, for bench/run (bash, sourced): that they cost little,
# share what there is, and do not feel each other's trouble.

scenario isolation "healthy lanes alone, and beside a hanging and 1,000 refusing ones"
scenario lanes "many lanes with one task each, against one lane with as many"
scenario fairness "two equal lanes, one with ten times the other's backlog"

HEALTHY=8					# lanes whose endpoint works
REFUSING=1000				# lanes whose endpoint refuses connections

# ---------------------------------------------------------------- many lanes

# Each lane has one task, with names that were never seen before.
many_lanes()
{
	release "$1" "SELECT count(*) FROM generate_series(1, $1) g,
		LATERAL retry.enqueue('$RECEIVER/ok', jsonb_build_object('n', g, 'pad', repeat('x', 175)), lane => '$2-' || g)"
}

scenario_lanes()
{
	local round one="one lane with $TASKS tasks" each="$TASKS lanes with one task each" room="the same, with room for all"

	receiver --count-only
	setting "retry.lane_max_in_flight = 256"
	deliver "$TASKS" /ok >/dev/null
	for round in $(seq "$ROUNDS"); do
		keep tasks/s "$one" "$(deliver "$TASKS" /ok)"
		keep tasks/s "$each" "$(many_lanes "$TASKS" "few-$round")"
		setting "retry.max_lanes = $((TASKS * 2))"
		keep tasks/s "$room" "$(many_lanes "$TASKS" "many-$round")"
		setting "retry.max_lanes = 16384"
	done
	results "$one" "$each"
	result lanes "ratio, retry.max_lanes = 16384" "$(of_middles "$each" "$one")" ">=" 0.5
	result lanes "ratio, retry.max_lanes = $((TASKS * 2))" "$(of_middles "$room" "$one")" ">=" 0.5
}

# ---------------------------------------------------------------- fairness

# Two lanes, each of which may take all transfers: how many of the first's tasks
# arrive for each of the second's, which has a tenth as many, from when the
# second has made a tenth of its way until it has made nine.
compete()
{
	local n=$1 other a b a0 b0

	other=$(another_receiver other --count-only --delay-ms "$2")
	receiver --count-only --delay-ms "$2"
	sql <<-SQL >/dev/null
		INSERT INTO retry.scene (group_name, name, url) VALUES
			('default', 'more', '$RECEIVER/ok'), ('default', 'less', '$other/ok')
			ON CONFLICT (group_name, name) DO UPDATE SET url = excluded.url;
	SQL
	setting "retry.enabled = off"
	sleep 0.3
	sql -c "SELECT count(*) FROM retry.enqueue_many('more', array_fill('{\"a\": 1}'::jsonb, ARRAY[$((n * 10))]))" \
		-c "SELECT count(*) FROM retry.enqueue_many('less', array_fill('{\"a\": 1}'::jsonb, ARRAY[$n]))" >/dev/null
	setting "retry.enabled = on"
	await_total $((n / 10)) "$other"
	a0=$(stat total) b0=$(stat total "$other")
	await_total $((n * 9 / 10)) "$other"
	a=$(stat total) b=$(stat total "$other")
	echo "$(ratio $((a - a0)) $((b - b0)))"
	await_total $((n * 10))
	RECEIVER=$other receiver_request GET /_quit >/dev/null
}

scenario_fairness()
{
	local n delay

	n=$(sized 30000 10000)
	setting "retry.lane_max_in_flight = 1000"
	for delay in 0 50; do
		for _ in $(seq "$ROUNDS"); do
			keep "of the other's progress" "$delay ms endpoint" "$(compete "$n" "$delay")"
		done
		result fairness "$delay ms endpoint: 10:1 backlogs, progress" "$(middle "$delay ms endpoint")" ">=" 0.95
		result fairness "the same" "$(middle "$delay ms endpoint")" "<=" 1.05
	done
}

# ---------------------------------------------------------------- isolation

# Delivers tasks in the healthy lanes, committed in one go while all else goes on
# as it is, and prints how many arrived per second.
healthy_throughput()
{
	receiver_request POST /_reset >/dev/null
	sql -c "SELECT count(*) FROM generate_series(1, $HEALTHY) g,
		LATERAL retry.enqueue_many('$RECEIVER/ok', array_fill('{\"a\": 1}'::jsonb, ARRAY[$(($1 / HEALTHY))]),
			lane => 'healthy-' || g) x" >/dev/null
	await_total "$1"
	awk -v a="$(stat first_us)" -v b="$(stat last_us)" -v n="$1" 'BEGIN { printf "%.0f\n", n / ((b - a) / 1e6) }'
}

# Puts 500 tasks a second into the healthy lanes, each committed alone, and
# prints commit to arrival of each in milliseconds.
healthy_latency()
{
	local n=$1

	rm -f "$WORK/ledger"
	receiver --ledger "$WORK/ledger"
	"$WORK/trickle" "host=$PGHOST port=$PGPORT user=postgres dbname=postgres" "$RECEIVER/ok" 500 2 "$HEALTHY" >/dev/null
	"$WORK/trickle" "host=$PGHOST port=$PGPORT user=postgres dbname=postgres" "$RECEIVER/ok" "$n" 2 "$HEALTHY" >"$WORK/commits"
	await_total $((n + 500))
	kill -USR1 "$RECEIVER_PID"
	sleep 0.3
	arrivals
}

# One lane whose endpoint never answers, and many whose endpoint refuses.
trouble()
{
	local hanging

	hanging=$(another_receiver hanging --count-only)
	sql <<-SQL >/dev/null
		INSERT INTO retry.scene (group_name, name, url, timeout) VALUES
			('default', 'hangs', '$hanging/hang', '30 s'),
			('default', 'refuses', 'http://127.0.0.1:1/', '30 s');
		SELECT count(*) FROM retry.enqueue_many('hangs', array_fill('{"a": 1}'::jsonb, ARRAY[$1]), lane => 'hangs');
		SELECT count(*) FROM generate_series(1, $REFUSING) g,
			LATERAL retry.enqueue_many('refuses', array_fill('{"a": 1}'::jsonb, ARRAY[$2]), lane => 'refuses-' || g) x;
	SQL
}

# isolation_round ROUND WHAT TASKS ARRIVALS: the server that is running, WHAT
# being alone or beside.
isolation_round()
{
	receiver --count-only
	healthy_throughput $((HEALTHY * 1000)) >/dev/null
	keep tasks/s "$2: arrived/s" "$(healthy_throughput "$3")"
	healthy_latency "$4" >"$WORK/$2.ms"
	keep ms "$2: p50" "$(percentile 50 "$WORK/$2.ms")"
	keep ms "$2: p99" "$(percentile 99 "$WORK/$2.ms")"
	[ -z "$DATA" ] || cp "$WORK/$2.ms" "$DATA/isolation-$2-$1.ms"
}

scenario_isolation()
{
	local tasks arrivals settle round what

	tasks=$(sized 200000 40000) arrivals=$(sized 10000 2000) settle=$(sized 20 5)
	stop_server "$WORK/data-isolation"
	new_server "$WORK/data-beside"
	trouble "$(sized 1000000 100000)" "$(sized 100 20)"
	for round in $(seq "$ROUNDS"); do
		[ "$round" = 1 ] || again "$WORK/data-beside"
		sleep "$settle"
		isolation_round "$round" beside "$tasks" "$arrivals"
		stop_server "$WORK/data-beside" immediate
		again "$WORK/data-isolation"
		isolation_round "$round" alone "$tasks" "$arrivals"
		stop_server "$WORK/data-isolation" immediate
	done
	for what in alone beside; do
		[ -z "$DATA" ] || figures "$what: arrived/s" >"$DATA/isolation-$what.rate"
		result isolation "$what: arrived/s in $HEALTHY healthy lanes" "$(middle "$what: arrived/s")" - 0
		result isolation "$what: commit to arrival at 500/s, p50, ms" "$(middle "$what: p50")" - 0
		result isolation "$what: the same, p99, ms" "$(middle "$what: p99")" - 0
	done
	result isolation "throughput, beside against alone" "$(of_middles "beside: arrived/s" "alone: arrived/s")" ">=" 0.95
	result isolation "p99, beside against alone" "$(of_middles "beside: p99" "alone: p99")" "<=" 2
}
