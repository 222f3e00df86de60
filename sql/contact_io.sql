-- The type contact: text, binary and jsonb forms; bad input beside good.
SET search_path = contactsync, public;

SELECT '{}'::contact, '{"first_name": null, "emails": [], "metadata": {}, "title": ""}'::contact AS cleared;
SELECT '{"last_name": "  Lovelace ", "first_name": "Ada", "company": "Analytical\u0020Engines",
  "emails": ["Ada@EXAMPLE.org", {"address": "ada@example.org", "type": "WORK", "primary": true, "verified": true}, ""],
  "phones": [{"number": "tel:+44 (0)20 7946 0958"}, "555-0100 ext. 7", "call me"],
  "addresses": [{"street": "12 St James''s Square", "city": "London", "country": "GB", "type": "home"}],
  "urls": ["HTTPS://Example.ORG/Ada"], "tags": ["vip", "VIP", "math"],
  "metadata": {"plan": {"tier": 2}, "ok": true}, "billing_contact": "yes"}'::contact;

-- what is not recognised is kept; several primaries become one
SELECT '{"emails": ["not a mail", {"address": "b@x.org", "primary": true}, {"address": "a@x.org", "primary": true}]}'::contact;

-- what an element says beyond what is kept of it goes to metadata; an element of nothing else is a fault
SELECT '{"emails": [{"address": "Ann@X.org", "label": "Private", "ids": [1, {"a": null}], "gone": null}, "b@x.org"], "phones": [{"number": "+1 650 253 0000", "sms": true}],
  "addresses": [{"city": "Bern", "geo": {"lat": 46.95}}], "metadata": {"k": 1}}'::contact;
SELECT contact_identical(c, c::text::contact) AS fixed, contact_identical(c, c::jsonb::contact) AS fixed_too
FROM (SELECT '{"emails": [{"address": "Ann@X.org", "label": "Private"}]}'::contact AS c) s;

-- text and binary forms read back to the same bytes, stamps and tombstones included
CREATE TEMP TABLE samples (id integer, c contact);
INSERT INTO samples VALUES
 (1, '{}'),
 (2, '{"first_name": "Zoë", "note": "line 1\nline 2\t\"quoted\" \\ \u0001", "tags": ["b", "a"]}'),
 (3, '{"title": "CTO", "emails": [{"address": "A@x.org"}], "_provenance": {
      "title": {"source": "crm", "as_of": "2026-11-01T10:00:00.123456Z", "changed_at": "-infinity", "flags": ["estimate"]},
      "emails:a@x.org": {"source": "phone", "as_of": "2026-11-02T00:00:00.000000Z", "changed_at": "2026-01-01T00:00:00.000000Z", "flags": ["enriched", "derived"]},
      "emails:old@x.org": {"source": "phone", "as_of": "2026-11-02T00:00:00.000000Z", "changed_at": "2026-01-01T00:00:00.000000Z", "flags": ["tombstone"]},
      "phones": {"source": "crm", "as_of": "infinity", "changed_at": "0044-03-15T00:00:00.000000Z", "flags": ["tombstone"]}}}');
SELECT c FROM samples ORDER BY id;
SELECT id, contact_identical(c, c::text::contact) AS text_same FROM samples ORDER BY id;
SELECT id, encode(contact_send(c), 'escape') ~ '^.\{' AS versioned FROM samples ORDER BY id;

-- a property: random contacts read back identically, as text and through jsonb
SELECT 20261124 AS seed;
SELECT setseed(0.20261124);
WITH parts AS (
	SELECT i, jsonb_strip_nulls(jsonb_build_object(
		'first_name', CASE WHEN random() < .7 THEN substr(md5(random()::text), 1, (random() * 12)::integer) END,
		'title', CASE WHEN random() < .4 THEN chr(160 + (random() * 500)::integer) || ' x ' || chr(769) END,
		'emails', (SELECT jsonb_agg(jsonb_build_object('address', substr(md5(random()::text || i || g), 1, 3) || '@X' || (random() * 5)::integer || '.org', 'primary', random() < .5, 'type', 'T' || (random() * 3)::integer)) FROM generate_series(1, (random() * 4)::integer) g WHERE i > 0),
		'phones', (SELECT jsonb_agg('+1' || (1000000000 + random() * 1000000000)::bigint || CASE WHEN random() < .3 THEN ' x' || g ELSE '' END) FROM generate_series(1, (random() * 3)::integer) g WHERE i > 0),
		'x' || (random() * 9)::integer, CASE WHEN random() < .5 THEN to_jsonb(random()) END)) AS j
	FROM generate_series(1, 2000) i), formed AS (SELECT i, j::contact AS c FROM parts)
SELECT count(*) AS contacts, count(*) FILTER (WHERE NOT contact_identical(c, c::text::contact)) AS text_differs,
	count(*) FILTER (WHERE NOT contact_identical(c, c::jsonb::contact)) AS jsonb_differs,
	count(*) FILTER (WHERE contact_hash(c) <> contact_hash(c::text::contact)) AS hash_differs
FROM formed;

-- the settings of a session change nothing
SET DateStyle = 'German, DMY';
SET TimeZone = 'Asia/Kathmandu';
SELECT c -> 'title' AS title, contact_provenance(c) FROM samples WHERE id = 3;
RESET DateStyle;
RESET TimeZone;

-- faults of structure: 22P02 with the JSON path
\set SHOW_CONTEXT never
\pset format unaligned
DO $$
DECLARE
	bad text;
	st text; msg text; det text;
BEGIN
	FOREACH bad IN ARRAY ARRAY[
		'', '{', '[]', '"x"', '7', 'null', '{"first_name": 7}', '{"title": ["x"]}', '{"emails": "a@b.c"}',
		'{"emails": [7]}', '{"emails": [{"address": 5}]}', '{"emails": [{"adress": "a@b.c"}]}',
		'{"emails": [{"address": "a@b.c", "primary": "yes"}]}', '{"phones": {"number": "1"}}',
		'{"addresses": ["here"]}', '{"tags": [{}]}', '{"metadata": [1]}', '{"metadata": "x"}',
		'{"_provenance": 1}', '{"_provenance": {"shoe": {}}}', '{"title": "x", "_provenance": {"title": {}}}',
		'{"_provenance": {"title": {"source": "a", "as_of": "2026-01-01T00:00:00.000000Z", "changed_at": "-infinity", "flags": []}}}',
		'{"title": "x", "_provenance": {"title": {"source": "a", "as_of": "2026-13-01T00:00:00.000000Z", "changed_at": "-infinity", "flags": []}}}',
		'{"title": "x", "_provenance": {"title": {"source": "a", "as_of": "infinity", "changed_at": "-infinity", "flags": ["bogus"]}}}',
		'{"note": "' || repeat('x', 17000000) || '"}',
		'{"tags": [' || repeat('"t",', 20) || '"t"]}',
		'{"a": ' || repeat('[', 60) || '1' || repeat(']', 60) || '}']
	LOOP
		BEGIN
			PERFORM bad::contactsync.contact;
			RAISE NOTICE 'accepted: %', left(bad, 40);
		EXCEPTION WHEN others THEN
			GET STACKED DIAGNOSTICS st = RETURNED_SQLSTATE, msg = MESSAGE_TEXT, det = PG_EXCEPTION_DETAIL;
			RAISE INFO '% % [%] %', st, msg, det, left(bad, 60);
		END;
	END LOOP;
END
$$;
-- too many values
SELECT jsonb_build_object('tags', jsonb_agg('t' || i))::contact IS NULL FROM generate_series(1, 20000) i;
-- provenance takes room of its own: what can be stored can be read back
WITH c AS (SELECT (jsonb_build_object('tags', jsonb_agg('t' || i)) || jsonb_build_object('_provenance', jsonb_object_agg('tags:t' || i,
		jsonb_build_object('source', 's' || i % 3, 'as_of', 'infinity', 'changed_at', to_char(timestamp '2026-01-01' + i % 20 * interval '1 s', 'YYYY-MM-DD"T"HH24:MI:SS".000000Z"'), 'flags', '[]'::jsonb))))::text::contact AS c
	FROM generate_series(1, 9000) i)
SELECT octet_length(c::text) > 1048576 AS large, pg_column_size(c) < octet_length(c::text) / 4 AS stamps_once, contact_identical(c, c::text::contact) AS same FROM c;
-- but not without end, and removed values count
SELECT (jsonb_build_object('tags', jsonb_agg('t' || i)) || jsonb_build_object('_provenance', jsonb_object_agg('tags:u' || i,
	'{"source": "s", "as_of": "infinity", "changed_at": "infinity", "flags": ["tombstone"]}'::jsonb)))::text::contact IS NULL FROM generate_series(1, 6000) i;
SELECT jsonb_build_object('tags', jsonb_agg('t' || i), '_provenance', (SELECT jsonb_object_agg('tags:t' || i, jsonb_build_object('source', repeat('s', 2000),
	'as_of', 'infinity', 'changed_at', 'infinity', 'flags', '[]'::jsonb)) FROM generate_series(1, 9000) i))::contact IS NULL FROM generate_series(1, 9000) i;

-- marks compose in a text without blanks, however long; only where no word has so many of them they stay, which takes no time
WITH t (what, said, kept) AS (VALUES ('kana', repeat(U&'\304B\3099', 6000), repeat(U&'\304C', 6000)),
	('Cyrillic', repeat(U&'\0438\0306', 6000), repeat(U&'\0439', 6000)), ('Ohm', U&'\2126\2126', U&'\03A9\03A9'),
	('many marks', 'a' || repeat(U&'\0301\0327', 6000), 'a' || repeat(U&'\0301\0327', 6000)))
SELECT what, jsonb_build_object('note', said)::contact ->> 'note' = kept AS kept,
	jsonb_build_object('note', said)::text::contact = jsonb_build_object('note', kept)::contact AS same FROM t ORDER BY what;
SELECT length(jsonb_build_object('note', repeat('a' || repeat(U&'\0301\0327', 4000), 40))::contact ->> 'note');
