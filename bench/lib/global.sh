# Global transactions, for bench/run (bash, sourced): how many a second, and how
# long one takes, beside the same two calls without coordination.

scenario global "sagas, TCC and messages: transactions a second, and how long one takes, against two calls without coordination"

# Statements for pgbench, each of which begins one transaction; TCC calls twice as often.
global_statements()
{
	local step="{\"action\": \"$RECEIVER/ok\", \"compensate\": \"$RECEIVER/ok/undo\"}"
	local fails="{\"action\": \"$RECEIVER/status/409\", \"compensate\": \"$RECEIVER/ok/undo\"}"

	cat >"$WORK/calls.sql" <<-SQL
		SELECT retry.enqueue('$RECEIVER/ok', '{"amount": 30}'), retry.enqueue('$RECEIVER/ok', '{"amount": 30}');
	SQL
	cat >"$WORK/saga.sql" <<-SQL
		SELECT retry.saga('[$step, $step]', '{"amount": 30}');
	SQL
	cat >"$WORK/failing.sql" <<-SQL
		SELECT retry.saga('[$step, $fails]', '{"amount": 30}');
	SQL
	cat >"$WORK/tcc.sql" <<-SQL
		WITH t AS MATERIALIZED (SELECT retry.tcc_begin() AS gid)
		SELECT retry.tcc_branch(gid, 'a', '$RECEIVER/ok', '$RECEIVER/ok', '$RECEIVER/ok/undo', '{"amount": 30}'),
			retry.tcc_branch(gid, 'b', '$RECEIVER/ok', '$RECEIVER/ok', '$RECEIVER/ok/undo', '{"amount": 30}'),
			retry.tcc_commit(gid) FROM t;
	SQL
	cat >"$WORK/message.sql" <<-SQL
		SELECT retry.prepare('$RECEIVER/ok', '{"amount": 30}', check_target => '$RECEIVER/ok/check') AS gid \gset
		SELECT retry.commit(:gid);
	SQL
}

# begin_all FILE OPTION...: pgbench's transactions, prepared as drivers do, and how many there were.
begin_all()
{
	pgbench -n -M prepared -j 2 "${@:2}" -f "$WORK/$1.sql" 2>>"$WORK/log/pgbench.log" |
		sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p'
}

# until_called N: so many calls more than $CALLED are recorded.
until_called()
{
	sql <<-SQL
		DO \$\$ BEGIN
			WHILE (SELECT sum(attempts) FROM retry.dispatchers) < $CALLED + $1 LOOP
				PERFORM pg_sleep(0.005);
				IF clock_timestamp() > now() + interval '2 min' THEN
					RAISE EXCEPTION 'calls are left undone: % of %', (SELECT sum(attempts) - $CALLED FROM retry.dispatchers), $1;
				END IF;
			END LOOP;
		END \$\$;
	SQL
}

# global_rate WHAT FILE CALLS SECONDS: begun as fast as 32 clients can; keeps how many were
# done a second, all of their calls recorded, from the first begin to the last record.
global_rate()
{
	local from=$EPOCHREALTIME n lsn

	CALLED=$(sql -c "SELECT sum(attempts) FROM retry.dispatchers")
	lsn=$(sql -c "CHECKPOINT" -c "SELECT pg_current_wal_insert_lsn()")
	from=$EPOCHREALTIME
	n=$(begin_all "$2" -c 32 -T "$4")
	until_called $((n * $3)) || die "$1: not done"
	keep transactions/s "$1" "$(awk -v s="$from" -v e="$EPOCHREALTIME" -v n="$n" 'BEGIN { printf "%.0f", n / (e - s) }')"
	keep "bytes of WAL" "$1: WAL" "$(sql -c "SELECT ((pg_current_wal_insert_lsn() - '$lsn') / $n)::int")"
}

# global_time WHAT FILE CALLS SECONDS: a hundred a second; keeps how long one took,
# from its begin to the end of its last call.
global_time()
{
	local since n

	since=$(sql -c "SELECT clock_timestamp()")
	CALLED=$(sql -c "SELECT sum(attempts) FROM retry.dispatchers")
	n=$(begin_all "$2" -c 4 -T "$4" -R 100)
	until_called $((n * $3)) || die "$1: not done"
	sql <<-SQL >"$WORK/took"
		SELECT unnest(percentile_cont('{0.5, 0.99}'::float8[]) WITHIN GROUP (ORDER BY took)) FROM (
			SELECT extract(epoch FROM max(a.finished_at) - min(least(k.due_at, g.begun_at)))::float8 * 1000 AS took
			FROM retry.task k
			JOIN retry.attempt a ON a.leaf = k.leaf AND a.task_id = k.id
			LEFT JOIN retry.global_transaction g ON g.gid = coalesce(k.parent_id, k.id)
			WHERE k.due_at >= '$since'
			GROUP BY coalesce(g.gid::text, k.xid::text)) AS t;
	SQL
	keep ms "$1: p50" "$(printf '%.2f' "$(sed -n 1p "$WORK/took")")"
	keep ms "$1: p99" "$(printf '%.2f' "$(sed -n 2p "$WORK/took")")"
}

scenario_global()
{
	local seconds kind what
	local kinds=("calls 2 two calls" "saga 2 saga" "failing 4 saga that fails" "tcc 4 TCC" "message 1 message")

	seconds=$(sized 5 2)
	receiver --count-only
	global_statements
	for _ in $(seq "$ROUNDS"); do
		for kind in "${kinds[@]}"; do
			what=${kind#* }
			global_rate "${what#* }" "${kind%% *}" "${what%% *}" "$seconds"
			global_time "${what#* }" "${kind%% *}" "${what%% *}" "$seconds"
		done
	done
	for kind in "${kinds[@]}"; do
		what=${kind#* *[0-9] }
		results "$what" "$what: WAL" "$what: p50" "$what: p99"
	done
	result global "saga, ratio to two calls" "$(of_middles "saga" "two calls")" ">=" 0.4
	result global "TCC, ratio to two calls (it makes four)" "$(of_middles "TCC" "two calls")" ">=" 0.2
	result global "message, ratio to two calls (it makes one)" "$(of_middles "message" "two calls")" ">=" 0.4
}
