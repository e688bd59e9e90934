# Scenarios of enqueueing, for bench/run (bash, sourced): against a plain INSERT
# of the same row into a table with the same indexes.  Nothing is sent meanwhile.

scenario enqueue "single-row commits by 1, 16 and 48 clients, against a plain INSERT"
scenario enqueue_many "rows by enqueue_many, and by enqueue in one transaction, against INSERT ... SELECT"
scenario million "a million rows in one transaction, against INSERT ... SELECT"

# A table as a leaf of retry.task is, with its columns and indexes, without its
# trigger.  Ids ascend there as UUIDv7 do.
plain_table()
{
	setting "retry.enabled = off"
	sql <<-SQL
		CREATE TABLE plain (LIKE retry.task_00 INCLUDING INDEXES);
		CREATE SEQUENCE plain_id CACHE 1000;
		ALTER TABLE plain ALTER id SET DEFAULT lpad(nextval('plain_id')::text, 32, '0')::uuid;
	SQL
	URL=http://127.0.0.1:1/ok
	COLUMNS="leaf, inert, xid, lane_hash, due_at, scene_id, enqueued_by, url, body"
	VALUES="0, false, pg_current_xact_id(), 5577006791947779410, now(), 1, 10, '$URL'"
}

# The postmaster's children that have ended: hundredths of a second of CPU.
ended_ticks()
{
	awk '{ print $16 + $17 }' "/proc/$(head -n 1 "$WORK/data-$SCENARIO/postmaster.pid")/stat"
}

# commits SERIES SCRIPT CLIENTS SECONDS: keeps commits a second, and the CPU of the
# server for each, which does not depend on how busy the machine is.
commits()
{
	local before tps

	before=$(ended_ticks)
	tps=$(pgbench_tps "$4" -M prepared -c "$3" -j "$(($3 > 2 ? 2 : $3))" -f "$2")
	sleep 0.3
	keep commits/s "$1, clients: $3" "$tps"
	keep "us of CPU" "$1, clients: $3: in the server" "$(awk -v t=$(($(ended_ticks) - before)) -v n="$tps" -v s="$4" 'BEGIN { printf "%.0f", t * 1e4 / (n * s) }')"
}

scenario_enqueue()
{
	local clients seconds body

	seconds=$(sized 5 2)
	plain_table
	body="{\"n\": 17, \"pad\": \"$(printf 'x%.0s' {1..175})\"}"
	echo "SELECT retry.enqueue('$URL', '$body');" >"$WORK/ours.sql"
	echo "INSERT INTO plain ($COLUMNS) VALUES ($VALUES, '${body//\"/\"}');" >"$WORK/plain.sql"
	for _ in $(seq "$ROUNDS"); do
		for clients in 1 16 48; do
			commits "plain INSERT" "$WORK/plain.sql" "$clients" "$seconds"
			commits "retry.enqueue" "$WORK/ours.sql" "$clients" "$seconds"
		done
	done
	for clients in 1 16 48; do
		results "plain INSERT, clients: $clients" "retry.enqueue, clients: $clients" \
			"plain INSERT, clients: $clients: in the server" "retry.enqueue, clients: $clients: in the server"
		result enqueue "ratio of commits, clients: $clients" "$(of_middles "retry.enqueue, clients: $clients" "plain INSERT, clients: $clients")" ">=" 0.9
	done
}

# timed STATEMENT: its seconds, commit included.
timed()
{
	psql -X -q -A -t -v ON_ERROR_STOP=1 -c '\timing on' -c "$1" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' |
		awk '{ print $1 / 1000 } END { exit !NR }' || die "failed: $1"
}

# rows SERIES ROWS STATEMENT: keeps rows a second.
rows()
{
	sql -c "CHECKPOINT"
	keep rows/s "$1" "$(awk -v s="$(timed "$3")" -v n="$2" 'BEGIN { if (s > 0) printf "%.0f", n / s }')"
}

# payloads ROWS: a table of what is enqueued.
payloads()
{
	plain_table
	sql -c "CREATE TABLE source AS SELECT jsonb_build_object('n', n, 'pad', repeat('x', 175)) AS payload FROM generate_series(1, $1) n" \
		-c "VACUUM ANALYZE source"
	INSERT_SELECT="INSERT INTO plain ($COLUMNS) SELECT $VALUES, convert_to(payload::text, 'UTF8') FROM source"
	ENQUEUE_MANY="SELECT count(*) FROM retry.enqueue_many('$URL', (SELECT array_agg(payload) FROM source))"
}

scenario_enqueue_many()
{
	local n round

	n=$(sized 200000 50000)
	payloads "$n"
	for round in $(seq $((ROUNDS + 1))); do
		rows "INSERT ... SELECT" "$n" "$INSERT_SELECT"
		rows "retry.enqueue_many" "$n" "$ENQUEUE_MANY"
		rows "retry.enqueue for each, one transaction" "$n" "SELECT count(retry.enqueue('$URL', payload)) FROM source"
		[ "$round" != 1 ] || forget		# files that had to grow first
	done
	results "INSERT ... SELECT" "retry.enqueue_many" "retry.enqueue for each, one transaction"
	result enqueue_many "ratio, enqueue_many" "$(of_middles "retry.enqueue_many" "INSERT ... SELECT")" ">=" 0.8
	result enqueue_many "ratio, enqueue for each" "$(of_middles "retry.enqueue for each, one transaction" "INSERT ... SELECT")" - 0
}

scenario_million()
{
	local n

	n=$(sized 1000000 200000)
	payloads "$n"
	for _ in $(seq "$((ROUNDS < 3 ? ROUNDS : 3))"); do
		rows "INSERT ... SELECT" "$n" "$INSERT_SELECT"
		rows "retry.enqueue_many" "$n" "$ENQUEUE_MANY"
	done
	results "INSERT ... SELECT" "retry.enqueue_many"
	result million "ratio" "$(of_middles "retry.enqueue_many" "INSERT ... SELECT")" ">=" 0.8
}
