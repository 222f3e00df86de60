-- Three records of 20 fields made into one contact, by resolve() and by the same
-- rules in plpgsql over jsonb: the latest wins, name and job whole, lists united.
SET client_min_messages = warning;
CREATE EXTENSION contactsync;
SET search_path = public, contactsync;
SET TimeZone = 'UTC';

-- cells of a record in the form that suits plpgsql best: their list, with stamps that compare as they are
CREATE TABLE cells AS
SELECT i, s, c.field, c.key, c.value, extract(epoch FROM '2026-01-01'::timestamptz + (hashint8(i * 1000 + s * 100 + c.n) & 1023) * interval '1 hour')::bigint AS at
FROM generate_series(1, :n) i, generate_series(1, 3) s,
LATERAL (SELECT row_number() OVER () AS n, field, key, value FROM (VALUES
	('first_name', '', CASE s WHEN 1 THEN 'Ann' ELSE 'Anna' END), ('middle_name', '', 'M' || s), ('last_name', '', 'Lee' || i), ('prefix', '', 'Dr'),
	('suffix', '', 'PhD'), ('nickname', '', 'Nick' || s), ('company', '', 'Acme ' || s % 2), ('department', '', 'Sales'), ('title', '', 'Title ' || s),
	('birthday', '', '1970-01-1' || s), ('note', '', 'Met at the fair of ' || i + s), ('photo', '', 'https://example.com/p' || s),
	('emails', 'p' || i || '@example.com', ''), ('emails', 'p' || i || '.' || s || '@home.example', ''),
	('phones', '+49151' || 20000000 + i, ''), ('phones', '+49151' || 30000000 + 10 * i + s, ''),
	('urls', 'https://example.com/' || i, ''), ('tags', 'a', ''), ('tags', 'b' || s, ''), ('metadata', 'k', s::text)) v (field, key, value)) c;
CREATE TABLE people AS
SELECT i, array_agg(contact ORDER BY s) AS contacts, array_agg(doc ORDER BY s) AS docs FROM (
	SELECT i, s, jsonb_build_object('source', 's' || s, 'cells', jsonb_agg(jsonb_build_object('field', field, 'key', key, 'value', value, 'at', at))) AS doc,
		((jsonb_object_agg(field, value) FILTER (WHERE key = '')
			|| (SELECT jsonb_object_agg(l.field, l.list) FROM (SELECT e.field, jsonb_agg(e.key ORDER BY e.key) AS list FROM cells e
				WHERE e.i = c.i AND e.s = c.s AND e.field IN ('emails', 'phones', 'urls', 'tags') GROUP BY e.field) l)
			|| jsonb_build_object('metadata', jsonb_build_object('k', s), '_provenance', jsonb_object_agg(
				CASE WHEN key = '' THEN field ELSE field || ':' || key END,
				jsonb_build_object('source', 's' || s, 'as_of', to_timestamp(at), 'changed_at', to_timestamp(at), 'flags', '[]'::jsonb)))))::contact AS contact
	FROM cells c GROUP BY i, s) r
GROUP BY i;
DROP TABLE cells;
VACUUM (ANALYZE) people;

-- Of two claims the later stands, of two at once that of the lesser source.
CREATE FUNCTION plain_resolve(docs jsonb[]) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
	result jsonb;
	best jsonb;
	c record;
	g record;
BEGIN
	-- single values, and elements of lists: the latest claim of each
	SELECT jsonb_object_agg(l.field, l.value) INTO result FROM (
		SELECT z.field, CASE WHEN z.field IN ('emails', 'phones', 'urls') THEN jsonb_agg(z.element ORDER BY z.key)
			WHEN z.field = 'tags' THEN jsonb_agg(z.key ORDER BY z.key)
			WHEN z.field = 'metadata' THEN jsonb_object_agg(z.key, z.value::jsonb) FILTER (WHERE z.field = 'metadata')
			ELSE to_jsonb(min(z.value)) END AS value
		FROM (
			-- the oldest address and number is the primary one
			SELECT y.*, jsonb_build_object(CASE y.field WHEN 'emails' THEN 'address' WHEN 'phones' THEN 'number' ELSE 'url' END, y.key)
				|| CASE WHEN y.field <> 'urls' AND row_number() OVER (PARTITION BY y.field ORDER BY y.at, y.key) = 1
					THEN '{"primary": true}' ELSE '{}' END::jsonb AS element
			FROM (SELECT DISTINCT ON (x.field, x.key) x.field, x.key, x.value, x.at
				FROM unnest(docs) d, jsonb_to_recordset(d -> 'cells') AS x (field text, key text, value text, at bigint)
				WHERE x.field NOT IN ('first_name', 'middle_name', 'last_name', 'prefix', 'suffix', 'company', 'department', 'title')
				ORDER BY x.field, x.key, x.at DESC, d ->> 'source', x.value) y) z
		GROUP BY z.field) l;
	-- groups: whole from the record whose newest member is the latest, gaps from those that agree with it
	FOR g IN SELECT * FROM (VALUES ('last_name', ARRAY['first_name', 'middle_name', 'last_name', 'prefix', 'suffix']),
			('company', ARRAY['company', 'department', 'title'])) v (lead, members)
	LOOP
		best := NULL;
		FOR c IN
			SELECT jsonb_object_agg(x.field, x.value) AS claim
			FROM unnest(docs) d, jsonb_to_recordset(d -> 'cells') AS x (field text, value text, at bigint)
			WHERE x.field = ANY (g.members)
			GROUP BY d ->> 'source' HAVING bool_or(x.field = g.lead)
			ORDER BY max(x.at) DESC, min(d ->> 'source')
		LOOP
			IF best IS NULL THEN
				best := c.claim;
			ELSIF NOT EXISTS (SELECT FROM jsonb_each(c.claim) m WHERE best ? m.key AND best -> m.key <> m.value) THEN
				best := c.claim || best;
			END IF;
		END LOOP;
		result := result || coalesce(best, '{}');
	END LOOP;
	RETURN result;
END
$$;
SELECT 1 / (count(*) = :n)::integer AS same FROM people WHERE resolve(contacts, '{}')::jsonb - '_provenance' = plain_resolve(docs) \gset

CREATE TABLE took (what text, us numeric);
CREATE PROCEDURE bench(what text, expression text, n integer, times integer) LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz;
BEGIN
	FOR i IN 0 .. 5 LOOP
		began := clock_timestamp();
		EXECUTE format('SELECT count(%s) FROM public.people, generate_series(1, %s)', expression, times);
		CONTINUE WHEN i = 0;
		INSERT INTO public.took VALUES (what, extract(epoch FROM clock_timestamp() - began) * 1000000 / n / times);
	END LOOP;
END
$$;
CALL bench('resolve()', 'contactsync.resolve(contacts, ''{}''::contactsync.merge_policy)', :n, 20);
CALL bench('plpgsql over jsonb', 'public.plain_resolve(docs)', :n, 1);
SELECT what, round(us::numeric, 1) AS us, round((SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY us) FROM took WHERE what LIKE 'plpgsql%')::numeric / us::numeric, 1) AS "of plpgsql's rate"
FROM (SELECT what, percentile_cont(0.5) WITHIN GROUP (ORDER BY us) AS us FROM took GROUP BY what) m ORDER BY us;
