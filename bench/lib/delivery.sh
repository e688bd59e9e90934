# Scenarios of delivery through one lane, for bench/run (bash, sourced): against
# curl alone, by what the endpoint is like, and how soon after the commit.

scenario throughput "0 ms endpoint, 256 in flight, against bare curl multi"
scenario medium "5 ms endpoint, 256 in flight, against bare curl multi"
scenario slow "50 ms endpoint, 1000 in flight, against bare curl multi"
scenario failing "0 ms endpoint that refuses one in ten, against bare curl multi"
scenario latency "commit to arrival: idle, and under a steady trickle"

# against_curl IN-FLIGHT BOUND: rounds at the receiver as it is, in one lane.
against_curl()
{
	local curl="bare curl multi" ours="delivered and recorded"

	setting "retry.lane_max_in_flight = $1"
	deliver "$TASKS" /ok >/dev/null
	for _ in $(seq "$ROUNDS"); do
		keep requests/s "$curl" "$(bare_curl epoll $((TASKS * 2)) "$1" "$RECEIVER/ok")"
		keep requests/s "$ours" "$(deliver "$TASKS" /ok)"
	done
	results "$curl" "$ours"
	result "$SCENARIO" "ratio" "$(of_middles "$ours" "$curl")" ">=" "$2"
}

scenario_throughput()
{
	receiver --count-only
	against_curl 256 0.7
}

scenario_medium()
{
	receiver --count-only --delay-ms 5
	against_curl 256 0.7
}

scenario_slow()
{
	receiver --count-only --delay-ms 50
	against_curl 1000 0.95
}

# What counts is attempts, good and bad, until there were as many as tasks; the
# rest of the failed ones go on before the next round begins.
scenario_failing()
{
	local curl="bare curl multi, requests" ours="recorded attempts"

	receiver --count-only --fail-percent 10
	setting "retry.lane_max_in_flight = 256"
	for _ in $(seq "$ROUNDS"); do
		keep requests/s "$curl" "$(bare_curl epoll $((TASKS * 2)) 256 "$RECEIVER/ok" 2>>"$WORK/log/curl.log")"
		keep requests/s "$ours" "$(deliver "$TASKS" /ok)"
		until [ "$(stat 2xx)" -ge "$TASKS" ]; do sleep 0.2; done
	done
	results "$curl" "$ours"
	result failing "ratio" "$(of_middles "$ours" "$curl")" ">=" 0.7
}

# from_commit GAP TASKS WHAT: one task every so many ms; keeps its percentiles.
from_commit()
{
	rm -f "$WORK/ledger"
	receiver --ledger "$WORK/ledger"
	"$WORK/trickle" "host=$PGHOST port=$PGPORT user=postgres dbname=postgres" "$RECEIVER/ok" 100 1 >/dev/null
	"$WORK/trickle" "host=$PGHOST port=$PGPORT user=postgres dbname=postgres" "$RECEIVER/ok" "$2" "$1" >"$WORK/commits"
	await_total $(($2 + 100))
	kill -USR1 "$RECEIVER_PID"
	sleep 0.3
	arrivals >"$WORK/ms"
	[ "$(wc -l <"$WORK/ms")" = "$2" ] || die "$3: $(wc -l <"$WORK/ms") of $2 arrivals found in the ledger"
	keep ms "$3: p50" "$(percentile 50 "$WORK/ms")"
	keep ms "$3: p99" "$(percentile 99 "$WORK/ms")"
	[ -z "$DATA" ] || cat "$WORK/ms" >>"$DATA/latency-${3%% *}.ms"
}

scenario_latency()
{
	local idle=400 trickle=2000

	[ -z "$SHORT" ] || idle=100 trickle=500
	for _ in $(seq "$ROUNDS"); do
		from_commit 50 "$idle" "idle, a task every 50 ms"
		from_commit 5 "$trickle" "trickle, a task every 5 ms"
	done
	result latency "idle: commit to arrival, p50, ms" "$(middle "idle, a task every 50 ms: p50")" "<=" 1
	result latency "idle: commit to arrival, p99, ms" "$(middle "idle, a task every 50 ms: p99")" "<=" 5
	result latency "trickle: commit to arrival, p50, ms" "$(middle "trickle, a task every 5 ms: p50")" "<=" 0.5
	result latency "trickle: commit to arrival, p99, ms" "$(middle "trickle, a task every 5 ms: p99")" "<=" 3
}
