# Scenarios of what tells people and programs how it goes, for bench/run (bash,
# sourced): what that costs whoever delivers, in CPU, which does not depend on how
# busy the machine is.

scenario notify "the dispatcher's CPU for a task, with and without NOTIFY of its end"

# ---------------------------------------------------------------- NOTIFY

# cpu_of SERIES: delivers, and keeps the microseconds of the dispatchers' CPU for each task.
cpu_of()
{
	local before pids

	mapfile -t pids < <(dispatcher_pids)
	before=$(ticks "${pids[@]}")
	deliver "$TASKS" /ok >/dev/null
	keep "us of CPU" "$1" "$(awk -v t=$(($(ticks "${pids[@]}") - before)) -v n="$TASKS" 'BEGIN { printf "%.2f", t * 1e4 / n }')"
}

# A session that hears of them, as long as it is asked for anything.
listen()
{
	psql -X -q -f - <<<$'LISTEN done;\nSELECT 1 \\watch 0.05' >/dev/null 2>&1 &
	LISTENER=$!
	disown "$LISTENER"
}

scenario_notify()
{
	local round off="no NOTIFY" on="NOTIFY, nobody listens" heard="NOTIFY, a session listens"

	receiver --count-only
	setting "retry.lane_max_in_flight = 256"
	deliver "$TASKS" /ok >/dev/null
	for round in $(seq "$ROUNDS"); do
		sql -c "UPDATE retry.scene SET notify = NULL"
		cpu_of "$off"
		sql -c "UPDATE retry.scene SET notify = 'done'"
		cpu_of "$on"
		listen
		cpu_of "$heard"
		kill "$LISTENER"
	done
	results "$off" "$on" "$heard"
	result notify "more CPU, nobody listens" "$(of_middles "$on" "$off")" "<=" 1.25
	result notify "more CPU, a session listens" "$(of_middles "$heard" "$off")" "<=" 1.25
}
