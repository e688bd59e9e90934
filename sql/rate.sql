--
-- Type rate: text form, errors, equality, binary form; and its column.
--
-- the operators of the type are in its schema
SET search_path = public, retry;

-- What a text becomes, and whether that reads back to the same value.
CREATE FUNCTION show_rate(VARIADIC texts text[])
RETURNS TABLE (input text, canonical text, same boolean)
LANGUAGE sql AS $$
	SELECT t, t::retry.rate::text, t::retry.rate = t::retry.rate::text::retry.rate
	FROM unnest(texts) WITH ORDINALITY AS u (t, n) ORDER BY n
$$;

-- How a text is refused.
CREATE FUNCTION refuse_rate(VARIADIC texts text[])
RETURNS TABLE (input text, state text, detail text, hint text)
LANGUAGE plpgsql AS $$
BEGIN
	FOREACH input IN ARRAY texts LOOP
		BEGIN
			state := 'accepted';
			detail := input::retry.rate::text;
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		END;
		RETURN NEXT;
	END LOOP;
END
$$;

-- every unit; the number in the shortest unit in which it is whole
SELECT * FROM show_rate('100/s', '5000/m burst 200', '10/h', '1000/d', '60/m', '3600/h',
	'86400/d', '1440/d', '90/m', '1/d', '1000000/s', '1000000000/d', ' 7 / S  BURST 3 ',
	'100/s burst 10', '100/s burst 11', '5/m burst 1', '1/d burst 36500', '1/s burst 10000000');

-- every mistake is refused as 22P02, with its place
SELECT input, state, detail FROM refuse_rate('', '  ', 'fast', '-1/s', '1.5/s', '1e3/s', '100', '100 per s',
	'100/', '100/x', '100/sec', '100/ms', '0/s', '1000001/s', '99999999999999999999/d', '5/s 3',
	'5/s bursts 3', '5/s burst', '5/s burst many', '5/s burst 0', '5/s burst 10000001',
	'5/s burst 3x', '5/s burst 3 burst 3', '1/d burst 36501', '5/s;');
SELECT DISTINCT hint FROM refuse_rate('', '0/s', '5/s burst 0') ORDER BY 1;

-- the whole of some messages
SELECT '100 per second'::retry.rate;
SELECT (repeat('9', 300) || '/s')::retry.rate;

-- equality and hashing
SELECT '60/m'::retry.rate = '1/s' AS same_rate, '100/s'::retry.rate = '100/s burst 10' AS same_burst,
	'100/s'::retry.rate <> '100/s burst 11' AS other_burst, '100/s'::retry.rate <> '100/m' AS other_unit;
SELECT r, count(*) FROM unnest('{60/m,1/s,100/s,"100/s burst 10",100/m}'::retry.rate[]) AS r
GROUP BY r ORDER BY r::text;

-- stored, and through the binary form
CREATE TABLE rates (n int, r retry.rate);
INSERT INTO rates VALUES (1, '100/s'), (2, '5000/m burst 200'), (3, '1/d'), (4, NULL);
SELECT encode(retry.rate_send('5000/m burst 200'), 'escape') AS sent;
\getenv abs_builddir PG_ABS_BUILDDIR
\set filename :abs_builddir '/results/rate.bin'
COPY rates TO :'filename' (FORMAT binary);
CREATE TABLE rates_copy (LIKE rates);
COPY rates_copy FROM :'filename' (FORMAT binary);
SELECT n, c.r, c.r = o.r AS same FROM rates_copy AS c JOIN rates AS o USING (n) ORDER BY n;
COPY rates TO STDOUT;

-- malformed binary values: version, text, nothing at all
COPY (SELECT '\x02'::bytea || '1/s') TO :'filename' (FORMAT binary);
COPY rates_copy (r) FROM :'filename' (FORMAT binary);
\echo :LAST_ERROR_SQLSTATE
COPY (SELECT '\x01'::bytea || '1/y') TO :'filename' (FORMAT binary);
COPY rates_copy (r) FROM :'filename' (FORMAT binary);
\echo :LAST_ERROR_SQLSTATE
COPY (SELECT '\x'::bytea) TO :'filename' (FORMAT binary);
COPY rates_copy (r) FROM :'filename' (FORMAT binary);
\echo :LAST_ERROR_SQLSTATE

-- the column of a scene, also in a configuration as JSON
INSERT INTO retry.scene_group (name) VALUES ('rates');
INSERT INTO retry.scene (group_name, name, rate) VALUES ('rates', 'limited', '600/m burst 20'), ('rates', 'unlimited', NULL);
SELECT name, rate FROM retry.scene WHERE group_name = 'rates' ORDER BY name;
SELECT retry.export_config('rates') #>> '{groups,0,scenes,0,rate}' AS exported;
SELECT kind, name, change FROM retry.import_config(jsonb_set(retry.export_config('rates'), '{groups,0,scenes,1,rate}', '"60/h"')) ORDER BY 2;
SELECT name, rate FROM retry.scene WHERE group_name = 'rates' ORDER BY name;
UPDATE retry.scene SET rate = '10 a second' WHERE group_name = 'rates';

DROP TABLE rates, rates_copy;
DROP FUNCTION show_rate(text[]), refuse_rate(text[]);
RESET search_path;
