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

scenario_twophase()
{
	local seconds

	seconds=$(sized 5 2)
	two_servers
	for _ in $(seq "$ROUNDS"); do
		keep transactions/s "two commits" "$(pgbench_tps "$seconds" -M simple -c 8 -j 2 -f "$WORK/plain.sql")"
		keep transactions/s "PREPARE and COMMIT PREPARED by hand" "$(pgbench_tps "$seconds" -M simple -c 8 -j 2 -f "$WORK/hand.sql")"
		coordinated "$seconds"
	done
	results "two commits" "PREPARE and COMMIT PREPARED by hand" "retry"
	result twophase "ratio to PREPARE and COMMIT PREPARED by hand" "$(of_middles "retry" "PREPARE and COMMIT PREPARED by hand")" - 0
}
