-- Mail goes out in the morning only.
--
-- A mail relay takes messages between 8 and 10 on working days.  The first
-- attempt is due at the next opening; what fails is tried again every ten
-- minutes while the window is open, and waits for the next day when it closes.
--
-- Run it with: examples/run daily-mail-window
-- Here the days are looked at by retry.preview, and a person opens the window.

\set ON_ERROR_STOP 1

INSERT INTO retry.scene (name, url, backoff, max_attempts)
VALUES ('mail', :'receiver' || '/flaky/1?fail=503', $$cron '*/10 8-9 * * mon-fri' tz Europe/Paris$$, 100);

-- A mail that fails on a Friday at 9:45, Paris time, and goes on failing.
SET timezone = 'Europe/Paris';
SELECT attempt_no, to_char(at, 'Dy YYYY-MM-DD HH24:MI') AS at
FROM retry.preview($$cron '*/10 8-9 * * mon-fri' tz Europe/Paris$$, 4, '2030-03-29 09:45 Europe/Paris');

-- The next opening is the first moment of the same window.
SELECT to_char(at, 'Dy YYYY-MM-DD HH24:MI') AS opening
FROM retry.preview($$cron '0 8 * * mon-fri' tz Europe/Paris$$, 2, '2030-03-29 18:00 Europe/Paris')
WHERE attempt_no = 2;

-- Nothing is sent before the window opens.
SELECT retry.enqueue('mail', '{"to": "ann@example.com"}', key => 'mail-1', due_at => '2030-04-01 08:00 Europe/Paris') AS id \gset
SELECT state, to_char(next_due, 'Dy YYYY-MM-DD HH24:MI') AS next_due FROM retry.tasks WHERE id = :'id';

-- A person opens it by hand.  The relay refuses once; the next try is for the window again.
SELECT retry.run_now(:'id');
DO $$
BEGIN
	WHILE NOT EXISTS (SELECT FROM retry.tasks WHERE key = 'mail-1' AND state = 'retrying') LOOP
		PERFORM pg_sleep(0.05);
	END LOOP;
END
$$;
SELECT state, attempts, last_status,
	(next_due AT TIME ZONE 'Europe/Paris')::time BETWEEN '08:00' AND '09:50' AS in_window,
	extract(isodow FROM next_due AT TIME ZONE 'Europe/Paris') < 6 AS on_a_working_day
FROM retry.tasks WHERE id = :'id';

-- Another push, and it is out.
SELECT retry.run_now(:'id');
SELECT retry.wait(:'id');
