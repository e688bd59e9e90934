# Scenarios of what tells people and programs how it goes, for bench/run (bash,
# sourced): what that costs whoever delivers, in CPU, which does not depend on how
# busy the machine is.

scenario notify "the dispatcher's CPU for a task, with and without NOTIFY of its end"
scenario alarms "one look at the alarms, by rules, with many scenes and lanes"

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

# ---------------------------------------------------------------- alarms

# look WHAT OPERATOR BOUND: milliseconds of one look at the alarms, the middle of five.
look()
{
	local ask="SELECT count(*) FROM retry.look_at_alarms(clock_timestamp())"

	result alarms "$1, ms" "$(sql -c "\\timing on" -c "$ask" -c "$ask" -c "$ask" -c "$ask" -c "$ask" -c "$ask" |
		sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | tail -n 5 | median)" "$2" "$3"
}

# rules N: so many, of most conditions in turn, over ten groups.  None fires.
rules()
{
	sql -v n="$1" <<-'SQL' >/dev/null
		DELETE FROM retry.alarm_rule;
		INSERT INTO retry.alarm_rule (group_name, name, condition, threshold, age)
		SELECT 'app-' || n % 10, 'rule-' || n, c, CASE c WHEN 'failure_ratio' THEN 1 WHEN 'oldest_due' THEN NULL ELSE 1000000 END,
			interval '1 day'
		FROM generate_series(0, :n - 1) n,
			LATERAL (SELECT (ARRAY['dead', 'failure_ratio', 'errors', 'retrying', 'pending', 'growth', 'oldest_due', 'breaker'])[1 + n % 8]) x (c);
	SQL
}

# Lanes of a thousand scenes of ten groups, all with a task that was delivered.
scenario_alarms()
{
	local lanes n

	lanes=$(sized 100000 5000)
	receiver --count-only
	setting "retry.max_lanes = $((lanes * 2))"
	setting "retry.alarm_interval = '1h'"
	look "no rules, nothing in the database" - 0
	sql -v url="$RECEIVER/ok" <<-'SQL' >/dev/null
		INSERT INTO retry.scene_group (name) SELECT 'app-' || n FROM generate_series(0, 9) n;
		INSERT INTO retry.scene (group_name, name, url) SELECT 'app-' || n % 10, 's' || n, :'url' FROM generate_series(0, 999) n;
	SQL
	release "$lanes" "SELECT count(*) FROM generate_series(1, $lanes) g,
		LATERAL retry.enqueue('app-' || g % 10 || '/s' || g % 1000, '{}', lane => 'lane-' || g)" >/dev/null
	result alarms "lanes in memory" "$(sql -c "SELECT count(*) FROM retry.lane_rows()")" - 0
	for n in 0 1 10 100; do
		rules "$n"
		look "$n rules, 1000 scenes, $lanes lanes" "<=" 1000
	done
}
