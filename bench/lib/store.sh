# Scenarios of the store, for bench/run (bash, sourced): what a task costs, and
# that the cost does not grow with what waits or is done.

scenario flat "throughput with 10 million pending, as many finished, an old snapshot"
scenario huge "the same with 50 million, where there is disk for them"
scenario memory "a dispatcher's memory with many pending in 100,000 lanes; idle CPU"
scenario wal "WAL bytes of one task, enqueue and outcome"
scenario cost "disk bytes and the dispatcher's CPU of one task"
scenario rest "what an installation costs that has nothing to do"

# ---------------------------------------------------------------- flatness

scenario_flat()
{
	flat_with "$(sized 10000000 300000)" "$(sized 1000000 60000)"
}

# A pending task takes some 450 bytes with its indexes, a finished one 700, and
# as much WAL may wait to be recycled.
scenario_huge()
{
	local many=50000000 free

	[ -z "$SHORT" ] || { skipped "not in the short form"; return; }
	free=$(df --output=avail -B 1G "$WORK" | tail -n 1)
	[ "$free" -ge $((many / 1000000 * 2)) ] || { skipped "$many tasks need $((many / 1000000 * 2)) GB of disk, there are $free"; return; }
	flat_with "$many" 1000000
}

# on PORT COMMAND...: at that server.
on()
{
	local PGPORT=$1

	"${@:2}"
}

# delivered_with WHAT: rounds at the server that has it, and in turns at an empty one.
delivered_with()
{
	for _ in $(seq "$ROUNDS"); do
		keep tasks/s "empty, beside $1" "$(on 5433 deliver "$TASKS" /ok)"
		keep tasks/s "$1" "$(deliver "$TASKS" /ok)"
	done
	results "empty, beside $1" "$1"
	result "$SCENARIO" "$1, ratio" "$(of_middles "$1" "empty, beside $1")" ">=" 0.95
}

# flat_with MANY DELIVERIES
flat_with()
{
	local port

	receiver --count-only
	PORT=5433 new_server "$WORK/data-empty"
	for port in 5433 5432; do
		export PGPORT=$port
		setting "retry.lane_max_in_flight = 256"
		deliver "$TASKS" /ok >/dev/null
	done

	sql -c "SELECT count(*) FROM generate_series(1, $1 / 100000) g,
		LATERAL (SELECT retry.enqueue_many('$RECEIVER/ok', array_fill('{\"a\": 1}'::jsonb, ARRAY[100000]), delay => '2 days')) x" >/dev/null
	delivered_with "$1 pending for later in the same lane"

	finished "$1"
	delivered_with "$1 finished as well"

	sql -c "CHECKPOINT"
	coproc OLD { psql -X -q -A -t; }
	echo "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM retry.scene; CREATE TEMP TABLE x(); SELECT 'open';" >&"${OLD[1]}"
	until read -r -u "${OLD[0]}" line && [ "$line" = open ]; do :; done
	deliver "$2" /ok >/dev/null
	delivered_with "a transaction open over $2 deliveries"
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

# ---------------------------------------------------------------- what one costs

# ticks PID...: hundredths of a second of CPU that these processes have used.
ticks()
{
	local pid sum=0

	for pid; do
		sum=$((sum + $(awk '{ print $14 + $15 }' "/proc/$pid/stat" 2>/dev/null || echo 0)))
	done
	echo "$sum"
}

dispatcher_pids()
{
	sql -c "SELECT pid FROM retry.dispatchers"
}

private_kb()
{
	awk '/RssAnon/ { print $2 }' "/proc/$1/status"
}

scenario_memory()
{
	local many lanes pid empty full before

	many=$(sized 10000000 300000) lanes=$(sized 100000 5000)
	receiver --count-only
	deliver 1000 /ok >/dev/null
	pid=$(dispatcher_pids)
	empty=$(private_kb "$pid")
	sql -c "SELECT count(*) FROM generate_series(1, $lanes) g,
		LATERAL (SELECT retry.enqueue_many('$RECEIVER/ok', array_fill('{\"a\": 1}'::jsonb, ARRAY[$((many / lanes))]),
			delay => '2 days', lane => 'lane-' || g)) x" >/dev/null
	sleep 3
	full=$(private_kb "$pid")
	result memory "lanes in the dispatcher's memory" "$(sql -c "SELECT lanes FROM retry.dispatchers")" - 0
	result memory "private memory of the dispatcher, MB" "$((full / 1024))" "<=" 100
	result memory "the same for a pending task, bytes" "$(awk -v k=$((full - empty)) -v n="$many" 'BEGIN { printf "%.1f", k * 1024 / n }')" - 0
	before=$(ticks "$pid")
	sleep 10
	result memory "CPU of an idle dispatcher, % of a core" "$(awk -v t=$(($(ticks "$pid") - before)) 'BEGIN { print t / 10 }')" "<=" 0.5
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

stored_bytes()
{
	sql -c "SELECT sum(pg_relation_size(c.oid)) FROM pg_class c WHERE relnamespace = 'retry'::regnamespace AND $1"
}

# Tasks of 200 bytes, 0 ms: what is on disk after them, and the dispatcher's CPU.
scenario_cost()
{
	local pid before cpu what

	receiver --count-only
	setting "retry.lane_max_in_flight = 256"
	deliver "$TASKS" /ok >/dev/null
	pid=$(dispatcher_pids)
	for _ in $(seq "$ROUNDS"); do
		cpu=$(ticks "$pid")
		for what in "relkind = 'r'" "relkind = 'i'"; do stored_bytes "$what"; done >"$WORK/before"
		deliver "$TASKS" /ok >/dev/null
		for what in "relkind = 'r'" "relkind = 'i'"; do stored_bytes "$what"; done >"$WORK/after"
		keep "CPU us" "dispatcher's CPU" $((($(ticks "$pid") - cpu) * 10000 / TASKS))
		keep bytes "tables" "$(paste "$WORK/before" "$WORK/after" | awk -v n="$TASKS" 'NR == 1 { printf "%.0f", ($2 - $1) / n }')"
		keep bytes "indexes" "$(paste "$WORK/before" "$WORK/after" | awk -v n="$TASKS" 'NR == 2 { printf "%.0f", ($2 - $1) / n }')"
	done
	result cost "a finished task of 200 bytes: tables, bytes" "$(middle tables)" - 0
	result cost "a finished task of 200 bytes: indexes, bytes" "$(middle indexes)" - 0
	result cost "a task's share of the dispatcher's CPU, us" "$(middle "dispatcher's CPU")" - 0
}

# ---------------------------------------------------------------- at rest

# The launcher and the dispatchers, by what they call themselves.
worker_pids()
{
	sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'retry%'"
}

wakes()
{
	local pid

	for pid; do cat "/proc/$pid/status"; done | awk '/^voluntary_ctxt/ { n += $2 } END { print n }'
}

# Nothing to do at all, and nothing to do for two days; beside that, what a
# stranger's transactions lose by the extension being there.
scenario_rest()
{
	local seconds pids cpu woken wal round

	seconds=$(sized 30 10)
	receiver --count-only
	sql -c "SELECT count(*) FROM retry.enqueue_many('$RECEIVER/ok', array_fill('{\"a\": 1}'::jsonb, ARRAY[100000]), delay => '2 days')" \
		-c "CHECKPOINT" >/dev/null
	sleep 5
	mapfile -t pids < <(worker_pids)
	[ ${#pids[@]} -ge 2 ] || die "no launcher and dispatcher, but ${#pids[@]} processes"
	cpu=$(ticks "${pids[@]}") woken=$(wakes "${pids[@]}") wal=$(sql -c "SELECT pg_current_wal_insert_lsn()")
	sleep "$seconds"
	result rest "CPU of all its processes, % of a core" "$(awk -v t=$(($(ticks "${pids[@]}") - cpu)) -v s="$seconds" 'BEGIN { printf "%.2f", t / s }')" "<=" 0.5
	result rest "times they woke, a second" "$(awk -v n=$(($(wakes "${pids[@]}") - woken)) -v s="$seconds" 'BEGIN { printf "%.1f", n / s }')" - 0
	result rest "WAL, bytes a second" "$(sql -c "SELECT round((pg_current_wal_insert_lsn() - '$wal') / $seconds)")" - 0

	pgbench -i -s 10 -q >/dev/null 2>&1
	for round in $(seq "$ROUNDS"); do
		[ "$round" = 1 ] || sql -c "CREATE EXTENSION retry"
		keep tps "pgbench, the extension at rest" "$(pgbench_tps "$(sized 10 5)" -c 8 -j 2)"
		sql -c "DROP EXTENSION retry CASCADE" 2>/dev/null
		keep tps "pgbench, no extension" "$(pgbench_tps "$(sized 10 5)" -c 8 -j 2)"
	done
	results "pgbench, the extension at rest" "pgbench, no extension"
	result rest "ratio" "$(of_middles "pgbench, the extension at rest" "pgbench, no extension")" ">=" 0.95
}
