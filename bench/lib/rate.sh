# The scenario of rates, for bench/run (bash, sourced): a scene with a rate, and
# more than enough to send, judged by when the requests arrive.

scenario rate "scenes with a rate: 100/s and 5000/s, few and many lanes, dispatchers"

# spread RATE LANES SCENE: how far the fullest or emptiest 10 s are from ten times
# the rate, as a share of it; from the receiver's ledger.
spread()
{
	local tasks=$(($1 * 125 / 10))

	receiver --ledger "$WORK/ledger-$3"
	setting "retry.enabled = off"
	sleep 0.3
	sql <<-SQL >/dev/null
		INSERT INTO retry.scene (group_name, name, url, rate) VALUES ('default', '$3', '$RECEIVER/ok', '$1/s');
		SELECT count(retry.enqueue('$3', '{"a": 1}', lane => '$3 ' || n % $2)) FROM generate_series(1, $tasks) n;
	SQL
	setting "retry.enabled = on"
	await_total "$tasks"
	sleep 0.3
	sort -n "$WORK/ledger-$3" | awk -v rate="$1" '
		{ at[NR] = $1 / 1e6 }
		END {
			width = 10
			for (from = at[1]; from + width <= at[NR]; from += 0.05) {
				while (at[first + 1] < from) first++
				while (last < NR && at[last + 1] < from + width) last++
				share = (last - first) / (width * rate) - 1
				if (share < 0) share = -share
				if (share > worst) worst = share
			}
			printf "%.4f\n", worst
		}'
}

scenario_rate()
{
	local dispatchers rate lanes

	setting "retry.lane_max_in_flight = 256"
	for dispatchers in 1 3; do
		setting "retry.dispatchers = $dispatchers"
		until [ "$(sql -c "SELECT count(*) FROM retry.dispatchers")" = "$dispatchers" ]; do sleep 0.1; done
		for rate in 100 5000; do
			for lanes in 1 1000; do
				[ -z "$SHORT" ] || [[ $dispatchers-$lanes =~ ^(1-1|3-1000)$ ]] || continue
				result rate "$rate/s, $lanes lanes, $dispatchers dispatchers: off by, in 10 s" \
					"$(spread "$rate" "$lanes" "r$rate-$lanes-$dispatchers")" "<=" 0.02
			done
		done
	done
	setting "retry.dispatchers = 1"
}
