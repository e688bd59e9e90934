# Scenarios of one lane and of the store, for bench/run (bash, sourced): what a
# task costs, and that the cost does not grow with what waits or is done.

scenario_throughput()
{
	receiver --count-only
	setting "retry.lane_max_in_flight = 256"
	deliver "$TASKS" /ok >/dev/null
	: >"$WORK/a"; : >"$WORK/b"
	for _ in $(seq "$ROUNDS"); do
		bare_curl epoll $((TASKS * 2)) 256 "$RECEIVER/ok" >>"$WORK/b"
		deliver "$TASKS" /ok >>"$WORK/a"
	done
	result throughput "bare curl multi, 256 in flight, requests/s" "$(median <"$WORK/b")" - 0
	result throughput "delivered and recorded/s, 256 in flight" "$(median <"$WORK/a")" - 0
	result throughput "ratio" "$(ratio "$(median <"$WORK/a")" "$(median <"$WORK/b")")" ">=" 0.5
}

scenario_slow()
{
	receiver --count-only --delay-ms 50
	setting "retry.lane_max_in_flight = 1000"
	: >"$WORK/a"; : >"$WORK/b"
	for _ in $(seq "$ROUNDS"); do
		bare_curl epoll "$TASKS" 1000 "$RECEIVER/ok" >>"$WORK/b"
		deliver "$TASKS" /ok >>"$WORK/a"
	done
	result slow "bare curl multi, 50 ms, 1000 in flight, requests/s" "$(median <"$WORK/b")" - 0
	result slow "delivered and recorded/s" "$(median <"$WORK/a")" - 0
	result slow "ratio" "$(ratio "$(median <"$WORK/a")" "$(median <"$WORK/b")")" ">=" 0.9
}

scenario_latency()
{
	local n=2000 gap what

	[ -z "$SHORT" ] || n=200

	for what in "idle 50" "trickle 5"; do
		gap=${what#* } what=${what% *}
		rm -f "$WORK/ledger"
		receiver --ledger "$WORK/ledger"
		"$WORK/trickle" "host=$PGHOST port=$PGPORT user=postgres dbname=postgres" "$RECEIVER/ok" 100 1 >/dev/null
		"$WORK/trickle" "host=$PGHOST port=$PGPORT user=postgres dbname=postgres" "$RECEIVER/ok" "$n" "$gap" >"$WORK/commits"
		await_total $((n + 100))
		kill -USR1 "$RECEIVER_PID"
		sleep 0.3
		arrivals >"$WORK/a"
		[ "$(wc -l <"$WORK/a")" = "$n" ] || { result latency "$what: arrivals found in the ledger" "$(wc -l <"$WORK/a")" ">=" "$n"; continue; }
		result latency "$what: commit to arrival, p50, ms" "$(sed -n "$((n / 2))p" "$WORK/a")" "<=" 1
		result latency "$what: commit to arrival, p99, ms" "$(sed -n "$((n * 99 / 100))p" "$WORK/a")" "<=" 5
	done
}

scenario_flat()
{
	local base with

	receiver --count-only
	setting "retry.lane_max_in_flight = 256"
	measure() { for _ in $(seq "$ROUNDS"); do deliver "$TASKS" /ok; done | median; }
	deliver "$TASKS" /ok >/dev/null
	base=$(measure)
	result flat "nothing else there, delivered/s" "$base" - 0

	sql -c "SELECT count(*) FROM generate_series(1, $MANY / 100000) g,
		LATERAL (SELECT retry.enqueue_many('$RECEIVER/ok', array_fill('{\"a\": 1}'::jsonb, ARRAY[100000]), delay => '2 days')) x" >/dev/null
	with=$(measure)
	result flat "$MANY pending for later in the same lane, ratio" "$(ratio "$with" "$base")" ">=" 0.95

	finished "$MANY"
	with=$(measure)
	result flat "$MANY finished as well, ratio" "$(ratio "$with" "$base")" ">=" 0.95

	sql -c "CHECKPOINT"
	coproc OLD { psql -X -q -A -t; }
	echo "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM retry.scene; CREATE TEMP TABLE x(); SELECT 'open';" >&"${OLD[1]}"
	until read -r -u "${OLD[0]}" line && [ "$line" = open ]; do :; done
	deliver "$SNAPSHOT_TASKS" /ok >/dev/null
	with=$(measure)
	result flat "a transaction open over $SNAPSHOT_TASKS deliveries, ratio" "$(ratio "$with" "$base")" ">=" 0.95
	echo "ROLLBACK; \\q" >&"${OLD[1]}"
	wait "$OLD_PID" 2>/dev/null
}

# Adds N finished tasks to the lane that was used last, as plain rows.
finished()
{
	sql <<-SQL >/dev/null
		CREATE TEMP TABLE pattern AS
			SELECT t.*, a.attempt_no, a.finished_at, a.duration_us, a.outcome, a.http_status
			FROM retry.task t JOIN retry.attempt a ON a.leaf = t.leaf AND a.task_id = t.id
			ORDER BY t.due_at DESC LIMIT 1;
		CREATE TEMP TABLE ids AS
			SELECT (left(p.id::text, 15) || substr(md5(random()::text || n), 1, 3) || '-8' || substr(md5(n::text || random()), 1, 3)
				|| '-' || substr(md5(random()::text || n), 1, 12))::uuid AS id
			FROM pattern p, generate_series(1, $1) n;
		INSERT INTO retry.task (leaf, inert, id, xid, lane_hash, due_at, scene_id, enqueued_by, url, body)
			SELECT p.leaf, false, i.id, p.xid, p.lane_hash, p.due_at, p.scene_id, p.enqueued_by, p.url, p.body
			FROM pattern p, ids i ON CONFLICT DO NOTHING;
		INSERT INTO retry.attempt (leaf, http_status, attempt_no, task_id, lane_hash, finished_at, duration_us, scene_id, outcome)
			SELECT p.leaf, p.http_status, 1, i.id, p.lane_hash, p.finished_at, p.duration_us, p.scene_id, p.outcome
			FROM pattern p, ids i ON CONFLICT DO NOTHING;
	SQL
	sql -c "VACUUM ANALYZE" >/dev/null
}

scenario_memory()
{
	local pid a b

	receiver --count-only
	sql -c "SELECT count(*) FROM generate_series(1, $LANES) g,
		LATERAL (SELECT retry.enqueue_many('$RECEIVER/ok', array_fill('{\"a\": 1}'::jsonb, ARRAY[$((MANY / LANES))]),
			delay => '2 days', lane => 'lane-' || g)) x" >/dev/null
	sleep 3
	pid=$(sql -c "SELECT pid FROM retry.dispatchers")
	result memory "lanes in the dispatcher's memory" "$(sql -c "SELECT lanes FROM retry.dispatchers")" - 0
	result memory "private memory of the dispatcher, MB" "$(awk '/RssAnon/ { print int($2 / 1024) }' "/proc/$pid/status")" "<=" 100
	a=$(awk '{ print $14 + $15 }' "/proc/$pid/stat")
	sleep 10
	b=$(awk '{ print $14 + $15 }' "/proc/$pid/stat")
	result memory "CPU of an idle dispatcher, % of a core" "$(awk -v t=$((b - a)) 'BEGIN { print t / 10 }')" "<=" 0.5
}

scenario_wal()
{
	local n=2000 start before

	receiver --count-only
	sql -c "CREATE EXTENSION IF NOT EXISTS pg_walinspect" -c "CHECKPOINT"
	before=$(sql -c "SELECT sum(attempts) FROM retry.dispatchers")
	start=$(sql -c "SELECT pg_current_wal_insert_lsn()")
	cat >"$WORK/wal.sql" <<-SQL
		SELECT retry.enqueue('$RECEIVER/ok', jsonb_build_object('pad', repeat('x', 188)));
	SQL
	pgbench -n -c 4 -t $((n / 4)) -f "$WORK/wal.sql" >/dev/null 2>&1
	sql <<-SQL
		DO \$\$ BEGIN
			WHILE (SELECT sum(attempts) FROM retry.dispatchers) < $before + $n LOOP
				PERFORM pg_sleep(0.01);
			END LOOP;
		END \$\$;
	SQL
	result wal "bytes a task, without full-page images" "$(sql -c "
		SELECT round(sum(record_size) / $n) FROM pg_get_wal_stats('$start', pg_current_wal_flush_lsn())")" "<=" 1200
}
