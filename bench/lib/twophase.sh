# Two-phase commit, for bench/run (bash, sourced): beside the same work without
# a coordinator, and with PREPARE TRANSACTION and COMMIT PREPARED by the client.

scenario twophase "two-phase commits of two branches, against two commits, and against PREPARE and COMMIT PREPARED by hand"

# Both branches are in this server, since a client of pgbench has one connection;
# it is connected to as if it were two others.
two_servers()
{
	setting "max_prepared_transactions = 4000"
	setting "retry.sql_workers = 4"
	stop_server "$WORK/data-$SCENARIO"
	again "$WORK/data-$SCENARIO"
	sql <<-SQL
		INSERT INTO retry.server (name, conninfo)
		SELECT n, format('host=%s port=%s dbname=%s user=%s', '$PGHOST', current_setting('port'), current_database(), current_user)
		FROM unnest('{a,b}'::text[]) n;
		CREATE TABLE account (id int PRIMARY KEY, amount int NOT NULL) WITH (fillfactor = 50);
		INSERT INTO account SELECT n, 0 FROM generate_series(1, 200000) n;
		VACUUM ANALYZE account;
	SQL
	cat >"$WORK/plain.sql" <<-'SQL'
		\set a random(1, 100000)
		\set b random(100001, 200000)
		UPDATE account SET amount = amount - 1 WHERE id = :a;
		UPDATE account SET amount = amount + 1 WHERE id = :b;
	SQL
	cat >"$WORK/hand.sql" <<-'SQL'
		\set a random(1, 100000)
		\set b random(100001, 200000)
		SELECT gen_random_uuid() AS gid \gset
		BEGIN;
		UPDATE account SET amount = amount - 1 WHERE id = :a;
		PREPARE TRANSACTION ':gid/1';
		BEGIN;
		UPDATE account SET amount = amount + 1 WHERE id = :b;
		PREPARE TRANSACTION ':gid/2';
		COMMIT PREPARED ':gid/1';
		COMMIT PREPARED ':gid/2';
	SQL
	cat >"$WORK/ours.sql" <<-'SQL'
		\set a random(1, 100000)
		\set b random(100001, 200000)
		BEGIN;
		SELECT retry.twophase_begin() AS gid \gset
		SELECT retry.twophase_branch(':gid', 'a') AS one, retry.twophase_branch(':gid', 'b') AS two \gset
		COMMIT;
		BEGIN;
		UPDATE account SET amount = amount - 1 WHERE id = :a;
		PREPARE TRANSACTION ':one';
		BEGIN;
		UPDATE account SET amount = amount + 1 WHERE id = :b;
		PREPARE TRANSACTION ':two';
		SELECT retry.commit(':gid');
	SQL
}

# coordinated SECONDS: keeps how many were committed a second on both branches,
# until the last of them was.
coordinated()
{
	local from before

	before=$(sql -c "SELECT count(*) FROM retry.global_decision")
	from=$EPOCHREALTIME
	pgbench_tps "$1" -M simple -c 8 -j 2 -f "$WORK/ours.sql" >/dev/null
	until [ "$(sql -c "SELECT count(*) FROM pg_prepared_xacts")" = 0 ]; do sleep 0.05; done
	keep transactions/s "retry" "$(awk -v s="$from" -v e="$EPOCHREALTIME" -v n="$(sql -c "SELECT count(*) - $before FROM retry.global_decision")" 'BEGIN { printf "%.0f", n / (e - s) }')"
}

# keep_times WHAT: of the milliseconds in standard input, one a line.
keep_times()
{
	sort -n >"$WORK/took"
	for p in 50 99; do
		keep ms "$1: p$p" "$(awk -v p="$p" '{ ms[NR] = $1 } END { printf "%.2f", ms[int((NR - 1) * p / 100) + 1] }' "$WORK/took")"
	done
}

# coordinated_times SECONDS: fifty a second; keeps how long one took, from its begin to the
# moment that both are committed, and that is recorded here.
coordinated_times()
{
	local since

	rm -f "$WORK"/log/hand.*
	pgbench -n -M simple -c 8 -j 2 -T "$1" -R 50 -l --log-prefix="$WORK/log/hand" -f "$WORK/hand.sql" >/dev/null 2>>"$WORK/log/pgbench.log"
	cat "$WORK"/log/hand.* | awk '{ print ($3 - $7) / 1000 }' | keep_times "PREPARE and COMMIT PREPARED by hand"
	since=$(sql -c "SELECT clock_timestamp()")
	pgbench -n -M simple -c 8 -j 2 -T "$1" -R 50 -f "$WORK/ours.sql" >/dev/null 2>>"$WORK/log/pgbench.log"
	until [ "$(sql -c "SELECT count(*) FROM retry.transactions WHERE begun_at >= '$since' AND state <> 'committed'")" = 0 ]; do sleep 0.05; done
	sql -c "SELECT extract(epoch FROM max(o.at) - g.begun_at) * 1000 FROM retry.global_transaction g JOIN retry.global_outcome o USING (gid)
		WHERE g.begun_at >= '$since' AND o.op = 'commit' AND o.branch_no > 0 GROUP BY g.gid" | keep_times "retry"
}

scenario_twophase()
{
	local seconds what

	seconds=$(sized 5 2)
	two_servers
	for _ in $(seq "$ROUNDS"); do
		keep transactions/s "two commits" "$(pgbench_tps "$seconds" -M simple -c 8 -j 2 -f "$WORK/plain.sql")"
		keep transactions/s "PREPARE and COMMIT PREPARED by hand" "$(pgbench_tps "$seconds" -M simple -c 8 -j 2 -f "$WORK/hand.sql")"
		coordinated "$seconds"
		coordinated_times "$seconds"
	done
	results "two commits" "PREPARE and COMMIT PREPARED by hand" "retry"
	for what in "PREPARE and COMMIT PREPARED by hand" "retry"; do
		results "$what: p50" "$what: p99"
	done
	result twophase "ratio to PREPARE and COMMIT PREPARED by hand" "$(of_middles "retry" "PREPARE and COMMIT PREPARED by hand")" - 0
}
