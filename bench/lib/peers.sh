# Scenarios beside other job queues for PostgreSQL, for bench/run (bash, sourced):
# the same calls, delivered by retry, by graphile-worker and by pg-boss, in turns.
#
# The peers come from npm, at the versions in bench/peers/package.json, into the
# temporary folder; with RETRY_PEERS=DIR from DIR/node_modules.  Where they cannot
# be had, a scenario says so and fails nothing.

scenario peers "graphile-worker and pg-boss deliver the same: 0, 5 and 50 ms, 10 % failing"
scenario peer_latency "commit to arrival under a trickle, beside theirs"
scenario peer_wal "WAL bytes of a task, beside theirs"
scenario beside "an unrelated pgbench while each of them delivers 5,000 tasks a second"

PEERS=(graphile-worker pg-boss)
BODY="jsonb_build_object('n', n, 'pad', repeat('x', 175))"
ONE_BODY="jsonb_build_object('pad', repeat('x', 188))"

# want_peers: the peers' programs and their parts of the database.
want_peers()
{
	local dir=$WORK/peers why='' peer

	if [ ! -d "$dir/node_modules" ]; then
		rm -rf "$dir"
		cp -r bench/peers "$dir"
		if [ -n "${RETRY_PEERS:-}" ]; then
			cp -a "$RETRY_PEERS/node_modules" "$dir/" 2>/dev/null || why="there is no readable $RETRY_PEERS/node_modules"
		elif ! command -v npm >/dev/null; then
			why="there is no npm"
		elif ! (cd "$dir" && run_job 240 npm install --no-audit --no-fund --fetch-retries=1 --fetch-timeout=30000) >"$WORK/log/npm.log" 2>&1; then
			why="npm cannot install them: $(grep -m 1 'npm error' "$WORK/log/npm.log")"
		fi
	fi
	NODE=$(compgen -G "$dir/node_modules/node-linux-*/bin/node" | head -n 1)
	NODE=${NODE:-$(command -v node)}
	[ -n "$why" ] || "$NODE" -e 'process.exit(parseInt(process.versions.node) < 22 ? 1 : 0)' 2>/dev/null ||
		why="they need Node 22 or later"
	if [ -n "$why" ]; then
		[ -z "${RETRY_PEERS:-}" ] && rm -rf "$dir/node_modules"
		skipped "the peers cannot be had: $why"
		return 1
	fi
	for peer in "${PEERS[@]}"; do
		"$NODE" "$dir/$peer.mjs" install=1 >>"$WORK/log/$peer.log" 2>&1 ||
			die "$peer cannot be set up: $(tail -n 3 "$WORK/log/$peer.log")"
	done
	sql -c "SET client_min_messages = warning" -c "CREATE SCHEMA bench" -c "
		-- What its send() does, for those that are not written in Node: insert, and wake the workers.
		CREATE FUNCTION bench.boss_wake() RETURNS void LANGUAGE sql AS
			\$\$ SELECT pg_notify('pgboss_' || left(encode(sha224('pgboss'), 'hex'), 24), 'deliver') \$\$;
		CREATE FUNCTION bench.boss_send(body jsonb) RETURNS uuid LANGUAGE sql AS \$\$
			WITH job AS (INSERT INTO pgboss.job (name, data, retry_limit, retry_delay, retry_backoff)
				VALUES ('deliver', body, 25, 1, true) RETURNING id),
				woken AS MATERIALIZED (SELECT bench.boss_wake())
			SELECT id FROM job, woken \$\$"
}

# fill WHO N PATH: prints the statement that enqueues N tasks.
fill()
{
	case $1 in
		retry) say "SELECT count(*) FROM retry.enqueue_many('$RECEIVER$3', array(SELECT $BODY FROM generate_series(1, $2) n))" ;;
		graphile-worker) say "SELECT count(*) FROM graphile_worker.add_jobs(array(SELECT
			ROW('deliver', $BODY, NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec FROM generate_series(1, $2) n))" ;;
		pg-boss) say "WITH job AS (INSERT INTO pgboss.job (name, data, retry_limit, retry_delay, retry_backoff)
			SELECT 'deliver', $BODY, 25, 1, true FROM generate_series(1, $2) n RETURNING id)
			SELECT count(*), bench.boss_wake() FROM job" ;;
	esac
}

# enqueue_one WHO BODY: prints the statement that enqueues one task and returns its key.
enqueue_one()
{
	case $1 in
		retry) say "SELECT retry.enqueue('$RECEIVER/ok', $2)" ;;
		graphile-worker) say "SELECT id FROM graphile_worker.add_job('deliver', ($2)::json)" ;;
		pg-boss) say "SELECT bench.boss_send($2)" ;;
	esac
}

# start_peer WHO URL SETTING...: for retry, nothing but to let it send.
start_peer()
{
	local who=$1 url=$2

	shift 2
	if [ "$who" = retry ]; then
		setting "retry.enabled = on"
		return
	fi
	"$NODE" "$WORK/peers/$who.mjs" "url=$url" "$@" >"$WORK/run/peer.out" 2>>"$WORK/log/$who.log" </dev/null &
	PEER_PID=$!
	disown "$PEER_PID"
	until grep -q ready "$WORK/run/peer.out"; do
		kill -0 "$PEER_PID" 2>/dev/null || die "$who has ended: $(tail -n 3 "$WORK/log/$who.log")"
		sleep 0.05
	done
}

# It ends what it has begun; what is left after five seconds, it would try again.
stop_peer()
{
	if [ "$1" = retry ]; then
		setting "retry.enabled = off"
		sleep 0.3
		return
	fi
	kill "$PEER_PID"
	for _ in $(seq 100); do
		kill -0 "$PEER_PID" 2>/dev/null || return 0
		sleep 0.05
	done
	kill -9 "$PEER_PID"
}

# best WHO DELAY-MS: the settings that were best on two cores; see doc/performance.md.
best()
{
	case $1/$2 in
		graphile-worker/50) say concurrency=700 queue=2000 delay=10 ;;
		graphile-worker/5) say concurrency=256 queue=2000 delay=25 ;;
		graphile-worker/*) say concurrency=128 queue=2000 delay=25 ;;
		pg-boss/50) say mode=pump concurrency=1000 batch=500 ;;
		pg-boss/5) say mode=pump concurrency=400 batch=200 ;;
		pg-boss/*) say mode=pump concurrency=256 batch=200 ;;
	esac
}

# quick WHO: those for the shortest time from commit to arrival.
quick()
{
	case $1 in
		graphile-worker) say concurrency=24 queue=-1 delay=0 ;;
		pg-boss) say mode=work workers=1 batch=100 ;;
	esac
}

# all_recorded WHO BEFORE N: waits until it is recorded that nothing is left to do.
all_recorded()
{
	local left

	case $1 in
		retry) left="(SELECT sum(attempts) FROM retry.dispatchers) < $2 + $3" ;;
		graphile-worker) left="EXISTS (SELECT FROM graphile_worker._private_jobs)" ;;
		pg-boss) left="EXISTS (SELECT FROM pgboss.job WHERE name = 'deliver' AND state < 'completed')" ;;
	esac
	sql <<-SQL || die "$1: tasks are left undelivered"
		DO \$\$ BEGIN
			WHILE $left LOOP
				PERFORM pg_sleep(0.005);
				IF clock_timestamp() > now() + interval '1 min' THEN
					RAISE EXCEPTION 'tasks are left undelivered';
				END IF;
			END LOOP;
		END \$\$;
	SQL
}

attempts()
{
	sql -c "SELECT sum(attempts) FROM retry.dispatchers"
}

# arrived N: waits, by short steps, until the receiver has had so many requests.
arrived()
{
	local since=$SECONDS

	until [ "$(stat total)" -ge "$1" ]; do
		[ $((SECONDS - since)) -lt 120 ] || die "only $(stat total) of $1 requests have arrived"
		sleep 0.01
	done
}

# backlog WHO N PATH: prints the statement that enqueues N tasks for those who work
# at their best; for retry in 16 lanes, which its two dispatchers share.
backlog()
{
	if [ "$1" = retry ]; then
		say "SELECT count(*) FROM generate_series(1, 16) lane, LATERAL retry.enqueue_many('$RECEIVER$3',
			array(SELECT $BODY FROM generate_series(1, $2 / 16) n), lane => 'lane-' || lane)"
	else
		fill "$@"
	fi
}

# drain WHO N PATH DELAY-MS [some]: N tasks wait, are vacuumed and checkpointed, and
# are let go; prints how many were delivered and recorded a second, from the moment
# that a fifth has arrived, so that nobody's start counts.  With "some": how many
# attempts arrived a second, failures included, until there were N.
drain()
{
	local who=$1 n=$2 before since from to

	sql -c "$(backlog "$who" "$n" "$3")" >/dev/null
	sql -c "VACUUM ANALYZE" -c "CHECKPOINT"
	before=$(attempts)
	receiver_request POST /_reset >/dev/null
	# shellcheck disable=SC2046
	start_peer "$who" "$RECEIVER$3" $(best "$who" "$4")
	arrived $((n / 5))
	from=$(stat total)
	since=${EPOCHREALTIME/./}
	arrived "$n"
	to=$(stat total)
	[ -n "${5:-}" ] || all_recorded "$who" "$before" "$n"
	awk -v n=$((to - from)) -v t=$((${EPOCHREALTIME/./} - since)) 'BEGIN { printf "%.0f\n", n * 1e6 / t }'
	stop_peer "$who"
	[ -z "${5:-}" ] || drop_rest "$who"
}

# drop_rest WHO: what it still holds is of no further interest.
drop_rest()
{
	case $1 in
		retry) sql -c "SELECT retry.cancel_where()" >/dev/null ;;
		graphile-worker) sql -c "TRUNCATE graphile_worker._private_jobs" ;;
		pg-boss) sql -c "DELETE FROM pgboss.job" ;;
	esac
}

# against_best WHAT OPERATOR BOUND: the medians of the series "WHO, WHAT", and the
# ratio of retry's to that of the peer which does best.
against_best()
{
	local who best='' sorting=-rg

	[ "$2" != "<=" ] || sorting=-g
	for who in retry "${PEERS[@]}"; do
		results "$who, $1"
	done
	best=$(for who in "${PEERS[@]}"; do middle "$who, $1"; done | sort $sorting | head -n 1)
	result "$SCENARIO" "$1: ratio to the best peer" "$(ratio "$(middle "retry, $1")" "$best")" "$2" "$3"
}

# Each of them delivers, at last, what fails once: few tasks, so that nobody takes
# the endpoint for broken.
they_retry()
{
	local who n=8

	for who in retry "${PEERS[@]}"; do
		receiver
		sql -c "$(fill "$who" $n "/flaky/1?fail=503")" >/dev/null
		# shellcheck disable=SC2046
		start_peer "$who" "$RECEIVER/flaky/1?fail=503" $(best "$who" 0)
		for _ in $(seq 300); do
			[ "$(stat 2xx)" -lt $n ] || break
			sleep 0.1
		done
		result peers "$who: of $n tasks that fail once, delivered" "$(stat 2xx)" ">=" $n
		stop_peer "$who"
		drop_rest "$who"
	done
}

# in_flight N: so many by both dispatchers of retry together; a lane may have an eighth.
in_flight()
{
	setting "retry.max_in_flight = $(($1 / 2))"
	setting "retry.lane_max_in_flight = $(($1 / 8))"
}

scenario_peers()
{
	local who delay flight

	want_peers || return 0
	setting "retry.enabled = off"
	they_retry
	TASKS=$((TASKS / 16 * 16))
	setting "retry.dispatchers = 2"
	for delay in 0 5 50; do
		flight=256
		[ $delay != 50 ] || flight=1000
		receiver --count-only --delay-ms $delay
		in_flight $flight
		for _ in $(seq "$ROUNDS"); do
			keep "requests/s, $delay ms" "bare curl multi, $delay ms" "$(bare_curl epoll "$TASKS" $flight "$RECEIVER/ok")"
			for who in retry "${PEERS[@]}"; do
				keep "requests/s, $delay ms" "$who, $delay ms" "$(drain "$who" "$TASKS" /ok $delay)"
			done
		done
		results "bare curl multi, $delay ms"
		against_best "$delay ms" ">=" "$([ $delay = 0 ] && echo 2.0 || echo 1.0)"
	done
	receiver --count-only --fail-percent 10
	in_flight 256
	for _ in $(seq "$ROUNDS"); do
		for who in retry "${PEERS[@]}"; do
			keep "attempts/s" "$who, 10 % failing" "$(drain "$who" "$TASKS" /ok 0 some)"
		done
	done
	against_best "10 % failing" ">=" 1.0
}

# trickle_by WHO COUNT GAP-MS
trickle_by()
{
	"$WORK/trickle" --sql "$(enqueue_one "$1" "'{\"n\": 1}'::jsonb")" \
		"host=$PGHOST port=$PGPORT user=postgres dbname=postgres" "$RECEIVER/ok" "$2" "$3"
}

scenario_peer_latency()
{
	local who n

	n=$(sized 2000 400)
	want_peers || return 0
	for _ in $(seq "$ROUNDS"); do
		for who in retry "${PEERS[@]}"; do
			rm -f "$WORK/ledger"
			receiver --ledger "$WORK/ledger"
			# shellcheck disable=SC2046
			start_peer "$who" "$RECEIVER/ok" $(quick "$who")
			trickle_by "$who" 200 1 >/dev/null
			trickle_by "$who" "$n" 5 >"$WORK/commits"
			arrived $((n + 200))
			kill -USR1 "$RECEIVER_PID"
			sleep 0.3
			arrivals >"$WORK/a"
			[ "$(wc -l <"$WORK/a")" = "$n" ] || die "$who: only $(wc -l <"$WORK/a") of $n arrivals are in the ledger"
			keep "ms from commit to arrival" "$who, trickle, p50" "$(percentile 50 "$WORK/a")"
			keep "ms from commit to arrival" "$who, trickle, p99" "$(percentile 99 "$WORK/a")"
			stop_peer "$who"
		done
	done
	against_best "trickle, p50" "<=" 1.0
	against_best "trickle, p99" "<=" 1.0
}

# start_best WHO
start_best()
{
	# shellcheck disable=SC2046
	start_peer "$1" "$RECEIVER/ok" $(best "$1" 0)
}

# wal_of WHO WAY N: WAL bytes of a task, without full-page images.  "one by one": each
# enqueued by its own transaction, and delivered meanwhile; "at once": all of them wait.
wal_of()
{
	local who=$1 n=$3 before start

	sql -c "VACUUM ANALYZE" -c "CHECKPOINT"
	receiver_request POST /_reset >/dev/null
	before=$(attempts)
	start=$(sql -c "SELECT pg_current_wal_insert_lsn()")
	if [ "$2" = "one by one" ]; then
		start_best "$who"
		enqueue_one "$who" "$ONE_BODY" >"$WORK/one.sql"
		pgbench -n -c 4 -t $((n / 4)) -f "$WORK/one.sql" >/dev/null 2>>"$WORK/log/pgbench.log"
	else
		sql -c "$(fill "$who" "$n" /ok)" >/dev/null
		start_best "$who"
	fi
	arrived "$n"
	all_recorded "$who" "$before" "$n"
	sql -c "SELECT round(sum(record_size) / $n) FROM pg_get_wal_stats('$start', pg_current_wal_flush_lsn())"
	stop_peer "$who"
}

scenario_peer_wal()
{
	local who n way

	n=$(sized 20000 4000)
	want_peers || return 0
	sql -c "CREATE EXTENSION IF NOT EXISTS pg_walinspect"
	receiver --count-only
	setting "retry.enabled = off"
	for way in "one by one" "at once"; do
		for _ in $(seq "$ROUNDS"); do
			for who in retry "${PEERS[@]}"; do
				keep "WAL bytes a task" "$who, enqueued $way" "$(wal_of "$who" "$way" "$n")"
			done
		done
		against_best "enqueued $way" "<=" 0.8
	done
}

# beside_one WHO SECONDS: unrelated pgbench while 5,000 tasks a second are enqueued,
# a hundred a transaction, and delivered; alone: while nothing else is done.
beside_one()
{
	local who=$1 seconds=$2 from since tps

	sql -c "VACUUM ANALYZE" -c "CHECKPOINT"
	receiver_request POST /_reset >/dev/null
	if [ "$who" != alone ]; then
		start_best "$who"
		fill "$who" 100 /ok | tr '\n' ' ' >"$WORK/produce.sql"
		pgbench -n -c 2 -R 50 -T $((seconds + 4)) -f "$WORK/produce.sql" >"$WORK/log/produce.log" 2>&1 &
		PRODUCER=$!
		sleep 2
	fi
	from=$(stat total)
	since=${EPOCHREALTIME/./}
	tps=$(pgbench_tps "$seconds" -c 8)
	keep "tps of an unrelated pgbench" "$who, pgbench beside it" "$tps"
	[ "$who" != alone ] || return 0
	keep "delivered/s beside pgbench" "$who, delivered of 5,000" \
		"$(awk -v n=$(($(stat total) - from)) -v t=$((${EPOCHREALTIME/./} - since)) 'BEGIN { printf "%.0f\n", n * 1e6 / t }')"
	wait "$PRODUCER"
	stop_peer "$who"
	drop_rest "$who"
}

scenario_beside()
{
	local who seconds

	seconds=$(sized 15 6)
	want_peers || return 0
	receiver --count-only
	setting "retry.enabled = off"
	pgbench -i -q -s 20 >/dev/null 2>&1
	beside_one alone "$seconds"
	forget
	for _ in $(seq "$ROUNDS"); do
		for who in alone retry "${PEERS[@]}"; do
			beside_one "$who" "$seconds"
		done
	done
	results "alone, pgbench beside it"
	for who in retry "${PEERS[@]}"; do
		results "$who, delivered of 5,000"
	done
	against_best "pgbench beside it" ">=" 1.2
}
