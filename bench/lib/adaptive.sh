# Scenario of an endpoint whose capacity changes, for bench/run (bash, sourced):
# what a lane sends at once by a fixed limit, and by what it finds out itself.

scenario adaptive "an endpoint whose capacity changes: a fixed limit, and an adaptive one"

# phase WORKERS SECONDS SCENE: so many workers at the receiver; after a third of the time,
# how many were answered per second and how long the slowest twentieth took, in
# ms, from the sender's own records.
phase()
{
	local workers=$1 seconds=$2 scene=$3 from before t0 t1

	receiver_request GET "/_capacity?n=$workers" >/dev/null
	sleep $((seconds / 3))
	from=$(sql -c "SELECT now()")
	before=$(stat total) t0=$(date +%s%N)
	sleep $((seconds - seconds / 3))
	t1=$(date +%s%N)
	awk -v n=$(($(stat total) - before)) -v t=$((t1 - t0)) 'BEGIN { printf "%.0f ", n * 1e9 / t }'
	sql -c "SELECT round(1000 * extract(epoch FROM percentile_disc(0.95) WITHIN GROUP (ORDER BY duration)))
		FROM retry.attempts WHERE scene = 'default/$scene' AND finished_at > '$from'"
}

# changing SCENE SECONDS: three phases, one line each.
changing()
{
	local workers

	receiver --count-only
	sql -c "INSERT INTO retry.scene (name, url, adaptive, max_in_flight)
			VALUES ('$1', '$RECEIVER/capacity/20?ms=20', '$1' LIKE 'adaptive%', 200)" \
		-c "SELECT count(*) FROM retry.enqueue_many('$1', array_fill('{\"a\": 1}'::jsonb, ARRAY[$(($2 * 5000))]))" >/dev/null
	for workers in 20 5 60; do
		phase "$workers" "$2" "$1"
	done
	sql -c "UPDATE retry.scene SET paused = true WHERE name = '$1'" >/dev/null
}

# The first round by seconds, for bench/plot: how many were answered, how long the
# slowest twentieth took, and how many were under way on average.
adaptive_series()
{
	sql -F $'\t' <<-SQL
		\\pset tuples_only off
		\\pset footer off
		WITH second AS (
			SELECT scene, floor(extract(epoch FROM finished_at - min(started_at) OVER (PARTITION BY scene)))::int AS s, duration
			FROM retry.attempts WHERE scene IN ('default/fixed-1', 'default/adaptive-1')),
		figures AS (
			SELECT scene LIKE '%adaptive%' AS adaptive, s, count(*) AS answered, sum(extract(epoch FROM duration)) AS under_way,
				1000 * extract(epoch FROM percentile_disc(0.95) WITHIN GROUP (ORDER BY duration)) AS p95
			FROM second GROUP BY 1, 2)
		SELECT f.s, round(f.under_way) AS "requests under way: 200 allowed", round(a.under_way) AS "requests under way: adaptive",
			round(f.p95) AS "p95, ms: 200 allowed", round(a.p95) AS "p95, ms: adaptive",
			f.answered AS "answered a second: 200 allowed", a.answered AS "answered a second: adaptive"
		FROM figures f JOIN figures a ON a.s = f.s AND a.adaptive AND NOT f.adaptive
		WHERE f.s < $1 ORDER BY f.s;
	SQL
}

scenario_adaptive()
{
	local seconds workers round scene phase

	seconds=$(sized 30 15)
	setting "retry.lane_max_in_flight = 200"
	for round in $(seq "$ROUNDS"); do
		for scene in fixed adaptive; do
			changing "$scene-$round" "$seconds" >"$WORK/phases" || die "the phases did not end"
			for workers in 20 5 60; do
				read -r -a phase
				keep answered/s "$scene, $workers workers" "${phase[0]}"
				keep "ms (p95)" "$scene, $workers workers: p95" "${phase[1]}"
			done <"$WORK/phases"
		done
	done
	[ -z "$DATA" ] || adaptive_series $((seconds * 3 - 1)) >"$DATA/adaptive.tsv"
	for workers in 20 5 60; do
		result adaptive "$workers workers of 20 ms, 200 at once: answered/s" "$(middle "fixed, $workers workers")" - 0
		result adaptive "$workers workers, adaptive: answered/s" "$(middle "adaptive, $workers workers")" - 0
		result adaptive "ratio" "$(of_middles "adaptive, $workers workers" "fixed, $workers workers")" ">=" 0.7
		result adaptive "$workers workers, 200 at once: p95, ms" "$(middle "fixed, $workers workers: p95")" - 0
		result adaptive "$workers workers, adaptive: p95, ms" "$(middle "adaptive, $workers workers: p95")" - 0
		result adaptive "ratio" "$(of_middles "adaptive, $workers workers: p95" "fixed, $workers workers: p95")" "<=" 0.7
	done
}
