--
-- Type backoff: text form, errors, equality, binary form, preview.
--
-- the operators of the type are in its schema
SET search_path = public, retry;
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';

-- What a text becomes, and whether that reads back to the same value.
CREATE FUNCTION show_backoff(VARIADIC texts text[])
RETURNS TABLE (input text, canonical text, same boolean)
LANGUAGE sql AS $$
	SELECT t, t::retry.backoff::text,
		   t::retry.backoff = t::retry.backoff::text::retry.backoff
	FROM unnest(texts) WITH ORDINALITY AS u (t, n) ORDER BY n
$$;

-- How a text is refused.
CREATE FUNCTION refuse_backoff(VARIADIC texts text[])
RETURNS TABLE (input text, state text, detail text)
LANGUAGE plpgsql AS $$
BEGIN
	FOREACH input IN ARRAY texts LOOP
		BEGIN
			state := 'accepted';
			detail := input::retry.backoff::text;
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL;
		END;
		RETURN NEXT;
	END LOOP;
END
$$;

-- every form
SELECT * FROM show_backoff('fixed 30s', 'linear 10s max 5m',
	'exponential 1s factor 2 max 1h', 'levels 10s,15s,30s,1m',
	'random 5s..60s', $$cron '*/5 9-17 * * mon-fri'$$,
	$$cron '*/5 9-17 * * mon-fri' tz Europe/Paris$$,
	'levels easyretry', 'levels rocketmq', 'levels standard-webhooks',
	'levels best-effort');

-- every jitter
SELECT * FROM show_backoff('fixed 30s jitter none', 'fixed 30s jitter full',
	'fixed 30s jitter equal', 'fixed 30s jitter decorrelated',
	'fixed 30s jitter 20%', 'fixed 30s jitter 0%',
	'exponential 1s factor 2 max 1h jitter full', 'linear 1s jitter equal',
	'levels rocketmq jitter 10%', 'random 1s..9s jitter full',
	$$cron '@daily' tz Asia/Tokyo jitter 5%$$);

-- units, case, white space, defaults
SELECT * FROM show_backoff('fixed 90s', 'fixed 3600s', 'fixed 60s',
	'fixed 1000ms', 'fixed 1500ms', 'fixed 48h', 'fixed 0d', 'fixed 365d',
	'  FIXED  30 S ', E'Levels\t10s ,\n60s', 'exponential 1s',
	'exponential 1s max 60m factor 1.500', 'EXPONENTIAL 1S MAX 1H JITTER FULL FACTOR 3',
	'linear 10s max 365d');

-- schedules
SELECT * FROM show_backoff($$cron '@hourly'$$, $$cron '@daily'$$,
	$$cron '@midnight'$$, $$cron '@weekly'$$, $$cron '@monthly'$$,
	$$cron '@yearly'$$, $$cron '@annually'$$,
	$$cron '0,15,30,45 * * * 1-5'$$, $$cron '0 0 1 JAN,jul *'$$,
	$$cron '0 0 * * 7'$$, $$cron '0 0 * * fri-sun'$$,
	$$cron '10-20/5,40 0-23 1-31/10 * *'$$, $$cron "0 0 29 2 *"$$,
	$$cron '0 12 * * *' tz utc$$, $$cron '0 12 * * *' tz eUROPE/pARIS$$,
	$$cron '0 12 * * *' tz Etc/GMT+5$$);

-- every mistake is refused as 22P02, with its place
SELECT * FROM refuse_backoff('', '  ', 'never', '30s', 'fixed', 'fixed 30',
	'fixed thirty', 'fixed -1s', 'fixed 1.5h', 'fixed 1h30m', 'fixed 1 week',
	'fixed 366d', 'fixed 99999999999999999999d', 'fixed 1s 2s',
	'fixed 1s max 2s', 'fixed 1s;', 'fixed30s');
SELECT * FROM refuse_backoff('linear', 'linear 0s', 'linear 10s max',
	'linear 10s max 5s', 'linear 10s max 1m max 2m', 'linear 10s factor 2',
	'exponential 0s', 'exponential 1s factor', 'exponential 1s factor 0.5',
	'exponential 1s factor 101', 'exponential 1s factor 1.0001',
	'exponential 1s factor two', 'exponential 1s max 500ms');
SELECT * FROM refuse_backoff('levels', 'levels ,', 'levels 1s,', 'levels 1s,,2s',
	'levels 1s 2s', 'levels kafka', 'levels rocketmq,1s', 'random 5s',
	'random 5s..', 'random 5s.60s', 'random 5s...60s', 'random 60s..5s',
	'random 5..60s');
SELECT (refuse_backoff('levels 1s' || repeat(',1s', 63))).state,
	   (refuse_backoff('levels 1s' || repeat(',1s', 63) || ',2s')).*;
SELECT * FROM refuse_backoff('cron', 'cron @daily', $$cron ''$$, $$cron '* * * * *$$,
	$$cron '* * * *'$$, $$cron '* * * * * *'$$, $$cron '60 * * * *'$$,
	$$cron '* 24 * * *'$$, $$cron '* * 0 * *'$$, $$cron '* * * 13 *'$$,
	$$cron '* * * * 8'$$, $$cron '* * * * monday'$$, $$cron '20-10 * * * *'$$,
	$$cron '*/0 * * * *'$$, $$cron '*/60 * * * *'$$, $$cron '5/15 * * * *'$$,
	$$cron '1,,2 * * * *'$$, $$cron '* * L * *'$$, $$cron '@reboot'$$,
	$$cron '0 0 30 2 *'$$, $$cron '0 0 31 4,6 *'$$);
SELECT * FROM refuse_backoff($$cron '@daily' tz$$, $$cron '@daily' tz Mars$$,
	$$cron '@daily' tz Europe/Pari5$$, $$cron '@daily' tz EST5EDT4$$,
	$$cron '@daily' tz UTC tz UTC$$, $$cron '@daily' max 1h$$,
	$$cron '@daily' tz ../../etc/passwd$$);
SELECT * FROM refuse_backoff('fixed 1s jitter', 'fixed 1s jitter lots',
	'fixed 1s jitter 10', 'fixed 1s jitter 101%', 'fixed 1s jitter -1%',
	'fixed 1s jitter full jitter full', 'fixed 1s full',
	'random 0s..1s jitter decorrelated');

-- the whole of some messages
SELECT 'exponential 1s factor 2 max 1hour'::retry.backoff;
SELECT $$cron '*/5 9-25 * * *'$$::retry.backoff;
SELECT $$cron '@daily' tz Europe/Pari5$$::retry.backoff;
SELECT ('fixed ' || repeat('9', 300) || 's')::retry.backoff;

-- equality and hashing
SELECT 'fixed 60s'::retry.backoff = 'fixed 1m' AS same_delay,
	   'exponential 1s'::retry.backoff = 'exponential 1s factor 2 jitter none' AS same_default,
	   $$cron '@daily' tz europe/paris$$::retry.backoff = $$cron '0 0 * * *' tz Europe/Paris$$ AS same_zone,
	   'fixed 60s'::retry.backoff <> 'fixed 61s' AS other_delay,
	   'fixed 60s'::retry.backoff <> 'fixed 60s jitter full' AS other_jitter,
	   'levels 1s,2s'::retry.backoff <> 'levels 1s,2s,2s' AS other_length;
SELECT b, count(*) FROM unnest('{fixed 1m,fixed 60s,fixed 1h,fixed 60m}'::retry.backoff[]) AS b
GROUP BY b ORDER BY b::text;

-- stored, and through the binary form
CREATE TABLE backoffs (n int, b retry.backoff);
INSERT INTO backoffs VALUES (1, 'fixed 30s'), (2, 'levels easyretry jitter 5%'),
	(3, 'levels 1s,2s,1d'), (4, $$cron '*/5 * * * mon' tz America/New_York$$), (5, NULL);
SELECT encode(retry.backoff_send('fixed 90s'), 'escape') AS sent;
\getenv abs_builddir PG_ABS_BUILDDIR
\set filename :abs_builddir '/results/backoff.bin'
COPY backoffs TO :'filename' (FORMAT binary);
CREATE TABLE backoffs_copy (LIKE backoffs);
COPY backoffs_copy FROM :'filename' (FORMAT binary);
SELECT n, c.b, c.b = o.b AS same FROM backoffs_copy AS c JOIN backoffs AS o USING (n) ORDER BY n;
COPY backoffs TO STDOUT;

-- malformed binary values: version, text, zone, encoding, nothing at all
COPY (SELECT '\x02'::bytea || 'fixed 1s') TO :'filename' (FORMAT binary);
COPY backoffs_copy (b) FROM :'filename' (FORMAT binary);
\echo :LAST_ERROR_SQLSTATE
COPY (SELECT '\x01'::bytea || 'fixed 1y') TO :'filename' (FORMAT binary);
COPY backoffs_copy (b) FROM :'filename' (FORMAT binary);
\echo :LAST_ERROR_SQLSTATE
COPY (SELECT '\x01'::bytea || $$cron '@daily' tz Mars$$) TO :'filename' (FORMAT binary);
COPY backoffs_copy (b) FROM :'filename' (FORMAT binary);
\echo :LAST_ERROR_SQLSTATE
COPY (SELECT '\x01'::bytea || 'fixed 1s' || '\x0032'::bytea) TO :'filename' (FORMAT binary);
COPY backoffs_copy (b) FROM :'filename' (FORMAT binary);
\echo :LAST_ERROR_SQLSTATE
COPY (SELECT '\x'::bytea) TO :'filename' (FORMAT binary);
COPY backoffs_copy (b) FROM :'filename' (FORMAT binary);
\echo :LAST_ERROR_SQLSTATE

-- preview
SELECT * FROM retry.preview('exponential 1s factor 2 max 10s', 7, '2024-01-01 00:00+00');
SELECT * FROM retry.preview('exponential 1s factor 2 max 10s jitter full', 5, '2024-01-01 00:00+00');
SELECT * FROM retry.preview('fixed 10s jitter 20%', 4, '2024-01-01 00:00+00');
SELECT * FROM retry.preview('random 10s..20s', 3, '2024-01-01 00:00+00');
SELECT * FROM retry.preview('exponential 1s max 20s jitter decorrelated', 6, '2024-01-01 00:00+00');
SELECT attempt_no, at - lag(at) OVER (ORDER BY attempt_no) AS delay
FROM retry.preview('levels easyretry', 28, '2024-01-01 00:00+00');
SELECT count(*), bool_and(earliest <= at AND at <= latest) AS ordered
FROM unnest('{fixed 1s jitter decorrelated,linear 1s max 1m jitter 30%,random 0s..1m jitter equal,
	exponential 1s factor 10 jitter decorrelated,levels rocketmq jitter decorrelated,
	"cron ''*/7 * * * *'' tz America/New_York jitter full"}'::retry.backoff[]) AS b,
	retry.preview(b, 200, '2024-01-01 00:00+00');
SELECT count(*), max(at) FROM retry.preview('fixed 365d', 10000, '2024-01-01 00:00+00');
SELECT at FROM retry.preview('fixed 365d', 2, '294276-12-31 23:00+00');
SELECT count(*) FROM retry.preview('fixed 1s');
SELECT * FROM retry.preview('fixed 1s', 0, now());
SELECT * FROM retry.preview('fixed 1s', 10001, now());
SELECT * FROM retry.preview('fixed 1s', 3, 'infinity');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM retry.preview(NULL, 3, now());

-- schedules in a time zone, over both of its clock changes
SELECT at, at AT TIME ZONE 'Europe/Paris' AS local
FROM retry.preview($$cron '30 2 * * *' tz Europe/Paris$$, 4, '2024-03-29 12:00+00');
SELECT at, at AT TIME ZONE 'Europe/Paris' AS local
FROM retry.preview($$cron '30 2 * * *' tz Europe/Paris$$, 4, '2024-10-25 12:00+00');
SELECT at, at AT TIME ZONE 'Europe/Paris' AS local
FROM retry.preview($$cron '30 * * * *' tz Europe/Paris$$, 5, '2024-10-26 23:00+00');
SELECT at FROM retry.preview($$cron '0 0 29 2 *'$$, 4, '2092-03-01 00:00+00');
SELECT at FROM retry.preview($$cron '@hourly' jitter full$$, 2, '2024-01-01 00:00+00');

-- A time of day comes once a day in every zone of the server, whatever its
-- clock does.
SELECT count(DISTINCT name) > 300 AS zones, count(*) FILTER (WHERE bad) AS bad
FROM (
	SELECT name, count(*) OVER (PARTITION BY name, (at AT TIME ZONE name)::date) <> 1 AS bad
	FROM pg_timezone_names AS z,
		retry.preview(format($$cron '30 2 * * *' tz %s$$, name)::retry.backoff,
					  800, '2023-01-01 12:00+00')
	WHERE name ~ '^(Africa|America|Asia|Australia|Europe|Pacific)/' AND attempt_no > 1
) AS days;

DROP TABLE backoffs, backoffs_copy;
DROP FUNCTION show_backoff(text[]), refuse_backoff(text[]);
RESET search_path;
DROP EXTENSION retry;
