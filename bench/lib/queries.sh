# The scenario of questions that operators ask, for bench/run (bash, sourced): they
# go through the views of the contract, as a role that owns a group and as one
# that sees next to nothing, and must not take longer the more is finished.

scenario queries "what is asked of 10 million finished tasks"

# fill_history N: tasks of eight scenes over a week, with keys and references; two
# of a hundred are dead, one is cancelled, and one of a thousand retries or waits.
fill_history()
{
	sql -v n="$1" >/dev/null <<-'SQL'
		CREATE ROLE app;
		CREATE ROLE plain;
		INSERT INTO retry.scene_group (name, owner)
			SELECT 'app-' || i, CASE i WHEN 1 THEN 'app' ELSE current_user::text END::regrole FROM generate_series(1, 4) i;
		INSERT INTO retry.scene (group_name, name, url)
			SELECT 'app-' || 1 + i / 2, 's' || i, 'http://127.0.0.1:9/' FROM generate_series(0, 7) i;
		SELECT retry.grant('plain', 'default');
		CREATE TABLE filled AS
			SELECT n, at, ((extract(epoch FROM at)::bigint / 86400) % 32)::smallint AS leaf,
				(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
					|| '8' || substr(md5(n::text), 4, 15))::uuid AS id,
				(SELECT min(id) FROM retry.scene WHERE name <> 'default') + n % 8 AS scene_id,
				CASE WHEN n / 8 % 100 < 2 THEN 'dead' WHEN n / 8 % 100 = 2 THEN 'cancelled' WHEN n / 8 % 1000 = 3 THEN 'pending'
					WHEN n / 8 % 1000 = 4 THEN 'retrying' ELSE 'succeeded' END AS kind
			FROM (SELECT n, now() - (n::float8 / :n) * interval '7 days' AS at FROM generate_series(1, :n) n) x;
		INSERT INTO retry.task (leaf, inert, id, xid, lane_hash, due_at, scene_id, enqueued_by, key, reference, body)
			SELECT leaf, false, id, pg_current_xact_id(), scene_id, CASE kind WHEN 'pending' THEN now() + interval '1 day' ELSE at END,
				scene_id, current_user::regrole, 'key-' || n, 'reference-' || n / 5, '{}'
			FROM filled;
		INSERT INTO retry.attempt (leaf, http_status, attempt_no, task_id, lane_hash, finished_at, duration_us, scene_id, outcome, next_due)
			SELECT leaf, CASE kind WHEN 'succeeded' THEN 200 ELSE 500 END, 1, id, scene_id, at + interval '1 s', 5000, scene_id,
				CASE kind WHEN 'succeeded' THEN 'succeeded' ELSE 'failed' END::retry.outcome,
				CASE kind WHEN 'retrying' THEN now() + interval '1 day' END
			FROM filled WHERE kind IN ('succeeded', 'dead', 'retrying');
		INSERT INTO retry.signal (leaf, action, after_attempt, task_id, xid, lane_hash, due_at, inert, asked_by)
			SELECT leaf, 'c', 0, id, pg_current_xact_id(), scene_id, at, false, current_user::regrole
			FROM filled WHERE kind = 'cancelled';
		INSERT INTO retry.dead_letter
			SELECT t.*, 'exhausted', f.at, 1, 500, NULL, NULL
			FROM filled f JOIN retry.task t ON t.leaf = f.leaf AND t.id = f.id WHERE kind = 'dead';
		INSERT INTO retry.stat_hour (at, scene_id, enqueued, succeeded, failed, processing, stopped, expired, blocked, error,
				retries, dead, cancelled, busy_us, late_us, latency)
			SELECT date_trunc('hour', f.at), f.scene_id, count(*), count(*), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL
			FROM filled f GROUP BY 1, 2;
		VACUUM ANALYZE;
	SQL
}

# Lets the dispatchers find out what of it is finished, as they have where it was
# enqueued little by little.  What was not enqueued is foreign, and to be adopted.
settle_history()
{
	local since=$SECONDS last

	last=$(sql -c "SELECT max(at) FROM filled")
	sql -c "SELECT retry.adopt()" >/dev/null
	setting "retry.enabled = on"
	until [ "$(sql -c "SELECT count(*) > 0 AND min(low_water) > '$last' AND sum(cardinality(lane_hash)) = 0
			FROM (SELECT DISTINCT ON (dispatcher) low_water, lane_hash FROM (TABLE retry.checkpoint_a UNION ALL TABLE retry.checkpoint_b) c
				ORDER BY dispatcher, taken_at DESC) c")" = t ]; do
		[ $((SECONDS - since)) -lt 1800 ] || { say "the dispatchers did not get through the history in half an hour"; return 1; }
		sleep 1
	done
}

# ask ROLE WHAT OPERATOR BOUND QUERY: milliseconds that it takes, the middle of five,
# planning included, in a session that has looked at the views before.
ask()
{
	local ms

	ms=$(sql -c "SET ROLE ${1/#superuser/none}" -c "SELECT FROM retry.tasks WHERE id = '$ID'" -c "\\timing on" \
		-c "$5" -c "$5" -c "$5" -c "$5" -c "$5" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | median)
	result queries "$2, as $1, ms" "$ms" "$3" "$4"
}

# What is asked all day has a bound.  What is pending or retrying is due after all
# that is finished, so its pages stand behind all of it.  No bound has a page of
# what succeeded for a role that sees none of it: it passes over all of it.
scenario_queries()
{
	local role state last page day="now() - interval '1 day'"

	setting "retry.enabled = off"
	fill_history "$(sized 10000000 200000)"
	settle_history || return 1
	ID=$(sql -c "SELECT id FROM filled WHERE kind = 'succeeded' AND n > (SELECT max(n) / 2 FROM filled) ORDER BY n LIMIT 1")
	last=$(sql -c "SELECT max(at) FROM filled")
	for role in superuser app plain; do
		ask $role "one task" "<=" 100 "SELECT * FROM retry.tasks WHERE id = '$ID'"
		ask $role "its attempts" "<=" 100 "SELECT * FROM retry.attempts WHERE task_id = '$ID'"
		ask $role "one key" "<=" 100 "SELECT * FROM retry.tasks WHERE key = 'key-100008'"
		ask $role "one reference" "<=" 100 "SELECT * FROM retry.tasks WHERE reference = 'reference-20001'"
		ask $role "one task, by retry.find()" "<=" 100 "SELECT * FROM retry.find(id => '$ID')"
		ask $role "one key, by retry.find()" "<=" 100 "SELECT * FROM retry.find('key-100008')"
		ask $role "one reference, by retry.find()" "<=" 100 "SELECT * FROM retry.find(reference => 'reference-20001')"
		for state in pending running retrying succeeded dead cancelled; do
			page="SELECT * FROM retry.page('$state')"
			if [ "$role $state" = "plain succeeded" ]; then
				ask $role "a page of $state" - 0 "$page"
				continue
			fi
			ask $role "a page of $state" "<=" 100 "$page"
			[ $role = plain ] || [ $state = running ] ||
				ask $role "the next page of $state" "<=" 100 "SELECT * FROM retry.page('$state', '$(sql -c "SET ROLE ${role/#superuser/none}" \
					-c "SELECT id FROM retry.page('$state') WITH ORDINALITY ORDER BY ordinality DESC LIMIT 1")')"
		done
		ask $role "the newest dead letters" "<=" 100 "SELECT * FROM retry.dead_letters ORDER BY finished_at DESC LIMIT 50"
		ask $role "counts of a day" "<=" 100 "SELECT * FROM retry.stats WHERE per = 'hour' AND at >= $day"
		ask $role "overview" "<=" 100 "SELECT * FROM retry.overview"
		ask $role "what succeeded in a minute" "<=" 100 "SELECT * FROM retry.tasks WHERE state = 'succeeded'
			AND finished_at > '$last'::timestamptz - interval '1 min' ORDER BY finished_at DESC LIMIT 50"
	done
}
